//! Many disks on one node: what they take, and that they do not get into each other's way.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muster_agent::{
    clock,
    hypervisor::RunId,
    limits,
    mirror::DiskWant,
    reconcile::{Reconciler, ReconcilerParts},
};
use muster_api::{
    DiskId, NodeId,
    node_protocol::{Assignment, DiskAssignment, Observed, Wanted},
};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use storage_core::{ChunkSize, MemoryStore};

use super::world::*;
use crate::support::{Versions, bare_instance, desired, no_networks, own_user};

/// The time within which 99 of 100 direct reads of 4 KiB end.
fn p99(path: &Path) -> Duration {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut block = Aligned::new(4096);
    let mut times: Vec<_> = (0..1000)
        .map(|n| {
            let begun = Instant::now();
            file.read_exact_at(&mut block, n % 256 * 4096).unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn fill(disk: &Path) {
    File::options().write(true).open(disk).unwrap().write_all_at(&vec![2; 1 << 20], 0).unwrap();
}

/// The file that has what was written to one disk is itself on a disk of another node, whose reads wait for a source
/// that never comes, but for the first block. The other disks of the node are as fast as before (I11).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_disk_does_not_delay_others() {
    let mut image = vec![1; 1 << 20];
    image[..256 << 10].fill(0);
    let nowhere = MemoryStore::new();
    let elsewhere = World::with(|config| {
        config.node = NodeId::generate();
        config.read_deadline = Duration::from_secs(60);
    })
    .await;
    let silent = elsewhere.ensure(&import(&nowhere, &image, ChunkSize::DEFAULT)).await.path;

    let world = World::new().await;
    let stuck = import(&*world.store, &image, ChunkSize::DEFAULT);
    let path = world.ensure(&stuck).await.path;
    blocking(move || fill(&path)).await;
    let World { disks, store, config, data, .. } = world;
    disks.shutdown().await;
    drop(disks);
    let delta = data.path.join(format!("disks/{}/0.delta", stuck.disk));
    let bound = delta.clone();
    blocking(move || mount_bind(&silent, &bound).unwrap()).await;
    let world = World::open(data, config, store).await;
    let stuck = world.ensure(&stuck).await.path;
    let mut others = Vec::new();
    for _ in 0..3 {
        let path = world.ensure(&import(&*world.store, &image, ChunkSize::DEFAULT)).await.path;
        others.push(path.clone());
        blocking(move || fill(&path)).await;
    }

    let slowest = |others: Vec<PathBuf>| blocking(move || others.iter().map(|path| p99(path)).max().unwrap());
    let before = slowest(others.clone()).await;
    let waiting: Vec<_> = (0..64)
        .map(|n| {
            let stuck = stuck.clone();
            std::thread::spawn(move || {
                let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(&stuck)?;
                file.read_at(&mut Aligned::new(4096), (128 + n) * 4096)
            })
        })
        .collect();
    // Whoever waits here is answered only at the end.
    eventually("all of them wait", Duration::from_secs(10), || waiting.iter().all(|read| !read.is_finished())).await;
    let beside = slowest(others).await;
    assert!(waiting.iter().all(|read| !read.is_finished()), "the disk answered, so that this test shows nothing");
    assert!(beside < before * 4 + Duration::from_millis(5), "p99 {beside:?} beside a stuck disk, {before:?} without");

    // The stuck file goes away with its own node.
    elsewhere.disks.shutdown().await;
    for read in waiting {
        assert!(read.join().unwrap().is_err());
    }
    world.disks.shutdown().await;
    unmount(&delta, UnmountFlags::DETACH).unwrap();
}

/// Somebody else ended the connection of a disk: it is not there, it says so, and it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_connection_ended_is_mounted_again() {
    let world = World::new().await;
    let want = import(&*world.store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    unmount(&path, UnmountFlags::FORCE | UnmountFlags::DETACH).unwrap();
    eventually("the end is noticed", Duration::from_secs(10), || !world.disks.status(want.disk).unwrap().mounted).await;
    assert!(world.ensure(&want).await.mounted);
    assert_eq!(blocking(move || std::fs::read(path).unwrap()).await, vec![1; 1 << 20]);
}

const MANY: &str = "MUSTER_TEST_MANY";
const DISKS: usize = 2000;

/// Not a test of its own: a process whose only work is a node with 2,000 disks, so that what it takes can be counted.
#[test]
fn process_with_many_disks() {
    let Some(dir) = std::env::var_os(MANY).map(PathBuf::from) else { return };
    limits::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let data = DataDir::borrowed(dir.clone());
        let store = Arc::new(MemoryStore::new());
        let image = import(&*store, &vec![1; 1 << 20], ChunkSize::DEFAULT);
        let world = World::open(data, config(&DataDir::borrowed(dir.clone())), store).await;
        let versions = Versions::from([(image.version, image.root.clone())]);
        let mut assignments: Vec<_> = (0..DISKS).map(|_| assignment(&image)).collect();
        let reconciler = Reconciler::new(ReconcilerParts {
            data_dir: dir.clone(),
            qemu_user: own_user(),
            disks: world.disks.clone().into(),
            networks: no_networks(),
            hypervisor: None,
            helper: helper_program(),
            run: RunId::generate(),
            host_boot: "this".to_owned(),
            now: Arc::new(clock::now),
        })
        .unwrap();
        let said = reach(&reconciler, &assignments, &versions, Observed::Running).await;
        say(&dir, "ready", &said);
        let asked = dir.join("remove");
        eventually("the test asks for the removal", Duration::from_secs(60), || asked.exists()).await;
        assignments.iter_mut().for_each(|assignment| assignment.wanted = Wanted::Gone);
        let said = reach(&reconciler, &assignments, &versions, Observed::Gone).await;
        say(&dir, "removed", &said);
        world.disks.shutdown().await;
    });
}

