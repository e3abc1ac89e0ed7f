//! Cuts of many disks: a coordinator and members with scripted disks, in one process without a network.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use muster_agent::{
    controller::scripted::{Script, ScriptedController},
    cuts::{CutParts, Cuts, DiskCuts, Freezes, PeerSteps},
    desired::Known,
    hypervisor::{
        Owner,
        fake::{FakeHost, FakeHypervisor},
    },
    mirror::{DiskError, Saved},
};
use muster_api::{
    CommitId, DiskId, InstanceId, NodeId, Reason, SnapshotId, UploadId, VersionId,
    node_protocol::{
        CommitOutcome, CutDisk, CutKey, CutMember, CutNode, CutOrder, CutPhase, CutResult, Incarnation, VersionRoot,
    },
    peer_protocol::{CutStep, CutStepAnswer},
};
use muster_pool::PoolError;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) steps: Vec<CutStep>,
    /// For each step, whether the guest was frozen then.
    pub(crate) frozen_at: Vec<(CutStep, bool)>,
    /// The guest that writes to the disk.
    guest: Option<(FakeHost, InstanceId)>,
    held_until: Option<Instant>,
    frozen: Vec<(DiskId, CommitId)>,
    flipped: HashMap<CutKey, Vec<CutMember>>,
    orders: HashMap<CutKey, Vec<CutDisk>>,
    /// Steps that are refused, once each.
    pub(crate) refuse: HashSet<CutStep>,
    /// Set to make holds end at once.
    impatient: bool,
    /// Set to make saves fail for good.
    damaged: bool,
    saves_that_fail: u32,
    pub(crate) saved: Vec<CommitId>,
    /// Commits that are being saved slowly. That never ends.
    pub(crate) slow: Vec<CommitId>,
    pub(crate) abandoned: Vec<CommitId>,
}

/// One node's disks. They remember what was asked of them.
#[derive(Clone, Default)]
pub(crate) struct FakeDisks(Arc<Mutex<Disk>>);

impl FakeDisks {
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Disk) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn enter(&self, step: CutStep) -> Result<(), DiskError> {
        self.with(|d| {
            d.steps.push(step);
            if let Some((host, instance)) = d.guest.clone()
                && host.running().iter().any(|spec| spec.instance == instance)
            {
                d.frozen_at.push((step, host.guest_agent(instance, |agent| agent.frozen)));
            }
            if d.refuse.remove(&step) { Err(busy(&format!("{step} is refused"))) } else { Ok(()) }
        })
    }
}

fn busy(what: &str) -> DiskError {
    DiskError::Busy { disk: DiskId::generate(), what: what.to_owned() }
}

impl DiskCuts for FakeDisks {
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.enter(CutStep::Prepare)?;
            self.with(|d| {
                if d.flipped.contains_key(&key) {
                    return Err(busy("flipped already"));
                }
                d.orders.insert(key, disks);
                Ok(())
            })
        })
    }

    fn hold(&self, _key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.enter(CutStep::Hold)?;
            self.with(|d| {
                let pause = if d.impatient { Duration::ZERO } else { max_pause };
                d.held_until = Some(Instant::now() + pause);
            });
            Ok(())
        })
    }

    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, DiskError>> {
        Box::pin(async move {
            self.enter(CutStep::Flip)?;
            self.with(|d| {
                if let Some(members) = d.flipped.get(&key) {
                    return Ok(members.clone());
                }
                if d.held_until.take().is_none_or(|until| Instant::now() >= until) {
                    return Err(DiskError::HoldExpired(key.snapshot));
                }
                let disks = d.orders.get(&key).cloned().unwrap_or_default();
                let member = |c: &CutDisk| CutMember { disk: c.disk, pause_us: 10, dirty_bytes: 4096 };
                let members: Vec<_> = disks.iter().map(member).collect();
                d.frozen.extend(disks.iter().map(|c| (c.disk, c.commit)));
                d.flipped.insert(key, members.clone());
                Ok(members)
            })
        })
    }

    fn abort(&self, key: CutKey) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.with(|d| {
                d.steps.push(CutStep::Abort);
                d.held_until = None;
                let given_up: HashSet<_> = d.orders.remove(&key).unwrap_or_default().iter().map(|c| c.commit).collect();
                d.frozen.retain(|(_, commit)| !given_up.contains(commit));
            });
            Ok(())
        })
    }

    fn save(&self, disk: DiskId, commit: CommitId, _round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(async move {
            self.with(|d| {
                if !d.frozen.iter().any(|(_, c)| *c == commit) {
                    return Err(DiskError::NoCommit { disk, commit });
                }
                if d.damaged {
                    return Err(DiskError::Failed { disk, what: "rotten".to_owned() });
                }
                if d.saves_that_fail > 0 {
                    d.saves_that_fail -= 1;
                    let source = PoolError::NotAMember(uuid::Uuid::from_u128(1).into());
                    return Err(DiskError::Pool { disk, source });
                }
                d.saved.push(commit);
                let root = VersionRoot { descriptor: "00".to_owned(), root_page: None, commit: Some(commit) };
                Ok(Saved { base: VersionId::generate(), root, dirty_bytes: 4096, stored_bytes: 4096 })
            })
        })
    }

    fn save_slowly(&self, _: DiskId, commit: CommitId, _round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(async move {
            self.with(|d| d.slow.push(commit));
            std::future::pending().await
        })
    }

    fn abandon(&self, _: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move {
            self.with(|d| {
                d.abandoned.push(commit);
                d.frozen.retain(|(_, c)| *c != commit);
            });
            Ok(())
        })
    }

    fn commits(&self) -> Vec<(DiskId, CommitId)> {
        self.with(|d| d.frozen.clone())
    }
}

