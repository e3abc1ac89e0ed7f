//! The controller is killed at any instant, and finishes what it began when it is started again.

use muster_api::{
    CommitId, VersionId,
    node_protocol::{DiskAssignment, DiskReport, InstanceReport, Observed, VersionRoot},
};
use serde_json::json;

use super::harness::{MIB, World, eventually, report_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_on_after_a_restart() {
    let mut world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(3).await;
    nodes[2].script(|s| s.mute = true);
    let key = [("Idempotency-Key", "once")];
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 30, "runtime": "none" });
    let operation = world.call_as(&world.token, "POST", "/v1/deployments", order.clone(), &key).await.expect(202);
    world.restart().await;
    let again = world.call_as(&world.token, "POST", "/v1/deployments", order, &key).await.expect(202);
    assert_eq!(again.text("/id"), operation.text("/id"));
    eventually("two nodes to be ready", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 20).then_some(())
    })
    .await;
    world.restart().await;
    nodes[2].script(|s| s.mute = false);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/ready"), 30);
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    world.restart().await;
    world.ends(&deleting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_after_a_restart() {
    let mut world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    nodes[1].script(|s| s.saves = false);
    let snapshot = json!({ "name": "s1", "select": { "deployment": "web" } });
    let operation = world.post("/v1/snapshots", snapshot).await.expect(202);
    world.restart().await;
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    world.restart().await;
    nodes[1].script(|s| s.saves = true);
    nodes[1].act().await;
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/state"), "ready");
    let fork = world.deploy(json!({ "source": { "snapshot": "s1" }, "runtime": "none" })).await.expect(202);
    world.ends(&fork, "succeeded").await;
    let page = world.get("/v1/deployments").await;
    assert_eq!(page.body["items"].as_array().unwrap().len(), 2);
}

/// The database was replaced by an older copy, and nothing but the nodes can tell. What they hold counts, and the instance
/// can be used as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_hold_beyond_an_old_database_is_adopted() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    nodes[0].script(|s| s.mute = true);
    let assignment = nodes[0].assignment("web.0").unwrap();
    let (disk, held) = (assignment.disks[0].clone(), VersionId::generate());
    let root = VersionRoot { commit: Some(CommitId::generate()), ..nodes[0].root(disk.size_bytes) };
    let report = InstanceReport {
        generation: 3,
        boot: 7,
        disks: vec![DiskReport {
            disk: disk.disk,
            path: "/x.raw".to_owned(),
            version: held,
            ahead: Some(root),
            unsaved_bytes: 0,
            fetched_bytes: 0,
            local_bytes: 0,
            size_bytes: None,
            in_guest: None,
            guest_lacks: None,
            detail: None,
            generation: None,
        }],
        ..report_of(&assignment, Observed::Running)
    };
    nodes[0].beat().await;
    let desired = nodes[0].desired();
    for _ in 0..2 {
        nodes[0].report(&desired, false, vec![report.clone()]).await.expect(204);
    }
    nodes[0].script(|s| s.mute = false);
    let told = eventually("the node is told what it holds", async || {
        nodes[0].act().await;
        nodes[0].assignment("web.0").filter(|a| a.disks[0].version == held)
    })
    .await;
    assert_eq!((told.generation, told.boot), (3, 7));
    assert_eq!(nodes[0].desired().incarnation.number, desired.incarnation.number + 1, "once, not for each report");
    let version = world.get(&format!("/v1/versions/{held}")).await;
    assert_eq!((version.text("/state"), version.text("/instance_name")), ("ready", "web.0"));
    let problems = world.get("/v1/summary").await;
    assert_eq!(problems.text("/problems/0/kind"), "database_restored");
    // It stops, starts and is cut as before.
    for step in ["stop", "start"] {
        let operation = world.post(&format!("/v1/instances/web.0/{step}"), json!({})).await.expect(202);
        world.ends(&operation, "succeeded").await;
    }
    assert_eq!(nodes[0].assignment("web.0").unwrap().boot, 8);
    let operation = world.post("/v1/snapshots", json!({ "select": { "deployment": "web" } })).await.expect(202);
    world.ends(&operation, "succeeded").await;
}

