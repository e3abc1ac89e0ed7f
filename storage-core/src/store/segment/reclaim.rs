//! Removing objects, and giving the disk back what they took.
//!
//! ```text
//!  remove: drops frame appended, place forgotten        (durable after sync, as everything)
//!  reclaim: index written -> for each segment in which less is live than at the last time:
//!     nothing live    -> stamps that still count are appended again -> index forgets the segment -> file deleted
//!     something live  -> runs of dead frames become holes: header written -> synced -> blocks given back
//! ```
//! No live object is ever moved: nothing is copied, and what reclaiming costs does not grow with what stays. A run of dead
//! frames keeps the parts of blocks at its two ends, so scattered small objects give back less than they took.
//!
//! A frame is *dead* when the index, which is durable, has the object elsewhere or not at all, or when all stamps in it are
//! outdone. A dead frame never comes to life again: an object that is put again gets a new frame. So frames are judged
//! without a lock. Drops are never dead as long as their segment has live objects.
//!
//! What a scan finds without the index (`recover.rs`): a hole says itself how long it is. With the file of a segment its
//! drops are gone, too, so an older copy of an object that was removed may be found again. It is whole, has its old stamp,
//! and is removed by the next sweep; one that was bad is found bad again.

use std::{cell::Cell, collections::BTreeMap, io::IoSlice, ops::Range};

use super::{SegmentStore, segment_name};
use crate::{
    ObjectName, lock,
    store::{
        StoreError,
        disk::PAGE,
        frame::{self, Frame, HOLE_BYTES_MAX, SegmentHeader},
        index::{SegmentUse, io_error},
        scan::{self, Found, Payloads, ScanError},
    },
};

/// Less than this is not worth a look at a segment, unless nothing in it is live.
const WORTH_BYTES: u64 = 64 << 10;
/// Holes whose headers are made durable together.
const HOLES_AT_ONCE: usize = 32;
/// Holes whose blocks are given back between two pauses. The next sync on the file system waits until it has noted them all, and
/// told the disk.
const PUNCHED_AT_ONCE: usize = 4;
/// Objects that are removed between two moments in which others may put.
const REMOVED_AT_ONCE: usize = 32;
/// Frames that are looked at between two pauses.
const LOOKED_AT_ONCE: usize = 32;
/// Segments whose files are deleted between two writes of the index.
const DELETED_AT_ONCE: usize = 16;

/// What is dead of one segment.
#[derive(Debug, Default)]
struct Dead {
    /// Runs of dead frames, in order. Whether each is one hole already.
    runs: Vec<(Range<u64>, bool)>,
}

impl Dead {
    fn add(&mut self, frame: Range<u64>, is_hole: bool) {
        match self.runs.last_mut() {
            Some((run, whole)) if run.end == frame.start && frame.end - run.start <= HOLE_BYTES_MAX => {
                run.end = frame.end;
                *whole = false;
            }
            _ => self.runs.push((frame, is_hole)),
        }
    }
}

/// The whole blocks of a run that can be given back. Its first bytes stay: they say that it is a hole.
fn blocks(run: &Range<u64>) -> Option<Range<u64>> {
    let start = (run.start + Frame::BYTES as u64).next_multiple_of(PAGE);
    let end = run.end / PAGE * PAGE;
    (start < end).then_some(start..end)
}

impl SegmentStore {
    pub(super) fn remove_batch(&self, objects: &[(ObjectName, u64)]) -> Result<Vec<Option<u64>>, StoreError> {
        self.advance_if_due(2);
        let mut answer = Vec::with_capacity(objects.len());
        for some in objects.chunks(REMOVED_AT_ONCE) {
            // Reads the pages of the index into memory, so that those who put meanwhile do not wait for that.
            for (name, _) in some {
                self.place(name)?;
            }
            self.remove_some(some, &mut answer)?;
        }
        Ok(answer)
    }

