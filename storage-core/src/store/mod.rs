//! Where a node keeps its share of the pool.
//!
//! A [`ChunkStore`] takes records and returns them by name. It promises five things:
//! - **Callers ask for durability, once per batch** (I3): [`ChunkStore::put`], [`ChunkStore::touch`] and
//!   [`ChunkStore::remove`] may buffer. When [`ChunkStore::sync`] returns, everything put, touched or removed before it
//!   was called is so on stable storage.
//! - **No bad copy is served** (I4): records that this process has not hashed are hashed on the way in, and every record
//!   is hashed on the way out. A copy that fails is dropped, counted in [`Usage::bad_copies`] and listed by
//!   [`ChunkStore::take_bad_copies`]. The caller is told that the object is absent.
//! - **No bad copy is built upon** (I3): "it is here already" is an answer about a copy that was read again, now.
//!   Whoever gets that answer does not send the object, so a copy that rots unseen would end up in a new version.
//! - **Stamps** (I6): each object carries the highest round in which it was put or touched, as durable as the object.
//! - **Failure is final**: after a sync that failed, what is on the disk is unknown. Every later put, touch and sync
//!   answers [`StoreError::Failed`] until the store is opened again and has read the disk.
//!
//! A store does not know what objects mean, who owns them, or which of them are still needed.

mod disk;
#[cfg(feature = "testing")]
mod faulty;
mod frame;
mod index;
#[cfg(feature = "testing")]
mod memory;
mod scan;
mod segment;
#[cfg(feature = "testing")]
mod sim;

use std::{collections::BTreeMap, io};

pub use disk::{Disk, DiskFile, Folder, is_failure};
#[cfg(feature = "testing")]
pub use faulty::{Call, Fault, FaultyStore};
#[cfg(feature = "testing")]
pub use memory::MemoryStore;
pub use segment::{Opened, Options, SegmentStore};
#[cfg(feature = "testing")]
pub use sim::{Full, SimDisk};

use crate::{Corrupt, Kind, ObjectName, Record, VerifiedObject};

/// A node's objects. Every call may block on the disk, so async callers use blocking threads.
pub trait ChunkStore: Send + Sync {
    /// Keeps the records and stamps them with the round. Those of which a good copy is here already are only stamped: it
    /// is read, as by [`ChunkStore::touch`]. Durable after [`ChunkStore::sync`].
    ///
    /// # Errors
    /// After an error, either all or none of the new records are kept.
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError>;

    /// Stamps those of the objects that are here with the round. The answer tells for each name whether it is here.
    /// Durable after [`ChunkStore::sync`].
    ///
    /// Every copy is read and compared with its checksum, and hashed if this process has not hashed it yet. A bad one is
    /// dropped and answered as absent, so that the caller sends the object again. One that the disk does not read now is
    /// answered as absent, too, but kept.
    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError>;

    /// Drops those of the objects whose stamp is below this round. The answer has for each name the stored bytes that were
    /// dropped, without the header; none if the object is not here or stays. An object that is put or touched at the same
    /// time is dropped before that, or not at all. Durable after [`ChunkStore::sync`].
    ///
    /// Puts and touches wait meanwhile, so that callers with many names ask for some of them at a time.
    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError>;

    /// As [`ChunkStore::remove`], for objects that each come with the round that their stamp has to be below. The answer is in
    /// the order of the objects.
    ///
    /// # Errors
    /// As [`ChunkStore::remove`]. Some of the objects may be dropped then.
    fn remove_each(&self, objects: &[(ObjectName, u64)]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut groups: BTreeMap<u64, Vec<ObjectName>> = BTreeMap::new();
        for (name, below) in objects {
            groups.entry(*below).or_default().push(*name);
        }
        let mut removed: BTreeMap<ObjectName, u64> = BTreeMap::new();
        for (below, names) in groups {
            let bytes = self.remove(below, &names)?;
            removed.extend(names.into_iter().zip(bytes).filter_map(|(name, bytes)| Some((name, bytes?))));
        }
        Ok(objects.iter().map(|(name, _)| removed.get(name).copied()).collect())
    }

    /// Gives the disk back the space of objects that are not here any more. Returns how many bytes. It may take long; what
    /// else is asked of the store goes on meanwhile. Before each small part of the work `go_on` is asked, which may wait: if it
    /// answers false, the rest is left to the next call.
    ///
    /// # Errors
    /// When the disk fails. What was not given back is tried again by the next call.
    fn reclaim(&self, _go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Makes every put, touch and removal durable that returned before this call.
    fn sync(&self) -> Result<(), StoreError>;

    /// The record of an object, proven, with its stamp. None when it is not here, or when this call found that its copy
    /// is bad and dropped it.
    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError>;

    /// The object itself: [`ChunkStore::get`] and [`Record::verify`] in one, decoding only once.
    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        Ok(self.get(name)?.map(|record| record.verify()).transpose()?)
    }

    /// Reads the copy of an object from the disk itself, not from the system's memory, and hashes it. A bad one is dropped.
    /// The answer tells whether a good one is here.
    fn scrub(&self, name: &ObjectName) -> Result<bool, StoreError> {
        Ok(self.get(name)?.is_some())
    }

    /// What [`ChunkStore::list`] says about this object; none when it is not here, or when the disk did not read its copy the
    /// last time ([`ChunkStore::unreadable`]). Does not read its bytes.
    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError>;

    /// Whether the object is here, as [`ChunkStore::find`] says. Does not read its bytes.
    fn contains(&self, name: &ObjectName) -> Result<bool, StoreError> {
        Ok(self.find(name)?.is_some())
    }

