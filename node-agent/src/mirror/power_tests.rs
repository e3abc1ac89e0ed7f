//! Power cuts below the mirror (I2). A disk is written to, flushed, cut, published, abandoned; every change of its
//! files is recorded. Then the power is cut at moments of that record: folders are made that have all that was synced
//! and any part of the rest, and a disk is opened from them without its live map. It must read, sector by sector, as
//! what the last acknowledged flush covered or as something written later, never as anything else; go on working; and
//! what it acknowledges then must survive the next power cut.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use muster_api::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, SnapshotId, VersionId,
    node_protocol::{CutDisk, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Descriptor, Kind, Record, Salt,
    store::{ChunkStore, MemoryStore},
    tree::{self, Lookup},
    zero::is_zero,
};
use tokio::time::Instant;

use super::{
    Config, DiskError, DiskWant, Disks,
    disk::Disk,
    epoch::FlushError,
    error::Fault,
    read::to_usize,
    stable::recorder::{Random, Recorder},
    write::OwnedChange,
};
use crate::holder::{Holder, Start};

const SECTOR: usize = 512;
const SECTORS: usize = 900;
const DISK_BYTES: u64 = (SECTORS * SECTOR) as u64 / 4096 * 4096;
const WRITERS: usize = 3;
const HOLDER_SOCKET: &str = "MUSTER_TEST_HOLDER_SOCKET";

