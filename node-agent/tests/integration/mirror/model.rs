//! Random writes, punches, syncs, cuts, publishes and restarts through a real mount are compared with a byte vector: the
//! disk at every read, and every version with the vector at the time of its cut. Another test has many writers of the same
//! blocks at once.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, on 64-bit hosts")]

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::world::*;
use muster_agent::mirror::{DiskWant, WritePolicy};
use muster_api::{CommitId, Reason, node_protocol::VersionRoot};
use rustix::fs::{FallocateFlags, fallocate};
use storage_core::ChunkSize;

fn image(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut image = vec![0; bytes];
    // Data and holes. The last chunk is a partial one.
    for part in image.chunks_mut(96 << 10).step_by(2) {
        rng.fill(part);
    }
    image
}

struct Model {
    world: World,
    want: DiskWant,
    bytes: Vec<u8>,
    versions: Vec<(VersionRoot, Vec<u8>)>,
    open: Vec<(CommitId, Vec<u8>)>,
    rng: Rng,
    growths: u64,
}

impl Model {
    fn file(&self, flags: i32) -> File {
        let path = self.world.disks.status(self.want.disk).unwrap().path;
        File::options().read(true).write(true).custom_flags(flags).open(path).unwrap()
    }

    fn range(&mut self) -> (usize, usize) {
        let size = self.bytes.len() as u64;
        let longest = [600, 5000, 70_000, 400_000, 1_300_000][self.rng.below(5) as usize];
        let mut at = self.rng.below(size);
        let mut n = 1 + self.rng.below(longest);
        if self.rng.below(2) == 0 {
            at &= !4095;
            n = (n + 4095) & !4095;
        }
        (at as usize, n.min(size - at) as usize)
    }

    async fn step(&mut self) {
        match self.rng.below(100) {
            0..55 => {
                let (at, n) = self.range();
                let data = if self.rng.below(8) == 0 { vec![0; n] } else { self.rng.bytes(n) };
                self.bytes[at..at + n].copy_from_slice(&data);
                let flags = [0, 0, libc::O_DSYNC, libc::O_SYNC][self.rng.below(4) as usize];
                let file = self.file(flags);
                blocking(move || file.write_all_at(&data, at as u64).unwrap()).await;
            }
            55..70 => {
                let (at, n) = self.range();
                self.bytes[at..at + n].fill(0);
                let flags = if self.rng.below(2) == 0 {
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
                } else {
                    FallocateFlags::ZERO_RANGE
                };
                let file = self.file(0);
                blocking(move || fallocate(&file, flags, at as u64, n as u64).unwrap()).await;
            }
            70..85 => {
                let (at, n) = self.range();
                let file = self.file(0);
                let got = blocking(move || {
                    let mut got = vec![0; n];
                    file.read_exact_at(&mut got, at as u64).unwrap();
                    got
                })
                .await;
                assert!(got == self.bytes[at..at + n], "bytes {at}+{n}");
            }
            85..90 => {
                let file = self.file(0);
                blocking(move || file.sync_data().unwrap()).await;
            }
            90..96 => self.snapshot().await,
            96..98 => self.settle().await,
            98 => self.grow().await,
            _ => self.restart().await,
        }
    }

    fn epochs(&self) -> usize {
        self.world.disks.epochs(self.want.disk).unwrap()
    }

    /// Makes the disk larger while it is used. What is new reads as zeros.
    async fn grow(&mut self) {
        let file = self.file(0);
        let size_bytes = self.want.size_bytes + 4096 * (1 + self.rng.below(400));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.world.disks.ensure(&DiskWant { size_bytes, ..self.want.clone() }).await {
            // Epochs of open commits are in the way, or earlier growth, whose epochs are being merged.
            assert!(error.reason() == Reason::Busy && std::time::Instant::now() < deadline, "{error}");
            self.settle().await;
        }
        self.want.size_bytes = size_bytes;
        self.bytes.resize(usize::try_from(self.want.size_bytes).unwrap(), 0);
        self.growths += 1;
        let bytes = blocking(move || file.metadata().unwrap().len()).await;
        assert_eq!(bytes, self.want.size_bytes, "programs that have it open see its size");
    }

    async fn snapshot(&mut self) {
        if self.epochs() >= 4 {
            return self.settle().await;
        }
        let mut cut = self.world.cut(&[&self.want]).await;
        let (commit, _) = cut.pop().unwrap();
        self.open.push((commit, self.bytes.clone()));
        if self.rng.below(2) == 0 {
            let saved = self.world.save(&self.want, commit).await;
            self.versions.push((saved.root.clone(), self.bytes.clone()));
        }
    }

    /// Publishes or abandons the oldest open commit.
    async fn settle(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (commit, bytes) = self.open.remove(0);
        if self.rng.below(3) == 0 {
            let before = self.epochs();
            self.world.disks.abandon(self.want.disk, commit).await.unwrap();
            eventually("an abandoned epoch merges", Duration::from_secs(20), || self.epochs() < before).await;
        } else {
            let saved = self.world.save(&self.want, commit).await;
            self.versions.push((saved.root.clone(), bytes));
            self.want = published(&self.want, &saved);
            self.world.ensure(&self.want).await;
        }
    }

    async fn restart(&mut self) {
        // Drop everything except the files: nothing in the memory of the old process may matter.
        let World { disks, store, config, data, .. } = std::mem::replace(&mut self.world, World::new().await);
        disks.shutdown().await;
        drop(disks);
        self.world = World::open(data, config, store).await;
        self.world.ensure(&self.want).await;
    }

