//! What happens to frozen epochs: when their commit is published they fold into the base, when it is abandoned their
//! blocks move into the next epoch. Those that the growth of the disk ended wait for the next published commit.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use muster_api::{CommitId, VersionId, node_protocol::VersionRoot};
use storage_core::{BLOCK_BYTES, Descriptor, ObjectName, hex_text, tree::Page, units::usize_from};

use super::{
    base::Base,
    bits::BlockState,
    cut::{EPOCHS_MAX, blocking},
    disk::{Apply, Disk, Layers},
    epoch::Epoch,
    error::{DiskError, Fault},
    memory::AlignedBuf,
    meta::EpochMeta,
    read::Pinned,
};

/// Most earlier bases that a disk remembers. Backups of the controller are rarely more snapshots old.
const EARLIER_MAX: usize = 256;
/// Most blocks that are moved under one lock.
const STEP_BLOCKS: u64 = 64;

/// The mark that a merge runs. Dropping it takes the mark away, also when the merge panics.
struct Merging<'a>(&'a AtomicBool);

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What is needed to read a version, with its root page if `find` has it and it is lacking.
pub(super) fn with_root_page(root: &VersionRoot, find: impl Fn(&ObjectName) -> Option<Arc<Page>>) -> VersionRoot {
    let mut root = root.clone();
    if root.root_page.is_none()
        && let Ok(bytes) = hex::decode(&root.descriptor)
        && let Ok(Descriptor { root: Some(name), .. }) = Descriptor::decode(&bytes)
    {
        root.root_page = find(&name).map(|page| hex_text::encode(&page.encode()));
    }
    root
}

impl Disk {
    /// Makes a published version the base. The version was made by a commit of this disk, or the disk has no writes.
    pub(super) async fn rebase(self: &Arc<Self>, version: VersionId, root: &VersionRoot) -> Result<(), DiskError> {
        let disk = self.id();
        let root = &self.with_root_page(root);
        let base = Arc::new(Base::open(disk, version, root)?);
        if base.descriptor.size_bytes.0 > self.size_bytes() {
            return Err(DiskError::Invalid { disk, what: format!("version {version} is larger than the disk") });
        }
        let this = self.clone();
        let _changing = self.changing.lock().await;
        let meta = self.meta.load_full();
        if meta.base == version {
            return Ok(());
        }
        // A controller whose database is an older copy asks for an older version. Going back would revert flushed writes.
        if meta.earlier.contains(&version) {
            return Err(DiskError::Diverged { disk, have: meta.base, asked: version });
        }
        let folded = match root.commit.and_then(|commit| meta.position(commit)) {
            Some(at) => at + 1,
            None if self.layers().epochs.iter().all(|epoch| epoch.bits.owned_blocks() == 0) => 0,
            None => return Err(DiskError::Diverged { disk, have: meta.base, asked: version }),
        };
        let root = root.clone();
        blocking(move || {
            let io = |source| DiskError::Io { what: format!("record of disk {disk}"), source };
            let gone: Vec<EpochMeta> = meta.epochs[..folded].to_vec();
            // The record changes first: from then on, a start reads these blocks from the version.
            this.update_meta(Apply::IfStored, |meta| {
                let before = std::mem::replace(&mut meta.base, version);
                meta.earlier.drain(..(meta.earlier.len() + 1).saturating_sub(EARLIER_MAX));
                meta.earlier.push(before);
                meta.root = root;
                meta.epochs.drain(..folded);
            })
            .map_err(io)?;
            let stays = |epoch: &&Arc<Epoch>| !gone.iter().any(|gone| gone.number == epoch.number);
            this.change_layers(|old| Layers {
                base: base.clone(),
                epochs: old.epochs.iter().filter(stays).cloned().collect(),
            });
            for entry in &gone {
                this.place(entry).remove(&this.node().holder).map_err(io)?;
            }
            Ok(())
        })
        .await
    }

    /// What is needed to read a version, with its root page if that is in memory: the controller does not send the pages that
    /// commits of this node made.
    pub(super) fn with_root_page(&self, root: &VersionRoot) -> VersionRoot {
        with_root_page(root, |name| self.layers().base.page(&self.node().pages, &Pinned::default(), name))
    }

    /// Keeps the root page of the base with the record, which lost it with a power cut.
    pub(super) async fn keep_root_page(self: &Arc<Self>, root: &VersionRoot) -> Result<(), DiskError> {
        let base = self.layers().base.clone();
        let Some(page) = root.root_page.clone().filter(|_| root.descriptor == base.root.descriptor) else {
            return Ok(());
        };
        let disk = self.id();
        Base::open(disk, base.version, root)?;
        let this = self.clone();
        blocking(move || {
            this.update_meta(Apply::IfStored, |meta| meta.root.root_page = Some(page))
                .map_err(|source| DiskError::Io { what: format!("record of disk {disk}"), source })
        })
        .await
    }

