//! The threads that serve all connections. Their number follows the requests under way, not the number of disks.
//!
//! All devices are in one epoll set, and idle threads wait on it. The kernel wakes the one that came to wait last, so
//! only about as many threads have warm buffers as there are requests at a time. The woken thread takes a *turn*: it
//! serves what waits. There is no other event of this connection until it is passed on: at the end of the turn, before
//! work that takes long, and by a watching thread when a turn takes unexpectedly long ([`LATE`]). Then another thread
//! takes a turn beside the first.
//!
//! A guest that waits for each answer sends its next request a moment after it. So a turn *lingers*: it waits on the device
//! itself for a moment ([`LINGER`]), with the connection kept, and gives it back to the set only when nothing came.
//!
//! ```text
//!            event                   answered            nothing came
//!  waiting ─────────► in a turn ◄──────────────► lingers ────────────► waiting ─────────► ended
//!                        ╰─ starts a thread if nobody waits any more       idle, and enough others wait
//! ```
//!
//! **I11.** A disk has at most [`SHARE_MAX`] threads, and its second and further ones leave half of the pool free. So a
//! disk whose file does not answer keeps few threads, and 70 such disks still leave threads for the others.
//!
//! **Guests come first.** These threads go before all other threads of the node ([`NICE`]). Commits hash and pack on every
//! processor, and a guest's write must not wait behind that.
//!
//! **A thread that ends is noticed.** A panic during a turn ends that connection ([`Turn`]) and the thread, which is
//! replaced when nobody else waits ([`Member`]). A disk is served while its connection works and there are threads
//! ([`Served::is_serving`]); the reconciler mounts the others again.

use std::{
    collections::HashMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError, RwLock, RwLockWriteGuard, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll},
    io::Errno,
    process::setpriority_process,
};
use storage_core::lock;

use super::worker::Worker;
use crate::telemetry;

/// Most threads of a pool.
const THREADS_MAX: usize = 128;
/// Threads that stay while there is nothing to do.
const THREADS_KEPT: usize = 4;
/// The nice value of serving threads. On a node whose processors are all busy, a 4 KiB write with a flush beside a commit
/// took 2.1 ms with it and 4.3 ms without, at the 99th percentile.
const NICE: i32 = -10;
/// Most threads that serve one disk. Each may have several requests in progress (`worker`).
const SHARE_MAX: usize = 8;
/// How long a turn waits for another request of the same connection.
const LINGER: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000 };
/// No turn waits for requests while more threads than this are in turns, so that many disks do not need many threads.
const LINGERING_MAX: usize = THREADS_MAX / 4;
/// Idle time after which a thread releases its buffers.
const IDLE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Time between two looks for turns that take long. Such a turn is passed on after one to two of it.
const LATE: Duration = Duration::from_millis(50);
/// Pause before a thread ends that could not start, which bounds how often it is replaced.
const START_FAILED: Duration = Duration::from_millis(100);
/// Number of the event that ends the pool. Connections have other numbers.
const END: u64 = 0;

/// Serving threads and their connections. Dropping it ends the threads.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    /// Becomes readable at the end of the pool.
    end: OwnedFd,
    connections: RwLock<HashMap<u64, Arc<Connection>>>,
    numbers: AtomicU64,
    /// All threads.
    running: AtomicUsize,
    /// Whether a thread watches for turns that take long.
    watched: AtomicBool,
    /// Threads in a turn. The others wait for an event.
    busy: AtomicUsize,
}

