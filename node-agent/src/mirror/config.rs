//! What the mirrors of a node are told at start.

use std::{path::PathBuf, time::Duration};

use muster_api::{ClusterId, NodeId};

/// Settings of all disks of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATA`: disks are below `disks/`, clean chunks below `cache/`.
    pub data_dir: PathBuf,
    /// Carried by every mount, so that nobody touches another cluster's.
    pub cluster: ClusterId,
    /// Likewise.
    pub node: NodeId,
    /// How writes that leave gaps are treated.
    pub write_policy: WritePolicy,
    /// Most bytes of clean chunks kept.
    pub cache_bytes_max: u64,
    /// Free bytes of the file system that the cache leaves alone.
    pub keep_free_bytes: u64,
    /// How delta files are read and written.
    pub delta_io: DeltaIo,
    /// Longest a guest's read waits for a source.
    pub read_deadline: Duration,
    /// Owner of the disk files: the user QEMU runs as.
    pub owner: (u32, u32),
}

impl Config {
    /// The defaults, for a data directory.
    #[must_use]
    pub fn new(data_dir: PathBuf, cluster: ClusterId, node: NodeId) -> Self {
        Self {
            data_dir,
            cluster,
            node,
            write_policy: WritePolicy::default(),
            cache_bytes_max: 10 << 30,
            keep_free_bytes: 2 << 30,
            delta_io: DeltaIo::default(),
            read_deadline: Duration::from_secs(60),
            owner: (0, 0),
        }
    }
}

/// What happens when a guest writes where nothing is known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WritePolicy {
    /// A bit per block: whole blocks never wait.
    #[default]
    Bitmap,
    /// One contiguous region per chunk (the paper's second strategy): a write that would leave a gap first fetches the
    /// chunk into the cache. The delta still holds only what the guest wrote.
    Contiguous,
}

/// Page cache or not below the mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaIo {
    /// Through the page cache.
    #[default]
    Buffered,
    /// `O_DIRECT`: for comparing with a raw file opened likewise.
    Direct,
}
