//! A version with patched chunks (leaf tag 2) is read, partly overwritten, cut and saved, and the result is compared with a
//! byte vector. The test builds the version by hand, with every form of an entry.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests, on 64-bit hosts")]

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use super::world::*;
use muster_agent::mirror::{DiskWant, WritePolicy};
use muster_api::node_protocol::VersionRoot;
use storage_core::{
    ByteLen, ChunkSize, Compression, Descriptor, Kind, ObjectName, Record, Salt,
    store::ChunkStore,
    tree::{Leaf, Page, Patched, Run, RunSource},
};

const CHUNK: usize = 64 << 10;
const BLOCK: usize = 4096;
/// Size of the version. The last chunk is a partial one.
const BYTES: usize = 6 * CHUNK + 5 * BLOCK + 700;

struct Version {
    want: DiskWant,
    bytes: Vec<u8>,
}

fn put(store: &dyn ChunkStore, kind: Kind, body: &[u8]) -> ObjectName {
    let chunk = (kind == Kind::Chunk).then_some(ChunkSize::MIN);
    let record = Record::encode(kind, Salt::SHARED, chunk, body, Compression::Auto);
    store.put(1, std::slice::from_ref(&record)).unwrap();
    record.name()
}

fn run(first: u16, count: u16, source: RunSource) -> Run {
    Run { first, count, source }
}

fn pack(pack: u8, block: u16) -> RunSource {
    RunSource::Pack { pack, block }
}

/// A version with every form of an entry. One pack is shared by several entries.
fn version(store: &dyn ChunkStore) -> Version {
    let mut rng = Rng(77);
    let mut bytes = vec![0; BYTES];
    let packs: Vec<Vec<u8>> = (0..4).map(|n| rng.bytes((n + 4) * BLOCK)).collect();
    let names: Vec<ObjectName> = packs.iter().map(|body| put(store, Kind::Pack, body)).collect();
    let base = rng.bytes(CHUNK);
    let base_name = put(store, Kind::Chunk, &base);
    let short = rng.bytes(3 * BLOCK + 100);
    let short_name = put(store, Kind::Chunk, &short);
    let mut leaves: Vec<(u8, Leaf)> = vec![(0, Leaf::Whole(base_name))];
    bytes[..CHUNK].copy_from_slice(&base);
    let mut patched = |slot: u8, base: Option<(ObjectName, &[u8])>, of: &[usize], runs: Vec<Run>| {
        let chunk = &mut bytes[usize::from(slot) * CHUNK..];
        if let Some((_, body)) = base {
            chunk[..body.len()].copy_from_slice(body);
        }
        for run in &runs {
            let at = usize::from(run.first) * BLOCK;
            let into = &mut chunk[at..at + usize::from(run.count) * BLOCK];
            match run.source {
                RunSource::Zeros => into.fill(0),
                RunSource::Pack { pack, block } => {
                    let from = usize::from(block) * BLOCK;
                    into.copy_from_slice(&packs[of[usize::from(pack)]][from..from + into.len()]);
                }
            }
        }
        let of = of.iter().map(|n| names[*n]).collect();
        let entry = Patched::new(base.map(|(name, _)| name), of, runs).unwrap();
        leaves.push((slot, Leaf::Patched(Box::new(entry))));
    };
    // A base, partly replaced by a pack and by zeros.
    patched(
        1,
        Some((base_name, &base)),
        &[0],
        vec![run(0, 2, pack(0, 1)), run(5, 3, RunSource::Zeros), run(15, 1, pack(0, 0))],
    );
    // No base: blocks outside of all runs are zeros.
    patched(2, None, &[1, 2], vec![run(3, 4, pack(1, 2)), run(9, 5, pack(0, 0))]);
    // Chunk 3 is absent. Chunk 4 has four packs, and a base that is shorter than a chunk.
    let four = vec![run(2, 1, pack(3, 6)), run(3, 1, pack(0, 3)), run(8, 2, pack(2, 4)), run(12, 4, pack(1, 1))];
    patched(4, Some((short_name, &short)), &[0, 1, 2, 3], four);
    // A base, partly replaced by zeros only.
    patched(5, Some((base_name, &base)), &[], vec![run(1, 14, RunSource::Zeros)]);
    // The last chunk. The disk has only five blocks and a part of it.
    patched(6, Some((short_name, &short)), &[3], vec![run(0, 1, pack(0, 0)), run(4, 1, pack(0, 5))]);
    let page = Page::leaf(leaves).unwrap();
    let root = put(store, Kind::Page, &page.encode());
    let size = ByteLen(BYTES as u64);
    let descriptor = Descriptor { root: Some(root), ..Descriptor::empty(size, ChunkSize::MIN, Salt::SHARED) };
    put(store, Kind::Descriptor, &descriptor.encode());
    let plain = import(store, &vec![0; BYTES], ChunkSize::MIN);
    let root = VersionRoot {
        descriptor: hex::encode(descriptor.encode()),
        root_page: Some(hex::encode(page.encode())),
        commit: None,
    };
    Version { want: DiskWant { root, ..plain }, bytes }
}

