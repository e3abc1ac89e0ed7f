//! Cuts of many disks at one instant, and what becomes of them.
//!
//! ```text
//! coordinator    prepare all ----> hold all ----> (all confirmed: the instant) ----> flip each ----> report Flipped
//!                    |                 |                                                |
//!                    +---- any refusal or silence ----> abort all ----> report Failed --+
//! each member    frozen epoch of a commit ----> save (objects durable) ----> stage ----> published | abandoned
//! ```
//! One node with members coordinates ([`CutOrder::coordinate`]); the steps travel over the peers' connections, all members
//! of a step side by side, each step with a limit (I10, I11). A member carries out a step only for the disks that its *own*
//! desired state names for that snapshot and attempt; it waits a moment for an order that is still on its way.
//!
//! I7: a flip is asked for only after every hold was confirmed, and a member whose hold ended refuses it; so no write that
//! was acknowledged after the first flip can be missing from one member and its successor be in another. A coordinator that was
//! restarted begins again with the same attempt: members that flipped already refuse to prepare, the attempt fails as a whole, and the
//! controller orders the next one.
//!
//! I3, I9: a commit is staged only when all its objects are durable, under an id of its own; whatever happens, the agent asks for its
//! outcome before it does anything else with it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use http::Method;
use muster_api::{
    CommitId, DiskId, ErrorCode, NodeId, SnapshotId, VersionId,
    node_protocol::{
        CommitOutcome, CutDisk, CutMember, CutNode, CutOrder, CutPhase, CutReport, CutResult, StagedCommit, VersionRoot,
    },
    peer_protocol::{CutStep, CutStepAnswer, cut_step_path},
};
use muster_pool::{Call, PoolClient};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    controller::{ControllerClient, ControllerError},
    desired::Known,
    peer::server::CutSteps,
};

/// A snapshot and the number of the try.
pub type CutKey = (SnapshotId, u32);

/// How long a member waits for its order to arrive when it is asked to prepare.
const ORDER_WAIT: Duration = Duration::from_secs(5);
/// Longest a member prepares.
const PREPARE: Duration = Duration::from_secs(15);
/// Longest a coordinator waits for all to be prepared.
const PREPARE_ALL: Duration = Duration::from_secs(25);
/// Longest a flip or an abort takes.
const STEP: Duration = Duration::from_secs(3);
/// Most bytes of an answer to a step: some 100 bytes per disk.
const STEP_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Saves of this node at a time; one that waits for a node that is down does not keep the others.
const SAVES: usize = 4;

/// Why a step or a save was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({reason})")]
pub struct CutRefusal {
    /// `unreachable`, `hold_expired`, `busy`, `no_space`, `not_assigned`, …
    pub reason: String,
    /// For people.
    pub detail: String,
    /// There is no such commit on this node, and never will be.
    pub no_commit: bool,
}

impl CutRefusal {
    /// A refusal for a reason.
    #[must_use]
    pub fn new(reason: &str, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), detail: detail.into(), no_commit: false }
    }
}

/// A commit whose objects are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedCommit {
    /// The version it builds on.
    pub base: VersionId,
    /// Descriptor and root page.
    pub root: VersionRoot,
    /// Written since the base.
    pub dirty_bytes: u64,
    /// Newly stored, one copy.
    pub stored_bytes: u64,
}

/// The disks of this node, as far as cuts go. `mirror::Disks` is the real one.
pub trait DiskCuts: Send + Sync {
    /// Everything that takes time, before writes are held.
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), CutRefusal>>;
    /// Holds writes, at most for `max_pause`.
    fn hold(&self, key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), CutRefusal>>;
    /// Redirects writes and lets them go; refused when the hold ended. Repeating it gives the same answer.
    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, CutRefusal>>;
    /// Lets writes go and forgets the cut.
    fn abort(&self, key: CutKey) -> BoxFuture<'_, ()>;
    /// Makes the objects of a frozen epoch durable. Repeatable.
    fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<SavedCommit, CutRefusal>>;
    /// The commit will never be published: its blocks belong to the next one.
    fn abandon(&self, disk: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), CutRefusal>>;
    /// Commits with a frozen epoch that is neither folded nor abandoned.
    fn commits(&self) -> Vec<(DiskId, CommitId)>;
}

