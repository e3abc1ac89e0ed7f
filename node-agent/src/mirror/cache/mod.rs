//! The node's cache of clean bodies: chunks and packs, and patched chunks assembled from them. They are stored raw, in
//! slots, and shared by all disks of all versions (I1, I4).
//!
//! ```text
//! cache/slots-18        slot n = bytes n << 18 ...          one pair of files per chunk size (log2)
//! cache/names-18        64 bytes per slot: name, salt, length (highest bit: a pack), checksum; all zeros = empty
//!
//! absent --get_or_fetch--> in flight (one fetch for all that ask) --verified--> slot --evicted--> absent
//! ```
//!
//! A slot is filled once, evicted by a clock hand, and never synced. Each process hashes a slot that an earlier one filled
//! at its first use, and drops it when it does not match its name: no stop, however clean, says what the disk does to the
//! bytes afterwards. Bytes that become part of a chunk with a new name are hashed in the pass that reads them
//! ([`Cache::get_proven`]). A scrub hashes all slots again in the background, around the page cache ([`Cache::scrub`]).
//!
//! A read that needs several objects of a patched chunk assembles it, once, so that later reads cost what those of a whole
//! chunk cost ([`Cache::get_or_assemble`]). Such a slot is not in the table of names. The next process gives its space back
//! and assembles the chunk again from the objects, which it finds.
//!
//! Objects of this node's own share of the pool get no slot: the node's disk has them already. They are read from there and
//! stay in memory for a while ([`own`]).
//!
//! A slot cannot be evicted while a reader holds it. Bodies that do not fit are served from memory. When the node's disk
//! is full, the cache shrinks before a guest's write fails: see [`Cache::give_back`].

mod fetch;
mod own;
mod slots;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use muster_pool::PoolClient;
use rustix::fs::fstatvfs;
use storage_core::{ChunkSize, Kind, ObjectName, Salt, lock, zero::trim_zeros};
use tokio::sync::watch;

use self::{
    fetch::{Demand, Landed},
    own::{OwnBodies, OwnBody},
    slots::{BAD, Content, PROVEN, Slot, SlotFile},
};
pub(crate) use self::{
    fetch::{Fetched, Why},
    slots::Body,
};
use super::{
    base::Pages,
    config::Config,
    memory::{AlignedBuf, give_back_freed},
};
use crate::telemetry;

/// Most slots the clock hand passes in search of one to evict.
const HAND_STEPS_MAX: usize = 4096;

/// Number of locks of [`Cache::get_or_assemble`].
const ASSEMBLING: usize = 16;

/// The cache of a node.
pub(crate) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    keep_free_bytes: u64,
    inner: Mutex<Inner>,
    bytes: AtomicU64,
    own: OwnBodies,
    /// Slots that were dropped since the start because their bytes do not match their name or cannot be read.
    bad: AtomicU64,
    /// Names that the present round of the scrub has not visited yet.
    unscrubbed: Mutex<Vec<ObjectName>>,
    /// One is held while a patched chunk is assembled, so that its readers wait and do not all do the same.
    assembling: [Mutex<()>; ASSEMBLING],
    demand: Demand,
    /// The pages that are fetched go there.
    pages: Arc<Pages>,
    pool: PoolClient,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<ObjectName, Arc<Slot>>,
    flights: HashMap<ObjectName, watch::Receiver<Option<Landed>>>,
    files: HashMap<u8, Arc<SlotFile>>,
    /// Names in the order the clock hand visits them. It may have names whose slot is gone.
    clock: Vec<ObjectName>,
    hand: usize,
}

