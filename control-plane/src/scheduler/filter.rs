//! Why a node refuses a member: one reason per rule, the first that applies.

use muster_api::deployment::Runtime;

use super::{Demand, NodeView};

/// Why a node takes no (further) member. The order is the order in which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not among the nodes asked for.
    NotSelected,
    /// Not in a zone asked for.
    Zone,
    /// Not heard from lately.
    Silent,
    /// An operator keeps new instances away.
    Cordoned,
    /// It cannot run this runtime.
    Runtime,
    /// No room on its disk.
    DiskFull,
    /// It has as many members as wanted.
    MaxPerNode,
    /// Its memory is promised.
    Memory,
    /// Its processors are promised.
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

/// Why the node would take no member however empty it were.
pub(super) fn never(node: &NodeView, demand: &Demand) -> Option<Reason> {
    if demand.nodes.as_ref().is_some_and(|nodes| !nodes.contains(&node.id)) {
        return Some(Reason::NotSelected);
    }
    if demand.zones.as_ref().is_some_and(|zones| !node.zone.as_ref().is_some_and(|zone| zones.contains(zone))) {
        return Some(Reason::Zone);
    }
    if !node.heard {
        return Some(Reason::Silent);
    }
    if !node.schedulable {
        return Some(Reason::Cordoned);
    }
    if demand.runtime == Runtime::Libvirt && !node.runs_libvirt {
        return Some(Reason::Runtime);
    }
    node.disk_full.then_some(Reason::DiskFull)
}

/// Why a node that passed [`never`] has no room for one more, with `added` members put there in this round.
pub(super) fn full(node: &NodeView, added: u64, demand: &Demand) -> Option<Reason> {
    if demand.max_per_node.is_some_and(|max| node.members.saturating_add(added) >= max) {
        return Some(Reason::MaxPerNode);
    }
    if demand.runtime == Runtime::None {
        return None;
    }
    let next = added.saturating_add(1);
    if demand.memory_bytes.checked_mul(next).is_none_or(|wanted| wanted > node.free_memory_bytes) {
        return Some(Reason::Memory);
    }
    demand.cpus.checked_mul(next).is_none_or(|wanted| wanted > node.free_cpus).then_some(Reason::Cpus)
}
