//! One connection to the kernel: the FUSE device, and replies to requests.
//!
//! No FUSE crate is used because none aligns the data of a WRITE in memory. Here it starts at a block boundary, so it
//! can be written to a delta opened with `O_DIRECT` without a second copy. Reading the data through a pipe (`splice`)
//! was measured and is not faster, neither at 64 KiB nor at 256 KiB.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use rustix::io::Errno;
use storage_core::lock;

use super::{
    space::RequestSpace,
    wire::{Answer, Greeting, Hello, PAGE_BYTES, Terms, answer_header, forget_pages_notice},
};

/// Pages of the largest READ and WRITE.
const REQUEST_PAGES_MAX: u16 = 256;
/// Bytes of the largest READ and WRITE: 1 MiB.
pub(super) const REQUEST_BYTES_MAX: u32 = REQUEST_PAGES_MAX as u32 * PAGE_BYTES;
/// Number of asynchronous requests in flight above which the kernel makes their callers wait. It is far above the
/// queue depth of any guest.
const IN_FLIGHT_MAX: u16 = 4096;

/// The outcome of INIT, the first request of a connection, which the kernel sends during mount(2) by itself.
#[derive(Default)]
pub(super) struct Greeted {
    outcome: Mutex<Option<Result<(), String>>>,
    known: Condvar,
}

impl Greeted {
    /// Answers INIT.
    pub(super) fn answer(&self, hello: &Hello, reply: Reply) {
        let terms = Terms { request_pages_max: REQUEST_PAGES_MAX, in_flight_max: IN_FLIGHT_MAX };
        let outcome = match hello.answer(terms) {
            Ok(Greeting::AskAgain(answer)) => return reply.with(&answer),
            Ok(Greeting::Agreed(answer)) => {
                reply.with(&answer);
                Ok(())
            }
            Err(why) => {
                reply.error(Errno::PROTO);
                Err(why)
            }
        };
        *lock(&self.outcome) = Some(outcome);
        self.known.notify_all();
    }

    /// Waits until INIT was answered. Fails when the kernel's protocol is too old, and when nobody answers in time.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<()> {
        let waited = self.known.wait_timeout_while(lock(&self.outcome), limit, |outcome| outcome.is_none());
        match waited.unwrap_or_else(PoisonError::into_inner).0.take() {
            Some(outcome) => outcome.map_err(|why| io::Error::new(io::ErrorKind::Unsupported, why)),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "the first request was not served")),
        }
    }
}

/// What a read of the device gave.
pub(super) enum Received {
    Request,
    /// No request waits.
    Nothing,
    /// The connection has ended.
    End,
}

/// An open `/dev/fuse`: one connection to the kernel.
pub(super) struct Device {
    file: File,
}

impl Device {
    /// Opens a device whose reads do not block.
    pub(super) fn open() -> io::Result<Self> {
        let mut options = OpenOptions::new();
        Ok(Self { file: options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/fuse")? })
    }

    /// The descriptor, for the options of mount(2).
    pub(super) fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Takes the next request, if one waits.
    pub(super) fn receive(&self, space: &mut RequestSpace) -> io::Result<Received> {
        loop {
            match self.read(space) {
                Ok(()) => return Ok(Received::Request),
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                // ENOENT: the caller was interrupted and no longer waits. ENOMEM: the next request may find memory.
                Err(Errno::INTR | Errno::NOENT | Errno::NOMEM) => {}
                // ECONNABORTED: the connection ended during this read.
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(Received::End),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&self, space: &mut RequestSpace) -> Result<(), Errno> {
        let bytes = rustix::io::read(self.file.as_fd(), space.bytes()).inspect_err(|error| {
            // In this case the kernel itself has answered the request, with EIO.
            if *error == Errno::NOMEM {
                tracing::error!("the kernel had no memory to pass on a guest's request and answered it with EIO");
            }
        })?;
        space.set_filled(bytes);
        Ok(())
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        match rustix::io::writev(self.file.as_fd(), parts) {
            // ENOENT: the caller no longer waits. ENODEV: the connection has ended.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel ask for the size of the file again, instead of what it remembers of it. Cached pages stay.
    pub(super) fn forget_attributes(&self) {
        // With a negative offset the kernel leaves the pages alone.
        if let Err(error) = self.send(&[IoSlice::new(&forget_pages_notice(-1, 0))]) {
            tracing::warn!(error = %error, "the kernel did not take the new size of a disk: programs may see the old one");
        }
    }

    /// Makes the kernel drop the cached pages of a range that lies on the disk.
    ///
    /// Call this on a blocking thread only: the kernel may first wait for a read of these pages, which a serving thread
    /// or an async worker has to answer.
    pub(super) fn forget_pages(&self, offset: u64, bytes: u32) {
        let offset = i64::try_from(offset).expect("disks are much smaller than 2^63 bytes");
        if let Err(error) = self.send(&[IoSlice::new(&forget_pages_notice(offset, bytes.into()))]) {
            tracing::warn!(error = %error, "the kernel did not drop cached pages that a direct write has replaced");
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The obligation to answer one request; may be sent to another thread. Dropping it without an answer answers EIO.
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    owed: bool,
}

impl Reply {
    pub(super) fn new(device: Arc<Device>, unique: u64) -> Self {
        Self { device, unique, owed: true }
    }

    pub(super) fn ok(self) {
        self.data(&[]);
    }

    pub(super) fn with(self, answer: &Answer) {
        self.data(answer.bytes());
    }

    pub(super) fn data(mut self, bytes: &[u8]) {
        let header = answer_header(self.unique, 0, bytes.len());
        match self.device.send(&[IoSlice::new(&header), IoSlice::new(bytes)]) {
            Ok(()) => self.owed = false,
            Err(error) => tracing::error!(error = %error, bytes = bytes.len(), "the kernel refused a reply"),
        }
    }

    pub(super) fn error(mut self, errno: Errno) {
        self.fail(errno);
    }

    fn fail(&mut self, errno: Errno) {
        self.owed = false;
        if let Err(error) = self.device.send(&[IoSlice::new(&answer_header(self.unique, errno.raw_os_error(), 0))]) {
            tracing::error!(error = %error, errno = %errno, "the kernel refused an error reply");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.owed {
            self.fail(Errno::IO);
        }
    }
}
