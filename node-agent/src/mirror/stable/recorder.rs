//! Records every change of files below a folder, for power-cut tests. Afterwards it can create folders as a power cut at
//! any recorded moment could have left them; [`storage_core::power`] decides what that may be.
//!
//! Changes are made to real files. Syncs are only recorded and not done, so the tests do not depend on what this machine's
//! disk does.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use storage_core::{
    lock,
    power::{self, Contents, Event, Faults, FileId, NameChange, Named, Storage},
};

use super::{Change, Naming};

static RECORDERS: Mutex<Vec<Arc<Recorder>>> = Mutex::new(Vec::new());

/// Records one folder until [`Recorder::end`].
pub(crate) struct Recorder {
    root: PathBuf,
    /// What was there at the beginning, which counts as durable.
    start: Contents,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Vec<Event>,
    /// For each mark, the number of events before it.
    marks: Vec<usize>,
    /// Names as they are now. The bytes are in the real files.
    now: Contents,
    files: FileId,
    faults: Faults,
}

/// A file whose changes are recorded.
pub(super) struct Recorded {
    recorder: Arc<Recorder>,
    file: FileId,
}

fn all() -> MutexGuard<'static, Vec<Arc<Recorder>>> {
    lock(&RECORDERS)
}

fn of(path: &Path) -> Option<Arc<Recorder>> {
    all().iter().find(|recorder| path.starts_with(&recorder.root)).cloned()
}

pub(super) fn opened(path: &Path) -> Option<Recorded> {
    let recorder = of(path)?;
    let file = recorder.state().now.file(&recorder.relative(path))?;
    Some(Recorded { recorder, file })
}

pub(super) fn created(
    path: &Path,
    create: &mut dyn FnMut() -> io::Result<File>,
) -> io::Result<Option<(File, Recorded)>> {
    let Some(recorder) = of(path) else { return Ok(None) };
    let name = recorder.relative(path);
    let (created, file) = {
        let mut state = recorder.state();
        let extent = state.faults.begin_change()?;
        let created = create()?;
        let file = match state.now.file(&name) {
            Some(file) => {
                state.log.push(Event::Changed(file, power::Change::Length(0)));
                file
            }
            None => {
                let file = state.new_file();
                state.rename(parent(&name), vec![NameChange::Added(name, Named::File(file))]);
                file
            }
        };
        extent.result()?;
        (created, file)
    };
    Ok(Some((created, Recorded { recorder, file })))
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
        // Changes are made while the state is locked, so that they are recorded in the order in which they happen.
        let mut state = self.recorder.state();
        let extent = state.faults.begin_change()?;
        let recorded = match change {
            Change::Write { offset, bytes } => {
                let bytes = &bytes[..extent.of(bytes.len())];
                apply(Change::Write { offset, bytes })?;
                power::Change::Write { offset, bytes: bytes.to_vec().into() }
            }
            Change::Length(bytes) => {
                apply(change)?;
                power::Change::Length(bytes)
            }
            Change::Punch { offset, bytes } => {
                apply(change)?;
                power::Change::Punch { offset, bytes }
            }
            Change::SyncData | Change::SyncAll => {
                extent.result()?;
                if state.faults.sync_fails() {
                    state.log.push(Event::Lost(self.file));
                    return Err(power::lost());
                }
                state.log.push(Event::Synced(self.file));
                return Ok(());
            }
        };
        state.log.push(Event::Changed(self.file, recorded));
        extent.result()
    }
}

fn parent(name: &Path) -> PathBuf {
    name.parent().expect("names are below the root").to_owned()
}

