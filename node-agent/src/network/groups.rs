//! What the security groups of a network let through, and its way to the outside: the tables `inet` and `ip` in its
//! namespace. Pure.
//!
//! ```text
//!  a new connection:  from a guest of this node? --yes--> out: its groups let it leave? --yes--> in
//!                                                --no---------------------------------------> in
//!  in:                to a guest of this node?   --no---> through
//!                                                --yes--> its groups let it enter? --yes--> through
//! ```
//! What belongs to a connection that was let through always passes, also after the rule is gone. Guests are known by
//! their addresses, which they cannot forge (`spoofing`). The kernel shows these tables what the bridge forwards
//! because the bridge asks for it (`nf_call_iptables`). Published ports lead to guests, and their groups decide about
//! those as well.

use std::collections::BTreeSet;

use ipnet::IpNet;
use muster_api::{
    SecurityGroupId,
    node_protocol::network::{PortProtocol, Rule, RuleDirection, RuleMatch, RuleRemote},
};

use super::{
    names::{BRIDGE, TABLE, UPLINK},
    nft, spoofing,
    wanted::{Card, Overlay, remote_groups},
};

/// The two versions of IP, as rules name them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ip {
    V4,
    V6,
}

impl Ip {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    const fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn icmp(self) -> &'static str {
        match self {
            Self::V4 => "icmp",
            Self::V6 => "ipv6-icmp",
        }
    }

    const fn set_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn address(self, card: &Card) -> Option<String> {
        match self {
            Self::V4 => card.v4.map(|address| address.to_string()),
            Self::V6 => card.v6.map(|address| address.to_string()),
        }
    }
}

/// The ruleset of the families `inet` and `ip` for the namespace of a network.
pub(super) fn rules(overlay: &Overlay, here: &[Card]) -> String {
    let mut inside = String::new();
    let remote = remote_groups(&overlay.groups);
    for ip in Ip::BOTH {
        let addresses = |cards: &mut dyn Iterator<Item = &Card>| -> Vec<String> {
            let all: BTreeSet<String> = cards.filter_map(|card| ip.address(card)).collect();
            all.into_iter().collect()
        };
        let mut all = addresses(&mut here.iter());
        if ip == Ip::V6 && overlay.v6.is_some() {
            all.extend(here.iter().map(|card| spoofing::link_local(card.mac).to_string()));
        }
        let (kind, suffix) = (ip.set_type(), ip.suffix());
        nft::set(&mut inside, &format!("here{suffix}"), kind, &all);
        for group in overlay.groups.keys() {
            let with = addresses(&mut here.iter().filter(|card| card.groups.contains(group)));
            nft::set(&mut inside, &here_set(*group, ip), kind, &with);
        }
        for group in &remote {
            let everywhere = here.iter().chain(overlay.elsewhere.iter().map(|(card, _)| card));
            let with = addresses(&mut everywhere.filter(|card| card.groups.contains(group)));
            nft::set(&mut inside, &all_set(*group, ip), kind, &with);
        }
    }
    let directed = |direction: RuleDirection, verdict: &str| -> Vec<String> {
        let rules = overlay.groups.iter().flat_map(|(group, rules)| rules.iter().map(move |rule| (*group, rule)));
        let rules = rules.filter(|(_, rule)| rule.direction == direction);
        let both = rules.flat_map(|(group, rule)| Ip::BOTH.into_iter().filter_map(move |ip| written(group, rule, ip)));
        both.map(|rule| format!("{rule} {verdict}")).collect()
    };
    let mut into = vec!["ip daddr != @here4 accept".to_owned(), "ip6 daddr != @here6 accept".to_owned()];
    into.extend(directed(RuleDirection::In, "accept"));
    into.push("drop".to_owned());
    nft::chain(&mut inside, "into", &into);
    let mut out_of = directed(RuleDirection::Out, "goto into");
    out_of.push("drop".to_owned());
    nft::chain(&mut inside, "out_of", &out_of);
    nft::chain(
        &mut inside,
        "forward",
        &[
            "type filter hook forward priority filter; policy drop;",
            "ct state established,related accept",
            "ct state invalid drop",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            "ip saddr @here4 goto out_of",
            "ip6 saddr @here6 goto out_of",
            "goto into",
        ],
    );
    nft::chain(
        &mut inside,
        "input",
        &[
            "type filter hook input priority filter; policy drop;",
            "iifname \"lo\" accept",
            "ct state established,related accept",
            &format!("iifname \"{BRIDGE}\" udp dport {{ 53, 67, 547 }} accept"),
            &format!("iifname \"{BRIDGE}\" tcp dport 53 accept"),
            &format!("iifname \"{BRIDGE}\" icmp type echo-request accept"),
            &format!(
                "iifname \"{BRIDGE}\" icmpv6 type {{ echo-request, nd-router-solicit, nd-neighbor-solicit, \
                 nd-neighbor-advert }} accept"
            ),
        ],
    );
    let mut out = String::new();
    nft::table(&mut out, "inet", TABLE, &inside);
    nft::table(&mut out, "ip", TABLE, &translation(overlay));
    out
}

