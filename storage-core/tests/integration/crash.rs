//! The segment store is stopped after every single write, and what was not synced is kept, dropped or torn. Opened
//! again, it has everything that it ever acknowledged, with its stamp, and shows nothing that is not whole. What it then
//! reports as present stays there through the next power cut.
//!
//! Method: one scripted run on a simulated disk is repeated once per write of it and stops there. Each stop is followed
//! by several power cuts that differ in what the disk kept.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
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
    /// Everything ever put, and the highest round that it may have.
    tried: BTreeMap<ObjectName, (Record, u64)>,
    /// What was put or touched since the last sync, by calls that returned.
    answered: BTreeMap<ObjectName, u64>,
    /// What a sync has acknowledged.
    acknowledged: BTreeMap<ObjectName, u64>,
}

impl Knowledge {
    fn put(&mut self, store: &SegmentStore, round: u64, seeds: &[u64]) -> Result<(), StoreError> {
        let records: Vec<Record> =
            seeds.iter().map(|n| page(*n, 40 + usize::try_from(n * 677 % 3000).expect("small"))).collect();
        for record in &records {
            let tried = self.tried.entry(record.name()).or_insert((record.clone(), round));
            tried.1 = tried.1.max(round);
        }
        store.put(round, &records)?;
        self.answered.extend(records.iter().map(|r| (r.name(), round)));
        Ok(())
    }

    fn touch(&mut self, store: &SegmentStore, round: u64) -> Result<(), StoreError> {
        let names: Vec<ObjectName> = self.tried.keys().copied().step_by(3).collect();
        self.tried.iter_mut().step_by(3).for_each(|(_, tried)| tried.1 = tried.1.max(round));
        let here = store.touch(round, &names)?;
        self.answered.extend(names.into_iter().zip(here).filter(|(_, here)| *here).map(|(name, _)| (name, round)));
        Ok(())
    }

    fn sync(&mut self, store: &SegmentStore) -> Result<(), StoreError> {
        store.sync()?;
        self.acknowledged.append(&mut self.answered);
        Ok(())
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
                if step % 2 == 0 {
                    self.sync(&store)?;
                }
            }
            if part == 1 {
                store.close()?;
                self.acknowledged.append(&mut self.answered);
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
    // An object that was never acknowledged but is reported as present is promised with the next sync.
    let round = 100;
    knowledge.tried.values_mut().for_each(|tried| tried.1 = round);
    knowledge.touch(&store, round).expect("touches");
    knowledge.put(&store, round, &[1000, 1001, 3, 40]).expect("puts");
    knowledge.sync(&store).expect("syncs");
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

#[test]
fn the_same_holds_without_the_index() {
    for stop in (0..=changes_of_a_whole_run()).step_by(3) {
        let (disk, knowledge) = stopped_after(stop);
        let cut = disk.after_power_cut(stop);
        if cut.list().expect("lists").iter().any(|name| name == "index.redb") {
            cut.remove("index.redb").expect("removes");
        }
        survives(&cut, &knowledge, stop, &format!("stop {stop}, no index"));
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
