//! The run of an agent: who it is beside other processes with the same identity, and where its data folder is (I8).
//!
//! ```text
//! DATA/run.json   the runs of this folder that the next start follows, and the host on which the last one was
//! ```
//! Each start gets an id and writes it down before anybody hears of it. The controller lets it act if it follows the run
//! that acts now (`domain/run.rs` of the controller). Two processes on one folder are impossible because of its lock; so
//! what remains is a second folder with the same identity: a copy. It is known by the host facts, which a copy cannot
//! share: machine id, file system and inode of the folder. An agent on a folder that was moved or copied does not start
//! until the operator says `--adopt`, and then only when the original has stopped or is silent. The same holds for a folder
//! whose `run.json` is damaged or lost.
//!
//! The limit: a copy of a whole host, memory and all, looks the same to the agent. The controller then keeps whichever
//! registered last, and the other one ends.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use muster_api::{
    RunId,
    node_protocol::{Incarnation, NODE_PROTOCOL, RunPlace, RunStart},
};
use serde::{Deserialize, Serialize};

use crate::{identity::replace_file, sealed};

const FILE: &str = "run.json";
/// Most runs that a start follows. More starts than these without reaching the controller do not happen by accident.
const FOLLOWED_MAX: usize = 64;

/// Why an agent cannot begin on a data folder.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder is not where the agent before ran.
    #[error(
        "{data_dir} was moved or copied since its agent last ran ({changes}): if this is the only one left, start with \
         --adopt; if the original still runs, give this agent a fresh folder"
    )]
    Moved {
        /// The data folder.
        data_dir: PathBuf,
        /// How the place differs, for people.
        changes: String,
    },
    /// `run.json` is damaged.
    #[error(
        "{file} is damaged: if no other agent has a copy of this folder, start once with --adopt, after the agent before \
         has stopped or was silent for 30 s; {source}"
    )]
    Damaged {
        /// Path of `run.json`.
        file: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// `run.json`, or the place of the folder, cannot be read or written.
    #[error("cannot {op} {file}: {source}")]
    File {
        /// What was tried, as a verb.
        op: &'static str,
        /// Path of `run.json`.
        file: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
}

/// Where a data folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFacts {
    /// `/etc/machine-id`; empty on a host without one.
    machine_id: String,
    /// Id of the file system of the folder, as statvfs(2) tells it.
    file_system: u64,
    /// Inode of the folder.
    inode: u64,
}

impl HostFacts {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
        let file_system = rustix::fs::statvfs(data_dir)?.f_fsid;
        Ok(Self { machine_id, file_system, inode: fs::metadata(data_dir)?.ino() })
    }

    /// What differs from `before`, for people.
    fn changes(&self, before: &Self) -> String {
        let mut changes = Vec::new();
        if self.machine_id != before.machine_id {
            changes.push(format!("the machine was {}, now it is {}", before.machine_id, self.machine_id));
        }
        if self.file_system != before.file_system {
            changes.push("it is on another file system".to_owned());
        }
        if self.inode != before.inode {
            changes.push(format!("its inode was {}, now it is {}", before.inode, self.inode));
        }
        changes.join(", ")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The last run that the controller accepted, and those started since, oldest first.
    runs: Vec<RunId>,
    host: HostFacts,
    /// The boot of the host in which the last of them started.
    host_boot: String,
}

/// This process as one of the runs of its data folder.
#[derive(Debug)]
pub struct Run {
    file: PathBuf,
    stored: Stored,
    place: RunPlace,
    /// Whether a controller accepted this run.
    accepted: AtomicBool,
}

