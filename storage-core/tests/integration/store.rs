//! One suite for all stores, then what only a store on a disk can get wrong.
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
};

use crate::suite::{World, chunk};
use storage_core::{
    ChunkStore, Compression, Kind, MemoryStore, ObjectName, Record, Salt, SegmentStore,
    store::{
        BadCopy, Call, Fault, FaultyStore, Full, Listed, Options, PutSummary, SimDisk, StoreError, Unreadable, Usage,
    },
};

/// Many small segments and an index that is written often, so that a short test meets the end of each.
fn small() -> Options {
    Options { limit_bytes: None, segment_bytes: 20_000, index_after_bytes: 30_000, index_after_objects: 10 }
}

/// A store that the world keeps a reference to.
struct Shared<S>(Arc<S>);

impl<S: ChunkStore> ChunkStore for Shared<S> {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        self.0.put(round, records)
    }
    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.0.touch(round, names)
    }
    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        self.0.remove(below, names)
    }
    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        self.0.reclaim(go_on)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.0.get(name)
    }
    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        self.0.find(name)
    }
    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.0.list(after, count_max)
    }
    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.0.list_all(after, count_max)
    }
    fn unreadable(&self) -> Vec<Unreadable> {
        self.0.unreadable()
    }
    fn doubt(&self, names: &[ObjectName]) {
        self.0.doubt(names);
    }
    fn usage(&self) -> Usage {
        self.0.usage()
    }
    fn take_bad_copies(&self) -> Vec<BadCopy> {
        self.0.take_bad_copies()
    }
}

#[derive(Default)]
struct Memory(RefCell<Arc<MemoryStore>>);

impl World for Memory {
    fn store(&self, limit_bytes: Option<u64>) -> Box<dyn ChunkStore> {
        let store = Arc::new(limit_bytes.map_or_else(MemoryStore::new, MemoryStore::with_limit));
        self.0.replace(store.clone());
        Box::new(Shared(store))
    }
    fn damage(&self, name: &ObjectName) {
        assert!(self.0.borrow().damage(name));
    }
}

impl Default for FaultyWorld {
    fn default() -> FaultyWorld {
        FaultyWorld(RefCell::new(Arc::new(FaultyStore::new(MemoryStore::new()))))
    }
}

struct FaultyWorld(RefCell<Arc<FaultyStore<MemoryStore>>>);

impl World for FaultyWorld {
    fn store(&self, limit_bytes: Option<u64>) -> Box<dyn ChunkStore> {
        let memory = limit_bytes.map_or_else(MemoryStore::new, MemoryStore::with_limit);
        let store = Arc::new(FaultyStore::new(memory));
        self.0.replace(store.clone());
        Box::new(Shared(store))
    }
    fn damage(&self, name: &ObjectName) {
        assert!(self.0.borrow().inner().damage(name));
    }
}

struct OnFolder {
    folder: tempfile::TempDir,
    options: Options,
}

impl OnFolder {
    fn new(options: Options) -> OnFolder {
        OnFolder { folder: tempfile::tempdir().expect("a folder"), options }
    }
}

impl World for OnFolder {
    fn store(&self, limit_bytes: Option<u64>) -> Box<dyn ChunkStore> {
        let options = Options { limit_bytes, ..self.options.clone() };
        Box::new(SegmentStore::open(self.folder.path(), options).expect("opens"))
    }
    fn damage(&self, _name: &ObjectName) {
        damage_first_object(self.folder.path());
    }
}

struct OnSimulatedDisk(SimDisk);

impl World for OnSimulatedDisk {
    fn store(&self, limit_bytes: Option<u64>) -> Box<dyn ChunkStore> {
        Box::new(SegmentStore::open_on(Arc::new(self.0.clone()), Options { limit_bytes, ..small() }).expect("opens"))
    }
    fn damage(&self, _name: &ObjectName) {
        assert!(self.0.damage("segment-0000000001", FIRST_PAYLOAD));
    }
}

