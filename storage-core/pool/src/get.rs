//! Getting objects: each node is asked for what it should have, the next one for what the first did not give in time.
//!
//! ```text
//! missing names --grouped by the next node in each name's queue--> batches, one request each
//!      ^                                                             |
//!      +-- absent, bad copy, request failed, or hedged (too slow) ---+--> found and verified (I4)
//! ```
//! A hedged request goes on. What it still brings is taken.
//!
//! Where the pool has a repository, it is asked as if it were a node: after those that should have the object, and before
//! all others, so that an object that no node has costs a few questions and not one to each node. Suspect nodes come after
//! it. What it gave is put back where it belongs (`restock.rs`).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use storage_core::{
    ObjectName, Record,
    cause::explain,
    membership::Member,
    record::{VerifiedObject, Wire},
    units::u64_from,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    checksum,
    health::Health,
    inner::{Inner, Local},
    protocol::{NAMES_MAX, ObjectCall},
    repository::Repository,
    transport::{bounded, refusal},
    view::View,
    wire::{RecordReader, encode_names},
};

/// Objects that one request asks the repository for at a time.
const REPOSITORY_GETS: usize = 8;
/// Longest that a request waits for an object of the repository. All nodes are asked meanwhile, and then it is asked again.
const REPOSITORY_WAIT: Duration = Duration::from_secs(15);
/// The name of the repository among those of nodes.
const REPOSITORY: &str = "the repository";

/// An object that was asked for.
#[derive(Clone, Debug)]
pub struct Got {
    /// The object, verified against its name.
    pub object: VerifiedObject,
    /// Bytes that came over the network for it; 0 from this node's own store.
    pub network_bytes: u64,
}

/// What a get looks for, and what it has found so far. An object is named by its position in `names`.
pub(crate) struct Search {
    pub(crate) names: Vec<ObjectName>,
    pub(crate) found: Vec<Option<Got>>,
    /// What went wrong, by the node's name.
    pub(crate) reasons: BTreeMap<String, String>,
    /// The look into this node's own store that is under way.
    look: Option<BoxFuture<'static, Looked>>,
}

/// The objects that were found by their positions, and whether the store told of all.
type Looked = Result<(Vec<(usize, VerifiedObject)>, bool), String>;

impl Search {
    pub(crate) fn new(names: Vec<ObjectName>) -> Self {
        Self { found: vec![None; names.len()], names, reasons: BTreeMap::new(), look: None }
    }

    pub(crate) fn complete(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    pub(crate) fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        self.found.iter().enumerate().filter(|(_, got)| got.is_none()).map(|(at, _)| at)
    }

    pub(crate) fn reasons_text(&self) -> Vec<String> {
        self.reasons.iter().map(|(node, reason)| format!("{node}: {reason}")).collect()
    }
}

enum GetEvent {
    /// The answer about one object. None: the node does not have it, or has a bad copy of it.
    Answer { batch: u64, name: usize, got: Option<Got> },
    /// The request is over. `failed` tells why, unless it ended well.
    End { batch: u64, failed: Option<String> },
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Node(usize),
    Repository,
}

/// One request that is under way.
struct GetBatch {
    source: Source,
    /// Names that it has not answered yet.
    owed: HashSet<usize>,
    /// When the next node is asked as well; none after that happened.
    hedge_at: Option<Instant>,
    /// Whether it has answered anything.
    progress: bool,
}

/// One pass over the nodes: each is asked at most once for each missing name.
struct GetPass<'a> {
    inner: &'a Arc<Inner>,
    view: &'a Arc<View>,
    search: &'a mut Search,
    deadline: Instant,
    /// None: the pool has none.
    repository: Option<Arc<Repository>>,
    /// For each missing name whom to ask that was not asked yet, best first.
    queues: HashMap<usize, VecDeque<Source>>,
    /// Names that another node has to be asked for.
    redo: Vec<usize>,
    batches: HashMap<u64, GetBatch>,
    next_batch: u64,
    events: mpsc::Sender<GetEvent>,
    tasks: JoinSet<()>,
}

