//! A range of a version's bytes, as a stream.
//!
//! ```text
//!   walk the tree (64 chunks' leaves at a time) ──► groups of chunks ──get, 4 at a time, in order──► bytes
//!                                                └► zeros, never fetched ──────────────────────────► bytes
//! ```

use std::{collections::HashMap, ops::Range, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, Stream, StreamExt as _, stream::FuturesOrdered};
use muster_pool::PoolClient;
use storage_core::{
    BLOCK_BYTES, ChunkIndex, Corrupt, ObjectName,
    tree::{Leaf, Patched, RunSource, lookup_present},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// A read with no source left waits so long before the stream is broken off.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Bytes asked of the pool in one request.
const GROUP_BYTES: u64 = 4 << 20;
/// Requests ahead of the client.
const GROUPS_AHEAD: usize = 4;
/// Tree entries looked up at a time, in bytes of the disk.
const WALK_BYTES: u64 = 256 << 20;
/// Zeros are handed out in pieces of this size.
const ZEROS_BYTES: usize = 256 << 10;

static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// The bytes of `range` (inside the disk), in order. An error ends the stream.
///
/// Dropping the stream ends the reading.
pub fn stream(
    pool: PoolClient,
    content: &Content,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
    let (out, pieces) = mpsc::channel(2);
    let reading = read(pool, content.clone(), range, out.clone());
    tokio::spawn(async move {
        if let Err(error) = reading.boxed().await {
            // Nobody listens any more: nobody misses the error.
            let _ = out.send(Err(error)).await;
        }
    });
    ReceiverStream::new(pieces)
}

type Out = mpsc::Sender<Result<Bytes, ReadError>>;

/// What comes next.
enum Next {
    Zeros(u64),
    /// Consecutive chunks, of which the bytes of the range are wanted.
    Chunks(Vec<(ChunkIndex, Leaf)>, Range<u64>),
}

async fn read(pool: PoolClient, content: Content, range: Range<u64>, out: Out) -> Result<(), ReadError> {
    let mut pages = PageSource::new(pool.clone());
    pages.add_root(&content)?;
    let descriptor = *content.descriptor();
    let chunk_bytes = content.chunk_bytes();
    let mut under_way = FuturesOrdered::new();
    let mut at = range.start;
    while at < range.end {
        let walk_end = (at - at % WALK_BYTES + WALK_BYTES).min(range.end);
        let indexes = ChunkIndex(at / chunk_bytes)..ChunkIndex(walk_end.div_ceil(chunk_bytes));
        let deadline = Instant::now() + READ_WITHIN;
        let leaves = pages.with(deadline, |pages| lookup_present(&descriptor, indexes.clone(), pages)).await?;
        for next in plan(leaves, at..walk_end, chunk_bytes) {
            under_way.push_back(fetch(pool.clone(), next, chunk_bytes));
            if under_way.len() >= GROUPS_AHEAD
                && let Some(done) = under_way.next().await
                && !hand_out(done?, &out).await
            {
                return Ok(());
            }
        }
        at = walk_end;
    }
    while let Some(done) = under_way.next().await {
        if !hand_out(done?, &out).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Groups what is present and the zeros between, in order, exactly covering `range`.
fn plan(leaves: Vec<(ChunkIndex, Leaf)>, range: Range<u64>, chunk_bytes: u64) -> Vec<Next> {
    let mut plan = Vec::new();
    let mut at = range.start;
    let mut group: Vec<(ChunkIndex, Leaf)> = Vec::new();
    let mut group_from = at;
    for (index, leaf) in leaves {
        let from = (index.0 * chunk_bytes).max(range.start);
        let to = ((index.0 + 1) * chunk_bytes).min(range.end);
        if from > at || at - group_from >= GROUP_BYTES {
            if !group.is_empty() {
                plan.push(Next::Chunks(std::mem::take(&mut group), group_from..at));
            }
            if from > at {
                plan.push(Next::Zeros(from - at));
            }
            group_from = from;
        }
        group.push((index, leaf));
        at = to;
    }
    if !group.is_empty() {
        plan.push(Next::Chunks(group, group_from..at));
    }
    if at < range.end {
        plan.push(Next::Zeros(range.end - at));
    }
    plan
}

/// Bytes of a group, fetched.
enum Done {
    Zeros(u64),
    Pieces(Vec<Piece>),
}

/// Some bytes and the zeros after them.
struct Piece {
    bytes: Bytes,
    zeros: u64,
}

async fn fetch(pool: PoolClient, next: Next, chunk_bytes: u64) -> Result<Done, ReadError> {
    let (chunks, range) = match next {
        Next::Zeros(count) => return Ok(Done::Zeros(count)),
        Next::Chunks(chunks, range) => (chunks, range),
    };
    let mut names = Vec::new();
    for (_, leaf) in &chunks {
        match leaf {
            Leaf::Whole(name) => names.push(*name),
            Leaf::Patched(patched) => names.extend(patched.base().into_iter().chain(patched.packs())),
        }
    }
    let got = pool.get(&names, Instant::now() + READ_WITHIN).await?;
    let objects: HashMap<ObjectName, Bytes> = got.into_iter().map(|g| (g.object.name, g.object.body)).collect();
    let mut pieces = Vec::with_capacity(chunks.len());
    for (index, leaf) in &chunks {
        let body = match leaf {
            Leaf::Whole(name) => objects.get(name).cloned().unwrap_or_default(),
            Leaf::Patched(patched) => assemble(patched, &objects, chunk_bytes)?,
        };
        let begins = index.0 * chunk_bytes;
        let from = range.start.max(begins) - begins;
        let to = range.end.min(begins + chunk_bytes) - begins;
        let there = to.min(body.len() as u64).max(from);
        let bytes = if from < there { body.slice(in_memory(from)..in_memory(there)) } else { Bytes::new() };
        pieces.push(Piece { zeros: to - from - bytes.len() as u64, bytes });
    }
    Ok(Done::Pieces(pieces))
}

/// A chunk made of its base and the blocks of packs over it.
fn assemble(patched: &Patched, objects: &HashMap<ObjectName, Bytes>, chunk_bytes: u64) -> Result<Bytes, Corrupt> {
    const WHAT: &str = "patched chunk";
    let short = |needed: u64, got: usize| Corrupt::Short { what: WHAT, needed, got: got as u64 };
    let mut body = BytesMut::zeroed(in_memory(chunk_bytes));
    if let Some(base) = patched.base().and_then(|name| objects.get(name)) {
        let there = base.len().min(body.len());
        body[..there].copy_from_slice(&base[..there]);
    }
    for run in patched.runs() {
        let bytes = u64::from(run.count) * BLOCK_BYTES;
        let from = u64::from(run.first) * BLOCK_BYTES;
        let len = body.len();
        let to = body.get_mut(in_memory(from)..in_memory(from + bytes)).ok_or_else(|| short(from + bytes, len))?;
        match run.source {
            RunSource::Zeros => to.fill(0),
            RunSource::Pack { pack, block } => {
                let pack = patched.packs().get(usize::from(pack)).and_then(|name| objects.get(name));
                let pack = pack.ok_or_else(|| short(bytes, 0))?;
                let first = u64::from(block) * BLOCK_BYTES;
                let source = pack.get(in_memory(first)..in_memory(first + bytes));
                to.copy_from_slice(source.ok_or_else(|| short(first + bytes, pack.len()))?);
            }
        }
    }
    Ok(body.freeze())
}

/// Sends what was fetched; false when nobody wants it any more.
async fn hand_out(done: Done, out: &Out) -> bool {
    match done {
        Done::Zeros(count) => hand_out_zeros(count, out).await,
        Done::Pieces(pieces) => {
            for piece in pieces {
                if !piece.bytes.is_empty() && out.send(Ok(piece.bytes)).await.is_err() {
                    return false;
                }
                if !hand_out_zeros(piece.zeros, out).await {
                    return false;
                }
            }
            true
        }
    }
}

async fn hand_out_zeros(mut count: u64, out: &Out) -> bool {
    while count > 0 {
        let part = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        if out.send(Ok(Bytes::from_static(&ZEROS[..part]))).await.is_err() {
            return false;
        }
        count -= part as u64;
    }
    true
}

/// Places within a chunk or a group, at most some MiB.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by a few MiB")
}
