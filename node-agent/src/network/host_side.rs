//! What a node has in the host's own network: the outer ends of its uplinks, and its tables of packet filters.
//!
//! Nothing else there is changed but `ip_forward`, which is turned on with the first uplink and stays on: by the time
//! the last one goes, others may rely on it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use muster_api::NetworkId;
use tokio::sync::Mutex;

use super::{
    commands::{CommandError, ip_batch, nft, run, set_kernel},
    dhcp,
    host_rules::HostRules,
    links::{host_addresses, taken},
    names::{self, UPLINK},
    uplink::{self, Slot},
    wanted::{Form, Wanted},
};
use crate::hypervisor::Owner;

/// The host's side of all networks of a node.
pub(super) struct HostSide {
    owner: Owner,
    tunnel_port: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The rules that were last loaded; `None` if it is not known what there is.
    loaded: Option<HostRules>,
    uplinks: BTreeMap<NetworkId, (String, Slot)>,
}

impl HostSide {
    pub(super) fn new(owner: Owner, tunnel: SocketAddr) -> Self {
        Self { owner, tunnel_port: tunnel.port(), state: Mutex::default() }
    }

    /// Makes the host's rules true for these networks. `sure` says that they are loaded also if they should be there.
    pub(super) async fn refresh(&self, all: &[Arc<Wanted>], sure: bool) -> Result<(), CommandError> {
        let mut state = self.state.lock().await;
        self.load(&mut state, all, sure).await
    }

    /// Takes over the uplinks that an earlier process made, so that they are never without their rules.
    async fn adopt(&self, state: &mut State, all: &[Arc<Wanted>]) -> Result<(), CommandError> {
        let links = host_addresses().await?;
        for wanted in all {
            let name = names::uplink(&names::namespace(self.owner, wanted.network));
            let there = links.iter().find(|link| link.name == name).and_then(|link| link.slots().next());
            if let Some(slot) = there {
                state.uplinks.entry(wanted.network).or_insert((name, slot));
            }
        }
        Ok(())
    }

    async fn load(&self, state: &mut State, all: &[Arc<Wanted>], sure: bool) -> Result<(), CommandError> {
        if state.loaded.is_none() {
            self.adopt(state, all).await?;
        }
        let mut rules = HostRules { tunnel_port: self.tunnel_port, ..HostRules::default() };
        for (name, slot) in state.uplinks.values() {
            rules.uplinks.insert(name.clone(), slot.inner());
        }
        for wanted in all {
            match &wanted.form {
                Form::HostBridge(_) => {
                    let tap = |card: &super::wanted::Card| (names::tap(self.owner.node, card.mac), card.mac);
                    rules.bridged.extend(wanted.here.iter().map(tap));
                }
                Form::Overlay(overlay) => {
                    rules.peers.extend(overlay.tunnels());
                    if let Some((_, slot)) = state.uplinks.get(&wanted.network) {
                        rules.published.extend(overlay.published.iter().map(|port| (*port, slot.inner())));
                        let servers = if overlay.dns.is_empty() { &node_name_servers()[..] } else { &overlay.dns };
                        // Others are reached by way of the host, not on it.
                        rules.resolvers.extend(servers.iter().filter(|ip| is_on_host(**ip)));
                    }
                }
            }
        }
        rules.published.sort_unstable_by_key(|(port, _)| (port.protocol, port.node_port));
        if sure || state.loaded.as_ref() != Some(&rules) {
            state.loaded = None;
            nft(None, &rules.text(&names::host_table(self.owner))).await?;
            state.loaded = Some(rules);
        }
        Ok(())
    }

    /// Makes the uplink of a namespace and the rules for it, and returns its addresses. `inside` says whether its inner
    /// end is there.
    pub(super) async fn uplink(
        &self,
        network: NetworkId,
        namespace: &str,
        inside: bool,
        all: &[Arc<Wanted>],
    ) -> Result<Slot, CommandError> {
        let mut state = self.state.lock().await;
        let name = names::uplink(namespace);
        let links = host_addresses().await?;
        let taken = taken(&links, &name);
        let own = links.iter().find(|link| link.name == name).and_then(|link| link.slots().next());
        // Two agents may have taken the same slot at the same moment; one of them is the first to see it.
        let slot = match own.filter(|slot| !taken.contains(slot)) {
            Some(slot) => slot,
            None => uplink::choose(&name, &taken)
                .ok_or_else(|| CommandError::new("choosing the addresses of an uplink", "169.254.0.0/16 is used up"))?,
        };
        if !inside {
            // One end without the other is a rest of a namespace that was deleted a moment ago.
            let _was_not_there = delete_link(&name).await;
            let add = format!("link add {name} type veth peer name {UPLINK} netns {namespace}");
            ip_batch(None, &[add]).await?;
        }
        let mut lines = Vec::new();
        if own.is_some_and(|old| old != slot) {
            lines.push(format!("address flush dev {name}"));
        }
        lines.push(format!("address replace {}/30 dev {name}", slot.outer()));
        lines.push(format!("link set {name} addrgenmode none"));
        lines.push(format!("link set {name} up"));
        ip_batch(None, &lines).await?;
        let settings = vec![
            ("ipv4/ip_forward".to_owned(), "1"),
            // So that published ports are reached from 127.0.0.1. The rules take nothing for it from guests.
            (format!("ipv4/conf/{name}/route_localnet"), "1"),
        ];
        set_kernel(None, settings).await?;
        state.uplinks.insert(network, (name, slot));
        self.load(&mut state, all, false).await?;
        Ok(slot)
    }

    /// Removes what a namespace has in the host's network.
    pub(super) async fn remove(&self, namespace: &str, all: &[Arc<Wanted>]) -> Result<(), CommandError> {
        let mut state = self.state.lock().await;
        let name = names::uplink(namespace);
        state.uplinks.retain(|_, (uplink, _)| *uplink != name);
        for link in [&name, &names::unmoved_tunnel(namespace)] {
            delete_link(link).await?;
        }
        self.load(&mut state, all, false).await
    }

    /// Removes the tables. Only when nothing needs them.
    pub(super) async fn close(&self) -> Result<(), CommandError> {
        let mut state = self.state.lock().await;
        state.loaded = None;
        state.uplinks.clear();
        let table = names::host_table(self.owner);
        let line = |family: &str| format!("table {family} {table}\ndelete table {family} {table}\n");
        nft(None, &(line("inet") + &line("bridge"))).await
    }
}

/// Deletes an interface of the host, if there is one with this name.
pub(super) async fn delete_link(name: &str) -> Result<(), CommandError> {
    match run("ip", &["link", "delete", name], "").await {
        Err(error) if !error.detail.contains("Cannot find device") => Err(error),
        _ => Ok(()),
    }
}

/// The name servers that this host uses, as far as others than itself can ask them.
pub(super) fn node_name_servers() -> Vec<std::net::IpAddr> {
    // systemd-resolved lists itself in the first, and whom it asks in the second.
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        let found = dhcp::name_servers(&std::fs::read_to_string(file).unwrap_or_default());
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Whether an address is one of this host's.
pub(super) fn is_on_host(address: std::net::IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}
