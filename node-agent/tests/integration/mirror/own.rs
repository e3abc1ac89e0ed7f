//! Objects of the node's own share of the pool are read from there. They take no second place in the cache.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, on 64-bit hosts")]

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::world::*;
use storage_core::{
    ChunkSize, Compression, Kind, ObjectName, Record, Salt, SegmentStore,
    store::{ChunkStore, Options},
};

const CHUNK: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// Bytes of which every second chunk compresses.
fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut image = Rng(seed).bytes(bytes);
    for (n, chunk) in image.chunks_mut(CHUNK).enumerate().skip(1).step_by(2) {
        for (line, part) in chunk.chunks_mut(16).enumerate() {
            part.copy_from_slice(&format!("{n:6} {line:8}\n").into_bytes());
        }
    }
    image
}

/// Reads around the page cache of the kernel, so that every read reaches the agent.
async fn read(path: &Path, at: usize, bytes: usize) -> std::io::Result<Vec<u8>> {
    let path = path.to_owned();
    blocking(move || {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        let mut space = Aligned::new(bytes.next_power_of_two());
        file.read_exact_at(&mut space[..bytes], at as u64)?;
        Ok(space[..bytes].to_vec())
    })
    .await
}

async fn check(path: &Path, expected: &[u8]) {
    for (n, part) in expected.chunks(MIB).enumerate() {
        assert!(read(path, n * MIB, part.len()).await.unwrap() == part, "MiB {n}");
    }
}

