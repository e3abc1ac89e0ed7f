//! The journal makes the bits of one epoch durable. It is an append-only file of checksummed records, one per flush.
//!
//! ```text
//! record  magic u32 | entries u32 | tag of the epoch u64 | sequence u64 | crc32c u32 | crc32c u32 of the 24 bytes before
//!         entries | end mark u64                     the first crc32c covers the whole record, both checksums as zeros
//! entry   word u64 | owned u64 | zeroed u64          the whole state of 64 blocks; later entries replace earlier ones
//! ```
//!
//! Invariant (I2): bits are appended only after the data they speak of is durable, so everything in the file is true after
//! a power cut.
//!
//! The file is written ahead with zeros, so that an append changes no metadata and its sync is one write. Each record has a
//! sync of its own, so only the last one can be *torn* by a power cut. Its flush was never acknowledged, so a torn record
//! ends the replay and is overwritten with zeros. Any other record that cannot be read is *damaged*: it was acknowledged,
//! and what it says must not be lost silently. The two are told apart like this:
//!
//! - A record that is followed by an intact one is damaged.
//! - The last record is torn if some of it was never written: its end, or a sector of 512 bytes of which it has only zeros.
//!   No sector of a written record looks like that, because of the magic, the indexes and the end mark. Otherwise all of
//!   it was written, and it is damaged.
//! - The limit of this: damage that turns a whole sector or the end of the last record into zeros looks like a torn record.
//!
//! When the file has become much longer than its entries need, a new file is written beside it and renamed over it.

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

const MAGIC: u32 = u32::from_le_bytes(*b"MJR2");
const HEAD: usize = 32;
/// Bytes at the start of a head that its own checksum covers.
const HEAD_CHECKED: usize = 24;
const ENTRY: usize = 24;
/// No byte of it is zero.
const END_MARK: [u8; 8] = *b"MJR2 end";
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
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

    /// Opens a journal and reads all intact records. A torn record at its end is erased.
    pub(crate) fn replay(path: &Path, tag: u64) -> io::Result<Replayed> {
        let file = StableFile::open(path, &mut File::options())?;
        let length = file.bytes()?;
        let mut journal =
            Self { path: path.to_owned(), file, tag, sequence: 0, end: 0, ahead: length, rewrite_at: REWRITE_MIN };
        let bytes = journal.file.read_all()?;
        let (mut words, mut at, mut damage) = (BTreeMap::new(), 0, None);
        loop {
            if let Some((entries, used)) = record(&bytes[at..], tag, journal.sequence) {
                words.extend(entries.into_iter().map(|word| (word.index, word)));
                journal.sequence += 1;
                at += used;
            } else if let Some((skipped, sequence)) = later_record(&bytes[at..], tag, journal.sequence) {
                let lost = sequence - journal.sequence;
                let damage = damage.get_or_insert(Damage { at: at as u64, lost_records: 0 });
                damage.lost_records += lost;
                journal.sequence = sequence;
                at += skipped;
            } else {
                break;
            }
        }
        journal.end = at as u64;
        let rest = &bytes[at..];
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if written > 0 && is_torn(rest, at, written) {
            journal.file.write_all_at(&vec![0; written], journal.end)?;
        } else if written > 0 {
            damage.get_or_insert(Damage { at: journal.end, lost_records: 0 }).lost_records += 1;
        }
        // An earlier process may have died between writing and syncing the last record, which counts from now on.
        journal.file.sync_data()?;
        journal.rewrite_at = REWRITE_MIN.max(4 * journal.end);
        Ok(Replayed { journal, words, damage })
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

    /// Replaces a damaged file by one with `words`, which must be the whole durable state. Keeps the damaged one as
    /// `N.bits-damaged`, for people who want to look into it.
    pub(crate) fn replace_damaged(&mut self, words: &[Word]) -> io::Result<()> {
        std::fs::copy(&self.path, self.path.with_extension("bits-damaged"))?;
        self.rewrite(words).map_err(AppendError::into_io)
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

/// A journal as it was found.
pub(crate) struct Replayed {
    /// Ready for appending, unless it is damaged: then [`Journal::replace_damaged`] comes first.
    pub(crate) journal: Journal,
    /// The last entry of each word in the intact records.
    pub(crate) words: BTreeMap<u64, Word>,
    pub(crate) damage: Option<Damage>,
}

/// Acknowledged records that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where the first one starts, in bytes.
    pub(crate) at: u64,
    /// How many there are at least.
    pub(crate) lost_records: u64,
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
    out.extend([0; HEAD - HEAD_CHECKED]);
    for word in entries {
        out.extend(word.index.to_le_bytes());
        out.extend(word.owned.to_le_bytes());
        out.extend(word.zeroed.to_le_bytes());
    }
    out.extend(END_MARK);
    seal(&mut out[start..]);
}

/// Fills in the checksums of a record, which are zeros.
fn seal(record: &mut [u8]) {
    let crcs = [crc32c::crc32c(record), crc32c::crc32c(&record[..HEAD_CHECKED])];
    record[HEAD_CHECKED..HEAD].copy_from_slice(crcs.map(u32::to_le_bytes).as_flattened());
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Number of entries, tag and sequence of the record at the start of `bytes`. `None` when its head is not intact.
fn head(bytes: &[u8]) -> Option<(usize, u64, u64)> {
    if u32_at(bytes, 0)? != MAGIC || u32_at(bytes, HEAD - 4)? != crc32c::crc32c(bytes.get(..HEAD_CHECKED)?) {
        return None;
    }
    Some((usize_from(u32_at(bytes, 4)?.into()), u64_at(bytes, 8)?, u64_at(bytes, 16)?))
}

const fn record_bytes(entries: usize) -> usize {
    HEAD + entries * ENTRY + END_MARK.len()
}

/// Decodes the record at the start of `bytes`. Returns its words and its length; `None` when it is not intact or not this
/// one.
fn record(bytes: &[u8], tag: u64, sequence: u64) -> Option<(Vec<Word>, usize)> {
    let (count, ..) = head(bytes).filter(|head| (head.1, head.2) == (tag, sequence))?;
    let whole = bytes.get(..record_bytes(count))?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&whole[..HEAD_CHECKED]), &[0; HEAD - HEAD_CHECKED]);
    if u32_at(whole, HEAD_CHECKED)? != crc32c::crc32c_append(crc, &whole[HEAD..]) || !whole.ends_with(&END_MARK) {
        return None;
    }
    let entries = (0..count)
        .map(|n| {
            let at = HEAD + n * ENTRY;
            Some(Word { index: u64_at(whole, at)?, owned: u64_at(whole, at + 8)?, zeroed: u64_at(whole, at + 16)? })
        })
        .collect::<Option<Vec<_>>>()?;
    Some((entries, whole.len()))
}

