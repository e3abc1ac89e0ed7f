//! The controller: it takes calls of people and nodes, keeps what is wanted in a database, and works on it.
//!
//! Reading order: [`http`] (calls are read and answered), [`app`] (one function per use case), [`domain`] and
//! [`scheduler`] (pure rules and decisions), [`store`] (SQL), [`reconcile`] (loops that finish what calls began),
//! [`ingest`] and [`export`] (image bytes in and out). Arrows go in that order only: `tests/integration/modules.rs`
//! checks it. [`build`] puts a controller together for `main` and for tests alike:
//!
//! ```ignore
//! let server = muster_controller::build(config, Arc::new(SystemClock)).await?;   // bound, nothing served yet
//! println!("{}", server.url());
//! server.run(stop).await?;                                                       // until `stop` is cancelled
//! ```
//!
//! A test that needs no sockets takes [`build_app`] and `http::routes(app)`.
//!
//! # What holds here
//!
//! - **One transaction each** for: a deployment with all its members; a clone; a delete; a publish; an assignment with
//!   its generation; an idempotency key with its effect and its event. Every mutable row has a `revision`, and saving
//!   an older one is a conflict.
//! - **Publish** (I3): the commit id is unique; generation and head of the disk are compared in the same transaction;
//!   the upload must be live. An agent that comes back asks for the outcome of its commit before anything else.
//! - **A version row** keeps the bytes of its descriptor and root page, so that an assignment carries both.
//! - **Order.** Ids and times are for reading, never for ordering. Every listed row and every event has a `seq`, taken
//!   in its write transaction; lists, page tokens and `as_of` use it.
//! - **Incarnation.** The database has a number and a random value. A restore raises the number; the same number with
//!   another random value is refused. Within one incarnation the membership epoch, the round and the generation of each
//!   disk are compared one by one, and older ones are refused.
//! - **Generations** (I8) guard shared state: uploads, publishes, reports and cuts. They do not stop a guest's
//!   processor. An instance on a silent node stays `unknown` and is not started elsewhere. A start on another node
//!   begins a new generation from the last published version; `unsaved_bytes` shows how much is not in it.
//! - **Deadlines** (I10): an operation past its deadline is asked to stop, and one that does not is ended.
//! - **Heartbeats** stay in memory and reach the database in batches.
//! - **Sizes.** An image of n bytes is exported as n bytes. A disk has n rounded up to 4 KiB from its first start,
//!   because QEMU with direct I/O refuses other sizes, and versions committed from it have that size. A bigger
//!   `disk_bytes` adds levels above the root of the tree; a smaller one is refused.
//! - **Detached disks.** A disk leaves its instance when one report says that no guest has it, that its newest version is the
//!   one known here, and that nothing was written since. Then its node is told to remove its copy until it reports the copy
//!   no more. The version of a disk that belongs to no instance is held like the newest version of any other (I6).
//! - **Trust.** The CA of the cluster signs certificates of 90 days and the membership record. A node's certificate is
//!   renewed with its key as long as the node is listed, also when it has run out.
//!   The controller's own key is in the record as a client that owns no objects.
//! - **Tenants** (I12) see and touch only what belongs to their project. Sizes and refusals tell them nothing about
//!   others. A node is trusted with the objects it stores. It may not publish, start, or be given the roots of what it
//!   was not assigned.
//! - **Runtimes.** `libvirt` runs guests, on KVM where a probe boot works and on plain QEMU elsewhere. `none` gives
//!   only the disk file, for other hypervisors and for measuring storage.

pub mod app;
pub mod ca;
pub mod clock;
pub mod config;
pub mod dashboard;
mod data_dir;
pub mod domain;
pub mod export;
pub mod history;
pub mod http;
pub mod ingest;
pub mod reconcile;
pub mod scheduler;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod wake;

