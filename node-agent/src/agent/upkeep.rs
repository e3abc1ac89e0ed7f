//! Slow loops: the renewal of the certificate, losses of the pool, its scrub, its repair, and its sweep; the room on the disk,
//! and whether it works.

use std::time::Duration;

use metrics::counter;
use muster_api::node_protocol::HEARTBEAT_S;
use storage_core::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::loops::Loops;
use crate::telemetry;

/// Time between two looks at how long the certificate is still valid.
const RENEWAL_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks for losses of the pool. The next heartbeat tells of them.
const LOSSES_EVERY: Duration = Duration::from_secs(HEARTBEAT_S);
/// Time between two looks at the free space.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// Time between two looks whether the disk works.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Time between two tries to read copies that the disk did not read.
const READ_AGAIN_EVERY: Duration = Duration::from_secs(60);

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

    /// Gives the repository what it should have.
    pub(super) async fn keep_repository(&self) {
        self.keeper.run().await;
    }

    /// Learns of the repository and of new keys for it.
    pub(super) async fn follow_repository(&self) {
        self.keeper.follow().await;
    }

    pub(super) async fn sweeps(&self) {
        self.sweeper.run().await;
    }

    /// Reads and hashes the pool in the background, so that rot is found while other copies are good (I4).
    pub(super) async fn pool_scrub(&self) {
        self.scrubber.run().await;
    }

    /// Has the cache give way as soon as the disk fills up, whoever fills it.
    pub(super) async fn room(&self) {
        loop {
            sleep(ROOM_EVERY).await;
            let disk = self.disk.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || disk.hold_room()).await {
                warn!(%error, "no room could be held for removals; it is tried again");
            }
            let (_, space) = self.disk.room();
            let lacking = self.disk.reserves().cache_bytes().saturating_sub(space.free_bytes);
            // A file system that cannot be asked tells nothing.
            if lacking == 0 || space.total_bytes == 0 || self.host.cache_bytes() == 0 {
                continue;
            }
            let host = self.host.clone();
            match tokio::task::spawn_blocking(move || host.shrink_cache(lacking)).await {
                Ok(given) => counter!(telemetry::CACHE_GIVEN_BACK_BYTES).increment(given),
                Err(error) => warn!(%error, "the cache could not give way; it is tried again"),
            }
        }
    }

    /// Looks whether the disk works, and reads copies again that it did not read.
    pub(super) async fn disk_watch(&self) {
        let mut read_again_at = Instant::now();
        loop {
            let (share, disk) = (self.share.clone(), self.disk.clone());
            let is_due = Instant::now() >= read_again_at;
            let looked = tokio::task::spawn_blocking(move || {
                disk.probe();
                if is_due {
                    share.read_again();
                }
                share.judge_disk();
            });
            if let Err(error) = looked.await {
                warn!(%error, "the look whether the disk works failed; it is tried again");
            }
            if is_due {
                read_again_at = Instant::now() + READ_AGAIN_EVERY;
            }
            sleep(PROBE_EVERY).await;
        }
    }
}
