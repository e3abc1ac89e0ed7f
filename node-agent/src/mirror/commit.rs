//! Commit: what a disk's guest changed becomes a version. The frozen epochs are read, merged with verified base bytes
//! where a chunk was not wholly written, hashed, put into the pool, and the tree gets new paths (I3, I4, I5).
//!
//! Dirty = in any epoch newer than the published version, up to the one the commit froze. So a commit that was given up
//! needs no undo: the next one finds its blocks here. Nothing changed = the same descriptor, and nothing is stored.
//!
//! ```text
//! chunks --batches--> merge, hash, encode (2 at once, blocking threads) --> put (3 at once) --> tree --> put pages, descriptor
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use muster_api::{CommitId, VersionId, node_protocol::VersionRoot};
use storage_core::{
    BLOCK_BYTES, ByteLen, ChunkIndex, Compression, Kind, ObjectName, Record,
    tree::{self, Leaf, Lookup, Page},
    zero::{is_zero, trim_zeros},
};
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    bits::BlockBits,
    disk::{Disk, Layers},
    error::{DiskError, Fault},
    read::{BLOCK, Missing, Pinned, Source, to_usize},
};

/// Bytes of chunks hashed and sent as one batch.
const BATCH_BYTES: u64 = 4 << 20;
/// Batches being merged and hashed.
const BUILDING: usize = 2;
/// Batches on their way to the pool: while one is synced there, others travel. Bounds memory to some 20 MiB.
const PUTTING: usize = 3;
/// Longest wait for writes that the frozen epoch had admitted, and for base chunks.
const PATIENCE: Duration = Duration::from_secs(60);

/// A commit whose objects are durable on the required copies.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The version it builds on.
    pub base: VersionId,
    /// Descriptor and root page of the new version.
    pub root: VersionRoot,
    /// Written since the base.
    pub dirty_bytes: u64,
    /// Newly stored, one copy.
    pub stored_bytes: u64,
}

/// Chunks with their new names; none: zeros. Unchanged ones are left out.
struct Batch {
    changes: Vec<(ChunkIndex, Option<ObjectName>)>,
    records: Vec<Record>,
}

/// The base body of a chunk that was not wholly written, hashed in this pass (I4).
struct BaseBody {
    name: Option<ObjectName>,
    body: Bytes,
}

impl Disk {
    /// Uploads what `commit` froze. Repeatable; what is in the pool already is only touched.
    pub(super) async fn save(self: &Arc<Self>, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let view = Arc::new(self.frozen(commit).await?);
        for epoch in &view.epochs {
            if tokio::time::timeout(PATIENCE, epoch.drained()).await.is_err() {
                return Err(DiskError::Busy { disk: self.id(), what: "writes from before the cut".to_owned() });
            }
        }
        // A version may be published from here on: after a power loss the disk must not read as something older until
        // the version is its base. Only what the version is made of: a disk that failed since can still be saved.
        let (disk, frozen) = (self.clone(), view.clone());
        let flushed = tokio::task::spawn_blocking(move || disk.flush_epochs(&frozen.epochs));
        let durable = async {
            let flushed = flushed.await.unwrap_or_else(|e| Err(Fault::Io(e.to_string())));
            flushed.map_err(|fault| self.fault(fault))
        };
        let (saved, ()) = tokio::try_join!(self.upload(view, commit, round), durable)?;
        Ok(saved)
    }

    async fn upload(self: &Arc<Self>, view: Arc<Layers>, commit: CommitId, round: u64) -> Result<Saved, DiskError> {
        let bits: Vec<&BlockBits> = view.epochs.iter().map(|epoch| &epoch.bits).collect();
        let dirty_bytes = BlockBits::union_count(&bits) * BLOCK_BYTES;
        let base = view.base.version;
        if dirty_bytes == 0 {
            let root = VersionRoot { commit: Some(commit), ..view.base.root.clone() };
            return Ok(Saved { base, root, dirty_bytes, stored_bytes: 0 });
        }
        let descriptor = view.base.descriptor;
        let mut chunks = BTreeSet::new();
        for bits in bits {
            bits.owned_groups(u64::from(descriptor.chunk.blocks()), &mut chunks);
        }
        let chunks: Vec<u64> = chunks.into_iter().collect();
        let batches: Vec<Vec<u64>> =
            chunks.chunks(to_usize((BATCH_BYTES / descriptor.chunk.bytes()).max(1))).map(<[u64]>::to_vec).collect();
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
        let (changes, mut stored_bytes) = put
            .try_fold((BTreeMap::new(), 0), async |(mut all, sum), (changes, stored)| {
                all.extend(changes);
                Ok((all, sum + stored))
            })
            .await?;
        let committed = self.grow_tree(&view, &changes).await?;
        if committed.descriptor == descriptor {
            // Written, but with the bytes that were there.
            let root = VersionRoot { commit: Some(commit), ..view.base.root.clone() };
            return Ok(Saved { base, root, dirty_bytes, stored_bytes });
        }
        stored_bytes += self.put(round, committed.records()).await?;
        for (name, bytes) in &committed.pages {
            // Folding moves the base to this tree: its pages should be here by then.
            if let Ok(page) = Page::decode(bytes) {
                self.node().pages.insert(*name, Arc::new(page));
            }
        }
        let root = VersionRoot {
            descriptor: hex::encode(committed.descriptor.encode()),
            root_page: committed.root_page.as_deref().map(hex::encode),
            commit: Some(commit),
        };
        Ok(Saved { base, root, dirty_bytes, stored_bytes })
    }

    async fn put(&self, round: u64, records: Vec<Record>) -> Result<u64, DiskError> {
        if records.is_empty() {
            return Ok(0);
        }
        let done = self.node().pool.put(round, records).await;
        done.map(|done| done.stored_bytes).map_err(|source| DiskError::Pool { disk: self.id(), source })
    }

