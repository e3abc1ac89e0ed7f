//! `muster console`, `muster ssh`, `muster instance connect`: ways into running guests.
//!
//! `muster ssh` runs the `ssh` of this machine, whose connection `muster instance connect` makes. So keys, agents,
//! configuration and options are those that the user has anyway.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
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
    time::sleep,
};
use tokio_tungstenite::tungstenite::Bytes;

use super::Ctx;
use crate::{
    answer,
    args::{Connect, Console, Global, Ssh},
    cells::word,
    client::{Call, FromConsole, OpenedConsole},
    failure::Failure,
    output::stdout_failed,
};

/// Pause before a broken console is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Most deployments that are followed back to find the image of a fork.
const FORKS_MAX: usize = 16;
/// Largest piece of input, bytes.
const INPUT_BYTES: usize = 16 << 10;

/// What `ssh` makes the connection with. The values come by the environment, so that no name is part of a command of a
/// shell.
const PROXY_COMMAND: &str =
    r#""$MUSTER_SSH_PROGRAM" --quiet instance connect "$MUSTER_SSH_INSTANCE" "$MUSTER_SSH_PORT""#;

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

    /// Says something on standard error, on lines of its own.
    fn say(&self, ctx: &Ctx, text: &str) {
        match self.before {
            // In a raw terminal a line does not begin at the left by itself.
            Some(_) => ctx.out.notes.say(&format!("\r\n[{text}]\r")),
            None => ctx.out.notes.say(text),
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing more can be done for a terminal that is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
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

/// Watches a serial console and types into it, over connections that may break.
pub(super) async fn console(ctx: &Ctx, wanted: &Console) -> Result<(), Failure> {
    let mode = if wanted.read_only { ConsoleMode::Read } else { ConsoleMode::Write };
    let mut open = OpenConsole { mode: Some(mode), take: Some(wanted.take), ..OpenConsole::SERIAL };
    let mut opened = ctx.client.console(&wanted.instance, &open).await?;
    let terminal = RawTerminal::begin()?;
    if terminal.before.is_some() {
        let key = char::from(wanted.detach_key | 0x40);
        terminal.say(ctx, &format!("console of {}; Ctrl-{key} leaves it", wanted.instance));
    }
    let mut typed = Typed { input: tokio::io::stdin(), ended: wanted.read_only && terminal.before.is_none() };
    loop {
        match serve(ctx, &terminal, opened, &mut typed, wanted.detach_key).await? {
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
        sleep(OPEN_AGAIN).await;
        opened = ctx.client.console(&wanted.instance, &open).await?;
        terminal.say(ctx, "the console is open again");
    }
}

/// Standard input, as far as it goes.
struct Typed {
    input: tokio::io::Stdin,
    ended: bool,
}

impl Typed {
    /// The next input; none for ever once it has ended.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.ended {
            return std::future::pending().await;
        }
        let mut bytes = vec![0; INPUT_BYTES];
        let read = self.input.read(&mut bytes).await;
        let count = read.map_err(|error| Failure::Io("standard input".to_owned(), error))?;
        bytes.truncate(count);
        self.ended = count == 0;
        Ok((count > 0).then_some(bytes))
    }
}

/// Serves one connection until it ends.
async fn serve(
    ctx: &Ctx,
    terminal: &RawTerminal,
    opened: OpenedConsole,
    typed: &mut Typed,
    detach_key: u8,
) -> Result<End, Failure> {
    let OpenedConsole { mut from, mut to } = opened;
    let (mut out, mut reason, mut types) = (tokio::io::stdout(), None, None);
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
            bytes = typed.next() => {
                // The end of a file ends the typing, and what the guest prints is still shown.
                let Some(mut bytes) = bytes? else { continue };
                let leaves = terminal.before.as_ref().and_then(|_| bytes.iter().position(|byte| *byte == detach_key));
                bytes.truncate(leaves.unwrap_or(bytes.len()));
                if !bytes.is_empty() {
                    // An error is read as well.
                    let _ = to.send(bytes.into()).await;
                }
                if leaves.is_some() {
                    to.close().await;
                    return Ok(End::Left);
                }
            }
            () = ctx.client.interrupt().cancelled() => {
                to.close().await;
                return Ok(End::Left);
            }
        }
    }
}

/// Copies standard input to a port of a guest, and what comes from there to standard output.
pub(super) async fn connect(ctx: &Ctx, wanted: &Connect) -> Result<(), Failure> {
    let open = OpenConsole { kind: ConsoleKind::Port, port: Some(wanted.port), ..OpenConsole::SERIAL };
    let OpenedConsole { mut from, mut to } = ctx.client.console(&wanted.instance, &open).await?;
    let sending = async {
        let mut typed = Typed { input: tokio::io::stdin(), ended: false };
        while let Some(bytes) = typed.next().await? {
            if to.send(Bytes::from(bytes)).await.is_err() {
                break;
            }
        }
        // An error is read as well.
        let _ = to.end().await;
        std::future::pending::<Result<(), Failure>>().await
    };
    let receiving = async {
        let (mut out, mut over) = (tokio::io::stdout(), false);
        loop {
            match from.next().await {
                FromConsole::Bytes(bytes) => {
                    out.write_all(&bytes).await.map_err(stdout_failed)?;
                    out.flush().await.map_err(stdout_failed)?;
                }
                FromConsole::Event(ConsoleEvent::Ended { .. }) => over = true,
                FromConsole::Event(_) => {}
                FromConsole::Closed(Some(why)) if !over => {
                    return Err(Failure::BrokenOff(format!("the connection to {} ended: {why}", wanted.instance)));
                }
                FromConsole::Closed(_) => return Ok(()),
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
    }
    // What follows `--` is never an option, whatever a controller calls its instances.
    ssh.arg("--").arg(&instance.name).args(rest);
    ssh.env("MUSTER_SSH_INSTANCE", instance.id.to_string()).env("MUSTER_SSH_PORT", wanted.port.to_string());
    ssh
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
