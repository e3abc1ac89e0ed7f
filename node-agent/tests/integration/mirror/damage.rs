//! Damage in the files of a disk: it is told apart from what a power cut leaves, and nothing is reverted silently (I1, I2).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use muster_agent::mirror::{DiskError, DiskWant};
use muster_api::CommitId;
use storage_core::ChunkSize;

use super::world::*;

const BYTES: usize = 4 << 20;
/// Distance of the writes: a record of the journal has the state of 64 blocks, and each write gets one of its own.
const STEP: usize = 512 << 10;

/// Writes one block and flushes, several times, so that each flush is a record of the journal.
async fn flushed_writes(path: &Path) {
    let path = path.to_owned();
    blocking(move || {
        let file = File::options().write(true).open(path).unwrap();
        for n in 1..=5u8 {
            file.write_all_at(&[n; 4096], u64::from(n) * STEP as u64).unwrap();
            file.sync_data().unwrap();
        }
    })
    .await;
}

/// Flips a bit in the second record of the journal of the first epoch.
fn damage_journal(data: &Path, want: &DiskWant) -> (PathBuf, Vec<u8>) {
    let path = data.join(format!("disks/{}/0.bits", want.disk));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64 + 40] ^= 8;
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_costs_nothing_while_the_live_map_is_there() {
    let mut world = World::new().await;
    let want = import(&*world.store, &Rng(3).bytes(BYTES), ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    flushed_writes(&path).await;
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    let (journal, damaged) = damage_journal(&data.path, &want);
    world = World::open(data, config, store).await;
    assert!(std::fs::read(journal.with_extension("bits-damaged")).unwrap() == damaged, "the damaged file is kept");
    // From now on the new journal counts, also without the live map.
    world.disks.shutdown().await;
    world.data.holder().stop().unwrap();
    let world = world.restart().await;
    let path = world.ensure(&want).await.path;
    let read = blocking(move || std::fs::read(path).unwrap()).await;
    assert!((1..=5).all(|n| read[n * STEP] == u8::try_from(n).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_fails_its_disk_and_never_reverts_flushed_writes() {
    let mut world = World::new().await;
    let want = import(&*world.store, &Rng(3).bytes(BYTES), ChunkSize::DEFAULT);
    let other = import(&*world.store, &Rng(4).bytes(BYTES), ChunkSize::DEFAULT);
    flushed_writes(&world.ensure(&want).await.path).await;
    flushed_writes(&world.ensure(&other).await.path).await;
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    data.holder().stop().unwrap();
    let (journal, damaged) = damage_journal(&data.path, &want);
    world = World::open(data, config, store).await;
    // The second start finds the memory of the first one at the holder. It proves nothing.
    for _ in 0..2 {
        let Err(DiskError::Failed { what, .. }) = world.disks.ensure(&want).await else { panic!("it is mounted") };
        assert!(what.contains("0.bits is damaged at byte 64"), "{what}");
        assert!(what.contains("4096 bytes that were written between 1048576 and 1052672"), "{what}");
        assert_eq!(world.disks.status(want.disk).unwrap().failed, Some(what));
        assert_eq!(world.disks.status(want.disk).unwrap().unsaved_bytes, 4 * 4096, "the intact records are read");
        assert!(std::fs::read(&journal).unwrap() == damaged, "the file is kept as it is");
        // Other disks of the node are not affected.
        assert!(world.ensure(&other).await.failed.is_none());
        world = world.restart().await;
    }
    world.disks.remove(want.disk).await.unwrap();
    assert!(!journal.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_holds_beyond_its_version_is_salvaged_and_a_damaged_disk_is_refused() {
    let world = World::new().await;
    let want = import(&*world.store, &Rng(3).bytes(BYTES), ChunkSize::DEFAULT);
    let salvage = async |world: &World| world.disks.salvage(want.disk, CommitId::generate(), 1).await;
    assert!(matches!(salvage(&world).await, Err(DiskError::NotFound(_))));
    let path = world.ensure(&want).await.path;
    assert!(salvage(&world).await.unwrap().is_none(), "it holds nothing else");
    flushed_writes(&path).await;
    let expected = std::fs::read(&path).unwrap();
    assert!(world.disks.shutdown().await);
    let saved = salvage(&world).await.unwrap().unwrap();
    assert_eq!(saved.base, want.version);
    assert!(export(&*world.store, &saved.root) == expected);
    // After a reboot with a damaged journal nobody knows which bytes count.
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    damage_journal(&data.path, &want);
    data.holder().stop().unwrap();
    let world = World::open(data, config, store).await;
    let Err(DiskError::Failed { what, .. }) = salvage(&world).await else { panic!("it is saved as if it were whole") };
    assert!(what.contains("damaged"), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_record_is_damaged_is_refused_by_the_name_of_the_file_and_can_be_removed() {
    let world = World::new().await;
    let want = import(&*world.store, &Rng(3).bytes(BYTES), ChunkSize::DEFAULT);
    flushed_writes(&world.ensure(&want).await.path).await;
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    let record = data.path.join(format!("disks/{}/meta.json", want.disk));
    let mut bytes = std::fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&record, &bytes).unwrap();
    let world = World::open(data, config, store).await;
    let Err(DiskError::Corrupt { what, .. }) = world.disks.ensure(&want).await else { panic!("it is served") };
    assert!(what.contains(&record.display().to_string()) && what.contains("checksum"), "{what}");
    assert!(std::fs::read(&record).unwrap() == bytes, "nothing was made in its place");
    assert!(world.data.holder().list().unwrap().iter().any(|key| key.starts_with(&want.disk.to_string())));
    world.disks.remove(want.disk).await.unwrap();
    assert!(!record.parent().unwrap().exists());
    assert_eq!(world.data.holder().list().unwrap(), Vec::<String>::new(), "its live maps are dropped, too");
    world.ensure(&want).await;
}
