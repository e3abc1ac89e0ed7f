//! What a node tells of a start, in which order it first read the chunks of its disk's version; and what it is told about the
//! next one.
//!
//! A boot order only makes later starts faster and fills a picture. So a report may be lost, and the controller may drop it.

use serde::{Deserialize, Serialize};

use crate::{DiskId, VersionId};

/// Most chunks of a [`BootReport`]. With chunks of 256 KiB that is 16 GiB, far more than a boot reads.
pub const BOOT_CHUNKS_MAX: usize = 1 << 16;

/// The order in which one start of an instance first read the chunks of one of its disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootReport {
    /// Id of the disk.
    pub disk: DiskId,
    /// The version that the disk built on when the start began. The chunks are chunks of this version.
    pub version: VersionId,
    /// The generation that the disk had on the node.
    pub generation: u64,
    /// Number of the start, as in [`Assignment::boot`].
    ///
    /// [`Assignment::boot`]: super::Assignment::boot
    pub boot: u64,
    /// Numbers of the chunks that were read and are not zeros, in the order of their first read. No number comes twice.
    /// At most [`BOOT_CHUNKS_MAX`].
    pub chunks: Vec<u32>,
}

/// What a start of an instance is likely to read of one of its disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrder {
    /// The version that the disk builds on, as the controller knows.
    pub version: VersionId,
    /// Numbers of the chunks in the order in which earlier starts first read them, of this version or the nearest one that it was made
    /// from. No number comes twice. At most [`BOOT_CHUNKS_MAX`]. The version may lack some of them.
    pub chunks: Vec<u32>,
}
