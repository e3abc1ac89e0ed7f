//! What the scheduler is asked and what it answers: plain data that tests can build by hand.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    NodeId,
    deployment::{PlacementPolicy, ReasonCount, Runtime},
};

/// What a node offers at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Id of the node.
    pub id: NodeId,
    /// Its name, for answers to operators.
    pub name: String,
    /// Failure domain. Nodes without one form a zone together.
    pub zone: Option<String>,
    /// Whether it was heard from lately.
    pub heard: bool,
    /// Whether it is not cordoned.
    pub schedulable: bool,
    /// Whether its disk has no room for another mirror.
    pub disk_full: bool,
    /// Whether it can run virtual machines.
    pub runs_libvirt: bool,
    /// Processors not promised to anyone.
    pub free_cpus: u64,
    /// Memory not promised to anyone, bytes.
    pub free_memory_bytes: u64,
    /// Instances on it, of all deployments.
    pub instances: u64,
    /// Members of this deployment that are on it already.
    pub members: u64,
}

/// Why a node takes no further member. The rules are asked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request names other nodes.
    NotSelected,
    /// The request names other zones.
    Zone,
    /// It was not heard from for a while.
    Silent,
    /// An operator keeps new instances away from it.
    Cordoned,
    /// It cannot run this runtime.
    Runtime,
    /// Its disk has no room.
    DiskFull,
    /// It has `max_per_node` members of the deployment already.
    MaxPerNode,
    /// Too little of its memory is free.
    Memory,
    /// Too few of its processors are free.
    Cpus,
}

impl Reason {
    /// The stable word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSelected => "not_selected",
            Self::Zone => "zone",
            Self::Silent => "silent",
            Self::Cordoned => "cordoned",
            Self::Runtime => "runtime",
            Self::DiskFull => "disk_full",
            Self::MaxPerNode => "max_per_node",
            Self::Memory => "memory",
            Self::Cpus => "cpus",
        }
    }
}

/// What each member wants. All members want the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Virtual processors of one member.
    pub cpus: u64,
    /// Memory of one member, bytes.
    pub memory_bytes: u64,
    /// What runs the members. Nodes that do not offer it are left out.
    pub runtime: Runtime,
    /// Whether members are spread or packed.
    pub policy: PlacementPolicy,
    /// Only these zones; all if `None`.
    pub zones: Option<BTreeSet<String>>,
    /// Only these nodes; all if `None`.
    pub nodes: Option<BTreeSet<NodeId>>,
    /// Most members of the deployment on one node, including those that are there already.
    pub max_per_node: Option<u64>,
}

/// The question: where do these members go?
#[derive(Clone, Debug)]
pub struct Problem {
    /// All nodes of the cluster.
    pub nodes: Vec<NodeView>,
    /// What each member wants.
    pub demand: Demand,
    /// How many members want a place.
    pub count: u64,
}

/// The answer: where the members go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// One entry per member that fits, in the order of the members.
    pub places: Vec<NodeId>,
    /// How many members do not fit.
    pub unplaced: u64,
    /// How many nodes refuse for which reason. If members do not fit, every node counts once; otherwise only the nodes
    /// that would never take one.
    pub reasons: BTreeMap<Reason, u64>,
    /// The same by node, in the order of their ids.
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
