//! The disks of one node without a cluster: a store in memory behind the pool client, a real holder process, real mounts.
//! Dropping the values removes everything, also when a test panics.

#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_agent::{
    fuse,
    helper::HelperProgram,
    holder::Holder,
    mirror::{Config, DiskStatus, DiskWant, Disks, Saved},
};
use muster_api::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, SnapshotId, VersionId,
    node_protocol::{CutDisk, CutKey, CutMember, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Descriptor, Kind, ObjectName, Record, Salt,
    store::{ChunkStore, MemoryStore},
    tree::{self, Leaf, Lookup, Page, RunSource},
    zero::is_zero,
};

const HELPER: &str = "MUSTER_TEST_HELPER";
const HELPER_PATH: &str = "MUSTER_TEST_HELPER_PATH";
const HELPER_DISK: &str = "MUSTER_TEST_HELPER_DISK";

/// Not a test of its own: the tests start this executable again with this test as a helper process.
#[test]
fn helper_process() {
    let Some(path) = std::env::var_os(HELPER_PATH) else { return };
    match std::env::var(HELPER).expect("the name of a helper").as_str() {
        "holder" => muster_agent::holder::main(Path::new(&path)).expect("the holder ends well"),
        // The agent may have ended without a word.
        "first-reads" => drop(muster_agent::fuse::first_reads::main(Path::new(&path))),
        "show-disk" => {
            let pid = path.to_str().and_then(|pid| pid.parse().ok()).expect("the id of a process");
            let disk = std::env::var_os(HELPER_DISK).expect("a disk");
            muster_agent::fuse::view::show(pid, Path::new(&disk)).expect("it can be shown");
        }
        other => panic!("there is no helper {other}"),
    }
}

/// How to start this test executable as a helper process.
pub(crate) fn helper_program() -> HelperProgram {
    let exe = std::env::current_exe().expect("own path").into_os_string().into_string().expect("text");
    let test = "mirror::world::helper_process";
    let script =
        format!("{HELPER}=\"$1\" {HELPER_PATH}=\"$3\" {HELPER_DISK}=\"$4\" exec \"{exe}\" --exact {test} --nocapture");
    HelperProgram { program: "/bin/sh".into(), args: vec!["-c".into(), script.into(), "sh".into()] }
}

/// A data directory. Dropping it unmounts what is below, stops the holder and removes the files.
pub struct DataDir {
    pub path: PathBuf,
    _temp: Option<tempfile::TempDir>,
}

impl DataDir {
    pub fn new() -> Self {
        let base = std::env::var_os("MUSTER_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let temp = tempfile::Builder::new().prefix("muster-mirror-").tempdir_in(base).expect("temp dir");
        Self { path: temp.path().to_owned(), _temp: Some(temp) }
    }

    /// A data directory that someone else removes.
    pub fn borrowed(path: PathBuf) -> Self {
        Self { path, _temp: None }
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join("holder.sock")
    }

    pub fn holder(&self) -> Holder {
        Holder::new(self.socket(), helper_program())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self._temp.is_none() {
            return;
        }
        unmount_below(&self.path);
        if let Err(error) = self.holder().stop() {
            eprintln!("the holder did not stop: {error}");
        }
    }
}

pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let paths = text.lines().filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
    paths.filter(|path| path.starts_with(dir)).collect()
}

fn unmount_below(dir: &Path) {
    for path in mounts_below(dir).iter().rev() {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::FORCE;
        if let Err(error) = rustix::mount::unmount(path, flags) {
            eprintln!("{} stays mounted: {error}", path.display());
        }
    }
}

/// A node with its disks.
pub struct World {
    pub disks: Arc<Disks>,
    pub pool: PoolClient,
    pub store: Arc<dyn ChunkStore>,
    /// The same store, for tests that damage it.
    pub memory: Option<Arc<MemoryStore>>,
    pub config: Config,
    // The last field, so that it is dropped last.
    pub data: DataDir,
}

pub fn config(data: &DataDir) -> Config {
    // Fixed ids, so that a later process of the same test is the same node.
    let id = |n: u128| uuid::Uuid::from_u128(n);
    let mut config = Config::new(data.path.clone(), ClusterId::from(id(1)), NodeId::from(id(2)));
    config.keep_free_bytes = 0;
    // The only share of the pool is this node's own. Its objects are cached, as those of other nodes are.
    config.memory_bytes_max = 0;
    config.read_deadline = Duration::from_secs(10);
    config
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = DataDir::new();
        let mut config = config(&data);
        change(&mut config);
        let memory = Arc::new(MemoryStore::new());
        Self { memory: Some(memory.clone()), ..Self::open(data, config, memory).await }
    }

    pub async fn open(data: DataDir, config: Config, store: Arc<dyn ChunkStore>) -> Self {
        let pool = PoolClient::local_only(store.clone());
        let disks = fuse::open_disks(config.clone(), pool.clone(), data.holder()).await.expect("open");
        Self { disks, pool, store, memory: None, config, data }
    }

    /// Restarts the agent's part. The mounts end with the old one.
    pub async fn restart(self) -> Self {
        let Self { disks, store, config, data, .. } = self;
        disks.shutdown().await;
        drop(disks);
        Self::open(data, config, store).await
    }

    /// Creates the disk and mounts it.
    pub async fn ensure(&self, want: &DiskWant) -> DiskStatus {
        self.disks.ensure(want).await.expect("ensure")
    }

    /// Cuts some disks.
    pub async fn cut(&self, wants: &[&DiskWant]) -> Vec<(CommitId, CutMember)> {
        let key = CutKey::new(SnapshotId::generate(), 1);
        let cuts: Vec<CutDisk> = wants.iter().map(|want| cut_disk(want)).collect();
        self.disks.prepare(key, &cuts).await.expect("prepare");
        self.disks.hold(key, Duration::from_secs(5)).await.expect("hold");
        let members = self.disks.flip(key).await.expect("flip");
        cuts.into_iter().map(|cut| cut.commit).zip(members).collect()
    }

    pub async fn save(&self, want: &DiskWant, commit: CommitId) -> Saved {
        self.disks.save(want.disk, commit, 1).await.expect("save")
    }
}

