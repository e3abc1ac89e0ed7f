//! Images and uploads of their content, `/v1/images`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};

use crate::{
    DottedName, ImageId, Labels, LabelsPatch, OrUnknown, Ref, Timestamp, VersionId,
    firmware::{BootKind, Firmware, FirmwareChoice, bios},
    patch::{nullable, required},
};

/// Request of `POST /v1/images`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    /// Name of the image; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DottedName>,
    /// Where the content comes from. Default: `{"upload": {}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ImageSource>,
    /// Chunk size in bytes, a power of two from 64 KiB to 4 MiB. Default: 256 KiB. Only for an upload; a clone has the
    /// chunk size of its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// Labels of the image.
    #[serde(default)]
    pub labels: Labels,
    /// The operating system on it, for people and programs: `debian-12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The user that its guests have for signing in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Least size of a disk that starts from it, bytes. A deployment that says nothing gets at least that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_disk_bytes: Option<u64>,
    /// Least memory of a machine that starts from it, bytes. A deployment that says nothing gets at least that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_memory_bytes: Option<u64>,
    /// The firmware of machines that start from it. Default: `auto`, what the first sectors of its versions tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareChoice>,
}

/// Where an image's first version comes from. Exactly one of `upload`, `version` (alone), `image` or `url` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// The caller uploads the content with `PUT …/content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Empty>,
    /// Id or name of an image to clone: its newest version, or the one with the number `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Ref<ImageId>>,
    /// Without `image`: the id of a version to clone. With `image`: the number of a version of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionOrNumber>,
    /// Reserved: refused with 501, because it is not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Reserved, for `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// An object without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// The id of a version, or its number within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum VersionOrNumber {
    /// Number within the image, from 1.
    Number(u64),
    /// Id of a version.
    Id(VersionId),
}

impl<'de> Deserialize<'de> for VersionOrNumber {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = VersionOrNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a version or the number of one in an image")
            }

            fn visit_u64<E>(self, number: u64) -> Result<VersionOrNumber, E> {
                Ok(VersionOrNumber::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<VersionOrNumber, E> {
                let not_an_id = |_| de::Error::invalid_value(de::Unexpected::Str(text), &self);
                text.parse().map(VersionOrNumber::Id).map_err(not_an_id)
            }
        }

        input.deserialize_any(Either)
    }
}

/// Request of `PATCH /v1/images/{i}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchImage {
    /// The new name; unchanged if absent.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<DottedName>,
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
    /// The operating system; null removes it, unchanged if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub os: Option<Option<String>>,
    /// The user for signing in; null removes it, unchanged if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub default_user: Option<Option<String>>,
    /// Least size of a disk, bytes; null removes it, unchanged if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub min_disk_bytes: Option<Option<u64>>,
    /// Least memory, bytes; null removes it, unchanged if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub min_memory_bytes: Option<Option<u64>>,
    /// The firmware of machines that start from it; null is `auto`, unchanged if absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Option<FirmwareChoice>>,
}

/// State of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// It has no version yet.
    Empty,
    /// It has at least one version.
    Ready,
    /// It is deleted.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// An image: a name with numbered versions.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Image {
    /// Id of the image.
    pub id: ImageId,
    /// Unique among the project's images.
    pub name: String,
    /// Name of the project that owns the image.
    pub project: String,
    /// Labels of the image.
    pub labels: Labels,
    /// Current state.
    pub state: ImageState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the image; give it as `If-Match`.
    pub etag: String,
    /// Chunk size of its versions in bytes.
    pub chunk_bytes: u64,
    /// Number of its newest version; null if it has none.
    pub newest_number: Option<u64>,
    /// Id of its newest version; null if it has none.
    pub newest_version: Option<VersionId>,
    /// Logical size of its newest version in bytes; null if it has none.
    pub size_bytes: Option<u64>,
    /// What can boot its newest version; `unknown` if it has none.
    #[serde(default)]
    #[schema(required)]
    pub boot: BootKind,
    /// Number of its versions, without deleted ones.
    pub version_count: u64,
    /// The operating system on it, for people and programs: `debian-12`. Null if nobody said it.
    #[serde(default)]
    #[schema(required)]
    pub os: Option<String>,
    /// The user that its guests have for signing in. Null if nobody said it.
    #[serde(default)]
    #[schema(required)]
    pub default_user: Option<String>,
    /// Least size of a disk that starts from it, bytes. A deployment that says nothing gets at least that. Null if nobody said it.
    #[serde(default)]
    #[schema(required)]
    pub min_disk_bytes: Option<u64>,
    /// Least memory of a machine that starts from it, bytes. A deployment that says nothing gets at least that. Null if nobody said it.
    #[serde(default)]
    #[schema(required)]
    pub min_memory_bytes: Option<u64>,
    /// The firmware of machines that start from it: what somebody said, else what its newest version tells.
    #[serde(default = "bios")]
    #[schema(required, value_type = Firmware)]
    pub firmware: OrUnknown<Firmware>,
}
