//! Nodes: joining, heartbeats, silence, cordon, removal, the membership record.

use std::time::Duration;

use muster_api::{
    InstanceId, NodeId, RunId,
    condition::{Condition, ConditionKind},
    node::{Node, NodeState, ObjectAmount, PoolUse, Repair, Scrub, ScrubRound},
    node_protocol::{
        Desired, Heartbeat, HeartbeatAnswer, Incarnation, InstanceReport, JoinAnswer, Moved, MovedBetween, Observed,
        RenewAnswer, Report,
    },
};
use muster_controller::{
    store::{StoreError, Tx},
    wake::Loop,
};
use serde_json::{Value, json};
use storage_core::membership::Membership;

use super::world::{Agent, World};

async fn node(world: &World, name: &str) -> Node {
    world.get(&format!("/v1/nodes/{name}")).await.ok(200)
}

fn membership(world: &World) -> Membership {
    (*world.app.pool.membership()).clone()
}

#[tokio::test]
async fn a_node_joins_is_heard_and_listed() {
    let world = World::new().await;
    let empty = membership(&world);
    assert_eq!((empty.epoch, empty.members.len(), empty.clients.len()), (1, 0, 1));
    let token = world.make_token(json!({ "role": "node" })).await;
    let mut agent = Agent::new("alpha.1");
    world.join(&mut agent, &token).await;
    let joined = agent.joined.as_ref().expect("joined");
    assert_eq!((joined.name.as_str(), joined.cluster, joined.node_port), ("alpha.1", world.app.cluster, 7401));
    let before = node(&world, "alpha.1").await;
    assert_eq!((before.state, before.schedulable, before.last_seen_at), (NodeState::Joining, true, None));
    let answer: HeartbeatAnswer = world.beat(&agent, &agent.beat()).await.ok(200);
    assert_eq!(answer.incarnation, world.app.incarnation());
    let now = node(&world, &agent.id().to_string()).await;
    assert_eq!((now.state, now.capacity.cpus, now.pool.limit_bytes), (NodeState::Ready, 4, 10 << 30));
    assert_eq!(now.last_seen_at, Some(world.app.clock.now()));
    let record = membership(&world);
    assert_eq!((record.members.len(), record.members[0].weight), (1, 10));
    assert_eq!(record.members[0].key_sha256, agent.caller.expect("a key").key_sha256);
    // Telling the same again changes nothing.
    let epoch = record.epoch;
    assert_eq!(membership(&world).epoch, epoch);
}

