//! Power cuts below the mirror (I2). A disk is written to, flushed, cut, published and abandoned while every change of its
//! files is recorded. Then the power is cut at moments of that record: a folder is created with everything that was synced
//! and any part of the rest, and the disk is opened there without its live map.
//!
//! Each sector must read as what the last acknowledged flush covered, or as something that was written later. The disk must
//! work again, and what it then acknowledges must survive the next power cut. `every_moment.rs` leaves no moment out.

mod every_moment;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use muster_api::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, Reason, SnapshotId, VersionId,
    node_protocol::{CutDisk, CutKey, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Descriptor, Kind, Record, Salt, lock,
    power::Random,
    store::{ChunkStore, MemoryStore},
    tree::{self, Leaf, Lookup},
    units::usize_from,
    zero::is_zero,
};
use tokio::time::Instant;

use super::{
    Config, DiskError, DiskWant, Disks, disk::Disk, epoch::FlushError, error::Fault, stable::recorder::Recorder,
    write::OwnedChange,
};
use crate::{helper::HelperProgram, holder::Holder};

const SECTOR: usize = 512;
const SECTORS: usize = 900;
/// Bytes of the disk once it has grown as far as it does.
const DISK_BYTES: u64 = (SECTORS * SECTOR) as u64 / 4096 * 4096;
/// Bytes of the disk at first: the last writer has nothing to write to.
const FIRST_BYTES: u64 = DISK_BYTES / 4096 * 2 / 3 * 4096;
const WRITERS: usize = 3;
const HELPER: &str = "MUSTER_TEST_HELPER";
const HELPER_PATH: &str = "MUSTER_TEST_HELPER_PATH";

/// Not a test of its own: the tests start this executable again with this test as a helper process.
#[test]
fn helper_process() {
    let Some(path) = std::env::var_os(HELPER_PATH) else { return };
    match std::env::var(HELPER).expect("the name of a helper").as_str() {
        "holder" => crate::holder::main(Path::new(&path)).expect("the holder ends well"),
        // The agent may have ended without a word.
        "first-reads" => drop(crate::fuse::first_reads::main(Path::new(&path))),
        other => panic!("there is no helper {other}"),
    }
}

/// The bytes that the n-th write puts into a sector. All differ, except that some are zeros. Number 0 is the image.
fn content(sector: usize, n: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let zeros = if n == 0 { (sector / 128).is_multiple_of(3) } else { is_zeroing(n) };
    if !zeros {
        let mut random = Random((sector as u64) << 32 | u64::from(n));
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes());
        }
    }
    bytes
}

fn is_zeroing(n: u32) -> bool {
    n % 5 == 4
}

fn contents(sectors: std::ops::Range<usize>, n: u32) -> Vec<u8> {
    sectors.flat_map(|sector| content(sector, n)).collect()
}

fn digests(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(SECTOR).map(crc32c::crc32c).collect()
}

/// An event that the test knows of. Each is also a mark in the record of file changes.
#[derive(Clone)]
enum Note {
    Begun {
        sectors: std::ops::Range<usize>,
        n: u32,
    },
    Done {
        sectors: std::ops::Range<usize>,
    },
    FlushBegun {
        id: usize,
    },
    Flushed {
        id: usize,
    },
    /// Somebody was told that the disk has this size.
    Grown(u64),
    /// The next process opened the disk and read these digests.
    Seen(Vec<u32>),
    Published(Box<DiskWant>),
}

/// What a sector may read as.
#[derive(Clone)]
struct Sector {
    /// Digests of all contents so far.
    history: Vec<u32>,
    /// Index in `history` of the newest acknowledged write.
    done: usize,
    /// Index in `history` of the newest write that an acknowledged flush covers.
    durable: usize,
}

/// What the disk may read as, according to the notes.
#[derive(Clone)]
struct Model {
    sectors: Vec<Sector>,
    flushes: std::collections::BTreeMap<usize, Vec<usize>>,
    published: Vec<DiskWant>,
    /// The largest size that somebody was told.
    bytes: u64,
}

