//! How long a read may wait for bytes that no node gives: at most `read_deadline`, whatever keeps them away (I10). The limit
//! holds for the system call of a program, also where the kernel sends more than one request for it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    convert::Infallible,
    fs::File,
    io,
    net::SocketAddr,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, RwLock, RwLockWriteGuard},
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use muster_agent::fuse;
use muster_pool::{
    ServeLimits, serve,
    tls::{ClientCertificates, server_config},
    transport::node_tls_name,
};
use rustix::io::Errno;
use storage_core::{
    ChunkSize, Compression, Kind, ObjectName, Record, Salt,
    store::{ChunkStore, MemoryStore, StoreError},
};
use tokio::net::TcpListener;

use super::world::*;
use crate::{pass_on::pass_on, support::TestCluster};

const CHUNK: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(3);
/// What a reply may take after the deadline, on a busy machine.
const SLACK: Duration = Duration::from_millis(700);

/// A node with one disk whose bytes another node should give, which has the address `peer`.
async fn node_with(cluster: &TestCluster, image: &[u8], peer: Option<SocketAddr>) -> (Node, PathBuf) {
    let node = &cluster.nodes[0];
    if let Some(peer) = peer {
        let mut membership = cluster.membership.clone();
        membership.epoch += 1;
        membership.members[1].address = peer.to_string();
        node.pool.set_membership(membership);
    }
    let data = DataDir::new();
    let mut config = config(&data);
    config.read_deadline = DEADLINE;
    let disks = fuse::open_disks(config, node.pool.clone(), data.holder()).await.unwrap();
    let want = import(&MemoryStore::new(), image, ChunkSize::DEFAULT);
    let path = disks.ensure(&want).await.unwrap().path;
    (Node { disks, _data: data }, path)
}

/// Unmounts before the folder goes.
struct Node {
    disks: Arc<muster_agent::mirror::Disks>,
    _data: DataDir,
}

/// Its first chunk is empty, so that the first read of the disk, which mounting waits for, asks nobody.
fn image() -> Vec<u8> {
    let mut image = Rng(11).bytes(4 * CHUNK);
    image[..CHUNK].fill(0);
    image
}

fn timed(call: impl FnOnce() -> io::Result<()>) -> (Duration, Option<Errno>) {
    let begun = Instant::now();
    let failed = call().err().map(|error| Errno::from_io_error(&error).unwrap());
    (begun.elapsed(), failed)
}

/// Each kind of request that needs a chunk fails in time, and not much too early either.
async fn everything_fails_in_time(path: &Path) {
    let open = |direct: bool| {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        File::options().read(true).write(true).custom_flags(flags).open(path).unwrap()
    };
    let (buffered, direct, part) = (open(false), open(true), open(false));
    let chunk = |n: usize| u64::try_from(n * CHUNK).unwrap();
    type Call = Box<dyn FnOnce() -> io::Result<()> + Send>;
    let calls: [(&str, Call); 3] = [
        // The kernel reads ahead, and when that has failed it asks for the page alone.
        ("buffered read", Box::new(move || buffered.read_exact_at(&mut [0; 4096], chunk(1)))),
        ("direct read", Box::new(move || read_direct(&direct, chunk(2)))),
        ("write of a part of a block", Box::new(move || part.write_all_at(&[1; 100], chunk(3) + 7))),
    ];
    let waiting = calls.map(|(what, call)| (what, tokio::task::spawn_blocking(move || timed(call))));
    for (what, call) in waiting {
        let (took, failed) = call.await.unwrap();
        assert_eq!(failed, Some(Errno::IO), "{what}");
        assert!(took <= DEADLINE + SLACK, "{what} took {took:?}, {DEADLINE:?} are promised");
        assert!(took >= DEADLINE / 2, "{what} was given up after {took:?} already");
    }
}