#[tokio::test]
async fn a_token_allows_its_number_of_joins_and_a_repeated_join_costs_none() {
    let world = World::new().await;
    let token = world.make_token(json!({ "role": "node" })).await;
    let agent = Agent::new("a");
    let first: JoinAnswer = world.try_join(&token, &agent.join_request()).await.ok(200);
    let again: JoinAnswer = world.try_join(&token, &agent.join_request()).await.ok(200);
    assert_eq!(first.node, again.node);
    world.try_join(&token, &Agent::new("b").join_request()).await.refused(401, "unauthenticated");
    // Another key with a known store: somebody copied the data folder.
    let two = world.make_token(json!({ "role": "node", "uses": 2 })).await;
    let copy = Agent { store: agent.store, ..Agent::new("c") };
    world.try_join(&two, &copy.join_request()).await.refused(403, "forbidden");
    world.try_join(&two, &Agent::new("d").join_request()).await.ok::<Value>(200);
    world.try_join(&two, &Agent::new("e").join_request()).await.ok::<Value>(200);
    world.try_join(&two, &Agent::new("f").join_request()).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn who_does_not_belong_is_refused_clearly() {
    let world = World::new().await;
    let other = World::new().await;
    world.agent("a").await;
    let token = world.make_token(json!({ "role": "node", "uses": 9 })).await;
    let taken = world.try_join(&token, &Agent::new("a").join_request()).await.refused(409, "name_taken");
    assert_eq!(taken["existing"], world.get("/v1/nodes/a").await.json()["id"]);
    let foreign = other.make_token(json!({ "role": "node" })).await;
    let refused = world.try_join(&foreign, &Agent::new("b").join_request()).await.refused(401, "unauthenticated");
    assert!(refused["detail"].as_str().expect("text").contains(&other.app.cluster.to_string()));
    world.try_join(&world.token, &Agent::new("b").join_request()).await.refused(401, "unauthenticated");
    let mut newer = Agent::new("b").join_request();
    newer.protocol = 99;
    assert_eq!(world.try_join(&token, &newer).await.refused(422, "invalid")["errors"][0]["pointer"], "/protocol");
    let mut nowhere = Agent::new("b").join_request();
    nowhere.advertise = "0.0.0.0:7500".to_owned();
    assert_eq!(world.try_join(&token, &nowhere).await.refused(422, "invalid")["errors"][0]["pointer"], "/advertise");
    let mut forged = Agent::new("b").join_request();
    forged.csr_pem = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned();
    assert_eq!(world.try_join(&token, &forged).await.refused(422, "invalid")["errors"][0]["pointer"], "/csr_pem");
    world.clock.advance_ms(3_600_001);
    world.try_join(&token, &Agent::new("b").join_request()).await.refused(401, "unauthenticated");
    // The refusals used the token not once and left no node.
    let list: Value = world.get("/v1/nodes").await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_node_door_identifies_nodes_by_their_key() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    world.node_call(None, "POST", "/node/v1/heartbeat", "{}").await.refused(401, "unauthenticated");
    let stranger = muster_pool::tls::PeerCaller { key_sha256: "ab".repeat(32), expired: false };
    world.node_call(Some(&stranger), "GET", "/node/v1/desired", "").await.refused(401, "unlisted");
    // With an expired certificate only renewing works.
    let old = muster_pool::tls::PeerCaller { expired: true, ..agent.caller.clone().expect("a key") };
    world.node_call(Some(&old), "GET", "/node/v1/desired", "").await.refused(401, "unauthenticated");
    let renew = json!({ "csr_pem": agent.csr() }).to_string();
    let renewed: RenewAnswer = world.node_call(Some(&old), "POST", "/node/v1/renew", &renew).await.ok(200);
    let certificate = &muster_pool::tls::certificates("certificate", &renewed.certificate_pem).expect("PEM")[0];
    assert_eq!(muster_pool::tls::fingerprint(certificate).expect("a key"), old.key_sha256);
    let another = json!({ "csr_pem": Agent::new("x").csr() }).to_string();
    world.node_call(Some(&old), "POST", "/node/v1/renew", &another).await.refused(403, "forbidden");
}

/// A start of an agent process, as the agent sends it.
fn run_start(world: &World, run: RunId, follows: &[RunId], place: &str) -> String {
    let start = json!({
        "protocol": 1, "incarnation": world.app.incarnation(), "run": run, "follows": follows, "accepted": false, "place": place,
        "advertise": "10.0.0.9:7450",
    });
    start.to_string()
}

#[tokio::test]
async fn two_of_one_identity_never_act_at_the_same_time() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let caller = agent.caller.as_ref();
    let start = async |run, follows: &[RunId], place| {
        world.node_call(caller, "POST", "/node/v1/runs", &run_start(&world, run, follows, place)).await
    };
    let beat = serde_json::to_string(&agent.beat()).expect("JSON");
    let heard =
        async |run: RunId| world.node_call_as(caller, &run.to_string(), "POST", "/node/v1/heartbeat", &beat).await;
    let [original, copy, next, stranger] = std::array::from_fn(|_| RunId::generate());
    start(original, &[], "same").await.empty(204);
    heard(original).await.ok::<Value>(200);
    // A copy of the folder: refused while the original is heard, and both the node and its events tell of it.
    start(copy, &[original], "adopted").await.refused(409, "superseded");
    heard(copy).await.refused(409, "superseded");
    world.node_call(caller, "GET", "/node/v1/desired", "").await.refused(409, "superseded");
    heard(original).await.ok::<Value>(200);
    let shown = node(&world, "a").await;
    assert_eq!(shown.conditions[0].kind, ConditionKind::IdentityCopied);
    assert!(shown.conditions[0].detail.contains("10.0.0.9:7450"), "{}", shown.conditions[0].detail);
    world.clock.advance_ms(600_000);
    assert!(node(&world, "a").await.conditions.is_empty());
    // The same process may register again. A restart on the spot needs no waiting; a reboot does.
    heard(original).await.ok::<Value>(200);
    start(original, &[], "same").await.empty(204);
    start(next, &[original], "rebooted").await.refused(503, "unavailable");
    start(next, &[original], "same").await.empty(204);
    heard(original).await.refused(409, "superseded");
    heard(next).await.ok::<Value>(200);
    // The original is silent: an operator's word is enough. What was replaced comes back only as a copy.
    world.clock.advance_ms(31_000);
    start(copy, &[next], "adopted").await.empty(204);
    start(stranger, &[original], "same").await.refused(409, "superseded");
    start(stranger, &[], "same").await.refused(409, "superseded");
}

