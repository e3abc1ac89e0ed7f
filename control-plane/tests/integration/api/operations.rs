//! Operations: shown, waited for, cancelled, overdue.

use std::time::{Duration, Instant};

use muster_api::{
    NodeId, OperationId,
    operation::{Progress, Target, WaitingOn},
};
use muster_controller::{
    app::{AppError, begin_operation},
    store::{
        StoreError,
        operations::{self, NewOperation, Origin, Outcome},
    },
    wake::Loop,
};
use serde_json::{Value, json};

use super::world::World;

pub(super) async fn begin(world: &World, project: &str, target: &str) -> OperationId {
    try_begin(world, project, target).await.expect("begun")
}

async fn try_begin(world: &World, project: &str, target: &str) -> Result<OperationId, AppError> {
    begin_kind(world, project, "thing.do", "thing", target).await
}

async fn begin_kind(
    world: &World,
    project: &str,
    kind: &'static str,
    target_kind: &str,
    target: &str,
) -> Result<OperationId, AppError> {
    let deadline = world.app.clock.now().plus_ms(60_000);
    let new = || NewOperation {
        project: project.to_owned(),
        kind,
        target: Target { kind: target_kind.to_owned(), id: target.to_owned(), name: target.to_owned() },
        phase: "begin",
        progress: Progress::default(),
        deadline,
    };
    let begun = world.app.store.run_tx("test", async |tx| begin_operation(tx, &Origin::muster(), new()).await).await?;
    Ok(begun.id)
}

async fn finish(world: &World, id: OperationId) {
    let done = world
        .app
        .store
        .run_tx("test", async |tx| operations::finish(tx, id, Outcome::Succeeded(Some(json!({ "n": 1 })))).await);
    done.await.expect("finished");
}

#[tokio::test]
async fn a_second_operation_on_the_target_is_busy_with_the_first() {
    let world = World::new().await;
    let first = begin(&world, "default", "a").await;
    let second = try_begin(&world, "default", "a").await;
    assert!(matches!(second, Err(AppError::Busy { operation }) if operation == first), "{second:?}");
    finish(&world, first).await;
    begin(&world, "default", "a").await;
}

#[tokio::test]
async fn the_summary_has_the_newest_20_operations_that_run_in_the_project() {
    let world = World::new().await;
    let mut begun = Vec::new();
    for n in 0..22 {
        begun.push(begin(&world, "default", &n.to_string()).await);
    }
    begin(&world, "other", "x").await;
    finish(&world, begun.pop().expect("22 of them")).await;
    let summary = world.get("/v1/summary").await.json();
    let running = summary["operations_running"].as_array().expect("a list");
    let shown: Vec<&str> = running.iter().map(|operation| operation["id"].as_str().expect("an id")).collect();
    let wanted: Vec<String> = begun.iter().rev().take(20).map(ToString::to_string).collect();
    assert_eq!(shown, wanted);
}