use std::{fs::File, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use muster_api::{
    ClusterId,
    node_protocol::Incarnation,
    token::{CreateToken, Role},
};
use muster_pool::{PoolClient, ServeLimits, serve};
use storage_core::membership::Membership;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{
        App, AppError, Inner, caller::DEFAULT_PROJECT, console_tickets::ConsoleTickets, slots::Slots,
        tokens::make_token,
    },
    ca::Authority,
    clock::Clock,
    config::Config,
    data_dir::{lock_data_dir, make_dir},
    store::{DatabaseUrl, Seal, Store, cluster, cluster::Cluster},
    tls::Identities,
    wake::{Statuses, Wakes},
};

/// Seconds the first token lives. It is the operator's first access, and can be revoked like any other token.
const FIRST_TOKEN_TTL_S: u64 = 10 * 365 * 86_400;
/// Longest time that the loops may take to end once the doors are closed.
const DRAIN: Duration = Duration::from_secs(15);

/// A controller whose sockets are bound and not served yet.
pub struct Server {
    /// The controller.
    pub app: App,
    people: TcpListener,
    node: TcpListener,
    metrics: Option<TcpListener>,
    identities: Arc<Identities>,
    _lock: File,
}

/// An [`App`] with its certificates, without sockets.
pub struct Parts {
    /// The controller.
    pub app: App,
    /// The certificates that its doors would show.
    pub identities: Arc<Identities>,
}

