//! One disk: its layers, the gate that holds writes, and its flushes.
//!
//! ```text
//!             newest                                  oldest
//! layers:   [ epoch 7 (current) | epoch 6 (commit b) | epoch 5 (commit a) ] -> base: version, cache, pool
//!                ^ flip puts a new one in front           ^ fold removes published ones and moves the base
//! ```
//!
//! `layers` is replaced as a whole and never changed in place, so a reader works with the value it loaded. Every
//! replacement describes the same bytes of the disk (I1).

use std::{
    io,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use muster_api::DiskId;
use muster_pool::PoolClient;
use storage_core::{BLOCK_BYTES, lock};

use super::{
    base::{Base, Pages},
    boots::Recorder,
    cache::Cache,
    config::Config,
    cut::Prepared,
    epoch::{Epoch, FlushError},
    error::{Fault, is_no_space},
    lost::Lost,
    meta::{Meta, NotStored},
    patience::Patience,
    prefetch::Turns,
    stable,
    write::{NotNow, Stripes},
};
use crate::{holder::Holder, pace::Pace};

/// What all disks of a node have in common.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) pool: PoolClient,
    pub(crate) cache: Arc<Cache>,
    pub(crate) holder: Holder,
    pub(crate) pages: Arc<Pages>,
    /// How fast commits in the background store, all together.
    pub(crate) background: Pace,
    /// What limits the fetches that no guest waits for.
    pub(crate) turns: Turns,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Bytes that programs read from all disks since this process began.
    pub(crate) read_bytes: AtomicU64,
    /// Bytes that they wrote.
    pub(crate) written_bytes: AtomicU64,
}

/// What a disk consists of at one moment.
pub(crate) struct Layers {
    pub(crate) base: Arc<Base>,
    /// Newest first, never empty. Reads look through them in this order before they look into the base.
    pub(crate) epochs: Vec<Arc<Epoch>>,
}

impl Layers {
    /// The epoch that is written to.
    pub(crate) fn current(&self) -> &Arc<Epoch> {
        self.epochs.first().expect("a disk always has a current epoch")
    }

    /// Bytes of the disk when the newest of these epochs was written to.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.current().bits.blocks() * BLOCK_BYTES
    }
}

pub(crate) struct Disk {
    node: Arc<Node>,
    id: DiskId,
    pub(super) dir: PathBuf,
    /// Set after the layers of a new size are in place, so that whoever sees the size finds them.
    size_bytes: AtomicU64,
    layers: ArcSwap<Layers>,
    stripes: Stripes,
    gate: Gate,
    flusher: Mutex<Flusher>,
    failed: ArcSwapOption<String>,
    removed: AtomicBool,
    fetched_bytes: AtomicU64,
    /// Bytes that programs read and wrote since this process opened the disk.
    used_bytes: AtomicU64,
    pub(super) lost: Lost,
    pub(super) boots: Recorder,
    patience: Patience,
    /// The durable record as it was last stored.
    pub(super) meta: ArcSwap<Meta>,
    storing: Mutex<()>,
    /// Held while `meta` or `layers` is replaced. A flip alone does not need it (see `cut`).
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) prepared: Mutex<Option<Prepared>>,
    pub(super) merging: AtomicBool,
}

impl Disk {
    pub(crate) fn new(node: Arc<Node>, dir: PathBuf, meta: Meta, layers: Layers) -> Arc<Self> {
        Arc::new(Self {
            node,
            id: meta.disk,
            dir,
            size_bytes: AtomicU64::new(meta.size_bytes),
            layers: ArcSwap::from_pointee(layers),
            stripes: Stripes::new(),
            gate: Gate::default(),
            flusher: Mutex::default(),
            failed: ArcSwapOption::new(meta.failed.clone().map(Arc::new)),
            removed: AtomicBool::new(false),
            fetched_bytes: AtomicU64::new(meta.fetched_bytes),
            used_bytes: AtomicU64::new(0),
            lost: Lost::default(),
            boots: Recorder::default(),
            patience: Patience::default(),
            meta: ArcSwap::from_pointee(meta),
            storing: Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
            prepared: Mutex::default(),
            merging: AtomicBool::new(false),
        })
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn id(&self) -> DiskId {
        self.id
    }

    /// Its size now. Layers that are loaded after this have at least this size.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::SeqCst)
    }

