//! A store in memory for tests and simulations. It behaves like the segment store, except that it ends with the process.
//! [`MemoryStore::crash`] loses what was not synced, as a power cut would.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use super::{BadCopies, BadCopy, ChunkStore, Listed, PutSummary, StoreError, Unreadable, Usage, proven};
use crate::{ObjectName, Record, RecordHeader, lock};

/// A [`ChunkStore`] in memory, for tests. Nothing of it is durable.
#[derive(Debug, Default)]
pub struct MemoryStore {
    limit_bytes: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: BTreeMap<ObjectName, Record>,
    /// For each name that changed since the last sync, what `now` had for it then. None: it was not there.
    unsynced: BTreeMap<ObjectName, Option<Record>>,
    bad: BadCopies,
    /// Objects that a test made unreadable.
    broken: BTreeSet<ObjectName>,
    /// The objects that do not count: whether somebody found them so, or only doubts them.
    unread: BTreeMap<ObjectName, bool>,
}

impl MemoryStore {
    /// An empty store without a limit.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An empty store that takes at most this many bytes, headers included.
    pub fn with_limit(limit_bytes: u64) -> MemoryStore {
        MemoryStore { limit_bytes: Some(limit_bytes), state: Mutex::default() }
    }

    /// Forgets what was not synced, as a power cut would.
    pub fn crash(&self) {
        let mut state = self.state();
        for (name, before) in std::mem::take(&mut state.unsynced) {
            match before {
                Some(record) => state.now.insert(name, record),
                None => state.now.remove(&name),
            };
        }
    }

    /// Changes a byte of a stored copy, as a failing disk would. The answer is whether the object was there.
    pub fn damage(&self, name: &ObjectName) -> bool {
        let mut state = self.state();
        let Some(record) = state.now.get_mut(name) else { return false };
        let mut stored = record.stored().to_vec();
        *stored.first_mut().expect("no object is empty") ^= 1;
        *record = Record::from_parts(record.header(), stored.into()).expect("as many bytes as before");
        true
    }

