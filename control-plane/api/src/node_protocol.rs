//! The protocol between controller and agents, under `/node/v1`.
//!
//! Agents pull. A long-poll brings the whole desired state of the node, and reports carry the actual state of its
//! instances. A lost message only costs a delay, because the next one carries the state again. An agent sends `join` to
//! the address for people, with a join token. It sends every other call to the address for nodes (the node door) over
//! mutual TLS, where its certificate says which node it is.
//!
//! | call | meaning |
//! |---|---|
//! | `POST /node/v1/join` [`JoinRequest`] -> [`JoinAnswer`] | issues the first certificate of a node; each store id can join once |
//! | `POST /node/v1/renew` [`RenewRequest`] -> [`RenewAnswer`] | issues a new certificate for a key that is in the membership record |
//! | `POST /node/v1/runs` [`RunStart`] | registers an agent process before it acts; every other call names it in the header [`RUN_HEADER`], and is refused as `superseded` once another one took its place |
//! | `POST /node/v1/heartbeat` [`Heartbeat`] -> [`HeartbeatAnswer`] | sent every 3 s; the controller keeps it in memory and stores it in batches |
//! | `GET /node/v1/desired?after=R&wait_s=25` -> [`Desired`] or 204 | answers as soon as the node's revision is above R; 204 after 25 s without a change. With the header [`HAS_OWN_PAGES_HEADER`] it leaves out the root pages that the node made itself |
//! | `POST /node/v1/report` [`Report`] | reports the actual state of the node's instances |
//! | `POST /node/v1/boots/{instance}` [`BootReport`](boot::BootReport) | tells in which order a start first read the chunks of a disk; may be lost, and may be dropped by the controller |
//! | `GET /node/v1/boots/{instance}/{disk}` -> [`BootOrder`](boot::BootOrder) or 204 | asks what a start is likely to read of a disk, so that it is here before the guest asks for it |
//! | `POST /node/v1/cuts/{snapshot}` [`CutReport`] | reports the result of a cut that this node coordinated |
//! | `PUT /node/v1/commits/{commit}` [`StagedCommit`] -> [`CommitOutcome`] | stages a commit, after all its objects are durable |
//! | `POST /node/v1/commits/{commit}` [`CommitTrouble`] -> [`CommitOutcome`] | tells why a commit cannot be saved or staged |
//! | `GET /node/v1/salvage` -> [`SalvageOrder`] or 204 | asked by a node that was declared dead, which may call nothing else: whose disks are awaited; 204 when none is |
//! | `POST /node/v1/salvage/{disk}` [`SalvageReport`] | tells how the saving of one of these disks went |
//! | `GET /node/v1/sweep/{round}/dead?after=NAME` | the next objects that nothing needs since this round, see [`sweep`] |
//! | `POST /node/v1/sweep/{round}/judge` | asks which of these objects are needed |
//! | `POST /node/v1/sweep/{round}/done` [`SweepDone`](sweep::SweepDone) | tells what the round gave back on this node |
//! | `GET /node/v1/repository` [`RepositoryOrder`](repository::RepositoryOrder) | asks for the repository of the pool, when a heartbeat was answered with another revision of it |
//! | `GET /node/v1/commits/{commit}` -> [`CommitOutcome`] | asks what became of a commit; after its start an agent asks this for each commit it finds |
//!
//! Every call states a checksum, and gets one with the answer (`storage-core/pool/src/checksum.rs`).

pub mod boot;
mod call;
pub mod network;
pub mod repository;
pub mod seed;
pub mod sweep;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use storage_core::{ObjectName, membership::SignedMembership};

pub use call::NodeCall;

use crate::{
    ClusterId, CommitId, DeploymentId, DiskId, InstanceId, NodeId, Reason, RunId, SnapshotId, StoreId, Timestamp,
    UploadId, VersionId,
    condition::Condition,
    deployment::{OnHostStart, OnReadyTimeout, Ready, Runtime},
    firmware::{Firmware, MachineFeature},
    guest::Guest,
    node::{PoolUse, Repair, RepositoryUse, Scrub},
    node_protocol::{
        network::{NetworksAssignment, NicAssignment},
        seed::Seed,
        sweep::SweepRound,
    },
};

