//! [`Losses`]: what this node's share of the pool had and no longer has.
//!
//! A copy can go while the store runs (it rots, a read or a touch finds that) and while it does not (files are damaged
//! or gone, at worst all of `pool/`). For the second kind a file beside the pool, `pool-losses.json`, keeps how much the
//! store held at the last look. What the next start finds less than that is lost. Which objects those were is known only
//! where a damaged copy or the store's index told; the others are counted.
//!
//! A loss stays until its object is stored again or nothing needs it any more, or, where its name is not known, until an
//! operator has taken note of it ([`Losses::acknowledge`]). It survives restarts of the agent. The limit: what was stored and
//! lost again between two looks ([`Losses::look`], every few seconds) is missed when the agent is killed or the pool is wiped
//! in between.
//!
//! A copy that the disk does not read ([`ChunkStore::unreadable`]) is lost as well, by name, until it is read again. After a
//! start those of them that are still in the store are doubted until they are read: the store forgot what it could not read.
//! Once an operator has taken note of it, it is lost no more, however often the disk does not read it.
//!
//! What is removed on purpose is no loss ([`Losses::leave`]). Before a removal the file says how many objects may go, so that
//! a start after a kill does not miss them; what was lost at the same time is not noticed then, up to that number.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use muster_api::node::ObjectAmount;
use serde::{Deserialize, Serialize};
use storage_core::{
    ObjectName, lock,
    store::{BadCopy, ChunkStore, StoreError, Unreadable, Usage},
};
use tracing::{error, info, warn};

use crate::{data_disk::DataDisk, identity::replace_file, mirror::is_no_space, sealed};

const FILE: &str = "pool-losses.json";
/// Most lost objects remembered by name. The file takes about 80 bytes for each.
const NAMES_MAX: usize = 16_384;

fn held(usage: &Usage) -> ObjectAmount {
    ObjectAmount { objects: usage.objects, bytes: usage.bytes }
}

fn bad(usage: &Usage) -> ObjectAmount {
    ObjectAmount { objects: usage.bad_copies, bytes: usage.bad_bytes }
}

fn sum(a: ObjectAmount, b: ObjectAmount) -> ObjectAmount {
    ObjectAmount { objects: a.objects + b.objects, bytes: a.bytes + b.bytes }
}

/// What is left of it; nothing when no objects are.
fn less(all: ObjectAmount, part: ObjectAmount) -> ObjectAmount {
    match all.objects.saturating_sub(part.objects) {
        0 => ObjectAmount::default(),
        objects => ObjectAmount { objects, bytes: all.bytes.saturating_sub(part.bytes) },
    }
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    /// What the store held, all of it synced; without the objects that may be leaving it.
    held: ObjectAmount,
    /// Lost objects by name, with their stored bytes.
    lost: BTreeMap<ObjectName, u64>,
    /// Lost objects whose names are not known.
    unnamed: ObjectAmount,
    /// Copies that the disk did not read, and of which an operator has taken note. They do not become lost again before they
    /// were read once, also in the next process.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    acknowledged: BTreeSet<ObjectName>,
}

#[derive(Debug, Default)]
struct State {
    now: Ledger,
    /// The bad copies that the store named since it was opened, and those that it only counted.
    named: ObjectAmount,
    counted: ObjectAmount,
    /// The copies that the disk did not read at the last look.
    unreadable: BTreeSet<ObjectName>,
}

impl State {
    /// A copy is gone. Its object is lost unless it was stored again since.
    fn lose(&mut self, store: &dyn ChunkStore, bad: &BadCopy) {
        error!(object.name = %bad.name, reason = %bad.reason, "a copy in this node's pool was bad and is dropped");
        let one = ObjectAmount { objects: 1, bytes: bad.stored_bytes };
        self.named = sum(self.named, one);
        if matches!(store.contains(&bad.name), Ok(true)) {
            info!(object.name = %bad.name, "it was stored again");
        } else if self.now.lost.len() < NAMES_MAX {
            self.now.lost.insert(bad.name, bad.stored_bytes);
        } else {
            self.now.unnamed = sum(self.now.unnamed, one);
        }
    }

