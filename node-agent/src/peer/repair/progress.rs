//! [`Progress`]: how far the repair is, for heartbeats, status and metrics.

use std::{sync::Mutex, time::Duration};

use muster_api::node::{ObjectAmount, Repair};
use muster_pool::HandedOver;
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
    /// The membership record of the newest pass ([`muster_pool::PoolClient::record`]).
    record: String,
    /// Objects compared since the agent began.
    compared: u64,
    /// When the rates were measured last, and what was done by then.
    measured: Option<(Instant, Done)>,
}

/// What was done since the agent began.
#[derive(Clone, Copy)]
struct Done {
    copied_bytes: u64,
    handed_over_bytes: u64,
    compared: u64,
}

impl Progress {
    /// A pass begins under this membership record.
    pub(super) fn begin(&self, record: String, membership_epoch: u64, objects: u64) {
        let mut state = lock(&self.0);
        let is_same = state.record == record;
        let now = state.now.get_or_insert_default();
        *now = Repair {
            membership_epoch,
            unchecked_objects: objects,
            missing: ObjectAmount::default(),
            silent_nodes: 0,
            surplus: ObjectAmount::default(),
            is_empty: now.is_empty && is_same,
            ..*now
        };
        state.record = record;
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

    /// Copies are here that belong to other nodes.
    pub(super) fn surplus(&self, objects: u64, bytes: u64) {
        self.change(|now| {
            now.surplus.objects += objects;
            now.surplus.bytes += bytes;
        });
    }

    /// So much of that stays for now.
    pub(super) fn kept(&self, kept: ObjectAmount) {
        self.change(|now| now.surplus = kept);
    }

    /// What became of copies that belong to other nodes.
    pub(super) fn handed_over(&self, done: &HandedOver) {
        self.change(|now| {
            now.handed_over.objects += done.objects;
            now.handed_over.bytes += done.bytes;
            now.surplus.objects = now.surplus.objects.saturating_sub(done.objects);
            now.surplus.bytes = now.surplus.bytes.saturating_sub(done.bytes);
        });
    }

    /// Grows with everything that gets on.
    pub(super) fn moved(&self) -> u64 {
        lock(&self.0).now.map_or(0, |now| now.copied.objects + now.handed_over.objects)
    }

    /// The pass has compared this many objects more.
    pub(super) fn checked(&self, objects: u64) {
        lock(&self.0).compared += objects;
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

    /// The pass has handed over what it could.
    pub(super) fn ended(&self, silent_nodes: usize, is_empty: bool) {
        self.change(|now| {
            now.silent_nodes = u64_from(silent_nodes);
            now.is_empty = is_empty;
        });
    }

    /// None before the first pass.
    pub(super) fn read(&self) -> Option<Repair> {
        let mut state = lock(&self.0);
        let now = state.now?;
        let at = Instant::now();
        let done =
            Done { copied_bytes: now.copied.bytes, handed_over_bytes: now.handed_over.bytes, compared: state.compared };
        let (since, before) = *state.measured.get_or_insert((at, done));
        let elapsed = at.duration_since(since);
        if elapsed < RATE_OVER {
            return Some(now);
        }
        let per_s = |amount: u64| u64::try_from(u128::from(amount) * 1000 / elapsed.as_millis()).unwrap_or(u64::MAX);
        state.measured = Some((at, done));
        state.now = Some(Repair {
            bytes_per_s: per_s(done.copied_bytes - before.copied_bytes),
            handed_over_bytes_per_s: per_s(done.handed_over_bytes - before.handed_over_bytes),
            objects_per_s: per_s(done.compared - before.compared),
            ..now
        });
        state.now
    }

    fn change(&self, change: impl FnOnce(&mut Repair)) {
        change(lock(&self.0).now.get_or_insert_default());
    }
}
