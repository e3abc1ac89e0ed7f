//! Putting objects: each record goes to the best nodes for it until enough distinct nodes hold it durably (I3).
//!
//! ```text
//! record lacks copies --> next node in its queue --> one request per node: touch first, then send what is absent
//!        ^                                              |
//!        +---- refused, failed, or hedged (too slow) ---+--> durable there
//! ```
//! Which node is too slow: `load.rs`.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use storage_core::{
    Backoff, ObjectName, StoreId,
    cause::explain,
    membership::Member,
    record::Record,
    repository::WriteMode,
    store::{PutSummary, StoreError},
    units::u64_from,
};
use tokio::{
    task::{Id, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::debug;

use crate::{
    checksum,
    health::Health,
    inner::{Inner, Local},
    load::Wait,
    protocol::{NAMES_MAX, OWNS_NOTHING, ObjectCall, ROUND_HEADER},
    repository::RepositoryError,
    transport::{bounded, refusal},
    view::{Copies, View},
    wire::encode_names,
};

/// Most bytes of an answer that should be short.
const SHORT_ANSWER_BYTES: usize = 64 << 10;
/// The time limit of a request counts the bytes that are under way to other nodes when it is sent, but no more than this.
const ELSEWHERE_BYTES_MAX: u64 = 16 << 20;
/// Longest time between two looks whether a node is too slow. What other puts send counts, and does not wake this one.
const LOOK: Duration = Duration::from_millis(500);

/// All records are durable on enough nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutDone {
    /// Payload bytes that no asked node had before, one copy counted.
    pub stored_bytes: u64,
}

/// Where each record of a put is by now. A record is named by its position in the put.
pub(crate) struct Spread {
    on: Vec<HashSet<StoreId>>,
    /// Whether some node had the record before.
    had: Vec<bool>,
    /// Why nodes did not take records, by the node's name.
    reasons: BTreeMap<String, PutFailure>,
}

pub(crate) struct PutFailure {
    pub(crate) reason: String,
    /// Whether the node refused for want of room.
    pub(crate) full: bool,
}

impl PutFailure {
    pub(crate) fn other(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), full: false }
    }
}

impl Spread {
    pub(crate) fn new(records: &[Record]) -> Self {
        Self { on: vec![HashSet::new(); records.len()], had: vec![false; records.len()], reasons: BTreeMap::new() }
    }

    /// Copies needed and copies there of the record that lacks most.
    pub(crate) fn worst(&self, view: &View, records: &[Record]) -> (usize, usize) {
        let each = records.iter().zip(&self.on).map(|(record, on)| (view.copies(record.kind()).needed, on.len()));
        each.max_by_key(|(needed, got)| needed.saturating_sub(*got)).expect("a put has at least one record")
    }

    pub(crate) fn stored_bytes(&self, records: &[Record]) -> u64 {
        let new = records.iter().zip(&self.had).filter(|(_, had)| !**had);
        new.map(|(record, _)| u64_from(record.stored().len())).sum()
    }

    /// Whether all failures were for want of room.
    pub(crate) fn only_full(&self) -> bool {
        !self.reasons.is_empty() && self.reasons.values().all(|failure| failure.full)
    }

    pub(crate) fn reasons_text(&self) -> Vec<String> {
        self.reasons.iter().map(|(node, failure)| format!("{node}: {}", failure.reason)).collect()
    }
}

/// One request that is under way.
struct PutBatch {
    node: usize,
    records: Vec<usize>,
    /// None after the next node got the records as well.
    wait: Option<Wait>,
}

/// The answer to a request: for each of its records whether the node had it before.
type Answer = Result<Vec<bool>, PutFailure>;

/// One pass over the nodes: each is tried at most once for each record that lacks copies.
struct PutPass<'a> {
    inner: &'a Arc<Inner>,
    view: &'a Arc<View>,
    round: u64,
    records: &'a Arc<[Record]>,
    spread: &'a mut Spread,
    /// No request begins after this, so that many nodes do not take many times as long as one.
    give_up: Instant,
    /// For each record the nodes that were not tried yet, best first.
    queues: Vec<VecDeque<usize>>,
    /// For each record the requests under way that are not hedged. Each may still become a copy.
    hoped: Vec<usize>,
    /// The requests that are under way, by their task.
    batches: HashMap<Id, PutBatch>,
    requests: JoinSet<Answer>,
}

