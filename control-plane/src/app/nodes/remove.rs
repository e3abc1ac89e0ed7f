//! A node is taken out. One that has objects is drained first (`drain.rs`).

use muster_api::{NodeId, Ref, node::NodeState};
use serde_json::json;

use super::{
    super::{Answer, App, AppError, Asked, find},
    drain::{REMOVE, refuse_instances},
    state_event,
};
use crate::store::{
    Tx, cluster, events,
    nodes::{self, NodeRow},
};

impl App {
    /// Takes out a node that has no instance. If its share of the pool is not empty, an operation drains it first. One that was
    /// declared dead is taken out whatever it held. Its name is free then.
    pub async fn delete_node(&self, asked: &Asked<Ref<NodeId>>) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        let answer = self
            .once(&asked.once, "nodes.delete", async |tx| {
                let row = self.removable(tx, asked).await?;
                // One that is drained may get objects until it says that it is empty for good.
                // Where there is one copy of each object, none may come to the node unseen either.
                let is_only_copy = row.state == NodeState::Ready
                    && self.min_copies(tx).await? == 1
                    && self.pool.membership().members.len() > 1;
                let may_hold = row.draining_at.is_some()
                    || is_only_copy
                    || self.objects_on(&row).objects > 0
                    || self.is_unheard(tx, &row).await?;
                let is_empty = row.drained_at.is_some() && self.is_still_empty(tx, &row).await?;
                if row.fenced_at.is_none() && !is_empty && may_hold {
                    return Answer::accepted(&self.begin_drain(tx, row, REMOVE, &asked.caller.origin()).await?);
                }
                self.remove_row(tx, row, &asked.caller.name).await?;
                Ok(Answer::no_content())
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }

    /// Whether what the row says of the node's objects may be of before a restart, or of another history of the database.
    async fn is_unheard(&self, tx: &mut Tx, row: &NodeRow) -> Result<bool, AppError> {
        if self.heartbeats.last(row.id).is_some() {
            return Ok(false);
        }
        let restored_at = cluster::restored_at(tx).await?;
        let is_of_before = restored_at.is_some_and(|at| row.last_seen_at.is_none_or(|seen| seen < at));
        Ok(row.state == NodeState::Ready || is_of_before)
    }

    /// Takes out a node, without a look at what it holds.
    pub(crate) async fn remove_row(&self, tx: &mut Tx, row: NodeRow, actor: &str) -> Result<(), AppError> {
        let next = NodeRow { state: NodeState::Deleted, reason: None, schedulable: false, ..row };
        nodes::save(tx, &next).await?;
        events::append(tx, state_event(&next, actor)).await?;
        // Its long-poll ends now, if it still has one, and its next call is refused.
        tx.bump_desired(next.id);
        self.refresh_membership(tx).await?;
        self.heartbeats.forget(next.id);
        self.traffics.forget(next.id);
        Ok(())
    }

    /// What [`App::delete_node`] would free: nothing, because other nodes get what it has, and nothing comes back from a dead
    /// one.
    pub async fn node_freed(&self, asked: &Asked<Ref<NodeId>>) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        self.once(&asked.once, "nodes.delete", async |tx| {
            self.removable(tx, asked).await?;
            Answer::ok(&json!({ "freed_bytes": 0 }))
        })
        .await
    }

    async fn removable(&self, tx: &mut Tx, asked: &Asked<Ref<NodeId>>) -> Result<NodeRow, AppError> {
        let row = find::node(tx, &asked.thing).await?;
        asked.check_if_match(row.revision)?;
        if row.state == NodeState::Deleted {
            return Err(AppError::not_found("node", &asked.thing));
        }
        if row.fenced_at.is_some() {
            return Ok(row);
        }
        refuse_instances(tx, &row).await?;
        Ok(row)
    }
}
