//! The protocol between controller and agents, under `/node/v1`.
//!
//! Agents pull. One long-poll brings the whole desired state of the node, and reports tell what is true there. Both
//! carry whole states, so a lost message costs a delay and nothing else. `join` goes to the people's door with a join
//! token. Every other call goes to the node door over mutual TLS, where the certificate says which node is calling.
//!
//! | call | meaning |
//! |---|---|
//! | `POST /node/v1/join` [`JoinRequest`] -> [`JoinAnswer`] | gives a key its certificate; the same store id joins once |
//! | `POST /node/v1/renew` [`RenewRequest`] -> [`RenewAnswer`] | gives a listed key a new certificate |
//! | `POST /node/v1/heartbeat` [`Heartbeat`] -> [`HeartbeatAnswer`] | sent every 3 s; kept in memory, stored in batches |
//! | `GET /node/v1/desired?after=R&wait_s=25` -> [`Desired`] or 204 | answers when the node's revision is above R, or after 25 s |
//! | `POST /node/v1/report` [`Report`] | tells what is true on the node |
//! | `POST /node/v1/cuts/{snapshot}` [`CutReport`] | tells how the cut went that the node coordinated |
//! | `PUT /node/v1/commits/{commit}` [`StagedCommit`] -> [`CommitOutcome`] | stages a commit; all its objects are durable |
//! | `GET /node/v1/commits/{commit}` -> [`CommitOutcome`] | tells what became of a commit; an agent asks this first after its start |

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use storage_core::membership::SignedMembership;

use crate::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, Reason, SnapshotId, StoreId, Timestamp, UploadId, VersionId,
    deployment::{Ready, Runtime},
    node::{Condition, PoolUse},
};

/// Version of this protocol. The controller also accepts agents that are one minor version older.
pub const NODE_PROTOCOL: u32 = 1;
/// Seconds between heartbeats.
pub const HEARTBEAT_S: u64 = 3;
/// Seconds without a heartbeat after which a node is silent.
pub const SILENT_AFTER_S: u64 = 30;

/// A history of the database. A restore begins a new one. An agent refuses a lower number than it has seen, and the
/// same number with another `random`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Raised by every restore.
    pub number: u64,
    /// Drawn at random when `number` is raised.
    pub random: u64,
}

/// What a node offers to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory for guests.
    pub memory_bytes: u64,
}

/// A key asks for a certificate. The bearer token is the join token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The wanted name. The controller makes one up when it is left out.
    pub name: Option<crate::DottedName>,
    /// The id of the node's share of the pool.
    pub store: StoreId,
    /// PKCS#10 request in PEM. It proves that the caller has the key.
    pub csr_pem: String,
    /// `IP:PORT` where peers reach it.
    pub advertise: String,
    /// Failure domain; none puts the node into no zone.
    pub zone: Option<String>,
    /// What it offers.
    pub offer: Offer,
    /// Runtimes it can run.
    pub runtimes: Vec<Runtime>,
    /// Version of its agent.
    pub agent_version: String,
}

/// The identity that a node gets when it joins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The node's id.
    pub node: NodeId,
    /// The node's name, unique in the cluster.
    pub name: String,
    /// The cluster it has joined.
    pub cluster: ClusterId,
    /// The certificate of the cluster's CA in PEM. Its SHA-256 must be the one in the join token.
    pub ca_pem: String,
    /// The node's certificate in PEM, for client and server, valid for 90 days.
    pub certificate_pem: String,
    /// Port of the node door. Its host is the one that the node joined at.
    pub node_port: u16,
    /// State of the database.
    pub incarnation: Incarnation,
}

/// A new certificate for the same key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 request in PEM, by the node's key.
    pub csr_pem: String,
}

/// The renewed certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// The certificate in PEM.
    pub certificate_pem: String,
}

/// Tells that a node lives, and what changes slowly on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The highest incarnation the node has seen.
    pub incarnation: Incarnation,
    /// Epoch of the membership record it works with; 0 before the first.
    pub membership_epoch: u64,
    /// `IP:PORT` where peers reach it. A change makes a new membership epoch.
    pub advertise: String,
    /// What it offers.
    pub offer: Offer,
    /// Its share of the pool.
    pub pool: PoolUse,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Runtimes that work there now.
    pub runtimes: Vec<Runtime>,
    /// `kvm` or `qemu`; none without libvirt.
    pub hypervisor: Option<String>,
    /// Version of its agent.
    pub agent_version: String,
}

