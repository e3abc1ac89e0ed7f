//! The shim: kernel request, mirror call, reply; nothing else.
//!
//! | request | answer |
//! |---|---|
//! | READ, WRITE, FALLOCATE (punch, zero range, plain inside the size), SETATTR, FSYNC, LSEEK | the mirror |
//! | OPEN, RELEASE, GETATTR, FLUSH, STATFS, DESTROY | from memory |
//! | IOCTL | ENOTTY |
//! | FORGET | none is waited for |
//! | everything else | ENOSYS: the kernel does without, and does not ask again |
//!
//! Requests are pure functions of offset and bytes: one inode, no state in handles. What is here is answered on the
//! thread that read the request; what has to be fetched, and large zeroing, goes to tokio with the reply; flushes
//! run on blocking threads and are grouped; a write that a cut holds is parked with its bytes, no thread waits.

mod connection;
pub(crate) mod errno;
#[cfg(test)]
mod fuzz_tests;
mod mount;
mod opens;
mod readers;
mod space;
mod wire;
mod worker;

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use io_uring::{opcode, squeue, types};
use rustix::io::Errno;
use storage_core::BLOCK_BYTES;
use tokio::time::Instant;

pub(crate) use self::mount::{Mounted, clear_stale};
use self::{
    connection::{Device, REQUEST_BYTES_MAX, Reply},
    errno::errno,
    opens::{Opens, Way},
    space::RequestSpace,
    wire::{Answer, Attr, Operation, SetAttr},
};
use crate::mirror::{
    Fault,
    disk::Disk,
    read::{NotHere, Pinned},
    seek::Seek,
    transfer::{PendingRead, PendingWrite},
    write::{Change, NotNow, OwnedChange, PIECE_BYTES_MAX},
};

/// How long the kernel may keep attributes, in seconds: they change only by requests that pass here.
const ATTR_VALID_SECONDS: u64 = 3600;

/// One disk as a file system of one file.
pub(crate) struct DiskFs {
    disk: Arc<Disk>,
    device: Arc<Device>,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    opens: Opens,
}

impl DiskFs {
    fn new(disk: Arc<Disk>, device: Arc<Device>) -> Self {
        let (uid, gid) = disk.node().config.owner;
        Self {
            disk,
            device,
            mode: AtomicU32::new(0o600),
            uid: AtomicU32::new(uid),
            gid: AtomicU32::new(gid),
            opens: Opens::default(),
        }
    }

    /// Answers one request, here or later.
    fn handle(&self, operation: Operation<'_>, reply: Reply) {
        match operation {
            Operation::Read { offset, bytes } => self.read(offset, bytes, reply),
            Operation::Write { handle, offset, flags, data } => self.write(handle, offset, flags, data, reply),
            Operation::Fsync => self.disk.flush_then(Box::new(move |flushed| answer(reply, &flushed))),
            Operation::Fallocate { offset, bytes, mode } => self.fallocate(offset, bytes, mode, reply),
            Operation::Lseek { offset, whence } => self.lseek(offset, whence, reply),
            Operation::GetAttr => reply.with(&self.attr()),
            Operation::SetAttr(set) => self.setattr(&set, reply),
            Operation::Open { flags } => {
                let opened = self.opens.open(flags & libc::O_DIRECT != 0);
                reply.with(&Answer::opened(opened.way.into(), opened.flags));
            }
            Operation::Release { handle } => {
                self.opens.release(Way::from(handle));
                reply.ok();
            }
            Operation::StatFs => reply.with(&Answer::statfs(self.disk.size_bytes() / BLOCK_BYTES, 4096)),
            Operation::Flush | Operation::Destroy => reply.ok(),
            // Not ENOSYS: this is what programs that ask whether it is a terminal or a block device expect of a file.
            Operation::Ioctl => reply.error(Errno::NOTTY),
            Operation::Init(_) | Operation::Forget | Operation::Other => reply.error(Errno::NOSYS),
        }
    }

