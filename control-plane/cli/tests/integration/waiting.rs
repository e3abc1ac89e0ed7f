//! Slow work: it is followed to its end, or goes on without us.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{process::Child, sync::Notify};

use crate::{
    fake::{Done, Fake, Seen, answer, problem},
    things::{self, OPERATION_ID, operation, with},
};

const DEPLOY: [&str; 6] = ["deploy", "web", "--image", "debian", "--count", "2"];

/// Sends what Ctrl-C sends.
pub(crate) fn interrupt(child: &Child) {
    let pid = child.id().expect("it runs").to_string();
    // The kill of the shell, because a small machine has no program of that name.
    let sent = std::process::Command::new("sh").args(["-c", "kill -INT $0", &pid]).status().expect("sh runs");
    assert!(sent.success());
}

fn deployment() -> serde_json::Value {
    things::deployment("web")
}

#[tokio::test]
async fn work_is_followed_to_its_end() {
    let fake = Fake::start(|seen, number| match (seen.method.as_str(), number) {
        ("POST", _) => answer(202, &operation("pending", 0)),
        (_, 1) => answer(200, &operation("running", 1)),
        (_, 2) => answer(200, &operation("succeeded", 2)),
        _ => answer(200, &deployment()),
    })
    .await;
    let done = fake.run(&DEPLOY).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.out, "web: 2 of 2 ready, median 2.1 s after the request\n");
    assert!(done.err.contains("deployment.create web: starting (0/2)"), "{}", done.err);
    let wait = format!("GET /v1/operations/{OPERATION_ID}?wait=30s");
    let expected = ["POST /v1/deployments", &wait, &wait, "GET /v1/deployments/web"];
    assert_eq!(fake.lines(), expected);
}

#[tokio::test]
async fn programs_get_the_changed_object() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(202, &operation("succeeded", 2)),
        _ => answer(200, &deployment()),
    })
    .await;
    let done = fake.run(&[&DEPLOY[..], &["-o", "json", "-q"]].concat()).await;
    assert_eq!(done.json(), deployment());
    assert_eq!(done.err, "");
}

#[tokio::test]
async fn failed_work_exits_with_1_and_says_why() {
    let fake = Fake::start(|seen, _| {
        let error = things::error(507, "no_capacity", "1 of 2 fit");
        let failed = with(operation("failed", 1), json!({"error": error}));
        match seen.method.as_str() {
            "POST" => answer(202, &operation("running", 0)),
            _ => answer(200, &failed),
        }
    })
    .await;
    let done = fake.run(&DEPLOY).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.ends_with("muster: deployment.create web failed: 1 of 2 fit (no_capacity)\n"), "{}", done.err);
    let json = fake.run(&[&DEPLOY[..], &["-o", "json"]].concat()).await;
    assert_eq!(json.json().pointer("/error/code"), Some(&json!("no_capacity")));
}

#[tokio::test]
async fn no_wait_ends_once_the_work_is_accepted() {
    let fake = Fake::start(|_, _| answer(202, &operation("pending", 0))).await;
    let done = fake.run(&[&DEPLOY[..], &["--no-wait"]].concat()).await;
    assert_eq!(done.code, Some(0));
    assert_eq!(done.out, format!("deployment.create web accepted:\n  muster operation wait {OPERATION_ID}\n"));
    assert_eq!(fake.seen().len(), 1);
    let json = fake.run(&[&DEPLOY[..], &["--no-wait", "-o", "json"]].concat()).await;
    assert_eq!(json.json(), operation("pending", 0));
}

#[tokio::test]
async fn a_timeout_ends_the_waiting_with_3() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(202, &operation("running", 0)),
        // The long poll answers at once every time, so only the timeout can end the waiting.
        _ => answer(200, &operation("running", 1)),
    })
    .await;
    let done = fake.run(&[&DEPLOY[..], &["--timeout", "300ms"]].concat()).await;
    assert_eq!(done.code, Some(3), "{done:?}");
    let goes_on = format!("deployment.create web goes on:\n  muster operation wait {OPERATION_ID}");
    assert!(done.err.contains(&goes_on), "{}", done.err);
    assert!(fake.seen().iter().all(|s| s.method != "DELETE" && !s.path.contains("cancel")), "the work goes on");
}

