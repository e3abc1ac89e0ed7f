//! Whether this host can have networks: tried for real, in a namespace that is removed at once.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use ipnet::Ipv4Net;
use muster_api::{
    ClusterId, MacAddress, NodeId, SecurityGroupId,
    node_protocol::network::{PortProtocol, PublishedPort, Rule, RuleDirection, RuleMatch, RuleRemote},
};

use super::{
    commands::{CommandError, ip_batch, nft, run, set_kernel, within},
    groups,
    host_side::{delete_link, is_on_host},
    names, spoofing,
    wanted::{Card, DnsName, Overlay},
};
use crate::hypervisor::Owner;

/// The programs that are needed, with the packages that have them in Debian.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("ip", "-V", "iproute2"),
    ("bridge", "-V", "iproute2"),
    ("nsenter", "--version", "util-linux"),
    ("nft", "--version", "nftables"),
    ("dnsmasq", "--version", "dnsmasq-base"),
];
/// The number of the tunnel that is tried. The controller gives numbers from 1 upwards.
const VNI: u32 = (1 << 24) - 1;

/// Tries everything that a network needs.
///
/// # Errors
/// What this host lacks and what to do, in a sentence.
pub async fn lacking(owner: Owner, tunnel: SocketAddr) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the agent does not run as root".to_owned());
    }
    let mut packages = Vec::new();
    for (program, version, package) in PROGRAMS {
        if run(program, &[version], "").await.is_err() && !packages.contains(&package) {
            packages.push(package);
        }
    }
    if !packages.is_empty() {
        return Err(format!("programs are missing: apt-get install {}", packages.join(" ")));
    }
    bridge_filter().await.map_err(|error| error.to_string())?;
    let namespace = names::namespace_prefix(owner) + "probe";
    clear(&namespace).await;
    let tried = try_all(&namespace, tunnel).await;
    clear(&namespace).await;
    tried.map_err(|error| format!("the kernel refused a trial network ({error}): see which module it lacks"))
}

/// What a host without identity asks for: nobody has this owner.
///
/// # Errors
/// As [`lacking`].
pub async fn lacking_anywhere(tunnel: SocketAddr) -> Result<(), String> {
    lacking(Owner { cluster: ClusterId::generate(), node: NodeId::generate() }, tunnel).await
}

/// Security groups are rules for IP, and packets between guests of one bridge pass those only with `br_netfilter`.
/// Where the agent loads it, it is turned off for the host's own bridges, for which it was off before.
async fn bridge_filter() -> Result<(), CommandError> {
    let is_there = || std::path::Path::new("/proc/sys/net/bridge").exists();
    if is_there() {
        return Ok(());
    }
    run("modprobe", &["br_netfilter"], "").await?;
    if !is_there() {
        return Err(CommandError::new("modprobe br_netfilter", "/proc/sys/net/bridge is still missing"));
    }
    let off = |what: &str| (format!("bridge/bridge-nf-call-{what}"), "0");
    set_kernel(None, vec![off("iptables"), off("ip6tables"), off("arptables")]).await
}

/// Makes what a network is made of.
async fn try_all(namespace: &str, tunnel: SocketAddr) -> Result<(), CommandError> {
    run("ip", &["netns", "add", namespace], "").await?;
    let (uplink, unmoved) = (names::uplink(namespace), names::unmoved_tunnel(namespace));
    let local = if is_on_host(tunnel.ip()) { format!(" local {}", tunnel.ip()) } else { String::new() };
    let lines = [
        format!("link add {uplink} type veth peer name {} netns {namespace}", names::UPLINK),
        format!("link add {unmoved} type vxlan id {VNI} dstport {} nolearning{local}", tunnel.port()),
        format!("link set {unmoved} netns {namespace} name {}", names::VXLAN),
    ];
    ip_batch(None, &lines).await?;
    let lines = [
        format!("link add {} type bridge nf_call_iptables 1 nf_call_ip6tables 1", names::BRIDGE),
        format!("link set {} master {} up", names::VXLAN, names::BRIDGE),
        format!("link set {} type bridge_slave learning off flood off", names::VXLAN),
    ];
    ip_batch(Some(namespace), &lines).await?;
    nft(Some(namespace), &trial_rules().map_err(|error| CommandError::new("a trial ruleset", error))?).await?;
    within(namespace, "nft", &["list", "ruleset"], "").await.map(drop)
}

/// The rules of a network with one card.
fn trial_rules() -> Result<String, String> {
    let address = |last| Ipv4Addr::new(10, 0, 0, last);
    let name = DnsName::parse("trial")?;
    let group = SecurityGroupId::generate();
    let rule = |direction| Rule { direction, matches: RuleMatch::Any, remote: RuleRemote::Group(group) };
    let card = Card {
        host_name: name.clone(),
        mac: MacAddress::new([0x52, 0xff, 0xff, 0xff, 0, 2]),
        v4: Some(address(2)),
        v6: None,
        groups: vec![group],
    };
    let port = PublishedPort { node_port: 30_000, protocol: PortProtocol::Tcp, address: address(2), port: 22 };
    let overlay = Overlay {
        vni: VNI,
        outside: true,
        subnet_v4: Ipv4Net::new_assert(address(0), 24),
        gateway_v4: address(1),
        v6: None,
        gateway_mac: MacAddress::new([0x52, 0xff, 0xff, 0xff, 0, 0]),
        dns: Vec::new(),
        domain: name,
        elsewhere: Vec::new(),
        published: vec![port],
        groups: BTreeMap::from([(group, vec![rule(RuleDirection::In), rule(RuleDirection::Out)])]),
    };
    let cards = [card];
    Ok(spoofing::rules(NodeId::generate(), &overlay, &cards) + &groups::rules(&overlay, &cards))
}

async fn clear(namespace: &str) {
    for link in [names::uplink(namespace), names::unmoved_tunnel(namespace)] {
        let _was_not_there = delete_link(&link).await;
    }
    if super::commands::namespace_file(namespace).exists() {
        let _gone_already = ip_batch(Some(namespace), &[format!("link delete {}", names::VXLAN)]).await;
        if let Err(error) = run("ip", &["netns", "delete", namespace], "").await {
            tracing::warn!(%error, "the namespace of a trial network stays");
        }
    }
}