pub fn cut_disk(want: &DiskWant) -> CutDisk {
    CutDisk { instance: want.instance, disk: want.disk, generation: want.generation, commit: CommitId::generate() }
}

/// Puts an image into the store. Returns the desired state of a new disk of this image.
pub fn import(store: &dyn ChunkStore, bytes: &[u8], chunk: ChunkSize) -> DiskWant {
    let salt = Salt::SHARED;
    let mut changes = BTreeMap::new();
    let mut records = Vec::new();
    let chunk_len = usize::try_from(chunk.bytes()).expect("small");
    for (index, body) in (0u64..).zip(bytes.chunks(chunk_len)) {
        if !is_zero(body) {
            let record = Record::encode(Kind::Chunk, salt, Some(chunk), body, Compression::Auto);
            changes.insert(ChunkIndex(index), Some(Leaf::Whole(record.name())));
            records.push(record);
        }
    }
    let size = ByteLen(bytes.len() as u64);
    let empty = Descriptor::empty(size, chunk, salt);
    let Lookup::Found(committed) = tree::commit(&empty, size, &changes, &|_| None).expect("commit") else {
        panic!("an empty disk has no pages to miss")
    };
    records.extend(committed.records());
    store.put(1, &records).expect("put");
    DiskWant {
        disk: DiskId::generate(),
        instance: InstanceId::generate(),
        generation: 1,
        size_bytes: size.0.next_multiple_of(4096),
        version: VersionId::generate(),
        root: VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex::encode),
            commit: None,
        },
        served: true,
        since_generation: 0,
    }
}

/// Reads all bytes of a version through its tree.
pub fn export(store: &dyn ChunkStore, root: &VersionRoot) -> Vec<u8> {
    let descriptor = Descriptor::decode(&hex::decode(&root.descriptor).expect("hex")).expect("descriptor");
    assert!(
        root.root_page.as_deref().map(|page| ObjectName::of(
            Kind::Page,
            descriptor.salt,
            &hex::decode(page).expect("hex")
        )) == descriptor.root,
        "the root page must be the one the descriptor names"
    );
    assert!(store.contains(&descriptor.name()).expect("store"), "the descriptor is in the pool");
    let find = |name: &ObjectName| {
        let object = store.get(name).expect("get").expect("page is there").verify().expect("page is good");
        Some(Arc::new(Page::decode(&object.body).expect("page decodes")))
    };
    let mut bytes = vec![0; usize::try_from(descriptor.size_bytes.0).expect("small")];
    let Lookup::Found(leaves) =
        tree::lookup(&descriptor, ChunkIndex(0)..ChunkIndex(descriptor.chunks()), &find).expect("tree")
    else {
        panic!("all pages are there")
    };
    for (index, leaf) in leaves {
        let Some(leaf) = leaf else { continue };
        let body = |name: &ObjectName| {
            store.get(name).expect("get").expect("object is there").verify().expect("object is good").body
        };
        let mut chunk = vec![0; usize::try_from(descriptor.chunk.bytes()).expect("small")];
        match leaf {
            Leaf::Whole(name) => {
                let body = body(&name);
                chunk[..body.len()].copy_from_slice(&body);
            }
            Leaf::Patched(patched) => {
                if let Some(body) = patched.base().map(body) {
                    chunk[..body.len()].copy_from_slice(&body);
                }
                for run in patched.runs() {
                    for n in 0..usize::from(run.count) {
                        let into = &mut chunk[(usize::from(run.first) + n) * 4096..][..4096];
                        match run.source {
                            RunSource::Zeros => into.fill(0),
                            RunSource::Pack { pack, block } => {
                                let pack = body(&patched.packs()[usize::from(pack)]);
                                into.copy_from_slice(&pack[(usize::from(block) + n) * 4096..][..4096]);
                            }
                        }
                    }
                }
            }
        }
        let at = usize::try_from(index.0 * descriptor.chunk.bytes()).expect("small");
        let end = (at + chunk.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&chunk[..end - at]);
    }
    bytes
}

/// The desired state after a commit was published as a new version.
pub fn published(want: &DiskWant, saved: &Saved) -> DiskWant {
    DiskWant { version: VersionId::generate(), root: saved.root.clone(), ..want.clone() }
}

/// Seeded random numbers. Tests print the seed, so that a failure can be repeated.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.fill(&mut bytes);
        bytes
    }
}

/// A zeroed buffer whose address is a multiple of its length (a power of two), as direct I/O needs it.
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    pub fn new(bytes: usize) -> Self {
        let memory = vec![0; 2 * bytes];
        let start = memory.as_ptr().align_offset(bytes);
        Self { memory, start, bytes }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// Polls until a condition holds.
pub async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a program for at most `limit` and returns its output. Panics when it fails.
pub fn run(program: &str, args: &[&str], limit: Duration) -> String {
    let mut all: Vec<OsString> = vec![limit.as_secs().to_string().into(), program.into()];
    all.extend(args.iter().map(OsString::from));
    let output = Command::new("timeout").args(all).output().expect("timeout(1) runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs blocking work, such as file operations on a mount, away from the async threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the task does not panic")
}
