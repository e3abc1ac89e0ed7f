//! Lists the extents of a version: runs of chunks that are present. Everything between them is zeros.

use std::time::Duration;

use muster_api::version::Extent;
use muster_pool::PoolClient;
use storage_core::{ChunkIndex, tree::lookup_present};
use tokio::time::Instant;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// Longest wait for the pages of one step.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Chunks looked up in one step. The cost grows with the number of those that are present.
const STEP_CHUNKS: u64 = 1 << 16;

/// Extents of a disk that hold data, as many as one answer may have.
#[derive(Debug, PartialEq, Eq)]
pub struct Extents {
    /// In the order of the disk. They neither overlap nor touch.
    pub items: Vec<Extent>,
    /// Byte to continue from; `None` at the end of the disk.
    pub next: Option<u64>,
}

/// Lists the first `limit` extents from byte `from` on; there are none if `from` is at or after the end of the disk.
/// Extents consist of whole chunks, so zeros inside a chunk that is present count as data.
///
/// # Errors
/// [`ReadError`] if pages cannot be read or are damaged.
pub async fn extents(pool: PoolClient, content: &Content, from: u64, limit: usize) -> Result<Extents, ReadError> {
    let mut pages = PageSource::new(pool);
    pages.add_root(content)?;
    let descriptor = *content.descriptor();
    let (size, chunk_bytes) = (content.size_bytes(), content.chunk_bytes());
    let mut items: Vec<Extent> = Vec::new();
    // Checked first, because the last chunk may extend beyond the end of the disk.
    if from >= size {
        return Ok(Extents { items, next: None });
    }
    let mut index = from / chunk_bytes;
    while index < descriptor.chunks() {
        let end = (index + STEP_CHUNKS).min(descriptor.chunks());
        let range = ChunkIndex(index)..ChunkIndex(end);
        let deadline = Instant::now() + READ_WITHIN;
        for (chunk, _) in pages.with(deadline, |pages| lookup_present(&descriptor, range.clone(), pages)).await? {
            let begins = (chunk.0 * chunk_bytes).max(from);
            let ends = ((chunk.0 + 1) * chunk_bytes).min(size);
            let full = items.len() == limit;
            match items.last_mut() {
                Some(last) if last.offset_bytes + last.length_bytes == begins => last.length_bytes += ends - begins,
                _ if full => return Ok(Extents { items, next: Some(begins) }),
                _ => items.push(Extent { offset_bytes: begins, length_bytes: ends - begins }),
            }
        }
        index = end;
    }
    Ok(Extents { items, next: None })
}
