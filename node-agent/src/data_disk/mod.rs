//! [`DataDisk`]: the file system of the data folder. It tells how much room is left, and whether the disk still works.
//!
//! **Room.** Pool, cache and guests' deltas share the file system. When it fills up, they give way in this order:
//!
//! ```text
//! free space      who gives way
//!   v  < 9/8 (keep_free + mirror_reserve)   the cache: it shrinks by itself, and takes a chunk only for another one
//!   v  < 13/12 (keep_free + mirror_reserve) copies of objects that the repository has, if it says `evict`, up to 5/4
//!   v  <= keep_free + mirror_reserve        the pool takes no new objects; other nodes get them      condition disk_full
//!   v  <= keep_free                         the node takes no new instances                          condition node_full
//!   v  0                                    commits and cuts of its disks fail, then a guest's write: the guest is paused
//! ```
//! What was closed opens again by itself, with a sixteenth more free ([`Room`]). So that a file system without any room can
//! still be emptied, a file holds some for the removal of objects ([`DataDisk::while_full`]).
//!
//! **Failure.** A disk that is full works again when there is room. One that *failed* does not: a sync failed, so nobody knows
//! what it holds, or it does not write and read a small file, or it does not read many objects of the pool. That is final
//! until the agent starts again ([`DataDisk::failure`]). The node then takes neither objects nor instances, and owns nothing
//! in the next membership record, so that other nodes copy what it has. Its guests go on as far as their disks let them.
//!
//! It does not know what is on the disk, nor who asks.

mod probe;
mod reserve;
mod room;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use muster_api::Timestamp;
use serde::Serialize;
use storage_core::{lock, store::is_failure};
use tracing::{debug, error, info, warn};

pub use room::{Reserves, Room};

use reserve::Ballast;

use crate::clock;

/// Looks at a disk in a row that have to fail before it counts as failed.
const STRIKES: u32 = 3;

/// The space of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system, bytes.
    pub total_bytes: u64,
    /// Free to users other than root.
    pub free_bytes: u64,
}

impl Space {
    /// Of the file system `path` is on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// Why a disk counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// When that was found.
    pub at: Timestamp,
    /// The file or folder on which it failed.
    pub path: PathBuf,
    /// What failed, for people.
    pub error: String,
}

/// The file system of the data folder, as all parts of the agent see it.
#[derive(Debug)]
pub struct DataDisk {
    dir: PathBuf,
    reserves: Reserves,
    room: Mutex<Room>,
    failure: OnceLock<Failure>,
    /// Looks in a row that failed.
    strikes: Mutex<u32>,
    ballast: Ballast,
}

impl DataDisk {
    /// The disk that the data folder `dir` is on. It counts as well until it fails.
    #[must_use]
    pub fn new(dir: PathBuf, reserves: Reserves) -> Self {
        let ballast = Ballast::new(&dir, Space::of(&dir).unwrap_or_default().total_bytes);
        Self { dir, reserves, room: Mutex::default(), failure: OnceLock::new(), strikes: Mutex::default(), ballast }
    }

    /// The data folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is kept free.
    #[must_use]
    pub fn reserves(&self) -> Reserves {
        self.reserves
    }

    /// What the node takes on now, and the space that decides it. A file system that cannot be asked leaves it as it was.
    pub fn room(&self) -> (Room, Space) {
        let mut room = lock(&self.room);
        let Ok(space) = Space::of(&self.dir) else { return (*room, Space::default()) };
        let next = room.next(space.free_bytes, &self.reserves);
        if next != *room {
            let Space { free_bytes, .. } = space;
            match next {
                Room::Plenty => info!(free_bytes, "there is room on the disk again: everything is taken"),
                Room::NoObjects => warn!(free_bytes, "the disk fills up: the pool takes no new objects"),
                Room::NoInstances => warn!(free_bytes, "the disk is nearly full: no new objects and no new instances"),
            }
            *room = next;
        }
        (next, space)
    }

    /// Does work that gives space back. As long as it finds no room (`is_full`), some of what is held for it is let go, and it
    /// is tried again. It has to be repeatable. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the work.
    pub fn while_full<T, E>(&self, is_full: impl Fn(&E) -> bool, work: impl Fn() -> Result<T, E>) -> Result<T, E> {
        loop {
            match work() {
                Err(error) if is_full(&error) && self.ballast.give() => {
                    info!("the disk has no room at all: some that was held for the removal of objects is used");
                }
                done => return done,
            }
        }
    }