fn read_direct(file: &File, offset: u64) -> io::Result<()> {
    let mut space = vec![0_u8; 8192];
    let at = space.as_ptr().align_offset(4096);
    file.read_exact_at(&mut space[at..at + 4096], offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_keeps_no_request_beyond_its_deadline() {
    let cluster = TestCluster::of_memory(2).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (node, path) = node_with(&cluster, &image(), Some(silent.local_addr().unwrap())).await;
    everything_fails_in_time(&path).await;
    node.disks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_refuses_connections_keeps_no_request_beyond_its_deadline() {
    let cluster = TestCluster::of_memory(2).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (node, path) = node_with(&cluster, &image(), Some(closed)).await;
    everything_fails_in_time(&path).await;
    node.disks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gives_byte_after_byte_keeps_no_request_beyond_its_deadline() {
    let cluster = TestCluster::of_memory(2).await;
    let image = image();
    let record = Record::encode(
        Kind::Chunk,
        Salt::SHARED,
        Some(ChunkSize::DEFAULT),
        &image[CHUNK..2 * CHUNK],
        Compression::Auto,
    );
    let bytes = Bytes::from(record.to_bytes());
    let trickle = Router::new().fallback(move || {
        let bytes = bytes.clone();
        let pieces = stream::iter(0..bytes.len()).then(move |at| {
            let piece = bytes.slice(at..=at);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, Infallible>(piece)
            }
        });
        async move { Body::from_stream(pieces) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = &cluster.nodes[1];
    let tls = server_config(&peer.identity, &cluster.ca.ca(), ClientCertificates::Current).unwrap();
    let limits = ServeLimits { drain: Duration::from_millis(50), ..ServeLimits::default() };
    tokio::spawn(serve(listener, Some(tls), trickle, peer.stop.clone(), limits));
    let (node, path) = node_with(&cluster, &image, Some(address)).await;
    everything_fails_in_time(&path).await;
    node.disks.shutdown().await;
}

/// A store on a disk that does not answer while the test holds it.
#[derive(Debug)]
struct StuckStore {
    inside: MemoryStore,
    gate: Arc<RwLock<()>>,
}

impl StuckStore {
    fn wait(&self) {
        drop(self.gate.read());
    }
}

impl ChunkStore for StuckStore {
    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.wait();
        self.inside.get(name)
    }
    pass_on!(inside: put touch remove sync find list take_bad_copies usage);
}

fn stuck(gate: &Arc<RwLock<()>>) -> Arc<dyn ChunkStore> {
    Arc::new(StuckStore { inside: MemoryStore::new(), gate: gate.clone() })
}

fn memory() -> Arc<dyn ChunkStore> {
    Arc::new(MemoryStore::new())
}

/// Whatever thread holds the gate: it opens when the test ends.
struct Shut(Option<std::sync::mpsc::Sender<()>>);

impl Shut {
    fn new(gate: &Arc<RwLock<()>>) -> Self {
        let (open, opened) = std::sync::mpsc::channel();
        let (shut, is_shut) = std::sync::mpsc::channel();
        let gate = gate.clone();
        std::thread::spawn(move || {
            let _held: RwLockWriteGuard<'_, ()> = gate.write().unwrap();
            shut.send(()).unwrap();
            let _dropped = opened.recv();
        });
        is_shut.recv().unwrap();
        Self(Some(open))
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.take();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_does_not_answer_keeps_no_request_beyond_its_deadline() {
    let gate = Arc::default();
    let cluster = TestCluster::new(vec![memory(), stuck(&gate)]).await;
    let _shut = Shut::new(&gate);
    let (node, path) = node_with(&cluster, &image(), None).await;
    everything_fails_in_time(&path).await;
    node.disks.shutdown().await;
}

/// The node's own share of the pool is one source of several (I11).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_pool_that_does_not_answer_keeps_no_request_beyond_its_deadline_and_others_are_asked() {
    let gate = Arc::default();
    let cluster = TestCluster::new(vec![stuck(&gate), memory()]).await;
    let _shut = Shut::new(&gate);
    let image = image();
    let (node, path) = node_with(&cluster, &image, None).await;
    everything_fails_in_time(&path).await;
    // Another node has them now.
    import(&*cluster.nodes[1].store, &image, ChunkSize::DEFAULT);
    let read = path.clone();
    let (took, bytes) = blocking(move || {
        let begun = Instant::now();
        let file = File::open(read).unwrap();
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, CHUNK as u64).unwrap();
        (begun.elapsed(), bytes)
    })
    .await;
    assert_eq!(bytes, image[CHUNK..CHUNK + 4096]);
    assert!(took < DEADLINE, "{took:?}");
    node.disks.shutdown().await;
}

/// Readers of one chunk share its fetch. The one that came first must not take the others along when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_joins_another_one_keeps_its_own_deadline() {
    let cluster = TestCluster::of_memory(2).await;
    let image = image();
    let (node, path) = node_with(&cluster, &image, None).await;
    let read = |offset: u64| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
            timed(|| read_direct(&file, offset))
        })
    };
    let first = read(CHUNK as u64);
    tokio::time::sleep(DEADLINE / 2).await;
    let second = read(CHUNK as u64 + (128 << 10));
    assert_eq!(first.await.unwrap().1, Some(Errno::IO));
    import(&*cluster.nodes[1].store, &image, ChunkSize::DEFAULT);
    let (took, failed) = second.await.unwrap();
    assert_eq!(failed, None, "it was given up after {took:?}");
    node.disks.shutdown().await;
}

/// Whoever waits for bytes of other nodes while a clock is wrong goes on when it is right, and is told why it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_says_that_a_clock_is_wrong_and_goes_on_when_it_is_right() {
    let cluster = TestCluster::of_memory(2).await;
    let image = image();
    import(&*cluster.nodes[1].store, &image, ChunkSize::DEFAULT);
    // As if this node's clock were behind by this much.
    let behind = DEADLINE + Duration::from_secs(3);
    let right_at = Instant::now() + behind;
    let peer = &cluster.nodes[1];
    let from_s = i64::try_from(behind.as_secs()).unwrap();
    let identity = cluster.ca.identity_valid(&node_tls_name(peer.member.node), from_s, 86_400);
    let (address, _stop) = cluster.open_beside(1, &identity).await;
    let (node, path) = node_with(&cluster, &image, Some(address)).await;
    let read = |path: PathBuf| {
        blocking(move || {
            let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
            timed(|| read_direct(&file, CHUNK as u64))
        })
    };
    let disk = node.disks.list().remove(0);
    assert_eq!(disk.clock_off, None);
    let (took, failed) = read(path.clone()).await;
    assert!(failed == Some(Errno::IO) && took <= DEADLINE + SLACK, "{failed:?} after {took:?}");
    let why = node.disks.status(disk.disk).unwrap().clock_off.unwrap();
    assert!(why.contains("the certificate of node node-1 is valid only in"), "{why}");
    assert!(cluster.nodes[0].pool.clock_trouble().unwrap().here);
    // The clock is right again. Nobody has to ask for that to be seen.
    eventually("the clock is right", behind, || node.disks.status(disk.disk).unwrap().clock_off.is_none()).await;
    assert!(Instant::now() + Duration::from_secs(1) >= right_at, "it was not right yet");
    assert_eq!(read(path).await.1, None);
    node.disks.shutdown().await;
}

