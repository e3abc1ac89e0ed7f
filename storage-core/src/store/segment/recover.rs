//! Opening a store: read the index, scan what it does not know, cut off the tail that a crash left behind.
//!
//! Damage and a torn tail are two things. What a scan cannot read is *damage* when a whole frame follows it, or when it
//! lies before the watermark or in a segment that is not the newest: all that was synced. It is passed over, and nothing
//! is written there but zeros over the header of the damaged frame itself. Only what follows the last whole frame of the
//! newest segment is a *torn tail*, which is cut off.
//!
//! The limit: a frame behind the watermark that was synced last and then damaged looks like a torn one. It is cut off. It
//! was lost before that, and [`Opened::torn_bytes`] counts it. After a clean stop nothing is behind the watermark.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
};

use super::{Opened, Options, SegmentStore, append::Active, segment_name, segment_number};
use crate::{
    Corrupt, lock,
    store::{
        StoreError,
        disk::{Disk, DiskFile},
        frame::{Frame, Marker, SegmentHeader},
        index::{Discarded, Index, Known, OpenedIndex, Place, io_error},
        scan::{self, Found, Payloads, ScanError, Scanned},
    },
};

/// Places found by a scan before they go into the index. Bounds the memory of opening a large pool without one.
const SCANNED_MAX: usize = 65_536;

/// A segment file as found at open.
struct OnDisk {
    number: u32,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// None: the header is damaged.
    pool: Option<[u8; 16]>,
    /// None: the file has no frame, or its first 80 bytes are damaged at two places.
    marker: Option<Marker>,
    /// It ends within its header, or the header was never written. Then nothing in it was synced.
    unfinished: bool,
}

impl SegmentStore {
    /// Opens the store on anything that holds files.
    ///
    /// # Errors
    /// When a file cannot be read, the segments are of different pools, or a newer release wrote one.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<SegmentStore, StoreError> {
        let mut segments = OnDisk::open_all(disk.as_ref())?;
        let pool = pool_of(&segments)?;
        if !segments.is_empty() {
            // Like the bytes of the newest segment, the names of new files may be in the kernel's memory only.
            disk.sync_names().map_err(io_error("sync", "."))?;
        }
        let sizes: HashMap<u32, u64> = segments.iter().map(|s| (s.number, s.size)).collect();
        let fits = |known: &Known| known.segments.iter().all(|(n, len)| sizes.get(n).is_some_and(|size| size >= len));
        let OpenedIndex { index, known, discarded } = Index::open(&disk, pool, fits)?;
        let pool = index.pool();
        if remove_gone(disk.as_ref(), &mut segments, &known)? {
            index.forget_gone(&known.gone.iter().copied().collect::<Vec<_>>())?;
        }

