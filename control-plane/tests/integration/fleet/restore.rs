//! `/v1/snapshots/{snapshot}/restore`: disks get the content that they had, everything else stays.

use std::sync::Arc;

use muster_api::{
    Reason, Timestamp, VersionId,
    node_protocol::{SILENT_AFTER_S, Wanted},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, Reply, World, eventually};
use crate::clock::ManualClock;

/// A ready deployment `web` of this runtime with its snapshot `s1`, and another one after it, so that its disks are at other
/// versions now.
async fn saved(world: &World, count: u64, runtime: &str) {
    world.image("debian", MIB).await;
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": count, "runtime": runtime,
        "disks": [{ "name": "data", "size_bytes": 2 * MIB }] });
    let deployed = world.deploy(order).await.expect(202);
    world.ends(&deployed, "succeeded").await;
    for name in ["s1", "s2"] {
        snapshot(world, name).await;
    }
}

async fn snapshot(world: &World, name: &str) {
    let asked = json!({ "name": name, "select": { "deployment": "web" } });
    let made = world.post("/v1/snapshots", asked).await.expect(202);
    world.ends(&made, "succeeded").await;
}

async fn world(nodes: u32, count: u64, runtime: &str) -> (World, Vec<Node>) {
    let world = World::new().await;
    let nodes = world.nodes(nodes).await;
    saved(&world, count, runtime).await;
    (world, nodes)
}

async fn restore(world: &World, snapshot: &str, body: Value) -> Reply {
    world.post(&format!("/v1/snapshots/{snapshot}/restore"), body).await
}

async fn instance(world: &World, name: &str) -> Reply {
    world.get(&format!("/v1/instances/{name}")).await.expect(200)
}

/// The versions that a snapshot has: instance, disk, version.
async fn versions_of(world: &World, snapshot: &str) -> Vec<(String, String, String)> {
    let members = world.get(&format!("/v1/snapshots/{snapshot}/members")).await.expect(200);
    let text = |of: &Value, field: &str| of[field].as_str().unwrap().to_owned();
    let items = members.body["items"].as_array().unwrap().iter();
    items.map(|m| (text(m, "instance_name"), text(m, "disk_name"), text(m, "version"))).collect()
}

/// The versions that the instances have now, in the same form.
async fn present(world: &World, of: &[(String, String, String)]) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (name, disk, _) in of {
        let shown = world.get(&format!("/v1/instances/{name}")).await;
        let disks = shown.body["disks"].as_array().cloned().unwrap_or_default();
        let of = disks.iter().find(|d| d["name"] == disk.as_str());
        let version = of.map(|d| d["version"].as_str().unwrap().to_owned()).unwrap_or_default();
        found.push((name.clone(), disk.clone(), version));
    }
    found
}

