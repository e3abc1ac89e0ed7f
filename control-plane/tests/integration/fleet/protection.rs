//! Protection of deployments: scheduled snapshots, what becomes of old ones, and what goes before them.

use std::sync::Arc;

use muster_api::{Reason, Timestamp, node_protocol::SILENT_AFTER_S};
use muster_controller::store::{
    StoreError,
    protections::{self, ProtectionRow},
};
use serde_json::{Value, json};

use super::harness::{MIB, Node, Reply, World, eventually};
use crate::clock::ManualClock;

/// A controller whose clock stands, and nodes whose guests write.
struct Cluster {
    world: World,
    nodes: Vec<Node>,
    clock: ManualClock,
}

const MINUTE_MS: i64 = 60_000;

impl Cluster {
    async fn new(nodes: u32) -> Self {
        // 2023-11-14 22:13:20
        let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
        let world = World::with_clock(Arc::new(clock.clone())).await;
        world.image("debian", MIB).await;
        let nodes = world.nodes(nodes).await;
        nodes.iter().for_each(|node| node.script(|s| s.dirty_bytes = 8192));
        Self { world, nodes, clock }
    }

    async fn deploy(&self, name: &str, count: u64, protect: Value) {
        let order = json!({ "name": name, "source": { "image": "debian" }, "count": count, "runtime": "none", "protect": protect });
        let operation = self.world.deploy(order).await.expect(202);
        self.world.ends(&operation, "succeeded").await;
    }

    /// Time passes, in which all nodes but those that are mute are heard from.
    async fn pass(&self, ms: i64) {
        let step = i64::try_from(SILENT_AFTER_S).unwrap() * 1000 / 2;
        let mut left = ms;
        while left > 0 {
            self.clock.advance_ms(step.min(left));
            left -= step;
            for node in self.nodes.iter().filter(|node| !node.script.lock().unwrap().mute) {
                node.beat().await;
            }
        }
    }

    async fn protection(&self, name: &str) -> Value {
        self.world.get(&format!("/v1/deployments/{name}")).await.expect(200).body["protection"].clone()
    }

    /// The snapshots of a deployment, oldest first.
    async fn snapshots(&self, name: &str) -> Vec<Value> {
        let page = self.world.get(&format!("/v1/snapshots?deployment={name}")).await.expect(200);
        page.body["items"].as_array().unwrap().clone()
    }

    async fn ready(&self, name: &str) -> Vec<String> {
        let ready = |s: &&Value| s["state"] == "ready";
        let name_of = |s: &Value| s["name"].as_str().unwrap().to_owned();
        self.snapshots(name).await.iter().filter(ready).map(name_of).collect()
    }

    /// Waits until the protection is as wanted.
    async fn eventually(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.protection(name).await).filter(&wanted)).await
    }

    /// The next one is due, and ends. Returns its name.
    async fn next_one(&self, name: &str) -> String {
        let before = self.protection(name).await["last_snapshot"].clone();
        self.pass(5 * MINUTE_MS).await;
        let now = self.eventually(name, "the next snapshot", |p| p["last_snapshot"] != before).await;
        now["last_snapshot_name"].as_str().unwrap().to_owned()
    }

    async fn patch(&self, name: &str, protect: Value) -> Reply {
        self.world.call("PATCH", &format!("/v1/deployments/{name}"), json!({ "protect": protect })).await
    }

    async fn under_way(&self, name: &str) -> Value {
        self.eventually(name, "a snapshot under way", |p| !p["under_way"].is_null()).await
    }
}

