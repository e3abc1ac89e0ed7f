//! Makes one network with a bridge of its own true: by level, each step safe to repeat (I9), in an order in which
//! nothing is reached before its rules are there.
//!
//! ```text
//!  namespace --> its rules --> uplink, rules of the host --> tunnel's end --> bridge --> entries --> dnsmasq
//! ```
//! The tunnel's end is made in the host's namespace and then moved, because its packets belong there. It is not on the
//! bridge itself but one hop away, behind a veth. Between agents on one host the kernel hands packets from one end to
//! the other without sending them, and forgets to take off what the connection tracking of the first namespace knew. A
//! veth does.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_api::MacAddress;

use super::{
    commands::{CommandError, bridge_batch, ip_batch, namespace_file, nft, run, set_kernel},
    dhcp,
    dnsmasq::Dnsmasq,
    forwarding, groups,
    host_side::{HostSide, delete_link, is_on_host, node_name_servers},
    links::{self, Link},
    names::{self, BRIDGE, HOP, HOP_PORT, TAP_PREFIX, TUNNEL, UPLINK, VXLAN},
    spoofing,
    wanted::{Card, Overlay, Wanted},
};
use crate::hypervisor::Owner;

/// What a network is made with.
pub(super) struct Segment<'a> {
    pub(super) owner: Owner,
    /// Where this node takes tunnel packets.
    pub(super) tunnel: SocketAddr,
    pub(super) host: &'a HostSide,
    /// The folder for the files of its server.
    pub(super) folder: PathBuf,
    pub(super) namespace: String,
    pub(super) wanted: &'a Wanted,
    pub(super) overlay: &'a Overlay,
    /// All networks of the node, for the rules of the host.
    pub(super) all: &'a [Arc<Wanted>],
}

