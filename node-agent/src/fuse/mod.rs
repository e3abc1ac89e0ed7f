//! The shim between the kernel and the mirror: it turns each kernel request into a mirror call and sends the reply.
//!
//! | request | answered by |
//! |---|---|
//! | READ, WRITE, FALLOCATE (punch, zero range, plain inside the size), SETATTR, FSYNC, LSEEK | the mirror |
//! | INIT, OPEN, RELEASE, GETATTR, FLUSH, STATFS, DESTROY | this module, from memory |
//! | IOCTL | ENOTTY |
//! | FORGET | nothing: the kernel expects no answer |
//! | everything else | ENOSYS: the kernel copes without it and does not ask again |
//!
//! There is one inode, and handles carry no state except how the open is cached (`opens`). A request whose data is on
//! this node is answered by the thread that read it. Fetches and the zeroing of large ranges continue on tokio, which
//! sends the reply. Flushes are grouped: the first one runs on the thread that read it, and those that arrive meanwhile
//! share the next. A write that a cut holds is parked with its bytes, so that no thread waits.

mod connection;
pub(crate) mod errno;
pub mod first_reads;
#[cfg(test)]
mod fuzz_tests;
mod mount;
mod opens;
mod pool;
mod space;
pub mod view;
mod wire;
mod worker;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use io_uring::{opcode, squeue, types};
use muster_pool::PoolClient;
use rustix::io::Errno;
use storage_core::BLOCK_BYTES;
use tokio::time::Instant;

use self::{
    connection::{Device, Greeted, REQUEST_BYTES_MAX, Reply},
    errno::errno,
    first_reads::FirstReads,
    mount::{Mounted, clear_stale, end_connection},
    opens::{Opens, Way},
    pool::{Pool, Service, Turn},
    space::RequestSpace,
    wire::{Answer, Attr, Operation, SetAttr},
    worker::Worker,
};
use crate::{
    holder::Holder,
    mirror::{
        Config, DiskError, Disks, Fault,
        cut::blocking,
        disk::Disk,
        disks::MountedDisk,
        read::{NotHere, Pinned},
        seek::Seek,
        transfer::{PendingRead, PendingWrite},
        write::{Change, NotNow, OwnedChange, PIECE_BYTES_MAX},
    },
};

/// How long the kernel may cache attributes, in seconds. It can be long because they only change by requests of the
/// kernel itself, except for the size, of whose growth the kernel is told.
const ATTR_VALID_SECONDS: u64 = 3600;

/// Opens the disks that an earlier process left, after removing its dead mounts. They are mounted when
/// [`Disks::ensure`] asks for them.
///
/// # Errors
/// When the data directory cannot be used. A disk that cannot be opened is logged and left as it is.
pub async fn open_disks(config: Config, pool: PoolClient, holder: Holder) -> Result<Arc<Disks>, DiskError> {
    let (cluster, node, dir) = (config.cluster, config.node, config.data_dir.join("disks"));
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| DiskError::Io { what, source }
    };
    blocking(move || clear_stale(&cluster, &node, &dir).map_err(io("dead mounts"))).await?;
    let threads = Arc::new(Pool::new().map_err(io("the threads that serve disks"))?);
    let reads = Arc::new(FirstReads::new(config.data_dir.join("disks"), holder.program().clone()));
    let mount =
        move |disk, path: &Path| Ok(Box::new(Mounted::mount(disk, path, &threads, &reads)?) as Box<dyn MountedDisk>);
    Disks::open(config, pool, holder, Arc::new(mount)).await
}

/// One disk as a file system with one file.
pub(crate) struct DiskFs {
    disk: Arc<Disk>,
    device: Arc<Device>,
    /// Where it is mounted.
    path: PathBuf,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    opens: Opens,
    greeted: Arc<Greeted>,
}

impl DiskFs {
    fn new(disk: Arc<Disk>, device: Arc<Device>, path: PathBuf, greeted: Arc<Greeted>) -> Self {
        let (uid, gid) = disk.node().config.owner;
        Self {
            disk,
            device,
            path,
            mode: AtomicU32::new(0o600),
            uid: AtomicU32::new(uid),
            gid: AtomicU32::new(gid),
            opens: Opens::default(),
            greeted,
        }
    }

    /// Handles one request. The reply may be sent after this returns.
    fn handle(&self, operation: Operation<'_>, reply: Reply) {
        match operation {
            Operation::Read { offset, bytes } => {
                self.disk.count_read(bytes);
                self.read(offset, bytes, reply);
            }
            Operation::Write { handle, offset, flags, data } => {
                self.disk.count_written(length(data));
                self.write(handle, offset, flags, data, reply);
            }
            Operation::Fsync => self.flush(reply, || {}),
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
            // Not ENOSYS: programs use ioctls to find out whether a file is a terminal or a block device, and expect
            // this error for a regular file.
            Operation::Ioctl => reply.error(Errno::NOTTY),
            Operation::Init(hello) => self.greeted.answer(&hello, reply),
            Operation::Forget | Operation::Other => reply.error(Errno::NOSYS),
        }
    }