/// Version of this protocol. The controller also accepts agents that are one minor version older.
pub const NODE_PROTOCOL: u32 = 1;
/// Name of the disk that has the variables of a UEFI firmware.
pub const NVRAM: &str = "nvram";
/// Its size: that of the variables of the 4 MiB builds of OVMF.
pub const NVRAM_BYTES: u64 = 540_672;
/// Seconds between heartbeats.
pub const HEARTBEAT_S: u64 = 3;
/// Seconds without a heartbeat after which a node is silent.
pub const SILENT_AFTER_S: u64 = 30;

/// Identifies one history of the controller's database. Restoring a backup begins a new history. An agent refuses a
/// number that is lower than one it has seen, and a number it has seen with another `random`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Every restore raises it.
    pub number: u64,
    /// Drawn at random when `number` is raised.
    pub random: u64,
}

/// The resources that a node offers to instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory for guests, in bytes.
    pub memory_bytes: u64,
}

/// A node that is not yet in the cluster asks for a certificate. The bearer token of the call is a join token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The protocol version of the agent, its [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The name that the node should get. The controller makes one up if there is none.
    pub name: Option<crate::DottedName>,
    /// The id of the node's share of the pool.
    pub store: StoreId,
    /// Certificate request (PKCS#10) in PEM. Its signature proves that the caller has the private key.
    pub csr_pem: String,
    /// `IP:PORT` at which other nodes reach it.
    pub advertise: String,
    /// Failure domain of the node; `None` if it is in no zone.
    pub zone: Option<String>,
    /// The resources it offers.
    pub offer: Offer,
    /// Runtimes that work on the node.
    pub runtimes: Vec<Runtime>,
    /// Version of the agent program.
    pub agent_version: String,
    /// The node that it was in this cluster, if the controller's database does not know it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<FormerNode>,
}

/// A node that joined after the copy of the database that was restored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerNode {
    /// Its id, which it keeps.
    pub node: NodeId,
    /// The certificate that it got, in PEM. It may have expired.
    pub certificate_pem: String,
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
    /// Port of the node door. Its host is the one to which the node sent this request.
    pub node_port: u16,
    /// The current history of the controller's database.
    pub incarnation: Incarnation,
}

/// A node asks for a new certificate for its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificate request (PKCS#10) in PEM, signed with the node's key.
    pub csr_pem: String,
}

/// The answer to [`RenewRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// The new certificate in PEM, valid for 90 days.
    pub certificate_pem: String,
}

/// Header of every call of a joined node: the [`RunId`] of the agent process.
pub const RUN_HEADER: &str = "muster-run";

/// Header of a call for the desired state, with any value: the node has the root pages of the versions that its own commits
/// made, so [`VersionRoot::root_page`] of these may be left out. A disk that is cut again and again has a large one, and the
/// answer is sent with every step of every snapshot. Older agents do not send it, and older controllers send all pages.
pub const HAS_OWN_PAGES_HEADER: &str = "muster-has-own-pages";

/// An agent process starts, and asks to act as its node (I8).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStart {
    /// The protocol version of the agent, its [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The highest incarnation that the node has seen.
    pub incarnation: Incarnation,
    /// Id of the process.
    pub run: RunId,
    /// Runs of its data folder that it follows: the last one that the controller accepted, and those started since. Empty if
    /// no controller accepted one yet.
    pub follows: Vec<RunId>,
    /// Whether a controller accepted this run before. One that does not know it has an older copy of the database.
    pub accepted: bool,
    /// What is known of the end of these.
    pub place: RunPlace,
    /// `IP:PORT` at which other nodes reach it.
    pub advertise: String,
}

