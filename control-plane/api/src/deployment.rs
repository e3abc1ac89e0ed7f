//! Deployments: instances that are started together from one source, `/v1/deployments`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, ImageId, InstanceId, Labels, LabelsPatch, Name, NodeId, OrUnknown, Ref, SnapshotId, SshKey,
    Timestamp, UserData, VersionId,
    disk::{CreateDisk, DeploymentDisk},
    firmware::{Firmware, FirmwareChoice, bios},
    network::{CreateNic, DeploymentNic},
    patch::nullable,
    protection::{PatchProtect, Protect, Protection},
    ssh_key::SshKeyFacts,
};

/// Request of `POST /v1/deployments`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDeployment {
    /// Name of the deployment; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What the disks of the members start as.
    pub source: DeploymentSource,
    /// Number of members, 1 to 10000. Required, unless the source is a snapshot: then it defaults to the number of
    /// members of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// If fewer members than this fit onto the nodes, none is started. Default: `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_count: Option<i64>,
    /// Virtual processors of each member. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory of each member in bytes. Default: 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Size of each boot disk in bytes, at least that of the source. Default: that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// What runs the members. Default: `libvirt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// When a member counts as ready. Default: when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// Which nodes the members may be placed on. Default: all, spread over zones and nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Seconds after which the operation gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// What becomes of a member that runs and is not ready in time. Default: `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ready_timeout: Option<OnReadyTimeout>,
    /// What becomes of a member that ran when its host went down, once the host is back. Default: `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_host_start: Option<OnHostStart>,
    /// Start nothing; answer where the members would be placed.
    #[serde(default)]
    pub dry_run: bool,
    /// Labels of the deployment and of its members.
    #[serde(default)]
    pub labels: Labels,
    /// Public SSH keys of the people who may sign in to the guests, at most 32: one line each, as a `.pub` file has it, without
    /// options. Guests take them when they first boot. With a snapshot as the source and without this field, the keys of the
    /// deployment that the snapshot is of are used, as long as it exists in the same project; an empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 32)]
    pub ssh_keys: Option<Vec<SshKey>>,
    /// What each guest does when it first boots, at most 64 KiB of text: cloud-config (it begins with `#cloud-config`), a
    /// script (`#!`) or a MIME message with several of them. cloud-init in the guest takes it. It is stored as it is, and shown
    /// by `GET /v1/deployments/{deployment}/user-data` only. With a snapshot as the source and without this field, that of the
    /// deployment that the snapshot is of is used, as for `ssh_keys`; an empty text means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// Network cards of each member, at most 8, each in another network. Empty: none. Default: one in the network `default`
    /// of the project, if there are nodes that can have networks; a fork has cards in the networks of its source. Not with
    /// runtime `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nics: Option<Vec<CreateNic>>,
    /// Disks of each member beside the boot disk, at most 16. A fork has the disks of its snapshot, and these in addition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub disks: Vec<CreateDisk>,
    /// What starts the boot loaders of the members. Default: `auto`, what the image says, and for a snapshot what its
    /// guests had. Not with runtime `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareChoice>,
    /// Whether each member has a TPM 2.0. What is in it stays on the node of the instance: it is in no snapshot, and a fork
    /// begins with an empty one. Default: no; a fork has one if its source has. Not with runtime `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<bool>,
    /// Reserved: refused with 501, because it is not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<serde_json::Value>,
    /// Take snapshots of the members in the background, so that the loss of a host costs little. Default: none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<Protect>,
    /// Reserved: refused with 501, because it is not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_loss: Option<serde_json::Value>,
}

/// What the boot disks start as. Exactly one of these is given: `image` (with an optional `version` number), `version`,
/// `snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSource {
    /// Id or name of an image: its newest version, or the one with the number `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Ref<ImageId>>,
    /// Without `image`: the id of a version. With `image`: the number of a version of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<crate::image::VersionOrNumber>,
    /// Id or name of a snapshot: each member starts with the disks of one instance of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<Ref<SnapshotId>>,
    /// With `snapshot`: start without the members whose versions were deleted, instead of refusing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_missing: bool,
}

/// What runs an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A virtual machine under libvirt.
    #[default]
    Libvirt,
    /// Only the disk file, for other hypervisors and for measuring storage. It reserves no processors and no memory.
    None,
}