/// The connections between the nodes.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Cuts>>>>,
    pub(crate) cut: Arc<Mutex<HashSet<(NodeId, CutStep)>>>,
    /// Nodes whose agents know nothing of freezing.
    pub(crate) old: Arc<Mutex<HashSet<NodeId>>>,
}

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
            let cuts = self.nodes.lock().unwrap().get(&node).cloned().ok_or("no such node")?;
            if self.cut.lock().unwrap().contains(&(node, step)) {
                // No answer comes, as from a host that lost its power.
                tokio::time::sleep(limit).await;
                return Err("no answer".to_owned());
            }
            let is_new = matches!(step, CutStep::Freeze | CutStep::Thaw);
            let step = if is_new && self.old.lock().unwrap().contains(&node) { CutStep::Unknown } else { step };
            Ok(cuts.step(key, step, disks).await)
        })
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    disk: DiskId,
    pub(crate) instance: InstanceId,
    pub(crate) commit: CommitId,
    pub(crate) disks: FakeDisks,
    known: watch::Sender<Arc<Known>>,
    pub(crate) freezes: Arc<Freezes>,
    pub(crate) cuts: Arc<Cuts>,
    stop: CancellationToken,
}

pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Wires,
    pub(crate) controller: ScriptedController,
    pub(crate) snapshot: SnapshotId,
    pub(crate) dir: tempfile::TempDir,
    /// The machine of all nodes.
    pub(crate) host: FakeHost,
    /// Whether cuts freeze guests.
    pub(crate) freeze: bool,
    /// Whether commits are saved slowly.
    pub(crate) background: bool,
    /// Whether nobody asked for the cuts.
    pub(crate) scheduled: bool,
}

const CLUSTER: uuid::Uuid = uuid::Uuid::from_u128(0xc1);
const INCARNATION: Incarnation = Incarnation { number: 1, random: 7 };

impl Fleet {
    /// `count` nodes with one disk each and a cut ordered on all of them; the first coordinates.
    pub(crate) fn new(count: usize) -> Self {
        let fleet = Self {
            nodes: Vec::new(),
            wires: Wires::default(),
            controller: ScriptedController::new(),
            snapshot: SnapshotId::generate(),
            dir: tempfile::tempdir().unwrap(),
            host: FakeHost::default(),
            freeze: false,
            background: false,
            scheduled: false,
        };
        (0..count).fold(fleet, |mut fleet, _| {
            let (known, _) = watch::channel(Arc::new(Known::nothing(INCARNATION)));
            let (id, disks) = (NodeId::generate(), FakeDisks::default());
            let (freezes, cuts) = fleet.cuts(id, &disks, &known);
            let (stop, instance) = (CancellationToken::new(), InstanceId::generate());
            disks.with(|disk| disk.guest = Some((fleet.host.clone(), instance)));
            fleet.nodes.push(Node {
                id,
                disk: DiskId::generate(),
                instance,
                commit: CommitId::generate(),
                disks,
                known,
                freezes,
                cuts,
                stop,
            });
            fleet
        })
    }

