//! Slow loops: the renewal of the certificate, losses of the pool, its scrub, its repair, and its sweep.

use std::time::Duration;

use metrics::counter;
use muster_api::node_protocol::HEARTBEAT_S;
use storage_core::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::warn;

use super::loops::Loops;
use crate::telemetry;

/// Time between two looks at how long the certificate is still valid.
const RENEWAL_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks for losses of the pool. The next heartbeat tells of them.
const LOSSES_EVERY: Duration = Duration::from_secs(HEARTBEAT_S);
/// Stored bytes of the pool that are hashed per second in the background. A round of 1 TiB takes three days.
const SCRUB_BYTES_PER_S: u64 = 4 << 20;
/// Shortest time from the start of one round of the scrub to the start of the next.
const SCRUB_ROUND: Duration = Duration::from_secs(3600);

impl Loops {
    pub(super) async fn renewal(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), RENEWAL_EVERY);
        loop {
            match self.identity.wants_renewal() {
                Ok(true) => match self.identity.renew(self.controller.as_ref()).await {
                    Ok(()) => backoff.reset(),
                    Err(error) => {
                        warn!(%error, "the certificate could not be renewed; it is tried again");
                        sleep(backoff.pause()).await;
                        continue;
                    }
                },
                Ok(false) => {}
                Err(error) => warn!(%error, "the certificate cannot be read"),
            }
            sleep(RENEWAL_EVERY).await;
        }
    }

    /// Writes down what the store has lost (I4). The repair asks other nodes for it.
    pub(super) async fn pool_watch(&self) {
        let mut lost = self.share.losses().lost();
        let mut tick = interval(LOSSES_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let share = self.share.clone();
            match tokio::task::spawn_blocking(move || share.look_for_losses()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "what the pool has lost cannot be written down; it is tried again"),
                Err(error) => warn!(%error, "the look for losses of the pool failed; it is tried again"),
            }
            let before = std::mem::replace(&mut lost, self.share.losses().lost());
            if lost.objects > before.objects {
                self.repair_asked.lost_here();
            }
        }
    }

    /// Makes copies again that other nodes lack.
    pub(super) async fn repair(&self) {
        self.repair.run().await;
    }

    pub(super) async fn sweeps(&self) {
        self.sweeper.run().await;
    }

    /// Hashes the pool in the background, a little every second, so that rot is found while other copies are good (I4).
    pub(super) async fn pool_scrub(&self) {
        let mut round = Instant::now();
        loop {
            sleep(Duration::from_secs(1)).await;
            let share = self.share.clone();
            match tokio::task::spawn_blocking(move || share.scrub(SCRUB_BYTES_PER_S)).await {
                Ok(Ok(bytes)) => {
                    counter!(telemetry::POOL_SCRUBBED_BYTES).increment(bytes);
                    if bytes < SCRUB_BYTES_PER_S {
                        sleep_until(round + SCRUB_ROUND).await;
                        round = Instant::now();
                    }
                }
                Ok(Err(error)) => warn!(%error, "the scrub of the pool cannot list it; it goes on"),
                Err(error) => warn!(%error, "the scrub of the pool failed; it goes on"),
            }
        }
    }
}
