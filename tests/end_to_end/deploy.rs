//! Deployments of many disks from one image.

use std::{fs, time::Duration};

use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_member_reads_as_the_image_and_keeps_its_own_writes() {
    let cluster = Cluster::start(ClusterOptions::files(3)).await;
    let image = Pattern::striped(1, 48 * MIB + 4096, 300_000, 5 * MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    let version = cluster.api.import("debian", &file).await;
    assert_eq!(version["number"], json!(1));
    assert_eq!(cluster.api.content(version["id"].as_str().expect("an id")).await, image.bytes(0, image.size));

    let members = cluster.api.deploy_files("web", "debian", 6).await;
    let nodes: std::collections::BTreeSet<_> = members.iter().map(|m| m.node_name.clone()).collect();
    assert_eq!((members.len(), nodes.len()), (6, 3), "spread over all nodes");
    for member in &members {
        let path = member.disks[0].path.clone().expect("operators see the path");
        image.check(0, &fs::read(&path).expect("read the disk"));
        use std::os::unix::fs::FileExt as _;
        let disk = fs::File::options().write(true).open(&path).expect("open the disk");
        disk.write_all_at(&member.number.to_le_bytes(), 7 * MIB + 1).expect("write to the disk");
    }
    for member in &members {
        let got = fs::read(member.disks[0].path.clone().expect("a path")).expect("read the disk");
        let mut want = image.bytes(0, image.size);
        want[(7 * MIB + 1) as usize..][..8].copy_from_slice(&member.number.to_le_bytes());
        assert!(got == want, "{} reads something else", member.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_leaves_no_file_and_no_mount() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let image = Pattern::striped(2, 8 * MIB, 4096, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("small", &file).await;
    let members = cluster.api.deploy_files("gone", "small", 4).await;
    let operation: Value = cluster.api.delete("/v1/deployments/gone").await.ok();
    // The name is free at once.
    let again = cluster.api.deploy_files("gone", "small", 1).await;
    cluster.api.wait(operation["id"].as_str().expect("an id"), Duration::from_secs(30)).await;
    eventually("the files' end", Duration::from_secs(20), async || {
        let left: Vec<_> = members
            .iter()
            .filter_map(|m| m.disks[0].path.clone())
            .filter(|p| fs::symlink_metadata(p).is_ok())
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    image.check(0, &fs::read(again[0].disks[0].path.clone().expect("a path")).expect("the new one lives"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = mounts.lines().filter(|l| l.contains(&cluster.dir.display().to_string())).count();
    assert_eq!(ours, 1, "{mounts}");
}

/// Reads a block of each of these chunks of a disk, in this order.
fn read_chunks(path: &str, chunks: &[u64]) {
    use std::os::unix::fs::FileExt as _;
    let disk = fs::File::open(path).expect("open the disk");
    for chunk in chunks {
        disk.read_exact_at(&mut [0; 4096], chunk * 256 * 1024).expect("read the disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_shows_in_which_order_its_boots_read_it_and_so_does_what_is_made_from_it() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    // Every fourth chunk has data.
    let file = cluster.dir.join("image.raw");
    Pattern::striped(5, 8 * MIB, 4096, MIB).write(&file);
    let version = cluster.api.import("small", &file).await;
    let members = cluster.api.deploy_files("web", "small", 2).await;
    let limit = Duration::from_secs(30);
    for (member, chunks) in members.iter().zip([&[28, 4, 12, 4, 5][..], &[28, 12, 4, 0][..]]) {
        read_chunks(member.disks[0].path.as_deref().expect("a path"), chunks);
    }
    cluster.api.done("/v1/deployments/web/stop", json!({}), limit).await;
    let chunks = async |version: &str| cluster.api.get(&format!("/v1/versions/{version}/chunks")).await.ok::<Value>();
    let version = version["id"].as_str().expect("an id");
    let map = eventually("both boots to be told", limit, async || {
        let map = chunks(version).await;
        if map["boots"] == 2 { Ok(map) } else { Err(map["boots"].to_string()) }
    })
    .await;
    let mut read: Vec<(f64, usize)> = Vec::new();
    for (chunk, place) in map["boot_order"].as_array().expect("an order").iter().enumerate() {
        read.extend(place.as_f64().map(|place| (place, chunk)));
    }
    read.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(read.iter().map(|(_, chunk)| *chunk).collect::<Vec<_>>(), [28, 4, 12, 0], "{map}");
    assert_eq!((&map["boot_chunks"], &map["boots_of"]), (&json!(4), &json!(version)));

    let snapshot = json!({ "name": "cut", "select": { "deployment": "web" } });
    cluster.api.done("/v1/snapshots", snapshot, limit).await;
    let members: Vec<Value> = cluster.api.list("/v1/snapshots/cut/members").await;
    let of_cut = chunks(members[0]["version"].as_str().expect("an id")).await;
    assert_eq!((&of_cut["boot_order"], &of_cut["boots_of"]), (&map["boot_order"], &json!(version)));
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_takes_the_highest_numbers_and_never_reuses_one() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(3, MIB, 4096, MIB).write(&file);
    cluster.api.import("tiny", &file).await;
    cluster.api.deploy_files("web", "tiny", 3).await;
    let limit = Duration::from_secs(30);
    let numbers = async || cluster.api.instances("web").await.iter().map(|i| i.number).collect::<Vec<_>>();
    cluster.api.done("/v1/deployments/web/scale", json!({ "count": 1 }), limit).await;
    assert_eq!(numbers().await, [0]);
    cluster.api.done("/v1/deployments/web/scale", json!({ "count": 3 }), limit).await;
    assert_eq!(numbers().await, [0, 3, 4]);
}
