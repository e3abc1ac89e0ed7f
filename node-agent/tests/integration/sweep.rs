//! A node's part of the sweep, against a scripted controller. A process is killed by dropping its task and losing what its
//! store had not synced.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use muster_agent::{
    controller::scripted::ScriptedController,
    data_disk::{DataDisk, Reserves},
    peer::share::PoolShare,
    sweep::{Named, SweepStatus, Sweeper},
};
use muster_api::{
    node::ObjectAmount,
    node_protocol::{
        Incarnation,
        sweep::{SweepDone, SweepRound},
    },
};
use storage_core::{
    ObjectName, Record,
    store::{Call, ChunkStore, Fault, FaultyStore, MemoryStore},
};
use tokio::task::JoinSet;

use crate::support::{eventually, page};

const INCARNATION: Incarnation = Incarnation { number: 3, random: 99 };

/// A data folder, its store, and the controller. Processes come and go.
struct Node {
    data: tempfile::TempDir,
    store: Arc<FaultyStore<MemoryStore>>,
    controller: ScriptedController,
    incarnation: Mutex<Incarnation>,
}

/// A process of the node, which is killed when this is dropped.
struct Process {
    sweeper: Arc<Sweeper>,
    share: Arc<PoolShare>,
    _tasks: JoinSet<()>,
}

