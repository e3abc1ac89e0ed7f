//! The registry of the node's disks: which disks there are, their mounts, and cuts of several of them.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::BoxFuture};
use muster_api::{
    CommitId, DiskId, InstanceId, VersionId,
    node_protocol::{CutDisk, CutKey, CutMember, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{BLOCK_BYTES, ByteLen, cause::explain, lock, units::DISK_BYTES_MAX};

use super::{
    base::Base,
    bits::{BlockBits, Found},
    boots::Ended,
    cache::Cache,
    commit::{Saved, Speed},
    config::Config,
    cut::{CutState, Flipped, blocking, open_error},
    disk::{Disk, Layers, Node, micros},
    epoch::{Epoch, Place, check_direct_io},
    error::DiskError,
    lost::LostContent,
    meta::{EpochMeta, Meta, NotStored},
    prefetch::{Starts, Turns},
    stable,
};
use crate::{holder::Holder, pace::Pace};

/// A prepared cut that is not held within this time is given up (I10).
const PREPARED_FOR: Duration = Duration::from_secs(30);
/// How often to check that the holder is alive, and so the longest time it stays away when only it dies.
const HOLDER_CHECKED_EVERY: Duration = Duration::from_secs(2);
/// Bytes of the cache that are hashed per second in the background. A round of 400 GiB takes a bit more than a day.
const SCRUB_BYTES_PER_S: u64 = 4 << 20;
/// Shortest time from the start of one round of the scrub to the start of the next.
const SCRUB_ROUND: Duration = Duration::from_secs(3600);
/// Disks that are created, mounted or removed at the same time. They share the syncs of the file system, and each takes a
/// thread.
const CHANGES_MAX: usize = 32;
/// Longest wait for the answers to held writes before a flip is reported.
const HELD_ANSWERED: Duration = Duration::from_secs(1);
/// How long the outcome of a cut is remembered for repeated calls.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// The desired state of one disk on this node, as the controller assigns it.
#[derive(Clone, Debug)]
pub struct DiskWant {
    /// Id of the disk.
    pub disk: DiskId,
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// Generation of the assignment. One that is older than the disk's own is refused.
    pub generation: u64,
    /// Logical size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// The newest published version of the disk.
    pub version: VersionId,
    /// Descriptor and root page of that version.
    pub root: VersionRoot,
    /// Whether programs may use it. If not, it is unmounted and kept.
    pub served: bool,
    /// The generation from which its content counts. A copy of an older one is removed, with everything that was written to
    /// it, and the disk begins anew from `version`.
    pub since_generation: u64,
}

/// The actual state of one disk on this node.
#[derive(Clone, Debug)]
pub struct DiskStatus {
    /// Id of the disk.
    pub disk: DiskId,
    /// The instance it belongs to.
    pub instance: InstanceId,
    /// Path of the raw file.
    pub path: PathBuf,
    /// The newest published version that this node knows of.
    pub version: VersionId,
    /// Descriptor and root page of that version.
    pub root: VersionRoot,
    /// Generation under which the disk is written.
    pub generation: u64,
    /// Logical size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Bytes of the blocks that were written since that version.
    pub unsaved_bytes: u64,
    /// Bytes fetched from other nodes for this disk.
    pub fetched_bytes: u64,
    /// Bytes of the blocks in its deltas.
    pub local_bytes: u64,
    /// Bytes that programs read and wrote since this process opened the disk.
    pub used_bytes: u64,
    /// Whether the raw file is mounted and served, and a program has read a block of it through the mount.
    pub mounted: bool,
    /// Whether programs may be able to write to the raw file: it is mounted, also if nothing was read through the mount yet.
    /// If not, the rest of this status has everything that was ever written.
    pub reachable: bool,
    /// What of it no node of the pool has any more, as far as it was read.
    pub lost: Option<LostContent>,
    /// Number of the start whose first reads of chunks are recorded; `None` if none is.
    pub recorded: Option<u64>,
    /// Why the disk has failed for good: a flush failed, or its journal is damaged. It is not mounted again then.
    pub failed: Option<String>,
    /// Set while its users wait for bytes that cannot be had because a clock is wrong: what is wrong with it.
    pub clock_off: Option<String>,
}

/// All disks of a node.
pub struct Disks {
    node: Arc<Node>,
    entries: RwLock<HashMap<DiskId, Arc<Entry>>>,
    /// Locks that let one task at a time create, mount or remove a disk.
    changing: Mutex<HashMap<DiskId, Arc<tokio::sync::Mutex<()>>>>,
    /// Why disks that an earlier process left could not be opened. Creating them anew would destroy what was written.
    unopened: Mutex<HashMap<DiskId, String>>,
    cuts: Mutex<HashMap<CutKey, Cut>>,
    mount: MountDisk,
    /// Permits of [`Self::change_one`].
    changes: tokio::sync::Semaphore,
    pub(super) ended_boots: Ended,
    pub(super) starts: Starts,
}

/// Mounts a disk as the raw file at this path and serves it.
pub(crate) type MountDisk = Arc<dyn Fn(Arc<Disk>, &Path) -> std::io::Result<Box<dyn MountedDisk>> + Send + Sync>;

/// A mounted disk. Dropping it unmounts. It is a trait so that the mirror does not depend on FUSE.
pub(crate) trait MountedDisk: Send {
    /// Whether the connection to the kernel still works.
    fn is_serving(&self) -> bool;
    /// Reads a block through the mount, as a program does. Fails when the read does, and when the answer takes too long.
    fn first_read(&self) -> BoxFuture<'static, std::io::Result<()>>;
    /// Tells the kernel that the disk has grown. Programs that have the file open see its new size from now on. Blocks.
    fn grown(&self);
    /// Unmounts the disk. Programs that have the file open get errors from now on.
    fn unmount(&mut self);
}

struct Entry {
    disk: Arc<Disk>,
    mounted: Mutex<Option<Mount>>,
    /// Whether the mount is being taken away.
    ending: AtomicBool,
}

struct Mount {
    disk: Box<dyn MountedDisk>,
    /// Whether a block was read through it.
    tried: Arc<AtomicBool>,
}

struct Cut {
    disks: Vec<Arc<Disk>>,
    /// The commit of each disk.
    commits: Vec<CommitId>,
    state: CutState,
    at: Instant,
}

/// The first part of a flip, which works in memory.
enum FlipInMemory {
    /// It was done by an earlier call, with this answer.
    Answered(Vec<CutMember>),
    /// The hold has expired, so writes went on. Nothing was flipped.
    TooLate,
    Done {
        flips: Vec<(Arc<Disk>, Flipped)>,
        pause_us: u64,
        /// Whether all disks of the cut were flipped.
        complete: bool,
    },
}

impl Disks {
    /// Opens the disks that an earlier process left, whose mounts are gone, and replays their journals. Nothing is mounted
    /// until [`Self::ensure`] is called, because the controller decides which disks an instance may use here.
    pub(crate) async fn open(
        config: Config,
        pool: PoolClient,
        holder: Holder,
        mount: MountDisk,
    ) -> Result<Arc<Self>, DiskError> {
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
                // An earlier process may have died after creating a disk and before making its name durable.
                .and_then(|()| stable::sync_folder(&disks_dir))
                .and_then(|()| check_direct_io(&disks_dir))
                .map_err(io("the folder of disks"))?;
            let pages = Arc::new(super::base::Pages::default());
            let cache = Cache::open(&config, pages.clone(), pool.clone(), runtime.clone()).map_err(io("the cache"))?;
            let cache = Arc::new(cache);
            let background = Pace::new(config.background_bytes_per_s);
            let node = Arc::new(Node {
                config,
                pool,
                cache,
                holder,
                pages,
                background,
                turns: Turns::default(),
                runtime,
                read_bytes: AtomicU64::new(0),
                written_bytes: AtomicU64::new(0),
            });
            let (entries, changing, cuts) = (RwLock::default(), Mutex::default(), Mutex::default());
            let (unopened, changes) = (Mutex::default(), tokio::sync::Semaphore::new(CHANGES_MAX));
            let (ended_boots, starts) = (Ended::default(), Starts::default());
            let this = Arc::new(Self { node, entries, changing, unopened, cuts, mount, changes, ended_boots, starts });
            this.load_all(&disks_dir).map_err(io("the folder of disks"))?;
            watch_holder(&this);
            scrub_cache(&this);
            Ok(this)
        })
        .await
    }

    fn load_all(&self, disks_dir: &Path) -> std::io::Result<()> {
        let mut known = HashSet::new();
        for entry in std::fs::read_dir(disks_dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<DiskId>().ok()) else { continue };
            match self.load(id, &entry.path()) {
                Ok(Some(disk)) => {
                    known.extend(disk.meta.load().epochs.iter().map(|epoch| disk.place(epoch).live_key()));
                    disk.merge_in_background();
                    let entry = Entry::unmounted(disk);
                    self.entries_mut().insert(id, entry);
                }
                Ok(None) => {
                    // Its creation was never completed, so nothing was written to it.
                    stable::remove_folder(&entry.path())?;
                }
                Err(error) => {
                    let why = explain(&error);
                    tracing::error!(disk.id = %id, "a disk cannot be opened; it is left as it is: {why}");
                    lock(&self.unopened).insert(id, why);
                }
            }
        }
        // The live maps of a disk that could not be opened stay: a later start may be able to open it.
        let kept: Vec<String> = lock(&self.unopened).keys().map(|disk| format!("{disk}/")).collect();
        forget_live_maps(&self.node.holder, |key| {
            !known.contains(key) && !kept.iter().any(|disk| key.starts_with(disk))
        });
        Ok(())
    }

    /// Opens one disk. `None` if its creation was never completed.
    fn load(&self, id: DiskId, dir: &Path) -> Result<Option<Arc<Disk>>, DiskError> {
        let io = |source| DiskError::Io { what: dir.join(super::meta::FILE).display().to_string(), source };
        let Some(mut meta) = Meta::load(dir).map_err(io)? else { return Ok(None) };
        // An earlier process may have died after replacing this record, or a journal, and before making the name durable.
        // What is read now must stay.
        stable::sync_folder(dir).map_err(io)?;
        let base = Base::open(id, meta.base, &meta.root)?;
        let sizes = meta.clone();
        let bytes_of = |entry: &EpochMeta| sizes.bytes_of(entry);
        let open = |entry: &EpochMeta| {
            let place = Place { dir, disk: id, number: entry.number, tag: entry.tag };
            Epoch::open(&place, bytes_of(entry), &self.node.holder).map_err(|e| open_error(id, e))
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
        let prepared = meta.prepared.take();
        let mut unused = prepared;
        if let Some(entry) = prepared {
            let (epoch, _) = open(&entry)?;
            if epoch.bits.owned_blocks() > 0 || epoch.failed().is_some() {
                // It has admitted writes, so the flip happened but was not recorded. The cut was never reported, so the
                // blocks of the older epoch belong to the next commit.
                meta.epochs.push(entry);
                epochs.insert(0, Arc::new(epoch));
                unused = None;
            }
        }
        let damaged = epochs.iter().find_map(|epoch| epoch.failed());
        if let Some(what) = damaged {
            tracing::error!(disk.id = %id, "a disk failed for good: {what}");
            meta.failed.get_or_insert(what.clone());
        }
        if prepared.is_some() || damaged.is_some() {
            meta.store(dir).map_err(|e| io(e.into_io()))?;
        }
        if let Some(entry) = unused {
            let place = Place { dir, disk: id, number: entry.number, tag: entry.tag };
            place.remove(&self.node.holder).map_err(io)?;
        }
        remove_strays(dir, &meta).map_err(io)?;
        Ok(Some(Disk::new(self.node.clone(), dir.to_owned(), meta, Layers { base: Arc::new(base), epochs })))
    }

    /// Creates a disk, or updates the existing one, and mounts it, or unmounts it if it is not to be served. One that is
    /// smaller than wanted grows. May be repeated. If the version is newer and was made by a commit of this disk, the epochs
    /// of that commit are folded.
    ///
    /// # Errors
    /// See [`DiskError`]. An older generation is refused. After [`DiskError::NotGrown`] everything but the growth is done.
    pub async fn ensure(&self, want: &DiskWant) -> Result<DiskStatus, DiskError> {
        let changing = self.changing(want.disk);
        let one_at_a_time = changing.lock().await;
        let earlier = self.give_up_older(want).await?;
        let entry = self.make_or_adopt(want, earlier).await?;
        if !want.served {
            self.unmount(&entry).await?;
        } else if !entry.is_serving() {
            if let Some(what) = entry.disk.failed() {
                // Acknowledged writes may be missing. A guest that finds that out by itself makes it worse.
                return Err(DiskError::Failed { disk: want.disk, what });
            }
            let (entry, path, mount) = (entry.clone(), self.path(want.disk), self.mount.clone());
            self.change_one(move || {
                let old = lock(&entry.mounted).take();
                if let Some(mut old) = old {
                    old.disk.unmount();
                }
                let disk = mount(entry.disk.clone(), &path)
                    .map_err(|source| DiskError::Io { what: format!("mounting {}", path.display()), source })?;
                *lock(&entry.mounted) = Some(Mount { disk, tried: Arc::default() });
                Ok(())
            })
            .await?;
        }
        // After the mount: a disk that cannot grow yet is used as it is.
        let grown = self.grow(&entry, want.size_bytes).await;
        // The disk may be removed while the read waits for another node.
        drop(one_at_a_time);
        self.try_mount(&entry).await?;
        grown?;
        Ok(self.status_of(&entry))
    }

    /// Removes the copy of a disk that was given up, because another content was put in place since. The caller changes no other
    /// disk of this id meanwhile. An agent that ends in between finds an incomplete removal, or no disk, and makes it anew.
    /// Returns the versions that the copy was based on: a database that is an older copy may ask for one of them.
    async fn give_up_older(&self, want: &DiskWant) -> Result<Vec<VersionId>, DiskError> {
        if want.since_generation == 0 {
            return Ok(Vec::new());
        }
        let here = match self.entry(want.disk) {
            Some(entry) => Some(entry.disk.meta.load_full().as_ref().clone()),
            // One that cannot be opened is given up as well, if its record says of when it is.
            None if lock(&self.unopened).contains_key(&want.disk) => {
                let dir = self.node.config.data_dir.join("disks").join(want.disk.to_string());
                blocking(move || Ok(Meta::load(&dir).ok().flatten())).await?
            }
            None => None,
        };
        let is_older = |meta: &Meta| meta.instance == want.instance && meta.generation < want.since_generation;
        let Some(Meta { generation, base, mut earlier, .. }) = here.filter(is_older) else { return Ok(Vec::new()) };
        if want.generation < want.since_generation {
            return Ok(Vec::new());
        }
        earlier.push(base);
        earlier.retain(|version| *version != want.version);
        tracing::info!(
            disk.id = %want.disk, version.id = %want.version, generation, since = want.since_generation,
            "another content was put in place of a disk: its copy of before is removed"
        );
        self.take_away(want.disk).await?;
        Ok(earlier)
    }

    /// Unmounts a disk, if it is mounted. Programs that have its file open get errors from now on.
    async fn unmount(&self, entry: &Arc<Entry>) -> Result<(), DiskError> {
        if lock(&entry.mounted).is_none() {
            return Ok(());
        }
        let entry = entry.clone();
        self.change_one(move || {
            // Programs may reach it until no thread serves it any more.
            entry.ending.store(true, Ordering::SeqCst);
            let mounted = lock(&entry.mounted).take();
            if let Some(mut mounted) = mounted {
                mounted.disk.unmount();
            }
            entry.ending.store(false, Ordering::SeqCst);
            Ok(())
        })
        .await
    }

    /// Reads a block through the mount of a disk, unless that was done.
    async fn try_mount(&self, entry: &Entry) -> Result<(), DiskError> {
        let untried = lock(&entry.mounted)
            .as_ref()
            .filter(|mount| !mount.tried.load(Ordering::Acquire))
            .map(|mount| (mount.disk.first_read(), mount.tried.clone()));
        let Some((read, tried)) = untried else { return Ok(()) };
        let what = || format!("the first read of {}", self.path(entry.disk.id()).display());
        read.await.map_err(|source| DiskError::Io { what: what(), source })?;
        tried.store(true, Ordering::Release);
        Ok(())
    }

    /// `earlier` are the versions that a disk which is made does not go back to.
    async fn make_or_adopt(&self, want: &DiskWant, earlier: Vec<VersionId>) -> Result<Arc<Entry>, DiskError> {
        if let Some(entry) = self.entry(want.disk) {
            adopt(&entry.disk, want).await?;
            return Ok(entry);
        }
        if let Some(why) = lock(&self.unopened).get(&want.disk) {
            let what = format!("it is on this node and could not be opened when the agent started ({why})");
            return Err(DiskError::Corrupt { disk: want.disk, what });
        }
        let (node, want) = (self.node.clone(), want.clone());
        let disk = self.change_one(move || create(&node, &want, earlier)).await?;
        let entry = Entry::unmounted(disk);
        self.entries_mut().insert(entry.disk.id(), entry.clone());
        Ok(entry)
    }

    /// Makes a disk larger, if it is smaller than this, and tells the programs that use it. Fails with
    /// [`DiskError::NotGrown`] only.
    async fn grow(&self, entry: &Arc<Entry>, size_bytes: u64) -> Result<(), DiskError> {
        if entry.disk.size_bytes() >= size_bytes {
            return Ok(());
        }
        let not_grown = |source| DiskError::NotGrown { disk: entry.disk.id(), source: Box::new(source) };
        entry.disk.grow(size_bytes).await.map_err(not_grown)?;
        let entry = entry.clone();
        blocking(move || {
            if let Some(mounted) = &*lock(&entry.mounted) {
                mounted.disk.grown();
            }
            Ok(())
        })
        .await
    }

    /// [`Self::ensure`] without the mount.
    #[cfg(any(test, feature = "testing"))]
    pub(super) async fn unmounted(&self, want: &DiskWant) -> Result<Arc<Disk>, DiskError> {
        let earlier = self.give_up_older(want).await?;
        let entry = self.make_or_adopt(want, earlier).await?;
        self.grow(&entry, want.size_bytes).await?;
        Ok(entry.disk.clone())
    }

    /// Removes a disk with everything that was written to it. Succeeds when there is none.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub async fn remove(&self, disk: DiskId) -> Result<(), DiskError> {
        let changing = self.changing(disk);
        let _one_at_a_time = changing.lock().await;
        self.remove_now(disk).await
    }

    /// Removes a disk of which a published version has everything. Succeeds when there is none. It is unmounted first, so
    /// that nobody writes to it any more; if it holds anything that its version lacks, it stays, unmounted.
    ///
    /// # Errors
    /// [`DiskError::Unsaved`] if it holds more than its version. When its files cannot be removed.
    pub async fn remove_saved(&self, disk: DiskId) -> Result<(), DiskError> {
        let changing = self.changing(disk);
        let _one_at_a_time = changing.lock().await;
        if let Some(why) = lock(&self.unopened).get(&disk).cloned() {
            let what = format!("what it holds is not known, because it could not be opened ({why})");
            return Err(DiskError::Corrupt { disk, what });
        }
        if let Some(entry) = self.entry(disk) {
            self.unmount(&entry).await?;
            let status = self.status_of(&entry);
            if status.unsaved_bytes > 0 {
                return Err(DiskError::Unsaved { disk, version: status.version, bytes: status.unsaved_bytes });
            }
        }
        self.remove_now(disk).await
    }

    /// Removes a disk. The caller changes no other disk of this id meanwhile.
    async fn remove_now(&self, disk: DiskId) -> Result<(), DiskError> {
        let removed = self.take_away(disk).await;
        lock(&self.changing).remove(&disk);
        removed
    }

    async fn take_away(&self, disk: DiskId) -> Result<(), DiskError> {
        let entry = self.entries_mut().remove(&disk);
        let path = self.path(disk);
        let dir = self.node.config.data_dir.join("disks").join(disk.to_string());
        let node = self.node.clone();
        let known = entry.is_some();
        let unopened = lock(&self.unopened).contains_key(&disk);
        let removal = move || {
            if let Some(entry) = entry {
                entry.disk.set_removed();
                if let Some(mut mounted) = lock(&entry.mounted).take() {
                    mounted.disk.unmount();
                }
                entry.disk.release();
                for epoch in entry.disk.meta.load().epochs.iter().chain(&entry.disk.meta.load().prepared) {
                    if let Err(error) = node.holder.forget(&entry.disk.place(epoch).live_key()) {
                        tracing::warn!(disk.id = %disk, error = %error, "a live map of a removed disk stays in the holder");
                    }
                }
            }
            if unopened {
                forget_live_maps(&node.holder, |key| key.starts_with(&format!("{disk}/")));
            }
            // Remove the record first, so that an incomplete removal does not look like a disk.
            stable::remove(&dir.join(super::meta::FILE))
                .and_then(|()| stable::remove_folder(&dir))
                .and_then(|()| stable::remove(&path))
                .map_err(|source| DiskError::Io { what: format!("removing disk {disk}"), source })
        };
        // Where there is nothing to do, which is what a repeated call finds, it does not queue behind the others.
        let removed = if known { self.change_one(removal).await } else { blocking(removal).await };
        if removed.is_ok() {
            lock(&self.unopened).remove(&disk);
        }
        removed
    }

    /// The state of one disk. `None` if it is not on this node.
    #[must_use]
    pub fn status(&self, disk: DiskId) -> Option<DiskStatus> {
        self.entry(disk).map(|entry| self.status_of(&entry))
    }

    /// The state of all disks.
    #[must_use]
    pub fn list(&self) -> Vec<DiskStatus> {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        entries.iter().map(|entry| self.status_of(entry)).collect()
    }

    /// The state of the disks of one instance.
    #[must_use]
    pub fn list_of(&self, instance: InstanceId) -> Vec<DiskStatus> {
        let of = |entry: &&Arc<Entry>| entry.disk.meta.load().instance == instance;
        let entries: Vec<_> = self.entries().values().filter(of).cloned().collect();
        entries.iter().map(|entry| self.status_of(entry)).collect()
    }

    /// Commits whose outcome is open: their epochs are still here. After a start, the agent asks the controller about them.
    #[must_use]
    pub fn commits(&self) -> Vec<(DiskId, CommitId)> {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        let of = |entry: &Arc<Entry>| {
            let meta = entry.disk.meta.load_full();
            meta.epochs.iter().filter_map(|e| e.commit.map(|c| (meta.disk, c))).collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }

    /// Number of epochs of a disk: the current one, those of open commits, and those being merged. `None` if the disk is not
    /// on this node.
    #[must_use]
    pub fn epochs(&self, disk: DiskId) -> Option<usize> {
        self.entry(disk).map(|entry| entry.disk.layers().epochs.len())
    }

    /// Bytes of the clean chunks in the cache.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.node.cache.bytes()
    }

    /// Takes about this many bytes from the cache, as far as nobody uses them. Returns how many. Blocks.
    #[must_use]
    pub fn shrink_cache(&self, bytes: u64) -> u64 {
        self.node.cache.give_back(bytes)
    }

    /// Bytes that programs read from all disks since this process began, and bytes that they wrote.
    #[must_use]
    pub fn moved_bytes(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.node.read_bytes), read(&self.node.written_bytes))
    }

    /// Chunks that were dropped from the cache since the start because they were damaged.
    #[must_use]
    pub fn cache_bad_chunks(&self) -> u64 {
        self.node.cache.bad()
    }

    /// Prepares a cut of all these disks or none, without holding writes. It ends an older attempt for the same snapshot. A
    /// prepared cut that is not held within 30 seconds is given up.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub async fn prepare(self: &Arc<Self>, key: CutKey, wanted: &[CutDisk]) -> Result<(), DiskError> {
        let older: Vec<CutKey> = lock(&self.cuts).keys().filter(|other| other.is_before(key)).copied().collect();
        for older in older {
            // End the hold of the older attempt now, so that it does not end later, during the hold of this one.
            self.give_up(older, |state| matches!(state, CutState::Prepared | CutState::Held { .. })).await;
        }
        {
            let mut cuts = lock(&self.cuts);
            cuts.retain(|_, cut| cut.at.elapsed() < REMEMBERED_FOR);
            match cuts.get(&key).map(|cut| &cut.state) {
                None => {}
                Some(CutState::Prepared) => return Ok(()),
                Some(_) => return Err(DiskError::NotPrepared(key.snapshot)),
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
        // If a repeated call was faster, its cut may already be held: keep it.
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

    /// Holds new writes to all disks of the cut, for at most `max_pause`. After that writes continue by themselves, and a
    /// flip is refused.
    ///
    /// # Errors
    /// [`DiskError::NotPrepared`], and [`DiskError::HoldExpired`] when the cut has ended.
    pub async fn hold(self: &Arc<Self>, key: CutKey, max_pause: Duration) -> Result<(), DiskError> {
        {
            let mut cuts = lock(&self.cuts);
            let cut = cuts.get_mut(&key).ok_or(DiskError::NotPrepared(key.snapshot))?;
            match cut.state {
                CutState::Prepared => {}
                CutState::Held { .. } => return Ok(()),
                CutState::Flipped { .. } | CutState::Over => return Err(DiskError::HoldExpired(key.snapshot)),
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

    /// Cuts the disks: writes that were admitted before are in the snapshot, later ones are not. Repeated, it gives the same
    /// answer.
    ///
    /// # Errors
    /// [`DiskError::HoldExpired`] when the hold has ended; nothing was cut then. [`DiskError::NotPrepared`] when the cut is
    /// not held. Others when a flip cannot be recorded.
    pub async fn flip(self: &Arc<Self>, key: CutKey) -> Result<Vec<CutMember>, DiskError> {
        let (flips, pause_us, complete) = match self.flip_in_memory(key)? {
            FlipInMemory::Answered(members) => return Ok(members),
            FlipInMemory::TooLate => {
                self.give_up(key, |state| matches!(state, CutState::Held { .. })).await;
                return Err(DiskError::HoldExpired(key.snapshot));
            }
            FlipInMemory::Done { flips, pause_us, complete } => (flips, pause_us, complete),
        };
        let recorded = flips.into_iter().map(async |(disk, flip)| {
            let recording = disk.clone();
            let dirty_bytes = blocking(move || {
                recording.record_flip(&flip)?;
                let layers = recording.layers();
                let frozen: Vec<&BlockBits> = layers.epochs.iter().skip(1).map(|epoch| &epoch.bits).collect();
                Ok(BlockBits::union_count(&frozen) * BLOCK_BYTES)
            })
            .await?;
            // What a guest saw: until its last held write was answered, not only until writes were let go.
            let pause_us = pause_us.max(disk.longest_held_us(HELD_ANSWERED).await);
            Ok(CutMember { disk: disk.id(), pause_us, dirty_bytes })
        });
        let members = futures::future::try_join_all(recorded).await?;
        if !complete {
            // The prepared epoch of some disk is gone. A cut is of all disks or none, so it is none.
            self.abort(key).await?;
            return Err(DiskError::NotPrepared(key.snapshot));
        }
        if let Some(cut) = lock(&self.cuts).get_mut(&key) {
            cut.state = CutState::Flipped { members: members.clone() };
        }
        Ok(members)
    }

    /// Flips all disks of a held cut and lets their writes continue.
    fn flip_in_memory(&self, key: CutKey) -> Result<FlipInMemory, DiskError> {
        let mut cuts = lock(&self.cuts);
        let cut = cuts.get_mut(&key).ok_or(DiskError::NotPrepared(key.snapshot))?;
        let since = match &cut.state {
            CutState::Flipped { members } => return Ok(FlipInMemory::Answered(members.clone())),
            CutState::Over => return Err(DiskError::HoldExpired(key.snapshot)),
            CutState::Prepared => return Err(DiskError::NotPrepared(key.snapshot)),
            // The clock decides, not the timer task, which may be late.
            CutState::Held { until, .. } if Instant::now() >= *until => return Ok(FlipInMemory::TooLate),
            CutState::Held { since, .. } => *since,
        };
        let flips: Vec<_> = cut.disks.iter().filter_map(|disk| Some((disk.clone(), disk.flip(key)?))).collect();
        let complete = flips.len() == cut.disks.len();
        // No write may continue on any disk before all of them are flipped.
        cut.state = CutState::Over;
        cut.disks.iter().for_each(|disk| disk.release());
        let pause_us = micros(since.elapsed());
        Ok(FlipInMemory::Done { flips, pause_us, complete })
    }

    /// Gives up a cut. Held writes continue; commits of disks that were already flipped are abandoned.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub async fn abort(&self, key: CutKey) -> Result<(), DiskError> {
        self.give_up(key, |state| !matches!(state, CutState::Flipped { .. })).await;
        let Some(cut) = lock(&self.cuts).remove(&key) else { return Ok(()) };
        for (disk, commit) in cut.disks.iter().zip(cut.commits) {
            disk.abandon(commit).await?;
        }
        Ok(())
    }

    /// Ends a cut if it is in a state that `when` accepts: held writes continue, prepared epochs are discarded.
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

    /// Uploads what `commit` froze and builds the tree of the new version. All its objects are durable in the pool when this
    /// returns (I3). `round` is the pool's upload round.
    ///
    /// # Errors
    /// See [`DiskError`]. The call can be repeated.
    pub async fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let entry = self.entry(disk).ok_or(DiskError::NotFound(disk))?;
        entry.disk.save(commit, round, Speed::Full).await
    }

    /// As [`Self::save`], at the pace of the background and giving way to reads. It may be given up by dropping it: what was
    /// stored is only touched when the same blocks are saved again.
    ///
    /// # Errors
    /// See [`DiskError`]. The call can be repeated.
    pub async fn save_slowly(&self, disk: DiskId, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let entry = self.entry(disk).ok_or(DiskError::NotFound(disk))?;
        entry.disk.save(commit, round, Speed::Background).await
    }

    /// Uploads what a disk that nobody writes to holds and its base lacks, as `commit`. `None` if there is nothing.
    ///
    /// # Errors
    /// See [`DiskError`]; [`DiskError::NotFound`] if this node has nothing of the disk. The call can be repeated.
    pub async fn salvage(&self, disk: DiskId, commit: CommitId, round: u64) -> Result<Option<Saved>, DiskError> {
        if let Some(why) = lock(&self.unopened).get(&disk).cloned() {
            return Err(DiskError::Corrupt { disk, what: why });
        }
        let entry = self.entry(disk).ok_or(DiskError::NotFound(disk))?;
        entry.disk.salvage(commit, round).await
    }

    /// Abandons a commit that will never be published: its blocks belong to the next commit. Succeeds when the commit is not
    /// known.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub async fn abandon(&self, disk: DiskId, commit: CommitId) -> Result<(), DiskError> {
        match self.entry(disk) {
            Some(entry) => entry.disk.abandon(commit).await,
            None => Ok(()),
        }
    }

    /// Flushes and unmounts all disks. Returns whether every acknowledged write is durable; if not, the live maps are still
    /// needed, and the holder must not be stopped.
    pub async fn shutdown(&self) -> bool {
        let entries: Vec<_> = self.entries().values().cloned().collect();
        let ends = entries.into_iter().map(|entry| async move {
            entry.disk.release();
            if let Err(error) = entry.disk.flush().await {
                tracing::error!(disk.id = %entry.disk.id(), error = %error, "the flush before unmounting failed");
            }
            let ending = entry.clone();
            let unmounted = blocking(move || {
                let mounted = lock(&ending.mounted).take();
                if let Some(mut mounted) = mounted {
                    mounted.disk.unmount();
                }
                Ok(())
            })
            .await;
            // Flush again what was written until the mount was gone.
            let flushed = entry.disk.flush().await.map_err(|fault| entry.disk.fault(fault));
            let ended = unmounted.and(flushed);
            if let Err(error) = &ended {
                tracing::error!(error = %error, "a disk was not shut down cleanly");
            }
            ended.is_ok()
        });
        // Each takes a thread while it flushes.
        let ends = futures::stream::iter(ends).buffer_unordered(CHANGES_MAX);
        ends.fold(true, async |all, flushed| all && flushed).await
    }

    /// Runs one of the long steps that each disk takes once. Their number at a time is bounded, because there may be
    /// thousands of disks.
    async fn change_one<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let _permit = self.changes.acquire().await.expect("the semaphore is never closed");
        blocking(work).await
    }

    fn path(&self, disk: DiskId) -> PathBuf {
        self.node.config.data_dir.join("disks").join(format!("{disk}.raw"))
    }

    fn changing(&self, disk: DiskId) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.changing).entry(disk).or_default().clone()
    }

    /// A disk of this node.
    pub(super) fn disk(&self, disk: DiskId) -> Option<Arc<Disk>> {
        self.entry(disk).map(|entry| entry.disk.clone())
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
        // First: what was written until it ended is in the rest.
        let reachable = lock(&entry.mounted).is_some() || entry.ending.load(Ordering::SeqCst);
        let disk = &entry.disk;
        let meta = disk.meta.load();
        let layers = disk.layers();
        let bits: Vec<&BlockBits> = layers.epochs.iter().map(|epoch| &epoch.bits).collect();
        DiskStatus {
            disk: disk.id(),
            instance: meta.instance,
            path: self.path(disk.id()),
            version: meta.base,
            root: disk.with_root_page(&meta.root),
            generation: meta.generation,
            size_bytes: disk.size_bytes(),
            unsaved_bytes: BlockBits::union_count(&bits) * BLOCK_BYTES,
            fetched_bytes: disk.fetched_bytes(),
            local_bytes: layers.epochs.iter().map(|epoch| epoch.local_bytes()).sum(),
            used_bytes: disk.used_bytes(),
            mounted: entry.is_mounted(),
            reachable,
            lost: disk.lost.content(meta.base),
            recorded: disk.boots.boot(),
            failed: disk.failed(),
            clock_off: disk.clock_off(),
        }
    }
}

