//! `muster exec`, and what `muster instance show` tells of a guest.

use serde_json::{Value, json};

use crate::{
    fake::{Fake, Seen, answer, problem},
    things::{instance, with},
};

fn ended(exit_code: Value, signal: Value, (stdout, stderr, encoding): (&str, &str, &str)) -> Value {
    json!({
        "exit_code": exit_code, "signal": signal, "timed_out": exit_code.is_null() && signal.is_null(),
        "stdout": stdout, "stderr": stderr, "encoding": encoding, "truncated": false
    })
}

async fn controller(body: Value) -> Fake {
    Fake::start(move |_: &Seen, _| answer(200, &body)).await
}

#[tokio::test]
async fn output_goes_where_it_belongs_and_the_exit_code_is_that_of_the_command() {
    let fake = controller(ended(json!(7), Value::Null, ("out\n", "err\n", "text"))).await;
    let ran = fake.run(&["exec", "web.0", "--within", "1m", "--", "grep", "-r", "x y"]).await;
    assert_eq!((ran.code, &*ran.out, &*ran.err), (Some(7), "out\n", "err\n"));
    assert_eq!(fake.lines(), ["POST /v1/instances/web.0/exec"]);
    let sent = fake.seen()[0].json();
    assert_eq!(sent, json!({ "command": ["grep", "-r", "x y"], "timeout_s": 60, "encoding": "text" }));
}

#[tokio::test]
async fn a_signal_and_a_command_that_still_runs_have_the_exit_codes_of_shells() {
    let killed = controller(ended(Value::Null, json!(9), ("", "", "text"))).await;
    assert_eq!(killed.run(&["exec", "web.0", "--", "sleep", "9"]).await.code, Some(137));
    let late = controller(ended(Value::Null, Value::Null, ("", "", "text"))).await;
    let ran = late.run(&["exec", "web.0", "--", "sleep", "999"]).await;
    assert_eq!(ran.code, Some(124));
    assert!(ran.err.contains("still runs in web.0"), "{}", ran.err);
}

#[tokio::test]
async fn a_guest_that_refuses_is_a_failure_of_the_cli() {
    let fake =
        Fake::start(|_: &Seen, _| problem(409, "no_guest_agent", "the guest agent of web.0 does not answer")).await;
    let ran = fake.run(&["exec", "web.0", "--", "true"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("does not answer (no_guest_agent)"), "{}", ran.err);
    let ran = fake.run(&["exec", "web.0"]).await;
    assert_eq!(ran.code, Some(2), "a command is missing: {}", ran.err);
}

#[tokio::test]
async fn facts_of_the_guest_are_shown_with_its_instance() {
    let guest = json!({
        "answers": false, "agent_version": "7.2.11", "os": { "name": "Debian 12", "id": "debian", "version": "12", "kernel": "6.1" },
        "host_name": "web-0", "interfaces": [{ "name": "eth0", "mac": null, "addresses": ["10.77.0.5", "fd00::5"] }],
        "file_systems": [{ "mount": "/", "kind": "ext4", "size_bytes": 1073741824, "used_bytes": 536870912 }]
    });
    let fake = controller(with(instance("web.0"), json!({ "guest": guest }))).await;
    let shown = fake.run(&["instance", "show", "web.0"]).await.out;
    for part in [
        "7.2.11, does not answer any more",
        "Debian 12",
        "eth0 10.77.0.5 fd00::5",
        "FILE SYSTEM",
        "ext4  1 GiB  512 MiB",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}
