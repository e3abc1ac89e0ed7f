//! What a thread of the pool does in a turn: read requests of one connection, handle them.
//!
//! Deltas are read and written around the page cache, so most requests wait for the node's disk. Starting and finishing
//! each on its own would cost more processor time than everything else. So a thread takes all requests that are waiting,
//! and submits those that only move bytes to the kernel in one call (io_uring), as a program with a queue of requests does
//! on a raw file. It waits for all of them, answers them, and meanwhile other threads read. With 4 KiB writes at depth
//! 16 this is 1.4 times as fast as one thread per request.
//!
//! Requests that need more (part of a block, a fetch, an error) are handled afterwards, one by one: they may have to wait
//! for locks that the batch holds.

use std::{io, marker::PhantomData, panic::AssertUnwindSafe, time::Duration};

use io_uring::IoUring;
use rustix::io::Errno;
use storage_core::units::{u64_from, usize_from};

use super::{
    DiskFs, Transfer,
    connection::{Device, Received, Reply},
    pool::Turn,
    space::{RequestSpace, SMALL_BYTES},
    wire::{Malformed, Operation, Request},
};

/// Most requests in one batch. Measured: 8 or 16 makes no difference, and neither does waiting for one, half or all of
/// them. Sending a single small request this way costs a tenth of its speed; spinning before sleeping costs a fifth.
const BATCH_MAX: u8 = 8;
/// Rounds after which a turn ends although there may be more requests, so that a busy disk does not keep the thread.
const ROUNDS_MAX: u32 = 64;

/// The buffers of one thread.
pub(super) struct Worker {
    /// `None`: the kernel has no io_uring, and requests are handled one by one.
    ring: Option<IoUring>,
    /// Room for one request each.
    slots: Vec<RequestSpace>,
    crowd: Crowd,
}

impl Worker {
    /// Fails when there is no memory. The worker must stay on this thread.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(BATCH_MAX.into());
        let ring = ring.inspect_err(|error| {
            tracing::info!(error = %error, "io_uring (Linux 6.1) is not available: requests are handled one by one");
        });
        let mut slots = vec![RequestSpace::with_huge_page()?];
        for _ in 1..BATCH_MAX {
            slots.push(RequestSpace::new()?);
        }
        Ok(Self { ring: ring.ok(), slots, crowd: Crowd::default() })
    }

    /// Releases the memory that large requests used.
    pub(super) fn release_memory(&mut self) {
        self.slots.iter_mut().for_each(RequestSpace::release_memory);
    }

    /// Serves the requests of a disk that wait. Those that arrive meanwhile may be left to others.
    pub(super) fn serve(&mut self, fs: &DiskFs, turn: &Turn<'_>) {
        for _ in 0..ROUNDS_MAX {
            let served = match fs.device.receive(&mut self.slots[0]) {
                Ok(Received::Request) => self.round(fs, turn),
                Ok(Received::Nothing) => return,
                Ok(Received::End) => return turn.ended(),
                Err(error) => Err(error),
            };
            match served {
                Ok(Next::Look) => {}
                Ok(Next::Linger) if turn.linger() => {}
                Ok(Next::Linger) => return,
                Err(error) => return turn.failed(&error),
            }
        }
    }

    /// Handles the request in the first slot, and others that wait.
    fn round(&mut self, fs: &DiskFs, turn: &Turn<'_>) -> io::Result<Next> {
        let load = Load::of(&self.slots[0]);
        let look = load == Load::Small && self.ring.is_some() && self.crowd.expected();
        let more = if look { take_waiting(&fs.device, &mut self.slots[1..]) } else { 0 };
        self.crowd.seen(more);
        let slots = &mut self.slots[..=more];
        if more == 0 && load == Load::Small && self.ring.is_some() && !is_flush(&slots[0]) {
            // It takes as long as waking another thread. Requests that arrive meanwhile are better served together.
            return handle(fs, &slots[0]).map(|()| Next::Linger);
        }
        turn.pass_on();
        if more == 0 && is_flush(&slots[0]) {
            let back = turn.way_back();
            return handle_with(fs, &slots[0], |operation, reply| match operation {
                Operation::Fsync => fs.flush(reply, back),
                other => fs.handle(other, reply),
            })
            .map(|()| Next::Linger);
        }
        match self.ring.as_mut().filter(|_| more > 0 || load == Load::LargeRead) {
            None => handle(fs, &slots[0])?,
            Some(ring) => {
                let mut rest = move_batch(fs, ring, slots)?;
                // A flush may take long and keeps this thread busy, so that it comes last.
                rest.sort_by_key(|slot| is_flush(slot));
                rest.iter().try_for_each(|slot| handle(fs, slot))?;
            }
        }
        Ok(Next::Look)
    }
}

/// What a turn does after a round.
enum Next {
    /// Looks for more requests.
    Look,
    /// Waits a moment for the next request, and ends if there is none. Later ones bring the next event.
    Linger,
}

fn is_flush(space: &RequestSpace) -> bool {
    matches!(Request::parse(space.request()), Ok(Request { operation: Operation::Fsync, .. }))
}

/// Handles one request. A panic in it costs the request an EIO, not the thread.
fn handle(fs: &DiskFs, space: &RequestSpace) -> io::Result<()> {
    handle_with(fs, space, |operation, reply| fs.handle(operation, reply))
}

