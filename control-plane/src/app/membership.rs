//! The membership record: the list of the nodes that store objects. It is built from the rows of the nodes and signed
//! by the CA. When it says something new it becomes a new epoch.
//!
//! A new epoch comes from a join, a leave, a node that is declared dead, another address, weight or `accepting`, another
//! number of copies, or another key of a controller. A silent node makes none: it is expected back. One that stays silent, or
//! is drained, is not `accepting` any more.
//!
//! The number of an epoch has one meaning for ever, also when the database is replaced by an older copy. Each incarnation of the
//! database has numbers of its own, far above those of the one before: so no node was told any of them, and what a node says of
//! one (that it is empty, that it has handed over) was said of this record. A node that knows a record of the present
//! incarnation that the database does not have shows that the database is an older copy (`incarnations.rs`).
//!
//! An epoch is *open* until all nodes that are there have handed over what newer epochs gave to others. Readers ask the owners
//! of open epochs before all other nodes. Nothing depends on it but how many nodes a reader has to ask.

use std::sync::atomic::Ordering;

use muster_api::{
    node::{NodeState, PoolUse},
    node_protocol::{Heartbeat, Incarnation},
};
use muster_pool::membership::digest;
use storage_core::{
    lock,
    membership::{Client, Member, Membership},
};

use super::{App, AppError, StoreError, newest_record::NewestRecord};
use crate::store::{
    Tx, cluster,
    nodes::{self, NodeRow},
    pool_settings, salvage,
};

/// The name of this controller among the clients of the record.
const CLIENT_NAME: &str = "controller";
/// Numbers of epochs that each incarnation of the database has. Dashboards read numbers up to 2^53, which are those of nine
/// million incarnations.
const EPOCHS_PER_INCARNATION: u64 = 1_000_000_000;

/// The least number of an epoch of this incarnation.
fn first_epoch(incarnation: Incarnation) -> u64 {
    incarnation.number.saturating_sub(1).saturating_mul(EPOCHS_PER_INCARNATION) + 1
}

impl App {
    /// Opens a new epoch if the rows of the nodes say something that the newest record does not, or the newest record is one of an
    /// older incarnation. To be called in the transaction that changed the rows; [`App::follow_membership`] is to be called after
    /// it.
    pub async fn refresh_membership(&self, tx: &mut Tx) -> Result<(), AppError> {
        let mut rows = nodes::listed(tx).await?;
        // A node that was declared dead owns nothing.
        rows.retain(|row| row.fenced_at.is_none());
        let newest = nodes::membership(tx).await?;
        let last = newest.as_ref().map(|(_, signed)| self.read_membership(signed)).transpose()?;
        let salvagers = salvagers(tx).await?;
        let record = self.record(&rows, salvagers, last.as_ref(), self.min_copies(tx).await?);
        let cluster = cluster::load(tx).await?.expect("a controller does not start without the cluster's row");
        let first = first_epoch(cluster.incarnation);
        if last.as_ref() == Some(&record) && record.epoch >= first {
            return Ok(());
        }
        let epoch = first.max(record.epoch + 1);
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
        let Some((epoch, signed)) = newest else { return Ok(()) };
        if epoch > self.pool.membership().epoch {
            self.pool.set_membership(self.read_membership(&signed)?);
        }
        let mut known = lock(&self.newest_record);
        if epoch >= known.epoch {
            *known = NewestRecord { epoch, digest: digest(&signed) };
        }
        Ok(())
    }

    /// What shows that a node was told a membership record of the present incarnation that the database does not have, in a
    /// sentence. None if the database has it.
    pub(crate) async fn strange_record(&self, name: &str, beat: &Heartbeat) -> Result<Option<String>, AppError> {
        let is_behind = || lock(&self.newest_record).is_behind(beat);
        if !is_behind() {
            return Ok(None);
        }
        // Another controller may have opened an epoch.
        self.follow_membership().await?;
        let epoch = lock(&self.newest_record).epoch;
        Ok(is_behind().then(|| match beat.membership_epoch {
            same if same == epoch => format!("node '{name}' has another record of membership epoch {epoch}"),
            theirs => format!("node '{name}' has membership epoch {theirs}, the newest one here is {epoch}"),
        }))
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
    fn no_two_incarnations_have_an_epoch_of_the_same_number() {
        let first = |number| first_epoch(Incarnation { number, random: 7 });
        assert_eq!([first(1), first(2), first(3)], [1, 1_000_000_001, 2_000_000_001]);
    }

    #[test]
    fn a_weight_follows_the_limit_in_steps() {
        let pool = |gib: u64| PoolUse { limit_bytes: gib << 30, ..PoolUse::default() };
        assert_eq!(weight(100, &pool(105)), 100);
        assert_eq!(weight(100, &pool(120)), 120);
        assert_eq!(weight(1, &pool(50)), 50);
        assert_eq!(weight(0, &pool(0)), 1);
    }
}
