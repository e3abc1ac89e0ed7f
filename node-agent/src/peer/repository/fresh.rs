//! [`Fresh`]: the objects that just came into this node's share, so that the repository gets them soon.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use storage_core::{ObjectName, lock};
use tokio::{sync::Notify, time::Instant};

/// Most names that are remembered until they are taken. More of them cost a pass over all objects.
const NAMES_MAX: usize = 100_000;

/// Objects that came since the last look. Nothing is remembered while nobody looks.
#[derive(Debug, Default)]
pub struct Fresh {
    wanted: AtomicBool,
    names: Mutex<Names>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Names {
    since: BTreeMap<ObjectName, Instant>,
    too_many: bool,
}

impl Fresh {
    /// Whether somebody looks.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// These came.
    pub fn came(&self, names: impl IntoIterator<Item = ObjectName>) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        {
            let mut known = lock(&self.names);
            for name in names {
                if known.since.len() >= NAMES_MAX {
                    known.too_many = true;
                    break;
                }
                known.since.entry(name).or_insert(now);
            }
        }
        self.came.notify_one();
    }

    /// What came since the last call, and whether there was more than that.
    pub(super) fn take(&self) -> (BTreeMap<ObjectName, Instant>, bool) {
        let Names { since, too_many } = std::mem::take(&mut *lock(&self.names));
        (since, too_many)
    }

    /// Number of objects that wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.names).since.len()
    }

    /// Waits until something came.
    pub(super) async fn next(&self) {
        self.came.notified().await;
    }
}
