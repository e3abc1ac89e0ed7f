//! One file per noun: each turns options into calls and shows the answers. What they share is here.

mod deployment;
mod disk;
mod event;
mod exec;
mod found;
mod guest;
mod image;
mod instance;
mod login;
mod misc;
mod network;
mod node;
mod operation;
mod pool;
mod session;
mod snapshot;
mod token;

use futures::future::join_all;
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
pub(crate) async fn run(cli: Cli, out: Out, interrupt: CancellationToken) -> Result<(), Failure> {
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
        Command::Disk(command) => disk::run(&ctx, command).await,
        Command::Console(console) => guest::console(&ctx, &console).await,
        Command::Ssh(ssh) => guest::ssh(&ctx, &cli.global, ssh).await,
        Command::Exec(exec) => exec::run(&ctx, &exec).await,
        Command::Snapshot(command) => snapshot::run(&ctx, command).await,
        Command::Network(command) => network::run(&ctx, command).await,
        Command::SecurityGroup(command) => network::run_groups(&ctx, command).await,
        Command::Node(command) => node::run(&ctx, command).await,
        Command::Pool(command) => pool::run(&ctx, command).await,
        Command::Operation(command) => operation::run(&ctx, command).await,
        Command::Event(command) => event::run(&ctx, command).await,
        Command::Token(command) => token::run(&ctx, command).await,
        Command::Session(command) => session::run(&ctx, command).await,
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
    use crate::args::{DeploymentCommand as D, InstanceCommand as I};
    Some(match command {
        Command::Project(_) => "project",
        Command::Quota(_) => "quota",
        Command::Audit(_) => "audit",
        Command::Deployment(D::Shelve(_)) => "deployment shelve",
        Command::Deployment(D::Unshelve(_)) => "deployment unshelve",
        Command::Instance(I::Migrate(_)) => "instance migrate",
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

    /// What is printed of an answer: it as it was sent for programs, `text` for people.
    fn shown<T>(&self, sent: Value, text: impl FnOnce(&T) -> String) -> Result<Shown, Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        let text = if self.out.is_json() { String::new() } else { text(&answer::read(&sent)?) };
        Ok(Shown { sent, text })
    }

    fn print(&self, shown: &Shown) -> Result<(), Failure> {
        match self.out.is_json() {
            true if shown.sent.is_null() => Ok(()),
            true => self.out.json(&shown.sent),
            false => self.out.text(&shown.text),
        }
    }

    /// Says that work was accepted and how to wait for it.
    fn accepted(&self, operation: Value) -> Result<Shown, Failure> {
        self.shown(operation, |operation: &Operation| {
            let Operation { id, kind, target, .. } = operation;
            format!("{kind} {} accepted:\n  muster operation wait {id}", target.name)
        })
    }

    /// Waits, then shows the changed thing as it is now.
    async fn ended<T>(&self, answer: Answer, thing: &Call, text: impl FnOnce(&T) -> String) -> Result<Shown, Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        match self.settle(answer).await? {
            Settled::Accepted(operation) => self.accepted(operation),
            Settled::Now(body) if !body.is_null() => self.shown(body, text),
            Settled::Now(_) => self.shown(self.client.get(thing).await?, text),
            Settled::Done(operation) => {
                let shown = self.shown(self.client.get(thing).await?, text)?;
                Ok(Shown { text: shown.text + &power_cut(&operation.read), ..shown })
            }
        }
    }

    /// As [`Self::ended`], and prints it.
    async fn finish<T>(&self, answer: Answer, thing: &Call, text: impl FnOnce(&T) -> String) -> Result<(), Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        self.print(&self.ended(answer, thing, text).await?)
    }

    /// Does the same to several things. All are begun before the first is waited for. A failure of one is told and keeps
    /// no other; the first one is the command's. Programs get one object for one thing, and one array for several.
    async fn each<T, B>(
        &self,
        things: Vec<T>,
        begin: impl AsyncFn(T) -> Result<B, Failure>,
        end: impl AsyncFn(B) -> Result<Shown, Failure>,
    ) -> Result<(), Failure> {
        let is_one = things.len() == 1;
        let mut begun = Vec::new();
        for thing in things {
            begun.push(match self.client.interrupt().is_cancelled() {
                false => begin(thing).await,
                // Ctrl-C while one thing is begun must not begin with the next.
                true => Err(Failure::Interrupted(false)),
            });
        }
        let (mut array, mut failed) = (Vec::new(), None);
        for begun in begun {
            let ended = match begun {
                Ok(begun) => end(begun).await,
                Err(failure) => Err(failure),
            };
            match ended {
                Ok(shown) if is_one || !self.out.is_json() => self.print(&shown)?,
                Ok(shown) => array.push(shown.sent),
                Err(failure) if is_one => return Err(failure),
                Err(failure) => {
                    array.extend(failure.operation().cloned());
                    self.out.tell(&failure);
                    failed.get_or_insert(failure.exit_code());
                }
            }
        }
        if !is_one && self.out.is_json() {
            // What is gone at once has no object.
            array.retain(|sent| !sent.is_null());
            self.out.json(&Value::Array(array))?;
        }
        failed.map_or(Ok(()), |code| Err(Failure::Told(code)))
    }

    /// Deletes things. It asks once for all of them, and says how much nothing else uses.
    async fn remove(&self, kind: &str, path: &[&str], removal: &Removal, frees: Frees) -> Result<(), Failure> {
        check_askable(removal.yes)?;
        let calls: Vec<Call> = removal.things.iter().map(|thing| Call::to(path).then(thing)).collect();
        let freed = join_all(calls.iter().map(|call| self.freed(call, frees, removal.yes))).await;
        let found: Vec<(&str, Option<u64>)> = removal
            .things
            .iter()
            .zip(&freed)
            .filter_map(|(thing, freed)| Some((thing.as_str(), *freed.as_ref().ok()?)))
            .collect();
        if !found.is_empty() {
            let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
            let total = found.iter().filter_map(|(_, freed)| *freed).reduce(|a, b| a.saturating_add(b));
            // What only two of them use is in neither number.
            let least = if found.len() > 1 { "at least " } else { "" };
            self.agree(&format!("Delete {kind} {}{}?", names.join(", "), frees_text(least, total)), removal.yes)
                .await?;
        }
        let things = removal.things.iter().zip(calls).zip(freed).collect();
        let begin = async |((name, call), freed): ((&String, Call), Result<Option<u64>, Failure>)| {
            let freed = freed?;
            let answer = self.client.change(Method::DELETE, &call, None).await?;
            Ok((answer, format!("{kind} {name}"), freed))
        };
        self.each(things, begin, async |(answer, what, freed)| self.removed(answer, &what, freed).await).await
    }

    /// Asks at a terminal whether to go on.
    async fn agree(&self, question: &str, yes: bool) -> Result<(), Failure> {
        check_askable(yes)?;
        let agreed = yes || {
            tokio::select! {
                answer = output::ask(question) => answer,
                () = self.client.interrupt().cancelled() => false,
            }
        };
        if agreed { Ok(()) } else { Err(Failure::Declined) }
    }

    /// How many bytes deleting a thing frees, where it is known and somebody is told.
    async fn freed(&self, call: &Call, frees: Frees, yes: bool) -> Result<Option<u64>, Failure> {
        if frees == Frees::Nothing || (yes && self.out.is_json()) {
            return Ok(None);
        }
        match self.client.would_free(call).await {
            Err(e) if e.code() == Some(ErrorCode::NotFound) => Err(e),
            Err(e @ Failure::Interrupted(_)) => Err(e),
            // A controller that cannot say so may still be able to delete the thing.
            other => Ok(other.unwrap_or(None)),
        }
    }

    async fn removed(&self, answer: Answer, what: &str, freed: Option<u64>) -> Result<Shown, Failure> {
        let sent = match self.settle(answer).await? {
            Settled::Accepted(operation) => return self.accepted(operation),
            Settled::Done(operation) => operation.sent,
            Settled::Now(body) => body,
        };
        Ok(Shown { sent, text: format!("deleted {what}{}", frees_text("", freed)) })
    }
}

