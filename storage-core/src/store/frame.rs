//! What a segment file is made of: a header, then frames. `FORMAT.md`, "Segments".
//!
//! ```text
//! | header 64 | frame | frame | …                                     every frame begins at a multiple of 16
//!              | marker 16, kind, length, checksums | content | zeros to the next 16 |
//! ```
//!
//! The marker is random, one per segment, and never leaves the node. A reader that lost its place (a torn tail, a
//! rotten sector) looks for it at every multiple of 16. Content that a guest chose cannot hold it, so nobody can have
//! bytes of their disk taken for a frame.

use crate::{Corrupt, ObjectName, Record, RecordHeader, codec::Reader, store::disk::DiskFile, units::to_usize};

const SEGMENT: &str = "segment header";
const FRAME: &str = "frame";
const MAGIC: [u8; 8] = *b"MUSTERS\0";
const FORMAT: u16 = 1;
/// Every frame begins at a multiple of this.
pub(super) const ALIGN: u64 = 16;
/// Names in one frame of stamps or drops: 256 KiB.
pub(super) const NAMES_MAX: usize = 8192;
/// What a scan reads at once.
const WINDOW: usize = 1 << 20;
/// Where an object's stored bytes begin within its frame.
pub(super) const OBJECT_HEAD: usize = Frame::BYTES + RecordHeader::BYTES;
const CONTENT_MAX: usize = if Record::BYTES_MAX > 8 + 32 * NAMES_MAX { Record::BYTES_MAX } else { 8 + 32 * NAMES_MAX };

/// Random bytes that begin every frame of one segment.
pub(super) type Marker = [u8; 16];

/// The start of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The pool it belongs to.
    pub(super) pool: [u8; 16],
    /// Begins its frames.
    pub(super) marker: Marker,
    /// Its number; frames of higher ones are newer.
    pub(super) segment: u32,
}

impl SegmentHeader {
    pub(super) const BYTES: usize = 64;

    pub(super) fn encode(&self) -> [u8; SegmentHeader::BYTES] {
        let mut out = Vec::with_capacity(SegmentHeader::BYTES);
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend([0; 6]);
        out.extend(self.pool);
        out.extend(self.marker);
        out.extend(self.segment.to_le_bytes());
        out.extend([0; 8]);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields above are 64 bytes together")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, Corrupt> {
        let mut r = Reader::new(SEGMENT, bytes);
        let covered = Reader::new(SEGMENT, bytes).take(SegmentHeader::BYTES - 4)?;
        r.magic(MAGIC)?;
        let format = r.u16()?;
        let reserved = r.take(6)?;
        let (pool, marker, segment) = (r.array()?, r.array()?, r.u32()?);
        r.take(8)?;
        r.crc_of(covered)?;
        // A later release says so in the version or in the reserved bytes: both are behind the checksum.
        if format != FORMAT || reserved != [0; 6] {
            return Err(Corrupt::Unsupported { what: SEGMENT, feature: "format", got: format.into() });
        }
        Ok(SegmentHeader { pool, marker, segment })
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    kind: FrameKind,
    content_len: u32,
    content_crc: u32,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FrameKind {
    /// A record, which carries its own checksums.
    Object = 1,
    /// A round, and the names that were touched in it.
    Stamps = 2,
    /// Names whose copies before this frame are no longer here.
    Drops = 3,
}

impl Frame {
    pub(super) const BYTES: usize = 32;

    fn encode(&self, marker: &Marker) -> [u8; Frame::BYTES] {
        let mut out = Vec::with_capacity(Frame::BYTES);
        out.extend(marker);
        out.extend([self.kind as u8, 0, 0, 0]);
        out.extend(self.content_len.to_le_bytes());
        out.extend(self.content_crc.to_le_bytes());
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields above are 32 bytes together")
    }

    fn decode(bytes: &[u8], marker: &Marker) -> Result<Frame, Corrupt> {
        let mut r = Reader::new(FRAME, bytes);
        let covered = Reader::new(FRAME, bytes).take(Frame::BYTES - 4)?;
        r.magic(*marker)?;
        let [kind, reserved @ ..]: [u8; 4] = r.array()?;
        let (content_len, content_crc) = (r.u32()?, r.u32()?);
        r.crc_of(covered)?;
        let kind = match kind {
            1 => FrameKind::Object,
            2 => FrameKind::Stamps,
            3 => FrameKind::Drops,
            n => return Err(Corrupt::Unsupported { what: FRAME, feature: "kind", got: n.into() }),
        };
        if reserved != [0; 3] || to_usize(content_len.into()) > CONTENT_MAX {
            return Err(r.field("length", content_len));
        }
        Ok(Frame { kind, content_len, content_crc })
    }
}

/// Bytes of an object's frame, with the zeros behind it.
pub(super) fn object_frame_bytes(stored_len: usize) -> u64 {
    (OBJECT_HEAD as u64 + stored_len as u64).next_multiple_of(ALIGN)
}

/// Bytes of the frames that stamp so many names.
pub(super) fn stamps_bytes(names: usize) -> u64 {
    let frames = names.div_ceil(NAMES_MAX) as u64;
    frames * (Frame::BYTES as u64 + 8).next_multiple_of(ALIGN) + names as u64 * 32
}

/// What stands before an object's stored bytes.
pub(super) fn object_head(marker: &Marker, header: &RecordHeader) -> [u8; OBJECT_HEAD] {
    let content_len = u32::try_from(RecordHeader::BYTES + header.stored_len()).expect("a record has at most 4 MiB");
    let frame = Frame { kind: FrameKind::Object, content_len, content_crc: 0 };
    let head = [frame.encode(marker).as_slice(), &header.encode()].concat();
    head.try_into().expect("32 and 80")
}

/// Frames that stamp names with a round.
pub(super) fn stamps(marker: &Marker, round: u64, names: &[ObjectName]) -> Vec<u8> {
    let frame = |names: &[ObjectName]| whole(marker, FrameKind::Stamps, &round.to_le_bytes(), names);
    names.chunks(NAMES_MAX).flat_map(frame).collect()
}

/// A frame that drops names.
pub(super) fn drops(marker: &Marker, names: &[ObjectName]) -> Vec<u8> {
    names.chunks(NAMES_MAX).flat_map(|names| whole(marker, FrameKind::Drops, &[], names)).collect()
}

fn whole(marker: &Marker, kind: FrameKind, head: &[u8], names: &[ObjectName]) -> Vec<u8> {
    let mut content = head.to_vec();
    names.iter().for_each(|name| content.extend(name.as_bytes()));
    let content_len = u32::try_from(content.len()).expect("at most NAMES_MAX names");
    let frame = Frame { kind, content_len, content_crc: crc32c::crc32c(&content) };
    let mut out = frame.encode(marker).to_vec();
    out.extend(content);
    out.resize(out.len().next_multiple_of(to_usize(ALIGN)), 0);
    out
}

/// What a scan found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An object; its frame begins here.
    Object { at: u64, header: RecordHeader },
    /// Touches.
    Stamps { round: u64, names: Vec<ObjectName> },
    /// Drops.
    Drops { names: Vec<ObjectName> },
}

/// Whether a scan reads the objects' bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payloads {
    /// Yes: they may be torn.
    Check,
    /// No: they were synced before the next segment was begun.
    Trust,
}

