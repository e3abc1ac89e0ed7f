//! A commit makes a version from what a disk's guest has changed. It reads the frozen epochs, merges them with verified
//! bytes of the base where a chunk was only partly written, hashes the chunks, puts them into the pool, and adds new pages
//! to the tree (I3, I4, I5).
//!
//! A block is dirty if any epoch has it that is newer than the published version, up to the epoch the commit froze. So an
//! abandoned commit needs no undo: the next one finds its blocks again. When nothing has changed, the version keeps its
//! descriptor and nothing is stored. A disk that is larger than its version gets a descriptor of its own size at its first
//! commit, whether it was written or not.
//!
//! ```text
//! chunks --batches--> merge, hash, encode (2 at once, blocking threads) --> put (3 at once) --> tree --> put pages, descriptor
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use muster_api::{CommitId, VersionId, node_protocol::VersionRoot};
use storage_core::{
    BLOCK_BYTES, ByteLen, ChunkIndex, Compression, Kind, ObjectName, Record,
    tree::{self, Leaf, Lookup, Page},
    units::{u64_from, usize_from},
    zero::{is_zero, trim_zeros},
};
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    bits::BlockBits,
    cache::copy_padded,
    disk::{Disk, Layers},
    error::{DiskError, Fault},
    read::{BLOCK, Missing, Pinned, Source},
};

/// Bytes of the chunks that are hashed and sent as one batch.
const BATCH_BYTES: u64 = 4 << 20;
/// Most batches that are merged and hashed at a time.
const BUILDING: usize = 2;
/// Most batches on their way to the pool at a time: while the pool syncs one, others travel. Together with [`BUILDING`]
/// this bounds memory to about 20 MiB.
const PUTTING: usize = 3;
/// Longest time to wait for writes that the frozen epoch has admitted, and for chunks of the base.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// The changed chunks of one batch.
struct Batch {
    /// New name of each changed chunk; `None` for zeros.
    changes: Vec<(ChunkIndex, Option<ObjectName>)>,
    records: Vec<Record>,
}

/// What the base has for a chunk.
struct BaseBody {
    /// `None` when the chunk is patched.
    name: Option<ObjectName>,
    /// Hashed for this commit (I4). Empty when the whole chunk was written, so that it is not needed.
    body: Bytes,
}

impl Disk {
    /// Uploads what `commit` froze. May be repeated: objects that the pool already has are only touched.
    pub(super) async fn save(self: &Arc<Self>, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
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
        let (saved, ()) = tokio::try_join!(self.upload(view, commit, round), durable)?;
        Ok(saved)
    }

    /// Uploads all that the disk holds and its base lacks, as `commit`. `None` if there is nothing. Nothing is frozen, so
    /// nobody may write to the disk meanwhile. A disk that has failed is refused: which of its bytes count is in doubt.
    pub(super) async fn salvage(self: &Arc<Self>, commit: CommitId, round: u64) -> Result<Option<Saved>, DiskError> {
        if let Some(what) = self.failed() {
            return Err(DiskError::Failed { disk: self.id(), what });
        }
        let _changing = self.changing.lock().await;
        let saved = self.upload(self.layers(), commit, round).await?;
        let is_news = saved.root.descriptor != self.layers().base.root.descriptor;
        Ok(is_news.then_some(saved))
    }

