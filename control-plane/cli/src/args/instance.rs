//! `muster instance …`.

use clap::{Args, Subcommand};
use muster_api::units::parse_size;

use super::{
    Listing, Reserved,
    deployment::Power,
    guest::{Connect, Console},
};
use crate::units;

/// The instances a verb acts on: named ones, all of a deployment, or all with a label.
#[derive(Args, Debug)]
#[group(id = "whom", required = true, multiple = false)]
pub(crate) struct Whom {
    /// Instances, each as DEPLOYMENT.N or id
    #[arg(value_name = "INSTANCE")]
    pub(crate) things: Vec<String>,
    /// All members of this deployment
    #[arg(long, value_name = "D")]
    pub(crate) deployment: Option<String>,
    /// All instances with this label
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Option<String>,
}

/// Which found instances.
#[derive(Args, Debug)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct Which {
    /// Found instances, each by id or by the name that it had
    #[arg(value_name = "INSTANCE")]
    pub(crate) things: Vec<String>,
    /// All found instances
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List instances, by name
    #[command(alias = "list")]
    Ls {
        /// List only members of this deployment; may be given many times
        #[arg(long, value_name = "D")]
        deployment: Vec<String>,
        /// List only instances on this node; may be given many times (operators)
        #[arg(long, value_name = "NODE")]
        node: Vec<String>,
        /// List only instances with a card in this network; may be given many times
        #[arg(long, value_name = "NETWORK")]
        network: Vec<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one instance: its state, the steps of its start, its disks
    Show {
        /// Instance as DEPLOYMENT.N or id
        instance: String,
    },
    /// Start instances
    Start {
        #[command(flatten)]
        whom: Whom,
    },
    /// Stop instances; their disks are kept, and it says where power had to be cut
    Stop {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        how: Power,
    },
    /// Stop and start instances
    #[command(override_usage = "muster instance reboot [OPTIONS] INSTANCE...|--deployment D|--label K=V")]
    Reboot {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        how: Power,
    },
    /// Begin instances of a dead node anew on other nodes, from their last saved versions
    #[command(override_usage = "muster instance recover [OPTIONS] INSTANCE...|--deployment D|--label K=V")]
    Recover {
        #[command(flatten)]
        whom: Whom,
        /// Give up what was written after the last saved versions
        #[arg(long)]
        accept_loss: bool,
    },
    /// List instances that nodes hold and a restored database does not know (operators)
    Found {
        /// List only those on this node; may be given many times
        #[arg(long, value_name = "NODE")]
        node: Vec<String>,
    },
    /// Take found instances back, with their disks and what they do now (operators)
    Take {
        #[command(flatten)]
        which: Which,
        /// Make them members of this deployment [default: the one that each belonged to]
        #[arg(long, value_name = "D")]
        deployment: Option<String>,
    },
    /// Give found instances up: their nodes delete them and their disks (operators)
    Forget {
        /// Found instances, each by id or by the name that it had
        #[arg(required = true, value_name = "INSTANCE")]
        instances: Vec<String>,
        /// Delete without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Print what an instance wrote to its serial console
    Log {
        /// Instance as DEPLOYMENT.N or id
        instance: String,
        /// Print only this many bytes from the end [default: 64KiB]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        tail: Option<u64>,
        /// Go on and print what it writes, for up to an hour
        #[arg(short, long)]
        follow: bool,
    },
    /// Type into the serial console of an instance (the same as `muster console`)
    Console(Console),
    /// Connect standard input and output to a TCP port of an instance
    Connect(Connect),
    /// Delete instances and their disks
    #[command(alias = "delete")]
    Rm {
        #[command(flatten)]
        whom: Whom,
        /// Delete without asking
        #[arg(short, long)]
        yes: bool,
    },
    #[command(hide = true)]
    Migrate(Reserved),
}
