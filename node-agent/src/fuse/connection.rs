//! One connection with the kernel: the device it talks through, the loop that reads requests, the answers.
//!
//! Why not a FUSE crate: the bytes of a WRITE lie at a block boundary here, so that they go from where the kernel put
//! them straight to a delta opened `O_DIRECT`, without a second copy. Measured and left: taking them as pages through a
//! pipe (`splice`) instead of a copy is no faster, neither at 64 KiB nor at 256 KiB.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, RawFd},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use memmap2::MmapMut;
use rustix::io::Errno;
use storage_core::BLOCK_BYTES;

use super::wire::{
    Answer, Greeting, Malformed, Operation, Request, Terms, WRITE_DATA_AT, answer_header, forget_pages_notice,
};
use crate::mirror::read::BLOCK;

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

    /// The next request; `None` when the connection is over.
    fn receive<'a>(&self, space: &'a mut RequestSpace) -> io::Result<Option<&'a [u8]>> {
        let space = space.bytes();
        loop {
            match rustix::io::read(self.file.as_fd(), &mut *space) {
                Ok(bytes) => return Ok(Some(space.get(..bytes).unwrap_or_default())),
                // ENOENT: its caller was interrupted and has gone.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                // ECONNABORTED: it ended while this was reading.
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
                // The kernel answered this request itself, and there may be memory for the next one.
                Err(Errno::NOMEM) => tracing::error!("no memory for a request of a guest; it was answered with EIO"),
                Err(error) => return Err(error.into()),
            }
        }
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
            let bytes = self.receive(&mut space)?.ok_or(io::ErrorKind::NotConnected)?;
            let Ok(Request { unique, operation: Operation::Init(hello) }) = Request::parse(bytes) else {
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

    /// Reads requests and has them handled, until the connection is over.
    pub(super) fn serve(
        self: &Arc<Self>,
        mut space: RequestSpace,
        handle: impl Fn(Operation<'_>, Reply),
    ) -> io::Result<()> {
        while let Some(bytes) = self.receive(&mut space)? {
            match Request::parse(bytes) {
                Ok(Request { operation: Operation::Forget, .. }) => {}
                Ok(Request { unique, operation }) => {
                    let reply = Reply::new(self.clone(), unique);
                    // One bad request must not take a thread from the disk; its reply is dropped, which is EIO.
                    if std::panic::catch_unwind(AssertUnwindSafe(|| handle(operation, reply))).is_err() {
                        tracing::error!("a request of a guest ended in a panic; it was answered with EIO");
                    }
                }
                Err(Malformed::Arguments { unique, opcode }) => {
                    tracing::warn!(opcode, "a request of the kernel cannot be read; it was answered with EINVAL");
                    Reply::new(self.clone(), unique).error(Errno::INVAL);
                }
                Err(Malformed::Header) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a request of the kernel has no header"));
                }
            }
        }
        Ok(())
    }
}

/// Where one thread's requests are read to: the data of a WRITE starts at a block boundary. Pages are taken as requests
/// need them, and kept.
pub(super) struct RequestSpace(MmapMut);

impl RequestSpace {
    pub(super) fn new() -> io::Result<Self> {
        let memory = MmapMut::map_anon(BLOCK + REQUEST_BYTES_MAX as usize)?;
        // Else the first request may take 2 MiB, whatever its size. EINVAL: this kernel has no huge pages at all.
        if let Err(error) = memory.advise(memmap2::Advice::NoHugePage) {
            tracing::debug!(error = %error, "request buffers may be huge pages");
        }
        Ok(Self(memory))
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.get_mut(BLOCK - WRITE_DATA_AT..).unwrap_or_default()
    }
}

const _: () = assert!((REQUEST_BYTES_MAX as u64).is_multiple_of(BLOCK_BYTES), "requests are whole blocks");

/// The answer that a request waits for, from any thread. Dropped unanswered, it is EIO.
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    owed: bool,
}

impl Reply {
    fn new(device: Arc<Device>, unique: u64) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_write_start_at_a_block_and_the_largest_fits() {
        let mut space = RequestSpace::new().expect("memory");
        let data = space.bytes().get(WRITE_DATA_AT..).expect("longer than a header");
        assert!(data.as_ptr().addr().is_multiple_of(BLOCK), "{:p}", data.as_ptr());
        assert_eq!(data.len(), REQUEST_BYTES_MAX as usize);
    }
}
