//! How an agent starts: everything up to its first task.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use muster_api::{
    ErrorCode,
    node_protocol::{Offer, RunStart},
};
use muster_pool::PoolClient;
use storage_core::{
    Backoff,
    membership::Membership,
    store::{ChunkStore, SegmentStore},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    Agent, AgentError,
    loops::{Loops, Standing},
    unexplained::Strays,
    unlisted::Unlisted,
};
use crate::{
    check::{self, DataLock},
    config::Config,
    controller::{ControllerClient, ControllerError, HttpController},
    cuts::Freezes,
    data_disk::{DataDisk, Reserves, Space},
    desired::{DesiredFile, Known},
    fenced,
    host::{Host, HostError, HostParts},
    identity::{Candidate, NodeIdentity},
    mirror::is_no_space,
    peer::{
        repair::{Asked, Repair, RepairParts},
        repository::{Keeper, KeeperParts, KeeperWaits},
        scrub::Scrubber,
        share::PoolShare,
    },
    real_host,
    run::{Run, RunError},
    sweep::Sweeper,
};

/// How long a start asks a controller that does not answer, before it goes on alone.
const REGISTER_WAIT: Duration = Duration::from_secs(5);

/// What all ways to build an agent begin with.
struct Joined {
    config: Arc<Config>,
    lock: DataLock,
    run: Run,
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
    /// When something it needs is missing or broken, or the controller refuses it.
    pub async fn build(config: Config) -> Result<Self, AgentError> {
        let joined = join(config).await?;
        let Joined { identity, run, .. } = &joined;
        let controller = HttpController::new(&identity.tls, &identity.ca, &identity.node_door(), run.id())?;
        Self::assemble(joined, Arc::new(controller), real_host::open).await
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
        host: impl AsyncFnOnce(HostParts) -> Result<Arc<dyn Host>, HostError>,
    ) -> Result<Self, AgentError> {
        let Joined { config, lock, run, identity, listener, advertise, offer } = joined;
        let data_dir = &config.data_dir;
        let desired_file = DesiredFile::new(data_dir);
        let known = desired_file
            .load(&identity.ca, identity.joined.cluster)
            .unwrap_or_else(|| Known::nothing(identity.joined.incarnation));
        let fenced = fenced::load(data_dir);
        let unlisted = Unlisted::default();
        // Before anything of the disks is touched. An agent whose node was declared dead asks nobody any more.
        let registered = match fenced {
            Some(_) => false,
            None => {
                let start = run.start(known.desired.incarnation, &advertise);
                register(controller.as_ref(), &run, &start, &unlisted, (&identity, &config, offer)).await?
            }
        };
        let space = Space::of(data_dir).map_err(|e| data_dir_error("ask for the space of", data_dir, e))?;
        let disk = Arc::new(DataDisk::new(data_dir.clone(), config.reserves(space.total_bytes)));
        let pool_limit_bytes = config.pool_size.of(space.total_bytes);
        let store = open_store(data_dir.join("pool"), pool_limit_bytes).await?;
        let share = Arc::new(PoolShare::new(store, disk.clone()));
        let scrubber = Scrubber::new(share.clone(), data_dir, config.scrub_every, config.scrub_bytes_per_s);
        let standing = fenced.map_or_else(Standing::default, |word| Standing::Fenced(Arc::new(word)));
        let pool = pool_client(&identity, &known, share.clone())?;
        let keeper = Arc::new(Keeper::open(KeeperParts {
            pool: pool.clone(),
            share: share.clone(),
            controller: controller.clone(),
            data_dir: data_dir.clone(),
            waits: KeeperWaits::default(),
        }));
        let sweeper = Sweeper::new(controller.clone(), share.clone(), data_dir).with_keeper(keeper.clone());
        let repair_asked = Arc::new(Asked::default());
        let repair = Repair::new(RepairParts {
            pool: pool.clone(),
            chunks: share.clone(),
            losses: share.losses().clone(),
            asked: repair_asked.clone(),
            bytes_per_s: config.repair_bytes_per_s,
        });
        let host = host(HostParts {
            run: run.id(),
            config: config.clone(),
            identity: identity.clone(),
            advertise: advertise.clone(),
            pool: pool.clone(),
            disk: disk.clone(),
            cache_bytes_max: config.cache_size.of(space.total_bytes),
        })
        .await?;
        let frozen = data_dir.join("frozen");
        let freezes = Freezes::open(frozen.clone(), host.machines()).map_err(|e| data_dir_error("read", &frozen, e))?;
        let loops = Arc::new(Loops {
            config,
            identity,
            advertise,
            offer,
            sweeper,
            scrubber,
            strays: Strays::default(),
            keeper,
            share,
            disk,
            pool_limit_bytes,
            pool,
            repair,
            repair_asked,
            host,
            freezes,
            controller,
            known: watch::Sender::new(Arc::new(known)),
            desired_file,
            refetch: Notify::new(),
            passed: watch::Sender::default(),
            report_all: Notify::new(),
            contact: Mutex::default(),
            run,
            registered: AtomicBool::new(registered),
            superseded: watch::Sender::new(None),
            unlisted,
            standing: watch::Sender::new(standing),
        });
        Ok(Self { loops, lock, listener, metrics: None })
    }
}

