//! Limits for guests, in time that they could use.
//!
//! On a busy machine an emulated guest gets a part of a processor, and a boot of ten seconds takes minutes. A limit by
//! the wall clock then fails a guest that gets on well. Here time in which a guest waits for a processor does not
//! count. A guest that hangs, or waits for something that never comes, reaches its limit as fast as by the wall clock.
//!
//! The tests of the agent use this file as well, by its path: it needs nothing but the standard library.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time between two looks at the guests' threads.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Counts the time in which the guests of a folder ran or had nothing to do.
pub struct GuestTime {
    /// Stands on the command lines of the guests.
    folder: String,
    looked: Instant,
    used: Duration,
    /// Time that each thread of the guests has waited for a processor since it began.
    waited: HashMap<PathBuf, Duration>,
}

impl GuestTime {
    /// Begins to count for the guests that have a file below `folder` on their command line.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let folder = folder.display().to_string();
        let mut this = Self { folder, looked: Instant::now(), used: Duration::ZERO, waited: HashMap::new() };
        this.newly_waited();
        this
    }

    /// The time so far. Where there are several guests, the one that waited longest is what counts.
    pub fn used(&mut self) -> Duration {
        let passed = self.looked.elapsed();
        if passed >= LOOK_EVERY {
            self.looked += passed;
            let waited = self.newly_waited();
            self.used += passed.saturating_sub(waited);
        }
        self.used
    }

    /// The longest time that one thread has waited for a processor since the last look.
    fn newly_waited(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for (thread, waited) in qemu_processes(&self.folder).into_iter().flat_map(waits_of) {
            let before = self.waited.insert(thread, waited).unwrap_or_default();
            longest = longest.max(waited.saturating_sub(before));
        }
        longest
    }
}

/// The QEMU processes that have `text` on their command line, for example the path of a disk: whichever libvirtd
/// started them, and whether it lives or not.
#[must_use]
pub fn qemu_processes(text: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.split('\0').next().is_some_and(|program| program.contains("qemu-system")) && line.contains(text)
    })
    .collect()
}

/// How long each thread of a process has waited for a processor, by its folder in `/proc`.
fn waits_of(pid: i32) -> Vec<(PathBuf, Duration)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = |thread: PathBuf| {
        // Nanoseconds on a processor, nanoseconds of waiting for one, number of turns.
        let times = fs::read_to_string(thread.join("schedstat")).ok()?;
        let waited = times.split_whitespace().nth(1)?.parse().ok()?;
        Some((thread, Duration::from_nanos(waited)))
    };
    threads.filter_map(|entry| waited(entry.path())).collect()
}
