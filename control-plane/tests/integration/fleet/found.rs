//! Instances that nodes hold and a restored database does not know.

use muster_api::{
    CommitId, DiskId, InstanceId, VersionId,
    node_protocol::{Assignment, DiskReport, Found, InstanceReport, Observed, VersionRoot, Wanted},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, World, eventually, report_of};

/// A deployment `web` of one member, and its node, which says only what the test says.
async fn world() -> (World, Node, Assignment) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let node = world.nodes(1).await.remove(0);
    world.ready("web", 1).await;
    node.beat().await;
    let web = node.assignment("web.0").unwrap();
    (world, node, web)
}

/// What the node was told of an instance that the database does not know.
fn lost(like: &Assignment, name: &str) -> Assignment {
    let mut told = Assignment {
        instance: InstanceId::generate(),
        name: name.to_owned(),
        host_name: name.replace('.', "-"),
        generation: 2,
        boot: 5,
        ..like.clone()
    };
    (told.disks[0].disk, told.disks[0].version) = (DiskId::generate(), VersionId::generate());
    told
}

fn held(node: &Node, told: &Assignment) -> InstanceReport {
    let disk = &told.disks[0];
    let root = VersionRoot { commit: Some(CommitId::generate()), ..node.root(disk.size_bytes) };
    InstanceReport {
        disks: vec![DiskReport {
            disk: disk.disk,
            path: "/x.raw".to_owned(),
            version: disk.version,
            ahead: Some(root),
            unsaved_bytes: 4096,
            fetched_bytes: 0,
            local_bytes: 4096,
            size_bytes: None,
            in_guest: None,
            guest_lacks: None,
            detail: None,
            generation: None,
        }],
        absent: Vec::new(),
        guest: None,
        found: Some(Found { told: Some(told.clone()) }),
        ..report_of(told, Observed::Running)
    }
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

async fn found(world: &World) -> Vec<Value> {
    world.get("/v1/found-instances").await.expect(200).body["items"].as_array().unwrap().clone()
}

/// The numbers of the node, as its next answer has them.
async fn is_told(node: &Node, wanted: impl Fn(&Assignment) -> bool) -> Assignment {
    eventually("the node to be told", async || node.desired().assignments.into_iter().find(|a| wanted(a))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_node_knows_is_listed_and_can_be_taken_back_as_it_is() {
    let (world, node, web) = world().await;
    let told = lost(&web, "db.3");
    let report = held(&node, &told);
    let desired = node.desired();
    for _ in 0..2 {
        node.report(&desired, false, vec![report.clone()]).await.expect(204);
    }
    let shown = found(&world).await;
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (&shown[0]["name"], &shown[0]["state"], &shown[0]["boot"]),
        (&json!("db.3"), &json!("running"), &json!(5))
    );
    assert_eq!((&shown[0]["node_name"], &shown[0]["disks"][0]["path"]), (&json!("n0"), &json!("/x.raw")));
    let told_now = is_told(&node, |a| a.instance == web.instance).await;
    assert_eq!(told_now.wanted, Wanted::Running, "the others go on");
    eventually("one new incarnation", async || {
        (node.desired().incarnation.number == desired.incarnation.number + 1).then_some(())
    })
    .await;
    let problems = world.get("/v1/summary").await.body["problems"].to_string();
    assert!(problems.contains("instances_found") && problems.contains("database_restored"), "{problems}");
    assert_eq!(world.get("/v1/nodes/n0").await.number("/instances"), 2, "what it uses is not promised to others");

    let tenant = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let take = format!("/v1/found-instances/{}/take", told.instance);
    for (method, path) in [("GET", "/v1/found-instances"), ("POST", take.as_str())] {
        world.call_as(&tenant, method, path, Value::Null, &[]).await.refused(403, "forbidden");
    }
    let instance = world.post(&take, Value::Null).await.expect(200);
    assert_eq!((instance.text("/name"), instance.text("/state")), ("db.3", "running"));
    assert_eq!((instance.text("/id"), instance.number("/generation")), (told.instance.to_string().as_str(), 2));
    assert_eq!(instance.number("/disks/0/unsaved_bytes"), 4096);
    assert_eq!(found(&world).await, Vec::<Value>::new());
    let now = is_told(&node, |a| a.instance == told.instance).await;
    assert_eq!((now.generation, now.boot, now.wanted), (2, 5, Wanted::Running));
    assert_eq!((now.disks.clone(), now.ready.clone()), (told.disks.clone(), told.ready.clone()));
    eventually("its deployment to be counted", async || {
        let db = world.get("/v1/deployments/db").await.expect(200);
        ((db.number("/count"), db.number("/ready"), db.text("/state")) == (1, 1, "ready")).then_some(())
    })
    .await;
    world.post(&take, Value::Null).await.refused(404, "not_found");
    // It is used as any other.
    for step in ["stop", "start"] {
        let operation = world.post(&format!("/v1/instances/db.3/{step}"), json!({})).await.expect(202);
        world.ends(&operation, "succeeded").await;
    }
    let operation = world.post("/v1/snapshots", json!({ "select": { "deployment": "db" } })).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let scaled = world.post("/v1/deployments/db/scale", json!({ "count": 2 })).await.expect(202);
    world.ends(&scaled, "succeeded").await;
    assert_eq!(world.get("/v1/instances/db.4").await.text("/state"), "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_instance_whose_number_is_taken_gets_the_next_one() {
    let (world, node, web) = world().await;
    let (one, two) = (lost(&web, "web.0"), lost(&web, "web.7"));
    node.report(&node.desired(), false, vec![held(&node, &one), held(&node, &two)]).await.expect(204);
    let taken = world.post("/v1/found-instances/web.7/take", Value::Null).await.expect(200);
    assert_eq!(taken.text("/name"), "web.7");
    let taken = world.post(&format!("/v1/found-instances/{}/take", one.instance), json!({})).await.expect(200);
    assert_eq!((taken.text("/name"), taken.text("/deployment_name")), ("web.8", "web"));
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 3);
    let three = lost(&web, "web.0");
    node.report(&node.desired(), false, vec![held(&node, &three)]).await.expect(204);
    let elsewhere = json!({ "deployment": "kept", "project": "blue" });
    let taken = world.post("/v1/found-instances/web.0/take", elsewhere).await.expect(200);
    assert_eq!((taken.text("/name"), taken.text("/project")), ("kept.0", "blue"));
    assert_eq!(world.get("/v1/deployments/kept?project=blue").await.number("/count"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_instance_is_deleted_only_when_an_operator_says_so() {
    let (world, node, web) = world().await;
    let told = lost(&web, "db.0");
    node.report(&node.desired(), false, vec![held(&node, &told)]).await.expect(204);
    let forget = format!("/v1/found-instances/{}/forget", told.instance);
    world.post(&forget, json!({})).await.refused(422, "invalid");
    assert!(node.assignment("db.0").is_none());
    node.script(|s| s.mute = true);
    for _ in 0..2 {
        assert_eq!(world.post(&forget, json!({ "confirm": true })).await.expect(200).text("/state"), "deleting");
    }
    let take = format!("/v1/found-instances/{}/take", told.instance);
    world.post(&take, Value::Null).await.refused(409, "wrong_state");
    let order = is_told(&node, |a| a.instance == told.instance).await;
    assert_eq!((order.wanted, order.generation, order.boot), (Wanted::Gone, 2, 5));
    // What was said before it heard of it does not count as news.
    node.report(&node.desired(), false, vec![held(&node, &told)]).await.expect(204);
    assert_eq!(found(&world).await[0]["state"], "deleting");
    node.script(|s| s.mute = false);
    eventually("it to be gone", async || found(&world).await.is_empty().then_some(())).await;
    eventually("the order to end", async || node.assignment("db.0").is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_database_deletes_is_never_found() {
    let (world, node, web) = world().await;
    let before = node.desired();
    node.script(|s| s.mute = true);
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    let order = is_told(&node, |a| a.wanted == Wanted::Gone).await;
    assert_eq!(order.instance, web.instance);
    // An agent that has not heard of it, and a whole report of an earlier state, without it.
    node.report(&before, false, vec![held(&node, &web)]).await.expect(204);
    node.report(&before, true, Vec::new()).await.expect(204);
    assert_eq!(found(&world).await, Vec::<Value>::new());
    let state = world.get(&format!("/v1/operations/{}", deleting.text("/id"))).await;
    assert_eq!(state.text("/state"), "running", "the older report does not say that it is gone");
    node.report(&node.desired(), false, vec![report_of(&order, Observed::Gone)]).await.expect(204);
    world.ends(&deleting, "succeeded").await;
    node.report(&before, false, vec![held(&node, &web)]).await.expect(204);
    assert_eq!(found(&world).await, Vec::<Value>::new());
    assert_eq!(node.desired().incarnation, before.incarnation);
}

/// The copy was made before the member moved: its row says that it failed on one node, and another runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_another_node_holds_in_a_later_generation_is_found_and_its_row_is_mended() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    nodes[0].script(|s| s.fails = true);
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 1, "runtime": "none" });
    let order = with(order, "placement", json!({ "nodes": ["n0"] }));
    let failed = world.deploy(order).await.expect(202);
    world.ends(&failed, "failed").await;
    let here = nodes[0].assignment("web.0").unwrap();
    let mut moved = Assignment { generation: 2, boot: 3, ..here.clone() };
    moved.disks[0].version = VersionId::generate();
    // One of the same generation is a leftover and nothing more.
    let older = held(&nodes[1], &Assignment { generation: 1, ..moved.clone() });
    nodes[1].report(&nodes[1].desired(), false, vec![older]).await.expect(204);
    assert_eq!(found(&world).await, Vec::<Value>::new());
    nodes[1].report(&nodes[1].desired(), false, vec![held(&nodes[1], &moved)]).await.expect(204);
    assert_eq!(found(&world).await[0]["node_name"], "n1");
    let take = format!("/v1/found-instances/{}/take", here.instance);
    world.post(&take, json!({ "deployment": "other" })).await.refused(422, "invalid");
    let taken = world.post(&take, Value::Null).await.expect(200);
    assert_eq!((taken.text("/name"), taken.text("/state"), taken.number("/generation")), ("web.0", "running", 2));
    assert_eq!((taken.text("/node_name"), taken.number("/disks/0/unsaved_bytes")), ("n1", 4096));
    assert_eq!(taken.text("/disks/0/version"), moved.disks[0].version.to_string());
    let told = is_told(&nodes[1], |a| a.instance == here.instance).await;
    assert_eq!((told.boot, told.disks.clone()), (3, moved.disks.clone()));
    eventually("the first node to let go", async || nodes[0].assignment("web.0").is_none().then_some(())).await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/count"), 1);
    assert_eq!(found(&world).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_instance_that_its_node_does_not_hold_any_more_is_not_listed() {
    let (world, node, web) = world().await;
    let before = node.desired();
    node.script(|s| s.mute = true);
    let unknown = InstanceReport { found: Some(Found { told: None }), ..held(&node, &lost(&web, "db.0")) };
    node.report(&node.desired(), false, vec![unknown.clone()]).await.expect(204);
    let shown = found(&world).await;
    assert_eq!((&shown[0]["name"], &shown[0]["cpus"]), (&Value::Null, &Value::Null));
    let take = format!("/v1/found-instances/{}/take", unknown.instance);
    let refused = world.post(&take, Value::Null).await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("does not know what it was told"), "{refused:?}");
    let desired = eventually("the node to be told of the new incarnation", async || {
        let now = node.desired();
        (now.incarnation != before.incarnation).then_some(now)
    })
    .await;
    node.report(&desired, true, vec![report_of(&web, Observed::Running)]).await.expect(204);
    assert_eq!(found(&world).await, Vec::<Value>::new());
}
