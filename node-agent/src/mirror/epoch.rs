//! One epoch: what the guest wrote between two cuts. It consists of the delta (a sparse file with the disk's own offsets),
//! the bits that say which blocks of the delta count, and the journal that makes the bits durable.
//!
//! ```text
//!            prepare                flip                       publish            fold
//!  (nothing) ------> next (no bits) ----> current (written to) ------> frozen ---------> gone
//!                                             ^ next flip freezes it      \__ abandon: its blocks move into the next
//! ```
//!
//! Invariants: bits are set after the bytes are in the file, and journaled after the data is durable. A write belongs to
//! the epoch that admitted it, however late its bytes arrive. `writers` counts the writes in progress; a commit waits
//! until there are none.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::{
        fd::BorrowedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use storage_core::{BLOCK_BYTES, lock, store::is_failure};
use tokio::sync::Notify;

use super::{
    bits::{BlockBits, BlockState, Found},
    error::{Fault, is_no_space},
    journal::{AppendError, Damage, Journal, Replayed},
    memory::{AlignedBuf, is_block_aligned},
    read::BLOCK,
    stable::{self, StableFile},
};
use crate::holder::{Holder, HolderError};

/// Number of an epoch within its disk. Each new epoch gets a larger one.
pub(crate) type EpochNumber = u64;

/// An open epoch: the blocks that were written since the one before, their data and their journal.
pub(crate) struct Epoch {
    pub(crate) number: EpochNumber,
    pub(crate) bits: BlockBits,
    delta: StableFile,
    journal: Mutex<Journal>,
    /// Set when a sync has failed, with the reason (I2). Accessed while the journal is locked.
    failed: OnceLock<String>,
    /// Whether bytes were written that no sync has covered yet.
    unsynced: AtomicBool,
    writers: AtomicU64,
    no_writers: Notify,
}

/// Why an epoch cannot be created or opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Io(io::Error),
    Holder(HolderError),
    /// The live map and the journal do not fit the epoch.
    Live(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Identifies an epoch, its files and its live map.
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) disk: muster_api::DiskId,
    pub(crate) number: EpochNumber,
    /// Random. Distinguishes this epoch from an earlier one with the same number.
    pub(crate) tag: u64,
}

impl Place<'_> {
    fn delta(&self) -> PathBuf {
        self.dir.join(format!("{}.delta", self.number))
    }

    fn bits(&self) -> PathBuf {
        self.dir.join(format!("{}.bits", self.number))
    }

    /// Key of its live map at the holder.
    pub(crate) fn live_key(&self) -> String {
        format!("{}/{}/{:016x}", self.disk, self.number, self.tag)
    }

    /// Removes the files and the live map. Succeeds when there are none.
    pub(crate) fn remove(&self, holder: &Holder) -> io::Result<()> {
        for path in [self.delta(), self.bits(), self.bits().with_extension("bits-new")] {
            stable::remove(&path)?;
        }
        // A live map that stays costs memory until the next start, which drops those that no disk uses.
        if let Err(error) = holder.forget(&self.live_key()) {
            tracing::warn!(error = %error, "the live map of a removed epoch stays in the holder");
        }
        Ok(())
    }
}

impl Epoch {
    /// Creates an empty epoch. Its files are durable when this returns.
    pub(crate) fn create(place: &Place<'_>, bytes: u64, holder: &Holder) -> Result<Self, OpenError> {
        // If a file of this name exists, a prepared cut left it that never flipped.
        let delta = StableFile::create(&place.delta(), &mut direct())?;
        delta.set_bytes(bytes)?;
        delta.sync_all()?;
        let journal = Journal::create(&place.bits(), place.tag)?;
        stable::sync_parent(&place.delta())?;
        let blocks = bytes / BLOCK_BYTES;
        let live = holder.get(&place.live_key(), BlockBits::bytes_for(blocks)).map_err(OpenError::Holder)?;
        let (bits, _fresh) = BlockBits::from_live(live, blocks, place.tag).map_err(OpenError::Live)?;
        Ok(Self::assemble(place.number, bits, delta, journal))
    }

    /// Opens an epoch that an earlier process left, with its live map if the holder still has it, else with what the journal
    /// has. A damaged journal is replaced if the live map is there, which is always newer; if not, the epoch has
    /// [`Self::failed`].
    pub(crate) fn open(place: &Place<'_>, bytes: u64, holder: &Holder) -> Result<(Self, Found), OpenError> {
        let delta = StableFile::open(&place.delta(), &mut direct())?;
        if delta.bytes()? < bytes {
            delta.set_bytes(bytes)?;
        }
        let Replayed { journal, words, damage } = Journal::replay(&place.bits(), place.tag)?;
        let mut key = place.live_key();
        if damage.is_some() && !holder.list().map_err(OpenError::Holder)?.contains(&key) {
            // This map will not be complete. Under a name of its own, no later start takes it for one that is.
            key.push_str("/damaged");
        }
        let blocks = bytes / BLOCK_BYTES;
        let live = holder.get(&key, BlockBits::bytes_for(blocks)).map_err(OpenError::Holder)?;
        let (bits, found) = BlockBits::from_live(live, blocks, place.tag).map_err(OpenError::Live)?;
        bits.replay(&words, found).map_err(OpenError::Live)?;
        let epoch = Self::assemble(place.number, bits, delta, journal);
        // The last writes of the earlier process may not be durable.
        epoch.unsynced.store(true, Ordering::Release);
        if let Some(damage) = damage {
            epoch.mend(&damage, found, &place.bits())?;
        }
        Ok((epoch, found))
    }

