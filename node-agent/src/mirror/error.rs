//! Two kinds of errors: [`DiskError`] for callers that manage disks, [`Fault`] for requests that read or write one.

use std::io;

use muster_api::{CommitId, DiskId, Reason, SnapshotId};
use muster_pool::PoolError;
use storage_core::ObjectName;

use crate::holder::HolderError;

/// Why a disk could not be created, cut, saved or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// This node has no such disk.
    #[error("disk {0} is not on this node")]
    NotFound(DiskId),
    /// The request has an older generation than the disk: its sender is out of date.
    #[error("disk {disk} has generation {have}, the request has {asked}")]
    OlderGeneration {
        /// Id of the disk.
        disk: DiskId,
        /// Generation of the disk on this node.
        have: u64,
        /// Generation that the request has.
        asked: u64,
    },
    /// The requested version is not the base of the disk on this node, and lacks what the disk holds.
    #[error(
        "disk {disk} builds on version {have} here and holds what version {asked} lacks, which the controller has for it"
    )]
    Diverged {
        /// Id of the disk.
        disk: DiskId,
        /// Version that the disk on this node builds on.
        have: muster_api::VersionId,
        /// Version that the request names.
        asked: muster_api::VersionId,
    },
    /// The request contradicts the disk on this node, or its size or version is not possible.
    #[error("disk {disk}: {what}")]
    Invalid {
        /// Id of the disk.
        disk: DiskId,
        /// What is wrong, for people.
        what: String,
    },
    /// The disk cannot be cut or saved now, but later: another cut is in progress, writes from before the cut are, or all
    /// epochs are in use.
    #[error("disk {disk} is busy: {what}")]
    Busy {
        /// Id of the disk.
        disk: DiskId,
        /// What keeps it busy, for people.
        what: String,
    },
    /// The hold ended before the flip. Nothing was cut.
    #[error("the hold of snapshot {0} ended before the flip")]
    HoldExpired(SnapshotId),
    /// This cut was not prepared on this node, or it was given up.
    #[error("snapshot {0} was not prepared on this node")]
    NotPrepared(SnapshotId),
    /// The commit has not frozen an epoch of this disk.
    #[error("disk {disk} has no commit {commit}")]
    NoCommit {
        /// Id of the disk.
        disk: DiskId,
        /// The commit that was asked for.
        commit: CommitId,
    },
    /// The disk holds what its version lacks, so it is not removed as one of which everything is published.
    #[error("disk {disk} holds {bytes} bytes that version {version} lacks")]
    Unsaved {
        /// Id of the disk.
        disk: DiskId,
        /// The newest published version that this node knows of.
        version: muster_api::VersionId,
        /// Bytes of the blocks that were written since.
        bytes: u64,
    },
    /// The disk is here and can be used, in the size that it had.
    #[error("disk {disk} cannot grow and keeps its size")]
    NotGrown {
        /// Id of the disk.
        disk: DiskId,
        /// What keeps it from growing.
        #[source]
        source: Box<DiskError>,
    },
    /// The node's file system is full.
    #[error("no space left for disk {0}")]
    NoSpace(DiskId),
    /// A flush has failed, so earlier acknowledged writes may be lost. The disk takes no more writes.
    #[error("disk {disk} failed: {what}")]
    Failed {
        /// Id of the disk.
        disk: DiskId,
        /// The reason of the first failure, for people.
        what: String,
    },
    /// A file operation of the disks failed.
    #[error("{what}")]
    Io {
        /// What failed, for people.
        what: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The holder did not give the live map.
    #[error("no live map for disk {disk}")]
    Holder {
        /// Id of the disk.
        disk: DiskId,
        /// Why the holder gave nothing.
        #[source]
        source: HolderError,
    },
    /// The pool could not return or store objects.
    #[error("the pool could not serve disk {disk}")]
    Pool {
        /// Id of the disk.
        disk: DiskId,
        /// The error of the pool.
        #[source]
        source: PoolError,
    },
    /// An object or a file is damaged, or has a form that this release does not read.
    #[error("disk {disk}: {what}")]
    Corrupt {
        /// Id of the disk.
        disk: DiskId,
        /// What is damaged, for people.
        what: String,
    },
}

impl DiskError {
    /// The reason for this error in reports and in the answers to the steps of a cut.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotGrown { source, .. } => source.reason(),
            Self::NotFound(_) | Self::OlderGeneration { .. } | Self::NotPrepared(_) | Self::NoCommit { .. } => {
                Reason::NotAssigned
            }
            Self::Busy { .. } | Self::Unsaved { .. } => Reason::Busy,
            Self::HoldExpired(_) => Reason::HoldExpired,
            Self::NoSpace(_) => Reason::DiskFull,
            Self::Diverged { .. } => Reason::DiskDiverged,
            Self::Invalid { .. } => Reason::Invalid,
            Self::Failed { .. } | Self::Corrupt { .. } => Reason::DiskFailed,
            Self::Io { .. } | Self::Holder { .. } => Reason::Io,
            Self::Pool { .. } => Reason::Unreachable,
        }
    }
}

/// Why a guest's request fails. [`crate::fuse::errno`] is the only table from here to errno.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The node's file system is full. Earlier writes are not affected.
    #[error("no space left")]
    NoSpace,
    /// A file operation failed for this request only.
    #[error("input/output error: {0}")]
    Io(String),
    /// The disk has failed for good, because a flush failed.
    #[error("the disk failed: {0}")]
    Failed(String),
    /// No node returned the bytes before the deadline.
    #[error("no source before the deadline: {0}")]
    Unavailable(String),
    /// No node of the pool has a good copy of these objects; at least one.
    #[error("no node has a good copy of {} objects, the first is {}", .0.len(), .0[0])]
    Lost(Vec<ObjectName>),
    /// An object is damaged, or has a form that this release does not read.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The range extends beyond the end of the disk.
    #[error("beyond the end of the disk")]
    OutOfRange,
    /// The file does not allow this, for example a change of its size.
    #[error("not permitted")]
    NotPermitted,
    /// This mode of the call is not supported.
    #[error("not supported")]
    NotSupported,
    /// There is no data at or after the offset (SEEK_DATA).
    #[error("no data from this offset on")]
    NoData,
    /// The disk is being removed.
    #[error("the disk is being removed")]
    Removed,
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Lost { names } => Self::Lost(names),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl Fault {
    /// What an error of a local file means for a request. `what` names the file.
    #[must_use]
    pub fn from_io(what: &str, error: &io::Error) -> Self {
        if is_no_space(error) { Self::NoSpace } else { Self::Io(format!("{what}: {error}")) }
    }
}

/// Whether an error says that the file system or the quota is full.
#[must_use]
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
