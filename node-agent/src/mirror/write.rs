//! Writes. Whole blocks go straight to the delta of the current epoch and wait for nothing. A write of part of a block gets
//! the rest of the block first, merges, and writes the whole block.
//!
//! ```text
//! lock stripes (shared; exclusive where a block is merged) -> be admitted by the gate -> bytes -> bits -> unlock -> reply
//! ```
//!
//! The order matters. Stripes are locked before admission, because a merge in a new epoch must see every write to the same
//! block that an older epoch has admitted, and such a write keeps its stripe locked until it is done. Bits are set after
//! the bytes are written, because a set bit means, also to the next process, that the bytes are in the file (I2).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use storage_core::{BLOCK_BYTES, tree::Leaf, units::usize_from};
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    bits::BlockState,
    config::WritePolicy,
    disk::{Disk, Layers},
    epoch::Epoch,
    error::{Fault, is_no_space},
    memory::AlignedBuf,
    read::{BLOCK, Missing, NotHere, Pinned, Purpose},
};

/// Bytes of the disk under one lock. A request of at most 1 MiB touches at most two stripes.
const STRIPE_BYTES: u64 = 1 << 20;
const STRIPES: usize = 64;
/// Bytes that the cache frees at once when a write finds no room on the node's disk.
const GIVE_BACK_BYTES: u64 = 64 << 20;

/// Why a write could not be done at once.
#[derive(Debug)]
pub(crate) enum NotNow {
    /// A cut holds writes. Wait until it lets go, then write again.
    Held,
    /// This is needed and not on this node.
    Missing(Missing),
    /// The write failed, and the guest gets this error.
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

/// Locks that keep a merge of part of a block apart from other writes to the same blocks.
pub(crate) struct Stripes {
    locks: [RwLock<()>; STRIPES],
}

/// The locked stripes of one request.
pub(super) type Guards<'a> = [Option<Guard<'a>>; 2];