/// Steps on other nodes.
pub trait PeerSteps: Send + Sync {
    /// Asks `node`; an error is the text of what went wrong on the way.
    fn step(
        &self,
        node: NodeId,
        key: CutKey,
        step: &'static str,
        disks: Vec<DiskId>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<CutStepAnswer, String>>;
}

impl PeerSteps for PoolClient {
    fn step(
        &self,
        node: NodeId,
        (snapshot, attempt): CutKey,
        step: &'static str,
        disks: Vec<DiskId>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<CutStepAnswer, String>> {
        Box::pin(async move {
            let call = Call {
                method: Method::POST,
                path: &cut_step_path(snapshot, attempt, step),
                json: Some(serde_json::to_vec(&CutStep { disks }).map_err(|e| e.to_string())?),
                limit,
                answer_bytes_max: STEP_ANSWER_BYTES_MAX,
            };
            let answer = self.call(node, call).await.map_err(|e| e.to_string())?;
            serde_json::from_slice(&answer).map_err(|e| format!("node {node} answered what cannot be read: {e}"))
        })
    }
}

/// What cuts need.
pub struct CutParts {
    /// This node.
    pub node: NodeId,
    /// Its disks.
    pub disks: Arc<dyn DiskCuts>,
    /// The others.
    pub peers: Arc<dyn PeerSteps>,
    /// For reports, staging and outcomes.
    pub controller: Arc<dyn ControllerClient>,
    /// The orders.
    pub known: watch::Receiver<Arc<Known>>,
}

/// This node's part in cuts: member always, coordinator when told so.
pub struct Cuts {
    parts: CutParts,
    /// Something was flipped: there are commits to save.
    flipped: Notify,
    saves: Semaphore,
    /// Cuts prepared here and not flipped: given up when they are no longer ordered, also if nobody says abort (I10).
    prepared: Mutex<HashSet<CutKey>>,
}

enum Work {
    Coordinated(CutKey),
    GivenUp(CutKey),
    Settled(CommitId),
}

impl Cuts {
    /// Does nothing until it is run or asked for a step.
    #[must_use]
    pub fn new(parts: CutParts) -> Self {
        Self { parts, flipped: Notify::new(), saves: Semaphore::new(SAVES), prepared: Mutex::default() }
    }

    /// Coordinates what it is told to and brings every frozen commit to its end, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut known = self.parts.known.clone();
        let mut begun: HashSet<CutKey> = HashSet::new();
        let mut settling: HashSet<CommitId> = HashSet::new();
        let mut settled: HashSet<CommitId> = HashSet::new();
        let mut work: FuturesUnordered<BoxFuture<'_, Work>> = FuturesUnordered::new();
        loop {
            let flipped = self.flipped.notified();
            let now = known.borrow_and_update().clone();
            begun.retain(|key| now.cut(*key).is_some());
            for order in now.desired.cuts.iter().filter(|order| now.fresh && order.phase == CutPhase::Cut) {
                let key = (order.snapshot, order.attempt);
                if let Some(nodes) = &order.coordinate
                    && begun.insert(key)
                {
                    let (order, nodes) = (order.clone(), nodes.clone());
                    work.push(self.coordinate(order, nodes).map(move |()| Work::Coordinated(key)).boxed());
                }
            }
            let over: Vec<CutKey> = self.prepared().extract_if(|key| now.cut(*key).is_none()).collect();
            for key in over {
                work.push(self.parts.disks.abort(key).map(move |()| Work::GivenUp(key)).boxed());
            }
            let commits = self.parts.disks.commits();
            settled.retain(|commit| commits.iter().any(|(_, listed)| listed == commit));
            for (disk, commit) in commits {
                if !settled.contains(&commit) && settling.insert(commit) {
                    work.push(self.settle(disk, commit).map(move |()| Work::Settled(commit)).boxed());
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = flipped => {}
                changed = known.changed() => if changed.is_err() { return },
                Some(done) = work.next() => match done {
                    Work::Coordinated((snapshot, attempt)) => debug!(snapshot.id = %snapshot, attempt, "coordinated"),
                    Work::GivenUp((snapshot, attempt)) => {
                        info!(snapshot.id = %snapshot, attempt, "a cut that is no longer ordered was given up");
                    }
                    Work::Settled(commit) => {
                        settling.remove(&commit);
                        settled.insert(commit);
                    }
                },
            }
        }
    }

