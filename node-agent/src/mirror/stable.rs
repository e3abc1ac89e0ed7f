//! All changes of a disk's files, of their names, and all syncs go through this module. It makes no decisions. It exists so
//! that tests can record every change and simulate power cuts (`recorder`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::Errno,
};

#[cfg(test)]
pub(super) mod recorder;

/// A file that is open for reading and writing.
pub(crate) struct StableFile {
    file: File,
    #[cfg(test)]
    recorded: Option<recorder::Recorded>,
}

/// A change of a file, or a sync.
#[derive(Clone, Copy, Debug)]
enum Change<'a> {
    Write { offset: u64, bytes: &'a [u8] },
    Length(u64),
    Punch { offset: u64, bytes: u64 },
    SyncData,
    SyncAll,
}

/// A change of names in a folder, or a sync of the folder.
#[derive(Clone, Copy, Debug)]
enum Naming<'a> {
    MakeFolder(&'a Path),
    Rename { from: &'a Path, to: &'a Path },
    Remove(&'a Path),
    RemoveFolder(&'a Path),
    SyncFolder(&'a Folder<'a>),
}

/// An open folder. Opening it early means that a later sync cannot fail for lack of a file descriptor.
#[derive(Debug)]
pub(crate) struct Folder<'a> {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests record which folder was synced"))]
    path: &'a Path,
    file: File,
}

impl<'a> Folder<'a> {
    pub(crate) fn open(path: &'a Path) -> io::Result<Self> {
        Ok(Self { path, file: File::open(path)? })
    }

    /// Makes the names in the folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        name(Naming::SyncFolder(self))
    }
}

impl StableFile {
    /// Opens an existing file for reading and writing.
    pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        let file = options.read(true).write(true).open(path)?;
        Ok(Self {
            file,
            #[cfg(test)]
            recorded: recorder::opened(path),
        })
    }

    /// Creates an empty file. A file of the same name is truncated.
    pub(crate) fn create(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        let mut create = || options.read(true).write(true).create(true).truncate(true).open(path);
        #[cfg(test)]
        if let Some((file, recorded)) = recorder::created(path, &mut create)? {
            return Ok(Self { file, recorded: Some(recorded) });
        }
        Ok(Self {
            file: create()?,
            #[cfg(test)]
            recorded: None,
        })
    }

    /// The descriptor, for callers that move bytes themselves. The recorder does not see these writes.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The ranges of the file that have data, the rest are holes.
    pub(crate) fn extents(&self) -> io::Result<Vec<Range<u64>>> {
        let mut extents = Vec::new();
        let mut at = 0;
        loop {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(extents),
                Err(error) => return Err(error.into()),
            };
            at = seek(&self.file, SeekFrom::Hole(start))?;
            extents.push(start..at);
        }
    }

    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&self.file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset, bytes })
    }

    pub(crate) fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Length(bytes))
    }

    pub(crate) fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(Change::Punch { offset, bytes })
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.change(Change::SyncData)
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.change(Change::SyncAll)
    }

    fn change(&self, change: Change<'_>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(recorded) = &self.recorded {
            return recorded.change(change, |change| self.apply(change));
        }
        self.apply(change)
    }

    fn apply(&self, change: Change<'_>) -> io::Result<()> {
        match change {
            Change::Write { offset, bytes } => self.file.write_all_at(bytes, offset),
            Change::Length(bytes) => self.file.set_len(bytes),
            Change::Punch { offset, bytes } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, flags, offset, bytes).map_err(io::Error::from)
            }
            Change::SyncData => self.file.sync_data(),
            Change::SyncAll => self.file.sync_all(),
        }
    }
}

/// Creates a folder if it does not exist. Its parent must exist.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    name(Naming::MakeFolder(path))
}

/// Renames a file and replaces the one that has the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    name(Naming::Rename { from, to })
}

/// Removes a file. Succeeds when there is none.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    ignore_absent(name(Naming::Remove(path)))
}

/// Removes a folder with its content. Succeeds when there is none.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    ignore_absent(name(Naming::RemoveFolder(path)))
}

fn ignore_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    Folder::open(path)?.sync()
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

fn name(naming: Naming<'_>) -> io::Result<()> {
    #[cfg(test)]
    if let Some(done) = recorder::named(naming, &apply_name) {
        return done;
    }
    apply_name(naming)
}

fn apply_name(naming: Naming<'_>) -> io::Result<()> {
    match naming {
        Naming::MakeFolder(path) => match std::fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        },
        Naming::Rename { from, to } => std::fs::rename(from, to),
        Naming::Remove(path) => std::fs::remove_file(path),
        Naming::RemoveFolder(path) => std::fs::remove_dir_all(path),
        Naming::SyncFolder(folder) => folder.file.sync_all(),
    }
}
