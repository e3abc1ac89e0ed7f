//! How fast the copies of a lost node are made again, and what reads of other nodes notice of it.
//!
//! Every agent is a host with a link of a limited rate, so that the links are the bound and not the processors that all
//! agents share here. The rate is what all links together carried while the repair went on, beside what the links of the
//! nodes that are left can carry. Two nodes are lost one after the other: the first while nobody reads, the second while
//! programs on other nodes read chunks that no cache has.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use muster_api::{instance::Instance, node::Node, pool::Pool};
use muster_tests::{Cluster, ClusterOptions, StopOnDrop, eventually};
use serde_json::json;

use crate::{Table, commit::noise};

const LIMIT: Duration = Duration::from_secs(600);
const AGENTS: usize = 8;
const MBIT_PER_S: u32 = 62;
const IMAGE: u64 = 2 << 30;
const CHUNK: u64 = 256 << 10;
const PIECE: u64 = 4 << 20;
/// Time between two looks at what the links carried.
const LOOK: Duration = Duration::from_millis(200);
/// Programs that read, each on a disk of its own.
const READERS: usize = 3;
/// How long they read while nothing is repaired.
const BESIDE_NOTHING: Duration = Duration::from_secs(15);

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(measure(table));
}

async fn measure(table: &mut Table) {
    let mut cluster = Cluster::start(ClusterOptions::files(AGENTS).with_links(MBIT_PER_S)).await;
    let image = cluster.dir.join("image.raw");
    write_noise(&image, IMAGE);
    cluster.api.import("base", &image).await;
    // The two nodes that are lost run nothing.
    for lost in [AGENTS - 1, AGENTS - 2] {
        let _: Node = cluster.api.post(&format!("/v1/nodes/node-{lost}/cordon"), json!({})).await.ok();
    }
    let instances = cluster.api.deploy_files("readers", "base", READERS as u64).await;
    let disks: Vec<File> = instances.iter().map(open).collect();
    settled(&cluster, 1).await;

    let (alone, left) = loss(&mut cluster, AGENTS - 1).await;
    report(table, "while nobody reads", alone, left, ">= 0.7");

    let order: Vec<u64> = shuffled(IMAGE / CHUNK);
    let stop = AtomicBool::new(false);
    let mut without = Vec::new();
    let (mut with, mut beside) = (Vec::new(), None);
    let (first, second) = order.split_at(order.len() / 2);
    for (part, chunks) in [first, second].into_iter().enumerate() {
        stop.store(false, Ordering::Relaxed);
        let times = std::thread::scope(|scope| {
            let stops = StopOnDrop(&stop);
            let reading: Vec<_> = disks.iter().map(|disk| scope.spawn(|| read_cold(disk, chunks, &stop))).collect();
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    match part {
                        0 => tokio::time::sleep(BESIDE_NOTHING).await,
                        _ => beside = Some(loss(&mut cluster, AGENTS - 2).await),
                    }
                });
            });
            drop(stops);
            reading.into_iter().flat_map(|reader| reader.join().expect("it reads")).collect::<Vec<_>>()
        });
        if part == 0 { without = times } else { with = times }
    }
    let (rate, left) = beside.expect("a node was lost");
    report(table, "while three programs read", rate, left, "none");
    let what = format!("read of a chunk that no cache has, beside a repair, 99th percentile of {}", with.len());
    let (with, without) = (p99(&mut with), p99(&mut without));
    table.row(
        &what,
        format!("{with:.0} ms"),
        format!("{without:.0} ms without the repair"),
        Some(with / without),
        "<= 1.5",
    );
}

fn report(table: &mut Table, how: &str, rate: f64, left: usize, aim: &str) {
    let line = left as f64 * f64::from(MBIT_PER_S) / 8.0;
    table.row(
        &format!("repair after the loss of 1 of {} nodes, links of {MBIT_PER_S} Mbit/s, {how} (rate)", left + 1),
        format!("{rate:.1} MB/s"),
        format!("{line:.1} MB/s, all links of the rest"),
        Some(rate / line),
        aim,
    );
}

