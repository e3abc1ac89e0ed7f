//! Follows the desired state: one long-poll after the other, each answer accepted by rule, stored and handed on.

use std::{sync::Arc, time::Duration};

use muster_api::node_protocol::Desired;
use storage_core::Backoff;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::loops::Loops;

/// Longest a long-poll waits at the controller.
const POLL: Duration = Duration::from_secs(25);
/// Pause after an answer that was not accepted: the controller has the same one ready at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(3);

impl Loops {
    pub(super) async fn follow(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        // From the beginning: what is on disk may be old, and cuts are begun only on the controller's fresh word.
        let mut after = 0;
        loop {
            let answer = tokio::select! {
                () = self.refetch.notified() => {
                    after = 0;
                    continue;
                }
                answer = timeout(POLL * 2, self.controller.desired(after, POLL)) => answer,
            };
            match answer {
                Ok(Ok(Some(desired))) => {
                    backoff.reset();
                    after = desired.revision;
                    self.take(desired).await;
                }
                Ok(Ok(None)) => backoff.reset(),
                Ok(Err(error)) => {
                    self.heed(&error);
                    debug!(%error, "the desired state is asked for again");
                    sleep(backoff.pause()).await;
                }
                Err(_elapsed) => debug!("a long-poll was not answered in time"),
            }
        }
    }

    async fn take(&self, desired: Desired) {
        let before = self.known.borrow().clone();
        let known = match before.accept(desired, &self.identity.ca, self.identity.joined.cluster) {
            Ok(known) => Arc::new(known),
            Err(refusal) => {
                error!(%refusal, "the controller's answer is not accepted; the node goes on with the last desired state");
                return sleep(REFUSED_PAUSE).await;
            }
        };
        let (file, stored) = (self.desired_file.clone(), known.clone());
        let kept = tokio::task::spawn_blocking(move || file.store(&stored)).await;
        if let Ok(Err(error)) = kept {
            // Working on is safe, because the disks keep their own generations durably.
            warn!(%error, "the desired state could not be stored; after a restart without controller the node is behind");
        }
        if let Some(membership) = &known.membership {
            self.pool.set_membership(membership.clone());
        }
        debug!(
            revision = known.desired.revision,
            assignments = known.desired.assignments.len(),
            cuts = known.desired.cuts.len(),
            "desired state taken"
        );
        self.known.send_replace(known);
    }
}
