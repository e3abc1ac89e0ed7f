//! Ends drains: a node that says that it is empty under the newest membership record is drained, and removed if that was
//! asked for. See `app/nodes/drain.rs`.
//!
//! A node says so only after the puts ended that it had taken before, and it takes none any more. So what it said once under
//! a record in which it owns nothing stays true under that record.
//!
//! A drain that takes longer than its operation may goes on all the same: what was handed over would only come back.

use muster_api::{
    ErrorCode, NodeId, Problem,
    node::NodeState,
    node_protocol::Heartbeat,
    operation::{Operation, OperationState, Progress, WaitingOn},
};
use serde_json::json;
use storage_core::units::usize_from;

use crate::{
    app::{
        App, AppError,
        nodes::{REMOVE, disk_failed, says_empty, state_event},
    },
    store::{
        Tx, events, instances,
        nodes::{self, NodeRow},
        operations::{self, Outcome},
    },
};

/// One look at the nodes that are drained. Returns how many it changed.
pub(super) async fn pass(app: &App, rows: &[NodeRow]) -> Result<usize, AppError> {
    let running = app.store.read("drains.running", async |tx| operations::unfinished_on(tx, "node").await).await?;
    let ends =
        |row: &NodeRow, epoch: u64| row.draining_at.is_some() && row.drained_at.is_none() && is_empty(app, row, epoch);
    let known = app.pool.membership().epoch;
    if running.is_empty() && !rows.iter().any(|row| ends(row, known)) {
        return Ok(0);
    }
    let changed = app
        .store
        .run_tx("drains.pass", async |tx| {
            let mut changed = 0;
            // Another drain may have begun meanwhile, under a newer record than this process knows.
            let newest = nodes::newest_epoch(tx).await?;
            let rows = nodes::listed(tx).await?;
            for row in rows.iter().filter(|row| ends(row, newest)) {
                let next = NodeRow { drained_at: Some(tx.now()), ..row.clone() };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, "muster")).await?;
                tracing::info!(node.id = %next.id, "node '{}' is drained: it has no objects any more", next.name);
                changed += 1;
            }
            for operation in operations::unfinished_on(tx, "node").await? {
                changed += usize::from(settle(app, tx, &operation).await?);
            }
            Ok::<_, AppError>(changed)
        })
        .await?;
    if changed > 0 {
        app.follow_membership().await?;
    }
    Ok(changed)
}

/// The newest heartbeat of the node.
fn beat(app: &App, row: &NodeRow) -> Option<Heartbeat> {
    app.heartbeats.last(row.id).map(|(_, beat)| beat)
}

fn is_empty(app: &App, row: &NodeRow, epoch: u64) -> bool {
    row.state == NodeState::Ready && beat(app, row).is_some_and(|beat| says_empty(&beat, epoch))
}