/// Where a data folder is, compared with the run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPlace {
    /// Where it was, in the same boot of the host. Its lock proves that the run before has ended.
    Same,
    /// Where it was, and the host was rebooted.
    Rebooted,
    /// It was moved or copied, and the operator told the agent to adopt it.
    Adopted,
}

/// Says that the node is alive, and carries facts about it that rarely change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The protocol version of the agent, its [`NODE_PROTOCOL`].
    pub protocol: u32,
    /// The highest incarnation the node has seen.
    pub incarnation: Incarnation,
    /// Epoch of the membership record that the node uses; 0 if it has none yet. The controller compares it with the newest one of
    /// its database: a node that knows more shows that the database is an older copy.
    pub membership_epoch: u64,
    /// The first 16 bytes of the SHA-256 of that record's text, in hex; `None` if the node has none yet, and from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership_record: Option<String>,
    /// `IP:PORT` at which other nodes reach it. A change makes a new membership epoch.
    pub advertise: String,
    /// The resources it offers.
    pub offer: Offer,
    /// Usage of its share of the pool.
    pub pool: PoolUse,
    /// Problems that an operator should know of.
    pub conditions: Vec<Condition>,
    /// Runtimes that work on the node now.
    pub runtimes: Vec<Runtime>,
    /// `kvm` or `qemu`; `None` if the node does not use libvirt or libvirt does not work.
    pub hypervisor: Option<String>,
    /// Version of the agent program.
    pub agent_version: String,
    /// What moved since the agent began; `None` from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Moved>,
    /// `IP:PORT` at which it takes tunnel packets of networks (UDP); `None` if it can have no networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// What its machines can have that not all nodes offer. Older agents offer nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<MachineFeature>,
    /// How far its repair is; `None` before its first pass, and from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repair>,
    /// How far its scrub is; `None` from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrub>,
    /// Objects that the node lost and that no node of the pool has; the first 256 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ObjectName>,
    /// What it holds that nothing explains; `None` from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexplained: Option<Unexplained>,
    /// How it fares with the repository; `None` without one, and from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryUse>,
    /// Whether this is the last one of this agent, which was told to end and has stopped its guests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
}

/// What a node holds and neither the controller nor its own records explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexplained {
    /// Bytes of objects of the pool that the last round of the sweep found by chance and dropped
    /// ([`sweep::SweepDone::unexplained_bytes`]). `None` until the node has carried out a round of the present history.
    pub objects_bytes: Option<u64>,
    /// Bytes of deltas of disks that belong to no assignment, or that their assignment does not name, and of folders and files
    /// in the folder of disks that are of no disk. `None` until the node has looked.
    pub disks_bytes: Option<u64>,
}

/// How many bytes moved since an agent process began. The numbers only grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// The agent process. Another one counts from 0.
    pub run: RunId,
    /// Bytes of objects that the node fetched from other nodes.
    pub fetched_bytes: u64,
    /// Bytes of objects that it gave to other nodes and to controllers.
    pub served_bytes: u64,
    /// Bytes that guests and programs read from its disks.
    pub read_bytes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// The other nodes with the most bytes, at most [`LINKS_MAX`].
    pub links: Vec<MovedBetween>,
}

/// Most entries of [`Moved::links`].
pub const LINKS_MAX: usize = 64;

/// How many bytes of objects moved between a node and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedBetween {
    /// The other node.
    pub node: NodeId,
    /// Bytes fetched from it.
    pub fetched_bytes: u64,
    /// Bytes given to it.
    pub served_bytes: u64,
}

