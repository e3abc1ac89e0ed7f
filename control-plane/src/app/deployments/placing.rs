//! Places for members: the cluster as the scheduler sees it, and its answer as callers see it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    iter::{repeat, repeat_n},
};

use muster_api::{
    ErrorCode, NodeId, Problem, Ref,
    condition::ConditionKind,
    deployment::{DryRun, DryRunNode, Runtime},
    firmware,
    node::NodeState,
};
use serde_json::json;
use storage_core::units::u64_from;

use super::super::{AppError, Caller};
use crate::{
    domain::{instance::Edge, promised::Promised},
    scheduler::{Demand, Libvirt, NodeView, Problem as PlaceProblem, Solution, offers_networks, place},
    store::{Tx, deployments::DeploymentRow, instances, nodes::NodeRow, promises},
};

/// Most nodes that are named in one answer.
const NODES_MAX: usize = 20;

/// What the scheduler found for some members, and the nodes it chose from.
pub(crate) struct Placing {
    /// Places for the members, in their order; fewer than asked for if there is no room.
    pub solution: Solution,
    nodes: Vec<NodeView>,
}

impl Placing {
    /// Looks for places for `count` more members of the deployment.
    pub(crate) async fn find(tx: &mut Tx, row: &DeploymentRow, count: u64) -> Result<Self, AppError> {
        Ok(Self::among(node_views(tx, row).await?, row, count))
    }

    /// As [`Self::find`], among these nodes.
    pub(super) fn among(nodes: Vec<NodeView>, row: &DeploymentRow, count: u64) -> Self {
        let problem = PlaceProblem { nodes, demand: demand(row), count };
        let solution = place(&problem);
        Self { solution, nodes: problem.nodes }
    }

    /// What each member gets, in their order: a place, a wait, or a refusal for this reason.
    pub(crate) fn edges<'a>(&'a self, why: &'a str) -> impl Iterator<Item = Edge<'a>> {
        let waiting = usize::try_from(self.solution.waiting).expect("a deployment has at most 10,000 members");
        let places = self.solution.places.iter().map(|node| Edge::Place(*node));
        places.chain(repeat_n(Edge::AwaitPlace(why), waiting)).chain(repeat(Edge::NoPlace(why)))
    }

    /// How many members have a place.
    pub(super) fn fit(&self) -> u64 {
        u64_from(self.solution.places.len())
    }

    /// Why members have no place, and what helps. Tenants read it with their instances, so it tells no number of nodes.
    pub(crate) fn why(&self) -> String {
        self.told(Solution::sentences_without_numbers)
    }

    fn told(&self, sentences: impl FnOnce(&Solution) -> String) -> String {
        if self.nodes.is_empty() {
            return "there is no node: join one with muster-agent".to_owned();
        }
        sentences(&self.solution)
    }

    /// The refusal when fewer than `needed` of `wanted` members fit. Operators are told how many fit and which nodes refuse.
    pub(super) fn no_capacity(&self, caller: &Caller, needed: u64, wanted: u64) -> AppError {
        if !caller.is_operator() {
            let detail = format!("fewer than {needed} of {wanted} members fit; {}", self.why());
            let reasons = json!(self.solution.reasons_of_members(wanted));
            return Problem::new(ErrorCode::NoCapacity, detail).with("reasons", reasons).into();
        }
        let detail = format!("{} of {wanted} members fit; {}", self.fit(), self.told(Solution::sentences));
        let problem = Problem::new(ErrorCode::NoCapacity, detail).with("reasons", json!(self.solution.reason_counts()));
        let names = self.names();
        let refusals: Vec<_> = self
            .solution
            .refusals
            .iter()
            .take(NODES_MAX)
            .map(|(id, reason)| json!({ "node": id, "node_name": names.get(id), "reason": reason.as_str() }))
            .collect();
        problem.with("nodes", json!(refusals)).into()
    }

