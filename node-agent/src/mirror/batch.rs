//! What a commit stores of the chunks that were written, in batches.
//!
//! A chunk of which some blocks were written is *patched*: its new entry takes these blocks from a pack and leaves the others
//! where they are, so its base is not needed. Packs are filled with the blocks of one chunk after the other. A chunk that
//! would have too many packs leaves one ([`Patch`]): the blocks that it has there move to the new pack. A chunk of which too
//! much would be patched is written *whole*; then the rest of it is brought. Either way the bytes that move or are merged are
//! hashed in the same pass (I4).
//!
//! ```text
//! dirty chunks --entries of the base--> plans --by the bytes that they hold--> batches --blocks, packs--> entries and records
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use storage_core::{
    BLOCK_BYTES, ChunkIndex, Compression, Kind, ObjectName, Record,
    tree::{Leaf, Leaving, Patch},
    units::u64_from,
    zero::{is_zero, trim_zeros},
};
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    cache::{Body, Cache},
    commit::PATIENCE,
    disk::{Disk, Layers},
    error::Fault,
    memory::AlignedBuf,
    read::{BLOCK, Missing, Pinned, Source, assemble, read_object},
};

/// Bytes that a batch holds in memory: what it stores and what it needs of the base. A chunk is never split.
const BATCH_BYTES: u64 = 4 << 20;

/// A chunk that was written, and how it is stored.
pub(super) struct Plan {
    chunk: u64,
    /// What the base has; `None` for zeros.
    old: Option<Leaf>,
    form: Form,
}

/// How a chunk is stored.
#[derive(PartialEq, Eq)]
enum Form {
    /// In a pack: at most so many blocks that were written, and those of a pack that the chunk leaves.
    Patched { written: u16, leaving: Option<Leaving> },
    /// As one object.
    Whole(Rest),
}

/// Where a chunk that is stored whole gets the blocks that were not written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There are none.
    None,
    /// They are in the base, whose objects are needed.
    Base,
}

/// A batch, ready to be put.
#[derive(Default)]
pub(super) struct Batch {
    /// New entry of each changed chunk; `None` for zeros.
    pub(super) changes: Vec<(ChunkIndex, Option<Leaf>)>,
    pub(super) records: Vec<Record>,
}

impl Plan {
    /// The objects that are needed to build the chunk.
    fn needs(&self) -> BTreeMap<ObjectName, Kind> {
        match &self.form {
            Form::Patched { leaving, .. } => leaving.iter().map(|leaving| (leaving.pack, Kind::Pack)).collect(),
            Form::Whole(Rest::None) => BTreeMap::new(),
            Form::Whole(Rest::Base) => {
                self.old.iter().flat_map(Leaf::parts).map(|(name, kind)| (*name, kind)).collect()
            }
        }
    }

    /// Bytes that are made of the chunk, at most.
    fn makes(&self, chunk_bytes: u64) -> u64 {
        match &self.form {
            Form::Patched { written, leaving } => {
                let moved = leaving.iter().map(|leaving| u64_from(leaving.blocks.len())).sum::<u64>();
                (u64::from(*written) + moved) * BLOCK_BYTES
            }
            Form::Whole(_) => chunk_bytes,
        }
    }
}

/// Divides plans into batches.
pub(super) fn batches(plans: Vec<Plan>, chunk_bytes: u64) -> Vec<Vec<Plan>> {
    let mut batches: Vec<Vec<Plan>> = Vec::new();
    let mut left = 0;
    // What the batch has in memory, once for all of its chunks.
    let mut needed: BTreeSet<ObjectName> = BTreeSet::new();
    for plan in plans {
        let makes = plan.makes(chunk_bytes);
        let needs: BTreeSet<ObjectName> = plan.needs().into_keys().collect();
        let mut bytes = makes + chunk_bytes * u64_from(needs.difference(&needed).count());
        match batches.last_mut() {
            Some(batch) if bytes <= left => batch.push(plan),
            _ => {
                left = BATCH_BYTES;
                bytes = makes + chunk_bytes * u64_from(needs.len());
                needed.clear();
                batches.push(vec![plan]);
            }
        }
        needed.extend(needs);
        left = left.saturating_sub(bytes);
    }
    batches
}

