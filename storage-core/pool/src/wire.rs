//! How objects travel: lists of names and streams of records (`storage-core/FORMAT.md`), read with limits.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use storage_core::{
    Corrupt, ObjectName,
    record::{Record, RecordHeader, Wire},
};

/// Why a list of names or a stream of records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke, or the sender gave up.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// The stream ended within a record.
    #[error("the stream ended {missing} bytes early")]
    Short {
        /// Number of bytes still expected.
        missing: usize,
    },
    /// The bytes are not a record.
    #[error(transparent)]
    Record(#[from] Corrupt),
    /// There are more names than the limit allows.
    #[error("a list of names of {got} is over the limit of {limit}")]
    TooManyNames {
        /// How many names there are.
        got: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The length of a list of names is not a multiple of 32 bytes.
    #[error("{0} bytes are not a list of names of {bytes} bytes", bytes = ObjectName::BYTES)]
    Names(usize),
    /// The length of a list of names with stamps is not a multiple of 40 bytes.
    #[error("{0} bytes are not a list of names with stamps of {bytes} bytes", bytes = Stamped::BYTES)]
    Stamped(usize),
    /// The answer about stamps does not fit the question.
    #[error("{got} bytes are not the stamps of {count} objects")]
    Stamps {
        /// Length of the answer, bytes.
        got: usize,
        /// Number of objects that were asked about.
        count: usize,
    },
}

/// A list of names as bytes, one after the other.
#[must_use]
pub fn encode_names(names: impl IntoIterator<Item = ObjectName>) -> Bytes {
    let mut out = BytesMut::new();
    for name in names {
        out.extend_from_slice(name.as_bytes());
    }
    out.freeze()
}

/// What a node says of an object that it was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does not have it.
    Absent,
    /// It has it, with this stamp.
    Here(u64),
    /// It should have it, and gave its copy up because the repository has the object.
    Evicted,
}

/// What a node has of the objects that it was asked about, a number for each. Stamps are far below 2^64 - 2: they count rounds
/// of the sweep.
#[must_use]
pub fn encode_held(held: &[Held]) -> Bytes {
    let number = |held: &Held| match held {
        Held::Absent => 0,
        Held::Here(stamp) => stamp.saturating_add(1).min(u64::MAX - 1),
        Held::Evicted => u64::MAX,
    };
    held.iter().flat_map(|held| number(held).to_le_bytes()).collect()
}

/// Reads the answer about `count` objects.
///
/// # Errors
/// When it has another length.
pub fn decode_held(body: &[u8], count: usize) -> Result<Vec<Held>, WireError> {
    let (numbers, rest) = body.as_chunks::<8>();
    if numbers.len() != count || !rest.is_empty() {
        return Err(WireError::Stamps { got: body.len(), count });
    }
    let held = |bytes: &[u8; 8]| match u64::from_le_bytes(*bytes) {
        u64::MAX => Held::Evicted,
        number => number.checked_sub(1).map_or(Held::Absent, Held::Here),
    };
    Ok(numbers.iter().map(held).collect())
}

/// The name of an object with a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Name of the object.
    pub name: ObjectName,
    /// Its stamp.
    pub stamp: u64,
}

impl Stamped {
    /// Bytes that it takes in a list.
    pub const BYTES: usize = ObjectName::BYTES + 8;
}

/// A list of names with stamps as bytes, one after the other.
#[must_use]
pub fn encode_stamped(objects: impl IntoIterator<Item = Stamped>) -> Bytes {
    let mut out = BytesMut::new();
    for object in objects {
        out.extend_from_slice(object.name.as_bytes());
        out.extend_from_slice(&object.stamp.to_le_bytes());
    }
    out.freeze()
}

/// Reads a list of at most `limit` names with stamps.
///
/// # Errors
/// When there are more, or the last one is not whole.
pub fn decode_stamped(body: &[u8], limit: usize) -> Result<Vec<Stamped>, WireError> {
    let (objects, rest) = body.as_chunks::<{ Stamped::BYTES }>();
    if !rest.is_empty() {
        return Err(WireError::Stamped(body.len()));
    }
    if objects.len() > limit {
        return Err(WireError::TooManyNames { got: objects.len(), limit });
    }
    let read = |bytes: &[u8; Stamped::BYTES]| {
        let (name, stamp) = bytes.split_first_chunk::<{ ObjectName::BYTES }>().expect("it is longer");
        let stamp = u64::from_le_bytes(stamp.try_into().expect("8 bytes are left"));
        Stamped { name: ObjectName::from_bytes(*name), stamp }
    };
    Ok(objects.iter().map(read).collect())
}

/// Reads a list of at most `limit` names.
///
/// # Errors
/// When there are more names, or the last one is not whole.
pub fn decode_names(body: &[u8], limit: usize) -> Result<Vec<ObjectName>, WireError> {
    let (names, rest) = body.as_chunks::<{ ObjectName::BYTES }>();
    if !rest.is_empty() {
        return Err(WireError::Names(body.len()));
    }
    if names.len() > limit {
        return Err(WireError::TooManyNames { got: names.len(), limit });
    }
    Ok(names.iter().map(|name| ObjectName::from_bytes(*name)).collect())
}

