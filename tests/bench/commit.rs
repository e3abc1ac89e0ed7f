//! What a snapshot costs: the time of a commit of 15 MB, the pause of writers around a cut, and what others on the node
//! notice of a large commit.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use muster_api::instance::Instance;
use muster_tests::{Cluster, ClusterOptions, Pattern, StopOnDrop};
use serde_json::json;

use crate::{Table, median};

const LIMIT: Duration = Duration::from_secs(120);
const DIRTY: u64 = 15 << 20;
const CHUNK: u64 = 256 << 10;

fn open(instance: &Instance) -> File {
    let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
    File::options().read(true).write(true).open(path).expect("open the disk")
}

async fn cluster(agents: usize, count: u64) -> (Cluster, Vec<File>) {
    let cluster = Cluster::start(ClusterOptions::files(agents).as_processes()).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(61, 512 << 20, 1 << 20, 4 << 20).write(&file);
    cluster.api.import("base", &file).await;
    let disks = cluster.api.deploy_files("web", "base", count).await.iter().map(open).collect();
    (cluster, disks)
}

/// Bytes that do not compress. The same seed gives the same bytes.
pub(crate) fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("fits"));
    while (out.len() as u64) < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let (cluster, disks) = cluster(3, 1).await;
        let snapshot = async |name: String| {
            let begun = Instant::now();
            cluster.api.done("/v1/snapshots", json!({ "name": name, "select": { "deployment": "web" } }), LIMIT).await;
            begun.elapsed().as_secs_f64()
        };
        let copy = |seed: u64| {
            let data = noise(seed, DIRTY);
            let begun = Instant::now();
            // A commit stores two copies, so the reference is two receivers that each write and sync the bytes.
            std::thread::scope(|scope| {
                for node in 0..2 {
                    let (data, path) = (&data, cluster.dir.join(format!("copy-{node}")));
                    scope.spawn(move || copy_over_tcp(data, &path));
                }
            });
            begun.elapsed().as_secs_f64()
        };
        let (mut whole, mut theirs, mut ratios, mut scattered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..5 {
            theirs.push(copy(1000 + round));
            disks[0].write_all_at(&noise(round + 1, DIRTY), round * 2 * DIRTY / CHUNK * CHUNK).expect("write");
            let took = snapshot(format!("whole-{round}")).await;
            ratios.push(took / theirs.last().copied().unwrap_or(f64::NAN));
            whole.push(took);
        }
        for round in 0..3 {
            // 15 MB in pieces of 4 KiB, spread over all chunks of the disk.
            for piece in 0..DIRTY / 4096 {
                let chunk = piece % ((512 << 20) / CHUNK);
                let at = chunk * CHUNK + piece / ((512 << 20) / CHUNK) * 4096 + round * 16384;
                disks[0].write_all_at(&noise(piece + 7 * round + 99, 4096), at).expect("write");
            }
            scattered.push(snapshot(format!("scattered-{round}")).await);
        }
        table.row(
            "commit of 15 MB dirty in whole chunks, POST to durable (time)",
            format!("{:.0} ms", median(whole) * 1e3),
            format!("{:.0} ms copying to two nodes and syncing", median(theirs) * 1e3),
            Some(median(ratios)),
            "<= 2",
        );
        let ms = median(scattered) * 1e3;
        table.row("commit of 15 MB dirty in scattered 4 KiB", format!("{ms:.0} ms"), "-".into(), None, "none");
    });
}

pub(crate) fn copy_over_tcp(data: &[u8], path: &std::path::Path) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = std::net::TcpStream::connect(address).expect("connect");
            to.write_all(data).expect("send");
            to.shutdown(std::net::Shutdown::Write).expect("end");
            to.read_exact(&mut [0]).expect("the acknowledgement");
        });
        let (mut from, _) = listener.accept().expect("accept");
        let mut file = File::create(path).expect("create");
        std::io::copy(&mut from, &mut file).expect("write");
        file.sync_data().expect("sync");
        from.write_all(&[1]).expect("acknowledge");
    });
}

pub(crate) fn cut(table: &mut Table) {
    cut_of(table, 1, 1, "5 ms");
    cut_of(table, 16, 16, "20 ms");
}

