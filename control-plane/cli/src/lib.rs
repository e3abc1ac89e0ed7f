//! `muster`, the command line: everything it does goes through the public REST API.
//!
//! ```text
//! args ──> settings ──> commands ──> client ──> controller        stdout: tables, or the API's objects (-o json)
//!                          │            │                         stderr: progress, questions, errors
//!                          └─> wait ────┘  operations are followed until they end
//! ```
//!
//! What it promises:
//! * Work goes on without it: Ctrl-C, `--timeout` and a lost connection end the waiting, never the work (exit code 3).
//! * Every change carries an idempotency key and is repeated under it when the connection breaks or the controller is
//!   busy or restarting (I9): it happens once.
//! * Memory stays flat: files are streamed, lists are read page by page.
//! * Answers are read leniently (unknown fields and words are fine), requests are built from the API's own types.
//!
//! It deliberately knows nothing of nodes' protocols, the database or libvirt.

mod args;
mod client;
mod commands;
mod content;
mod failure;
mod output;
mod progress;
mod settings;
mod sse;
mod tls;
mod transfer;
mod units;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio_util::sync::CancellationToken;

use crate::{args::Cli, failure::Failure, output::Out};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe behind `muster --help | head` is nobody's fault.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    if let args::Command::Completion { shell } = &cli.command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "muster", &mut script);
        return finish(cli.global.output, output::bytes(&script));
    }
    let format = cli.global.output;
    // The process has one provider of cryptography; a second install could only say that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return finish(format, Err(Failure::Io("cannot start".to_owned(), e))),
    };
    let outcome = runtime.block_on(async {
        let interrupt = CancellationToken::new();
        tokio::spawn(watch_for_interrupt(interrupt.clone()));
        commands::run(cli, interrupt).await
    });
    // A question at the terminal may still wait for its answer in a thread.
    runtime.shutdown_background();
    finish(format, outcome)
}

/// The first Ctrl-C asks everything to end in good order, the second one ends the process.
async fn watch_for_interrupt(interrupt: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        interrupt.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    }
}

fn finish(format: args::Format, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Out::new(format, false).failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
