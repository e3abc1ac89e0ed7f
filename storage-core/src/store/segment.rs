//! Objects in append-only, checksummed segment files: a node's real store.
//!
//! ```text
//!  put, touch ──append──> active segment ──full: synced, sealed──> older segments, never written again
//!       │                     │ sync: one data sync for everybody who waits (group commit)
//!       └──places──> recent places (memory) ──after every few hundred MiB──> index (redb), watermark moves
//!
//!  open: index up to the watermark, then scan the segments from there; a torn tail is cut off
//!  get:  place -> one read -> hashed -> out; a wrong hash drops the copy
//! ```
//!
//! What holds at every instant, and the crash test checks after every single write:
//! - What a `sync` acknowledged is found after any stop, with its stamp (I3, I6). Nothing is visible half-written (I4).
//! - All segments but the newest are synced whole, so only the newest can have a torn tail, or torn frames within:
//!   opening cuts off the one and clears the others before a newer segment can follow.
//! - The index knows only what is synced. Without an index, or with one that does not fit, all segments are scanned.
//! - A sync that failed is final: the store stops taking writes until it is opened again.
//!
//! Memory: the recent places, some open files and 4 MiB of index; nothing grows with the pool.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, IoSlice},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
};

use bytes::Bytes;

use super::{
    BAD_COPIES_MAX, BadCopy, ChunkStore, Listed, PutSummary, StoreError, Usage,
    disk::{Disk, DiskFile, Folder},
    frame::{self, Found, Frame, Marker, OBJECT_HEAD, Payloads, ScanError, SegmentHeader},
    index::{Changes, Index, Known, Place, Totals, io_error},
    proven,
};
use crate::{Corrupt, ObjectName, Record, RecordHeader, VerifiedObject, units::to_usize};

/// Segments kept open for reading.
const FILES_MAX: usize = 64;
/// Places found by a scan before they go into the index: bounds the memory of opening a large pool without one.
const SCANNED_MAX: usize = 65_536;
/// Syncs between two tries to write an index that could not be written: on a full disk, each try costs opening it.
const INDEX_PAUSE: u32 = 64;

/// How a segment store behaves. The defaults are for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes its segments may take.
    pub limit_bytes: Option<u64>,
    /// Bytes after which a segment is sealed.
    pub segment_bytes: u64,
    /// Bytes appended before the index is written: what opening after a crash scans at most, or a little more.
    pub index_after_bytes: u64,
    /// Places kept in memory before the index is written.
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
    /// The index was missing, damaged or another pool's: everything was scanned.
    pub rebuilt: bool,
    /// Bytes of segments behind the watermark.
    pub scanned_bytes: u64,
    /// Bytes cut off the newest segment: written, never acknowledged.
    pub torn_bytes: u64,
    /// Bytes within segments that are no frames. After a power cut, of writes that were never acknowledged; else the
    /// disk is losing data.
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
    /// A sync ended.
    synced: Condvar,
    recent: RwLock<Recent>,
    /// Held while the index is written. Taken before `writer`, which is taken before `recent`.
    advancing: Mutex<()>,
    files: Mutex<Files>,
    bad: Mutex<Bad>,
}

#[derive(Debug, Default)]
struct Writer {
    active: Option<Active>,
    next_segment: u32,
    /// Lengths of the segments sealed since the index was written.
    sealed: BTreeMap<u32, u64>,
    disk_bytes: u64,
    totals: Totals,
    /// Appends done, and how many of them are synced.
    appended: u64,
    synced: u64,
    syncing: bool,
    /// A segment was created and its name is not durable yet.
    names_pending: bool,
    /// Bytes appended since the index was written.
    since_index: u64,
    /// Syncs to go before the index is tried again; it could not be written.
    index_pause: u32,
    failed: Option<String>,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    number: u32,
    file: Arc<dyn DiskFile>,
    sync: Arc<SyncOnce>,
    marker: Marker,
    end: u64,
}

/// Syncs of one file. The system tells of lost bytes once, to whoever asks first; here a sync that failed stays failed, so
/// that nobody behind it takes the file for synced.
#[derive(Debug, Default)]
struct SyncOnce {
    failed: Mutex<bool>,
}

