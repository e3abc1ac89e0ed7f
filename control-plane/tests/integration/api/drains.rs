//! Drain and removal of nodes with objects, the copies wanted, and the closing of membership epochs.

use muster_api::{
    node::{DrainState, Node, ObjectAmount, PoolUse, Repair},
    node_protocol::{Heartbeat, HeartbeatAnswer},
    operation::{Operation, OperationState},
    pool::Pool,
};
use muster_controller::wake::Loop;
use serde_json::{Value, json};

use super::world::{Agent, World};

async fn node(world: &World, name: &str) -> Node {
    world.get(&format!("/v1/nodes/{name}")).await.ok(200)
}

async fn operation(world: &World, id: impl std::fmt::Display) -> Operation {
    world.get(&format!("/v1/operations/{id}")).await.ok(200)
}

async fn pool(world: &World) -> Pool {
    world.get("/v1/pools/default").await.ok(200)
}

/// A heartbeat of a node with so many objects.
fn holding(agent: &Agent, objects: u64) -> Heartbeat {
    let beat = agent.beat();
    let pool = PoolUse { used_bytes: 1000 * objects, objects, free_bytes: 20 << 30, ..beat.pool };
    Heartbeat { pool, ..beat }
}

/// The repair of a node that has nothing left to do under the newest record.
fn done(world: &World) -> Repair {
    Repair { membership_epoch: world.app.pool.membership().epoch, ..Repair::default() }
}

async fn beat(world: &World, agent: &Agent, beat: &Heartbeat) -> HeartbeatAnswer {
    world.beat(agent, beat).await.ok(200)
}

fn owners(world: &World) -> Vec<String> {
    let membership = world.app.pool.membership();
    membership.members.iter().filter(|m| m.owns_objects()).map(|m| m.name.clone()).collect()
}

/// Three nodes, of which `a` has 40 objects.
async fn three() -> (World, [Agent; 3]) {
    let world = World::new().await;
    let agents = [world.agent("a").await, world.agent("b").await, world.agent("c").await];
    for (agent, objects) in agents.iter().zip([40, 60, 50]) {
        beat(&world, agent, &holding(agent, objects)).await;
    }
    (world, agents)
}

#[tokio::test]
async fn a_node_is_removed_once_it_says_that_it_is_empty_for_good() {
    let (world, [a, ..]) = three().await;
    let begun: Operation = world.delete("/v1/nodes/a").await.ok(202);
    assert_eq!((begun.kind.as_str(), begun.target.name.as_str(), begun.progress.total), ("node.remove", "a", 40));
    let again: Operation = world.delete("/v1/nodes/a").await.ok(202);
    assert_eq!(again.id, begun.id);
    assert_eq!(owners(&world), ["b", "c"]);
    // Neither a heartbeat, nor silence, nor objects that are gone end it.
    let half = Repair { handed_over_bytes_per_s: 500, ..done(&world) };
    beat(&world, &a, &Heartbeat { repair: Some(half), ..holding(&a, 10) }).await;
    world.pass(Loop::Nodes).await;
    let shown = node(&world, "a").await;
    let drain = shown.drain.expect("it is drained");
    assert_eq!((drain.state, drain.left), (DrainState::Draining, ObjectAmount { objects: 10, bytes: 10_000 }));
    assert_eq!((drain.bytes_per_s, drain.ends_at), (500, Some(world.app.clock.now().plus_ms(20_000))));
    assert!(!shown.schedulable && !shown.out);
    let now = operation(&world, begun.id).await;
    assert_eq!((now.state, now.progress.done, now.progress.total), (OperationState::Running, 30, 40));
    beat(&world, &a, &holding(&a, 0)).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, begun.id).await.state, OperationState::Running, "objects may still come");
    // It said so of an older record.
    let old = Repair { is_empty: true, membership_epoch: done(&world).membership_epoch - 1, ..Repair::default() };
    beat(&world, &a, &Heartbeat { repair: Some(old), ..holding(&a, 0) }).await;
    world.pass(Loop::Nodes).await;
    assert_eq!((owners(&world).len(), operation(&world, begun.id).await.state), (2, OperationState::Running));

    let empty = Repair { is_empty: true, ..done(&world) };
    beat(&world, &a, &Heartbeat { repair: Some(empty), ..holding(&a, 0) }).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, begun.id).await.state, OperationState::Succeeded);
    world.get("/v1/nodes/a").await.refused(404, "not_found");
    assert_eq!(world.app.pool.membership().members.len(), 2);
    world.beat(&a, &a.beat()).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_drain_that_takes_longer_than_its_operation_goes_on() {
    let (world, agents) = three().await;
    let begun: Operation = world.post("/v1/nodes/a/drain", json!({})).await.ok(202);
    world.clock.advance_ms(7 * 24 * 3600 * 1000 + 1);
    for (agent, objects) in agents.iter().zip([10, 60, 50]) {
        beat(&world, agent, &holding(agent, objects)).await;
    }
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, begun.id).await.state, OperationState::Failed);
    assert_eq!(node(&world, "a").await.drain.map(|drain| drain.state), Some(DrainState::Draining));
    assert_eq!(owners(&world), ["b", "c"], "no object comes back to it");
    let [a, ..] = &agents;
    let again: Operation = world.post("/v1/nodes/a/drain", json!({})).await.ok(202);
    assert_ne!(again.id, begun.id);
    beat(&world, a, &Heartbeat { repair: Some(Repair { is_empty: true, ..done(&world) }), ..holding(a, 0) }).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, again.id).await.state, OperationState::Succeeded);
}

