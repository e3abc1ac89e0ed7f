//! `?dry_run=true` tells to the byte what a deletion gives back. The count beside it deletes, lists the roots of the sweep, and
//! walks everything that they reach.

use std::{collections::BTreeMap, sync::Arc};

use muster_controller::{
    domain::versions::Content,
    store::{StoreError, roots},
};
use serde_json::{Value, json};
use storage_core::{
    ByteLen, ChunkSize, ChunkStore as _, Compression, Descriptor, Kind, MemoryStore, ObjectName, Record, Salt,
    tree::{Leaf, Page, Patched, Run, RunSource},
};

use super::harness::{MIB, Node, World, eventually};

fn put(pool: &MemoryStore, kind: Kind, body: &[u8]) -> ObjectName {
    let chunk = (kind == Kind::Chunk).then_some(ChunkSize::DEFAULT);
    let compression = if matches!(kind, Kind::Chunk | Kind::Pack) { Compression::Auto } else { Compression::Off };
    let record = Record::encode(kind, Salt::SHARED, chunk, body, compression);
    pool.put(1, std::slice::from_ref(&record)).unwrap();
    record.name()
}

/// Bytes that are the same for the same seed and do not compress well.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next(&mut state)).collect()
}

fn chunk(pool: &MemoryStore, seed: u64) -> ObjectName {
    put(pool, Kind::Chunk, &bytes(seed, 50_000))
}

/// A leaf with blocks of these packs over a base.
fn patched(base: ObjectName, packs: &[ObjectName]) -> Leaf {
    let run = |n: usize| {
        let pack = u8::try_from(n).unwrap();
        Run { first: u16::from(pack) * 4, count: 1, source: RunSource::Pack { pack, block: 0 } }
    };
    let patched = Patched::new(Some(base), packs.to_vec(), (0..packs.len()).map(run).collect()).unwrap();
    Leaf::Patched(Box::new(patched))
}

fn content(pool: &MemoryStore, leaves: Vec<Leaf>) -> Content {
    let page = Page::leaf((0..).zip(leaves)).unwrap().encode();
    let root = Some(put(pool, Kind::Page, &page));
    let descriptor = Descriptor { root, ..Descriptor::empty(ByteLen(MIB), ChunkSize::DEFAULT, Salt::SHARED) };
    put(pool, Kind::Descriptor, &descriptor.encode());
    Content::new(descriptor, Some(page)).unwrap()
}

/// Everything that the roots of the sweep reach, with the bytes of one stored copy.
async fn needed(world: &World, pool: &MemoryStore) -> BTreeMap<ObjectName, u64> {
    let list = world.app.store.read("test.roots", async |tx| roots::list(tx).await).await.unwrap();
    let mut found = BTreeMap::new();
    let mut open: Vec<ObjectName> = list.names.into_iter().collect();
    while let Some(name) = open.pop() {
        // Blank disks begin with a version of zeros, which the pool need not have.
        let Some(record) = pool.get(&name).unwrap() else { continue };
        found.insert(name, record.stored().len() as u64);
        let object = record.verify().unwrap();
        match object.kind {
            Kind::Descriptor => open.extend(Descriptor::decode(&object.body).unwrap().root),
            Kind::Page => {
                let page = Page::decode(&object.body).unwrap();
                open.extend(page.children().map(|(_, child)| *child));
                open.extend(page.entries().flat_map(|(_, leaf)| leaf.objects().copied().collect::<Vec<_>>()));
            }
            Kind::Chunk | Kind::Pack => {}
        }
    }
    found
}

fn total(objects: &BTreeMap<ObjectName, u64>) -> u64 {
    objects.values().sum()
}

/// Nodes have reported the newest versions of all disks, so that no older one is read any more.
async fn settled(world: &World) {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM disks d JOIN instances i ON i.id = d.instance \
        WHERE i.deleted_at IS NULL AND d.reported_version IS NOT NULL AND d.reported_version <> d.version";
    eventually("nodes to report the newest versions", async || {
        let behind = world.app.store.read("test.settled", async |tx| {
            let row = sqlx::query(sql).fetch_one(tx.conn()).await?;
            Ok::<i64, StoreError>(sqlx::Row::try_get(&row, "n")?)
        });
        (behind.await.unwrap() == 0).then_some(())
    })
    .await;
}

async fn freed(world: &World, token: &str, path: &str) -> Value {
    let reply = world.call_as(token, "DELETE", &format!("{path}?dry_run=true"), Value::Null, &[]).await.expect(200);
    reply.body["freed_bytes"].clone()
}

/// Asks what would come back, deletes, and compares with what is not needed any more.
async fn deletes(world: &World, pool: &MemoryStore, path: &str) -> u64 {
    settled(world).await;
    let told = freed(world, &world.token, path).await;
    let before = needed(world, pool).await;
    let reply = world.delete(path).await;
    match reply.status {
        204 => {}
        _ => _ = world.ends(&reply.expect(202), "succeeded").await,
    }
    if path.contains("deployments") {
        eventually("the deployment to be gone", async || (world.get(path).await.status == 404).then_some(())).await;
    }
    let after = needed(world, pool).await;
    assert!(after.keys().all(|name| before.contains_key(name)));
    let back = total(&before) - total(&after);
    assert_eq!(told, back, "{path}");
    back
}

