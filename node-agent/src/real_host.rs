//! The [`Host`] of a real node: mirrored disks, and a hypervisor if one is configured.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::{BoxFuture, select_ok};
use muster_api::{
    DiskId, InstanceId, VersionId,
    deployment::Runtime,
    firmware::MachineFeature,
    node_protocol::{Desired, InstanceReport, SalvageDisk, SalvagedDisk, boot::BootReport},
};
use storage_core::{cause::explain, lock};
use tokio::{net::TcpStream, sync::watch};
use tokio_util::either::Either;
use tracing::{debug, info, warn};

use crate::{
    check, clock,
    config::{Config, RuntimeChoice},
    consoles::{Door, DoorError, GuestStream},
    cuts::DiskCuts,
    desired::Known,
    fuse,
    helper::HelperProgram,
    holder::Holder,
    host::{Host, HostError, HostParts},
    hypervisor::{Hypervisor, HypervisorError, Owner, firmware, libvirt::Libvirt, probe},
    mirror::{self, DiskError, Disks, Saved, Start},
    network::{self, NetworkError, NetworkParts, Networks},
    reconcile::{Reconciler, ReconcilerParts},
};

/// Opens the disks and the hypervisor, and looks once at what is there.
pub(crate) async fn open(parts: HostParts) -> Result<Arc<dyn Host>, HostError> {
    let HostParts { run, config, identity, advertise, pool, disk, cache_bytes_max } = parts;
    let owner = Owner { cluster: identity.joined.cluster, node: identity.joined.node };
    let program = match &config.helper_program {
        Some(program) => HelperProgram { program: program.clone(), args: Vec::new() },
        None => HelperProgram::own_executable().map_err(|e| HostError(e.to_string()))?,
    };
    let holder = Holder::new(config.data_dir.join("holder.sock"), program.clone());
    let mut settings = mirror::Config::new(config.data_dir.clone(), identity.joined.cluster, identity.joined.node);
    settings.write_policy = config.write_policy;
    settings.cache_bytes_max = cache_bytes_max;
    settings.memory_bytes_max = config.pool_memory_bytes;
    settings.keep_free_bytes = disk.reserves().cache_bytes();
    settings.disk = Some(disk);
    settings.background_bytes_per_s = config.background_bytes_per_s;
    let qemu_user = check::disk_owner(&config);
    settings.owner = qemu_user;
    let disks = fuse::open_disks(settings, pool, holder.clone()).await.map_err(|e| HostError(explain(&e)))?;
    let hypervisor = match config.runtime {
        RuntimeChoice::None => None,
        RuntimeChoice::Libvirt => Some(hypervisor(&config, owner).await),
    };
    let tunnel = tunnel(&config, owner, &advertise).await;
    match &tunnel {
        Ok(tunnel) => info!(%tunnel, "networks work; packets between nodes are not encrypted"),
        Err(why) => warn!("this node can have no networks: {why}"),
    }
    let networks = Networks::new(NetworkParts { data_dir: config.data_dir.clone(), owner, tunnel });
    let reconciler = Reconciler::new(ReconcilerParts {
        data_dir: config.data_dir.clone(),
        qemu_user,
        disks: disks.clone().into(),
        networks: networks.clone(),
        hypervisor: hypervisor.clone(),
        helper: program,
        run,
        host_boot: host_boot()?,
        now: Arc::new(clock::now),
    })
    .map_err(|e| HostError(e.to_string()))?;
    // This pass asks libvirt before the first heartbeat, so that the heartbeat says whether virtual machines are
    // offered.
    let nothing = Known::nothing(identity.joined.incarnation).desired;
    reconciler.pass(&nothing).await;
    let disks_dir = config.data_dir.join("disks");
    Ok(Arc::new(RealHost {
        disks,
        disks_dir,
        holder,
        hypervisor,
        networks,
        reconciler,
        desired: Mutex::new(Arc::new(nothing)),
    }))
}

