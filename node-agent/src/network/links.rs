//! What `ip` lists.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Deserialize;

use super::{
    commands::{CommandError, run},
    uplink::Slot,
};

/// One interface.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Link {
    #[serde(rename = "ifname")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) master: Option<String>,
    #[serde(default)]
    linkinfo: Option<Kind>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Clone, Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    info_data: Option<Tunnel>,
}

/// What is known of it if it is a tunnel's end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Tunnel {
    #[serde(default)]
    pub(super) id: Option<u32>,
    #[serde(default)]
    pub(super) port: Option<u16>,
    #[serde(default, alias = "local6")]
    pub(super) local: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    #[serde(default)]
    local: Option<IpAddr>,
}

impl Link {
    pub(super) fn tunnel(&self) -> Option<&Tunnel> {
        self.linkinfo.as_ref()?.info_data.as_ref()
    }

    /// The slots of its addresses.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.addr_info.iter().filter_map(|address| match address.local? {
            IpAddr::V4(v4) => Slot::of(v4),
            IpAddr::V6(_) => None,
        })
    }
}

/// All interfaces of a namespace, with their kinds.
pub(super) async fn links(namespace: &str) -> Result<Vec<Link>, CommandError> {
    read(&["-n", namespace, "-json", "-details", "link", "show"]).await
}

/// The interfaces of the host that have IPv4 addresses.
pub(super) async fn host_addresses() -> Result<Vec<Link>, CommandError> {
    read(&["-json", "-4", "address", "show"]).await
}

/// The slots that interfaces of the host have, except those of one of them.
pub(super) fn taken(links: &[Link], except: &str) -> BTreeSet<Slot> {
    links.iter().filter(|link| link.name != except).flat_map(Link::slots).collect()
}

async fn read(args: &[&str]) -> Result<Vec<Link>, CommandError> {
    let json = run("ip", args, "").await?;
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    // What has no name is no interface: ip lists empty objects for what another call just removed.
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&json).map_err(|error| CommandError::new(format!("ip {}", args.join(" ")), error))?;
    Ok(all.into_iter().filter_map(|link| serde_json::from_value(link).ok()).collect())
}
