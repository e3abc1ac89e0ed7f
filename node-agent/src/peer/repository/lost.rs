//! Objects that the repository should have and that nothing has: a body is bad or gone, and no node has a copy. The controller
//! is told the names (`Heartbeat::gone`), so that it can say which versions need them.
//!
//! ```text
//! a read found it absent or bad; a listing lacks it;
//! a few of those that were given up here, each minute --> suspect --no node has it, all of them answered; asked for once more-->
//!     lost  --every minute: is it back?--> forgotten
//! ```
//! A bad body that some node has a good copy of is replaced, whoever that is. Nothing is stored: a read or a listing finds
//! again what is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use muster_pool::Repository;
use storage_core::{ObjectName, store::ChunkStore as _, units::u64_from};
use tokio::time::Instant;
use tracing::{error, info};

use super::{CALL, Done, Index, Keeper, KeeperError, blocking, lock};

/// Most suspects, and most lost objects, whose names are remembered. Reads find others again.
pub(super) const NAMES_MAX: usize = 4096;
/// Suspects that are looked at together.
const BATCH: usize = 64;
/// Most names in a heartbeat.
const TOLD_MAX: usize = 256;
/// Time between two looks whether what is lost is back.
const EVERY: Duration = Duration::from_secs(60);
/// Objects that are asked for without a reason, each time.
const SPOTS: usize = 4;
/// Pause after a look in which not all nodes answered.
const AGAIN: Duration = Duration::from_secs(15);

/// What is lost, and what may be.
#[derive(Debug)]
pub(super) struct Lost {
    /// Whether each had a bad body.
    suspects: BTreeMap<ObjectName, bool>,
    lost: BTreeSet<ObjectName>,
    look_at: Instant,
    look_again_at: Instant,
    /// The last object that was asked for without a reason.
    spot: Option<ObjectName>,
}

impl Lost {
    pub(super) fn new(now: Instant) -> Self {
        Self { suspects: BTreeMap::new(), lost: BTreeSet::new(), look_at: now, look_again_at: now, spot: None }
    }

    /// These may be lost.
    pub(super) fn suspect(&mut self, names: impl IntoIterator<Item = ObjectName>, is_bad: bool) {
        for name in names {
            if self.suspects.len() < NAMES_MAX {
                *self.suspects.entry(name).or_default() |= is_bad;
            }
        }
    }

    /// Whether something is wrong with what the repository has of it.
    pub(super) fn is_doubted(&self, name: &ObjectName) -> bool {
        self.suspects.contains_key(name) || self.lost.contains(name)
    }

    /// The repository has a good body of it, or nothing needs it.
    pub(super) fn is_good(&mut self, name: &ObjectName) {
        self.suspects.remove(name);
        self.lost.remove(name);
    }

    /// Number of objects that are lost.
    pub(super) fn objects(&self) -> u64 {
        u64_from(self.lost.len())
    }

    /// Whether it is time to look at what is lost again. Then it is suspect.
    fn is_minute_over(&mut self, now: Instant) -> bool {
        let is_over = now >= self.look_again_at;
        if is_over {
            self.look_again_at = now + EVERY;
            let lost = self.lost.clone();
            self.suspect(lost, true);
        }
        is_over
    }

    /// What is to be looked at now.
    fn due(&mut self, now: Instant) -> Vec<(ObjectName, bool)> {
        if now < self.look_at { Vec::new() } else { self.suspects.iter().take(BATCH).map(|(n, b)| (*n, *b)).collect() }
    }
}

impl Keeper {
    /// The objects that neither a node nor the repository has, as far as this node knows.
    #[must_use]
    pub fn lost(&self) -> Vec<ObjectName> {
        lock(&self.state).lost.lost.iter().take(TOLD_MAX).copied().collect()
    }