#[tokio::test]
async fn a_node_is_silent_after_30_s_and_ready_at_its_next_heartbeat() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let epoch = membership(&world).epoch;
    world.clock.advance_ms(30_000);
    world.pass(Loop::Nodes).await;
    assert_eq!(node(&world, "a").await.state, NodeState::Ready);
    world.clock.advance_ms(1);
    world.pass(Loop::Nodes).await;
    let silent = node(&world, "a").await;
    assert_eq!((silent.state, silent.reason.is_some()), (NodeState::Silent, true));
    world.beat(&agent, &agent.beat()).await.ok::<Value>(200);
    let back = node(&world, "a").await;
    assert_eq!((back.state, back.reason), (NodeState::Ready, None));
    // A silent node stays in the membership record.
    assert_eq!(membership(&world).epoch, epoch);
}

#[tokio::test]
async fn a_node_that_stays_silent_owns_no_objects_until_it_is_heard_again() {
    let world = World::new().await;
    let agents = [world.agent("a").await, world.agent("b").await, world.agent("c").await, world.agent("d").await];
    let epoch = membership(&world).epoch;
    let others_beat = async |silent: usize, ms: i64| {
        // In steps, so that the others are not silent meanwhile.
        for _ in 0..ms / 25_000 {
            world.clock.advance_ms(25_000);
            for agent in &agents[silent..] {
                world.beat(agent, &agent.beat()).await.ok::<Value>(200);
            }
            world.pass(Loop::Nodes).await;
        }
    };
    let owners = || membership(&world).members.iter().filter(|m| m.owns_objects()).count();
    others_beat(1, 600_000).await;
    assert_eq!((membership(&world).epoch, owners(), node(&world, "a").await.out), (epoch, 4, false), "down is not out");
    others_beat(1, 25_000).await;
    assert_eq!((membership(&world).epoch, owners()), (epoch + 1, 3));
    let out = node(&world, "a").await;
    assert!(out.out && out.reason.as_ref().is_some_and(|reason| reason.contains("other nodes copy")), "{out:?}");
    assert_eq!(membership(&world).members.len(), 4, "it can still be read from");
    world.beat(&agents[0], &agents[0].beat()).await.ok::<Value>(200);
    assert_eq!((membership(&world).epoch, owners()), (epoch + 2, 4));
    let back = node(&world, "a").await;
    assert_eq!((back.state, back.out, back.reason), (NodeState::Ready, false, None));

    // However many are silent, half of the nodes stay in.
    others_beat(3, 700_000).await;
    assert_eq!(owners(), 2);
    assert!(!node(&world, "d").await.out);
    let events = world.send("GET", "/v1/events", &[("accept", "application/json")], "").await.json();
    let told = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|e| e["data"]["reason"].to_string().contains("is out"));
    assert_eq!(told.count(), 3);
}

