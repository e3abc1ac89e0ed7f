//! One thread of a connection: reads requests and has them handled.
//!
//! With direct deltas every request waits for the disk below, and to begin and end each on its own costs more processor
//! time than all the rest. There a thread takes what waits already, and what only moves bytes goes to the kernel in one
//! call (io_uring), as the requests of a program with a queue do on a raw file; all of it is waited for, then answered,
//! and meanwhile another thread reads. 4 KiB writes at depth 16 are 1.4 times as fast as with a thread for each of them.
//!
//! What is not so simple (part of a block, a fetch, an error) is handled after that, one by one: it may wait for locks
//! that the others hold.

use std::{io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use io_uring::IoUring;
use rustix::io::Errno;

use super::{
    DiskFs,
    connection::{Device, Reply},
    readers::Readers,
    space::{RequestSpace, SMALL_BYTES},
    wire::{Malformed, Operation, Request},
};

/// Requests of one thread at a time. 8 or 16, and to wait for one, half or all of them, made no difference; to move a
/// single small one this way costs a tenth of its speed, to spin before sleeping a fifth.
const TOGETHER_MAX: u8 = 8;

/// Reads requests and has them handled, until the connection is over. With a `twin` several at a time.
pub(super) fn serve(fs: &DiskFs, twin: Option<&Arc<Device>>, readers: &Readers) -> io::Result<()> {
    if let Some(twin) = twin {
        match IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(TOGETHER_MAX.into()) {
            Ok(ring) => return serve_many(fs, twin, readers, ring),
            Err(error) => tracing::info!(error = %error, "no io_uring here (Linux 6.1): requests go one by one"),
        }
    }
    let mut space = RequestSpace::new()?;
    while readers.take_turn(|| space.give_back()) && fs.device.receive(&mut space)? {
        readers.received();
        handle(fs, &fs.device, &space)?;
    }
    Ok(())
}

/// Has one request handled.
fn handle(fs: &DiskFs, device: &Arc<Device>, space: &RequestSpace) -> io::Result<()> {
    match Request::parse(space.request()) {
        Ok(Request { operation: Operation::Forget, .. }) => {}
        Ok(Request { unique, operation }) => {
            let reply = Reply::new(device.clone(), unique);
            // One bad request must not take a thread from the disk; its reply is dropped, which is EIO.
            if std::panic::catch_unwind(AssertUnwindSafe(|| fs.handle(operation, reply))).is_err() {
                tracing::error!("a request of a guest ended in a panic; it was answered with EIO");
            }
        }
        Err(Malformed::Arguments { unique, opcode }) => {
            tracing::warn!(opcode, "a request of the kernel cannot be read; it was answered with EINVAL");
            Reply::new(device.clone(), unique).error(Errno::INVAL);
        }
        Err(Malformed::Header) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request of the kernel has no header"));
        }
    }
    Ok(())
}

/// As [`serve`], with several requests at a time.
fn serve_many(fs: &DiskFs, twin: &Arc<Device>, readers: &Readers, mut ring: IoUring) -> io::Result<()> {
    let device = &fs.device;
    let mut slots = vec![Slot { device, space: RequestSpace::with_huge_page()? }];
    for _ in 1..TOGETHER_MAX {
        slots.push(Slot { device: twin, space: RequestSpace::new()? });
    }
    let mut crowd = Crowd::default();
    loop {
        let turn = readers.take_turn(|| slots.iter_mut().for_each(|slot| slot.space.give_back()));
        if !turn || !device.receive(&mut slots[0].space)? {
            return Ok(());
        }
        readers.received();
        let load = Load::of(&slots[0].space);
        let more = if load == Load::Small && crowd.expected() { take_waiting(&mut slots[1..]) } else { 0 };
        crowd.seen(more);
        if more == 0 && load != Load::LargeRead {
            handle(fs, device, &slots[0].space)?;
            continue;
        }
        for n in move_together(fs, &mut ring, &mut slots[..=more])? {
            handle(fs, slots[n].device, &slots[n].space)?;
        }
    }
}

/// Fills slots with requests that wait already; how many.
fn take_waiting(slots: &mut [Slot<'_>]) -> usize {
    slots.iter_mut().map_while(|slot| slot.device.receive_waiting(&mut slot.space).then_some(())).count()
}

/// How much a request moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Alone it is done faster the plain way.
    Small,
    /// Work enough for a thread; others would take huge pages of their own. Moved to the request's huge page it is faster.
    LargeRead,
    /// Work enough for a thread as well.
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

/// Whether it is worth asking for more requests: to ask in vain costs a guest with a queue of one some of its speed.
#[derive(Default)]
struct Crowd {
    /// Times it was asked, or could have been, since there was more than one request.
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

/// Room for one request.
struct Slot<'a> {
    /// The way it comes, and is answered.
    device: &'a Arc<Device>,
    space: RequestSpace,
}

/// Moves the bytes of the requests that only want that, and answers these. Gives the numbers of the others.
fn move_together(fs: &DiskFs, ring: &mut IoUring, slots: &mut [Slot<'_>]) -> io::Result<Vec<usize>> {
    let mut transfers = Vec::with_capacity(slots.len());
    let mut moved = vec![0; slots.len()];
    let mut under_way = UnderWay { ring, count: 0 };
    for (n, slot) in slots.iter_mut().enumerate() {
        let request = Request::parse(slot.space.request()).ok();
        let transfer = request.and_then(|request| Some((request.unique, fs.begin(&request.operation)?)));
        if let Some((_, transfer)) = &transfer {
            let entry = transfer.entry(slot.space.data(transfer.bytes())).user_data(n as u64);
            // SAFETY: the file and the memory of an entry outlive what the kernel does with them: `transfers` and `slots` are
            // left alone until `under_way` has waited for all of them, which its drop does as well.
            unsafe { under_way.ring.submission().push(&entry) }.map_err(io::Error::other)?;
            under_way.count += 1;
        }
        transfers.push(transfer);
    }
    under_way.wait(|n, result| moved[n] = result);
    let mut alone = Vec::new();
    for (n, (slot, transfer)) in slots.iter_mut().zip(transfers).enumerate() {
        match transfer {
            Some((unique, transfer)) if usize::try_from(moved[n]) == Ok(transfer.bytes()) => {
                fs.finish(transfer, &mut slot.space, Reply::new(slot.device.clone(), unique));
            }
            // Failed, or done in part: the long way says what is wrong, or does it in spite of that.
            _ => alone.push(n),
        }
    }
    Ok(alone)
}

/// What the kernel was, or will be, told to move. Dropped, it waits for all of it: the kernel has the memory until then.
struct UnderWay<'a> {
    ring: &'a mut IoUring,
    count: usize,
}

impl UnderWay<'_> {
    /// Waits for all; `done` gets their numbers and results, bytes or -errno.
    fn wait(&mut self, mut done: impl FnMut(usize, i32)) {
        while self.count > 0 {
            match self.ring.submit_and_wait(self.count) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => {
                    tracing::error!(error = %error, "io_uring takes nothing more; trying again");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            for entry in self.ring.completion() {
                self.count -= 1;
                done(usize::try_from(entry.user_data()).unwrap_or(usize::MAX), entry.result());
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.wait(|_, _| {});
    }
}
