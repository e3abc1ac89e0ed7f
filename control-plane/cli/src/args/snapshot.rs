//! `muster snapshot …`.

use std::time::Duration;

use clap::Subcommand;
use muster_api::{snapshot::Consistency, units::parse_duration};

use super::{Listing, Power, Removal, word_of_api};
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Snapshot the disks of all members at one instant
    Create {
        /// A deployment, or one instance as DEPLOYMENT.N
        of: String,
        /// Name of the snapshot [default: chosen by the controller]
        name: Option<String>,
        /// State of the guests' file systems in the snapshot. crash: as after a power cut; filesystem: written back
        /// and frozen by the guest agents, so that they mount clean
        #[arg(long, default_value = "crash", value_parser = word_of_api::<Consistency>(["crash", "filesystem"]))]
        consistency: Consistency,
        /// Longest time that writes of a guest may be held [default: 500ms]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        max_pause: Option<Duration>,
        /// Label of the snapshot; may be given many times
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
    },
    /// List snapshots, by name
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one snapshot and its members; JSON has the members in `member_rows`
    Show {
        /// Name or id of the snapshot
        snapshot: String,
    },
    /// Keep a scheduled snapshot until somebody deletes it, whatever its deployment keeps
    Keep {
        /// Name or id of the snapshot
        snapshot: String,
    },
    /// Delete snapshots; deployments that were started from them stay
    #[command(alias = "delete")]
    Rm(Removal),
    /// Put the disks of the members back to a snapshot, in place. What they hold now is kept as a snapshot first
    Restore {
        /// Name or id of the snapshot
        snapshot: String,
        /// Give up what the disks hold now
        #[arg(long)]
        discard_current: bool,
        /// Restore the others if instances or disks of the snapshot are not there any more
        #[arg(long)]
        allow_missing: bool,
        #[command(flatten)]
        how: Power,
        /// With --discard-current: do not ask
        #[arg(short, long, requires = "discard_current")]
        yes: bool,
    },
}
