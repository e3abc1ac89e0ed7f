//! The segment store is stopped after every single write, and what was not synced is kept, dropped or torn. Opened
//! again, it has everything that it ever acknowledged, with its stamp, and shows nothing that is not whole. What it then
//! reports as present stays there through the next power cut.
//!
//! Method: one scripted run on a simulated disk is repeated once per write of it and stops there. Each stop is followed
//! by several power cuts that differ in what the disk kept.

#![expect(clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::suite::page;
use storage_core::{
    ChunkStore, ObjectName, Record, SegmentStore,
    store::{Disk, Options, SimDisk, StoreError},
};

/// Segments of a few objects and an index that is written often, so that every kind of write follows every other soon.
fn options() -> Options {
    Options { limit_bytes: None, segment_bytes: 9000, index_after_bytes: 12_000, index_after_objects: 9 }
}

fn open(disk: &SimDisk) -> Result<SegmentStore, StoreError> {
    SegmentStore::open_on(Arc::new(disk.clone()), options())
}

/// What a user of the store knows.
#[derive(Clone, Default)]
struct Knowledge {
    /// Everything ever put, in the order in which it was.
    order: Vec<ObjectName>,
    /// Everything ever put, and the highest round that it may have.
    tried: BTreeMap<ObjectName, (Record, u64)>,
    /// What was put or touched since the last sync, by calls that returned.
    answered: BTreeMap<ObjectName, u64>,
    /// What a sync has acknowledged.
    acknowledged: BTreeMap<ObjectName, u64>,
    /// What was removed since the last sync, by calls that returned or not.
    removed: BTreeSet<ObjectName>,
    /// What a sync has acknowledged as removed. Without the index it may be found again.
    gone: BTreeSet<ObjectName>,
}

impl Knowledge {
    fn put(&mut self, store: &SegmentStore, round: u64, seeds: &[u64]) -> Result<(), StoreError> {
        let records: Vec<Record> =
            seeds.iter().map(|n| page(*n, 40 + usize::try_from(n * 677 % 3000).expect("small"))).collect();
        for record in &records {
            if !self.tried.contains_key(&record.name()) {
                self.order.push(record.name());
            }
            let tried = self.tried.entry(record.name()).or_insert((record.clone(), round));
            tried.1 = tried.1.max(round);
        }
        self.forget_removals(records.iter().map(Record::name));
        store.put(round, &records)?;
        self.answered.extend(records.iter().map(|r| (r.name(), round)));
        Ok(())
    }

    fn touch(&mut self, store: &SegmentStore, round: u64) -> Result<(), StoreError> {
        let names: Vec<ObjectName> = self.tried.keys().copied().step_by(3).collect();
        self.tried.iter_mut().step_by(3).for_each(|(_, tried)| tried.1 = tried.1.max(round));
        self.forget_removals(names.iter().copied());
        let here = store.touch(round, &names)?;
        self.answered.extend(names.into_iter().zip(here).filter(|(_, here)| *here).map(|(name, _)| (name, round)));
        Ok(())
    }

    /// What is put or touched now may be here after a stop, whatever was removed before.
    fn forget_removals(&mut self, names: impl Iterator<Item = ObjectName>) {
        for name in names {
            self.gone.remove(&name);
            self.removed.remove(&name);
        }
    }

    /// Removes neighbours on the disk, those of them that were not stamped lately.
    fn remove(&mut self, store: &SegmentStore, below: u64, which: Range<usize>) -> Result<(), StoreError> {
        let names = self.order.get(which).unwrap_or_default().to_vec();
        let listed = store.list(None, usize::MAX)?;
        let old = listed.into_iter().filter(|object| object.round < below && names.contains(&object.name));
        for object in old {
            self.answered.remove(&object.name);
            self.acknowledged.remove(&object.name);
            self.removed.insert(object.name);
        }
        store.remove(below, &names).map(drop)
    }

    fn sync(&mut self, store: &SegmentStore) -> Result<(), StoreError> {
        store.sync()?;
        self.is_synced();
        Ok(())
    }

    /// One of many steps beside which space is given back.
    fn step_beside(&mut self, store: &SegmentStore, step: u64) -> Result<(), StoreError> {
        self.put(store, step, &[step * 3, step * 3 + 1, step])?;
        if step.is_multiple_of(3) {
            self.touch(store, step)?;
        }
        if step.is_multiple_of(4) {
            let end = self.order.len() - 3;
            self.remove(store, step, end.saturating_sub(12)..end)?;
        }
        if step.is_multiple_of(5) { self.sync(store) } else { Ok(()) }
    }

