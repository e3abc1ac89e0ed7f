//! The membership record: the list of the nodes that store objects. It is built from the rows of the nodes and signed
//! by the CA. When it says something new it becomes a new epoch.
//!
//! A new epoch comes from a join, a leave, a node that is declared dead, another address, weight or `accepting`, another
//! number of copies, or another key of a controller. A silent node makes none: it is expected back. One that stays silent, or
//! is drained, is not `accepting` any more.
//!
//! An epoch is *open* until all nodes that are there have handed over what newer epochs gave to others. Readers ask the owners
//! of open epochs before all other nodes. Nothing depends on it but how many nodes a reader has to ask.

use std::sync::atomic::Ordering;

use muster_api::node::{NodeState, PoolUse};
use storage_core::membership::{Client, Member, Membership};

use super::{App, AppError, StoreError};
use crate::store::{
    Tx,
    nodes::{self, NodeRow},
    pool_settings, salvage,
};

/// The name of this controller among the clients of the record.
const CLIENT_NAME: &str = "controller";

impl App {
    /// Opens a new epoch if the rows of the nodes say something that the newest record does not. To be called in the
    /// transaction that changed the rows; [`App::follow_membership`] is to be called after it.
    pub async fn refresh_membership(&self, tx: &mut Tx) -> Result<(), AppError> {
        let mut rows = nodes::listed(tx).await?;
        // A node that was declared dead owns nothing.
        rows.retain(|row| row.fenced_at.is_none());
        let newest = nodes::membership(tx).await?;
        let last = newest.as_ref().map(|(_, signed)| self.read_membership(signed)).transpose()?;
        let salvagers = salvagers(tx).await?;
        let record = self.record(&rows, salvagers, last.as_ref(), self.min_copies(tx).await?);
        if last.as_ref() == Some(&record) {
            return Ok(());
        }
        let epoch = record.epoch + 1;
        let signed = self.ca.sign_membership(&Membership { epoch, ..record })?;
        nodes::insert_membership(tx, epoch, &signed).await?;
        nodes::bump_all_desired(tx).await?;
        tracing::info!(membership.epoch = epoch, members = rows.len(), "opened membership epoch {epoch}");
        Ok(())
    }

    /// The record that the rows make, with the epoch of `last`.
    fn record(
        &self,
        rows: &[NodeRow],
        salvagers: Vec<Client>,
        last: Option<&Membership>,
        min_copies: u32,
    ) -> Membership {
        let members = rows.iter().map(member).collect();
        // The keys of other controllers stay in the record; each controller adds its own.
        let own = Client { name: CLIENT_NAME.to_owned(), key_sha256: self.client_key_sha256.clone(), salvages: false };
        let mut clients: Vec<Client> = last.map(|l| l.clients.clone()).unwrap_or_default();
        clients.retain(|client| !client.salvages);
        if !clients.contains(&own) {
            clients.push(own);
        }
        clients.extend(salvagers);
        Membership { cluster: self.cluster, epoch: last.map_or(0, |l| l.epoch), min_copies, members, clients }
    }

    /// Copies that are wanted of every object: as an operator last set it, else as configured.
    pub(crate) async fn min_copies(&self, tx: &mut Tx) -> Result<u32, StoreError> {
        Ok(pool_settings::min_copies(tx).await?.unwrap_or(self.config.pool.min_copies))
    }

    /// Closes all epochs before the newest one if all nodes that are there are done with handing over under it.
    pub(crate) async fn close_memberships(&self, rows: &[NodeRow]) -> Result<(), AppError> {
        let epoch = self.pool.membership().epoch;
        if self.oldest_open_epoch.load(Ordering::Relaxed) >= epoch {
            return Ok(());
        }
        let is_there = |row: &&NodeRow| row.fenced_at.is_none() && (row.accepting || row.draining_at.is_some());
        let is_done = |row: &NodeRow| {
            let said = self.heartbeats.last(row.id).and_then(|(_, beat)| beat.repair);
            row.state == NodeState::Ready && said.is_some_and(|repair| repair.is_done(epoch))
        };
        if rows.iter().filter(is_there).all(is_done) {
            let closed = self
                .store
                .run_tx("memberships.close", async |tx| {
                    Ok::<_, AppError>(nodes::close_memberships_before(tx, epoch).await?)
                })
                .await?;
            if closed > 0 {
                tracing::info!(membership.epoch = epoch, closed, "all nodes have handed over: older epochs are closed");
            }
        }
        let oldest =
            self.store.read("memberships.oldest_open", async |tx| nodes::oldest_open_membership(tx).await).await?;
        self.oldest_open_epoch.store(oldest.unwrap_or(0), Ordering::Relaxed);
        self.pool.close_epochs_before(oldest.unwrap_or(0));
        Ok(())
    }

    fn read_membership(&self, signed: &storage_core::membership::SignedMembership) -> Result<Membership, AppError> {
        muster_pool::membership::verify(signed, &self.trusted_ca, self.cluster)
            .map_err(|e| AppError::Internal(anyhow::anyhow!("the stored membership record: {e}")))
    }

    /// Gives the newest record to the pool client. The nodes loop does it as well, because another controller may have
    /// opened an epoch.
    pub async fn follow_membership(&self) -> Result<(), AppError> {
        let newest = self.store.read("memberships.newest", async |tx| nodes::membership(tx).await).await?;
        if let Some((epoch, signed)) = newest
            && epoch > self.pool.membership().epoch
        {
            self.pool.set_membership(self.read_membership(&signed)?);
        }
        Ok(())
    }
}

/// The dead nodes that may still save what their disks hold.
async fn salvagers(tx: &mut Tx) -> Result<Vec<Client>, AppError> {
    let mut clients = Vec::new();
    for id in salvage::awaited_nodes(tx).await? {
        if let Some(NodeRow { name, key_sha256, .. }) = nodes::load(tx, id).await? {
            clients.push(Client { name, key_sha256, salvages: true });
        }
    }
    Ok(clients)
}

fn member(row: &NodeRow) -> Member {
    Member {
        node: row.id,
        name: row.name.clone(),
        store: row.store,
        address: row.address.clone(),
        zone: row.zone.clone(),
        weight: row.weight,
        accepting: row.accepting,
        key_sha256: row.key_sha256.clone(),
    }
}

/// The weight of a node's share of the pool: its limit in GiB. It changes only when the limit changed by more than a
/// tenth, because each change is a new epoch and a limit that follows free space changes all the time.
#[must_use]
pub fn weight(current: u32, pool: &PoolUse) -> u32 {
    let wanted = u32::try_from(pool.limit_bytes >> 30).unwrap_or(u32::MAX).max(1);
    let difference = wanted.abs_diff(current);
    if current == 0 || difference > current / 10 { wanted } else { current }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_the_limit_in_steps() {
        let pool = |gib: u64| PoolUse { limit_bytes: gib << 30, ..PoolUse::default() };
        assert_eq!(weight(100, &pool(105)), 100);
        assert_eq!(weight(100, &pool(120)), 120);
        assert_eq!(weight(1, &pool(50)), 50);
        assert_eq!(weight(0, &pool(0)), 1);
    }
}