impl Model {
    fn of(start: &[u32]) -> Self {
        let sector = |digest: &u32| Sector { history: vec![*digest], done: 0, durable: 0 };
        Self {
            sectors: start.iter().map(sector).collect(),
            flushes: Default::default(),
            published: Vec::new(),
            bytes: 0,
        }
    }

    fn take(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Begun { sectors, n } => {
                    for at in sectors.clone() {
                        self.sectors[at].history.push(crc32c::crc32c(&content(at, *n)));
                    }
                }
                Note::Done { sectors } => {
                    for sector in &mut self.sectors[sectors.clone()] {
                        sector.done = sector.history.len() - 1;
                    }
                }
                Note::FlushBegun { id } => {
                    self.flushes.insert(*id, self.sectors.iter().map(|sector| sector.done).collect());
                }
                Note::Flushed { id } => {
                    for (sector, done) in self.sectors.iter_mut().zip(&self.flushes[id]) {
                        sector.durable = sector.durable.max(*done);
                    }
                }
                Note::Seen(digests) => {
                    for (sector, digest) in self.sectors.iter_mut().zip(digests) {
                        sector.history.push(*digest);
                        sector.done = sector.history.len() - 1;
                    }
                }
                Note::Grown(bytes) => self.bytes = self.bytes.max(*bytes),
                Note::Published(want) => self.published.push(DiskWant::clone(want)),
            }
        }
    }

    /// Checks what is read after a power cut.
    fn check(&self, got: &[u32], when: &str) {
        self.check_from(got, when, |sector| sector.durable);
    }

    /// Checks what is read after only the process has ended.
    fn check_killed(&self, got: &[u32], when: &str) {
        self.check_from(got, when, |sector| sector.done);
    }

    fn check_from(&self, got: &[u32], when: &str, least: impl Fn(&Sector) -> usize) {
        assert_eq!(got.len(), self.sectors.len());
        for (at, (sector, got)) in self.sectors.iter().zip(got).enumerate() {
            let allowed = &sector.history[least(sector)..];
            assert!(
                allowed.contains(got),
                "{when}: sector {at} reads as value {:?} of its history, it has {} values and the first allowed one is {}",
                sector.history.iter().rposition(|digest| digest == got),
                sector.history.len(),
                least(sector),
            );
        }
    }
}

/// A node with one disk whose file changes are recorded.
struct Scene {
    dir: tempfile::TempDir,
    holder: Holder,
    /// For disks that are opened after a power cut. It forgets their live maps in between.
    other_holder: Holder,
    store: Arc<MemoryStore>,
    recorder: Arc<Recorder>,
    notes: Mutex<Vec<Note>>,
    flushes: AtomicUsize,
    want: DiskWant,
}

pub(super) fn holder(socket: std::path::PathBuf) -> Holder {
    let exe = std::env::current_exe().expect("own path").into_os_string().into_string().expect("text");
    let test = "mirror::power_tests::helper_process";
    let script = format!("{HELPER}=\"$1\" {HELPER_PATH}=\"$3\" exec \"{exe}\" --exact {test} --nocapture");
    let args = vec!["-c".into(), script.into(), "sh".into()];
    Holder::new(socket, HelperProgram { program: "/bin/sh".into(), args })
}

pub(super) fn config(data: &Path) -> Config {
    let id = uuid::Uuid::from_u128;
    let mut config = Config::new(data.to_owned(), ClusterId::from(id(1)), NodeId::from(id(2)));
    config.keep_free_bytes = 0;
    config.cache_bytes_max = 1 << 20;
    // The only share of the pool is this node's own. Its objects are cached, as those of other nodes are.
    config.memory_bytes_max = 0;
    config
}

