//! The scrub: every object of this node's share of the pool is read again, from the disk itself, and hashed, so that rot is
//! found while other copies are good (I4).
//!
//! ```text
//! round begins ──objects in name order, paced──> round ends ──> the next one begins `scrub_every` after this one began
//!                    │
//!                    ├── bytes do not match the name, or the segment is gone: dropped, lost
//!                    └── the disk does not read it: does not count, lost until it is read again
//! ```
//! What is lost other nodes are told, and send it again (`repair`). Here it is only found and counted.
//!
//! A round takes nine tenths of `scrub_every`, however much there is, but never goes faster than `scrub_bytes_per_s`. Where it
//! is stands in `DATA/pool-scrub.json`, written every minute: a start goes on there. A note that is lost or damaged begins a
//! new round, which costs reads and nothing else.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{counter, gauge};
use muster_api::{
    Timestamp,
    node::{Scrub, ScrubRound},
};
use serde::{Deserialize, Serialize};
use storage_core::{
    ObjectName,
    cause::explain,
    lock,
    store::{ChunkStore as _, StoreError},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::share::PoolShare;
use crate::{clock, identity::replace_file, pace::at_low_priority, sealed, telemetry};

/// Time between two steps.
const STEP: Duration = Duration::from_secs(1);
/// Objects that the store is asked to list at a time.
const LIST: usize = 64;
/// Slowest rate, so that a small pool is not read an object a minute.
const RATE_MIN: u64 = 1 << 20;
/// Time between two writes of the note while a round goes on.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Where the scrub is. The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The round that goes on, or the last one.
    round: ScrubRound,
    /// The object that it visited last; none at its begin and after its end.
    after: Option<ObjectName>,
    /// The last round that was ended.
    last: Option<ScrubRound>,
}

impl Note {
    fn begin(now: Timestamp, last: Option<ScrubRound>) -> Self {
        let round = ScrubRound { began_at: now, ended_at: None, objects: 0, bytes: 0, bad: 0, unreadable: 0 };
        Self { round, after: None, last }
    }

    /// The share of the names that the round has visited, in millionths. Names are spread evenly.
    fn done_ppm(&self) -> u64 {
        if self.round.ended_at.is_some() {
            return 1_000_000;
        }
        let Some(after) = self.after else { return 0 };
        let first = after.as_bytes().first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        (u64::from(first) * 1_000_000) >> 32
    }
}

/// The scrub of one node.
pub struct Scrubber {
    share: Arc<PoolShare>,
    file: PathBuf,
    every: Duration,
    bytes_per_s_max: u64,
    state: Mutex<Note>,
}

/// What one step did.
#[derive(Debug, Default)]
struct Step {
    objects: u64,
    bytes: u64,
    bad: u64,
    unreadable: u64,
    after: Option<ObjectName>,
    is_end: bool,
}

impl Scrubber {
    /// For this node's share of the pool. The note is in the data folder.
    #[must_use]
    pub fn new(share: Arc<PoolShare>, data_dir: &Path, every: Duration, bytes_per_s_max: u64) -> Self {
        let file = data_dir.join("pool-scrub.json");
        let note = load(&file).unwrap_or_else(|| Note::begin(clock::now(), None));
        Self { share, file, every, bytes_per_s_max, state: Mutex::new(note) }
    }

    /// Where it is, for heartbeats and status.
    #[must_use]
    pub fn progress(&self) -> Scrub {
        let note = *lock(&self.state);
        let now = note.round.ended_at.is_none().then_some(note.round);
        Scrub { now, done_ppm: note.done_ppm(), last: note.last, next_at: self.due(&note) }
    }