/// One end of a connection to the kernel.
pub(super) trait Service: Send + Sync {
    /// The descriptor that becomes readable when there are requests.
    fn device(&self) -> BorrowedFd<'_>;
    /// Serves the requests that wait.
    fn serve(&self, worker: &mut Worker, turn: &Turn<'_>);
    /// Ends the connection.
    fn abort(&self);
}

/// A connection that the pool serves. Threads that have a turn hold a reference.
struct Connection {
    number: u64,
    span: tracing::Span,
    turns: Mutex<Turns>,
    // These two are dropped in this order: whoever waits for the end expects the disk to be unused.
    service: Box<dyn Service>,
    end: EndOnDrop,
}

#[derive(Default)]
struct Turns {
    /// The turns in progress, by their numbers.
    taken: Vec<u64>,
    next_number: u64,
    /// An event was left alone because the disk had its share of threads. The next turn that ends makes up for it.
    missed: bool,
    /// The turn that keeps the connection to itself. There is no event until it passes it on.
    keeper: Option<Keeper>,
}

struct Keeper {
    turn: u64,
    /// It did so at the last look already.
    long: bool,
}

impl Turns {
    fn keep(&mut self, turn: u64) {
        self.keeper = Some(Keeper { turn, long: false });
    }

    fn is_kept_by(&self, turn: u64) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.turn == turn)
    }
}

/// The end of a connection.
#[derive(Default)]
struct End {
    /// The kernel sends no more requests.
    begun: AtomicBool,
    /// No thread uses the disk any more.
    complete: Mutex<bool>,
    completed: Condvar,
}

struct EndOnDrop(Arc<End>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        *lock(&self.0.complete) = true;
        self.0.completed.notify_all();
    }
}

impl Pool {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &end, epoll::EventData::new_u64(END), epoll::EventFlags::IN)?;
        let (connections, numbers) = (RwLock::default(), AtomicU64::new(END + 1));
        let (running, watched, busy) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { shared: Arc::new(Shared { epoll, end, connections, numbers, running, watched, busy }) })
    }

    /// Serves a connection, also the requests that wait already, until it ends or the result is dropped. `span` is that
    /// of log lines about it. Fails when there is no thread and none can be started.
    pub(super) fn serve(self: &Arc<Self>, service: Box<dyn Service>, span: tracing::Span) -> io::Result<Served> {
        let shared = &self.shared;
        if shared.running.load(Ordering::Acquire) == 0 {
            shared.start_thread()?;
        }
        shared.watch()?;
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let end = Arc::new(End::default());
        let end_on_drop = EndOnDrop(end.clone());
        let connection = Arc::new(Connection { number, span, turns: Mutex::default(), service, end: end_on_drop });
        shared.connections_mut().insert(number, connection.clone());
        // From here on, an error drops this value, which removes the connection.
        let served = Served { pool: self.clone(), number, end };
        epoll::add(&shared.epoll, connection.service.device(), epoll::EventData::new_u64(number), EVENTS)?;
        Ok(served)
    }
}

/// After an event there is no other until the turn asks for one ([`Turn::pass_on`]).
const EVENTS: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ONESHOT);
const NO_EVENTS: epoll::EventFlags = epoll::EventFlags::ONESHOT;

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&self.shared.end, &1u64.to_ne_bytes()) {
            tracing::error!(error = %error, "the threads that served disks do not end");
        }
    }
}

/// A connection in a pool. Dropping it takes the connection out of the pool.
pub(super) struct Served {
    pool: Arc<Pool>,
    number: u64,
    end: Arc<End>,
}

impl Served {
    /// Whether the connection works and there are threads to serve it.
    pub(super) fn is_serving(&self) -> bool {
        !self.end.begun.load(Ordering::Acquire) && self.pool.shared.running.load(Ordering::Acquire) > 0
    }

    /// Takes the connection out of the pool and waits for its threads. Returns whether they left it in time.
    pub(super) fn end_within(&self, limit: Duration) -> bool {
        self.pool.shared.forget(self.number);
        let complete = lock(&self.end.complete);
        let waited = self.end.completed.wait_timeout_while(complete, limit, |complete| !*complete);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.pool.shared.forget(self.number);
    }
}