    fn is_synced(&mut self) {
        self.acknowledged.append(&mut self.answered);
        self.gone.append(&mut self.removed);
    }

    /// The script. It makes the same writes each time, until the disk stops.
    fn run(&mut self, disk: &SimDisk) -> Result<(), StoreError> {
        let mut round = 1;
        for part in 0..3u64 {
            let store = open(disk)?;
            // The last step is not synced, so that the store is dropped with work left to do.
            for step in 0..10u64 {
                let first = part * 30 + step * 3;
                // Two new objects, and one that is there already.
                self.put(&store, round, &[first, first + 1, first / 2])?;
                if step % 3 == 1 {
                    round += 1;
                    self.touch(&store, round)?;
                }
                if step % 4 == 2 {
                    // The middle of what was put lately.
                    let end = self.order.len() - 3;
                    self.remove(&store, round + 1, end.saturating_sub(9)..end)?;
                }
                if step % 2 == 0 {
                    self.sync(&store)?;
                }
                if step % 4 == 3 {
                    store.reclaim(&|| true)?;
                    // It syncs what was done before.
                    self.is_synced();
                }
            }
            if part == 1 {
                // Whole segments without an object that is needed, but with stamps that are.
                self.remove(&store, round, 0..self.order.len() * 2 / 3)?;
                store.reclaim(&|| true)?;
                self.is_synced();
                store.close()?;
            }
        }
        Ok(())
    }

    fn holds(&self, store: &SegmentStore, when: &str) {
        for (name, round) in &self.acknowledged {
            let found = store.get(name).expect("reads").unwrap_or_else(|| panic!("{when}: lost {name}"));
            assert!(found.body().round >= *round, "{when}: lost a stamp of {name}");
        }
        let listed = store.list(None, usize::MAX).expect("lists");
        for object in &listed {
            let (record, round_max) =
                self.tried.get(&object.name).unwrap_or_else(|| panic!("{when}: this was never put"));
            let found = store.get(&object.name).expect("reads");
            let found = found.unwrap_or_else(|| panic!("{when}: {} is visible but not whole", object.name));
            assert_eq!(found.stored(), record.stored());
            assert!(object.round <= *round_max, "{when}: this stamp was never made");
        }
        assert!(store.take_bad_copies().is_empty(), "{when}");
        if !store.opened().rebuilt {
            let back = listed.iter().find(|object| self.gone.contains(&object.name));
            assert_eq!(back, None, "{when}: it was removed");
        }
        let bytes: u64 = listed.iter().map(|l| l.stored_bytes).sum();
        assert_eq!((store.usage().objects, store.usage().bytes), (listed.len() as u64, bytes), "{when}");
    }
}

/// Opens what a power cut left, checks it, and uses it again until after the next cut.
fn survives(disk: &SimDisk, knowledge: &Knowledge, seed: u64, when: &str) {
    let mut knowledge = knowledge.clone();
    let store = open(disk).unwrap_or_else(|e| panic!("{when}: {e:?}"));
    knowledge.holds(&store, when);
    assert_eq!(store.opened().damaged_segments, 0, "{when}");
    knowledge.answered.clear();
    knowledge.removed.clear();
    if store.opened().rebuilt {
        // With the file of a segment the drops in it are gone.
        knowledge.gone.clear();
    }
    // An object that was never acknowledged but is reported as present is promised with the next sync.
    let round = 100;
    knowledge.tried.values_mut().for_each(|tried| tried.1 = round);
    knowledge.touch(&store, round).expect("touches");
    knowledge.put(&store, round, &[1000, 1001, 3, 40]).expect("puts");
    knowledge.sync(&store).expect("syncs");
    if seed.is_multiple_of(2) {
        store.reclaim(&|| true).expect("reclaims");
        knowledge.is_synced();
        knowledge.holds(&store, &format!("{when}, reclaimed"));
    }
    let again = disk.after_power_cut(seed.wrapping_mul(31));
    drop(store);
    let store = open(&again).unwrap_or_else(|e| panic!("{when}, used again: {e:?}"));
    knowledge.holds(&store, &format!("{when}, used again"));
    assert_eq!(store.opened().damaged_segments, 0, "{when}, used again");
}

fn changes_of_a_whole_run() -> u64 {
    let disk = SimDisk::new();
    Knowledge::default().run(&disk).expect("nothing fails");
    disk.changes()
}

fn stopped_after(changes: u64) -> (SimDisk, Knowledge) {
    let disk = SimDisk::new();
    disk.stop_after(changes);
    let mut knowledge = Knowledge::default();
    let _ = knowledge.run(&disk);
    (disk, knowledge)
}

