//! Reads. Each block comes from the newest epoch that has it, else from the base, through the cache (I1).
//!
//! A read whose bytes are all on this node is answered on the calling thread. Otherwise it returns what is [`Missing`].
//! [`Disk::bring`] fetches that, in whole objects and in parallel, and pins it, so that the next attempt finds it even if it
//! was evicted from the cache meanwhile.
//!
//! Blocks of a patched chunk that lie within one object are read from that object: what a guest has just written needs only
//! its pack, which the commit left in the cache, and a write of part of a block needs one object. A read of more than that
//! has the chunk assembled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use storage_core::{
    BLOCK_BYTES, ChunkSize, Descriptor, Kind, ObjectName,
    tree::{Leaf, Page, Patched},
    units::usize_from,
};
use tokio::time::Instant;

use super::{
    base::NoLeaves,
    bits::BlockState,
    cache::{Body, Fetched, Why},
    disk::{Disk, Layers},
    error::Fault,
    memory::AlignedBuf,
    patience::{Cause, landing},
};

/// What was fetched for a request. It is kept until the request is done.
#[derive(Default)]
pub(crate) struct Pinned {
    pub(crate) pages: HashMap<ObjectName, Arc<Page>>,
    pub(crate) objects: HashMap<ObjectName, Body>,
}

/// What a request needs and this node does not have.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    pub(crate) pages: Vec<ObjectName>,
    /// Chunks and packs.
    pub(crate) objects: BTreeMap<ObjectName, Kind>,
}

impl Missing {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.objects.is_empty()
    }
}

/// Why a read could not be done at once.
#[derive(Debug)]
pub(crate) enum NotHere {
    /// Something that the read needs is not on this node. Fetch it first, then read again.
    Missing(Missing),
    /// The read failed, and the guest gets this error.
    Fault(Fault),
}

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The bytes are the answer to a read.
    Answer,
    /// The bytes become part of a block that the disk owns, and so of chunks with new names. They are hashed in the pass that
    /// reads them (I4).
    Merge,
}

/// [`BLOCK_BYTES`] for lengths in memory.
pub(crate) const BLOCK: usize = usize_from(BLOCK_BYTES);

