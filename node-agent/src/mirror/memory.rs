//! Block-aligned buffers, one per thread and use: direct I/O needs them, and nothing is allocated per request.

use std::cell::RefCell;

use storage_core::BLOCK_BYTES;

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Block([u8; 4096]);

const _: () = assert!(BLOCK_BYTES == 4096, "Block is one block");

/// Memory that starts at a block boundary.
#[derive(Default)]
pub(crate) struct AlignedBuf {
    blocks: Vec<Block>,
}

/// Whether bytes start at a block boundary in memory, as direct I/O wants them.
pub(crate) fn is_block_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(size_of::<Block>())
}

thread_local! {
    static READ: RefCell<AlignedBuf> = const { RefCell::new(AlignedBuf { blocks: Vec::new() }) };
    static WRITE: RefCell<AlignedBuf> = const { RefCell::new(AlignedBuf { blocks: Vec::new() }) };
}

impl AlignedBuf {
    /// At least `bytes` of aligned memory, rounded up to whole blocks; what is in it is left from before.
    pub(crate) fn slice(&mut self, bytes: usize) -> &mut [u8] {
        let needed = bytes.div_ceil(size_of::<Block>());
        if self.blocks.len() < needed {
            self.blocks.resize(needed, Block([0; 4096]));
        }
        // SAFETY: `needed` blocks are initialised (above), a Block is exactly its bytes (repr(C), size = align = 4096),
        // and the borrow of `self` covers the slice.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<u8>(), needed * size_of::<Block>()) }
    }

    /// Uses this thread's buffer for writing, `bytes` of it.
    pub(crate) fn with<R>(bytes: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        WRITE.with_borrow_mut(|buf| f(buf.slice(bytes).get_mut(..bytes).unwrap_or_default()))
    }

    /// Uses this thread's buffer for reading, `bytes` of it rounded up to whole blocks. Not to be nested.
    pub(crate) fn with_read<R>(bytes: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        READ.with_borrow_mut(|buf| f(buf.slice(bytes)))
    }
}