impl Inner {
    /// Writes through: has all records written to the repository if it is to be written before a put is answered. Tries until
    /// `give_up`; new keys and settings count from the next try on.
    pub(crate) async fn put_through(
        &self,
        round: u64,
        records: &[Record],
        give_up: Instant,
    ) -> Result<(), RepositoryError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
        let stamped: Vec<Record> = records.iter().map(|record| record.clone().with_round(round)).collect();
        loop {
            let repository = self.repository().filter(|repository| repository.settings().write == WriteMode::Through);
            let Some(repository) = repository else { return Ok(()) };
            let Err(error) = repository.put_absent(&stamped, give_up).await else { return Ok(()) };
            let again = Instant::now() + backoff.pause();
            if again >= give_up {
                return Err(error);
            }
            debug!(%error, "writing through is tried again");
            sleep_until(again).await;
        }
    }

    /// Tries each node at most once for each record that lacks copies. Returns when all have enough, or no node is left.
    pub(crate) async fn put_once(
        self: Arc<Self>,
        view: &Arc<View>,
        round: u64,
        records: &Arc<[Record]>,
        spread: &mut Spread,
        give_up: Instant,
    ) {
        spread.reasons.clear();
        let mut pass = PutPass {
            inner: &self,
            view,
            round,
            records,
            spread,
            give_up,
            queues: Vec::with_capacity(records.len()),
            hoped: vec![0; records.len()],
            batches: HashMap::new(),
            requests: JoinSet::new(),
        };
        pass.queue_up();
        loop {
            pass.send_requests();
            if pass.settled() {
                return;
            }
            if let Some((task, answer)) = pass.next_answer().await {
                pass.take(task, answer);
            }
            pass.hedge();
        }
    }

    async fn give(
        self: Arc<Self>,
        view: Arc<View>,
        node: usize,
        round: u64,
        records: Arc<[Record]>,
        part: Vec<usize>,
    ) -> Answer {
        let member = view.member(node);
        let local = self.own(member.store);
        let health = self.health(member.store);
        let answer = match local {
            Some(local) => put_local(self.clone(), local.clone(), round, records, part).await,
            None => self.put_remote(member, &health, round, &records, &part).await,
        };
        match &answer {
            Ok(_) => health.well(),
            Err(PutFailure { full: true, .. }) => health.full(),
            Err(_) => health.failed(),
        }
        answer
    }

    /// Touches first: an object that is there already is stamped with the round and not sent.
    async fn put_remote(
        &self,
        member: &Member,
        health: &Health,
        round: u64,
        records: &[Record],
        part: &[usize],
    ) -> Answer {
        let _permit = health.puts.acquire().await.map_err(|e| PutFailure::other(e.to_string()))?;
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let touch = http
            .post(format!("{base}{}", ObjectCall::Touch.path()))
            .header(ROUND_HEADER, round)
            .timeout(self.limits.silence)
            .body(encode_names(part.iter().map(|at| records[*at].name())));
        let touched = checksum::send(touch).await.inspect_err(|e| health.not_connected(e));
        let had = accepted(touched, part.len() * ObjectName::BYTES).await?;
        if had.len() != part.len() {
            return Err(PutFailure::other(format!("it answered {} of {} touches", had.len(), part.len())));
        }
        let had: Vec<bool> = had.iter().map(|byte| *byte == 1).collect();
        let absent: Vec<&Record> =
            part.iter().zip(&had).filter(|(_, had)| !**had).map(|(at, _)| &records[*at]).collect();
        if !absent.is_empty() {
            self.send(member, round.into(), &absent).await?;
        }
        Ok(had)
    }

    /// Sends records to a node. `round` is the value of [`ROUND_HEADER`]. They are durable there when it has answered.
    pub(crate) async fn send(
        &self,
        member: &Member,
        round: HeaderValue,
        records: &[&Record],
    ) -> Result<(), PutFailure> {
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let bytes = records.iter().map(|record| u64_from(record.wire_len())).sum();
        let flight = self.load.begin(member.store, bytes);
        let limit_bytes = bytes.max(self.load.seen(member.store).elsewhere.min(ELSEWHERE_BYTES_MAX));
        // The stored bytes are shared with the caller, not copied into a body.
        let pieces: Vec<Result<Bytes, std::convert::Infallible>> = records
            .iter()
            .flat_map(|record| [Bytes::copy_from_slice(&record.header().encode()), record.stored().clone()])
            .map(Ok)
            .collect();
        let put = http
            .post(format!("{base}{}", ObjectCall::Put.path()))
            .header(ROUND_HEADER, round)
            .timeout(self.limits.silence + self.time_for(limit_bytes))
            .body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)));
        let answer = checksum::send(put).await;
        let answer = answer.inspect(|answer| self.health(member.store).hear(answer.headers()));
        let answer = accepted(answer, SHORT_ANSWER_BYTES).await?;
        let done: PutSummary = serde_json::from_slice(&answer).map_err(|e| PutFailure::other(e.to_string()))?;
        let (taken, sent) = (done.stored.saturating_add(done.touched), u64_from(records.len()));
        if taken != sent {
            return Err(PutFailure::other(format!("it took {taken} of {sent} objects")));
        }
        flight.succeeded();
        Ok(())
    }
}

