//! The rules by which a node refuses a member. Each has one reason; the first rule that applies is told.

use muster_api::{deployment::Runtime, firmware::MachineFeature};

use super::{Demand, Libvirt, NodeView, Reason};

/// Whether a node that can have networks may take members now or when its libvirt answers again, if it has room.
#[must_use]
pub fn offers_networks(node: &NodeView, demand: &Demand) -> bool {
    node.networks && matches!(never(node, demand), None | Some(Reason::HypervisorSilent))
}

/// The reason why a node would take no member even if it were empty. [`Reason::HypervisorSilent`] comes last: it is the
/// only thing that a node with this reason lacks.
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
    let libvirt = if demand.runtime == Runtime::Libvirt { node.libvirt } else { Libvirt::Answers };
    if libvirt == Libvirt::Absent {
        return Some(Reason::Runtime);
    }
    if node.disk_failed {
        return Some(Reason::DiskFailed);
    }
    if node.disk_full {
        return Some(Reason::DiskFull);
    }
    if demand.networks && !node.networks {
        return Some(Reason::NoNetwork);
    }
    if let Some(lacking) = demand.features.iter().find(|feature| !node.features.contains(feature)) {
        return Some(match lacking {
            MachineFeature::Uefi => Reason::NoUefi,
            MachineFeature::UefiSecure => Reason::NoSecureBoot,
            MachineFeature::Tpm => Reason::NoTpm,
        });
    }
    (libvirt == Libvirt::Silent).then_some(Reason::HypervisorSilent)
}

/// The reason why a node that [`never`] does not refuse for good has no room for one more member. `added` members were put there before
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