    /// Makes what was written durable, calls `before`, and answers.
    fn flush(&self, reply: Reply, before: impl FnOnce() + Send + 'static) {
        self.disk.flush_here(Box::new(move |flushed| {
            before();
            answer(reply, &flushed);
        }));
    }

    /// Begins a request that only moves bytes between its buffer and a delta. `None` for all others. Never waits.
    fn begin(&self, operation: &Operation<'_>) -> Option<Transfer<'_>> {
        match *operation {
            Operation::Read { offset, bytes } if bytes <= REQUEST_BYTES_MAX => {
                let pending = self.disk.begin_read(offset, bytes.into())?;
                Some(Transfer { pending: Pending::Read(pending), offset, bytes })
            }
            Operation::Write { handle, offset, flags, data } if !is_mixed(handle, flags) => {
                let bytes = length(data);
                let pending = self.disk.begin_write(offset, bytes.into())?;
                Some(Transfer { pending: Pending::Write { pending, durable: is_durable(flags) }, offset, bytes })
            }
            _ => None,
        }
    }

    /// Finishes and answers a transfer whose bytes have all been moved from or to `space`.
    fn finish(&self, transfer: Transfer<'_>, space: &mut RequestSpace, reply: Reply) {
        match transfer.pending {
            Pending::Read(_) => {
                self.disk.count_read(transfer.bytes);
                reply.data(space.data(transfer.bytes()));
            }
            Pending::Write { pending, durable } => {
                self.disk.count_written(transfer.bytes);
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

    /// Makes a change on tokio, then calls `done` with its result.
    fn change_later(&self, offset: u64, change: OwnedChange, done: impl FnOnce(Result<(), Fault>) + Send + 'static) {
        let disk = self.disk.clone();
        let deadline = Instant::now() + disk.node().config.read_deadline;
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
            Err(NotHere::Missing(missing)) => {
                let disk = self.disk.clone();
                self.disk.node().runtime.spawn(async move {
                    match disk.read_missing(offset, bytes.into(), missing).await {
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
        let bytes = length(data);
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
            // `forget_pages` may wait for a read, which may need this worker: do it on a blocking thread.
            if mixed { drop(tokio::task::spawn_blocking(finish)) } else { finish() }
        });
    }

    fn fallocate(&self, offset: u64, bytes: u64, mode: i32, reply: Reply) {
        let size = self.disk.size_bytes();
        let Some(end) = offset.checked_add(bytes) else { return reply.error(errno(&Fault::OutOfRange)) };
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            // No space is reserved: a later write may still find the node's disk full.
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
        // The answer comes from memory, but for a large disk there may be much of it to look at.
        let disk = self.disk.clone();
        self.disk.node().runtime.spawn_blocking(move || match disk.seek(offset, what) {
            Ok(found) => reply.with(&Answer::offset(found)),
            Err(fault) => reply.error(errno(&fault)),
        });
    }
}

impl Service for DiskFs {
    fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn serve(&self, worker: &mut Worker, turn: &Turn<'_>) {
        worker.serve(self, turn);
    }

    fn abort(&self) {
        end_connection(&self.path);
    }
}

/// A request in progress that only moves bytes between its buffer and a delta.
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

    /// The io_uring entry that moves all of `memory`, and no byte outside of it.
    fn entry(&self, memory: &mut [u8]) -> squeue::Entry {
        let fd = |file: BorrowedFd<'_>| types::Fd(file.as_raw_fd());
        let (start, bytes) = (memory.as_mut_ptr(), length(memory));
        match &self.pending {
            Pending::Read(pending) => opcode::Read::new(fd(pending.file()), start, bytes).offset(self.offset).build(),
            Pending::Write { pending, .. } => {
                opcode::Write::new(fd(pending.file()), start, bytes).offset(self.offset).build()
            }
        }
    }
}

/// Length of the data of a request, as the kernel counts it.
fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("requests have at most 1 MiB of data")
}

/// Whether a write must be durable before it is answered. `O_SYNC` contains `O_DSYNC`, and the kernel passes on the
/// `RWF_DSYNC` of a single request the same way.
fn is_durable(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0
}

/// Whether this is a direct write while buffered readers have the file open. Their cached pages must be dropped before
/// the write is answered.
fn is_mixed(handle: u64, flags: i32) -> bool {
    flags & libc::O_DIRECT != 0 && Way::from(handle) == Way::Cached
}

fn answer(reply: Reply, result: &Result<(), Fault>) {
    match result {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(fault)),
    }
}

/// Answers a write. One that must be durable joins the next flush first.
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