#[tokio::test]
async fn waiting_ends_when_it_is_done_or_when_time_is_up() {
    let world = World::new().await;
    let id = begin(&world, "default", "a").await;
    let path = format!("/v1/operations/{id}?wait=");
    let began = Instant::now();
    let pending: Value = world.get(&format!("{path}50ms")).await.ok(200);
    assert_eq!(pending["state"], "pending");
    assert!(began.elapsed() >= Duration::from_millis(50));
    let (done, ()) = futures::join!(world.get_owned(format!("{path}60s")), async {
        tokio::task::yield_now().await;
        finish(&world, id).await;
    });
    let done: Value = done.ok(200);
    assert_eq!((done["state"].as_str(), done["result"]["n"].as_i64()), (Some("succeeded"), Some(1)));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn cancel_asks_an_operation_to_stop_and_shows_an_ended_one_as_it_is() {
    let world = World::new().await;
    let id = begin(&world, "default", "a").await;
    let path = format!("/v1/operations/{id}/cancel");
    let asked = world.send("POST", &path, &[], "").await;
    assert_eq!(asked.ok::<Value>(202)["state"], "cancelling");
    assert_eq!(asked.header("location"), format!("/v1/operations/{id}"));
    finish(&world, id).await;
    let ended: Value = world.send("POST", &path, &[], "").await.ok(200);
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn operations_of_other_projects_and_their_nodes_are_hidden_from_tenants() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    let (ours, theirs) = (begin(&world, "red", "a").await, begin(&world, "blue", "b").await);
    let waiting = WaitingOn {
        what: "x".to_owned(),
        node: Some(NodeId::generate()),
        node_name: Some("n1".to_owned()),
        since: world.app.clock.now(),
        deadline: None,
    };
    let noted = world.app.store.run_tx("test", async |tx| {
        operations::progress(tx, ours, "half", &Progress::default(), std::slice::from_ref(&waiting)).await
    });
    noted.await.expect("noted");
    let seen: Value = world.get_as(&tenant, &format!("/v1/operations/{ours}")).await.ok(200);
    assert_eq!((seen["waiting_on"][0]["what"].as_str(), seen["waiting_on"][0].get("node")), (Some("x"), None));
    let operator: Value = world.get(&format!("/v1/operations/{ours}")).await.ok(200);
    assert!(operator["waiting_on"][0]["node"].is_string());
    world.get_as(&tenant, &format!("/v1/operations/{theirs}")).await.refused(404, "not_found");
    let list: Value = world.get_as(&tenant, "/v1/operations?state=running").await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let all: Value = world.get("/v1/operations?project=*").await.ok(200);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_operation_past_its_deadline_is_counted_and_cancelled() {
    let world = World::new().await;
    let id = begin(&world, "default", "a").await;
    world.pass(Loop::Overdue).await;
    assert_eq!(world.get("/v1/summary").await.json()["operations_overdue"], 0);
    world.clock.advance_ms(60_001);
    let summary = world.get("/v1/summary").await.json();
    assert_eq!(
        (&summary["operations_overdue"], &summary["problems"][0]["kind"]),
        (&json!(1), &json!("operation_overdue"))
    );
    world.clock.advance_ms(60_001);
    world.pass(Loop::Overdue).await;
    assert_eq!(world.get(&format!("/v1/operations/{id}")).await.json()["state"], "cancelling");
    let ended = world.app.store.run_tx("test", async |tx| operations::finish(tx, id, Outcome::Cancelled(None)).await);
    ended.await.expect("ended");
    world.clock.advance_ms(31 * 86_400_000);
    world.pass(Loop::Overdue).await;
    let gone = world.app.store.read("test", async |tx| operations::load(tx, id).await);
    assert!(gone.await.map_err(|e: StoreError| e.to_string()).expect("read").is_none());
}

#[tokio::test]
async fn an_operation_that_no_loop_works_on_is_ended_after_its_deadline() {
    const KINDS: [(&str, &str); 18] = [
        ("deployment.create", "deployment"),
        ("deployment.scale", "deployment"),
        ("deployment.retry", "deployment"),
        ("deployment.start", "deployment"),
        ("deployment.stop", "deployment"),
        ("deployment.reboot", "deployment"),
        ("deployment.clear", "deployment"),
        ("deployment.delete", "deployment"),
        ("instance.start", "instance"),
        ("instance.stop", "instance"),
        ("instance.reboot", "instance"),
        ("instance.delete", "instance"),
        ("instance.start", "instances"),
        ("instance.delete", "instances"),
        ("snapshot.create", "snapshot"),
        ("snapshot.delete", "snapshot"),
        ("image.import", "image"),
        ("thing.do", "thing"),
    ];
    let world = World::new().await;
    let mut begun = Vec::new();
    for (n, (kind, target)) in KINDS.into_iter().enumerate() {
        begun.push(begin_kind(&world, "default", kind, target, &n.to_string()).await.expect(kind));
    }
    // One is cancelled long before its time is over.
    world.send("POST", &format!("/v1/operations/{}/cancel", begun[17]), &[], "").await.ok::<Value>(202);
    // Past the deadline and its grace it is asked to stop; after a further grace it is ended.
    for _ in 0..3 {
        world.clock.advance_ms(61_000);
        for which in [Loop::Deployments, Loop::Snapshots, Loop::Overdue] {
            world.pass(which).await;
        }
    }
    for (id, kind) in begun.into_iter().zip(KINDS) {
        let ended: Value = world.get(&format!("/v1/operations/{id}")).await.ok(200);
        assert!(ended["finished_at"].is_string(), "{kind:?}: {ended}");
    }
    assert_eq!(world.get("/v1/summary").await.json()["operations_overdue"], 0);
}
