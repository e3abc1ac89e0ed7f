//! The sweep: what is deleted is given back within the rounds that an operator asks for, and what anybody still needs never
//! is. The nodes here share one store, which stands for the pool, and carry rounds out as an agent does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use muster_api::{
    Timestamp, VersionId,
    node_protocol::{Incarnation, SILENT_AFTER_S, Unexplained, sweep::names_from_bytes},
};
use muster_controller::{
    domain::versions::Content,
    store::{
        uploads::{self, NewUpload, UploadTarget},
        versions,
    },
};
use serde_json::{Value, json};
use storage_core::{ChunkStore, MemoryStore, ObjectName, tree::Page};

use super::harness::{MIB, Node, Reply, World, eventually, stored};
use crate::clock::ManualClock;

/// A controller, its nodes, and the pool. Each node has told what it holds.
struct Cluster {
    world: World,
    nodes: Vec<Node>,
    pool: Arc<MemoryStore>,
    /// The newest round that each node carried out.
    done: std::sync::Mutex<BTreeMap<usize, u64>>,
}

impl Cluster {
    async fn new() -> Self {
        let pool = Arc::new(MemoryStore::new());
        let world = World::with_pool(pool.clone()).await;
        let nodes = world.nodes(2).await;
        for node in &nodes {
            node.script(|s| s.pool = Some(pool.clone()));
        }
        let cluster = Self { world, nodes, pool, done: std::sync::Mutex::default() };
        cluster.tell_whole().await;
        cluster
    }

    async fn tell_whole(&self) {
        for node in &self.nodes {
            node.tell_whole().await;
        }
    }

