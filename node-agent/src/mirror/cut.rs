//! The cut of one disk: new writes are redirected to the next epoch, and nothing is copied.
//!
//! ```text
//! writable --prepare--> prepared --hold--> held --flip--> writable (next epoch; the old one frozen for its commit)
//!    ^                      |                |
//!    +------- abort --------+----------------+-- the hold's own timer: a late flip is refused
//! ```
//!
//! *Prepare* does everything that takes time: it creates the files of the next epoch, enters the epoch into the durable
//! record, and flushes. *Hold* parks new writes; writes that were already admitted continue and belong to the old epoch.
//! *Flip* swaps a pointer. It is recorded right after the guests continue. If the agent dies before that, the next start
//! finds the prepared epoch in the record, and the epoch's bits say whether it has admitted writes.

use std::{sync::Arc, time::Instant};

use muster_api::{
    CommitId,
    node_protocol::{CutDisk, CutKey},
};
use storage_core::lock;

use super::{
    disk::{Apply, Disk, Layers},
    epoch::{Epoch, OpenError, Place},
    error::{DiskError, is_no_space},
    meta::{EpochMeta, Meta},
};

/// Most epochs of a disk, including the current one.
pub(crate) const EPOCHS_MAX: usize = 4;

/// The next epoch, ready to be written to.
pub(crate) struct Prepared {
    pub(super) key: CutKey,
    pub(super) commit: CommitId,
    epoch: Arc<Epoch>,
    entry: EpochMeta,
}

/// A flip that was made in memory and has to be recorded.
pub(super) struct Flipped {
    commit: CommitId,
    entry: EpochMeta,
}

impl Disk {
    /// Creates the next epoch. Repeating it with the same key changes nothing.
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
            // This replaces an older attempt for the same snapshot.
            Some(other) if other.is_before(key) => self.discard_prepared(other).await?,
            Some(other) => {
                return Err(DiskError::Busy { disk, what: format!("it is being cut for snapshot {}", other.snapshot) });
            }
            None => {}
        }
        if meta.position(wanted.commit).is_some() {
            return Err(DiskError::Busy { disk, what: format!("commit {} was cut already", wanted.commit) });
        }
        self.check_next_epoch()?;
        if meta.epochs.len() >= EPOCHS_MAX {
            self.merge_in_background();
            return Err(DiskError::Busy { disk, what: format!("{EPOCHS_MAX} epochs are still in use") });
        }
        let entry = self.next_entry()?;
        let (maker, bytes) = (self.clone(), self.size_bytes());
        let epoch = blocking(move || maker.make_epoch(entry, bytes, |meta| meta.prepared = Some(entry))).await?;
        *lock(&self.prepared) = Some(Prepared { key, commit: wanted.commit, epoch: Arc::new(epoch), entry });
        drop(changing);
        // Flush now, so that little is left to write back after the cut. If this fails, so will the guest's next flush.
        self.flush().await.map_err(|fault| self.fault(fault))
    }

    /// Refuses while another epoch has the next number: one is prepared, or the last flip is not recorded yet. The caller
    /// holds `changing`.
    pub(super) fn check_next_epoch(&self) -> Result<(), DiskError> {
        let is_prepared = lock(&self.prepared).is_some();
        let is_recorded = self.layers().current().number == self.meta.load().current().number;
        if is_prepared || !is_recorded {
            return Err(DiskError::Busy { disk: self.id(), what: "it is being cut".to_owned() });
        }
        Ok(())
    }

    /// The entry of the epoch that comes next. The caller holds `changing`.
    pub(super) fn next_entry(&self) -> Result<EpochMeta, DiskError> {
        let tag = getrandom::u64().map_err(|e| DiskError::Io {
            what: "reading a random number".to_owned(),
            source: std::io::Error::other(e),
        })?;
        Ok(EpochMeta { number: self.meta.load().current().number + 1, tag, commit: None, size_bytes: None })
    }

    /// Creates an epoch of this size and enters it into the record. Blocks.
    pub(super) fn make_epoch(
        &self,
        entry: EpochMeta,
        bytes: u64,
        enter: impl FnOnce(&mut Meta),
    ) -> Result<Epoch, DiskError> {
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
        let made = Epoch::create(&place, bytes, &node.holder);
        let epoch = made.map_err(|e| open_error(disk, e));
        let stored = epoch.and_then(|epoch| {
            self.update_meta(Apply::IfStored, enter).map_err(|e| io("record", e))?;
            Ok(epoch)
        });
        // Remove the files, unless the record names an epoch of this number, for which the next start will look. It may
        // be an earlier one that was discarded while there was no room to record that.
        let is_named = || {
            let meta = self.meta.load();
            meta.epochs.iter().chain(&meta.prepared).any(|named| named.number == entry.number)
        };
        if stored.is_err()
            && !is_named()
            && let Err(error) = place.remove(&node.holder)
        {
            tracing::warn!(disk.id = %disk, error = %error, "files of a failed cut stay until the next start");
        }
        stored
    }

    pub(super) fn place(&self, entry: &EpochMeta) -> Place<'_> {
        Place { dir: &self.dir, disk: self.id(), number: entry.number, tag: entry.tag }
    }

    /// Discards the prepared epoch if it belongs to this key and has not become current. The caller holds `changing`.
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

    /// Makes the prepared epoch the current one. `None` when none is prepared for this key. Works in memory only, because
    /// writes are held meanwhile.
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

    /// Records a flip durably. Blocks.
    pub(super) fn record_flip(&self, flipped: &Flipped) -> Result<(), DiskError> {
        self.update_meta(Apply::Anyway, |meta| {
            meta.current_mut().commit = Some(flipped.commit);
            meta.epochs.push(flipped.entry);
            meta.prepared = None;
        })
        .map_err(|source| DiskError::Io { what: format!("record of the flip of disk {}", self.id()), source })
    }

    /// What a fault means to those who manage disks.
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

/// Runs blocking work away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(DiskError::Io { what: "a blocking task".to_owned(), source: std::io::Error::other(e) }),
    }
}

/// State of a cut of several disks of this node.
pub(super) enum CutState {
    Prepared,
    Held {
        since: Instant,
        until: Instant,
    },
    /// All disks are cut. The answer is kept for repeated calls.
    Flipped {
        members: Vec<muster_api::node_protocol::CutMember>,
    },
    /// The cut ended without an answer: the hold's timer was faster than the flip, or recording the flip failed.
    Over,
}
