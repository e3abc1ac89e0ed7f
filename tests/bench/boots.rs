//! Boots: how long instances take to read what a first boot of a Debian reads, each on a host of its own with a link of a limited
//! rate. First of a version that was never booted, then of the same one when its boot order is known. No cache has anything of
//! it either time.
//!
//! The reads are made up, with the sums of a real first boot: some 2,000 reads of 73 MB in 405 chunks, with the time of a guest's
//! own work between them divided by 20. Half of each chunk compresses away, as in a Debian.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use muster_api::version::Version;
use muster_tests::{Cluster, ClusterOptions, eventually};
use serde_json::{Value, json};

use crate::{Table, commit::noise};

const LIMIT: Duration = Duration::from_secs(120);
const HOSTS: usize = 5;
const MBIT_PER_S: u32 = 250;
/// Members that boot at the same time.
const COUNTS: [u64; 2] = [1, 4];
const CHUNK: u64 = 256 << 10;
/// Chunks of the image, and how many are read, in runs of neighbours.
const CHUNKS: u64 = 1920;
const READ: u64 = 405;
const RUN: u64 = 9;
/// Reads of a chunk, and their bytes.
const READS: u64 = 5;
const BYTES: usize = 36 << 10;
/// Work of the guest between two reads.
const THINK: Duration = Duration::from_micros(1200);

/// Offsets of all reads, in order.
fn trace() -> Vec<u64> {
    let runs = CHUNKS / RUN;
    let chunk = |n: u64| (n / RUN * 67 % runs) * RUN + n % RUN;
    (0..READ).flat_map(|n| (0..READS).map(move |part| chunk(n) * CHUNK + part * BYTES as u64)).collect()
}

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let mut cluster = Cluster::start(ClusterOptions::files(HOSTS).with_links(MBIT_PER_S)).await;
        for count in COUNTS {
            measure(table, &mut cluster, count).await;
        }
    });
}

async fn measure(table: &mut Table, cluster: &mut Cluster, count: u64) {
    let name = format!("debian{count}");
    let image = cluster.dir.join("image.raw");
    write_image(&image, count);
    let version: Version = serde_json::from_value(cluster.api.import(&name, &image).await).expect("a version");
    // The work alone, with a file of this host.
    let alone = replay(&image);
    let first = boot(cluster, &name, "first", count).await;
    eventually("the boots are told", LIMIT, async || {
        let map: Value = cluster.api.get(&format!("/v1/versions/{}/chunks", version.id)).await.ok();
        if map["boots"].as_u64() == Some(count) { Ok(()) } else { Err(map["boots"].to_string()) }
    })
    .await;
    delete(cluster, "first").await;
    forget(cluster).await;
    let learned = boot(cluster, &name, "later", count).await;
    delete(cluster, "later").await;
    for (how, took) in [("a version that was never booted", first), ("a version whose boot order is known", learned)] {
        table.row(
            &format!("last of {count} cold boots on as many hosts, links of {MBIT_PER_S} Mbit/s, {how} (time)"),
            format!("{took:.2} s"),
            format!("{alone:.2} s with a file of the host"),
            Some(took / alone),
            "none",
        );
    }
}

/// Deploys members and has each read what a boot reads. Returns the seconds from the request until the last has done so.
async fn boot(cluster: &Cluster, image: &str, name: &str, count: u64) -> f64 {
    let begun = Instant::now();
    let instances = cluster.api.deploy_files(name, image, count).await;
    let paths: Vec<PathBuf> =
        instances.iter().map(|i| PathBuf::from(i.disks[0].path.clone().expect("operators see the path"))).collect();
    let booting: Vec<_> = paths.into_iter().map(|path| tokio::task::spawn_blocking(move || replay(&path))).collect();
    for booting in booting {
        booting.await.expect("it reads");
    }
    let took = begun.elapsed().as_secs_f64();
    cluster.api.done(&format!("/v1/deployments/{name}/stop"), json!({}), LIMIT).await;
    took
}

async fn delete(cluster: &Cluster, deployment: &str) {
    let gone: Value = cluster.api.delete(&format!("/v1/deployments/{deployment}")).await.ok();
    cluster.api.wait(gone["id"].as_str().expect("an id"), LIMIT).await;
}

/// Drops all caches.
async fn forget(cluster: &mut Cluster) {
    for host in 0..HOSTS {
        cluster.kill_agent(host);
        std::fs::remove_dir_all(cluster.agent_dir(host).join("cache")).expect("drop the cache");
        cluster.start_agent(host);
    }
    cluster.all_ready().await;
}

/// Reads as a boot does. Returns the seconds that it took.
fn replay(path: &Path) -> f64 {
    let disk = File::open(path).expect("open the disk");
    rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::Random).expect("no readahead");
    let begun = Instant::now();
    let mut bytes = vec![0; BYTES];
    for offset in trace() {
        disk.read_exact_at(&mut bytes, offset).expect("read");
        assert!(bytes.iter().any(|byte| *byte != 0), "there is data at {offset}");
        std::thread::sleep(THINK);
    }
    begun.elapsed().as_secs_f64()
}

/// Each byte has four bits that cannot be foreseen, so that half of the bytes compresses away.
fn write_image(path: &Path, seed: u64) {
    let mut file = File::create(path).expect("create");
    for chunk in 0..CHUNKS {
        let mut bytes = noise((seed << 32) + chunk + 1, CHUNK);
        bytes.iter_mut().for_each(|byte| *byte = *byte & 0x0f | 0x40);
        file.write_all(&bytes).expect("write");
    }
}