/// What a scan came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the next frame belongs.
    pub(super) end: u64,
    /// Bytes before the end that are no frames: torn or rotten.
    pub(super) damaged_bytes: u64,
    /// Where frames begin, before the end, whose own header holds and whose content does not.
    pub(super) damaged_frames: Vec<u64>,
}

/// Why a scan ended early.
#[derive(Debug)]
pub(super) enum ScanError<E> {
    /// The file could not be read.
    Read(std::io::Error),
    /// A frame of a kind a later release wrote.
    Newer(Corrupt),
    /// The visitor's.
    Visit(E),
}

/// Visits the frames of a segment in order from an offset on. Damaged places are passed over: what follows them may
/// have been acknowledged.
pub(super) fn scan<E>(
    file: &dyn DiskFile,
    marker: &Marker,
    from: u64,
    payloads: Payloads,
    visit: &mut dyn FnMut(u64, Found) -> Result<(), E>,
) -> Result<Scanned, ScanError<E>> {
    let mut window = Window { file, size: file.size().map_err(ScanError::Read)?, start: 0, bytes: Vec::new() };
    let mut at = from;
    let mut scanned = Scanned { end: from, ..Scanned::default() };
    // Where the frames known to be whole end; damage is what lies between that and the next whole one.
    while at < window.size {
        let step = read_frame(&mut window, marker, at, payloads).map_err(ScanError::Read)?;
        match step {
            Step::Whole { found, next } => {
                scanned.damaged_bytes += at - scanned.end;
                scanned.end = next;
                at = next;
                visit(next, found).map_err(ScanError::Visit)?;
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

enum Step {
    /// A frame whose checksums hold.
    Whole {
        found: Found,
        next: u64,
    },
    /// A frame whose own header holds but whose content does not.
    Damaged {
        next: u64,
    },
    /// No frame begins here.
    Lost,
    Newer(Corrupt),
}

fn read_frame(window: &mut Window<'_>, marker: &Marker, at: u64, payloads: Payloads) -> std::io::Result<Step> {
    let frame = match Frame::decode(window.get(at, Frame::BYTES)?, marker) {
        Ok(frame) => frame,
        Err(newer @ Corrupt::Unsupported { .. }) => return Ok(Step::Newer(newer)),
        Err(_) => return Ok(Step::Lost),
    };
    let content_at = at + Frame::BYTES as u64;
    let content_len = to_usize(frame.content_len.into());
    let content_end = content_at + u64::from(frame.content_len);
    let next = content_end.next_multiple_of(ALIGN);
    if content_end > window.size {
        return Ok(Step::Lost);
    }
    let found = match frame.kind {
        FrameKind::Object => {
            let Ok(header) = RecordHeader::decode(window.get(content_at, RecordHeader::BYTES)?) else {
                return Ok(Step::Damaged { next });
            };
            if header.body.is_none() || RecordHeader::BYTES + header.stored_len() != content_len {
                return Ok(Step::Damaged { next });
            }
            if payloads == Payloads::Check {
                let stored = window.get(content_at + RecordHeader::BYTES as u64, header.stored_len())?;
                if header.body.is_some_and(|b| b.stored_crc != crc32c::crc32c(stored)) {
                    return Ok(Step::Damaged { next });
                }
            }
            Found::Object { at, header }
        }
        FrameKind::Stamps | FrameKind::Drops => {
            let content = window.get(content_at, content_len)?;
            if crc32c::crc32c(content) != frame.content_crc {
                return Ok(Step::Damaged { next });
            }
            match (frame.kind, content.split_first_chunk::<8>()) {
                (FrameKind::Stamps, Some((round, names))) => {
                    Found::Stamps { round: u64::from_le_bytes(*round), names: names_in(names) }
                }
                (FrameKind::Stamps, None) => return Ok(Step::Damaged { next }),
                _ => Found::Drops { names: names_in(content) },
            }
        }
    };
    Ok(Step::Whole { found, next })
}

fn names_in(bytes: &[u8]) -> Vec<ObjectName> {
    bytes.as_chunks::<32>().0.iter().map(|name| ObjectName::from_bytes(*name)).collect()
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// So many bytes from an offset, fewer at the end of the file.
    fn get(&mut self, at: u64, len: usize) -> std::io::Result<&[u8]> {
        let len = to_usize((self.size.saturating_sub(at)).min(len as u64));
        let inside = at >= self.start && at + len as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            // Small reads far apart (headers only) stay small; a tail read in order is read in large parts.
            let ahead = if at == self.start + self.bytes.len() as u64 || len > 4096 { WINDOW } else { 4096 };
            self.bytes = self.file.read(at, len.max(ahead))?;
            self.start = at;
        }
        let from = to_usize(at - self.start);
        Ok(self.bytes.get(from..(from + len).min(self.bytes.len())).unwrap_or_default())
    }

    /// The next place from `at` on where the marker stands.
    fn find(&mut self, marker: &Marker, at: u64) -> std::io::Result<Option<u64>> {
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
}

/// The marker that whole frame begins with.
pub(super) fn marker_of(frame: &[u8]) -> Option<Marker> {
    let marker = *frame.first_chunk()?;
    Frame::decode(frame, &marker).is_ok().then_some(marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkSize, Compression, Kind, Salt};

    /// One frame of each kind, as FORMAT.md shows them.
    fn golden() -> Vec<u8> {
        let marker = *b"a random marker!";
        let chunk = Some(ChunkSize::DEFAULT);
        let first = Record::encode(Kind::Chunk, Salt::SHARED, chunk, b"muster", Compression::Off).with_round(7);
        let second =
            Record::encode(Kind::Page, Salt::SHARED, None, b"no page, but bytes", Compression::Off).with_round(8);
        let mut out = SegmentHeader { pool: *b"a random pool id", marker, segment: 1 }.encode().to_vec();
        for record in [&first, &second] {
            out.extend(object_head(&marker, &record.header()));
            out.extend_from_slice(record.stored());
            out.resize(out.len().next_multiple_of(16), 0);
        }
        out.extend(stamps(&marker, 9, &[first.name()]));
        out.extend(drops(&marker, &[second.name()]));
        out
    }

    #[test]
    fn a_segment_is_written_as_the_first_release_did() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/segment-0000000001");
        if std::env::var_os("MUSTER_NEW_FIXTURES").is_some() && !std::fs::exists(path).expect("looks") {
            std::fs::write(path, golden()).expect("writes");
        }
        assert_eq!(golden(), std::fs::read(path).expect("reads"));
    }

    #[test]
    fn lengths_known_beforehand_are_the_lengths_written() {
        let name = ObjectName::from_bytes([1; 32]);
        for count in [0, 1, 3, NAMES_MAX, NAMES_MAX + 1, 2 * NAMES_MAX] {
            assert_eq!(stamps(&[0; 16], 1, &vec![name; count]).len() as u64, stamps_bytes(count));
        }
        for len in 1..40 {
            assert_eq!(object_frame_bytes(len) % ALIGN, 0);
            assert!(object_frame_bytes(len) - (OBJECT_HEAD + len) as u64 <= 15);
        }
    }
}
