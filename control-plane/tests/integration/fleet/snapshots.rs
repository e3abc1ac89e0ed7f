//! `/v1/snapshots`, cuts and commits.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    CommitId, Reason,
    node_protocol::{CommitOutcome, CommitTrouble, CutOrder, Desired, HAS_OWN_PAGES_HEADER, StagedCommit},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, World, eventually};

async fn ready_world(nodes: u32, count: u64) -> (World, Vec<Node>) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(nodes).await;
    world.ready("web", count).await;
    (world, nodes)
}

fn of_web(name: &str) -> Value {
    json!({ "name": name, "select": { "deployment": "web" } })
}

/// The cut order a node has.
async fn order(node: &Node) -> CutOrder {
    eventually("a cut order", async || node.desired().cuts.first().cloned()).await
}

fn commit_of(node: &Node, order: &CutOrder) -> (CommitId, StagedCommit) {
    let disk = &order.disks[0];
    let base = node.desired().assignments.into_iter().flat_map(|a| a.disks).find(|d| d.disk == disk.disk).unwrap();
    let staged = StagedCommit {
        snapshot: order.snapshot,
        attempt: order.attempt,
        disk: disk.disk,
        generation: disk.generation,
        base: base.version,
        upload: order.upload,
        root: node.root(base.size_bytes),
        dirty_bytes: 4096,
        stored_bytes: 4096,
    };
    (disk.commit, staged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_become_visible_at_once_and_can_be_forked() {
    let (world, _nodes) = ready_world(3, 6).await;
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    let done = world.ends(&operation, "succeeded").await;
    assert_eq!((done.number("/progress/done"), done.text("/progress/unit")), (6, "disks"));
    let snapshot = world.get("/v1/snapshots/s1").await.expect(200);
    assert_eq!((snapshot.text("/state"), snapshot.number("/members"), snapshot.number("/skipped")), ("ready", 6, 0));
    assert_eq!((snapshot.number("/dirty_bytes"), snapshot.body["pause_max_ms"].as_f64()), (6 * 4096, Some(1.5)));
    assert_eq!(snapshot.text("/deployment_name"), "web");
    let members = world.get("/v1/snapshots/s1/members").await.expect(200);
    let members = members.body["items"].as_array().unwrap().clone();
    assert_eq!(members.len(), 6);
    for (n, member) in members.iter().enumerate() {
        assert_eq!(member["instance_name"], format!("web.{n}"));
        let instance = world.get(&format!("/v1/instances/web.{n}")).await;
        assert_eq!(instance.body["disks"][0]["version"], member["version"], "it is the disk's newest version");
        assert!(!instance.body["disks"][0]["saved_at"].is_null());
        let version = world.get(&format!("/v1/versions/{}", member["version"].as_str().unwrap())).await;
        let base = world.get("/v1/images/debian/versions/1").await;
        assert_eq!(version.body["parent"], base.body["id"], "its disk began with the image");
    }
    let fork = json!({ "name": "fork", "source": { "snapshot": "s1" }, "runtime": "none" });
    let mut wrong = fork.clone();
    wrong["count"] = json!(5);
    assert_eq!(world.deploy(wrong).await.refused(422, "invalid").text("/errors/0/pointer"), "/count");
    let operation = world.deploy(fork).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let fork = world.get("/v1/deployments/fork").await;
    assert_eq!((fork.number("/count"), fork.number("/ready"), &fork.body["version"]), (6, 6, &Value::Null));
    for (n, member) in members.iter().enumerate() {
        let instance = world.get(&format!("/v1/instances/fork.{n}")).await;
        assert_eq!(instance.body["disks"][0]["version"], member["version"]);
        assert_ne!(instance.body["id"], member["instance"]);
    }
    let more = world.post("/v1/deployments/fork/scale", json!({ "count": 7 })).await;
    more.refused(422, "invalid");
    // The snapshot outlives its instances, and disks that began with its versions outlive the snapshot.
    let gone = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&gone, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/state"), "ready");
    world.delete("/v1/snapshots/s1").await.expect(202);
    world.delete("/v1/snapshots/s1").await.refused(404, "not_found");
    world.deploy(json!({ "source": { "snapshot": "s1" } })).await.refused(404, "not_found");
    assert_eq!(world.get("/v1/deployments/fork").await.number("/ready"), 6);
    let reboot = world.post("/v1/deployments/fork/reboot", Value::Null).await.expect(202);
    world.ends(&reboot, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_cut_is_tried_again_by_another_coordinator() {
    let (world, nodes) = ready_world(3, 3).await;
    nodes.iter().for_each(|node| node.script(|s| s.refuse_cuts = vec![Reason::HoldExpired]));
    // Three attempts with three coordinators, each of which refuses: it is given up with the last reason.
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.body["error"]["reason"], "hold_expired");
    let tries: Vec<u32> = nodes.iter().flat_map(|node| node.seen.lock().unwrap().coordinated.clone()).collect();
    assert_eq!(tries.len(), 3);
    assert!(nodes.iter().all(|node| node.seen.lock().unwrap().coordinated.len() == 1), "each coordinated once");
    let snapshot = world.get("/v1/snapshots/s1").await;
    assert_eq!((snapshot.text("/state"), snapshot.text("/reason")), ("failed", "hold_expired"));
    assert!(
        world.get("/v1/snapshots/s1/members").await.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["version"].is_null())
    );
    for node in &nodes {
        let commits: Vec<_> = node.seen.lock().unwrap().outcomes.keys().copied().collect();
        for commit in commits {
            assert_eq!(node.outcome(commit).await, CommitOutcome::Abandoned);
        }
    }
    // The next snapshot is not refused.
    let operation = world.post("/v1/snapshots", of_web("s2")).await.expect(202);
    world.ends(&operation, "succeeded").await;
    nodes[0].script(|s| s.refuse_cuts = vec![Reason::Busy]);
    nodes[1].script(|s| s.refuse_cuts = vec![Reason::Busy]);
    let operation = world.post("/v1/snapshots", of_web("s3")).await.expect(202);
    world.ends(&operation, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_of_an_incomplete_snapshot_says_so() {
    let (world, _nodes) = ready_world(2, 4).await;
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.number("/missing"), 0);
    let members = world.get("/v1/snapshots/s1/members").await;
    world.delete(&format!("/v1/versions/{}", members.text("/items/2/version"))).await.expect(204);
    let snapshot = world.get("/v1/snapshots/s1").await;
    assert_eq!((snapshot.number("/members"), snapshot.number("/missing")), (4, 1));
    let fork = |source: Value| json!({ "name": "fork", "source": source, "runtime": "none" });
    let refused = world.deploy(fork(json!({ "snapshot": "s1" }))).await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("1 of the 4 disks"), "{}", refused.body);
    let fork = world.deploy(fork(json!({ "snapshot": "s1", "allow_missing": true }))).await.expect(202);
    world.ends(&fork, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/fork").await.number("/count"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_and_pending_instances_are_skipped_and_an_empty_snapshot_is_409() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[0].script(|s| s.fails = true);
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 4, "runtime": "none" });
    let operation = world.deploy(order).await.expect(202);
    world.ends(&operation, "failed").await;
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let snapshot = world.get("/v1/snapshots/s1").await;
    assert_eq!((snapshot.number("/members"), snapshot.number("/skipped")), (2, 2));
    let failed = world.get("/v1/instances?state=failed").await;
    let select = json!({ "instances": [failed.body["items"][0]["id"]] });
    world.post("/v1/snapshots", json!({ "select": select })).await.refused(409, "wrong_state");
    world.post("/v1/snapshots", of_web("s1")).await.refused(409, "name_taken");
    world.post("/v1/snapshots", json!({ "select": {} })).await.refused(422, "invalid");
    let select = json!({ "deployment": "web" });
    for pause in [0, 10_001] {
        let reply = world.post("/v1/snapshots", json!({ "select": select, "max_pause_ms": pause })).await;
        assert_eq!(reply.refused(422, "invalid").text("/errors/0/pointer"), "/max_pause_ms");
    }
    let missing = world.post("/v1/snapshots", json!({ "select": { "deployment": "db" } })).await;
    assert_eq!(missing.refused(404, "not_found").text("/errors/0/pointer"), "/select/deployment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_of_a_disk_at_a_time_and_cancel_publishes_nothing() {
    let (world, nodes) = ready_world(2, 2).await;
    nodes[1].script(|s| s.saves = false);
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    let busy = world.post("/v1/snapshots", of_web("s2")).await.refused(409, "busy");
    assert_eq!(busy.text("/operation"), operation.text("/id"));
    let order = order(&nodes[1]).await;
    let (commit, staged) = commit_of(&nodes[1], &order);
    assert_eq!(nodes[1].outcome(commit).await, CommitOutcome::Pending);
    assert!(
        world.get("/v1/snapshots/s1/members").await.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["version"].is_null())
    );
    world.post(&format!("/v1/operations/{}/cancel", operation.text("/id")), Value::Null).await.expect(202);
    world.ends(&operation, "cancelled").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/state"), "failed");
    assert_eq!(nodes[1].outcome(commit).await, CommitOutcome::Abandoned);
    let late = nodes[1].stage(commit, &staged).await.expect(200);
    assert_eq!(late.text("/outcome"), "abandoned");
    eventually("the order to be withdrawn", async || nodes[1].desired().cuts.is_empty().then_some(())).await;
    nodes[1].script(|s| s.saves = true);
    let operation = world.post("/v1/snapshots", of_web("s2")).await.expect(202);
    world.ends(&operation, "succeeded").await;
}

/// What a node cannot do reaches the operation: it is shown while the node goes on trying, and ends the snapshot at once
/// when trying again cannot help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trouble_of_a_commit_reaches_the_operation() {
    let (world, nodes) = ready_world(2, 2).await;
    nodes[0].script(|s| s.saves = false);
    let trouble =
        |detail: &str, hopeless| CommitTrouble { reason: Reason::DiskFailed, detail: detail.to_owned(), hopeless };
    for hopeless in [false, true] {
        let name = format!("s-{hopeless}");
        let operation = world.post("/v1/snapshots", of_web(&name)).await.expect(202);
        let (commit, staged) = commit_of(&nodes[0], &order(&nodes[0]).await);
        let path = format!("/v1/operations/{}", operation.text("/id"));
        let waiting = async || world.get(&path).await.body["waiting_on"].to_string();
        eventually("a member is waited for", async || waiting().await.contains("is being saved").then_some(())).await;
        nodes[1].trouble(commit, &trouble("not mine", true)).await.refused(404, "not_found");
        let told = nodes[0].trouble(commit, &trouble("the journal is damaged", hopeless)).await.expect(200);
        if hopeless {
            assert_eq!(told.text("/outcome"), "abandoned");
            let ended = world.ends(&operation, "failed").await;
            assert_eq!(ended.text("/error/reason"), "disk_failed");
            assert!(ended.text("/error/detail").contains("the journal is damaged"), "{}", ended.body);
            assert_eq!(world.get(&format!("/v1/snapshots/{name}")).await.text("/reason"), "disk_failed");
        } else {
            assert_eq!(told.text("/outcome"), "pending");
            let told = "the journal is damaged (disk_failed)";
            eventually("the trouble is shown", async || waiting().await.contains(told).then_some(())).await;
            assert_eq!(nodes[0].stage(commit, &staged).await.expect(200).text("/outcome"), "published");
            world.ends(&operation, "succeeded").await;
        }
        eventually("the order to be withdrawn", async || nodes[0].desired().cuts.is_empty().then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_accepted_only_from_its_node_on_its_head_and_under_its_upload() {
    let (world, nodes) = ready_world(2, 2).await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    let (first, second) = (order(&nodes[0]).await, order(&nodes[1]).await);
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    let (commit, staged) = commit_of(&nodes[0], &first);
    nodes[1].stage(commit, &staged).await.refused(404, "not_found");
    let stale = StagedCommit { generation: 7, ..staged.clone() };
    nodes[0].stage(commit, &stale).await.refused(409, "stale");
    let stale = StagedCommit { base: muster_api::VersionId::generate(), ..staged.clone() };
    nodes[0].stage(commit, &stale).await.refused(409, "stale");
    let stale = StagedCommit { upload: muster_api::UploadId::generate(), ..staged.clone() };
    nodes[0].stage(commit, &stale).await.refused(409, "stale");
    let small = StagedCommit { root: nodes[0].root(4096), ..staged.clone() };
    nodes[0].stage(commit, &small).await.refused(422, "invalid");
    let mut broken = staged.clone();
    broken.root.root_page = None;
    nodes[0].stage(commit, &broken).await.refused(422, "invalid");
    let old = StagedCommit { attempt: 0, ..staged.clone() };
    assert_eq!(nodes[0].stage(commit, &old).await.expect(200).text("/outcome"), "abandoned");
    for _ in 0..2 {
        assert_eq!(nodes[0].stage(commit, &staged).await.expect(200).text("/outcome"), "pending");
    }
    let (other, staged_other) = commit_of(&nodes[1], &second);
    let published = nodes[1].stage(other, &staged_other).await.expect(200);
    assert_eq!(published.text("/outcome"), "published");
    world.ends(&operation, "succeeded").await;
    // Asked again: the same answer, and nothing is published twice.
    assert_eq!(nodes[1].stage(other, &staged_other).await.expect(200).text("/version"), published.text("/version"));
    assert!(matches!(nodes[0].outcome(commit).await, CommitOutcome::Published { .. }));
    eventually("the node to learn its new head", async || {
        let desired = nodes[0].desired();
        let disk = desired.assignments[0].disks[0].clone();
        (desired.versions.get(&disk.version)?.commit == Some(commit)).then_some(())
    })
    .await;
    assert_eq!(nodes[0].outcome(CommitId::generate()).await, CommitOutcome::Abandoned);
}

/// The root pages of disks that are cut again and again are large, and the desired state is sent with each step of a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_not_sent_the_root_pages_that_it_made_itself() {
    let (world, nodes) = ready_world(2, 4).await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    let mut staged = BTreeMap::new();
    for node in &nodes {
        let order = order(node).await;
        for disk in &order.disks {
            let order = CutOrder { disks: vec![disk.clone()], ..order.clone() };
            let (commit, commit_of) = commit_of(node, &order);
            node.stage(commit, &commit_of).await.expect(200);
            staged.insert(commit, commit_of.root.root_page);
        }
    }
    world.ends(&operation, "succeeded").await;
    // Members of a version of an image beside them, and of versions that one of both nodes made.
    world.ready("beside", 2).await;
    let fork = json!({ "name": "fork", "source": { "snapshot": "s1" }, "runtime": "none" });
    let operation = world.deploy(fork).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let (mut own, mut others) = (BTreeSet::new(), 0);
    for node in &nodes {
        let ask = async |headers: &[(&'static str, &'static str)]| -> Desired {
            let reply = node.call_with("GET", "desired?after=0", headers, Value::Null).await.expect(200);
            serde_json::from_value(reply.body).unwrap()
        };
        let (all, less) = (ask(&[]).await, ask(&[(HAS_OWN_PAGES_HEADER, "1")]).await);
        assert!(all.versions.keys().eq(less.versions.keys()));
        for (id, root) in &all.versions {
            let less = &less.versions[id];
            assert_eq!((&less.descriptor, less.commit), (&root.descriptor, root.commit));
            if let Some(commit) = root.commit {
                assert_eq!(root.root_page, staged[&commit], "as it was staged");
            }
            match (root.commit, &less.root_page) {
                (Some(commit), None) => assert!(own.insert(commit), "one node made it"),
                (_, page) => {
                    assert_eq!(page, &root.root_page);
                    others += 1;
                }
            }
        }
    }
    assert_eq!(own, staged.keys().copied().collect(), "each node made the versions of its own disks");
    assert!(others >= 1, "the image");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_deleted_during_the_snapshot_fails_the_snapshot() {
    let (world, nodes) = ready_world(2, 2).await;
    nodes[1].script(|s| s.saves = false);
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    let gone = world.delete("/v1/instances/web.1").await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.body["error"]["reason"], "member_lost");
    world.ends(&gone, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/reason"), "member_lost");
    let operation = world.post("/v1/snapshots", of_web("s2")).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let renamed =
        world.call("PATCH", "/v1/snapshots/s2", json!({ "name": "s3", "labels": { "a": "b" } })).await.expect(200);
    assert_eq!(renamed.text("/name"), "s3");
    world.get("/v1/snapshots/s2").await.refused(404, "not_found");
    world.call("PATCH", "/v1/snapshots/s3", json!({ "name": "s1" })).await.refused(409, "name_taken");
    assert_eq!(world.get("/v1/snapshots?label=a=b").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/snapshots?state=failed&deployment=web").await.text("/items/0/name"), "s1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_a_snapshot_under_way_gives_it_up() {
    let (world, nodes) = ready_world(2, 2).await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = world.post("/v1/snapshots", of_web("s1")).await.expect(202);
    let order = order(&nodes[0]).await;
    world.delete("/v1/snapshots/s1").await.expect(202);
    world.ends(&operation, "cancelled").await;
    assert_eq!(nodes[0].outcome(order.disks[0].commit).await, CommitOutcome::Abandoned);
    assert_eq!(world.get("/v1/snapshots?deleted=true").await.text("/items/0/state"), "deleted");
}
