//! Cuts and commits: which writes are in a version, how long writes are held, which cuts are refused, and what is stored.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use super::world::*;
use muster_agent::mirror::{DiskError, DiskWant, LostContent};
use muster_api::{CommitId, Reason, SnapshotId, VersionId, node_protocol::CutKey};
use storage_core::{ChunkSize, Descriptor, ObjectName, Salt};

const CHUNK: usize = 256 << 10;

async fn disk_of(world: &World, bytes: &[u8]) -> (DiskWant, PathBuf) {
    let want = import(&*world.store, bytes, ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    (want, path)
}

fn open(path: &PathBuf) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

async fn write(path: &PathBuf, at: u64, bytes: Vec<u8>) {
    let file = open(path);
    blocking(move || file.write_all_at(&bytes, at).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_the_hold_and_are_not_in_the_version() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    write(&path, 0, vec![1; 4096]).await;
    let key = CutKey::new(SnapshotId::generate(), 1);
    let cut = cut_disk(&want);
    world.disks.prepare(key, std::slice::from_ref(&cut)).await.unwrap();
    // While the cut is only prepared, writes continue and are in the version.
    write(&path, 4096, vec![2; 4096]).await;
    world.disks.hold(key, Duration::from_secs(20)).await.unwrap();
    let (written, told) = mpsc::channel();
    let held = std::thread::spawn({
        let path = path.clone();
        move || {
            open(&path).write_all_at(&[3; 4096], 512 << 10).unwrap();
            written.send(()).unwrap();
        }
    });
    // Reads do not wait. (A sync of the same file does wait in the kernel, for the inode's lock, which the write in
    // progress holds.)
    let file = open(&path);
    let mut block = [0; 4096];
    let block = blocking(move || {
        file.read_exact_at(&mut block, 0).unwrap();
        block
    })
    .await;
    assert_eq!(block, [1; 4096]);
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty), "the write waits");
    let members = world.disks.flip(key).await.unwrap();
    blocking(move || told.recv_timeout(Duration::from_secs(10)).unwrap()).await;
    held.join().unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].dirty_bytes, 8192);
    assert_eq!(world.disks.flip(key).await.unwrap(), members, "a repeated flip gives the same answer");
    let saved = world.save(&want, cut.commit).await;
    assert_eq!(saved.dirty_bytes, 8192);
    let version = export(&*world.store, &saved.root);
    let mut expected = vec![7; 1 << 20];
    expected[..4096].fill(1);
    expected[4096..8192].fill(2);
    assert!(version == expected);
    expected[512 << 10..(512 << 10) + 4096].fill(3);
    assert!(blocking(move || std::fs::read(path).unwrap()).await == expected);
}