    fn cuts(&self, id: NodeId, disks: &FakeDisks, known: &watch::Sender<Arc<Known>>) -> (Arc<Freezes>, Arc<Cuts>) {
        let freezes = Freezes::open(self.records(id), Some(Arc::new(self.hypervisor(id)))).unwrap();
        let cuts = Arc::new(Cuts::new(CutParts {
            node: id,
            disks: Arc::new(disks.clone()),
            freezes: freezes.clone(),
            peers: Arc::new(self.wires.clone()),
            controller: Arc::new(self.controller.clone()),
            known: known.subscribe(),
        }));
        self.wires.nodes.lock().unwrap().insert(id, cuts.clone());
        (freezes, cuts)
    }

    pub(crate) fn hypervisor(&self, node: NodeId) -> FakeHypervisor {
        self.host.hypervisor(Owner { cluster: CLUSTER.into(), node })
    }

    /// Where a node writes down which guests are frozen.
    pub(crate) fn records(&self, node: NodeId) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    pub(crate) fn start(&self) {
        for node in &self.nodes {
            let (cuts, stop) = (node.cuts.clone(), node.stop.clone());
            tokio::spawn(async move { cuts.run(stop).await });
        }
    }

    /// A new process of a node: nothing in memory, the same disks.
    pub(crate) fn restart(&mut self, at: usize) {
        self.nodes[at].stop.cancel();
        let node = &self.nodes[at];
        let (freezes, cuts) = self.cuts(node.id, &node.disks, &node.known);
        let stop = CancellationToken::new();
        let (running, cancel) = (cuts.clone(), stop.clone());
        tokio::spawn(async move { running.run(cancel).await });
        let node = &mut self.nodes[at];
        (node.freezes, node.cuts, node.stop) = (freezes, cuts, stop);
    }

    /// Another snapshot of the same disks.
    pub(crate) fn next_snapshot(&mut self) {
        self.snapshot = SnapshotId::generate();
        self.nodes.iter_mut().for_each(|node| node.commit = CommitId::generate());
    }

    pub(crate) fn order(&self, at: usize, attempt: u32, phase: CutPhase) -> CutOrder {
        let node = &self.nodes[at];
        let all = || self.nodes.iter().map(|n| CutNode { node: n.id, disks: vec![n.disk] }).collect();
        let disk = CutDisk { instance: node.instance, disk: node.disk, generation: 1, commit: node.commit };
        CutOrder {
            snapshot: self.snapshot,
            attempt,
            phase,
            max_pause_ms: 400,
            freeze: self.freeze,
            background: self.background,
            scheduled: self.scheduled,
            coordinate: (at == 0).then(all),
            disks: vec![disk],
            upload: UploadId::generate(),
            round: 3,
        }
    }

    pub(crate) fn tell(&self, at: usize, cuts: Vec<CutOrder>) {
        let mut known = Known::nothing(INCARNATION);
        known.fresh = true;
        self.nodes[at].known.send_if_modified(|before| {
            known.desired.revision = before.desired.revision + 1;
            false
        });
        known.desired.cuts = cuts;
        known.desired.versions = BTreeMap::new();
        self.nodes[at].known.send_replace(Arc::new(known));
    }

    pub(crate) fn order_all(&self, attempt: u32, phase: CutPhase) {
        for at in (0..self.nodes.len()).rev() {
            self.tell(at, vec![self.order(at, attempt, phase)]);
        }
    }

    pub(crate) async fn report(&self, count: usize) -> CutResult {
        self.controller.until("the cut is reported", |s| s.cut_reports.len() >= count).await;
        self.controller.script(|s| {
            assert_eq!(s.cut_reports.len(), count);
            s.cut_reports.last().unwrap().1.outcome.clone()
        })
    }

    pub(crate) async fn eventually(&self, what: &str, wanted: impl Fn() -> bool) {
        self.within(Duration::from_secs(10), what, wanted).await;
    }

