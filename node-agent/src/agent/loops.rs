//! What the agent's loops share, and what `muster-agent status` prints of it.

use std::{
    future::Future,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use futures::{FutureExt as _, future::BoxFuture};
use muster_api::{
    Timestamp,
    condition::Condition,
    node::PoolUse,
    node_protocol::{Desired, Incarnation, InstanceReport, Offer},
};
use muster_pool::PoolClient;
use storage_core::{lock, store::ChunkStore as _};
use tokio::sync::{Notify, watch};

use super::{unexplained::Strays, unlisted::Unlisted};
use crate::{
    check::{self, Seen},
    config::Config,
    controller::ControllerClient,
    cuts::Freezes,
    data_disk::{DataDisk, Room},
    desired::{DesiredFile, Known},
    fenced::Fenced,
    host::Host,
    identity::NodeIdentity,
    latest::Latest as _,
    peer::{
        repair::{Asked, Repair},
        repository::Keeper,
        scrub::Scrubber,
        share::PoolShare,
    },
    run::Run,
    status::Status,
    sweep::Sweeper,
};

/// What the last pass over the instances worked with and found.
#[derive(Clone, Default)]
pub(super) struct Passed {
    /// The desired state that it worked with; `None` before the first pass.
    pub(super) desired: Option<Arc<Desired>>,
    /// All instances as it found them.
    pub(super) instances: Arc<Vec<InstanceReport>>,
}

impl Passed {
    /// Which desired state it worked with: the state of the database, and the revision.
    pub(super) fn of(&self) -> Option<(Incarnation, u64)> {
        self.desired.as_ref().map(|desired| (desired.incarnation, desired.revision))
    }
}

/// What all loops of the agent share.
pub(super) struct Loops {
    pub(super) config: Arc<Config>,
    pub(super) identity: NodeIdentity,
    pub(super) advertise: String,
    pub(super) offer: Offer,
    pub(super) share: Arc<PoolShare>,
    pub(super) disk: Arc<DataDisk>,
    pub(super) sweeper: Sweeper,
    pub(super) scrubber: Scrubber,
    pub(super) strays: Strays,
    pub(super) keeper: Arc<Keeper>,
    pub(super) pool_limit_bytes: u64,
    pub(super) pool: PoolClient,
    pub(super) repair: Repair,
    /// What the repair is asked for.
    pub(super) repair_asked: Arc<Asked>,
    pub(super) host: Arc<dyn Host>,
    pub(super) freezes: Arc<Freezes>,
    pub(super) controller: Arc<dyn ControllerClient>,
    pub(super) known: watch::Sender<Arc<Known>>,
    pub(super) desired_file: DesiredFile,
    /// Tells the loop that follows the desired state to ask for all of it again.
    pub(super) refetch: Notify,
    pub(super) passed: watch::Sender<Passed>,
    /// Tells the loop that reports to send a full report.
    pub(super) report_all: Notify,
    pub(super) contact: Mutex<Contact>,
    /// This process as one of the runs of its data folder.
    pub(super) run: Run,
    /// Whether the controller has accepted this run.
    pub(super) registered: AtomicBool,
    /// Set once the controller says that another process acts as this node: what it said.
    pub(super) superseded: watch::Sender<Option<String>>,
    /// What the controller says while its database does not know this node.
    pub(super) unlisted: Unlisted,
    /// Whether the controller still lists this node.
    pub(super) standing: watch::Sender<Standing>,
}

/// What the controller says of this node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// No heartbeat was sent since the start. Nothing is started before one was: the node may have been declared dead
    /// while it was off.
    #[default]
    NotAsked,
    /// The last heartbeat was answered, or nobody answered.
    Listed,
    /// It was declared dead, for ever.
    Fenced(Arc<Fenced>),
}

/// What the last heartbeats say about the controller.
#[derive(Clone, Copy, Default)]
pub(super) struct Contact {
    pub(super) connected: bool,
    pub(super) last_answer_at: Option<Timestamp>,
}

impl Loops {
    /// The loops with their names. None of them ends by itself. All but the last stop for good when the node is declared
    /// dead.
    pub(super) fn all(self: &Arc<Self>) -> [(&'static str, BoxFuture<'static, ()>); 17] {
        macro_rules! named {
            ($name:literal, $method:ident) => {{
                let this = self.clone();
                ($name, async move { this.while_listed(this.$method()).await }.boxed())
            }};
        }
        let this = self.clone();
        [
            named!("heartbeats", heartbeats),
            named!("desired state", follow),
            named!("work", work),
            named!("reports", reports),
            named!("boot orders", boots),
            named!("prefetches", prefetches),
            named!("renewal", renewal),
            named!("pool watch", pool_watch),
            named!("pool scrub", pool_scrub),
            named!("room", room),
            named!("disk watch", disk_watch),
            named!("repair", repair),
            named!("sweep", sweeps),
            named!("folder of disks", look_for_strays),
            named!("repository", keep_repository),
            named!("order about the repository", follow_repository),
            ("fence", async move { this.fence().await }.boxed()),
        ]
    }