/// What the other tests stop at has to happen in a run.
#[test]
fn a_run_deletes_segments_and_makes_holes() {
    let disk = SimDisk::new();
    Knowledge::default().run(&disk).expect("nothing fails");
    let mut numbers: Vec<u32> =
        disk.list_now().iter().filter_map(|n| n.strip_prefix("segment-")?.parse().ok()).collect();
    numbers.sort_unstable();
    let newest = numbers.last().copied().expect("there are segments");
    assert!(numbers.len() + 2 <= newest as usize, "some are deleted: {numbers:?}");
    let is_hole = |name: &String| {
        let bytes = disk.contents(name).expect("is there");
        let marker = &bytes[32..48];
        // The kind follows the marker.
        (64..bytes.len() - 17).step_by(16).any(|at| &bytes[at..at + 16] == marker && bytes[at + 16] == 4)
    };
    let holes = disk.list_now().iter().filter(|n| n.starts_with("segment-")).filter(|name| is_hole(name)).count();
    assert!(holes >= 1, "one has holes");
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_written_is_seen() {
    let changes = changes_of_a_whole_run();
    assert!(changes > 100, "{changes}");
    for stop in 0..=changes {
        let (disk, knowledge) = stopped_after(stop);
        // Every seventh stop is followed by more power cuts; doing so at all of them would take minutes.
        for seed in 0..if stop % 7 == 0 { 6 } else { 1 } {
            let cut = disk.after_power_cut(stop * 1000 + seed);
            survives(&cut, &knowledge, seed, &format!("stop {stop}, cut {seed}"));
        }
    }
}

/// Space is given back beside everything else, and the disk stops in the middle of it.
#[test]
fn it_holds_while_space_is_given_back_all_the_time() {
    for stop in 0..40u64 {
        let disk = SimDisk::new();
        let mut knowledge = Knowledge::default();
        let store = open(&disk).expect("opens");
        disk.stop_after(disk.changes() + 40 + stop * 20);
        let is_over = AtomicBool::new(false);
        thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && store.reclaim(&|| true).is_ok() {
                    thread::yield_now();
                }
            });
            let stopped = (1..60).try_for_each(|step| knowledge.step_beside(&store, step));
            is_over.store(true, Ordering::Relaxed);
            stopped
        })
        .unwrap_or_default();
        drop(store);
        for seed in 0..3 {
            let cut = disk.after_power_cut(stop * 10 + seed);
            if seed == 2 {
                without_index(&cut);
            }
            survives(&cut, &knowledge, seed, &format!("stop {stop}, cut {seed}, beside"));
        }
    }
}

fn without_index(disk: &SimDisk) {
    if disk.list().expect("lists").iter().any(|name| name == "index.redb") {
        disk.remove("index.redb").expect("removes");
    }
}

fn pages(seeds: Range<u64>) -> Vec<Record> {
    seeds.map(|n| page(n, 1500)).collect()
}

fn names(records: &[Record]) -> Vec<ObjectName> {
    records.iter().map(Record::name).collect()
}

/// The stamps of an object may be in a segment of which nothing else is needed.
#[test]
fn stamps_outlive_the_segment_that_they_are_in() {
    let disk = SimDisk::new();
    let store = open(&disk).expect("opens");
    let (old, others) = (pages(0..12), pages(20..40));
    store.put(1, &old).expect("puts");
    for other in &others {
        store.put(2, std::slice::from_ref(other)).expect("puts");
        store.touch(5, &names(&old)).expect("touches");
    }
    store.sync().expect("syncs");
    let before = disk.list_now().len();
    assert!(store.remove(3, &names(&others)).expect("removes").iter().all(Option::is_some));
    store.put(2, &pages(50..51)).expect("puts");
    store.reclaim(&|| true).expect("reclaims");
    assert!(disk.list_now().len() < before, "some are deleted");
    for seed in 0..40 {
        let cut = disk.after_power_cut(seed);
        without_index(&cut);
        let store = open(&cut).expect("opens");
        for name in names(&old) {
            let round = store.get(&name).expect("reads").map(|record| record.body().round);
            assert_eq!(round, Some(5), "cut {seed}");
        }
    }
}