    /// Finds out about some of the objects that may be lost.
    pub(super) async fn look_for_lost(
        &self,
        repository: &Arc<Repository>,
        index: &Arc<Index>,
    ) -> Result<Done, KeeperError> {
        let now = Instant::now();
        if lock(&self.state).lost.is_minute_over(now) {
            self.look_at_some(repository, index).await?;
        }
        let due = {
            let lost = &mut lock(&self.state).lost;
            lost.suspect(repository.take_absent(), false);
            lost.due(now)
        };
        if due.is_empty() {
            return Ok(Done::All);
        }
        // What nodes have is written there again at once: the last good copy may be on a node that fills up.
        let mut lacking = Vec::with_capacity(due.len());
        for (name, is_bad) in due {
            let is_good = self.replace_from_nodes(repository, index, name).await?;
            let mut state = lock(&self.state);
            // What another place has says nothing of the one that is in use now.
            if !self.is_in_use(repository) {
                return Err(KeeperError::OtherSettings);
            }
            if is_good {
                state.lost.is_good(&name);
            } else {
                lacking.push((name, is_bad));
            }
        }
        let due = lacking;
        if due.is_empty() {
            return Ok(Done::More);
        }
        let names: Vec<ObjectName> = due.iter().map(|(name, _)| *name).collect();
        let Some(nobody) = self.pool.nobody_has(&names).await else {
            lock(&self.state).lost.look_at = Instant::now() + AGAIN;
            return Ok(Done::All);
        };
        // What this node thinks that the repository has, and what it does not have, do not agree any more.
        let (asked, looked) = (index.clone(), nobody.clone());
        let known = blocking(move || asked.shelved(&looked)).await?;
        let nobody: BTreeSet<ObjectName> = nobody.into_iter().collect();
        for (name, _) in due {
            // A node has it, and did not give it just now: it stays a suspect.
            if !nobody.contains(&name) {
                lock(&self.state).lost.look_at = Instant::now() + AGAIN;
                continue;
            }
            let is_lost = self.is_lost(repository, name).await?;
            if is_lost && known.contains(&name) {
                let forgotten = index.clone();
                blocking(move || forgotten.forget(&[name])).await?;
                self.doubt_all();
            }
            let mut state = lock(&self.state);
            if !self.is_in_use(repository) {
                return Err(KeeperError::OtherSettings);
            }
            if !is_lost {
                state.lost.is_good(&name);
                continue;
            }
            state.lost.suspects.remove(&name);
            if state.lost.lost.len() < NAMES_MAX && state.lost.lost.insert(name) {
                error!(object.name = %name, "an object is lost: the repository has no good body of it, and no node has it");
            }
        }
        Ok(Done::More)
    }

    /// Asks for a few of the objects that were given up here, so that a repository that lost all does not go unnoticed until
    /// somebody reads.
    async fn look_at_some(&self, repository: &Repository, index: &Arc<Index>) -> Result<(), KeeperError> {
        let (asked, after) = (index.clone(), lock(&self.state).lost.spot);
        let some = blocking(move || asked.evicted_after(after, SPOTS)).await?;
        for (name, _) in &some {
            if repository.len(*name, Instant::now() + CALL).await?.is_none() {
                lock(&self.state).lost.suspect([*name], false);
            }
        }
        lock(&self.state).lost.spot = some.last().map(|(name, _)| *name);
        Ok(())
    }

    /// Whether the repository has no good body of an object.
    async fn is_lost(&self, repository: &Repository, name: ObjectName) -> Result<bool, KeeperError> {
        let is_there = repository.len(name, Instant::now() + CALL).await?.is_some();
        Ok(!is_there || repository.look(name, Instant::now() + CALL).await?.is_none())
    }

    /// Makes sure that the repository has a good body: writes the copy of this node or of another one if it has none. Returns whether
    /// it has one now.
    async fn replace_from_nodes(
        &self,
        repository: &Arc<Repository>,
        index: &Arc<Index>,
        name: ObjectName,
    ) -> Result<bool, KeeperError> {
        let is_there = repository.len(name, Instant::now() + CALL).await?.is_some();
        if is_there && repository.look(name, Instant::now() + CALL).await?.is_some() {
            return Ok(true);
        }
        let share = self.share.clone();
        let record = match blocking(move || share.get(&name)).await? {
            Some(own) => Some(own),
            None => self.pool.copy_of(name, Instant::now() + CALL).await,
        };
        let Some(record) = record else { return Ok(false) };
        let _turn = self.turn(repository).await?;
        repository.put(&record, Instant::now() + CALL).await?;
        info!(object.name = %name, "the repository had no good body of an object: it has the copy of a node again");
        let noted = index.clone();
        blocking(move || noted.note(&[(name, u64_from(record.wire_len()))])).await?;
        Ok(true)
    }

    /// The repository lost something: all of it is listed anew, at most once an hour.
    pub(super) fn doubt_all(&self) {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut state = lock(&self.state);
        if state.doubted_at.is_none_or(|at| at.elapsed() >= HOUR) {
            state.doubted_at = Some(Instant::now());
            state.listing = Some(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_looked_at_again_every_minute_and_names_are_bounded() {
        let now = Instant::now();
        let mut lost = Lost::new(now);
        let name = |n: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            ObjectName::from_bytes(bytes)
        };
        lost.suspect([name(1)], false);
        lost.suspect([name(1)], true);
        assert_eq!(lost.due(now), [(name(1), true)]);
        lost.suspects.clear();
        lost.lost.insert(name(2));
        assert!(lost.is_minute_over(now) && !lost.is_minute_over(now + EVERY / 2));
        lost.suspects.clear();
        assert!(lost.due(now + EVERY / 2).is_empty() && lost.is_doubted(&name(2)));
        assert!(lost.is_minute_over(now + EVERY));
        assert_eq!(lost.due(now + EVERY), [(name(2), true)]);
        lost.suspect((0..u16::MAX).map(name), false);
        assert_eq!(lost.suspects.len(), NAMES_MAX);
        assert_eq!(lost.due(now).len(), BATCH);
    }
}
