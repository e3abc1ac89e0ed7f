//! Records every change of stable storage below a folder, and makes folders as a power cut at any recorded moment could
//! have left them: all that was synced, and of the rest any part, torn at sectors, names in any order.
//!
//! Syncs themselves are only recorded, not done: nothing here depends on what this machine's disk does.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Change, Naming};

const SECTOR: usize = 512;

static RECORDERS: Mutex<Vec<Arc<Recorder>>> = Mutex::new(Vec::new());

type FileId = usize;

/// The recorder of one folder; ends with [`Recorder::end`].
pub(crate) struct Recorder {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    start: Contents,
    log: Vec<Event>,
    /// Names as they are now, relative to the root.
    names: BTreeMap<PathBuf, FileId>,
    files: usize,
    stop_after: Option<u64>,
    fail_sync_after: Option<u64>,
}

#[derive(Clone, Default)]
struct Contents {
    /// Folders too, without a file.
    names: BTreeMap<PathBuf, Option<FileId>>,
    files: BTreeMap<FileId, Vec<u8>>,
}

/// What happened.
enum Event {
    Write {
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    },
    Length {
        file: FileId,
        bytes: u64,
    },
    Punch {
        file: FileId,
        offset: u64,
        bytes: u64,
    },
    Synced {
        file: FileId,
    },
    /// A sync that failed: what it should have covered counts as clean from then on, wherever it is.
    Lost {
        file: FileId,
    },
    /// `folder` got or lost names.
    Named {
        folder: PathBuf,
        names: Vec<(PathBuf, Name)>,
    },
    NamesSynced {
        folder: PathBuf,
    },
    /// The test's own.
    Mark(usize),
}

/// What a name leads to; none: a folder.
#[derive(Clone, Copy)]
enum Name {
    Is(Option<FileId>),
    IsNoMore(Option<FileId>),
}

/// A file that is recorded.
pub(super) struct Recorded {
    recorder: Arc<Recorder>,
    file: FileId,
}

fn all() -> MutexGuard<'static, Vec<Arc<Recorder>>> {
    RECORDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of(path: &Path) -> Option<Arc<Recorder>> {
    all().iter().find(|recorder| path.starts_with(&recorder.root)).cloned()
}

pub(super) fn opened(path: &Path) -> Option<Recorded> {
    let recorder = of(path)?;
    let file = recorder.state().names.get(&recorder.relative(path)).copied()?;
    Some(Recorded { recorder, file })
}

pub(super) fn created(
    path: &Path,
    create: &mut dyn FnMut() -> io::Result<File>,
) -> io::Result<Option<(File, Recorded)>> {
    let Some(recorder) = of(path) else { return Ok(None) };
    let name = recorder.relative(path);
    let (made, id) = {
        let mut state = recorder.state();
        let goes_on = state.begin()?;
        let made = create()?;
        let id = match state.names.get(&name).copied() {
            Some(file) => {
                state.log.push(Event::Length { file, bytes: 0 });
                file
            }
            None => {
                let file = state.new_file();
                state.names.insert(name.clone(), file);
                let names = vec![(name.clone(), Name::Is(Some(file)))];
                state.log.push(Event::Named { folder: parent(&name), names });
                file
            }
        };
        if !goes_on {
            return Err(stopped());
        }
        (made, id)
    };
    Ok(Some((made, Recorded { recorder, file: id })))
}

pub(super) fn named(naming: Naming<'_>, apply: &dyn Fn(Naming<'_>) -> io::Result<()>) -> Option<io::Result<()>> {
    let path = match naming {
        Naming::MakeFolder(path) | Naming::Remove(path) | Naming::RemoveFolder(path) => path,
        Naming::Rename { from: _, to } => to,
        Naming::SyncFolder(folder) => folder.path,
    };
    let recorder = of(path)?;
    Some(recorder.name(naming, apply))
}

impl Recorded {
    pub(super) fn change(&self, change: Change<'_>, apply: impl Fn(Change<'_>) -> io::Result<()>) -> io::Result<()> {
        let file = self.file;
        // Changes happen under the lock, so that the record has them in the order in which they took effect.
        let mut state = self.recorder.state();
        let goes_on = state.begin()?;
        match change {
            Change::Write { offset, bytes } => {
                // What the end of the process came into is done in part.
                let bytes = bytes.get(..if goes_on { bytes.len() } else { bytes.len() / 2 }).unwrap_or_default();
                apply(Change::Write { offset, bytes })?;
                state.log.push(Event::Write { file, offset, bytes: bytes.to_vec() });
            }
            Change::Length(bytes) => {
                apply(change)?;
                state.log.push(Event::Length { file, bytes });
            }
            Change::Punch { offset, bytes } => {
                apply(change)?;
                state.log.push(Event::Punch { file, offset, bytes });
            }
            Change::SyncData | Change::SyncAll if goes_on => {
                let fails = state.sync_fails();
                state.log.push(if fails { Event::Lost { file } } else { Event::Synced { file } });
                if fails {
                    return Err(io::Error::other("the recorder lost these writes"));
                }
            }
            Change::SyncData | Change::SyncAll => {}
        }
        if goes_on { Ok(()) } else { Err(stopped()) }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the recorder has stopped")
}

