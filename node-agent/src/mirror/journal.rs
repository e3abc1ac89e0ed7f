//! The journal makes the bits of one epoch durable. It is an append-only file of checksummed records, one per flush.
//!
//! ```text
//! record  magic u32 | entries u32 | tag of the epoch u64 | sequence u64 | crc32c u32 (over the rest, this field 0) | 0 u32
//! entry   word u64 | owned u64 | zeroed u64          the whole state of 64 blocks; later entries replace earlier ones
//! ```
//!
//! Invariant (I2): bits are appended only after the data they speak of is durable, so everything in the file is true after
//! a power cut.
//!
//! The file is written ahead with zeros, so that an append changes no metadata and its sync is one write. A torn record
//! ends the replay: its flush was never acknowledged. Each record has a sync of its own, so there can be no complete record
//! after a torn one that a later replay would mistake for a new one. When the file has become much longer than its entries
//! need, a new file is written beside it and renamed over it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use storage_core::units::usize_from;

use super::{
    bits::Word,
    stable::{self, Folder, StableFile},
};

const MAGIC: u32 = u32::from_le_bytes(*b"MJR1");
const HEAD: usize = 32;
const ENTRY: usize = 24;
/// Bytes that a new file is written ahead.
const FIRST_AHEAD: u64 = 128 << 10;
/// Bytes by which a longer file is written ahead.
const AHEAD: u64 = 1 << 20;
/// A journal is not rewritten below this size, in bytes.
const REWRITE_MIN: u64 = if cfg!(test) { 512 } else { 8 << 20 };

/// A journal, open for appending.
pub(crate) struct Journal {
    path: PathBuf,
    file: StableFile,
    tag: u64,
    /// Number of the next record.
    sequence: u64,
    /// End of the last record, in bytes.
    end: u64,
    /// Length of the file, in bytes.
    ahead: u64,
    /// The journal is rewritten when `end` exceeds this.
    rewrite_at: u64,
}

impl Journal {
    /// Creates an empty journal. It is durable when the caller has synced the folder.
    pub(crate) fn create(path: &Path, tag: u64) -> io::Result<Self> {
        let file = StableFile::create(path, &mut File::options())?;
        let mut journal =
            Self { path: path.to_owned(), file, tag, sequence: 0, end: 0, ahead: 0, rewrite_at: REWRITE_MIN };
        journal.write_ahead(FIRST_AHEAD)?;
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// Opens a journal. Returns it, ready for appending, and its last entry for each word.
    pub(crate) fn replay(path: &Path, tag: u64) -> io::Result<(Self, BTreeMap<u64, Word>)> {
        let file = StableFile::open(path, &mut File::options())?;
        let length = file.bytes()?;
        let mut words = BTreeMap::new();
        let mut journal =
            Self { path: path.to_owned(), file, tag, sequence: 0, end: 0, ahead: length, rewrite_at: REWRITE_MIN };
        let bytes = journal.file.read_all()?;
        let mut rest = bytes.as_slice();
        while let Some((entries, used)) = record(rest, tag, journal.sequence) {
            words.extend(entries.into_iter().map(|word| (word.index, word)));
            journal.sequence += 1;
            journal.end += used as u64;
            rest = &rest[used..];
        }
        // An earlier process may have died between writing and syncing the last record, which counts from now on.
        journal.file.sync_data()?;
        journal.rewrite_at = REWRITE_MIN.max(4 * journal.end);
        Ok((journal, words))
    }

    /// Appends a record of `words` and syncs. The data that the words speak of must already be durable.
    pub(crate) fn append(&mut self, words: &[Word]) -> Result<(), AppendError> {
        if words.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(HEAD + words.len() * ENTRY);
        encode(words, self.tag, self.sequence, &mut bytes);
        let end = self.end + bytes.len() as u64;
        // Nothing that counts was written yet, so a full file system does no harm here.
        self.write_ahead(end).map_err(AppendError::NotWritten)?;
        self.file.write_all_at(&bytes, self.end).map_err(AppendError::NotWritten)?;
        self.file.sync_data().map_err(AppendError::NotSynced)?;
        self.end = end;
        self.sequence += 1;
        Ok(())
    }

    /// Whether the journal should be rewritten.
    pub(crate) fn is_long(&self) -> bool {
        self.end > self.rewrite_at
    }

    /// Replaces the file by a new one with one record of `words`, which must be the whole durable state.
    pub(crate) fn rewrite(&mut self, words: &[Word]) -> Result<(), AppendError> {
        let beside = self.path.with_extension("bits-new");
        let folder = self.path.parent().expect("a journal is in a folder");
        let folder = Folder::open(folder).map_err(AppendError::NotWritten)?;
        let mut new = Self::create(&beside, self.tag).map_err(AppendError::NotWritten)?;
        new.append(words).map_err(|e| AppendError::NotWritten(e.into_io()))?;
        stable::rename(&beside, &self.path).map_err(AppendError::NotWritten)?;
        // Without this sync, a power cut could bring back the old file, which lacks all later records.
        let synced = folder.sync().map_err(AppendError::NotSynced);
        new.path.clone_from(&self.path);
        new.rewrite_at = REWRITE_MIN.max(4 * new.end);
        *self = new;
        synced
    }

    fn write_ahead(&mut self, end: u64) -> io::Result<()> {
        while self.ahead < end {
            let step = if self.ahead == 0 { FIRST_AHEAD } else { AHEAD };
            let zeros = vec![0; usize_from(step)];
            self.file.write_all_at(&zeros, self.ahead)?;
            self.ahead += step;
        }
        Ok(())
    }
}

/// Why an append failed, by what is known of the record.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The record is not in the journal. It can be appended again.
    NotWritten(io::Error),
    /// A sync failed, so the record may or may not be in the journal. This is final.
    NotSynced(io::Error),
}

