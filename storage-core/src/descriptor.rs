//! The small object that a version names. It tells how large the disk is, how it is cut into chunks, and where its tree
//! begins.

use crate::{BLOCK_BYTES, ByteLen, ChunkIndex, ChunkSize, Corrupt, Kind, ObjectName, Salt, codec::Reader};

const WHAT: &str = "descriptor";
const MAGIC: [u8; 8] = *b"MUSTERD\0";
const FORMAT: u16 = 1;
/// Bits of features that a reader must know, or it would read wrong bytes. None exist yet.
const INCOMPAT_KNOWN: u64 = 0;
const LOG2_FAN_OUT: u32 = 8;
/// Far above every disk. Keeps arithmetic on sizes from overflowing.
const SIZE_BYTES_MAX: u64 = 1 << 62;

/// The root of one version. The name of its canonical bytes is the version's `root`. A clone is a copy of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// Size of the disk in bytes, at most 2^62.
    pub size_bytes: ByteLen,
    /// Size of the disk's chunks.
    pub chunk: ChunkSize,
    /// Name of the root page. None for a disk of zeros.
    pub root: Option<ObjectName>,
    /// Part of the names of all objects of the version.
    pub salt: Salt,
    /// Bits of features that an older release may ignore. A commit clears them, because it may have made them untrue.
    pub compat: u64,
}

impl Descriptor {
    /// Length of a descriptor in bytes.
    pub const BYTES: usize = 128;

    /// The descriptor of a disk of zeros.
    pub const fn empty(size_bytes: ByteLen, chunk: ChunkSize, salt: Salt) -> Descriptor {
        Descriptor { size_bytes, chunk, root: None, salt, compat: 0 }
    }

    /// Number of chunks of the disk. The last one may reach beyond the disk's end.
    pub const fn chunks(&self) -> u64 {
        self.size_bytes.chunks(self.chunk)
    }

    /// The index after the last chunk.
    pub const fn end(&self) -> ChunkIndex {
        ChunkIndex(self.chunks())
    }

    /// Number of levels of pages: 0 for a disk of zeros, otherwise as many as its size needs.
    pub const fn height(&self) -> u8 {
        if self.root.is_none() { 0 } else { levels(self.chunks()) }
    }

    /// The canonical bytes. The descriptor's name is a hash of them.
    pub fn encode(&self) -> [u8; Descriptor::BYTES] {
        let mut out = Vec::with_capacity(Descriptor::BYTES);
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        let log2_block = u8::try_from(BLOCK_BYTES.ilog2()).expect("it is 12");
        let cipher = 0;
        out.extend([self.chunk.log2(), log2_block, self.height(), cipher, 0, 0]);
        out.extend(INCOMPAT_KNOWN.to_le_bytes());
        out.extend(self.compat.to_le_bytes());
        out.extend(self.size_bytes.0.to_le_bytes());
        out.extend(self.salt.0);
        out.extend(self.root.map_or([0; 32], |n| *n.as_bytes()));
        out.extend([0; 32]); // overlay page: none
        out.extend([0; 4]);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields above are 128 bytes together")
    }

    /// From canonical bytes.
    ///
    /// # Errors
    /// When the bytes are no descriptor, are damaged, or use something this release does not know.
    pub fn decode(bytes: &[u8]) -> Result<Descriptor, Corrupt> {
        let unsupported = |feature, got| Corrupt::Unsupported { what: WHAT, feature, got };
        let mut r = Reader::new(WHAT, bytes);
        r.magic(MAGIC)?;
        // The format and the feature words are looked at before the checksum, because a later format may be longer.
        let format = r.u16()?;
        if format != FORMAT {
            return Err(unsupported("format", format.into()));
        }
        let [chunk_log2, block_log2, height, cipher] = r.array()?;
        r.zeros(2, "reserved byte")?;
        let incompat = r.u64()?;
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(unsupported("incompatible feature word", incompat));
        }
        let compat = r.u64()?;
        let size_bytes = r.u64()?;
        let salt = Salt(r.array()?);
        let root = r.optional_name()?;
        let overlay = r.optional_name()?;
        r.zeros(4, "reserved byte")?;
        r.crc_of(Reader::new(WHAT, bytes).take(Descriptor::BYTES - 4)?)?;

