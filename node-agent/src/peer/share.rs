//! [`PoolShare`]: the store with the host's free space and its own losses in view.
//!
//! The store itself knows the pool's limit. The floor (`keep_free`) is about the file system that the pool shares with
//! caches and guests' deltas: the pool takes no new objects once it is reached, so that guests' writes still find room.
//! Reads, touches and syncs never stop.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use storage_core::{
    ObjectName, Record, VerifiedObject,
    cause::explain,
    lock,
    store::{BadCopy, ChunkStore, Listed, PutSummary, StoreError, Usage},
};
use tracing::warn;

use super::losses::Losses;

/// Objects that the scrub asks the store for at a time.
const SCRUB_LIST: usize = 64;
/// Objects that the store removes at a time. Commits wait meanwhile, for a few milliseconds at most.
const REMOVED_AT_ONCE: usize = 256;

/// The space of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system, bytes.
    pub total_bytes: u64,
    /// Free to users other than root.
    pub free_bytes: u64,
}

impl Space {
    /// Of the file system `path` is on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// A store that takes new objects only while the file system has more than the floor free.
pub struct PoolShare {
    store: Arc<dyn ChunkStore>,
    dir: PathBuf,
    floor_bytes: u64,
    losses: Arc<Losses>,
    /// The object that the scrub visited last in this round.
    scrubbed: Mutex<Option<ObjectName>>,
    /// See [`PoolShare::take_oldest_put`].
    oldest_put: AtomicU64,
}

impl PoolShare {
    /// Over `store`, which was just opened. Its files are on the same file system as `data_dir`.
    #[must_use]
    pub fn new(store: Arc<dyn ChunkStore>, data_dir: PathBuf, floor_bytes: u64) -> Self {
        let losses = Arc::new(Losses::open(&data_dir, store.as_ref()));
        Self {
            store,
            dir: data_dir,
            floor_bytes,
            losses,
            scrubbed: Mutex::default(),
            oldest_put: AtomicU64::new(u64::MAX),
        }
    }

    /// What the store has lost.
    #[must_use]
    pub fn losses(&self) -> &Arc<Losses> {
        &self.losses
    }

    /// The lowest stamp that anything was put with since the last call; the highest number there is when nothing was. Copies
    /// that are made again come with the stamps that they had, so they may be older than all that a sweep still asks about.
    pub fn take_oldest_put(&self) -> u64 {
        self.oldest_put.swap(u64::MAX, Ordering::Relaxed)
    }

    /// What [`PoolShare::take_oldest_put`] told was of no use.
    pub fn give_oldest_put(&self, stamp: u64) {
        self.oldest_put.fetch_min(stamp, Ordering::Relaxed);
    }

    /// Looks for copies that were lost since the last look, and writes them down. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Losses::look`].
    pub fn look_for_losses(&self) -> std::io::Result<()> {
        self.losses.look(self.store.as_ref())
    }

    /// Hashes at least `bytes` stored bytes of objects, as they are on the disk; bad copies are dropped and become losses.
    /// Successive calls visit all objects in turn. The answer has the bytes hashed; fewer than asked for at the end of a
    /// round. Blocks on the disk.
    ///
    /// # Errors
    /// When the store cannot list its objects. A copy that the disk does not read is logged and kept.
    pub fn scrub(&self, bytes: u64) -> Result<u64, StoreError> {
        let mut visited = lock(&self.scrubbed);
        let mut hashed = 0;
        loop {
            let next = self.store.list(visited.as_ref(), SCRUB_LIST)?;
            if next.is_empty() {
                *visited = None;
                return Ok(hashed);
            }
            for object in next {
                if hashed >= bytes {
                    return Ok(hashed);
                }
                if let Err(error) = self.store.scrub(&object.name) {
                    warn!(object.name = %object.name, error = explain(&error), "the scrub could not read a copy; it stays");
                }
                hashed += object.stored_bytes;
                *visited = Some(object.name);
            }
        }
    }

    /// Whether new objects would be refused because the file system is down to the floor.
    #[must_use]
    pub fn at_floor(&self) -> bool {
        Space::of(&self.dir).is_ok_and(|space| space.free_bytes <= self.floor_bytes)
    }
}

impl ChunkStore for PoolShare {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        // When the file system cannot be asked, the write itself shows whether it is full.
        if let Ok(space) = Space::of(&self.dir) {
            let wanted: u64 = records.iter().map(|r| u64::try_from(r.wire_len()).expect("lengths fit 64 bits")).sum();
            if space.free_bytes.saturating_sub(wanted) < self.floor_bytes {
                let used_bytes = self.store.usage().disk_bytes;
                // The limit is what is used plus the room above the floor.
                let room = space.free_bytes.saturating_sub(self.floor_bytes);
                let limit_bytes = Some(used_bytes.saturating_add(room));
                return Err(StoreError::Full { used_bytes, wanted_bytes: wanted, limit_bytes });
            }
        }
        let put = self.store.put(round, records)?;
        self.oldest_put.fetch_min(round, Ordering::Relaxed);
        self.losses.settle(records.iter().map(Record::name));
        Ok(put)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.store.touch(round, names)
    }

    /// Durable when it returns.
    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        self.losses.leave(self.store.as_ref(), names, || {
            let mut removed = Vec::with_capacity(names.len());
            for some in names.chunks(REMOVED_AT_ONCE) {
                removed.extend(self.store.remove(below, some)?);
            }
            self.store.sync()?;
            Ok(removed)
        })
    }

    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        self.store.reclaim(go_on)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.store.get(name)
    }

    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        self.store.load(name)
    }

    fn scrub(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.store.scrub(name)
    }

    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        self.store.find(name)
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list(after, count_max)
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
    use storage_core::{Kind, Salt, record::Compression, store::MemoryStore};

    #[test]
    fn new_objects_are_refused_at_the_floor_and_old_ones_still_read_and_touched() {
        let dir = tempfile::tempdir().expect("folder");
        let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::default());
        let old = Record::encode(Kind::Pack, Salt::SHARED, None, b"old", Compression::Off);
        let new = Record::encode(Kind::Pack, Salt::SHARED, None, b"new", Compression::Off);
        store.put(1, std::slice::from_ref(&old)).expect("put");
        let share = PoolShare::new(store, dir.path().to_owned(), u64::MAX);
        assert!(share.at_floor());
        assert!(matches!(share.put(2, &[new]), Err(StoreError::Full { .. })));
        assert!(share.get(&old.name()).expect("get").is_some());
        assert_eq!(share.touch(2, &[old.name()]).expect("touch"), [true]);
    }
}
