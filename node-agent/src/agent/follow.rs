//! Follows the desired state: one long-poll after the other, each answer accepted by rule, stored and handed on.

use std::{io, sync::Arc, time::Duration};

use muster_api::node_protocol::Desired;
use storage_core::Backoff;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::loops::Loops;
use crate::latest::Latest as _;

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
                    let revision = desired.revision;
                    after = if self.take(desired).await { revision } else { 0 };
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

    /// Works with an answer from now on. False if it is to be asked for again: it could not be stored.
    async fn take(&self, desired: Desired) -> bool {
        let before = self.known.latest();
        let known = match before.accept(desired, &self.identity.ca, self.identity.joined.cluster) {
            Ok(known) => known,
            Err(refusal) => {
                error!(%refusal, "the controller's answer is not accepted; the node goes on with the last desired state");
                sleep(REFUSED_PAUSE).await;
                return true;
            }
        };
        let (file, stored) = (self.desired_file.clone(), known.clone());
        let kept = tokio::task::spawn_blocking(move || file.store(&stored)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        let is_stored = kept.is_ok();
        let known = match kept {
            Ok(()) => known,
            Err(error) => {
                // Working on is safe, because the disks keep their own generations durably.
                warn!(
                    %error,
                    "the desired state could not be stored and is stored again later; until then no further disk is taken from \
                     a guest, and after a restart without controller the node is behind"
                );
                known.not_stored(&before)
            }
        };
        if let Some(membership) = &known.membership {
            if known.desired.incarnation == before.desired.incarnation {
                self.pool.set_membership(membership.clone());
            } else {
                self.pool.begin_history(membership.clone());
            }
        }
        debug!(
            revision = known.desired.revision,
            assignments = known.desired.assignments.len(),
            cuts = known.desired.cuts.len(),
            "desired state taken"
        );
        self.known.send_replace(Arc::new(known));
        if !is_stored {
            sleep(REFUSED_PAUSE).await;
        }
        is_stored
    }
}