    async fn check_all(&mut self) {
        let file = self.file(0);
        let n = self.bytes.len();
        let got = blocking(move || {
            let mut got = vec![0; n];
            file.read_exact_at(&mut got, 0).unwrap();
            got
        })
        .await;
        assert!(got == self.bytes, "the disk has what was written");
        for (n, (root, bytes)) in self.versions.iter().enumerate() {
            let got = export(&*self.world.store, root);
            assert!(got[..] == bytes[..got.len()], "version {n} has the bytes of the disk at its cut");
            assert!(
                bytes[got.len()..].iter().all(|b| *b == 0),
                "the disk has only zeros beyond the end of version {n}"
            );
        }
    }
}

async fn model(policy: WritePolicy, chunk: ChunkSize, seed: u64, steps: usize) {
    eprintln!("seed {seed}");
    let world = World::with(|config| {
        config.write_policy = policy;
        config.cache_bytes_max = 2 << 20;
        // With small chunks the pool counts as this node's own, and hardly anything of it fits into memory.
        config.memory_bytes_max = if chunk == ChunkSize::MIN { 512 << 10 } else { 0 };
    })
    .await;
    // Not a multiple of a block: the size of the disk is rounded up, that of the version is not.
    let mut bytes = image((6 << 20) - 1234, seed);
    let want = import(&*world.store, &bytes, chunk);
    bytes.resize(usize::try_from(want.size_bytes).unwrap(), 0);
    world.ensure(&want).await;
    let mut model = Model { world, want, bytes, versions: Vec::new(), open: Vec::new(), rng: Rng(seed), growths: 0 };
    for _ in 0..steps {
        model.step().await;
    }
    model.check_all().await;
    model.restart().await;
    model.check_all().await;
    assert!(model.versions.len() >= 3, "the run made versions");
    assert!(model.growths >= 1, "the disk grew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_has_the_bytes_of_the_disk_at_its_cut() {
    model(WritePolicy::Bitmap, ChunkSize::DEFAULT, 0x5eed_0001, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_has_the_bytes_of_the_disk_at_its_cut_with_small_chunks() {
    model(WritePolicy::Bitmap, ChunkSize::MIN, 0x5eed_0003, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_has_the_bytes_of_the_disk_at_its_cut_with_contiguous_writes() {
    model(WritePolicy::Contiguous, ChunkSize::MIN, 0x5eed_0002, 400).await;
}

/// Eight writers share a few blocks, each with its own 512 bytes of every block. Four others write whole blocks of their own.
/// Meanwhile the disk is cut repeatedly. No writer's last bytes may be lost to the merge of a neighbour, and every version
/// must have every write that was acknowledged before its cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_in_a_block_never_lose_each_others_writes() {
    const SHARERS: usize = 8;
    const SHARED_BLOCKS: u64 = 24;
    const OWNERS: usize = 4;
    const OWNED_BLOCKS: u64 = 16;
    /// Where a writer puts its count of a block.
    fn place(writer: usize, block: u64) -> u64 {
        if writer < SHARERS {
            block * 4096 + writer as u64 * 512
        } else {
            (SHARED_BLOCKS + (writer - SHARERS) as u64 * OWNED_BLOCKS + block) * 4096
        }
    }
    let world = World::new().await;
    let want = import(&*world.store, &image(4 << 20, 7), ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let stop = Arc::new(AtomicBool::new(false));
    let shared = (0..SHARERS).flat_map(|writer| (0..SHARED_BLOCKS).map(move |block| place(writer, block)));
    let owned = (SHARERS..SHARERS + OWNERS).flat_map(|writer| (0..OWNED_BLOCKS).map(move |block| place(writer, block)));
    let acked: Arc<HashMap<u64, AtomicU64>> = Arc::new(shared.chain(owned).map(|at| (at, AtomicU64::new(0))).collect());
    let writers: Vec<_> = (0..SHARERS + OWNERS)
        .map(|writer| {
            let (path, stop, acked) = (path.clone(), stop.clone(), acked.clone());
            let (length, blocks) = if writer < SHARERS { (512, SHARED_BLOCKS) } else { (4096, OWNED_BLOCKS) };
            std::thread::spawn(move || {
                // With O_DIRECT each write is a request of its own, in parallel with those of the others.
                let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
                let mut rng = Rng(writer as u64 + 99);
                let mut bytes = Aligned::new(length);
                for count in 1u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let at = place(writer, rng.below(blocks));
                    bytes[..8].copy_from_slice(&count.to_le_bytes());
                    file.write_all_at(&bytes, at).unwrap();
                    acked[&at].store(count, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let count_at = |bytes: &[u8], at: u64| {
        let at = at as usize;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let mut want = want;
    for round in 0..12 {
        let before: Vec<_> = acked.iter().map(|(at, n)| (*at, n.load(Ordering::SeqCst))).collect();
        let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
        let saved = world.save(&want, commit).await;
        let version = export(&*world.store, &saved.root);
        for (at, before) in before {
            let there = count_at(&version, at);
            assert!(
                before == 0 || there >= before,
                "round {round}: offset {at} has {there}, {before} was acknowledged"
            );
        }
        if round % 3 == 2 {
            want = published(&want, &saved);
            world.ensure(&want).await;
        } else {
            world.disks.abandon(want.disk, commit).await.unwrap();
            let (disks, disk) = (world.disks.clone(), want.disk);
            eventually("the abandoned epoch merges", Duration::from_secs(20), || disks.epochs(disk) == Some(1)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    blocking(move || writers.into_iter().for_each(|writer| writer.join().unwrap())).await;
    let bytes = blocking(move || std::fs::read(path).unwrap()).await;
    for (at, acked) in &*acked {
        let (there, acked) = (count_at(&bytes, *at), acked.load(Ordering::SeqCst));
        assert!(acked == 0 || there == acked, "offset {at} has {there}, {acked} was acknowledged last");
    }
}
