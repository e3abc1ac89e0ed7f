//! What a node is told of a network, checked. Pure.
//!
//! Everything that is later written into rules, configuration files and arguments is of a type that has no room for
//! anything but itself: addresses, numbers, ids, and the two kinds of names here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use muster_api::{
    MacAddress, NetworkId, NodeId, SecurityGroupId,
    node_protocol::network::{
        NetworkAssignment, NetworkMember, NetworkMode, NetworksAssignment, PublishedPort, Rule, RuleRemote,
    },
};

/// The name of an interface: 1 to 15 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InterfaceName(String);

impl InterfaceName {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if fits && !text.starts_with('-') && text.chars().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{}' is no name of an interface", text.escape_default()))
        }
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name as in DNS: labels of lower-case letters, digits and `-`, with dots between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DnsName(String);

impl DnsName {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let good = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("'{}' is no name of DNS", text.escape_default()))
        }
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A network of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Id of the network.
    pub(super) network: NetworkId,
    /// What it is called in messages.
    pub(super) title: String,
    /// Largest packet that guests may send.
    pub(super) mtu: u16,
    /// The cards of this node.
    pub(super) here: Vec<Card>,
    /// How its members reach each other.
    pub(super) form: Form,
}

/// How the members of a network reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Over a bridge that the host has anyway.
    HostBridge(InterfaceName),
    /// Over a bridge of its own on each node, with tunnels between them.
    Overlay(Box<Overlay>),
}

/// One card in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// The name of its instance inside the network.
    pub(super) host_name: DnsName,
    /// Its MAC address.
    pub(super) mac: MacAddress,
    /// Its IPv4 address; none in a network on a bridge of the host.
    pub(super) v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub(super) v6: Option<Ipv6Addr>,
    /// Its security groups.
    pub(super) groups: Vec<SecurityGroupId>,
}

/// A network with a bridge of its own on each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    /// Its number in tunnel packets.
    pub(super) vni: u32,
    /// Whether it has a way to the outside.
    pub(super) outside: bool,
    /// The subnet of its IPv4 addresses.
    pub(super) subnet_v4: Ipv4Net,
    /// Address of the gateway in it.
    pub(super) gateway_v4: Ipv4Addr,
    /// Address of the gateway and subnet of IPv6 addresses, if it has any.
    pub(super) v6: Option<(Ipv6Addr, Ipv6Net)>,
    /// MAC address of the gateway.
    pub(super) gateway_mac: MacAddress,
    /// Name servers for names of the outside. Empty: those of the node.
    pub(super) dns: Vec<IpAddr>,
    /// The domain of its names.
    pub(super) domain: DnsName,
    /// The cards on other nodes, with the address at which the node takes tunnel packets. A node that tells none has
    /// none.
    pub(super) elsewhere: Vec<(Card, Option<SocketAddr>)>,
    /// Ports of this node that lead to its members.
    pub(super) published: Vec<PublishedPort>,
    /// The rules of the security groups of the cards of this node.
    pub(super) groups: BTreeMap<SecurityGroupId, Vec<Rule>>,
}

impl Overlay {
    /// The addresses at which tunnel packets of this network are sent and taken.
    pub(super) fn tunnels(&self) -> BTreeSet<SocketAddr> {
        self.elsewhere.iter().filter_map(|(_, tunnel)| *tunnel).collect()
    }
}

/// Checks what a node is told. Each network is good or bad by itself.
pub(super) fn check(told: &NetworksAssignment, node: NodeId) -> BTreeMap<NetworkId, Result<Wanted, String>> {
    told.networks.iter().map(|network| (network.network, check_one(told, network, node))).collect()
}

