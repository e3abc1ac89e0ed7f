//! Nodes: joining, staying in touch, being looked at and taken out.
//!
//! ```text
//!  join ──► joining ──heartbeat──► ready ◄──heartbeat── silent        DELETE (nothing on it, or fenced) ──► deleted
//!                                    └──30 s without──────┘
//!  ready ──last heartbeat of an agent that ends in order──► stopped ──heartbeat──► ready   (kept as silent, `stopped_at`)
//!  any of these ──fence (an operator's word that it is dead)──► fenced, for ever: its instances fail, its calls are refused
//! ```
//! A node that is silent (or stopped) for long is *out* as well: it owns no objects of the pool until its next heartbeat.
//! One that is drained owns none either, whatever it says (`drain.rs`).
//! Heartbeats stay in memory and reach the database in batches. What others act on (state, address, offer, weight) is
//! stored at once, because it changes seldom. The nodes loop notices silence, which changes only the node's row. The
//! instances loop sees that row and marks the node's instances as `unknown`.

mod cordon;
mod desired;
mod drain;
mod fence;
mod heartbeat;
mod join;
mod losses;
mod networks;
mod remove;
mod run;
mod salvage;
mod unlisted;
mod view;

use muster_api::{
    NodeId,
    condition::{Condition, ConditionKind},
};
use serde_json::json;

pub use self::{
    cordon::Schedulable,
    desired::RootPages,
    drain::{DRAIN, REMOVE},
    salvage::DeadNode,
};
pub(crate) use self::{
    drain::{repair_ends_at, says_empty},
    heartbeat::disk_failed,
};
use crate::store::{events::NewEvent, nodes::NodeRow};

/// A node that is calling, known by its key.
#[derive(Clone, Debug)]
pub struct NodeCaller {
    /// Id of the node.
    pub id: NodeId,
    /// Name of the node.
    pub name: String,
    /// Whether its certificate has ended. Then only renewing is allowed.
    pub expired: bool,
}

/// The event that tells a node's state. `actor` is a token's name, `node:NAME` or `muster`.
pub(crate) fn state_event(row: &NodeRow, actor: &str) -> NewEvent {
    NewEvent {
        actor: actor.to_owned(),
        labels: row.labels.clone(),
        node: Some(row.id),
        data: json!({ "state": row.shown_state(), "reason": row.reason, "schedulable": row.schedulable,
            "draining": row.draining_at.is_some(), "drained": row.drained_at.is_some() }),
        ..NewEvent::new("node.state", "default", row.target())
    }
}

/// The events that tell which conditions of a node began and which ended.
fn condition_events(before: &NodeRow, now: &NodeRow) -> Vec<NewEvent> {
    let lacks = |row: &NodeRow, kind: &ConditionKind| !row.conditions.iter().any(|c| c.kind == *kind);
    let event = |condition: &Condition, holds: bool| NewEvent {
        actor: format!("node:{}", now.name),
        labels: now.labels.clone(),
        node: Some(now.id),
        data: json!({ "condition": condition.kind, "holds": holds, "detail": condition.detail }),
        ..NewEvent::new("node.condition", "default", now.target())
    };
    let began = now.conditions.iter().filter(|c| lacks(before, &c.kind)).map(|c| event(c, true));
    let ended = before.conditions.iter().filter(|c| lacks(now, &c.kind)).map(|c| event(c, false));
    began.chain(ended).collect()
}
