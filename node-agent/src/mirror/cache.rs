//! The node's cache of clean chunk bodies. They are stored raw, in slots, and shared by all disks of all versions (I1,
//! I4).
//!
//! ```text
//! cache/slots-18        slot n = bytes n << 18 ...          one pair of files per chunk size (log2)
//! cache/names-18        64 bytes per slot: name, salt, length, checksum; all zeros = empty
//!
//! absent --get_or_fetch--> in flight (one fetch for all that ask) --verified--> slot --evicted--> absent
//! ```
//!
//! A slot is filled once, evicted by a clock hand, and never synced. Each process hashes a slot that an earlier one filled
//! at its first use, and drops it when it does not match its name: no stop, however clean, says what the disk does to the
//! bytes afterwards. Bytes that become part of a chunk with a new name are hashed in the pass that reads them
//! ([`Cache::get_proven`]). A scrub hashes all slots again in the background, around the page cache ([`Cache::scrub`]).
//!
//! A slot cannot be evicted while a reader holds it. Chunks that do not fit are served from memory. When the node's disk
//! is full, the cache shrinks before a guest's write fails: see [`Cache::give_back`].

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use muster_pool::{Got, PoolClient};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use storage_core::{ChunkSize, Kind, ObjectName, Salt, lock, units::usize_from};
use tokio::sync::watch;

use super::{error::Fault, memory::AlignedBuf, patience::landing};
use crate::telemetry;

const ENTRY: usize = 64;
/// Most slots the clock hand passes in search of one to evict.
const HAND_STEPS_MAX: usize = 4096;

/// The chunk cache of a node.
pub(crate) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    keep_free_bytes: u64,
    inner: Mutex<Inner>,
    bytes: AtomicU64,
    /// Slots that were dropped since the start because their bytes do not match their name or cannot be read.
    bad: AtomicU64,
    /// Names that the present round of the scrub has not visited yet.
    unscrubbed: Mutex<Vec<ObjectName>>,
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

type Landed = Result<Fetched, Fault>;

#[derive(Clone)]
pub(crate) struct Fetched {
    pub(crate) body: Body,
    /// Bytes that came from other nodes.
    pub(crate) network_bytes: u64,
}

/// The pair of files for one chunk size.
struct SlotFile {
    size: ChunkSize,
    slots: File,
    /// The same file, opened to read around the page cache.
    medium: File,
    names: File,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    numbers: Vec<u64>,
    next: u64,
}

/// A slot of the cache that holds an object.
pub(crate) struct Slot {
    file: Arc<SlotFile>,
    number: u64,
    name: ObjectName,
    salt: Salt,
    length: u32,
    /// [`UNPROVEN`] until this process has hashed the body.
    proof: AtomicU8,
    used: AtomicBool,
}

const UNPROVEN: u8 = 0;
const PROVEN: u8 = 1;
const BAD: u8 = 2;

/// The body of a chunk, verified against its name. Zeros at the end of a chunk are not part of its body.
#[derive(Clone)]
pub(crate) enum Body {
    Slot(Arc<Slot>),
    /// The cache had no room for it.
    Memory(Bytes),
}

impl Body {
    /// Reads the chunk from `offset` on.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                copy_padded(bytes, offset, into);
                Ok(())
            }
            Self::Slot(slot) => slot.read(offset, into),
        }
    }
}

/// Copies a part of a chunk, given its body, from `offset` on: what the body has, then zeros.
pub(crate) fn copy_padded(body: &[u8], offset: usize, into: &mut [u8]) {
    let from = offset.min(body.len());
    let (bytes, zeros) = into.split_at_mut((body.len() - from).min(into.len()));
    bytes.copy_from_slice(&body[from..][..bytes.len()]);
    zeros.fill(0);
}

impl Slot {
    fn body_bytes(&self) -> usize {
        usize_from(self.length.into())
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let from = offset.min(self.body_bytes());
        let (bytes, zeros) = into.split_at_mut((self.body_bytes() - from).min(into.len()));
        if !bytes.is_empty() {
            self.file.slots.read_exact_at(bytes, self.number * self.file.size.bytes() + from as u64)?;
        }
        zeros.fill(0);
        Ok(())
    }

    /// Reads the whole body and hashes it now (I4). An error when that fails or the body does not match its name.
    fn read_proven(&self) -> io::Result<Bytes> {
        let mut body = vec![0; self.body_bytes()];
        let proven = self.read(0, &mut body).and_then(|()| self.prove(&body));
        proven.map(|()| Bytes::from(body))
    }

