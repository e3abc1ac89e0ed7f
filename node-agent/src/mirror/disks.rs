//! The registry: which disks this node has, their mounts, and cuts of several of them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use muster_api::{
    CommitId, DiskId, InstanceId, VersionId,
    node_protocol::{CutDisk, CutMember, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{BLOCK_BYTES, ByteLen};

use super::{
    base::Base,
    bits::{BlockBits, Found},
    cache::Cache,
    commit::Saved,
    config::Config,
    cut::{CutKey, CutState, Flipped, blocking, open_error},
    disk::{Disk, Layers, Node, lock},
    epoch::{Epoch, Place},
    error::DiskError,
    meta::{EpochMeta, Meta, NotStored},
    stable,
};
use crate::{
    fuse::{self, Mounted},
    holder::Holder,
};

/// Largest disk.
const DISK_BYTES_MAX: u64 = 16 << 40;
/// A prepared cut that nobody holds is given up after this time (I10).
const PREPARED_FOR: Duration = Duration::from_secs(30);
/// How long a holder that died alone stays away at most.
const HOLDER_LOOKED_AT_EVERY: Duration = Duration::from_secs(2);
/// How long the outcome of a cut is remembered for those who ask again.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// One disk as it should be here.
#[derive(Clone, Debug)]
pub struct DiskWant {
    /// Disk.
    pub disk: DiskId,
    /// Whose it is.
    pub instance: InstanceId,
    /// An older one than what is here is refused.
    pub generation: u64,
    /// Logical size, a multiple of 4096.
    pub size_bytes: u64,
    /// Its newest published version.
    pub version: VersionId,
    /// Of that version.
    pub root: VersionRoot,
}

/// One disk as it is here.
#[derive(Clone, Debug)]
pub struct DiskStatus {
    /// Disk.
    pub disk: DiskId,
    /// Whose it is.
    pub instance: InstanceId,
    /// The raw file.
    pub path: PathBuf,
    /// Its newest published version, as known here.
    pub version: VersionId,
    /// The generation it is written under.
    pub generation: u64,
    /// Logical size.
    pub size_bytes: u64,
    /// Written since that version.
    pub unsaved_bytes: u64,
    /// Fetched from other nodes on its behalf.
    pub fetched_bytes: u64,
    /// Kept in its deltas.
    pub local_bytes: u64,
    /// The raw file is there and answers.
    pub mounted: bool,
    /// Set when a flush failed for good.
    pub failed: Option<String>,
}

/// All disks of a node.
pub struct Disks {
    node: Arc<Node>,
    entries: RwLock<HashMap<DiskId, Arc<Entry>>>,
    /// One change per disk at a time: make, mount, remove.
    changing: Mutex<HashMap<DiskId, Arc<tokio::sync::Mutex<()>>>>,
    cuts: Mutex<HashMap<CutKey, Cut>>,
}

struct Entry {
    disk: Arc<Disk>,
    mounted: Mutex<Option<Mounted>>,
}

struct Cut {
    disks: Vec<Arc<Disk>>,
    commits: Vec<CommitId>,
    state: CutState,
    at: Instant,
}

impl Disks {
    /// Finds the disks an earlier process left, takes its dead mounts away and replays its journals. Nothing is mounted
    /// until [`Self::ensure`] asks for it: what an instance may write to is the controller's word, not this folder's.
    ///
    /// # Errors
    /// When the data directory cannot be used. One bad disk does not keep the others away: it is logged and left.
    pub async fn open(config: Config, pool: PoolClient, holder: Holder) -> Result<Arc<Self>, DiskError> {
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let io = |what: &str| {
                let what = what.to_owned();
                move |source| DiskError::Io { what, source }
            };
            let disks_dir = config.data_dir.join("disks");
            std::fs::create_dir_all(&config.data_dir)
                .and_then(|()| stable::make_folder(&disks_dir))
                .and_then(|()| stable::sync_parent(&disks_dir))
                // The process before may have ended between making a disk and making its name durable.
                .and_then(|()| stable::sync_folder(&disks_dir))
                .map_err(io("the folder of disks"))?;
            fuse::clear_stale(&config.cluster, &config.node, &disks_dir).map_err(io("dead mounts"))?;
            let cache = Cache::open(
                config.data_dir.join("cache"),
                config.cache_bytes_max,
                config.keep_free_bytes,
                pool.clone(),
                runtime.clone(),
            )
            .map_err(io("the cache"))?;
            let cache = Arc::new(cache);
            let node = Arc::new(Node { config, pool, cache, holder, pages: super::base::Pages::default(), runtime });
            let this =
                Arc::new(Self { node, entries: RwLock::default(), changing: Mutex::default(), cuts: Mutex::default() });
            this.load_all(&disks_dir).map_err(io("the folder of disks"))?;
            watch_holder(&this);
            Ok(this)
        })
        .await
    }

    fn load_all(&self, disks_dir: &Path) -> std::io::Result<()> {
        let mut known = Vec::new();
        for entry in std::fs::read_dir(disks_dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<DiskId>().ok()) else { continue };
            match self.load(id, &entry.path()) {
                Ok(Some(disk)) => {
                    known.extend(disk.meta.load().epochs.iter().map(|epoch| disk.place(epoch).live_key()));
                    disk.merge_in_background();
                    let entry = Arc::new(Entry { disk, mounted: Mutex::default() });
                    self.entries_mut().insert(id, entry);
                }
                Ok(None) => {
                    // It was never complete, so nothing was ever written to it.
                    stable::remove_folder(&entry.path())?;
                }
                Err(error) => {
                    tracing::error!(disk.id = %id, error = %error, source = ?error, "a disk cannot be opened; it is left as it is");
                    // Its maps stay: a later start may do better.
                    known.extend(
                        self.node
                            .holder
                            .list()
                            .unwrap_or_default()
                            .into_iter()
                            .filter(|k| k.starts_with(&id.to_string())),
                    );
                }
            }
        }
        for key in self.node.holder.list().unwrap_or_default() {
            if !known.contains(&key)
                && let Err(error) = self.node.holder.forget(&key)
            {
                tracing::warn!(error = %error, "a live map that nobody needs stays with the holder");
            }
        }
        Ok(())
    }

    fn load(&self, id: DiskId, dir: &Path) -> Result<Option<Arc<Disk>>, DiskError> {
        let io = |source| DiskError::Io { what: format!("record of disk {id}"), source };
        let Some(mut meta) = Meta::load(dir).map_err(io)? else { return Ok(None) };
        // Likewise between replacing this record, or a journal, and syncing the name: what is read now counts from here on.
        stable::sync_folder(dir).map_err(io)?;
        let base = Base::open(id, meta.base, &meta.root)?;
        let open = |entry: &EpochMeta| {
            let place = Place { dir, disk: id, number: entry.number, tag: entry.tag };
            Epoch::open(&place, meta.size_bytes, self.node.config.delta_io, &self.node.holder)
                .map_err(|e| open_error(id, e))
        };
        let mut epochs = Vec::new();
        for entry in &meta.epochs {
            let (epoch, found) = open(entry)?;
            tracing::info!(
                disk.id = %id, epoch = entry.number, live = found == Found::Left,
                blocks = epoch.bits.owned_blocks(), "replayed an epoch"
            );
            epochs.insert(0, Arc::new(epoch));
        }
        let mut kept = vec![meta.prepared.take()];
        if let Some(entry) = kept.first().copied().flatten() {
            let (epoch, _) = open(&entry)?;
            if epoch.bits.owned_blocks() > 0 {
                // Writes were let in: the flip happened and its record did not. The cut was never reported, so what
                // the older epoch has belongs to the next commit.
                meta.epochs.push(entry);
                epochs.insert(0, Arc::new(epoch));
                kept.clear();
            }
            meta.store(dir).map_err(|e| io(e.into_io()))?;
        }
        for entry in kept.into_iter().flatten() {
            let place = Place { dir, disk: id, number: entry.number, tag: entry.tag };
            place.remove(&self.node.holder).map_err(io)?;
        }
        remove_strays(dir, &meta).map_err(io)?;
        Ok(Some(Disk::new(self.node.clone(), dir.to_owned(), meta, Layers { base: Arc::new(base), epochs })))
    }

    /// Makes or adopts a disk and mounts it. Idempotent; a newer version made by one of our commits folds its epochs.
    ///
    /// # Errors
    /// See [`DiskError`]; an older generation is refused.
    pub async fn ensure(&self, want: &DiskWant) -> Result<DiskStatus, DiskError> {
        let changing = self.changing(want.disk);
        let _one_at_a_time = changing.lock().await;
        let entry = self.make_or_adopt(want).await?;
        if !entry.is_mounted() {
            let (entry, path) = (entry.clone(), self.path(want.disk));
            blocking(move || {
                let old = lock(&entry.mounted).take();
                if let Some(mut old) = old {
                    old.unmount();
                }
                let mounted = Mounted::mount(entry.disk.clone(), &path)
                    .map_err(|source| DiskError::Io { what: format!("mounting {}", path.display()), source })?;
                *lock(&entry.mounted) = Some(mounted);
                Ok(())
            })
            .await?;
        }
        Ok(self.status_of(&entry))
    }

    async fn make_or_adopt(&self, want: &DiskWant) -> Result<Arc<Entry>, DiskError> {
        if let Some(entry) = self.entry(want.disk) {
            adopt(&entry.disk, want).await?;
            return Ok(entry);
        }
        let (node, want) = (self.node.clone(), want.clone());
        let disk = blocking(move || create(&node, &want)).await?;
        let entry = Arc::new(Entry { disk, mounted: Mutex::default() });
        self.entries_mut().insert(entry.disk.id(), entry.clone());
        Ok(entry)
    }

    /// [`Self::ensure`] without the mount.
    #[cfg(test)]
    pub(super) async fn unmounted(&self, want: &DiskWant) -> Result<Arc<Disk>, DiskError> {
        Ok(self.make_or_adopt(want).await?.disk.clone())
    }

    /// What opening found.
    #[cfg(test)]
    pub(super) fn found(&self, disk: DiskId) -> Option<Arc<Disk>> {
        self.entry(disk).map(|entry| entry.disk.clone())
    }

    /// Takes a disk away with everything that was written to it. Fine when there is none.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub async fn remove(&self, disk: DiskId) -> Result<(), DiskError> {
        let changing = self.changing(disk);
        let _one_at_a_time = changing.lock().await;
        let entry = self.entries_mut().remove(&disk);
        let path = self.path(disk);
        let dir = self.node.config.data_dir.join("disks").join(disk.to_string());
        let node = self.node.clone();
        let removed = blocking(move || {
            if let Some(entry) = entry {
                entry.disk.set_removed();
                if let Some(mut mounted) = lock(&entry.mounted).take() {
                    mounted.unmount();
                }
                entry.disk.release();
                for epoch in entry.disk.meta.load().epochs.iter().chain(&entry.disk.meta.load().prepared) {
                    if let Err(error) = node.holder.forget(&entry.disk.place(epoch).live_key()) {
                        tracing::warn!(disk.id = %disk, error = %error, "a live map stays with the holder");
                    }
                }
            }
            // The record goes first: half a removal must not look like a disk.
            stable::remove(&dir.join(super::meta::FILE))
                .and_then(|()| stable::remove_folder(&dir))
                .and_then(|()| stable::remove(&path))
                .map_err(|source| DiskError::Io { what: format!("removing disk {disk}"), source })
        })
        .await;
        lock(&self.changing).remove(&disk);
        removed
    }

    /// One disk as it is.
    #[must_use]
    pub fn status(&self, disk: DiskId) -> Option<DiskStatus> {
        self.entry(disk).map(|entry| self.status_of(&entry))
    }

    /// All disks as they are.
    #[must_use]
    pub fn list(&self) -> Vec<DiskStatus> {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        entries.iter().map(|entry| self.status_of(entry)).collect()
    }

    /// Commits that froze epochs still here: after a start, ask what became of them.
    #[must_use]
    pub fn commits(&self) -> Vec<(DiskId, CommitId)> {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        let of = |entry: &Arc<Entry>| {
            let meta = entry.disk.meta.load_full();
            meta.epochs.iter().filter_map(|e| e.commit.map(|c| (meta.disk, c))).collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }

    /// How many epochs a disk has: the written one, those of commits under way, those being merged.
    #[must_use]
    pub fn epochs(&self, disk: DiskId) -> Option<usize> {
        self.entry(disk).map(|entry| entry.disk.layers().epochs.len())
    }

    /// Bytes of clean chunks kept.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.node.cache.bytes()
    }

    /// Makes everything ready for a cut without making anybody wait. All disks or none.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub async fn prepare(self: &Arc<Self>, key: CutKey, wanted: &[CutDisk]) -> Result<(), DiskError> {
        let older: Vec<CutKey> =
            lock(&self.cuts).keys().filter(|other| other.0 == key.0 && other.1 < key.1).copied().collect();
        for older in older {
            // Its hold ends here, not later under the hold of this try.
            self.give_up(older, |state| matches!(state, CutState::Prepared | CutState::Held { .. })).await;
        }
        {
            let mut cuts = lock(&self.cuts);
            cuts.retain(|_, cut| cut.at.elapsed() < REMEMBERED_FOR);
            match cuts.get(&key).map(|cut| &cut.state) {
                None => {}
                Some(CutState::Prepared) => return Ok(()),
                Some(_) => return Err(DiskError::NotPrepared(key.0)),
            }
        }
        let mut disks = Vec::new();
        for wanted in wanted {
            disks.push(self.entry(wanted.disk).ok_or(DiskError::NotFound(wanted.disk))?.disk.clone());
        }
        let preparing = disks.iter().zip(wanted).map(|(disk, wanted)| disk.prepare(key, wanted));
        let prepared = futures::future::join_all(preparing).await;
        if let Some(error) = prepared.into_iter().find_map(Result::err) {
            discard(&disks, key).await;
            return Err(error);
        }
        let commits = wanted.iter().map(|wanted| wanted.commit).collect();
        // A call that was repeated meanwhile must not take a hold back.
        let cut = Cut { disks, commits, state: CutState::Prepared, at: Instant::now() };
        lock(&self.cuts).entry(key).or_insert(cut);
        let this = Arc::downgrade(self);
        self.node.runtime.spawn(async move {
            tokio::time::sleep(PREPARED_FOR).await;
            let Some(this) = this.upgrade() else { return };
            this.give_up(key, |state| matches!(state, CutState::Prepared)).await;
        });
        Ok(())
    }

    /// Holds new writes of all its disks, for at most `max_pause`: then they go on by themselves and a flip is refused.
    ///
    /// # Errors
    /// When it was not prepared, or is over.
    pub async fn hold(self: &Arc<Self>, key: CutKey, max_pause: Duration) -> Result<(), DiskError> {
        {
            let mut cuts = lock(&self.cuts);
            let cut = cuts.get_mut(&key).ok_or(DiskError::NotPrepared(key.0))?;
            match cut.state {
                CutState::Prepared => {}
                CutState::Held { .. } => return Ok(()),
                CutState::Flipped { .. } | CutState::Over => return Err(DiskError::HoldExpired(key.0)),
            }
            let since = Instant::now();
            for disk in &cut.disks {
                disk.hold();
            }
            cut.state = CutState::Held { since, until: since + max_pause };
        }
        let this = Arc::downgrade(self);
        self.node.runtime.spawn(async move {
            tokio::time::sleep(max_pause).await;
            let Some(this) = this.upgrade() else { return };
            this.give_up(key, |state| matches!(state, CutState::Held { .. })).await;
        });
        Ok(())
    }

    /// Cuts: what was admitted before is in, what comes after is not. Asked again, it answers the same.
    ///
    /// # Errors
    /// [`DiskError::HoldExpired`] when the hold's own timer was faster; nothing was cut then.
    pub async fn flip(self: &Arc<Self>, key: CutKey) -> Result<Vec<CutMember>, DiskError> {
        let mut late = None;
        let mut incomplete = false;
        let flipped: Vec<(Arc<Disk>, Flipped, u64)> = {
            let mut cuts = lock(&self.cuts);
            let cut = cuts.get_mut(&key).ok_or(DiskError::NotPrepared(key.0))?;
            match &cut.state {
                CutState::Flipped { members } => return Ok(members.clone()),
                CutState::Over => return Err(DiskError::HoldExpired(key.0)),
                CutState::Prepared => return Err(DiskError::NotPrepared(key.0)),
                // The clock decides, not the timer task: it may be late itself.
                CutState::Held { until, .. } if Instant::now() >= *until => {
                    late = Some(());
                    Vec::new()
                }
                CutState::Held { since, .. } => {
                    let since = *since;
                    let disks = cut.disks.clone();
                    let mut flipped = Vec::with_capacity(disks.len());
                    for disk in &disks {
                        if let Some(flip) = disk.flip(key) {
                            flipped.push((disk.clone(), flip));
                        }
                    }
                    incomplete = flipped.len() < disks.len();
                    // Only now, when every disk of this node is behind the cut.
                    cut.state = CutState::Over;
                    for disk in &disks {
                        disk.release();
                    }
                    let pause_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                    flipped.into_iter().map(|(disk, flip)| (disk, flip, pause_us)).collect()
                }
            }
        };
        if late.is_some() {
            self.give_up(key, |state| matches!(state, CutState::Held { .. })).await;
            return Err(DiskError::HoldExpired(key.0));
        }
        let recorded = flipped.into_iter().map(|(disk, flip, pause_us)| {
            blocking(move || {
                disk.record_flip(&flip)?;
                let layers = disk.layers();
                let frozen: Vec<&BlockBits> = layers.epochs.iter().skip(1).map(|epoch| &epoch.bits).collect();
                let dirty_bytes = BlockBits::union_count(&frozen) * BLOCK_BYTES;
                Ok(CutMember { disk: disk.id(), pause_us, dirty_bytes })
            })
        });
        let members = futures::future::try_join_all(recorded).await?;
        if incomplete {
            // What was prepared for it is gone from a disk: a cut of all or none is none.
            self.abort(key).await?;
            return Err(DiskError::NotPrepared(key.0));
        }
        if let Some(cut) = lock(&self.cuts).get_mut(&key) {
            cut.state = CutState::Flipped { members: members.clone() };
        }
        Ok(members)
    }

    /// Gives a cut up: held writes go on; what flipped already is abandoned.
    ///
    /// # Errors
    /// When the abandoning cannot be recorded.
    pub async fn abort(&self, key: CutKey) -> Result<(), DiskError> {
        self.give_up(key, |state| !matches!(state, CutState::Flipped { .. })).await;
        let Some(cut) = lock(&self.cuts).remove(&key) else { return Ok(()) };
        for (disk, commit) in cut.disks.iter().zip(cut.commits) {
            disk.abandon(commit).await?;
        }
        Ok(())
    }

    async fn give_up(&self, key: CutKey, when: impl Fn(&CutState) -> bool) {
        let disks = {
            let mut cuts = lock(&self.cuts);
            let Some(cut) = cuts.get_mut(&key).filter(|cut| when(&cut.state)) else { return };
            if matches!(cut.state, CutState::Held { .. }) {
                for disk in &cut.disks {
                    disk.release();
                }
            }
            cut.state = CutState::Over;
            cut.disks.clone()
        };
        discard(&disks, key).await;
    }

    /// Uploads what `commit` froze and builds the new tree; everything it returns is durable in the pool (I3).
    ///
    /// # Errors
    /// See [`DiskError`]; it can be repeated.
    pub async fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let entry = self.entry(disk).ok_or(DiskError::NotFound(disk))?;
        entry.disk.save(commit, round).await
    }

    /// The commit will never be published: its blocks belong to the next one. Fine when it is not known.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub async fn abandon(&self, disk: DiskId, commit: CommitId) -> Result<(), DiskError> {
        match self.entry(disk) {
            Some(entry) => entry.disk.abandon(commit).await,
            None => Ok(()),
        }
    }

    /// Flushes and unmounts everything. Whether all that was acknowledged is in the journals now: else the live maps
    /// are still needed.
    pub async fn shutdown(&self) -> bool {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        let ends = entries.into_iter().map(|entry| async move {
            entry.disk.release();
            if let Err(error) = entry.disk.flush().await {
                tracing::error!(disk.id = %entry.disk.id(), error = %error, "the last flush failed");
            }
            let ending = entry.clone();
            let unmounted = blocking(move || {
                let mounted = lock(&ending.mounted).take();
                if let Some(mut mounted) = mounted {
                    mounted.unmount();
                }
                Ok(())
            })
            .await;
            // Whatever was let in while the mount went away.
            let flushed = entry.disk.flush().await.map_err(|fault| entry.disk.fault(fault));
            let ended = unmounted.and(flushed);
            if let Err(error) = &ended {
                tracing::error!(error = %error, "a disk did not end cleanly");
            }
            ended.is_ok()
        });
        let flushed = futures::future::join_all(ends).await.into_iter().all(|flushed| flushed);
        let cache = self.node.cache.clone();
        if tokio::task::spawn_blocking(move || cache.stop()).await.is_err() {
            tracing::warn!("the cache will be checked again at the next start");
        }
        flushed
    }

    fn path(&self, disk: DiskId) -> PathBuf {
        self.node.config.data_dir.join("disks").join(format!("{disk}.raw"))
    }

    fn changing(&self, disk: DiskId) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.changing).entry(disk).or_default().clone()
    }

    fn entry(&self, disk: DiskId) -> Option<Arc<Entry>> {
        self.entries().get(&disk).cloned()
    }

    fn entries(&self) -> std::sync::RwLockReadGuard<'_, HashMap<DiskId, Arc<Entry>>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn entries_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<DiskId, Arc<Entry>>> {
        self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn status_of(&self, entry: &Entry) -> DiskStatus {
        let disk = &entry.disk;
        let meta = disk.meta.load();
        let layers = disk.layers();
        let bits: Vec<&BlockBits> = layers.epochs.iter().map(|epoch| &epoch.bits).collect();
        DiskStatus {
            disk: disk.id(),
            instance: meta.instance,
            path: self.path(disk.id()),
            version: meta.base,
            generation: meta.generation,
            size_bytes: disk.size_bytes(),
            unsaved_bytes: BlockBits::union_count(&bits) * BLOCK_BYTES,
            fetched_bytes: disk.fetched_bytes(),
            local_bytes: layers.epochs.iter().map(|epoch| epoch.local_bytes()).sum(),
            mounted: entry.is_mounted(),
            failed: disk.failed(),
        }
    }
}

