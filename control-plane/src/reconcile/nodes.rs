//! Heartbeats reach the database, silent nodes are noticed, and the pool client follows the membership record.

use muster_api::{
    NodeId, Timestamp,
    node::NodeState,
    node_protocol::{Heartbeat, SILENT_AFTER_S},
};

use crate::{
    app::{App, AppError, nodes::state_event},
    store::{
        events,
        nodes::{self, NodeRow},
    },
    wake::{Counts, Loop},
};

/// One look at all nodes. It writes only what is due.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let now = app.clock.now();
    let due = app.heartbeats.due(now);
    if !due.is_empty() {
        flush(app, &due).await?;
    }
    let rows = app.store.read("nodes.listed", async |tx| nodes::listed(tx).await).await?;
    let silent: Vec<NodeId> = rows.iter().filter(|row| is_silent(app, row, now)).map(|row| row.id).collect();
    if !silent.is_empty() {
        silence(app, &silent).await?;
    }
    // Another controller may have opened an epoch.
    app.follow_membership().await?;
    Ok(Counts { seen: rows.len(), acted: due.len() + silent.len() })
}

async fn flush(app: &App, due: &[(NodeId, Timestamp, Heartbeat)]) -> Result<(), AppError> {
    app.store
        .run_tx("nodes.flush", async |tx| {
            for (id, at, beat) in due {
                nodes::flush(tx, *id, *at, &beat.pool, &beat.conditions).await?;
            }
            Ok(())
        })
        .await
}

fn is_silent(app: &App, row: &NodeRow, now: Timestamp) -> bool {
    const SILENT_AFTER_MS: i64 = (SILENT_AFTER_S * 1000).cast_signed();
    // A controller that was off has heard nobody, so the time counts from its start at the earliest.
    let since = app.last_seen(row).map_or(app.started_at, |seen| seen.max(app.started_at));
    row.state == NodeState::Ready && now.ms_since(since) > SILENT_AFTER_MS
}

async fn silence(app: &App, ids: &[NodeId]) -> Result<(), AppError> {
    app.store
        .run_tx("nodes.silence", async |tx| {
            for id in ids {
                let Some(row) = nodes::load(tx, *id).await? else { continue };
                if !is_silent(app, &row, tx.now()) {
                    continue;
                }
                let reason = Some(format!("not heard from for {SILENT_AFTER_S} s"));
                let next = NodeRow { state: NodeState::Silent, reason, last_seen_at: app.last_seen(&row), ..row };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, "muster")).await?;
                tracing::warn!(node.id = %next.id, "node '{}' is silent", next.name);
            }
            tx.wake(Loop::Instances);
            tx.wake(Loop::Deployments);
            Ok(())
        })
        .await
}
