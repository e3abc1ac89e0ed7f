//! The agent's side. It finds the holder, starts one if there is none, and hands a new holder the memory that the one
//! before held when it died.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use memmap2::{MmapOptions, MmapRaw};
use storage_core::{lock, units::usize_from};

use super::wire::{self, Answer, Ask};
use crate::helper::HelperProgram;

/// Longest time to wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for which a call that broke off is repeated.
const CALLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to wait until a new holder listens on its socket.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no live map.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// No holder was there, and none could be started or it did not listen in time.
    #[error("the holder could not be started ({program})")]
    Start {
        /// The executable that was run.
        program: String,
        /// Why it was not started, or why its socket does not answer.
        #[source]
        source: io::Error,
    },
    /// The holder answered with an error, given here as text.
    #[error("the holder refused: {0}")]
    Refused(String),
    /// The connection failed, or no valid answer came in time.
    #[error("the holder did not answer")]
    Call(#[source] io::Error),
    /// The holder gave the memory, but mapping it failed.
    #[error("the live map could not be mapped")]
    Map(#[source] io::Error),
}

/// Memory that the holder keeps, mapped into this process. Dropping it unmaps it; the holder keeps it.
pub struct LiveMemory {
    map: MmapRaw,
    fresh: bool,
}

impl LiveMemory {
    /// The first byte. It is page aligned; processes that map this key later share the memory.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Size in bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the call that returned this created the memory, which is all zeros then. Otherwise it holds what an
    /// earlier process left in it.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.fresh
    }
}

/// A client of one holder. Clones are cheap and share their state.
#[derive(Clone)]
pub struct Holder {
    parts: Arc<Parts>,
}

struct Parts {
    socket: PathBuf,
    program: HelperProgram,
    /// The memory this process uses, to hand it to a new holder when the old one has died.
    held: Mutex<BTreeMap<String, OwnedFd>>,
    /// Locked while a holder is started, so that only one is.
    starting: Mutex<Life>,
}

/// Whether to start a holder when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Wanted,
    /// The holder was told to stop. Another caller in this process must not start a new one that would outlive it.
    Ended,
}

impl Holder {
    /// A client of the holder that listens at `socket`. The first call that finds no holder there starts one.
    #[must_use]
    pub fn new(socket: PathBuf, program: HelperProgram) -> Self {
        Self { parts: Arc::new(Parts { socket, program, held: Mutex::default(), starting: Mutex::default() }) }
    }

    /// The program that a holder is started with, and other helper processes too.
    #[must_use]
    pub fn program(&self) -> &HelperProgram {
        &self.parts.program
    }

    /// Maps the memory of `key`, which has `bytes` bytes. Creates it, zeroed, if the holder does not have it.
    ///
    /// # Errors
    /// See [`HolderError`]. The holder refuses when the memory of this key has another size.
    pub fn get(&self, key: &str, bytes: u64) -> Result<LiveMemory, HolderError> {
        let (answer, fd) = self.call(&Ask::Get { key: key.to_owned(), bytes }, None)?;
        let fd = fd.ok_or_else(|| HolderError::Refused("the answer has no descriptor".to_owned()))?;
        let map = MmapOptions::new().len(usize_from(bytes)).map_raw(&fd).map_err(HolderError::Map)?;
        lock(&self.parts.held).insert(key.to_owned(), fd);
        Ok(LiveMemory { map, fresh: answer.fresh })
    }

