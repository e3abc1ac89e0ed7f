//! A database that was replaced by an older copy: what nodes were told since counts, and what the copy says of them does not.

use std::{path::PathBuf, sync::Arc};

use muster_api::{
    node::{DrainState, Node, PoolUse, Repair},
    node_protocol::{FormerNode, Heartbeat, HeartbeatAnswer, JoinAnswer, JoinRequest},
    operation::{Operation, OperationState},
};
use muster_controller::{clock::SystemClock, config::Config, history, store::nodes, wake::Loop};
use muster_pool::membership::digest;
use serde_json::{Value, json};

use super::world::{Agent, World};

async fn node(world: &World, name: &str) -> Node {
    world.get(&format!("/v1/nodes/{name}")).await.ok(200)
}

async fn state(world: &World, operation: &Operation) -> OperationState {
    world.get(&format!("/v1/operations/{}", operation.id)).await.ok::<Operation>(200).state
}

async fn wants_copies(world: &World, copies: u32) {
    let body = json!({ "min_copies": copies }).to_string();
    world.send("PATCH", "/v1/pools/default", &[], &body).await.ok::<Value>(200);
}

/// A heartbeat of a node with so many objects, which works with the newest record of this database.
async fn holding(world: &World, agent: &Agent, objects: u64) -> Heartbeat {
    let (epoch, signed) =
        world.app.store.read("test", async |tx| nodes::membership(tx).await).await.expect("read").expect("a record");
    let beat = agent.beat();
    let pool = PoolUse { used_bytes: 1000 * objects, objects, free_bytes: 20 << 30, ..beat.pool };
    let incarnation = world.app.incarnation();
    Heartbeat { incarnation, membership_epoch: epoch, membership_record: Some(digest(&signed)), pool, ..beat }
}

/// The same of a node that has nothing and gets nothing any more.
fn empty(beat: Heartbeat) -> Heartbeat {
    let repair = Repair { is_empty: true, membership_epoch: beat.membership_epoch, ..Repair::default() };
    let pool = PoolUse { objects: 0, used_bytes: 0, ..beat.pool };
    Heartbeat { repair: Some(repair), pool, ..beat }
}

async fn beat(world: &World, agent: &Agent, beat: &Heartbeat) -> HeartbeatAnswer {
    world.beat(agent, beat).await.ok(200)
}

async fn backup(world: &World, name: &str) -> PathBuf {
    let file = world.dir.path().join(name);
    history::backup(&world.app.config, &file).await.expect("a backup");
    file
}

/// Ends the controller and puts the backup in place, as an operator does or behind its back.
async fn put_back(world: World, file: PathBuf, put: impl AsyncFnOnce(&Config, PathBuf)) -> World {
    let World { dir, app, .. } = world;
    app.store.close().await;
    put(&app.config, file).await;
    World::open(dir).await
}

async fn restore(config: &Config, file: PathBuf) {
    history::restore(config, Arc::new(SystemClock), &file).await.expect("restores");
}

/// As when the whole data folder comes from a copy: nothing on this host tells.
async fn roll_back(config: &Config, file: PathBuf) {
    let database = config.data_dir.join("muster.db");
    for gone in ["muster.db-wal", "muster.db-shm", "high-water.json"] {
        let _may_not_be_there = std::fs::remove_file(config.data_dir.join(gone));
    }
    std::fs::copy(file, database).expect("the copy is put in place");
}

async fn three() -> (World, [Agent; 3]) {
    let world = World::new().await;
    let agents = [world.agent("a").await, world.agent("b").await, world.agent("c").await];
    for (agent, objects) in agents.iter().zip([40, 60, 50]) {
        beat(&world, agent, &holding(&world, agent, objects).await).await;
    }
    (world, agents)
}

#[tokio::test]
async fn an_older_database_opens_an_epoch_above_all_that_nodes_were_told_and_believes_no_drain() {
    let (world, [a, b, c]) = three().await;
    world.post("/v1/nodes/a/drain", json!({})).await.ok::<Value>(202);
    beat(&world, &a, &empty(holding(&world, &a, 0).await)).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(node(&world, "a").await.drain.map(|drain| drain.state), Some(DrainState::Drained));
    let file = backup(&world, "drained").await;
    // It is taken in again after that, and gets objects.
    world.post("/v1/nodes/a/uncordon", json!({})).await.ok::<Value>(200);
    for copies in [3, 1, 2] {
        wants_copies(&world, copies).await;
    }
    let mut told = Vec::new();
    for (agent, objects) in [(&a, 40), (&b, 60), (&c, 50)] {
        let last = holding(&world, agent, objects).await;
        beat(&world, agent, &last).await;
        told.push(last);
    }

    let world = put_back(world, file, restore).await;
    let record = world.app.pool.membership();
    assert!(record.epoch > told[0].membership_epoch, "{} and {}", record.epoch, told[0].membership_epoch);
    assert_eq!(record.members.iter().filter(|member| member.owns_objects()).count(), 2, "what the backup says");
    assert_eq!(node(&world, "a").await.drain.map(|drain| drain.state), Some(DrainState::Draining));
    // Nobody knows yet what any node has.
    assert_ne!(world.delete("/v1/nodes/b").await.status, 204);
    let removal: Operation = world.delete("/v1/nodes/a").await.ok(202);
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Running);
    // What it says of a record of the history before counts as little.
    let answer = beat(&world, &a, &empty(told[0].clone())).await;
    assert_eq!(answer.membership_epoch, record.epoch);
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Running);
    beat(&world, &a, &holding(&world, &a, 40).await).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Running);
    beat(&world, &a, &empty(holding(&world, &a, 0).await)).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Succeeded);
    world.get("/v1/nodes/a").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_drained_node_that_is_seen_with_objects_again_is_not_removed() {
    let (world, [a, ..]) = three().await;
    world.post("/v1/nodes/a/drain", json!({})).await.ok::<Value>(202);
    beat(&world, &a, &empty(holding(&world, &a, 0).await)).await;
    world.pass(Loop::Nodes).await;
    beat(&world, &a, &holding(&world, &a, 2).await).await;
    let removal: Operation = world.delete("/v1/nodes/a").await.ok(202);
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Running);
    // One that was off at once after it was empty is taken at its word.
    let last = Heartbeat { stopping: true, ..empty(holding(&world, &a, 0).await) };
    beat(&world, &a, &last).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(state(&world, &removal).await, OperationState::Succeeded);
}