fn import(store: &MemoryStore) -> DiskWant {
    let (salt, chunk) = (Salt::SHARED, ChunkSize::MIN);
    let mut image = contents(0..SECTORS, 0);
    // Not a multiple of a block; the disk is larger.
    image.truncate(usize_from(FIRST_BYTES) - 3000);
    let mut changes = std::collections::BTreeMap::new();
    let mut records = Vec::new();
    for (index, body) in (0u64..).zip(image.chunks(usize_from(chunk.bytes()))) {
        if !is_zero(body) {
            let record = Record::encode(Kind::Chunk, salt, Some(chunk), body, Compression::Auto);
            changes.insert(ChunkIndex(index), Some(Leaf::Whole(record.name())));
            records.push(record);
        }
    }
    let size = ByteLen(image.len() as u64);
    let committed = tree::commit(&Descriptor::empty(size, chunk, salt), size, &changes, &|_| None);
    let Ok(Lookup::Found(committed)) = committed else { panic!("an empty disk has no pages to miss") };
    records.extend(committed.records());
    store.put(1, &records).expect("put");
    let id = uuid::Uuid::from_u128;
    DiskWant {
        disk: DiskId::from(id(3)),
        instance: InstanceId::from(id(4)),
        generation: 1,
        size_bytes: FIRST_BYTES,
        version: VersionId::from(id(5)),
        root: VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex::encode),
            commit: None,
        },
        served: true,
        since_generation: 0,
    }
}

/// Digests of the disk before anything is written.
fn start() -> Vec<u32> {
    let mut image = contents(0..SECTORS, 0);
    image.truncate(usize_from(FIRST_BYTES) - 3000);
    image.resize(usize_from(DISK_BYTES), 0);
    digests(&image)
}

