//! [`Line`]: the open serial console of one guest, which many may watch and one types into.
//!
//! The first of those who want to type does. When it leaves, the next one does. One who takes the keyboard goes to the
//! front, and the others watch.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use muster_api::console::{ConsoleEvent, ConsoleMode};
use storage_core::units::u64_from;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        mpsc, watch,
    },
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    GuestStream,
    socket::{Drain, Out, Source},
};
use crate::latest::Latest as _;

/// Largest piece of output, bytes.
const PIECE_BYTES: usize = 4 << 10;
/// Pieces of output that a client may be behind before it misses some.
const PIECES: usize = 256;
/// How long a short piece waits for more, because a serial port gives single bytes.
const GATHER: Duration = Duration::from_millis(2);
/// Most output in one message to a client, bytes.
const MESSAGE_BYTES: usize = 32 << 10;
/// Largest piece of input, bytes, and how many wait while the guest takes none. Then whoever types waits.
const INPUT_BYTES: usize = 4 << 10;
const INPUTS: usize = 16;

/// A piece of output.
#[derive(Clone)]
struct Piece {
    /// Bytes that came before it.
    at: u64,
    bytes: Bytes,
}

/// The open serial console of one guest. It is closed when dropped.
pub(super) struct Line {
    /// `None` is the last that is sent: the guest has closed it.
    output: broadcast::Sender<Option<Piece>>,
    input: mpsc::Sender<Bytes>,
    /// Those who want to type, in their order. The first of them does.
    typists: watch::Sender<VecDeque<u64>>,
    clients: AtomicU64,
    /// Bytes of output so far.
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Line {
    /// A line over this connection to QEMU.
    pub(super) fn new(stream: GuestStream) -> Self {
        let (mut from, mut to) = tokio::io::split(stream);
        let (output, _) = broadcast::channel(PIECES);
        let (input, mut typed) = mpsc::channel::<Bytes>(INPUTS);
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let reading = {
            let (output, ended, sent) = (output.clone(), ended.clone(), sent.clone());
            tokio::spawn(async move {
                let (mut at, mut buffer) = (0, BytesMut::new());
                loop {
                    buffer.reserve(PIECE_BYTES);
                    match (&mut from).take(u64_from(PIECE_BYTES)).read_buf(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    }
                    if buffer.len() < PIECE_BYTES {
                        sleep(GATHER).await;
                        let more = u64_from(PIECE_BYTES - buffer.len());
                        // What is there already; the end comes with the next read.
                        let _ = (&mut from).take(more).read_buf(&mut buffer).now_or_never();
                    }
                    let piece = Piece { at, bytes: buffer.split().freeze() };
                    at += u64_from(piece.bytes.len());
                    // Nobody may be watching at this moment.
                    let _ = output.send(Some(piece));
                    sent.store(at, Ordering::Release);
                }
                ended.store(true, Ordering::Release);
                let _ = output.send(None);
            })
        };
        let writing = tokio::spawn(async move {
            while let Some(bytes) = typed.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    // The guest is gone. The reading task says so.
                    break;
                }
            }
        });
        let tasks = [AbortOnDropHandle::new(reading), AbortOnDropHandle::new(writing)];
        let (typists, _) = watch::channel(VecDeque::new());
        Self { output, input, typists, clients: AtomicU64::new(0), sent, ended, _tasks: tasks }
    }

    /// Whether the guest has closed it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// The side of a client that watches. When it is dropped, the client does not type any more.
pub(super) struct Watching {
    line: Arc<Line>,
    client: u64,
    mode: ConsoleMode,
    output: broadcast::Receiver<Option<Piece>>,
    typists: watch::Receiver<VecDeque<u64>>,
    /// What it was told of who types; `None` before the first word.
    told: Option<bool>,
    /// Output before this was sent, or is not for this client.
    seen: u64,
    /// Bytes that are sent before all other output.
    first: Bytes,
    /// A piece that was received and not sent yet.
    kept: Option<Piece>,
    /// The guest has closed the line, and all output was received.
    over: bool,
}

/// The side of a client that types.
pub(super) struct Typing {
    line: Arc<Line>,
    client: u64,
}

