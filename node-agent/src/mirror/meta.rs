//! The durable record of one disk, `DATA/disks/<disk>/meta.json`. It is replaced as a whole: write a file beside it, sync,
//! rename, sync the folder. Every state change of a disk (a flip, folding, a new generation) is one such replacement, so a
//! crash leaves either the old or the new state. Files of epochs are removed only after the record no longer names them.
//!
//! The root page of the base is beside it, in `<name of the page>.page`. It grows with what was written to the disk, and the
//! record is replaced several times for each snapshot, so it is written when the base changes and not with each record. It is a
//! copy of an object of the pool and proven by its name when it is read. If it is not there or not whole, the page is fetched like any
//! other. Records of earlier releases have it in themselves.

use std::{fs::File, io, path::Path};

use muster_api::{CommitId, DiskId, InstanceId, VersionId, node_protocol::VersionRoot};
use serde::{Deserialize, Serialize};
use storage_core::{Descriptor, Kind, ObjectName, Salt, hex_text};

use super::{
    epoch::EpochNumber,
    stable::{self, Folder, StableFile},
};

const FORMAT: u32 = 1;
/// File name of the record.
pub(crate) const FILE: &str = "meta.json";
/// Kind of the files with root pages.
pub(crate) const PAGE: &str = "page";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) disk: DiskId,
    pub(crate) instance: InstanceId,
    pub(crate) generation: u64,
    /// It grows and never shrinks.
    pub(crate) size_bytes: u64,
    /// The newest published version, which the disk builds on.
    pub(crate) base: VersionId,
    /// In memory with its root page, if that is known.
    pub(crate) root: VersionRoot,
    /// Versions that were the base before, oldest first. The disk never goes back to one of them.
    #[serde(default)]
    pub(crate) earlier: Vec<VersionId>,
    /// Oldest first; the last one is current. Never empty.
    pub(crate) epochs: Vec<EpochMeta>,
    /// Created for a cut that has not flipped, as far as this record knows. After a crash its bits decide: if it has any,
    /// it has admitted writes, so it is the current epoch.
    pub(crate) prepared: Option<EpochMeta>,
    /// Why the disk has failed for good, if a flush failed (I2).
    pub(crate) failed: Option<String>,
    /// Bytes fetched from other nodes for this disk, as of the last replacement.
    pub(crate) fetched_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EpochMeta {
    pub(crate) number: EpochNumber,
    /// Random. The journal and the live map of the epoch have the same tag.
    pub(crate) tag: u64,
    /// The commit that froze it. `None` for the current epoch, once the commit is abandoned, and where the disk was grown.
    pub(crate) commit: Option<CommitId>,
    /// Bytes of the disk in this epoch, if it was grown since: the size of the delta and of the bits. `None`: as many as
    /// the disk has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    crc32c: u32,
    meta: String,
}