    /// Makes the copy of an object unreadable, as a bad sector would, or readable again.
    pub fn set_unreadable(&self, name: &ObjectName, unreadable: bool) {
        let mut state = self.state();
        if unreadable {
            state.broken.insert(*name);
        } else {
            state.broken.remove(name);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code below can panic half-way through a change.
        lock(&self.state)
    }
}

impl MemoryStore {
    /// Reads what is here before somebody relies on it.
    fn look_at(&self, names: impl IntoIterator<Item = ObjectName>) -> Result<(), StoreError> {
        for name in names {
            match self.get(&name) {
                Ok(_) | Err(StoreError::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl State {
    fn disk_bytes(&self) -> u64 {
        self.now.values().map(|r| r.wire_len() as u64).sum()
    }

    fn replace(&mut self, name: ObjectName, record: Option<Record>) {
        let before = match record {
            Some(record) => self.now.insert(name, record),
            None => self.now.remove(&name),
        };
        self.unsynced.entry(name).or_insert(before);
        // Whatever is here now is somewhere else on the disk.
        self.broken.remove(&name);
        self.unread.remove(&name);
    }

    fn stamp(&mut self, name: &ObjectName, round: u64) -> bool {
        if self.unread.contains_key(name) {
            return false;
        }
        let Some(record) = self.now.get(name) else { return false };
        if record.body().round < round {
            let stamped = record.clone().with_round(round);
            self.replace(*name, Some(stamped));
        }
        true
    }
}

fn listed(record: &Record) -> Listed {
    let (body, stored_bytes) = (record.body(), record.stored().len() as u64);
    Listed { name: record.name(), kind: body.kind, round: body.round, stored_bytes }
}

impl ChunkStore for MemoryStore {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        records.iter().try_for_each(proven)?;
        self.look_at(records.iter().map(Record::name))?;
        let mut state = self.state();
        let is_here =
            |state: &State, name: &ObjectName| state.now.contains_key(name) && !state.unread.contains_key(name);
        let new: BTreeMap<ObjectName, &Record> =
            records.iter().filter(|r| !is_here(&state, &r.name())).map(|r| (r.name(), r)).collect();
        let wanted_bytes = new.values().map(|r| r.wire_len() as u64).sum();
        let used_bytes = state.disk_bytes();
        if self.limit_bytes.is_some_and(|limit| !new.is_empty() && used_bytes + wanted_bytes > limit) {
            return Err(StoreError::Full { used_bytes, wanted_bytes, limit_bytes: self.limit_bytes });
        }
        let mut done = PutSummary::default();
        for record in records {
            if state.stamp(&record.name(), round) {
                done.touched += 1;
            } else {
                done.stored += 1;
                done.stored_bytes += record.stored().len() as u64;
                state.replace(record.name(), Some(record.clone().with_round(round)));
            }
        }
        Ok(done)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.look_at(names.iter().copied())?;
        let mut state = self.state();
        Ok(names.iter().map(|name| state.stamp(name, round)).collect())
    }

    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        let mut state = self.state();
        let mut remove = |name: &ObjectName| {
            let bytes = state.now.get(name).map(Record::body).filter(|body| body.round < below)?.stored_len;
            state.replace(*name, None);
            Some(bytes.into())
        };
        Ok(names.iter().map(&mut remove).collect())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.state().unsynced.clear();
        Ok(())
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        let found = {
            let mut state = self.state();
            if state.now.contains_key(name) && state.broken.contains(name) {
                state.unread.insert(*name, true);
                let source = io::Error::other("a bad sector");
                return Err(StoreError::Io { op: "read", file: "memory".to_owned(), source });
            }
            state.unread.remove(name);
            state.now.get(name).cloned()
        };
        let Some(record) = found else { return Ok(None) };
        let stored_bytes = record.stored().len() as u64;
        match record.prove() {
            Ok(record) => Ok(Some(record)),
            Err(reason) => {
                let mut state = self.state();
                state.replace(*name, None);
                state.bad.add(BadCopy { name: *name, stored_bytes, reason });
                Ok(None)
            }
        }
    }

    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        let state = self.state();
        Ok(state.now.get(name).filter(|_| !state.unread.contains_key(name)).map(listed))
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let counting = state.now.range((from, Bound::Unbounded)).filter(|(name, _)| !state.unread.contains_key(name));
        Ok(counting.take(count_max).map(|(_, r)| listed(r)).collect())
    }

    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.state().now.range((from, Bound::Unbounded)).take(count_max).map(|(_, r)| listed(r)).collect())
    }

    fn unreadable(&self) -> Vec<Unreadable> {
        let state = self.state();
        let unread = state.unread.iter().filter_map(|(name, failed)| Some((*name, state.now.get(name)?, *failed)));
        unread
            .map(|(name, r, read_failed)| Unreadable { name, stored_bytes: r.stored().len() as u64, read_failed })
            .collect()
    }

    fn doubt(&self, names: &[ObjectName]) {
        let mut state = self.state();
        let here: Vec<ObjectName> = names.iter().filter(|name| state.now.contains_key(name)).copied().collect();
        for name in here {
            state.unread.entry(name).or_insert(false);
        }
    }

    fn usage(&self) -> Usage {
        let state = self.state();
        let disk_bytes = state.disk_bytes();
        let objects = state.now.len() as u64;
        Usage {
            objects,
            bytes: disk_bytes - objects * RecordHeader::BYTES as u64,
            disk_bytes,
            limit_bytes: self.limit_bytes,
            bad_copies: state.bad.count,
            bad_bytes: state.bad.bytes,
        }
    }

    fn take_bad_copies(&self) -> Vec<BadCopy> {
        std::mem::take(&mut self.state().bad.copies)
    }
}
