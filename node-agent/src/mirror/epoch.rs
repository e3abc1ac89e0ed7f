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
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate};
use storage_core::BLOCK_BYTES;
use tokio::sync::Notify;

use super::{
    bits::{BlockBits, Found},
    config::DeltaIo,
    error::{Fault, is_no_space},
    journal::{AppendError, Journal},
    memory::{AlignedBuf, is_block_aligned},
};
use crate::holder::{Holder, HolderError};

/// Number of an epoch within its disk; grows with every cut.
pub(crate) type EpochNumber = u64;

/// One epoch, open.
pub(crate) struct Epoch {
    pub(crate) number: EpochNumber,
    pub(crate) bits: BlockBits,
    delta: File,
    delta_io: DeltaIo,
    journal: Mutex<Journal>,
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
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
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
        let delta = open_delta(&place.delta(), io, true)?;
        delta.set_len(bytes)?;
        delta.sync_all()?;
        let journal = Journal::create(&place.bits(), place.tag)?;
        super::journal::sync_parent(&place.delta())?;
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
        let delta = open_delta(&place.delta(), io, false)?;
        if delta.metadata()?.len() < bytes {
            delta.set_len(bytes)?;
        }
        let (journal, words) = Journal::replay(&place.bits(), place.tag)?;
        let blocks = bytes / BLOCK_BYTES;
        let live = holder.get(&place.live_key(), BlockBits::bytes_for(blocks)).map_err(OpenError::Holder)?;
        let (bits, found) = BlockBits::from_live(live, blocks, place.tag).map_err(OpenError::Live)?;
        bits.replay(&words, found);
        let epoch = Self::assemble(place.number, bits, delta, io, journal);
        // What the earlier process wrote last may not be on stable storage.
        epoch.unsynced.store(found == Found::Left, Ordering::Release);
        Ok((epoch, found))
    }

    fn assemble(number: EpochNumber, bits: BlockBits, delta: File, delta_io: DeltaIo, journal: Journal) -> Self {
        Self {
            number,
            bits,
            delta,
            delta_io,
            journal: Mutex::new(journal),
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

    /// Whole blocks from the delta. `into` is block aligned in memory.
    pub(crate) fn read_blocks(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        self.delta.read_exact_at(into, first * BLOCK_BYTES)
    }

    /// Gives the space of blocks back; they read as zeros.
    pub(crate) fn punch(&self, first: u64, blocks: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // The `zeroed` bits say what is read; a file system that cannot punch only keeps the space.
        if let Err(error) = fallocate(&self.delta, flags, first * BLOCK_BYTES, blocks * BLOCK_BYTES) {
            tracing::debug!(error = %error, "a delta file keeps space that was punched");
        }
        self.unsynced.store(true, Ordering::Release);
    }

    /// Makes every write that was complete before this call durable: data, then bits (I2).
    pub(crate) fn flush(&self) -> Result<(), FlushError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
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
            if let Err(error) = journal.rewrite(&words) {
                tracing::warn!(error = %error, "a long journal could not be written anew; it goes on");
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

fn open_delta(path: &Path, io: DeltaIo, create: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    if create {
        // A file of this name can only be what a prepared cut left that never flipped.
        options.create(true).truncate(true);
    }
    if io == DeltaIo::Direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(path)
}
