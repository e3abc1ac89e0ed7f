//! `muster console`, `muster instance connect` and `muster ssh`, with a guest that repeats what it hears.

use std::{
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    routing::get,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    fake::{Done, Fake, answer, problem},
    things::{self, with},
};

async fn say(socket: &mut WebSocket, event: Value) {
    socket.send(Message::Text(event.to_string().into())).await.expect("sent");
}

/// Repeats what it hears, until the client leaves or says that it sends nothing more.
async fn echo(mut socket: WebSocket) {
    say(&mut socket, json!({ "event": "writer" })).await;
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            Message::Binary(bytes) => socket.send(Message::Binary(bytes)).await.expect("sent"),
            Message::Text(order) => {
                assert_eq!(order.as_str(), r#"{"order":"end"}"#);
                say(&mut socket, json!({ "event": "ended", "reason": "the guest has closed the connection" })).await;
                return;
            }
            _ => {}
        }
    }
}

/// A controller whose consoles are served by `guest`, which gets the number of the console as well.
async fn controller<F: Future<Output = ()> + Send + 'static>(
    guest: impl Fn(WebSocket, usize) -> F + Clone + Send + Sync + 'static,
) -> Fake {
    let opened = Arc::new(AtomicUsize::new(0));
    let open = async move |upgrade: WebSocketUpgrade| {
        let number = opened.fetch_add(1, Ordering::Relaxed);
        upgrade.on_upgrade(async move |socket| guest(socket, number).await)
    };
    Fake::start_beside(Router::new().route("/v1/consoles", get(open)), |seen, _| {
        let ticket = json!({ "url": "/v1/consoles?ticket=secret", "protocol": "serial", "expires_at": things::AT });
        match seen.line().split('?').next().expect("a path") {
            "POST /v1/instances/web.1/console" => problem(409, "wrong_state", "the instance is stopped"),
            line if line.starts_with("POST ") && line.ends_with("/console") => answer(201, &ticket),
            "GET /v1/instances/web.1" => answer(200, &with(things::instance("web.1"), json!({ "state": "stopped" }))),
            line if line.starts_with("GET /v1/instances/") => answer(200, &things::instance("web.0")),
            line if line.starts_with("GET /v1/deployments/") => answer(200, &things::deployment("web")),
            line if line.starts_with("GET /v1/images/") => {
                answer(200, &with(things::image("debian"), json!({ "default_user": "debian" })))
            }
            other => panic!("unexpected {other}"),
        }
    })
    .await
}

#[tokio::test]
async fn keys_go_to_the_guest_until_the_one_that_leaves_the_console() {
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let hears = {
        let heard = heard.clone();
        move |mut socket: WebSocket, _| {
            let heard = heard.clone();
            async move {
                while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
                    heard.lock().expect("whole").extend_from_slice(&bytes);
                }
            }
        }
    };
    let fake = controller(hears).await;
    let done = fake.typed_after(&["console", "web.0"], "leaves it]", "uname\u{3}\u{1d}never sent").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("[console of web.0; Ctrl-] leaves it]"), "{done:?}");
    assert!(done.out.contains("[left]"), "{done:?}");
    let until = Instant::now() + Duration::from_secs(20);
    while heard.lock().expect("whole").len() < 6 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(heard.lock().expect("whole").as_slice(), b"uname\x03", "also Ctrl-C is for the guest");
    assert_eq!(fake.seen()[0].json(), json!({ "kind": "serial", "mode": "write", "take": false }));
    let other = ["instance", "console", "web.0", "--take", "--detach-key", "^a"];
    let done = fake.typed_after(&other, "leaves it]", "\u{1d}\u{1}").await;
    assert_eq!((done.code, fake.seen()[1].json()["take"].clone()), (Some(0), json!(true)), "{done:?}");
}

