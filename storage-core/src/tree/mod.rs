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
//! - The height is what the disk's size needs, so a lookup costs at most that many page reads: two up to 16 GiB and
//!   three up to 4 TiB at 256 KiB, of which the root page travels with the assignment.
//!
//! Nothing here fetches. Each operation is given a function that has a page or has not, and answers
//! [`Lookup::Missing`] with all the pages it could name so far; the caller gets those, in one batch, and asks again.

mod commit;
mod diff;
mod lookup;
mod page;
mod reach;

use std::{collections::BTreeSet, sync::Arc};

pub use commit::{Committed, commit, grow};
pub use diff::{Change, diff};
pub use lookup::{Located, lookup, lookup_present};
pub use page::{Leaf, Page, Patched, Run, RunSource, Slot};
pub use reach::{Reach, reach};

use crate::{ByteLen, ChunkIndex, ChunkSize, Corrupt, Descriptor, ObjectName};

/// Slots of a page.
pub const FAN_OUT: usize = 256;

/// Gives a page if it is at hand. It must have been checked against its name.
pub type Pages<'a> = dyn Fn(&ObjectName) -> Option<Arc<Page>> + 'a;

/// What an operation on a tree came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lookup<T> {
    /// The answer.
    Found(T),
    /// Pages it needs first; there may be more below them. Never empty, each name once.
    Missing(Vec<ObjectName>),
}

/// Why an operation on a tree was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A page of the tree is not what its place says.
    #[error("the tree is damaged")]
    Corrupt(#[from] Corrupt),
    /// A disk never becomes smaller.
    #[error("a disk of {from} bytes does not become one of {to}")]
    Shrinks {
        /// Its size.
        from: ByteLen,
        /// The size asked for.
        to: ByteLen,
    },
    /// A change lies beyond the disk's end.
    #[error("chunk {index} of a disk of {chunks} chunks")]
    OutOfRange {
        /// The chunk.
        index: ChunkIndex,
        /// Chunks of the disk.
        chunks: u64,
    },
    /// Versions cut into different chunks have no common places.
    #[error("chunks of {left} and of {right} bytes do not compare")]
    ChunkSizes {
        /// Of the one.
        left: ChunkSize,
        /// Of the other.
        right: ChunkSize,
    },
}

impl<T> Lookup<T> {
    /// The answer; none if pages are missing.
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
    /// The page at this level of the tree, or none and noted as missing.
    fn page(&mut self, pages: &Pages<'_>, name: &ObjectName, level: u8) -> Result<Option<Arc<Page>>, Corrupt> {
        match pages(name) {
            Some(page) if page.level() == level => Ok(Some(page)),
            Some(page) => Err(Corrupt::Field { what: "page", field: "level of this place", got: page.level().into() }),
            None => {
                self.0.insert(*name);
                Ok(None)
            }
        }
    }
}

/// A subtree as seen from a level: nothing, a page of that level, or the root of a lower tree that slot 0 leads to
/// (a disk that grew: its old root is the first of its new leaves).
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