    /// The copies that the disk does not read now are lost. Those that it read again since the last look are not.
    fn compare_unreadable(&mut self, store: &dyn ChunkStore) {
        let unreadable = store.unreadable();
        let now: BTreeSet<ObjectName> = unreadable.iter().map(|copy| copy.name).collect();
        self.now.acknowledged.retain(|name| now.contains(name));
        for name in self.unreadable.difference(&now) {
            if self.now.lost.contains_key(name) && matches!(store.contains(name), Ok(true)) {
                info!(object.name = %name, "a copy in this node's pool can be read again, or was stored anew");
                self.now.lost.remove(name);
            }
        }
        for Unreadable { name, stored_bytes, .. } in unreadable {
            if self.unreadable.contains(&name) || self.now.acknowledged.contains(&name) {
                continue;
            }
            if self.now.lost.len() < NAMES_MAX && self.now.lost.insert(name, stored_bytes).is_none() {
                error!(object.name = %name, "the disk does not read a copy in this node's pool; it does not count");
            }
        }
        self.unreadable = now;
    }
}

/// The losses of one store. [`Losses::lost`] and [`Losses::settle`] do not wait for the file.
#[derive(Debug)]
pub struct Losses {
    file: PathBuf,
    /// As the file has it; none before it is written the first time. Taken before `state`.
    written: Mutex<Option<Ledger>>,
    state: Mutex<State>,
}

impl Losses {
    /// Compares what the store holds, which was just opened, with what it held at the last look.
    #[must_use]
    pub fn open(data_dir: &Path, store: &dyn ChunkStore) -> Self {
        let file = data_dir.join(FILE);
        let usage = store.usage();
        let written = read(&file);
        let mut now = written.clone().unwrap_or_default();
        let missing = less(less(now.held, held(&usage)), bad(&usage));
        if missing.objects > 0 {
            error!(
                objects = missing.objects,
                bytes = missing.bytes,
                "objects that this node's share of the pool had are gone; their names are not known"
            );
        }
        now.unnamed = sum(now.unnamed, missing);
        now.held = held(&usage);
        // Either it was stored again just before the last stop, or its copy could not be read then. Reading it will tell.
        store.doubt(&now.lost.keys().chain(&now.acknowledged).copied().collect::<Vec<_>>());
        let unreadable: BTreeSet<ObjectName> = store.unreadable().iter().map(|copy| copy.name).collect();
        // If the store cannot tell, it stays listed.
        now.lost.retain(|name, _| unreadable.contains(name) || !matches!(store.contains(name), Ok(true)));
        now.acknowledged.retain(|name| unreadable.contains(name));
        let state = State { now, unreadable, ..State::default() };
        Self { file, written: Mutex::new(written), state: Mutex::new(state) }
    }

    /// What is lost and neither stored again nor acknowledged.
    #[must_use]
    pub fn lost(&self) -> ObjectAmount {
        lock(&self.state).now.lost()
    }

    /// The names of lost objects, and how many are lost without that their names are known.
    #[must_use]
    pub fn names(&self) -> (Vec<ObjectName>, ObjectAmount) {
        let state = lock(&self.state);
        (state.now.lost.keys().copied().collect(), state.now.unnamed)
    }

    /// These objects were put into the store, or nothing needs them: they are not lost any more.
    pub fn settle(&self, names: impl IntoIterator<Item = ObjectName>) {
        let lost = &mut lock(&self.state).now.lost;
        for name in names {
            lost.remove(&name);
        }
    }

    /// Takes the bad copies that the store has found, logs each, and writes the file if anything changed.
    ///
    /// # Errors
    /// When the file cannot be written, or the store not be synced. Nothing is forgotten; the next look tries again.
    pub fn look(&self, store: &dyn ChunkStore) -> io::Result<()> {
        self.look_before(&mut lock(&self.written), store, 0)
    }

    /// Runs `remove`, which removes some of these objects from the store on purpose. None of them counts as lost. `disk` finds
    /// room for the file.
    ///
    /// # Errors
    /// Those of `remove`, and as [`Losses::look`]. Nothing is removed if the file cannot be written first.
    pub fn leave<T>(
        &self,
        store: &dyn ChunkStore,
        disk: &DataDisk,
        names: &[ObjectName],
        remove: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::Io { op: "write", file: FILE.to_owned(), source };
        // Held all the time: a look in between would write down that nothing goes.
        let mut written = lock(&self.written);
        let mut look = |leaving: u64| {
            let written = RefCell::new(&mut *written);
            disk.while_full(is_no_space, || self.look_before(*written.borrow_mut(), store, leaving)).map_err(failed)
        };
        look(names.len() as u64)?;
        let removed = remove()?;
        self.settle(names.iter().copied());
        look(0)?;
        Ok(removed)
    }

