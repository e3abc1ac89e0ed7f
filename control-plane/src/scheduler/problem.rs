//! What the scheduler is asked and what it answers: plain data that tests can build by hand.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    NodeId,
    deployment::{PlacementPolicy, ReasonCount, Runtime},
    firmware::MachineFeature,
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
    /// Whether its disk failed for good.
    pub disk_failed: bool,
    /// Whether it can run virtual machines.
    pub libvirt: Libvirt,
    /// Whether it can have networks.
    pub networks: bool,
    /// What machines on it can have that not all nodes offer.
    pub features: Vec<MachineFeature>,
    /// Processors not promised to anyone.
    pub free_cpus: u64,
    /// Memory not promised to anyone, bytes.
    pub free_memory_bytes: u64,
    /// Instances on it, of all deployments.
    pub instances: u64,
    /// Members of this deployment that are on it already.
    pub members: u64,
}

/// Whether a node can run virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libvirt {
    /// It can.
    Answers,
    /// It is set up for them, and its libvirt does not answer now. That may pass, so it is worth waiting for.
    Silent,
    /// It is not set up for them.
    Absent,
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
    /// Its disk failed for good.
    DiskFailed,
    /// Its disk has no room.
    DiskFull,
    /// It can have no networks, and members have network cards.
    NoNetwork,
    /// It has no UEFI firmware for machines.
    NoUefi,
    /// It has no UEFI firmware with Secure Boot for machines.
    NoSecureBoot,
    /// Its machines can have no TPM.
    NoTpm,
    /// It would take one, but its libvirt does not answer now.
    HypervisorSilent,
    /// It has `max_per_node` members of the deployment already.
    MaxPerNode,
    /// Too little of its memory is free.
    Memory,
    /// Too few of its processors are free.
    Cpus,
}

impl Reason {
    /// A sentence for people: that `count` nodes, or some, refuse for this reason, and what helps.
    fn sentence(self, count: Option<u64>) -> String {
        let (nodes, is, have) = if count == Some(1) { ("node", "is", "has") } else { ("nodes", "are", "have") };
        let rest = match self {
            Self::NotSelected => format!("{is} not among those that the request names: name other nodes, or none"),
            Self::Zone => format!("{is} in none of the zones that the request names: name other zones, or none"),
            Self::Silent => format!("{have} not been heard from: start the agent there, or add nodes"),
            Self::Cordoned => format!("{is} cordoned: uncordon nodes, or add some"),
            Self::Runtime => {
                "cannot run virtual machines: start the agent there with --runtime libvirt, add such nodes, \
                or deploy with --runtime none"
                    .to_owned()
            }
            Self::DiskFailed => format!("{have} a disk that failed: replace it, or add nodes"),
            Self::DiskFull => format!("{have} no room on disk: free some, or add nodes"),
            Self::NoNetwork => {
                "cannot have networks: see there what `muster-agent check` says, add such nodes, or deploy without network \
                cards"
                    .to_owned()
            }
            Self::NoUefi => format!(
                "{have} no UEFI firmware for guests: install the package ovmf there, or add such nodes"
            ),
            Self::NoSecureBoot => format!(
                "{have} no firmware with Secure Boot for guests: install the package ovmf there, add such nodes, or deploy \
                 with firmware uefi"
            ),
            Self::NoTpm => "cannot give guests a TPM: install the packages swtpm and swtpm-tools there, add such nodes, or \
                deploy without a TPM"
                .to_owned(),
            Self::HypervisorSilent => {
                "cannot be used now because libvirt does not answer there: see that libvirtd runs".to_owned()
            }
            Self::MaxPerNode => {
                format!("{have} as many members as one node may have: allow more per node, or add nodes")
            }
            Self::Memory => format!("{have} too little free memory: ask for less, delete instances, or add nodes"),
            Self::Cpus => format!("{have} too few free processors: ask for fewer, delete instances, or add nodes"),
        };
        match count {
            Some(count) => format!("{count} {nodes} {rest}"),
            None => format!("{nodes} {rest}"),
        }
    }

