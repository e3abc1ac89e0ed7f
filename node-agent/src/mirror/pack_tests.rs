//! Packs below the mirror: what commits of scattered blocks store, and that every version and every read has the bytes of a
//! plain vector, whatever was written, zeroed, cut, folded, forked and restarted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use muster_api::{
    CommitId, DiskId, InstanceId, SnapshotId, VersionId,
    node_protocol::{CutDisk, CutKey, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{
    BLOCK_BYTES, ByteLen, ChunkIndex, ChunkSize, Compression, Descriptor, Kind, ObjectName, Record, Salt,
    power::Random,
    store::{ChunkStore, MemoryStore},
    tree::{self, Leaf, Lookup, Page},
    units::usize_from,
    zero::is_zero,
};
use tokio::time::Instant;

use super::{
    DiskWant, Disks, Saved,
    disk::Disk,
    power_tests::{config, holder},
    read::BLOCK,
    write::OwnedChange,
};
use crate::holder::Holder;

const CHUNK: usize = 64 << 10;
const CHUNK_BLOCKS: usize = CHUNK / BLOCK;
/// Histories of each group, which share a node.
const HISTORIES: u64 = 40;

/// A node without mounts.
struct Node {
    disks: Arc<Disks>,
    store: Arc<MemoryStore>,
    holder: Holder,
    dir: tempfile::TempDir,
    room: Room,
}

/// Bytes for clean bodies.
#[derive(Clone, Copy)]
struct Room {
    cache: u64,
    /// Of memory, for objects of this node's own share. 0: they are cached, as those of other nodes are.
    memory: u64,
}

const MUCH: Room = Room { cache: 64 << 20, memory: 0 };

impl Node {
    async fn new(room: Room) -> Self {
        let dir = tempfile::Builder::new().prefix("muster-packs-").tempdir().expect("folder");
        let holder = holder(dir.path().join("holder.sock"));
        let store = Arc::new(MemoryStore::new());
        let disks = open(dir.path().join("data"), &store, &holder, room).await;
        Self { disks, store, holder, dir, room }
    }

    /// The next process of the node: only its files and the holder's live maps are left.
    async fn restart(&mut self) {
        self.disks.shutdown().await;
        self.disks = open(self.dir.path().join("data"), &self.store, &self.holder, self.room).await;
    }

    async fn disk(&self, want: &DiskWant) -> Arc<Disk> {
        self.disks.unmounted(want).await.expect("makes it")
    }

    async fn save(&self, want: &DiskWant) -> (CommitId, Saved) {
        let key = CutKey::new(SnapshotId::generate(), 1);
        let commit = CommitId::generate();
        let cut = CutDisk { instance: want.instance, disk: want.disk, generation: want.generation, commit };
        self.disks.prepare(key, std::slice::from_ref(&cut)).await.expect("prepares");
        self.disks.hold(key, Duration::from_secs(20)).await.expect("holds");
        self.disks.flip(key).await.expect("flips");
        (commit, self.disks.save(want.disk, commit, 1).await.expect("saves"))
    }

    /// Publishes a new version of the disk.
    async fn publish(&self, want: &mut DiskWant) -> Saved {
        let (_, saved) = self.save(want).await;
        *want = DiskWant { version: VersionId::generate(), root: saved.root.clone(), ..want.clone() };
        self.disk(want).await;
        saved
    }

    fn forget(&self, names: impl IntoIterator<Item = ObjectName>) {
        let names: Vec<ObjectName> = names.into_iter().collect();
        drop(self.store.remove(u64::MAX, &names).expect("memory"));
        assert!(names.iter().all(|name| !self.store.contains(name).expect("memory")));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.holder.stop() {
            eprintln!("the holder did not stop: {error}");
        }
    }
}

async fn open(data: PathBuf, store: &Arc<MemoryStore>, holder: &Holder, room: Room) -> Arc<Disks> {
    let mut config = config(&data);
    config.cache_bytes_max = room.cache;
    config.memory_bytes_max = room.memory;
    let pool = PoolClient::local_only(store.clone());
    crate::fuse::open_disks(config, pool, holder.clone()).await.expect("opens")
}

/// Puts an image with chunks of 64 KiB into the store. Returns the desired state of a disk of it.
fn import(store: &MemoryStore, image: &[u8]) -> DiskWant {
    let mut changes = BTreeMap::new();
    for (index, body) in (0..).zip(image.chunks(CHUNK)).filter(|(_, body)| !is_zero(body)) {
        let record = Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::MIN), body, Compression::Auto);
        changes.insert(ChunkIndex(index), Some(Leaf::Whole(record.name())));
        store.put(1, &[record]).expect("memory");
    }
    let size = ByteLen(image.len() as u64);
    let empty = Descriptor::empty(size, ChunkSize::MIN, Salt::SHARED);
    let committed =
        tree::commit(&empty, size, &changes, &|_| None).expect("commits").found().expect("no pages to miss");
    store.put(1, &committed.records()).expect("memory");
    DiskWant {
        disk: DiskId::generate(),
        instance: InstanceId::generate(),
        generation: 1,
        size_bytes: size.0.next_multiple_of(BLOCK_BYTES),
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

fn load(store: &MemoryStore, name: &ObjectName) -> bytes::Bytes {
    store.load(name).expect("memory").unwrap_or_else(|| panic!("{name} is there")).body
}

/// The chunks of a version that are not zeros.
fn leaves(store: &MemoryStore, root: &VersionRoot) -> Vec<(ChunkIndex, Leaf)> {
    let descriptor = Descriptor::decode(&hex::decode(&root.descriptor).expect("hex")).expect("decodes");
    let find = |name: &ObjectName| Some(Arc::new(Page::decode(&load(store, name)).expect("decodes")));
    let all = ChunkIndex(0)..ChunkIndex(descriptor.chunks());
    match tree::lookup_present(&descriptor, all, &find).expect("whole") {
        Lookup::Found(leaves) => leaves,
        Lookup::Missing(_) => panic!("all pages are there"),
    }
}

/// Objects of a version, with the base of patched chunks or without.
fn objects(leaves: &[(ChunkIndex, Leaf)], kind: Kind) -> BTreeSet<ObjectName> {
    let parts = leaves.iter().flat_map(|(_, leaf)| leaf.parts());
    parts.filter(|(_, k)| *k == kind).map(|(name, _)| *name).collect()
}

/// All bytes of a version, read block by block from its objects. Asserts the bounds that commits keep.
fn content(store: &MemoryStore, root: &VersionRoot, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes.next_multiple_of(CHUNK)];
    for (index, leaf) in leaves(store, root) {
        let chunk = &mut all[usize_from(index.0) * CHUNK..][..CHUNK];
        let base = match &leaf {
            Leaf::Whole(name) => Some(name),
            Leaf::Patched(patched) => patched.base(),
        };
        if let Some(body) = base.map(|name| load(store, name)) {
            chunk[..body.len()].copy_from_slice(&body);
        }
        let Leaf::Patched(patched) = leaf else { continue };
        let patched_blocks: usize = patched.runs().iter().map(|run| usize::from(run.count)).sum();
        assert!(patched_blocks <= CHUNK_BLOCKS / 2, "{patched:?}");
        for run in patched.runs() {
            let into = &mut chunk[usize::from(run.first) * BLOCK..][..usize::from(run.count) * BLOCK];
            match run.source {
                tree::RunSource::Zeros => into.fill(0),
                tree::RunSource::Pack { pack, block } => {
                    let pack = load(store, &patched.packs()[usize::from(pack)]);
                    into.copy_from_slice(&pack[usize::from(block) * BLOCK..][..into.len()]);
                }
            }
        }
    }
    all.truncate(bytes);
    all
}

fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
    words.flatten().take(bytes).collect()
}

async fn write(disk: &Arc<Disk>, at: usize, bytes: Vec<u8>) {
    let soon = Instant::now() + Duration::from_secs(20);
    disk.change(at as u64, OwnedChange::Data(bytes), soon).await.expect("writes");
}

async fn read(disk: &Arc<Disk>, at: usize, bytes: usize) -> Vec<u8> {
    disk.read(at as u64, bytes as u64).await.expect("reads")
}

/// One disk and the vector that it must read as.
struct History {
    want: DiskWant,
    bytes: Vec<u8>,
    /// Versions so far, with the bytes of the disk at their cuts.
    versions: Vec<(DiskWant, Vec<u8>)>,
    random: Random,
}

impl History {
    fn range(&mut self) -> (usize, usize) {
        let size = self.bytes.len();
        let longest = [200, BLOCK, 3 * BLOCK, 12 * BLOCK, 40 * BLOCK][usize_from(self.random.below(5))];
        let mut at = usize_from(self.random.below(size as u64));
        let mut bytes = 1 + usize_from(self.random.below(longest as u64));
        if self.random.below(3) > 0 {
            at = at / BLOCK * BLOCK;
            bytes = bytes.next_multiple_of(BLOCK);
        }
        (at, bytes.min(size - at))
    }