fn parent(name: &Path) -> PathBuf {
    name.parent().map(Path::to_owned).unwrap_or_default()
}

impl Recorder {
    /// Begins to record what happens below `root`. What is there counts as durable.
    pub(crate) fn attach(root: &Path) -> Arc<Self> {
        let mut state = State::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry")) {
                let name = entry.path().strip_prefix(root).expect("below").to_owned();
                let kind = entry.file_type().expect("kind");
                if kind.is_dir() {
                    state.start.names.insert(name, None);
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let file = state.new_file();
                    state.start.files.insert(file, std::fs::read(entry.path()).expect("file"));
                    state.start.names.insert(name.clone(), Some(file));
                    state.names.insert(name, file);
                }
            }
        }
        let recorder = Arc::new(Self { root: root.to_owned(), state: Mutex::new(state) });
        all().push(recorder.clone());
        recorder
    }

    /// Records no more.
    pub(crate) fn end(&self) {
        all().retain(|other| other.root != self.root);
    }

    /// How much was recorded: moments to cut the power at are below or at it.
    pub(crate) fn moments(&self) -> usize {
        self.state().log.len()
    }

    /// The test's own mark.
    pub(crate) fn mark(&self, mark: usize) {
        self.state().log.push(Event::Mark(mark));
    }

    /// How many marks are before a moment: marks count up from 0.
    pub(crate) fn marks_before(&self, moment: usize) -> usize {
        let state = self.state();
        let newest = state.log.iter().take(moment).rev().find_map(|event| match event {
            Event::Mark(mark) => Some(mark + 1),
            _ => None,
        });
        newest.unwrap_or(0)
    }

    /// From after so many changes on nothing works, as when the process was killed in the middle of the last of them.
    pub(crate) fn stop_after(&self, changes: u64) {
        self.state().stop_after = Some(changes);
    }

    /// Goes on, as for the next process.
    pub(crate) fn go_on(&self) {
        self.state().stop_after = None;
    }

    /// The sync after so many more fails, once, and loses what it should have saved.
    pub(crate) fn fail_sync_after(&self, syncs: u64) {
        self.state().fail_sync_after = Some(syncs);
    }

    /// Writes what a power cut at `moment` left into the empty folder `into`; `seed` decides about what was not synced.
    pub(crate) fn after_power_cut(&self, moment: usize, seed: u64, into: &Path) {
        let contents = self.contents_after(moment, seed);
        for (name, file) in &contents.names {
            // Names sort behind the folder they are in; one whose folder is lost is lost with it.
            let path = into.join(name);
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match file {
                None => std::fs::create_dir(&path).expect("folder"),
                Some(file) => {
                    let bytes = contents.files.get(file).map(Vec::as_slice).unwrap_or_default();
                    std::fs::write(&path, bytes).expect("file");
                }
            }
        }
    }

    fn contents_after(&self, moment: usize, seed: u64) -> Contents {
        let state = self.state();
        let mut durable = state.start.clone();
        let mut pending: BTreeMap<FileId, Vec<&Event>> = BTreeMap::new();
        let mut namings: Vec<&Event> = Vec::new();
        for event in state.log.iter().take(moment) {
            match event {
                Event::Write { file, .. } | Event::Length { file, .. } | Event::Punch { file, .. } => {
                    pending.entry(*file).or_default().push(event);
                }
                Event::Synced { file } => {
                    let bytes = durable.files.entry(*file).or_default();
                    pending.remove(file).into_iter().flatten().for_each(|event| apply(bytes, event));
                }
                Event::Lost { file } => drop(pending.remove(file)),
                Event::Named { .. } => namings.push(event),
                Event::NamesSynced { folder } => namings.retain(|event| match event {
                    Event::Named { folder: of, names } if of == folder => {
                        durable.rename(names);
                        false
                    }
                    _ => true,
                }),
                Event::Mark(_) => {}
            }
        }
        let mut random = Random(seed);
        // Nothing that was not synced, everything, all up to some change, or any part.
        let keep = random.below(4);
        let up_to = |random: &mut Random, n: usize| match keep {
            0 => 0,
            2 => random.below(n as u64 + 1),
            _ => n as u64,
        };
        let last = up_to(&mut random, namings.len());
        for (_, event) in (0..last).zip(&namings) {
            if let (Event::Named { names, .. }, true) = (event, keep != 3 || random.below(2) == 0) {
                durable.rename(names);
            }
        }
        for (file, events) in &pending {
            let bytes = durable.files.entry(*file).or_default();
            let last = up_to(&mut random, events.len());
            for (_, event) in (0..last).zip(events) {
                match (keep, event) {
                    (3, Event::Write { offset, bytes: written, .. }) if random.below(3) == 0 => {
                        for (n, sector) in (0u64..).zip(written.chunks(SECTOR)) {
                            if random.below(2) == 0 {
                                write(bytes, offset + n * SECTOR as u64, sector);
                            }
                        }
                    }
                    (3, _) if random.below(2) == 0 => {}
                    (_, event) => apply(bytes, event),
                }
            }
        }
        durable
    }

    fn name(&self, naming: Naming<'_>, apply: &dyn Fn(Naming<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let goes_on = state.begin()?;
        let (folder, names) = match naming {
            Naming::SyncFolder(folder) => {
                if !goes_on {
                    return Err(stopped());
                }
                if state.sync_fails() {
                    return Err(io::Error::other("the recorder lost these names"));
                }
                state.log.push(Event::NamesSynced { folder: self.relative(folder.path) });
                return Ok(());
            }
            Naming::MakeFolder(path) => {
                let there = path.is_dir();
                apply(naming)?;
                let name = self.relative(path);
                (parent(&name), if there { Vec::new() } else { vec![(name, Name::Is(None))] })
            }
            Naming::Remove(path) => {
                apply(naming)?;
                let name = self.relative(path);
                let was = state.names.remove(&name);
                (parent(&name), vec![(name, Name::IsNoMore(was))])
            }
            Naming::RemoveFolder(path) => {
                apply(naming)?;
                let name = self.relative(path);
                let below = state.names.extract_if(.., |file, _| file.starts_with(&name));
                let mut gone: Vec<_> = below.map(|(file, was)| (file, Name::IsNoMore(Some(was)))).collect();
                gone.push((name.clone(), Name::IsNoMore(None)));
                (parent(&name), gone)
            }
            Naming::Rename { from, to } => {
                apply(naming)?;
                let (from, to) = (self.relative(from), self.relative(to));
                let file = state.names.remove(&from).expect("a file that was created here");
                state.names.insert(to.clone(), file);
                (parent(&to), vec![(from, Name::IsNoMore(Some(file))), (to, Name::Is(Some(file)))])
            }
        };
        state.log.push(Event::Named { folder, names });
        if goes_on { Ok(()) } else { Err(stopped()) }
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("below the root").to_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new_file(&mut self) -> FileId {
        self.files += 1;
        self.files
    }

    fn sync_fails(&mut self) -> bool {
        let fails = self.fail_sync_after == Some(0);
        self.fail_sync_after = self.fail_sync_after.and_then(|n| n.checked_sub(1));
        fails
    }

    /// Whether the change that begins is done whole; an error if it is not begun at all.
    fn begin(&mut self) -> io::Result<bool> {
        match &mut self.stop_after {
            None => Ok(true),
            Some(0) => Err(stopped()),
            Some(left) => {
                *left -= 1;
                Ok(*left > 0)
            }
        }
    }
}

impl Contents {
    fn rename(&mut self, names: &[(PathBuf, Name)]) {
        for (name, now) in names {
            match now {
                Name::Is(file) => drop(self.names.insert(name.clone(), *file)),
                // The name may have been given anew meanwhile, and made durable sooner.
                Name::IsNoMore(was) if self.names.get(name) == Some(was) => drop(self.names.remove(name)),
                Name::IsNoMore(_) => {}
            }
        }
    }
}

fn apply(into: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, bytes, .. } => write(into, *offset, bytes),
        Event::Length { bytes, .. } => into.resize(to_usize(*bytes), 0),
        Event::Punch { offset, bytes, .. } => {
            let end = to_usize(offset + bytes).min(into.len());
            if let Some(hole) = into.get_mut(to_usize(*offset)..end) {
                hole.fill(0);
            }
        }
        _ => {}
    }
}

fn write(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, end) = (to_usize(offset), to_usize(offset) + bytes.len());
    if into.len() < end {
        into.resize(end, 0);
    }
    into.get_mut(from..end).expect("long enough").copy_from_slice(bytes);
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("small")
}

/// SplitMix64: the same seed, the same power cut.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
