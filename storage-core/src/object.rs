//! Objects and their names. A name is the BLAKE3 hash of the object's canonical bytes, keyed with the object's kind and
//! salt. How a copy is encoded on a disk or a wire does not change its name.

use std::{fmt, str::FromStr};

use crate::ChunkSize;

/// What an object is. The kind is part of the name, so equal bytes of two kinds are two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One chunk of a disk. It is hashed padded with zeros to its full size.
    Chunk = 1,
    /// Changed blocks of one commit, in disk order.
    Pack = 2,
    /// One page of a segment tree.
    Page = 3,
    /// The description of one version: its size, chunk size and root page.
    Descriptor = 4,
}

impl Kind {
    /// From the byte in a record header. None for a byte that no release writes.
    pub const fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Chunk),
            2 => Some(Kind::Pack),
            3 => Some(Kind::Page),
            4 => Some(Kind::Descriptor),
            _ => None,
        }
    }

    /// The byte in a record header.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Most canonical bytes that an object of this kind may have.
    pub const fn bytes_max(self) -> u32 {
        match self {
            Kind::Chunk | Kind::Pack | Kind::Page => 4 << 20,
            Kind::Descriptor => 4096,
        }
    }

    const fn tag(self) -> &'static [u8; 16] {
        match self {
            Kind::Chunk => b"muster-chunk-v1\0",
            Kind::Pack => b"muster-pack-v1\0\0",
            Kind::Page => b"muster-page-v1\0\0",
            Kind::Descriptor => b"muster-descr-v1\0",
        }
    }
}

/// Part of each name's key. Projects with different salts share no objects, so none can find out by a name what another
/// one stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Salt(pub [u8; 16]);

impl Salt {
    /// All zeros, for objects that everybody shares: equal bytes are stored once.
    pub const SHARED: Salt = Salt([0; 16]);
}

/// The name of an object: 32 bytes, lower-case hex in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ObjectName([u8; 32]);

/// The error for text that is not an object name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object name is 64 lower-case hex digits")]
pub struct InvalidObjectName;

impl ObjectName {
    /// Length of a name in bytes.
    pub const BYTES: usize = 32;

    /// The name of the object with these canonical bytes. For chunks use [`ObjectName::of_chunk`].
    pub fn of(kind: Kind, salt: Salt, canonical: &[u8]) -> ObjectName {
        ObjectName(*keyed(kind, salt).update(canonical).finalize().as_bytes())
    }

    /// The name of the chunk that begins with `body`; the rest of it is zeros.
    ///
    /// # Panics
    /// When the body is longer than the chunk.
    pub fn of_chunk(salt: Salt, size: ChunkSize, body: &[u8]) -> ObjectName {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        assert!(body.len() <= size.as_usize(), "a body of {} bytes in a chunk of {size}", body.len());
        let mut hasher = keyed(Kind::Chunk, salt);
        hasher.update(body);
        let mut padding = size.as_usize() - body.len();
        while let Some(zeros) = ZEROS.get(..padding.min(ZEROS.len()))
            && !zeros.is_empty()
        {
            hasher.update(zeros);
            padding -= zeros.len();
        }
        ObjectName(*hasher.finalize().as_bytes())
    }

    /// The 32 bytes of the name, as they are stored and sent.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name with these 32 bytes. Nothing proves that such an object exists.
    pub const fn from_bytes(bytes: [u8; 32]) -> ObjectName {
        ObjectName(bytes)
    }
}

fn keyed(kind: Kind, salt: Salt) -> blake3::Hasher {
    let mut key = [0; 32];
    let (tag, salted) = key.split_at_mut(16);
    tag.copy_from_slice(kind.tag());
    salted.copy_from_slice(&salt.0);
    blake3::Hasher::new_keyed(&key)
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for ObjectName {
    type Error = InvalidObjectName;

    fn try_from(text: String) -> Result<ObjectName, InvalidObjectName> {
        text.parse()
    }
}

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<ObjectName, InvalidObjectName> {
        // The library also reads upper-case digits, but a name has only one text.
        match blake3::Hash::from_hex(text) {
            Ok(hash) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(ObjectName(hash.into())),
            _ => Err(InvalidObjectName),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_hashed_padded_to_its_full_size() {
        for size in [ChunkSize::MIN, ChunkSize::DEFAULT, ChunkSize::MAX] {
            let mut padded = b"some bytes".to_vec();
            padded.resize(size.as_usize(), 0);
            let short = ObjectName::of_chunk(Salt::SHARED, size, b"some bytes");
            assert_eq!(short, ObjectName::of_chunk(Salt::SHARED, size, &padded));
            assert_eq!(short, ObjectName::of(Kind::Chunk, Salt::SHARED, &padded));
        }
    }

    #[test]
    fn kind_salt_and_size_are_part_of_the_name() {
        let names = [
            ObjectName::of(Kind::Chunk, Salt::SHARED, b"x"),
            ObjectName::of(Kind::Pack, Salt::SHARED, b"x"),
            ObjectName::of(Kind::Page, Salt::SHARED, b"x"),
            ObjectName::of(Kind::Descriptor, Salt::SHARED, b"x"),
            ObjectName::of(Kind::Chunk, Salt([1; 16]), b"x"),
            ObjectName::of_chunk(Salt::SHARED, ChunkSize::MIN, b"x"),
            ObjectName::of_chunk(Salt::SHARED, ChunkSize::DEFAULT, b"x"),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn text_is_64_lower_case_hex_digits_and_nothing_else() {
        let name = ObjectName::of(Kind::Page, Salt::SHARED, b"x");
        assert_eq!(name.to_string().parse(), Ok(name));
        for bad in
            ["", "00", &name.to_string().to_uppercase(), &format!("{name}0"), &format!("{name}00"), &"é".repeat(32)]
        {
            assert_eq!(bad.parse::<ObjectName>(), Err(InvalidObjectName));
        }
    }
}
