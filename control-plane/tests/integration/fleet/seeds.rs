//! What guests are told when they first boot: keys and user data of a deployment.

use muster_api::{DeploymentId, node_protocol::seed::Seed};
use serde_json::{Value, json};

use super::harness::{MIB, Node, Reply, World, eventually};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop";
const SCRIPT: &str = "#!/bin/sh\nPASSWORD=hunter2\n";

async fn world() -> (World, Vec<Node>) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    (world, nodes)
}

fn order(name: &str, more: &Value) -> Value {
    let mut order = json!({ "name": name, "source": { "image": "debian" }, "count": 2 });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

async fn ready(world: &World, order: Value) -> Reply {
    let operation = world.deploy(order.clone()).await.expect(202);
    world.ends(&operation, "succeeded").await;
    world.get(&format!("/v1/deployments/{}", order["name"].as_str().unwrap())).await.expect(200)
}

fn id(deployment: &Reply) -> DeploymentId {
    deployment.text("/id").parse().unwrap()
}

/// What the node is told of a deployment's guests, and for how many of them.
async fn told(node: &Node, of: DeploymentId) -> (Seed, usize) {
    eventually("the node to be told of the deployment's guests", async || {
        let seen = node.agent.seen.lock().unwrap();
        let desired = seen.desired.as_ref()?;
        let guests = desired.assignments.iter().filter(|assignment| assignment.seed == Some(of)).count();
        Some((desired.seeds.get(&of)?.clone(), guests))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_user_data_reach_the_node_once_for_all_members_and_stay() {
    let (world, nodes) = world().await;
    let web = ready(&world, order("web", &json!({ "ssh_keys": [format!("{KEY}\n")], "user_data": SCRIPT }))).await;
    let key = json!({ "type": "ssh-ed25519", "fingerprint": "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA",
        "comment": "me@laptop", "public_key": KEY });
    assert_eq!((&web.body["ssh_keys"], web.number("/user_data_bytes")), (&json!([key]), SCRIPT.len() as u64));
    let seed = Seed { ssh_keys: vec![KEY.to_owned()], user_data: Some(SCRIPT.to_owned()) };
    assert_eq!(told(&nodes[0], id(&web)).await, (seed.clone(), 2));

    let more = world.post("/v1/deployments/web/scale", json!({ "count": 3 })).await.expect(202);
    world.ends(&more, "succeeded").await;
    assert_eq!(told(&nodes[0], id(&web)).await, (seed.clone(), 3), "a new member is told the same");
    let stopped = world.post("/v1/deployments/web/stop", json!({ "force": true })).await.expect(202);
    world.ends(&stopped, "succeeded").await;
    let started = world.post("/v1/deployments/web/start", Value::Null).await.expect(202);
    world.ends(&started, "succeeded").await;
    assert_eq!(told(&nodes[0], id(&web)).await, (seed, 3), "a later start is told the same");

    let bare = ready(&world, order("bare", &json!({}))).await;
    assert_eq!((&bare.body["ssh_keys"], bare.number("/user_data_bytes")), (&json!([]), 0));
    assert_eq!(told(&nodes[0], id(&bare)).await, (Seed::default(), 2), "a guest always learns its name");
    world.get("/v1/deployments/bare/user-data").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_is_shown_by_its_own_call_only_and_to_its_project_only() {
    let (world, _nodes) = world().await;
    let own = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let other = world.token(json!({ "role": "tenant", "project": "other" })).await;
    let web = ready(&world, order("web", &json!({ "ssh_keys": [KEY], "user_data": SCRIPT }))).await;
    let path = format!("/v1/deployments/{}/user-data", id(&web));
    for token in [&own, &world.token] {
        let reply = world.call_as(token, "GET", &path, Value::Null, &[]).await.expect(200);
        assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(reply.raw, SCRIPT.as_bytes());
    }
    world.call_as(&other, "GET", &path, Value::Null, &[]).await.refused(404, "not_found");
    world
        .call_as(&other, "GET", &format!("/v1/deployments/{}", id(&web)), Value::Null, &[])
        .await
        .refused(404, "not_found");
    for path in ["/v1/deployments", "/v1/deployments/web", "/v1/instances", "/v1/instances/web.0", "/v1/operations"] {
        let said = String::from_utf8(world.get(path).await.expect(200).raw).unwrap();
        assert!(said.contains("web") && !said.contains("hunter2"), "{path}: {said}");
    }
    let page = [("accept", "application/json")];
    let events = world.call_as(&world.token, "GET", "/v1/events?limit=1000", Value::Null, &page).await.expect(200);
    assert!(!String::from_utf8(events.raw).unwrap().contains("hunter2"));
    let listed = world.get("/v1/deployments").await;
    assert_eq!(
        (listed.body.pointer("/items/0/ssh_keys"), listed.body.pointer("/items/0/user_data_bytes")),
        (None, None)
    );

    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    world.get(&path).await.refused(404, "not_found");
    world.ends(&deleting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_takes_over_what_it_is_not_given_anew_within_its_project() {
    let (world, nodes) = world().await;
    ready(&world, order("web", &json!({ "ssh_keys": [KEY], "user_data": SCRIPT }))).await;
    let of_all = world.post("/v1/snapshots", json!({ "name": "all", "select": { "deployment": "web" } })).await;
    world.ends(&of_all.expect(202), "succeeded").await;
    let of_one = world.post("/v1/snapshots", json!({ "name": "one", "select": { "instances": ["web.0"] } })).await;
    world.ends(&of_one.expect(202), "succeeded").await;
    let fork = |name: &str, snapshot: &str, more: Value| {
        let mut fork = json!({ "name": name, "source": { "snapshot": snapshot } });
        fork.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fork
    };
    let same = Seed { ssh_keys: vec![KEY.to_owned()], user_data: Some(SCRIPT.to_owned()) };
    for (name, snapshot, more, expected) in [
        ("fork-all", "all", json!({}), same.clone()),
        ("fork-one", "one", json!({}), same.clone()),
        ("fork-no-keys", "one", json!({ "ssh_keys": [] }), Seed { ssh_keys: Vec::new(), ..same.clone() }),
        ("fork-no-data", "one", json!({ "user_data": "" }), Seed { user_data: None, ..same.clone() }),
    ] {
        let forked = ready(&world, fork(name, snapshot, more)).await;
        assert_eq!(told(&nodes[0], id(&forked)).await.0, expected, "{name}");
        world.ends(&world.delete(&format!("/v1/deployments/{name}")).await.expect(202), "succeeded").await;
    }
    // An operator may fork into another project, which must not learn the keys and secrets of this one.
    let snapshot = world.get("/v1/snapshots/all").await.text("/id").to_owned();
    let operation = world.post("/v1/deployments?project=other", fork("away", &snapshot, json!({}))).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let away = world.get("/v1/deployments/away?project=other").await.expect(200);
    assert_eq!(told(&nodes[0], id(&away)).await.0, Seed::default());
    // What was deleted is not taken over.
    world.ends(&world.delete("/v1/deployments/web").await.expect(202), "succeeded").await;
    let late = ready(&world, fork("late", "all", json!({}))).await;
    assert_eq!(told(&nodes[0], id(&late)).await.0, Seed::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_user_data_that_do_not_fit_are_refused_with_what_is_expected_and_never_echoed() {
    let (world, _nodes) = world().await;
    let secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2hunter2\n-----END OPENSSH PRIVATE KEY-----\n";
    for (field, value, pointer, said) in [
        ("ssh_keys", json!([KEY, secret]), "/ssh_keys/1", "this is a private key"),
        ("ssh_keys", json!(secret), "/ssh_keys", "expected an array"),
        ("ssh_keys", json!([{ "key": secret }]), "/ssh_keys/0", "expected a text"),
        ("ssh_keys", json!(["hunter2"]), "/ssh_keys/0", "expected a public key of the type"),
        ("ssh_keys", json!([format!("no-pty {KEY}")]), "/ssh_keys/0", "without options"),
        ("ssh_keys", json!([format!("{KEY}\0")]), "/ssh_keys/0", "NUL"),
        ("ssh_keys", json!(vec![KEY; 33]), "/ssh_keys", "at most 32 keys, got 33"),
        ("user_data", json!("hunter2"), "/user_data", "#cloud-config"),
        ("user_data", json!({ "runcmd": ["hunter2"] }), "/user_data", "expected a text"),
        ("user_data", json!("#!/bin/sh\nhunter2\0"), "/user_data", "NUL"),
        ("user_data", json!(format!("#!{}", "x".repeat(64 << 10))), "/user_data", "at most 64 KiB, got 65538 bytes"),
        ("user_data", json!(SCRIPT), "/user_data", "runtime none has no guest"),
    ] {
        let mut order = order("web", &json!({ field: value }));
        if said.starts_with("runtime none") {
            order["runtime"] = json!("none");
        }
        let reply = world.deploy(order).await.refused(422, "invalid");
        let text = String::from_utf8(reply.raw.clone()).unwrap();
        assert!(reply.text("/errors/0/detail").contains(said), "{text}");
        assert_eq!(reply.text("/errors/0/pointer"), pointer, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // As long as it may be, also in JSON.
    let long = format!("#!/bin/sh\n{}", "\u{1}".repeat((64 << 10) - 10));
    let keys = vec![format!("{KEY}{}", "x".repeat(4096 - KEY.len())); 32];
    let web = ready(&world, order("web", &json!({ "user_data": long, "ssh_keys": keys }))).await;
    assert_eq!(web.number("/user_data_bytes"), 64 << 10);
}