fn open(path: &PathBuf) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

async fn over_patched_chunks(policy: WritePolicy) {
    let world = World::with(|config| config.write_policy = policy).await;
    let Version { want, mut bytes } = version(&*world.store);
    assert!(export(&*world.store, &want.root) == bytes, "the version was built correctly");
    bytes.resize(want.size_bytes as usize, 0);
    let path = world.ensure(&want).await.path;
    let read = {
        let path = path.clone();
        blocking(move || std::fs::read(path).unwrap()).await
    };
    assert!(read == bytes, "read");

    // Overwrite parts of blocks and chunks: in runs, in the base, outside of both, and in the absent chunk.
    let file = open(&path);
    let mut rng = Rng(5);
    let writes = [
        (CHUNK + 100, 200),
        (CHUNK + 5 * BLOCK - 10, BLOCK),
        (2 * CHUNK + 3 * BLOCK + 7, 3 * BLOCK),
        (2 * CHUNK, BLOCK),
        (3 * CHUNK + 4000, 200),
        (4 * CHUNK, CHUNK),
        (6 * CHUNK + 4 * BLOCK + 1, BLOCK),
    ];
    let writes: Vec<(usize, Vec<u8>)> = writes.into_iter().map(|(at, n)| (at, rng.bytes(n))).collect();
    for (at, written) in &writes {
        bytes[*at..at + written.len()].copy_from_slice(written);
    }
    let zeroed = CHUNK + 14 * BLOCK..2 * CHUNK;
    bytes[zeroed.clone()].fill(0);
    blocking(move || {
        for (at, written) in writes {
            file.write_all_at(&written, at as u64).unwrap();
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, zeroed.start as u64, zeroed.len() as u64).unwrap();
        file.sync_data().unwrap();
    })
    .await;
    let expected = bytes.clone();
    let again = path.clone();
    assert!(blocking(move || std::fs::read(again).unwrap()).await == expected, "after overwriting");

    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    assert!(export(&*world.store, &saved.root) == bytes, "the new version");
    // Chunks of which at most half is patched now are patched: 1, 3, 5, which was not written, and 6.
    let page = Page::decode(&hex::decode(saved.root.root_page.as_ref().unwrap()).unwrap()).unwrap();
    let tags: Vec<_> = page.entries().map(|(slot, leaf)| (slot, matches!(leaf, Leaf::Whole(_)))).collect();
    assert_eq!(tags, [(0, true), (1, false), (2, true), (3, false), (4, true), (5, false), (6, false)]);

    // The next process continues on the new version.
    let want = published(&want, &saved);
    world.ensure(&want).await;
    let world = world.restart().await;
    let path = world.ensure(&want).await.path;
    assert_eq!(world.disks.epochs(want.disk), Some(1));
    assert!(blocking(move || std::fs::read(path).unwrap()).await == bytes, "after the next start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patched_chunks_are_read_overwritten_and_saved() {
    over_patched_chunks(WritePolicy::Bitmap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patched_chunks_are_read_overwritten_and_saved_with_contiguous_writes() {
    over_patched_chunks(WritePolicy::Contiguous).await;
}
