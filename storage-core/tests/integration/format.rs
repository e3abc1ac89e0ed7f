//! The formats as `FORMAT.md` describes them and as released versions wrote them (`tests/fixtures/v1`, kept for ever).
//! When a test fails here, this release would not understand existing disks or other nodes.
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeMap, fs, io::IoSlice, path::PathBuf, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, ChunkStore, Compression, Corrupt, Descriptor, Kind, ObjectName, Record,
    RecordHeader, Salt, SegmentStore,
    record::{Encoding, Wire},
    store::{Disk as _, Options, SimDisk},
    tree::{self, Leaf, Lookup, Page, Patch, Patched, Reach, Run, RunSource},
};

const FORMAT: &str = include_str!("../../FORMAT.md");

fn fixture_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixture_path(name)).expect(name)
}

fn named(byte: u8) -> ObjectName {
    ObjectName::from_bytes([byte; 32])
}

fn whole_page() -> Page {
    Page::leaf([(0, Leaf::Whole(named(0xaa))), (65, Leaf::Whole(named(0xbb)))]).expect("not empty")
}

fn patched_page() -> Page {
    let runs = vec![
        Run { first: 0, count: 2, source: RunSource::Pack { pack: 0, block: 5 } },
        Run { first: 2, count: 1, source: RunSource::Zeros },
        Run { first: 60, count: 4, source: RunSource::Pack { pack: 1, block: 0 } },
    ];
    let based = Patched::new(Some(named(0xcc)), vec![named(0xd0), named(0xd1)], runs.clone()).expect("in order");
    let bare = Patched::new(None, vec![named(0xd0)], runs[..1].to_vec()).expect("in order");
    let entries = [Leaf::Whole(named(0xaa)), Leaf::Patched(Box::new(based)), Leaf::Patched(Box::new(bare))];
    Page::leaf([0, 3, 255].into_iter().zip(entries)).expect("not empty")
}

fn inner_page() -> Page {
    Page::inner(1, [(1, whole_page().name(Salt::SHARED)), (254, named(0xee))]).expect("not empty")
}

fn descriptor() -> Descriptor {
    let root = Some(inner_page().name(Salt::SHARED));
    Descriptor { root, ..Descriptor::empty(ByteLen(10 << 30), ChunkSize::DEFAULT, Salt::SHARED) }
}

fn raw_record() -> Record {
    let chunk = Some(ChunkSize::DEFAULT);
    Record::encode(Kind::Chunk, Salt::SHARED, chunk, b"muster", Compression::Auto).with_round(7)
}

/// What this release writes. It must be what the first one wrote, byte for byte.
fn written_by_this_release() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("page-whole", whole_page().encode()),
        ("page-patched", patched_page().encode()),
        ("page-inner", inner_page().encode()),
        ("descriptor", descriptor().encode().to_vec()),
        ("record-raw", raw_record().to_bytes()),
        ("record-absent", RecordHeader::absent(named(0x99)).encode().to_vec()),
    ])
}

#[test]
fn this_release_writes_what_the_first_one_wrote() {
    for (name, bytes) in written_by_this_release() {
        if std::env::var_os("MUSTER_NEW_FIXTURES").is_some() && !fixture_path(name).exists() {
            fs::write(fixture_path(name), &bytes).expect("writes");
        }
        assert_eq!(bytes, fixture(name), "{name}");
    }
}

#[test]
fn commits_patch_chunks_as_the_fixture_has_them() {
    let runs = vec![Run { first: 0, count: 2, source: RunSource::Pack { pack: 0, block: 5 } }];
    let before = Patched::new(Some(named(0xcc)), vec![named(0xd0)], runs).expect("in order");
    let mut based = Patch::new(Some(&Leaf::Patched(Box::new(before))), ChunkSize::DEFAULT);
    based.zero(2..3);
    based.replace(60..62, 0);
    based.replace(62..64, 2);
    let mut bare = Patch::new(None, ChunkSize::DEFAULT);
    bare.replace(0..2, 5);
    bare.zero(2..9);
    let entries = [Some(Leaf::Whole(named(0xaa))), based.finish(Some(named(0xd1))), bare.finish(Some(named(0xd0)))];
    let page = Page::leaf([0, 3, 255].into_iter().zip(entries.into_iter().flatten())).expect("not empty");
    assert_eq!(page.encode(), fixture("page-patched"));
}