/// What is printed of an answer.
struct Shown {
    /// The answer for programs; null if it has no body.
    sent: Value,
    /// The same for people.
    text: String,
}

/// Refuses to begin what has to be asked for where nobody can be asked.
fn check_askable(yes: bool) -> Result<(), Failure> {
    match yes || output::can_ask() {
        true => Ok(()),
        false => {
            Err(Failure::Usage("this asks before it goes on, and there is no terminal: repeat it with --yes".into()))
        }
    }
}

/// What a stop did beyond what was asked, with a comma; empty for other operations.
fn power_cut(operation: &Operation) -> String {
    let cut = operation.result.as_ref().and_then(|result| result["power_cut"].as_u64()).unwrap_or(0);
    match (cut, operation.progress.total) {
        (0, _) => String::new(),
        (1, 1) => ", its power was cut".to_owned(),
        (cut, total) => format!(", the power of {cut} of {total} was cut"),
    }
}

/// Whether a DELETE can say beforehand how many bytes it frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frees {
    Bytes,
    Nothing,
}

fn frees_text(least: &str, freed: Option<u64>) -> String {
    // Nothing comes back before a round of the sweep.
    freed
        .map(|n| format!(" ({least}{} that nothing else uses; the sweep gives it back)", units::bytes(n)))
        .unwrap_or_default()
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
