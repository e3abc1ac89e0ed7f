//! The nodes of a simulated cluster: what of each outlives its process, and the processes. All that runs in a process is
//! the real thing, except that disks are not mounted and that the pool's files are in memory ([`SimDisk`]).

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::Router;
use muster_agent::{
    data_disk::{DataDisk, Reserves},
    helper::HelperProgram,
    holder::Holder,
    mirror::{Config, Disks},
    peer::{
        repair::{Asked, Repair, RepairParts},
        share::PoolShare,
    },
    sweep::Sweeper,
};
use muster_api::{ClusterId, NodeId, StoreId};
use muster_pool::{
    PoolClient, PoolLimits, Repository, ServeLimits,
    repository::testing::TestStore,
    serve, server,
    tls::{ClientCertificates, Identity, server_config},
    transport::node_tls_name,
};
use storage_core::{
    ObjectName, SegmentStore,
    membership::{Client, Member, Membership},
    power::Random,
    repository::{RepositorySettings, WriteMode},
    store::{ChunkStore, Options, SimDisk},
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    door::Door,
    folder,
    support::{self, TestCa},
};

/// Bytes of the cache of each node: few enough that chunks are fetched again and again.
const CACHE_BYTES: u64 = 6 * (64 << 10);
/// Bytes of memory for objects of its own share: so few that they are decoded again and again, and cached then.
pub(crate) const MEMORY_BYTES: u64 = 3 * (64 << 10);

/// What of a node is there whether it runs or not.
pub(crate) struct Node {
    /// Its place in [`Cluster::nodes`].
    pub(crate) number: usize,
    pub(crate) member: Member,
    /// None while it is off.
    pub(crate) process: Option<Process>,
    /// Whether bits of its pool rotted since all of it was read.
    pub(crate) is_tainted: bool,
    /// Whether its pool ever lost something.
    pub(crate) was_harmed: bool,
    /// Whether the disk with its pool is full, or about to be.
    pub(crate) is_full: bool,
    /// The folder of its pool.
    pub(crate) pool_disk: SimDisk,
    identity: Identity,
    data: tempfile::TempDir,
}

/// What ends when a node is killed.
pub(crate) struct Process {
    pub(crate) share: Arc<PoolShare>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) repair: Repair,
    pub(crate) sweeper: Arc<Sweeper>,
    pool: PoolClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// How the process of a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// What it wrote is there.
    Kill,
    /// Its pool has what was synced, and whatever else the seed decides.
    PowerCut(u64),
}

impl Node {
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    fn socket(&self) -> PathBuf {
        self.data.path().join("holder.sock")
    }

    /// Its process; it has to be on.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("node {} is on", self.number))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its own store, as its index says, has an object. It has to be on.
    pub(crate) fn holds(&self, name: &ObjectName) -> Option<u64> {
        self.process().share.find(name).expect("the index answers").map(|here| here.round)
    }
}

/// What not all clusters have.
#[derive(Default)]
pub(crate) struct Extras {
    /// Bytes of memory of each node for objects of its own share.
    pub(crate) memory_bytes: u64,
    pub(crate) repository: Option<TestStore>,
}

/// The nodes, their membership record, and the controller's client.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) membership: Membership,
    pub(crate) client: PoolClient,
    /// The repository of the pool, written through; most clusters have none.
    pub(crate) repository: Option<TestStore>,
    ca: TestCa,
    door: Arc<Door>,
    /// Bytes of memory of each node for objects of its own share.
    memory_bytes: u64,
    /// Folders that nodes had.
    kept: Vec<tempfile::TempDir>,
}

/// Each node has an address of its own, so that no other program takes its port while it is off.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = ((std::process::id() % 0x4000) << 8) | (NEXT.fetch_add(1, Ordering::Relaxed) % 0xfe);
    Ipv4Addr::from(0x7f40_0001 + number)
}

fn limits() -> PoolLimits {
    PoolLimits {
        hedge_get: Duration::from_secs(5),
        hedge_put: Duration::from_secs(10),
        silence: Duration::from_secs(20),
        patience_put: Duration::from_secs(30),
        ..PoolLimits::default()
    }
}

/// Segments and an index that change often.
fn options() -> Options {
    Options { limit_bytes: None, segment_bytes: 300_000, index_after_bytes: 200_000, index_after_objects: 40 }
}

impl Cluster {
    pub(crate) async fn new(nodes: usize, random: &mut Random, door: Arc<Door>, extras: Extras) -> Self {
        let ca = TestCa::new();
        let controller = ca.controller();
        let key_sha256 = controller.key_sha256().expect("fingerprint");
        let membership = Membership {
            cluster: ca.cluster,
            epoch: 1,
            min_copies: 2,
            members: Vec::new(),
            clients: vec![Client { name: "controller".to_owned(), key_sha256, salvages: false }],
        };
        let client =
            PoolClient::with_limits(&controller, &ca.ca(), membership.clone(), None, limits()).expect("client");
        let Extras { memory_bytes, repository } = extras;
        client.set_repository(repository.as_ref().map(opened));
        let kept = Vec::new();
        let mut cluster = Self { nodes: Vec::new(), membership, client, repository, ca, door, memory_bytes, kept };
        for _ in 0..nodes {
            cluster.add(random).await;
        }
        cluster.admit(&(0..nodes).collect::<Vec<_>>());
        cluster
    }

