//! Behind which node each member of a network is: the forwarding entries of its tunnel. Pure but for their text form.
//!
//! An entry per member of another node, and one for all-zero per node with a member, to which ARP and neighbour
//! discovery go. Nothing is learned and nothing else is flooded.

use std::{collections::BTreeSet, net::SocketAddr};

use muster_api::MacAddress;
use serde::Deserialize;

use super::{
    names::{TUNNEL, VXLAN},
    wanted::Overlay,
};

/// Where frames to everybody go.
const EVERYBODY: MacAddress = MacAddress::new([0; 6]);

/// One entry: frames to this address go to the node that takes tunnel packets there.
pub(super) type Entry = (MacAddress, SocketAddr);

/// The entries that there should be. `own` is where this node takes tunnel packets; nodes that do so over the other
/// version of IP cannot be reached.
pub(super) fn wanted(overlay: &Overlay, own: SocketAddr) -> BTreeSet<Entry> {
    let reachable = overlay.elsewhere.iter().filter_map(|(card, tunnel)| Some((card.mac, (*tunnel)?)));
    let reachable = reachable.filter(|(_, tunnel)| tunnel.is_ipv4() == own.is_ipv4());
    reachable.flat_map(|(mac, tunnel)| [(mac, tunnel), (EVERYBODY, tunnel)]).collect()
}

/// A line of `bridge -json fdb show`.
#[derive(Debug, Deserialize)]
struct Line {
    mac: String,
    #[serde(default)]
    dst: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    flags: Vec<String>,
}

/// The entries that `bridge -json fdb show dev vx0` lists.
pub(super) fn listed(json: &str, own_port: u16) -> Result<BTreeSet<Entry>, serde_json::Error> {
    // It prints nothing at all where there is nothing to list.
    if json.trim().is_empty() {
        return Ok(BTreeSet::new());
    }
    let lines: Vec<Line> = serde_json::from_str(json)?;
    let entry = |line: Line| {
        let to = line.dst.filter(|_| line.flags.iter().any(|flag| flag == "self"))?;
        // The port is listed where it is not that of the device.
        Some((line.mac.parse().ok()?, SocketAddr::new(to.parse().ok()?, line.port.unwrap_or(own_port))))
    };
    Ok(lines.into_iter().filter_map(entry).collect())
}

/// The commands for `bridge -batch` that make the entries from those that are there.
pub(super) fn changes(there: &BTreeSet<Entry>, wanted: &BTreeSet<Entry>) -> Vec<String> {
    let mut lines = Vec::new();
    for (mac, to) in there.difference(wanted) {
        lines.push(format!("fdb del {mac} dev {VXLAN} dst {} port {} self", to.ip(), to.port()));
        if *mac != EVERYBODY && !wanted.iter().any(|(other, _)| other == mac) {
            lines.push(format!("fdb del {mac} dev {TUNNEL} master"));
        }
    }
    for (mac, to) in wanted.difference(there) {
        let at = format!("{mac} dev {VXLAN} dst {} port {} self static", to.ip(), to.port());
        if *mac == EVERYBODY {
            lines.push(format!("fdb append {at}"));
        } else {
            lines.push(format!("fdb replace {at}"));
            lines.push(format!("fdb replace {mac} dev {TUNNEL} master static"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mac: &str, to: &str) -> Entry {
        (mac.parse().expect("mac"), to.parse().expect("address"))
    }

    #[test]
    fn what_bridge_lists_is_read_back() {
        let json = r#"[{"mac":"52:00:00:4d:00:06","flags":[],"master":"br0","state":"static"},
            {"mac":"52:00:00:4d:00:06","dst":"127.0.0.1","port":47992,"linkNetNsId":0,"flags":["self"],"state":"static"},
            {"mac":"00:00:00:00:00:00","dst":"127.0.0.1","flags":["self"],"state":"static"}]"#;
        let expected = [entry("52:00:00:4d:00:06", "127.0.0.1:47992"), entry("00:00:00:00:00:00", "127.0.0.1:4789")];
        assert_eq!(listed(json, 4789).expect("JSON"), BTreeSet::from(expected));
        assert_eq!(listed("", 1).expect("nothing"), BTreeSet::new());
    }

    #[test]
    fn only_what_differs_is_changed() {
        let there = BTreeSet::from([
            entry("52:00:00:00:00:01", "10.0.0.1:1"),
            entry("52:00:00:00:00:02", "10.0.0.1:1"),
            entry("52:00:00:00:00:03", "10.0.0.1:1"),
            entry("00:00:00:00:00:00", "10.0.0.1:1"),
        ]);
        let wanted = BTreeSet::from([
            entry("52:00:00:00:00:01", "10.0.0.1:1"),
            entry("52:00:00:00:00:02", "10.0.0.2:2"),
            entry("00:00:00:00:00:00", "10.0.0.1:1"),
            entry("00:00:00:00:00:00", "10.0.0.2:2"),
        ]);
        assert_eq!(
            changes(&there, &wanted),
            [
                "fdb del 52:00:00:00:00:02 dev vx0 dst 10.0.0.1 port 1 self",
                "fdb del 52:00:00:00:00:03 dev vx0 dst 10.0.0.1 port 1 self",
                "fdb del 52:00:00:00:00:03 dev tun0 master",
                "fdb append 00:00:00:00:00:00 dev vx0 dst 10.0.0.2 port 2 self static",
                "fdb replace 52:00:00:00:00:02 dev vx0 dst 10.0.0.2 port 2 self static",
                "fdb replace 52:00:00:00:00:02 dev tun0 master static",
            ]
        );
        assert_eq!(changes(&wanted, &wanted), Vec::<String>::new());
    }
}