    /// Builds the new chunks and pages, and puts them into the pool.
    async fn upload(self: &Arc<Self>, view: Arc<Layers>, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let bits: Vec<&BlockBits> = view.epochs.iter().map(|epoch| &epoch.bits).collect();
        let dirty_bytes = BlockBits::union_count(&bits) * BLOCK_BYTES;
        let base = view.base.version;
        let unchanged = VersionRoot { commit: Some(commit), ..view.base.root.clone() };
        if dirty_bytes == 0 && view.base.size_bytes() == ByteLen(view.size_bytes()) {
            return Ok(Saved { base, root: unchanged, dirty_bytes, stored_bytes: 0 });
        }
        let (changes, mut stored_bytes) = self.upload_chunks(&view, dirty_chunks(&view), round).await?;
        let committed = self.grow_tree(&view, &changes).await?;
        if committed.descriptor == view.base.descriptor {
            // The guest wrote the same bytes that were there before.
            return Ok(Saved { base, root: unchanged, dirty_bytes, stored_bytes: 0 });
        }
        stored_bytes += self.put(round, committed.records()).await?;
        self.keep_pages(&committed)?;
        let root = VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex::encode),
            commit: Some(commit),
        };
        Ok(Saved { base, root, dirty_bytes, stored_bytes })
    }

    /// Builds the dirty chunks in batches and puts them into the pool, several batches at a time. Returns the new name of
    /// each changed chunk (`None` for zeros) and the number of bytes stored.
    async fn upload_chunks(
        self: &Arc<Self>,
        view: &Arc<Layers>,
        dirty: Vec<u64>,
        round: u64,
    ) -> Result<(BTreeMap<ChunkIndex, Option<ObjectName>>, u64), DiskError> {
        let batch_chunks = usize_from((BATCH_BYTES / view.base.descriptor.chunk.bytes()).max(1));
        let batches: Vec<Vec<u64>> = dirty.chunks(batch_chunks).map(<[u64]>::to_vec).collect();
        let built = stream::iter(batches)
            .map(|batch| {
                let (disk, view) = (self.clone(), view.clone());
                async move { disk.build(view, batch).await }
            })
            .buffered(BUILDING);
        let put = built
            .map_ok(|batch| async move {
                let stored = self.put(round, batch.records).await?;
                Ok((batch.changes, stored))
            })
            .try_buffer_unordered(PUTTING);
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

    async fn put(&self, round: u64, records: Vec<Record>) -> Result<u64, DiskError> {
        if records.is_empty() {
            return Ok(0);
        }
        let stored_bytes = records.iter().map(|record| u64_from(record.stored().len())).sum();
        let done = self.node().pool.put(round, records).await;
        done.map(|_| stored_bytes).map_err(|source| DiskError::Pool { disk: self.id(), source })
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

    async fn build(self: Arc<Self>, view: Arc<Layers>, chunks: Vec<u64>) -> Result<Batch, DiskError> {
        let bases = self.base_bodies(&view, &chunks).await.map_err(|fault| self.fault(fault))?;
        let disk = self.clone();
        let built = tokio::task::spawn_blocking(move || {
            let mut batch = Batch { changes: Vec::new(), records: Vec::new() };
            for chunk in chunks {
                disk.build_chunk(&view, chunk, bases.get(&chunk), &mut batch)?;
            }
            Ok(batch)
        })
        .await;
        built.unwrap_or_else(|e| Err(Fault::Io(e.to_string()))).map_err(|fault| self.fault(fault))
    }

    /// What the base has for each chunk: the body if some blocks of the chunk still come from the base, else only the name.
    async fn base_bodies(&self, view: &Layers, chunks: &[u64]) -> Result<HashMap<u64, BaseBody>, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let mut pinned = Pinned::default();
        let mut bodies = HashMap::new();
        let mut wanted: Vec<(u64, ObjectName)> = Vec::new();
        for &chunk in chunks {
            let leaf = self.base_leaf(view, chunk, &mut pinned, deadline).await?;
            let (first, end) = Self::blocks_of(view, chunk);
            let whole = wholly_written(view, first, end);
            match leaf {
                None => {}
                Some(Leaf::Whole(name)) if whole => {
                    bodies.insert(chunk, BaseBody { name: Some(name), body: Bytes::new() });
                }
                Some(Leaf::Whole(name)) => wanted.push((chunk, name)),
                Some(leaf) if !whole => {
                    let body = self.assemble(&leaf, deadline).await?;
                    bodies.insert(chunk, BaseBody { name: None, body });
                }
                Some(_) => {}
            }
        }
        let proven = self.proven_bodies(wanted.iter().map(|(_, name)| *name).collect(), deadline).await?;
        for (chunk, name) in wanted {
            let body = proven.get(&name).cloned().ok_or_else(|| Fault::Unavailable(format!("chunk {name}")))?;
            if body.len() > view.base.descriptor.chunk.as_usize() {
                return Err(Fault::Corrupt(format!("chunk {name} is longer than the chunks of its tree")));
            }
            bodies.insert(chunk, BaseBody { name: Some(name), body });
        }
        Ok(bodies)
    }

    /// The base's leaf of a chunk; `None` for zeros. Fetches pages as needed.
    async fn base_leaf(
        &self,
        view: &Layers,
        chunk: u64,
        pinned: &mut Pinned,
        deadline: Instant,
    ) -> Result<Option<Leaf>, Fault> {
        loop {
            match view.base.leaves(&self.node().pages, pinned, chunk..chunk + 1) {
                // There is no leaf at all for a chunk beyond the end of the version.
                Ok(leaves) => return Ok(leaves.into_iter().next().and_then(|(_, leaf)| leaf)),
                Err(NoLeaves::Fault(fault)) => return Err(fault),
                Err(NoLeaves::Missing(pages)) => {
                    self.bring(Missing { pages, ..Missing::default() }, pinned, deadline).await?;
                }
            }
        }
    }

    /// The bodies of chunks, from the cache or the pool. Those from the cache are hashed again: bytes only get a new name
    /// if they were verified for this commit.
    async fn proven_bodies(
        &self,
        names: Vec<ObjectName>,
        deadline: Instant,
    ) -> Result<HashMap<ObjectName, Bytes>, Fault> {
        let (cache, wanted) = (self.node().cache.clone(), names.clone());
        let cached = tokio::task::spawn_blocking(move || {
            let proven = |name: ObjectName| Some((name, cache.get_proven(&name)?));
            wanted.into_iter().filter_map(proven).collect::<HashMap<_, _>>()
        });
        let mut bodies = cached.await.map_err(|e| Fault::Io(e.to_string()))?;
        let absent: Vec<ObjectName> = names.into_iter().filter(|name| !bodies.contains_key(name)).collect();
        bodies.extend(self.fetch_objects(&absent, Kind::Chunk, deadline).await?);
        Ok(bodies)
    }

    /// First block of a chunk, and the end of its blocks.
    fn blocks_of(view: &Layers, chunk: u64) -> (u64, u64) {
        let per_chunk = u64::from(view.base.descriptor.chunk.blocks());
        let end = ((chunk + 1) * per_chunk).min(view.size_bytes() / BLOCK_BYTES);
        (chunk * per_chunk, end)
    }

    /// Adds a chunk to the batch, unless its bytes are those of the base.
    fn build_chunk(&self, view: &Layers, chunk: u64, base: Option<&BaseBody>, batch: &mut Batch) -> Result<(), Fault> {
        let descriptor = &view.base.descriptor;
        let (first, end) = Self::blocks_of(view, chunk);
        let mut aligned = super::memory::AlignedBuf::default();
        let body = aligned.slice(usize_from((end - first) * BLOCK_BYTES));
        merge_blocks(view, first..end, base, body)?;
        let index = ChunkIndex(chunk);
        if is_zero(body) {
            batch.changes.push((index, None));
            return Ok(());
        }
        let body = Bytes::copy_from_slice(trim_zeros(body));
        let record =
            Record::encode_bytes(Kind::Chunk, descriptor.salt, Some(descriptor.chunk), &body, Compression::Auto);
        let name = record.name();
        if base.is_some_and(|base| base.name == Some(name)) {
            return Ok(());
        }
        // After folding, these blocks are read from the cache, not from other nodes.
        self.node().cache.insert(name, descriptor.salt, descriptor.chunk, &body);
        batch.changes.push((index, Some(name)));
        batch.records.push(record);
        Ok(())
    }

    /// The tree of the new version, with `changes` applied to the base. Fetches pages as needed.
    async fn grow_tree(
        &self,
        view: &Layers,
        changes: &BTreeMap<ChunkIndex, Option<ObjectName>>,
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

/// Reads blocks of one chunk as the layers have them. `into` is as long as the blocks, and block aligned.
fn merge_blocks(view: &Layers, blocks: Range<u64>, base: Option<&BaseBody>, into: &mut [u8]) -> Result<(), Fault> {
    let mut at = blocks.start;
    while at < blocks.end {
        let (source, run) = view.source(at, blocks.end);
        let from = usize_from(at - blocks.start) * BLOCK;
        let part = &mut into[from..][..usize_from(run) * BLOCK];
        match source {
            Source::Delta(n) => view.epochs[n].read_blocks(at, part).map_err(|e| Fault::from_io("delta", &e))?,
            Source::Zero => part.fill(0),
            Source::Base => copy_padded(base.map_or(&[][..], |base| &base.body), from, part),
        }
        at += run;
    }
    Ok(())
}

/// Whether the epochs have all blocks from `first` to `end`.
fn wholly_written(view: &Layers, first: u64, end: u64) -> bool {
    let mut at = first;
    while at < end {
        let (source, run) = view.source(at, end);
        if source == Source::Base {
            return false;
        }
        at += run;
    }
    true
}