#[tokio::test]
async fn a_console_that_breaks_is_opened_again_and_its_end_is_told() {
    let guest = async |mut socket: WebSocket, number| {
        say(&mut socket, json!({ "event": "reader", "reason": "someone else types" })).await;
        socket.send(Message::Binary(format!("part {number}\n").into())).await.expect("sent");
        if number == 1 {
            say(&mut socket, json!({ "event": "skipped", "bytes": 77 })).await;
            say(&mut socket, json!({ "event": "bell" })).await;
            say(&mut socket, json!({ "event": "ended", "reason": "the guest has ended" })).await;
            let _ = socket.send(Message::Close(None)).await;
        }
    };
    let fake = controller(guest).await;
    let done = fake.run(&["console", "web.0", "--read-only"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "part 0\npart 1\n"), "{done:?}");
    for said in ["someone else types", "opening it again", "77 bytes were left out", "the guest has ended"] {
        assert!(done.err.contains(said), "{said}: {done:?}");
    }
    assert_eq!(fake.seen().len(), 2, "each connection needs a ticket");
}

#[tokio::test]
async fn a_console_that_cannot_be_is_a_refusal() {
    let fake = controller(|socket, _| echo(socket)).await;
    for command in [&["console", "web.1"][..], &["instance", "connect", "web.1", "22"]] {
        let done = fake.run(command).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains("the instance is stopped"), "{done:?}");
    }
    let done = fake.run(&["ssh", "web.1"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("web.1 is stopped: start it"), "{done:?}");
}

#[tokio::test]
async fn connect_copies_bytes_both_ways_until_both_sides_are_done() {
    let fake = controller(|socket, _| echo(socket)).await;
    let mut child = fake.muster(&["instance", "connect", "web.0", "22"]).stdin(Stdio::piped()).spawn().expect("runs");
    let mut input = child.stdin.take().expect("piped");
    let sent = vec![b'x'; 300_000];
    input.write_all(&sent).await.expect("written");
    drop(input);
    let done = child.wait_with_output().await.expect("it ends");
    assert_eq!((done.status.code(), done.stdout.len()), (Some(0), sent.len()), "{done:?}");
    assert_eq!(fake.seen()[0].json(), json!({ "kind": "port", "port": 22 }));
}

#[tokio::test]
async fn ssh_runs_over_a_connection_of_muster_and_names_travel_outside_of_shells() {
    let fake = controller(|socket, _| echo(socket)).await;
    // An `ssh` that makes the connection it is told to, as the real one does, and says what it got.
    let ssh = fake.dir().join("ssh");
    let script = r#"#!/bin/sh
        for word in "$@"; do printf '<%s>' "$word"; done; echo
        command=${2#ProxyCommand=}; printf 'through muster' | sh -c "$command"; echo
    "#;
    std::fs::write(&ssh, script).expect("written");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let path = format!("{}:{}", fake.dir().display(), std::env::var("PATH").expect("a path"));
    let run = async |args: &[&str]| Done::of(fake.muster(args).env("PATH", &path).output().await.expect("muster runs"));
    let done = run(&["ssh", "web.0", "-i", "key", "--", "-v", "uptime", "-p"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let alias = format!("<-o><HostKeyAlias=muster-{}>", things::INSTANCE_ID);
    assert!(done.out.contains(&alias), "{done:?}");
    assert!(done.out.contains("<-i><key>") && done.out.contains("<-l><debian>"), "{done:?}");
    assert!(done.out.contains("<-v><--><web.0><uptime><-p>"), "{done:?}");
    assert!(done.out.ends_with("through muster\n"), "{done:?}");
    let ticket = fake.seen().into_iter().find(|seen| seen.method == "POST").expect("a ticket");
    assert_eq!(ticket.json(), json!({ "kind": "port", "port": 22 }));
    assert!(!done.out.contains("mst1_test"), "{done:?}");
    let done = run(&["--token", "mst1_other", "ssh", "root@web.0", "--port", "2222"]).await;
    assert!(done.out.contains("<-l><root>") && done.out.ends_with("through muster\n"), "{done:?}");
    let last = fake.seen().pop().expect("a request");
    assert_eq!(
        (last.json()["port"].clone(), last.headers["authorization"].to_str().ok()),
        (json!(2222), Some("Bearer mst1_other"))
    );
}
