//! Nodes, as operators see them. `/v1/nodes`.

use serde::{Deserialize, Serialize};

use crate::{DiskId, InstanceId, Labels, NodeId, Timestamp, VersionId, condition::Condition};

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It has a certificate, but has sent no heartbeat yet.
    Joining,
    /// It sent a heartbeat within the last 30 s.
    Ready,
    /// It has sent no heartbeat for 30 s. The state of its instances is `unknown`.
    Silent,
    /// Its agent was told to end and ended in order. Its guests are off, and start again with it.
    Stopped,
    /// An operator said that its host is off for good. Its instances failed with `node_lost`, and it owns no objects.
    Fenced,
    /// Reserved: not used yet.
    Leaving,
    /// It was removed from the cluster.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// What a node offers to instances, and how much of it is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// Virtual processors offered.
    pub cpus: u32,
    /// Virtual processors of the instances placed on it.
    pub cpus_used: u32,
    /// Memory offered, in bytes.
    pub memory_bytes: u64,
    /// Memory of the instances placed on it, in bytes.
    pub memory_used_bytes: u64,
}

/// A number of objects of the pool and their stored bytes. Body of `POST /v1/nodes/{node}/acknowledge`: what the caller
/// saw as lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectAmount {
    /// Number of objects.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
}

/// A node's share of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolUse {
    /// Most bytes it may take.
    pub limit_bytes: u64,
    /// Bytes of the objects in it.
    pub used_bytes: u64,
    /// Number of objects in it.
    pub objects: u64,
    /// Free bytes on its file system.
    pub free_bytes: u64,
    /// Bytes of the cache of clean chunks, which is beside the pool.
    pub cache_bytes: u64,
    /// Bytes of further objects that it takes: up to its limit, and as long as `keep_free` and `mirror_reserve` stay free, its cache
    /// giving way. `null` from an older agent.
    #[serde(default)]
    #[schema(required)]
    pub takes_bytes: Option<u64>,
    /// Number of objects that it lost and that were neither stored again nor acknowledged.
    #[serde(default)]
    #[schema(required)]
    pub lost_objects: u64,
    /// Their bytes.
    #[serde(default)]
    #[schema(required)]
    pub lost_bytes: u64,
}

/// How far a node is with the repair: with sending copies that other nodes lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Repair {
    /// Epoch of the membership record that its newest pass over its objects worked with. What it says is said of that epoch.
    pub membership_epoch: u64,
    /// Objects of the node that the pass has not compared with other nodes yet; 0 after its end.
    pub unchecked_objects: u64,
    /// Copies that other nodes were found to lack in this pass, that this node has to send them, and that it has not sent.
    pub missing: ObjectAmount,
    /// Nodes that did not answer in this pass, or refused. What they lack is not known.
    pub silent_nodes: u64,
    /// Copies that the node has sent since its agent began.
    pub copied: ObjectAmount,
    /// Stored bytes of copies that it sends per second, over the last seconds.
    pub bytes_per_s: u64,
    /// Objects that it compares with other nodes per second, over the last seconds of the pass.
    #[serde(default)]
    #[schema(required)]
    pub objects_per_s: u64,
    /// Copies that belong to other nodes and that this pass had to leave here, because not all of those have them yet.
    #[serde(default)]
    #[schema(required)]
    pub surplus: ObjectAmount,
    /// Copies that it has dropped since its agent began, because the nodes that they belong to have them.
    #[serde(default)]
    #[schema(required)]
    pub handed_over: ObjectAmount,
    /// Stored bytes of copies that it drops in this way per second, over the last seconds.
    #[serde(default)]
    #[schema(required)]
    pub handed_over_bytes_per_s: u64,
    /// No objects belong on it, it takes none any more, and it has none.
    #[serde(default)]
    #[schema(required)]
    pub is_empty: bool,
}

impl Repair {
    /// Whether its pass under the membership record of this epoch is over, and left nothing to do.
    #[must_use]
    pub const fn is_done(&self, membership_epoch: u64) -> bool {
        self.membership_epoch == membership_epoch
            && self.unchecked_objects == 0
            && self.missing.objects == 0
            && self.surplus.objects == 0
            && self.silent_nodes == 0
    }
}

/// One round of a node's scrub, which reads and hashes every object of its share of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScrubRound {
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended; null while it goes on.
    pub ended_at: Option<Timestamp>,
    /// Number of objects that it has read.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Copies that were rotten or gone. They are dropped, and other nodes send them again.
    pub bad: u64,
    /// Copies that the disk did not read. They do not count until it reads them; other nodes send them again.
    pub unreadable: u64,
}

/// How far a node is with its scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Scrub {
    /// The round that goes on; null between two rounds.
    pub now: Option<ScrubRound>,
    /// How much of the pool that round has read, in millionths; 1,000,000 between two rounds.
    pub done_ppm: u64,
    /// The last round that read everything; null before the first.
    pub last: Option<ScrubRound>,
    /// When the next round begins at the earliest.
    pub next_at: Timestamp,
}

/// How a node fares with the repository: the S3-compatible store that has the objects of the pool, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RepositoryUse {
    /// Objects that the node has to write there and has not written. If there are very many, there may be more.
    pub behind: ObjectAmount,
    /// How long the oldest of them has waited, in seconds; null if there is none.
    pub oldest_behind_s: Option<u64>,
    /// Objects of the node that it has not looked at yet since its agent began or the membership record changed.
    pub unchecked_objects: u64,
    /// Objects that the node has written there since its agent began.
    pub uploaded: ObjectAmount,
    /// Objects that it has read from there.
    pub fetched: ObjectAmount,
    /// Objects that it has deleted there.
    pub deleted_objects: u64,
    /// Copies that it gave up and has not now, because the repository has the objects.
    pub evicted: ObjectAmount,
    /// Bodies read from there that were not the object.
    pub bad_bodies: u64,
    /// Objects of which the repository has no good body and no node has a copy, as far as this node knows.
    pub missing_objects: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Why calls fail now, in a sentence; null while they work.
    pub trouble: Option<String>,
    /// Since how many seconds calls fail; null while they work.
    pub trouble_s: Option<u64>,
}

