//! Objects that the repository should have and that nothing has: a body is bad or gone, and no node has a copy. The controller
//! is told the names (`Heartbeat::gone`), so that it can say which versions need them.
//!
//! ```text
//! a read found it absent or bad; a listing lacks it;
//! a few of those that are here or were given up here, each minute
//!     --> suspect --no node has it, all of them answered; asked for once more--> lost  --every minute: is it back?--> forgotten
//! ```
//! A body that is bad or gone and that some node has a good copy of is written again, whoever that is. If one is gone of which
//! this node knows that it was there, more may be gone, so everything is listed. Nothing is stored: a read or a listing finds again
//! what is lost.

use std::{collections::BTreeSet, ops::Bound, sync::Arc, time::Duration};

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
/// Objects of each kind that are asked for without a reason, each time.
const SPOTS: usize = 4;
/// Pause after a look in which not all nodes answered.
const AGAIN: Duration = Duration::from_secs(15);

/// What is lost, and what may be.
#[derive(Debug)]
pub(super) struct Lost {
    suspects: BTreeSet<ObjectName>,
    lost: BTreeSet<ObjectName>,
    look_at: Instant,
    look_again_at: Instant,
    /// Time between two looks whether what is lost is back.
    every: Duration,
    /// The last object that was looked at.
    looked: Option<ObjectName>,
    /// The last object of this node, and the last that it gave up, that was asked for without a reason.
    spots: (Option<ObjectName>, Option<ObjectName>),
}

impl Lost {
    pub(super) fn new(now: Instant, every: Duration) -> Self {
        Self {
            suspects: BTreeSet::new(),
            lost: BTreeSet::new(),
            look_at: now,
            look_again_at: now,
            every,
            looked: None,
            spots: (None, None),
        }
    }

    /// These may be lost.
    pub(super) fn suspect(&mut self, names: impl IntoIterator<Item = ObjectName>) {
        for name in names {
            if self.suspects.len() < NAMES_MAX {
                self.suspects.insert(name);
            }
        }
    }

