//! Power cuts for tests: what may be on stable storage after one.
//!
//! A test disk tells [`Storage`] about every change of files and names, and about every sync, in the order in which they
//! happen. [`Storage::after_power_cut`] then returns what the next process could find: everything that was synced, and of
//! the rest any part. Writes can be torn at sectors, and names can become durable in any order. A seed decides, so a
//! failing test can be repeated.
//!
//! [`Faults`] makes syncs fail and stops a process in the middle of a change.
//!
//! Two test disks use this: [`crate::store::SimDisk`] keeps a folder in memory; the node agent records the changes of real
//! files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::units::usize_from;

const SECTOR: usize = 512;

/// Number of a file. It stays the same when the file is renamed.
pub type FileId = u64;

/// A change of one file.
#[derive(Clone, Debug)]
pub enum Change {
    /// Bytes are written; the file grows as needed.
    Write {
        /// Place in the file, in bytes.
        offset: u64,
        /// The bytes that are written.
        bytes: Bytes,
    },
    /// The file is truncated, or extended with zeros, to this length in bytes.
    Length(u64),
    /// A range is replaced by zeros; the length stays.
    Punch {
        /// Place in the file, in bytes.
        offset: u64,
        /// Length of the range, in bytes.
        bytes: u64,
    },
}

/// What a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A file, by its number.
    File(FileId),
    /// A folder, which has no bytes of its own.
    Folder,
}

/// A change of one name.
#[derive(Clone, Debug)]
pub enum NameChange {
    /// The name is added, or refers to something else now.
    Added(PathBuf, Named),
    /// The name, which referred to this, is removed.
    Removed(PathBuf, Named),
}

/// What happens on a disk.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes or the length of a file change. That is durable only after a sync.
    Changed(FileId, Change),
    /// A file is synced: its changes so far are durable.
    Synced(FileId),
    /// A sync of a file fails. As on Linux, its changes count as written from then on, but the disk never gets them.
    Lost(FileId),
    /// Names change together, all or none.
    Renamed {
        /// The folder whose sync makes the change durable.
        folder: PathBuf,
        /// What happens to which names.
        names: Vec<NameChange>,
    },
    /// The names in a folder are synced.
    NamesSynced(PathBuf),
}

/// Names and files of a disk.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Paths relative to the root. A folder sorts before the names in it.
    pub names: BTreeMap<PathBuf, Named>,
    /// Bytes of the files, also of those that have no name any more.
    pub files: BTreeMap<FileId, Vec<u8>>,
}

/// Stable storage: what is durable, and the changes that are not yet.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    durable: Contents,
    pending: BTreeMap<FileId, Vec<Change>>,
    renames: Vec<(PathBuf, Vec<NameChange>)>,
}

impl Change {
    /// Makes this change to the bytes of a file.
    pub fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write(file, usize_from(*offset), bytes),
            Change::Length(bytes) => file.resize(usize_from(*bytes), 0),
            Change::Punch { offset, bytes } => {
                let end = usize_from(offset + bytes).min(file.len());
                // A range behind the end of the file changes nothing.
                if let Some(hole) = file.get_mut(usize_from(*offset)..end) {
                    hole.fill(0);
                }
            }
        }
    }

    /// Makes any part of this change, as a power cut may.
    fn apply_in_part(&self, file: &mut Vec<u8>, random: &mut Random) {
        match (self, random.below(4)) {
            (Change::Write { offset, bytes }, 0 | 1) => {
                // Sectors of the file reach the disk independently of each other, in any order.
                let mut at = usize_from(*offset);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (sector, after) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
                    if random.below(2) == 0 {
                        write(file, at, sector);
                    }
                    at += sector.len();
                    rest = after;
                }
            }
            (_, 0 | 2) => {}
            _ => self.apply(file),
        }
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file.get_mut(at..end).expect("it was made long enough").copy_from_slice(bytes);
}