    /// As [`Losses::look`], before so many objects may leave the store.
    fn look_before(&self, written: &mut Option<Ledger>, store: &dyn ChunkStore, leaving: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        // Until what the store holds and the copies that it lacks are of the same instant.
        let usage = loop {
            let before = store.usage();
            store.take_bad_copies().into_iter().for_each(|bad| state.lose(store, &bad));
            let after = store.usage();
            if bad(&before) == bad(&after) {
                break after;
            }
        };
        state.compare_unreadable(store);
        let counted = less(bad(&usage), state.named);
        let more = less(counted, state.counted);
        if more.objects > 0 {
            error!(objects = more.objects, bytes = more.bytes, "more copies were bad than the store could name");
            state.counted = counted;
            state.now.unnamed = sum(state.now.unnamed, more);
        }
        state.now.held = held(&usage);
        state.now.held.objects = state.now.held.objects.saturating_sub(leaving);
        let now = state.now.clone();
        drop(state);
        if written.as_ref() == Some(&now) {
            return Ok(());
        }
        // After a power cut the store must not hold less than the file says.
        store.sync().map_err(io::Error::other)?;
        self.write(written, now)
    }

    /// An operator has taken note of what is lost: it is forgotten, if it still is what the operator saw.
    ///
    /// # Errors
    /// When the file cannot be written. Then it is forgotten until the agent ends.
    pub fn acknowledge(&self, seen: ObjectAmount) -> io::Result<bool> {
        let mut written = lock(&self.written);
        let mut state = lock(&self.state);
        let lost = state.now.lost();
        if lost != seen {
            // Nothing is lost: this was done before.
            return Ok(lost == ObjectAmount::default());
        }
        warn!(lost.objects, lost.bytes, "an operator has acknowledged what this node's share of the pool lost");
        let lost = std::mem::take(&mut state.now.lost).into_keys();
        let unreadable: Vec<ObjectName> = lost.filter(|name| state.unreadable.contains(name)).collect();
        state.now.acknowledged.extend(unreadable);
        state.now.unnamed = ObjectAmount::default();
        let acknowledged = state.now.acknowledged.clone();
        // What the store held is left to the look, which syncs it.
        let held = written.as_ref().map_or_else(ObjectAmount::default, |written| written.held);
        drop(state);
        self.write(&mut written, Ledger { held, acknowledged, ..Ledger::default() })?;
        Ok(true)
    }

    fn write(&self, written: &mut Option<Ledger>, now: Ledger) -> io::Result<()> {
        replace_file(&self.file, &sealed::seal(&now)?)?;
        *written = Some(now);
        Ok(())
    }
}

impl Ledger {
    fn lost(&self) -> ObjectAmount {
        let named = ObjectAmount { objects: self.lost.len() as u64, bytes: self.lost.values().sum() };
        sum(named, self.unnamed)
    }
}

