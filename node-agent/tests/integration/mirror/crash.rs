//! The serving process is killed repeatedly during writes and cuts. Every acknowledged write must be there after the next
//! start. When the holder is killed as well (which resembles a power cut), every synced write must be there.
//!
//! The killed process is this executable, started again to run only the test `serving_process`. It serves one disk from a
//! given data directory. The test itself writes to the mount.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, on 64-bit hosts")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::world::*;
use muster_agent::mirror::{DiskError, DiskWant};
use muster_api::{DiskId, InstanceId, SnapshotId, VersionId, node_protocol::CutKey};
use storage_core::{ChunkSize, MemoryStore};

const SERVE: &str = "MUSTER_TEST_SERVE";
const BLOCKS: usize = 512;
const BLOCK: usize = 4096;

fn image() -> Vec<u8> {
    // Zeros in the places of the counters, so that a block that was never written has count 0.
    let mut image = Rng(21).bytes(BLOCKS * BLOCK);
    for block in image.chunks_mut(BLOCK) {
        block[..16].fill(0);
        block[2048..2064].fill(0);
    }
    image
}

fn want(store: &MemoryStore) -> DiskWant {
    let id = |n: u128| uuid::Uuid::from_u128(n);
    DiskWant {
        disk: DiskId::from(id(3)),
        instance: InstanceId::from(id(4)),
        version: VersionId::from(id(5)),
        ..import(store, &image(), ChunkSize::MIN)
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn serving_process() {
    let Some(dir) = std::env::var_os(SERVE).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let data = DataDir::borrowed(dir.clone());
        let store = Arc::new(MemoryStore::new());
        let mut want = want(&store);
        let config = config(&data);
        let world = World::open(data, config, store).await;
        for (disk, commit) in world.disks.commits() {
            world.disks.abandon(disk, commit).await.unwrap();
        }
        let status = world.ensure(&want).await;
        assert!(status.mounted);
        std::fs::write(dir.join("ready-new"), status.path.to_str().unwrap()).unwrap();
        std::fs::rename(dir.join("ready-new"), dir.join("ready")).unwrap();
        want.size_bytes = status.size_bytes;
        // Cut and grow repeatedly until the process is killed. Nothing is published, so every commit is abandoned.
        for attempt in 1.. {
            if attempt % 5 == 0 {
                let bigger = DiskWant { size_bytes: want.size_bytes + BLOCK as u64, ..want.clone() };
                match world.disks.ensure(&bigger).await {
                    Ok(_) => want = bigger,
                    Err(DiskError::NotGrown { source, .. }) if matches!(*source, DiskError::Busy { .. }) => {}
                    Err(error) => panic!("{error}: {error:?}"),
                }
            }
            let key = CutKey::new(SnapshotId::generate(), attempt);
            let cut = cut_disk(&want);
            if world.disks.prepare(key, std::slice::from_ref(&cut)).await.is_err() {
                tokio::task::yield_now().await;
                continue;
            }
            world.disks.hold(key, Duration::from_millis(50)).await.unwrap();
            if world.disks.flip(key).await.is_ok() {
                if attempt % 2 == 0 {
                    world.save(&want, cut.commit).await;
                }
                world.disks.abandon(want.disk, cut.commit).await.unwrap();
            }
        }
    });
}

const WAIT: &str = "MUSTER_TEST_WAIT";

/// Not a test of its own: a process that is killed while the first read of its disk waits for bytes that never come.
#[test]
fn waiting_process() {
    let Some(dir) = std::env::var_os(WAIT).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let data = DataDir::borrowed(dir.clone());
        let want = import(&MemoryStore::new(), &Rng(22).bytes(BLOCK), ChunkSize::MIN);
        let config = config(&data);
        let disks = World::open(data, config, Arc::new(MemoryStore::new())).await.disks;
        let ensured = tokio::spawn({
            let (disks, want) = (disks.clone(), want.clone());
            async move { disks.ensure(&want).await }
        });
        let is_read = || disks.status(want.disk).is_some_and(|status| status.used_bytes > 0);
        eventually("the first read", Duration::from_secs(20), is_read).await;
        std::fs::write(dir.join("waits"), "").unwrap();
        drop(ensured.await);
        panic!("it was not killed in time");
    });
}

/// A process that reads its own mount and is killed never ends, and keeps its mounts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_during_a_first_read_ends() {
    let data = DataDir::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mirror::crash::waiting_process", "--nocapture"]).env(WAIT, &data.path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let waits = data.path.join("waits");
    eventually("its first read", Duration::from_secs(30), || waits.exists()).await;
    child.kill().unwrap();
    eventually("its end", Duration::from_secs(3), || child.try_wait().unwrap().is_some()).await;
}

struct Serving {
    child: Child,
    path: PathBuf,
}

