//! Images: what a request for a new one asks for, and what is known of the systems on them.

use muster_api::{
    ImageId, Ref, VersionId,
    error::FieldError,
    firmware::Firmware,
    image::{CreateImage, ImageSource, PatchImage, VersionOrNumber},
    units::exact_size,
};
use serde::{Deserialize, Serialize};
use storage_core::ChunkSize;

use super::versions::SIZE_BYTES_MAX;

/// Most characters of [`Properties::os`].
const OS_LEN_MAX: usize = 64;
/// Most characters of a user name, as on Linux.
const USER_LEN_MAX: usize = 32;

/// Where an image's first version comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller sends it. Its chunks will have this size.
    Upload(ChunkSize),
    /// It gets the content of this version.
    Version(VersionId),
    /// It is the version with this number of an image; the newest one if there is no number.
    Image(Ref<ImageId>, Option<u64>),
    /// It is fetched from a URL. Reserved.
    Url,
}

/// What is known of the system on an image. Deployments take it as their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// The operating system.
    pub os: Option<String>,
    /// The user for signing in.
    pub default_user: Option<String>,
    /// Least size of a disk, bytes.
    pub min_disk_bytes: Option<u64>,
    /// Least memory, bytes.
    pub min_memory_bytes: Option<u64>,
    /// The firmware that starts it; `None` for what its versions tell.
    #[serde(default)]
    pub firmware: Option<Firmware>,
}

impl Properties {
    /// What the request for a new image says.
    #[must_use]
    pub fn of(wanted: &CreateImage) -> Self {
        Self {
            os: wanted.os.clone(),
            default_user: wanted.default_user.clone(),
            min_disk_bytes: wanted.min_disk_bytes,
            min_memory_bytes: wanted.min_memory_bytes,
            firmware: wanted.firmware.unwrap_or_default().said(),
        }
    }

