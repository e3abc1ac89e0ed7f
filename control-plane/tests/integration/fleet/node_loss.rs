//! A node is declared dead: its instances fail, nothing waits for it any more, and it learns that when it returns.

use std::sync::Arc;

use muster_api::{
    Timestamp,
    node_protocol::{Observed, SILENT_AFTER_S, SalvageOrder, SalvageReport, SalvagedDisk, VersionRoot},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, World, eventually, report_of};
use crate::clock::ManualClock;

/// A deployment `web` that is ready, and the names of its members on the first node.
async fn world_with_two_nodes(count: u64) -> (World, Vec<Node>, Vec<String>, ManualClock) {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[0].script(|s| s.dirty_bytes = 8192);
    world.ready("web", count).await;
    let first = nodes[0].desired().assignments.iter().map(|a| a.name.clone()).collect();
    (world, nodes, first, clock)
}

async fn silent(world: &World, node: &str, clock: &ManualClock, others: &[Node]) {
    clock.advance_ms(i64::try_from(SILENT_AFTER_S).unwrap() * 1000 + 1000);
    for other in others {
        other.beat().await;
    }
    eventually("silence to be noticed", async || {
        (world.get(&format!("/v1/nodes/{node}")).await.text("/state") == "silent").then_some(())
    })
    .await;
}

async fn instance(world: &World, name: &str) -> super::harness::Reply {
    world.get(&format!("/v1/instances/{name}")).await.expect(200)
}