impl Line {
    /// Lets a client in. One that takes the keyboard types from now on. `history` is sent before the output.
    pub(super) fn attach(
        self: &Arc<Self>,
        mode: ConsoleMode,
        take: bool,
        history: impl Into<Bytes>,
    ) -> (Watching, Typing) {
        let output = self.output.subscribe();
        let seen = self.sent.load(Ordering::Acquire);
        let client = self.clients.fetch_add(1, Ordering::Relaxed);
        let mut typists = self.typists.subscribe();
        if mode == ConsoleMode::Write {
            self.typists.send_modify(|all| if take { all.push_front(client) } else { all.push_back(client) });
        }
        typists.mark_changed();
        let first = history.into();
        // The last word may have been sent before this client could hear it.
        let over = self.has_ended();
        let line = self.clone();
        let watching = Watching { line, client, mode, output, typists, told: None, seen, first, kept: None, over };
        (watching, Typing { line: self.clone(), client })
    }

    fn is_typed_by(&self, client: u64) -> bool {
        self.typists.latest().front() == Some(&client)
    }
}

impl Watching {
    /// The word of who types, if it is another than the last one.
    fn turn(&mut self) -> Option<ConsoleEvent> {
        self.typists.mark_unchanged();
        let types = self.line.is_typed_by(self.client);
        if self.told.replace(types) == Some(types) {
            return None;
        }
        Some(match (types, self.mode) {
            (true, _) => ConsoleEvent::Writer,
            (false, ConsoleMode::Read) => ConsoleEvent::Reader { reason: "it was opened only to watch".to_owned() },
            (false, ConsoleMode::Write) => {
                ConsoleEvent::Reader { reason: "someone else types, or an older connection of yours".to_owned() }
            }
        })
    }
}

impl Watching {
    /// A piece and what follows it already; or how much is missing before the piece, which is kept.
    fn gathered(&mut self, piece: Piece) -> Out {
        let missed = piece.at.saturating_sub(self.seen);
        if missed > 0 {
            self.seen = piece.at;
            self.kept = Some(piece);
            return Out::Event(ConsoleEvent::Skipped { bytes: missed });
        }
        self.seen = piece.at + u64_from(piece.bytes.len());
        let mut all = BytesMut::from(piece.bytes);
        while all.len() < MESSAGE_BYTES {
            match self.output.try_recv() {
                Ok(Some(next)) if next.at == self.seen => {
                    self.seen += u64_from(next.bytes.len());
                    all.extend_from_slice(&next.bytes);
                }
                Ok(Some(next)) => {
                    self.kept = Some(next);
                    break;
                }
                Ok(None) | Err(TryRecvError::Closed) => {
                    self.over = true;
                    break;
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty) => break,
            }
        }
        Out::Bytes(all.freeze())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.line.typists.send_modify(|all| all.retain(|client| *client != self.client));
    }
}

impl Source for Watching {
    async fn next(&mut self) -> Out {
        if !self.first.is_empty() {
            return Out::Bytes(std::mem::take(&mut self.first));
        }
        if let Some(piece) = self.kept.take() {
            return self.gathered(piece);
        }
        loop {
            if self.over {
                return Out::Ended("the guest has ended".to_owned());
            }
            let output = tokio::select! {
                // Who types is told first, also at the beginning.
                biased;
                _ = self.typists.changed() => match self.turn() {
                    Some(event) => return Out::Event(event),
                    None => continue,
                },
                output = self.output.recv() => output,
            };
            match output {
                Ok(Some(piece)) => return self.gathered(piece),
                Ok(None) | Err(RecvError::Closed) => self.over = true,
                // The next piece tells how much is missing.
                Err(RecvError::Lagged(_)) => {}
            }
        }
    }
}

