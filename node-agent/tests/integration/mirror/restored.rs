//! Another content is put in place of a disk: its copy of an older generation is given up, whatever it holds.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use super::world::*;
use muster_agent::mirror::{DiskError, DiskWant};
use storage_core::ChunkSize;

const MIB: usize = 1 << 20;

async fn write(path: &Path, at: u64, bytes: Vec<u8>) {
    let file = File::options().write(true).open(path).unwrap();
    blocking(move || {
        file.write_all_at(&bytes, at).unwrap();
        file.sync_all().unwrap();
    })
    .await;
}

async fn content(path: &Path) -> Vec<u8> {
    let path = path.to_owned();
    blocking(move || std::fs::read(path).unwrap()).await
}

/// The disk as it is wanted after this content was put in place in the next generation.
fn restored_to(now: &DiskWant, content: &DiskWant) -> DiskWant {
    let generation = now.generation + 1;
    let (version, root) = (content.version, content.root.clone());
    DiskWant { version, root, generation, since_generation: generation, ..now.clone() }
}

/// Deltas and bits in the folder of a disk.
fn files(world: &World, want: &DiskWant) -> Vec<String> {
    let folder = world.data.path.join("disks").join(want.disk.to_string());
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "meta.json" && !name.ends_with(".page")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_reads_what_was_put_in_place_and_nothing_of_its_copy_of_before_is_left() {
    let world = World::new().await;
    let image = Rng(5).bytes(MIB);
    let first = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&first).await.path;
    // One version later, with a commit that is not published and with unsaved writes.
    write(&path, 0, vec![1; 4096]).await;
    let (commit, _) = world.cut(&[&first]).await.pop().unwrap();
    let second = published(&first, &world.save(&first, commit).await);
    world.ensure(&second).await;
    write(&path, 4096, vec![2; 4096]).await;
    let (open_commit, _) = world.cut(&[&second]).await.pop().unwrap();
    write(&path, 8192, vec![3; 4096]).await;
    let held = File::options().read(true).write(true).open(&path).unwrap();

    let back = restored_to(&second, &first);
    // An older word of the controller changes nothing, and an old copy is not taken for the new content.
    let early = DiskWant { since_generation: 0, ..back.clone() };
    assert!(matches!(world.disks.ensure(&early).await, Err(DiskError::Diverged { .. })));
    assert_eq!(world.disks.status(back.disk).unwrap().unsaved_bytes, 8192);
    let status = world.ensure(&back).await;
    assert_eq!((status.generation, status.version, status.unsaved_bytes, status.mounted), (2, first.version, 0, true));
    assert!(content(&path).await == image);
    assert_eq!(files(&world, &back), ["0.bits", "0.delta"]);
    assert_eq!(world.data.holder().list().unwrap().len(), 1, "its live maps are gone");
    assert_eq!(world.disks.commits(), []);
    assert!(world.disks.save(back.disk, open_commit, 1).await.is_err());
    assert!(blocking(move || held.write_all_at(&[9; 4096], 0)).await.is_err(), "it is another file");
    // A repeated call, and a start of the agent, keep what is written now.
    write(&path, 16_384, vec![4; 4096]).await;
    world.ensure(&back).await;
    let mut now = image.clone();
    now[16_384..20_480].fill(4);
    assert!(content(&path).await == now);
    let world = world.restart().await;
    let path = world.ensure(&back).await.path;
    assert!(content(&path).await == now);
    let (commit, _) = world.cut(&[&back]).await.pop().unwrap();
    assert!(export(&*world.store, &world.save(&back, commit).await.root) == now);
    // A database that is an older copy asks for what was given up: the disk does not go back to it unasked.
    let older = DiskWant { version: second.version, root: second.root.clone(), ..back.clone() };
    assert!(matches!(world.disks.ensure(&older).await, Err(DiskError::Diverged { .. })));
    // Back to the version that it builds on already: what was written since is given up.
    let again = restored_to(&back, &first);
    assert_eq!(world.ensure(&again).await.unsaved_bytes, 0);
    assert!(content(&path).await == image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_grew_keeps_its_size_and_has_zeros_beyond_what_was_put_in_place() {
    let world = World::new().await;
    let image = Rng(6).bytes(MIB);
    let first = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&first).await.path;
    let bigger = DiskWant { size_bytes: 4 * MIB as u64, ..first.clone() };
    world.ensure(&bigger).await;
    write(&path, 3 * MIB as u64, vec![7; 4096]).await;
    // Its file is closed while the present is kept.
    let closed = DiskWant { served: false, ..bigger.clone() };
    assert!(!world.ensure(&closed).await.reachable);
    let back = restored_to(&bigger, &first);
    let status = world.ensure(&back).await;
    assert_eq!((status.size_bytes, status.mounted), (4 * MIB as u64, true));
    let mut expected = image;
    expected.resize(4 * MIB, 0);
    assert!(content(&path).await == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_in_between_and_a_copy_that_cannot_be_opened_end_in_the_new_content() {
    let world = World::new().await;
    let image = Rng(7).bytes(MIB);
    let first = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&first).await.path;
    write(&path, 0, vec![1; 4096]).await;
    let back = restored_to(&first, &first);
    // As after an agent that ended when it had removed the record and nothing else.
    world.disks.shutdown().await;
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    std::fs::remove_file(data.path.join("disks").join(first.disk.to_string()).join("meta.json")).unwrap();
    let world = World::open(data, config, store).await;
    let path = world.ensure(&back).await.path;
    assert!(content(&path).await == image);
    // One whose base cannot be read, so that it does not open: its record says of when it is.
    write(&path, 0, vec![2; 4096]).await;
    world.disks.shutdown().await;
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    let bits = data.path.join("disks").join(first.disk.to_string()).join("0.bits");
    std::fs::remove_file(&bits).unwrap();
    std::fs::create_dir(&bits).unwrap();
    let world = World::open(data, config, store).await;
    let kept = world.disks.ensure(&back).await;
    assert!(matches!(kept, Err(DiskError::Corrupt { .. })), "it is not given up unasked: {kept:?}");
    let again = restored_to(&back, &first);
    let status = world.ensure(&again).await;
    assert_eq!((status.generation, status.unsaved_bytes), (3, 0));
    assert!(content(&path).await == image);
}
