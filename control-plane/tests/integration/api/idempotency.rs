//! `Idempotency-Key`: repeated calls have one effect and one answer; an operation is shown as it is now.

use futures::future::join_all;
use muster_api::operation::{Progress, Target};
use muster_controller::{
    app::{Answer, AppError, Once, begin_operation},
    store::operations::{self, NewOperation, Origin, Outcome},
};
use serde_json::{Value, json};

use super::world::World;

async fn make(world: &World, key: &str, path: &str, body: &str) -> super::world::Answer {
    world.send("POST", path, &[("idempotency-key", key)], body).await
}

async fn count(world: &World) -> usize {
    let list: Value = world.get("/v1/tokens?limit=1000").await.ok(200);
    list["items"].as_array().expect("items").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_calls_with_one_key_have_one_effect_and_one_answer() {
    let world = World::new().await;
    let before = count(&world).await;
    let answers = join_all((0..10).map(|_| make(&world, "same", "/v1/tokens", r#"{"role":"admin"}"#))).await;
    let fresh = answers.iter().filter(|a| a.header("idempotent-replay").is_empty()).count();
    let bodies: std::collections::BTreeSet<_> = answers.iter().map(|a| a.ok::<Value>(201).to_string()).collect();
    assert_eq!((fresh, bodies.len(), count(&world).await), (1, 1, before + 1));
    let places: std::collections::BTreeSet<_> = answers.iter().map(|a| a.header("location")).collect();
    assert_eq!(places.len(), 1);
}

#[tokio::test]
async fn another_request_with_the_key_is_refused() {
    let world = World::new().await;
    make(&world, "k", "/v1/tokens", r#"{"role":"admin"}"#).await.ok::<Value>(201);
    make(&world, "k", "/v1/tokens", r#"{"role":"tenant"}"#).await.refused(422, "key_reused");
    // Keys belong to a project.
    make(&world, "k", "/v1/tokens?project=red", r#"{"role":"tenant"}"#).await.ok::<Value>(201);
}

#[tokio::test]
async fn a_refusal_is_not_stored_with_the_key() {
    let world = World::new().await;
    let body = r#"{"role":"admin","name":"later"}"#;
    world.post("/v1/tokens", &json!({ "role": "tenant", "name": "later" })).await.ok::<Value>(201);
    make(&world, "k", "/v1/tokens", body).await.refused(409, "name_taken");
    world.delete("/v1/tokens/later").await;
    let done = make(&world, "k", "/v1/tokens", body).await;
    done.ok::<Value>(201);
    assert_eq!(done.header("idempotent-replay"), "");
}

#[tokio::test]
async fn a_key_lasts_a_day_and_a_restart() {
    let world = World::new().await;
    let first: Value = make(&world, "k", "/v1/tokens", r#"{"role":"admin"}"#).await.ok(201);
    world.app.store.close().await;
    let World { dir, .. } = world;
    let world = World::open(dir).await;
    let again = make(&world, "k", "/v1/tokens", r#"{"role":"admin"}"#).await;
    assert_eq!((again.header("idempotent-replay"), again.ok::<Value>(201)), ("true", first));
    world.clock.advance_ms(24 * 3_600_000);
    let fresh = make(&world, "k", "/v1/tokens", r#"{"role":"tenant"}"#).await;
    assert_eq!((fresh.header("idempotent-replay"), fresh.status), ("", 201));
}

#[tokio::test]
async fn a_bad_key_is_refused() {
    let world = World::new().await;
    for bad in ["with space", &"x".repeat(65)] {
        make(&world, bad, "/v1/tokens", r#"{"role":"admin"}"#).await.refused(400, "bad_request");
    }
    make(&world, &"x".repeat(64), "/v1/tokens", r#"{"role":"admin"}"#).await.ok::<Value>(201);
}

#[tokio::test]
async fn a_repeated_call_shows_the_operation_as_it_is_now() {
    let world = World::new().await;
    let once = Once {
        project: "default".to_owned(),
        key: Some("k".to_owned()),
        request_sha256: "r".to_owned(),
        operator: true,
    };
    let begin = async || {
        world
            .app
            .once(&once, "test", async |tx| {
                let target = Target { kind: "thing".to_owned(), id: "a".to_owned(), name: "a".to_owned() };
                let progress = Progress::default();
                let new = NewOperation {
                    project: "default".to_owned(),
                    kind: "thing.do",
                    target,
                    phase: "begin",
                    progress,
                    deadline: tx.now(),
                };
                let operation = begin_operation(tx, &Origin::muster(), new).await?;
                Answer::accepted(&operation)
            })
            .await
            .expect("accepted")
    };
    let first = begin().await;
    let running = begin().await;
    assert_eq!((running.replayed, &running.body), (true, &first.body));
    let id = first.operation.expect("an operation");
    let ended = world
        .app
        .store
        .run_tx("test", async |tx| operations::finish(tx, id, Outcome::Succeeded(None)).await.map_err(AppError::from));
    ended.await.expect("ended");
    let after = begin().await;
    assert_eq!((after.status, after.body["state"].as_str()), (202, Some("succeeded")));
}
