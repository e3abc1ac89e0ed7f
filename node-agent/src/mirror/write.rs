//! Writes: whole blocks go straight into the current epoch's delta and never wait; a part of a block waits for the rest
//! of it, merges and writes the whole block.
//!
//! ```text
//! lock stripes (shared; exclusive where a block is merged) -> be admitted by the gate -> bytes -> bits -> unlock -> reply
//! ```
//!
//! Order matters. Stripes before admission: a merge in the new epoch must see every write that an older epoch admitted
//! to the same block, and those hold the stripe until they are done. Bytes before bits: a set bit means that the bytes
//! are in the file, also for the process that comes after this one (I2).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use storage_core::BLOCK_BYTES;
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    bits::BlockState,
    config::WritePolicy,
    disk::{Disk, Layers},
    epoch::Epoch,
    error::{Fault, is_no_space},
    memory::AlignedBuf,
    read::{BLOCK, Missing, NotHere, Pinned, to_usize},
};

/// Bytes of disk under one lock; a request of 1 MiB touches at most two.
const STRIPE_BYTES: u64 = 1 << 20;
const STRIPES: u64 = 64;
/// What the cache gives back at once when a write finds no room.
const GIVE_BACK_BYTES: u64 = 64 << 20;

/// Why a write could not be done on the spot.
#[derive(Debug)]
pub(crate) enum NotNow {
    /// A cut holds writes: park it.
    Held,
    /// The rest of a block is elsewhere.
    Missing(Missing),
    /// It failed.
    Fault(Fault),
}

impl From<NotHere> for NotNow {
    fn from(not_here: NotHere) -> Self {
        match not_here {
            NotHere::Missing(missing) => Self::Missing(missing),
            NotHere::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// The locks that keep merges and other writes of the same blocks apart.
pub(crate) struct Stripes {
    locks: Vec<RwLock<()>>,
}

/// The stripes of one request.
pub(super) type Guards<'a> = [Option<Guard<'a>>; 2];

pub(super) enum Guard<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Exclusive { _guard: RwLockWriteGuard<'a, ()> },
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self { locks: (0..STRIPES).map(|_| RwLock::new(())).collect() }
    }

    /// Locks the stripes of `offset..end`; those for which `exclusive` says so, exclusively. Always in ascending order.
    fn lock(&self, offset: u64, end: u64, exclusive: impl Fn(u64) -> bool) -> Guards<'_> {
        let first = offset / STRIPE_BYTES;
        let last = (end - 1) / STRIPE_BYTES;
        assert!(last - first <= 1, "a request of {} bytes touches more than two stripes", end - offset);
        let take = |region: u64, also: u64| {
            let lock = self.locks.get(to_usize(region % STRIPES)).expect("modulo their number");
            if exclusive(region) || (also % STRIPES == region % STRIPES && exclusive(also)) {
                Guard::Exclusive { _guard: lock.write().unwrap_or_else(PoisonError::into_inner) }
            } else {
                Guard::Shared { _guard: lock.read().unwrap_or_else(PoisonError::into_inner) }
            }
        };
        if first == last {
            return [Some(take(first, first)), None];
        }
        let (low, high) = if first % STRIPES < last % STRIPES { (first, last) } else { (last, first) };
        let low = take(low, low);
        [Some(low), Some(take(high, high))]
    }

    /// Locks the stripes of a request that merges nothing, unless that means to wait.
    pub(super) fn try_lock_shared(&self, offset: u64, end: u64) -> Option<Guards<'_>> {
        let first = offset / STRIPE_BYTES % STRIPES;
        let last = (end - 1) / STRIPE_BYTES % STRIPES;
        let take = |stripe: u64| match self.locks.get(to_usize(stripe)).expect("modulo their number").try_read() {
            Ok(guard) => Some(Guard::Shared { _guard: guard }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard::Shared { _guard: poisoned.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        };
        let low = take(first)?;
        let high = if first == last { None } else { Some(take(last)?) };
        Some([Some(low), high])
    }

    /// Keeps every write away from the stripe of `offset`.
    pub(super) fn lock_exclusive(&self, offset: u64) -> RwLockWriteGuard<'_, ()> {
        let lock = self.locks.get(to_usize(offset / STRIPE_BYTES % STRIPES)).expect("modulo their number");
        lock.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request does to a range.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    Data(&'a [u8]),
    Zero { bytes: u64 },
}

impl Change<'_> {
    fn bytes(self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zero { bytes } => bytes,
        }
    }
}

