//! Eviction: a node whose disk fills up gives up copies of objects that the repository has. The pool is the repository's cache
//! then. Only with `[pool.repository] evict = true`.
//!
//! ```text
//! free space < 13/12 of what is kept for others, or pool > 15/16 of its limit --> begins      (`data_disk`: the cache went first)
//! next objects in name order --> chunks and packs, old stamp, not read lately --> asked for in the repository, each one
//!     --> there, as long as the copy --> name noted as evicted, durably --> copy removed if its stamp is still old --> space given back
//! free space >= 5/4, and pool <= 7/8 of its limit                             --> ends
//! ```
//! **What an evicted object is.** A name without bytes. The node answers a read with *absent*, and the reader goes on to the
//! repository. It answers other nodes that ask for copies with *evicted*, so that repair sends none, and lets them drop theirs
//! (`repair.rs`, `handover.rs` of the pool). A put finds it absent and stores it: what is published has all its copies on nodes (I3).
//! Such a name protects nothing: neither the sweep nor the keeper takes it for a copy.
//!
//! **Nothing that is needed is lost.** The repository is asked for each object right before its copy goes, because what this node
//! remembers can be old: another node deletes there what the sweep found dead. A deletion that was decided before an upload came
//! to need the object can be under way at most `burial::WITHIN`. A copy only goes if its stamp is below the last two rounds, and if
//! this node has known the newest round for longer than that. The upload that set the stamp is over by then, so the object is
//! reached by a version, which no later deletion passes over, or is dead. And the question comes after any earlier deletion. While
//! calls fail, or a round is not known, nothing is evicted. Nor is a body that was found bad, or is of another length than the copy.
//!
//! **A crash.** The name is durable before the copy goes. A name whose copy is still there is dropped by the first pass. Names
//! that are lost with the index count as missing: nodes that have copies send them here again, and readers ask the
//! repository all the same. The listing, which begins anew then, finds those that no node has. Names are judged by the sweep like
//! objects, and compared with each listing.
//!
//! **Pages and descriptors stay.** They are a thousandth of the bytes, and everything is found through them.
//!
//! **Which ones.** A clock hand goes over the names, which are hashes, and spares what was put or touched in the last rounds
//! and what was read in this age or the one before ([`super::Recent`], 2 MiB). An age ends with each turn of the hand, so that
//! the third turn finds something. An order by age would need a table of all objects in memory.
//!
//! **Back again.** What the repository gives to a reader stays in its cache. A node to which the object belongs keeps it, too,
//! while it has room (`restock.rs` of the pool). With `evict = false` a node fetches everything back that it gave up, as far as
//! it has room.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use muster_pool::{Repository, RepositoryError, Restock};
use storage_core::{
    Kind, ObjectName, RecordHeader,
    store::{ChunkStore as _, Listed, StoreError},
    units::u64_from,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{CALL, Done, Index, Keeper, KeeperError, blocking, lock};
use crate::{
    data_disk::Space,
    pace::{Steps, give_way},
    peer::share::PoolShare,
};

/// Objects that are looked at together.
const LIST: usize = 1024;
/// Copies that are given up together.
const BATCH: usize = 256;
/// Questions under way at a time.
const QUESTIONS: usize = 8;
/// Questions begin for so long before something else gets its turn.
const TURN: Duration = Duration::from_secs(5);
/// Space is given back to the disk when so much was given up.
const RECLAIM_BYTES: u64 = 256 << 20;
/// Pause after the hand has been through all objects and found none.
const REST: Duration = Duration::from_secs(60);
/// Objects that are brought back together.
const BACK: usize = 32;

/// How far the eviction is.
#[derive(Debug)]
pub(super) struct Evicting {
    /// It has begun and not reached its end.
    on: bool,
    /// The last object that the hand has seen.
    hand: Option<ObjectName>,
    /// Copies given up since the hand was at the beginning.
    in_turn: u64,
    /// Turns in a row without any.
    idle_turns: u32,
    /// Bytes given up that the disk does not have back yet.
    unreclaimed: u64,
    /// The newest round of the sweep, and since when it is known here.
    round: (u64, Instant),
    /// Nothing is done before this.
    rest_until: Instant,
}

impl Evicting {
    pub(super) fn new(now: Instant) -> Self {
        Self { on: false, hand: None, in_turn: 0, idle_turns: 0, unreclaimed: 0, round: (0, now), rest_until: now }
    }
}

/// How many bytes have to go: first to begin at all, then to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Excess {
    begin: bool,
    bytes: u64,
}