impl Cache {
    /// Opens the cache in the data directory and finds the objects of an earlier process there.
    pub(crate) fn open(
        config: &Config,
        pages: Arc<Pages>,
        pool: PoolClient,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Self> {
        let dir = config.data_dir.join("cache");
        std::fs::create_dir_all(&dir)?;
        let mut inner = Inner::default();
        let mut bytes = 0;
        for log2 in 0..64 {
            let Some(size) = ChunkSize::from_log2(log2) else { continue };
            if !dir.join(format!("names-{log2}")).exists() {
                continue;
            }
            let file = SlotFile::open(&dir, size)?;
            for slot in file.clone().load()? {
                bytes += size.bytes();
                inner.clock.push(slot.key);
                inner.slots.insert(slot.key, Arc::new(slot));
            }
            inner.files.insert(log2, file);
        }
        Ok(Self {
            dir,
            bytes_max: config.cache_bytes_max,
            keep_free_bytes: config.keep_free_bytes,
            inner: Mutex::new(inner),
            bytes: AtomicU64::new(bytes),
            own: OwnBodies::new(config.memory_bytes_max),
            bad: AtomicU64::new(0),
            unscrubbed: Mutex::default(),
            assembling: Default::default(),
            demand: Demand::default(),
            pages,
            pool,
            runtime,
        })
    }

    /// The body, if the cache has it and it is good. Hashes it at its first use by this process.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<Body> {
        let Some(slot) = self.slot(name) else { return self.own.get(name, Instant::now()).map(Body::Own) };
        match slot.proof.load(Ordering::Acquire) {
            PROVEN => Some(Body::Slot(slot)),
            BAD => None,
            _ => self.proven(&slot).map(Body::Memory),
        }
    }

    /// The body, hashed now: only such bytes may become part of a chunk with a new name (I4).
    pub(crate) fn get_proven(&self, name: &ObjectName) -> Option<Bytes> {
        match self.slot(name) {
            Some(slot) => self.proven(&slot),
            None => self.own.get(name, Instant::now()).and_then(|own| self.own_proven(&own)),
        }
    }

    /// The body, hashed now. `None` when it is damaged; it is then dropped.
    pub(crate) fn hashed_now(&self, body: Body) -> Option<Body> {
        match body {
            // It was hashed when it came here, and no disk was involved since.
            Body::Memory(bytes) => Some(Body::Memory(bytes)),
            Body::Slot(slot) => self.proven(&slot).map(Body::Memory),
            Body::Own(own) => self.own_proven(&own).map(Body::Memory),
        }
    }

    fn slot(&self, name: &ObjectName) -> Option<Arc<Slot>> {
        let slot = lock(&self.inner).slots.get(name).cloned()?;
        slot.used.store(true, Ordering::Relaxed);
        Some(slot)
    }

    fn proven(&self, slot: &Slot) -> Option<Bytes> {
        slot.read_proven().map_err(|error| self.drop_bad(slot, &error)).ok()
    }

    fn own_proven(&self, own: &OwnBody) -> Option<Bytes> {
        if let Err(error) = own.prove() {
            tracing::warn!(object.name = %own.content.name, error = %error, "an object changed in this host's memory; it is read again when needed");
            self.own.forget(&own.content.name);
            return None;
        }
        Some(own.bytes.clone())
    }

    fn drop_bad(&self, slot: &Slot, error: &io::Error) {
        // Of several readers that found the damage, one counts it, before another one can have fetched the chunk anew.
        if slot.proof.swap(BAD, Ordering::AcqRel) != BAD {
            self.bad.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(telemetry::CACHE_BAD_CHUNKS).increment(1);
            tracing::warn!(chunk.name = %slot.content.name, error = %error, "dropped a damaged chunk from the cache; it is fetched again when needed");
        }
        // A good chunk that replaced this one stays.
        self.evict(&slot.key, |there| std::ptr::eq(Arc::as_ptr(there), slot));
    }

    /// Hashes at least `bytes` bytes of slots, as they are on the disk, and drops those that are damaged, and second copies of
    /// own objects that nobody has read since the round before. Successive calls visit all slots in turn. Returns false at the end
    /// of a round. Blocks.
    pub(crate) fn scrub(&self, bytes: u64) -> bool {
        let mut names = lock(&self.unscrubbed);
        if names.is_empty() {
            names.extend(lock(&self.inner).slots.keys());
        }
        let mut buf = AlignedBuf::default();
        let mut hashed = 0;
        while hashed < bytes {
            let Some(name) = names.pop() else { break };
            let Some(slot) = lock(&self.inner).slots.get(&name).cloned() else { continue };
            if self.own.is_on() && self.pool.own_has(&name) && !slot.used.swap(false, Ordering::Relaxed) {
                self.evict(&name, |there| Arc::ptr_eq(there, &slot));
                // It writes to the disk, too, so it has its pace.
                hashed += slot.file.size.bytes();
                continue;
            }
            if let Err(error) = slot.prove_medium(&mut buf) {
                self.drop_bad(&slot, &error);
            }
            hashed += slot.file.size.bytes();
        }
        !names.is_empty()
    }

