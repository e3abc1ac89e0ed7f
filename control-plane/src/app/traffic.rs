//! What operators are told of the bytes that moved lately.

use muster_api::{
    NodeId, Ref,
    traffic::{Link, Links, Traffic},
};

use super::{App, AppError, Caller, find, moved::KEPT_MIN};
use crate::store::nodes;

impl App {
    /// What all nodes moved in the last minutes, or one node, for operators.
    pub async fn traffic(
        &self,
        caller: &Caller,
        minutes: u64,
        node: Option<&Ref<NodeId>>,
    ) -> Result<Traffic, AppError> {
        caller.require_operator()?;
        let minutes = i64::try_from(minutes).ok().filter(|minutes| (1..=KEPT_MIN).contains(minutes));
        let said = || AppError::BadRequest(format!("the query parameter 'minutes': expected 1 to {KEPT_MIN}"));
        let minutes = minutes.ok_or_else(said)?;
        let only = match node {
            Some(node) => Some(self.store.read("nodes.find", async |tx| find::node(tx, node).await).await?.id),
            None => None,
        };
        Ok(self.traffics.series(self.clock.now(), minutes, only))
    }

    /// What went between a node and others in the last 10 minutes, for operators.
    pub async fn links(&self, caller: &Caller, node: &Ref<NodeId>) -> Result<Links, AppError> {
        caller.require_operator()?;
        let read = self.store.read("nodes.links", async |tx| {
            Ok::<_, AppError>((find::node(tx, node).await?.id, nodes::names(tx).await?))
        });
        let (id, names) = read.await?;
        let link = |(node, (fetched_bytes, served_bytes))| {
            // A node that was removed since is no link any more.
            let node_name = names.get(&node)?.clone();
            Some(Link { node, node_name, fetched_bytes, served_bytes })
        };
        Ok(Links { items: self.traffics.links(self.clock.now(), id).into_iter().filter_map(link).collect() })
    }
}