        if cipher != 0 {
            return Err(unsupported("cipher", cipher.into()));
        }
        if overlay.is_some() {
            return Err(unsupported("overlay page", 1));
        }
        if 1u64.checked_shl(block_log2.into()) != Some(BLOCK_BYTES) {
            return Err(r.field("block size", block_log2));
        }
        if size_bytes > SIZE_BYTES_MAX {
            return Err(r.field("size of a disk", size_bytes));
        }
        let chunk = ChunkSize::from_log2(chunk_log2).ok_or_else(|| r.field("chunk size", chunk_log2))?;
        let descriptor = Descriptor { size_bytes: ByteLen(size_bytes), chunk, root, salt, compat };
        if height != descriptor.height() || (root.is_some() && height == 0) {
            return Err(r.field("height of a tree of this size", height));
        }
        r.finish()?;
        Ok(descriptor)
    }

    /// The name of the descriptor: the version's `root`.
    pub fn name(&self) -> ObjectName {
        ObjectName::of(Kind::Descriptor, self.salt, &self.encode())
    }
}

/// Number of levels of pages that this many chunks need.
pub(crate) const fn levels(chunks: u64) -> u8 {
    let (mut levels, mut left) = (0, chunks);
    while left > 1 || (left == 1 && levels == 0) {
        left = left.div_ceil(1 << LOG2_FAN_OUT);
        levels += 1;
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(size: u64) -> Descriptor {
        let root = Some(ObjectName::from_bytes([7; 32]));
        Descriptor { root, ..Descriptor::empty(ByteLen(size), ChunkSize::DEFAULT, Salt::SHARED) }
    }

    #[test]
    fn height_is_what_the_size_needs() {
        let leaf_page = 64 << 20;
        for (size, height) in [
            (1, 1),
            (leaf_page, 1),
            (leaf_page + 1, 2),
            (16 << 30, 2),
            ((16 << 30) + 1, 3),
            (4 << 40, 3),
            ((4 << 40) + 1, 4),
        ] {
            assert_eq!(some(size).height(), height, "{size}");
        }
        assert_eq!(Descriptor::empty(ByteLen(1 << 40), ChunkSize::DEFAULT, Salt::SHARED).height(), 0);
    }

    #[test]
    fn decodes_what_it_encoded() {
        for descriptor in [some(1), some(5 << 40), Descriptor::empty(ByteLen(0), ChunkSize::MAX, Salt([3; 16]))] {
            assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor));
        }
    }

    #[test]
    fn an_unknown_feature_is_refused_and_an_optional_one_is_kept() {
        let change = |at: usize, byte: u8| {
            let mut bytes = some(1).encode();
            *bytes.get_mut(at).expect("inside") = byte;
            let (covered, crc) = bytes.split_at_mut(124);
            crc.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
            Descriptor::decode(&bytes)
        };
        for (at, feature) in [
            (8, "format"),
            (13, "cipher"),
            (16, "incompatible feature word"),
            (23, "incompatible feature word"),
            (88, "overlay page"),
        ] {
            assert!(matches!(change(at, 0x80), Err(Corrupt::Unsupported { feature: f, .. }) if f == feature), "{at}");
        }
        assert_eq!(change(24, 5).map(|d| d.compat), Ok(5));
        for at in [10, 11, 12, 14, 39, 120] {
            assert!(matches!(change(at, 0x80), Err(Corrupt::Field { .. })), "{at}");
        }
    }

    #[test]
    fn bytes_that_are_too_few_too_many_or_changed_are_refused() {
        let bytes = some(1).encode();
        for len in 0..bytes.len() {
            assert!(Descriptor::decode(bytes.get(..len).expect("inside")).is_err());
        }
        assert!(Descriptor::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes;
            *changed.get_mut(at).expect("inside") ^= 0x40;
            assert!(Descriptor::decode(&changed).is_err(), "{at}");
        }
    }
}
