//! Which of a connection's threads reads next: the one that worked last.
//!
//! The kernel gives requests to waiting readers in turn. Were all of them to wait there, a guest that asks for one thing
//! at a time would warm the buffers of every thread, one after the other. So four read, the others rest here, and who
//! came to rest last is called first: little more threads are warm than there are requests at a time.
//!
//! ```text
//!            take_turn                received
//!  resting ──────────────► reading ──────────────► working
//!     ▲      called when nobody reads                 │
//!     ╰───────────────── take_turn: few read ─────────╯
//! ```

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Measured with 4 KiB writes at depth 1: with one, which has to call another thread for each request, 0.55 of the raw
/// file, with two 0.66, with four or sixteen 0.70.
const READING_MAX: usize = 4;
/// Who rests for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(5);

/// The turns of one connection's threads.
#[derive(Default)]
pub(super) struct Readers {
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    /// That read, or were called to.
    reading: usize,
    /// Last come, first called.
    resting: Vec<Arc<Condvar>>,
    over: bool,
}

impl Readers {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this thread should read. `idle` is called once when that takes long; false when the connection is over.
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

    /// This thread has read a request and works on it. Calls another one if nobody would read.
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

    /// The connection is over: nobody rests any more.
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

    /// Threads that each take a turn, say so, and do not read on.
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
            // One after the other: the order in which they come to rest is what counts.
            while resting.turns().resting.len() == before {
                std::thread::yield_now();
            }
        }
        heard
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn some_read_and_the_last_that_came_to_rest_is_called_when_none_does() {
        let readers = Arc::new(Readers::default());
        assert!((0..READING_MAX).all(|_| readers.take_turn(|| {})));
        let heard = takers(&readers, 0..3);
        (1..READING_MAX).for_each(|_| readers.received());
        assert!(heard.try_recv().is_err(), "one still reads");
        readers.received();
        assert_eq!(heard.recv_timeout(SOON), Ok((2, true)));
        readers.received();
        assert_eq!(heard.recv_timeout(SOON), Ok((1, true)));
        // Who comes back while one reads, reads as well.
        assert!(readers.take_turn(|| {}));
        readers.end();
        assert_eq!(heard.recv_timeout(SOON), Ok((0, false)));
        assert!(!readers.take_turn(|| {}));
    }

    #[test]
    fn who_rests_for_long_is_told_once() {
        let readers = Arc::new(Readers::default());
        assert!((0..READING_MAX).all(|_| readers.take_turn(|| {})));
        let (told, heard) = mpsc::channel();
        let resting = readers.clone();
        let taker = std::thread::spawn(move || resting.take_turn(|| told.send(()).expect("heard")));
        heard.recv_timeout(IDLE * 2).expect("told");
        (0..READING_MAX).for_each(|_| readers.received());
        assert!(taker.join().expect("no panic"));
        assert!(heard.recv().is_err(), "told twice");
    }
}
