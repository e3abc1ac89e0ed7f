//! Instances: a virtual machine each, or only a disk file with runtime `none`. `/v1/instances`.

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, DiskId, InstanceId, Labels, LabelsPatch, NodeId, OrUnknown, Reason, Ref, Timestamp, VersionId,
    condition::Condition, deployment::Runtime, disk::DiskState, guest::Guest, network::Nic,
};

/// State of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// No node was chosen yet.
    Pending,
    /// A node was chosen; its disk and virtual machine are being made.
    Starting,
    /// The hypervisor runs it (with runtime `none`: its disk file exists).
    Running,
    /// The hypervisor paused it because its disk is full or cannot be read. It goes on by itself when that ends.
    Paused,
    /// It was told to stop.
    Stopping,
    /// It does not run. Its disk is kept.
    Stopped,
    /// Reserved: not used yet.
    Migrating,
    /// It could not start, ended unasked, or lost its disk; see `reason`.
    Failed,
    /// It is being deleted.
    Deleting,
    /// It is deleted. It is listed with `?deleted=true` for 24 hours.
    Deleted,
    /// Its node is silent, so its state is not known. Also a word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A disk of an instance.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceDisk {
    /// Id of the disk, which is also in the name of its file on the node.
    pub id: DiskId,
    /// Name of the disk within the instance; that of the boot disk is `root`.
    pub name: String,
    /// Current state.
    #[serde(default)]
    #[schema(required)]
    pub state: DiskState,
    /// Logical size in bytes.
    pub size_bytes: u64,
    /// Path of its raw file on the node. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub path: Option<String>,
    /// Its newest published version, from which a start on another node would begin.
    pub version: VersionId,
    /// Bytes written since the newest published version, as last reported by the node.
    pub unsaved_bytes: u64,
    /// The instant whose state its newest version of its own has: what was written later is not in it. Null if it has none of
    /// its own yet.
    pub saved_at: Option<Timestamp>,
}

/// When the steps of this start happened; null for steps that have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Steps {
    /// Somebody asked for it.
    #[serde(default)]
    pub requested_at: Option<Timestamp>,
    /// A node was chosen.
    pub placed_at: Option<Timestamp>,
    /// Its disk file was ready on the node.
    pub disk_at: Option<Timestamp>,
    /// The hypervisor began to run it.
    pub started_at: Option<Timestamp>,
}

/// An instance.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Instance {
    /// Id of the instance.
    pub id: InstanceId,
    /// Name: DEPLOYMENT.N
    pub name: String,
    /// Host name that the guest may take: DEPLOYMENT-N.
    pub host_name: String,
    /// Name of the project that owns the instance.
    pub project: String,
    /// Labels of the instance.
    pub labels: Labels,
    /// Current state.
    pub state: InstanceState,
    /// Why it is in that state: `no_capacity`, `node_silent`, `node_lost`, `start_failed`, `not_started_in_time`, `not_ready`, `not_ready_in_time`,
    /// `guest_ended`, `host_restarted`, `power_cut`, `guest_crashed`, `agent_stopped`, `disk_lost`, `disk_full`, `disk_failed`, `disk_error`, `disk_diverged`,
    /// `clock_off`, `network_failed`, `unreachable`, `io`, `paused`, `hypervisor`, `hypervisor_silent`, or a word of a newer
    /// release.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// The reason in a sentence, for people.
    pub detail: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the instance; give it as `If-Match`.
    pub etag: String,
    /// The deployment it is a member of.
    pub deployment: DeploymentId,
    /// Name of that deployment.
    pub deployment_name: String,
    /// Number of the instance within the deployment.
    pub number: u64,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// What runs it.
    #[schema(value_type = Runtime)]
    pub runtime: OrUnknown<Runtime>,
    /// When it became ready in this start; null while it is not.
    pub ready_at: Option<Timestamp>,
    /// When the steps of this start happened.
    pub steps: Steps,
    /// How often its guest has booted: its starts, those after a restart of its host, and those by itself.
    pub boots: u64,
    /// The last reason for which it ended, failed, was paused or restarted itself. It stays while the instance runs again.
    #[schema(value_type = Option<String>)]
    pub last_reason: Option<Reason>,
    /// When that happened, as the controller learned it.
    pub last_reason_at: Option<Timestamp>,
    /// What its owner should know about it and its state does not say.
    #[serde(default)]
    #[schema(required)]
    pub conditions: Vec<Condition>,
    /// Its disks, boot disk first.
    pub disks: Vec<InstanceDisk>,
    /// Bytes that were written to all its disks since their newest published versions, as last reported by the node.
    #[serde(default)]
    #[schema(required)]
    pub unsaved_bytes: u64,
    /// What all its disks held then is saved: the oldest `saved_at` of them; null if one of them has none.
    #[serde(default)]
    #[schema(required)]
    pub saved_at: Option<Timestamp>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// What its guest agent told; left out by lists, and until a guest agent has answered in this start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub guest: Option<Guest>,
    /// Id of its node. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub node: Option<NodeId>,
    /// Name of its node. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub node_name: Option<String>,
    /// Failure domain of its node.
    pub zone: Option<String>,
    /// Raised whenever its disk is assigned to a node; only the newest generation may write. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub generation: Option<u64>,
}

/// Request of `PATCH /v1/instances/{i}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchInstance {
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
}

/// Request of `POST /v1/instances/{i}/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Cut the power at once instead of asking the guest to turn itself off.
    #[serde(default)]
    pub force: bool,
    /// Seconds the guest may take before its power is cut, at most 3600. Default: what the controller's configuration says
    /// as `instances.stop_timeout`, which is 30 unless the operator has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Request of `POST /v1/instances/{i}/recover`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Give up what was written to its disks after their last saved version. Without it such an instance is refused with
    /// `data_loss`.
    #[serde(default)]
    pub accept_loss: bool,
}

/// What recovering an instance gives up: everything that was written to a disk after its last saved version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Loss {
    /// Id of the instance.
    pub instance: InstanceId,
    /// Name of the instance.
    pub instance_name: String,
    /// Id of the disk.
    pub disk: DiskId,
    /// Name of the disk within the instance.
    pub disk_name: String,
    /// The version from which the disk begins anew.
    pub version: VersionId,
    /// The instant whose state that version has; null if nothing of the disk was ever saved, so that it begins as it was deployed.
    pub saved_at: Option<Timestamp>,
    /// Bytes written after that version, as the lost node last reported. It may have been more.
    pub unsaved_bytes: u64,
}

/// The instances that a request is about. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Id or name of a deployment: all of its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<Ref<DeploymentId>>,
    /// Ids or names of instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub instances: Option<Vec<Ref<InstanceId>>>,
    /// A label as `KEY=VALUE`: all instances of the project that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Request of `POST /v1/instances/-/VERB`, which acts on many instances.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnMany {
    /// The instances to act on.
    pub select: Select,
    /// For `stop` and `reboot`: cut the power at once instead of asking the guest to turn itself off.
    #[serde(default)]
    pub force: bool,
    /// For `stop` and `reboot`: seconds the guest may take before its power is cut, at most 3600. Default: what the
    /// controller's configuration says as `instances.stop_timeout`, which is 30 unless the operator has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// For `recover`: give up what was written after the last saved versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
}
