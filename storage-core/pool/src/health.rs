//! What a client knows about each node: how many requests are under way there, and whether it failed lately.

use std::{
    error::Error,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderMap;
use storage_core::lock::lock;
use tokio::{sync::Semaphore, time::Instant};

use crate::{limits::PoolLimits, protocol::READS_HEADER, untimely::Untimely};

/// Pause after the first failure. It doubles with each further one.
const SUSPECT_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after failures, however many there were.
const SUSPECT_MOST: Duration = Duration::from_secs(30);
/// Pause after a request that had to be hedged. Each try after it costs one hedge.
const SUSPECT_SLOW: Duration = Duration::from_secs(3);
/// Pause after a node said that it is full.
const FULL: Duration = Duration::from_secs(5);

/// One node as this client has seen it. A suspect node is asked last, never left out.
pub(crate) struct Health {
    /// Permits for gets, which bound how many run at a time.
    pub(crate) gets: Semaphore,
    /// Permits for puts. They are apart, so that writing never starves reading.
    pub(crate) puts: Semaphore,
    trouble: Mutex<Trouble>,
    /// Whether it said the last time that somebody waits for objects there.
    has_reads: AtomicBool,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    suspect_until: Option<Instant>,
    full_until: Option<Instant>,
    untimely: Option<(Untimely, Instant)>,
}

impl Health {
    pub(crate) fn new(limits: &PoolLimits) -> Self {
        Self {
            gets: Semaphore::new(limits.per_node),
            puts: Semaphore::new((limits.per_node / 2).max(1)),
            trouble: Mutex::default(),
            has_reads: AtomicBool::new(false),
        }
    }

    /// What the head of an answer says of the node beside the answer.
    pub(crate) fn hear(&self, headers: &HeaderMap) {
        self.has_reads.store(headers.contains_key(READS_HEADER), Relaxed);
    }

    /// Whether somebody waits for objects there, as far as the node said.
    pub(crate) fn has_reads(&self) -> bool {
        self.has_reads.load(Relaxed)
    }

    /// A request succeeded: the node is no longer suspect.
    pub(crate) fn well(&self) {
        let mut trouble = lock(&self.trouble);
        trouble.failures = 0;
        trouble.suspect_until = None;
        trouble.untimely = None;
    }

    /// Notes whether a connection failed because of somebody's clock.
    pub(crate) fn not_connected(&self, error: &(dyn Error + 'static)) {
        if let Some(untimely) = Untimely::of(error) {
            lock(&self.trouble).untimely = Some((untimely, Instant::now()));
        }
    }

    /// Set while connections fail because of somebody's clock.
    pub(crate) fn untimely(&self) -> Option<Untimely> {
        let seen = lock(&self.trouble).untimely.clone();
        seen.filter(|(untimely, seen)| untimely.lasts(*seen)).map(|(untimely, _)| untimely)
    }

    /// A request failed: the node is suspect for a while, longer after each failure.
    pub(crate) fn failed(&self) {
        let mut trouble = lock(&self.trouble);
        let pause = (SUSPECT_FIRST * (1 << trouble.failures.min(5))).min(SUSPECT_MOST);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.suspect_until = Some(Instant::now() + pause);
    }

    /// A request took so long that another node was asked as well.
    pub(crate) fn slow(&self) {
        lock(&self.trouble).suspect_until = Some(Instant::now() + SUSPECT_SLOW);
    }

    /// The node has no room for new objects.
    pub(crate) fn full(&self) {
        lock(&self.trouble).full_until = Some(Instant::now() + FULL);
    }

    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        lock(&self.trouble).suspect_until.is_some_and(|until| now < until)
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        lock(&self.trouble).full_until.is_some_and(|until| now < until)
    }
}