/// The chunks that are patched by one commit name the same pack.
#[test]
fn a_page_of_patched_chunks_is_stored_in_a_third_of_its_bytes_and_one_of_names_as_it_is() {
    let noise = |n: u64| ObjectName::of(Kind::Pack, Salt::SHARED, &n.to_le_bytes());
    let whole = (0..256).map(|chunk| (ChunkIndex(chunk), Some(Leaf::Whole(noise(chunk)))));
    let patched = (0..256u64).map(|chunk| {
        let packs = (0..4).map(|n| noise(1000 + 4 * (chunk / 4) + n)).collect();
        let runs = (0..16).map(|n: u8| {
            let block = u16::try_from(chunk % 4).expect("small") + 4 * u16::from(n / 4);
            Run { first: u16::from(n) * 4, count: 1, source: RunSource::Pack { pack: n % 4, block } }
        });
        let leaf = Patched::new(Some(noise(chunk)), packs, runs.collect()).expect("in order");
        (ChunkIndex(chunk), Some(Leaf::Patched(Box::new(leaf))))
    });
    let empty = Descriptor::empty(ByteLen(64 << 20), ChunkSize::DEFAULT, Salt::SHARED);
    let page = |changes: BTreeMap<ChunkIndex, Option<Leaf>>| {
        let Lookup::Found(committed) = tree::commit(&empty, empty.size_bytes, &changes, &|_| None).expect("commits")
        else {
            panic!("an empty disk has no pages to miss")
        };
        let records = committed.records();
        let page = records.iter().find(|record| record.body().kind == Kind::Page).expect("one page").clone();
        assert_eq!(page.verify().expect("it is good").body, committed.root_page.expect("it has one"));
        (page.stored().len(), page.body().encoding)
    };
    let (names, raw) = page(whole.collect());
    assert_eq!((names, raw), (48 + 256 * 33, Encoding::Raw));
    let (packs, zstd) = page(patched.collect());
    assert_eq!(zstd, Encoding::Zstd);
    let canonical = 48 + 256 * (1 + 1 + 32 + 1 + 4 * 32 + 2 + 16 * 7);
    assert!(packs < canonical / 3, "{packs} of {canonical}");
}

#[test]
fn this_release_reads_what_the_first_one_wrote() {
    assert_eq!(Page::decode(&fixture("page-whole")), Ok(whole_page()));
    assert_eq!(Page::decode(&fixture("page-patched")), Ok(patched_page()));
    assert_eq!(Page::decode(&fixture("page-inner")), Ok(inner_page()));
    assert_eq!(Descriptor::decode(&fixture("descriptor")), Ok(descriptor()));
    let record = Record::decode(&fixture("record-raw").into()).expect("decodes").prove().expect("verifies");
    assert_eq!((record.name(), record.body().round), (raw_record().name(), 7));
    let mut absent = Bytes::from(fixture("record-absent"));
    assert!(matches!(Record::take(&mut absent), Ok(Some(Wire::Absent(name))) if name == named(0x99)));
}

/// Compressors may change, but what one wrote must stay readable.
#[test]
fn a_compressed_record_of_the_first_release_is_read() {
    let body = b"It is the same line, again and again.\n".repeat(100);
    if std::env::var_os("MUSTER_NEW_FIXTURES").is_some() && !fixture_path("record-zstd").exists() {
        let chunk = Some(ChunkSize::DEFAULT);
        let record = Record::encode(Kind::Chunk, Salt::SHARED, chunk, &body, Compression::Auto);
        fs::write(fixture_path("record-zstd"), record.to_bytes()).expect("writes");
    }
    let record = Record::decode(&fixture("record-zstd").into()).expect("decodes");
    assert_eq!(record.body().encoding, Encoding::Zstd);
    assert_eq!(record.verify().expect("verifies").body, body);
}

