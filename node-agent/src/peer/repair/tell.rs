//! Tells other nodes which copies this one lost, until they are back.

use std::collections::HashSet;

use futures::{StreamExt as _, stream};
use http::Method;
use muster_api::{
    NodeId,
    node::ObjectAmount,
    peer_protocol::{LOST_NAMES_MAX, LOST_PATH, LostCopies},
};
use muster_pool::Call;
use tokio::time::Duration;
use tracing::debug;

use super::Repair;

/// Calls under way at a time.
const CALLS: usize = 8;
/// Longest that a node may take to take note.
const ANSWER: Duration = Duration::from_secs(6);

/// Who knows that this node lost copies whose names it does not know.
#[derive(Default)]
pub(super) struct Telling {
    unnamed: ObjectAmount,
    told: HashSet<NodeId>,
}

impl Repair {
    /// Tells all other nodes what this one lacks. Returns whether there is nothing more to tell.
    pub(super) async fn tell_losses(&self, telling: &mut Telling) -> bool {
        let (names, unnamed) = self.losses.names();
        if unnamed != telling.unnamed {
            *telling = Telling { unnamed, told: HashSet::new() };
        }
        let membership = self.pool.membership();
        let own = self.pool.own_node();
        let others = || membership.members.iter().map(|member| member.node).filter(|node| Some(*node) != own);
        let mut calls: Vec<(NodeId, LostCopies)> = Vec::new();
        for node in others() {
            if unnamed.objects > 0 && !telling.told.contains(&node) {
                // A pass over all its objects finds the named ones, too.
                calls.push((node, LostCopies::Unnamed));
            } else {
                calls.extend(names.chunks(LOST_NAMES_MAX).map(|part| (node, LostCopies::Named(part.to_vec()))));
            }
        }
        let mut answers = stream::iter(calls).map(|(node, lost)| self.tell(node, lost)).buffer_unordered(CALLS);
        while let Some((node, lost, told)) = answers.next().await {
            if told && lost == LostCopies::Unnamed {
                telling.told.insert(node);
            }
        }
        names.is_empty() && (unnamed.objects == 0 || others().all(|node| telling.told.contains(&node)))
    }

    async fn tell(&self, node: NodeId, lost: LostCopies) -> (NodeId, LostCopies, bool) {
        let json = Some(serde_json::to_vec(&lost).expect("names are JSON"));
        let call = Call { method: Method::POST, path: LOST_PATH, json, limit: ANSWER, answer_bytes_max: 1 << 10 };
        let told = self.pool.call(node, call).await;
        if let Err(error) = &told {
            debug!(node.id = %node, %error, "a node was not told what this one lost; it is tried again");
        }
        (node, lost, told.is_ok())
    }
}
