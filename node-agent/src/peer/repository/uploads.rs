//! Writing what the repository lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use muster_pool::{Avoided, Repository};
use storage_core::{
    ObjectName, RecordHeader,
    repository::WriteMode,
    store::{ChunkStore as _, Listed, StoreError},
    units::u64_from,
};
use tokio::time::Instant;

use super::{CALL, Done, Index, Keeper, KeeperError, PASS_EVERY, blocking, listing::LISTED, lock};
use crate::pace::give_way_for;

/// Objects that a pass looks at together.
const BATCH: usize = 4096;
/// Objects that are written between two looks at what came.
const UPLOADS: usize = 64;
/// Writes under way at a time. Each has an object in memory.
const WRITES: usize = 8;
/// Longest that a write waits for reads that are under way. Much may wait to be written, and the repository is far away anyway.
const GIVE_WAY: Duration = Duration::from_millis(100);
/// Writes begin for so long before something else gets its turn: the sweep waits for it.
const TURN: Duration = Duration::from_secs(5);
/// How long the best node for an object has before others look whether they have to write it. A put sends it to several nodes at
/// once, and those that have it first would write it, too.
const FIRST_WRITES: Duration = Duration::from_secs(2);
/// While so many objects wait, the pass does.
const WAITING_MAX: usize = 200_000;

/// An object that this node has to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) stored_bytes: u64,
    /// Whether the repository may have it.
    pub(super) ask_first: bool,
}

impl Keeper {
    /// Of what came into the share since the last look, finds what this node has to write.
    pub(super) async fn sort_fresh(&self, repository: &Repository, index: &Arc<Index>) -> Result<(), KeeperError> {
        let (came, too_many) = self.share.fresh().take();
        let names: Vec<ObjectName> = came.keys().copied().collect();
        let keeps = self.pool.keeps(&names);
        let came = {
            let mut state = lock(&self.state);
            if too_many {
                state.pass = Some((None, 0));
            }
            let (mut now, mut later) = (BTreeMap::new(), std::mem::take(&mut state.later));
            for ((name, since), keeps) in came.into_iter().zip(keeps) {
                if keeps {
                    now.insert(name, since)
                } else {
                    later.insert(name, since)
                };
            }
            now.extend(later.extract_if(.., |_, since| since.elapsed() >= FIRST_WRITES));
            state.later = later;
            now
        };
        if came.is_empty() {
            return Ok(());
        }
        let (share, names): (_, Vec<ObjectName>) = (self.share.clone(), came.keys().copied().collect());
        let noted = index.clone();
        let find = move || -> Result<(Vec<Listed>, bool), KeeperError> {
            noted.not_evicted(&names)?;
            let found: Result<Vec<Option<Listed>>, StoreError> = names.iter().map(|name| share.find(name)).collect();
            Ok((found?.into_iter().flatten().collect(), noted.word(LISTED)?.is_some()))
        };
        let (held, knows_all) = blocking(find).await?;
        // Whoever writes through has written it. A node that never listed the repository does not know what is there: what comes
        // to a node of a cluster that is rebuilt mostly comes from there.
        let ask_first = repository.settings().write == WriteMode::Through || !knows_all;
        for part in held.chunks(BATCH) {
            self.add_waiting(index, part, ask_first, |name| came.get(name).copied()).await?;
        }
        Ok(())
    }

    /// The next part of a pass over all objects of this node.
    pub(super) async fn scan(&self, index: &Arc<Index>) -> Result<Done, KeeperError> {
        let (after, seen) = {
            let state = lock(&self.state);
            let Some(pass) = state.pass else { return Ok(Done::All) };
            if state.waiting.len() >= WAITING_MAX {
                return Ok(Done::All);
            }
            pass
        };
        let share = self.share.clone();
        let held = blocking(move || share.list(after.as_ref(), BATCH)).await?;
        let Some(last) = held.last() else {
            let mut state = lock(&self.state);
            state.pass = None;
            state.pass_at = Instant::now() + PASS_EVERY;
            return Ok(Done::All);
        };
        let next = Some((Some(last.name), seen + u64_from(held.len())));
        // Their copies did not go before the process ended, or came back.
        let (noted, names) = (index.clone(), held.iter().map(|object| object.name).collect::<Vec<_>>());
        blocking(move || noted.not_evicted(&names)).await?;
        self.add_waiting(index, &held, true, |_| None).await?;
        let mut state = lock(&self.state);
        // A new membership record may have begun the pass anew meanwhile.
        if state.pass == Some((after, seen)) {
            state.pass = next;
        }
        Ok(Done::More)
    }

