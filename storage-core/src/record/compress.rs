//! Whether and how an object's bytes are stored compressed.

use std::cell::RefCell;

/// Level 1 compresses faster than the disks below it write, wherever compressing saves anything.
const ZSTD_LEVEL: i32 = 1;
/// Shorter bodies are stored as they are.
const BODY_BYTES_MIN: usize = 64;
/// Before a body is compressed, the bytes of this many samples of it are counted.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 256;

/// Whether to try to store fewer bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Compress where that saves a tenth of the bytes.
    #[default]
    Auto,
    /// Never compress. Descriptors are stored so.
    Off,
}

impl Compression {
    /// The body in fewer bytes, if that saves a tenth.
    pub(super) fn compress(self, body: &[u8]) -> Option<Vec<u8>> {
        thread_local! {
            // A compressor's tables are some 200 KiB, so it is made once per thread and not once per chunk.
            static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
        }
        if self == Compression::Off || body.len() < BODY_BYTES_MIN || looks_random(body) {
            return None;
        }
        COMPRESSOR.with_borrow_mut(|slot| {
            if slot.is_none() {
                *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
            }
            let out = slot.as_mut()?.compress(body).ok()?;
            (out.len() < body.len() - body.len() / 10).then_some(out)
        })
    }
}

/// Whether the bytes of some samples are so evenly spread that nothing can be saved: random, encrypted or compressed
/// already. Counting costs a hundredth of trying, and much data on disks is like that.
fn looks_random(body: &[u8]) -> bool {
    let sampled = SAMPLES * SAMPLE_BYTES;
    if body.len() < 2 * sampled {
        return false;
    }
    let mut counts = [0u64; 256];
    // The last part may be shorter than a sample.
    for sample in body.chunks(body.len() / SAMPLES).filter_map(|part| part.get(..SAMPLE_BYTES)) {
        for byte in sample {
            *counts.get_mut(usize::from(*byte)).expect("a byte is below 256") += 1;
        }
    }
    // Chi squared of even bytes is 255 on average, 23 being its deviation. Where a tenth can be saved by the
    // frequency of bytes alone, it is in the thousands.
    let squares: u64 = counts.iter().map(|n| n * n).sum();
    let chi_squared = (squares * 256 / sampled as u64).saturating_sub(sampled as u64);
    chi_squared < 768
}