    /// Holds some room for the removal of objects, if there is plenty. Blocks on the disk.
    pub fn hold_room(&self) {
        let (_, space) = self.room();
        if let Err(error) = self.ballast.fill(space.free_bytes) {
            debug!(%error, "no room can be held for the removal of objects");
        }
    }

    /// Why the disk counts as failed; none while it works.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// The disk failed for good. The first reason stays.
    pub fn fail(&self, path: &Path, error: impl Into<String>) {
        let failure = Failure { at: clock::now(), path: path.to_owned(), error: error.into() };
        if self.failure.set(failure).is_ok()
            && let Some(Failure { path, error, .. }) = self.failure.get()
        {
            error!(path = %path.display(), error, "the disk of this node failed: it takes no objects and no instances until \
                the agent is started on a disk that works");
        }
    }

    /// As [`DataDisk::fail`] if a sync failed because the disk does. A sync that failed because the disk is full says nothing
    /// about the disk.
    pub fn sync_failed(&self, path: &Path, error: &io::Error) {
        if is_failure(error) {
            self.fail(path, format!("sync failed: {error}"));
        }
    }

    /// Writes a small file and reads it back from the disk itself. Blocks. After a few failures in a row the disk counts as
    /// failed. A full disk is none.
    pub fn probe(&self) {
        self.judge(probe::write_and_read(&self.dir));
    }

    fn judge(&self, probed: io::Result<()>) {
        let mut strikes = lock(&self.strikes);
        match probed {
            Ok(()) => *strikes = 0,
            Err(error) if !is_failure(&error) => {}
            Err(error) => {
                *strikes += 1;
                let file = self.dir.join(probe::FILE);
                if *strikes >= STRIKES {
                    self.fail(&file, error.to_string());
                } else {
                    warn!(%error, file = %file.display(), "the disk did not write and read a small file");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, DataDisk) {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = DataDisk::new(dir.path().to_owned(), Reserves::default());
        (dir, disk)
    }

    fn bad_sector() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    #[test]
    fn a_disk_that_works_does_not_fail_and_a_full_one_neither() {
        let (_dir, disk) = disk();
        for _ in 0..5 {
            disk.probe();
            disk.judge(Err(io::ErrorKind::StorageFull.into()));
            disk.sync_failed(Path::new("pool"), &io::ErrorKind::StorageFull.into());
        }
        assert_eq!(disk.failure(), None);
    }

    #[test]
    fn what_gives_space_back_gets_room_until_there_is_none_left() {
        let (_dir, disk) = disk();
        disk.hold_room();
        assert!(disk.ballast.held_bytes() > 0);
        let tries = std::cell::Cell::new(0);
        let done = disk.while_full(
            |error: &io::Error| error.kind() == io::ErrorKind::StorageFull,
            || {
                tries.set(tries.get() + 1);
                if tries.get() < 4 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(7) }
            },
        );
        assert_eq!((done.expect("is done"), tries.get()), (7, 4));
        let full = |_: &io::Error| true;
        assert!(disk.while_full(full, || Err::<(), _>(io::ErrorKind::StorageFull.into())).is_err());
        assert_eq!(disk.ballast.held_bytes(), 0);
    }

    #[test]
    fn some_errors_in_a_row_are_a_failure_that_stays() {
        let (_dir, disk) = disk();
        for _ in 0..STRIKES - 1 {
            disk.judge(bad_sector());
        }
        disk.judge(Ok(()));
        for _ in 0..STRIKES - 1 {
            disk.judge(bad_sector());
        }
        assert_eq!(disk.failure(), None);
        disk.judge(bad_sector());
        let failure = disk.failure().expect("failed").clone();
        assert!(failure.error.contains("os error 5") && failure.path.ends_with(probe::FILE), "{failure:?}");
        disk.judge(Ok(()));
        disk.fail(Path::new("elsewhere"), "later");
        assert_eq!(disk.failure(), Some(&failure));
    }

    #[test]
    fn a_sync_that_the_disk_failed_is_a_failure_at_once() {
        let (_dir, disk) = disk();
        disk.sync_failed(Path::new("/data/pool"), &io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(disk.failure().map(|failure| failure.path.clone()), Some(PathBuf::from("/data/pool")));
    }
}
