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
    pub(crate) fn begin(seen: Seen, patience: Duration) -> Self {
        Self { since: Instant::now(), patience, ended_before: seen.ended, most: seen.under_way }
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
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);
    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_busy_link_makes_no_node_slow_and_a_silent_node_is_slow_beside_others() {
        let load = Load::new();
        let mut flights: Vec<Flight> = (0..24).map(|_| load.begin(MIB)).collect();
        let mut wait = Wait::begin(load.seen(), PATIENCE);
        // A MiB each second: the last one ends long after its time.
        while flights.len() > 1 {
            advance(Duration::from_secs(1)).await;
            flights.pop();
            assert!(wait.slow_at(load.seen()) > Instant::now(), "{} are left", flights.len());
        }
        // Nothing else is under way now, and it does not end.
        advance(PATIENCE).await;
        assert_eq!(wait.slow_at(load.seen()), Instant::now());

        // Others come and go on a fast link, and one node is silent.
        let mut wait = Wait::begin(load.seen(), PATIENCE);
        let begun = Instant::now();
        for _ in 0..100 {
            advance(Duration::from_millis(10)).await;
            drop(load.begin(8 * MIB));
            wait.slow_at(load.seen());
        }
        assert_eq!(wait.slow_at(load.seen()), begun + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lonely_node_has_the_usual_time_and_what_it_has_already_is_not_under_way() {
        let load = Load::new();
        advance(Duration::from_secs(60)).await;
        let mut flight = load.begin(8 * MIB);
        let mut wait = Wait::begin(load.seen(), PATIENCE);
        flight.shrink(MIB);
        assert_eq!(wait.slow_at(load.seen()), Instant::now() + PATIENCE);
        assert_eq!((load.seen().under_way, load.seen().ended), (MIB, 0));
        drop(flight);
        assert_eq!((load.seen().under_way, load.seen().ended), (0, MIB));
    }
}
