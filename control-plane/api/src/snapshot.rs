//! Snapshots: the versions of all disks of their members, cut at one instant.

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, DiskId, InstanceId, Labels, Name, OrUnknown, SnapshotId, Timestamp, VersionId, instance::Select,
};

/// `POST /v1/snapshots`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Made up if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whom.
    pub select: Select,
    /// Default `crash`.
    #[serde(default)]
    pub consistency: Consistency,
    /// Longest a guest's write may be held, 1 to 10000; default 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pause_ms: Option<u64>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
}

/// What a snapshot promises about the guests' file systems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a power cut at one instant on all members.
    #[default]
    Crash,
    /// Reserved.
    Filesystem,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Waiting for the instant.
    Cutting,
    /// Cut; members upload what changed.
    Saving,
    /// Durable; all versions are visible.
    Ready,
    /// Nothing was published.
    Failed,
    /// Unlinked.
    Deleted,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// Id.
    pub id: SnapshotId,
    /// Unique among the project's snapshots.
    pub name: String,
    /// Owner.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: SnapshotState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// The deployment it was taken of, if it was one.
    pub deployment: Option<DeploymentId>,
    /// That deployment's name.
    pub deployment_name: Option<String>,
    /// What it promises.
    #[schema(value_type = Consistency)]
    pub consistency: OrUnknown<Consistency>,
    /// Longest a guest's write may be held.
    pub max_pause_ms: u64,
    /// The instant.
    pub cut_at: Option<Timestamp>,
    /// When every object was durable and the versions visible.
    pub durable_at: Option<Timestamp>,
    /// Disks in it.
    pub members: u64,
    /// Instances left out because they were failed, pending or deleting.
    pub skipped: u64,
    /// Written by all guests since their last versions.
    pub dirty_bytes: u64,
    /// Newly stored, one copy.
    pub stored_bytes: u64,
    /// The longest pause of a member.
    pub pause_max_ms: Option<f64>,
}

/// One disk of a snapshot, `GET /v1/snapshots/{s}/members`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SnapshotMember {
    /// Instance it was taken of; may be gone.
    pub instance: InstanceId,
    /// Its name then.
    pub instance_name: String,
    /// Disk it was taken of.
    pub disk: DiskId,
    /// The disk's state; null until ready.
    pub version: Option<VersionId>,
    /// How long this guest's writes were held.
    pub pause_ms: Option<f64>,
    /// Written since the disk's last version.
    pub dirty_bytes: u64,
    /// Newly stored, one copy.
    pub stored_bytes: u64,
}

/// `PATCH /v1/snapshots/{s}` (merge patch).
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchSnapshot {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}