    fn prepared(&self) -> MutexGuard<'_, HashSet<CutKey>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- member -------------------------------------------------------------------------------------------------

    async fn member_step(&self, key: CutKey, step: &str, disks: Vec<DiskId>) -> Result<Vec<CutMember>, CutRefusal> {
        if step == "abort" {
            self.parts.disks.abort(key).await;
            self.prepared().remove(&key);
            return Ok(Vec::new());
        }
        let wait = if step == "prepare" { ORDER_WAIT } else { Duration::ZERO };
        let order = self.order(key, &disks, wait).await?;
        match step {
            "prepare" => {
                self.prepared().insert(key);
                self.parts.disks.prepare(key, order.disks).await.map(|()| Vec::new())
            }
            "hold" => {
                let max_pause = Duration::from_millis(order.max_pause_ms);
                self.parts.disks.hold(key, max_pause).await.map(|()| Vec::new())
            }
            "flip" => {
                let members = self.parts.disks.flip(key).await?;
                self.prepared().remove(&key);
                self.flipped.notify_one();
                Ok(members)
            }
            other => Err(CutRefusal::new("invalid", format!("there is no step '{other}'"))),
        }
    }

    /// This node's own order for the cut, once it is here: exactly these disks, and no newer attempt.
    async fn order(&self, key: CutKey, disks: &[DiskId], wait: Duration) -> Result<CutOrder, CutRefusal> {
        let mut known = self.parts.known.clone();
        let limit = Instant::now() + wait;
        let asked: HashSet<_> = disks.iter().copied().collect();
        loop {
            let now = known.borrow_and_update().clone();
            if let Some(order) = now.cut(key) {
                let own: HashSet<_> = order.disks.iter().map(|d| d.disk).collect();
                return if own == asked {
                    Ok(order.clone())
                } else {
                    Err(CutRefusal::new(
                        "not_assigned",
                        format!("{} disks were asked for, {} are ordered here", asked.len(), own.len()),
                    ))
                };
            }
            if now.desired.cuts.iter().any(|o| o.snapshot == key.0 && o.attempt > key.1) {
                return Err(CutRefusal::new(
                    "not_assigned",
                    format!("attempt {} of snapshot {} is over", key.1, key.0),
                ));
            }
            if !matches!(timeout_at(limit, known.changed()).await, Ok(Ok(()))) {
                return Err(CutRefusal::new(
                    "not_assigned",
                    format!("snapshot {} attempt {} is not ordered here", key.0, key.1),
                ));
            }
        }
    }

    // ---- coordinator --------------------------------------------------------------------------------------------

    async fn coordinate(&self, order: CutOrder, nodes: Vec<CutNode>) {
        let key = (order.snapshot, order.attempt);
        let outcome = match self.cut_all(&order, &nodes).await {
            Ok(done) => done,
            Err(refusal) => {
                warn!(snapshot.id = %key.0, attempt = key.1, reason = refusal.reason, detail = refusal.detail, "a cut failed");
                // Guests go on by themselves when their hold ends; this only makes it sooner.
                let aborts = nodes.iter().map(|node| self.ask(node, key, "abort", STEP));
                join_all(aborts).await;
                CutResult::Failed { reason: refusal.reason, detail: refusal.detail }
            }
        };
        self.report_cut(key, CutReport { attempt: key.1, outcome }).await;
    }