#[tokio::test]
async fn a_node_whose_disk_failed_owns_no_objects_and_takes_no_instances_until_it_works() {
    let world = World::new().await;
    let agents = [world.agent("a").await, world.agent("b").await, world.agent("c").await];
    let owners = || membership(&world).members.iter().filter(|m| m.owns_objects()).count();
    let condition = |kind| Condition { kind, detail: "/data/pool: sync failed".to_owned() };
    let failed = Heartbeat { conditions: vec![condition(ConditionKind::DiskFailed)], ..agents[0].beat() };
    let epoch = membership(&world).epoch;
    for _ in 0..2 {
        world.beat(&agents[0], &failed).await.ok::<Value>(200);
        world.pass(Loop::Nodes).await;
    }
    assert_eq!((membership(&world).epoch, owners()), (epoch + 1, 2), "at once, and once");
    let out = node(&world, "a").await;
    assert!(out.out && out.reason.as_ref().is_some_and(|reason| reason.contains("its disk failed")), "{out:?}");
    assert_eq!(out.state, NodeState::Ready, "its guests go on");
    let problems = world.get("/v1/summary").await.json()["problems"].clone();
    assert_eq!(problems[0]["kind"], "disk_failed", "{problems}");

    world.beat(&agents[0], &agents[0].beat()).await.ok::<Value>(200);
    assert_eq!((membership(&world).epoch, owners()), (epoch + 2, 3));
    let back = node(&world, "a").await;
    assert_eq!((back.out, back.reason), (false, None));

    // A full disk is no failed one.
    let full = vec![condition(ConditionKind::DiskFull), condition(ConditionKind::NodeFull)];
    world.beat(&agents[0], &Heartbeat { conditions: full, ..agents[0].beat() }).await.ok::<Value>(200);
    world.pass(Loop::Nodes).await;
    assert_eq!((membership(&world).epoch, owners()), (epoch + 2, 3));

    // However many disks fail, as many nodes stay in as there are to be copies.
    for agent in &agents {
        let failed = Heartbeat { conditions: vec![condition(ConditionKind::DiskFailed)], ..agent.beat() };
        world.beat(agent, &failed).await.ok::<Value>(200);
    }
    world.pass(Loop::Nodes).await;
    assert_eq!(owners(), 2);
}

#[tokio::test]
async fn no_node_goes_out_where_copies_would_become_fewer() {
    let world = World::new().await;
    let (_a, b) = (world.agent("a").await, world.agent("b").await);
    for _ in 0..60 {
        world.clock.advance_ms(25_000);
        world.beat(&b, &b.beat()).await.ok::<Value>(200);
        world.pass(Loop::Nodes).await;
    }
    assert_eq!(node(&world, "a").await.state, NodeState::Silent);
    assert!(membership(&world).members.iter().all(|m| m.owns_objects()));
}

#[tokio::test]
async fn how_far_repair_and_scrub_are_shows_in_the_node() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    assert_eq!(node(&world, "a").await.repair, None);
    let missing = ObjectAmount { objects: 3, bytes: 700 };
    let repair = Some(Repair { membership_epoch: 1, unchecked_objects: 9, missing, ..Repair::default() });
    let began_at = world.app.clock.now();
    let round = ScrubRound { began_at, ended_at: None, objects: 5, bytes: 800, bad: 1, unreadable: 0 };
    let scrub = Some(Scrub { now: Some(round), done_ppm: 250_000, last: None, next_at: began_at });
    world.beat(&agent, &Heartbeat { repair, scrub, ..agent.beat() }).await.ok::<Value>(200);
    let shown = node(&world, "a").await;
    assert_eq!((shown.repair, shown.scrub), (repair, scrub));
}

