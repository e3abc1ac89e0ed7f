//! `muster exec`: runs a command in a guest. Its output goes where it would go here, and its exit code is that of the CLI.

use std::{
    io::{self, Read as _, Write as _},
    time::Duration,
};

use muster_api::guest::{self, Encoding, Executed};

use super::{Ctx, body};
use crate::{
    answer::{self, Misfit},
    args::Exec,
    client::Call,
    failure::Failure,
    output::{self, stdout_failed},
};

/// Most bytes of standard input that are sent. The controller says what it does not take.
const STDIN_BYTES_MAX: u64 = 512 << 10;
/// How much longer than the command its answer may take.
const ANSWER_EXTRA: Duration = Duration::from_secs(60);
/// How long a command is waited for where nobody says it, as the controller does.
const WITHIN: Duration = Duration::from_secs(30);
/// The exit code of `timeout` for a command that still runs.
const STILL_RUNS: u8 = 124;

pub(super) async fn run(ctx: &Ctx, wanted: &Exec) -> Result<(), Failure> {
    let (stdin, encoding) = if wanted.stdin {
        let (text, encoding) = Encoding::of(standard_input()?);
        (Some(text), encoding)
    } else {
        (None, Encoding::Text)
    };
    let timeout_s = wanted.within.map(|time| time.as_secs());
    let request = guest::Exec { command: wanted.command.clone(), timeout_s, stdin, encoding };
    let call = Call::to(&["v1", "instances", &wanted.instance, "exec"]);
    let limit = wanted.within.unwrap_or(WITHIN) + ANSWER_EXTRA;
    let answer = ctx.client.post_within(&call, &body(&request)?, limit).await?;
    let done: Executed = answer::read(&answer.body)?;
    if ctx.out.is_json() {
        ctx.out.json(&answer.body)?;
    } else {
        print(&done)?;
    }
    if done.truncated {
        ctx.out.notes.say("the command printed more than 1 MiB; the rest is not here");
    }
    match (done.exit_code, done.signal) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Told(u8::try_from(code).unwrap_or(1))),
        // As a shell tells it.
        (None, Some(signal)) => Err(Failure::Told(u8::try_from(signal + 128).unwrap_or(1))),
        (None, None) => {
            ctx.out.notes.say(&format!("the command still runs in {} and is not waited for any more", wanted.instance));
            Err(Failure::Told(STILL_RUNS))
        }
    }
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(STDIN_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| Failure::Io("standard input cannot be read".to_owned(), error))?;
    Ok(bytes)
}

fn print(done: &Executed) -> Result<(), Failure> {
    let bytes = |name: &str, text: &str| {
        let bytes = done.encoding.decode(text);
        bytes.ok_or_else(|| Misfit(format!("{name}: it is not written as `encoding` says")))
    };
    output::bytes(&bytes("stdout", &done.stdout)?)?;
    io::stderr().write_all(&bytes("stderr", &done.stderr)?).map_err(stdout_failed)
}
