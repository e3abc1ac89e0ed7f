//! Has the disks bring what a start is likely to read. Nothing depends on it: a controller that does not know the call, or does not
//! answer, costs the start nothing but time.

use std::{collections::BTreeSet, sync::Mutex};

use futures::{StreamExt as _, stream::FuturesUnordered};
use muster_api::VersionId;
use storage_core::lock;
use tracing::debug;

use super::loops::Loops;
use crate::mirror::Start;

impl Loops {
    /// Follows the starts of instances.
    pub(super) async fn prefetches(&self) {
        // Instances of one version share what is brought, so one of them at a time is enough.
        let versions: &Mutex<BTreeSet<VersionId>> = &Mutex::default();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                start = self.host.next_start() => {
                    if lock(versions).insert(start.version) {
                        running.push(async move {
                            self.prefetch(start).await;
                            lock(versions).remove(&start.version);
                        });
                    }
                }
                Some(()) = running.next() => {}
            }
        }
    }

    async fn prefetch(&self, start: Start) {
        match self.controller.boot_order(start.instance, start.disk).await {
            Ok(Some(order)) if order.version == start.version => {
                self.host.prefetch(start.disk, order.version, order.chunks).await;
            }
            Ok(_) => {}
            Err(error) => debug!(instance.id = %start.instance, %error, "what the start will read is not known"),
        }
    }
}