async fn phase(world: &World, operation: &Reply, wanted: &str) -> Reply {
    let path = format!("/v1/operations/{}", operation.text("/id"));
    eventually(&format!("the restore to be {wanted}"), async || {
        let shown = world.get(&path).await.expect(200);
        (shown.text("/phase") == wanted).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_get_the_content_of_the_snapshot_and_the_present_is_kept_under_the_same_identity() {
    for runtime in ["libvirt", "none"] {
        let (world, nodes) = world(2, 3, runtime).await;
        nodes.iter().for_each(|node| node.script(|s| (s.dirty_bytes, s.settles) = (8192, true)));
        // One that is off stays off, and one that was made since is not touched.
        let stopping = world.post("/v1/instances/web.2/stop", json!({})).await.expect(202);
        world.ends(&stopping, "succeeded").await;
        let more = world.post("/v1/deployments/web/scale", json!({ "count": 4 })).await.expect(202);
        world.ends(&more, "succeeded").await;
        let (before, newest) = (instance(&world, "web.0").await, instance(&world, "web.3").await);
        let (old, now) = (versions_of(&world, "s1").await, versions_of(&world, "s2").await);
        assert_ne!(old, now);

        let operation = restore(&world, "s1", json!({})).await.expect(202);
        assert_eq!((operation.text("/kind"), operation.text("/target/name")), ("snapshot.restore", "s1"));
        let done = world.ends(&operation, "succeeded").await;
        assert_eq!((done.number("/progress/done"), done.number("/progress/total")), (3, 3));
        assert_eq!((done.number("/result/instances"), done.number("/result/disks")), (3, 6));
        assert_eq!(done.body["result"]["left_out"], json!([]));
        assert_eq!(present(&world, &old).await, old);
        // What the guests wrote before is in the snapshot that was taken first, and nowhere else.
        let kept = done.text("/result/kept_snapshot_name").to_owned();
        assert!(kept.starts_with("before-restore-"), "{kept}");
        let shown = world.get(&format!("/v1/snapshots/{kept}")).await.expect(200);
        assert_eq!(
            (shown.text("/state"), shown.number("/members"), shown.text("/deployment_name")),
            ("ready", 6, "web")
        );
        let kept = versions_of(&world, &kept).await;
        assert!(kept.iter().zip(&now).all(|(kept, now)| kept.2 != now.2 && (&kept.0, &kept.1) == (&now.0, &now.1)));

        let after = instance(&world, "web.0").await;
        for same in ["id", "name", "node", "nics", "memory_bytes", "deployment", "created_at"] {
            assert_eq!(after.body[same], before.body[same], "{same}");
        }
        assert_eq!((after.text("/state"), after.body["ready_at"].is_null()), ("running", false));
        assert_eq!(after.text("/disks/0/id"), before.text("/disks/0/id"));
        assert_eq!(after.body["disks"][0]["saved_at"], world.get("/v1/snapshots/s1").await.body["cut_at"]);
        assert_eq!(instance(&world, "web.2").await.text("/state"), "stopped");
        let untouched = instance(&world, "web.3").await;
        assert_eq!(untouched.body["etag"], newest.body["etag"]);
        // What its node is told: the older copy does not count any more.
        let told = nodes.iter().find_map(|node| node.assignment("web.0")).unwrap();
        assert_eq!((told.generation, told.disks[0].since_generation, told.disks[0].in_guest), (2, 2, true));
        let events = world.get("/v1/events?follow=false").await;
        let told = events.body["items"]
            .as_array()
            .map(|items| items.iter().filter(|e| e["kind"] == "instance.restored").count());
        assert!(told.is_none_or(|n| n == 3), "{told:?}");
        // It can be stopped, started, cut and restored again.
        snapshot(&world, "s3").await;
        let operation = restore(&world, "s2", json!({ "discard_current": true })).await.expect(202);
        let done = world.ends(&operation, "succeeded").await;
        assert_eq!((&done.body["result"]["kept_snapshot"], present(&world, &now).await), (&Value::Null, now));
        assert_eq!(world.get("/v1/snapshots").await.body["items"].as_array().unwrap().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_put_in_place_before_the_present_is_kept_and_a_cancel_before_that_changes_nothing() {
    let (world, nodes) = world(2, 2, "none").await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let now = versions_of(&world, "s2").await;
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    let saving = phase(&world, &operation, "saving").await;
    assert_eq!(saving.number("/progress/total"), 2);
    // The files are closed meanwhile, so that nothing is written that nobody keeps.
    for (name, node) in [("web.0", 0), ("web.1", 1)] {
        let of = nodes.iter().find_map(|node| node.assignment(name)).unwrap_or_else(|| panic!("{name} on {node}"));
        assert!(of.disks.iter().all(|disk| !disk.in_guest && disk.since_generation == 0), "{of:?}");
        assert_eq!(instance(&world, name).await.text("/state"), "stopped");
    }
    let busy = world.post("/v1/instances/web.0/start", Value::Null).await.refused(409, "busy");
    assert_eq!(busy.text("/operation"), operation.text("/id"));
    restore(&world, "s2", json!({})).await.refused(409, "busy");
    world.post(&format!("/v1/operations/{}/cancel", operation.text("/id")), Value::Null).await.expect(202);
    let ended = world.ends(&operation, "cancelled").await;
    assert_eq!((ended.number("/result/disks"), &ended.body["result"]["not_started"]), (0, &json!([])));
    eventually("both to run again", async || {
        let ready = world.get("/v1/deployments/web").await.number("/ready") == 2;
        let open = |name| nodes.iter().any(|n| n.assignment(name).is_some_and(|a| a.disks.iter().all(|d| d.in_guest)));
        (ready && open("web.0") && open("web.1")).then_some(())
    })
    .await;
    assert_eq!(present(&world, &now).await, now);
    let snapshots = world.get("/v1/snapshots").await;
    assert_eq!(snapshots.body["items"].as_array().unwrap().len(), 2, "none was kept: {:#}", snapshots.body);
    let told = nodes.iter().find_map(|node| node.assignment("web.0")).unwrap();
    assert_eq!(told.generation, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_after_the_snapshot_that_keeps_the_present_is_kept_by_another_one() {
    let (world, nodes) = world(1, 1, "libvirt").await;
    let old = versions_of(&world, "s1").await;
    // Its guest ends by itself, so that its agent would start it again after a restart.
    nodes[0].script(|s| s.ends = true);
    eventually("the guest to end", async || {
        nodes[0].act().await;
        (instance(&world, "web.0").await.text("/state") == "stopped").then_some(())
    })
    .await;
    assert_eq!(nodes[0].assignment("web.0").unwrap().wanted, Wanted::Running);
    nodes[0].script(|s| (s.ends, s.lags) = (false, true));
    let kept = async || {
        let all = world.get("/v1/snapshots").await.expect(200);
        let items = all.body["items"].as_array().unwrap().clone();
        let is_kept = |s: &&Value| s["name"].as_str().unwrap().starts_with("before-restore-");
        items.iter().find(is_kept).map(|s| (s["name"].as_str().unwrap().to_owned(), s["state"] == "ready"))
    };
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    let first = eventually("the present to be kept", async || kept().await.filter(|(_, ready)| *ready)).await.0;
    assert_eq!(nodes[0].assignment("web.0").unwrap().wanted, Wanted::Stopped);
    // Its node has not told yet what it has beyond that snapshot, and then tells that there is more.
    assert_eq!(phase(&world, &operation, "saving").await.body["finished_at"], Value::Null);
    nodes[0].script(|s| (s.lags, s.dirty_bytes) = (false, 4096));
    let second = eventually("another snapshot to keep it", async || {
        nodes[0].act().await;
        kept().await.filter(|(name, _)| *name != first)
    })
    .await
    .0;
    world.get(&format!("/v1/snapshots/{first}")).await.refused(404, "not_found");
    nodes[0].script(|s| s.dirty_bytes = 0);
    let done = eventually("the restore to end", async || {
        nodes[0].act().await;
        let shown = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await.expect(200);
        shown.body["finished_at"].is_string().then_some(shown)
    })
    .await;
    assert_eq!(done.text("/state"), "succeeded", "{:#}", done.body);
    // More of them may have been taken before its node told that nothing is new.
    let last = done.text("/result/kept_snapshot_name");
    assert!(last != first && kept().await.is_some_and(|(name, _)| name == last), "{first} {second} {last}");
    assert_eq!(present(&world, &old).await, old);
    assert_eq!(instance(&world, "web.0").await.text("/state"), "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_goes_on_after_a_restart_of_the_controller_in_each_step() {
    let (mut world, nodes) = world(2, 2, "libvirt").await;
    let old = versions_of(&world, "s1").await;
    // Stopping: the node does not answer yet.
    nodes.iter().for_each(|node| node.script(|s| (s.mute, s.saves) = (true, false)));
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    assert_eq!(operation.text("/phase"), "stopping");
    world.restart().await;
    nodes.iter().for_each(|node| node.script(|s| s.mute = false));
    phase(&world, &operation, "saving").await;
    world.restart().await;
    // Its copies are those of before: it must not count as restored.
    nodes.iter().for_each(|node| node.script(|s| (s.saves, s.keeps) = (true, true)));
    phase(&world, &operation, "starting").await;
    world.restart().await;
    eventually("the instances to run", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 2).then_some(())
    })
    .await;
    let shown = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
    assert!(shown.body["finished_at"].is_null(), "the disks are not in place: {:#}", shown.body);
    let cancelled =
        world.post(&format!("/v1/operations/{}/cancel", operation.text("/id")), Value::Null).await.expect(202);
    assert_eq!(cancelled.text("/state"), "cancelling");
    nodes.iter().for_each(|node| node.script(|s| s.keeps = false));
    // Too late for a cancel: it goes on.
    let done = world.ends(&operation, "succeeded").await;
    assert_eq!(done.number("/result/disks"), 4);
    assert_eq!(present(&world, &old).await, old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_any_more_is_named_and_the_rest_is_restored_when_that_is_wanted() {
    let (world, _nodes) = world(2, 4, "none").await;
    let old = versions_of(&world, "s1").await;
    let gone = world.delete("/v1/instances/web.1").await.expect(202);
    world.ends(&gone, "succeeded").await;
    world.post("/v1/disks/web.2%2Fdata/detach", Value::Null).await.expect(202);
    eventually("the disk to be detached", async || {
        (instance(&world, "web.2").await.body["disks"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let of = |name: &str, disk: &str| old.iter().find(|(n, d, _)| n == name && d == disk).unwrap().2.clone();
    world.delete(&format!("/v1/versions/{}", of("web.3", "data"))).await.expect(204);
    let refused = restore(&world, "s1", json!({})).await.refused(409, "wrong_state");
    let missing: Vec<_> = refused.body["missing"].as_array().unwrap().iter().map(|m| m["why"].clone()).collect();
    let deleted = json!("the instance was deleted");
    let (detached, version) = (json!("the disk was detached or deleted"), json!("its version was deleted"));
    assert_eq!(missing, [deleted.clone(), deleted, detached, version]);
    assert!(refused.text("/detail").contains("4 of the 8 disks"), "{refused:?}");
    let operation = restore(&world, "s1", json!({ "allow_missing": true, "discard_current": true })).await.expect(202);
    let done = world.ends(&operation, "succeeded").await;
    assert_eq!((done.number("/result/instances"), done.number("/result/disks")), (3, 4));
    assert_eq!(done.body["result"]["left_out"].as_array().unwrap().len(), 4);
    let now = present(&world, &old).await;
    for (at, (name, disk, version)) in now.iter().enumerate() {
        let is_restored =
            ["web.0/root", "web.0/data", "web.2/root", "web.3/root"].contains(&&*format!("{name}/{disk}"));
        assert!(!is_restored || *version == old[at].2, "{name}/{disk}");
    }
    assert_ne!(now.iter().find(|(n, d, _)| (&**n, &**d) == ("web.3", "data")).unwrap().2, of("web.3", "data"));
    // A snapshot of which nothing is left.
    let gone = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&gone, "succeeded").await;
    restore(&world, "s1", json!({ "allow_missing": true })).await.refused(409, "wrong_state");
    restore(&world, "s9", json!({})).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_refused_while_something_else_is_done_with_an_instance_or_its_node_is_silent() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    let nodes = world.nodes(1).await;
    saved(&world, 1, "none").await;
    nodes[0].script(|s| s.saves = false);
    let asked = json!({ "name": "s3", "select": { "deployment": "web" } });
    let cutting = world.post("/v1/snapshots", asked).await.expect(202);
    let busy = restore(&world, "s1", json!({})).await.refused(409, "busy");
    assert_eq!(busy.text("/operation"), cutting.text("/id"));
    restore(&world, "s3", json!({})).await.refused(409, "wrong_state");
    nodes[0].script(|s| s.saves = true);
    world.ends(&cutting, "succeeded").await;
    nodes[0].script(|s| s.mute = true);
    let stopping = world.post("/v1/instances/web.0/stop", json!({})).await.expect(202);
    let busy = restore(&world, "s1", json!({})).await.refused(409, "busy");
    assert_eq!(busy.text("/operation"), stopping.text("/id"));
    nodes[0].script(|s| s.mute = false);
    world.ends(&stopping, "succeeded").await;
    restore(&world, "s1", json!({ "timeout_s": 4000 })).await.refused(422, "invalid");
    restore(&world, "s1", json!({ "force": 7 })).await.refused(422, "invalid");
    clock.advance_ms(i64::try_from(SILENT_AFTER_S).unwrap() * 1000 + 1000);
    eventually("silence to be noticed", async || {
        (instance(&world, "web.0").await.text("/state") == "unknown").then_some(())
    })
    .await;
    restore(&world, "s1", json!({})).await.refused(409, "member_unknown");
    // An agent that cannot put another content in place.
    nodes[0].script(|s| s.old = true);
    nodes[0].beat().await;
    eventually("the node to be heard", async || {
        (instance(&world, "web.0").await.text("/state") == "stopped").then_some(())
    })
    .await;
    eventually("the old agent to be noticed", async || {
        nodes[0].act().await;
        let reply = restore(&world, "s1", json!({})).await;
        (reply.status == 409 && reply.text("/detail").contains("too old")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_waited_for_until_the_deadline_and_then_the_truth_is_told() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    let nodes = world.nodes(2).await;
    saved(&world, 2, "none").await;
    let now = versions_of(&world, "s2").await;
    let silent = || async {
        clock.advance_ms(i64::try_from(SILENT_AFTER_S).unwrap() * 1000 + 1000);
        nodes[1].beat().await;
        eventually("silence to be noticed", async || {
            (world.get("/v1/nodes/n0").await.text("/state") == "silent").then_some(())
        })
        .await;
    };
    let name = nodes[0].desired().assignments[0].name.clone();
    // While the instances stop.
    nodes[0].script(|s| s.mute = true);
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    silent().await;
    let waits = eventually("the wait to be told", async || {
        let shown = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
        let what = shown.body.pointer("/waiting_on/0/what").and_then(Value::as_str).unwrap_or_default();
        what.contains("its node is silent").then_some(shown)
    })
    .await;
    assert!(waits.text("/waiting_on/0/what").starts_with(&name));
    assert_eq!(waits.text("/waiting_on/0/node_name"), "n0");
    clock.advance_ms(400_000);
    nodes[1].beat().await;
    let failed = world.ends(&operation, "failed").await;
    let detail = failed.text("/error/detail");
    assert!(detail.contains("nothing was restored") && detail.contains("its node is silent"), "{detail}");
    assert_eq!(failed.body["result"]["not_started"], json!([name]));
    assert_eq!(present(&world, &now).await, now);
    nodes[0].script(|s| s.mute = false);
    nodes[0].beat().await;
    eventually("it to be told to run again, or to be off", async || {
        let state = instance(&world, &name).await.text("/state").to_owned();
        (state == "stopped").then_some(())
    })
    .await;
    let starting = world.post(&format!("/v1/instances/{name}/start"), Value::Null).await.expect(202);
    world.ends(&starting, "succeeded").await;
    // After the content was put in place: it holds, whatever the node does.
    let old = versions_of(&world, "s1").await;
    nodes[0].script(|s| s.stuck = [name.clone()].into());
    let operation = restore(&world, "s1", json!({ "discard_current": true })).await.expect(202);
    phase(&world, &operation, "starting").await;
    nodes[0].script(|s| s.mute = true);
    silent().await;
    clock.advance_ms(700_000);
    nodes[1].beat().await;
    let failed = world.ends(&operation, "failed").await;
    let detail = failed.text("/error/detail");
    assert!(detail.contains("all disks have the content of snapshot 's1'") && detail.contains(&name), "{detail}");
    assert_eq!(present(&world, &old).await, old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_deleted_meanwhile_leaves_the_restore_and_the_others_go_on() {
    let (world, nodes) = world(3, 3, "none").await;
    let old = versions_of(&world, "s1").await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    phase(&world, &operation, "saving").await;
    let gone = world.delete("/v1/instances/web.1").await.expect(202);
    world.ends(&gone, "succeeded").await;
    nodes.iter().for_each(|node| node.script(|s| s.saves = true));
    let done = world.ends(&operation, "succeeded").await;
    assert_eq!((done.number("/result/instances"), done.number("/result/disks")), (2, 4));
    let left: Vec<&Value> =
        done.body["result"]["left_out"].as_array().unwrap().iter().map(|m| &m["instance"]).collect();
    assert_eq!(left, ["web.1", "web.1"]);
    let rest: Vec<_> = old.into_iter().filter(|(name, ..)| name != "web.1").collect();
    assert_eq!(present(&world, &rest).await, rest);
    // The snapshot may go meanwhile, and what it is restored to does not.
    let (now, kept) = (present(&world, &rest).await, done.text("/result/kept_snapshot_name").to_owned());
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = restore(&world, "s2", json!({ "allow_missing": true })).await.expect(202);
    phase(&world, &operation, "saving").await;
    world.delete("/v1/snapshots/s2").await.expect(202);
    world.ends(&operation, "cancelled").await;
    assert_eq!(present(&world, &rest).await, now);
    let slow = ["web.0".to_owned(), "web.2".to_owned()];
    nodes.iter().for_each(|node| node.script(|s| (s.saves, s.stuck) = (true, slow.clone().into())));
    let operation = eventually("the instances to be idle", async || {
        let reply = restore(&world, &kept, json!({ "discard_current": true, "allow_missing": true })).await;
        (reply.status == 202).then_some(reply)
    })
    .await;
    phase(&world, &operation, "starting").await;
    world.delete(&format!("/v1/snapshots/{kept}")).await.expect(202);
    world.ends(&operation, "cancelled").await;
    nodes.iter().for_each(|node| node.script(|s| s.stuck.clear()));
    assert_ne!(present(&world, &rest).await, now);
    eventually("the others to run", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 2).then_some(())
    })
    .await;
    // The deployment goes with its members.
    nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    let operation = restore(&world, "s1", json!({ "allow_missing": true })).await.expect(202);
    phase(&world, &operation, "saving").await;
    let gone = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&gone, "succeeded").await;
    world.ends(&operation, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_present_that_cannot_be_kept_is_not_given_up() {
    let (world, nodes) = world(1, 1, "libvirt").await;
    let now = versions_of(&world, "s2").await;
    nodes[0].script(|s| s.refuse_cuts = vec![Reason::DiskFull; 3]);
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    let detail = failed.text("/error/detail");
    assert!(detail.contains("nothing was restored") && detail.contains("could not be kept"), "{detail}");
    eventually("it to run again", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 1).then_some(())
    })
    .await;
    assert_eq!(present(&world, &now).await, now);
    // A guest that crashed is restored as well, and started again.
    nodes[0].script(|s| s.fails = true);
    let reboot = world.post("/v1/instances/web.0/reboot", json!({})).await.expect(202);
    world.ends(&reboot, "failed").await;
    nodes[0].script(|s| s.fails = false);
    let old = versions_of(&world, "s1").await;
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(present(&world, &old).await, old);
    assert_eq!(instance(&world, "web.0").await.text("/state"), "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_restored_is_kept_from_the_sweep() {
    let (world, nodes) = world(1, 1, "none").await;
    let old = versions_of(&world, "s1").await;
    let root = async |version: &str| -> String {
        let version: VersionId = version.parse().unwrap();
        let read =
            world.app.store.read("test.root", async |tx| muster_controller::store::versions::load(tx, version).await);
        read.await.unwrap().unwrap().content.root().to_string()
    };
    let kept = async || {
        let roots = world.app.store.read("test.roots", async |tx| muster_controller::store::roots::list(tx).await);
        let names = roots.await.unwrap().names;
        names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    nodes[0].script(|s| s.saves = false);
    let operation = restore(&world, "s1", json!({})).await.expect(202);
    phase(&world, &operation, "saving").await;
    // Each version can be deleted by itself at any time.
    for (_, _, version) in &old {
        world.delete(&format!("/v1/versions/{version}")).await.expect(204);
        assert!(kept().await.contains(&root(version).await));
    }
    nodes[0].script(|s| s.saves = true);
    world.ends(&operation, "succeeded").await;
    assert_eq!(present(&world, &old).await, old);
    for (_, _, version) in &old {
        assert!(kept().await.contains(&root(version).await), "its disk has it");
    }
}