#[tokio::test]
async fn a_drained_node_stays_so_until_it_is_uncordoned() {
    let (world, [a, b, _]) = three().await;
    world.post("/v1/nodes/a/drain", json!({ "instances": "move" })).await.refused(501, "not_built_yet");
    world.post("/v1/nodes/a/drain", json!({ "instances": "burn" })).await.refused(422, "invalid");
    let begun: Operation = world.post("/v1/nodes/a/drain", json!({})).await.ok(202);
    let again: Operation = world.send("POST", "/v1/nodes/a/drain", &[], "").await.ok(202);
    assert_eq!((begun.kind.as_str(), again.id), ("node.drain", begun.id));
    let empty = Heartbeat { repair: Some(Repair { is_empty: true, ..done(&world) }), ..holding(&a, 0) };
    beat(&world, &a, &empty).await;
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, begun.id).await.state, OperationState::Succeeded);
    let state = |node: &Node| node.drain.map(|drain| drain.state);
    assert_eq!(state(&node(&world, "a").await), Some(DrainState::Drained));
    // A restart of the controller, and silence of the node, leave it so.
    let dir = world.dir;
    let world = World::open(dir).await;
    world.clock.advance_ms(40_000);
    world.pass(Loop::Nodes).await;
    beat(&world, &a, &a.beat()).await;
    beat(&world, &b, &b.beat()).await;
    let shown = node(&world, "a").await;
    assert_eq!((state(&shown), shown.schedulable), (Some(DrainState::Drained), false));
    assert_eq!(owners(&world), ["b", "c"]);
    let back: Node = world.post("/v1/nodes/a/uncordon", json!({})).await.ok(200);
    assert!(back.drain.is_none() && back.schedulable && !back.out);
    assert_eq!(owners(&world), ["a", "b", "c"]);
    assert!(world.app.pool.membership().epoch > 1);
}

