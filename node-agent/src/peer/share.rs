//! [`PoolShare`]: the store with the host's free space and its own losses in view.
//!
//! The store itself knows the pool's limit. How full the file system is that the pool shares with the cache and guests' deltas,
//! and whether it works, the [`DataDisk`] knows: the pool takes no new objects once the reserves are reached, so that guests'
//! writes still find room, and none on a disk that failed. Reads, touches, removals and syncs never stop.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::{
    ObjectName, Record, VerifiedObject,
    cause::explain,
    lock,
    store::{BadCopy, ChunkStore, Listed, PutSummary, StoreError, Unreadable, Usage},
    units::u64_from,
};
use tracing::debug;

use super::{
    losses::Losses,
    repository::{Fresh, Recent},
};
use crate::data_disk::{DataDisk, Room, Space};

/// Objects that the store removes at a time. Commits wait meanwhile, for a few milliseconds at most.
const REMOVED_AT_ONCE: usize = 64;
/// A disk that does not read so many objects has failed. Fewer are bad sectors.
const UNREADABLE_FAILED: usize = 256;
/// Longest that [`PoolShare::read_again`] reads. One bad sector can take a disk seconds.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// A store that takes new objects only while the disk works and has more than the reserves free.
pub struct PoolShare {
    store: Arc<dyn ChunkStore>,
    disk: Arc<DataDisk>,
    losses: Arc<Losses>,
    /// The copy that was last read again.
    read_again: Mutex<Option<ObjectName>>,
    /// See [`PoolShare::take_oldest_put`].
    oldest_put: AtomicU64,
    /// See [`PoolShare::watch_stamps`].
    watch: OnceLock<Watch>,
    fresh: Arc<Fresh>,
    recent: Recent,
    /// Which objects were given up here; none while no copy may be.
    evicted: Mutex<Option<EvictedNames>>,
}

/// Tells of each object whether its copy was given up here.
pub type EvictedNames = Arc<dyn Fn(&[ObjectName]) -> Result<Vec<bool>, StoreError> + Send + Sync>;

/// Hears of the stamps of new objects.
type Watch = Box<dyn Fn(u64) -> std::io::Result<()> + Send + Sync>;

impl PoolShare {
    /// Over `store`, which was just opened. Its files are in the data folder.
    #[must_use]
    pub fn new(store: Arc<dyn ChunkStore>, disk: Arc<DataDisk>) -> Self {
        let losses = Arc::new(Losses::open(disk.dir(), store.as_ref()));
        Self {
            store,
            disk,
            losses,
            read_again: Mutex::default(),
            oldest_put: AtomicU64::new(u64::MAX),
            watch: OnceLock::new(),
            fresh: Arc::default(),
            recent: Recent::default(),
            evicted: Mutex::default(),
        }
    }

    /// The disk that it is on.
    #[must_use]
    pub fn disk(&self) -> &DataDisk {
        &self.disk
    }

    /// From now on, `watch` is called before and after objects are put with a stamp that is lower than all since the last
    /// [`PoolShare::take_oldest_put`]. If it fails, so does the put. Only the first watch counts.
    pub fn watch_stamps(&self, watch: impl Fn(u64) -> std::io::Result<()> + Send + Sync + 'static) {
        let _the_first_counts = self.watch.set(Box::new(watch));
    }

    /// What the store has lost.
    #[must_use]
    pub fn losses(&self) -> &Arc<Losses> {
        &self.losses
    }

    /// What came into the store.
    #[must_use]
    pub fn fresh(&self) -> &Arc<Fresh> {
        &self.fresh
    }

    /// What was read from the store lately.
    #[must_use]
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Who knows from now on which copies were given up because the repository has the objects.
    pub fn set_evicted(&self, evicted: Option<EvictedNames>) {
        *lock(&self.evicted) = evicted;
    }

    /// The lowest stamp that anything was put with since the last call; the highest number there is when nothing was. Copies
    /// that are made again come with the stamps that they had, so they may be older than all that a sweep still asks about.
    pub fn take_oldest_put(&self) -> u64 {
        self.oldest_put.swap(u64::MAX, Ordering::SeqCst)
    }

    /// What [`PoolShare::take_oldest_put`] would tell now. It stays told.
    #[must_use]
    pub fn oldest_put(&self) -> u64 {
        self.oldest_put.load(Ordering::SeqCst)
    }

    fn note_stamp(&self, stamp: u64) -> Result<(), StoreError> {
        if self.oldest_put.fetch_min(stamp, Ordering::SeqCst) <= stamp {
            return Ok(());
        }
        let failed = |source| StoreError::Io { op: "write", file: "the note of the sweep".to_owned(), source };
        self.watch.get().map_or(Ok(()), |watch| watch(stamp)).map_err(failed)
    }

    /// What [`PoolShare::take_oldest_put`] told was of no use.
    pub fn give_oldest_put(&self, stamp: u64) {
        self.oldest_put.fetch_min(stamp, Ordering::SeqCst);
    }

