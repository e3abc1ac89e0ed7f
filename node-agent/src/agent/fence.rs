//! What the agent does once its node was declared dead: it stops its guests, unmounts its disks, and saves what they hold
//! (`salvage.rs`).
//!
//! Nothing of the data folder is deleted. The process goes on, so that `muster-agent status` can say why nothing happens.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::sleep;
use tracing::{error, info};

use super::loops::{Loops, Standing};
use crate::{
    clock,
    controller::ControllerError,
    fenced,
    fenced::Fenced,
    latest::{Latest as _, latest_seen},
    mirror::is_no_space,
    telemetry,
};

/// Time between two tries to stop what did not stop.
const AGAIN: Duration = Duration::from_secs(2);

impl Loops {
    /// Looks whether an error of a call says that this node was declared dead.
    pub(super) fn heed(&self, error: &ControllerError) {
        let Some(detail) = error.fenced() else { return };
        let fenced = Arc::new(Fenced { learned_at: clock::now(), detail: detail.to_owned() });
        self.standing.send_if_modified(|standing| {
            let is_news = !matches!(standing, Standing::Fenced(_));
            if is_news {
                *standing = Standing::Fenced(fenced);
            }
            is_news
        });
    }

    /// The word that this node was declared dead, if it was.
    pub(super) fn fenced(&self) -> Option<Arc<Fenced>> {
        match self.standing.latest() {
            Standing::Fenced(fenced) => Some(fenced.clone()),
            Standing::NotAsked | Standing::Listed => None,
        }
    }

    /// Waits until this node is declared dead.
    pub(super) async fn until_fenced(&self) -> Arc<Fenced> {
        let mut standing = self.standing.subscribe();
        loop {
            if let Standing::Fenced(fenced) = latest_seen(&mut standing) {
                return fenced.clone();
            }
            if standing.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits for the word, keeps it, and cuts the guests off. Never ends.
    pub(super) async fn fence(self: &Arc<Self>) {
        let fenced = self.until_fenced().await;
        gauge!(telemetry::FENCED).set(1.0);
        error!(
            "this node was declared dead: {}. Its guests are stopped now, and nothing of {} is deleted",
            fenced.detail,
            self.config.data_dir.display()
        );
        let (disk, word) = (self.disk.clone(), fenced);
        let store = move || disk.while_full(is_no_space, || fenced::store(disk.dir(), &word));
        let kept = tokio::task::spawn_blocking(store).await;
        if !matches!(kept, Ok(Ok(()))) {
            error!(?kept, "the word could not be kept: a restart without a controller would start the guests again");
        }
        while let Err(left) = self.host.cut_off().await {
            error!("not everything is stopped and unmounted yet, which is tried again: {left}");
            sleep(AGAIN).await;
        }
        self.passed.send_modify(|passed| passed.instances = Arc::default());
        info!("all guests are off and all disks are unmounted");
        self.salvage().await;
        info!("this agent does nothing more");
        std::future::pending().await
    }
}