        let mut store = SegmentStore {
            disk,
            options,
            pool,
            index,
            opened: Opened::default(),
            writer: Mutex::default(),
            synced: Condvar::new(),
            recent: RwLock::default(),
            reclaiming: Mutex::default(),
            advancing: Mutex::default(),
            files: Mutex::default(),
            proven: Mutex::default(),
            bad: Mutex::default(),
            unread: Mutex::default(),
        };
        store.recover(&segments, &known)?;
        if let Some(discarded) = discarded {
            store.miss(&discarded)?;
        }
        Ok(store)
    }

    /// Brings the store from the index's watermark to the end of the segments.
    fn recover(&mut self, segments: &[OnDisk], known: &Known) -> Result<(), StoreError> {
        let watermark = known.segments.last_key_value().map(|(number, _)| *number);
        self.opened.rebuilt = watermark.is_none() && !segments.is_empty();
        let newest = segments.last().map(|s| s.number);
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        writer.totals = known.totals;
        writer.next_segment = newest.map_or(1, |n| n + 1);
        let on_disk = |s: &OnDisk| known.held.get(&s.number).map_or(s.size, |held| s.size.min(*held));
        writer.disk_bytes = segments.iter().map(on_disk).sum();

        for segment in segments.iter().filter(|s| watermark.is_none_or(|w| s.number >= w)) {
            let is_newest = Some(segment.number) == newest;
            let known_bytes = known.segments.get(&segment.number).copied();
            let Some(marker) = segment.marker else {
                if segment.unfinished && is_newest && known_bytes.is_none() {
                    self.remove_unfinished(segment)?;
                } else {
                    self.opened.damaged_segments += 1;
                }
                continue;
            };
            let from = known_bytes.unwrap_or(SegmentHeader::BYTES as u64);
            let payloads = if is_newest { Payloads::Check } else { Payloads::Trust };
            let scanned = self.scan(segment, &marker, from, payloads)?;
            self.opened.scanned_bytes += segment.size - from;
            self.opened.damaged_bytes += scanned.damaged_bytes;
            if is_newest {
                self.opened.torn_bytes = segment.size.saturating_sub(scanned.end);
                mend(segment, &scanned)?;
                self.continue_newest(segment, marker, scanned.end, known);
            } else {
                self.opened.damaged_bytes += segment.size.saturating_sub(scanned.end);
                self.writer().sealed.insert(segment.number, scanned.end);
            }
        }
        let scanned = self.opened.scanned_bytes;
        self.writer().since_index = scanned;
        Ok(())
    }

    /// Reports what an index knew that the segments no longer have.
    fn miss(&self, discarded: &Discarded) -> Result<(), StoreError> {
        discarded.each(&mut |name, place| {
            if self.place(&name)?.is_none() {
                let reason = Corrupt::Short { what: "segment", needed: place.stored_len.into(), got: 0 };
                self.report_bad(name, place, reason);
            }
            Ok(())
        })
    }

    /// Removes a segment that was being created when the store stopped. Nothing in it was ever acknowledged.
    fn remove_unfinished(&self, segment: &OnDisk) -> Result<(), StoreError> {
        let name = segment_name(segment.number);
        self.disk.remove(&name).map_err(io_error("remove", &name))?;
        self.writer().disk_bytes -= segment.size;
        Ok(())
    }

    /// Takes in the frames of a segment from an offset on.
    fn scan(&self, segment: &OnDisk, marker: &Marker, from: u64, payloads: Payloads) -> Result<Scanned, StoreError> {
        let number = segment.number;
        scan::scan(segment.file.as_ref(), marker, from, payloads, &mut |frame, found| {
            self.replay(number, found)?;
            if self.recent().newer.len() >= SCANNED_MAX {
                self.writer().sealed.insert(number, frame.end);
                self.advance(&lock(&self.advancing))?;
            }
            Ok(())
        })
        .map_err(|error| match error {
            ScanError::Read(source) => io_error("read", &segment_name(number))(source),
            ScanError::Newer(source) => StoreError::Format { file: segment_name(number), source },
            ScanError::Visit(error) => error,
        })
    }

    /// Takes in one frame that a scan found.
    fn replay(&self, segment: u32, found: Found) -> Result<(), StoreError> {
        let mut writer = self.writer();
        match found {
            Found::Object { at, name, body } => {
                let before = self.place(&name)?;
                let round = body.round.max(before.map_or(0, |p| p.round));
                let place = Place { segment, offset: at, stored_len: body.stored_len, round, kind: body.kind };
                self.change(&mut writer, name, before, Some(place));
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
            Found::Hole => {}
        }
        Ok(())
    }

    /// Goes on appending to the newest segment, which now ends at `end`. With a damaged header it is sealed instead, and so is
    /// one that was reclaimed: what the index says about its holes stays true.
    fn continue_newest(&self, segment: &OnDisk, marker: Marker, end: u64, known: &Known) {
        let (number, file) = (segment.number, segment.file.clone());
        let mut writer = self.writer();
        writer.disk_bytes = writer.disk_bytes.saturating_sub(segment.size.saturating_sub(end));
        if segment.pool.is_some() && !known.held.contains_key(&number) {
            writer.active = Some(Active { number, file, sync: Arc::default(), marker, end });
        } else {
            writer.sealed.insert(number, end);
        }
    }
}

