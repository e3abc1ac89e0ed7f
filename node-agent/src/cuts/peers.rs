//! Steps of a cut on other nodes.

use std::time::Duration;

use futures::future::BoxFuture;
use http::Method;
use muster_api::{
    DiskId, NodeId,
    node_protocol::CutKey,
    peer_protocol::{CutStep, CutStepAnswer, CutStepRequest, cut_step_path},
};
use muster_pool::{Call, PoolClient};

/// Most bytes of the answer to a step: one entry per disk after a flip.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The connections to the other nodes. A [`PoolClient`] has the real ones; tests have others.
pub trait PeerSteps: Send + Sync {
    /// Asks `node` for one step on these of its disks. An error says what went wrong on the way. Nothing is repeated
    /// here: the coordinator knows whether a repeat makes sense.
    fn step(
        &self,
        node: NodeId,
        key: CutKey,
        step: CutStep,
        disks: Vec<DiskId>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<CutStepAnswer, String>>;
}

impl PeerSteps for PoolClient {
    fn step(
        &self,
        node: NodeId,
        key: CutKey,
        step: CutStep,
        disks: Vec<DiskId>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<CutStepAnswer, String>> {
        Box::pin(async move {
            let call = Call {
                method: Method::POST,
                path: &cut_step_path(key, step),
                json: Some(serde_json::to_vec(&CutStepRequest { disks }).expect("ids are JSON")),
                limit,
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            let answer = self.call(node, call).await.map_err(|e| e.to_string())?;
            serde_json::from_slice(&answer).map_err(|e| format!("its answer cannot be read: {e}"))
        })
    }
}
