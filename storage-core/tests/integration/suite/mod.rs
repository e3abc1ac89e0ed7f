//! The rules that every [`ChunkStore`] keeps. `behaves_like_a_store!` makes tests of them for one kind of store.

use std::thread;

use bytes::Bytes;
use storage_core::{
    ChunkSize, ChunkStore, Compression, Kind, ObjectName, Record, RecordHeader, Salt,
    store::{Listed, StoreError},
};

/// How to make a store of one kind, and how to damage it.
pub(crate) trait World {
    /// An empty store.
    fn store(&self, limit_bytes: Option<u64>) -> Box<dyn ChunkStore>;
    /// Changes a byte of the only object in the store that was made last.
    fn damage(&self, name: &ObjectName);
}

/// Bytes that do not compress. The same seed gives the same bytes.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    // The last byte must not be 0, because zeros at the end are not stored.
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    bytes
}

/// A chunk with such bytes.
pub(crate) fn chunk(seed: u64, len: usize) -> Record {
    Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &noise(seed, len), Compression::Auto)
}

/// A page with such bytes. Pages are hashed without padding, which costs more than the rest of a short test.
pub(crate) fn page(seed: u64, len: usize) -> Record {
    Record::encode(Kind::Page, Salt::SHARED, None, &noise(seed, len), Compression::Off)
}

fn rounds(store: &dyn ChunkStore) -> Vec<u64> {
    store.list(None, 1000).expect("lists").iter().map(|l| l.round).collect()
}

/// Makes a test of each rule, or of those in a list, for the stores of a [`World`].
macro_rules! behaves_like_a_store {
    ($world:expr) => {
        crate::suite::behaves_like_a_store!(
            $world,
            what_was_put_is_found,
            every_kind_and_size_is_kept,
            what_was_not_put_is_absent,
            a_second_put_stamps_and_stores_nothing,
            an_object_twice_in_a_batch_is_stored_once,
            a_touch_says_what_is_here_and_stamps_it,
            a_stamp_never_goes_back,
            a_list_is_in_name_order_and_comes_in_parts,
            a_record_with_another_name_is_refused_with_its_batch,
            a_store_at_its_limit_is_full_and_stays_whole,
            a_bad_copy_is_absent_reported_and_replaceable,
            a_touch_of_a_bad_copy_says_that_it_is_absent,
            a_put_replaces_a_bad_copy,
            a_record_with_the_checksum_of_other_bytes_is_refused,
            many_threads_put_and_sync_at_once,
            an_empty_batch_changes_nothing,
            what_was_removed_is_gone_and_can_come_back,
            what_was_stamped_in_time_is_not_removed,
            what_is_put_or_touched_beside_a_removal_stays,
        );
    };
    ($world:expr, $($rule:ident),* $(,)?) => {$(
        #[test]
        fn $rule() {
            crate::suite::$rule(&$world);
        }
    )*};
}

pub(crate) use behaves_like_a_store;

pub(crate) fn what_was_put_is_found(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..20).map(|n| chunk(n, 1000 + usize::try_from(n).expect("small") * 977)).collect();
    let done = store.put(3, &records).expect("puts");
    assert_eq!((done.stored, done.touched), (20, 0));
    assert_eq!(done.stored_bytes, records.iter().map(|r| r.stored().len() as u64).sum::<u64>());
    store.sync().expect("syncs");
    for record in &records {
        let found = store.get(&record.name()).expect("reads").expect("is here");
        assert!(found.is_proven());
        assert_eq!((found.stored(), found.kind(), found.body().round), (record.stored(), Kind::Chunk, 3));
        let object = store.load(&record.name()).expect("reads").expect("is here");
        assert_eq!(object, record.verify().expect("proven"));
        assert!(store.contains(&record.name()).expect("looks"));
    }
    let usage = store.usage();
    assert_eq!((usage.objects, usage.bytes, usage.bad_copies), (20, done.stored_bytes, 0));
    assert!(usage.disk_bytes >= usage.bytes + 20 * RecordHeader::BYTES as u64);
}

