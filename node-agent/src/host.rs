//! [`Host`]: what the agent's loops drive. The real one has mirrored disks and a hypervisor; tests of the loops use a
//! scripted one. [`HostParts`] is what the agent hands over to open one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use muster_api::{
    DiskId, InstanceId, RunId, VersionId,
    deployment::Runtime,
    firmware::MachineFeature,
    node_protocol::{Desired, InstanceReport, SalvageDisk, SalvagedDisk, boot::BootReport},
};
use muster_pool::PoolClient;
use tokio::sync::watch;

use crate::{
    config::Config,
    consoles::{Door, DoorError, GuestStream},
    cuts::DiskCuts,
    data_disk::DataDisk,
    hypervisor::Hypervisor,
    identity::NodeIdentity,
    mirror::{DiskError, Start},
};

/// What a [`Host`] is made from.
pub struct HostParts {
    /// Id of this process, which the domains it starts carry.
    pub run: RunId,
    /// The effective configuration of the agent.
    pub config: Arc<Config>,
    /// Identity of this node; domains and mounts carry its ids.
    pub identity: NodeIdentity,
    /// The client with which disks read and write objects.
    pub pool: PoolClient,
    /// `IP:PORT` at which other nodes reach this one.
    pub advertise: String,
    /// The file system that everything is on.
    pub disk: Arc<DataDisk>,
    /// Most bytes of clean chunks that are kept for reading.
    pub cache_bytes_max: u64,
}

/// The disks, or the host around them, cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the disks of this node cannot be opened: {0}")]
pub struct HostError(pub String);

/// The instances of this node: their disks, and the hypervisor that runs them.
pub trait Host: Send + Sync {
    /// Takes the next steps from the actual towards the desired state, and reports the actual state of all instances.
    /// Never waits for one slow instance (I11).
    fn pass(&self, desired: Arc<Desired>) -> BoxFuture<'_, Vec<InstanceReport>>;
    /// Changes when another pass may find something to do.
    fn changed(&self) -> watch::Receiver<u64>;
    /// The disks, for cutting snapshots.
    fn cuts(&self) -> Arc<dyn DiskCuts>;
    /// The hypervisor, for what is asked of guest agents; `None` if this node runs no virtual machines.
    fn machines(&self) -> Option<Arc<dyn Hypervisor>>;
    /// Takes what was recorded of starts that count as over: in which order they first read the chunks of their disks.
    fn take_boots(&self) -> Vec<(InstanceId, BootReport)>;
    /// Waits for the next start of an instance, of which it tells each disk.
    fn next_start(&self) -> BoxFuture<'_, Start>;
    /// Brings chunks of a disk's version here in this order, behind what guests ask for.
    fn prefetch(&self, disk: DiskId, version: VersionId, chunks: Vec<u32>) -> BoxFuture<'_, ()>;
    /// Bytes that the cache of clean chunks takes on disk.
    fn cache_bytes(&self) -> u64;
    /// Takes about this many bytes from the cache of clean chunks, as far as nobody uses them. Returns how many. Blocks on the
    /// disk.
    fn shrink_cache(&self, bytes: u64) -> u64;
    /// Bytes that programs read from all disks since this process began, and bytes that they wrote.
    fn moved_bytes(&self) -> (u64, u64);
    /// The runtimes that work on this node now.
    fn runtimes(&self) -> Vec<Runtime>;
    /// `kvm` or `qemu`; `None` if libvirt is not wanted or does not work.
    fn hypervisor(&self) -> Option<String>;
    /// Why the hypervisor does not work, for people; `None` if it works or is not wanted.
    fn hypervisor_trouble(&self) -> Option<String>;
    /// What machines of this node can have that not all nodes offer.
    fn features(&self) -> Vec<MachineFeature>;
    /// `IP:PORT` at which this node takes packets of the tunnels between networks; or why it can have no networks, for
    /// people.
    fn tunnel(&self) -> Result<SocketAddr, String>;
    /// Why networks of this node are not as wanted, a sentence for each.
    fn network_troubles(&self) -> Vec<String>;
    /// Opens a way into a running guest: its serial console, its screen, or a TCP port of it.
    fn open_door(&self, instance: InstanceId, door: Door) -> BoxFuture<'_, Result<GuestStream, DoorError>>;
    /// Asks all guests to turn themselves off, and cuts the power of those that still run after `limit`. Returns the
    /// final state of all instances.
    fn stop_guests(&self, limit: Duration) -> BoxFuture<'_, Vec<InstanceReport>>;
    /// Cuts the power of all guests of this node at once and unmounts their disks, because the node was declared dead.
    /// Nothing is started from then on, and nothing is deleted. An error says what is left; then it is called again.
    fn cut_off(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Stores what a disk holds and its newest version lacks, after [`Host::cut_off`]; `None` if there is nothing.
    fn salvage(&self, wanted: &SalvageDisk) -> BoxFuture<'_, Result<Option<SalvagedDisk>, DiskError>>;
    /// Flushes and unmounts every disk.
    fn close(&self) -> BoxFuture<'_, ()>;
}