    /// The stable word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSelected => "not_selected",
            Self::Zone => "zone",
            Self::Silent => "silent",
            Self::Cordoned => "cordoned",
            Self::Runtime => "runtime",
            Self::DiskFailed => "disk_failed",
            Self::DiskFull => "disk_full",
            Self::NoNetwork => "no_network",
            Self::NoUefi => "no_uefi",
            Self::NoSecureBoot => "no_secure_boot",
            Self::NoTpm => "no_tpm",
            Self::HypervisorSilent => "hypervisor_silent",
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
    /// Whether members have network cards. Nodes that can have no networks are left out then.
    pub networks: bool,
    /// What machines must have that not all nodes offer. Nodes without it are left out.
    pub features: Vec<MachineFeature>,
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
    /// How many of those would fit if every libvirt answered.
    pub waiting: u64,
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
        let said = |(reason, count): (Reason, u64)| {
            let detail = Some(reason.sentence(Some(count)));
            ReasonCount { reason: reason.as_str().to_owned(), count, detail }
        };
        self.counted().map(said).collect()
    }

    /// The same in sentences that say what helps.
    #[must_use]
    pub fn sentences(&self) -> String {
        self.counted().map(|(reason, count)| reason.sentence(Some(count))).collect::<Vec<_>>().join("; ")
    }

    /// The reasons for tenants, who do not learn how many nodes there are (I12): each of them with the number of members
    /// that have no place, `unplaced`.
    #[must_use]
    pub fn reasons_of_members(&self, unplaced: u64) -> Vec<ReasonCount> {
        let said = |reason: &Reason| {
            let detail = Some(reason.sentence(None));
            ReasonCount { reason: reason.as_str().to_owned(), count: unplaced, detail }
        };
        self.reasons.keys().map(said).collect()
    }

    /// The reasons in sentences that say what helps, without any number of nodes.
    #[must_use]
    pub fn sentences_without_numbers(&self) -> String {
        self.reasons.keys().map(|reason| reason.sentence(None)).collect::<Vec<_>>().join("; ")
    }

    /// The nodes that would take members if their libvirt answered.
    pub fn silent_hypervisors(&self) -> impl Iterator<Item = NodeId> {
        self.refusals.iter().filter(|(_, reason)| *reason == Reason::HypervisorSilent).map(|(node, _)| *node)
    }

    fn counted(&self) -> impl Iterator<Item = (Reason, u64)> {
        let mut counts: Vec<_> = self.reasons.iter().map(|(reason, count)| (*reason, *count)).collect();
        counts.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        counts.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_helps() {
        let all = [
            Reason::NotSelected,
            Reason::Zone,
            Reason::Silent,
            Reason::Cordoned,
            Reason::Runtime,
            Reason::DiskFailed,
            Reason::DiskFull,
            Reason::NoNetwork,
            Reason::NoUefi,
            Reason::NoSecureBoot,
            Reason::NoTpm,
            Reason::HypervisorSilent,
            Reason::MaxPerNode,
            Reason::Memory,
            Reason::Cpus,
        ];
        for (at, reason) in all.into_iter().enumerate() {
            // A reason that is new is missing in the list above.
            assert_eq!(reason as usize, at, "{reason:?}");
            for (count, begins) in [(Some(1), "1 node "), (Some(3), "3 nodes "), (None, "nodes ")] {
                let said = reason.sentence(count);
                let (what, help) = said.split_once(": ").unwrap_or_else(|| panic!("no advice in: {said}"));
                assert!(what.starts_with(begins) && help.len() > 10, "{said}");
                assert!(!said.contains('_'), "words of the API mean nothing to people: {said}");
            }
        }
        assert_eq!(Reason::Cpus as usize + 1, all.len());
    }
}