pub(crate) fn every_kind_and_size_is_kept(world: &dyn World) {
    let store = world.store(None);
    let text = b"the same again and again, ".repeat(40_000);
    let shared = Salt::SHARED;
    let record = |kind, salt, size, body: &[u8]| Record::encode(kind, salt, size, body, Compression::Auto);
    let records = [
        record(Kind::Chunk, shared, Some(ChunkSize::MAX), &noise(1, 4 << 20)),
        record(Kind::Chunk, shared, Some(ChunkSize::MAX), &text),
        record(Kind::Chunk, Salt([7; 16]), Some(ChunkSize::MIN), b"x"),
        record(Kind::Pack, shared, None, &noise(2, 4096 * 7)),
        record(Kind::Page, shared, None, &noise(3, 8496)),
        record(Kind::Descriptor, shared, None, &noise(4, 128)),
    ];
    store.put(1, &records).expect("puts");
    store.sync().expect("syncs");
    for record in &records {
        let found = store.get(&record.name()).expect("reads").expect("is here");
        assert_eq!(
            (found.header().body.map(|b| (b.kind, b.salt, b.chunk)), found.stored()),
            (record.header().body.map(|b| (b.kind, b.salt, b.chunk)), record.stored())
        );
    }
}

pub(crate) fn what_was_not_put_is_absent(world: &dyn World) {
    let store = world.store(None);
    store.put(1, &[chunk(1, 100)]).expect("puts");
    let name = chunk(2, 100).name();
    assert!(store.get(&name).expect("reads").is_none());
    assert!(store.load(&name).expect("reads").is_none());
    assert_eq!(store.find(&name).expect("looks"), None);
    assert_eq!(store.touch(5, &[name]).expect("touches"), [false]);
}

pub(crate) fn a_second_put_stamps_and_stores_nothing(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 5000);
    store.put(1, std::slice::from_ref(&record)).expect("puts");
    let before = store.usage();
    let done = store.put(4, std::slice::from_ref(&record)).expect("puts");
    assert_eq!((done.stored, done.touched, done.stored_bytes), (0, 1, 0));
    assert_eq!(rounds(store.as_ref()), [4]);
    assert_eq!((store.usage().objects, store.usage().bytes), (before.objects, before.bytes));
    assert_eq!(store.get(&record.name()).expect("reads").map(|r| r.body().round), Some(4));
}

pub(crate) fn an_object_twice_in_a_batch_is_stored_once(world: &dyn World) {
    let store = world.store(None);
    let done = store.put(1, &[chunk(1, 100), chunk(1, 100), chunk(2, 100)]).expect("puts");
    assert_eq!((done.stored, done.touched), (2, 1));
    assert_eq!(store.usage().objects, 2);
}

pub(crate) fn a_touch_says_what_is_here_and_stamps_it(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..4).map(|n| chunk(n, 100)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    store.put(1, records.get(..2).expect("four")).expect("puts");
    let here = store.touch(9, &[names.clone(), names.clone()].concat()).expect("touches");
    assert_eq!(here, [true, true, false, false, true, true, false, false]);
    store.sync().expect("syncs");
    assert_eq!(rounds(store.as_ref()), [9, 9]);
}

pub(crate) fn a_stamp_never_goes_back(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 100);
    store.put(7, std::slice::from_ref(&record)).expect("puts");
    store.put(3, std::slice::from_ref(&record)).expect("puts");
    assert_eq!(store.touch(5, &[record.name()]).expect("touches"), [true]);
    store.sync().expect("syncs");
    assert_eq!(rounds(store.as_ref()), [7]);
}

pub(crate) fn a_list_is_in_name_order_and_comes_in_parts(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..50).map(|n| if n % 3 == 0 { page(n, 100) } else { chunk(n, 100) }).collect();
    for part in records.chunks(7) {
        store.put(1, part).expect("puts");
        store.sync().expect("syncs");
    }
    let mut names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    names.sort_unstable();
    assert_eq!(store.names().expect("lists"), names);
    let mut listed: Vec<Listed> = Vec::new();
    loop {
        let part = store.list(listed.last().map(|l| &l.name), 8).expect("lists");
        assert!(part.len() <= 8);
        if part.is_empty() {
            break;
        }
        listed.extend(part);
    }
    assert_eq!(listed.iter().map(|l| l.name).collect::<Vec<_>>(), names);
    for one in listed {
        assert_eq!(store.find(&one.name).expect("finds"), Some(one));
        let record = records.iter().find(|record| record.name() == one.name).expect("listed above");
        assert_eq!((one.kind, one.stored_bytes), (record.kind(), record.stored().len() as u64));
    }
}

