//! What becomes of a frozen epoch: its objects are saved, its commit is staged, and the controller publishes or abandons
//! it together with its snapshot.

use std::sync::Arc;

use muster_api::{
    CommitId, DiskId, ErrorCode, Reason,
    node_protocol::{CommitOutcome, CommitTrouble, CutDisk, CutOrder, StagedCommit},
};
use storage_core::{Backoff, cause::explain};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{Cuts, RETRY_FIRST, RETRY_MOST};
use crate::{
    controller::ControllerError,
    desired::Known,
    latest::latest_seen,
    mirror::{DiskError, Saved},
};

impl Cuts {
    /// Works on one frozen commit until it is published or abandoned. It has no limit of its own: the controller
    /// decides, and its snapshot has a deadline.
    pub(super) async fn settle(&self, disk: DiskId, commit: CommitId) {
        let mut known = self.parts.known.clone();
        let mut saved: Option<Saved> = None;
        let mut told: Option<CommitTrouble> = None;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        loop {
            let now = latest_seen(&mut known);
            let ordered = ordered(&now, disk, commit);
            let outcome = match ordered {
                Some((order, wanted)) => match self.save_and_stage(&order, &wanted, &mut saved).await {
                    Ok(outcome) => outcome,
                    Err(trouble) => self.tell(&wanted, trouble, &mut told).await,
                },
                None => self.outcome(commit).await,
            };
            match outcome {
                Some(CommitOutcome::Published { version }) => {
                    info!(disk.id = %disk, commit.id = %commit, version.id = %version, "a commit was published");
                    return;
                }
                Some(CommitOutcome::Abandoned) => match self.parts.disks.abandon(disk, commit).await {
                    Ok(()) => {
                        info!(disk.id = %disk, commit.id = %commit, "a commit was given up; the next one has its blocks");
                        return;
                    }
                    Err(error) if is_gone(&error) => return,
                    Err(error) => {
                        let error = explain(&error);
                        warn!(disk.id = %disk, commit.id = %commit, error, "a commit cannot be given up yet");
                    }
                },
                Some(CommitOutcome::Pending) | None => {}
            }
            // The end of a snapshot changes the desired state, and then the outcome is known.
            let _changed_or_time = timeout(backoff.pause(), known.changed()).await;
        }
    }

