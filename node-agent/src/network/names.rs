//! The names of what this agent makes. Pure.
//!
//! A namespace is named `muster-CLUSTER-NODE-NETWORK`, with the last twelve hex digits of each id. So an agent that was
//! killed finds everything it made again, and several agents on one host never touch each other's. Interfaces have room
//! for 15 characters only, so those that are in the host's own namespace, if only for a moment, have a part of a hash
//! in their names. Those inside a namespace are the same in each.

use muster_api::{MacAddress, NetworkId, NodeId};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::hypervisor::Owner;

/// The bridge of a network, in its namespace. It has the gateway's addresses.
pub(super) const BRIDGE: &str = "br0";
/// The port of the bridge that leads to the tunnels of a network.
pub(super) const TUNNEL: &str = "tun0";
/// The end of the tunnels themselves. It is on a bridge of its own with the other end of `TUNNEL`.
pub(super) const VXLAN: &str = "vx0";
/// That other bridge.
pub(super) const HOP: &str = "hop0";
/// The other end of `TUNNEL`.
pub(super) const HOP_PORT: &str = "hop1";
/// The way to the outside of a network, in its namespace.
pub(super) const UPLINK: &str = "up0";
/// The table of packet filters in a namespace, in several families.
pub(super) const TABLE: &str = "muster";

/// How the host's ends of uplinks begin, whichever agent made them.
pub(super) const UPLINK_PREFIX: &str = "mu";
/// How taps begin, whichever agent made them.
pub(super) const TAP_PREFIX: &str = "mt";

/// The last twelve hex digits of an id. They are random in every kind of id.
fn digits(id: Uuid) -> String {
    let [.., a, b, c, d, e, f] = *id.as_bytes();
    hex::encode([a, b, c, d, e, f])
}

/// What is the same in the names of all namespaces of one node.
pub(super) fn namespace_prefix(owner: Owner) -> String {
    format!("muster-{}-{}-", digits(owner.cluster.uuid()), digits(owner.node.uuid()))
}

/// The namespace of a network on a node.
pub(super) fn namespace(owner: Owner, network: NetworkId) -> String {
    namespace_prefix(owner) + &digits(network.uuid())
}

/// The table of packet filters that a node has in the host's own namespace.
pub(super) fn host_table(owner: Owner) -> String {
    format!("muster_{}_{}", digits(owner.cluster.uuid()), digits(owner.node.uuid()))
}

fn interface(prefix: &str, of: &[&[u8]]) -> String {
    let hash = of.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    let name: String = prefix.chars().chain(hex::encode(hash).chars()).take(15).collect();
    name
}

/// The host's end of the uplink of a namespace. It is known from the namespace alone, so that both are removed
/// together.
pub(super) fn uplink(namespace: &str) -> String {
    interface(UPLINK_PREFIX, &[namespace.as_bytes()])
}

/// The name that the tunnel's end has between being made in the host's namespace and being moved into its own.
pub(super) fn unmoved_tunnel(namespace: &str) -> String {
    interface("mv", &[namespace.as_bytes()])
}

/// The tap of a card.
#[must_use]
pub fn tap(node: NodeId, mac: MacAddress) -> String {
    interface(TAP_PREFIX, &[node.uuid().as_bytes(), &mac.bytes()])
}

#[cfg(test)]
mod tests {
    use muster_api::ClusterId;

    use super::*;

    fn owner(node: u128) -> Owner {
        Owner { cluster: ClusterId::from(Uuid::from_u128(0xc)), node: NodeId::from(Uuid::from_u128(node)) }
    }

    #[test]
    fn names_of_interfaces_fit_and_differ_between_nodes_of_one_host() {
        let network = NetworkId::from(Uuid::from_u128(3));
        let mac = MacAddress::new([0x52, 0, 0, 7, 0, 5]);
        let (one, two) = (owner(1), owner(2));
        assert_eq!(namespace(one, network), "muster-00000000000c-000000000001-000000000003");
        assert_eq!(host_table(one), "muster_00000000000c_000000000001");
        let all = |owner| {
            let namespace = namespace(owner, network);
            [uplink(&namespace), unmoved_tunnel(&namespace), tap(owner.node, mac)]
        };
        for (a, b) in all(one).iter().zip(all(two)) {
            assert_eq!((a.len(), b.len()), (15, 15));
            assert_ne!(*a, b);
        }
    }
}
