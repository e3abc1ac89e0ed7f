//! Detects the kind of an uploaded file from its first bytes.

use super::qcow2;

/// Number of bytes that [`detect`] needs. The furthest mark, that of a tar archive, is at byte 257.
pub const HEAD_BYTES: usize = 512;

/// The formats that can be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The plain bytes of the disk.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

/// A text that names no format that can be uploaded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 'raw' or 'qcow2', got '{0}'")]
pub struct UnknownFormat(String);

/// Why an upload is not taken as an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The body is empty.
    #[error("the content is empty: nothing was sent")]
    Empty,
    /// A known kind of file that is not the bytes of a disk.
    #[error("the content is {found}: {hint}")]
    NotADisk {
        /// The kind of file, with its article.
        found: &'static str,
        /// What the sender can do, for people.
        hint: &'static str,
    },
    /// The request says `format=qcow2`, but the body is not qcow2.
    #[error("the content was stated to be qcow2 but does not begin like one")]
    NotQcow2,
}

const CONVERT: &str = "convert it first (qemu-img convert -O raw), or say that the format is raw if these bytes are the disk (--format raw, in the API format=raw)";
const UNPACK: &str =
    "unpack it first, or say that the format is raw if these bytes are the disk (--format raw, in the API format=raw)";
const LOOK: &str = "look at what was downloaded, or say that the format is raw if these bytes are the disk (--format raw, in the API format=raw)";

/// Files that people send by mistake: (offset of the mark, mark, kind, hint). If they were taken as raw disks, the
/// mistake would only show when a machine does not boot.
const OTHERS: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\x1f\x8b\x08", "gzip data", UNPACK),
    (0, b"\xfd7zXZ\0", "xz data", UNPACK),
    (0, b"BZh91AY&SY", "bzip2 data", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", UNPACK),
    (0, b"\x04\x22\x4d\x18", "lz4 data", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (257, b"ustar", "a tar archive (an OVA is one)", UNPACK),
    (0, b"KDMV", "a VMDK disk", CONVERT),
    (0, b"COWD", "a VMDK disk", CONVERT),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk", CONVERT),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk", CONVERT),
    (0, b"conectix", "a VHD disk", CONVERT),
    (0, b"vhdxfile", "a VHDX disk", CONVERT),
    (0, b"QED\0", "a QED disk", CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels disk", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels disk", CONVERT),
    (0, b"<!DOCTYPE", "a web page", LOOK),
    (0, b"<!doctype", "a web page", LOOK),
    (0, b"<html", "a web page", LOOK),
    (0, b"<HTML", "a web page", LOOK),
    (0, b"<?xml", "an XML text", LOOK),
];

/// Detects the format of an upload. `head` is its first [`HEAD_BYTES`] bytes, or all of it if it is shorter. A `stated`
/// format is binding: with raw, the bytes are the disk whatever they look like; with qcow2, they must be a qcow2 file.
///
/// # Errors
/// [`FormatError`] if nothing was sent, or it is not a disk.
pub fn detect(head: &[u8], stated: Option<Format>) -> Result<Format, FormatError> {
    if head.is_empty() {
        return Err(FormatError::Empty);
    }
    let is_qcow2 = head.starts_with(&qcow2::MAGIC);
    match stated {
        Some(Format::Raw) => Ok(Format::Raw),
        Some(Format::Qcow2) if is_qcow2 => Ok(Format::Qcow2),
        Some(Format::Qcow2) => Err(FormatError::NotQcow2),
        None if is_qcow2 => Ok(Format::Qcow2),
        None => match OTHERS.iter().find(|(at, magic, ..)| head.get(*at..).is_some_and(|b| b.starts_with(magic))) {
            Some(&(_, _, found, hint)) => Err(FormatError::NotADisk { found, hint }),
            None => Ok(Format::Raw),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_format_is_binding() {
        assert_eq!(detect(b"QFI\xfb", Some(Format::Raw)), Ok(Format::Raw));
        assert_eq!(detect(b"\x1f\x8b\x08", Some(Format::Raw)), Ok(Format::Raw));
        assert_eq!(detect(b"QFI\xfb", Some(Format::Qcow2)), Ok(Format::Qcow2));
        assert_eq!(detect(b"anything", Some(Format::Qcow2)), Err(FormatError::NotQcow2));
    }

    #[test]
    fn an_unstated_format_is_detected() {
        assert_eq!(detect(b"QFI\xfb\0\0\0\x03", None), Ok(Format::Qcow2));
        assert_eq!(detect(&[0; 512], None), Ok(Format::Raw));
        assert_eq!(detect(b"x", None), Ok(Format::Raw));
        assert_eq!(detect(b"", None), Err(FormatError::Empty));
    }

    #[test]
    fn known_files_that_are_not_disks_are_refused() {
        for &(at, magic, found, _) in OTHERS {
            let mut head = vec![0; at];
            head.extend_from_slice(magic);
            head.resize(HEAD_BYTES, 0xaa);
            let told = detect(&head, None).expect_err("refused");
            assert!(matches!(told, FormatError::NotADisk { found: f, .. } if f == found), "{found}: {told}");
        }
    }
}