    /// An image whose version consists of these chunks.
    async fn image(&self, name: &str, chunks: &[&str]) -> (VersionId, Content) {
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|text| text.as_bytes().to_vec()).collect();
        let round = self.round().await;
        let content = stored(&self.pool, MIB, &chunks, round);
        (self.world.image_of(name, content.clone()).await, content)
    }

    async fn round(&self) -> u64 {
        self.world.app.store.read("test.round", async |tx| uploads::current_round(tx).await).await.unwrap()
    }

    /// What the nodes do when their heartbeats name a round: one of them has an odd half of the names, the other the rest.
    async fn carry_out(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(round) = node.named_round().await else { continue };
            let last = self.done.lock().unwrap().get(&n).copied();
            let held = self.pool.names().unwrap();
            let names: Vec<ObjectName> = if last == Some(round - 1) {
                let mut names: BTreeSet<ObjectName> = BTreeSet::new();
                loop {
                    let after = names.last().map_or(String::new(), |last| format!("?after={last}"));
                    let part = node.sweep_call("GET", &format!("{round}/dead{after}"), &[]).await;
                    if part.status == 409 {
                        return;
                    }
                    let part = names_from_bytes(&part.expect(200).raw).unwrap();
                    if part.is_empty() {
                        break;
                    }
                    names.extend(part);
                }
                let aged = self.pool.list(None, 10_000).unwrap();
                let aged: Vec<_> = aged.iter().filter(|o| o.round + 2 == round).map(|o| o.name).collect();
                names.extend(self.judge(node, round, &aged).await);
                names.into_iter().collect()
            } else {
                self.judge(node, round, &held).await
            };
            let mine: Vec<ObjectName> =
                names.into_iter().filter(|name| usize::from(name.as_bytes()[31]) % self.nodes.len() == n).collect();
            let before = self.pool.names().unwrap().len();
            self.pool.remove(round - 1, &mine).unwrap();
            let dropped = before - self.pool.names().unwrap().len();
            let done = json!({ "objects": dropped, "bytes": dropped * 10, "reclaimed_bytes": 0 });
            if node.call("POST", &format!("sweep/{round}/done"), done).await.status == 204 {
                self.done.lock().unwrap().insert(n, round);
            }
        }
    }

    async fn judge(&self, node: &Node, round: u64, names: &[ObjectName]) -> Vec<ObjectName> {
        let answer = node.sweep_call("POST", &format!("{round}/judge"), names).await;
        if answer.status == 409 { Vec::new() } else { names_from_bytes(&answer.expect(200).raw).unwrap() }
    }

    async fn ask(&self) -> Reply {
        self.world.post("/v1/pools/default/sweep", json!({})).await.expect(202)
    }

    /// Asks for a sweep and carries it out.
    async fn sweep(&self) -> Reply {
        let operation = self.ask().await;
        let path = format!("/v1/operations/{}", operation.text("/id"));
        eventually("the sweep to end", async || {
            self.carry_out().await;
            let reply = self.world.get(&path).await;
            (!reply.body["finished_at"].is_null()).then_some(())
        })
        .await;
        self.world.ends(&operation, "succeeded").await
    }

    async fn pool(&self) -> Value {
        self.world.get("/v1/pools/default").await.expect(200).body
    }

    /// Waits until the sweep says this of itself.
    async fn says(&self, part: &str) {
        eventually(part, async || {
            self.carry_out().await;
            self.pool().await["sweep"]["reason"].as_str().unwrap_or_default().contains(part).then_some(())
        })
        .await;
    }

    /// Whether all that a version consists of is in the pool.
    fn has(&self, content: &Content) -> bool {
        let page = Page::decode(content.root_page().unwrap()).unwrap();
        let chunks = page.entries().flat_map(|(_, leaf)| leaf.objects().copied());
        let all = chunks.chain([content.root(), content.descriptor().root.unwrap()]);
        all.into_iter().all(|name| self.pool.contains(&name).unwrap())
    }

    async fn content(&self, version: &str) -> Content {
        let id: VersionId = version.parse().unwrap();
        let row = self.world.app.store.read("test.version", async |tx| versions::load(tx, id).await).await.unwrap();
        row.unwrap().content
    }

    async fn deleted(&self, path: &str) {
        let reply = self.world.delete(path).await;
        if reply.status == 202 {
            self.world.ends(&reply, "succeeded").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_in_any_order_is_given_back_and_what_is_needed_stays() {
    let cluster = Cluster::new().await;
    let world = &cluster.world;
    let (_, debian) = cluster.image("debian", &["boot", "etc"]).await;
    let (_, other) = cluster.image("other", &["boot", "var"]).await;
    world.ready("web", 2).await;
    let snapshot = json!({ "name": "s1", "select": { "deployment": "web" } });
    world.ends(&world.post("/v1/snapshots", snapshot).await.expect(202), "succeeded").await;
    let members = world.get("/v1/snapshots/s1/members").await.expect(200);
    let saved = cluster.content(members.text("/items/0/version")).await;
    cluster.tell_whole().await;

    // The image is deleted; its deployment still starts members from it.
    cluster.deleted("/v1/images/debian").await;
    cluster.sweep().await;
    assert!(cluster.has(&debian) && cluster.has(&other) && cluster.has(&saved));
    let scaled = world.post("/v1/deployments/web/scale", json!({ "count": 3 })).await.expect(202);
    world.ends(&scaled, "succeeded").await;

    cluster.deleted("/v1/deployments/web").await;
    let swept = cluster.sweep().await;
    assert!(!cluster.has(&debian) && cluster.has(&other) && cluster.has(&saved));
    // The chunk that both images have is still there, and so are all objects of the others and of the snapshot.
    assert_eq!(cluster.pool.names().unwrap().len(), 4 + 2 * 3);
    assert_eq!(swept.number("/result/objects"), 3, "the descriptor, the page and a chunk");

    cluster.deleted("/v1/snapshots/s1").await;
    cluster.deleted("/v1/images/other").await;
    cluster.sweep().await;
    assert_eq!(cluster.pool.names().unwrap(), []);
    let pool = cluster.pool().await;
    assert_eq!((&pool["sweep"]["state"], &pool["sweep"]["needed_objects"]), (&json!("idle"), &json!(0)));
    assert_eq!(pool["sweep"]["nodes_done"], 2);
    let as_json = [("accept", "application/json")];
    let told = world.call_as(&world.token, "GET", "/v1/events?limit=1000", Value::Null, &as_json).await.expect(200);
    assert!(String::from_utf8_lossy(&told.raw).contains("pool.swept"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_base_that_a_node_still_reads_stays() {
    let cluster = Cluster::new().await;
    let world = &cluster.world;
    let (_, debian) = cluster.image("debian", &["boot"]).await;
    let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 1, "runtime": "none" });
    world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
    cluster.tell_whole().await;
    for node in &cluster.nodes {
        node.script(|s| s.lags = true);
    }
    let snapshot = json!({ "name": "s1", "select": { "deployment": "web" } });
    world.ends(&world.post("/v1/snapshots", snapshot).await.expect(202), "succeeded").await;
    cluster.deleted("/v1/images/debian").await;
    // Only the node needs the base now: the deployment is made to start from something else.
    let sql = "UPDATE deployments SET version = NULL";
    world
        .app
        .store
        .run_tx("test.forget", async |tx| {
            sqlx::query(sql).execute(tx.conn()).await?;
            Ok::<_, muster_controller::store::StoreError>(())
        })
        .await
        .unwrap();
    cluster.sweep().await;
    assert!(cluster.has(&debian), "a node has not reported the new version yet");
    for node in &cluster.nodes {
        node.script(|s| s.lags = false);
    }
    cluster.tell_whole().await;
    cluster.sweep().await;
    assert!(!cluster.has(&debian));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_an_older_round_holds_the_next_one_and_what_it_stored_stays() {
    let cluster = Cluster::new().await;
    let world = &cluster.world;
    let (image, _) = cluster.image("debian", &["boot"]).await;
    let until = Timestamp::from_micros(i64::MAX / 2);
    let target_id = world.get("/v1/images/debian").await.text("/id").to_owned();
    let new = NewUpload { project: "default".to_owned(), target: UploadTarget::Image, target_id, until };
    let upload = world.app.store.run_tx("test.upload", async |tx| uploads::begin(tx, &new).await).await.unwrap();
    let uploaded = stored(&cluster.pool, MIB, &[b"new".to_vec()], upload.round);

    let operation = cluster.ask().await;
    cluster.says("the upload to image 'debian' in project default has to end first").await;
    assert_eq!(cluster.round().await, upload.round + 1, "one round may begin, a second may not");
    assert!(cluster.has(&uploaded), "its stamps are too young");
    let waiting = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
    assert!(waiting.text("/waiting_on/0/what").contains("image 'debian'"), "{waiting:?}");
    world
        .app
        .store
        .run_tx("test.publish", async |tx| {
            assert!(uploads::live(tx, upload.id).await?.is_some(), "it may still be published");
            uploads::end(tx, upload.id).await
        })
        .await
        .unwrap();
    eventually("the sweep to end", async || {
        cluster.carry_out().await;
        let reply = world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
        (reply.text("/state") == "succeeded").then_some(())
    })
    .await;
    // It published nothing, so the next sweep takes what it stored.
    cluster.sweep().await;
    assert!(!cluster.has(&uploaded) && cluster.has(&cluster.content(&image.to_string()).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_swept_after_a_restore_until_all_nodes_told_and_an_operator_said_so() {
    let mut cluster = Cluster::new().await;
    let (_, debian) = cluster.image("debian", &["boot"]).await;
    cluster.sweep().await;
    // A whole data folder may have been put back while the controller was off.
    cluster.world.restart().await;
    cluster.deleted("/v1/images/debian").await;
    let operation = cluster.ask().await;
    cluster.says("node 'n0' (and 1 more) did not tell yet what it holds").await;
    cluster.nodes[0].tell_whole().await;
    cluster.says("node 'n1' did not tell yet what it holds").await;
    assert!(cluster.has(&debian));
    // The other node has seen a later history: the database is an older copy.
    let seen = Incarnation { number: 7, random: 7 };
    cluster.nodes[1].has_seen(seen).await;
    cluster.says("did not tell yet what it holds").await;
    for node in &cluster.nodes {
        node.learn_incarnation().await;
    }
    cluster.tell_whole().await;
    cluster.says("the database was restored").await;
    assert!(cluster.has(&debian));
    assert_eq!(cluster.pool().await["sweep"]["state"], "held");
    cluster.world.post(&format!("/v1/operations/{}/cancel", operation.text("/id")), json!({})).await;
    cluster.world.ends(&operation, "cancelled").await;
    let world = &cluster.world;
    let refused = world.post("/v1/pools/default/sweep", json!({})).await.refused(409, "wrong_state");
    assert!(refused.text("/detail").contains("--after-restore"), "{:#}", refused.body);
    let allowed = world.post("/v1/pools/default/sweep", json!({ "after_restore": true })).await.expect(202);
    eventually("the sweep to end", async || {
        cluster.carry_out().await;
        (world.get(&format!("/v1/operations/{}", allowed.text("/id"))).await.text("/state") == "succeeded")
            .then_some(())
    })
    .await;
    assert!(!cluster.has(&debian));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_goes_on_after_a_restart() {
    let mut cluster = Cluster::new().await;
    let (_, debian) = cluster.image("debian", &["boot"]).await;
    cluster.sweep().await;
    cluster.deleted("/v1/images/debian").await;
    let operation = cluster.ask().await;
    let named = eventually("a round to be named", async || cluster.nodes[0].named_round().await).await;
    cluster.world.restart().await;
    assert_eq!(cluster.nodes[0].named_round().await, None, "nothing is named before all nodes told what they hold");
    cluster.tell_whole().await;
    let again = eventually("the round to be named again", async || cluster.nodes[0].named_round().await).await;
    assert_eq!(again, named);
    eventually("the sweep to end", async || {
        cluster.carry_out().await;
        let reply = cluster.world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
        (reply.text("/state") == "succeeded").then_some(())
    })
    .await;
    assert!(!cluster.has(&debian));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_had_holds_the_sweep_until_its_version_goes() {
    let cluster = Cluster::new().await;
    let (_, debian) = cluster.image("debian", &["boot"]).await;
    let (_, doomed) = cluster.image("doomed", &["x"]).await;
    cluster.pool.remove(u64::MAX, &[debian.descriptor().root.unwrap()]).unwrap();
    cluster.deleted("/v1/images/doomed").await;
    let operation = cluster.ask().await;
    cluster.says("pages of versions that are needed cannot be read").await;
    assert!(cluster.has(&doomed), "nothing is swept by guess");
    cluster.deleted("/v1/images/debian").await;
    eventually("the sweep to end", async || {
        cluster.carry_out().await;
        let reply = cluster.world.get(&format!("/v1/operations/{}", operation.text("/id"))).await;
        (reply.text("/state") == "succeeded").then_some(())
    })
    .await;
    assert!(!cluster.has(&doomed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_lost_before_its_version_is_deleted_makes_the_counts_anew() {
    let cluster = Cluster::new().await;
    let (_, debian) = cluster.image("debian", &["boot"]).await;
    let (_, other) = cluster.image("other", &["boot", "y"]).await;
    cluster.sweep().await;
    cluster.pool.remove(u64::MAX, &[debian.descriptor().root.unwrap()]).unwrap();
    cluster.deleted("/v1/images/debian").await;
    cluster.sweep().await;
    assert!(cluster.has(&other) && !cluster.pool.contains(&debian.root()).unwrap());
    assert_eq!(cluster.pool.names().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_cloned_while_it_is_deleted_is_whole_or_not_there() {
    let cluster = Cluster::new().await;
    let mut clones = 0;
    for n in 0..8 {
        let (version, content) = cluster.image(&format!("i{n}"), &[&format!("only {n}")]).await;
        let order = json!({ "name": format!("c{n}"), "source": { "version": version } });
        let deleted = format!("/v1/images/i{n}");
        let clone = async {
            tokio::time::sleep(std::time::Duration::from_micros(300 * n)).await;
            cluster.world.post("/v1/images", order).await
        };
        let (made, _, _) = tokio::join!(clone, cluster.world.delete(&deleted), cluster.sweep());
        let is_made = made.status == 201;
        clones += u32::from(is_made);
        cluster.sweep().await;
        assert_eq!(cluster.has(&content), is_made, "{made:?}");
    }
    eprintln!("{clones} of 8 clones came before the deletion");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_read_stays_until_the_reader_ends() {
    let cluster = Cluster::new().await;
    let (version, debian) = cluster.image("debian", &["boot"]).await;
    let reading = cluster.world.app.begin_reading(version).await.unwrap();
    cluster.deleted("/v1/images/debian").await;
    assert!(cluster.world.app.begin_reading(version).await.is_err(), "nobody begins to read a deleted version");
    cluster.sweep().await;
    assert!(cluster.has(&debian));
    drop(reading);
    eventually("the lease to end", async || {
        cluster.sweep().await;
        (!cluster.has(&debian)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_door_answers_for_the_round_that_is_named_only() {
    let cluster = Cluster::new().await;
    let node = &cluster.nodes[0];
    cluster.ask().await;
    let round = eventually("a round to be named", async || node.named_round().await).await;
    let held = cluster.image("debian", &["boot"]).await.1.root();
    for bad in [round - 1, round + 1] {
        node.sweep_call("GET", &format!("{bad}/dead"), &[]).await.refused(409, "wrong_state");
        node.sweep_call("POST", &format!("{bad}/judge"), &[held]).await.refused(409, "wrong_state");
        let done = json!({ "objects": 0, "bytes": 0, "reclaimed_bytes": 0 });
        node.call("POST", &format!("sweep/{bad}/done"), done).await.refused(409, "wrong_state");
    }
    let low = ObjectName::from_bytes([0; 32]);
    node.sweep_call("POST", &format!("{round}/judge"), &[low, low]).await.refused(400, "bad_request");
    node.sweep_call("GET", &format!("{round}/dead?after=x"), &[]).await.refused(400, "bad_request");
    assert_eq!(cluster.judge(node, round, &[low]).await, [low], "nothing needs what nobody knows");
    // A tenant sees nothing of it.
    let tenant = cluster.world.token(json!({ "role": "tenant", "project": "default" })).await;
    for (method, path) in [("GET", "/v1/pools"), ("GET", "/v1/pools/default"), ("POST", "/v1/pools/default/sweep")] {
        cluster.world.call_as(&tenant, method, path, json!({}), &[]).await.refused(403, "forbidden");
    }
    cluster.world.get("/v1/pools/other").await.refused(404, "not_found");
    assert_eq!(cluster.world.get("/v1/pools").await.expect(200).text("/items/0/name"), "default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_hold_and_nothing_explains_is_added_up_while_all_are_there() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    let told = async || world.get("/v1/summary").await.expect(200).body["unexplained_bytes"].clone();
    assert_eq!(told().await, 0, "there is no node");
    let nodes = world.nodes(2).await;
    let tells = async |n: usize, objects_bytes: Option<u64>, disks_bytes: Option<u64>| {
        nodes[n].script(|s| s.unexplained = Some(Unexplained { objects_bytes, disks_bytes }));
        nodes[n].beat().await;
    };
    assert_eq!(told().await, Value::Null, "older agents do not tell");
    tells(0, Some(0), Some(0)).await;
    tells(1, None, Some(0)).await;
    assert_eq!(told().await, Value::Null, "one has not carried out a round yet");
    tells(1, Some(0), Some(0)).await;
    assert_eq!(told().await, 0);
    tells(0, Some(4096), Some(100)).await;
    tells(1, Some(0), Some(8192)).await;
    assert_eq!(told().await, 4096 + 100 + 8192);
    tells(1, Some(u64::MAX), Some(u64::MAX)).await;
    assert_eq!(told().await, u64::MAX, "a node may say what it likes");
    tells(1, Some(0), Some(0)).await;
    let tenant = world.token(json!({ "role": "tenant" })).await;
    let summary = world.call_as(&tenant, "GET", "/v1/summary", Value::Null, &[]).await.expect(200);
    assert_eq!(summary.body["unexplained_bytes"], Value::Null);
    clock.advance_ms(i64::try_from(SILENT_AFTER_S).unwrap() * 1000 + 1000);
    nodes[1].beat().await;
    eventually("the silence to be noticed", async || (told().await == Value::Null).then_some(())).await;
    world.post("/v1/nodes/n0/fence", json!({ "confirm": true })).await.expect(200);
    assert_eq!(told().await, 0, "a node that is dead does not count");
}