/// Offset of the first object's bytes, after the headers of segment, frame and record.
const FIRST_PAYLOAD: u64 = 64 + 32 + 80;

fn damage_first_object(folder: &Path) {
    flip(&folder.join("segment-0000000001"), FIRST_PAYLOAD);
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writes");
}

mod memory {
    use super::*;
    crate::suite::behaves_like_a_store!(Memory::default());
}

mod faulty_without_faults {
    use super::*;
    crate::suite::behaves_like_a_store!(FaultyWorld::default());
}

mod segments {
    use super::*;
    crate::suite::behaves_like_a_store!(OnFolder::new(Options::default()));
}

mod small_segments {
    use super::*;
    crate::suite::behaves_like_a_store!(OnFolder::new(small()));
}

mod segments_on_a_simulated_disk {
    use super::*;
    crate::suite::behaves_like_a_store!(OnSimulatedDisk(SimDisk::new()));
}

fn open(folder: &Path) -> SegmentStore {
    SegmentStore::open(folder, small()).expect("opens")
}

/// Copies the folder of a running store, as a killed process would leave it: what is in memory only is not in it.
fn kill(store: SegmentStore, folder: &Path) -> PathBuf {
    let copy = folder.join("killed");
    fs::create_dir(&copy).expect("makes");
    for entry in fs::read_dir(folder).expect("lists").flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
    }
    drop(store);
    copy
}

fn fill(store: &SegmentStore, seeds: std::ops::Range<u64>) -> Vec<Record> {
    let records: Vec<Record> = seeds.map(|n| chunk(n, 500 + usize::try_from(n * 131 % 4000).expect("small"))).collect();
    for part in records.chunks(5) {
        store.put(1, part).expect("puts");
        store.sync().expect("syncs");
    }
    records
}

fn all_here(store: &SegmentStore, records: &[Record]) {
    for record in records {
        let found = store.get(&record.name()).expect("reads").expect("is here");
        assert_eq!(found.stored(), record.stored());
    }
    assert_eq!(store.usage().objects, records.len() as u64);
    assert_eq!(store.usage().bytes, records.iter().map(|r| r.stored().len() as u64).sum::<u64>());
    assert_eq!(store.names().expect("lists").len(), records.len());
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("lists").flatten().map(|e| e.path());
    let mut segments: Vec<_> = entries.filter(|p| p.to_string_lossy().contains("segment-")).collect();
    segments.sort();
    segments
}

#[test]
fn a_clean_stop_leaves_nothing_to_scan() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let records = fill(&store, 0..60);
    store.close().expect("closes");
    assert!(segments(folder.path()).len() > 3);
    let store = open(folder.path());
    assert_eq!((store.opened().rebuilt, store.opened().scanned_bytes), (false, 0));
    all_here(&store, &records);
}

#[test]
fn a_killed_store_scans_what_the_index_does_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let records = fill(&store, 0..60);
    let killed = kill(store, folder.path());
    let store = open(&killed);
    assert!(!store.opened().rebuilt);
    assert!(store.opened().scanned_bytes < 60_000, "{:?}", store.opened());
    all_here(&store, &records);
}

#[test]
fn without_an_index_everything_is_scanned_and_stamps_and_drops_are_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let mut records = fill(&store, 0..60);
    let bad = records.remove(0);
    damage_first_object(folder.path());
    assert!(store.get(&bad.name()).expect("reads").is_none());
    let touched = records[40].name();
    store.touch(9, &[touched]).expect("touches");
    let listed = store.list(None, 100).expect("lists");
    store.close().expect("closes");
    fs::remove_file(folder.path().join("index.redb")).expect("removes");
    let store = open(folder.path());
    assert!(store.opened().rebuilt);
    all_here(&store, &records);
    assert_eq!(store.list(None, 100).expect("lists"), listed);
    assert_eq!(store.get(&touched).expect("reads").map(|r| r.body().round), Some(9));
    assert!(!store.contains(&bad.name()).expect("looks"));
}