pub(crate) fn a_record_with_another_name_is_refused_with_its_batch(world: &dyn World) {
    let store = world.store(None);
    let good = chunk(1, 100);
    let mut stored = chunk(2, 100).stored().to_vec();
    *stored.first_mut().expect("not empty") ^= 1;
    let forged = Record::from_parts(chunk(2, 100).header(), stored.into()).expect("as many bytes");
    let refused = store.put(1, &[good.clone(), forged]);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert!(!store.contains(&good.name()).expect("looks"));
    // A correct one from the wire is hashed and taken.
    let sent = Record::decode(&Bytes::from(good.to_bytes())).expect("decodes");
    assert_eq!(store.put(1, &[sent]).expect("puts").stored, 1);
}

pub(crate) fn a_store_at_its_limit_is_full_and_stays_whole(world: &dyn World) {
    let store = world.store(Some(60_000));
    let first = chunk(0, 40_000);
    store.put(1, std::slice::from_ref(&first)).expect("puts");
    let full = store.put(2, &[chunk(1, 100), chunk(2, 30_000)]);
    assert!(matches!(full, Err(StoreError::Full { limit_bytes: Some(60_000), .. })), "{full:?}");
    assert!(!store.contains(&chunk(1, 100).name()).expect("looks"), "all of the batch or nothing");
    assert_eq!(store.put(2, std::slice::from_ref(&first)).expect("what is here is only stamped").touched, 1);
    assert_eq!(store.put(2, &[chunk(1, 100)]).expect("there is room for this").stored, 1);
    store.sync().expect("syncs");
    assert!(store.get(&first.name()).expect("reads").is_some());
    assert_eq!(store.usage().limit_bytes, Some(60_000));
}

pub(crate) fn a_bad_copy_is_absent_reported_and_replaceable(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 3000);
    store.put(1, std::slice::from_ref(&record)).expect("puts");
    store.sync().expect("syncs");
    world.damage(&record.name());
    assert!(store.get(&record.name()).expect("reads").is_none());
    assert!(!store.contains(&record.name()).expect("looks"));
    assert_eq!(store.touch(2, &[record.name()]).expect("touches"), [false]);
    let bad: Vec<ObjectName> = store.take_bad_copies().iter().map(|b| b.name).collect();
    assert_eq!(bad, [record.name()]);
    assert!(store.take_bad_copies().is_empty());
    assert_eq!((store.usage().objects, store.usage().bytes, store.usage().bad_copies), (0, 0, 1));
    assert_eq!(store.put(3, std::slice::from_ref(&record)).expect("puts").stored, 1);
    assert!(store.load(&record.name()).expect("reads").is_some());
}

pub(crate) fn what_was_removed_is_gone_and_can_come_back(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..5).map(|n| chunk(n, 3000)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    store.put(1, &records).expect("puts");
    store.sync().expect("syncs");
    let some: Vec<ObjectName> = [&names[..2], &names[..1], &[chunk(9, 100).name()]].concat();
    let bytes = |n: usize| Some(records[n].stored().len() as u64);
    assert_eq!(
        store.remove(2, &some).expect("removes"),
        [bytes(0), bytes(1), None, None],
        "each once, and not what is absent"
    );
    store.sync().expect("syncs");
    store.reclaim(&|| true).expect("reclaims");
    for (n, name) in names.iter().enumerate() {
        assert_eq!(store.contains(name).expect("looks"), n >= 2);
        assert_eq!(store.load(name).expect("reads").is_some(), n >= 2);
    }
    let left: u64 = records[2..].iter().map(|r| r.stored().len() as u64).sum();
    assert_eq!((store.usage().objects, store.usage().bytes, store.usage().bad_copies), (3, left, 0));
    assert_eq!(store.touch(3, &names[..1]).expect("touches"), [false]);
    let done = store.put(3, &records[..3]).expect("puts");
    assert_eq!((done.stored, done.touched), (2, 1));
    assert_eq!(store.load(&names[0]).expect("reads"), Some(records[0].verify().expect("proven")));
    assert!(store.remove(1, &[]).expect("removes").is_empty());
}

/// I6: what somebody relies on is stamped, and a sweep that began before that does not take it.
pub(crate) fn what_was_stamped_in_time_is_not_removed(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..3).map(|n| chunk(n, 500)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    store.put(4, &records).expect("puts");
    store.touch(6, &names[..1]).expect("touches");
    store.put(5, &records[1..2]).expect("puts");
    let removed = |below| store.remove(below, &names).expect("removes").iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(removed(4), [false; 3]);
    assert_eq!(removed(5), [false, false, true]);
    assert_eq!(removed(6), [false, true, false]);
    assert!(store.contains(&names[0]).expect("looks"));
}

