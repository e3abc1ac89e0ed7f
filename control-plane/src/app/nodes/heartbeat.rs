//! Heartbeats: what a node says of itself every few seconds.

use std::{net::SocketAddr, sync::atomic::Ordering};

use muster_api::{
    Timestamp,
    condition::{Condition, ConditionKind},
    node::NodeState,
    node_protocol::{Heartbeat, HeartbeatAnswer, NODE_PROTOCOL},
};

use super::{
    super::{App, AppError, membership},
    NodeCaller, condition_events,
    fence::fenced,
    state_event,
};
use crate::{
    store::{
        events,
        nodes::{self, NodeRow},
    },
    wake::Loop,
};

impl App {
    /// Takes a heartbeat. What others act on is stored at once, the rest in batches.
    pub async fn heartbeat(&self, node: &NodeCaller, beat: Heartbeat) -> Result<HeartbeatAnswer, AppError> {
        check_protocol(beat.protocol)?;
        check_address(&beat.advertise, "/advertise")?;
        if let Some(tunnel) = &beat.tunnel {
            check_address(tunnel, "/tunnel")?;
        }
        let ours = self.incarnation();
        let theirs = beat.incarnation;
        // The same number with another random part is another history. A higher number means that this database is an
        // older copy. Either way the node must not be told what this incarnation wants.
        if theirs.number > ours.number || (theirs.number == ours.number && theirs.random != ours.random) {
            let evidence = format!("node '{}' has seen incarnation {} of another history", node.name, theirs.number);
            self.leave_old_history(ours, theirs, &evidence).await?;
        } else if theirs == ours
            && let Some(evidence) = self.strange_record(&node.name, &beat).await?
        {
            self.leave_old_history(ours, theirs, &evidence).await?;
        }
        let ours = self.incarnation();
        let now = self.clock.now();
        let row = self.store.read_for_heartbeat("nodes.load", async |tx| nodes::load(tx, node.id).await).await?;
        let row = row.ok_or_else(|| AppError::not_found("node", node.id))?;
        if row.fenced_at.is_some() {
            return Err(fenced(&row));
        }
        self.heartbeats.hear(node.id, now, beat.clone());
        if let Some(moved) = &beat.traffic {
            self.traffics.hear(node.id, now, moved.clone());
        }
        if beat.stopping {
            self.agent_ended(node).await?;
        } else if changed(&row, &beat).is_some() {
            self.take_over(node, &beat).await?;
        }
        Ok(HeartbeatAnswer {
            incarnation: ours,
            desired_revision: row.desired_revision,
            membership_epoch: self.pool.membership().epoch,
            oldest_open_epoch: self.oldest_open_epoch.load(Ordering::Relaxed),
            sweep: self.sweep.named_to(node.id, ours),
            wants_full_report: !self.sweep.has_reported(node.id, ours),
            repository: self.repository_revision(),
        })
    }

