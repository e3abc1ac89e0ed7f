//! What the agent's loops share, and what `muster-agent status` prints of it.

use std::sync::{Arc, Mutex};

use futures::{FutureExt as _, future::BoxFuture};
use muster_api::{
    Timestamp,
    node::{Condition, PoolUse},
    node_protocol::{InstanceReport, Offer},
};
use muster_pool::PoolClient;
use storage_core::{lock, store::ChunkStore as _};
use tokio::sync::{Notify, watch};

use crate::{
    check::{self, Seen},
    config::Config,
    controller::ControllerClient,
    desired::{DesiredFile, Known},
    host::Host,
    identity::NodeIdentity,
    peer::share::{PoolShare, Space},
    status::Status,
};

/// What all loops of the agent share.
pub(super) struct Loops {
    pub(super) config: Arc<Config>,
    pub(super) identity: NodeIdentity,
    pub(super) advertise: String,
    pub(super) offer: Offer,
    pub(super) share: Arc<PoolShare>,
    pub(super) pool_limit_bytes: u64,
    pub(super) pool: PoolClient,
    pub(super) host: Arc<dyn Host>,
    pub(super) controller: Arc<dyn ControllerClient>,
    pub(super) known: watch::Sender<Arc<Known>>,
    pub(super) desired_file: DesiredFile,
    /// Tells the loop that follows the desired state to ask for all of it again.
    pub(super) refetch: Notify,
    /// The revision that the last pass worked with, and all instances as that pass found them.
    pub(super) instances: watch::Sender<(u64, Arc<Vec<InstanceReport>>)>,
    pub(super) contact: Mutex<Contact>,
}

/// What the last heartbeats say about the controller.
#[derive(Clone, Copy, Default)]
pub(super) struct Contact {
    pub(super) connected: bool,
    pub(super) last_answer_at: Option<Timestamp>,
}

impl Loops {
    /// The loops with their names. None of them ends by itself.
    pub(super) fn all(self: &Arc<Self>) -> [(&'static str, BoxFuture<'static, ()>); 6] {
        macro_rules! named {
            ($name:literal, $method:ident) => {{
                let this = self.clone();
                ($name, async move { this.$method().await }.boxed())
            }};
        }
        [
            named!("heartbeats", heartbeats),
            named!("desired state", follow),
            named!("work", work),
            named!("reports", reports),
            named!("renewal", renewal),
            named!("pool watch", pool_watch),
        ]
    }

    pub(super) fn contact(&self) -> Contact {
        *lock(&self.contact)
    }

    /// Epoch of the membership record this node works with; 0 before the first.
    pub(super) fn membership_epoch(&self) -> u64 {
        self.known.borrow().membership.as_ref().map_or(0, |m| m.epoch)
    }

    pub(super) fn pool_use(&self) -> PoolUse {
        let usage = self.share.usage();
        // A file system that cannot be asked shows as full. The next heartbeat asks again.
        let space = Space::of(&self.config.data_dir).unwrap_or_default();
        let lost = self.share.losses().lost();
        PoolUse {
            limit_bytes: self.pool_limit_bytes,
            used_bytes: usage.bytes,
            objects: usage.objects,
            free_bytes: space.free_bytes,
            cache_bytes: self.host.cache_bytes(),
            lost_objects: lost.objects,
            lost_bytes: lost.bytes,
        }
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        let usage = self.share.usage();
        let pool_full = if self.share.at_floor() {
            Some("the file system is down to what is kept free: the pool takes nothing new".to_owned())
        } else if usage.limit_bytes.is_some_and(|limit| usage.disk_bytes >= limit) {
            Some(format!("the pool has reached its limit of {} bytes", self.pool_limit_bytes))
        } else {
            None
        };
        let hypervisor = self.host.hypervisor();
        let seen = Seen {
            libvirt: hypervisor.is_some(),
            detail: self.host.hypervisor_trouble(),
            kvm: hypervisor.as_deref() == Some("kvm"),
            pool_full,
            lost: self.share.losses().lost(),
            clock_offset_s: self.controller.clock_offset_s(),
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
            desired_revision: self.known.borrow().desired.revision,
            membership_epoch: self.membership_epoch(),
            offer: self.offer,
            pool: self.pool_use(),
            conditions: self.conditions(),
            instances: self.instances.borrow().1.to_vec(),
        }
    }
}