impl Entry {
    fn is_mounted(&self) -> bool {
        lock(&self.mounted).as_ref().is_some_and(Mounted::is_serving)
    }
}

/// A holder that died alone is started again and gets its maps back from this process: until then a death of this one
/// would cost writes that were acknowledged and not synced (I2).
fn watch_holder(disks: &Arc<Disks>) {
    let (holder, runtime) = (disks.node.holder.clone(), disks.node.runtime.clone());
    let disks = Arc::downgrade(disks);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(HOLDER_LOOKED_AT_EVERY).await;
            if disks.strong_count() == 0 {
                return;
            }
            let holder = holder.clone();
            let listed = tokio::task::spawn_blocking(move || holder.list());
            if let Ok(Err(error)) = listed.await {
                tracing::warn!(error = %error, "the holder of the live maps does not answer");
            }
        }
    });
}

async fn discard(disks: &[Arc<Disk>], key: CutKey) {
    for disk in disks {
        let _changing = disk.changing.lock().await;
        if let Err(error) = disk.discard_prepared(key).await {
            tracing::warn!(disk.id = %disk.id(), error = %error, "what was prepared for a cut stays until the next start");
        }
    }
}

/// Checks the wish against what is here and moves what is here towards it.
async fn adopt(disk: &Arc<Disk>, want: &DiskWant) -> Result<(), DiskError> {
    let id = want.disk;
    let meta = disk.meta.load_full();
    if want.generation < meta.generation {
        return Err(DiskError::OlderGeneration { disk: id, have: meta.generation, asked: want.generation });
    }
    if want.size_bytes != meta.size_bytes || want.instance != meta.instance {
        let what = format!(
            "has {} bytes and belongs to {}, asked for {} bytes of {}",
            meta.size_bytes, meta.instance, want.size_bytes, want.instance
        );
        return Err(DiskError::Invalid { disk: id, what });
    }
    if want.version != meta.base {
        disk.rebase(want.version, &want.root).await?;
    }
    if want.generation > meta.generation {
        let (disk, generation) = (disk.clone(), want.generation);
        blocking(move || {
            disk.update_meta(super::disk::Apply::IfStored, |meta| meta.generation = generation)
                .map_err(|source| DiskError::Io { what: format!("record of disk {id}"), source })
        })
        .await?;
    }
    Ok(())
}

