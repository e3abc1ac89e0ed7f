//! Keeps an upload in a temporary file. A qcow2 file needs that: its tables point forward and back, so that it can only
//! be read when all of it is there.
//!
//! A spool file has no name (`O_TMPFILE`), so it disappears with its last handle, also after kill -9. On a file system
//! without such files it has a name, and [`clear`] removes what an earlier process left.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Bytes of free space that spooling leaves untouched, because the database is on the same disk.
pub const KEEP_FREE_BYTES: u64 = 512 << 20;

/// Number of bytes after which the free space is checked again.
const LOOK_EVERY_BYTES: u64 = 64 << 20;

/// Why a file could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The controller's disk has no room for it.
    #[error(
        "the controller's disk has {free_bytes} bytes free: not enough for {wanted_bytes} more and {KEEP_FREE_BYTES} to spare"
    )]
    Full {
        /// Bytes that are free now.
        free_bytes: u64,
        /// Bytes still to be written, as far as known.
        wanted_bytes: u64,
    },
    /// The file cannot be made, written or read.
    #[error("the temporary file of the upload failed")]
    Io(#[from] io::Error),
}

/// A temporary file that takes a body as it arrives.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    file: File,
    written: u64,
    /// Value of `written` when the free space was last checked.
    checked: u64,
}

impl Spool {
    /// Begins a file in `folder`, which is made if needed. `expected` is its length in bytes, if known. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if it does not fit, or an I/O error.
    pub fn create(folder: &Path, expected: Option<u64>) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(folder)?;
        check_room(folder, expected.unwrap_or(0))?;
        let file = tempfile::tempfile_in(folder)?;
        Ok(Self { folder: folder.to_owned(), file, written: 0, checked: 0 })
    }

    /// Appends bytes. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if there is no room any more, or an I/O error.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if self.written >= self.checked + LOOK_EVERY_BYTES {
            check_room(&self.folder, bytes.len() as u64)?;
            self.checked = self.written;
        }
        io::Write::write_all(&mut self.file, bytes).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => SpoolError::Full { free_bytes: 0, wanted_bytes: bytes.len() as u64 },
            _ => SpoolError::Io(e),
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file and returns it with its length in bytes.
    #[must_use]
    pub fn finish(self) -> (File, u64) {
        (self.file, self.written)
    }
}

fn check_room(folder: &Path, wanted_bytes: u64) -> Result<(), SpoolError> {
    let stat = rustix::fs::statvfs(folder).map_err(io::Error::from)?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < wanted_bytes.saturating_add(KEEP_FREE_BYTES) {
        return Err(SpoolError::Full { free_bytes, wanted_bytes });
    }
    Ok(())
}

/// Removes all files in the spool folder; called once at start. Blocks.
///
/// # Errors
/// An I/O error. A folder that does not exist is fine.
pub fn clear(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_file_has_no_name_and_an_old_one_is_cleared() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("spool");
        clear(&folder).expect("nothing to clear");
        let mut spool = Spool::create(&folder, Some(3)).expect("begins");
        spool.append(b"abc").expect("appends");
        assert_eq!(std::fs::read_dir(&folder).expect("lists").count(), 0);
        assert_eq!(spool.finish().1, 3);
        std::fs::write(folder.join("left over"), b"x").expect("writes");
        clear(&folder).expect("clears");
        assert_eq!(std::fs::read_dir(&folder).expect("lists").count(), 0);
    }

    #[test]
    fn a_file_too_large_for_the_disk_is_refused_before_its_first_byte() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(matches!(Spool::create(dir.path(), Some(1 << 60)), Err(SpoolError::Full { .. })));
    }
}