impl Disk {
    /// Plans chunks that were written, which are in order.
    pub(super) async fn plan(self: Arc<Self>, view: Arc<Layers>, chunks: Vec<u64>) -> Result<Vec<Plan>, Fault> {
        let leaves = self.base_leaves(&view, &chunks).await?;
        Ok(chunks.into_iter().zip(leaves).map(|(chunk, old)| plan(&view, chunk, old)).collect())
    }

    /// What the base has for each chunk; `None` for zeros. Fetches pages as needed.
    async fn base_leaves(&self, view: &Layers, chunks: &[u64]) -> Result<Vec<Option<Leaf>>, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let mut pinned = Pinned::default();
        loop {
            let mut missing = BTreeSet::new();
            let mut found = Vec::with_capacity(chunks.len());
            for &chunk in chunks {
                match view.base.leaves(&self.node().pages, &pinned, chunk..chunk + 1) {
                    // There is no leaf at all for a chunk beyond the end of the version.
                    Ok(leaves) => found.push(leaves.into_iter().next().and_then(|(_, leaf)| leaf)),
                    Err(NoLeaves::Fault(fault)) => return Err(fault),
                    Err(NoLeaves::Missing(pages)) => missing.extend(pages),
                }
            }
            if missing.is_empty() {
                return Ok(found);
            }
            let pages = missing.into_iter().collect();
            self.bring(Missing { pages, ..Missing::default() }, &mut pinned, deadline).await?;
        }
    }

    /// Reads and encodes what a batch stores.
    pub(super) async fn build(self: Arc<Self>, view: Arc<Layers>, plans: Vec<Plan>) -> Result<Batch, Fault> {
        let wanted = plans.iter().flat_map(Plan::needs).collect();
        let bodies = self.proven_bodies(wanted, Instant::now() + PATIENCE).await?;
        let building = tokio::task::spawn_blocking(move || {
            let cache = &self.node().cache;
            let mut builder = Builder { cache, view: &view, bodies, batch: Batch::default(), pack: Pack::default() };
            for plan in plans {
                builder.add(plan)?;
            }
            builder.close_pack();
            Ok(builder.batch)
        });
        building.await.unwrap_or_else(|e| Err(Fault::Io(e.to_string())))
    }

    /// The bodies of objects, from the cache or the pool. Those from the cache are hashed again: bytes only get a new name
    /// if they were verified for this commit.
    async fn proven_bodies(
        &self,
        mut wanted: BTreeMap<ObjectName, Kind>,
        deadline: Instant,
    ) -> Result<HashMap<ObjectName, Body>, Fault> {
        let (cache, names) = (self.node().cache.clone(), wanted.keys().copied().collect::<Vec<_>>());
        let cached = tokio::task::spawn_blocking(move || {
            let proven = |name: ObjectName| Some((name, Body::Memory(cache.get_proven(&name)?)));
            names.into_iter().filter_map(proven).collect::<HashMap<_, _>>()
        });
        let mut bodies = cached.await.map_err(|e| Fault::Io(e.to_string()))?;
        wanted.retain(|name, _| !bodies.contains_key(name));
        let fetched = self.fetch_objects(&wanted, deadline).await?;
        bodies.extend(fetched.into_iter().map(|(name, body)| (name, Body::Memory(body))));
        match wanted.keys().find(|name| !bodies.contains_key(name)) {
            Some(name) => Err(Fault::Unavailable(format!("the pool did not return object {name}"))),
            None => Ok(bodies),
        }
    }
}

/// Decides how a chunk is stored.
fn plan(view: &Layers, chunk: u64, old: Option<Leaf>) -> Plan {
    let blocks = blocks_of(view, chunk);
    let mut patch = Patch::new(old.as_ref(), view.base.descriptor.chunk);
    let (mut written, mut rest) = (0, Rest::None);
    for (source, run) in runs(view, blocks.clone()) {
        match source {
            Source::Delta(_) => {
                patch.replace(within(&blocks, &run), 0);
                written += count(&run);
            }
            Source::Zero => patch.zero(within(&blocks, &run)),
            Source::Base => rest = Rest::Base,
        }
    }
    let form = match patch.is_mostly_base(count(&blocks)) {
        true => Form::Patched { written, leaving: patch.to_leave() },
        false => Form::Whole(rest),
    };
    Plan { chunk, old, form }
}

