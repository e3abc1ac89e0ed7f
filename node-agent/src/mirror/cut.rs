//! The cut of one disk: a redirect, not a copy.
//!
//! ```text
//! writable --prepare--> prepared --hold--> held --flip--> writable (next epoch; the old one frozen for its commit)
//!    ^                      |                |
//!    +------- abort --------+----------------+-- the hold's own timer: a late flip is refused
//! ```
//!
//! *Prepare* does everything that takes time: it makes the next epoch's files, writes their place into the durable
//! record, and flushes. *Hold* parks new writes; those admitted go on and belong to the old epoch. *Flip* swaps a
//! pointer. The flip is journaled right after guests go on: until then a crash finds the next epoch in the record, and
//! its bits say whether writes were let in.

use std::{sync::Arc, time::Instant};

use muster_api::{CommitId, SnapshotId, node_protocol::CutDisk};

use super::{
    disk::{Apply, Disk, Layers, lock},
    epoch::{Epoch, OpenError, Place},
    error::{DiskError, is_no_space},
    meta::EpochMeta,
};

/// Most epochs a disk has, the written one included.
pub(crate) const EPOCHS_MAX: usize = 4;

/// One try to cut a snapshot.
pub type CutKey = (SnapshotId, u32);

/// The next epoch, ready.
pub(crate) struct Prepared {
    pub(super) key: CutKey,
    pub(super) commit: CommitId,
    epoch: Arc<Epoch>,
    entry: EpochMeta,
}

/// A flip as it was done in memory.
pub(super) struct Flipped {
    commit: CommitId,
    entry: EpochMeta,
}

impl Disk {
    /// Makes the next epoch. Repeating it with the same key changes nothing.
    pub(super) async fn prepare(self: &Arc<Self>, key: CutKey, wanted: &CutDisk) -> Result<(), DiskError> {
        let disk = self.id();
        let changing = self.changing.lock().await;
        let meta = self.meta.load_full();
        if wanted.generation != meta.generation {
            return Err(DiskError::OlderGeneration { disk, have: meta.generation, asked: wanted.generation });
        }
        if let Some(what) = self.failed() {
            return Err(DiskError::Failed { disk, what });
        }
        let other = lock(&self.prepared).as_ref().map(|prepared| prepared.key);
        match other {
            Some(other) if other == key => return Ok(()),
            // An older try of the same snapshot is given up.
            Some(other) if other.0 == key.0 && other.1 < key.1 => self.discard_prepared(other).await?,
            Some(other) => {
                return Err(DiskError::Busy { disk, what: format!("a cut for snapshot {}", other.0) });
            }
            None => {}
        }
        if meta.position(wanted.commit).is_some() {
            return Err(DiskError::Busy { disk, what: format!("commit {} was cut already", wanted.commit) });
        }
        if meta.epochs.len() >= EPOCHS_MAX {
            self.merge_in_background();
            return Err(DiskError::Busy { disk, what: format!("{EPOCHS_MAX} epochs are still in use") });
        }
        let last = meta.epochs.last().map_or(0, |epoch| epoch.number);
        let tag = getrandom::u64()
            .map_err(|e| DiskError::Io { what: "random numbers".to_owned(), source: std::io::Error::other(e) })?;
        let entry = EpochMeta { number: last + 1, tag, commit: None };
        let maker = self.clone();
        let epoch = blocking(move || maker.make_epoch(entry)).await?;
        *lock(&self.prepared) = Some(Prepared { key, commit: wanted.commit, epoch: Arc::new(epoch), entry });
        drop(changing);
        // So that little is left to write back behind the cut; a failure here is the guest's next flush's as well.
        self.flush().await.map_err(|fault| self.fault(fault))
    }

    fn make_epoch(&self, entry: EpochMeta) -> Result<Epoch, DiskError> {
        let disk = self.id();
        let place = self.place(&entry);
        let io = |what: &str, source: std::io::Error| {
            if is_no_space(&source) {
                DiskError::NoSpace(disk)
            } else {
                DiskError::Io { what: format!("{what} of disk {disk}"), source }
            }
        };
        let node = self.node();
        let made = Epoch::create(&place, self.size_bytes(), node.config.delta_io, &node.holder);
        let epoch = made.map_err(|e| open_error(disk, e));
        let stored = epoch.and_then(|epoch| {
            self.update_meta(Apply::IfStored, |meta| meta.prepared = Some(entry)).map_err(|e| io("record", e))?;
            Ok(epoch)
        });
        // Unless a start may look for it: the record may name one of this number, also an earlier one that was given up
        // while there was no room to record that.
        if stored.is_err()
            && self.meta.load().prepared.is_none_or(|prepared| prepared.number != entry.number)
            && let Err(error) = place.remove(&node.holder)
        {
            tracing::warn!(disk.id = %disk, error = %error, "files of a cut that failed stay until the next start");
        }
        stored
    }

