//! Whether the number of versions matters: reads and snapshots of a disk with a thousand versions behind it, and clones.
//!
//! The chunks of such a disk are patched within the bounds of the format, so the page of each of its snapshots is larger than
//! that of a disk of whole chunks, however many versions there are. Two more rows tell that apart: what the snapshots store, and
//! the first snapshots of a disk that begins with the last version.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use muster_api::{
    instance::Instance,
    snapshot::{Snapshot, SnapshotMember},
};
use muster_tests::{Cluster, ClusterOptions};
use serde_json::json;

use crate::{Table, commit::noise, median};

const LIMIT: Duration = Duration::from_secs(120);
const DISK: u64 = 64 << 20;
const BLOCK: u64 = 4096;
const VERSIONS: u64 = 1000;
/// Snapshots at the beginning and at the end whose times are compared.
const COMPARED: usize = 21;
/// Reads of the whole disk, each with its reference.
const READS: usize = 15;
const CLONES: usize = 1000;
/// Calls under way at a time when many clones are made.
const SIDE_BY_SIDE: usize = 16;

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(measure(table));
}

async fn measure(table: &mut Table) {
    let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
    let image = cluster.dir.join("image.raw");
    std::fs::write(&image, noise(4, DISK)).expect("write the image");
    cluster.api.import("base", &image).await;
    let instance = cluster.api.deploy_files("deep", "base", 1).await.remove(0);
    let deep = open(&instance);
    let mut times = Vec::new();
    for version in 0..VERSIONS {
        times.push(snapshot(&cluster, &deep, "deep", version).await);
    }
    let (first, last) = (median(times[..COMPARED].to_vec()), median(times[times.len() - COMPARED..].to_vec()));
    table.row(
        &format!("snapshot number {VERSIONS} of a disk, POST to durable (time)"),
        format!("{last:.1} ms"),
        format!("{first:.1} ms the first ones"),
        Some(last / first),
        "<= 1.1",
    );
    what_bounds(table, &cluster, last).await;
    // The same bytes as one version.
    let flat = cluster.dir.join("flat.raw");
    std::fs::write(&flat, read(&deep)).expect("write the image");
    cluster.api.import("flat", &flat).await;
    let instance = cluster.api.deploy_files("shallow", "flat", 1).await.remove(0);
    let path = instance.disks[0].path.clone().expect("operators see the path");
    let shallow = File::open(path).expect("open the disk");
    assert!(read(&deep) == read(&shallow), "both disks have the same bytes");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..READS {
        theirs.push(timed(&shallow));
        ours.push(timed(&deep));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    table.row(
        &format!("warm read of 64 MiB at {VERSIONS} versions (time)"),
        format!("{:.1} ms", ours * 1e3),
        format!("{:.1} ms at one version", theirs * 1e3),
        Some(ours / theirs),
        "<= 1.02",
    );
    clones(table, &cluster).await;
}

/// Writes a few blocks of always other chunks and takes a snapshot. Returns the time until it is durable, in milliseconds.
async fn snapshot(cluster: &Cluster, disk: &File, deployment: &str, version: u64) -> f64 {
    let blocks: BTreeSet<u64> = (0..4).map(|n| (version * 4 + n) * 67 % (DISK / BLOCK)).collect();
    for block in blocks {
        disk.write_all_at(&noise(version + block, BLOCK), block * BLOCK).expect("write");
    }
    disk.sync_all().expect("sync");
    let begun = Instant::now();
    let name = format!("{}{version}", &deployment[..1]);
    let body = json!({ "name": name, "select": { "deployment": deployment } });
    cluster.api.done("/v1/snapshots", body, LIMIT).await;
    begun.elapsed().as_secs_f64() * 1e3
}

fn open(instance: &Instance) -> File {
    let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
    File::options().read(true).write(true).open(path).expect("open the disk")
}

/// What snapshots of a disk of patched chunks cost, however many versions it has.
async fn what_bounds(table: &mut Table, cluster: &Cluster, last: f64) {
    let all = cluster.api.list::<Snapshot>("/v1/snapshots").await;
    let stored: Vec<f64> = all.iter().map(|snapshot| snapshot.stored_bytes as f64 / 1e3).collect();
    assert_eq!(stored.len() as u64, VERSIONS, "all of them are listed, oldest first");
    let (least, most) = (median(stored[..COMPARED].to_vec()), median(stored[stored.len() - COMPARED..].to_vec()));
    table.row(
        &format!(
            "bytes stored by snapshot number {VERSIONS}, {} KiB dirty: a pack, a page, a descriptor",
            4 * BLOCK / 1024
        ),
        format!("{most:.1} kB"),
        format!("{least:.1} kB by the first ones"),
        Some(most / least),
        "none",
    );
    let source = json!({ "snapshot": format!("d{}", VERSIONS - 1) });
    let body = json!({ "name": "new", "source": source, "runtime": "none" });
    cluster.api.done("/v1/deployments", body, LIMIT).await;
    let disk = open(&cluster.api.instances("new").await.remove(0));
    let mut times = Vec::new();
    for version in 0..COMPARED as u64 {
        times.push(snapshot(cluster, &disk, "new", VERSIONS + version).await);
    }
    let first = median(times);
    table.row(
        &format!("snapshot number {VERSIONS} of a disk, POST to durable, beside one whose page is as large (time)"),
        format!("{last:.1} ms"),
        format!("{first:.1} ms the first ones of a disk that begins with version {VERSIONS}"),
        Some(last / first),
        "none",
    );
}

fn read(disk: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(DISK).expect("fits")];
    disk.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// The time to read the whole disk, in seconds. The kernel's cache of it is dropped before.
fn timed(disk: &File) -> f64 {
    rustix::fs::fadvise(disk, 0, None, rustix::fs::Advice::DontNeed).expect("drop cached pages");
    let begun = Instant::now();
    read(disk);
    begun.elapsed().as_secs_f64()
}

async fn clones(table: &mut Table, cluster: &Cluster) {
    let members = cluster.api.list::<SnapshotMember>("/v1/snapshots/d0/members").await;
    let version = members[0].version.expect("it is ready");
    let clone = async |name: String| {
        let begun = Instant::now();
        let answer = cluster.api.post("/v1/images", json!({ "name": name, "source": { "version": version } })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        begun.elapsed().as_secs_f64() * 1e3
    };
    let mut times = Vec::new();
    for n in 0..101 {
        times.push(clone(format!("one-{n}")).await);
    }
    let what = "clone of a version, durable, through the API (time)";
    table.row(what, format!("{:.2} ms", median(times)), "-".into(), None, "<= 2 ms");
    let begun = Instant::now();
    let all = stream::iter((0..CLONES).map(|n| clone(format!("many-{n}"))));
    all.buffer_unordered(SIDE_BY_SIDE).for_each(async |_| {}).await;
    let took = begun.elapsed().as_secs_f64();
    let what = format!("{CLONES} clones, {SIDE_BY_SIDE} calls at a time");
    table.row(&what, format!("{took:.2} s"), "-".into(), None, "<= 1 s");
}
