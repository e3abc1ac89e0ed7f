//! The node's clean chunk bodies: raw, in slots, shared by all disks whatever their version (I1, I4).
//!
//! ```text
//! cache/slots-18        slot n = bytes n << 18 ...          one pair of files per chunk size (log2)
//! cache/names-18        64 bytes per slot: name, salt, length, checksum; all zeros = empty
//! cache/clean           only between a clean stop and the next start: the boot it happened in
//!
//! absent --get_or_fetch--> in flight (one fetch, all who ask wait for it) --verified--> slot --evicted--> absent
//! ```
//!
//! Filled once per name, evicted by a clock hand, never synced. After a stop that was not clean a slot is hashed at its
//! first use and dropped when it is not what its name says. A slot that is in use cannot be evicted: who reads it holds
//! it. What does not fit, is served from memory. The cache gives way before any guest's write fails: see
//! [`Cache::give_back`].

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use muster_pool::PoolClient;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use storage_core::{ChunkSize, Kind, ObjectName, Salt};
use tokio::sync::watch;

use super::error::Fault;

const ENTRY: usize = 64;
const CLEAN: &str = "clean";
/// Slots looked at before an insertion gives up making room.
const HAND_STEPS_MAX: usize = 4096;

/// The cache of a node.
pub(crate) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    keep_free_bytes: u64,
    inner: Mutex<Inner>,
    bytes: AtomicU64,
    pool: PoolClient,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<ObjectName, Arc<Slot>>,
    flights: HashMap<ObjectName, watch::Receiver<Option<Landed>>>,
    files: HashMap<u8, Arc<SlotFile>>,
    /// In the order of the clock hand.
    clock: Vec<ObjectName>,
    hand: usize,
}

type Landed = Result<Fetched, Fault>;

/// A body and what it cost.
#[derive(Clone)]
pub(crate) struct Fetched {
    pub(crate) body: Body,
    pub(crate) network_bytes: u64,
}

/// One pair of files.
struct SlotFile {
    size: ChunkSize,
    slots: File,
    names: File,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    numbers: Vec<u64>,
    next: u64,
}

/// One filled slot.
pub(crate) struct Slot {
    file: Arc<SlotFile>,
    number: u64,
    name: ObjectName,
    salt: Salt,
    length: u32,
    /// [`UNPROVEN`] until hashed by this process or known to be from a clean stop.
    proof: AtomicU8,
    used: AtomicBool,
}

const UNPROVEN: u8 = 0;
const PROVEN: u8 = 1;
const BAD: u8 = 2;

/// The body of a chunk, without the zeros at its end; proven to be what its name says.
#[derive(Clone)]
pub(crate) enum Body {
    /// In the cache.
    Slot(Arc<Slot>),
    /// There was no room.
    Memory(Bytes),
}

impl Body {
    /// Bytes from `offset` of the chunk; zeros behind the body's end.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                let have = bytes.get(offset..).unwrap_or_default();
                let n = have.len().min(into.len());
                into.get_mut(..n).unwrap_or_default().copy_from_slice(have.get(..n).unwrap_or_default());
                into.get_mut(n..).unwrap_or_default().fill(0);
                Ok(())
            }
            Self::Slot(slot) => slot.read(offset, into),
        }
    }
}

impl Slot {
    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let length = usize::try_from(self.length).map_err(io::Error::other)?;
        let n = length.saturating_sub(offset).min(into.len());
        let (have, zeros) = into.split_at_mut(n);
        if n > 0 {
            self.file.slots.read_exact_at(have, self.number * self.file.size.bytes() + offset as u64)?;
        }
        zeros.fill(0);
        Ok(())
    }

    /// The whole body, hashed in this pass (I4); none when it is not what its name says.
    fn read_proven(&self) -> io::Result<Option<Vec<u8>>> {
        let mut body = vec![0; usize::try_from(self.length).map_err(io::Error::other)?];
        self.read(0, &mut body)?;
        let good = ObjectName::of_chunk(self.salt, self.file.size, &body) == self.name;
        self.proof.store(if good { PROVEN } else { BAD }, Ordering::Release);
        Ok(good.then_some(body))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The last user is gone, so the number can be used again. The name was taken off when it was evicted.
        lock(&self.file.free).numbers.push(self.number);
    }
}