    fn remove_some(&self, objects: &[(ObjectName, u64)], answer: &mut Vec<Option<u64>>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        writer.check()?;
        let mut removed = BTreeMap::new();
        for (name, below) in objects {
            let place = self.place(name)?.filter(|place| place.round < *below && !removed.contains_key(name));
            answer.push(place.map(|place| place.stored_len.into()));
            removed.extend(place.map(|place| (*name, place)));
        }
        let names: Vec<ObjectName> = removed.keys().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let wanted = frame::drops_bytes(names.len());
        let active = self.active(&mut writer, wanted)?;
        let bytes = frame::drops(&active.marker, &names);
        self.append(&mut writer, wanted, &mut [IoSlice::new(&bytes)])?;
        for (name, place) in removed {
            self.change(&mut writer, name, Some(place), None);
        }
        Ok(())
    }

    pub(super) fn reclaim_while(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        let _reclaiming = lock(&self.reclaiming);
        // Each time the index is durable up to now, so what is dead in it may be overwritten. It knows all of the segments
        // that were sealed before.
        let (mut newest, mut active) = self.newest_and_active();
        self.advance(&lock(&self.advancing))?;
        let mut segments = self.index.segments()?;
        if self.seal_if_worth_it(&segments)? {
            (newest, active) = self.newest_and_active();
            self.advance(&lock(&self.advancing))?;
            segments = self.index.segments()?;
        }
        let sealed = segments.into_iter().filter(|segment| segment.segment < active);
        // The newest file stays: no number is given twice.
        let (empty, rest): (Vec<SegmentUse>, _) = sealed.partition(|s| s.live == 0 && s.segment < newest);
        let worth_bytes = WORTH_BYTES.min(self.options.segment_bytes / 64);
        let live_before = |segment: &SegmentUse| segment.reclaimed.map_or(segment.len, |(_, live)| live);
        let worth_it = |segment: &SegmentUse| live_before(segment).saturating_sub(segment.live) >= worth_bytes;
        let mut given_back = 0;
        for some in empty.chunks(DELETED_AT_ONCE) {
            if !go_on() {
                return Ok(given_back);
            }
            given_back += self.delete(some, go_on)?;
        }
        for segment in rest.into_iter().filter(worth_it) {
            if !go_on() {
                break;
            }
            given_back += self.punch(segment, go_on)?;
        }
        Ok(given_back)
    }

    /// The number of the newest segment, and that of the active one: the next number if none is active.
    fn newest_and_active(&self) -> (u32, u32) {
        let writer = self.writer();
        (writer.next_segment - 1, writer.active.as_ref().map_or(writer.next_segment, |active| active.number))
    }

    /// Ends the active segment if much of it is dead: nothing can be given back of one that is appended to. The answer tells
    /// whether it was ended.
    fn seal_if_worth_it(&self, segments: &[SegmentUse]) -> Result<bool, StoreError> {
        let mut writer = self.writer();
        writer.check()?;
        let Some(active) = &writer.active else { return Ok(false) };
        let live = segments.iter().find(|segment| segment.segment == active.number).map_or(0, |segment| segment.live);
        let is_worth_it = active.end.saturating_sub(live) >= self.options.segment_bytes / 64;
        if is_worth_it {
            self.seal(&mut writer)?;
        }
        Ok(is_worth_it)
    }

    /// Deletes segments without live objects, or none of them if it should not `go_on`. Returns the bytes that they took.
    fn delete(&self, segments: &[SegmentUse], go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        if segments.is_empty() {
            return Ok(0);
        }
        for segment in segments {
            let mut stamps: BTreeMap<u64, Vec<ObjectName>> = BTreeMap::new();
            // None is deleted unless all were looked at.
            let is_over = Cell::new(false);
            let pause = || {
                is_over.set(!go_on());
                !is_over.get()
            };
            self.frames_of(*segment, &pause, &mut |_, found| {
                if let Found::Stamps { round, names } = found {
                    stamps.entry(round).or_default().extend(names);
                }
                Ok(())
            })?;
            if is_over.get() {
                return Ok(0);
            }
            self.stamp_again(stamps)?;
        }
        // Whatever outdid a stamp is durable from here on.
        self.advance(&lock(&self.advancing))?;
        let numbers: Vec<u32> = segments.iter().map(|segment| segment.segment).collect();
        self.index.set_gone(&numbers)?;
        let mut given_back = 0;
        for segment in segments {
            let name = segment_name(segment.segment);
            self.disk.remove(&name).map_err(io_error("remove", &name))?;
            // Whoever looked up an object before it was removed may have opened the file until now.
            lock(&self.files).close(segment.segment);
            let held = segment.reclaimed.map_or(segment.len, |(held, _)| held);
            let mut writer = self.writer();
            writer.disk_bytes = writer.disk_bytes.saturating_sub(held);
            given_back += held;
        }
        self.disk.sync_names().map_err(io_error("sync", "."))?;
        self.index.forget_gone(&numbers)?;
        Ok(given_back)
    }