#[tokio::test]
async fn operators_see_what_nodes_moved_lately_and_between_which() {
    let world = World::new().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let run = RunId::generate();
    for (seconds, bytes) in [(0, 100), (3, 150)] {
        let link = MovedBetween { node: b.id(), fetched_bytes: bytes, served_bytes: 0 };
        let moved = Moved {
            run,
            fetched_bytes: bytes,
            served_bytes: 0,
            read_bytes: 2 * bytes,
            written_bytes: 0,
            links: vec![link],
        };
        world.clock.advance_ms(seconds * 1000);
        world.beat(&a, &Heartbeat { traffic: Some(moved), ..a.beat() }).await.ok::<Value>(200);
    }
    world.clock.advance_ms(57_000);
    let traffic: Value = world.get("/v1/traffic?minutes=1&node=a").await.ok(200);
    assert_eq!((&traffic["step_s"], &traffic["nodes"]), (&json!(10), &json!(1)));
    assert_eq!(traffic["series"]["fetched_bytes"], json!([50, null, null, null, null, null]));
    assert_eq!(traffic["series"]["read_bytes"][0], 100);
    let all: Value = world.get("/v1/traffic").await.ok(200);
    assert_eq!((&all["step_s"], &all["series"]["fetched_bytes"][59]), (&json!(60), &json!(50)));
    let links: Value = world.get("/v1/nodes/a/links").await.ok(200);
    let to_b = json!({ "node": b.id(), "node_name": "b", "fetched_bytes": 50, "served_bytes": 0 });
    assert_eq!(links, json!({ "items": [to_b] }));
    let unknown: Value = world.get("/v1/traffic?minutes=1&node=b").await.ok(200);
    assert_eq!((&unknown["nodes"], &unknown["series"]["fetched_bytes"][0]), (&json!(0), &Value::Null));
    world.get("/v1/traffic?minutes=61").await.refused(400, "bad_request");
    let tenant = world.make_token(json!({ "role": "tenant" })).await;
    for path in ["/v1/traffic", "/v1/nodes/a/links"] {
        world.get_as(&tenant, path).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn a_node_whose_agent_ended_in_order_is_stopped_until_it_is_heard_again() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let last = muster_api::node_protocol::Heartbeat { stopping: true, ..agent.beat() };
    world.beat(&agent, &last).await.ok::<Value>(200);
    let stopped = node(&world, "a").await;
    assert_eq!((stopped.state, stopped.reason.as_deref()), (NodeState::Stopped, Some("its agent was stopped")));
    let list: Value = world.get("/v1/nodes?state=stopped").await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let summary: Value = world.get("/v1/summary").await.ok(200);
    assert_eq!(summary["nodes"], json!({ "stopped": 1 }));
    // Time makes nothing else of it.
    world.clock.advance_ms(60_000);
    world.pass(Loop::Nodes).await;
    assert_eq!(node(&world, "a").await.state, NodeState::Stopped);
    world.beat(&agent, &agent.beat()).await.ok::<Value>(200);
    assert_eq!(node(&world, "a").await.state, NodeState::Ready);
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_other_readers_of_the_database() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    // Far more reads than there are connections, none of which ends before the heartbeat is answered.
    let (end, ended) = tokio::sync::watch::channel(false);
    let begun = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let (app, mut ended, begun) = (world.app.clone(), ended.clone(), begun.clone());
            tokio::spawn(async move {
                let read = app.store.read("test.long", async |tx| {
                    tx.position().await?;
                    begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    ended.wait_for(|ended| *ended).await.expect("the test says when");
                    Ok::<_, muster_controller::app::AppError>(())
                });
                read.await
            })
        })
        .collect();
    while begun.load(std::sync::atomic::Ordering::SeqCst) < 8 {
        tokio::task::yield_now().await;
    }
    let answer = tokio::time::timeout(Duration::from_secs(10), world.beat(&agent, &agent.beat())).await;
    answer.expect("in time").ok::<Value>(200);
    end.send_replace(true);
    for reader in readers {
        reader.await.expect("no panic").expect("reads");
    }
}

#[tokio::test]
async fn after_a_start_every_node_has_30_s_before_it_is_silent() {
    let world = World::new().await;
    world.agent("a").await;
    world.pass(Loop::Nodes).await;
    world.app.store.close().await;
    let World { dir, .. } = world;
    let world = World::open(dir).await;
    world.clock.advance_ms(29_000);
    world.pass(Loop::Nodes).await;
    assert_eq!(node(&world, "a").await.state, NodeState::Ready);
    world.clock.advance_ms(2_000);
    world.pass(Loop::Nodes).await;
    assert_eq!(node(&world, "a").await.state, NodeState::Silent);
}

