//! Snapshots: versions of the disks of their members, all cut at one instant. `/v1/snapshots`.

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, DiskId, InstanceId, Labels, LabelsPatch, Name, OrUnknown, Reason, SnapshotId, Timestamp, VersionId,
    instance::Select, patch::required,
};

/// Request of `POST /v1/snapshots`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Name of the snapshot; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The instances to take it of.
    pub select: Select,
    /// What it promises about file systems. Default: `crash`.
    #[serde(default)]
    pub consistency: Consistency,
    /// Longest time that a write of a guest may be held, in milliseconds, 1 to 10000. Default: 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pause_ms: Option<u64>,
    /// Labels of the snapshot.
    #[serde(default)]
    pub labels: Labels,
}

/// Request of `POST /v1/snapshots/{snapshot}/restore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreSnapshot {
    /// What the disks hold now is given up. Otherwise a snapshot of the members is taken first, and kept.
    #[serde(default)]
    pub discard_current: bool,
    /// Restore the others if instances or disks of the snapshot are not there any more, or versions of it were deleted.
    /// Otherwise that is refused with 409 and `missing`.
    #[serde(default)]
    pub allow_missing: bool,
    /// Cut the power of guests that run at once, without asking them to turn off.
    #[serde(default)]
    pub force: bool,
    /// Seconds that a guest may take to turn off before its power is cut, at most 3600. Default: as the controller is
    /// configured, 30 if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// What a snapshot promises about the file systems of guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The disks are as after a power cut of all members at one instant.
    #[default]
    Crash,
    /// As `crash`, and the guest agents of guests that run write everything back and freeze their file systems during the
    /// cut. Their file systems mount clean. A guest that is paused or stopped is not frozen; its disk is as it is. Refused
    /// with 409 `no_guest_agent` if a member runs whose guest agent does not answer.
    Filesystem,
}

/// State of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// The disks are not cut yet.
    Cutting,
    /// The disks are cut; their nodes upload what was written.
    Saving,
    /// All objects are durable, and all versions are visible.
    Ready,
    /// It failed, and no version of it is visible.
    Failed,
    /// It is deleted.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// Id of the snapshot.
    pub id: SnapshotId,
    /// Unique among the project's snapshots.
    pub name: String,
    /// Name of the project that owns the snapshot.
    pub project: String,
    /// Labels of the snapshot.
    pub labels: Labels,
    /// Current state.
    pub state: SnapshotState,
    /// Why it failed: `unreachable`, `hold_expired`, `freeze_failed`, `busy`, `disk_full`, `disk_failed`, `not_assigned`, `io`,
    /// `invalid`, `member_lost`, `deadline`, `upload_ended`, `deleted`, `cancelled`, or a word of a newer release.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the snapshot; give it as `If-Match`.
    pub etag: String,
    /// The deployment it was taken of; null if its members were selected otherwise.
    pub deployment: Option<DeploymentId>,
    /// Name of that deployment.
    pub deployment_name: Option<String>,
    /// What it promises about file systems.
    #[schema(value_type = Consistency)]
    pub consistency: OrUnknown<Consistency>,
    /// Longest time that a write of a guest could be held, in milliseconds.
    pub max_pause_ms: u64,
    /// The instant of the cut; null until then.
    pub cut_at: Option<Timestamp>,
    /// When all objects were durable and the versions became visible.
    pub durable_at: Option<Timestamp>,
    /// Number of disks in it.
    pub members: u64,
    /// Number of instances left out because they were failed, pending or deleting. In a scheduled one also those whose nodes
    /// are silent, and those with a disk that is still being attached.
    pub skipped: u64,
    /// How many of the members have no version any more, because somebody deleted it. A fork needs `allow_missing` then.
    #[serde(default)]
    #[schema(required)]
    pub missing: u64,
    /// Whether the controller took it by itself to protect its deployment. Then it goes when the rules of the deployment do not
    /// want it any more.
    #[serde(default)]
    #[schema(required)]
    pub scheduled: bool,
    /// Bytes written by all guests since the last versions of their disks.
    pub dirty_bytes: u64,
    /// Bytes newly stored in the pool for it, one copy.
    pub stored_bytes: u64,
    /// Longest time that a write of a member was held, in milliseconds.
    pub pause_max_ms: Option<f64>,
}

/// One disk of a snapshot, an item of `GET /v1/snapshots/{s}/members`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotMember {
    /// Id of the instance it was taken of, which may be deleted.
    pub instance: InstanceId,
    /// Name of that instance.
    pub instance_name: String,
    /// Id of the disk it was taken of.
    pub disk: DiskId,
    /// Name that the disk had within the instance.
    pub disk_name: String,
    /// Version with the state of the disk; null until the snapshot is ready.
    pub version: Option<VersionId>,
    /// How long writes to the disk were held, in milliseconds.
    pub pause_ms: Option<f64>,
    /// Bytes written since the last version of the disk.
    pub dirty_bytes: u64,
    /// Bytes newly stored in the pool for it, one copy.
    pub stored_bytes: u64,
}

/// Request of `PATCH /v1/snapshots/{s}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchSnapshot {
    /// The new name; unchanged if absent.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
    /// `false` keeps a scheduled snapshot until somebody deletes it; unchanged if absent. `true` is refused for any other.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled: Option<bool>,
}
