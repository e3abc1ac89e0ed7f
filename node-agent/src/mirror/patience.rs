//! How long requests wait for bytes that are not on this node.
//!
//! [`Config::read_deadline`](super::Config::read_deadline) is what a program waits for at most, and a program's read may
//! reach the disk twice: the kernel first reads ahead, and when that has failed it asks for the page alone. The kernel of a
//! guest does the same before it. So the first request gets nine tenths of the time. A request for bytes that another one
//! did not get a moment ago gets the last tenth. While a clock is wrong, nothing can be had for long, and a guest whose
//! read was given up is paused: then this holds for longer, so that it is not resumed for a minute of waiting.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use storage_core::lock;
use tokio::time::Instant;

/// Part of the time that is kept for the request after a failed one. As long after the failure it is taken for another
/// read.
const LAST_PART: u32 = 10;
/// The same while a clock is wrong. The pool asks again after a minute, so that this has to be longer.
const CLOCK_OFF: Duration = Duration::from_secs(120);
/// How long before a deadline the work for it ends: what came last is still to be stored, and who waits for work that
/// failed is told why. Of a short time it is a fourth.
const LANDING: Duration = Duration::from_millis(250);
/// Most failed ranges remembered. A disk seldom has more reads under way.
const FAILED_MAX: usize = 256;

/// The ranges of a disk that could not be had lately.
#[derive(Default)]
pub(crate) struct Patience {
    /// Each with the time until which it is remembered.
    failed: Mutex<VecDeque<(Range<u64>, Instant, Cause)>>,
    /// Whether the last request that needed other nodes failed because a clock is wrong.
    clock_off: AtomicBool,
}

/// Why a read was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody gave the bytes.
    NoSource,
    /// Nobody could be asked, because a clock is wrong.
    ClockOff,
}

/// When the work for a deadline has to end.
pub(super) fn landing(deadline: Instant) -> Instant {
    deadline - LANDING.min(deadline.saturating_duration_since(Instant::now()) / 4)
}

impl Patience {
    /// When a read of `range` that begins now has to be given up. `whole` is what its program may wait.
    pub(crate) fn deadline(&self, range: &Range<u64>, now: Instant, whole: Duration) -> Instant {
        let last = whole / LAST_PART;
        let mut failed = lock(&self.failed);
        failed.retain(|(_, until, _)| now <= *until);
        let again = failed.iter().any(|(other, ..)| other.start < range.end && range.start < other.end);
        now + if again { last } else { whole - last }
    }

    /// Remembers that a read of `range` was given up now. To be called before it is answered.
    pub(crate) fn gave_up(&self, range: Range<u64>, now: Instant, whole: Duration, cause: Cause) {
        let remembered = match cause {
            Cause::NoSource => whole / LAST_PART,
            Cause::ClockOff => CLOCK_OFF,
        };
        let mut failed = lock(&self.failed);
        if failed.len() == FAILED_MAX {
            failed.pop_front();
        }
        failed.push_back((range, now + remembered, cause));
    }

    /// Notes how a request ended that needed other nodes.
    pub(crate) fn note(&self, cause: Option<Cause>) {
        self.clock_off.store(cause == Some(Cause::ClockOff), Ordering::Relaxed);
    }

    /// The clock is right again: reads that were given up for it get their whole time.
    pub(crate) fn clock_is_right(&self) {
        self.clock_off.store(false, Ordering::Relaxed);
        lock(&self.failed).retain(|(.., cause)| *cause != Cause::ClockOff);
    }

    /// Whether the last request that needed other nodes failed because a clock is wrong.
    pub(crate) fn is_clock_off(&self) -> bool {
        self.clock_off.load(Ordering::Relaxed)
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
        patience.gave_up(0..8192, now, whole, Cause::NoSource);
        assert_eq!(left(4096..8192, now), 6, "the kernel asks again for a part");
        assert_eq!(left(8192..12288, now), 54, "other bytes are another read");
        let later = now + Duration::from_secs(7);
        assert_eq!(left(0..8192, later), 54, "somebody tries again later");
        patience.gave_up(0..8192, later, whole, Cause::ClockOff);
        assert_eq!(left(0..8192, later + Duration::from_secs(100)), 6, "its guest was paused meanwhile");
        patience.clock_is_right();
        assert_eq!(left(0..8192, later), 54);
        (0..1000).for_each(|n| patience.gave_up(n..n + 1, later, whole, Cause::NoSource));
        assert_eq!(lock(&patience.failed).len(), FAILED_MAX);
    }
}