impl AppendError {
    fn into_io(self) -> io::Error {
        match self {
            Self::NotWritten(e) | Self::NotSynced(e) => e,
        }
    }
}

fn encode(entries: &[Word], tag: u64, sequence: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend(MAGIC.to_le_bytes());
    out.extend(u32::try_from(entries.len()).expect("disks have at most 2^32 blocks, 64 to a word").to_le_bytes());
    out.extend(tag.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend([0; 8]);
    for word in entries {
        out.extend(word.index.to_le_bytes());
        out.extend(word.owned.to_le_bytes());
        out.extend(word.zeroed.to_le_bytes());
    }
    let record = &mut out[start..];
    let crc = crc32c::crc32c(record);
    record[24..28].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Decodes the record at the start of `bytes`. Returns its words and its length; `None` when it is torn or not this one.
fn record(bytes: &[u8], tag: u64, sequence: u64) -> Option<(Vec<Word>, usize)> {
    if u32_at(bytes, 0)? != MAGIC || u64_at(bytes, 8)? != tag || u64_at(bytes, 16)? != sequence {
        return None;
    }
    let count = usize_from(u32_at(bytes, 4)?.into());
    let used = HEAD + count * ENTRY;
    let whole = bytes.get(..used)?;
    let stored = u32_at(whole, 24)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(whole.get(..24)?), &[0; 4]), whole.get(28..)?);
    if crc != stored {
        return None;
    }
    let entries = (0..count)
        .map(|n| {
            let at = HEAD + n * ENTRY;
            Some(Word { index: u64_at(whole, at)?, owned: u64_at(whole, at + 8)?, zeroed: u64_at(whole, at + 16)? })
        })
        .collect::<Option<Vec<_>>>()?;
    Some((entries, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(index: u64, owned: u64) -> Word {
        Word { index, owned, zeroed: owned & 1 }
    }

    #[test]
    fn replay_returns_the_last_entry_of_each_word_and_appending_continues() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("0.bits");
        let mut journal = Journal::create(&path, 7).expect("create");
        journal.append(&[word(1, 3), word(9, 4)]).expect("append");
        journal.append(&[word(1, 7)]).expect("append");
        let (mut journal, words) = Journal::replay(&path, 7).expect("replay");
        assert_eq!(words.into_values().collect::<Vec<_>>(), [word(1, 7), word(9, 4)]);
        journal.append(&[word(2, 1)]).expect("append");
        let (_, words) = Journal::replay(&path, 7).expect("replay");
        assert_eq!(words.len(), 3);
        let (_, words) = Journal::replay(&path, 8).expect("replay");
        assert!(words.is_empty(), "the journal of another epoch does not count");
    }

    #[test]
    fn a_torn_record_ends_the_replay_wherever_it_is_torn() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("0.bits");
        let mut journal = Journal::create(&path, 7).expect("create");
        journal.append(&[word(1, 3)]).expect("append");
        let first = journal.end;
        journal.append(&[word(2, 5), word(3, 5)]).expect("append");
        let whole = std::fs::read(&path).expect("read");
        for torn in first..journal.end {
            let mut bytes = whole.clone();
            let at = usize::try_from(torn).expect("small");
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).expect("write");
            let (journal, words) = Journal::replay(&path, 7).expect("replay");
            assert!(words.len() < 3, "damage at {at} was not noticed");
            assert_eq!(words.into_values().collect::<Vec<_>>(), [word(1, 3)]);
            assert_eq!(journal.end, first);
        }
    }

    #[test]
    fn a_rewritten_journal_is_short_and_has_the_same_words() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("0.bits");
        let mut journal = Journal::create(&path, 7).expect("create");
        for n in 0..100 {
            journal.append(&[word(n % 3, n + 1)]).expect("append");
        }
        let (mut journal, words) = Journal::replay(&path, 7).expect("replay");
        let long = journal.end;
        journal.rewrite(&words.values().copied().collect::<Vec<_>>()).expect("rewrite");
        assert!(journal.end < long / 10);
        journal.append(&[word(5, 5)]).expect("append");
        let (_, again) = Journal::replay(&path, 7).expect("replay");
        assert_eq!(again.len(), words.len() + 1);
    }

    #[test]
    fn fuzz_record() {
        let mut seeds = [Vec::new(), Vec::new()];
        encode(&[word(1, 3)], 7, 0, &mut seeds[0]);
        encode(&[word(1, 3), word(9, u64::MAX), word(u64::MAX, 0)], 7, 0, &mut seeds[1]);
        let reseal = |bytes: &mut [u8]| {
            let Some(count) = u32_at(bytes, 4).and_then(|count| usize::try_from(count).ok()) else { return };
            let Some(whole) = bytes.get_mut(..HEAD + count * ENTRY) else { return };
            whole[..4].copy_from_slice(&MAGIC.to_le_bytes());
            whole[8..16].copy_from_slice(&7u64.to_le_bytes());
            whole[16..HEAD].fill(0);
            let crc = crc32c::crc32c(whole);
            whole[24..28].copy_from_slice(&crc.to_le_bytes());
        };
        storage_core::fuzz::Fuzz::new(seeds).reseal(reseal).run(|bytes| {
            let (entries, used) = record(bytes, 7, 0).ok_or("no record")?;
            let mut again = Vec::new();
            encode(&entries, 7, 0, &mut again);
            assert_eq!(bytes.get(..used), Some(again.as_slice()), "a record has one form");
            Ok::<(), &str>(())
        });
    }
}
