//! The rules by which a node refuses a member. Each has one reason; the first rule that applies is told.

use muster_api::deployment::Runtime;

use super::{Demand, NodeView, Reason};

/// The reason why a node would take no member even if it were empty.
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

/// The reason why a node that passed [`never`] has no room for one more member. `added` members were put there before
/// in this call.
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
