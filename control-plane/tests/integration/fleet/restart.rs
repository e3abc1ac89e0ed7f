//! The controller is killed at any instant, and finishes what it began when it is started again.

use serde_json::json;

use super::harness::{MIB, World, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_on_after_a_restart() {
    let mut world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(3).await;
    nodes[2].script(|s| s.mute = true);
    let key = [("Idempotency-Key", "once")];
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 30, "runtime": "none" });
    let operation = world.call_as(&world.token, "POST", "/v1/deployments", order.clone(), &key).await.expect(202);
    world.restart().await;
    let again = world.call_as(&world.token, "POST", "/v1/deployments", order, &key).await.expect(202);
    assert_eq!(again.text("/id"), operation.text("/id"));
    eventually("two nodes to be ready", async || {
        (world.get("/v1/deployments/web").await.number("/ready") == 20).then_some(())
    })
    .await;
    world.restart().await;
    nodes[2].script(|s| s.mute = false);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/web").await.number("/ready"), 30);
    let deleting = world.delete("/v1/deployments/web").await.expect(202);
    world.restart().await;
    world.ends(&deleting, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_after_a_restart() {
    let mut world = World::new().await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    nodes[1].script(|s| s.saves = false);
    let snapshot = json!({ "name": "s1", "select": { "deployment": "web" } });
    let operation = world.post("/v1/snapshots", snapshot).await.expect(202);
    world.restart().await;
    eventually("saving", async || (world.get("/v1/snapshots/s1").await.text("/state") == "saving").then_some(())).await;
    world.restart().await;
    nodes[1].script(|s| s.saves = true);
    nodes[1].act().await;
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s1").await.text("/state"), "ready");
    let fork = world.deploy(json!({ "source": { "snapshot": "s1" }, "runtime": "none" })).await.expect(202);
    world.ends(&fork, "succeeded").await;
    let page = world.get("/v1/deployments").await;
    assert_eq!(page.body["items"].as_array().unwrap().len(), 2);
}