impl Drain for Typing {
    async fn take(&mut self, bytes: Bytes) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() && self.line.is_typed_by(self.client) {
            let piece = rest.split_to(rest.len().min(INPUT_BYTES));
            // When this fails the guest is gone, which the output tells.
            let _ = self.line.input.send(piece).await;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), String> {
        Err("a serial console takes no orders".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixStream, time::timeout};
    use tokio_util::either::Either;

    use super::*;

    fn line() -> (Arc<Line>, UnixStream) {
        let (agent, guest) = UnixStream::pair().expect("a pair");
        (Arc::new(Line::new(Either::Left(agent))), guest)
    }

    async fn next(watching: &mut Watching) -> Out {
        timeout(Duration::from_secs(10), watching.next()).await.expect("something in time")
    }

    fn bytes(out: Out) -> String {
        match out {
            Out::Bytes(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            other => panic!("expected bytes, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn all_see_the_output_and_the_first_types() {
        let (line, mut guest) = line();
        let (mut first, mut typed_first) = line.attach(ConsoleMode::Write, false, "before");
        let (mut second, mut typed_second) = line.attach(ConsoleMode::Write, false, "");
        let (mut watcher, mut typed_watcher) = line.attach(ConsoleMode::Read, false, "");
        assert_eq!(bytes(next(&mut first).await), "before");
        assert_eq!(next(&mut first).await, Out::Event(ConsoleEvent::Writer));
        for other in [&mut second, &mut watcher] {
            assert!(matches!(next(other).await, Out::Event(ConsoleEvent::Reader { .. })));
        }
        guest.write_all(b"login: ").await.expect("printed");
        for all in [&mut first, &mut second, &mut watcher] {
            assert_eq!(bytes(next(all).await), "login: ");
        }
        typed_second.take("dropped".into()).await.expect("taken");
        typed_watcher.take("dropped".into()).await.expect("taken");
        typed_first.take("root\n".into()).await.expect("taken");
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).await.expect("typed");
        assert_eq!(&typed, b"root\n");
        drop(first);
        assert_eq!(next(&mut second).await, Out::Event(ConsoleEvent::Writer), "the next in line types");
        let (mut third, _) = line.attach(ConsoleMode::Write, true, "");
        assert_eq!(next(&mut third).await, Out::Event(ConsoleEvent::Writer), "the keyboard was taken");
        assert!(matches!(next(&mut second).await, Out::Event(ConsoleEvent::Reader { .. })));
    }

    #[tokio::test]
    async fn one_who_comes_as_the_guest_ends_is_told_so() {
        let (line, guest) = line();
        drop(guest);
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        while !line.has_ended() && tokio::time::Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        let (mut late, _) = line.attach(ConsoleMode::Write, false, "before");
        assert_eq!(bytes(next(&mut late).await), "before");
        assert_eq!(next(&mut late).await, Out::Ended("the guest has ended".to_owned()));
    }

    #[tokio::test]
    async fn what_a_guest_does_not_take_waits_and_nothing_of_it_is_lost() {
        let (line, mut guest) = line();
        let (_watching, mut typing) = line.attach(ConsoleMode::Write, false, "");
        let pasted: Vec<u8> = (0..2_000_000_u32).flat_map(|number| number.to_le_bytes()).take(3_000_000).collect();
        let sent = pasted.clone();
        let paste = tokio::spawn(async move {
            for part in sent.chunks(100_000) {
                typing.take(Bytes::copy_from_slice(part)).await.expect("taken");
            }
            typing
        });
        let mut taken = vec![0; pasted.len()];
        timeout(Duration::from_secs(30), guest.read_exact(&mut taken)).await.expect("in time").expect("read");
        assert!(taken == pasted, "every byte, in order");
        drop(paste.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_missed_and_holds_up_nobody() {
        let (line, mut guest) = line();
        let (mut slow, _) = line.attach(ConsoleMode::Read, false, "");
        assert!(matches!(next(&mut slow).await, Out::Event(ConsoleEvent::Reader { .. })));
        guest.write_all(b"first").await.expect("printed");
        assert_eq!(bytes(next(&mut slow).await), "first");
        let much = vec![b'x'; 4 * PIECES * PIECE_BYTES];
        timeout(Duration::from_secs(30), guest.write_all(&much)).await.expect("not held up").expect("printed");
        drop(guest);
        let (mut got, mut missed) = (0, 0);
        loop {
            match next(&mut slow).await {
                Out::Bytes(bytes) => got += u64_from(bytes.len()),
                Out::Event(ConsoleEvent::Skipped { bytes }) => missed += bytes,
                Out::Event(event) => panic!("unexpected {event:?}"),
                Out::Ended(_) => break,
            }
        }
        assert!(missed > 0 && got > 0, "got {got}, missed {missed}");
        assert_eq!(got + missed, u64_from(much.len()));
        assert!(line.has_ended());
    }
}