/// Tells the agent what it may have missed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// State of the database.
    pub incarnation: Incarnation,
    /// Newest revision of the node's desired state.
    pub desired_revision: u64,
    /// Newest membership epoch.
    pub membership_epoch: u64,
}

/// Everything that a node should have and do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with every change for this node. The next poll sends it as `after`.
    pub revision: u64,
    /// State of the database.
    pub incarnation: Incarnation,
    /// The newest membership record.
    pub membership: SignedMembership,
    /// All instances this node should have. The agent refuses a generation that is older than one it has seen.
    pub assignments: Vec<Assignment>,
    /// Snapshots under way that have members here.
    pub cuts: Vec<CutOrder>,
    /// What the node needs to read the versions that the assignments name.
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
    /// Neither domain nor disk is there. What was not published is given up.
    Gone,
}

/// One instance as it should be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Id of the instance.
    pub instance: InstanceId,
    /// Its name, `DEPLOYMENT.N`.
    pub name: String,
    /// What the guest may call itself, `DEPLOYMENT-N`.
    pub host_name: String,
    /// The project that owns it, for messages and metadata.
    pub project: String,
    /// Grows when another node may write its disks. Assignments of an older generation are refused.
    pub generation: u64,
    /// The state it should be in.
    pub wanted: Wanted,
    /// Counts starts. A running domain of a lower number is stopped and started again (a reboot). One that ended by
    /// itself under this number is not started again.
    pub boot: u64,
    /// Stops by cutting the power at once.
    pub stop_force: bool,
    /// How long a guest may take to turn itself off before its power is cut.
    pub stop_timeout_s: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the guest.
    pub memory_bytes: u64,
    /// What runs it.
    pub runtime: Runtime,
    /// When it is ready.
    pub ready: Ready,
    /// Its disks. The boot disk is the first.
    pub disks: Vec<DiskAssignment>,
}

/// One disk as it should be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAssignment {
    /// The disk. Its file is `DATA/disks/{disk}.raw`.
    pub disk: DiskId,
    /// Logical size, a multiple of 4096.
    pub size_bytes: u64,
    /// Its newest published version, which is its base: a key of [`Desired::versions`].
    pub version: VersionId,
}

/// What a node needs to read a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoot {
    /// The canonical bytes of the descriptor, in hex.
    pub descriptor: String,
    /// The canonical bytes of the root page, in hex; none for an all-zero disk.
    pub root_page: Option<String>,
    /// The commit that made it, if one did. The agent folds the epochs of that commit.
    pub commit: Option<CommitId>,
}

/// A snapshot under way with members on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOrder {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Counts the tries. The cut of an earlier attempt is abandoned.
    pub attempt: u32,
    /// How far the controller knows the cut to be. Agents upload as soon as they have flipped.
    pub phase: CutPhase,
    /// Longest time a guest's write may be held.
    pub max_pause_ms: u64,
    /// The nodes with members, for the one node that coordinates; none on all other nodes.
    pub coordinate: Option<Vec<CutNode>>,
    /// The disks of this node.
    pub disks: Vec<CutDisk>,
    /// The live upload that keeps the sweep away from the new objects.
    pub upload: UploadId,
    /// The round of that upload, stamped on every object.
    pub round: u64,
}

impl CutOrder {
    /// Which try of which snapshot this is.
    #[must_use]
    pub const fn key(&self) -> CutKey {
        CutKey { snapshot: self.snapshot, attempt: self.attempt }
    }
}

/// One try to cut a snapshot: what the coordinator and the members of a cut know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CutKey {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Counts its tries, as in [`CutOrder::attempt`].
    pub attempt: u32,
}

impl CutKey {
    /// The try with this number.
    #[must_use]
    pub const fn new(snapshot: SnapshotId, attempt: u32) -> Self {
        Self { snapshot, attempt }
    }

    /// Whether this is an earlier try of the same snapshot.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.snapshot == other.snapshot && self.attempt < other.attempt
    }
}

impl fmt::Display for CutKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} of snapshot {}", self.attempt, self.snapshot)
    }
}

/// How far the controller knows a cut to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutPhase {
    /// The coordinator has not reported yet.
    Cut,
    /// All members have flipped, and their commits are awaited.
    Save,
}