    /// Adds those of these objects of this node that it has to write.
    async fn add_waiting(
        &self,
        index: &Arc<Index>,
        held: &[Listed],
        ask_first: bool,
        since: impl Fn(&ObjectName) -> Option<Instant>,
    ) -> Result<(), KeeperError> {
        let (asked, names) = (index.clone(), held.iter().map(|object| object.name).collect::<Vec<_>>());
        let has = blocking(move || asked.has(&names)).await?;
        let lacking: Vec<Listed> = held.iter().zip(has).filter(|(_, has)| !has).map(|(object, _)| *object).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let uploads = self.pool.uploads(&lacking, &Avoided::default()).await;
        let names: Vec<ObjectName> = lacking.iter().map(|object| object.name).collect();
        let keeps = self.pool.keeps(&names);
        let now = Instant::now();
        let mut state = lock(&self.state);
        for ((object, uploads), keeps) in lacking.iter().zip(uploads).zip(keeps) {
            if uploads {
                let waiting = Waiting {
                    since: since(&object.name).unwrap_or(now),
                    stored_bytes: object.stored_bytes,
                    // In the place of a node that is silent, that one may have written it.
                    ask_first: ask_first || !keeps,
                };
                state.waiting.entry(object.name).or_insert(waiting);
            }
        }
        Ok(())
    }

    /// Writes some of what waits.
    pub(super) async fn upload(&self, repository: &Arc<Repository>, index: &Arc<Index>) -> Result<Done, KeeperError> {
        let settled = self.is_settled();
        let some: Vec<(ObjectName, Waiting)> = {
            let mut state = lock(&self.state);
            if settled {
                for name in std::mem::take(&mut state.again) {
                    let waiting = Waiting { since: Instant::now(), stored_bytes: 0, ask_first: true };
                    state.waiting.entry(name).or_insert(waiting);
                }
            }
            state.waiting.iter().take(UPLOADS).map(|(name, waiting)| (*name, *waiting)).collect()
        };
        if some.is_empty() {
            return Ok(Done::All);
        }
        let _turn = self.turn(repository).await?;
        // After a failure, or when the turn is over, what is under way is waited for, and nothing else begins.
        let (stopped, until) = (AtomicBool::new(false), Instant::now() + TURN);
        let upload = |(name, waiting): (ObjectName, Waiting)| {
            let stopped = &stopped;
            async move {
                if stopped.load(Ordering::Relaxed) || Instant::now() >= until {
                    return None;
                }
                Some((name, self.upload_one(repository, name, waiting.ask_first).await))
            }
        };
        let mut uploaded = stream::iter(some).map(upload).buffer_unordered(WRITES);
        let (mut there, mut gone, mut failed) = (Vec::new(), Vec::new(), None);
        while let Some(done) = uploaded.next().await {
            match done {
                Some((name, Ok(Some(bytes)))) => there.push((name, bytes)),
                Some((name, Ok(None))) => gone.push(name),
                Some((_, Err(error))) => {
                    stopped.store(true, Ordering::Relaxed);
                    failed = Some(error);
                }
                None => {}
            }
        }
        drop(uploaded);
        let names: Vec<ObjectName> = there.iter().map(|(name, _)| *name).chain(gone).collect();
        let noted = index.clone();
        blocking(move || noted.note(&there)).await?;
        {
            let mut state = lock(&self.state);
            for name in &names {
                state.waiting.remove(name);
            }
            if !settled {
                state.again.extend(names);
            }
        }
        failed.map_or(Ok(Done::More), Err)
    }

    /// Sees to it that the repository has an object. Returns the length of its body; none if this node no longer has it.
    async fn upload_one(
        &self,
        repository: &Repository,
        name: ObjectName,
        ask_first: bool,
    ) -> Result<Option<u64>, KeeperError> {
        give_way_for(&self.pool, GIVE_WAY).await;
        let share = self.share.clone();
        let Some(found) = blocking(move || share.find(&name)).await? else { return Ok(None) };
        let bytes = found.stored_bytes + u64_from(RecordHeader::BYTES);
        if ask_first && repository.shown_len(name, Instant::now() + CALL).await? == Some(bytes) {
            return Ok(Some(bytes));
        }
        self.write(repository, name).await
    }

    /// Writes an object, whether it is there or not.
    async fn write(&self, repository: &Repository, name: ObjectName) -> Result<Option<u64>, KeeperError> {
        let share = self.share.clone();
        let Some(record) = blocking(move || share.get(&name)).await? else { return Ok(None) };
        repository.put(&record, Instant::now() + CALL).await?;
        Ok(Some(u64_from(record.wire_len())))
    }

    /// Writes those of this node's objects again whose bodies turned out to be bad. What this node does not have may be lost.
    pub(super) async fn replace_bad(
        &self,
        repository: &Arc<Repository>,
        index: &Arc<Index>,
    ) -> Result<(), KeeperError> {
        // What cannot be replaced now stays a suspect.
        let bad: BTreeSet<ObjectName> = repository.take_bad();
        if bad.is_empty() {
            return Ok(());
        }
        lock(&self.state).lost.suspect(bad.iter().copied());
        let _turn = self.turn(repository).await?;
        let (forgotten, names) = (index.clone(), bad.iter().copied().collect::<Vec<_>>());
        blocking(move || forgotten.forget(&names)).await?;
        for name in bad {
            if let Some(bytes) = self.write(repository, name).await? {
                tracing::info!(object.name = %name, "a bad body of the repository was replaced");
                lock(&self.state).lost.is_good(&name);
                let noted = index.clone();
                blocking(move || noted.note(&[(name, bytes)])).await?;
            }
        }
        Ok(())
    }
}
