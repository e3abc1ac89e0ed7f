//! What controller and agent say to each other, under `/node/v1`.
//!
//! Agents pull: one long-poll brings the whole desired state of the node, reports say what is true; both are levels,
//! so a lost message costs a delay and nothing else. `join` goes to the people's door with a join token; everything
//! else goes to the node door over mutual TLS, where the certificate says which node is calling.
//!
//! | call | meaning |
//! |---|---|
//! | `POST /node/v1/join` [`JoinRequest`] -> [`JoinAnswer`] | a key gets its certificate; the same store id joins once |
//! | `POST /node/v1/renew` [`RenewRequest`] -> [`RenewAnswer`] | a new certificate for the same key, while listed |
//! | `POST /node/v1/heartbeat` [`Heartbeat`] -> [`HeartbeatAnswer`] | every 3 s; kept in memory, stored in batches |
//! | `GET /node/v1/desired?after=R&wait_s=25` -> [`Desired`] or 204 | when the node's revision is above R |
//! | `POST /node/v1/report` [`Report`] | what is true |
//! | `POST /node/v1/cuts/{snapshot}` [`CutReport`] | the coordinator tells how the cut went |
//! | `PUT /node/v1/commits/{commit}` [`StagedCommit`] -> [`CommitOutcome`] | everything durable, publish it |
//! | `GET /node/v1/commits/{commit}` -> [`CommitOutcome`] | a returning agent asks first |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use storage_core::membership::SignedMembership;

use crate::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, SnapshotId, StoreId, Timestamp, UploadId, VersionId,
    deployment::{Ready, Runtime},
    node::{Condition, PoolUse},
};

/// The protocol both sides of this release speak; an agent one minor version older works.
pub const NODE_PROTOCOL: u32 = 1;
/// Seconds between heartbeats.
pub const HEARTBEAT_S: u64 = 3;
/// A node not heard from for this long is silent.
pub const SILENT_AFTER_S: u64 = 30;

/// A state of the database. A restore raises `number`; the same number with another `random` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Raised by every restore.
    pub number: u64,
    /// Drawn with it.
    pub random: u64,
}

/// What a node offers to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
}

/// A key asks for a certificate. The bearer token is the join token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// Wanted name; made up if left out.
    pub name: Option<crate::DottedName>,
    /// The id of its pool.
    pub store: StoreId,
    /// PKCS#10 request, PEM: proves that the caller has the key.
    pub csr_pem: String,
    /// `IP:PORT` where peers reach it.
    pub advertise: String,
    /// Failure domain.
    pub zone: Option<String>,
    /// What it offers.
    pub offer: Offer,
    /// Runtimes it can run.
    pub runtimes: Vec<Runtime>,
    /// Version of its agent.
    pub agent_version: String,
}

/// The node's identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's CA, PEM; its SHA-256 must be the join token's.
    pub ca_pem: String,
    /// Certificate for client and server, 90 days, PEM.
    pub certificate_pem: String,
    /// Port of the node door, on the host that was joined at.
    pub node_port: u16,
    /// State of the database.
    pub incarnation: Incarnation,
}

/// A new certificate for the same key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 request, PEM, of the key that is listed.
    pub csr_pem: String,
}

/// The renewed certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// PEM.
    pub certificate_pem: String,
}

/// Sign of life and what changes slowly.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The highest incarnation it has seen.
    pub incarnation: Incarnation,
    /// Membership epoch it works with.
    pub membership_epoch: u64,
    /// `IP:PORT` where peers reach it; a change makes a new membership epoch.
    pub advertise: String,
    /// What it offers.
    pub offer: Offer,
    /// Its share of the pool.
    pub pool: PoolUse,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Runtimes it can run.
    pub runtimes: Vec<Runtime>,
    /// `kvm`, `qemu`, or none without libvirt.
    pub hypervisor: Option<String>,
    /// Version of its agent.
    pub agent_version: String,
}

/// What the agent may have missed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// State of the database.
    pub incarnation: Incarnation,
    /// Newest revision of the node's desired state.
    pub desired_revision: u64,
    /// Newest membership epoch.
    pub membership_epoch: u64,
}

/// Everything wanted of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Desired {
    /// Give it as `after` in the next poll.
    pub revision: u64,
    /// State of the database.
    pub incarnation: Incarnation,
    /// The newest membership record.
    pub membership: SignedMembership,
    /// All instances this node should have. A generation or incarnation older than one seen is refused.
    pub assignments: Vec<Assignment>,
    /// Snapshots under way that have members here.
    pub cuts: Vec<CutOrder>,
    /// The versions named above.
    pub versions: BTreeMap<VersionId, VersionRoot>,
}

/// The state an instance should be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Its disk is there and boot number `boot` runs.
    Running,
    /// Its disk is there and nothing runs.
    Stopped,
    /// Neither domain nor disk; what was not published is given up.
    Gone,
}

/// One instance as it should be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Instance.
    pub instance: InstanceId,
    /// DEPLOYMENT.N
    pub name: String,
    /// DEPLOYMENT-N
    pub host_name: String,
    /// Owner, for messages and metadata.
    pub project: String,
    /// Counts the places its disks may be written in.
    pub generation: u64,
    /// What should be.
    pub wanted: Wanted,
    /// Counts starts: a running domain of a lower number is stopped and started again (reboot); one that ended by
    /// itself under this number is not started again.
    pub boot: u64,
    /// How to stop: cut the power at once.
    pub stop_force: bool,
    /// How to stop: the longest a guest may take before the power is cut.
    pub stop_timeout_s: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// What runs it.
    pub runtime: Runtime,
    /// When it is ready.
    pub ready: Ready,
    /// Its disks, boot disk first.
    pub disks: Vec<DiskAssignment>,
}