/// A snapshot was restored in place after the copy of the database was made: the node's disk has content that the database
/// knows as an older version, under a generation that it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_in_place_that_an_old_database_lacks_is_adopted_from_the_node() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 2).await;
    for name in ["s1", "s2"] {
        let order = json!({ "name": name, "select": { "deployment": "web" } });
        let operation = world.post("/v1/snapshots", order).await.expect(202);
        world.ends(&operation, "succeeded").await;
    }
    let saved = world.get("/v1/snapshots/s1/members").await.body["items"].clone();
    let saved = saved.as_array().unwrap().iter().find(|member| member["instance_name"] == "web.0").unwrap();
    let restored: VersionId = saved["version"].as_str().unwrap().parse().unwrap();
    let newest = eventually("the newest versions", async || {
        let assignment = nodes[0].assignment("web.0")?;
        (assignment.disks[0].version != restored).then_some(assignment)
    })
    .await;
    let other = nodes[0].assignment("web.1").unwrap();
    nodes[0].script(|s| s.mute = true);
    nodes[0].beat().await;
    let disk = newest.disks[0].clone();
    let has = |disk: &DiskAssignment, version, generation| DiskReport {
        disk: disk.disk,
        path: "/x.raw".to_owned(),
        version,
        ahead: Some(nodes[0].root(disk.size_bytes)),
        unsaved_bytes: 4096,
        fetched_bytes: 0,
        local_bytes: 4096,
        size_bytes: Some(disk.size_bytes),
        in_guest: Some(true),
        guest_lacks: None,
        detail: None,
        generation: Some(generation),
    };
    // A copy of the present generation is late, and changes nothing.
    let late = InstanceReport { disks: vec![has(&disk, restored, 1)], ..report_of(&newest, Observed::Running) };
    let desired = nodes[0].desired();
    nodes[0].report(&desired, false, vec![late]).await.expect(204);
    let shown = world.get("/v1/instances/web.0").await.expect(200);
    assert_eq!(shown.text("/disks/0/version"), disk.version.to_string());

    let report = InstanceReport {
        generation: 2,
        boot: newest.boot + 1,
        disks: vec![has(&disk, restored, 2)],
        ..report_of(&newest, Observed::Running)
    };
    // What cannot be taken over keeps nothing else from being taken: this version was made by no commit.
    let strange = has(&other.disks[0], VersionId::generate(), 1);
    let strange = InstanceReport { disks: vec![strange], ..report_of(&other, Observed::Running) };
    for _ in 0..2 {
        nodes[0].report(&desired, false, vec![strange.clone(), report.clone()]).await.expect(204);
    }
    let shown = world.get("/v1/instances/web.0").await.expect(200);
    assert_eq!(shown.text("/disks/0/version"), restored.to_string());
    let held = eventually("the sweep to say what it waits for", async || {
        let pool = world.get("/v1/pools/default").await.body;
        let text = pool["sweep"].to_string();
        text.contains("cannot be taken over").then_some(text)
    })
    .await;
    assert!(held.contains("web.1"), "{held}");
    nodes[0].script(|s| s.mute = false);
    let told = eventually("the node is told what it holds", async || {
        nodes[0].act().await;
        nodes[0].assignment("web.0").filter(|a| a.disks[0].version == restored)
    })
    .await;
    assert_eq!((told.generation, told.boot, told.disks[0].since_generation), (2, newest.boot + 1, 2));
    assert_eq!(nodes[0].desired().incarnation.number, desired.incarnation.number + 1, "once, not for each report");
    // It is cut and restored as before, and so is the other one: that gives up what its node holds.
    let order = json!({ "name": "s3", "select": { "deployment": "web" } });
    let operation = world.post("/v1/snapshots", order).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let operation = world.post("/v1/snapshots/s2/restore", json!({ "discard_current": true })).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let told = nodes[0].assignment("web.1").unwrap();
    assert_eq!((told.generation, told.disks[0].since_generation), (2, 2));
}

/// Taken before it, the report would be no evidence any more: no other node would tell everything anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_beyond_the_database_waits_for_the_first_heartbeat_after_a_start() {
    let mut world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    nodes[0].script(|s| s.mute = true);
    let assignment = nodes[0].assignment("web.0").unwrap();
    let report = InstanceReport { boot: 7, ..report_of(&assignment, Observed::Running) };
    let desired = nodes[0].desired();
    world.restart().await;
    nodes[0].report(&desired, true, vec![report.clone()]).await.refused(503, "unavailable");
    nodes[0].beat().await;
    nodes[0].report(&desired, true, vec![report]).await.expect(204);
    nodes[0].script(|s| s.mute = false);
    eventually("a new incarnation", async || {
        nodes[0].act().await;
        (nodes[0].desired().incarnation.number > desired.incarnation.number).then_some(())
    })
    .await;
}