    fn due(&self, note: &Note) -> Timestamp {
        note.round.began_at.plus_ms(i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX))
    }

    /// Scrubs for ever.
    pub async fn run(&self) {
        let mut noted_at = Instant::now();
        loop {
            sleep(STEP).await;
            let note = *lock(&self.state);
            if note.round.ended_at.is_some() {
                let now = clock::now();
                // If the clock was set back, the next round begins now.
                if now < self.due(&note) && now >= note.round.began_at {
                    continue;
                }
                *lock(&self.state) = Note::begin(now, note.last);
                continue;
            }
            let (share, rate) = (self.share.clone(), self.rate(&note, clock::now()));
            match tokio::task::spawn_blocking(move || at_low_priority(|| step(&share, note.after, rate))).await {
                Ok(Ok(step)) => {
                    let ended = step.is_end;
                    self.take(&step);
                    if ended || noted_at.elapsed() >= NOTE_EVERY {
                        noted_at = Instant::now();
                        self.store().await;
                    }
                }
                Ok(Err(error)) => warn!(error = explain(&error), "the scrub of the pool cannot list it; it goes on"),
                Err(error) => warn!(%error, "the scrub of the pool failed; it goes on"),
            }
        }
    }

    /// Bytes per second with which the round ends in time.
    fn rate(&self, note: &Note, now: Timestamp) -> u64 {
        let used = u128::from(self.share.usage().bytes);
        let left = used * u128::from(1_000_000 - note.done_ppm()) / 1_000_000;
        let passed_ms = u128::try_from(now.ms_since(note.round.began_at)).unwrap_or(0);
        let every_ms = self.every.as_millis();
        // A round that is late catches up, but not in no time.
        let left_ms = (every_ms * 9 / 10).saturating_sub(passed_ms).max(every_ms / 10).max(1);
        let rate = u64::try_from(left * 1000 / left_ms).unwrap_or(u64::MAX);
        rate.max(RATE_MIN).min(self.bytes_per_s_max)
    }

    fn take(&self, step: &Step) {
        counter!(telemetry::POOL_SCRUBBED_BYTES).increment(step.bytes);
        counter!(telemetry::POOL_SCRUB_FOUND, "what" => "bad").increment(step.bad);
        counter!(telemetry::POOL_SCRUB_FOUND, "what" => "unreadable").increment(step.unreadable);
        let mut note = lock(&self.state);
        note.round.objects += step.objects;
        note.round.bytes += step.bytes;
        note.round.bad += step.bad;
        note.round.unreadable += step.unreadable;
        note.after = step.after;
        if step.is_end {
            note.round.ended_at = Some(clock::now());
            note.after = None;
            note.last = Some(note.round);
            let ScrubRound { objects, bytes, bad, unreadable, .. } = note.round;
            if bad > 0 || unreadable > 0 {
                warn!(
                    objects,
                    bytes,
                    bad,
                    unreadable,
                    "the scrub of the pool found copies that are no good; other nodes send them"
                );
            } else {
                info!(objects, bytes, "the scrub of the pool has read all objects, and all are good");
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        gauge!(telemetry::POOL_SCRUB_DONE).set(note.done_ppm() as f64 / 1e6);
    }

    async fn store(&self) {
        let (note, file) = (*lock(&self.state), self.file.clone());
        let stored = tokio::task::spawn_blocking(move || replace_file(&file, &sealed::seal(&note)?)).await;
        // A full disk: the next start reads some objects twice.
        if let Ok(Err(error)) = stored {
            warn!(%error, file = %self.file.display(), "where the scrub is cannot be written down; it goes on");
        }
    }
}

/// Hashes at least `bytes` stored bytes of objects that follow `after`; fewer at the end. Blocks.
fn step(share: &PoolShare, after: Option<ObjectName>, bytes: u64) -> Result<Step, StoreError> {
    let mut done = Step { after, ..Step::default() };
    loop {
        let next = share.list_all(done.after.as_ref(), LIST)?;
        if next.is_empty() {
            done.is_end = true;
            return Ok(done);
        }
        for object in next {
            if done.bytes >= bytes {
                return Ok(done);
            }
            let bad_before = share.usage().bad_copies;
            match share.scrub(&object.name) {
                // Other readers may find bad copies at the same time: then one more is counted here than was found here.
                Ok(false) => done.bad += u64::from(share.usage().bad_copies > bad_before),
                Ok(true) => {}
                Err(error) => {
                    done.unreadable += 1;
                    warn!(object.name = %object.name, error = explain(&error), "the scrub could not read a copy; it does not count");
                }
            }
            done.objects += 1;
            done.bytes += object.stored_bytes;
            done.after = Some(object.name);
        }
    }
}

fn load(file: &Path) -> Option<Note> {
    let note = match std::fs::read(file) {
        Ok(bytes) => sealed::open(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error),
    };
    note.inspect_err(|error| {
        warn!(%error, file = %file.display(), "the note of the scrub cannot be read; a new round begins");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use storage_core::{
        Kind, Record, Salt,
        record::Compression,
        store::{ChunkStore, MemoryStore},
    };

    use super::*;
    use crate::data_disk::{DataDisk, Reserves};

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn record(number: u32) -> Record {
        let bytes: Vec<u8> = number.to_be_bytes().iter().map(|b| b + 1).cycle().take(1000).collect();
        Record::encode(Kind::Pack, Salt::SHARED, None, &bytes, Compression::Off)
    }

    struct World {
        dir: tempfile::TempDir,
        store: Arc<MemoryStore>,
        records: Vec<Record>,
    }

    impl World {
        fn new(objects: u32) -> Self {
            let (dir, store) = (tempfile::tempdir().expect("a folder"), Arc::new(MemoryStore::new()));
            let mut records: Vec<Record> = (0..objects).map(record).collect();
            records.sort_by_key(Record::name);
            store.put(1, &records).expect("puts");
            Self { dir, store, records }
        }

        /// As the next process has it.
        fn scrubber(&self) -> Scrubber {
            let disk = Arc::new(DataDisk::new(self.dir.path().to_owned(), Reserves::default()));
            let share = Arc::new(PoolShare::new(self.store.clone(), disk));
            Scrubber::new(share, self.dir.path(), WEEK, 32 << 20)
        }
    }

    fn steps(scrubber: &Scrubber, bytes: u64, count: usize) {
        for _ in 0..count {
            let after = lock(&scrubber.state).after;
            scrubber.take(&step(&scrubber.share, after, bytes).expect("steps"));
        }
    }

    #[tokio::test]
    async fn a_round_goes_on_where_the_last_process_left_it_and_counts_what_it_finds() {
        let world = World::new(40);
        let scrubber = world.scrubber();
        steps(&scrubber, 5000, 3);
        assert_eq!(lock(&scrubber.state).after, Some(world.records[14].name()));
        scrubber.store().await;
        drop(scrubber);

        world.store.damage(&world.records[3].name());
        world.store.damage(&world.records[20].name());
        world.store.set_unreadable(&world.records[30].name(), true);
        let scrubber = world.scrubber();
        let progress = scrubber.progress();
        assert_eq!(progress.now.map(|round| round.objects), Some(15));
        assert!((300_000..450_000).contains(&progress.done_ppm), "{progress:?}");
        while scrubber.progress().now.is_some() {
            steps(&scrubber, 5000, 1);
        }
        let last = scrubber.progress().last.expect("a round has ended");
        assert_eq!((last.objects, last.bytes, last.bad, last.unreadable), (40, 40_000, 1, 1));
        scrubber.store().await;

        let next = world.scrubber().progress();
        assert_eq!((next.now, next.last, next.done_ppm), (None, Some(last), 1_000_000));
        assert_eq!(next.next_at, last.began_at.plus_ms(7 * 86_400_000));
    }

    #[test]
    fn the_rate_follows_from_size_and_period_and_has_limits() {
        let world = World::new(40);
        let scrubber = world.scrubber();
        let now = clock::now();
        let note = Note::begin(now, None);
        assert_eq!(scrubber.rate(&note, now), RATE_MIN, "a small pool");
        let every = Duration::from_millis(1);
        let hasty = Scrubber { every, ..world.scrubber() };
        assert_eq!(hasty.rate(&note, now), 32 << 20, "never more than the limit");
        let every = Duration::from_millis(20);
        let fits = Scrubber { every, ..world.scrubber() };
        let first = fits.rate(&note, now);
        assert_eq!(first, 40_000 * 1000 / 18);
        assert_eq!(fits.rate(&note, now.plus_ms(9)), 40_000 * 1000 / 9, "late: it catches up");
        assert_eq!(fits.rate(&note, now.plus_ms(9000)), 40_000 * 1000 / 2);
    }

    #[test]
    fn a_damaged_note_begins_a_round() {
        let world = World::new(1);
        std::fs::write(world.dir.path().join("pool-scrub.json"), "{}").expect("writes");
        let progress = world.scrubber().progress();
        assert_eq!((progress.now.map(|round| round.objects), progress.last), (Some(0), None));
    }
}