/// The newest numbers, from which the agent sees whether it has missed a change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The current history of the controller's database.
    pub incarnation: Incarnation,
    /// Newest revision of the node's desired state.
    pub desired_revision: u64,
    /// Newest membership epoch.
    pub membership_epoch: u64,
    /// Oldest membership epoch of which some node still has to hand objects over; 0 if that is not known. Nobody asks the owners
    /// of older ones.
    #[serde(default)]
    pub oldest_open_epoch: u64,
    /// The round of the sweep that nodes carry out now; `None` while there is none, and from an older controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepRound>,
    /// Whether the controller needs a full report of this node now; `false` from an older controller.
    #[serde(default)]
    pub wants_full_report: bool,
    /// Revision of what the controller knows of the repository, see [`repository`]; `None` while it cannot tell, and from an
    /// older controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<u64>,
}

/// The whole desired state of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with every change of this state. The next poll sends it as `after`.
    pub revision: u64,
    /// The current history of the controller's database.
    pub incarnation: Incarnation,
    /// The newest membership record.
    pub membership: SignedMembership,
    /// All instances this node should have. The agent refuses a generation that is older than one it has seen.
    pub assignments: Vec<Assignment>,
    /// The snapshots in progress that include disks of this node.
    pub cuts: Vec<CutOrder>,
    /// The versions that the assignments name, with what the node needs to read them.
    pub versions: BTreeMap<VersionId, VersionRoot>,
    /// What the guests of the assignments are told when they boot. It is the same for all members of a deployment, and user
    /// data may have 64 KiB, so it is here once for all of them. Older controllers say nothing.
    #[serde(default)]
    pub seeds: BTreeMap<DeploymentId, Seed>,
    /// The networks that the assignments name. Older controllers know of none.
    #[serde(default)]
    pub networks: NetworksAssignment,
}

/// The state an instance should be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Its disks exist and its start number [`Assignment::boot`] runs.
    Running,
    /// Its disks exist and it does not run.
    Stopped,
    /// It does not run and its disks do not exist. Data that was not published is lost.
    Gone,
}

/// The desired state of one instance on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Id of the instance.
    pub instance: InstanceId,
    /// Its name, `DEPLOYMENT.N`.
    pub name: String,
    /// The host name that is offered to the guest, `DEPLOYMENT-N`.
    pub host_name: String,
    /// The project that owns it, for messages and metadata.
    pub project: String,
    /// Grows whenever the right to write its disks moves to another node. An agent refuses an older generation.
    pub generation: u64,
    /// The state it should be in.
    pub wanted: Wanted,
    /// Counts the starts of the instance. The agent restarts a guest that runs under a lower number (a reboot). It does
    /// not start a guest again that ended by itself under this number.
    pub boot: u64,
    /// Whether a stop cuts the power at once, without asking the guest.
    pub stop_force: bool,
    /// How long the guest may take to turn itself off before its power is cut, in seconds.
    pub stop_timeout_s: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the guest, in bytes.
    pub memory_bytes: u64,
    /// What runs it.
    pub runtime: Runtime,
    /// How the agent finds out that the instance is ready.
    pub ready: Ready,
    /// What to do with a guest that runs and is not ready in time. Older controllers do not say it.
    #[serde(default)]
    pub on_ready_timeout: OnReadyTimeout,
    /// What to do with a guest that ran when the host went down. Older controllers do not say it.
    #[serde(default)]
    pub on_host_start: OnHostStart,
    /// Its disks. The first is the boot disk.
    pub disks: Vec<DiskAssignment>,
    /// Disks that left the instance after everything they held was published. The node removes its copies of them. Older
    /// controllers detach nothing, and older agents keep their copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftDisk>,
    /// What starts its boot loader. If it has variables, they are the disk named [`NVRAM`]. Older controllers say nothing.
    #[serde(default)]
    pub firmware: Firmware,
    /// Whether it has a TPM. Older controllers say nothing.
    #[serde(default)]
    pub tpm: bool,
    /// Its network cards. Older controllers know of none.
    #[serde(default)]
    pub nics: Vec<NicAssignment>,
    /// What its guest is told when it boots: a key of [`Desired::seeds`]. `None` from older controllers, for runtime `none`,
    /// which has no guest, and while the instance is not to run.
    #[serde(default)]
    pub seed: Option<DeploymentId>,
}

