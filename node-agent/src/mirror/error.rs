//! Two kinds of failure: [`DiskError`] for those who manage disks, [`Fault`] for those who read and write one.

use std::io;

use muster_api::{CommitId, DiskId, SnapshotId};
use muster_pool::PoolError;

use crate::holder::HolderError;

/// Why a disk could not be made, cut, saved or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// This node has no such disk.
    #[error("disk {0} is not on this node")]
    NotFound(DiskId),
    /// The disk moved on; who asks is behind.
    #[error("disk {disk} has generation {have}, asked for {asked}")]
    OlderGeneration {
        /// Disk.
        disk: DiskId,
        /// Here.
        have: u64,
        /// Asked for.
        asked: u64,
    },
    /// The wanted version is not the base of what is here, and local writes depend on the base.
    #[error("disk {disk} has unsaved writes on version {have}; version {asked} is not made from them")]
    Diverged {
        /// Disk.
        disk: DiskId,
        /// Base of what is here.
        have: muster_api::VersionId,
        /// Wanted.
        asked: muster_api::VersionId,
    },
    /// Disk, size or bytes that cannot be.
    #[error("disk {disk}: {what}")]
    Invalid {
        /// Disk.
        disk: DiskId,
        /// What is wrong.
        what: String,
    },
    /// Another cut, or four epochs still in use: later.
    #[error("disk {disk} is busy: {what}")]
    Busy {
        /// Disk.
        disk: DiskId,
        /// With what.
        what: String,
    },
    /// The hold ended before the flip came; nothing was cut.
    #[error("the hold of snapshot {0} ended before the flip")]
    HoldExpired(SnapshotId),
    /// No step of this cut came before, or it was given up.
    #[error("snapshot {0} was not prepared here")]
    NotPrepared(SnapshotId),
    /// No epoch of this disk was frozen by that commit.
    #[error("disk {disk} has no commit {commit}")]
    NoCommit {
        /// Disk.
        disk: DiskId,
        /// Commit.
        commit: CommitId,
    },
    /// No space on this node's file system.
    #[error("no space left for disk {0}")]
    NoSpace(DiskId),
    /// A flush failed once: what was acknowledged before cannot be vouched for.
    #[error("disk {disk} failed: {what}")]
    Failed {
        /// Disk.
        disk: DiskId,
        /// How.
        what: String,
    },
    /// The file system said no.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No live map.
    #[error("no live map for disk {disk}")]
    Holder {
        /// Disk.
        disk: DiskId,
        /// Why.
        #[source]
        source: HolderError,
    },
    /// The pool could not give or take objects.
    #[error("the pool failed disk {disk}")]
    Pool {
        /// Disk.
        disk: DiskId,
        /// Why.
        #[source]
        source: PoolError,
    },
    /// An object is not what its name says, or not of a form this release reads.
    #[error("disk {disk}: {what}")]
    Corrupt {
        /// Disk.
        disk: DiskId,
        /// What.
        what: String,
    },
}

impl DiskError {
    /// The word for it in reports and cut answers.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::OlderGeneration { .. } | Self::NotPrepared(_) | Self::NoCommit { .. } => {
                "not_assigned"
            }
            Self::Busy { .. } => "busy",
            Self::HoldExpired(_) => "hold_expired",
            Self::NoSpace(_) => "no_space",
            Self::Diverged { .. } | Self::Invalid { .. } => "invalid",
            Self::Failed { .. } | Self::Corrupt { .. } => "disk_failed",
            Self::Io { .. } | Self::Holder { .. } => "io",
            Self::Pool { .. } => "unreachable",
        }
    }
}

/// Why a request of a guest is refused. [`crate::fuse::errno`] is the one table from here to errno.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The node's file system is full; nothing earlier was harmed.
    #[error("no space left")]
    NoSpace,
    /// The file system failed this request only.
    #[error("input/output error: {0}")]
    Io(String),
    /// The disk failed for good (a flush did).
    #[error("the disk failed: {0}")]
    Failed(String),
    /// No node gave the bytes before the deadline.
    #[error("no source before the deadline: {0}")]
    Unavailable(String),
    /// All copies are bad, or of a form this release does not read.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Beyond the end of the disk.
    #[error("beyond the end of the disk")]
    OutOfRange,
    /// Not a thing one does to this file.
    #[error("not permitted")]
    NotPermitted,
    /// A mode of a call that is not offered.
    #[error("not supported")]
    NotSupported,
    /// Nothing there (SEEK_DATA behind the last data).
    #[error("no such data")]
    NoData,
    /// The disk is being taken away.
    #[error("the disk is being removed")]
    Removed,
}

impl Fault {
    /// What an error of a local file means for a request.
    #[must_use]
    pub fn from_io(what: &str, error: &io::Error) -> Self {
        if is_no_space(error) { Self::NoSpace } else { Self::Io(format!("{what}: {error}")) }
    }
}

/// Full file system or quota.
#[must_use]
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
