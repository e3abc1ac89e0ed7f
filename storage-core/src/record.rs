//! One object as it lies on a disk and travels between nodes: a header of [`RecordHeader::BYTES`] and the stored
//! bytes, which are the canonical ones or a compressed form of them. `FORMAT.md` has the table.
//!
//! A [`Record`] knows whether its bytes were hashed by this process (*proven*): those it encoded are, those it decoded
//! are not until [`Record::prove`]. A store takes unproven ones only after hashing them (I4).

use std::cell::RefCell;

use bytes::Bytes;

use crate::{ChunkSize, Corrupt, Kind, ObjectName, Salt, codec::Reader, units::to_usize, zero::trim_zeros};

const WHAT: &str = "record header";
const MAGIC: [u8; 4] = *b"MSR1";
/// Level 1: faster than the disks below it where it pays, and it pays where anything does.
const ZSTD_LEVEL: i32 = 1;
/// Pieces of a body whose bytes are counted before compressing all of it is tried.
const PROBE_BYTES: usize = 256;
const PROBES: usize = 16;

/// How the stored bytes are encoded: a property of this copy, never of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// As they are, without the zeros at a chunk's end.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// Whether to try to store fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Where a tenth of the bytes is saved.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The object's name.
    pub name: ObjectName,
    /// None: the answer to a request for an object that is not there.
    pub body: Option<RecordBody>,
}

/// What the header says about the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordBody {
    /// What it is.
    pub kind: Kind,
    /// Chunks only: the size it is padded to when hashed.
    pub chunk: Option<ChunkSize>,
    /// Part of the name's key.
    pub salt: Salt,
    /// How the stored bytes are encoded.
    pub encoding: Encoding,
    /// Canonical bytes, without the zeros at a chunk's end.
    pub body_len: u32,
    /// Bytes that follow the header.
    pub stored_len: u32,
    /// The upload round the copy was last put or touched in when the header was written.
    pub round: u64,
    /// CRC-32C of the stored bytes.
    pub stored_crc: u32,
}

/// An object with its header.
#[derive(Clone, Debug)]
pub struct Record {
    name: ObjectName,
    body: RecordBody,
    stored: Bytes,
    proven: bool,
}

/// The canonical bytes of an object, checked against its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedObject {
    /// Its name.
    pub name: ObjectName,
    /// What it is.
    pub kind: Kind,
    /// Part of the name's key.
    pub salt: Salt,
    /// The bytes; a chunk's without the zeros at its end.
    pub body: Bytes,
}

/// What comes next in a stream of records.
#[derive(Clone, Debug)]
pub enum Wire {
    /// An object, not proven.
    Present(Record),
    /// The peer does not have it.
    Absent(ObjectName),
}

impl RecordHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 80;

    /// The answer "not here".
    pub const fn absent(name: ObjectName) -> RecordHeader {
        RecordHeader { name, body: None }
    }

    /// Bytes that follow the header: at most [`Kind::bytes_max`].
    pub fn stored_len(&self) -> usize {
        self.body.map_or(0, |b| to_usize(u64::from(b.stored_len)))
    }

    /// As bytes.
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

    /// From the front of `bytes`; refuses whatever no release writes, so that nothing is allocated for a lie.
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
            let lengths = [u64::from(encoding), chunk_log2.into(), body_len.into(), stored_len.into()];
            let rest = lengths.into_iter().chain([stored_crc.into(), round]).chain(salt.0.map(u64::from));
            return match rest.into_iter().find(|n| *n != 0) {
                None => Ok(RecordHeader::absent(name)),
                Some(n) => Err(r.field("field of an absent object", n)),
            };
        }
        let kind =
            Kind::from_byte(kind).ok_or(Corrupt::Unsupported { what: WHAT, feature: "kind", got: kind.into() })?;
        let encoding = match encoding {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            n => return Err(Corrupt::Unsupported { what: WHAT, feature: "encoding", got: n.into() }),
        };
        let chunk = match (kind, chunk_log2) {
            (Kind::Chunk, n) => Some(ChunkSize::from_log2(n).ok_or_else(|| r.field("chunk size", n))?),
            (_, 0) => None,
            (_, n) => return Err(r.field("padded size of this kind", n)),
        };
        let body_max = chunk.map_or(u64::from(kind.bytes_max()), ChunkSize::bytes);
        if body_len == 0 || u64::from(body_len) > body_max {
            return Err(r.field("length of this kind", body_len));
        }
        let fits = match encoding {
            Encoding::Raw => stored_len == body_len,
            Encoding::Zstd => stored_len != 0 && stored_len < body_len,
        };
        if !fits {
            return Err(r.field("stored length of this encoding", stored_len));
        }
        let body = RecordBody { kind, chunk, salt, encoding, body_len, stored_len, round, stored_crc };
        Ok(RecordHeader { name, body: Some(body) })
    }
}

