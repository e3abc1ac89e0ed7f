//! [`PoolClient`]: where objects go and where they come from.
//!
//! ```text
//! get   local store -> owners of the newest epoch -> owners of older epochs -> everyone; again until the deadline
//! put   per record: owners, then the next in rank, until enough distinct nodes hold it durably
//! ```
//! Requests to different nodes run side by side, one batch per node, and every record is verified where it arrives (I4).
//! A node that makes no progress for a moment is *hedged*: what it owes is asked of the next one while its own answer is
//! still welcome (I11). A node that failed goes to the back of every queue for a while, so a dead owner costs one
//! hedge now and then and not one per read.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use muster_api::{
    ClusterId, DiskId, InstanceId, NodeId, SnapshotId, StoreId,
    cause::explain,
    membership::{Member, Membership},
    node_protocol::node_tls_name,
    peer_protocol::{CutStep, CutStepAnswer, NAMES_MAX, ROUND_HEADER},
};
use storage_core::{
    Kind, ObjectName,
    placement::{self, PlacementNode},
    record::{Record, VerifiedObject, Wire},
    store::ChunkStore,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use crate::{
    tls::{Ca, Identity, NameTable, TlsError, http_client},
    wire::{NAME_BYTES, RecordReader, encode_names},
};

/// Membership epochs remembered for reading: objects may still be where an older epoch put them.
const OLDER_EPOCHS: usize = 4;

/// The waits and sizes of a [`PoolClient`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// A get without progress for this long is also asked of the next node.
    pub hedge_get: Duration,
    /// A put not answered for this long is also sent to the next node.
    pub hedge_put: Duration,
    /// A node that says nothing for this long has failed the request.
    pub silence: Duration,
    /// Bytes per second a node must take or give at least, on top of `silence`.
    pub slowest_bytes_per_s: u64,
    /// How long a put tries to get enough copies.
    pub patience_put: Duration,
    /// Names in one get: small enough that several owners and hedges share the work.
    pub get_names: usize,
    /// Payload bytes in one put.
    pub put_bytes: usize,
    /// Gets at a time per node; puts have their own half as many, so that writing never starves reading.
    pub per_node: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            hedge_get: Duration::from_millis(400),
            hedge_put: Duration::from_secs(3),
            silence: Duration::from_secs(6),
            slowest_bytes_per_s: 1 << 20,
            patience_put: Duration::from_secs(30),
            get_names: 32,
            put_bytes: 8 << 20,
            per_node: 16,
        }
    }
}

/// Why the pool could not do it.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The deadline came before all objects were found.
    #[error("{} objects could not be had in time, the first is {}; {}", names.len(), first(names), reasons.join("; "))]
    Unavailable {
        /// The objects that are still missing.
        names: Vec<ObjectName>,
        /// What went wrong, one line per node.
        reasons: Vec<String>,
    },
    /// Too few nodes took the objects.
    #[error("{got} of {wanted} copies could be made; {}", reasons.join("; "))]
    NotEnoughCopies {
        /// Copies a publish needs.
        wanted: usize,
        /// Copies there are of the worst object.
        got: usize,
        /// What went wrong, one line per node.
        reasons: Vec<String>,
        /// Whether every refusal was for want of room: no sense in trying again at once.
        full: bool,
    },
    /// The node is not in the membership record.
    #[error("node {0} is not a member of the pool")]
    NotAMember(NodeId),
    /// One node did not answer a call that only it can answer.
    #[error("node {node} did not answer: {reason}")]
    Peer {
        /// Node.
        node: NodeId,
        /// What happened.
        reason: String,
    },
}

fn first(names: &[ObjectName]) -> String {
    names.first().map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// An object that was asked for.
#[derive(Clone, Debug)]
pub struct Got {
    /// The object, verified against its name.
    pub object: VerifiedObject,
    /// Bytes that came over the network for it; 0 from this node's own store.
    pub network_bytes: u64,
}

/// All records are durable on enough nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutDone {
    /// Payload bytes no asked node had before, one copy.
    pub stored_bytes: u64,
}

/// A cheap handle to the pool; clones share connections, membership and what is known about the nodes' health.
#[derive(Clone)]
pub struct PoolClient {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for PoolClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = self.inner.view.load();
        f.debug_struct("PoolClient").field("epoch", &view.membership.epoch).finish_non_exhaustive()
    }
}

struct Inner {
    http: Option<reqwest::Client>,
    names: NameTable,
    view: ArcSwap<View>,
    changed: Notify,
    local: Option<Local>,
    health: Mutex<HashMap<StoreId, Arc<Health>>>,
    limits: PoolLimits,
}

