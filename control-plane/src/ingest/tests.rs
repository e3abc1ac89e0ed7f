//! Imports into a pool of one store, and exports from it again.

use std::{ops::Range, path::Path, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use muster_pool::PoolClient;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use storage_core::{ChunkSize, ChunkStore as _, Kind, MemoryStore, Salt};
use tokio::time::Instant;

use super::{
    encoding::{Encoding, EncodingError},
    format::{Format, FormatError},
    import::{Imported, IngestError, Stated, Target, import},
    pace::{PaceError, Slowest},
    qcow2::Qcow2Error,
    spool::SpoolError,
};
use crate::{
    domain::versions::Content,
    export::{content, extents::extents, reach},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

struct World {
    store: Arc<MemoryStore>,
    target: Target,
    spool: tempfile::TempDir,
}

fn world(chunk_bytes: u64) -> World {
    let store = Arc::new(MemoryStore::new());
    let target = Target {
        pool: PoolClient::local_only(store.clone()),
        round: 1,
        chunk: ChunkSize::from_bytes(chunk_bytes).expect("a chunk size"),
        salt: Salt::SHARED,
        slowest: Slowest::default(),
    };
    World { store, target, spool: tempfile::tempdir().expect("a folder") }
}

impl World {
    async fn import(&self, stated: Stated, bytes: &[u8], split: usize) -> Result<Imported, IngestError> {
        import(&self.target, stated, self.spool.path(), frames(bytes, split)).await
    }

    async fn export(&self, content: &Content, range: Range<u64>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut stream = Box::pin(content::stream(self.target.pool.clone(), content, range));
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece.expect("readable"));
        }
        all
    }
}

fn frames(bytes: &[u8], split: usize) -> impl Stream<Item = Result<Bytes, String>> + Send + Unpin + use<> {
    let frames: Vec<_> = bytes.chunks(split).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(frames)
}

/// Random data, repeated data and zeros, in parts that match no chunk boundary.
fn sample(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    let mut random = blake3::Hasher::new().update(b"sample").finalize_xof();
    for (n, chunk) in bytes.chunks_mut(100_000).enumerate() {
        match n % 5 {
            0 => random.fill(chunk),
            1 => chunk.fill(7),
            2 => random.fill(&mut chunk[..10]),
            _ => {}
        }
    }
    bytes
}

const ZSTD: Stated = Stated { format: None, sha256: None, encoding: Encoding::Zstd, length: None };

/// A zstd frame with a checksum, made by the library.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("a parameter");
    std::io::Write::write_all(&mut encoder, bytes).expect("encodes");
    encoder.finish().expect("ends")
}

/// The header of a zstd frame with this window descriptor (RFC 8878, 3.1.1.1.2).
fn frame_head(window: u8) -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0, window]
}

/// A zstd block of 128 KiB of zeros that is not the last one of its frame.
const ZEROS_BLOCK: [u8; 4] = [0x02, 0x00, 0x10, 0];

fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img must be there");
    assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[tokio::test(flavor = "multi_thread")]
