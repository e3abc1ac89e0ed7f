//! Put and touch: from records to frames at the end of the active segment.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, IoSlice},
    sync::Arc,
};

use super::{SegmentStore, Writer, read::Copies, segment_name, sync::SyncOnce};
use crate::{
    ObjectName, Record, lock,
    store::{
        PutSummary, StoreError,
        disk::DiskFile,
        frame::{self, Marker, OBJECT_HEAD, SegmentHeader},
        index::{Place, io_error, random},
        proven,
    },
    units::usize_from,
};

/// The segment that frames are appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u32,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) sync: Arc<SyncOnce>,
    pub(super) marker: Marker,
    /// Where the next frame begins.
    pub(super) end: u64,
}

/// What one put has to write.
#[derive(Default)]
struct Batch<'r> {
    /// With the copy that each takes the place of: one that the disk cannot read.
    new: Vec<(&'r Record, Option<Place>)>,
    /// Objects that are here with an older stamp.
    stamped: Vec<(ObjectName, Place)>,
    summary: PutSummary,
}

impl Batch<'_> {
    /// Bytes that its frames take in a segment.
    fn bytes(&self) -> u64 {
        let objects: u64 = self.new.iter().map(|(record, _)| frame_bytes(record)).sum();
        objects + frame::stamps_bytes(self.stamped.len())
    }
}

impl SegmentStore {
    pub(super) fn put_batch(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        // Hashing happens before the lock: only copying into the page cache is serialized.
        records.iter().try_for_each(proven)?;
        let unreadable = self.look_at(records.iter().map(Record::name))?;
        let mut writer = self.writer();
        writer.check()?;
        let batch = self.sort_out(round, records, &unreadable)?;
        self.check_limit(&writer, &batch)?;
        if batch.bytes() > 0 {
            let (segment, start) = self.append_batch(&mut writer, round, &batch)?;
            self.note_batch(&mut writer, round, &batch, segment, start);
        }
        Ok(batch.summary)
    }