/// Largest piece of one admission: what two stripes hold wherever it starts.
pub(crate) const PIECE_BYTES_MAX: u64 = STRIPE_BYTES;

impl Disk {
    /// Does a change of at most [`PIECE_BYTES_MAX`] now, or says what stands in the way; then nothing was done.
    pub(crate) fn try_change(&self, offset: u64, change: Change<'_>, pinned: &Pinned) -> Result<(), NotNow> {
        self.check_writable().map_err(NotNow::Fault)?;
        let bytes = change.bytes();
        let end = offset.checked_add(bytes).filter(|end| *end <= self.size_bytes());
        let end = end.ok_or(NotNow::Fault(Fault::OutOfRange))?;
        if bytes == 0 {
            return Ok(());
        }
        let head_partial = !offset.is_multiple_of(BLOCK_BYTES);
        let tail_partial = !end.is_multiple_of(BLOCK_BYTES);
        let merged = |region: u64| {
            (head_partial && offset / STRIPE_BYTES == region) || (tail_partial && (end - 1) / STRIPE_BYTES == region)
        };
        let _stripes = self.stripes().lock(offset, end, merged);
        let admitted = self.admit()?;
        let layers = admitted.layers();
        if self.node().config.write_policy == WritePolicy::Contiguous {
            self.close_gap(layers, offset, end, pinned)?;
        }
        let epoch = layers.current();
        let first = offset / BLOCK_BYTES;
        let last = (end - 1) / BLOCK_BYTES;
        match change {
            Change::Data(data) if !head_partial && !tail_partial => {
                self.store(epoch, first, data)?;
                epoch.bits.set_data(first..last + 1);
            }
            Change::Zero { .. } if !head_partial && !tail_partial => zero_blocks(epoch, first, last + 1),
            change => {
                let mut buf = AlignedBuf::default();
                let whole = buf.slice(to_usize((last + 1 - first) * BLOCK_BYTES));
                let length = whole.len();
                if head_partial || first == last {
                    let block = whole.get_mut(..BLOCK).expect("at least one block");
                    self.read_blocks(layers, first, 1, block, pinned)?;
                }
                if tail_partial && last != first {
                    let block = whole.get_mut(length - BLOCK..).expect("at least one block");
                    self.read_blocks(layers, last, 1, block, pinned)?;
                }
                let from = to_usize(offset - first * BLOCK_BYTES);
                let part = whole.get_mut(from..from + to_usize(bytes)).expect("inside of its blocks");
                match change {
                    Change::Data(data) => part.copy_from_slice(data),
                    Change::Zero { .. } => part.fill(0),
                }
                self.store(epoch, first, whole)?;
                epoch.bits.set_data(first..last + 1);
            }
        }
        Ok(())
    }

    fn store(&self, epoch: &Epoch, first: u64, data: &[u8]) -> Result<(), NotNow> {
        loop {
            match epoch.write_blocks(first, data) {
                Ok(()) => return Ok(()),
                // The cache gives way before a guest's write fails.
                Err(e) if is_no_space(&e) && self.node().cache.give_back(GIVE_BACK_BYTES) > 0 => {}
                Err(e) => return Err(NotNow::Fault(Fault::from_io("delta", &e))),
            }
        }
    }