    /// The layers as the commit froze them.
    async fn frozen(&self, commit: CommitId) -> Result<Layers, DiskError> {
        // Folding and merging replace record and layers one after the other; here they must fit together.
        let _changing = self.changing.lock().await;
        let meta = self.meta.load();
        let layers = self.layers();
        let at = meta.position(commit).ok_or(DiskError::NoCommit { disk: self.id(), commit })?;
        let newest = meta.epochs.get(at).map_or(0, |epoch| epoch.number);
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

    /// Bodies of the base for chunks of which some blocks are the base's; for the others only the name.
    async fn base_bodies(&self, view: &Layers, chunks: &[u64]) -> Result<HashMap<u64, BaseBody>, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let descriptor = &view.base.descriptor;
        let mut pinned = Pinned::default();
        let mut bodies = HashMap::new();
        let mut wanted: Vec<(u64, ObjectName)> = Vec::new();
        for &chunk in chunks {
            let leaf = loop {
                match view.base.leaves(&self.node().pages, &pinned, chunk..chunk + 1) {
                    Ok(leaves) => break leaves.into_iter().next().and_then(|(_, leaf)| leaf),
                    Err(NoLeaves::Fault(fault)) => return Err(fault),
                    Err(NoLeaves::Missing(pages)) => {
                        self.bring(Missing { pages, ..Missing::default() }, &mut pinned, deadline).await?;
                    }
                }
            };
            let (first, end) = self.blocks_of(view, chunk);
            let whole = wholly_written(view, first, end);
            match leaf {
                None => {}
                Some(Leaf::Whole(name)) if whole => {
                    bodies.insert(chunk, BaseBody { name: Some(name), body: Bytes::new() });
                }
                Some(Leaf::Whole(name)) => wanted.push((chunk, name)),
                Some(leaf) if !whole => {
                    let body = self.put_together(&leaf, deadline).await?;
                    bodies.insert(chunk, BaseBody { name: None, body });
                }
                Some(_) => {}
            }
        }
        let cache = self.node().cache.clone();
        let names: Vec<ObjectName> = wanted.iter().map(|(_, name)| *name).collect();
        // What the cache has is hashed again, now: nothing gets a new name that was not proven in this pass.
        let here = tokio::task::spawn_blocking(move || {
            let proven = |name: ObjectName| Some((name, Bytes::from(cache.get_proven(&name)?)));
            names.into_iter().filter_map(proven).collect::<HashMap<_, _>>()
        });
        let mut here = here.await.map_err(|e| Fault::Io(e.to_string()))?;
        let absent: Vec<ObjectName> =
            wanted.iter().map(|(_, name)| *name).filter(|name| !here.contains_key(name)).collect();
        for (name, body) in self.fetch_objects(&absent, Kind::Chunk, deadline).await? {
            here.insert(name, body);
        }
        for (chunk, name) in wanted {
            let body = here.get(&name).cloned().ok_or_else(|| Fault::Unavailable(format!("chunk {name}")))?;
            if body.len() > to_usize(descriptor.chunk.bytes()) {
                return Err(Fault::Corrupt(format!("chunk {name} is longer than its tree's chunks")));
            }
            bodies.insert(chunk, BaseBody { name: Some(name), body });
        }
        Ok(bodies)
    }

    fn blocks_of(&self, view: &Layers, chunk: u64) -> (u64, u64) {
        let per_chunk = u64::from(view.base.descriptor.chunk.blocks());
        let end = ((chunk + 1) * per_chunk).min(self.size_bytes() / BLOCK_BYTES);
        (chunk * per_chunk, end)
    }

    fn build_chunk(&self, view: &Layers, chunk: u64, base: Option<&BaseBody>, batch: &mut Batch) -> Result<(), Fault> {
        let descriptor = &view.base.descriptor;
        let (first, end) = self.blocks_of(view, chunk);
        let mut aligned = super::memory::AlignedBuf::default();
        let body = aligned.slice(to_usize((end - first) * BLOCK_BYTES));
        let mut at = first;
        while at < end {
            let (source, run) = view.source(at, end);
            let from = to_usize(at - first) * BLOCK;
            let part = body.get_mut(from..from + to_usize(run) * BLOCK).expect("runs stay inside of the chunk");
            match source {
                Source::Delta(n) => {
                    let epoch = view.epochs.get(n).expect("a source names one of the layers");
                    epoch.read_blocks(at, part).map_err(|e| Fault::from_io("delta", &e))?;
                }
                Source::Zero => part.fill(0),
                Source::Base => {
                    let have = base.map_or(&[][..], |base| &base.body).get(from..).unwrap_or_default();
                    let n = have.len().min(part.len());
                    let (copied, zeros) = part.split_at_mut(n);
                    copied.copy_from_slice(have.get(..n).unwrap_or_default());
                    zeros.fill(0);
                }
            }
            at += run;
        }
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
        // After folding, reads of these blocks come from the cache, not from other nodes.
        self.node().cache.insert(name, descriptor.salt, descriptor.chunk, &body);
        batch.changes.push((index, Some(name)));
        batch.records.push(record);
        Ok(())
    }

    async fn grow_tree(
        &self,
        view: &Layers,
        changes: &BTreeMap<ChunkIndex, Option<ObjectName>>,
    ) -> Result<tree::Committed, DiskError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pinned = Pinned::default();
        let size = ByteLen(self.size_bytes());
        // Written, but only with what was there: not even the size needs a new descriptor then.
        let size = if changes.is_empty() { view.base.descriptor.size_bytes } else { size };
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
