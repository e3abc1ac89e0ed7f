//! `/v1/instances` and what nodes report.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    extract::Query,
    routing::get,
};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use muster_api::{
    RunId, Timestamp,
    condition::{Condition, ConditionKind},
    node_protocol::{InstanceReport, Observed, SILENT_AFTER_S},
    peer_protocol::LogPart,
};
use muster_controller::config::{Config, Instances};
use serde_json::{Value, json};

use super::harness::{MIB, Node, World, eventually, report_of};
use crate::clock::ManualClock;

async fn state(world: &World, name: &str) -> String {
    world.get(&format!("/v1/instances/{name}")).await.expect(200).text("/state").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_time_outs_take_those_of_the_cluster() {
    let (stop_timeout, ready_timeout) = (Duration::from_secs(90), Duration::from_secs(1200));
    let instances = Instances { stop_timeout, ready_timeout, ..Config::default().instances };
    let world = World::configured(Config { instances, ..Config::default() }).await;
    world.image("debian", MIB).await;
    let node = world.nodes(1).await.remove(0);
    let web = world.ready("web", 2).await;
    assert_eq!(web.number("/ready_when/timeout_s"), 1200);
    let own = json!({ "name": "own", "source": { "image": "debian" }, "count": 1, "runtime": "none",
        "ready": { "timeout_s": 7 } });
    world.ends(&world.deploy(own).await.expect(202), "succeeded").await;
    assert_eq!(world.get("/v1/deployments/own").await.number("/ready_when/timeout_s"), 7);
    let many = json!({ "select": { "instances": ["own.0"] } });
    for (path, body, timeout_s, name) in [
        ("deployments/web/stop", json!({}), 90, "web.0"),
        ("instances/-/stop", many, 90, "own.0"),
        ("deployments/web/start", json!({}), 30, "web.0"),
        ("instances/web.1/stop", json!({ "timeout_s": 4 }), 4, "web.1"),
        ("instances/web.0/stop", json!({}), 90, "web.0"),
    ] {
        world.ends(&world.post(&format!("/v1/{path}"), body).await.expect(202), "succeeded").await;
        assert_eq!(node.assignment(name).expect("it is there").stop_timeout_s, timeout_s, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_how_often_power_had_to_be_cut() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 4).await;
    nodes[0].script(|script| script.cuts_power = true);
    let stop = world.post("/v1/deployments/web/stop", json!({})).await.expect(202);
    assert_eq!(world.ends(&stop, "succeeded").await.number("/result/power_cut"), 2);
    assert_eq!(world.get("/v1/deployments/web").await.text("/state"), "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_verb_changes_nothing() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    assert_eq!(world.post("/v1/instances/web.0/start", Value::Null).await.expect(200).text("/state"), "running");
    let stopping = world.post("/v1/instances/web.0/stop", json!({ "force": true })).await.expect(202);
    assert_eq!(stopping.text("/target/name"), "web.0");
    world.ends(&stopping, "succeeded").await;
    assert_eq!(state(&world, "web.0").await, "stopped");
    assert!(world.get("/v1/instances/web.0").await.body["ready_at"].is_null());
    world.post("/v1/instances/web.0/stop", Value::Null).await.expect(200);
    let wrong = world.post("/v1/instances/web.0/reboot", Value::Null).await.refused(409, "wrong_state");
    assert_eq!((wrong.text("/state"), &wrong.body["allowed"]), ("stopped", &json!(["running", "paused"])));
    let starting = world.post("/v1/deployments/web/start", Value::Null).await.expect(202);
    assert_eq!(starting.number("/progress/total"), 1, "the other one runs");
    world.ends(&starting, "succeeded").await;
    let reboot = world.post("/v1/deployments/web/reboot", Value::Null).await.expect(202);
    world.ends(&reboot, "succeeded").await;
    let stopping = world.post("/v1/deployments/web/stop", Value::Null).await.expect(202);
    world.ends(&stopping, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.text("/state"), "stopped");
    let stopped = world.get("/v1/deployments?state=stopped").await;
    assert_eq!(stopped.body["items"].as_array().unwrap().len(), 1);
    eventually("it to be counted", async || {
        (world.get("/v1/summary").await.body["deployments"]["stopped"] == 1).then_some(())
    })
    .await;
    world.post("/v1/instances/web.0/stop", json!({ "timeout_s": 99_999 })).await.refused(422, "invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_on_many_takes_one_selection() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(2).await;
    world.ready("web", 3).await;
    let on_many = async |verb: &str, select: Value| {
        world.post(&format!("/v1/instances/-/{verb}"), json!({ "select": select })).await
    };
    let stop = on_many("stop", json!({ "instances": ["web.0", "web.1"] })).await.expect(202);
    world.ends(&stop, "succeeded").await;
    assert_eq!(world.get("/v1/instances?state=stopped").await.body["items"].as_array().unwrap().len(), 2);
    world.call("PATCH", "/v1/instances/web.1", json!({ "labels": { "a": "b" } })).await.expect(200);
    let start = on_many("start", json!({ "label": "a=b" })).await.expect(202);
    world.ends(&start, "succeeded").await;
    assert_eq!(state(&world, "web.1").await, "running");
    let again = on_many("start", json!({ "label": "a=b" })).await.expect(202);
    world.ends(&again, "succeeded").await;
    on_many("stop", json!({})).await.refused(422, "invalid");
    on_many("stop", json!({ "label": "a=b", "deployment": "web" })).await.refused(422, "invalid");
    let missing = on_many("stop", json!({ "instances": ["web.0", "web.7"] })).await.refused(404, "not_found");
    assert_eq!(missing.text("/errors/0/pointer"), "/select/instances/1");
    on_many("stop", json!({ "label": "a=c" })).await.refused(404, "not_found");
    on_many("explode", json!({ "deployment": "web" })).await.refused(404, "no_such_path");
    on_many("migrate", json!({ "deployment": "web" })).await.refused(501, "not_built_yet");
    let gone = on_many("delete", json!({ "instances": ["web.0"] })).await.expect(202);
    world.ends(&gone, "succeeded").await;
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.number("/count"), web.number("/min_count")), (2, 2));
    let gone = on_many("delete", json!({ "deployment": "web" })).await.expect(202);
    world.ends(&gone, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_an_instance_lowers_count_and_is_one_operation() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    let _ = world.ready("web", 2).await;
    let id = world.get("/v1/instances/web.1").await.text("/id").to_owned();
    nodes[0].script(|s| s.mute = true);
    let first = world.delete("/v1/instances/web.1").await.expect(202);
    let second = world.delete(&format!("/v1/instances/{id}")).await.expect(202);
    assert_eq!(first.text("/id"), second.text("/id"));
    let stale = [("If-Match", "\"1\"")];
    let third = world.call_as(&world.token, "DELETE", "/v1/instances/web.1", Value::Null, &stale).await.expect(202);
    assert_eq!(first.text("/id"), third.text("/id"), "it is what was asked for, whatever changed since");
    world.delete("/v1/instances/web.1?dry_run=true").await.expect(200);
    world.delete("/v1/instances/web.7?dry_run=true").await.refused(404, "not_found");
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 1);
    nodes[0].script(|s| s.mute = false);
    world.ends(&first, "succeeded").await;
    world.delete(&format!("/v1/instances/{id}")).await.refused(404, "not_found");
    let shown = world.get("/v1/instances?deleted=true&state=deleted").await;
    assert_eq!(shown.text("/items/0/id"), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_instances_that_are_being_deleted_waits_for_all_of_them() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 4).await;
    let id = world.get("/v1/instances/web.0").await.text("/id").to_owned();
    world.call("PATCH", "/v1/instances/web.0", json!({ "labels": { "a": "b" } })).await.expect(200);
    nodes[0].script(|s| s.mute = true);
    let delete = async |select: Value| world.post("/v1/instances/-/delete", json!({ "select": select })).await;
    let first = delete(json!({ "instances": ["web.0", "web.1"] })).await.expect(202);
    // If all selected instances wait for one operation, the answer is that operation, however they are named.
    for select in [
        json!({ "instances": ["web.0", "web.1"] }),
        json!({ "instances": ["web.1"] }),
        json!({ "instances": [id] }),
        json!({ "label": "a=b" }),
    ] {
        assert_eq!(delete(select.clone()).await.expect(202).text("/id"), first.text("/id"), "{select}");
    }
    // Together with other instances: a new operation that waits for all of them.
    let second = delete(json!({ "instances": ["web.0", "web.2"] })).await.expect(202);
    assert_ne!(second.text("/id"), first.text("/id"));
    assert_eq!((second.text("/state"), second.number("/progress/total")), ("pending", 2));
    let third = delete(json!({ "instances": ["web.1", "web.2"] })).await.expect(202);
    assert_eq!((third.text("/state"), third.number("/progress/total")), ("pending", 2));
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 1, "each is wanted no more only once");
    let stop = json!({ "select": { "instances": ["web.0"] } });
    world.post("/v1/instances/-/stop", stop).await.refused(404, "not_found");
    nodes[0].script(|s| s.mute = false);
    world.ends(&third, "succeeded").await;
    world.ends(&second, "succeeded").await;
    world.ends(&first, "cancelled").await;
    delete(json!({ "instances": ["web.0"] })).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_fields_and_verbs_answer_501() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    for path in ["/v1/deployments/web/shelve", "/v1/deployments/web/unshelve", "/v1/instances/web.0/migrate"] {
        world.post(path, json!({})).await.refused(501, "not_built_yet");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_makes_its_instances_unknown_until_it_is_heard() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    let on_first = nodes[0].desired().assignments[0].name.clone();
    let other = nodes[1].desired().assignments[0].name.clone();
    clock.advance_ms(i64::try_from(SILENT_AFTER_S).unwrap() * 1000 + 1000);
    nodes[1].beat().await;
    let silent =
        eventually("silence to be noticed", async || (state(&world, &on_first).await == "unknown").then_some(()));
    silent.await;
    assert_eq!(state(&world, &other).await, "running");
    assert_eq!(world.get(&format!("/v1/instances/{on_first}")).await.text("/reason"), "node_silent");
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.text("/state"), web.number("/ready")), ("degraded", 1));
    world.post(&format!("/v1/instances/{on_first}/stop"), Value::Null).await.refused(409, "wrong_state");
    world.post("/v1/snapshots", json!({ "select": { "deployment": "web" } })).await.refused(409, "member_unknown");
    nodes[0].beat().await;
    eventually("it to be heard", async || (state(&world, &on_first).await == "running").then_some(())).await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/ready"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_older_generations_or_starts_or_other_nodes_are_ignored() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    let mine = nodes[0].desired().assignments[0].clone();
    let others = nodes[1].desired().assignments[0].clone();
    let desired = nodes[0].desired();
    let failed = report_of(&mine, Observed::Failed);
    let stale = [
        InstanceReport { generation: 0, ..failed.clone() },
        InstanceReport { boot: 0, ..failed.clone() },
        report_of(&others, Observed::Failed),
        InstanceReport { instance: muster_api::InstanceId::generate(), ..failed.clone() },
    ];
    let before = world.get(&format!("/v1/instances/{}", mine.name)).await.text("/etag").to_owned();
    for report in stale {
        assert_eq!(nodes[0].report(&desired, false, vec![report]).await.status, 204);
    }
    assert_eq!(world.get(&format!("/v1/instances/{}", mine.name)).await.text("/etag"), before);
    assert_eq!(world.get("/v1/deployments/web").await.text("/state"), "ready");
    // The same report again writes nothing.
    let position = place(&world, world.get("/v1/instances").await.text("/as_of"));
    let same = report_of(&mine, Observed::Running);
    let known = world.get(&format!("/v1/instances/{}", mine.name)).await;
    let at = |pointer: &str| serde_json::from_value(known.body.pointer(pointer).unwrap().clone()).unwrap();
    let same = InstanceReport {
        disk_at: at("/steps/disk_at"),
        started_at: at("/steps/started_at"),
        ready_at: at("/ready_at"),
        ..same
    };
    assert_eq!(nodes[0].report(&desired, false, vec![same]).await.status, 204);
    assert_eq!(place(&world, world.get("/v1/instances").await.text("/as_of")), position);
    // A report that is about this start counts.
    assert_eq!(nodes[0].report(&desired, false, vec![failed]).await.status, 204);
    assert_eq!(state(&world, &mine.name).await, "failed");
}

