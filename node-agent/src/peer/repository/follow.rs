//! How this node learns of the repository, and of new keys for it.

use std::sync::Arc;

use muster_api::node_protocol::repository::RepositoryOrder;
use tokio::time::sleep;

use super::{Backoff, Evicting, Instant, Keeper, Lost, NO_REPOSITORY, PAUSE, Repository, info, lock, lost, warn};
use crate::latest::{Latest as _, latest_seen};

impl Keeper {
    /// Fetches what the controller says of the repository whenever heartbeats name another revision. Never ends.
    pub async fn follow(&self) {
        let mut named = self.named.subscribe();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            let wanted = latest_seen(&mut named);
            if wanted.is_some() && wanted != self.used.latest() {
                match self.controller.repository().await {
                    Ok(order) => {
                        backoff.reset();
                        self.take_order(order).await;
                        continue;
                    }
                    Err(error) => {
                        warn!(%error, "the controller named another state of the repository and did not tell it");
                        tokio::select! { () = sleep(backoff.pause()) => {}, _ = named.changed() => {} }
                        continue;
                    }
                }
            }
            // `self` has the sender.
            if named.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn take_order(&self, order: RepositoryOrder) {
        let (file, stored) = (self.order.clone(), order.clone());
        let stored = super::blocking(move || file.store(&stored)).await;
        if let Err(error) = stored {
            warn!(%error, "the order about the repository could not be written; a start without a controller does not know it");
        }
        // Nothing is written or deleted under the old settings any more.
        let _writes = self.writes.lock().await;
        self.use_order(order);
    }

    /// Works with these settings from now on.
    pub(super) fn use_order(&self, order: RepositoryOrder) {
        let RepositoryOrder { revision, settings } = order;
        let before = self.pool.repository();
        let opened = settings.map(Repository::open).transpose();
        let repository = match opened {
            Ok(repository) => repository.map(Arc::new),
            Err(error) => {
                warn!(%error, "the repository of the controller's order cannot be used; the one before stays");
                self.used.send_replace(Some(revision));
                return;
            }
        };
        if let Some(repository) = &repository {
            repository.assume_claimed();
            let settings = repository.settings();
            info!(url = settings.url(), write = settings.write.as_str(), "the pool has a repository");
        } else if before.is_some() || revision != NO_REPOSITORY {
            info!("the pool has no repository");
        }
        let stays = match (&before, &repository) {
            (Some(before), Some(now)) => before.settings().is_same_place(now.settings()),
            _ => false,
        };
        let is_some = repository.is_some();
        // Taken before the settings change: from then on the index of the new place is opened, in the same file.
        let known = if stays { None } else { lock(&self.index).take() };
        self.pool.set_repository(repository);
        {
            let mut state = lock(&self.state);
            if let Some(before) = &before {
                state.before = state.before.plus(before.counts());
            }
            if !stays {
                state.waiting.clear();
                state.later.clear();
                state.again.clear();
                state.listing = None;
                (state.evicting, state.lost) =
                    (Evicting::new(Instant::now()), Lost::new(Instant::now(), self.waits.look_every));
                // What only the place before had may be lost.
                let evicted = known.map(|index| index.evicted_after(None, lost::NAMES_MAX)).transpose();
                match evicted {
                    Ok(names) => state.lost.suspect(names.into_iter().flatten().map(|(name, _)| name)),
                    Err(error) => warn!(%error, "what was given up for the repository before is not known any more"),
                }
                state.pass = is_some.then_some((None, 0));
            }
        }
        self.share.fresh().want(is_some);
        self.used.send_replace(Some(revision));
    }
}
