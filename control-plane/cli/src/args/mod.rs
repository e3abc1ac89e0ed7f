//! The command line `muster NOUN VERB THING…`: one file per noun, and here what all of them share.
//!
//! Verbs that the interface reserves and that are not built yet are not listed in the help. Typing one says that it is
//! not built yet (see [`Reserved`]).

mod deployment;
mod disk;
mod event;
mod exec;
mod guest;
mod help;
mod image;
mod instance;
mod network;
mod node;
mod operation;
mod pool;
mod session;
mod snapshot;
mod token;

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;
use muster_api::{firmware::FirmwareChoice, units::parse_duration};
use serde::de::DeserializeOwned;

pub(crate) use self::{
    deployment::{Deploy, DeploymentCommand, KeepArgs, Power},
    disk::{AttachDisk, DiskCommand},
    event::{EventCommand, EventFilter},
    exec::Exec,
    guest::{Connect, Console, Ssh},
    help::command,
    image::{ImageCommand, ImageProperties, ImageProperty, VersionCommand},
    instance::{InstanceCommand, Which, Whom},
    network::{NetworkCommand, SecurityGroupCommand},
    node::NodeCommand,
    operation::OperationCommand,
    pool::PoolCommand,
    session::SessionCommand,
    snapshot::SnapshotCommand,
    token::TokenCommand,
};
use crate::units;

/// What a command line has to say beyond its commands and options.
const NOTES: &str = "\
Each setting comes from its option, else from its environment variable, else from the profile that `muster login` wrote. \
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 still going on.";

/// Starts hundreds of virtual machines from one image in the time of one, and snapshots all of them at one instant.
#[derive(Debug, Parser)]
#[command(name = "muster", version, after_long_help = NOTES, disable_help_subcommand = true, max_term_width = 80)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Address of the controller, for example https://muster.example:7400
    #[arg(long, global = true, hide_short_help = true, env = "MUSTER_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The token to sign in with, or @FILE to read it from a file
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "MUSTER_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// The CA certificate (PEM) to check the controller with [default: the system's CAs]
    #[arg(long, global = true, hide_short_help = true, env = "MUSTER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The project to work in; operators may give `*` for all
    #[arg(long, global = true, hide_short_help = true, env = "MUSTER_PROJECT", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// The profile of ~/.config/muster/config.toml to use
    #[arg(long, global = true, hide_short_help = true, env = "MUSTER_PROFILE", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Print tables, tables with all columns, or the API's objects
    #[arg(short, long, global = true, hide_short_help = true, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Do not wait for work to end
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_wait: bool,
    /// End after this time; work that was begun goes on, and the exit code is 3 then
    #[arg(long, global = true, hide_short_help = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long to retry a controller that does not answer [default: 10s, 120s once it has answered]
    #[arg(long, global = true, hide_short_help = true, env = "MUSTER_RETRY_FOR", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) retry_for: Option<Duration>,
    /// Print no progress on standard error
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Long cells are shortened where a table does not fit the terminal
    Table,
    /// All columns, and nothing is shortened
    Wide,
    /// The API's objects; a list is one array, oldest first
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a controller and a token, and keep them in a profile
    Login(Login),
    /// Images: disks to start from, each with numbered versions
    #[command(subcommand)]
    Image(ImageCommand),
    /// Versions: immutable states of disks, by id
    #[command(subcommand)]
    Version(VersionCommand),
    /// Start instances from an image, a version or a snapshot (the same as `deployment create`)
    Deploy(Box<Deploy>),
    /// Deployments: instances that were started together and are kept as a group
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// Instances: single virtual machines
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Disks: of instances, and such that are attached later or belong to none for a while
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Type into the serial console of an instance, and see what it prints
    Console(Console),
    /// Open an SSH session in an instance, also without a published port
    Ssh(Ssh),
    /// Run a command in the guest of an instance, through its guest agent
    Exec(Exec),
    /// Snapshots: the disks of one or many instances at one instant
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Networks: what instances of a project reach each other by
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Security groups: what may reach instances, and what may leave them
    #[command(subcommand, visible_alias = "sg")]
    SecurityGroup(SecurityGroupCommand),
    /// The pool: what the nodes keep together, and its sweep (operators)
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Nodes: the hosts that run instances (operators)
    #[command(subcommand)]
    Node(NodeCommand),
    /// Operations: slow work, to look at, wait for or cancel
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Events: what happened in the cluster
    #[command(subcommand)]
    Event(EventCommand),
    /// Tokens of people, programs and joining nodes
    #[command(subcommand)]
    Token(TokenCommand),
    /// Sessions: browsers that are signed in to the dashboard
    #[command(subcommand)]
    Session(SessionCommand),
    /// Show the whole cluster on one screen and refresh it
    Top(Top),
    /// Show who the token belongs to
    Whoami,
    /// Make any call of the REST API
    Api(Api),
    /// Print completion for a shell: `source <(muster completion bash)`
    ///
    /// It offers commands, options, and the names of things, for which it asks the controller.
    Completion {
        /// The shell
        shell: Shell,
    },
    #[command(hide = true)]
    Project(Reserved),
    #[command(hide = true)]
    Quota(Reserved),
    #[command(hide = true)]
    Audit(Reserved),
}