/// The file's content; none before the first look. A file that cannot be read is made anew, because guests need the pool
/// more than operators need this count.
fn read(file: &Path) -> Option<Ledger> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            error!(%error, file = %file.display(), "what the pool has lost cannot be read; it is counted anew");
            return None;
        }
    };
    sealed::open(&bytes)
        .inspect_err(
            |error| error!(%error, file = %file.display(), "what the pool has lost is damaged; it is counted anew"),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_core::{
        Kind, Record, Salt,
        record::Compression,
        store::{MemoryStore, Options, SegmentStore},
    };

    fn record(number: u8) -> Record {
        Record::encode(Kind::Pack, Salt::SHARED, None, &[number + 1; 100], Compression::Off)
    }

    fn put(store: &dyn ChunkStore, losses: &Losses, numbers: std::ops::Range<u8>) {
        let records: Vec<Record> = numbers.map(record).collect();
        store.put(1, &records).expect("puts");
        losses.settle(records.iter().map(Record::name));
    }

    fn disk(dir: &tempfile::TempDir) -> DataDisk {
        DataDisk::new(dir.path().to_owned(), crate::data_disk::Reserves::default())
    }

    fn objects(objects: u64) -> ObjectAmount {
        ObjectAmount { objects, bytes: 100 * objects }
    }

    #[test]
    fn a_bad_copy_is_lost_until_it_is_stored_again_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..5);
        losses.look(&store).expect("looks");
        assert_eq!(losses.lost(), ObjectAmount::default());
        for number in [1, 3] {
            assert!(store.damage(&record(number).name()));
            assert!(store.get(&record(number).name()).expect("reads").is_none());
        }
        losses.look(&store).expect("looks");
        assert_eq!(losses.lost(), objects(2));
        let losses = Losses::open(dir.path(), &store);
        assert_eq!(losses.lost(), objects(2));
        put(&store, &losses, 1..2);
        assert_eq!(losses.lost(), objects(1));
        // Stored while the agent knew, but killed before it wrote that down.
        let store = MemoryStore::new();
        put(&store, &losses, 0..5);
        let losses = Losses::open(dir.path(), &store);
        assert_eq!(losses.lost(), objects(2), "nobody has read them yet");
        for number in [1, 3] {
            assert!(store.get(&record(number).name()).expect("reads").is_some());
        }
        losses.look(&store).expect("looks");
        assert_eq!(losses.lost(), ObjectAmount::default());
    }

    #[test]
    fn a_copy_that_was_replaced_before_the_look_is_not_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..2);
        assert!(store.damage(&record(1).name()));
        put(&store, &losses, 0..2);
        losses.look(&store).expect("looks");
        assert_eq!((losses.lost(), store.usage().bad_copies), (ObjectAmount::default(), 1));
    }

    #[test]
    fn a_wiped_pool_is_lost_until_it_is_acknowledged() {
        let dir = tempfile::tempdir().expect("a folder");
        let pool = dir.path().join("pool");
        let open = || SegmentStore::open(&pool, Options::default()).expect("opens");
        let store = open();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..74);
        losses.look(&store).expect("looks");
        drop(store);
        std::fs::remove_dir_all(&pool).expect("removes");

        let store = open();
        let losses = Losses::open(dir.path(), &store);
        assert_eq!(losses.lost(), objects(74));
        losses.look(&store).expect("looks");
        put(&store, &losses, 0..8);
        losses.look(&store).expect("looks");
        let losses = Losses::open(dir.path(), &store);
        assert_eq!(losses.lost(), objects(74), "once, and still");
        assert!(!losses.acknowledge(objects(3)).expect("asks"), "the operator saw something else");
        assert_eq!(losses.lost(), objects(74));
        assert!(losses.acknowledge(objects(74)).expect("writes"));
        assert!(losses.acknowledge(objects(74)).expect("asks"), "the same again");
        assert_eq!(Losses::open(dir.path(), &store).lost(), ObjectAmount::default());
    }

    #[test]
    fn what_was_dropped_just_before_a_kill_is_counted_by_the_next_start() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..5);
        losses.look(&store).expect("looks");
        assert!(store.damage(&record(1).name()));
        assert!(store.get(&record(1).name()).expect("reads").is_none());
        // The next process has a store that knows nothing of the bad copies that this one found.
        let next = MemoryStore::new();
        put(&next, &losses, 0..1);
        put(&next, &losses, 2..5);
        assert_eq!(Losses::open(dir.path(), &next).lost(), objects(1));
    }

    #[test]
    fn what_is_removed_on_purpose_is_not_lost_wherever_the_agent_is_killed() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..9);
        losses.look(&store).expect("looks");
        let names: Vec<ObjectName> = (0..4).map(|n| record(n).name()).collect();
        let lost_after_a_kill = || Losses::open(dir.path(), &store).lost();
        let removed = losses.leave(&store, &disk(&dir), &names, || {
            assert_eq!(lost_after_a_kill(), ObjectAmount::default());
            let removed = store.remove(2, &names)?;
            assert_eq!(lost_after_a_kill(), ObjectAmount::default());
            Ok(removed)
        });
        assert!(removed.expect("removes").iter().all(Option::is_some));
        assert_eq!(lost_after_a_kill(), ObjectAmount::default());
        // From here on every object counts again.
        assert!(store.damage(&record(5).name()));
        assert!(store.get(&record(5).name()).expect("reads").is_none());
        let next = MemoryStore::new();
        put(&next, &losses, 6..9);
        put(&next, &losses, 4..5);
        assert_eq!(Losses::open(dir.path(), &next).lost(), objects(1));
    }

    #[test]
    fn a_lost_object_that_nothing_needs_is_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..3);
        for n in 0..2 {
            assert!(store.damage(&record(n).name()));
            assert!(store.get(&record(n).name()).expect("reads").is_none());
        }
        losses.look(&store).expect("looks");
        assert_eq!(losses.lost(), objects(2));
        let names = [record(1).name()];
        assert_eq!(losses.leave(&store, &disk(&dir), &names, || store.remove(2, &names)).expect("removes"), [None]);
        assert_eq!(losses.lost(), objects(1));
        assert_eq!(Losses::open(dir.path(), &store).lost(), objects(1));
    }

    #[test]
    fn a_damaged_file_keeps_no_agent_from_starting() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(FILE), b"{\"held\":").expect("writes");
        let store = MemoryStore::new();
        let losses = Losses::open(dir.path(), &store);
        put(&store, &losses, 0..5);
        losses.look(&store).expect("looks");
        assert_eq!(losses.lost(), ObjectAmount::default());
    }
}
