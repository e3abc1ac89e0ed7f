//! A node is taken out.

use muster_api::{NodeId, Ref, node::NodeState};
use serde_json::json;

use super::{
    super::{Answer, App, AppError, Asked, find},
    state_event,
};
use crate::store::{
    Tx, events,
    nodes::{self, NodeRow},
    promises,
};

impl App {
    /// Takes out a node that holds nothing: it has no instance and its share of the pool is empty. One that was declared
    /// dead is taken out whatever it held. Its name is free then.
    pub async fn delete_node(&self, asked: &Asked<Ref<NodeId>>) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        let answer = self
            .once(&asked.once, "nodes.delete", async |tx| {
                let row = self.removable(tx, asked).await?;
                let next = NodeRow { state: NodeState::Deleted, reason: None, schedulable: false, ..row };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, &asked.caller.name)).await?;
                // Its long-poll ends now, if it still has one, and its next call is refused.
                tx.bump_desired(next.id);
                self.refresh_membership(tx).await?;
                self.heartbeats.forget(next.id);
                self.traffics.forget(next.id);
                Ok(Answer::no_content())
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }

    /// What [`App::delete_node`] would free: nothing, because it refuses a node that holds something, and nothing comes
    /// back from a dead one.
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
        let instances = promises::by_node(tx).await?.get(&row.id).map_or(0, |promised| promised.instances);
        let objects = self.heartbeats.last(row.id).map_or(row.pool.objects, |(_, beat)| beat.pool.objects);
        if instances > 0 || objects > 0 {
            return Err(AppError::NotBuiltYet(format!(
                "deleting a node that still has {instances} instances and {objects} objects (draining; a node whose host is \
                 off for good is fenced first: `muster node rm NAME --dead`)"
            )));
        }
        Ok(row)
    }
}
