//! The reconcile loops by name, how each of them fares, and the wakes that make one run before its period is over.
//!
//! A wake is a hint within this process that something was committed. It says "look", never what to do: a lost one
//! delays the work until the loop's next period and loses nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_api::{NodeId, Timestamp};
use storage_core::lock;
use tokio::sync::{Notify, watch};

/// A reconcile loop. `reconcile/` has a file with the pass of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loop {
    /// Writes heartbeats to the database and notices silent nodes.
    Nodes,
    /// Places members, counts them, ends their operations.
    Deployments,
    /// Marks instances of silent nodes as unknown, and takes that back.
    Instances,
    /// Drives cuts and saves to their end.
    Snapshots,
    /// Begins scheduled snapshots that are due, and deletes those that nobody wants any more.
    Protection,
    /// Takes disks that are detached from their instances.
    Disks,
    /// Puts the disks of instances back to snapshots.
    Restores,
    /// Begins rounds of the sweep, and tells nodes to carry them out.
    Sweep,
    /// Ends operations past their deadline and forgets what is old.
    Overdue,
}

impl Loop {
    /// All of them, in the order in which their statuses are kept.
    pub const ALL: [Self; 9] = [
        Self::Nodes,
        Self::Deployments,
        Self::Instances,
        Self::Snapshots,
        Self::Protection,
        Self::Disks,
        Self::Restores,
        Self::Sweep,
        Self::Overdue,
    ];

    /// Name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Deployments => "deployments",
            Self::Instances => "instances",
            Self::Snapshots => "snapshots",
            Self::Protection => "protection",
            Self::Disks => "disks",
            Self::Restores => "restores",
            Self::Sweep => "sweep",
            Self::Overdue => "overdue",
        }
    }

    /// Longest time between two passes, milliseconds.
    #[must_use]
    pub const fn period_ms(self) -> u64 {
        match self {
            Self::Nodes => 1_000,
            Self::Deployments
            | Self::Instances
            | Self::Snapshots
            | Self::Protection
            | Self::Disks
            | Self::Restores
            | Self::Sweep => 2_000,
            Self::Overdue => 10_000,
        }
    }
}

/// What one pass of a loop saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Things it looked at.
    pub seen: usize,
    /// Things it changed.
    pub acted: usize,
}

/// How the passes of a loop went since the process began.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Passes that ended, also those that failed.
    pub passes: u64,
    /// When the newest pass ended.
    pub last_run: Option<Timestamp>,
    /// How long the newest pass took.
    pub took: Duration,
    /// What the newest pass that succeeded did.
    pub did: Counts,
    /// Passes that failed.
    pub failures: u64,
    /// Error of the newest pass; `None` if it succeeded.
    pub last_error: Option<String>,
}

/// The status of every loop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Mutex<[Status; Loop::ALL.len()]>>);

impl Statuses {
    /// The status of one loop.
    #[must_use]
    pub fn get(&self, which: Loop) -> Status {
        lock(&self.0)[which as usize].clone()
    }

    pub(crate) fn update(&self, which: Loop, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.0)[which as usize]);
    }
}

/// Who wants to hear of commits. Clones share it.
#[derive(Clone, Debug)]
pub struct Wakes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    events: watch::Sender<u64>,
    operations: watch::Sender<u64>,
    revoked: watch::Sender<u64>,
    nodes: Mutex<HashMap<NodeId, watch::Sender<u64>>>,
    loops: [Notify; Loop::ALL.len()],
}

impl Default for Wakes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            events: watch::Sender::new(0),
            operations: watch::Sender::new(0),
            revoked: watch::Sender::new(0),
            nodes: Mutex::default(),
            loops: std::array::from_fn(|_| Notify::new()),
        }))
    }
}

impl Wakes {
    /// Tells a reconcile loop to look.
    pub fn reconcile(&self, which: Loop) {
        self.0.loops[which as usize].notify_one();
    }

    /// Returns when [`Wakes::reconcile`] was called since the last return.
    pub async fn reconcile_wanted(&self, which: Loop) {
        self.0.loops[which as usize].notified().await;
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

    /// Changes whenever a change of an operation was committed.
    #[must_use]
    pub fn watch_operations(&self) -> watch::Receiver<u64> {
        self.0.operations.subscribe()
    }

    pub(crate) fn token_revoked(&self) {
        self.0.revoked.send_modify(|n| *n += 1);
    }

    /// How many times a token was revoked, or a session ended, in this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the guard ends here")]
    pub fn revoked(&self) -> u64 {
        *self.0.revoked.borrow()
    }

    /// Changes whenever a token was revoked, or a session ended, in this process.
    #[must_use]
    pub fn watch_revoked(&self) -> watch::Receiver<u64> {
        self.0.revoked.subscribe()
    }

    pub(crate) fn node(&self, node: NodeId) {
        self.sender(node).send_modify(|n| *n += 1);
    }

    /// Changes whenever a change of the node's desired state was committed.
    #[must_use]
    pub fn watch_node(&self, node: NodeId) -> watch::Receiver<u64> {
        self.sender(node).subscribe()
    }

    fn sender(&self, node: NodeId) -> watch::Sender<u64> {
        lock(&self.0.nodes).entry(node).or_insert_with(|| watch::Sender::new(0)).clone()
    }
}