    /// Looks for copies that were lost since the last look, and writes them down. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Losses::look`].
    pub fn look_for_losses(&self) -> std::io::Result<()> {
        self.losses.look(self.store.as_ref())
    }

    /// Reads some of the copies again that the disk did not read the last time, so that those that it reads now count again.
    /// Successive calls visit all of them in turn. Blocks on the disk.
    pub fn read_again(&self) {
        let unreadable = self.store.unreadable();
        let mut visited = lock(&self.read_again);
        let begin = unreadable.partition_point(|copy| visited.is_some_and(|last| copy.name <= last));
        *visited = None;
        let until = Instant::now() + READ_AGAIN;
        for copy in unreadable.iter().skip(begin) {
            if Instant::now() >= until {
                return;
            }
            *visited = Some(copy.name);
            if let Err(error) = self.store.scrub(&copy.name) {
                debug!(object.name = %copy.name, error = explain(&error), "a copy cannot be read yet");
            }
        }
        *visited = None;
    }

    /// Tells whether the disk does not read so many copies that it counts as failed. Copies that are only doubted, as after a
    /// start, say nothing about the disk.
    pub fn judge_disk(&self) {
        let unreadable = self.store.unreadable().iter().filter(|copy| copy.read_failed).count();
        if unreadable >= UNREADABLE_FAILED {
            self.disk.fail(&self.disk.dir().join("pool"), format!("it does not read {unreadable} objects of the pool"));
        }
    }

    /// What a store that stopped says of the disk: what it holds is unknown.
    fn heed<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Failed { reason }) = &done {
            self.disk.fail(&self.disk.dir().join("pool"), reason.clone());
        }
        done
    }

    /// An error if the pool takes nothing new.
    fn check_disk(&self, wanted: u64) -> Result<(), StoreError> {
        if let Some(failure) = self.disk.failure() {
            return Err(StoreError::Failed { reason: failure.error.clone() });
        }
        let (room, space) = self.disk.room();
        let floor = self.disk.reserves().objects_bytes();
        // When the file system cannot be asked, the write itself shows whether it is full.
        if space == Space::default() || (room == Room::Plenty && space.free_bytes.saturating_sub(wanted) >= floor) {
            return Ok(());
        }
        let used_bytes = self.store.usage().disk_bytes;
        // The limit is what is used plus the room above the floor.
        let room = if room == Room::Plenty { space.free_bytes.saturating_sub(floor) } else { 0 };
        Err(StoreError::Full { used_bytes, wanted_bytes: wanted, limit_bytes: Some(used_bytes.saturating_add(room)) })
    }
}

