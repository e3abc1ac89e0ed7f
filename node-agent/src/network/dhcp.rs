//! The files of the server that gives the guests of a network their addresses, and answers for their names. Pure.
//!
//! Only addresses that the controller gave are given, by MAC address: the server has no range to choose from.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use super::{
    names::BRIDGE,
    wanted::{Card, Overlay},
};

/// Its files, without their folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    /// What is read at its start only.
    pub(super) conf: String,
    /// MAC addresses of this node's cards with what they get. Read again after SIGHUP.
    pub(super) leases: String,
    /// Names of all members. Read again after SIGHUP.
    pub(super) hosts: String,
}

/// The name of the configuration in the folder of a network.
pub(super) const CONF: &str = "dnsmasq.conf";
/// The name of the file with the leases.
pub(super) const LEASES: &str = "leases";
/// The name of the file with the names.
pub(super) const HOSTS: &str = "hosts";
/// The name of the file with the id of the process.
pub(super) const PID: &str = "dnsmasq.pid";

/// The files for a network. `node_dns` are the name servers that the node uses itself.
pub(super) fn files(overlay: &Overlay, mtu: u16, here: &[Card], node_dns: &[IpAddr], folder: &Path) -> Files {
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let mut conf = String::new();
    let mut line = |text: String| {
        conf.push_str(&text);
        conf.push('\n');
    };
    for (key, name) in [("pid-file", PID), ("dhcp-hostsfile", LEASES), ("addn-hosts", HOSTS)] {
        line(format!("{key}={}", in_folder(name)));
    }
    for key in [
        "no-hosts",
        "no-resolv",
        "bind-interfaces",
        "except-interface=lo",
        "leasefile-ro",
        "dhcp-authoritative",
        // Forks of one disk call themselves by the same client id.
        "dhcp-ignore-clid",
        "dhcp-ignore=tag:!known",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        "expand-hosts",
        "domain-needed",
        "bogus-priv",
        "cache-size=1000",
    ] {
        line(key.to_owned());
    }
    let domain = overlay.domain.as_str();
    let gateway = overlay.gateway_v4;
    line(format!("interface={BRIDGE}"));
    line(format!("domain={domain}"));
    line(format!("local=/{domain}/"));
    line(format!("dhcp-range={},static,{},1h", overlay.subnet_v4.network(), overlay.subnet_v4.netmask()));
    if overlay.outside {
        line(format!("dhcp-option=option:router,{gateway}"));
        let servers = if overlay.dns.is_empty() { node_dns } else { &overlay.dns };
        for server in servers {
            line(format!("server={server}"));
        }
    } else {
        line("dhcp-option=option:router".to_owned());
    }
    line(format!("dhcp-option=option:dns-server,{gateway}"));
    line(format!("dhcp-option=option:domain-search,{domain}"));
    line(format!("dhcp-option=option:mtu,{mtu}"));
    if let Some((gateway, subnet)) = overlay.v6 {
        line(format!("dhcp-range={},static,{},1h", subnet.network(), subnet.prefix_len()));
        line("enable-ra".to_owned());
        // Its life is 0: this gateway leads nowhere over IPv6.
        line(format!("ra-param={BRIDGE},mtu:{mtu},60,0"));
        line(format!("dhcp-option=option6:dns-server,[{gateway}]"));
        line(format!("dhcp-option=option6:domain-search,{domain}"));
    }
    let mut leases = String::new();
    for card in here {
        let v6 = card.v6.filter(|_| overlay.v6.is_some()).map(|address| format!(",[{address}]")).unwrap_or_default();
        if let Some(v4) = card.v4 {
            let _ = writeln!(leases, "{},{v4}{v6},{}", card.mac, card.host_name.as_str());
        }
    }
    let mut hosts = String::new();
    for card in here.iter().chain(overlay.elsewhere.iter().map(|(card, _)| card)) {
        let addresses = card.v4.map(IpAddr::V4).into_iter().chain(card.v6.map(IpAddr::V6));
        for address in addresses {
            let _ = writeln!(hosts, "{address} {}", card.host_name.as_str());
        }
    }
    Files { conf, leases, hosts }
}

/// The name servers in a `resolv.conf` that a namespace can ask: not those on the host's loopback.
pub(super) fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).filter(|ip| !ip.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_that_a_namespace_reaches_are_taken() {
        let text = "# x\nnameserver 127.0.0.53\nsearch lan\n nameserver 192.0.2.1 \nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
    }
}
