//! Streams a range of a version's bytes.
//!
//! ```text
//!   walk the tree (64 chunks' leaves at a time) ──► groups of chunks ──get, 4 at a time, in order──► bytes
//!                                                └► zeros, never fetched ──────────────────────────► bytes
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream::FuturesOrdered};
use muster_pool::PoolClient;
use storage_core::{
    ChunkIndex, Corrupt, Kind, ObjectName,
    tree::{Leaf, Patched, lookup_present},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// Longest wait for the pages or chunks of one step; then the stream ends with an error.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of chunks that one request to the pool asks for.
const GROUP_BYTES: u64 = 4 << 20;
/// Most requests that run ahead of the client.
const GROUPS_AHEAD: usize = 4;
/// Bytes of the disk whose tree entries are looked up at a time.
const WALK_BYTES: u64 = 256 << 20;
/// Most zeros in one piece of the stream.
const ZEROS_BYTES: usize = 256 << 10;

static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Streams the bytes of `range` in order. The range must be inside the disk. An error ends the stream; dropping the
/// stream ends the reading.
pub fn stream(
    pool: PoolClient,
    content: &Content,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
    let (out, pieces) = mpsc::channel(2);
    let reading = read(pool, content.clone(), range, out.clone());
    tokio::spawn(async move {
        if let Err(error) = reading.boxed().await {
            // If the stream was dropped, nobody needs the error.
            let _ = out.send(Err(error)).await;
        }
    });
    ReceiverStream::new(pieces)
}

type Out = mpsc::Sender<Result<Bytes, ReadError>>;

/// The next part of the stream, not fetched yet.
enum Next {
    Zeros(u64),
    /// Consecutive chunks, and the range of the disk's bytes that is wanted of them.
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

/// Makes groups of the present chunks and of the zeros between them. In order, they cover exactly `range`.
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

/// A part of the stream, fetched.
enum Done {
    Zeros(u64),
    Pieces(Vec<Piece>),
}

/// Some bytes, and the number of zeros after them.
struct Piece {
    bytes: Bytes,
    zeros: u64,
}

async fn fetch(pool: PoolClient, next: Next, chunk_bytes: u64) -> Result<Done, ReadError> {
    let (chunks, range) = match next {
        Next::Zeros(count) => return Ok(Done::Zeros(count)),
        Next::Chunks(chunks, range) => (chunks, range),
    };
    // Several chunks may have blocks in one pack.
    let names: BTreeSet<ObjectName> = chunks.iter().flat_map(|(_, leaf)| leaf.objects()).copied().collect();
    let names: Vec<ObjectName> = names.into_iter().collect();
    let got = pool.get(&names, Instant::now() + READ_WITHIN).await?;
    let objects: HashMap<ObjectName, Bytes> = got.into_iter().map(|g| (g.object.name, g.object.body)).collect();
    let mut pieces = Vec::with_capacity(chunks.len());
    for (index, leaf) in &chunks {
        let body = match leaf {
            Leaf::Whole(name) => fetched(&objects, name).clone(),
            Leaf::Patched(patched) => assemble(patched, &objects, chunk_bytes)?.into(),
        };
        let begins = index.0 * chunk_bytes;
        let from = range.start.max(begins) - begins;
        let to = range.end.min(begins + chunk_bytes) - begins;
        // The body lacks the trailing zeros of the chunk.
        let end = to.min(body.len() as u64).max(from);
        let bytes = if from < end { body.slice(in_memory(from)..in_memory(end)) } else { Bytes::new() };
        pieces.push(Piece { zeros: to - from - bytes.len() as u64, bytes });
    }
    Ok(Done::Pieces(pieces))
}

/// One of the objects that were asked for.
fn fetched<'a>(objects: &'a HashMap<ObjectName, Bytes>, name: &ObjectName) -> &'a Bytes {
    objects.get(name).expect("the pool returns every object it was asked for, or an error")
}

/// Makes a chunk of its base and of the blocks in packs that replace parts of it.
fn assemble(patched: &Patched, objects: &HashMap<ObjectName, Bytes>, chunk_bytes: u64) -> Result<Vec<u8>, Corrupt> {
    let mut body = vec![0; in_memory(chunk_bytes)];
    patched.read(0, &mut body, |name, kind, offset, into| {
        let object = fetched(objects, name);
        let there = object.get(offset..).unwrap_or_default();
        if kind == Kind::Pack && there.len() < into.len() {
            let needed = (offset + into.len()) as u64;
            return Err(Corrupt::Short { what: "pack of a patched chunk", needed, got: object.len() as u64 });
        }
        // The body of a chunk lacks the zeros at its end.
        let (bytes, zeros) = into.split_at_mut(there.len().min(into.len()));
        bytes.copy_from_slice(&there[..bytes.len()]);
        zeros.fill(0);
        Ok(())
    })?;
    Ok(body)
}

/// Sends what was fetched; false if the stream was dropped.
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
        let part = in_memory(count.min(ZEROS_BYTES as u64));
        if out.send(Ok(Bytes::from_static(&ZEROS[..part]))).await.is_err() {
            return false;
        }
        count -= part as u64;
    }
    true
}

/// For offsets and lengths within a chunk or a piece.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by a few MiB")
}

#[cfg(test)]
mod tests {
    use storage_core::{
        ChunkSize, Salt,
        tree::{Leaf, Patch},
    };

    use super::*;

    const BLOCK: usize = 4096;

    #[test]
    fn a_patched_chunk_has_zeros_beyond_its_base_and_nothing_beyond_its_pack() {
        let name = |kind, body: &[u8]| ObjectName::of(kind, Salt::SHARED, body);
        // The base ends within its third block.
        let (base, pack) = (vec![1; 2 * BLOCK + 10], vec![2; 3 * BLOCK]);
        let (base_name, pack_name) = (name(Kind::Chunk, &base), name(Kind::Pack, &pack));
        let mut patch = Patch::new(Some(&Leaf::Whole(base_name)), ChunkSize::MIN);
        patch.replace(1..2, 0);
        patch.replace(9..11, 1);
        let Some(Leaf::Patched(patched)) = patch.finish(Some(pack_name)) else { panic!("it is patched") };
        let chunk_bytes = ChunkSize::MIN.bytes();
        let mut expected = base.clone();
        expected.resize(ChunkSize::MIN.as_usize(), 0);
        expected[BLOCK..2 * BLOCK].fill(2);
        expected[9 * BLOCK..11 * BLOCK].fill(2);

        let mut objects = HashMap::from([(base_name, Bytes::from(base)), (pack_name, Bytes::from(pack))]);
        assert!(assemble(&patched, &objects, chunk_bytes) == Ok(expected));
        for short in [3 * BLOCK - 1, BLOCK - 1, 0] {
            objects.insert(pack_name, Bytes::from(vec![2; short]));
            let refused = assemble(&patched, &objects, chunk_bytes);
            assert!(matches!(refused, Err(Corrupt::Short { .. })), "{short}");
        }
    }
}
