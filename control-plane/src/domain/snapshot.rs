//! Snapshots: all members are published or none.
//!
//! ```text
//!  cutting --all flipped (I7)--> saving --all commits staged--> ready     one transaction makes every version visible
//!     |  ^                         |
//!     |  +- attempt + 1, another   +-- deadline, member gone, head moved --> failed   nothing was published (I3)
//!     |     coordinator, new commit ids
//!     +-- attempts used up, deadline, cancelled --> failed
//! ```
//!
//! Agents upload as soon as they have flipped, so commits may be staged while the controller still waits for the
//! coordinator. An abandoned commit needs no undo on its node: its blocks are in the next commit.

use muster_api::{NodeId, Reason, Timestamp};
use storage_core::units::{u64_from, usize_from};

/// Attempts before a snapshot is given up.
pub const ATTEMPTS_MAX: u64 = 3;
/// Longest wait for the coordinator's report in one attempt, without the pause itself, milliseconds.
pub const CUT_MS: i64 = 15_000;
/// How much longer it is with guests that are frozen before and thawed after the cut, milliseconds.
pub const FREEZE_MS: i64 = 40_000;
/// Longest time until everything is durable, milliseconds.
pub const SAVE_MS: i64 = 600_000;
/// Time between two attempts, milliseconds.
pub const BACKOFF_MS: i64 = 200;

/// A snapshot under way, as the snapshots loop sees it.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// How far the present attempt is.
    pub phase: Phase,
    /// Number of the present attempt, from 1.
    pub attempt: u64,
    /// When everything must be durable.
    pub deadline: Timestamp,
    /// How many members have a staged commit.
    pub staged: u64,
    /// How many members it has.
    pub members: u64,
    /// A sentence about a member that can no longer take part, if there is one.
    pub lost: Option<String>,
}

/// How far a snapshot under way is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The coordinator is at work.
    Cutting {
        /// When the next attempt begins.
        until: Timestamp,
    },
    /// The coordinator refused the present attempt. Nothing of it is published.
    Refused {
        /// When the next attempt begins.
        retry_at: Timestamp,
        /// Its reason, a stable word.
        reason: Reason,
        /// The same in a sentence.
        detail: String,
    },
    /// All members flipped and upload their blocks.
    Saving,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait: there is nothing to do yet.
    Wait,
    /// Cut again, with new commits and another coordinator.
    Again,
    /// Publish it: the commits of all members are staged.
    Publish,
    /// Give it up: a member is lost, the deadline has passed, or no further attempt is allowed.
    Fail {
        /// The reason, a stable word.
        reason: Reason,
        /// The same in a sentence.
        detail: String,
    },
}

/// What to do about a snapshot under way.
#[must_use]
pub fn plan(seen: &UnderWay, now: Timestamp) -> Next {
    let fail = |reason: Reason, detail: String| Next::Fail { reason, detail };
    if let Some(lost) = &seen.lost {
        return fail(Reason::MemberLost, lost.clone());
    }
    match &seen.phase {
        Phase::Saving if seen.staged == seen.members => Next::Publish,
        _ if now >= seen.deadline => fail(
            Reason::Deadline,
            format!("{} of {} members were durable when the time was over", seen.staged, seen.members),
        ),
        Phase::Cutting { until } if now >= *until => {
            if seen.attempt >= ATTEMPTS_MAX {
                fail(Reason::Unreachable, format!("no coordinator reported in {} attempts", seen.attempt))
            } else {
                Next::Again
            }
        }
        // A guest that does not freeze is not troubled again: whoever asked decides what to do about it.
        Phase::Refused { reason, detail, .. } if seen.attempt >= ATTEMPTS_MAX || *reason == Reason::FreezeFailed => {
            fail(reason.clone(), detail.clone())
        }
        Phase::Refused { retry_at, .. } if now >= *retry_at => Next::Again,
        Phase::Saving | Phase::Cutting { .. } | Phase::Refused { .. } => Next::Wait,
    }
}

