//! Which agent process may act as a node (I8). Two that do would write to the same disks in two places.
//!
//! Every start of an agent has an id of its own, the *run*, and registers it here before it acts. It names the runs of its
//! data folder that it follows, and the controller compares: only who follows the present run takes its place.
//!
//! ```text
//! the folder is where it was, same boot of the host      at once: its lock proves that the run before has ended
//! the folder is where it was, the host was rebooted      when the present run was not heard for a while: a whole host may
//!                                                        have been copied
//! the folder was moved or copied, an operator said so    when the present run has stopped or is silent
//! the folder lost its list of runs, an operator said so  the same
//! ```
//! A run that was replaced is refused from then on, and its process stops its guests and ends. Silence alone replaces
//! nobody: an agent that cannot reach its controller goes on working.

use muster_api::{
    RunId,
    node_protocol::{RunPlace, RunStart, SILENT_AFTER_S},
};

/// A run that was not heard for this long has ended, if its host was rebooted. Two heartbeats and a bit.
const ENDED_MS: i64 = 7_000;

/// The run that acts as a node.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// Its id.
    pub run: RunId,
    /// Milliseconds since it was last heard; `None` if never since this controller started.
    pub heard_ms_ago: Option<i64>,
    /// Whether it has told that it ended.
    pub stopped: bool,
}

/// What becomes of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It acts as the node from now on.
    Accepted,
    /// It is to ask again: the present run may still be at work.
    Wait,
    /// The present run is at work, on another copy of the folder.
    Alive,
    /// Another run, which this folder knows nothing of, took its place.
    Replaced,
    /// It was accepted before, and is newer than the present run: the database is an older copy.
    OldDatabase,
}

/// What becomes of a start. `same_history`: the node has seen the present incarnation of the database.
#[must_use]
pub fn judge(current: Option<Current>, start: &RunStart, same_history: bool) -> Verdict {
    let Some(current) = current.filter(|current| current.run != start.run) else { return Verdict::Accepted };
    let is_quiet = |ms: i64| current.stopped || current.heard_ms_ago.is_none_or(|ago| ago >= ms);
    // A folder that knows of no run was not replaced by one: its `run.json` was lost or damaged.
    let knows_no_run = start.follows.is_empty() && start.place == RunPlace::Adopted;
    if !start.follows.contains(&current.run) && !knows_no_run {
        // A database that was restored knows an old run. It takes the one that comes, unless another one is at work.
        return match same_history {
            false if is_quiet(ENDED_MS) => Verdict::Accepted,
            false => Verdict::Wait,
            // Ids of runs begin with the time.
            true if start.accepted && start.run.uuid() > current.run.uuid() => Verdict::OldDatabase,
            true => Verdict::Replaced,
        };
    }
    match start.place {
        RunPlace::Same => Verdict::Accepted,
        RunPlace::Rebooted if is_quiet(ENDED_MS) => Verdict::Accepted,
        RunPlace::Rebooted => Verdict::Wait,
        RunPlace::Adopted if is_quiet(1000 * SILENT_AFTER_S.cast_signed()) => Verdict::Accepted,
        RunPlace::Adopted => Verdict::Alive,
    }
}

#[cfg(test)]
mod tests {
    use muster_api::node_protocol::{Incarnation, NODE_PROTOCOL};

    use super::*;

    fn run(n: u128) -> RunId {
        uuid::Uuid::from_u128(n).into()
    }

    fn start(follows: &[u128], place: RunPlace) -> RunStart {
        RunStart {
            protocol: NODE_PROTOCOL,
            incarnation: Incarnation { number: 1, random: 1 },
            run: run(9),
            follows: follows.iter().map(|n| run(*n)).collect(),
            accepted: false,
            place,
            advertise: "10.0.0.1:7450".to_owned(),
        }
    }

    fn current(n: u128, heard_ms_ago: Option<i64>) -> Option<Current> {
        Some(Current { run: run(n), heard_ms_ago, stopped: false })
    }

    #[test]
    fn only_who_follows_the_present_run_takes_its_place() {
        let same = start(&[1, 2], RunPlace::Same);
        assert_eq!(judge(None, &same, true), Verdict::Accepted);
        for followed in [1, 2, 9] {
            assert_eq!(judge(current(followed, Some(10)), &same, true), Verdict::Accepted, "{followed}");
        }
        assert_eq!(judge(current(3, Some(10)), &same, true), Verdict::Replaced);
        assert_eq!(judge(current(3, None), &start(&[], RunPlace::Same), true), Verdict::Replaced);
        assert_eq!(judge(current(3, None), &start(&[1], RunPlace::Adopted), true), Verdict::Replaced);
    }

    #[test]
    fn a_folder_that_lost_its_list_of_runs_is_adopted_when_the_present_run_is_silent() {
        let lost = start(&[], RunPlace::Adopted);
        assert_eq!(judge(current(3, Some(29_000)), &lost, true), Verdict::Alive);
        assert_eq!(judge(current(3, Some(31_000)), &lost, true), Verdict::Accepted);
    }

    #[test]
    fn a_copied_folder_waits_for_the_end_of_the_original() {
        let adopted = start(&[1], RunPlace::Adopted);
        assert_eq!(judge(current(1, Some(29_000)), &adopted, true), Verdict::Alive);
        assert_eq!(judge(current(1, Some(31_000)), &adopted, true), Verdict::Accepted);
        let stopped = current(1, Some(10)).map(|current| Current { stopped: true, ..current });
        assert_eq!(judge(stopped, &adopted, true), Verdict::Accepted);
    }

    #[test]
    fn after_a_reboot_the_run_before_must_be_quiet_for_two_heartbeats() {
        let rebooted = start(&[1], RunPlace::Rebooted);
        assert_eq!(judge(current(1, Some(3_000)), &rebooted, true), Verdict::Wait);
        assert_eq!(judge(current(1, Some(8_000)), &rebooted, true), Verdict::Accepted);
        assert_eq!(judge(current(1, None), &rebooted, true), Verdict::Accepted);
    }

    #[test]
    fn a_run_that_was_accepted_and_is_newer_shows_that_the_database_is_old() {
        let accepted = |n| RunStart { accepted: true, run: run(n), ..start(&[], RunPlace::Same) };
        assert_eq!(judge(current(3, None), &accepted(9), true), Verdict::OldDatabase);
        assert_eq!(judge(current(10, None), &accepted(9), true), Verdict::Replaced);
    }

    #[test]
    fn a_restored_database_takes_the_run_that_comes() {
        let start = start(&[8], RunPlace::Same);
        assert_eq!(judge(current(1, None), &start, false), Verdict::Accepted);
        assert_eq!(judge(current(1, Some(2_000)), &start, false), Verdict::Wait);
    }
}