fn check_one(told: &NetworksAssignment, network: &NetworkAssignment, node: NodeId) -> Result<Wanted, String> {
    let title = format!("network {} of project {}", network.name.escape_default(), network.project.escape_default());
    let mut here = Vec::new();
    let mut elsewhere = Vec::new();
    for member in &network.members {
        let card = card(member)?;
        if member.node == node {
            here.push(card);
        } else {
            let tunnel = told.tunnels.get(&member.node).map(|text| tunnel(text)).transpose()?;
            elsewhere.push((card, tunnel));
        }
    }
    let form = match &network.mode {
        NetworkMode::Bridge { bridge } => Form::HostBridge(InterfaceName::parse(bridge)?),
        NetworkMode::Nat => Form::Overlay(Box::new(overlay(told, network, true, &here, elsewhere)?)),
        NetworkMode::Isolated => Form::Overlay(Box::new(overlay(told, network, false, &here, elsewhere)?)),
    };
    if network.mtu < 576 {
        return Err(format!("its MTU of {} is below 576", network.mtu));
    }
    Ok(Wanted { network: network.network, title, mtu: network.mtu, here, form })
}

fn tunnel(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("'{}' is no IP:PORT of a tunnel", text.escape_default()))
}

fn card(member: &NetworkMember) -> Result<Card, String> {
    if !member.mac.is_unicast() {
        return Err(format!("{} is a MAC address of a group of cards", member.mac));
    }
    Ok(Card {
        host_name: DnsName::parse(&member.host_name)?,
        mac: member.mac,
        v4: member.address_v4,
        v6: member.address_v6,
        groups: member.groups.clone(),
    })
}

fn overlay(
    told: &NetworksAssignment,
    network: &NetworkAssignment,
    outside: bool,
    here: &[Card],
    elsewhere: Vec<(Card, Option<SocketAddr>)>,
) -> Result<Overlay, String> {
    if network.vni == 0 || network.vni >= 1 << 24 {
        return Err(format!("its number {} is not between 1 and 2^24 - 1", network.vni));
    }
    if !network.subnet_v4.contains(&network.gateway_v4) {
        return Err(format!("its gateway {} is not in {}", network.gateway_v4, network.subnet_v4));
    }
    let v6 = network.gateway_v6.zip(network.subnet_v6);
    if let Some((gateway, subnet)) = v6
        && !subnet.contains(&gateway)
    {
        return Err(format!("its gateway {gateway} is not in {subnet}"));
    }
    let used: BTreeSet<SecurityGroupId> = here.iter().flat_map(|card| card.groups.iter().copied()).collect();
    // A group that the controller says nothing of lets nothing through.
    let groups = used.iter().map(|group| (*group, told.groups.get(group).cloned().unwrap_or_default())).collect();
    Ok(Overlay {
        vni: network.vni,
        outside,
        subnet_v4: network.subnet_v4,
        gateway_v4: network.gateway_v4,
        v6,
        gateway_mac: network.gateway_mac,
        dns: network.dns.clone(),
        domain: DnsName::parse(&network.domain)?,
        elsewhere,
        published: network.published.clone(),
        groups,
    })
}

/// The groups that a network's rules name as the other side.
pub(super) fn remote_groups(groups: &BTreeMap<SecurityGroupId, Vec<Rule>>) -> BTreeSet<SecurityGroupId> {
    let remote = |rule: &Rule| match rule.remote {
        RuleRemote::Group(group) => Some(group),
        RuleRemote::Any | RuleRemote::Range(IpNet::V4(_) | IpNet::V6(_)) => None,
    };
    groups.values().flatten().filter_map(remote).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_more_than_names_are_refused() {
        for text in ["", "a b", "x\n", "a;b", "a\"b", "sixteen-letters-", "..", "-a", "ü"] {
            assert!(InterfaceName::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "a b", "a\nserver=1.2.3.4", "a,b", "a/b", "A", "a..b", "-a", "a-", "a#b", "*"] {
            assert!(DnsName::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(InterfaceName::parse("br-lan.2").expect("good").as_str(), "br-lan.2");
        assert_eq!(DnsName::parse("default.p1.muster.internal").expect("good").as_str(), "default.p1.muster.internal");
    }
}
