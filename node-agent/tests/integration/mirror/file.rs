//! The raw file as programs see it: which system calls it supports, what is read, and when cached chunks are verified.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    time::Duration,
};

use super::world::*;
use muster_agent::mirror::{DiskError, DiskWant};
use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::Errno,
};
use storage_core::ChunkSize;

const CHUNK: usize = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_supports_the_system_calls_of_a_disk_and_no_others() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    blocking(move || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let size = 1u64 << 20;
        assert_eq!(file.metadata().unwrap().len(), size);
        assert!(file.metadata().unwrap().is_file());
        file.set_len(size).unwrap();
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
        assert_eq!(errno(file.set_len(size / 2).unwrap_err()), Errno::PERM);
        assert_eq!(errno(file.set_len(size * 2).unwrap_err()), Errno::PERM);
        assert_eq!(errno(File::options().write(true).truncate(true).open(&path).unwrap_err()), Errno::PERM);
        std::os::unix::fs::chown(&path, Some(12345), Some(54321)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12345, 54321, 0o640));

        assert_eq!(file.read_at(&mut [0; 10], size).unwrap(), 0);
        assert_eq!(file.read_at(&mut [0; 10], size - 4).unwrap(), 4);
        assert!(file.write_at(&[1; 10], size).is_err());

        fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 * size).unwrap();
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100, 200).unwrap();
        fallocate(&file, FallocateFlags::ZERO_RANGE, 300, 100).unwrap();
        fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, size - 10, 100).unwrap();
        assert_eq!(fallocate(&file, FallocateFlags::empty(), size, 1), Err(Errno::PERM));
        assert_eq!(fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096), Err(Errno::OPNOTSUPP));
        let bytes = std::fs::read(&path).unwrap();
        let zeros: Vec<usize> = (0..bytes.len()).filter(|n| bytes[*n] == 0).collect();
        assert_eq!(zeros, (100..400).chain(bytes.len() - 10..bytes.len()).collect::<Vec<_>>());

        assert_eq!(rustix::fs::fgetxattr(&file, "user.x", &mut [0u8; 10]).unwrap_err(), Errno::OPNOTSUPP);
        assert!(rustix::fs::fstatfs(&file).unwrap().f_blocks > 0);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();

        // SAFETY: the mapping is private to this test and the file keeps its size.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
        map[5000..5003].copy_from_slice(b"map");
        map.flush().unwrap();
        drop(map);
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let mut got = [0; 3];
        direct.read_exact_at(&mut got, 5000).unwrap();
        assert_eq!(&got, b"map");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_are_found_from_memory() {
    let world = World::new().await;
    let mut image = vec![0; 8 * CHUNK];
    image[2 * CHUNK..3 * CHUNK].fill(1);
    image[5 * CHUNK..7 * CHUNK].fill(1);
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    blocking(move || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let map = |file: &File| {
            let (mut at, mut found) = (0, Vec::new());
            while let Ok(data) = seek(file, SeekFrom::Data(at)) {
                let hole = seek(file, SeekFrom::Hole(data)).unwrap();
                found.push((data, hole));
                at = hole;
            }
            found
        };
        let chunk = CHUNK as u64;
        assert_eq!(map(&file), [(2 * chunk, 3 * chunk), (5 * chunk, 7 * chunk)]);
        file.write_all_at(&[5; 4096], 4096).unwrap();
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 5 * chunk, chunk).unwrap();
        assert_eq!(map(&file), [(4096, 8192), (2 * chunk, 3 * chunk), (6 * chunk, 7 * chunk)]);
        assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(0));
        assert_eq!(seek(&file, SeekFrom::Data(7 * chunk)), Err(Errno::NXIO));
        assert_eq!(seek(&file, SeekFrom::Hole(8 * chunk)), Err(Errno::NXIO));
    })
    .await;
}