fn handle_with(fs: &DiskFs, space: &RequestSpace, how: impl FnOnce(Operation<'_>, Reply)) -> io::Result<()> {
    let device = &fs.device;
    match Request::parse(space.request()) {
        Ok(Request { operation: Operation::Forget, .. }) => {}
        Ok(Request { unique, operation }) => {
            let reply = Reply::new(device.clone(), unique);
            // A bug in one request must not cost the disk a thread. The panic drops the reply, which answers EIO.
            if std::panic::catch_unwind(AssertUnwindSafe(|| how(operation, reply))).is_err() {
                tracing::error!("handling a guest's request panicked; it was answered with EIO");
            }
        }
        Err(Malformed::Arguments { unique, opcode }) => {
            tracing::warn!(opcode, "a request of the kernel is malformed; it was answered with EINVAL");
            Reply::new(device.clone(), unique).error(Errno::INVAL);
        }
        Err(Malformed::Header) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request of the kernel has no header"));
        }
    }
    Ok(())
}

/// Fills slots with requests that are already waiting. Returns how many.
///
/// Errors count as "none waits": the next look at the device meets and reports them.
fn take_waiting(device: &Device, slots: &mut [RequestSpace]) -> usize {
    slots.iter_mut().map_while(|slot| matches!(device.receive(slot), Ok(Received::Request)).then_some(())).count()
}

/// How many bytes a request moves, which decides how it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// A batch is faster for several, the plain way for one.
    Small,
    /// Served without looking for more: more requests would need huge pages of their own, so other threads take them.
    /// It still goes through io_uring, which reads into the slot's huge page.
    LargeRead,
    /// Served alone as well, the plain way.
    LargeWrite,
}

impl Load {
    fn of(space: &RequestSpace) -> Self {
        match Request::parse(space.request()).map(|request| request.operation) {
            Ok(Operation::Read { bytes, .. }) if bytes as usize > SMALL_BYTES => Self::LargeRead,
            Ok(Operation::Write { data, .. }) if data.len() > SMALL_BYTES => Self::LargeWrite,
            _ => Self::Small,
        }
    }
}

/// Decides whether to look for more waiting requests. Looking in vain costs a guest that sends one request at a time some
/// of its speed.
#[derive(Default)]
struct Crowd {
    /// Requests since the last batch: each was alone, or nobody looked for others.
    in_vain: u32,
}

impl Crowd {
    fn expected(&self) -> bool {
        self.in_vain < 16 || self.in_vain.is_multiple_of(8)
    }

    fn seen(&mut self, more: usize) {
        self.in_vain = if more > 0 { 0 } else { self.in_vain.wrapping_add(1) };
    }
}

/// Serves the requests that only move bytes. Returns the slots of the others, and of those that failed.
fn move_batch<'s>(
    fs: &DiskFs,
    ring: &mut IoUring,
    slots: &'s mut [RequestSpace],
) -> io::Result<Vec<&'s mut RequestSpace>> {
    let transfers: Vec<_> = slots.iter().map(|slot| begin(fs, slot)).collect();
    let moved = move_bytes(ring, slots, &transfers)?;
    let mut alone = Vec::new();
    for ((slot, transfer), moved) in slots.iter_mut().zip(transfers).zip(moved) {
        match transfer {
            Some((unique, transfer)) if usize::try_from(moved) == Ok(transfer.bytes()) => {
                fs.finish(transfer, slot, Reply::new(fs.device.clone(), unique));
            }
            // It failed or was done in part. Handled once more, it succeeds or answers with the right error.
            _ => alone.push(slot),
        }
    }
    Ok(alone)
}

/// Begins the transfer of a request, with the number its answer needs. `None` when it does more than move bytes.
fn begin<'f>(fs: &'f DiskFs, space: &RequestSpace) -> Option<(u64, Transfer<'f>)> {
    let request = Request::parse(space.request()).ok()?;
    Some((request.unique, fs.begin(&request.operation)?))
}

/// Moves the bytes of all transfers. Returns for each slot the number of bytes that were moved, or -errno.
fn move_bytes(
    ring: &mut IoUring,
    slots: &mut [RequestSpace],
    transfers: &[Option<(u64, Transfer<'_>)>],
) -> io::Result<Vec<i32>> {
    let mut moved = vec![0; slots.len()];
    let mut batch = Batch { ring, count: 0, borrowed: PhantomData };
    for (n, (slot, transfer)) in slots.iter_mut().zip(transfers).enumerate() {
        if let Some((_, transfer)) = transfer {
            batch.push(n, transfer, slot.data(transfer.bytes()))?;
        }
    }
    batch.wait(|n, result| moved[n] = result);
    Ok(moved)
}

/// Transfers that the kernel works on. It borrows their files and memory, and its drop waits for all of them, so nothing
/// else can touch these before the kernel is done.
struct Batch<'a> {
    ring: &'a mut IoUring,
    count: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, n: usize, transfer: &'a Transfer<'_>, memory: &'a mut [u8]) -> io::Result<()> {
        let entry = transfer.entry(memory).user_data(u64_from(n));
        // SAFETY: the entry's file and memory are borrowed for 'a, and this value waits for the kernel before 'a ends.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.count += 1;
        Ok(())
    }

    /// Waits for all transfers. Calls `done` with the number of each and its result: bytes, or -errno.
    fn wait(&mut self, mut done: impl FnMut(usize, i32)) {
        while self.count > 0 {
            match self.ring.submit_and_wait(self.count) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => {
                    tracing::error!(error = %error, "io_uring does not accept requests; trying again");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            for entry in self.ring.completion() {
                self.count -= 1;
                done(usize_from(entry.user_data()), entry.result());
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.wait(|_, _| {});
    }
}
