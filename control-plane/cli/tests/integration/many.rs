//! Commands that take several things: they ask once, begin all, and print one array.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::Response};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    fake::{Done, Fake, Seen, answer, bare, problem},
    things::{self, OPERATION_ID, operation, with},
};

/// Answers a controller that deletes deployments as slow work and images at once.
fn deletes(seen: &Seen, _: usize) -> Response<Body> {
    match (seen.method.as_str(), seen.path.contains("dry_run=true")) {
        (_, true) if seen.path.contains("/missing") => problem(404, "not_found", "there is no deployment 'missing'"),
        (_, true) => answer(200, &json!({"freed_bytes": 1 << 20})),
        ("DELETE", _) if seen.path.contains("/images/") => {
            Response::builder().status(204).body(Body::empty()).expect("ok")
        }
        ("DELETE", _) => answer(202, &with(operation("running", 1), json!({"kind": "deployment.delete"}))),
        _ => answer(200, &with(operation("succeeded", 2), json!({"kind": "deployment.delete"}))),
    }
}

#[tokio::test]
async fn rm_of_several_asks_once_and_begins_all_before_it_waits() {
    let fake = Fake::start(deletes).await;
    let args = ["deployment", "rm", "web", "trial"];
    let said = fake.at_terminal(&args, "y\n").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let question =
        "Delete deployment web, trial (at least 2 MiB that nothing else uses; the sweep\n  gives it back)? [y/N]";
    assert!(said.out.contains(question) && said.out.matches("[y/N]").count() == 1, "{}", said.out);
    for name in ["web", "trial"] {
        assert!(said.out.contains(&format!("deleted deployment {name}")), "{}", said.out);
    }
    let begun: Vec<_> = fake.lines().into_iter().filter(|line| !line.contains("dry_run")).take(2).collect();
    assert_eq!(begun, ["DELETE /v1/deployments/web", "DELETE /v1/deployments/trial"]);
    let before = fake.seen().len();
    let said = fake.at_terminal(&args, "n\n").await;
    assert!(said.code == Some(1) && said.out.contains("nothing was changed"), "{said:?}");
    assert!(fake.lines().iter().skip(before).all(|line| line.contains("dry_run")), "{:?}", fake.lines());
}

#[tokio::test]
async fn rm_of_several_goes_on_after_one_that_is_missing_and_tells_it() {
    let fake = Fake::start(deletes).await;
    let done = fake.run(&["deployment", "rm", "--yes", "missing", "web"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.out.contains("deleted deployment web"), "{done:?}");
    assert_eq!(done.err.matches("there is no deployment 'missing'").count(), 1, "{done:?}");
}

#[tokio::test]
async fn without_a_terminal_what_asks_needs_yes_and_says_so() {
    let fake = Fake::start(deletes).await;
    for args in [
        &["image", "rm", "a", "b"][..],
        &["version", "rm", things::VERSION_ID],
        &["deployment", "rm", "web"],
        &["instance", "rm", "web.0"],
        &["instance", "rm", "--deployment", "web"],
        &["instance", "forget", "web.0"],
        &["snapshot", "rm", "s"],
        &["snapshot", "restore", "s", "--discard-current"],
        &["network", "rm", "back"],
        &["security-group", "rm", "web"],
        &["node", "rm", "n1"],
        &["node", "rm", "n1", "--dead"],
        &["node", "fence", "n1"],
        &["node", "salvage", "n1", "--give-up"],
        &["pool", "sweep", "--after-restore"],
        &["token", "rm", "ci"],
        &["session", "rm", things::OTHER_ID],
    ] {
        let done = fake.run(args).await;
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(done.err.contains("no terminal: repeat it with --yes"), "{args:?}: {done:?}");
    }
    assert!(fake.seen().is_empty(), "nothing is asked of the controller: {:?}", fake.lines());
}

#[tokio::test]
async fn several_things_are_one_array_in_json_and_one_is_an_object() {
    let fake = Fake::start(|seen, number| match seen.path.contains("/nodes/") {
        true => answer(200, &things::node(if seen.path.contains("n1") { "n1" } else { "n2" })),
        false => deletes(seen, number),
    })
    .await;
    let json = async |args: &[&str]| fake.run(&[args, &["-o", "json"]].concat()).await.json();
    assert_eq!(json(&["node", "cordon", "n1", "n2"]).await, json!([things::node("n1"), things::node("n2")]));
    assert_eq!(json(&["node", "cordon", "n1"]).await, things::node("n1"));
    let done = with(operation("succeeded", 2), json!({"kind": "deployment.delete"}));
    assert_eq!(json(&["deployment", "rm", "--yes", "a", "b"]).await, json!([done, done]));
    assert_eq!(json(&["operation", "wait", OPERATION_ID, OPERATION_ID]).await, json!([done, done]));
    assert_eq!(json(&["image", "rm", "--yes", "a", "b"]).await, json!([]), "what is gone has no object");
    let begun = json(&["deployment", "rm", "--yes", "--no-wait", "a", "b"]).await;
    assert_eq!(begun.as_array().map(Vec::len), Some(2), "{begun}");
}

#[tokio::test]
async fn an_operation_that_failed_is_part_of_the_array() {
    let fake = Fake::start(|seen, number| match seen.path.contains("op-2") || seen.path.contains("wait=") {
        true => answer(200, &operation("failed", 0)),
        false => answer(200, &operation(if number == 0 { "succeeded" } else { "running" }, 2)),
    })
    .await;
    let done = fake.run(&["operation", "wait", "op-1", "op-2", "-o", "json"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.json(), json!([operation("succeeded", 2), operation("failed", 0)]));
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(bare(empty.path(), &["operation", "wait"]).output().await.expect("it runs").status.code(), Some(2));
}

#[tokio::test]
async fn an_interrupt_begins_with_nothing_more() {
    let asked = Arc::new(Notify::new());
    let told = asked.clone();
    let fake = Fake::start(move |_, _| {
        told.notify_one();
        let never = futures::stream::pending::<Result<String, std::io::Error>>();
        Response::new(Body::from_stream(never))
    })
    .await;
    let args = ["token", "rm", "--yes", "a", "b", "c"];
    let child = fake.muster(&args).spawn().expect("muster starts");
    tokio::time::timeout(Duration::from_secs(20), asked.notified()).await.expect("it asks for the first");
    crate::waiting::interrupt(&child);
    let done = Done::of(child.wait_with_output().await.expect("it ends"));
    assert_eq!(done.code, Some(3), "the first may have been deleted: {done:?}");
    assert_eq!(fake.lines(), ["DELETE /v1/tokens/a"]);
}
