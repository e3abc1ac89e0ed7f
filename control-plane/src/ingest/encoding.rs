//! How a body is encoded on its way here (`Content-Encoding`), and its way back to the content.
//!
//! zstd is for senders of sparse files: zeros cost a few bytes in a frame of any make. What is decoded is as bounded as
//! what would be sent plainly: a piece at a time, only as fast as it is taken, with a window that [`WINDOW_LOG_MAX`]
//! bounds.

use bytes::{Buf as _, Bytes};
use zstd::zstd_safe::{
    DCtx, DParameter, InBuffer, OutBuffer, get_error_name, get_frame_content_size,
    zstd_sys::ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as WINDOW_TOO_LARGE,
};

/// 8 MiB: what RFC 8878 (3.1.1.1.2) recommends decoders to support, and no encoder needs more unless told to.
const WINDOW_LOG_MAX: u32 = 23;
/// Content is made in pieces of this size: some 100 us of a processor.
const PIECE_BYTES: usize = 64 << 10;

/// The encodings a body may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// The content itself.
    #[default]
    Identity,
    /// Frames of zstd, one after the other (RFC 8878).
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

/// Not an encoding that a body may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the Content-Encoding 'zstd' or 'identity', or none, got '{0}'")]
pub struct UnknownEncoding(String);

/// Why a body could not be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Memory of the sender's choice.
    #[error("a zstd frame in it needs a window of more than 8 MiB: compress it again with a smaller one")]
    WindowTooLarge,
    /// Not what zstd makes.
    #[error("its zstd data is bad after {content_bytes} bytes of content: {said}")]
    BadZstd {
        /// Decoded until then.
        content_bytes: u64,
        /// The decoder's word.
        said: &'static str,
    },
}

/// Decodes frames of zstd.
pub(super) struct Decoder {
    context: DCtx<'static>,
    encoded: Bytes,
    /// The last step may have had more to say than it had room for.
    more: bool,
    /// Begun, and not ended yet.
    in_frame: bool,
    content_bytes: u64,
    promised: Option<u64>,
}

impl Decoder {
    /// Begins before the first frame.
    pub(super) fn new() -> Self {
        let mut context = DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).expect("between 10 and 31");
        Self { context, encoded: Bytes::new(), more: false, in_frame: false, content_bytes: 0, promised: None }
    }

    /// Whether everything given was decoded and the next step needs more.
    pub(super) fn is_hungry(&self) -> bool {
        self.encoded.is_empty() && !self.more
    }

    /// Whether the body may end here.
    pub(super) fn is_at_end_of_frame(&self) -> bool {
        !self.in_frame
    }

    /// How much content the head of the first frame promises, where it does: there may be more frames, but not less.
    pub(super) fn promised(&self) -> Option<u64> {
        self.promised
    }

    /// Gives the next bytes of the body to a hungry decoder.
    pub(super) fn feed(&mut self, encoded: Bytes) {
        debug_assert!(self.is_hungry(), "bytes of the body would be lost");
        if self.content_bytes == 0 && !self.in_frame {
            self.promised = get_frame_content_size(&encoded).ok().flatten();
        }
        self.encoded = encoded;
    }

    /// Room for the next piece of content.
    pub(super) fn piece() -> Vec<u8> {
        Vec::with_capacity(PIECE_BYTES)
    }

    /// Appends what fits into the `piece`. Nothing can be decoded after an error.
    pub(super) fn decode(&mut self, piece: &mut Vec<u8>) -> Result<(), EncodingError> {
        let before = piece.len();
        let (mut from, mut to) = (InBuffer::around(&self.encoded), OutBuffer::around_pos(piece, before));
        let hint = self.context.decompress_stream(&mut to, &mut from).map_err(|code| {
            // The library gives errors as negative numbers in a usize.
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
