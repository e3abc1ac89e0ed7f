//! Slow loops: the renewal of the certificate, and losses of the pool.

use std::time::Duration;

use muster_api::node_protocol::HEARTBEAT_S;
use storage_core::Backoff;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::loops::Loops;

/// Time between two looks at how long the certificate is still valid.
const RENEWAL_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks for losses of the pool. The next heartbeat tells of them.
const LOSSES_EVERY: Duration = Duration::from_secs(HEARTBEAT_S);

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

    /// Writes down what the store has lost (I4). Nothing replaces it until repair is built.
    pub(super) async fn pool_watch(&self) {
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
        }
    }
}