#[tokio::test]
async fn a_removal_that_is_cancelled_takes_the_node_in_again_and_follows_a_drain() {
    let (world, [a, ..]) = three().await;
    let drain: Operation = world.post("/v1/nodes/a/drain", json!({})).await.ok(202);
    let removal: Operation = world.delete("/v1/nodes/a").await.ok(202);
    assert_eq!(operation(&world, drain.id).await.state, OperationState::Cancelled);
    world.post(&format!("/v1/operations/{}/cancel", removal.id), json!({})).await.ok::<Value>(202);
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, removal.id).await.state, OperationState::Cancelled);
    let back = node(&world, "a").await;
    assert!(back.drain.is_none() && !back.schedulable, "it is in again, and still cordoned");
    assert_eq!(owners(&world).len(), 3);
    // What it said of the drain before counts no more.
    let removal: Operation = world.delete("/v1/nodes/a").await.ok(202);
    world.post("/v1/nodes/a/uncordon", json!({})).await.ok::<Value>(200);
    assert_eq!(operation(&world, removal.id).await.state, OperationState::Cancelled);
    beat(&world, &a, &Heartbeat { repair: Some(Repair { is_empty: true, ..done(&world) }), ..holding(&a, 0) }).await;
    world.pass(Loop::Nodes).await;
    assert!(node(&world, "a").await.drain.is_none());
    // A node that dies while it is drained ends the operation.
    beat(&world, &a, &holding(&a, 40)).await;
    let removal: Operation = world.delete("/v1/nodes/a").await.ok(202);
    world.post("/v1/nodes/a/fence", json!({ "confirm": true })).await.ok::<Value>(200);
    world.pass(Loop::Nodes).await;
    assert_eq!(operation(&world, removal.id).await.state, OperationState::Failed);
    assert!(node(&world, "a").await.drain.is_none());
}

#[tokio::test]
async fn no_drain_where_too_few_nodes_or_too_little_room_would_be_left() {
    let (world, [a, b, c]) = three().await;
    world.post("/v1/nodes/a/drain", json!({})).await.ok::<Value>(202);
    let refused = world.post("/v1/nodes/b/drain", json!({})).await.refused(409, "wrong_state");
    assert!(refused["detail"].to_string().contains("2 copies"), "{refused}");
    assert_eq!(refused["reason"], "too_few_nodes");
    world.post("/v1/nodes/a/uncordon", json!({})).await.ok::<Value>(200);
    let full = |agent: &Agent| {
        let beat = holding(agent, 50);
        Heartbeat { pool: PoolUse { free_bytes: 100, ..beat.pool }, ..beat }
    };
    beat(&world, &b, &full(&b)).await;
    beat(&world, &c, &full(&c)).await;
    let refused = world.delete("/v1/nodes/a").await.refused(409, "wrong_state");
    assert_eq!(refused["reason"], "too_little_room");
    assert_eq!(owners(&world).len(), 3);
    // Free space that a node keeps for its guests is no room, and the room of one node is none for the copies of the other.
    let keeping = |agent: &Agent, takes: u64| {
        let beat = holding(agent, 50);
        Heartbeat { pool: PoolUse { takes_bytes: Some(takes), ..beat.pool }, ..beat }
    };
    beat(&world, &b, &keeping(&b, 5_000)).await;
    beat(&world, &c, &keeping(&c, 1 << 40)).await;
    let refused = world.delete("/v1/nodes/a").await.refused(409, "wrong_state");
    assert_eq!(refused["reason"], "too_little_room");
    let detail = refused["detail"].as_str().expect("a detail");
    assert!(detail.contains("'b' has 50000 and takes 5000 more"), "{detail}");
    beat(&world, &b, &keeping(&b, 20_000)).await;
    world.post("/v1/nodes/a/drain", json!({})).await.ok::<Value>(202);
    world.post("/v1/nodes/a/uncordon", json!({})).await.ok::<Value>(200);
    // Who is away cannot hand over.
    let last = Heartbeat { stopping: true, ..holding(&a, 40) };
    beat(&world, &a, &last).await;
    let refused = world.delete("/v1/nodes/a").await.refused(409, "wrong_state");
    assert_eq!(refused["state"], "stopped");
}