/// Finds an intact record of a later `sequence` behind one that is not intact. Returns where it starts and its sequence.
fn later_record(bytes: &[u8], tag: u64, sequence: u64) -> Option<(usize, u64)> {
    // All records are multiples of 8 bytes long.
    (8..bytes.len()).step_by(8).find_map(|at| {
        let rest = &bytes[at..];
        let (.., later) = head(rest).filter(|head| head.1 == tag && head.2 > sequence)?;
        record(rest, tag, later).map(|_| (at, later))
    })
}

/// Whether a power cut or the end of the process can have left the record at the start of `bytes`, of which `written`
/// bytes are there: its end is missing, or some sector has only zeros of it. `at` is where it starts in the file.
fn is_torn(bytes: &[u8], at: usize, written: usize) -> bool {
    let length = head(bytes).map_or(HEAD, |(count, ..)| record_bytes(count));
    let (first, others) = bytes[..written].split_at((SECTOR - at % SECTOR).min(written));
    let is_absent = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    written < length || std::iter::once(first).chain(others.chunks(SECTOR)).any(is_absent)
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
        let Replayed { mut journal, words, .. } = Journal::replay(&path, 7).expect("replay");
        assert_eq!(words.into_values().collect::<Vec<_>>(), [word(1, 7), word(9, 4)]);
        journal.append(&[word(2, 1)]).expect("append");
        assert_eq!(Journal::replay(&path, 7).expect("replay").words.len(), 3);
        let Replayed { words, damage, .. } = Journal::replay(&path, 8).expect("replay");
        assert!(words.is_empty() && damage.is_some(), "the journal of another epoch does not count");
    }

    /// A journal with three records; the last one touches several sectors. Returns its path, its bytes and where the
    /// records start and end.
    fn three_records(dir: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
        let path = dir.join("0.bits");
        let mut journal = Journal::create(&path, 7).expect("create");
        let mut ends = vec![0];
        let long: Vec<_> = (10..60).map(|n| word(n, 1)).collect();
        for words in [&[word(1, 3)][..], &[word(2, 5), word(3, 5)], &long] {
            journal.append(words).expect("append");
            ends.push(usize_from(journal.end));
        }
        (path.clone(), std::fs::read(path).expect("read"), ends)
    }

    #[test]
    fn a_torn_record_ends_the_replay_and_is_erased() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, whole, ends) = three_records(dir.path());
        let (start, end) = (ends[2], ends[3]);
        let sectors: Vec<_> = (start / SECTOR..end.div_ceil(SECTOR)).collect();
        // Each set of sectors that may be missing.
        for missing in 1..1u32 << sectors.len() {
            let mut bytes = whole.clone();
            for (n, sector) in sectors.iter().enumerate() {
                if missing & (1 << n) != 0 {
                    bytes[start.max(sector * SECTOR)..end.min((sector + 1) * SECTOR)].fill(0);
                }
            }
            std::fs::write(&path, &bytes).expect("write");
            let Replayed { journal, words, damage } = Journal::replay(&path, 7).expect("replay");
            assert_eq!((damage, usize_from(journal.end), words.len()), (None, start, 3), "missing: {missing:b}");
            assert!(std::fs::read(&path).expect("read")[start..].iter().all(|byte| *byte == 0));
        }
    }

    /// Bits flip in a record that was acknowledged: it is never taken for a torn one, the others are read, and nothing is
    /// written to the file.
    #[test]
    fn a_damaged_record_is_reported_and_the_intact_ones_are_read() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, whole, ends) = three_records(dir.path());
        for at in 0..ends[3] {
            for bit in [1, 128] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                std::fs::write(&path, &bytes).expect("write");
                let Replayed { words, damage, .. } = Journal::replay(&path, 7).expect("replay");
                let n = ends.partition_point(|end| *end <= at) - 1;
                let damaged = Damage { at: ends[n] as u64, lost_records: 1 };
                assert_eq!(damage, Some(damaged), "byte {at}, bit {bit}");
                assert_eq!(words.len(), 53 - [1, 2, 50][n]);
                assert_eq!(std::fs::read(&path).expect("read"), bytes);
            }
        }
    }

    #[test]
    fn a_damaged_journal_is_kept_when_it_is_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, mut bytes, _) = three_records(dir.path());
        bytes[40] ^= 1;
        std::fs::write(&path, &bytes).expect("write");
        let mut journal = Journal::replay(&path, 7).expect("replay").journal;
        journal.replace_damaged(&[word(1, 3), word(2, 7)]).expect("replace");
        journal.append(&[word(9, 9)]).expect("append");
        let Replayed { words, damage, .. } = Journal::replay(&path, 7).expect("replay");
        assert_eq!((words.len(), damage), (3, None));
        assert_eq!(std::fs::read(path.with_extension("bits-damaged")).expect("read"), bytes);
    }

    #[test]
    fn a_rewritten_journal_is_short_and_has_the_same_words() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("0.bits");
        let mut journal = Journal::create(&path, 7).expect("create");
        for n in 0..100 {
            journal.append(&[word(n % 3, n + 1)]).expect("append");
        }
        let Replayed { mut journal, words, .. } = Journal::replay(&path, 7).expect("replay");
        let long = journal.end;
        journal.rewrite(&words.values().copied().collect::<Vec<_>>()).expect("rewrite");
        assert!(journal.end < long / 10);
        journal.append(&[word(5, 5)]).expect("append");
        assert_eq!(Journal::replay(&path, 7).expect("replay").words.len(), words.len() + 1);
    }

    #[test]
    fn fuzz_record() {
        let mut seeds = [Vec::new(), Vec::new()];
        encode(&[word(1, 3)], 7, 0, &mut seeds[0]);
        encode(&[word(1, 3), word(9, u64::MAX), word(u64::MAX, 0)], 7, 0, &mut seeds[1]);
        let reseal = |bytes: &mut [u8]| {
            let Some(count) = u32_at(bytes, 4).and_then(|count| usize::try_from(count).ok()) else { return };
            let Some(whole) = bytes.get_mut(..record_bytes(count)) else { return };
            whole[..4].copy_from_slice(&MAGIC.to_le_bytes());
            whole[8..16].copy_from_slice(&7u64.to_le_bytes());
            whole[16..HEAD].fill(0);
            seal(whole);
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
