//! How long requests wait for bytes that are not on this node.
//!
//! [`Config::read_deadline`](super::Config::read_deadline) is what a program waits for at most, and a program's read may
//! reach the disk twice: the kernel first reads ahead, and when that has failed it asks for the page alone. The kernel of a
//! guest does the same before it. So the first request gets nine tenths of the time. A request for bytes that another one
//! did not get a moment ago gets the last tenth.

use std::{collections::VecDeque, ops::Range, sync::Mutex, time::Duration};

use storage_core::lock;
use tokio::time::Instant;

/// Part of the time that is kept for the request after a failed one, and the time within which it has to come.
const LAST_PART: u32 = 10;
/// How long before a deadline the work for it ends: what came last is still to be stored, and who waits for work that
/// failed is told why.
pub(super) const LANDING: Duration = Duration::from_millis(250);
/// Most failed ranges remembered. A disk seldom has more reads under way.
const FAILED_MAX: usize = 256;

/// The ranges of a disk that could not be had lately.
#[derive(Default)]
pub(crate) struct Patience {
    failed: Mutex<VecDeque<(Range<u64>, Instant)>>,
}

impl Patience {
    /// When a read of `range` that begins now has to be given up. `whole` is what its program may wait.
    pub(crate) fn deadline(&self, range: &Range<u64>, now: Instant, whole: Duration) -> Instant {
        let last = whole / LAST_PART;
        let mut failed = lock(&self.failed);
        while failed.front().is_some_and(|(_, at)| now.duration_since(*at) > last) {
            failed.pop_front();
        }
        let again = failed.iter().any(|(other, _)| other.start < range.end && range.start < other.end);
        now + if again { last } else { whole - last }
    }

    /// Remembers that a read of `range` was given up now. To be called before it is answered.
    pub(crate) fn gave_up(&self, range: Range<u64>, now: Instant) {
        let mut failed = lock(&self.failed);
        if failed.len() == FAILED_MAX {
            failed.pop_front();
        }
        failed.push_back((range, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_and_its_repetition_get_the_whole_time_together() {
        let (patience, whole, now) = (Patience::default(), Duration::from_secs(60), Instant::now());
        let left = |range: Range<u64>, now: Instant| (patience.deadline(&range, now, whole) - now).as_secs();
        assert_eq!(left(0..8192, now), 54);
        patience.gave_up(0..8192, now);
        assert_eq!(left(4096..8192, now), 6, "the kernel asks again for a part");
        assert_eq!(left(8192..12288, now), 54, "other bytes are another read");
        let later = now + Duration::from_secs(7);
        assert_eq!(left(0..8192, later), 54, "somebody tries again later");
        (0..1000).for_each(|n| patience.gave_up(n..n + 1, later));
        assert_eq!(lock(&patience.failed).len(), FAILED_MAX);
    }
}
