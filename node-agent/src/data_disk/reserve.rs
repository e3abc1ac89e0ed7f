//! [`Ballast`]: space that is taken beforehand, so that a full file system can still be emptied.
//!
//! To remove objects the pool first has to write that they are removed, and the index without them. On a file system without
//! any room that fails, so nothing would ever be given back. Therefore a file takes some room while there is plenty. When a
//! removal finds no room, a part of that file is cut off, and the removal is tried again. It is made whole again once there is
//! room.
//!
//! Only what gives space back may use it. A guest's write may still be faster and take what was cut off; then the next part
//! is, until the file is empty.

use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::FallocateFlags;
use storage_core::lock;

/// Its name in the data folder.
const FILE: &str = "reserve";
/// Most bytes that it takes, and its most on a small file system.
const BYTES_MAX: u64 = 32 << 20;
const PART_OF_DISK: u64 = 64;
/// Parts in which it is given.
const PARTS: u64 = 16;
const BLOCK: u64 = 4096;

/// The file, and how long it is.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    wanted_bytes: u64,
    held_bytes: Mutex<u64>,
}

impl Ballast {
    /// In the data folder `dir`, on a file system of `total_bytes`. What an earlier process made of it is kept.
    pub(super) fn new(dir: &Path, total_bytes: u64) -> Self {
        let path = dir.join(FILE);
        let wanted_bytes = (total_bytes / PART_OF_DISK).min(BYTES_MAX) / (PARTS * BLOCK) * (PARTS * BLOCK);
        let held = std::fs::metadata(&path).map_or(0, |file| file.len().min(wanted_bytes));
        Self { path, wanted_bytes, held_bytes: Mutex::new(held) }
    }

    /// Gives a part of it to the file system. False: there is nothing left, or the file system refused even that.
    pub(super) fn give(&self) -> bool {
        let mut held = lock(&self.held_bytes);
        if *held == 0 {
            return false;
        }
        let left = held.saturating_sub((self.wanted_bytes / PARTS).max(BLOCK));
        let cut = File::options().write(true).open(&self.path).and_then(|file| {
            file.set_len(left)?;
            // Until this is committed the file system may not use it.
            file.sync_all()
        });
        *held = if cut.is_ok() { left } else { 0 };
        cut.is_ok()
    }

    /// Takes what is missing of it, if so much more than that is free that nobody misses it.
    ///
    /// # Errors
    /// When it cannot be made. What there is of it is kept.
    pub(super) fn fill(&self, free_bytes: u64) -> io::Result<()> {
        let mut held = lock(&self.held_bytes);
        let missing = self.wanted_bytes.saturating_sub(*held);
        if missing == 0 || free_bytes / 4 < missing {
            return Ok(());
        }
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.wanted_bytes)?;
        *held = self.wanted_bytes;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        *lock(&self.held_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_takes_room_gives_it_in_parts_and_takes_it_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let on_disk = || std::fs::metadata(dir.path().join(FILE)).map_or(0, |file| file.blocks() * 512);
        let ballast = Ballast::new(dir.path(), 64 * 4 * MIB);
        assert!(!ballast.give(), "there is nothing yet");
        ballast.fill(15 * MIB).expect("looks");
        assert_eq!(ballast.held_bytes(), 0, "too little is free");
        ballast.fill(16 * MIB).expect("fills");
        assert_eq!((ballast.held_bytes(), on_disk()), (4 * MIB, 4 * MIB));
        assert!(ballast.give());
        assert_eq!((ballast.held_bytes(), on_disk()), (4 * MIB - MIB / 4, 4 * MIB - MIB / 4));
        // The next process goes on with what there is.
        let next = Ballast::new(dir.path(), 64 * 4 * MIB);
        for _ in 0..PARTS - 1 {
            assert!(next.give());
        }
        assert!(!next.give());
        assert_eq!(on_disk(), 0);
        next.fill(16 * MIB).expect("fills");
        assert_eq!(on_disk(), 4 * MIB);
    }

    #[test]
    fn a_small_disk_has_little_of_it_and_a_large_one_not_much() {
        let dir = Path::new("/nowhere");
        assert_eq!(Ballast::new(dir, 256 * MIB).wanted_bytes, 4 * MIB);
        assert_eq!(Ballast::new(dir, 1 << 44).wanted_bytes, BYTES_MAX);
        assert_eq!(Ballast::new(dir, 1000).wanted_bytes, 0);
    }
}
