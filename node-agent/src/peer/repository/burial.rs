//! Deleting in the repository what nothing needs any more.
//!
//! ```text
//! round s    the controller tells that nothing needs an object         --> noted as dying, by its keeper only
//! round > s  this node does not have it, the controller says once more that nothing needs it, and no node that should have it
//!            has it or is silent                                       --> deleted
//! ```
//! Why nothing that is needed is lost:
//! 1. What a published version needs was reached in the newest round, or was put or touched by an upload that is younger than
//!    the round before it. The stamps keep the latter on the nodes that have it (I6), so the pool has every such object.
//! 2. An object that goes from the repository and is needed all the same was touched after it was judged, on a node that
//!    should not have it, because those that should were silent then. That node has it still, and finds in its next pass
//!    that it is the uploader now and that the repository lacks the object.
//! 3. A deletion is asked for only while the controller answers for the round, and only after the newest membership record
//!    has been known for longer than any older keeper may take to end what it began. An object that is put while it is
//!    deleted here waits for its turn to be written. One that a new keeper wrote meanwhile is asked for again (`mod.rs`).
//! 4. A deletion ends soon after it was decided, or does not happen. Copies are only given up of what no such deletion can be
//!    meant for (`evict.rs`). A name of a copy that was given up protects nothing in the repository.
//! 5. The index forgets the object durably before the repository is asked to delete it.
//!
//! A node that missed rounds does not know their dead. What stays in the repository because of that is found by the listing.

use std::sync::Arc;

use storage_core::{ObjectName, store::ChunkStore as _};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::{CALL, Index, Keeper, KeeperError, blocking, lock};

/// Objects that are judged and deleted together: as many as one request to the repository deletes.
const BATCH: usize = 1000;

/// Longest time from the judgement of objects to the end of their deletion. It is shorter than [`super::KeeperWaits::settled`], so
/// that no deletion is under way that was decided before an upload which is over. It also bounds how long the sweep waits for writes.
pub(super) const WITHIN: Duration = Duration::from_secs(120);

/// Objects that can be deleted if nothing needs them now.
#[derive(Debug, Default)]
pub struct Due {
    /// Their names, in order.
    pub names: Vec<ObjectName>,
    /// The object after which the next ones follow; none at the end.
    pub after: Option<ObjectName>,
}

impl Keeper {
    /// The sweep heard in a round of this history that nothing needs these objects.
    pub async fn unneeded(&self, history: &str, round: u64, names: &[ObjectName]) {
        {
            // What nothing needs is no loss.
            let mut state = lock(&self.state);
            names.iter().for_each(|name| state.lost.is_good(name));
        }
        let Some(index) = self.open_index().await else { return };
        let (mut kept, mut others) = (Vec::new(), Vec::new());
        for (name, keeps) in names.iter().zip(self.pool.keeps(names)) {
            if keeps { kept.push(*name) } else { others.push(*name) }
        }
        let history = history.to_owned();
        let noted = blocking(move || {
            index.not_evicted(&kept)?;
            index.unneeded(&others)?;
            index.dying(&history, round, &kept)
        });
        if let Err(error) = noted.await {
            warn!(%error, "unneeded objects stay in the repository until its next listing");
        }
    }

    /// The next objects that nothing needed in an earlier round of this history and that this node does not have.
    pub async fn due(&self, history: &str, round: u64, after: Option<ObjectName>) -> Due {
        if !self.is_settled() {
            return Due::default();
        }
        let Some(index) = self.open_index().await else { return Due::default() };
        let (share, history, asked) = (self.share.clone(), history.to_owned(), index.clone());
        let due = blocking(move || -> Result<Due, KeeperError> {
            let (due, after) = asked.due(&history, round, after, BATCH)?;
            let (mut names, mut here) = (Vec::new(), Vec::new());
            for name in due {
                if share.find(&name)?.is_some() { here.push(name) } else { names.push(name) }
            }
            // The sweep tells again when it drops them here.
            asked.not_dying(&here)?;
            Ok(Due { names, after })
        });
        due.await.unwrap_or_else(|error| {
            warn!(%error, "what is to be deleted in the repository cannot be found out");
            Due::default()
        })
    }

    /// Deletes in the repository those of the objects that are due of which the controller has said that nothing needs them. It was
    /// asked at `judged` or later. The answer is whether to go on.
    pub async fn bury(&self, round: u64, due: &[ObjectName], unneeded: &[ObjectName], judged: Instant) -> bool {
        let Some(index) = self.open_index().await else { return false };
        let until = judged + WITHIN;
        let buried = timeout_at(until, self.bury_now(&index, round, due, unneeded, until)).await;
        match buried.unwrap_or(Err(KeeperError::Late)) {
            Ok(deleted) => {
                lock(&self.state).burial_trouble = None;
                if deleted > 0 {
                    info!(round, objects = deleted, "deleted objects in the repository that nothing needs");
                }
                true
            }
            Err(error) => {
                debug!(%error, "unneeded objects stay in the repository for now");
                lock(&self.state).burial_trouble = Some(format!("unneeded objects cannot be deleted: {error}"));
                false
            }
        }
    }

    async fn bury_now(
        &self,
        index: &Arc<Index>,
        round: u64,
        due: &[ObjectName],
        unneeded: &[ObjectName],
        until: Instant,
    ) -> Result<usize, KeeperError> {
        let Some(repository) = &self.pool.repository() else { return Ok(0) };
        let keeps = self.pool.keeps(unneeded);
        let kept: Vec<ObjectName> =
            unneeded.iter().zip(keeps).filter(|(_, keeps)| *keeps).map(|(name, _)| *name).collect();
        let held = self.pool.may_be_held(&kept).await;
        let (mut gone, mut later) = (Vec::new(), Vec::new());
        for (name, held) in kept.iter().zip(held) {
            if held { later.push(*name) } else { gone.push(*name) }
        }
        let needed: Vec<ObjectName> = due.iter().copied().filter(|name| !kept.contains(name)).collect();
        let (share, asked) = (self.share.clone(), index.clone());
        let _turn = self.turn(repository).await?;
        // It may have come back while nodes were asked. What comes from now on is written after the deletion.
        let gone = blocking(move || -> Result<Vec<ObjectName>, KeeperError> {
            asked.not_dying(&needed)?;
            asked.postpone(round, &later)?;
            let mut still = Vec::new();
            for name in gone {
                if share.find(&name)?.is_none() {
                    still.push(name);
                }
            }
            asked.forget(&still)?;
            Ok(still)
        })
        .await?;
        if gone.is_empty() {
            return Ok(0);
        }
        repository.delete(&gone, until.min(Instant::now() + CALL)).await?;
        let (done, count) = (index.clone(), gone.len());
        blocking(move || done.not_dying(&gone)).await?;
        Ok(count)
    }

    /// The index, if there is a repository.
    pub(super) async fn open_index(&self) -> Option<Arc<Index>> {
        let repository = self.pool.repository()?;
        match timeout(CALL, self.index(&repository)).await {
            Ok(Ok(index)) => Some(index),
            Ok(Err(error)) => {
                warn!(%error, "the index of the repository cannot be opened");
                None
            }
            Err(_elapsed) => None,
        }
    }
}