impl Contents {
    /// The file of a name. `None` if there is no such name, or it is a folder.
    pub fn file(&self, name: &Path) -> Option<FileId> {
        match self.names.get(name) {
            Some(Named::File(file)) => Some(*file),
            Some(Named::Folder) | None => None,
        }
    }

    /// Changes the names, in this order. A name is removed only if it still refers to the same thing.
    pub fn rename(&mut self, names: &[NameChange]) {
        for name in names {
            match name {
                NameChange::Added(name, now) => drop(self.names.insert(name.clone(), *now)),
                // The name may have been added again meanwhile, and that may have become durable earlier.
                NameChange::Removed(name, was) if self.names.get(name) == Some(was) => drop(self.names.remove(name)),
                NameChange::Removed(..) => {}
            }
        }
    }
}

/// Which changes that were not synced survive a power cut.
#[derive(Clone, Copy)]
enum Survivors {
    None,
    All,
    /// Those up to some point in time.
    Earlier,
    /// Any of them, and parts of them.
    Any,
}

impl Survivors {
    fn choose(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::None,
            1 => Self::All,
            2 => Self::Earlier,
            _ => Self::Any,
        }
    }

    /// How many of `changes` changes have begun to reach the disk.
    fn begun(self, changes: usize, random: &mut Random) -> usize {
        match self {
            Self::None => 0,
            Self::Earlier => usize_from(random.below(changes as u64 + 1)),
            Self::All | Self::Any => changes,
        }
    }
}

impl Storage {
    /// Storage on which all of `contents` is durable.
    pub fn holding(contents: Contents) -> Storage {
        Storage { durable: contents, ..Storage::default() }
    }

    /// Takes note of what happens.
    pub fn happened(&mut self, event: &Event) {
        match event {
            Event::Changed(file, change) => self.pending.entry(*file).or_default().push(change.clone()),
            Event::Synced(file) => {
                let bytes = self.durable.files.entry(*file).or_default();
                self.pending.remove(file).iter().flatten().for_each(|change| change.apply(bytes));
            }
            Event::Lost(file) => drop(self.pending.remove(file)),
            Event::Renamed { folder, names } => self.renames.push((folder.clone(), names.clone())),
            Event::NamesSynced(folder) => {
                for (_, names) in self.renames.extract_if(.., |(of, _)| of == folder) {
                    self.durable.rename(&names);
                }
            }
        }
    }

    /// The bytes of a file as the system reads them from the disk: without those that a failed sync has lost.
    pub fn file(&self, file: FileId) -> Vec<u8> {
        let mut bytes = self.durable.files.get(&file).cloned().unwrap_or_default();
        self.pending.get(&file).into_iter().flatten().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    /// Changes the durable bytes of a file, as a failing disk would.
    pub fn damage(&mut self, file: FileId, damage: impl FnOnce(&mut [u8])) {
        damage(self.durable.files.entry(file).or_default());
    }

    /// What the next process finds after a power cut now.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Contents {
        let mut random = Random(seed);
        let mut left = self.durable.clone();
        let survivors = Survivors::choose(&mut random);
        let begun = survivors.begun(self.renames.len(), &mut random);
        for (_, names) in self.renames.iter().take(begun) {
            if !matches!(survivors, Survivors::Any) || random.below(2) == 0 {
                left.rename(names);
            }
        }
        let survivors = Survivors::choose(&mut random);
        for (file, changes) in &self.pending {
            let bytes = left.files.entry(*file).or_default();
            let begun = survivors.begun(changes.len(), &mut random);
            for change in changes.iter().take(begun) {
                match survivors {
                    Survivors::Any => change.apply_in_part(bytes, &mut random),
                    _ => change.apply(bytes),
                }
            }
        }
        // The name of a file may survive without any of its bytes.
        for named in left.names.values() {
            if let Named::File(file) = named {
                left.files.entry(*file).or_default();
            }
        }
        left
    }
}

/// How much of a change happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The change happens as a whole.
    Whole,
    /// A part: the process stops in the middle.
    Part,
}

