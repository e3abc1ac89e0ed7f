//! Nodes as operators see them.

use std::collections::BTreeMap;

use muster_api::{
    NodeId, Page, Ref,
    condition::{Condition, ConditionKind},
    etag,
    node::{Capacity, Node, NodeState},
};

use super::super::{App, AppError, Caller, find, list::ListQuery};
use super::drain::repair_ends_at;
use crate::{
    domain::promised::Promised,
    store::{
        DELETED_SHOWN_MS, column,
        nodes::{self, NodeRow},
        promises,
    },
};

impl App {
    /// A page of the nodes, for operators.
    pub async fn nodes(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Node>, AppError> {
        caller.require_operator()?;
        list.filter.states_of::<NodeState>()?;
        let since = list.deleted.then(|| self.clock.now().plus_ms(-DELETED_SHOWN_MS));
        self.store
            .read("nodes.list", async |tx| {
                let promised = promises::by_node(tx).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = nodes::list(tx, after, since, n).await?;
                    let keep = |row: NodeRow| {
                        list.filter.keeps(row.shown_state(), &row.labels).then(|| self.node_view(&row, &promised))
                    };
                    pager.take(rows, |row| row.seq, keep);
                }
                Ok(pager.page())
            })
            .await
    }

    /// One node, for operators. Pool and conditions are those of its last heartbeat, if this process got one.
    pub async fn node(&self, caller: &Caller, node: &Ref<NodeId>) -> Result<Node, AppError> {
        caller.require_operator()?;
        self.store
            .read("nodes.show", async |tx| {
                let row = find::node(tx, node).await?;
                let promised = promises::by_node(tx).await?;
                Ok(self.node_view(&row, &promised))
            })
            .await
    }

    pub(super) fn node_view(&self, row: &NodeRow, promised: &BTreeMap<NodeId, Promised>) -> Node {
        let promised = promised.get(&row.id).copied().unwrap_or_default();
        let fresh = self.heartbeats.last(row.id).filter(|_| row.state != NodeState::Deleted);
        let (pool, mut conditions) = match &fresh {
            Some((_, beat)) => (beat.pool, beat.conditions.clone()),
            None => (row.pool, row.conditions.clone()),
        };
        let repair = fresh.as_ref().and_then(|(_, beat)| beat.repair);
        let scrub = fresh.as_ref().and_then(|(_, beat)| beat.scrub);
        let repository = fresh.and_then(|(_, beat)| beat.repository);
        conditions
            .extend(self.refused_run(row.id).map(|detail| Condition { kind: ConditionKind::IdentityCopied, detail }));
        Node {
            id: row.id,
            name: row.name.clone(),
            project: "default".to_owned(),
            labels: row.labels.clone(),
            state: row.shown_state(),
            reason: row.reason.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            etag: etag::of_revision(row.revision),
            schedulable: row.schedulable,
            out: !row.accepting && row.fenced_at.is_none() && row.draining_at.is_none(),
            drain: self.drain_view(row),
            zone: row.zone.clone(),
            address: row.address.clone(),
            tunnel: row.tunnel.clone(),
            conditions,
            capacity: Capacity {
                cpus: row.cpus,
                cpus_used: u32::try_from(promised.cpus).expect("no node is promised more processors than it offers"),
                memory_bytes: row.memory_bytes,
                memory_used_bytes: promised.memory_bytes,
            },
            pool,
            repair_ends_at: repair.and_then(|repair| repair_ends_at(self.clock.now(), &repair)),
            repair,
            scrub,
            repository,
            runtimes: row
                .runtimes
                .iter()
                .map(|runtime| column::word_text(*runtime).expect("a runtime is a word"))
                .collect(),
            hypervisor: row.hypervisor.clone(),
            features: row
                .features
                .iter()
                .map(|feature| column::word_text(*feature).expect("a feature is a word"))
                .collect(),
            instances: promised.instances,
            agent_version: row.agent_version.clone(),
            last_seen_at: self.last_seen(row),
        }
    }
}