/// Not a test: this executable, started again, is the holder.
#[test]
fn holder_process() {
    if let Some(socket) = std::env::var_os(HOLDER_SOCKET) {
        crate::holder::main(Path::new(&socket)).expect("the holder ends well");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the n-th write of a sector puts there: each is told from all others, some are zeros. Number 0 is the image.
fn content(sector: usize, n: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let zeros = if n == 0 { (sector / 128).is_multiple_of(3) } else { is_zeroing(n) };
    if !zeros {
        let mut random = Random((sector as u64) << 32 | u64::from(n));
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
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

/// What the test knows of the order of things; each is also a mark in the record.
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
    /// The disk was opened again by another process, and read as this.
    Seen(Vec<u32>),
    Published(Box<DiskWant>),
}

/// What a sector has been and may be.
#[derive(Clone)]
struct Sector {
    history: Vec<u32>,
    done: usize,
    durable: usize,
}

/// What a disk may read as, by the notes.
#[derive(Clone)]
struct Model {
    sectors: Vec<Sector>,
    flushes: std::collections::BTreeMap<usize, Vec<usize>>,
    published: Vec<DiskWant>,
}

impl Model {
    fn of(start: &[u32]) -> Self {
        let sector = |digest: &u32| Sector { history: vec![*digest], done: 0, durable: 0 };
        Self { sectors: start.iter().map(sector).collect(), flushes: Default::default(), published: Vec::new() }
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
                Note::Published(want) => self.published.push(DiskWant::clone(want)),
            }
        }
    }

    /// After a power cut.
    fn check(&self, got: &[u32], when: &str) {
        self.check_from(got, when, |sector| sector.durable);
    }

    /// After the end of the process only.
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

/// One node that is recorded.
struct Scene {
    dir: tempfile::TempDir,
    holder: Holder,
    /// For disks opened from what a power cut left: their live maps are forgotten in between.
    other_holder: Holder,
    store: Arc<MemoryStore>,
    recorder: Arc<Recorder>,
    notes: Mutex<Vec<Note>>,
    flushes: AtomicUsize,
    want: DiskWant,
}

fn holder(socket: std::path::PathBuf) -> Holder {
    let exe = std::env::current_exe().expect("own path").into_os_string().into_string().expect("text");
    let test = "mirror::power_tests::holder_process";
    let script = format!("{HOLDER_SOCKET}=\"$2\" exec \"{exe}\" --exact {test} --nocapture");
    let args = vec!["-c".into(), script.into(), "sh".into()];
    Holder::new(socket, Start { program: "/bin/sh".into(), args, env: Vec::new() })
}

fn config(data: &Path) -> Config {
    let id = uuid::Uuid::from_u128;
    let mut config = Config::new(data.to_owned(), ClusterId::from(id(1)), NodeId::from(id(2)));
    config.keep_free_bytes = 0;
    config.cache_bytes_max = 1 << 20;
    config
}

fn import(store: &MemoryStore) -> DiskWant {
    let (salt, chunk) = (Salt::SHARED, ChunkSize::MIN);
    let mut image = contents(0..SECTORS, 0);
    // Of an odd size; the disk is larger.
    image.truncate(to_usize(DISK_BYTES) - 3000);
    let mut changes = std::collections::BTreeMap::new();
    let mut records = Vec::new();
    for (index, body) in (0u64..).zip(image.chunks(to_usize(chunk.bytes()))) {
        if !is_zero(body) {
            let record = Record::encode(Kind::Chunk, salt, Some(chunk), body, Compression::Auto);
            changes.insert(ChunkIndex(index), Some(record.name()));
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
        size_bytes: DISK_BYTES,
        version: VersionId::from(id(5)),
        root: VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex::encode),
            commit: None,
        },
    }
}

/// What the disk reads as before anything is written.
fn start() -> Vec<u32> {
    let mut image = contents(0..SECTORS, 0);
    image.truncate(to_usize(DISK_BYTES));
    let end = image.len();
    image[end - 3000..].fill(0);
    digests(&image)
}

async fn read(disk: &Arc<Disk>) -> Vec<u32> {
    digests(&disk.read(0, DISK_BYTES, soon()).await.expect("reads"))
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
        self.recorder.mark(notes.len());
        notes.push(note);
    }

    async fn open(&self) -> Arc<Disks> {
        self.open_at(&self.dir.path().join("data"), &self.holder).await
    }

    async fn open_at(&self, data: &Path, holder: &Holder) -> Arc<Disks> {
        let pool = PoolClient::local_only(self.store.clone());
        Disks::open(config(data), pool, holder.clone()).await.expect("opens")
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
        // As the shim: what can be moved together with others is, and whatever fails goes the long way.
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

    /// Writes and flushes in its own part of the disk until something fails.
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
        let sectors = to_usize(DISK_BYTES) / SECTOR;
        let (from, end) = (part * sectors / WRITERS / 8 * 8, (part + 1) * sectors / WRITERS / 8 * 8);
        for n in first..first + steps {
            let (at, len) = match random.below(4) {
                // Whole blocks.
                0 => (from + to_usize(random.below((end - from) as u64 / 8)) * 8, to_usize(random.below(6) + 1) * 8),
                // All of it, now and then.
                1 if random.below(8) == 0 => (from, end - from),
                _ => (from + to_usize(random.below((end - from) as u64)), to_usize(random.below(20) + 1)),
            };
            self.write(&disk, at..(at + len).min(end), n, random.below(2) == 0).await?;
            if random.below(5) == 0 {
                self.flush(&disk).await?;
            }
        }
        Ok(())
    }

    /// Cuts the disk again and again; publishes some commits, gives others up.
    async fn cutter(self: Arc<Self>, disks: Arc<Disks>, seed: u64, ended: Arc<AtomicUsize>) -> Result<(), DiskError> {
        let mut random = Random(seed ^ 0xc07);
        let mut frozen: Vec<CommitId> = Vec::new();
        let id = self.want.disk;
        while ended.load(Ordering::Acquire) < WRITERS {
            let want = self.wanted();
            let key = (SnapshotId::generate(), 1);
            let (instance, generation) = (want.instance, want.generation);
            let cut = CutDisk { instance, disk: id, generation, commit: CommitId::generate() };
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
                        let want = DiskWant { version: VersionId::generate(), root: saved.root, ..want };
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

    /// All of it at once, until the writers have done their steps or something failed.
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
            worked &= writer.await.expect("a writer that ends well");
        }
        worked
    }

    /// Opens what a power cut at `moment` left, and checks it; uses it again and cuts the power once more if `again`.
    async fn check_power_cut(self: &Arc<Self>, moment: usize, seed: u64, again: bool) {
        let when = format!("moment {moment}, cut {seed}");
        let dir = tempfile::Builder::new().prefix("muster-cut-").tempdir().expect("folder");
        self.recorder.after_power_cut(moment, seed, dir.path());
        let recorder = Recorder::attach(dir.path());
        let mut model = self.model(moment);
        let disks = self.open_after_cut(dir.path()).await;
        let Some(disk) = disks.found(self.want.disk) else {
            assert!(model.sectors.iter().all(|sector| sector.history.len() == 1), "{when}: the disk is gone");
            recorder.end();
            return;
        };
        let got = read(&disk).await;
        model.check(&got, &when);
        self.settle(&disks, &model, &when).await;
        let disk = disks.found(self.want.disk).expect("still there");
        assert!(read(&disk).await == got, "{when}: it reads otherwise once commits are settled");
        if again {
            let mut notes = vec![Note::Seen(got)];
            for n in 10_000..10_004 {
                let at = to_usize((u64::from(n) * 97 + seed % 700) % 700);
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
            let disk = disks.found(self.want.disk).unwrap_or_else(|| panic!("{when}, again: the disk is gone"));
            model.check(&read(&disk).await, &format!("{when}, again"));
            self.settle(&disks, &model, &when).await;
        }
        recorder.end();
    }

    /// Without any live map.
    async fn open_after_cut(&self, data: &Path) -> Arc<Disks> {
        for key in self.other_holder.list().expect("the holder answers") {
            self.other_holder.forget(&key).expect("forgets");
        }
        self.open_at(data, &self.other_holder).await
    }

    /// What the agent does with commits it finds: those that were not published are given up, the newest published
    /// version becomes the base.
    async fn settle(&self, disks: &Arc<Disks>, model: &Model, when: &str) {
        let want = model.published.last().unwrap_or(&self.want).clone();
        for (disk, commit) in disks.commits() {
            if model.published.iter().all(|version| version.root.commit != Some(commit)) {
                disks.abandon(disk, commit).await.unwrap_or_else(|e| panic!("{when}: {e:?}"));
            }
        }
        disks.unmounted(&want).await.unwrap_or_else(|e| panic!("{when}: {e:?}"));
        let limit = Instant::now() + Duration::from_secs(20);
        while disks.epochs(self.want.disk) != Some(1) {
            assert!(Instant::now() < limit, "{when}: {:?} epochs stay", disks.epochs(self.want.disk));
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
fn what_a_flush_acknowledged_survives_a_power_cut_at_any_moment() {
    for seed in 1..=4 {
        let scene = Arc::new(Scene::new());
        let mut random = Random(seed);
        runtime().block_on(async {
            let disks = scene.open().await;
            assert!(scene.work(&disks, 1, 50, seed).await, "seed {seed}: nothing fails");
            // Live reads are checked by the other suites; this is that the test's own books are right.
            let disk = disks.found(scene.want.disk).expect("there");
            scene.model(usize::MAX).check_killed(&read(&disk).await, "before any cut");
            let moments = scene.recorder.moments();
            for n in 0..60 {
                let moment = to_usize(random.below(moments as u64 + 1));
                scene.check_power_cut(moment, random.next() >> 8, n % 4 == 0).await;
            }
        });
    }
}

/// The process is killed in the middle of a change; the next one has the live map and what the kernel had. It goes on
/// from there, and then the power is cut: what it acknowledged counts, whichever process wrote it.
#[test]
fn what_a_killed_process_wrote_and_the_next_one_flushed_survives_a_power_cut() {
    let mut random = Random(7);
    for seed in 1..=40 {
        let scene = Arc::new(Scene::new());
        runtime().block_on(async {
            scene.recorder.stop_after(5 + random.below(250));
            if let Ok(disks) = Disks::open(
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
        // Now and then the holder dies with it, and the power stays on.
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
            if let Some(disk) = disks.found(scene.want.disk) {
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
                assert!(read(&disk).await == seen, "{when}: it reads otherwise once commits are settled");
            } else {
                assert!(model.sectors.iter().all(|sector| sector.history.len() == 1), "{when}: the disk is gone");
            }
            assert!(scene.work(&disks, 1000, 4, seed).await, "{when}: nothing fails");
            let moments = scene.recorder.moments();
            for n in 0..8 {
                let moment = killed_at + to_usize(random.below((moments - killed_at) as u64 + 1));
                scene.check_power_cut(moment, random.next() >> 8, n == 0).await;
            }
        });
    }
}

/// A sync that failed is final: nothing is acknowledged after it, and what was acknowledged before is there.
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
                let moment = moments - to_usize(random.below(moments as u64 / 4 + 1));
                scene.check_power_cut(moment, random.next() >> 8, false).await;
            }
        });
    }
}

/// Whoever flushes next, before the disk as a whole counts as failed, must not be told that all is well.
#[test]
fn a_flush_behind_one_that_failed_fails_too() {
    let scene = Arc::new(Scene::new());
    runtime().block_on(async {
        let disks = scene.open().await;
        let disk = disks.unmounted(&scene.want).await.expect("makes it");
        scene.write(&disk, 3..30, 1, false).await.expect("writes");
        scene.recorder.fail_sync_after(0);
        let epoch = disk.layers().current().clone();
        for _ in 0..2 {
            assert!(matches!(epoch.flush(), Err(FlushError::Final(_))));
        }
    });
}

/// A cut that could not be recorded, or nobody knows whether it was, leaves a disk that opens as what it was.
#[test]
fn a_cut_that_failed_at_any_sync_leaves_the_disk_whole() {
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
            let cut = disks.prepare((SnapshotId::generate(), 1), &[cut]).await;
            assert!(cut.is_err() || syncs > 4, "sync {syncs} of a cut");
            for seed in 0..12 {
                scene.check_power_cut(scene.recorder.moments(), seed, false).await;
            }
        });
    }
}