#[test]
fn a_tree_with_patched_chunks_is_looked_up_and_survives_a_commit_beside_them() {
    let page = Arc::new(Page::decode(&fixture("page-patched")).expect("decodes"));
    let root = page.name(Salt::SHARED);
    let base =
        Descriptor { root: Some(root), ..Descriptor::empty(ByteLen(64 << 20), ChunkSize::DEFAULT, Salt::SHARED) };
    let pages = |name: &ObjectName| (*name == root).then(|| page.clone());
    let found = tree::lookup(&base, ChunkIndex(3)..ChunkIndex(4), &pages).expect("whole").found().expect("at hand");
    let Some(Leaf::Patched(patched)) = &found[0].1 else { panic!("{found:?}") };
    assert_eq!((patched.base(), patched.packs().len(), patched.runs().len()), (Some(&named(0xcc)), 2, 3));

    let change = BTreeMap::from([(ChunkIndex(255), Some(Leaf::Whole(named(1))))]);
    let Ok(Lookup::Found(committed)) = tree::commit(&base, base.size_bytes, &change, &pages) else { panic!("commits") };
    let new = Page::decode(&committed.root_page.expect("has one")).expect("decodes");
    assert_eq!((new.entry(3), new.entry(255)), (page.entry(3), Some(&Leaf::Whole(named(1)))));
    let mut reached = Reach::new();
    assert_eq!(reached.add(&base, &pages), Ok(Lookup::Found(())));
    assert!([0xaa, 0xcc, 0xd0, 0xd1].into_iter().all(|n| reached.contains(&named(n))));

    // A chunk size without block 63 cannot have such an entry.
    let small = Descriptor { root: Some(root), ..Descriptor::empty(ByteLen(1 << 20), ChunkSize::MIN, Salt::SHARED) };
    let wrong = tree::lookup(&small, ChunkIndex(0)..ChunkIndex(16), &pages);
    assert!(matches!(wrong, Err(Corrupt::Field { .. })), "{wrong:?}");
}

#[test]
fn a_segment_of_the_first_release_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(fixture_path("segment-0000000001"), folder.path().join("segment-0000000001")).expect("copies");
    let store = SegmentStore::open(folder.path(), Options::default()).expect("opens");
    assert_eq!((store.opened().torn_bytes, store.opened().damaged_bytes), (0, 0));
    let listed = store.list(None, 10).expect("lists");
    let chunk = raw_record().name();
    assert_eq!(
        listed.iter().map(|l| (l.name, l.round)).collect::<Vec<_>>(),
        [(chunk, 9)],
        "stamped, the other dropped"
    );
    assert_eq!(store.load(&chunk).expect("reads").expect("is here").body, b"muster"[..]);
    store
        .put(10, &[Record::encode(Kind::Page, Salt::SHARED, None, &whole_page().encode(), Compression::Off)])
        .expect("puts");
    store.close().expect("closes");
    assert_eq!(SegmentStore::open(folder.path(), Options::default()).expect("opens").usage().objects, 2);
}

/// Compares the hex dumps of FORMAT.md: "```hex NAME", then lines of offset, bytes and a comment after "|".
#[test]
fn the_worked_examples_are_the_bytes_of_the_fixtures() {
    let mut examples = 0;
    for block in FORMAT.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a name");
        let dump = rest.split("```").next().expect("an end");
        let mut bytes = Vec::new();
        for line in dump.lines() {
            let (offset, rest) = line.split_once("  ").expect("an offset");
            assert_eq!(usize::from_str_radix(offset, 16), Ok(bytes.len()), "{name}: {line}");
            let hex = rest.split('|').next().expect("bytes").split_whitespace();
            bytes.extend(hex.map(|byte| u8::from_str_radix(byte, 16).expect("hex")));
        }
        assert_eq!(bytes, fixture(name), "{name}");
        examples += 1;
    }
    assert!(examples >= 5, "{examples}");
}

#[test]
fn the_names_in_the_document_are_the_names() {
    let muster = b"muster";
    let rows = [
        ("chunk, 64 KiB", ObjectName::of_chunk(Salt::SHARED, ChunkSize::MIN, muster)),
        ("chunk, 256 KiB", ObjectName::of_chunk(Salt::SHARED, ChunkSize::DEFAULT, muster)),
        ("pack", ObjectName::of(Kind::Pack, Salt::SHARED, muster)),
        ("page", ObjectName::of(Kind::Page, Salt::SHARED, muster)),
        ("descriptor", ObjectName::of(Kind::Descriptor, Salt::SHARED, muster)),
        ("page, salt 01…01", ObjectName::of(Kind::Page, Salt([1; 16]), muster)),
    ];
    for (what, name) in rows {
        let row = format!("| {what} | `{name}` |");
        assert!(FORMAT.contains(&row), "FORMAT.md does not have the row {row}");
    }
}