impl Shared {
    fn connections_mut(&self) -> RwLockWriteGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self, number: u64) -> Option<Arc<Connection>> {
        self.connections.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Takes a connection out of the pool. Threads that have a turn with it go on until the connection itself ends.
    fn forget(&self, number: u64) {
        let Some(connection) = self.connections_mut().remove(&number) else { return };
        connection.end.0.begun.store(true, Ordering::Release);
        if let Err(error) = epoll::delete(&self.epoll, connection.service.device()) {
            tracing::debug!(error = %error, "a connection was not in the set of its pool");
        }
    }

    /// Starts one more thread, unless there are enough.
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let more = |running: usize| (running < THREADS_MAX).then_some(running + 1);
        let Ok(before) = self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) else { return Ok(()) };
        metrics::gauge!(telemetry::SERVING_THREADS).increment(1.0);
        let member = Member { shared: self.clone(), counted: true };
        // If there is no thread, this drops `member`, which counts it out again.
        std::thread::Builder::new().name(format!("fuse-{before}")).spawn(move || member.work()).map(drop)
    }

    /// Starts a thread if all are in turns, so that the next event finds one.
    fn keep_one_waiting(self: &Arc<Self>) {
        if self.busy.load(Ordering::Acquire) >= self.running.load(Ordering::Acquire)
            && let Err(error) = self.start_thread()
        {
            tracing::warn!(error = %error, "no more threads can be started to serve disks");
        }
    }

    /// Starts the thread that watches for turns that take long, unless there is one. It ends with the pool.
    fn watch(self: &Arc<Self>) -> io::Result<()> {
        if self.watched.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let watching = Watching(Arc::downgrade(self));
        std::thread::Builder::new().name("fuse-watch".to_owned()).spawn(move || watching.work()).map(drop)
    }

    /// Passes on the connections of turns that take long.
    fn look_for_long_turns(&self) {
        if self.busy.load(Ordering::Acquire) == 0 {
            return;
        }
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.values() {
            let mut turns = lock(&connection.turns);
            match &mut turns.keeper {
                None => {}
                Some(keeper) if !keeper.long => keeper.long = true,
                Some(_) => {
                    turns.keeper = None;
                    drop(turns);
                    self.ask_for_event(connection);
                }
            }
        }
    }

    /// Makes the kernel look at the device, and tell of requests that wait or arrive.
    fn ask_for_event(&self, connection: &Connection) {
        self.want(connection, EVENTS);
    }

    /// Sets the events of a connection. Returns whether it is still in the pool.
    fn want(&self, connection: &Connection, events: epoll::EventFlags) -> bool {
        let number = epoll::EventData::new_u64(connection.number);
        let wanted = epoll::modify(&self.epoll, connection.service.device(), number, events);
        if let Err(error) = &wanted {
            tracing::debug!(error = %error, "a connection has left the pool meanwhile");
        }
        wanted.is_ok()
    }

    /// Begins a turn with the connection of an event.
    fn take_turn(self: &Arc<Self>, number: u64) -> Option<Turn<'_>> {
        let connection = self.connection(number)?;
        let number = {
            let mut turns = lock(&connection.turns);
            let half_busy = self.busy.load(Ordering::Relaxed) >= THREADS_MAX / 2;
            if !turns.taken.is_empty() && (half_busy || turns.taken.len() >= SHARE_MAX) {
                turns.missed = true;
                return None;
            }
            let number = turns.next_number;
            turns.next_number += 1;
            turns.taken.push(number);
            turns.keep(number);
            number
        };
        self.busy.fetch_add(1, Ordering::AcqRel);
        let turn = Turn { shared: self, connection, number };
        self.keep_one_waiting();
        Some(turn)
    }
}

/// One thread of a pool. Dropping it, at a panic too, counts the thread out and replaces it if nobody waits.
struct Member {
    shared: Arc<Shared>,
    counted: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::SERVING_THREADS).decrement(1.0);
        if self.counted {
            self.shared.running.fetch_sub(1, Ordering::AcqRel);
        }
        if std::thread::panicking() {
            self.shared.keep_one_waiting();
        }
    }
}

