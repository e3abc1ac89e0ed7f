//! A folder in memory for crash tests of the segment store. It counts every change and can stop at any of them. What a
//! power cut then leaves is decided by [`crate::power`].

use std::{
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{Disk, DiskFile, PAGE};
use crate::{
    lock,
    power::{self, Change, Contents, Event, Extent, Faults, FileId, NameChange, Named, Storage},
    units::usize_from,
};

/// A simulated folder. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Names and bytes as the process sees them, synced or not.
    now: Contents,
    storage: Storage,
    faults: Faults,
    next_file: FileId,
    /// Most bytes of all files together.
    room: Option<u64>,
    full_file: Option<(String, Full)>,
    unreadable: Option<(String, Range<u64>)>,
}

/// Where a full file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Only behind its end; the bytes that are there can be overwritten.
    Growth,
    /// Anywhere, as on file systems that write changed blocks to new places.
    Everywhere,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: FileId,
}

impl SimDisk {
    /// A disk with an empty folder.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Number of changes so far: writes, changes of length, syncs, creations and removals.
    pub fn changes(&self) -> u64 {
        self.state().faults.changes()
    }

    /// Stops the disk for good after so many more changes. The last of them may happen in part.
    pub fn stop_after(&self, changes: u64) {
        self.state().faults.stop_after(Some(changes));
    }

    /// Makes one sync fail, after so many more that succeed. It loses what it should have made durable.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().faults.fail_sync_after(syncs);
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Limits the bytes of all files together; `None` removes the limit.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// Makes writes to one file fail for lack of space; `None` ends that.
    pub fn set_full_file(&self, file: Option<(&str, Full)>) {
        self.state().full_file = file.map(|(name, full)| (name.to_owned(), full));
    }

    /// Makes reads of a part of a file fail, as a disk with a bad sector would; `None` ends that.
    pub fn set_unreadable(&self, part: Option<(&str, Range<u64>)>) {
        self.state().unreadable = part.map(|(name, part)| (name.to_owned(), part));
    }

    /// Changes a byte of a file, as a failing disk would. Returns whether there is such a byte.
    pub fn damage(&self, name: &str, offset: u64) -> bool {
        let mut state = self.state();
        let Some(file) = state.now.file(Path::new(name)) else { return false };
        let mut found = false;
        let mut damage = |bytes: &mut [u8]| {
            if let Some(byte) = bytes.get_mut(usize_from(offset)) {
                *byte ^= 0x10;
                found = true;
            }
        };
        damage(state.bytes_mut(file));
        state.storage.damage(file, damage);
        found
    }

    /// The names of the files, also after the disk has stopped.
    pub fn list_now(&self) -> Vec<String> {
        self.state().names()
    }

    /// The bytes of a file; `None` if there is no such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.bytes(state.now.file(Path::new(name))?).clone())
    }

    /// The folder as the next process finds it after a power cut: with everything that was synced, and whatever else the
    /// seed decides.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> SimDisk {
        let state = self.state();
        let now = state.storage.after_power_cut(seed);
        state.next(now.clone(), Storage::holding(now))
    }

    /// The folder as the next process finds it when this one was killed: every write is there, and what was not synced
    /// still is not.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let state = self.state();
        state.next(state.now.clone(), state.storage.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    /// The same folder for the next process.
    fn next(&self, now: Contents, storage: Storage) -> SimDisk {
        let (next_file, room) = (self.next_file, self.room);
        SimDisk(Arc::new(Mutex::new(State { now, storage, next_file, room, ..State::default() })))
    }

    fn names(&self) -> Vec<String> {
        self.now.names.keys().map(|name| name.display().to_string()).collect()
    }

    fn bytes(&self, file: FileId) -> &Vec<u8> {
        self.now.files.get(&file).expect("files keep their bytes when they lose their name")
    }

    fn bytes_mut(&mut self, file: FileId) -> &mut Vec<u8> {
        self.now.files.entry(file).or_default()
    }

    fn change(&mut self, file: FileId, change: Change) {
        change.apply(self.bytes_mut(file));
        self.storage.happened(&Event::Changed(file, change));
    }

    fn rename(&mut self, name: NameChange) {
        let names = vec![name];
        self.now.rename(&names);
        self.storage.happened(&Event::Renamed { folder: PathBuf::new(), names });
    }

    /// Fails if a file may not be written up to this offset.
    fn check_not_full(&self, file: FileId, end: u64) -> io::Result<()> {
        let grows = end > self.bytes(file).len() as u64;
        match &self.full_file {
            Some((name, full))
                if self.now.file(Path::new(name)) == Some(file) && (grows || *full == Full::Everywhere) =>
            {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.now.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Bytes by which all files together may still grow.
    fn free(&self) -> u64 {
        self.room.map_or(u64::MAX, |room| room.saturating_sub(self.used()))
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.faults.check_running()?;
        Ok(state.names())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.faults.check_running()?;
        let file = state.now.file(Path::new(name)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let extent = state.faults.begin_change()?;
        if state.now.file(Path::new(name)).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        state.now.files.insert(file, Vec::new());
        state.rename(NameChange::Added(name.into(), Named::File(file)));
        extent.result()?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let extent = state.faults.begin_change()?;
        let file = state.now.file(Path::new(name)).ok_or(io::ErrorKind::NotFound)?;
        state.rename(NameChange::Removed(name.into(), Named::File(file)));
        extent.result()
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.faults.begin_change()?.result()?;
        state.storage.happened(&Event::NamesSynced(PathBuf::new()));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.faults.check_running()?;
        Ok(state.bytes(self.file).len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.disk.state();
        state.faults.check_running()?;
        if let Some((name, part)) = &state.unreadable
            && state.now.file(Path::new(name)) == Some(self.file)
            && offset < part.end
            && part.start < offset + len as u64
        {
            return Err(io::Error::other("a bad sector"));
        }
        Ok(state.bytes(self.file).iter().skip(usize_from(offset)).take(len).copied().collect())
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
        state.check_not_full(self.file, offset + bytes.len() as u64)?;
        let extent = state.faults.begin_change()?;
        bytes.truncate(extent.of(bytes.len()));
        let end = offset + bytes.len() as u64;
        let end_max = (state.bytes(self.file).len() as u64).saturating_add(state.free());
        let is_full = end > end_max;
        bytes.truncate(usize_from(end.min(end_max).saturating_sub(offset)));
        state.change(self.file, Change::Write { offset, bytes: bytes.into() });
        extent.result()?;
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_not_full(self.file, size)?;
        let extent = state.faults.begin_change()?;
        state.change(self.file, Change::Length(size));
        extent.result()
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        let is_whole = bytes.start.is_multiple_of(PAGE) && bytes.end.is_multiple_of(PAGE) && bytes.start < bytes.end;
        assert!(is_whole, "whole blocks: {bytes:?}");
        let mut state = self.disk.state();
        let extent = state.faults.begin_change()?;
        let len = bytes.end - bytes.start;
        let len = if extent == Extent::Whole { len } else { len / PAGE / 2 * PAGE };
        state.change(self.file, Change::Punch { offset: bytes.start, bytes: len });
        extent.result()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.begin_change()?.result()?;
        if state.faults.sync_fails() {
            state.storage.happened(&Event::Lost(self.file));
            return Err(power::lost());
        }
        state.storage.happened(&Event::Synced(self.file));
        Ok(())
    }

    fn forget_cached(&self, _bytes: Range<u64>) -> io::Result<()> {
        let mut state = self.disk.state();
        state.faults.check_running()?;
        *state.bytes_mut(self.file) = state.storage.file(self.file);
        Ok(())
    }
}
