//! Prefetch: brings the chunks that a start is likely to read into the cache before its guest asks for them, in the order in
//! which earlier starts of the same version first read them (`boots.rs`).
//!
//! ```text
//! start --> queue --> agent asks the controller for the order --> Disks::prefetch
//!     next chunks of the order --pages of the tree--> objects that this node does not have --a few at a time--> cache
//! ```
//! - It stays behind the guests: few objects are under way at a time for all starts of a node together, so that the queue of its link
//!   is short, and while a guest fetches something that nobody fetches yet, the next fetch waits a moment. A guest that wants what is on
//!   its way shares that fetch.
//! - It yields under pressure: it ends where the cache would have to drop what was read lately, or the disk is near full.
//! - Nothing depends on it. Whatever fails ends it, and the guest fetches what it needs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use metrics::counter;
use muster_api::{DiskId, InstanceId, VersionId};
use storage_core::{
    Kind, ObjectName, lock,
    tree::Leaf,
    units::{u64_from, usize_from},
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};

use super::{
    base::{Base, NoLeaves},
    cache::Why,
    disk::Disk,
    disks::Disks,
    error::Fault,
    read::Pinned,
};
use crate::telemetry;

/// Chunks that are looked up together.
const GROUP: usize = 64;
/// Bytes of the objects of one fetch, at least one object. A guest that wants one of them waits for all.
const TOGETHER_BYTES: u64 = 512 << 10;
/// Fetches under way on a node at a time.
pub(super) const UNDER_WAY: usize = 4;
/// Longest that the next fetch waits for those of guests. A guest that has caught up with the prefetch always has one under way, and
/// the prefetch must get ahead of it again.
const GIVE_WAY: Duration = Duration::from_millis(5);
/// Time between two looks for them.
const LOOK: Duration = Duration::from_millis(1);
/// Longest time of one fetch. Guests that wait for it try again by themselves.
const FETCH: Duration = Duration::from_secs(10);
/// Most starts that wait to be looked at. Of more, the oldest are forgotten.
const STARTS_MAX: usize = 1024;

/// A start of an instance, which will read chunks of a disk's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The instance that starts.
    pub instance: InstanceId,
    /// The disk.
    pub disk: DiskId,
    /// The version that the disk builds on.
    pub version: VersionId,
}

/// Starts that were not looked at yet, oldest first.
#[derive(Default)]
pub(super) struct Starts {
    waiting: Mutex<VecDeque<Start>>,
    came: Notify,
}

/// What limits the fetches of all starts of a node.
pub(crate) struct Turns {
    under_way: Semaphore,
    /// Held by the fetch that begins next.
    next: tokio::sync::Mutex<()>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { under_way: Semaphore::new(UNDER_WAY), next: tokio::sync::Mutex::default() }
    }
}

impl Starts {
    pub(super) fn push(&self, start: Start) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= STARTS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(start);
        self.came.notify_one();
    }

    /// The next one, as soon as there is one.
    async fn next(&self) -> Start {
        loop {
            let came = self.came.notified();
            if let Some(start) = lock(&self.waiting).pop_front() {
                return start;
            }
            came.await;
        }
    }
}

impl Disks {
    /// Waits for the next start of an instance whose disk's version may have a boot order.
    pub async fn next_start(&self) -> Start {
        self.starts.next().await
    }

    /// Brings these chunks of a disk's version into the cache, those that this node lacks, in about this order. Ends when the disk is
    /// gone or builds on another version, when there is no room, and at the first failure. Numbers that the version does not have are
    /// left out.
    pub async fn prefetch(&self, disk: DiskId, version: VersionId, chunks: &[u32]) {
        for group in chunks.chunks(GROUP) {
            // Looked up anew: a disk that is deleted meanwhile is not kept.
            let Some(disk) = self.disk(disk).filter(|disk| disk.check_usable().is_ok()) else { return };
            let base = disk.layers().base.clone();
            if base.version != version {
                return;
            }
            let outcome = match bring_group(&disk, &base, group).await {
                Ok(true) => continue,
                Ok(false) => "no_room",
                Err(fault) => {
                    tracing::debug!(disk.id = %disk.id(), error = %fault, "a prefetch ends early");
                    "failed"
                }
            };
            counter!(telemetry::PREFETCHES_BROKEN_OFF, "why" => outcome).increment(1);
            return;
        }
    }
}

