//! A clock that tests move by hand.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use muster_api::Timestamp;
use muster_controller::clock::Clock;

/// A clock that stands until a test moves it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub(crate) fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.micros())))
    }

    /// Moves the clock forward.
    pub(crate) fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}
