//! Reading objects, to answer with them or to see that they are whole. A copy that turns out to be bad is dropped.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use super::{SegmentStore, segment_name};
use crate::{
    Corrupt, ObjectName, Record, RecordHeader, lock,
    store::{
        BadCopy, StoreError,
        disk::DiskFile,
        frame::{self, Frame, OBJECT_HEAD},
        index::{Place, io_error},
    },
    units::usize_from,
};

/// Segments kept open for reading.
const FILES_MAX: usize = 64;

/// The segments that are open for reading, with the time of their last use.
#[derive(Debug, Default)]
pub(super) struct Files {
    open: HashMap<u32, (Arc<dyn DiskFile>, u64)>,
    /// Uses so far, which serve as a clock.
    uses: u64,
}

/// Copies remembered as proven, at least; at most twice as many. 64 Ki of them take 2 MiB.
const PROVEN_MAX: usize = 65_536;

/// Copies, by segment and offset.
pub(super) type Copies = HashSet<(u32, u64)>;

/// The copies whose bytes this process has hashed, as far as it remembers: those not used for longest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Proven {
    newer: Copies,
    older: Copies,
}

impl Proven {
    pub(super) fn insert(&mut self, copy: (u32, u64)) {
        if self.newer.len() >= PROVEN_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(copy);
    }

    fn contains(&mut self, copy: (u32, u64)) -> bool {
        let older = self.older.contains(&copy);
        if older {
            self.insert(copy);
        }
        older || self.newer.contains(&copy)
    }
}

impl Files {
    /// Forgets a segment whose file is deleted.
    pub(super) fn close(&mut self, segment: u32) {
        self.open.remove(&segment);
    }
}

impl SegmentStore {
    /// Reads an object and hands it to `check`. An error of that means that the copy is bad: it is dropped.
    pub(super) fn with_record<T>(
        &self,
        name: &ObjectName,
        check: impl Fn(Record) -> Result<T, Corrupt>,
    ) -> Result<Option<T>, StoreError> {
        loop {
            let Some(place) = self.place(name)? else { return Ok(None) };
            let read = self.read(name, place);
            if let Err(StoreError::Io { source, .. }) = &read {
                self.note_read(name, place, Some(source));
            }
            match read?.and_then(&check) {
                Ok(answer) => {
                    self.note_read(name, place, None);
                    lock(&self.proven).insert(place.at());
                    return Ok(Some(answer));
                }
                // If another copy took its place meanwhile, that one is read.
                Err(reason) => self.drop_copy(name, place, reason)?,
            }
        }
    }

    /// I3: reads the copies of those objects that are here, before somebody relies on them. Bad ones are dropped. The
    /// answer has those that the disk could not read. They may be readable later, so they are not dropped.
    pub(super) fn look_at(&self, names: impl IntoIterator<Item = ObjectName>) -> Result<Copies, StoreError> {
        let mut unreadable = Copies::new();
        for name in names {
            let Some(place) = self.place(&name)? else { continue };
            let proven = lock(&self.proven).contains(place.at());
            let check = |record: Record| if proven { record.check_stored() } else { record.prove().map(drop) };
            match self.with_record(&name, check) {
                Ok(_) => {}
                Err(StoreError::Io { .. }) => drop(unreadable.insert(place.at())),
                Err(error) => return Err(error),
            }
        }
        Ok(unreadable)
    }

    /// Makes the next read of an object come from the disk itself.
    pub(super) fn forget_cached(&self, name: &ObjectName) -> Result<(), StoreError> {
        let Some(place) = self.place(name)? else { return Ok(()) };
        let bytes = place.offset..place.offset.saturating_add(OBJECT_HEAD as u64 + u64::from(place.stored_len));
        match self.file(place.segment).and_then(|file| file.forget_cached(bytes)) {
            // The read finds the same, and drops the copy.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.note_read(name, place, Some(&error));
                Err(io_error("read", &segment_name(place.segment))(error))
            }
            _ => Ok(()),
        }
    }

    /// The record at a place, not proven yet. The outer error is the disk's, the inner one means a bad copy.
    fn read(&self, name: &ObjectName, place: Place) -> Result<Result<Record, Corrupt>, StoreError> {
        let needed = OBJECT_HEAD + usize_from(place.stored_len.into());
        if needed > Frame::BYTES + Record::BYTES_MAX {
            // The row of the index is damaged. Memory for what it says is not allocated.
            let got = place.stored_len.into();
            return Ok(Err(Corrupt::Field { what: "index", field: "length of an object", got }));
        }
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

    /// A segment, opened if it is not open yet. The one not used for longest is closed for it.
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

    /// I4: a bad copy is gone from now on. It stays gone after a restart once something is synced.
    fn drop_copy(&self, name: &ObjectName, place: Place, reason: Corrupt) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let now = self.place(name)?;
        if now.is_none_or(|now| now.at() != place.at()) {
            // Another copy was put in the meantime.
            return Ok(());
        }
        // Without the frame (no room, or a store that stopped) the next start finds the copy bad again. No harm.
        if writer.failed.is_none()
            && let Ok(active) = self.active(&mut writer, 64)
        {
            let bytes = frame::drops(&active.marker, &[*name]);
            let _ = self.append(&mut writer, bytes.len() as u64, &mut [IoSlice::new(&bytes)]);
        }
        self.change(&mut writer, *name, now, None);
        // Before `writer` is released, so that a usage that lacks the copy counts it as bad.
        self.report_bad(*name, place, reason);
        Ok(())
    }

    pub(super) fn report_bad(&self, name: ObjectName, place: Place, reason: Corrupt) {
        lock(&self.bad).add(BadCopy { name, stored_bytes: place.stored_len.into(), reason });
    }
}