    /// Tells requests of a larger size. The layers have it already.
    pub(super) fn set_size_bytes(&self, bytes: u64) {
        self.size_bytes.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn stripes(&self) -> &Stripes {
        &self.stripes
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    pub(crate) fn layers(&self) -> Arc<Layers> {
        self.layers.load_full()
    }

    /// Replaces the layers with `change` of the present ones. May call `change` more than once.
    pub(super) fn change_layers(&self, change: impl Fn(&Layers) -> Layers) {
        self.layers.rcu(|old| Arc::new(change(old)));
        fence(Ordering::SeqCst);
    }

    pub(crate) fn count_fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// Counts a read of a program.
    pub(crate) fn count_read(&self, bytes: u32) {
        self.used_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        self.node.read_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Counts a write of a program.
    pub(crate) fn count_written(&self, bytes: u32) {
        self.used_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        self.node.written_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Set while requests wait for bytes that cannot be had because a clock is wrong: what is wrong with it.
    pub(crate) fn clock_off(&self) -> Option<String> {
        let trouble = self.patience.is_clock_off().then(|| self.node.pool.clock_trouble()).flatten();
        trouble.map(|trouble| trouble.detail)
    }

    /// Why the disk has failed for good, if it has.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.load().as_deref().cloned()
    }

    /// Marks the disk as failed for good, because a failed flush is final (I2). Tries to record that.
    pub(super) fn fail(&self, what: String) {
        tracing::error!(disk.id = %self.id, "a disk failed for good: {what}");
        self.failed.store(Some(Arc::new(what.clone())));
        if let Err(error) = self.replace_meta(Apply::Anyway, |meta| meta.failed = Some(what)) {
            let error = error.into_io();
            tracing::warn!(disk.id = %self.id, error = %error, "the failure of a disk could not be recorded");
        }
    }

    /// Replaces the durable record. Blocks. If it is unknown whether the old or the new record is durable, the new one is
    /// used, because the next start may find it, and the disk fails, because the next start may not find it.
    pub(super) fn update_meta(&self, apply: Apply, change: impl FnOnce(&mut Meta)) -> io::Result<()> {
        self.replace_meta(apply, change).map_err(|error| match error {
            NotStored::AsBefore(e) => e,
            NotStored::Unknown(e) => {
                self.fail(format!("sync of its folder: {e}"));
                if let Some(disk) = &self.node.config.disk {
                    disk.sync_failed(&self.dir, &e);
                }
                e
            }
        })
    }

    fn replace_meta(&self, apply: Apply, change: impl FnOnce(&mut Meta)) -> Result<(), NotStored> {
        let _one_at_a_time = lock(&self.storing);
        let mut meta = Meta::clone(&self.meta.load());
        change(&mut meta);
        meta.fetched_bytes = self.fetched_bytes();
        let mut stored = meta.store(&self.dir);
        if matches!(&stored, Err(NotStored::AsBefore(e)) if is_no_space(e)) && self.node.cache.give_back(1 << 20) > 0 {
            stored = meta.store(&self.dir);
        }
        let before = self.meta.load().page_file();
        if stored.is_ok()
            && let Some(before) = before.filter(|before| Some(before) != meta.page_file().as_ref())
        {
            // One that stays is removed by the next start.
            let _gone = stable::remove(&self.dir.join(before));
        }
        if !matches!(stored, Err(NotStored::AsBefore(_))) || apply == Apply::Anyway {
            self.meta.store(Arc::new(meta));
        }
        stored
    }

    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(crate) fn check_usable(&self) -> Result<(), Fault> {
        if self.removed.load(Ordering::Acquire) { Err(Fault::Removed) } else { Ok(()) }
    }

    pub(crate) fn check_writable(&self) -> Result<(), Fault> {
        self.check_usable()?;
        match &*self.failed.load() {
            Some(what) => Err(Fault::Failed(what.to_string())),
            None => Ok(()),
        }
    }

    /// Admits one write to the current epoch, unless a cut holds writes.
    pub(crate) fn admit(&self) -> Result<Admission, NotNow> {
        loop {
            let layers = self.layers();
            let epoch = layers.current().clone();
            // Count this write before checking that the epoch is still current. A flip at the same time either sees the
            // count or is seen by the check.
            epoch.enter();
            fence(Ordering::SeqCst);
            let admission = Admission { layers };
            if self.gate.held.load(Ordering::SeqCst) {
                return Err(NotNow::Held);
            }
            if Arc::ptr_eq(self.layers.load().current(), &epoch) {
                return Ok(admission);
            }
        }
    }

    /// Holds new writes from now on. Admitted writes continue.
    pub(super) fn hold(&self) {
        self.gate.longest_us.store(0, Ordering::SeqCst);
        self.gate.held.store(true, Ordering::SeqCst);
    }

    /// Lets held writes continue. Those that wait are woken.
    pub(super) fn release(&self) {
        self.gate.held.store(false, Ordering::SeqCst);
        self.gate.released.notify_waiters();
    }

    /// Counts a write that a cut holds up.
    pub(super) fn held_write(&self) -> HeldWrite<'_> {
        self.gate.held_write()
    }

    /// Waits until the writes that a hold held up are answered, at most for `limit`. Returns the longest that one of them
    /// waited so far, microseconds; 0 if there was none.
    pub(super) async fn longest_held_us(&self, limit: Duration) -> u64 {
        self.gate.longest_held_us(limit).await
    }

    /// Waits until writes are not held.
    pub(crate) async fn released(&self) {
        loop {
            let woken = self.gate.released.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if !self.gate.held.load(Ordering::SeqCst) {
                return;
            }
            woken.await;
        }
    }

    /// Makes everything written before this call durable, then calls `waiter` with the result. Calls that arrive during a
    /// flush share the next one.
    pub(crate) fn flush_then(self: &Arc<Self>, waiter: Waiter) {
        if self.await_flush(waiter) {
            let disk = self.clone();
            self.node.runtime.spawn_blocking(move || disk.run_flushes());
        }
    }

    /// Like [`Self::flush_then`], for a thread that may block: it runs the flush itself unless another thread runs one. That
    /// saves waking a thread, which takes about as long as syncing a block.
    pub(crate) fn flush_here(&self, waiter: Waiter) {
        if self.await_flush(waiter) {
            self.run_flushes();
        }
    }

    /// Adds `waiter` to those of the next flush. Returns whether the caller must see to it that [`Self::run_flushes`] runs.
    fn await_flush(&self, waiter: Waiter) -> bool {
        let mut flusher = lock(&self.flusher);
        flusher.waiting.push(waiter);
        !std::mem::replace(&mut flusher.running, true)
    }

    /// Like [`Self::flush_then`], and waits for the result.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Fault> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.flush_then(Box::new(move |flushed| drop(done.send(flushed))));
        result.await.unwrap_or_else(|_| Err(Fault::Io("the flush was given up".to_owned())))
    }

    fn run_flushes(&self) {
        loop {
            let waiting = {
                let mut flusher = lock(&self.flusher);
                if flusher.waiting.is_empty() {
                    flusher.running = false;
                    return;
                }
                std::mem::take(&mut flusher.waiting)
            };
            // A panic must not end this loop, or all later flushes would wait for ever.
            let flushed = std::panic::catch_unwind(AssertUnwindSafe(|| self.flush_now()))
                .unwrap_or_else(|_| Err(self.flush_failed(FlushError::final_of("a flush panicked", None))));
            for waiter in waiting {
                waiter(flushed.clone());
            }
        }
    }

    fn flush_now(&self) -> Result<(), Fault> {
        self.check_writable()?;
        // Older epochs too: writes they admitted may be newer than the last flush.
        self.flush_epochs(&self.layers().epochs)
    }

    /// Makes everything in `epochs` durable; they are given newest first. Blocks.
    pub(super) fn flush_epochs(&self, epochs: &[Arc<Epoch>]) -> Result<(), Fault> {
        for epoch in epochs.iter().rev() {
            match epoch.flush() {
                Ok(()) => {}
                Err(FlushError::Again(Fault::NoSpace)) if self.node.cache.give_back(1 << 20) > 0 => {
                    epoch.flush().map_err(|e| self.flush_failed(e))?;
                }
                Err(error) => return Err(self.flush_failed(error)),
            }
        }
        Ok(())
    }

    pub(super) fn flush_failed(&self, error: FlushError) -> Fault {
        match error {
            FlushError::Again(fault) => fault,
            FlushError::Final { what, of_disk } => {
                self.fail(what.clone());
                if of_disk && let Some(disk) = &self.node.config.disk {
                    disk.fail(&self.dir, what.clone());
                }
                Fault::Failed(what)
            }
        }
    }
}

/// Whether the record in memory changes when storing it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apply {
    /// It only changes once it is durable.
    IfStored,
    /// It changes in any case, because it says what has already happened. The next record that is stored includes it.
    Anyway,
}

