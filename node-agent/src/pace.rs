//! How fast work goes that nobody waits for: [`Pace`] limits its bytes per second, and it gives way to reads.

use std::{cell::Cell, future::Future, sync::Mutex, time::Duration};

use muster_pool::PoolClient;
use storage_core::lock;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

/// Longest that such work waits for reads that are under way. Without a limit, guests that always read would end it.
const GIVE_WAY: Duration = Duration::from_millis(250);
/// Time between two looks for such reads.
const LOOK: Duration = Duration::from_millis(5);

/// A limit of bytes per second. Whoever takes bytes waits until all that was taken before has had its time.
pub(crate) struct Pace {
    bytes_per_s: u64,
    free_at: Mutex<Instant>,
}

impl Pace {
    /// At least 1 byte per second.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        assert!(bytes_per_s > 0, "the configuration refuses 0");
        Self { bytes_per_s, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn.
    pub(crate) async fn take(&self, bytes: u64) {
        let at = {
            let mut free_at = lock(&self.free_at);
            let at = (*free_at).max(Instant::now());
            *free_at = at + Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_s);
            at
        };
        sleep_until(at).await;
    }
}

/// Lets pieces of work through as fast as they come while nobody reads. While somebody does, one goes at a time, and it is followed
/// by a rest of several times as long as it took. So reads seldom meet a piece, and work gets on however much is read. What the
/// links carry need not be known: a piece that shared its link with reads took longer, and so the rest is longer.
#[derive(Default)]
pub(crate) struct SlowLane(tokio::sync::Mutex<()>);

/// A rest lasts so many times as long as the piece before it.
const REST: u32 = 6;
/// Longest rest, so that copies that are missing are made however much is read.
const REST_MOST: Duration = Duration::from_millis(500);
/// A piece that takes longer than this leaves the lane to the next one: it waits for a node that does not answer.
const PIECE_MOST: Duration = Duration::from_secs(2);

impl SlowLane {
    /// Lets a piece through when its turn has come. `has_reads` tells whether somebody reads where it would be noticed.
    pub(crate) async fn pass<T>(&self, has_reads: impl Fn() -> bool, piece: impl Future<Output = T>) -> T {
        if !has_reads() {
            return piece.await;
        }
        let turn = self.0.lock().await;
        let began = Instant::now();
        let mut piece = std::pin::pin!(piece);
        let Ok(done) = timeout(PIECE_MOST, &mut piece).await else {
            drop(turn);
            return piece.await;
        };
        let ended = Instant::now();
        let rest_until = ended + ((ended - began) * REST).min(REST_MOST);
        while has_reads() && Instant::now() < rest_until {
            sleep(LOOK).await;
        }
        done
    }
}

/// Work of a blocking thread in steps. Between two of them it rests: guests sync on the same disk.
pub(crate) struct Steps {
    began: Cell<Instant>,
    times: u32,
}

impl Steps {
    /// The first step begins. After each there is a rest of so many times as long as it took, at most a second.
    pub(crate) fn begin(times: u32) -> Self {
        Self { began: Cell::new(Instant::now()), times }
    }

    /// A step has ended. The next one begins when this returns.
    pub(crate) fn rest(&self) {
        std::thread::sleep((self.began.get().elapsed() * self.times).min(Duration::from_secs(1)));
        self.began.set(Instant::now());
    }
}

/// How much nicer than others a thread is that does what nobody waits for (`man 7 sched`). It takes and leaves the locks of the
/// store as others do, so it must not starve beside them, as it would with the highest value or the policy for idle times.
const NICE: i32 = 10;

/// Does work of a blocking thread, for which nobody waits, in a thread of its own with a low priority, and waits for it.
///
/// A commit sleeps while the disk syncs and is then ready to go on. Beside a thread of the same priority that computes, it has to
/// wait for a processor until the time slice of that ends: measured on two processors, 4 to 5 of the 6 ms that the slowest syncs
/// took beside a sweep.
///
/// # Panics
/// As `work` does, and where no thread can be started.
pub(crate) fn at_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = || {
        // On Linux it is a property of the thread. That it cannot be set changes nothing but the speed of others.
        let before = rustix::process::getpriority_process(None);
        let set = before.and_then(|nice| rustix::process::setpriority_process(None, nice.max(NICE)));
        if let Err(error) = set {
            debug!(%error, "a thread for background work keeps its priority");
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits a moment while somebody waits for objects of the pool.
pub(crate) async fn give_way(pool: &PoolClient) {
    give_way_for(pool, GIVE_WAY).await;
}

/// Waits while somebody waits for objects of the pool, at most so long.
pub(crate) async fn give_way_for(pool: &PoolClient, most: Duration) {
    let end = Instant::now() + most;
    while pool.reads_under_way() && Instant::now() < end {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "the first goes at once");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[test]
    fn what_nobody_waits_for_is_done_at_a_low_priority_and_the_thread_that_asks_keeps_its_own() {
        let nice = || rustix::process::getpriority_process(None).expect("a number");
        let before = nice();
        assert_eq!(at_low_priority(nice), before.max(NICE));
        assert_eq!(nice(), before);
        let panicked = std::panic::catch_unwind(|| at_low_priority(|| panic!("on purpose")));
        assert_eq!(panicked.expect_err("it is told").downcast_ref(), Some(&"on purpose"));
    }

    #[tokio::test(start_paused = true)]
    async fn while_somebody_reads_one_piece_goes_at_a_time_with_rests() {
        let (lane, reads) = (SlowLane::default(), AtomicBool::new(false));
        let piece = || lane.pass(|| reads.load(Relaxed), async { sleep(Duration::from_millis(50)).await });
        let begun = Instant::now();
        tokio::join!(piece(), piece(), piece());
        assert_eq!(begun.elapsed(), Duration::from_millis(50), "all at once");
        reads.store(true, Relaxed);
        let begun = Instant::now();
        tokio::join!(piece(), piece(), piece());
        let (took, expected) = (begun.elapsed(), Duration::from_millis(50) * 3 * (1 + REST));
        assert!(took >= expected && took < expected + LOOK * 6, "{took:?}");
        // The rest ends with the reads.
        let begun = Instant::now();
        tokio::join!(piece(), async {
            sleep(Duration::from_millis(200)).await;
            reads.store(false, Relaxed);
        });
        assert!(begun.elapsed() < Duration::from_millis(300));
        // A piece that takes very long keeps the next one waiting for a bounded time.
        reads.store(true, Relaxed);
        let begun = Instant::now();
        let stuck = lane.pass(|| true, async { sleep(Duration::from_secs(60)).await });
        let next = async {
            piece().await;
            begun.elapsed()
        };
        let ((), next) = tokio::join!(stuck, next);
        assert!(next < PIECE_MOST + REST_MOST * 2 && begun.elapsed() >= Duration::from_secs(60), "{next:?}");
    }
}
