//! Cuts of three nodes with real disks, in which a process ends at an exact step. A trap stops one node's disks before
//! or after one step, and while that node stands still the test ends the nodes it wants to. Whatever that does to the
//! first attempt: when one member's version has a write, no other member's version lacks what was acknowledged before it
//! (I7); guests go on; nothing that was acknowledged is missing (I1, I2); and no part of the cut is left at the end.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::mirror::world::*;
use futures::future::BoxFuture;
use muster_agent::{
    controller::scripted::ScriptedController,
    cuts::{CutParts, Cuts, DiskCuts, Freezes, PeerSteps},
    desired::Known,
    mirror::{Config, DiskError, DiskWant, Disks, Saved},
};
use muster_api::{
    CommitId, DiskId, NodeId, SnapshotId, UploadId, VersionId,
    node_protocol::{
        CommitOutcome, CutDisk, CutKey, CutMember, CutNode, CutOrder, CutPhase, CutResult, Incarnation, VersionRoot,
    },
    peer_protocol::{CutStep, CutStepAnswer},
};
use storage_core::{ChunkSize, store::ChunkStore};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

const NODES: usize = 3;
/// The nodes by their part in the cut.
const COORDINATOR: usize = 0;
const MEMBER: usize = 1;
const IMAGE_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time for as many tries as are needed. One try that fails takes the coordinator up to 30 s.
const TRIES: Duration = Duration::from_secs(100);

/// Which side of a step a trap is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Stops the first caller that comes to a step; that call never returns. Later calls pass, until the trap is set again.
struct Trap {
    step: &'static str,
    side: Side,
    sprung: AtomicBool,
}

impl Trap {
    fn new(step: &'static str, side: Side) -> Arc<Self> {
        Arc::new(Self { step, side, sprung: AtomicBool::new(false) })
    }

    async fn pass(&self, step: &str, side: Side) {
        if self.step == step && self.side == side && !self.sprung.swap(true, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn has_sprung(&self) -> bool {
        self.sprung.load(Ordering::SeqCst)
    }

    fn set_again(&self) {
        self.sprung.store(false, Ordering::SeqCst);
    }
}

/// Real disks behind a trap.
struct Trapped {
    disks: Arc<Disks>,
    trap: Arc<Trap>,
}

impl Trapped {
    async fn step<T>(&self, step: &str, work: BoxFuture<'_, T>) -> T {
        self.trap.pass(step, Side::Before).await;
        let done = work.await;
        self.trap.pass(step, Side::After).await;
        done
    }
}

impl DiskCuts for Trapped {
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(self.step("prepare", DiskCuts::prepare(&self.disks, key, disks)))
    }

    fn hold(&self, key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(self.step("hold", DiskCuts::hold(&self.disks, key, max_pause)))
    }

    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, DiskError>> {
        Box::pin(self.step("flip", DiskCuts::flip(&self.disks, key)))
    }

    fn abort(&self, key: CutKey) -> BoxFuture<'_, Result<(), DiskError>> {
        DiskCuts::abort(&self.disks, key)
    }

    fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(self.step("save", DiskCuts::save(&self.disks, disk, commit, round)))
    }

    fn abandon(&self, disk: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), DiskError>> {
        DiskCuts::abandon(&self.disks, disk, commit)
    }

    fn commits(&self) -> Vec<(DiskId, CommitId)> {
        DiskCuts::commits(&self.disks)
    }
}

/// The connections between the living processes.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<HashMap<NodeId, Living>>>);

type Living = (Arc<Cuts>, CancellationToken);