    /// Whether the cache has the object. Neither counts as a use nor checks the body.
    pub(crate) fn has(&self, name: &ObjectName) -> bool {
        lock(&self.inner).slots.contains_key(name) || self.own.has(name)
    }

    /// Whether a read of the object would have to wait for other nodes. Blocks on the disk.
    pub(crate) fn lacks(&self, name: &ObjectName) -> bool {
        !(self.has(name) || self.own.is_on() && self.pool.own_has(name))
    }

    /// Keeps an object that a commit of this node has just named, for reads to come. It gets no slot if this node's own share is
    /// about to get it.
    pub(crate) fn insert_written(&self, name: ObjectName, kind: Kind, salt: Salt, size: ChunkSize, body: &Bytes) {
        if !self.own.is_on() || !self.pool.own_takes(&name, kind) {
            self.insert(name, kind, salt, size, body);
        }
    }

    /// Stores an object that this process has just verified or named. Returns it in memory when there is no room. A body is
    /// at most `size` long.
    pub(crate) fn insert(&self, name: ObjectName, kind: Kind, salt: Salt, size: ChunkSize, body: &Bytes) -> Body {
        self.store(name, Content { name, kind, salt }, size, body)
    }

    /// The patched chunk with this key as one body. If the cache does not have it, `make` gives its bytes, made of bodies that
    /// were hashed for this (I4); `None` when it cannot. Other callers for this chunk wait meanwhile.
    pub(crate) fn get_or_assemble<E>(
        &self,
        key: ObjectName,
        salt: Salt,
        size: ChunkSize,
        make: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Body>, E> {
        let _assembling = lock(&self.assembling[usize::from(key.as_bytes()[0]) % ASSEMBLING]);
        if let Some(body) = self.get(&key) {
            return Ok(Some(body));
        }
        let Some(bytes) = make()?.map(Bytes::from) else { return Ok(None) };
        let body = bytes.slice_ref(trim_zeros(&bytes));
        let content = Content { name: ObjectName::of_chunk(salt, size, &body), kind: Kind::Chunk, salt };
        Ok(Some(self.store(key, content, size, &body)))
    }

    fn store(&self, key: ObjectName, content: Content, size: ChunkSize, body: &Bytes) -> Body {
        if let Some(slot) = lock(&self.inner).slots.get(&key)
            && slot.proof.load(Ordering::Acquire) == PROVEN
        {
            return Body::Slot(slot.clone());
        }
        self.evict(&key, |_| true);
        let memory = || Body::Memory(body.clone());
        if !self.make_room(size) {
            return memory();
        }
        let file = {
            let mut inner = lock(&self.inner);
            match inner.files.get(&size.log2()) {
                Some(file) => file.clone(),
                None => match SlotFile::open(&self.dir, size) {
                    Ok(file) => {
                        inner.files.insert(size.log2(), file.clone());
                        file
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "the files of the cache cannot be created");
                        return memory();
                    }
                },
            }
        };
        let slot = match Slot::fill(file, key, content, body) {
            Ok(slot) => Arc::new(slot),
            Err(error) => {
                tracing::debug!(error = %error, "a body could not be written to the cache");
                return memory();
            }
        };
        let mut inner = lock(&self.inner);
        if inner.slots.insert(key, slot.clone()).is_none() {
            inner.clock.push(key);
            self.bytes.fetch_add(size.bytes(), Ordering::Relaxed);
        }
        Body::Slot(slot)
    }

    /// Evicts chunks until at least `bytes` bytes are free or nothing can be evicted. Returns the bytes freed. Called when the
    /// file system is full, before a guest's write fails.
    pub(crate) fn give_back(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < bytes {
            match self.evict_one() {
                Some(n) => freed += n,
                None => break,
            }
        }
        freed
    }

