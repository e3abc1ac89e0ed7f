//! [`Inner`]: what all clones of a client share, and what getting and putting work with.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use storage_core::{NodeId, StoreId, lock::lock, store::ChunkStore};
use tokio::sync::{Notify, RwLock, Semaphore};

use crate::{
    demand::Demand,
    error::PoolError,
    health::Health,
    limits::PoolLimits,
    load::Load,
    repository::Repository,
    traffic::Traffic,
    transport::{NameTable, node_tls_name},
    view::View,
};

/// The state behind a [`crate::PoolClient`].
pub(crate) struct Inner {
    /// None in a pool of one node without a network.
    pub(crate) http: Option<reqwest::Client>,
    pub(crate) names: NameTable,
    pub(crate) view: ArcSwap<View>,
    /// Wakes waits when the membership changed.
    pub(crate) changed: Notify,
    pub(crate) local: Option<Local>,
    pub(crate) health: Mutex<HashMap<StoreId, Arc<Health>>>,
    pub(crate) limits: PoolLimits,
    pub(crate) load: Load,
    pub(crate) traffic: Traffic,
    pub(crate) demand: Demand,
    /// Held for writing while copies are dropped, for reading while this node says that it keeps some (`handover.rs`).
    pub(crate) dropping: Arc<RwLock<()>>,
    /// Held for reading while objects are taken in.
    pub(crate) taking: Arc<RwLock<()>>,
    /// None: the pool has none.
    pub(crate) repository: ArcSwapOption<Repository>,
    /// Permits for putting back what the repository gave.
    pub(crate) restocking: Arc<Semaphore>,
    /// A [`crate::Restock`].
    pub(crate) restock_where: AtomicU8,
    /// The round of the sweep that this node last heard of; 0 before that.
    pub(crate) sweep_round: AtomicU64,
}

/// A stamp so far above the newest known round is no stamp of this pool's history: with the shortest time between rounds they are
/// months apart. After a restore of the controller's database stamps are above the known round, but not by so many.
const STAMP_AHEAD_MAX: u64 = 1_000_000;

impl Inner {
    pub(crate) fn health(&self, store: StoreId) -> Arc<Health> {
        let mut all = lock(&self.health);
        all.entry(store).or_insert_with(|| Arc::new(Health::new(&self.limits))).clone()
    }

    /// This node's own share, if this is its store.
    pub(crate) fn own(&self, store: StoreId) -> Option<&Local> {
        self.local.as_ref().filter(|local| local.store == store)
    }

    /// The stamp to use for one that somebody gave. One that is absurd would keep its object for ever, so the highest that is
    /// not is used for it. That keeps the object long enough (I6).
    pub(crate) fn stamp_of(&self, given: u64) -> u64 {
        match self.sweep_round.load(Ordering::Relaxed) {
            0 => given,
            known => given.min(known.saturating_add(STAMP_AHEAD_MAX)),
        }
    }

    /// Whether a stamp protects nothing any more: no upload that lives now can have set it (I6). False while no round is known.
    pub(crate) fn is_outdated(&self, stamp: u64) -> bool {
        stamp.saturating_add(1) < self.sweep_round.load(Ordering::Relaxed)
    }

    pub(crate) fn repository(&self) -> Option<Arc<Repository>> {
        self.repository.load_full()
    }

    /// The HTTP client and the URL of a member, without a trailing slash.
    pub(crate) fn address(&self, node: NodeId) -> Result<(&reqwest::Client, String), PoolError> {
        let known = self.view.load().membership.members.iter().any(|m| m.node == node);
        match &self.http {
            Some(http) if known => Ok((http, format!("https://{}", node_tls_name(node)))),
            _ => Err(PoolError::NotAMember(node)),
        }
    }
}

/// This node's own share of the pool.
#[derive(Clone)]
pub(crate) struct Local {
    pub(crate) store: StoreId,
    pub(crate) chunks: Arc<dyn ChunkStore>,
    /// Permits for threads that look for objects. While the disk does not answer, only so many wait for it.
    pub(crate) looks: Arc<Semaphore>,
}
