//! Wakes: in-process hints that something was committed. Each says "look", never what to do; a lost one costs a delay.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use muster_api::NodeId;
use tokio::sync::{Notify, watch};

use crate::reconcile::Loop;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Wakes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    events: watch::Sender<u64>,
    operations: watch::Sender<u64>,
    nodes: Mutex<HashMap<NodeId, watch::Sender<u64>>>,
    loops: [Notify; Loop::ALL.len()],
}

impl Default for Wakes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            events: watch::Sender::new(0),
            operations: watch::Sender::new(0),
            nodes: Mutex::default(),
            loops: std::array::from_fn(|_| Notify::new()),
        }))
    }
}

impl Wakes {
    /// Tells a reconcile loop to look.
    pub fn reconcile(&self, which: Loop) {
        self.0.loops[which.index()].notify_one();
    }

    /// Returns when [`Wakes::reconcile`] was called since the last return.
    pub async fn reconcile_wanted(&self, which: Loop) {
        self.0.loops[which.index()].notified().await;
    }

    pub(crate) fn events(&self) {
        self.0.events.send_modify(|n| *n += 1);
    }

    /// Changes whenever events were committed.
    #[must_use]
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.0.events.subscribe()
    }

    pub(crate) fn operations(&self) {
        self.0.operations.send_modify(|n| *n += 1);
    }

    /// Changes whenever an operation was.
    #[must_use]
    pub fn watch_operations(&self) -> watch::Receiver<u64> {
        self.0.operations.subscribe()
    }

    pub(crate) fn node(&self, node: NodeId) {
        self.sender(node).send_modify(|n| *n += 1);
    }

    /// Changes whenever the node's desired state was.
    #[must_use]
    pub fn watch_node(&self, node: NodeId) -> watch::Receiver<u64> {
        self.sender(node).subscribe()
    }

    fn sender(&self, node: NodeId) -> watch::Sender<u64> {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(node).or_insert_with(|| watch::Sender::new(0)).clone()
    }
}