/// I3, I6: an answer that an object is here is kept whatever a sweep does at the same time, and no copy looks bad because its
/// place was given back while it was read.
pub(crate) fn what_is_put_or_touched_beside_a_removal_stays(world: &dyn World) {
    let store = world.store(None);
    let records: Vec<Record> = (0..60).map(|n| page(n, 300)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    store.put(1, &records).expect("puts");
    for round in 2..40 {
        thread::scope(|scope| {
            scope.spawn(|| {
                for some in names.chunks(7) {
                    store.remove(round, some).expect("removes");
                }
                store.reclaim(&|| true).expect("reclaims");
            });
            scope.spawn(|| names.iter().rev().for_each(|name| drop(store.get(name).expect("reads"))));
            // In the order of the removals, and against it.
            for backwards in [false, true] {
                let (store, records) = (&store, &records);
                scope.spawn(move || {
                    for at in 0..records.len() {
                        let record = &records[if backwards { records.len() - 1 - at } else { at }];
                        if store.touch(round, &[record.name()]).expect("touches") == [false] {
                            store.put(round, std::slice::from_ref(record)).expect("puts");
                        }
                        assert!(store.get(&record.name()).expect("reads").is_some(), "round {round}, {at}");
                    }
                });
            }
        });
        assert_eq!(rounds(store.as_ref()), vec![round; names.len()]);
    }
    assert_eq!(store.usage().bad_copies, 0);
}

/// I3: whoever is told that the object is here does not send it.
pub(crate) fn a_touch_of_a_bad_copy_says_that_it_is_absent(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 3000);
    store.put(1, std::slice::from_ref(&record)).expect("puts");
    store.sync().expect("syncs");
    assert_eq!(store.touch(2, &[record.name()]).expect("touches"), [true]);
    world.damage(&record.name());
    assert_eq!(store.touch(3, &[record.name()]).expect("touches"), [false]);
    assert_eq!(store.take_bad_copies().len(), 1);
    assert_eq!((store.usage().bad_copies, store.usage().bad_bytes), (1, record.stored().len() as u64));
    assert_eq!(store.put(4, std::slice::from_ref(&record)).expect("puts").stored, 1);
    assert_eq!(store.touch(5, &[record.name()]).expect("touches"), [true]);
}

pub(crate) fn a_put_replaces_a_bad_copy(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 3000);
    store.put(1, std::slice::from_ref(&record)).expect("puts");
    store.sync().expect("syncs");
    world.damage(&record.name());
    let done = store.put(2, std::slice::from_ref(&record)).expect("puts");
    assert_eq!((done.stored, done.touched, done.stored_bytes), (1, 0, record.stored().len() as u64));
    assert_eq!(store.take_bad_copies().len(), 1);
    assert_eq!((store.usage().objects, rounds(store.as_ref())), (1, vec![2]));
    assert!(store.load(&record.name()).expect("reads").is_some());
}

/// A store relies on the checksum when it is opened after a crash, and at each touch.
pub(crate) fn a_record_with_the_checksum_of_other_bytes_is_refused(world: &dyn World) {
    let store = world.store(None);
    let record = chunk(1, 100);
    let mut header = record.header();
    header.body.as_mut().expect("present").stored_crc ^= 1;
    let sent = Record::from_parts(header, record.stored().clone()).expect("as many bytes");
    let refused = store.put(1, &[sent]);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert!(!store.contains(&record.name()).expect("looks"));
}

pub(crate) fn many_threads_put_and_sync_at_once(world: &dyn World) {
    let store = world.store(None);
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let store = &store;
            scope.spawn(move || {
                for batch in 0..10u64 {
                    // Half of the objects are the same in all threads.
                    let mine = (0..3).map(|n| chunk(1000 * (thread + 1) + 10 * batch + n, 300));
                    let ours = (0..3).map(|n| chunk(10 * batch + n, 300));
                    let records: Vec<Record> = mine.chain(ours).collect();
                    store.put(batch, &records).expect("puts");
                    store.sync().expect("syncs");
                    for record in records {
                        assert!(store.get(&record.name()).expect("reads").is_some());
                    }
                }
            });
        }
    });
    assert_eq!(store.usage().objects, 8 * 30 + 30);
    assert_eq!(store.names().expect("lists").len(), 8 * 30 + 30);
}

pub(crate) fn an_empty_batch_changes_nothing(world: &dyn World) {
    let store = world.store(Some(0));
    assert_eq!(store.put(1, &[]).expect("puts").stored, 0);
    assert!(store.touch(1, &[]).expect("touches").is_empty());
    store.sync().expect("syncs");
    assert!(store.names().expect("lists").is_empty());
}
