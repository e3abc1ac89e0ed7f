//! The content of a version: its descriptor and the root page that the descriptor names.

use muster_api::node_protocol::VersionRoot;
use storage_core::{Corrupt, Descriptor, Kind, ObjectName, hex_text};

/// The content of a version: the two objects that every reader needs first. Making the value checks that the root page
/// is the one that the descriptor names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    descriptor: Descriptor,
    root_page: Option<Vec<u8>>,
}

/// Why bytes are not the content of a version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadContent {
    /// A text is not hex; the value says which one.
    #[error("the {0} is not hex text")]
    NotHex(&'static str),
    /// The descriptor cannot be read.
    #[error("the descriptor cannot be read")]
    Descriptor(#[from] Corrupt),
    /// The root page is not the one that the descriptor names, or only one of the two is there.
    #[error("the descriptor names root page {wanted:?}, the page given is {got:?}")]
    RootPage {
        /// The name in the descriptor.
        wanted: Option<ObjectName>,
        /// The name of the bytes given.
        got: Option<ObjectName>,
    },
    /// No disk may have this size.
    #[error("a version of {0} bytes cannot be: 1 byte to 16 TiB")]
    Size(u64),
}

/// Largest disk: 16 TiB.
pub const SIZE_BYTES_MAX: u64 = 16 << 40;

impl Content {
    /// The content with this descriptor and the root page that it names.
    ///
    /// # Errors
    /// The page is another one, or no disk may have the size.
    pub fn new(descriptor: Descriptor, root_page: Option<Vec<u8>>) -> Result<Self, BadContent> {
        let size = descriptor.size_bytes.get();
        if size == 0 || size > SIZE_BYTES_MAX {
            return Err(BadContent::Size(size));
        }
        let got = root_page.as_ref().map(|page| ObjectName::of(Kind::Page, descriptor.salt, page));
        if got != descriptor.root {
            return Err(BadContent::RootPage { wanted: descriptor.root, got });
        }
        Ok(Self { descriptor, root_page })
    }

    /// Reads the canonical bytes of descriptor and root page.
    ///
    /// # Errors
    /// They cannot be read or do not belong together.
    pub fn from_bytes(descriptor: &[u8], root_page: Option<Vec<u8>>) -> Result<Self, BadContent> {
        Self::new(Descriptor::decode(descriptor)?, root_page)
    }

    /// Reads the descriptor and root page that an agent staged.
    ///
    /// # Errors
    /// They cannot be read or do not belong together.
    pub fn from_root(root: &VersionRoot) -> Result<Self, BadContent> {
        let descriptor = hex::decode(&root.descriptor).map_err(|_| BadContent::NotHex("descriptor"))?;
        let page = match &root.root_page {
            Some(text) => Some(hex_text::decode(text).ok_or(BadContent::NotHex("root page"))?),
            None => None,
        };
        Self::from_bytes(&descriptor, page)
    }

    /// The descriptor, which has the size, the chunk size and the name of the root page.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The canonical bytes of the root page; `None` for a disk of zeros.
    #[must_use]
    pub fn root_page(&self) -> Option<&[u8]> {
        self.root_page.as_deref()
    }

    /// The name of the descriptor, which proves all bytes.
    #[must_use]
    pub fn root(&self) -> ObjectName {
        self.descriptor.name()
    }

    /// Size of the disk, bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.descriptor.size_bytes.get()
    }

    /// Chunk size, bytes.
    #[must_use]
    pub const fn chunk_bytes(&self) -> u64 {
        self.descriptor.chunk.bytes()
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{ByteLen, ChunkSize, Salt};

    use super::*;

    #[test]
    fn a_root_page_must_be_the_one_the_descriptor_names() {
        let zeros = Descriptor::empty(ByteLen(4096), ChunkSize::DEFAULT, Salt::SHARED);
        assert!(Content::new(zeros, None).is_ok());
        assert!(matches!(Content::new(zeros, Some(vec![1])), Err(BadContent::RootPage { wanted: None, .. })));
        let page = b"any bytes do here".to_vec();
        let root = Some(ObjectName::of(Kind::Page, Salt::SHARED, &page));
        let some = Descriptor { root, ..zeros };
        assert!(matches!(Content::new(some, None), Err(BadContent::RootPage { got: None, .. })));
        let content = Content::new(some, Some(page)).expect("they go together");
        let descriptor = hex::encode(content.descriptor().encode());
        let root = VersionRoot { descriptor, root_page: content.root_page().map(hex::encode), commit: None };
        assert_eq!(Content::from_root(&root), Ok(content));
    }

    #[test]
    fn a_size_no_disk_has_is_refused() {
        for size in [0, SIZE_BYTES_MAX + 1] {
            let descriptor = Descriptor::empty(ByteLen(size), ChunkSize::DEFAULT, Salt::SHARED);
            assert_eq!(Content::new(descriptor, None), Err(BadContent::Size(size)));
        }
    }
}