/// Where this node takes tunnel packets, if it runs guests and everything that networks need was tried.
async fn tunnel(config: &Config, owner: Owner, advertise: &str) -> Result<SocketAddr, String> {
    if config.runtime == RuntimeChoice::None {
        return Err("it runs no virtual machines".to_owned());
    }
    let tunnel = check::tunnel(config, advertise)?;
    network::probe::lacking(owner, tunnel).await?;
    Ok(tunnel)
}

/// The id of this boot of the host. A domain that was started under another one is gone.
pub(crate) fn host_boot() -> Result<String, HostError> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(FILE).map_err(|e| HostError(format!("cannot read {FILE}: {e}")))?;
    Ok(text.trim().to_owned())
}

async fn hypervisor(config: &Config, owner: Owner) -> Arc<dyn Hypervisor> {
    let verdict = probe::choose(config.hypervisor, &config.data_dir).await;
    // It connects when first used: libvirt may start later, and domains of this node may be there already.
    Arc::new(Libvirt::lazy(&config.libvirt_uri, owner, verdict.acceleration))
}

/// What a client is told when the hypervisor opens no connection into a guest.
fn door_error(error: &HypervisorError) -> DoorError {
    match error {
        HypervisorError::NotRunning(_) => DoorError::Closed("the guest does not run".to_owned()),
        HypervisorError::Without { .. } => DoorError::Closed(error.to_string()),
        HypervisorError::Busy { .. } => DoorError::Busy(error.to_string()),
        _ => DoorError::Failed(explain(error)),
    }
}

impl RealHost {
    /// Connects to a port of a guest, through the card on which it answers first.
    async fn port(&self, instance: InstanceId, port: u16) -> Result<TcpStream, DoorError> {
        let desired = lock(&self.desired).clone();
        let assignment = desired.assignments.iter().find(|assignment| assignment.instance == instance);
        let nics = assignment.map(|assignment| assignment.nics.clone()).unwrap_or_default();
        let tries = nics.into_iter().map(|nic| Box::pin(self.networks.connect(nic, port))).collect::<Vec<_>>();
        if tries.is_empty() {
            return Err(DoorError::Closed("it has no network card".to_owned()));
        }
        select_ok(tries).await.map(|(stream, _others)| stream).map_err(|error| match error {
            NetworkError::NoAddress { .. } => DoorError::Closed(error.to_string()),
            error => DoorError::Failed(explain(&error)),
        })
    }
}

struct RealHost {
    disks: Arc<Disks>,
    disks_dir: PathBuf,
    holder: Holder,
    hypervisor: Option<Arc<dyn Hypervisor>>,
    networks: Networks,
    reconciler: Reconciler,
    /// The desired state of the last pass.
    desired: Mutex<Arc<Desired>>,
}