async fn world() -> (World, Arc<MemoryStore>, Vec<Node>) {
    let pool = Arc::new(MemoryStore::new());
    let world = World::with_pool(pool.clone()).await;
    let nodes = world.nodes(2).await;
    nodes.iter().for_each(|node| node.script(|s| s.pool = Some(pool.clone())));
    (world, pool, nodes)
}

async fn snapshot(world: &World, name: &str) {
    let made =
        world.post("/v1/snapshots", json!({ "name": name, "select": { "deployment": "web" } })).await.expect(202);
    world.ends(&made, "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deletion_gives_back_is_told_to_the_byte() {
    let (world, pool, _nodes) = world().await;
    let pool = &*pool;
    let [one, two, three, four] = [1, 2, 3, 4].map(|seed| chunk(pool, seed));
    let packs = [5, 6].map(|seed| put(pool, Kind::Pack, &bytes(seed, 3 * 4096)));
    // They share a chunk, the base of a patched one, and a pack.
    let first = content(pool, vec![Leaf::Whole(one), Leaf::Whole(two), patched(three, &packs[..1])]);
    let second = content(pool, vec![Leaf::Whole(one), Leaf::Whole(four), patched(three, &packs)]);
    world.image_of("a", first.clone()).await;
    world.image_of("b", second.clone()).await;
    let order = json!({ "name": "web", "source": { "image": "a" }, "count": 2, "runtime": "none" });
    world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
    for name in ["s1", "s2"] {
        snapshot(&world, name).await;
    }
    // Nothing builds on the first snapshot any more, and all on the second one.
    assert!(deletes(&world, pool, "/v1/snapshots/s1").await > 0);
    assert_eq!(deletes(&world, pool, "/v1/snapshots/s2").await, 0);
    // Further members of the deployment start from it.
    assert_eq!(deletes(&world, pool, "/v1/images/a").await, 0);
    let disk = deletes(&world, pool, "/v1/instances/web.1").await;
    let rest = deletes(&world, pool, "/v1/deployments/web").await;
    assert!(disk > 0 && rest > disk, "its last disk, and what of the image only the deployment needed: {disk}, {rest}");
    let left = total(&needed(&world, pool).await);
    assert_eq!(deletes(&world, pool, "/v1/images/b").await, left);
    assert!(needed(&world, pool).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_does_not_learn_that_another_one_holds_the_same() {
    let (world, pool, _nodes) = world().await;
    let pool = &*pool;
    let leaves = |seeds: [u64; 2]| seeds.map(|seed| Leaf::Whole(chunk(pool, seed))).to_vec();
    world.image_of("mine", content(pool, leaves([1, 2]))).await;
    let order = json!({ "name": "web", "source": { "image": "mine" }, "count": 1, "runtime": "none" });
    world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
    snapshot(&world, "s1").await;
    let tenant = world.token(json!({ "role": "tenant", "project": "default" })).await;
    let paths = ["/v1/images/mine", "/v1/snapshots/s1", "/v1/instances/web.0", "/v1/deployments/web"];
    settled(&world).await;
    let mut alone = Vec::new();
    for path in paths {
        let told = freed(&world, &tenant, path).await;
        assert_eq!(told, freed(&world, &world.token, path).await, "nobody else has anything");
        alone.push(told);
    }
    // Deleted, so that only the disk and the deployment hold what it had.
    world.delete("/v1/images/mine").await.expect(204);
    let deployment = freed(&world, &tenant, "/v1/deployments/web").await;
    assert!(deployment.as_u64().unwrap() > 0);
    // Another project has the same content, and half of it once more.
    world.image_of("twin", content(pool, leaves([1, 2]))).await;
    world.image_of("half", content(pool, leaves([1, 3]))).await;
    let moved = world.app.store.run_tx("test.other", async |tx| {
        for sql in [
            "UPDATE versions SET project = 'other' WHERE image IN (SELECT i.id FROM images i WHERE i.name <> 'mine')",
            "UPDATE images SET project = 'other' WHERE name <> 'mine'",
        ] {
            sqlx::query(sql).execute(tx.conn()).await?;
        }
        Ok::<_, StoreError>(())
    });
    moved.await.unwrap();
    assert_eq!(freed(&world, &tenant, "/v1/deployments/web").await, deployment);
    for (path, told) in paths.iter().zip(alone).skip(1).take(2) {
        assert_eq!(freed(&world, &tenant, path).await, told, "{path}");
    }
    // An operator sees what really comes back.
    assert_eq!(deletes(&world, pool, "/v1/deployments/web").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_counted_in_time_is_not_known() {
    // No node answers for objects.
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    for name in ["s1", "s2"] {
        snapshot(&world, name).await;
    }
    settled(&world).await;
    assert_eq!(freed(&world, &world.token, "/v1/snapshots/s1").await, Value::Null);
    // To know that nothing comes back, nothing has to be read.
    assert_eq!(freed(&world, &world.token, "/v1/snapshots/s2").await, 0);
    assert_eq!(freed(&world, &world.token, "/v1/instances/web.0").await, 0);
}
