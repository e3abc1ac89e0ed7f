//! Completion in shells. `muster completion SHELL` prints a script that asks this program at every Tab.
//!
//! Commands, options and their words come from the definition of the command line; what is reserved and not built yet is
//! left out. Names of things come from the controller that the words and the settings name. It has a second to answer. If
//! it does not, or refuses, no names are offered: a completion prints no errors, and never a token.

use std::{ffi::OsString, io, path::Path, time::Duration};

use clap::{Arg, Command, CommandFactory, FromArgMatches};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{self, Cli, Global},
    client::{Call, Client},
    failure::Failure,
    output::{self, Notes},
    settings::Settings,
    table::pieces,
};

/// The environment variable with which the script of a shell asks for candidates.
const VARIABLE: &str = "MUSTER_COMPLETE";
/// How long the controller may take to answer with names.
const NAMES_TIMEOUT: Duration = Duration::from_secs(1);
/// Most names that are offered.
const NAMES_MAX: usize = 1000;

/// Answers the script of a shell; false if this process was not started by one.
pub(crate) fn answer() -> bool {
    let here = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(command).var(VARIABLE).try_complete(std::env::args_os(), here.as_deref());
    // Nobody reads an error in the middle of a line that is being typed.
    answered.unwrap_or(true)
}

/// Prints the script of a shell.
pub(crate) fn script(shell: Shell) -> Result<(), Failure> {
    let failed = |why| Failure::Io("the script of completion".to_owned(), why);
    let shells = Shells::builtins();
    let known = shells.completer(&shell.to_string());
    let known = known.ok_or_else(|| failed(io::Error::other(format!("{shell} is not supported"))))?;
    let mut script = Vec::new();
    known.write_registration(VARIABLE, "muster", "muster", &program(), &mut script).map_err(failed)?;
    output::bytes(&script)
}

/// How the script calls this program: as it was called here, but independent of the folder.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_else(|| OsString::from("muster"));
    match Path::new(&called).components().count() {
        0 | 1 => called.to_string_lossy().into_owned(),
        _ => std::path::absolute(&called).map_or(called, OsString::from).to_string_lossy().into_owned(),
    }
}

/// The command line as it is completed.
fn command() -> Command {
    built(&Cli::command(), "")
}

/// A copy of a command without what is hidden, in which arguments know the names they may have.
fn built(command: &Command, noun: &str) -> Command {
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned();
    let arguments = arguments.map(|arg| match list_of(noun, arg.get_id().as_str()) {
        Some(list) => arg.add(ArgValueCandidates::new(move || names(list).unwrap_or_default())),
        None => arg,
    });
    let arguments: Vec<Arg> = arguments.collect();
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.map(|below| built(below, if noun.is_empty() { below.get_name() } else { noun }));
    let below: Vec<Command> = below.collect();
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(command.get_name().to_owned())
        .about(about)
        .disable_help_subcommand(true)
        .args(arguments)
        .subcommands(below)
}

/// The list of the API that has the values of an argument.
fn list_of(noun: &str, id: &str) -> Option<&'static str> {
    Some(match (noun, id) {
        (_, "deployment") | ("deployment", "things") | ("snapshot", "of") => "deployments",
        (_, "instance" | "remove") | ("instance", "things") | ("ssh", "to") => "instances",
        ("instance", "instances") => "found-instances",
        (_, "disk") | ("disk", "things") => "disks",
        (_, "image") | ("image", "things" | "from") => "images",
        (_, "snapshot") | ("snapshot", "things") => "snapshots",
        (_, "network") | ("network", "things") => "networks",
        (_, "security_group") | ("security-group", "things") => "security-groups",
        (_, "node" | "nodes") | ("node", "things") => "nodes",
        (_, "operation" | "operations") => "operations",
        ("token", "things" | "of") => "tokens",
        ("session", "things") => "sessions",
        _ => return None,
    })
}

/// The names of the things in a list, with their states.
fn names(list: &str) -> Option<Vec<CompletionCandidate>> {
    let settings = Settings { retry_for: Some(Duration::ZERO), ..Settings::resolve(&typed()?).ok()? };
    // This only fails if the process has a provider of cryptography already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let page = runtime.block_on(async {
        let client = Client::new(&settings, CancellationToken::new(), Notes { quiet: true }).ok()?;
        let call = Call::to(&["v1", list]).with("limit", NAMES_MAX);
        tokio::time::timeout(NAMES_TIMEOUT, client.page(&call)).await.ok()?.ok()
    });
    // A name that is still being looked up may keep a thread.
    runtime.shutdown_background();
    let named = |item: &Value| {
        let text = |field: &str| item[field].as_str().map(str::to_owned);
        let name = text("name").or(text("id"))?;
        // Disks are named within their instances.
        let within = text("instance_name").filter(|_| list == "disks");
        Some((within.map_or(name.clone(), |instance| format!("{instance}/{name}")), text("state")))
    };
    let mut named: Vec<_> = page?.items.iter().filter_map(named).collect();
    named.sort_by_cached_key(|(name, _)| pieces(name));
    let candidate =
        |(name, state): (String, Option<String>)| CompletionCandidate::new(name).help(state.map(Into::into));
    Some(named.into_iter().map(candidate).collect())
}

/// The options of every command among the words that are typed so far.
fn typed() -> Option<Global> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let matches = args::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    Global::from_arg_matches(&matches).ok()
}
