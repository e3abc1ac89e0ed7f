//! SEEK_DATA and SEEK_HOLE. They are answered from memory: from the bits and the tree pages that are loaded. Pages that
//! are not loaded count as data.

use storage_core::{BLOCK_BYTES, ChunkIndex, tree};

use super::{
    disk::{Disk, Layers},
    error::Fault,
    read::{Pinned, Source},
};

/// Most chunks that are looked up in the tree at once.
const CHUNKS_AT_ONCE: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    Data,
    Hole,
}

impl Disk {
    /// The first offset at or after `offset` that is data or a hole, as `what` says. The end of the disk counts as a hole.
    ///
    /// Fails with [`Fault::NoData`] when `offset` is beyond the end, or no data follows.
    pub(crate) fn seek(&self, offset: u64, what: Seek) -> Result<u64, Fault> {
        let size = self.size_bytes();
        if offset >= size {
            return Err(Fault::NoData);
        }
        let layers = self.layers();
        let end = size / BLOCK_BYTES;
        let mut at = offset / BLOCK_BYTES;
        while at < end {
            let (source, run) = layers.source(at, end);
            let (is_data, run) = match source {
                Source::Delta(_) => (true, run),
                Source::Zero => (false, run),
                Source::Base => self.base_run(&layers, at, at + run),
            };
            if is_data == (what == Seek::Data) {
                return Ok(offset.max(at * BLOCK_BYTES));
            }
            at += run;
        }
        if what == Seek::Hole { Ok(size) } else { Err(Fault::NoData) }
    }

    /// Whether the base has data at block `at`, and for how many blocks (at most to `end`) that is so.
    fn base_run(&self, layers: &Layers, at: u64, end: u64) -> (bool, u64) {
        let base = &layers.base;
        let per_chunk = u64::from(base.descriptor.chunk.blocks());
        let pinned = Pinned::default();
        let known = (base.size_bytes().0.div_ceil(BLOCK_BYTES)).min(end);
        if at >= known {
            return (false, end - at);
        }
        let mut state: Option<bool> = None;
        let mut chunk = at / per_chunk;
        let last = (known - 1) / per_chunk;
        while chunk <= last {
            let to = (last + 1).min((chunk / CHUNKS_AT_ONCE + 1) * CHUNKS_AT_ONCE);
            let find = |name: &storage_core::ObjectName| base.page(&self.node().pages, &pinned, name);
            let range = ChunkIndex(chunk)..ChunkIndex(to);
            match tree::lookup(&base.descriptor, range, &find) {
                Ok(tree::Lookup::Found(leaves)) => {
                    for (index, leaf) in leaves {
                        if *state.get_or_insert(leaf.is_some()) != leaf.is_some() {
                            return (leaf.is_none(), index.0 * per_chunk - at);
                        }
                    }
                }
                // Unknown without a fetch. Calling it data is always allowed.
                Ok(tree::Lookup::Missing(_)) | Err(_) => {
                    if !*state.get_or_insert(true) {
                        return (false, chunk * per_chunk - at);
                    }
                }
            }
            chunk = to;
        }
        (state.expect("at least one chunk was looked up"), known.min((last + 1) * per_chunk) - at)
    }
}
