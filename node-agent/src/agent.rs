//! The agent put together: how it starts, its loops, how it ends. Every task of the agent is spawned in [`Agent::run`].
//!
//! ```text
//! heartbeat (3 s) --newer revision, epoch or incarnation--> desired (long-poll) --accept, store--> known
//!                                                                                             |   |
//!            report (level, retried) <-- instances <-- work (host.pass) <----------------------+   +--> membership of the pool
//!            cuts (coordinator and member) <----------------------------------------------------------+
//! peer server, renewal of the certificate, status socket, /metrics
//! ```
//! All of it is level-triggered: a lost message costs a delay. With the controller away the agent goes on with the last
//! desired state and membership, also after a restart (`desired.rs`).
//!
//! The end (SIGTERM): no new work; guests are asked to turn off (30 s); the last report; disks flushed and unmounted; only then does
//! the peer server close, so that nodes going down together can still read from each other. kill -9 is as correct, only slower.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, routing::get};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use muster_api::{
    InstanceId, Timestamp,
    node::{Condition, PoolUse},
    node_protocol::{HEARTBEAT_S, Heartbeat, InstanceReport, NODE_PROTOCOL, Offer, Report},
};
use muster_pool::{
    PoolClient, ServeLimits, serve,
    tls::{ClientCertificates, TlsError, server_config},
};
use storage_core::{
    membership::Membership,
    store::{ChunkStore, SegmentStore, StoreError},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    check::{self, DataLock, Seen},
    clock,
    config::Config,
    controller::{ControllerClient, HttpController},
    cuts::{CutParts, Cuts},
    desired::{DesiredFile, Known},
    host::Host,
    identity::{Candidate, IdentityError, NodeIdentity},
    peer::{
        server::{PeerServerParts, routes},
        share::{PoolShare, Space},
    },
    status, telemetry,
};

/// Longest a long-poll waits.
const POLL: Duration = Duration::from_secs(25);
/// Between two looks at what is true, when nothing says that something changed.
const WORK_EVERY: Duration = Duration::from_secs(5);
/// Reports are at least this far apart: writes change `unsaved_bytes` all the time.
const REPORT_APART: Duration = Duration::from_millis(200);
/// Reports are sent in full this often, whatever was acknowledged: a restored controller learns what it forgot.
const REPORT_FULL_EVERY: Duration = Duration::from_secs(300);
/// How long guests may take to turn themselves off.
const GUESTS_END: Duration = Duration::from_secs(30);
/// How long disks may take to flush and unmount.
const DISKS_END: Duration = Duration::from_secs(30);

/// Why an agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data folder.
    #[error("cannot {op} {path}: {source}")]
    DataDir {
        /// What was tried.
        op: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("another muster-agent runs on {0}")]
    Locked(PathBuf),
    /// The address to listen on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Joining, keys, certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The pool's store cannot be opened.
    #[error("this node's share of the pool cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The disks.
    #[error("the disks of this node cannot be opened: {0}")]
    Disks(String),
    /// A task that never ends ended.
    #[error("{task} ended: {detail}")]
    Task {
        /// Its name.
        task: &'static str,
        /// How.
        detail: String,
    },
}

/// What a [`Host`] is made from.
pub struct HostParts {
    /// Configuration.
    pub config: Arc<Config>,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// The pool.
    pub pool: PoolClient,
    /// Free bytes that only guests' writes may touch.
    pub keep_free_bytes: u64,
    /// Most bytes of clean chunks.
    pub cache_bytes_max: u64,
}

/// An agent that has joined and holds its data folder; [`Agent::run`] makes it work.
pub struct Agent {
    config: Arc<Config>,
    _lock: DataLock,
    identity: NodeIdentity,
    listener: TcpListener,
    advertise: String,
    offer: Offer,
    share: Arc<PoolShare>,
    pool_limit_bytes: u64,
    pool: PoolClient,
    host: Arc<dyn Host>,
    controller: Arc<dyn ControllerClient>,
    known: watch::Sender<Arc<Known>>,
    desired_file: DesiredFile,
    metrics: Option<PrometheusHandle>,
}