/// One disk as it should be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAssignment {
    /// Disk; its file is `DATA/disks/{disk}.raw`.
    pub disk: DiskId,
    /// Logical size, a multiple of 4096.
    pub size_bytes: u64,
    /// Its newest published version (its base): a key of [`Desired::versions`].
    pub version: VersionId,
}

/// What a node needs to read a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoot {
    /// The canonical bytes of the descriptor, hex.
    pub descriptor: String,
    /// The canonical bytes of the root page, hex; none for an all-zero disk.
    pub root_page: Option<String>,
    /// The commit that made it, if one did: an agent folds the epochs of that commit.
    pub commit: Option<CommitId>,
}

/// A snapshot under way with members on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOrder {
    /// Snapshot.
    pub snapshot: SnapshotId,
    /// Counts tries; a cut of an older attempt is abandoned.
    pub attempt: u32,
    /// Cut first, then save. Agents upload as soon as they flipped.
    pub phase: CutPhase,
    /// Longest a guest's write may be held.
    pub max_pause_ms: u64,
    /// Set on one node only: it coordinates.
    pub coordinate: Option<Vec<CutNode>>,
    /// The disks of this node.
    pub disks: Vec<CutDisk>,
    /// The live upload the objects go under.
    pub upload: UploadId,
    /// Its round, stamped on every object.
    pub round: u64,
}

/// How far the controller knows a cut to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutPhase {
    /// The coordinator has not reported yet.
    Cut,
    /// Flipped everywhere; waiting for the commits.
    Save,
}

/// A node with members, for the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutNode {
    /// Node; its address is in the membership record.
    pub node: NodeId,
    /// Its disks.
    pub disks: Vec<DiskId>,
}

/// One disk to cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutDisk {
    /// Instance.
    pub instance: InstanceId,
    /// Disk.
    pub disk: DiskId,
    /// Generation it must have.
    pub generation: u64,
    /// Id of the commit.
    pub commit: CommitId,
}

/// How the cut went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutReport {
    /// Which try.
    pub attempt: u32,
    /// All or none.
    pub outcome: CutResult,
}

/// All or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutResult {
    /// Every member flipped within its hold.
    Flipped {
        /// The instant (the coordinator's clock).
        cut_at: Timestamp,
        /// One entry per disk.
        members: Vec<CutMember>,
    },
    /// At least one did not; those that did are abandoned.
    Failed {
        /// `unreachable`, `hold_expired`, `busy`, `no_space`, `not_assigned`
        reason: String,
        /// For people.
        detail: String,
    },
}

/// How one disk's cut went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutMember {
    /// Disk.
    pub disk: DiskId,
    /// How long its writes were held, microseconds.
    pub pause_us: u64,
    /// Written since its last published version.
    pub dirty_bytes: u64,
}

/// What is true on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The revision of the desired state it worked with.
    pub desired_revision: u64,
    /// Whether `instances` is all there is (at start), or only what changed.
    pub full: bool,
    /// Instances.
    pub instances: Vec<InstanceReport>,
}

/// The state an instance is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Disk and domain are being made.
    Preparing,
    /// The hypervisor runs it (runtime none: the file is there).
    Running,
    /// Held by the hypervisor: its disk is full or away.
    Paused,
    /// Told to stop.
    Stopping,
    /// Its disk is there and nothing runs.
    Stopped,
    /// It could not start, or ended unasked; `reason` tells.
    Failed,
    /// Neither domain nor disk is here.
    Gone,
}

/// One instance as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Instance.
    pub instance: InstanceId,
    /// Generation it is here with.
    pub generation: u64,
    /// Number of the start this is about.
    pub boot: u64,
    /// State.
    pub state: Observed,
    /// `disk_lost`, `disk_full`, `start_failed`, `not_ready_in_time`, `guest_ended`, …
    pub reason: Option<String>,
    /// For people.
    pub detail: Option<String>,
    /// When the disk file was there (this start).
    pub disk_at: Option<Timestamp>,
    /// When the hypervisor ran it (this start).
    pub started_at: Option<Timestamp>,
    /// When it was ready (this start).
    pub ready_at: Option<Timestamp>,
    /// Its disks.
    pub disks: Vec<DiskReport>,
}

/// One disk as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Disk.
    pub disk: DiskId,
    /// The raw file.
    pub path: String,
    /// Its newest published version, as the agent knows it.
    pub version: VersionId,
    /// Written since.
    pub unsaved_bytes: u64,
    /// Fetched from other nodes on its behalf.
    pub fetched_bytes: u64,
    /// Kept in its deltas.
    pub local_bytes: u64,
}

/// All objects of a commit are durable on the required copies (I3): publish it with its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedCommit {
    /// Snapshot it is a member of.
    pub snapshot: SnapshotId,
    /// Try it belongs to.
    pub attempt: u32,
    /// Disk.
    pub disk: DiskId,
    /// Generation it was written under.
    pub generation: u64,
    /// The version it builds on: must be the disk's head.
    pub base: VersionId,
    /// The live upload.
    pub upload: UploadId,
    /// Descriptor and root page of the new version; equal to the base's when nothing was written.
    pub root: VersionRoot,
    /// Written since the base.
    pub dirty_bytes: u64,
    /// Newly stored, one copy.
    pub stored_bytes: u64,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum CommitOutcome {
    /// Staged, or not staged yet; the snapshot is still under way.
    Pending,
    /// It is this version.
    Published {
        /// The version.
        version: VersionId,
    },
    /// It never will be: its blocks belong to the next commit.
    Abandoned,
}