    /// Appends those of these stamps that are still the highest of their objects: the frames that have them go away.
    fn stamp_again(&self, stamps: BTreeMap<u64, Vec<ObjectName>>) -> Result<(), StoreError> {
        for (round, names) in stamps {
            for names in names.chunks(frame::NAMES_MAX) {
                let mut writer = self.writer();
                writer.check()?;
                let mut counting = Vec::new();
                for name in names {
                    if self.place(name)?.is_some_and(|place| place.round == round) {
                        counting.push(*name);
                    }
                }
                if counting.is_empty() {
                    continue;
                }
                let wanted = frame::stamps_bytes(counting.len());
                let active = self.active(&mut writer, wanted)?;
                let bytes = frame::stamps(&active.marker, round, &counting);
                self.append(&mut writer, wanted, &mut [IoSlice::new(&bytes)])?;
            }
        }
        Ok(())
    }

    /// Makes holes of the dead frames of a segment, some at a time. Returns the bytes that were given back.
    fn punch(&self, segment: SegmentUse, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        let number = segment.segment;
        let name = segment_name(number);
        let mut dead = Dead::default();
        // The next call begins a segment again that was not looked at as a whole.
        let marker = self.frames_of(segment, go_on, &mut |frame, found| {
            let is_dead = match &found {
                Found::Object { at, name, .. } => self.index.get(name)?.is_none_or(|place| place.at() != (number, *at)),
                Found::Stamps { round, names } => {
                    let mut outdone = true;
                    for name in names {
                        outdone &= self.index.get(name)?.is_none_or(|place| place.round > *round);
                    }
                    outdone
                }
                Found::Drops { .. } => false,
                Found::Hole => true,
            };
            if is_dead && frame.end <= segment.len {
                dead.add(frame, found == Found::Hole);
            }
            Ok(())
        })?;
        let Some(marker) = marker else { return Ok(0) };
        let file = self.disk.open(&name).map_err(io_error("open", &name))?;
        let with_blocks: Vec<_> =
            dead.runs.iter().filter_map(|(run, is_hole)| Some((run, *is_hole, blocks(run)?))).collect();
        let mut punched = 0;
        for (part, holes) in with_blocks.chunks(HOLES_AT_ONCE).enumerate() {
            if part > 0 && !go_on() {
                // The next call begins this segment again, and counts what is a hole by now.
                return Ok(0);
            }
            let mut is_written = false;
            for (run, _, _) in holes.iter().filter(|(_, is_hole, _)| !is_hole) {
                let header = frame::hole(&marker, run.end - run.start);
                file.write(run.start, &mut [IoSlice::new(&header)]).map_err(io_error("write", &name))?;
                is_written = true;
            }
            // Until a scan finds the hole it must find whole frames.
            if is_written && let Err(source) = file.sync_data() {
                return Err(self.writer().fail("sync", source));
            }
            // Also what is a hole already: the last process may have ended in between.
            for (some, (_, _, blocks)) in holes.iter().enumerate() {
                if some > 0 && some % PUNCHED_AT_ONCE == 0 && !go_on() {
                    return Ok(0);
                }
                file.punch(blocks.clone()).map_err(io_error("give back space of", &name))?;
                punched += blocks.end - blocks.start;
            }
        }
        let held = segment.len - punched;
        self.index.set_reclaimed(number, held, segment.live)?;
        let before = segment.reclaimed.map_or(segment.len, |(held, _)| held);
        let mut writer = self.writer();
        writer.disk_bytes = (writer.disk_bytes + held).saturating_sub(before);
        Ok(before.saturating_sub(held))
    }