/// Everything up to the identity: shared by all ways to build.
struct Joined {
    config: Arc<Config>,
    lock: DataLock,
    identity: NodeIdentity,
    listener: TcpListener,
    advertise: String,
    offer: Offer,
}

impl Agent {
    /// Builds the real agent: takes the data folder, joins if it has not yet (waiting for the controller as long as it
    /// takes), opens pool and disks. Drop the future to give up waiting.
    ///
    /// # Errors
    /// When something it needs is not to be had, or the controller refuses it.
    pub async fn build(config: Config) -> Result<Self, AgentError> {
        let joined = join(config).await?;
        let controller = HttpController::new(&joined.identity.tls, &joined.identity.ca, &joined.identity.node_door())?;
        Self::assemble(joined, Arc::new(controller), crate::real_host::open).await
    }

    /// As [`Agent::build`], with another host and controller: for tests of the loops.
    ///
    /// # Errors
    /// As [`Agent::build`].
    pub async fn build_with(
        config: Config,
        controller: Arc<dyn ControllerClient>,
        host: Arc<dyn Host>,
    ) -> Result<Self, AgentError> {
        Self::assemble(join(config).await?, controller, async |_parts| Ok(host)).await
    }

    async fn assemble(
        joined: Joined,
        controller: Arc<dyn ControllerClient>,
        host: impl AsyncFnOnce(HostParts) -> Result<Arc<dyn Host>, AgentError>,
    ) -> Result<Self, AgentError> {
        let Joined { config, lock, identity, listener, advertise, offer } = joined;
        let data_dir = &config.data_dir;
        let space = Space::of(data_dir).map_err(|e| data_dir_error("ask for the space of", data_dir, e))?;
        let keep_free_bytes = config.keep_free_bytes(space.total_bytes);
        let pool_limit_bytes = config.pool_size.of(space.total_bytes);
        let pool_dir = data_dir.join("pool");
        let store = open_store(pool_dir.clone(), pool_limit_bytes).await?;
        let share = Arc::new(PoolShare::new(store, pool_dir, keep_free_bytes));
        let desired_file = DesiredFile::new(data_dir);
        let known = desired_file
            .load(&identity.ca, identity.joined.cluster)
            .unwrap_or_else(|| Known::nothing(identity.joined.incarnation));
        let membership = known.membership.clone().unwrap_or_else(|| Membership {
            cluster: identity.joined.cluster,
            epoch: 0,
            min_copies: 1,
            members: Vec::new(),
            clients: Vec::new(),
        });
        let local: (_, Arc<dyn ChunkStore>) = (identity.store, share.clone());
        let pool = PoolClient::new(&identity.tls, &identity.ca, membership, Some(local))?;
        let host = host(HostParts {
            config: config.clone(),
            identity: identity.clone(),
            pool: pool.clone(),
            keep_free_bytes,
            cache_bytes_max: config.cache_size.of(space.total_bytes),
        })
        .await?;
        Ok(Self {
            known: watch::Sender::new(Arc::new(known)),
            config,
            _lock: lock,
            identity,
            listener,
            advertise,
            offer,
            share,
            pool_limit_bytes,
            pool,
            host,
            controller,
            desired_file,
            metrics: None,
        })
    }

    /// Serves these metrics where the configuration says.
    #[must_use]
    pub fn with_metrics(self, metrics: PrometheusHandle) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// Where peers reach it.
    #[must_use]
    pub fn advertise(&self) -> &str {
        &self.advertise
    }

    /// Its view of the pool.
    #[must_use]
    pub fn pool(&self) -> &PoolClient {
        &self.pool
    }

    /// Its share of the pool.
    #[must_use]
    pub fn share(&self) -> Arc<dyn ChunkStore> {
        self.share.clone()
    }