    /// Like [`Self::read_proven`], with the bytes that are on the disk, whatever the page cache has.
    fn prove_medium(&self, buf: &mut AlignedBuf) -> io::Result<()> {
        let buf = buf.slice(self.body_bytes());
        // One call: only the end of the file ends it early, and a second one would not start at a block boundary.
        let got = self.file.medium.read_at(buf, self.number * self.file.size.bytes())?;
        let body = buf.get(..self.body_bytes()).filter(|body| body.len() <= got);
        self.prove(body.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    fn prove(&self, body: &[u8]) -> io::Result<()> {
        let got = ObjectName::of_chunk(self.salt, self.file.size, body);
        if got != self.name {
            return Err(io::Error::other(format!("its bytes have the name {got}")));
        }
        self.proof.store(PROVEN, Ordering::Release);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The last user is gone, so the slot's number can be used again. Its name was erased at its eviction.
        lock(&self.file.free).numbers.push(self.number);
    }
}

impl Cache {
    /// Opens the cache in `dir` and finds the chunks of an earlier process there.
    pub(crate) fn open(
        dir: PathBuf,
        bytes_max: u64,
        keep_free_bytes: u64,
        pool: PoolClient,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Self> {
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
                inner.clock.push(slot.name);
                inner.slots.insert(slot.name, Arc::new(slot));
            }
            inner.files.insert(log2, file);
        }
        Ok(Self {
            dir,
            bytes_max,
            keep_free_bytes,
            inner: Mutex::new(inner),
            bytes: AtomicU64::new(bytes),
            bad: AtomicU64::new(0),
            unscrubbed: Mutex::default(),
            pool,
            runtime,
        })
    }

    /// The chunk, if the cache has it and it is good. Hashes it at its first use by this process.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<Body> {
        let slot = self.slot(name)?;
        match slot.proof.load(Ordering::Acquire) {
            PROVEN => Some(Body::Slot(slot)),
            BAD => None,
            _ => self.proven(&slot).map(Body::Memory),
        }
    }

    /// The body, hashed now: only such bytes may become part of a chunk with a new name (I4).
    pub(crate) fn get_proven(&self, name: &ObjectName) -> Option<Bytes> {
        let slot = self.slot(name)?;
        self.proven(&slot)
    }

    /// The body, hashed now. `None` when it is damaged; the chunk is then dropped.
    pub(crate) fn hashed_now(&self, body: Body) -> Option<Body> {
        match body {
            // It was hashed when it came here, and no disk was involved since.
            Body::Memory(bytes) => Some(Body::Memory(bytes)),
            Body::Slot(slot) => self.proven(&slot).map(Body::Memory),
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

    fn drop_bad(&self, slot: &Slot, error: &io::Error) {
        // Of several readers that found the damage, one counts it, before another one can have fetched the chunk anew.
        if slot.proof.swap(BAD, Ordering::AcqRel) != BAD {
            self.bad.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(telemetry::CACHE_BAD_CHUNKS).increment(1);
            tracing::warn!(chunk.name = %slot.name, error = %error, "dropped a damaged chunk from the cache; it is fetched again when needed");
        }
        // A good chunk that replaced this one stays.
        self.evict(&slot.name, |there| std::ptr::eq(Arc::as_ptr(there), slot));
    }

    /// Hashes at least `bytes` bytes of slots, as they are on the disk, and drops those that are damaged. Successive calls
    /// visit all slots in turn. Returns false at the end of a round. Blocks.
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
            if let Err(error) = slot.prove_medium(&mut buf) {
                self.drop_bad(&slot, &error);
            }
            hashed += slot.file.size.bytes();
        }
        !names.is_empty()
    }

    /// Whether the cache has the chunk. Neither counts as a use nor checks the body.
    pub(crate) fn has(&self, name: &ObjectName) -> bool {
        lock(&self.inner).slots.contains_key(name)
    }

    /// The chunks, by name. Fetches those that are missing, in one batch; several callers that ask for the same chunk share
    /// one fetch.
    ///
    /// Fails with [`Fault::Unavailable`] when no node gives a chunk before the deadline.
    pub(crate) async fn get_or_fetch(
        self: &Arc<Self>,
        names: &[ObjectName],
        salt: Salt,
        size: ChunkSize,
        deadline: tokio::time::Instant,
    ) -> Result<HashMap<ObjectName, Fetched>, Fault> {
        let mut found = HashMap::new();
        // A fetch of another caller fails at that caller's deadline. This one may have time left for its own.
        while !self.fetch_more(names, &mut found, salt, size, deadline).await? {}
        Ok(found)
    }

