//! Detects the kind of an uploaded file from its first and last bytes.
//!
//! Only raw and qcow2 are decoded here. Decoders of other formats are large and have had many holes, and `qemu-img` has all
//! of them, where the file is. So whoever sends such a file is told the one command that converts it.

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
    #[error(
        "the content is {found}: {mend}; if these bytes are the disk as they are, say that the format is raw (--format raw, in the API format=raw)"
    )]
    NotADisk {
        /// The kind of file, with its article.
        found: &'static str,
        /// What the sender can do, with the command for it.
        mend: &'static str,
    },
    /// The request says `format=qcow2`, but the body is not qcow2.
    #[error("the content was stated to be qcow2 but does not begin like one")]
    NotQcow2,
}

const FROM_VMDK: &str = "convert it first (qemu-img convert -f vmdk -O qcow2 FILE disk.qcow2)";
const FROM_VMDK_PARTS: &str =
    "convert it where its other files are (qemu-img convert -f vmdk -O qcow2 FILE disk.qcow2) and send the result";
const FROM_VHD: &str = "convert it first (qemu-img convert -f vpc -O qcow2 FILE disk.qcow2)";
const FROM_PARALLELS: &str = "convert it first (qemu-img convert -f parallels -O qcow2 FILE disk.qcow2)";
const LOOK: &str = "look at what was downloaded (head -c 300 FILE)";

/// Kinds of files that are no disks: (where the mark is, mark, kind, what the sender can do). If they were taken as raw
/// disks, the mistake would only show when a machine does not boot.
type Kinds = &'static [(usize, &'static [u8], &'static str, &'static str)];

/// By their first bytes.
const BY_HEAD: Kinds = &[
    (0, b"\x1f\x8b\x08", "gzip data", "unpack it first (gunzip FILE)"),
    (0, b"\xfd7zXZ\0", "xz data", "unpack it first (unxz FILE)"),
    (0, b"BZh91AY&SY", "bzip2 data", "unpack it first (bunzip2 FILE)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", "unpack it first (unzstd FILE)"),
    (0, b"\x04\x22\x4d\x18", "lz4 data", "unpack it first (unlz4 FILE)"),
    (0, b"LZIP", "lzip data", "unpack it first (lzip -d FILE)"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it first (unzip FILE)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first (7z x FILE)"),
    (257, b"ustar", "a tar archive (an OVA is one)", "unpack it first (tar -xf FILE) and send the disk that was in it"),
    (0, b"KDMV", "a VMDK disk", FROM_VMDK),
    (0, b"COWD", "a VMDK disk", FROM_VMDK),
    (0, b"# Disk DescriptorFile", "the description of a VMDK disk", FROM_VMDK_PARTS),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk", "convert it first (qemu-img convert -f vdi -O qcow2 FILE disk.qcow2)"),
    (0, b"conectix", "a VHD disk", FROM_VHD),
    (0, b"vhdxfile", "a VHDX disk", "convert it first (qemu-img convert -f vhdx -O qcow2 FILE disk.qcow2)"),
    (0, b"QED\0", "a QED disk", "convert it first (qemu-img convert -f qed -O qcow2 FILE disk.qcow2)"),
    (0, b"WithoutFreeSpace", "a Parallels disk", FROM_PARALLELS),
    (0, b"WithouFreSpacExt", "a Parallels disk", FROM_PARALLELS),
    (0, b"<!DOCTYPE", "a web page", LOOK),
    (0, b"<!doctype", "a web page", LOOK),
    (0, b"<html", "a web page", LOOK),
    (0, b"<HTML", "a web page", LOOK),
    (0, b"<?xml", "an XML text", LOOK),
];

/// By their last [`END_BYTES`] bytes: before them are the bytes of the disk, or something packed.
const BY_END: Kinds = &[
    (0, b"conectix", "a VHD disk of fixed size", FROM_VHD),
    (0, b"koly", "a disk image of macOS", "convert it first (qemu-img convert -f dmg -O qcow2 FILE disk.qcow2)"),
];

fn known(kinds: Kinds, bytes: &[u8]) -> Result<(), FormatError> {
    match kinds.iter().find(|(at, mark, ..)| bytes.get(*at..).is_some_and(|b| b.starts_with(mark))) {
        Some(&(_, _, found, mend)) => Err(FormatError::NotADisk { found, mend }),
        None => Ok(()),
    }
}

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
        None => known(BY_HEAD, head).map(|()| Format::Raw),
    }
}

/// Number of bytes at the end of a file that [`End`] keeps.
const END_BYTES: usize = 512;

/// The last bytes of a file that is taken as raw because of its first ones.
#[derive(Debug, Default)]
pub struct End(Vec<u8>);

impl End {
    /// Goes on with the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(END_BYTES)..];
        let kept = (END_BYTES - new.len()).min(self.0.len());
        self.0.drain(..self.0.len() - kept);
        self.0.extend_from_slice(new);
    }

    /// Checks that the whole file is no known kind of file that is not a disk.
    ///
    /// # Errors
    /// [`FormatError::NotADisk`].
    pub fn check(&self) -> Result<(), FormatError> {
        known(BY_END, &self.0)
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
        for &(at, mark, found, mend) in BY_HEAD {
            let mut head = vec![0; at];
            head.extend_from_slice(mark);
            head.resize(HEAD_BYTES, 0xaa);
            assert_eq!(detect(&head, None), Err(FormatError::NotADisk { found, mend }));
            assert!(mend.contains("FILE"), "{found}: the command has a place for the file's name");
        }
    }

    #[test]
    fn known_files_that_only_end_like_one_are_refused() {
        for &(_, mark, found, mend) in BY_END {
            let mut file = vec![0xaa; 3 * END_BYTES];
            file[2 * END_BYTES..][..mark.len()].copy_from_slice(mark);
            for piece in [1, 7, 511, 512, 513, file.len()] {
                let mut end = End::default();
                file.chunks(piece).for_each(|bytes| end.push(bytes));
                assert_eq!(end.check(), Err(FormatError::NotADisk { found, mend }), "in pieces of {piece}");
                end.push(b"x");
                assert_eq!(end.check(), Ok(()), "the mark is not where it has to be");
            }
        }
        assert_eq!(End::default().check(), Ok(()));
    }
}