impl Segment<'_> {
    /// Makes everything, and returns the ruleset. `loaded` is the one that is known to be in the namespace; `first`
    /// says that this process did not make the network before.
    pub(super) async fn make(&self, loaded: Option<&str>, first: bool) -> Result<String, CommandError> {
        let namespace = Some(self.namespace.as_str());
        let links = self.ensure_namespace().await?;
        self.set_kernel().await?;
        let has = |name: &str| links.iter().any(|link| link.name == name);
        let cards = &self.wanted.here;
        let rules = spoofing::rules(self.owner.node, self.overlay, cards) + &groups::rules(self.overlay, cards);
        // A namespace without a bridge is a new one, whatever is remembered.
        if loaded != Some(rules.as_str()) || !has(BRIDGE) {
            nft(namespace, &rules).await?;
        }
        let uplink = if self.overlay.outside {
            let network = self.wanted.network;
            Some(self.host.uplink(network, &self.namespace, has(UPLINK), self.all).await?)
        } else {
            self.host.refresh(self.all, false).await?;
            None
        };
        self.ensure_tunnel(&links).await?;
        let mut lines = Vec::new();
        let (mac, mtu) = (self.overlay.gateway_mac, self.wanted.mtu);
        if !has(BRIDGE) {
            lines.push(format!("link add {BRIDGE} address {mac} type bridge"));
        }
        lines.push(format!(
            "link set {BRIDGE} type bridge mcast_snooping 0 stp_state 0 forward_delay 0 nf_call_iptables 1 \
             nf_call_ip6tables 1"
        ));
        lines.push(format!(
            "address replace {}/{} dev {BRIDGE}",
            self.overlay.gateway_v4,
            self.overlay.subnet_v4.prefix_len()
        ));
        if let Some((gateway, subnet)) = self.overlay.v6 {
            lines.push(format!("address replace {gateway}/{} dev {BRIDGE} nodad", subnet.prefix_len()));
        }
        lines.push("link set lo up".to_owned());
        if !has(HOP) {
            lines.push(format!("link add {HOP} type bridge"));
        }
        if !has(TUNNEL) {
            lines.push(format!("link add {TUNNEL} type veth peer name {HOP_PORT}"));
        }
        lines.push(format!("link set {HOP} type bridge mcast_snooping 0 stp_state 0 forward_delay 0"));
        lines.push(format!("link set {HOP} mtu {mtu} addrgenmode none"));
        for (name, master, flood) in [(VXLAN, HOP, "on"), (HOP_PORT, HOP, "on"), (TUNNEL, BRIDGE, "off")] {
            lines.extend(port(name, master, flood, mtu));
        }
        lines.push(format!("link set {HOP} up"));
        lines.push(format!("link set {BRIDGE} mtu {mtu} up"));
        if let Some(slot) = uplink {
            lines.push(format!("address replace {}/30 dev {UPLINK}", slot.inner()));
            lines.push(format!("link set {UPLINK} addrgenmode none"));
            lines.push(format!("link set {UPLINK} up"));
            lines.push(format!("route replace default via {} dev {UPLINK}", slot.outer()));
        }
        // A card that lost its place, because a start was interrupted or somebody made the bridge anew.
        let strays = links.iter().filter(|link| link.name.starts_with(TAP_PREFIX) && link.master.is_none());
        let strays: Vec<&Card> = strays.filter_map(|link| self.card_of(&link.name)).collect();
        for card in &strays {
            lines.extend(port(&names::tap(self.owner.node, card.mac), BRIDGE, "off", mtu));
        }
        ip_batch(namespace, &lines).await?;
        self.ensure_entries(&strays).await?;
        let node_dns = node_name_servers();
        let files = dhcp::files(self.overlay, mtu, cards, &node_dns, &self.folder);
        self.dnsmasq().ensure(&files, first).await?;
        Ok(rules)
    }

    /// Sets how the namespace treats packets, before there are interfaces in it.
    async fn set_kernel(&self) -> Result<(), CommandError> {
        let mut settings = vec![
            ("ipv4/conf/all/send_redirects", "0"),
            // The one bridge whose packets pass the rules for IP says so itself.
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("bridge/bridge-nf-call-arptables", "0"),
        ];
        if self.overlay.outside {
            settings.push(("ipv4/ip_forward", "1"));
        }
        match self.overlay.v6 {
            // dnsmasq would wait until it is known that nobody else has the gateway's addresses.
            Some(_) => settings.push(("ipv6/conf/default/accept_dad", "0")),
            None if Path::new("/proc/sys/net/ipv6").exists() => settings.push(("ipv6/conf/default/disable_ipv6", "1")),
            None => {}
        }
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        set_kernel(Some(&self.namespace), settings).await
    }

    fn card_of(&self, tap: &str) -> Option<&Card> {
        self.wanted.here.iter().find(|card| names::tap(self.owner.node, card.mac) == tap)
    }

    fn dnsmasq(&self) -> Dnsmasq {
        Dnsmasq::new(self.namespace.clone(), self.folder.clone())
    }

    /// Makes the namespace, and lists what is in it.
    async fn ensure_namespace(&self) -> Result<Vec<Link>, CommandError> {
        let file = namespace_file(&self.namespace);
        if file.exists() {
            match links::links(&self.namespace).await {
                Ok(links) => return Ok(links),
                // What made it was interrupted before it was one.
                Err(error) if error.detail.contains("Invalid argument") || error.detail.contains("invalid") => {
                    run("ip", &["netns", "delete", &self.namespace], "").await?;
                }
                Err(error) => return Err(error),
            }
        }
        run("ip", &["netns", "add", &self.namespace], "").await?;
        links::links(&self.namespace).await
    }

    /// Makes this node's end of the tunnels.
    async fn ensure_tunnel(&self, links: &[Link]) -> Result<(), CommandError> {
        let (own, vni) = (self.tunnel, self.overlay.vni);
        // Packets leave with the address that the others let in. An address that others see and the host does not have
        // is translated on the way.
        let local = is_on_host(own.ip()).then_some(own.ip());
        if let Some(there) = links.iter().find(|link| link.name == VXLAN) {
            let is = there.tunnel().is_some_and(|t| (t.id, t.port, t.local) == (Some(vni), Some(own.port()), local));
            if is {
                return Ok(());
            }
            ip_batch(Some(&self.namespace), &[format!("link delete {VXLAN}")]).await?;
        }
        let unmoved = names::unmoved_tunnel(&self.namespace);
        delete_link(&unmoved).await?;
        let local = local.map(|ip| format!(" local {ip}")).unwrap_or_default();
        let lines = [
            format!("link add {unmoved} type vxlan id {vni} dstport {} nolearning{local}", own.port()),
            format!("link set {unmoved} netns {} name {VXLAN}", self.namespace),
        ];
        ip_batch(None, &lines).await
    }

    /// Makes the forwarding entries: those of the tunnel, and those of cards that lost their place.
    async fn ensure_entries(&self, strays: &[&Card]) -> Result<(), CommandError> {
        let listed = run("bridge", &["-n", &self.namespace, "-json", "fdb", "show", "dev", VXLAN], "").await?;
        let there = forwarding::listed(&listed, self.tunnel.port())
            .map_err(|error| CommandError::new("bridge -json fdb show", error))?;
        let mut lines = forwarding::changes(&there, &forwarding::wanted(self.overlay, self.tunnel));
        lines.extend(strays.iter().map(|card| entry(&names::tap(self.owner.node, card.mac), card.mac)));
        bridge_batch(Some(&self.namespace), &lines).await
    }

    /// Puts the taps of cards onto the bridge. Each is in the host's namespace or already in that of the network.
    pub(super) async fn attach(&self, cards: &[MacAddress]) -> Result<(), CommandError> {
        let taps: Vec<String> = cards.iter().map(|mac| names::tap(self.owner.node, *mac)).collect();
        let on_host = taps.iter().filter(|tap| Path::new("/sys/class/net").join(tap).exists());
        let moves: Vec<String> = on_host.map(|tap| format!("link set {tap} netns {}", self.namespace)).collect();
        ip_batch(None, &moves).await?;
        let namespace = Some(self.namespace.as_str());
        let ports: Vec<String> = taps.iter().flat_map(|tap| port(tap, BRIDGE, "off", self.wanted.mtu)).collect();
        ip_batch(namespace, &ports).await?;
        let entries: Vec<String> = taps.iter().zip(cards).map(|(tap, mac)| entry(tap, *mac)).collect();
        bridge_batch(namespace, &entries).await
    }
}

