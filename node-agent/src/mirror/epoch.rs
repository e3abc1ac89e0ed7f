//! One delta epoch: what the guest wrote between two cuts. A sparse file at the disk's own offsets, bits that say which
//! blocks of it count, and the journal that makes the bits durable.
//!
//! ```text
//!            prepare                flip                       publish            fold
//!  (nothing) ------> next (no bits) ----> current (written to) ------> frozen ---------> gone
//!                                             ^ next flip freezes it      \__ abandon: its blocks move into the next
//! ```
//!
//! Invariants: bytes before bits (memory), data before journal (stable storage). A write counts in the epoch that
//! admitted it, however late its bytes arrive; `writers` counts those, and a commit waits for zero.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use storage_core::BLOCK_BYTES;
use tokio::sync::Notify;

use super::{
    bits::{BlockBits, Found},
    config::DeltaIo,
    error::{Fault, is_no_space},
    journal::{AppendError, Journal},
    memory::{AlignedBuf, is_block_aligned},
    stable::{self, StableFile},
};
use crate::holder::{Holder, HolderError};

/// Number of an epoch within its disk; grows with every cut.
pub(crate) type EpochNumber = u64;

/// One epoch, open.
pub(crate) struct Epoch {
    pub(crate) number: EpochNumber,
    pub(crate) bits: BlockBits,
    delta: StableFile,
    delta_io: DeltaIo,
    journal: Mutex<Journal>,
    /// A sync failed, and how (I2). Written and read with the journal's lock.
    failed: OnceLock<String>,
    /// Bytes were written that no sync has covered yet.
    unsynced: AtomicBool,
    writers: AtomicU64,
    no_writers: Notify,
}

/// Why an epoch cannot be made or opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Io(io::Error),
    Holder(HolderError),
    Live(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where the files of an epoch are and what its live map is called.
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) disk: muster_api::DiskId,
    pub(crate) number: EpochNumber,
    /// Random: tells this epoch from an earlier one with the same number.
    pub(crate) tag: u64,
}

impl Place<'_> {
    fn delta(&self) -> PathBuf {
        self.dir.join(format!("{}.delta", self.number))
    }

    fn bits(&self) -> PathBuf {
        self.dir.join(format!("{}.bits", self.number))
    }

    /// Name of its live map at the holder.
    pub(crate) fn live_key(&self) -> String {
        format!("{}/{}/{:016x}", self.disk, self.number, self.tag)
    }

    /// Removes the files and the live map; fine when there are none.
    pub(crate) fn remove(&self, holder: &Holder) -> io::Result<()> {
        for path in [self.delta(), self.bits(), self.bits().with_extension("bits-new")] {
            stable::remove(&path)?;
        }
        // A map left behind costs memory until the holder ends; the next start drops maps that nobody knows.
        if let Err(error) = holder.forget(&self.live_key()) {
            tracing::warn!(error = %error, "the live map of a removed epoch stays with the holder");
        }
        Ok(())
    }
}

impl Epoch {
    /// A new, empty epoch; its files are durable when this returns.
    pub(crate) fn create(place: &Place<'_>, bytes: u64, io: DeltaIo, holder: &Holder) -> Result<Self, OpenError> {
        // A file of this name can only be what a prepared cut left that never flipped.
        let delta = StableFile::create(&place.delta(), &mut options(io))?;
        delta.set_bytes(bytes)?;
        delta.sync_all()?;
        let journal = Journal::create(&place.bits(), place.tag)?;
        stable::sync_parent(&place.delta())?;
        let blocks = bytes / BLOCK_BYTES;
        let live = holder.get(&place.live_key(), BlockBits::bytes_for(blocks)).map_err(OpenError::Holder)?;
        let (bits, _fresh) = BlockBits::from_live(live, blocks, place.tag).map_err(OpenError::Live)?;
        Ok(Self::assemble(place.number, bits, delta, io, journal))
    }

    /// An epoch that an earlier process left: the live map if there still is one, else what the journal says.
    pub(crate) fn open(
        place: &Place<'_>,
        bytes: u64,
        io: DeltaIo,
        holder: &Holder,
    ) -> Result<(Self, Found), OpenError> {
        let delta = StableFile::open(&place.delta(), &mut options(io))?;
        if delta.bytes()? < bytes {
            delta.set_bytes(bytes)?;
        }
        let (journal, words) = Journal::replay(&place.bits(), place.tag)?;
        let blocks = bytes / BLOCK_BYTES;
        let live = holder.get(&place.live_key(), BlockBits::bytes_for(blocks)).map_err(OpenError::Holder)?;
        let (bits, found) = BlockBits::from_live(live, blocks, place.tag).map_err(OpenError::Live)?;
        bits.replay(&words, found);
        let epoch = Self::assemble(place.number, bits, delta, io, journal);
        // What the earlier process wrote last may not be on stable storage.
        epoch.unsynced.store(true, Ordering::Release);
        Ok((epoch, found))
    }

    fn assemble(number: EpochNumber, bits: BlockBits, delta: StableFile, delta_io: DeltaIo, journal: Journal) -> Self {
        Self {
            number,
            bits,
            delta,
            delta_io,
            journal: Mutex::new(journal),
            failed: OnceLock::new(),
            unsynced: AtomicBool::new(false),
            writers: AtomicU64::new(0),
            no_writers: Notify::new(),
        }
    }

