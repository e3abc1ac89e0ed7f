//! Fuzz target of the qcow2 reader. `storage_core::fuzz` tells how to run it long.

use std::{fs::File, io::Write as _, os::unix::fs::FileExt as _};

use storage_core::fuzz::{CountingAllocator, Fuzz};

use super::{Compression, Header, Piece, Qcow2Error, Reader};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A tiny file may stand for gigabytes. So much of them is read for one input.
const READ_BYTES_MAX: usize = 8 << 20;

fn put(file: &mut Vec<u8>, at: usize, field: &[u8]) {
    if file.len() < at + field.len() {
        file.resize(at + field.len(), 0);
    }
    file[at..at + field.len()].copy_from_slice(field);
}

/// A file of five clusters: header, L1 table, L2 table, data, compressed data.
fn seed(version: u32, cluster_bits: u32, incompatible: u64, compressed: &[u8]) -> Vec<u8> {
    let cluster = 1u64 << cluster_bits;
    let mut file = Vec::new();
    let at = |number: u64| usize::try_from(number * cluster).expect("short");
    put(&mut file, 0, &super::MAGIC);
    put(&mut file, 4, &version.to_be_bytes());
    put(&mut file, 20, &cluster_bits.to_be_bytes());
    put(&mut file, 24, &(8 * cluster - 100).to_be_bytes());
    put(&mut file, 36, &1u32.to_be_bytes());
    put(&mut file, 40, &cluster.to_be_bytes());
    put(&mut file, 72, &incompatible.to_be_bytes());
    put(&mut file, 96, &4u32.to_be_bytes());
    put(&mut file, 100, &112u32.to_be_bytes());
    put(&mut file, 104, &[u8::from(incompatible & 8 != 0)]);

    put(&mut file, at(1), &((2 * cluster) | (1 << 63)).to_be_bytes());
    let extended = incompatible & 16 != 0;
    let zeros = if extended || version < 3 { 0 } else { 1 };
    let entries = [(3 * cluster) | (1 << 63), zeros, (4 * cluster) | (1 << 62), 0, 3 * cluster];
    for (number, entry) in (0..).zip(entries) {
        let slot = at(2) + number * if extended { 16 } else { 8 };
        put(&mut file, slot, &entry.to_be_bytes());
        if extended && entry & 1 << 62 == 0 && entry != 0 {
            // Some subclusters are allocated, some are zeros.
            put(&mut file, slot + 8, &0x0000_ff00_00ff_0001u64.to_be_bytes());
        }
    }
    put(&mut file, at(3), b"data");
    put(&mut file, at(4), compressed);
    file
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn read(file: &File, bytes: &[u8]) -> Result<(), Qcow2Error> {
    file.set_len(bytes.len() as u64)?;
    file.write_all_at(bytes, 0)?;
    let mut reader = Reader::open(file.try_clone()?, bytes.len() as u64)?;
    let size_bytes = reader.header().size_bytes;
    let mut buffer = Vec::new();
    let (mut given, mut data) = (0u64, 0);
    while let Some(piece) = reader.next(&mut buffer)? {
        given += match piece {
            Piece::Data(bytes) => {
                assert_eq!(bytes, buffer.len());
                data += bytes;
                bytes as u64
            }
            Piece::Zeros(bytes) => bytes,
        };
        assert!(given <= size_bytes, "{given} bytes of a disk of {size_bytes}");
        if data > READ_BYTES_MAX {
            return Ok(());
        }
    }
    assert_eq!(given, size_bytes);
    Ok(())
}

#[test]
fn fuzz_qcow2() {
    let text = b"the same words again ".repeat(1000);
    let zstd = zstd::bulk::compress(&text[..512], 1).expect("compresses");
    let seeds = [
        seed(2, 9, 0, &deflated(&text[..512])),
        seed(3, 9, 0, &deflated(&text[..512])),
        seed(3, 9, 8, &zstd),
        seed(3, 14, 16, &deflated(&text[..1 << 14])),
    ];
    let file = tempfile::tempfile().expect("a file");
    // One cluster of a table, one compressed, one expanded, each at most 4 MiB.
    let fuzz = Fuzz::new(seeds).memory_max(|bytes| (12 << 20) + bytes);
    fuzz.run(|bytes| {
        if let Ok(Header { compression: Compression::Zstd, version, .. }) = Header::parse(bytes) {
            assert_eq!(version, 3);
        }
        read(&file, bytes).map_err(|error| match error {
            // Names chosen by the file do not make an error of a new kind.
            Qcow2Error::BackingFile(_) => Qcow2Error::BackingFile(None),
            Qcow2Error::ExternalData(_) => Qcow2Error::ExternalData(None),
            error => error,
        })
    });
}
