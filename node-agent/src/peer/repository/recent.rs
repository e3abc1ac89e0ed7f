//! [`Recent`]: which objects of this node's share were read lately, in a few MiB, however many objects there are.
//!
//! Each object has one bit of a table, at a place that follows from its name, so a few others share its bit: an object may
//! count as read that was not, and never the other way round. A second table has the bits of the age before. What is in
//! neither was not read since at least one age. An age ends when the eviction has been through all objects, or after a day.

use std::{
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use storage_core::ObjectName;

/// Bits of a table: 1 MiB.
const BITS: usize = 1 << 23;
/// Longest age.
const AGE: Duration = Duration::from_secs(86_400);

/// The objects that were read lately. Nothing is remembered while nobody asks.
pub struct Recent {
    tables: RwLock<Option<Tables>>,
}

struct Tables {
    now: Box<[AtomicU64]>,
    before: Box<[AtomicU64]>,
    since: Instant,
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { tables: RwLock::new(None) }
    }
}

impl Recent {
    /// Whether somebody asks. The first time nothing counts as read.
    pub(super) fn want(&self, wanted: bool) {
        let is_there = self.read(|tables| tables.is_some());
        if wanted != is_there {
            let tables = wanted.then(|| Tables { now: table(), before: table(), since: Instant::now() });
            *self.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner) = tables;
        }
    }

    /// The object was read.
    pub fn mark(&self, name: &ObjectName) {
        self.read(|tables| {
            if let Some(tables) = tables {
                let (word, bit) = place(name);
                tables.now[word].fetch_or(bit, Relaxed);
            }
        });
    }

    /// Whether it was read in this age or the one before.
    pub(super) fn has(&self, name: &ObjectName) -> bool {
        let (word, bit) = place(name);
        let is_set = |table: &[AtomicU64]| table[word].load(Relaxed) & bit != 0;
        self.read(|tables| tables.is_some_and(|tables| is_set(&tables.now) || is_set(&tables.before)))
    }

    /// A new age begins.
    pub(super) fn age(&self) {
        if let Some(tables) = &mut *self.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner) {
            tables.before = std::mem::replace(&mut tables.now, table());
            tables.since = Instant::now();
        }
    }

    /// A new age begins if this one has lasted long.
    pub(super) fn age_if_due(&self) {
        if self.read(|tables| tables.is_some_and(|tables| tables.since.elapsed() >= AGE)) {
            self.age();
        }
    }

    fn read<T>(&self, work: impl FnOnce(Option<&Tables>) -> T) -> T {
        work(self.tables.read().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref())
    }
}

fn table() -> Box<[AtomicU64]> {
    (0..BITS / 64).map(|_| AtomicU64::new(0)).collect()
}

/// Names are hashes, so any of their bytes do.
fn place(name: &ObjectName) -> (usize, u64) {
    let [a, b, c, ..] = *name.as_bytes();
    let bit = usize::from(a) << 15 | usize::from(b) << 7 | usize::from(c) >> 1;
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_counts_for_one_to_two_ages() {
        let recent = Recent::default();
        let name = |n: u8| ObjectName::from_bytes([n; 32]);
        recent.mark(&name(1));
        assert!(!recent.has(&name(1)), "nobody asked");
        recent.want(true);
        recent.mark(&name(1));
        recent.want(true);
        recent.age_if_due();
        assert!(recent.has(&name(1)) && !recent.has(&name(2)));
        recent.age();
        recent.mark(&name(2));
        assert!(recent.has(&name(1)) && recent.has(&name(2)));
        recent.age();
        assert!(!recent.has(&name(1)) && recent.has(&name(2)));
        recent.want(false);
        assert!(!recent.has(&name(2)));
        assert!(place(&name(255)).0 < BITS / 64);
    }
}
