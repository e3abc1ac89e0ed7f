//! Deployments: N instances started together from one source, `POST /v1/deployments`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, ImageId, InstanceId, Labels, Name, NodeId, OrUnknown, Ref, SnapshotId, Timestamp, VersionId,
};

/// `POST /v1/deployments`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDeployment {
    /// Made up if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What the disks start as.
    pub source: DeploymentSource,
    /// 1 to 10000; required unless the source is a snapshot, then its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Fewer than this many that fit: nothing starts. Default `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_count: Option<i64>,
    /// Virtual processors of each, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory of each, default 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Size of each disk; at least the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Default `libvirt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// When a member counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// Where members may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// When the operation gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// Only tell where it would go and why not.
    #[serde(default)]
    pub dry_run: bool,
    /// Labels of the deployment and its members.
    #[serde(default)]
    pub labels: Labels,
    /// Reserved fields: shape fixed, 501 when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nics: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<serde_json::Value>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_loss: Option<serde_json::Value>,
}

/// What the disks start as: exactly one of `image` (with an optional number), `version`, `snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSource {
    /// An image's newest version, or number `version` of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Ref<ImageId>>,
    /// Alone: a version's id. With `image`: a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<crate::image::VersionOrNumber>,
    /// Each member forks one member of this snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<Ref<SnapshotId>>,
}

/// What runs an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A virtual machine under libvirt.
    #[default]
    Libvirt,
    /// Only the disk file: for foreign hypervisors and for measuring storage. Reserves no processor and memory.
    None,
}

/// When a started instance counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// How it is found out.
    #[serde(default)]
    pub probe: Probe,
    /// With `console`: the text to wait for, default `MUSTER-READY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Not ready by then: failed. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// How readiness is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The hypervisor says it runs (runtime none: the file is there).
    #[default]
    Running,
    /// A marker was printed on the serial console since this start.
    Console,
    /// The guest agent answers.
    GuestAgent,
}

/// Where members may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Spread over nodes, or fill one after the other.
    #[serde(default)]
    pub policy: PlacementPolicy,
    /// Only these zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
    /// Only these nodes (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub nodes: Option<Vec<Ref<NodeId>>>,
    /// At most this many members on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_node: Option<u32>,
}

/// Spread or pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementPolicy {
    /// Evenly over zones, then nodes.
    #[default]
    Spread,
    /// Fullest node that fits first.
    Pack,
}

/// Answer of a dry run: where members would go and why others would not.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DryRun {
    /// Members that fit.
    pub placed: u64,
    /// Members that do not.
    pub unplaced: u64,
    /// Per node (operators only; else empty), fullest first, at most 20.
    pub nodes: Vec<DryRunNode>,
    /// Why nodes refuse, counted.
    pub reasons: Vec<ReasonCount>,
}

/// How many members one node would get.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DryRunNode {
    /// Node.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Members it would get.
    pub count: u64,
}

/// A reason and how many nodes gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReasonCount {
    /// A stable word: `memory`, `cpus`, `cordoned`, `silent`, `zone`, `not_selected`, `max_per_node`, `runtime`, `disk_full`.
    pub reason: String,
    /// How many nodes.
    pub count: u64,
}

/// `PATCH /v1/deployments/{d}` (merge patch).
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchDeployment {
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// `POST /v1/deployments/{d}/scale`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Wanted number of members, 1 to 10000.
    pub count: i64,
    /// Members to remove when scaling down; default the highest numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub remove: Option<Vec<Ref<InstanceId>>>,
}

/// Where a deployment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Members are being placed or started.
    Deploying,
    /// All members are as wanted.
    Ready,
    /// Some member is failed or unknown.
    Degraded,
    /// Reserved.
    Shelved,
    /// Going away.
    Deleting,
    /// Gone; shown for 24 h with `?deleted=true`.
    Deleted,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

/// A deployment: N instances started together and kept as a group. Nothing is replaced unasked.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Deployment {
    /// Id.
    pub id: DeploymentId,
    /// Unique among the project's deployments.
    pub name: String,
    /// Owner.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: DeploymentState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// What was asked for, references resolved to ids.
    #[schema(value_type = DeploymentSource)]
    pub source: OrUnknown<DeploymentSource>,
    /// The image's, snapshot's name where there is one.
    pub source_name: Option<String>,
    /// Wanted members.
    pub count: u64,
    /// Fewest that make it a success.
    pub min_count: u64,
    /// Virtual processors of each.
    pub cpus: u32,
    /// Memory of each.
    pub memory_bytes: u64,
    /// Size of each disk.
    pub disk_bytes: u64,
    /// What runs them.
    #[schema(value_type = Runtime)]
    pub runtime: OrUnknown<Runtime>,
    /// When one is ready.
    #[schema(value_type = Ready)]
    pub ready_when: OrUnknown<Ready>,
    /// Where they may go.
    #[schema(value_type = Placement)]
    pub placement: OrUnknown<Placement>,
    /// Members by state.
    pub counts: BTreeMap<String, u64>,
    /// Members that are ready.
    pub ready: u64,
    /// How long the steps took over all ready members.
    pub timing: Timing,
    /// Bytes fetched from other nodes for its disks (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_bytes: Option<u64>,
    /// Bytes its guests wrote that are kept locally (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_bytes: Option<u64>,
    /// Version each member without one of its own starts from; null when the source is a snapshot.
    pub version: Option<VersionId>,
}

/// How long the steps took.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Timing {
    /// From the request to a place.
    pub placed: Spread,
    /// From the request to running.
    pub started: Spread,
    /// From the request to ready.
    pub ready: Spread,
}

/// Percentiles of one step, and who was slowest.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spread {
    /// Median; null when nobody got there.
    pub p50_ms: Option<u64>,
    /// 90th percentile.
    pub p90_ms: Option<u64>,
    /// 99th percentile.
    pub p99_ms: Option<u64>,
    /// The three slowest.
    pub slowest: Vec<SlowMember>,
}

/// A member and its time.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlowMember {
    /// Instance.
    pub instance: InstanceId,
    /// Its name.
    pub instance_name: String,
    /// Milliseconds since the request.
    pub ms: u64,
}
