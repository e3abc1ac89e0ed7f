//! Objects that lost their last copy are named with the versions that need them, and what builds on those.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::json;
use storage_core::{ChunkStore, Kind, MemoryStore, ObjectName};

use super::harness::{MIB, World, eventually, stored};

fn chunks(pool: &MemoryStore) -> BTreeSet<ObjectName> {
    let all = pool.list(None, 100).unwrap();
    all.iter().filter(|object| object.kind == Kind::Chunk).map(|object| object.name).collect()
}

async fn events(world: &World, kind: &str) -> Vec<serde_json::Value> {
    let page = [("accept", "application/json")];
    let events = world.call_as(&world.token, "GET", "/v1/events?limit=1000", serde_json::Value::Null, &page).await;
    let items = events.body["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter(|event| event["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_lost_objects_are_named_with_what_builds_on_them_until_these_are_back() {
    let pool = Arc::new(MemoryStore::new());
    let world = World::with_pool(pool.clone()).await;
    let nodes = world.nodes(2).await;
    nodes.iter().for_each(|node| node.script(|s| s.pool = Some(pool.clone())));
    let whole = world.image_of("whole", stored(&pool, MIB, &[b"kept".to_vec()], 1)).await;
    let before = chunks(&pool);
    let hurt = world.image_of("hurt", stored(&pool, MIB, &[b"kept".to_vec(), b"lost".to_vec()], 1)).await;
    let lost = *chunks(&pool).difference(&before).next().unwrap();
    world
        .deploy(json!({ "name": "web", "source": { "image": "hurt" }, "count": 1, "runtime": "none" }))
        .await
        .expect(202);
    eventually("the instance to have a disk", async || {
        (world.get("/v1/instances/web.0").await.body["disks"][0]["version"] == hurt.to_string()).then_some(())
    })
    .await;

    let record = pool.get(&lost).unwrap().unwrap();
    pool.remove(u64::MAX, &[lost]).unwrap();
    nodes[0].script(|s| s.gone = vec![lost]);
    nodes[0].beat().await;
    let told = eventually("the version to be named", async || {
        let lost = world.get("/v1/pools/default").await.body["lost"].clone();
        (lost.as_array().is_some_and(|lost| !lost.is_empty())).then_some(lost)
    })
    .await;
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!((&told[0]["name"], &told[0]["objects"]), (&json!("hurt@1"), &json!(1)));
    assert_eq!((&told[0]["instances"], &told[0]["deployments"]), (&json!(["web.0"]), &json!(["web"])));
    let of = async |version| world.get(&format!("/v1/versions/{version}")).await.number("/objects_lost");
    assert_eq!((of(hurt).await, of(whole).await), (1, 0));

    // The same content is stored again.
    pool.put(2, &[record]).unwrap();
    nodes[0].script(|s| s.gone.clear());
    nodes[0].beat().await;
    eventually("the version to be whole", async || {
        (world.get("/v1/pools/default").await.body["lost"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(of(hurt).await, 0);
    let lost = events(&world, "version.objects_lost").await;
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((&lost[0]["target"]["name"], &lost[0]["data"]["instances"]), (&json!("hurt@1"), &json!(["web.0"])));
    eventually("the event", async || (events(&world, "version.objects_back").await.len() == 1).then_some(())).await;
}