impl PeerSteps for Wires {
    fn step(
        &self,
        node: NodeId,
        key: CutKey,
        step: CutStep,
        disks: Vec<DiskId>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<CutStepAnswer, String>> {
        Box::pin(async move {
            let (cuts, dead) = self.0.lock().unwrap().get(&node).cloned().ok_or("nobody there")?;
            tokio::select! {
                answer = cuts.step(key, step, disks) => Ok(answer),
                () = dead.cancelled() => Err("the connection broke".to_owned()),
                () = tokio::time::sleep(limit) => Err("no answer".to_owned()),
            }
        })
    }
}

/// One process of a node.
struct Process {
    disks: Arc<Disks>,
    running: JoinHandle<()>,
    dead: CancellationToken,
}

struct Node {
    id: NodeId,
    want: DiskWant,
    path: PathBuf,
    config: Config,
    data: Option<DataDir>,
    store: Arc<dyn ChunkStore>,
    known: watch::Sender<Arc<Known>>,
    trap: Arc<Trap>,
    process: Option<Process>,
    /// The raw file while it is served, never the file that the mount covers.
    file: Arc<Mutex<Option<Arc<File>>>>,
}

struct Fleet {
    nodes: Vec<Node>,
    wires: Wires,
    controller: ScriptedController,
    snapshot: SnapshotId,
    attempt: u32,
    commits: Vec<CommitId>,
    chain: Chain,
}

/// Writes to one disk after the other, over and over. Each write waits until the one before is acknowledged.
struct Chain {
    acknowledged: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
    writing: JoinHandle<()>,
}

fn image(seed: usize) -> Vec<u8> {
    let mut image = Rng(seed as u64 + 100).bytes(IMAGE_BYTES);
    image[..4096].fill(0);
    image
}

/// The last number that the chain wrote, read from a disk's bytes.
fn count(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

impl Chain {
    fn start(files: Vec<Arc<Mutex<Option<Arc<File>>>>>) -> Self {
        let acknowledged: Arc<Vec<AtomicU64>> = Arc::new(files.iter().map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ended) = (acknowledged.clone(), stop.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let mut n = 0u64;
            while !ended.load(Ordering::Acquire) {
                n += 1;
                for (at, file) in files.iter().enumerate() {
                    // A failed write was not acknowledged, so it is repeated.
                    while file.lock().unwrap().clone().is_none_or(|f| f.write_all_at(&n.to_le_bytes(), 0).is_err()) {
                        if ended.load(Ordering::Acquire) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    told[at].store(n, Ordering::Release);
                }
            }
        });
        Self { acknowledged, stop, writing }
    }

    fn at(&self, node: usize) -> u64 {
        self.acknowledged[node].load(Ordering::Acquire)
    }

    /// Waits until every disk was written to again.
    async fn goes_on(&self, when: &str) {
        let last = NODES - 1;
        let now = self.at(last);
        eventually(&format!("writes go on {when}"), PATIENCE, || self.at(last) > now + 3).await;
    }
}

/// Ends the writing when a test fails as well: the runtime waits for the thread that writes before it lets the test end.
impl Drop for Chain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Fleet {
    async fn new(traps: impl Fn(usize) -> Arc<Trap>) -> Self {
        let wires = Wires::default();
        let controller = ScriptedController::new();
        let mut nodes = Vec::new();
        for at in 0..NODES {
            let World { disks, store, config, data, .. } = World::new().await;
            drop(disks);
            let want = import(&*store, &image(at), ChunkSize::MIN);
            let (known, _) = watch::channel(Arc::new(Known::nothing(Incarnation { number: 1, random: 7 })));
            let path = config.data_dir.join("disks").join(format!("{}.raw", want.disk));
            let mut node = Node {
                id: NodeId::generate(),
                want,
                path,
                config,
                data: Some(data),
                store,
                known,
                trap: traps(at),
                process: None,
                file: Arc::default(),
            };
            node.start(&wires, &controller).await;
            nodes.push(node);
        }
        let chain = Chain::start(nodes.iter().map(|node| node.file.clone()).collect());
        chain.goes_on("before anything").await;
        Self { nodes, wires, controller, snapshot: SnapshotId::generate(), attempt: 0, commits: Vec::new(), chain }
    }

    /// Orders the next try on all nodes, each disk with a commit of its own.
    fn order(&mut self) {
        self.attempt += 1;
        self.commits = self.nodes.iter().map(|_| CommitId::generate()).collect();
        self.tell(CutPhase::Cut);
    }

    fn tell(&self, phase: CutPhase) {
        // The coordinator last, as usual when all nodes run.
        for at in (0..NODES).rev() {
            self.tell_one(at, Some(phase));
        }
    }

    fn tell_one(&self, at: usize, phase: Option<CutPhase>) {
        let node = &self.nodes[at];
        let mut known = Known::nothing(Incarnation { number: 1, random: 7 });
        known.fresh = true;
        node.known.send_if_modified(|before| {
            known.desired.revision = before.desired.revision + 1;
            false
        });
        known.desired.versions = BTreeMap::new();
        let all = || self.nodes.iter().map(|n| CutNode { node: n.id, disks: vec![n.want.disk] }).collect();
        let want = &node.want;
        known.desired.cuts = phase
            .map(|phase| CutOrder {
                snapshot: self.snapshot,
                attempt: self.attempt,
                phase,
                max_pause_ms: 1000,
                freeze: false,
                background: false,
                scheduled: false,
                coordinate: (at == COORDINATOR).then(all),
                disks: vec![CutDisk {
                    instance: want.instance,
                    disk: want.disk,
                    generation: want.generation,
                    commit: self.commits[at],
                }],
                upload: UploadId::generate(),
                round: 3,
            })
            .into_iter()
            .collect();
        node.known.send_replace(Arc::new(known));
    }

    /// The result that the coordinator reported for the latest try, if it reported one.
    fn reported(&self) -> Option<CutResult> {
        self.controller.script(|s| {
            s.cut_reports.iter().find(|(_, report)| report.attempt == self.attempt).map(|(_, r)| r.outcome.clone())
        })
    }

    /// Does what the controller does after a try that failed: gives its commits up and orders the next try.
    fn try_again(&mut self) {
        let over = self.commits.clone();
        self.controller.script(|s| {
            s.outcomes.extend(over.into_iter().map(|commit| (commit, CommitOutcome::Abandoned)));
        });
        self.order();
    }

    /// Orders tries until one of them stands where `reached` says, with one node in `trap`.
    ///
    /// On a busy machine a try can fail before it gets there: a hold ends by itself after its longest pause, whether or
    /// not every node had the processor time to answer by then. That try is as good as none, and another one follows.
    async fn until_trapped(&mut self, what: &str, trap: &Trap, reached: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + TRIES;
        while !(trap.has_sprung() && reached(self)) {
            if let Some(CutResult::Failed { reason, detail }) = self.reported() {
                eprintln!("try {} failed before {what}: {detail} ({reason})", self.attempt);
                trap.set_again();
                self.try_again();
            }
            assert!(Instant::now() < limit, "not in {} tries within {TRIES:?}: {what}", self.attempt);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Plays the controller until an attempt is reported as flipped, and checks that every member is in it.
    async fn until_flipped(&mut self) {
        let limit = Instant::now() + TRIES;
        loop {
            match self.reported() {
                Some(CutResult::Flipped { members, .. }) => {
                    let got: HashSet<_> = members.iter().map(|member| member.disk).collect();
                    assert_eq!(got, self.nodes.iter().map(|node| node.want.disk).collect(), "all of them or none");
                    return self.tell(CutPhase::Save);
                }
                Some(CutResult::Failed { .. }) => self.try_again(),
                None => {}
            }
            assert!(Instant::now() < limit, "none of {} tries was reported as flipped within {TRIES:?}", self.attempt);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The staged roots of the attempt that flipped, once all are there.
    async fn staged(&self) -> Vec<VersionRoot> {
        let roots = || {
            self.controller.script(|s| {
                let root = |commit: &CommitId| {
                    s.staged.iter().rev().find(|(staged, _)| staged == commit).map(|(_, staged)| staged.root.clone())
                };
                self.commits.iter().map(root).collect::<Option<Vec<_>>>()
            })
        };
        eventually("every member is staged", PATIENCE, || roots().is_some()).await;
        roots().unwrap()
    }

    /// What has to be true at the end, whatever happened on the way.
    async fn ends_well(mut self) {
        self.until_flipped().await;
        let roots = self.staged().await;
        self.chain.goes_on("behind the cut").await;
        let versions: Vec<_> = roots.iter().zip(&self.nodes).map(|(root, node)| export(&*node.store, root)).collect();
        let counts: Vec<_> = versions.iter().map(|version| count(version)).collect();
        assert!(counts[0] > 0, "{counts:?}");
        assert!(counts.windows(2).all(|pair| pair[0] >= pair[1]), "one instant: {counts:?}");
        assert!(counts[NODES - 1] + 1 >= counts[0], "one instant: {counts:?}");
        for (at, version) in versions.iter().enumerate() {
            assert!(version[4096..] == image(at)[4096..], "node {at}: the rest of it");
        }
        // The controller publishes all commits, and the cut is over.
        let published: Vec<_> = self.commits.iter().map(|commit| (*commit, VersionId::generate())).collect();
        self.controller.script(|s| {
            let outcome = |(commit, version)| (commit, CommitOutcome::Published { version });
            s.outcomes.extend(published.iter().copied().map(outcome));
        });
        for (at, root) in roots.into_iter().enumerate() {
            self.tell_one(at, None);
            let node = &mut self.nodes[at];
            node.want = DiskWant { version: published[at].1, root, ..node.want.clone() };
            node.disks().ensure(&node.want).await.unwrap();
        }
        self.chain.goes_on("on the new version").await;
        self.chain.stop.store(true, Ordering::Release);
        let last = tokio::time::timeout(PATIENCE, &mut self.chain.writing).await;
        last.expect("the last write is answered").unwrap();
        for at in 0..NODES {
            let node = &self.nodes[at];
            let settled = || node.disks().epochs(node.want.disk) == Some(1) && node.disks().commits().is_empty();
            eventually("every epoch of it is folded", PATIENCE, settled).await;
            let path = node.path.clone();
            let bytes = blocking(move || std::fs::read(path).unwrap()).await;
            assert_eq!(count(&bytes), self.chain.at(at), "node {at}: the last write that was acknowledged");
            assert!(bytes[4096..] == image(at)[4096..], "node {at}: the rest of it");
            // What every disk has is left, and nothing more: its record, the root page of its base, one delta, one journal,
            // one live map.
            let dir = node.config.data_dir.join("disks").join(node.want.disk.to_string());
            let holder = node.data.as_ref().unwrap().holder();
            let left = || (std::fs::read_dir(&dir).unwrap().count(), holder.list().unwrap().len());
            eventually("nothing is left of it", PATIENCE, || left() == (4, 1)).await;
        }
    }
}

impl Node {
    fn disks(&self) -> &Arc<Disks> {
        &self.process.as_ref().unwrap().disks
    }

    async fn start(&mut self, wires: &Wires, controller: &ScriptedController) {
        let world = World::open(self.data.take().unwrap(), self.config.clone(), self.store.clone()).await;
        let World { disks, data, .. } = world;
        self.data = Some(data);
        let path = disks.ensure(&self.want).await.unwrap().path;
        let open = move || File::options().read(true).write(true).open(path).unwrap();
        *self.file.lock().unwrap() = Some(Arc::new(blocking(open).await));
        let cuts = Arc::new(Cuts::new(CutParts {
            node: self.id,
            disks: Arc::new(Trapped { disks: disks.clone(), trap: self.trap.clone() }),
            freezes: Freezes::open(self.data.as_ref().unwrap().path.join("frozen"), None).unwrap(),
            peers: Arc::new(wires.clone()),
            controller: Arc::new(controller.clone()),
            known: self.known.subscribe(),
        }));
        let dead = CancellationToken::new();
        wires.0.lock().unwrap().insert(self.id, (cuts.clone(), dead.clone()));
        let cancel = dead.clone();
        let running = tokio::spawn(async move { cuts.run(cancel).await });
        self.process = Some(Process { disks, running, dead });
    }

    /// Ends the process as kill -9 does: nothing is flushed, nobody is told.
    async fn kill(&mut self, wires: &Wires) {
        let Process { disks, running, dead } = self.process.take().unwrap();
        dead.cancel();
        wires.0.lock().unwrap().remove(&self.id);
        running.abort();
        drop(running.await);
        self.file.lock().unwrap().take();
        blocking(move || drop(disks)).await;
        let dir = self.config.data_dir.clone();
        eventually("its mounts are gone", PATIENCE, || mounts_below(&dir).is_empty()).await;
    }
}

/// Ends `victims` when `trapped` has reached the trap, starts them again, and checks that all ends well.
async fn ended_at(step: &'static str, side: Side, trapped: usize, victims: &[usize]) {
    let trap = Trap::new(step, side);
    let mut fleet = Fleet::new(|at| if at == trapped { trap.clone() } else { Trap::new("none", Side::Before) }).await;
    fleet.order();
    match step {
        "save" => {
            fleet.until_flipped().await;
            eventually("a commit is being saved", PATIENCE, || trap.has_sprung()).await;
        }
        "flip" => {
            // Every node before the trap has flipped, and recorded it.
            let flipped = |fleet: &Fleet| {
                let all = fleet.nodes.iter().enumerate();
                let mut others = all.filter(|(at, _)| *at != trapped || side == Side::After).map(|(_, node)| node);
                others.all(|node| !node.disks().commits().is_empty())
            };
            fleet.until_trapped("one stands at its flip and the others have flipped", &trap, flipped).await;
        }
        _ => fleet.until_trapped(step, &trap, |_| true).await,
    }
    for victim in victims {
        fleet.nodes[*victim].kill(&fleet.wires).await;
    }
    if victims.is_empty() {
        fleet.chain.goes_on("although one does not answer").await;
    }
    for victim in victims {
        let (wires, controller) = (fleet.wires.clone(), fleet.controller.clone());
        fleet.nodes[*victim].start(&wires, &controller).await;
    }
    fleet.chain.goes_on("after the restart").await;
    fleet.ends_well().await;
}

macro_rules! cases {
    ($($name:ident: $step:literal, $side:ident, $trapped:expr, $victims:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                ended_at($step, Side::$side, $trapped, &$victims).await;
            }
        )*
    };
}

cases! {
    a_member_ends_between_prepare_and_hold: "prepare", After, MEMBER, [MEMBER];
    a_member_ends_while_it_holds: "hold", After, MEMBER, [MEMBER];
    the_coordinator_ends_while_all_hold: "hold", After, MEMBER, [COORDINATOR];
    a_member_ends_before_its_flip_when_the_others_have_flipped: "flip", Before, MEMBER, [MEMBER];
    the_coordinator_ends_between_two_flips: "flip", Before, MEMBER, [COORDINATOR];
    a_member_ends_between_its_flip_and_its_answer: "flip", After, MEMBER, [MEMBER];
    the_coordinator_ends_after_all_flips_and_before_its_report: "flip", After, MEMBER, [COORDINATOR];
    all_end_between_two_flips: "flip", Before, MEMBER, [COORDINATOR, MEMBER, 2];
    a_member_never_answers_the_flip: "flip", Before, MEMBER, [];
    a_member_ends_before_its_commit_is_saved: "save", Before, MEMBER, [MEMBER];
    the_coordinator_ends_after_its_commit_is_saved: "save", After, COORDINATOR, [COORDINATOR];
}