impl Run {
    /// Begins a run on a data folder whose lock is held, and writes it down.
    ///
    /// # Errors
    /// [`RunError::Moved`] when the folder was moved or copied and `adopt` is not set; [`RunError::Damaged`] when `run.json` is
    /// damaged and `adopt` is not set; [`RunError::File`] when `run.json`
    /// cannot be read or written.
    pub fn begin(data_dir: &Path, host_boot: &str, adopt: bool) -> Result<Self, RunError> {
        let file = data_dir.join(FILE);
        let failed = |op| {
            let file = file.clone();
            move |source| RunError::File { op, file, source }
        };
        let host = HostFacts::of(data_dir).map_err(failed("ask for the place of"))?;
        let before = match fs::read(&file) {
            Ok(bytes) => match sealed::open::<Stored>(&bytes) {
                Ok(before) => Some(before),
                Err(_) if adopt => None,
                Err(source) => return Err(RunError::Damaged { file, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read")(error)),
        };
        let place = match &before {
            Some(before) if before.host != host && !adopt => {
                return Err(RunError::Moved { data_dir: data_dir.to_owned(), changes: host.changes(&before.host) });
            }
            Some(before) if before.host != host => RunPlace::Adopted,
            Some(before) if before.host_boot != host_boot => RunPlace::Rebooted,
            // Nothing is known of the runs before.
            None if adopt => RunPlace::Adopted,
            Some(_) | None => RunPlace::Same,
        };
        let mut runs = before.map(|before| before.runs).unwrap_or_default();
        runs.drain(..runs.len().saturating_sub(FOLLOWED_MAX - 1));
        runs.push(RunId::generate());
        let run = Self {
            file: file.clone(),
            stored: Stored { runs, host, host_boot: host_boot.to_owned() },
            place,
            accepted: AtomicBool::new(false),
        };
        // An adopted folder keeps its old facts until the controller agreed, so that the next start asks again.
        if place != RunPlace::Adopted {
            run.store().map_err(failed("write"))?;
        }
        Ok(run)
    }

    /// Id of this process.
    #[must_use]
    pub fn id(&self) -> RunId {
        *self.stored.runs.last().expect("`begin` adds this run")
    }

    /// Whether the agent may work before the controller accepted this run: then nobody else has its disks.
    #[must_use]
    pub const fn may_begin_alone(&self) -> bool {
        !matches!(self.place, RunPlace::Adopted)
    }

    /// What is sent to the controller.
    #[must_use]
    pub fn start(&self, incarnation: Incarnation, advertise: &str) -> RunStart {
        RunStart {
            protocol: NODE_PROTOCOL,
            incarnation,
            run: self.id(),
            follows: self.stored.runs[..self.stored.runs.len() - 1].to_vec(),
            accepted: self.accepted.load(Ordering::Acquire),
            place: self.place,
            advertise: advertise.to_owned(),
        }
    }

    /// Notes that the controller accepted this run: the next start follows it alone.
    ///
    /// # Errors
    /// When `run.json` cannot be written. The next start then also follows older runs, which does no harm.
    pub fn note_accepted(&self) -> io::Result<()> {
        self.accepted.store(true, Ordering::Release);
        replace_stored(&self.file, &Stored { runs: vec![self.id()], ..self.stored.clone() })
    }

    fn store(&self) -> io::Result<()> {
        replace_stored(&self.file, &self.stored)
    }
}

fn replace_stored(file: &Path, stored: &Stored) -> io::Result<()> {
    replace_file(file, &sealed::seal(stored)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCARNATION: Incarnation = Incarnation { number: 1, random: 1 };

    fn begin(dir: &Path, boot: &str, adopt: bool) -> Run {
        Run::begin(dir, boot, adopt).expect("begins")
    }

    #[test]
    fn a_start_follows_the_accepted_run_and_those_since() {
        let dir = tempfile::tempdir().expect("folder");
        let first = begin(dir.path(), "a", false);
        assert!(first.start(INCARNATION, "x").follows.is_empty());
        first.note_accepted().expect("stored");
        let second = begin(dir.path(), "a", false);
        let third = begin(dir.path(), "a", false);
        let start = third.start(INCARNATION, "x");
        assert_eq!((start.place, start.follows), (RunPlace::Same, vec![first.id(), second.id()]));
        third.note_accepted().expect("stored");
        let rebooted = begin(dir.path(), "b", false).start(INCARNATION, "x");
        assert_eq!((rebooted.place, rebooted.follows), (RunPlace::Rebooted, vec![third.id()]));
    }

    #[test]
    fn a_folder_whose_list_of_runs_is_damaged_or_lost_can_be_adopted() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join(FILE);
        begin(dir.path(), "a", false).note_accepted().expect("stored");
        let mut bytes = fs::read(&file).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).expect("written");
        let refused = Run::begin(dir.path(), "a", false).expect_err("damaged").to_string();
        assert!(refused.contains("run.json") && refused.contains("--adopt"), "{refused}");
        for _ in ["damaged", "lost"] {
            let start = begin(dir.path(), "a", true).start(INCARNATION, "x");
            assert_eq!((start.place, start.follows), (RunPlace::Adopted, vec![]));
            let _ = fs::remove_file(&file);
        }
        begin(dir.path(), "a", true).note_accepted().expect("stored");
        assert_eq!(begin(dir.path(), "a", false).start(INCARNATION, "x").place, RunPlace::Same);
    }

    #[test]
    fn a_copied_folder_asks_for_adopt_until_the_controller_agreed() {
        let (dir, copy) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let original = begin(dir.path(), "a", false);
        original.note_accepted().expect("stored");
        fs::copy(dir.path().join(FILE), copy.path().join(FILE)).expect("copied");
        let refused = Run::begin(copy.path(), "a", false).expect_err("moved").to_string();
        assert!(refused.contains("inode") && refused.contains("--adopt"), "{refused}");
        let adopted = begin(copy.path(), "a", true);
        let start = adopted.start(INCARNATION, "x");
        assert_eq!((start.place, start.follows), (RunPlace::Adopted, vec![original.id()]));
        assert!(Run::begin(copy.path(), "a", false).is_err(), "nobody agreed yet");
        adopted.note_accepted().expect("stored");
        assert_eq!(begin(copy.path(), "a", false).start(INCARNATION, "x").place, RunPlace::Same);
        assert_eq!(
            begin(dir.path(), "a", false).start(INCARNATION, "x").place,
            RunPlace::Same,
            "the original is unchanged"
        );
    }
}
