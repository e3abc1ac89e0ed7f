//! `GET /v1/summary` and `GET /v1/me`: overviews whose size does not grow with the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, OrUnknown, SessionId, Timestamp, operation::Operation, token::Role};

/// Answer of `GET /v1/summary`: problems, and the number of resources by state.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Summary {
    /// Problems that someone should look at, worst first, at most 20.
    pub problems: Vec<ProblemLine>,
    /// Number of deployments by state.
    pub deployments: BTreeMap<String, u64>,
    /// Number of instances by state.
    pub instances: BTreeMap<String, u64>,
    /// Number of images by state.
    pub images: BTreeMap<String, u64>,
    /// Number of snapshots by state.
    pub snapshots: BTreeMap<String, u64>,
    /// Number of nodes by state. Empty unless an operator asks.
    pub nodes: BTreeMap<String, u64>,
    /// Number of operations by state.
    pub operations: BTreeMap<String, u64>,
    /// Number of operations that are past their deadline.
    pub operations_overdue: u64,
    /// The newest 20 operations that have not ended, newest first.
    pub operations_running: Vec<Operation>,
    /// What the pool has room for and what is in it; null unless an operator asks.
    #[serde(default)]
    pub pool: Option<PoolTotal>,
    /// What all nodes offer to instances and what is promised; null unless an operator asks.
    #[serde(default)]
    pub capacity: Option<CapacityTotal>,
    /// Bytes that nodes hold and nothing explains; 0 in a healthy cluster. Counted are
    /// - objects that the last round of the sweep found on a node by chance: nothing needed them, and no round before had told
    ///   of them. They are dropped, so that the number falls with the next round;
    /// - what lies on nodes of disks that the database does not know, among them those of instances that were found since a
    ///   restore (problem `instances_found`), and what lies in the folders of disks and belongs to none.
    ///
    /// Null unless an operator asks, while a node is silent or has not looked yet, and until all nodes have carried out a round of
    /// the sweep since the database was made or restored.
    pub unexplained_bytes: Option<u64>,
    /// Position in the stream of events at which this was read.
    pub as_of: String,
}

/// The shares of all nodes in the pool together, as the nodes last told. Nodes that were declared dead do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolTotal {
    /// Most bytes that the shares may take.
    pub limit_bytes: u64,
    /// Bytes of the objects in them, each copy counted.
    pub used_bytes: u64,
    /// Free bytes on the file systems of the nodes.
    pub free_bytes: u64,
    /// Bytes of the caches of clean chunks, which are beside the pool.
    pub cache_bytes: u64,
}

/// What all nodes together offer to instances, and how much of it is in use. Nodes that were declared dead do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CapacityTotal {
    /// Virtual processors offered.
    pub cpus: u64,
    /// Virtual processors of the instances placed on nodes.
    pub cpus_used: u64,
    /// Memory offered, in bytes.
    pub memory_bytes: u64,
    /// Memory of the instances placed on nodes, in bytes.
    pub memory_used_bytes: u64,
}

/// A kind of problem that someone should look at.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProblemLine {
    /// The kind: `node_silent`, `instance_failed`, `operation_overdue`, …
    pub kind: String,
    /// Number of resources that have it.
    pub count: u64,
    /// The problem in a sentence, for people.
    pub detail: String,
}

/// Answer of `GET /v1/me`: the token of the request, or that of its session.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Me {
    /// Name of the token.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Role)]
    pub role: OrUnknown<Role>,
    /// The project it is bound to; null for operators.
    pub project: Option<String>,
    /// When it expires; with a session, when that ends.
    pub expires_at: Option<Timestamp>,
    /// The session of the call; null for a call with a token.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Version of the controller.
    pub version: String,
}
