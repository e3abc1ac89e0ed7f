//! Ways into running guests for people: serial consoles, screens, TCP ports. The controller opens them, as WebSockets
//! over mutual TLS; `muster_api::console` has the messages.
//!
//! ```text
//!  WebSocket --+                        one Line per guest
//!  WebSocket --+-- many watch, one --> [ broadcast <--- ] serial socket of QEMU
//!  WebSocket --+   of them types       [ queue --------> ]
//!  WebSocket <----- bytes both ways -----> VNC server of QEMU, or a TCP port of the guest
//! ```
//!
//! Promises:
//! - QEMU serves one reader of a serial socket at a time. That is this agent, while anybody watches, and it hands the
//!   output on. The console log is written by QEMU itself and is whole either way.
//! - A slow or silent client never holds up the guest or another client (I11): it is told how much it missed, or what
//!   it does not take waits in its own connection.
//! - A console that nothing goes through, and a client that does not answer, end in bounded time (I10).
//!
//! Reading order: `line` (one serial console), `history` (what is sent of earlier output), `socket` (one client), `relay` (screens and ports).

mod history;
mod line;
mod relay;
mod socket;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use axum::{extract::WebSocketUpgrade, response::Response};
use futures::future::BoxFuture;
use metrics::{counter, gauge};
use muster_api::{
    InstanceId,
    console::{ConsoleKind, ConsoleMode},
};
use storage_core::lock;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{either::Either, sync::CancellationToken};

use self::{line::Line, relay::relay, socket::Client};
use crate::{hypervisor::console, telemetry};

/// Most consoles that are open at a time on a node.
const OPEN_MAX: usize = 256;
/// How much of what was printed before is sent to one who opens a serial console, bytes.
const HISTORY_BYTES: u64 = 16 << 10;
/// Longest wait for a guest's socket or port to open.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Largest message of a client, bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What of a guest is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The socket of its serial console.
    Serial,
    /// Its VNC server.
    Screen,
    /// One of its TCP ports.
    Port(u16),
}

/// An open connection into a guest.
pub type GuestStream = Either<UnixStream, TcpStream>;

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The guest does not run, or has no such door. Trying again does not help while it stays so.
    #[error("{0}")]
    Closed(String),
    /// It should open and did not.
    #[error("{0}")]
    Failed(String),
    /// There is no room or no answer at the moment.
    #[error("{0}")]
    Busy(String),
}

/// Opens doors of guests.
pub type Opener = Arc<dyn Fn(InstanceId, Door) -> BoxFuture<'static, Result<GuestStream, DoorError>> + Send + Sync>;

/// One wish of a controller.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// What to open.
    pub kind: ConsoleKind,
    /// With a serial console: whether the client wants to type.
    pub mode: ConsoleMode,
    /// With a serial console: whether it types from now on although another does.
    pub take: bool,
    /// With kind `port`: the port.
    pub port: Option<u16>,
    /// Time without any bytes after which it is closed.
    pub idle: Duration,
}

/// The consoles of a node that are open. Clones are the same.
#[derive(Clone)]
pub struct Consoles {
    inner: Arc<Inner>,
}

struct Inner {
    opener: Opener,
    /// Folder of the console logs, `{instance}.log`.
    console_dir: PathBuf,
    slots: Arc<Semaphore>,
    /// The lines that are open. The inner lock is held while one is being opened.
    lines: Mutex<HashMap<InstanceId, Arc<tokio::sync::Mutex<Weak<Line>>>>>,
    /// Cancelled when the agent ends.
    closing: CancellationToken,
}

impl Consoles {
    /// No console is open yet. `console_dir` has the console logs, and `closing` ends all consoles.
    #[must_use]
    pub fn new(opener: Opener, console_dir: PathBuf, closing: CancellationToken) -> Self {
        let slots = Arc::new(Semaphore::new(OPEN_MAX));
        Self { inner: Arc::new(Inner { opener, console_dir, slots, lines: Mutex::default(), closing }) }
    }

    /// Opens what the wish names, and then lets the client in.
    ///
    /// # Errors
    /// [`DoorError`] if the guest's side does not open. Then the client is not let in.
    pub async fn open(
        &self,
        instance: InstanceId,
        wish: Wish,
        upgrade: WebSocketUpgrade,
    ) -> Result<Response, DoorError> {
        let full = || DoorError::Busy(format!("{OPEN_MAX} consoles are open on its node, which is the most"));
        let slot = Slot::new(self.inner.slots.clone().try_acquire_owned().map_err(|_| full())?);
        counter!(telemetry::CONSOLES_OPENED, "kind" => wish.kind.as_str()).increment(1);
        let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
        let closing = self.inner.closing.clone();
        let client = move |socket| Client { socket, idle: wish.idle, closing };
        Ok(match wish.kind {
            ConsoleKind::Serial => {
                let line = self.line(instance).await?;
                let history = self.history(instance).await;
                let (watching, typing) = line.attach(wish.mode, wish.take, history);
                upgrade.on_upgrade(async move |socket| {
                    client(socket).serve(watching, typing).await;
                    drop(slot);
                })
            }
            ConsoleKind::Vnc | ConsoleKind::Port => {
                let door = wish.port.map_or(Door::Screen, Door::Port);
                let (from, to) = relay(self.door(instance, door).await?);
                upgrade.on_upgrade(async move |socket| {
                    client(socket).serve(from, to).await;
                    drop(slot);
                })
            }
        })
    }

    async fn door(&self, instance: InstanceId, door: Door) -> Result<GuestStream, DoorError> {
        match timeout(OPEN_WITHIN, (self.inner.opener)(instance, door)).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(DoorError::Failed(format!("nothing answered within {} s", OPEN_WITHIN.as_secs()))),
        }
    }

    /// The serial console of a guest. It is opened if nobody watches it yet.
    async fn line(&self, instance: InstanceId) -> Result<Arc<Line>, DoorError> {
        let place = {
            let mut lines = lock(&self.inner.lines);
            if !lines.contains_key(&instance) {
                // Those that nobody watches or opens any more.
                lines.retain(|_, place| {
                    Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|line| line.strong_count() > 0)
                });
            }
            lines.entry(instance).or_default().clone()
        };
        let mut known = place.lock().await;
        if let Some(line) = known.upgrade().filter(|line| !line.has_ended()) {
            return Ok(line);
        }
        let line = Arc::new(Line::new(self.door(instance, Door::Serial).await?));
        *known = Arc::downgrade(&line);
        Ok(line)
    }

    /// The end of what was printed before, from the beginning of a line. It is read before the client is let in: what is
    /// printed in that moment may be left out.
    async fn history(&self, instance: InstanceId) -> Vec<u8> {
        let log = self.inner.console_dir.join(format!("{instance}.log"));
        let read = tokio::task::spawn_blocking(move || console::tail(&log, HISTORY_BYTES)).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok(tail) => {
                let whole = u64::try_from(tail.len()).is_ok_and(|len| len < HISTORY_BYTES);
                let begin = if whole { 0 } else { tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
                history::without_questions(&tail[begin..])
            }
            Err(error) => {
                tracing::warn!(instance.id = %instance, %error, "a console is opened without what was printed before");
                Vec::new()
            }
        }
    }
}

/// One of the consoles that may be open. It counts as open until it is dropped.
struct Slot(#[expect(dead_code, reason = "it is given back when dropped")] OwnedSemaphorePermit);

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        gauge!(telemetry::CONSOLES).increment(1.0);
        Self(permit)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        gauge!(telemetry::CONSOLES).decrement(1.0);
    }
}