#[tokio::test]
async fn heartbeats_reach_the_database_in_batches() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let stored = async || {
        let row = world.app.store.read("test", async |tx| muster_controller::store::nodes::load(tx, agent.id()).await);
        row.await.expect("read").expect("a node")
    };
    world.pass(Loop::Nodes).await;
    let revision = stored().await.revision;
    for _ in 0..3 {
        world.clock.advance_ms(1_000);
        let mut beat = agent.beat();
        beat.pool.used_bytes = 77;
        world.beat(&agent, &beat).await.ok::<Value>(200);
        world.pass(Loop::Nodes).await;
    }
    // The heartbeat is known in memory at once, and in the database a little later.
    assert_eq!(node(&world, "a").await.pool.used_bytes, 77);
    assert_eq!(stored().await.pool.used_bytes, 0);
    world.clock.advance_ms(3_000);
    world.beat(&agent, &agent.beat()).await.ok::<Value>(200);
    world.pass(Loop::Nodes).await;
    let row = stored().await;
    assert_eq!((row.last_seen_at, row.revision), (Some(world.app.clock.now()), revision));
    // What others act on is stored at once.
    let mut beat = agent.beat();
    beat.conditions = vec![Condition { kind: ConditionKind::DiskFull, detail: "x".to_owned() }];
    world.beat(&agent, &beat).await.ok::<Value>(200);
    assert_eq!(stored().await.conditions.len(), 1);
}

#[tokio::test]
async fn lost_objects_are_an_event_and_a_problem_until_they_are_back() {
    let world = World::new().await;
    let (a, _b) = (world.agent("a").await, world.agent("b").await);
    let well = a.beat();
    let mut ill = a.beat();
    ill.conditions = vec![Condition { kind: ConditionKind::ObjectsLost, detail: "2 objects".to_owned() }];
    (ill.pool.lost_objects, ill.pool.lost_bytes) = (2, 512);
    let problems = async || world.get("/v1/summary").await.json()["problems"].clone();
    assert_eq!(problems().await, json!([]));
    for _ in 0..2 {
        world.beat(&a, &ill).await.ok::<Value>(200);
    }
    assert_eq!(problems().await[0]["kind"], "objects_lost");
    assert_eq!(problems().await[0]["count"], 1);
    assert_eq!(node(&world, "a").await.pool.lost_objects, 2);
    world.beat(&a, &well).await.ok::<Value>(200);
    assert_eq!(problems().await, json!([]));
    let events = world.send("GET", "/v1/events", &[("accept", "application/json")], "").await.json();
    let told = events["items"].as_array().expect("a list").iter().filter(|e| e["kind"] == "node.condition");
    let told: Vec<_> = told.map(|e| json!([e["target"]["name"], e["data"]["condition"], e["data"]["holds"]])).collect();
    assert_eq!(told, [json!(["a", "objects_lost", true]), json!(["a", "objects_lost", false])]);
}

#[tokio::test]
async fn conditions_of_nodes_are_problems_for_operators_and_for_nobody_else() {
    let world = World::new().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let condition = |kind| Condition { kind, detail: "as it says".to_owned() };
    let mut beat = a.beat();
    beat.conditions = vec![condition(ConditionKind::NoKvm), condition(ConditionKind::ClockOff)];
    world.beat(&a, &beat).await.ok::<Value>(200);
    let mut beat = b.beat();
    beat.conditions = vec![condition(ConditionKind::NoKvm), condition(ConditionKind::DiskFull)];
    world.beat(&b, &beat).await.ok::<Value>(200);
    let problems = world.get("/v1/summary").await.json()["problems"].clone();
    let told: Vec<_> = problems.as_array().expect("a list").iter().map(|p| json!([p["kind"], p["count"]])).collect();
    assert_eq!(told, [json!(["disk_full", 1]), json!(["clock_off", 1]), json!(["no_kvm", 2])], "{problems}");
    let tenant = world.make_token(json!({ "role": "tenant" })).await;
    assert_eq!(world.get_as(&tenant, "/v1/summary").await.json()["problems"], json!([]));
}

