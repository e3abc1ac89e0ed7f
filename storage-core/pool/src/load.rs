//! What this client has under way to other nodes, and whether a put that is not answered is slow because of its node.
//!
//! All puts share this client's link. One that waits for its bytes to pass, behind and beside others, must not make its node look
//! slow: its objects would go to a further node, over the same link, and that makes all of them slower still. So a node is slow only
//! if it ended nothing for as long as it may take, and if the link is not to blame, either because it has carried twice as many bytes
//! meanwhile as were seen under way to other nodes, or because nothing at all came to its end for as long.
//!
//! Reads, and what goes to the repository, use the same link and are not counted.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use storage_core::{StoreId, lock::lock};
use tokio::time::Instant;

/// The requests that are under way to other nodes.
#[derive(Default)]
pub(crate) struct Load(Mutex<State>);

#[derive(Default)]
struct State {
    /// Bytes that are under way.
    under_way: u64,
    /// Bytes of the requests that succeeded, since the client began.
    carried: u64,
    last_end: Option<Instant>,
    /// Bytes that are under way to each node, and when the last request to it succeeded.
    nodes: HashMap<StoreId, (u64, Option<Instant>)>,
}

/// What is seen at a moment, by one who waits for a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Bytes that are under way to other nodes than this one.
    pub(crate) elsewhere: u64,
    carried: u64,
    last_end: Option<Instant>,
    last_end_here: Option<Instant>,
}

/// A request that is under way, until this is dropped.
pub(crate) struct Flight<'l> {
    load: &'l Load,
    to: StoreId,
    bytes: u64,
}

impl Load {
    /// For one who waits for a node.
    pub(crate) fn seen(&self, node: StoreId) -> Seen {
        let state = lock(&self.0);
        // To a node that was sent nothing yet nothing is under way.
        let (here, last_end_here) = state.nodes.get(&node).copied().unwrap_or_default();
        Seen { elsewhere: state.under_way - here, carried: state.carried, last_end: state.last_end, last_end_here }
    }

    /// So many bytes begin to be sent to a node.
    pub(crate) fn begin(&self, to: StoreId, bytes: u64) -> Flight<'_> {
        let mut state = lock(&self.0);
        state.under_way += bytes;
        state.nodes.entry(to).or_default().0 += bytes;
        Flight { load: self, to, bytes }
    }
}

impl Flight<'_> {
    /// The node has taken all of it.
    pub(crate) fn succeeded(self) {
        let mut state = lock(&self.load.0);
        let now = Some(Instant::now());
        state.carried += self.bytes;
        state.last_end = now;
        state.nodes.entry(self.to).or_default().1 = now;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.load.0);
        state.under_way -= self.bytes;
        state.nodes.entry(self.to).or_default().0 -= self.bytes;
    }
}

/// A request whose answer somebody waits for.
pub(crate) struct Wait {
    /// None: this node's own store, which needs no link.
    node: Option<StoreId>,
    since: Instant,
    /// Time that the node may take.
    patience: Duration,
    carried_before: u64,
    /// The most bytes that were seen under way to other nodes since then.
    most_elsewhere: u64,
}

impl Wait {
    /// For this node's own store.
    pub(crate) fn for_own(since: Instant, patience: Duration) -> Self {
        Self { node: None, since, patience, carried_before: 0, most_elsewhere: 0 }
    }

    /// For another node.
    pub(crate) fn for_node(node: StoreId, since: Instant, patience: Duration, load: &Load) -> Self {
        let seen = load.seen(node);
        Self { node: Some(node), since, patience, carried_before: seen.carried, most_elsewhere: seen.elsewhere }
    }

    /// When the node counts as slow, if nothing more comes to its end until then.
    pub(crate) fn slow_at(&mut self, load: &Load) -> Instant {
        match self.node {
            None => self.since + self.patience,
            Some(node) => self.slow_at_with(load.seen(node)),
        }
    }

    fn slow_at_with(&mut self, seen: Seen) -> Instant {
        self.most_elsewhere = self.most_elsewhere.max(seen.elsewhere);
        let is_carried = seen.carried - self.carried_before >= 2 * self.most_elsewhere;
        let last_end = if is_carried { seen.last_end_here } else { seen.last_end };
        last_end.map_or(self.since, |end| end.max(self.since)) + self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);
    const MIB: u64 = 1 << 20;

    fn wait(since: Instant, seen: Seen) -> Wait {
        let (carried_before, most_elsewhere) = (seen.carried, seen.elsewhere);
        Wait { node: Some(StoreId::generate()), since, patience: PATIENCE, carried_before, most_elsewhere }
    }

    #[test]
    fn a_busy_link_makes_no_node_slow() {
        let mut now = Instant::now();
        let mut seen = Seen { elsewhere: 24 * MIB, carried: 100 * MIB, last_end: None, last_end_here: None };
        let mut wait = wait(now, seen);
        // A MiB each second: the last one ends long after its time.
        for _ in 0..24 {
            now += Duration::from_secs(1);
            let (elsewhere, carried) = (seen.elsewhere - MIB, seen.carried + MIB);
            seen = Seen { elsewhere, carried, last_end: Some(now), ..seen };
            assert_eq!(wait.slow_at_with(seen), now + PATIENCE);
        }
    }

    /// As much goes to it as to all others together, and never arrives.
    #[test]
    fn a_silent_node_is_slow_in_its_time_beside_others_that_come_and_go() {
        let begun = Instant::now();
        let mut seen = Seen { elsewhere: 8 * MIB, carried: 0, last_end: None, last_end_here: None };
        let mut wait = wait(begun, seen);
        for number in 1..=100 {
            seen.carried += 8 * MIB;
            seen.last_end = Some(begun + Duration::from_millis(10 * number));
            wait.slow_at_with(seen);
        }
        assert_eq!(wait.slow_at_with(seen), begun + PATIENCE);
        // It is not slow as long as it takes something else.
        seen.last_end_here = seen.last_end;
        assert_eq!(wait.slow_at_with(seen), begun + Duration::from_secs(1) + PATIENCE);
    }

    #[test]
    fn a_lonely_node_has_the_usual_time_and_so_has_the_own_store_whatever_the_link_does() {
        let (load, other) = (Load::default(), StoreId::generate());
        load.begin(other, MIB).succeeded();
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(Wait::for_node(other, later, PATIENCE, &load).slow_at(&load), later + PATIENCE);
        let earlier = Instant::now();
        let mut own = Wait::for_own(earlier, PATIENCE);
        let _busy = load.begin(other, 100 * MIB);
        load.begin(other, MIB).succeeded();
        assert_eq!(own.slow_at(&load), earlier + PATIENCE);
    }

    #[test]
    fn only_what_arrived_counts_as_carried() {
        let (load, one, other) = (Load::default(), StoreId::generate(), StoreId::generate());
        let flights = [load.begin(one, MIB), load.begin(one, 8 * MIB), load.begin(other, 3 * MIB)];
        assert_eq!((load.seen(one).elsewhere, load.seen(other).elsewhere), (3 * MIB, 9 * MIB));
        let [first, second, third] = flights;
        first.succeeded();
        drop(second);
        assert_eq!((load.seen(other).elsewhere, load.seen(one).carried), (0, MIB));
        assert!(load.seen(one).last_end_here.is_some() && load.seen(other).last_end_here.is_none());
        drop(third);
        assert_eq!((load.seen(one).elsewhere, load.seen(one).carried), (0, MIB));
    }
}
