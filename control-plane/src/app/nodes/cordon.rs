//! Cordon and uncordon: whether new instances may be placed on a node.

use muster_api::{NodeId, Ref, node::NodeState};

use super::{
    super::{Answer, App, AppError, Asked, find},
    state_event,
};
use crate::{
    store::{events, nodes, promises},
    wake::Loop,
};

/// Whether new instances may be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedulable {
    /// New instances may be placed on it: `uncordon`.
    Yes,
    /// No new instances; those on it stay: `cordon`.
    No,
}

impl App {
    /// Sets whether new instances may be placed on a node. `uncordon` also ends its drain. The call says the wanted state, so a repeated one changes
    /// nothing.
    pub async fn cordon(&self, asked: &Asked<Ref<NodeId>>, wanted: Schedulable) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        let schedulable = wanted == Schedulable::Yes;
        let answer = self.once(&asked.once, "nodes.cordon", async |tx| {
            let mut row = find::node(tx, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            if row.state == NodeState::Deleted {
                return Err(AppError::not_found("node", &asked.thing));
            }
            if schedulable && row.draining_at.is_some() {
                row = self.end_drain(tx, row, &asked.caller.name).await?;
            }
            if row.schedulable != schedulable {
                row.schedulable = schedulable;
                nodes::save(tx, &row).await?;
                row.revision += 1;
                row.updated_at = tx.now();
                events::append(tx, state_event(&row, &asked.caller.name)).await?;
                tx.wake(Loop::Deployments);
            }
            let promised = promises::by_node(tx).await?;
            Answer::ok(&self.node_view(&row, &promised))
        });
        let answer = answer.await?;
        self.follow_membership().await?;
        Ok(answer)
    }
}
