//! `/v1/deployments`

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use muster_api::{Timestamp, deployment::OnReadyTimeout, node_protocol::Offer};
use muster_controller::{
    domain,
    store::{StoreError, column, deployments, instances, promises},
};
use serde_json::{Value, json};

use super::harness::{MIB, World, eventually};
use crate::clock::ManualClock;

fn order(name: &str, count: i64) -> Value {
    json!({ "name": name, "source": { "image": "debian" }, "count": count, "runtime": "none" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_members_on_three_nodes_are_ready_within_five_seconds() {
    let world = World::new().await;
    world.image("debian", 100 * MIB).await;
    let _nodes = world.nodes(3).await;
    let begun = Instant::now();
    let operation = world.deploy(order("web", 100)).await.expect(202);
    assert_eq!(operation.headers["location"], format!("/v1/operations/{}", operation.text("/id")));
    let done = world.ends(&operation, "succeeded").await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");
    assert_eq!((done.number("/progress/done"), done.number("/progress/total")), (100, 100));
    let web = world.get("/v1/deployments/web").await.expect(200);
    assert_eq!((web.text("/state"), web.number("/ready"), web.number("/counts/running")), ("ready", 100, 100));
    assert!(web.number("/timing/ready/p99_ms") < 5000);
    assert_eq!(web.body["timing"]["ready"]["slowest"].as_array().unwrap().len(), 3);
    let page = world.get("/v1/instances?deployment=web&limit=60").await.expect(200);
    assert_eq!(page.body["items"].as_array().unwrap().len(), 60);
    let rest = world.get(&format!("/v1/instances?deployment=web&page_token={}", page.text("/next_page_token"))).await;
    let all = page.body["items"].as_array().unwrap().iter().chain(rest.body["items"].as_array().unwrap());
    let mut per_node: BTreeMap<String, u32> = BTreeMap::new();
    for (n, instance) in all.enumerate() {
        assert_eq!(instance["name"], format!("web.{n}"));
        assert_eq!(instance["host_name"], format!("web-{n}"));
        *per_node.entry(instance["node"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(per_node.into_values().collect::<BTreeSet<_>>(), BTreeSet::from([33, 34]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_gets_a_clear_error_and_costs_nothing() {
    let world = World::new().await;
    world.image("debian", 100 * MIB).await;
    let _nodes = world.nodes(2).await;
    world.deploy(json!("{not json")).await.refused(400, "not_json");
    let source = json!({ "image": "debian" });
    for (body, pointer) in [
        (json!({ "source": source, "count": 0 }), "/count"),
        (json!({ "source": source, "count": -1 }), "/count"),
        (json!({ "source": source, "count": 1_000_000 }), "/count"),
        (json!({ "source": source }), "/count"),
        (json!({ "count": 1 }), "/source"),
        (json!({ "source": source, "count": 1, "colour": "red" }), "/colour"),
        (json!({ "source": source, "count": "four" }), "/count"),
        (json!({ "source": source, "count": 1, "name": "Web" }), "/name"),
        (json!({ "source": source, "count": 1, "disk_bytes": 99 * MIB }), "/disk_bytes"),
        (json!({ "source": source, "count": 1, "runtime": "none", "ready": { "probe": "console" } }), "/ready/probe"),
        (json!({ "source": source, "count": 2, "min_count": 3 }), "/min_count"),
    ] {
        let reply = world.deploy(body.clone()).await.refused(422, "invalid");
        assert_eq!(reply.text("/errors/0/pointer"), pointer, "{body}");
    }
    let unknown = world.deploy(json!({ "source": { "image": "windows" }, "count": 1 })).await.refused(404, "not_found");
    assert_eq!(unknown.text("/errors/0/pointer"), "/source/image");
    let unknown = world.deploy(json!({ "source": { "image": "debian", "version": 7 }, "count": 1 })).await;
    assert_eq!(unknown.refused(404, "not_found").text("/errors/0/pointer"), "/source/version");
    let unknown = world
        .deploy(json!({ "source": source, "count": 1, "placement": { "nodes": ["nowhere"] } }))
        .await
        .refused(404, "not_found");
    assert_eq!(unknown.text("/errors/0/pointer"), "/placement/nodes/0");
    for field in ["instance_type", "on_node_loss"] {
        world.deploy(json!({ "source": source, "count": 1, field: "x" })).await.refused(501, "not_built_yet");
    }
    let full = world.deploy(json!({ "source": source, "count": 1, "memory_bytes": 1_u64 << 40 })).await;
    let full = full.refused(507, "no_capacity");
    let said = "2 nodes have too little free memory: ask for less, delete instances, or add nodes";
    assert_eq!(full.body["reasons"], json!([{ "reason": "memory", "count": 2, "detail": said }]));
    assert_eq!(full.body["nodes"].as_array().unwrap().len(), 2, "operators see the nodes");
    for path in ["/v1/deployments/web", "/v1/deployments/00000000-0000-7000-8000-000000000000", "/v1/instances/web.0"] {
        world.get(path).await.refused(404, "not_found");
    }
    assert_eq!(world.get("/v1/deployments").await.body["items"], json!([]));
    assert_eq!(world.get("/v1/operations").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_places_and_refusals_and_writes_nothing() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.post(&format!("/v1/nodes/{}/cordon", nodes[1].id), Value::Null).await.expect(200);
    let reply = world
        .deploy(json!({ "source": { "image": "debian" }, "count": 10, "memory_bytes": 1024 * MIB, "dry_run": true }))
        .await
        .expect(200);
    assert_eq!((reply.number("/placed"), reply.number("/unplaced")), (4, 6));
    assert_eq!(reply.body["nodes"], json!([{ "node": nodes[0].id, "node_name": "n0", "count": 4 }]));
    let cordoned = "1 node is cordoned: uncordon nodes, or add some";
    let memory = "1 node has too little free memory: ask for less, delete instances, or add nodes";
    assert_eq!(
        reply.body["reasons"],
        json!([{ "reason": "cordoned", "count": 1, "detail": cordoned },
            { "reason": "memory", "count": 1, "detail": memory }])
    );
    assert_eq!(world.get("/v1/deployments").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_ten_times_in_parallel_makes_one_deployment() {
    let world = Arc::new(World::new().await);
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    let key = [("Idempotency-Key", "k-1")];
    let calls = (0..10).map(|_| {
        let world = world.clone();
        async move { world.call_as(&world.token, "POST", "/v1/deployments", order("web", 3), &key).await.expect(202) }
    });
    let replies = futures::future::join_all(calls).await;
    let ids: BTreeSet<&str> = replies.iter().map(|reply| reply.text("/id")).collect();
    assert_eq!(ids.len(), 1);
    let replayed = replies.iter().filter(|reply| reply.headers.contains_key("idempotent-replay")).count();
    assert_eq!(replayed, 9);
    assert_eq!(world.get("/v1/deployments").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/instances").await.body["items"].as_array().unwrap().len(), 3);
    let other = world.call_as(&world.token, "POST", "/v1/deployments", order("web", 4), &key).await;
    other.refused(422, "key_reused");
    let taken = world.deploy(order("web", 3)).await.refused(409, "name_taken");
    assert_eq!(taken.text("/existing"), world.get("/v1/deployments/web").await.text("/id"));
    // A refusal is not remembered.
    let key = [("Idempotency-Key", "k-2")];
    world.call_as(&world.token, "POST", "/v1/deployments", order("web", 1), &key).await.refused(409, "name_taken");
    let fresh = world.call_as(&world.token, "POST", "/v1/deployments", order("db", 1), &key).await.expect(202);
    world.ends(&fresh, "succeeded").await;
    let again = world.call_as(&world.token, "POST", "/v1/deployments", order("db", 1), &key).await.expect(202);
    assert_eq!(again.text("/state"), "succeeded", "its operation as it is now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_twice_is_one_operation_and_then_nothing() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    let id = world.ready("web", 4).await.text("/id").to_owned();
    nodes[0].script(|s| s.mute = true);
    let first = world.delete("/v1/deployments/web").await.expect(202);
    for path in ["/v1/deployments/web".to_owned(), format!("/v1/deployments/{id}")] {
        assert_eq!(world.delete(&path).await.expect(202).text("/id"), first.text("/id"));
    }
    let stale = [("If-Match", "\"1\"")];
    let stale = world.call_as(&world.token, "DELETE", "/v1/deployments/web", Value::Null, &stale).await.expect(202);
    assert_eq!(stale.text("/id"), first.text("/id"));
    world.delete("/v1/deployments/web?dry_run=true").await.expect(200);
    world.delete("/v1/deployments/bew?dry_run=true").await.refused(404, "not_found");
    let clear = json!({ "select": { "deployment": "web" } });
    let clear = world.post("/v1/instances/-/delete", clear).await.expect(202);
    assert_eq!(clear.text("/id"), first.text("/id"), "its members go already");
    assert_eq!(world.get(&format!("/v1/deployments/{id}")).await.text("/state"), "deleting");
    world.get("/v1/deployments/web").await.refused(404, "not_found");
    // The name is free at once. The new member goes to the node that answers, whichever has fewer instances now.
    let mut anew = order("web", 1);
    anew["placement"] = json!({ "nodes": [nodes[1].id] });
    let again = world.deploy(anew).await.expect(202);
    world.ends(&again, "succeeded").await;
    nodes[0].script(|s| s.mute = false);
    world.ends(&first, "succeeded").await;
    world.delete(&format!("/v1/deployments/{id}")).await.refused(404, "not_found");
    let shown = world.get("/v1/deployments?deleted=true").await;
    assert_eq!(shown.text("/items/0/state"), "deleted");
    assert_eq!(world.get("/v1/instances?deployment=web").await.body["items"].as_array().unwrap().len(), 1);
    assert!(nodes.iter().all(|node| node.assignment("web.3").is_none()), "nothing is assigned any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_during_a_deployment_cancels_it() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[1].script(|s| s.stuck = ["web.0", "web.1", "web.2", "web.3"].map(str::to_owned).into());
    let deploying = world.deploy(order("web", 4)).await.expect(202);
    eventually("half of it to be ready", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 2).then_some(())
    })
    .await;
    let busy = world.post("/v1/deployments/web/stop", Value::Null).await.refused(409, "busy");
    assert_eq!(busy.text("/operation"), deploying.text("/id"));
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&deploying, "cancelled").await;
    world.ends(&deleting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_keeps_the_ready_members_and_count_follows() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[1].script(|s| s.stuck = ["web.0", "web.1", "web.2", "web.3"].map(str::to_owned).into());
    let deploying = world.deploy(order("web", 4)).await.expect(202);
    eventually("half of it to be ready", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 2).then_some(())
    })
    .await;
    world.post(&format!("/v1/operations/{}/cancel", deploying.text("/id")), Value::Null).await.expect(202);
    world.ends(&deploying, "cancelled").await;
    let web = eventually("the others to go", async || {
        let web = world.get("/v1/deployments/web").await;
        (web.text("/state") == "ready").then_some(web)
    })
    .await;
    assert_eq!((web.number("/count"), web.number("/ready"), web.number("/min_count")), (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_whose_work_shares_a_commit_never_get_the_same_room() {
    let world = Arc::new(World::new().await);
    world.image("debian", MIB).await;
    let _node = world.node("small", Offer { cpus: 5, memory_bytes: 4096 * MIB }).await;
    let body = json!({ "source": { "image": "debian" }, "count": 1, "cpus": 1, "memory_bytes": 64 * MIB });
    let calls = (0..24).map(|_| {
        let (world, body) = (world.clone(), body.clone());
        async move { world.deploy(body).await }
    });
    let replies = futures::future::join_all(calls).await;
    let accepted = replies.iter().filter(|reply| reply.status == 202).count();
    assert_eq!(accepted, 5, "the node has room for five");
    for reply in replies.into_iter().filter(|reply| reply.status != 202) {
        reply.refused(507, "no_capacity");
    }
    let (kept, counted) = promised(&world).await;
    assert_eq!(kept, counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_get_at_least_the_memory_and_the_disk_that_their_image_needs() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    let needs = json!({ "min_memory_bytes": 1024 * MIB, "min_disk_bytes": 3 * MIB });
    world.call("PATCH", "/v1/images/debian", needs).await.expect(200);
    for (name, source) in [("a", json!({ "image": "debian" })), ("b", json!({ "version": version }))] {
        let body = json!({ "name": name, "source": source, "count": 1 });
        world.deploy(body.clone()).await.expect(202);
        let made = world.get(&format!("/v1/deployments/{name}")).await;
        assert_eq!((made.number("/memory_bytes"), made.number("/disk_bytes")), (1024 * MIB, 3 * MIB));
        let member = world.get(&format!("/v1/instances/{name}.0")).await;
        assert_eq!(member.number("/disks/0/size_bytes"), 3 * MIB);
        let mut less = body;
        (less["memory_bytes"], less["name"]) = (json!(512 * MIB), json!("less"));
        let refused = world.deploy(less.clone()).await.expect(422);
        assert_eq!(refused.text("/errors/0/detail"), "at least 1 GiB, what the image needs; got 512 MiB");
        // A disk file without a guest needs no memory.
        (less["runtime"], less["disk_bytes"]) = (json!("none"), json!(2 * MIB));
        let refused = world.deploy(less).await.expect(422);
        assert_eq!(refused.text("/errors/0/detail"), "at least 3 MiB, what the image needs; got 2 MiB");
    }
    let more = json!({ "name": "c", "source": { "image": "debian" }, "count": 1, "memory_bytes": 2048 * MIB, "disk_bytes": 8 * MIB });
    world.deploy(more).await.expect(202);
    assert_eq!(world.get("/v1/deployments/c").await.number("/disk_bytes"), 8 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_count_that_fits_starts_and_the_rest_is_failed_until_there_is_room() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _small = world.node("small", Offer { cpus: 8, memory_bytes: 1024 * MIB }).await;
    let body = json!({ "name": "web", "source": { "image": "debian" }, "count": 4, "memory_bytes": 512 * MIB });
    let reply = world.deploy(body.clone()).await.refused(507, "no_capacity");
    let said = "1 node has too little free memory: ask for less, delete instances, or add nodes";
    assert_eq!(reply.body["reasons"], json!([{ "reason": "memory", "count": 1, "detail": said }]));
    let mut some = body;
    some["min_count"] = json!(2);
    let operation = world.deploy(some).await.expect(202);
    let done = world.ends(&operation, "succeeded").await;
    assert_eq!((done.number("/progress/done"), done.number("/progress/failed")), (2, 2));
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.text("/state"), web.number("/counts/failed")), ("degraded", 2));
    let failed = world.get("/v1/instances?state=failed").await;
    assert_eq!(failed.text("/items/0/reason"), "no_capacity");
    let _more = world.node("more", Offer { cpus: 8, memory_bytes: 1024 * MIB }).await;
    let retried = world.post("/v1/deployments/web/retry", Value::Null).await.expect(202);
    world.ends(&retried, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/ready"), 4);
    assert_eq!(world.post("/v1/deployments/web/retry", Value::Null).await.expect(200).text("/state"), "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_start_is_tried_elsewhere() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[0].script(|s| s.fails = true);
    let operation = world.deploy(order("web", 2)).await.expect(202);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.body["error"]["reasons"], json!([{ "reason": "start_failed", "count": 1 }]));
    world.post(&format!("/v1/nodes/{}/cordon", nodes[0].id), Value::Null).await.expect(200);
    let retried = world.post("/v1/deployments/web/retry", Value::Null).await.expect(202);
    world.ends(&retried, "succeeded").await;
    let items = world.get("/v1/instances").await;
    for instance in items.body["items"].as_array().unwrap() {
        assert_eq!(instance["node"], json!(nodes[1].id));
    }
    let moved = items.body["items"].as_array().unwrap().iter().find(|i| i["generation"] == 2);
    assert!(moved.is_some(), "another place is another generation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale_takes_the_highest_numbers_and_never_uses_one_twice() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(2).await;
    world.ready("web", 3).await;
    let names = async || {
        let page = world.get("/v1/instances?deployment=web").await;
        page.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let scale = async |body: Value| {
        let operation = world.post("/v1/deployments/web/scale", body).await.expect(202);
        world.ends(&operation, "succeeded").await;
    };
    scale(json!({ "count": 1 })).await;
    assert_eq!(names().await, ["web.0"]);
    scale(json!({ "count": 3 })).await;
    assert_eq!(names().await, ["web.0", "web.3", "web.4"]);
    scale(json!({ "count": 2, "remove": ["web.3"] })).await;
    assert_eq!(names().await, ["web.0", "web.4"]);
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.number("/count"), web.number("/min_count")), (2, 2));
    world.post("/v1/deployments/web/scale", json!({ "count": 2 })).await.expect(200);
    let wrong = world.post("/v1/deployments/web/scale", json!({ "count": 2, "remove": ["web.0"] })).await;
    assert_eq!(wrong.refused(422, "invalid").text("/errors/0/pointer"), "/remove");
    let wrong = world.post("/v1/deployments/web/scale", json!({ "count": 1, "remove": ["web.9"] })).await;
    assert_eq!(wrong.refused(404, "not_found").text("/errors/0/pointer"), "/remove/0");
    world.post("/v1/deployments/web/scale", json!({ "count": 0 })).await.refused(422, "invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_starts_delays_no_other_and_fails_at_the_deadline() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[1].script(|s| s.mute = true);
    let operation = world
        .deploy(
            json!({ "name": "web", "source": { "image": "debian" }, "count": 4, "runtime": "none", "deadline_s": 20 }),
        )
        .await
        .expect(202);
    eventually("the others to be ready", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 2).then_some(())
    })
    .await;
    let running = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
    assert_eq!(running.text("/state"), "running");
    clock.advance_ms(21_000);
    let failed = world.ends(&operation, "failed").await;
    assert_eq!(failed.body["error"]["reasons"], json!([{ "reason": "not_started_in_time", "count": 2 }]));
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.number("/counts/failed"), web.number("/counts/running")), (2, 2));
    // Its node is told to clean up, and what it says then changes nothing.
    nodes[1].script(|s| s.mute = false);
    eventually("the node to be told", async || {
        let told = nodes[1].desired().assignments;
        told.iter().all(|a| a.wanted == muster_api::node_protocol::Wanted::Stopped).then_some(())
    })
    .await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/counts/failed"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_its_own_and_no_nodes() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let own = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let other = world.token(json!({ "role": "tenant", "project": "other" })).await;
    let shown = world.call_as(&own, "GET", "/v1/instances/web.0", Value::Null, &[]).await.expect(200);
    for field in ["node", "node_name", "generation"] {
        assert!(shown.body.get(field).is_none(), "{field}");
    }
    assert!(shown.body["disks"][0].get("path").is_none());
    let id = shown.text("/id");
    for path in ["/v1/instances/web.0".to_owned(), format!("/v1/instances/{id}"), "/v1/deployments/web".to_owned()] {
        world.call_as(&other, "GET", &path, Value::Null, &[]).await.refused(404, "not_found");
        world.call_as(&other, "DELETE", &path, Value::Null, &[]).await.refused(404, "not_found");
    }
    let page = world.call_as(&other, "GET", "/v1/instances", Value::Null, &[]).await.expect(200);
    assert_eq!(page.body["items"], json!([]));
    let body = json!({ "source": { "image": "debian" }, "count": 1, "placement": { "nodes": [nodes[0].id] } });
    world.call_as(&own, "POST", "/v1/deployments", body, &[]).await.refused(403, "forbidden");
    let full = json!({ "source": { "image": "debian" }, "count": 1, "memory_bytes": 1_u64 << 40 });
    let full = world.call_as(&own, "POST", "/v1/deployments", full, &[]).await.refused(507, "no_capacity");
    assert!(full.body.get("nodes").is_none());
    world.call_as("mst1_nonsense", "GET", "/v1/deployments", Value::Null, &[]).await.refused(401, "unauthenticated");
}

const FULL: &str = "nodes have as many members as one node may have: allow more per node, or add nodes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_learns_neither_how_many_nodes_there_are_nor_how_full_they_are() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(3).await;
    let own = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let order = |count: u64, min_count: u64, memory: u64, dry: bool| {
        json!({ "name": "web", "source": { "image": "debian" }, "count": count, "min_count": min_count,
            "memory_bytes": memory * MIB, "placement": { "max_per_node": 1 }, "dry_run": dry })
    };
    let ask = async |token: &str, body: Value| world.call_as(token, "POST", "/v1/deployments", body, &[]).await;
    // Three of 50 would fit, one per node. Operators are told so.
    let told = ask(&world.token, order(50, 50, 512, true)).await.expect(200);
    assert_eq!((told.number("/placed"), told.body["reasons"][0]["count"].as_u64()), (3, Some(3)));
    // A tenant is told what would happen: all start, at least min_count, or none.
    for (count, min_count, placed) in [(50, 50, 0), (50, 1, 1), (2, 1, 2)] {
        let told = ask(&own, order(count, min_count, 512, true)).await.expect(200);
        assert_eq!((told.number("/placed"), told.number("/unplaced")), (placed, count - placed), "{:#}", told.body);
        let reasons = if placed == count {
            json!([])
        } else {
            json!([{ "reason": "max_per_node", "count": count - placed, "detail": FULL }])
        };
        assert_eq!((&told.body["nodes"], &told.body["reasons"]), (&json!([]), &reasons));
    }
    for (memory, reason) in [(512, "max_per_node"), (1 << 20, "memory")] {
        let refused = ask(&own, order(50, 50, memory, false)).await.refused(507, "no_capacity");
        let told = &refused.body["reasons"];
        assert_eq!((told[0]["reason"].as_str(), told[0]["count"].as_u64()), (Some(reason), Some(50)), "{told}");
        assert!(!told.to_string().contains('3') && told.as_array().unwrap().len() == 1, "{told}");
        assert!(!refused.text("/detail").contains('3') && refused.body.get("nodes").is_none(), "{:#}", refused.body);
    }
    // What is stored with instances and operations has no number of nodes either.
    let operation = ask(&own, order(5, 1, 512, false)).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let failed = world.call_as(&own, "GET", "/v1/instances?state=failed", Value::Null, &[]).await;
    let detail = failed.text("/items/0/detail");
    assert_eq!(detail, FULL);
    let scale = json!({ "count": 60 });
    let refused =
        world.call_as(&own, "POST", "/v1/deployments/web/scale", scale, &[]).await.refused(507, "no_capacity");
    assert!(!refused.text("/detail").contains('3'), "{:#}", refused.body);
}

/// What the members of a deployment add up to, counted now, as the answer shows it.
async fn recount(world: &World, name: &str) -> (Value, Value) {
    let read = world.app.store.read("test", async |tx| {
        let row = deployments::by_name(tx, "default", name).await?.expect("it is there");
        let tally = instances::tallies(tx, &[row.id]).await?.remove(&row.id).unwrap_or_default();
        let timing = domain::deployment::timing(&instances::ways(tx, row.id).await?);
        let (fetched, local) = instances::bytes(tx, row.id).await?;
        let counted = json!([tally.counts, tally.ready, tally.state()]);
        Ok::<_, StoreError>((counted, json!([timing, fetched, local])))
    });
    read.await.expect("reads")
}

/// How many instances each node has promised room to, as it is kept and counted now.
async fn promised(world: &World) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let read = world.app.store.read("test", async |tx| {
        let kept = promises::by_node(tx).await?;
        let kept = kept.into_iter().map(|(node, promised)| (node.to_string(), promised.instances)).collect();
        let sql = "SELECT node, COUNT(*) AS n FROM instances WHERE node IS NOT NULL GROUP BY node";
        let rows = sqlx::query(sql).fetch_all(tx.conn()).await?;
        let mut counted = BTreeMap::new();
        for row in &rows {
            counted.insert(column::read::<String>(row, "node")?, column::read::<u64>(row, "n")?);
        }
        Ok::<_, StoreError>((kept, counted))
    });
    read.await.expect("reads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counts_shown_are_those_of_a_recount_after_any_change() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 3).await;
    let mut random = blake3::Hasher::new().update(b"the_counts_shown").finalize_xof();
    let mut next = |below: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    for step in 0..60 {
        let node = &nodes[usize::from(next(2) == 1)];
        let did = match next(9) {
            0 => world.post("/v1/deployments/web/scale", json!({ "count": 1 + next(6) })).await,
            1 => world.post("/v1/deployments/web/stop", json!({ "force": true })).await,
            2 => world.post("/v1/deployments/web/start", Value::Null).await,
            3 => world.post("/v1/deployments/web/retry", Value::Null).await,
            4 => world.delete(&format!("/v1/instances/web.{}", next(8))).await,
            5 => world.post("/v1/deployments/web/reboot", Value::Null).await,
            6 => {
                let fails = next(2) == 1;
                node.script(|script| script.fails = fails);
                world.get("/v1/summary").await
            }
            7 => {
                let dirty = next(1 << 20);
                node.script(|script| script.dirty_bytes = dirty);
                node.act().await;
                world.get("/v1/summary").await
            }
            _ => {
                let verb = if next(2) == 1 { "cordon" } else { "uncordon" };
                world.post(&format!("/v1/nodes/{}/{verb}", node.id), Value::Null).await
            }
        };
        if did.status == 202 && next(3) > 0 {
            eventually("the operation to end", async || {
                let path = format!("/v1/operations/{}?wait=2s", did.text("/id"));
                (!world.get(&path).await.body["finished_at"].is_null()).then_some(())
            })
            .await;
        }
        // What is counted between two equal recounts is what was shown in between: nothing may be older.
        eventually("two equal recounts", async || {
            let before = recount(&world, "web").await;
            let shown = world.get("/v1/deployments/web").await.expect(200).body;
            let listed = world.get("/v1/deployments").await.expect(200).body["items"][0].clone();
            if recount(&world, "web").await != before {
                return None;
            }
            let counted = |body: &Value| json!([body["counts"], body["ready"], body["state"]]);
            assert_eq!((counted(&shown), counted(&listed)), (before.0.clone(), before.0.clone()), "step {step}");
            let bytes = json!([shown["timing"], shown["fetched_bytes"], shown["local_bytes"]]);
            assert_eq!(bytes, before.1, "step {step}");
            let (kept, counted) = promised(&world).await;
            assert_eq!(kept, counted, "step {step}");
            Some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_patched_with_if_match() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let etag = world.get("/v1/deployments/web").await.text("/etag").to_owned();
    let patch = json!({ "labels": { "tier": "front" } });
    let headers = [("If-Match", etag.as_str())];
    let path = "/v1/deployments/web";
    let patched = world.call_as(&world.token, "PATCH", path, patch.clone(), &headers).await.expect(200);
    assert_eq!(patched.body["labels"], json!({ "tier": "front" }));
    let other = json!({ "labels": {} });
    world.call_as(&world.token, "PATCH", path, other, &headers).await.refused(412, "precondition_failed");
    world.call("PATCH", "/v1/instances/web.0", patch).await.expect(200);
    for (query, found) in [("label=tier=front", 1), ("label=tier=fron", 0), ("label=tier=front&label=tier=x", 1)] {
        let page = world.get(&format!("/v1/instances?{query}")).await.expect(200);
        assert_eq!(page.body["items"].as_array().unwrap().len(), found, "{query}");
        let page = world.get(&format!("/v1/deployments?{query}")).await.expect(200);
        assert_eq!(page.body["items"].as_array().unwrap().len(), found, "{query}");
    }
    assert_eq!(world.get("/v1/deployments?state=ready").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/deployments?state=degraded").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_of_a_deployment_on_a_silent_node_can_be_repeated_until_it_is_done() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    let web = world.ready("web", 2).await;
    let by_id = format!("/v1/deployments/{}", web.text("/id"));
    nodes[0].script(|s| s.mute = true);

    let first = world.delete("/v1/deployments/web").await.expect(202);
    let again = world.delete("/v1/deployments/web").await.expect(202);
    assert_eq!(again.text("/id"), first.text("/id"));
    clock.advance_ms(601_000);
    world.ends(&first, "failed").await;
    assert_eq!(world.get(&by_id).await.expect(200).text("/state"), "deleting");

    let second = world.delete("/v1/deployments/web").await.expect(202);
    assert_ne!(second.text("/id"), first.text("/id"));
    assert_eq!((second.text("/kind"), second.number("/progress/total")), ("deployment.delete", 2));
    assert_eq!(world.delete(&by_id).await.expect(202).text("/id"), second.text("/id"));
    nodes[0].script(|s| s.mute = false);
    world.ends(&second, "succeeded").await;
    eventually("the deployment to be gone", async || (world.get(&by_id).await.status == 404).then_some(())).await;
    world.delete(&by_id).await.refused(404, "not_found");
    world.delete("/v1/deployments/web").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_members_are_one_transaction() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(4).await;
    nodes.iter().for_each(|node| node.script(|s| s.mute = true));
    let begun = Instant::now();
    let operation = world.deploy(order("web", 10_000)).await.expect(202);
    println!("POST of 10000 members took {:?}", begun.elapsed());
    let web = world.get("/v1/deployments/web").await.expect(200);
    assert_eq!(web.number("/counts/starting"), 10_000);
    println!("GET after {:?}", begun.elapsed());
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    println!("DELETE after {:?}", begun.elapsed());
    world.ends(&operation, "cancelled").await;
    nodes.iter().for_each(|node| node.script(|s| s.mute = false));
    world.ends(&deleting, "succeeded").await;
    println!("10000 members came and went in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_ready_in_time_runs_on_and_a_retry_waits_for_it_with_new_limits() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    nodes[0].script(|s| (s.slow, s.gave_up) = (["web.1".to_owned()].into(), true));
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 2, "ready": { "probe": "console" } });
    let making = world.deploy(order).await.expect(202);
    let failed = world.ends(&making, "failed").await;
    assert_eq!(failed.text("/error/reasons/0/reason"), "not_ready");
    let slow = world.get("/v1/instances/web.1").await.expect(200);
    assert_eq!((slow.text("/state"), slow.text("/reason")), ("running", "not_ready"));
    let web = world.get("/v1/deployments/web").await;
    assert_eq!((web.text("/state"), web.number("/ready")), ("degraded", 1));
    assert_eq!((web.text("/on_ready_timeout"), web.number("/ready_when/timeout_s")), ("keep", 300));

    let wrong = json!({ "ready_timeout_s": 0 });
    let refused = world.post("/v1/deployments/web/retry", wrong).await.refused(422, "invalid");
    assert_eq!(refused.text("/errors/0/pointer"), "/ready_timeout_s");
    nodes[0].script(|s| s.gave_up = false);
    let limits = json!({ "ready_timeout_s": 900, "on_ready_timeout": "stop" });
    let retrying = world.post("/v1/deployments/web/retry", limits).await.expect(202);
    assert_eq!(retrying.number("/progress/total"), 1);
    eventually("the node to know the new limits", async || {
        let told = nodes[0].assignment("web.1").unwrap();
        (told.ready.timeout_s == Some(900) && told.on_ready_timeout == OnReadyTimeout::Stop).then_some(())
    })
    .await;
    let waiting = world.get(&format!("/v1/operations/{}", retrying.text("/id"))).await;
    assert!(waiting.body["finished_at"].is_null(), "it waits for it again");
    nodes[0].script(|s| s.slow.clear());
    nodes[0].act().await;
    world.ends(&retrying, "succeeded").await;
    let ready = world.get("/v1/instances/web.1").await.expect(200);
    assert_eq!((ready.number("/boots"), &ready.body["reason"]), (1, &Value::Null), "nobody restarted it");
    assert_eq!(nodes[0].assignment("web.1").unwrap().boot, 1);
    assert_eq!(world.get("/v1/deployments/web").await.text("/state"), "ready");
}