impl SyncOnce {
    fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        let mut failed = lock(&self.failed);
        if *failed {
            return Err(io::Error::other("a sync of it failed before"));
        }
        file.sync_data().inspect_err(|_| *failed = true)
    }
}

/// Places that are not in the index yet; newer ones first.
#[derive(Debug, Default)]
struct Recent {
    newer: Changes,
    /// On its way into the index.
    older: Arc<Changes>,
}

#[derive(Debug, Default)]
struct Files {
    open: HashMap<u32, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Bad {
    copies: Vec<BadCopy>,
    count: u64,
}

impl SegmentStore {
    /// Opens the store in a folder, making it if need be.
    pub fn open(folder: &Path, options: Options) -> Result<SegmentStore, StoreError> {
        match Folder::open(folder).map_err(io_error("open", &folder.display().to_string()))? {
            Some(folder) => SegmentStore::open_on(Arc::new(folder), options),
            None => Err(StoreError::Locked),
        }
    }

    /// Opens the store on anything that holds files.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<SegmentStore, StoreError> {
        let names = disk.list().map_err(io_error("list", "."))?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let mut segments: Vec<OnDisk> = Vec::with_capacity(numbers.len());
        for number in &numbers {
            segments.push(OnDisk::open(disk.as_ref(), *number, Some(number) == numbers.last())?);
        }
        let pool = match segments.iter().find_map(|s| s.pool) {
            Some(pool) => pool,
            None => random()?,
        };
        if let Some(other) = segments.iter().find(|s| s.pool.is_some_and(|p| p != pool)) {
            let source = Corrupt::Field { what: "segment", field: "pool of the others", got: other.number.into() };
            return Err(StoreError::Format { file: segment_name(other.number), source });
        }
        // So may the names of new ones.
        if !segments.is_empty() {
            disk.sync_names().map_err(io_error("sync", "."))?;
        }
        let sizes: HashMap<u32, u64> = segments.iter().map(|s| (s.number, s.size)).collect();
        let fits = |known: &Known| known.segments.iter().all(|(n, len)| sizes.get(n).is_some_and(|size| size >= len));
        let (index, known) = Index::open(&disk, pool, fits)?;

        let mut store = SegmentStore {
            disk,
            options,
            pool,
            index,
            opened: Opened::default(),
            writer: Mutex::default(),
            synced: Condvar::new(),
            recent: RwLock::default(),
            advancing: Mutex::default(),
            files: Mutex::default(),
            bad: Mutex::default(),
        };
        store.recover(&segments, &known)?;
        Ok(store)
    }

    /// What opening found.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Syncs and writes the index, so that the next open has nothing to scan. Dropping the store tries the same.
    pub fn close(self) -> Result<(), StoreError> {
        self.sync()?;
        self.advance(&lock(&self.advancing))
    }