    /// Contiguous policy: the chunk of a write that would leave a gap is brought into the cache first.
    fn close_gap(&self, layers: &Layers, offset: u64, end: u64, pinned: &Pinned) -> Result<(), NotNow> {
        let per_chunk = u64::from(layers.base.descriptor.chunk.blocks());
        let (first, last) = (offset / BLOCK_BYTES, (end - 1) / BLOCK_BYTES);
        let blocks_end = self.size_bytes() / BLOCK_BYTES;
        let known = layers.base.descriptor.chunks();
        for chunk in first / per_chunk..=last / per_chunk {
            let from = chunk * per_chunk;
            let to = (from + per_chunk).min(blocks_end);
            let (new_from, new_to) = (first.max(from), (last + 1).min(to));
            if chunk >= known || is_one_region(layers, from, to, new_from, new_to) {
                continue;
            }
            let leaves = layers.base.leaves(&self.node().pages, pinned, chunk..chunk + 1);
            let missing = match leaves {
                Err(NoLeaves::Fault(fault)) => return Err(NotNow::Fault(fault)),
                Err(NoLeaves::Missing(pages)) => Missing { pages, ..Missing::default() },
                Ok(leaves) => match leaves.into_iter().next() {
                    Some((_, Some(storage_core::tree::Leaf::Whole(name))))
                        if !pinned.chunks.contains_key(&name) && !self.node().cache.has(&name) =>
                    {
                        Missing { chunks: vec![name], ..Missing::default() }
                    }
                    _ => continue,
                },
            };
            return Err(NotNow::Missing(missing));
        }
        Ok(())
    }

    /// Does a change, waiting for holds and for missing bytes. Large ones in pieces, each of which is a write of its own.
    pub(crate) async fn change(
        self: &Arc<Self>,
        offset: u64,
        change: OwnedChange,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut done = 0;
        let bytes = change.bytes();
        let change = Arc::new(change);
        while done < bytes {
            let piece = (bytes - done).min(PIECE_BYTES_MAX - (offset + done) % STRIPE_BYTES);
            let mut pinned = Pinned::default();
            loop {
                let (disk, part) = (self.clone(), change.clone());
                let at = done;
                // The page cache may make the writer wait.
                let (result, back) = tokio::task::spawn_blocking(move || {
                    (disk.try_change(offset + at, part.part(at, piece), &pinned), pinned)
                })
                .await
                .map_err(|e| Fault::Io(e.to_string()))?;
                pinned = back;
                match result {
                    Ok(()) => break,
                    Err(NotNow::Fault(fault)) => return Err(fault),
                    Err(NotNow::Missing(missing)) => self.bring(missing, &mut pinned, deadline).await?,
                    Err(NotNow::Held) => self.released().await,
                }
            }
            done += piece;
        }
        Ok(())
    }
}

/// A change that outlives its request.
pub(crate) enum OwnedChange {
    Data(Vec<u8>),
    Zero { bytes: u64 },
}

impl OwnedChange {
    fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zero { bytes } => *bytes,
        }
    }

    fn part(&self, at: u64, bytes: u64) -> Change<'_> {
        match self {
            Self::Data(data) => Change::Data(data.get(to_usize(at)..to_usize(at + bytes)).expect("pieces of the data")),
            Self::Zero { .. } => Change::Zero { bytes },
        }
    }
}

fn zero_blocks(epoch: &Epoch, first: u64, end: u64) {
    let mut has_data = false;
    let mut at = first;
    while at < end && !has_data {
        let (state, run) = epoch.bits.run(at, end);
        has_data = state == BlockState::Data;
        at += run;
    }
    epoch.bits.set_zero(first..end);
    if has_data {
        epoch.punch(first, end - first);
    }
}

/// Whether what the epochs have of `from..to` and `new_from..new_to` together is one run of blocks.
fn is_one_region(layers: &Layers, from: u64, to: u64, new_from: u64, new_to: u64) -> bool {
    let mut low = new_from;
    let mut high = new_to;
    let has = |block: u64| layers.epochs.iter().any(|epoch| epoch.bits.state(block) != BlockState::Absent);
    while low > from && has(low - 1) {
        low -= 1;
    }
    while high < to && has(high) {
        high += 1;
    }
    !(from..low).chain(high..to).any(has)
}
