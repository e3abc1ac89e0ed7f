//! Restores in place: the disks of instances get the content that a snapshot has, and everything else stays.
//!
//! ```text
//!  stopping --all are off--> saving --the present is kept--> starting --all are as they were--> (ended)
//!      |       (the present is given up: no saving) |           ^
//!      |                                            +-----------+  one transaction: each disk has its new content,
//!      |                                            |              each instance a new generation (I8)
//!      +-- cancelled, deadline, member lost --------+--> those that ran are started again, and nothing is changed
//! ```
//!
//! Before that transaction nothing is lost and everything can be taken back. After it the restore goes on whatever
//! happens: a cancel only counts before. Nothing is written between the cut that keeps the present and that transaction:
//! guests are off, and a disk that is no guest's has its file closed. Nodes have to say so: as long as one has more than the
//! cut, another one is taken.

use muster_api::{Timestamp, instance::InstanceState};
use serde::{Deserialize, Serialize};

/// Longest time until guests are off, beyond the time that they have to turn off, milliseconds.
pub const STOP_MS: i64 = 180_000;
/// Longest time until the present is kept, milliseconds. A snapshot has its own deadline before that.
pub const KEEP_MS: i64 = 780_000;
/// Time between a snapshot that lacks what was written since and the next one that keeps the present, milliseconds.
pub const KEEP_AGAIN_MS: i64 = 5_000;
/// Longest time until all are as they were, milliseconds.
pub const START_MS: i64 = 600_000;

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Its instances are stopped.
    Stopping,
    /// A snapshot keeps the present.
    Saving,
    /// The disks have their new content, and those instances that ran are started.
    Starting,
}

impl Step {
    /// The word that the operation tells as its phase.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Saving => "saving",
            Self::Starting => "starting",
        }
    }
}

/// How far one instance is with being off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Off {
    /// It is off, and nobody can write to its disks.
    Yes,
    /// It is not yet. The sentence says what it waits for.
    NotYet(String),
    /// It cannot be off as long as nobody does something about it.
    Never(String),
}

/// The snapshot that keeps the present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None was begun yet.
    No,
    /// It is under way.
    UnderWay,
    /// All that it has is durable.
    Ready,
    /// It will not be there.
    Failed(String),
}

/// A restore before its transaction.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How far it is.
    pub step: Step,
    /// Whether the present is given up.
    pub discard: bool,
    /// Its instances that are still there.
    pub members: Vec<Off>,
    /// The snapshot that keeps the present.
    pub kept: Kept,
    /// Whether somebody asked to stop.
    pub cancelling: bool,
    /// When the step is given up.
    pub until: Timestamp,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for these.
    Wait(Vec<String>),
    /// Begin the snapshot that keeps the present.
    Keep,
    /// Put the new content in place.
    Put,
    /// Take everything back, because somebody asked for it.
    Cancel,
    /// Take everything back, for this reason.
    Fail(String),
    /// All its instances were deleted meanwhile.
    Nothing,
}

/// What to do about a restore before its transaction.
#[must_use]
pub fn plan(seen: &Seen, now: Timestamp) -> Next {
    if seen.members.is_empty() {
        return Next::Nothing;
    }
    if seen.cancelling {
        return Next::Cancel;
    }
    let never = seen.members.iter().find_map(|off| if let Off::Never(why) = off { Some(why) } else { None });
    if let Some(why) = never {
        return Next::Fail(why.clone());
    }
    if let Kept::Failed(why) = &seen.kept {
        return Next::Fail(format!("what the disks hold now could not be kept: {why}"));
    }
    let not_yet =
        seen.members.iter().filter_map(|off| if let Off::NotYet(what) = off { Some(what.clone()) } else { None });
    let mut waiting: Vec<String> = not_yet.collect();
    if waiting.is_empty() {
        match (seen.discard, &seen.kept) {
            (true, _) | (false, Kept::Ready) => return Next::Put,
            (false, Kept::No) if now < seen.until || seen.step == Step::Stopping => return Next::Keep,
            (false, _) => waiting.push("a snapshot keeps what the disks hold now".to_owned()),
        }
    }
    if now >= seen.until {
        return Next::Fail(format!("its time was over: {}", waiting.join("; ")));
    }
    Next::Wait(waiting)
}