impl Meta {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// Reads the record in `dir`. `None` if there is none, because the creation of the disk was never completed.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let sealed: Sealed = serde_json::from_slice(&bytes)?;
        let crc = crc32c::crc32c(sealed.meta.as_bytes());
        if crc != sealed.crc32c {
            return Err(io::Error::other(format!("the checksum is {crc:08x}, expected {:08x}", sealed.crc32c)));
        }
        let mut meta: Self = serde_json::from_str(&sealed.meta)?;
        if meta.format != FORMAT || meta.epochs.is_empty() {
            let (format, epochs) = (meta.format, meta.epochs.len());
            return Err(io::Error::other(format!("a record of format {format} with {epochs} epochs cannot be read")));
        }
        if meta.root.root_page.is_none() {
            meta.root.root_page = root_page(&meta.root).and_then(|page| page.read(dir));
        }
        Ok(Some(meta))
    }

    /// Writes the record to `dir`, durably.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), NotStored> {
        let folder = Folder::open(dir).map_err(NotStored::AsBefore)?;
        if let Some(text) = &self.root.root_page
            && let Some(page) = root_page(&self.root)
        {
            page.keep(dir, text);
        }
        self.put_in_place(dir, &dir.join(FILE)).map_err(NotStored::AsBefore)?;
        folder.sync().map_err(NotStored::Unknown)
    }

    fn put_in_place(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let root = VersionRoot { root_page: None, ..self.root.clone() };
        let meta = serde_json::to_string(&Self { root, ..self.clone() })?;
        let sealed = serde_json::to_vec(&Sealed { crc32c: crc32c::crc32c(meta.as_bytes()), meta })?;
        let beside = dir.join("meta.json-new");
        let file = StableFile::create(&beside, &mut File::options())?;
        file.write_all_at(&sealed, 0)?;
        file.sync_all()?;
        stable::rename(&beside, path)
    }

    /// Name of the file with the root page of the base; `None` if the base has none.
    pub(crate) fn page_file(&self) -> Option<String> {
        root_page(&self.root).map(|page| page.file())
    }

    /// The epoch that is written to.
    pub(crate) fn current(&self) -> &EpochMeta {
        self.epochs.last().expect("a disk always has a current epoch")
    }

    pub(crate) fn current_mut(&mut self) -> &mut EpochMeta {
        self.epochs.last_mut().expect("a disk always has a current epoch")
    }

    /// Bytes of the disk in one of its epochs.
    pub(crate) fn bytes_of(&self, epoch: &EpochMeta) -> u64 {
        epoch.size_bytes.unwrap_or(self.size_bytes)
    }

    /// Makes the disk larger: `next` becomes the current epoch, and the others keep the size that they have.
    pub(crate) fn grow(&mut self, size_bytes: u64, next: EpochMeta) {
        for epoch in &mut self.epochs {
            epoch.size_bytes.get_or_insert(self.size_bytes);
        }
        self.size_bytes = size_bytes;
        self.epochs.push(next);
        // One that was discarded while there was no room to record that has the same number.
        self.prepared = None;
    }

    /// The index in `epochs` of the epoch that a commit froze.
    pub(crate) fn position(&self, commit: CommitId) -> Option<usize> {
        self.epochs.iter().position(|epoch| epoch.commit == Some(commit))
    }
}

/// The root page of a version.
struct RootPage {
    name: ObjectName,
    salt: Salt,
}

/// The root page that a version has; `None` if it has none, or its descriptor cannot be read.
fn root_page(root: &VersionRoot) -> Option<RootPage> {
    let descriptor = Descriptor::decode(&hex::decode(&root.descriptor).ok()?).ok()?;
    Some(RootPage { name: descriptor.root?, salt: descriptor.salt })
}

impl RootPage {
    fn file(&self) -> String {
        format!("{}.{PAGE}", self.name)
    }

    /// The page in hex, if the file is there and whole.
    fn read(&self, dir: &Path) -> Option<String> {
        self.bytes(dir).map(|bytes| hex_text::encode(&bytes))
    }

    fn bytes(&self, dir: &Path) -> Option<Vec<u8>> {
        let bytes = std::fs::read(dir.join(self.file())).ok()?;
        (ObjectName::of(Kind::Page, self.salt, &bytes) == self.name).then_some(bytes)
    }

    /// Writes the file, unless it is there and whole. What goes wrong costs one fetch of the page after the next start.
    fn keep(&self, dir: &Path, text: &str) {
        let path = dir.join(self.file());
        if self.bytes(dir).is_some() {
            return;
        }
        let Some(bytes) = hex_text::decode(text) else { return };
        let beside = dir.join(format!("new.{PAGE}"));
        let kept = StableFile::create(&beside, &mut File::options()).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync_data()
        });
        if let Err(error) = kept.and_then(|()| stable::rename(&beside, &path)) {
            tracing::warn!(%error, path = %path.display(), "a root page is not kept beside the record of its disk");
        }
    }
}

/// Why a record could not be stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The previous record is still in place.
    AsBefore(io::Error),
    /// The new record is in place, but its name may not be durable: after a power cut, a start may find either.
    Unknown(io::Error),
}

impl NotStored {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::AsBefore(e) | Self::Unknown(e) => e,
        }
    }
}