#[derive(Clone)]
struct Local {
    store: StoreId,
    chunks: Arc<dyn ChunkStore>,
}

/// A membership epoch as placement wants it. Index = position in `membership.members`.
struct View {
    membership: Arc<Membership>,
    placement: Vec<PlacementNode>,
    older: Vec<Arc<Membership>>,
}

impl View {
    fn new(membership: Membership, older: Vec<Arc<Membership>>) -> Self {
        let placement = placement_of(&membership);
        Self { membership: Arc::new(membership), placement, older }
    }

    /// Nodes to ask for `name`, best first: owners now, owners in older epochs, everyone.
    fn readers(&self, name: &ObjectName) -> Vec<usize> {
        let copies = copies_max(&self.membership);
        let ranked = placement::rank(name, &self.placement);
        let mut order: Vec<usize> = ranked.iter().copied().take(copies).collect();
        for older in &self.older {
            let owned = placement::owners(name, &placement_of(older), copies);
            let stores = owned.into_iter().filter_map(|at| older.members.get(at)).map(|m| m.store);
            order.extend(stores.filter_map(|store| self.membership.members.iter().position(|m| m.store == store)));
        }
        order.extend(ranked);
        let mut seen = HashSet::new();
        order.retain(|at| seen.insert(*at));
        order
    }

    /// Nodes to put `name` to, best first.
    fn writers(&self, name: &ObjectName) -> Vec<usize> {
        let mut order = placement::rank(name, &self.placement);
        order.retain(|at| self.takes(*at));
        order
    }

    fn takes(&self, at: usize) -> bool {
        self.membership.members.get(at).is_some_and(|m| m.accepting && m.weight > 0)
    }

    /// (needed to publish, wanted)
    fn copies(&self, kind: Kind) -> (usize, usize) {
        let nodes = (0..self.membership.members.len()).filter(|at| self.takes(*at)).count();
        let min = usize::try_from(self.membership.min_copies).unwrap_or(usize::MAX).max(1);
        // With no node at all one copy is still needed, so that the answer is a refusal.
        let needed = min.min(nodes).max(1);
        match kind {
            Kind::Chunk | Kind::Pack => (needed, needed),
            Kind::Page | Kind::Descriptor => (needed, needed.saturating_add(1).min(nodes.max(1))),
        }
    }
}

fn placement_of(membership: &Membership) -> Vec<PlacementNode> {
    let node = |m: &Member| PlacementNode {
        store: *m.store.uuid().as_bytes(),
        weight: m.weight,
        zone: m.zone.clone(),
        accepting: m.accepting,
    };
    membership.members.iter().map(node).collect()
}

fn copies_max(membership: &Membership) -> usize {
    usize::try_from(membership.min_copies).unwrap_or(usize::MAX).saturating_add(1).min(membership.members.len())
}

/// What is known about one node.
struct Health {
    gets: Semaphore,
    puts: Semaphore,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    suspect_until: Option<Instant>,
    full_until: Option<Instant>,
}

