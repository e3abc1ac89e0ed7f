//! Decodes the body of an upload (`Content-Encoding`).
//!
//! zstd is for senders of sparse files: long runs of zeros cost a few bytes in every zstd frame. Decoding needs bounded
//! memory whatever the sender does: it makes one piece at a time, only when the next step takes it, and refuses frames
//! with a window over [`WINDOW_LOG_MAX`].

use bytes::{Buf as _, Bytes};
use zstd::zstd_safe::{
    DCtx, DParameter, InBuffer, OutBuffer, get_error_name, get_frame_content_size,
    zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as WINDOW_TOO_LARGE,
};

/// log2 of the largest window: 8 MiB. RFC 8878 (3.1.1.1.2) recommends that decoders support it, and encoders exceed it
/// only when told to.
const WINDOW_LOG_MAX: u32 = 23;
/// Size of a piece of decoded content. Making one takes some 100 us of a processor.
const PIECE_BYTES: usize = 64 << 10;

/// The encodings a body may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The content as it is, without an encoding.
    #[default]
    Identity,
    /// One or more zstd frames, one after the other (RFC 8878).
    Zstd,
}

impl std::str::FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "identity" => Ok(Self::Identity),
            "zstd" => Ok(Self::Zstd),
            _ => Err(UnknownEncoding(text.to_owned())),
        }
    }
}

/// A text that names no encoding a body may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the Content-Encoding 'zstd' or 'identity', or none, got '{0}'")]
pub struct UnknownEncoding(String);

/// Why a body could not be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// A frame asks for more memory than [`WINDOW_LOG_MAX`] allows.
    #[error("a zstd frame in it needs a window of more than 8 MiB: compress it again with a smaller one")]
    WindowTooLarge,
    /// It is not zstd data, or is damaged.
    #[error("its zstd data is bad after {content_bytes} bytes of content: {said}")]
    BadZstd {
        /// Bytes of content decoded before the error.
        content_bytes: u64,
        /// Error message of the zstd library.
        said: &'static str,
    },
}

/// Decodes zstd frames piece by piece, so it never holds the whole content.
pub(super) struct Decoder {
    context: DCtx<'static>,
    encoded: Bytes,
    /// Whether the decoder may hold content that did not fit into the last piece.
    more: bool,
    /// Whether a frame has begun and not ended yet.
    in_frame: bool,
    content_bytes: u64,
    promised: Option<u64>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        let mut context = DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).expect("23 is between 10 and 31");
        Self { context, encoded: Bytes::new(), more: false, in_frame: false, content_bytes: 0, promised: None }
    }

    /// Whether all bytes given so far were decoded, so that [`Self::decode`] needs more.
    pub(super) fn is_hungry(&self) -> bool {
        self.encoded.is_empty() && !self.more
    }

    /// Whether the body may end here.
    pub(super) fn is_at_end_of_frame(&self) -> bool {
        !self.in_frame
    }

    /// Length of the first frame's content in bytes, if its header says so. The content is at least this long.
    pub(super) fn promised(&self) -> Option<u64> {
        self.promised
    }

    /// Gives the next bytes of the body to a decoder that [`Self::is_hungry`].
    pub(super) fn feed(&mut self, encoded: Bytes) {
        assert!(self.is_hungry(), "bytes of the body would be lost");
        if self.content_bytes == 0 && !self.in_frame {
            self.promised = get_frame_content_size(&encoded).ok().flatten();
        }
        self.encoded = encoded;
    }

    /// An empty buffer for the next piece of content.
    pub(super) fn piece() -> Vec<u8> {
        Vec::with_capacity(PIECE_BYTES)
    }

    /// Appends decoded content to `piece`, up to its capacity. After an error the decoder cannot be used any more.
    pub(super) fn decode(&mut self, piece: &mut Vec<u8>) -> Result<(), EncodingError> {
        let before = piece.len();
        let (mut from, mut to) = (InBuffer::around(&self.encoded), OutBuffer::around_pos(piece, before));
        let hint = self.context.decompress_stream(&mut to, &mut from).map_err(|code| {
            // The library returns an error as a negative number in a usize.
            if code.wrapping_neg() == WINDOW_TOO_LARGE as usize {
                return EncodingError::WindowTooLarge;
            }
            EncodingError::BadZstd { content_bytes: self.content_bytes, said: get_error_name(code) }
        })?;
        let (taken, full) = (from.pos(), to.pos() == to.capacity());
        self.in_frame = hint != 0;
        self.more = self.in_frame && full;
        self.encoded.advance(taken);
        self.content_bytes += (piece.len() - before) as u64;
        Ok(())
    }
}
