//! Where each object is, in a redb database beside the segments. The index is a cache of what scanning the segments would
//! find. When it does not fit them, it is thrown away and made anew.
//!
//! It knows everything up to the *watermark*, a place in the segments before which everything is synced. Opening a store
//! scans from there on. Writing the index costs syncs, so it is written after every few hundred MiB and at a clean stop.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, IoSlice},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition};

use super::{
    StoreError,
    disk::{Disk, DiskFile},
};
use crate::ObjectName;

pub(super) const FILE: &str = "index.redb";
const FORMAT: u64 = 1;
/// Bytes of the index kept in memory. The store has to stay small beside guests.
const CACHE_BYTES: usize = 4 << 20;

/// Segment, offset of the frame, stored bytes, round.
type Row = (u32, u64, u32, u64);
const OBJECTS: TableDefinition<'_, [u8; 32], Row> = TableDefinition::new("objects");
/// Segment -> bytes of it that the index knows.
const SEGMENTS: TableDefinition<'_, u32, u64> = TableDefinition::new("segments");
/// The numbers named format, pool.0 and pool.1 (halves of the pool's id), objects, bytes.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Where the record of an object is, and what the index tells without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) round: u64,
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

/// What an index says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Bytes known of each segment. The watermark is the end of the highest one.
    pub(super) segments: BTreeMap<u32, u64>,
    pub(super) totals: Totals,
}

impl Index {
    /// The index of this pool if it can be read and fits the segments, otherwise a new, empty one.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        pool: [u8; 16],
        fits: impl Fn(&Known) -> bool,
    ) -> Result<(Index, Known), StoreError> {
        let index = |database| Index { disk: disk.clone(), pool, database: RwLock::new(Some(database)) };
        let exists = disk.list().map_err(io_error("list", "."))?.iter().any(|n| n == FILE);
        if exists {
            match existing(disk.as_ref(), pool) {
                Ok(Some((database, known))) if fits(&known) => return Ok((index(database), known)),
                // That the disk itself fails is no reason to throw the index away.
                Err(redb::Error::Io(source)) if !is_damage(&source) => {
                    return Err(StoreError::Io { op: "read", file: FILE.to_owned(), source });
                }
                _ => disk.remove(FILE).map_err(io_error("remove", FILE))?,
            }
        }
        let file = disk.create(FILE).map_err(io_error("create", FILE))?;
        let database = database(file).and_then(|database| begin(&database, pool).map(|()| database));
        let database = database.map_err(index_error)?;
        disk.sync_names().map_err(io_error("sync", "."))?;
        Ok((index(database), Known::default()))
    }

    /// Opens the index again after a write to it failed, because redb refuses everything from then on. It is as it was
    /// before that write. If opening fails as well, whatever needs the index next tries again.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old database is closed before it is opened again.
        *slot = None;
        match existing(self.disk.as_ref(), self.pool) {
            Ok(Some((database, _))) => *slot = Some(database),
            Ok(None) => return Err(gone()),
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
        self.with(|database| {
            let mut write = database.begin_write()?;
            // This makes a commit dearer, and commits are rare. Without it, opening after a crash would read the whole
            // index.
            write.set_quick_repair(true);
            {
                let mut objects = write.open_table(OBJECTS)?;
                // In name order, so that each page of the index is visited once.
                let mut sorted: Vec<_> = changes.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| **name);
                for (name, place) in sorted {
                    match place {
                        Some(place) => objects.insert(name.as_bytes(), place.row())?.map(drop),
                        None => objects.remove(name.as_bytes())?.map(drop),
                    };
                }
                let mut table = write.open_table(SEGMENTS)?;
                for (segment, len) in segments {
                    table.insert(segment, len)?;
                }
                let mut meta = write.open_table(META)?;
                meta.insert("objects", totals.objects)?;
                meta.insert("bytes", totals.bytes)?;
            }
            write.commit()?;
            Ok(())
        })
    }
}

/// The index, if it can be read and is this pool's.
fn existing(disk: &dyn Disk, pool: [u8; 16]) -> Result<Option<(Database, Known)>, redb::Error> {
    // On a damaged file redb answers an error or panics. Both mean here that there is no usable index.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = database(disk.open(FILE)?)?;
        let known = known(&database, pool)?;
        Ok(known.map(|known| (database, known)))
    }));
    opened.unwrap_or(Ok(None))
}

fn database(file: Arc<dyn DiskFile>) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(Backend(file))?)
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
    }
    write.commit()?;
    Ok(())
}

/// What the index says about itself. None: it has another format or is another pool's.
fn known(database: &Database, pool: [u8; 16]) -> Result<Option<Known>, redb::Error> {
    let read = database.begin_read()?;
    let meta = read.open_table(META)?;
    let number = |key: &str| Ok::<_, redb::Error>(meta.get(key)?.map_or(0, |n| n.value()));
    let mut of = [0; 16];
    for (key, half) in ["pool.0", "pool.1"].iter().zip(of.as_chunks_mut::<8>().0) {
        *half = number(key)?.to_le_bytes();
    }
    if number("format")? != FORMAT || of != pool {
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
    Ok(Some(Known { segments, totals }))
}

impl Place {
    fn row(&self) -> Row {
        (self.segment, self.offset, self.stored_len, self.round)
    }

    fn from_row((segment, offset, stored_len, round): Row) -> Place {
        Place { segment, offset, stored_len, round }
    }
}

/// Whether an error means a damaged file (such as a read beyond its end) and not a failing disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
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
