//! `muster console`, `muster ssh`, `muster instance connect`: ways into running guests.
//!
//! `muster ssh` runs the `ssh` of this machine, whose connection `muster instance connect` makes. So keys, agents,
//! configuration and options are those that the user has anyway.

use std::{
    cell::Cell,
    env,
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
    time::Duration,
};

use muster_api::{
    ErrorCode,
    console::{ConsoleEvent, ConsoleKind, ConsoleMode, OpenConsole},
    deployment::{Deployment, DeploymentSource},
    image::Image,
    instance::{Instance, InstanceState},
    snapshot::Snapshot,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Bytes;
use tokio_util::sync::CancellationToken;

use super::Ctx;
use crate::{
    answer,
    args::{Connect, Console, Global, Ssh},
    cells::word,
    client::{Call, FromConsole, OpenedConsole},
    failure::Failure,
    output::{self, stdout_failed},
};

/// Pause before a broken console is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Most deployments that are followed back to find the image of a fork.
const FORKS_MAX: usize = 16;
/// How long sending the last keys may take, and closing the connection.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How much of what is no terminal waits to be sent, bytes.
const QUEUED_BYTES: usize = 256 << 10;
/// How a node says that a connection into a guest ended as it should.
const GUEST_CLOSED: &str = "the guest has closed the connection";
/// Largest piece of input, bytes.
const INPUT_BYTES: usize = 16 << 10;

/// What `ssh` makes the connection with. The values come by the environment, so that no name is part of a command of a
/// shell.
const PROXY_COMMAND: &str =
    r#""$MUSTER_SSH_PROGRAM" --quiet instance connect "$MUSTER_SSH_INSTANCE" "$MUSTER_SSH_PORT""#;

/// What a guest may have switched on in the terminal: the other screen, reports of the mouse, marked pastes, a hidden cursor,
/// colours.
const TERMINAL_RESET: &str = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m";

/// A terminal that passes every key on. It is as before once this is dropped.
struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Leaves what is no terminal as it is.
    fn begin() -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let failed = |error: rustix::io::Errno| Failure::Io("the terminal cannot be used".to_owned(), error.into());
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before: Some(before) })
    }

    /// Says something on standard error, on a line of its own. At a terminal somebody looks at the console, so it is said
    /// there whatever `--quiet` says.
    fn say(&self, ctx: &Ctx, text: &str) {
        match self.before {
            Some(_) => output::in_raw_terminal(&format!("[{text}]")),
            None => ctx.out.notes.say(text),
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            if io::stdout().is_terminal() {
                let mut out = io::stdout();
                // Nothing more can be done for a terminal that is gone. The same holds below.
                let _ = out.write_all(TERMINAL_RESET.as_bytes()).and_then(|()| out.flush());
            }
            // What was typed and not read is dropped: it may be an answer of the terminal to the guest, not for a shell.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// How one connection to a console ended.
enum End {
    /// The user left.
    Left,
    /// The node said why it is over.
    Over(String),
    /// It broke.
    Broke(String),
}

/// What ends a console from outside: SIGTERM, SIGHUP, and Ctrl-C where no terminal passes it on.
struct Signals<'a> {
    interrupt: &'a CancellationToken,
    terminate: Signal,
    hang_up: Signal,
}

impl<'a> Signals<'a> {
    fn watch(ctx: &'a Ctx) -> Result<Self, Failure> {
        let failed = |error| Failure::Io("signals cannot be watched".to_owned(), error);
        let watch = |kind| signal(kind).map_err(failed);
        let (terminate, hang_up) = (watch(SignalKind::terminate())?, watch(SignalKind::hangup())?);
        Ok(Self { interrupt: ctx.client.interrupt(), terminate, hang_up })
    }

    async fn come(&mut self) {
        tokio::select! {
            () = self.interrupt.cancelled() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Watches a serial console and types into it, over connections that may break.
pub(super) async fn console(ctx: &Ctx, wanted: &Console) -> Result<(), Failure> {
    let mode = if wanted.read_only { ConsoleMode::Read } else { ConsoleMode::Write };
    let mut open = OpenConsole { mode: Some(mode), take: Some(wanted.take), ..OpenConsole::SERIAL };
    let mut opened = ctx.client.console(&wanted.instance, &open).await?;
    let mut signals = Signals::watch(ctx)?;
    let terminal = RawTerminal::begin()?;
    let detach_key = terminal.before.is_some().then_some(wanted.detach_key);
    if detach_key.is_some() {
        let key = char::from(wanted.detach_key | 0x40);
        terminal.say(ctx, &format!("console of {}; Ctrl-{key} leaves it", wanted.instance));
    }
    let ended = wanted.read_only && terminal.before.is_none();
    let mut typed = Typed { input: tokio::io::stdin(), detach_key, ended };
    loop {
        match serve(ctx, &terminal, opened, &mut typed, &mut signals).await? {
            End::Left => {
                terminal.say(ctx, "left");
                return Ok(());
            }
            End::Over(reason) => {
                terminal.say(ctx, &reason);
                return Ok(());
            }
            End::Broke(why) => terminal.say(ctx, &format!("{why}; opening it again")),
        }
        // One who took the keyboard does not take it from somebody who has it by now.
        open.take = None;
        let again = async {
            sleep(OPEN_AGAIN).await;
            ctx.client.console(&wanted.instance, &open).await
        };
        opened = tokio::select! {
            opened = again => opened?,
            left = typed.leaves() => return left,
            () = signals.come() => return Ok(()),
        };
        terminal.say(ctx, "the console is open again");
    }
}

/// Standard input, as far as it goes.
struct Typed {
    input: tokio::io::Stdin,
    /// The key that ends it; none if it is no terminal.
    detach_key: Option<u8>,
    ended: bool,
}

/// What somebody typed.
enum Input {
    Bytes(Bytes),
    /// These bytes, and then the key that leaves.
    Leave(Bytes),
    /// Nothing more comes.
    End,
}

impl Typed {
    /// The next input; never any once it has ended.
    async fn next(&mut self) -> Result<Input, Failure> {
        if self.ended {
            return std::future::pending().await;
        }
        let mut bytes = vec![0; INPUT_BYTES];
        let read = self.input.read(&mut bytes).await;
        let count = read.map_err(|error| Failure::Io("standard input".to_owned(), error))?;
        bytes.truncate(count);
        self.ended = count == 0;
        let leaves = self.detach_key.and_then(|key| bytes.iter().position(|byte| *byte == key));
        bytes.truncate(leaves.unwrap_or(count));
        Ok(match (leaves, count) {
            (Some(_), _) => Input::Leave(bytes.into()),
            (None, 0) => Input::End,
            (None, _) => Input::Bytes(bytes.into()),
        })
    }

    /// Waits until somebody leaves. What is typed before that is dropped.
    async fn leaves(&mut self) -> Result<(), Failure> {
        while !matches!(self.next().await?, Input::Leave(_)) {}
        Ok(())
    }
}

/// Serves one connection until it ends.
async fn serve(
    ctx: &Ctx,
    terminal: &RawTerminal,
    opened: OpenedConsole,
    typed: &mut Typed,
    signals: &mut Signals<'_>,
) -> Result<End, Failure> {
    let OpenedConsole { mut from, mut to } = opened;
    // Keys are read also while earlier ones cannot be sent, because one of them leaves. What is no terminal waits.
    let (queue, mut queued) = mpsc::unbounded_channel::<Bytes>();
    let waiting = Cell::new(0);
    let sending = async {
        while let Some(bytes) = queued.recv().await {
            waiting.set(waiting.get() - bytes.len());
            if to.send(bytes).await.is_err() {
                break;
            }
        }
        // An error is read as well.
        to
    };
    tokio::pin!(sending);
    let (mut out, mut reason, mut types) = (tokio::io::stdout(), None, None);
    let (mut queue, mut leave_by) = (Some(queue), None);
    loop {
        tokio::select! {
            message = from.next() => match message {
                FromConsole::Bytes(bytes) => {
                    out.write_all(&bytes).await.map_err(stdout_failed)?;
                    out.flush().await.map_err(stdout_failed)?;
                }
                FromConsole::Event(ConsoleEvent::Writer) => {
                    if types.replace(true) == Some(false) {
                        terminal.say(ctx, "you type now");
                    }
                }
                FromConsole::Event(ConsoleEvent::Reader { reason }) => {
                    types = Some(false);
                    terminal.say(ctx, &format!("what you type is dropped: {reason}"));
                }
                FromConsole::Event(ConsoleEvent::Skipped { bytes }) => {
                    terminal.say(ctx, &format!("{bytes} bytes were left out, because they came faster than they were read"));
                }
                FromConsole::Event(ConsoleEvent::Ended { reason: said }) => reason = Some(said),
                FromConsole::Event(ConsoleEvent::Unknown) => {}
                FromConsole::Closed(broken) => return Ok(match (reason, broken) {
                    (Some(reason), _) => End::Over(reason),
                    (None, None) => End::Over("the console was closed".to_owned()),
                    (None, Some(why)) => End::Broke(why),
                }),
            },
            input = typed.next(), if queue.is_some() && (terminal.before.is_some() || waiting.get() < QUEUED_BYTES) => {
                let (bytes, leaves) = match input? {
                    Input::Bytes(bytes) => (bytes, false),
                    Input::Leave(bytes) => (bytes, true),
                    // The typing is over, and what the guest prints is still shown.
                    Input::End => continue,
                };
                waiting.set(waiting.get() + bytes.len());
                if let Some(queue) = queue.as_ref().filter(|_| !bytes.is_empty()) {
                    // An error is read as well.
                    let _ = queue.send(bytes);
                }
                if leaves {
                    (queue, leave_by) = (None, Some(Instant::now() + LEAVE_WITHIN));
                }
            }
            mut to = &mut sending => {
                // Everything was sent after somebody left; else the connection broke, which is read next.
                if leave_by.is_some() {
                    let _ = timeout(LEAVE_WITHIN, to.close()).await;
                    return Ok(End::Left);
                }
                return Ok(match timeout(LEAVE_WITHIN, from.next()).await {
                    Ok(FromConsole::Closed(Some(why))) => End::Broke(why),
                    _ => End::Broke("the connection broke".to_owned()),
                });
            }
            () = sleep_until(leave_by.unwrap_or_else(Instant::now)), if leave_by.is_some() => return Ok(End::Left),
            () = signals.come() => return Ok(End::Left),
        }
    }
}

/// Copies standard input to a port of a guest, and what comes from there to standard output.
pub(super) async fn connect(ctx: &Ctx, wanted: &Connect) -> Result<(), Failure> {
    let open = OpenConsole { kind: ConsoleKind::Port, port: Some(wanted.port), ..OpenConsole::SERIAL };
    let OpenedConsole { mut from, mut to } = ctx.client.console(&wanted.instance, &open).await?;
    let sending = async {
        let mut typed = Typed { input: tokio::io::stdin(), detach_key: None, ended: false };
        while let Input::Bytes(bytes) = typed.next().await? {
            if to.send(bytes).await.is_err() {
                break;
            }
        }
        // An error is read as well.
        let _ = to.end().await;
        std::future::pending::<Result<(), Failure>>().await
    };
    let receiving = async {
        let (mut out, mut over) = (tokio::io::stdout(), None);
        loop {
            match from.next().await {
                FromConsole::Bytes(bytes) => {
                    out.write_all(&bytes).await.map_err(stdout_failed)?;
                    out.flush().await.map_err(stdout_failed)?;
                }
                FromConsole::Event(ConsoleEvent::Ended { reason }) => {
                    over = Some(reason);
                }
                FromConsole::Event(_) => {}
                FromConsole::Closed(broken) => {
                    let why = over.or(broken).unwrap_or_else(|| "it was closed".to_owned());
                    if why == GUEST_CLOSED {
                        return Ok(());
                    }
                    return Err(Failure::BrokenOff(format!("the connection to {} ended: {why}", wanted.instance)));
                }
            }
        }
    };
    tokio::select! {
        ended = sending => ended,
        ended = receiving => ended,
        () = ctx.client.interrupt().cancelled() => Err(Failure::Interrupted(false)),
    }
}

/// Runs `ssh` instead of this process.
pub(super) async fn ssh(ctx: &Ctx, global: &Global, wanted: Ssh) -> Result<(), Failure> {
    let (user, name) = match wanted.to.rsplit_once('@') {
        Some((user, name)) => (Some(user.to_owned()), name),
        None => (None, wanted.to.as_str()),
    };
    let instance: Instance = get(ctx, &["v1", "instances", name]).await?;
    if !matches!(instance.state, InstanceState::Running | InstanceState::Starting) {
        let state = word(&instance.state);
        return Err(Failure::BrokenOff(format!("{} is {state}: start it with `muster instance start`", instance.name)));
    }
    let user = match user {
        Some(user) => Some(user),
        None => default_user(ctx, &instance).await?,
    };
    let mut ssh = command(&instance, user.as_deref(), &wanted);
    hand_over(&mut ssh, global)?;
    let error = ssh.exec();
    Err(Failure::Io("cannot run ssh; is it installed?".to_owned(), error))
}

/// The command `ssh`. Each guest has its own line in the known hosts, whatever its name and address are.
fn command(instance: &Instance, user: Option<&str>, wanted: &Ssh) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", &format!("ProxyCommand={PROXY_COMMAND}")]);
    ssh.args(["-o", &format!("HostKeyAlias=muster-{}", instance.id), "-o", "StrictHostKeyChecking=accept-new"]);
    // A shared connection is found by the name, which another guest had or has.
    ssh.args(["-o", "ControlPath=none"]);
    if let Some(identity) = &wanted.identity {
        ssh.arg("-i").arg(identity).args(["-o", "IdentitiesOnly=yes"]);
    }
    if let Some(user) = user {
        ssh.args(["-l", user]);
    }
    let mut rest = wanted.rest.iter().peekable();
    // Options of ssh come before the host, and the command after it.
    while let Some(option) = rest.next_if(|word| word.as_encoded_bytes().starts_with(b"-")) {
        ssh.arg(option);
        if takes_value(option.as_encoded_bytes()) {
            ssh.args(rest.next());
        }
    }
    // What follows `--` is never an option, whatever a controller calls its instances.
    ssh.arg("--").arg(&instance.name).args(rest);
    ssh.env("MUSTER_SSH_INSTANCE", instance.id.to_string()).env("MUSTER_SSH_PORT", wanted.port.to_string());
    ssh
}

/// Whether the word after these options of ssh belongs to the last of them, as in `-L 8080:localhost:80` and `-vp 22`.
fn takes_value(options: &[u8]) -> bool {
    const WITH_VALUE: &[u8] = b"BbcDEeFIiJLlmOoPpQRSWw";
    // The first option with a value takes the rest of the word, if there is any.
    options.iter().skip(1).position(|letter| WITH_VALUE.contains(letter)).is_some_and(|at| at + 2 == options.len())
}

/// Lets the command that makes the connection sign in as this one did. The rest of the environment is there anyway.
fn hand_over(ssh: &mut Command, global: &Global) -> Result<(), Failure> {
    let program = env::current_exe().map_err(|error| Failure::Io("the path of this program".to_owned(), error))?;
    ssh.env("MUSTER_SSH_PROGRAM", program);
    let said: [(&str, Option<OsString>); 5] = [
        ("MUSTER_URL", global.url.clone().map(Into::into)),
        ("MUSTER_TOKEN", global.token.clone().map(Into::into)),
        ("MUSTER_CA", global.ca.clone().map(Into::into)),
        ("MUSTER_PROJECT", global.project.clone().map(Into::into)),
        ("MUSTER_PROFILE", global.profile.clone().map(Into::into)),
    ];
    ssh.envs(said.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Ok(())
}

/// The user that the image of an instance names, if it comes from an image that names one. A fork comes from a snapshot
/// of another deployment.
async fn default_user(ctx: &Ctx, instance: &Instance) -> Result<Option<String>, Failure> {
    let mut from = instance.deployment;
    for _ in 0..FORKS_MAX {
        let deployment = found::<Deployment>(ctx, &["v1", "deployments", &from.to_string()]).await?;
        let source = deployment.and_then(|deployment| deployment.source.known().cloned());
        match source {
            Some(DeploymentSource { image: Some(image), .. }) => {
                let image = found::<Image>(ctx, &["v1", "images", &image.to_string()]).await?;
                return Ok(image.and_then(|image| image.default_user));
            }
            Some(DeploymentSource { snapshot: Some(snapshot), .. }) => {
                let snapshot = found::<Snapshot>(ctx, &["v1", "snapshots", &snapshot.to_string()]).await?;
                let Some(before) = snapshot.and_then(|snapshot| snapshot.deployment) else { return Ok(None) };
                from = before;
            }
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Reads a thing; none if it is deleted.
async fn found<T: Serialize + DeserializeOwned>(ctx: &Ctx, path: &[&str]) -> Result<Option<T>, Failure> {
    match get(ctx, path).await {
        Ok(thing) => Ok(Some(thing)),
        Err(failure) if failure.code() == Some(ErrorCode::NotFound) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn get<T: Serialize + DeserializeOwned>(ctx: &Ctx, path: &[&str]) -> Result<T, Failure> {
    Ok(answer::read(&ctx.client.get(&Call::to(path)).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_an_option_of_ssh_stays_with_it() {
        for with in ["-L", "-l", "-o", "-vp", "-NL"] {
            assert!(takes_value(with.as_bytes()), "{with}");
        }
        for without in ["-v", "-N", "-p22", "-L8080:localhost:80", "-oCompression=yes", "-"] {
            assert!(!takes_value(without.as_bytes()), "{without}");
        }
    }
}