    /// These, and what `other` says where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            os: self.os.or(other.os),
            default_user: self.default_user.or(other.default_user),
            min_disk_bytes: self.min_disk_bytes.or(other.min_disk_bytes),
            min_memory_bytes: self.min_memory_bytes.or(other.min_memory_bytes),
            firmware: self.firmware.or(other.firmware),
        }
    }

    /// These after a PATCH.
    #[must_use]
    pub fn patched(&self, patch: &PatchImage) -> Self {
        fn after<T: Clone>(before: &Option<T>, patch: &Option<Option<T>>) -> Option<T> {
            patch.clone().unwrap_or_else(|| before.clone())
        }
        Self {
            os: after(&self.os, &patch.os),
            default_user: after(&self.default_user, &patch.default_user),
            min_disk_bytes: after(&self.min_disk_bytes, &patch.min_disk_bytes),
            min_memory_bytes: after(&self.min_memory_bytes, &patch.min_memory_bytes),
            firmware: match patch.firmware {
                Some(choice) => choice.unwrap_or_default().said(),
                None => self.firmware,
            },
        }
    }

    /// Checks what users said.
    ///
    /// # Errors
    /// All fields that do not fit.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut wrong = Vec::new();
        let fits = |os: &str| (1..=OS_LEN_MAX).contains(&os.chars().count()) && !os.chars().any(char::is_control);
        if self.os.as_deref().is_some_and(|os| !fits(os)) {
            wrong.push(at("/os", "invalid", format!("1 to {OS_LEN_MAX} characters, for example debian-12")));
        }
        if self.default_user.as_deref().is_some_and(|user| !is_user_name(user)) {
            let said =
                format!("the name of a user: a letter or _, then letters, digits, - or _, at most {USER_LEN_MAX}");
            wrong.push(at("/default_user", "invalid", said));
        }
        let sizes = [("/min_disk_bytes", self.min_disk_bytes), ("/min_memory_bytes", self.min_memory_bytes)];
        for (pointer, size) in sizes {
            if let Some(bytes) = size.filter(|bytes| !(1..=SIZE_BYTES_MAX).contains(bytes)) {
                let said = format!("1 to {}, got {}", exact_size(SIZE_BYTES_MAX), exact_size(bytes));
                wrong.push(at(pointer, "out_of_range", said));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

/// Whether `useradd` of a Linux would take it.
fn is_user_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first
        && text.len() <= USER_LEN_MAX
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn at(pointer: &str, code: &str, detail: impl Into<String>) -> FieldError {
    FieldError { pointer: pointer.to_owned(), code: code.to_owned(), detail: detail.into() }
}

impl Source {
    /// What the request asks for.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn of(wanted: &CreateImage) -> Result<Self, FieldError> {
        let source = wanted.source.clone().unwrap_or_default();
        let ImageSource { upload, image, version, url, sha256 } = source;
        let one_of = || at("/source", "invalid", "name one source: upload, version, image (with version) or url");
        let found = match (upload, image, version, url) {
            (_, None, None, None) => None,
            (None, None, None, Some(_)) => Some(Self::Url),
            (None, None, Some(VersionOrNumber::Id(id)), None) => Some(Self::Version(id)),
            (None, None, Some(VersionOrNumber::Number(_)), None) => {
                return Err(at("/source/version", "invalid", "without an image a version is named by its id"));
            }
            (None, Some(image), None, None) => Some(Self::Image(image, None)),
            (None, Some(image), Some(VersionOrNumber::Number(number)), None) => Some(Self::Image(image, Some(number))),
            (None, Some(_), Some(VersionOrNumber::Id(_)), None) => {
                return Err(at("/source/version", "invalid", "within an image a version is named by its number"));
            }
            _ => return Err(one_of()),
        };
        if sha256.is_some() && found != Some(Self::Url) {
            return Err(at("/source/sha256", "invalid", "goes with url; an upload states it with its content"));
        }
        let chunk = wanted.chunk_bytes.map(ChunkSize::from_bytes).transpose();
        let chunk = chunk.map_err(|e| at("/chunk_bytes", "out_of_range", e.to_string()))?;
        match (found, chunk) {
            (None, chunk) => Ok(Self::Upload(chunk.unwrap_or_default())),
            (Some(Self::Url), _) => Ok(Self::Url),
            (Some(_), Some(_)) => Err(at("/chunk_bytes", "invalid", "a clone has the chunks of its source")),
            (Some(source), None) => Ok(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: serde_json::Value) -> Result<Source, String> {
        let wanted: CreateImage = serde_json::from_value(json).map_err(|e| e.to_string())?;
        Source::of(&wanted).map_err(|e| e.pointer)
    }

    #[test]
    fn properties_that_do_not_fit_are_named_all_at_once() {
        let wrong = |json| {
            let wanted: CreateImage = serde_json::from_value(json).expect("a request");
            let wrong = Properties::of(&wanted).check().err().unwrap_or_default();
            wrong.into_iter().map(|error| error.pointer).collect::<Vec<_>>()
        };
        use serde_json::json;
        let good = json!({ "os": "Debian 12", "default_user": "debian", "min_disk_bytes": 1, "min_memory_bytes": 1 });
        assert!(wrong(good).is_empty());
        for user in ["", "Root", "a b", "-a", "0a", "root:", "a\n", "ab$"] {
            assert_eq!(wrong(json!({ "default_user": user })), ["/default_user"], "{user:?}");
        }
        let all = json!({ "os": "a\u{1b}", "default_user": "x".repeat(33), "min_disk_bytes": 0, "min_memory_bytes": 1u64 << 60 });
        assert_eq!(wrong(all), ["/os", "/default_user", "/min_disk_bytes", "/min_memory_bytes"]);
    }

    #[test]
    fn a_patch_changes_only_the_properties_that_it_names() {
        let before = Properties { os: Some("a".to_owned()), min_disk_bytes: Some(5), ..Properties::default() };
        let patched = |text| before.patched(&serde_json::from_str(text).expect("a patch"));
        assert_eq!(patched("{}"), before);
        assert_eq!(patched(r#"{"os": "b"}"#), Properties { os: Some("b".to_owned()), ..before.clone() });
        assert_eq!(patched(r#"{"os": null, "default_user": "u"}"#).os, None);
        assert_eq!(patched(r#"{"min_disk_bytes": null}"#).min_disk_bytes, None);
        let secure = Properties { firmware: Some(Firmware::UefiSecure), ..before.clone() };
        assert_eq!(patched(r#"{"firmware": "uefi_secure"}"#), secure);
        for auto in [r#"{"firmware": "auto"}"#, r#"{"firmware": null}"#] {
            assert_eq!(secure.patched(&serde_json::from_str(auto).expect("a patch")), before);
        }
    }

    #[test]
    fn a_source_is_one_thing() {
        use serde_json::json;
        let id = VersionId::generate();
        let default = Source::Upload(ChunkSize::default());
        assert_eq!(source(json!({})), Ok(default.clone()));
        assert_eq!(source(json!({ "source": {} })), Ok(default.clone()));
        assert_eq!(source(json!({ "source": { "upload": {} } })), Ok(default));
        let small = ChunkSize::from_bytes(65536).expect("a chunk size");
        assert_eq!(source(json!({ "chunk_bytes": 65536 })), Ok(Source::Upload(small)));
        assert_eq!(source(json!({ "source": { "version": id } })), Ok(Source::Version(id)));
        let base = || Ref::Name("base".to_owned());
        assert_eq!(source(json!({ "source": { "image": "base" } })), Ok(Source::Image(base(), None)));
        assert_eq!(source(json!({ "source": { "image": "base", "version": 3 } })), Ok(Source::Image(base(), Some(3))));
        assert_eq!(source(json!({ "source": { "url": "https://x", "sha256": "00" } })), Ok(Source::Url));
        for (wrong, place) in [
            (json!({ "source": { "version": 3 } }), "/source/version"),
            (json!({ "source": { "image": "base", "version": id } }), "/source/version"),
            (json!({ "source": { "upload": {}, "image": "base" } }), "/source"),
            (json!({ "source": { "url": "x", "image": "base" } }), "/source"),
            (json!({ "source": { "sha256": "00" } }), "/source/sha256"),
            (json!({ "source": { "image": "base" }, "chunk_bytes": 65536 }), "/chunk_bytes"),
            (json!({ "chunk_bytes": 65537 }), "/chunk_bytes"),
            (json!({ "chunk_bytes": 32768 }), "/chunk_bytes"),
            (json!({ "chunk_bytes": 8 << 20 }), "/chunk_bytes"),
        ] {
            assert_eq!(source(wrong.clone()), Err(place.to_owned()), "{wrong}");
        }
    }
}