/// Lines that make an interface a port of a bridge, which learns nothing. With `flood` off it sends nothing there but
/// what is for a known card, and broadcast.
fn port(name: &str, bridge: &str, flood: &str, mtu: u16) -> [String; 3] {
    [
        format!("link set {name} mtu {mtu} master {bridge} addrgenmode none"),
        format!("link set {name} type bridge_slave learning off flood {flood}"),
        format!("link set {name} up"),
    ]
}

/// The line that says that a card is behind its tap.
fn entry(tap: &str, mac: MacAddress) -> String {
    format!("fdb replace {mac} dev {tap} master static")
}

/// Removes a namespace and all that belongs to it. One in which a guest has a card stays: the guest would lose it.
pub(super) async fn remove(
    host: &HostSide,
    namespace: &str,
    folder: PathBuf,
    all: &[Arc<Wanted>],
) -> Result<(), CommandError> {
    let there = links::links(namespace).await.unwrap_or_default();
    let taps: BTreeSet<&str> =
        there.iter().map(|link| link.name.as_str()).filter(|name| name.starts_with(TAP_PREFIX)).collect();
    if !taps.is_empty() {
        let cards = taps.into_iter().collect::<Vec<_>>().join(", ");
        return Err(CommandError::new(
            format!("removing {namespace}"),
            format!("guests still have cards in it: {cards}"),
        ));
    }
    Dnsmasq::new(namespace.to_owned(), folder.clone()).stop().await?;
    host.remove(namespace, all).await?;
    if there.iter().any(|link| link.name == VXLAN) {
        // At once: the kernel takes namespaces down later, and a new tunnel with the same number may come before that.
        ip_batch(Some(namespace), &[format!("link delete {VXLAN}")]).await?;
    }
    run("ip", &["netns", "delete", namespace], "").await?;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::new("removing its files", error))
        }
        _ => Ok(()),
    }
}