/// Opens data folder and database, and binds the sockets of the doors.
pub async fn build(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Server> {
    muster_pool::tls::install_provider();
    telemetry::metrics();
    check_servable(&config)?;
    let lock = lock_data_dir(&config.data_dir)?;
    let people = bind("listen", config.doors.listen).await?;
    let node = bind("node_listen", config.node_listen()).await?;
    let metrics = match config.doors.metrics_listen {
        Some(address) => Some(bind("metrics_listen", address).await?),
        None => None,
    };
    let node_port = node.local_addr()?.port();
    let Parts { app, identities } = build_app(config, clock, node_port).await?;
    app.forget_broken_uploads().await?;
    Ok(Server { app, people, node, metrics, identities, _lock: lock })
}

/// Refuses a configuration that this release cannot serve with. `check-config` calls it as well.
pub fn check_servable(config: &Config) -> anyhow::Result<()> {
    if matches!(config.database_url(), DatabaseUrl::Postgres(_)) {
        bail!("this release serves from sqlite:PATH only: PostgreSQL comes with several controllers");
    }
    for path in [&config.doors.tls_cert, &config.doors.tls_key].into_iter().flatten() {
        File::open(path).with_context(|| format!("read {}", path.display()))?;
    }
    if let Some(repository) = &config.pool.repository {
        repository.settings().map_err(|why| anyhow::anyhow!("pool.repository: {why}"))?;
    }
    Ok(())
}

/// Makes a token in the database, for an operator who has none. The controller may be running. Nothing else is changed,
/// because the daemon may have been started with another configuration.
pub async fn create_token(config: &Config, clock: Arc<dyn Clock>, wanted: &CreateToken) -> anyhow::Result<String> {
    muster_pool::tls::install_provider();
    make_dir(&config.data_dir)?;
    // Before the first start this also makes the cluster, which two processes must not do at once.
    let first = !config.data_dir.join("ca.pem").exists();
    let _lock = if first { Some(lock_data_dir(&config.data_dir)?) } else { None };
    let authority = Authority::open_or_create(&config.data_dir, clock.now())?;
    let store = open_store(config, clock).await?;
    let cluster = open_cluster(&store, &authority, &config.data_dir).await?;
    let text = store
        .run_tx("tokens.create", async |tx| {
            let token = make_token(tx, cluster.id, &authority, wanted, "command line").await?;
            Ok::<_, AppError>(token.text)
        })
        .await?;
    store.close().await;
    Ok(text)
}

async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Store> {
    let url = config.database_url();
    Store::open(&url, clock, Wakes::default()).await.with_context(|| format!("open the database {url:?}"))
}

/// As [`build`], without lock and sockets: for in-process tests.
pub async fn build_app(config: Config, clock: Arc<dyn Clock>, node_port: u16) -> anyhow::Result<Parts> {
    let parts = assemble(config, clock, node_port, None).await?;
    let app = &parts.app;
    app.store.run_tx("memberships.refresh", async |tx| app.refresh_membership(tx).await).await?;
    app.follow_membership().await?;
    Ok(parts)
}

/// As [`build_app`], with the caller's pool client: for tests without nodes, see `PoolClient::local_only`.
pub async fn build_app_on(config: Config, clock: Arc<dyn Clock>, pool: PoolClient) -> anyhow::Result<Parts> {
    assemble(config, clock, 0, Some(pool)).await
}

async fn assemble(
    config: Config,
    clock: Arc<dyn Clock>,
    node_port: u16,
    pool: Option<PoolClient>,
) -> anyhow::Result<Parts> {
    muster_pool::tls::install_provider();
    make_dir(&config.data_dir)?;
    let authority = Arc::new(Authority::open_or_create(&config.data_dir, clock.now())?);
    let store = open_store(&config, clock.clone()).await?;
    let cluster = open_cluster(&store, &authority, &config.data_dir).await?;
    let cluster = history::follow(&store, cluster, &config.data_dir).await?;
    store.set_history(cluster.incarnation.into());
    store.set_seal(Seal::new(&authority.derive("positions", b"")));
    let identities = Arc::new(Identities::new(&config.data_dir, &authority, &config.doors, clock.now())?);
    let empty = Membership {
        cluster: cluster.id,
        epoch: 0,
        min_copies: config.pool.min_copies,
        members: Vec::new(),
        clients: Vec::new(),
    };
    let pool = match pool {
        Some(pool) => pool,
        None => PoolClient::new(identities.node_identity(), identities.trusted(), empty, None)?,
    };
    let app = App::new(Inner {
        store,
        started_at: clock.now(),
        clock,
        config,
        cluster: cluster.id,
        ca: authority,
        trusted_ca: identities.trusted().clone(),
        pool,
        client_key_sha256: identities.node_identity().key_sha256()?,
        node_port,
        closing: CancellationToken::new(),
        imports: Slots::new(app::uploads::UPLOADS_MAX, app::uploads::UPLOADS_PER_PROJECT_MAX),
        walks: Slots::new(app::versions::WALKS_MAX, app::versions::WALKS_PER_PROJECT_MAX),
        console_tickets: ConsoleTickets::default(),
        streams: Slots::new(app::events::STREAMS_MAX, app::events::STREAMS_PER_TOKEN_MAX),
        counted: app::counted::Counted::default(),
        known_tokens: app::known::Known::default(),
        known_sessions: app::known::Known::default(),
        used_sessions: std::sync::Mutex::default(),
        sign_ins: app::sign_ins::SignIns::default(),
        lost: app::lost_objects::LostObjects::default(),
        newest_record: std::sync::Mutex::default(),
        oldest_open_epoch: std::sync::atomic::AtomicU64::new(0),
        old_versions: std::sync::Mutex::default(),
        loops: Statuses::default(),
        incarnation: std::sync::Mutex::new(cluster.incarnation),
        heartbeats: app::heartbeats::Heartbeats::default(),
        boot_turns: app::boot_turns::Turns::default(),
        traffics: app::moved::Traffics::default(),
        sweep: app::sweeping::Sweeping::default(),
        repository: std::sync::Mutex::default(),
        refused_runs: std::sync::Mutex::default(),
        unlisted: std::sync::Mutex::default(),
    });
    app.begin_repository()?;
    Ok(Parts { app, identities })
}

/// Reads the cluster's row. A new database becomes a cluster with its first token.
async fn open_cluster(store: &Store, authority: &Authority, dir: &Path) -> anyhow::Result<Cluster> {
    let ca_sha256 = hex::encode(authority.sha256());
    let cluster = store
        .run_tx("cluster.open", async |tx| {
            if let Some(cluster) = cluster::load(tx).await? {
                return Ok(cluster);
            }
            history::check_new(dir)?;
            let random = getrandom::u64().map_err(|e| anyhow::anyhow!("no random number: {e}"))?;
            let cluster = Cluster {
                id: ClusterId::generate(),
                ca_sha256: ca_sha256.clone(),
                incarnation: Incarnation { number: 1, random },
            };
            cluster::insert(tx, &cluster).await?;
            cluster::ensure_project(tx, DEFAULT_PROJECT).await?;
            let wanted = CreateToken {
                name: "admin".parse().ok(),
                role: Role::Admin,
                project: None,
                ttl_s: Some(FIRST_TOKEN_TTL_S),
                uses: None,
            };
            let token = make_token(tx, cluster.id, authority, &wanted, "muster").await?;
            // Written before the commit: if the process dies in between, the next start makes both again.
            ca::write_file(&dir.join("admin.token"), format!("{}\n", token.text).as_bytes(), 0o600)?;
            Ok::<_, AppError>(cluster)
        })
        .await?;
    if cluster.ca_sha256 != ca_sha256 {
        bail!(
            "the database is of cluster {} with CA {}, but {} has CA {ca_sha256}: they do not belong together",
            cluster.id,
            cluster.ca_sha256,
            dir.join("ca.pem").display()
        );
    }
    Ok(cluster)
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address} ({what})"))
}

