//! Which boot orders are taken, so that many at once cost little.
//!
//! The members of a deployment end to boot at the same time, and there may be 10,000 of them. But an order is made from the
//! last [`BOOTS_MAX`] boots, so more than that many in a minute would only push each other out. So a version takes that many
//! in a minute, and the controller [`SECOND_MAX`] in a second for all versions together. The database does not hear of all
//! others. Several controllers count each for itself.

use std::{collections::HashMap, sync::Mutex};

use muster_api::{Timestamp, VersionId};
use storage_core::lock;

use crate::domain::boots::BOOTS_MAX;

/// Most boot orders that are taken in a second, whatever their versions.
const SECOND_MAX: u64 = 32;

/// Which boot orders were taken lately.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    second: i64,
    in_second: u64,
    minute: i64,
    /// Never more than are taken in a minute.
    in_minute: HashMap<VersionId, u64>,
}

impl Turns {
    /// Whether one of this version is taken now. It counts then.
    pub(super) fn take(&self, version: VersionId, now: Timestamp) -> bool {
        let second = now.micros().div_euclid(1_000_000);
        let mut taken = lock(&self.0);
        if taken.second != second {
            (taken.second, taken.in_second) = (second, 0);
        }
        if taken.minute != second.div_euclid(60) {
            taken.minute = second.div_euclid(60);
            taken.in_minute.clear();
        }
        let of_version = taken.in_minute.get(&version).copied().unwrap_or(0);
        let is_taken = taken.in_second < SECOND_MAX && of_version < BOOTS_MAX;
        if is_taken {
            taken.in_second += 1;
            taken.in_minute.insert(version, of_version + 1);
        }
        is_taken
    }

    /// One that was refused does not count for its version: whoever it came from keeps nobody else's out.
    pub(super) fn give_back(&self, version: VersionId) {
        if let Some(taken) = lock(&self.0).in_minute.get_mut(&version) {
            *taken = taken.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn a_version_takes_as_many_in_a_minute_as_an_order_is_made_from() {
        let (turns, version) = (Turns::default(), VersionId::generate());
        let taken = (0..60).filter(|second| turns.take(version, at(*second))).count();
        assert_eq!(taken, 8);
        assert!(turns.take(VersionId::generate(), at(59)), "another one");
        assert!(turns.take(version, at(60)), "the next minute");
    }

    #[test]
    fn one_that_is_refused_takes_no_turn_of_its_version() {
        let (turns, version) = (Turns::default(), VersionId::generate());
        for second in 0..30 {
            assert!(turns.take(version, at(second)));
            turns.give_back(version);
        }
    }

    #[test]
    fn however_many_are_told_at_once_few_are_taken_and_little_is_remembered() {
        let turns = Turns::default();
        let taken = |second| (0..10_000).filter(|_| turns.take(VersionId::generate(), at(second))).count();
        assert_eq!((taken(0), taken(0), taken(1)), (32, 0, 32));
        assert_eq!(lock(&turns.0).in_minute.len(), 64);
        assert_eq!(taken(60), 32);
        assert_eq!(lock(&turns.0).in_minute.len(), 32);
    }
}
