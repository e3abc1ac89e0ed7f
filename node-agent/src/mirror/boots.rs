//! Boot orders: in which order a start of an instance first reads the chunks of its disk's version. The controller keeps
//! them, so that a later start can have the chunks brought in this order before its guest asks for them.
//!
//! A chunk counts when a program first reads a block of it that comes from the base, also if the chunk is in the cache.
//! Blocks that the disk owns do not count, and neither do chunks of zeros: nothing has to be brought for them. Reads of the
//! agent itself, for commits and for writes of a part of a block, are not reads of the guest.
//!
//! Recording costs a read one load of a pointer, and while a start is recorded one test of a bit for each chunk. Only the
//! first touch of a chunk takes a lock. Memory is bounded: [`BOOT_CHUNKS_MAX`] numbers, and bits for the first [`CHUNKS_MAX`] chunks. It is
//! given back when the recording ends. Who decides when that is: `reconcile::plan::is_booting`.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use muster_api::{
    DiskId, InstanceId, VersionId,
    node_protocol::boot::{BOOT_CHUNKS_MAX, BootReport},
};
use storage_core::{ChunkIndex, lock, units::usize_from};

use super::{base::Base, disk::Disk, disks::Disks, prefetch::Start};

/// Chunks behind this one are not recorded: their bits would take more than half a MiB. With chunks of 256 KiB this is the
/// first TiB of a disk.
const CHUNKS_MAX: u64 = 1 << 22;
/// Most ended recordings that wait for being told. The oldest is dropped for a new one.
const ENDED_MAX: usize = 256;

/// Records the starts of one disk, one at a time.
#[derive(Default)]
pub(super) struct Recorder(ArcSwapOption<Recording>);

/// One start of one disk.
pub(super) struct Recording {
    version: VersionId,
    boot: u64,
    seen: Box<[AtomicU64]>,
    order: Mutex<Vec<u32>>,
}

impl Recorder {
    /// Begins with a start, unless it is recorded already. What was recorded of another one is forgotten.
    /// Returns whether it does.
    fn begin(&self, base: &Base, boot: u64) -> bool {
        let begins = self.boot() != Some(boot);
        if begins {
            self.0.store(Some(Arc::new(Recording::new(base.version, base.descriptor.chunks(), boot))));
        }
        begins
    }

    /// Ends the recording of this start. `None` if it is not recorded.
    fn end(&self, boot: u64) -> Option<Arc<Recording>> {
        let now = self.0.load_full().filter(|recording| recording.boot == boot)?;
        let before = self.0.compare_and_swap(&Some(now.clone()), None);
        before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &now)).then_some(now)
    }

    /// Number of the start that is recorded.
    pub(super) fn boot(&self) -> Option<u64> {
        self.0.load().as_ref().map(|recording| recording.boot)
    }

    /// The recording of the present start.
    pub(super) fn now(&self) -> Guard<Option<Arc<Recording>>> {
        self.0.load()
    }
}

impl Recording {
    fn new(version: VersionId, chunks: u64, boot: u64) -> Self {
        let words = usize_from(chunks.min(CHUNKS_MAX).div_ceil(64));
        let seen = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Self { version, boot, seen, order: Mutex::default() }
    }

    /// Whether reads of this base belong to it. A commit may have become the base since the start began.
    pub(super) fn is_of(&self, base: &Base) -> bool {
        self.version == base.version
    }

    /// Notes a read of a chunk.
    pub(super) fn touch(&self, chunk: ChunkIndex) {
        let Some(word) = self.seen.get(usize_from(chunk.0 / 64)) else { return };
        let bit = 1 << (chunk.0 % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            self.first_touch(word, bit, chunk);
        }
    }

    #[cold]
    fn first_touch(&self, word: &AtomicU64, bit: u64, chunk: ChunkIndex) {
        let mut order = lock(&self.order);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0
            && order.len() < BOOT_CHUNKS_MAX
            && let Ok(chunk) = u32::try_from(chunk.0)
        {
            order.push(chunk);
        }
    }
}

/// Recordings that have ended and were not taken yet, oldest first.
#[derive(Default)]
pub(super) struct Ended(Mutex<VecDeque<(InstanceId, BootReport)>>);

impl Ended {
    /// Returns whether the oldest one was dropped.
    fn push(&self, instance: InstanceId, report: BootReport) -> bool {
        let mut ended = lock(&self.0);
        let is_full = ended.len() >= ENDED_MAX;
        if is_full {
            ended.pop_front();
        }
        ended.push_back((instance, report));
        is_full
    }