    /// Works until `cancel`, then ends in order.
    ///
    /// # Errors
    /// When a part that must not end ended; everything is closed in order all the same.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AgentError> {
        let Self {
            config,
            _lock: lock,
            identity,
            listener,
            advertise,
            offer,
            share,
            pool_limit_bytes,
            pool,
            host,
            controller,
            known,
            desired_file,
            metrics,
        } = self;
        info!(
            node.id = %identity.joined.node, node.name = %identity.joined.name, cluster.id = %identity.joined.cluster,
            %advertise, "node {} works", identity.joined.name
        );
        let tls = server_config(&identity.tls, &identity.ca, ClientCertificates::Current)?;
        let cuts = Arc::new(Cuts::new(CutParts {
            node: identity.joined.node,
            disks: host.cuts(),
            peers: Arc::new(pool.clone()),
            controller: controller.clone(),
            known: known.subscribe(),
        }));
        let router = routes(PeerServerParts {
            chunks: share.clone(),
            pool: pool.clone(),
            cuts: cuts.clone(),
            console_dir: config.data_dir.join("console"),
        });
        let loops = Arc::new(Loops {
            config: config.clone(),
            identity,
            advertise,
            offer,
            share: share.clone(),
            pool_limit_bytes,
            pool,
            host: host.clone(),
            controller,
            known,
            desired_file,
            refetch: Notify::new(),
            instances: watch::Sender::new((0, Arc::new(Vec::new()))),
            contact: Mutex::default(),
        });

        // Two groups: what takes on work ends first, what serves it ends last.
        let (working, serving) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks: JoinSet<&'static str> = JoinSet::new();
        let mut servers: JoinSet<&'static str> = JoinSet::new();
        macro_rules! spawn {
            ($set:ident, $name:literal, $future:expr) => {{
                let future = $future;
                $set.spawn(async move {
                    future.await;
                    $name
                });
            }};
        }
        spawn!(servers, "peer server", serve(listener, Some(tls), router, serving.clone(), ServeLimits::default()));
        spawn!(servers, "status socket", {
            let (loops, dir) = (loops.clone(), config.data_dir.clone());
            status::serve(dir, move || loops.status(), serving.clone())
        });
        if let (Some(address), Some(metrics)) = (config.metrics_listen, metrics) {
            let listener = TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })?;
            let router = Router::new().route("/metrics", get(move || async move { metrics.render() }));
            spawn!(servers, "metrics", serve(listener, None, router, serving.clone(), ServeLimits::default()));
        }
        spawn!(tasks, "cuts", {
            let working = working.clone();
            async move { cuts.run(working).await }
        });
        for (name, task) in loops.clone().all() {
            let working = working.clone();
            tasks.spawn(async move {
                tokio::select! { () = working.cancelled() => {}, () = task => {} }
                name
            });
        }

        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => Err(early(ended)),
            Some(ended) = servers.join_next() => Err(early(ended)),
        };
        if let Err(error) = &ended {
            error!(%error, "the agent ends because one of its parts did");
        }

        info!("the agent ends: guests, report, disks, peers");
        working.cancel();
        if timeout(Duration::from_secs(5), drained(&mut tasks)).await.is_err() {
            warn!("work under way did not end in time and is dropped");
            tasks.shutdown().await;
        }
        match timeout(GUESTS_END + Duration::from_secs(10), host.stop_guests(GUESTS_END)).await {
            Ok(last) => loops.last_report(last).await,
            Err(_elapsed) => error!("guests did not end in time"),
        }
        if timeout(DISKS_END, host.close()).await.is_err() {
            error!("disks did not close in time; what was acknowledged is replayed at the next start");
        }
        serving.cancel();
        if timeout(ServeLimits::default().drain + Duration::from_secs(2), drained(&mut servers)).await.is_err() {
            servers.shutdown().await;
        }
        let synced = tokio::task::spawn_blocking(move || share.sync()).await;
        if !matches!(synced, Ok(Ok(()))) {
            warn!(?synced, "the last sync of the pool failed; nothing that was acknowledged depends on it");
        }
        drop(lock);
        info!("the agent has ended");
        ended
    }
}

