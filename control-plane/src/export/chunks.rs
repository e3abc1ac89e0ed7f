//! Maps the chunks of a version: which are zeros, and which are the same as in the version that it was made from.
//!
//! The answer has a bounded number of cells, each for the same number of chunks. Both trees are walked side by side, some chunks
//! at a time. Pages that both trees have are fetched once. What cannot be walked in time stays unknown.

use std::{collections::HashMap, time::Duration};

use muster_api::version::Chunks;
use muster_pool::PoolClient;
use storage_core::units::usize_from;
use storage_core::{
    ChunkIndex, Descriptor,
    tree::{Leaf, lookup_present},
};
use tokio::time::Instant;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// Most cells of a map.
const CELLS_MAX: u64 = 1 << 14;
/// Chunks that are looked up in one step.
const STEP_CHUNKS: u64 = 1 << 16;
/// When the walk begins no further step.
const WALK_FOR: Duration = Duration::from_secs(5);
/// Longest wait for the pages of one step.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Maps the chunks of `content`, compared with those of `parent`. A parent whose pages cannot be read is as unknown as none.
///
/// # Errors
/// [`ReadError`] if pages of the version itself cannot be read or are damaged.
pub async fn chunks(pool: PoolClient, content: &Content, parent: Option<&Content>) -> Result<Chunks, ReadError> {
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
    Ok(Chunks { chunk_bytes: content.chunk_bytes(), count, step, zero, shared, boot_order: None })
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
#[expect(clippy::cast_precision_loss, reason = "far below 2^53 chunks")]
fn share(part: u64, whole: u64) -> f64 {
    (part as f64 * 1000.0 / whole as f64).round() / 1000.0
}
