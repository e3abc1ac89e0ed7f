//! The repository of the pool: who is told of it and when, how new keys take effect, and what operators see.

use std::path::Path;

use muster_api::{
    node::{ObjectAmount, RepositoryUse},
    node_protocol::{Heartbeat, HeartbeatAnswer, repository::RepositoryOrder},
    pool::{Pool, PoolRepository, RepositoryState, RepositoryWrite},
};
use muster_controller::config::{Config, repository::RepositorySettings};
use muster_pool::repository::testing::{BUCKET, KEY_ID, TestStore, Trouble};
use serde_json::json;

use super::world::{Agent, World};

/// Settings as a file has them. The id of the key is in a file of its own.
fn configure(config: &mut Config, store: &TestStore, keys: &Path) {
    std::fs::write(keys.join("id"), KEY_ID).expect("writes");
    let text = format!(
        "url = 's3://{BUCKET}/some/place'\nendpoint = '{}'\nallow_http = true\naccess_key = '@{}'\nsecret_key = 'hidden'\n",
        store.endpoint(),
        keys.join("id").display()
    );
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("c.toml");
    std::fs::write(&file, format!("[pool.repository]\n{text}")).expect("writes");
    let loaded = Config::load(Some(&file), muster_controller::config::Settings::default()).expect("fits");
    config.pool.repository = loaded.pool.repository;
}

async fn told(world: &World, agent: &Agent, beat: &Heartbeat) -> Option<u64> {
    world.beat(agent, beat).await.ok::<HeartbeatAnswer>(200).repository
}

async fn order(world: &World, agent: &Agent) -> RepositoryOrder {
    world.node_call(agent.caller.as_ref(), "GET", "/node/v1/repository", "").await.ok(200)
}

async fn view(world: &World) -> PoolRepository {
    world.get("/v1/pools/default").await.ok::<Pool>(200).repository.expect("there is one")
}

#[tokio::test]
async fn nodes_are_told_once_the_place_is_this_clusters_and_of_new_keys_once_they_work() {
    let (store, keys) = (TestStore::start().await, tempfile::tempdir().expect("a folder"));
    let world = World::configured(None, |config| configure(config, &store, keys.path())).await;
    let agent = world.agent("a").await;
    let beat = agent.beat();
    assert_eq!(told(&world, &agent, &beat).await, None, "nothing is known of the place yet");
    let early = world.node_call(agent.caller.as_ref(), "GET", "/node/v1/repository", "").await;
    early.refused(503, "unavailable");

    world.app.follow_repository().await;
    let first = told(&world, &agent, &beat).await.expect("the place is claimed");
    let told_first = order(&world, &agent).await;
    assert_eq!(told_first.revision, first);
    let settings = told_first.settings.expect("there are some");
    assert_eq!(
        (settings.url().as_str(), settings.keys.secret_access_key.as_str()),
        ("s3://bucket/some/place", "hidden")
    );
    assert!(store.keys().contains(&"some/place/muster-cluster".to_owned()));
    assert!(!world.get("/v1/pools/default").await.json().to_string().contains("hidden"), "operators see no secret");
    assert_eq!(view(&world).await.state, RepositoryState::Ok);

    // A key that does not work changes nothing but what is shown.
    std::fs::write(keys.path().join("id"), "second-key").expect("writes");
    world.app.follow_repository().await;
    assert_eq!(told(&world, &agent, &beat).await, Some(first));
    let failing = view(&world).await;
    assert_eq!(failing.state, RepositoryState::Failing);
    assert!(failing.trouble[0].starts_with("controller: the repository refuses the keys"), "{failing:?}");
    store.take_only_key("second-key");
    world.app.follow_repository().await;
    let second = told(&world, &agent, &beat).await.expect("the new key works");
    assert_ne!(second, first);
    assert_eq!(order(&world, &agent).await.settings.expect("some").keys.access_key_id, "second-key");
    assert_eq!(view(&world).await.state, RepositoryState::Ok);
    // Only nodes are told.
    let outside = world.node_call(None, "GET", "/node/v1/repository", "").await;
    outside.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_place_of_another_cluster_is_refused_and_shown() {
    let (store, keys) = (TestStore::start().await, tempfile::tempdir().expect("a folder"));
    store.change("some/place/muster-cluster", |_| Some("another".into()));
    let world = World::configured(None, |config| configure(config, &store, keys.path())).await;
    let agent = world.agent("a").await;
    world.app.follow_repository().await;
    assert_eq!(told(&world, &agent, &agent.beat()).await, None);
    let failing = view(&world).await;
    assert!(failing.trouble[0].contains("belongs to cluster another"), "{failing:?}");
    // The operator gives it up for good.
    store.change("some/place/muster-cluster", |_| None);
    world.app.follow_repository().await;
    assert!(told(&world, &agent, &agent.beat()).await.is_some());
}

#[tokio::test]
async fn without_one_nodes_are_told_that_there_is_none() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    assert_eq!(told(&world, &agent, &agent.beat()).await, Some(0));
    assert_eq!(order(&world, &agent).await, RepositoryOrder { revision: 0, settings: None });
    assert_eq!(world.get("/v1/pools/default").await.ok::<Pool>(200).repository, None);
}