    /// Brings the store from the index's watermark to the end of the segments.
    fn recover(&mut self, segments: &[OnDisk], known: &Known) -> Result<(), StoreError> {
        let watermark = known.segments.last_key_value().map(|(number, _)| *number);
        self.opened.rebuilt = watermark.is_none() && !segments.is_empty();
        let newest = segments.last().map(|s| s.number);
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        writer.totals = known.totals;
        writer.next_segment = newest.map_or(1, |n| n + 1);
        writer.disk_bytes = segments.iter().map(|s| s.size).sum();

        for segment in segments.iter().filter(|s| watermark.is_none_or(|w| s.number >= w)) {
            let is_newest = Some(segment.number) == newest;
            let Some(marker) = segment.marker else {
                self.opened.damaged_segments += 1;
                if is_newest && !known.segments.contains_key(&segment.number) {
                    // Stopped while it was created: nothing in it was ever acknowledged.
                    self.disk
                        .remove(&segment_name(segment.number))
                        .map_err(io_error("remove", &segment_name(segment.number)))?;
                    self.opened.damaged_segments -= 1;
                    self.writer().disk_bytes -= segment.size;
                }
                continue;
            };
            let from = known.segments.get(&segment.number).copied().unwrap_or(SegmentHeader::BYTES as u64);
            let payloads = if is_newest { Payloads::Check } else { Payloads::Trust };
            let number = segment.number;
            let scanned = frame::scan(segment.file.as_ref(), &marker, from, payloads, &mut |next, found| {
                self.replay(number, found)?;
                if self.recent().newer.len() >= SCANNED_MAX {
                    self.writer().sealed.insert(number, next);
                    self.advance(&lock(&self.advancing))?;
                }
                Ok(())
            })
            .map_err(|error| match error {
                ScanError::Read(source) => io_error("read", &segment_name(number))(source),
                ScanError::Newer(source) => StoreError::Format { file: segment_name(number), source },
                ScanError::Visit(error) => error,
            })?;
            self.opened.scanned_bytes += segment.size.saturating_sub(from);
            self.opened.damaged_bytes += scanned.damaged_bytes;
            if is_newest {
                self.opened.torn_bytes = segment.size.saturating_sub(scanned.end);
                if !scanned.damaged_frames.is_empty() {
                    // The next scan may trust this segment's payloads: these must not look like frames then.
                    let clear = |at: &u64| segment.file.write(*at, &mut [IoSlice::new(&[0; Frame::BYTES])]);
                    let cleared = scanned.damaged_frames.iter().try_for_each(clear);
                    let cleared = cleared.and_then(|()| segment.file.sync_data());
                    cleared.map_err(io_error("clear", &segment_name(number)))?;
                }
                if segment.size != scanned.end {
                    let cut = segment.file.set_size(scanned.end).and_then(|()| segment.file.sync_data());
                    cut.map_err(io_error("cut off", &segment_name(number)))?;
                }
                let mut writer = self.writer();
                writer.disk_bytes = writer.disk_bytes - segment.size + scanned.end;
                if segment.pool.is_some() {
                    let file = segment.file.clone();
                    writer.active = Some(Active { number, file, sync: Arc::default(), marker, end: scanned.end });
                } else {
                    writer.sealed.insert(number, scanned.end);
                }
            } else {
                self.opened.damaged_bytes += segment.size.saturating_sub(scanned.end);
                self.writer().sealed.insert(number, scanned.end);
            }
        }
        let scanned = self.opened.scanned_bytes;
        self.writer().since_index = scanned;
        Ok(())
    }

    /// Takes in one frame that a scan found.
    fn replay(&self, segment: u32, found: Found) -> Result<(), StoreError> {
        let mut writer = self.writer();
        match found {
            Found::Object { at, header } => {
                let Some(body) = header.body else { return Ok(()) };
                let before = self.place(&header.name)?;
                let round = body.round.max(before.map_or(0, |p| p.round));
                let place = Place { segment, offset: at, stored_len: body.stored_len, round };
                self.change(&mut writer, header.name, before, Some(place));
            }
            Found::Stamps { round, names } => {
                for name in names {
                    if let Some(before) = self.place(&name)?
                        && before.round < round
                    {
                        self.change(&mut writer, name, Some(before), Some(Place { round, ..before }));
                    }
                }
            }
            Found::Drops { names } => {
                for name in names {
                    let before = self.place(&name)?;
                    self.change(&mut writer, name, before, None);
                }
            }
        }
        Ok(())
    }

    /// Where an object is.
    fn place(&self, name: &ObjectName) -> Result<Option<Place>, StoreError> {
        let recent = self.recent();
        match recent.newer.get(name).or_else(|| recent.older.get(name)) {
            Some(place) => Ok(*place),
            // Under the lock: else the places on their way into the index could be in neither when it is looked at.
            None => self.index.get(name),
        }
    }

    /// Notes where an object is now.
    fn change(&self, writer: &mut Writer, name: ObjectName, before: Option<Place>, now: Option<Place>) {
        let totals = &mut writer.totals;
        if let Some(before) = before {
            totals.objects -= 1;
            totals.bytes -= u64::from(before.stored_len);
        }
        if let Some(now) = now {
            totals.objects += 1;
            totals.bytes += u64::from(now.stored_len);
        }
        self.recent_mut().newer.insert(name, now);
    }

