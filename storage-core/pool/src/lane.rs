//! How much a client sends at a time. All its puts share one link, so each that is under way makes the others take longer. Without a
//! limit, a link that is slower than what is put at once makes nodes look slow that only wait for their bytes; each object then went
//! to further nodes, over the same link.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use storage_core::units::{u64_from, usize_from};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are of so many bytes.
const UNIT: u64 = 1 << 10;

/// The bytes that are under way to other nodes.
pub(crate) struct Lane {
    units: u32,
    free: Arc<Semaphore>,
    bytes: AtomicU64,
}

/// A request that is under way. It leaves the lane when this is dropped.
pub(crate) struct Turn {
    lane: Arc<Lane>,
    bytes: u64,
    /// Bytes that were under way when it began, its own among them.
    pub(crate) with_others: u64,
    _permit: OwnedSemaphorePermit,
}

impl Lane {
    /// At most so many bytes are under way at a time, or one request.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let units = u32::try_from(u64_from(bytes_max) / UNIT).unwrap_or(u32::MAX).max(1);
        Arc::new(Self { units, free: Arc::new(Semaphore::new(usize_from(units.into()))), bytes: AtomicU64::new(0) })
    }

    /// Waits until there is room for a request of so many bytes. The first one that waits goes first.
    pub(crate) async fn begin(self: &Arc<Self>, bytes: u64) -> Turn {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let permit = self.free.clone().acquire_many_owned(units).await.expect("nobody closes it");
        let with_others = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        Turn { lane: self.clone(), bytes, with_others, _permit: permit }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_and_one_request_always_goes() {
        let lane = Lane::new(1 << 20);
        let first = lane.begin(600 << 10).now_or_never().expect("there is room");
        let second = lane.begin(424 << 10).now_or_never().expect("there is room");
        assert_eq!((first.with_others, second.with_others), (600 << 10, 1 << 20));
        assert!(lane.begin(1).now_or_never().is_none(), "the lane is full");
        drop((first, second));
        let large = lane.begin(5 << 20).now_or_never().expect("nothing else is under way");
        assert_eq!(large.with_others, 5 << 20);
        assert!(lane.begin(1).now_or_never().is_none(), "it takes the whole lane");
    }
}
