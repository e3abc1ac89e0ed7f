//! `muster node …`.

use clap::Subcommand;

use super::{Listing, Removal};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes, by name
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one node
    Show {
        /// Name or id of the node
        node: String,
    },
    /// Place no new instances on nodes
    Cordon {
        /// Names or ids of nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Place new instances on nodes again, and objects if they were drained
    Uncordon {
        /// Names or ids of nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Take note of objects that a node has lost, so that it no longer shows them
    Ack {
        /// Name or id of the node
        node: String,
    },
    /// Declare nodes dead: their hosts are off for good. Their instances fail with node_lost and can be recovered
    /// elsewhere; a fenced node never comes back
    Fence {
        /// Names or ids of nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show what becomes of the disks of a fenced node: what they hold and no version has is saved if the node comes back
    Salvage {
        /// Name of the node; its id once it is removed
        node: String,
        /// Wait no longer: the node can save nothing more
        #[arg(long)]
        give_up: bool,
        /// Do not ask
        #[arg(short, long, requires = "give_up")]
        yes: bool,
    },
    /// Remove nodes from the cluster that hold no instances, or that are fenced; their objects are drained first
    #[command(alias = "delete")]
    Rm {
        #[command(flatten)]
        removal: Removal,
        /// Fence the nodes first: their hosts are off for good, whatever was on them
        #[arg(long)]
        dead: bool,
    },
    /// Drain nodes of their objects: other nodes get them. Instances stay; no new ones are placed there. `uncordon` ends it
    Drain {
        /// Names or ids of nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
}
