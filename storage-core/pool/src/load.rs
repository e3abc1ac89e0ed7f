//! What this client has under way to other nodes, and whether a put that is not answered is slow because of its node.
//!
//! All puts share this client's link. One that waits for its bytes to pass, behind and beside others, must not make its node look
//! slow: its objects would go to a further node, over the same link, and that makes all of them slower still. So a node only counts
//! as slow when its time is up and one of these holds:
//! - The link has carried twice as many bytes meanwhile as were ever under way beside the request.
//! - Nothing has come to its end anywhere for as long as the node may take.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use storage_core::lock::lock;
use tokio::time::Instant;

/// The bytes that are under way to other nodes.
pub(crate) struct Load(Mutex<Seen>);

/// How much there is of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Bytes that are under way, or wait to be sent.
    pub(crate) under_way: u64,
    /// Bytes that were under way and are not any more, since the client began.
    pub(crate) ended: u64,
    /// When the last of those came to its end.
    pub(crate) last_end: Instant,
}

/// A request that is under way, until this is dropped.
pub(crate) struct Flight {
    load: Arc<Load>,
    bytes: u64,
}

impl Load {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Seen { under_way: 0, ended: 0, last_end: Instant::now() })))
    }

    pub(crate) fn seen(&self) -> Seen {
        *lock(&self.0)
    }

    /// A request of so many bytes begins.
    pub(crate) fn begin(self: &Arc<Self>, bytes: u64) -> Flight {
        lock(&self.0).under_way += bytes;
        Flight { load: self.clone(), bytes }
    }
}

impl Flight {
    /// Only so many of its bytes are sent: the node has the others.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        lock(&self.load.0).under_way -= self.bytes - bytes;
        self.bytes = bytes;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut seen = lock(&self.load.0);
        seen.under_way -= self.bytes;
        seen.ended += self.bytes;
        seen.last_end = Instant::now();
    }
}

/// A request whose answer somebody waits for.
pub(crate) struct Wait {
    since: Instant,
    /// Time that the node may take where nothing else is under way.
    patience: Duration,
    ended_before: u64,
    /// The most bytes that were under way since then.
    most: u64,
}

impl Wait {
    pub(crate) fn begin(since: Instant, seen: Seen, patience: Duration) -> Self {
        Self { since, patience, ended_before: seen.ended, most: seen.under_way }
    }

    /// When the node counts as slow, if nothing more comes to its end until then.
    pub(crate) fn slow_at(&mut self, seen: Seen) -> Instant {
        self.most = self.most.max(seen.under_way);
        let carried = seen.ended - self.ended_before;
        let from = if carried >= 2 * self.most { self.since } else { self.since.max(seen.last_end) };
        from + self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_busy_link_makes_no_node_slow() {
        let mut now = Instant::now();
        let mut seen = Seen { under_way: 24 * MIB, ended: 100 * MIB, last_end: now };
        let mut wait = Wait::begin(now, seen, PATIENCE);
        // A MiB each second: the last one ends long after its time.
        while seen.under_way > MIB {
            now += Duration::from_secs(1);
            seen = Seen { under_way: seen.under_way - MIB, ended: seen.ended + MIB, last_end: now };
            assert_eq!(wait.slow_at(seen), now + PATIENCE);
        }
    }

    #[test]
    fn a_silent_node_is_slow_in_its_time_beside_others_that_come_and_go() {
        let begun = Instant::now();
        let mut seen = Seen { under_way: 9 * MIB, ended: 0, last_end: begun };
        let mut wait = Wait::begin(begun, seen, PATIENCE);
        for _ in 0..100 {
            seen.ended += 8 * MIB;
            seen.last_end += Duration::from_millis(10);
            wait.slow_at(seen);
        }
        assert_eq!(wait.slow_at(seen), begun + PATIENCE);
    }

    #[test]
    fn a_lonely_node_has_the_usual_time() {
        let now = Instant::now();
        let seen = Seen { under_way: MIB, ended: 100 * MIB, last_end: now };
        let later = now + Duration::from_secs(60);
        assert_eq!(Wait::begin(later, seen, PATIENCE).slow_at(seen), later + PATIENCE);
    }

    #[test]
    fn what_is_under_way_is_counted_until_its_end() {
        let load = Load::new();
        let mut flight = load.begin(8 * MIB);
        let other = load.begin(MIB);
        assert_eq!((load.seen().under_way, load.seen().ended), (9 * MIB, 0));
        flight.shrink(2 * MIB);
        assert_eq!((load.seen().under_way, load.seen().ended), (3 * MIB, 0), "the node has the rest");
        drop((flight, other));
        assert_eq!((load.seen().under_way, load.seen().ended), (0, 3 * MIB));
    }
}