impl Excess {
    fn of(share: &PoolShare) -> Self {
        let (_, space) = share.disk().room();
        let reserves = share.disk().reserves();
        // A file system that cannot be asked tells nothing.
        let (mut begin, mut bytes) = match space == Space::default() {
            true => (false, 0),
            false => {
                (space.free_bytes < reserves.evict_bytes(), reserves.evicted_bytes().saturating_sub(space.free_bytes))
            }
        };
        let usage = share.usage();
        if let Some(limit) = usage.limit_bytes {
            begin |= usage.disk_bytes > limit - limit / 16;
            bytes = bytes.max(usage.disk_bytes.saturating_sub(limit - limit / 8));
        }
        Self { begin, bytes }
    }
}

impl Keeper {
    /// Gives up some copies if the disk is near full, or brings some back if none may be given up.
    pub(super) async fn evict(&self, repository: &Arc<Repository>, index: &Arc<Index>) -> Result<Done, KeeperError> {
        let wanted = repository.settings().evict;
        self.share.recent().want(wanted);
        if !wanted {
            self.pool.set_restock(Restock::AtHome);
            return self.bring_back(repository, index).await;
        }
        self.share.recent().age_if_due();
        let share = self.share.clone();
        let excess = blocking(move || Excess::of(&share)).await;
        self.pool.set_restock(if excess.bytes == 0 { Restock::Here } else { Restock::Nowhere });
        let (hand, wanted_bytes) = {
            let mut state = lock(&self.state);
            let evicting = &mut state.evicting;
            evicting.on = excess.bytes > 0 && (evicting.on || excess.begin);
            if !evicting.on || Instant::now() < evicting.rest_until {
                return Ok(Done::All);
            }
            (evicting.hand, excess.bytes.saturating_sub(evicting.unreclaimed))
        };
        let Some(below) = self.outdated_below() else { return Ok(Done::All) };
        if repository.trouble().is_some() {
            return Ok(Done::All);
        }
        if wanted_bytes == 0 || lock(&self.state).evicting.unreclaimed >= RECLAIM_BYTES {
            self.give_space_back().await?;
            return Ok(Done::More);
        }
        let share = self.share.clone();
        let listed = blocking(move || share.list(hand.as_ref(), LIST)).await?;
        if listed.is_empty() {
            return self.turn_over().await;
        }
        let (candidates, seen) = self.candidates(&listed, below, wanted_bytes);
        give_way(&self.pool).await;
        let (gone, failed) = self.give_up(repository, index, candidates, below).await?;
        let mut state = lock(&self.state);
        let evicting = &mut state.evicting;
        evicting.hand = seen;
        evicting.in_turn += gone.0;
        evicting.unreclaimed += gone.1;
        // The next step goes on after what could not be asked for.
        failed.map_or(Ok(Done::More), |error| Err(error.into()))
    }

    /// The stamps below this one protect nothing; none while that is not certain.
    fn outdated_below(&self) -> Option<u64> {
        let round = self.pool.sweep_round();
        let mut state = lock(&self.state);
        let known = &mut state.evicting.round;
        if known.0 != round {
            *known = (round, Instant::now());
        }
        let since = known.1;
        drop(state);
        (round > 1 && since.elapsed() >= self.waits.settled).then(|| round - 1)
    }