#[test]
fn an_index_that_is_damaged_or_of_another_pool_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let records = fill(&store, 0..30);
    store.close().expect("closes");
    let index = folder.path().join("index.redb");

    let other = tempfile::tempdir().expect("a folder");
    fill(&open(other.path()), 100..130);
    fs::copy(other.path().join("index.redb"), &index).expect("copies");
    let store = open(folder.path());
    assert!(store.opened().rebuilt);
    all_here(&store, &records);
    store.close().expect("closes");

    for damage in [&b""[..], b"not an index", &[0xa5; 10_000]] {
        fs::write(&index, damage).expect("writes");
        let store = open(folder.path());
        assert!(store.opened().rebuilt);
        all_here(&store, &records);
        store.close().expect("closes");
    }
    let whole = fs::read(&index).expect("reads");
    fs::write(&index, &whole[..whole.len() / 2]).expect("writes");
    all_here(&open(folder.path()), &records);
}

#[test]
fn the_index_is_made_anew_when_a_segment_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let records = fill(&store, 0..60);
    store.close().expect("closes");
    fs::remove_file(&segments(folder.path())[0]).expect("removes");
    let store = open(folder.path());
    assert!(store.opened().rebuilt);
    assert!(store.usage().objects < 60);
    let mut here = 0;
    for record in &records {
        if store.contains(&record.name()).expect("looks") {
            assert!(store.get(&record.name()).expect("reads").is_some());
            here += 1;
        }
    }
    assert_eq!(here, store.usage().objects);
}

#[test]
fn what_follows_a_damaged_place_is_still_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SegmentStore::open(folder.path(), Options::default()).expect("opens");
    let records = fill(&store, 0..20);
    store.close().expect("closes");
    fs::remove_file(folder.path().join("index.redb")).expect("removes");
    // The first frame's header is damaged, so that the scan does not know where the next frame begins.
    flip(&segments(folder.path())[0], 64 + 20);
    let store = open(folder.path());
    assert!(store.opened().damaged_bytes > 500);
    assert_eq!(store.usage().objects, 19);
    assert!(store.get(&records[19].name()).expect("reads").is_some());
}

#[test]
fn a_segment_with_a_damaged_header_is_still_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let records = fill(&store, 0..60);
    store.close().expect("closes");
    fs::remove_file(folder.path().join("index.redb")).expect("removes");
    for segment in [&segments(folder.path())[0], segments(folder.path()).last().expect("several")] {
        flip(segment, 30);
    }
    let store = open(folder.path());
    all_here(&store, &records);
    let more = fill(&store, 100..110);
    store.close().expect("closes");
    all_here(&open(folder.path()), &[records, more].concat());
}

#[test]
fn bytes_of_guests_are_never_taken_for_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SegmentStore::open(folder.path(), Options::default()).expect("opens");
    let records = fill(&store, 0..4);
    let begin = store.usage().disk_bytes;

    // A guest has a whole segment on its disk, with a frame that drops an object of ours.
    let other = tempfile::tempdir().expect("a folder");
    let theirs = SegmentStore::open(other.path(), Options::default()).expect("opens");
    fill(&theirs, 0..4);
    damage_first_object(other.path());
    assert!(theirs.get(&records[0].name()).expect("reads").is_none());
    theirs.close().expect("closes");
    let body = fs::read(&segments(other.path())[0]).expect("reads");
    let guest = Record::encode(Kind::Pack, Salt::SHARED, None, &body, Compression::Off);
    store.put(1, std::slice::from_ref(&guest)).expect("puts");
    store.close().expect("closes");

    // The frame around the guest's bytes is damaged, so the scan goes on inside them.
    fs::remove_file(folder.path().join("index.redb")).expect("removes");
    flip(&segments(folder.path())[0], begin + 20);
    let store = open(folder.path());
    assert!(store.opened().torn_bytes > body.len() as u64, "{:?}", store.opened());
    all_here(&store, &records);
}