fn every_5m() -> Value {
    json!({ "every": "5m" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_taken_when_it_is_due_and_goes_when_no_rule_wants_it() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 4, json!({ "every": "300s", "keep": { "last": 2 } })).await;
    let shown = cluster.world.get("/v1/deployments/web").await;
    let keep = json!({ "last": 2, "hourly": 0, "daily": 0, "weekly": 0 });
    assert_eq!(shown.body["protect"], json!({ "every": "5m", "keep": keep }));
    assert!(shown.body["protection"]["last_saved_at"].is_null() && shown.body["protection"]["trouble"].is_null());
    assert_eq!(cluster.snapshots("web").await, Vec::<Value>::new(), "a new deployment has nothing to lose yet");
    let first = cluster.next_one("web").await;
    assert!(first.starts_with("web-20231114-22") && first.ends_with('z'), "{first}");
    let snapshot = cluster.world.get(&format!("/v1/snapshots/{first}")).await.expect(200);
    assert_eq!((&snapshot.body["scheduled"], snapshot.number("/members")), (&json!(true), 4));
    assert_eq!((snapshot.text("/consistency"), snapshot.text("/deployment_name")), ("crash", "web"));
    let protection = cluster.protection("web").await;
    assert_eq!((&protection["under_way"], &protection["trouble"]), (&Value::Null, &Value::Null));
    assert_eq!(protection["last_snapshot"], snapshot.body["id"]);
    let instance = cluster.world.get("/v1/instances/web.0").await;
    assert_eq!(instance.body["saved_at"], instance.body["disks"][0]["saved_at"]);
    assert_eq!(instance.body["unsaved_bytes"], instance.body["disks"][0]["unsaved_bytes"]);
    // One that a user made, and one that a user keeps, stay; so do the two newest of the others.
    let own = json!({ "name": "own", "select": { "deployment": "web" } });
    let own = cluster.world.post("/v1/snapshots", own).await.expect(202);
    cluster.world.ends(&own, "succeeded").await;
    let path = format!("/v1/snapshots/{first}");
    let pinned = cluster.world.call("PATCH", &path, json!({ "scheduled": false })).await.expect(200);
    assert_eq!(pinned.body["scheduled"], json!(false));
    cluster.world.call("PATCH", &path, json!({ "scheduled": true })).await.refused(422, "invalid");
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(cluster.next_one("web").await);
    }
    assert_eq!(cluster.ready("web").await, [&first, "own", &taken[2], &taken[3]]);
    let fork = json!({ "name": "fork", "source": { "snapshot": taken[3] }, "runtime": "none" });
    let fork = cluster.world.deploy(fork).await.expect(202);
    cluster.world.ends(&fork, "succeeded").await;
    assert!(cluster.world.get("/v1/deployments/fork").await.body["protect"].is_null());
    // They are deleted as a user's are, with an operation.
    let operations = cluster.world.get("/v1/operations?limit=1000").await;
    let deletes = operations.body["items"].as_array().unwrap().iter().filter(|op| op["kind"] == "snapshot.delete");
    assert_eq!(deletes.count(), 2);
    // Fewer are wanted from now on.
    cluster.patch("web", json!({ "keep": null })).await.expect(200);
    assert_eq!(cluster.ready("web").await, [&first, "own", &taken[3]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_already_is_not_saved_again() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    cluster.nodes.iter().for_each(|node| node.script(|s| s.settles = true));
    let first = cluster.next_one("web").await;
    for node in &cluster.nodes {
        node.tell_whole().await;
    }
    for _ in 0..3 {
        let before = cluster.protection("web").await["last_saved_at"].clone();
        cluster.pass(5 * MINUTE_MS).await;
        cluster.eventually("web", "a later time", |p| p["last_saved_at"] != before).await;
        assert_eq!(cluster.ready("web").await, std::slice::from_ref(&first));
    }
    cluster.nodes[0].script(|s| s.settles = false);
    cluster.nodes[0].act().await;
    let second = cluster.next_one("web").await;
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_somebody_asks_for_waits_for_a_scheduled_snapshot() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    cluster.nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    cluster.pass(5 * MINUTE_MS).await;
    let under_way = cluster.under_way("web").await;
    let scheduled = format!("/v1/snapshots/{}", under_way["under_way"].as_str().unwrap());
    let order = eventually("the order", async || cluster.nodes[0].desired().cuts.first().cloned()).await;
    assert!(order.background, "nobody waits for it");
    let select = json!({ "name": "own", "select": { "instances": ["web.0"] } });
    let own = cluster.world.post("/v1/snapshots", select).await.expect(202);
    cluster.world.get(&scheduled).await.refused(404, "not_found");
    let after = cluster.protection("web").await;
    assert_eq!((&after["under_way"], &after["trouble"]), (&Value::Null, &Value::Null));
    cluster.nodes.iter().for_each(|node| node.script(|s| s.saves = true));
    for node in &cluster.nodes {
        node.act().await;
    }
    cluster.world.ends(&own, "succeeded").await;
    // It is taken again soon, not after the whole time.
    cluster.pass(MINUTE_MS).await;
    cluster.eventually("web", "the next one", |p| !p["last_snapshot"].is_null()).await;
    // A disk is detached at once, too.
    let disk = json!({ "name": "data", "size_bytes": MIB });
    let attached = cluster.world.post("/v1/instances/web.0/disks", disk).await;
    let path = format!("/v1/disks/{}", attached.text("/id"));
    eventually("the disk is there", async || {
        (cluster.world.get(&path).await.text("/state") == "attached").then_some(())
    })
    .await;
    let node = cluster.nodes.iter().find(|node| node.assignment("web.0").is_some()).unwrap();
    cluster.nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    cluster.pass(5 * MINUTE_MS).await;
    cluster.under_way("web").await;
    cluster.world.post(&format!("{path}/detach"), Value::Null).await;
    eventually("the scheduled one to give way", async || {
        let leaving = cluster.world.get(&path).await;
        (leaving.body["detail"] == "a snapshot saves what it holds" || leaving.text("/state") == "detached")
            .then_some(())
    })
    .await;
    node.script(|s| (s.saves, s.settles) = (true, true));
    node.act().await;
    eventually("the disk leaves", async || (cluster.world.get(&path).await.text("/state") == "detached").then_some(()))
        .await;
    let names = cluster.ready("web").await;
    assert_eq!(names.iter().filter(|name| name.starts_with("detach")).count(), 0, "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_left_out_and_named_and_the_others_are_protected() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, json!({ "every": "5m", "keep": { "last": 100 } })).await;
    let names = |node: &Node| node.desired().assignments.iter().map(|a| a.name.clone()).collect::<Vec<_>>();
    let (lost, left) = (names(&cluster.nodes[0]), names(&cluster.nodes[1]));
    assert_eq!((lost.len(), left.len()), (1, 1));
    // One node falls silent while its member is being saved.
    cluster.nodes[0].script(|s| s.saves = false);
    cluster.pass(5 * MINUTE_MS).await;
    cluster.under_way("web").await;
    cluster.nodes[0].script(|s| s.mute = true);
    cluster.pass(5 * MINUTE_MS).await;
    let after = cluster.eventually("web", "a snapshot of the rest", |p| !p["last_snapshot"].is_null()).await;
    let trouble = after["trouble"].as_str().unwrap();
    assert!(trouble.starts_with("left out: ") && trouble.contains(&lost[0]), "{trouble}");
    let ready = cluster.snapshots("web").await.into_iter().find(|s| s["id"] == after["last_snapshot"]).unwrap();
    assert_eq!((&ready["members"], &ready["skipped"]), (&json!(1), &json!(1)));
    let members = cluster.world.get(&format!("/v1/snapshots/{}/members", ready["id"].as_str().unwrap())).await;
    assert_eq!(members.text("/items/0/instance_name"), left[0]);
    let (world, json) = (&cluster.world, [("accept", "application/json")]);
    let events = world.call_as(&world.token, "GET", "/v1/events?limit=1000", Value::Null, &json).await.expect(200);
    let told = events.body["items"].as_array().unwrap().iter().filter(|e| e["kind"] == "deployment.protection");
    assert!(told.clone().any(|e| e["data"]["state"] == "troubled"), "{:?}", told.collect::<Vec<_>>());
    // It is heard from again.
    cluster.nodes[0].script(|s| (s.mute, s.saves) = (false, true));
    let before = cluster.protection("web").await["last_snapshot"].clone();
    cluster.pass(5 * MINUTE_MS).await;
    let whole = |p: &Value| p["trouble"].is_null() && p["last_snapshot"] != before;
    eventually("a whole snapshot", async || {
        if let Some(found) = Some(cluster.protection("web").await).filter(&whole) {
            return Some(found);
        }
        cluster.pass(MINUTE_MS).await;
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_and_tried_again_later_each_time() {
    let cluster = Cluster::new(1).await;
    cluster.deploy("web", 1, every_5m()).await;
    cluster.nodes[0].script(|s| s.refuse_cuts = vec![Reason::Busy; 6]);
    cluster.pass(5 * MINUTE_MS).await;
    let coordinated = || cluster.nodes[0].seen.lock().unwrap().coordinated.len();
    let troubled = |p: &Value| p["trouble"].as_str().is_some_and(|text| text.contains("as told"));
    // The attempts of a snapshot are a moment apart, by the clock that stands here.
    let failed = eventually("a failure", async || {
        cluster.pass(1000).await;
        Some(cluster.protection("web").await).filter(&troubled)
    })
    .await;
    assert!(failed["under_way"].is_null() && failed["last_saved_at"].is_null(), "{failed}");
    assert_eq!(cluster.snapshots("web").await, Vec::<Value>::new(), "nobody has to clear it up");
    let tried = coordinated();
    assert!(tried <= 3, "a snapshot has three attempts: {tried}");
    // Nothing happens before its time.
    muster_controller::reconcile::driver::run_pass(&cluster.world.app, muster_controller::wake::Loop::Protection).await;
    assert_eq!(cluster.protection("web").await["under_way"], Value::Null);
    // After the second failure, which is not told anew, it succeeds, and the trouble is over.
    eventually("success", async || {
        cluster.pass(10_000).await;
        let now = cluster.protection("web").await;
        (now["trouble"].is_null() && !now["last_snapshot"].is_null()).then_some(())
    })
    .await;
    assert!(coordinated() > tried);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protection_is_set_changed_and_ended() {
    let cluster = Cluster::new(1).await;
    let order = |protect: Value| json!({ "name": "web", "source": { "image": "debian" }, "count": 1, "runtime": "none", "protect": protect });
    for (protect, pointer) in [
        (json!({}), "/protect/every"),
        (json!({ "every": 300 }), "/protect/every"),
        (json!({ "every": "soon" }), "/protect/every"),
        (json!({ "every": "4m" }), "/protect/every"),
        (json!({ "every": "8d" }), "/protect/every"),
        (json!({ "every": "1h", "keep": { "last": 0 } }), "/protect/keep/last"),
        (json!({ "every": "1h", "keep": { "yearly": 1 } }), "/protect/keep/yearly"),
    ] {
        let mut dry = order(protect.clone());
        dry["dry_run"] = json!(true);
        for body in [order(protect.clone()), dry] {
            let reply = cluster.world.deploy(body).await.refused(422, "invalid");
            assert_eq!(reply.text("/errors/0/pointer"), pointer, "{protect}");
        }
    }
    cluster.world.ready("web", 1).await;
    assert!(cluster.protection("web").await.is_null());
    cluster.patch("web", Value::Null).await.expect(200);
    cluster.patch("web", json!({ "keep": { "daily": 1 } })).await.refused(422, "invalid");
    let etag = cluster.world.get("/v1/deployments/web").await.text("/etag").to_owned();
    // What it holds is saved at once, because nobody knows since when it is not.
    let patched = cluster.patch("web", json!({ "every": "2h", "keep": { "daily": 7 } })).await.expect(200);
    assert_ne!(patched.text("/etag"), etag);
    cluster.eventually("web", "a snapshot", |p| !p["last_snapshot"].is_null()).await;
    let keep = json!({ "last": 1, "hourly": 2, "daily": 7, "weekly": 0 });
    let patched = cluster.patch("web", json!({ "keep": { "hourly": 2 } })).await.expect(200);
    assert_eq!(patched.body["protect"], json!({ "every": "2h", "keep": keep }));
    let shown = cluster.world.get("/v1/deployments").await;
    assert_eq!(shown.body["items"][0]["protect"], patched.body["protect"], "in lists as well");
    // A shorter time counts from the last one.
    cluster.patch("web", json!({ "every": "5m" })).await.expect(200);
    let second = cluster.next_one("web").await;
    assert!(cluster.ready("web").await.contains(&second));
    // Its end gives up what is under way, and keeps what is there.
    cluster.nodes[0].script(|s| s.saves = false);
    cluster.pass(5 * MINUTE_MS).await;
    cluster.under_way("web").await;
    let ready = cluster.ready("web").await;
    let ended = cluster.patch("web", Value::Null).await.expect(200);
    assert!(ended.body["protect"].is_null() && ended.body["protection"].is_null());
    assert_eq!(cluster.snapshots("web").await.len(), ready.len());
    assert_eq!(cluster.ready("web").await, ready);
    // So does a delete.
    cluster.patch("web", every_5m()).await.expect(200);
    cluster.under_way("web").await;
    let gone = cluster.world.delete("/v1/deployments/web").await.expect(202);
    cluster.world.ends(&gone, "succeeded").await;
    let left = cluster.world.get("/v1/snapshots").await;
    let states: Vec<&str> =
        left.body["items"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states, vec!["ready"; ready.len()]);
}

/// Goal: the end of a protection takes nothing away that is saved, also if nobody has noted yet that it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_ready_stays_when_its_protection_ends_before_that_is_noted() {
    let cluster = Cluster::new(1).await;
    cluster.deploy("web", 1, every_5m()).await;
    let ready = cluster.next_one("web").await;
    let id = cluster.world.get("/v1/deployments/web").await.text("/id").parse().unwrap();
    let unnote = cluster.world.app.store.run_tx("test.unnote", async |tx| {
        let row = protections::load(tx, id).await?.unwrap();
        protections::save(tx, &ProtectionRow { under_way: row.last_snapshot, last_snapshot: None, ..row }).await
    });
    unnote.await.unwrap();
    cluster.patch("web", Value::Null).await.expect(200);
    assert_eq!(cluster.ready("web").await, [ready]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_failed_is_named_as_long_as_it_has_what_is_not_saved() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    let node = cluster.nodes.iter().find(|node| node.assignment("web.0").is_some()).unwrap();
    node.script(|s| s.fails = true);
    for (what, end) in [("stop", "succeeded"), ("start", "failed")] {
        let operation = cluster.world.post(&format!("/v1/instances/web.0/{what}"), json!({})).await.expect(202);
        cluster.world.ends(&operation, end).await;
    }
    cluster.next_one("web").await;
    let after = cluster.protection("web").await;
    let trouble = after["trouble"].as_str().unwrap();
    assert!(
        trouble.starts_with("left out: web.0 has failed") && trouble.ends_with("has what is not saved"),
        "{trouble}"
    );
    // Once a version has all of it, nothing is left to be saved.
    node.script(|s| s.dirty_bytes = 0);
    eventually("the report that nothing is unsaved", async || {
        node.act().await;
        let shown = cluster.world.get("/v1/instances/web.0").await;
        (shown.body["unsaved_bytes"] == json!(0)).then_some(())
    })
    .await;
    cluster.next_one("web").await;
    assert!(cluster.protection("web").await["trouble"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_never_waits_for_a_scheduled_snapshot_and_is_not_disturbed_by_one() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    let own = json!({ "name": "own", "select": { "deployment": "web" } });
    let own = cluster.world.post("/v1/snapshots", own).await.expect(202);
    cluster.world.ends(&own, "succeeded").await;
    cluster.nodes.iter().for_each(|node| node.script(|s| s.saves = false));
    cluster.pass(5 * MINUTE_MS).await;
    let scheduled = cluster.under_way("web").await["under_way"].as_str().unwrap().to_owned();
    let restore = cluster.world.post("/v1/snapshots/own/restore", json!({})).await.expect(202);
    cluster.world.get(&format!("/v1/snapshots/{scheduled}")).await.refused(404, "not_found");
    // The next one is due while the present is being kept. It takes none of the disks.
    let path = format!("/v1/operations/{}", restore.text("/id"));
    eventually("the present to be kept", async || {
        (cluster.world.get(&path).await.text("/phase") == "saving").then_some(())
    })
    .await;
    cluster.pass(MINUTE_MS).await;
    let named = |p: &Value| p["trouble"].as_str().is_some_and(|text| text.contains("is being restored"));
    let during = cluster.eventually("web", "the members to be left out", named).await;
    assert!(during["under_way"].is_null(), "{during}");
    cluster.nodes.iter().for_each(|node| node.script(|s| (s.saves, s.settles) = (true, true)));
    for node in &cluster.nodes {
        node.act().await;
    }
    cluster.world.ends(&restore, "succeeded").await;
    cluster.pass(5 * MINUTE_MS).await;
    cluster.eventually("web", "a whole snapshot", |p| p["trouble"].is_null() && !p["last_snapshot"].is_null()).await;
}

/// Goal: a deployment is protected, or somebody is told that it is not, however often others take snapshots of a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_others_save_again_and_again_keeps_the_rest_from_nothing() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    let saves = |saves: bool| cluster.nodes.iter().for_each(|node| node.script(|s| s.saves = saves));
    let own = async |n: u32| {
        let order = json!({ "name": format!("own-{n}"), "select": { "instances": ["web.0"] } });
        let own = cluster.world.post("/v1/snapshots", order).await.expect(202);
        saves(true);
        for node in &cluster.nodes {
            node.act().await;
        }
        cluster.world.ends(&own, "succeeded").await;
        saves(false);
    };
    saves(false);
    cluster.pass(5 * MINUTE_MS).await;
    let mut n = 0;
    let without = loop {
        let now = cluster.under_way("web").await;
        let id = now["under_way"].as_str().unwrap().to_owned();
        if cluster.world.get(&format!("/v1/snapshots/{id}")).await.number("/members") == 1 {
            let trouble = now["trouble"].as_str().unwrap();
            assert!(trouble.contains("others of the same disks come in between"), "{trouble}");
            break id;
        }
        n += 1;
        assert!(n < 10, "each one gives way to the next: {now}");
        own(n).await;
        cluster.pass(2 * MINUTE_MS).await;
    };
    assert!(n >= 2);
    own(n + 1).await;
    let after = cluster.protection("web").await;
    let still = |p: &Value| p["under_way"] == without.as_str() || p["last_snapshot"] == without.as_str();
    assert!(still(&after), "it has none of the disks: {after}");
    saves(true);
    for node in &cluster.nodes {
        node.act().await;
    }
    let after = cluster.eventually("web", "it to be ready", |p| p["last_snapshot"] == without.as_str()).await;
    assert_eq!(after["trouble"], "left out: others save web.0 again and again");
    // After that it is tried with all again.
    cluster.next_one("web").await;
    assert!(cluster.protection("web").await["trouble"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_with_many_protected_deployments_leaves_places_for_others() {
    let cluster = Cluster::new(1).await;
    for n in 0..6 {
        cluster.deploy(&format!("d{n}"), 1, every_5m()).await;
    }
    cluster.nodes[0].script(|s| s.saves = false);
    // The row of one of them is another project's.
    let id = cluster.world.get("/v1/deployments/d5").await.text("/id").to_owned();
    let moved = cluster.world.app.store.run_tx("test.other", async |tx| {
        let sql = "UPDATE protections SET project = 'other' WHERE deployment = $1";
        sqlx::query(sql).bind(id).execute(tx.conn()).await?;
        Ok::<_, StoreError>(())
    });
    moved.await.unwrap();
    cluster.pass(5 * MINUTE_MS).await;
    cluster.under_way("d5").await;
    let of_all = async || {
        let page = cluster.world.get("/v1/deployments").await;
        page.body["items"].as_array().unwrap().iter().filter(|d| !d["protection"]["under_way"].is_null()).count()
    };
    eventually("all places to be taken", async || (of_all().await == 4).then_some(())).await;
}

/// Goal: a clock that was ahead for a while costs no snapshot, neither one that is due nor one that is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_ahead_delays_no_snapshot_and_the_newest_one_stays() {
    let cluster = Cluster::new(1).await;
    cluster.deploy("web", 1, every_5m()).await;
    cluster.next_one("web").await;
    // The node was silent, by that clock, so a few minutes more may be needed.
    let another = async |before: Value| {
        eventually("another snapshot", async || {
            cluster.pass(MINUTE_MS).await;
            let now = cluster.protection("web").await["last_snapshot"].clone();
            (now != before).then_some(now)
        })
        .await
    };
    let first = cluster.protection("web").await["last_snapshot"].clone();
    let week_ms = 7 * 24 * 60 * MINUTE_MS;
    cluster.clock.advance_ms(week_ms);
    let ahead = another(first).await;
    cluster.clock.advance_ms(-week_ms);
    another(ahead).await;
    let is_newest = async || {
        let newest = cluster.protection("web").await["last_snapshot_name"].clone();
        (cluster.ready("web").await == [newest.as_str()?]).then_some(())
    };
    eventually("the newest, and no other, to be kept", is_newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_changes_nothing_and_only_so_many_are_under_way() {
    let mut cluster = Cluster::new(1).await;
    for n in 0..6 {
        cluster.deploy(&format!("d{n}"), 1, every_5m()).await;
    }
    cluster.nodes[0].script(|s| s.saves = false);
    cluster.pass(5 * MINUTE_MS).await;
    let under_way = async |cluster: &Cluster| {
        let page = cluster.world.get("/v1/deployments").await;
        page.body["items"].as_array().unwrap().iter().filter(|d| !d["protection"]["under_way"].is_null()).count()
    };
    eventually("some are under way", async || (under_way(&cluster).await == 4).then_some(())).await;
    cluster.world.restart().await;
    cluster.nodes[0].beat().await;
    muster_controller::reconcile::driver::run_pass(&cluster.world.app, muster_controller::wake::Loop::Protection).await;
    assert_eq!(under_way(&cluster).await, 4, "all six are due");
    cluster.nodes[0].script(|s| s.saves = true);
    for n in 0..6 {
        let done = async || {
            cluster.nodes[0].act().await;
            // After the start of a controller the node may have been silent for a moment, by the clock that stands here.
            cluster.pass(1000).await;
            (!cluster.protection(&format!("d{n}")).await["last_snapshot"].is_null()).then_some(())
        };
        eventually("all of them", done).await;
        assert_eq!(cluster.ready(&format!("d{n}")).await.len(), 1);
    }
    // They do not come together any more.
    let page = cluster.world.get("/v1/deployments").await;
    let mut next: Vec<String> =
        page.body["items"].as_array().unwrap().iter().map(|d| d["protection"]["next_at"].to_string()).collect();
    next.sort();
    next.dedup();
    assert!(next.len() > 3, "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_host_costs_what_was_written_since_the_last_scheduled_snapshot() {
    let cluster = Cluster::new(2).await;
    cluster.deploy("web", 2, every_5m()).await;
    let snapshot = cluster.next_one("web").await;
    cluster.nodes[0].tell_whole().await;
    let assignment = cluster.nodes[0].desired().assignments[0].clone();
    let members = cluster.world.get(&format!("/v1/snapshots/{snapshot}/members")).await;
    let items = members.body["items"].as_array().unwrap();
    let version = items.iter().find(|m| m["instance_name"] == assignment.name).unwrap()["version"].clone();
    let path = format!("/v1/instances/{}", assignment.name);
    let saved_at = cluster.world.get(&path).await.body["saved_at"].clone();
    cluster.nodes[0].script(|s| s.mute = true);
    cluster.world.post("/v1/nodes/n0/fence", json!({ "confirm": true })).await.expect(200);
    let refused = cluster.world.post(&format!("{path}/recover"), json!({})).await.refused(409, "data_loss");
    let loss = &refused.body["loss"][0];
    assert_eq!((&loss["version"], &loss["saved_at"], &loss["unsaved_bytes"]), (&version, &saved_at, &json!(8192)));
    assert!(refused.text("/detail").contains("goes back to its version of"), "{refused:?}");
    let accepted = cluster.world.post(&format!("{path}/recover"), json!({ "accept_loss": true })).await.expect(202);
    cluster.world.ends(&accepted, "succeeded").await;
    let recovered = cluster.world.get(&path).await;
    assert_eq!((recovered.text("/state"), &recovered.body["disks"][0]["version"]), ("running", &version));
    // It is protected at its new place as before.
    let next = cluster.next_one("web").await;
    assert_eq!(cluster.world.get(&format!("/v1/snapshots/{next}")).await.number("/members"), 2);
}