/// Tells how far an operation is, and ends it when it can. Returns whether it ended.
async fn settle(app: &App, tx: &mut Tx, operation: &Operation) -> Result<bool, AppError> {
    let row = match operation.target.id.parse::<NodeId>() {
        Ok(id) => nodes::load(tx, id).await?.filter(|row| row.state != NodeState::Deleted),
        Err(_) => None,
    };
    let Some(row) = row else {
        operations::finish(tx, operation.id, Outcome::Succeeded(None)).await?;
        return Ok(true);
    };
    if row.fenced_at.is_some() || row.draining_at.is_none() {
        let why = format!("node '{}' was declared dead, or is in again, before it was empty", row.name);
        operations::finish(tx, operation.id, Outcome::Failed(Problem::new(ErrorCode::WrongState, why))).await?;
        return Ok(true);
    }
    // One that is late is cancelled as well, a while later. That is nobody's wish.
    let is_late = operation.deadline.is_some_and(|deadline| deadline <= tx.now());
    if operation.state == OperationState::Cancelling && !is_late {
        app.end_drain(tx, row, &operation.requested_by).await?;
        return Ok(true);
    }
    let done = operation.progress.total;
    if row.drained_at.is_some() {
        let on_it = if operation.kind == REMOVE { instances::on_node(tx, row.id).await?.len() } else { 0 };
        if on_it > 0 {
            let what = format!("{on_it} instances are on it");
            if is_late {
                return end_late(tx, operation, &row, &what).await;
            }
            note(app, tx, operation, &row, "instances", done, what).await?;
            return Ok(false);
        }
        if operation.kind == REMOVE && !app.is_still_empty(tx, &row).await? {
            let what = reason(app, &row);
            if is_late {
                return end_late(tx, operation, &row, &what).await;
            }
            note(app, tx, operation, &row, "draining", app.objects_on(&row).objects, what).await?;
            return Ok(false);
        }
        if operation.kind == REMOVE {
            app.remove_row(tx, row, &operation.requested_by).await?;
        }
        operations::finish(tx, operation.id, Outcome::Succeeded(Some(json!({ "objects": done })))).await?;
        return Ok(true);
    }
    if is_late {
        return end_late(tx, operation, &row, &reason(app, &row)).await;
    }
    let left = app.objects_on(&row).objects;
    note(app, tx, operation, &row, "draining", left, reason(app, &row)).await?;
    Ok(false)
}

/// The time of the operation is over. The node stays as it is. Returns that the operation ended.
async fn end_late(tx: &mut Tx, operation: &Operation, row: &NodeRow, what: &str) -> Result<bool, AppError> {
    let why = format!(
        "the time for this is over: {what}. No objects belong on node '{}' all the same: ask again to go on, or uncordon it to \
         end that",
        row.name
    );
    operations::finish(tx, operation.id, Outcome::Failed(Problem::new(ErrorCode::Unavailable, why))).await?;
    Ok(true)
}

/// What the drain waits for, in words.
fn reason(app: &App, row: &NodeRow) -> String {
    if row.state != NodeState::Ready {
        return "its agent is silent: start it, or declare the node dead".to_owned();
    }
    if disk_failed(&row.conditions) {
        return "its disk failed, so it cannot hand its objects over: declare the node dead".to_owned();
    }
    let membership = app.pool.membership();
    let owners = membership.members.iter().filter(|member| member.owns_objects()).count();
    if owners < usize_from(membership.min_copies.into()) {
        return format!(
            "only {owners} nodes are left for the {} copies that are wanted, so it drops none of its own: add nodes, or want \
             fewer copies",
            membership.min_copies
        );
    }
    let repair = beat(app, row).and_then(|beat| beat.repair);
    match repair {
        Some(repair) if repair.unchecked_objects == 0 && repair.silent_nodes > 0 => {
            format!("{} nodes do not answer it, which are to have its objects", repair.silent_nodes)
        }
        Some(repair) if repair.unchecked_objects == 0 && repair.missing.objects > 0 => {
            format!("{} copies are missing elsewhere: nodes are full, or still get them", repair.missing.objects)
        }
        Some(repair) if repair.unchecked_objects == 0 && repair.surplus.objects == 0 && !repair.is_empty => {
            "it has copies that its disk does not read now, which may be the last ones: declare the node dead if that stays so"
                .to_owned()
        }
        _ => "other nodes take its objects over".to_owned(),
    }
}

async fn note(
    app: &App,
    tx: &mut Tx,
    operation: &Operation,
    row: &NodeRow,
    phase: &str,
    left: u64,
    what: String,
) -> Result<(), AppError> {
    let (total, left) = match phase {
        "draining" => (operation.progress.total.max(left), left),
        _ => (operation.progress.total, 0),
    };
    let progress = Progress { done: total - left, total, failed: 0, unit: "objects".to_owned() };
    let waiting =
        WaitingOn { what, node: Some(row.id), node_name: None, since: app.clock.now(), deadline: operation.deadline };
    Ok(operations::note(tx, operation, phase, &progress, &[waiting]).await?)
}
