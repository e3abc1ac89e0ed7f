//! Where each object is, in a redb database beside the segments. The index is a cache of what scanning the segments would
//! find. When it is damaged or does not fit them, it is thrown away and made anew. Opening reads all of it and compares
//! its checksums, because one damaged row would hide an object whose copy is whole.
//!
//! It knows everything up to the *watermark*, a place in the segments before which everything is synced. Opening a store
//! scans from there on. Writing the index costs syncs, so it is written after every few hundred MiB and at a clean stop.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, IoSlice},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition};

use super::{
    Listed, StoreError,
    disk::{Disk, DiskFile},
    frame::object_frame_bytes,
};
use crate::{Kind, ObjectName, units::usize_from};

pub(super) const FILE: &str = "index.redb";
/// 1: did not count what is live in each segment. 2: did not tell the kinds of objects.
const FORMAT: u64 = 3;
/// Bytes of the index kept in memory. The store has to stay small beside guests.
const CACHE_BYTES: usize = 4 << 20;

/// Segment, offset of the frame, stored bytes, round, kind.
type Row = (u32, u64, u32, u64, u8);
const OBJECTS: TableDefinition<'_, [u8; 32], Row> = TableDefinition::new("objects");
/// Segment -> bytes of it that the index knows.
const SEGMENTS: TableDefinition<'_, u32, u64> = TableDefinition::new("segments");
/// Segment -> bytes of its frames that hold objects of the table above.
const LIVE: TableDefinition<'_, u32, u64> = TableDefinition::new("live");
/// Segment that was reclaimed -> bytes of it that were left on the disk, and how many of its bytes were live then.
const RECLAIMED: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("reclaimed");
/// Segments of which nothing is needed any more. Their files are removed after this is durable.
const GONE: TableDefinition<'_, u32, ()> = TableDefinition::new("gone");
/// The numbers named format, pool.0 and pool.1 (halves of the pool's id), objects, bytes.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Where the record of an object is, and what the index tells without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) round: u64,
    pub(super) kind: Kind,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// Places that changed. None: the object is no longer here.
pub(super) type Changes = HashMap<ObjectName, Option<Place>>;

#[derive(Debug)]
pub(super) struct Index {
    disk: Arc<dyn Disk>,
    pool: [u8; 16],
    /// None: a write failed, and so did opening the database again.
    database: RwLock<Option<Database>>,
}

/// An index that was thrown away because the segments lack something that it knows. It still tells what.
pub(super) struct Discarded(Database);

/// What opening the index found.
pub(super) struct OpenedIndex {
    pub(super) index: Index,
    pub(super) known: Known,
    pub(super) discarded: Option<Discarded>,
}

/// What an index says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) pool: [u8; 16],
    /// Bytes known of each segment. The watermark is the end of the highest one.
    pub(super) segments: BTreeMap<u32, u64>,
    /// Bytes that reclaimed segments still have on the disk.
    pub(super) held: BTreeMap<u32, u64>,
    /// Segments whose files may be left and are not needed.
    pub(super) gone: BTreeSet<u32>,
    pub(super) totals: Totals,
}

/// What is live of a segment that the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentUse {
    pub(super) segment: u32,
    /// Bytes that the index knows of it.
    pub(super) len: u64,
    /// Bytes of its frames whose objects are here.
    pub(super) live: u64,
    /// If it was reclaimed: the bytes that were left on the disk, and those that were live.
    pub(super) reclaimed: Option<(u64, u64)>,
}