impl Inner {
    /// Looks into this node's own store. The answer is whether it told of each object whether it is there. Where there are
    /// other nodes, they are asked when it takes as long as a slow one. The look goes on meanwhile, and the next call
    /// takes what it brings.
    pub(crate) async fn get_local(&self, search: &mut Search, deadline: Instant) -> bool {
        let Some(local) = &self.local else { return true };
        let hedge_at = Instant::now() + self.limits.hedge_get;
        let until = if self.http.is_some() { hedge_at.min(deadline) } else { deadline };
        let wanted: Vec<_> = search.missing().map(|at| (at, search.names[at])).collect();
        let look = search.look.get_or_insert_with(|| Box::pin(look(local.clone(), wanted)));
        let looked = timeout_at(until, look).await.inspect(|_| search.look = None);
        let trouble = match looked {
            Ok(Ok((found, told))) => {
                for (at, object) in found {
                    search.found[at] = Some(Got { object, network_bytes: 0 });
                }
                return told;
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => "it does not answer".to_owned(),
        };
        debug!(error = trouble, "this node's own store could not be asked");
        search.reasons.insert("this node's own store".to_owned(), trouble);
        false
    }

    /// Asks the other nodes, each at most once for each missing name. Dropping the future ends all requests.
    pub(crate) async fn get_remote(self: Arc<Self>, view: &Arc<View>, search: &mut Search, deadline: Instant) {
        let (events, mut receiver) = mpsc::channel(64);
        let mut pass = GetPass {
            inner: &self,
            view,
            repository: self.repository(),
            queues: HashMap::new(),
            redo: search.missing().collect(),
            search,
            deadline,
            batches: HashMap::new(),
            next_batch: 0,
            events,
            tasks: JoinSet::new(),
        };
        pass.queue_up();
        loop {
            pass.send_requests();
            if pass.settled() {
                return;
            }
            if let Some(event) = next_event(&mut receiver, pass.next_hedge()).await {
                pass.take(event);
            }
            while let Ok(event) = receiver.try_recv() {
                pass.take(event);
            }
            pass.hedge();
        }
    }

    /// One request to one node. Tells `events` of each name and of the end.
    async fn ask(
        self: Arc<Self>,
        view: Arc<View>,
        node: usize,
        batch: u64,
        names: Vec<(usize, ObjectName)>,
        deadline: Instant,
        events: mpsc::Sender<GetEvent>,
    ) {
        let member = view.member(node);
        let health = self.health(member.store);
        let failed = match self.request_objects(member, &health, batch, &names, deadline, &events).await {
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

    /// As [`Inner::ask`], of the repository.
    async fn ask_repository(
        self: Arc<Self>,
        repository: Arc<Repository>,
        batch: u64,
        names: Vec<(usize, ObjectName)>,
        deadline: Instant,
        events: mpsc::Sender<GetEvent>,
    ) {
        let deadline = deadline.min(Instant::now() + REPOSITORY_WAIT);
        let get = |(at, name)| {
            let repository = &repository;
            async move { (at, repository.get(name, deadline).await) }
        };
        let mut asked = stream::iter(names).map(get).buffer_unordered(REPOSITORY_GETS);
        let (mut failed, mut brought) = (None, Vec::new());
        while let Some((at, got)) = asked.next().await {
            let got = match got {
                Ok(record) => record.and_then(|record| opened(record, &mut brought)),
                Err(error) => {
                    // The nodes after it are asked for what it owes.
                    failed = Some(error.to_string());
                    continue;
                }
            };
            if events.send(GetEvent::Answer { batch, name: at, got }).await.is_err() {
                break;
            }
        }
        drop(asked);
        if let Some(reason) = &failed {
            debug!(reason, "the repository did not give objects");
        }
        let _receiver_gone = events.send(GetEvent::End { batch, failed }).await;
        self.restock(brought);
    }

    async fn request_objects(
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
            .post(format!("{base}{}", ObjectCall::Get.path()))
            .timeout(deadline.saturating_duration_since(Instant::now()))
            .body(encode_names(names.iter().map(|(_, name)| *name)));
        let silent = |_| "it said nothing for too long".to_owned();
        let answer = timeout(self.limits.silence, checksum::send(request)).await.map_err(silent)?;
        let answer = answer.inspect_err(|e| health.not_connected(e)).map_err(|e| explain(&e))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = bounded(answer, 64 << 10).await?;
            return Err(refusal(status, &body));
        }
        let mut records = RecordReader::new(Box::pin(answer.bytes_stream()));
        for (at, name) in names {
            let record = timeout(self.limits.silence, records.next()).await.map_err(silent)?;
            let record = record.map_err(|e| e.to_string())?.ok_or("its answer ended early")?;
            if let Wire::Present(record) = &record {
                self.traffic.count_fetched(member.node, u64_from(record.wire_len()));
            }
            let got = verified(member, *name, record).await;
            if events.send(GetEvent::Answer { batch, name: *at, got }).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl GetPass<'_> {
    /// Orders the nodes for each missing name. Suspect nodes come last.
    fn queue_up(&mut self) {
        let now = Instant::now();
        let own = self.inner.local.as_ref().map(|local| local.store);
        for at in self.search.missing() {
            let (owners, others) = self.view.readers(&self.search.names[at], own);
            let split = |nodes: Vec<usize>| -> (Vec<usize>, Vec<usize>) {
                let not_own = nodes.into_iter().filter(|node| Some(self.view.member(*node).store) != own);
                not_own.partition(|node| !self.inner.health(self.view.member(*node).store).is_suspect(now))
            };
            let ((owners, suspect_owners), (others, suspect)) = (split(owners), split(others));
            let repository = self.repository.iter().map(|_| Source::Repository);
            let nodes = |nodes: Vec<usize>| nodes.into_iter().map(Source::Node);
            let order = nodes(owners).chain(repository).chain(nodes(others));
            self.queues.insert(at, order.chain(nodes(suspect_owners)).chain(nodes(suspect)).collect());
        }
    }

    /// Groups what has to be asked by the node that is next for it, and sends one request per group.
    fn send_requests(&mut self) {
        let mut groups: BTreeMap<Source, Vec<usize>> = BTreeMap::new();
        for at in self.redo.drain(..) {
            if self.search.found[at].is_none()
                && let Some(source) = self.queues.get_mut(&at).and_then(VecDeque::pop_front)
            {
                groups.entry(source).or_default().push(at);
            }
        }
        for (source, wanted) in groups {
            for part in wanted.chunks(self.inner.limits.get_names.clamp(1, NAMES_MAX)) {
                self.send_request(source, part);
            }
        }
    }

    fn send_request(&mut self, source: Source, part: &[usize]) {
        let batch = self.next_batch;
        self.next_batch += 1;
        let names = part.iter().map(|at| (*at, self.search.names[*at])).collect();
        let (inner, events) = (self.inner.clone(), self.events.clone());
        match (source, &self.repository) {
            (Source::Node(node), _) => {
                self.tasks.spawn(inner.ask(self.view.clone(), node, batch, names, self.deadline, events));
            }
            (Source::Repository, Some(repository)) => {
                self.tasks.spawn(inner.ask_repository(repository.clone(), batch, names, self.deadline, events));
            }
            (Source::Repository, None) => unreachable!("it is in no queue then"),
        }
        let hedge_at = Some(Instant::now() + self.inner.limits.hedge_get);
        self.batches
            .insert(batch, GetBatch { source, owed: part.iter().copied().collect(), hedge_at, progress: false });
    }

    /// Whether nothing that is under way still owes a missing name.
    fn settled(&self) -> bool {
        let owes = |batch: &GetBatch| batch.owed.iter().any(|at| self.search.found[*at].is_none());
        self.search.complete() || !self.batches.values().any(owes)
    }

    fn next_hedge(&self) -> Option<Instant> {
        self.batches.values().filter_map(|batch| batch.hedge_at).min()
    }

    fn take(&mut self, event: GetEvent) {
        match event {
            GetEvent::Answer { batch, name, got } => {
                if let Some(batch) = self.batches.get_mut(&batch) {
                    batch.owed.remove(&name);
                    batch.progress = true;
                    if got.is_some() {
                        batch.hedge_at = batch.hedge_at.map(|_| Instant::now() + self.inner.limits.hedge_get);
                    }
                }
                match got {
                    Some(got) => drop(self.search.found[name].get_or_insert(got)),
                    None => self.redo.push(name),
                }
            }
            GetEvent::End { batch, failed } => {
                if let Some(batch) = self.batches.remove(&batch) {
                    if let Some(reason) = failed {
                        let source = match batch.source {
                            Source::Node(node) => self.view.member(node).name.clone(),
                            Source::Repository => REPOSITORY.to_owned(),
                        };
                        self.search.reasons.insert(source, reason);
                    }
                    // A hedged batch handed its names on already. For them the node after the next is asked.
                    self.redo.extend(batch.owed);
                }
            }
        }
    }

    /// Asks the next node for what slow requests still owe.
    fn hedge(&mut self) {
        let now = Instant::now();
        for batch in self.batches.values_mut() {
            if batch.hedge_at.is_some_and(|at| at <= now) {
                batch.hedge_at = None;
                if let Source::Node(node) = batch.source {
                    let member = self.view.member(node);
                    if !batch.progress {
                        self.inner.health(member.store).slow();
                    }
                    debug!(node.name = %member.name, owed = batch.owed.len(), "a slow read is also asked of the next node");
                }
                self.redo.extend(batch.owed.iter().copied());
            }
        }
    }
}

/// The object in a record that the repository gave. The record is kept in `brought`.
fn opened(record: Record, brought: &mut Vec<Record>) -> Option<Got> {
    let object = record.verify().inspect_err(|error| warn!(%error, "a proven record does not decode")).ok()?;
    let network_bytes = u64_from(record.wire_len());
    brought.push(record);
    Some(Got { object, network_bytes })
}

/// The wanted objects that a store has, and whether it told of all of them.
async fn look(local: Local, wanted: Vec<(usize, ObjectName)>) -> Looked {
    let permit = local.looks.clone().acquire_owned().await.map_err(|e| e.to_string())?;
    let looked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut told = true;
        let look = |(at, name)| match local.chunks.load(&name) {
            Ok(object) => object.map(|object| (at, object)),
            Err(error) => {
                warn!(object.name = %name, %error, "this node's copy cannot be read, other nodes are asked");
                told = false;
                None
            }
        };
        let found: Vec<_> = wanted.into_iter().filter_map(look).collect();
        (found, told)
    });
    looked.await.map_err(|e| e.to_string())
}

/// The next event, or none at `until`.
async fn next_event(events: &mut mpsc::Receiver<GetEvent>, until: Option<Instant>) -> Option<GetEvent> {
    match until {
        Some(until) => timeout_at(until, events.recv()).await.ok().flatten(),
        None => events.recv().await,
    }
}

/// I4: an object is verified before anyone sees it. A bad copy counts as absent and is logged as a warning.
async fn verified(member: &Member, name: ObjectName, wire: Wire) -> Option<Got> {
    let record = match wire {
        Wire::Present(record) if record.name() == name => record,
        Wire::Absent(absent) if absent == name => return None,
        Wire::Present(_) | Wire::Absent(_) => {
            warn!(node.name = %member.name, object.name = %name, "a node answered about another object than asked for");
            return None;
        }
    };
    let network_bytes = u64_from(record.wire_len());
    let checked = tokio::task::spawn_blocking(move || record.verify().map_err(|e| e.to_string())).await;
    match checked.map_err(|e| e.to_string()).and_then(|checked| checked) {
        Ok(object) => Some(Got { object, network_bytes }),
        Err(error) => {
            warn!(node.name = %member.name, object.name = %name, error, "a node gave a bad copy, the next one is asked");
            None
        }
    }
}