impl Recorder {
    /// Begins to record what happens below `root`. What is there already counts as durable.
    pub(crate) fn attach(root: &Path) -> Arc<Self> {
        let mut start = Contents::default();
        let mut state = State::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry")) {
                let name = entry.path().strip_prefix(root).expect("below").to_owned();
                let kind = entry.file_type().expect("kind");
                if kind.is_dir() {
                    start.names.insert(name, Named::Folder);
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let file = state.new_file();
                    start.files.insert(file, std::fs::read(entry.path()).expect("file"));
                    start.names.insert(name, Named::File(file));
                }
            }
        }
        state.now.names.clone_from(&start.names);
        let recorder = Arc::new(Self { root: root.to_owned(), start, state: Mutex::new(state) });
        all().push(recorder.clone());
        recorder
    }

    /// Stops recording; the events so far stay.
    pub(crate) fn end(&self) {
        all().retain(|other| other.root != self.root);
    }

    /// The number of recorded events. The power can be cut after any number of them, from 0 to all.
    pub(crate) fn moments(&self) -> usize {
        self.state().log.len()
    }

    /// Sets the next mark of the test.
    pub(crate) fn mark(&self) {
        let mut state = self.state();
        let moment = state.log.len();
        state.marks.push(moment);
    }

    /// How many marks were set up to a moment.
    pub(crate) fn marks_before(&self, moment: usize) -> usize {
        self.state().marks.partition_point(|mark| *mark <= moment)
    }

    /// Makes everything fail after so many changes, as if the process was killed in the middle of the last of them.
    pub(crate) fn stop_after(&self, changes: u64) {
        self.state().faults.stop_after(Some(changes));
    }

    /// Makes everything work again, for the next process.
    pub(crate) fn go_on(&self) {
        self.state().faults.stop_after(None);
    }

    /// Makes one sync fail, after so many more that succeed. It loses what it should have made durable.
    pub(crate) fn fail_sync_after(&self, syncs: u64) {
        self.state().faults.fail_sync_after(syncs);
    }

    /// Writes what a power cut at `moment` leaves into the empty folder `into`. `seed` decides about what was not synced.
    pub(crate) fn after_power_cut(&self, moment: usize, seed: u64, into: &Path) {
        let mut storage = Storage::holding(self.start.clone());
        self.state().log.iter().take(moment).for_each(|event| storage.happened(event));
        let contents = storage.after_power_cut(seed);
        for (name, named) in &contents.names {
            let path = into.join(name);
            // What is in a folder is lost with the name of the folder.
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match named {
                Named::Folder => std::fs::create_dir(&path).expect("folder"),
                Named::File(file) => std::fs::write(&path, &contents.files[file]).expect("file"),
            }
        }
    }

    fn name(&self, naming: Naming<'_>, apply: &dyn Fn(Naming<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let extent = state.faults.begin_change()?;
        let names = match naming {
            Naming::SyncFolder(folder) => {
                extent.result()?;
                if state.faults.sync_fails() {
                    return Err(power::lost());
                }
                state.log.push(Event::NamesSynced(self.relative(folder.path)));
                return Ok(());
            }
            Naming::MakeFolder(path) => {
                let exists = path.is_dir();
                apply(naming)?;
                if exists {
                    return extent.result();
                }
                vec![NameChange::Added(self.relative(path), Named::Folder)]
            }
            Naming::Remove(path) => {
                apply(naming)?;
                vec![state.removal(self.relative(path))]
            }
            Naming::RemoveFolder(path) => {
                apply(naming)?;
                let name = self.relative(path);
                let below: Vec<PathBuf> =
                    state.now.names.keys().filter(|path| path.starts_with(&name)).cloned().collect();
                // The folder itself comes last.
                below.into_iter().rev().map(|path| state.removal(path)).collect()
            }
            Naming::Rename { from, to } => {
                apply(naming)?;
                let (from, to) = (self.relative(from), self.relative(to));
                let file = state.now.file(&from).expect("only files that were created here are renamed");
                vec![NameChange::Removed(from, Named::File(file)), NameChange::Added(to, Named::File(file))]
            }
        };
        let folder = match &names[..] {
            [.., NameChange::Added(name, _) | NameChange::Removed(name, _)] => parent(name),
            [] => unreachable!("each naming that succeeds changes a name"),
        };
        state.rename(folder, names);
        extent.result()
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("below the root").to_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn new_file(&mut self) -> FileId {
        self.files += 1;
        self.files
    }

    fn removal(&self, name: PathBuf) -> NameChange {
        let was = *self.now.names.get(&name).expect("a name that was recorded");
        NameChange::Removed(name, was)
    }

    fn rename(&mut self, folder: PathBuf, names: Vec<NameChange>) {
        self.now.rename(&names);
        self.log.push(Event::Renamed { folder, names });
    }
}
