//! The pool, as operators see it: what the nodes' shares hold together, and how its sweep and its repair fare. `/v1/pools`.

use serde::{Deserialize, Serialize};

use crate::{
    NodeId, Timestamp, VersionId,
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
    /// Versions that lack objects of which no node has a copy; the first 20. They are named where the names of lost objects are
    /// known. Importing the same content again brings them back.
    #[serde(default)]
    #[schema(required)]
    pub lost: Vec<LostVersion>,
    /// How the sweep fares, which gives back what nothing needs any more.
    pub sweep: Sweep,
    /// Epoch of the newest membership record.
    #[serde(default)]
    #[schema(required)]
    pub membership_epoch: u64,
    /// The oldest epoch that is open: nodes still have to hand objects over that newer epochs gave to others. All is handed over
    /// when it is the newest one.
    #[serde(default)]
    #[schema(required)]
    pub oldest_open_epoch: u64,
    /// How the repair fares, which makes missing copies again.
    pub repair: PoolRepair,
    /// The S3-compatible store that has its objects, too; null if the pool has none.
    #[serde(default)]
    #[schema(required)]
    pub repository: Option<PoolRepository>,
}

/// State of the repository of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryState {
    /// It has everything that nodes know of.
    Ok,
    /// Nodes have objects that it does not have yet, and write them.
    Behind,
    /// The controller or a node cannot use it; the trouble tells why.
    Failing,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// When the repository gets new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryWrite {
    /// Soon after they are in the pool.
    Behind,
    /// Before anything that needs them is published.
    Through,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// The repository of a pool, as the controller and the last heartbeats of the nodes tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolRepository {
    /// How it fares.
    pub state: RepositoryState,
    /// Where it is: `s3://BUCKET/PREFIX`.
    pub url: String,
    /// When it gets new objects.
    pub write: RepositoryWrite,
    /// Whether nodes whose disks fill up may give up copies of objects that it has.
    #[serde(default)]
    #[schema(required)]
    pub evict: bool,
    /// What does not work, a sentence for each of those that say so; empty if all works.
    pub trouble: Vec<String>,
    /// Objects that nodes have to write there and have not written.
    pub behind: ObjectAmount,
    /// How long the oldest of them has waited, in seconds; null if there is none.
    pub oldest_behind_s: Option<u64>,
    /// Objects of nodes that these have not looked at yet since their agents began or the membership record changed.
    pub unchecked_objects: u64,
    /// Objects that nodes have written there since their agents began.
    pub uploaded: ObjectAmount,
    /// Objects that nodes have read from there.
    pub fetched: ObjectAmount,
    /// Objects that nodes have deleted there.
    pub deleted_objects: u64,
    /// Copies that nodes gave up and have not now, because the repository has the objects. Losing it may lose these objects.
    pub evicted: ObjectAmount,
    /// Objects of which the repository has no good body and no node has a copy. The versions that need them are in `lost`.
    pub missing_objects: u64,
}

/// Most versions in [`Pool::lost`].
pub const LOST_VERSIONS_MAX: usize = 20;

/// A version that lacks objects of which no node has a copy, and what builds on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LostVersion {
    /// Id of the version.
    pub version: VersionId,
    /// Its name, which has that of its image or snapshot: `IMAGE@N` or `SNAPSHOT/INSTANCE`.
    pub name: String,
    /// Project that owns it.
    pub project: String,
    /// Lost objects that it needs.
    pub objects: u64,
    /// Since when that is known.
    pub since: Timestamp,
    /// Names of instances whose disks build on it; the first 20.
    pub instances: Vec<String>,
    /// Names of deployments that were made from it; the first 20.
    pub deployments: Vec<String>,
}

/// How far the nodes are with the repair, as their last heartbeats tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolRepair {
    /// Nodes that compared all their objects with the other nodes under the newest membership record, heard all of them, and
    /// have nothing left to send.
    pub nodes_done: u64,
    /// Objects that nodes have not compared with other nodes yet, each counted once for each copy.
    pub unchecked_objects: u64,
    /// Copies that there are to be, as far as nodes have compared their objects: those present and those missing.
    #[serde(default)]
    #[schema(required)]
    pub wanted: ObjectAmount,
    /// Copies that are where they belong, with those that nodes gave up because the repository has the objects.
    #[serde(default)]
    #[schema(required)]
    pub present: ObjectAmount,
    /// Copies that are known to be missing and that nodes have to send.
    pub missing: ObjectAmount,
    /// Copies that are too many: they stay until the nodes that they belong to have them.
    #[serde(default)]
    #[schema(required)]
    pub surplus: ObjectAmount,
    /// Copies that nodes have sent since their agents began.
    pub copied: ObjectAmount,
    /// Copies that nodes have dropped since their agents began, because the nodes that they belong to have them.
    #[serde(default)]
    #[schema(required)]
    pub handed_over: ObjectAmount,
    /// Stored bytes of copies that all nodes together send per second.
    pub bytes_per_s: u64,
    /// When the nodes are expected to have compared and sent all, at their present speed; null when there is nothing to do, or that
    /// is not known.
    #[serde(default)]
    #[schema(required)]
    pub ends_at: Option<Timestamp>,
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

/// Most copies of an object that can be wanted.
pub const MIN_COPIES_MAX: u32 = 7;

/// Body of `PATCH /v1/pools/{pool}`. What is left out stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchPool {
    /// Copies of every object, from 1 to 7. From then on the configuration's `pool.min_copies` counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_copies: Option<u32>,
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
