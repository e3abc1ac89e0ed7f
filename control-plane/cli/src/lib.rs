//! `muster`, the command line. It does everything through the public REST API.
//!
//! ```text
//! args ──> settings ──> commands ──> client ──> controller        stdout: tables, or the API's objects (-o json)
//!                          │            │                         stderr: progress, questions, errors
//!                          └─> wait ────┘  follows operations until they end
//! ```
//!
//! It promises:
//! * Work does not depend on it. Ctrl-C, `--timeout` and a lost connection end the waiting (exit code 3), never the
//!   work.
//! * A change happens once. It carries an idempotency key and is repeated with that key when the connection breaks or
//!   the controller is busy or restarting (I9).
//! * Memory use does not grow with the length of files and lists: files are streamed, lists are read page by page.
//! * Requests and answers have the types of `muster_api`. Unknown fields and words in an answer are ignored, a missing
//!   field is an error; with `-o json` an answer is printed as it was sent.
//!
//! It knows nothing of the nodes' protocols, the database or libvirt.

mod answer;
mod args;
mod cells;
mod client;
mod commands;
mod completion;
mod failure;
mod output;
mod places;
mod progress;
mod rule;
mod settings;
mod table;
mod tls;
mod transfer;
mod units;
mod wait;

use std::{process::ExitCode, time::Duration};

use clap::FromArgMatches;
use tokio_util::sync::CancellationToken;

use crate::{args::Cli, failure::Failure, output::Out, places::Words};

/// How much later than `--timeout` a command is broken off that does not end by itself.
const TIMEOUT_GRACE: Duration = Duration::from_secs(1);

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    if completion::answer() {
        return ExitCode::SUCCESS;
    }
    let mut command = args::command();
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let read = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, called(&command, &matches))));
    let (cli, words) = match read.map_err(|e| e.format(&mut command)) {
        Ok(read) => read,
        Err(e) => {
            // Printing may fail on a closed pipe, as in `muster --help | head`.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let out = Out::new(cli.global.output, cli.global.quiet, words);
    if let args::Command::Completion { shell } = &cli.command {
        return finish(out, completion::script(*shell));
    }
    // This only fails if the process has a provider of cryptography already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return finish(out, Err(Failure::Io("cannot start".to_owned(), e))),
    };
    let outcome = runtime.block_on(async {
        let interrupt = CancellationToken::new();
        tokio::spawn(watch_for_interrupt(interrupt.clone()));
        let limit = cli.global.timeout;
        let command = commands::run(cli, out, interrupt);
        match limit {
            // Commands that wait for work end by themselves at the limit, and tell how far the work is.
            Some(limit) => {
                let ended = tokio::time::timeout(limit + TIMEOUT_GRACE, command).await;
                ended.unwrap_or_else(|_elapsed| {
                    Err(Failure::BrokenOff(format!("not done within {limit:?} (--timeout)")))
                })
            }
            None => command.await,
        }
    });
    // A thread may still wait for the answer to a question at the terminal.
    runtime.shutdown_background();
    finish(out, outcome)
}

/// The first Ctrl-C ends the command in good order, the second one ends the process at once.
async fn watch_for_interrupt(interrupt: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        interrupt.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    }
}

/// The options and arguments of the command that was called.
fn called(command: &clap::Command, matches: &clap::ArgMatches) -> Words {
    let mut path = Vec::new();
    let mut level = matches;
    while let Some((word, below)) = level.subcommand() {
        path.push(word);
        level = below;
    }
    Words::of(command, &path)
}

fn finish(out: Out, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