    /// The answer to a dry run. Operators are told how many members go to which node. How many fit would tell tenants how
    /// many nodes there are (with `max_per_node`) or how much others use, so they are told what would happen: all members
    /// start, at least `min_count`, or none.
    pub(super) fn dry_run(&self, caller: &Caller, row: &DeploymentRow) -> DryRun {
        if !caller.is_operator() {
            let placed = [row.count, row.min_count].into_iter().find(|enough| self.fit() >= *enough).unwrap_or(0);
            let unplaced = row.count - placed;
            let reasons = if unplaced == 0 { Vec::new() } else { self.solution.reasons_of_members(unplaced) };
            return DryRun { placed, unplaced, nodes: Vec::new(), reasons };
        }
        let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
        for id in &self.solution.places {
            *counts.entry(*id).or_default() += 1;
        }
        let names = self.names();
        let mut nodes: Vec<DryRunNode> = counts
            .into_iter()
            .map(|(node, count)| DryRunNode { node, node_name: names[&node].to_owned(), count })
            .collect();
        nodes.sort_by_key(|node| (Reverse(node.count), node.node));
        nodes.truncate(NODES_MAX);
        let reasons = self.solution.reason_counts();
        DryRun { placed: self.fit(), unplaced: self.solution.unplaced, nodes, reasons }
    }

    fn names(&self) -> BTreeMap<NodeId, &str> {
        self.nodes.iter().map(|node| (node.id, node.name.as_str())).collect()
    }
}

/// Whether one of the nodes may take members of the deployment and can have networks.
pub(super) fn can_have_networks(nodes: &[NodeView], row: &DeploymentRow) -> bool {
    let demand = demand(row);
    nodes.iter().any(|node| offers_networks(node, &demand))
}

/// All nodes as the scheduler sees them, with the members they have of the deployment.
pub(super) async fn node_views(tx: &mut Tx, deployment: &DeploymentRow) -> Result<Vec<NodeView>, AppError> {
    let members = match deployment.next_number {
        // It is new and has no members yet.
        0 => BTreeMap::new(),
        _ => instances::members_by_node(tx, deployment.id).await?,
    };
    let has = |node: &NodeRow, kind| node.conditions.iter().any(|condition| condition.kind == kind);
    let view = |(node, used): (NodeRow, Promised)| NodeView {
        disk_full: has(&node, ConditionKind::NodeFull),
        disk_failed: has(&node, ConditionKind::DiskFailed),
        libvirt: libvirt(&node),
        networks: node.tunnel.is_some(),
        features: node.features,
        id: node.id,
        name: node.name,
        zone: node.zone,
        heard: node.state == NodeState::Ready,
        schedulable: node.schedulable,
        // A node that offers less than it did may have promised more than it offers.
        free_cpus: u64::from(node.cpus).saturating_sub(used.cpus),
        free_memory_bytes: node.memory_bytes.saturating_sub(used.memory_bytes),
        instances: used.instances,
        members: members.get(&node.id).copied().unwrap_or(0),
    };
    Ok(promises::nodes(tx).await?.into_iter().map(view).collect())
}

/// A node that offers no virtual machines and complains about its libvirt is set up for them.
fn libvirt(node: &NodeRow) -> Libvirt {
    if node.runtimes.contains(&Runtime::Libvirt) {
        Libvirt::Answers
    } else if node.conditions.iter().any(|condition| condition.kind == ConditionKind::HypervisorSilent) {
        Libvirt::Silent
    } else {
        Libvirt::Absent
    }
}

fn demand(row: &DeploymentRow) -> Demand {
    // Names were resolved when the deployment was made. One that is still in the row stands for no node.
    let node_id = |node: &Ref<NodeId>| match node {
        Ref::Id(id) => Some(*id),
        Ref::Name(_) => None,
    };
    let nodes = row.placement.nodes.as_ref().map(|nodes| nodes.iter().filter_map(node_id).collect::<BTreeSet<_>>());
    Demand {
        cpus: u64::from(row.cpus),
        memory_bytes: row.memory_bytes,
        runtime: row.runtime,
        networks: !row.nics.is_empty(),
        features: firmware::features(row.firmware, row.tpm),
        policy: row.placement.policy,
        zones: row.placement.zones.as_ref().map(|zones| zones.iter().cloned().collect()),
        nodes,
        max_per_node: row.placement.max_per_node.map(u64::from),
    }
}
