//! Disks that live longer than the start of their instance: they grow, are attached and detached.

use muster_api::{
    Reason,
    firmware::MachineFeature,
    node_protocol::{AbsentDisk, Assignment, DiskReport, GuestLacks},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, Reply, World, eventually};

/// `db` with members that have the boot disk and a blank disk `data`.
async fn db(nodes: u32, count: u64) -> (World, Vec<Node>) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(nodes).await;
    deploy(&world, json!({ "name": "db", "count": count, "disks": [{ "name": "data", "size_bytes": 2 * MIB }] })).await;
    (world, nodes)
}

async fn deploy(world: &World, mut order: Value) {
    order["source"] = json!({ "image": "debian" });
    let operation = world.deploy(order).await.expect(202);
    world.ends(&operation, "succeeded").await;
}

fn path(disk: &str) -> String {
    format!("/v1/disks/{}", disk.replace('/', "%2F"))
}

/// The disk once it is in this state.
async fn becomes(world: &World, disk: &str, state: &str) -> Reply {
    eventually(&format!("{disk} to be {state}"), async || {
        let shown = world.get(&path(disk)).await;
        (shown.status == 200 && shown.text("/state") == state).then_some(shown)
    })
    .await
}

async fn patch(world: &World, disk: &str, body: Value) -> Reply {
    world.call("PATCH", &path(disk), body).await
}

async fn detach(world: &World, disk: &str) -> Reply {
    world.post(&format!("{}/detach", path(disk)), Value::Null).await
}

async fn attach(world: &World, instance: &str, body: Value) -> Reply {
    world.post(&format!("/v1/instances/{instance}/disks"), body).await
}

/// What the node is told about an instance, once it fits.
async fn told(node: &Node, instance: &str, fits: impl Fn(&Assignment) -> bool) -> Assignment {
    eventually(&format!("the node to be told about {instance}"), async || node.assignment(instance).filter(&fits)).await
}

fn names(of: &Assignment) -> Vec<(&str, bool)> {
    of.disks.iter().map(|disk| (disk.name.as_str(), disk.in_guest)).collect()
}

/// What a node says of the disk `data`, as its guest has it, if that wrote nothing.
fn reported(assignment: &Assignment, size_bytes: u64) -> DiskReport {
    DiskReport {
        disk: assignment.disks[1].disk,
        path: "/late".to_owned(),
        version: assignment.disks[1].version,
        ahead: None,
        unsaved_bytes: 0,
        fetched_bytes: 0,
        local_bytes: 0,
        size_bytes: Some(size_bytes),
        in_guest: Some(true),
        guest_lacks: None,
        detail: None,
        generation: None,
    }
}

