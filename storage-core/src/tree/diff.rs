//! What differs between two versions. The time this takes grows with what differs, not with the disk.

use super::{Leaf, Lookup, MissingPages, Page, Pages, Subtree, TreeError, span};
use crate::{ChunkIndex, Corrupt, Descriptor};

/// One chunk that differs between two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Number of the chunk, from 0.
    pub index: ChunkIndex,
    /// What it is made of in the left version; none: zeros.
    pub left: Option<Leaf>,
    /// What it is made of in the right version; none: zeros.
    pub right: Option<Leaf>,
}

/// The chunks that differ, in order. Subtrees with equal names are not read. The sizes of the disks are not compared.
///
/// # Errors
/// When the chunk sizes differ, or a page or entry does not fit its place.
pub fn diff(left: &Descriptor, right: &Descriptor, pages: &Pages<'_>) -> Result<Lookup<Vec<Change>>, TreeError> {
    if left.chunk != right.chunk {
        return Err(TreeError::ChunkSizes { left: left.chunk, right: right.chunk });
    }
    let mut walk = Walk { left, right, pages, missing: MissingPages::default(), changes: Vec::new() };
    if let Some(level) = left.height().max(right.height()).checked_sub(1) {
        walk.below(Subtree::of(left, level), Subtree::of(right, level), level, 0)?;
    }
    let Walk { missing, changes, .. } = walk;
    Ok(Lookup::unless(missing, || changes))
}

struct Walk<'a> {
    left: &'a Descriptor,
    right: &'a Descriptor,
    pages: &'a Pages<'a>,
    missing: MissingPages,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn below(&mut self, left: Subtree, right: Subtree, level: u8, first: u64) -> Result<(), Corrupt> {
        if left == right {
            return Ok(());
        }
        let (Some(left_page), Some(right_page)) = (self.open(left, level)?, self.open(right, level)?) else {
            return Ok(());
        };
        for slot in 0..=u8::MAX {
            let at = first + u64::from(slot) * span(level);
            if level > 0 {
                let left = left_page.child(slot, level);
                let right = right_page.child(slot, level);
                self.below(left, right, level - 1, at)?;
                continue;
            }
            let (left, right) = (left_page.entry(slot), right_page.entry(slot));
            if left != right {
                left.iter().try_for_each(|leaf| leaf.check(self.left.chunk))?;
                right.iter().try_for_each(|leaf| leaf.check(self.right.chunk))?;
                self.changes.push(Change { index: ChunkIndex(at), left: left.cloned(), right: right.cloned() });
            }
        }
        Ok(())
    }

    /// The page of a subtree. None: it is missing, which is noted.
    fn open(&mut self, subtree: Subtree, level: u8) -> Result<Option<Opened>, Corrupt> {
        Ok(match subtree {
            Subtree::Page(name) => self.missing.page(self.pages, &name, level)?.map(Opened::Page),
            other => Some(Opened::Unwritten(other)),
        })
    }
}

enum Opened {
    Page(std::sync::Arc<Page>),
    /// No page of this level exists: there is nothing at all, or a lower tree in slot 0.
    Unwritten(Subtree),
}

impl Opened {
    fn child(&self, slot: u8, level: u8) -> Subtree {
        match self {
            Opened::Page(page) => page.child(slot).map_or(Subtree::Absent, |name| Subtree::Page(*name)),
            Opened::Unwritten(Subtree::Below { root, root_level }) if slot == 0 => {
                Subtree::first_child(*root, *root_level, level)
            }
            Opened::Unwritten(_) => Subtree::Absent,
        }
    }

    fn entry(&self, slot: u8) -> Option<&Leaf> {
        match self {
            Opened::Page(page) => page.entry(slot),
            Opened::Unwritten(_) => None,
        }
    }
}
