//! Files that `qemu-img` writes are read as `qemu-img convert` reads them. Damaged and hostile files give an error.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use proptest::prelude::*;

use super::*;

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} must be there: {e}"));
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&said));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn open(path: &Path) -> Result<Reader, Qcow2Error> {
    let file = File::open(path).expect("opens");
    let bytes = file.metadata().expect("its length").len();
    Reader::open(file, bytes)
}

/// All bytes of a small disk.
fn read_all(reader: &mut Reader) -> Result<Vec<u8>, Qcow2Error> {
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    while let Some(piece) = reader.next(&mut buffer)? {
        match piece {
            Piece::Data(bytes) => {
                assert_eq!(bytes, buffer.len());
                all.extend_from_slice(&buffer);
            }
            Piece::Zeros(count) => all.resize(all.len() + usize::try_from(count).expect("small"), 0),
        }
    }
    Ok(all)
}

/// A disk with text, random bytes, zeros and holes, not a multiple of any cluster size.
fn sample(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0_u8; (9 << 20) + 512 * 3];
    let mut random = blake3::Hasher::new().update(b"sample").finalize_xof();
    random.fill(&mut bytes[700_000..1_900_000]);
    random.fill(&mut bytes[5 << 20..(5 << 20) + 512]);
    for (n, byte) in bytes[3 << 20..4 << 20].iter_mut().enumerate() {
        *byte = b"all work and no play "[n % 21];
    }
    let end = bytes.len();
    random.fill(&mut bytes[end - 1000..]);
    let mut file = File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("a length");
    for range in [700_000..1_900_000, 3 << 20..4 << 20, 5 << 20..(5 << 20) + 512, end - 1000..end] {
        file.seek(SeekFrom::Start(range.start as u64)).expect("seeks");
        file.write_all(&bytes[range]).expect("writes");
    }
    bytes
}

#[test]
fn files_by_qemu_img_are_read_as_qemu_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let raw = dir.path().join("disk.raw");
    let bytes = sample(&raw);
    let options: &[&[&str]] = &[
        &[],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=4k,refcount_bits=1"],
        &["-o", "cluster_size=2M"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=falloc"],
        &["-o", "preallocation=full"],
        &["-o", "lazy_refcounts=on"],
        &["-o", "extended_l2=on"],
        &["-o", "extended_l2=on,cluster_size=16k"],
        &["-c"],
        &["-c", "-o", "compat=0.10"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "compression_type=zstd,cluster_size=512k"],
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-c", "-o", "compression_type=zstd,extended_l2=on"],
        &["-S", "0"],
    ];
    for options in options {
        let image = dir.path().join("disk.qcow2");
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], *options, &[text(&raw), text(&image)]].concat());
        let mut reader = open(&image).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_eq!(reader.header().size_bytes, bytes.len() as u64, "{options:?}");
        let read = read_all(&mut reader).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert!(read == bytes, "{options:?}: other bytes");
    }
}

#[test]
fn clusters_written_zeroed_and_discarded_by_a_guest_are_read_as_qemu_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    for options in ["compat=1.1", "extended_l2=on", "compat=0.10", "lazy_refcounts=on", "cluster_size=4k"] {
        let (image, raw) = (dir.path().join("disk.qcow2"), dir.path().join("disk.raw"));
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, text(&image), "20M"]);
        let mut args = vec!["-f", "qcow2", "-d", "unmap"];
        for command in [
            "write -P 7 4k 4k",
            "write -P 9 1M 3M",
            "write -z 2M 64k",
            "write -z -u 2200k 8k",
            "discard 3M 128k",
            "write -P 3 19M 1M",
            "write -P 1 3100k 512",
            "write -c -P 5 10M 64k",
            "write -P 6 18374656 512",
        ] {
            args.extend(["-c", command]);
        }
        args.push(text(&image));
        run("qemu-io", &args);
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&image), text(&raw)]);
        let expected = std::fs::read(&raw).expect("reads");
        let read = read_all(&mut open(&image).expect("opens")).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(read == expected, "{options}: other bytes");
    }
}

