//! Whether the number of versions matters: reads and snapshots of a disk with a thousand versions behind it, and clones.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use muster_api::snapshot::SnapshotMember;
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
    let open = async |deployment: &str| {
        let instance = cluster.api.deploy_files(deployment, "base", 1).await.remove(0);
        let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
        File::options().read(true).write(true).open(path).expect("open the disk")
    };
    let deep = open("deep").await;
    let mut times = Vec::new();
    for version in 0..VERSIONS {
        // A few blocks of always other chunks.
        let blocks: BTreeSet<u64> = (0..4).map(|n| (version * 4 + n) * 67 % (DISK / BLOCK)).collect();
        for block in blocks {
            deep.write_all_at(&noise(version + block, BLOCK), block * BLOCK).expect("write");
        }
        deep.sync_all().expect("sync");
        let begun = Instant::now();
        let body = json!({ "name": format!("s{version}"), "select": { "deployment": "deep" } });
        cluster.api.done("/v1/snapshots", body, LIMIT).await;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let (first, last) = (median(times[..COMPARED].to_vec()), median(times[times.len() - COMPARED..].to_vec()));
    table.row(
        &format!("snapshot number {VERSIONS} of a disk, POST to durable (time)"),
        format!("{last:.1} ms"),
        format!("{first:.1} ms the first ones"),
        Some(last / first),
        "<= 1.1",
    );
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
    let members = cluster.api.list::<SnapshotMember>("/v1/snapshots/s0/members").await;
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
