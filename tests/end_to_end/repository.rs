//! A cluster with a repository loses its controller and all nodes, and is rebuilt on empty machines from the bucket, a backup of
//! the database and the CA.

use std::{fs, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use muster_api::{
    node::{Node, NodeState},
    pool::{Pool, RepositoryState},
    snapshot::SnapshotMember,
};
use muster_controller::{
    clock::SystemClock,
    config::{Config, Settings},
    history,
};
use muster_pool::repository::testing::{BUCKET, KEY_ID, TestStore};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// A bucket, and what opens it.
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) key_id: String,
    pub(crate) secret: String,
}

impl Place {
    fn of(store: &TestStore) -> Self {
        let (bucket, key_id, secret) = (BUCKET.to_owned(), KEY_ID.to_owned(), "secret".to_owned());
        Self { endpoint: store.endpoint(), bucket, key_id, secret }
    }

    fn url(&self) -> String {
        format!("s3://{}/e2e", self.bucket)
    }
}

/// A cluster whose controller is told of the repository. Its keys are in files.
async fn cluster(place: &Place, keys: &Path, write: &str, agents: usize) -> Cluster {
    fs::write(keys.join("id"), &place.key_id).expect("writes");
    fs::write(keys.join("secret"), &place.secret).expect("writes");
    let file = |name: &str| format!("@{}", keys.join(name).display());
    let (endpoint, url) = (&place.endpoint, place.url());
    let arguments = [
        ("--repository-url", url.as_str()),
        ("--repository-endpoint", endpoint.as_str()),
        ("--repository-allow-http", "true"),
        ("--repository-access-key", &file("id")),
        ("--repository-secret-key", &file("secret")),
        ("--repository-write", write),
    ];
    let controller = arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect();
    Cluster::start(ClusterOptions { controller, ..ClusterOptions::files(agents) }).await
}

async fn until_state(cluster: &Cluster, wanted: RepositoryState) -> Pool {
    eventually("the state of the repository", LIMIT, async || {
        let pool: Pool = cluster.api.get("/v1/pools/default").await.ok();
        let state = pool.repository.as_ref().map(|repository| repository.state);
        if state == Some(wanted) { Ok(pool) } else { Err(format!("{:#?}", pool.repository)) }
    })
    .await
}