/// Digests of the disk. Where it does not reach yet there are zeros.
async fn read(disk: &Arc<Disk>) -> Vec<u32> {
    let mut bytes = disk.read(0, DISK_BYTES).await.expect("reads");
    bytes.resize(usize_from(DISK_BYTES), 0);
    digests(&bytes)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

impl Scene {
    fn new() -> Self {
        // Shown when the test fails.
        let logged = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer();
        let _set_by_the_first = logged.try_init();
        let dir = tempfile::Builder::new().prefix("muster-power-").tempdir().expect("folder");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("folder");
        let store = Arc::new(MemoryStore::new());
        Self {
            holder: holder(dir.path().join("holder.sock")),
            other_holder: holder(dir.path().join("other.sock")),
            recorder: Recorder::attach(&data),
            want: import(&store),
            store,
            notes: Mutex::default(),
            flushes: AtomicUsize::new(0),
            dir,
        }
    }

    fn note(&self, note: Note) {
        let mut notes = lock(&self.notes);
        self.recorder.mark();
        notes.push(note);
    }

    async fn open(&self) -> Arc<Disks> {
        self.open_at(&self.dir.path().join("data"), &self.holder).await
    }

    async fn open_at(&self, data: &Path, holder: &Holder) -> Arc<Disks> {
        let pool = PoolClient::local_only(self.store.clone());
        crate::fuse::open_disks(config(data), pool, holder.clone()).await.expect("opens")
    }

    fn model(&self, moment: usize) -> Model {
        let mut model = Model::of(&start());
        model.take(&lock(&self.notes)[..self.recorder.marks_before(moment)]);
        model
    }

    /// The newest published version.
    fn wanted(&self) -> DiskWant {
        let notes = lock(&self.notes);
        let published = notes.iter().rev().find_map(|note| match note {
            Note::Published(want) => Some(DiskWant::clone(want)),
            _ => None,
        });
        published.unwrap_or_else(|| self.want.clone())
    }

    async fn write(&self, disk: &Arc<Disk>, sectors: std::ops::Range<usize>, n: u32, punch: bool) -> Result<(), Fault> {
        let change = if punch && is_zeroing(n) {
            OwnedChange::Zero { bytes: (sectors.len() * SECTOR) as u64 }
        } else {
            OwnedChange::Data(contents(sectors.clone(), n))
        };
        self.note(Note::Begun { sectors: sectors.clone(), n });
        let offset = (sectors.start * SECTOR) as u64;
        // As in the FUSE shim: begin the write if possible, and if that or the transfer fails, use the general path.
        let moved = match &change {
            OwnedChange::Data(bytes) if n.is_multiple_of(2) => {
                disk.begin_write(offset, bytes.len() as u64).is_some_and(|write| {
                    let written = write.write(bytes).is_ok();
                    if written {
                        write.finish();
                    }
                    written
                })
            }
            _ => false,
        };
        if !moved {
            disk.change(offset, change, soon()).await?;
        }
        self.note(Note::Done { sectors });
        Ok(())
    }

    async fn flush(&self, disk: &Arc<Disk>) -> Result<(), Fault> {
        let id = self.flushes.fetch_add(1, Ordering::Relaxed);
        self.note(Note::FlushBegun { id });
        disk.flush().await?;
        self.note(Note::Flushed { id });
        Ok(())
    }

    /// Writes and flushes in its own part of the disk, until it has done its steps or something fails.
    async fn writer(
        self: Arc<Self>,
        disk: Arc<Disk>,
        part: usize,
        first: u32,
        steps: u32,
        seed: u64,
    ) -> Result<(), Fault> {
        let mut random = Random(seed << 8 | part as u64);
        // Parts begin and end inside of chunks and blocks.
        let sectors = usize_from(DISK_BYTES) / SECTOR;
        let (from, end) = (part * sectors / WRITERS / 8 * 8, (part + 1) * sectors / WRITERS / 8 * 8);
        for n in first..first + steps {
            let end = end.min(usize_from(disk.size_bytes()) / SECTOR);
            if end <= from {
                tokio::task::yield_now().await;
                continue;
            }
            let (at, len) = match random.below(4) {
                // Whole blocks.
                0 => {
                    (from + usize_from(random.below((end - from) as u64 / 8)) * 8, usize_from(random.below(6) + 1) * 8)
                }
                // The whole part.
                1 if random.below(8) == 0 => (from, end - from),
                _ => (from + usize_from(random.below((end - from) as u64)), usize_from(random.below(20) + 1)),
            };
            self.write(&disk, at..(at + len).min(end), n, random.below(2) == 0).await?;
            if random.below(5) == 0 {
                self.flush(&disk).await?;
            }
        }
        Ok(())
    }

    /// Cuts the disk repeatedly until the writers have ended; publishes some commits and abandons others.
    async fn cutter(self: Arc<Self>, disks: Arc<Disks>, seed: u64, ended: Arc<AtomicUsize>) -> Result<(), DiskError> {
        let mut random = Random(seed ^ 0xc07);
        let mut frozen: Vec<CommitId> = Vec::new();
        let id = self.want.disk;
        while ended.load(Ordering::Acquire) < WRITERS {
            let want = self.wanted();
            let key = CutKey::new(SnapshotId::generate(), 1);
            let (instance, generation) = (want.instance, want.generation);
            let cut = CutDisk { instance, disk: id, generation, commit: CommitId::generate() };
            if random.below(6) == 0 {
                let blocks = (DISK_BYTES - want.size_bytes) / 4096;
                let size_bytes = want.size_bytes + random.below(blocks + 1) * 4096;
                match self.grow(&disks, &DiskWant { size_bytes, ..want.clone() }).await {
                    Err(error) if error.reason() != Reason::Busy => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            match disks.prepare(key, std::slice::from_ref(&cut)).await {
                Ok(()) if random.below(6) == 0 => disks.abort(key).await?,
                Ok(()) => {
                    disks.hold(key, Duration::from_secs(20)).await?;
                    disks.flip(key).await?;
                    frozen.push(cut.commit);
                }
                Err(DiskError::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
            if let Some(oldest) = frozen.first().copied().filter(|_| frozen.len() > 2 || random.below(2) == 0) {
                frozen.remove(0);
                if random.below(3) == 0 {
                    disks.abandon(id, oldest).await?;
                } else {
                    let saved = disks.save(id, oldest, 1).await?;
                    if random.below(4) == 0 {
                        disks.abandon(id, oldest).await?;
                    } else {
                        let size_bytes = disks.status(id).expect("it is there").size_bytes;
                        let want = DiskWant { version: VersionId::generate(), root: saved.root, size_bytes, ..want };
                        self.note(Note::Published(Box::new(want.clone())));
                        disks.unmounted(&want).await?;
                    }
                }
            }
            for _ in 0..random.below(40) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Makes the disk larger and notes that it was told so.
    async fn grow(&self, disks: &Arc<Disks>, want: &DiskWant) -> Result<(), DiskError> {
        let disk = disks.unmounted(want).await?;
        self.note(Note::Grown(disk.size_bytes()));
        Ok(())
    }

    /// Runs the writers and the cutter at the same time. Returns whether nothing failed.
    async fn work(self: &Arc<Self>, disks: &Arc<Disks>, first: u32, steps: u32, seed: u64) -> bool {
        let Ok(disk) = disks.unmounted(&self.wanted()).await else { return false };
        let ended = Arc::new(AtomicUsize::new(0));
        let writers = (0..WRITERS).map(|part| {
            let (scene, disk, ended) = (self.clone(), disk.clone(), ended.clone());
            tokio::spawn(async move {
                let worked = scene.writer(disk, part, first, steps, seed).await;
                ended.fetch_add(1, Ordering::AcqRel);
                worked.is_ok()
            })
        });
        let writers: Vec<_> = writers.collect();
        let cut = self.clone().cutter(disks.clone(), seed, ended).await.is_ok();
        let mut worked = cut;
        for writer in writers {
            worked &= writer.await.expect("the writer does not panic");
        }
        worked
    }

    /// Opens what a power cut at `moment` left, and checks it. If `again`, uses the disk and cuts the power once more.
    async fn check_power_cut(self: &Arc<Self>, moment: usize, seed: u64, again: bool) {
        let when = format!("moment {moment}, cut {seed}");
        let dir = tempfile::Builder::new().prefix("muster-cut-").tempdir().expect("folder");
        self.recorder.after_power_cut(moment, seed, dir.path());
        let recorder = Recorder::attach(dir.path());
        let mut model = self.model(moment);
        let disks = self.open_after_cut(dir.path()).await;
        let Some(disk) = disks.disk(self.want.disk) else {
            assert!(model.sectors.iter().all(|sector| sector.history.len() == 1), "{when}: the disk is gone");
            recorder.end();
            return;
        };
        assert!(
            disk.size_bytes() >= model.bytes,
            "{when}: it has {} bytes, {} were told",
            disk.size_bytes(),
            model.bytes
        );
        let got = read(&disk).await;
        model.check(&got, &when);
        self.settle(&disks, &model, &when).await;
        let disk = disks.disk(self.want.disk).expect("still there");
        assert!(read(&disk).await == got, "{when}: it reads differently after commits are settled");
        if again {
            let mut notes = vec![Note::Seen(got)];
            let want = DiskWant { size_bytes: DISK_BYTES, ..model.published.last().unwrap_or(&self.want).clone() };
            self.grown_in_time(&disks, &want).await;
            for n in 10_000..10_004 {
                let at = usize_from((u64::from(n) * 97 + seed % 700) % 700);
                let sectors = at..at + 11;
                disk.change((sectors.start * SECTOR) as u64, OwnedChange::Data(contents(sectors.clone(), n)), soon())
                    .await
                    .expect("writes");
                notes.extend([Note::Begun { sectors: sectors.clone(), n }, Note::Done { sectors }]);
            }
            notes.push(Note::FlushBegun { id: usize::MAX });
            disk.flush().await.expect("flushes");
            notes.push(Note::Flushed { id: usize::MAX });
            model.take(&notes);
            let second = tempfile::Builder::new().prefix("muster-cut-").tempdir().expect("folder");
            recorder.after_power_cut(recorder.moments(), seed / 3, second.path());
            let disks = self.open_after_cut(second.path()).await;
            let disk = disks.disk(self.want.disk).unwrap_or_else(|| panic!("{when}, again: the disk is gone"));
            assert_eq!(disk.size_bytes(), DISK_BYTES, "{when}, again");
            model.check(&read(&disk).await, &format!("{when}, again"));
            self.settle(&disks, &model, &when).await;
        }
        recorder.end();
    }

    /// Opens the disks of a folder without any live map.
    async fn open_after_cut(&self, data: &Path) -> Arc<Disks> {
        for key in self.other_holder.list().expect("the holder answers") {
            self.other_holder.forget(&key).expect("forgets");
        }
        self.open_at(data, &self.other_holder).await
    }

    /// Does what the agent does with the commits it finds: abandons those that were not published, and makes the newest
    /// published version the base.
    async fn settle(&self, disks: &Arc<Disks>, model: &Model, when: &str) {
        let want = model.published.last().unwrap_or(&self.want).clone();
        for (disk, commit) in disks.commits() {
            if model.published.iter().all(|version| version.root.commit != Some(commit)) {
                disks.abandon(disk, commit).await.unwrap_or_else(|e| panic!("{when}: {e:?}"));
            }
        }
        disks.unmounted(&want).await.unwrap_or_else(|e| panic!("{when}: {e:?}"));
        let limit = Instant::now() + Duration::from_secs(20);
        // Epochs of other sizes may stay, as long as they are in nobody's way.
        let disk = disks.disk(self.want.disk).expect("it is there");
        while disk.abandoned().is_some() || disk.layers().epochs.len() > 2 {
            assert!(Instant::now() < limit, "{when}: {:?} epochs stay", disks.epochs(self.want.disk));
            tokio::task::yield_now().await;
        }
    }

    /// Makes the disk larger, also if epochs have to be merged first.
    async fn grown_in_time(&self, disks: &Arc<Disks>, want: &DiskWant) {
        let limit = Instant::now() + Duration::from_secs(20);
        while let Err(error) = disks.unmounted(want).await {
            assert!(error.reason() == Reason::Busy && Instant::now() < limit, "{error:?}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.recorder.end();
        for holder in [&self.holder, &self.other_holder] {
            if let Err(error) = holder.stop() {
                eprintln!("the holder did not stop: {error}");
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

#[test]
fn flushed_writes_survive_a_power_cut_at_any_moment() {
    for seed in 1..=4 {
        let scene = Arc::new(Scene::new());
        let mut random = Random(seed);
        runtime().block_on(async {
            let disks = scene.open().await;
            assert!(scene.work(&disks, 1, 50, seed).await, "seed {seed}: nothing fails");
            // Checks the model itself.
            let disk = disks.disk(scene.want.disk).expect("it exists");
            scene.model(usize::MAX).check_killed(&read(&disk).await, "before any cut");
            let moments = scene.recorder.moments();
            for n in 0..60 {
                let moment = usize_from(random.below(moments as u64 + 1));
                scene.check_power_cut(moment, random.next_u64() >> 8, n % 4 == 0).await;
            }
        });
    }
}

/// The process is killed in the middle of a change. The next one finds the live map and everything the kernel had, goes on,
/// and then the power is cut. What it flushed must survive, whichever process wrote it.
#[test]
fn writes_of_a_killed_process_that_the_next_one_flushed_survive_a_power_cut() {
    let mut random = Random(7);
    for seed in 1..=40 {
        let scene = Arc::new(Scene::new());
        runtime().block_on(async {
            scene.recorder.stop_after(5 + random.below(250));
            if let Ok(disks) = crate::fuse::open_disks(
                config(&scene.dir.path().join("data")),
                PoolClient::local_only(scene.store.clone()),
                scene.holder.clone(),
            )
            .await
            {
                scene.work(&disks, 1, 30, seed).await;
            }
        });
        scene.recorder.go_on();
        // In some runs the holder dies as well.
        let lost_memory = seed % 3 == 0;
        if lost_memory {
            scene
                .holder
                .list()
                .expect("the holder answers")
                .iter()
                .for_each(|key| scene.holder.forget(key).expect("forgets"));
        }
        let killed_at = scene.recorder.moments();
        runtime().block_on(async {
            let when = format!("seed {seed}, after the kill");
            let disks = scene.open().await;
            let mut model = scene.model(usize::MAX);
            if let Some(disk) = disks.disk(scene.want.disk) {
                let seen = read(&disk).await;
                if lost_memory {
                    model.check(&seen, &when);
                } else {
                    model.check_killed(&seen, &when);
                }
                scene.note(Note::Seen(seen.clone()));
                scene.flush(&disk).await.unwrap_or_else(|e| panic!("{when}: {e:?}"));
                model = scene.model(usize::MAX);
                scene.settle(&disks, &model, &when).await;
                assert!(read(&disk).await == seen, "{when}: it reads differently after commits are settled");
            } else {
                assert!(model.sectors.iter().all(|sector| sector.history.len() == 1), "{when}: the disk is gone");
            }
            assert!(scene.work(&disks, 1000, 4, seed).await, "{when}: nothing fails");
            let moments = scene.recorder.moments();
            for n in 0..8 {
                let moment = killed_at + usize_from(random.below((moments - killed_at) as u64 + 1));
                scene.check_power_cut(moment, random.next_u64() >> 8, n == 0).await;
            }
        });
    }
}

/// A failed sync is final: no flush is acknowledged after it, and what was acknowledged before survives.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_older_is_lost() {
    let mut random = Random(3);
    for seed in 1..=24 {
        let scene = Arc::new(Scene::new());
        runtime().block_on(async {
            let disks = scene.open().await;
            scene.recorder.fail_sync_after(8 + random.below(60));
            scene.work(&disks, 1, 30, seed).await;
            let moments = scene.recorder.moments();
            for _ in 0..6 {
                let moment = moments - usize_from(random.below(moments as u64 / 4 + 1));
                scene.check_power_cut(moment, random.next_u64() >> 8, false).await;
            }
        });
    }
}

/// A flush that comes after a failed one must fail as well, even before the disk as a whole is marked as failed.
#[test]
fn a_flush_after_a_failed_one_fails_too() {
    let scene = Arc::new(Scene::new());
    runtime().block_on(async {
        let disks = scene.open().await;
        let disk = disks.unmounted(&scene.want).await.expect("makes it");
        scene.write(&disk, 3..30, 1, false).await.expect("writes");
        scene.recorder.fail_sync_after(0);
        let epoch = disk.layers().current().clone();
        for _ in 0..2 {
            assert!(matches!(epoch.flush(), Err(FlushError::Final { .. })));
        }
    });
}

/// When a cut could not be recorded, or it is unknown whether it was, the disk still opens with all its writes.
#[test]
fn a_cut_that_fails_at_any_sync_loses_no_writes() {
    for syncs in 0..8 {
        let scene = Arc::new(Scene::new());
        runtime().block_on(async {
            let disks = scene.open().await;
            let disk = disks.unmounted(&scene.want).await.expect("makes it");
            scene.write(&disk, 3..30, 1, false).await.expect("writes");
            scene.flush(&disk).await.expect("flushes");
            scene.recorder.fail_sync_after(syncs);
            let want = &scene.want;
            let (instance, generation, commit) = (want.instance, want.generation, CommitId::generate());
            let cut = CutDisk { instance, disk: want.disk, generation, commit };
            let cut = disks.prepare(CutKey::new(SnapshotId::generate(), 1), &[cut]).await;
            assert!(cut.is_err() || syncs > 4, "sync {syncs} of a cut");
            for seed in 0..12 {
                scene.check_power_cut(scene.recorder.moments(), seed, false).await;
            }
        });
    }
}
