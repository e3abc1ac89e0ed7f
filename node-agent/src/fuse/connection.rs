//! One connection with the kernel: the device it talks through and the answers.
//!
//! Why not a FUSE crate: the bytes of a WRITE lie at a block boundary here, so that they go from where the kernel put
//! them straight to a delta opened `O_DIRECT`, without a second copy. Measured and left: taking them as pages through a
//! pipe (`splice`) instead of a copy is no faster, neither at 64 KiB nor at 256 KiB.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
};

use rustix::{io::Errno, ioctl};

use super::{
    space::RequestSpace,
    wire::{Answer, Greeting, Operation, Request, Terms, answer_header, forget_pages_notice},
};

/// Largest READ and WRITE.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests in flight before the kernel makes writers wait: far above any guest's queue depth.
const IN_FLIGHT_MAX: u16 = 4096;

/// The kernel's end of a connection.
pub(super) struct Device {
    file: File,
}

impl Device {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).write(true).open("/dev/fuse")? })
    }

    /// What mount(2) is told.
    pub(super) fn number(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A second way to the same connection, for requests that wait already ([`Self::receive_waiting`]). They are answered
    /// the way they came.
    pub(super) fn twin(&self) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/fuse")?;
        // FUSE_DEV_IOC_CLONE
        const CLONE: ioctl::Opcode = ioctl::opcode::read::<u32>(229, 0);
        let mut number = self.number().cast_unsigned();
        // SAFETY: this request reads one u32, the descriptor of the connection, and keeps nothing.
        unsafe { ioctl::ioctl(&file, ioctl::Updater::<CLONE, u32>::new(&mut number))? };
        Ok(Self { file })
    }

    /// Waits for the next request; false when the connection is over.
    pub(super) fn receive(&self, space: &mut RequestSpace) -> io::Result<bool> {
        loop {
            match self.read(space) {
                Ok(()) => return Ok(true),
                // ENOENT: its caller was interrupted and has gone. ENOMEM: there may be memory for the next one.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT | Errno::NOMEM) => {}
                // ECONNABORTED: it ended while this was reading.
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a request that waits already; false when none does, or when [`Self::receive`] has to say why not.
    pub(super) fn receive_waiting(&self, space: &mut RequestSpace) -> bool {
        self.read(space).is_ok()
    }

    fn read(&self, space: &mut RequestSpace) -> Result<(), Errno> {
        let bytes = rustix::io::read(self.file.as_fd(), space.bytes()).inspect_err(|error| {
            // The kernel answered this request itself.
            if *error == Errno::NOMEM {
                tracing::error!("no memory for a request of a guest; it was answered with EIO");
            }
        })?;
        space.set_filled(bytes);
        Ok(())
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        match rustix::io::writev(self.file.as_fd(), parts) {
            // ENOENT: nobody waits any more. ENODEV: the connection is over.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The kernel forgets what it cached of a range. Only where waiting harms nobody: it may wait for a read that a
    /// serving thread, or a worker, has to answer.
    pub(super) fn forget_pages(&self, offset: u64, bytes: u32) {
        let Ok(offset) = i64::try_from(offset) else { return };
        // NOENT: it has nothing of this file.
        if let Err(error) = self.send(&[IoSlice::new(&forget_pages_notice(offset, bytes.into()))]) {
            tracing::warn!(error = %error, "the kernel keeps pages that were written around");
        }
    }

    /// Answers the kernel's first words. After mount(2), before anything else.
    pub(super) fn greet(self: &Arc<Self>) -> io::Result<()> {
        let mut space = RequestSpace::new()?;
        let terms = Terms { request_bytes_max: REQUEST_BYTES_MAX, in_flight_max: IN_FLIGHT_MAX };
        loop {
            if !self.receive(&mut space)? {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let Ok(Request { unique, operation: Operation::Init(hello) }) = Request::parse(space.request()) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's first request is not INIT"));
            };
            let (answer, agreed) = match hello.answer(terms) {
                Ok(Greeting::Agreed(answer)) => (answer, true),
                Ok(Greeting::AskAgain(answer)) => (answer, false),
                Err(why) => {
                    Reply::new(self.clone(), unique).error(Errno::PROTO);
                    return Err(io::Error::new(io::ErrorKind::Unsupported, why));
                }
            };
            let header = answer_header(unique, 0, answer.bytes().len());
            self.send(&[IoSlice::new(&header), IoSlice::new(answer.bytes())])?;
            if agreed {
                return Ok(());
            }
        }
    }
}

/// The answer that a request waits for, from any thread. Dropped unanswered, it is EIO.
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
            Err(error) => tracing::error!(error = %error, bytes = bytes.len(), "the kernel takes no such answer"),
        }
    }

    pub(super) fn error(mut self, errno: Errno) {
        self.fail(errno);
    }

    fn fail(&mut self, errno: Errno) {
        self.owed = false;
        if let Err(error) = self.device.send(&[IoSlice::new(&answer_header(self.unique, errno.raw_os_error(), 0))]) {
            tracing::error!(error = %error, errno = %errno, "the kernel takes no such answer");
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