fn create(node: &Arc<Node>, want: &DiskWant) -> Result<Arc<Disk>, DiskError> {
    let id = want.disk;
    let invalid = |what: String| DiskError::Invalid { disk: id, what };
    let io = |source: std::io::Error| {
        if super::error::is_no_space(&source) {
            DiskError::NoSpace(id)
        } else {
            DiskError::Io { what: format!("making disk {id}"), source }
        }
    };
    if want.size_bytes == 0 || !want.size_bytes.is_multiple_of(BLOCK_BYTES) || want.size_bytes > DISK_BYTES_MAX {
        return Err(invalid(format!("a size of {} bytes", want.size_bytes)));
    }
    let base = Base::open(id, want.version, &want.root)?;
    if base.size_bytes() > ByteLen(want.size_bytes) {
        return Err(invalid(format!("version of {} bytes on a disk of {}", base.size_bytes(), want.size_bytes)));
    }
    let dir = node.config.data_dir.join("disks").join(id.to_string());
    if dir.join(super::meta::FILE).exists() {
        // It could not be opened at start. Making it anew would destroy what was written to it.
        return Err(DiskError::Corrupt { disk: id, what: "what is here cannot be opened; see the log".to_owned() });
    }
    stable::make_folder(&dir).map_err(io)?;
    let random = || getrandom::u64().map_err(|e| io(std::io::Error::other(e)));
    let entry = EpochMeta { number: 0, tag: random()?, commit: None };
    let place = Place { dir: &dir, disk: id, number: entry.number, tag: entry.tag };
    let epoch =
        Epoch::create(&place, want.size_bytes, node.config.delta_io, &node.holder).map_err(|e| open_error(id, e))?;
    let meta = Meta {
        format: Meta::FORMAT,
        disk: id,
        instance: want.instance,
        generation: want.generation,
        size_bytes: want.size_bytes,
        base: want.version,
        root: want.root.clone(),
        epochs: vec![entry],
        prepared: None,
        failed: None,
        fetched_bytes: 0,
    };
    // Last: a folder without a record was never a disk.
    let stored = meta.store(&dir).map_err(NotStored::into_io).and_then(|()| stable::sync_parent(&dir));
    if let Err(error) = stored {
        // Nothing was written to it: the next try is to find no disk.
        if let Err(error) = stable::remove(&dir.join(super::meta::FILE)) {
            tracing::warn!(disk.id = %id, error = %error, "half a disk stays until the next start");
        }
        return Err(io(error));
    }
    Ok(Disk::new(node.clone(), dir, meta, Layers { base: Arc::new(base), epochs: vec![Arc::new(epoch)] }))
}

/// Files of epochs that the record does not know: folded, merged or given up, and the crash came before their removal.
fn remove_strays(dir: &Path, meta: &Meta) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((stem, kind)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        let known = stem.parse().is_ok_and(|number: u64| meta.epochs.iter().any(|epoch| epoch.number == number));
        if matches!(kind, "delta" | "bits" | "bits-new") && (!known || kind == "bits-new") {
            stable::remove(&entry.path())?;
        }
    }
    Ok(())
}
