//! Finding the frames of a segment again, in a file that a power cut or a failing disk may have damaged.

use std::{io, ops::Range};

use super::{
    disk::DiskFile,
    frame::{ALIGN, Frame, FrameKind, Marker},
};
use crate::{Corrupt, ObjectName, RecordHeader, record::RecordBody, units::usize_from};

/// Bytes that a scan reads at once.
const WINDOW: usize = 1 << 20;

/// A frame that a scan found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An object, whose frame begins at `at`.
    Object { at: u64, name: ObjectName, body: RecordBody },
    /// The objects were put or touched in this round.
    Stamps { round: u64, names: Vec<ObjectName> },
    /// Earlier copies of the objects are no longer here.
    Drops { names: Vec<ObjectName> },
    /// Nothing any more.
    Hole,
}

/// Whether a scan reads the objects' bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payloads {
    /// Yes: they may be torn.
    Check,
    /// No: they were synced before the next segment was begun.
    Trust,
}

/// The end of a scan, and the damage before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the next frame belongs.
    pub(super) end: u64,
    /// Bytes before the end that are no frames: torn or damaged.
    pub(super) damaged_bytes: u64,
    /// Where damaged frames begin, before the end. Their header is whole and their content is not.
    pub(super) damaged_frames: Vec<u64>,
}

/// Why a scan stopped early.
#[derive(Debug)]
pub(super) enum ScanError<E> {
    /// The file could not be read.
    Read(io::Error),
    /// A later release wrote a frame of another kind.
    Newer(Corrupt),
    /// The visitor returned this error, which ended the scan.
    Visit(E),
}

/// Visits the frames of a segment in order from an offset on, each with its bytes, which end where the next one belongs.
/// Damaged places are passed over, because what follows them may have been acknowledged.
pub(super) fn scan<E>(
    file: &dyn DiskFile,
    marker: &Marker,
    from: u64,
    payloads: Payloads,
    visit: &mut dyn FnMut(Range<u64>, Found) -> Result<(), E>,
) -> Result<Scanned, ScanError<E>> {
    let mut window = Window { file, size: file.size().map_err(ScanError::Read)?, start: 0, bytes: Vec::new() };
    let mut at = from;
    let mut scanned = Scanned { end: from, ..Scanned::default() };
    while at < window.size {
        let step = window.frame(marker, at, payloads).map_err(ScanError::Read)?;
        match step {
            Step::Whole { found, next } => {
                // Damage is what lies between two whole frames.
                scanned.damaged_bytes += at - scanned.end;
                scanned.end = next;
                visit(at..next, found).map_err(ScanError::Visit)?;
                at = next;
            }
            Step::Damaged { next } => {
                scanned.damaged_frames.push(at);
                at = next;
            }
            Step::Newer(corrupt) => return Err(ScanError::Newer(corrupt)),
            Step::Lost => match window.find(marker, at + ALIGN).map_err(ScanError::Read)? {
                Some(next) => at = next,
                None => break,
            },
        }
    }
    scanned.damaged_frames.retain(|at| *at < scanned.end);
    Ok(scanned)
}

/// Whether a frame that begins with this marker is anywhere from an offset on.
pub(super) fn has_frame(file: &dyn DiskFile, marker: &Marker, from: u64) -> io::Result<bool> {
    match scan(file, marker, from, Payloads::Trust, &mut |_, _| Err(())) {
        Ok(_) => Ok(false),
        Err(ScanError::Visit(()) | ScanError::Newer(_)) => Ok(true),
        Err(ScanError::Read(error)) => Err(error),
    }
}

enum Step {
    /// A frame whose checksums hold.
    Whole {
        found: Found,
        next: u64,
    },
    /// A frame whose header is whole and whose content is not.
    Damaged {
        next: u64,
    },
    /// No frame begins here: the bytes are damaged or not of this file.
    Lost,
    Newer(Corrupt),
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// What is at an offset where a frame should begin.
    fn frame(&mut self, marker: &Marker, at: u64, payloads: Payloads) -> io::Result<Step> {
        let frame = match Frame::decode(self.get(at, Frame::BYTES)?, marker) {
            Ok(frame) => frame,
            Err(newer @ Corrupt::Unsupported { .. }) => return Ok(Step::Newer(newer)),
            Err(_) => return Ok(Step::Lost),
        };
        let content_end = at + Frame::BYTES as u64 + u64::from(frame.content_len);
        if content_end > self.size {
            return Ok(Step::Lost);
        }
        let next = content_end.next_multiple_of(ALIGN);
        let found = match frame.kind {
            FrameKind::Object => self.object(at, frame, payloads)?,
            FrameKind::Stamps | FrameKind::Drops => self.names(at, frame)?,
            FrameKind::Hole => Some(Found::Hole),
        };
        Ok(found.map_or(Step::Damaged { next }, |found| Step::Whole { found, next }))
    }

    /// The object of a frame; none: it is damaged.
    fn object(&mut self, at: u64, frame: Frame, payloads: Payloads) -> io::Result<Option<Found>> {
        let content_at = at + Frame::BYTES as u64;
        let Ok(header) = RecordHeader::decode(self.get(content_at, RecordHeader::BYTES)?) else { return Ok(None) };
        let RecordHeader { name, body: Some(body) } = header else { return Ok(None) };
        if RecordHeader::BYTES + header.stored_len() != usize_from(frame.content_len.into()) {
            return Ok(None);
        }
        if payloads == Payloads::Check {
            let stored = self.get(content_at + RecordHeader::BYTES as u64, header.stored_len())?;
            if body.stored_crc != crc32c::crc32c(stored) {
                return Ok(None);
            }
        }
        Ok(Some(Found::Object { at, name, body }))
    }