#[tokio::test]
async fn an_interrupt_ends_the_waiting_with_3_not_the_work() {
    let waiting = Arc::new(Notify::new());
    let told = waiting.clone();
    let fake = Fake::start(move |seen, _| {
        if seen.method == "POST" {
            return answer(202, &operation("running", 0));
        }
        told.notify_one();
        axum::http::Response::new(axum::body::Body::from_stream(futures::stream::pending::<
            Result<String, std::io::Error>,
        >()))
    })
    .await;
    let child = fake.muster(&DEPLOY).spawn().expect("muster starts");
    tokio::time::timeout(Duration::from_secs(20), waiting.notified()).await.expect("it waits for the operation");
    interrupt(&child);
    let done = Done::of(child.wait_with_output().await.expect("it ends"));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.err.contains("stopped waiting; deployment.create web goes on"), "{}", done.err);
    assert!(fake.seen().iter().all(|s: &Seen| s.method != "DELETE"), "the work goes on");
}

#[tokio::test]
async fn a_controller_that_restarts_is_waited_for() {
    let fake = Fake::start(|seen, number| match (seen.method.as_str(), number) {
        ("POST", _) => answer(202, &operation("running", 0)),
        (_, 1) => problem(503, "unavailable", "shutting down"),
        (_, 2) => answer(200, &operation("succeeded", 2)),
        _ => answer(200, &deployment()),
    })
    .await;
    assert_eq!(fake.run(&DEPLOY).await.code, Some(0));
}

#[tokio::test]
async fn operation_wait_takes_many_and_fails_with_the_first_failure() {
    let fake = Fake::start(|seen, _| match seen.path.contains("op-2") {
        true => answer(200, &operation("failed", 0)),
        false => answer(200, &operation("succeeded", 2)),
    })
    .await;
    let done = fake.run(&["operation", "wait", "op-1", "op-2", "op-3"]).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(done.out.lines().count(), 2, "{done:?}");
    assert!(
        fake.lines().iter().any(|l| l.contains("op-3")),
        "the failure of one does not stop the waiting for the others"
    );
    assert!(done.err.contains("deployment.create web failed"), "each failure is told: {done:?}");
}

#[tokio::test]
async fn a_stop_says_where_power_was_cut_and_shows_the_state_stopped() {
    for (cut, instances, said) in [
        (0, 2, "web: stopped 2"),
        (1, 2, "web: stopped 2, the power of 1 of 2 was cut"),
        (1, 1, "web: stopped 2, its power was cut"),
    ] {
        let progress = json!({"done": instances, "total": instances, "failed": 0, "unit": "instances"});
        let result = json!({"done": instances, "failed": 0, "power_cut": cut});
        let ended =
            with(operation("succeeded", 2), json!({"kind": "deployment.stop", "progress": progress, "result": result}));
        let stopped = with(deployment(), json!({"state": "stopped", "counts": {"stopped": 2}, "ready": 0}));
        let fake = Fake::start(move |seen, _| match (seen.method.as_str(), seen.path.contains("limit=")) {
            ("POST", _) => answer(202, &ended),
            (_, true) => answer(200, &crate::fake::page(std::slice::from_ref(&stopped), None)),
            (_, false) => answer(200, &stopped),
        })
        .await;
        assert_eq!(fake.run(&["deployment", "stop", "web"]).await.out.trim_end(), said);
        let table = fake.run(&["deployment", "ls"]).await.out;
        let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().take(3).collect();
        assert_eq!(row, ["web", "stopped", "0/2"], "{table}");
    }
}
