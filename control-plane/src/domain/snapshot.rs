//! Snapshots: all members or none.
//!
//! ```text
//!  cutting --all flipped (I7)--> saving --all commits staged--> ready     one transaction makes every version visible
//!     |  ^                         |
//!     |  +- attempt + 1, another   +-- deadline, member gone, head moved --> failed   nothing was published (I3)
//!     |     coordinator, new commit ids
//!     +-- attempts used up, deadline, cancelled --> failed
//! ```
//!
//! Commits may be staged while the controller still waits for the coordinator's word: agents upload as soon as they
//! flipped. An abandoned commit needs no undo on the node: its blocks are in the next one.

use muster_api::{NodeId, Timestamp};

/// Tries before a snapshot gives up.
pub const ATTEMPTS_MAX: u64 = 3;
/// The longest one try may wait for the coordinator's word, without the pause itself.
pub const CUT_MS: i64 = 15_000;
/// The longest until everything is durable.
pub const SAVE_MS: i64 = 600_000;
/// Between two tries.
pub const BACKOFF_MS: i64 = 200;

/// A snapshot under way, as its reconciler sees it.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// How far.
    pub phase: Phase,
    /// Which try.
    pub attempt: u64,
    /// Until when everything must be durable.
    pub deadline: Timestamp,
    /// Members whose commit is staged.
    pub staged: u64,
    /// Members.
    pub members: u64,
    /// A member that can take part no more, and why.
    pub lost: Option<String>,
}

/// How far a snapshot under way is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The coordinator works until then.
    Cutting {
        /// When the next try begins.
        until: Timestamp,
    },
    /// The coordinator said no; the next try begins then.
    Refused {
        /// When the next try begins.
        retry_at: Timestamp,
        /// What it said.
        reason: String,
        /// For people.
        detail: String,
    },
    /// All flipped.
    Saving,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// Cut again: new commits, another coordinator.
    Again,
    /// Make it visible.
    Publish,
    /// Give it up.
    Fail {
        /// A stable word.
        reason: String,
        /// For people.
        detail: String,
    },
}

/// What to do about a snapshot under way.
#[must_use]
pub fn plan(seen: &UnderWay, now: Timestamp) -> Next {
    let fail = |reason: &str, detail: String| Next::Fail { reason: reason.to_owned(), detail };
    if let Some(lost) = &seen.lost {
        return fail("member_lost", lost.clone());
    }
    match &seen.phase {
        Phase::Saving if seen.staged == seen.members => Next::Publish,
        _ if now >= seen.deadline => {
            fail("deadline", format!("{} of {} members were durable when the time was over", seen.staged, seen.members))
        }
        Phase::Cutting { until } if now >= *until => {
            if seen.attempt >= ATTEMPTS_MAX {
                fail("unreachable", format!("no coordinator reported in {} tries", seen.attempt))
            } else {
                Next::Again
            }
        }
        Phase::Refused { reason, detail, .. } if seen.attempt >= ATTEMPTS_MAX => fail(reason, detail.clone()),
        Phase::Refused { retry_at, .. } if now >= *retry_at => Next::Again,
        Phase::Saving | Phase::Cutting { .. } | Phase::Refused { .. } => Next::Wait,
    }
}

/// The node that coordinates a try: a node with members, another one at each try; silent ones only if there is no other.
#[must_use]
pub fn coordinator(nodes: &[(NodeId, bool)], attempt: u64) -> Option<NodeId> {
    let mut heard: Vec<NodeId> = nodes.iter().filter(|(_, heard)| *heard).map(|(node, _)| *node).collect();
    if heard.is_empty() {
        heard = nodes.iter().map(|(node, _)| *node).collect();
    }
    heard.sort_unstable();
    heard.dedup();
    let count = u64::try_from(heard.len()).ok().filter(|count| *count > 0)?;
    let at = usize::try_from(attempt.saturating_sub(1) % count).ok()?;
    heard.get(at).copied()
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
        assert!(matches!(plan(&seen(Phase::Saving), at(1000)), Next::Fail { reason, .. } if reason == "deadline"));
        let cutting = Phase::Cutting { until: at(500) };
        assert_eq!(plan(&seen(cutting.clone()), at(500)), Next::Again);
        let last = UnderWay { attempt: ATTEMPTS_MAX, ..seen(cutting) };
        assert!(matches!(plan(&last, at(500)), Next::Fail { reason, .. } if reason == "unreachable"));
        let refused = Phase::Refused { retry_at: at(200), reason: "busy".into(), detail: String::new() };
        assert_eq!(plan(&seen(refused.clone()), at(100)), Next::Wait);
        assert_eq!(plan(&seen(refused.clone()), at(200)), Next::Again);
        let last = UnderWay { attempt: ATTEMPTS_MAX, ..seen(refused) };
        assert!(matches!(plan(&last, at(0)), Next::Fail { reason, .. } if reason == "busy"));
    }

    #[test]
    fn a_complete_snapshot_is_published_even_after_its_deadline() {
        assert_eq!(plan(&UnderWay { staged: 2, ..seen(Phase::Saving) }, at(2000)), Next::Publish);
    }

    #[test]
    fn a_lost_member_fails_the_whole() {
        let lost = UnderWay { lost: Some("web.1 was deleted".into()), staged: 2, ..seen(Phase::Saving) };
        assert!(matches!(plan(&lost, at(0)), Next::Fail { reason, .. } if reason == "member_lost"));
    }

    #[test]
    fn each_try_has_another_coordinator() {
        let node = |n: u128| NodeId::from(Uuid::from_u128(n));
        let nodes = [(node(3), true), (node(1), true), (node(2), false), (node(1), true)];
        assert_eq!(coordinator(&nodes, 1), Some(node(1)));
        assert_eq!(coordinator(&nodes, 2), Some(node(3)));
        assert_eq!(coordinator(&nodes, 3), Some(node(1)));
        assert_eq!(coordinator(&[(node(2), false)], 1), Some(node(2)));
        assert_eq!(coordinator(&[], 1), None);
    }
}