    /// Begins what only moves bytes between a request and a delta. Never waits.
    fn begin(&self, operation: &Operation<'_>) -> Option<Transfer<'_>> {
        match *operation {
            Operation::Read { offset, bytes } if bytes <= REQUEST_BYTES_MAX => {
                let pending = self.disk.begin_read(offset, bytes.into())?;
                Some(Transfer { pending: Pending::Read(pending), offset, bytes })
            }
            Operation::Write { handle, offset, flags, data } if !is_mixed(handle, flags) => {
                let bytes = u32::try_from(data.len()).ok()?;
                let pending = self.disk.begin_write(offset, bytes.into())?;
                Some(Transfer { pending: Pending::Write { pending, durable: is_durable(flags) }, offset, bytes })
            }
            _ => None,
        }
    }

    /// Answers what was begun; all of its bytes were moved from or to `space`.
    fn finish(&self, transfer: Transfer<'_>, space: &mut RequestSpace, reply: Reply) {
        match transfer.pending {
            Pending::Read(_) => reply.data(space.data(transfer.bytes as usize)),
            Pending::Write { pending, durable } => {
                pending.finish();
                finish_write(&self.disk, reply, transfer.bytes, durable, &Ok(()));
            }
        }
    }

    fn attr(&self) -> Answer {
        let attr = Attr {
            size_bytes: self.disk.size_bytes(),
            permissions: self.mode.load(Ordering::Relaxed) & 0o7777,
            uid: self.uid.load(Ordering::Relaxed),
            gid: self.gid.load(Ordering::Relaxed),
        };
        Answer::attr(&attr, ATTR_VALID_SECONDS)
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

    fn zero(&self, offset: u64, bytes: u64, reply: Reply) {
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

    fn setattr(&self, set: &SetAttr, reply: Reply) {
        if set.size.is_some_and(|size| size != self.disk.size_bytes()) {
            return reply.error(errno(&Fault::NotPermitted));
        }
        for (value, place) in [(set.mode, &self.mode), (set.uid, &self.uid), (set.gid, &self.gid)] {
            if let Some(value) = value {
                place.store(value, Ordering::Relaxed);
            }
        }
        reply.with(&self.attr());
    }

    fn read(&self, offset: u64, bytes: u32, reply: Reply) {
        let mut reply = Some(reply);
        let read = self.disk.try_read(offset, bytes.into(), &Pinned::default(), |data| {
            if let Some(reply) = reply.take() {
                reply.data(data);
            }
        });
        let Some(reply) = reply else { return };
        match read {
            Ok(()) => {}
            Err(NotHere::Fault(fault)) => reply.error(errno(&fault)),
            Err(NotHere::Missing(_)) => {
                let (disk, deadline) = (self.disk.clone(), self.deadline());
                self.disk.node().runtime.spawn(async move {
                    match disk.read(offset, bytes.into(), deadline).await {
                        Ok(data) => reply.data(&data),
                        Err(fault) => {
                            tracing::warn!(disk.id = %disk.id(), offset, bytes, error = %fault, "a read failed");
                            reply.error(errno(&fault));
                        }
                    }
                });
            }
        }
    }

    fn write(&self, handle: u64, offset: u64, flags: i32, data: &[u8], reply: Reply) {
        let (durable, mixed) = (is_durable(flags), is_mixed(handle, flags));
        let Ok(bytes) = u32::try_from(data.len()) else { return reply.error(Errno::INVAL) };
        if u64::from(bytes) <= PIECE_BYTES_MAX {
            match self.disk.try_change(offset, Change::Data(data), &Pinned::default()) {
                Ok(()) if mixed => {
                    let (disk, device) = (self.disk.clone(), self.device.clone());
                    self.disk.node().runtime.spawn_blocking(move || {
                        device.forget_pages(offset, bytes);
                        finish_write(&disk, reply, bytes, durable, &Ok(()));
                    });
                    return;
                }
                Ok(()) => return finish_write(&self.disk, reply, bytes, durable, &Ok(())),
                Err(NotNow::Fault(fault)) => return reply.error(errno(&fault)),
                Err(NotNow::Held | NotNow::Missing(_)) => {}
            }
        }
        let (disk, device) = (self.disk.clone(), self.device.clone());
        self.change_later(offset, OwnedChange::Data(data.to_vec()), move |done| {
            let finish = move || {
                if mixed {
                    device.forget_pages(offset, bytes);
                }
                finish_write(&disk, reply, bytes, durable, &done);
            };
            // The kernel may wait for a read, and the read for this worker.
            if mixed { drop(tokio::task::spawn_blocking(finish)) } else { finish() }
        });
    }

    fn fallocate(&self, offset: u64, bytes: u64, mode: i32, reply: Reply) {
        let size = self.disk.size_bytes();
        let end = offset.saturating_add(bytes);
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

    fn lseek(&self, offset: u64, whence: i32, reply: Reply) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::INVAL),
        };
        // From memory, but over a large disk that may be much memory.
        let disk = self.disk.clone();
        self.disk.node().runtime.spawn_blocking(move || match disk.seek(offset, what) {
            Ok(found) => reply.with(&Answer::offset(found)),
            Err(fault) => reply.error(errno(&fault)),
        });
    }
}

/// Bytes on their way between a request and a delta.
struct Transfer<'a> {
    pending: Pending<'a>,
    offset: u64,
    bytes: u32,
}

enum Pending<'a> {
    Read(PendingRead),
    Write { pending: PendingWrite<'a>, durable: bool },
}

impl Transfer<'_> {
    fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// What the kernel is asked for; `memory` is as long as the transfer.
    fn entry(&self, memory: &mut [u8]) -> squeue::Entry {
        let fd = |file: BorrowedFd<'_>| types::Fd(file.as_raw_fd());
        match &self.pending {
            Pending::Read(pending) => {
                opcode::Read::new(fd(pending.file()), memory.as_mut_ptr(), self.bytes).offset(self.offset).build()
            }
            Pending::Write { pending, .. } => {
                opcode::Write::new(fd(pending.file()), memory.as_ptr(), self.bytes).offset(self.offset).build()
            }
        }
    }
}

/// `O_SYNC` contains `O_DSYNC`; a per-request `RWF_DSYNC` arrives here as well.
fn is_durable(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0
}

/// A direct writer beside buffered readers: their pages have to go before it is told.
fn is_mixed(handle: u64, flags: i32) -> bool {
    flags & libc::O_DIRECT != 0 && Way::from(handle) == Way::Cached
}

fn answer(reply: Reply, result: &Result<(), Fault>) {
    match result {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(fault)),
    }
}

/// Answers a write; one that has to be durable first joins the next flush.
fn finish_write(disk: &Arc<Disk>, reply: Reply, bytes: u32, durable: bool, result: &Result<(), Fault>) {
    let written = move |result: &Result<(), Fault>| match result {
        Ok(()) => reply.with(&Answer::written(bytes)),
        Err(fault) => reply.error(errno(fault)),
    };
    if durable && result.is_ok() {
        disk.flush_then(Box::new(move |flushed| written(&flushed)));
    } else {
        written(result);
    }
}
