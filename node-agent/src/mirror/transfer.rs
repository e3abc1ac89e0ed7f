//! Requests that only move whole blocks between memory and one delta. Such a request is begun here, then its bytes are
//! moved by a caller that can move those of many requests at once, and then it is finished here.
//!
//! If that is not possible (part of a block, a held disk, blocks from several places, a lock that is taken, an error), the
//! request cannot be begun here, and the caller uses [`Disk::try_change`] or [`Disk::try_read`] instead. Nothing here
//! waits: a caller that has begun one request must not wait for a lock, because it may hold that lock itself.

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
    // The fields are dropped in this order: the write must have ended before another one may merge into its blocks.
    admitted: Admission,
    _stripes: Guards<'a>,
    blocks: Range<u64>,
}

/// A read whose blocks are all in one delta.
pub(crate) struct PendingRead {
    layers: Arc<Layers>,
    layer: usize,
}

impl Disk {
    /// Begins a write. `None` if it must be done by [`Disk::try_change`].
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

    /// Begins a read. `None` if it must be done by [`Disk::try_read`].
    pub(crate) fn begin_read(&self, offset: u64, bytes: u64) -> Option<PendingRead> {
        let blocks = self.whole_blocks(offset, bytes)?;
        self.check_usable().ok()?;
        let layers = self.layers();
        match layers.source(blocks.start, blocks.end) {
            (Source::Delta(layer), run) if run == blocks.end - blocks.start => Some(PendingRead { layers, layer }),
            _ => None,
        }
    }

    /// The blocks of a range. `None` unless it consists of whole blocks of the disk, at least one.
    fn whole_blocks(&self, offset: u64, bytes: u64) -> Option<Range<u64>> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.size_bytes())?;
        let whole = bytes > 0 && offset.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES);
        whole.then_some(offset / BLOCK_BYTES..end / BLOCK_BYTES)
    }
}

impl PendingWrite<'_> {
    /// The file that the bytes must be written to, at the disk's own offset.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.admitted.layers().current().delta_fd()
    }

    /// Writes the bytes there, recorded for the power-cut tests.
    #[cfg(test)]
    pub(super) fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.admitted.layers().current().write_delta(self.blocks.start * BLOCK_BYTES, bytes)
    }

    /// Finishes the write. All its bytes must be in the file.
    pub(crate) fn finish(self) {
        self.admitted.layers().current().blocks_written(self.blocks);
    }
}

impl PendingRead {
    /// The file that has the bytes, at the disk's own offset.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.layers.epochs[self.layer].delta_fd()
    }
}