    /// A new node, which is no member yet.
    pub(crate) async fn add(&mut self, random: &mut Random) -> usize {
        let number = self.nodes.len();
        let node = NodeId::from(uuid(random));
        let identity = self.ca.identity(&node_tls_name(node));
        let listener = TcpListener::bind((own_address(), 0)).await.expect("listen");
        let member = Member {
            node,
            name: format!("node-{number}"),
            store: StoreId::from(uuid(random)),
            address: listener.local_addr().expect("address").to_string(),
            zone: None,
            weight: 100,
            accepting: true,
            key_sha256: identity.key_sha256().expect("fingerprint"),
        };
        let data = new_folder().await;
        let pool_disk = SimDisk::new();
        let (process, is_tainted, was_harmed, is_full) = (None, false, false, false);
        let mut node = Node { number, member, process, is_tainted, was_harmed, is_full, pool_disk, identity, data };
        node.process = Some(self.start_on(&node, listener).await);
        self.nodes.push(node);
        number
    }

    /// The members of the record that follows.
    pub(crate) fn admit(&mut self, numbers: &[usize]) {
        let mut members: Vec<Member> = numbers.iter().map(|n| self.nodes[*n].member.clone()).collect();
        members.sort_by_key(|member| member.node);
        self.membership = Membership { epoch: self.membership.epoch + 1, members, ..self.membership.clone() };
        for client in self.clients() {
            client.set_membership(self.membership.clone());
        }
    }

    /// All nodes have handed over what they do not own: nobody looks any more where older epochs had it.
    pub(crate) fn close_epochs(&self) {
        for client in self.clients() {
            client.close_epochs_before(self.membership.epoch);
        }
    }

    fn clients(&self) -> impl Iterator<Item = &PoolClient> {
        let of_nodes = self.nodes.iter().filter_map(|node| Some(&node.process.as_ref()?.pool));
        of_nodes.chain([&self.client])
    }

    /// Whether a member is to own objects.
    pub(crate) fn set_accepting(&mut self, number: usize, accepting: bool) {
        self.nodes[number].member.accepting = accepting;
        self.admit(&self.members());
    }

    /// Members that own objects.
    pub(crate) fn owning(&self) -> Vec<usize> {
        self.members().into_iter().filter(|n| self.nodes[*n].member.owns_objects()).collect()
    }

    /// The numbers of the members.
    pub(crate) fn members(&self) -> Vec<usize> {
        let is_member = |node: &&Node| self.membership.members.iter().any(|m| m.node == node.member.node);
        self.nodes.iter().filter(is_member).map(|node| node.number).collect()
    }

    /// Members that are on.
    pub(crate) fn on(&self) -> Vec<usize> {
        self.members().into_iter().filter(|n| self.nodes[*n].is_on()).collect()
    }

    /// Members that are on, own objects, and have room for more.
    pub(crate) fn with_room(&self) -> Vec<usize> {
        self.owning().into_iter().filter(|n| self.nodes[*n].is_on() && !self.nodes[*n].is_full).collect()
    }

    /// Whether there are enough nodes for the copies that are wanted. Else what does not belong on a node stays there.
    pub(crate) fn can_settle(&self) -> bool {
        self.owning().len() >= self.members().len().min(2) && self.full().is_empty()
    }

    /// Nodes whose pool's disk is full.
    pub(crate) fn full(&self) -> Vec<usize> {
        self.nodes.iter().filter(|node| node.is_full).map(|node| node.number).collect()
    }

    /// From now on a node's pool has room for so many more bytes; none: for as many as come.
    pub(crate) fn set_room(&mut self, number: usize, bytes: Option<u64>) {
        let node = &mut self.nodes[number];
        node.is_full = bytes.is_some();
        node.pool_disk.set_room(bytes.map(|bytes| node.pool_disk.used() + bytes));
    }

    /// Members that are on and whose copies are good.
    pub(crate) fn good(&self) -> Vec<usize> {
        self.on().into_iter().filter(|n| !self.nodes[*n].is_tainted).collect()
    }