/// Brings what this node lacks of some chunks. Returns false when there is no room for more.
async fn bring_group(disk: &Disk, base: &Base, chunks: &[u32]) -> Result<bool, Fault> {
    let objects = lacking(disk, base, chunks).await?;
    let fetches: Vec<BTreeMap<ObjectName, Kind>> =
        objects.chunks(together(base)).map(|some| some.iter().copied().collect()).collect();
    let mut fetched =
        stream::iter(fetches).map(|some| async move { bring(disk, base, &some).await }).buffered(UNDER_WAY);
    while let Some(done) = fetched.next().await {
        if !done? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Most objects of one fetch.
fn together(base: &Base) -> usize {
    usize_from((TOGETHER_BYTES / base.descriptor.chunk.bytes()).max(1))
}

/// The objects of these chunks that this node does not have, in the order of the chunks.
async fn lacking(disk: &Disk, base: &Base, chunks: &[u32]) -> Result<Vec<(ObjectName, Kind)>, Fault> {
    let mut objects: Vec<(ObjectName, Kind)> = Vec::new();
    let (salt, chunk_size) = (base.descriptor.salt, base.descriptor.chunk);
    for chunk in chunks.iter().map(|chunk| u64::from(*chunk)).filter(|chunk| *chunk < base.descriptor.chunks()) {
        match leaf(disk, base, chunk).await? {
            None => {}
            Some(Leaf::Whole(name)) => objects.push((name, Kind::Chunk)),
            // It was put together here before.
            Some(Leaf::Patched(patched)) if disk.node().cache.has(&patched.key(salt, chunk_size)) => {}
            Some(Leaf::Patched(patched)) => objects.extend(patched.objects().map(|(name, kind)| (*name, kind))),
        }
    }
    let node = disk.node().clone();
    let looked = tokio::task::spawn_blocking(move || {
        objects.retain(|(name, _)| node.cache.lacks(name));
        objects
    });
    looked.await.map_err(|error| Fault::Io(error.to_string()))
}

/// Where a chunk is in the tree. Pages that this node does not have are fetched.
async fn leaf(disk: &Disk, base: &Base, chunk: u64) -> Result<Option<Leaf>, Fault> {
    let mut pinned = Pinned::default();
    loop {
        match base.leaves(&disk.node().pages, &pinned, chunk..chunk + 1) {
            Ok(leaves) => return Ok(leaves.into_iter().next().and_then(|(_, leaf)| leaf)),
            Err(NoLeaves::Fault(fault)) => return Err(fault),
            Err(NoLeaves::Missing(pages)) => {
                let missing = super::read::Missing { pages, ..Default::default() };
                disk.bring(missing, &mut pinned, Instant::now() + FETCH).await?;
            }
        }
    }
}

/// Fetches some objects when no guest fetches anything. Returns false when there is no room for more.
async fn bring(disk: &Disk, base: &Base, objects: &BTreeMap<ObjectName, Kind>) -> Result<bool, Fault> {
    let (node, descriptor) = (disk.node(), &base.descriptor);
    let _under_way = node.turns.under_way.acquire().await.expect("nobody closes it");
    {
        let _next = node.turns.next.lock().await;
        let end = Instant::now() + GIVE_WAY;
        while node.cache.has_demand() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }
    // The others that are under way have no place yet.
    if !node.cache.has_idle_room(descriptor.chunk, u64_from(UNDER_WAY * together(base))) {
        return Ok(false);
    }
    let deadline = Instant::now() + FETCH;
    let got = node.cache.get_or_fetch(objects, descriptor.salt, descriptor.chunk, deadline, Why::Prefetch).await?;
    let bytes: u64 = got.values().map(|fetched| fetched.network_bytes).sum();
    disk.count_fetched(bytes);
    counter!(telemetry::PREFETCHED_BYTES).increment(bytes);
    counter!(telemetry::PREFETCHED_OBJECTS).increment(u64_from(got.values().filter(|f| f.network_bytes > 0).count()));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_come_in_order_and_their_number_is_bounded() {
        let starts = Starts::default();
        let start =
            || Start { instance: InstanceId::generate(), disk: DiskId::generate(), version: VersionId::generate() };
        let all: Vec<Start> = (0..STARTS_MAX + 3).map(|_| start()).collect();
        all.iter().for_each(|start| starts.push(*start));
        for expected in &all[3..] {
            assert_eq!(starts.next().await, *expected);
        }
        let (next, ()) = tokio::join!(starts.next(), async { starts.push(all[0]) });
        assert_eq!(next, all[0]);
    }
}
