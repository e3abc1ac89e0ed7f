//! The record of a disk and the root page beside it. The page grows with what was written to the disk; the record is replaced
//! several times for each snapshot and must not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use super::world::*;
use muster_agent::mirror::DiskWant;
use muster_api::node_protocol::VersionRoot;
use serde_json::Value;
use storage_core::{ChunkSize, Descriptor};

const BYTES: usize = 4 << 20;
const BLOCK: usize = 4096;

fn folder(world: &World, want: &DiskWant) -> PathBuf {
    world.data.path.join("disks").join(want.disk.to_string())
}

/// The files with root pages in the folder of a disk.
fn pages(world: &World, want: &DiskWant) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder(world, want)).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "page")).collect()
}

/// Bytes of the record of a disk.
fn record(world: &World, want: &DiskWant) -> u64 {
    std::fs::metadata(folder(world, want).join("meta.json")).unwrap().len()
}

/// The same version as the controller sends it to the node that made it.
fn without_page(want: &DiskWant) -> DiskWant {
    DiskWant { root: VersionRoot { root_page: None, ..want.root.clone() }, ..want.clone() }
}

async fn read(world: &World, want: &DiskWant) -> Vec<u8> {
    let path = world.ensure(want).await.path;
    blocking(move || std::fs::read(path).unwrap()).await
}

/// Writes a block of each of many chunks, cuts, saves and makes the new version the base. Returns it with its page.
async fn snapshot(world: &World, want: &DiskWant, bytes: &mut [u8], n: u8) -> DiskWant {
    let path = world.ensure(want).await.path;
    for at in (usize::from(n) * BLOCK..BYTES).step_by(8 * BLOCK) {
        bytes[at..at + BLOCK].fill(n);
    }
    let now = bytes.to_vec();
    blocking(move || {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for at in (usize::from(n) * BLOCK..BYTES).step_by(8 * BLOCK) {
            file.write_all_at(&now[at..at + BLOCK], at as u64).unwrap();
        }
    })
    .await;
    let (commit, _) = world.cut(&[want]).await.pop().unwrap();
    let saved = world.save(want, commit).await;
    assert!(saved.root.root_page.is_some(), "the controller needs the page");
    let next = published(want, &saved);
    world.ensure(&without_page(&next)).await;
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_does_not_grow_with_the_root_page_and_has_one_beside_it() {
    let world = World::new().await;
    let mut bytes = Rng(5).bytes(BYTES);
    let mut want = import(&*world.store, &bytes, ChunkSize::MIN);
    world.ensure(&want).await;
    let mut sizes = Vec::new();
    for n in 1..4 {
        want = snapshot(&world, &want, &mut bytes, n).await;
        sizes.push((record(&world, &want), want.root.root_page.as_ref().unwrap().len()));
        assert_eq!(pages(&world, &want).len(), 1, "the page of the base, and none of earlier ones");
    }
    // Each adds a version to those that were the base before, and nothing else.
    let (first, last) = (sizes[0], sizes[2]);
    assert!(last.1 > first.1 + 64 * 100, "the pages grow: {sizes:?}");
    assert!(last.0 < first.0 + 2 * 64, "the records do not: {sizes:?}");
    assert!(read(&world, &without_page(&want)).await == bytes);
    // What is cut unchanged is saved with its page as well.
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert_eq!((&saved.root.root_page, saved.stored_bytes), (&want.root.root_page, 0));
    assert!(export(&*world.store, &saved.root) == bytes);
    // A process that starts finds the page there, and tells it where it is needed.
    let world = world.restart().await;
    let status = world.ensure(&without_page(&want)).await;
    assert_eq!(status.root.root_page, want.root.root_page);
    assert!(read(&world, &without_page(&want)).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_page_that_is_lost_or_damaged_is_fetched_from_the_pool() {
    let world = World::new().await;
    let mut bytes = Rng(6).bytes(BYTES);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    world.ensure(&want).await;
    let mut want = snapshot(&world, &want, &mut bytes, 1).await;
    let page = pages(&world, &want).pop().unwrap();
    let whole = std::fs::read(&page).unwrap();
    let torn = whole[..whole.len() / 2].to_vec();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    let mut world = world;
    for damage in [Some(torn), Some(flipped), None] {
        let World { disks, store, config, data, .. } = world;
        disks.shutdown().await;
        drop(disks);
        match damage {
            Some(bytes) => std::fs::write(&page, bytes).unwrap(),
            None => std::fs::remove_file(&page).unwrap(),
        }
        world = World::open(data, config, store).await;
        assert!(read(&world, &without_page(&want)).await == bytes);
    }
    // It goes on from there, although no page was ever sent.
    want = snapshot(&world, &without_page(&want), &mut bytes, 2).await;
    assert!(export(&*world.store, &want.root) == bytes);
}

/// A node is told the whole version by the first answer of the controller after its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_page_that_is_lost_is_kept_again_before_anything_is_read() {
    let world = World::new().await;
    let mut bytes = Rng(8).bytes(BYTES);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    world.ensure(&want).await;
    let want = snapshot(&world, &want, &mut bytes, 1).await;
    let page = pages(&world, &want).pop().unwrap();
    let whole = std::fs::read(&page).unwrap();
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    std::fs::write(&page, &whole[..whole.len() / 2]).unwrap();
    let world = World::open(data, config, store).await;
    assert_eq!(world.disks.status(want.disk).unwrap().root.root_page, None);
    assert_eq!(world.ensure(&want).await.root.root_page, want.root.root_page);
    assert_eq!(std::fs::read(&page).unwrap(), whole);
}

/// Records of earlier releases have the page in themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_the_root_page_in_it_is_read_and_replaced() {
    let world = World::new().await;
    let mut bytes = Rng(7).bytes(BYTES);
    let want = import(&*world.store, &bytes, ChunkSize::MIN);
    world.ensure(&want).await;
    let want = snapshot(&world, &want, &mut bytes, 1).await;
    let path = folder(&world, &want).join("meta.json");
    let pages = pages(&world, &want);
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    let mut sealed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut meta: Value = serde_json::from_str(sealed["meta"].as_str().unwrap()).unwrap();
    assert_eq!(meta["root"]["root_page"], Value::Null);
    meta["root"]["root_page"] = want.root.root_page.clone().unwrap().into();
    let text = meta.to_string();
    sealed["crc32c"] = crc32c::crc32c(text.as_bytes()).into();
    sealed["meta"] = text.into();
    std::fs::write(&path, sealed.to_string()).unwrap();
    pages.iter().for_each(|page| std::fs::remove_file(page).unwrap());
    let before = std::fs::metadata(&path).unwrap().len();
    let world = World::open(data, config, store).await;
    assert_eq!(world.ensure(&without_page(&want)).await.root.root_page, want.root.root_page);
    let next = snapshot(&world, &without_page(&want), &mut bytes, 2).await;
    assert!(record(&world, &next) < before / 2);
    let name = Descriptor::decode(&hex::decode(&next.root.descriptor).unwrap()).unwrap().root.unwrap();
    assert!(folder(&world, &next).join(format!("{name}.page")).exists());
    assert!(read(&world, &without_page(&next)).await == bytes);
}
