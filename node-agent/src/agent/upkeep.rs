//! Slow loops: the renewal of the certificate, and bad copies in the pool.

use std::time::Duration;

use storage_core::{Backoff, store::ChunkStore as _};
use tokio::time::{interval, sleep};
use tracing::{error, warn};

use super::loops::Loops;

/// Time between two looks at how long the certificate is still valid.
const RENEWAL_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks for bad copies.
const BAD_COPIES_EVERY: Duration = Duration::from_secs(10);

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

    /// Logs the bad copies that the store has dropped (I4). Nothing replaces them until repair is built.
    pub(super) async fn pool_watch(&self) {
        let mut tick = interval(BAD_COPIES_EVERY);
        loop {
            tick.tick().await;
            for bad in self.share.take_bad_copies() {
                error!(object.name = %bad.name, reason = %bad.reason, "a copy in this node's pool was bad and is dropped");
            }
        }
    }
}
