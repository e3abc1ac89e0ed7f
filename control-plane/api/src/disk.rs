//! Disks beside the boot disk: what a request asks for, and what a deployment has.

use serde::{Deserialize, Serialize};

use crate::{ImageId, Ref, image::VersionOrNumber};

/// Name of the boot disk of every instance.
pub const ROOT: &str = "root";

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

/// A disk that each member of a deployment has beside the boot disk.
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