/// The blocks of a chunk that the disk has.
fn blocks_of(view: &Layers, chunk: u64) -> Range<u64> {
    let per_chunk = u64::from(view.base.descriptor.chunk.blocks());
    chunk * per_chunk..((chunk + 1) * per_chunk).min(view.size_bytes() / BLOCK_BYTES)
}

/// Where blocks come from: runs that follow each other.
fn runs(view: &Layers, blocks: Range<u64>) -> impl Iterator<Item = (Source, Range<u64>)> {
    let mut at = blocks.start;
    std::iter::from_fn(move || {
        let begins = at;
        (begins < blocks.end).then(|| {
            let (source, run) = view.source(begins, blocks.end);
            at += run;
            (source, begins..at)
        })
    })
}

/// A run of blocks as numbers within the chunk that has `blocks`.
fn within(blocks: &Range<u64>, run: &Range<u64>) -> Range<u16> {
    count(&(blocks.start..run.start))..count(&(blocks.start..run.end))
}

/// Number of some blocks of a chunk.
fn count(blocks: &Range<u64>) -> u16 {
    u16::try_from(blocks.end - blocks.start).expect("a chunk has at most 1024 blocks")
}

/// The pack that is being filled.
#[derive(Default)]
struct Pack {
    bytes: Vec<u8>,
    /// The chunks that have blocks in it, with their old and new entries.
    chunks: Vec<(ChunkIndex, Option<Leaf>, Patch)>,
}

impl Pack {
    /// Adds a block. Returns its number in the pack.
    fn append(&mut self, block: &[u8]) -> u16 {
        let number = u16::try_from(self.bytes.len() / BLOCK).expect("a pack is at most as large as a chunk");
        self.bytes.extend_from_slice(block);
        number
    }
}

/// Builds a batch. It waits for the node's disk.
struct Builder<'a> {
    cache: &'a Cache,
    view: &'a Layers,
    /// The objects that the plans of the batch need.
    bodies: HashMap<ObjectName, Body>,
    batch: Batch,
    pack: Pack,
}

