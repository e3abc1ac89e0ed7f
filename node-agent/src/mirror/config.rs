//! Settings of the mirrors of a node.

use std::{path::PathBuf, sync::Arc, time::Duration};

use muster_api::{ClusterId, NodeId};

use crate::data_disk::DataDisk;

/// Settings of all disks of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory. Disks are below `disks/`, clean chunks below `cache/`.
    pub data_dir: PathBuf,
    /// Part of the name of every mount, so that no agent touches mounts of another cluster.
    pub cluster: ClusterId,
    /// Part of the name of every mount, so that no agent touches mounts of another node.
    pub node: NodeId,
    /// What happens when a guest writes to a chunk that is not in the cache.
    pub write_policy: WritePolicy,
    /// Most bytes of clean chunks in the cache.
    pub cache_bytes_max: u64,
    /// Most bytes of memory for objects that were read from this node's own share of the pool. 0: they are stored in the cache.
    pub memory_bytes_max: u64,
    /// Bytes of the file system that the cache leaves free. 0 turns this limit off.
    pub keep_free_bytes: u64,
    /// Longest time a program waits for a read, or a write of a part of a block, whose bytes no other node gives. Then it
    /// gets EIO, and a guest is paused.
    pub read_deadline: Duration,
    /// Most bytes per second that commits in the background store, at least 1.
    pub background_bytes_per_s: u64,
    /// User and group id that own the disk files: those that QEMU runs with.
    pub owner: (u32, u32),
    /// The file system that all of it is on; none: nobody wants to know when it fails.
    pub disk: Option<Arc<DataDisk>>,
}

impl Config {
    /// The default settings for a data directory.
    #[must_use]
    pub fn new(data_dir: PathBuf, cluster: ClusterId, node: NodeId) -> Self {
        Self {
            data_dir,
            cluster,
            node,
            write_policy: WritePolicy::default(),
            cache_bytes_max: 10 << 30,
            memory_bytes_max: 32 << 20,
            keep_free_bytes: 2 << 30,
            read_deadline: Duration::from_secs(60),
            background_bytes_per_s: 16 << 20,
            owner: (0, 0),
            disk: None,
        }
    }
}

/// What happens when a guest writes to a chunk that is not in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WritePolicy {
    /// One bit per block records what was written. Writes of whole blocks never wait.
    #[default]
    Bitmap,
    /// Each chunk has one contiguous written region (the paper's second strategy): a write that would leave a gap first
    /// fetches the chunk into the cache. The delta still holds only what the guest wrote.
    Contiguous,
}
