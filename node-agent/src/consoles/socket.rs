//! [`Client`]: one WebSocket, and what ends it.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use muster_api::console::{ConsoleEvent, ConsoleOrder};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How often a client is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Time without any sign of life after which a client is given up.
const SILENT_FOR: Duration = Duration::from_secs(75);
/// Longest wait for a client to take the last word.
const LAST_WORD: Duration = Duration::from_secs(3);
/// Most bytes of the reason in a close frame, by RFC 6455.
const REASON_BYTES_MAX: usize = 123;

/// What goes to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// A piece of output.
    Bytes(Bytes),
    /// A word about the console.
    Event(ConsoleEvent),
    /// Nothing more comes, for this reason.
    Ended(String),
}

/// Where what goes to a client comes from.
pub(super) trait Source: Send {
    /// The next of it. May be dropped while it waits; then nothing is lost.
    fn next(&mut self) -> impl Future<Output = Out> + Send;
}

/// Where what comes from a client goes.
pub(super) trait Drain: Send {
    /// Takes bytes of the client, as fast as the guest takes them. An error, in a sentence, ends the console.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), String>> + Send;
    /// The client sends nothing more. An error, in a sentence, ends the console.
    fn end(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// One client of a console.
pub(super) struct Client {
    pub(super) socket: WebSocket,
    /// Time without any bytes after which the console is closed.
    pub(super) idle: Duration,
    /// Cancelled when the agent ends.
    pub(super) closing: CancellationToken,
}

/// When something was last seen of a client.
struct Pulse {
    begun: Instant,
    /// Milliseconds from the beginning to the last message of the client.
    heard_ms: AtomicU64,
    /// Milliseconds from the beginning to the last bytes in either direction.
    moved_ms: AtomicU64,
    /// The guest has not yet taken the last message. Meanwhile nothing is heard of the client.
    waits: AtomicBool,
}

impl Pulse {
    fn touch(&self, what: &AtomicU64) {
        what.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self, what: &AtomicU64) -> Instant {
        self.begun + Duration::from_millis(what.load(Ordering::Relaxed))
    }

    /// Waits until a client is silent, or nothing moves. Tells which, in a sentence.
    async fn stops(&self, idle: Duration) -> String {
        loop {
            if self.waits.load(Ordering::Relaxed) {
                self.touch(&self.heard_ms);
            }
            let (silent, still) = (self.last(&self.heard_ms) + SILENT_FOR, self.last(&self.moved_ms) + idle);
            let now = Instant::now();
            if silent <= now {
                return "the client does not answer".to_owned();
            }
            if still <= now {
                return format!("nothing was typed or printed for {} s", idle.as_secs());
            }
            sleep_until(silent.min(still)).await;
        }
    }
}

impl Client {
    /// Serves the client until it leaves, the guest's side ends, or nothing goes on any more.
    pub(super) async fn serve(self, mut source: impl Source, mut drain: impl Drain) {
        let Self { socket, idle, closing } = self;
        let (mut sink, mut messages) = socket.split();
        let pulse = Pulse {
            begun: Instant::now(),
            heard_ms: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        };
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outgoing = async {
            loop {
                let message = tokio::select! {
                    out = source.next() => match out {
                        Out::Bytes(bytes) => {
                            pulse.touch(&pulse.moved_ms);
                            Message::Binary(bytes)
                        }
                        Out::Event(event) => text(&event),
                        Out::Ended(reason) => return Some(reason),
                    },
                    _ = pings.tick() => Message::Ping(Bytes::new()),
                };
                if sink.send(message).await.is_err() {
                    return None;
                }
                // It takes something, so it is there, however slow it is.
                pulse.touch(&pulse.heard_ms);
            }
        };
        let incoming = async {
            while let Some(message) = messages.next().await {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => return Some(format!("the client broke off: {error}")),
                };
                pulse.touch(&pulse.heard_ms);
                pulse.waits.store(true, Ordering::Relaxed);
                let taken = match message {
                    Message::Binary(bytes) => {
                        pulse.touch(&pulse.moved_ms);
                        drain.take(bytes).await
                    }
                    Message::Text(order) => match serde_json::from_str(&order) {
                        Ok(ConsoleOrder::End) => drain.end().await,
                        Err(error) => Err(format!("the client sent an order that cannot be read: {error}")),
                    },
                    Message::Ping(_) | Message::Pong(_) => Ok(()),
                    Message::Close(_) => return None,
                };
                pulse.waits.store(false, Ordering::Relaxed);
                pulse.touch(&pulse.heard_ms);
                if let Err(reason) = taken {
                    return Some(reason);
                }
            }
            None
        };
        // In a block of its own, because both directions borrow the socket.
        let reason = {
            let (outgoing, incoming) = (pin!(outgoing), pin!(incoming));
            tokio::select! {
                reason = outgoing => reason,
                reason = incoming => reason,
                reason = pulse.stops(idle) => Some(reason),
                () = closing.cancelled() => Some("the agent of its node stops: open it again".to_owned()),
            }
        };
        let Some(reason) = reason else { return };
        tracing::debug!(reason, "a console ends");
        let close = CloseFrame { code: close_code::NORMAL, reason: shortened(&reason).into() };
        let words = async {
            sink.send(text(&ConsoleEvent::Ended { reason: reason.clone() })).await?;
            sink.send(Message::Close(Some(close))).await
        };
        // A client that takes nothing any more is left alone.
        let _ = timeout(LAST_WORD, words).await;
    }
}

fn text(event: &ConsoleEvent) -> Message {
    Message::Text(serde_json::to_string(event).expect("an event is JSON").into())
}

/// The beginning of a reason that fits into a close frame.
fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}
