//! `muster node …`.

use clap::Subcommand;

use super::{Listing, Removal, Reserved};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
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
    /// Place new instances on nodes again
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
    /// Remove nodes that hold no instances and no objects from the cluster
    #[command(alias = "delete")]
    Rm(Removal),
    #[command(hide = true)]
    Drain(Reserved),
    #[command(hide = true)]
    Fence(Reserved),
}