#[tokio::test]
async fn the_pool_shows_what_all_nodes_say() {
    let (store, keys) = (TestStore::start().await, tempfile::tempdir().expect("a folder"));
    let world = World::configured(None, |config| configure(config, &store, keys.path())).await;
    world.app.follow_repository().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let says = |usage: &RepositoryUse, agent: &Agent| Heartbeat { repository: Some(usage.clone()), ..agent.beat() };
    let behind = RepositoryUse {
        behind: ObjectAmount { objects: 3, bytes: 700 },
        oldest_behind_s: Some(9),
        uploaded: ObjectAmount { objects: 10, bytes: 1000 },
        ..RepositoryUse::default()
    };
    world.beat(&a, &says(&behind, &a)).await.ok::<HeartbeatAnswer>(200);
    let older = RepositoryUse { oldest_behind_s: Some(20), ..behind.clone() };
    world.beat(&b, &says(&older, &b)).await.ok::<HeartbeatAnswer>(200);
    let shown = view(&world).await;
    assert_eq!((shown.state, shown.write), (RepositoryState::Behind, RepositoryWrite::Behind));
    assert_eq!(shown.behind, ObjectAmount { objects: 6, bytes: 1400 });
    assert_eq!((shown.oldest_behind_s, shown.uploaded.objects), (Some(20), 20));
    let failing = RepositoryUse { trouble: Some("it is away".to_owned()), ..behind };
    world.beat(&b, &says(&failing, &b)).await.ok::<HeartbeatAnswer>(200);
    let shown = view(&world).await;
    assert_eq!((shown.state, shown.trouble), (RepositoryState::Failing, vec!["b: it is away".to_owned()]));
    let node: serde_json::Value = world.get("/v1/nodes/b").await.ok(200);
    assert_eq!(node["repository"]["trouble"], json!("it is away"));
}

#[tokio::test]
async fn a_failure_is_not_shown_for_longer_than_it_lasts() {
    let (store, keys) = (TestStore::start().await, tempfile::tempdir().expect("a folder"));
    let world = World::configured(None, |config| configure(config, &store, keys.path())).await;
    world.app.follow_repository().await;
    let repository = world.app.pool.repository().expect("there is one");
    store.set_trouble(Trouble::Status(403));
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    repository.check(soon).await.expect_err("refused");
    assert_eq!(view(&world).await.state, RepositoryState::Failing);
    store.set_trouble(Trouble::None);
    world.app.follow_repository().await;
    assert_eq!(view(&world).await.state, RepositoryState::Ok);
}

#[test]
fn the_settings_of_one_place_are_taken_together() {
    // A URL in one layer and keys in another are one repository.
    let given = RepositorySettings { secret_key: Some("x".to_owned()), ..RepositorySettings::default() };
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[pool.repository]\nurl = 's3://b/c'\naccess_key = 'id'\n").expect("writes");
    let mut settings = muster_controller::config::Settings::default();
    settings.pool.repository = given;
    let config = Config::load(Some(&file), settings).expect("fits");
    assert_eq!(config.pool.repository.map(|repository| repository.prefix), Some("c".to_owned()));
    Config::load(Some(&file), muster_controller::config::Settings::default()).expect_err("there is no secret key");
}
