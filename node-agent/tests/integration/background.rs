//! Commits in the background: slow, and given up at once when somebody's snapshot needs the disk.

use muster_api::{
    CommitId,
    node_protocol::{CommitOutcome, CutPhase},
};

use crate::cuts::Fleet;

/// Goal: nobody waits for a commit in the background. A slow save that never ends is under way on each node; the controller
/// withdraws it and orders another cut of the same disks, which is saved and staged.
#[tokio::test]
async fn a_slow_save_is_dropped_when_it_is_withdrawn_and_the_next_one_does_not_wait_for_it() {
    let mut fleet = Fleet::new(2);
    fleet.start();
    fleet.background = true;
    fleet.order_all(1, CutPhase::Cut);
    fleet.report(1).await;
    let slow: Vec<CommitId> = fleet.nodes.iter().map(|node| node.commit).collect();
    fleet.eventually("both are being saved", || fleet.nodes.iter().all(|n| n.disks.with(|d| d.slow.len() == 1))).await;
    assert!(fleet.nodes.iter().all(|n| n.disks.with(|d| d.saved.is_empty())), "not at full speed");
    fleet.controller.script(|s| s.outcomes.extend(slow.iter().map(|commit| (*commit, CommitOutcome::Abandoned))));
    fleet.background = false;
    fleet.next_snapshot();
    fleet.order_all(1, CutPhase::Cut);
    fleet.report(2).await;
    let wanted: Vec<CommitId> = fleet.nodes.iter().map(|node| node.commit).collect();
    let staged = |commit: &CommitId| fleet.controller.script(|s| s.staged.iter().any(|(staged, _)| staged == commit));
    fleet.eventually("both are staged", || wanted.iter().all(staged)).await;
    let given_up = |at: usize| fleet.nodes[at].disks.with(|d| d.abandoned.clone());
    fleet.eventually("both slow ones are given up", || (0..2).all(|at| given_up(at) == [slow[at]])).await;
}

/// Slow saves have turns of their own: as many as a node may do at a time are under way, and another save goes on.
#[tokio::test]
async fn slow_saves_never_take_the_turns_of_others() {
    let mut fleet = Fleet::new(1);
    fleet.start();
    fleet.background = true;
    let mut orders = Vec::new();
    for count in 1..=6 {
        fleet.next_snapshot();
        orders.push(fleet.order(0, 1, CutPhase::Cut));
        fleet.tell(0, orders.clone());
        fleet.report(count).await;
    }
    fleet.eventually("some are being saved", || fleet.nodes[0].disks.with(|d| d.slow.len() >= 2)).await;
    // One that nobody asked for has no turn of the others, also when it is to be fast.
    (fleet.background, fleet.scheduled) = (false, true);
    fleet.next_snapshot();
    orders.push(fleet.order(0, 1, CutPhase::Cut));
    fleet.tell(0, orders.clone());
    fleet.report(7).await;
    let scheduled = fleet.nodes[0].commit;
    fleet.scheduled = false;
    fleet.next_snapshot();
    orders.push(fleet.order(0, 1, CutPhase::Cut));
    fleet.tell(0, orders.clone());
    fleet.report(8).await;
    let commit = fleet.nodes[0].commit;
    let staged = |commit: CommitId| fleet.controller.script(|s| s.staged.iter().any(|(c, _)| *c == commit));
    fleet.eventually("the other one is staged", || staged(commit)).await;
    assert_eq!(fleet.nodes[0].disks.with(|d| d.slow.len()), 2, "two at a time");
    assert!(!staged(scheduled), "it waits for a turn of those that nobody asked for");
}