/// A node with members, as the coordinator needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutNode {
    /// The node. Its address is in the membership record.
    pub node: NodeId,
    /// Its disks that are in the cut.
    pub disks: Vec<DiskId>,
}

/// One disk that is to be cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutDisk {
    /// Id of the instance.
    pub instance: InstanceId,
    /// Id of the disk.
    pub disk: DiskId,
    /// The generation it must have.
    pub generation: u64,
    /// The id that the commit will have.
    pub commit: CommitId,
}

/// The coordinator's report of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutReport {
    /// The attempt it is about.
    pub attempt: u32,
    /// How the cut went.
    pub outcome: CutResult,
}

/// How a cut went: for all of its disks, or for none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutResult {
    /// Every member flipped within its hold.
    Flipped {
        /// The instant, by the coordinator's clock.
        cut_at: Timestamp,
        /// One entry per disk.
        members: Vec<CutMember>,
    },
    /// At least one member did not flip. Those that did are abandoned.
    Failed {
        /// The refusal of the first member that refused.
        reason: Reason,
        /// What went wrong, in a sentence.
        detail: String,
    },
}

/// How one disk's cut went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutMember {
    /// Id of the disk.
    pub disk: DiskId,
    /// How long its writes were held, in microseconds.
    pub pause_us: u64,
    /// Bytes written since its newest published version.
    pub dirty_bytes: u64,
}

/// What is true about the instances of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The revision of the desired state that the node worked with.
    pub desired_revision: u64,
    /// Whether `instances` has all instances of the node, or only those that changed since the last report.
    pub full: bool,
    /// The instances.
    pub instances: Vec<InstanceReport>,
}

/// The state an instance is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Disk and domain are being made.
    Preparing,
    /// The hypervisor runs it. With runtime none: its file is there.
    Running,
    /// The hypervisor holds it, because its disk is full or does not answer.
    Paused,
    /// Told to stop.
    Stopping,
    /// Its disk is there and nothing runs.
    Stopped,
    /// It could not start, or ended unasked. `reason` tells which.
    Failed,
    /// Neither domain nor disk is here.
    Gone,
}

impl Observed {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Preparing, Self::Running, Self::Paused, Self::Stopping, Self::Stopped, Self::Failed, Self::Gone];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

/// One instance as it is on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Id of the instance.
    pub instance: InstanceId,
    /// The generation it has on the node.
    pub generation: u64,
    /// The number of the start that this report is about.
    pub boot: u64,
    /// The state it is in.
    pub state: Observed,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<Reason>,
    /// The reason in a sentence.
    pub detail: Option<String>,
    /// When its disk file was there, in this start.
    pub disk_at: Option<Timestamp>,
    /// When the hypervisor ran it, in this start.
    pub started_at: Option<Timestamp>,
    /// When it was ready, in this start.
    pub ready_at: Option<Timestamp>,
    /// Its disks that are on the node.
    pub disks: Vec<DiskReport>,
}

/// One disk as it is on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Id of the disk.
    pub disk: DiskId,
    /// Path of the raw file on the node.
    pub path: String,
    /// The newest published version that the agent knows of.
    pub version: VersionId,
    /// Bytes written since that version.
    pub unsaved_bytes: u64,
    /// Bytes fetched from other nodes for it.
    pub fetched_bytes: u64,
    /// Bytes kept in its deltas.
    pub local_bytes: u64,
}

/// A commit whose objects are all durable on the required number of nodes (I3). It is published with its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedCommit {
    /// The snapshot that it is a member of.
    pub snapshot: SnapshotId,
    /// The attempt that it belongs to.
    pub attempt: u32,
    /// Id of the disk.
    pub disk: DiskId,
    /// The generation that the disk was written under.
    pub generation: u64,
    /// The version it builds on. It must be the disk's newest.
    pub base: VersionId,
    /// The live upload that its objects went under.
    pub upload: UploadId,
    /// Descriptor and root page of the new version. They are the base's when nothing was written.
    pub root: VersionRoot,
    /// Bytes written since the base.
    pub dirty_bytes: u64,
    /// Bytes newly stored, counted for one copy.
    pub stored_bytes: u64,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum CommitOutcome {
    /// Staged, or not staged yet. The snapshot is still under way.
    Pending,
    /// It has become a version.
    Published {
        /// The id of the version.
        version: VersionId,
    },
    /// It will never be published. Its blocks belong to the next commit.
    Abandoned,
}
