//! Disks without mounts, for tests that drive many nodes in one process. Everything below the mount is the real thing: a
//! read or a write here is what the shim makes of a program's request.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use muster_api::DiskId;
use muster_pool::PoolClient;
use tokio::time::Instant;

use super::{Config, DiskError, DiskWant, Disks, Fault, disk::Disk, write::OwnedChange};
use crate::holder::Holder;

/// Longest that a write waits for bytes of other nodes.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// A disk that no program sees.
#[derive(Clone)]
pub struct BareDisk(Arc<Disk>);

impl Disks {
    /// As `fuse::open_disks`, for a node whose disks are never mounted.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub async fn open_bare(config: Config, pool: PoolClient, holder: Holder) -> Result<Arc<Self>, DiskError> {
        let refuse = |_, _: &std::path::Path| Err(std::io::Error::other("this node mounts no disks"));
        Self::open(config, pool, holder, Arc::new(refuse)).await
    }

    /// Creates a disk, or brings the existing one to its desired state, as [`Self::ensure`] does, and does not mount it.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub async fn bare(&self, want: &DiskWant) -> Result<BareDisk, DiskError> {
        let disk = self.unmounted(want).await?;
        match disk.failed() {
            // A disk that has failed is not mounted either.
            Some(what) => Err(DiskError::Failed { disk: want.disk, what }),
            None => Ok(BareDisk(disk)),
        }
    }

    /// Whether blocks of a disk's abandoned commits are being moved in the background. A test that kills this node has to wait
    /// for the end of it: what goes on in this process would go on after the kill.
    #[must_use]
    pub fn is_merging(&self, disk: DiskId) -> bool {
        self.disk(disk).is_some_and(|disk| disk.merging.load(Ordering::Acquire))
    }
}

impl BareDisk {
    /// The bytes at `offset`, as a program would read them.
    ///
    /// # Errors
    /// When no node has them, or this node's disk fails.
    pub async fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        self.0.read(offset, bytes).await
    }

    /// Writes bytes, as a program would. They are acknowledged when this returns.
    ///
    /// # Errors
    /// When the rest of a block cannot be had, or this node's disk fails.
    pub async fn write(&self, offset: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        self.0.change(offset, OwnedChange::Data(bytes), Instant::now() + WRITE_WITHIN).await
    }

    /// Makes a range zeros, as a guest's TRIM or a punched hole does.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn zero(&self, offset: u64, bytes: u64) -> Result<(), Fault> {
        self.0.change(offset, OwnedChange::Zero { bytes }, Instant::now() + WRITE_WITHIN).await
    }

    /// Makes all acknowledged writes durable, as `fsync` does.
    ///
    /// # Errors
    /// When this node's disk fails.
    pub async fn flush(&self) -> Result<(), Fault> {
        self.0.flush().await
    }
}
