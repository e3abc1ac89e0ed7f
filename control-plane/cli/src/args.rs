//! The command line: every noun, verb and option, and nothing else. `muster NOUN VERB THING…`.
//!
//! Verbs whose shape is fixed but which are not built yet are not listed in the help; typing one says so (see
//! [`Reserved`]) instead of pretending that the word is unknown.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use muster_api::units::{parse_duration, parse_size};

use crate::units;

const AFTER: &str = "\
Settings come from options, then MUSTER_URL, MUSTER_TOKEN (or @FILE), MUSTER_CA and MUSTER_PROJECT, then the profile
written by `muster login`. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 still going on.";

/// Starts hundreds of virtual machines from one image in the time of one, and snapshots all of them at one instant.
#[derive(Debug, Parser)]
#[command(name = "muster", version, after_help = AFTER, disable_help_subcommand = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Where the controller is, for example https://muster.example:7400
    #[arg(long, global = true, env = "MUSTER_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The token, or @FILE that has it
    #[arg(long, global = true, env = "MUSTER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The CA certificate (PEM) the controller is checked with, instead of the system's
    #[arg(long, global = true, env = "MUSTER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The project to work in; operators also `*`
    #[arg(long, global = true, env = "MUSTER_PROJECT", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// The profile of ~/.config/muster/config.toml to use
    #[arg(long, global = true, env = "MUSTER_PROFILE", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Tables for people, or the API's objects
    #[arg(short, long, global = true, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Return once the work is accepted
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
    /// Wait at most this long; the work goes on, the exit code is 3
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Keep trying a controller that does not answer for this long [default: 10s, 120s once it has answered]
    #[arg(long, global = true, env = "MUSTER_RETRY_FOR", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) retry_for: Option<Duration>,
    /// No progress on standard error
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a controller and a token, and remember them in a profile
    Login(Login),
    /// Named, numbered lines of versions
    #[command(subcommand)]
    Image(ImageCommand),
    /// Immutable states of disks, by id
    #[command(subcommand)]
    Version(VersionCommand),
    /// Start instances from an image, a version or a snapshot (`deployment create`)
    Deploy(Box<Deploy>),
    /// Instances started together and kept as a group
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// Single virtual machines, or many of them at once
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Disks of one or many instances, cut at one instant
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Compute hosts (operators)
    #[command(subcommand)]
    Node(NodeCommand),
    /// Slow work: look, wait, cancel
    #[command(subcommand)]
    Operation(OperationCommand),
    /// What happened
    #[command(subcommand)]
    Event(EventCommand),
    /// Tokens of people and of joining nodes
    #[command(subcommand)]
    Token(TokenCommand),
    /// The cluster at a glance, refreshed
    Top(Top),
    /// Who the token belongs to
    Whoami,
    /// Any call of the REST API
    Api(Api),
    /// Completion for your shell: `source <(muster completion bash)`
    Completion {
        /// Which shell
        shell: Shell,
    },
    #[command(hide = true)]
    Project(Reserved),
    #[command(hide = true)]
    Quota(Reserved),
    #[command(hide = true)]
    Audit(Reserved),
}

/// A word whose shape is fixed and which is not built yet: it takes anything and says so.
#[derive(Args, Debug)]
pub(crate) struct Reserved {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// For example https://muster.example:7400
    #[arg(value_name = "URL")]
    pub(crate) address: String,
    /// SHA-256 of the controller's CA certificate; the controller prints it at start
    #[arg(long, value_name = "HEX")]
    pub(crate) ca_fingerprint: Option<String>,
}

