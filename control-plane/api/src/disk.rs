//! Disks of instances, and disks that belong to none: `/v1/disks`. And the disks beside the boot disk that a deployment has.

use serde::{Deserialize, Serialize};

use crate::{DiskId, ImageId, InstanceId, Ref, Timestamp, VersionId, image::VersionOrNumber, patch};

/// Name of the boot disk of every instance.
pub const ROOT: &str = "root";

/// What a disk is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// It belongs to an instance whose node has not yet reported that the disk is there, or that the guest has it if one runs.
    Attaching,
    /// It belongs to an instance and is on its node.
    Attached,
    /// As `attached`, and its node has not yet reported its new size, or that a guest which runs was told of it.
    Growing,
    /// It is taken from its guest, and what it holds is saved. `detail` says what is waited for.
    Detaching,
    /// It belongs to no instance. All that it holds is in its version.
    Detached,
    /// A word that this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Disk {
    /// Id of the disk. It stays the same when the disk is detached and attached elsewhere.
    pub id: DiskId,
    /// Name of the disk within its instance, or the one that it had there; that of a boot disk is `root`.
    pub name: String,
    /// Name of the project that owns the disk.
    pub project: String,
    /// Current state.
    pub state: DiskState,
    /// What the state waits for, or what its node cannot do with the disk, in a sentence, for people.
    pub detail: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the disk; give it as `If-Match`.
    pub etag: String,
    /// The instance that it belongs to; null if it is detached.
    pub instance: Option<InstanceId>,
    /// Name of that instance.
    pub instance_name: Option<String>,
    /// Name that the instance had which it was detached from; null unless it is detached.
    pub detached_from: Option<String>,
    /// Logical size in bytes.
    pub size_bytes: u64,
    /// Its newest published version, from which a start on another node would begin. Once detached, all that the disk holds.
    pub version: VersionId,
    /// Bytes written since that version, as last reported by the node.
    pub unsaved_bytes: u64,
    /// The instant whose state its newest version of its own has: what was written later is not in it. Null if it has none of
    /// its own yet.
    pub saved_at: Option<Timestamp>,
}

/// Request of `PATCH /v1/disks/{d}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchDisk {
    /// Its new size in bytes: a multiple of 4096, at most 16 TiB, and not less than it has.
    #[serde(default, deserialize_with = "patch::required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub size_bytes: Option<u64>,
}

/// Request of `POST /v1/instances/{i}/disks`. Either `disk`, to attach one that is detached, with `name` if it is to have
/// another; or `name` and `size_bytes`, with `source` unless it is to be blank, to make one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachDisk {
    /// Id of a detached disk, or its name where no other detached disk has it. One that is being detached from this instance
    /// stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub disk: Option<Ref<DiskId>>,
    /// Name of the disk within the instance: 1 to 32 characters of `a` to `z`, `0` to `9` and `-`. `root` and `nvram` are
    /// taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 32, pattern = "^[a-z0-9-]{1,32}$")]
    pub name: Option<String>,
    /// Size of a new disk in bytes, 1 MiB to 16 TiB and at least that of its source. It is rounded up to a multiple of 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What a new disk starts as. Default: blank, all bytes are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DiskSource>,
}

/// A disk beside the boot disk, which each member of a deployment gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDisk {
    /// Name of the disk within the instance: 1 to 32 characters of `a` to `z`, `0` to `9` and `-`. `root` and `nvram` are
    /// taken.
    #[schema(min_length = 1, max_length = 32, pattern = "^[a-z0-9-]{1,32}$")]
    pub name: String,
    /// Its size in bytes, 1 MiB to 16 TiB and at least that of its source. It is rounded up to a multiple of 4096.
    pub size_bytes: u64,
    /// What it starts as. Default: blank, all bytes are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DiskSource>,
}

/// What a disk starts as. Exactly one of these is given: `image` (with an optional `version` number), `version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSource {
    /// Id or name of an image: its newest version, or the one with the number `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Ref<ImageId>>,
    /// Without `image`: the id of a version. With `image`: the number of a version of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionOrNumber>,
}

/// A disk that members of a deployment get beside the boot disk. A member of a fork gets those that its member of the
/// snapshot had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeploymentDisk {
    /// Name of the disk within the instance.
    pub name: String,
    /// The size in bytes that new members get it with.
    pub size_bytes: u64,
    /// What it starts as, with names replaced by ids; null if it starts blank, or as the disk of this name of a snapshot.
    pub source: Option<DiskSource>,
    /// Name of the source's image or version; null if it has none.
    pub source_name: Option<String>,
}