/// Waits until what all nodes that are ready say is of now: a heartbeat that is on its way may be older.
async fn until_all_are_heard(cluster: &Cluster) {
    for _ in 0..2 {
        let seen = async || -> Vec<_> {
            let nodes = cluster.api.list::<Node>("/v1/nodes").await;
            let ready = nodes.iter().filter(|node| node.state == NodeState::Ready);
            ready.map(|node| node.last_seen_at).collect()
        };
        let before = seen().await;
        eventually("the next heartbeats", LIMIT, async || {
            let now = seen().await;
            let all = now.iter().zip(&before).all(|(now, before)| now > before);
            if all { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
        })
        .await;
    }
}

fn config(cluster: &Cluster) -> Config {
    Config::load(None, Settings { data_dir: Some(cluster.controller_dir()), ..Settings::default() }).expect("defaults")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_rebuilt_on_empty_machines_from_the_bucket_and_a_backup() {
    let store = TestStore::start().await;
    rebuilds(&Place::of(&store), async || store.objects()).await;
}

/// Builds a cluster, loses all but the bucket, a backup and the CA, and builds it again. `objects` counts those in the bucket.
pub(crate) async fn rebuilds(place: &Place, objects: impl AsyncFn() -> usize) {
    let keys = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(place, keys.path(), "behind", 3).await;
    let image = Pattern::striped(5, 8 * MIB, 200_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    let web = cluster.api.deploy_files("web", "base", 2).await;
    let mut bytes = image.bytes(0, 8 * MIB);
    bytes[1_000_000..1_000_014].copy_from_slice(b"kept in bucket");
    let disk = web[0].disks[0].path.clone().expect("operators see paths");
    let file = fs::File::options().write(true).open(&disk).expect("opens");
    file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).expect("writes");
    cluster.api.done("/v1/snapshots", json!({ "name": "s1", "select": { "deployment": "web" } }), LIMIT).await;
    let members = cluster.api.list::<SnapshotMember>("/v1/snapshots/s1/members").await;
    let member = members.iter().find(|member| member.instance == web[0].id).expect("web.0 is a member");
    let version = member.version.expect("it is published").to_string();

    until_all_are_heard(&cluster).await;
    let pool = until_state(&cluster, RepositoryState::Ok).await;
    let repository = pool.repository.expect("there is one");
    assert_eq!(repository.url, place.url());
    assert!(repository.uploaded.objects > 10 && repository.behind.objects == 0, "{repository:?}");
    let before = objects().await;

    // The backup is taken, and everything burns down but the bucket, the backup and the copy of the CA.
    let backup = cluster.dir.join("backup.db");
    history::backup(&config(&cluster), &backup).await.expect("backs up");
    for number in 0..3 {
        cluster.stop_agent(number).expect("ends");
        fs::remove_dir_all(&cluster.agents[number].dir).expect("removes");
    }
    cluster.stop_controller().expect("ends");
    let old = cluster.dir.join("old");
    fs::rename(cluster.controller_dir(), &old).expect("puts it aside");
    fs::create_dir(cluster.controller_dir()).expect("makes it");
    for name in ["ca.pem", "ca.key"] {
        fs::copy(old.join(name), cluster.controller_dir().join(name)).expect("copies");
    }
    fs::remove_dir_all(&old).expect("removes");

    history::restore(&config(&cluster), Arc::new(SystemClock), &backup).await.expect("restores");
    cluster.start_controller().await;
    for name in ["node-0", "node-1", "node-2"] {
        let _: Node = cluster.api.post(&format!("/v1/nodes/{name}/fence"), json!({ "confirm": true })).await.ok();
    }
    for _ in 0..2 {
        cluster.add_agent().await;
    }
    eventually("the new nodes are ready", LIMIT, async || {
        let nodes = cluster.api.list::<Node>("/v1/nodes").await;
        let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
        if ready == 2 { Ok(()) } else { Err(format!("{nodes:#?}")) }
    })
    .await;

    assert!(cluster.api.content(&version).await == bytes, "the bytes of the snapshot");
    let again = cluster.api.deploy_files("again", "base", 2).await;
    for instance in &again {
        let path = instance.disks[0].path.clone().expect("operators see paths");
        image.check(0, &fs::read(path).expect("reads"));
    }
    // Nothing needed is deleted when the sweep goes on.
    cluster.api.done("/v1/pools/default/sweep", json!({ "after_restore": true }), LIMIT).await;
    assert!(cluster.api.content(&version).await == bytes, "the bytes of the snapshot after the sweep");
    until_all_are_heard(&cluster).await;
    let repository = until_state(&cluster, RepositoryState::Ok).await.repository.expect("there is one");
    assert_eq!(repository.uploaded.objects, 0, "what came from the bucket is not written there again");
    let after = objects().await;
    assert!(after >= before, "the bucket had {before} objects, now {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_while_everything_runs_and_through_refuses_while_they_are_lost() {
    let store = TestStore::start().await;
    let keys = tempfile::tempdir().expect("a folder");
    let cluster = cluster(&Place::of(&store), keys.path(), "through", 2).await;
    let image = Pattern::striped(6, 2 * MIB, 100_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    until_state(&cluster, RepositoryState::Ok).await;
    cluster.api.import("one", &file).await;
    let objects = store.objects();
    assert!(objects > 2, "what is published is in the repository: {objects} objects");

    store.take_only_key("second-key");
    let other = Pattern::striped(7, 2 * MIB, 100_000, MIB);
    other.write(&file);
    let content = fs::read(&file).expect("reads");
    let _: serde_json::Value = cluster.api.post("/v1/images", json!({ "name": "two" })).await.ok();
    let upload = || cluster.api.request(reqwest::Method::PUT, "/v1/images/two/content").body(content.clone());
    let refused = cluster.api.send(upload()).await.problem(503, "unavailable");
    assert!(refused.detail.contains("the repository of the pool takes nothing now"), "{refused:?}");
    let failing = until_state(&cluster, RepositoryState::Failing).await.repository.expect("there is one");
    assert!(failing.trouble.iter().any(|why| why.contains("refuses the keys")), "{failing:?}");

    fs::write(keys.path().join("id"), "second-key").expect("writes");
    until_state(&cluster, RepositoryState::Ok).await;
    let _: serde_json::Value = cluster.api.send(upload()).await.ok();
    assert!(store.objects() > objects);
}
