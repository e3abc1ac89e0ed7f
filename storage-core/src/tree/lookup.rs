//! From places on a disk to the chunks that hold them.

use std::ops::Range;

use super::{Leaf, Lookup, MissingPages, Pages, slot_of, span};
use crate::{ChunkIndex, Corrupt, Descriptor, ObjectName, units::usize_from};

/// A chunk of a disk, and what it is made of; none: zeros.
pub type Located = (ChunkIndex, Option<Leaf>);

/// The chunks of a range, with one entry for each of them. The range is clipped to the disk. The answer is as long as
/// the range, so for a large disk ask for a part at a time, or use [`lookup_present`].
///
/// # Errors
/// When a page is not of the level that its place needs, or an entry has blocks that the disk's chunks do not have.
pub fn lookup(
    descriptor: &Descriptor,
    range: Range<ChunkIndex>,
    pages: &Pages<'_>,
) -> Result<Lookup<Vec<Located>>, Corrupt> {
    let range = clipped(descriptor, range);
    let mut missing = MissingPages::default();
    let mut found = vec![None; usize_from(range.end - range.start)];
    walk(descriptor, &range, pages, &mut missing, &mut |index, leaf| {
        *found.get_mut(usize_from(index.0 - range.start)).expect("only chunks of the range are found") =
            Some(leaf.clone());
    })?;
    Ok(Lookup::unless(missing, || (range.start..).map(ChunkIndex).zip(found).collect()))
}

/// The chunks of a range that are not zeros, in order. The cost grows with their number, not with the range.
///
/// # Errors
/// Like [`lookup`].
pub fn lookup_present(
    descriptor: &Descriptor,
    range: Range<ChunkIndex>,
    pages: &Pages<'_>,
) -> Result<Lookup<Vec<(ChunkIndex, Leaf)>>, Corrupt> {
    let mut missing = MissingPages::default();
    let mut found = Vec::new();
    walk(descriptor, &clipped(descriptor, range), pages, &mut missing, &mut |index, leaf| {
        found.push((index, leaf.clone()));
    })?;
    Ok(Lookup::unless(missing, || found))
}

fn clipped(descriptor: &Descriptor, range: Range<ChunkIndex>) -> Range<u64> {
    let end = range.end.0.min(descriptor.chunks());
    range.start.0.min(end)..end
}

fn walk(
    descriptor: &Descriptor,
    range: &Range<u64>,
    pages: &Pages<'_>,
    missing: &mut MissingPages,
    found: &mut dyn FnMut(ChunkIndex, &Leaf),
) -> Result<(), Corrupt> {
    match (&descriptor.root, descriptor.height().checked_sub(1)) {
        (Some(root), Some(level)) if !range.is_empty() => {
            walk_page(descriptor, root, level, 0, range, pages, missing, found)
        }
        _ => Ok(()),
    }
}

/// Visits the part of the range below one page, whose slots begin at chunk `first`.
#[expect(clippy::too_many_arguments, reason = "a struct would only rename the arguments of this recursion")]
fn walk_page(
    descriptor: &Descriptor,
    name: &ObjectName,
    level: u8,
    first: u64,
    range: &Range<u64>,
    pages: &Pages<'_>,
    missing: &mut MissingPages,
    found: &mut dyn FnMut(ChunkIndex, &Leaf),
) -> Result<(), Corrupt> {
    let Some(page) = missing.page(pages, name, level)? else { return Ok(()) };
    let last_index = (range.end - 1).min(first + (span(level) << 8) - 1);
    let slots = slot_of(range.start.max(first), level)..=slot_of(last_index, level);
    for slot in slots {
        let index = first + u64::from(slot) * span(level);
        if level > 0 {
            if let Some(child) = page.child(slot) {
                walk_page(descriptor, child, level - 1, index, range, pages, missing, found)?;
            }
        } else if let Some(leaf) = page.entry(slot) {
            leaf.check(descriptor.chunk)?;
            found(ChunkIndex(index), leaf);
        }
    }
    Ok(())
}