fn here_set(group: SecurityGroupId, ip: Ip) -> String {
    format!("here{}_{}", ip.suffix(), group.uuid().simple())
}

fn all_set(group: SecurityGroupId, ip: Ip) -> String {
    format!("all{}_{}", ip.suffix(), group.uuid().simple())
}

/// A rule of a group for one version of IP, without its verdict; `None` if it is about the other version.
fn written(group: SecurityGroupId, rule: &Rule, ip: Ip) -> Option<String> {
    let (own, other) = match rule.direction {
        RuleDirection::In => ("daddr", "saddr"),
        RuleDirection::Out => ("saddr", "daddr"),
    };
    let header = ip.header();
    let mut text = format!("{header} {own} @{}", here_set(group, ip));
    match (rule.remote, ip) {
        (RuleRemote::Any, _) => {}
        (RuleRemote::Range(range @ IpNet::V4(_)), Ip::V4) | (RuleRemote::Range(range @ IpNet::V6(_)), Ip::V6) => {
            // `0.0.0.0/0` is everybody, for which nft has no word.
            if range.prefix_len() > 0 {
                text += &format!(" {header} {other} {}", range.trunc());
            }
        }
        (RuleRemote::Range(_), _) => return None,
        (RuleRemote::Group(other_group), _) => text += &format!(" {header} {other} @{}", all_set(other_group, ip)),
    }
    match rule.matches {
        RuleMatch::Any => {}
        RuleMatch::Icmp => text += &format!(" meta l4proto {}", ip.icmp()),
        RuleMatch::Ports { transport, from, to } => {
            text += &format!(" {} dport {}-{}", protocol(transport), from.min(to), from.max(to));
        }
    }
    Some(text)
}

pub(super) const fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    }
}

/// The translation of addresses between guests and the uplink.
fn translation(overlay: &Overlay) -> String {
    let mut inside = String::new();
    if !overlay.outside {
        return inside;
    }
    let published: Vec<String> = overlay
        .published
        .iter()
        .map(|port| format!("{} . {} : {} . {}", protocol(port.protocol), port.node_port, port.address, port.port))
        .collect();
    nft::map(&mut inside, "published", "inet_proto . inet_service : ipv4_addr . inet_service", &published);
    nft::chain(
        &mut inside,
        "prerouting",
        &[
            "type nat hook prerouting priority dstnat; policy accept;",
            &format!("iifname \"{UPLINK}\" dnat ip to meta l4proto . th dport map @published"),
        ],
    );
    nft::chain(
        &mut inside,
        "postrouting",
        &["type nat hook postrouting priority srcnat; policy accept;", &format!("oifname \"{UPLINK}\" masquerade")],
    );
    inside
}
