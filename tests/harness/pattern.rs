//! Content that can be made again and checked byte for byte: every 8 bytes are computed from the seed and their offset.

use std::io::Write as _;
use std::path::Path;

/// Content of a disk: `data` ranges carry the pattern, all else is zeros.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Patterns with different seeds have different bytes.
    pub seed: u64,
    /// Logical size in bytes.
    pub size: u64,
    /// Sorted, disjoint, 8-byte aligned `(offset, length)`.
    pub data: Vec<(u64, u64)>,
}

impl Pattern {
    /// `size` bytes with `run` bytes of data at every multiple of `stride`.
    #[must_use]
    pub fn striped(seed: u64, size: u64, run: u64, stride: u64) -> Self {
        let data =
            (0..size).step_by(usize::try_from(stride).expect("fits")).map(|at| (at, run.min(size - at))).collect();
        Self { seed, size, data }
    }

    fn word(&self, at: u64) -> [u8; 8] {
        (self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (at + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)).to_le_bytes()
    }

    /// Computes `length` bytes from `offset` on.
    #[must_use]
    pub fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(length).expect("fits")];
        for &(from, len) in &self.data {
            let (start, end) = (from.max(offset), (from + len).min(offset + length));
            for at in start..end {
                let word = self.word(at / 8 * 8);
                out[usize::try_from(at - offset).expect("fits")] = word[usize::try_from(at % 8).expect("fits")];
            }
        }
        out
    }

    /// Writes the content as a sparse raw file.
    pub fn write(&self, path: &Path) {
        use std::os::unix::fs::FileExt as _;
        let mut file = std::fs::File::create(path).expect("create the image file");
        file.set_len(self.size).expect("size the image file");
        for &(from, len) in &self.data {
            file.write_all_at(&self.bytes(from, len), from).expect("write the image file");
        }
        file.flush().expect("flush the image file");
    }

    /// Compares bytes that were read at `offset` with what they should be.
    ///
    /// # Panics
    /// At the first byte that differs.
    pub fn check(&self, offset: u64, got: &[u8]) {
        let want = self.bytes(offset, got.len() as u64);
        if let Some(at) = want.iter().zip(got).position(|(a, b)| a != b) {
            panic!("byte {} differs: expected {:#04x}, got {:#04x}", offset + at as u64, want[at], got[at]);
        }
    }
}
