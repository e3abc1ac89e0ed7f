//! The networks of this node: what guests have their cards in. `Desired::networks` says what there should be.
//!
//! ```text
//!  namespace muster-CLUSTER-NODE-NETWORK                        host
//!  +---------------------------------------------------+
//!  | guest ==tap==+                                    |
//!  | guest ==tap==+-- br0 (gateway) --forward-- up0 <==|== veth /30 ==> mu…  --> NAT, published ports
//!  | vx0 -- hop0 ==+     dnsmasq                       |
//!  +--|------------------------------------------------+
//!     +======== VXLAN over UDP, from the host's namespace ==> other nodes with members
//! ```
//!
//! Promises:
//! - One namespace per network and agent, so that several agents and projects on a host can have the same subnet.
//! - Everything carries the names of cluster and node. What is not wanted any more is removed, also after kill -9; at
//!   its orderly end an agent removes everything. Others' networks are not touched.
//! - Of the host's own network there are the outer ends of uplinks, tables of the node's own name in its packet filter,
//!   and `ip_forward` (`host_side`).
//! - By level: a pass compares what is wanted with what was made, and once a minute makes all of it sure. Rules are
//!   replaced in one step, and what is established goes on.
//! - A pass never waits. Each network has its own task, so that one network's trouble delays no other (I11), and every
//!   program has a time limit (I10). Changes that come meanwhile are made together.
//! - An instance waits in [`Networks::ensure`] until its networks are there. Then it is started paused, its taps are
//!   put in their places ([`Networks::attach`]), and it goes on.
//!
//! Tunnel packets are not encrypted. They are taken from the addresses of members only.
//!
//! Reading order: `networks` (all of them), `wanted` (what the node is told, checked), `names`, then the pure texts
//! `spoofing`, `groups`, `host_rules`, `dhcp` and `forwarding`; `segment` and `host_side` (what makes them true),
//! `commands`, `probe` (whether this host can have networks).

mod commands;
mod dhcp;
mod dnsmasq;
mod forwarding;
mod groups;
mod host_rules;
mod host_side;
mod links;
mod names;
mod networks;
mod nft;
pub mod probe;
mod segment;
mod spoofing;
#[cfg(test)]
mod text_tests;
mod uplink;
mod wanted;

use std::{net::SocketAddr, path::PathBuf};

use muster_api::{MacAddress, NetworkId};

pub use self::{
    commands::{CommandError, inside},
    names::tap,
    networks::Networks,
};
use crate::hypervisor::Owner;

/// Why a network, or a card in one, is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// This host cannot have networks.
    #[error("this node can have no networks: {0}")]
    Unable(String),
    /// The controller sent a card and nothing about its network.
    #[error("the controller said nothing of network {0}")]
    Unknown(NetworkId),
    /// What the controller sent cannot be a network.
    #[error("network {network} cannot be made: {detail}")]
    Invalid {
        /// The network.
        network: NetworkId,
        /// What is wrong with it.
        detail: String,
    },
    /// The card is not among those of its network.
    #[error("{title} has no card {mac} on this node")]
    NoCard {
        /// What the network is called.
        title: String,
        /// MAC address of the card.
        mac: MacAddress,
    },
    /// The guest has its address from a network of the host, so nobody here knows it.
    #[error("the addresses in {title} are given by the host's own network, so the guest's is not known")]
    NoAddress {
        /// What the network is called.
        title: String,
    },
    /// A guest did not take a connection.
    #[error("the guest does not answer on port {port} in {title}: {detail}")]
    NoAnswer {
        /// What the network is called.
        title: String,
        /// The TCP port.
        port: u16,
        /// What the kernel said.
        detail: String,
    },
    /// A step failed. It is tried again.
    #[error("{title} could not be made")]
    Step {
        /// What the network is called.
        title: String,
        /// The step, and why it failed.
        #[source]
        source: CommandError,
    },
}

/// What [`Networks`] are made of.
#[derive(Clone, Debug)]
pub struct NetworkParts {
    /// Data folder of the agent. Files of the servers of networks are kept in it.
    pub data_dir: PathBuf,
    /// Whose networks they are.
    pub owner: Owner,
    /// Where this node takes tunnel packets; or why it can have no networks, for people.
    pub tunnel: Result<SocketAddr, String>,
}
