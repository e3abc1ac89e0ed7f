//! `muster network …` and `muster security-group …`.

use std::net::{IpAddr, Ipv4Addr};

use clap::Subcommand;
use ipnet::{Ipv4Net, Ipv6Net};
use muster_api::{network::NetworkMode, security_group::CreateRule};

use super::{Listing, Removal, word_of_api};
use crate::{rule, units};

const RULES: &str = "\
A rule is DIRECTION:PROTOCOL[:PORTS][:OTHER SIDE]. Answers to what a rule lets
through always pass, and everything else is dropped.
  in:tcp:22                   connections to port 22, from everywhere
  in:tcp:80-90:10.0.0.0/8     to ports 80 to 90, from these addresses
  in:any:group=web            everything from cards with the group web
  in:icmp                     ping
  out:any                     everything that the instance sends";

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network
    Create {
        /// Name of the network
        name: String,
        /// Range of its IPv4 addresses, /16 to /29; it may overlap with others [default: the cluster's]
        #[arg(long, value_name = "RANGE")]
        subnet: Option<Ipv4Net>,
        /// Range of its IPv6 addresses, a /64 within fd00::/8 [default: none]
        #[arg(long, value_name = "RANGE")]
        subnet_v6: Option<Ipv6Net>,
        /// Address of the gateway [default: the first of the subnet]
        #[arg(long, value_name = "IP")]
        gateway: Option<Ipv4Addr>,
        /// Name server; may be given up to 3 times [default: those of the nodes]
        #[arg(long, value_name = "IP")]
        dns: Vec<IpAddr>,
        /// Largest packet in bytes [default: 1450, with --mode bridge 1500]
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// nat reaches the outside, isolated does not, bridge is a bridge of the hosts (operators) [default: nat]
        #[arg(long, value_parser = word_of_api::<NetworkMode>(["nat", "isolated", "bridge"]))]
        mode: Option<NetworkMode>,
        /// With --mode bridge: name of the bridge on the hosts
        #[arg(long, value_name = "NAME")]
        bridge: Option<String>,
        /// Label of the network; may be given many times
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
    },
    /// List networks, by name
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one network
    Show {
        /// Name or id of the network
        network: String,
    },
    /// Change a network; what is not given stays
    Set {
        /// Name or id of the network
        network: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Name server, instead of those before; may be given up to 3 times
        #[arg(long, value_name = "IP", conflicts_with = "no_dns")]
        dns: Vec<IpAddr>,
        /// Use the name servers of the nodes
        #[arg(long)]
        no_dns: bool,
        /// Largest packet in bytes; instances learn it when they next ask for their address
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
    },
    /// Delete networks that nothing uses
    #[command(alias = "delete")]
    Rm(Removal),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecurityGroupCommand {
    /// Make a security group
    #[command(after_long_help = RULES)]
    Create {
        /// Name of the group
        name: String,
        /// What it lets through, for example in:tcp:22; may be given many times (--help tells more)
        #[arg(long, value_name = "RULE", value_parser = rule::parse)]
        allow: Vec<CreateRule>,
        /// Label of the group; may be given many times
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
    },
    /// List security groups, by name
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one security group with its rules
    Show {
        /// Name or id of the group
        security_group: String,
    },
    /// Change a security group; what is not given stays
    #[command(after_long_help = RULES)]
    Set {
        /// Name or id of the group
        security_group: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// What it lets through, instead of all rules before; may be given many times (--help tells more)
        #[arg(long, value_name = "RULE", value_parser = rule::parse, conflicts_with = "allow_nothing")]
        allow: Vec<CreateRule>,
        /// Remove all rules
        #[arg(long)]
        allow_nothing: bool,
    },
    /// Delete security groups that nothing uses
    #[command(alias = "delete")]
    Rm(Removal),
}
