//! Fuzz targets of the public decoders. That of segments is at the foot of `store/scan.rs`. `fuzz.rs` tells how to run
//! them long.

use bytes::Bytes;

use crate::{
    Corrupt, Descriptor, ObjectName, Record, RecordHeader,
    fuzz::{CountingAllocator, Fuzz},
    object::InvalidObjectName,
    record::Wire,
    tree::Page,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PAGE_WHOLE: &[u8] = include_bytes!("../tests/fixtures/v1/page-whole");
const PAGE_PATCHED: &[u8] = include_bytes!("../tests/fixtures/v1/page-patched");
const PAGE_INNER: &[u8] = include_bytes!("../tests/fixtures/v1/page-inner");
const DESCRIPTOR: &[u8] = include_bytes!("../tests/fixtures/v1/descriptor");
const RECORD_RAW: &[u8] = include_bytes!("../tests/fixtures/v1/record-raw");
const RECORD_ZSTD: &[u8] = include_bytes!("../tests/fixtures/v1/record-zstd");
const RECORD_ABSENT: &[u8] = include_bytes!("../tests/fixtures/v1/record-absent");

/// Writes into the bytes from an offset on, as far as they go.
fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

fn crc_of(bytes: &[u8], until: usize) -> [u8; 4] {
    crc32c::crc32c(bytes.get(..until).unwrap_or(bytes)).to_le_bytes()
}

#[test]
fn fuzz_page() {
    let reseal = |bytes: &mut [u8]| {
        let (Some(bitmap), Some(entries)) = (bytes.get(16..48), bytes.get(48..)) else { return };
        let slots: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
        let (slots, len) = (slots.to_le_bytes(), entries.len().to_le_bytes());
        put(bytes, 0, b"MSP1");
        put(bytes, 6, slots.first_chunk::<2>().expect("of four"));
        put(bytes, 8, len.first_chunk::<4>().expect("of eight"));
        let rest = bytes.get(16..).expect("has a bitmap");
        let crc = crc32c::crc32c_append(crc32c::crc32c(bytes.get(..12).expect("has a bitmap")), rest);
        put(bytes, 12, &crc.to_le_bytes());
    };
    let seeds = [PAGE_WHOLE, PAGE_PATCHED, PAGE_INNER].map(<[u8]>::to_vec);
    Fuzz::new(seeds).reseal(reseal).run(|bytes| -> Result<(), Corrupt> {
        let page = Page::decode(bytes)?;
        assert_eq!(page.encode(), bytes, "a page has one form");
        assert_eq!(page.entries().count() + page.children().count(), page.count());
        Ok(())
    });
}

#[test]
fn fuzz_descriptor() {
    let reseal = |bytes: &mut [u8]| {
        put(bytes, 0, b"MUSTERD\0\x01\0");
        let crc = crc_of(bytes, Descriptor::BYTES - 4);
        put(bytes, Descriptor::BYTES - 4, &crc);
    };
    Fuzz::new([DESCRIPTOR.to_vec()]).reseal(reseal).run(|bytes| -> Result<(), Corrupt> {
        let descriptor = Descriptor::decode(bytes)?;
        assert_eq!(descriptor.encode(), bytes, "a descriptor has one form");
        Ok(())
    });
}

#[test]
fn fuzz_stream_of_records() {
    /// Seals the header of each record; stops where the next one would begin beyond the end.
    fn reseal(bytes: &mut [u8]) {
        let mut at = 0;
        while let Some(record) = bytes.get_mut(at..)
            && record.len() >= RecordHeader::BYTES
        {
            put(record, 0, b"MSR1");
            let crc = crc_of(record, RecordHeader::BYTES - 4);
            put(record, RecordHeader::BYTES - 4, &crc);
            let Ok(header) = RecordHeader::decode(record) else { return };
            at += RecordHeader::BYTES + header.stored_len();
        }
    }
    let mixed = [RECORD_ZSTD, RECORD_ABSENT, RECORD_RAW].concat();
    let seeds = [RECORD_RAW.to_vec(), RECORD_ZSTD.to_vec(), RECORD_ABSENT.to_vec(), mixed];
    // A compressed record may need the memory of the largest object, however short it is.
    let fuzz = Fuzz::new(seeds).reseal(reseal).memory_max(|bytes| Record::BYTES_MAX + (64 << 10) + 4 * bytes);
    fuzz.run(|bytes| -> Result<(), Corrupt> {
        let mut stream = Bytes::copy_from_slice(bytes);
        let mut again = Vec::new();
        let ended = loop {
            match Record::take(&mut stream) {
                Ok(Some(Wire::Absent(name))) => again.extend(RecordHeader::absent(name).encode()),
                Ok(Some(Wire::Present(record))) => {
                    again.extend(record.to_bytes());
                    if let Ok(object) = record.verify() {
                        assert_eq!(object.body.len() as u64, u64::from(record.body().body_len));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(bytes.get(..again.len()), Some(again.as_slice()), "records have one form");
        ended
    });
}

#[test]
fn fuzz_object_name() {
    let name = ObjectName::from_bytes([0xa7; 32]).to_string().into_bytes();
    Fuzz::new([name]).run(|bytes| -> Result<(), InvalidObjectName> {
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidObjectName)?;
        assert_eq!(text.parse::<ObjectName>()?.to_string(), text, "a name has one form");
        Ok(())
    });
}