#[test]
fn internal_snapshots_are_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "1M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 128k", text(&image)]);
    run("qemu-img", &["snapshot", "-c", "old", text(&image)]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 2 0 64k", text(&image)]);
    let read = read_all(&mut open(&image).expect("opens")).expect("reads");
    assert!(read[..64 << 10].iter().all(|b| *b == 2) && read[64 << 10..128 << 10].iter().all(|b| *b == 1));
}

#[test]
fn external_or_encrypted_content_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&at("base.qcow2")), "1M"]);
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&at("base.qcow2")), text(&at("top.qcow2"))],
    );
    let refused = open(&at("top.qcow2")).err().expect("refused");
    assert!(matches!(&refused, Qcow2Error::BackingFile(Some(name)) if name.ends_with("base.qcow2")), "{refused}");

    let options = format!("data_file={}", text(&at("data.raw")));
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, text(&at("outside.qcow2")), "1M"]);
    let refused = open(&at("outside.qcow2")).err().expect("refused");
    assert!(matches!(&refused, Qcow2Error::ExternalData(Some(name)) if name.ends_with("data.raw")), "{refused}");

    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=50";
    let luks = at("luks.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=geheim", "-o", options, text(&luks), "1M"];
    // `qemu-img` measures how fast the processor is for LUKS, and gives up when other tests keep it busy.
    assert!((0..50).any(|_| Command::new("qemu-img").args(args).output().expect("runs").status.success()));
    assert!(matches!(open(&at("luks.qcow2")), Err(Qcow2Error::Encrypted("LUKS"))));
}

/// A small real file, as bytes.
fn small(options: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, text(&image), "4M"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 256k", "-c", "write -c -P 2 1M 64k", text(&image)]);
    std::fs::read(&image).expect("reads")
}

fn open_bytes(bytes: &[u8]) -> Result<Reader, Qcow2Error> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("writes");
    Reader::open(file, bytes.len() as u64)
}