    async fn step(&mut self, node: &mut Node) {
        let disk = node.disk(&self.want).await;
        match self.random.below(100) {
            0..40 => {
                let (at, len) = self.range();
                // Zeros that are written, blocks that other chunks have, and bytes that do not compress.
                let data = match self.random.below(6) {
                    0 => vec![0; len],
                    1 => vec![7; len],
                    _ => noise(&mut self.random, len),
                };
                self.bytes[at..at + len].copy_from_slice(&data);
                write(&disk, at, data).await;
            }
            40..50 => {
                let (at, len) = self.range();
                self.bytes[at..at + len].fill(0);
                let soon = Instant::now() + Duration::from_secs(20);
                disk.change(at as u64, OwnedChange::Zero { bytes: len as u64 }, soon).await.expect("zeroes");
            }
            50..70 => {
                let (at, len) = self.range();
                assert!(read(&disk, at, len).await == self.bytes[at..at + len], "bytes {at}+{len}");
            }
            70..90 => {
                let saved = node.publish(&mut self.want).await;
                let got = content(&node.store, &saved.root, self.bytes.len());
                assert!(got == self.bytes, "version {}", self.versions.len());
                self.versions.push((self.want.clone(), self.bytes.clone()));
            }
            90..93 => {
                let (commit, _) = node.save(&self.want).await;
                node.disks.abandon(self.want.disk, commit).await.expect("abandons");
                // Its blocks move into the current epoch in the background. Until then the disk cannot be removed.
                let deadline = Instant::now() + Duration::from_secs(60);
                while node.disks.epochs(self.want.disk) != Some(1) {
                    assert!(Instant::now() < deadline, "the abandoned epoch does not merge");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            93..97 => {
                // Another disk of an earlier version.
                let nth = usize_from(self.random.below(self.versions.len() as u64));
                let (of, bytes) = self.versions[nth].clone();
                node.disks.remove(self.want.disk).await.expect("removes");
                self.want = DiskWant { disk: DiskId::generate(), instance: InstanceId::generate(), ..of };
                self.bytes = bytes;
            }
            _ => {
                drop(disk);
                node.restart().await;
            }
        }
    }
}

async fn histories(first: u64, room: Room) {
    let mut node = Node::new(room).await;
    for seed in first..first + HISTORIES {
        // Shown when the test fails.
        eprintln!("seed {seed}");
        let mut random = Random(seed);
        // Data and holes; the last chunk is a partial one, and its last block too.
        let chunks = 1 + usize_from(random.below(6));
        let size = chunks * CHUNK - usize_from(random.below(CHUNK as u64 - 1));
        let mut bytes = noise(&mut random, size);
        for part in bytes.chunks_mut(CHUNK * 3 / 2).skip(1).step_by(2) {
            part.fill(0);
        }
        let want = import(&node.store, &bytes);
        bytes.resize(usize_from(want.size_bytes), 0);
        let versions = vec![(want.clone(), bytes.clone())];
        let mut history = History { want, bytes, versions, random };
        for _ in 0..30 {
            history.step(&mut node).await;
        }
        let disk = node.disk(&history.want).await;
        assert!(read(&disk, 0, history.bytes.len()).await == history.bytes);
        for (want, bytes) in &history.versions {
            assert!(content(&node.store, &want.root, bytes.len()) == *bytes, "a version changed");
        }
        node.disks.remove(history.want.disk).await.expect("removes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_read_as_byte_vectors_do() {
    histories(0x1000, MUCH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_read_as_byte_vectors_do_with_a_cache_of_three_chunks() {
    histories(0x2000, Room { cache: 3 * CHUNK as u64, memory: 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_read_as_byte_vectors_do_without_a_cache() {
    histories(0x3000, Room { cache: 0, memory: 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_read_as_byte_vectors_do_from_the_own_share() {
    histories(0x4000, Room { memory: 3 * CHUNK as u64, ..MUCH }).await;
}

/// A disk of 64 chunks of noise, and its image.
async fn noisy(node: &Node) -> (DiskWant, Vec<u8>) {
    let image = noise(&mut Random(5), 64 * CHUNK);
    (import(&node.store, &image), image)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_scattered_blocks_stores_them_once_and_needs_no_base() {
    let node = Node::new(MUCH).await;
    let (mut want, mut image) = noisy(&node).await;
    let base = objects(&leaves(&node.store, &want.root), Kind::Chunk);
    let kept: Vec<Record> = base.iter().map(|name| node.store.get(name).expect("memory").expect("there")).collect();
    node.forget(base.iter().copied());
    let disk = node.disk(&want).await;
    for chunk in 0..64 {
        let data = noise(&mut Random(chunk as u64), BLOCK);
        let at = chunk * CHUNK + chunk % CHUNK_BLOCKS * BLOCK;
        image[at..at + BLOCK].copy_from_slice(&data);
        write(&disk, at, data).await;
    }
    let saved = node.publish(&mut want).await;
    let leaves = leaves(&node.store, &want.root);
    assert_eq!(objects(&leaves, Kind::Chunk), base, "every chunk keeps its base");
    assert_eq!(objects(&leaves, Kind::Pack).len(), 64 * BLOCK / CHUNK, "packs are full");
    let pages = saved.stored_bytes - saved.dirty_bytes;
    // 76 bytes for each chunk, the headers of page and descriptor.
    assert!(saved.dirty_bytes == 64 * BLOCK_BYTES && pages < 64 * 80 + 300, "{saved:?}");
    // What was written is read from the packs in the cache. Neither they nor the base are on any node.
    node.forget(objects(&leaves, Kind::Pack));
    let block = read(&disk, 5 * CHUNK + 5 * BLOCK, BLOCK).await;
    assert!(block == image[5 * CHUNK + 5 * BLOCK..][..BLOCK]);
    node.store.put(1, &kept).expect("memory");
    assert!(read(&disk, 0, image.len()).await == image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_patched_again_and_again_joins_small_packs_and_is_written_whole_at_half() {
    let mut node = Node::new(MUCH).await;
    let (mut want, mut image) = noisy(&node).await;
    let (mut packs, mut stored) = (Vec::new(), Vec::new());
    for n in 0..9 {
        let data = noise(&mut Random(n as u64), BLOCK);
        let disk = node.disk(&want).await;
        image[n * BLOCK..(n + 1) * BLOCK].copy_from_slice(&data);
        write(&disk, n * BLOCK, data).await;
        if n == 6 {
            // The pack that is left has to come from the pool.
            std::fs::remove_dir_all(node.dir.path().join("data/cache")).expect("there is one");
            node.restart().await;
        }
        let saved = node.publish(&mut want).await;
        assert!(content(&node.store, &want.root, image.len()) == image);
        stored.push(saved.stored_bytes / BLOCK_BYTES);
        match &leaves(&node.store, &want.root)[0].1 {
            Leaf::Whole(_) => packs.push(0),
            Leaf::Patched(patched) => packs.push(patched.packs().len()),
        }
    }
    assert_eq!(packs, [1, 2, 3, 4, 4, 4, 4, 4, 0]);
    // Each stores its block, and from the fifth on the blocks of the smallest pack as well.
    assert_eq!(stored, [1, 1, 1, 1, 2, 2, 2, 2, 16]);
    // Blocks that are all written again need no older pack, and zeros need none at all.
    let disk = node.disk(&want).await;
    write(&disk, 0, noise(&mut Random(99), 2 * BLOCK)).await;
    node.publish(&mut want).await;
    let zeros = OwnedChange::Zero { bytes: 2 * BLOCK_BYTES };
    disk.change(0, zeros, Instant::now() + Duration::from_secs(20)).await.expect("zeroes");
    let saved = node.publish(&mut want).await;
    assert!(objects(&leaves(&node.store, &want.root)[..1], Kind::Pack).is_empty());
    assert!(saved.stored_bytes < 64 * 80 + 300, "only pages: {saved:?}");
    // A chunk of zeros is nothing.
    let zeros = OwnedChange::Zero { bytes: CHUNK as u64 };
    disk.change(0, zeros, Instant::now() + Duration::from_secs(20)).await.expect("zeroes");
    node.publish(&mut want).await;
    assert_eq!(leaves(&node.store, &want.root)[0].0, ChunkIndex(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patched_chunk_is_assembled_once_and_its_slot_is_given_back_by_the_next_process() {
    let mut node = Node::new(MUCH).await;
    let (mut want, mut image) = noisy(&node).await;
    let disk = node.disk(&want).await;
    image[BLOCK..2 * BLOCK].fill(3);
    write(&disk, BLOCK, vec![3; BLOCK]).await;
    node.publish(&mut want).await;
    let slots = |node: &Node| node.disks.cache_bytes() / CHUNK as u64;
    assert_eq!(slots(&node), 1, "the pack");
    // Within one object nothing is assembled.
    assert!(read(&disk, BLOCK, BLOCK).await == image[BLOCK..2 * BLOCK]);
    assert!(read(&disk, 2 * BLOCK, 5 * BLOCK).await == image[2 * BLOCK..7 * BLOCK]);
    assert_eq!(slots(&node), 2, "the pack and the base");
    assert!(read(&disk, 0, 3 * BLOCK).await == image[..3 * BLOCK]);
    assert_eq!(slots(&node), 3, "and the chunk");
    // The assembled chunk is enough for every read.
    assert!(read(&disk, 0, CHUNK).await == image[..CHUNK]);
    assert_eq!(slots(&node), 3);

    // The next process finds the objects. It needs no other node to assemble the chunk again.
    drop(disk);
    let parts = leaves(&node.store, &want.root)[0].1.objects().copied().collect::<Vec<_>>();
    node.forget(parts);
    node.restart().await;
    assert_eq!(slots(&node), 2);
    let disk = node.disk(&want).await;
    assert!(read(&disk, 0, CHUNK).await == image[..CHUNK]);
    assert_eq!(slots(&node), 3);
}

/// Bits rot in every slot: those of a pack, of a base and of an assembled chunk. None of it is ever read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_slots_of_packs_and_assembled_chunks_are_never_served() {
    use std::os::unix::fs::FileExt;
    let mut node = Node::new(MUCH).await;
    let (mut want, mut image) = noisy(&node).await;
    let disk = node.disk(&want).await;
    image[BLOCK..2 * BLOCK].fill(3);
    write(&disk, BLOCK, vec![3; BLOCK]).await;
    node.publish(&mut want).await;
    assert!(read(&disk, 0, CHUNK).await == image[..CHUNK]);
    drop(disk);
    let rot = |node: &Node| {
        let path = node.dir.path().join("data/cache/slots-16");
        let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
        let mut byte = [0];
        for at in (0..file.metadata().expect("there").len()).step_by(CHUNK) {
            file.read_exact_at(&mut byte, at + 100).expect("reads");
            file.write_all_at(&[byte[0] ^ 1], at + 100).expect("writes");
        }
    };
    // A later process hashes each slot at its first use.
    rot(&node);
    node.restart().await;
    let disk = node.disk(&want).await;
    assert!(read(&disk, 0, CHUNK).await == image[..CHUNK]);
    assert_eq!(node.disks.cache_bad_chunks(), 2, "the pack and the base");
    // A write of a part of a block merges only bytes that are hashed in that pass.
    rot(&node);
    write(&disk, BLOCK + 10, vec![4; 10]).await;
    write(&disk, 9 * BLOCK + 10, vec![4; 10]).await;
    image[BLOCK + 10..BLOCK + 20].fill(4);
    image[9 * BLOCK + 10..9 * BLOCK + 20].fill(4);
    assert_eq!(node.disks.cache_bad_chunks(), 4);
    node.publish(&mut want).await;
    assert!(content(&node.store, &want.root, image.len()) == image);
}