impl Builder<'_> {
    fn add(&mut self, plan: Plan) -> Result<(), Fault> {
        let size = self.view.base.descriptor.chunk;
        let makes = plan.makes(size.bytes());
        let Plan { chunk, old, form } = plan;
        match form {
            Form::Patched { leaving, .. } => {
                if u64_from(self.pack.bytes.len()) + makes > size.bytes() {
                    self.close_pack();
                }
                self.add_patched(chunk, old, leaving)
            }
            Form::Whole(_) => self.add_whole(chunk, old),
        }
    }

    /// Adds to the pack the blocks that were written, and those of a pack that the chunk leaves. Zeros become no part of it.
    fn add_patched(&mut self, chunk: u64, old: Option<Leaf>, leaving: Option<Leaving>) -> Result<(), Fault> {
        let size = self.view.base.descriptor.chunk;
        let blocks = blocks_of(self.view, chunk);
        let mut patch = Patch::new(old.as_ref(), size);
        let mut aligned = AlignedBuf::default();
        for (source, run) in runs(self.view, blocks.clone()) {
            let places = within(&blocks, &run);
            match source {
                Source::Base => {
                    let Some(Leaving { pack, blocks }) = &leaving else { continue };
                    for (place, from) in blocks.iter().filter(|(place, _)| places.contains(place)) {
                        let into = aligned.slice(BLOCK);
                        let body = self.bodies.get(pack).expect("the pack was planned for");
                        read_object(body, Kind::Pack, usize::from(*from) * BLOCK, into)?;
                        patch.replace(*place..*place + 1, self.pack.append(into));
                    }
                }
                Source::Zero => patch.zero(places),
                Source::Delta(layer) => {
                    let into = aligned.slice(places.len() * BLOCK);
                    self.read_delta(layer, &run, into)?;
                    for (place, bytes) in places.zip(into.chunks(BLOCK)) {
                        if is_zero(bytes) {
                            patch.zero(place..place + 1);
                        } else {
                            patch.replace(place..place + 1, self.pack.append(bytes));
                        }
                    }
                }
            }
        }
        self.pack.chunks.push((ChunkIndex(chunk), old, patch));
        Ok(())
    }

    /// Ends the pack. It is stored unless the base has all its entries.
    fn close_pack(&mut self) {
        let Pack { bytes, chunks } = std::mem::take(&mut self.pack);
        let descriptor = &self.view.base.descriptor;
        let body = Bytes::from(bytes);
        let encode = || Record::encode_bytes(Kind::Pack, descriptor.salt, None, &body, Compression::Auto);
        let record = (!body.is_empty()).then(encode);
        let name = record.as_ref().map(Record::name);
        let known = self.batch.changes.len();
        for (index, old, patch) in chunks {
            let new = patch.finish(name);
            if new != old {
                self.batch.changes.push((index, new));
            }
        }
        if let Some(record) = record
            && self.batch.changes.len() > known
        {
            // After folding, these blocks are read on this node, not from others.
            self.cache.insert_written(record.name(), Kind::Pack, descriptor.salt, descriptor.chunk, &body);
            self.batch.records.push(record);
        }
    }

    /// Adds a chunk as one object, unless its bytes are those of the base.
    fn add_whole(&mut self, chunk: u64, old: Option<Leaf>) -> Result<(), Fault> {
        let descriptor = &self.view.base.descriptor;
        let blocks = blocks_of(self.view, chunk);
        let mut aligned = AlignedBuf::default();
        let body = aligned.slice(usize::from(count(&blocks)) * BLOCK);
        self.merge(&blocks, old.as_ref(), body)?;
        let index = ChunkIndex(chunk);
        if is_zero(body) {
            self.batch.changes.push((index, None));
            return Ok(());
        }
        let body = Bytes::copy_from_slice(trim_zeros(body));
        let record =
            Record::encode_bytes(Kind::Chunk, descriptor.salt, Some(descriptor.chunk), &body, Compression::Auto);
        let new = Some(Leaf::Whole(record.name()));
        if new != old {
            // As with packs.
            self.cache.insert_written(record.name(), Kind::Chunk, descriptor.salt, descriptor.chunk, &body);
            self.batch.changes.push((index, new));
            self.batch.records.push(record);
        }
        Ok(())
    }

    /// Reads the blocks of a chunk as the layers have them. `into` is as long as the blocks, and block aligned.
    fn merge(&self, blocks: &Range<u64>, old: Option<&Leaf>, into: &mut [u8]) -> Result<(), Fault> {
        let mut base = None;
        for (source, run) in runs(self.view, blocks.clone()) {
            let places = within(blocks, &run);
            let from = usize::from(places.start) * BLOCK;
            let part = &mut into[from..usize::from(places.end) * BLOCK];
            match source {
                Source::Delta(layer) => self.read_delta(layer, &run, part)?,
                Source::Zero => part.fill(0),
                Source::Base => {
                    let base = match &mut base {
                        Some(base) => base,
                        none => none.insert(self.base_body(old)?),
                    };
                    read_object(base, Kind::Chunk, from, part)?;
                }
            }
        }
        Ok(())
    }

    /// The bytes of a chunk of the base.
    fn base_body(&self, old: Option<&Leaf>) -> Result<Body, Fault> {
        let size = self.view.base.descriptor.chunk;
        match old {
            None => Ok(Body::Memory(Bytes::new())),
            Some(Leaf::Whole(name)) => {
                let body = self.bodies.get(name).expect("the base was planned for").clone();
                if body.bytes() > size.as_usize() {
                    return Err(Fault::Corrupt(format!("chunk {name} is longer than the chunks of its tree")));
                }
                Ok(body)
            }
            Some(Leaf::Patched(patched)) => Ok(Body::Memory(Bytes::from(assemble(patched, size, &self.bodies)?))),
        }
    }

    fn read_delta(&self, layer: usize, run: &Range<u64>, into: &mut [u8]) -> Result<(), Fault> {
        self.view.epochs[layer].read_blocks(run.start, into).map_err(|e| Fault::from_io("delta", &e))
    }
}