    /// Replaces a damaged journal by what the live map says. Without one, the epoch fails for good.
    fn mend(&self, damage: &Damage, found: Found, path: &Path) -> io::Result<()> {
        let Damage { at, lost_records } = damage;
        let path = path.display();
        if found == Found::Left {
            tracing::warn!("{path} is damaged at byte {at}: it is replaced by what the live map of its disk says");
            self.delta.sync_data()?;
            return lock(&self.journal).replace_damaged(&self.bits.all_words());
        }
        let (doubtful_bytes, range) = self.doubtful()?;
        let lost = match doubtful_bytes {
            0 => "all its data is named by intact records, but discards may be lost".to_owned(),
            bytes => format!(
                "{bytes} bytes that were written between {} and {} of the disk may have been flushed and would read as they \
                 were before",
                range.start, range.end
            ),
        };
        let what = format!(
            "{path} is damaged at byte {at}, {lost_records} or more of its records cannot be read: {lost}; the files are kept \
             as they are, go back to the last snapshot or copy"
        );
        self.failed.get_or_init(|| what);
        Ok(())
    }

    /// How many bytes the delta has that the bits do not name, and the range of the disk that they are in.
    fn doubtful(&self) -> io::Result<(u64, Range<u64>)> {
        let mut doubtful = Vec::new();
        for extent in self.delta.extents()? {
            let (mut at, end) = (extent.start / BLOCK_BYTES, extent.end.div_ceil(BLOCK_BYTES).min(self.bits.blocks()));
            while at < end {
                let (state, run) = self.bits.run(at, end);
                if state == BlockState::Absent {
                    doubtful.push(at * BLOCK_BYTES..(at + run) * BLOCK_BYTES);
                }
                at += run;
            }
        }
        let bytes = doubtful.iter().map(|range| range.end - range.start).sum();
        let whole = doubtful.first().zip(doubtful.last()).map_or(0..0, |(first, last)| first.start..last.end);
        Ok((bytes, whole))
    }

    /// Why the epoch has failed for good, if it has.
    pub(crate) fn failed(&self) -> Option<&String> {
        self.failed.get()
    }

    fn assemble(number: EpochNumber, bits: BlockBits, delta: StableFile, journal: Journal) -> Self {
        Self {
            number,
            bits,
            delta,
            journal: Mutex::new(journal),
            failed: OnceLock::new(),
            unsynced: AtomicBool::new(false),
            writers: AtomicU64::new(0),
            no_writers: Notify::new(),
        }
    }