impl Server {
    /// Address of the people's door.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.people.local_addr()
    }

    /// Address of the node door.
    pub fn node_address(&self) -> std::io::Result<SocketAddr> {
        self.node.local_addr()
    }

    /// URL of the people's door.
    pub fn url(&self) -> std::io::Result<String> {
        let scheme = if self.app.config.doors.insecure_http { "http" } else { "https" };
        Ok(format!("{scheme}://{}", self.address()?))
    }

    /// Serves until `stop` is cancelled. Then the doors close, calls under way end, the loops end, and the database is
    /// closed. A kill at any instant loses nothing either; only the next start is slower.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { app, people, node, metrics, identities, _lock } = self;
        let doors = TaskTracker::new();
        let people_tls = identities.people_config()?;
        if people_tls.is_none() {
            tracing::warn!(
                "THE PEOPLE'S DOOR IS PLAIN HTTP (--insecure-http): tokens and data cross the network unprotected"
            );
        }
        let limits = ServeLimits::default();
        doors.spawn(serve(people, people_tls, http::routes(app.clone()), stop.clone(), limits));
        doors.spawn(serve(node, Some(identities.node_config()?), http::node_routes(app.clone()), stop.clone(), limits));
        if let Some(listener) = metrics {
            doors.spawn(serve(listener, None, http::health::metrics_door(app.clone()), stop.clone(), limits));
        }
        doors.close();
        let (loops, stop_loops) = (TaskTracker::new(), CancellationToken::new());
        reconcile::driver::start(&app, &loops, &stop_loops);
        let until_stopped = stop_loops.clone();
        let renewing = tls::keep_renewed(identities, app.ca.clone(), app.clock.clone());
        loops.spawn(async move { until_stopped.run_until_cancelled_owned(renewing).await });
        let until_stopped = stop_loops.clone();
        loops.spawn(async move { until_stopped.run_until_cancelled_owned(upkeep()).await });
        let (until_stopped, kept) = (stop_loops.clone(), history::keep(app.clone()));
        loops.spawn(async move { until_stopped.run_until_cancelled_owned(kept).await });
        let (until_stopped, following) = (stop_loops.clone(), app.clone());
        loops.spawn(
            async move { until_stopped.run_until_cancelled_owned(following.keep_repository()).await.unwrap_or(()) },
        );
        loops.close();

        stop.cancelled().await;
        tracing::info!("stopping: the doors close");
        // Waiting calls and streams end early, so that draining is short.
        app.closing.cancel();
        doors.wait().await;
        stop_loops.cancel();
        if tokio::time::timeout(DRAIN, loops.wait()).await.is_err() {
            tracing::warn!("a reconcile loop did not end in time; the next start finishes its work");
        }
        app.store.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Keeps the memory of histograms bounded while nobody reads the metrics.
async fn upkeep() {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        telemetry::metrics().run_upkeep();
    }
}