/// When a started instance counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// How it is found out whether the instance is ready.
    #[serde(default)]
    pub probe: Probe,
    /// With probe `console`: the text to wait for. Default: `MUSTER-READY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Seconds after its start after which an instance that is not ready is told as `not_ready`. Default: what the
    /// controller's configuration says as `instances.ready_timeout`, which is 300 unless the operator has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// What becomes of an instance that runs and is not ready in time. Its operation fails either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReadyTimeout {
    /// It runs on with the reason `not_ready`, and is ready when its probe succeeds.
    #[default]
    Keep,
    /// Its power is cut, and it has failed with the reason `not_ready_in_time`.
    Stop,
}

/// What becomes of an instance that ran when its host went down, once the host is back. One that was stopped stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnHostStart {
    /// It is started again.
    #[default]
    Start,
    /// It stays off, with the reason `host_restarted`, until somebody starts it.
    Stay,
}

/// Request of `POST /v1/deployments/{d}/retry`. What is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The new `ready.timeout_s` of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout_s: Option<u64>,
    /// The new `deadline_s` of the deployment. If only `ready_timeout_s` is given it is raised where it is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// What becomes of members that are not ready in time from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ready_timeout: Option<OnReadyTimeout>,
}

/// How it is found out whether an instance is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// It is ready when the hypervisor runs it (with runtime `none`: when its disk file exists).
    #[default]
    Running,
    /// It is ready when it has printed the marker on its serial console since this start.
    Console,
    /// It is ready when its guest agent answers.
    GuestAgent,
}

/// Which nodes the members may be placed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Whether members are spread over the nodes, or fill one node after the other. Default: `spread`.
    #[serde(default)]
    pub policy: PlacementPolicy,
    /// Only nodes in these zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
    /// Only these nodes, by id or name. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub nodes: Option<Vec<Ref<NodeId>>>,
    /// Most members on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_node: Option<u32>,
}

/// How members are distributed over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementPolicy {
    /// Evenly over zones, then over nodes.
    #[default]
    Spread,
    /// On the fullest node that has room, so that other nodes stay free.
    Pack,
}

/// Answer of a dry run: where members would be placed, and why others would not.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DryRun {
    /// Number of members that fit. Tenants are told a lower bound: all, `min_count`, or 0 if fewer than `min_count` fit.
    pub placed: u64,
    /// The other members.
    pub unplaced: u64,
    /// The nodes they would be placed on, most members first, at most 20. Empty unless an operator asks.
    pub nodes: Vec<DryRunNode>,
    /// Why no more members fit.
    pub reasons: Vec<ReasonCount>,
}

/// How many members one node would get.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DryRunNode {
    /// Id of the node.
    pub node: NodeId,
    /// Name of the node.
    pub node_name: String,
    /// Number of members it would get.
    pub count: u64,
}

/// A reason why members do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReasonCount {
    /// A stable word: `memory`, `cpus`, `cordoned`, `silent`, `zone`, `not_selected`, `max_per_node`, `runtime`,
    /// `disk_failed`, `disk_full`, `no_network`, `no_uefi`, `no_secure_boot`, `no_tpm`, `hypervisor_silent`.
    pub reason: String,
    /// Number of nodes that the reason holds for. For tenants, the number of members that may not fit.
    pub count: u64,
    /// The same in a sentence for people, with what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// Request of `PATCH /v1/deployments/{d}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchDeployment {
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
    /// What changes in its protection; nothing if absent. `null` ends it: its scheduled snapshots stay until somebody deletes
    /// them.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PatchProtect>)]
    pub protect: Option<Option<PatchProtect>>,
}

/// Request of `POST /v1/deployments/{d}/scale`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Wanted number of members, 1 to 10000.
    pub count: i64,
    /// Members to remove when scaling down, by id or name. Default: those with the highest numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub remove: Option<Vec<Ref<InstanceId>>>,
}

/// State of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Members are being placed or started.
    Deploying,
    /// All members are in the state that was asked for.
    Ready,
    /// At least one member is failed, unknown or held, or runs and was not ready in time.
    Degraded,
    /// All members are stopped.
    Stopped,
    /// Reserved: not used yet.
    Shelved,
    /// It is being deleted.
    Deleting,
    /// It is deleted. It is listed with `?deleted=true` for 24 hours.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A deployment: instances that were started together and are kept as a group. Lost members are not replaced on their