#[tokio::test]
async fn address_and_weight_open_an_epoch_and_reach_every_node() {
    let world = World::new().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let before = membership(&world);
    let desired = async |agent: &Agent, after: u64| {
        let path = format!("/node/v1/desired?after={after}&wait_s=0");
        world.node_call(agent.caller.as_ref(), "GET", &path, "").await
    };
    let first: Desired = desired(&b, 0).await.ok(200);
    assert_eq!(desired(&b, first.revision).await.status, 204);
    let mut beat = a.beat();
    beat.advertise = "127.0.0.1:7999".to_owned();
    world.beat(&a, &beat).await.ok::<Value>(200);
    let record = membership(&world);
    assert_eq!(record.epoch, before.epoch + 1);
    assert!(record.members.iter().any(|m| m.address == "127.0.0.1:7999"));
    assert!(record.members.is_sorted_by_key(|m| m.node));
    let second: Desired = desired(&b, first.revision).await.ok(200);
    let read = muster_pool::membership::verify(&second.membership, &world.app.trusted_ca, world.app.cluster);
    assert_eq!(read.expect("signed by the CA"), record);
    beat.pool = PoolUse { limit_bytes: 50 << 30, ..beat.pool };
    world.beat(&a, &beat).await.ok::<Value>(200);
    assert_eq!(membership(&world).epoch, before.epoch + 2);
}

#[tokio::test]
async fn a_poll_of_the_desired_state_waits_for_a_change() {
    let world = World::new().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let first: Desired = world.node_call(b.caller.as_ref(), "GET", "/node/v1/desired", "").await.ok(200);
    let path = format!("/node/v1/desired?after={}&wait_s=30", first.revision);
    let began = std::time::Instant::now();
    let (answer, ()) = futures::join!(world.node_call(b.caller.as_ref(), "GET", &path, ""), async {
        tokio::task::yield_now().await;
        let mut beat = a.beat();
        beat.advertise = "127.0.0.1:7998".to_owned();
        world.beat(&a, &beat).await.ok::<Value>(200);
    });
    assert!(answer.ok::<Desired>(200).revision > first.revision);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn an_incarnation_that_could_not_be_committed_has_not_begun() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let ours = world.app.incarnation();
    let sql = async |text: &'static str| {
        let run = async |tx: &mut Tx| -> Result<(), StoreError> {
            sqlx::query(text).execute(tx.conn()).await?;
            Ok(())
        };
        world.app.store.run_tx("test", run).await.expect(text);
    };
    // The database takes all statements of the transaction, and refuses its commit.
    sql("CREATE TABLE no (id BIGINT PRIMARY KEY)").await;
    sql("CREATE TABLE wants (id BIGINT REFERENCES no (id) DEFERRABLE INITIALLY DEFERRED)").await;
    sql("CREATE TRIGGER refuse AFTER UPDATE ON cluster BEGIN INSERT INTO wants VALUES (1); END").await;
    let seen = Incarnation { number: ours.number + 5, random: 1 };
    let beat = muster_api::node_protocol::Heartbeat { incarnation: seen, ..agent.beat() };
    world.beat(&agent, &beat).await.refused(500, "internal");
    assert_eq!(world.app.incarnation(), ours);
    sql("DROP TRIGGER refuse").await;
    let answer: HeartbeatAnswer = world.beat(&agent, &beat).await.ok(200);
    assert_eq!((answer.incarnation.number, world.app.incarnation()), (seen.number + 1, answer.incarnation));
}

#[tokio::test]
async fn a_node_that_has_seen_another_history_begins_a_new_incarnation() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let ours = world.app.incarnation();
    let with = |incarnation| muster_api::node_protocol::Heartbeat { incarnation, ..agent.beat() };
    let forked = Incarnation { random: ours.random ^ 1, ..ours };
    let answer: HeartbeatAnswer = world.beat(&agent, &with(forked)).await.ok(200);
    assert_eq!((answer.incarnation.number, world.app.incarnation()), (ours.number + 1, answer.incarnation));
    let newer = Incarnation { number: ours.number + 5, ..ours };
    let answer: HeartbeatAnswer = world.beat(&agent, &with(newer)).await.ok(200);
    assert_eq!(answer.incarnation.number, ours.number + 6);
    let older = Incarnation { number: ours.number - 1, random: 5 };
    world.beat(&agent, &with(older)).await.ok::<Value>(200);
    let absurd = Incarnation { number: u64::MAX, random: 5 };
    world.beat(&agent, &with(absurd)).await.refused(422, "invalid");
    assert_eq!(world.app.incarnation(), answer.incarnation);
}

