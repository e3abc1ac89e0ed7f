//! [`Demand`]: whether somebody waits for objects, or did a moment ago. Work that nobody waits for gives way meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use storage_core::lock;
use tokio::time::Instant;

/// How long a read counts after it has ended. What it sent may be in the queues of the kernel and of the link for so long, and
/// a program that reads one object after the other is about to ask for the next one.
const LATELY: Duration = Duration::from_millis(200);

/// The reads that are under way in this process: its own from other nodes, and those of other nodes from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand(Arc<Reads>);

#[derive(Debug, Default)]
struct Reads {
    under_way: AtomicUsize,
    /// When one ended the last time.
    ended: Mutex<Option<Instant>>,
}

/// A read that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Reads>);

impl Demand {
    /// Counts a read.
    pub(crate) fn read(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Relaxed);
        UnderWay(self.0.clone())
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0.under_way.load(Relaxed) > 0
    }

    /// Whether there is one, or was one a moment ago.
    pub(crate) fn was_lately(&self) -> bool {
        self.is_any() || lock(&self.0.ended).is_some_and(|ended| ended.elapsed() < LATELY)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *lock(&self.0.ended) = Some(Instant::now());
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_until_a_moment_after_it_ended() {
        let demand = Demand::default();
        assert!(!demand.is_any() && !demand.was_lately());
        let (one, other) = (demand.read(), demand.read());
        drop(one);
        std::thread::sleep(LATELY);
        assert!(demand.is_any() && demand.was_lately());
        drop(other);
        assert!(!demand.is_any() && demand.was_lately());
        std::thread::sleep(LATELY);
        assert!(!demand.was_lately());
    }
}