/// A node whose consoles have printed this text; and how often it was asked.
async fn node_with_console(world: &World) -> (Node, Arc<Mutex<String>>, Arc<AtomicU64>) {
    let (console, asked) = (Arc::new(Mutex::new("booting\n".to_owned())), Arc::new(AtomicU64::new(0)));
    let after = {
        let (console, asked) = (console.clone(), asked.clone());
        async move |Query(query): Query<BTreeMap<String, String>>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let text = console.lock().unwrap().clone();
            let from = query.get("place").map_or(0, |place| place.parse().unwrap());
            LogPart { place: text.len().to_string(), bytes: text.as_bytes()[from..].to_vec() }.encode()
        }
    };
    let routes = Router::new().route("/peer/v1/instances/{instance}/log/after", get(after));
    (world.node_with_peer_server("n0", routes).await, console, asked)
}

/// What came of a stream so far, once it is at least this long.
async fn read(stream: &mut BodyDataStream, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
        text += std::str::from_utf8(&next.expect("the stream goes on").unwrap()).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_is_followed_until_its_reader_or_the_token_or_the_instance_is_gone() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let (_node, console, asked) = node_with_console(&world).await;
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 2 });
    let operation = world.deploy(order).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let path = "/v1/instances/web.0/log?follow=true";
    let tenant = world.token(json!({ "role": "tenant", "name": "reader" })).await;
    let (mut theirs, mut ours) = (world.followed(&tenant, path).await, world.followed(&world.token, path).await);
    assert_eq!(read(&mut ours, 1).await, "booting\n");
    assert_eq!(read(&mut theirs, 1).await, "booting\n");
    let (begun, before) = (Instant::now(), asked.load(Ordering::Relaxed));
    console.lock().unwrap().push_str("login: ");
    assert_eq!(read(&mut ours, 1).await, "login: ", "what is new, and nothing twice");
    assert_eq!(read(&mut theirs, 1).await, "login: ");
    let looks = 2 * (u64::try_from(begun.elapsed().as_millis()).unwrap() / 500 + 1);
    assert!(asked.load(Ordering::Relaxed) - before <= looks, "no follower looks more often than every 500 ms");
    world.delete("/v1/tokens/reader").await.expect(204);
    let end = tokio::time::timeout(Duration::from_secs(30), theirs.next()).await.expect("in time");
    assert!(end.is_none(), "{end:?}");
    let gone = world.delete("/v1/instances/web.0").await.expect(202);
    world.ends(&gone, "succeeded").await;
    let end = tokio::time::timeout(Duration::from_secs(30), ours.next()).await.expect("in time");
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_instance_without_a_guest_is_refused_at_once() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let refused = world.get("/v1/instances/web.0/log").await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("runtime none"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_shows_the_conditions_that_its_node_reports_and_an_event_tells_of_each_change() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    nodes[0].script(|s| s.mute = true);
    let desired = nodes[0].desired();
    let known = world.get("/v1/instances/web.0").await;
    let at = |pointer: &str| serde_json::from_value(known.body.pointer(pointer).unwrap().clone()).unwrap();
    let lost = |conditions| InstanceReport {
        conditions,
        disk_at: at("/steps/disk_at"),
        started_at: at("/steps/started_at"),
        ready_at: at("/ready_at"),
        ..report_of(&desired.assignments[0], Observed::Running)
    };
    let condition = Condition { kind: ConditionKind::ObjectsLost, detail: "2 objects".to_owned() };
    for conditions in [vec![condition], Vec::new()] {
        let before = world.get("/v1/instances").await.text("/as_of").to_owned();
        nodes[0].report(&desired, false, vec![lost(conditions.clone())]).await;
        let shown = world.get("/v1/instances/web.0").await;
        assert_eq!(shown.body["conditions"], serde_json::to_value(&conditions).unwrap());
        assert_eq!((shown.text("/state"), shown.body["reason"].is_null()), ("running", true));
        assert_ne!(world.get("/v1/instances").await.text("/as_of"), before, "an event tells of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_copy_of_a_node_is_a_condition_of_the_instances_on_the_node() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let start = |run: RunId, follows: &[RunId], place: &str| {
        json!({
            "protocol": 1, "incarnation": nodes[0].desired().incarnation, "run": run, "follows": follows,
            "accepted": false, "place": place, "advertise": "10.0.0.9:7450",
        })
    };
    let [original, copy] = std::array::from_fn(|_| RunId::generate());
    nodes[0].call("POST", "runs", start(original, &[], "same")).await.expect(204);
    assert_eq!(world.get("/v1/instances/web.0").await.body["conditions"], json!([]));
    nodes[0].call("POST", "runs", start(copy, &[original], "adopted")).await.refused(409, "superseded");
    let shown = world.get("/v1/instances/web.0").await;
    assert_eq!(shown.text("/conditions/0/kind"), "identity_copied");
    assert!(!shown.text("/conditions/0/detail").contains("10.0.0.9"), "where the copy is, is for operators");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_report_without_a_disk_means_it_is_lost_and_can_be_started() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    nodes[0].script(|s| s.mute = true);
    let desired = nodes[0].desired();
    nodes[0].report(&desired, true, Vec::new()).await;
    let lost = world.get("/v1/instances/web.0").await;
    assert_eq!((lost.text("/state"), lost.text("/reason")), ("failed", "disk_lost"));
    nodes[0].script(|s| s.mute = false);
    let starting = world.post("/v1/instances/web.0/start", Value::Null).await.expect(202);
    world.ends(&starting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_then_events_after_as_of_misses_nothing_under_load() {
    // A follower lists once in the middle of the load and applies events; at the end it knows what a list says.
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(3).await;
    let load = async {
        for round in 0..3 {
            let name = format!("web{round}");
            let order = json!({ "name": name, "source": { "image": "debian" }, "count": 20, "runtime": "none" });
            let operation = world.deploy(order).await.expect(202);
            world.ends(&operation, "succeeded").await;
            let stop = world.post(&format!("/v1/deployments/{name}/stop"), Value::Null).await.expect(202);
            world.ends(&stop, "succeeded").await;
        }
        let gone = world.delete("/v1/deployments/web0").await.expect(202);
        world.ends(&gone, "succeeded").await;
    };
    let follower = async {
        // Other states are left out, because they may be over before they are compared.
        eventually("some load", async || {
            (!world.get("/v1/instances?limit=1").await.body["items"].as_array().unwrap().is_empty()).then_some(())
        })
        .await;
        let page = world.get("/v1/instances?limit=1000").await.expect(200);
        (states(&page.body), page.text("/as_of").to_owned())
    };
    let ((), (mut known, after)) = tokio::join!(load, follower);
    let last = world.get("/v1/instances?limit=1000").await.expect(200);
    let events = events(&world, &after, last.text("/as_of")).await;
    for event in events.iter().filter(|event| event["kind"] == "instance.state") {
        let (id, state) = (event["target"]["id"].as_str().unwrap(), event["data"]["state"].as_str().unwrap());
        known.insert(id.to_owned(), state.to_owned());
    }
    known.retain(|_, state| state != "deleted");
    assert_eq!(known, states(&last.body));
    assert_eq!(known.len(), 40);
}

fn states(page: &Value) -> BTreeMap<String, String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|i| (i["id"].as_str().unwrap().to_owned(), i["state"].as_str().unwrap().to_owned())).collect()
}

/// The number of a position, which only the cluster can read.
fn place(world: &World, position: &str) -> i64 {
    world.app.store.seal().open(position).unwrap().seq
}

/// The events after one position up to another, as the stream tells them.
async fn events(world: &World, after: &str, until: &str) -> Vec<Value> {
    use tower::ServiceExt as _;
    let router = muster_controller::http::routes(world.app.clone());
    let request = http::Request::builder()
        .uri(format!("/v1/events?after={after}"))
        .header("authorization", format!("Bearer {}", world.token))
        .body(Body::empty())
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut body, mut text, mut found) = (response.into_body(), String::new(), Vec::new());
    loop {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame());
        let frame = frame.await.expect("the stream goes on").unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap());
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let Some(data) = block.lines().find_map(|line| line.strip_prefix("data:")) else { continue };
            let event: Value = serde_json::from_str(data.trim()).unwrap();
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            found.push(event);
            if place(world, &id) >= place(world, until) {
                return found;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_an_instance_on_a_silent_node_can_be_repeated_until_it_is_done() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 3).await;
    let id = world.get("/v1/instances/web.0").await.text("/id").to_owned();
    nodes[0].script(|s| s.mute = true);

    let first = world.delete("/v1/instances/web.0").await.expect(202);
    for path in ["/v1/instances/web.0", &format!("/v1/instances/{id}")] {
        assert_eq!(world.delete(path).await.expect(202).text("/id"), first.text("/id"), "{path}");
    }
    clock.advance_ms(601_000);
    world.ends(&first, "failed").await;

    let second = world.delete("/v1/instances/web.0").await.expect(202);
    assert_ne!(second.text("/id"), first.text("/id"));
    // It lowers the count only once.
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 2);
    nodes[0].script(|s| s.mute = false);
    world.ends(&second, "succeeded").await;
    world.delete("/v1/instances/web.0").await.refused(404, "not_found");
    world.delete(&format!("/v1/instances/{id}")).await.refused(404, "not_found");
}
