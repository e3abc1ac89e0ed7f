//! Images: what a request for a new one asks for.

use muster_api::{
    ImageId, Ref, VersionId,
    error::FieldError,
    image::{CreateImage, ImageSource, VersionOrNumber},
};
use storage_core::ChunkSize;

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