async fn n_bytes_in_are_n_bytes_out() {
    for len in [1, 511, 4096, 64 * KIB, 256 * KIB + 1, 3 * MIB + 12345] {
        let bytes = sample(len);
        for (chunk, split) in [(64 * KIB, 7777), (256 * KIB, 1 << 20)] {
            let world = world(chunk);
            let imported = world.import(Stated::default(), &bytes, split).await.expect("imports");
            assert_eq!(imported.content.size_bytes(), len);
            assert_eq!(imported.digest, Some(blake3::hash(&bytes)));
            assert!(world.export(&imported.content, 0..len).await == bytes, "{len} {chunk}: other bytes");
            assert_eq!(imported.tally.bytes(), world.store.usage().bytes, "everything stored is of this version");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_zeros_stores_only_a_descriptor() {
    let world = world(256 * KIB);
    let imported = world.import(Stated::default(), &vec![0; 5 << 20], 65536).await.expect("imports");
    assert_eq!(imported.content.root_page(), None);
    assert_eq!(world.store.usage().objects, 1);
    assert_eq!(world.export(&imported.content, MIB..MIB + 9).await, [0; 9]);
    let found = extents(world.target.pool.clone(), &imported.content, 0, 10).await.expect("reads");
    assert_eq!((found.items.len(), found.next), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_is_the_range_of_the_original() {
    let bytes = sample(9 * MIB + 321);
    let len = bytes.len() as u64;
    let world = world(64 * KIB);
    let imported = world.import(Stated::default(), &bytes, 100_000).await.expect("imports");
    let ranges = [
        0..1,
        len - 1..len,
        0..len,
        65535..65537,
        65536..131_072,
        199_990..300_010,
        350_000..350_001,
        5 * MIB..5 * MIB,
        4 * MIB + 1..9 * MIB,
    ];
    for range in ranges {
        let at = |n: u64| usize::try_from(n).expect("small");
        let expected = &bytes[at(range.start)..at(range.end)];
        assert!(world.export(&imported.content, range.clone()).await == expected, "{range:?}: other bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_import_equals_the_import_of_its_raw_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let (raw, image) = (dir.path().join("a.raw"), dir.path().join("a.qcow2"));
    let bytes = sample(20 * MIB + 512);
    std::fs::write(&raw, &bytes).expect("writes");
    let world = world(256 * KIB);
    let plain = world.import(Stated::default(), &bytes, 1 << 18).await.expect("imports");
    for options in [&["-W"][..], &["-c"], &["-c", "-o", "compression_type=zstd"], &["-o", "extended_l2=on"]] {
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &[text(&raw), text(&image)]].concat());
        let sent = std::fs::read(&image).expect("reads");
        let stated = Stated {
            sha256: Some(Sha256::digest(&sent).into()),
            length: Some(sent.len() as u64),
            format: Some(Format::Qcow2),
            encoding: Encoding::Identity,
        };
        let before = world.store.usage();
        let encoded = Stated { encoding: Encoding::Zstd, length: None, ..stated };
        for (stated, body) in [(stated, sent.clone()), (encoded, compressed(&sent))] {
            let imported = world.import(stated, &body, 70_001).await.expect("imports");
            assert_eq!(imported.content, plain.content, "the same bytes make the same tree");
            assert_eq!(imported.digest, plain.digest);
        }
        assert_eq!(world.store.usage(), before, "nothing new is stored");
        assert_eq!(std::fs::read_dir(world.spool.path()).expect("lists").count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_in_formats_of_other_hypervisors_are_refused_with_a_command_that_converts_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let raw = dir.path().join("a.raw");
    std::fs::write(&raw, sample(MIB)).expect("writes");
    let world = world(256 * KIB);
    for (format, options) in [
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vdi", ""),
        ("vpc", ""),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", ""),
        ("qed", ""),
        ("parallels", ""),
    ] {
        let (image, back) = (dir.path().join("a.foreign"), dir.path().join("back.qcow2"));
        let options = if options.is_empty() { vec![] } else { vec!["-o", options] };
        let to = [&["convert", "-f", "raw", "-O", format], &options[..], &[text(&raw), text(&image)]].concat();
        qemu_img(&to);
        let sent = std::fs::read(&image).expect("reads");
        let refused = world.import(Stated::default(), &sent, 70_001).await.expect_err("refused");
        let IngestError::Format(FormatError::NotADisk { mend, .. }) = refused else { panic!("{format}: {refused}") };
        let (_, command) = mend.split_once("qemu-img ").expect("a command");
        let command = command.split(')').next().expect("a text").replace("FILE", text(&image));
        let words: Vec<&str> = command.split(' ').map(|w| if w == "disk.qcow2" { text(&back) } else { w }).collect();
        qemu_img(&words);
        let sent = std::fs::read(&back).expect("reads");
        let imported = world.import(Stated::default(), &sent, 70_001).await.expect("imports");
        let len = imported.content.descriptor().size_bytes.get();
        assert!(len >= MIB, "{format}: {len} bytes");
        let disk = world.export(&imported.content, 0..MIB).await;
        assert!(disk == std::fs::read(&raw).expect("reads"), "{format}: other bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_image_is_refused() {
    let world = world(256 * KIB);
    let refused = world.import(Stated::default(), b"", 1).await.expect_err("refused");
    assert!(matches!(refused, IngestError::Format(FormatError::Empty)));
    let gzip = [b"\x1f\x8b\x08".as_slice(), &[1; 2000]].concat();
    let refused = world.import(Stated::default(), &gzip, 1).await.expect_err("refused");
    assert!(matches!(refused, IngestError::Format(FormatError::NotADisk { .. })));
    let raw = Stated { format: Some(Format::Raw), ..Stated::default() };
    assert!(world.import(raw, &gzip, 1).await.is_ok());
    let refused = world.import(Stated::default(), b"QFI\xfb\0\0\0\x03", 3).await.expect_err("refused");
    assert!(matches!(refused, IngestError::Qcow2(Qcow2Error::Truncated { .. })), "{refused}");
    let huge = Stated { length: Some((16 << 40) + 1), ..Stated::default() };
    assert!(matches!(world.import(huge, b"x", 1).await, Err(IngestError::TooLarge(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sha256_or_an_early_end_of_the_body_makes_no_tree() {
    let world = world(64 * KIB);
    let bytes = sample(MIB);
    let stated = Stated { sha256: Some([1; 32]), ..Stated::default() };
    let refused = world.import(stated, &bytes, 4096).await.expect_err("refused");
    assert!(matches!(refused, IngestError::DigestMismatch { .. }));
    let broken = frames(&bytes, 4096).take(100).chain(stream::once(async { Err("reset".to_owned()) }.into_future()));
    let refused = import(&world.target, Stated::default(), world.spool.path(), Box::pin(broken)).await;
    assert!(matches!(refused, Err(IngestError::Body(PaceError::Broken(why))) if why == "reset"));
    let descriptors = world.store.names().expect("lists").into_iter().filter(|name| {
        let object = world.store.load(name).expect("reads").expect("there");
        object.kind == Kind::Descriptor
    });
    assert_eq!(descriptors.count(), 0, "no tree was finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_refused_by_its_header_ends_the_upload_early() {
    let dir = tempfile::tempdir().expect("a folder");
    let (base, top) = (dir.path().join("base.qcow2"), dir.path().join("top.qcow2"));
    qemu_img(&["create", "-q", "-f", "qcow2", text(&base), "1M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&top)]);
    let head = std::fs::read(&top).expect("reads");
    let world = world(64 * KIB);
    // The body never ends, neither plain nor as four bytes that stand for 128 KiB.
    let plain = frames(&head, 4096).chain(stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))));
    let mut begun = compressed(&head);
    begun.extend(frame_head(0x38));
    let bomb = frames(&begun, 4096).chain(stream::repeat_with(|| Ok(Bytes::from(ZEROS_BLOCK.repeat(64)))));
    for (stated, body) in [(Stated::default(), plain.boxed()), (ZSTD, bomb.boxed())] {
        let importing = import(&world.target, stated, world.spool.path(), body);
        let refused = tokio::time::timeout(Duration::from_secs(20), importing).await.expect("in time");
        assert!(matches!(refused, Err(IngestError::Qcow2(Qcow2Error::BackingFile(_)))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_inside_a_zstd_frame_is_an_error() {
    let world = world(64 * KIB);
    let (bytes, first) = (sample(MIB), compressed(b"one"));
    let body = [first.clone(), compressed(&bytes)].concat();
    let within = [1, 3, 5, first.len() - 1, first.len() + 1, body.len() / 2, body.len() - 1];
    for (end, split) in within.into_iter().flat_map(|end| [(end, 1000), (end, usize::MAX)]) {
        let refused = world.import(ZSTD, &body[..end], split).await.expect_err("refused");
        assert!(matches!(refused, IngestError::Body(PaceError::Broken(_))), "{end}: {refused}");
    }
    let imported = world.import(ZSTD, &body, 1000).await.expect("imports");
    assert_eq!(imported.digest, Some(blake3::Hasher::new().update(b"one").update(&bytes).finalize()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_zstd_data_is_refused() {
    let world = world(64 * KIB);
    let bytes = sample(MIB);
    let good = compressed(&bytes);
    let mut bad_checksum = good.clone();
    *bad_checksum.last_mut().expect("a checksum") ^= 1;
    let followed = [&good[..], b"and something else"].concat();
    let needs_dictionary = [0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 0, 1, 0, 0].to_vec();
    for body in [bytes, bad_checksum, followed, needs_dictionary, vec![0; 2000]] {
        for split in [1000, usize::MAX] {
            let refused = world.import(ZSTD, &body, split).await.expect_err("refused");
            assert!(matches!(refused, IngestError::Encoding(EncodingError::BadZstd { .. })), "{refused}");
        }
    }
    let refused = world.import(ZSTD, &compressed(b""), 5).await.expect_err("refused");
    assert!(matches!(refused, IngestError::Format(FormatError::Empty)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_more_than_8_mib_is_refused() {
    let world = world(64 * KIB);
    let last = [0x09, 0, 0, b'x'];
    let eight = [frame_head(0x68), last.to_vec()].concat();
    assert_eq!(world.import(ZSTD, &eight, 3).await.expect("imports").digest, Some(blake3::hash(b"x")));
    // 9 MiB, and the 2 GiB of `zstd --ultra --long=31`.
    for window in [0x69, 0xa8] {
        let body = [frame_head(window), last.to_vec()].concat();
        let refused = world.import(ZSTD, &body, 3).await.expect_err("refused");
        assert!(matches!(refused, IngestError::Encoding(EncodingError::WindowTooLarge)), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_zstd_frame_is_refused_by_its_header() {
    let world = world(64 * KIB);
    let promising = |length: u64, content: &[u8]| {
        let head = u32::try_from(content.len() << 3).expect("small").to_le_bytes();
        [&[0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x38], &length.to_le_bytes()[..], &head[..3], content].concat()
    };
    let limit = 16_u64 << 40;
    let qcow2 = [&b"QFI\xfb\0\0\0\x03"[..], &[0; 100_000]].concat();
    for (length, content) in [(limit + 1, vec![7; 100_000]), (limit, qcow2)] {
        let body = frames(&promising(length, &content), usize::MAX).chain(stream::pending());
        let importing = import(&world.target, ZSTD, world.spool.path(), body.boxed());
        let refused = tokio::time::timeout(Duration::from_secs(20), importing).await.expect("in time");
        let expected = match refused {
            Err(IngestError::TooLarge(got)) => got == limit + 1,
            Err(IngestError::Spool(SpoolError::Full { wanted_bytes, .. })) => wanted_bytes == limit,
            _ => false,
        };
        assert!(expected, "{:?}", refused.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stated_sha256_is_of_the_decoded_content() {
    let world = world(64 * KIB);
    let bytes = sample(MIB);
    let body = compressed(&bytes);
    let stated = |of: &[u8]| Stated { sha256: Some(Sha256::digest(of).into()), ..ZSTD };
    assert!(world.import(stated(&bytes), &body, 4096).await.is_ok());
    let refused = world.import(stated(&body), &body, 4096).await.expect_err("refused");
    assert!(matches!(refused, IngestError::DigestMismatch { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_few_bytes_need_little_memory() {
    let size = ChunkSize::from_bytes(4 * MIB).expect("a chunk size");
    let mut chunker = super::chunker::Chunker::new(size);
    let mut cuts = Vec::new();
    for _ in 0..3 {
        chunker.push(b"some", &mut |cut| cuts.push(cut));
        chunker.push_zeros(4 * MIB - 4, &mut |cut| cuts.push(cut));
    }
    assert_eq!(cuts.len(), 3);
    for cut in cuts {
        let body: Vec<u8> = cut.body.into();
        assert!(body.capacity() < 1000, "{}", body.capacity());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_are_the_runs_of_chunks_with_data() {
    let world = world(64 * KIB);
    let mut bytes = vec![0_u8; 64 * 1024 * 40 + 100];
    for chunk in [0, 1, 2, 7, 9, 40] {
        bytes[chunk * 65536 + 5] = 1;
    }
    let imported = world.import(Stated::default(), &bytes, 65536).await.expect("imports");
    let pool = || world.target.pool.clone();
    let all = extents(pool(), &imported.content, 0, 100).await.expect("reads");
    let pairs: Vec<_> = all.items.iter().map(|e| (e.offset_bytes / 65536, e.length_bytes)).collect();
    assert_eq!(pairs, [(0, 3 * 65536), (7, 65536), (9, 65536), (40, 100)]);
    let first = extents(pool(), &imported.content, 0, 2).await.expect("reads");
    assert_eq!((&first.items[..], first.next), (&all.items[..2], Some(9 * 65536)));
    let rest = extents(pool(), &imported.content, 9 * 65536, 2).await.expect("reads");
    assert_eq!((&rest.items[..], rest.next), (&all.items[2..], None));
    let size = u64::try_from(bytes.len()).expect("a size");
    let end = extents(pool(), &imported.content, size - 1, 2).await.expect("reads");
    assert_eq!(end.items.iter().map(|e| (e.offset_bytes, e.length_bytes)).collect::<Vec<_>>(), [(size - 1, 1)]);
    for outside in [size, size + 1, 41 * 65536, u64::MAX] {
        let none = extents(pool(), &imported.content, outside, 2).await.expect("reads");
        assert_eq!((none.items.len(), none.next), (0, None), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freed_bytes_are_those_that_no_other_version_reaches() {
    let world = world(64 * KIB);
    let soon = || Instant::now() + Duration::from_secs(20);
    let bytes = sample(2 * MIB);
    let one = world.import(Stated::default(), &bytes, 65536).await.expect("imports");
    let alone = world.store.usage().bytes;
    let mut other = bytes.clone();
    other[0] ^= 1;
    let two = world.import(Stated::default(), &other, 65536).await.expect("imports");
    let added = world.store.usage().bytes - alone;
    let pool = &world.target.pool;
    let (a, b) = ([one.content.clone()], [two.content.clone()]);
    let kept = [*one.content.descriptor()];
    let reached = Some(one.tally.bytes());
    assert_eq!(reach::exclusive_bytes(pool, &a, reached, &[], soon()).await.expect("known"), alone);
    assert_eq!(reach::exclusive_bytes(pool, &a, None, &[], soon()).await.expect("known"), alone);
    assert_eq!(reach::exclusive_bytes(pool, &a, reached, &kept, soon()).await.expect("known"), 0);
    assert_eq!(reach::exclusive_bytes(pool, &b, None, &kept, soon()).await.expect("known"), added);
    let objects = two.tally.objects().expect("few");
    assert_eq!(reach::new_bytes(pool, objects, &kept, soon()).await.expect("known"), added);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_disk_in_any_split_is_exported_unchanged(
        parts in proptest::collection::vec((any::<u8>(), 1_usize..300_000), 1..10),
        split in 1000_usize..500_000,
    ) {
        let mut bytes = Vec::new();
        for (value, len) in parts {
            bytes.resize(bytes.len() + len, if value < 128 { 0 } else { value });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        runtime.block_on(async {
            let world = world(64 * KIB);
            let stated = Stated { format: Some(Format::Raw), ..Stated::default() };
            let imported = world.import(stated, &bytes, split).await.expect("imports");
            assert_eq!(imported.digest, Some(blake3::hash(&bytes)));
            assert!(world.export(&imported.content, 0..bytes.len() as u64).await == bytes, "other bytes");
        });
    }
    #[test]
    fn zstd_frames_in_any_split_are_decoded_to_the_content(
        parts in proptest::collection::vec((any::<u8>(), 0_usize..400_000, 0_u8..4), 1..8),
        split in prop_oneof![1_usize..20, 1000_usize..500_000],
    ) {
        let (mut bytes, mut body) = (Vec::new(), Vec::new());
        for (value, len, kind) in parts {
            let mut part = sample(len as u64);
            if value < 128 {
                part.fill(0);
            }
            match kind {
                // A frame without a checksum, with its length in the header.
                0 => body.extend(zstd::bulk::compress(&part, 3).expect("compresses")),
                1 => body.extend(compressed(&part)),
                // Blocks without compression, as `muster image import` sends them.
                2 => {
                    body.extend(frame_head(0x38));
                    for block in part.chunks(100_000) {
                        let head = u32::try_from(block.len() << 3).expect("small").to_le_bytes();
                        body.extend([&head[..3], block].concat());
                    }
                    body.extend([1, 0, 0]);
                }
                // A skippable frame, which has no content.
                _ => {
                    body.extend([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
                    continue;
                }
            }
            bytes.extend(part);
        }
        prop_assume!(!bytes.is_empty());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        runtime.block_on(async {
            let world = world(64 * KIB);
            let stated = Stated { format: Some(Format::Raw), sha256: Some(Sha256::digest(&bytes).into()), ..ZSTD };
            let imported = world.import(stated, &body, split).await.expect("imports");
            assert_eq!(imported.content.size_bytes(), bytes.len() as u64);
            assert_eq!(imported.digest, Some(blake3::hash(&bytes)));
            assert!(world.export(&imported.content, 0..bytes.len() as u64).await == bytes, "other bytes");
        });
    }
}
