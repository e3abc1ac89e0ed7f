//! Heartbeats reach the database, silent nodes are noticed, and the pool client follows the membership record.
//!
//! A node that stays silent goes *out*: it is still a member, and read from where it can be, but owns no objects. That is a new
//! epoch of the membership record, so the other nodes copy what it has (repair). Its next heartbeat takes it in again. A node
//! whose disk failed for good goes out at once, as its heartbeat says so, and is taken in when that is over.

use muster_api::{
    NodeId, Timestamp,
    node::NodeState,
    node_protocol::{Heartbeat, SILENT_AFTER_S},
};
use storage_core::units::usize_from;

use super::drains;
use crate::{
    app::{
        App, AppError,
        nodes::{disk_failed, state_event},
    },
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
    let out = leave_out(app, &rows).await?;
    let drained = drains::pass(app, &rows).await?;
    app.close_memberships(&rows).await?;
    // Another controller may have opened an epoch.
    app.follow_membership().await?;
    Ok(Counts { seen: rows.len(), acted: due.len() + silent.len() + out + drained })
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

/// Takes nodes out that are silent for too long, or whose disk failed. Returns how many.
async fn leave_out(app: &App, seen: &[NodeRow]) -> Result<usize, AppError> {
    if going_out(app, seen, app.clock.now()).is_empty() {
        return Ok(0);
    }
    app.store
        .run_tx("nodes.leave_out", async |tx| {
            let rows = nodes::listed(tx).await?;
            let out = going_out(app, &rows, tx.now());
            for row in &out {
                let otherwise = if is_silent_now(row) { "it was never heard from" } else { "its disk failed" };
                let reason = row.reason.as_deref().unwrap_or(otherwise);
                let reason = Some(format!("{reason}; it is out: other nodes copy what it has"));
                let next = NodeRow { accepting: false, reason, last_seen_at: app.last_seen(row), ..(*row).clone() };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, "muster")).await?;
                tracing::warn!(node.id = %next.id, "node '{}' is out: other nodes copy what it has", next.name);
            }
            app.refresh_membership(tx).await?;
            Ok(out.len())
        })
        .await
}

fn is_silent_now(row: &NodeRow) -> bool {
    matches!(row.state, NodeState::Silent | NodeState::Joining)
}

/// The nodes that are silent for so long that they are to go out, and those whose disk failed; these first.
fn going_out<'r>(app: &App, rows: &'r [NodeRow], now: Timestamp) -> Vec<&'r NodeRow> {
    let silent = |row: &&'r NodeRow| {
        let unheard = is_silent_now(row);
        if !unheard && row.accepting && disk_failed(&row.conditions) {
            return Some((i64::MAX, *row));
        }
        let since = app.last_seen(row).unwrap_or(row.created_at).max(app.started_at);
        (unheard && row.accepting).then_some((now.ms_since(since), *row))
    };
    let pool = &app.config.pool;
    let out_after_ms = i64::try_from(pool.out_after.as_millis()).expect("it is at most a week");
    let listed: Vec<&NodeRow> =
        rows.iter().filter(|row| row.fenced_at.is_none() && row.draining_at.is_none()).collect();
    let mut due: Vec<(i64, &NodeRow)> = listed.iter().filter_map(silent).filter(|(ms, _)| *ms > out_after_ms).collect();
    due.sort_by_key(|(silent_ms, _)| std::cmp::Reverse(*silent_ms));
    due.truncate(may_go(&listed, app.pool.membership().min_copies));
    due.into_iter().map(|(_, row)| row).collect()
}

/// How many of these nodes may go out. At least half of them stay, because more than that fall silent together only when the
/// network or this controller fails. And as many as there are to be copies: with fewer, a put would make fewer copies.
fn may_go(listed: &[&NodeRow], min_copies: u32) -> usize {
    let stay = listed.len().div_ceil(2).max(usize_from(min_copies.into()));
    listed.iter().filter(|row| row.accepting).count().saturating_sub(stay)
}