    /// Whole blocks into the delta; the caller sets the bits after.
    pub(crate) fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        debug_assert!((data.len() as u64).is_multiple_of(BLOCK_BYTES), "{} bytes are not whole blocks", data.len());
        let offset = first * BLOCK_BYTES;
        let written = match self.delta_io {
            DeltaIo::Direct if !is_block_aligned(data) => AlignedBuf::with(data.len(), |buf| {
                buf.copy_from_slice(data);
                self.delta.write_all_at(buf, offset)
            }),
            DeltaIo::Buffered | DeltaIo::Direct => self.delta.write_all_at(data, offset),
        };
        // After the bytes: a flush that took the mark before them would leave them uncovered for the next one.
        self.unsynced.store(true, Ordering::Release);
        written
    }

    /// The delta, for bytes that are moved elsewhere, at the disk's own offsets; after writing [`Self::blocks_written`].
    pub(crate) fn delta_fd(&self) -> BorrowedFd<'_> {
        self.delta.as_fd()
    }

    /// What [`Self::delta_fd`] is for, where tests see it.
    #[cfg(test)]
    pub(super) fn write_delta(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.delta.write_all_at(bytes, offset)
    }

    /// Blocks were written to [`Self::delta_fd`].
    pub(crate) fn blocks_written(&self, blocks: Range<u64>) {
        // After the bytes, as in `write_blocks`.
        self.unsynced.store(true, Ordering::Release);
        self.bits.set_data(blocks);
    }

    /// Whole blocks from the delta. `into` is block aligned in memory.
    pub(crate) fn read_blocks(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        self.delta.read_exact_at(into, first * BLOCK_BYTES)
    }

    /// Gives the space of blocks back; they read as zeros.
    pub(crate) fn punch(&self, first: u64, blocks: u64) {
        // The `zeroed` bits say what is read; a file system that cannot punch only keeps the space.
        if let Err(error) = self.delta.punch(first * BLOCK_BYTES, blocks * BLOCK_BYTES) {
            tracing::debug!(error = %error, "a delta file keeps space that was punched");
        }
        self.unsynced.store(true, Ordering::Release);
    }

    /// Makes every write that was complete before this call durable: data, then bits (I2).
    pub(crate) fn flush(&self) -> Result<(), FlushError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = self.failed.get() {
            return Err(FlushError::Final(what.clone()));
        }
        let flushed = self.flush_into(&mut journal);
        if let Err(FlushError::Final(what)) = &flushed {
            // Before the lock goes: this flush took the marks, so the next one would find nothing left to do.
            self.failed.get_or_init(|| what.clone());
        }
        flushed
    }

    fn flush_into(&self, journal: &mut Journal) -> Result<(), FlushError> {
        let words = self.bits.take_changed();
        // Bits were set after their bytes were written, so the sync below covers whatever `words` says.
        if self.unsynced.swap(false, Ordering::AcqRel) || !words.is_empty() {
            self.delta.sync_data().map_err(|e| FlushError::Final(format!("sync of delta {}: {e}", self.number)))?;
        }
        match journal.append(&words) {
            Ok(()) => {}
            Err(AppendError::NotWritten(e)) => {
                self.bits.put_back_changed(&words);
                let fault = if is_no_space(&e) { Fault::NoSpace } else { Fault::from_io("journal", &e) };
                return Err(FlushError::Again(fault));
            }
            Err(AppendError::NotSynced(e)) => {
                return Err(FlushError::Final(format!("sync of journal {}: {e}", self.number)));
            }
        }
        if journal.is_long() {
            // The live words may be ahead of the data sync above, so sync once more before they count.
            let words = self.bits.all_words();
            self.delta.sync_data().map_err(|e| FlushError::Final(format!("sync of delta {}: {e}", self.number)))?;
            match journal.rewrite(&words) {
                Ok(()) => {}
                Err(AppendError::NotWritten(error)) => {
                    tracing::warn!(error = %error, "a long journal could not be written anew; it goes on");
                }
                Err(AppendError::NotSynced(e)) => {
                    return Err(FlushError::Final(format!("sync of the folder of journal {}: {e}", self.number)));
                }
            }
        }
        Ok(())
    }

    /// Bytes the delta takes on disk, by its blocks.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.bits.owned_blocks() * BLOCK_BYTES
    }

    /// One more write belongs here. Counted before the caller checks that this is still the current epoch.
    pub(crate) fn enter(&self) {
        self.writers.fetch_add(1, Ordering::SeqCst);
    }

    /// It is done.
    pub(crate) fn leave(&self) {
        if self.writers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.no_writers.notify_waiters();
        }
    }

    /// Waits until all writes it admitted are done. Only meaningful when it admits no more.
    pub(crate) async fn drained(&self) {
        loop {
            let woken = self.no_writers.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.writers.load(Ordering::SeqCst) == 0 {
                return;
            }
            woken.await;
        }
    }
}

/// How a flush failed.
#[derive(Debug)]
pub(crate) enum FlushError {
    /// Nothing is lost; a later one may work (no space for the journal).
    Again(Fault),
    /// A sync failed: what it covered may be gone, whatever a later one says (I2).
    Final(String),
}

fn options(io: DeltaIo) -> OpenOptions {
    let mut options = File::options();
    if io == DeltaIo::Direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options
}