impl Extent {
    /// How many of the bytes of a write are written.
    pub fn of(self, bytes: usize) -> usize {
        match self {
            Extent::Whole => bytes,
            Extent::Part => bytes / 2,
        }
    }

    /// The result of the change: an error when only a part of it happened.
    pub fn result(self) -> io::Result<()> {
        match self {
            Extent::Whole => Ok(()),
            Extent::Part => Err(stopped()),
        }
    }
}

/// Failures of a test disk, chosen by the test. A change is a write, a sync, or any change of names.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    changes: u64,
    stop_at: Option<u64>,
    fail_sync_after: Option<u64>,
}

impl Faults {
    /// Number of changes so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Makes everything fail after so many more changes; the last of these happens in part. `None`: no longer.
    pub fn stop_after(&mut self, changes: Option<u64>) {
        self.stop_at = changes.map(|changes| self.changes + changes);
    }

    /// Makes one sync fail, after so many more that succeed.
    pub fn fail_sync_after(&mut self, syncs: u64) {
        self.fail_sync_after = Some(syncs);
    }

    /// Fails when the disk has stopped.
    pub fn check_running(&self) -> io::Result<()> {
        if self.stop_at.is_some_and(|stop| self.changes >= stop) { Err(stopped()) } else { Ok(()) }
    }

    /// Begins a change and says how much of it happens. Fails when the disk has stopped; then nothing happens.
    pub fn begin_change(&mut self) -> io::Result<Extent> {
        self.check_running()?;
        self.changes += 1;
        Ok(if self.stop_at == Some(self.changes) { Extent::Part } else { Extent::Whole })
    }

    /// Whether the sync that happens now fails.
    pub fn sync_fails(&mut self) -> bool {
        let fails = self.fail_sync_after == Some(0);
        self.fail_sync_after = self.fail_sync_after.and_then(|n| n.checked_sub(1));
        fails
    }
}

fn stopped() -> io::Error {
    io::Error::other("the test disk has stopped")
}

/// The error of a sync that the test made fail.
pub fn lost() -> io::Error {
    io::Error::other("the test disk lost these writes")
}

/// Random numbers (SplitMix64). The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number of the sequence, which the seed decides.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn added(name: &str, file: FileId) -> Event {
        Event::Renamed { folder: PathBuf::new(), names: vec![NameChange::Added(name.into(), Named::File(file))] }
    }

    fn filled(byte: u8) -> Event {
        Event::Changed(1, Change::Write { offset: 0, bytes: vec![byte; 2 * SECTOR].into() })
    }

    /// What cuts with many seeds leave of file 1: whether it has the name "b" as well, and the first byte of each sector.
    fn left(storage: &Storage) -> BTreeSet<(bool, Vec<u8>)> {
        let cut = |seed| {
            let contents = storage.after_power_cut(seed);
            assert_eq!(contents.file(Path::new("a")), Some(1), "its name was synced");
            let sectors = contents.files.get(&1).expect("file 1 is there").iter().step_by(SECTOR).copied().collect();
            (contents.file(Path::new("b")).is_some(), sectors)
        };
        (0..400).map(cut).collect()
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let mut storage = Storage::default();
        for event in [added("a", 1), Event::NamesSynced(PathBuf::new()), filled(7), Event::Synced(1)] {
            storage.happened(&event);
        }
        assert_eq!(left(&storage), BTreeSet::from([(false, vec![7, 7])]));
        storage.happened(&filled(8));
        storage.happened(&added("b", 1));
        let sectors = [[7, 7], [7, 8], [8, 7], [8, 8]];
        let all = [false, true].into_iter().flat_map(|b| sectors.map(|sectors| (b, sectors.to_vec())));
        assert_eq!(left(&storage), all.collect());
        storage.happened(&Event::Lost(1));
        storage.happened(&Event::Synced(1));
        assert!(left(&storage).iter().all(|(_, sectors)| *sectors == [7, 7]), "a later sync does not bring them back");
    }
}
