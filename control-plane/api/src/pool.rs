//! The pool, as operators see it: what the nodes' shares hold together, and how its sweep and its repair fare. `/v1/pools`.

use serde::{Deserialize, Serialize};

use crate::{
    NodeId, Timestamp,
    node::{ObjectAmount, PoolUse},
};

/// Name of the only pool.
pub const DEFAULT_POOL: &str = "default";
/// Most nodes in [`Sweep::awaited`].
pub const AWAITED_MAX: usize = 20;

/// The pool: all objects on all nodes.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pool {
    /// Id of the pool: its name.
    pub id: String,
    /// Its name: `default`.
    pub name: String,
    /// Copies that an object has at least, where there are as many nodes.
    pub min_copies: u64,
    /// Nodes that have a share of it.
    pub nodes: u64,
    /// Their shares together. An object counts once for each copy.
    pub usage: PoolUse,
    /// How the sweep fares, which gives back what nothing needs any more.
    pub sweep: Sweep,
    /// How the repair fares, which makes missing copies again.
    pub repair: PoolRepair,
}

/// How far the nodes are with the repair, as their last heartbeats tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolRepair {
    /// Nodes that compared all their objects with the other nodes under the newest membership record, heard all of them, and
    /// have nothing left to send.
    pub nodes_done: u64,
    /// Objects that nodes have not compared with other nodes yet, each counted once for each copy.
    pub unchecked_objects: u64,
    /// Copies that are known to be missing and that nodes have to send.
    pub missing: ObjectAmount,
    /// Copies that nodes have sent since their agents began.
    pub copied: ObjectAmount,
    /// Stored bytes of copies that all nodes together send per second.
    pub bytes_per_s: u64,
}

/// State of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SweepState {
    /// Nothing is to be done.
    Idle,
    /// The controller counts what is needed.
    Marking,
    /// Nodes drop what is not.
    Sweeping,
    /// It may not go on; the reason tells why.
    Held,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// How the sweep fares. What it did is known since the controller was started.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Sweep {
    /// What it does now.
    pub state: SweepState,
    /// Why it is held or what it waits for, in a sentence; null where the state says it all.
    pub reason: Option<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The newest round.
    pub round: u64,
    /// When that began; null before the first one.
    pub begun_at: Option<Timestamp>,
    /// Objects that something needs, each counted once, as of the newest round that was counted; null before.
    pub needed_objects: Option<u64>,
    /// Nodes that have carried out the newest round.
    pub nodes_done: u64,
    /// Nodes that have not, and are there to do it; at most 20.
    pub awaited: Vec<AwaitedNode>,
    /// Copies of objects that nodes dropped in the newest round.
    pub dropped_objects: u64,
    /// Their stored bytes, without headers.
    pub dropped_bytes: u64,
    /// Bytes that the nodes' disks got back in it.
    pub reclaimed_bytes: u64,
}

/// A node that the sweep waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AwaitedNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
}

/// Body of `POST /v1/pools/{pool}/sweep`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartSweep {
    /// An operator's word after a restore of the database: what nodes hold and the database does not know may be given up,
    /// unless it was reported. Without it nothing is swept after a restore.
    #[serde(default)]
    pub after_restore: bool,
}