impl Host for RealHost {
    fn pass(&self, desired: Arc<Desired>) -> BoxFuture<'_, Vec<InstanceReport>> {
        *lock(&self.desired) = desired.clone();
        Box::pin(async move {
            self.networks.pass(&desired.networks);
            self.reconciler.pass(&desired).await
        })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.reconciler.changed()
    }

    fn cuts(&self) -> Arc<dyn DiskCuts> {
        Arc::new(self.disks.clone())
    }

    fn machines(&self) -> Option<Arc<dyn Hypervisor>> {
        self.hypervisor.clone()
    }

    fn take_boots(&self) -> Vec<(InstanceId, BootReport)> {
        self.disks.take_boots()
    }

    fn next_start(&self) -> BoxFuture<'_, Start> {
        Box::pin(self.disks.next_start())
    }

    fn prefetch(&self, disk: DiskId, version: VersionId, chunks: Vec<u32>) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.disks.prefetch(disk, version, &chunks).await })
    }

    fn cache_bytes(&self) -> u64 {
        self.disks.cache_bytes()
    }

    fn shrink_cache(&self, bytes: u64) -> u64 {
        self.disks.shrink_cache(bytes)
    }

    fn moved_bytes(&self) -> (u64, u64) {
        self.disks.moved_bytes()
    }

    fn runtimes(&self) -> Vec<Runtime> {
        match self.hypervisor() {
            Some(_) => vec![Runtime::Libvirt, Runtime::None],
            None => vec![Runtime::None],
        }
    }

    fn hypervisor(&self) -> Option<String> {
        let hypervisor = self.hypervisor.as_ref().filter(|_| self.reconciler.hypervisor_trouble().is_none())?;
        Some(hypervisor.acceleration().to_string())
    }

    fn hypervisor_trouble(&self) -> Option<String> {
        self.reconciler.hypervisor_trouble()
    }

    fn features(&self) -> Vec<MachineFeature> {
        if self.hypervisor.is_some() { firmware::features() } else { Vec::new() }
    }

    fn tunnel(&self) -> Result<SocketAddr, String> {
        self.networks.tunnel()
    }

    fn network_troubles(&self) -> Vec<String> {
        self.networks.troubles()
    }

    fn open_door(&self, instance: InstanceId, door: Door) -> BoxFuture<'_, Result<GuestStream, DoorError>> {
        let none = || DoorError::Closed("its node runs no virtual machines".to_owned());
        Box::pin(async move {
            match door {
                Door::Serial => {
                    let hypervisor = self.hypervisor.as_ref().ok_or_else(none)?;
                    hypervisor.open_serial(instance).await.map(Either::Left).map_err(|error| door_error(&error))
                }
                Door::Screen => {
                    let hypervisor = self.hypervisor.as_ref().ok_or_else(none)?;
                    hypervisor.open_screen(instance).await.map(Either::Left).map_err(|error| door_error(&error))
                }
                Door::Port(port) => self.port(instance, port).await.map(Either::Right),
            }
        })
    }

    fn stop_guests(&self, limit: Duration) -> BoxFuture<'_, Vec<InstanceReport>> {
        let desired = lock(&self.desired).clone();
        Box::pin(async move { self.reconciler.stop_guests(&desired, limit).await })
    }

    fn cut_off(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let off = self.reconciler.cut_power().await;
            self.networks.close().await;
            // Also when a guest could not be stopped: without its disk it writes nothing any more.
            let flushed = self.disks.shutdown().await;
            off?;
            if flushed {
                Ok(())
            } else {
                Err("a disk could not be flushed and unmounted: its log line says why".to_owned())
            }
        })
    }

    fn salvage(&self, wanted: &SalvageDisk) -> BoxFuture<'_, Result<Option<SalvagedDisk>, DiskError>> {
        let SalvageDisk { disk, commit, upload, round } = *wanted;
        Box::pin(async move {
            let generation = self.disks.status(disk).map(|status| status.generation);
            let saved = self.disks.salvage(disk, commit, round).await?;
            Ok(saved.map(|Saved { base, root, dirty_bytes, stored_bytes }| SalvagedDisk {
                base,
                root,
                upload,
                dirty_bytes,
                stored_bytes,
                generation,
            }))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.networks.close().await;
            let flushed = self.disks.shutdown().await;
            let (holder, needed) = (self.holder.clone(), !flushed || self.unopened_disks());
            let stopped = tokio::task::spawn_blocking(move || if needed { Ok(()) } else { holder.stop() }).await;
            if let Ok(Err(error)) = stopped {
                debug!(error = explain(&error), "no holder was stopped");
            }
        })
    }
}

impl RealHost {
    /// Whether there are disks that could not be opened. The holder must go on for them, because their live maps know
    /// more than their journals.
    fn unopened_disks(&self) -> bool {
        let known = self.disks.list();
        let Ok(folders) = std::fs::read_dir(&self.disks_dir) else { return true };
        let mut here = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<DiskId>().ok());
        here.any(|id| known.iter().all(|disk| disk.disk != id))
    }
}
