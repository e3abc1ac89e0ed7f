//! The shim: kernel request, mirror call, reply; nothing else.
//!
//! | request | answer |
//! |---|---|
//! | READ, WRITE, FALLOCATE (punch, zero range, plain inside the size), SETATTR, FSYNC, LSEEK | the mirror |
//! | OPEN, RELEASE, GETATTR, FLUSH, STATFS, FORGET | from memory |
//! | everything else | ENOSYS: the kernel does without, and does not ask again |
//!
//! Requests are pure functions of offset and bytes: one inode, no state in handles. What is here is answered on the
//! FUSE thread that read the request; what has to be fetched, and large zeroing, goes to tokio with the reply; flushes
//! run on blocking threads and are grouped; a write that a cut holds is parked with its bytes, no thread waits.

pub(crate) mod errno;
mod mount;
mod opens;

use std::{
    ffi::OsStr,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use storage_core::BLOCK_BYTES;
use tokio::time::Instant;

pub(crate) use self::mount::{Mounted, clear_stale};
use self::{
    errno::errno,
    opens::{Opens, Way},
};
use crate::mirror::{
    Fault,
    disk::Disk,
    read::{NotHere, Pinned},
    seek::Seek,
    write::{Change, NotNow, OwnedChange, PIECE_BYTES_MAX},
};

/// Attributes change only by requests that pass here, so the kernel may keep them.
const TTL: Duration = Duration::from_secs(3600);
/// Requests in flight before the kernel makes writers wait: far above any guest's queue depth.
const MAX_BACKGROUND: u16 = 4096;

/// One disk as a file system of one file.
pub(crate) struct DiskFs {
    disk: Arc<Disk>,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    made: SystemTime,
    opens: Opens,
    /// Tells the kernel to forget pages; there once the connection is.
    notifier: Arc<OnceLock<Notifier>>,
}

impl DiskFs {
    pub(crate) fn new(disk: Arc<Disk>, notifier: Arc<OnceLock<Notifier>>) -> Self {
        let (uid, gid) = disk.node().config.owner;
        Self {
            disk,
            mode: AtomicU32::new(0o600),
            uid: AtomicU32::new(uid),
            gid: AtomicU32::new(gid),
            made: UNIX_EPOCH,
            opens: Opens::default(),
            notifier,
        }
    }

    fn attr(&self) -> FileAttr {
        let size = self.disk.size_bytes();
        FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size / 512,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind: FileType::RegularFile,
            perm: u16::try_from(self.mode.load(Ordering::Relaxed) & 0o7777).unwrap_or(0o600),
            nlink: 1,
            uid: self.uid.load(Ordering::Relaxed),
            gid: self.gid.load(Ordering::Relaxed),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.disk.node().config.read_deadline
    }

    /// Does a change away from this thread and answers when it is done.
    fn change_later(&self, offset: u64, change: OwnedChange, done: impl FnOnce(Result<(), Fault>) + Send + 'static) {
        let (disk, deadline) = (self.disk.clone(), self.deadline());
        self.disk.node().runtime.spawn(async move {
            done(disk.change(offset, change, deadline).await);
        });
    }

    fn zero(&self, offset: u64, bytes: u64, reply: ReplyEmpty) {
        if bytes == 0 {
            return reply.ok();
        }
        if bytes <= PIECE_BYTES_MAX {
            match self.disk.try_change(offset, Change::Zero { bytes }, &Pinned::default()) {
                Ok(()) => return reply.ok(),
                Err(NotNow::Fault(fault)) => return reply.error(errno(&fault)),
                Err(NotNow::Held | NotNow::Missing(_)) => {}
            }
        }
        self.change_later(offset, OwnedChange::Zero { bytes }, move |done| answer(reply, &done));
    }
}

fn answer(reply: ReplyEmpty, result: &Result<(), Fault>) {
    match result {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(fault)),
    }
}

fn answer_write(reply: ReplyWrite, bytes: u32, result: &Result<(), Fault>) {
    match result {
        Ok(()) => reply.written(bytes),
        Err(fault) => reply.error(errno(fault)),
    }
}

/// The kernel forgets what it cached of a range. Never on a FUSE thread: it may wait for a read that thread has to
/// answer.
fn forget_pages(notifier: &OnceLock<Notifier>, offset: u64, bytes: u32) {
    let Some(notifier) = notifier.get() else { return };
    let Ok(offset) = i64::try_from(offset) else { return };
    // ENOENT: it has nothing of this file.
    if let Err(error) = notifier.inval_inode(INodeNo::ROOT, offset, bytes.into())
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(error = %error, "the kernel keeps pages that were written around");
    }
}

/// Answers a write; one that has to be durable first joins the next flush.
fn finish_write(disk: &Arc<Disk>, reply: ReplyWrite, bytes: u32, durable: bool, result: &Result<(), Fault>) {
    if durable && result.is_ok() {
        disk.flush_then(Box::new(move |flushed| answer_write(reply, bytes, &flushed)));
    } else {
        answer_write(reply, bytes, result);
    }
}

