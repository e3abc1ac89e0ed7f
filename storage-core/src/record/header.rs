//! The fixed part of a record.

use crate::{ChunkSize, Corrupt, Kind, ObjectName, Salt, codec::Reader, units::usize_from};

const WHAT: &str = "record header";
const MAGIC: [u8; 4] = *b"MSR1";

/// How the stored bytes are encoded. A property of this copy, never of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// The canonical bytes, without the zeros at a chunk's end.
    Raw = 0,
    /// The same bytes as one zstd frame.
    Zstd = 1,
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Name of the object that follows, or that is not there.
    pub name: ObjectName,
    /// What follows the header. None answers a request for an object that is not there.
    pub body: Option<RecordBody>,
}

/// What the header says about the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordBody {
    /// Kind of the object, which decides how its body is read.
    pub kind: Kind,
    /// Of chunks only: the size they are padded to when hashed.
    pub chunk: Option<ChunkSize>,
    /// Part of the name's key.
    pub salt: Salt,
    /// How the stored bytes are encoded.
    pub encoding: Encoding,
    /// Number of canonical bytes, without the zeros at a chunk's end.
    pub body_len: u32,
    /// Number of bytes that follow the header.
    pub stored_len: u32,
    /// The upload round in which the copy was last put or touched when the header was written.
    pub round: u64,
    /// CRC-32C of the stored bytes.
    pub stored_crc: u32,
}

impl RecordHeader {
    /// Length of a header in bytes.
    pub const BYTES: usize = 80;

    /// The header that says that an object is not here.
    pub const fn absent(name: ObjectName) -> RecordHeader {
        RecordHeader { name, body: None }
    }

    /// Number of bytes that follow the header, at most [`Kind::bytes_max`].
    pub fn stored_len(&self) -> usize {
        self.body.map_or(0, |b| usize_from(u64::from(b.stored_len)))
    }

    /// The header as it is sent and stored, with its checksum.
    pub fn encode(&self) -> [u8; RecordHeader::BYTES] {
        let mut out = Vec::with_capacity(RecordHeader::BYTES);
        out.extend(MAGIC);
        match self.body {
            Some(b) => {
                out.extend([b.kind.to_byte(), b.encoding as u8, b.chunk.map_or(0, ChunkSize::log2), 0]);
                out.extend(b.body_len.to_le_bytes());
                out.extend(b.stored_len.to_le_bytes());
                out.extend(b.round.to_le_bytes());
                out.extend(b.salt.0);
            }
            None => out.resize(40, 0),
        }
        out.extend(self.name.as_bytes());
        out.extend(self.body.map_or(0, |b| b.stored_crc).to_le_bytes());
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields above are 80 bytes together")
    }

    /// From the front of `bytes`. Nothing is allocated for what the header says until it was checked here.
    ///
    /// # Errors
    /// When the bytes are too few, their checksum does not match, or no release writes such a header.
    pub fn decode(bytes: &[u8]) -> Result<RecordHeader, Corrupt> {
        let mut r = Reader::new(WHAT, bytes);
        let covered = Reader::new(WHAT, bytes).take(RecordHeader::BYTES - 4)?;
        r.magic(MAGIC)?;
        let [kind, encoding, chunk_log2, reserved] = r.array()?;
        let (body_len, stored_len, round) = (r.u32()?, r.u32()?, r.u64()?);
        let salt = Salt(r.array()?);
        let name = r.name()?;
        let stored_crc = r.u32()?;
        r.crc_of(covered)?;

        if reserved != 0 {
            return Err(r.field("reserved byte", reserved));
        }
        if kind == 0 {
            let numbers = [encoding.into(), chunk_log2.into(), body_len.into(), stored_len.into(), stored_crc.into()];
            let fields = numbers.into_iter().chain([round]).chain(salt.0.map(u64::from));
            return match fields.into_iter().find(|n| *n != 0) {
                None => Ok(RecordHeader::absent(name)),
                Some(n) => Err(r.field("value in the header of an absent object", n)),
            };
        }
        let unsupported = |feature, got: u8| Corrupt::Unsupported { what: WHAT, feature, got: got.into() };
        let kind = Kind::from_byte(kind).ok_or_else(|| unsupported("kind", kind))?;
        let encoding = Encoding::from_byte(encoding).ok_or_else(|| unsupported("encoding", encoding))?;
        let chunk = match (kind, chunk_log2) {
            (Kind::Chunk, n) => Some(ChunkSize::from_log2(n).ok_or_else(|| r.field("chunk size", n))?),
            (_, 0) => None,
            (_, n) => return Err(r.field("chunk size of this kind", n)),
        };
        let body = RecordBody { kind, chunk, salt, encoding, body_len, stored_len, round, stored_crc };
        body.check_lengths()?;
        Ok(RecordHeader { name, body: Some(body) })
    }
}

impl RecordBody {
    fn check_lengths(&self) -> Result<(), Corrupt> {
        let refuse = |field, got: u32| Err(Corrupt::Field { what: WHAT, field, got: got.into() });
        let body_max = self.chunk.map_or(u64::from(self.kind.bytes_max()), ChunkSize::bytes);
        if self.body_len == 0 || u64::from(self.body_len) > body_max {
            return refuse("length of this kind", self.body_len);
        }
        let fits = match self.encoding {
            Encoding::Raw => self.stored_len == self.body_len,
            Encoding::Zstd => self.stored_len != 0 && self.stored_len < self.body_len,
        };
        if fits { Ok(()) } else { refuse("stored length of this encoding", self.stored_len) }
    }
}

impl Encoding {
    const fn from_byte(byte: u8) -> Option<Encoding> {
        match byte {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Zstd),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Record};

    #[test]
    fn a_header_that_lies_about_lengths_is_refused() {
        let good = Record::encode(Kind::Descriptor, Salt::SHARED, None, b"abc", Compression::Off).header();
        let with = |change: fn(&mut RecordBody)| {
            let mut header = good;
            change(header.body.as_mut().expect("present"));
            RecordHeader::decode(&header.encode())
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|b| b.body_len = 0).is_err());
        assert!(with(|b| b.body_len = 4).is_err());
        assert!(with(|b| (b.body_len, b.stored_len) = (5000, 5000)).is_err());
        assert!(with(|b| (b.kind, b.body_len, b.stored_len) = (Kind::Page, u32::MAX, u32::MAX)).is_err());
        assert!(with(|b| (b.encoding, b.stored_len) = (Encoding::Zstd, 3)).is_err());
        assert!(with(|b| b.chunk = Some(ChunkSize::MIN)).is_err());
    }
}
