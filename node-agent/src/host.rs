//! [`Host`]: what the agent's loops drive, behind one seam. The real one has mirrored disks and a hypervisor; tests of the
//! loops have a scripted one.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use muster_api::{
    deployment::Runtime,
    node_protocol::{Desired, InstanceReport},
};
use tokio::sync::watch;

use crate::cuts::DiskCuts;

/// The instances of this node: their disks and what runs them.
pub trait Host: Send + Sync {
    /// Brings what is true nearer to what should be and says what is true now. Never waits for one slow instance (I11).
    fn pass(&self, desired: Arc<Desired>) -> BoxFuture<'_, Vec<InstanceReport>>;
    /// Changes when a pass is worth while.
    fn changed(&self) -> watch::Receiver<u64>;
    /// The disks, as far as cuts go.
    fn cuts(&self) -> Arc<dyn DiskCuts>;
    /// Bytes of clean chunks kept.
    fn cache_bytes(&self) -> u64;
    /// Runtimes that work here now.
    fn runtimes(&self) -> Vec<Runtime>;
    /// `kvm`, `qemu`, or none without libvirt.
    fn hypervisor(&self) -> Option<String>;
    /// Why there is no hypervisor although one is wanted.
    fn hypervisor_trouble(&self) -> Option<String>;
    /// Asks guests to turn themselves off, cuts their power after `limit`; the last state of all instances.
    fn stop_guests(&self, limit: Duration) -> BoxFuture<'_, Vec<InstanceReport>>;
    /// Flushes and unmounts every disk.
    fn close(&self) -> BoxFuture<'_, ()>;
}
