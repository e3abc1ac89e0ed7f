//! Reads: each block from the newest epoch that has it, else from the base through the cache (I1).
//!
//! What is here is answered on the calling thread. What is not comes back as [`Missing`]; [`Disk::bring`] fetches it,
//! whole chunks side by side, and holds on to it, so that the second try cannot miss it whatever is evicted meanwhile.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use storage_core::{
    BLOCK_BYTES, Kind, ObjectName,
    tree::{Leaf, Page},
};
use tokio::time::Instant;

use super::{
    base::{NoLeaves, patch},
    bits::BlockState,
    cache::Body,
    disk::{Disk, Layers},
    error::Fault,
    memory::AlignedBuf,
};

/// What a request holds on to while it waits.
#[derive(Default)]
pub(crate) struct Pinned {
    pub(crate) pages: HashMap<ObjectName, Arc<Page>>,
    pub(crate) chunks: HashMap<ObjectName, Body>,
    pub(crate) patched: HashMap<Leaf, Bytes>,
}

/// What has to be fetched first.
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

/// Why something local could not be done at once.
#[derive(Debug)]
pub(crate) enum NotHere {
    Missing(Missing),
    Fault(Fault),
}

/// Bytes of a block, as memory counts them.
pub(crate) const BLOCK: usize = 4096;

pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("only 64-bit targets are built, so every u64 fits")
}

impl Disk {
    /// Reads `bytes` at `offset` if all of it is here; `reply` gets them. Short at the end of the disk.
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
        AlignedBuf::with_read(to_usize(blocks * BLOCK_BYTES), |buf| {
            self.read_blocks(&layers, first, blocks, buf, pinned)?;
            let skip = to_usize(offset - first * BLOCK_BYTES);
            Ok(reply(buf.get(skip..skip + to_usize(end - offset)).unwrap_or_default()))
        })
    }

    /// Whole blocks as `layers` have them. `into` is block aligned and exactly as long.
    pub(crate) fn read_blocks(
        &self,
        layers: &Layers,
        first: u64,
        blocks: u64,
        into: &mut [u8],
        pinned: &Pinned,
    ) -> Result<(), NotHere> {
        let mut missing = Missing::default();
        let end = first + blocks;
        let mut at = first;
        while at < end {
            let (source, run) = layers.source(at, end);
            let from = to_usize(at - first) * BLOCK;
            let part = into.get_mut(from..from + to_usize(run) * BLOCK).expect("runs stay inside of the range");
            match source {
                Source::Zero => part.fill(0),
                Source::Delta(n) => {
                    let epoch = layers.epochs.get(n).expect("a source names one of the layers");
                    epoch.read_blocks(at, part).map_err(|e| NotHere::Fault(Fault::from_io("delta", &e)))?;
                }
                Source::Base => self.read_base(layers, at, part, pinned, &mut missing)?,
            }
            at += run;
        }
        if missing.is_empty() { Ok(()) } else { Err(NotHere::Missing(missing)) }
    }

    fn read_base(
        &self,
        layers: &Layers,
        first: u64,
        into: &mut [u8],
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
        // Beyond the version's end and where the tree says nothing: zeros.
        let mut covered = first;
        for (chunk, leaf) in leaves {
            let from = (chunk.0 * per_chunk).max(first);
            let to = ((chunk.0 + 1) * per_chunk).min(end);
            let part = into
                .get_mut(to_usize(from - first) * BLOCK..to_usize(to - first) * BLOCK)
                .expect("a chunk's part stays inside of the range");
            covered = to;
            let within = to_usize(from - chunk.0 * per_chunk) * BLOCK;
            let body = match leaf {
                None => {
                    part.fill(0);
                    continue;
                }
                Some(Leaf::Whole(name)) => {
                    let body = pinned.chunks.get(&name).cloned().or_else(|| self.node().cache.get(&name));
                    let Some(body) = body else {
                        missing.chunks.push(name);
                        continue;
                    };
                    body
                }
                Some(leaf) => {
                    let Some(bytes) = pinned.patched.get(&leaf).cloned() else {
                        missing.patched.push(leaf);
                        continue;
                    };
                    Body::Memory(bytes)
                }
            };
            body.read(within, part).map_err(|e| NotHere::Fault(Fault::from_io("cache", &e)))?;
        }
        if covered < end {
            into.get_mut(to_usize(covered - first) * BLOCK..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    /// Fetches what was missing.
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
            let found = cache.get_or_fetch(&missing.chunks, descriptor.salt, descriptor.chunk, deadline).await?;
            for (name, fetched) in found {
                self.count_fetched(fetched.network_bytes);
                pinned.chunks.insert(name, fetched.body);
            }
        }
        for leaf in missing.patched {
            let bytes = self.put_together(&leaf, deadline).await?;
            pinned.patched.insert(leaf, bytes);
        }
        Ok(())
    }

    /// A patched chunk (tag 2), from its base and packs.
    pub(crate) async fn put_together(&self, leaf: &Leaf, deadline: Instant) -> Result<Bytes, Fault> {
        let Leaf::Patched(patched) = leaf else {
            return Err(Fault::Corrupt("a leaf this release does not read".to_owned()));
        };
        let mut bodies = HashMap::new();
        if let Some(base) = patched.base() {
            bodies.extend(self.fetch_objects(&[*base], Kind::Chunk, deadline).await?);
        }
        bodies.extend(self.fetch_objects(patched.packs(), Kind::Pack, deadline).await?);
        let size = self.layers().base.descriptor.chunk;
        patch(leaf, to_usize(size.bytes()), |name| bodies.get(name).cloned())
            .map(Bytes::from)
            .ok_or_else(|| Fault::Corrupt("a patched chunk whose runs do not fit".to_owned()))
    }

    /// Verified objects of one kind from the pool.
    pub(crate) async fn fetch_objects(
        &self,
        names: &[ObjectName],
        kind: Kind,
        deadline: Instant,
    ) -> Result<Vec<(ObjectName, Bytes)>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let got = self.node().pool.get(names, deadline).await.map_err(|e| Fault::Unavailable(e.to_string()))?;
        got.into_iter()
            .map(|got| {
                self.count_fetched(got.network_bytes);
                if got.object.kind == kind {
                    Ok((got.object.name, got.object.body))
                } else {
                    Err(Fault::Corrupt(format!("object {} is of another kind", got.object.name)))
                }
            })
            .collect()
    }

    /// Reads, fetching what is missing until the deadline.
    pub(crate) async fn read(self: &Arc<Self>, offset: u64, bytes: u64, deadline: Instant) -> Result<Vec<u8>, Fault> {
        let mut pinned = Pinned::default();
        loop {
            let disk = self.clone();
            // The bytes may have to come from the disk below.
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
    /// The delta of the n-th layer.
    Delta(usize),
    /// It was zeroed.
    Zero,
    /// No epoch has it.
    Base,
}

impl Layers {
    /// Source of a block, and how many blocks from there (up to `end`) share it.
    pub(crate) fn source(&self, block: u64, end: u64) -> (Source, u64) {
        let mut end = end;
        for (n, epoch) in self.epochs.iter().enumerate() {
            let (state, run) = epoch.bits.run(block, end);
            match state {
                BlockState::Data => return (Source::Delta(n), run),
                BlockState::Zero => return (Source::Zero, run),
                // Newer epochs say nothing about these blocks only.
                BlockState::Absent => end = block + run,
            }
        }
        (Source::Base, end - block)
    }
}