    pub(crate) async fn within(&self, time: Duration, what: &str, wanted: impl Fn() -> bool) {
        let limit = Instant::now() + time;
        while !wanted() {
            assert!(Instant::now() < limit, "not within {time:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn reason(result: &CutResult) -> &str {
    match result {
        CutResult::Failed { reason, .. } => reason.as_str(),
        CutResult::Flipped { .. } => "flipped",
    }
}

#[tokio::test]
async fn every_disk_is_held_before_the_first_is_flipped() {
    let fleet = Fleet::new(5);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let CutResult::Flipped { members, .. } = fleet.report(1).await else { panic!("flipped") };
    assert_eq!(members.len(), 5);
    for node in &fleet.nodes {
        assert_eq!(node.disks.with(|d| d.steps.clone()), [CutStep::Prepare, CutStep::Hold, CutStep::Flip]);
    }
}

#[tokio::test]
async fn each_commit_is_saved_staged_and_its_outcome_known() {
    let fleet = Fleet::new(2);
    fleet.nodes[1].disks.with(|d| d.saves_that_fail = 2);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    fleet.report(1).await;
    let both: HashSet<_> = fleet.nodes.iter().map(|n| n.commit).collect();
    let staged = |s: &Script| s.staged.iter().map(|(c, _)| *c).collect::<HashSet<_>>();
    fleet.controller.until("both are staged", |s| staged(s) == both).await;
    // The outcome was asked for before anything was done with the commit.
    fleet.controller.script(|s| {
        assert!(s.asked.contains(&fleet.nodes[0].commit));
        for node in &fleet.nodes {
            s.outcomes.insert(node.commit, CommitOutcome::Published { version: VersionId::generate() });
        }
    });
    for at in 0..2 {
        fleet.tell(at, Vec::new());
    }
    // A published commit stays frozen until the next version folds it. Nothing is given up.
    let asked = || fleet.controller.script(|s| s.asked.len());
    fleet.eventually("both outcomes were asked for again", || asked() >= 4).await;
    assert!(fleet.nodes.iter().all(|n| n.disks.with(|d| d.abandoned.is_empty() && d.saved.len() == 1)));
}

#[tokio::test]
async fn what_keeps_a_commit_is_told_once_and_a_hopeless_one_ends() {
    let fleet = Fleet::new(2);
    fleet.nodes[0].disks.with(|d| d.saves_that_fail = 3);
    fleet.nodes[1].disks.with(|d| d.damaged = true);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    fleet.report(1).await;
    let [slow, damaged] = [fleet.nodes[0].commit, fleet.nodes[1].commit];
    fleet.controller.until("the first is staged", |s| s.staged.iter().any(|(commit, _)| *commit == slow)).await;
    let troubles = |commit: CommitId| {
        let of = |s: &mut Script| s.troubles.iter().filter(|(c, _)| *c == commit).map(|(_, t)| t.clone()).collect();
        let troubles: Vec<_> = fleet.controller.script(of);
        troubles
    };
    let told = troubles(slow);
    assert_eq!((told.len(), &told[0].reason, told[0].hopeless), (1, &Reason::Unreachable, false));
    fleet.eventually("the damaged one is given up", || fleet.nodes[1].disks.with(|d| !d.abandoned.is_empty())).await;
    let told = troubles(damaged);
    assert_eq!((told.len(), &told[0].reason, told[0].hopeless), (1, &Reason::DiskFailed, true));
    assert!(told[0].detail.contains("rotten"));
}

#[tokio::test]
async fn a_member_that_cannot_prepare_fails_the_cut_and_nobody_is_held() {
    let fleet = Fleet::new(3);
    fleet.nodes[2].disks.with(|d| d.refuse.insert(CutStep::Prepare));
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    assert_eq!(reason(&fleet.report(1).await), "busy");
    for node in &fleet.nodes {
        assert_eq!(node.disks.with(|d| d.steps.clone()), [CutStep::Prepare, CutStep::Abort]);
    }
}

#[tokio::test]
async fn a_late_flip_is_refused_and_all_are_given_up() {
    let fleet = Fleet::new(3);
    fleet.nodes[1].disks.with(|d| d.impatient = true);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    assert_eq!(reason(&fleet.report(1).await), "hold_expired");
    fleet
        .eventually("nothing stays frozen", || fleet.nodes.iter().all(|n| n.disks.with(|d| d.frozen.is_empty())))
        .await;
    assert!(fleet.controller.script(|s| s.staged.is_empty()));
}

#[tokio::test]
async fn a_member_that_does_not_answer_a_hold_fails_the_cut_within_the_pause() {
    let fleet = Fleet::new(3);
    fleet.wires.cut.lock().unwrap().insert((fleet.nodes[2].id, CutStep::Hold));
    fleet.start();
    let begun = Instant::now();
    fleet.order_all(1, CutPhase::Cut);
    assert_eq!(reason(&fleet.report(1).await), "unreachable");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(fleet.nodes.iter().all(|n| !n.disks.with(|d| d.steps.contains(&CutStep::Flip))));
}

#[tokio::test]
async fn a_step_is_only_for_the_disks_that_are_ordered_here() {
    let fleet = Fleet::new(1);
    fleet.tell(0, vec![fleet.order(0, 2, CutPhase::Save)]);
    let refused = |answer: CutStepAnswer| matches!(answer, CutStepAnswer::Refused { reason, .. } if reason == Reason::NotAssigned);
    let step = |attempt, step: CutStep, disk| {
        let (cuts, key) = (fleet.nodes[0].cuts.clone(), CutKey::new(fleet.snapshot, attempt));
        async move { cuts.step(key, step, vec![disk]).await }
    };
    let own = fleet.nodes[0].disk;
    let dance = serde_json::from_str("\"dance\"").unwrap();
    assert!(refused(step(2, CutStep::Prepare, DiskId::generate()).await), "another disk");
    assert!(refused(step(1, CutStep::Prepare, own).await), "an attempt that is over");
    assert!(refused(step(3, CutStep::Hold, own).await), "a hold nobody ordered");
    assert!(matches!(step(2, CutStep::Prepare, own).await, CutStepAnswer::Done { .. }));
    assert!(matches!(step(2, dance, own).await, CutStepAnswer::Refused { reason, .. } if reason == Reason::Invalid));
}

#[tokio::test]
async fn a_member_waits_for_an_order_that_is_on_its_way() {
    let fleet = Fleet::new(2);
    fleet.start();
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Cut)]);
    let first = fleet.nodes[0].disks.clone();
    fleet.eventually("the coordinator has begun", || first.with(|d| d.steps.contains(&CutStep::Prepare))).await;
    fleet.tell(1, vec![fleet.order(1, 1, CutPhase::Cut)]);
    assert_eq!(reason(&fleet.report(1).await), "flipped");
}