pub(super) enum Guard<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Exclusive { _guard: RwLockWriteGuard<'a, ()> },
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self { locks: std::array::from_fn(|_| RwLock::new(())) }
    }

    /// Which lock a region of [`STRIPE_BYTES`] has.
    fn stripe(region: u64) -> usize {
        usize_from(region) % STRIPES
    }

    /// Locks the stripes of `offset..end`, exclusively where `exclusive` says so about the region. To avoid deadlocks, the
    /// lock with the smaller index is always taken first.
    fn lock(&self, offset: u64, end: u64, exclusive: impl Fn(u64) -> bool) -> Guards<'_> {
        let first = offset / STRIPE_BYTES;
        let last = (end - 1) / STRIPE_BYTES;
        assert!(last - first <= 1, "a request of {} bytes touches more than two stripes", end - offset);
        let take = |region: u64| {
            let lock = &self.locks[Self::stripe(region)];
            if exclusive(region) {
                Guard::Exclusive { _guard: lock.write().unwrap_or_else(PoisonError::into_inner) }
            } else {
                Guard::Shared { _guard: lock.read().unwrap_or_else(PoisonError::into_inner) }
            }
        };
        if first == last {
            return [Some(take(first)), None];
        }
        let (low, high) = if Self::stripe(first) < Self::stripe(last) { (first, last) } else { (last, first) };
        let low = take(low);
        [Some(low), Some(take(high))]
    }

    /// Locks the stripes of a request that merges nothing. `None` if it would have to wait.
    pub(super) fn try_lock_shared(&self, offset: u64, end: u64) -> Option<Guards<'_>> {
        let first = Self::stripe(offset / STRIPE_BYTES);
        let last = Self::stripe((end - 1) / STRIPE_BYTES);
        let take = |stripe: usize| match self.locks[stripe].try_read() {
            Ok(guard) => Some(Guard::Shared { _guard: guard }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard::Shared { _guard: poisoned.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        };
        let low = take(first)?;
        let high = if first == last { None } else { Some(take(last)?) };
        Some([Some(low), high])
    }

    /// Locks the stripe of `offset` against every write.
    pub(super) fn lock_exclusive(&self, offset: u64) -> RwLockWriteGuard<'_, ()> {
        let lock = &self.locks[Self::stripe(offset / STRIPE_BYTES)];
        lock.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request writes to a range.
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

/// Most bytes of one admitted change. Wherever it starts, it touches at most two stripes.
pub(crate) const PIECE_BYTES_MAX: u64 = STRIPE_BYTES;

impl Disk {
    /// Makes a change of at most [`PIECE_BYTES_MAX`] bytes. An error that is not a fault says why this is not possible at
    /// once; nothing was written then.
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
            change => self.merge(layers, offset, change, pinned)?,
        }
        Ok(())
    }

    /// Makes a change that starts or ends inside a block: reads that block, merges, and writes whole blocks.
    fn merge(&self, layers: &Layers, offset: u64, change: Change<'_>, pinned: &Pinned) -> Result<(), NotNow> {
        let end = offset + change.bytes();
        let (first, last) = (offset / BLOCK_BYTES, (end - 1) / BLOCK_BYTES);
        let mut buf = AlignedBuf::default();
        let whole = buf.slice(usize_from((last + 1 - first) * BLOCK_BYTES));
        if !offset.is_multiple_of(BLOCK_BYTES) || first == last {
            self.read_blocks(layers, first, 1, &mut whole[..BLOCK], Purpose::Merge, pinned)?;
        }
        if !end.is_multiple_of(BLOCK_BYTES) && first != last {
            let tail_at = whole.len() - BLOCK;
            self.read_blocks(layers, last, 1, &mut whole[tail_at..], Purpose::Merge, pinned)?;
        }
        let part = &mut whole[usize_from(offset - first * BLOCK_BYTES)..][..usize_from(change.bytes())];
        match change {
            Change::Data(data) => part.copy_from_slice(data),
            Change::Zero { .. } => part.fill(0),
        }
        let epoch = layers.current();
        self.store(epoch, first, whole)?;
        epoch.bits.set_data(first..last + 1);
        Ok(())
    }

    /// Writes whole blocks to the delta. If the node's disk is full, the cache makes room first.
    fn store(&self, epoch: &Epoch, first: u64, data: &[u8]) -> Result<(), NotNow> {
        loop {
            match epoch.write_blocks(first, data) {
                Ok(()) => return Ok(()),
                Err(e) if is_no_space(&e) && self.node().cache.give_back(GIVE_BACK_BYTES) > 0 => {}
                Err(e) => return Err(NotNow::Fault(Fault::from_io("delta", &e))),
            }
        }
    }

    /// For the contiguous policy: asks for the objects of the chunk of a write that would leave a gap, unless the cache has them.
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
            let missing = match layers.base.leaves(&self.node().pages, pinned, chunk..chunk + 1) {
                Err(NoLeaves::Fault(fault)) => return Err(NotNow::Fault(fault)),
                Err(NoLeaves::Missing(pages)) => Missing { pages, ..Missing::default() },
                Ok(leaves) => {
                    let parts = leaves.iter().filter_map(|(_, leaf)| leaf.as_ref()).flat_map(Leaf::parts);
                    let is_here = |name| pinned.objects.contains_key(name) || self.node().cache.has(name);
                    let objects = parts.filter(|(name, _)| !is_here(name)).map(|(name, kind)| (*name, kind)).collect();
                    Missing { objects, ..Missing::default() }
                }
            };
            if missing.is_empty() {
                continue;
            }
            return Err(NotNow::Missing(missing));
        }
        Ok(())
    }

    /// Makes a change of any size. Waits while a cut holds writes, and fetches missing bytes until the deadline. A large
    /// change is made in pieces, each of which is a write of its own.
    pub(crate) async fn change(
        self: &Arc<Self>,
        offset: u64,
        change: OwnedChange,
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut done = 0;
        let bytes = change.bytes();
        let change = Arc::new(change);
        // Dropped when this returns, which is when the write is answered.
        let mut held = None;
        while done < bytes {
            let piece = (bytes - done).min(PIECE_BYTES_MAX - (offset + done) % STRIPE_BYTES);
            let mut pinned = Pinned::default();
            loop {
                let (disk, part) = (self.clone(), change.clone());
                let at = done;
                // Writing may wait for the node's disk.
                let (result, back) = tokio::task::spawn_blocking(move || {
                    (disk.try_change(offset + at, part.part(at, piece), &pinned), pinned)
                })
                .await
                .map_err(|e| Fault::Io(e.to_string()))?;
                pinned = back;
                match result {
                    Ok(()) => break,
                    Err(NotNow::Fault(fault)) => return Err(fault),
                    Err(NotNow::Missing(missing)) => {
                        let brought = self.bring(missing, &mut pinned, deadline).await;
                        self.note_cause(brought.as_ref().err());
                        brought?;
                    }
                    Err(NotNow::Held) => {
                        held.get_or_insert_with(|| self.held_write());
                        self.released().await;
                    }
                }
            }
            done += piece;
        }
        Ok(())
    }
}

/// A change that owns its bytes, so that it can outlive its request.
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
            Self::Data(data) => Change::Data(&data[usize_from(at)..usize_from(at + bytes)]),
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

/// Whether the blocks that the epochs have in `from..to`, together with `new_from..new_to`, are one contiguous region.
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