    /// Whether something is wrong with what the repository has of it.
    pub(super) fn is_doubted(&self, name: &ObjectName) -> bool {
        self.suspects.contains(name) || self.lost.contains(name)
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
    fn is_time(&mut self, now: Instant) -> bool {
        let is_over = now >= self.look_again_at;
        if is_over {
            self.look_again_at = now + self.every;
            let lost = self.lost.clone();
            self.suspect(lost);
        }
        is_over
    }

    /// What is to be looked at now: each suspect has its turn, however many stay suspects.
    fn due(&mut self, now: Instant) -> Vec<ObjectName> {
        if now < self.look_at {
            return Vec::new();
        }
        let after = self.looked.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.suspects.range((after, Bound::Unbounded));
        let due: Vec<ObjectName> = match rest.clone().next() {
            Some(_) => rest.take(BATCH).copied().collect(),
            None => self.suspects.iter().take(BATCH).copied().collect(),
        };
        self.looked = due.last().copied();
        due
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
        if lock(&self.state).lost.is_time(now) {
            self.look_at_some(repository, index).await?;
        }
        let due = {
            let lost = &mut lock(&self.state).lost;
            lost.suspect(repository.take_absent());
            lost.due(now)
        };
        if due.is_empty() {
            return Ok(Done::All);
        }
        // What nodes have is written there again at once: the last good copy may be on a node that fills up.
        let mut lacking = Vec::with_capacity(due.len());
        for name in due {
            let is_good = self.replace_from_nodes(repository, index, name).await?;
            let mut state = lock(&self.state);
            // What another place has says nothing of the one that is in use now.
            if !self.is_in_use(repository) {
                return Err(KeeperError::OtherSettings);
            }
            if is_good {
                state.lost.is_good(&name);
            } else {
                lacking.push(name);
            }
        }
        if lacking.is_empty() {
            return Ok(Done::More);
        }
        let Some(nobody) = self.pool.nobody_has(&lacking).await else {
            lock(&self.state).lost.look_at = Instant::now() + AGAIN;
            return Ok(Done::All);
        };
        let nobody: BTreeSet<ObjectName> = nobody.into_iter().collect();
        for name in lacking {
            // A node has it, and did not give it just now: it stays a suspect.
            if !nobody.contains(&name) {
                lock(&self.state).lost.look_at = Instant::now() + AGAIN;
                continue;
            }
            let is_lost = self.is_lost(repository, name).await?;
            if is_lost {
                let forgotten = index.clone();
                blocking(move || forgotten.forget(&[name])).await?;
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

    /// Asks for a few of the objects of this node and of those that it gave up, so that a repository that lost all does not go
    /// unnoticed until somebody reads.
    async fn look_at_some(&self, repository: &Repository, index: &Arc<Index>) -> Result<(), KeeperError> {
        let (own_spot, evicted_spot) = lock(&self.state).lost.spots;
        let share = self.share.clone();
        let own = blocking(move || share.list(own_spot.as_ref(), SPOTS)).await?;
        let own: Vec<ObjectName> = own.into_iter().map(|listed| listed.name).collect();
        let absent = self.absent_of(repository, &own).await?;
        self.note_absent(index, absent).await?;

        let asked = index.clone();
        let evicted = blocking(move || asked.evicted_after(evicted_spot, SPOTS)).await?;
        let evicted: Vec<ObjectName> = evicted.into_iter().map(|(name, _)| name).collect();
        let absent = self.absent_of(repository, &evicted).await?;
        let lost = &mut lock(&self.state).lost;
        lost.suspect(absent);
        lost.spots = (own.last().copied(), evicted.last().copied());
        Ok(())
    }

    /// Those of these objects that the repository does not have.
    async fn absent_of(&self, repository: &Repository, names: &[ObjectName]) -> Result<Vec<ObjectName>, KeeperError> {
        let mut absent = Vec::new();
        for name in names {
            if repository.len(*name, Instant::now() + CALL).await?.is_none() {
                absent.push(*name);
            }
        }
        Ok(absent)
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
        if repository.len(name, Instant::now() + CALL).await?.is_none() {
            let asked = index.clone();
            if !blocking(move || asked.shelved(&[name])).await?.is_empty() {
                self.doubt_all();
            }
        } else if repository.look(name, Instant::now() + CALL).await?.is_some() {
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

    /// The repository lacks what this node has. If it had it once, something is wrong with it.
    pub(super) async fn note_absent(&self, index: &Arc<Index>, absent: Vec<ObjectName>) -> Result<(), KeeperError> {
        let (asked, names) = (index.clone(), absent);
        let known = blocking(move || -> Result<Vec<ObjectName>, KeeperError> {
            let has = asked.has(&names)?;
            Ok(names.into_iter().zip(has).filter(|(_, has)| *has).map(|(name, _)| name).collect())
        })
        .await?;
        if !known.is_empty() {
            self.doubt_all();
            self.note_gone(index, known).await?;
        }
        Ok(())
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

    const EVERY: Duration = Duration::from_secs(60);

    fn name(n: u16) -> ObjectName {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ObjectName::from_bytes(bytes)
    }

    #[test]
    fn what_is_lost_is_looked_at_again_every_minute() {
        let now = Instant::now();
        let mut lost = Lost::new(now, EVERY);
        lost.suspect([name(1)]);
        lost.suspect([name(1)]);
        assert_eq!(lost.due(now), [name(1)]);
        lost.suspects.clear();
        lost.lost.insert(name(2));
        assert!(lost.is_time(now) && !lost.is_time(now + EVERY / 2));
        lost.suspects.clear();
        assert!(lost.due(now + EVERY / 2).is_empty() && lost.is_doubted(&name(2)));
        assert!(lost.is_time(now + EVERY));
        assert_eq!(lost.due(now + EVERY), [name(2)]);
    }

    #[test]
    fn names_are_bounded_and_each_suspect_has_its_turn() {
        let now = Instant::now();
        let mut lost = Lost::new(now, EVERY);
        lost.suspect((0..u16::MAX).map(name));
        assert_eq!(lost.suspects.len(), NAMES_MAX);
        // They all stay suspects.
        let mut looked = BTreeSet::new();
        for _ in 0..NAMES_MAX.div_ceil(BATCH) {
            let due = lost.due(now);
            assert!(due.len() <= BATCH);
            looked.extend(due);
        }
        assert_eq!(looked, lost.suspects);
        assert_eq!(lost.due(now)[0], name(0), "then the first has its turn again");
    }
}
