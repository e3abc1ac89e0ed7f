//! The power of a node fails at every single write of its pool's disk while it hands copies over, takes them over, stores a commit
//! of packs, or sweeps. Each time all nodes come back, and everything is as if nothing had happened.
//!
//! (The same below one store is `storage-core/tests/integration/crash.rs`, for puts, stamps, drops, and space that is given back; and
//! below one disk `node-agent/src/mirror/power_tests.rs`.)

use std::time::Duration;

use futures::future::join_all;
use muster_agent::mirror::Saved;
use tokio::time::Instant;

use crate::{cluster::Death, content::CHUNK, history::History, op::Op};

/// Most writes that anything here takes.
const WRITES_MAX: u64 = 400;

async fn steps(history: &mut History, ops: impl IntoIterator<Item = Op>) {
    for op in ops {
        history.note(&op);
        history.step(op).await;
    }
}

/// Three nodes, a version, and a disk of it on the first one.
async fn used(seed: u64) -> History {
    let mut history = History::of_three(seed).await;
    for seed in 5..8 {
        steps(&mut history, [Op::Import { seed, bytes: 6 * CHUNK - 3000 }, Op::PublishImport(0)]).await;
    }
    steps(&mut history, [Op::Deploy { version: 0, node: 0 }]).await;
    history
}

/// What happens while the power may fail.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A node has joined, and the others hand over to it what it owns.
    HandOver,
    /// Scattered blocks of a disk of the first node are stored as packs.
    Packs,
    /// All nodes drop what nothing needs any more, and give the space back.
    Sweep,
}

async fn begun(what: What) -> History {
    let mut history = used(41).await;
    match what {
        What::HandOver => steps(&mut history, [Op::Join]).await,
        What::Packs => {
            let write = |n: usize| Op::Write { disk: 0, at: n * 37_000 + 4096, len: 3000, seed: 10 + n as u64 };
            steps(&mut history, (0..5).map(write).chain([Op::Flush(0), Op::Cut(0)])).await;
        }
        What::Sweep => {
            let import = Op::Import { seed: 6, bytes: 3 * CHUNK };
            steps(&mut history, [import, Op::DropImport(0), Op::Sweep, Op::Sweep]).await;
            assert!(history.begin_round().await, "a round begins");
        }
    }
    history
}

/// It happens while the power of the victim may fail. What a commit stored is returned.
async fn happens(history: &History, what: What, victim: usize, has_stopped: impl Fn() -> bool) -> Option<Saved> {
    match what {
        What::HandOver => {
            for _ in 0..3 {
                let passes = history.cluster.on().into_iter().map(|n| history.cluster.nodes[n].process().repair.pass());
                join_all(passes).await;
            }
            None
        }
        // Two nodes are enough, also for a node whose own share of the pool fails.
        What::Packs => Some(history.save(0).await),
        What::Sweep => {
            let deadline = Instant::now() + Duration::from_secs(60);
            let round = || history.door.round().expect("one is named");
            let is_over = |n: usize| round().done.contains(&n) || (n == victim && has_stopped());
            while !history.cluster.on().into_iter().all(is_over) {
                assert!(Instant::now() < deadline, "only {:?} carry out the round within a minute", round().done);
                for node in &history.cluster.nodes {
                    node.process().sweeper.heard(Some(round().named));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            None
        }
    }
}

/// How often each node writes when nothing fails.
async fn writes(what: What) -> Vec<u64> {
    let mut history = begun(what).await;
    let changes =
        |history: &History| -> Vec<u64> { history.cluster.nodes.iter().map(|node| node.pool_disk.changes()).collect() };
    let before = changes(&history);
    happens(&history, what, usize::MAX, || false).await;
    let writes = changes(&history).iter().zip(before).map(|(now, before)| now - before).collect();
    history.note(&format!("{what:?} takes {writes:?} writes"));
    history.end().await;
    writes
}

/// Stops `victim` after each number of writes in turn, until it does all that it has to with less.
async fn at_every_write(what: What, victim: usize) -> u64 {
    for writes in 0..WRITES_MAX {
        let mut history = begun(what).await;
        history.note(&format!("{what:?}, the power of node {victim} fails after {writes} writes"));
        let disk = history.cluster.nodes[victim].pool_disk.clone();
        let before = disk.changes();
        history.cluster.nodes[victim].was_harmed = true;
        disk.stop_after(writes);
        let has_stopped = || disk.changes() - before >= writes;
        let saved = happens(&history, what, victim, has_stopped).await;
        let is_all = !has_stopped();
        history.cluster.kill(victim, Death::PowerCut(writes)).await;
        history.note(&"all come back");
        history.step(Op::Start(victim)).await;
        if let Some(saved) = saved {
            history.saved(0, saved);
            steps(&mut history, [Op::Publish(0), Op::Follow(0)]).await;
        }
        history.end().await;
        if is_all {
            eprintln!("{what:?}: the power of node {victim} failed at each of {writes} writes");
            return writes;
        }
    }
    panic!("{what:?} takes more than {WRITES_MAX} writes");
}

/// The same for each node in turn.
fn at_every_write_of_every_node(what: What) {
    crate::in_runtime(async {
        let writes = writes(what).await;
        assert!(writes.iter().sum::<u64>() >= 5, "{writes:?}");
        for (victim, writes) in writes.iter().enumerate() {
            let tried = at_every_write(what, victim).await;
            assert!(tried >= *writes, "node {victim} wrote {writes} times, and was stopped {tried} times");
        }
    });
}

#[test]
fn a_hand_over_that_ends_at_any_write_loses_no_copy() {
    at_every_write_of_every_node(What::HandOver);
}

#[test]
fn a_commit_of_packs_that_ends_at_any_write_is_whole() {
    at_every_write_of_every_node(What::Packs);
}

#[test]
fn a_sweep_that_ends_at_any_write_takes_nothing_that_is_needed() {
    at_every_write_of_every_node(What::Sweep);
}
