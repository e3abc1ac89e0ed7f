//! Versions: the immutable states of disks. `/v1/versions/{v}`, `…/content`, `…/extents`.

use serde::{Deserialize, Serialize};

use crate::{
    DiskId, ImageId, InstanceId, Labels, OrUnknown, SnapshotId, Timestamp, VersionId,
    firmware::{BootKind, Firmware, bios},
};

/// State of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// It can be read, deployed and exported.
    Ready,
    /// It is deleted.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A version: one immutable state of a disk.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// Id of the version.
    pub id: VersionId,
    /// Name of the version: `IMAGE@N` or `SNAPSHOT/INSTANCE`.
    pub name: String,
    /// Name of the project that owns the version.
    pub project: String,
    /// Labels of the version.
    pub labels: Labels,
    /// Current state.
    pub state: VersionState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it was published.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the version; give it as `If-Match`.
    pub etag: String,
    /// Id of the image it belongs to, if any.
    pub image: Option<ImageId>,
    /// Name of that image.
    pub image_name: Option<String>,
    /// Number of the version within that image, from 1.
    pub number: Option<u64>,
    /// Id of the instance whose disk it is a state of, if any.
    pub instance: Option<InstanceId>,
    /// Name of that instance.
    pub instance_name: Option<String>,
    /// Id of the disk it is a state of, if any.
    pub disk: Option<DiskId>,
    /// Name that this disk had within the instance.
    #[serde(default)]
    #[schema(required)]
    pub disk_name: Option<String>,
    /// Id of the snapshot it belongs to, if any.
    pub snapshot: Option<SnapshotId>,
    /// Name of that snapshot.
    pub snapshot_name: Option<String>,
    /// Logical size in bytes.
    pub size_bytes: u64,
    /// Chunk size in bytes.
    pub chunk_bytes: u64,
    /// Name of its descriptor object, hex. Versions with equal roots have equal bytes, but equal bytes may have
    /// different roots.
    pub root: String,
    /// BLAKE3 of its raw bytes, hex; null if no upload computed it.
    pub digest: Option<String>,
    /// Bytes that publishing it newly stored in the pool, one copy, compared with the other versions of the project.
    pub stored_bytes: u64,
    /// What can boot it.
    #[serde(default)]
    #[schema(required)]
    pub boot: BootKind,
    /// The firmware that starts it: of an import, what `boot` tells; of the disk of an instance, what the instance has.
    #[serde(default = "bios")]
    #[schema(required, value_type = Firmware)]
    pub firmware: OrUnknown<Firmware>,
    /// Id of the version that it was made from: for a state of a disk the version that the disk had before, for a clone
    /// its origin. Null for an import, and where it is not known. It may be deleted by now.
    #[serde(default)]
    pub parent: Option<VersionId>,
    /// Objects of it of which no node has a copy, as far as that is known. Ranges that need them cannot be read until the same
    /// content is imported again.
    #[serde(default)]
    #[schema(required)]
    pub objects_lost: u64,
}

/// A range of a version that has data, an item of `GET /v1/versions/{v}/extents`. All other ranges are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Extent {
    /// Offset of its first byte on the disk.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

/// A map of the chunks of a version, in the order of the disk. Each cell stands for `step` chunks, the last one for those that
/// are left. A cell is a part from 0 to 1 of its chunks, or null where that was not found out in time. Chunks that are neither
/// zeros nor shared are the version's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Chunks {
    /// Chunk size in bytes.
    pub chunk_bytes: u64,
    /// Number of chunks of the disk.
    pub count: u64,
    /// Number of chunks of a cell, a power of two. There are at most 16,384 cells.
    pub step: u64,
    /// Chunks that are zeros.
    pub zero: Vec<Option<f64>>,
    /// Chunks that are not zeros and the same as in the version that this one was made from. Null if that is not known.
    pub shared: Option<Vec<Option<f64>>>,
    /// When the last boots first read the chunks: 0 is the first one that was read, 1 the last, null one that they did not
    /// read. A cell of several chunks has the place of the one that was read first. Null if no boot is known.
    pub boot_order: Option<Vec<Option<f64>>>,
    /// How many chunks that are not zeros these boots read; a chunk counts for a few boots after the last one that read it.
    #[serde(default)]
    #[schema(required)]
    pub boot_chunks: u64,
    /// Number of boots that the order is made from: the last ones, at most 8. 0 if none is known.
    #[serde(default)]
    #[schema(required)]
    pub boots: u64,
    /// Id of the version that booted: this one, or the nearest one that it was made from if no boot of this one is known.
    /// Null if no boot is known.
    #[serde(default)]
    pub boots_of: Option<VersionId>,
}

/// Answer of `DELETE` with `?dry_run=true`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Freed {
    /// Bytes that nothing else uses, one copy; null if that could not be found out within 2 s. They stay stored until the
    /// next rounds of the sweep.
    pub freed_bytes: Option<u64>,
}
