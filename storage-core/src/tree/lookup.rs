//! From places on a disk to the chunks that hold them.

use std::ops::Range;

use super::{Leaf, Lookup, MissingPages, Pages, slot_of, span};
use crate::{ChunkIndex, Corrupt, Descriptor, ObjectName, units::to_usize};

/// A chunk of a disk and what it is made of; none: zeros.
pub type Located = (ChunkIndex, Option<Leaf>);

/// The chunks of a range, one entry each, none for zeros. The range is clipped to the disk; the answer has its length,
/// so a caller who walks a large disk asks for a part at a time, or for [`lookup_present`].
pub fn lookup(
    descriptor: &Descriptor,
    range: Range<ChunkIndex>,
    pages: &Pages<'_>,
) -> Result<Lookup<Vec<Located>>, Corrupt> {
    let range = clipped(descriptor, range);
    let mut missing = MissingPages::default();
    let mut found = vec![None; to_usize(range.end - range.start)];
    walk(descriptor, &range, pages, &mut missing, &mut |index, leaf| {
        if let Some(place) = found.get_mut(to_usize(index.0 - range.start)) {
            *place = Some(leaf.clone());
        }
    })?;
    Ok(Lookup::unless(missing, || (range.start..).map(ChunkIndex).zip(found).collect()))
}

/// The chunks of a range that are not zeros, in order. Costs what is there, not how long the range is.
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

/// The part of the range below one page, whose slots begin at chunk `first`.
#[expect(clippy::too_many_arguments, reason = "one recursion; a struct would only rename its arguments")]
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
