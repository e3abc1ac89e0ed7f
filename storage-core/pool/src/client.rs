//! [`PoolClient`]: where objects go and where they come from.
//!
//! ```text
//! get   local store -> owners of the newest epoch -> owners of older epochs -> repository, where there is one -> everyone;
//!       again until the deadline
//! put   per record: owners, then the next in rank, until enough distinct nodes hold it durably
//! ```
//! Requests to different nodes run side by side, one batch per node, and every record is verified where it arrives (I4).
//! A node that makes no progress for a moment is *hedged*: the next node is asked for what it owes, while its own answer
//! is still welcome (I11). A node that failed goes to the back of every queue for a while, so a dead owner costs one
//! hedge now and then instead of one per read.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures::future::join;
use storage_core::{
    Backoff, ClusterId, NodeId, ObjectName, StoreId,
    cause::explain,
    membership::{Member, Membership},
    record::Record,
    store::ChunkStore,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    checksum,
    demand::{Demand, UnderWay},
    error::PoolError,
    get::{Got, Search},
    inner::{Inner, Local},
    limits::PoolLimits,
    load::Load,
    put::{PutDone, Spread},
    repository::Repository,
    restock::{RESTOCKS, Restock},
    tls::{Ca, Identity, TlsError},
    traffic::Traffic,
    transport::{NameTable, bounded, detail, http_client, node_tls_name, refusal},
    untimely::Untimely,
    view::View,
};

/// A cheap handle to the pool; clones share connections, membership and what is known about the nodes' health.
#[derive(Clone)]
pub struct PoolClient {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for PoolClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = self.inner.view.load();
        f.debug_struct("PoolClient").field("epoch", &view.membership.epoch).finish_non_exhaustive()
    }
}

/// One call to one node outside of the object protocol: a step of a cut, a console log.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Method of the HTTP request.
    pub method: http::Method,
    /// The path with its query, without the leading slash.
    pub path: &'a str,
    /// A body in JSON; `None` for a request without one.
    pub json: Option<Vec<u8>>,
    /// Limit for the whole call.
    pub limit: Duration,
    /// Most bytes of the answer; a longer one is an error.
    pub answer_bytes_max: usize,
}

/// A connection to one node that carries any bytes, after it began as a request with `Upgrade`.
#[derive(Debug)]
pub struct Tunnel {
    /// The bytes, in both directions.
    pub stream: reqwest::Upgraded,
    /// Headers of the node's answer 101.
    pub headers: http::HeaderMap,
}

/// Why a node opens no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The node cannot be asked, or broke off.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The node refused.
    #[error("{detail}")]
    Refused {
        /// Status of its answer.
        status: http::StatusCode,
        /// Why, in a sentence for people.
        detail: String,
    },
}