/// Parses one of these words into the value of the API that has the same word.
fn word_of_api<T>(words: impl IntoIterator<Item = impl Into<PossibleValue>>) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(word.replace('-', "_").into()))
}

/// Parses a choice of firmware.
fn firmware() -> impl TypedValueParser<Value = FirmwareChoice> {
    word_of_api(["auto", "bios", "uefi", "uefi_secure"])
}

/// Arguments of a command that is not built yet: anything is accepted.
#[derive(Args, Debug)]
pub(crate) struct Reserved {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// Address of the controller, for example https://muster.example:7400
    #[arg(value_name = "URL")]
    pub(crate) address: String,
    /// SHA-256 of the controller's CA certificate; the controller prints it when it starts
    #[arg(long, value_name = "HEX")]
    pub(crate) ca_fingerprint: Option<String>,
}

#[derive(Args, Debug, Default)]
pub(crate) struct Listing {
    /// List only things in this state; may be given many times
    #[arg(long)]
    pub(crate) state: Vec<String>,
    /// List only things with this label; may be given many times
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Vec<String>,
    /// Also list what was deleted in the last 24 hours
    #[arg(long)]
    pub(crate) deleted: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Removal {
    /// Names or ids of what to delete
    #[arg(required = true, value_name = "THING")]
    pub(crate) things: Vec<String>,
    /// Delete without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Time between two refreshes
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Print the screen once and end
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Api {
    /// GET, POST, PUT, PATCH or DELETE
    pub(crate) method: String,
    /// The path with its query, for example '/v1/images?limit=10'
    pub(crate) path: String,
    /// The body: JSON text, @FILE, or - for standard input
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
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn deploy_needs_one_source_and_a_count_unless_it_forks_a_snapshot() {
        assert!(parses("muster deploy web --image debian@2 --count 4"));
        assert!(parses("muster deployment create web --version 0190 --count 4"));
        assert!(parses("muster deploy web --snapshot nightly"));
        assert!(parses("muster deploy web --image debian --count -1"), "the controller is the one to refuse it");
        assert!(!parses("muster deploy web --image debian"));
        assert!(!parses("muster deploy web --count 4"));
        assert!(!parses("muster deploy web --image debian --snapshot nightly --count 4"));
        assert!(!parses("muster deploy web --image debian --count 4 --spread --pack"));
    }

    #[test]
    fn operations_have_the_filters_that_the_api_has() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("muster operation ls --state running --deployment web --node n1"));
        assert!(!parses("muster operation ls --label a=b") && !parses("muster operation ls --deleted"));
    }

    #[test]
    fn verbs_on_instances_need_names_or_a_deployment_or_a_label() {
        assert!(parses("muster instance start web.0 web.1"));
        assert!(parses("muster instance stop --deployment web --force"));
        assert!(parses("muster instance rm --label tier=web --yes"));
        assert!(!parses("muster instance start"));
        assert!(!parses("muster instance start web.0 --deployment web"));
        assert!(!parses("muster instance start --label tier"));
    }

    #[test]
    fn a_disk_is_attached_as_a_new_one_or_as_one_that_exists() {
        assert!(parses("muster disk attach web.0 data") && parses("muster disk attach web.0 data --name old"));
        assert!(parses("muster disk attach web.0 --name data --size 10GiB --image debian@2"));
        for wrong in ["", "data --size 1GiB", "data --image debian", "--size 1GiB", "--name data", "--image debian"] {
            assert!(!parses(&format!("muster disk attach web.0 {wrong}")), "{wrong}");
        }
        assert!(!parses("muster disk ls --detached --instance web.0"));
    }

    #[test]
    fn reserved_commands_parse_but_are_not_in_the_help() {
        for line in ["muster instance migrate web.0 --to n2", "muster deployment shelve web", "muster quota ls"] {
            assert!(parses(line), "{line}");
        }
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("quota"), "{help}");
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        assert!(parses("muster --url http://127.0.0.1:1 -o json image ls"));
        assert!(parses("muster image ls -o json --project p --timeout 3s --no-wait"));
        assert!(!parses("muster image ls -o yaml"));
        assert!(!parses("muster image ls --timeout soon"));
    }
}
