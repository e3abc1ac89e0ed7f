//! How the kernel treats each open of the file: with its page cache, or around it.
//!
//! | who has it open | the next direct open | the next buffered open |
//! |---|---|---|
//! | nobody | around | cached |
//! | direct openers | around | around |
//! | buffered openers | cached (the kernel's own O_DIRECT on a cached file) | cached |
//!
//! Measured: around the cache, direct requests run side by side (through it, the kernel lets one synchronous write in at
//! a time), and buffered reads of warm pages never reach us. A guest's disk is opened once, direct; tools read it
//! buffered. Both ways at once would leave stale pages behind, so an inode is only ever in one; the one mixture that is
//! left (a direct writer that came while buffered readers were there) drops the pages it wrote before it is answered.
//! Pages kept from earlier opens are dropped at the first cached open after anything went around them.

use std::sync::{Mutex, PoisonError};

use super::wire::{OPEN_DIRECT_IO, OPEN_KEEP_CACHE, OPEN_PARALLEL_DIRECT_WRITES};

/// How one open is treated; travels as its file handle.
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

/// An open that was let in.
pub(super) struct Opened {
    pub(super) way: Way,
    /// For the kernel, `OPEN_…`.
    pub(super) flags: u32,
}

/// Who has the file open.
#[derive(Default)]
pub(super) struct Opens {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    cached: u64,
    around: u64,
    /// Something went around the pages since the last cached open.
    stale: bool,
}

impl Opens {
    pub(super) fn open(&self, direct: bool) -> Opened {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match way {
            Way::Cached => &mut counts.cached,
            Way::Around => &mut counts.around,
        };
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_only_ever_in_one_way() {
        let opens = Opens::default();
        assert_eq!(opens.open(false).way, Way::Cached);
        assert_eq!(opens.open(true).way, Way::Cached, "buffered readers are there");
        opens.release(Way::Cached);
        opens.release(Way::Cached);
        assert_eq!(opens.open(true).way, Way::Around);
        assert_eq!(opens.open(false).way, Way::Around, "direct writers are there");
        opens.release(Way::Around);
        opens.release(Way::Around);
        let after = opens.open(false);
        assert_eq!(after.way, Way::Cached);
        assert_eq!(after.flags, 0, "pages from before are dropped");
        assert_eq!(opens.open(false).flags, OPEN_KEEP_CACHE);
    }
}