impl Disk {
    /// Reads `bytes` at `offset` and passes them to `reply`, if all of them are on this node. Fewer at the end of the disk.
    pub(crate) fn try_read<R>(
        &self,
        offset: u64,
        bytes: u64,
        pinned: &Pinned,
        reply: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NotHere> {
        self.check_usable().map_err(NotHere::Fault)?;
        let end = offset.saturating_add(bytes).min(self.size_bytes());
        if offset >= end {
            return Ok(reply(&[]));
        }
        let first = offset / BLOCK_BYTES;
        let blocks = end.div_ceil(BLOCK_BYTES) - first;
        let layers = self.layers();
        AlignedBuf::with_read(usize_from(blocks * BLOCK_BYTES), |buf| {
            self.read_blocks(&layers, first, blocks, buf, Purpose::Answer, pinned)?;
            let skip = usize_from(offset - first * BLOCK_BYTES);
            Ok(reply(&buf[skip..][..usize_from(end - offset)]))
        })
    }

    /// Reads whole blocks as `layers` have them. `into` is block aligned in memory and exactly as long as the blocks.
    pub(crate) fn read_blocks(
        &self,
        layers: &Layers,
        first: u64,
        blocks: u64,
        into: &mut [u8],
        purpose: Purpose,
        pinned: &Pinned,
    ) -> Result<(), NotHere> {
        let mut missing = Missing::default();
        let end = first + blocks;
        let mut at = first;
        while at < end {
            let (source, run) = layers.source(at, end);
            let part = &mut into[usize_from(at - first) * BLOCK..][..usize_from(run) * BLOCK];
            match source {
                Source::Zero => part.fill(0),
                Source::Delta(n) => {
                    let read = layers.epochs[n].read_blocks(at, part);
                    read.map_err(|e| NotHere::Fault(Fault::from_io("delta", &e)))?;
                }
                Source::Base => self.read_base(layers, at, part, purpose, pinned, &mut missing)?,
            }
            at += run;
        }
        if missing.is_empty() { Ok(()) } else { Err(NotHere::Missing(missing)) }
    }

    /// Reads whole blocks from the base. Adds to `missing` what is not on this node.
    fn read_base(
        &self,
        layers: &Layers,
        first: u64,
        into: &mut [u8],
        purpose: Purpose,
        pinned: &Pinned,
        missing: &mut Missing,
    ) -> Result<(), NotHere> {
        let size = layers.base.descriptor.chunk;
        let per_chunk = u64::from(size.blocks());
        let end = first + (into.len() / BLOCK) as u64;
        let known = layers.base.descriptor.chunks();
        let chunks = (first / per_chunk).min(known)..end.div_ceil(per_chunk).min(known);
        let leaves = match layers.base.leaves(&self.node().pages, pinned, chunks) {
            Ok(leaves) => leaves,
            Err(NoLeaves::Missing(pages)) => {
                missing.pages.extend(pages);
                return Ok(());
            }
            Err(NoLeaves::Fault(fault)) => return Err(NotHere::Fault(fault)),
        };
        // Only reads of the guest are part of its boot order.
        let recording = self.boots.now();
        let recording = recording.as_ref().filter(|it| purpose == Purpose::Answer && it.is_of(&layers.base));
        let mut covered = first;
        for (chunk, leaf) in leaves {
            if leaf.is_some()
                && let Some(recording) = recording
            {
                recording.touch(chunk);
            }
            let from = (chunk.0 * per_chunk).max(first);
            let to = ((chunk.0 + 1) * per_chunk).min(end);
            let part = &mut into[usize_from(from - first) * BLOCK..usize_from(to - first) * BLOCK];
            covered = to;
            let within = from - chunk.0 * per_chunk;
            match leaf {
                None => part.fill(0),
                Some(Leaf::Whole(name)) => {
                    if let Some(body) = self.local_object(&name, Kind::Chunk, purpose, pinned, missing) {
                        read_object(&body, Kind::Chunk, usize_from(within) * BLOCK, part).map_err(NotHere::Fault)?;
                    }
                }
                Some(Leaf::Patched(patched)) => {
                    let first = u16::try_from(within).expect("a chunk has at most 1024 blocks");
                    self.read_patched(&layers.base.descriptor, &patched, first, part, purpose, pinned, missing)
                        .map_err(NotHere::Fault)?;
                }
            }
        }
        // The disk may be larger than the version; beyond the version's end it has zeros.
        into[usize_from(covered - first) * BLOCK..].fill(0);
        Ok(())
    }

    /// The body of an object, if it is on this node. Otherwise adds it to `missing`.
    fn local_object(
        &self,
        name: &ObjectName,
        kind: Kind,
        purpose: Purpose,
        pinned: &Pinned,
        missing: &mut Missing,
    ) -> Option<Body> {
        let cache = &self.node().cache;
        let mut body = pinned.objects.get(name).cloned().or_else(|| cache.get(name));
        if purpose == Purpose::Merge {
            body = body.and_then(|body| cache.hashed_now(body));
        }
        if body.is_none() {
            missing.objects.insert(*name, kind);
        }
        body
    }

    /// Reads whole blocks of a patched chunk, from `first` on. Adds to `missing` what is not on this node.
    #[expect(clippy::too_many_arguments, reason = "a struct would only rename the arguments of one call")]
    fn read_patched(
        &self,
        descriptor: &Descriptor,
        patched: &Patched,
        first: u16,
        into: &mut [u8],
        purpose: Purpose,
        pinned: &Pinned,
        missing: &mut Missing,
    ) -> Result<(), Fault> {
        let blocks = u16::try_from(into.len() / BLOCK).expect("a chunk has at most 1024 blocks");
        if purpose == Purpose::Merge || patched.pieces(first, blocks) == 1 {
            return patched.read(first, into, |name, kind, offset, into| {
                match self.local_object(name, kind, purpose, pinned, missing) {
                    Some(body) => read_object(&body, kind, offset, into),
                    None => Ok(()),
                }
            });
        }
        match self.assembled(descriptor, patched, pinned, missing)? {
            Some(body) => read_object(&body, Kind::Chunk, usize::from(first) * BLOCK, into),
            None => Ok(()),
        }
    }

    /// A patched chunk as one body, from the cache or made of its objects. `None` when some of these are not on this node; they
    /// are added to `missing`.
    fn assembled(
        &self,
        descriptor: &Descriptor,
        patched: &Patched,
        pinned: &Pinned,
        missing: &mut Missing,
    ) -> Result<Option<Body>, Fault> {
        let Descriptor { salt, chunk, .. } = *descriptor;
        let cache = &self.node().cache;
        let key = patched.key(salt, chunk);
        if let Some(body) = cache.get(&key) {
            return Ok(Some(body));
        }
        cache.get_or_assemble(key, salt, chunk, || {
            let mut bodies = HashMap::new();
            let mut is_whole = true;
            for (name, kind) in patched.objects() {
                // The chunk gets a name for the scrub, so its bytes are hashed in this pass.
                let body = self.local_object(name, kind, Purpose::Merge, pinned, missing);
                is_whole &= body.is_some();
                bodies.extend(body.map(|body| (*name, body)));
            }
            is_whole.then(|| assemble(patched, chunk, &bodies)).transpose()
        })
    }

    /// Fetches what is missing and pins it.
    ///
    /// Fails with [`Fault::Unavailable`] when no node gives it before the deadline.
    pub(crate) async fn bring(&self, missing: Missing, pinned: &mut Pinned, deadline: Instant) -> Result<(), Fault> {
        if !missing.pages.is_empty() {
            let pages = missing.pages.iter().map(|name| (*name, Kind::Page)).collect();
            for (name, fetched) in self.fetch_once(&pages, deadline).await? {
                let page = match (self.node().pages.get(&name), fetched.body) {
                    (Some(page), _) => page,
                    // Others have pushed it out again.
                    (None, Body::Memory(body)) => {
                        Arc::new(Page::decode(&body).map_err(|e| Fault::Corrupt(format!("page {name}: {e}")))?)
                    }
                    (None, Body::Slot(_) | Body::Own(_)) => unreachable!("pages have no slots"),
                };
                pinned.pages.insert(name, page);
            }
        }
        if !missing.objects.is_empty() {
            let found = self.fetch_once(&missing.objects, deadline).await?;
            pinned.objects.extend(found.into_iter().map(|(name, fetched)| (name, fetched.body)));
        }
        Ok(())
    }

    /// Fetches objects of the base, together with whoever else on this node wants the same ones.
    async fn fetch_once(
        &self,
        objects: &BTreeMap<ObjectName, Kind>,
        deadline: Instant,
    ) -> Result<HashMap<ObjectName, Fetched>, Fault> {
        let Descriptor { salt, chunk, .. } = self.layers().base.descriptor;
        let found = self.node().cache.get_or_fetch(objects, salt, chunk, deadline, Why::Demand).await;
        self.lost.learn(objects.keys(), found.as_ref().map(drop));
        let found = found?;
        found.values().for_each(|fetched| self.count_fetched(fetched.network_bytes));
        Ok(found)
    }

    /// Fetches objects from the pool. They are verified.
    pub(crate) async fn fetch_objects(
        &self,
        objects: &BTreeMap<ObjectName, Kind>,
        deadline: Instant,
    ) -> Result<Vec<(ObjectName, Bytes)>, Fault> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<ObjectName> = objects.keys().copied().collect();
        let got = self.node().pool.get(&names, deadline).await.map_err(Fault::from);
        self.lost.learn(&names, got.as_ref().map(drop));
        got?.into_iter()
            .map(|got| {
                self.count_fetched(got.network_bytes);
                let (name, kind) = (got.object.name, objects.get(&got.object.name));
                if kind == Some(&got.object.kind) {
                    Ok((name, got.object.body))
                } else {
                    Err(Fault::Corrupt(format!("object {name} is a {:?}, expected {kind:?}", got.object.kind)))
                }
            })
            .collect()
    }