    /// For each of these objects whether its copy was given up here because the repository has the object. Such an object is
    /// not here: no other call of this trait finds it.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn evicted(&self, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; names.len()])
    }

    /// The next objects after a name, in name order, at most `count_max`, without those whose copy the disk does not read.
    /// Empty at the end.
    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError>;

    /// As [`ChunkStore::list`], with the copies that the disk does not read: for who removes objects, or reads them again.
    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.list(after, count_max)
    }

    /// The copies that the disk did not read when it was last asked to, at most [`UNREADABLE_MAX`]. They are kept, but do not
    /// count: [`ChunkStore::find`] and [`ChunkStore::list`] leave them out, and a put stores the object anew. One that is
    /// read again, by any call, counts again.
    fn unreadable(&self) -> Vec<Unreadable> {
        Vec::new()
    }

    /// Treats the copies of these objects as unreadable until they were read. It says nothing about the disk.
    fn doubt(&self, _names: &[ObjectName]) {}

    /// All names, in order. The memory grows with their number, so this is for small pools and tests; otherwise use
    /// [`ChunkStore::list`].
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

    /// How full the store is.
    fn usage(&self) -> Usage;

    /// The bad copies found since the last call, at most [`BAD_COPIES_MAX`]. Each is gone from this store and has to be
    /// fetched again from another.
    fn take_bad_copies(&self) -> Vec<BadCopy>;
}

/// Most bad copies remembered between two calls of [`ChunkStore::take_bad_copies`].
pub const BAD_COPIES_MAX: usize = 4096;

/// Most unreadable copies that a store remembers. A disk with so many has failed.
pub const UNREADABLE_MAX: usize = 65_536;

/// What a put did with its records. Peers answer it to each other, so it is also part of their protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PutSummary {
    /// Number of objects that were not here before.
    pub stored: u64,
    /// Number of objects that were here and are stamped now.
    pub touched: u64,
    /// Stored bytes of the new objects, without their headers.
    pub stored_bytes: u64,
}

/// An object in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name of the object.
    pub name: ObjectName,
    /// What the object is.
    pub kind: Kind,
    /// The highest round in which it was put or touched.
    pub round: u64,
    /// Its stored bytes, without the header.
    pub stored_bytes: u64,
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of objects.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
    /// Bytes that the store takes on its disk, with headers and with dropped objects not yet reclaimed.
    pub disk_bytes: u64,
    /// The most that `disk_bytes` may become. None: as much as the disk holds.
    pub limit_bytes: Option<u64>,
    /// Number of copies lost since the store was opened: dropped because their bytes were wrong, or known to the index
    /// and found in no segment.
    pub bad_copies: u64,
    /// Their stored bytes, without headers.
    pub bad_bytes: u64,
}

/// A copy that the disk did not read, or that is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Name of the object.
    pub name: ObjectName,
    /// Its stored bytes, without the header.
    pub stored_bytes: u64,
    /// This store tried to read it, and the disk failed. Otherwise it is only doubted ([`ChunkStore::doubt`]).
    pub read_failed: bool,
}

/// A copy that was dropped because its bytes were wrong or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Name of the object that the copy should have been.
    pub name: ObjectName,
    /// Its stored bytes, without the header.
    pub stored_bytes: u64,
    /// What was wrong with the copy.
    pub reason: Corrupt,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool's limit is reached or the disk is full. Nothing of the batch was kept; everything else is unharmed.
    #[error("the pool is full: {used_bytes} bytes used, {wanted_bytes} more wanted, {limit}", limit = shown(*.limit_bytes))]
    Full {
        /// Bytes that the store takes now.
        used_bytes: u64,
        /// Bytes that the batch needs.
        wanted_bytes: u64,
        /// The pool's limit. None: the disk itself is full.
        limit_bytes: Option<u64>,
    },
    /// The bytes of a record do not match its name. Nothing of the batch was kept.
    #[error("the bytes of a record do not match its name")]
    Refused(#[from] Corrupt),
    /// The disk could not be read or written. The store goes on.
    #[error("{op} {file} failed")]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file it was tried on, relative to the store's folder.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The index could not be read or written. Opening the store again makes a new one.
    #[error("the store's index failed")]
    Index {
        /// The error of the index's database.
        source: Box<redb::Error>,
    },
    /// After an earlier failure, what is on the disk is unknown. The store has to be opened again.
    #[error("the store stopped: {reason}")]
    Failed {
        /// The first failure, for people.
        reason: String,
    },
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    Locked,
    /// The folder holds something this release does not read.
    #[error("{file} is not a segment this release reads")]
    Format {
        /// The file, relative to the store's folder.
        file: String,
        /// What cannot be read in it.
        source: Corrupt,
    },
}

impl StoreError {
    /// Whether the disk has no room, or the pool's limit is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let no_room =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => no_room(source),
            Self::Index { source } => matches!(source.as_ref(), redb::Error::Io(error) if no_room(error)),
            _ => false,
        }
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "the disk has no room".to_owned(), |n| format!("{n} bytes allowed"))
}

/// The bad copies that a store has found.
#[derive(Debug, Default)]
struct BadCopies {
    copies: Vec<BadCopy>,
    count: u64,
    bytes: u64,
}

impl BadCopies {
    fn add(&mut self, bad: BadCopy) {
        self.count += 1;
        self.bytes += bad.stored_bytes;
        if self.copies.len() < BAD_COPIES_MAX {
            self.copies.push(bad);
        }
    }
}

/// Checks that a record may enter a store: it is proven, or hashed here and now.
fn proven(record: &Record) -> Result<(), Corrupt> {
    record.clone().prove().map(drop)
}
