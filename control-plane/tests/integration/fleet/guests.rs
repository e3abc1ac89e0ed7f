//! Guest agents: what they tell, snapshots of frozen file systems, commands in guests.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, routing::post};
use muster_api::{
    Reason,
    guest::{Guest, GuestFileSystem, GuestInterface, GuestOs},
    peer_protocol::{ExecAnswer, ExecEnded, ExecRequest},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, World, eventually};

fn guest() -> Guest {
    Guest {
        answers: true,
        agent_version: Some("7.2.11".to_owned()),
        os: Some(GuestOs { name: Some("Debian GNU/Linux 12".to_owned()), ..GuestOs::default() }),
        host_name: Some("web-0".to_owned()),
        interfaces: vec![GuestInterface {
            name: "eth0".to_owned(),
            mac: Some("52:00:00:01:00:05".parse().unwrap()),
            addresses: vec!["10.77.0.5".parse().unwrap()],
        }],
        file_systems: vec![GuestFileSystem {
            mount: "/".to_owned(),
            kind: "ext4".to_owned(),
            size_bytes: Some(1 << 30),
            used_bytes: Some(1 << 29),
        }],
    }
}

/// Two nodes with one guest each. Guest agents tell `told`.
async fn world(told: Option<Guest>) -> (World, Vec<Node>) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    for node in &nodes {
        node.script(|s| s.guest = told.clone());
    }
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 2 });
    world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
    (world, nodes)
}

