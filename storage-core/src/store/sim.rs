//! A disk for crash tests. It counts every change, stops for good after a chosen one, and then, as a power cut would,
//! keeps of what was not synced any part it likes: whole writes, single sectors of them, or nothing; new names or not.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, DiskFile};
use crate::units::usize_from;

const SECTOR: usize = 512;

/// A simulated folder. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next_file: u64,
    changes: u64,
    /// Changes after which nothing works any more.
    stop_after: Option<u64>,
    /// Syncs after which the next one fails, once, and loses what it should have saved.
    fail_sync: Option<u64>,
    /// Most bytes of all files together.
    room: Option<u64>,
    /// A file that cannot be written, or only where it is already.
    full_file: Option<(String, Full)>,
    bytes_synced: u64,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Size(usize),
}

/// Where a full file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Behind its end.
    Growth,
    /// Anywhere, as on file systems that write in new places.
    Everywhere,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl SimDisk {
    /// An empty folder.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Changes so far: writes, cuts, syncs, creations and removals.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Bytes that syncs made durable so far.
    pub fn bytes_synced(&self) -> u64 {
        self.state().bytes_synced
    }

    /// Stops for good after so many changes, counted from now. The one it stops in may be done in part.
    pub fn stop_after(&self, changes: u64) {
        let mut state = self.state();
        state.stop_after = Some(state.changes + changes);
    }

    /// Lets the sync after so many more fail, and forget what it should have made durable.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().fail_sync = Some(syncs);
    }

    /// Limits the bytes of all files together; none: no limit.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// Lets writes to one file fail for lack of room; none: no longer.
    pub fn set_full_file(&self, file: Option<(&str, Full)>) {
        self.state().full_file = file.map(|(name, full)| (name.to_owned(), full));
    }

    /// Changes a byte of a file, as a failing disk would. Whether there is such a byte.
    pub fn damage(&self, name: &str, offset: u64) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.get(name).copied() else { return false };
        let contents = state.files.get_mut(&file);
        let Some(contents) = contents else { return false };
        let mut there = false;
        for bytes in [&mut contents.now, &mut contents.durable] {
            if let Some(byte) = bytes.get_mut(usize_from(offset)) {
                *byte ^= 0x10;
                there = true;
            }
        }
        there
    }

    /// The names of the files, also after the disk has stopped.
    pub fn list_now(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// What a file holds; none: no such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).and_then(|file| state.files.get(file)).map(|c| c.now.clone())
    }

    /// The folder as it is found after a power cut: everything synced, and whatever else the seed decides.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> SimDisk {
        let state = self.state();
        let mut random = Random(seed);
        let mut names = state.durable_names.clone();
        for (name, file) in &state.names {
            if state.durable_names.get(name) != Some(file) && random.one_in(2) {
                names.insert(name.clone(), *file);
            }
        }
        for name in state.durable_names.keys().filter(|name| !state.names.contains_key(*name)) {
            if random.one_in(2) {
                names.remove(name);
            }
        }
        // Some cuts keep nothing unsynced, some everything, most a part.
        let keep = random.below(4);
        let files = names.values().filter_map(|file| state.files.get(file).map(|c| (*file, c)));
        let files = files.map(|(file, contents)| (file, contents.after_power_cut(keep, &mut random))).collect();
        SimDisk(Arc::new(Mutex::new(State {
            files,
            durable_names: names.clone(),
            names,
            next_file: state.next_file,
            room: state.room,
            ..State::default()
        })))
    }

    /// The folder as the next process finds it when this one was killed: every write is there, and what was not synced
    /// still is not.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let state = self.state();
        SimDisk(Arc::new(Mutex::new(State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            next_file: state.next_file,
            room: state.room,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn works(&self) -> io::Result<()> {
        match self.stop_after {
            Some(stop) if self.changes >= stop => Err(io::Error::other("the simulated disk has stopped")),
            _ => Ok(()),
        }
    }

    /// Counts a change; false: it is the one the disk stops in.
    fn change(&mut self) -> io::Result<bool> {
        self.works()?;
        self.changes += 1;
        Ok(self.stop_after != Some(self.changes))
    }

    fn file(&mut self, file: u64) -> io::Result<&mut Contents> {
        self.files.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether a file may be written up to an offset.
    fn has_room_for(&self, file: u64, end: u64) -> io::Result<()> {
        let grows = self.files.get(&file).is_some_and(|c| end > c.now.len() as u64);
        match &self.full_file {
            Some((name, full)) if self.names.get(name) == Some(&file) && (grows || *full == Full::Everywhere) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn stopped<T>() -> io::Result<T> {
        Err(io::Error::other("the simulated disk stops here"))
    }
}

impl Contents {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Size(size) => bytes.resize(*size, 0),
            Change::Write { offset, bytes: new } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes.get_mut(*offset..end).expect("resized").copy_from_slice(new);
            }
        }
    }

    fn change(&mut self, change: Change) {
        Contents::apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn after_power_cut(&self, keep: u64, random: &mut Random) -> Contents {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match (keep, change) {
                (0, _) => {}
                (1, change) => Contents::apply(&mut bytes, change),
                (_, Change::Size(_)) => {
                    if random.one_in(2) {
                        Contents::apply(&mut bytes, change);
                    }
                }
                (_, Change::Write { offset, bytes: new }) => {
                    // Sectors of the file reach the disk each by itself, in any order.
                    let mut at = *offset;
                    let mut rest = new.as_slice();
                    while !rest.is_empty() {
                        let (sector, after) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
                        if random.one_in(2) {
                            Contents::apply(&mut bytes, &Change::Write { offset: at, bytes: sector.to_vec() });
                        }
                        at += sector.len();
                        rest = after;
                    }
                }
            }
        }
        Contents { now: bytes.clone(), durable: bytes, pending: Vec::new() }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.works()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.works()?;
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let goes_on = state.change()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Contents::default());
        state.names.insert(name.to_owned(), file);
        if goes_on { Ok(Arc::new(SimFile { disk: self.clone(), file })) } else { State::stopped() }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let goes_on = state.change()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        if goes_on { Ok(()) } else { State::stopped() }
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if !state.change()? {
            return State::stopped();
        }
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.works()?;
        Ok(state.file(self.file)?.now.len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.disk.state();
        state.works()?;
        let bytes = &state.file(self.file)?.now;
        let from = usize_from(offset).min(bytes.len());
        Ok(bytes.get(from..(from + len).min(bytes.len())).unwrap_or_default().to_vec())
    }

    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.read(offset, buffer.len())?;
        if bytes.len() < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn write(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter()).copied().collect();
        let mut state = self.disk.state();
        state.has_room_for(self.file, offset + bytes.len() as u64)?;
        let goes_on = state.change()?;
        if !goes_on {
            // The part that was handed over before the end.
            bytes.truncate(bytes.len() / 2);
        }
        let used: u64 = state.files.values().map(|c| c.now.len() as u64).sum();
        let room = state.room;
        let contents = state.file(self.file)?;
        let offset = usize_from(offset);
        let grows = (offset + bytes.len()).saturating_sub(contents.now.len()) as u64;
        let fits = room.map_or(grows, |room| room.saturating_sub(used)).min(grows);
        if fits < grows {
            bytes.truncate(bytes.len().saturating_sub(usize_from(grows - fits)));
        }
        contents.change(Change::Write { offset, bytes });
        match (goes_on, fits < grows) {
            (false, _) => State::stopped(),
            (true, true) => Err(io::ErrorKind::StorageFull.into()),
            (true, false) => Ok(()),
        }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.has_room_for(self.file, size)?;
        let goes_on = state.change()?;
        let contents = state.file(self.file)?;
        contents.change(Change::Size(usize_from(size)));
        if goes_on { Ok(()) } else { State::stopped() }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if !state.change()? {
            return State::stopped();
        }
        let fails = state.fail_sync == Some(0);
        state.fail_sync = state.fail_sync.and_then(|n| n.checked_sub(1));
        let contents = state.file(self.file)?;
        let pending = std::mem::take(&mut contents.pending);
        if fails {
            // As Linux does: the pages count as clean from now on, the disk never saw them.
            return Err(io::Error::other("the simulated disk lost its writes"));
        }
        let mut synced = 0;
        for change in &pending {
            synced += if let Change::Write { bytes, .. } = change { bytes.len() as u64 } else { 0 };
            Contents::apply(&mut contents.durable, change);
        }
        state.bytes_synced += synced;
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.works()?;
        let contents = state.file(self.file)?;
        contents.now.clone_from(&contents.durable);
        for change in &contents.pending {
            Contents::apply(&mut contents.now, change);
        }
        Ok(())
    }
}

/// SplitMix64: the same seed, the same power cut.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