/// Loses a node. Returns the rate at which its copies were made again, 10^6 bytes per second, and how many nodes are left.
async fn loss(cluster: &mut Cluster, number: usize) -> (f64, usize) {
    let name = format!("node-{number}");
    let epoch = cluster.api.get("/v1/pools/default").await.ok::<Pool>().membership_epoch;
    let lost = cluster.api.get(&format!("/v1/nodes/{name}")).await.ok::<Node>().pool.used_bytes;
    let before = copied(cluster).await;
    cluster.kill_agent(number);
    let _: Node = cluster.api.post(&format!("/v1/nodes/{name}/fence"), json!({ "confirm": true })).await.ok();
    let begun = Instant::now();
    assert_eq!(cluster.api.delete(&format!("/v1/nodes/{name}")).await.status, 204);
    let links = cluster.links.as_ref().expect("the cluster has links");
    let mut seen = vec![(0.0, links.received_bytes())];
    let end = begun + LIMIT;
    loop {
        tokio::time::sleep(LOOK).await;
        seen.push((begun.elapsed().as_secs_f64(), links.received_bytes()));
        if is_settled(cluster, epoch + 1).await.is_ok() {
            break;
        }
        assert!(Instant::now() < end, "the repair does not end\n{}", cluster.logs());
    }
    let copied = copied(cluster).await - before;
    assert!(copied * 2 >= lost, "{copied} bytes were copied, and {lost} were lost");
    // The time in which the links carried nearly all of it. What programs read beside it is not counted.
    let (first, last) = (seen[0].1, seen[seen.len() - 1].1);
    let at = |share: f64| {
        let bytes = first as f64 + (last - first) as f64 * share;
        seen.iter().find(|(_, carried)| *carried as f64 >= bytes).expect("it was carried").0
    };
    let took = at(0.98) - at(0.02);
    (copied as f64 * 0.96 / took / 1e6, cluster.api.list::<Node>("/v1/nodes").await.len())
}

/// Stored bytes of all copies that nodes have sent.
async fn copied(cluster: &Cluster) -> u64 {
    cluster.api.get("/v1/pools/default").await.ok::<Pool>().repair.copied.bytes
}

async fn settled(cluster: &Cluster, epoch_min: u64) {
    eventually("nothing to be missing", LIMIT, async || is_settled(cluster, epoch_min).await).await;
}

/// Whether all nodes have compared all their objects in an epoch of at least this number, and none lacks anything.
async fn is_settled(cluster: &Cluster, epoch_min: u64) -> Result<(), String> {
    let pool: Pool = cluster.api.get("/v1/pools/default").await.ok();
    let repair = &pool.repair;
    let done = pool.membership_epoch >= epoch_min
        && repair.nodes_done == pool.nodes
        && repair.unchecked_objects + repair.missing.objects == 0;
    if done { Ok(()) } else { Err(format!("{repair:?}")) }
}

fn open(instance: &Instance) -> File {
    let path = instance.disks[0].path.clone().expect("operators see the path");
    File::open(path).expect("open the disk")
}

fn write_noise(path: &Path, bytes: u64) {
    let mut file = File::create(path).expect("create");
    for at in (0..bytes).step_by(usize::try_from(PIECE).expect("fits")) {
        file.write_all(&noise(at + 1, PIECE)).expect("write");
    }
}

/// The numbers below `count` in an order without a pattern.
fn shuffled(count: u64) -> Vec<u64> {
    // An odd factor that is not near a fraction of the count visits each number of a power of two once.
    assert!(count.is_power_of_two());
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) + 12_345) % count).collect()
}

/// Reads 4 KiB of one chunk after the other until it is told to stop. Returns the times in milliseconds.
fn read_cold(disk: &File, chunks: &[u64], stop: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    rustix::fs::fadvise(disk, 0, None, rustix::fs::Advice::Random).expect("no readahead");
    for chunk in chunks {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        disk.read_exact_at(&mut [0; 4096], chunk * CHUNK + 8192).expect("read");
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times
}

fn p99(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
