//! The published version that a disk builds on. Its descriptor and root page come with the assignment. Other pages of its
//! tree are fetched once and shared by all disks of the node.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

use muster_api::{DiskId, VersionId, node_protocol::VersionRoot};
use storage_core::{
    ByteLen, ChunkIndex, Descriptor, Kind, ObjectName, hex_text,
    tree::{self, Leaf, Lookup, Page},
};

use super::{
    error::{DiskError, Fault},
    read::Pinned,
};

/// Most pages kept in memory. With chunks of 256 KiB, one page covers 64 MiB of a disk.
const PAGES_MAX: usize = 4096;

/// Decoded pages, shared by all disks of the node.
#[derive(Default)]
pub(crate) struct Pages {
    map: RwLock<HashMap<ObjectName, Arc<Page>>>,
}

impl Pages {
    pub(crate) fn get(&self, name: &ObjectName) -> Option<Arc<Page>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn insert(&self, name: ObjectName, page: Arc<Page>) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= PAGES_MAX {
            // Drop every second page, whichever it is: a page that is needed again costs one small fetch.
            let mut keep = false;
            map.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        map.insert(name, page);
    }
}

/// Why leaves could not be looked up.
#[derive(Debug)]
pub(crate) enum NoLeaves {
    /// These pages must be fetched first.
    Missing(Vec<ObjectName>),
    /// The tree is damaged.
    Fault(Fault),
}

/// A published version, ready for lookups.
pub(crate) struct Base {
    pub(crate) version: VersionId,
    pub(crate) root: VersionRoot,
    pub(crate) descriptor: Descriptor,
    root_page: Option<(ObjectName, Arc<Page>)>,
}

impl Base {
    /// Decodes what came with the assignment, and checks that the root page is the one the descriptor names (I4).
    pub(crate) fn open(disk: DiskId, version: VersionId, root: &VersionRoot) -> Result<Self, DiskError> {
        let corrupt = |what: String| DiskError::Corrupt { disk, what };
        let bytes = hex::decode(&root.descriptor).map_err(|_| corrupt("the descriptor is not hex".to_owned()))?;
        let descriptor = Descriptor::decode(&bytes).map_err(|e| corrupt(format!("descriptor: {e}")))?;
        let root_page = match (descriptor.root, &root.root_page) {
            (None, _) => None,
            (Some(name), Some(page)) => {
                let bytes = hex_text::decode(page).ok_or_else(|| corrupt("the root page is not hex".to_owned()))?;
                let got = ObjectName::of(Kind::Page, descriptor.salt, &bytes);
                if got != name {
                    return Err(corrupt(format!("the root page is {got}, the descriptor names {name}")));
                }
                let page = Page::decode(&bytes).map_err(|e| corrupt(format!("root page: {e}")))?;
                Some((name, Arc::new(page)))
            }
            // The root page is fetched like any other page.
            (Some(_), None) => None,
        };
        Ok(Self { version, root: root.clone(), descriptor, root_page })
    }

    /// Finds a page: the root page, one the request has pinned, or one the node has in memory.
    pub(crate) fn page(&self, pages: &Pages, pinned: &Pinned, name: &ObjectName) -> Option<Arc<Page>> {
        match &self.root_page {
            Some((root, page)) if root == name => Some(page.clone()),
            _ => pinned.pages.get(name).cloned().or_else(|| pages.get(name)),
        }
    }

    /// Looks up the leaves of `chunks`, one for each chunk that the version has. `None` for a chunk of zeros.
    pub(crate) fn leaves(
        &self,
        pages: &Pages,
        pinned: &Pinned,
        chunks: Range<u64>,
    ) -> Result<Vec<(ChunkIndex, Option<Leaf>)>, NoLeaves> {
        let find = |name: &ObjectName| self.page(pages, pinned, name);
        match tree::lookup(&self.descriptor, ChunkIndex(chunks.start)..ChunkIndex(chunks.end), &find) {
            Ok(Lookup::Found(leaves)) => Ok(leaves),
            Ok(Lookup::Missing(names)) => Err(NoLeaves::Missing(names)),
            Err(corrupt) => Err(NoLeaves::Fault(Fault::Corrupt(corrupt.to_string()))),
        }
    }

    pub(crate) fn size_bytes(&self) -> ByteLen {
        self.descriptor.size_bytes
    }
}
