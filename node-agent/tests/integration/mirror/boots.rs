//! Boot orders, recorded by real disks whose files programs read.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use super::world::*;
use muster_agent::mirror::DiskWant;
use muster_api::{VersionId, node_protocol::boot::BootReport};
use storage_core::{ChunkSize, Kind, store::ChunkStore as _};

const CHUNK: u64 = 256 << 10;
const CHUNKS: u64 = 40;

/// An image in which the chunks 8 to 15 are zeros.
fn image() -> Vec<u8> {
    (0..CHUNKS)
        .flat_map(|n| vec![if (8..16).contains(&n) { 0 } else { u8::try_from(n + 1).unwrap() }; 256 << 10])
        .collect()
}

/// Reads a block of each of these chunks around the page cache, in this order.
async fn read_chunks(path: &Path, chunks: &[u64]) {
    let (path, chunks) = (path.to_owned(), chunks.to_vec());
    blocking(move || {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        let mut block = Aligned::new(4096);
        for chunk in chunks {
            file.read_exact_at(&mut block, chunk * CHUNK + 8192).unwrap();
        }
    })
    .await;
}

async fn write(path: &Path, chunk: u64) {
    let path = path.to_owned();
    blocking(move || {
        let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
        let mut blocks = Aligned::new(256 << 10);
        blocks.fill(7);
        file.write_all_at(&blocks, chunk * CHUNK).unwrap();
    })
    .await;
}

fn told(world: &World, want: &DiskWant) -> Vec<BootReport> {
    let of = |(instance, report): (_, BootReport)| {
        assert_eq!((instance, report.disk, report.generation), (want.instance, want.disk, want.generation));
        report
    };
    world.disks.take_boots().into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_order_lists_what_each_start_read_first_from_its_version() {
    let world = World::new().await;
    let want = import(&*world.store, &image(), ChunkSize::DEFAULT);
    let status = world.ensure(&want).await;
    let path = status.path;
    assert_eq!(status.recorded, None);
    read_chunks(&path, &[1, 2]).await;
    assert!(told(&world, &want).is_empty(), "no start is recorded");

    world.disks.record_boot(want.disk, 1);
    // Chunks 1 and 2 are in the cache and count; 9 is zeros and does not.
    read_chunks(&path, &[39, 2, 9, 30, 2, 1, 31, 39]).await;
    assert_eq!(world.disks.status(want.disk).unwrap().recorded, Some(1));
    world.disks.record_boot(want.disk, 1);
    read_chunks(&path, &[5]).await;
    world.disks.end_boot(want.disk, 7);
    world.disks.end_boot(want.disk, 1);
    read_chunks(&path, &[6]).await;
    let [report] = told(&world, &want).try_into().unwrap();
    assert_eq!((report.version, report.boot, report.chunks), (want.version, 1, vec![39, 2, 30, 1, 31, 5]));

    // What the disk wrote is not read from its version. The rest of it counts again in the next start.
    write(&path, 2).await;
    world.disks.record_boot(want.disk, 2);
    read_chunks(&path, &[2, 1, 3]).await;
    world.disks.end_boot(want.disk, 2);
    let [report] = told(&world, &want).try_into().unwrap();
    assert_eq!((report.boot, report.chunks), (2, vec![1, 3]));

    // A start that reads nothing has no order.
    world.disks.record_boot(want.disk, 3);
    world.disks.end_boot(want.disk, 3);
    assert!(told(&world, &want).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_commits_and_of_a_newer_version_are_no_part_of_a_boot_order() {
    let world = World::new().await;
    let want = import(&*world.store, &image(), ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    world.disks.record_boot(want.disk, 1);
    read_chunks(&path, &[20]).await;
    // A commit reads the rest of a chunk that was written in part.
    let file = path.clone();
    blocking(move || File::options().write(true).open(file).unwrap().write_all_at(&[7; 100], 25 * CHUNK + 3).unwrap())
        .await;
    let (commit, _) = world.cut(&[&want]).await.remove(0);
    let saved = world.save(&want, commit).await;
    let newer = published(&want, &saved);
    world.ensure(&newer).await;
    read_chunks(&path, &[30]).await;
    world.disks.end_boot(want.disk, 1);
    let [report] = told(&world, &want).try_into().unwrap();
    assert_eq!((report.version, report.chunks), (want.version, vec![20]), "30 is of another version");
}

/// From now on the pool gives no chunk.
fn damage_all(world: &World) {
    let memory = world.memory.as_ref().unwrap();
    for object in memory.list(None, 1000).unwrap().into_iter().filter(|object| object.kind == Kind::Chunk) {
        memory.damage(&object.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_finds_here_what_earlier_ones_read_and_nothing_is_dropped_for_it() {
    let world = World::with(|config| config.read_deadline = Duration::from_secs(2)).await;
    let want = import(&*world.store, &image(), ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    world.disks.record_boot(want.disk, 1);
    let start = world.disks.next_start().await;
    assert_eq!((start.instance, start.disk, start.version), (want.instance, want.disk, want.version));
    let before = world.disks.cache_bytes();
    // Chunks of zeros and numbers that the version does not have are left out; so is all of another version.
    world.disks.prefetch(want.disk, VersionId::generate(), &[7]).await;
    world.disks.prefetch(want.disk, want.version, &[39, 2, 9, 5000, 30]).await;
    assert_eq!(world.disks.cache_bytes() - before, 3 * CHUNK);
    damage_all(&world);
    read_chunks(&path, &[30, 39, 2]).await;
    let file = File::open(&path).unwrap();
    let read = blocking(move || file.read_exact_at(&mut [0; 512], 7 * CHUNK)).await;
    assert!(read.is_err(), "chunk 7 was not brought");

    // What was just read stays where there is little room.
    let world = World::with(|config| config.cache_bytes_max = 9 * CHUNK).await;
    let want = import(&*world.store, &image(), ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let hot: Vec<u64> = (20..27).collect();
    read_chunks(&path, &hot).await;
    world.disks.prefetch(want.disk, want.version, &[39, 2, 30, 1, 31, 32, 33, 34, 35, 36, 37, 38]).await;
    damage_all(&world);
    read_chunks(&path, &hot).await;
}
