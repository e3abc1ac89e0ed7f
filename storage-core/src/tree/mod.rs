//! The versioned segment tree: an immutable, wide tree of pages over the chunks of a disk.
//!
//! ```text
//!   level 1   [ . . 2 . . . . . 200 . ]              a page of 256 slots; an absent slot is zeros
//!                  |              |
//!   level 0   [ 0 1 2 . . 255 ] [ . 7 . ]            256 chunks each: 64 MiB at 256 KiB
//!               | | |               |
//!             chunks              chunk              leaf entries: Whole{name}, or Patched{base, packs, runs}
//! ```
//!
//! Invariants:
//! - **I5** Pages are never rewritten. A commit writes new pages for the paths it changes and shares the rest; a clone
//!   copies the descriptor and nothing else; versions can be dropped in any order.
//! - A zero chunk, an empty page and an empty tree are absent. Equal pages have equal names, so what did not change
//!   is found by comparing names.
//! - The height is what the disk's size needs, and a lookup reads at most one page per level. With chunks of 256 KiB
//!   these are two up to 16 GiB and three up to 4 TiB. The root page travels with the assignment.
//!
//! Nothing here fetches pages. Each operation is given a function that returns the pages at hand. When one is not, the
//! operation answers [`Lookup::Missing`] with all missing pages it could find so far; the caller fetches those in one
//! batch and calls again.

mod commit;
mod leaf;
mod lookup;
mod page;
mod patch;
mod reach;

use std::{collections::BTreeSet, sync::Arc};

pub use commit::{Committed, commit};
pub use leaf::{Leaf, Patched, Run, RunSource};
pub use lookup::{Located, lookup, lookup_present};
pub use page::{Page, Slot};
pub use patch::{Leaving, Patch};
pub use reach::Reach;

use crate::{ByteLen, ChunkIndex, Corrupt, Descriptor, ObjectName};

/// Number of slots of a page.
pub const FAN_OUT: usize = 256;

/// Gives a page if it is at hand. The page must have been checked against its name.
pub type Pages<'a> = dyn Fn(&ObjectName) -> Option<Arc<Page>> + 'a;

/// The result of an operation on a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup<T> {
    /// The answer: all pages that it needs were there.
    Found(T),
    /// Pages that the operation needs first, each name once, at least one. More may be missing below them.
    Missing(Vec<ObjectName>),
}

/// Why an operation on a tree was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A page of the tree is not what its place says.
    #[error("the tree is damaged")]
    Corrupt(#[from] Corrupt),
    /// The new size is smaller. A disk never shrinks.
    #[error("a disk of {from} bytes cannot shrink to {to}")]
    Shrinks {
        /// Size that the disk has now.
        from: ByteLen,
        /// Size that was asked for.
        to: ByteLen,
    },
    /// A change lies beyond the disk's end.
    #[error("chunk {index} is beyond the end of a disk of {chunks} chunks")]
    OutOfRange {
        /// The chunk that was to be changed.
        index: ChunkIndex,
        /// Number of chunks of the disk.
        chunks: u64,
    },
}

impl<T> Lookup<T> {
    /// The answer. None if pages are missing.
    pub fn found(self) -> Option<T> {
        match self {
            Lookup::Found(answer) => Some(answer),
            Lookup::Missing(_) => None,
        }
    }

    /// The answer unless something is missing.
    fn unless(missing: MissingPages, answer: impl FnOnce() -> T) -> Lookup<T> {
        if missing.0.is_empty() { Lookup::Found(answer()) } else { Lookup::Missing(missing.0.into_iter().collect()) }
    }
}

#[derive(Default)]
struct MissingPages(BTreeSet<ObjectName>);

impl MissingPages {
    /// The page at this level of the tree. None: it is missing, which is noted.
    fn page(&mut self, pages: &Pages<'_>, name: &ObjectName, level: u8) -> Result<Option<Arc<Page>>, Corrupt> {
        match pages(name) {
            Some(page) if page.level() == level => Ok(Some(page)),
            Some(page) => Err(Corrupt::Field { what: "page", field: "level at this place", got: page.level().into() }),
            None => {
                self.0.insert(*name);
                Ok(None)
            }
        }
    }
}

/// A subtree as seen from a level: nothing, a page of that level, or the root of a lower tree that slot 0 leads to.
/// The last is the case on a disk that grew: the old tree is the first part of the new one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subtree {
    Absent,
    Page(ObjectName),
    Below { root: ObjectName, root_level: u8 },
}

impl Subtree {
    /// The whole tree, seen from `level`, which is at least that of its root.
    fn of(descriptor: &Descriptor, level: u8) -> Subtree {
        match (descriptor.root, descriptor.height().checked_sub(1)) {
            (Some(root), Some(root_level)) if root_level == level => Subtree::Page(root),
            (Some(root), Some(root_level)) => Subtree::Below { root, root_level },
            (None, _) | (_, None) => Subtree::Absent,
        }
    }

    /// For [`Subtree::Below`] seen from `level`: what slot 0 leads to.
    fn first_child(root: ObjectName, root_level: u8, level: u8) -> Subtree {
        if root_level + 1 == level { Subtree::Page(root) } else { Subtree::Below { root, root_level } }
    }
}

/// Chunks below one slot of a page of this level.
const fn span(level: u8) -> u64 {
    1 << (8 * level as u32)
}

/// The slot of a page of this level that leads to a chunk.
const fn slot_of(index: u64, level: u8) -> Slot {
    #[expect(clippy::cast_possible_truncation, reason = "the low eight bits are meant")]
    {
        (index >> (8 * level as u32)) as Slot
    }
}