/// How far one instance is with being as it was before, after the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// It is as it was.
    Yes,
    /// It is on its way. The sentence says where it is.
    NotYet(String),
    /// It will not get there by itself.
    Failed(String),
}

/// Whether an instance was meant to run when somebody asked for the restore, so that it is started afterwards. One that
/// failed while it should have run is: what was wrong with its disk may be what is restored.
#[must_use]
pub const fn is_to_run(state: InstanceState, wanted: muster_api::node_protocol::Wanted) -> bool {
    matches!(wanted, muster_api::node_protocol::Wanted::Running)
        && matches!(
            state,
            InstanceState::Starting | InstanceState::Running | InstanceState::Paused | InstanceState::Failed
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros(0).plus_ms(ms)
    }

    fn seen(step: Step, members: Vec<Off>, kept: Kept) -> Seen {
        Seen { step, discard: false, members, kept, cancelling: false, until: at(1000) }
    }

    #[test]
    fn the_present_is_kept_once_all_are_off_and_the_new_content_comes_after_it() {
        let waits = Off::NotYet("web.0: stopping".to_owned());
        let half = seen(Step::Stopping, vec![Off::Yes, waits.clone()], Kept::No);
        assert_eq!(plan(&half, at(0)), Next::Wait(vec!["web.0: stopping".to_owned()]));
        let off = seen(Step::Stopping, vec![Off::Yes], Kept::No);
        assert_eq!(plan(&off, at(0)), Next::Keep);
        assert_eq!(plan(&Seen { discard: true, ..off.clone() }, at(0)), Next::Put);
        assert!(matches!(plan(&seen(Step::Saving, vec![Off::Yes], Kept::UnderWay), at(0)), Next::Wait(_)));
        assert_eq!(plan(&seen(Step::Saving, vec![Off::Yes], Kept::Ready), at(0)), Next::Put);
        // A node that fell silent meanwhile: it may have anything.
        assert!(matches!(plan(&seen(Step::Saving, vec![waits], Kept::Ready), at(0)), Next::Wait(_)));
    }

    #[test]
    fn everything_that_waits_has_an_end() {
        let waits = Off::NotYet("web.0: its node is silent".to_owned());
        for seen in [
            seen(Step::Stopping, vec![waits.clone()], Kept::No),
            seen(Step::Saving, vec![Off::Yes], Kept::UnderWay),
            seen(Step::Saving, vec![Off::Yes], Kept::No),
            seen(Step::Saving, vec![waits], Kept::Ready),
        ] {
            assert!(matches!(plan(&seen, at(1000)), Next::Fail(_)), "{seen:?}");
        }
        // What is done counts, however late it is seen.
        assert_eq!(plan(&seen(Step::Saving, vec![Off::Yes], Kept::Ready), at(2000)), Next::Put);
    }

    #[test]
    fn a_restore_that_cannot_go_on_is_taken_back() {
        let lost = seen(Step::Stopping, vec![Off::Never("web.0 is lost".to_owned())], Kept::No);
        assert_eq!(plan(&lost, at(0)), Next::Fail("web.0 is lost".to_owned()));
        let failed = seen(Step::Saving, vec![Off::Yes], Kept::Failed("the pool is full".to_owned()));
        assert!(matches!(plan(&failed, at(0)), Next::Fail(why) if why.ends_with("the pool is full")));
        let ready = seen(Step::Saving, vec![Off::Yes], Kept::Ready);
        assert_eq!(plan(&Seen { cancelling: true, ..ready }, at(0)), Next::Cancel);
        assert_eq!(plan(&seen(Step::Stopping, Vec::new(), Kept::No), at(0)), Next::Nothing);
    }
}
