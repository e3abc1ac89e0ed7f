//! One object as it lies on a disk and travels between nodes: a header of [`RecordHeader::BYTES`] bytes and the stored
//! bytes, which are the canonical ones or a compressed form of them. `FORMAT.md` has the table.
//!
//! A [`Record`] is *proven* when this process has hashed its bytes. Records that this process encoded are proven;
//! those it decoded are not until [`Record::prove`]. A store hashes records that are not proven before it takes them
//! (I4).

mod compress;
mod header;

use bytes::Bytes;

use crate::{ChunkSize, Corrupt, Kind, ObjectName, Salt, units::usize_from, zero::trim_zeros};
pub use compress::Compression;
pub use header::{Encoding, RecordBody, RecordHeader};

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
    /// Name of the object, which its bytes were checked against.
    pub name: ObjectName,
    /// Kind of the object.
    pub kind: Kind,
    /// Part of the name's key.
    pub salt: Salt,
    /// The canonical bytes; a chunk's without the zeros at its end.
    pub body: Bytes,
}

/// What comes next in a stream of records.
#[derive(Clone, Debug)]
pub enum Wire {
    /// A record of an object. That its bytes fit its name is not proven yet.
    Present(Record),
    /// The sender does not have this object.
    Absent(ObjectName),
}

impl Record {
    /// Most bytes of a record on the wire or in a segment, header included.
    pub const BYTES_MAX: usize = RecordHeader::BYTES + (4 << 20);

    /// Names, trims and encodes an object. The result is proven. `chunk` is given for chunks and only for them.
    ///
    /// # Panics
    /// When the object is empty or all zeros, which is never stored (check with [`crate::zero::is_zero`]); when it is
    /// larger than its kind allows; or when `chunk` and `kind` disagree.
    pub fn encode(kind: Kind, salt: Salt, chunk: Option<ChunkSize>, body: &[u8], compression: Compression) -> Record {
        let body = trimmed(kind, chunk, body);
        Record::encode_bytes(kind, salt, chunk, &Bytes::copy_from_slice(body), compression)
    }

    /// Like [`Record::encode`], but keeps the given bytes instead of a copy where they are stored as they are.
    ///
    /// # Panics
    /// Like [`Record::encode`].
    pub fn encode_bytes(
        kind: Kind,
        salt: Salt,
        chunk: Option<ChunkSize>,
        body: &Bytes,
        compression: Compression,
    ) -> Record {
        let body = body.slice_ref(trimmed(kind, chunk, body));
        let (encoding, stored) = match compression.compress(&body) {
            Some(stored) => (Encoding::Zstd, stored.into()),
            None => (Encoding::Raw, body.clone()),
        };
        let name = name_of(kind, chunk, salt, &body);
        let len = |n: usize| u32::try_from(n).expect("trimmed() refused what is above bytes_max");
        let (body_len, stored_len) = (len(body.len()), len(stored.len()));
        let stored_crc = crc32c::crc32c(&stored);
        let body = RecordBody { kind, chunk, salt, encoding, body_len, stored_len, round: 0, stored_crc };
        Record { name, body, stored, proven: true }
    }

    /// From a header and the bytes that followed it. Not proven; [`Record::verify`] and [`Record::prove`] hash it.
    ///
    /// # Errors
    /// When the header is that of an absent object, or its length is not that of the bytes.
    pub fn from_parts(header: RecordHeader, stored: Bytes) -> Result<Record, Corrupt> {
        let needed = header.stored_len() as u64;
        match (header.body, stored.len() as u64) {
            (None, _) => Err(Corrupt::Field { what: "record", field: "kind", got: 0 }),
            (Some(_), got) if got < needed => Err(Corrupt::Short { what: "record", needed, got }),
            (Some(_), got) if got > needed => Err(Corrupt::Trailing { what: "record", bytes: got - needed }),
            (Some(body), _) => Ok(Record { name: header.name, body, stored, proven: false }),
        }
    }

    /// From the bytes of one whole record. Not proven.
    ///
    /// # Errors
    /// When the header cannot be read or its length is not that of the bytes after it.
    pub fn decode(bytes: &Bytes) -> Result<Record, Corrupt> {
        let header = RecordHeader::decode(bytes)?;
        Record::from_parts(header, bytes.slice(RecordHeader::BYTES..))
    }