#[test]
fn a_folder_is_opened_once_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    assert!(matches!(SegmentStore::open(folder.path(), small()), Err(StoreError::Locked)));
    drop(store);
    open(folder.path());
}

#[test]
fn a_full_disk_is_full_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    let records = fill(&store, 0..10);
    // There is no room at all, or for a part only, of which nothing is left afterwards.
    let segment = || disk.contents("segment-0000000001").map(|bytes| bytes.len());
    let before = segment();
    let used: usize = disk.list_now().iter().filter_map(|name| disk.contents(name)).map(|bytes| bytes.len()).sum();
    for room in [0, used as u64, used as u64 + 5000] {
        disk.set_room(Some(room));
        let full = store.put(2, &[chunk(50, 9000)]);
        assert!(matches!(full, Err(StoreError::Full { limit_bytes: None, .. })), "{full:?}");
        assert_eq!(segment(), before);
    }
    store.sync().expect("what is here can be synced");
    all_here(&store, &records);
    disk.set_room(None);
    store.put(2, &[chunk(50, 9000)]).expect("there is room again");
    store.sync().expect("syncs");
    let store = SegmentStore::open_on(Arc::new(disk.after_power_cut(0)), small()).expect("opens");
    all_here(&store, &[records, vec![chunk(50, 9000)]].concat());
}

#[test]
fn an_index_that_cannot_be_written_stops_nothing_and_catches_up() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), small()).expect("opens");
    let mut records = fill(&store, 0..30);
    disk.set_full_file(Some(("index.redb", Full::Growth)));
    records.extend(fill(&store, 100..200));
    all_here(&store, &records);
    // A process killed now leaves the index as it was.
    let cut = disk.after_power_cut(3);
    cut.set_full_file(None);
    all_here(&SegmentStore::open_on(Arc::new(cut), small()).expect("opens"), &records);
    disk.set_full_file(None);
    for n in 0..100 {
        records.extend(fill(&store, 1000 + n..1001 + n));
    }
    all_here(&store, &records);
    let reopened = SegmentStore::open_on(Arc::new(disk.after_power_cut(0)), small()).expect("opens");
    assert!(reopened.opened().scanned_bytes < 80_000, "{:?}", reopened.opened());
    all_here(&reopened, &records);
}

#[test]
fn a_store_whose_index_cannot_be_written_works_again_once_it_can() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), small()).expect("opens");
    let mut records = fill(&store, 0..30);
    disk.set_full_file(Some(("index.redb", Full::Everywhere)));
    // At some point the index is due, its write fails, and it cannot be read. What was acknowledged before counts.
    for n in 100..200 {
        let record = chunk(n, 700);
        if store.put(1, std::slice::from_ref(&record)).and_then(|_| store.sync()).is_ok() {
            records.push(record);
        }
    }
    disk.set_full_file(None);
    let more = fill(&store, 300..400);
    let unsure: Vec<Record> = (100..200).map(|n| chunk(n, 700)).collect();
    for record in records.iter().chain(&more) {
        assert!(store.get(&record.name()).expect("reads").is_some());
    }
    store.put(1, &unsure).expect("puts");
    store.close().expect("closes");
    let reopened = SegmentStore::open_on(Arc::new(disk.after_power_cut(0)), small()).expect("opens");
    assert_eq!(reopened.usage().objects, 30 + 100 + 100);
}

#[test]
fn a_full_disk_does_not_keep_a_store_from_opening() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), small()).expect("opens");
    let mut records = Vec::new();
    for n in 0..100 {
        records.extend(fill(&store, n..n + 1));
        let killed = disk.after_kill();
        killed.set_room(Some(0));
        all_here(&SegmentStore::open_on(Arc::new(killed), small()).expect("opens"), &records);
    }
    store.close().expect("closes");
    disk.set_room(Some(0));
    all_here(&SegmentStore::open_on(Arc::new(disk), small()).expect("opens"), &records);
}