/// A world whose share of the pool is on the disk.
async fn on_disk(memory_bytes_max: usize, segment_bytes: u64) -> World {
    let data = DataDir::new();
    let mut config = config(&data);
    config.memory_bytes_max = memory_bytes_max as u64;
    let options = Options { segment_bytes, ..Options::default() };
    let store = SegmentStore::open(&data.path.join("pool"), options).unwrap();
    World::open(data, config, Arc::new(store)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_all_objects_itself_caches_none_of_them() {
    let mut world = on_disk(64 * MIB, 1 << 20).await;
    let mut bytes = image(21, 6 * MIB);
    let mut want = import(&*world.store, &bytes, ChunkSize::MIN);
    let path = world.ensure(&want).await.path;
    for _ in 0..2 {
        check(&path, &bytes).await;
        assert_eq!(world.disks.cache_bytes(), 0);
    }
    // Neither does what a commit stores: scattered blocks, and a chunk that is written whole.
    let file = File::options().write(true).open(&path).unwrap();
    for (at, len) in [(5 * 4096, 4096), (MIB + 4096, 8192), (3 * MIB, CHUNK), (4 * MIB + 100, 50)] {
        bytes[at..at + len].copy_from_slice(&Rng(at as u64 + 1).bytes(len));
        file.write_all_at(&bytes[at..at + len], at as u64).unwrap();
    }
    drop(file);
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    want = published(&want, &saved);
    world.ensure(&want).await;
    assert_eq!(world.disks.epochs(want.disk), Some(1));
    assert_eq!(world.disks.cache_bytes(), 0);
    check(&path, &bytes).await;
    // Only the three patched chunks, which are bodies that the share does not have.
    assert_eq!(world.disks.cache_bytes(), 3 * CHUNK as u64);
    assert_eq!(world.disks.status(want.disk).unwrap().fetched_bytes, 0);

    world = world.restart().await;
    let path = world.ensure(&want).await.path;
    check(&path, &bytes).await;
    assert_eq!(world.disks.cache_bytes(), 3 * CHUNK as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_into_memory_and_is_read_again_and_again_is_cached() {
    let world = on_disk(MIB, 1 << 20).await;
    let bytes = image(22, 4 * MIB);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    let path = world.ensure(&want).await.path;
    check(&path, &bytes).await;
    assert_eq!(world.disks.cache_bytes(), 0, "nothing was read twice");
    for _ in 0..3 {
        check(&path, &bytes).await;
    }
    let cached = world.disks.cache_bytes() as usize;
    assert!(cached > 2 * MIB && cached <= bytes.len(), "{cached} bytes are in the cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_objects_are_read_beside_the_sweep_of_others_and_what_it_gives_back() {
    // Small segments and little memory: what is read lies between what goes, and is decoded anew all the time.
    let world = on_disk(4 * CHUNK, 256 << 10).await;
    let bytes = image(23, 2 * MIB);
    let rest = |n: u64| {
        let body = Rng(1000 + n).bytes(20_000);
        Record::encode(Kind::Pack, Salt::SHARED, None, &body, Compression::Off)
    };
    // Other objects between those of the image.
    let mut others = Vec::new();
    for (n, body) in (0..).zip(bytes.chunks(CHUNK)) {
        let chunk = Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::MIN), body, Compression::Auto);
        world.store.put(1, &[chunk, rest(n)]).unwrap();
        others.push(rest(n).name());
    }
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    let path = world.ensure(&want).await.path;
    let done = Arc::new(AtomicBool::new(false));
    let sweep = std::thread::spawn({
        let (store, done) = (world.store.clone(), done.clone());
        move || {
            let mut reclaimed = 0;
            for n in 0..40 {
                store.remove(2, &others).unwrap();
                store.sync().unwrap();
                reclaimed += store.reclaim(&|| true).unwrap();
                others = (0..32).map(|m| rest(100 * (n + 1) + m)).map(|record| put_one(&*store, record)).collect();
            }
            done.store(true, Ordering::SeqCst);
            reclaimed
        }
    });
    let mut rng = Rng(5);
    let mut reads = 0;
    while !done.load(Ordering::SeqCst) || reads < 200 {
        let at = rng.below(bytes.len() as u64 / 4096) as usize * 4096;
        let len = 4096.min(bytes.len() - at);
        assert!(read(&path, at, len).await.unwrap() == bytes[at..at + len], "block at {at}");
        reads += 1;
    }
    assert!(sweep.join().unwrap() > MIB as u64, "much was given back");
    check(&path, &bytes).await;
}

fn put_one(store: &dyn ChunkStore, record: Record) -> ObjectName {
    let name = record.name();
    store.put(1, &[record]).unwrap();
    name
}

/// What is in memory was hashed, so it is read on after the share lost it. When memory has it no more, it is lost until the
/// share has it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_rots_is_never_read_and_a_good_one_is_read_again() {
    let mut world = World::with(|config| {
        config.memory_bytes_max = 64 << 20;
        config.read_deadline = Duration::from_secs(3);
    })
    .await;
    let bytes = image(24, 2 * CHUNK);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    let path: PathBuf = world.ensure(&want).await.path;
    check(&path, &bytes).await;
    let memory = world.memory.clone().unwrap();
    // Not the first one, which is read when the disk is mounted.
    let name = ObjectName::of_chunk(Salt::SHARED, ChunkSize::MIN, &bytes[CHUNK..]);
    assert!(memory.damage(&name));
    check(&path, &bytes).await;
    world = world.restart().await;
    let path: PathBuf = world.ensure(&want).await.path;
    read(&path, CHUNK + 4096, 4096).await.unwrap_err();
    assert_eq!(world.disks.status(want.disk).unwrap().lost.unwrap().first, name);
    assert!(read(&path, 4096, 4096).await.unwrap() == bytes[4096..8192]);
    import(&*world.store, &bytes, ChunkSize::MIN);
    check(&path, &bytes).await;
    assert_eq!(world.disks.status(want.disk).unwrap().lost, None);
    assert_eq!(world.disks.cache_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_an_earlier_release_that_the_share_has_too_go_with_the_scrub() {
    let mut world = World::with(|_| {}).await;
    let bytes = image(25, 4 * CHUNK);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    let path = world.ensure(&want).await.path;
    check(&path, &bytes).await;
    assert_eq!(world.disks.cache_bytes(), 4 * CHUNK as u64);
    world.config.memory_bytes_max = 64 << 20;
    world = world.restart().await;
    eventually("the scrub gives the slots back", Duration::from_secs(60), || world.disks.cache_bytes() == 0).await;
    let path = world.ensure(&want).await.path;
    check(&path, &bytes).await;
    assert_eq!((world.disks.cache_bytes(), world.disks.cache_bad_chunks()), (0, 0));
}