/// A frame whose blocks are given back does not look like an object any more, whatever of it the disk kept.
#[test]
fn what_was_given_back_is_never_taken_for_an_object() {
    let disk = SimDisk::new();
    let open = |disk: &SimDisk| {
        let options = Options { segment_bytes: 40_000, ..options() };
        SegmentStore::open_on(Arc::new(disk.clone()), options).expect("opens")
    };
    let store = open(&disk);
    let all = pages(0..80);
    for part in all.chunks(1) {
        store.put(1, part).expect("puts");
    }
    store.sync().expect("syncs");
    // Of neighbours, one of seven stays.
    let (kept, dropped): (Vec<_>, Vec<_>) = all.iter().cloned().enumerate().partition(|(n, _)| n % 7 == 0);
    let dropped: Vec<Record> = dropped.into_iter().map(|(_, record)| record).collect();
    store.remove(2, &names(&dropped)).expect("removes");
    let (before, given_back) = (store.usage(), store.reclaim(&|| true).expect("reclaims"));
    assert!(given_back >= 2 * 4096, "{given_back}");
    assert_eq!(store.usage().disk_bytes, before.disk_bytes - given_back);
    for seed in 0..100 {
        let cut = disk.after_power_cut(seed);
        if seed.is_multiple_of(2) {
            without_index(&cut);
        }
        let store = open(&cut);
        for (_, record) in &kept {
            assert!(store.get(&record.name()).expect("reads").is_some(), "cut {seed}");
        }
        for listed in store.list(None, 1000).expect("lists") {
            assert!(store.get(&listed.name).expect("reads").is_some(), "cut {seed}: visible and not whole");
        }
        assert!(store.take_bad_copies().is_empty(), "cut {seed}");
    }
}

#[test]
fn the_same_holds_without_the_index() {
    for stop in (0..=changes_of_a_whole_run()).step_by(3) {
        let (disk, knowledge) = stopped_after(stop);
        for seed in 0..2 {
            let cut = disk.after_power_cut(stop * 2 + seed);
            without_index(&cut);
            survives(&cut, &knowledge, stop, &format!("stop {stop}, cut {seed}, no index"));
        }
    }
}

#[test]
fn a_power_cut_while_it_opens_changes_nothing() {
    for stop in (0..=changes_of_a_whole_run()).step_by(11) {
        let (disk, knowledge) = stopped_after(stop);
        for again in 0..12 {
            let cut = disk.after_power_cut(stop + again);
            cut.stop_after(again);
            drop(open(&cut));
            let cut = cut.after_power_cut(stop * 7 + again);
            survives(&cut, &knowledge, again, &format!("stop {stop}, then {again}"));
        }
    }
}

/// When a process is killed without a power cut, everything that it wrote is there.
#[test]
fn a_killed_process_loses_nothing_that_put_answered() {
    for stop in (0..=changes_of_a_whole_run()).step_by(5) {
        let (disk, mut knowledge) = stopped_after(stop);
        knowledge.acknowledged.append(&mut knowledge.answered.clone());
        // The simulated disk keeps every write in one of four cuts. Such a cut is looked for.
        let kept = |seed: &u64| {
            let cut = disk.after_power_cut(*seed);
            let files = disk.list_now();
            files.iter().all(|name| cut.contents(name) == disk.contents(name))
        };
        let Some(seed) = (0..400).find(kept) else { panic!("none of these cuts keeps everything") };
        survives(&disk.after_power_cut(seed), &knowledge, seed, &format!("kill {stop}"));
    }
}

/// The next process reports what it finds as present and writes nothing. Its next sync promises that it stays.
#[test]
fn what_a_killed_process_wrote_is_durable_once_the_next_one_acknowledged_it() {
    for stop in (0..=changes_of_a_whole_run()).step_by(5) {
        let (disk, knowledge) = stopped_after(stop);
        for seed in 0..3 {
            let (killed, mut knowledge) = (disk.after_kill(), knowledge.clone());
            let when = format!("kill {stop}, cut {seed}");
            let store = open(&killed).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            for listed in store.list(None, usize::MAX).expect("lists") {
                let record = knowledge.tried[&listed.name].0.clone();
                let put = store.put(listed.round, &[record]).expect("puts");
                assert_eq!((put.stored, put.touched), (0, 1), "{when}");
                knowledge.acknowledged.insert(listed.name, listed.round);
            }
            store.sync().expect("syncs");
            let cut = killed.after_power_cut(seed);
            drop(store);
            let store = open(&cut).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            knowledge.holds(&store, &when);
        }
    }
}