/// The disk may read it again later, so its place is kept, but nobody is told that it is here.
#[test]
fn a_copy_that_cannot_be_read_is_absent_for_a_touch_and_replaced_by_a_put() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    let records = fill(&store, 0..3);
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    disk.set_unreadable(Some(("segment-0000000001", FIRST_PAYLOAD..FIRST_PAYLOAD + 1)));
    assert_eq!(store.touch(2, &names).expect("touches"), [false, true, true]);
    assert!(matches!(store.get(&names[0]), Err(StoreError::Io { .. })));
    disk.set_unreadable(None);
    assert_eq!(store.touch(2, &names).expect("touches"), [true; 3]);

    disk.set_unreadable(Some(("segment-0000000001", FIRST_PAYLOAD..FIRST_PAYLOAD + 1)));
    assert_eq!(store.put(3, &records).expect("puts"), PutSummary { stored: 1, touched: 2, stored_bytes: 500 });
    store.sync().expect("syncs");
    all_here(&store, &records);
}

/// `break_first` makes the copy of the first object unreadable, or readable again.
fn an_unreadable_copy_does_not_count(store: &dyn ChunkStore, break_first: &dyn Fn(&ObjectName, bool)) {
    let records: Vec<Record> = (0..3).map(|n| chunk(n, 500)).collect();
    store.put(1, &records).expect("puts");
    store.sync().expect("syncs");
    let first = records[0].name();
    let listed = |all: bool| {
        let listed = if all { store.list_all(None, 1) } else { store.list(None, 1) };
        let mut names: Vec<ObjectName> = listed.expect("lists").iter().map(|l| l.name).collect();
        while let Some(last) = names.last().copied() {
            let next = if all { store.list_all(Some(&last), 1) } else { store.list(Some(&last), 1) };
            let Some(next) = next.expect("lists").first().map(|l| l.name) else { break };
            names.push(next);
        }
        names
    };
    let counts = || store.find(&first).expect("looks").is_some();
    break_first(&first, true);
    assert!(counts() && store.unreadable().is_empty(), "nobody has read it yet");
    assert!(matches!(store.scrub(&first), Err(StoreError::Io { .. })));
    assert!(!counts());
    assert_eq!((listed(false).len(), listed(true).len(), store.usage().objects), (2, 3, 3));
    assert_eq!(store.unreadable(), [Unreadable { name: first, stored_bytes: 500, read_failed: true }]);

    break_first(&first, false);
    assert!(!counts(), "nobody has read it since");
    assert!(store.scrub(&first).expect("reads"));
    assert!(counts() && store.unreadable().is_empty() && listed(false).len() == 3);

    store.doubt(&[first, chunk(9, 500).name()]);
    assert!(!counts());
    assert!(store.get(&first).expect("reads").is_some());
    assert!(counts() && store.unreadable().is_empty());

    break_first(&first, true);
    assert!(matches!(store.get(&first), Err(StoreError::Io { .. })));
    assert_eq!(store.put(2, &records[..1]).expect("puts").stored, 1, "it is stored anew");
    assert!(counts() && store.unreadable().is_empty() && store.get(&first).expect("reads").is_some());
    break_first(&first, false);

    store.doubt(&[first]);
    assert_eq!(store.remove(3, &[first]).expect("removes"), [Some(500)], "one that does not count can be removed");
    assert!(store.unreadable().is_empty());
}

#[test]
fn an_unreadable_copy_in_a_segment_does_not_count_until_it_is_read() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    let part = Some(("segment-0000000001", FIRST_PAYLOAD..FIRST_PAYLOAD + 1));
    an_unreadable_copy_does_not_count(&store, &|_, broken| disk.set_unreadable(part.clone().filter(|_| broken)));
}