/// The longest write around a cut of so many members, which write all the time.
fn cut_of(table: &mut Table, agents: usize, members: u64, aim: &str) {
    crate::runtime().block_on(async {
        let (cluster, disks) = cluster(agents, members).await;
        let (stop, longest) = (AtomicBool::new(false), AtomicU64::new(0));
        let take = || longest.swap(0, Ordering::Relaxed);
        let (with, without) = std::thread::scope(|scope| {
            let _stops = StopOnDrop(&stop);
            for (number, disk) in disks.iter().enumerate() {
                let (stop, longest) = (&stop, &longest);
                scope.spawn(move || {
                    let data = noise(number as u64 + 5, 4096);
                    for n in 0_u64.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let begun = Instant::now();
                        disk.write_all_at(&data, n * 4096 % (64 << 20)).expect("write");
                        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                        longest.fetch_max(took, Ordering::Relaxed);
                    }
                });
            }
            let measured = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    let (mut with, mut without) = (Vec::new(), Vec::new());
                    for round in 0..5 {
                        take();
                        let begun = Instant::now();
                        let body = json!({ "name": format!("s{round}"), "select": { "deployment": "web" } });
                        let cut: muster_api::operation::Operation = cluster.api.post("/v1/snapshots", body).await.ok();
                        wait_for_cut(&cluster, &format!("s{round}")).await;
                        with.push(take() as f64 / 1e3);
                        let window = begun.elapsed();
                        cluster.api.wait(&cut.id.to_string(), LIMIT).await;
                        // The same time again, without a cut and without an upload.
                        take();
                        tokio::time::sleep(window).await;
                        without.push(take() as f64 / 1e3);
                    }
                    (with, without)
                })
            });
            stop.store(true, Ordering::Relaxed);
            measured
        });
        table.row(
            &format!("longest write around a cut of {members} members on {agents} nodes, median of five"),
            format!("{:.1} ms", median(with)),
            format!("{:.1} ms without a cut", median(without)),
            None,
            aim,
        );
    });
}

async fn wait_for_cut(cluster: &Cluster, name: &str) {
    muster_tests::eventually("the cut", LIMIT, async || {
        let now = cluster.api.snapshot(name).await;
        if now.cut_at.is_some() { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

const BULK: u64 = 1 << 30;

/// What a writer that flushes after each write notices of another disk's commit of 1 GiB.
pub(crate) fn beside(table: &mut Table) {
    crate::runtime().block_on(async {
        let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
        let file = cluster.dir.join("image.raw");
        Pattern::striped(61, BULK, 4096, 64 << 20).write(&file);
        cluster.api.import("base", &file).await;
        let writer = open(&cluster.api.deploy_files("web", "base", 1).await.remove(0));
        let bulk = open(&cluster.api.deploy_files("bulk", "base", 1).await.remove(0));
        let (mut with, mut without, mut took) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3 {
            for at in (0..BULK).step_by(DIRTY.try_into().expect("fits")) {
                bulk.write_all_at(&noise(at + round + 1, DIRTY.min(BULK - at)), at).expect("write");
            }
            bulk.sync_all().expect("sync");
            let begun = Instant::now();
            with.push(
                p99_while(&writer, async {
                    let body = json!({ "name": format!("s{round}"), "select": { "deployment": "bulk" } });
                    cluster.api.done("/v1/snapshots", body, LIMIT).await;
                })
                .await,
            );
            let window = begun.elapsed();
            took.push(window.as_secs_f64());
            without.push(p99_while(&writer, tokio::time::sleep(window)).await);
        }
        let (with, without) = (median(with), median(without));
        table.row(
            &format!("4 KiB write and flush beside a commit of 1 GiB ({:.1} s), 99th percentile", median(took)),
            format!("{with:.2} ms"),
            format!("{without:.2} ms without the commit"),
            Some(with / without),
            "none",
        );
    });
}

/// The 99th percentile of the time that a write with a flush takes while something is done, milliseconds.
async fn p99_while(disk: &File, work: impl Future<Output = ()>) -> f64 {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (disk, stopped) = (disk.try_clone().expect("a descriptor"), stop.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let (data, mut times) = (noise(5, 4096), Vec::new());
        while !stopped.load(Ordering::Relaxed) {
            let begun = Instant::now();
            disk.write_all_at(&data, times.len() as u64 * 4096 % (64 << 20)).expect("write");
            disk.sync_data().expect("sync");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times
    });
    work.await;
    stop.store(true, Ordering::Relaxed);
    let mut times = writing.await.expect("the writer ends well");
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
