//! [`Inner`]: what all clones of a client share, and what getting and putting work with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use storage_core::{NodeId, StoreId, lock::lock, store::ChunkStore};
use tokio::sync::{Notify, RwLock, Semaphore};

use crate::{
    demand::Demand,
    error::PoolError,
    health::Health,
    limits::PoolLimits,
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
}

impl Inner {
    pub(crate) fn health(&self, store: StoreId) -> Arc<Health> {
        let mut all = lock(&self.health);
        all.entry(store).or_insert_with(|| Arc::new(Health::new(&self.limits))).clone()
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
