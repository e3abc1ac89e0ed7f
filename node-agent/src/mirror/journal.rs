//! The bits of one epoch made durable: an append-only file of checksummed records, one per flush.
//!
//! ```text
//! record  magic u32 | entries u32 | tag of the epoch u64 | sequence u64 | crc32c u32 (over the rest, this field 0) | 0 u32
//! entry   word u64 | owned u64 | zeroed u64          the whole state of 64 blocks; later entries replace earlier ones
//! ```
//!
//! Invariant (I2): bits are appended only after the data they speak of is on stable storage, so whatever the file says
//! after a power loss is true. The file is written ahead with zeros, so that an append changes no metadata and its
//! sync is one write. A record that was torn ends the replay: nobody was told that it is there. There is one record per
//! sync, so behind a torn one there can be no whole one for a later replay to take for new.
//! When the file has grown far beyond what its epoch can say, it is written anew beside and renamed.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    bits::Word,
    stable::{self, Folder, StableFile},
};

const MAGIC: u32 = u32::from_le_bytes(*b"MJR1");
const HEAD: usize = 32;
const ENTRY: usize = 24;
/// The first piece written ahead; later pieces are [`AHEAD`].
const FIRST_AHEAD: u64 = 128 << 10;
const AHEAD: u64 = 1 << 20;
/// It is not written anew below this size.
const REWRITE_MIN: u64 = if cfg!(test) { 512 } else { 8 << 20 };

/// The file, open for appending.
pub(crate) struct Journal {
    path: PathBuf,
    file: StableFile,
    tag: u64,
    sequence: u64,
    end: u64,
    ahead: u64,
    /// Rewrite when `end` passes this.
    rewrite_at: u64,
}

impl Journal {
    /// A new, empty journal, durable but for its directory entry.
    pub(crate) fn create(path: &Path, tag: u64) -> io::Result<Self> {
        let file = StableFile::create(path, &mut File::options())?;
        let mut journal =
            Self { path: path.to_owned(), file, tag, sequence: 0, end: 0, ahead: 0, rewrite_at: REWRITE_MIN };
        journal.write_ahead(FIRST_AHEAD)?;
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// What is in it, and the journal ready for more.
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
            rest = rest.get(used..).unwrap_or_default();
        }
        // The process before may have ended between writing and syncing the last one, which counts from here on.
        journal.file.sync_data()?;
        journal.rewrite_at = REWRITE_MIN.max(4 * journal.end);
        Ok((journal, words))
    }

    /// Appends `words` and syncs. The data they speak of must be durable already.
    pub(crate) fn append(&mut self, words: &[Word]) -> Result<(), AppendError> {
        if words.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(HEAD + words.len() * ENTRY);
        encode(words, self.tag, self.sequence, &mut bytes);
        let end = self.end + bytes.len() as u64;
        // Nothing was written yet that counts: a full file system here harms nothing.
        self.write_ahead(end).map_err(AppendError::NotWritten)?;
        self.file.write_all_at(&bytes, self.end).map_err(AppendError::NotWritten)?;
        self.file.sync_data().map_err(AppendError::NotSynced)?;
        self.end = end;
        self.sequence += 1;
        Ok(())
    }

    /// Worth writing anew.
    pub(crate) fn is_long(&self) -> bool {
        self.end > self.rewrite_at
    }

    /// Writes `words` (the whole durable state) as a new file in place of this one.
    pub(crate) fn rewrite(&mut self, words: &[Word]) -> Result<(), AppendError> {
        let beside = self.path.with_extension("bits-new");
        let folder = self.path.parent().ok_or_else(|| io::Error::other("a journal without a folder"));
        let folder = folder.and_then(Folder::open).map_err(AppendError::NotWritten)?;
        let mut new = Self::create(&beside, self.tag).map_err(AppendError::NotWritten)?;
        new.append(words).map_err(|e| AppendError::NotWritten(e.into_io()))?;
        stable::rename(&beside, &self.path).map_err(AppendError::NotWritten)?;
        // Without this a power loss could bring the old file back, which does not get what is appended from now on.
        let synced = folder.sync().map_err(AppendError::NotSynced);
        new.path.clone_from(&self.path);
        new.rewrite_at = REWRITE_MIN.max(4 * new.end);
        *self = new;
        synced
    }

    fn write_ahead(&mut self, end: u64) -> io::Result<()> {
        while self.ahead < end {
            let step = if self.ahead == 0 { FIRST_AHEAD } else { AHEAD };
            let zeros = vec![0; usize::try_from(step).map_err(io::Error::other)?];
            self.file.write_all_at(&zeros, self.ahead)?;
            self.ahead += step;
        }
        Ok(())
    }
}

/// Why an append failed, which decides what it means.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The record is not there; it can be tried again.
    NotWritten(io::Error),
    /// It may or may not be there: final.
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
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    if let Some(field) = out.get_mut(start + 24..start + 28) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn record(bytes: &[u8], tag: u64, sequence: u64) -> Option<(Vec<Word>, usize)> {
    if u32_at(bytes, 0)? != MAGIC || u64_at(bytes, 8)? != tag || u64_at(bytes, 16)? != sequence {
        return None;
    }
    let count = usize::try_from(u32_at(bytes, 4)?).ok()?;
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
    fn replay_gives_the_last_word_and_goes_on() {
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
        assert!(words.is_empty(), "another epoch's journal says nothing about this one");
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
            // The last four bytes of a header are not used for anything.
            if words.len() == 3 {
                panic!("a flip at {at} was not seen");
            }
            assert_eq!(words.into_values().collect::<Vec<_>>(), [word(1, 3)]);
            assert_eq!(journal.end, first);
        }
    }

    #[test]
    fn rewritten_it_is_short_and_says_the_same() {
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
        let reseal = |bytes: &mut Vec<u8>| {
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