/// Why nodes cannot be asked: certificates and clocks do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockTrouble {
    /// Whether this node's clock says so. Else only clocks of other nodes do.
    pub here: bool,
    /// What was seen, for people.
    pub detail: String,
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
        let looks = Arc::new(Semaphore::new(limits.per_node));
        let local = local.map(|(store, chunks)| Local { store, chunks, looks });
        name_members(&names, &membership);
        let view = ArcSwap::from_pointee(View::new(membership));
        let inner = Inner {
            http,
            names,
            view,
            changed: Notify::new(),
            local,
            health: Mutex::default(),
            load: Load::default(),
            limits,
            traffic: Traffic::default(),
            demand: Demand::default(),
            dropping: Arc::default(),
            taking: Arc::default(),
            repository: ArcSwapOption::empty(),
            restocking: Arc::new(Semaphore::new(RESTOCKS)),
            restock_where: AtomicU8::new(Restock::AtHome as u8),
            sweep_round: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Works with `membership` from now on; an older epoch than the current one is ignored.
    pub fn set_membership(&self, membership: Membership) {
        let current = self.inner.view.load_full();
        if membership.epoch < current.membership.epoch || membership == *current.membership {
            return;
        }
        self.follow(&membership, current.followed_by(membership.clone()));
    }

    /// Works with `membership` from now on, whatever its epoch: it is of another history of the controller's database, and numbers
    /// of two histories cannot be compared. What was known before stays for reading.
    pub fn begin_history(&self, membership: Membership) {
        let current = self.inner.view.load_full();
        // Rounds of the sweep are numbers of a history, too. An older database gives uploads stamps that would seem old.
        self.inner.sweep_round.store(0, Ordering::Relaxed);
        if membership != *current.membership {
            self.follow(&membership, current.in_another_history(membership.clone()));
        }
    }

    fn follow(&self, membership: &Membership, view: View) {
        name_members(&self.inner.names, membership);
        self.inner.view.store(Arc::new(view));
        self.inner.changed.notify_waiters();
    }

    /// The controller named this round of the sweep. Stamps that are absurdly far above it are not taken from others.
    pub fn heard_round(&self, round: u64) {
        self.inner.sweep_round.store(round, Ordering::Relaxed);
    }

    /// The round of the sweep that was heard of last; 0 before any.
    #[must_use]
    pub fn sweep_round(&self) -> u64 {
        self.inner.sweep_round.load(Ordering::Relaxed)
    }

    /// What becomes of objects that the repository gives from now on.
    pub fn set_restock(&self, restock: Restock) {
        self.inner.restock_where.store(restock as u8, Ordering::Relaxed);
    }

    /// Forgets the membership epochs before this one: what they gave to nodes is where newer ones say.
    pub fn close_epochs_before(&self, oldest: u64) {
        let current = self.inner.view.load_full();
        if let Some(next) = current.without_before(oldest) {
            // One that was replaced meanwhile is left to the next call.
            self.inner.view.compare_and_swap(&current, Arc::new(next));
        }
    }

    /// Works with this repository from now on, or with none.
    pub fn set_repository(&self, repository: Option<Arc<Repository>>) {
        self.inner.repository.store(repository);
        self.inner.changed.notify_waiters();
    }

    /// The repository that it works with; none if the pool has none.
    #[must_use]
    pub fn repository(&self) -> Option<Arc<Repository>> {
        self.inner.repository()
    }

    /// The membership record it works with.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.inner.view.load().membership.clone()
    }

    /// Tells the membership record it works with from every other one, also from one of the same epoch in another history of the
    /// database.
    #[must_use]
    pub fn record(&self) -> String {
        self.inner.view.load().record.clone()
    }

    /// The node whose share of the pool this client has; none if it has none, or the node is not a member.
    #[must_use]
    pub fn own_node(&self) -> Option<NodeId> {
        let view = self.inner.view.load();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        own.map(|at| view.member(at).node)
    }

    /// Waits until the membership record is another than this one. After a restore of the controller's database it may be another
    /// of the same epoch.
    pub async fn membership_after(&self, known: &Membership) {
        loop {
            let changed = self.inner.changed.notified();
            if *self.membership() != *known {
                return;
            }
            changed.await;
        }
    }

    /// Whether somebody waits for objects: this process for those of other nodes, or other nodes for those of this one.
    #[must_use]
    pub fn reads_under_way(&self) -> bool {
        self.inner.demand.is_any()
    }

    /// Counts a read of another node until the answer is dropped.
    pub(crate) fn serve_read(&self) -> UnderWay {
        self.inner.demand.read()
    }

    /// What went between this process and other nodes since it began.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.inner.traffic
    }

    /// Set while nodes cannot be asked because their certificates are not valid by this node's clock, or the other way
    /// round: which nodes, and how far off.
    #[must_use]
    pub fn clock_trouble(&self) -> Option<ClockTrouble> {
        let view = self.inner.view.load();
        let known = storage_core::lock(&self.inner.health).clone();
        let troubled = view.membership.members.iter().filter_map(|member| Some((member, known.get(&member.store)?)));
        let troubles: Vec<_> = troubled.filter_map(|(member, health)| Some((member, health.untimely()?))).collect();
        let here = troubles.iter().any(|(_, untimely)| *untimely != Untimely::Refused);
        let said: Vec<_> = troubles.iter().map(|(member, untimely)| untimely.describe(&member.name)).collect();
        (!said.is_empty()).then(|| ClockTrouble { here, detail: said.join("; ") })
    }

    /// Fetches objects, in the order asked for: from this node's store, from the owners side by side, from the next
    /// copy where one is absent, bad or slow, from the repository, at last from everyone; over again until `deadline`.
    ///
    /// # Errors
    /// At the deadline, with the names that no node gave: [`PoolError::Lost`] if every node of the pool, and the repository
    /// where there is one, has just said that it has no good copy, else [`PoolError::Unavailable`].
    pub async fn get(&self, names: &[ObjectName], deadline: Instant) -> Result<Vec<Got>, PoolError> {
        let mut unique = Vec::new();
        let mut at = HashMap::new();
        for name in names {
            at.entry(*name).or_insert_with(|| {
                unique.push(*name);
                unique.len() - 1
            });
        }
        let mut search = Search::new(unique);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        // Whether every node was asked in the last round that ended, and answered.
        let mut all_answered = false;
        loop {
            // Registered before looking, so that a membership that comes meanwhile is not missed.
            let changed = self.inner.changed.notified();
            let before = std::mem::take(&mut search.reasons);
            let local = self.inner.get_local(&mut search, deadline).await;
            if !search.complete() && self.inner.http.is_some() {
                let _under_way = self.inner.demand.read();
                let view = self.inner.view.load_full();
                let asked = self.inner.clone().get_remote(&view, &mut search, deadline);
                if timeout_at(deadline, asked).await.is_ok() {
                    all_answered = local && search.reasons.is_empty() && !view.membership.members.is_empty();
                } else if !all_answered {
                    search.reasons.extend(before);
                    search.reasons.entry("pool".to_owned()).or_insert_with(|| "the deadline came".to_owned());
                }
            } else if self.inner.http.is_none() && (local || Instant::now() < deadline) {
                all_answered = local;
            }
            if search.complete() {
                break;
            }
            let again = (Instant::now() + backoff.pause()).min(deadline);
            if Instant::now() >= deadline {
                let names = search.missing().map(|i| search.names[i]).collect();
                return Err(match all_answered {
                    true => PoolError::Lost { names },
                    false => PoolError::Unavailable { names, reasons: search.reasons_text() },
                });
            }
            tokio::select! { () = sleep_until(again) => {}, () = changed => {} }
        }
        let found: Vec<Got> = search.found.into_iter().flatten().collect();
        Ok(names.iter().map(|name| found[at[name]].clone()).collect())
    }

    /// Makes records durable on min(nodes, min_copies) distinct nodes each, pages and descriptors on one more where there
    /// are nodes. Objects that a node has already are stamped with `round` there, not sent. A repository that is written
    /// through has them, too, when this returns.
    ///
    /// # Errors
    /// [`PoolError::NotEnoughCopies`] when that many nodes could not be had in time, [`PoolError::Repository`] when the
    /// repository could not. Nothing is undone; repeating is free.
    pub async fn put(&self, round: u64, records: Vec<Record>) -> Result<PutDone, PoolError> {
        let mut seen = HashSet::new();
        let records: Arc<[Record]> = records.into_iter().filter(|r| seen.insert(r.name())).collect();
        if records.is_empty() {
            return Ok(PutDone::default());
        }
        let give_up = Instant::now() + self.inner.limits.patience_put;
        let (spread, through) =
            join(self.put_on_nodes(round, &records, give_up), self.inner.put_through(round, &records, give_up)).await;
        through?;
        spread
    }

    async fn put_on_nodes(&self, round: u64, records: &Arc<[Record]>, give_up: Instant) -> Result<PutDone, PoolError> {
        let mut spread = Spread::new(records);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        loop {
            let changed = self.inner.changed.notified();
            let view = self.inner.view.load_full();
            self.inner.clone().put_once(&view, round, records, &mut spread, give_up).await;
            let (needed, got) = spread.worst(&view, records);
            if got >= needed {
                return Ok(PutDone { stored_bytes: spread.stored_bytes(records) });
            }
            let again = Instant::now() + backoff.pause();
            if again >= give_up || spread.only_full() {
                return Err(PoolError::NotEnoughCopies {
                    wanted: needed,
                    got,
                    reasons: spread.reasons_text(),
                    full: spread.only_full(),
                });
            }
            tokio::select! { () = sleep_until(again) => {}, () = changed => {} }
        }
    }

    /// Calls one node and returns the body of its answer. A failed call is not repeated: the caller knows whether that
    /// makes sense.
    ///
    /// # Errors
    /// When the node is not a member, does not answer within the limit, or refuses.
    pub async fn call(&self, node: NodeId, call: Call<'_>) -> Result<Bytes, PoolError> {
        let (http, base) = self.inner.address(node)?;
        let mut request = http.request(call.method, format!("{base}/{}", call.path)).timeout(call.limit);
        if let Some(json) = call.json {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(json);
        }
        let failed = |reason: String| PoolError::Peer { node, reason };
        let answer = checksum::send(request).await.map_err(|e| failed(explain(&e)))?;
        let status = answer.status();
        let body = bounded(answer, call.answer_bytes_max).await.map_err(failed)?;
        if status.is_success() { Ok(body) } else { Err(failed(refusal(status, &body))) }
    }

    /// Asks one node for a connection that carries any bytes: a GET of `path` with these headers, of which one is
    /// `Upgrade`. The node has to answer within `limit`.
    ///
    /// # Errors
    /// When the node is not a member, does not answer within the limit, or refuses.
    pub async fn tunnel(
        &self,
        node: NodeId,
        path: &str,
        headers: http::HeaderMap,
        limit: Duration,
    ) -> Result<Tunnel, TunnelError> {
        let (http, base) = self.inner.address(node)?;
        let failed = |reason: String| PoolError::Peer { node, reason };
        let asked = async {
            let answer = checksum::send(http.get(format!("{base}/{path}")).headers(headers)).await;
            let answer = answer.map_err(|e| failed(explain(&e)))?;
            let status = answer.status();
            if status != http::StatusCode::SWITCHING_PROTOCOLS {
                let body = bounded(answer, REFUSAL_BYTES_MAX).await.map_err(failed)?;
                return Err(TunnelError::Refused { status, detail: detail(&body) });
            }
            let headers = answer.headers().clone();
            let stream = answer.upgrade().await.map_err(|e| failed(explain(&e)))?;
            Ok(Tunnel { stream, headers })
        };
        match timeout(limit, asked).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(failed(format!("no answer within {} s", limit.as_secs())).into()),
        }
    }
}

/// Longest refusal of a tunnel that is read, bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

fn name_members(names: &NameTable, membership: &Membership) {
    names.replace(membership.members.iter().map(|m| (node_tls_name(m.node), m.address.clone())));
}