/// The desired state of one disk on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAssignment {
    /// Id of the disk. Its file is `DATA/disks/{disk}.raw`.
    pub disk: DiskId,
    /// Its name within the instance. Older controllers know of the boot disk only, and do not say it.
    #[serde(default = "root")]
    pub name: String,
    /// Logical size in bytes, a multiple of 4096. It grows and never shrinks.
    pub size_bytes: u64,
    /// Its newest published version, from which its content starts. It is a key of [`Desired::versions`].
    pub version: VersionId,
    /// Whether the guest has it. A disk that is detached is first taken from the guest and stays on the node until all
    /// that it holds is published. Then it is one of [`Assignment::left`]. Older controllers detach nothing.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub in_guest: bool,
    /// The generation of the instance from which its content counts, because a restore put it in place then; 0 if that never
    /// happened. A copy that was written under an older one is given up: the disk begins anew from `version`, and what the copy
    /// holds is neither read nor saved any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since_generation: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_yes(value: &bool) -> bool {
    *value
}

fn root() -> String {
    crate::disk::ROOT.to_owned()
}

/// A disk that left an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftDisk {
    /// Id of the disk.
    pub disk: DiskId,
    /// The version that has everything. A copy of another version was attached again in a history that the controller does not
    /// know, because its database was restored: the node keeps it.
    pub version: VersionId,
}

/// What a node needs to read a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRoot {
    /// The canonical bytes of the descriptor, in hex.
    pub descriptor: String,
    /// The canonical bytes of the root page, in hex; `None` if the whole disk is zero, and in a desired state also if the node
    /// made it itself ([`HAS_OWN_PAGES_HEADER`]). A node that lacks it fetches it like any other page.
    pub root_page: Option<String>,
    /// The commit that became this version, if it came from one. The agent folds that commit's epochs into the base.
    pub commit: Option<CommitId>,
}

/// A snapshot in progress that includes disks of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOrder {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Number of this try. What earlier tries have cut is abandoned.
    pub attempt: u32,
    /// The phase of the cut, as far as the controller knows. Agents do not wait for it; they upload after the flip.
    pub phase: CutPhase,
    /// Longest time that writes of guests may be held, in milliseconds.
    pub max_pause_ms: u64,
    /// Whether the file systems of guests that run are frozen during the cut, by their guest agents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freeze: bool,
    /// Whether the objects are stored slowly, because nobody waits for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// Whether the controller took it by itself, to protect a deployment. It takes no turn from one that somebody asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scheduled: bool,
    /// All nodes with disks in the cut, if this node coordinates it; `None` on all other nodes.
    pub coordinate: Option<Vec<CutNode>>,
    /// The disks of this node that are in the cut.
    pub disks: Vec<CutDisk>,
    /// The upload that the new objects belong to. While it is live, the sweep does not delete them.
    pub upload: UploadId,
    /// The round of that upload. It is written into every object.
    pub round: u64,
}

impl CutOrder {
    /// The snapshot and the number of the try.
    #[must_use]
    pub const fn key(&self) -> CutKey {
        CutKey { snapshot: self.snapshot, attempt: self.attempt }
    }
}

/// Identifies one try to cut a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CutKey {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Number of the try, as in [`CutOrder::attempt`].
    pub attempt: u32,
}

impl CutKey {
    /// The key of a try of this snapshot.
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

/// The phase of a cut, as far as the controller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutPhase {
    /// The coordinator has not reported yet.
    Cut,
    /// All disks have flipped. The controller waits for their commits.
    Save,
}

/// One node with disks in a cut, for the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutNode {
    /// Id of the node. Its address is in the membership record.
    pub node: NodeId,
    /// The disks of that node that are in the cut.
    pub disks: Vec<DiskId>,
}

/// One disk of a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutDisk {
    /// Id of the instance that has the disk.
    pub instance: InstanceId,
    /// Id of the disk.
    pub disk: DiskId,
    /// The generation that the disk must have on the node.
    pub generation: u64,
    /// The id for the commit that this cut makes.
    pub commit: CommitId,
}