#[tokio::test]
async fn a_repeated_cordon_changes_nothing() {
    let world = World::new().await;
    world.agent("a").await;
    let post = async |verb: &str, etag: &str| {
        world.send("POST", &format!("/v1/nodes/a/{verb}"), &[("if-match", etag)], "").await
    };
    let etag = node(&world, "a").await.etag;
    let cordoned: Node = post("cordon", &etag).await.ok(200);
    assert!(!cordoned.schedulable);
    post("uncordon", &etag).await.refused(412, "precondition_failed");
    let again: Node = post("cordon", "").await.ok(200);
    assert_eq!(again.etag, cordoned.etag);
    let back: Node = post("uncordon", &again.etag).await.ok(200);
    assert!(back.schedulable);
    assert_eq!(back.etag, node(&world, "a").await.etag);
    world.send("POST", "/v1/nodes/nobody/cordon", &[], "").await.refused(404, "not_found");
}

#[tokio::test]
async fn an_empty_node_can_be_taken_out() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let epoch = membership(&world).epoch;
    assert_eq!(world.delete("/v1/nodes/a?dry_run=true").await.ok::<Value>(200)["freed_bytes"], 0);
    assert_eq!(world.delete("/v1/nodes/a").await.status, 204);
    world.delete("/v1/nodes/a").await.refused(404, "not_found");
    let record = membership(&world);
    assert_eq!((record.epoch, record.members.len()), (epoch + 1, 0));
    world.beat(&agent, &agent.beat()).await.refused(401, "unauthenticated");
    let shown = world.get("/v1/nodes?deleted=true").await.ok::<Value>(200);
    assert_eq!(shown["items"][0]["state"], "deleted");
    // Its store may not join again; its name is free.
    let token = world.make_token(json!({ "role": "node", "uses": 2 })).await;
    world.try_join(&token, &agent.join_request()).await.refused(403, "forbidden");
    world.try_join(&token, &Agent::new("a").join_request()).await.ok::<Value>(200);
}

#[tokio::test]
async fn nodes_are_listed_by_state() {
    let world = World::new().await;
    world.agent("a").await;
    let token = world.make_token(json!({ "role": "node" })).await;
    world.join(&mut Agent::new("b"), &token).await;
    let names = async |query: &str| {
        let list: Value = world.get(&format!("/v1/nodes{query}")).await.ok(200);
        let items = list["items"].as_array().expect("items").iter();
        items.map(|n| n["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("").await, "a b");
    assert_eq!(names("?state=joining").await, "b");
    assert_eq!(names("?state=ready&state=silent").await, "a");
    world.get(&format!("/v1/nodes/{}", NodeId::generate())).await.refused(404, "not_found");
}

#[tokio::test]
async fn the_node_door_takes_larger_bodies_than_the_people_door() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let one = |_| InstanceReport {
        instance: InstanceId::generate(),
        generation: 1,
        boot: 1,
        state: Observed::Running,
        reason: None,
        detail: Some("x".repeat(400)),
        disk_at: None,
        started_at: None,
        ready_at: None,
        reboots: 0,
        conditions: Vec::new(),
        disks: Vec::new(),
        absent: Vec::new(),
        guest: None,
        found: None,
    };
    let report = Report { desired_revision: 1, full: true, instances: (0..4000).map(one).collect() };
    let body = serde_json::to_string(&report).expect("JSON");
    assert!(body.len() > 2 << 20);
    let heard = world.node_call(agent.caller.as_ref(), "POST", "/node/v1/report", &body).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    let label = "x".repeat(1 << 20);
    world.post("/v1/images", json!({ "name": "a", "labels": { "a": label } })).await.refused(413, "too_large");
}