/// Once newer segments follow, the payloads of a segment count as synced. So nothing torn may be left in it.
#[test]
fn a_torn_tail_is_gone_for_good() {
    for seed in 0..200 {
        for header_damaged in [false, true] {
            let when = format!("cut {seed}, header damaged: {header_damaged}");
            let disk = SimDisk::new();
            let mut knowledge = Knowledge::default();
            let store = open(&disk).expect("opens");
            knowledge.put(&store, 1, &[1, 2]).expect("puts");
            knowledge.sync(&store).expect("syncs");
            knowledge.put(&store, 1, &[3, 4, 5]).expect("puts");
            let cut = disk.after_power_cut(seed);
            drop(store);
            if header_damaged {
                assert!(cut.damage("segment-0000000001", 9));
            }
            let store = open(&cut).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            knowledge.answered.clear();
            // The object is too long for what is left of the first segment.
            let long = page(900, 8000);
            store.put(1, std::slice::from_ref(&long)).expect("puts");
            knowledge.tried.insert(long.name(), (long.clone(), 1));
            knowledge.answered.insert(long.name(), 1);
            knowledge.sync(&store).expect("syncs");
            let again = cut.after_power_cut(seed * 31 + 1);
            drop(store);
            if again.list().expect("lists").iter().any(|name| name == "index.redb") {
                again.remove("index.redb").expect("removes");
            }
            let store = open(&again).unwrap_or_else(|e| panic!("{when}: {e:?}"));
            knowledge.holds(&store, &when);
        }
    }
}

/// Only its checksum tells a stamp that the disk damaged from one that was made.
#[test]
fn a_damaged_stamp_is_ignored() {
    const ROUND: u64 = 0x0102_0304_0506_0708;
    const SEGMENT: &str = "segment-0000000001";
    let disk = SimDisk::new();
    let store = open(&disk).expect("opens");
    let record = page(1, 500);
    store.put(1, std::slice::from_ref(&record)).expect("puts");
    store.touch(ROUND, &[record.name()]).expect("touches");
    store.sync().expect("syncs");
    let damaged = disk.after_power_cut(0);
    drop(store);
    let bytes = damaged.contents(SEGMENT).expect("is there");
    let at = bytes.windows(8).position(|window| window == ROUND.to_le_bytes()).expect("the stamp");
    assert!(damaged.damage(SEGMENT, at as u64 + 7));
    let store = open(&damaged).expect("opens");
    let rounds: Vec<u64> = store.list(None, 10).expect("lists").iter().map(|listed| listed.round).collect();
    assert_eq!(rounds, [1]);
}

#[test]
fn a_sync_that_fails_acknowledges_nothing_and_loses_nothing_older() {
    for syncs in 0..30 {
        let disk = SimDisk::new();
        disk.fail_sync_after(syncs);
        let mut knowledge = Knowledge::default();
        let failed = knowledge.run(&disk);
        for seed in 0..3 {
            let cut = disk.after_power_cut(seed);
            survives(&cut, &knowledge, seed, &format!("sync {syncs}: {failed:?}"));
        }
    }
}

/// redb may panic on a damaged file. Opening a store must not.
#[test]
fn damage_anywhere_in_the_index_costs_a_scan_at_most() {
    let disk = SimDisk::new();
    let mut knowledge = Knowledge::default();
    knowledge.run(&disk).expect("nothing fails");
    let index = disk.contents("index.redb").expect("is there");
    for at in (0..index.len() as u64).step_by(index.len() / 40) {
        let cut = disk.after_power_cut(1);
        for at in at..at + 600 {
            cut.damage("index.redb", at);
        }
        let opened = catch_unwind(AssertUnwindSafe(|| open(&cut).map(drop)));
        assert!(matches!(opened, Ok(Ok(()))), "damage at {at}: {opened:?}");
    }
}

/// redb does not check what it reads. A damaged row leads to a wrong place, where the object is not found.
#[test]
fn an_object_whose_place_in_the_index_is_damaged_is_a_bad_copy() {
    const ROUND: u64 = 0x0102_0304_0506_0708;
    let disk = SimDisk::new();
    let store = open(&disk).expect("opens");
    let record = page(1, 500);
    store.put(ROUND, std::slice::from_ref(&record)).expect("puts");
    store.close().expect("closes");
    // A row is the segment, the offset, the stored length and the round.
    let row_end = [record.body().stored_len.to_le_bytes().as_slice(), &ROUND.to_le_bytes()].concat();
    let index = disk.contents("index.redb").expect("is there");
    let rows: Vec<usize> = (12..index.len()).filter(|at| index.get(*at..at + 12) == Some(&row_end)).collect();
    assert!(!rows.is_empty());
    for damaged in rows.iter().flat_map(|row| row - 12..row + 4) {
        let disk = disk.after_power_cut(0);
        assert!(disk.damage("index.redb", damaged as u64));
        let store = open(&disk).expect("opens");
        match store.load(&record.name()).expect("reads") {
            Some(object) => assert_eq!(object.body, record.stored()),
            None => assert_eq!((store.usage().objects, store.usage().bad_copies), (0, 1), "byte {damaged}"),
        }
    }
}