/// The client of the pool, with the membership known from disk. Before the first record it has no members.
fn pool_client(identity: &NodeIdentity, known: &Known, share: Arc<dyn ChunkStore>) -> Result<PoolClient, AgentError> {
    let membership = known.membership.clone().unwrap_or_else(|| Membership {
        cluster: identity.joined.cluster,
        epoch: 0,
        min_copies: 1,
        members: Vec::new(),
        clients: Vec::new(),
    });
    Ok(PoolClient::new(&identity.tls, &identity.ca, membership, Some((identity.store, share)))?)
}

fn data_dir_error(op: &'static str, path: &Path, source: io::Error) -> AgentError {
    AgentError::DataDir { op, path: path.to_owned(), source }
}

async fn open_store(dir: PathBuf, limit_bytes: u64) -> Result<Arc<dyn ChunkStore>, AgentError> {
    // Blocking: opening scans what was written since the index's watermark.
    let opened = tokio::task::spawn_blocking(move || {
        let options = storage_core::store::Options { limit_bytes: Some(limit_bytes), ..Default::default() };
        SegmentStore::open(&dir, options)
    });
    match opened.await {
        Ok(store) => {
            let store = store?;
            let opened = store.opened();
            if opened.damaged_bytes > 0 || opened.damaged_segments > 0 {
                warn!(?opened, "the files of the pool were damaged: what is whole in them was found again");
            } else if opened.rebuilt {
                // Also after a kill before the index was synced for the first time.
                info!(?opened, "the index of the pool was made anew from its segments");
            } else {
                debug!(?opened, "the pool is open");
            }
            Ok(Arc::new(store))
        }
        Err(error) => Err(AgentError::Task { task: "opening the pool", detail: error.to_string() }),
    }
}

/// Takes the data folder and the address, and joins unless this node has joined before.
async fn join(config: Config) -> Result<Joined, AgentError> {
    let config = Arc::new(config);
    let lock = take_data_dir(&config.data_dir)?;
    // An agent can be started on a full disk, too: only it can empty it.
    let disk = DataDisk::new(config.data_dir.clone(), Reserves::default());
    let boot = real_host::host_boot()?;
    let is_full = |error: &RunError| matches!(error, RunError::File { source, .. } if is_no_space(source));
    let run = disk.while_full(is_full, || Run::begin(&config.data_dir, &boot, config.adopt))?;
    let (listener, bound) = listen(config.listen).await?;
    let advertise = config.advertise.unwrap_or(bound).to_string();
    let offer = check::offer(&config);
    let identity = identity(&config, &advertise, offer).await?;
    Ok(Joined { config, lock, run, identity, listener, advertise, offer })
}

/// Asks the controller to let this run act as the node. Returns false if it cannot be asked now and the agent may begin
/// alone; the heartbeats ask again then.
async fn register(
    controller: &dyn ControllerClient,
    run: &Run,
    start: &RunStart,
    unlisted: &Unlisted,
    (identity, config, offer): (&NodeIdentity, &Config, Offer),
) -> Result<bool, AgentError> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
    let give_up = Instant::now() + REGISTER_WAIT;
    loop {
        match controller.start_run(start.clone()).await {
            Ok(()) => {
                note_accepted(run);
                return Ok(true);
            }
            Err(ControllerError::Refused(problem)) if problem.code == ErrorCode::Superseded => {
                return Err(AgentError::Superseded(problem.detail));
            }
            Err(error) if unlisted.heed(&error, identity, config, (&start.advertise, offer)).await => {}
            Err(error) if run.may_begin_alone() && Instant::now() >= give_up => {
                warn!(%error, "the controller cannot be asked whether this agent may work; it begins with what it knows");
                return Ok(false);
            }
            Err(error) => {
                debug!(%error, "the start is registered again");
                sleep(backoff.pause()).await;
            }
        }
    }
}

/// Writes down that the controller accepted the run.
pub(super) fn note_accepted(run: &Run) {
    if let Err(error) = run.note_accepted() {
        warn!(%error, "run.json could not be written; the next start also names older runs");
    }
}

/// Makes the folders that are missing and takes the lock that keeps a second agent away.
fn take_data_dir(data_dir: &Path) -> Result<DataLock, AgentError> {
    // Others may pass but not list: QEMU's user must reach the disk files below it.
    for dir in [data_dir.to_owned(), data_dir.join("disks"), data_dir.join("console")] {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o711).recursive(true).create(&dir).map_err(|e| data_dir_error("make", &dir, e))?;
    }
    DataLock::take(data_dir).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => AgentError::Locked(data_dir.to_owned()),
        _ => data_dir_error("lock", data_dir, e),
    })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AgentError> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listening.await.map_err(|source| AgentError::Listen { address, source })
}

/// The identity of this node, from disk or by joining. Asks until the controller answers.
async fn identity(config: &Config, advertise: &str, offer: Offer) -> Result<NodeIdentity, AgentError> {
    let mut candidate = Candidate::open(&config.data_dir)?;
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        if let Some(identity) = candidate.identity(config)? {
            return Ok(identity);
        }
        match candidate.join(config, advertise, offer).await {
            Ok(()) => info!(joined = ?candidate.joined(), "joined the cluster"),
            Err(error) if error.passes() => {
                warn!(%error, "joining is tried again");
                sleep(backoff.pause()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