    /// The segment that takes so many more bytes, begun if need be.
    fn active<'w>(&self, writer: &'w mut Writer, wanted: u64) -> Result<&'w mut Active, StoreError> {
        let has_room =
            |a: &Active| a.end + wanted <= self.options.segment_bytes || a.end == SegmentHeader::BYTES as u64;
        if !writer.active.as_ref().is_some_and(has_room) {
            self.seal(writer)?;
            let active = self.begin(writer, wanted)?;
            writer.active = Some(active);
        }
        Ok(writer.active.as_mut().expect("begun above"))
    }

    /// Ends the active segment: synced whole, so that scans may trust all segments but the newest.
    fn seal(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let Some(active) = &writer.active else { return Ok(()) };
        // Its name, if that is new, is synced before anything in it is acknowledged.
        if let Err(source) = active.sync.sync(active.file.as_ref()) {
            return Err(fail(writer, "sync", source));
        }
        if let Some(active) = writer.active.take() {
            writer.sealed.insert(active.number, active.end);
        }
        Ok(())
    }

    fn begin(&self, writer: &mut Writer, wanted: u64) -> Result<Active, StoreError> {
        let number = writer.next_segment;
        let name = segment_name(number);
        let marker = random()?;
        let header = SegmentHeader { pool: self.pool, marker, segment: number }.encode();
        let file = self.disk.create(&name).map_err(|e| write_error(writer, wanted, "create", &name, e))?;
        if let Err(source) = file.write(0, &mut [IoSlice::new(&header)]) {
            let removed = self.disk.remove(&name);
            return Err(match removed {
                Ok(()) => write_error(writer, wanted, "write", &name, source),
                Err(source) => fail(writer, "remove", source),
            });
        }
        writer.next_segment += 1;
        writer.names_pending = true;
        let end = SegmentHeader::BYTES as u64;
        writer.disk_bytes += end;
        Ok(Active { number, file, sync: Arc::default(), marker, end })
    }

    /// Appends frames to the active segment, all or nothing.
    fn append(&self, writer: &mut Writer, len: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StoreError> {
        let active = writer.active.as_mut().expect("the caller asked for it");
        let (file, end, number) = (active.file.clone(), active.end, active.number);
        if let Err(source) = file.write(end, parts) {
            // Part of it may be there: it goes again, or the store stops.
            return Err(match file.set_size(end) {
                Ok(()) => write_error(writer, len, "write", &segment_name(number), source),
                Err(_) => fail(writer, "write", source),
            });
        }
        active.end += len;
        writer.disk_bytes += len;
        writer.since_index += len;
        writer.appended += 1;
        Ok(())
    }

    /// One data sync for everybody who waits.
    fn sync_up_to(&self, wanted: u64) -> Result<(), StoreError> {
        let mut writer = self.writer();
        loop {
            writer.check()?;
            if writer.synced >= wanted {
                return Ok(());
            }
            if writer.syncing {
                writer = self.synced.wait(writer).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            writer.syncing = true;
            let appended = writer.appended;
            let names_pending = std::mem::take(&mut writer.names_pending);
            let active = writer.active.as_ref().map(|a| (a.file.clone(), a.sync.clone()));
            drop(writer);
            let names = if names_pending { self.disk.sync_names() } else { Ok(()) };
            let synced = names.and_then(|()| active.map_or(Ok(()), |(file, sync)| sync.sync(file.as_ref())));
            writer = self.writer();
            writer.syncing = false;
            match synced {
                Ok(()) => writer.synced = writer.synced.max(appended),
                Err(source) => drop(fail(&mut writer, "sync", source)),
            }
            self.synced.notify_all();
        }
    }

    /// Writes the index and moves its watermark to the end of what is appended.
    fn advance(&self, _advancing: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let (segments, totals, appended) = {
            let mut writer = self.writer();
            writer.check()?;
            let mut recent = self.recent_mut();
            recent.older = Arc::new(std::mem::take(&mut recent.newer));
            let mut segments = std::mem::take(&mut writer.sealed);
            segments.extend(writer.active.as_ref().map(|a| (a.number, a.end)));
            writer.since_index = 0;
            (segments, writer.totals, writer.appended)
        };
        self.sync_up_to(appended)?;
        let changes = self.recent().older.clone();
        if let Err(error) = self.index.advance(&changes, &segments, totals) {
            self.take_back(&changes, segments);
            // If this fails, it is tried again when something is looked up.
            let _ = self.index.reopen();
            return Err(error);
        }
        self.recent_mut().older = Arc::default();
        Ok(())
    }

    /// What could not be written into the index (the disk is full) stays in memory. Nothing is lost: the segments have
    /// it.
    fn take_back(&self, changes: &Changes, segments: BTreeMap<u32, u64>) {
        let mut writer = self.writer();
        let mut recent = self.recent_mut();
        for (name, place) in changes {
            recent.newer.entry(*name).or_insert(*place);
        }
        recent.older = Arc::default();
        let active = writer.active.as_ref().map(|a| a.number);
        for (number, len) in segments.into_iter().filter(|(number, _)| Some(*number) != active) {
            writer.sealed.entry(number).or_insert(len);
        }
        writer.index_pause = INDEX_PAUSE;
    }

    /// Writes the index if enough has gathered and nobody else does.
    fn advance_if_due(&self) {
        let due = {
            let objects = self.recent().newer.len();
            objects >= self.options.index_after_objects || self.writer().since_index >= self.options.index_after_bytes
        };
        if !due {
            return;
        }
        {
            let mut writer = self.writer();
            if writer.index_pause > 0 {
                writer.index_pause -= 1;
                return;
            }
        }
        let advancing = match self.advancing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // The caller's data is durable whatever becomes of the index.
        let _ = self.advance(&advancing);
    }

    fn file(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.files);
        files.uses += 1;
        let now = files.uses;
        if let Some((file, used)) = files.open.get_mut(&segment) {
            *used = now;
            return Ok(file.clone());
        }
        let file = self.disk.open(&segment_name(segment))?;
        if files.open.len() >= FILES_MAX
            && let Some(oldest) = files.open.iter().min_by_key(|(_, (_, used))| *used).map(|(n, _)| *n)
        {
            files.open.remove(&oldest);
        }
        files.open.insert(segment, (file.clone(), now));
        Ok(file)
    }

    /// The record at a place, not proven yet.
    fn read(&self, name: &ObjectName, place: Place) -> Result<Result<Record, Corrupt>, StoreError> {
        let needed = OBJECT_HEAD + to_usize(place.stored_len.into());
        let short = |got: usize| Corrupt::Short { what: "segment", needed: needed as u64, got: got as u64 };
        let file = match self.file(place.segment) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(short(0))),
            Err(error) => return Err(io_error("open", &segment_name(place.segment))(error)),
        };
        let read = file.read(place.offset, needed).map_err(io_error("read", &segment_name(place.segment)))?;
        Ok((|| {
            let bytes = Bytes::from(read);
            let header = bytes.get(Frame::BYTES..OBJECT_HEAD).ok_or_else(|| short(bytes.len()))?;
            let header = RecordHeader::decode(header)?;
            if header.name != *name {
                return Err(Corrupt::Name { expected: *name, got: header.name });
            }
            Ok(Record::from_parts(header, bytes.slice(OBJECT_HEAD..))?.with_round(place.round))
        })())
    }

    /// Reads an object and does something with it that can show its copy to be bad; if so, drops it.
    fn with_record<T>(
        &self,
        name: &ObjectName,
        check: impl FnOnce(Record) -> Result<T, Corrupt>,
    ) -> Result<Option<T>, StoreError> {
        let Some(place) = self.place(name)? else { return Ok(None) };
        match self.read(name, place)?.and_then(check) {
            Ok(answer) => Ok(Some(answer)),
            Err(reason) => {
                self.drop_copy(name, place, reason)?;
                Ok(None)
            }
        }
    }

    /// I4: a bad copy is gone from now on, also after a restart once something is synced.
    fn drop_copy(&self, name: &ObjectName, place: Place, reason: Corrupt) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let now = self.place(name)?;
        if now.is_none_or(|now| (now.segment, now.offset) != (place.segment, place.offset)) {
            return Ok(());
        }
        // Without the frame (no room, a store that stopped) the next start finds the copy bad again: no harm.
        if writer.failed.is_none()
            && let Ok(active) = self.active(&mut writer, 64)
        {
            let bytes = frame::drops(&active.marker, &[*name]);
            let _ = self.append(&mut writer, bytes.len() as u64, &mut [IoSlice::new(&bytes)]);
        }
        self.change(&mut writer, *name, now, None);
        drop(writer);
        let mut bad = lock(&self.bad);
        bad.count += 1;
        if bad.copies.len() < BAD_COPIES_MAX {
            bad.copies.push(BadCopy { name: *name, reason });
        }
        Ok(())
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
        // Hashing happens before the lock: only copying into the page cache is serialized.
        records.iter().try_for_each(proven)?;
        let mut done = PutSummary::default();
        let mut writer = self.writer();
        writer.check()?;

        let mut new: Vec<(&Record, RecordHeader)> = Vec::with_capacity(records.len());
        let mut stamped: Vec<(ObjectName, Place)> = Vec::new();
        let mut seen: HashSet<ObjectName> = HashSet::with_capacity(records.len());
        for record in records {
            let name = record.name();
            if !seen.insert(name) {
                done.touched += 1;
                continue;
            }
            match self.place(&name)? {
                Some(place) => {
                    done.touched += 1;
                    if place.round < round {
                        stamped.push((name, place));
                    }
                }
                None => {
                    done.stored += 1;
                    done.stored_bytes += record.stored().len() as u64;
                    let mut header = record.header();
                    header.body.iter_mut().for_each(|b| b.round = round);
                    new.push((record, header));
                }
            }
        }
        let objects: u64 = new.iter().map(|(r, _)| frame::object_frame_bytes(r.stored().len())).sum();
        let len = objects + frame::stamps_bytes(stamped.len());
        let used = writer.disk_bytes;
        if self.options.limit_bytes.is_some_and(|limit| !new.is_empty() && used + len > limit) {
            let limit_bytes = self.options.limit_bytes;
            return Err(StoreError::Full { used_bytes: used, wanted_bytes: len, limit_bytes });
        }
        if len == 0 {
            return Ok(done);
        }

        let active = self.active(&mut writer, len)?;
        let (segment, mut at) = (active.number, active.end);
        let heads: Vec<_> = new.iter().map(|(_, header)| frame::object_head(&active.marker, header)).collect();
        let names: Vec<ObjectName> = stamped.iter().map(|(name, _)| *name).collect();
        let stamps = frame::stamps(&active.marker, round, &names);
        let mut parts = Vec::with_capacity(new.len() * 3 + 1);
        for ((record, _), head) in new.iter().zip(&heads) {
            let padding = object_padding(record.stored().len());
            parts.extend([head.as_slice(), record.stored(), padding].map(IoSlice::new));
        }
        parts.push(IoSlice::new(&stamps));
        parts.retain(|part| !part.is_empty());
        self.append(&mut writer, len, &mut parts)?;

        for (record, header) in &new {
            let stored_len = header.body.map_or(0, |b| b.stored_len);
            let place = Place { segment, offset: at, stored_len, round };
            self.change(&mut writer, record.name(), None, Some(place));
            at += frame::object_frame_bytes(record.stored().len());
        }
        for (name, place) in stamped {
            self.change(&mut writer, name, Some(place), Some(Place { round, ..place }));
        }
        Ok(done)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        let mut writer = self.writer();
        writer.check()?;
        let mut here = Vec::with_capacity(names.len());
        let mut stamped: BTreeMap<ObjectName, Place> = BTreeMap::new();
        for name in names {
            let place = self.place(name)?;
            here.push(place.is_some());
            stamped.extend(place.filter(|p| p.round < round).map(|p| (*name, p)));
        }
        if !stamped.is_empty() {
            let names: Vec<ObjectName> = stamped.keys().copied().collect();
            let active = self.active(&mut writer, frame::stamps_bytes(names.len()))?;
            let bytes = frame::stamps(&active.marker, round, &names);
            self.append(&mut writer, bytes.len() as u64, &mut [IoSlice::new(&bytes)])?;
            for (name, place) in stamped {
                self.change(&mut writer, name, Some(place), Some(Place { round, ..place }));
            }
        }
        Ok(here)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let appended = self.writer().appended;
        self.sync_up_to(appended)?;
        self.advance_if_due();
        Ok(())
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.with_record(name, Record::prove)
    }

    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        self.with_record(name, |record| record.verify())
    }

    fn contains(&self, name: &ObjectName) -> Result<bool, StoreError> {
        Ok(self.place(name)?.is_some())
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        let recent = self.recent();
        let newer_than_index = |name: &&ObjectName| after.is_none_or(|after| *name > after);
        let mut merged: BTreeMap<ObjectName, Option<Place>> = BTreeMap::new();
        for changes in [recent.older.as_ref(), &recent.newer] {
            merged.extend(changes.iter().filter(|(name, _)| newer_than_index(name)).map(|(n, p)| (*n, *p)));
        }
        // Enough of the index that the part asked for is whole even if every recent drop is in it.
        let dropped = merged.values().filter(|p| p.is_none()).count();
        for (name, place) in self.index.list(after, count_max.saturating_add(dropped))? {
            merged.entry(name).or_insert(Some(place));
        }
        let listed = |(name, place): (ObjectName, Option<Place>)| {
            place.map(|p| Listed { name, round: p.round, stored_bytes: p.stored_len.into() })
        };
        Ok(merged.into_iter().filter_map(listed).take(count_max).collect())
    }

    fn usage(&self) -> Usage {
        let writer = self.writer();
        Usage {
            objects: writer.totals.objects,
            bytes: writer.totals.bytes,
            disk_bytes: writer.disk_bytes,
            limit_bytes: self.options.limit_bytes,
            bad_copies: lock(&self.bad).count,
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
    fn check(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(reason) => Err(StoreError::Failed { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Stops the store: what the disk holds is unknown from here on.
fn fail(writer: &mut Writer, op: &str, source: io::Error) -> StoreError {
    let reason = writer.failed.get_or_insert_with(|| format!("{op} failed: {source}")).clone();
    StoreError::Failed { reason }
}

fn write_error(writer: &Writer, wanted_bytes: u64, op: &'static str, file: &str, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { used_bytes: writer.disk_bytes, wanted_bytes, limit_bytes: None }
        }
        _ => io_error(op, file)(source),
    }
}

fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| io_error("read", "random bytes")(io::Error::other(error.to_string())))?;
    Ok(bytes)
}

fn object_padding(stored_len: usize) -> &'static [u8] {
    static ZEROS: [u8; 16] = [0; 16];
    let padding = frame::object_frame_bytes(stored_len) - OBJECT_HEAD as u64 - stored_len as u64;
    ZEROS.get(..to_usize(padding)).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // State is changed after what can panic, so a poisoned lock guards whole state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn segment_name(number: u32) -> String {
    format!("segment-{number:010}")
}

fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// A segment file as found at open.
struct OnDisk {
    number: u32,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// None: the header is damaged.
    pool: Option<[u8; 16]>,
    /// None: not even the first frame tells.
    marker: Option<Marker>,
}

impl OnDisk {
    fn open(disk: &dyn Disk, number: u32, is_newest: bool) -> Result<OnDisk, StoreError> {
        let name = segment_name(number);
        let file = disk.open(&name).map_err(io_error("open", &name))?;
        if is_newest {
            // What was written but not synced before the last stop may be in the kernel's memory only; from here on it
            // counts as synced. What a sync lost before the last stop may be there as well: it is not to be seen again.
            file.sync_data().and_then(|()| file.forget_cached()).map_err(io_error("sync", &name))?;
        }
        let size = file.size().map_err(io_error("read", &name))?;
        let head = file.read(0, SegmentHeader::BYTES + Frame::BYTES).map_err(io_error("read", &name))?;
        let (pool, marker) = match SegmentHeader::decode(&head) {
            Ok(header) => (Some(header.pool), Some(header.marker)),
            Err(source @ Corrupt::Unsupported { .. }) => return Err(StoreError::Format { file: name, source }),
            // A header that rotted does not take its segment with it: the first frame begins with the marker, too.
            Err(_) => (None, head.get(SegmentHeader::BYTES..).and_then(frame::marker_of)),
        };
        Ok(OnDisk { number, file, size, pool, marker })
    }
}
