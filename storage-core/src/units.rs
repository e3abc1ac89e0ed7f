//! Sizes and places on a disk. All arithmetic between bytes, blocks and chunks is here, each with a type of its own, so
//! that no caller takes an offset for a length or a chunk's index for a block's.

use std::fmt;

/// Size of a block in bytes: the unit in which disks are written and changes are noted.
pub const BLOCK_BYTES: u64 = 4096;
/// Largest disk an instance may have, 16 TiB. A limit of the product, not of the format.
pub const DISK_BYTES_MAX: ByteLen = ByteLen(16 << 40);

const CHUNK_LOG2_MIN: u8 = 16;
const CHUNK_LOG2_MAX: u8 = 22;
const BLOCK_LOG2: u8 = 12;

/// A place on a disk, in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

/// A number of bytes, for example the size of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

/// The number of a chunk of a disk, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u64);

/// The number of a 4 KiB block of a disk, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

/// The size of a disk's chunks: a power of two from 64 KiB to 4 MiB. Chosen at import, and the same for all later
/// versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(u8);

/// A number of bytes that is not a chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a chunk size: it must be a power of two from 65536 to 4194304")]
pub struct InvalidChunkSize(pub u64);

impl ByteOffset {
    /// The offset as a plain number, in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The chunk that this place is in.
    pub const fn chunk(self, size: ChunkSize) -> ChunkIndex {
        ChunkIndex(self.0 >> size.0)
    }

    /// Distance from the start of the chunk to this place.
    pub const fn within_chunk(self, size: ChunkSize) -> ByteLen {
        ByteLen(self.0 & (size.bytes() - 1))
    }

    /// The block that this place is in.
    pub const fn block(self) -> BlockIndex {
        BlockIndex(self.0 >> BLOCK_LOG2)
    }

    /// The place `len` bytes further on. None beyond 2^64.
    pub const fn checked_add(self, len: ByteLen) -> Option<ByteOffset> {
        match self.0.checked_add(len.0) {
            Some(n) => Some(ByteOffset(n)),
            None => None,
        }
    }
}

impl ByteLen {
    /// The length as a plain number, in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Number of chunks that hold this many bytes. The last one may be partly used.
    pub const fn chunks(self, size: ChunkSize) -> u64 {
        self.0.div_ceil(size.bytes())
    }

    /// Number of blocks that hold this many bytes.
    pub const fn blocks(self) -> u64 {
        self.0.div_ceil(BLOCK_BYTES)
    }

    /// The length rounded up to whole blocks. None beyond 2^64.
    pub const fn round_up_to_block(self) -> Option<ByteLen> {
        match self.0.checked_next_multiple_of(BLOCK_BYTES) {
            Some(n) => Some(ByteLen(n)),
            None => None,
        }
    }
}

impl ChunkIndex {
    /// The number of the chunk as a plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where the chunk begins. None beyond 2^64.
    pub const fn offset(self, size: ChunkSize) -> Option<ByteOffset> {
        match self.0.checked_mul(size.bytes()) {
            Some(n) => Some(ByteOffset(n)),
            None => None,
        }
    }

    /// The first block of the chunk. None beyond 2^64.
    pub const fn first_block(self, size: ChunkSize) -> Option<BlockIndex> {
        match self.0.checked_mul(size.blocks() as u64) {
            Some(n) => Some(BlockIndex(n)),
            None => None,
        }
    }
}

impl BlockIndex {
    /// The number of the block as a plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where the block begins. None beyond 2^64.
    pub const fn offset(self) -> Option<ByteOffset> {
        match self.0.checked_mul(BLOCK_BYTES) {
            Some(n) => Some(ByteOffset(n)),
            None => None,
        }
    }

    /// The chunk that this block is in, and the block's number within it.
    pub const fn chunk(self, size: ChunkSize) -> (ChunkIndex, u16) {
        let within = self.0 & (size.blocks() as u64 - 1);
        #[expect(clippy::cast_possible_truncation, reason = "masked to at most 1023")]
        (ChunkIndex(self.0 >> (size.0 - BLOCK_LOG2)), within as u16)
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

impl TryFrom<u64> for ChunkSize {
    type Error = InvalidChunkSize;

    fn try_from(bytes: u64) -> Result<ChunkSize, InvalidChunkSize> {
        ChunkSize::from_bytes(bytes)
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
prints_as_number!(ByteOffset, ByteLen, ChunkIndex, BlockIndex);

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
    fn places_convert_between_bytes_blocks_and_chunks() {
        let size = ChunkSize::DEFAULT;
        let at = ByteOffset(3 * 262_144 + 2 * 4096 + 5);
        assert_eq!(at.chunk(size), ChunkIndex(3));
        assert_eq!(at.within_chunk(size), ByteLen(2 * 4096 + 5));
        assert_eq!(at.block(), BlockIndex(3 * 64 + 2));
        assert_eq!(at.block().chunk(size), (ChunkIndex(3), 2));
        assert_eq!(ChunkIndex(3).offset(size), Some(ByteOffset(3 * 262_144)));
        assert_eq!(ChunkIndex(3).first_block(size), Some(BlockIndex(192)));
        assert_eq!(ChunkIndex(u64::MAX).offset(size), None);
    }

    #[test]
    fn lengths_round_up() {
        assert_eq!(ByteLen(0).chunks(ChunkSize::DEFAULT), 0);
        assert_eq!(ByteLen(1).chunks(ChunkSize::DEFAULT), 1);
        assert_eq!(ByteLen(262_145).chunks(ChunkSize::DEFAULT), 2);
        assert_eq!(ByteLen(4097).blocks(), 2);
        assert_eq!(ByteLen(1).round_up_to_block(), Some(ByteLen(4096)));
        assert_eq!(ByteLen(u64::MAX).round_up_to_block(), None);
    }
}