fn frozen(name: &str) -> Value {
    json!({ "name": name, "select": { "deployment": "web" }, "consistency": "filesystem" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_agent_tells_is_shown_while_the_guest_runs() {
    let (world, nodes) = world(Some(guest())).await;
    let shown = world.get("/v1/instances/web.0").await.expect(200);
    assert_eq!(shown.body["guest"], serde_json::to_value(guest()).unwrap());
    assert!(world.get("/v1/instances").await.body["items"][0].get("guest").is_none(), "lists do without");
    let later = Guest { answers: false, host_name: None, ..guest() };
    for node in &nodes {
        node.script(|s| s.guest = Some(later.clone()));
        node.act().await;
    }
    let shown = world.get("/v1/instances/web.0").await;
    assert_eq!(shown.body["guest"], serde_json::to_value(&later).unwrap());
    let stop = world.post("/v1/instances/web.0/stop", Value::Null).await.expect(202);
    world.ends(&stop, "succeeded").await;
    assert!(world.get("/v1/instances/web.0").await.body.get("guest").is_none());
    assert!(world.get("/v1/instances/web.1").await.body.get("guest").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_file_systems_needs_a_guest_agent_in_each_guest_that_runs() {
    let (world, nodes) = world(None).await;
    let refused = world.post("/v1/snapshots", frozen("s1")).await.refused(409, "no_guest_agent");
    assert!(refused.text("/detail").contains("nor do those of 1 others"), "{}", refused.body);
    assert_eq!(refused.body["instance"], world.get("/v1/instances/web.0").await.body["id"]);
    for node in &nodes {
        node.script(|s| s.guest = Some(guest()));
        node.act().await;
    }
    world.ends(&world.post("/v1/snapshots", frozen("s1")).await.expect(202), "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/consistency"), "filesystem");
    // One that answers no more is as one that never did.
    nodes[1].script(|s| s.guest = Some(Guest { answers: false, ..guest() }));
    nodes[1].act().await;
    let refused = world.post("/v1/snapshots", frozen("s2")).await.refused(409, "no_guest_agent");
    let name = nodes[1].desired().assignments[0].name.clone();
    assert!(refused.text("/detail").contains(&name), "{}", refused.body);
    // Off, it needs none.
    world.ends(&world.post(&format!("/v1/instances/{name}/stop"), Value::Null).await.expect(202), "succeeded").await;
    world.ends(&world.post("/v1/snapshots", frozen("s2")).await.expect(202), "succeeded").await;
    // Nor does a disk without a guest.
    world.ready("files", 1).await;
    let files = json!({ "select": { "deployment": "files" }, "consistency": "filesystem" });
    world.ends(&world.post("/v1/snapshots", files).await.expect(202), "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_does_not_freeze_fails_its_snapshot_at_the_first_attempt() {
    let (world, nodes) = world(Some(guest())).await;
    for node in &nodes {
        node.script(|s| s.refuse_cuts = vec![Reason::FreezeFailed]);
    }
    let operation = world.post("/v1/snapshots", frozen("s1")).await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.text("/error/reason"), "freeze_failed");
    let attempts: usize = nodes.iter().map(|node| node.seen.lock().unwrap().coordinated.len()).sum();
    assert_eq!(attempts, 1);
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/reason"), "freeze_failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_knows_nothing_of_freezing_publishes_no_snapshot_of_file_systems() {
    let (world, nodes) = world(Some(guest())).await;
    for node in &nodes {
        node.script(|s| s.freezes = false);
    }
    let operation = world.post("/v1/snapshots", frozen("s1")).await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    assert!(failed.text("/error/detail").contains("too old to freeze"), "{}", failed.body);
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/reason"), "freeze_failed");
    // Other snapshots are as before.
    let crash = json!({ "name": "s2", "select": { "deployment": "web" } });
    world.ends(&world.post("/v1/snapshots", crash).await.expect(202), "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_guests_after_a_start_of_their_host_is_kept_and_told_to_nodes() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    for (name, given, kept) in [("web", json!("stay"), "stay"), ("db", Value::Null, "start")] {
        let order = json!({ "name": name, "source": { "image": "debian" }, "count": 1, "on_host_start": given });
        world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
        assert_eq!(world.get(&format!("/v1/deployments/{name}")).await.text("/on_host_start"), kept);
        let told = eventually("the assignment", async || nodes[0].assignment(&format!("{name}.0"))).await;
        assert_eq!(serde_json::to_value(told.on_host_start).unwrap(), kept);
    }
    let wrong = json!({ "name": "x", "source": { "image": "debian" }, "count": 1, "on_host_start": "dance" });
    world.deploy(wrong).await.refused(422, "invalid");
}

/// A node whose guests run `echo`, and answer other programs in other ways.
fn run(request: &ExecRequest) -> ExecAnswer {
    let ended = |exit_code, stdout: &str| ExecEnded {
        exit_code: Some(exit_code),
        signal: None,
        stdout_base64: stdout.to_owned(),
        stderr_base64: String::new(),
        truncated: false,
    };
    match &*request.command[0] {
        // "hello" in base64.
        "echo" => ExecAnswer::Ended(ended(0, "aGVsbG8=")),
        "bytes" => ExecAnswer::Ended(ended(3, "/wA=")),
        "sleep" => ExecAnswer::StillRuns,
        "silent" => ExecAnswer::NoGuestAgent("it is not connected".to_owned()),
        _ => ExecAnswer::Refused("Command guest-exec has been disabled".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_once_and_its_output_comes_back() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let asked: Arc<Mutex<Vec<ExecRequest>>> = Arc::default();
    let seen = asked.clone();
    let exec = async move |Json(request): Json<ExecRequest>| {
        let answer = run(&request);
        seen.lock().unwrap().push(request);
        Json(answer)
    };
    let _node = world.node_with_peer_server("n0", Router::new().route("/peer/v1/instances/{i}/exec", post(exec))).await;
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 1 });
    world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
    let path = "/v1/instances/web.0/exec";

    let body = json!({ "command": ["echo", "a secret"], "stdin": "in", "timeout_s": 5 });
    let key = [("idempotency-key", "k1")];
    let done = world.call_as(&world.token, "POST", path, body.clone(), &key).await.expect(200);
    assert_eq!((done.text("/stdout"), done.text("/encoding"), done.number("/exit_code")), ("hello", "text", 0));
    {
        let asked = asked.lock().unwrap();
        assert_eq!((asked.len(), asked[0].timeout_s, asked[0].stdin_base64.as_deref()), (1, 5, Some("aW4=")));
        assert_eq!(asked[0].command, ["echo", "a secret"]);
    }
    world.call_as(&world.token, "POST", path, body, &key).await.refused(422, "key_reused");
    assert_eq!(asked.lock().unwrap().len(), 1, "a repeat runs nothing");
    let json = [("accept", "application/json")];
    let events = world.call_as(&world.token, "GET", "/v1/events?limit=1000", Value::Null, &json).await.expect(200);
    let events = events.body["items"].as_array().unwrap().clone();
    let of_exec: Vec<&Value> = events.iter().filter(|event| event["kind"] == "instance.exec").collect();
    assert_eq!(of_exec.len(), 1, "{events:?}");
    assert_eq!(of_exec[0]["data"], json!({ "program": "echo" }), "arguments may be secrets");

    let exec = async |program: &str| world.post(path, json!({ "command": [program] })).await;
    let bytes = exec("bytes").await.expect(200);
    assert_eq!((bytes.text("/stdout"), bytes.text("/encoding"), bytes.number("/exit_code")), ("/wA=", "base64", 3));
    let late = exec("sleep").await.expect(200);
    assert_eq!((&late.body["timed_out"], &late.body["exit_code"]), (&json!(true), &Value::Null));
    exec("silent").await.refused(409, "no_guest_agent");
    let forbidden = exec("rm").await.refused(409, "guest_refused");
    assert!(forbidden.text("/detail").contains("qemu-ga.conf"), "{}", forbidden.body);
    let wrong = world.post(path, json!({ "command": [], "timeout_s": 301 })).await.refused(422, "invalid");
    assert_eq!(wrong.body["errors"].as_array().unwrap().len(), 2);

    let stranger = world.token(json!({ "role": "tenant", "project": "other" })).await;
    let body = json!({ "command": ["echo"] });
    world.call_as(&stranger, "POST", path, body.clone(), &[]).await.refused(404, "not_found");
    let stop = world.post("/v1/instances/web.0/stop", Value::Null).await.expect(202);
    world.ends(&stop, "succeeded").await;
    world.post(path, body.clone()).await.refused(409, "wrong_state");
    world.ready("files", 1).await;
    let refused = world.post("/v1/instances/files.0/exec", body).await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("without a guest"), "{}", refused.body);
}