impl ChunkStore for PoolShare {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        self.check_disk(records.iter().map(|r| u64_from(r.wire_len())).sum())?;
        // Before, so that a process that is killed has told of it; and after, because a round that begins in between takes it and
        // does not find the objects.
        self.note_stamp(round)?;
        let put = self.heed(self.store.put(round, records))?;
        self.losses.settle(records.iter().map(Record::name));
        if put.stored > 0 {
            self.fresh.came(records.iter().map(Record::name));
        }
        self.note_stamp(round)?;
        Ok(put)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.heed(self.store.touch(round, names))
    }

    /// Durable when it returns.
    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        let objects: Vec<(ObjectName, u64)> = names.iter().map(|name| (*name, below)).collect();
        self.remove_each(&objects)
    }

    /// Durable when it returns.
    fn remove_each(&self, objects: &[(ObjectName, u64)]) -> Result<Vec<Option<u64>>, StoreError> {
        let names: Vec<ObjectName> = objects.iter().map(|(name, _)| *name).collect();
        self.losses.leave(self.store.as_ref(), &self.disk, &names, || {
            let mut removed = Vec::with_capacity(objects.len());
            for some in objects.chunks(REMOVED_AT_ONCE) {
                let began = Instant::now();
                let remove = || self.heed(self.store.remove_each(some));
                removed.extend(self.disk.while_full(StoreError::is_full, remove)?);
                // Whoever waits for the store's lock gets it now. Without a rest this thread would take it again at once.
                std::thread::sleep(began.elapsed());
            }
            self.heed(self.store.sync())?;
            Ok(removed)
        })
    }

    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        self.disk.while_full(StoreError::is_full, || self.heed(self.store.reclaim(go_on)))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.heed(self.store.sync())
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.recent.mark(name);
        self.store.get(name)
    }

    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        self.recent.mark(name);
        self.store.load(name)
    }

    fn scrub(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.store.scrub(name)
    }

    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        self.store.find(name)
    }

    fn evicted(&self, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        let evicted = lock(&self.evicted).clone();
        evicted.map_or_else(|| Ok(vec![false; names.len()]), |evicted| evicted(names))
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list(after, count_max)
    }

    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list_all(after, count_max)
    }

    fn unreadable(&self) -> Vec<Unreadable> {
        self.store.unreadable()
    }

    fn doubt(&self, names: &[ObjectName]) {
        self.store.doubt(names);
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }

    fn take_bad_copies(&self) -> Vec<BadCopy> {
        self.store.take_bad_copies()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_disk::Reserves;
    use storage_core::{
        Kind, Salt,
        record::Compression,
        store::{Call, Fault, FaultyStore, MemoryStore},
    };

    #[test]
    fn new_objects_are_refused_at_the_floor_and_old_ones_still_read_and_touched() {
        let dir = tempfile::tempdir().expect("folder");
        let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::default());
        let old = Record::encode(Kind::Pack, Salt::SHARED, None, b"old", Compression::Off);
        let new = Record::encode(Kind::Pack, Salt::SHARED, None, b"new", Compression::Off);
        store.put(1, std::slice::from_ref(&old)).expect("put");
        let reserves = Reserves { keep_free_bytes: 0, mirror_bytes: u64::MAX };
        let disk = Arc::new(DataDisk::new(dir.path().to_owned(), reserves));
        let share = PoolShare::new(store, disk.clone());
        assert_eq!(disk.room().0, Room::NoObjects);
        assert!(matches!(share.put(2, &[new]), Err(StoreError::Full { .. })));
        assert!(share.get(&old.name()).expect("get").is_some());
        assert_eq!(share.touch(2, &[old.name()]).expect("touch"), [true]);
        assert_eq!(share.remove(3, &[old.name()]).expect("remove"), [Some(3)], "space can come back");
    }

    fn pack(number: u32) -> Record {
        Record::encode(Kind::Pack, Salt::SHARED, None, &(number + 0x0101_0101).to_be_bytes(), Compression::Off)
    }

    #[test]
    fn a_store_that_stopped_is_a_disk_that_failed_and_takes_nothing_more() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Arc::new(FaultyStore::new(MemoryStore::default()));
        let disk = Arc::new(DataDisk::new(dir.path().to_owned(), Reserves::default()));
        let share = PoolShare::new(store.clone(), disk.clone());
        share.put(1, &[pack(1)]).expect("put");
        share.sync().expect("sync");
        assert_eq!(disk.failure(), None);
        store.fail(Call::Sync, 0, 1, Fault::Io);
        assert!(matches!(share.sync(), Err(StoreError::Failed { .. })));
        assert!(disk.failure().expect("failed").path.ends_with("pool"));
        store.heal();
        assert!(matches!(share.put(1, &[pack(2)]), Err(StoreError::Failed { .. })), "only a start ends it");
        assert!(share.get(&pack(1).name()).expect("get").is_some(), "what can be read is read");
    }

    #[test]
    fn copies_that_the_disk_does_not_read_are_lost_until_it_reads_them_and_many_are_a_failure() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Arc::new(MemoryStore::default());
        let disk = || Arc::new(DataDisk::new(dir.path().to_owned(), Reserves::default()));
        let share = PoolShare::new(store.clone(), disk());
        let packs: Vec<Record> = (0..300).map(pack).collect();
        share.put(1, &packs).expect("put");
        share.look_for_losses().expect("looks");
        let set_unreadable = |count: usize, unreadable: bool| {
            packs.iter().take(count).for_each(|pack| store.set_unreadable(&pack.name(), unreadable));
        };
        let scrub_all = || packs.iter().for_each(|pack| drop(share.scrub(&pack.name())));
        set_unreadable(3, true);
        scrub_all();
        share.look_for_losses().expect("looks");
        share.judge_disk();
        assert_eq!((share.losses().lost().objects, share.disk.failure()), (3, None));
        // The next process learns it from the file, although its store has read nothing yet.
        store.doubt(&[]);
        let next = PoolShare::new(store.clone(), disk());
        next.look_for_losses().expect("looks");
        assert_eq!(next.losses().lost().objects, 3);
        assert!(!next.contains(&packs[0].name()).expect("looks"));
        // Acknowledged, and they do not come again.
        assert!(next.losses().acknowledge(next.losses().lost()).expect("writes"));
        let look = |share: &PoolShare| {
            share.look_for_losses().expect("looks");
            share.losses().lost().objects
        };
        assert_eq!(look(&next), 0);
        // Neither in the next process, which tries to read them, nor in the one after it.
        for _ in 0..2 {
            let next = PoolShare::new(store.clone(), disk());
            assert_eq!(look(&next), 0);
            next.read_again();
            assert_eq!((look(&next), next.unreadable().len()), (0, 3));
            assert!(!next.contains(&packs[0].name()).expect("looks"), "it still does not count as a copy");
        }

        set_unreadable(1, false);
        share.read_again();
        share.look_for_losses().expect("looks");
        assert_eq!(share.losses().lost().objects, 2);
        share.put(2, &packs[1..2]).expect("puts it anew");
        share.look_for_losses().expect("looks");
        assert_eq!(share.losses().lost().objects, 1);

        // Doubt is no word of the disk.
        store.doubt(&packs.iter().map(Record::name).collect::<Vec<_>>());
        share.judge_disk();
        assert_eq!((store.unreadable().len(), share.disk.failure()), (300, None));
        set_unreadable(UNREADABLE_FAILED + 1, true);
        scrub_all();
        share.judge_disk();
        assert!(share.disk.failure().expect("failed").error.contains("does not read"));
    }
}
