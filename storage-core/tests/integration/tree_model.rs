//! The segment tree against plain byte vectors: random writes, commits, clones, growths and deletes. After each step
//! every version reads back byte for byte and reaches exactly the objects it needs. Each operation starts without any
//! page and fetches those that it reports missing from a store.
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use proptest::prelude::*;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, ChunkStore, Compression, Corrupt, Descriptor, Kind, MemoryStore, ObjectName,
    Record, Salt,
    tree::{self, Committed, Leaf, Leaving, Lookup, Page, Pages, Patch, Reach},
    zero::is_zero,
};

const CHUNK: ChunkSize = ChunkSize::MIN;
const BLOCK: usize = 4096;
const SALT: Salt = Salt([5; 16]);

/// Calls an operation again with the missing pages, fetched from the store, until it answers.
fn fetching<T, E: std::fmt::Debug>(store: &MemoryStore, mut ask: impl FnMut(&Pages<'_>) -> Result<Lookup<T>, E>) -> T {
    let mut cache: HashMap<ObjectName, Arc<Page>> = HashMap::new();
    for _ in 0..10 {
        match ask(&|name| cache.get(name).cloned()).expect("the tree is whole") {
            Lookup::Found(answer) => return answer,
            Lookup::Missing(names) => {
                assert!(!names.is_empty());
                for name in names {
                    let page = store.load(&name).expect("memory").expect("every page of a version is in the store");
                    let page = Page::decode(&page.body).expect("a page");
                    assert!(cache.insert(name, Arc::new(page)).is_none(), "{name} was asked for twice");
                }
            }
        }
    }
    panic!("a tree has at most six levels, so six batches are enough");
}

fn put(store: &MemoryStore, committed: &Committed) {
    store.put(1, &committed.records()).expect("memory");
}

/// A version, and the bytes that it should have.
#[derive(Clone)]
struct Version {
    bytes: Vec<u8>,
    descriptor: Descriptor,
}

/// A disk that is being written to.
#[derive(Clone)]
struct Disk {
    bytes: Vec<u8>,
    base: Descriptor,
    /// Numbers of the blocks that were written since the base.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u32, len: u32, byte: u8 },
    Commit,
    Clone { version: prop::sample::Index },
    Delete { version: prop::sample::Index },
    Grow { by: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (any::<u32>(), prop_oneof![1..20_000u32, 1..200_000u32], prop_oneof![1 => Just(0u8), 3 => 0..4u8]);
    let step = prop_oneof![
        8 => write.prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        4 => Just(Step::Commit),
        1 => any::<prop::sample::Index>().prop_map(|version| Step::Clone { version }),
        1 => any::<prop::sample::Index>().prop_map(|version| Step::Delete { version }),
        1 => (1..6_000_000u32).prop_map(|by| Step::Grow { by }),
    ];
    prop::collection::vec(step, 1..24)
}

fn chunk_of(bytes: &[u8], index: u64) -> &[u8] {
    let start = usize::try_from(index * CHUNK.bytes()).expect("small").min(bytes.len());
    &bytes[start..(start + CHUNK.as_usize()).min(bytes.len())]
}

/// The entries of the chunks that were written. Each chunk that may be patched gets a pack of its own.
fn entries(store: &MemoryStore, disk: &mut Disk) -> BTreeMap<ChunkIndex, Option<Leaf>> {
    let mut dirty: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let per_chunk = usize::from(CHUNK.blocks());
    for block in std::mem::take(&mut disk.dirty) {
        dirty.entry((block / per_chunk) as u64).or_default().push(block);
    }
    let put = |record: Record| {
        store.put(1, std::slice::from_ref(&record)).expect("memory");
        record.name()
    };
    let mut changes = BTreeMap::new();
    for (index, blocks) in dirty {
        let old = fetching(store, |pages| tree::lookup(&disk.base, ChunkIndex(index)..ChunkIndex(index + 1), pages));
        // There is none for a chunk beyond the end of the base.
        let old = old.into_iter().next().and_then(|(_, leaf)| leaf);
        let mut patch = Patch::new(old.as_ref(), CHUNK);
        let mut pack = Vec::new();
        for block in blocks {
            let place = u16::try_from(block % per_chunk).expect("small");
            let bytes = &disk.bytes[block * BLOCK..disk.bytes.len().min((block + 1) * BLOCK)];
            if is_zero(bytes) {
                patch.zero(place..place + 1);
            } else {
                patch.replace(place..place + 1, u16::try_from(pack.len() / BLOCK).expect("small"));
                pack.extend_from_slice(bytes);
                pack.resize(pack.len().next_multiple_of(BLOCK), 0);
            }
        }
        if let Some(Leaving { pack: left, blocks }) = patch.to_leave() {
            let left = store.load(&left).expect("memory").expect("it is reached").body;
            for (place, from) in blocks {
                patch.replace(place..place + 1, u16::try_from(pack.len() / BLOCK).expect("small"));
                pack.extend_from_slice(&left[usize::from(from) * BLOCK..][..BLOCK]);
            }
        }
        let body = chunk_of(&disk.bytes, index);
        let leaf = if patch.is_mostly_base(u16::try_from(body.len().div_ceil(BLOCK)).expect("small")) {
            let pack =
                (!pack.is_empty()).then(|| put(Record::encode(Kind::Pack, SALT, None, &pack, Compression::Auto)));
            patch.finish(pack)
        } else {
            let whole = || put(Record::encode(Kind::Chunk, SALT, Some(CHUNK), body, Compression::Auto));
            (!is_zero(body)).then(|| Leaf::Whole(whole()))
        };
        changes.insert(ChunkIndex(index), leaf);
    }
    changes
}

fn commit(store: &MemoryStore, disk: &mut Disk) -> Descriptor {
    let changes = entries(store, disk);
    let size = ByteLen(disk.bytes.len() as u64);
    let committed = fetching(store, |pages| tree::commit(&disk.base, size, &changes, pages));
    let new: HashSet<_> = committed.pages.iter().map(|(name, _)| *name).collect();
    assert_eq!(new.len(), committed.pages.len(), "each page once");
    if changes.is_empty() && size == disk.base.size_bytes {
        assert_eq!((committed.descriptor, new.len()), (disk.base, 0), "a clean disk stores no new object");
    }
    put(store, &committed);
    let root = committed.descriptor.root;
    assert_eq!(committed.root_page.as_ref().map(|p| ObjectName::of(Kind::Page, SALT, p)), root);
    assert_eq!(Descriptor::decode(&committed.descriptor.encode()), Ok(committed.descriptor));
    disk.base = committed.descriptor;
    disk.base
}

fn read_back(store: &MemoryStore, version: &Version) {
    let all = ChunkIndex(0)..ChunkIndex(u64::MAX);
    let found = fetching(store, |pages| tree::lookup(&version.descriptor, all.clone(), pages));
    assert_eq!(found.len() as u64, version.descriptor.chunks());
    let mut present = Vec::new();
    for (index, leaf) in found {
        let expected = chunk_of(&version.bytes, index.0);
        let load =
            |name: &ObjectName| store.load(name).expect("memory").expect("every object of a version is there").body;
        match &leaf {
            None => assert!(is_zero(expected), "chunk {index}"),
            Some(Leaf::Whole(name)) => {
                let body = load(name);
                let (head, tail) = expected.split_at(body.len());
                assert!(head == body && is_zero(tail), "chunk {index}");
            }
            Some(Leaf::Patched(patched)) => {
                assert!(patched.packs().len() <= 4, "chunk {index}");
                let patched_blocks: usize = patched.runs().iter().map(|run| usize::from(run.count)).sum();
                assert!(patched_blocks <= usize::from(CHUNK.blocks() / 2), "chunk {index}");
                for blocks in [1, 3, usize::from(CHUNK.blocks())] {
                    for (n, expected) in expected.chunks(blocks * BLOCK).enumerate() {
                        let mut got = vec![1; expected.len().next_multiple_of(BLOCK)];
                        let first = u16::try_from(n * blocks).expect("small");
                        let read = patched.read(first, &mut got, |name, kind, offset, into| {
                            let mut body = load(name).to_vec();
                            if kind == Kind::Chunk {
                                body.resize(CHUNK.as_usize(), 0);
                            }
                            into.copy_from_slice(body.get(offset..offset + into.len()).ok_or(offset)?);
                            Ok::<(), usize>(())
                        });
                        assert_eq!(read, Ok(()), "chunk {index}");
                        let (head, tail) = got.split_at(expected.len());
                        assert!(head == expected && is_zero(tail), "chunk {index} from block {first} on");
                    }
                }
            }
        }
        present.extend(leaf.map(|leaf| (index, leaf)));
    }
    assert_eq!(fetching(store, |pages| tree::lookup_present(&version.descriptor, all.clone(), pages)), present);
}

fn reached(store: &MemoryStore, roots: &[Descriptor]) -> HashSet<ObjectName> {
    let mut reach = Reach::new();
    roots.iter().for_each(|root| fetching(store, |pages| reach.add(root, pages)));
    reach.names().clone()
}

fn reaches_what_it_needs(store: &MemoryStore, version: &Version) {
    let reached = reached(store, &[version.descriptor]);
    let of_kind = |kind| {
        let is =
            |name: &&ObjectName| store.get(name).expect("memory").expect("what it reaches is there").kind() == kind;
        reached.iter().filter(is).copied().collect::<HashSet<_>>()
    };
    let all = ChunkIndex(0)..ChunkIndex(u64::MAX);
    let present = fetching(store, |pages| tree::lookup_present(&version.descriptor, all.clone(), pages));
    let objects: HashSet<ObjectName> = present.iter().flat_map(|(_, leaf)| leaf.objects()).copied().collect();
    assert_eq!(&of_kind(Kind::Chunk) | &of_kind(Kind::Pack), objects);
    assert_eq!(of_kind(Kind::Descriptor), HashSet::from([version.descriptor.name()]));
    assert_eq!(reached.len(), objects.len() + 1 + of_kind(Kind::Page).len());
    // The bound on space: a chunk of the version keeps at most its base and four packs alive.
    assert!(objects.len() <= 5 * present.len());
}

/// A store with only what the versions reach.
fn sweep(store: &MemoryStore, versions: &[Version], disk: &Disk) -> MemoryStore {
    let mut roots: Vec<Descriptor> = versions.iter().map(|v| v.descriptor).collect();
    roots.push(disk.base);
    let kept = MemoryStore::new();
    for name in reached(store, &roots) {
        kept.put(2, &store.get(&name).expect("memory").into_iter().collect::<Vec<_>>()).expect("memory");
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn versions_read_as_byte_vectors_do(start in 1..20_000_000u32, steps in steps()) {
        let bytes = vec![0; usize::try_from(start).expect("small")];
        let empty = Descriptor::empty(ByteLen(start.into()), CHUNK, SALT);
        let mut disk = Disk { bytes: bytes.clone(), base: empty, dirty: BTreeSet::new() };
        let mut versions = vec![Version { bytes, descriptor: empty }];
        let mut store = MemoryStore::new();
        let descriptor = empty.encode();
        store.put(1, &[Record::encode(Kind::Descriptor, SALT, None, &descriptor, Compression::Off)]).expect("memory");
        for step in steps {
            match step {
                Step::Write { at, len, byte } => {
                    let start = usize::try_from(at).expect("small") % disk.bytes.len();
                    let end = (start + usize::try_from(len).expect("small")).min(disk.bytes.len());
                    disk.bytes[start..end].fill(byte);
                    disk.dirty.extend(start / BLOCK..=(end - 1) / BLOCK);
                    continue;
                }
                Step::Commit => {
                    let descriptor = commit(&store, &mut disk);
                    versions.push(Version { bytes: disk.bytes.clone(), descriptor });
                }
                Step::Clone { version } => {
                    if versions.is_empty() { continue; }
                    let Version { bytes, descriptor } = version.get(&versions).clone();
                    disk = Disk { bytes, base: descriptor, dirty: BTreeSet::new() };
                    continue;
                }
                Step::Delete { version } => {
                    if versions.is_empty() { continue; }
                    versions.remove(version.index(versions.len()));
                    store = sweep(&store, &versions, &disk);
                }
                Step::Grow { by } => {
                    let size = disk.bytes.len() + usize::try_from(by).expect("small");
                    disk.bytes.resize(size, 0);
                    continue;
                }
            }
            for version in &versions {
                read_back(&store, version);
            }
            if let Some(newer) = versions.last() {
                reaches_what_it_needs(&store, newer);
            }
        }
    }

    /// Large disks with several levels, against a map from chunk to name.
    #[test]
    fn large_sparse_disks_read_as_maps_do(
        sizes in prop::collection::vec(1..1u64 << 46, 1..6),
        touched in prop::collection::vec((any::<u64>(), any::<u8>()), 0..120),
    ) {
        let store = MemoryStore::new();
        let mut sizes = sizes;
        sizes.sort_unstable();
        let mut model: BTreeMap<u64, ObjectName> = BTreeMap::new();
        let mut base = Descriptor::empty(ByteLen(0), CHUNK, SALT);
        for (round, size) in sizes.iter().enumerate() {
            let chunks = size.div_ceil(CHUNK.bytes());
            let mut changes = BTreeMap::new();
            for (index, byte) in touched.iter().skip(round).step_by(sizes.len()) {
                // Some changes are close together, some far apart.
                let index = if byte % 2 == 0 { index % chunks } else { index % chunks.min(600) };
                let name = (byte % 5 != 0).then(|| ObjectName::from_bytes([byte % 7; 32]));
                changes.insert(ChunkIndex(index), name.map(Leaf::Whole));
                match name {
                    Some(name) => model.insert(index, name),
                    None => model.remove(&index),
                };
            }
            let committed = fetching(&store, |pages| tree::commit(&base, ByteLen(*size), &changes, pages));
            put(&store, &committed);
            base = committed.descriptor;
            prop_assert!(committed.pages.len() <= (changes.len() + 1) * 6);

            let all = ChunkIndex(0)..base.end();
            let found = fetching(&store, |pages| tree::lookup_present(&base, all.clone(), pages));
            let expected: Vec<_> = model.iter().map(|(i, n)| (ChunkIndex(*i), Leaf::Whole(*n))).collect();
            prop_assert_eq!(&found, &expected);
            for (index, _) in touched.iter().take(10) {
                let from = index % chunks;
                let range = ChunkIndex(from)..ChunkIndex(from + 300);
                let found = fetching(&store, |pages| tree::lookup(&base, range.clone(), pages));
                prop_assert_eq!(found.len() as u64, 300.min(chunks - from));
                for (i, leaf) in found {
                    prop_assert_eq!(leaf, model.get(&i.0).map(|n| Leaf::Whole(*n)));
                }
            }
        }
    }
}

fn whole(byte: u8) -> Option<Leaf> {
    Some(Leaf::Whole(ObjectName::from_bytes([byte; 32])))
}

fn many(count: u64, store: &MemoryStore) -> Committed {
    let changes = (0..count).map(|i| (ChunkIndex(i), whole(1))).collect();
    let empty = Descriptor::empty(ByteLen(count * CHUNK.bytes()), CHUNK, SALT);
    let committed = fetching(store, |pages| tree::commit(&empty, empty.size_bytes, &changes, pages));
    put(store, &committed);
    committed
}

#[test]
fn equal_subtrees_share_one_page() {
    let store = MemoryStore::new();
    assert_eq!(many(256 * 256, &store).pages.len(), 2);
}

#[test]
fn a_change_of_one_chunk_writes_one_page_per_level() {
    let store = MemoryStore::new();
    let base = many(256 * 256 + 1, &store).descriptor;
    assert_eq!(base.height(), 3);
    let changes = BTreeMap::from([(ChunkIndex(777), whole(2))]);
    let committed = fetching(&store, |pages| tree::commit(&base, base.size_bytes, &changes, pages));
    assert_eq!(committed.pages.len(), 3);
    assert_eq!(committed.pages.last().map(|(_, bytes)| bytes.clone()), committed.root_page);
}

#[test]
fn the_same_change_again_writes_nothing() {
    let store = MemoryStore::new();
    let base = many(300, &store).descriptor;
    let changes = BTreeMap::from([(ChunkIndex(7), whole(1))]);
    let committed = fetching(&store, |pages| tree::commit(&base, base.size_bytes, &changes, pages));
    assert_eq!((committed.descriptor, committed.pages.len()), (base, 0));
    assert!(committed.root_page.is_some());
}

#[test]
fn growing_adds_levels_above_the_old_root_and_reads_nothing_below_it() {
    let store = MemoryStore::new();
    let base = many(300, &store).descriptor;
    let grown = tree::commit(&base, ByteLen(1 << 40), &BTreeMap::new(), &|_| None)
        .expect("grows")
        .found()
        .expect("no page is needed");
    assert_eq!((base.height(), grown.descriptor.height(), grown.pages.len()), (2, 3, 1));
    put(&store, &grown);
    let found = fetching(&store, |p| tree::lookup_present(&grown.descriptor, ChunkIndex(0)..ChunkIndex(u64::MAX), p));
    assert_eq!(found.len(), 300);
    let refused = tree::commit(&grown.descriptor, ByteLen((1 << 40) - 1), &BTreeMap::new(), &|_| None);
    assert!(matches!(refused, Err(tree::TreeError::Shrinks { .. })));
}

#[test]
fn zeroing_everything_leaves_no_tree() {
    let store = MemoryStore::new();
    let base = many(600, &store).descriptor;
    let zeros = (0..600).map(|i| (ChunkIndex(i), None)).collect();
    let committed = fetching(&store, |pages| tree::commit(&base, base.size_bytes, &zeros, pages));
    assert_eq!(committed.descriptor, Descriptor::empty(base.size_bytes, CHUNK, SALT));
    assert_eq!((committed.pages.len(), committed.root_page), (0, None));
}

#[test]
fn a_change_beyond_the_end_is_refused() {
    let base = Descriptor::empty(ByteLen(CHUNK.bytes()), CHUNK, SALT);
    let changes = BTreeMap::from([(ChunkIndex(1), None)]);
    let refused = tree::commit(&base, base.size_bytes, &changes, &|_| None);
    assert_eq!(refused, Err(tree::TreeError::OutOfRange { index: ChunkIndex(1), chunks: 1 }));
}

#[test]
fn missing_pages_come_in_one_batch_per_level() {
    let store = MemoryStore::new();
    let changes: BTreeMap<_, _> =
        (0..200u64).map(|i| (ChunkIndex(i * 256), whole(u8::try_from(i).expect("small")))).collect();
    let empty = Descriptor::empty(ByteLen(200 * 256 * CHUNK.bytes()), CHUNK, SALT);
    let base = fetching(&store, |pages| tree::commit(&empty, empty.size_bytes, &changes, pages));
    put(&store, &base);
    let root = base.descriptor.root.expect("not empty");
    let root_page = Arc::new(Page::decode(&base.root_page.expect("not empty")).expect("a page"));
    let only_root = |name: &ObjectName| (*name == root).then(|| root_page.clone());
    let range = |r: Range<u64>| ChunkIndex(r.start)..ChunkIndex(r.end);
    match tree::lookup(&base.descriptor, range(256..256 * 11), &only_root).expect("whole") {
        Lookup::Missing(names) => assert_eq!(names.len(), 10),
        Lookup::Found(_) => panic!("ten pages are not at hand"),
    }
    let zeroed: BTreeMap<_, _> = changes.keys().map(|i| (*i, None)).collect();
    match tree::commit(&base.descriptor, empty.size_bytes, &zeroed, &only_root).expect("whole") {
        Lookup::Missing(names) => assert_eq!(names.len(), 200),
        Lookup::Found(_) => panic!("200 pages are not at hand"),
    }
}

#[test]
fn a_page_in_the_wrong_place_is_an_error() {
    let store = MemoryStore::new();
    let committed = many(300, &store);
    let leaf = Arc::new(Page::decode(&committed.pages[0].1).expect("a page"));
    let wrong = tree::lookup(&committed.descriptor, ChunkIndex(0)..ChunkIndex(1), &|_| Some(leaf.clone()));
    assert!(matches!(wrong, Err(Corrupt::Field { .. })));
    assert!(Reach::new().add(&committed.descriptor, &|_| Some(leaf.clone())).is_err());
}
