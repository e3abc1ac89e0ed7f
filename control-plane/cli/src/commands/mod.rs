//! One file per noun: options in, calls out, answers shown. What they share is here.

mod deployment;
mod event;
mod image;
mod instance;
mod login;
mod misc;
mod node;
mod operation;
mod snapshot;
mod token;

use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Cli, Command, Listing, Removal},
    client::{Answer, Call, Client},
    failure::Failure,
    output::{self, Column, List, Out},
    progress::Progress,
    settings::Settings,
    units, wait,
};

/// What every command has at hand.
pub(crate) struct Ctx {
    pub(crate) client: Client,
    pub(crate) out: Out,
    no_wait: bool,
    until: Option<Instant>,
}

/// Runs one command line.
pub(crate) async fn run(cli: Cli, interrupt: CancellationToken) -> Result<(), Failure> {
    let out = Out::new(cli.global.output, cli.global.quiet);
    let until = cli.global.timeout.map(|t| Instant::now() + t);
    if let Command::Login(login) = &cli.command {
        return login::run(&cli.global, login, out, interrupt).await;
    }
    if let Some(words) = reserved(&cli.command) {
        return Err(Failure::NotBuiltYet(words.to_owned()));
    }
    let settings = Settings::resolve(&cli.global)?;
    let client = Client::new(&settings, interrupt, out.notes)?;
    let ctx = Ctx { client, out, no_wait: cli.global.no_wait, until };
    match cli.command {
        Command::Image(command) => image::run(&ctx, command).await,
        Command::Version(command) => image::run_version(&ctx, command).await,
        Command::Deploy(deploy) => deployment::create(&ctx, *deploy).await,
        Command::Deployment(command) => deployment::run(&ctx, command).await,
        Command::Instance(command) => instance::run(&ctx, command).await,
        Command::Snapshot(command) => snapshot::run(&ctx, command).await,
        Command::Node(command) => node::run(&ctx, command).await,
        Command::Operation(command) => operation::run(&ctx, command).await,
        Command::Event(command) => event::run(&ctx, command).await,
        Command::Token(command) => token::run(&ctx, command).await,
        Command::Top(top) => misc::top(&ctx, &top).await,
        Command::Whoami => misc::whoami(&ctx).await,
        Command::Api(api) => misc::api(&ctx, api).await,
        // Answered before there are settings.
        Command::Login(_) | Command::Completion { .. } => Ok(()),
        Command::Project(_) | Command::Quota(_) | Command::Audit(_) => Ok(()),
    }
}

/// The words of a command that only has its shape so far.
fn reserved(command: &Command) -> Option<&'static str> {
    use crate::args::{DeploymentCommand as D, InstanceCommand as I, NodeCommand as N, SnapshotCommand as S};
    Some(match command {
        Command::Project(_) => "project",
        Command::Quota(_) => "quota",
        Command::Audit(_) => "audit",
        Command::Deployment(D::Shelve(_)) => "deployment shelve",
        Command::Deployment(D::Unshelve(_)) => "deployment unshelve",
        Command::Instance(I::Recover(_)) => "instance recover",
        Command::Instance(I::Console(_)) => "instance console",
        Command::Instance(I::Migrate(_)) => "instance migrate",
        Command::Snapshot(S::Restore(_)) => "snapshot restore",
        Command::Node(N::Drain(_)) => "node drain",
        Command::Node(N::Fence(_)) => "node fence",
        _ => return None,
    })
}

/// What became of a change.
enum Settled {
    /// Taken; nobody waits (`--no-wait`): the operation.
    Accepted(Value),
    /// Done after work: the operation.
    Done(Value),
    /// Done at once: the answer's body.
    Now(Value),
}

impl Ctx {
    /// Prints every page of a list.
    async fn list(&self, call: &Call, columns: &[Column]) -> Result<(), Failure> {
        let mut list = List::new(self.out, columns);
        self.client.pages(call, |items| list.page(items)).await?;
        list.finish()
    }