impl Member {
    /// Serves connections until the pool ends or has more idle threads than it needs.
    fn work(mut self) {
        // The id 0 is this thread.
        if let Err(error) = setpriority_process(None, NICE) {
            tracing::debug!(error = %error, "guests' requests do not go before other work: that needs CAP_SYS_NICE");
        }
        let mut worker = match Worker::new() {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(error = %error, "a thread that serves disks has no memory");
                std::thread::sleep(START_FAILED);
                return;
            }
        };
        while let Some(number) = self.wait(|| worker.release_memory()) {
            if let Some(turn) = self.shared.take_turn(number) {
                let _span = turn.connection.span.enter();
                turn.connection.service.serve(&mut worker, &turn);
            }
        }
    }

    /// Waits for an event. Returns its connection, or `None` when this thread should end. Calls `idle` when the wait is
    /// long.
    fn wait(&mut self, mut idle: impl FnMut()) -> Option<u64> {
        let mut event = Vec::with_capacity(1);
        loop {
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut event), Some(&IDLE)) {
                Ok(0) if self.leave() => return None,
                Ok(0) => idle(),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(error = %error, "waiting for requests failed");
                    std::thread::sleep(START_FAILED);
                }
            }
        }
        event.first().map(|event| event.data.u64()).filter(|number| *number != END)
    }

    /// Counts this thread out if enough others wait. Returns whether it did.
    fn leave(&mut self) -> bool {
        let kept = self.shared.busy.load(Ordering::Acquire) + THREADS_KEPT;
        let less = |running: usize| (running > kept).then(|| running - 1);
        self.counted = self.shared.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_err();
        !self.counted
    }
}

/// The thread that watches for long turns. When it ends, by a panic too, the next connection starts another.
struct Watching(Weak<Shared>);

impl Watching {
    fn work(&self) {
        while let Some(shared) = self.0.upgrade() {
            shared.look_for_long_turns();
            drop(shared);
            std::thread::sleep(LATE);
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.watched.store(false, Ordering::Release);
        }
    }
}

/// The work of one thread for one connection. Dropping it ends the turn; at a panic it ends the connection as well,
/// because the request that the thread had read stays without an answer.
pub(super) struct Turn<'a> {
    shared: &'a Arc<Shared>,
    connection: Arc<Connection>,
    number: u64,
}