    async fn cut_all(&self, order: &CutOrder, nodes: &[CutNode]) -> Result<CutResult, CutRefusal> {
        let key = (order.snapshot, order.attempt);
        let max_pause = Duration::from_millis(order.max_pause_ms);
        let prepares = nodes.iter().map(|node| self.insist(node, key, "prepare", PREPARE_ALL));
        all(join_all(prepares).await)?;
        // A hold that is confirmed later than this has ended already on the first member.
        all(join_all(nodes.iter().map(|node| self.ask(node, key, "hold", max_pause))).await)?;
        let cut_at = clock::now();
        let flips = join_all(nodes.iter().map(|node| self.insist(node, key, "flip", STEP))).await;
        let members = all(flips)?;
        let wanted: HashSet<DiskId> = nodes.iter().flat_map(|node| node.disks.iter().copied()).collect();
        let got: HashSet<DiskId> = members.iter().map(|member| member.disk).collect();
        if wanted != got {
            return Err(CutRefusal::new(
                "invalid",
                format!("{} disks answered the flip of {}", got.len(), wanted.len()),
            ));
        }
        info!(snapshot.id = %key.0, attempt = key.1, disks = members.len(), "all disks were cut at one instant");
        Ok(CutResult::Flipped { cut_at, members })
    }