/// A node: a compute host with an agent.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// Id of the node.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: String,
    /// Always `default`: nodes belong to the operators.
    pub project: String,
    /// Labels of the node.
    pub labels: Labels,
    /// Current state.
    pub state: NodeState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it joined.
    pub created_at: Timestamp,
    /// When it last changed; heartbeats do not count.
    pub updated_at: Timestamp,
    /// Changes with every change of the node; give it as `If-Match`.
    pub etag: String,
    /// Whether new instances may be placed on it; false when it is cordoned.
    pub schedulable: bool,
    /// Whether it is silent for so long that it owns no objects any more, or its disk failed. Other nodes copy what it has, and
    /// it is in again when it is heard, with a disk that works.
    #[serde(default)]
    #[schema(required)]
    pub out: bool,
    /// How far its drain is; null while it is not drained.
    #[serde(default)]
    #[schema(required)]
    pub drain: Option<Drain>,
    /// Its failure domain.
    pub zone: Option<String>,
    /// `IP:PORT` where other nodes reach it.
    pub address: String,
    /// `IP:PORT` where it takes packets of networks from other nodes (UDP); null if it can have no networks.
    #[serde(default)]
    #[schema(required)]
    pub tunnel: Option<String>,
    /// What an operator should know about it.
    pub conditions: Vec<Condition>,
    /// Its processors and memory.
    pub capacity: Capacity,
    /// Its share of the pool.
    pub pool: PoolUse,
    /// How far it is with sending copies that other nodes lack, as it last said; null until it says so.
    #[serde(default)]
    #[schema(required)]
    pub repair: Option<Repair>,
    /// How far it is with reading and hashing its share of the pool, as it last said; null until it says so.
    #[serde(default)]
    #[schema(required)]
    pub scrub: Option<Scrub>,
    /// When the repair of the node is expected to end at its present speed; null when it has nothing to do, or that is not known.
    #[serde(default)]
    #[schema(required)]
    pub repair_ends_at: Option<Timestamp>,
    /// How it fares with the repository, as it last said; null without one.
    #[serde(default)]
    #[schema(required)]
    pub repository: Option<RepositoryUse>,
    /// Runtimes it offers: `libvirt`, `none`.
    pub runtimes: Vec<String>,
    /// What executes the instructions of guests: `kvm` or `qemu`; null without libvirt.
    pub hypervisor: Option<String>,
    /// What machines on it can have that not all nodes offer: `uefi`, `uefi_secure`, `tpm`.
    #[serde(default)]
    #[schema(required)]
    pub features: Vec<String>,
    /// Number of instances placed on it.
    pub instances: u64,
    /// Version of its agent.
    pub agent_version: String,
    /// Time of its last heartbeat.
    pub last_seen_at: Option<Timestamp>,
}

/// How far the drain of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// Other nodes get its objects.
    Draining,
    /// It has no objects any more, and takes none.
    Drained,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// The drain of a node: no objects belong on it any more, and other nodes get those that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Drain {
    /// How far it is.
    pub state: DrainState,
    /// When it began.
    pub since: Timestamp,
    /// Objects that the node still has.
    pub left: ObjectAmount,
    /// Stored bytes that it drops per second, because other nodes have them, over the last seconds.
    pub bytes_per_s: u64,
    /// When it is expected to end at this speed; null when that is not known.
    pub ends_at: Option<Timestamp>,
}

/// What becomes of the instances of a node that is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainInstances {
    /// They are moved to other nodes. Reserved: not built yet.
    Move,
    /// They are stopped. Reserved: not built yet.
    Stop,
}

/// Request of `POST /v1/nodes/{node}/drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainNode {
    /// What becomes of its instances. They stay if it is left out; the other words are not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<DrainInstances>,
}

/// Request of `POST /v1/nodes/{node}/fence`: an operator's word that the host of the node is off for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// Must be true: the instances of the node fail with `node_lost`, and the node can never come back.
    #[serde(default)]
    pub confirm: bool,
}

/// What has become of a disk that was on a node when it was declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SalvageState {
    /// The node has not been heard of since, or is at it.
    Awaited,
    /// Whatever no version had of the disk is a version now, if there was anything.
    Saved,
    /// An operator said that nobody waits for it any more.
    GivenUp,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A disk that was on a node when it was declared dead. A node that comes back after that saves what the disk holds and no
/// version has. `GET /v1/nodes/{node}/salvage`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Salvage {
    /// Id of the disk.
    pub disk: DiskId,
    /// Name that the disk has within its instance.
    #[serde(default)]
    #[schema(required)]
    pub disk_name: String,
    /// Id of the instance that it belongs to.
    pub instance: InstanceId,
    /// The name that the instance had then.
    pub instance_name: String,
    /// Name of the project that owns the instance.
    pub project: String,
    /// What has become of the disk.
    pub state: SalvageState,
    /// What keeps the node from saving it, or what was saved, in a sentence.
    pub detail: Option<String>,
    /// The version that holds what was saved; null if there was nothing to save, or not yet.
    pub version: Option<VersionId>,
    /// When the node was declared dead.
    pub created_at: Timestamp,
    /// When this last changed.
    pub updated_at: Timestamp,
}