/// I7 within one instance: a guest writes n to one of its disks and, once that is acknowledged, to the other. No cut may have
/// the later write without the earlier one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_disks_of_an_instance_are_cut_at_one_instant() {
    let world = World::new().await;
    let (first, first_path) = disk_of(&world, &vec![0; 1 << 20]).await;
    let mut second = import(&*world.store, &vec![0; 1 << 20], ChunkSize::DEFAULT);
    second.instance = first.instance;
    let second_path = world.ensure(&second).await.path;
    assert_eq!(world.disks.list_of(first.instance).len(), 2);
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let files = [open(&first_path), open(&second_path)];
        let mut n = 0_u64;
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            n += 1;
            for file in &files {
                file.write_all_at(&n.to_le_bytes().repeat(512), 0).unwrap();
            }
        }
        n
    });
    let mut cuts = Vec::new();
    for _ in 0..2 {
        cuts.push(world.cut(&[&first, &second]).await);
    }
    drop(stop);
    assert!(blocking(move || writer.join().unwrap()).await > 0);
    for cut in cuts {
        let mut seen = Vec::new();
        for ((commit, _), want) in cut.into_iter().zip([&first, &second]) {
            let content = export(&*world.store, &world.save(want, commit).await.root);
            seen.push(u64::from_le_bytes(content[..8].try_into().unwrap()));
        }
        assert!(seen[0] == seen[1] || seen[0] == seen[1] + 1, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_ends_after_its_limit_and_a_late_flip_is_refused() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    let key = CutKey::new(SnapshotId::generate(), 1);
    world.disks.prepare(key, &[cut_disk(&want)]).await.unwrap();
    let held = Instant::now();
    world.disks.hold(key, Duration::from_millis(200)).await.unwrap();
    write(&path, 0, vec![1; 4096]).await;
    assert!(
        held.elapsed() >= Duration::from_millis(190),
        "the write waited for the end of the hold, {:?}",
        held.elapsed()
    );
    assert!(matches!(world.disks.flip(key).await, Err(DiskError::HoldExpired(_))));
    assert_eq!(world.disks.epochs(want.disk), Some(1));
    // The next cut works.
    let (commit, member) = world.cut(&[&want]).await.pop().unwrap();
    assert_eq!(member.dirty_bytes, 4096);
    assert_eq!(export(&*world.store, &world.save(&want, commit).await.root)[..4096], [1; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_cut_changes_nothing_and_lets_writes_continue() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    let key = CutKey::new(SnapshotId::generate(), 1);
    world.disks.prepare(key, &[cut_disk(&want)]).await.unwrap();
    world.disks.hold(key, Duration::from_secs(60)).await.unwrap();
    let writer = tokio::spawn({
        let path = path.clone();
        async move { write(&path, 0, vec![1; 4096]).await }
    });
    world.disks.abort(key).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
    assert_eq!(world.disks.epochs(want.disk), Some(1));
    assert!(matches!(world.disks.flip(key).await, Err(DiskError::NotPrepared(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_with_four_epochs_is_busy_until_one_is_published() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    let mut commits = Vec::new();
    for n in 0..3u8 {
        write(&path, u64::from(n) * 4096, vec![n + 1; 4096]).await;
        commits.push(world.cut(&[&want]).await.pop().unwrap().0);
    }
    let refused = world.disks.prepare(CutKey::new(SnapshotId::generate(), 1), &[cut_disk(&want)]).await;
    assert!(matches!(refused, Err(DiskError::Busy { .. })), "{refused:?}");
    let first = world.save(&want, commits[0]).await;
    let want = published(&want, &first);
    world.ensure(&want).await;
    assert_eq!(world.disks.epochs(want.disk), Some(3));
    world.cut(&[&want]).await;
    // The second commit builds on the new base, and counts only what was written since.
    let second = world.save(&want, commits[1]).await;
    assert_eq!((second.base, second.dirty_bytes), (want.version, 4096));
    let version = export(&*world.store, &second.root);
    assert_eq!((version[0], version[4096], version[8192]), (1, 2, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_changes_stores_nothing_and_keeps_its_descriptor() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &Rng(3).bytes(1 << 20)).await;
    let before = world.store.usage();
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert_eq!((saved.dirty_bytes, saved.stored_bytes), (0, 0));
    assert_eq!(saved.root.descriptor, want.root.descriptor);
    // A chunk that is overwritten with the same bytes keeps its name.
    let bytes = blocking({
        let path = path.clone();
        move || std::fs::read(path).unwrap()
    })
    .await;
    write(&path, 0, bytes[..CHUNK].to_vec()).await;
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert_eq!((saved.dirty_bytes, saved.stored_bytes), (CHUNK as u64, 0));
    assert_eq!(saved.root.descriptor, want.root.descriptor);
    assert_eq!(world.store.usage().objects, before.objects);
    world.disks.abandon(want.disk, commit).await.unwrap();
    // Of a block, only the second version with it knows that it has the same bytes: the first one does not read its base.
    let mut want = want;
    for is_known in [false, true] {
        write(&path, CHUNK as u64 + 100, bytes[CHUNK + 100..CHUNK + 300].to_vec()).await;
        let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
        let saved = world.save(&want, commit).await;
        assert_eq!(saved.root.descriptor == want.root.descriptor, is_known);
        assert_eq!(saved.stored_bytes == 0, is_known);
        want = published(&want, &saved);
        world.ensure(&want).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zeroed_chunks_become_absent_and_an_all_zero_disk_has_no_root() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &Rng(3).bytes(3 * CHUNK)).await;
    // One chunk is zeroed by writing, one by punching, one by half of each.
    write(&path, 0, vec![0; CHUNK]).await;
    write(&path, 2 * CHUNK as u64, vec![0; CHUNK / 2]).await;
    let file = open(&path);
    blocking(move || {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, CHUNK as u64, CHUNK as u64).unwrap();
        rustix::fs::fallocate(&file, flags, 5 * CHUNK as u64 / 2, CHUNK as u64 / 2).unwrap();
    })
    .await;
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert_eq!(saved.root.root_page, None);
    assert_eq!(export(&*world.store, &saved.root), vec![0; 3 * CHUNK]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_folding_written_chunks_are_read_from_the_cache() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &Rng(3).bytes(4 * CHUNK)).await;
    let written = Rng(4).bytes(CHUNK);
    write(&path, CHUNK as u64, written.clone()).await;
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    let want = published(&want, &saved);
    let status = world.ensure(&want).await;
    assert_eq!((status.unsaved_bytes, status.local_bytes), (0, 0));
    assert_eq!(world.disks.epochs(want.disk), Some(1));
    // From now on the pool cannot return this chunk.
    let memory = world.memory.as_ref().unwrap();
    assert!(memory.damage(&ObjectName::of_chunk(Salt::SHARED, ChunkSize::DEFAULT, &written)));
    // Open the file again and drop the kernel's page cache.
    let file = open(&path);
    let got = blocking(move || {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut got = vec![0; CHUNK];
        file.read_exact_at(&mut got, CHUNK as u64).unwrap();
        got
    })
    .await;
    assert!(got == written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_names_the_version_and_the_object_that_no_node_has_any_more_until_it_can_be_read() {
    let world = World::new().await;
    let content = Rng(3).bytes(2 * CHUNK);
    let (want, path) = disk_of(&world, &content).await;
    let chunk = |n: usize| ObjectName::of_chunk(Salt::SHARED, ChunkSize::DEFAULT, &content[n * CHUNK..][..CHUNK]);
    assert!(world.memory.as_ref().unwrap().damage(&chunk(1)));
    let lost = || world.disks.status(want.disk).unwrap().lost;
    let read = |n: usize| {
        let file = open(&path);
        blocking(move || file.read_exact_at(&mut vec![0; 4096], (n * CHUNK) as u64))
    };
    read(0).await.unwrap();
    assert_eq!(lost(), None);
    read(1).await.unwrap_err();
    assert_eq!(lost(), Some(LostContent { version: want.version, objects: 1, first: chunk(1) }));
    read(0).await.unwrap();
    assert!(lost().is_some(), "reading another chunk says nothing of this one");
    import(&*world.store, &content, ChunkSize::DEFAULT);
    read(1).await.unwrap();
    assert_eq!(lost(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_many_disks_is_all_or_none() {
    let world = World::new().await;
    let (a, _) = disk_of(&world, &vec![1; 1 << 20]).await;
    let (b, path) = disk_of(&world, &vec![2; 1 << 20]).await;
    let gone = DiskWant { disk: muster_api::DiskId::generate(), ..a.clone() };
    let key = CutKey::new(SnapshotId::generate(), 1);
    let refused = world.disks.prepare(key, &[cut_disk(&a), cut_disk(&gone)]).await;
    assert!(matches!(refused, Err(DiskError::NotFound(_))));
    let old = muster_api::node_protocol::CutDisk { generation: 0, ..cut_disk(&b) };
    let refused = world.disks.prepare(key, &[cut_disk(&a), old]).await;
    assert!(matches!(refused, Err(DiskError::OlderGeneration { .. })));
    // The failed attempts are no obstacle to the next cut.
    write(&path, 0, vec![9; 4096]).await;
    let members = world.cut(&[&a, &b]).await;
    assert_eq!(members.iter().map(|(_, m)| m.dirty_bytes).collect::<Vec<_>>(), [0, 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_attempt_takes_over_and_another_snapshot_is_refused() {
    let world = World::new().await;
    let (want, _) = disk_of(&world, &vec![1; 1 << 20]).await;
    let snapshot = SnapshotId::generate();
    let prepare = async |key| world.disks.prepare(key, &[cut_disk(&want)]).await;
    prepare(CutKey::new(snapshot, 1)).await.unwrap();
    prepare(CutKey::new(snapshot, 1)).await.unwrap();
    assert!(matches!(prepare(CutKey::new(SnapshotId::generate(), 1)).await, Err(DiskError::Busy { .. })));
    prepare(CutKey::new(snapshot, 2)).await.unwrap();
    world.disks.hold(CutKey::new(snapshot, 2), Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.disks.flip(CutKey::new(snapshot, 2)).await.unwrap().len(), 1);
}

/// When an attempt is replaced, its timer must not end the hold of the next attempt (I7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timer_of_an_older_attempt_does_not_end_a_newer_hold() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    let snapshot = SnapshotId::generate();
    world.disks.prepare(CutKey::new(snapshot, 1), &[cut_disk(&want)]).await.unwrap();
    world.disks.hold(CutKey::new(snapshot, 1), Duration::from_millis(300)).await.unwrap();
    let cut = cut_disk(&want);
    world.disks.prepare(CutKey::new(snapshot, 2), std::slice::from_ref(&cut)).await.unwrap();
    world.disks.hold(CutKey::new(snapshot, 2), Duration::from_secs(20)).await.unwrap();
    // A late repetition of an earlier call changes nothing.
    assert!(world.disks.prepare(CutKey::new(snapshot, 2), std::slice::from_ref(&cut)).await.is_err());
    let (written, told) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        open(&path).write_all_at(&[3; 4096], 8192).unwrap();
        written.send(()).unwrap();
    });
    let waited = blocking(move || (told.recv_timeout(Duration::from_millis(700)), told)).await;
    assert_eq!(waited.0, Err(mpsc::RecvTimeoutError::Timeout), "the write still waits");
    assert_eq!(world.disks.flip(CutKey::new(snapshot, 2)).await.unwrap()[0].dirty_bytes, 0);
    blocking(move || waited.1.recv_timeout(Duration::from_secs(10)).unwrap()).await;
    writer.join().unwrap();
    assert!(matches!(world.disks.flip(CutKey::new(snapshot, 1)).await, Err(DiskError::HoldExpired(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_opened_is_never_replaced_by_a_new_one() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![7; 1 << 20]).await;
    write(&path, 0, vec![1; 4096]).await;
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    let dir = data.path.join("disks").join(want.disk.to_string());
    let meta = std::fs::read(dir.join("meta.json")).unwrap();
    std::fs::write(dir.join("meta.json"), &meta[..meta.len() / 2]).unwrap();
    let world = World::open(data, config, store).await;
    assert!(matches!(world.disks.ensure(&want).await, Err(DiskError::Corrupt { .. })));
    // With its record restored, the disk has its bytes again.
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    std::fs::write(dir.join("meta.json"), meta).unwrap();
    let world = World::open(data, config, store).await;
    let path = world.ensure(&want).await.path;
    assert_eq!(blocking(move || std::fs::read(path).unwrap()).await[..4096], [1; 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_contradict_the_disk_are_refused() {
    let world = World::new().await;
    let (want, path) = disk_of(&world, &vec![1; 1 << 20]).await;
    let newer = DiskWant { generation: 2, ..want.clone() };
    assert_eq!(world.ensure(&newer).await.generation, 2);
    assert!(matches!(world.disks.ensure(&want).await, Err(DiskError::OlderGeneration { have: 2, asked: 1, .. })));
    write(&path, 0, vec![9; 4096]).await;
    let elsewhere = DiskWant { version: VersionId::generate(), ..newer.clone() };
    assert!(matches!(world.disks.ensure(&elsewhere).await, Err(DiskError::Diverged { .. })));
    let unknown = world.disks.save(want.disk, CommitId::generate(), 1).await;
    assert!(matches!(unknown, Err(DiskError::NoCommit { .. })));
    let wrong = DiskWant { size_bytes: 5000, ..import(&*world.store, &[1; 4096], ChunkSize::MIN) };
    assert!(matches!(world.disks.ensure(&wrong).await, Err(DiskError::Invalid { .. })));
    let mut forged = import(&*world.store, &[1; 4096], ChunkSize::MIN);
    forged.root.root_page = import(&*world.store, &[2; 4096], ChunkSize::MIN).root.root_page;
    assert!(matches!(world.disks.ensure(&forged).await, Err(DiskError::Corrupt { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_larger_than_its_version_grows_the_tree() {
    let world = World::new().await;
    let image = Rng(3).bytes(CHUNK + 777);
    let mut want = import(&*world.store, &image, ChunkSize::MIN);
    // With chunks of 64 KiB, the tree needs another level beyond 16 MiB.
    want.size_bytes = 40 << 20;
    let path = world.ensure(&want).await.path;
    write(&path, 39 << 20, vec![5; 10_000]).await;
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    let mut expected = image;
    expected.resize(40 << 20, 0);
    expected[39 << 20..(39 << 20) + 10_000].fill(5);
    assert!(export(&*world.store, &saved.root) == expected);
    assert_eq!(Descriptor::decode(&hex::decode(&saved.root.descriptor).unwrap()).unwrap().size_bytes.0, 40 << 20);
}

/// A program has the file open all the while. What was cut before has the size of its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_grows_while_it_is_used_and_its_older_commits_keep_their_size() {
    let world = World::new().await;
    let image = Rng(3).bytes(2 * CHUNK - 4096);
    let (want, path) = disk_of(&world, &image).await;
    let file = open(&path);
    write(&path, 4096, vec![7; 4096]).await;
    let (before, _) = world.cut(&[&want]).await.pop().unwrap();
    let bigger = DiskWant { size_bytes: 40 << 20, ..want.clone() };
    let grown = world.ensure(&bigger).await;
    assert_eq!((grown.size_bytes, grown.mounted), (40 << 20, true));
    // A size of before changes nothing: a disk never shrinks.
    assert_eq!(world.ensure(&want).await.size_bytes, 40 << 20);
    let file = blocking(move || {
        assert_eq!(file.metadata().unwrap().len(), 40 << 20);
        let end = usize::try_from(want.size_bytes).unwrap();
        // Across the old end, and at the new one.
        file.write_all_at(&[8; 8192], end as u64 - 4096).unwrap();
        file.write_all_at(&[9; 4096], (40 << 20) - 4096).unwrap();
        let mut gap = vec![1; 4096];
        file.read_exact_at(&mut gap, 20 << 20).unwrap();
        assert!(gap.iter().all(|byte| *byte == 0));
        assert_eq!(file.set_len(41 << 20).unwrap_err().raw_os_error(), Some(libc::EPERM), "only its owner can do that");
        file
    })
    .await;
    let mut at_cut = image.clone();
    at_cut[4096..8192].fill(7);
    let mut now = at_cut.clone();
    now.resize(40 << 20, 0);
    now[image.len() - 4096..image.len() + 4096].fill(8);
    now[(40 << 20) - 4096..].fill(9);
    let saved = world.save(&bigger, before).await;
    assert!(export(&*world.store, &saved.root) == at_cut, "it was cut before");
    let bigger = published(&bigger, &saved);
    world.ensure(&bigger).await;
    let (after, _) = world.cut(&[&bigger]).await.pop().unwrap();
    let saved = world.save(&bigger, after).await;
    assert!(export(&*world.store, &saved.root) == now);
    drop(file);
    let world = world.restart().await;
    let path = world.ensure(&bigger).await.path;
    assert!(blocking(move || std::fs::read(path).unwrap()).await == now);
    // Folding ends the epochs of all sizes.
    let bigger = published(&bigger, &saved);
    world.ensure(&bigger).await;
    assert_eq!(world.disks.epochs(bigger.disk), Some(1));
    // One that cannot grow is there all the same.
    let world = world.restart().await;
    for size_bytes in [(40 << 20) + 512, 32 << 40] {
        let refused = world.disks.ensure(&DiskWant { size_bytes, ..bigger.clone() }).await.unwrap_err();
        assert!(matches!(&refused, DiskError::NotGrown { .. }) && refused.reason() == Reason::Invalid, "{refused}");
        let status = world.disks.status(bigger.disk).unwrap();
        assert_eq!((status.mounted, status.size_bytes), (true, 40 << 20));
    }
}

/// Growing copies nothing, so its epochs stay until a commit is published. Before they are in the way of a cut they are
/// merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_can_grow_again_and_again_and_be_cut_in_between() {
    let world = World::new().await;
    let (mut want, path) = disk_of(&world, &vec![1; CHUNK]).await;
    let mut expected = vec![1; CHUNK];
    for n in 2..12u8 {
        want.size_bytes += 4096;
        let mut grown = world.disks.ensure(&want).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = grown {
            assert!(error.reason() == Reason::Busy && std::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            grown = world.disks.ensure(&want).await;
        }
        let at = expected.len();
        expected.resize(at + 4096, n);
        expected[..usize::from(n)].fill(n);
        write(&path, at as u64, vec![n; 4096]).await;
        write(&path, 0, vec![n; usize::from(n)]).await;
        // A cut always finds a free epoch.
        let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
        assert!(export(&*world.store, &world.save(&want, commit).await.root) == expected);
        world.disks.abandon(want.disk, commit).await.unwrap();
    }
    assert!(blocking(move || std::fs::read(path).unwrap()).await == expected);
}

/// The controller takes only versions as large as their disks. Nothing but the size may change, and the second commit
/// changes nothing at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_changes_that_is_larger_than_its_version_gets_a_version_of_its_size() {
    let world = World::new().await;
    for (image_bytes, disk_bytes) in [(CHUNK + 777, CHUNK + 4096), (2 * CHUNK, 40 << 20), (777, 4096)] {
        for rewrites in [false, true] {
            let image = Rng(3).bytes(image_bytes);
            let mut want = import(&*world.store, &image, ChunkSize::MIN);
            want.size_bytes = disk_bytes as u64;
            let path = world.ensure(&want).await.path;
            let mut expected = image.clone();
            expected.resize(disk_bytes, 0);
            for _ in 0..2 {
                if rewrites {
                    write(&path, 0, image[..700].to_vec()).await;
                }
                let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
                let saved = world.save(&want, commit).await;
                let descriptor = Descriptor::decode(&hex::decode(&saved.root.descriptor).unwrap()).unwrap();
                assert_eq!(descriptor.size_bytes.0, disk_bytes as u64);
                assert!(export(&*world.store, &saved.root) == expected);
                let next = published(&want, &saved);
                let first = want.root.commit.is_none();
                assert_eq!(next.root.descriptor == want.root.descriptor, !first, "only the first one has a new size");
                world.ensure(&next).await;
                want = next;
            }
        }
    }
}

/// A controller whose database is an older copy asks for a version that the disk has left. Nothing unsaved is at stake, and
/// still it must not go back: what was published since would be reverted under the guest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_never_goes_back_to_an_earlier_version() {
    let world = World::new().await;
    let (first, path) = disk_of(&world, &Rng(3).bytes(1 << 20)).await;
    write(&path, 0, vec![7; CHUNK]).await;
    let (commit, _) = world.cut(&[&first]).await.pop().unwrap();
    let second = published(&first, &world.save(&first, commit).await);
    world.ensure(&second).await;
    assert_eq!(world.disks.status(first.disk).unwrap().unsaved_bytes, 0);
    let world = world.restart().await;
    let refused = world.disks.ensure(&first).await;
    assert!(matches!(refused, Err(DiskError::Diverged { .. })), "{refused:?}");
    let status = world.ensure(&second).await;
    assert_eq!((status.version, status.root), (second.version, second.root));
    assert_eq!(blocking(move || std::fs::read(status.path).unwrap()[0]).await, 7);
}
