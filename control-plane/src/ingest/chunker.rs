//! A stream of bytes of any split, cut into chunks.
//!
//! Chunks of zeros are left out, trailing zeros of the others are cut off, and zeros cost next to nothing: a part
//! that is all zeros is only looked at, never copied. The BLAKE3 digest of all raw bytes is made on the way.

use bytes::Bytes;
use storage_core::{
    units::{ChunkIndex, ChunkSize},
    zero::{is_zero, trim_zeros},
};

/// A chunk that is not all zeros. The body lacks its trailing zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where in the disk.
    pub index: ChunkIndex,
    /// Its bytes.
    pub body: Bytes,
}

/// Zeros known from tables alone are hashed too, for the digest, up to so many bytes: some 10 s of one processor.
/// With more the digest stays unknown: these bytes never passed by.
const DIGEST_HOLES_MAX: u64 = 32 << 30;

/// Cuts one disk into chunks.
pub struct Chunker {
    size: ChunkSize,
    chunk_bytes: usize,
    index: u64,
    /// The current chunk up to its last part that is not all zeros.
    body: Vec<u8>,
    /// Zeros after that.
    zeros: usize,
    total: u64,
    digest: Option<blake3::Hasher>,
    holes: u64,
}

/// All bytes passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// How many.
    pub bytes: u64,
    /// Their BLAKE3 digest, unless most of them were holes.
    pub digest: Option<blake3::Hash>,
}

impl Chunker {
    /// Begins at the disk's first byte.
    #[must_use]
    pub fn new(size: ChunkSize) -> Self {
        Self {
            size,
            chunk_bytes: size.as_usize(),
            index: 0,
            body: Vec::new(),
            zeros: 0,
            total: 0,
            digest: Some(blake3::Hasher::new()),
            holes: 0,
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.total
    }

    /// Takes the next bytes and hands out the chunks they complete.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Cut)) {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        while !bytes.is_empty() {
            let room = self.chunk_bytes - self.body.len() - self.zeros;
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            if is_zero(part) {
                self.zeros += part.len();
            } else {
                if self.body.capacity() == 0 {
                    self.body.reserve_exact(self.chunk_bytes);
                }
                self.body.resize(self.body.len() + self.zeros, 0);
                self.zeros = 0;
                self.body.extend_from_slice(part);
            }
            self.total += part.len() as u64;
            self.end_chunk_if_full(out);
            bytes = rest;
        }
    }

    /// Takes `count` zeros that nobody had to look at.
    pub fn push_zeros(&mut self, count: u64, out: &mut impl FnMut(Cut)) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.holes = self.holes.saturating_add(count);
        if self.holes > DIGEST_HOLES_MAX {
            self.digest = None;
        }
        if let Some(digest) = &mut self.digest {
            let mut left = count;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                digest.update(&ZEROS[..part]);
                left -= part as u64;
            }
        }
        self.total += count;
        let mut left = count;
        let filled = self.body.len() + self.zeros;
        if filled > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(self.chunk_bytes - filled);
            self.zeros += part;
            left -= part as u64;
            self.end_chunk_if_full(out);
        }
        self.index += left / self.size.bytes();
        // What is left over begins a chunk; with `left` at 0 it adds nothing to the one under way.
        self.zeros += usize::try_from(left % self.size.bytes()).expect("less than a chunk");
    }

    /// Hands out the last, partly filled chunk.
    pub fn finish(mut self, out: &mut impl FnMut(Cut)) -> Passed {
        self.end_chunk(out);
        Passed { bytes: self.total, digest: self.digest.map(|d| d.finalize()) }
    }

    fn end_chunk_if_full(&mut self, out: &mut impl FnMut(Cut)) {
        if self.body.len() + self.zeros == self.chunk_bytes {
            self.end_chunk(out);
        }
    }

    fn end_chunk(&mut self, out: &mut impl FnMut(Cut)) {
        self.body.truncate(trim_zeros(&self.body).len());
        if self.body.len() * 2 > self.chunk_bytes {
            out(Cut { index: ChunkIndex(self.index), body: std::mem::take(&mut self.body).into() });
        } else if !self.body.is_empty() {
            // A chunk with little in it must not hold the memory of a whole one while it waits.
            out(Cut { index: ChunkIndex(self.index), body: Bytes::copy_from_slice(&self.body) });
            self.body.clear();
        }
        self.zeros = 0;
        self.index += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a program without any cleverness makes of it.
    fn model(bytes: &[u8], chunk: usize) -> Vec<(u64, Vec<u8>)> {
        let mut cuts = Vec::new();
        for (n, body) in bytes.chunks(chunk).enumerate() {
            let len = body.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            if len > 0 {
                cuts.push((n as u64, body[..len].to_vec()));
            }
        }
        cuts
    }

    #[derive(Clone, Debug)]
    enum Part {
        Bytes(Vec<u8>),
        ZeroBytes(usize),
        Hole(u64),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..70_000).prop_map(Part::Bytes),
            (0_usize..200_000).prop_map(Part::ZeroBytes),
            (0_u64..300_000).prop_map(Part::Hole),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_split_gives_the_same_chunks(parts in proptest::collection::vec(part(), 0..12)) {
            let size = ChunkSize::from_bytes(64 << 10).expect("a chunk size");
            let mut chunker = Chunker::new(size);
            let (mut cuts, mut all) = (Vec::new(), Vec::new());
            let mut out = |cut: Cut| cuts.push((cut.index.get(), cut.body.to_vec()));
            for part in &parts {
                match part {
                    Part::Bytes(bytes) => { chunker.push(bytes, &mut out); all.extend_from_slice(bytes); }
                    Part::ZeroBytes(n) => { chunker.push(&vec![0; *n], &mut out); all.resize(all.len() + n, 0); }
                    Part::Hole(n) => {
                        chunker.push_zeros(*n, &mut out);
                        all.resize(all.len() + usize::try_from(*n).expect("small"), 0);
                    }
                }
            }
            let passed = chunker.finish(&mut out);
            prop_assert_eq!(passed.bytes, all.len() as u64);
            prop_assert_eq!(passed.digest, Some(blake3::hash(&all)));
            prop_assert_eq!(cuts, model(&all, 64 << 10));
        }
    }

    #[test]
    fn a_hole_of_terabytes_is_free_and_has_no_digest() {
        let mut chunker = Chunker::new(ChunkSize::from_bytes(256 << 10).expect("a chunk size"));
        let mut cuts = Vec::new();
        chunker.push_zeros(8 << 40, &mut |cut| cuts.push(cut));
        chunker.push(b"end", &mut |cut| cuts.push(cut));
        let passed = chunker.finish(&mut |cut| cuts.push(cut));
        assert_eq!(passed, Passed { bytes: (8 << 40) + 3, digest: None });
        assert_eq!(cuts, [Cut { index: ChunkIndex((8 << 40) >> 18), body: Bytes::from_static(b"end") }]);
    }
}