fn assignment(image: &DiskWant) -> Assignment {
    let disk = DiskAssignment {
        disk: DiskId::generate(),
        name: "root".to_owned(),
        size_bytes: image.size_bytes,
        version: image.version,
        in_guest: true,
        since_generation: 0,
    };
    Assignment { name: "web.1".to_owned(), host_name: "web-1".to_owned(), ..bare_instance(disk) }
}

/// Passes, as the agent does, until all instances are in this state. Returns the seconds until a half and all were.
async fn reach(reconciler: &Reconciler, wanted: &[Assignment], versions: &Versions, state: Observed) -> String {
    let (begun, mut half) = (Instant::now(), None);
    let mut changed = reconciler.changed();
    loop {
        let reports = reconciler.pass(&desired(wanted, versions)).await;
        let there = reports.iter().filter(|report| report.state == state).count();
        if there >= wanted.len() / 2 {
            half.get_or_insert(begun.elapsed());
        }
        if there == wanted.len() {
            return format!("{} {}", half.unwrap_or_default().as_secs_f64(), begun.elapsed().as_secs_f64());
        }
        let _looks_again = tokio::time::timeout(Duration::from_secs(5), changed.changed()).await;
    }
}

fn say(dir: &Path, name: &str, text: &str) {
    let new = dir.join(format!("{name}-new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, dir.join(name)).unwrap();
}

/// Threads, resident bytes and open descriptors of a process.
fn usage(pid: u32) -> (u64, u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("Threads:"), field("VmRSS:") << 10, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// Seconds that a plain program takes to make as many folders with three synced files each. On a machine that does
/// other things too, disks may take a multiple of that.
fn plain_files(dir: &Path) -> f64 {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                while let n @ 0..DISKS = next.fetch_add(1, Ordering::Relaxed) {
                    let folder = dir.join(n.to_string());
                    std::fs::create_dir(&folder).unwrap();
                    for name in ["a", "b", "c"] {
                        let file = File::create(folder.join(name)).unwrap();
                        file.write_all_at(&[1; 4096], 0).unwrap();
                        file.sync_all().unwrap();
                    }
                    File::open(&folder).unwrap().sync_all().unwrap();
                }
            });
        }
    });
    begun.elapsed().as_secs_f64()
}

/// Time that the processors worked for a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // utime and stime, in hundredths.
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_2000_disks() {
    let data = DataDir::new();
    let plain = tempfile::tempdir_in(data.path.parent().unwrap()).unwrap();
    let plain = blocking(move || plain_files(plain.path())).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mirror::many::process_with_many_disks", "--nocapture"]).env(MANY, &data.path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut threads_max = 0;
    let mut told = async |name: &str| {
        let file = data.path.join(name);
        eventually(name, Duration::from_secs(60), || {
            threads_max = threads_max.max(usage(pid).0);
            file.exists()
        })
        .await;
        let text = std::fs::read_to_string(file).unwrap();
        let (half, all) = text.split_once(' ').unwrap();
        (half.parse::<f64>().unwrap(), all.parse::<f64>().unwrap())
    };
    let (half, ready) = told("ready").await;
    let cpu = cpu_seconds(pid);
    let disks = mounts_below(&data.path);
    assert_eq!(disks.len(), DISKS);
    // All of them are read at once, and answer.
    blocking(move || {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    while let Some(disk) = disks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(disk).unwrap();
                        let mut block = Aligned::new(4096);
                        file.read_exact_at(&mut block, 8192).unwrap();
                        assert_eq!(*block, [1; 4096]);
                    }
                });
            }
        });
    })
    .await;
    let (_, resident, descriptors) = usage(pid);
    say(&data.path, "remove", "");
    let (half_gone, gone) = told("removed").await;
    assert!(blocking(move || child.wait().unwrap()).await.success());
    let what = format!(
        "{threads_max} threads, {} MiB, {descriptors} descriptors; half ready after {half:.1} s, all after {ready:.1} s; \
         half gone after {half_gone:.1} s, all after {gone:.1} s; {cpu:.1} s of processors until ready, plain files {plain:.1} s",
        resident >> 20
    );
    println!("{what}");
    assert!(threads_max < 200 && resident < 300 << 20, "{what}");
    // On a machine that does other things too, it may take a multiple of what it takes of the processors.
    let limit = f64::max(10.0, 4.0 * cpu.max(plain));
    assert!(cpu < 20.0, "{what}");
    assert!(ready < limit && gone < limit, "{what}");
    // It is linear: in quadratic time, the first half is there after a quarter. Of a removal this cannot be told: many are under
    // way at a time, and most of them end late.
    assert!(ready < 3.5 * half, "{what}");
}