impl Record {
    /// Most bytes of a record on the wire or in a segment, header included.
    pub const BYTES_MAX: usize = RecordHeader::BYTES + (4 << 20);

    /// Names, trims and encodes an object; the result is proven. `chunk` is given for chunks and only for them.
    ///
    /// # Panics
    /// When the object is empty or all zeros (absence says that: check with [`crate::zero::is_zero`]), larger than
    /// its kind allows, or when `chunk` and `kind` disagree.
    pub fn encode(kind: Kind, salt: Salt, chunk: Option<ChunkSize>, body: &[u8], compression: Compression) -> Record {
        let body = trimmed(kind, chunk, body);
        match compressed(body, compression) {
            Some(stored) => Record::assemble(kind, salt, chunk, body, Encoding::Zstd, stored.into()),
            None => Record::assemble(kind, salt, chunk, body, Encoding::Raw, Bytes::copy_from_slice(body)),
        }
    }

    /// [`Record::encode`] that keeps the given bytes instead of copying them where they are stored as they are.
    ///
    /// # Panics
    /// As [`Record::encode`].
    pub fn encode_bytes(
        kind: Kind,
        salt: Salt,
        chunk: Option<ChunkSize>,
        body: &Bytes,
        compression: Compression,
    ) -> Record {
        let short = trimmed(kind, chunk, body);
        match compressed(short, compression) {
            Some(stored) => Record::assemble(kind, salt, chunk, short, Encoding::Zstd, stored.into()),
            None => Record::assemble(kind, salt, chunk, short, Encoding::Raw, body.slice(..short.len())),
        }
    }

    fn assemble(
        kind: Kind,
        salt: Salt,
        chunk: Option<ChunkSize>,
        body: &[u8],
        encoding: Encoding,
        stored: Bytes,
    ) -> Record {
        let name = match chunk {
            Some(size) => ObjectName::of_chunk(salt, size, body),
            None => ObjectName::of(kind, salt, body),
        };
        let len = |n: usize| u32::try_from(n).expect("trimmed() refused what is above bytes_max");
        let (body_len, stored_len) = (len(body.len()), len(stored.len()));
        let stored_crc = crc32c::crc32c(&stored);
        let body = RecordBody { kind, chunk, salt, encoding, body_len, stored_len, round: 0, stored_crc };
        Record { name, body, stored, proven: true }
    }

    /// A header and the bytes that followed it. Not proven; [`Record::verify`] and [`Record::prove`] hash it.
    pub fn from_parts(header: RecordHeader, stored: Bytes) -> Result<Record, Corrupt> {
        let needed = header.stored_len() as u64;
        match (header.body, stored.len() as u64) {
            (None, _) => Err(Corrupt::Field { what: "record", field: "kind of an object", got: 0 }),
            (Some(_), got) if got < needed => Err(Corrupt::Short { what: "record", needed, got }),
            (Some(_), got) if got > needed => Err(Corrupt::Trailing { what: "record", bytes: got - needed }),
            (Some(body), _) => Ok(Record { name: header.name, body, stored, proven: false }),
        }
    }

