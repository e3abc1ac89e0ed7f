//! Decides for each open of the file whether its requests use the kernel's page cache or bypass it.
//!
//! | already open | a direct open then | a buffered open then |
//! |---|---|---|
//! | not at all | bypasses the cache | is cached |
//! | bypassing the cache | bypasses the cache | bypasses the cache |
//! | cached | is cached (the kernel handles O_DIRECT on a cached file itself) | is cached |
//!
//! Measured: when they bypass the cache, direct requests run in parallel (on a cached file the kernel admits one
//! synchronous write at a time). When they are cached, buffered reads of warm pages never reach this process. A guest
//! opens its disk once, direct; tools read it buffered.
//!
//! Using both ways at once would leave stale pages in the cache, so all opens of the inode use the same way. One mixture
//! remains: a direct writer that arrives while buffered readers are there. The pages it wrote are dropped from the cache
//! before its write is answered. Pages kept from earlier opens are dropped at the first cached open after requests have
//! bypassed the cache.

use std::sync::Mutex;

use storage_core::lock;

use super::wire::{OPEN_DIRECT_IO, OPEN_KEEP_CACHE, OPEN_PARALLEL_DIRECT_WRITES};

/// How one open of the file is treated. Its number is the file handle of that open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Cached,
    Around,
}

impl From<u64> for Way {
    fn from(handle: u64) -> Self {
        if handle == 1 { Self::Around } else { Self::Cached }
    }
}

impl From<Way> for u64 {
    fn from(way: Way) -> Self {
        match way {
            Way::Cached => 0,
            Way::Around => 1,
        }
    }
}

pub(super) struct Opened {
    pub(super) way: Way,
    /// `OPEN_…` flags for the answer to the kernel.
    pub(super) flags: u32,
}

/// Counts the opens of the file.
#[derive(Default)]
pub(super) struct Opens {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    cached: u64,
    around: u64,
    /// Whether requests may have bypassed the page cache since the last cached open.
    stale: bool,
}

impl Opens {
    pub(super) fn open(&self, direct: bool) -> Opened {
        let mut counts = lock(&self.counts);
        if counts.around > 0 || (direct && counts.cached == 0) {
            counts.around += 1;
            counts.stale = true;
            let flags = OPEN_DIRECT_IO | OPEN_PARALLEL_DIRECT_WRITES;
            return Opened { way: Way::Around, flags };
        }
        counts.cached += 1;
        let fresh = std::mem::replace(&mut counts.stale, false);
        let flags = if fresh { 0 } else { OPEN_KEEP_CACHE };
        Opened { way: Way::Cached, flags }
    }

    pub(super) fn release(&self, way: Way) {
        let mut counts = lock(&self.counts);
        let count = match way {
            Way::Cached => &mut counts.cached,
            Way::Around => &mut counts.around,
        };
        *count = count.checked_sub(1).expect("the kernel releases each open once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_opens_of_the_file_are_treated_the_same_way() {
        let opens = Opens::default();
        assert_eq!(opens.open(false).way, Way::Cached);
        assert_eq!(opens.open(true).way, Way::Cached, "buffered readers have it open");
        opens.release(Way::Cached);
        opens.release(Way::Cached);
        assert_eq!(opens.open(true).way, Way::Around);
        assert_eq!(opens.open(false).way, Way::Around, "direct writers have it open");
        opens.release(Way::Around);
        opens.release(Way::Around);
        let after = opens.open(false);
        assert_eq!(after.way, Way::Cached);
        assert_eq!(after.flags, 0, "pages of earlier opens are dropped");
        assert_eq!(opens.open(false).flags, OPEN_KEEP_CACHE);
    }
}
