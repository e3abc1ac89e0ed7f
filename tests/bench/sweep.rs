//! What a sweep costs those that use the pool at the same time, and what the disk gets back: a node's store and its part of
//! the sweep, without a network.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use muster_agent::{
    controller::scripted::ScriptedController,
    data_disk::{DataDisk, Reserves},
    peer::share::PoolShare,
    sweep::{Named, Sweeper},
};
use muster_api::node_protocol::{Incarnation, sweep::SweepRound};
use muster_tests::StopOnDrop;
use rustix::fs::FallocateFlags;
use storage_core::{
    ChunkSize, Compression, Kind, ObjectName, Record, Salt,
    store::{ChunkStore, Options, SegmentStore},
};

use crate::{Table, commit::noise};

/// Objects in the pool before the sweep: packs of one block, and chunks. Half of them are swept.
const PACKS: u64 = 200_000;
const CHUNKS: u64 = 2_000;
/// Objects of one kind that are swept together: neighbours on the disk usually go together.
const RUN: u64 = 32;
/// They are swept in so many rounds. Before each the pool is used for as long without a sweep.
const PARTS: usize = 3;
const WITHOUT: Duration = Duration::from_secs(8);
/// Longest that one of these rounds may take: the pool grows meanwhile.
const ROUND_MAX: Duration = Duration::from_secs(120);
const INCARNATION: Incarnation = Incarnation { number: 1, random: 1 };

fn pack(number: u64) -> Record {
    Record::encode(Kind::Pack, Salt::SHARED, None, &noise(number, 4096), Compression::Off)
}

fn chunk(number: u64) -> Record {
    Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &noise(number, 256 << 10), Compression::Off)
}

/// Milliseconds that reads and commits took.
#[derive(Default)]
struct Times {
    reads: Vec<f64>,
    commits: Vec<f64>,
    /// Parts of the commits in which the disk synced.
    syncs: Vec<f64>,
    /// Parts of the commits in which they were ready to go on and waited for a processor.
    waits: Vec<f64>,
}