impl Index {
    /// The index if it is whole, of this pool and fits the segments, otherwise a new, empty one. When no segment tells
    /// the pool, the index does.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        pool: Option<[u8; 16]>,
        fits: impl Fn(&Known) -> bool,
    ) -> Result<OpenedIndex, StoreError> {
        let index = |database, pool| Index { disk: disk.clone(), pool, database: RwLock::new(Some(database)) };
        let exists = disk.list().map_err(io_error("list", "."))?.iter().any(|n| n == FILE);
        let mut old = None;
        if exists {
            old = match existing(disk.as_ref(), Damage::Look) {
                Ok(found) => found.filter(|(_, known)| pool.is_none_or(|pool| pool == known.pool)),
                // That the disk itself fails is no reason to throw the index away.
                Err(redb::Error::Io(source)) if !is_damage(&source) => {
                    return Err(StoreError::Io { op: "read", file: FILE.to_owned(), source });
                }
                Err(_) => None,
            };
            if let Some((database, known)) = old.take_if(|(_, known)| fits(known)) {
                return Ok(OpenedIndex { index: index(database, known.pool), known, discarded: None });
            }
            // The old file can still be read while it is open.
            disk.remove(FILE).map_err(io_error("remove", FILE))?;
        }
        let pool = match pool.or(old.as_ref().map(|(_, known)| known.pool)) {
            Some(pool) => pool,
            None => random()?,
        };
        let file = disk.create(FILE).map_err(io_error("create", FILE))?;
        let database = database(file, Damage::Trust).and_then(|database| begin(&database, pool).map(|()| database));
        let database = database.map_err(index_error)?;
        disk.sync_names().map_err(io_error("sync", "."))?;
        let discarded = old.map(|(database, _)| Discarded(database));
        Ok(OpenedIndex { index: index(database, pool), known: Known { pool, ..Known::default() }, discarded })
    }

    /// The pool that the index belongs to.
    pub(super) fn pool(&self) -> [u8; 16] {
        self.pool
    }

    /// Opens the index again after a write to it failed, because redb refuses everything from then on. It is as it was
    /// before that write. If opening fails as well, whatever needs the index next tries again.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old database is closed before it is opened again.
        *slot = None;
        match existing(self.disk.as_ref(), Damage::Trust) {
            Ok(Some((database, known))) if known.pool == self.pool => *slot = Some(database),
            Ok(_) => return Err(gone()),
            Err(error) => return Err(index_error(error)),
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = database.as_ref() {
            return work(database).map_err(index_error);
        }
        // Opening it again failed earlier. Perhaps the disk has room now.
        drop(database);
        self.reopen()?;
        match self.database.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(database) => work(database).map_err(index_error),
            None => Err(gone()),
        }
    }

    /// Where an object was when the index was written.
    pub(super) fn get(&self, name: &ObjectName) -> Result<Option<Place>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(OBJECTS)?;
            Ok(table.get(name.as_bytes())?.map(|row| Place::from_row(row.value())))
        })
    }

    /// The next objects after a name, in order.
    pub(super) fn list(
        &self,
        after: Option<&ObjectName>,
        count_max: usize,
    ) -> Result<Vec<(ObjectName, Place)>, StoreError> {
        use std::ops::Bound;
        self.with(|database| {
            let table = database.begin_read()?.open_table(OBJECTS)?;
            let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(*name.as_bytes()));
            let mut rows = Vec::new();
            for row in table.range::<[u8; 32]>((from, Bound::Unbounded))?.take(count_max) {
                let (name, place) = row?;
                rows.push((ObjectName::from_bytes(name.value()), Place::from_row(place.value())));
            }
            Ok(rows)
        })
    }

    /// Takes in changes and moves the watermark, in one transaction. Everything before the new watermark must be synced.
    pub(super) fn advance(
        &self,
        changes: &Changes,
        segments: &BTreeMap<u32, u64>,
        totals: Totals,
    ) -> Result<(), StoreError> {
        self.change(|write| {
            let mut objects = write.open_table(OBJECTS)?;
            // In name order, so that each page of the index is visited once.
            let mut sorted: Vec<_> = changes.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| **name);
            let mut live: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for (name, place) in sorted {
                let before = match place {
                    Some(place) => objects.insert(name.as_bytes(), place.row())?,
                    None => objects.remove(name.as_bytes())?,
                };
                if let Some(before) = before.map(|row| Place::from_row(row.value())) {
                    live.entry(before.segment).or_default().1 += before.frame_bytes();
                }
                if let Some(place) = place {
                    live.entry(place.segment).or_default().0 += place.frame_bytes();
                }
            }
            let mut table = write.open_table(LIVE)?;
            for (segment, (more, less)) in live {
                let before = table.get(segment)?.map_or(0, |bytes| bytes.value());
                // Nothing checks single rows, so a damaged one may say more than there is.
                table.insert(segment, (before + more).saturating_sub(less))?;
            }
            let mut table = write.open_table(SEGMENTS)?;
            for (segment, len) in segments {
                table.insert(segment, len)?;
            }
            let mut meta = write.open_table(META)?;
            meta.insert("objects", totals.objects)?;
            meta.insert("bytes", totals.bytes)?;
            Ok(())
        })
    }

    /// The segments that the index knows, oldest first.
    pub(super) fn segments(&self) -> Result<Vec<SegmentUse>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let (live, reclaimed) = (read.open_table(LIVE)?, read.open_table(RECLAIMED)?);
            let mut all = Vec::new();
            for row in read.open_table(SEGMENTS)?.iter()? {
                let (segment, len) = row?;
                let segment = segment.value();
                all.push(SegmentUse {
                    segment,
                    len: len.value(),
                    live: live.get(segment)?.map_or(0, |bytes| bytes.value()),
                    reclaimed: reclaimed.get(segment)?.map(|row| row.value()),
                });
            }
            Ok(all)
        })
    }

    /// Notes what was left of a segment on the disk.
    pub(super) fn set_reclaimed(&self, segment: u32, held: u64, live: u64) -> Result<(), StoreError> {
        self.change(|write| Ok(write.open_table(RECLAIMED)?.insert(segment, (held, live)).map(drop)?))
    }

    /// Forgets segments in which nothing is live. Their files can be removed once this returns.
    pub(super) fn set_gone(&self, segments: &[u32]) -> Result<(), StoreError> {
        self.change(|write| {
            for segment in segments {
                write.open_table(SEGMENTS)?.remove(segment)?;
                write.open_table(LIVE)?.remove(segment)?;
                write.open_table(RECLAIMED)?.remove(segment)?;
                write.open_table(GONE)?.insert(segment, ())?;
            }
            Ok(())
        })
    }

    /// Forgets the segments whose files are gone for good. No new segment ever gets one of their numbers.
    pub(super) fn forget_gone(&self, segments: &[u32]) -> Result<(), StoreError> {
        self.change(|write| {
            let mut gone = write.open_table(GONE)?;
            segments.iter().try_for_each(|segment| Ok(gone.remove(segment).map(drop)?))
        })
    }

    /// Changes the index in one transaction. If that fails, the index is opened again.
    fn change(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let changed = self.with(|database| {
            let mut write = database.begin_write()?;
            // This makes a commit dearer, and commits are rare. Without it, opening after a crash would read the whole
            // index.
            write.set_quick_repair(true);
            work(&write)?;
            Ok(write.commit()?)
        });
        if changed.is_err() {
            // If this fails, it is tried again when something is looked up.
            let _ = self.reopen();
        }
        changed
    }
}

