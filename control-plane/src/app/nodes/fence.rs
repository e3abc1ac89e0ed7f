//! A node is declared dead: an operator's word that its host is off for good, where nobody else can know it.
//!
//! One transaction says it of everything that waits for the node. Its instances fail with `node_lost` under a newer
//! generation (I8), what it had to delete counts as deleted, and it leaves the membership record. The loops end the
//! operations and snapshots that waited for it. The word is never taken back: a node that calls after all is told
//! `fenced`, whatever it asks, and may only save what its disks hold (`salvage.rs`).

use muster_api::{
    ErrorCode, NodeId, Problem, Ref,
    node::{Fence, NodeState},
};

use super::{
    super::{Answer, App, AppError, Asked, find, instances as app_instances},
    salvage, state_event,
};
use crate::{
    domain::instance::Edge,
    store::{
        Tx, events, found, instances,
        nodes::{self, NodeRow},
        promises,
    },
};

impl App {
    /// Declares a node dead. A repeated call changes nothing.
    pub async fn fence_node(&self, asked: &Asked<Ref<NodeId>>, fence: Fence) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        if !fence.confirm {
            let detail =
                "say true if the host of this node is off for good: its instances fail, and it cannot come back";
            return Err(AppError::invalid("/confirm", "missing", detail));
        }
        let answer = self
            .once(&asked.once, "nodes.fence", async |tx| {
                let mut row = find::node(tx, &asked.thing).await?;
                asked.check_if_match(row.revision)?;
                if row.state == NodeState::Deleted {
                    return Err(AppError::not_found("node", &asked.thing));
                }
                if row.fenced_at.is_none() {
                    row = self.declare_dead(tx, row, &asked.caller.name).await?;
                }
                Answer::ok(&self.node_view(&row, &promises::by_node(tx).await?))
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }

    async fn declare_dead(&self, tx: &mut Tx, row: NodeRow, actor: &str) -> Result<NodeRow, AppError> {
        let mut dead = NodeRow {
            state: NodeState::Fenced,
            reason: Some(format!("declared dead by {actor}")),
            schedulable: false,
            fenced_at: Some(tx.now()),
            draining_at: None,
            drained_at: None,
            last_seen_at: self.last_seen(&row),
            ..row
        };
        nodes::save(tx, &dead).await?;
        (dead.revision, dead.updated_at) = (dead.revision + 1, tx.now());
        events::append(tx, state_event(&dead, actor)).await?;
        let on_it = instances::on_node(tx, dead.id).await?;
        salvage::expect(tx, &dead, &on_it).await?;
        let lost = app_instances::change::all_by(on_it, &Edge::NodeLost, tx);
        app_instances::save(tx, actor, &lost).await?;
        // Nobody can take those back any more.
        let found = found::delete_of_node(tx, dead.id).await?;
        // Its long-poll ends now, if it still has one, and its next call is refused.
        tx.bump_desired(dead.id);
        self.refresh_membership(tx).await?;
        self.heartbeats.forget(dead.id);
        self.traffics.forget(dead.id);
        tracing::warn!(
            node.id = %dead.id, instances = lost.len(), found,
            "node '{}' was declared dead by {actor}: {} instances fail", dead.name, lost.len()
        );
        Ok(dead)
    }
}

/// The refusal of every call of a node that was declared dead.
pub(super) fn fenced(row: &NodeRow) -> AppError {
    let at = row.fenced_at.unwrap_or(row.updated_at);
    let detail = format!(
        "an operator declared node '{}' dead at {at}: its instances may run elsewhere, so its guests must stop. What its \
         disks hold and no version has is saved, and its data folder is kept. To use the host again, start an agent with a fresh data folder",
        row.name
    );
    Problem::new(ErrorCode::Fenced, detail).with("fenced_at", at.to_string()).into()
}