fn with(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn absurd_headers_are_refused() {
    let good = small("compat=1.1");
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut case = |name, at, new: &[u8]| cases.push((name, with(&good, at, new)));
    case("magic", 0, b"QFJ");
    case("version", 4, &9_u32.to_be_bytes());
    case("cluster_bits 8", 20, &8_u32.to_be_bytes());
    case("cluster_bits 22", 20, &22_u32.to_be_bytes());
    case("cluster_bits 2^31", 20, &(1_u32 << 31).to_be_bytes());
    case("size 0", 24, &0_u64.to_be_bytes());
    case("size over 16 TiB", 24, &((16_u64 << 40) + 1).to_be_bytes());
    case("size 2^63", 24, &(1_u64 << 63).to_be_bytes());
    case("size beyond its L1", 24, &(15_u64 << 40).to_be_bytes());
    case("crypt_method", 32, &7_u32.to_be_bytes());
    case("l1_size huge", 36, &u32::MAX.to_be_bytes());
    case("l1_size 0", 36, &0_u32.to_be_bytes());
    case("l1 unaligned", 40, &513_u64.to_be_bytes());
    case("l1 on the header", 40, &0_u64.to_be_bytes());
    case("l1 beyond the end", 40, &(1_u64 << 40).to_be_bytes());
    case("l1 overflows", 40, &0xffff_ffff_ffff_0000_u64.to_be_bytes());
    case("refcount table unaligned", 48, &5_u64.to_be_bytes());
    case("corrupt", 72, &2_u64.to_be_bytes());
    case("external data", 72, &4_u64.to_be_bytes());
    case("compression without its byte", 72, &8_u64.to_be_bytes());
    case("unknown feature", 72, &(1_u64 << 40).to_be_bytes());
    case("refcount_order", 96, &7_u32.to_be_bytes());
    case("header_length", 100, &3_u32.to_be_bytes());
    case("header_length huge", 100, &0xffff_fff8_u32.to_be_bytes());
    case("compression type", 104, &[9]);
    for (name, bytes) in cases {
        let refused = open_bytes(&bytes).err().unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(!matches!(refused, Qcow2Error::Io(_)), "{name}: {refused:?}");
    }
    assert!(open_bytes(&with(&good, 72, &1_u64.to_be_bytes())).is_ok(), "a dirty file is read");
}

/// Offsets of the L1 table and of the first L2 table.
fn tables(bytes: &[u8]) -> (usize, usize) {
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let l1 = usize::try_from(word(40)).expect("small");
    (l1, usize::try_from(word(l1) & 0x00ff_ffff_ffff_fe00).expect("small"))
}

fn reading(bytes: &[u8]) -> Result<Vec<u8>, Qcow2Error> {
    read_all(&mut open_bytes(bytes)?)
}

#[test]
fn impossible_table_entries_are_refused() {
    let good = small("compat=1.1");
    let (l1, l2) = tables(&good);
    assert!(reading(&good).is_ok());
    let cases: [(&str, usize, u64); 10] = [
        ("L1 reserved bit", l1, 1 << 60),
        ("L1 unaligned", l1, 512),
        ("L1 beyond the end", l1, 1 << 50),
        ("L1 points to the header's cluster", l1, 0),
        ("L2 reserved bit", l2, 1 << 58),
        ("L2 unaligned", l2, 512),
        ("L2 beyond the end", l2, 1 << 50),
        ("L2 points to the L1 table", l2, l1 as u64),
        ("L2 points to itself", l2, l2 as u64),
        ("L2 compressed beyond the end", l2, (1 << 62) | (1 << 40)),
    ];
    for (name, at, entry) in cases {
        let bytes = with(&good, at, &entry.to_be_bytes());
        if name.contains("header's cluster") {
            continue; // offset 0 means "no table", which is a disk of zeros
        }
        assert!(reading(&bytes).is_err(), "{name} was accepted");
    }
    let garbage = (1_u64 << 62) | l1 as u64;
    assert!(matches!(reading(&with(&good, l2, &garbage.to_be_bytes())), Err(Qcow2Error::Expand { .. })));
}

#[test]
fn a_truncated_file_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    sample(&raw);
    for options in [&["-q"][..], &["-c"]] {
        run("qemu-img", &[&["convert", "-O", "qcow2"], options, &[text(&raw), text(&image)]].concat());
        let bytes = std::fs::read(&image).expect("reads");
        for keep in [0, 3, 71, 103, 500, 1 << 16, 3 << 16, bytes.len() / 2, bytes.len() - (1 << 17)] {
            let refused = reading(&bytes[..keep]).err().unwrap_or_else(|| panic!("{keep} bytes were accepted"));
            assert!(matches!(refused, Qcow2Error::Truncated { .. } | Qcow2Error::Expand { .. }), "{keep}: {refused}");
        }
    }
}

#[test]
fn one_cluster_used_for_terabytes_is_refused() {
    // 16 TiB of disk out of one file of a few MiB: every entry points to the same data.
    let cluster = 2 << 20;
    let l2_entries = cluster / 8;
    let mut bytes = vec![0_u8; cluster * 4];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&2_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&21_u32.to_be_bytes());
    bytes[24..32].copy_from_slice(&((cluster * l2_entries) as u64).to_be_bytes());
    bytes[36..40].copy_from_slice(&1_u32.to_be_bytes());
    bytes[40..48].copy_from_slice(&(cluster as u64).to_be_bytes());
    bytes[cluster..cluster + 8].copy_from_slice(&(cluster as u64 * 2).to_be_bytes());
    for entry in 0..l2_entries {
        let at = cluster * 2 + entry * 8;
        bytes[at..at + 8].copy_from_slice(&(cluster as u64 * 3).to_be_bytes());
    }
    let mut reader = open_bytes(&bytes).expect("opens");
    let mut buffer = Vec::new();
    let mut read = 0;
    let refused = loop {
        match reader.next(&mut buffer) {
            Ok(Some(Piece::Data(bytes))) => read += bytes,
            Ok(other) => panic!("{other:?}"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Qcow2Error::Amplified), "{refused}");
    assert!(read <= bytes.len() * 33, "{read}");
}