fn confirmed() -> Value {
    json!({ "confirm": true })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instances_of_a_node_that_is_declared_dead_fail_with_node_lost_and_can_be_deleted() {
    let (world, nodes, lost, clock) = world_with_two_nodes(4).await;
    nodes[0].script(|s| s.mute = true);
    silent(&world, "n0", &clock, &nodes[1..]).await;
    world.post("/v1/nodes/n0/fence", json!({})).await.refused(422, "invalid");
    let fenced = world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    assert_eq!((fenced.text("/state"), fenced.number("/instances")), ("fenced", 0));
    let again = world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    assert_eq!(again.text("/etag"), fenced.text("/etag"), "a repeated word changes nothing");
    for name in &lost {
        let shown = instance(&world, name).await;
        assert_eq!((shown.text("/state"), shown.text("/reason")), ("failed", "node_lost"));
        assert!(shown.body["node"].is_null());
        // What its disk had would be lost silently.
        let refused = world.post(&format!("/v1/instances/{name}/start"), Value::Null).await.refused(409, "wrong_state");
        assert!(refused.text("/detail").contains("recover"), "{refused:?}");
    }
    world.post("/v1/deployments/web/retry", json!({})).await.refused(409, "wrong_state");
    eventually("the deployment to be counted", async || {
        (world.get("/v1/deployments/web").await.text("/state") == "degraded").then_some(())
    })
    .await;
    let deleting = world.delete(&format!("/v1/instances/{}", lost[0])).await.expect(202);
    world.ends(&deleting, "succeeded").await;
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&deleting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_wait_for_a_node_end_when_it_is_declared_dead() {
    let (world, nodes, lost, _) = world_with_two_nodes(4).await;
    // What is under way when the node dies: a delete, a stop, a snapshot, and a deployment that is being made.
    nodes[0].script(|s| s.mute = true);
    let deleting = world.delete(&format!("/v1/instances/{}", lost[0])).await.expect(202);
    let stopping = world.post(&format!("/v1/instances/{}/stop", lost[1]), Value::Null).await.expect(202);
    let order = json!({ "name": "new", "source": { "image": "debian" }, "count": 2, "runtime": "none" });
    let making = world.deploy(order).await.expect(202);
    let select = json!({ "select": { "instances": [lost[1]] }, "name": "s1" });
    let cutting = world.post("/v1/snapshots", select).await.expect(202);
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    world.ends(&deleting, "succeeded").await;
    world.ends(&stopping, "failed").await;
    let failed = world.ends(&making, "failed").await;
    assert_eq!(failed.text("/error/reasons/0/reason"), "node_lost");
    world.ends(&cutting, "failed").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/reason"), "member_lost");
    // A member that was never started there has nothing to lose.
    let retried = world.post("/v1/deployments/new/retry", json!({})).await.expect(202);
    world.ends(&retried, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_saves_is_not_lost_to_recover_and_its_key_is_listed_until_then() {
    let (world, nodes, lost, _) = world_with_two_nodes(4).await;
    nodes[0].script(|s| s.mute = true);
    let mine = nodes[0].desired().assignments.clone();
    let disk = |n: usize| mine[n].disks[0].clone();
    nodes[1].call("GET", "salvage", Value::Null).await.refused(403, "forbidden");
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    world.delete("/v1/nodes/n0").await.expect(204);
    let listed = || world.app.pool.membership().clients.iter().filter(|client| client.salvages).count();
    assert_eq!(listed(), 1);
    let salvage = format!("/v1/nodes/{}/salvage", nodes[0].id);
    let awaited = world.get(&salvage).await.expect(200);
    assert_eq!((awaited.text("/items/0/state"), awaited.text("/items/1/state")), ("awaited", "awaited"));
    let first = world.get(&format!("{salvage}?limit=1")).await.expect(200);
    assert_eq!(first.body["items"].as_array().unwrap().len(), 1);
    let rest = world.get(&format!("{salvage}?limit=1&page_token={}", first.text("/next_page_token"))).await.expect(200);
    assert_eq!(rest.body["items"][0]["disk"], awaited.body["items"][1]["disk"]);
    // The node returns.
    let order: SalvageOrder =
        serde_json::from_value(nodes[0].call("GET", "salvage", Value::Null).await.expect(200).body).unwrap();
    assert_eq!(order.disks.len(), 2);
    let of = |n: usize| *order.disks.iter().find(|wanted| wanted.disk == disk(n).disk).unwrap();
    let tell = async |n: usize, report: &SalvageReport| {
        let path = format!("salvage/{}", disk(n).disk);
        nodes[0].call("POST", &path, serde_json::to_value(report).unwrap()).await
    };
    let saved = |n: usize, size: u64| {
        SalvageReport::Saved(SalvagedDisk {
            base: disk(n).version,
            root: VersionRoot { commit: Some(of(n).commit), ..nodes[0].root(size) },
            upload: of(n).upload,
            dirty_bytes: 8192,
            stored_bytes: 4096,
            generation: Some(1),
        })
    };
    tell(0, &SalvageReport::Trouble("peers are away".to_owned())).await.expect(204);
    assert_eq!(world.get(&salvage).await.text("/items/0/detail"), "peers are away");
    tell(0, &saved(0, 4096)).await.refused(422, "invalid");
    let whole = saved(0, disk(0).size_bytes);
    tell(0, &whole).await.expect(204);
    tell(0, &whole).await.expect(204);
    assert_eq!(listed(), 1, "another disk is awaited");
    tell(1, &SalvageReport::Nothing).await.expect(204);
    assert_eq!(listed(), 0);
    nodes[0].call("GET", "salvage", Value::Null).await.expect(204);
    // The version is the newest of the disk, and recovering gives up nothing.
    let version = world.get(&salvage).await.text("/items/0/version").to_owned();
    let shown = instance(&world, &lost[0]).await;
    assert_eq!(shown.text("/disks/0/version"), version);
    let recovering = world.post(&format!("/v1/instances/{}/recover", lost[0]), json!({})).await.expect(202);
    let done = world.ends(&recovering, "succeeded").await;
    assert_eq!(done.body["result"]["loss"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_saves_late_is_a_version_beside_the_disk() {
    let (world, nodes, lost, _) = world_with_two_nodes(2).await;
    nodes[0].script(|s| s.mute = true);
    let disk = nodes[0].desired().assignments[0].disks[0].clone();
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    let accept = json!({ "accept_loss": true });
    let recovering = world.post(&format!("/v1/instances/{}/recover", lost[0]), accept).await.expect(202);
    world.ends(&recovering, "succeeded").await;
    let order: SalvageOrder =
        serde_json::from_value(nodes[0].call("GET", "salvage", Value::Null).await.expect(200).body).unwrap();
    let report = SalvageReport::Saved(SalvagedDisk {
        base: disk.version,
        root: VersionRoot { commit: Some(order.disks[0].commit), ..nodes[0].root(disk.size_bytes) },
        upload: order.disks[0].upload,
        dirty_bytes: 8192,
        stored_bytes: 4096,
        generation: Some(1),
    });
    let path = format!("salvage/{}", disk.disk);
    nodes[0].call("POST", &path, serde_json::to_value(&report).unwrap()).await.expect(204);
    let saved = world.get("/v1/nodes/n0/salvage").await;
    assert!(saved.text("/items/0/detail").contains("deploy from this one"), "{saved:?}");
    let version = saved.text("/items/0/version");
    assert_eq!(instance(&world, &lost[0]).await.text("/disks/0/version"), disk.version.to_string());
    let order = json!({ "name": "old", "source": { "version": version }, "count": 1, "runtime": "none" });
    let forking = world.deploy(order).await.expect(202);
    world.ends(&forking, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_saves_nothing_more_once_it_was_given_up() {
    let (world, nodes, _, _) = world_with_two_nodes(2).await;
    nodes[0].script(|s| s.mute = true);
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    for _ in 0..2 {
        world.post("/v1/nodes/n0/give-up-salvage", Value::Null).await.expect(200);
    }
    assert_eq!(world.get("/v1/nodes/n0/salvage").await.text("/items/0/state"), "given_up");
    assert!(world.app.pool.membership().clients.iter().all(|client| !client.salvages));
    nodes[0].call("GET", "salvage", Value::Null).await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_declared_dead_learns_it_at_every_call_also_after_its_removal() {
    let (world, nodes, lost, _) = world_with_two_nodes(4).await;
    nodes[0].script(|s| s.mute = true);
    let desired = nodes[0].desired();
    let mine = desired.assignments[0].clone();
    let epoch = world.app.pool.membership().epoch;
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    let record = world.app.pool.membership();
    assert_eq!((record.epoch, record.members.len()), (epoch + 1, 1));
    assert!(record.members.iter().all(|member| member.node != nodes[0].id));
    let told = async || {
        for (method, path, body) in [
            ("GET", "desired".to_owned(), Value::Null),
            ("POST", "heartbeat".to_owned(), json!({})),
            ("POST", "renew".to_owned(), json!({ "csr_pem": "" })),
            ("GET", format!("commits/{}", muster_api::CommitId::generate()), Value::Null),
        ] {
            let refused = nodes[0].call(method, &path, body).await.refused(403, "fenced");
            assert!(refused.text("/detail").contains("declared node 'n0' dead"), "{refused:?}");
        }
        nodes[0].report(&desired, true, vec![report_of(&mine, Observed::Running)]).await.refused(403, "fenced");
    };
    told().await;
    world.delete("/v1/nodes/n0").await.expect(204);
    told().await;
    world.get("/v1/nodes/n0").await.refused(404, "not_found");
    assert_eq!(instance(&world, &lost[0]).await.text("/reason"), "node_lost");
    // Its name is free.
    let offer = muster_api::node_protocol::Offer { cpus: 8, memory_bytes: 4096 * MIB };
    let successor = world.node("n0", offer).await;
    assert_ne!(successor.id, nodes[0].id);
    assert_eq!(world.get("/v1/nodes/n0").await.text("/state"), "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_declare_a_node_dead_and_a_removal_needs_that_word() {
    let (world, _nodes, lost, _) = world_with_two_nodes(2).await;
    let tenant = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let fence = world.call_as(&tenant, "POST", "/v1/nodes/n0/fence", confirmed(), &[]).await;
    fence.refused(403, "forbidden");
    let refused = world.delete("/v1/nodes/n0").await.refused(409, "in_use");
    assert!(refused.text("/detail").contains(&lost[0]), "it names the instances: {refused:?}");
    assert_eq!(refused.number("/used_by/instances"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_a_dead_node_is_recovered_elsewhere_only_by_who_accepts_the_loss() {
    let (world, nodes, lost, _) = world_with_two_nodes(4).await;
    let snapshot = json!({ "name": "s1", "select": { "instances": [lost[0]] } });
    let saved = world.post("/v1/snapshots", snapshot).await.expect(202);
    world.ends(&saved, "succeeded").await;
    nodes[0].script(|s| s.dirty_bytes = 12_288);
    eventually("the written bytes to be reported", async || {
        (instance(&world, &lost[0]).await.number("/disks/0/unsaved_bytes") == 12_288).then_some(())
    })
    .await;
    nodes[0].script(|s| s.mute = true);
    let before = instance(&world, &lost[0]).await;
    let path = format!("/v1/instances/{}/recover", lost[0]);
    let running = world.post(&path, json!({ "accept_loss": true })).await.refused(409, "wrong_state");
    assert_eq!(running.body["allowed"], json!(["failed"]));
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);

    let refused = world.post(&path, Value::Null).await.refused(409, "data_loss");
    let loss = &refused.body["loss"][0];
    assert_eq!((&loss["instance_name"], &loss["unsaved_bytes"]), (&json!(lost[0]), &json!(12_288)));
    assert_eq!(
        (&loss["version"], &loss["saved_at"]),
        (&before.body["disks"][0]["version"], &before.body["disks"][0]["saved_at"])
    );
    assert!(refused.text("/detail").contains("at least 12 KiB"), "{refused:?}");
    assert_eq!(instance(&world, &lost[0]).await.text("/reason"), "node_lost", "the refusal changed nothing");

    let recovering = world.post(&path, json!({ "accept_loss": true })).await.expect(202);
    assert_eq!((recovering.text("/kind"), &recovering.body["result"]["loss"][0]), ("instance.recover", loss));
    let done = world.ends(&recovering, "succeeded").await;
    assert_eq!((done.number("/result/done"), &done.body["result"]["loss"][0]), (1, loss));
    let now = instance(&world, &lost[0]).await;
    assert_eq!((now.text("/state"), now.text("/node_name"), now.number("/generation")), ("running", "n1", 2));
    assert_eq!(now.body["disks"][0]["version"], before.body["disks"][0]["version"]);
    assert_eq!(now.number("/disks/0/unsaved_bytes"), 0);
    assert_ne!(now.body["disks"][0]["path"], Value::Null);
    world.post(&path, json!({ "accept_loss": true })).await.refused(409, "wrong_state");

    // The others at once: one of them was never saved.
    let select = json!({ "select": { "deployment": "web" } });
    let refused = world.post("/v1/instances/-/recover", select.clone()).await.refused(409, "data_loss");
    assert_eq!(refused.body["loss"].as_array().unwrap().len(), 1, "what runs loses nothing");
    assert!(refused.body["loss"][0]["saved_at"].is_null());
    let mut accepted = select;
    accepted["accept_loss"] = json!(true);
    let recovering = world.post("/v1/instances/-/recover", accepted).await.expect(202);
    assert_eq!((recovering.text("/kind"), recovering.number("/progress/total")), ("deployment.recover", 1));
    world.ends(&recovering, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/ready"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_without_room_fails_and_can_be_repeated_as_a_start() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock)).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    nodes[0].script(|s| s.mute = true);
    world.post("/v1/nodes/n0/fence", confirmed()).await.expect(200);
    let body = json!({ "accept_loss": true });
    let recovering = world.post("/v1/instances/web.0/recover", body).await.expect(202);
    world.ends(&recovering, "failed").await;
    assert_eq!(instance(&world, "web.0").await.text("/reason"), "no_capacity");
    let offer = muster_api::node_protocol::Offer { cpus: 8, memory_bytes: 4096 * MIB };
    let _other = world.node("n1", offer).await;
    let starting = world.post("/v1/instances/web.0/start", Value::Null).await.expect(202);
    world.ends(&starting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_off_stay_stopped_where_the_agent_was_stopped_and_are_not_cut() {
    let (world, nodes, on_it, _) = world_with_two_nodes(4).await;
    let (off, runs) = (&on_it[0], &on_it[1]);
    let stopping = world.post(&format!("/v1/instances/{off}/stop"), Value::Null).await.expect(202);
    world.ends(&stopping, "succeeded").await;
    nodes[0].script(|s| s.mute = true);
    nodes[0].say_farewell().await;
    assert_eq!(world.get("/v1/nodes/n0").await.text("/state"), "stopped");
    eventually("what is not known to be off to be unknown", async || {
        (instance(&world, runs).await.text("/state") == "unknown").then_some(())
    })
    .await;
    assert_eq!(instance(&world, off).await.text("/state"), "stopped");
    let select = json!({ "select": { "instances": [off] } });
    let refused = world.post("/v1/snapshots", select).await.refused(409, "member_unknown");
    assert!(refused.text("/detail").contains("agent was stopped"), "{refused:?}");
    nodes[0].script(|s| s.mute = false);
    nodes[0].beat().await;
    eventually("it to be heard", async || (instance(&world, runs).await.text("/state") == "running").then_some(()))
        .await;
}
