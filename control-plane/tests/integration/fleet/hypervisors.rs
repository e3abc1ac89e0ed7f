//! Deployments while the libvirt of nodes does not answer.

use std::sync::Arc;

use muster_api::Timestamp;
use serde_json::{Value, json};

use super::harness::{MIB, Node, Reply, World, eventually};
use crate::clock::ManualClock;

const SILENT: &str = "nodes cannot be used now because libvirt does not answer there: see that libvirtd runs";

async fn set_silent(nodes: &[Node], silent: bool) {
    for node in nodes {
        node.script(|s| s.hypervisor_silent = silent);
        node.beat().await;
    }
}

fn order(count: u64) -> Value {
    json!({ "name": "web", "source": { "image": "debian" }, "count": count, "deadline_s": 20 })
}

/// The operation, once it waits.
async fn waits(world: &World, operation: &Reply, token: &str) -> Reply {
    let path = format!("/v1/operations/{}", operation.text("/id"));
    eventually("the operation to wait", async || {
        let now = world.call_as(token, "GET", &path, Value::Null, &[]).await.expect(200);
        (now.body["waiting_on"] != json!([])).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_waits_for_a_libvirt_that_does_not_answer_and_says_so() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    set_silent(&nodes, true).await;
    let dry = json!({ "source": { "image": "debian" }, "count": 2, "dry_run": true });
    let dry = world.deploy(dry).await.expect(200);
    assert_eq!(
        dry.body["reasons"],
        json!([{ "reason": "hypervisor_silent", "count": 2, "detail": format!("2 {SILENT}") }])
    );
    let operation = world.deploy(order(2)).await.expect(202);
    let waiting = waits(&world, &operation, &world.token).await;
    let told: Vec<_> = waiting.body["waiting_on"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["what"].as_str().unwrap(), entry["node_name"].as_str()))
        .collect();
    let member = |n: u32| format!("web.{n}: pending (hypervisor_silent): {SILENT}");
    assert_eq!(
        told,
        [
            ("libvirt does not answer", Some("n0")),
            ("libvirt does not answer", Some("n1")),
            (&*member(0), None),
            (&*member(1), None),
        ]
    );
    let tenant = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let seen = waits(&world, &operation, &tenant).await.body["waiting_on"].to_string();
    assert_eq!((seen.matches("libvirt does not answer\"").count(), seen.matches("node").count()), (1, 2), "{seen}");
    set_silent(&nodes[..1], false).await;
    world.ends(&operation, "succeeded").await;
    for instance in world.get("/v1/instances").await.body["items"].as_array().unwrap() {
        assert_eq!((&instance["node"], &instance["reason"]), (&json!(nodes[0].id), &Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libvirt_that_stays_silent_fails_the_deployment_at_its_deadline_with_that_reason() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_760_000_000_000_000)));
    let world = World::with_clock(clock.clone()).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    set_silent(&nodes, true).await;
    let operation = world.deploy(order(1)).await.expect(202);
    waits(&world, &operation, &world.token).await;
    clock.advance_ms(21_000);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.body["error"]["reasons"], json!([{ "reason": "not_started_in_time", "count": 1 }]));
    assert!(failed.text("/error/detail").contains(SILENT), "{:#}", failed.body);
    assert!(world.get("/v1/instances/web.0").await.text("/detail").ends_with(SILENT));
    set_silent(&nodes, false).await;
    let retried = world.post("/v1/deployments/web/retry", Value::Null).await.expect(202);
    world.ends(&retried, "succeeded").await;
    // A scale waits as well, and what no libvirt could help is refused at once.
    set_silent(&nodes, true).await;
    let scaled = world.post("/v1/deployments/web/scale", json!({ "count": 2 })).await.expect(202);
    waits(&world, &scaled, &world.token).await;
    set_silent(&nodes, false).await;
    world.ends(&scaled, "succeeded").await;
    set_silent(&nodes, true).await;
    let full = world.post("/v1/deployments/web/scale", json!({ "count": 900 })).await.refused(507, "no_capacity");
    assert_eq!(
        full.body["reasons"],
        json!([{ "reason": "hypervisor_silent", "count": 2, "detail": format!("2 {SILENT}") }])
    );
    assert!(full.text("/detail").starts_with("0 of 898 members fit; 2 nodes cannot be used now"), "{full:?}");
}
