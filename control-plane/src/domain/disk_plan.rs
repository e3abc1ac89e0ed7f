//! Disks beside the boot disk that the members of a deployment get.

use std::collections::BTreeSet;

use muster_api::{
    VersionId,
    disk::{CreateDisk, DiskSource, ROOT},
    error::FieldError,
    image::VersionOrNumber,
    node_protocol::NVRAM,
    units::exact_size,
};
use serde::{Deserialize, Serialize};
use storage_core::{ByteLen, ChunkSize, Descriptor, Salt};

use super::versions::{Content, SIZE_BYTES_MAX};

/// Most disks of one instance beside the boot disk.
pub const DISKS_MAX: usize = 16;
/// Longest name of a disk, bytes.
const NAME_BYTES_MAX: usize = 32;
/// Least size of a disk that a request names, bytes.
const SIZE_BYTES_MIN: u64 = 1 << 20;
/// Names of disks that Muster makes itself: the boot disk, and what UEFI firmware remembers.
const RESERVED: [&str; 2] = [ROOT, NVRAM];

/// A disk that each member of a deployment gets beside the boot disk. References are ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// Its name within the instance.
    pub name: String,
    /// The size that it gets, bytes.
    pub size_bytes: u64,
    /// The version that it starts from; of a blank disk one of zeros. `None` in a fork, where each member has its own.
    pub version: Option<VersionId>,
    /// What the request says that it starts as. `None` if it starts blank, and in a fork.
    pub source: Option<DiskSource>,
    /// Name of the source's image or version.
    pub source_name: Option<String>,
}

/// What does not fit in the disks of a request.
#[must_use]
pub fn check(disks: &[CreateDisk]) -> Vec<FieldError> {
    if disks.len() > DISKS_MAX {
        return vec![error("/disks".to_owned(), "out_of_range", format!("at most {DISKS_MAX}, got {}", disks.len()))];
    }
    let (mut wrong, mut names) = (Vec::new(), BTreeSet::new());
    for (n, disk) in disks.iter().enumerate() {
        let at = format!("/disks/{n}");
        wrong.extend(check_disk(&at, disk));
        if !names.insert(&disk.name) {
            wrong.push(error(format!("{at}/name"), "invalid", format!("'{}' is given twice", disk.name)));
        }
    }
    wrong
}

/// What does not fit in a new disk that is described at this place of a request.
#[must_use]
pub fn check_disk(pointer: &str, disk: &CreateDisk) -> Vec<FieldError> {
    let mut wrong: Vec<FieldError> = check_name(&format!("{pointer}/name"), &disk.name).into_iter().collect();
    if !(SIZE_BYTES_MIN..=SIZE_BYTES_MAX).contains(&disk.size_bytes) {
        let (least, most) = (exact_size(SIZE_BYTES_MIN), exact_size(SIZE_BYTES_MAX));
        let detail = format!("{least} to {most}, got {}", exact_size(disk.size_bytes));
        wrong.push(error(format!("{pointer}/size_bytes"), "out_of_range", detail));
    }
    if let Some(DiskSource { image, version }) = &disk.source {
        wrong.extend(check_source(&format!("{pointer}/source"), image.is_some(), *version));
    }
    wrong
}

/// Why a disk beside the boot disk cannot have this name, which is at this place of a request.
#[must_use]
pub fn check_name(pointer: &str, name: &str) -> Option<FieldError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let detail = if !fits {
        format!("1 to {NAME_BYTES_MAX} characters of a to z, 0 to 9 and -; got '{name}'")
    } else if is_reserved(name) {
        format!("'{name}' is the name of a disk that Muster makes itself")
    } else {
        return None;
    };
    Some(error(pointer.to_owned(), "invalid", detail))
}

fn error(pointer: String, code: &str, detail: String) -> FieldError {
    FieldError { pointer, code: code.to_owned(), detail }
}

/// What does not fit in a source at this place of the request that names an image or a version.
pub(super) fn check_source(pointer: &str, has_image: bool, version: Option<VersionOrNumber>) -> Option<FieldError> {
    let (below, code, detail) = match (has_image, version) {
        (true, None | Some(VersionOrNumber::Number(1..))) | (false, Some(VersionOrNumber::Id(_))) => return None,
        (true, Some(VersionOrNumber::Id(_))) => {
            ("/version", "invalid", "with an image it is a number; a version's id stands alone")
        }
        (false, Some(VersionOrNumber::Number(_))) => {
            ("/version", "invalid", "a number needs an image; alone it is a version's id")
        }
        (true, Some(VersionOrNumber::Number(_))) => ("/version", "out_of_range", "numbers begin with 1"),
        (false, None) => ("", "invalid", "exactly one of image (with or without version), version"),
    };
    Some(FieldError { pointer: format!("{pointer}{below}"), code: code.to_owned(), detail: detail.to_owned() })
}

/// Whether a disk of this name is made by Muster itself and not named by requests.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// What a blank disk starts from: one block of zeros. Every disk is larger, so the first version of a blank disk has a
/// descriptor of its own, which its commit stores like all others (I3). `salt` is that of the project.
#[must_use]
pub fn blank(salt: Salt) -> Content {
    let descriptor = Descriptor::empty(ByteLen(storage_core::BLOCK_BYTES), ChunkSize::DEFAULT, salt);
    Content::new(descriptor, None).expect("a disk may have one block")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(disks: Value) -> Vec<String> {
        let disks: Vec<CreateDisk> = serde_json::from_value(disks).expect("the JSON fits the type");
        check(&disks).into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn each_complaint_names_its_field() {
        let size: u64 = 1 << 20;
        for name in ["", "Data", "a/b", "a b", "root", "nvram", &"x".repeat(33)] {
            assert_eq!(pointers(json!([{ "name": name, "size_bytes": size }])), ["/disks/0/name"], "{name}");
        }
        for bytes in [0, size - 1, (16 << 40) + 1] {
            assert_eq!(pointers(json!([{ "name": "a", "size_bytes": bytes }])), ["/disks/0/size_bytes"]);
        }
        let twice = json!([{ "name": "a", "size_bytes": size }, { "name": "a", "size_bytes": size }]);
        assert_eq!(pointers(twice), ["/disks/1/name"]);
        let of = |source: Value| json!([{ "name": "a", "size_bytes": size, "source": source }]);
        assert_eq!(pointers(of(json!({}))), ["/disks/0/source"]);
        assert_eq!(pointers(of(json!({ "version": 3 }))), ["/disks/0/source/version"]);
        assert!(pointers(of(json!({ "image": "a", "version": 3 }))).is_empty());
        let many: Vec<Value> = (0..17).map(|n| json!({ "name": format!("d{n}"), "size_bytes": size })).collect();
        assert_eq!(pointers(json!(many)), ["/disks"]);
        assert!(pointers(json!(many[..16])).is_empty());
    }
}