impl Health {
    fn new(limits: &PoolLimits) -> Self {
        Self {
            gets: Semaphore::new(limits.per_node),
            puts: Semaphore::new((limits.per_node / 2).max(1)),
            trouble: Mutex::default(),
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn well(&self) {
        let mut trouble = self.trouble();
        trouble.failures = 0;
        trouble.suspect_until = None;
    }

    /// One second to the back of the queue, doubled with each further failure up to half a minute.
    fn failed(&self) {
        let mut trouble = self.trouble();
        let pause = Duration::from_secs(1 << trouble.failures.min(5)).min(Duration::from_secs(30));
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.suspect_until = Some(Instant::now() + pause);
    }

    /// Asked again now and then: each time costs one hedge.
    fn slow(&self) {
        self.trouble().suspect_until = Some(Instant::now() + Duration::from_secs(3));
    }

    fn full(&self) {
        self.trouble().full_until = Some(Instant::now() + Duration::from_secs(5));
    }

    fn suspect(&self, now: Instant) -> bool {
        self.trouble().suspect_until.is_some_and(|until| now < until)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.trouble().full_until.is_some_and(|until| now < until)
    }
}

impl PoolClient {
    /// A client of the pool described by `membership`; `local` is this node's own share of it, asked without a network.
    ///
    /// # Errors
    /// When the TLS client cannot be built.
    pub fn new(
        identity: &Identity,
        ca: &Ca,
        membership: Membership,
        local: Option<(StoreId, Arc<dyn ChunkStore>)>,
    ) -> Result<Self, TlsError> {
        Self::with_limits(identity, ca, membership, local, PoolLimits::default())
    }

    /// As [`PoolClient::new`], with other waits and sizes.
    ///
    /// # Errors
    /// When the TLS client cannot be built.
    pub fn with_limits(
        identity: &Identity,
        ca: &Ca,
        membership: Membership,
        local: Option<(StoreId, Arc<dyn ChunkStore>)>,
        limits: PoolLimits,
    ) -> Result<Self, TlsError> {
        let names = NameTable::new();
        let http = http_client(identity, ca, names.clone())?;
        Ok(Self::build(Some(http), names, membership, local, limits))
    }

    /// A pool of one node without a network.
    #[must_use]
    pub fn local_only(chunks: Arc<dyn ChunkStore>) -> Self {
        let store = StoreId::generate();
        let member = Member {
            node: NodeId::generate(),
            name: "local".to_owned(),
            store,
            address: "127.0.0.1:0".to_owned(),
            zone: None,
            weight: 1,
            accepting: true,
            key_sha256: String::new(),
        };
        let membership = Membership {
            cluster: ClusterId::generate(),
            epoch: 1,
            min_copies: 1,
            members: vec![member],
            clients: Vec::new(),
        };
        Self::build(None, NameTable::new(), membership, Some((store, chunks)), PoolLimits::default())
    }

    fn build(
        http: Option<reqwest::Client>,
        names: NameTable,
        membership: Membership,
        local: Option<(StoreId, Arc<dyn ChunkStore>)>,
        limits: PoolLimits,
    ) -> Self {
        let local = local.map(|(store, chunks)| Local { store, chunks });
        name_members(&names, &membership);
        let view = ArcSwap::from_pointee(View::new(membership, Vec::new()));
        let inner = Inner { http, names, view, changed: Notify::new(), local, health: Mutex::default(), limits };
        Self { inner: Arc::new(inner) }
    }

    /// Works with `membership` from now on; an older epoch than the current one is ignored.
    pub fn set_membership(&self, membership: Membership) {
        let current = self.inner.view.load_full();
        if membership.epoch < current.membership.epoch || membership == *current.membership {
            return;
        }
        name_members(&self.inner.names, &membership);
        let mut older = vec![current.membership.clone()];
        older.extend(current.older.iter().take(OLDER_EPOCHS - 1).cloned());
        // The record of epoch 0 is the empty one a controller or agent starts with.
        older.retain(|m| m.epoch > 0 && m.epoch < membership.epoch);
        self.inner.view.store(Arc::new(View::new(membership, older)));
        self.inner.changed.notify_waiters();
    }

    /// The membership record it works with.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.inner.view.load().membership.clone()
    }

    /// Fetches objects, in the order asked for: from this node's store, from the owners side by side, from the next
    /// copy where one is absent, bad or slow, at last from everyone; over again until `deadline`.
    ///
    /// # Errors
    /// [`PoolError::Unavailable`] with the names that no node could give in time.
    pub async fn get(&self, names: &[ObjectName], deadline: Instant) -> Result<Vec<Got>, PoolError> {
        let mut unique = Vec::new();
        let mut at = HashMap::new();
        for name in names {
            at.entry(*name).or_insert_with(|| {
                unique.push(*name);
                unique.len() - 1
            });
        }
        let mut search = Search { found: vec![None; unique.len()], names: unique, reasons: BTreeMap::new() };
        let mut pause = Duration::from_millis(50);
        loop {
            // Registered before looking, so that a membership that comes meanwhile is not missed.
            let changed = self.inner.changed.notified();
            self.inner.get_local(&mut search).await;
            if !search.complete() && self.inner.http.is_some() {
                let view = self.inner.view.load_full();
                let asked = self.inner.clone().get_remote(&view, &mut search, deadline);
                if tokio::time::timeout_at(deadline, asked).await.is_err() {
                    search.reasons.entry("pool".to_owned()).or_insert_with(|| "the deadline came".to_owned());
                }
            }
            if search.complete() {
                break;
            }
            let again = (Instant::now() + pause).min(deadline);
            if Instant::now() >= deadline {
                let missing = search.missing().map(|i| search.names[i]).collect();
                return Err(PoolError::Unavailable { names: missing, reasons: search.reasons_text() });
            }
            tokio::select! { () = sleep_until(again) => {}, () = changed => {} }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        let found: Vec<Got> = search.found.into_iter().flatten().collect();
        Ok(names.iter().filter_map(|name| at.get(name).and_then(|i| found.get(*i)).cloned()).collect())
    }

    /// Makes records durable on min(nodes, min_copies) distinct nodes each, pages and descriptors on one more where there
    /// are nodes; objects that are there already are touched with `round`, not sent.
    ///
    /// # Errors
    /// [`PoolError::NotEnoughCopies`] when that many nodes could not be had in time; nothing is undone, repeating is free.
    pub async fn put(&self, round: u64, records: Vec<Record>) -> Result<PutDone, PoolError> {
        let mut seen = HashSet::new();
        let records: Arc<[Record]> = records.into_iter().filter(|r| seen.insert(r.name())).collect();
        if records.is_empty() {
            return Ok(PutDone::default());
        }
        let give_up = Instant::now() + self.inner.limits.patience_put;
        let mut spread = Spread::new(&records);
        let mut pause = Duration::from_millis(100);
        loop {
            let changed = self.inner.changed.notified();
            let view = self.inner.view.load_full();
            self.inner.clone().put_once(&view, round, &records, &mut spread).await;
            let (needed, got) = spread.worst(&view, &records);
            if got >= needed {
                return Ok(PutDone { stored_bytes: spread.stored_bytes(&records) });
            }
            let again = Instant::now() + pause;
            if again >= give_up || spread.only_full() {
                return Err(PoolError::NotEnoughCopies {
                    wanted: needed,
                    got,
                    reasons: spread.reasons_text(),
                    full: spread.only_full(),
                });
            }
            tokio::select! { () = sleep_until(again) => {}, () = changed => {} }
            pause = (pause * 2).min(Duration::from_secs(3));
        }
    }

    /// One step of a many-disk cut on one node; `step` is prepare, hold, flip or abort. Not repeated here: the
    /// coordinator knows whether a repeat makes sense.
    ///
    /// # Errors
    /// When the node is not a member or does not answer within `limit`.
    pub async fn cut_step(
        &self,
        node: NodeId,
        snapshot: SnapshotId,
        attempt: u32,
        step: &str,
        disks: &[DiskId],
        limit: Duration,
    ) -> Result<CutStepAnswer, PoolError> {
        let (http, base) = self.inner.address(node)?;
        let request = http
            .post(format!("{base}/peer/v1/cuts/{snapshot}/{attempt}/{step}"))
            .timeout(limit)
            .json(&CutStep { disks: disks.to_vec() });
        let failed = |reason: String| PoolError::Peer { node, reason };
        let answer = request.send().await.map_err(|e| failed(explain(&e)))?;
        let status = answer.status();
        let body = bounded(answer, 1 << 20).await.map_err(failed)?;
        if !status.is_success() {
            return Err(failed(refusal(status, &body)));
        }
        serde_json::from_slice(&body).map_err(|e| failed(format!("its answer cannot be read: {e}")))
    }

    /// The end of an instance's console output, from the node it is on.
    ///
    /// # Errors
    /// When the node is not a member or does not answer.
    pub async fn instance_log(&self, node: NodeId, instance: InstanceId, tail_bytes: u64) -> Result<Bytes, PoolError> {
        let (http, base) = self.inner.address(node)?;
        let request = http
            .get(format!("{base}/peer/v1/instances/{instance}/log?tail_bytes={tail_bytes}"))
            .timeout(self.inner.limits.silence);
        let failed = |reason: String| PoolError::Peer { node, reason };
        let answer = request.send().await.map_err(|e| failed(explain(&e)))?;
        let status = answer.status();
        let limit = usize::try_from(tail_bytes).unwrap_or(usize::MAX).max(64 << 10);
        let body = bounded(answer, limit).await.map_err(failed)?;
        if status.is_success() { Ok(body) } else { Err(failed(refusal(status, &body))) }
    }
}

fn name_members(names: &NameTable, membership: &Membership) {
    names.replace(membership.members.iter().map(|m| (node_tls_name(m.node), m.address.clone())));
}

fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    let detail = match serde_json::from_slice::<muster_api::Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(body.get(..200.min(body.len())).unwrap_or_default()).into_owned(),
    };
    format!("it answered {status}: {detail}")
}