impl Turn<'_> {
    /// Lets other threads take turns as well. This one is going to be busy.
    pub(super) fn pass_on(&self) {
        let mut turns = lock(&self.connection.turns);
        if turns.is_kept_by(self.number) {
            turns.keeper = None;
            drop(turns);
            self.shared.ask_for_event(&self.connection);
        }
    }

    /// What takes the connection back that was passed on, unless another thread has got an event meanwhile. To be called
    /// when a flush is done and before it is answered: then the guest's next request finds this thread lingering and does
    /// not wake another one as well.
    pub(super) fn way_back(&self) -> impl FnOnce() + Send + 'static {
        let (shared, connection, number) = (self.shared.clone(), self.connection.clone(), self.number);
        move || {
            let mut turns = lock(&connection.turns);
            if turns.taken == [number] && turns.keeper.is_none() && shared.want(&connection, NO_EVENTS) {
                turns.keep(number);
            }
        }
    }

    /// Waits a moment for the next request, if the connection is kept. Returns whether there may be one.
    ///
    /// A guest that waits for each answer sends its next request within microseconds. Waiting for it here saves two system
    /// calls and the way through the pool: on a disk in memory, random reads at depth 1 are 1.5 times as fast.
    pub(super) fn linger(&self) -> bool {
        if self.shared.busy.load(Ordering::Relaxed) > LINGERING_MAX {
            return false;
        }
        {
            let mut turns = lock(&self.connection.turns);
            if !turns.is_kept_by(self.number) {
                return false;
            }
            // The request to come is another one, whose time begins now.
            turns.keep(self.number);
        }
        let device = self.connection.service.device();
        let mut waiting = [PollFd::new(&device, PollFlags::IN)];
        matches!(poll(&mut waiting, Some(&LINGER)), Ok(1..))
    }

    /// Records that the connection has ended.
    pub(super) fn ended(&self) {
        self.shared.forget(self.connection.number);
    }

    /// Ends a connection that cannot be served. The disk is mounted again.
    pub(super) fn failed(&self, error: &io::Error) {
        tracing::error!(error = %error, "the connection of a disk failed; the disk will be mounted again");
        self.ended();
        self.connection.service.abort();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed(&io::Error::other("a serving thread panicked"));
        }
        let missed = {
            let mut turns = lock(&self.connection.turns);
            turns.taken.retain(|number| *number != self.number);
            std::mem::take(&mut turns.missed)
        };
        self.shared.busy.fetch_sub(1, Ordering::AcqRel);
        self.pass_on();
        if missed {
            self.shared.ask_for_event(&self.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsFd, unix::net::UnixDatagram},
        sync::mpsc,
        time::Instant,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A connection whose requests are single bytes. It answers each with the same byte.
    struct Echo {
        device: UnixDatagram,
        /// Requests of this kind wait until the gate is open.
        gate: Arc<RwLock<()>>,
        aborted: mpsc::Sender<()>,
    }

    const PANIC: u8 = 1;
    const WAIT: u8 = 2;
    const END_OF_CONNECTION: u8 = 3;
    const FLUSH: u8 = 4;
    const TELL_NICE: u8 = 5;

    impl Service for Echo {
        fn device(&self) -> BorrowedFd<'_> {
            self.device.as_fd()
        }

        fn serve(&self, _: &mut Worker, turn: &Turn<'_>) {
            let mut request = [0];
            loop {
                while self.device.recv(&mut request).is_ok() {
                    match request[0] {
                        PANIC => panic!("as the test wants"),
                        WAIT => drop(self.gate.read()),
                        END_OF_CONNECTION => return turn.ended(),
                        FLUSH => {
                            turn.pass_on();
                            turn.way_back()();
                        }
                        TELL_NICE => {
                            let nice = rustix::process::getpriority_process(None).expect("a thread");
                            request[0] = i8::try_from(nice).expect("nice values are small").cast_unsigned();
                        }
                        _ => {}
                    }
                    let _nobody_listens = self.device.send(&request);
                }
                if !turn.linger() {
                    return;
                }
            }
        }

        fn abort(&self) {
            let _nobody_listens = self.aborted.send(());
        }
    }

    struct Guest {
        socket: UnixDatagram,
        served: Served,
        aborted: mpsc::Receiver<()>,
    }

    impl Guest {
        fn new(pool: &Arc<Pool>, gate: &Arc<RwLock<()>>) -> Self {
            let (socket, device) = UnixDatagram::pair().expect("sockets");
            device.set_nonblocking(true).expect("set");
            socket.set_read_timeout(Some(SOON)).expect("set");
            let (tell, aborted) = mpsc::channel();
            let echo = Echo { device, gate: gate.clone(), aborted: tell };
            let served = pool.serve(Box::new(echo), tracing::Span::none()).expect("threads start");
            Self { socket, served, aborted }
        }

        fn ask(&self, request: u8) {
            self.socket.send(&[request]).expect("there is room for it");
        }

        fn answer(&self) -> std::io::Result<u8> {
            let mut answer = [0];
            self.socket.recv(&mut answer).map(|_| answer[0])
        }
    }

    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < SOON, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn threads(pool: &Pool) -> usize {
        pool.shared.running.load(Ordering::Acquire)
    }

    #[test]
    fn serving_threads_go_before_the_other_threads_of_the_node() {
        let (pool, gate) = (Arc::new(Pool::new().expect("a pool")), Arc::default());
        let guest = Guest::new(&pool, &gate);
        guest.ask(TELL_NICE);
        let theirs = guest.answer().expect("an answer").cast_signed();
        let ours = rustix::process::getpriority_process(None).expect("a thread");
        assert!(i32::from(theirs) <= ours + NICE, "{theirs} beside {ours}");
    }

    /// Requests come while a turn lingers, just when it gives the connection back, and long after.
    #[test]
    fn no_request_is_lost_between_lingering_and_waiting() {
        let (pool, gate) = (Arc::new(Pool::new().expect("a pool")), Arc::default());
        let guest = Guest::new(&pool, &gate);
        let linger = Duration::from_nanos(u64::try_from(LINGER.tv_nsec).expect("positive"));
        for round in 0..1000_u32 {
            let request = if round % 3 == 0 { FLUSH } else { 100 };
            guest.ask(request);
            assert_eq!(guest.answer().expect("no request is lost"), request);
            std::thread::sleep(linger * (round % 5) / 3);
        }
        // What has a turn that lingers keeps no other thread from the other disks.
        let others: Vec<_> = (0..3 * LINGERING_MAX).map(|_| Guest::new(&pool, &gate)).collect();
        for round in 0..20 {
            others.iter().for_each(|guest| guest.ask(100 + round));
            assert!(others.iter().all(|guest| guest.answer().expect("all are served") == 100 + round));
        }
        assert!(pool.shared.running.load(Ordering::Acquire) <= THREADS_MAX);
    }

    #[test]
    fn a_serving_thread_that_ends_is_noticed() {
        let (pool, gate) = (Arc::new(Pool::new().expect("a pool")), Arc::default());
        let (bad, good) = (Guest::new(&pool, &gate), Guest::new(&pool, &gate));
        for _ in 0..2 * THREADS_KEPT {
            let bad = Guest::new(&pool, &gate);
            bad.ask(PANIC);
            bad.aborted.recv_timeout(SOON).expect("its connection is ended");
            assert!(!bad.served.is_serving());
            assert!(bad.served.end_within(SOON), "nothing waits for the thread that ended");
        }
        good.ask(7);
        assert_eq!(good.answer().expect("others are served"), 7);
        assert!(good.served.is_serving() && bad.served.is_serving());
        bad.ask(END_OF_CONNECTION);
        eventually("its end is known", || !bad.served.is_serving());
        // A pool without threads serves nobody.
        pool.shared.running.store(0, Ordering::Release);
        assert!(!good.served.is_serving());
    }

    #[test]
    fn stuck_connections_keep_their_share_and_leave_threads_for_others() {
        let (pool, gate) = (Arc::new(Pool::new().expect("a pool")), Arc::<RwLock<()>>::default());
        let closed = gate.write().expect("no panic");
        let stuck: Vec<_> = (0..64).map(|_| Guest::new(&pool, &gate)).collect();
        let one = &stuck[0];
        (0..20).for_each(|_| one.ask(WAIT));
        eventually("one takes its share", || pool.shared.busy.load(Ordering::Acquire) == SHARE_MAX);
        stuck[1..].iter().for_each(|guest| (0..20).for_each(|_| guest.ask(WAIT)));
        eventually("each has a thread", || {
            let connections = pool.shared.connections.read().expect("no panic");
            connections.values().all(|connection| !lock(&connection.turns).taken.is_empty())
        });
        let free = Guest::new(&pool, &gate);
        for n in 10..=255 {
            free.ask(n);
            assert_eq!(free.answer().expect("it is served"), n);
        }
        assert!(threads(&pool) <= THREADS_MAX);
        drop(closed);
        // Requests that were left alone are served by the threads that come back.
        for guest in &stuck {
            (0..20).for_each(|_| assert_eq!(guest.answer().expect("it is served"), WAIT));
        }
    }

    #[test]
    fn threads_end_when_they_are_idle_and_with_their_pool() {
        let (pool, gate) = (Arc::new(Pool::new().expect("a pool")), Arc::<RwLock<()>>::default());
        let closed = gate.write().expect("no panic");
        let guests: Vec<_> = (0..8).map(|_| Guest::new(&pool, &gate)).collect();
        guests.iter().for_each(|guest| guest.ask(WAIT));
        eventually("each has a thread", || threads(&pool) > guests.len());
        drop(closed);
        eventually("idle ones end", || threads(&pool) == THREADS_KEPT);
        let shared = Arc::downgrade(&pool.shared);
        drop((guests, pool));
        eventually("all end", || shared.strong_count() == 0);
    }
}
