//! Instances: one virtual machine each, or one disk file with runtime `none`.

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, DiskId, InstanceId, Labels, NodeId, OrUnknown, Ref, Timestamp, VersionId, deployment::Runtime,
};

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Has no place yet.
    Pending,
    /// Placed; its disk and domain are being made.
    Starting,
    /// The hypervisor runs it.
    Running,
    /// Held: its disk is full or away; goes on by itself.
    Paused,
    /// Told to stop.
    Stopping,
    /// Not running; its disk is kept.
    Stopped,
    /// Reserved.
    Migrating,
    /// Could not start, or lost its disk; `reason` tells.
    Failed,
    /// Going away.
    Deleting,
    /// Gone; shown for 24 h with `?deleted=true`.
    Deleted,
    /// Its node is silent (or: a word this program does not know).
    #[serde(other)]
    Unknown,
}

/// A disk of an instance.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Disk {
    /// Id; also its file name on the node.
    pub id: DiskId,
    /// `root`.
    pub name: String,
    /// Logical size.
    pub size_bytes: u64,
    /// The raw file on the node (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Newest published version: what a start on another node would begin from.
    pub version: VersionId,
    /// Written since the newest published version, as last reported.
    pub unsaved_bytes: u64,
    /// When the newest version of its own was published; null before the first.
    pub saved_at: Option<Timestamp>,
}

/// When each step of this start happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Steps {
    /// Got a node.
    pub placed_at: Option<Timestamp>,
    /// The node's disk file was there.
    pub disk_at: Option<Timestamp>,
    /// The hypervisor ran it.
    pub started_at: Option<Timestamp>,
}

/// One virtual machine.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Instance {
    /// Id.
    pub id: InstanceId,
    /// DEPLOYMENT.N
    pub name: String,
    /// DEPLOYMENT-N, what the guest may call itself.
    pub host_name: String,
    /// Owner.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: InstanceState,
    /// Why it is in that state: `no_capacity`, `disk_lost`, `disk_full`, `not_ready_in_time`, `start_failed`, …
    pub reason: Option<String>,
    /// The reason in a sentence.
    pub detail: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// The deployment it is a member of.
    pub deployment: DeploymentId,
    /// That deployment's name.
    pub deployment_name: String,
    /// Its number there.
    pub number: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// What runs it.
    #[schema(value_type = Runtime)]
    pub runtime: OrUnknown<Runtime>,
    /// When this start became ready; null while it is not.
    pub ready_at: Option<Timestamp>,
    /// Steps of this start.
    pub steps: Steps,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network cards; empty until networks are built.
    pub nics: Vec<serde_json::Value>,
    /// Where it is (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// That node's name (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// That node's zone.
    pub zone: Option<String>,
    /// Counts the places its disk may be written in (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// `PATCH /v1/instances/{i}` (merge patch).
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchInstance {
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// `POST …/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Cut the power instead of asking the guest.
    #[serde(default)]
    pub force: bool,
    /// How long the guest may take before the power is cut; default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// What a verb on many is meant for: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// All members of a deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<Ref<DeploymentId>>,
    /// These.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub instances: Option<Vec<Ref<InstanceId>>>,
    /// All of the project with this label, `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// `POST /v1/instances/-/VERB`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnMany {
    /// Whom.
    pub select: Select,
    /// With `stop` and `reboot`: cut the power instead of asking the guest.
    #[serde(default)]
    pub force: bool,
    /// With `stop` and `reboot`: how long the guest may take; default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}