    /// One whole record.
    pub fn decode(bytes: &Bytes) -> Result<Record, Corrupt> {
        let header = RecordHeader::decode(bytes)?;
        Record::from_parts(header, bytes.slice(RecordHeader::BYTES..))
    }

    /// Takes the next record from the front of a stream that is wholly in memory, sharing its bytes. None at its end.
    pub fn take(stream: &mut Bytes) -> Result<Option<Wire>, Corrupt> {
        if stream.is_empty() {
            return Ok(None);
        }
        let header = RecordHeader::decode(stream)?;
        let whole = RecordHeader::BYTES + header.stored_len();
        if stream.len() < whole {
            return Err(Corrupt::Short { what: "record", needed: whole as u64, got: stream.len() as u64 });
        }
        let stored = stream.split_to(whole).slice(RecordHeader::BYTES..);
        Ok(Some(match header.body {
            None => Wire::Absent(header.name),
            Some(_) => Wire::Present(Record::from_parts(header, stored)?),
        }))
    }

    /// Its name.
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.body.kind
    }

    /// The header.
    pub fn header(&self) -> RecordHeader {
        RecordHeader { name: self.name, body: Some(self.body) }
    }

    /// What the header says about the stored bytes.
    pub fn body(&self) -> &RecordBody {
        &self.body
    }

    /// The bytes after the header.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Bytes of the whole record.
    pub fn wire_len(&self) -> usize {
        RecordHeader::BYTES + self.stored.len()
    }

    /// The record with this round in its header; the store does this.
    #[must_use]
    pub fn with_round(mut self, round: u64) -> Record {
        self.body.round = round;
        self
    }

    /// The whole record as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.wire_len());
        out.extend(self.header().encode());
        out.extend_from_slice(&self.stored);
        out
    }

    /// Whether this process has hashed these very bytes.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Decodes the object and checks it against its name. Hashes unless the record is proven.
    pub fn verify(&self) -> Result<VerifiedObject, Corrupt> {
        let body = match self.body.encoding {
            Encoding::Raw => self.stored.clone(),
            Encoding::Zstd => Bytes::from(self.decompress()?),
        };
        if !self.proven {
            let got = match self.body.chunk {
                Some(size) => ObjectName::of_chunk(self.body.salt, size, &body),
                None => ObjectName::of(self.body.kind, self.body.salt, &body),
            };
            if got != self.name {
                return Err(Corrupt::Name { expected: self.name, got });
            }
        }
        Ok(VerifiedObject { name: self.name, kind: self.body.kind, salt: self.body.salt, body })
    }

    /// [`Record::verify`], remembered by the record.
    pub fn prove(mut self) -> Result<Record, Corrupt> {
        if !self.proven {
            self.verify()?;
            self.proven = true;
        }
        Ok(self)
    }

    fn decompress(&self) -> Result<Vec<u8>, Corrupt> {
        let len = to_usize(u64::from(self.body.body_len));
        let bad = Corrupt::Encoding { name: self.name };
        // The header bounds the buffer (4 MiB); a frame that claims more fails instead of growing it.
        match zstd::bulk::decompress(&self.stored, len) {
            Ok(body) if body.len() == len => Ok(body),
            Ok(_) | Err(_) => Err(bad),
        }
    }
}

fn trimmed(kind: Kind, chunk: Option<ChunkSize>, body: &[u8]) -> &[u8] {
    assert_eq!(kind == Kind::Chunk, chunk.is_some(), "a chunk size is given for chunks and only for them");
    let body = if chunk.is_some() { trim_zeros(body) } else { body };
    assert!(!body.is_empty(), "zeros are absent, never an object");
    let max = chunk.map_or(u64::from(kind.bytes_max()), ChunkSize::bytes);
    assert!(body.len() as u64 <= max, "{} bytes in a {kind:?} of at most {max}", body.len());
    body
}

