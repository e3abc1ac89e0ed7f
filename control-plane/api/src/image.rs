//! Images: `POST /v1/images`, `PUT /v1/images/{i}/content`.

use serde::{Deserialize, Serialize};

use crate::{DottedName, ImageId, Labels, Ref, Timestamp, VersionId};

/// `POST /v1/images`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    /// Made up if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DottedName>,
    /// Where the content comes from; default `{"upload": {}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ImageSource>,
    /// A power of two from 64 KiB to 4 MiB; default 256 KiB. Only with an upload: a clone inherits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
}

/// Where an image's first version comes from. Exactly one of `upload`, `version` (alone), `image` or `url` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// The caller sends it with `PUT …/content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Empty>,
    /// Clone this image's newest version, or the one numbered `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Ref<ImageId>>,
    /// Alone: the id of a version to clone. With `image`: a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionOrNumber>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Reserved, with `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// An object without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// A version's id, or its number within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum VersionOrNumber {
    /// A number within the image, from 1.
    Number(u64),
    /// A version's id.
    Id(VersionId),
}

/// `PATCH /v1/images/{i}` (merge patch).
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchImage {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DottedName>,
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// Where an image is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// No version yet.
    Empty,
    /// Has a newest version.
    Ready,
    /// Unlinked.
    Deleted,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

/// An image: a named, numbered line of versions.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Image {
    /// Id.
    pub id: ImageId,
    /// Unique among the project's images.
    pub name: String,
    /// Owner.
    pub project: String,
    /// Labels.
    pub labels: Labels,
    /// State.
    pub state: ImageState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    pub etag: String,
    /// Chunk size of its versions.
    pub chunk_bytes: u64,
    /// Number of the newest version; null while empty.
    pub newest_number: Option<u64>,
    /// Id of the newest version; null while empty.
    pub newest_version: Option<VersionId>,
    /// Size of the newest version.
    pub size_bytes: Option<u64>,
    /// Number of versions that exist.
    pub version_count: u64,
}