async fn bounded(mut answer: reqwest::Response, limit: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| explain(&e))? {
        if body.len() + piece.len() > limit {
            return Err(format!("its answer is over {limit} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

// ---- get ------------------------------------------------------------------------------------------------------------

struct Search {
    names: Vec<ObjectName>,
    found: Vec<Option<Got>>,
    reasons: BTreeMap<String, String>,
}

impl Search {
    fn complete(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        self.found.iter().enumerate().filter(|(_, got)| got.is_none()).map(|(at, _)| at)
    }

    fn reasons_text(&self) -> Vec<String> {
        self.reasons.iter().map(|(node, reason)| format!("{node}: {reason}")).collect()
    }
}

enum GetEvent {
    /// A verified object.
    Found { batch: u64, name: usize, got: Got },
    /// This node has not got it, or has a bad copy.
    Miss { batch: u64, name: usize },
    /// The request is over.
    End { batch: u64, failed: Option<String> },
}

/// One request under way.
struct GetBatch {
    node: usize,
    owed: HashSet<usize>,
    hedge_at: Option<Instant>,
    progress: bool,
}

impl Inner {
    async fn get_local(&self, search: &mut Search) {
        let Some(local) = self.local.clone() else { return };
        let wanted: Vec<(usize, ObjectName)> = search.missing().map(|at| (at, search.names[at])).collect();
        let looked = tokio::task::spawn_blocking(move || {
            let look = |(at, name)| match local.chunks.load(&name) {
                Ok(object) => object.map(|object| (at, object)),
                Err(error) => {
                    warn!(object.name = %name, %error, "this node's copy cannot be read, others are asked");
                    None
                }
            };
            wanted.into_iter().filter_map(look).collect::<Vec<_>>()
        });
        match looked.await {
            Ok(found) => {
                for (at, object) in found {
                    search.found[at] = Some(Got { object, network_bytes: 0 });
                }
            }
            Err(error) => warn!(%error, "this node's store could not be asked"),
        }
    }

    /// Asks each node at most once for each missing name.
    async fn get_remote(self: Arc<Self>, view: &Arc<View>, search: &mut Search, deadline: Instant) {
        let now = Instant::now();
        let own = self.local.as_ref().map(|l| l.store);
        let mut queues: HashMap<usize, VecDeque<usize>> = HashMap::new();
        for at in search.missing() {
            let readers = view.readers(&search.names[at]);
            let others = readers.into_iter().filter(|n| Some(view.membership.members[*n].store) != own);
            let (well, suspect): (Vec<_>, Vec<_>) =
                others.partition(|n| !self.health(view.membership.members[*n].store).suspect(now));
            queues.insert(at, well.into_iter().chain(suspect).collect());
        }
        let (send, mut events) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let mut batches: HashMap<u64, GetBatch> = HashMap::new();
        let mut next_batch = 0_u64;
        let mut redo: Vec<usize> = search.missing().collect();
        loop {
            // Group what has to be asked by the node that is next for it.
            let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for at in redo.drain(..) {
                if search.found[at].is_none()
                    && let Some(node) = queues.get_mut(&at).and_then(VecDeque::pop_front)
                {
                    groups.entry(node).or_default().push(at);
                }
            }
            for (node, wanted) in groups {
                for part in wanted.chunks(self.limits.get_names.clamp(1, NAMES_MAX)) {
                    let batch = next_batch;
                    next_batch += 1;
                    let names: Vec<_> = part.iter().map(|at| (*at, search.names[*at])).collect();
                    let ask = self.clone().ask(view.clone(), node, batch, names, deadline, send.clone());
                    tasks.spawn(ask);
                    let hedge_at = Some(Instant::now() + self.limits.hedge_get);
                    let owed = part.iter().copied().collect();
                    batches.insert(batch, GetBatch { node, owed, hedge_at, progress: false });
                }
            }
            // Settled when nothing under way still owes a missing name.
            let open = batches.values().any(|b| b.owed.iter().any(|at| search.found[*at].is_none()));
            if search.complete() || !open {
                return;
            }
            let hedge_at = batches.values().filter_map(|b| b.hedge_at).min();
            let event = tokio::select! {
                event = events.recv() => event,
                () = async { match hedge_at { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => None,
            };
            let now = Instant::now();
            let mut event = event;
            while let Some(seen) = event.take() {
                match seen {
                    GetEvent::Found { batch, name, got } => {
                        if let Some(b) = batches.get_mut(&batch) {
                            b.owed.remove(&name);
                            b.progress = true;
                            b.hedge_at = b.hedge_at.map(|_| now + self.limits.hedge_get);
                        }
                        search.found[name].get_or_insert(got);
                    }
                    GetEvent::Miss { batch, name } => {
                        if let Some(b) = batches.get_mut(&batch) {
                            b.owed.remove(&name);
                            b.progress = true;
                        }
                        redo.push(name);
                    }
                    GetEvent::End { batch, failed } => {
                        if let Some(b) = batches.remove(&batch) {
                            if let Some(reason) = failed {
                                search.reasons.insert(view.membership.members[b.node].name.clone(), reason);
                            }
                            // Hedged ones were handed on already; asking the one after is right for them, too.
                            redo.extend(b.owed);
                        }
                    }
                }
                event = events.try_recv().ok();
            }
            for b in batches.values_mut() {
                if b.hedge_at.is_some_and(|at| at <= now) {
                    b.hedge_at = None;
                    if !b.progress {
                        self.health(view.membership.members[b.node].store).slow();
                    }
                    debug!(node.name = %view.membership.members[b.node].name, owed = b.owed.len(), "a read is hedged");
                    redo.extend(b.owed.iter().copied());
                }
            }
        }
    }

    async fn ask(
        self: Arc<Self>,
        view: Arc<View>,
        node: usize,
        batch: u64,
        names: Vec<(usize, ObjectName)>,
        deadline: Instant,
        events: mpsc::Sender<GetEvent>,
    ) {
        let member = &view.membership.members[node];
        let health = self.health(member.store);
        let asked = self.ask_inner(member, &health, batch, &names, deadline, &events).await;
        let failed = match asked {
            Ok(()) => {
                health.well();
                None
            }
            Err(reason) => {
                health.failed();
                debug!(node.name = %member.name, reason, "a node did not give objects");
                Some(reason)
            }
        };
        // The receiver is gone when everything was found elsewhere.
        let _receiver_gone = events.send(GetEvent::End { batch, failed }).await;
    }

    async fn ask_inner(
        &self,
        member: &Member,
        health: &Health,
        batch: u64,
        names: &[(usize, ObjectName)],
        deadline: Instant,
        events: &mpsc::Sender<GetEvent>,
    ) -> Result<(), String> {
        let _permit = health.gets.acquire().await.map_err(|e| e.to_string())?;
        let (http, base) = self.address(member.node).map_err(|e| e.to_string())?;
        let request = http
            .post(format!("{base}/peer/v1/objects/get"))
            .timeout(deadline.saturating_duration_since(Instant::now()))
            .body(encode_names(names.iter().map(|(_, name)| *name)));
        let silent = |_| "it said nothing for too long".to_owned();
        let answer = timeout(self.limits.silence, request.send()).await.map_err(silent)?.map_err(|e| explain(&e))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = bounded(answer, 64 << 10).await?;
            return Err(refusal(status, &body));
        }
        let mut records = RecordReader::new(Box::pin(answer.bytes_stream()));
        for (at, name) in names {
            let record = timeout(self.limits.silence, records.next()).await.map_err(silent)?;
            let record = record.map_err(|e| e.to_string())?.ok_or("its answer ended early")?;
            let event = self.receive(member, batch, *at, *name, record).await;
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// I4: verified before anyone sees it; a bad copy is a copy that is not there, and a warning.
    async fn receive(&self, member: &Member, batch: u64, at: usize, name: ObjectName, wire: Wire) -> GetEvent {
        let miss = GetEvent::Miss { batch, name: at };
        let record = match wire {
            Wire::Present(record) if record.name() == name => record,
            Wire::Absent(absent) if absent == name => return miss,
            Wire::Present(_) | Wire::Absent(_) => {
                warn!(node.name = %member.name, object.name = %name, "a node answered about another object than asked for");
                return miss;
            }
        };
        let network_bytes = u64::try_from(record.wire_len()).unwrap_or(u64::MAX);
        let checked = tokio::task::spawn_blocking(move || record.verify().map_err(|e| e.to_string())).await;
        match checked.map_err(|e| e.to_string()).and_then(|checked| checked) {
            Ok(object) => GetEvent::Found { batch, name: at, got: Got { object, network_bytes } },
            Err(error) => {
                warn!(node.name = %member.name, object.name = %name, error, "a node gave a bad copy, the next one is asked");
                miss
            }
        }
    }

    fn health(&self, store: StoreId) -> Arc<Health> {
        let mut all = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(store).or_insert_with(|| Arc::new(Health::new(&self.limits))).clone()
    }

    fn address(&self, node: NodeId) -> Result<(&reqwest::Client, String), PoolError> {
        let known = self.view.load().membership.members.iter().any(|m| m.node == node);
        match &self.http {
            Some(http) if known => Ok((http, format!("https://{}", node_tls_name(node)))),
            _ => Err(PoolError::NotAMember(node)),
        }
    }
}

// ---- put ------------------------------------------------------------------------------------------------------------

/// Where each record of a put is by now.
struct Spread {
    on: Vec<HashSet<StoreId>>,
    had: Vec<bool>,
    reasons: BTreeMap<String, (String, bool)>,
}

struct PutBatch {
    node: usize,
    records: Vec<usize>,
    hedge_at: Option<Instant>,
}

struct PutEvent {
    batch: u64,
    answer: Result<Vec<bool>, PutFailure>,
}

struct PutFailure {
    reason: String,
    full: bool,
}

impl PutFailure {
    fn other(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), full: false }
    }
}

impl Spread {
    fn new(records: &[Record]) -> Self {
        Self { on: vec![HashSet::new(); records.len()], had: vec![false; records.len()], reasons: BTreeMap::new() }
    }

    /// (needed, got) of the record that is furthest from what it needs.
    fn worst(&self, view: &View, records: &[Record]) -> (usize, usize) {
        let each = records.iter().zip(&self.on).map(|(record, on)| (view.copies(record.kind()).0, on.len()));
        each.max_by_key(|(needed, got)| needed.saturating_sub(*got)).unwrap_or_default()
    }

    fn stored_bytes(&self, records: &[Record]) -> u64 {
        let new = records.iter().zip(&self.had).filter(|(_, had)| !**had);
        new.map(|(record, _)| u64::try_from(record.stored().len()).unwrap_or(u64::MAX)).sum()
    }

    fn only_full(&self) -> bool {
        !self.reasons.is_empty() && self.reasons.values().all(|(_, full)| *full)
    }

    fn reasons_text(&self) -> Vec<String> {
        self.reasons.iter().map(|(node, (reason, _))| format!("{node}: {reason}")).collect()
    }
}

impl Inner {
    /// Tries each node at most once for each record that lacks copies.
    async fn put_once(self: Arc<Self>, view: &Arc<View>, round: u64, records: &Arc<[Record]>, spread: &mut Spread) {
        let now = Instant::now();
        let members = &view.membership.members;
        spread.reasons.clear();
        let mut queues: Vec<VecDeque<usize>> = Vec::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            let left = view.writers(&record.name()).into_iter().filter(|n| !spread.on[at].contains(&members[*n].store));
            let (well, last): (Vec<_>, Vec<_>) = left.partition(|n| {
                let health = self.health(members[*n].store);
                !health.suspect(now) && !health.is_full(now)
            });
            queues.push(well.into_iter().chain(last).collect());
        }
        let (send, mut events) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let mut batches: HashMap<u64, PutBatch> = HashMap::new();
        let mut next_batch = 0_u64;
        // Requests under way per record that are not hedged: each may still become a copy.
        let mut hoped = vec![0_usize; records.len()];
        loop {
            let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (at, record) in records.iter().enumerate() {
                let (_, wanted) = view.copies(record.kind());
                while spread.on[at].len() + hoped[at] < wanted
                    && let Some(node) = queues[at].pop_front()
                {
                    hoped[at] += 1;
                    groups.entry(node).or_default().push(at);
                }
            }
            for (node, wanted) in groups {
                for part in self.parts(records, &wanted) {
                    let batch = next_batch;
                    next_batch += 1;
                    let bytes: usize = part.iter().map(|at| records[*at].stored().len()).sum();
                    let slow = self.slow(bytes);
                    let hedge_at = Some(Instant::now() + self.limits.hedge_put + slow);
                    let give = self.clone().give(view.clone(), node, batch, round, records.clone(), part.clone());
                    let send = send.clone();
                    tasks.spawn(async move {
                        let _receiver_gone = send.send(give.await).await;
                    });
                    batches.insert(batch, PutBatch { node, records: part, hedge_at });
                }
            }
            // Done when each record has what it needs and no unhedged request could still add to it.
            let settled = records.iter().enumerate().all(|(at, record)| {
                let (needed, wanted) = view.copies(record.kind());
                let got = spread.on[at].len();
                got >= wanted || (got >= needed && hoped[at] == 0)
            });
            if settled || batches.is_empty() {
                return;
            }
            let hedge_at = batches.values().filter_map(|b| b.hedge_at).min();
            let event = tokio::select! {
                event = events.recv() => event,
                () = async { match hedge_at { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => None,
            };
            if let Some(PutEvent { batch, answer }) = event
                && let Some(done) = batches.remove(&batch)
            {
                for at in &done.records {
                    hoped[*at] = hoped[*at].saturating_sub(usize::from(done.hedge_at.is_some()));
                }
                let member = &members[done.node];
                match answer {
                    Ok(had) => {
                        for (at, had) in done.records.iter().zip(had) {
                            spread.on[*at].insert(member.store);
                            spread.had[*at] |= had;
                        }
                    }
                    Err(PutFailure { reason, full }) => {
                        debug!(node.name = %member.name, reason, "a node did not take objects");
                        spread.reasons.insert(member.name.clone(), (reason, full));
                    }
                }
            }
            let now = Instant::now();
            for b in batches.values_mut() {
                if b.hedge_at.is_some_and(|at| at <= now) {
                    b.hedge_at = None;
                    self.health(members[b.node].store).slow();
                    for at in &b.records {
                        hoped[*at] = hoped[*at].saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Cuts a node's records into requests.
    fn parts(&self, records: &[Record], wanted: &[usize]) -> Vec<Vec<usize>> {
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut bytes = 0;
        for at in wanted {
            let size = records[*at].stored().len();
            match parts.last_mut() {
                Some(part) if part.len() < NAMES_MAX && bytes + size <= self.limits.put_bytes => {
                    bytes += size;
                    part.push(*at);
                }
                _ => {
                    bytes = size;
                    parts.push(vec![*at]);
                }
            }
        }
        parts
    }

    fn slow(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Duration::from_millis(bytes.saturating_mul(1000) / self.limits.slowest_bytes_per_s.max(1))
    }

    async fn give(
        self: Arc<Self>,
        view: Arc<View>,
        node: usize,
        batch: u64,
        round: u64,
        records: Arc<[Record]>,
        part: Vec<usize>,
    ) -> PutEvent {
        let member = &view.membership.members[node];
        let local = self.local.as_ref().filter(|l| l.store == member.store);
        let health = self.health(member.store);
        let answer = match local {
            Some(local) => put_local(local.clone(), round, records, part).await,
            None => self.put_remote(member, &health, round, &records, &part).await,
        };
        match &answer {
            Ok(_) => health.well(),
            Err(PutFailure { full: true, .. }) => health.full(),
            Err(_) => health.failed(),
        }
        PutEvent { batch, answer }
    }

    /// Touch first: what is there is stamped and not sent.
    async fn put_remote(
        &self,
        member: &Member,
        health: &Health,
        round: u64,
        records: &[Record],
        part: &[usize],
    ) -> Result<Vec<bool>, PutFailure> {
        let _permit = health.puts.acquire().await.map_err(|e| PutFailure::other(e.to_string()))?;
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let touch = http
            .post(format!("{base}/peer/v1/objects/touch"))
            .header(ROUND_HEADER, round)
            .timeout(self.limits.silence)
            .body(encode_names(part.iter().map(|at| records[*at].name())));
        let had = accepted(touch.send().await, part.len() * NAME_BYTES).await?;
        if had.len() != part.len() {
            return Err(PutFailure::other(format!("it answered {} of {} touches", had.len(), part.len())));
        }
        let had: Vec<bool> = had.iter().map(|byte| *byte == 1).collect();
        let absent: Vec<usize> = part.iter().zip(&had).filter(|(_, had)| !**had).map(|(at, _)| *at).collect();
        if absent.is_empty() {
            return Ok(had);
        }
        let bytes = absent.iter().map(|at| records[*at].wire_len()).sum();
        // The stored bytes are shared with the caller, not copied into a body.
        let pieces: Vec<Result<Bytes, std::convert::Infallible>> = absent
            .iter()
            .flat_map(|at| [Bytes::copy_from_slice(&records[*at].header().encode()), records[*at].stored().clone()])
            .map(Ok)
            .collect();
        let put = http
            .post(format!("{base}/peer/v1/objects/put"))
            .header(ROUND_HEADER, round)
            .timeout(self.limits.silence + self.slow(bytes))
            .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)));
        accepted(put.send().await, 64 << 10).await?;
        Ok(had)
    }
}

async fn accepted(sent: Result<reqwest::Response, reqwest::Error>, limit: usize) -> Result<Bytes, PutFailure> {
    let answer = sent.map_err(|e| PutFailure::other(explain(&e)))?;
    let status = answer.status();
    let body = bounded(answer, limit.max(64 << 10)).await.map_err(PutFailure::other)?;
    if status.is_success() {
        return Ok(body);
    }
    Err(PutFailure { reason: refusal(status, &body), full: status == http::StatusCode::INSUFFICIENT_STORAGE })
}

async fn put_local(
    local: Local,
    round: u64,
    records: Arc<[Record]>,
    part: Vec<usize>,
) -> Result<Vec<bool>, PutFailure> {
    let put = tokio::task::spawn_blocking(move || {
        let names: Vec<ObjectName> = part.iter().map(|at| records[*at].name()).collect();
        let had = local.chunks.touch(round, &names)?;
        let absent: Vec<Record> =
            part.iter().zip(&had).filter(|(_, had)| !**had).map(|(at, _)| records[*at].clone()).collect();
        if !absent.is_empty() {
            local.chunks.put(round, &absent)?;
        }
        local.chunks.sync()?;
        Ok(had)
    });
    match put.await {
        Ok(Ok(had)) => Ok(had),
        Ok(Err(error)) => Err(store_failure(&error)),
        Err(error) => Err(PutFailure::other(error.to_string())),
    }
}

fn store_failure(error: &storage_core::store::StoreError) -> PutFailure {
    PutFailure { reason: error.to_string(), full: matches!(error, storage_core::store::StoreError::Full { .. }) }
}