    /// Takes the next record from the front of a stream that is wholly in memory. The record shares the stream's
    /// bytes. None at the end.
    ///
    /// # Errors
    /// When the stream goes on with something else than a record, or ends within one.
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

    /// Name that the sender gives to the object. [`Record::verify`] proves it.
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// Kind of the object, as the header says.
    pub fn kind(&self) -> Kind {
        self.body.kind
    }

    /// The header that goes before the stored bytes.
    pub fn header(&self) -> RecordHeader {
        RecordHeader { name: self.name, body: Some(self.body) }
    }

    /// The record's header with another round in it.
    pub(crate) fn header_in_round(&self, round: u64) -> RecordHeader {
        RecordHeader { name: self.name, body: Some(RecordBody { round, ..self.body }) }
    }

    /// What the header says about the stored bytes.
    pub fn body(&self) -> &RecordBody {
        &self.body
    }

    /// The bytes after the header.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Length of the whole record in bytes.
    pub fn wire_len(&self) -> usize {
        RecordHeader::BYTES + self.stored.len()
    }

    /// The record with this round in its header. Stores set it.
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

    /// Whether this process has hashed the record's bytes.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Decodes the object and checks it against its name. Hashes unless the record is proven.
    ///
    /// # Errors
    /// When the stored bytes do not decode, or decode to an object with another name.
    pub fn verify(&self) -> Result<VerifiedObject, Corrupt> {
        let body = match self.body.encoding {
            Encoding::Raw => self.stored.clone(),
            Encoding::Zstd => Bytes::from(self.decompress()?),
        };
        if !self.proven {
            let got = name_of(self.body.kind, self.body.chunk, self.body.salt, &body);
            if got != self.name {
                return Err(Corrupt::Name { expected: self.name, got });
            }
        }
        Ok(VerifiedObject { name: self.name, kind: self.body.kind, salt: self.body.salt, body })
    }

    /// Like [`Record::verify`], but the record is proven from then on. So is its checksum, which a store relies on later.
    ///
    /// # Errors
    /// Like [`Record::verify`], and when the header has the checksum of other bytes.
    pub fn prove(mut self) -> Result<Record, Corrupt> {
        if !self.proven {
            self.verify()?;
            self.check_stored()?;
            self.proven = true;
        }
        Ok(self)
    }

    /// Compares the stored bytes with the header's checksum. That finds bytes that changed since they were stored, at a
    /// fraction of what [`Record::verify`] costs. It does not prove that they are the object.
    pub(crate) fn check_stored(&self) -> Result<(), Corrupt> {
        let (expected, got) = (crc32c::crc32c(&self.stored), self.body.stored_crc);
        if expected == got { Ok(()) } else { Err(Corrupt::Checksum { what: "record", expected, got }) }
    }

    fn decompress(&self) -> Result<Vec<u8>, Corrupt> {
        let len = usize_from(u64::from(self.body.body_len));
        // The header limits the buffer to 4 MiB. A frame that needs more fails.
        match zstd::bulk::decompress(&self.stored, len) {
            Ok(body) if body.len() == len => Ok(body),
            Ok(_) | Err(_) => Err(Corrupt::Encoding { name: self.name }),
        }
    }
}

fn name_of(kind: Kind, chunk: Option<ChunkSize>, salt: Salt, body: &[u8]) -> ObjectName {
    match chunk {
        Some(size) => ObjectName::of_chunk(salt, size, body),
        None => ObjectName::of(kind, salt, body),
    }
}

fn trimmed(kind: Kind, chunk: Option<ChunkSize>, body: &[u8]) -> &[u8] {
    assert_eq!(kind == Kind::Chunk, chunk.is_some(), "a chunk size is given for chunks and only for them");
    let body = if chunk.is_some() { trim_zeros(body) } else { body };
    assert!(!body.is_empty(), "zeros are never stored as an object");
    let max = chunk.map_or(u64::from(kind.bytes_max()), ChunkSize::bytes);
    assert!(body.len() as u64 <= max, "{} bytes in a {kind:?} of at most {max}", body.len());
    body
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
}
