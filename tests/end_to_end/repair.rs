//! Copies that were lost are made again, so that the next loss takes nothing either.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    time::Duration,
};

use muster_api::{
    node::{Node, Repair},
    operation::{Operation, OperationState},
    pool::Pool,
    snapshot::SnapshotMember,
};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// A cluster, the content of an image in it, and the id of the image's version.
async fn with_image(agents: usize, size: u64) -> (Cluster, Pattern, String) {
    let cluster = Cluster::start(ClusterOptions::files(agents).as_processes()).await;
    let image = Pattern::striped(31, size, 700_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    let version = cluster.api.import("base", &file).await;
    (cluster, image, version["id"].as_str().expect("an id").to_owned())
}

async fn node(cluster: &Cluster, name: &str) -> Node {
    cluster.api.get(&format!("/v1/nodes/{name}")).await.ok()
}

/// Waits until the nodes have compared all their objects in one epoch of at least this number, and none lacks anything.
/// Returns that epoch, and how many copies they have sent since they started.
async fn repaired(cluster: &Cluster, epoch_min: u64) -> (u64, u64) {
    eventually("nothing to be missing", LIMIT, async || {
        let nodes = cluster.api.list::<Node>("/v1/nodes").await;
        let seen = format!("{:#?}\n{}", nodes.iter().map(|n| (&n.name, n.repair)).collect::<Vec<_>>(), cluster.logs());
        let Some(repairs) = nodes.iter().map(|n| n.repair).collect::<Option<Vec<Repair>>>() else { return Err(seen) };
        let epoch = repairs.iter().map(|r| r.membership_epoch).max().unwrap_or(0);
        let idle =
            |r: &Repair| r.membership_epoch == epoch && r.unchecked_objects + r.missing.objects + r.silent_nodes == 0;
        if epoch >= epoch_min && repairs.iter().all(idle) {
            Ok((epoch, repairs.iter().map(|r| r.copied.objects).sum()))
        } else {
            Err(seen)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_held_is_copied_so_that_the_next_may_die() {
    let (mut cluster, image, version) = with_image(4, 32 * MIB).await;
    let members = cluster.api.deploy_files("web", "base", 3).await;
    for member in &members {
        let file = File::options().write(true).open(member.disks[0].path.clone().expect("a path")).expect("open");
        let own = Pattern { seed: 100 + member.number, size: 3 * MIB, data: vec![(0, 3 * MIB)] };
        file.write_all_at(&own.bytes(0, own.size), 5 * MIB).expect("write");
    }
    cluster.api.done("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } }), LIMIT).await;
    let (epoch, before) = repaired(&cluster, 1).await;

    cluster.kill_agent(3);
    let _: Node = cluster.api.post("/v1/nodes/node-3/fence", json!({ "confirm": true })).await.ok();
    assert_eq!(cluster.api.delete("/v1/nodes/node-3").await.status, 204);
    let (_, after) = repaired(&cluster, epoch + 1).await;
    assert!(after > before, "{after} copies were sent after the loss, {before} before it");

    cluster.kill_agent(2);
    image.check(0, &cluster.api.content(&version).await);
    for cut in cluster.api.list::<SnapshotMember>("/v1/snapshots/s/members").await {
        let content = cluster.api.content(&cut.version.expect("it is saved").to_string()).await;
        let number = members.iter().find(|m| m.id == cut.instance).expect("a member").number;
        let own = Pattern { seed: 100 + number, size: 3 * MIB, data: vec![(0, 3 * MIB)] };
        own.check(0, &content[5 * MIB as usize..][..3 * MIB as usize]);
        image.check(0, &content[..5 * MIB as usize]);
        image.check(8 * MIB, &content[8 * MIB as usize..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_files_are_gone_is_filled_again_by_the_other_nodes() {
    let (mut cluster, image, version) = with_image(3, 24 * MIB).await;
    repaired(&cluster, 1).await;
    cluster.stop_agent(0).expect("it ends in order");
    let held = node(&cluster, "node-0").await.pool;
    assert!(held.objects > 0);
    fs::remove_dir_all(cluster.agents[0].dir.join("pool")).expect("removed");
    cluster.start_agent(0);
    eventually("its objects are back", LIMIT, async || {
        let node = node(&cluster, "node-0").await;
        let back = node.pool.lost_objects == held.objects && node.pool.objects == held.objects;
        if back { Ok(()) } else { Err(format!("{held:?}, now {:?}, {:?}", node.pool, node.repair)) }
    })
    .await;
    // What it shared with this one is on it alone now.
    cluster.kill_agent(1);
    image.check(0, &cluster.api.content(&version).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_hands_its_objects_over_first() {
    let (mut cluster, image, version) = with_image(3, 32 * MIB).await;
    let (epoch, _) = repaired(&cluster, 1).await;
    let held = node(&cluster, "node-2").await.pool;
    assert!(held.objects > 0);
    let operation: Operation = cluster.api.delete("/v1/nodes/node-2").await.ok();
    assert_eq!(operation.kind, "node.remove");
    eventually("the node to be removed", LIMIT, async || {
        let now: Operation = cluster.api.get(&format!("/v1/operations/{}", operation.id)).await.ok();
        match now.state {
            OperationState::Succeeded => Ok(()),
            _ => Err(format!("{now:#?}\n{}", cluster.logs())),
        }
    })
    .await;
    assert_eq!(cluster.api.list::<Node>("/v1/nodes").await.len(), 2);
    repaired(&cluster, epoch + 1).await;
    let pool: Pool = cluster.api.get("/v1/pools/default").await.ok();
    assert_eq!((pool.repair.missing.objects, pool.repair.surplus.objects), (0, 0));
    // Two nodes have a copy of everything each.
    let [a, b] = [node(&cluster, "node-0").await.pool, node(&cluster, "node-1").await.pool];
    assert_eq!((a.objects, a.lost_objects, b.lost_objects), (b.objects, 0, 0));
    cluster.kill_agent(2);
    for left in [1, 0] {
        cluster.kill_agent(1 - left);
        image.check(0, &cluster.api.content(&version).await);
        let name = format!("node-{}", 1 - left);
        let heard = node(&cluster, &name).await.last_seen_at;
        cluster.start_agent(1 - left);
        eventually("the node to be back", LIMIT, async || {
            let now = node(&cluster, &name).await;
            let is_back = now.last_seen_at > heard;
            let all = is_back
                && now.pool.objects == a.objects
                && now.repair.is_some_and(|repair| repair.unchecked_objects == 0);
            if all { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
}