/// A decoder given any bytes answers an error, or something that encodes to the same bytes. It never panics.
fn decoders_do_not_panic(bytes: &[u8]) {
    if let Ok(page) = Page::decode(bytes) {
        assert_eq!(page.encode(), bytes);
    }
    if let Ok(descriptor) = Descriptor::decode(bytes) {
        assert_eq!(descriptor.encode(), bytes);
    }
    if let Ok(header) = RecordHeader::decode(bytes) {
        assert!(header.stored_len() <= 4 << 20);
        assert_eq!(header.encode(), bytes[..RecordHeader::BYTES]);
    }
    let mut stream = Bytes::copy_from_slice(bytes);
    while let Ok(Some(wire)) = Record::take(&mut stream) {
        if let Wire::Present(record) = wire {
            let _ = record.verify();
        }
    }
}

/// The bytes with valid checksums, once for each format, so that the code behind the checks is reached.
fn resealed(mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut out = vec![bytes.clone()];
    let seal = |bytes: &mut Vec<u8>, at: usize, crc: u32| {
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    };
    if bytes.len() >= 48 {
        let mut page = bytes.clone();
        page[..5].copy_from_slice(b"MSP1\x01");
        let len = u32::try_from(page.len() - 48).expect("small");
        page[8..12].copy_from_slice(&len.to_le_bytes());
        let slots: u32 = page[16..48].iter().map(|b| b.count_ones()).sum();
        page[6..8].copy_from_slice(&u16::try_from(slots).expect("256").to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&page[..12]), &page[16..]);
        seal(&mut page, 12, crc);
        out.push(page);
    }
    if bytes.len() >= 80 {
        let mut record = bytes.clone();
        record[..4].copy_from_slice(b"MSR1");
        let crc = crc32c::crc32c(&record[..76]);
        seal(&mut record, 76, crc);
        out.push(record);
    }
    if bytes.len() >= 128 {
        bytes[..8].copy_from_slice(b"MUSTERD\0");
        let crc = crc32c::crc32c(&bytes[..124]);
        seal(&mut bytes, 124, crc);
        out.push(bytes);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        resealed(bytes).iter().for_each(|bytes| decoders_do_not_panic(bytes));
    }

    #[test]
    fn changed_fixtures_are_an_error_and_never_a_panic(
        which in 0..7usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let names = ["page-whole", "page-patched", "page-inner", "descriptor", "record-raw", "record-zstd", "record-absent"];
        let mut bytes = fixture(names[which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let kept = cut.index(bytes.len() * 2).min(bytes.len());
        bytes.truncate(kept);
        resealed(bytes).iter().for_each(|bytes| decoders_do_not_panic(bytes));
    }

    #[test]
    fn records_of_every_kind_and_length_come_back(
        kind in 0..4usize,
        salt in any::<[u8; 16]>(),
        body in prop::collection::vec(0..8u8, 1..5000),
        compression in prop::sample::select(vec![Compression::Auto, Compression::Off]),
        round in any::<u64>(),
    ) {
        let kind = [Kind::Chunk, Kind::Pack, Kind::Page, Kind::Descriptor][kind];
        let mut body = body;
        body.truncate(4096);
        body.push(1);
        body.remove(0);
        let chunk = (kind == Kind::Chunk).then_some(ChunkSize::MIN);
        let record = Record::encode(kind, Salt(salt), chunk, &body, compression).with_round(round);
        let mut wire = Bytes::from([record.to_bytes(), RecordHeader::absent(named(3)).encode().to_vec()].concat());
        let Some(Wire::Present(back)) = Record::take(&mut wire).expect("decodes") else { panic!("is present") };
        prop_assert_eq!(back.header(), record.header());
        prop_assert_eq!(&back.verify().expect("verifies").body, &body);
        prop_assert!(matches!(Record::take(&mut wire), Ok(Some(Wire::Absent(_)))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A segment file of any bytes is opened without a panic, and no wrong object comes out of it.
    #[test]
    fn a_damaged_segment_opens_or_is_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = fixture("segment-0000000001");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        let disk = SimDisk::new();
        disk.create("segment-0000000001").expect("creates").write(0, &mut [IoSlice::new(&bytes)]).expect("writes");
        if let Ok(store) = SegmentStore::open_on(Arc::new(disk), Options::default()) {
            for name in store.names().expect("lists") {
                if let Some(object) = store.load(&name).expect("reads") {
                    prop_assert_eq!(object.name, name);
                }
            }
        }
    }
}