    /// Saves and stages a commit as far as that is possible now. Returns its outcome; `None` when the controller cannot be
    /// asked. Fails with what keeps the commit from being saved or staged.
    async fn save_and_stage(
        &self,
        order: &CutOrder,
        wanted: &CutDisk,
        saved: &mut Option<Saved>,
    ) -> Result<Option<CommitOutcome>, CommitTrouble> {
        let commit = wanted.commit;
        if saved.is_none() {
            // It may be published or abandoned already, when the agent was restarted: asked before anything is done.
            match self.outcome(commit).await {
                Some(CommitOutcome::Pending) => {}
                other => return Ok(other),
            }
            let saving = tokio::select! {
                saving = self.save(order, wanted) => saving,
                // It was given up. A slow save would go on for long, and keep the next ones waiting.
                () = self.no_longer_ordered(wanted) => return Ok(self.outcome(commit).await),
            };
            match saving {
                Ok(done) => *saved = Some(done),
                // Given up here already: the cut was aborted after this disk had flipped.
                Err(error) if is_gone(&error) => return Ok(Some(CommitOutcome::Abandoned)),
                Err(error) => {
                    let (reason, hopeless) = (error.reason(), is_hopeless(&error));
                    return Err(CommitTrouble { reason, detail: explain(&error), hopeless });
                }
            }
        }
        let Some(done) = saved.clone() else { return Ok(None) };
        match self.parts.controller.stage(commit, staged(order, wanted, done)).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(ControllerError::Refused(problem)) => {
                // The code `stale` may mean that an earlier snapshot of the disk was published, so this commit has another
                // base now. The next try saves it on that base. Any other refusal would be repeated.
                *saved = None;
                let hopeless = problem.code != ErrorCode::Stale && problem.status < 500;
                let detail = format!("the controller refused its commit: {problem}");
                Err(CommitTrouble { reason: Reason::Invalid, detail, hopeless })
            }
            Err(error) => {
                debug!(commit.id = %commit, %error, "a commit is staged again");
                Ok(None)
            }
        }
    }

    /// Tells the controller what keeps a commit, once for each trouble. Returns the outcome if it was told.
    async fn tell(
        &self,
        wanted: &CutDisk,
        trouble: CommitTrouble,
        told: &mut Option<CommitTrouble>,
    ) -> Option<CommitOutcome> {
        let commit = wanted.commit;
        if told.as_ref() == Some(&trouble) {
            return None;
        }
        warn!(disk.id = %wanted.disk, commit.id = %commit, reason = %trouble.reason, "a commit is not saved: {}", trouble.detail);
        match self.parts.controller.commit_trouble(commit, trouble.clone()).await {
            Ok(outcome) => {
                *told = Some(trouble);
                Some(outcome)
            }
            Err(error) => {
                debug!(commit.id = %commit, %error, "the trouble of a commit is told again");
                None
            }
        }
    }

    async fn save(&self, order: &CutOrder, wanted: &CutDisk) -> Result<Saved, DiskError> {
        // What nobody waits for has its own turns, also when it is to be fast (I11).
        let is_own = !order.background && !order.scheduled;
        let (disks, turns) = (&self.parts.disks, if is_own { &self.saves } else { &self.background_saves });
        let _turn = turns.acquire().await.expect("the semaphore is never closed");
        if order.background {
            disks.save_slowly(wanted.disk, wanted.commit, order.round).await
        } else {
            disks.save(wanted.disk, wanted.commit, order.round).await
        }
    }

    /// Returns when the desired state does not have the order for this commit any more.
    async fn no_longer_ordered(&self, wanted: &CutDisk) {
        let mut known = self.parts.known.clone();
        // The end of the agent ends whoever waits here.
        let gone = |known: &Arc<Known>| ordered(known, wanted.disk, wanted.commit).is_none();
        if known.wait_for(gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the controller says became of a commit; none when it cannot be asked now.
    async fn outcome(&self, commit: CommitId) -> Option<CommitOutcome> {
        match self.parts.controller.outcome(commit).await {
            Ok(outcome) => Some(outcome),
            // A controller that has never heard of the commit will not publish it. Nothing is lost: its blocks stay dirty.
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Some(CommitOutcome::Abandoned),
            Err(error) => {
                debug!(commit.id = %commit, %error, "the outcome of a commit is asked again");
                None
            }
        }
    }
}

/// The order that wants this commit of this disk.
fn ordered(known: &Known, disk: DiskId, commit: CommitId) -> Option<(CutOrder, CutDisk)> {
    known.desired.cuts.iter().find_map(|order| {
        let wanted = order.disks.iter().find(|d| d.disk == disk && d.commit == commit)?;
        Some((order.clone(), wanted.clone()))
    })
}

/// Whether this node has no such commit and never will have it.
fn is_gone(error: &DiskError) -> bool {
    matches!(error, DiskError::NoCommit { .. } | DiskError::NotFound(_))
}

/// Whether saving again cannot help: the disk has lost what the version needs, or the version itself is not possible.
const fn is_hopeless(error: &DiskError) -> bool {
    matches!(error, DiskError::Failed { .. } | DiskError::Corrupt { .. } | DiskError::Invalid { .. })
}

fn staged(order: &CutOrder, wanted: &CutDisk, saved: Saved) -> StagedCommit {
    let Saved { base, root, dirty_bytes, stored_bytes } = saved;
    StagedCommit {
        snapshot: order.snapshot,
        attempt: order.attempt,
        disk: wanted.disk,
        generation: wanted.generation,
        base,
        upload: order.upload,
        root,
        dirty_bytes,
        stored_bytes,
    }
}