/// The states that events tell of a disk, in their order.
async fn told_states(world: &World, id: &str) -> Vec<String> {
    let events = format!("/v1/events?target={id}&limit=100");
    let events = world.call_as(&world.token, "GET", &events, Value::Null, &[("accept", "application/json")]).await;
    let items = events.body["items"].as_array().unwrap_or_else(|| panic!("{events:?}")).iter();
    let of_disk = items.filter(|event| event["kind"] == "disk.state");
    of_disk.map(|event| event["data"]["state"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the guest has written to a disk what no version has.
async fn guest_writes(world: &World, disk: &str) {
    eventually("the guest to write", async || {
        (world.get(&path(disk)).await.number("/unsaved_bytes") > 0).then_some(())
    })
    .await;
}

/// Waits until the first snapshot of all is being saved.
async fn is_being_saved(world: &World) {
    eventually("it to be saved", async || {
        (world.get("/v1/snapshots").await.body["items"][0]["state"] == "saving").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_grows_and_says_so_once_its_node_does() {
    let (world, nodes) = db(1, 1).await;
    becomes(&world, "db.0/data", "attached").await;
    nodes[0].script(|s| s.grows = false);
    let grown = patch(&world, "db.0/data", json!({ "size_bytes": 4 * MIB })).await.expect(200);
    assert_eq!((grown.text("/state"), grown.number("/size_bytes")), ("growing", 4 * MIB));
    assert_eq!((grown.text("/instance_name"), grown.text("/name")), ("db.0", "data"));
    told(&nodes[0], "db.0", |told| told.disks[1].size_bytes == 4 * MIB).await;
    assert_eq!(world.get(&path("db.0/data")).await.text("/state"), "growing", "the node has not grown it yet");
    let shown = world.get("/v1/instances/db.0").await;
    assert_eq!((shown.text("/disks/1/state"), shown.number("/disks/1/size_bytes")), ("growing", 4 * MIB));
    nodes[0].script(|s| s.grows = true);
    let id = becomes(&world, "db.0/data", "attached").await.text("/id").to_owned();
    assert_eq!(told_states(&world, &id).await, ["growing", "attached"], "its start is told by events of the instance");
    // A boot disk grows as well, in any state that is not about to end.
    let stopping = world.post("/v1/instances/db.0/stop", Value::Null).await.expect(202);
    world.ends(&stopping, "succeeded").await;
    patch(&world, "db.0/root", json!({ "size_bytes": 2 * MIB })).await.expect(200);
    becomes(&world, "db.0/root", "attached").await;
    assert_eq!(told(&nodes[0], "db.0", |told| told.disks[0].size_bytes == 2 * MIB).await.disks[1].size_bytes, 4 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_grow_is_refused_with_the_reason() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let node = world.nodes(1).await.remove(0);
    node.script(|s| s.features = vec![MachineFeature::Uefi]);
    node.beat().await;
    let order =
        json!({ "name": "db", "count": 1, "firmware": "uefi", "disks": [{ "name": "data", "size_bytes": 2 * MIB }] });
    deploy(&world, order).await;
    let disk = becomes(&world, "db.0/data", "attached").await;
    for bytes in [MIB, 2 * MIB + 1, (16 << 40) + 4096] {
        let refused = patch(&world, "db.0/data", json!({ "size_bytes": bytes })).await.refused(422, "invalid");
        assert_eq!(refused.text("/errors/0/pointer"), "/size_bytes");
    }
    patch(&world, "db.0/data", json!({ "size_bytes": null })).await.refused(422, "invalid");
    patch(&world, "db.0/data", json!({ "name": "other" })).await.refused(422, "invalid");
    assert_eq!(patch(&world, "db.0/data", json!({})).await.expect(200).body, disk.body);
    assert_eq!(patch(&world, "db.0/data", json!({ "size_bytes": 2 * MIB })).await.expect(200).body, disk.body);
    patch(&world, "db.0/nvram", json!({ "size_bytes": 16 * MIB })).await.refused(409, "wrong_state");
    detach(&world, "db.0/nvram").await.refused(409, "wrong_state");
    detach(&world, "db.0/root").await.refused(409, "wrong_state");
    let stale = [("if-match", "\"7\"")];
    let body = json!({ "size_bytes": 4 * MIB });
    let stale = world.call_as(&world.token, "PATCH", &path("db.0/data"), body.clone(), &stale).await;
    stale.refused(412, "precondition_failed");
    patch(&world, "db.0/none", body.clone()).await.refused(404, "not_found");
    // An agent that tells no size cannot grow disks, and one that does not tell what a guest has cannot take one away.
    node.script(|s| s.old = true);
    eventually("the old agent to report", async || {
        let refused = patch(&world, "db.0/data", json!({ "size_bytes": 4 * MIB })).await;
        (refused.status == 409).then_some(())
    })
    .await;
    let refused = detach(&world, "db.0/data").await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("too old"), "{}", refused.body);
    let refused = attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await;
    assert!(refused.refused(409, "wrong_state").text("/detail").contains("too old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_listed_with_those_of_no_instance() {
    let (world, nodes) = db(1, 3).await;
    becomes(&world, "db.1/data", "attached").await;
    detach(&world, "db.1/data").await.expect(202);
    becomes(&world, "data", "detached").await;
    told(&nodes[0], "db.1", |told| told.left.is_empty()).await;
    let list = async |query: &str| -> Vec<(Option<String>, String)> {
        let page = world.get(&format!("/v1/disks?{query}")).await.expect(200);
        let items = page.body["items"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        items.map(|disk| (text(&disk["instance_name"]), text(&disk["name"]).unwrap())).collect()
    };
    let of = |instance: &str, name: &str| (Some(instance.to_owned()), name.to_owned());
    let all = [
        of("db.0", "root"),
        of("db.0", "data"),
        of("db.1", "root"),
        (None, "data".to_owned()),
        of("db.2", "root"),
        of("db.2", "data"),
    ];
    assert_eq!(list("").await, all, "a disk keeps its place");
    assert_eq!(list("detached=true").await, all[3..4]);
    assert_eq!(list("state=detached").await, all[3..4]);
    assert_eq!(list("instance=db.1").await, all[2..3]);
    assert_eq!(list("instance=db.1&instance=db.2&state=attached").await, [&all[2..3], &all[4..]].concat());
    assert!(list("instance=none").await.is_empty());
    world.get("/v1/disks?state=gone").await.refused(400, "bad_request");
    world.get("/v1/disks?deployment=db").await.refused(400, "bad_request");
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/disks?limit=2{token}")).await.expect(200);
        paged.extend(page.body["items"].as_array().unwrap().clone());
        match page.body["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(json!(paged), world.get("/v1/disks").await.body["items"]);
    // Another project has its own disks, and those of a deleted instance are gone with it.
    let other = world.token(json!({ "role": "tenant", "project": "other" })).await;
    let shown = world.call_as(&other, "GET", "/v1/disks", Value::Null, &[]).await.expect(200);
    assert_eq!(shown.body["items"], json!([]));
    let id = becomes(&world, "data", "detached").await.text("/id").to_owned();
    world.call_as(&other, "DELETE", &path(&id), Value::Null, &[]).await.refused(404, "not_found");
    let gone = world.delete("/v1/instances/db.2").await.expect(202);
    world.ends(&gone, "succeeded").await;
    assert_eq!(list("").await, all[..4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_gets_new_disks_while_it_runs() {
    let (world, nodes) = db(1, 1).await;
    world.image("dataset", 3 * MIB).await;
    let body = json!({ "name": "seed", "size_bytes": 3 * MIB + 1, "source": { "image": "dataset" } });
    let once = [("idempotency-key", "k1")];
    let made = async || world.call_as(&world.token, "POST", "/v1/instances/db.0/disks", body.clone(), &once).await;
    let disk = made().await.expect(201);
    assert_eq!((disk.text("/state"), disk.number("/size_bytes")), ("attaching", 3 * MIB + 4096));
    let version = world.get("/v1/images/dataset/versions/1").await;
    assert_eq!((disk.body["version"].clone(), &disk.body["saved_at"]), (version.body["id"].clone(), &Value::Null));
    assert_eq!(disk.headers["location"].to_str().unwrap(), format!("/v1/disks/{}", disk.text("/id")));
    assert_eq!(made().await.expect(201).body, disk.body, "once");
    attach(&world, "db.0", body).await.refused(409, "name_taken");
    attach(&world, "db.0", json!({ "name": "blank", "size_bytes": MIB })).await.expect(201);
    let assigned = told(&nodes[0], "db.0", |told| told.disks.len() == 4).await;
    assert_eq!(names(&assigned), [("root", true), ("data", true), ("seed", true), ("blank", true)]);
    for disk in ["db.0/seed", "db.0/blank"] {
        becomes(&world, disk, "attached").await;
    }
    assert_eq!(told_states(&world, disk.text("/id")).await, ["attaching", "attached"]);
    let shown = world.get("/v1/deployments/db").await;
    assert_eq!(shown.body["disks"].as_array().unwrap().len(), 1, "other members do not get them");
    for (body, pointer) in [
        (json!({}), "/name"),
        (json!({ "name": "a" }), "/size_bytes"),
        (json!({ "name": "root", "size_bytes": MIB }), "/name"),
        (json!({ "name": "a", "size_bytes": 1 }), "/size_bytes"),
        (json!({ "name": "a", "size_bytes": MIB, "source": { "image": "dataset" } }), "/size_bytes"),
        (json!({ "disk": "x", "size_bytes": MIB }), "/size_bytes"),
    ] {
        let refused = attach(&world, "db.0", body.clone()).await.refused(422, "invalid");
        assert_eq!(refused.text("/errors/0/pointer"), pointer, "{body}");
    }
    let refused = attach(&world, "db.0", json!({ "disk": "none" })).await.refused(404, "not_found");
    assert_eq!(refused.text("/errors/0/pointer"), "/disk");
    for n in 3..16 {
        attach(&world, "db.0", json!({ "name": format!("d{n}"), "size_bytes": MIB })).await.expect(201);
    }
    attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.refused(422, "invalid");
    // An instance that has failed, or goes, takes none.
    nodes[0].script(|s| s.fails = true);
    let reboot = world.post("/v1/instances/db.0/reboot", Value::Null).await.expect(202);
    world.ends(&reboot, "failed").await;
    attach(&world, "db.0", json!({ "name": "late", "size_bytes": MIB })).await.refused(409, "wrong_state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_detached_with_all_that_it_holds_and_attached_elsewhere() {
    let (mut world, nodes) = db(2, 2).await;
    for node in &nodes {
        node.script(|s| (s.dirty_bytes, s.settles, s.removes) = (4096, true, false));
    }
    let (from, to) =
        if nodes[0].assignment("db.0").is_some() { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) };
    eventually("the guests to write", async || {
        (world.get(&path("db.0/data")).await.number("/unsaved_bytes") > 0).then_some(())
    })
    .await;
    let began = from.assignment("db.0").unwrap().disks[1].version.to_string();
    // The guest does not let it go.
    from.script(|s| s.lets_go = false);
    let detaching = detach(&world, "db.0/data").await.expect(202);
    let id = detaching.text("/id").to_owned();
    assert_eq!(detaching.text("/state"), "detaching");
    assert_eq!(detach(&world, &id).await.expect(202).text("/state"), "detaching", "asked again");
    assert_eq!(names(&told(from, "db.0", |told| !told.disks[1].in_guest).await), [("root", true), ("data", false)]);
    eventually("why it is not detached", async || {
        let shown = world.get(&path(&id)).await;
        shown.body["detail"].as_str()?.contains("not let it go").then_some(())
    })
    .await;
    assert_eq!(
        world.get("/v1/snapshots").await.body["items"],
        json!([]),
        "nothing is saved before the guest let it go"
    );
    patch(&world, &id, json!({ "size_bytes": 4 * MIB })).await.refused(409, "wrong_state");
    world.delete(&path(&id)).await.refused(409, "disk_attached");
    attach(&world, "db.1", json!({ "disk": id })).await.refused(409, "disk_attached");
    // A controller that was killed goes on.
    world.restart().await;
    from.script(|s| s.lets_go = true);
    let detached = becomes(&world, &id, "detached").await;
    assert_eq!((&detached.body["instance"], detached.text("/detached_from")), (&Value::Null, "db.0"));
    assert_ne!(detached.text("/version"), began, "what the guest wrote is in it");
    assert!(!detached.body["saved_at"].is_null() && detached.number("/unsaved_bytes") == 0);
    assert_eq!(told_states(&world, &id).await, ["detaching", "detached"]);
    let instance = world.get("/v1/instances/db.0").await;
    assert_eq!(instance.body["disks"].as_array().unwrap().len(), 1);
    // The snapshot that saved it is gone, its version is not.
    assert_eq!(world.get("/v1/snapshots").await.body["items"], json!([]));
    let version = world.get(&format!("/v1/versions/{}", detached.text("/version"))).await.expect(200);
    assert_eq!((version.text("/disk_name"), version.text("/parent")), ("data", &*began));
    // Its node is told to remove its copy, and no other one, until it has.
    let told_left = told(from, "db.0", |told| !told.left.is_empty()).await;
    assert_eq!((told_left.left[0].disk.to_string(), told_left.disks.len()), (id.clone(), 1));
    assert_eq!(told_left.left[0].version.to_string(), detached.text("/version"));
    let grown = patch(&world, "data", json!({ "size_bytes": 8 * MIB })).await.expect(200);
    assert_eq!((grown.text("/state"), grown.number("/size_bytes")), ("detached", 8 * MIB), "at once");
    attach(&world, "db.1", json!({ "disk": "data" })).await.refused(409, "name_taken");
    // Its version is held by it, also when it is deleted by itself.
    world.delete(&format!("/v1/versions/{}", detached.text("/version"))).await.expect(204);
    // Another instance gets it, although the old copy is still there: that is on another node.
    let attached = attach(&world, "db.1", json!({ "disk": "data", "name": "old-data" })).await.expect(201);
    assert_eq!((attached.text("/id"), attached.text("/state")), (&*id, "attaching"));
    assert_eq!(attached.body["version"], detached.body["version"]);
    let assigned = told(to, "db.1", |told| told.disks.len() == 3).await;
    assert_eq!(assigned.disks[2].disk.to_string(), id);
    assert_eq!(
        (assigned.disks[2].size_bytes, assigned.disks[2].version.to_string()),
        (8 * MIB, detached.text("/version").to_owned())
    );
    assert!(to.desired().versions.contains_key(&assigned.disks[2].version));
    assert_eq!(becomes(&world, &id, "attached").await.text("/instance_name"), "db.1");
    assert!(!from.assignment("db.0").unwrap().left.is_empty());
    from.script(|s| s.removes = true);
    told(from, "db.0", |told| told.left.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_holds_nothing_new_is_detached_without_a_snapshot_and_deleted() {
    let (world, nodes) = db(1, 2).await;
    becomes(&world, "db.0/data", "attached").await;
    let began = nodes[0].assignment("db.0").unwrap().disks[1].version.to_string();
    // It stays with its node for a while.
    nodes[0].script(|s| s.removes = false);
    detach(&world, "db.0/data").await.expect(202);
    let detached = becomes(&world, "data", "detached").await;
    assert_eq!((detached.text("/version"), &detached.body["saved_at"]), (&*began, &Value::Null));
    assert_eq!(world.get("/v1/snapshots?deleted=true").await.body["items"], json!([]));
    assert_eq!(detach(&world, "data").await.expect(200).body, detached.body, "it is detached");
    // Two of a name are told apart by their ids.
    becomes(&world, "db.1/data", "attached").await;
    let other = detach(&world, "db.1/data").await.expect(202).text("/id").to_owned();
    becomes(&world, &other, "detached").await;
    world.get(&path("data")).await.refused(409, "wrong_state");
    // A node that is to remove its copy, which may be an old one by then, does not get the disk again before.
    for instance in ["db.0", "db.1"] {
        attach(&world, instance, json!({ "disk": other })).await.refused(503, "unavailable");
    }
    nodes[0].script(|s| s.removes = true);
    told(&nodes[0], "db.1", |told| told.left.is_empty()).await;
    attach(&world, "db.1", json!({ "disk": other })).await.expect(201);
    becomes(&world, "db.1/data", "attached").await;
    let id = detached.text("/id");
    world.delete(&path("data")).await.expect(204);
    world.delete(&path(id)).await.refused(404, "not_found");
    world.delete(&path(&other)).await.refused(409, "disk_attached");
    told(&nodes[0], "db.0", |told| told.left.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detach_is_taken_back_and_a_late_report_does_not_end_the_next_one() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    let disk = becomes(&world, "db.0/data", "attached").await;
    let id = disk.text("/id");
    node.script(|s| s.lets_go = false);
    detach(&world, id).await.expect(202);
    told(node, "db.0", |told| !told.disks[1].in_guest).await;
    let first = node.desired();
    let stays = attach(&world, "db.0", json!({ "disk": id })).await.expect(200);
    assert_eq!((stays.text("/state"), &stays.body["detail"]), ("attached", &Value::Null));
    assert_eq!(attach(&world, "db.0", json!({ "disk": id })).await.expect(200).body, stays.body, "it is attached");
    told(node, "db.0", |told| told.disks[1].in_guest).await;
    detach(&world, id).await.expect(202);
    // What the node said of the first detach arrives now.
    let mut late = super::harness::report_of(&first.assignments[0], muster_api::node_protocol::Observed::Running);
    late.disks = vec![muster_api::node_protocol::DiskReport {
        disk: id.parse().unwrap(),
        path: "/late".to_owned(),
        version: first.assignments[0].disks[1].version,
        ahead: None,
        unsaved_bytes: 0,
        fetched_bytes: 0,
        local_bytes: 0,
        size_bytes: Some(2 * MIB),
        in_guest: Some(false),
        guest_lacks: None,
        detail: None,
        generation: None,
    }];
    node.report(&first, false, vec![late.clone()]).await.expect(204);
    muster_controller::reconcile::driver::run_pass(&world.app, muster_controller::wake::Loop::Disks).await;
    assert_eq!(world.get(&path(id)).await.text("/state"), "detaching");
    node.script(|s| s.lets_go = true);
    becomes(&world, id, "detached").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detach_goes_on_after_a_snapshot_that_failed() {
    let (world, nodes) = db(1, 1).await;
    nodes[0].script(|s| {
        (s.dirty_bytes, s.settles) = (4096, true);
        s.refuse_cuts = vec![Reason::HoldExpired; 3];
    });
    guest_writes(&world, "db.0/data").await;
    let id = detach(&world, "db.0/data").await.expect(202).text("/id").to_owned();
    eventually("it to say that the snapshot failed", async || {
        let shown = world.get(&path(&id)).await;
        shown.body["detail"].as_str()?.contains("saved again").then_some(())
    })
    .await;
    assert_eq!(world.get("/v1/snapshots").await.text("/items/0/state"), "failed");
    // A snapshot that somebody else takes saves it as well.
    let cut = json!({ "name": "mine", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let detached = becomes(&world, &id, "detached").await;
    let members = world.get("/v1/snapshots/mine/members").await;
    assert_eq!(detached.body["version"], members.body["items"][1]["version"]);
    let left = world.get("/v1/snapshots").await;
    assert_eq!((left.text("/items/0/name"), left.body["items"].as_array().unwrap().len()), ("mine", 1));
    // It holds what its version has, also when the snapshot is deleted.
    world.delete("/v1/snapshots/mine").await.expect(202);
    assert_eq!(world.get(&path(&id)).await.expect(200).body["version"], detached.body["version"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_user_does_not_wait_for_one_that_saves_a_disk_and_saves_it_as_well() {
    let (world, nodes) = db(1, 1).await;
    nodes[0].script(|s| (s.dirty_bytes, s.saves, s.settles) = (4096, false, true));
    guest_writes(&world, "db.0/data").await;
    let id = detach(&world, "db.0/data").await.expect(202).text("/id").to_owned();
    is_being_saved(&world).await;
    let cut = json!({ "name": "mine", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut.clone()).await.expect(202);
    let names = world.get("/v1/snapshots").await;
    assert_eq!((names.text("/items/0/name"), names.body["items"].as_array().unwrap().len()), ("mine", 1));
    assert_eq!(world.get(&path(&id)).await.text("/state"), "detaching");
    // It waits for nobody's background work, and another user's snapshot is no such thing.
    let other = json!({ "name": "other", "select": { "deployment": "db" } });
    world.post("/v1/snapshots", other).await.refused(409, "busy");
    nodes[0].script(|s| s.saves = true);
    world.ends(&operation, "succeeded").await;
    let detached = becomes(&world, &id, "detached").await;
    let members = world.get("/v1/snapshots/mine/members").await;
    assert_eq!(detached.body["version"], members.body["items"][1]["version"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_waits_for_disks_that_are_being_attached() {
    let (world, nodes) = db(1, 1).await;
    becomes(&world, "db.0/data", "attached").await;
    nodes[0].script(|s| s.mute = true);
    attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.expect(201);
    let cut = json!({ "name": "s", "select": { "deployment": "db" } });
    // The guest may have written to it before its node tells of it, so no snapshot may lack it.
    let refused = world.post("/v1/snapshots", cut.clone()).await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("db.0/more"), "{}", refused.body);
    nodes[0].script(|s| s.mute = false);
    becomes(&world, "db.0/more", "attached").await;
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s").await.number("/members"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_not_deleted_while_one_of_its_disks_is_being_detached() {
    let (world, nodes) = db(1, 2).await;
    nodes[0].script(|s| (s.dirty_bytes, s.saves) = (4096, false));
    guest_writes(&world, "db.1/data").await;
    let id = detach(&world, "db.1/data").await.expect(202).text("/id").to_owned();
    is_being_saved(&world).await;
    let select = json!({ "select": { "instances": ["db.1"] } });
    for refused in [
        world.delete("/v1/instances/db.1").await,
        world.delete("/v1/deployments/db").await,
        world.post("/v1/instances/-/delete", select).await,
        world.post("/v1/deployments/db/scale", json!({ "count": 1 })).await,
        world.post("/v1/deployments/db/scale", json!({ "count": 1, "remove": ["db.1"] })).await,
    ] {
        let refused = refused.refused(409, "wrong_state");
        assert!(refused.text("/detail").contains("db.1/data"), "{}", refused.body);
        assert_eq!(refused.text("/disk"), id);
    }
    assert_eq!(world.get("/v1/deployments/db").await.text("/state"), "ready", "nothing was begun");
    let deleting = world.delete("/v1/instances/db.0").await.expect(202);
    world.ends(&deleting, "succeeded").await;
    // One that stays goes with its instance.
    attach(&world, "db.1", json!({ "disk": id })).await.expect(200);
    assert_eq!(world.get("/v1/snapshots").await.body["items"], json!([]), "what was to save it is gone");
    let deleting = world.delete("/v1/deployments/db").await.expect(202);
    world.ends(&deleting, "succeeded").await;
    world.get(&path(&id)).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_detached_goes_with_its_instance_if_that_is_deleted_after_its_node_was_lost() {
    let (world, nodes) = db(1, 1).await;
    nodes[0].script(|s| (s.dirty_bytes, s.saves) = (4096, false));
    guest_writes(&world, "db.0/data").await;
    let id = detach(&world, "db.0/data").await.expect(202).text("/id").to_owned();
    is_being_saved(&world).await;
    nodes[0].script(|s| s.mute = true);
    world.post("/v1/nodes/n0/fence", json!({ "confirm": true })).await.expect(200);
    let deleting = world.delete("/v1/deployments/db").await.expect(202);
    world.ends(&deleting, "succeeded").await;
    world.get(&path(&id)).await.refused(404, "not_found");
    assert_eq!(world.get("/v1/disks").await.body["items"], json!([]));
    eventually("the snapshot that was to save it to be gone", async || {
        (world.get("/v1/snapshots").await.body["items"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_has_a_disk_in_the_size_that_it_has_on_its_node() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    becomes(&world, "db.0/data", "attached").await;
    node.script(|s| (s.grows, s.saves) = (false, false));
    patch(&world, "db.0/data", json!({ "size_bytes": 4 * MIB })).await.expect(200);
    told(node, "db.0", |told| told.disks[1].size_bytes == 4 * MIB).await;
    let cut = json!({ "name": "s", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    let order = eventually("a cut order", async || node.desired().cuts.first().cloned()).await;
    let assigned = node.assignment("db.0").unwrap();
    for (disk, size) in order.disks.iter().zip([MIB, 2 * MIB]) {
        let base = assigned.disks.iter().find(|assigned| assigned.disk == disk.disk).unwrap().version;
        let staged = |size| muster_api::node_protocol::StagedCommit {
            snapshot: order.snapshot,
            attempt: order.attempt,
            disk: disk.disk,
            generation: disk.generation,
            base,
            upload: order.upload,
            root: node.root(size),
            dirty_bytes: 4096,
            stored_bytes: 4096,
        };
        node.stage(disk.commit, &staged(8 * MIB)).await.refused(422, "invalid");
        node.stage(disk.commit, &staged(size)).await.expect(200);
    }
    world.ends(&operation, "succeeded").await;
    let members = world.get("/v1/snapshots/s/members").await;
    let version = world.get(&format!("/v1/versions/{}", members.text("/items/1/version"))).await;
    assert_eq!(version.number("/size_bytes"), 2 * MIB);
    assert_eq!(world.get(&path("db.0/data")).await.number("/size_bytes"), 4 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_member_of_a_fork_has_what_its_member_of_the_snapshot_had() {
    let (world, _nodes) = db(2, 2).await;
    for n in 0..9 {
        attach(&world, "db.0", json!({ "name": format!("a{n}"), "size_bytes": MIB })).await.expect(201);
        attach(&world, "db.1", json!({ "name": format!("b{n}"), "size_bytes": MIB })).await.expect(201);
    }
    for disk in ["db.0/a8", "db.1/b8"] {
        becomes(&world, disk, "attached").await;
    }
    let cut = json!({ "name": "s", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let more = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({ "name": format!("more{n}"), "size_bytes": MIB })).collect()
    };
    let fork = |count| json!({ "name": "fork", "source": { "snapshot": "s" }, "disks": more(count) });
    let refused = world.deploy(fork(7)).await.refused(422, "invalid");
    assert_eq!(refused.text("/errors/0/pointer"), "/disks");
    // Members have 10 disks each beside the boot disk, all together 19 names.
    let operation = world.deploy(fork(6)).await.expect(202);
    world.ends(&operation, "succeeded").await;
    for (n, letter) in [(0, "a"), (1, "b")] {
        let source = world.get(&format!("/v1/instances/db.{n}")).await;
        let forked = world.get(&format!("/v1/instances/fork.{n}")).await;
        let disks = forked.body["disks"].as_array().unwrap();
        let names: Vec<&str> = disks.iter().map(|disk| disk["name"].as_str().unwrap()).collect();
        let mut expected = vec!["root".to_owned(), "data".to_owned()];
        expected.extend((0..9).map(|n| format!("{letter}{n}")));
        expected.extend((0..6).map(|n| format!("more{n}")));
        assert_eq!(names, expected);
        for (disk, source) in disks.iter().zip(source.body["disks"].as_array().unwrap()) {
            assert_eq!(disk["version"], source["version"], "{n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_report_does_not_hide_what_a_disk_has_to_save() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    let id = becomes(&world, "db.0/data", "attached").await.text("/id").to_owned();
    let first = node.desired();
    node.script(|s| {
        s.dirty_bytes = 4096;
        s.refuse_cuts = vec![Reason::HoldExpired; 3];
    });
    node.act().await;
    detach(&world, &id).await.expect(202);
    eventually("it to say that the snapshot failed", async || {
        let shown = world.get(&path(&id)).await;
        shown.body["detail"].as_str()?.contains("saved again").then_some(())
    })
    .await;
    node.script(|s| s.mute = true);
    // What the node said before the detach, and before the guest wrote, arrives now.
    let mut late = super::harness::report_of(&first.assignments[0], muster_api::node_protocol::Observed::Running);
    late.disks = vec![reported(&first.assignments[0], 2 * MIB)];
    node.report(&first, false, vec![late]).await.expect(204);
    muster_controller::reconcile::driver::run_pass(&world.app, muster_controller::wake::Loop::Disks).await;
    let shown = world.get(&path(&id)).await;
    assert_eq!((shown.text("/state"), shown.number("/unsaved_bytes")), ("detaching", 4096));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_are_detached_together_each_keep_their_version_and_no_other() {
    let (world, nodes) = db(1, 1).await;
    attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.expect(201);
    becomes(&world, "db.0/more", "attached").await;
    nodes[0].script(|s| (s.dirty_bytes, s.settles, s.removes) = (4096, true, false));
    eventually("the guest to write", async || {
        let unsaved = async |disk: &str| world.get(&path(disk)).await.number("/unsaved_bytes");
        (unsaved("db.0/data").await > 0 && unsaved("db.0/more").await > 0).then_some(())
    })
    .await;
    for disk in ["db.0/data", "db.0/more"] {
        detach(&world, disk).await.expect(202);
    }
    let (data, more) = (becomes(&world, "data", "detached").await, becomes(&world, "more", "detached").await);
    for disk in [&data, &more] {
        world.get(&format!("/v1/versions/{}", disk.text("/version"))).await.expect(200);
    }
    let of_disks = async || -> Vec<String> {
        let page = world.get("/v1/versions").await;
        let items = page.body["items"].as_array().unwrap().iter();
        let names = items.filter_map(|version| version["disk_name"].as_str());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(of_disks().await, ["data", "more"], "nothing else of what saved them is left");
    // The version of the one goes with it, not that of the other.
    world.delete(&path("data")).await.expect(204);
    world.get(&format!("/v1/versions/{}", more.text("/version"))).await.expect(200);
    assert_eq!(of_disks().await, ["more"]);
    nodes[0].script(|s| s.removes = true);
    told(&nodes[0], "db.0", |told| told.left.is_empty()).await;
    attach(&world, "db.0", json!({ "disk": "more" })).await.expect(201);
    assert!(of_disks().await.is_empty(), "a disk of an instance keeps what it needs itself");
    becomes(&world, "db.0/more", "attached").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_larger_on_its_node_than_a_restored_database_knows_has_that_size() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    let id = becomes(&world, "db.0/data", "attached").await.text("/id").to_owned();
    let desired = node.desired();
    let says = async |size_bytes: u64| {
        let mut report =
            super::harness::report_of(&desired.assignments[0], muster_api::node_protocol::Observed::Running);
        report.disks = vec![reported(&desired.assignments[0], size_bytes)];
        node.report(&desired, false, vec![report]).await.expect(204);
        world.get(&path(&id)).await.number("/size_bytes")
    };
    assert_eq!(says(4 * MIB + 1).await, 2 * MIB, "no disk has such a size");
    assert_eq!(says((16 << 40) + 4096).await, 2 * MIB, "nor such a large one");
    assert_eq!(says(4 * MIB).await, 4 * MIB);
    assert_eq!(told(node, "db.0", |told| told.disks[1].size_bytes == 4 * MIB).await.disks.len(), 2);
    assert_eq!(says(2 * MIB).await, 4 * MIB, "and never shrinks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_made_on_its_node_is_detached_again() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    becomes(&world, "db.0/data", "attached").await;
    node.script(|s| s.unmade = vec!["more".to_owned(), "late".to_owned()]);
    let more = attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.expect(201);
    told(node, "db.0", |told| told.disks.len() == 3).await;
    let before = node.desired();
    node.script(|s| s.mute = true);
    let id = more.text("/id");
    assert_eq!(detach(&world, id).await.expect(202).text("/state"), "detaching");
    // What the node said before it had heard of the detach does not count: it may still make the disk.
    let running = muster_api::node_protocol::Observed::Running;
    let mut late = super::harness::report_of(&before.assignments[0], running);
    late.disks = vec![reported(&before.assignments[0], 2 * MIB)];
    late.absent = vec![AbsentDisk { disk: id.parse().unwrap(), detail: Some("no space".to_owned()) }];
    node.report(&before, false, vec![late]).await.expect(204);
    muster_controller::reconcile::driver::run_pass(&world.app, muster_controller::wake::Loop::Disks).await;
    assert_eq!(world.get(&path(id)).await.text("/state"), "detaching");
    // Taken back, it is awaited again. What the node says to that is no answer to the next detach.
    let stays = attach(&world, "db.0", json!({ "disk": id })).await.expect(200);
    assert_eq!(stays.text("/state"), "attaching");
    detach(&world, id).await.expect(202);
    // It is in no snapshot, and hinders none.
    let cut = json!({ "name": "s", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    told(node, "db.0", |told| told.disks.get(2).is_some_and(|disk| !disk.in_guest)).await;
    node.script(|s| s.mute = false);
    let detached = becomes(&world, id, "detached").await;
    assert_eq!((&detached.body["version"], detached.text("/detached_from")), (&more.body["version"], "db.0"));
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s").await.number("/members"), 2);
    told(node, "db.0", |told| told.disks.len() == 2 && told.left.is_empty()).await;
    world.delete(&path(id)).await.expect(204);
    // So does one that starts, and whose start may wait for the disk.
    node.script(|s| s.stuck = ["db.0".to_owned()].into());
    let reboot = world.post("/v1/instances/db.0/reboot", Value::Null).await.expect(202);
    let missing = attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.expect(201);
    assert_eq!(world.get("/v1/instances/db.0").await.text("/state"), "starting");
    detach(&world, missing.text("/id")).await.expect(202);
    becomes(&world, missing.text("/id"), "detached").await;
    node.script(|s| s.stuck.clear());
    world.ends(&reboot, "succeeded").await;
    // An instance that has failed gives such a disk back as well.
    let late = attach(&world, "db.0", json!({ "name": "late", "size_bytes": MIB })).await.expect(201);
    node.script(|s| s.fails = true);
    let reboot = world.post("/v1/instances/db.0/reboot", Value::Null).await.expect(202);
    world.ends(&reboot, "failed").await;
    detach(&world, "db.0/data").await.refused(409, "wrong_state");
    detach(&world, late.text("/id")).await.expect(202);
    becomes(&world, late.text("/id"), "detached").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_says_what_its_node_cannot_do_with_it_and_claims_no_more() {
    let (world, nodes) = db(1, 1).await;
    becomes(&world, "db.0/data", "attached").await;
    nodes[0].script(|s| s.unmade = vec!["more".to_owned()]);
    attach(&world, "db.0", json!({ "name": "more", "size_bytes": MIB })).await.expect(201);
    let said = async |disk: &str| {
        let shown = world.get(&path(disk)).await;
        (shown.text("/state").to_owned(), shown.body["detail"].as_str().map(str::to_owned))
    };
    let says = |state: &str, detail: &str| (state.to_owned(), Some(detail.to_owned()));
    eventually("why it is not there", async || (said("db.0/more").await.1.is_some()).then_some(())).await;
    assert_eq!(said("db.0/more").await, says("attaching", "no space"));
    assert_eq!(said("db.0/data").await, ("attached".to_owned(), None), "it is not its trouble");
    let desired = nodes[0].desired();
    let tells = async |lacks: Option<GuestLacks>, detail: &str| {
        let running = muster_api::node_protocol::Observed::Running;
        let mut report = super::harness::report_of(&desired.assignments[0], running);
        let disk = reported(&desired.assignments[0], 2 * MIB);
        report.disks = vec![DiskReport { guest_lacks: lacks, detail: Some(detail.to_owned()), ..disk }];
        nodes[0].report(&desired, false, vec![report]).await.expect(204);
        said("db.0/data").await
    };
    assert_eq!(tells(Some(GuestLacks::Size), "not heard").await, says("growing", "not heard"));
    assert_eq!(tells(None, "busy").await, says("attached", "busy"));
    assert_eq!(tells(Some(GuestLacks::Disk), "no slot").await, says("attaching", "no slot"));
    // What its guest did not get is detached all the same.
    let id = world.get(&path("db.0/data")).await.text("/id").to_owned();
    detach(&world, &id).await.expect(202);
    becomes(&world, &id, "detached").await;
    assert_eq!(said("db.0/more").await, says("attaching", "no space"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_has_a_bounded_number_of_detached_disks() {
    let (world, _nodes) = db(1, 2).await;
    for disk in ["db.0/data", "db.1/data"] {
        becomes(&world, disk, "attached").await;
    }
    let id = detach(&world, "db.0/data").await.expect(202).text("/id").to_owned();
    becomes(&world, &id, "detached").await;
    let copies = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999)
        INSERT INTO detached_disks (id, project, name, size_bytes, version, saved_at, instance, instance_name, created_at,
            updated_at, revision, seq)
        SELECT substr(d.id, 1, 32) || (1000 + n), project, 'copy', size_bytes, version, saved_at, instance, instance_name,
            created_at, updated_at, revision, seq + 1000000 + n FROM detached_disks d, numbers";
    let insert = async |tx: &mut muster_controller::store::Tx| {
        sqlx::query(copies).execute(tx.conn()).await?;
        Ok::<_, muster_controller::store::StoreError>(())
    };
    world.app.store.run_tx("test", insert).await.unwrap();
    let refused = detach(&world, "db.1/data").await.refused(403, "quota_exceeded");
    assert_eq!((refused.number("/used"), refused.number("/limit")), (1000, 1000));
    assert_eq!(world.get(&path("db.1/data")).await.text("/state"), "attached");
    world.delete(&path(&id)).await.expect(204);
    detach(&world, "db.1/data").await.expect(202);
}

/// Nothing that a node holds is lost or removed because the database is an older copy than the one that ordered it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_came_to_an_instance_since_the_backup_is_taken_over_or_kept() {
    let (world, nodes) = db(1, 1).await;
    let node = &nodes[0];
    let data = becomes(&world, "db.0/data", "attached").await;
    let desired = node.desired();
    let of = &desired.assignments[0];
    // A blank one that the database has never heard of, and one that it knows as detached.
    let blank = DiskReport {
        disk: muster_api::DiskId::generate(),
        version: muster_api::VersionId::generate(),
        ahead: Some(node.root(4 * MIB)),
        ..reported(of, 4 * MIB)
    };
    let tells = async |desired: &muster_api::node_protocol::Desired, disks: Vec<DiskReport>| {
        let running = muster_api::node_protocol::Observed::Running;
        let mut report = super::harness::report_of(&desired.assignments[0], running);
        report.disks = disks;
        node.report(desired, false, vec![report]).await.expect(204);
    };
    // Without its root, nobody could read it elsewhere: its node keeps it and says so.
    tells(&desired, vec![DiskReport { ahead: None, ..blank.clone() }]).await;
    world.get(&path(&blank.disk.to_string())).await.refused(404, "not_found");
    tells(&desired, vec![blank.clone()]).await;
    let taken = world.get(&path(&blank.disk.to_string())).await.expect(200);
    assert_eq!((taken.text("/state"), taken.number("/size_bytes")), ("attached", 4 * MIB));
    assert!(taken.text("/name").starts_with("found-"), "{}", taken.body);
    assert_eq!(taken.body["version"], json!(blank.version));
    world.get(&format!("/v1/versions/{}", blank.version)).await.expect(200);
    let named = told(node, "db.0", |told| told.disks.len() == 3).await;
    assert_eq!((named.disks[2].disk, named.disks[2].in_guest), (blank.disk, true));
    assert_eq!(told_states(&world, taken.text("/id")).await, ["attached"]);

    node.script(|s| s.removes = false);
    let id = data.text("/id").to_owned();
    detach(&world, &id).await.expect(202);
    becomes(&world, &id, "detached").await;
    let left = told(node, "db.0", |told| !told.left.is_empty()).await.left[0].clone();
    node.script(|s| s.mute = true);
    let desired = node.desired();
    let copy = DiskReport { disk: left.disk, version: left.version, ..reported(of, 2 * MIB) };
    tells(&desired, vec![copy.clone()]).await;
    assert_eq!(world.get(&path(&id)).await.text("/state"), "detached", "it is about to be removed");
    let later = DiskReport {
        version: muster_api::VersionId::generate(),
        ahead: Some(muster_api::node_protocol::VersionRoot {
            commit: Some(muster_api::CommitId::generate()),
            ..node.root(2 * MIB)
        }),
        ..copy
    };
    // What a node says that has not heard of everything may be of before.
    let stale = muster_api::node_protocol::Desired { revision: desired.revision - 1, ..desired.clone() };
    tells(&stale, vec![later.clone()]).await;
    assert_eq!(world.get(&path(&id)).await.text("/state"), "detached");
    tells(&desired, vec![later.clone()]).await;
    assert_eq!(world.get(&path(&id)).await.text("/state"), "detached", "somebody has to decide");
    // Nobody knows what its version consists of, so nothing is swept until then.
    world.app.sweep_pass().await.unwrap();
    let pool = world.get("/v1/pools/default").await;
    assert_eq!(pool.text("/sweep/state"), "held");
    assert!(pool.text("/sweep/reason").contains("attach that disk to the instance"), "{}", pool.body);
    // It is no old copy that goes away, so its node may have the disk again, with all that it holds there.
    attach(&world, "db.0", json!({ "disk": id })).await.expect(201);
    tells(&desired, vec![later.clone()]).await;
    let taken = world.get(&path(&id)).await.expect(200);
    assert_eq!((taken.text("/state"), taken.text("/instance_name")), ("attached", "db.0"));
    assert_eq!(taken.body["version"], json!(later.version));
}
