//! `muster deploy` and `muster deployment …`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use muster_api::{
    deployment::{OnHostStart, OnReadyTimeout, Probe, Runtime},
    disk::CreateDisk,
    firmware::FirmwareChoice,
    network::PublishPort,
    protection::Period,
    units::{parse_duration, parse_size},
};

use super::{Listing, Removal, Reserved, firmware, word_of_api};
use crate::units;

const USAGE: &str = "\
muster deploy NAME --image IMAGE[@N] --count N [OPTIONS]
       muster deploy NAME --version V --count N [OPTIONS]
       muster deploy NAME --snapshot S [OPTIONS]";

const PROTECT_USAGE: &str = "\
muster deployment protect DEPLOYMENT --every TIME [OPTIONS]
       muster deployment protect DEPLOYMENT --keep-last N [OPTIONS]
       muster deployment protect DEPLOYMENT --off";

const EXAMPLES: &str = "\
Examples:
  muster deploy web --image debian --count 4 --memory 1GiB --ready console
  muster deploy web --image debian@2 --count 100 --min-count 90 --dry-run
  muster deploy trial --snapshot before-upgrade
  muster deploy web --image debian --count 4 --ssh-key ~/.ssh/id_ed25519.pub --user-data setup.yaml
  muster deploy db --image debian --count 1 --disk data=20GiB --disk seed=5GiB,source=dataset@3
  muster deploy shop --image debian --count 1 --network back:10.20.0.5 --publish 80
  muster deploy db --image debian --count 1 --protect-every 15m --keep-hourly 24 --keep-daily 7";

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["image", "from_version", "snapshot"]))]
#[command(override_usage = USAGE, after_long_help = EXAMPLES)]
pub(crate) struct Deploy {
    /// Name of the deployment; its members are called NAME.0, NAME.1, …
    pub(crate) name: String,
    /// Start from the newest version of an image, or from IMAGE@N
    #[arg(long, value_name = "IMAGE[@N]", requires = "count")]
    pub(crate) image: Option<String>,
    /// Start from the version with this id
    #[arg(long = "version", value_name = "V", id = "from_version", requires = "count")]
    pub(crate) version: Option<String>,
    /// Start one instance from each member of a snapshot
    #[arg(long, value_name = "S")]
    pub(crate) snapshot: Option<String>,
    /// With --snapshot: start without the members whose versions were deleted
    #[arg(long, requires = "snapshot")]
    pub(crate) allow_missing: bool,
    /// Number of instances
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) count: Option<i64>,
    /// Start if at least this many instances fit [default: all]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub(crate) min_count: Option<i64>,
    /// Virtual processors of each instance [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory of each instance [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Size of each boot disk, not below the size of its source [default: the size of the source]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk_size: Option<u64>,
    /// Give each instance a further disk, blank or as an image or a version is; may be given many times
    #[arg(long, value_name = "NAME=SIZE[,source=IMAGE[@N]|V]", value_parser = units::parse_disk)]
    pub(crate) disk: Vec<CreateDisk>,
    /// What makes an instance ready [default: running]
    #[arg(long, value_name = "PROBE", value_parser = word_of_api::<Probe>(["running", "console", "guest-agent"]))]
    pub(crate) ready: Option<Probe>,
    /// With --ready console: the text to wait for [default: MUSTER-READY]
    #[arg(long, value_name = "TEXT")]
    pub(crate) ready_marker: Option<String>,
    /// An instance that is not ready after this time is told as not_ready [default: the cluster's; 5m unless its
    /// operator has set another]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) ready_timeout: Option<Duration>,
    /// What becomes of an instance that is not ready in time: it runs on, or its power is cut [default: keep]
    #[arg(long, value_name = "WORD", value_parser = word_of_api::<OnReadyTimeout>(["keep", "stop"]))]
    pub(crate) on_ready_timeout: Option<OnReadyTimeout>,
    /// What becomes of an instance that ran when its host went down, once the host is back: it is started, or stays off
    /// [default: start]
    #[arg(long, value_name = "WORD", value_parser = word_of_api::<OnHostStart>(["start", "stay"]))]
    pub(crate) on_host_start: Option<OnHostStart>,
    /// What starts the boot loader [default: auto, what the image says]
    #[arg(long, value_name = "WORD", value_parser = firmware())]
    pub(crate) firmware: Option<FirmwareChoice>,
    /// Give each instance a TPM; what is in it is in no snapshot [default: no; of a fork, as what is forked]
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) tpm: Option<bool>,
    /// libvirt runs virtual machines, none makes only their disk files [default: libvirt]
    #[arg(long, value_parser = word_of_api::<Runtime>(["libvirt", "none"]))]
    pub(crate) runtime: Option<Runtime>,
    /// Spread instances evenly over the nodes (the default)
    #[arg(long, conflicts_with = "pack")]
    pub(crate) spread: bool,
    /// Fill one node after the other
    #[arg(long)]
    pub(crate) pack: bool,
    /// Use only this zone; may be given many times
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Vec<String>,
    /// Use only this node; may be given many times (operators)
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Vec<String>,
    /// Give each instance a card in this network, with this address if there is one instance; may be given many times
    /// [default: default]
    #[arg(long, value_name = "NETWORK[:IP]", conflicts_with = "no_network")]
    pub(crate) network: Vec<String>,
    /// Give instances no network card
    #[arg(long, conflicts_with_all = ["security_group", "publish"])]
    pub(crate) no_network: bool,
    /// Security group of the cards; may be given many times [default: default]
    #[arg(long, value_name = "GROUP")]
    pub(crate) security_group: Vec<String>,
    /// Lead a port of the node to this port of each instance, on its first card; may be given many times. The port of the
    /// node is chosen unless it is given, for one instance
    #[arg(long, value_name = "[NODE_PORT:]PORT[/udp]", value_parser = units::parse_published)]
    pub(crate) publish: Vec<PublishPort>,
    /// Put at most this many instances on one node
    #[arg(long, value_name = "N")]
    pub(crate) max_per_node: Option<u32>,
    /// The controller gives up after this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Label of the deployment and its members; may be given many times
    #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Only say where the instances would go, and why others would not fit
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the owner of this public key sign in: a file such as ~/.ssh/id_ed25519.pub, or the key itself; may be given many
    /// times [default: none; of a fork, those of what is forked]
    #[arg(long, value_name = "FILE|KEY", value_hint = clap::ValueHint::FilePath, conflicts_with = "no_ssh_keys")]
    pub(crate) ssh_key: Vec<String>,
    /// With --snapshot: take over no keys
    #[arg(long, requires = "snapshot")]
    pub(crate) no_ssh_keys: bool,
    /// What each guest does at its first boot: a file with cloud-config, a script or MIME parts, - for standard input; an
    /// empty file means nothing [default: nothing; of a fork, what was forked did]
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// Protect the instances: take a snapshot of them in the background each time this has passed, 5m to 7d, so that the loss of a
    /// host costs at most what was written since the last one [default: none are taken]
    #[arg(long, value_name = "TIME", value_parser = str::parse::<Period>)]
    pub(crate) protect_every: Option<Period>,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
}

