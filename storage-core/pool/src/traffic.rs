//! [`Traffic`]: how many bytes of objects went between this process and each node. Only reads are counted: what is put is not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
};

use storage_core::{NodeId, lock::lock};

/// Bytes that went between this process and one node since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerBytes {
    /// Of objects that the node gave to this process.
    pub fetched: u64,
    /// Of objects that this process gave to the node.
    pub served: u64,
}

/// What went to and from each node, and how much this process gave to all callers. It only grows.
#[derive(Debug, Default)]
pub struct Traffic {
    peers: Mutex<HashMap<NodeId, Arc<Counters>>>,
    served: AtomicU64,
}

#[derive(Debug, Default)]
struct Counters {
    fetched: AtomicU64,
    served: AtomicU64,
}

impl Traffic {
    /// The bytes of each node. Some nodes may have left since.
    #[must_use]
    pub fn peers(&self) -> HashMap<NodeId, PeerBytes> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = |c: &Counters| PeerBytes { fetched: read(&c.fetched), served: read(&c.served) };
        lock(&self.peers).iter().map(|(node, counters)| (*node, bytes(counters))).collect()
    }

    /// Bytes that were given to all callers, also to controllers.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(crate) fn count_fetched(&self, from: NodeId, bytes: u64) {
        self.of(from).fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what was given to a node; `None` for a caller that is none.
    pub(crate) fn count_served(&self, to: Option<NodeId>, bytes: u64) {
        self.served.fetch_add(bytes, Ordering::Relaxed);
        if let Some(node) = to {
            self.of(node).served.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn of(&self, node: NodeId) -> Arc<Counters> {
        lock(&self.peers).entry(node).or_default().clone()
    }
}