    /// Makes the holder forget `key`. Succeeds when it does not have it.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn forget(&self, key: &str) -> Result<(), HolderError> {
        lock(&self.parts.held).remove(key);
        self.call(&Ask::Drop { key: key.to_owned() }, None).map(drop)
    }

    /// All keys that the holder has.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn list(&self) -> Result<Vec<String>, HolderError> {
        self.call(&Ask::List, None).map(|(answer, _)| answer.keys)
    }

    /// Tells the holder to forget everything and end. Succeeds when there is no holder. This client and its clones never
    /// start another one afterwards.
    ///
    /// # Errors
    /// [`HolderError::Call`].
    pub fn stop(&self) -> Result<(), HolderError> {
        *lock(&self.parts.starting) = Life::Ended;
        lock(&self.parts.held).clear();
        match self.try_call(&Ask::Stop, None) {
            Ok(_) => Ok(()),
            Err(e) if is_absent(&e) => Ok(()),
            Err(e) => Err(HolderError::Call(e)),
        }
    }

    fn call(&self, ask: &Ask, fd: Option<&OwnedFd>) -> Result<(Answer, Option<OwnedFd>), HolderError> {
        let got = match self.try_call(ask, fd) {
            Err(e) if is_absent(&e) => {
                self.start()?;
                self.try_call(ask, fd)
            }
            other => other,
        };
        let (answer, fd) = got.map_err(HolderError::Call)?;
        match answer.error {
            Some(error) => Err(HolderError::Refused(error)),
            None => Ok((answer, fd)),
        }
    }

    /// Repeats a call until an answer comes. On a busy machine this thread may send its call so late that the holder, which
    /// serves one caller at a time, has given up waiting for it.
    ///
    /// Repeating a call that was already served does no harm: memory whose answer was lost has no header yet, so it counts
    /// as fresh.
    fn try_call(&self, ask: &Ask, fd: Option<&OwnedFd>) -> io::Result<(Answer, Option<OwnedFd>)> {
        let deadline = Instant::now() + CALLS_TIMEOUT;
        loop {
            match self.call_once(ask, fd) {
                Err(e) if broke_off(&e) && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                answered => return answered,
            }
        }
    }

    fn call_once(&self, ask: &Ask, fd: Option<&OwnedFd>) -> io::Result<(Answer, Option<OwnedFd>)> {
        let mut stream = UnixStream::connect(&self.parts.socket)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        stream.set_write_timeout(Some(CALL_TIMEOUT))?;
        wire::send(&mut stream, ask, fd.map(AsFd::as_fd))?;
        wire::receive(&mut stream)
    }

    /// Starts a holder, unless another caller has done so meanwhile, and hands over the memory this process uses.
    fn start(&self) -> Result<(), HolderError> {
        let life = lock(&self.parts.starting);
        if UnixStream::connect(&self.parts.socket).is_ok() {
            return Ok(());
        }
        let Parts { program, socket, .. } = &*self.parts;
        let failed = |source| HolderError::Start { program: program.program.display().to_string(), source };
        if *life == Life::Ended {
            return Err(failed(io::Error::new(io::ErrorKind::NotConnected, "the holder was told to end")));
        }
        let mut child = program.command("holder", "--socket", socket).spawn().map_err(failed)?;
        wait_until_it_listens(&mut child, socket).map_err(failed)?;
        // Reap the child in case it ends before this process does.
        std::thread::Builder::new()
            .name("holder-reaper".to_owned())
            .spawn(move || drop(child.wait()))
            .map_err(failed)?;
        // What the previous holder held died with it, but this process still has the descriptors. Hand them over, so that
        // the memory survives the next crash of this process.
        for (key, fd) in lock(&self.parts.held).iter() {
            self.try_call(&Ask::Adopt { key: key.clone() }, Some(fd)).map_err(HolderError::Call)?;
        }
        Ok(())
    }
}

fn wait_until_it_listens(child: &mut Child, socket: &Path) -> io::Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match UnixStream::connect(socket) {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() >= deadline => {
                // It must not appear later and take over the path.
                let _it_may_be_dead = child.kill();
                let _reaped = child.wait();
                return Err(e);
            }
            Err(_) => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(io::Error::other(format!("it ended at once: {status}")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Whether a connection failed because no holder listens.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether the connection ended without an answer, or none came in time.
fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_call_that_the_holder_breaks_off_is_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("holder.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        let holder = std::thread::spawn(move || {
            drop(listener.accept().expect("the first call"));
            let (mut stream, _) = listener.accept().expect("the same call again");
            let (ask, _) = wire::receive::<Ask>(&mut stream).expect("a question");
            let answer = Answer { keys: vec!["a".to_owned()], ..Answer::default() };
            wire::send(&mut stream, &answer, None).expect("answer");
            matches!(ask, Ask::List)
        });
        let program = HelperProgram { program: "/bin/false".into(), args: Vec::new() };
        assert_eq!(Holder::new(socket, program).list().expect("an answer"), ["a"]);
        assert!(holder.join().expect("no panic"));
    }
}