    /// Visits the frames of a segment, some at a time. Returns its marker; none: it should not `go_on`, or its header is damaged, so
    /// that nothing of it is touched.
    fn frames_of(
        &self,
        segment: SegmentUse,
        go_on: &dyn Fn() -> bool,
        visit: &mut dyn FnMut(Range<u64>, Found) -> Result<(), StoreError>,
    ) -> Result<Option<frame::Marker>, StoreError> {
        let name = segment_name(segment.segment);
        let file = self.disk.open(&name).map_err(io_error("open", &name))?;
        let head = file.read(0, SegmentHeader::BYTES).map_err(io_error("read", &name))?;
        let Ok(SegmentHeader { marker, .. }) = SegmentHeader::decode(&head) else { return Ok(None) };
        let from = SegmentHeader::BYTES as u64;
        let mut looked = 0;
        let mut visit_some = |frame, found| {
            looked += 1;
            if looked % LOOKED_AT_ONCE == 0 && !go_on() {
                return Err(None);
            }
            visit(frame, found).map_err(Some)
        };
        match scan::scan(file.as_ref(), &marker, from, Payloads::Trust, &mut visit_some) {
            Ok(_) => Ok(Some(marker)),
            Err(ScanError::Visit(None)) => Ok(None),
            Err(ScanError::Visit(Some(error))) => Err(error),
            Err(ScanError::Read(source)) => Err(io_error("read", &name)(source)),
            Err(ScanError::Newer(source)) => Err(StoreError::Format { file: name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ChunkStore as _, Compression, Kind, Record, Salt,
        store::{Options, SimDisk},
    };

    /// What is removed while a segment is looked at may come back with a power cut, so it stays whole until the index has
    /// it.
    #[test]
    fn what_is_removed_and_not_durable_is_not_given_back() {
        let disk = SimDisk::new();
        let options = Options { segment_bytes: 20_000, ..Options::default() };
        let open = |disk: &SimDisk| SegmentStore::open_on(Arc::new(disk.clone()), options.clone()).expect("opens");
        let store = open(&disk);
        let record = |n: u8| Record::encode(Kind::Page, Salt::SHARED, None, &[n + 1; 1500], Compression::Off);
        let records: Vec<Record> = (0..20).map(record).collect();
        for record in &records {
            store.put(1, std::slice::from_ref(record)).expect("puts");
        }
        let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
        store.advance(&lock(&store.advancing)).expect("writes the index");
        let segment = *store.index.segments().expect("reads").first().expect("there are some");
        assert_eq!(
            store.remove(2, &names).expect("removes"),
            records.iter().map(|r| Some(r.stored().len() as u64)).collect::<Vec<_>>()
        );
        assert_eq!(store.punch(segment, &|| true).expect("looks"), 0);
        store.advance(&lock(&store.advancing)).expect("writes the index");
        assert!(store.punch(segment, &|| true).expect("gives back") >= 4096);
    }

    /// Whenever it is ended, what is left stays whole, and the next call gives back the rest.
    #[test]
    fn reclaiming_may_end_anywhere() {
        let record =
            |n: u32| Record::encode(Kind::Page, Salt::SHARED, None, &[n.to_le_bytes(); 375].concat(), Compression::Off);
        let records: Vec<Record> = (0..600).map(record).collect();
        let (mut ends, mut is_whole, mut whole) = (0, false, None);
        while !is_whole {
            let options = Options { segment_bytes: 300_000, ..Options::default() };
            let store = SegmentStore::open_on(Arc::new(SimDisk::new()), options).expect("opens");
            store.put(1, &records).expect("puts");
            // All of the first segments and half of the others.
            let (gone, kept): (Vec<_>, Vec<_>) =
                records.iter().map(Record::name).enumerate().partition(|(n, _)| *n < 300 || n % 2 == 0);
            store.remove(2, &gone.into_iter().map(|(_, name)| name).collect::<Vec<_>>()).expect("removes");
            let asked = Cell::new(0);
            let go_on = || {
                asked.set(asked.get() + 1);
                asked.get() <= ends
            };
            let first = store.reclaim(&go_on).expect("gives back");
            is_whole = asked.get() <= ends;
            let second = store.reclaim(&|| true).expect("gives back");
            assert_eq!(first + second, *whole.get_or_insert(first + second), "after {ends}");
            for (n, name) in kept {
                assert!(store.get(&name).expect("reads").is_some(), "record {n} after {ends}");
            }
            ends += 1;
        }
        assert!(ends > 15 && whole > Some(0), "it asks often: {ends}");
    }
}
