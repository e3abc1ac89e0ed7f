//! Cuts and commits as nodes report them: how a cut went, that a commit is durable; and what became of a commit.

use std::time::Duration;

use muster_api::{
    CommitId, ErrorCode, NodeId, Reason, SnapshotId, Timestamp,
    node_protocol::{CommitOutcome, CommitTrouble, CutMember, CutReport, CutResult, StagedCommit},
    snapshot::{Consistency, SnapshotState},
};

use super::{App, AppError, snapshots as app_snapshots};
use crate::{
    domain::{
        disk::{Place, Refusal},
        disk_life::check_version,
        snapshot::BACKOFF_MS,
        versions::Content,
    },
    store::{
        Tx,
        instances::{self, DiskRow},
        snapshots::{self, MemberRow, SnapshotRow},
        uploads, versions,
    },
    wake::Loop,
};

/// Most characters of the trouble of a node that are kept.
const TROUBLE_CHARS_MAX: usize = 1000;

impl App {
    /// The coordinator tells how the cut went. A report of an older attempt, or of a snapshot that has ended, changes
    /// nothing.
    pub async fn cut_report(&self, node: NodeId, id: SnapshotId, report: &CutReport) -> Result<(), AppError> {
        self.store
            .run_tx("snapshots.cut_report", async |tx| {
                let Some(row) = snapshots::load(tx, id).await? else {
                    return Err(AppError::not_found("snapshot", id));
                };
                let current = row.state == SnapshotState::Cutting
                    && row.attempt == u64::from(report.attempt)
                    && row.refused.is_none();
                if !current {
                    return Ok(());
                }
                if row.coordinator != Some(node) {
                    return Err(AppError::Forbidden("another node coordinates this cut".to_owned()));
                }
                match &report.outcome {
                    CutResult::Flipped { frozen: false, .. } if row.consistency == Consistency::Filesystem => {
                        let detail =
                            "the agent of the node that coordinated is too old to freeze file systems: update it";
                        refused(tx, row, Reason::FreezeFailed, detail).await?;
                    }
                    CutResult::Flipped { cut_at, members, .. } => flipped(tx, row, *cut_at, members).await?,
                    CutResult::Failed { reason, detail } => {
                        self.look_again(BACKOFF_MS);
                        refused(tx, row, reason.clone(), detail).await?;
                    }
                }
                tx.wake(Loop::Snapshots);
                Ok(())
            })
            .await
    }

    /// Wakes the snapshots loop after a while. If that fails, the loop looks at the end of its period anyway.
    fn look_again(&self, after_ms: i64) {
        let (wakes, after) = (self.store.wakes().clone(), Duration::from_millis(after_ms.unsigned_abs()));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            wakes.reconcile(Loop::Snapshots);
        });
    }

    /// A node tells that a commit is durable. A repeated call changes nothing; the commit that completes a snapshot
    /// publishes it.
    pub async fn stage_commit(
        &self,
        node: NodeId,
        commit: CommitId,
        staged: &StagedCommit,
    ) -> Result<CommitOutcome, AppError> {
        let content = Content::from_root(&staged.root)
            .map_err(|error| AppError::invalid("/root", "invalid", error.to_string()))?;
        self.store
            .run_tx("commits.stage", async |tx| {
                let (member, mut row) = match under_way(tx, node, commit).await? {
                    Ok(found) => found,
                    Err(outcome) => return Ok(outcome),
                };
                if member.disk != staged.disk || member.snapshot != staged.snapshot {
                    return Err(AppError::invalid("/disk", "invalid", "the commit is of another disk"));
                }
                let (place, disk) = place(tx, &member, &row).await?;
                match place.takes(node, commit, staged) {
                    Ok(()) => {}
                    Err(Refusal::Abandoned) => return Ok(CommitOutcome::Abandoned),
                    Err(refusal @ Refusal::NotYours) => return Err(AppError::Forbidden(refusal.to_string())),
                    Err(refusal) => return Err(AppError::code(ErrorCode::Stale, refusal.to_string())),
                }
                check_size(tx, &disk, content.size_bytes()).await?;
                if row.upload != Some(staged.upload) || uploads::live(tx, staged.upload).await?.is_none() {
                    return Err(AppError::code(ErrorCode::Stale, "its upload is not live any more"));
                }
                let (done, all) = snapshots::staged(tx, row.id).await?;
                let others = done - u64::from(member.staged.is_some());
                if row.state == SnapshotState::Saving && others + 1 == all {
                    snapshots::stage(tx, staged, false).await?;
                    app_snapshots::publish(tx, &mut row, Some(staged)).await?;
                } else {
                    snapshots::stage(tx, staged, true).await?;
                    tx.wake(Loop::Snapshots);
                }
                outcome(tx, commit).await
            })
            .await
    }

    /// A node tells why it cannot save or stage a commit. The operation shows it; the snapshot fails at once if trying
    /// again cannot help.
    pub async fn commit_trouble(
        &self,
        node: NodeId,
        commit: CommitId,
        trouble: &CommitTrouble,
    ) -> Result<CommitOutcome, AppError> {
        self.store
            .run_tx("commits.trouble", async |tx| {
                let (member, mut row) = match under_way(tx, node, commit).await? {
                    Ok(found) => found,
                    Err(outcome) => return Ok(outcome),
                };
                let CommitTrouble { reason, detail, hopeless } = trouble;
                let detail: String = detail.chars().take(TROUBLE_CHARS_MAX).collect();
                if *hopeless {
                    let detail = format!("{}: {detail}", member.instance_name);
                    let outcome = app_snapshots::failed(reason, &detail);
                    app_snapshots::give_up(tx, &mut row, reason.clone(), &detail, outcome).await?;
                } else {
                    snapshots::save_trouble(tx, &member, &format!("{detail} ({reason})")).await?;
                    tx.wake(Loop::Snapshots);
                }
                outcome(tx, commit).await
            })
            .await
    }

    /// What became of a commit, for a node that was away.
    pub async fn commit_outcome(&self, node: NodeId, commit: CommitId) -> Result<CommitOutcome, AppError> {
        self.store
            .read("commits.outcome", async |tx| {
                if let Some(member) = snapshots::member_by_commit(tx, commit).await?
                    && member.node != node
                {
                    return Err(AppError::not_found("commit", commit));
                }
                outcome(tx, commit).await
            })
            .await
    }
}