    /// Those of the objects that may go as far as this node knows, up to so many bytes; and the last object looked at.
    fn candidates(&self, listed: &[Listed], below: u64, wanted_bytes: u64) -> (Vec<Listed>, Option<ObjectName>) {
        let state = lock(&self.state);
        let (mut candidates, mut bytes, mut seen) = (Vec::new(), 0, None);
        for object in listed {
            if candidates.len() >= BATCH || bytes >= wanted_bytes {
                break;
            }
            seen = Some(object.name);
            let name = &object.name;
            let may_go = matches!(object.kind, Kind::Chunk | Kind::Pack)
                && object.round < below
                && !self.share.recent().has(name)
                && !state.waiting.contains_key(name)
                && !state.lost.is_doubted(name);
            if may_go {
                bytes += object.stored_bytes;
                candidates.push(*object);
            }
        }
        (candidates, seen)
    }

    /// Gives up those of these copies of which the repository has the object. Returns how many, and their bytes; and why it could
    /// not be asked for others.
    async fn give_up(
        &self,
        repository: &Arc<Repository>,
        index: &Arc<Index>,
        candidates: Vec<Listed>,
        below: u64,
    ) -> Result<((u64, u64), Option<RepositoryError>), KeeperError> {
        if candidates.is_empty() {
            return Ok(((0, 0), None));
        }
        let _turn = self.turn(repository).await?;
        let (stopped, until) = (AtomicBool::new(false), Instant::now() + TURN);
        let ask = |object: Listed| {
            let stopped = &stopped;
            async move {
                if stopped.load(Ordering::Relaxed) || Instant::now() >= until {
                    return None;
                }
                let len = repository.len(object.name, Instant::now() + CALL).await;
                if len.is_err() {
                    stopped.store(true, Ordering::Relaxed);
                }
                Some((object, len))
            }
        };
        let mut asked = stream::iter(candidates).map(ask).buffer_unordered(QUESTIONS);
        let (mut there, mut absent, mut failed) = (Vec::new(), Vec::new(), None);
        while let Some(asked) = asked.next().await {
            match asked {
                Some((object, Ok(Some(len)))) if len == object.stored_bytes + u64_from(RecordHeader::BYTES) => {
                    there.push(object);
                }
                Some((object, Ok(None))) => absent.push(object.name),
                // Another body than this copy's. The pass of its uploader looks at it.
                Some((_, Ok(Some(_)))) | None => {}
                Some((_, Err(error))) => failed = Some(error),
            }
        }
        drop(asked);
        self.note_absent(index, absent).await?;
        let (share, noted) = (self.share.clone(), index.clone());
        let gone = blocking(move || -> Result<_, KeeperError> {
            let copies: Vec<(ObjectName, u64)> = there.iter().map(|o| (o.name, o.stored_bytes)).collect();
            noted.evict(&copies)?;
            let objects: Vec<(ObjectName, u64)> = there.iter().map(|object| (object.name, below)).collect();
            let removed = share.remove_each(&objects)?;
            // They were touched meanwhile.
            let stay = copies.iter().zip(&removed).filter(|(_, removed)| removed.is_none());
            noted.not_evicted(&stay.map(|((name, _), _)| *name).collect::<Vec<_>>())?;
            Ok(removed.into_iter().flatten().fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes)))
        });
        Ok((gone.await?, failed))
    }

    /// The hand has been through all objects.
    async fn turn_over(&self) -> Result<Done, KeeperError> {
        self.share.recent().age();
        self.give_space_back().await?;
        let mut state = lock(&self.state);
        let evicting = &mut state.evicting;
        evicting.hand = None;
        let found = std::mem::take(&mut evicting.in_turn);
        if found > 0 {
            evicting.idle_turns = 0;
            return Ok(Done::More);
        }
        evicting.idle_turns += 1;
        // Two ages have to pass before what was read may go.
        if evicting.idle_turns <= 2 {
            return Ok(Done::More);
        }
        if evicting.idle_turns == 3 {
            warn!(
                "the disk is near full, and no copy can be given up: all are of the last rounds of the sweep, or the \
                 repository does not have them yet"
            );
        }
        evicting.rest_until = Instant::now() + REST;
        Ok(Done::All)
    }

    /// Has the disk get back the space of what was given up.
    async fn give_space_back(&self) -> Result<(), KeeperError> {
        if std::mem::take(&mut lock(&self.state).evicting.unreclaimed) == 0 {
            return Ok(());
        }
        let share = self.share.clone();
        let bytes = blocking(move || {
            // The disk is near full, so it rests less than a sweep.
            let steps = Steps::begin(1);
            share.reclaim(&|| {
                steps.rest();
                true
            })
        })
        .await?;
        info!(bytes, "gave up copies of objects that the repository has");
        Ok(())
    }

    /// Fetches some of what was given up from the repository, if there is room.
    async fn bring_back(&self, repository: &Arc<Repository>, index: &Arc<Index>) -> Result<Done, KeeperError> {
        // A node that is to be empty takes nothing.
        let is_for_nobody = index.evicted_amount().objects == 0 || !self.pool.owns_objects();
        if is_for_nobody || Instant::now() < lock(&self.state).evicting.rest_until {
            return Ok(Done::All);
        }
        let share = self.share.clone();
        if blocking(move || Excess::of(&share)).await.bytes > 0 {
            return Ok(Done::All);
        }
        let asked = index.clone();
        let names: BTreeSet<ObjectName> =
            blocking(move || asked.evicted_after(None, BACK)).await?.into_iter().map(|(name, _)| name).collect();
        give_way(&self.pool).await;
        let fetch = |name: ObjectName| async move { (name, repository.look(name, Instant::now() + CALL).await) };
        let mut fetched = stream::iter(names).map(fetch).buffer_unordered(QUESTIONS);
        let (mut records, mut lacked, mut failed) = (Vec::new(), Vec::new(), None);
        while let Some((name, got)) = fetched.next().await {
            match got {
                Ok(Some(record)) => records.push(record),
                Ok(None) => lacked.push(name),
                Err(error) => failed = Some(error),
            }
        }
        drop(fetched);
        let round = self.pool.sweep_round();
        let (share, noted, gone) = (self.share.clone(), index.clone(), lacked.clone());
        let put = blocking(move || -> Result<(), KeeperError> {
            for record in records {
                let stamp = record.body().round.max(round);
                share.put(stamp, std::slice::from_ref(&record))?;
                share.sync()?;
                noted.not_evicted(&[record.name()])?;
            }
            noted.forget(&gone)?;
            Ok(())
        });
        match put.await {
            Ok(()) => {}
            Err(KeeperError::Store(StoreError::Full { .. })) => {
                warn!("copies that were given up do not come back: there is no room for them");
                lock(&self.state).evicting.rest_until = Instant::now() + REST;
                return Ok(Done::All);
            }
            Err(error) => return Err(error),
        }
        if !lacked.is_empty() {
            self.doubt_all();
            lock(&self.state).lost.suspect(lacked);
        }
        failed.map_or(Ok(Done::More), |error| Err(error.into()))
    }

    /// Objects of which this node gave its copy up, after a name, in order, as the sweep judges them.
    pub async fn evicted_after(&self, after: Option<ObjectName>, most: usize) -> Vec<Listed> {
        let Some(index) = self.open_index().await else { return Vec::new() };
        let listed = |(name, stored_bytes)| Listed { name, kind: Kind::Chunk, round: 0, stored_bytes };
        match blocking(move || index.evicted_after(after, most)).await {
            Ok(names) => names.into_iter().map(listed).collect(),
            Err(error) => {
                warn!(%error, "what was given up cannot be listed for the sweep");
                Vec::new()
            }
        }
    }
}