    /// Adds chunks that are not in `found` yet. Returns whether all are there now.
    async fn fetch_more(
        self: &Arc<Self>,
        names: &[ObjectName],
        found: &mut HashMap<ObjectName, Fetched>,
        salt: Salt,
        size: ChunkSize,
        deadline: tokio::time::Instant,
    ) -> Result<bool, Fault> {
        let mut waiting = Vec::new();
        let mut mine = Vec::new();
        for name in names {
            if !found.contains_key(name)
                && let Some(body) = self.get(name)
            {
                found.insert(*name, Fetched { body, network_bytes: 0 });
            }
        }
        {
            let mut inner = lock(&self.inner);
            for name in names.iter().filter(|name| !found.contains_key(*name)) {
                if let Some(flight) = inner.flights.get(name) {
                    waiting.push((*name, flight.clone(), false));
                } else {
                    let (landed, flight) = watch::channel(None);
                    inner.flights.insert(*name, flight.clone());
                    mine.push((*name, landed));
                    waiting.push((*name, flight, true));
                }
            }
        }
        if !mine.is_empty() {
            // A task of its own: the fetch goes on for the other callers even if this one is dropped.
            let cache = self.clone();
            self.runtime.spawn(async move { cache.fly(mine, salt, size, deadline).await });
        }
        for (name, mut flight, first) in waiting {
            let landed = tokio::time::timeout_at(deadline, flight.wait_for(Option::is_some)).await;
            let landed = landed.map(|landed| landed.map(|landed| landed.clone().expect("it was waited for")));
            let mut fetched = match landed {
                Ok(Ok(Err(Fault::Unavailable(_) | Fault::Lost(_)))) if !first => continue,
                Ok(Ok(landed)) => landed?,
                Ok(Err(_)) => return Err(Fault::Unavailable("the fetch was given up".to_owned())),
                Err(_) => return Err(Fault::Unavailable(format!("chunk {name}: the deadline passed"))),
            };
            if !first {
                // The caller that started the fetch counts these bytes.
                fetched.network_bytes = 0;
            }
            found.insert(name, fetched);
        }
        Ok(names.iter().all(|name| found.contains_key(name)))
    }

    /// Fetches chunks and tells those that wait for them.
    async fn fly(
        self: Arc<Self>,
        flights: Vec<(ObjectName, watch::Sender<Option<Landed>>)>,
        salt: Salt,
        size: ChunkSize,
        deadline: tokio::time::Instant,
    ) {
        let names: Vec<_> = flights.iter().map(|(name, _)| *name).collect();
        let got = self.pool.get(&names, landing(deadline)).await;
        let cache = self.clone();
        // Writing the slots may wait for the disk.
        let landing = tokio::task::spawn_blocking(move || -> Result<HashMap<ObjectName, Landed>, Fault> {
            let got = got?;
            Ok(got.into_iter().map(|got| (got.object.name, cache.land(got, salt, size))).collect())
        });
        let failed = |error| Err(Fault::Io(format!("the task that stores fetched chunks failed: {error}")));
        let mut landed = landing.await.unwrap_or_else(failed);
        for (name, sender) in flights {
            let result = match &mut landed {
                Ok(landed) => landed
                    .remove(&name)
                    .unwrap_or_else(|| Err(Fault::Unavailable(format!("the pool did not return chunk {name}")))),
                Err(fault) => Err(fault.clone()),
            };
            // End the flight before telling its waiters: a later caller finds the slot, or starts a new fetch.
            lock(&self.inner).flights.remove(&name);
            sender.send_replace(Some(result));
        }
    }

    /// Stores a fetched object, which must be a chunk of a tree with chunks of `size`.
    fn land(&self, got: Got, salt: Salt, size: ChunkSize) -> Landed {
        let object = got.object;
        if object.kind != Kind::Chunk || object.body.len() > size.as_usize() {
            return Err(Fault::Corrupt(format!("object {} is not a chunk of {size} bytes", object.name)));
        }
        Ok(Fetched { body: self.insert(object.name, salt, size, &object.body), network_bytes: got.network_bytes })
    }