    /// Whether something is being fetched because somebody waits for it.
    pub(crate) fn has_demand(&self) -> bool {
        self.demand.is_any()
    }

    /// Whether so many more chunks fit without dropping one that was read since the clock hand passed it. Makes room for them.
    pub(crate) fn has_idle_room(&self, size: ChunkSize, chunks: u64) -> bool {
        let bytes = size.bytes() * chunks;
        while self.bytes.load(Ordering::Relaxed) + bytes > self.bytes_max {
            if !self.evict_idle() {
                return false;
            }
        }
        !self.is_low(size)
    }

    /// Evicts a slot that nobody read since the clock hand passed it. Returns false if it finds none.
    fn evict_idle(&self) -> bool {
        let idle = {
            let inner = lock(&self.inner);
            let from = inner.hand.min(inner.clock.len());
            let ahead = inner.clock[from..].iter().chain(&inner.clock[..from]).take(HAND_STEPS_MAX);
            let is_idle = |slot: &&Arc<Slot>| !slot.used.load(Ordering::Relaxed) && Arc::strong_count(slot) == 1;
            ahead.filter_map(|name| inner.slots.get(name)).find(is_idle).map(|slot| slot.key)
        };
        let Some(key) = idle else { return false };
        self.evict(&key, |slot| !slot.used.load(Ordering::Relaxed));
        true
    }

    /// Whether one more chunk would take what is kept free on the disk.
    fn is_low(&self, size: ChunkSize) -> bool {
        if self.keep_free_bytes == 0 {
            return false;
        }
        let Ok(dir) = File::open(&self.dir) else { return false };
        fstatvfs(&dir).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < self.keep_free_bytes + size.bytes())
    }

    /// Makes room for one more chunk. Returns false when none could be made.
    fn make_room(&self, size: ChunkSize) -> bool {
        while self.bytes.load(Ordering::Relaxed) + size.bytes() > self.bytes_max {
            if self.evict_one().is_none() {
                return false;
            }
        }
        if self.is_low(size) {
            // The reserve is reached: a new chunk must replace another.
            return self.evict_one().is_some();
        }
        true
    }

    /// Evicts the next chunk that is not in use. Returns its bytes, `None` when no such chunk was found.
    fn evict_one(&self) -> Option<u64> {
        let mut inner = lock(&self.inner);
        for _ in 0..HAND_STEPS_MAX.min(2 * inner.clock.len()) {
            if inner.clock.is_empty() {
                return None;
            }
            inner.hand %= inner.clock.len();
            let hand = inner.hand;
            let name = inner.clock[hand];
            let Some(slot) = inner.slots.get(&name) else {
                inner.clock.swap_remove(hand);
                continue;
            };
            if slot.used.swap(false, Ordering::Relaxed) || Arc::strong_count(slot) > 1 {
                inner.hand += 1;
                continue;
            }
            let slot = inner.slots.remove(&name).expect("it was found above");
            inner.clock.swap_remove(hand);
            drop(inner);
            return Some(self.release(slot));
        }
        None
    }

    /// Evicts a chunk if its slot is one that `which` accepts.
    fn evict(&self, name: &ObjectName, which: impl Fn(&Arc<Slot>) -> bool) {
        let slot = {
            let mut inner = lock(&self.inner);
            match inner.slots.get(name) {
                Some(slot) if which(slot) => inner.slots.remove(name),
                _ => None,
            }
        };
        // The lock is free again while the slot is released.
        if let Some(slot) = slot {
            self.release(slot);
        }
    }

    fn release(&self, slot: Arc<Slot>) -> u64 {
        let bytes = slot.file.size.bytes();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Slot::erase(slot);
        bytes
    }

    /// Forgets what nobody has read for a while of this node's own share. May take some milliseconds.
    pub(crate) fn forget_idle(&self) {
        if self.own.forget_idle(Instant::now()) {
            give_back_freed();
        }
        #[expect(clippy::cast_precision_loss, reason = "far below the 53 bits that a gauge holds exactly")]
        metrics::gauge!(telemetry::POOL_MEMORY_BYTES).set(self.own.bytes() as f64);
    }

    /// Bytes of the slots in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Slots that were dropped since the start because they were damaged.
    pub(crate) fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }
}