impl PutPass<'_> {
    fn copies(&self, at: usize) -> Copies {
        self.view.copies(self.records[at].kind())
    }

    /// Orders the nodes for each record. Suspect and full nodes come last.
    fn queue_up(&mut self) {
        let now = Instant::now();
        for (at, record) in self.records.iter().enumerate() {
            let writers = self.view.writers(&record.name()).into_iter();
            let left = writers.filter(|node| !self.spread.on[at].contains(&self.view.member(*node).store));
            let (well, last): (Vec<_>, Vec<_>) = left.partition(|node| {
                let health = self.inner.health(self.view.member(*node).store);
                !health.is_suspect(now) && !health.is_full(now)
            });
            self.queues.push(well.into_iter().chain(last).collect());
        }
    }

    /// Gives each record that lacks copies to its next nodes, with as few requests per node as its limits allow.
    fn send_requests(&mut self) {
        if Instant::now() >= self.give_up {
            return;
        }
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in 0..self.records.len() {
            let wanted = self.copies(at).wanted;
            while self.spread.on[at].len() + self.hoped[at] < wanted
                && let Some(node) = self.queues[at].pop_front()
            {
                self.hoped[at] += 1;
                groups.entry(node).or_default().push(at);
            }
        }
        for (node, wanted) in groups {
            for part in self.parts(&wanted) {
                self.send_request(node, part);
            }
        }
    }

    fn send_request(&mut self, node: usize, part: Vec<usize>) {
        let bytes = part.iter().map(|at| u64_from(self.records[*at].stored().len())).sum();
        let (since, patience) = (Instant::now(), self.inner.limits.hedge_put + self.inner.time_for(bytes));
        let store = self.view.member(node).store;
        let wait = match self.inner.own(store) {
            Some(_) => Wait::for_own(since, patience),
            None => Wait::for_node(store, since, patience, &self.inner.load),
        };
        let give = self.inner.clone().give(self.view.clone(), node, self.round, self.records.clone(), part.clone());
        let task = self.requests.spawn(give).id();
        self.batches.insert(task, PutBatch { node, records: part, wait: Some(wait) });
    }

    /// Cuts a node's records into requests.
    fn parts(&self, wanted: &[usize]) -> Vec<Vec<usize>> {
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut bytes = 0;
        for at in wanted {
            let size = self.records[*at].stored().len();
            match parts.last_mut() {
                Some(part) if part.len() < NAMES_MAX && bytes + size <= self.inner.limits.put_bytes => {
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

    /// Whether each record has what it needs and no unhedged request could still add to it, or nothing is under way.
    fn settled(&self) -> bool {
        let enough = |at: usize| {
            let (Copies { needed, wanted }, got) = (self.copies(at), self.spread.on[at].len());
            got >= wanted || (got >= needed && self.hoped[at] == 0)
        };
        self.batches.is_empty() || (0..self.records.len()).all(enough)
    }

    /// The next answer, or none when it is time to hedge.
    async fn next_answer(&mut self) -> Option<(Id, Answer)> {
        let load = &self.inner.load;
        let waits = self.batches.values_mut().filter_map(|batch| batch.wait.as_mut());
        let hedge_at = waits.map(|wait| wait.slow_at(load)).min().map(|at| at.min(Instant::now() + LOOK));
        let joined = match hedge_at {
            Some(at) => timeout_at(at, self.requests.join_next_with_id()).await.ok()?,
            None => self.requests.join_next_with_id().await,
        };
        match joined.expect("each batch has a request under way") {
            Ok(answer) => Some(answer),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only the end of the runtime cancels requests, and it ends this one, too.
                Err(_cancelled) => None,
            },
        }
    }

    fn take(&mut self, task: Id, answer: Answer) {
        let done = self.batches.remove(&task).expect("a batch answers once");
        if done.wait.is_some() {
            done.records.iter().for_each(|at| self.hoped[*at] -= 1);
        }
        let member = self.view.member(done.node);
        match answer {
            Ok(had) => {
                for (at, had) in done.records.iter().zip(had) {
                    self.spread.on[*at].insert(member.store);
                    self.spread.had[*at] |= had;
                }
            }
            Err(failure) => {
                debug!(node.name = %member.name, failure.reason, "a node did not take objects");
                self.spread.reasons.insert(member.name.clone(), failure);
            }
        }
    }

    /// Stops counting on slow requests, so that the next nodes get their records as well.
    fn hedge(&mut self) {
        let now = Instant::now();
        for batch in self.batches.values_mut() {
            if batch.wait.as_mut().is_some_and(|wait| wait.slow_at(&self.inner.load) <= now) {
                batch.wait = None;
                self.inner.health(self.view.member(batch.node).store).slow();
                batch.records.iter().for_each(|at| self.hoped[*at] -= 1);
            }
        }
    }
}

/// The body of an answer that is a success. `bytes_max` bounds it.
pub(crate) async fn accepted(
    sent: Result<reqwest::Response, reqwest::Error>,
    bytes_max: usize,
) -> Result<Bytes, PutFailure> {
    let answer = sent.map_err(|e| PutFailure::other(explain(&e)))?;
    let status = answer.status();
    let body = bounded(answer, bytes_max.max(SHORT_ANSWER_BYTES)).await.map_err(PutFailure::other)?;
    if status.is_success() {
        return Ok(body);
    }
    Err(PutFailure { reason: refusal(status, &body), full: status == http::StatusCode::INSUFFICIENT_STORAGE })
}

/// Puts copies into this node's own store, each with the stamp that it has.
pub(crate) async fn put_local_copies(inner: &Inner, local: Local, mut records: Vec<Record>) -> Result<(), PutFailure> {
    let taking = inner.taking.clone().read_owned().await;
    if !inner.owns_objects() {
        return Err(PutFailure::other(OWNS_NOTHING));
    }
    let put = tokio::task::spawn_blocking(move || {
        let _taking = taking;
        records.sort_by_key(|record| record.body().round);
        for group in records.chunk_by(|a, b| a.body().round == b.body().round) {
            local.chunks.put(group[0].body().round, group)?;
        }
        local.chunks.sync()
    });
    match put.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(PutFailure { full: matches!(error, StoreError::Full { .. }), reason: error.to_string() }),
        Err(error) => Err(PutFailure::other(error.to_string())),
    }
}

async fn put_local(inner: Arc<Inner>, local: Local, round: u64, records: Arc<[Record]>, part: Vec<usize>) -> Answer {
    let taking = inner.taking.clone().read_owned().await;
    if !inner.owns_objects() {
        return Err(PutFailure::other(OWNS_NOTHING));
    }
    let put = tokio::task::spawn_blocking(move || {
        let _taking = taking;
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
        Ok(Err(error)) => Err(PutFailure { full: matches!(error, StoreError::Full { .. }), reason: error.to_string() }),
        Err(error) => Err(PutFailure::other(error.to_string())),
    }
}