#[tokio::test]
async fn a_membership_record_that_only_a_node_knows_shows_that_the_database_is_older() {
    let (world, [a, b, _]) = three().await;
    let file = backup(&world, "copy").await;
    wants_copies(&world, 3).await;
    let told = holding(&world, &a, 40).await;
    assert_eq!(beat(&world, &a, &told).await.incarnation.number, 1);

    // A higher epoch than there is.
    let world = put_back(world, file.clone(), roll_back).await;
    assert_eq!(beat(&world, &b, &holding(&world, &b, 60).await).await.incarnation.number, 1);
    let answer = beat(&world, &a, &told).await;
    assert_eq!(answer.incarnation.number, 2);
    assert!(answer.membership_epoch > told.membership_epoch + 1000, "{answer:?}");
    // Once, not for each heartbeat.
    assert_eq!(beat(&world, &a, &told).await.incarnation.number, 2);

    // The same number, which the copy has used for something else since.
    let world = put_back(world, file, roll_back).await;
    wants_copies(&world, 4).await;
    assert_eq!(holding(&world, &b, 60).await.membership_epoch, told.membership_epoch);
    assert_eq!(beat(&world, &b, &holding(&world, &b, 60).await).await.incarnation.number, 1);
    let answer = beat(&world, &a, &told).await;
    assert_eq!(answer.incarnation.number, 2);
    assert!(answer.membership_epoch > told.membership_epoch + 1000, "{answer:?}");
}

#[tokio::test]
async fn a_node_that_joined_after_the_backup_is_told_so_and_joins_again_as_the_node_that_it_was() {
    let (world, [a, ..]) = three().await;
    let file = backup(&world, "before").await;
    let late = world.agent("late").await;
    let removed = world.agent("removed").await;
    assert_eq!(world.delete("/v1/nodes/removed").await.status, 204);
    world.beat(&removed, &removed.beat()).await.refused(401, "unauthenticated");

    let world = put_back(world, file, restore).await;
    let refused = world.beat(&late, &late.beat()).await.refused(401, "unlisted");
    assert!(refused["detail"].as_str().expect("a detail").contains("muster token create --role node"), "{refused}");
    beat(&world, &a, &holding(&world, &a, 40).await).await;
    // Nobody knows what its disks build on.
    let sweep =
        world.post("/v1/pools/default/sweep", json!({ "after_restore": true })).await.refused(503, "unavailable");
    assert!(sweep["detail"].as_str().expect("a detail").contains("that the database does not know"), "{sweep}");

    let token = world.make_token(json!({ "role": "node", "uses": 5 })).await;
    let certificate = |agent: &Agent| agent.joined.as_ref().expect("joined").certificate_pem.clone();
    let was = |agent: &Agent| FormerNode { node: agent.id(), certificate_pem: certificate(agent) };
    let again = |agent: &Agent, was| JoinRequest { was: Some(was), ..agent.join_request() };
    // Who has only its certificate, another one's, or one of another cluster, is not it.
    let thief = Agent::new("late");
    world.try_join(&token, &again(&thief, was(&late))).await.refused(403, "forbidden");
    let other = FormerNode { node: a.id(), ..was(&late) };
    world.try_join(&token, &again(&late, other)).await.refused(403, "forbidden");
    let elsewhere = World::new().await;
    let foreign = FormerNode { node: late.id(), ..was(&elsewhere.agent("late").await) };
    world.try_join(&token, &again(&late, foreign)).await.refused(403, "forbidden");
    // A node that the database knows does not become another one.
    let known = JoinRequest { store: thief.store, ..again(&a, was(&a)) };
    world.try_join(&token, &known).await.refused(403, "forbidden");

    let joined: JoinAnswer = world.try_join(&token, &again(&late, was(&late))).await.ok(200);
    assert_eq!((joined.node, joined.name.as_str()), (late.id(), "late"));
    // The answer may be lost.
    let joined: JoinAnswer = world.try_join(&token, &again(&late, was(&late))).await.ok(200);
    assert_eq!(joined.node, late.id());
    let sweep =
        world.post("/v1/pools/default/sweep", json!({ "after_restore": true })).await.refused(503, "unavailable");
    assert!(sweep["detail"].as_str().expect("a detail").contains("did not tell yet what it holds"), "{sweep}");
    beat(&world, &late, &Heartbeat { incarnation: joined.incarnation, ..late.beat() }).await;
    let record = world.app.pool.membership();
    assert!(record.members.iter().any(|member| (member.node, member.store) == (late.id(), late.store)), "{record:?}");
    assert_eq!(world.get("/v1/nodes").await.ok::<Value>(200)["items"].as_array().map(Vec::len), Some(4));
}