    /// Reads `bytes` at `offset`, and fetches what is missing.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn read(self: &Arc<Self>, offset: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        self.read_missing(offset, bytes, Missing::default()).await
    }

    /// Reads `bytes` at `offset`, after fetching what was found to be missing for that. Fails with [`Fault::Unavailable`] in time
    /// for its program to learn it before the read deadline, whatever does not answer.
    pub(crate) async fn read_missing(
        self: &Arc<Self>,
        offset: u64,
        bytes: u64,
        missing: Missing,
    ) -> Result<Vec<u8>, Fault> {
        let range = offset..offset.saturating_add(bytes);
        let whole = self.node().config.read_deadline;
        if self.patience().is_clock_off() && self.node().pool.clock_trouble().is_none() {
            self.patience().clock_is_right();
        }
        let deadline = self.patience().deadline(&range, Instant::now(), whole);
        let read = tokio::time::timeout_at(deadline, self.read_until(offset, bytes, missing, landing(deadline))).await;
        let read = read.unwrap_or_else(|_| Err(Fault::Unavailable("this node's disk does not answer".to_owned())));
        if let Some(cause) = self.note_cause(read.as_ref().err()) {
            self.patience().gave_up(range, Instant::now(), whole, cause);
        }
        read
    }

    /// Notes how a request ended that needed other nodes. Returns why it was given up, if it was.
    pub(super) fn note_cause(&self, fault: Option<&Fault>) -> Option<Cause> {
        let cause = match fault {
            Some(Fault::Unavailable(_)) if self.node().pool.clock_trouble().is_some() => Some(Cause::ClockOff),
            Some(Fault::Unavailable(_) | Fault::Lost(_)) => Some(Cause::NoSource),
            _ => None,
        };
        self.patience().note(cause);
        cause
    }

    async fn read_until(
        self: &Arc<Self>,
        offset: u64,
        bytes: u64,
        mut missing: Missing,
        deadline: Instant,
    ) -> Result<Vec<u8>, Fault> {
        let mut pinned = Pinned::default();
        loop {
            self.bring(missing, &mut pinned, deadline).await?;
            let disk = self.clone();
            // Reading may wait for the node's disk.
            let (result, back) =
                tokio::task::spawn_blocking(move || (disk.try_read(offset, bytes, &pinned, <[u8]>::to_vec), pinned))
                    .await
                    .map_err(|e| Fault::Io(e.to_string()))?;
            pinned = back;
            match result {
                Ok(bytes) => return Ok(bytes),
                Err(NotHere::Fault(fault)) => return Err(fault),
                Err(NotHere::Missing(more)) => missing = more,
            }
        }
    }
}