/// With direct writers and buffered readers of one file, an acknowledged write is read at once, also by a reader whose
/// pages the kernel had cached before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffered_reads_see_direct_writes() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    blocking(move || {
        let reader = File::options().read(true).open(&path).unwrap();
        let writer = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let mut block = Aligned::new(4096);
        for n in 0..2000u64 {
            let at = (n * 7 % 256) * 4096;
            let mut got = [0; 8];
            reader.read_exact_at(&mut got, at).unwrap();
            block[..8].copy_from_slice(&n.to_le_bytes());
            writer.write_all_at(&block, at).unwrap();
            reader.read_exact_at(&mut got, at).unwrap();
            assert_eq!(u64::from_le_bytes(got), n);
        }
    })
    .await;
}

/// Flips one bit in every slot of the cache.
fn rot_slots(data: &std::path::Path, slots: u64) {
    let path = data.join("cache/slots-18");
    let file = File::options().read(true).write(true).open(path).unwrap();
    for slot in 0..slots {
        let at = slot * CHUNK as u64 + 50_000 + slot;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }
}

async fn read_all(path: &std::path::Path) -> Vec<u8> {
    let path = path.to_owned();
    blocking(move || std::fs::read(path).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cached_chunk_is_never_served_after_any_stop() {
    let mut world = World::new().await;
    let image = Rng(11).bytes(4 * CHUNK);
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    for clean in [true, false] {
        let path = world.ensure(&want).await.path;
        assert!(read_all(&path).await == image);
        assert_eq!(world.disks.cache_bytes(), 4 * CHUNK as u64);
        let World { disks, store, config, data, .. } = world;
        if clean {
            assert!(disks.shutdown().await);
        }
        drop(disks);
        rot_slots(&data.path, 4);
        world = World::open(data, config, store).await;
        let path = world.ensure(&want).await.path;
        assert!(read_all(&path).await == image, "after a stop, clean: {clean}");
        assert_eq!(world.disks.cache_bad_chunks(), 4);
    }
}

/// The first write of a part of a block takes the rest of the block from the base. The next snapshot publishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_part_of_a_block_never_merges_damaged_bytes_of_the_cache() {
    let world = World::new().await;
    let image = Rng(11).bytes(2 * CHUNK);
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    assert!(read_all(&path).await == image);
    rot_slots(&world.data.path, 2);
    let mut expected = image;
    for chunk in 0..2 {
        let at = chunk * CHUNK + 50_100;
        expected[at..at + 10].fill(9);
        let path = path.clone();
        blocking(move || File::options().write(true).open(path).unwrap().write_all_at(&[9; 10], at as u64).unwrap())
            .await;
    }
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert!(export(&*world.store, &saved.root) == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_damaged_chunks_that_nobody_reads() {
    let world = World::new().await;
    let image = Rng(11).bytes(3 * CHUNK);
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    assert!(read_all(&path).await == image);
    rot_slots(&world.data.path, 2);
    eventually("the scrub dropped two chunks", Duration::from_secs(30), || world.disks.cache_bad_chunks() == 2).await;
    assert_eq!(world.disks.cache_bytes(), CHUNK as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_never_uses_damaged_bytes_of_the_cache() {
    let world = World::new().await;
    let image = Rng(11).bytes(2 * CHUNK);
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    assert!(
        blocking({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        })
        .await
            == image
    );
    rot_slots(&world.data.path, 2);
    blocking(move || {
        let file = File::options().write(true).open(path).unwrap();
        // More than half of each chunk, so that the rest is merged.
        file.write_all_at(&[9; CHUNK / 2 + 4096], 0).unwrap();
        file.write_all_at(&[9; CHUNK / 2 + 4096], CHUNK as u64).unwrap();
    })
    .await;
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert_eq!(world.disks.cache_bad_chunks(), 2);
    let mut expected = image;
    expected[..CHUNK / 2 + 4096].fill(9);
    expected[CHUNK..CHUNK + CHUNK / 2 + 4096].fill(9);
    assert!(export(&*world.store, &saved.root) == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_without_a_source_fails_at_its_deadline_and_other_reads_work() {
    // Writes have the same deadline, and a busy machine may need a second for what a first write makes durable.
    let world = World::with(|config| config.read_deadline = Duration::from_secs(3)).await;
    // The first chunk is empty, so that the disk can be mounted.
    let mut image = Rng(11).bytes(2 * CHUNK);
    image[..CHUNK].fill(0);
    let want = import(&storage_core::MemoryStore::new(), &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    blocking(move || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let chunk = CHUNK as u64;
        file.write_all_at(&[9; 4096], chunk).unwrap();
        let error = file.read_exact_at(&mut [0; 4096], chunk + 2 * 4096).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let mut block = [0; 4096];
        direct.read_exact_at(&mut block, chunk).unwrap();
        assert_eq!(block, [9; 4096]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_disk_leaves_nothing_behind() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let open = File::options().read(true).write(true).open(&path).unwrap();
    open.write_all_at(&[1; 4096], 0).unwrap();
    world.disks.remove(want.disk).await.unwrap();
    world.disks.remove(want.disk).await.unwrap();
    assert!(world.disks.status(want.disk).is_none());
    assert!(blocking(move || open.write_all_at(&[1; 4096], 0)).await.is_err());
    assert_eq!(mounts_below(&world.data.path), Vec::<std::path::PathBuf>::new());
    assert_eq!(std::fs::read_dir(world.data.path.join("disks")).unwrap().count(), 0);
    assert_eq!(world.data.holder().list().unwrap(), Vec::<String>::new());
}

/// A disk that is detached from an instance without a guest: its file goes at once, and what still has it open gets errors.
/// Nothing that was written before is lost, and the disk is not removed before a version has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_served_any_more_keeps_what_was_written_until_a_version_has_it() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let open = File::options().read(true).write(true).open(&path).unwrap();
    open.write_all_at(&[2; 4096], 4096).unwrap();
    let kept = DiskWant { served: false, ..want.clone() };
    for _ in 0..2 {
        let status = world.ensure(&kept).await;
        assert!(!status.mounted && !status.reachable);
    }
    assert!(blocking(move || open.write_all_at(&[3; 4096], 8192)).await.is_err(), "it is gone for whoever has it open");
    assert!(File::open(&path).is_err());
    let refused = world.disks.remove_saved(want.disk).await;
    assert!(matches!(refused, Err(DiskError::Unsaved { bytes: 4096, .. })), "{refused:?}");
    // It is cut as it is.
    let (commit, _) = world.cut(&[&kept]).await.pop().unwrap();
    let saved = world.save(&kept, commit).await;
    let mut expected = vec![1; 1 << 20];
    expected[4096..8192].fill(2);
    assert!(export(&*world.store, &saved.root) == expected);
    assert!(matches!(world.disks.remove_saved(want.disk).await, Err(DiskError::Unsaved { .. })), "not published");
    let kept = published(&kept, &saved);
    assert_eq!(world.ensure(&kept).await.unsaved_bytes, 0);
    // Given up: it is served again, with all that it holds.
    let served = DiskWant { served: true, ..kept.clone() };
    assert!(world.ensure(&served).await.mounted);
    let again = path.clone();
    assert!(blocking(move || std::fs::read(again).unwrap()).await == expected);
    world.disks.remove_saved(want.disk).await.unwrap();
    world.disks.remove_saved(want.disk).await.unwrap();
    assert_eq!(std::fs::read_dir(world.data.path.join("disks")).unwrap().count(), 0);
    assert_eq!(mounts_below(&world.data.path), Vec::<std::path::PathBuf>::new());
}

/// Ends a process, also when a test fails.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// As QEMU has them under libvirt: a copy of the host's mounts from when it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_shown_to_a_process_that_started_before_it_was_mounted() {
    let world = World::new().await;
    let isolated = ["--mount", "--propagation", "private", "sleep", "60"];
    let process = Ended(std::process::Command::new("unshare").args(isolated).spawn().unwrap());
    let pid = process.0.id();
    let mounts = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = mounts(std::process::id());
    eventually("mounts of its own", Duration::from_secs(10), || mounts(pid) != own).await;
    // Twice under one path: the second time, the mount of the first one is still there, and dead.
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    for round in 1..=2u8 {
        let path = world.ensure(&want).await.path;
        let theirs = std::path::Path::new(&format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap());
        let seen = theirs.clone();
        assert!(blocking(move || std::fs::read(seen).is_err()).await, "round {round}: it does not see it by itself");
        for _ in 0..2 {
            let path = path.clone();
            // It enters the other's mounts with its thread.
            let shown = std::thread::spawn(move || muster_agent::fuse::view::show(pid, &path));
            blocking(move || shown.join().unwrap()).await.unwrap();
        }
        let read = blocking(move || std::fs::read(theirs).unwrap()).await;
        assert!(read == vec![1; 1 << 20], "round {round}");
        world.ensure(&DiskWant { served: false, ..want.clone() }).await;
    }
    let nobody = std::thread::spawn(|| muster_agent::fuse::view::show(u32::MAX, std::path::Path::new("/etc/hostname")));
    assert!(blocking(move || nobody.join().unwrap()).await.is_err());
}

/// A write that goes to what lies under the mount would be acknowledged and lost (I2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_a_disk_refuses_programs_while_it_is_not_mounted() {
    let world = World::new().await;
    let image = vec![1; 1 << 20];
    let want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let refused = || {
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
        let mut opens = [File::options(), File::options(), File::options(), File::options()];
        opens[0].read(true);
        opens[1].write(true);
        opens[2].write(true).create(true).truncate(true);
        opens[3].append(true).create(true);
        for open in opens {
            assert_eq!(errno(open.open(&path).unwrap_err()), Errno::NXIO, "{open:?}");
        }
        assert_eq!(errno(File::create_new(&path).unwrap_err()), Errno::EXIST);
        assert!(std::fs::write(&path, "lost").is_err());
    };
    // A stop.
    assert!(world.disks.shutdown().await);
    refused();
    // Someone else unmounts it.
    let world = world.restart().await;
    refused();
    assert!(world.ensure(&want).await.mounted);
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
    refused();
    // A start after a kill, before the disk is served again: the mount of the dead process is removed.
    let world = world.restart().await;
    refused();
    // The file of an older agent, and one that a program made, are not taken for the disk, and nothing is thrown away.
    let aside = path.with_extension("raw.not-the-disk");
    for (bytes, kept) in [("", false), ("not lost", true)] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        world.ensure(&want).await;
        assert_eq!(std::fs::read_to_string(&aside).is_ok_and(|found| found == bytes), kept);
        let read = path.clone();
        assert!(blocking(move || std::fs::read(read).unwrap()).await == image);
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::FORCE | rustix::mount::UnmountFlags::DETACH)
            .unwrap();
        eventually("the end is noticed", Duration::from_secs(10), || !world.disks.status(want.disk).unwrap().mounted)
            .await;
    }
    // A folder of a stopped node can be removed as it is.
    world.disks.shutdown().await;
    std::fs::remove_dir_all(world.data.path.join("disks")).unwrap();
}

/// Requests of whole blocks are moved in batches; others are handled one by one at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fio_verifies_what_it_wrote_while_the_disk_is_cut() {
    let world = World::new().await;
    let image = Rng(11).bytes(32 << 20);
    let mut want = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path.display().to_string();
    for direct in ["1", "0"] {
        let file = format!("--filename={path}");
        let direct = format!("--direct={direct}");
        let fio = tokio::task::spawn_blocking(move || {
            run(
                "fio",
                &[
                    "--name=verify",
                    &file,
                    &direct,
                    "--rw=randrw",
                    "--bsrange=512-64k",
                    "--bs_unaligned=0",
                    "--blockalign=512",
                    "--ioengine=io_uring",
                    "--iodepth=16",
                    "--size=32m",
                    "--io_size=48m",
                    "--verify=crc32c",
                    "--verify_fatal=1",
                    "--verify_state_save=0",
                    "--do_verify=1",
                    "--verify_backlog=64",
                    "--fdatasync=64",
                ],
                Duration::from_secs(120),
            )
        });
        while !fio.is_finished() {
            let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
            let saved = world.save(&want, commit).await;
            want = published(&want, &saved);
            world.ensure(&want).await;
        }
        fio.await.unwrap();
    }
}
