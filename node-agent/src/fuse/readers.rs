//! Decides which of a connection's threads reads the next request: the one that worked most recently.
//!
//! The kernel hands requests to waiting readers in turn. If all threads waited in the kernel, a guest that sends one
//! request at a time would touch the buffers of every thread, one after the other. So at most four threads read, and the
//! others rest here. The thread that came to rest last is woken first, so that only about as many threads have warm
//! buffers as there are requests at a time.
//!
//! ```text
//!            take_turn                       received
//!  resting ─────────────────────► reading ────────────► working
//!     ▲      woken when no thread reads  ▲                 │
//!     │                                  ╰── take_turn ────┤  fewer than four read
//!     ╰───────────────────────────────────── take_turn ────╯  four read already
//! ```

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use storage_core::lock;

/// Most threads that read at a time. Measured with 4 KiB writes at depth 1, relative to a raw file: one reader, which has
/// to wake another thread for each request, 0.55; two 0.66; four or sixteen 0.70.
const READING_MAX: usize = 4;
/// Idle time after which a thread releases its buffers.
const IDLE: Duration = Duration::from_secs(5);

/// Coordinates the threads of one connection.
#[derive(Default)]
pub(super) struct Readers {
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    /// Threads that read, or were woken to read.
    reading: usize,
    /// Threads that rest; the last one is woken first.
    resting: Vec<Arc<Condvar>>,
    over: bool,
}

impl Readers {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        lock(&self.turns)
    }

    /// Waits until this thread should read. Calls `idle` once if that takes longer than [`IDLE`]. Returns false when the
    /// connection has ended.
    pub(super) fn take_turn(&self, idle: impl FnOnce()) -> bool {
        let mut turns = self.turns();
        if turns.over || turns.reading < READING_MAX {
            turns.reading += 1;
            return !turns.over;
        }
        let call = Arc::new(Condvar::new());
        let rests = |turns: &mut Turns| turns.resting.iter().any(|other| Arc::ptr_eq(other, &call));
        turns.resting.push(call.clone());
        let (mut turns, waited) =
            call.wait_timeout_while(turns, IDLE, |turns| rests(turns)).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            drop(turns);
            idle();
            turns = self.turns();
        }
        let turns = call.wait_while(turns, |turns| rests(turns)).unwrap_or_else(PoisonError::into_inner);
        !turns.over
    }

    /// Records that this thread has read a request and works on it now. Wakes another thread if none would read.
    pub(super) fn received(&self) {
        let mut turns = self.turns();
        turns.reading -= 1;
        if turns.reading == 0
            && let Some(call) = turns.resting.pop()
        {
            turns.reading += 1;
            drop(turns);
            call.notify_one();
        }
    }

    /// Records that the connection has ended and wakes all resting threads.
    pub(super) fn end(&self) {
        let mut turns = self.turns();
        turns.over = true;
        for call in turns.resting.drain(..) {
            call.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Starts threads that each take one turn, report its result and end.
    fn takers(readers: &Arc<Readers>, numbers: std::ops::Range<usize>) -> mpsc::Receiver<(usize, bool)> {
        let (said, heard) = mpsc::channel();
        for number in numbers {
            let (readers, said) = (readers.clone(), said.clone());
            let before = readers.turns().resting.len();
            let resting = readers.clone();
            std::thread::spawn(move || {
                let turn = readers.take_turn(|| {});
                let _ = said.send((number, turn));
            });
            // Wait for it to rest before starting the next one: the test is about the order.
            while resting.turns().resting.len() == before {
                std::thread::yield_now();
            }
        }
        heard
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn four_threads_read_and_the_last_to_rest_is_woken_when_none_reads() {
        let readers = Arc::new(Readers::default());
        assert!((0..READING_MAX).all(|_| readers.take_turn(|| {})));
        let heard = takers(&readers, 0..3);
        (1..READING_MAX).for_each(|_| readers.received());
        assert!(heard.try_recv().is_err(), "one thread still reads");
        readers.received();
        assert_eq!(heard.recv_timeout(SOON), Ok((2, true)));
        readers.received();
        assert_eq!(heard.recv_timeout(SOON), Ok((1, true)));
        // A thread that comes back while only one reads gets a turn at once.
        assert!(readers.take_turn(|| {}));
        readers.end();
        assert_eq!(heard.recv_timeout(SOON), Ok((0, false)));
        assert!(!readers.take_turn(|| {}));
    }

    #[test]
    fn a_thread_that_rests_for_long_becomes_idle_once() {
        let readers = Arc::new(Readers::default());
        assert!((0..READING_MAX).all(|_| readers.take_turn(|| {})));
        let (told, heard) = mpsc::channel();
        let resting = readers.clone();
        let taker = std::thread::spawn(move || resting.take_turn(|| told.send(()).expect("the test listens")));
        heard.recv_timeout(IDLE * 2).expect("it became idle");
        (0..READING_MAX).for_each(|_| readers.received());
        assert!(taker.join().expect("no panic"));
        assert!(heard.recv().is_err(), "it became idle twice");
    }
}