#[derive(Args, Debug, Default)]
pub(crate) struct Listing {
    /// Only things in this state; repeat for more
    #[arg(long)]
    pub(crate) state: Vec<String>,
    /// Only things with this label; repeat for more
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Vec<String>,
    /// Also what was deleted in the last 24 hours
    #[arg(long)]
    pub(crate) deleted: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Removal {
    /// What to delete
    #[arg(required = true, value_name = "THING")]
    pub(crate) things: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Send a raw or qcow2 file; a name that is there gets a further version
    Import {
        /// Name of the image
        name: String,
        /// The file, or - for standard input
        file: PathBuf,
        /// What the SHA-256 of the file must be
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Refuse the file if it is not this; default: found out
        #[arg(long)]
        format: Option<ImageFormat>,
        /// 64KiB to 4MiB, a power of two; default 256KiB, fixed once the image is there
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        chunk_size: Option<u64>,
        /// Label for a new image
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
    },
    /// List images
    #[command(alias = "list")]
    Ls(Listing),
    /// One image
    Show {
        /// Image
        image: String,
    },
    /// The versions of an image
    Versions {
        /// Image
        image: String,
    },
    /// Write a version to a raw, sparse file
    Export {
        /// Image, or IMAGE@N for its version N
        image: String,
        #[command(flatten)]
        to: ExportTo,
    },
    /// A new image whose first version is an existing one; copies nothing
    Clone {
        /// Image, IMAGE@N, or the id of a version
        from: String,
        /// Name of the new image
        name: String,
    },
    /// Delete images; their bytes stay until their last user goes
    #[command(alias = "delete")]
    Rm(Removal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    Raw,
    Qcow2,
}

impl ImageFormat {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportTo {
    /// The file to write, or - for standard output
    pub(crate) file: PathBuf,
    /// Replace the file if it is there
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// One version
    Show {
        /// Id of the version
        version: String,
    },
    /// Write it to a raw, sparse file
    Export {
        /// Id of the version
        version: String,
        #[command(flatten)]
        to: ExportTo,
    },
    /// Delete versions
    #[command(alias = "delete")]
    Rm(Removal),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["image", "from_version", "snapshot"]))]
pub(crate) struct Deploy {
    /// Name of the deployment; its members are NAME.0, NAME.1, …
    pub(crate) name: String,
    /// Start from an image's newest version, or from IMAGE@N
    #[arg(long, value_name = "IMAGE[@N]", requires = "count")]
    pub(crate) image: Option<String>,
    /// Start from a version, by id
    #[arg(long = "version", value_name = "V", id = "from_version", requires = "count")]
    pub(crate) version: Option<String>,
    /// Fork each member of a snapshot
    #[arg(long, value_name = "S")]
    pub(crate) snapshot: Option<String>,
    /// How many instances
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) count: Option<i64>,
    /// Go ahead if at least this many fit; default: all
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub(crate) min_count: Option<i64>,
    /// Virtual processors of each [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory of each [default: 512MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Size of each disk; default and least: the source's
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk_size: Option<u64>,
    /// When an instance counts as ready [default: running]
    #[arg(long, value_name = "PROBE")]
    pub(crate) ready: Option<Ready>,
    /// With --ready console: the text to wait for [default: MUSTER-READY]
    #[arg(long, value_name = "TEXT")]
    pub(crate) ready_marker: Option<String>,
    /// Not ready after this long: failed [default: 300s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) ready_timeout: Option<Duration>,
    /// libvirt: virtual machines; none: only their disk files [default: libvirt]
    #[arg(long)]
    pub(crate) runtime: Option<RuntimeArg>,
    /// Evenly over the nodes (the default)
    #[arg(long, conflicts_with = "pack")]
    pub(crate) spread: bool,
    /// Fill one node after the other
    #[arg(long)]
    pub(crate) pack: bool,
    /// Only in this zone; repeat for more
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Vec<String>,
    /// Only on this node; repeat for more (operators)
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Vec<String>,
    /// At most this many on one node
    #[arg(long, value_name = "N")]
    pub(crate) max_per_node: Option<u32>,
    /// The whole work gives up after this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Label of the deployment and its members
    #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Only tell where they would go, and why not
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) ssh_key: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ready {
    Running,
    Console,
    GuestAgent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeArg {
    Libvirt,
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// As `muster deploy`
    Create(Box<Deploy>),
    /// List deployments
    #[command(alias = "list")]
    Ls(Listing),
    /// One deployment: counts, timing
    Show {
        /// Deployment
        deployment: String,
    },
    /// Change the number of members
    Scale {
        /// Deployment
        deployment: String,
        /// Wanted number
        #[arg(allow_negative_numbers = true)]
        count: i64,
        /// When there will be fewer: this member goes, not the one with the highest number; repeat for more
        #[arg(long, value_name = "INSTANCE")]
        remove: Vec<String>,
    },
    /// Try failed members again
    Retry {
        /// Deployment
        deployment: String,
    },
    /// Start all members
    Start {
        /// Deployment
        deployment: String,
    },
    /// Stop all members
    Stop {
        /// Deployment
        deployment: String,
        #[command(flatten)]
        how: Power,
    },
    /// Stop and start all members
    Reboot {
        /// Deployment
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

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Power {
    /// Cut the power instead of asking the guest
    #[arg(long)]
    pub(crate) force: bool,
    /// How long the guest may take before its power is cut [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) grace: Option<Duration>,
}

/// Whom a verb is meant for: named instances, all of a deployment, or all with a label.
#[derive(Args, Debug)]
#[group(id = "whom", required = true, multiple = false)]
pub(crate) struct Whom {
    /// Instances, DEPLOYMENT.N or id
    #[arg(value_name = "INSTANCE")]
    pub(crate) things: Vec<String>,
    /// All members of a deployment
    #[arg(long, value_name = "D")]
    pub(crate) deployment: Option<String>,
    /// All with this label
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List instances
    #[command(alias = "list")]
    Ls {
        /// Only members of this deployment; repeat for more
        #[arg(long, value_name = "D")]
        deployment: Vec<String>,
        /// Only on this node; repeat for more (operators)
        #[arg(long, value_name = "NODE")]
        node: Vec<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// One instance: state, steps, disks
    Show {
        /// Instance, DEPLOYMENT.N or id
        instance: String,
    },
    /// Start instances
    Start {
        #[command(flatten)]
        whom: Whom,
    },
    /// Stop instances; their disks are kept
    Stop {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        how: Power,
    },
    /// Stop and start instances
    Reboot {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        how: Power,
    },
    /// What the serial console printed so far
    Log {
        /// Instance, DEPLOYMENT.N or id
        instance: String,
        /// Only the last so many bytes [default: 64KiB]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        tail: Option<u64>,
    },
    /// Delete instances and their disks
    #[command(alias = "delete")]
    Rm {
        #[command(flatten)]
        whom: Whom,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    #[command(hide = true)]
    Recover(Reserved),
    #[command(hide = true)]
    Console(Reserved),
    #[command(hide = true)]
    Migrate(Reserved),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Cut the disks of all members at one instant
    Create {
        /// Deployment, or one instance as DEPLOYMENT.N
        of: String,
        /// Name of the snapshot; made up if left out
        name: Option<String>,
        /// What the guests' file systems look like in it: as after a power cut
        #[arg(long, default_value = "crash")]
        consistency: Consistency,
        /// Longest a guest's writes may be held [default: 500ms]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        max_pause: Option<Duration>,
        /// Label of the snapshot
        #[arg(long, value_name = "K=V", value_parser = units::parse_label)]
        label: Vec<(String, String)>,
    },
    /// List snapshots
    #[command(alias = "list")]
    Ls(Listing),
    /// One snapshot and its members, which are `member_rows` in JSON
    Show {
        /// Snapshot
        snapshot: String,
    },
    /// Delete snapshots; deployments started from them stay
    #[command(alias = "delete")]
    Rm(Removal),
    #[command(hide = true)]
    Restore(Reserved),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    Crash,
    #[value(hide = true)]
    Filesystem,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(alias = "list")]
    Ls(Listing),
    /// One node
    Show {
        /// Node
        node: String,
    },
    /// Nothing new is placed on it
    Cordon {
        /// Nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// New instances may be placed on it again
    Uncordon {
        /// Nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Take nodes without instances and objects out of the cluster
    #[command(alias = "delete")]
    Rm(Removal),
    #[command(hide = true)]
    Drain(Reserved),
    #[command(hide = true)]
    Fence(Reserved),
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations
    #[command(alias = "list")]
    Ls(Listing),
    /// One operation: what it waits for, why it failed
    Show {
        /// Id of the operation
        operation: String,
    },
    /// Wait until operations have ended
    Wait {
        /// Ids
        #[arg(required = true, value_name = "OPERATION")]
        operations: Vec<String>,
    },
    /// Ask an operation to stop; what is done stays
    Cancel {
        /// Id of the operation
        operation: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct EventFilter {
    /// Only what came after this event id or this list's `as_of`
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// Only events of this deployment and its members
    #[arg(long, value_name = "D")]
    pub(crate) deployment: Vec<String>,
    /// Only events of things with this label
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Events kept so far, oldest first
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        filter: EventFilter,
    },
    /// Events as they happen, until Ctrl-C; `-o json` prints one object a line
    Follow {
        #[command(flatten)]
        filter: EventFilter,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List tokens
    #[command(alias = "list")]
    Ls,
    /// Make a token; it is printed once
    Create {
        /// What it may do
        #[arg(long)]
        role: RoleArg,
        /// Name of the token; made up if left out
        #[arg(long)]
        name: Option<String>,
        /// When it ends [default: 1h for nodes, else 90d]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// With --role node: how many nodes may join with it [default: 1]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
    },
    /// Revoke tokens
    #[command(alias = "delete")]
    Rm(Removal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    Admin,
    Tenant,
    Node,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Time between two looks
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Look once and end
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Api {
    /// GET, POST, PUT, PATCH or DELETE
    pub(crate) method: String,
    /// Path with its query, for example '/v1/images?limit=10'
    pub(crate) path: String,
    /// The body: JSON, @FILE, or - for standard input
    pub(crate) body: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn deploy_wants_one_source_and_a_count_unless_it_forks() {
        assert!(parses("muster deploy web --image debian@2 --count 4"));
        assert!(parses("muster deployment create web --version 0190 --count 4"));
        assert!(parses("muster deploy web --snapshot nightly"));
        assert!(parses("muster deploy web --image debian --count -1"), "the controller says what is wrong with it");
        assert!(!parses("muster deploy web --image debian"));
        assert!(!parses("muster deploy web --count 4"));
        assert!(!parses("muster deploy web --image debian --snapshot nightly --count 4"));
        assert!(!parses("muster deploy web --image debian --count 4 --spread --pack"));
    }

    #[test]
    fn verbs_on_instances_want_exactly_one_kind_of_whom() {
        assert!(parses("muster instance start web.0 web.1"));
        assert!(parses("muster instance stop --deployment web --force"));
        assert!(parses("muster instance rm --label tier=web --yes"));
        assert!(!parses("muster instance start"));
        assert!(!parses("muster instance start web.0 --deployment web"));
        assert!(!parses("muster instance start --label tier"));
    }

    #[test]
    fn reserved_words_are_known_but_not_listed() {
        for line in ["muster instance migrate web.0 --to n2", "muster snapshot restore s", "muster quota ls"] {
            assert!(parses(line), "{line}");
        }
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("quota"), "{help}");
    }

    #[test]
    fn options_for_everything_stand_anywhere() {
        assert!(parses("muster --url http://127.0.0.1:1 -o json image ls"));
        assert!(parses("muster image ls -o json --project p --timeout 3s --no-wait"));
        assert!(!parses("muster image ls -o yaml"));
        assert!(!parses("muster image ls --timeout soon"));
    }
}
