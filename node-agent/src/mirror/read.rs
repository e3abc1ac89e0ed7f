//! Reads. Each block comes from the newest epoch that has it, else from the base, through the cache (I1).
//!
//! A read whose bytes are all on this node is answered on the calling thread. Otherwise it returns what is [`Missing`].
//! [`Disk::bring`] fetches that, in whole chunks and in parallel, and pins it, so that the next attempt finds it even if it
//! was evicted from the cache meanwhile.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use storage_core::{
    BLOCK_BYTES, Kind, ObjectName,
    tree::{Leaf, Page},
    units::usize_from,
};
use tokio::time::Instant;

use super::{
    base::{NoLeaves, patch},
    bits::BlockState,
    cache::Body,
    disk::{Disk, Layers},
    error::Fault,
    memory::AlignedBuf,
    patience::{Cause, landing},
};

/// What was fetched for a request. It is kept until the request is done.
#[derive(Default)]
pub(crate) struct Pinned {
    pub(crate) pages: HashMap<ObjectName, Arc<Page>>,
    pub(crate) chunks: HashMap<ObjectName, Body>,
    pub(crate) patched: HashMap<Leaf, Bytes>,
}

/// What a request needs and this node does not have.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    pub(crate) pages: Vec<ObjectName>,
    pub(crate) chunks: Vec<ObjectName>,
    pub(crate) patched: Vec<Leaf>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.chunks.is_empty() && self.patched.is_empty()
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
            let within = usize_from(from - chunk.0 * per_chunk) * BLOCK;
            match leaf.map(|leaf| self.local_body(leaf, purpose, pinned, missing)) {
                None => part.fill(0),
                Some(None) => {}
                Some(Some(body)) => {
                    body.read(within, part).map_err(|e| NotHere::Fault(Fault::from_io("cache", &e)))?;
                }
            }
        }
        // The disk may be larger than the version; beyond the version's end it has zeros.
        into[usize_from(covered - first) * BLOCK..].fill(0);
        Ok(())
    }

    /// The body of a chunk, if it is on this node. Otherwise adds the chunk to `missing`.
    fn local_body(&self, leaf: Leaf, purpose: Purpose, pinned: &Pinned, missing: &mut Missing) -> Option<Body> {
        if let Leaf::Whole(name) = leaf {
            let cache = &self.node().cache;
            let mut body = pinned.chunks.get(&name).cloned().or_else(|| cache.get(&name));
            if purpose == Purpose::Merge {
                body = body.and_then(|body| cache.hashed_now(body));
            }
            if body.is_none() {
                missing.chunks.push(name);
            }
            return body;
        }
        let body = pinned.patched.get(&leaf).cloned().map(Body::Memory);
        if body.is_none() {
            missing.patched.push(leaf);
        }
        body
    }

    /// Fetches what is missing and pins it.
    ///
    /// Fails with [`Fault::Unavailable`] when no node gives it before the deadline.
    pub(crate) async fn bring(&self, missing: Missing, pinned: &mut Pinned, deadline: Instant) -> Result<(), Fault> {
        let descriptor = self.layers().base.descriptor;
        if !missing.pages.is_empty() {
            for (name, body) in self.fetch_objects(&missing.pages, Kind::Page, deadline).await? {
                let page = Page::decode(&body).map_err(|e| Fault::Corrupt(format!("page {name}: {e}")))?;
                let page = Arc::new(page);
                self.node().pages.insert(name, page.clone());
                pinned.pages.insert(name, page);
            }
        }
        if !missing.chunks.is_empty() {
            let cache = &self.node().cache;
            let found = cache.get_or_fetch(&missing.chunks, descriptor.salt, descriptor.chunk, deadline).await;
            self.lost.learn(&missing.chunks, found.as_ref().map(drop));
            for (name, fetched) in found? {
                self.count_fetched(fetched.network_bytes);
                pinned.chunks.insert(name, fetched.body);
            }
        }
        for leaf in missing.patched {
            let bytes = self.assemble(&leaf, deadline).await?;
            pinned.patched.insert(leaf, bytes);
        }
        Ok(())
    }

    /// Assembles a patched chunk (tag 2) from its base and packs, which are fetched.
    pub(crate) async fn assemble(&self, leaf: &Leaf, deadline: Instant) -> Result<Bytes, Fault> {
        let Leaf::Patched(patched) = leaf else {
            return Err(Fault::Corrupt("a leaf of a form that this release does not read".to_owned()));
        };
        let mut bodies = HashMap::new();
        if let Some(base) = patched.base() {
            bodies.extend(self.fetch_objects(&[*base], Kind::Chunk, deadline).await?);
        }
        bodies.extend(self.fetch_objects(patched.packs(), Kind::Pack, deadline).await?);
        let size = self.layers().base.descriptor.chunk;
        patch(leaf, usize_from(size.bytes()), |name| bodies.get(name).cloned())
            .map(Bytes::from)
            .ok_or_else(|| Fault::Corrupt("the runs of a patched chunk do not fit its packs".to_owned()))
    }

    /// Fetches objects of one kind from the pool. They are verified.
    pub(crate) async fn fetch_objects(
        &self,
        names: &[ObjectName],
        kind: Kind,
        deadline: Instant,
    ) -> Result<Vec<(ObjectName, Bytes)>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let got = self.node().pool.get(names, deadline).await.map_err(Fault::from);
        self.lost.learn(names, got.as_ref().map(drop));
        got?.into_iter()
            .map(|got| {
                self.count_fetched(got.network_bytes);
                if got.object.kind == kind {
                    Ok((got.object.name, got.object.body))
                } else {
                    Err(Fault::Corrupt(format!("object {} is not a {kind:?}", got.object.name)))
                }
            })
            .collect()
    }

    /// Reads `bytes` at `offset`, and fetches what is missing. Fails with [`Fault::Unavailable`] in time for its program to
    /// learn it before the read deadline, whatever does not answer.
    pub(crate) async fn read(self: &Arc<Self>, offset: u64, bytes: u64) -> Result<Vec<u8>, Fault> {
        let range = offset..offset.saturating_add(bytes);
        let whole = self.node().config.read_deadline;
        if self.patience().is_clock_off() && self.node().pool.clock_trouble().is_none() {
            self.patience().clock_is_right();
        }
        let deadline = self.patience().deadline(&range, Instant::now(), whole);
        let read = tokio::time::timeout_at(deadline, self.read_until(offset, bytes, landing(deadline))).await;
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

    async fn read_until(self: &Arc<Self>, offset: u64, bytes: u64, deadline: Instant) -> Result<Vec<u8>, Fault> {
        let mut pinned = Pinned::default();
        loop {
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
                Err(NotHere::Missing(missing)) => self.bring(missing, &mut pinned, deadline).await?,
            }
        }
    }
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