    /// The stamps or drops of a frame; none: it is damaged.
    fn names(&mut self, at: u64, frame: Frame) -> io::Result<Option<Found>> {
        let content = self.get(at + Frame::BYTES as u64, usize_from(frame.content_len.into()))?;
        if crc32c::crc32c(content) != frame.content_crc {
            return Ok(None);
        }
        if frame.kind == FrameKind::Drops {
            return Ok(Some(Found::Drops { names: names_in(content) }));
        }
        let Some((round, names)) = content.split_first_chunk() else { return Ok(None) };
        Ok(Some(Found::Stamps { round: u64::from_le_bytes(*round), names: names_in(names) }))
    }

    /// The next place from `at` on where the marker is.
    fn find(&mut self, marker: &Marker, at: u64) -> io::Result<Option<u64>> {
        let mut at = at;
        while at < self.size {
            let bytes = self.get(at, WINDOW)?;
            let (places, _) = bytes.as_chunks::<16>();
            if let Some(place) = places.iter().position(|bytes| bytes == marker) {
                return Ok(Some(at + place as u64 * ALIGN));
            }
            if places.is_empty() {
                break;
            }
            at += places.len() as u64 * ALIGN;
        }
        Ok(None)
    }

    /// `len` bytes from an offset, fewer at the end of the file.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let len = usize_from((self.size.saturating_sub(at)).min(len as u64));
        let inside = at >= self.start && at + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            // Small reads far apart (headers only) stay small; a tail read in order is read in large parts.
            let ahead = if at == self.start + self.bytes.len() as u64 || len > 4096 { WINDOW } else { 4096 };
            self.bytes = self.file.read(at, len.max(ahead))?;
            self.start = at;
        }
        let from = usize_from(at - self.start);
        // A file that became shorter since its size was asked for gives fewer bytes.
        let to = (from + len).min(self.bytes.len());
        Ok(self.bytes.get(from..to).expect("the window begins at or before the offset"))
    }
}

fn names_in(bytes: &[u8]) -> Vec<ObjectName> {
    bytes.as_chunks::<32>().0.iter().map(|name| ObjectName::from_bytes(*name)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::{
        fuzz::Fuzz,
        store::{Disk as _, SimDisk, frame::SegmentHeader},
    };

    const SEGMENT: &[u8] = include_bytes!("../../tests/fixtures/v1/segment-0000000001");

    /// Writes into the bytes from an offset on, as far as they go.
    fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
        if let Some(place) = bytes.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    }

    fn seal(bytes: &mut [u8], covered: usize) {
        if let Some(covered) = bytes.get(..covered) {
            let crc = crc32c::crc32c(covered).to_le_bytes();
            put(bytes, covered.len(), &crc);
        }
    }

    /// Seals the segment's header, and of each frame that still has its marker the header and what it holds.
    fn reseal(bytes: &mut [u8]) {
        put(bytes, 0, b"MUSTERS\0\x01\0");
        seal(bytes, SegmentHeader::BYTES - 4);
        let Ok(header) = SegmentHeader::decode(bytes) else { return };
        for at in (SegmentHeader::BYTES..bytes.len()).step_by(16) {
            let Some(frame) = bytes.get_mut(at..).filter(|frame| frame.starts_with(&header.marker)) else { continue };
            let content = frame.get_mut(Frame::BYTES..).unwrap_or_default();
            seal(content, RecordHeader::BYTES - 4);
            let len = frame.get(20..24).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes);
            let end = len.and_then(|len| Frame::BYTES.checked_add(usize_from(len.into())));
            if frame.get(16) != Some(&1)
                && let Some(content) = end.and_then(|end| frame.get(Frame::BYTES..end))
            {
                let crc = crc32c::crc32c(content).to_le_bytes();
                put(frame, 24, &crc);
            }
            seal(frame, Frame::BYTES - 4);
        }
    }

    #[test]
    fn fuzz_segment() {
        // The window is read in pieces of up to 1 MiB, and the simulated disk keeps copies of the file.
        let fuzz = Fuzz::new([SEGMENT.to_vec()]).reseal(reseal).memory_max(|bytes| (4 << 20) + 64 * bytes);
        fuzz.run(|bytes| -> Result<(), String> {
            let header = SegmentHeader::decode(bytes).map_err(|error| format!("{error:?}"))?;
            let disk = SimDisk::new();
            let file = disk.create("segment").expect("creates");
            file.write(0, &mut [IoSlice::new(bytes)]).expect("writes");
            for payloads in [Payloads::Check, Payloads::Trust] {
                let mut end = SegmentHeader::BYTES as u64;
                let scanned = scan(file.as_ref(), &header.marker, end, payloads, &mut |frame, found| {
                    if let Found::Object { at, body, .. } = found {
                        let object_end = at + u64::from(body.stored_len);
                        assert!(at == frame.start && object_end < frame.end, "an object within its frame");
                    }
                    assert!(frame.start >= end && frame.start < frame.end, "frames come in order");
                    assert!(frame.end.is_multiple_of(ALIGN));
                    end = frame.end;
                    Ok::<(), ()>(())
                });
                let scanned = scanned.map_err(|error| format!("{error:?}"))?;
                assert_eq!(scanned.end, end);
                assert!(end <= (bytes.len() as u64).next_multiple_of(ALIGN) && scanned.damaged_bytes < end);
            }
            Ok(())
        });
    }
}
