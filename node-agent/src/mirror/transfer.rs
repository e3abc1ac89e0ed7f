//! Requests that only move whole blocks between memory and one delta. They are begun here, the bytes are moved by
//! whoever can do many at once, and then they are finished here.
//!
//! Whatever stands in the way of that - a part of a block, a held disk, blocks from several places, a lock that is taken,
//! an error - is no answer: the request is done again by [`Disk::try_change`] or [`Disk::try_read`], from the start.
//! Nothing here waits: who has begun one request must not wait for another (the locks are the same).

use std::{ops::Range, os::fd::BorrowedFd, sync::Arc};

use storage_core::BLOCK_BYTES;

use super::{
    config::WritePolicy,
    disk::{Admission, Disk, Layers},
    read::Source,
    write::{Guards, PIECE_BYTES_MAX},
};

/// A write that was admitted and whose bytes are not yet in the delta.
pub(crate) struct PendingWrite<'a> {
    // Dropped in this order: the epoch may be frozen before another merges.
    admitted: Admission,
    _stripes: Guards<'a>,
    blocks: Range<u64>,
}

/// A read all of whose blocks are in one delta.
pub(crate) struct PendingRead {
    layers: Arc<Layers>,
    layer: usize,
}

impl Disk {
    /// Begins a write, or leaves it to [`Disk::try_change`].
    pub(crate) fn begin_write(&self, offset: u64, bytes: u64) -> Option<PendingWrite<'_>> {
        let blocks = self.whole_blocks(offset, bytes)?;
        if bytes > PIECE_BYTES_MAX || self.node().config.write_policy != WritePolicy::Bitmap {
            return None;
        }
        self.check_writable().ok()?;
        let stripes = self.stripes().try_lock_shared(offset, offset + bytes)?;
        let admitted = self.admit().ok()?;
        Some(PendingWrite { admitted, _stripes: stripes, blocks })
    }

    /// Begins a read, or leaves it to [`Disk::try_read`].
    pub(crate) fn begin_read(&self, offset: u64, bytes: u64) -> Option<PendingRead> {
        let blocks = self.whole_blocks(offset, bytes)?;
        self.check_usable().ok()?;
        let layers = self.layers();
        match layers.source(blocks.start, blocks.end) {
            (Source::Delta(layer), run) if run == blocks.end - blocks.start => Some(PendingRead { layers, layer }),
            _ => None,
        }
    }

    /// The blocks of a range of the disk, if it is some and only whole ones.
    fn whole_blocks(&self, offset: u64, bytes: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.size_bytes())?;
        let whole = bytes > 0 && offset.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES);
        whole.then_some(offset / BLOCK_BYTES..end / BLOCK_BYTES)
    }
}

impl PendingWrite<'_> {
    /// Where the bytes go, at the disk's own offset.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.admitted.layers().current().delta_fd()
    }

    /// Puts the bytes there, where tests see it.
    #[cfg(test)]
    pub(super) fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.admitted.layers().current().write_delta(self.blocks.start * BLOCK_BYTES, bytes)
    }

    /// The bytes are in the file, all of them.
    pub(crate) fn finish(self) {
        self.admitted.layers().current().blocks_written(self.blocks);
    }
}

impl PendingRead {
    /// Where the bytes are, at the disk's own offset.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.layers.epochs.get(self.layer).expect("a source names one of the layers").delta_fd()
    }
}