    /// Writes whole blocks to the delta. The caller sets the bits afterwards.
    pub(crate) fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        assert!((data.len() as u64).is_multiple_of(BLOCK_BYTES), "{} bytes are not whole blocks", data.len());
        let offset = first * BLOCK_BYTES;
        let written = if is_block_aligned(data) {
            self.delta.write_all_at(data, offset)
        } else {
            AlignedBuf::with(data.len(), |buf| {
                buf.copy_from_slice(data);
                self.delta.write_all_at(buf, offset)
            })
        };
        // Set after writing: a flush that cleared it earlier would not cover these bytes, and the next one would skip them.
        self.unsynced.store(true, Ordering::Release);
        written
    }

    /// The delta file, for callers that move bytes themselves. It has the disk's own offsets. After writing they call
    /// [`Self::blocks_written`].
    pub(crate) fn delta_fd(&self) -> BorrowedFd<'_> {
        self.delta.as_fd()
    }

    /// Writes to the delta as a user of [`Self::delta_fd`] does, but recorded for the power-cut tests.
    #[cfg(test)]
    pub(super) fn write_delta(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.delta.write_all_at(bytes, offset)
    }

    /// Records that blocks were written to [`Self::delta_fd`].
    pub(crate) fn blocks_written(&self, blocks: Range<u64>) {
        // Set after writing, as in `write_blocks`.
        self.unsynced.store(true, Ordering::Release);
        self.bits.set_data(blocks);
    }

    /// Reads whole blocks from the delta. `into` is block aligned in memory.
    pub(crate) fn read_blocks(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        self.delta.read_exact_at(into, first * BLOCK_BYTES)
    }

    /// Frees the disk space of blocks whose bits say that they read as zeros.
    pub(crate) fn punch(&self, first: u64, blocks: u64) {
        // An error costs space only: the `zeroed` bits decide what is read.
        if let Err(error) = self.delta.punch(first * BLOCK_BYTES, blocks * BLOCK_BYTES) {
            tracing::debug!(error = %error, "a delta file keeps the space of punched blocks");
        }
        self.unsynced.store(true, Ordering::Release);
    }

    /// Makes every write that was complete before this call durable: the data, then the bits (I2).
    pub(crate) fn flush(&self) -> Result<(), FlushError> {
        // A flush that panicked has taken marks like one that failed.
        let mut journal = self.journal.lock().map_err(|_| FlushError::final_of("an earlier flush panicked", None))?;
        if let Some(what) = self.failed.get() {
            return Err(FlushError::final_of(what, None));
        }
        let flushed = self.flush_into(&mut journal);
        if let Err(FlushError::Final { what, .. }) = &flushed {
            // Set while the journal is locked: this flush has taken the marks of what changed, so the next one would find
            // nothing to do and succeed.
            self.failed.get_or_init(|| what.clone());
        }
        flushed
    }

    fn flush_into(&self, journal: &mut Journal) -> Result<(), FlushError> {
        let words = self.bits.take_changed();
        // Bits are set after their bytes are written, so this sync covers everything in `words`.
        if self.unsynced.swap(false, Ordering::AcqRel) || !words.is_empty() {
            self.sync_delta()?;
        }
        match journal.append(&words) {
            Ok(()) => {}
            Err(AppendError::NotWritten(e)) => {
                self.bits.put_back_changed(&words);
                let fault = if is_no_space(&e) { Fault::NoSpace } else { Fault::from_io("journal", &e) };
                return Err(FlushError::Again(fault));
            }
            Err(AppendError::NotSynced(e)) => {
                return Err(FlushError::final_of(&format!("sync of journal {}", self.number), Some(&e)));
            }
        }
        if journal.is_long() {
            // The live bits may be ahead of the sync above, so sync once more before they are journaled.
            let words = self.bits.all_words();
            self.sync_delta()?;
            match journal.rewrite(&words) {
                Ok(()) => {}
                Err(AppendError::NotWritten(error)) => {
                    tracing::warn!(error = %error, "a long journal could not be rewritten; it stays in use");
                }
                Err(AppendError::NotSynced(e)) => {
                    return Err(FlushError::final_of(
                        &format!("sync of the folder of journal {}", self.number),
                        Some(&e),
                    ));
                }
            }
        }
        Ok(())
    }

    fn sync_delta(&self) -> Result<(), FlushError> {
        let failed = |e| FlushError::final_of(&format!("sync of delta {}", self.number), Some(&e));
        self.delta.sync_data().map_err(failed)
    }

    /// Bytes of the blocks that this epoch owns.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.bits.owned_blocks() * BLOCK_BYTES
    }

    /// Counts a write that begins. Called before checking that this is still the current epoch.
    pub(crate) fn enter(&self) {
        self.writers.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a write that ends.
    pub(crate) fn leave(&self) {
        if self.writers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.no_writers.notify_waiters();
        }
    }

    /// Waits until all writes this epoch has admitted are done. Call it once the epoch is frozen.
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

/// Why a flush failed, by whether another one can help.
#[derive(Debug)]
pub(crate) enum FlushError {
    /// Nothing is lost and a later flush may succeed, for example when there was no space for the journal.
    Again(Fault),
    /// A sync failed. What it covered may be lost, even if a later sync succeeds (I2).
    Final {
        /// What failed, for people.
        what: String,
        /// Whether the node's disk is to blame.
        of_disk: bool,
    },
}

impl FlushError {
    pub(crate) fn final_of(what: &str, error: Option<&io::Error>) -> Self {
        match error {
            None => Self::Final { what: what.to_owned(), of_disk: false },
            Some(error) => Self::Final { what: format!("{what}: {error}"), of_disk: is_failure(error) },
        }
    }
}

/// How deltas are opened: around the host's page cache. A guest caches its disk itself, and a host full of guests has no
/// memory to spare for a second copy. With the page cache in between, a guest's flush would have to write out what others
/// wrote as well: measured beside one guest that writes as fast as it can, a database did a fifth of its flushes a second,
/// and cold reads of a third guest were seven times slower.
fn direct() -> OpenOptions {
    let mut options = File::options();
    options.custom_flags(libc::O_DIRECT);
    options
}

/// Tries whether files in `dir` can be used as deltas: written around the page cache, one block at a time. A file system
/// that is full is none of the errors.
///
/// # Errors
/// `Unsupported` when the file system or its device cannot do this; the text says what to do. Else what went wrong.
pub fn check_direct_io(dir: &Path) -> io::Result<()> {
    // A file without a name: nothing is left behind, and in a folder that others may write to, nothing of theirs is opened.
    let unnamed = File::options().read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_TMPFILE).open(dir);
    match unnamed.and_then(|file| AlignedBuf::with(BLOCK, |block| file.write_all_at(block, BLOCK_BYTES))) {
        Ok(()) => Ok(()),
        Err(error) if is_no_space(&error) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the file system of {} does not take direct writes of {BLOCK_BYTES} bytes ({error}): keep the data folder \
                 on ext4, XFS or Btrfs, on a device with blocks of at most {BLOCK_BYTES} bytes",
                dir.display()
            ),
        )),
        Err(error) => Err(error),
    }
}
