//! What a segment file is made of: a header, then frames. `FORMAT.md`, "Segments".
//!
//! ```text
//! | header 64 | frame | frame | …                                     every frame begins at a multiple of 16
//!              | marker 16, kind, length, checksums | content | zeros to the next 16 |
//! ```
//!
//! The marker is random, one per segment, and never leaves the node. A reader that lost its place (a torn tail, a
//! damaged sector) looks for it at every multiple of 16. A guest cannot know it, so no bytes on a guest's disk can be
//! taken for a frame.

use crate::{Corrupt, ObjectName, Record, RecordHeader, codec::Reader, units::usize_from};

const SEGMENT: &str = "segment header";
const FRAME: &str = "frame";
const MAGIC: [u8; 8] = *b"MUSTERS\0";
const FORMAT: u16 = 1;
/// Every frame begins at a multiple of this.
pub(super) const ALIGN: u64 = 16;
/// Names in one frame of stamps or drops: 256 KiB.
pub(super) const NAMES_MAX: usize = 8192;
/// Most bytes of one hole. What is larger is several.
pub(super) const HOLE_BYTES_MAX: u64 = 1 << 30;
/// Where an object's stored bytes begin within its frame.
pub(super) const OBJECT_HEAD: usize = Frame::BYTES + RecordHeader::BYTES;
const CONTENT_MAX: usize = if Record::BYTES_MAX > 8 + 32 * NAMES_MAX { Record::BYTES_MAX } else { 8 + 32 * NAMES_MAX };

/// Random bytes that begin every frame of one segment.
pub(super) type Marker = [u8; 16];

/// The start of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The pool that the segment belongs to.
    pub(super) pool: [u8; 16],
    /// Each frame of the segment begins with it.
    pub(super) marker: Marker,
    /// The segment's number. Frames in segments of higher numbers are newer.
    pub(super) segment: u32,
}

impl SegmentHeader {
    pub(super) const BYTES: usize = 64;
    /// Where the marker is.
    pub(super) const MARKER_AT: usize = 32;

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
        // A later release changes the format number or the reserved bytes. The checksum covers both.
        if format != FORMAT || reserved != [0; 6] {
            return Err(Corrupt::Unsupported { what: SEGMENT, feature: "format", got: format.into() });
        }
        Ok(SegmentHeader { pool, marker, segment })
    }

    /// Whether the write of this header never came to its end. The checksum is its last part, and not zero in one of
    /// four thousand million headers.
    pub(super) fn is_unfinished(bytes: &[u8]) -> bool {
        bytes.get(SegmentHeader::BYTES - 4..SegmentHeader::BYTES).is_none_or(|crc| crc == [0; 4])
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) content_len: u32,
    /// CRC of the content; 0 for objects, whose records have their own.
    pub(super) content_crc: u32,
}

/// What a frame holds. The number is its byte in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// A record, which carries its own checksums.
    Object = 1,
    /// A round, and the names that were touched in it.
    Stamps = 2,
    /// Names of objects whose earlier copies are no longer here.
    Drops = 3,
    /// Nothing: the frames that were here are dropped, and their bytes may be given back to the disk.
    Hole = 4,
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

    pub(super) fn decode(bytes: &[u8], marker: &Marker) -> Result<Frame, Corrupt> {
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
            4 => FrameKind::Hole,
            n => return Err(Corrupt::Unsupported { what: FRAME, feature: "kind", got: n.into() }),
        };
        if reserved != [0; 3] || kind != FrameKind::Hole && usize_from(content_len.into()) > CONTENT_MAX {
            return Err(r.field("length", content_len));
        }
        Ok(Frame { kind, content_len, content_crc })
    }
}

/// Bytes of an object's frame, with the zeros after it.
pub(super) fn object_frame_bytes(stored_len: usize) -> u64 {
    (OBJECT_HEAD as u64 + stored_len as u64).next_multiple_of(ALIGN)
}

/// Bytes of the frames that stamp this many names.
pub(super) fn stamps_bytes(names: usize) -> u64 {
    let frames = names.div_ceil(NAMES_MAX) as u64;
    frames * (Frame::BYTES as u64 + 8).next_multiple_of(ALIGN) + names as u64 * 32
}

/// Bytes of the frame that drops this many names, at most `NAMES_MAX`.
pub(super) fn drops_bytes(names: usize) -> u64 {
    (Frame::BYTES as u64 + names as u64 * 32).next_multiple_of(ALIGN)
}

/// What comes before an object's stored bytes: the frame's header and the record's.
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

/// Frames that say that the copies before them are dropped, with at most `NAMES_MAX` names each.
pub(super) fn drops(marker: &Marker, names: &[ObjectName]) -> Vec<u8> {
    names.chunks(NAMES_MAX).flat_map(|names| whole(marker, FrameKind::Drops, &[], names)).collect()
}

/// The header of a hole that takes the place of frames of this many bytes.
pub(super) fn hole(marker: &Marker, bytes: u64) -> [u8; Frame::BYTES] {
    let content_len = u32::try_from(bytes - Frame::BYTES as u64).expect("a hole has at most HOLE_BYTES_MAX");
    Frame { kind: FrameKind::Hole, content_len, content_crc: 0 }.encode(marker)
}

fn whole(marker: &Marker, kind: FrameKind, head: &[u8], names: &[ObjectName]) -> Vec<u8> {
    let mut content = head.to_vec();
    names.iter().for_each(|name| content.extend(name.as_bytes()));
    let content_len = u32::try_from(content.len()).expect("at most NAMES_MAX names");
    let frame = Frame { kind, content_len, content_crc: crc32c::crc32c(&content) };
    let mut out = frame.encode(marker).to_vec();
    out.extend(content);
    out.resize(out.len().next_multiple_of(usize_from(ALIGN)), 0);
    out
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
        for count in [1, 3, NAMES_MAX] {
            assert_eq!(drops(&[0; 16], &vec![name; count]).len() as u64, drops_bytes(count));
        }
        for len in 1..40 {
            assert_eq!(object_frame_bytes(len) % ALIGN, 0);
            assert!(object_frame_bytes(len) - (OBJECT_HEAD + len) as u64 <= 15);
        }
    }
}
