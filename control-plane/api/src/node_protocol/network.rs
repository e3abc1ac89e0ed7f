//! What a node must know of networks: those that its instances have cards in, who else is in them, and the rules.
//!
//! A network is one Ethernet segment over all nodes. Each node has a bridge of its own for it. The bridges are joined by
//! VXLAN tunnels with fixed entries: a node learns from [`NetworkAssignment::members`] behind which node each MAC address
//! is, and floods nothing to nodes that have no member. The gateway's address and MAC address are the same on every node and
//! are answered by the own node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use crate::packet::{PortProtocol, RuleDirection};
use crate::{MacAddress, NetworkId, NodeId, SecurityGroupId};

/// The part of the desired state that is about networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworksAssignment {
    /// Every network in which an instance of this node has a card.
    pub networks: Vec<NetworkAssignment>,
    /// The rules of the security groups that cards of this node have.
    pub groups: BTreeMap<SecurityGroupId, Vec<Rule>>,
    /// `IP:PORT` at which other nodes take tunnel packets (UDP). Every node that has a member in one of `networks`, except
    /// this one.
    pub tunnels: BTreeMap<NodeId, String>,
}

/// One network on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAssignment {
    /// Id of the network.
    pub network: NetworkId,
    /// Its name, for messages.
    pub name: String,
    /// The project that owns it, for messages.
    pub project: String,
    /// The number of the network in tunnel packets, 1 to 2^24 - 1. Unique in the cluster.
    pub vni: u32,
    /// How it is connected to the outside.
    pub mode: NetworkMode,
    /// The subnet of its IPv4 addresses. In mode `bridge` it is 0.0.0.0/0 and means nothing.
    pub subnet_v4: Ipv4Net,
    /// The address of the gateway. It is in `subnet_v4` and no member has it. In mode `bridge` it is 0.0.0.0.
    pub gateway_v4: Ipv4Addr,
    /// The subnet of its IPv6 addresses, if it has any.
    pub subnet_v6: Option<Ipv6Net>,
    /// The IPv6 address of the gateway.
    pub gateway_v6: Option<Ipv6Addr>,
    /// MAC address of the gateway, the same on every node.
    pub gateway_mac: MacAddress,
    /// Name servers for what is not a name of this network. Empty: those that the node uses itself.
    pub dns: Vec<IpAddr>,
    /// Domain in which the names of the members are, for example `default.muster.internal`.
    pub domain: String,
    /// Largest packet that guests may send, in bytes, without the Ethernet header.
    pub mtu: u16,
    /// All cards in this network, on all nodes. Those of this node are named by [`super::Assignment::nics`] as well.
    pub members: Vec<NetworkMember>,
    /// Ports of this node that lead to its members.
    pub published: Vec<PublishedPort>,
}

/// How a network is connected to the outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum NetworkMode {
    /// Guests reach the outside with the address of their node. They are reached by published ports only.
    Nat,
    /// Guests reach each other only.
    Isolated,
    /// Cards are on a bridge of the host. Its network gives the addresses; Muster makes no tunnels and no gateway.
    Bridge {
        /// Name of the bridge on the host.
        bridge: String,
    },
}

impl NetworkMode {
    /// Whether cards are on a bridge of the host, whose network gives them their addresses.
    #[must_use]
    pub const fn is_bridge(&self) -> bool {
        matches!(self, Self::Bridge { .. })
    }
}

/// One card in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMember {
    /// The node that runs its instance.
    pub node: NodeId,
    /// The name that the instance has inside the network, `DEPLOYMENT-N`.
    pub host_name: String,
    /// MAC address of the card.
    pub mac: MacAddress,
    /// IPv4 address of the card. In a network of mode `bridge` there is none.
    pub address_v4: Option<Ipv4Addr>,
    /// IPv6 address of the card, if the network has a subnet for it.
    pub address_v6: Option<Ipv6Addr>,
    /// Its security groups.
    pub groups: Vec<SecurityGroupId>,
}

/// One card of an instance on this node. What it has besides is in the [`NetworkMember`] with its MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicAssignment {
    /// The network. It is one of [`NetworksAssignment::networks`].
    pub network: NetworkId,
    /// MAC address of the card.
    pub mac: MacAddress,
}

/// A port of the node that leads to a port of one of its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port on the node. No other published port of the cluster has this number and protocol.
    pub node_port: u16,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// IPv4 address of the guest.
    pub address: Ipv4Addr,
    /// The port of the guest.
    pub port: u16,
}

/// What a security group lets through. Everything that no rule of any group of a card lets through is dropped; answers to
/// what was let through always pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is about packets to the guest or from it.
    pub direction: RuleDirection,
    /// What it is about.
    pub matches: RuleMatch,
    /// Where packets come from (`in`) or go to (`out`).
    pub remote: RuleRemote,
}

/// The packets that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "protocol")]
pub enum RuleMatch {
    /// All of them.
    Any,
    /// ICMP of version 4 and 6.
    Icmp,
    /// TCP or UDP to these ports.
    Ports {
        /// TCP or UDP.
        transport: PortProtocol,
        /// The lowest port.
        from: u16,
        /// The highest port.
        to: u16,
    },
}

/// The other side of what a rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleRemote {
    /// Any address, of guests and of the outside.
    Any,
    /// Addresses in this range, of version 4 or 6.
    Range(IpNet),
    /// Cards in the same network that have this security group.
    Group(SecurityGroupId),
}