    pub(super) fn touch_batch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        let unreadable = self.look_at(names.iter().copied())?;
        let mut writer = self.writer();
        writer.check()?;
        let mut here = Vec::with_capacity(names.len());
        let mut stamped: BTreeMap<ObjectName, Place> = BTreeMap::new();
        for name in names {
            // Whatever changed since the look was put in the meantime, or dropped.
            let place = self.place(name)?.filter(|place| !unreadable.contains(&place.at()));
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

    /// Tells new objects from those that are here already.
    fn sort_out<'r>(&self, round: u64, records: &'r [Record], unreadable: &Copies) -> Result<Batch<'r>, StoreError> {
        let mut batch = Batch::default();
        let mut seen: HashSet<ObjectName> = HashSet::with_capacity(records.len());
        for record in records {
            let name = record.name();
            if !seen.insert(name) {
                batch.summary.touched += 1;
                continue;
            }
            match self.place(&name)? {
                Some(place) if !unreadable.contains(&place.at()) => {
                    batch.summary.touched += 1;
                    if place.round < round {
                        batch.stamped.push((name, place));
                    }
                }
                before => {
                    batch.summary.stored += 1;
                    batch.summary.stored_bytes += u64::from(record.body().stored_len);
                    batch.new.push((record, before));
                }
            }
        }
        Ok(batch)
    }

    /// Refuses new objects beyond the pool's limit. Stamps are always taken.
    fn check_limit(&self, writer: &Writer, batch: &Batch<'_>) -> Result<(), StoreError> {
        let (used_bytes, wanted_bytes, limit_bytes) = (writer.disk_bytes, batch.bytes(), self.options.limit_bytes);
        if limit_bytes.is_some_and(|limit| !batch.new.is_empty() && used_bytes + wanted_bytes > limit) {
            return Err(StoreError::Full { used_bytes, wanted_bytes, limit_bytes });
        }
        Ok(())
    }

    /// Writes the frames of a batch in one go. The answer is the segment and the offset of the first frame.
    fn append_batch(&self, writer: &mut Writer, round: u64, batch: &Batch<'_>) -> Result<(u32, u64), StoreError> {
        let len = batch.bytes();
        let active = self.active(writer, len)?;
        let start = (active.number, active.end);
        let head = |record: &Record| frame::object_head(&active.marker, &record.header_in_round(round));
        let heads: Vec<_> = batch.new.iter().map(|(record, _)| head(record)).collect();
        let names: Vec<ObjectName> = batch.stamped.iter().map(|(name, _)| *name).collect();
        let stamps = frame::stamps(&active.marker, round, &names);
        let mut parts = Vec::with_capacity(batch.new.len() * 3 + 1);
        for ((record, _), head) in batch.new.iter().zip(&heads) {
            parts.extend([head.as_slice(), record.stored(), padding(record)].map(IoSlice::new));
        }
        parts.push(IoSlice::new(&stamps));
        parts.retain(|part| !part.is_empty());
        self.append(writer, len, &mut parts)?;
        Ok(start)
    }

    /// Notes where the objects of a batch are now.
    fn note_batch(&self, writer: &mut Writer, round: u64, batch: &Batch<'_>, segment: u32, start: u64) {
        let mut offset = start;
        for (record, before) in &batch.new {
            let (stored_len, kind) = (record.body().stored_len, record.kind());
            let place = Place { segment, offset, stored_len, round, kind };
            self.change(writer, record.name(), *before, Some(place));
            lock(&self.proven).insert(place.at());
            offset += frame_bytes(record);
        }
        for (name, place) in &batch.stamped {
            self.change(writer, *name, Some(*place), Some(Place { round, ..*place }));
        }
    }

    /// The segment that takes this many more bytes: the active one, or a new one if that is full.
    pub(super) fn active<'w>(&self, writer: &'w mut Writer, wanted: u64) -> Result<&'w mut Active, StoreError> {
        let has_room =
            |a: &Active| a.end + wanted <= self.options.segment_bytes || a.end == SegmentHeader::BYTES as u64;
        if !writer.active.as_ref().is_some_and(has_room) {
            self.seal(writer)?;
            let active = self.begin(writer, wanted)?;
            writer.active = Some(active);
        }
        Ok(writer.active.as_mut().expect("begun above"))
    }

    /// Ends the active segment. It is synced whole, so that scans may trust all segments but the newest.
    pub(super) fn seal(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let Some(active) = &writer.active else { return Ok(()) };
        // A new segment's name is synced before anything in it is acknowledged, so only its bytes are left to do.
        if let Err(source) = active.sync.sync(active.file.as_ref()) {
            return Err(writer.fail("sync", source));
        }
        if let Some(active) = writer.active.take() {
            writer.sealed.insert(active.number, active.end);
        }
        Ok(())
    }

    /// Creates the next segment and writes its header.
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
                Err(source) => writer.fail("remove", source),
            });
        }
        writer.next_segment += 1;
        writer.names_pending = true;
        let end = SegmentHeader::BYTES as u64;
        writer.disk_bytes += end;
        Ok(Active { number, file, sync: Arc::default(), marker, end })
    }

    /// Appends frames of `len` bytes to the active segment, all or nothing.
    pub(super) fn append(&self, writer: &mut Writer, len: u64, parts: &mut [IoSlice<'_>]) -> Result<(), StoreError> {
        let given: u64 = parts.iter().map(|part| part.len() as u64).sum();
        assert_eq!(given, len, "the next frame would not begin where this one ends");
        let active = writer.active.as_mut().expect("the caller asked for it");
        let (file, end, number) = (active.file.clone(), active.end, active.number);
        if let Err(source) = file.write(end, parts) {
            // A part of it may be in the file. It is cut off again, or the store stops.
            return Err(match file.set_size(end) {
                Ok(()) => write_error(writer, len, "write", &segment_name(number), source),
                Err(_) => writer.fail("write", source),
            });
        }
        active.end += len;
        writer.disk_bytes += len;
        writer.since_index += len;
        writer.appended += 1;
        Ok(())
    }
}

fn write_error(writer: &Writer, wanted_bytes: u64, op: &'static str, file: &str, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { used_bytes: writer.disk_bytes, wanted_bytes, limit_bytes: None }
        }
        _ => io_error(op, file)(source),
    }
}

fn frame_bytes(record: &Record) -> u64 {
    frame::object_frame_bytes(record.stored().len())
}

/// The zeros between an object's frame and the next multiple of 16.
fn padding(record: &Record) -> &'static [u8] {
    static ZEROS: [u8; 16] = [0; 16];
    let bytes = frame_bytes(record) - OBJECT_HEAD as u64 - record.stored().len() as u64;
    ZEROS.get(..usize_from(bytes)).expect("a frame is rounded up to 16 bytes")
}