    pub(super) fn place(&self, entry: &EpochMeta) -> Place<'_> {
        Place { dir: &self.dir, disk: self.id(), number: entry.number, tag: entry.tag }
    }

    /// Gives the next epoch up, if it is this key's and nothing was let into it. The caller has `changing`.
    pub(super) async fn discard_prepared(self: &Arc<Self>, key: CutKey) -> Result<(), DiskError> {
        let prepared = {
            let mut slot = lock(&self.prepared);
            match &*slot {
                Some(prepared) if prepared.key == key => slot.take(),
                _ => None,
            }
        };
        let Some(prepared) = prepared else { return Ok(()) };
        let disk = self.clone();
        blocking(move || {
            let io = |source| DiskError::Io { what: format!("record of disk {}", disk.id()), source };
            disk.update_meta(Apply::IfStored, |meta| meta.prepared = None).map_err(io)?;
            disk.place(&prepared.entry).remove(&disk.node().holder).map_err(io)
        })
        .await
    }

    /// Swaps the epochs. In memory only, so that nobody waits for a disk while writes are held.
    pub(super) fn flip(&self, key: CutKey) -> Option<Flipped> {
        let prepared = {
            let mut slot = lock(&self.prepared);
            match &*slot {
                Some(prepared) if prepared.key == key => slot.take(),
                _ => None,
            }
        }?;
        self.change_layers(|old| {
            let mut epochs = Vec::with_capacity(old.epochs.len() + 1);
            epochs.push(prepared.epoch.clone());
            epochs.extend(old.epochs.iter().cloned());
            Layers { base: old.base.clone(), epochs }
        });
        Some(Flipped { commit: prepared.commit, entry: prepared.entry })
    }

    /// Journals a flip. Blocks on the disk below.
    pub(super) fn record_flip(&self, flipped: &Flipped) -> Result<(), DiskError> {
        self.update_meta(Apply::Anyway, |meta| {
            if let Some(frozen) = meta.epochs.last_mut() {
                frozen.commit = Some(flipped.commit);
            }
            meta.epochs.push(flipped.entry);
            meta.prepared = None;
        })
        .map_err(|source| DiskError::Io { what: format!("record of the flip of disk {}", self.id()), source })
    }

    pub(super) fn fault(&self, fault: super::error::Fault) -> DiskError {
        use super::error::Fault;
        let disk = self.id();
        match fault {
            Fault::NoSpace => DiskError::NoSpace(disk),
            Fault::Failed(what) => DiskError::Failed { disk, what },
            Fault::Corrupt(what) => DiskError::Corrupt { disk, what },
            Fault::Removed => DiskError::NotFound(disk),
            other => DiskError::Io { what: format!("disk {disk}"), source: std::io::Error::other(other) },
        }
    }
}

pub(super) fn open_error(disk: muster_api::DiskId, error: OpenError) -> DiskError {
    match error {
        OpenError::Io(e) if is_no_space(&e) => DiskError::NoSpace(disk),
        OpenError::Io(source) => DiskError::Io { what: format!("epoch of disk {disk}"), source },
        OpenError::Holder(source) => DiskError::Holder { disk, source },
        OpenError::Live(what) => DiskError::Corrupt { disk, what },
    }
}

/// Runs what waits for the disk below away from the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(DiskError::Io { what: "a task".to_owned(), source: std::io::Error::other(e) }),
    }
}

/// What a cut of several disks of this node is at.
pub(super) enum CutState {
    Prepared,
    Held {
        since: Instant,
        until: Instant,
    },
    /// Done; asked again, the answer is the same.
    Flipped {
        members: Vec<muster_api::node_protocol::CutMember>,
    },
    /// The timer let the writes go before the flip came, or recording failed.
    Over,
}