/// Saves that the present attempt failed. The order is withdrawn until the next one, so members that flipped abandon the
/// cut.
async fn refused(tx: &mut Tx, mut row: SnapshotRow, reason: Reason, detail: &str) -> Result<(), AppError> {
    row.refused = Some(reason);
    row.refused_detail = Some(detail.to_owned());
    row.attempt_until = Some(tx.now().plus_ms(BACKOFF_MS));
    snapshots::save(tx, &row).await?;
    let known = snapshots::members(tx, row.id).await?;
    Ok(app_snapshots::tell_nodes(tx, &known).await?)
}

/// Saves a cut in which all members flipped. The snapshot is published if all of them are staged already.
async fn flipped(tx: &mut Tx, mut row: SnapshotRow, cut_at: Timestamp, members: &[CutMember]) -> Result<(), AppError> {
    let known = snapshots::members(tx, row.id).await?;
    let all = known.iter().all(|member| members.iter().any(|m| m.disk == member.disk));
    if !all || members.len() != known.len() {
        let detail = format!("{} disks flipped, {} are in the snapshot", members.len(), known.len());
        return Err(AppError::invalid("/outcome/flipped/members", "invalid", detail));
    }
    snapshots::save_cut(tx, row.id, members).await?;
    row.state = SnapshotState::Saving;
    row.cut_at = Some(cut_at);
    row.pause_max_us = members.iter().map(|member| member.pause_us).max();
    row.dirty_bytes = members.iter().map(|member| member.dirty_bytes).sum();
    row.attempt_until = None;
    snapshots::save(tx, &row).await?;
    row.revision += 1;
    if known.iter().all(|member| member.staged.is_some()) {
        app_snapshots::publish(tx, &mut row, None).await
    } else {
        Ok(app_snapshots::tell_nodes(tx, &known).await?)
    }
}

/// The member and snapshot that a commit is under way for, or what became of the commit.
async fn under_way(
    tx: &mut Tx,
    node: NodeId,
    commit: CommitId,
) -> Result<Result<(MemberRow, SnapshotRow), CommitOutcome>, AppError> {
    let Some(member) = snapshots::member_by_commit(tx, commit).await? else {
        return Ok(Err(outcome(tx, commit).await?));
    };
    if member.node != node {
        return Err(AppError::not_found("commit", commit));
    }
    let Some(row) = snapshots::load(tx, member.snapshot).await? else { return Ok(Err(CommitOutcome::Abandoned)) };
    if row.takes_commits() {
        return Ok(Ok((member, row)));
    }
    Ok(Err(outcome(tx, commit).await?))
}

async fn outcome(tx: &mut Tx, commit: CommitId) -> Result<CommitOutcome, AppError> {
    // A published version stays the answer, also when the snapshot has been unlinked since.
    if let Some(version) = versions::by_commit(tx, commit).await? {
        return Ok(CommitOutcome::Published { version });
    }
    let Some(member) = snapshots::member_by_commit(tx, commit).await? else { return Ok(CommitOutcome::Abandoned) };
    let row = snapshots::load(tx, member.snapshot).await?;
    let pending = row.is_some_and(|row| row.takes_commits());
    Ok(if pending { CommitOutcome::Pending } else { CommitOutcome::Abandoned })
}

/// Refuses a version whose size the disk cannot have had at the cut.
async fn check_size(tx: &mut Tx, disk: &DiskRow, size_bytes: u64) -> Result<(), AppError> {
    let head = versions::size_bytes(tx, disk.version).await?.unwrap_or(0);
    match check_version(head, disk.size_bytes, size_bytes) {
        None => Ok(()),
        Some(detail) => Err(AppError::invalid("/root/descriptor", "invalid", detail)),
    }
}

async fn place(tx: &mut Tx, member: &MemberRow, row: &SnapshotRow) -> Result<(Place, DiskRow), AppError> {
    let instance = instances::load(tx, member.instance).await?;
    let disk = instances::disks_of(tx, &[member.instance])
        .await?
        .remove(&member.instance)
        .unwrap_or_default()
        .into_iter()
        .find(|disk| disk.id == member.disk);
    let (Some(instance), Some(disk)) = (instance, disk) else {
        return Err(AppError::not_found("disk", member.disk));
    };
    let place = Place {
        node: instance.life.node,
        generation: instance.life.generation,
        head: disk.version,
        commit: member.commit,
        attempt: row.attempt,
    };
    Ok((place, disk))
}
