//! A commit makes a version from what a disk's guest has changed. It reads the frozen epochs, puts the changed blocks into
//! the pool, as packs or as whole chunks ([`batch`](super::batch)), and adds new pages to the tree (I3, I4, I5).
//!
//! A block is dirty if any epoch has it that is newer than the published version, up to the epoch the commit froze. So an
//! abandoned commit needs no undo: the next one finds its blocks again. When nothing has changed, the version keeps its
//! descriptor and nothing is stored. A disk that is larger than its version gets a descriptor of its own size at its first
//! commit, whether it was written or not.
//!
//! ```text
//! dirty chunks --windows--> plans --batches--> read, hash, encode (2 at once, blocking threads) --> put (3 at once)
//!                                                                           --> tree --> put pages, descriptor
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use muster_api::{CommitId, VersionId, node_protocol::VersionRoot};
use storage_core::{
    BLOCK_BYTES, ByteLen, ChunkIndex, ObjectName, Record, hex_text,
    tree::{self, Leaf, Lookup, Page},
    units::u64_from,
};
use tokio::time::Instant;

use super::{
    batch::batches,
    bits::BlockBits,
    disk::{Disk, Layers},
    error::{DiskError, Fault},
    read::{Missing, Pinned},
};
use crate::pace::give_way;

/// Most chunks that are planned at a time. This bounds the pages that are held for it.
const WINDOW_CHUNKS: usize = 1024;
/// Most batches that are read and hashed at a time.
const BUILDING: usize = 2;
/// Most batches on their way to the pool at a time: while the pool syncs one, others travel. Together with [`BUILDING`]
/// this bounds memory to about 20 MiB, if chunks have the default size.
const PUTTING: usize = 3;
/// Longest time to wait for writes that the frozen epoch has admitted, and for chunks of the base.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How fast a commit stores its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// As fast as the pool takes them.
    Full,
    /// At the pace of the background, one batch at a time, giving way to reads.
    Background,
}

/// How the objects of a commit are stored.
#[derive(Clone, Copy)]
struct Storing {
    /// The round of the upload.
    round: u64,
    speed: Speed,
}

impl Storing {
    /// Batches on their way to the pool at a time.
    const fn at_a_time(self) -> usize {
        match self.speed {
            Speed::Full => PUTTING,
            Speed::Background => 1,
        }
    }
}

/// The result of a commit. All its objects are durable on the required number of nodes.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The version it builds on.
    pub base: VersionId,
    /// Descriptor and root page of the new version.
    pub root: VersionRoot,
    /// Bytes of the blocks that were written since the base.
    pub dirty_bytes: u64,
    /// Bytes of the objects that it stored and the base lacks, counted for one copy. Whether the pool had some of them does
    /// not change the number: others have put them there (I12).
    pub stored_bytes: u64,
}

impl Disk {
    /// Uploads what `commit` froze. May be repeated: objects that the pool already has are only touched.
    pub(super) async fn save(self: &Arc<Self>, commit: CommitId, round: u64, speed: Speed) -> Result<Saved, DiskError> {
        let view = Arc::new(self.frozen(commit).await?);
        let deadline = Instant::now() + PATIENCE;
        for epoch in &view.epochs {
            if tokio::time::timeout_at(deadline, epoch.drained()).await.is_err() {
                return Err(DiskError::Busy {
                    disk: self.id(),
                    what: "writes from before the cut are still running".to_owned(),
                });
            }
        }
        // Once this returns, the version may be published, and after a power cut the disk must not read as something
        // older than it. Only the epochs of the version are flushed, so that a disk that has failed since then can still
        // be saved.
        let (disk, frozen) = (self.clone(), view.clone());
        let flushed = tokio::task::spawn_blocking(move || disk.flush_epochs(&frozen.epochs));
        let durable = async {
            let flushed = flushed.await.unwrap_or_else(|e| Err(Fault::Io(e.to_string())));
            flushed.map_err(|fault| self.fault(fault))
        };
        let (saved, ()) = tokio::try_join!(self.upload(view, commit, Storing { round, speed }), durable)?;
        Ok(saved)
    }

    /// Uploads all that the disk holds and its base lacks, as `commit`. `None` if there is nothing. Nothing is frozen, so
    /// nobody may write to the disk meanwhile. A disk that has failed is refused: which of its bytes count is in doubt.
    pub(super) async fn salvage(self: &Arc<Self>, commit: CommitId, round: u64) -> Result<Option<Saved>, DiskError> {
        if let Some(what) = self.failed() {
            return Err(DiskError::Failed { disk: self.id(), what });
        }
        let _changing = self.changing.lock().await;
        let saved = self.upload(self.layers(), commit, Storing { round, speed: Speed::Full }).await?;
        let is_news = saved.root.descriptor != self.layers().base.root.descriptor;
        Ok(is_news.then_some(saved))
    }

