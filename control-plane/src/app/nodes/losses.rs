//! An operator takes note of what a node's share of the pool has lost.

use std::time::Duration;

use http::Method;
use muster_api::{ErrorCode, NodeId, Ref, node::ObjectAmount, peer_protocol::LOSSES_PATH};
use muster_pool::Call;
use serde_json::json;

use super::super::{Answer, App, AppError, Asked, find};
use crate::store::{
    events::{self, NewEvent},
    promises,
};

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

impl App {
    /// Makes a node forget what it lost, if that is still what the caller saw. So a repeated call never acknowledges
    /// more. The node's next heartbeat ends the condition `objects_lost`.
    pub async fn acknowledge_losses(
        &self,
        asked: &Asked<Ref<NodeId>>,
        seen: &ObjectAmount,
    ) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        let row = self.store.read("nodes.show", async |tx| find::node(tx, &asked.thing).await).await?;
        asked.check_if_match(row.revision)?;
        let call = Call {
            method: Method::POST,
            path: LOSSES_PATH,
            json: Some(serde_json::to_vec(seen).expect("two numbers are JSON")),
            limit: ANSWER,
            answer_bytes_max: 64,
        };
        let away = |error: String| {
            tracing::warn!(node.id = %row.id, error, "losses are not acknowledged");
            AppError::Unavailable(format!("node {} does not answer: try again", row.name))
        };
        let answer = self.pool.call(row.id, call).await.map_err(|error| away(error.to_string()))?;
        if !serde_json::from_slice::<bool>(&answer).map_err(|error| away(error.to_string()))? {
            let detail = format!("node {} has lost something else than these: look at it again", row.name);
            return Err(AppError::code(ErrorCode::PreconditionFailed, detail));
        }
        self.once(&asked.once, "nodes.acknowledge_losses", async |tx| {
            let row = find::node(tx, &asked.thing).await?;
            let event = NewEvent {
                actor: asked.caller.name.clone(),
                labels: row.labels.clone(),
                node: Some(row.id),
                data: json!({ "objects": seen.objects, "bytes": seen.bytes }),
                ..NewEvent::new("node.losses_acknowledged", "default", row.target())
            };
            events::append(tx, event).await?;
            let promised = promises::by_node(tx).await?;
            Answer::ok(&self.node_view(&row, &promised))
        })
        .await
    }
}