pub(crate) fn run(table: &mut Table) {
    let parent = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let folder = tempfile::tempdir_in(parent).expect("a folder");
    let store = SegmentStore::open(&folder.path().join("pool"), Options::default()).expect("opens");
    let (kept, gone) = fill(&store);
    let disk = Arc::new(DataDisk::new(folder.path().to_owned(), Reserves::default()));
    let share = Arc::new(PoolShare::new(Arc::new(store), disk));
    let controller = ScriptedController::new();
    let sweeper = Arc::new(Sweeper::new(Arc::new(controller.clone()), share.clone(), folder.path()));
    let (runtime, running) = (crate::runtime(), sweeper.clone());
    runtime.spawn(async move { running.run().await });

    let (mut with, mut without) = (Times::default(), Times::default());
    let (mut took, mut bytes, mut reclaimed) = (0.0, 0, 0);
    for part in 0..PARTS {
        use_pool(&share, &kept, &mut without, &|began| began.elapsed() < WITHOUT);
        // A round that is not the next one makes the node ask about everything that it has.
        let round = SweepRound { round: 9 + 2 * part as u64 };
        let gone: BTreeSet<ObjectName> =
            gone.iter().copied().skip(part * gone.len() / PARTS).take(gone.len() / PARTS).collect();
        let count = gone.len() as u64;
        controller.script(|script| {
            script.sweep = Some(round);
            script.unneeded = gone;
        });
        let begun = Instant::now();
        sweeper.heard(Some(Named { incarnation: INCARNATION, round }));
        use_pool(&share, &kept, &mut with, &|began| {
            began.elapsed() < ROUND_MAX && controller.script(|script| script.swept.len() == part)
        });
        took += begun.elapsed().as_secs_f64();
        let done = controller.script(|script| script.swept.get(part).map(|(_, done)| *done));
        let done = done.unwrap_or_else(|| panic!("a round takes too long: {:?}", sweeper.status()));
        assert_eq!(done.objects, count, "everything that nothing needs is dropped");
        bytes += done.bytes;
        reclaimed += done.reclaimed_bytes;
    }

    let swept = format!("a sweep of {} of its {} objects ({took:.0} s)", (PACKS + CHUNKS) / 2, PACKS + CHUNKS);
    for (what, with, without, target) in [
        ("read", with.reads, without.reads, "<= 1.5"),
        ("put of 1 MiB and its sync", with.commits, without.commits, "<= 1.5"),
        ("the sync alone", with.syncs, without.syncs, "none"),
        ("what such a put and sync wait for a processor", with.waits, without.waits, "none"),
    ] {
        let (with, without) = (p99(with), p99(without));
        table.row(
            &format!("{what} in a node's store beside {swept}, 99th percentile"),
            format!("{with:.2} ms"),
            format!("{without:.2} ms without the sweep"),
            Some(with / without),
            target,
        );
    }
    let (with, without) = (p99(raw(folder.path(), true)), p99(raw(folder.path(), false)));
    table.row(
        "1 MiB appended to a file and its sync beside a program that makes holes in another one, 99th percentile",
        format!("{with:.2} ms"),
        format!("{without:.2} ms without the program"),
        Some(with / without),
        "none",
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (bytes, reclaimed) = (bytes as f64 / 1e6, reclaimed as f64 / 1e6);
    table.row(
        "bytes that the sweep gave back to the disk / bytes swept",
        format!("{reclaimed:.0} MB"),
        format!("{bytes:.0} MB"),
        Some(reclaimed / bytes),
        ">= 0.98",
    );
}

/// Stores the objects. The answer has the names of the chunks that stay, and of all objects that go.
fn fill(store: &SegmentStore) -> (Vec<ObjectName>, Vec<ObjectName>) {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for (count, at_once, record) in [(PACKS, 1024, pack as fn(u64) -> Record), (CHUNKS, 64, chunk)] {
        kept.clear();
        for from in (0..count).step_by(at_once) {
            let numbers = from..(from + at_once as u64).min(count);
            let records: Vec<Record> = numbers.clone().map(record).collect();
            store.put(1, &records).expect("puts");
            for (number, record) in numbers.zip(&records) {
                let names = if (number / RUN).is_multiple_of(2) { &mut kept } else { &mut gone };
                names.push(record.name());
            }
        }
        store.sync().expect("syncs");
    }
    (kept, gone)
}

/// Reads objects and commits new ones at the same time, as long as `goes_on`.
fn use_pool(share: &PoolShare, names: &[ObjectName], times: &mut Times, goes_on: &dyn Fn(Instant) -> bool) {
    static NEXT_CHUNK: AtomicU64 = AtomicU64::new(1 << 40);
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let Times { reads, commits, syncs, waits } = times;
    std::thread::scope(|scope| {
        let _stops = StopOnDrop(&stop);
        scope.spawn(|| {
            for name in names.iter().cycle().step_by(7) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let asked = Instant::now();
                assert!(share.get(name).expect("reads").is_some(), "{name} is needed");
                reads.push(asked.elapsed().as_secs_f64() * 1e3);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while goes_on(began) {
            let first = NEXT_CHUNK.fetch_add(4, Ordering::Relaxed);
            let records: Vec<Record> = (first..first + 4).map(chunk).collect();
            let (asked, waited) = (Instant::now(), waited_ms());
            share.put(9, &records).expect("puts");
            let put = Instant::now();
            share.sync().expect("syncs");
            syncs.push(put.elapsed().as_secs_f64() * 1e3);
            commits.push(asked.elapsed().as_secs_f64() * 1e3);
            waits.push(waited_ms() - waited);
            std::thread::sleep(Duration::from_millis(25));
        }
    });
}

/// Milliseconds that this thread was ready to run and had no processor, since it began.
fn waited_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts it");
    let waited_ns: f64 = text.split(' ').nth(1).and_then(|ns| ns.parse().ok()).expect("the second of three numbers");
    waited_ns / 1e6
}

/// What the file system makes of the same writes without Muster: milliseconds that a MiB takes to be appended and synced, while a
/// program makes holes in another file as a sweep does, or alone.
fn raw(folder: &Path, holes: bool) -> Vec<f64> {
    const HOLE: u64 = RUN * 4096;
    let (appended, punched) = (create(folder, "appended"), create(folder, "punched"));
    let mib = noise(1, 1 << 20);
    for at in 0..256 {
        punched.write_all_at(&mib, at << 20).expect("write");
    }
    punched.sync_all().expect("sync");
    let (stop, mut times) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let _stops = StopOnDrop(&stop);
        if holes {
            scope.spawn(|| {
                let pause = |began: Instant| std::thread::sleep(began.elapsed() * 3);
                for batch in (0..(256 << 20) / (2 * HOLE)).collect::<Vec<u64>>().chunks(32).cycle() {
                    let began = Instant::now();
                    for hole in batch {
                        punched.write_all_at(&[1; 48], hole * 2 * HOLE).expect("write");
                    }
                    punched.sync_data().expect("sync");
                    pause(began);
                    for some in batch.chunks(4) {
                        let began = Instant::now();
                        for hole in some {
                            let (from, bytes) = (hole * 2 * HOLE + 4096, HOLE - 4096);
                            rustix::fs::fallocate(
                                &punched,
                                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                                from,
                                bytes,
                            )
                            .expect("punch");
                        }
                        pause(began);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            });
        }
        let began = Instant::now();
        for at in (0u64..).take_while(|_| began.elapsed() < WITHOUT) {
            let asked = Instant::now();
            appended.write_all_at(&mib, at << 20).expect("write");
            appended.sync_data().expect("sync");
            times.push(asked.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(25));
        }
    });
    times
}

fn create(folder: &Path, name: &str) -> File {
    File::options().create(true).truncate(true).read(true).write(true).open(folder.join(name)).expect("create")
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
