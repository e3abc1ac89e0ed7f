//! The first read of every disk that was mounted. A disk counts as mounted once a program has read a block through its
//! mount, so that "ready" is said of what was tried.
//!
//! ```text
//!  agent ──"7 DISK\n"──> muster-agent first-reads --folder DATA/disks ── opens DISK.raw, reads 4 KiB
//!        <──"7 ok\n" or "7 what failed\n"──┘
//! ```
//!
//! Another process reads, and not the agent: if the agent is killed after one of its threads took the request and before
//! the answer, a thread of its own that reads waits for ever, and with it the process and all its mounts. The reading
//! process has none of the connections. They end with the agent, and then its reads end too.
//!
//! There is one such process for all disks, started when it is first needed and again if it died. A read that waits for
//! another node keeps one of its threads. It never takes longer than the read deadline of the disk.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            fs::{FileExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use muster_api::DiskId;
use storage_core::{BLOCK_BYTES, lock, units::usize_from};
use tokio::sync::oneshot;

use crate::helper::HelperProgram;

/// Number of reads at a time, each on a thread of the reading process.
const READS_MAX: usize = 32;
/// Longest time to wait for the answer. The block may have to come from another node. It is fetched to the end, so a
/// later try finds it here.
const LIMIT: Duration = Duration::from_secs(5);
const STACK_BYTES: usize = 64 << 10;
const OK: &str = "ok";

/// The agent's side: asks the reading process.
pub(super) struct FirstReads {
    folder: PathBuf,
    program: HelperProgram,
    next: AtomicU64,
    reader: Mutex<Option<Reader>>,
}

struct Reader {
    asks: UnixStream,
    waiting: Waiting,
}

/// Those who wait for an answer, by the number of the question. `None` after the reading process has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<String>>>>>;

impl FirstReads {
    pub(super) fn new(folder: PathBuf, program: HelperProgram) -> Self {
        Self { folder, program, next: AtomicU64::new(0), reader: Mutex::default() }
    }

    /// Reads the first block of a mounted disk, around the page cache.
    ///
    /// Fails when the read does, when it is not answered within five seconds, and when there is no process to read.
    pub(super) async fn read(&self, disk: DiskId) -> io::Result<()> {
        let answer = tokio::time::timeout(LIMIT, self.ask(disk)?).await;
        match answer {
            Ok(Ok(answer)) if answer == OK => Ok(()),
            Ok(Ok(failed)) => Err(io::Error::other(failed)),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process that reads it has ended")),
            Err(_) => {
                let why =
                    format!("it was not answered within {} s: nodes that have its bytes may be slow", LIMIT.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    fn ask(&self, disk: DiskId) -> io::Result<oneshot::Receiver<String>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut reader = lock(&self.reader);
        let is_there = |reader: &Reader| lock(&reader.waiting).is_some();
        let reader = match reader.take().filter(is_there) {
            Some(there) => reader.insert(there),
            None => reader.insert(self.start()?),
        };
        if let Some(waiting) = &mut *lock(&reader.waiting) {
            waiting.insert(number, answer);
        }
        // The reading process takes every question at once, so this does not wait.
        reader.asks.write_all(format!("{number} {disk}\n").as_bytes())?;
        Ok(answered)
    }

    fn start(&self) -> io::Result<Reader> {
        let (asks, theirs) = UnixStream::pair()?;
        let mut command = self.program.command("first-reads", "--folder", &self.folder);
        let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let (answers, told) = (asks.try_clone()?, waiting.clone());
        let work = move || take_answers(answers, child, &told);
        std::thread::Builder::new().name("first-reads".to_owned()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Reader { asks, waiting })
    }
}

/// Ends when the reading process does, or when the agent closes the stream.
fn take_answers(answers: UnixStream, mut child: Child, waiting: &Waiting) {
    for line in BufReader::new(answers).lines() {
        let Ok(line) = line else { break };
        let Some((number, answer)) = line.split_once(' ') else { break };
        let sender = number.parse().ok().and_then(|number| lock(waiting).as_mut()?.remove(&number));
        if let Some(sender) = sender {
            // Whoever asked may have given up.
            let _gone = sender.send(answer.to_owned());
        }
    }
    lock(waiting).take();
    let ended = child.wait();
    tracing::debug!(?ended, "the process that reads disks first has ended");
}

impl Drop for FirstReads {
    fn drop(&mut self) {
        if let Some(reader) = lock(&self.reader).take() {
            // The reading process ends when nobody can ask it any more.
            let _may_have_ended = reader.asks.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The reading process: takes questions from its standard input, a socket, and answers there. Ends with it.
///
/// # Errors
/// When a thread cannot be started or the input cannot be read.
pub fn main(folder: &Path) -> io::Result<()> {
    let asks = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let answers = Arc::new(Mutex::new(asks.try_clone()?));
    let (give, take) = mpsc::channel::<(String, DiskId)>();
    let take = Arc::new(Mutex::new(take));
    for _ in 0..READS_MAX {
        let (folder, take, answers) = (folder.to_owned(), take.clone(), answers.clone());
        let work = move || {
            loop {
                let Ok((number, disk)) = lock(&take).recv() else { return };
                let answer = match read(&folder.join(format!("{disk}.raw"))) {
                    Ok(()) => OK.to_owned(),
                    Err(error) => error.to_string(),
                };
                if writeln!(lock(&answers), "{number} {answer}").is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?;
    }
    for line in BufReader::new(asks).lines() {
        let line = line?;
        let asked = line.split_once(' ').and_then(|(number, disk)| Some((number.to_owned(), disk.parse().ok()?)));
        let asked = asked.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, line))?;
        give.send(asked).map_err(io::Error::other)?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    file.read_exact_at(&mut vec![0; usize_from(BLOCK_BYTES)], 0)
}
