//! [`Progress`]: how far the repair is, for heartbeats, status and metrics.

use std::{sync::Mutex, time::Duration};

use muster_api::node::{ObjectAmount, Repair};
use storage_core::{lock, units::u64_from};
use tokio::time::Instant;

/// Shortest time that a rate is measured over.
const RATE_OVER: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    /// None before the first pass.
    now: Option<Repair>,
    /// When the rate was measured last, and the bytes copied by then.
    measured: Option<(Instant, u64)>,
}

impl Progress {
    /// A pass begins.
    pub(super) fn begin(&self, membership_epoch: u64, objects: u64) {
        self.change(|now| {
            *now = Repair {
                membership_epoch,
                unchecked_objects: objects,
                missing: ObjectAmount::default(),
                silent_nodes: 0,
                ..*now
            };
        });
    }

    /// Other nodes lack this.
    pub(super) fn missing(&self, objects: u64, bytes: u64) {
        self.change(|now| {
            now.missing.objects += objects;
            now.missing.bytes += bytes;
        });
    }

    /// Other nodes do not lack this any more, or another parcel has it now.
    pub(super) fn not_missing(&self, objects: u64, bytes: u64) {
        // What a check of names found may have been there before the pass that counts now began.
        self.change(|now| {
            now.missing.objects = now.missing.objects.saturating_sub(objects);
            now.missing.bytes = now.missing.bytes.saturating_sub(bytes);
        });
    }

    pub(super) fn copied(&self, objects: u64, bytes: u64) {
        self.change(|now| {
            now.copied.objects += objects;
            now.copied.bytes += bytes;
        });
    }

    /// The pass has compared this many objects more.
    pub(super) fn checked(&self, objects: u64) {
        // Objects come while the pass goes on, and are checked as well.
        self.change(|now| now.unchecked_objects = now.unchecked_objects.saturating_sub(objects));
    }

    /// The pass has compared all objects.
    pub(super) fn all_checked(&self, silent_nodes: usize) {
        self.change(|now| {
            now.unchecked_objects = 0;
            now.silent_nodes = u64_from(silent_nodes);
        });
    }

    /// None before the first pass.
    pub(super) fn read(&self) -> Option<Repair> {
        let mut state = lock(&self.0);
        let now = state.now?;
        let at = Instant::now();
        let (since, before) = *state.measured.get_or_insert((at, now.copied.bytes));
        let elapsed = at.duration_since(since);
        if elapsed < RATE_OVER {
            return Some(now);
        }
        let per_s = u128::from(now.copied.bytes - before) * 1000 / elapsed.as_millis();
        state.measured = Some((at, now.copied.bytes));
        state.now = Some(Repair { bytes_per_s: u64::try_from(per_s).unwrap_or(u64::MAX), ..now });
        state.now
    }

    fn change(&self, change: impl FnOnce(&mut Repair)) {
        change(lock(&self.0).now.get_or_insert_default());
    }
}