impl Entry {
    fn unmounted(disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk, mounted: Mutex::default(), ending: AtomicBool::new(false) })
    }

    fn is_serving(&self) -> bool {
        lock(&self.mounted).as_ref().is_some_and(|mount| mount.disk.is_serving())
    }

    fn is_mounted(&self) -> bool {
        let is_tried = |mount: &Mount| mount.tried.load(Ordering::Acquire) && mount.disk.is_serving();
        lock(&self.mounted).as_ref().is_some_and(is_tried)
    }
}

/// Restarts the holder when it dies alone; it then gets the live maps back from this process. Until that has happened, the
/// death of this process would lose writes that were acknowledged but not synced (I2).
fn watch_holder(disks: &Arc<Disks>) {
    let (holder, runtime) = (disks.node.holder.clone(), disks.node.runtime.clone());
    let disks = Arc::downgrade(disks);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(HOLDER_CHECKED_EVERY).await;
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

/// Hashes the cache in the background, a little every second, and has its memory forget what nobody reads.
fn scrub_cache(disks: &Arc<Disks>) {
    let runtime = disks.node.runtime.clone();
    let disks = Arc::downgrade(disks);
    runtime.spawn(async move {
        let mut round = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // Between two rounds it looks at this as well, so that it ends with the disks.
            let Some(cache) = disks.upgrade().map(|disks| disks.node.cache.clone()) else { return };
            cache.forget_idle();
            if Instant::now() < round {
                continue;
            }
            match tokio::task::spawn_blocking(move || cache.scrub(SCRUB_BYTES_PER_S)).await {
                Ok(true) => {}
                Ok(false) => round = (round + SCRUB_ROUND).max(Instant::now()),
                Err(error) => tracing::error!(error = %error, "the scrub of the cache failed; it goes on"),
            }
        }
    });
}

