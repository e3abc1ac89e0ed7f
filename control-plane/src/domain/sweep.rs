//! When a round of the sweep begins.

use std::time::Duration;

use muster_api::Timestamp;

/// A round begins at least this often, also when nothing is known to be there for it: it lets nodes judge what they should
/// not have for reasons that nobody counted.
const AT_LEAST_EVERY: Duration = Duration::from_hours(24);

/// What is known before a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The time now.
    pub now: Timestamp,
    /// When the newest round began, or the controller started if none did.
    pub since: Timestamp,
    /// Time between two rounds.
    pub every: Duration,
    /// The newest round.
    pub current: u64,
    /// The round that an operator waits for; 0 if none ever did.
    pub asked: u64,
    /// Whether the newest round had something to give back. What was stored shortly before it began is given back by the
    /// next one only, because its stamps were too young.
    pub had_work: bool,
}

/// Whether the next round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Not yet.
    No,
    /// If there is something to give back.
    IfWork,
    /// In any case.
    Yes,
}

impl Outlook {
    /// Whether the next round begins.
    #[must_use]
    pub fn due(&self) -> Due {
        let passed =
            |time: Duration| self.now.ms_since(self.since) >= i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        if self.asked > self.current || passed(AT_LEAST_EVERY) {
            Due::Yes
        } else if !passed(self.every) {
            Due::No
        } else if self.had_work {
            Due::Yes
        } else {
            Due::IfWork
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_cluster_has_one_round_a_day_and_a_busy_one_every_few_minutes() {
        let at = |s: i64| Timestamp::from_micros(s * 1_000_000);
        let quiet = Outlook {
            now: at(599),
            since: at(0),
            every: Duration::from_mins(10),
            current: 4,
            asked: 4,
            had_work: false,
        };
        assert_eq!(quiet.due(), Due::No);
        assert_eq!(Outlook { now: at(600), ..quiet }.due(), Due::IfWork);
        assert_eq!(Outlook { now: at(86_400), ..quiet }.due(), Due::Yes);
        assert_eq!(Outlook { now: at(600), had_work: true, ..quiet }.due(), Due::Yes);
        assert_eq!(Outlook { had_work: true, ..quiet }.due(), Due::No);
        assert_eq!(Outlook { asked: 5, ..quiet }.due(), Due::Yes);
        // A clock that was set back makes nothing due.
        assert_eq!(Outlook { now: at(-90_000), had_work: true, ..quiet }.due(), Due::No);
    }
}