    /// One step on one node: this one directly, others over their connections.
    async fn ask(
        &self,
        node: &CutNode,
        key: CutKey,
        step: &'static str,
        limit: Duration,
    ) -> Result<Vec<CutMember>, CutRefusal> {
        let unreachable = |detail: String| CutRefusal::new("unreachable", format!("node {}: {detail}", node.node));
        let answer = if node.node == self.parts.node {
            match timeout(limit, self.member_step(key, step, node.disks.clone())).await {
                Ok(answer) => return answer,
                Err(_elapsed) => return Err(unreachable(format!("{step} took longer than {limit:?}"))),
            }
        } else {
            self.parts.peers.step(node.node, key, step, node.disks.clone(), limit).await
        };
        match answer {
            Ok(CutStepAnswer::Done { members }) => Ok(members),
            Ok(CutStepAnswer::Refused { reason, detail }) => {
                Err(CutRefusal::new(&reason, format!("node {}: {detail}", node.node)))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// As [`Cuts::ask`], but asks again while the node is not reached: prepare and flip may be repeated.
    async fn insist(
        &self,
        node: &CutNode,
        key: CutKey,
        step: &'static str,
        limit: Duration,
    ) -> Result<Vec<CutMember>, CutRefusal> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.ask(node, key, step, end.saturating_duration_since(Instant::now())).await;
            let again = Instant::now() + Duration::from_millis(100);
            match answer {
                Err(refusal) if refusal.reason == "unreachable" && again < end => {
                    tokio::time::sleep_until(again).await;
                }
                other => return other,
            }
        }
    }

    /// Told until it is answered, or nobody wants to know any more.
    async fn report_cut(&self, key: CutKey, report: CutReport) {
        let mut pause = Duration::from_millis(100);
        while self.wanted(key) {
            match self.parts.controller.cut_report(key.0, report.clone()).await {
                Ok(()) => return,
                Err(error @ ControllerError::Refused(_)) => {
                    warn!(snapshot.id = %key.0, %error, "the controller does not want the report of a cut");
                    return;
                }
                Err(error) => debug!(snapshot.id = %key.0, %error, "the report of a cut is sent again"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    fn wanted(&self, key: CutKey) -> bool {
        self.parts.known.borrow().cut(key).is_some()
    }

    // ---- commits ------------------------------------------------------------------------------------------------

    /// Brings one frozen commit to its end: published or abandoned. Its owner in time is the controller, whose
    /// snapshot has a deadline; this asks until it knows.
    async fn settle(&self, disk: DiskId, commit: CommitId) {
        let mut known = self.parts.known.clone();
        let mut saved: Option<SavedCommit> = None;
        let mut pause = Duration::from_millis(100);
        loop {
            let order = known.borrow_and_update().desired.cuts.iter().find_map(|order| {
                let wanted = order.disks.iter().find(|d| d.disk == disk && d.commit == commit)?;
                Some((order.clone(), wanted.clone()))
            });
            let outcome = match order {
                Some((order, wanted)) => self.save_and_stage(&order, &wanted, &mut saved).await,
                None => self.outcome(commit).await,
            };
            match outcome {
                Some(CommitOutcome::Published { version }) => {
                    info!(disk.id = %disk, commit.id = %commit, version.id = %version, "a commit was published");
                    return;
                }
                Some(CommitOutcome::Abandoned) => match self.parts.disks.abandon(disk, commit).await {
                    Ok(()) => {
                        info!(disk.id = %disk, commit.id = %commit, "a commit was given up, its blocks are in the next one");
                        return;
                    }
                    Err(refusal) if refusal.no_commit => return,
                    Err(refusal) => {
                        warn!(disk.id = %disk, commit.id = %commit, %refusal, "a commit cannot be given up yet")
                    }
                },
                Some(CommitOutcome::Pending) | None => {}
            }
            // A snapshot that ends changes the desired state, which is when the outcome is known.
            let _changed_or_time = timeout(pause, known.changed()).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn save_and_stage(
        &self,
        order: &CutOrder,
        wanted: &CutDisk,
        saved: &mut Option<SavedCommit>,
    ) -> Option<CommitOutcome> {
        let (disk, commit) = (wanted.disk, wanted.commit);
        if saved.is_none() {
            // A returning agent asks first: it may be published, or given up, already.
            match self.outcome(commit).await {
                Some(CommitOutcome::Pending) => {}
                other => return other,
            }
            let _turn = self.saves.acquire().await.ok()?;
            match self.parts.disks.save(disk, commit, order.round).await {
                Ok(done) => *saved = Some(done),
                // Given up here already: the cut was aborted after this disk flipped.
                Err(refusal) if refusal.no_commit => return Some(CommitOutcome::Abandoned),
                Err(refusal) => {
                    warn!(disk.id = %disk, commit.id = %commit, %refusal, "a commit is not saved yet");
                    return None;
                }
            }
        }
        let done = saved.clone()?;
        let staged = StagedCommit {
            snapshot: order.snapshot,
            attempt: order.attempt,
            disk,
            generation: wanted.generation,
            base: done.base,
            upload: order.upload,
            root: done.root,
            dirty_bytes: done.dirty_bytes,
            stored_bytes: done.stored_bytes,
        };
        match self.parts.controller.stage(commit, staged).await {
            Ok(outcome) => Some(outcome),
            Err(ControllerError::Refused(problem)) => {
                debug!(commit.id = %commit, %problem, "a commit was not staged");
                // The base may have moved on (an earlier snapshot of the disk was published): build on it next time.
                *saved = None;
                self.outcome(commit).await
            }
            Err(error) => {
                debug!(commit.id = %commit, %error, "a commit is staged again");
                None
            }
        }
    }

    async fn outcome(&self, commit: CommitId) -> Option<CommitOutcome> {
        match self.parts.controller.outcome(commit).await {
            Ok(outcome) => Some(outcome),
            // A controller that has never heard of it will not publish it. Nothing is lost: the blocks stay dirty.
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Some(CommitOutcome::Abandoned),
            Err(error) => {
                debug!(commit.id = %commit, %error, "the outcome of a commit is asked again");
                None
            }
        }
    }
}

/// All members' answers, or the first refusal.
fn all(answers: Vec<Result<Vec<CutMember>, CutRefusal>>) -> Result<Vec<CutMember>, CutRefusal> {
    let mut members = Vec::new();
    for answer in answers {
        members.extend(answer?);
    }
    Ok(members)
}

impl CutSteps for Cuts {
    fn step(
        &self,
        snapshot: SnapshotId,
        attempt: u32,
        step: String,
        disks: Vec<DiskId>,
    ) -> BoxFuture<'_, CutStepAnswer> {
        Box::pin(async move {
            let limit = if step == "prepare" { PREPARE } else { STEP };
            match timeout(limit, self.member_step((snapshot, attempt), &step, disks)).await {
                Ok(Ok(members)) => CutStepAnswer::Done { members },
                Ok(Err(refusal)) => CutStepAnswer::Refused { reason: refusal.reason, detail: refusal.detail },
                Err(_elapsed) => CutStepAnswer::Refused {
                    reason: "busy".to_owned(),
                    detail: format!("{step} took longer than {limit:?}"),
                },
            }
        })
    }
}