impl Node {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().expect("a folder"),
            store: Arc::new(FaultyStore::new(MemoryStore::new())),
            controller: ScriptedController::new(),
            incarnation: Mutex::new(INCARNATION),
        }
    }

    /// Stores pages with a stamp.
    fn put(&self, round: u64, pages: &[u32]) {
        let records: Vec<Record> = pages.iter().copied().map(page).collect();
        self.store.inner().put(round, &records).expect("puts");
        self.store.inner().sync().expect("syncs");
    }

    fn start(&self) -> Process {
        let disk = Arc::new(DataDisk::new(self.data.path().to_owned(), Reserves::default()));
        let share = Arc::new(PoolShare::new(self.store.clone(), disk));
        let sweeper = Arc::new(Sweeper::new(Arc::new(self.controller.clone()), share.clone(), self.data.path()));
        let mut tasks = JoinSet::new();
        let (swept, runs) = (sweeper.clone(), sweeper.clone());
        tasks.spawn(async move { runs.run().await });
        let (controller, incarnation) = (self.controller.clone(), *self.incarnation.lock().expect("not poisoned"));
        tasks.spawn(async move {
            loop {
                let named = controller.script(|script| {
                    script.sweep.filter(|sweep| !script.swept.iter().any(|(round, _)| *round == sweep.round))
                });
                swept.heard(named.map(|round| Named { incarnation, round }));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Process { sweeper, share, _tasks: tasks }
    }

    /// Names a round until it is done. Returns what it did, and the names that the node asked about.
    async fn round(&self, round: u64, dead: &[u32], unneeded: &[u32]) -> (SweepDone, Vec<ObjectName>) {
        self.name_round(round, dead, unneeded);
        self.controller.until("the round is done", |s| s.swept.iter().any(|(done, _)| *done == round)).await;
        self.controller.script(|script| {
            let done = script.swept.last().expect("it was awaited").1;
            (done, std::mem::take(&mut script.judged).concat())
        })
    }

    fn name_round(&self, round: u64, dead: &[u32], unneeded: &[u32]) {
        self.controller.script(|script| {
            script.sweep = Some(SweepRound { round });
            script.dead = names(dead);
            script.unneeded = names(unneeded).into_iter().collect();
            // So that the answers come in several parts.
            script.dead_count_max = 2;
        });
    }

    /// Which of the first hundred pages are here.
    fn left(&self) -> Vec<u32> {
        (0..100).filter(|n| self.store.inner().contains(&page(*n).name()).expect("looks")).collect()
    }
}

/// Names of pages, in order.
fn names(pages: &[u32]) -> Vec<ObjectName> {
    let mut names: Vec<ObjectName> = pages.iter().map(|n| page(*n).name()).collect();
    names.sort_unstable();
    names
}

/// The next page from `from` on that is in the slice of this round, or is not.
fn in_slice(round: u64, is_in: bool, from: u32) -> u32 {
    let fits = |n: &u32| (u64::from(page(*n).name().as_bytes()[0]) % 64 == round % 64) == is_in;
    (from..).find(fits).expect("there are many")
}

fn bytes(pages: &[u32]) -> u64 {
    pages.iter().map(|n| page(*n).stored().len() as u64).sum()
}

#[tokio::test]
async fn a_round_drops_the_dead_and_what_came_of_age_and_nothing_that_its_stamp_protects() {
    let node = Node::new();
    let process = node.start();
    assert_eq!(node.round(7, &[], &[]).await, (SweepDone::default(), vec![]));
    // Round 8 drops stamps below 7. Those with stamp 6 come of age.
    let (first, second) = (in_slice(8, true, 20), in_slice(8, true, in_slice(8, true, 20) + 1));
    let other = in_slice(8, false, 20);
    node.put(1, &[0, 1, 2, 3, 4, first, second, other]);
    node.put(6, &[10, 11]);
    node.put(7, &[12, 13]);
    node.put(8, &[14]);
    let missing = 90;
    let dead = [0, 1, 2, 3, 10, 12, 14, missing];
    let (done, mut asked) = node.round(8, &dead, &[first, 11, other, 13]).await;
    asked.sort_unstable();
    assert_eq!(asked, names(&[first, second, 11]), "not about what is gone, protected, or in another slice");
    let mut left = vec![4, 12, 13, 14, second, other];
    left.sort_unstable();
    assert_eq!(node.store.usage().objects, 6);
    assert!(names(&left).iter().all(|name| node.store.contains(name).expect("looks")), "{left:?}");
    let dropped = [0, 1, 2, 3, 10, 11, first];
    assert_eq!((done.objects, done.bytes), (7, bytes(&dropped)));
    assert_eq!(process.share.losses().lost(), ObjectAmount::default());
    let SweepStatus { round, last, trouble } = process.sweeper.status();
    assert_eq!((round, last.map(|last| (last.round, last.done)), trouble), (None, Some((8, done)), None));
}

#[tokio::test]
async fn a_node_that_missed_a_round_or_lost_its_note_asks_about_all() {
    let node = Node::new();
    let mut process = node.start();
    node.round(7, &[], &[]).await;
    node.put(1, &[0, 1, 2]);
    node.put(8, &[3]);
    let all = names(&[0, 1, 2]);
    assert_eq!(node.round(9, &[], &[0]).await.1, all, "round 8 was missed");
    drop(process);
    std::fs::write(node.data.path().join("sweep.json"), "{").expect("writes");
    process = node.start();
    assert_eq!(node.round(10, &[], &[]).await.1, names(&[1, 2, 3]), "the note is damaged");
    drop(process);
    *node.incarnation.lock().expect("not poisoned") = Incarnation { number: 4, random: 5 };
    process = node.start();
    assert_eq!(node.round(11, &[], &[]).await.1, names(&[1, 2, 3]), "the database was restored");
    drop(process);
    let _process = node.start();
    let came_of_age = |asked: Vec<ObjectName>| asked.iter().all(|name| name.as_bytes()[0] % 64 == 12);
    assert!(came_of_age(node.round(12, &[], &[]).await.1), "the note is good again");
    assert_eq!(node.left(), [1, 2, 3]);
}

#[tokio::test]
async fn after_a_copy_with_an_old_stamp_came_all_is_asked_about() {
    let node = Node::new();
    let process = node.start();
    node.round(7, &[], &[]).await;
    let old = in_slice(8, false, 0);
    // Another node made it again while it was swept here.
    process.share.put(3, &[page(old)]).expect("puts");
    let (done, asked) = node.round(8, &[], &[old]).await;
    assert_eq!((done.objects, asked, node.left()), (1, names(&[old]), vec![]));
    // Not again: what came since is as young as an upload.
    let young = in_slice(9, false, old + 1);
    process.share.put(8, &[page(young)]).expect("puts");
    assert_eq!(node.round(9, &[], &[young]).await.1, vec![]);
}

/// Found by seed 0x28 of the model.
#[tokio::test]
async fn a_kill_does_not_forget_that_a_copy_with_an_old_stamp_came() {
    let node = Node::new();
    let mut process = node.start();
    node.round(7, &[], &[]).await;
    let old = in_slice(8, false, 0);
    process.share.put(3, &[page(old)]).expect("puts");
    process.share.sync().expect("syncs");
    drop(process);
    process = node.start();
    let (done, asked) = node.round(8, &[], &[old]).await;
    assert_eq!((done.objects, asked, node.left()), (1, names(&[old]), vec![]));
    // Young ones do not cost the next process its note.
    let young = in_slice(9, false, old + 1);
    process.share.put(8, &[page(young)]).expect("puts");
    process.share.sync().expect("syncs");
    drop(process);
    let _process = node.start();
    assert_eq!(node.round(9, &[], &[young]).await.1, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_between_the_judgement_and_the_removal_stays() {
    let node = Node::new();
    node.put(1, &[0, 1, 2]);
    let process = node.start();
    // No removal begins while this one is under way.
    let (go_on, wait) = mpsc::channel::<()>();
    let (share, began) = (process.share.clone(), Arc::new(tokio::sync::Notify::new()));
    let begins = began.clone();
    let other = tokio::task::spawn_blocking(move || {
        share.losses().leave(&MemoryStore::new(), share.disk(), &[], || {
            begins.notify_one();
            wait.recv().expect("the test goes on");
            Ok(())
        })
    });
    began.notified().await;
    node.name_round(9, &[], &[0, 1]);
    node.controller.until("it was judged", |script| !script.judged.is_empty()).await;
    assert_eq!(process.share.touch(8, &names(&[1])).expect("touches"), [true]);
    go_on.send(()).expect("it waits");
    other.await.expect("no panic").expect("nothing to remove");
    node.controller.until("the round is done", |script| !script.swept.is_empty()).await;
    assert_eq!(node.left(), [1, 2]);
}

#[tokio::test]
async fn wherever_the_agent_is_killed_the_next_one_ends_the_round_and_misses_nothing() {
    const FOREVER: u64 = 1 << 40;
    type Break = Box<dyn Fn(&Node)>;
    let store = |call: Call, after: u64| -> Break { Box::new(move |n| n.store.fail(call, after, FOREVER, Fault::Io)) };
    let calls = |left: u32| -> Break { Box::new(move |n| n.controller.script(|s| s.sweep_calls_left = Some(left))) };
    let mut breaks: Vec<(String, Break)> = Vec::new();
    // Two answers about the dead and their end, a judgement, and "done".
    breaks.extend((0..5).map(|left| (format!("after {left} calls"), calls(left))));
    for (call, count) in [(Call::Look, 2), (Call::Remove, 4), (Call::Sync, 6)] {
        breaks.extend((0..count).map(|after| (format!("after {after} of {call:?}"), store(call, after))));
    }
    for (what, fail) in breaks {
        let node = Node::new();
        let process = node.start();
        node.round(7, &[], &[]).await;
        node.put(1, &[0, 1, 2, 3, 4]);
        node.put(6, &[5, 6]);
        process.share.look_for_losses().expect("looks");
        fail(&node);
        node.name_round(8, &[0, 1, 2], &[5]);
        eventually(&what, || {
            let is_lost = node.controller.script(|script| script.sweep_calls_lost > 0);
            is_lost || process.sweeper.status().trouble.is_some()
        })
        .await;
        drop(process);
        node.store.inner().crash();
        node.store.heal();
        node.controller.script(|script| script.sweep_calls_left = None);
        let next = node.start();
        assert_eq!(next.share.losses().lost(), ObjectAmount::default(), "{what}");
        node.controller.until(&what, |script| script.swept.last().is_some_and(|(round, _)| *round == 8)).await;
        assert_eq!(node.left(), [3, 4, 6], "{what}");
        assert_eq!(node.controller.script(|script| script.swept.len()), 2, "{what}: each round is told once");
        drop(next);
        let after = node.start();
        assert_eq!(after.share.losses().lost(), ObjectAmount::default(), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_drops_nothing() {
    let node = Node::new();
    node.put(1, &[0, 1, 2]);
    let process = node.start();
    // It judges a name that this node does not have.
    node.controller.script(|script| script.judges_also = Some(page(50).name()));
    node.name_round(9, &[], &[0, 1]);
    eventually("the trouble", || process.sweeper.status().trouble.is_some()).await;
    assert_eq!(node.left(), [0, 1, 2]);
    assert!(process.sweeper.status().trouble.is_some_and(|why| why.contains(&page(50).name().to_string())));
    node.controller.script(|script| script.judges_also = None);
    node.controller.until("the round is done", |script| !script.swept.is_empty()).await;
    assert_eq!((node.left(), process.sweeper.status().trouble), (vec![2], None));
}

#[tokio::test]
async fn a_round_that_is_over_is_given_up_and_the_next_one_asks_about_all() {
    let node = Node::new();
    let process = node.start();
    node.round(7, &[], &[]).await;
    node.put(6, &[0, 1]);
    // The first judgement is lost, and then the controller is at another round.
    node.controller.script(|script| script.sweep_calls_left = Some(1));
    node.name_round(8, &[], &[]);
    node.controller.until("a call is lost", |script| script.sweep_calls_lost > 0).await;
    node.controller.script(|script| script.sweep_calls_left = None);
    assert_eq!(node.round(9, &[], &[1]).await.1, names(&[0, 1]));
    assert_eq!((node.left(), process.sweeper.status().trouble), (vec![0], None));
    assert_eq!(node.controller.script(|script| script.swept.len()), 2, "round 8 was not done");
}