/// The coordinator's report of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutReport {
    /// Number of the try, as in [`CutOrder::attempt`].
    pub attempt: u32,
    /// The result of the cut.
    pub outcome: CutResult,
}

/// The result of a cut. It covers all disks: either each of them was cut or the whole cut failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutResult {
    /// Every disk flipped while its writes were held.
    Flipped {
        /// The instant of the cut, by the coordinator's clock.
        cut_at: Timestamp,
        /// One entry per disk.
        members: Vec<CutMember>,
        /// Whether the file systems of all guests that run were frozen at that instant. Agents that know nothing of
        /// freezing do not say it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        frozen: bool,
    },
    /// At least one disk did not flip. The commits of those that did are abandoned.
    Failed {
        /// The reason of the first node that refused.
        reason: Reason,
        /// What went wrong, in a sentence for people.
        detail: String,
    },
}

/// The result of the cut of one disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutMember {
    /// Id of the disk.
    pub disk: DiskId,
    /// How long its writes were held, in microseconds.
    pub pause_us: u64,
    /// Bytes written since its newest published version.
    pub dirty_bytes: u64,
}

/// The actual state of the instances of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The revision of the desired state that the agent has last worked on.
    pub desired_revision: u64,
    /// Whether `instances` has all instances of the node. If not, it has those that changed since the last report.
    pub full: bool,
    /// The state of each of these instances.
    pub instances: Vec<InstanceReport>,
}

/// The actual state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Its disks and its virtual machine are being created.
    Preparing,
    /// The hypervisor runs it. With the runtime `none`: its disk files exist.
    Running,
    /// The hypervisor has paused it, because a disk is full or does not answer.
    Paused,
    /// It was told to stop and still runs.
    Stopping,
    /// Its disks exist and it does not run.
    Stopped,
    /// It could not start, or it ended by itself. [`InstanceReport::reason`] says which.
    Failed,
    /// It does not run and its disks do not exist.
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

/// The actual state of one instance on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Id of the instance.
    pub instance: InstanceId,
    /// The generation it has on the node.
    pub generation: u64,
    /// The start that this report is about, as in [`Assignment::boot`].
    pub boot: u64,
    /// The state it is in.
    pub state: Observed,
    /// Why it is in that state; `None` if the state needs no reason.
    pub reason: Option<Reason>,
    /// The reason in a sentence for people.
    pub detail: Option<String>,
    /// When its disk files were in place, in this start.
    pub disk_at: Option<Timestamp>,
    /// When the hypervisor began to run it, in this start.
    pub started_at: Option<Timestamp>,
    /// When it became ready, in this start.
    pub ready_at: Option<Timestamp>,
    /// How often the guest has restarted itself in this start. 0 from agents that do not count it.
    #[serde(default)]
    pub reboots: u64,
    /// What people should know about it. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Its disks that are on the node.
    pub disks: Vec<DiskReport>,
    /// Disks of the assignment that are not on the node: those that cannot be made, and those that the guest is not to have and
    /// that nothing will make. None from agents that do not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<AbsentDisk>,
    /// What its guest agent told in this start; `None` if none has answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Set if the desired state does not name the instance, so that the node leaves it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// An instance that is on a node and that the controller does not name: its database is an older copy than the one that
/// knew the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the node was last told of it; `None` if the record of that is lost.
    pub told: Option<Assignment>,
}

