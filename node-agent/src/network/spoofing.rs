//! Which frames may enter a network, and which may leave it by its tunnels: the table of the family `bridge` in a
//! namespace. Pure.
//!
//! A guest sends with its own addresses only, also in ARP and in neighbour discovery, and is no DHCP server and no
//! router. It receives what is sent to its own addresses. There is no broadcast and multicast but what finds addresses,
//! as at any cloud. Tunnels carry nothing of the gateway, which is on each node, and no DHCP.
//!
//! The table is flushed and filled anew, so that its counter goes on.

use std::{fmt::Write as _, net::Ipv6Addr};

use muster_api::{MacAddress, NodeId};

use super::{
    names::{self, HOP_PORT, TABLE, TUNNEL, VXLAN},
    nft,
    wanted::{Card, Overlay},
};

/// The counter of frames that were dropped because their sender was not who it said.
pub(super) const SPOOFED: &str = "spoofed";

/// The address that a card gives itself on its link.
pub(super) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// An IPv6 address as raw bytes of a packet are written.
fn raw(address: Ipv6Addr) -> String {
    format!("0x{}", hex::encode(address.octets()))
}

/// The ruleset of the family `bridge` for the namespace of a network.
pub(super) fn rules(node: NodeId, overlay: &Overlay, here: &[Card]) -> String {
    let ports: Vec<(String, &Card)> = here.iter().map(|card| (names::tap(node, card.mac), card)).collect();
    let macs: Vec<String> = ports.iter().map(|(port, card)| format!("\"{port}\" . {}", card.mac)).collect();
    let with_v4: Vec<(&String, MacAddress, String)> =
        ports.iter().filter_map(|(port, card)| Some((port, card.mac, card.v4?.to_string()))).collect();
    let arps: Vec<String> = with_v4.iter().map(|(port, mac, v4)| format!("\"{port}\" . {mac} . {v4}")).collect();
    let v4: Vec<String> = with_v4.iter().map(|(port, _, v4)| format!("\"{port}\" . {v4}")).collect();
    let own_v6 = |card: &Card| -> Vec<Ipv6Addr> {
        if overlay.v6.is_none() { Vec::new() } else { card.v6.into_iter().chain([link_local(card.mac)]).collect() }
    };
    let v6: Vec<String> = ports
        .iter()
        .flat_map(|(port, card)| own_v6(card).into_iter().map(move |address| format!("\"{port}\" . {address}")))
        .collect();

    let mut out = format!("table bridge {TABLE}\nflush table bridge {TABLE}\n");
    for (name, of) in SETS {
        let _ = write!(out, "add set bridge {TABLE} {name} {{ type {of}; }}\nflush set bridge {TABLE} {name}\n");
    }
    let mut inside = format!("\tcounter {SPOOFED} {{\n\t}}\n");
    for ((name, of), elements) in SETS.into_iter().zip([&macs, &arps, &v4, &v6]) {
        nft::set(&mut inside, name, of, elements);
    }
    let drop = format!("counter name {SPOOFED} drop");
    nft::chain(&mut inside, "tunnel", &tunnel(overlay));
    let mut discovery = Vec::new();
    for (port, card) in &ports {
        let targets: Vec<String> = own_v6(card).into_iter().map(raw).collect();
        if !targets.is_empty() {
            discovery.push(format!("iifname \"{port}\" @th,64,128 {{ {} }} accept", targets.join(", ")));
        }
    }
    discovery.push(drop.clone());
    nft::chain(&mut inside, "guest_discovery", &discovery);
    nft::chain(
        &mut inside,
        "guest_arp",
        &[
            "iifname . arp saddr ether . arp saddr ip @arps accept",
            // Whether an address is free is asked without one.
            "arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept",
            &drop,
        ],
    );
    nft::chain(
        &mut inside,
        "guest_v4",
        &[
            &format!("udp sport 67 {drop}"),
            "iifname . ip saddr @v4 accept",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
            &drop,
        ],
    );
    nft::chain(
        &mut inside,
        "guest_v6",
        &[
            &format!("udp sport 547 {drop}"),
            &format!("icmpv6 type {{ nd-router-advert, nd-redirect }} {drop}"),
            "icmpv6 type nd-neighbor-advert goto guest_discovery",
            "iifname . ip6 saddr @v6 accept",
            "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
            &drop,
        ],
    );
    nft::chain(
        &mut inside,
        "guest",
        &[
            &format!("iifname . ether saddr != @macs {drop}"),
            "ether type vmap { arp : goto guest_arp, ip : goto guest_v4, ip6 : goto guest_v6 }",
            "drop",
        ],
    );
    let between = format!("iifname {{ \"{VXLAN}\", \"{HOP_PORT}\" }} accept");
    nft::chain(
        &mut inside,
        "prerouting",
        &[
            "type filter hook prerouting priority -300; policy accept;",
            &between,
            &format!("iifname \"{TUNNEL}\" goto tunnel"),
            "goto guest",
        ],
    );
    nft::chain(
        &mut inside,
        "forward",
        &[
            "type filter hook forward priority 0; policy accept;",
            &between,
            "ether type arp jump to_tunnel",
            "ether type arp accept",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } jump to_tunnel",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            "ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 drop",
            &format!("oifname \"{TUNNEL}\" goto tunnel"),
            "ether type ip oifname . ip daddr @v4 accept",
            "ether type ip6 oifname . ip6 daddr @v6 accept",
            "drop",
        ],
    );
    nft::chain(&mut inside, "to_tunnel", &[format!("oifname \"{TUNNEL}\" goto tunnel")]);
    nft::chain(
        &mut inside,
        "output",
        &["type filter hook output priority 0; policy accept;", &format!("oifname \"{TUNNEL}\" goto tunnel")],
    );
    let _ = write!(out, "table bridge {TABLE} {{\n{inside}}}\n");
    out
}

/// The sets of the table, with what is in them.
const SETS: [(&str, &str); 4] = [
    ("macs", "ifname . ether_addr"),
    ("arps", "ifname . ether_addr . ipv4_addr"),
    ("v4", "ifname . ipv4_addr"),
    ("v6", "ifname . ipv6_addr"),
];

/// What no tunnel carries, in either direction: the gateway is on each node, and so is the server of addresses.
fn tunnel(overlay: &Overlay) -> Vec<String> {
    let mac = overlay.gateway_mac;
    let mut rules = vec![
        format!("ether saddr {mac} drop"),
        format!("ether daddr {mac} drop"),
        format!("arp daddr ip {} drop", overlay.gateway_v4),
        format!("arp saddr ip {} drop", overlay.gateway_v4),
        "udp dport { 67, 68, 546, 547 } drop".to_owned(),
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop".to_owned(),
    ];
    if let Some((gateway, _)) = overlay.v6 {
        for target in [gateway, link_local(mac)] {
            rules.push(format!(
                "icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} @th,64,128 {} drop",
                raw(target)
            ));
        }
    }
    rules
}