/// The body in fewer bytes, if that saves a tenth.
fn compressed(body: &[u8], compression: Compression) -> Option<Vec<u8>> {
    thread_local! {
        // A compressor's tables are some 200 KiB: made once per thread, not once per chunk.
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    let pays = |from: usize, to: usize| to < from - from / 10;
    if compression == Compression::Off || body.len() < 64 || looks_random(body) {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let compressor = slot.as_mut()?;
        let out = compressor.compress(body).ok()?;
        pays(body.len(), out.len()).then_some(out)
    })
}

/// Whether the bytes of some samples are so evenly spread that nothing can be saved: random, encrypted or compressed
/// already. Counting costs a hundredth of trying, and much data on disks is like that.
fn looks_random(body: &[u8]) -> bool {
    let samples = PROBES * PROBE_BYTES;
    if body.len() < 2 * samples {
        return false;
    }
    let mut counts = [0u64; 256];
    for sample in body.chunks(body.len() / PROBES).filter_map(|part| part.get(..PROBE_BYTES)) {
        for byte in sample {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    // Chi squared of even bytes is 255 on average, 23 being its deviation. Where a tenth can be saved by the
    // frequency of bytes alone, it is in the thousands.
    let squares: u64 = counts.iter().map(|n| n * n).sum();
    let chi_squared = (squares * 256 / samples as u64).saturating_sub(samples as u64);
    chi_squared < 768
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_was_encoded_verifies_after_the_wire() {
        let text = b"the same line again and again\n".repeat(3000);
        for (body, encoding) in
            [(noise(200_000), Encoding::Raw), (text, Encoding::Zstd), (b"x".to_vec(), Encoding::Raw)]
        {
            let record = Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &body, Compression::Auto);
            assert_eq!(record.body().encoding, encoding);
            assert!(record.is_proven());
            let mut wire = Bytes::from(record.with_round(7).to_bytes());
            let Some(Wire::Present(back)) = Record::take(&mut wire).expect("decodes") else { panic!("present") };
            assert!(wire.is_empty() && !back.is_proven());
            assert_eq!(back.body().round, 7);
            let object = back.verify().expect("verifies");
            assert_eq!(object.body, body);
            assert_eq!(object.name, ObjectName::of_chunk(Salt::SHARED, ChunkSize::DEFAULT, &body));
        }
    }

    #[test]
    fn a_chunk_is_stored_without_the_zeros_at_its_end() {
        let mut padded = noise(5000);
        padded.resize(262_144, 0);
        let record = Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &padded, Compression::Off);
        assert_eq!(record.stored().len(), 5000);
        let shared = Bytes::from(padded);
        let same = Record::encode_bytes(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &shared, Compression::Off);
        assert_eq!(same.name(), record.name());
        assert_eq!(same.stored().as_ptr(), shared.as_ptr());
    }

    #[test]
    fn changed_bytes_do_not_verify() {
        let record = Record::encode(Kind::Page, Salt::SHARED, None, &noise(300), Compression::Off);
        let mut bytes = record.to_bytes();
        *bytes.last_mut().expect("not empty") ^= 1;
        let changed = Record::decode(&Bytes::from(bytes)).expect("the header is whole");
        assert!(matches!(changed.verify(), Err(Corrupt::Name { expected, .. }) if expected == record.name()));
        assert!(changed.prove().is_err());
    }

    #[test]
    fn absent_is_a_header_alone() {
        let name = ObjectName::from_bytes([9; 32]);
        let mut wire = Bytes::from(RecordHeader::absent(name).encode().to_vec());
        assert!(matches!(Record::take(&mut wire), Ok(Some(Wire::Absent(n))) if n == name));
        assert!(matches!(Record::take(&mut wire), Ok(None)));
    }

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