#[test]
fn an_unreadable_copy_in_memory_does_not_count_until_it_is_read() {
    let memory = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(Shared(memory.clone()));
    an_unreadable_copy_does_not_count(&store, &|name, broken| memory.set_unreadable(name, broken));
}

#[test]
fn a_sync_that_failed_is_final() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    let records = fill(&store, 0..5);
    store.put(2, &[chunk(50, 900)]).expect("puts");
    disk.fail_sync_after(0);
    assert!(matches!(store.sync(), Err(StoreError::Failed { .. })));
    assert!(matches!(store.sync(), Err(StoreError::Failed { .. })), "a second sync must not report success");
    assert!(matches!(store.put(2, &[chunk(51, 900)]), Err(StoreError::Failed { .. })));
    assert!(matches!(store.touch(2, &[chunk(50, 900).name()]), Err(StoreError::Failed { .. })));
    assert!(store.get(&records[0].name()).expect("reading goes on").is_some());
    let store = SegmentStore::open_on(Arc::new(disk.after_power_cut(1)), Options::default()).expect("opens");
    for record in &records {
        assert!(store.get(&record.name()).expect("reads").is_some());
    }
}

#[test]
fn threads_that_wait_share_one_sync() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    store.put(1, &[chunk(999, 100)]).expect("puts");
    store.sync().expect("syncs");
    let before = disk.changes();
    let threads = 16u64;
    let ready = Barrier::new(16);
    thread::scope(|scope| {
        for n in 0..threads {
            let (store, ready) = (&store, &ready);
            scope.spawn(move || {
                store.put(1, &[chunk(n, 100)]).expect("puts");
                ready.wait();
                store.sync().expect("syncs");
            });
        }
    });
    // All puts were done before the first sync, so that one sync serves all threads that asked by then, and at most one
    // more the rest.
    assert_eq!(disk.changes() - before - threads, 1);
}

#[test]
fn a_sync_with_nothing_new_costs_nothing() {
    let disk = SimDisk::new();
    let store = SegmentStore::open_on(Arc::new(disk.clone()), Options::default()).expect("opens");
    fill(&store, 0..3);
    let before = disk.changes();
    store.sync().expect("syncs");
    assert!(store.touch(1, &[chunk(0, 500).name()]).expect("touches")[0]);
    store.sync().expect("syncs");
    assert_eq!(disk.changes(), before, "it has that stamp already, and durably");
}

#[test]
fn a_newer_segment_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(&open(folder.path()), 0..5);
    let path = &segments(folder.path())[0];
    let mut bytes = fs::read(path).expect("reads");
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(path, bytes).expect("writes");
    assert!(matches!(SegmentStore::open(folder.path(), small()), Err(StoreError::Format { .. })));
}

#[test]
fn a_faulty_store_fails_when_told_to() {
    let store = FaultyStore::new(MemoryStore::new());
    store.fail(Call::Put, 1, 2, Fault::Full);
    let put = |n| store.put(1, &[chunk(n, 10)]);
    assert!(put(0).is_ok());
    assert!(matches!(put(1), Err(StoreError::Full { .. })));
    assert!(matches!(put(1), Err(StoreError::Full { .. })));
    assert!(put(1).is_ok());
    store.fail(Call::Get, 0, 1, Fault::Io);
    assert!(matches!(store.get(&chunk(0, 10).name()), Err(StoreError::Io { .. })));
    assert!(store.get(&chunk(0, 10).name()).is_ok());
    store.fail(Call::Sync, 0, 1, Fault::Io);
    assert!(store.sync().is_err());
    assert!(matches!(put(2), Err(StoreError::Failed { .. })));
    store.heal();
    assert!(put(2).is_ok());
    assert_eq!(store.calls(Call::Put), 6);
}

