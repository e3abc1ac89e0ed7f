//! What is durable about one disk beside its epochs: `DATA/disks/<disk>/meta.json`, replaced as a whole (write beside,
//! sync, rename, sync the directory). Every state change of a disk is one such replacement, so a crash leaves either
//! the old or the new state: a flip is journaled here, folding is decided here, files are removed only after.

use std::{fs::File, io, path::Path};

use muster_api::{CommitId, DiskId, InstanceId, VersionId, node_protocol::VersionRoot};
use serde::{Deserialize, Serialize};

use super::{
    epoch::EpochNumber,
    stable::{self, Folder, StableFile},
};

const FORMAT: u32 = 1;
/// Its file name.
pub(crate) const FILE: &str = "meta.json";

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) format: u32,
    pub(crate) disk: DiskId,
    pub(crate) instance: InstanceId,
    pub(crate) generation: u64,
    pub(crate) size_bytes: u64,
    /// The newest published version: base of everything below.
    pub(crate) base: VersionId,
    pub(crate) root: VersionRoot,
    /// Oldest first; the last one is written to.
    pub(crate) epochs: Vec<EpochMeta>,
    /// Made for a cut that has not flipped, as far as this record knows. After a crash its bits tell: if it has any,
    /// writes were let into it, so it is the current one.
    pub(crate) prepared: Option<EpochMeta>,
    /// A flush failed once (I2).
    pub(crate) failed: Option<String>,
    /// Bytes fetched from other nodes on its behalf, as of the last replacement.
    pub(crate) fetched_bytes: u64,
}

/// One epoch of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EpochMeta {
    pub(crate) number: EpochNumber,
    /// Random; ties the journal and the live map to it.
    pub(crate) tag: u64,
    /// The commit that froze it; none for the current one and for abandoned ones.
    pub(crate) commit: Option<CommitId>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    crc32c: u32,
    meta: String,
}

impl Meta {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// From its directory. `None`: there is none (the disk was never complete).
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let sealed: Sealed = serde_json::from_slice(&bytes)?;
        let crc = crc32c::crc32c(sealed.meta.as_bytes());
        if crc != sealed.crc32c {
            return Err(io::Error::other(format!("checksum is {crc:08x}, expected {:08x}", sealed.crc32c)));
        }
        let meta: Self = serde_json::from_str(&sealed.meta)?;
        if meta.format != FORMAT || meta.epochs.is_empty() {
            return Err(io::Error::other(format!("format {} with {} epochs", meta.format, meta.epochs.len())));
        }
        Ok(Some(meta))
    }

    /// Into its directory, durably.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), NotStored> {
        let folder = Folder::open(dir).map_err(NotStored::AsBefore)?;
        self.put_in_place(dir, &dir.join(FILE)).map_err(NotStored::AsBefore)?;
        folder.sync().map_err(NotStored::Unknown)
    }

    fn put_in_place(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let meta = serde_json::to_string(self)?;
        let sealed = serde_json::to_vec(&Sealed { crc32c: crc32c::crc32c(meta.as_bytes()), meta })?;
        let beside = dir.join("meta.json-new");
        let file = StableFile::create(&beside, &mut File::options())?;
        file.write_all_at(&sealed, 0)?;
        file.sync_all()?;
        stable::rename(&beside, path)
    }

    /// Where a commit's epoch is in `epochs`.
    pub(crate) fn position(&self, commit: CommitId) -> Option<usize> {
        self.epochs.iter().position(|epoch| epoch.commit == Some(commit))
    }
}

/// Why a record is not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The one before is what a start finds.
    AsBefore(io::Error),
    /// It is in place, but its name may not be durable: after a power loss a start finds either.
    Unknown(io::Error),
}

impl NotStored {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::AsBefore(e) | Self::Unknown(e) => e,
        }
    }
}
