//! One file per noun: each turns options into calls and shows the answers. What they share is here.

mod deployment;
mod event;
mod found;
mod image;
mod instance;
mod login;
mod misc;
mod node;
mod operation;
mod snapshot;
mod token;

use muster_api::{ErrorCode, operation::Operation};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{self, Object},
    args::{Cli, Command, Listing, Removal},
    client::{Answer, Call, Client},
    failure::Failure,
    output::{self, List, Out},
    progress::Progress,
    settings::Settings,
    table::{Column, Order},
    units, wait,
};

/// What every command needs.
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
        // Handled above or in `main`, without settings.
        Command::Login(_) | Command::Completion { .. } => Ok(()),
        Command::Project(_) | Command::Quota(_) | Command::Audit(_) => Ok(()),
    }
}

/// The words of a command that is reserved and not built yet.
fn reserved(command: &Command) -> Option<&'static str> {
    use crate::args::{DeploymentCommand as D, InstanceCommand as I, NodeCommand as N, SnapshotCommand as S};
    Some(match command {
        Command::Project(_) => "project",
        Command::Quota(_) => "quota",
        Command::Audit(_) => "audit",
        Command::Deployment(D::Shelve(_)) => "deployment shelve",
        Command::Deployment(D::Unshelve(_)) => "deployment unshelve",
        Command::Instance(I::Console(_)) => "instance console",
        Command::Instance(I::Migrate(_)) => "instance migrate",
        Command::Snapshot(S::Restore(_)) => "snapshot restore",
        Command::Node(N::Drain(_)) => "node drain",
        _ => return None,
    })
}

/// What became of a change.
enum Settled {
    /// It was accepted, and nobody waits (`--no-wait`). Holds the operation.
    Accepted(Value),
    /// It was slow work and succeeded.
    Done(Box<Object<Operation>>),
    /// It was done at once. Holds the body of the answer.
    Now(Value),
}

impl Ctx {
    /// Prints all pages of a list.
    async fn list<T>(&self, call: &Call, columns: &[Column<T>], order: Order) -> Result<(), Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut list = List::new(self.out, columns, order);
        self.client.pages(call, |items| list.page(items)).await?;
        list.finish()
    }

    /// Prints one thing: the object for programs, `text` for people.
    async fn show<T>(&self, call: &Call, text: impl FnOnce(&T) -> String) -> Result<(), Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        self.out.object(&self.client.get(call).await?, text)
    }

    /// Waits for the work that an answer started, if it did and waiting is wanted.
    async fn settle(&self, answer: Answer) -> Result<Settled, Failure> {
        if !answer.is_operation() {
            return Ok(Settled::Now(answer.body));
        }
        if self.no_wait {
            return Ok(Settled::Accepted(answer.body));
        }
        let progress = Progress::work(self.out.notes);
        let operation = Object::of(answer.body)?;
        wait::for_operation(&self.client, &progress, operation, self.until)
            .await
            .map(|done| Settled::Done(Box::new(done)))
    }

    /// Says that work was accepted and how to wait for it.
    fn accepted(&self, operation: &Value) -> Result<(), Failure> {
        self.out.object(operation, |operation: &Operation| {
            let Operation { id, kind, target, .. } = operation;
            format!("{kind} {} accepted: muster operation wait {id}", target.name)
        })
    }

    /// Waits, then prints the changed thing as it is now: the object for programs, `text` for people.
    async fn finish<T>(&self, answer: Answer, thing: &Call, text: impl FnOnce(&T) -> String) -> Result<(), Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        match self.settle(answer).await? {
            Settled::Accepted(operation) => self.accepted(&operation),
            Settled::Now(body) if !body.is_null() => self.out.object(&body, text),
            Settled::Now(_) | Settled::Done(_) => self.show(thing, text).await,
        }
    }

    /// Deletes things one after the other. Before each it says what nothing else uses, and asks at a terminal.
    async fn remove(&self, kind: &str, path: &[&str], removal: &Removal, frees: Frees) -> Result<(), Failure> {
        for thing in &removal.things {
            let call = Call::to(path).then(thing);
            let what = format!("{kind} {thing}");
            let freed = self.confirm(&what, &call, frees, removal.yes).await?;
            let answer = self.client.change(Method::DELETE, &call, None).await?;
            self.removed(answer, &what, freed).await?;
        }
        Ok(())
    }

    /// Asks whether to delete something, and returns how many bytes that frees where it is known.
    async fn confirm(&self, what: &str, call: &Call, frees: Frees, yes: bool) -> Result<Option<u64>, Failure> {
        let freed = match frees {
            Frees::Bytes if !(yes && self.out.is_json()) => self.would_free(call).await?,
            _ => None,
        };
        if !yes {
            self.agree(&format!("Delete {what}{}?", frees_text(freed))).await?;
        }
        Ok(freed)
    }

    /// Asks at a terminal whether to go on. Where there is no terminal it goes on.
    async fn agree(&self, question: &str) -> Result<(), Failure> {
        let answer = tokio::select! {
            answer = output::ask(question) => answer,
            () = self.client.interrupt().cancelled() => Some(false),
        };
        if answer == Some(false) { Err(Failure::Declined) } else { Ok(()) }
    }

    /// As [`Client::would_free`]. A controller that cannot say so may still be able to delete the thing.
    async fn would_free(&self, call: &Call) -> Result<Option<u64>, Failure> {
        match self.client.would_free(call).await {
            Err(e) if e.code() == Some(ErrorCode::NotFound) => Err(e),
            Err(e @ Failure::Interrupted(_)) => Err(e),
            other => Ok(other.unwrap_or(None)),
        }
    }

    async fn removed(&self, answer: Answer, what: &str, freed: Option<u64>) -> Result<(), Failure> {
        match self.settle(answer).await? {
            Settled::Accepted(operation) => self.accepted(&operation),
            Settled::Done(operation) if self.out.is_json() => self.out.json(&operation.sent),
            Settled::Done(_) | Settled::Now(_) => self.out.sentence(&format!("deleted {what}{}", frees_text(freed))),
        }
    }
}

/// Whether a DELETE can say beforehand how many bytes it frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frees {
    Bytes,
    Nothing,
}

fn frees_text(freed: Option<u64>) -> String {
    // Nothing sweeps the pool yet, so nothing comes back at once.
    freed.map(|n| format!(" ({} that nothing else uses; not freed yet)", units::bytes(n))).unwrap_or_default()
}

/// Adds the filters that all lists have.
fn filtered(call: Call, listing: &Listing) -> Call {
    let call = call.with_each("state", &listing.state).with_each("label", &listing.label);
    if listing.deleted { call.with("deleted", true) } else { call }
}

/// The body of a request.
fn body<T: Serialize>(request: &T) -> Result<Value, Failure> {
    serde_json::to_value(request).map_err(|e| Failure::Io("request".to_owned(), std::io::Error::other(e)))
}

fn labels(pairs: Vec<(String, String)>) -> Result<muster_api::Labels, Failure> {
    pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>().try_into().map_err(Failure::Usage)
}

/// Parses a name or id of the command line.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e| Failure::Usage(format!("'{text}' is not a {what}: {e}")))
}

/// Decodes a list of things.
fn read_all<T: Serialize + DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, Failure> {
    Ok(items.iter().map(answer::read).collect::<Result<_, _>>()?)
}
