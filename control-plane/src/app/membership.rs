//! The membership record: the list of the nodes that store objects. It is built from the rows of the nodes and signed
//! by the CA. When it says something new it becomes a new epoch.
//!
//! A new epoch comes from a join, a leave, a node that is declared dead, another address, weight or `accepting`, or another key of a controller. A
//! silent node makes none: it is expected back. One that stays silent is not `accepting` any more.

use muster_api::node::PoolUse;
use storage_core::membership::{Client, Member, Membership};

use super::{App, AppError};
use crate::store::{
    Tx,
    nodes::{self, NodeRow},
    salvage,
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
        let record = self.record(&rows, salvagers, last.as_ref());
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
    fn record(&self, rows: &[NodeRow], salvagers: Vec<Client>, last: Option<&Membership>) -> Membership {
        let members = rows.iter().map(member).collect();
        // The keys of other controllers stay in the record; each controller adds its own.
        let own = Client { name: CLIENT_NAME.to_owned(), key_sha256: self.client_key_sha256.clone(), salvages: false };
        let mut clients: Vec<Client> = last.map(|l| l.clients.clone()).unwrap_or_default();
        clients.retain(|client| !client.salvages);
        if !clients.contains(&own) {
            clients.push(own);
        }
        clients.extend(salvagers);
        Membership {
            cluster: self.cluster,
            epoch: last.map_or(0, |l| l.epoch),
            min_copies: self.config.pool.min_copies,
            members,
            clients,
        }
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