/// Cuts a stream of bytes into records. Holds at most one record and one piece of the stream in memory.
pub struct RecordReader<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S, E> RecordReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    /// Reads the body of a request or an answer.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next record, not verified yet. None at the end of the stream.
    ///
    /// # Errors
    /// When the stream breaks, ends early or is not made of records. Nothing after that can be read.
    pub async fn next(&mut self) -> Result<Option<Wire>, WireError> {
        if !self.fill(RecordHeader::BYTES).await? {
            return match self.buffer.len() {
                0 => Ok(None),
                got => Err(WireError::Short { missing: RecordHeader::BYTES - got }),
            };
        }
        // Decoding refuses lengths over the kind's limit, so a wrong length does not make the buffer grow.
        let header = RecordHeader::decode(&self.buffer)?;
        self.buffer.advance(RecordHeader::BYTES);
        if header.body.is_none() {
            return Ok(Some(Wire::Absent(header.name)));
        }
        let stored = header.stored_len();
        if !self.fill(stored).await? {
            return Err(WireError::Short { missing: stored - self.buffer.len() });
        }
        let stored = self.buffer.split_to(stored).freeze();
        Ok(Some(Wire::Present(Record::from_parts(header, stored)?)))
    }

    /// Reads until at least `wanted` bytes are in the buffer. False: the stream ended before.
    async fn fill(&mut self, wanted: usize) -> Result<bool, WireError> {
        while self.buffer.len() < wanted {
            match self.stream.next().await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(error)) => return Err(WireError::Broken(error.to_string())),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};
    use storage_core::{
        Compression, Kind, Salt,
        fuzz::{CountingAllocator, Fuzz},
    };

    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    fn records() -> Vec<u8> {
        let text = b"the same line, again and again\n".repeat(30);
        let packed = Record::encode(Kind::Pack, Salt::SHARED, None, &text, Compression::Auto);
        let plain = Record::encode(Kind::Page, Salt::SHARED, None, b"some bytes", Compression::Off);
        let absent = RecordHeader::absent(ObjectName::from_bytes([7; 32])).encode();
        [packed.to_bytes().as_slice(), &absent, &plain.to_bytes()].concat()
    }

    /// Seals the headers of the records, as far as one follows the other.
    fn reseal(bytes: &mut [u8]) {
        let mut at = 1;
        while let Some(header) = bytes.get_mut(at..at + RecordHeader::BYTES) {
            header[..4].copy_from_slice(b"MSR1");
            let crc = crc32c::crc32c(&header[..RecordHeader::BYTES - 4]);
            header[RecordHeader::BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            let Ok(header) = RecordHeader::decode(header) else { return };
            at += RecordHeader::BYTES + header.stored_len();
        }
    }

    /// The records of a stream that comes in pieces of this many bytes, as bytes again.
    fn read(body: &[u8], piece_bytes: usize) -> (Vec<u8>, Result<(), WireError>) {
        let pieces = body.chunks(piece_bytes).map(|piece| Ok::<_, WireError>(Bytes::copy_from_slice(piece)));
        let mut reader = RecordReader::new(stream::iter(pieces));
        let mut read = Vec::new();
        loop {
            match reader.next().now_or_never().expect("nothing in the stream waits") {
                Ok(Some(Wire::Present(record))) => read.extend(record.to_bytes()),
                Ok(Some(Wire::Absent(name))) => read.extend(RecordHeader::absent(name).encode()),
                Ok(None) => return (read, Ok(())),
                Err(error) => return (read, Err(error)),
            }
        }
    }

    /// The first byte of an input is the length of the pieces that the stream comes in.
    #[test]
    fn fuzz_record_reader() {
        let seeds = [1, 64, 255].map(|piece| [&[piece][..], &records()].concat());
        Fuzz::new(seeds).reseal(reseal).run(|bytes| {
            let Some((piece, body)) = bytes.split_first() else { return Ok(()) };
            let (in_pieces, ended) = read(body, usize::from(*piece).max(1));
            let (at_once, ended_at_once) = read(body, body.len().max(1));
            assert_eq!((&in_pieces, ended.is_ok()), (&at_once, ended_at_once.is_ok()), "pieces do not matter");
            assert_eq!(body.get(..in_pieces.len()), Some(in_pieces.as_slice()), "records have one form");
            ended
        });
    }

    #[test]
    fn what_a_node_has_travels_and_another_length_is_refused() {
        let held = [Held::Absent, Held::Here(0), Held::Here(7), Held::Evicted];
        let body = encode_held(&held);
        assert_eq!(decode_held(&body, 4).expect("fits"), held);
        assert!(matches!(decode_held(&body, 3), Err(WireError::Stamps { got: 32, count: 3 })));
        assert!(matches!(decode_held(&body[..31], 4), Err(WireError::Stamps { got: 31, count: 4 })));
        // A bug elsewhere must not turn an object that is there into one that is not.
        let absurd = encode_held(&[Held::Here(u64::MAX)]);
        assert!(matches!(decode_held(&absurd, 1).expect("fits")[..], [Held::Here(_)]));
    }

    #[test]
    fn fuzz_names() {
        let names = encode_names([1, 2, 3].map(|byte| ObjectName::from_bytes([byte; 32])));
        Fuzz::new([names.to_vec()]).run(|bytes| {
            let names = decode_names(bytes, 5)?;
            assert!(names.len() <= 5);
            assert_eq!(encode_names(names), bytes);
            Ok::<(), WireError>(())
        });
    }
}