/// A write in progress. Dropping it ends the write.
pub(crate) struct Admission {
    layers: Arc<Layers>,
}

impl Admission {
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.layers.current().leave();
    }
}

/// Called with the result of a flush.
pub(crate) type Waiter = Box<dyn FnOnce(Result<(), Fault>) + Send>;

#[derive(Default)]
struct Gate {
    held: AtomicBool,
    released: tokio::sync::Notify,
    /// Writes that were held and are not answered yet.
    unanswered: AtomicU64,
    answered: tokio::sync::Notify,
    /// The longest that a write of the present hold had to wait for its answer, microseconds.
    longest_us: AtomicU64,
}

impl Gate {
    fn held_write(&self) -> HeldWrite<'_> {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        HeldWrite { gate: self, since: Instant::now() }
    }

    async fn longest_held_us(&self, limit: Duration) -> u64 {
        let all_answered = async {
            loop {
                let woken = self.answered.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                if self.unanswered.load(Ordering::SeqCst) == 0 {
                    return;
                }
                woken.await;
            }
        };
        let answered = tokio::time::timeout(limit, all_answered).await.is_ok();
        let longest_us = self.longest_us.load(Ordering::SeqCst);
        if answered { longest_us } else { longest_us.max(micros(limit)) }
    }
}