#[tokio::test]
async fn a_coordinator_that_starts_again_fails_the_attempt_that_was_flipped_already() {
    let mut fleet = Fleet::new(2);
    // It dies before its report reaches the controller.
    fleet.controller.script(|s| s.away = true);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    fleet.eventually("all are flipped", || fleet.nodes.iter().all(|n| n.disks.with(|d| d.flipped.len() == 1))).await;
    fleet.restart(0);
    fleet.controller.script(|s| s.away = false);
    assert_eq!(reason(&fleet.report(1).await), "busy");
    fleet
        .eventually("nothing stays frozen", || fleet.nodes.iter().all(|n| n.disks.with(|d| d.frozen.is_empty())))
        .await;
}

#[tokio::test]
async fn a_cut_is_not_begun_on_an_order_from_disk() {
    let fleet = Fleet::new(1);
    fleet.start();
    let mut known = Known::nothing(INCARNATION);
    known.desired.cuts = vec![fleet.order(0, 1, CutPhase::Cut)];
    fleet.nodes[0].known.send_replace(Arc::new(known));
    // The same order, now from the controller: the cut is begun now, and only now.
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Cut)]);
    assert_eq!(reason(&fleet.report(1).await), "flipped");
    assert_eq!(fleet.nodes[0].disks.with(|d| d.steps.clone()), [CutStep::Prepare, CutStep::Hold, CutStep::Flip]);
}

#[tokio::test]
async fn a_returning_agent_asks_first_and_gives_up_what_was_abandoned() {
    let mut fleet = Fleet::new(1);
    let node = &fleet.nodes[0];
    node.disks.with(|d| d.frozen.push((node.disk, node.commit)));
    fleet.controller.script(|s| s.outcomes.insert(node.commit, CommitOutcome::Abandoned));
    fleet.restart(0);
    let node = &fleet.nodes[0];
    fleet.eventually("it is given up", || node.disks.with(|d| d.abandoned == [node.commit])).await;
    assert!(node.disks.with(|d| d.saved.is_empty()));
    assert!(fleet.controller.script(|s| s.staged.is_empty()));
}

#[tokio::test]
async fn a_returning_agent_saves_what_is_still_wanted() {
    let mut fleet = Fleet::new(1);
    let node = &fleet.nodes[0];
    node.disks.with(|d| d.frozen.push((node.disk, node.commit)));
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Save)]);
    fleet.restart(0);
    fleet.controller.until("it is staged", |s| !s.staged.is_empty()).await;
    let (commit, staged) = fleet.controller.script(|s| s.staged[0].clone());
    assert_eq!((commit, staged.generation, staged.attempt), (fleet.nodes[0].commit, 1, 1));
    assert_eq!(fleet.controller.script(|s| s.asked[0]), commit);
}
