//! Snapshots of many disks: they are taken at one instant, store only differences, and their versions do not depend on
//! each other.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use muster_api::{snapshot::SnapshotMember, version::Version};
use muster_tests::{Cluster, ClusterOptions, Pattern, StopOnDrop};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn open(path: Option<&String>) -> File {
    File::options().read(true).write(true).open(path.expect("operators see the path")).expect("open the disk")
}

async fn members(cluster: &Cluster, snapshot: &str) -> Vec<SnapshotMember> {
    let mut all = cluster.api.list::<SnapshotMember>(&format!("/v1/snapshots/{snapshot}/members")).await;
    all.sort_by(|a, b| a.instance_name.cmp(&b.instance_name));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_whole_and_forks_and_dies_on_its_own() {
    let cluster = Cluster::start(ClusterOptions::files(3)).await;
    let image = Pattern::striped(4, 24 * MIB, 100_000, 2 * MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    let disks = cluster.api.deploy_files("web", "base", 3).await;
    let mut wanted: Vec<Vec<u8>> = disks.iter().map(|_| image.bytes(0, image.size)).collect();
    let mut history = Vec::new();
    for round in 0..3_u64 {
        for (number, (disk, bytes)) in disks.iter().zip(&mut wanted).enumerate() {
            let file = open(disk.disks[0].path.as_ref());
            for step in 0..20_u64 {
                let at = ((round * 7919 + step * 104_729 + number as u64 * 31) * 4099) % (image.size - 5000);
                let data = vec![(round * 20 + step + 1) as u8; 1 + (step as usize * 257) % 5000];
                file.write_all_at(&data, at).expect("write");
                bytes[at as usize..][..data.len()].copy_from_slice(&data);
            }
        }
        let name = format!("s{round}");
        cluster.api.done("/v1/snapshots", json!({ "name": name, "select": { "deployment": "web" } }), LIMIT).await;
        let snapshot = cluster.api.snapshot(&name).await;
        assert_eq!((snapshot.members, snapshot.skipped), (3, 0));
        // Of the chunks only the blocks that were written are stored.
        assert!((1..snapshot.dirty_bytes).contains(&snapshot.stored_bytes), "{snapshot:?}");
        history.push((members(&cluster, &name).await, wanted.clone()));
    }
    for (members, wanted) in &history {
        for (member, want) in members.iter().zip(wanted) {
            let version = member.version.expect("ready: has a version").to_string();
            assert!(cluster.api.content(&version).await == *want, "{} differs", member.instance_name);
        }
    }
    // A fork of the middle snapshot, after the deployment and the other snapshots were deleted.
    let fork = json!({ "name": "fork", "source": { "snapshot": "s1" }, "runtime": "none" });
    cluster.api.done("/v1/deployments", fork, LIMIT).await;
    for path in ["/v1/snapshots/s0", "/v1/snapshots/s2", "/v1/deployments/web", "/v1/images/base", "/v1/snapshots/s1"] {
        let answer = cluster.api.delete(path).await;
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    }
    for (member, want) in cluster.api.instances("fork").await.iter().zip(&history[1].1) {
        let got = fs::read(member.disks[0].path.clone().expect("a path")).expect("read the fork");
        assert!(got == *want, "{} differs from the snapshot", member.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_of_clean_disks_stores_nothing() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(5, 8 * MIB, MIB, 2 * MIB).write(&file);
    let image = cluster.api.import("base", &file).await;
    cluster.api.deploy_files("web", "base", 2).await;
    cluster.api.done("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } }), LIMIT).await;
    assert_eq!(cluster.api.snapshot("s").await.stored_bytes, 0);
    for member in members(&cluster, "s").await {
        let version: Version =
            cluster.api.get(&format!("/v1/versions/{}", member.version.expect("a version"))).await.ok();
        assert_eq!(json!(version.root), image["root"], "the same descriptor");
    }
}

/// Members have a boot disk, a blank disk and one of an image. All are written and cut, and a fork has the bytes of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_its_fork_have_all_disks_of_an_instance() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let images =
        [("base", Pattern::striped(8, 8 * MIB, MIB, 2 * MIB)), ("dataset", Pattern::striped(9, 4 * MIB, MIB, 2 * MIB))];
    for (name, pattern) in &images {
        let file = cluster.dir.join(format!("{name}.raw"));
        pattern.write(&file);
        cluster.api.import(name, &file).await;
    }
    let body = json!({ "name": "db", "source": { "image": "base" }, "count": 2, "runtime": "none", "disks": [
        { "name": "data", "size_bytes": 96 * MIB },
        { "name": "seed", "size_bytes": 6 * MIB, "source": { "image": "dataset" } },
    ] });
    cluster.api.done("/v1/deployments", body, LIMIT).await;
    let sizes = [8 * MIB, 96 * MIB, 6 * MIB];
    let mut wanted = Vec::new();
    for (n, instance) in cluster.api.instances("db").await.iter().enumerate() {
        let mut disks = vec![images[0].1.bytes(0, 8 * MIB), vec![0; 96 << 20], images[1].1.bytes(0, 4 * MIB)];
        disks[2].resize(6 << 20, 0);
        for (at, (disk, bytes)) in instance.disks.iter().zip(&mut disks).enumerate() {
            assert_eq!(disk.size_bytes, sizes[at]);
            let file = open(disk.path.as_ref());
            assert!(
                fs::read(disk.path.as_ref().expect("a path")).expect("read") == *bytes,
                "{} as it began",
                disk.name
            );
            let data = vec![(n * 3 + at + 1) as u8; 70_001];
            let place = bytes.len() - 100_003;
            file.write_all_at(&data, place as u64).expect("write");
            bytes[place..][..data.len()].copy_from_slice(&data);
        }
        wanted.push(disks);
    }
    cluster.api.done("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "db" } }), LIMIT).await;
    assert_eq!(cluster.api.snapshot("s").await.members, 6);
    for member in members(&cluster, "s").await {
        let n = usize::from(member.instance_name == "db.1");
        let at = ["root", "data", "seed"].iter().position(|name| *name == member.disk_name).expect("a name");
        let content = cluster.api.content(&member.version.expect("ready: has a version").to_string()).await;
        assert!(content == wanted[n][at], "{} of {}", member.disk_name, member.instance_name);
    }
    let fork = json!({ "name": "fork", "source": { "snapshot": "s" }, "runtime": "none" });
    cluster.api.done("/v1/deployments", fork, LIMIT).await;
    for (instance, disks) in cluster.api.instances("fork").await.iter().zip(&wanted) {
        assert_eq!(instance.disks.iter().map(|disk| &*disk.name).collect::<Vec<_>>(), ["root", "data", "seed"]);
        for (disk, bytes) in instance.disks.iter().zip(disks) {
            let got = fs::read(disk.path.as_ref().expect("a path")).expect("read the fork");
            assert!(got == *bytes, "{} of {} differs from the snapshot", disk.name, instance.name);
        }
    }
}

/// I7: a writer writes n to one disk, waits for the acknowledgement, then writes n to a disk of another node. No
/// snapshot may have the later write without the earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_has_a_write_without_the_one_acknowledged_before_it() {
    let cluster = Cluster::start(ClusterOptions::files(3)).await;
    let file = cluster.dir.join("image.raw");
    Pattern { seed: 6, size: 4 * MIB, data: Vec::new() }.write(&file);
    cluster.api.import("empty", &file).await;
    let disks = cluster.api.deploy_files("web", "empty", 3).await;
    let files: Vec<File> = disks.iter().map(|d| open(d.disks[0].path.as_ref())).collect();
    let stop = AtomicBool::new(false);
    let block = |n: u64| n.to_le_bytes().repeat(512);
    let written = std::thread::scope(|scope| {
        let _stops = StopOnDrop(&stop);
        let writer = scope.spawn(|| {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                for file in &files {
                    file.write_all_at(&block(n), 0).expect("write");
                }
            }
            n
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for round in 0..6 {
                    let body = json!({ "name": format!("s{round}"), "select": { "deployment": "web" } });
                    cluster.api.done("/v1/snapshots", body, LIMIT).await;
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    let mut last = 0;
    for round in 0..6 {
        let mut seen = Vec::new();
        for member in members(&cluster, &format!("s{round}")).await {
            let content = cluster.api.content(&member.version.expect("a version").to_string()).await;
            let n = u64::from_le_bytes(content[..8].try_into().expect("8 bytes"));
            assert!(content[..4096] == block(n)[..], "a torn block");
            seen.push(n);
        }
        assert!(seen.is_sorted_by(|a, b| a >= b), "snapshot {round}: a later write without the earlier one: {seen:?}");
        assert!(seen[0] - seen[2] <= 1, "snapshot {round}: {seen:?}");
        assert!(seen[0] >= last && seen[0] <= written, "snapshot {round}: {seen:?} after {last}, of {written}");
        last = seen[0];
    }
    assert!(last > 0, "the writer wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_member_refuses_the_snapshot_and_the_others_go_on() {
    let mut cluster = Cluster::start(ClusterOptions::files(2).as_processes()).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(7, MIB, 4096, MIB).write(&file);
    cluster.api.import("tiny", &file).await;
    let disks = cluster.api.deploy_files("web", "tiny", 2).await;
    let victim = cluster.agent_named(disks[1].node_name.as_deref().expect("a node"));
    cluster.kill_agent(victim);
    // The controller does not know yet that the node is gone. The cut fails in bounded time, and nothing is published.
    let started: Value =
        cluster.api.post("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } })).await.ok();
    let ended = cluster.api.wait(started["id"].as_str().expect("an id"), Duration::from_secs(120)).await;
    assert_eq!(ended.state, muster_api::operation::OperationState::Failed, "{ended:?}");
    open(disks[0].disks[0].path.as_ref()).write_all_at(&[9; 4096], 0).expect("the other member writes on");
    muster_tests::eventually("the silence is noticed", Duration::from_secs(60), async || {
        let state = cluster.api.instances("web").await[1].state;
        if state == muster_api::instance::InstanceState::Unknown { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    let refused = cluster.api.post("/v1/snapshots", json!({ "select": { "deployment": "web" } })).await;
    drop(refused.problem(409, "member_unknown"));
    cluster.start_agent(victim);
    muster_tests::eventually("the node is back", Duration::from_secs(60), async || {
        let state = cluster.api.instances("web").await[1].state;
        if state == muster_api::instance::InstanceState::Running { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    cluster.api.done("/v1/snapshots", json!({ "name": "t", "select": { "deployment": "web" } }), LIMIT).await;
}