    /// Abandons a commit that will never be published: its blocks belong to the next one.
    pub(super) async fn abandon(self: &Arc<Self>, commit: CommitId) -> Result<(), DiskError> {
        let changing = self.changing.lock().await;
        if self.meta.load().position(commit).is_none() {
            return Ok(());
        }
        let this = self.clone();
        blocking(move || {
            let forget = |meta: &mut super::meta::Meta| {
                for epoch in meta.epochs.iter_mut().filter(|epoch| epoch.commit == Some(commit)) {
                    epoch.commit = None;
                }
            };
            let io = |source| DiskError::Io { what: format!("record of disk {}", this.id()), source };
            this.update_meta(Apply::IfStored, forget).map_err(io)
        })
        .await?;
        drop(changing);
        self.merge_in_background();
        Ok(())
    }

    /// Starts a task that moves the blocks of abandoned epochs, unless it is running already.
    pub(super) fn merge_in_background(self: &Arc<Self>) {
        if self.merging.swap(true, Ordering::AcqRel) {
            return;
        }
        let disk = self.clone();
        self.node().runtime.spawn(async move {
            let merging = Merging(&disk.merging);
            let merged = disk.merge_abandoned().await;
            drop(merging);
            match merged {
                // Another commit was abandoned after the task had last looked and before it cleared its mark.
                Ok(()) if disk.abandoned().is_some() => disk.merge_in_background(),
                Ok(()) => {}
                // Reads still find its blocks. The next abandoned commit or the next start tries again.
                Err(error) => {
                    tracing::warn!(disk.id = %disk.id(), error = %error, "an abandoned epoch could not be merged");
                }
            }
        });
    }

    /// The oldest epoch that is to be merged, and the epoch after it: one whose commit was abandoned, or, when epochs run
    /// short, one that the growth of the disk ended. That one may hold all that was ever written to the disk.
    pub(super) fn abandoned(&self) -> Option<(EpochMeta, EpochMeta)> {
        let meta = self.meta.load();
        let is_short = meta.epochs.len() >= EPOCHS_MAX - 1;
        let has_grown = |(old, next): &(&EpochMeta, &EpochMeta)| meta.bytes_of(old) != meta.bytes_of(next);
        let pairs = meta.epochs.iter().zip(meta.epochs.iter().skip(1));
        let mut ended = pairs.filter(|(old, _)| old.commit.is_none()).filter(|pair| is_short || !has_grown(pair));
        ended.next().map(|(old, next)| (*old, *next))
    }

    async fn merge_abandoned(self: &Arc<Self>) -> Result<(), DiskError> {
        loop {
            let Some((old_entry, next_entry)) = self.abandoned() else { return Ok(()) };
            let layers = self.layers();
            let find = |number| layers.epochs.iter().find(|epoch| epoch.number == number).cloned();
            let (Some(old), Some(next)) = (find(old_entry.number), find(next_entry.number)) else { return Ok(()) };
            old.drained().await;
            let this = self.clone();
            let (from, to) = (old.clone(), next.clone());
            blocking(move || this.move_blocks(&from, &to).map_err(|fault| this.fault(fault))).await?;
            let _changing = self.changing.lock().await;
            let this = self.clone();
            blocking(move || this.drop_merged(old_entry, next_entry)).await?;
        }
    }

    /// Copies what `from` has and `to` has not. Readers see the same bytes at every moment: newest first.
    fn move_blocks(&self, from: &Epoch, to: &Epoch) -> Result<(), Fault> {
        let end = from.bits.blocks();
        let mut at = 0;
        while at < end {
            let (state, run) = from.bits.run(at, end);
            if state == BlockState::Absent {
                at += run;
                continue;
            }
            let step = run.min(STEP_BLOCKS - at % STEP_BLOCKS);
            // No write may come between looking at the newer epoch and copying.
            let _exclusive = self.stripes().lock_exclusive(at * BLOCK_BYTES);
            let mut block = at;
            while block < at + step {
                let (known, same) = to.bits.run(block, at + step);
                if known == BlockState::Absent {
                    match state {
                        BlockState::Zero => to.bits.set_zero(block..block + same),
                        BlockState::Data | BlockState::Absent => {
                            let mut buf = AlignedBuf::default();
                            let bytes = buf.slice(usize_from(same * BLOCK_BYTES));
                            from.read_blocks(block, bytes).map_err(|e| Fault::from_io("delta", &e))?;
                            to.write_blocks(block, bytes).map_err(|e| Fault::from_io("delta", &e))?;
                            to.bits.set_data(block..block + same);
                        }
                    }
                }
                block += same;
            }
            at += step;
        }
        to.flush().map_err(|error| self.flush_failed(error))
    }

    /// Removes an epoch whose blocks were moved. The caller holds `changing`.
    fn drop_merged(&self, old: EpochMeta, next: EpochMeta) -> Result<(), DiskError> {
        let io = |source| DiskError::Io { what: format!("record of disk {}", self.id()), source };
        let meta = self.meta.load_full();
        let at = meta.epochs.iter().position(|epoch| epoch.number == old.number);
        let follows = at.and_then(|at| meta.epochs.get(at + 1)).is_some_and(|epoch| epoch.number == next.number);
        if !follows {
            // One of the two was folded meanwhile.
            return Ok(());
        }
        self.update_meta(Apply::IfStored, |meta| meta.epochs.retain(|epoch| epoch.number != old.number)).map_err(io)?;
        self.change_layers(|now| Layers {
            base: now.base.clone(),
            epochs: now.epochs.iter().filter(|epoch| epoch.number != old.number).cloned().collect(),
        });
        self.place(&old).remove(&self.node().holder).map_err(io)
    }
}
