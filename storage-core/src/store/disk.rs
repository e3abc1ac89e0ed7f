//! The folder of files that the segment store works on. The real one is [`Folder`]. Tests use a simulated one that stops
//! after any write and loses what was not synced.

use std::{
    fmt::Debug,
    fs::{self, File, TryLockError},
    io::{self, IoSlice, Write as _},
    num::NonZeroU64,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FallocateFlags;

/// Most parts that the kernel takes in one call (`IOV_MAX`).
const PARTS_MAX: usize = 1024;
/// The grain in which systems keep files in memory and file systems give space back.
pub(super) const PAGE: u64 = 4096;

/// Whether an error says that the disk, or the file system on it, does not read or write. Other errors say that it is full,
/// or that the process or the host lacks something (memory, open files, a right): they say nothing about the disk.
#[must_use]
pub fn is_failure(error: &io::Error) -> bool {
    use rustix::io::Errno;
    /// What the kernel answers for bad sectors, broken or removed devices, and file systems that are damaged or were shut
    /// down. `ROFS`: a file system that its kernel made read-only because of errors.
    const FAILURES: [Errno; 12] = [
        Errno::IO,
        Errno::ROFS,
        Errno::NXIO,
        Errno::NODEV,
        Errno::NODATA,
        Errno::REMOTEIO,
        Errno::TIMEDOUT,
        Errno::NOLINK,
        Errno::ILSEQ,
        Errno::UCLEAN,
        Errno::BADMSG,
        Errno::NOTCONN,
    ];
    match error.raw_os_error() {
        Some(code) => FAILURES.iter().any(|failure| failure.raw_os_error() == code),
        // From a simulated disk.
        None => error.kind() == io::ErrorKind::Other,
    }
}

/// A folder of files, real or simulated.
pub trait Disk: Debug + Send + Sync {
    /// The names of the folder's files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file that does not exist yet. Its name is durable after [`Disk::sync_names`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file. That is durable after [`Disk::sync_names`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Debug + Send + Sync {
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads `len` bytes from an offset, fewer only at the end of the file.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Fills the buffer with the bytes from an offset on, or fails.
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes the parts one after the other from an offset on. After an error any of the bytes may have been written.
    fn write(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Cuts the file off, or extends it with zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Gives the blocks of these bytes back to the file system: they read as zeros from then on. Both ends are multiples of
    /// 4096. Not every file system can do that.
    fn punch(&self, bytes: Range<u64>) -> io::Result<()>;
    /// Makes the file's bytes and size durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Drops what the system's memory holds of these bytes of the file, so that reads come from the disk itself. After a
    /// sync that failed, even in an earlier process, that memory may hold bytes that the disk does not have, and what rots
    /// on the disk shows only there. Bytes that were written and not synced stay.
    fn forget_cached(&self, bytes: Range<u64>) -> io::Result<()>;
}

/// A folder of the operating system, locked for this process until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl Folder {
    /// Opens a folder and creates it if it does not exist. None: it is open already, in this process or another.
    pub fn open(path: &Path) -> io::Result<Option<Folder>> {
        fs::create_dir_all(path)?;
        let lock = file_options().create(true).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Folder { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn file_options() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).truncate(false).mode(0o600);
    options
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).filter(|n| n.as_ref().map_or(true, |n| n != LOCK)).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(file_options().open(self.path.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(file_options().create_new(true).open(self.path.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        // Into spare capacity: zeroing a buffer of a chunk first would cost as much as copying it.
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(self, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut offset = offset;
        let mut left = parts;
        while !left.is_empty() {
            let (now, _later) = left.split_at(PARTS_MAX.min(left.len()));
            match rustix::io::pwritev(self, now, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self, flags, bytes.start, bytes.end - bytes.start)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut file = self;
        file.flush()?;
        File::sync_data(self)
    }

    fn forget_cached(&self, bytes: Range<u64>) -> io::Result<()> {
        // The kernel drops whole pages only.
        let start = bytes.start / PAGE * PAGE;
        let len = NonZeroU64::new(bytes.end.next_multiple_of(PAGE) - start);
        Ok(rustix::fs::fadvise(self, start, len, rustix::fs::Advice::DontNeed)?)
    }
}