async fn drained(tasks: &mut JoinSet<&'static str>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            warn!(%error, "a task ended badly");
        }
    }
}

fn early(ended: Result<&'static str, tokio::task::JoinError>) -> AgentError {
    match ended {
        Ok(task) => AgentError::Task { task, detail: "it returned".to_owned() },
        Err(error) => AgentError::Task { task: "a task", detail: error.to_string() },
    }
}

fn data_dir_error(op: &'static str, path: &std::path::Path, source: io::Error) -> AgentError {
    AgentError::DataDir { op, path: path.to_owned(), source }
}

async fn open_store(dir: PathBuf, limit_bytes: u64) -> Result<Arc<dyn ChunkStore>, AgentError> {
    // Opening scans what was written since the index's watermark.
    let opened = tokio::task::spawn_blocking(move || {
        let options = storage_core::store::Options { limit_bytes: Some(limit_bytes), ..Default::default() };
        SegmentStore::open(&dir, options)
    });
    match opened.await {
        Ok(store) => Ok(Arc::new(store?)),
        Err(error) => Err(AgentError::Task { task: "opening the pool", detail: error.to_string() }),
    }
}

/// Takes the data folder and the address, and joins unless it has joined before.
async fn join(config: Config) -> Result<Joined, AgentError> {
    let config = Arc::new(config);
    let data_dir = &config.data_dir;
    // Passable, not readable: QEMU's user must reach the disk files below it.
    for dir in [data_dir.clone(), data_dir.join("disks"), data_dir.join("console")] {
        std::fs::DirBuilder::new()
            .mode(0o711)
            .recursive(true)
            .create(&dir)
            .map_err(|e| data_dir_error("make", &dir, e))?;
    }
    let lock = DataLock::take(data_dir).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => AgentError::Locked(data_dir.clone()),
        _ => data_dir_error("lock", data_dir, e),
    })?;
    let address = config.listen;
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let (listener, bound) = listen.await.map_err(|source| AgentError::Listen { address, source })?;
    let advertise = config.advertise.unwrap_or(bound).to_string();
    let offer = check::offer(&config);
    let mut candidate = Candidate::open(data_dir)?;
    let mut pause = Duration::from_millis(250);
    let identity = loop {
        if let Some(identity) = candidate.identity(&config)? {
            break identity;
        }
        match candidate.join(&config, &advertise, offer).await {
            Ok(()) => info!(joined = ?candidate.joined(), "joined the cluster"),
            Err(error) if error.passes() => {
                warn!(%error, "joining is tried again");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
            Err(error) => return Err(error.into()),
        }
    };
    Ok(Joined { config, lock, identity, listener, advertise, offer })
}

/// What the loops share.
struct Loops {
    config: Arc<Config>,
    identity: NodeIdentity,
    advertise: String,
    offer: Offer,
    share: Arc<PoolShare>,
    pool_limit_bytes: u64,
    pool: PoolClient,
    host: Arc<dyn Host>,
    controller: Arc<dyn ControllerClient>,
    known: watch::Sender<Arc<Known>>,
    desired_file: DesiredFile,
    /// The desired state has to be asked for from the beginning.
    refetch: Notify,
    /// Revision worked with, and all instances as they are.
    instances: watch::Sender<(u64, Arc<Vec<InstanceReport>>)>,
    contact: Mutex<Contact>,
}

#[derive(Clone, Copy, Default)]
struct Contact {
    connected: bool,
    last_answer_at: Option<Timestamp>,
}

type Task = futures::future::BoxFuture<'static, ()>;

impl Loops {
    fn all(self: Arc<Self>) -> Vec<(&'static str, Task)> {
        let (heartbeats, desired, work, reports, renewal, pool) =
            (self.clone(), self.clone(), self.clone(), self.clone(), self.clone(), self);
        vec![
            ("heartbeats", Box::pin(async move { heartbeats.heartbeats().await })),
            ("desired state", Box::pin(async move { desired.desired().await })),
            ("work", Box::pin(async move { work.work().await })),
            ("reports", Box::pin(async move { reports.reports().await })),
            ("renewal", Box::pin(async move { renewal.renewal().await })),
            ("pool watch", Box::pin(async move { pool.pool_watch().await })),
        ]
    }

    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- heartbeats -------------------------------------------------------------------------------------------------