/// Reads a part of an object of a tree. A chunk has zeros beyond the end of its body; a pack has nothing there.
pub(super) fn read_object(body: &Body, kind: Kind, offset: usize, into: &mut [u8]) -> Result<(), Fault> {
    if kind == Kind::Pack && offset + into.len() > body.bytes() {
        let (end, bytes) = (offset + into.len(), body.bytes());
        return Err(Fault::Corrupt(format!("a patched chunk has blocks up to byte {end} of a pack of {bytes} bytes")));
    }
    body.read(offset, into).map_err(|e| Fault::from_io("cache", &e))
}

/// Makes a patched chunk out of the bodies of all its objects.
pub(super) fn assemble(
    patched: &Patched,
    chunk: ChunkSize,
    bodies: &HashMap<ObjectName, Body>,
) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; chunk.as_usize()];
    patched.read(0, &mut bytes, |name, kind, offset, into| {
        read_object(bodies.get(name).expect("the bodies of all objects"), kind, offset, into)
    })?;
    Ok(bytes)
}

/// Where a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The delta of the epoch with this index in [`Layers::epochs`].
    Delta(usize),
    /// An epoch says that it reads as zeros.
    Zero,
    /// The base, because no epoch has it.
    Base,
}

impl Layers {
    /// The source of a block, and the number of blocks from there (at most to `end`) that share it.
    pub(crate) fn source(&self, block: u64, end: u64) -> (Source, u64) {
        let mut end = end;
        for (n, epoch) in self.epochs.iter().enumerate() {
            let (state, run) = epoch.bits.run(block, end);
            match state {
                BlockState::Data => return (Source::Delta(n), run),
                BlockState::Zero => return (Source::Zero, run),
                // Older epochs are asked only about the blocks that this one does not have.
                BlockState::Absent => end = block + run,
            }
        }
        (Source::Base, end - block)
    }
}