    /// Runs `work` until this node is declared dead, and never ends then.
    pub(super) async fn while_listed(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            _fenced = self.until_fenced() => std::future::pending().await,
            () = work => {}
        }
    }

    pub(super) fn contact(&self) -> Contact {
        *lock(&self.contact)
    }

    /// Epoch of the membership record this node works with; 0 before the first.
    pub(super) fn membership_epoch(&self) -> u64 {
        self.known.latest().membership.as_ref().map_or(0, |m| m.epoch)
    }

    pub(super) fn pool_use(&self) -> PoolUse {
        let usage = self.share.usage();
        // A file system that cannot be asked shows as full. The next heartbeat asks again.
        let (room, space) = self.disk.room();
        let lost = self.share.losses().lost();
        let cache_bytes = self.host.cache_bytes();
        let above = (space.free_bytes + cache_bytes).saturating_sub(self.disk.reserves().objects_bytes());
        let below = self.pool_limit_bytes.saturating_sub(usage.disk_bytes);
        let is_closed = room >= Room::NoObjects || self.disk.failure().is_some();
        PoolUse {
            limit_bytes: self.pool_limit_bytes,
            used_bytes: usage.bytes,
            objects: usage.objects,
            free_bytes: space.free_bytes,
            cache_bytes,
            takes_bytes: Some(if is_closed { 0 } else { above.min(below) }),
            lost_objects: lost.objects,
            lost_bytes: lost.bytes,
        }
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        let usage = self.share.usage();
        let (room, space) = self.disk.room();
        let reserves = self.disk.reserves();
        let free_of =
            |reserve: u64| format!("{} MiB are free, {} MiB are kept free", space.free_bytes >> 20, reserve >> 20);
        let pool_full = if room >= Room::NoObjects {
            Some(format!(
                "the pool takes no new objects: {} (keep_free, mirror_reserve)",
                free_of(reserves.objects_bytes())
            ))
        } else if usage.limit_bytes.is_some_and(|limit| usage.disk_bytes >= limit) {
            Some(format!("the pool has reached its limit of {} bytes", self.pool_limit_bytes))
        } else {
            None
        };
        let node_full = (room >= Room::NoInstances)
            .then(|| format!("no new instances are placed here: {} (keep_free)", free_of(reserves.instances_bytes())));
        let disk_failed = self.disk.failure().map(|failure| {
            format!(
                "{}: {}, since {}; start the agent again once the disk works",
                failure.path.display(),
                failure.error,
                failure.at
            )
        });
        let hypervisor = self.host.hypervisor();
        let seen = Seen {
            libvirt: hypervisor.is_some(),
            detail: self.host.hypervisor_trouble(),
            kvm: hypervisor.as_deref() == Some("kvm"),
            pool_full,
            node_full,
            disk_failed,
            lost: self.share.losses().lost(),
            clock_offset_s: self.controller.clock_offset_s(),
            clock_trouble: self.pool.clock_trouble().filter(|trouble| trouble.here).map(|trouble| trouble.detail),
        };
        check::conditions(&self.config, &seen)
    }

    pub(super) fn status(&self) -> Status {
        let contact = self.contact();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            node: self.identity.joined.node,
            name: self.identity.joined.name.clone(),
            cluster: self.identity.joined.cluster,
            controller: self.identity.node_door(),
            connected: contact.connected,
            last_answer_at: contact.last_answer_at,
            advertise: self.advertise.clone(),
            desired_revision: self.known.latest().desired.revision,
            membership_epoch: self.membership_epoch(),
            offer: self.offer,
            tunnel: self.host.tunnel().ok().map(|tunnel| tunnel.to_string()),
            network_troubles: match self.host.tunnel() {
                Ok(_) => self.host.network_troubles(),
                Err(why) => vec![format!("this node can have no networks: {why}")],
            },
            pool: self.pool_use(),
            repair: self.repair.progress(),
            scrub: self.scrubber.progress(),
            sweep: self.sweeper.status(),
            conditions: self.conditions(),
            unlisted: self.unlisted.told(),
            fenced: self.fenced().map(|fenced| (*fenced).clone()),
            instances: self.passed.latest().instances.to_vec(),
        }
    }
}