    /// Reads these objects from the pool, so that those that no node has come back from the repository, until nodes have all.
    pub(crate) async fn bring_back(&self, names: &BTreeSet<ObjectName>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let on = self.on();
        let is_absent = |name: &ObjectName| on.iter().all(|n| self.nodes[*n].holds(name).is_none());
        loop {
            let absent: Vec<ObjectName> = names.iter().copied().filter(is_absent).collect();
            if absent.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{} objects do not come back from the repository", absent.len());
            for part in absent.chunks(8) {
                let pool = &self.nodes[on[0]].process().pool;
                pool.get(part, Instant::now() + Duration::from_secs(20)).await.expect("the repository has all");
            }
            // What was given is put back beside this.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends a process at once.
    pub(crate) async fn kill(&mut self, number: usize, death: Death) {
        let node = &mut self.nodes[number];
        let mut process = node.process.take().expect("it is on");
        process.stop.cancel();
        process.tasks.abort_all();
        while process.tasks.join_next().await.is_some() {}
        node.pool_disk.stop_after(0);
        node.pool_disk = match death {
            Death::Kill => node.pool_disk.after_kill(),
            Death::PowerCut(seed) => node.pool_disk.after_power_cut(seed),
        };
    }

    pub(crate) async fn start(&mut self, number: usize) {
        let address: SocketAddr = self.nodes[number].member.address.parse().expect("an address");
        let listener = TcpListener::bind(address).await.expect("nobody else has this address");
        let process = self.start_on(&self.nodes[number], listener).await;
        self.nodes[number].process = Some(process);
    }

    /// The host of a node that is off starts anew: the live maps are gone. Its files are a copy of a folder, and this pool. Returns
    /// where the copy is.
    pub(crate) async fn reboot(&mut self, number: usize, folder: &Path, pool_disk: SimDisk) -> PathBuf {
        let data = new_folder().await;
        copy_folder(folder, data.path());
        let node = &mut self.nodes[number];
        assert!(node.process.is_none(), "node {number} is on");
        let before = std::mem::replace(&mut node.data, data);
        if before.path() == folder {
            // It is copied again.
            self.kept.push(before);
        }
        node.pool_disk = pool_disk;
        self.nodes[number].folder().to_owned()
    }

    async fn start_on(&self, node: &Node, listener: TcpListener) -> Process {
        let store = SegmentStore::open_on(Arc::new(node.pool_disk.clone()), options()).expect("opens");
        let data = node.data.path().to_owned();
        let disk = Arc::new(DataDisk::new(data.clone(), Reserves::default()));
        let share = Arc::new(PoolShare::new(Arc::new(store), disk));
        let chunks: Arc<dyn ChunkStore> = share.clone();
        let local = Some((node.member.store, chunks.clone()));
        let pool = PoolClient::with_limits(&node.identity, &self.ca.ca(), self.membership.clone(), local, limits())
            .expect("client");
        pool.set_repository(self.repository.as_ref().map(opened));
        // Nobody starts a helper: the holder listens already.
        let none = HelperProgram { program: "/nonexistent".into(), args: Vec::new() };
        let holder = Holder::new(node.socket(), none);
        let mut config = Config::new(data.clone(), ClusterId::from(uuid(&mut Random(1))), node.member.node);
        config.keep_free_bytes = 0;
        config.cache_bytes_max = CACHE_BYTES;
        config.memory_bytes_max = self.memory_bytes;
        let disks = Disks::open_bare(config, pool.clone(), holder).await.expect("opens");
        let repair = Repair::new(RepairParts {
            pool: pool.clone(),
            chunks: chunks.clone(),
            losses: share.losses().clone(),
            asked: Arc::new(Asked::default()),
            bytes_per_s: 1 << 40,
        });
        let controller = Arc::new(self.door.clone().of_node(node.number));
        let sweeper = Arc::new(Sweeper::new(controller, share.clone(), &data));
        let stop = CancellationToken::new();
        let tls = server_config(&node.identity, &self.ca.ca(), ClientCertificates::Current).expect("TLS");
        let limits = ServeLimits { drain: Duration::ZERO, ..ServeLimits::default() };
        let router = server::routes(pool.clone(), chunks, Router::new());
        let mut tasks = JoinSet::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            serve(listener, Some(tls), router, stopped, limits).await;
        });
        let sweeps = sweeper.clone();
        tasks.spawn(async move { sweeps.run().await });
        Process { share, disks, repair, sweeper, pool, stop, tasks }
    }
}

/// The repository as a client of the pool has it.
fn opened(store: &TestStore) -> Arc<Repository> {
    let settings = RepositorySettings { write: WriteMode::Through, ..store.settings() };
    let repository = Repository::open(settings).expect("a client");
    repository.assume_claimed();
    Arc::new(repository)
}

/// A data folder, with a holder that ends when its socket is gone.
async fn new_folder() -> tempfile::TempDir {
    let data = folder::make();
    let socket = data.path().join("holder.sock");
    let listens = socket.clone();
    std::thread::spawn(move || muster_agent::holder::main(&socket));
    support::eventually("the holder listens", || std::os::unix::net::UnixStream::connect(&listens).is_ok()).await;
    data
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("lists");
        let (to, kind) = (to.join(entry.file_name()), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            std::fs::create_dir(&to).expect("makes a folder");
            copy_folder(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.nodes.iter().filter_map(|node| node.process.as_ref()) {
            process.stop.cancel();
        }
        for node in &self.nodes {
            let _its_thread_ends = std::fs::remove_file(node.socket());
        }
    }
}

/// An id that the seed decides: placement follows from it.
pub(crate) fn uuid(random: &mut Random) -> uuid::Uuid {
    uuid::Uuid::from_u128((u128::from(random.next_u64()) << 64) | u128::from(random.next_u64()))
}
