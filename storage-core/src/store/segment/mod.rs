//! Objects in append-only, checksummed segment files: a node's real store.
//!
//! ```text
//!  put, touch ──append──> active segment ──full: synced, sealed──> older segments, never written again
//!       │                     │ sync: one data sync for everybody who waits (group commit)
//!       └──places──> recent places (memory) ──after every few hundred MiB──> index (redb), watermark moves
//!
//!  open: index up to the watermark, then scan the segments from there; a torn tail is cut off
//!  get:  place -> one read -> hashed -> out; a wrong hash drops the copy
//!  put and touch of what is here: the same read; hashed once per process, then compared with its checksum
//!  remove: a frame that says so; reclaim: frames without objects become holes, segments without objects are deleted
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `mod.rs` | the store, its settings, its state and its locks |
//! | `recover.rs` | opening: read the index, scan what it does not know, cut off a torn tail |
//! | `append.rs` | put and touch: from records to frames at the end of the active segment |
//! | `sync.rs` | group commit |
//! | `places.rs` | where each object is: recent places, and moving them into the index |
//! | `read.rs` | get and load, and the look at copies that put and touch rely on; a bad copy is dropped |
//! | `unread.rs` | copies that the disk does not read: they do not count |
//! | `reclaim.rs` | removing objects, and giving the disk back what they took |
//!
//! These hold at every instant; the crash test checks them after every single write:
//! - What a `sync` acknowledged is found after any stop, with its stamp (I3, I6). Nothing is visible half-written (I4).
//! - All segments but the newest are synced whole, so only the newest can have a torn tail or torn frames. Opening
//!   cuts off the tail and clears the torn frames before a newer segment can follow. In older ones only frames that nobody
//!   needs are ever written to: they become holes.
//! - The index knows only what is synced. Without an index, or with one that does not fit, all segments are scanned.
//! - A sync that failed is final: the store stops taking writes until it is opened again.
//! - Flipped bits cost the copies that they are in, and no other. `recover.rs` says how damage is told from a torn tail.
//!
//! How long a proof counts: that this process has hashed a copy, when it wrote or read it, counts until the process ends.
//! It saves the hash and never the read: each touch compares the bytes that the disk gives now with their checksum (CRC),
//! which finds rot and costs a fraction. The system may answer that read from its memory. What rots below that memory is
//! found when the system reads it again, at the latest in the next process.
//!
//! Memory: the recent places, which copies are proven (4 MiB), some open files and 4 MiB of index. Nothing grows with the
//! pool.

mod append;
mod places;
mod read;
mod reclaim;
mod recover;
mod sync;
mod unread;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    BadCopies, BadCopy, ChunkStore, Listed, PutSummary, StoreError, Unreadable, Usage,
    disk::{Disk, Folder},
    index::{Index, Totals, io_error},
};
use crate::{ObjectName, Record, VerifiedObject, lock};
use append::Active;
use places::Recent;
use read::{Files, Proven};
use unread::Unread;

/// How a segment store behaves. The defaults are for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes the segments may take; none: no limit but the disk's.
    pub limit_bytes: Option<u64>,
    /// Bytes after which a segment is sealed.
    pub segment_bytes: u64,
    /// Bytes appended before the index is written. Opening after a crash scans about this much at most.
    pub index_after_bytes: u64,
    /// Objects whose places are kept in memory before the index is written.
    pub index_after_objects: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { limit_bytes: None, segment_bytes: 256 << 20, index_after_bytes: 256 << 20, index_after_objects: 8192 }
    }
}

/// What opening a store found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Everything was scanned, because the index was missing, damaged or another pool's.
    pub rebuilt: bool,
    /// Bytes of segments behind the watermark, which were scanned.
    pub scanned_bytes: u64,
    /// Bytes cut off the newest segment. They were written but never acknowledged.
    pub torn_bytes: u64,
    /// Bytes within segments that are no frames. After a power cut they are writes that were never acknowledged;
    /// otherwise the disk is losing data.
    pub damaged_bytes: u64,
    /// Segments of which nothing could be read.
    pub damaged_segments: u64,
}

/// A [`ChunkStore`] on a disk.
#[derive(Debug)]
pub struct SegmentStore {
    disk: Arc<dyn Disk>,
    options: Options,
    pool: [u8; 16],
    index: Index,
    opened: Opened,
    writer: Mutex<Writer>,
    /// Notified when a sync ended.
    synced: Condvar,
    recent: RwLock<Recent>,
    /// Held while space is given back. Taken before `advancing`.
    reclaiming: Mutex<()>,
    /// Held while the index is written. Taken before `writer`, which is taken before `recent`.
    advancing: Mutex<()>,
    files: Mutex<Files>,
    /// The copies that this process has hashed.
    proven: Mutex<Proven>,
    bad: Mutex<BadCopies>,
    /// The copies that the disk does not read.
    unread: Mutex<Unread>,
}