impl Discarded {
    /// Visits every object that the old index knew. A damaged rest of it is not visited.
    pub(super) fn each(
        &self,
        visit: &mut dyn FnMut(ObjectName, Place) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut each = || -> Result<Result<(), StoreError>, redb::Error> {
            for row in self.0.begin_read()?.open_table(OBJECTS)?.iter()? {
                let (name, place) = row?;
                if let Err(error) = visit(ObjectName::from_bytes(name.value()), Place::from_row(place.value())) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        };
        each().unwrap_or(Ok(()))
    }
}

/// Whether opening the index reads all of it to see that it is whole.
#[derive(Clone, Copy)]
enum Damage {
    Look,
    Trust,
}

/// The index, if it can be read.
fn existing(disk: &dyn Disk, damage: Damage) -> Result<Option<(Database, Known)>, redb::Error> {
    // On a damaged file redb answers an error or panics. Both mean here that there is no usable index.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = database(disk.open(FILE)?, damage)?;
        let known = known(&database)?;
        Ok(known.map(|known| (database, known)))
    }));
    opened.unwrap_or(Ok(None))
}

fn database(file: Arc<dyn DiskFile>, damage: Damage) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(matches!(damage, Damage::Look));
    Ok(builder.create_with_backend(Backend(file))?)
}