impl Filesystem for DiskFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |what: &str| io::Error::other(format!("the kernel's FUSE refuses {what}"));
        // Absent on old kernels: direct requests are then served one after the other.
        let _optional = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        config.set_max_write(mount::REQUEST_BYTES_MAX).map_err(|_| refused("requests of 1 MiB"))?;
        config.set_max_background(MAX_BACKGROUND).map_err(|_| refused("4096 requests in flight"))?;
        config.set_congestion_threshold(MAX_BACKGROUND).map_err(|_| refused("4096 requests in flight"))?;
        Ok(())
    }

    fn getattr(&self, _req: &Request, _ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr());
    }

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if size.is_some_and(|size| size != self.disk.size_bytes()) {
            return reply.error(errno(&Fault::NotPermitted));
        }
        for (value, place) in [(mode, &self.mode), (uid, &self.uid), (gid, &self.gid)] {
            if let Some(value) = value {
                place.store(value, Ordering::Relaxed);
            }
        }
        reply.attr(&TTL, &self.attr());
    }

    fn open(&self, _req: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.opens.open(flags.0 & libc::O_DIRECT != 0);
        reply.opened(FileHandle(opened.way.into()), opened.flags);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.opens.release(Way::from(fh.0));
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let read = self.disk.try_read(offset, size.into(), &Pinned::default(), |bytes| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        });
        let Some(reply) = reply else { return };
        match read {
            Ok(()) => {}
            Err(NotHere::Fault(fault)) => reply.error(errno(&fault)),
            Err(NotHere::Missing(_)) => {
                let (disk, deadline) = (self.disk.clone(), self.deadline());
                self.disk.node().runtime.spawn(async move {
                    match disk.read(offset, size.into(), deadline).await {
                        Ok(bytes) => reply.data(&bytes),
                        Err(fault) => {
                            tracing::warn!(disk.id = %disk.id(), offset, size, error = %fault, "a read failed");
                            reply.error(errno(&fault));
                        }
                    }
                });
            }
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC contains O_DSYNC; a per-request RWF_DSYNC arrives here as well.
        let durable = flags.0 & libc::O_DSYNC != 0;
        let Ok(bytes) = u32::try_from(data.len()) else { return reply.error(Errno::EINVAL) };
        if u64::from(bytes) <= PIECE_BYTES_MAX {
            match self.disk.try_change(offset, Change::Data(data), &Pinned::default()) {
                // A direct writer beside buffered readers: their pages have to go before it is told.
                Ok(()) if flags.0 & libc::O_DIRECT != 0 && Way::from(fh.0) == Way::Cached => {
                    let (disk, notifier) = (self.disk.clone(), self.notifier.clone());
                    self.disk.node().runtime.spawn_blocking(move || {
                        forget_pages(&notifier, offset, bytes);
                        finish_write(&disk, reply, bytes, durable, &Ok(()));
                    });
                    return;
                }
                Ok(()) => return finish_write(&self.disk, reply, bytes, durable, &Ok(())),
                Err(NotNow::Fault(fault)) => return reply.error(errno(&fault)),
                Err(NotNow::Held | NotNow::Missing(_)) => {}
            }
        }
        let (disk, notifier) = (self.disk.clone(), self.notifier.clone());
        let mixed = flags.0 & libc::O_DIRECT != 0 && Way::from(fh.0) == Way::Cached;
        self.change_later(offset, OwnedChange::Data(data.to_vec()), move |done| {
            if mixed {
                forget_pages(&notifier, offset, bytes);
            }
            finish_write(&disk, reply, bytes, durable, &done);
        });
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.disk.flush_then(Box::new(move |flushed| answer(reply, &flushed)));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let size = self.disk.size_bytes();
        let end = offset.saturating_add(length);
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            // Nothing is reserved: writes may still find the node full, and the guest waits then.
            0 if keep || end <= size => reply.ok(),
            libc::FALLOC_FL_PUNCH_HOLE if keep => self.zero(offset.min(size), end.min(size) - offset.min(size), reply),
            libc::FALLOC_FL_ZERO_RANGE if keep || end <= size => {
                self.zero(offset.min(size), end.min(size) - offset.min(size), reply);
            }
            0 | libc::FALLOC_FL_ZERO_RANGE => reply.error(errno(&Fault::NotPermitted)),
            _ => reply.error(errno(&Fault::NotSupported)),
        }
    }

    fn lseek(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        // From memory, but over a large disk that may be much memory.
        let disk = self.disk.clone();
        self.disk.node().runtime.spawn_blocking(move || match disk.seek(offset, what) {
            Ok(found) => match i64::try_from(found) {
                Ok(found) => reply.offset(found),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
            Err(fault) => reply.error(errno(&fault)),
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.disk.size_bytes() / BLOCK_BYTES;
        reply.statfs(blocks, 0, 0, 1, 0, 4096, 255, 4096);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Not ENOSYS: this is what programs that ask whether it is a terminal or a block device expect of a file.
        reply.error(Errno::ENOTTY);
    }
}