/// Everything that appending changes. One thread appends at a time.
#[derive(Debug, Default)]
struct Writer {
    active: Option<Active>,
    next_segment: u32,
    /// Lengths of the segments sealed since the index was written.
    sealed: BTreeMap<u32, u64>,
    disk_bytes: u64,
    totals: Totals,
    /// Number of appends done since the store was opened.
    appended: u64,
    /// How many of the appends are synced.
    synced: u64,
    /// Whether a thread is syncing now.
    syncing: bool,
    /// Whether a segment was created whose name is not durable yet.
    names_pending: bool,
    /// Bytes appended since the index was written.
    since_index: u64,
    /// Syncs to wait before the index is tried again, after it could not be written.
    index_pause: u32,
    /// Set by the first failure, with its reason. Nothing is appended from then on.
    failed: Option<String>,
}

impl SegmentStore {
    /// Opens the store in a folder and creates the folder if it does not exist.
    ///
    /// # Errors
    /// When another process has it open, a file of it cannot be read, or a newer release wrote it.
    pub fn open(folder: &Path, options: Options) -> Result<SegmentStore, StoreError> {
        match Folder::open(folder).map_err(io_error("open", &folder.display().to_string()))? {
            Some(folder) => SegmentStore::open_on(Arc::new(folder), options),
            None => Err(StoreError::Locked),
        }
    }

    /// What opening found in the folder.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Syncs and writes the index, so that the next open has nothing to scan. Dropping the store tries the same.
    ///
    /// # Errors
    /// When something could not be written. What was synced before is safe.
    pub fn close(self) -> Result<(), StoreError> {
        self.sync()?;
        self.advance(&lock(&self.advancing))
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent_mut(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for SegmentStore {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        self.put_batch(round, records)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.touch_batch(round, names)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let appended = self.writer().appended;
        self.sync_up_to(appended)?;
        self.advance_if_due(1);
        Ok(())
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.with_record(name, Record::prove)
    }

    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        self.with_record(name, |record| record.verify())
    }

    fn scrub(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.forget_cached(name)?;
        let good = self.with_record(name, Record::prove)?.is_some();
        // What a scrub reads must not push out what others need.
        self.forget_cached(name)?;
        Ok(good)
    }

    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        let objects: Vec<(ObjectName, u64)> = names.iter().map(|name| (*name, below)).collect();
        self.remove_batch(&objects)
    }

    fn remove_each(&self, objects: &[(ObjectName, u64)]) -> Result<Vec<Option<u64>>, StoreError> {
        self.remove_batch(objects)
    }

    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        self.reclaim_while(go_on)
    }

    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        Ok(self.place(name)?.filter(|place| !self.is_unread(name, *place)).map(|place| place.listed(*name)))
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.list_counting(after, count_max)
    }

    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.list_places(after, count_max)
    }

    fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable_copies()
    }

    fn doubt(&self, names: &[ObjectName]) {
        self.doubt_copies(names);
    }

    fn usage(&self) -> Usage {
        let writer = self.writer();
        let bad = lock(&self.bad);
        Usage {
            objects: writer.totals.objects,
            bytes: writer.totals.bytes,
            disk_bytes: writer.disk_bytes,
            limit_bytes: self.options.limit_bytes,
            bad_copies: bad.count,
            bad_bytes: bad.bytes,
        }
    }

    fn take_bad_copies(&self) -> Vec<BadCopy> {
        std::mem::take(&mut lock(&self.bad).copies)
    }
}

impl Drop for SegmentStore {
    fn drop(&mut self) {
        // A clean stop leaves nothing to scan. If it fails, or the process is killed instead, the next open scans.
        let nothing_new = self.recent().newer.is_empty() && self.writer().sealed.is_empty();
        if !nothing_new {
            let _ = self.advance(&lock(&self.advancing));
        }
    }
}

impl Writer {
    /// An error if the store has stopped.
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(reason) => Err(StoreError::Failed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Stops the store, because what the disk holds is unknown from here on. The first reason stays.
    fn fail(&mut self, op: &str, source: io::Error) -> StoreError {
        let reason = self.failed.get_or_insert_with(|| format!("{op} failed: {source}")).clone();
        StoreError::Failed { reason }
    }
}

fn segment_name(number: u32) -> String {
    format!("segment-{number:010}")
}

fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}
