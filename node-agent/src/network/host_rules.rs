//! What a node needs in the host's own packet filter: one table `inet` and, for cards on bridges of the host, one of
//! the family `bridge`, both with the node's name. Pure.
//!
//! - Tunnel packets come from nodes only that have a member in a network of this node.
//! - Guests reach the outside by the host's addresses. They reach neither the host itself nor guests of other networks,
//!   also not those of other agents on the host, but by published ports.
//! - A published port of the host leads to the network of its guest. Clients keep their address; those on the host
//!   itself and guests of the same network, which have to be answered the same way, get the address of the uplink.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use muster_api::{MacAddress, node_protocol::network::PublishedPort};

use super::{groups::protocol, names::UPLINK_PREFIX, nft};

/// What is in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostRules {
    /// The UDP port at which this node takes tunnel packets.
    pub(super) tunnel_port: u16,
    /// From where it takes them.
    pub(super) peers: BTreeSet<SocketAddr>,
    /// The host's ends of uplinks, with the address at the other end.
    pub(super) uplinks: BTreeMap<String, Ipv4Addr>,
    /// Name servers on this host that the servers of networks ask.
    pub(super) resolvers: BTreeSet<IpAddr>,
    /// Published ports, with the address of the uplink that leads to their guests.
    pub(super) published: Vec<(PublishedPort, Ipv4Addr)>,
    /// The taps on bridges of the host, with the one MAC address that may send there.
    pub(super) bridged: BTreeMap<String, MacAddress>,
}

impl HostRules {
    pub(super) fn text(&self, table: &str) -> String {
        let mut out = String::new();
        nft::table(&mut out, "inet", table, &self.inet());
        nft::table(&mut out, "bridge", table, &self.bridge());
        out
    }

    fn inet(&self) -> String {
        let mut inside = String::new();
        let peers = |want_v4: bool| -> Vec<String> {
            let ips: BTreeSet<IpAddr> = self.peers.iter().map(SocketAddr::ip).collect();
            ips.into_iter().filter(|ip| ip.is_ipv4() == want_v4).map(|ip| ip.to_string()).collect()
        };
        nft::set(&mut inside, "peers4", "ipv4_addr", &peers(true));
        nft::set(&mut inside, "peers6", "ipv6_addr", &peers(false));
        let uplinks: Vec<String> = self.uplinks.keys().map(|name| format!("\"{name}\"")).collect();
        nft::set(&mut inside, "uplinks", "ifname", &uplinks);
        let inner: Vec<String> = self.uplinks.values().map(Ipv4Addr::to_string).collect();
        nft::set(&mut inside, "inner", "ipv4_addr", &inner);
        let published: Vec<String> = self
            .published
            .iter()
            .map(|(port, to)| format!("{} . {} : {to}", protocol(port.protocol), port.node_port))
            .collect();
        nft::map(&mut inside, "published", "inet_proto . inet_service : ipv4_addr", &published);

        let port = self.tunnel_port;
        let mut input = vec![
            "type filter hook input priority filter; policy accept;".to_owned(),
            format!("udp dport {port} ip saddr != @peers4 drop"),
            format!("udp dport {port} ip6 saddr != @peers6 drop"),
            "iifname @uplinks ct state established,related accept".to_owned(),
        ];
        for resolver in &self.resolvers {
            let header = if resolver.is_ipv4() { "ip" } else { "ip6" };
            input.push(format!(
                "iifname @uplinks {header} daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
            ));
        }
        input.push("iifname @uplinks drop".to_owned());
        nft::chain(&mut inside, "input", &input);
        nft::chain(
            &mut inside,
            "forward",
            &[
                "type filter hook forward priority filter; policy accept;",
                "ct status dnat accept",
                &format!("iifname @uplinks oifname \"{UPLINK_PREFIX}*\" drop"),
                "oifname @uplinks ct state established,related accept",
                "oifname @uplinks drop",
            ],
        );
        let lead = "meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @published";
        nft::chain(&mut inside, "prerouting", &["type nat hook prerouting priority dstnat; policy accept;", lead]);
        nft::chain(&mut inside, "output", &["type nat hook output priority -100; policy accept;", lead]);
        nft::chain(
            &mut inside,
            "postrouting",
            &[
                "type nat hook postrouting priority srcnat; policy accept;",
                "oifname @uplinks ip saddr 127.0.0.0/8 masquerade",
                "oifname @uplinks ip saddr @inner masquerade",
                &format!("ip saddr @inner oifname != \"{UPLINK_PREFIX}*\" masquerade"),
            ],
        );
        inside
    }

    fn bridge(&self) -> String {
        let mut inside = String::new();
        if self.bridged.is_empty() {
            return inside;
        }
        let taps: Vec<String> = self.bridged.keys().map(|tap| format!("\"{tap}\"")).collect();
        nft::set(&mut inside, "taps", "ifname", &taps);
        let macs: Vec<String> = self.bridged.iter().map(|(tap, mac)| format!("\"{tap}\" . {mac}")).collect();
        nft::set(&mut inside, "macs", "ifname . ether_addr", &macs);
        nft::chain(
            &mut inside,
            "prerouting",
            &[
                "type filter hook prerouting priority -300; policy accept;",
                "iifname @taps iifname . ether saddr != @macs drop",
            ],
        );
        inside
    }
}
