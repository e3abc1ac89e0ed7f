//! Maps the chunks of a version: which are zeros, which are the same as in the version that it was made from, and in which
//! order boots read them.
//!
//! The answer has a bounded number of cells, each for the same number of chunks. Both trees are walked side by side, some chunks
//! at a time. Pages that both trees have are fetched once. What cannot be walked in time stays unknown.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use muster_api::{VersionId, version::Chunks};
use muster_pool::PoolClient;
use storage_core::units::{u64_from, usize_from};
use storage_core::{
    ChunkIndex, Descriptor,
    tree::{Leaf, lookup_present},
};
use tokio::time::Instant;

use super::{ReadError, pages::PageSource};
use crate::domain::{boots::BootOrder, versions::Content};

/// Most cells of a map.
const CELLS_MAX: u64 = 1 << 14;
/// Chunks that are looked up in one step.
const STEP_CHUNKS: u64 = 1 << 16;
/// When the walk begins no further step.
const WALK_FOR: Duration = Duration::from_secs(5);
/// Longest wait for the pages of one step.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Maps the chunks of `content`, compared with those of `parent`. A parent whose pages cannot be read is as unknown as none.
/// `boots` may be the boot order of a version that this one was made from, so that it may name chunks that are zeros here.
///
/// # Errors
/// [`ReadError`] if pages of the version itself cannot be read or are damaged.
pub async fn chunks(
    pool: PoolClient,
    content: &Content,
    parent: Option<&Content>,
    boots: Option<(VersionId, BootOrder)>,
) -> Result<Chunks, ReadError> {
    let descriptor = *content.descriptor();
    let count = descriptor.chunks();
    // A power of two, so that cells end where pages end.
    let step = count.div_ceil(CELLS_MAX).next_power_of_two();
    let mut pages = PageSource::new(pool.clone());
    pages.add_root(content)?;
    let mut parent = match parent.filter(|parent| parent.chunk_bytes() == content.chunk_bytes()) {
        Some(parent) => pages.add_root(parent).ok().map(|()| *parent.descriptor()),
        None => None,
    };
    let cells = usize_from(count.div_ceil(step));
    let (mut zero, mut shared) = (vec![None; cells], vec![None; cells]);
    let booted: HashSet<u64> = boots.iter().flat_map(|(_, order)| order.chunks()).collect();
    let mut read = HashSet::new();
    let begun = Instant::now();
    let mut at = 0;
    while at < count && begun.elapsed() < WALK_FOR {
        let end = (at + STEP_CHUNKS.max(step)).min(count);
        let leaves = present(&mut pages, &descriptor, at..end).await?;
        let theirs = match &parent {
            Some(descriptor) => match present(&mut pages, descriptor, at..end).await {
                Ok(leaves) => Some(leaves.into_iter().collect::<HashMap<_, _>>()),
                Err(error) => {
                    tracing::debug!("the parent of a version cannot be compared: {error}");
                    parent = None;
                    None
                }
            },
            None => None,
        };
        let mut counts = vec![(0, 0); usize_from((end - at).div_ceil(step))];
        for (index, leaf) in &leaves {
            let (present, same) = &mut counts[usize_from((index.0 - at) / step)];
            *present += 1;
            read.extend(booted.get(&index.0));
            *same += u64::from(theirs.as_ref().is_some_and(|theirs| theirs.get(index) == Some(leaf)));
        }
        for (n, (present, same)) in counts.into_iter().enumerate() {
            let cell = usize_from(at / step) + n;
            let of = step.min(count - step * cell as u64);
            zero[cell] = Some(share(of - present, of));
            shared[cell] = theirs.is_some().then(|| share(same, of));
        }
        at = end;
    }
    let shared = parent.is_some().then_some(shared);
    let boots = boots.filter(|_| !read.is_empty());
    Ok(Chunks {
        chunk_bytes: content.chunk_bytes(),
        count,
        step,
        zero,
        shared,
        boot_order: boots.as_ref().map(|(_, order)| order_of_cells(order, &read, cells, step)),
        boot_chunks: u64_from(read.len()),
        boots: boots.as_ref().map_or(0, |(_, order)| order.boots()),
        boots_of: boots.map(|(version, _)| version),
    })
}

/// The place of each cell in a boot order, from 0 to 1, as far as it is about chunks in `read`.
fn order_of_cells(order: &BootOrder, read: &HashSet<u64>, cells: usize, step: u64) -> Vec<Option<f64>> {
    let last = u64_from(read.len()).saturating_sub(1).max(1);
    let mut places = vec![None; cells];
    for (place, chunk) in (0..).zip(order.chunks().filter(|chunk| read.contains(chunk))) {
        // The first chunk of a cell has the lowest place.
        places[usize_from(chunk / step)].get_or_insert(part(place, last, 100_000.0));
    }
    places
}

/// The chunks of a range that are not zeros.
async fn present(
    pages: &mut PageSource,
    descriptor: &Descriptor,
    range: std::ops::Range<u64>,
) -> Result<Vec<(ChunkIndex, Leaf)>, ReadError> {
    let range = ChunkIndex(range.start)..ChunkIndex(range.end);
    let deadline = Instant::now() + READ_WITHIN;
    pages.with(deadline, |pages| lookup_present(descriptor, range.clone(), pages)).await
}

/// A part of a whole from 0 to 1, in thousandths, which are short as text.
fn share(of: u64, whole: u64) -> f64 {
    part(of, whole, 1000.0)
}

/// A part of a whole from 0 to 1, in steps of which `steps` are a whole.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 chunks")]
fn part(part: u64, whole: u64, steps: f64) -> f64 {
    (part as f64 * steps / whole as f64).round() / steps
}

#[cfg(test)]
mod tests {
    use muster_api::{DiskId, node_protocol::boot::BootReport};

    use super::*;

    #[test]
    fn a_cell_has_the_place_of_the_chunk_in_it_that_was_read_first() {
        let (disk, version) = (DiskId::generate(), VersionId::generate());
        let mut order = BootOrder::default();
        let chunks = vec![5, 9, 0, 4, 1, 8];
        order.add(&BootReport { disk, version, generation: 1, boot: 1, chunks }, 12).expect("a good list");
        let read: HashSet<u64> = [5, 9, 0, 4, 8].into();
        // Of 5, 9, 0, 4, 8: what is zeros here has no place.
        let each = [Some(0.5), None, None, None, Some(0.75), Some(0.0), None, None, Some(1.0), Some(0.25), None, None];
        assert_eq!(order_of_cells(&order, &read, 12, 1), each);
        assert_eq!(order_of_cells(&order, &read, 3, 4), [Some(0.5), Some(0.0), Some(0.25)]);
        assert_eq!(order_of_cells(&order, &[9].into(), 3, 4), [None, None, Some(0.0)]);
    }
}
