//! A snapshot is restored in place, with real nodes: disks read what they held then, what they held since is in the snapshot
//! that was taken first, and nothing of it is left anywhere else.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    time::Duration,
};

use muster_api::{instance::Instance, snapshot::SnapshotMember};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(180);

fn path(instance: &Instance) -> String {
    instance.disks[0].path.clone().expect("operators see paths")
}

/// Writes this byte over some blocks of each disk, at places that differ from disk to disk.
fn write(instances: &[Instance], byte: u8) {
    for (n, instance) in (0..).zip(instances) {
        let file = File::options().write(true).open(path(instance)).expect("the disk opens");
        for at in [0, 700_000, 3 * MIB] {
            file.write_all_at(&[byte; 9000], at + n * 20_000).expect("writes");
        }
        file.sync_all().expect("syncs");
    }
}

fn contents(instances: &[Instance]) -> Vec<Vec<u8>> {
    instances.iter().map(|instance| fs::read(path(instance)).expect("reads")).collect()
}

async fn members(cluster: &Cluster, snapshot: &str) -> Vec<Vec<u8>> {
    let mut all = cluster.api.list::<SnapshotMember>(&format!("/v1/snapshots/{snapshot}/members")).await;
    all.sort_by(|a, b| a.instance_name.cmp(&b.instance_name));
    let mut found = Vec::new();
    for member in all {
        found.push(cluster.api.content(&member.version.expect("it is ready").to_string()).await);
    }
    found
}

async fn snapshots(cluster: &Cluster) -> usize {
    cluster.api.list::<serde_json::Value>("/v1/snapshots").await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_go_back_to_a_snapshot_in_place_and_the_present_is_kept_or_given_up() {
    let mut cluster = Cluster::start(ClusterOptions::files(2)).await;
    let image = Pattern::striped(11, 6 * MIB, 300_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    let web = cluster.api.deploy_files("web", "base", 3).await;
    write(&web, b'A');
    let first = contents(&web);
    cluster.api.done("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } }), LIMIT).await;
    write(&web[..2], b'B');
    cluster.api.done("/v1/snapshots", json!({ "name": "later", "select": { "deployment": "web" } }), LIMIT).await;
    write(&web, b'C');
    let second = contents(&web);
    let held = File::options().write(true).open(path(&web[0])).expect("opens");

    let done = cluster.api.done("/v1/snapshots/s/restore", json!({}), LIMIT).await;
    let result = done.result.expect("it tells what it did");
    let kept = result["kept_snapshot_name"].as_str().expect("the present is kept").to_owned();
    let now = cluster.api.instances("web").await;
    for (before, after) in web.iter().zip(&now) {
        assert_eq!((before.id, before.node, path(before)), (after.id, after.node, path(after)));
        assert_eq!(after.disks[0].unsaved_bytes, 0);
    }
    assert!(contents(&now) == first, "the disks read what they held then");
    // The kernel may still have pages of it to read.
    assert!(held.write_at(&[1; 4096], 0).is_err(), "who had one open has another file");
    assert!(members(&cluster, &kept).await == second, "the present is in {kept}");

    // What is written from now on stays, also when the agent starts anew.
    write(&now, b'D');
    let third = contents(&now);
    for n in 0..2 {
        cluster.stop_agent(n).expect("ends in order");
        cluster.start_agent(n);
    }
    eventually("the disks to be there again", LIMIT, async || {
        let ready = cluster.api.deployment("web").await.ready;
        let open = now.iter().all(|instance| File::open(path(instance)).is_ok());
        if ready == 3 && open { Ok(()) } else { Err(format!("{ready} ready\n{}", cluster.logs())) }
    })
    .await;
    assert!(contents(&now) == third);

    // Given up: no snapshot is taken, and the other one can be taken back in the same way.
    let before = snapshots(&cluster).await;
    cluster.api.done(&format!("/v1/snapshots/{kept}/restore"), json!({ "discard_current": true }), LIMIT).await;
    assert!(contents(&cluster.api.instances("web").await) == second);
    assert_eq!(snapshots(&cluster).await, before);
    for name in ["s", "later"] {
        assert_eq!(cluster.api.delete(&format!("/v1/snapshots/{name}")).await.status, 202);
    }
    let freed = cluster.api.delete(&format!("/v1/snapshots/{kept}?dry_run=true")).await;
    assert_eq!(freed.body["freed_bytes"], 0, "the disks build on it");
    cluster.api.done("/v1/pools/default/sweep", json!({}), LIMIT).await;
    assert!(contents(&cluster.api.instances("web").await) == second);
    eventually("nothing to be unexplained", LIMIT, async || {
        let summary = cluster.api.get("/v1/summary").await.body;
        if summary["unexplained_bytes"] == 0 { Ok(()) } else { Err(format!("{:?}", summary["unexplained_bytes"])) }
    })
    .await;
}
