//! Nodes as operators see them.

use serde::{Deserialize, Serialize};

use crate::{Labels, NodeId, Timestamp};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Has a certificate, not heard from yet.
    Joining,
    /// Heard from lately.
    Ready,
    /// Not heard from for 30 s; its instances are `unknown`.
    Silent,
    /// Reserved.
    Fenced,
    /// Reserved.
    Leaving,
    /// Removed.
    Deleted,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

/// Something about a node an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Condition {
    /// A stable word: `disk_full`, `clock_off`, `no_kvm`, `no_libvirt`, `no_fuse`, `old_kernel`.
    pub kind: String,
    /// For people.
    pub detail: String,
}

/// What a node offers and what of it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// Virtual processors offered.
    pub cpus: u32,
    /// Virtual processors promised to instances.
    pub cpus_used: u32,
    /// Memory offered.
    pub memory_bytes: u64,
    /// Memory promised to instances.
    pub memory_used_bytes: u64,
}

/// The node's share of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolUse {
    /// Most the pool may take.
    pub limit_bytes: u64,
    /// Live objects.
    pub used_bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// Free on its file system.
    pub free_bytes: u64,
    /// Clean chunks kept for reading.
    pub cache_bytes: u64,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// Always `default`: nodes belong to the operators.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: NodeState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// When it joined.
    pub created_at: Timestamp,
    /// When its row last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// False when cordoned.
    pub schedulable: bool,
    /// Failure domain.
    pub zone: Option<String>,
    /// Where peers reach it.
    pub address: String,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Processors and memory.
    pub capacity: Capacity,
    /// Share of the pool.
    pub pool: PoolUse,
    /// Runtimes it offers: `libvirt`, `none`.
    pub runtimes: Vec<String>,
    /// What runs guests: `kvm`, `qemu`, or null without libvirt.
    pub hypervisor: Option<String>,
    /// Instances on it.
    pub instances: u64,
    /// Version of its agent.
    pub agent_version: String,
    /// Last heartbeat.
    pub last_seen_at: Option<Timestamp>,
}
