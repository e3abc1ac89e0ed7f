//! Flipped bits in the files of the segment store, against what was put. Nothing wrong is ever returned, and what the
//! damage did not hit is still returned. What was lost can be put again.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::suite::page;
use storage_core::{
    ChunkStore, ObjectName, Record, SegmentStore,
    store::{Disk, Options, SimDisk},
};

const INDEX: &str = "index.redb";
/// Bytes of a segment's header.
const HEADER: u64 = 64;
/// Bytes of a frame before an object's stored bytes.
const HEAD: u64 = 32 + 80;

/// Segments of a few objects.
fn open(disk: &SimDisk) -> SegmentStore {
    let options =
        Options { limit_bytes: None, segment_bytes: 6000, index_after_bytes: 9000, index_after_objects: 1000 };
    SegmentStore::open_on(Arc::new(disk.clone()), options).expect("opens")
}

/// A store as its next process finds it, and what was put into it.
struct Written {
    disk: SimDisk,
    /// Each object, with the file and the bytes of it that its frame takes.
    objects: BTreeMap<ObjectName, (Record, String, Range<u64>)>,
}

/// A store with stamps and several segments, of which the index knows a part.
fn written() -> Written {
    let disk = SimDisk::new();
    let store = open(&disk);
    let records: Vec<Record> =
        (0..14u64).map(|n| page(n, 60 + usize::try_from(n * 677 % 2000).expect("small"))).collect();
    for (round, part) in (1..).zip(records.chunks(2)) {
        store.put(round, part).expect("puts");
        store.touch(round + 10, &[part[0].name()]).expect("touches");
        store.sync().expect("syncs");
    }
    let killed = disk.after_kill();
    drop(store);
    let objects = records.into_iter().map(|record| {
        let found = segments(&killed).into_iter().find_map(|name| {
            let bytes = killed.contents(&name).expect("is there");
            let at = bytes.windows(record.stored().len()).position(|window| window == record.stored())? as u64;
            Some((name, at - HEAD..(at + record.stored().len() as u64).next_multiple_of(16)))
        });
        let (name, frame) = found.expect("what was put is in a segment");
        (record.name(), (record, name, frame))
    });
    Written { objects: objects.collect(), disk: killed }
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list_now().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

impl Written {
    /// Flips bits in a copy of the disk and opens the store. Returns the number of objects that are lost.
    fn flip(&self, flips: &[(&str, u64)], keep_index: bool) -> usize {
        let when = format!("{flips:?}, index: {keep_index}");
        let disk = self.disk.after_kill();
        for (name, at) in flips {
            assert!(disk.damage(name, *at), "{when}");
        }
        if !keep_index {
            disk.remove(INDEX).expect("removes");
        }
        let store = open(&disk);
        let hit = |name: &ObjectName| {
            let (_, file, frame) = &self.objects[name];
            flips.iter().any(|(flipped, at)| flipped == file && frame.contains(at))
        };
        let mut lost = 0;
        for (name, (record, ..)) in &self.objects {
            match store.get(name).expect("reads") {
                Some(found) => assert_eq!(found.stored(), record.stored(), "{when}"),
                None if hit(name) => lost += 1,
                None => panic!("{when}: lost {name}, which was not hit"),
            }
        }
        assert_eq!(store.usage().objects, (self.objects.len() - lost) as u64, "{when}");

        // It goes on: what was lost is put again, and nothing of it is written over what was whole.
        let records: Vec<Record> = self.objects.values().map(|(record, ..)| record.clone()).collect();
        assert_eq!(store.put(50, &records).expect("puts").stored, lost as u64, "{when}");
        store.sync().expect("syncs");
        let next = disk.after_kill();
        drop(store);
        let store = open(&next);
        for record in &records {
            let found = store.get(&record.name()).expect("reads").unwrap_or_else(|| panic!("{when}: lost again"));
            assert_eq!((found.stored(), found.body().round), (record.stored(), 50), "{when}");
        }
        lost
    }
}

#[test]
fn a_flipped_bit_in_a_segment_costs_the_copy_that_it_is_in_and_no_other() {
    let written = written();
    let segments = segments(&written.disk);
    assert!(segments.len() > 2);
    for name in segments {
        let name = name.as_str();
        let len = written.disk.contents(name).expect("is there").len() as u64;
        // All bytes of the first headers, then a step that meets each kind of byte sooner or later.
        for at in (0..HEADER + HEAD).chain((HEADER + HEAD..len).step_by(7)) {
            for keep_index in [true, false] {
                assert!(written.flip(&[(name, at)], keep_index) <= 1);
            }
        }
    }
}

#[test]
fn a_segment_whose_header_and_first_frame_are_damaged_keeps_its_other_objects() {
    let written = written();
    for name in segments(&written.disk) {
        // Magic and first kind, marker of the header, checksum of the header and marker of the first frame.
        for flips in [[3, HEADER + 16], [35, HEADER + 28], [61, HEADER + 5]] {
            for keep_index in [true, false] {
                assert!(written.flip(&flips.map(|at| (name.as_str(), at)), keep_index) <= 1);
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_the_index_loses_nothing() {
    let written = written();
    let bytes = written.disk.contents(INDEX).expect("is there");
    let used: Vec<u64> = (0..).zip(&bytes).filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    for at in used.iter().step_by(used.len() / 300) {
        assert_eq!(written.flip(&[(INDEX, *at)], true), 0);
    }
}

#[test]
fn many_flipped_bits_in_all_files_cost_the_copies_that_they_are_in() {
    let written = written();
    let files = written.disk.list_now();
    let mut random = 1u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    for count in [2, 3, 5, 10] {
        for _ in 0..40 {
            let flips: Vec<(&str, u64)> = (0..count)
                .map(|_| {
                    let name = &files[usize::try_from(below(files.len() as u64)).expect("few")];
                    // Damage of both places that have the marker takes the segment with it, which is tested above.
                    let len = written.disk.contents(name).expect("is there").len() as u64;
                    (name.as_str(), HEADER + 16 + below(len - HEADER - 16))
                })
                .collect();
            written.flip(&flips, below(2) == 0);
        }
    }
}

#[test]
fn what_the_index_knew_and_no_segment_has_is_reported_by_name() {
    let Written { disk, objects } = written();
    let gone = segments(&disk).swap_remove(1);
    disk.remove(&gone).expect("removes");
    let store = open(&disk);
    assert!(store.opened().rebuilt);
    let lost: BTreeMap<_, _> = objects.iter().filter(|(_, (_, file, _))| *file == gone).collect();
    assert!(!lost.is_empty());
    let bytes: u64 = lost.values().map(|(record, ..)| record.stored().len() as u64).sum();
    assert_eq!((store.usage().bad_copies, store.usage().bad_bytes), (lost.len() as u64, bytes));
    let reported: BTreeMap<_, _> =
        store.take_bad_copies().into_iter().map(|bad| (bad.name, bad.stored_bytes)).collect();
    assert_eq!(reported.keys().collect::<Vec<_>>(), lost.keys().copied().collect::<Vec<_>>());
}
