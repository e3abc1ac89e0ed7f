//! A node that was declared dead saves what its disks hold and no version has, once its guests are off.
//!
//! The controller says which disks it still waits for. Each is saved like a commit, from all its epochs, and told. A disk
//! that cannot be saved now is tried again, because other nodes may be away. Nothing of the data folder is deleted.

use std::{sync::Arc, time::Duration};

use muster_api::{
    DiskId,
    node_protocol::{SalvageDisk, SalvageOrder, SalvageReport},
};
use muster_pool::membership;
use storage_core::{Backoff, cause::explain};
use tokio::time::sleep;
use tracing::{info, warn};

use super::loops::Loops;
use crate::{controller::ControllerError, mirror::DiskError};

const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);

impl Loops {
    /// Saves what the controller waits for. Ends when it waits for nothing.
    pub(super) async fn salvage(self: &Arc<Self>) {
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        loop {
            match self.controller.salvage_order().await {
                Ok(None) => return,
                Ok(Some(order)) => {
                    if self.salvage_all(&order).await {
                        backoff.reset();
                        continue;
                    }
                }
                // It was given up, or the certificate has ended meanwhile.
                Err(ControllerError::Refused(problem)) => {
                    warn!("nothing of this node's disks can be saved: {problem}");
                    return;
                }
                Err(error) => warn!(%error, "what of this node's disks is awaited is asked again"),
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Whether all disks of the order are done.
    async fn salvage_all(&self, order: &SalvageOrder) -> bool {
        let cluster = self.identity.joined.cluster;
        match membership::verify(&order.membership, &self.identity.ca, cluster) {
            Ok(membership) => self.pool.set_membership(membership),
            Err(error) => {
                warn!(%error, "the membership record that came with the order is not accepted");
                return false;
            }
        }
        let mut done = true;
        for wanted in &order.disks {
            done &= self.salvage_one(wanted).await;
        }
        done
    }

    async fn salvage_one(&self, wanted: &SalvageDisk) -> bool {
        let disk = wanted.disk;
        let report = match self.host.salvage(wanted).await {
            Ok(Some(saved)) => SalvageReport::Saved(saved),
            // A disk that was never made here.
            Ok(None) | Err(DiskError::NotFound(_)) => SalvageReport::Nothing,
            Err(error) => SalvageReport::Trouble(explain(&error)),
        };
        let is_done = !matches!(report, SalvageReport::Trouble(_));
        note(disk, &report);
        match self.controller.salvaged(disk, report).await {
            Ok(()) => is_done,
            Err(error) => {
                warn!(disk.id = %disk, %error, "what was saved of a disk could not be told; it is told again");
                false
            }
        }
    }
}

fn note(disk: DiskId, report: &SalvageReport) {
    match report {
        SalvageReport::Saved(saved) => {
            info!(disk.id = %disk, "{} bytes that no version had are saved", saved.dirty_bytes);
        }
        SalvageReport::Nothing => info!(disk.id = %disk, "there is nothing to save"),
        SalvageReport::Trouble(detail) => warn!(disk.id = %disk, "a disk cannot be saved yet: {detail}"),
    }
}
