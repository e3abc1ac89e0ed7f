//! What the scheduler is asked and what it answers: plain data, buildable by hand in tests.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    NodeId,
    deployment::{PlacementPolicy, ReasonCount, Runtime},
};

use super::Reason;

/// What a node offers at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Node.
    pub id: NodeId,
    /// Its name, for answers to operators.
    pub name: String,
    /// Failure domain; nodes without one form a zone of their own.
    pub zone: Option<String>,
    /// Heard from lately.
    pub heard: bool,
    /// Not cordoned.
    pub schedulable: bool,
    /// Its disk has no room for another mirror.
    pub disk_full: bool,
    /// It can run virtual machines.
    pub runs_libvirt: bool,
    /// Processors not promised to anyone.
    pub free_cpus: u64,
    /// Memory not promised to anyone.
    pub free_memory_bytes: u64,
    /// Instances on it, of anyone.
    pub instances: u64,
    /// Members of the deployment on it already.
    pub members: u64,
}

/// What every member wants: they are all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Virtual processors of one member.
    pub cpus: u64,
    /// Memory of one member.
    pub memory_bytes: u64,
    /// What runs it.
    pub runtime: Runtime,
    /// Spread or pack.
    pub policy: PlacementPolicy,
    /// Only these zones.
    pub zones: Option<BTreeSet<String>>,
    /// Only these nodes.
    pub nodes: Option<BTreeSet<NodeId>>,
    /// At most so many members of the deployment on one node, those already there included.
    pub max_per_node: Option<u64>,
}

/// Nodes, what a member wants, how many members want it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// All nodes of the cluster.
    pub nodes: Vec<NodeView>,
    /// What each member wants.
    pub demand: Demand,
    /// Members without a place.
    pub count: u64,
}

/// Where the members go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// One entry per member that fits, in the order of the members.
    pub places: Vec<NodeId>,
    /// Members that do not fit.
    pub unplaced: u64,
    /// Why nodes refuse: with `unplaced` above zero every node counts once, else those that would never take one.
    pub reasons: BTreeMap<Reason, u64>,
    /// The same by node, in id order.
    pub refusals: Vec<(NodeId, Reason)>,
}

impl Solution {
    /// The reasons as the API shows them, most frequent first.
    #[must_use]
    pub fn reason_counts(&self) -> Vec<ReasonCount> {
        let mut counts: Vec<_> = self.reasons.iter().map(|(reason, count)| (*count, *reason)).collect();
        counts.sort_by_key(|(count, reason)| (std::cmp::Reverse(*count), *reason));
        counts.into_iter().map(|(count, reason)| ReasonCount { reason: reason.as_str().to_owned(), count }).collect()
    }
}