impl Serving {
    async fn start(dir: &Path) -> Self {
        let ready = dir.join("ready");
        drop(std::fs::remove_file(&ready));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "mirror::crash::serving_process", "--nocapture"])
            .env(SERVE, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the disk is served", Duration::from_secs(30), || {
            assert!(child.try_wait().unwrap().is_none(), "the serving process ended");
            ready.exists()
        })
        .await;
        Self { child, path: std::fs::read_to_string(ready).unwrap().into() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The counts that one half of a block may hold. Counts only grow.
#[derive(Clone, Copy, Default)]
struct Half {
    acked: u64,
    issued: u64,
    synced: u64,
}

struct Writer {
    halves: Vec<Half>,
    rng: Rng,
    count: u64,
    acked: Arc<AtomicU64>,
}

impl Writer {
    /// Writes until it fails: whole blocks (both halves), and pieces of a block (one half). Syncs after some writes.
    fn run(&mut self, path: &Path) {
        let Ok(file) = File::options().read(true).write(true).open(path) else { return };
        loop {
            self.count += 1;
            let block = self.rng.below(BLOCKS as u64) as usize;
            let whole = self.rng.below(2) == 0;
            let halves =
                if whole { vec![2 * block, 2 * block + 1] } else { vec![2 * block + self.rng.below(2) as usize] };
            let mut bytes = Vec::new();
            for half in &halves {
                self.halves[*half].issued = self.count;
                // A piece is only the first bytes of a half. The rest is the image's, or zeros from a whole write.
                let mut part = vec![0; if whole { 2048 } else { 16 }];
                part[..8].copy_from_slice(&self.count.to_le_bytes());
                bytes.extend(part);
            }
            if file.write_all_at(&bytes, halves[0] as u64 * 2048).is_err() {
                return;
            }
            for half in &halves {
                self.halves[*half].acked = self.count;
            }
            self.acked.fetch_add(1, Ordering::Relaxed);
            if self.rng.below(16) == 0 {
                if file.sync_data().is_err() {
                    return;
                }
                for half in &mut self.halves {
                    half.synced = half.acked;
                }
            }
        }
    }

    /// Reads everything, checks it, and continues from what was read.
    fn check(&mut self, path: &Path, lost_memory: bool) {
        let bytes = std::fs::read(path).unwrap();
        for (n, half) in self.halves.iter_mut().enumerate() {
            let there = u64::from_le_bytes(bytes[n * 2048..n * 2048 + 8].try_into().unwrap());
            let least = if lost_memory { half.synced } else { half.acked };
            assert!(
                there == half.issued || (there >= least && there <= half.issued),
                "half {n} has {there}, expected at least {least} and at most {}",
                half.issued
            );
            *half = Half { acked: there, issued: there, synced: half.synced.min(there) };
        }
    }
}

async fn killed_again_and_again(rounds: u64, lost_memory: bool, seed: u64) {
    let data = DataDir::new();
    let acked = Arc::new(AtomicU64::new(0));
    let halves = vec![Half::default(); 2 * BLOCKS];
    let mut writer = Some(Writer { halves, rng: Rng(seed), count: 0, acked: acked.clone() });
    let mut rng = Rng(seed + 1);
    for round in 0..rounds {
        let serving = Serving::start(&data.path).await;
        let (path, mut checking) = (serving.path.clone(), writer.take().unwrap());
        let writing = tokio::task::spawn_blocking(move || {
            checking.check(&path, lost_memory && round > 0);
            checking.run(&path);
            checking
        });
        let enough = acked.load(Ordering::Relaxed) + 30 + rng.below(150);
        eventually("the writer makes progress", Duration::from_secs(60), || acked.load(Ordering::Relaxed) >= enough)
            .await;
        drop(serving);
        let written = tokio::time::timeout(Duration::from_secs(30), writing).await.unwrap().unwrap();
        writer = Some(written);
        if lost_memory {
            data.holder().stop().unwrap();
        }
    }
    let serving = Serving::start(&data.path).await;
    let (path, mut writer) = (serving.path.clone(), writer.take().unwrap());
    blocking(move || writer.check(&path, lost_memory)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_when_the_process_is_killed() {
    killed_again_and_again(8, false, 31).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synced_writes_survive_without_the_live_map() {
    killed_again_and_again(6, true, 41).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_holder_gets_the_live_maps_when_only_the_old_one_died() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let write = |n: u8| {
        let path = path.clone();
        blocking(move || {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(&[n; BLOCK], u64::from(n) * BLOCK as u64).unwrap();
        })
    };
    write(2).await;
    world.data.holder().stop().unwrap();
    // Writes still work, because the live map is mapped into this process.
    write(3).await;
    // The next call that needs the holder starts a new one and hands over the live maps of this process.
    world.cut(&[&want]).await;
    write(4).await;
    let World { disks, store, config, data, .. } = world;
    drop(disks);
    let world = World::open(data, config, store).await;
    let path = world.ensure(&want).await.path;
    let bytes = blocking(move || std::fs::read(path).unwrap()).await;
    for n in [2, 3, 4] {
        assert_eq!(bytes[n * BLOCK..(n + 1) * BLOCK], [u8::try_from(n).unwrap(); BLOCK]);
    }
}

#[test]
fn a_holder_ends_when_its_socket_cannot_be_reached() {
    let data = DataDir::new();
    let holder = data.holder();
    holder.get("a", 8192).unwrap();
    assert!(!holder.get("a", 8192).unwrap().fresh());
    assert!(holder.get("a", 4096).is_err(), "another size is refused");
    assert_eq!(holder.list().unwrap(), ["a"]);
    holder.forget("a").unwrap();
    assert!(holder.get("a", 8192).unwrap().fresh());
    let aside = data.path.join("aside.sock");
    std::fs::rename(data.socket(), &aside).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&aside).is_ok() {
        assert!(std::time::Instant::now() < deadline, "the holder did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}