/// The actual state of one disk on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Id of the disk.
    pub disk: DiskId,
    /// Path of the raw file on the node.
    pub path: String,
    /// The newest published version that the agent knows of.
    pub version: VersionId,
    /// Descriptor and root page of that version, if the assignment names another one or there is no assignment. A controller
    /// whose database is an older copy learns the version from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<VersionRoot>,
    /// Bytes written since that version.
    pub unsaved_bytes: u64,
    /// Bytes fetched from other nodes for this disk.
    pub fetched_bytes: u64,
    /// Bytes that its deltas hold on the node.
    pub local_bytes: u64,
    /// Its logical size on the node, bytes. `None` from older agents, which cannot grow a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether a guest has it or may get it. `false` only once the assignment says that the guest is not to have it and no
    /// guest has it any more. `None` from older agents, which cannot take a disk from a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_guest: Option<bool>,
    /// What a guest that runs has yet to get; `None` if nothing, and from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_lacks: Option<GuestLacks>,
    /// What hinders the next step for it, in a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The generation under which this copy is written. `None` from older agents, which cannot put another content in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// What a guest that runs has yet to get of a disk that it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestLacks {
    /// The disk itself.
    Disk,
    /// Word of its size.
    Size,
}

/// A disk of an assignment that is not on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentDisk {
    /// Id of the disk.
    pub disk: DiskId,
    /// Why it cannot be made, in a sentence for people; `None` if it is not to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A commit whose objects are all durable on the required number of nodes (I3). The controller publishes it together
/// with the other commits of its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedCommit {
    /// The snapshot that it belongs to.
    pub snapshot: SnapshotId,
    /// The try that made it, as in [`CutOrder::attempt`].
    pub attempt: u32,
    /// Id of the disk.
    pub disk: DiskId,
    /// The generation under which the disk was written.
    pub generation: u64,
    /// The version it builds on. It must be the newest version of the disk.
    pub base: VersionId,
    /// The upload that its objects belong to, as in [`CutOrder::upload`].
    pub upload: UploadId,
    /// Descriptor and root page of the new version. If nothing was written, they equal those of the base.
    pub root: VersionRoot,
    /// Bytes written since the base.
    pub dirty_bytes: u64,
    /// Bytes that the pool did not have before, counted once and not per copy.
    pub stored_bytes: u64,
}

/// Why a commit cannot be saved or staged. Its snapshot shows it, and fails at once if trying again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitTrouble {
    /// The reason as a stable word, for programs.
    pub reason: Reason,
    /// What went wrong, in a sentence.
    pub detail: String,
    /// Whether trying again cannot help. If not, the agent goes on trying until the snapshot's deadline.
    pub hopeless: bool,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum CommitOutcome {
    /// The snapshot is still in progress. The commit may be staged or not.
    Pending,
    /// It has become a version.
    Published {
        /// The id of the version.
        version: VersionId,
    },
    /// It will never be published. Its blocks belong to the next commit.
    Abandoned,
}

/// What a node that was declared dead may still save. Its guests are off by then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SalvageOrder {
    /// The newest membership record. It lists the node as a client that may only read and store objects.
    pub membership: SignedMembership,
    /// The disks whose content is awaited. Never empty.
    pub disks: Vec<SalvageDisk>,
}

/// A disk whose content is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageDisk {
    /// Id of the disk.
    pub disk: DiskId,
    /// The commit that saving it is. The same one at each try.
    pub commit: CommitId,
    /// The upload that the new objects belong to.
    pub upload: UploadId,
    /// The round of that upload. It is written into every object.
    pub round: u64,
}

/// How the saving of a disk of a dead node went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalvageReport {
    /// The node has nothing of the disk that its newest version lacks.
    Nothing,
    /// All objects are durable.
    Saved(SalvagedDisk),
    /// It could not be saved now, for the reason in this sentence. The node tries again.
    Trouble(String),
}

/// The content of a disk of a dead node, saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SalvagedDisk {
    /// The version that the disk built on.
    pub base: VersionId,
    /// What is needed to read it, with the commit of the order.
    pub root: VersionRoot,
    /// The upload of the order.
    pub upload: UploadId,
    /// Bytes written since the base.
    pub dirty_bytes: u64,
    /// Bytes that the pool did not have before, counted for one copy.
    pub stored_bytes: u64,
    /// The generation under which the disk was written. `None` from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}