/// "Ready" is said of a disk that was read through its mount, and its path is there before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_mounted_once_a_read_through_its_mount_was_served() {
    let cluster = TestCluster::of_memory(2).await;
    let data = DataDir::new();
    let mut config = config(&data);
    config.read_deadline = DEADLINE;
    let disks = fuse::open_disks(config, cluster.nodes[0].pool.clone(), data.holder()).await.unwrap();
    let image = Rng(12).bytes(CHUNK);
    let want = import(&MemoryStore::new(), &image, ChunkSize::DEFAULT);
    let refused = disks.ensure(&want).await.unwrap_err();
    let said = storage_core::cause::explain(&refused);
    assert!(said.contains("the first read of") && said.contains("Input/output error"), "{said}");
    let status = disks.status(want.disk).unwrap();
    assert!(!status.mounted, "nothing was read yet");
    assert!(std::fs::metadata(&status.path).unwrap().is_file(), "it is served all the same");
    import(&*cluster.nodes[1].store, &image, ChunkSize::DEFAULT);
    assert!(disks.ensure(&want).await.unwrap().mounted);
    disks.shutdown().await;
    assert!(!disks.status(want.disk).unwrap().mounted);
}

/// A disk whose first read waits for another node can be removed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_first_read_waits_can_be_removed() {
    let cluster = TestCluster::of_memory(2).await;
    let data = DataDir::new();
    let disks = fuse::open_disks(config(&data), cluster.nodes[0].pool.clone(), data.holder()).await.unwrap();
    let want = import(&MemoryStore::new(), &Rng(13).bytes(CHUNK), ChunkSize::DEFAULT);
    let (ensuring, wanted) = (disks.clone(), want.clone());
    let ensured = tokio::spawn(async move { ensuring.ensure(&wanted).await });
    let used = || disks.status(want.disk).is_some_and(|status| status.used_bytes > 0);
    eventually("the first read", Duration::from_secs(5), used).await;
    let begun = Instant::now();
    disks.remove(want.disk).await.unwrap();
    assert!(begun.elapsed() < DEADLINE, "it took {:?}", begun.elapsed());
    assert!(ensured.await.unwrap().is_err());
    disks.shutdown().await;
}
