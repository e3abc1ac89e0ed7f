//! The buffer that requests are read into.

use std::io;

use memmap2::MmapMut;
use storage_core::BLOCK_BYTES;

use super::{connection::REQUEST_BYTES_MAX, wire::WRITE_DATA_AT};
use crate::mirror::read::BLOCK;

/// A buffer for one request at a time. The data of a WRITE starts at a block boundary in memory.
///
/// The data beyond `SMALL_BYTES` may lie in a huge page. The kernel then pins one page instead of one per 4 KiB, both to
/// fill it and to write it to the disk. (256 KiB writes at depth 1 reach 0.72 of a raw file with a huge page,
/// 0.63 without.) Memory is only used once a request touches it.
///
/// ```text
/// unaligned … | header | SMALL_BYTES in small pages | the rest of REQUEST_BYTES_MAX, maybe in a huge page |
///                      ^ aligned to a block         ^ aligned to HUGE_PAGE_BYTES
/// ```
pub(super) struct RequestSpace {
    memory: MmapMut,
    /// Where the data of a WRITE starts in `memory`.
    data_at: usize,
    /// Length of the request it holds, in bytes.
    filled: usize,
    huge: bool,
    /// Whether a request touched more than the small pages.
    large: bool,
}

impl RequestSpace {
    pub(super) fn new() -> io::Result<Self> {
        Self::map(false)
    }

    /// A buffer whose large part is a huge page, if the kernel agrees.
    pub(super) fn with_huge_page() -> io::Result<Self> {
        Self::map(true)
    }

    fn map(huge: bool) -> io::Result<Self> {
        let memory = MmapMut::map_anon(BLOCK + SMALL_BYTES + 2 * HUGE_PAGE_BYTES)?;
        let start = memory.as_ptr().addr();
        let huge_at = (start + BLOCK + SMALL_BYTES).next_multiple_of(HUGE_PAGE_BYTES) - start;
        // Without `NoHugePage` for the rest, even a small request could take 2 MiB. EINVAL: this kernel has no huge
        // pages at all.
        let mut advised = memory.advise(memmap2::Advice::NoHugePage);
        if huge && advised.is_ok() {
            advised = memory.advise_range(memmap2::Advice::HugePage, huge_at, HUGE_PAGE_BYTES);
        }
        if let Err(error) = advised {
            tracing::debug!(error = %error, "the kernel chooses the page size of request buffers");
        }
        Ok(Self { memory, data_at: huge_at - SMALL_BYTES, filled: 0, huge, large: false })
    }

    /// The whole buffer, to read a request into; then call [`Self::set_filled`].
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.data_at - WRITE_DATA_AT..self.data_at + REQUEST_BYTES_MAX as usize]
    }

    /// Records that a request of `bytes` bytes was read.
    pub(super) fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes;
        self.large |= bytes > WRITE_DATA_AT + SMALL_BYTES;
    }

    /// The request it holds, as long as [`Self::set_filled`] said.
    pub(super) fn request(&self) -> &[u8] {
        &self.memory[self.data_at - WRITE_DATA_AT..][..self.filled]
    }

    /// The data of the WRITE it holds, or room for the data of a READ (a READ request ends before this place). `bytes` is
    /// at most [`REQUEST_BYTES_MAX`].
    pub(super) fn data(&mut self, bytes: usize) -> &mut [u8] {
        self.large |= bytes > SMALL_BYTES;
        &mut self.memory[self.data_at..][..REQUEST_BYTES_MAX as usize][..bytes]
    }

    /// Releases the memory that a large request used.
    pub(super) fn release_memory(&mut self) {
        if self.large
            && let Ok(fresh) = Self::map(self.huge)
        {
            *self = fresh;
        }
    }
}

/// Requests with up to this many bytes of data do not touch the huge page. Most requests are that small.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// Size of a huge page on x86-64, and on ARM with 4 KiB pages. Elsewhere the advice has no effect.
const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!((REQUEST_BYTES_MAX as u64).is_multiple_of(BLOCK_BYTES), "requests are whole blocks");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_write_is_block_aligned_and_the_largest_fits() {
        let mut space = RequestSpace::new().expect("memory");
        let data = space.data(REQUEST_BYTES_MAX as usize);
        assert!(data.as_ptr().addr().is_multiple_of(BLOCK), "{:p}", data.as_ptr());
        assert_eq!(data.len(), REQUEST_BYTES_MAX as usize);
        data.fill(7);
        space.set_filled(WRITE_DATA_AT + 100);
        assert_eq!(space.request().get(WRITE_DATA_AT..), Some(&[7; 100][..]));
    }

    #[test]
    fn memory_of_a_large_request_is_released() {
        let mut space = RequestSpace::with_huge_page().expect("memory");
        space.data(SMALL_BYTES).fill(7);
        space.release_memory();
        assert_eq!(space.data(1), [7], "a small request keeps its memory");
        space.data(REQUEST_BYTES_MAX as usize).fill(7);
        space.release_memory();
        assert!(space.data(REQUEST_BYTES_MAX as usize).iter().all(|byte| *byte == 0));
    }
}
