//! Sizes and places on a disk. All arithmetic between bytes and chunks is here, each with a type of its own, so that no
//! caller takes a length for a chunk's index.

use std::fmt;

/// Size of a block in bytes: the unit in which disks are written and changes are noted.
pub const BLOCK_BYTES: u64 = 4096;
/// Largest disk an instance may have, 16 TiB. A limit of the product, not of the format.
pub const DISK_BYTES_MAX: ByteLen = ByteLen(16 << 40);

const CHUNK_LOG2_MIN: u8 = 16;
const CHUNK_LOG2_MAX: u8 = 22;
const BLOCK_LOG2: u8 = 12;

/// A number of bytes, for example the size of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

/// The number of a chunk of a disk, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u64);

/// The size of a disk's chunks: a power of two from 64 KiB to 4 MiB. Chosen at import, and the same for all later
/// versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(u8);

/// A number of bytes that is not a chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are not a chunk size: it must be a power of two from 64 KiB to 4 MiB")]
pub struct InvalidChunkSize(pub u64);

impl ByteLen {
    /// The length as a plain number, in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Number of chunks that hold this many bytes. The last one may be partly used.
    pub const fn chunks(self, size: ChunkSize) -> u64 {
        self.0.div_ceil(size.bytes())
    }
}

impl ChunkSize {
    /// 256 KiB, for images that ask for no other size.
    pub const DEFAULT: ChunkSize = ChunkSize(18);
    /// 64 KiB, the smallest chunk size.
    pub const MIN: ChunkSize = ChunkSize(CHUNK_LOG2_MIN);
    /// 4 MiB, the largest chunk size.
    pub const MAX: ChunkSize = ChunkSize(CHUNK_LOG2_MAX);

    /// The chunk size of this many bytes.
    ///
    /// # Errors
    /// When that is not a power of two from 64 KiB to 4 MiB.
    pub fn from_bytes(bytes: u64) -> Result<ChunkSize, InvalidChunkSize> {
        if !bytes.is_power_of_two() {
            return Err(InvalidChunkSize(bytes));
        }
        u8::try_from(bytes.trailing_zeros()).ok().and_then(ChunkSize::from_log2).ok_or(InvalidChunkSize(bytes))
    }

    /// From the base-2 logarithm, 16 to 22, which descriptors and record headers hold.
    pub const fn from_log2(log2: u8) -> Option<ChunkSize> {
        if log2 >= CHUNK_LOG2_MIN && log2 <= CHUNK_LOG2_MAX { Some(ChunkSize(log2)) } else { None }
    }

    /// The size in bytes, a power of two.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The size in bytes, for lengths of memory.
    pub const fn as_usize(self) -> usize {
        1 << self.0
    }

    /// The base-2 logarithm of the size.
    pub const fn log2(self) -> u8 {
        self.0
    }

    /// Number of blocks of a chunk: 16 to 1024.
    pub const fn blocks(self) -> u16 {
        1 << (self.0 - BLOCK_LOG2)
    }
}

impl Default for ChunkSize {
    fn default() -> ChunkSize {
        ChunkSize::DEFAULT
    }
}

macro_rules! prints_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
prints_as_number!(ByteLen, ChunkIndex);

impl fmt::Display for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.bytes(), f)
    }
}

const _: () = assert!(usize::BITS == 64, "disk offsets are used as memory lengths, so only 64-bit hosts work");

/// A count or length as an index into memory. It always fits: both types have 64 bits.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, asserted above")]
pub const fn usize_from(n: u64) -> usize {
    n as usize
}

/// A length in memory as a count. It always fits: both types have 64 bits.
#[must_use]
pub const fn u64_from(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_from_64_kib_to_4_mib_are_chunk_sizes() {
        let sizes: Vec<u64> = (0..64).map(|n| 1 << n).filter(|n| ChunkSize::from_bytes(*n).is_ok()).collect();
        assert_eq!(sizes, [65536, 131_072, 262_144, 524_288, 1 << 20, 2 << 20, 4 << 20]);
        for bad in [0, 1, 65535, 65537, 3 << 17, u64::MAX] {
            assert_eq!(ChunkSize::from_bytes(bad), Err(InvalidChunkSize(bad)));
        }
    }

    #[test]
    fn lengths_round_up() {
        assert_eq!(ByteLen(0).chunks(ChunkSize::DEFAULT), 0);
        assert_eq!(ByteLen(1).chunks(ChunkSize::DEFAULT), 1);
        assert_eq!(ByteLen(262_145).chunks(ChunkSize::DEFAULT), 2);
    }
}
