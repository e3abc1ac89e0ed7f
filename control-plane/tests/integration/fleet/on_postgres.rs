//! A deployment and a snapshot from beginning to end on PostgreSQL, so that every SQL statement runs there as well.

use muster_api::{Reason, Timestamp, VersionId};
use muster_controller::store::{StoreError, roots, sweep, uploads};
use serde_json::{Value, json};

use super::{
    boots::{kept, report, tell},
    harness::{MIB, World, eventually},
};
use crate::postgres::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_lives_on_postgresql() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) if std::env::var_os("MUSTER_ALLOW_SKIP").is_some_and(|v| v == "1") => {
            eprintln!("SKIPPED: the fleet did not live on PostgreSQL: {why}");
            return;
        }
        Err(why) => panic!("no PostgreSQL to test with: {why}"),
    };
    let mut world = World::on(server.database("fleet")).await;
    let version = world.image("debian", MIB).await;
    let nodes = world.nodes(3).await;
    nodes[0].script(|s| s.refuse_cuts = vec![Reason::Busy]);
    nodes[1].script(|s| s.refuse_cuts = vec![Reason::Busy]);
    world.ready("web", 40).await;
    let (node, member) = nodes.iter().find_map(|node| Some((node, node.assignment("web.0")?))).unwrap();
    for boots in 1..=2 {
        tell(node, member.instance, &report(&member, &[2, 1])).await.expect(204);
        assert_eq!(kept(&world, version).await, Some((boots, vec![2, 1])));
    }
    world.restart().await;
    let web = world.call("PATCH", "/v1/deployments/web", json!({ "labels": { "tier": "front" } })).await.expect(200);
    assert_eq!((web.text("/state"), web.number("/ready")), ("ready", 40));
    assert_eq!(world.get("/v1/deployments?label=tier=front").await.body["items"].as_array().unwrap().len(), 1);
    let operation = world.post("/v1/snapshots", json!({ "name": "s1", "select": { "deployment": "web" } })).await;
    world.ends(&operation.expect(202), "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1/members?limit=7").await.body["items"].as_array().unwrap().len(), 7);
    let fork = world.deploy(json!({ "name": "fork", "source": { "snapshot": "s1" }, "runtime": "none" })).await;
    world.ends(&fork.expect(202), "succeeded").await;
    for (path, body) in [
        ("/v1/deployments/web/scale", json!({ "count": 35 })),
        ("/v1/deployments/web/scale", json!({ "count": 37 })),
        ("/v1/deployments/web/stop", Value::Null),
        ("/v1/instances/-/start", json!({ "select": { "instances": ["web.0", "web.1"] } })),
    ] {
        let operation = world.post(path, body).await.expect(202);
        world.ends(&operation, "succeeded").await;
    }
    let stopped = world.get("/v1/instances?deployment=web&state=stopped&limit=1000").await.expect(200);
    assert_eq!(stopped.body["items"].as_array().unwrap().len(), 35);
    world.post("/v1/nodes/n2/fence", json!({ "confirm": true })).await.expect(200);
    let recover = json!({ "select": { "deployment": "web" }, "accept_loss": true });
    let recovering = world.post("/v1/instances/-/recover", recover).await.expect(202);
    world.ends(&recovering, "succeeded").await;
    world.delete("/v1/nodes/n2").await.expect(204);
    lives_of_disks(&world).await;
    sweeps(&world, version).await;
    world.call("PATCH", "/v1/snapshots/s1", json!({ "name": "s2" })).await.expect(200);
    world.delete("/v1/snapshots/s2").await.expect(202);
    for name in ["web", "fork"] {
        let deleting = world.delete(&format!("/v1/deployments/{name}")).await.expect(202);
        world.ends(&deleting, "succeeded").await;
    }
    eventually("the nodes to be empty", async || {
        nodes[..2].iter().all(|node| node.desired().assignments.is_empty()).then_some(())
    })
    .await;
}

/// What the sweep asks of the database.
async fn sweeps(world: &World, version: VersionId) {
    let reading = world.app.begin_reading(version).await.unwrap();
    let store = &world.app.store;
    let (roots, holder, wasted) = store
        .read("test.sweep", async |tx| {
            let wasted = sweep::wasted_since(tx, Timestamp::from_micros(0)).await?;
            Ok::<_, StoreError>((roots::list(tx).await?, sweep::holder(tx).await?, wasted))
        })
        .await
        .unwrap();
    assert!(roots.names.len() >= 40, "the image, and the members of the snapshot");
    assert_eq!((roots.unknown, holder, wasted), (None, None, false));
    let names: Vec<_> = roots.names.into_iter().collect();
    let found = store.read("test.roots", async |tx| roots::descriptors(tx, &names).await).await.unwrap();
    assert_eq!(found.len(), names.len());
    drop(reading);
    let row = store
        .run_tx("test.sweep", async |tx| {
            sweep::note_round(tx, false).await?;
            sweep::note_work(tx).await?;
            sweep::ask(tx, 7).await?;
            uploads::begin_round(tx).await?;
            sweep::load(tx).await
        })
        .await
        .unwrap();
    assert!(row.begun_at.is_some() && row.had_work && row.asked_round == 7);
    world.get("/v1/pools/default").await.expect(200);
}

/// Disks are attached, grown, detached, attached elsewhere and deleted.
async fn lives_of_disks(world: &World) {
    let becomes = async |disk: &str, state: &str| {
        eventually(&format!("{disk} to be {state}"), async || {
            let shown = world.get(&format!("/v1/disks/{disk}")).await;
            (shown.status == 200 && shown.text("/state") == state).then_some(shown)
        })
        .await
    };
    let started = world.post("/v1/deployments/web/start", Value::Null).await.expect(202);
    world.ends(&started, "succeeded").await;
    let made = world.post("/v1/instances/web.0/disks", json!({ "name": "data", "size_bytes": MIB })).await.expect(201);
    let id = made.text("/id");
    becomes(id, "attached").await;
    world.call("PATCH", &format!("/v1/disks/{id}"), json!({ "size_bytes": 2 * MIB })).await.expect(200);
    becomes(id, "attached").await;
    world.post(&format!("/v1/disks/{id}/detach"), Value::Null).await.expect(202);
    becomes("data", "detached").await;
    world.call("PATCH", "/v1/disks/data", json!({ "size_bytes": 3 * MIB })).await.expect(200);
    assert_eq!(world.get("/v1/disks?detached=true").await.text("/items/0/id"), id);
    // It may still be on the node of the other instance.
    eventually("it to be attached elsewhere", async || {
        let attached = world.post("/v1/instances/web.1/disks", json!({ "disk": "data" })).await;
        (attached.status == 201).then_some(())
    })
    .await;
    becomes("web.1%2Fdata", "attached").await;
    assert_eq!(world.get("/v1/disks?instance=web.1").await.number("/items/1/size_bytes"), 3 * MIB);
    world.post(&format!("/v1/disks/{id}/detach"), Value::Null).await.expect(202);
    becomes("data", "detached").await;
    world.get("/metrics").await.expect(200);
    world.delete(&format!("/v1/disks/{id}")).await.expect(204);
}
