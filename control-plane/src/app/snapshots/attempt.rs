//! The attempts of a snapshot under way: each has its own coordinator and its own time; after the last one it is given
//! up.

use std::collections::BTreeSet;

use muster_api::{
    ErrorCode, NodeId, Problem, Reason, SnapshotId,
    node::NodeState,
    snapshot::{Consistency, SnapshotState},
};

use super::{
    super::{AppError, StoreError},
    event,
};
use crate::{
    domain::snapshot::{CUT_MS, FREEZE_MS, coordinator},
    store::{
        Tx, events, nodes,
        operations::{self, Outcome},
        snapshots::{self, MemberRow, SnapshotRow},
        uploads, versions,
    },
    wake::Loop,
};

/// Begins the next attempt: another node coordinates it, and its time begins. The caller saves the row.
pub(crate) async fn next_attempt(tx: &mut Tx, row: &mut SnapshotRow, members: &[MemberRow]) -> Result<(), AppError> {
    row.attempt += 1;
    let mut heard = Vec::new();
    for node in nodes_of(members) {
        let ready = nodes::load(tx, node).await?.is_some_and(|row| row.state == NodeState::Ready);
        heard.push((node, ready));
    }
    row.state = SnapshotState::Cutting;
    row.coordinator = coordinator(&heard, row.attempt);
    let freeze_ms = if row.consistency == Consistency::Filesystem { FREEZE_MS } else { 0 };
    row.attempt_until = Some(tx.now().plus_ms(CUT_MS + freeze_ms + row.max_pause_ms.cast_signed()));
    (row.refused, row.refused_detail) = (None, None);
    Ok(())
}

/// Tells the nodes that have members to look at their desired state.
pub(crate) async fn tell_nodes(tx: &mut Tx, members: &[MemberRow]) -> Result<(), StoreError> {
    for node in nodes_of(members) {
        tx.bump_desired(node);
    }
    Ok(())
}

fn nodes_of(members: &[MemberRow]) -> BTreeSet<NodeId> {
    members.iter().map(|member| member.node).collect()
}

/// Gives up a snapshot under way. Nothing is published; the blocks that its members wrote belong to their next commit.
pub(crate) async fn give_up(
    tx: &mut Tx,
    row: &mut SnapshotRow,
    reason: Reason,
    detail: &str,
    outcome: Outcome,
) -> Result<(), AppError> {
    let members = snapshots::members(tx, row.id).await?;
    row.state = SnapshotState::Failed;
    row.reason = Some(reason.clone());
    (row.coordinator, row.attempt_until) = (None, None);
    if let Some(upload) = row.upload {
        uploads::end(tx, upload).await?;
    }
    snapshots::save(tx, row).await?;
    tracing::warn!(snapshot.id = %row.id, %reason, "snapshot {} is given up: {detail}", row.name);
    events::append(tx, event(row, "muster")).await?;
    operations::finish(tx, row.operation, outcome).await?;
    tell_nodes(tx, &members).await?;
    tx.wake(Loop::Disks);
    tx.wake(Loop::Restores);
    if row.scheduled {
        tx.wake(Loop::Protection);
    }
    Ok(())
}

/// Unlinks a snapshot that the controller took for itself, but not the versions of disks that are detached or being detached.
/// One under way is given up first.
pub(crate) async fn discard(tx: &mut Tx, id: SnapshotId) -> Result<(), AppError> {
    versions::unlink_unneeded(tx, id).await?;
    let Some(mut row) = snapshots::load(tx, id).await? else { return Ok(()) };
    if row.is_under_way() {
        let why = "it is not needed any more";
        give_up(tx, &mut row, Reason::Cancelled, why, Outcome::Cancelled(None)).await?;
        row.revision += 1;
    }
    if row.state != SnapshotState::Deleted {
        row.state = SnapshotState::Deleted;
        snapshots::save(tx, &row).await?;
        events::append(tx, event(&row, "muster")).await?;
    }
    Ok(())
}

/// The outcome of an operation whose snapshot failed.
pub(crate) fn failed(reason: &Reason, detail: &str) -> Outcome {
    Outcome::Failed(
        Problem::new(ErrorCode::Unavailable, format!("nothing was published: {detail}"))
            .with("reason", reason.as_str()),
    )
}