    /// Stores a body that this process has just verified or named. Returns it in memory when there is no room. A body is at
    /// most `size` long.
    pub(crate) fn insert(&self, name: ObjectName, salt: Salt, size: ChunkSize, body: &Bytes) -> Body {
        assert!(body.len() <= size.as_usize(), "a body of {} bytes for a slot of {size}", body.len());
        if let Some(slot) = lock(&self.inner).slots.get(&name)
            && slot.proof.load(Ordering::Acquire) == PROVEN
        {
            return Body::Slot(slot.clone());
        }
        self.evict(&name, |_| true);
        let memory = || Body::Memory(body.clone());
        if !self.make_room(size) {
            return memory();
        }
        let length = u32::try_from(body.len()).expect("chunks are at most 4 MiB");
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
        let number = {
            let mut free = lock(&file.free);
            free.numbers.pop().unwrap_or_else(|| {
                free.next += 1;
                free.next - 1
            })
        };
        let slot = Slot { file, number, name, salt, length, proof: AtomicU8::new(PROVEN), used: AtomicBool::new(true) };
        if let Err(error) = slot.fill(body) {
            tracing::debug!(error = %error, "a chunk could not be written to the cache");
            slot.file.punch(slot.number);
            return memory();
        }
        let slot = Arc::new(slot);
        let mut inner = lock(&self.inner);
        if inner.slots.insert(name, slot.clone()).is_none() {
            inner.clock.push(name);
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

    /// Makes room for one more chunk. Returns false when none could be made.
    fn make_room(&self, size: ChunkSize) -> bool {
        while self.bytes.load(Ordering::Relaxed) + size.bytes() > self.bytes_max {
            if self.evict_one().is_none() {
                return false;
            }
        }
        let low = || {
            let Ok(dir) = File::open(&self.dir) else { return false };
            fstatvfs(&dir).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < self.keep_free_bytes + size.bytes())
        };
        if self.keep_free_bytes == 0 {
            return true;
        }
        if low() {
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
        // Erase the name before the bytes: a crash in between then leaves an empty slot.
        if let Err(error) = slot.file.names.write_all_at(&[0; ENTRY], slot.number * ENTRY as u64) {
            tracing::warn!(error = %error, "the name of an evicted chunk could not be erased; the next start will check it");
        }
        if Arc::strong_count(&slot) == 1 {
            slot.file.punch(slot.number);
        }
        bytes
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

impl Slot {
    fn fill(&self, body: &[u8]) -> io::Result<()> {
        self.file.slots.write_all_at(body, self.number * self.file.size.bytes())?;
        let mut entry = Vec::with_capacity(ENTRY);
        entry.extend(self.name.as_bytes());
        entry.extend(self.salt.0);
        entry.extend(self.length.to_le_bytes());
        entry.extend(crc32c::crc32c(&entry).to_le_bytes());
        entry.resize(ENTRY, 0);
        self.file.names.write_all_at(&entry, self.number * ENTRY as u64)
    }
}

impl SlotFile {
    fn open(dir: &Path, size: ChunkSize) -> io::Result<Arc<Self>> {
        let open = |what: &str, flags: i32| {
            let path = dir.join(format!("{what}-{}", size.log2()));
            File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)
        };
        let (slots, medium, names) = (open("slots", 0)?, open("slots", libc::O_DIRECT)?, open("names", 0)?);
        Ok(Arc::new(Self { size, slots, medium, names, free: Mutex::default() }))
    }

    fn load(self: Arc<Self>) -> io::Result<Vec<Slot>> {
        let length = usize_from(self.names.metadata()?.len());
        let mut table = vec![0; length / ENTRY * ENTRY];
        self.names.read_exact_at(&mut table, 0)?;
        let mut slots = Vec::new();
        let mut free = lock(&self.free);
        for (number, entry) in (0u64..).zip(table.chunks_exact(ENTRY)) {
            free.next = number + 1;
            match parse(entry) {
                Some((name, salt, length)) if u64::from(length) <= self.size.bytes() => slots.push(Slot {
                    file: self.clone(),
                    number,
                    name,
                    salt,
                    length,
                    proof: AtomicU8::new(UNPROVEN),
                    used: AtomicBool::new(false),
                }),
                _ => free.numbers.push(number),
            }
        }
        drop(free);
        Ok(slots)
    }

    fn punch(&self, number: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.slots, flags, number * self.size.bytes(), self.size.bytes()) {
            tracing::debug!(error = %error, "an evicted chunk keeps its disk space until its slot is used again");
        }
    }
}

fn parse(entry: &[u8]) -> Option<(ObjectName, Salt, u32)> {
    let crc = u32::from_le_bytes(entry.get(52..56)?.try_into().ok()?);
    if crc32c::crc32c(entry.get(..52)?) != crc {
        return None;
    }
    let name: [u8; 32] = entry.get(..32)?.try_into().ok()?;
    let salt: [u8; 16] = entry.get(32..48)?.try_into().ok()?;
    let length = u32::from_le_bytes(entry.get(48..52)?.try_into().ok()?);
    Some((ObjectName::from_bytes(name), Salt(salt), length))
}
