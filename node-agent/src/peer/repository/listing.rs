//! Comparing all keys of the repository with what this node knows of them: after a start with a new index, after a change of
//! the membership record (at most once a day), and once a week. It finds
//!
//! * objects that this node keeps and does not know of: another node wrote them, or the index is new;
//! * objects that the index has and the repository has no more: they are written again, or lost (`lost.rs`);
//! * objects that this node keeps, that it does not have, and that nothing needs: leaks. The sweep judges them;
//! * objects that no node has although they are needed: with `evict`, they count as evicted (`evict.rs`).

use std::{collections::BTreeSet, sync::Arc};

use muster_pool::Repository;
use storage_core::{ObjectName, RecordHeader, store::ChunkStore as _, units::u64_from};
use tokio::time::Instant;
use tracing::info;

use super::{CALL, Done, Index, Keeper, KeeperError, blocking, lock};
use crate::clock;

/// Seconds after a listing in which another membership record is no reason for the next one.
const DAY_S: i64 = 86_400;
/// Word of the index: when all was listed, seconds since 1970, and under which membership record.
pub(super) const LISTED: &str = "listed";

impl Keeper {
    /// Lists what is next to be listed.
    pub(super) async fn list(&self, repository: &Arc<Repository>, index: &Arc<Index>) -> Result<Done, KeeperError> {
        if !self.is_settled() || self.pool.own_node().is_none() {
            return Ok(Done::All);
        }
        let next = lock(&self.state).listing;
        let first = match next {
            Some(first) => first,
            None if self.is_listing_due(index).await? => 0,
            None => return Ok(Done::All),
        };
        let record = lock(&self.state).record.0.clone();
        let _turn = self.turn(repository).await?;
        let listed = repository.list(first, Instant::now() + CALL * 5).await?;
        let there: BTreeSet<ObjectName> = listed.iter().map(|kept| kept.name).collect();
        let asked = index.clone();
        let known = blocking(move || asked.shelf(first)).await?;

        let gone: Vec<ObjectName> = known.difference(&there).copied().collect();
        self.note_gone(index, gone).await?;

        let names: Vec<ObjectName> = listed.iter().map(|kept| kept.name).collect();
        let keeps = self.pool.keeps(&names);
        let kept: Vec<(ObjectName, u64)> =
            listed.iter().zip(keeps).filter(|(_, keeps)| *keeps).map(|(kept, _)| (kept.name, kept.bytes)).collect();
        let new: Vec<_> = kept.iter().copied().filter(|(name, _)| !known.contains(name)).collect();
        let (share, noted) = (self.share.clone(), index.clone());
        let unknown = blocking(move || -> Result<Vec<(ObjectName, u64)>, KeeperError> {
            noted.note(&new)?;
            let mut not_here = Vec::new();
            for (name, bytes) in kept {
                if share.find(&name)?.is_none() {
                    not_here.push((name, bytes));
                }
            }
            // The sweep judges what was given up here, too.
            let evicted = noted.evicted(&not_here.iter().map(|(name, _)| *name).collect::<Vec<_>>())?;
            let unknown = not_here.into_iter().zip(evicted).filter(|(_, evicted)| !evicted).map(|(object, _)| object);
            Ok(unknown.collect())
        })
        .await?;
        let (leaked, noted) = (unknown.iter().map(|(name, _)| *name).collect::<Vec<_>>(), index.clone());
        blocking(move || noted.leaked(&leaked)).await?;
        if repository.settings().evict {
            self.find_evicted(index, unknown).await?;
        }

        let is_end = {
            let mut state = lock(&self.state);
            if state.record.0 != record {
                return Ok(Done::More);
            }
            state.listing = first.checked_add(1);
            state.listing.is_none()
        };
        if is_end {
            info!(url = repository.settings().url(), "compared all keys of the repository with what this node knows");
            let (word, noted) = (format!("{} {record}", clock::now_s()), index.clone());
            blocking(move || noted.set_word(LISTED, &word)).await?;
            return Ok(Done::All);
        }
        Ok(Done::More)
    }

    /// Of what the repository has and this node does not have, and does not know of, takes what no node has as evicted: the index
    /// that knew of it was lost, or the nodes that gave it up are gone.
    async fn find_evicted(&self, index: &Arc<Index>, unknown: Vec<(ObjectName, u64)>) -> Result<(), KeeperError> {
        let names: Vec<ObjectName> = unknown.iter().map(|(name, _)| *name).collect();
        let held = self.pool.may_be_held(&names).await;
        let nowhere = unknown.into_iter().zip(held).filter(|(_, held)| !held);
        let evicted: Vec<(ObjectName, u64)> =
            nowhere.map(|((name, bytes), _)| (name, bytes.saturating_sub(u64_from(RecordHeader::BYTES)))).collect();
        let noted = index.clone();
        Ok(blocking(move || noted.evict(&evicted)).await?)
    }

    async fn is_listing_due(&self, index: &Arc<Index>) -> Result<bool, KeeperError> {
        let asked = index.clone();
        let word = blocking(move || asked.word(LISTED)).await?;
        let listed = word.as_deref().and_then(|word| {
            let (at, record) = word.split_once(' ')?;
            Some((at.parse::<i64>().ok()?, record))
        });
        let Some((at, record)) = listed else { return Ok(true) };
        let every = i64::try_from(self.waits.list_every.as_secs()).unwrap_or(i64::MAX);
        let now = clock::now_s();
        // Another record makes this node the keeper of other objects. It finds those that it has without a listing.
        let soon = if record == lock(&self.state).record.0 { every } else { every.min(DAY_S) };
        // A clock that was set back is no reason to wait for years.
        Ok(now < at || now - at >= soon)
    }

    /// Forgets what the repository has no more, and writes it again where it is here.
    pub(super) async fn note_gone(&self, index: &Arc<Index>, gone: Vec<ObjectName>) -> Result<(), KeeperError> {
        if gone.is_empty() {
            return Ok(());
        }
        let (share, forgotten) = (self.share.clone(), index.clone());
        let (found, lost) = blocking(move || -> Result<_, KeeperError> {
            forgotten.forget(&gone)?;
            let (mut found, mut lost) = (Vec::new(), Vec::new());
            for name in gone {
                match share.find(&name)? {
                    Some(object) => found.push(object),
                    None => lost.push(name),
                }
            }
            Ok((found, lost))
        })
        .await?;
        if !found.is_empty() {
            info!(objects = found.len(), "the repository has no more what this node knew there; it is written again");
            lock(&self.state).pass = Some((None, 0));
        }
        // Another node may have them.
        lock(&self.state).lost.suspect(lost);
        Ok(())
    }
}