    /// The agent ended in order. Its guests are off, and nobody has to wait 30 s to know it.
    async fn agent_ended(&self, node: &NodeCaller) -> Result<(), AppError> {
        self.store
            .run_tx("nodes.agent_ended", async |tx| {
                let Some(row) = nodes::load(tx, node.id).await? else { return Ok(()) };
                if !matches!(row.state, NodeState::Joining | NodeState::Ready | NodeState::Silent) {
                    return Ok(());
                }
                let next = NodeRow {
                    state: NodeState::Silent,
                    reason: Some("its agent was stopped".to_owned()),
                    stopped_at: Some(tx.now()),
                    last_seen_at: Some(tx.now()),
                    ..row
                };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, &format!("node:{}", next.name))).await?;
                tracing::info!(node.id = %next.id, "the agent of node '{}' was stopped", next.name);
                tx.wake(Loop::Instances);
                tx.wake(Loop::Deployments);
                Ok(())
            })
            .await
    }

    /// Stores what the heartbeat changes for others.
    async fn take_over(&self, node: &NodeCaller, beat: &Heartbeat) -> Result<(), AppError> {
        self.store
            .run_tx("nodes.heard", async |tx| {
                let Some(row) = nodes::load(tx, node.id).await? else { return Ok(()) };
                if row.fenced_at.is_some() {
                    return Err(fenced(&row));
                }
                let Some(next) = changed(&row, beat) else { return Ok(()) };
                let next = NodeRow { last_seen_at: Some(tx.now()), ..next };
                nodes::save(tx, &next).await?;
                if next.state != row.state {
                    events::append(tx, state_event(&next, &format!("node:{}", next.name))).await?;
                    tracing::info!(node.id = %next.id, "node '{}' is ready", next.name);
                }
                for event in condition_events(&row, &next) {
                    events::append(tx, event).await?;
                }
                // There may be room for more members, or a silent node is back.
                tx.wake(Loop::Instances);
                tx.wake(Loop::Deployments);
                if next.state == NodeState::Ready {
                    tx.bump_desired(next.id);
                }
                if next.tunnel != row.tunnel {
                    // Nodes with members in the same networks send packets there.
                    nodes::bump_all_desired(tx).await?;
                }
                self.refresh_membership(tx).await
            })
            .await?;
        self.follow_membership().await
    }

    /// When the node was last heard from: the newest heartbeat in memory or in the database.
    pub(crate) fn last_seen(&self, row: &NodeRow) -> Option<Timestamp> {
        self.heartbeats.last(row.id).map(|(at, _)| at).max(row.last_seen_at)
    }
}

/// The row as the heartbeat makes it; `None` if nothing changes that others act on.
fn changed(row: &NodeRow, beat: &Heartbeat) -> Option<NodeRow> {
    let state = match row.state {
        NodeState::Joining | NodeState::Silent => NodeState::Ready,
        other => other,
    };
    // One that was out is in again, unless its disk failed: that sends it out, or keeps it there (`reconcile/nodes.rs`).
    // One that is drained owns nothing, whatever it says.
    let accepting = row.draining_at.is_none() && (row.accepting || !disk_failed(&beat.conditions));
    let reason = if state == row.state && accepting == row.accepting { row.reason.clone() } else { None };
    let next = NodeRow {
        state,
        reason,
        stopped_at: None,
        accepting,
        address: beat.advertise.clone(),
        cpus: beat.offer.cpus,
        memory_bytes: beat.offer.memory_bytes,
        weight: membership::weight(row.weight, &beat.pool),
        conditions: beat.conditions.clone(),
        runtimes: beat.runtimes.clone(),
        hypervisor: beat.hypervisor.clone(),
        agent_version: beat.agent_version.clone(),
        protocol: beat.protocol,
        tunnel: beat.tunnel.clone(),
        features: beat.features.clone(),
        ..row.clone()
    };
    // The pool's use changes all the time and nobody acts on it, so it alone is left to the batches.
    if next == *row { None } else { Some(NodeRow { pool: beat.pool, ..next }) }
}

/// Whether a node says that its disk failed for good.
pub(crate) fn disk_failed(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.kind == ConditionKind::DiskFailed)
}

pub(super) fn check_protocol(protocol: u32) -> Result<(), AppError> {
    // An agent one minor version older is to work as well; there is none yet.
    if protocol == NODE_PROTOCOL {
        return Ok(());
    }
    let detail =
        format!("this controller speaks node protocol {NODE_PROTOCOL}, the agent {protocol}: update the older one");
    Err(AppError::invalid("/protocol", "invalid", detail))
}

pub(super) fn check_address(text: &str, pointer: &str) -> Result<(), AppError> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() || address.port() == 0 => {
            Err(AppError::invalid(pointer, "invalid", format!("peers cannot reach {address}: say --advertise IP:PORT")))
        }
        Ok(_) => Ok(()),
        Err(e) => Err(AppError::invalid(pointer, "invalid", format!("'{text}' is not IP:PORT: {e}"))),
    }
}
