//! What the members of deployments add up to. It is counted once after each change of the members, however often somebody
//! asks, because counting 10,000 of them takes long.
//!
//! A deployment's row has a number that every change of its members and their disks raises in its own transaction
//! (`members_revision`). What was counted at one number is right as long as the row that was read has the same. So there is
//! nothing to keep in step, and each controller counts for itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use muster_api::{DeploymentId, deployment::Timing};
use storage_core::lock;

use crate::{
    domain::deployment::{Tally, timing},
    store::{StoreError, Tx, deployments::DeploymentRow, instances},
};

/// Deployments whose counts are remembered, before all are forgotten.
const COUNTED_MAX: usize = 1 << 15;

/// What was counted lately, by deployment.
#[derive(Debug, Default)]
pub struct Counted(Mutex<HashMap<DeploymentId, Remembered>>);

#[derive(Debug)]
struct Remembered {
    members_revision: i64,
    tally: Arc<Tally>,
    details: Option<Arc<Details>>,
}

/// What only one deployment at a time is shown with.
#[derive(Debug)]
pub(crate) struct Details {
    /// How long its members took.
    pub timing: Timing,
    /// Bytes fetched for its disks, and bytes that they take on their nodes.
    pub bytes: (u64, u64),
}

impl Counted {
    /// How many members of each deployment are in which state, in the order of the rows.
    pub(crate) async fn tallies(&self, tx: &mut Tx, rows: &[DeploymentRow]) -> Result<Vec<Arc<Tally>>, StoreError> {
        let known: Vec<Option<Arc<Tally>>> =
            rows.iter().map(|row| self.known(row, |known| known.tally.clone())).collect();
        let unknown = rows.iter().zip(&known).filter(|(_, known)| known.is_none());
        let unknown: Vec<DeploymentId> = unknown.map(|(row, _)| row.id).collect();
        let (committed, mut counted) = (!tx.writes(), instances::tallies(tx, &unknown).await?);
        let tally = |(row, known): (&DeploymentRow, Option<Arc<Tally>>)| {
            known.unwrap_or_else(|| {
                let tally = Arc::new(counted.remove(&row.id).unwrap_or_default());
                self.remember(committed, row, tally.clone(), None);
                tally
            })
        };
        Ok(rows.iter().zip(known).map(tally).collect())
    }

    /// The members of one deployment.
    pub(crate) async fn whole(
        &self,
        tx: &mut Tx,
        row: &DeploymentRow,
    ) -> Result<(Arc<Tally>, Arc<Details>), StoreError> {
        let known = self.known(row, |known| known.details.clone().map(|details| (known.tally.clone(), details)));
        if let Some(Some(known)) = known {
            return Ok(known);
        }
        let mut tallies: BTreeMap<_, _> = instances::tallies(tx, &[row.id]).await?;
        let tally = Arc::new(tallies.remove(&row.id).unwrap_or_default());
        let timing = timing(&instances::ways(tx, row.id).await?);
        let details = Arc::new(Details { timing, bytes: instances::bytes(tx, row.id).await? });
        self.remember(!tx.writes(), row, tally.clone(), Some(details.clone()));
        Ok((tally, details))
    }

    fn known<T>(&self, row: &DeploymentRow, read: impl FnOnce(&Remembered) -> T) -> Option<T> {
        let all = lock(&self.0);
        all.get(&row.id).filter(|known| known.members_revision == row.members_revision).map(read)
    }

    fn remember(&self, committed: bool, row: &DeploymentRow, tally: Arc<Tally>, details: Option<Arc<Details>>) {
        // What a transaction counted of its own changes is nobody's business until it is committed.
        if !committed {
            return;
        }
        let mut all = lock(&self.0);
        if all.len() >= COUNTED_MAX {
            all.clear();
        }
        // A transaction that began earlier may end later. What is newer stays.
        if all.get(&row.id).is_none_or(|known| known.members_revision <= row.members_revision) {
            all.insert(row.id, Remembered { members_revision: row.members_revision, tally, details });
        }
    }
}