impl Cache {
    pub(crate) fn open(
        dir: PathBuf,
        bytes_max: u64,
        keep_free_bytes: u64,
        pool: PoolClient,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let proof = if stopped_clean_in_this_boot(&dir) { PROVEN } else { UNPROVEN };
        let mut inner = Inner::default();
        let mut bytes = 0;
        for log2 in 0..64 {
            let Some(size) = ChunkSize::from_log2(log2) else { continue };
            if !dir.join(format!("names-{log2}")).exists() {
                continue;
            }
            let file = SlotFile::open(&dir, size)?;
            for slot in file.clone().load(proof)? {
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
            pool,
            runtime,
        })
    }

    /// The chunk, if it is here and good. Hashes it when nobody did since an unclean stop.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<Body> {
        let slot = lock(&self.inner).slots.get(name).cloned()?;
        slot.used.store(true, Ordering::Relaxed);
        match slot.proof.load(Ordering::Acquire) {
            PROVEN => Some(Body::Slot(slot)),
            BAD => None,
            _ => match slot.read_proven() {
                Ok(Some(_)) => Some(Body::Slot(slot)),
                Ok(None) => {
                    tracing::warn!(chunk.name = %name, "a cached chunk is not what its name says; it is dropped");
                    self.evict(name);
                    None
                }
                Err(error) => {
                    tracing::warn!(chunk.name = %name, error = %error, "a cached chunk cannot be read; it is dropped");
                    self.evict(name);
                    None
                }
            },
        }
    }

    /// Whether it is here, without using or proving it.
    pub(crate) fn has(&self, name: &ObjectName) -> bool {
        lock(&self.inner).slots.contains_key(name)
    }

    /// The body, hashed in this pass: what a merge may give a new name to (I4).
    pub(crate) fn get_proven(&self, name: &ObjectName) -> Option<Vec<u8>> {
        let slot = lock(&self.inner).slots.get(name).cloned()?;
        slot.used.store(true, Ordering::Relaxed);
        if let Ok(Some(body)) = slot.read_proven() {
            return Some(body);
        }
        tracing::warn!(chunk.name = %name, "a cached chunk is not what its name says; it is dropped");
        self.evict(name);
        None
    }

    /// The chunks, fetched where they are not here: each once, however many ask; whole batches at once.
    pub(crate) async fn get_or_fetch(
        self: &Arc<Self>,
        names: &[ObjectName],
        salt: Salt,
        size: ChunkSize,
        deadline: tokio::time::Instant,
    ) -> Result<HashMap<ObjectName, Fetched>, Fault> {
        let mut found = HashMap::new();
        let mut waiting = Vec::new();
        let mut mine = Vec::new();
        for name in names {
            if let Some(body) = self.get(name) {
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
            // A task of its own: it goes on for the others when whoever asked first goes away.
            let cache = self.clone();
            self.runtime.spawn(async move { cache.fly(mine, salt, size, deadline).await });
        }
        for (name, mut flight, first) in waiting {
            let landed = tokio::time::timeout_at(deadline, flight.wait_for(Option::is_some)).await;
            let mut fetched = match landed {
                Ok(Ok(landed)) => match &*landed {
                    Some(landed) => landed.clone()?,
                    None => return Err(Fault::Unavailable("the fetch was given up".to_owned())),
                },
                Ok(Err(_)) => return Err(Fault::Unavailable("the fetch was given up".to_owned())),
                Err(_) => return Err(Fault::Unavailable(format!("chunk {name}: the deadline passed"))),
            };
            if !first {
                // Counted by the one that started it.
                fetched.network_bytes = 0;
            }
            found.insert(name, fetched);
        }
        Ok(found)
    }

    async fn fly(
        self: Arc<Self>,
        flights: Vec<(ObjectName, watch::Sender<Option<Landed>>)>,
        salt: Salt,
        size: ChunkSize,
        deadline: tokio::time::Instant,
    ) {
        let names: Vec<_> = flights.iter().map(|(name, _)| *name).collect();
        let got = self.pool.get(&names, deadline).await;
        let cache = self.clone();
        // Writing the slots may wait for the disk.
        let landing = tokio::task::spawn_blocking(move || {
            let mut landed: HashMap<ObjectName, Landed> = HashMap::new();
            match got {
                Ok(got) => {
                    for got in got {
                        let name = got.object.name;
                        let fetched = if got.object.kind == Kind::Chunk {
                            Ok(Fetched {
                                body: cache.insert(name, salt, size, &got.object.body),
                                network_bytes: got.network_bytes,
                            })
                        } else {
                            Err(Fault::Corrupt(format!("object {name} is no chunk")))
                        };
                        landed.insert(name, fetched);
                    }
                }
                Err(error) => {
                    let fault = Fault::Unavailable(error.to_string());
                    landed.extend(names.iter().map(|name| (*name, Err(fault.clone()))));
                }
            }
            landed
        });
        let mut landed = landing.await.unwrap_or_default();
        for (name, sender) in flights {
            let result = landed.remove(&name).unwrap_or_else(|| Err(Fault::Unavailable(format!("chunk {name}"))));
            // First out of the list, then told: who comes after finds the slot or starts anew.
            lock(&self.inner).flights.remove(&name);
            sender.send_replace(Some(result));
        }
    }

    /// Keeps a body that was just verified or named by this process; from memory when there is no room.
    pub(crate) fn insert(&self, name: ObjectName, salt: Salt, size: ChunkSize, body: &Bytes) -> Body {
        if let Some(slot) = lock(&self.inner).slots.get(&name)
            && slot.proof.load(Ordering::Acquire) == PROVEN
        {
            return Body::Slot(slot.clone());
        }
        self.evict(&name);
        let memory = || Body::Memory(body.clone());
        if !self.make_room(size) {
            return memory();
        }
        let Ok(length) = u32::try_from(body.len()) else { return memory() };
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
                        tracing::warn!(error = %error, "the cache cannot make its files");
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
            tracing::debug!(error = %error, "a chunk does not fit into the cache");
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

    /// Frees at least `bytes` of the file system if that many are kept here: the cache gives way first.
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
            // The floor is near: a new chunk only in the place of another.
            return self.evict_one().is_some();
        }
        true
    }

    /// Evicts the next chunk nobody uses; its bytes.
    fn evict_one(&self) -> Option<u64> {
        let mut inner = lock(&self.inner);
        for _ in 0..HAND_STEPS_MAX.min(2 * inner.clock.len()) {
            if inner.clock.is_empty() {
                return None;
            }
            inner.hand %= inner.clock.len();
            let hand = inner.hand;
            let name = inner.clock.get(hand).copied()?;
            let Some(slot) = inner.slots.get(&name) else {
                inner.clock.swap_remove(hand);
                continue;
            };
            if slot.used.swap(false, Ordering::Relaxed) || Arc::strong_count(slot) > 1 {
                inner.hand += 1;
                continue;
            }
            let slot = inner.slots.remove(&name)?;
            inner.clock.swap_remove(hand);
            drop(inner);
            return Some(self.release(slot));
        }
        None
    }

    fn evict(&self, name: &ObjectName) {
        // Bound first: the lock must not be held while the slot is released.
        let slot = lock(&self.inner).slots.remove(name);
        if let Some(slot) = slot {
            self.release(slot);
        }
    }

    fn release(&self, slot: Arc<Slot>) -> u64 {
        let bytes = slot.file.size.bytes();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // First the name, then the bytes: what is left after a crash in between is an empty slot.
        if let Err(error) = slot.file.names.write_all_at(&[0; ENTRY], slot.number * ENTRY as u64) {
            tracing::warn!(error = %error, "a name stays in the cache's table; the next start will find it out");
        }
        if Arc::strong_count(&slot) == 1 {
            slot.file.punch(slot.number);
        }
        bytes
    }

    /// Remembers that everything here was proven and written in this boot.
    pub(crate) fn stop(&self) {
        let all_proven = lock(&self.inner).slots.values().all(|slot| slot.proof.load(Ordering::Acquire) == PROVEN);
        let Some(boot) = boot_id().filter(|_| all_proven) else { return };
        if let Err(error) = std::fs::write(self.dir.join(CLEAN), boot) {
            tracing::debug!(error = %error, "the cache will be checked again at the next start");
        }
    }

    /// Bytes of slots in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
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
        let open = |what: &str| {
            let path = dir.join(format!("{what}-{}", size.log2()));
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (slots, names) = (open("slots")?, open("names")?);
        Ok(Arc::new(Self { size, slots, names, free: Mutex::default() }))
    }

    fn load(self: Arc<Self>, proof: u8) -> io::Result<Vec<Slot>> {
        let length = usize::try_from(self.names.metadata()?.len()).map_err(io::Error::other)?;
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
                    proof: AtomicU8::new(proof),
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
            tracing::debug!(error = %error, "an evicted chunk keeps its space until the slot is used again");
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

fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// Reads the mark and takes it away: from now on a stop is unclean until it is made again.
fn stopped_clean_in_this_boot(dir: &Path) -> bool {
    let mark = std::fs::read_to_string(dir.join(CLEAN)).ok();
    let removed = std::fs::remove_file(dir.join(CLEAN)).is_ok();
    removed && mark.is_some() && mark == boot_id()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
