//! Versions: every state of every disk, `GET /v1/versions/{v}`, `…/content`, `…/extents`.

use serde::{Deserialize, Serialize};

use crate::{DiskId, ImageId, InstanceId, Labels, SnapshotId, Timestamp, VersionId};

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Readable, deployable, exportable.
    Ready,
    /// Unlinked.
    Deleted,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

/// One immutable state of a disk.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// Id.
    pub id: VersionId,
    /// `IMAGE@N` or `SNAPSHOT/INSTANCE`.
    pub name: String,
    /// Owner.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: VersionState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// When it was published.
    pub created_at: Timestamp,
    /// When its row last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// The image it is a number of, if any.
    pub image: Option<ImageId>,
    /// That image's name.
    pub image_name: Option<String>,
    /// Its number in that image.
    pub number: Option<u64>,
    /// The instance whose disk it is a state of, if any.
    pub instance: Option<InstanceId>,
    /// That instance's name.
    pub instance_name: Option<String>,
    /// The disk it is a state of, if any.
    pub disk: Option<DiskId>,
    /// The snapshot it belongs to, if any.
    pub snapshot: Option<SnapshotId>,
    /// That snapshot's name.
    pub snapshot_name: Option<String>,
    /// Logical size.
    pub size_bytes: u64,
    /// Chunk size.
    pub chunk_bytes: u64,
    /// Name of the descriptor, hex: proves the bytes, but equal contents may have different roots.
    pub root: String,
    /// BLAKE3 of the raw bytes, hex; null where they never passed by as a whole.
    pub digest: Option<String>,
    /// What its publish newly stored, one copy, counted within the project.
    pub stored_bytes: u64,
}

/// One run of a version's content, `GET /v1/versions/{v}/extents`: absent ranges are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Extent {
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub length_bytes: u64,
}

/// Answer of `DELETE …?dry_run=true`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Freed {
    /// Bytes that would come back, one copy; null when not known in 2 s.
    pub freed_bytes: Option<u64>,
}
