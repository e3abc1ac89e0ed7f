//! Clusters in one process do not disturb each other, and a cluster that is dropped leaves nothing behind.

use std::{fs, os::unix::fs::FileExt as _, panic::AssertUnwindSafe, path::PathBuf, time::Duration};

use futures::FutureExt as _;
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use tokio::runtime::Handle;

const MIB: u64 = 1 << 20;

/// A cluster with three disks, each of them read and written.
async fn used_cluster(seed: u64) -> (Cluster, Pattern, Vec<PathBuf>) {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let image = Pattern::striped(seed, 4 * MIB, 100_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    let members = cluster.api.deploy_files("web", "base", 3).await;
    let disks: Vec<PathBuf> = members.iter().map(|m| m.disks[0].path.clone().expect("a path").into()).collect();
    for disk in &disks {
        image.check(0, &fs::read(disk).expect("read the disk"));
        let file = fs::File::options().write(true).open(disk).expect("open the disk");
        file.write_all_at(&[seed as u8; 5000], 100).expect("write to the disk");
    }
    (cluster, image, disks)
}

/// Mounts, processes and files that belong to something below `marker`.
fn left(marker: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mut left: Vec<String> = mounts.lines().filter(|line| line.contains(marker)).map(str::to_owned).collect();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        left.extend(line.contains(marker).then_some(line));
    }
    left.extend(fs::symlink_metadata(marker).is_ok().then(|| format!("{marker} is there")));
    left
}

async fn nothing_is_left(marker: &str, tasks: usize) {
    eventually("nothing is left", Duration::from_secs(10), async || {
        let left = left(marker);
        let more = Handle::current().metrics().num_alive_tasks().saturating_sub(tasks);
        if left.is_empty() && more == 0 { Ok(()) } else { Err(format!("{more} tasks, {left:#?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cluster_leaves_nothing_behind() {
    let tasks = Handle::current().metrics().num_alive_tasks();
    let (cluster, _, _) = used_cluster(51).await;
    let marker = cluster.dir.display().to_string();
    // There are three mounts, the folder, and two helper processes of each agent: the holder and the one that reads first.
    assert_eq!(left(&marker).len(), 8, "the test sees what there is: {:#?}", left(&marker));
    drop(cluster);
    nothing_is_left(&marker, tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_panics_leaves_nothing_behind() {
    let tasks = Handle::current().metrics().num_alive_tasks();
    let mut marker = String::new();
    let test = async {
        let (cluster, _, disks) = used_cluster(52).await;
        let _open = fs::File::open(&disks[0]).expect("open a disk");
        marker = cluster.dir.display().to_string();
        panic!("this panic is part of the test");
    };
    assert!(AssertUnwindSafe(test).catch_unwind().await.is_err());
    assert!(!marker.is_empty(), "the cluster came up");
    nothing_is_left(&marker, tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_in_one_process_do_not_disturb_each_other() {
    let (first, second) = futures::join!(used_cluster(53), used_cluster(54));
    drop(first);
    let (cluster, image, disks) = second;
    for disk in disks {
        let got = fs::read(disk).expect("read the disk");
        assert!(got[100..5100].iter().all(|byte| *byte == 54), "its own write");
        image.check(5100, &got[5100..]);
    }
    let again = cluster.api.deploy_files("more", "base", 2).await;
    image.check(0, &fs::read(again[1].disks[0].path.clone().expect("a path")).expect("read the new disk"));
}