    /// Builds the new chunks and pages, and puts them into the pool.
    async fn upload(
        self: &Arc<Self>,
        view: Arc<Layers>,
        commit: CommitId,
        storing: Storing,
    ) -> Result<Saved, DiskError> {
        let bits: Vec<&BlockBits> = view.epochs.iter().map(|epoch| &epoch.bits).collect();
        let dirty_bytes = BlockBits::union_count(&bits) * BLOCK_BYTES;
        let base = view.base.version;
        let (changes, mut stored_bytes) = match dirty_bytes {
            0 => (BTreeMap::new(), 0),
            _ => self.upload_chunks(&view, dirty_chunks(&view), storing).await?,
        };
        let committed = self.grow_tree(&view, &changes).await?;
        if committed.descriptor == view.base.descriptor {
            // Nothing was written, or the same bytes that were there before.
            stored_bytes = 0;
        } else {
            stored_bytes += self.put(storing, committed.records()).await?;
        }
        self.keep_pages(&committed)?;
        let root = VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex_text::encode),
            commit: Some(commit),
        };
        Ok(Saved { base, root, dirty_bytes, stored_bytes })
    }

    /// Builds the dirty chunks in batches and puts them into the pool, several batches at a time. Returns the new entry of
    /// each changed chunk (`None` for zeros) and the number of bytes stored.
    async fn upload_chunks(
        self: &Arc<Self>,
        view: &Arc<Layers>,
        dirty: Vec<u64>,
        storing: Storing,
    ) -> Result<(BTreeMap<ChunkIndex, Option<Leaf>>, u64), DiskError> {
        let chunk_bytes = view.base.descriptor.chunk.bytes();
        let windows: Vec<Vec<u64>> = dirty.chunks(WINDOW_CHUNKS).map(<[u64]>::to_vec).collect();
        let planned = stream::iter(windows).then(|window| self.clone().plan(view.clone(), window));
        let planned = planned.map_ok(|plans| stream::iter(batches(plans, chunk_bytes)).map(Ok)).try_flatten();
        let built = planned.map_ok(|plans| self.clone().build(view.clone(), plans)).try_buffered(BUILDING);
        let put = built
            .map_err(|fault| self.fault(fault))
            .map_ok(|batch| async move {
                let stored = self.put(storing, batch.records).await?;
                Ok((batch.changes, stored))
            })
            .try_buffer_unordered(storing.at_a_time());
        put.try_fold((BTreeMap::new(), 0), async |(mut all, sum), (changes, stored)| {
            all.extend(changes);
            Ok((all, sum + stored))
        })
        .await
    }

    /// Keeps the new pages in memory: the tree will be this disk's base when the commit is published.
    fn keep_pages(&self, committed: &tree::Committed) -> Result<(), DiskError> {
        for (name, bytes) in &committed.pages {
            let page = Page::decode(bytes)
                .map_err(|e| DiskError::Corrupt { disk: self.id(), what: format!("new page {name}: {e}") })?;
            self.node().pages.insert(*name, Arc::new(page));
        }
        Ok(())
    }

    async fn put(&self, storing: Storing, records: Vec<Record>) -> Result<u64, DiskError> {
        if records.is_empty() {
            return Ok(0);
        }
        let stored_bytes = records.iter().map(|record| u64_from(record.stored().len())).sum();
        let node = self.node();
        if storing.speed == Speed::Background {
            give_way(&node.pool).await;
        }
        let done = node.pool.put(storing.round, records).await;
        let done = done.map_err(|source| DiskError::Pool { disk: self.id(), source })?;
        if storing.speed == Speed::Background {
            // What the pool had already takes no time, so that a commit gets further than the one that was given up before.
            node.background.take(done.stored_bytes).await;
        }
        Ok(stored_bytes)
    }

    /// The layers as the commit froze them.
    async fn frozen(&self, commit: CommitId) -> Result<Layers, DiskError> {
        // Folding and merging replace the record and the layers one after the other; here they must match.
        let _changing = self.changing.lock().await;
        let meta = self.meta.load();
        let layers = self.layers();
        let frozen = meta.epochs.iter().find(|epoch| epoch.commit == Some(commit));
        let newest = frozen.ok_or(DiskError::NoCommit { disk: self.id(), commit })?.number;
        let epochs = layers.epochs.iter().filter(|epoch| epoch.number <= newest).cloned().collect();
        Ok(Layers { base: layers.base.clone(), epochs })
    }

    /// The tree of the new version, with `changes` applied to the base. Fetches pages as needed.
    async fn grow_tree(
        &self,
        view: &Layers,
        changes: &BTreeMap<ChunkIndex, Option<Leaf>>,
    ) -> Result<tree::Committed, DiskError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pinned = Pinned::default();
        // A version is as large as its disk was at the cut, also when no chunk has changed since a smaller version.
        let size = ByteLen(view.size_bytes());
        loop {
            let committed = {
                let find = |name: &ObjectName| view.base.page(&self.node().pages, &pinned, name);
                tree::commit(&view.base.descriptor, size, changes, &find)
            };
            match committed {
                Ok(Lookup::Found(committed)) => return Ok(committed),
                Ok(Lookup::Missing(pages)) => {
                    let missing = Missing { pages, ..Missing::default() };
                    self.bring(missing, &mut pinned, deadline).await.map_err(|fault| self.fault(fault))?;
                }
                Err(e) => return Err(DiskError::Corrupt { disk: self.id(), what: e.to_string() }),
            }
        }
    }
}

/// The chunks in which any epoch has a block, in ascending order.
fn dirty_chunks(view: &Layers) -> Vec<u64> {
    let mut chunks = BTreeSet::new();
    for epoch in &view.epochs {
        epoch.bits.owned_groups(u64::from(view.base.descriptor.chunk.blocks()), &mut chunks);
    }
    chunks.into_iter().collect()
}
