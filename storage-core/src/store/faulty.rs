//! A store that fails on demand, for tests of everything that uses a store.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use super::{BadCopy, ChunkStore, Listed, PutSummary, StoreError, Unreadable, Usage};
use crate::{ObjectName, Record, VerifiedObject, lock};

/// The calls of a [`ChunkStore`] that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`ChunkStore::put`]
    Put,
    /// [`ChunkStore::touch`]
    Touch,
    /// [`ChunkStore::remove`] and [`ChunkStore::reclaim`]
    Remove,
    /// [`ChunkStore::sync`]. When it fails, the store stops, as a real one does.
    Sync,
    /// [`ChunkStore::get`] and [`ChunkStore::load`]
    Get,
    /// [`ChunkStore::contains`] and [`ChunkStore::list`]
    Look,
}

/// The failure that a test wants a call to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk cannot be read or written.
    Io,
    /// The pool has no room for what is put.
    Full,
}

/// Passes calls on to another store, except those that a test makes fail.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: BTreeMap<Call, u64>,
    faults: Vec<Planned>,
    delays: BTreeMap<Call, Duration>,
    stopped: bool,
}

#[derive(Debug)]
struct Planned {
    call: Call,
    from: u64,
    until: u64,
    fault: Fault,
}

impl<S: ChunkStore> FaultyStore<S> {
    /// A store without any faults yet.
    pub fn new(inner: S) -> FaultyStore<S> {
        FaultyStore { inner, plan: Mutex::default() }
    }

    /// Makes `times` calls fail, after `after` more calls that do not.
    pub fn fail(&self, call: Call, after: u64, times: u64, fault: Fault) {
        let mut plan = self.plan();
        let from = plan.calls.get(&call).copied().unwrap_or(0) + after;
        plan.faults.push(Planned { call, from, until: from.saturating_add(times), fault });
    }

    /// Makes a call take at least this long, as on a slow disk.
    pub fn delay(&self, call: Call, by: Duration) {
        self.plan().delays.insert(call, by);
    }

    /// Cancels all faults and delays, and starts a stopped store again.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.faults.clear();
        plan.delays.clear();
        plan.stopped = false;
    }

    /// Number of times a call was made.
    pub fn calls(&self, call: Call) -> u64 {
        self.plan().calls.get(&call).copied().unwrap_or(0)
    }

    /// The store that calls are passed on to.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    fn enter(&self, call: Call) -> Result<(), StoreError> {
        let (delay, answer) = {
            let mut plan = self.plan();
            let number = *plan.calls.entry(call).and_modify(|n| *n += 1).or_insert(1) - 1;
            let planned = |p: &&Planned| p.call == call && (p.from..p.until).contains(&number);
            let fault = plan.faults.iter().find(planned).map(|p| p.fault);
            let writes = matches!(call, Call::Put | Call::Touch | Call::Remove | Call::Sync);
            let answer = match fault {
                _ if writes && plan.stopped => Err(StoreError::Failed { reason: "an injected fault".to_owned() }),
                None => Ok(()),
                Some(_) if call == Call::Sync => {
                    plan.stopped = true;
                    Err(StoreError::Failed { reason: "an injected fault".to_owned() })
                }
                Some(Fault::Full) => Err(StoreError::Full { used_bytes: 0, wanted_bytes: 1, limit_bytes: None }),
                Some(Fault::Io) => Err(StoreError::Io {
                    op: "use",
                    file: "a faulty store".to_owned(),
                    source: io::Error::other("an injected fault"),
                }),
            };
            (plan.delays.get(&call).copied(), answer)
        };
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
        answer
    }
}

impl<S: ChunkStore> ChunkStore for FaultyStore<S> {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        self.enter(Call::Put)?;
        self.inner.put(round, records)
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.enter(Call::Touch)?;
        self.inner.touch(round, names)
    }

    fn remove(&self, below: u64, names: &[ObjectName]) -> Result<Vec<Option<u64>>, StoreError> {
        self.enter(Call::Remove)?;
        self.inner.remove(below, names)
    }

    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> Result<u64, StoreError> {
        self.enter(Call::Remove)?;
        self.inner.reclaim(go_on)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.enter(Call::Sync)?;
        self.inner.sync()
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.enter(Call::Get)?;
        self.inner.get(name)
    }

    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        self.enter(Call::Get)?;
        self.inner.load(name)
    }

    fn find(&self, name: &ObjectName) -> Result<Option<Listed>, StoreError> {
        self.enter(Call::Look)?;
        self.inner.find(name)
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.enter(Call::Look)?;
        self.inner.list(after, count_max)
    }

    fn list_all(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.enter(Call::Look)?;
        self.inner.list_all(after, count_max)
    }

    fn unreadable(&self) -> Vec<Unreadable> {
        self.inner.unreadable()
    }

    fn doubt(&self, names: &[ObjectName]) {
        self.inner.doubt(names);
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn take_bad_copies(&self) -> Vec<BadCopy> {
        self.inner.take_bad_copies()
    }
}