/// A write that a cut held up, until its answer. Dropping it notes how long that took.
pub(super) struct HeldWrite<'a> {
    gate: &'a Gate,
    since: Instant,
}

impl Drop for HeldWrite<'_> {
    fn drop(&mut self) {
        self.gate.longest_us.fetch_max(micros(self.since.elapsed()), Ordering::SeqCst);
        if self.gate.unanswered.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.answered.notify_waiters();
        }
    }
}

/// A time in microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("no write waits for centuries")
}

#[derive(Default)]
struct Flusher {
    waiting: Vec<Waiter>,
    running: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut reports what writers saw: the time until the last held write was answered, which may be long after writes were
    /// let go.
    #[tokio::test]
    async fn the_pause_lasts_until_the_last_held_write_is_answered() {
        let gate = Arc::new(Gate::default());
        assert_eq!(gate.longest_held_us(Duration::from_secs(5)).await, 0, "nobody waited");
        let slow = gate.clone();
        let (begun, ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _held = slow.held_write();
            begun.send(()).expect("the test waits");
            std::thread::sleep(Duration::from_millis(80));
        });
        ready.await.expect("the write is held");
        assert!(gate.longest_held_us(Duration::from_secs(5)).await >= 80_000);
        let _never_answered = gate.held_write();
        assert!(gate.longest_held_us(Duration::from_millis(100)).await >= 100_000, "the limit is what is known");
    }
}
