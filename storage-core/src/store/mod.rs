//! Where a node keeps its share of the pool.
//!
//! A [`ChunkStore`] takes records and gives them back by name. It promises four things:
//! - **Durability is asked for, and asked for once per batch** (I3): [`ChunkStore::put`] and [`ChunkStore::touch`] may
//!   buffer; when [`ChunkStore::sync`] returns, everything put or touched before it was called is on stable storage.
//! - **No bad copy is served** (I4): records this process has not hashed are hashed on the way in; every record is
//!   hashed on the way out. A copy that fails is dropped, counted in [`Usage::bad_copies`] and listed by
//!   [`ChunkStore::take_bad_copies`]; to the caller it is absent.
//! - **Stamps** (I6): each object carries the highest round it was put or touched in, as durable as the object.
//! - **Failure is final**: after a sync that failed, what is on the disk is unknown; every later put, touch and sync
//!   answers [`StoreError::Failed`] until the store is opened again and has read the disk.
//!
//! It does not know what objects mean, who owns them, or which of them are still needed.

mod disk;
#[cfg(feature = "testing")]
mod faulty;
mod frame;
mod index;
mod memory;
mod segment;
#[cfg(feature = "testing")]
mod sim;

use std::io;

pub use disk::{Disk, DiskFile, Folder};
#[cfg(feature = "testing")]
pub use faulty::{Call, Fault, FaultyStore};
pub use memory::MemoryStore;
pub use segment::{Opened, Options, SegmentStore};
#[cfg(feature = "testing")]
pub use sim::{Full, SimDisk};

use crate::{Corrupt, ObjectName, Record, VerifiedObject};

/// A node's objects. Every call may block on the disk; callers on an async runtime use its blocking threads.
pub trait ChunkStore: Send + Sync {
    /// Keeps the records and stamps them with the round; those that are here already are stamped only. All or none of
    /// the new ones are kept when the answer is an error. Durable after [`ChunkStore::sync`].
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError>;

    /// Stamps what is here with the round and says, name by name, what is. Durable after [`ChunkStore::sync`].
    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError>;

    /// Makes every put and touch that returned before this call durable.
    fn sync(&self) -> Result<(), StoreError>;

    /// The record of an object, proven, stamped as it is here. None when it is not here, or was until this call found
    /// that its copy is bad.
    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError>;

    /// The object itself. As [`ChunkStore::get`] and [`Record::verify`], decoding once.
    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        Ok(self.get(name)?.map(|record| record.verify()).transpose()?)
    }

    /// Whether the object is here. Does not look at its bytes.
    fn contains(&self, name: &ObjectName) -> Result<bool, StoreError>;

    /// What is here, in name order, after a name: the next `count_max` at most. Empty at the end.
    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError>;

    /// All names, in order. Memory grows with their number: for small pools and tests; else [`ChunkStore::list`].
    fn names(&self) -> Result<Vec<ObjectName>, StoreError> {
        let mut names: Vec<ObjectName> = Vec::new();
        loop {
            let part = self.list(names.last(), 4096)?;
            if part.is_empty() {
                return Ok(names);
            }
            names.extend(part.iter().map(|l| l.name));
        }
    }

    /// How full it is.
    fn usage(&self) -> Usage;

    /// The bad copies found since the last call, at most [`BAD_COPIES_MAX`]: each is gone from this store and needs a
    /// new copy from another.
    fn take_bad_copies(&self) -> Vec<BadCopy>;
}

/// Most bad copies remembered between two calls of [`ChunkStore::take_bad_copies`].
pub const BAD_COPIES_MAX: usize = 4096;

/// What a put did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutSummary {
    /// Objects that were not here before.
    pub stored: u64,
    /// Objects that were, and are stamped now.
    pub touched: u64,
    /// Stored bytes of the new objects, headers not counted.
    pub stored_bytes: u64,
}

/// An object in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// The highest round it was put or touched in.
    pub round: u64,
    /// Its stored bytes, header not counted.
    pub stored_bytes: u64,
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects.
    pub objects: u64,
    /// Their stored bytes, headers not counted.
    pub bytes: u64,
    /// What the store takes on its disk, with headers and what is dead but not yet reclaimed.
    pub disk_bytes: u64,
    /// Most `disk_bytes` may become.
    pub limit_bytes: Option<u64>,
    /// Copies dropped since the store was opened because their bytes were wrong.
    pub bad_copies: u64,
}

/// A copy that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Its name.
    pub name: ObjectName,
    /// What was wrong.
    pub reason: Corrupt,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room: the pool's limit or the disk's end. Nothing of the batch was kept; what is here stays whole.
    #[error("the pool is full: {used_bytes} bytes used, {wanted_bytes} more wanted, {limit}", limit = shown(*.limit_bytes))]
    Full {
        /// Bytes it takes now.
        used_bytes: u64,
        /// Bytes the batch needs.
        wanted_bytes: u64,
        /// The pool's limit; none when the disk itself is full.
        limit_bytes: Option<u64>,
    },
    /// A record that was put is not what it says it is. Nothing of the batch was kept.
    #[error("a record is not what it says it is")]
    Refused(#[from] Corrupt),
    /// The disk could not be read or written; the store goes on.
    #[error("{op} {file} failed")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file of the store.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The index could not be read or written. It is made anew when the store is opened again.
    #[error("the store's index failed")]
    Index {
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// An earlier failure left the disk in an unknown state. Open the store again.
    #[error("the store stopped: {reason}")]
    Failed {
        /// What failed first.
        reason: String,
    },
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    Locked,
    /// The folder holds something this release does not read.
    #[error("{file} is not a segment this release reads")]
    Format {
        /// Which file.
        file: String,
        /// Why.
        source: Corrupt,
    },
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "the disk has no room".to_owned(), |n| format!("{n} allowed"))
}

/// A record that may enter a store: proven, or hashed here and now.
fn proven(record: &Record) -> Result<(), Corrupt> {
    if record.is_proven() { Ok(()) } else { record.verify().map(drop) }
}