/// Discards the epochs that were prepared for a cut.
async fn discard(disks: &[Arc<Disk>], key: CutKey) {
    for disk in disks {
        let _changing = disk.changing.lock().await;
        if let Err(error) = disk.discard_prepared(key).await {
            tracing::warn!(disk.id = %disk.id(), error = %error, "an epoch that was prepared for a cut stays until the next start");
        }
    }
}

/// Checks a desired state against the disk on this node, and updates base and generation to it. A size that is smaller
/// than the disk's is one from before it grew, for example of a database that was restored. It changes nothing.
async fn adopt(disk: &Arc<Disk>, want: &DiskWant) -> Result<(), DiskError> {
    let id = want.disk;
    let meta = disk.meta.load_full();
    if want.generation < meta.generation {
        return Err(DiskError::OlderGeneration { disk: id, have: meta.generation, asked: want.generation });
    }
    if want.instance != meta.instance {
        let what = format!("it belongs to {}, the request says {}", meta.instance, want.instance);
        return Err(DiskError::Invalid { disk: id, what });
    }
    if want.version != meta.base {
        disk.rebase(want.version, &want.root).await?;
    } else if meta.root.root_page.is_none() {
        disk.keep_root_page(&want.root).await?;
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

/// Makes the holder forget the live maps that no disk needs.
fn forget_live_maps(holder: &Holder, is_unused: impl Fn(&String) -> bool) {
    let keys = match holder.list() {
        Ok(keys) => keys,
        Err(error) => return tracing::warn!(error = %error, "live maps that no disk needs may stay in the holder"),
    };
    for key in keys.iter().filter(|key| is_unused(key)) {
        if let Err(error) = holder.forget(key) {
            tracing::warn!(live_map = %key, error = %error, "a live map that no disk needs stays in the holder");
        }
    }
}

/// Creates a disk. Its record is durable when this returns.
fn create(node: &Arc<Node>, want: &DiskWant, earlier: Vec<VersionId>) -> Result<Arc<Disk>, DiskError> {
    let id = want.disk;
    let invalid = |what: String| DiskError::Invalid { disk: id, what };
    let io = |source: std::io::Error| {
        if super::error::is_no_space(&source) {
            DiskError::NoSpace(id)
        } else {
            DiskError::Io { what: format!("making disk {id}"), source }
        }
    };
    let in_range = (1..=DISK_BYTES_MAX.0).contains(&want.size_bytes);
    if !in_range || !want.size_bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(invalid(format!("a disk cannot have {} bytes", want.size_bytes)));
    }
    // The controller does not send the pages that this node made.
    let root = super::fold::with_root_page(&want.root, |name| node.pages.get(name));
    let base = Base::open(id, want.version, &root)?;
    if base.size_bytes() > ByteLen(want.size_bytes) {
        let (version, disk) = (base.size_bytes(), want.size_bytes);
        return Err(invalid(format!("the version has {version} bytes and the disk only {disk}")));
    }
    let dir = node.config.data_dir.join("disks").join(id.to_string());
    let record = dir.join(super::meta::FILE);
    if record.exists() {
        // An attempt to create it failed after the record was in place. A start of the agent opens it.
        let what = format!("{} is there, and the disk is not open; restart the agent", record.display());
        return Err(DiskError::Corrupt { disk: id, what });
    }
    stable::make_folder(&dir).map_err(io)?;
    let random = || getrandom::u64().map_err(|e| io(std::io::Error::other(e)));
    let entry = EpochMeta { number: 0, tag: random()?, commit: None, size_bytes: None };
    let place = Place { dir: &dir, disk: id, number: entry.number, tag: entry.tag };
    let epoch = Epoch::create(&place, want.size_bytes, &node.holder).map_err(|e| open_error(id, e))?;
    let meta = Meta {
        format: Meta::FORMAT,
        disk: id,
        instance: want.instance,
        generation: want.generation,
        size_bytes: want.size_bytes,
        base: want.version,
        root,
        earlier,
        epochs: vec![entry],
        prepared: None,
        failed: None,
        fetched_bytes: 0,
    };
    // The record comes last: a folder without one counts as an incomplete creation.
    let stored = meta.store(&dir).map_err(NotStored::into_io).and_then(|()| stable::sync_parent(&dir));
    if let Err(error) = stored {
        // Nothing was written to the disk. Remove the record, so that the next attempt starts anew.
        if let Err(error) = stable::remove(&dir.join(super::meta::FILE)) {
            tracing::warn!(disk.id = %id, error = %error, "an incomplete disk stays until the next start");
        }
        return Err(io(error));
    }
    Ok(Disk::new(node.clone(), dir, meta, Layers { base: Arc::new(base), epochs: vec![Arc::new(epoch)] }))
}

/// Removes files of epochs and root pages that are not in the record: an earlier process died after taking them out and before
/// removing their files.
fn remove_strays(dir: &Path, meta: &Meta) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((stem, kind)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        if kind == super::meta::PAGE && meta.page_file().as_deref() != name.to_str() {
            stable::remove(&entry.path())?;
        }
        let known = stem.parse().is_ok_and(|number: u64| meta.epochs.iter().any(|epoch| epoch.number == number));
        if matches!(kind, "delta" | "bits" | "bits-new") && (!known || kind == "bits-new") {
            stable::remove(&entry.path())?;
        }
    }
    Ok(())
}
