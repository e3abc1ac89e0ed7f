//! The node's file system becomes full: the cache shrinks, then writes fail without damage, then they work again.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::Arc,
};

use super::world::*;
use muster_agent::{fuse, mirror::DiskError};
use muster_api::{SnapshotId, node_protocol::CutKey};
use muster_pool::PoolClient;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use storage_core::{ChunkSize, MemoryStore, store::ChunkStore};

/// A small file system.
struct Small {
    data: Option<DataDir>,
    dir: tempfile::TempDir,
}

impl Small {
    fn new(mib: u64) -> Self {
        Self::of("tmpfs", &std::ffi::CString::new(format!("size={mib}m")).unwrap())
    }

    fn of(kind: &str, options: &std::ffi::CStr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("muster-test", dir.path(), kind, MountFlags::empty(), options).unwrap();
        Self { data: None, dir }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Some(data) = &self.data {
            for path in mounts_below(&data.path).iter().rev().filter(|path| *path != self.dir.path()) {
                if unmount(path, UnmountFlags::DETACH | UnmountFlags::FORCE).is_err() {
                    eprintln!("{} stays mounted", path.display());
                }
            }
            drop(data.holder().stop());
        }
        unmount(self.dir.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_a_full_node_fail_without_damage_and_work_again_when_there_is_room() {
    const MIB: usize = 1 << 20;
    let mut small = Small::new(40);
    small.data = Some(DataDir::borrowed(small.dir.path().to_owned()));
    let data = DataDir::borrowed(small.dir.path().to_owned());
    let config = config(&data);
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new());
    let image = Rng(5).bytes(24 * MIB);
    let mut want = import(&*store, &image, ChunkSize::DEFAULT);
    want.size_bytes = 64 << 20;
    let world = World::open(data, config, store).await;
    let path = world.ensure(&want).await.path;
    let mut bytes = image;
    bytes.resize(64 * MIB, 0);
    // The cache uses all free space.
    assert!(
        blocking({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        })
        .await
            == bytes
    );
    assert!(world.disks.cache_bytes() >= 20 << 20);
    let (path, mut bytes) = blocking(move || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut rng = Rng(6);
        let mut written = 0;
        let full = (0..1024usize).find_map(|n| {
            let data = rng.bytes(64 << 10);
            match file.write_all_at(&data, (n * data.len()) as u64) {
                Ok(()) => {
                    bytes[n * data.len()..(n + 1) * data.len()].copy_from_slice(&data);
                    written += data.len();
                    None
                }
                Err(error) => Some((n * data.len(), Errno::from_io_error(&error))),
            }
        });
        let (at, errno) = full.expect("it becomes full");
        assert_eq!(errno, Some(Errno::NOSPC));
        assert!(written > 30 * MIB, "the cache made room for only {written} bytes");
        file.sync_data().unwrap();
        // The range that did not fit may have old or new bytes. Everything else is unchanged.
        let got = std::fs::read(&path).unwrap();
        assert!(got[..at] == bytes[..at]);
        assert!(got[at + (64 << 10)..] == bytes[at + (64 << 10)..]);
        bytes = got;
        (path, bytes)
    })
    .await;
    // A cut may or may not find room for its next epoch. Neither does any damage.
    match world.disks.prepare(CutKey::new(SnapshotId::generate(), 1), &[cut_disk(&want)]).await {
        Ok(()) | Err(DiskError::NoSpace(_)) => {}
        other => panic!("{other:?}"),
    }
    let (path, bytes) = blocking(move || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, 0, 8 << 20).unwrap();
        bytes[..8 * MIB].fill(0);
        let data = Rng(7).bytes(4 * MIB);
        file.write_all_at(&data, 50 << 20).unwrap();
        bytes[50 * MIB..54 * MIB].copy_from_slice(&data);
        file.sync_data().unwrap();
        (path, bytes)
    })
    .await;
    assert!(blocking(move || std::fs::read(path).unwrap()).await == bytes);
    assert_eq!(world.disks.status(want.disk).unwrap().failed, None);
    world.disks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_without_direct_io_is_refused_and_the_message_says_what_to_do() {
    let ramfs = Small::of("ramfs", c"");
    let data = DataDir::borrowed(ramfs.dir.path().to_owned());
    let pool = PoolClient::local_only(Arc::new(MemoryStore::new()));
    let Err(error) = fuse::open_disks(config(&data), pool, data.holder()).await else { panic!("it was opened") };
    let DiskError::Io { source, .. } = error else { panic!("{error}") };
    let text = source.to_string();
    assert!(text.contains("does not take direct writes") && text.contains("ext4"), "{text}");
    let left: Vec<_> = std::fs::read_dir(ramfs.dir.path().join("disks")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Several writes go to the node's disk in one call. Each must succeed or fail on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_writes_to_a_full_node_succeeds_or_fails_on_its_own() {
    const BLOCK: usize = 4096;
    const WRITERS: usize = 8;
    let mut small = Small::new(24);
    small.data = Some(DataDir::borrowed(small.dir.path().to_owned()));
    let data = DataDir::borrowed(small.dir.path().to_owned());
    let config = config(&data);
    let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new());
    let mut want = import(&*store, &[7; BLOCK], ChunkSize::DEFAULT);
    want.size_bytes = 64 << 20;
    let blocks = 64 << 20 >> 12;
    let world = World::open(data, config, store).await;
    let path = world.ensure(&want).await.path;
    let written = blocking({
        let path = path.clone();
        move || {
            let writer = |writer: usize| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
                    let mut block = Aligned::new(BLOCK);
                    (writer + 1..blocks)
                        .step_by(WRITERS)
                        .map(move |n| {
                            block.fill(0xff);
                            block[..8].copy_from_slice(&n.to_le_bytes());
                            match file.write_all_at(&block, (n * BLOCK) as u64) {
                                Ok(()) => (n, true),
                                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSPC) => (n, false),
                                Err(error) => panic!("block {n}: {error}"),
                            }
                        })
                        .collect::<Vec<_>>()
                })
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        }
    })
    .await;
    let fitted = written.iter().filter(|(_, fits)| *fits).count();
    assert!(fitted * BLOCK > 16 << 20 && fitted < written.len(), "{fitted} of {}", written.len());
    let got = blocking(move || std::fs::read(path).unwrap()).await;
    for (n, fits) in written {
        let block = &got[n * BLOCK..(n + 1) * BLOCK];
        let is_there = block[..8] == n.to_le_bytes() && block[8..].iter().all(|byte| *byte == 0xff);
        assert!(is_there || !fits && block.iter().all(|byte| *byte == 0), "block {n}, acknowledged: {fits}");
    }
    assert_eq!(world.disks.status(want.disk).unwrap().failed, None);
    world.disks.shutdown().await;
}
