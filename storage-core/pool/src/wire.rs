//! How objects travel: names back to back, records back to back (`storage-core/FORMAT.md`), read with bounds.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use storage_core::{
    Corrupt, ObjectName,
    record::{Record, RecordHeader, Wire},
};

/// Bytes of a name.
pub const NAME_BYTES: usize = 32;

/// What can be wrong with a stream of names or records.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke, or the sender gave up.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// It ended in the middle of something.
    #[error("the stream ended {missing} bytes early")]
    Short {
        /// What was still expected.
        missing: usize,
    },
    /// Bytes that are not a record.
    #[error(transparent)]
    Record(#[from] Corrupt),
    /// More than the limit.
    #[error("{what} of {got} is over the limit of {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much.
        got: usize,
        /// At most.
        limit: usize,
    },
    /// Names come in multiples of 32 bytes.
    #[error("{0} bytes are not a list of names of {NAME_BYTES} bytes")]
    Names(usize),
}

/// Names as they travel.
#[must_use]
pub fn encode_names(names: impl IntoIterator<Item = ObjectName>) -> Bytes {
    let mut out = BytesMut::new();
    for name in names {
        out.extend_from_slice(name.as_bytes());
    }
    out.freeze()
}

/// Reads a list of at most `limit` names.
///
/// # Errors
/// When there are more, or a part of one.
pub fn decode_names(body: &[u8], limit: usize) -> Result<Vec<ObjectName>, WireError> {
    let (names, rest) = body.as_chunks::<NAME_BYTES>();
    if !rest.is_empty() {
        return Err(WireError::Names(body.len()));
    }
    if names.len() > limit {
        return Err(WireError::TooLarge { what: "a list of names", got: names.len(), limit });
    }
    Ok(names.iter().map(|name| ObjectName::from_bytes(*name)).collect())
}

/// Cuts a stream of bytes into records. Holds one record and one piece of the stream at a time.
pub struct RecordReader<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S, E> RecordReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    /// Over the body of a request or an answer.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next record, not verified yet; none at the end of the stream.
    ///
    /// # Errors
    /// When the stream breaks, ends early or is not made of records; nothing after that can be read.
    pub async fn next(&mut self) -> Result<Option<Wire>, WireError> {
        if !self.fill(RecordHeader::BYTES).await? {
            return match self.buffer.len() {
                0 => Ok(None),
                got => Err(WireError::Short { missing: RecordHeader::BYTES - got }),
            };
        }
        // Decoding refuses lengths over the kind's limit, so the buffer never grows for a lie.
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

    /// Whether at least `wanted` bytes are in the buffer now; false at the end of the stream.
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
