//! Restocking: what the repository gave is put back into the pool, so that the next reader finds it at a node.
//!
//! One copy goes to the best node for the object, or stays here if this node is one of those that should have it. The repair
//! makes further copies of it. Nobody waits for this, and nothing depends on it: while much is under way, or a node is full,
//! it is left out.
//!
//! Where nodes give up what the repository has ([`Restock::Here`]), only a node where the object belongs keeps it, and only
//! while it says that it has room. It gets the stamp of the newest round: it was just needed, an older stamp would have the next
//! sweep ask about all objects, and a round asks about it as soon as the stamp protects it no more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use http::HeaderValue;
use storage_core::{Record, store::Listed, units::u64_from};
use tokio::time::Instant;
use tracing::debug;

use crate::{inner::Inner, protocol::OWN_ROUND, put::put_local_copies};

/// Batches that are put back at a time. Each has a few objects in memory.
pub(crate) const RESTOCKS: usize = 4;

/// What becomes of objects that the repository gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Restock {
    /// The best node for each gets a copy.
    AtHome,
    /// This node keeps those that belong on it.
    Here,
    /// No node keeps them.
    Nowhere,
}

impl Restock {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Here,
            2 => Self::Nowhere,
            _ => Self::AtHome,
        }
    }
}

impl Inner {
    /// Puts proven records where they belong. Returns at once.
    pub(crate) fn restock(self: Arc<Self>, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        if let Ok(permit) = self.restocking.clone().try_acquire_owned() {
            tokio::spawn(async move {
                self.restock_now(records).await;
                drop(permit);
            });
        }
    }

    async fn restock_now(&self, records: Vec<Record>) {
        let place = Restock::from_byte(self.restock_where.load(Ordering::Relaxed));
        let round = self.sweep_round.load(Ordering::Relaxed);
        if place == Restock::Nowhere || (place == Restock::Here && round == 0) {
            return;
        }
        let view = self.view.load_full();
        // Only nodes may put copies with the stamps that they have.
        let Some(local) = &self.local else { return };
        let Some(own) = view.position(local.store) else { return };
        let listed: Vec<Listed> = records.iter().map(listed).collect();
        let mut here = Vec::new();
        let mut away: BTreeMap<usize, Vec<&Record>> = BTreeMap::new();
        for (record, homes) in records.iter().zip(view.homes(&listed, &HashSet::new())) {
            match homes.first() {
                _ if homes.contains(&own) && place == Restock::Here => {
                    here.push(record.clone().with_round(record.body().round.max(round)));
                }
                _ if homes.contains(&own) => here.push(record.clone()),
                _ if place == Restock::Here => {}
                Some(best) => away.entry(*best).or_default().push(record),
                None => {}
            }
        }
        if !here.is_empty()
            && let Err(failure) = put_local_copies(self, local.clone(), here).await
        {
            debug!(failure.reason, "what the repository gave was not put back here");
        }
        for (node, records) in away {
            let member = view.member(node);
            let health = self.health(member.store);
            let now = Instant::now();
            if health.is_suspect(now) || health.is_full(now) {
                continue;
            }
            let Ok(_permit) = health.puts.acquire().await else { return };
            match self.send(member, HeaderValue::from_static(OWN_ROUND), &records).await {
                Ok(()) => health.well(),
                Err(failure) => {
                    debug!(node.name = %member.name, failure.reason, "what the repository gave was not put back");
                    if failure.full { health.full() } else { health.failed() }
                }
            }
        }
    }
}

fn listed(record: &Record) -> Listed {
    Listed {
        name: record.name(),
        kind: record.kind(),
        round: record.body().round,
        stored_bytes: u64_from(record.stored().len()),
    }
}
