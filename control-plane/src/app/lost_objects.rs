//! [`LostObjects`]: the objects of which no node has a copy, as far as this process knows, and the versions that need them.
//!
//! Nothing of it is stored: nodes tell what they lost until it is back, and a read finds it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use muster_api::{
    Timestamp, VersionId,
    pool::{LOST_VERSIONS_MAX, LostVersion},
};
use storage_core::{ObjectName, lock};

/// Most names from reads that are remembered. What is lost beyond that is found by the next reads.
const READ_MAX: usize = 1024;

/// What is lost for good, unless it is stored again.
#[derive(Debug, Default)]
pub struct LostObjects(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Found lost by reads of this process.
    read: BTreeSet<ObjectName>,
    /// When these were looked for again.
    read_at: Option<Timestamp>,
    /// What was lost when the versions were last looked through.
    looked: BTreeSet<ObjectName>,
    versions: BTreeMap<VersionId, LostVersion>,
}

/// What changed between two looks.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Versions that lost objects, or other ones than before.
    pub(super) lost: Vec<LostVersion>,
    /// Versions that have all their objects again, or are gone.
    pub(super) back: Vec<LostVersion>,
}

impl LostObjects {
    /// A read found that no node has a copy of these.
    pub(super) fn note_read(&self, names: &[ObjectName]) {
        let read = &mut lock(&self.0).read;
        let room = READ_MAX.saturating_sub(read.len());
        read.extend(names.iter().take(room));
    }

    /// The names that reads found, if it is time to look for them again.
    pub(super) fn read_again(&self, now: Timestamp, every_ms: i64) -> Option<Vec<ObjectName>> {
        let mut state = lock(&self.0);
        if state.read.is_empty() || state.read_at.is_some_and(|at| now.ms_since(at) < every_ms) {
            return None;
        }
        state.read_at = Some(now);
        Some(state.read.iter().copied().collect())
    }

    /// These are not lost any more.
    pub(super) fn forget_read(&self, names: &[ObjectName]) {
        let mut state = lock(&self.0);
        names.iter().for_each(|name| {
            state.read.remove(name);
        });
    }

    /// All that is lost, with what nodes tell of; none if the versions were looked through for the same.
    pub(super) fn to_look_for(&self, told: impl IntoIterator<Item = ObjectName>) -> Option<BTreeSet<ObjectName>> {
        let state = lock(&self.0);
        let names: BTreeSet<ObjectName> = state.read.iter().copied().chain(told).collect();
        (names != state.looked).then_some(names)
    }

    /// The versions were looked through.
    pub(super) fn settle(&self, looked: BTreeSet<ObjectName>, found: Vec<LostVersion>) -> Changed {
        let mut state = lock(&self.0);
        state.looked = looked;
        let mut before = std::mem::take(&mut state.versions);
        let mut changed = Changed::default();
        for mut version in found {
            match before.remove(&version.version) {
                Some(known) if known.objects == version.objects => version.since = known.since,
                _ => changed.lost.push(version.clone()),
            }
            state.versions.insert(version.version, version);
        }
        changed.back = before.into_values().collect();
        changed
    }

    /// Objects that a version lacks.
    #[must_use]
    pub fn of(&self, version: VersionId) -> u64 {
        lock(&self.0).versions.get(&version).map_or(0, |version| version.objects)
    }

    /// The first versions that lack objects.
    #[must_use]
    pub fn first(&self) -> Vec<LostVersion> {
        lock(&self.0).versions.values().take(LOST_VERSIONS_MAX).cloned().collect()
    }
}