#[test]
fn a_disk_of_16_tib_without_data_is_read_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "16T"]);
    let mut reader = open(&image).expect("opens");
    let mut buffer = Vec::new();
    assert_eq!(reader.next(&mut buffer).expect("reads"), Some(Piece::Zeros(16 << 40)));
    assert_eq!(reader.next(&mut buffer).expect("reads"), None);
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "17T"]);
    assert!(matches!(open(&image), Err(Qcow2Error::TooLarge(_))));
}

/// Reads up to 4096 pieces (the disk may have terabytes) and checks that lengths and memory stay within bounds.
fn survives(bytes: &[u8]) {
    let Ok(mut reader) = open_bytes(bytes) else { return };
    let size = reader.header().size_bytes;
    let (mut buffer, mut total) = (Vec::new(), 0_u64);
    for _ in 0..4096 {
        match reader.next(&mut buffer) {
            Ok(Some(Piece::Data(got))) => {
                assert_eq!(got, buffer.len());
                total += got as u64;
            }
            Ok(Some(Piece::Zeros(count))) => {
                assert!(count > 0);
                total += count;
            }
            Ok(None) => {
                assert_eq!(total, size);
                return;
            }
            Err(_) => return,
        }
        assert!(total <= size && buffer.capacity() <= 8 << 20, "{total} of {size}, {}", buffer.capacity());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn garbage_in_the_header_never_panics(changes in proptest::collection::vec((4_usize..112, any::<u8>()), 1..6)) {
        static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| small("compat=1.1"));
        let mut bytes = GOOD.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        survives(&bytes);
    }

    #[test]
    fn garbage_in_the_tables_never_panics(
        extended in any::<bool>(),
        changes in proptest::collection::vec((any::<bool>(), 0_usize..256, any::<u64>(), 0_u32..64), 1..8),
        keep in 0.2_f64..1.5,
    ) {
        static GOOD: std::sync::LazyLock<[Vec<u8>; 2]> =
            std::sync::LazyLock::new(|| [small("compat=1.1"), small("extended_l2=on")]);
        let mut bytes = GOOD[usize::from(extended)].clone();
        let (l1, l2) = tables(&bytes);
        for (first, entry, value, shift) in changes {
            let at = if first { l1 } else { l2 + entry * 8 };
            bytes[at..at + 8].copy_from_slice(&(value >> shift).to_be_bytes());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share")]
        let keep = (bytes.len() as f64 * keep) as usize;
        bytes.truncate(keep);
        survives(&bytes);
    }
}

#[test]
fn the_end_of_the_last_cluster_may_be_missing_and_reads_as_zeros() {
    let good = small("compat=1.1");
    let (_, l2) = tables(&good);
    let mut file = tempfile::tempfile().expect("a file");
    // The first cluster of the disk moves to the end of the file, of which only 4 KiB are there.
    let end = good.len().next_multiple_of(1 << 16) as u64;
    file.write_all(&with(&good, l2, &(end | (1 << 63)).to_be_bytes())).expect("writes");
    file.write_all_at(&[8; 4096], end).expect("writes");
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("seeks");
    file.read_to_end(&mut all).expect("reads");
    let read = reading(&all).expect("reads");
    assert!(read[..4096].iter().all(|b| *b == 8) && read[4096..1 << 16].iter().all(|b| *b == 0));
}
