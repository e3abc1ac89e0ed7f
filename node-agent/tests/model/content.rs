//! Content: what guests write, how an image is stored, and the bytes of a version as a reader outside of the nodes gets them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use muster_api::node_protocol::VersionRoot;
use muster_pool::PoolClient;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Descriptor, Kind, ObjectName, Record, Salt,
    power::Random,
    tree::{self, Leaf, Lookup, Page, RunSource},
    units::usize_from,
    zero::is_zero,
};
use tokio::time::Instant;

use crate::rows::descriptor;

pub(crate) const CHUNK: usize = 64 << 10;
pub(crate) const BLOCK: usize = 4096;
/// Chunks that occur in many places, so that commits and imports find objects that are there already.
const COMMON: u64 = 5;

pub(crate) fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
    words.flatten().take(bytes).collect()
}

/// Bytes that a guest writes at `at`: noise, zeros, or bytes that others have at the same place of a chunk.
pub(crate) fn written(seed: u64, at: usize, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    match random.below(6) {
        0 => vec![0; len],
        1 => vec![7; len],
        2 | 3 => {
            let common = noise(&mut Random(1000 + random.below(COMMON)), CHUNK);
            common.iter().copied().cycle().skip(at % CHUNK).take(len).collect()
        }
        _ => noise(&mut random, len),
    }
}

/// The bytes of an image: chunks of noise, of zeros, and common ones.
pub(crate) fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut image = Vec::with_capacity(bytes);
    // A large image is mostly holes.
    let holes = if bytes > 20 * CHUNK { 95 } else { 25 };
    while image.len() < bytes {
        let part = CHUNK.min(bytes - image.len());
        if random.below(100) < holes {
            image.resize(image.len() + part, 0);
        } else {
            image.extend(written(random.next_u64(), image.len(), part));
        }
    }
    image
}

/// The records of an image, and its root.
pub(crate) fn records(image: &[u8]) -> (Vec<Record>, VersionRoot) {
    let mut changes = BTreeMap::new();
    let mut records = Vec::new();
    for (index, body) in (0..).zip(image.chunks(CHUNK)).filter(|(_, body)| !is_zero(body)) {
        let record = Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::MIN), body, Compression::Auto);
        changes.insert(ChunkIndex(index), Some(Leaf::Whole(record.name())));
        records.push(record);
    }
    let size = ByteLen(image.len() as u64);
    let empty = Descriptor::empty(size, ChunkSize::MIN, Salt::SHARED);
    let committed = tree::commit(&empty, size, &changes, &|_| None).expect("commits").found().expect("no page to miss");
    records.extend(committed.records());
    let root = VersionRoot {
        descriptor: hex::encode(committed.descriptor.encode()),
        root_page: committed.root_page.as_deref().map(hex::encode),
        commit: None,
    };
    (records, root)
}

/// Reads a version from the pool, as an export does.
pub(crate) async fn export(client: &PoolClient, root: &VersionRoot, bytes: usize) -> Vec<u8> {
    let descriptor = descriptor(root);
    get(client, &[descriptor.name()]).await;
    let mut pages: HashMap<ObjectName, Arc<Page>> = HashMap::new();
    let leaves = loop {
        let found = tree::lookup_present(&descriptor, ChunkIndex(0)..ChunkIndex(descriptor.chunks()), &|name| {
            pages.get(name).cloned()
        });
        match found.expect("the tree is whole") {
            Lookup::Found(leaves) => break leaves,
            Lookup::Missing(names) => {
                let got = get(client, &names).await;
                pages.extend(got.into_iter().map(|(n, body)| (n, Arc::new(Page::decode(&body).expect("a page")))));
            }
        }
    };
    let names: HashSet<ObjectName> = leaves.iter().flat_map(|(_, leaf)| leaf.objects().copied()).collect();
    let objects = get(client, &names.into_iter().collect::<Vec<_>>()).await;
    let mut all = vec![0; bytes.next_multiple_of(CHUNK)];
    for (index, leaf) in leaves {
        patch(&mut all[usize_from(index.0) * CHUNK..][..CHUNK], &leaf, &objects);
    }
    all.truncate(bytes);
    all
}

async fn get(client: &PoolClient, names: &[ObjectName]) -> HashMap<ObjectName, Bytes> {
    let got = client.get(names, Instant::now() + Duration::from_secs(20)).await.expect("the pool has it");
    got.into_iter().map(|got| (got.object.name, got.object.body)).collect()
}

fn patch(chunk: &mut [u8], leaf: &Leaf, objects: &HashMap<ObjectName, Bytes>) {
    let base = match leaf {
        Leaf::Whole(name) => Some(name),
        Leaf::Patched(patched) => patched.base(),
    };
    if let Some(body) = base.map(|name| &objects[name]) {
        chunk[..body.len()].copy_from_slice(body);
    }
    let Leaf::Patched(patched) = leaf else { return };
    for run in patched.runs() {
        let into = &mut chunk[usize::from(run.first) * BLOCK..][..usize::from(run.count) * BLOCK];
        match run.source {
            RunSource::Zeros => into.fill(0),
            RunSource::Pack { pack, block } => {
                let pack = &objects[&patched.packs()[usize::from(pack)]];
                into.copy_from_slice(&pack[usize::from(block) * BLOCK..][..into.len()]);
            }
        }
    }
}