/// Which scheduled snapshots stay. The newest always does.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct KeepArgs {
    /// Of the scheduled snapshots keep so many of the newest [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of so many hours, in UTC [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep the newest of each of so many days [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest of each of so many weeks [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// The same as `muster deploy`
    Create(Box<Deploy>),
    /// List deployments, by name
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one deployment: its members by state, and how long they took to start
    Show {
        /// Name or id of the deployment
        deployment: String,
    },
    /// Print what its guests do at their first boot, as it was given
    UserData {
        /// Name or id of the deployment
        deployment: String,
    },
    /// Change the number of members
    Scale {
        /// Name or id of the deployment
        deployment: String,
        /// Wanted number of members
        #[arg(allow_negative_numbers = true)]
        count: i64,
        /// When scaling down: remove this member, not the one with the highest number; may be given many times
        #[arg(long, value_name = "INSTANCE")]
        remove: Vec<String>,
    },
    /// Try again to start failed members, and wait again for those that were not ready in time
    Retry {
        /// Name or id of the deployment
        deployment: String,
        /// New time after which a member that is not ready is told as not_ready, counted from its start
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        ready_timeout: Option<Duration>,
        /// New time after which operations of the deployment give up
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        deadline: Option<Duration>,
        /// What becomes of a member that is not ready in time from now on
        #[arg(long, value_name = "WORD", value_parser = word_of_api::<OnReadyTimeout>(["keep", "stop"]))]
        on_ready_timeout: Option<OnReadyTimeout>,
    },
    /// Take snapshots of the members in the background, change how, or end it
    #[command(override_usage = PROTECT_USAGE)]
    #[command(group = clap::ArgGroup::new("how").required(true).multiple(true).args(["every", "keep_last", "keep_hourly",
        "keep_daily", "keep_weekly", "off"]))]
    Protect {
        /// Name or id of the deployment
        deployment: String,
        /// Time between two snapshots, 5m to 7d. If the deployment is not protected yet, the first is taken at once
        #[arg(long, value_name = "TIME", value_parser = str::parse::<Period>)]
        every: Option<Period>,
        #[command(flatten)]
        keep: KeepArgs,
        /// Take none any more; those that are there stay
        #[arg(long, conflicts_with_all = ["every", "keep_last", "keep_hourly", "keep_daily", "keep_weekly"])]
        off: bool,
    },
    /// Start all members
    Start {
        /// Name or id of the deployment
        deployment: String,
    },
    /// Stop all members; it says where power had to be cut
    Stop {
        /// Name or id of the deployment
        deployment: String,
        #[command(flatten)]
        how: Power,
    },
    /// Stop and start all members
    Reboot {
        /// Name or id of the deployment
        deployment: String,
        #[command(flatten)]
        how: Power,
    },
    /// Delete deployments with their instances and disks
    #[command(alias = "delete")]
    Rm(Removal),
    #[command(hide = true)]
    Shelve(Reserved),
    #[command(hide = true)]
    Unshelve(Reserved),
}

/// How `stop` and `reboot` stop a guest.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Power {
    /// Cut the power, do not ask the guest to shut down
    #[arg(long)]
    pub(crate) force: bool,
    /// Time the guest has to shut down before its power is cut [default: the cluster's; 30s unless its operator has set
    /// another]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) grace: Option<Duration>,
}