    fn take(&self) -> Vec<(InstanceId, BootReport)> {
        lock(&self.0).drain(..).collect()
    }
}

impl Disks {
    /// Begins to record in which order a start of a disk's instance first reads its chunks. Call it before the start: what was
    /// read before does not count. Repeated for the same start, it changes nothing. [`Self::next_start`] tells of the start.
    pub fn record_boot(&self, disk: DiskId, boot: u64) {
        let Some(disk) = self.disk(disk) else { return };
        let base = disk.layers().base.clone();
        if disk.boots.begin(&base, boot) {
            let instance = disk.meta.load().instance;
            self.starts.push(Start { instance, disk: disk.id(), version: base.version });
        }
    }

    /// Ends the recording of this start of a disk, if there is one. [`Self::take_boots`] has it then, unless nothing was read.
    pub fn end_boot(&self, disk: DiskId, boot: u64) {
        let Some(disk) = self.disk(disk) else { return };
        let Some(recording) = disk.boots.end(boot) else { return };
        let (instance, report) = ended(&disk, &recording);
        tracing::debug!(disk.id = %report.disk, boot = report.boot, chunks = report.chunks.len(), "recorded a boot order");
        if !report.chunks.is_empty() && self.ended_boots.push(instance, report) {
            tracing::debug!("too many boot orders wait for being told: the oldest was dropped");
        }
    }

    /// Takes what was recorded of starts whose recording has ended, oldest first.
    #[must_use]
    pub fn take_boots(&self) -> Vec<(InstanceId, BootReport)> {
        self.ended_boots.take()
    }
}

fn ended(disk: &Disk, recording: &Recording) -> (InstanceId, BootReport) {
    let meta = disk.meta.load();
    let report = BootReport {
        disk: disk.id(),
        version: recording.version,
        generation: meta.generation,
        boot: recording.boot,
        chunks: std::mem::take(&mut *lock(&recording.order)),
    };
    (meta.instance, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(chunks: u64) -> Recording {
        Recording::new(VersionId::generate(), chunks, 1)
    }

    fn order(recording: &Recording) -> Vec<u32> {
        lock(&recording.order).clone()
    }

    #[test]
    fn each_chunk_is_listed_once_in_the_order_of_its_first_read() {
        let recording = recording(200);
        for chunk in [130, 0, 130, 7, 0, 199, 7, 63, 64] {
            recording.touch(ChunkIndex(chunk));
        }
        assert_eq!(order(&recording), [130, 0, 7, 199, 63, 64]);
    }

    #[test]
    fn a_recording_never_takes_more_than_its_bounds() {
        let recording = recording(u64::MAX);
        assert_eq!(recording.seen.len() as u64, CHUNKS_MAX / 64);
        for chunk in (0..CHUNKS_MAX).step_by(8).chain([CHUNKS_MAX, u64::MAX]) {
            recording.touch(ChunkIndex(chunk));
        }
        let order = order(&recording);
        assert_eq!(order.len(), BOOT_CHUNKS_MAX);
        assert_eq!(order.last(), Some(&(8 * (1 << 16) - 8)), "the first ones are kept");
    }

    #[test]
    fn many_readers_at_once_list_no_chunk_twice() {
        let recording = recording(1 << 12);
        std::thread::scope(|scope| {
            for reader in 0..4u64 {
                let recording = &recording;
                scope.spawn(move || {
                    (0..1 << 12).for_each(|n| recording.touch(ChunkIndex((n * 7 + reader) % (1 << 12))))
                });
            }
        });
        let mut order = order(&recording);
        order.sort_unstable();
        assert_eq!(order, (0..1 << 12).collect::<Vec<_>>());
    }

    #[test]
    fn recordings_that_nobody_takes_are_dropped_from_the_oldest_on() {
        let ended = Ended::default();
        let report = |boot| BootReport {
            disk: DiskId::generate(),
            version: VersionId::generate(),
            generation: 1,
            boot,
            chunks: vec![1],
        };
        let dropped = (0..300).filter(|boot| ended.push(InstanceId::generate(), report(*boot))).count();
        assert_eq!(dropped, 300 - ENDED_MAX);
        let kept = ended.take();
        assert_eq!((kept.len(), kept[0].1.boot), (ENDED_MAX, 44));
        assert!(ended.take().is_empty());
    }
}