/// own.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Deployment {
    /// Id of the deployment.
    pub id: DeploymentId,
    /// Unique among the project's deployments.
    pub name: String,
    /// Name of the project that owns the deployment.
    pub project: String,
    /// Labels of the deployment.
    pub labels: Labels,
    /// Current state.
    pub state: DeploymentState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the deployment; give it as `If-Match`.
    pub etag: String,
    /// The source as it was requested, with names replaced by ids.
    #[schema(value_type = DeploymentSource)]
    pub source: OrUnknown<DeploymentSource>,
    /// Name of the source image or snapshot; null if the source is a version.
    pub source_name: Option<String>,
    /// Wanted number of members.
    pub count: u64,
    /// Fewest members with which creating it succeeds.
    pub min_count: u64,
    /// Virtual processors of each member.
    pub cpus: u32,
    /// Memory of each member in bytes.
    pub memory_bytes: u64,
    /// Size of each boot disk in bytes.
    pub disk_bytes: u64,
    /// The disks of each member beside the boot disk, without the one `nvram` that UEFI firmware has.
    pub disks: Vec<DeploymentDisk>,
    /// What runs the members.
    #[schema(value_type = Runtime)]
    pub runtime: OrUnknown<Runtime>,
    /// When a member counts as ready.
    #[schema(value_type = Ready)]
    pub ready_when: OrUnknown<Ready>,
    /// What becomes of a member that runs and is not ready in time.
    #[schema(value_type = OnReadyTimeout)]
    pub on_ready_timeout: OrUnknown<OnReadyTimeout>,
    /// What becomes of a member that ran when its host went down, once the host is back.
    #[schema(value_type = OnHostStart)]
    pub on_host_start: OrUnknown<OnHostStart>,
    /// Which nodes the members may be placed on.
    #[schema(value_type = Placement)]
    pub placement: OrUnknown<Placement>,
    /// Network cards of each member.
    #[serde(default)]
    #[schema(required)]
    pub nics: Vec<DeploymentNic>,
    /// What starts the boot loaders of its members.
    #[serde(default = "bios")]
    #[schema(required, value_type = Firmware)]
    pub firmware: OrUnknown<Firmware>,
    /// Whether each member has a TPM. What is in it is in no snapshot.
    #[serde(default)]
    #[schema(required)]
    pub tpm: bool,
    /// How its members are protected against the loss of their hosts; null if they are not.
    #[serde(default)]
    #[schema(required, value_type = Option<Protect>)]
    pub protect: Option<OrUnknown<Protect>>,
    /// How far that is; null if they are not protected.
    #[serde(default)]
    #[schema(required)]
    pub protection: Option<Protection>,
    /// Number of members by state.
    pub counts: BTreeMap<String, u64>,
    /// Number of members that are ready.
    pub ready: u64,
    /// How long the steps of starting took, over all ready members.
    pub timing: Timing,
    /// Bytes that were fetched from other nodes for its disks, as of the last reports of its nodes. A node reports when the state
    /// of an instance changes, and every 5 seconds what else has changed: while a disk is read, the figure may be that far
    /// behind, also right after an operation has ended. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fetched_bytes: Option<u64>,
    /// Bytes that its guests wrote and that are kept on their nodes, from the same reports. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub local_bytes: Option<u64>,
    /// Version that members start from; null if the source is a snapshot.
    pub version: Option<VersionId>,
    /// The public SSH keys that its guests take when they first boot. Lists leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ssh_keys: Option<Vec<SshKeyFacts>>,
    /// Length of its user data in bytes, 0 if it has none. Lists leave it out. The text, which may have secrets, is at
    /// `/v1/deployments/{deployment}/user-data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user_data_bytes: Option<u64>,
}

/// How long the steps of starting took.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// From the request until a node was chosen.
    pub placed: Spread,
    /// From the request until the member ran.
    pub started: Spread,
    /// From the request until the member was ready.
    pub ready: Spread,
}

/// Percentiles of the time one step took, and the slowest members.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spread {
    /// Median in milliseconds; null if no member has reached the step.
    pub p50_ms: Option<u64>,
    /// 90th percentile in milliseconds.
    pub p90_ms: Option<u64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<u64>,
    /// The three slowest members.
    pub slowest: Vec<SlowMember>,
}

/// A member, and how long it took.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlowMember {
    /// Id of the instance.
    pub instance: InstanceId,
    /// Name of the instance.
    pub instance_name: String,
    /// Milliseconds from the request until it reached the step.
    pub ms: u64,
}