#[test]
fn a_crash_of_the_memory_store_forgets_what_was_not_synced() {
    let store = MemoryStore::new();
    store.put(1, &[chunk(0, 10)]).expect("puts");
    store.sync().expect("syncs");
    store.put(2, &[chunk(0, 10), chunk(1, 10)]).expect("puts");
    store.crash();
    let left = store.list(None, 10).expect("lists");
    assert_eq!(left.iter().map(|l| (l.name, l.round)).collect::<Vec<_>>(), [(chunk(0, 10).name(), 1)]);
}

/// Bytes that the files of a folder take on the disk.
fn taken(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").metadata().expect("looks"));
    files.map(|file| file.blocks() * 512).sum()
}

#[test]
fn the_disk_gets_back_what_removed_objects_took() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { segment_bytes: 4 << 20, ..Options::default() };
    let open = || SegmentStore::open(folder.path(), options.clone()).expect("opens");
    let store = open();
    // Three commits: the first and the last are deleted, and of the second every other chunk.
    let commits: Vec<Vec<Record>> = (0..3).map(|c| (0..40).map(|n| chunk(c * 100 + n, 200_000)).collect()).collect();
    for commit in &commits {
        for part in commit.chunks(8) {
            store.put(1, part).expect("puts");
        }
        store.sync().expect("syncs");
    }
    let before = taken(folder.path());
    let names = |records: &[Record]| records.iter().map(Record::name).collect::<Vec<_>>();
    let scattered: Vec<ObjectName> = names(&commits[1]).into_iter().step_by(2).collect();
    for (of, gone, least) in
        [("whole commits", [names(&commits[0]), names(&commits[2])].concat(), 0.98), ("every other", scattered, 0.95)]
    {
        let bytes: u64 = gone.len() as u64 * commits[0][0].stored().len() as u64;
        let before = taken(folder.path());
        assert!(store.remove(2, &gone).expect("removes").iter().all(Option::is_some));
        let given_back = store.reclaim(&|| true).expect("reclaims");
        let really = before.saturating_sub(taken(folder.path()));
        eprintln!("{of}: of {bytes} bytes the store gave back {given_back}, the disk has {really}");
        #[expect(clippy::cast_precision_loss, reason = "a ratio of small numbers")]
        let ratio = really as f64 / bytes as f64;
        assert!(ratio >= least, "{of}: {ratio}");
        assert_eq!(store.reclaim(&|| true).expect("reclaims"), 0, "there is nothing more");
    }
    let usage = store.usage();
    assert_eq!(usage.objects, 20);
    assert!(usage.disk_bytes < before / 4, "{usage:?}, {before} before");
    drop(store);
    let store = open();
    assert_eq!(store.usage().disk_bytes, usage.disk_bytes, "it is known after a start");
    for record in commits[1].iter().skip(1).step_by(2) {
        assert!(store.get(&record.name()).expect("reads").is_some());
    }
}

/// A reclaim ends the segment that is appended to, and may make holes in it. The next process begins another one.
#[test]
fn a_store_whose_newest_segment_was_reclaimed_opens_and_counts_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let open =
        || SegmentStore::open(folder.path(), Options { segment_bytes: 8 << 20, ..Options::default() }).expect("opens");
    let records: Vec<Record> = (0..20).map(|n| chunk(n, 200_000)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    let mut store = open();
    store.put(1, &records).expect("puts");
    for left in [2, 1] {
        store.sync().expect("syncs");
        store.remove(2, &names[left..]).expect("removes");
        assert!(store.reclaim(&|| true).expect("reclaims") > 0);
        let usage = store.usage();
        assert!(usage.disk_bytes < 1 << 20, "{usage:?}");
        drop(store);
        store = open();
        assert_eq!(store.usage(), usage);
        store.put(1, &records[10..12]).expect("puts");
    }
    store.remove(2, &names).expect("removes");
    store.sync().expect("syncs");
    store.reclaim(&|| true).expect("reclaims");
    let usage = store.usage();
    assert!((usage.objects, usage.bytes) == (0, 0) && usage.disk_bytes < 64 << 10, "{usage:?}");
    drop(store);
    assert_eq!(open().usage(), usage);
}
