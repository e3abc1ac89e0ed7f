//! The agent's side: finds the holder or starts it, and gives it back what it lost when it had died.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use memmap2::{MmapOptions, MmapRaw};

use super::wire::{self, Answer, Ask};

/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which a call that broke off is repeated.
const CALLS_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a new holder to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no live map.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// It could not be started, or does not listen.
    #[error("the holder could not be started ({program})")]
    Start {
        /// What was run.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It answered, but not with what was asked for.
    #[error("the holder refused: {0}")]
    Refused(String),
    /// The call broke.
    #[error("the holder did not answer")]
    Call(#[source] io::Error),
    /// The memory could not be mapped.
    #[error("the live map could not be mapped")]
    Map(#[source] io::Error),
}

/// How to start a holder: `program args… --socket PATH`.
#[derive(Clone, Debug)]
pub struct Start {
    /// Executable.
    pub program: PathBuf,
    /// What comes before `--socket PATH`.
    pub args: Vec<OsString>,
    /// Environment it gets on top.
    pub env: Vec<(OsString, OsString)>,
}

impl Start {
    /// This executable with `holder`.
    ///
    /// # Errors
    /// When the path of this executable cannot be found out.
    pub fn own_executable() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, args: vec!["holder".into()], env: Vec::new() })
    }
}

/// Memory that the holder keeps, mapped here.
pub struct LiveMemory {
    map: MmapRaw,
    fresh: bool,
}

impl LiveMemory {
    /// Its first byte; page aligned, shared with whoever maps it later.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Its size.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Made by this call, so all zero; else it is what an earlier process left.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.fresh
    }
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Holder {
    parts: Arc<Parts>,
}

struct Parts {
    socket: PathBuf,
    start: Start,
    /// What this process uses, to give a new holder what the old one took with it.
    held: Mutex<BTreeMap<String, OwnedFd>>,
    /// One start at a time.
    starting: Mutex<Life>,
}

/// Whether a holder that is not there is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Wanted,
    /// It was told to end: a look at it from elsewhere must not bring it back behind the end of this process.
    Ended,
}

impl Holder {
    /// A client of the holder at `socket`; started by the first call that finds nobody there.
    #[must_use]
    pub fn new(socket: PathBuf, start: Start) -> Self {
        Self { parts: Arc::new(Parts { socket, start, held: Mutex::default(), starting: Mutex::default() }) }
    }

    /// The memory of `key`, mapped.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn get(&self, key: &str, bytes: u64) -> Result<LiveMemory, HolderError> {
        let (answer, fd) = self.call(&Ask::Get { key: key.to_owned(), bytes }, None)?;
        let fd = fd.ok_or_else(|| HolderError::Refused("no descriptor came".to_owned()))?;
        let length = usize::try_from(bytes).map_err(|e| HolderError::Map(io::Error::other(e)))?;
        let map = MmapOptions::new().len(length).map_raw(&fd).map_err(HolderError::Map)?;
        lock(&self.parts.held).insert(key.to_owned(), fd);
        Ok(LiveMemory { map, fresh: answer.fresh })
    }

    /// Forgets `key`.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn forget(&self, key: &str) -> Result<(), HolderError> {
        lock(&self.parts.held).remove(key);
        self.call(&Ask::Drop { key: key.to_owned() }, None).map(drop)
    }

    /// All keys it keeps.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn list(&self) -> Result<Vec<String>, HolderError> {
        self.call(&Ask::List, None).map(|(answer, _)| answer.keys)
    }

    /// Tells it to forget everything and end; fine when there is none. This client starts no other one afterwards.
    ///
    /// # Errors
    /// See [`HolderError`].
    pub fn stop(&self) -> Result<(), HolderError> {
        *lock(&self.parts.starting) = Life::Ended;
        lock(&self.parts.held).clear();
        match self.try_call(&Ask::Stop, None) {
            Ok(_) => Ok(()),
            Err(e) if nobody_there(&e) => Ok(()),
            Err(e) => Err(HolderError::Call(e)),
        }
    }

    fn call(&self, ask: &Ask, fd: Option<&OwnedFd>) -> Result<(Answer, Option<OwnedFd>), HolderError> {
        let got = match self.try_call(ask, fd) {
            Err(e) if nobody_there(&e) => {
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

    /// Calls until an answer comes. On a busy machine this thread may come to its question so late that the holder, which
    /// serves one caller at a time, has turned to the next one; then it asks again.
    ///
    /// A question that was answered already does no harm: memory that was made for an answer that got lost has no header
    /// yet, and is taken as fresh.
    fn try_call(&self, ask: &Ask, fd: Option<&OwnedFd>) -> io::Result<(Answer, Option<OwnedFd>)> {
        let deadline = Instant::now() + CALLS_TIMEOUT;
        loop {
            match self.call_once(ask, fd) {
                Err(e) if broke_off(&e) && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
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

    fn start(&self) -> Result<(), HolderError> {
        let one_at_a_time = lock(&self.parts.starting);
        if UnixStream::connect(&self.parts.socket).is_ok() {
            return Ok(());
        }
        let start = &self.parts.start;
        let failed = |source| HolderError::Start { program: start.program.display().to_string(), source };
        if *one_at_a_time == Life::Ended {
            return Err(failed(io::Error::new(io::ErrorKind::NotConnected, "it was told to end")));
        }
        let mut child = Command::new(&start.program)
            .args(&start.args)
            .arg("--socket")
            .arg(&self.parts.socket)
            .envs(start.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let deadline = Instant::now() + START_TIMEOUT;
        let connect = |path: &Path| UnixStream::connect(path);
        loop {
            match connect(&self.parts.socket) {
                Ok(_) => break,
                Err(e) if Instant::now() >= deadline => {
                    // It never listened: it must not turn up later and take the path over.
                    let _it_may_be_dead = child.kill();
                    let _reaped = child.wait();
                    return Err(failed(e));
                }
                Err(_) => {
                    if let Ok(Some(status)) = child.try_wait() {
                        return Err(failed(io::Error::other(format!("it ended at once: {status}"))));
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        // Somebody has to collect it when it ends before this process does.
        std::thread::Builder::new()
            .name("holder-reaper".to_owned())
            .spawn(move || drop(child.wait()))
            .map_err(failed)?;
        // The one before died with what it held; our mappings still have the pages: keep them through the next crash.
        for (key, fd) in lock(&self.parts.held).iter() {
            self.try_call(&Ask::Adopt { key: key.clone() }, Some(fd)).map_err(HolderError::Call)?;
        }
        Ok(())
    }
}

fn nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The connection ended without an answer, or none came in time.
fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_call_that_the_holder_broke_off_is_repeated() {
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
        let start = Start { program: "/bin/false".into(), args: Vec::new(), env: Vec::new() };
        assert_eq!(Holder::new(socket, start).list().expect("an answer"), ["a"]);
        assert!(holder.join().expect("no panic"));
    }
}
