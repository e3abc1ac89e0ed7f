//! Cuts a stream of bytes into chunks, whatever the pieces it arrives in.
//!
//! Chunks of zeros are left out, and the trailing zeros of other chunks are cut off. Zeros cost next to nothing: a part
//! of zeros is read, but never copied. The chunker also computes the BLAKE3 digest of all raw bytes.

use bytes::Bytes;
use muster_api::firmware::BootKind;
use storage_core::{
    units::{ChunkIndex, ChunkSize},
    zero::{is_zero, trim_zeros},
};

use super::boot;

/// A chunk that is not all zeros. The body lacks its trailing zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its place on the disk.
    pub index: ChunkIndex,
    /// Its bytes, up to the last one that is not zero.
    pub body: Bytes,
}

/// Most bytes of holes (zeros that nobody sent, known from tables or from an encoding) that are hashed for the digest. A
/// disk with more holes has no digest. Hashing so many takes some 10 s of one processor, and there is no shorter way: the
/// hash of 1 KiB of zeros depends on its place on the disk, so hashes of zeros cannot be used again.
const DIGEST_HOLES_MAX: u64 = 32 << 30;

/// Cuts one disk into chunks.
pub struct Chunker {
    size: ChunkSize,
    chunk_bytes: usize,
    index: u64,
    /// The current chunk up to its last part that is not all zeros.
    body: Vec<u8>,
    /// Number of zeros after `body`.
    zeros: usize,
    total: u64,
    digest: Option<blake3::Hasher>,
    holes: u64,
    /// Zeros of the last hole that are not in the digest yet. They are hashed when something comes after them.
    unhashed: u64,
    /// The first bytes of the disk, as many as [`boot::of`] looks at.
    head: Vec<u8>,
}

/// What is known about the disk once all of its bytes were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Number of bytes, holes included.
    pub bytes: u64,
    /// BLAKE3 of these bytes; `None` if there were more than 32 GiB of holes.
    pub digest: Option<blake3::Hash>,
    /// What can boot it.
    pub boot: BootKind,
}

impl Chunker {
    /// A chunker at the first byte of a disk, for chunks of `size`.
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
            unhashed: 0,
            head: Vec::new(),
        }
    }

    /// Number of bytes pushed so far, holes included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.total
    }

    /// Tells beforehand that the disk has at least so many bytes of holes. With too many of them nothing is hashed.
    pub fn expect_holes(&mut self, bytes: u64) {
        if bytes > DIGEST_HOLES_MAX {
            self.digest = None;
        }
    }

    /// Takes the next bytes of the disk and passes the chunks that they complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Cut)) {
        let head = boot::HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(head)]);
        self.hash_hole();
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

    /// Takes a hole: `count` zero bytes that nobody sent. Passes the chunk that it completes to `out`.
    pub fn push_zeros(&mut self, count: u64, out: &mut impl FnMut(Cut)) {
        let head = at_most(count, boot::HEAD_BYTES - self.head.len());
        self.head.resize(self.head.len() + head, 0);
        self.holes += count;
        if self.holes > DIGEST_HOLES_MAX {
            self.digest = None;
        }
        self.unhashed += count;
        self.total += count;
        let mut left = count;
        let filled = self.body.len() + self.zeros;
        if filled > 0 {
            let part = at_most(left, self.chunk_bytes - filled);
            self.zeros += part;
            left -= part as u64;
            self.end_chunk_if_full(out);
        }
        self.index += left / self.size.bytes();
        // The rest begins a chunk. If the hole ended within the current chunk, `left` is 0 here.
        self.zeros += usize::try_from(left % self.size.bytes()).expect("less than a chunk");
    }

    fn hash_hole(&mut self) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut left = std::mem::take(&mut self.unhashed);
        let Some(digest) = &mut self.digest else { return };
        while left > 0 {
            let part = at_most(left, ZEROS.len());
            digest.update(&ZEROS[..part]);
            left -= part as u64;
        }
    }

    /// Ends the disk: passes the last, partly filled chunk to `out`.
    pub fn finish(mut self, out: &mut impl FnMut(Cut)) -> Passed {
        self.end_chunk(out);
        self.hash_hole();
        Passed { bytes: self.total, digest: self.digest.map(|d| d.finalize()), boot: boot::of(&self.head) }
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
            // A chunk with few bytes is copied, so that it does not hold the memory of a whole chunk while it waits.
            out(Cut { index: ChunkIndex(self.index), body: Bytes::copy_from_slice(&self.body) });
            self.body.clear();
        }
        self.zeros = 0;
        self.index += 1;
    }
}

fn at_most(count: u64, most: usize) -> usize {
    usize::try_from(count.min(most as u64)).expect("not more than `most`")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The chunks of `bytes` by the simplest program.
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
            let mut out = |cut: Cut| cuts.push((cut.index.0, cut.body.to_vec()));
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
    fn a_hole_of_terabytes_costs_nothing_and_has_no_digest() {
        let mut chunker = Chunker::new(ChunkSize::from_bytes(256 << 10).expect("a chunk size"));
        let mut cuts = Vec::new();
        chunker.push_zeros(8 << 40, &mut |cut| cuts.push(cut));
        chunker.push(b"end", &mut |cut| cuts.push(cut));
        let passed = chunker.finish(&mut |cut| cuts.push(cut));
        assert_eq!(passed, Passed { bytes: (8 << 40) + 3, digest: None, boot: BootKind::Unknown });
        assert_eq!(cuts, [Cut { index: ChunkIndex((8 << 40) >> 18), body: Bytes::from_static(b"end") }]);
    }

    #[test]
    fn no_zero_of_a_hole_is_hashed_once_it_is_known_that_there_is_no_digest() {
        let begun = std::time::Instant::now();
        for expected in [true, false] {
            let mut chunker = Chunker::new(ChunkSize::from_bytes(256 << 10).expect("a chunk size"));
            if expected {
                chunker.expect_holes(3 << 40);
            }
            // Many holes in a row, as an encoded body brings them, and with data between them as in a qcow2 file.
            for _ in 0..1 << 10 {
                chunker.push_zeros(3 << 30, &mut |_| {});
                if expected {
                    chunker.push(b"data", &mut |_| {});
                }
            }
            assert_eq!(chunker.finish(&mut |_| {}).digest, None);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