fn begin(database: &Database, pool: [u8; 16]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert("format", FORMAT)?;
        for (key, half) in ["pool.0", "pool.1"].iter().zip(pool.as_chunks::<8>().0) {
            meta.insert(*key, u64::from_le_bytes(*half))?;
        }
        write.open_table(OBJECTS)?;
        write.open_table(SEGMENTS)?;
        write.open_table(LIVE)?;
        write.open_table(RECLAIMED)?;
        write.open_table(GONE)?;
    }
    write.commit()?;
    Ok(())
}

/// What the index says about itself. None: it has another format.
fn known(database: &Database) -> Result<Option<Known>, redb::Error> {
    let read = database.begin_read()?;
    let meta = read.open_table(META)?;
    let number = |key: &str| Ok::<_, redb::Error>(meta.get(key)?.map_or(0, |n| n.value()));
    let mut pool = [0; 16];
    for (key, half) in ["pool.0", "pool.1"].iter().zip(pool.as_chunks_mut::<8>().0) {
        *half = number(key)?.to_le_bytes();
    }
    if number("format")? != FORMAT {
        return Ok(None);
    }
    let totals = Totals { objects: number("objects")?, bytes: number("bytes")? };
    if read.open_table(OBJECTS)?.len()? != totals.objects {
        return Ok(None);
    }
    let mut segments = BTreeMap::new();
    for row in read.open_table(SEGMENTS)?.iter()? {
        let (segment, len) = row?;
        segments.insert(segment.value(), len.value());
    }
    let mut held = BTreeMap::new();
    for row in read.open_table(RECLAIMED)?.iter()? {
        let (segment, left) = row?;
        held.insert(segment.value(), left.value().0);
    }
    let mut gone = BTreeSet::new();
    for row in read.open_table(GONE)?.iter()? {
        gone.insert(row?.0.value());
    }
    Ok(Some(Known { pool, segments, held, gone, totals }))
}

impl Place {
    /// Segment and offset: what tells one copy from all others.
    pub(super) fn at(&self) -> (u32, u64) {
        (self.segment, self.offset)
    }

    /// Bytes that the frame of the object takes in its segment.
    pub(super) fn frame_bytes(&self) -> u64 {
        object_frame_bytes(usize_from(self.stored_len.into()))
    }

    fn row(&self) -> Row {
        (self.segment, self.offset, self.stored_len, self.round, self.kind.to_byte())
    }

    /// What the list says of the object.
    pub(super) fn listed(&self, name: ObjectName) -> Listed {
        Listed { name, kind: self.kind, round: self.round, stored_bytes: self.stored_len.into() }
    }

    fn from_row((segment, offset, stored_len, round, kind): Row) -> Place {
        // A damaged row may have any byte. Taking the object for a page costs one copy more.
        Place { segment, offset, stored_len, round, kind: Kind::from_byte(kind).unwrap_or(Kind::Page) }
    }
}

/// Whether an error means a damaged file (such as a read beyond its end) and not a failing disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

/// 16 random bytes, for a pool or a marker.
pub(super) fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| io_error("read", "random bytes")(io::Error::other(error.to_string())))?;
    Ok(bytes)
}

fn gone() -> StoreError {
    StoreError::Failed { reason: "a write to the index failed, and it cannot be opened again yet".to_owned() }
}

fn index_error(source: redb::Error) -> StoreError {
    StoreError::Index { source: Box::new(source) }
}

pub(super) fn io_error(op: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    let file = file.to_owned();
    move |source| StoreError::Io { op, file, source }
}

/// Lets redb use the same [`Disk`] as the segments.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_into(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_size(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, &mut [IoSlice::new(data)])
    }
}
