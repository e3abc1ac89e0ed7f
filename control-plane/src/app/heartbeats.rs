//! The newest heartbeat of each node, in memory. They reach the database in batches.

use std::{collections::HashMap, sync::Mutex};

use muster_api::{NodeId, Timestamp, node_protocol::Heartbeat};
use storage_core::lock;

/// How much later than heard the database knows of a heartbeat that changed nothing, milliseconds.
const FLUSH_EVERY_MS: i64 = 5_000;

/// The newest heartbeat of each node.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<NodeId, Heard>>);

#[derive(Clone, Debug)]
struct Heard {
    at: Timestamp,
    beat: Heartbeat,
    flushed: Option<Timestamp>,
}

impl Heartbeats {
    pub(crate) fn hear(&self, node: NodeId, at: Timestamp, beat: Heartbeat) {
        let mut heard = lock(&self.0);
        let flushed = heard.get(&node).and_then(|before| before.flushed);
        heard.insert(node, Heard { at, beat, flushed });
    }

    pub(crate) fn last(&self, node: NodeId) -> Option<(Timestamp, Heartbeat)> {
        lock(&self.0).get(&node).map(|heard| (heard.at, heard.beat.clone()))
    }

    pub(crate) fn forget(&self, node: NodeId) {
        lock(&self.0).remove(&node);
    }

    /// Takes the heartbeats that have to reach the database now.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<(NodeId, Timestamp, Heartbeat)> {
        let mut heard = lock(&self.0);
        let due = |h: &Heard| h.flushed.is_none_or(|f| h.at > f && now.ms_since(f) >= FLUSH_EVERY_MS);
        let taken = heard.iter_mut().filter(|(_, h)| due(h)).map(|(id, h)| {
            h.flushed = Some(h.at);
            (*id, h.at, h.beat.clone())
        });
        taken.collect()
    }
}
