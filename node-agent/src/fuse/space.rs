//! Memory that requests are read to.

use std::io;

use memmap2::MmapMut;
use storage_core::BLOCK_BYTES;

use super::{connection::REQUEST_BYTES_MAX, wire::WRITE_DATA_AT};
use crate::mirror::read::BLOCK;

/// Where requests are read to, one at a time. The data of a WRITE starts at a block boundary. What it has beyond
/// `SMALL_BYTES` may lie in a huge page: the kernel pins that once instead of each 4 KiB, to fill it and to write it to the
/// disk (256 KiB writes to direct deltas at depth 1: 0.72 of the raw file, with small pages 0.63). Pages are taken as
/// requests need them.
///
/// ```text
/// anywhere … | header | SMALL_BYTES in small pages | the rest of REQUEST_BYTES_MAX, maybe in a huge page |
///                     ^ a block                    ^ HUGE_PAGE_BYTES
/// ```
pub(super) struct RequestSpace {
    memory: MmapMut,
    /// Where the data of a WRITE starts.
    data_at: usize,
    /// Length of the request that is in it.
    filled: usize,
    huge: bool,
    /// Something large was in it.
    large: bool,
}

impl RequestSpace {
    pub(super) fn new() -> io::Result<Self> {
        Self::map(false)
    }

    /// With a huge page for what is large.
    pub(super) fn with_huge_page() -> io::Result<Self> {
        Self::map(true)
    }

    fn map(huge: bool) -> io::Result<Self> {
        let memory = MmapMut::map_anon(BLOCK + SMALL_BYTES + 2 * HUGE_PAGE_BYTES)?;
        let start = memory.as_ptr().addr();
        let huge_at = (start + BLOCK + SMALL_BYTES).next_multiple_of(HUGE_PAGE_BYTES) - start;
        // Without the first a small request may take 2 MiB. EINVAL: this kernel has no huge pages at all.
        let mut advised = memory.advise(memmap2::Advice::NoHugePage);
        if huge && advised.is_ok() {
            advised = memory.advise_range(memmap2::Advice::HugePage, huge_at, HUGE_PAGE_BYTES);
        }
        if let Err(error) = advised {
            tracing::debug!(error = %error, "request buffers are whatever pages the kernel likes");
        }
        Ok(Self { memory, data_at: huge_at - SMALL_BYTES, filled: 0, huge, large: false })
    }

    /// All of it, to be filled.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let header_at = self.data_at - WRITE_DATA_AT;
        self.memory.get_mut(header_at..self.data_at + REQUEST_BYTES_MAX as usize).unwrap_or_default()
    }

    /// A request of `bytes` was read to it.
    pub(super) fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes;
        self.large |= bytes > WRITE_DATA_AT + SMALL_BYTES;
    }

    /// The request that is in it.
    pub(super) fn request(&self) -> &[u8] {
        let header_at = self.data_at - WRITE_DATA_AT;
        self.memory.get(header_at..header_at + self.filled).unwrap_or_default()
    }

    /// The data of a WRITE, or room for that of a READ, whose request ends before it.
    pub(super) fn data(&mut self, bytes: usize) -> &mut [u8] {
        self.large |= bytes > SMALL_BYTES;
        self.memory.get_mut(self.data_at..self.data_at + bytes).unwrap_or_default()
    }

    /// Gives back what something large took.
    pub(super) fn give_back(&mut self) {
        if self.large
            && let Ok(fresh) = Self::map(self.huge)
        {
            *self = fresh;
        }
    }
}

/// Requests up to this size, which most are, take no huge page.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// Of x86-64 and of ARM with 4 KiB pages; elsewhere it is only a hint that is not taken.
const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!((REQUEST_BYTES_MAX as u64).is_multiple_of(BLOCK_BYTES), "requests are whole blocks");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_write_start_at_a_block_and_the_largest_fits() {
        let mut space = RequestSpace::new().expect("memory");
        let data = space.data(REQUEST_BYTES_MAX as usize);
        assert!(data.as_ptr().addr().is_multiple_of(BLOCK), "{:p}", data.as_ptr());
        assert_eq!(data.len(), REQUEST_BYTES_MAX as usize);
        data.fill(7);
        space.set_filled(WRITE_DATA_AT + 100);
        assert_eq!(space.request().get(WRITE_DATA_AT..), Some(&[7; 100][..]));
    }

    #[test]
    fn what_a_large_request_took_is_given_back() {
        let mut space = RequestSpace::with_huge_page().expect("memory");
        space.data(SMALL_BYTES).fill(7);
        space.give_back();
        assert_eq!(space.data(1), [7], "nothing large was in it");
        space.data(REQUEST_BYTES_MAX as usize).fill(7);
        space.give_back();
        assert!(space.data(REQUEST_BYTES_MAX as usize).iter().all(|byte| *byte == 0));
    }
}