/// Removes the segments of which the last process knew that nothing in them is needed. It ended before their files were
/// removed.
///
/// The answer tells whether there are such segments. Their files are gone for good then.
fn remove_gone(disk: &dyn Disk, segments: &mut Vec<OnDisk>, known: &Known) -> Result<bool, StoreError> {
    if known.gone.is_empty() {
        return Ok(false);
    }
    for segment in segments.extract_if(.., |segment| known.gone.contains(&segment.number)) {
        let name = segment_name(segment.number);
        disk.remove(&name).map_err(io_error("remove", &name))?;
    }
    disk.sync_names().map_err(io_error("sync", "."))?;
    Ok(true)
}

/// Removes from the newest segment what a crash left torn.
fn mend(segment: &OnDisk, scanned: &Scanned) -> Result<(), StoreError> {
    let name = segment_name(segment.number);
    if !scanned.damaged_frames.is_empty() {
        // The next scan may trust this segment's payloads, so these must no longer look like frames.
        let clear = |at: &u64| segment.file.write(*at, &mut [IoSlice::new(&[0; Frame::BYTES])]);
        let cleared = scanned.damaged_frames.iter().try_for_each(clear);
        cleared.and_then(|()| segment.file.sync_data()).map_err(io_error("clear", &name))?;
    }
    if segment.size != scanned.end {
        let cut = segment.file.set_size(scanned.end).and_then(|()| segment.file.sync_data());
        cut.map_err(io_error("cut off", &name))?;
    }
    Ok(())
}

/// The pool all segments belong to; none if no segment tells.
fn pool_of(segments: &[OnDisk]) -> Result<Option<[u8; 16]>, StoreError> {
    let Some(pool) = segments.iter().find_map(|s| s.pool) else { return Ok(None) };
    match segments.iter().find(|s| s.pool.is_some_and(|p| p != pool)) {
        None => Ok(Some(pool)),
        Some(other) => {
            let source = Corrupt::Field { what: "segment", field: "segment of this pool", got: other.number.into() };
            Err(StoreError::Format { file: segment_name(other.number), source })
        }
    }
}

impl OnDisk {
    /// All segments of a folder, oldest first.
    fn open_all(disk: &dyn Disk) -> Result<Vec<OnDisk>, StoreError> {
        let names = disk.list().map_err(io_error("list", "."))?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.last();
        numbers.iter().map(|number| OnDisk::open(disk, *number, Some(number) == newest)).collect()
    }

    fn open(disk: &dyn Disk, number: u32, is_newest: bool) -> Result<OnDisk, StoreError> {
        let name = segment_name(number);
        let file = disk.open(&name).map_err(io_error("open", &name))?;
        if is_newest {
            // What was written but not synced before the last stop may be in the kernel's memory only. It counts as
            // synced from here on, so it is synced. What a failed sync lost may still be in that memory, too. It must
            // not be read from there.
            file.sync_data().and_then(|()| file.forget_cached(0..file.size()?)).map_err(io_error("sync", &name))?;
        }
        let size = file.size().map_err(io_error("read", &name))?;
        let head = file.read(0, SegmentHeader::BYTES + Frame::BYTES).map_err(io_error("read", &name))?;
        let (pool, marker) = match SegmentHeader::decode(&head) {
            Ok(header) => (Some(header.pool), Some(header.marker)),
            Err(source @ Corrupt::Unsupported { .. }) => return Err(StoreError::Format { file: name, source }),
            Err(_) => (None, marker_in(file.as_ref(), &head).map_err(io_error("read", &name))?),
        };
        let unfinished = SegmentHeader::is_unfinished(&head);
        Ok(OnDisk { number, file, size, pool, marker, unfinished })
    }
}

/// The marker of a segment whose header is damaged. Two places have it that no guest can write to: the header, and the
/// first frame. It is right when some frame of the segment begins with it and is whole.
fn marker_in(file: &dyn DiskFile, head: &[u8]) -> io::Result<Option<Marker>> {
    for at in [SegmentHeader::MARKER_AT, SegmentHeader::BYTES] {
        if let Some(marker) = head.get(at..).and_then(|bytes| bytes.first_chunk())
            && scan::has_frame(file, marker, SegmentHeader::BYTES as u64)?
        {
            return Ok(Some(*marker));
        }
    }
    Ok(None)
}
