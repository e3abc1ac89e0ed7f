//! `muster disk …`.

use clap::{Args, Subcommand};
use muster_api::units::parse_size;

const NAMED: &str = "\
A disk is named by its id, or as INSTANCE/DISK such as web.0/data; a detached
one by its id, or by its name where no other detached disk has that.";

#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// List disks: those of instances, and those that belong to none
    #[command(alias = "list")]
    Ls {
        /// List only disks that belong to no instance
        #[arg(long, conflicts_with = "instance")]
        detached: bool,
        /// List only disks of this instance; may be given many times
        #[arg(long, value_name = "INSTANCE")]
        instance: Vec<String>,
        /// List only disks in this state; may be given many times
        #[arg(long)]
        state: Vec<String>,
    },
    /// Show one disk
    #[command(after_help = NAMED)]
    Show {
        /// The disk
        disk: String,
    },
    /// Make a disk larger, also one of a guest that runs; its partitions and file systems are the guest's to grow
    #[command(after_help = NAMED)]
    Grow {
        /// The disk
        disk: String,
        /// Its new size, a multiple of 4KiB
        #[arg(value_parser = parse_size)]
        size: u64,
    },
    /// Attach a disk to an instance, also to one that runs: a new one, or one that is detached
    #[command(
        after_help = NAMED,
        override_usage = "muster disk attach [OPTIONS] INSTANCE DISK|--name NAME --size SIZE"
    )]
    Attach(AttachDisk),
    /// Detach a disk from its instance: its guest lets it go, then all that it holds is saved
    #[command(after_help = NAMED)]
    Detach {
        /// The disk
        disk: String,
        /// Wait until it is detached
        #[arg(long)]
        wait: bool,
    },
    /// Delete detached disks with all that they hold
    #[command(alias = "delete", after_help = NAMED)]
    Rm(super::Removal),
}

#[derive(Args, Debug)]
pub(crate) struct AttachDisk {
    /// Instance as DEPLOYMENT.N or id
    pub(crate) instance: String,
    /// The detached disk; one that is being detached from this instance stays
    #[arg(required_unless_present = "size", conflicts_with_all = ["size", "image", "version"])]
    pub(crate) disk: Option<String>,
    /// Name of the disk within the instance [default: the one it has]
    #[arg(long, value_name = "NAME", required_unless_present = "disk")]
    pub(crate) name: Option<String>,
    /// Size of a new disk
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// A new disk starts as this image, with @N as that version of it [default: blank]
    #[arg(long, value_name = "IMAGE[@N]", conflicts_with = "version")]
    pub(crate) image: Option<String>,
    /// A new disk starts as this version
    #[arg(long, value_name = "ID")]
    pub(crate) version: Option<String>,
}