#[tokio::test]
async fn the_number_of_copies_is_changed_while_the_pool_is_used() {
    let (world, _) = three().await;
    let epoch = world.app.pool.membership().epoch;
    let patch = async |body: Value| world.send("PATCH", "/v1/pools/default", &[], &body.to_string()).await;
    patch(json!({ "min_copies": 0 })).await.refused(422, "invalid");
    patch(json!({ "min_copies": 8 })).await.refused(422, "invalid");
    patch(json!({ "copies": 3 })).await.refused(422, "invalid");
    let changed: Pool = patch(json!({ "min_copies": 3 })).await.ok(200);
    assert_eq!(changed.min_copies, 3);
    let record = world.app.pool.membership();
    assert_eq!((record.epoch, record.min_copies), (epoch + 1, 3));
    patch(json!({ "min_copies": 3 })).await.ok::<Value>(200);
    assert_eq!(world.app.pool.membership().epoch, epoch + 1);
    world.post("/v1/nodes/a/drain", json!({})).await.refused(409, "wrong_state");
    let dir = world.dir;
    let world = World::open(dir).await;
    assert_eq!(
        (pool(&world).await.min_copies, world.app.pool.membership().min_copies),
        (3, 3),
        "the configuration says 2"
    );
}

#[tokio::test]
async fn epochs_are_closed_when_all_nodes_that_are_there_have_handed_over() {
    let (world, [a, b, c]) = three().await;
    let shown = pool(&world).await;
    assert!(shown.oldest_open_epoch < shown.membership_epoch);
    let repair = Some(done(&world));
    for agent in [&a, &b] {
        beat(&world, agent, &Heartbeat { repair, ..holding(agent, 40) }).await;
    }
    let surplus = ObjectAmount { objects: 4, bytes: 4000 };
    beat(&world, &c, &Heartbeat { repair: repair.map(|repair| Repair { surplus, ..repair }), ..holding(&c, 40) }).await;
    world.pass(Loop::Nodes).await;
    let shown = pool(&world).await;
    assert!(shown.oldest_open_epoch < shown.membership_epoch);
    assert_eq!((shown.repair.surplus, shown.repair.nodes_done), (surplus, 2));
    assert_eq!(
        (shown.repair.wanted, shown.repair.present),
        (ObjectAmount { objects: 116, bytes: 116_000 }, shown.repair.wanted)
    );
    beat(&world, &c, &Heartbeat { repair, ..holding(&c, 36) }).await;
    world.pass(Loop::Nodes).await;
    let shown = pool(&world).await;
    assert_eq!(shown.oldest_open_epoch, shown.membership_epoch);
    assert_eq!(beat(&world, &a, &holding(&a, 40)).await.oldest_open_epoch, shown.membership_epoch);
    // The next epoch opens it again.
    world.post("/v1/nodes/a/drain", json!({})).await.ok::<Value>(202);
    let shown = pool(&world).await;
    assert_eq!(shown.oldest_open_epoch + 1, shown.membership_epoch);
}

#[tokio::test]
async fn the_end_of_a_repair_is_told_when_its_speed_is_known() {
    let (world, [a, b, _]) = three().await;
    let missing = ObjectAmount { objects: 5, bytes: 5000 };
    let repair = Repair { missing, unchecked_objects: 300, objects_per_s: 10, ..done(&world) };
    beat(&world, &a, &Heartbeat { repair: Some(repair), ..holding(&a, 40) }).await;
    assert_eq!(
        (node(&world, "a").await.repair_ends_at, pool(&world).await.repair.ends_at),
        (None, None),
        "it stands still"
    );
    beat(&world, &a, &Heartbeat { repair: Some(Repair { bytes_per_s: 100, ..repair }), ..holding(&a, 40) }).await;
    let end = Some(world.app.clock.now().plus_ms(50_000));
    beat(
        &world,
        &b,
        &Heartbeat {
            repair: Some(Repair { missing: ObjectAmount::default(), unchecked_objects: 100, ..repair }),
            ..holding(&b, 1)
        },
    )
    .await;
    assert_eq!(node(&world, "a").await.repair_ends_at, end);
    assert_eq!(node(&world, "b").await.repair_ends_at, Some(world.app.clock.now().plus_ms(10_000)));
    assert_eq!(pool(&world).await.repair.ends_at, end);
}