/// The node that coordinates an attempt: a node with members, another one at each attempt. Silent nodes only if there
/// is no other. `nodes` tells for each whether it was heard from.
#[must_use]
pub fn coordinator(nodes: &[(NodeId, bool)], attempt: u64) -> Option<NodeId> {
    let mut heard: Vec<NodeId> = nodes.iter().filter(|(_, heard)| *heard).map(|(node, _)| *node).collect();
    if heard.is_empty() {
        heard = nodes.iter().map(|(node, _)| *node).collect();
    }
    heard.sort_unstable();
    heard.dedup();
    if heard.is_empty() {
        return None;
    }
    // Attempts count from 1.
    let at = (attempt - 1) % u64_from(heard.len());
    Some(heard[usize_from(at)])
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_micros(0).plus_ms(ms)
    }

    fn seen(phase: Phase) -> UnderWay {
        UnderWay { phase, attempt: 1, deadline: at(1000), staged: 1, members: 2, lost: None }
    }

    #[test]
    fn all_or_none_is_published() {
        assert_eq!(plan(&seen(Phase::Saving), at(0)), Next::Wait);
        assert_eq!(plan(&UnderWay { staged: 2, ..seen(Phase::Saving) }, at(0)), Next::Publish);
        let cutting = Phase::Cutting { until: at(500) };
        assert_eq!(
            plan(&UnderWay { staged: 2, ..seen(cutting) }, at(0)),
            Next::Wait,
            "not before the coordinator's word"
        );
    }

    #[test]
    fn everything_that_waits_has_an_end() {
        assert!(
            matches!(plan(&seen(Phase::Saving), at(1000)), Next::Fail { reason, .. } if reason == Reason::Deadline)
        );
        let cutting = Phase::Cutting { until: at(500) };
        assert_eq!(plan(&seen(cutting.clone()), at(500)), Next::Again);
        let last = UnderWay { attempt: ATTEMPTS_MAX, ..seen(cutting) };
        assert!(matches!(plan(&last, at(500)), Next::Fail { reason, .. } if reason == Reason::Unreachable));
        let refused = Phase::Refused { retry_at: at(200), reason: Reason::Busy, detail: String::new() };
        assert_eq!(plan(&seen(refused.clone()), at(100)), Next::Wait);
        assert_eq!(plan(&seen(refused.clone()), at(200)), Next::Again);
        let last = UnderWay { attempt: ATTEMPTS_MAX, ..seen(refused) };
        assert!(matches!(plan(&last, at(0)), Next::Fail { reason, .. } if reason == Reason::Busy));
        let stuck = Phase::Refused { retry_at: at(200), reason: Reason::FreezeFailed, detail: String::new() };
        assert!(matches!(plan(&seen(stuck), at(0)), Next::Fail { reason, .. } if reason == Reason::FreezeFailed));
    }

    #[test]
    fn a_complete_snapshot_is_published_even_after_its_deadline() {
        assert_eq!(plan(&UnderWay { staged: 2, ..seen(Phase::Saving) }, at(2000)), Next::Publish);
    }

    #[test]
    fn a_lost_member_fails_the_snapshot() {
        let lost = UnderWay { lost: Some("web.1 was deleted".into()), staged: 2, ..seen(Phase::Saving) };
        assert!(matches!(plan(&lost, at(0)), Next::Fail { reason, .. } if reason == Reason::MemberLost));
    }

    #[test]
    fn each_attempt_has_another_coordinator() {
        let node = |n: u128| NodeId::from(Uuid::from_u128(n));
        let nodes = [(node(3), true), (node(1), true), (node(2), false), (node(1), true)];
        assert_eq!(coordinator(&nodes, 1), Some(node(1)));
        assert_eq!(coordinator(&nodes, 2), Some(node(3)));
        assert_eq!(coordinator(&nodes, 3), Some(node(1)));
        assert_eq!(coordinator(&[(node(2), false)], 1), Some(node(2)));
        assert_eq!(coordinator(&[], 1), None);
    }
}