    /// All items of a short list.
    async fn collect(&self, call: &Call) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        self.client
            .pages(call, |items| {
                all.extend(items);
                Ok(())
            })
            .await?;
        Ok(all)
    }

    /// Waits for the work behind an answer, if there is any and waiting is wanted.
    async fn settle(&self, answer: Answer) -> Result<Settled, Failure> {
        if !answer.is_operation() {
            return Ok(Settled::Now(answer.body));
        }
        if self.no_wait {
            return Ok(Settled::Accepted(answer.body));
        }
        let progress = Progress::work(self.out.notes);
        wait::for_operation(&self.client, &progress, answer.body, self.until).await.map(Settled::Done)
    }

    /// Says that work was accepted and how to follow it.
    fn accepted(&self, operation: &Value) -> Result<(), Failure> {
        self.out.thing(operation, || {
            let text = |pointer| output::text(operation, pointer);
            format!("{} {} accepted: muster operation wait {}", text("/kind"), text("/target/name"), text("/id"))
        })
    }

    /// Waits, then shows the thing as it is now: the object for programs, `sentence` for people.
    async fn finish(
        &self,
        answer: Answer,
        thing: Option<&Call>,
        sentence: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        let object = match self.settle(answer).await? {
            Settled::Accepted(operation) => return self.accepted(&operation),
            Settled::Now(body) if !body.is_null() => body,
            Settled::Now(_) | Settled::Done(_) if thing.is_none() && self.out.is_json() => return Ok(()),
            Settled::Done(operation) => match thing {
                Some(call) => self.client.get(call).await?,
                None => operation,
            },
            Settled::Now(body) => match thing {
                Some(call) => self.client.get(call).await?,
                None => body,
            },
        };
        self.out.thing(&object, || sentence(&object))
    }

    /// Deletes things one after the other; says first what comes back and asks at a terminal.
    async fn remove(&self, kind: &str, path: &[&str], removal: &Removal, frees: Frees) -> Result<(), Failure> {
        for thing in &removal.things {
            let call = Call::to(path).then(thing);
            let freed = self.announce(&format!("{kind} {thing}"), &call, frees, removal.yes).await?;
            let answer = self.client.change(Method::DELETE, &call, None).await?;
            self.removed(answer, &format!("{kind} {thing}"), freed).await?;
        }
        Ok(())
    }

    /// What a DELETE would bring back; a no at the terminal ends the command.
    async fn announce(&self, what: &str, call: &Call, frees: Frees, yes: bool) -> Result<Option<u64>, Failure> {
        let freed = match frees {
            Frees::Bytes if !(yes && self.out.is_json()) => match self.client.would_free(call).await {
                Ok(freed) => freed,
                // Only "there is no such thing" matters here; a controller that cannot tell deletes all the same.
                Err(e) if e.code() == Some("not_found") || matches!(e, Failure::Interrupted(_)) => return Err(e),
                Err(_) => None,
            },
            _ => None,
        };
        if !yes {
            let comes_back = freed.map(|n| format!(" ({} come back)", units::bytes(n))).unwrap_or_default();
            let question = format!("Delete {what}{comes_back}?");
            let answer = tokio::select! {
                answer = output::ask(&question) => answer,
                () = self.client.interrupt().cancelled() => Some(false),
            };
            if answer == Some(false) {
                return Err(Failure::Declined);
            }
        }
        Ok(freed)
    }

    async fn removed(&self, answer: Answer, what: &str, freed: Option<u64>) -> Result<(), Failure> {
        match self.settle(answer).await? {
            Settled::Accepted(operation) => self.accepted(&operation),
            Settled::Done(operation) if self.out.is_json() => self.out.thing(&operation, String::new),
            Settled::Done(_) | Settled::Now(_) => {
                let comes_back = freed.map(|n| format!(", {} come back", units::bytes(n))).unwrap_or_default();
                self.out.sentence(&format!("deleted {what}{comes_back}"))
            }
        }
    }
}

/// Whether a DELETE can tell beforehand what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frees {
    Bytes,
    Nothing,
}

/// The common filters of lists.
fn filtered(call: Call, listing: &Listing) -> Call {
    let call = call.with_each("state", &listing.state).with_each("label", &listing.label);
    if listing.deleted { call.with("deleted", true) } else { call }
}

/// A request's body from the API's type.
fn body<T: Serialize>(request: &T) -> Result<Value, Failure> {
    serde_json::to_value(request).map_err(|e| Failure::Io("request".to_owned(), std::io::Error::other(e)))
}

/// Labels as the API takes them.
fn labels(pairs: Vec<(String, String)>) -> Result<muster_api::Labels, Failure> {
    pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>().try_into().map_err(Failure::Usage)
}

/// A name or id out of the command line.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e| Failure::Usage(format!("'{text}' is not a {what}: {e}")))
}