    async fn heartbeats(&self) {
        let mut tick = interval(Duration::from_secs(HEARTBEAT_S));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let heartbeat = self.heartbeat();
            self.publish_metrics(&heartbeat);
            // One that takes longer than the next is due is not worth waiting for.
            let limit = Duration::from_secs(HEARTBEAT_S * 2);
            let answer = timeout(limit, self.controller.heartbeat(heartbeat)).await;
            let known = self.known.borrow().clone();
            match answer {
                Ok(Ok(answer)) => {
                    let was = std::mem::replace(
                        &mut *self.contact(),
                        Contact { connected: true, last_answer_at: Some(clock::now()) },
                    );
                    if !was.connected {
                        info!("the controller answers");
                    }
                    let desired = &known.desired;
                    let epoch = known.membership.as_ref().map_or(0, |m| m.epoch);
                    // The long-poll brings what is newer; this is for what it cannot see: another history of the
                    // database, whose revisions say nothing about ours, and membership records.
                    if answer.incarnation != desired.incarnation
                        || answer.membership_epoch > epoch
                        || answer.desired_revision < desired.revision
                    {
                        debug!(?answer, "the desired state is asked for again");
                        self.refetch.notify_one();
                    }
                }
                Ok(Err(error)) => self.lost(&error.to_string()),
                Err(_elapsed) => self.lost("it did not answer a heartbeat in time"),
            }
        }
    }

    fn lost(&self, error: &str) {
        let mut contact = self.contact();
        if std::mem::take(&mut contact.connected) {
            warn!(error, "the controller does not answer; the node goes on as last told");
        } else {
            debug!(error, "the controller does not answer");
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let known = self.known.borrow().clone();
        Heartbeat {
            protocol: NODE_PROTOCOL,
            incarnation: known.desired.incarnation,
            membership_epoch: known.membership.as_ref().map_or(0, |m| m.epoch),
            advertise: self.advertise.clone(),
            offer: self.offer,
            pool: self.pool_use(),
            conditions: self.conditions(),
            runtimes: self.host.runtimes(),
            hypervisor: self.host.hypervisor(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn pool_use(&self) -> PoolUse {
        let usage = self.share.usage();
        let space = Space::of(&self.config.data_dir).unwrap_or_default();
        PoolUse {
            limit_bytes: self.pool_limit_bytes,
            used_bytes: usage.bytes,
            objects: usage.objects,
            free_bytes: space.free_bytes,
            cache_bytes: self.host.cache_bytes(),
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let usage = self.share.usage();
        let pool_full = if self.share.at_floor() {
            Some("the file system is down to what is kept free: the pool takes nothing new".to_owned())
        } else if usage.limit_bytes.is_some_and(|limit| usage.disk_bytes >= limit) {
            Some(format!("the pool has reached its limit of {} bytes", self.pool_limit_bytes))
        } else {
            None
        };
        let hypervisor = self.host.hypervisor();
        let seen = Seen {
            libvirt: hypervisor.is_some(),
            detail: self.host.hypervisor_trouble(),
            kvm: hypervisor.as_deref() == Some("kvm"),
            pool_full,
            clock_offset_s: self.controller.clock_offset_s(),
        };
        check::conditions(&self.config, &seen)
    }

    fn publish_metrics(&self, heartbeat: &Heartbeat) {
        // Counts fit a gauge's 53 bits by far.
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        let number = |n: u64| n as f64;
        let contact = *self.contact();
        gauge!(telemetry::CONTROLLER_CONNECTED).set(f64::from(u8::from(contact.connected)));
        gauge!(telemetry::DESIRED_REVISION).set(number(self.known.borrow().desired.revision));
        gauge!(telemetry::MEMBERSHIP_EPOCH).set(number(heartbeat.membership_epoch));
        gauge!(telemetry::POOL_USED_BYTES).set(number(heartbeat.pool.used_bytes));
        gauge!(telemetry::POOL_LIMIT_BYTES).set(number(heartbeat.pool.limit_bytes));
        gauge!(telemetry::POOL_OBJECTS).set(number(heartbeat.pool.objects));
        gauge!(telemetry::POOL_BAD_COPIES).set(number(self.share.usage().bad_copies));
        gauge!(telemetry::FREE_BYTES).set(number(heartbeat.pool.free_bytes));
        let mut states: HashMap<String, u64> =
            ["preparing", "running", "paused", "stopping", "stopped", "failed", "gone"]
                .map(|state| (state.to_owned(), 0))
                .into();
        for report in self.instances.borrow().1.iter() {
            *states.entry(format!("{:?}", report.state).to_ascii_lowercase()).or_default() += 1;
        }
        for (state, count) in states {
            gauge!(telemetry::INSTANCES, "state" => state).set(number(count));
        }
        for kind in ["disk_full", "no_kvm", "no_libvirt", "no_fuse", "old_kernel", "clock_off"] {
            let holds = heartbeat.conditions.iter().any(|c| c.kind == kind);
            gauge!(telemetry::CONDITIONS, "kind" => kind).set(f64::from(u8::from(holds)));
        }
    }

    // ---- desired state ----------------------------------------------------------------------------------------------

    async fn desired(&self) {
        let mut pause = Duration::from_millis(250);
        // From the beginning: what is on disk may be old, and cuts are begun only on the controller's fresh word.
        let mut after = 0;
        loop {
            let answer = tokio::select! {
                () = self.refetch.notified() => {
                    after = 0;
                    continue;
                }
                answer = timeout(POLL * 2, self.controller.desired(after, POLL)) => answer,
            };
            match answer {
                Ok(Ok(Some(desired))) => {
                    pause = Duration::from_millis(250);
                    after = desired.revision;
                    self.take(desired).await;
                }
                Ok(Ok(None)) => pause = Duration::from_millis(250),
                Ok(Err(error)) => {
                    debug!(%error, "the desired state is asked for again");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(_elapsed) => debug!("a long-poll was not answered in time"),
            }
        }
    }

    async fn take(&self, desired: muster_api::node_protocol::Desired) {
        let before = self.known.borrow().clone();
        let known = match before.accept(desired, &self.identity.ca, self.identity.joined.cluster) {
            Ok(known) => Arc::new(known),
            Err(refusal) => {
                error!(%refusal, "the controller's word is not taken; the node goes on as last told");
                // Not in a tight loop: the controller has an answer ready each time.
                return sleep(Duration::from_secs(3)).await;
            }
        };
        let (file, stored) = (self.desired_file.clone(), known.clone());
        let kept = tokio::task::spawn_blocking(move || file.store(&stored)).await;
        if let Ok(Err(error)) = kept {
            // The disks keep their own generations durably, so working on is safe.
            warn!(%error, "the desired state could not be stored; after a restart without controller the node is behind");
        }
        if let Some(membership) = &known.membership {
            self.pool.set_membership(membership.clone());
        }
        debug!(
            revision = known.desired.revision,
            assignments = known.desired.assignments.len(),
            cuts = known.desired.cuts.len(),
            "desired state taken"
        );
        self.known.send_replace(known);
    }

    // ---- work and reports -------------------------------------------------------------------------------------------

    async fn work(&self) {
        let mut known = self.known.subscribe();
        let mut changed = self.host.changed();
        let mut tick = interval(WORK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                seen = known.changed() => if seen.is_err() { return },
                seen = changed.changed() => if seen.is_err() {
                    // A host that never says anything is looked at by the clock.
                    tick.tick().await;
                },
            }
            let now = known.borrow_and_update().clone();
            if !now.fresh && now.desired.revision == 0 {
                // Nothing was ever wanted of this node; what is on it is not for it to judge.
                continue;
            }
            changed.mark_unchanged();
            let instances = self.host.pass(Arc::new(now.desired.clone())).await;
            let next = (now.desired.revision, Arc::new(instances));
            self.instances.send_if_modified(|last| {
                let differs = *last != next;
                *last = next;
                differs
            });
        }
    }

    async fn reports(&self) {
        let mut instances = self.instances.subscribe();
        let mut acknowledged: HashMap<InstanceId, InstanceReport> = HashMap::new();
        let mut incarnation = None;
        let mut full_at: Option<Instant> = None;
        let mut pause = Duration::from_millis(250);
        loop {
            let (revision, all) = instances.borrow_and_update().clone();
            let now_incarnation = self.known.borrow().desired.incarnation;
            let full =
                incarnation != Some(now_incarnation) || full_at.is_none_or(|at| at.elapsed() >= REPORT_FULL_EVERY);
            let news: Vec<InstanceReport> =
                all.iter().filter(|r| full || acknowledged.get(&r.instance) != Some(*r)).cloned().collect();
            // Before the first pass there is nothing to say; "nothing is here" would be a lie.
            if revision > 0 && (full || !news.is_empty()) {
                let report = Report { desired_revision: revision, full, instances: news };
                match self.controller.report(report).await {
                    Ok(()) => {
                        pause = Duration::from_millis(250);
                        acknowledged = all.iter().map(|r| (r.instance, r.clone())).collect();
                        if full {
                            (incarnation, full_at) = (Some(now_incarnation), Some(Instant::now()));
                        }
                    }
                    Err(error) => {
                        debug!(%error, "a report is sent again");
                        sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(5));
                        continue;
                    }
                }
            }
            sleep(REPORT_APART).await;
            if let Ok(Err(_closed)) = timeout(REPORT_FULL_EVERY, instances.changed()).await {
                return;
            }
        }
    }

    async fn last_report(&self, instances: Vec<InstanceReport>) {
        if instances.is_empty() {
            return;
        }
        let desired_revision = self.known.borrow().desired.revision;
        let report = Report { desired_revision, full: false, instances };
        if !matches!(timeout(Duration::from_secs(2), self.controller.report(report)).await, Ok(Ok(()))) {
            warn!("the last report did not reach the controller; the next start sends it");
        }
    }

    // ---- renewal, pool, status --------------------------------------------------------------------------------------

    async fn renewal(&self) {
        let mut pause = Duration::from_secs(1);
        loop {
            match self.identity.wants_renewal() {
                Ok(true) => match self.identity.renew(self.controller.as_ref()).await {
                    Ok(()) => pause = Duration::from_secs(1),
                    Err(error) => {
                        warn!(%error, "the certificate could not be renewed; it is tried again");
                        sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(600));
                        continue;
                    }
                },
                Ok(false) => {}
                Err(error) => warn!(%error, "the certificate cannot be read"),
            }
            sleep(Duration::from_secs(600)).await;
        }
    }

    /// Bad copies are dropped by the store; somebody must hear of them (I4). Replacing them is for the repair to come.
    async fn pool_watch(&self) {
        let mut tick = interval(Duration::from_secs(10));
        loop {
            tick.tick().await;
            for bad in self.share.take_bad_copies() {
                error!(object.name = %bad.name, reason = %bad.reason, "a copy in this node's pool was bad and is dropped");
            }
        }
    }

    fn status(&self) -> status::Status {
        let known = self.known.borrow().clone();
        let contact = *self.contact();
        status::Status {
            version: env!("CARGO_PKG_VERSION"),
            node: self.identity.joined.node,
            name: self.identity.joined.name.clone(),
            cluster: self.identity.joined.cluster,
            controller: self.identity.node_door(),
            connected: contact.connected,
            last_answer_at: contact.last_answer_at,
            advertise: self.advertise.clone(),
            desired_revision: known.desired.revision,
            membership_epoch: known.membership.as_ref().map_or(0, |m| m.epoch),
            offer: self.offer,
            pool: self.pool_use(),
            conditions: self.conditions(),
            instances: self.instances.borrow().1.to_vec(),
        }
    }
}
