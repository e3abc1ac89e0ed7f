//! Runs the binary against a fake controller: arguments, tables, JSON, retries, exit codes, pages, waiting.
// An instance has so many fields that `json!` needs more than the default.
#![recursion_limit = "256"]

mod answers;
mod completion;
mod consoles;
mod disks;
mod exec;
mod fake;
mod found;
mod many;
mod networks;
mod protection;
mod settings;
mod terminal;
mod things;
mod transfers;
mod waiting;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{body::Body, http::Response};
use fake::{Fake, answer, page, problem};
use serde_json::{Value, json};
use things::{image, with};

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let fake = Fake::start(|seen, _| {
        let next = seen.path.contains("page_token=p2");
        answer(200, &if next { page(&[image("b")], None) } else { page(&[image("a")], Some("p2")) })
    })
    .await;
    let json = fake.run(&["image", "ls", "-o", "json"]).await;
    assert_eq!(json.json(), json!([image("a"), image("b")]), "one array of the API's objects, unknown fields included");
    let table = fake.run(&["image", "ls"]).await;
    let words: Vec<Vec<&str>> = table.out.lines().map(|l| l.split_whitespace().take(4).collect()).collect();
    assert_eq!(words, [["NAME", "STATE", "NEWEST", "VERSIONS"], ["a", "ready", "2", "2"], ["b", "ready", "2", "2"]]);
    assert!(!table.out.contains('\u{1b}'), "no colours outside a terminal");
    assert_eq!(fake.lines().first().map(String::as_str), Some("GET /v1/images?limit=1000"));
}

#[tokio::test]
async fn an_empty_list_is_an_empty_array() {
    let fake = Fake::start(|_, _| answer(200, &page(&[], None))).await;
    assert_eq!(fake.run(&["deployment", "ls", "-o", "json"]).await.json(), json!([]));
}

#[tokio::test]
async fn filters_and_project_travel_in_the_query() {
    let fake = Fake::start(|_, _| answer(200, &page(&[], None))).await;
    let args = ["instance", "ls", "--deployment", "web", "--state", "failed", "--state", "unknown", "--label", "a=b"];
    fake.run(&[&args[..], &["--project", "*"]].concat()).await;
    let lines = fake.lines();
    let query = "deployment=web&state=failed&state=unknown&label=a%3Db&limit=1000&project=*";
    assert_eq!(lines, [format!("GET /v1/instances?{query}")]);
}

#[tokio::test]
async fn a_busy_controller_is_tried_again_under_the_same_key() {
    let fake = Fake::start(|_, number| match number {
        0 => problem(503, "unavailable", "starting"),
        1 => Response::builder().status(429).header("retry-after", "0").body(Body::empty()).expect("a response"),
        _ => answer(201, &with(things::token("ci"), json!({"token": "mst1_secret"}))),
    })
    .await;
    let done = fake.run(&["token", "create", "--role", "admin", "--name", "ci"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "mst1_secret\n"), "{done:?}");
    let keys: Vec<_> = fake.seen().iter().map(fake::Seen::key).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|k| k.is_some() && Some(k) == keys.first()), "{keys:?}");
    assert!(done.err.contains("trying again"), "{}", done.err);
}

#[tokio::test]
async fn the_controller_s_own_429_is_final() {
    let said = "the token is unknown, revoked or expired; too many such calls from this address";
    let fake = Fake::start(move |_, _| problem(429, "too_many_requests", said)).await;
    let done = fake.run(&["whoami"]).await;
    assert_eq!((done.code, fake.seen().len()), (Some(1), 1), "{done:?}");
    assert!(done.err.contains(said), "{}", done.err);
}

#[tokio::test]
async fn two_commands_never_share_a_key() {
    let fake = Fake::start(|_, _| answer(200, &with(things::node("n1"), json!({"schedulable": false})))).await;
    let done = fake.run(&["node", "cordon", "n1", "n2"]).await;
    assert_eq!(done.out, "n1: ready, cordoned\nn1: ready, cordoned\n");
    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen.first().and_then(fake::Seen::key), seen.last().and_then(fake::Seen::key));
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_tried_again() {
    let fake = Fake::start(|_, number| match number {
        0 => {
            let broken = futures::stream::iter([Ok("{\"na"), Err(std::io::Error::other("gone"))]);
            Response::builder().status(200).body(Body::from_stream(broken)).expect("a response")
        }
        _ => answer(200, &things::me("me")),
    })
    .await;
    let done = fake.run(&["whoami"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("name        me"), "{}", done.out);
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_refusal_is_final_and_is_shown_with_all_its_fields() {
    let fake = Fake::start(|_, _| {
        let body = json!({"status": 422, "code": "invalid", "title": "invalid", "detail": "the request does not fit",
            "request_id": "0190-req", "errors": [{"pointer": "/count", "code": "out_of_range", "detail": "1 to 10000, got 0"}]});
        Response::builder().status(422).body(Body::from(body.to_string())).expect("a response")
    })
    .await;
    let args = ["deploy", "web", "--image", "debian", "--count", "0"];
    let done = fake.run(&args).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(done.err, "muster: --count: 1 to 10000, got 0 (invalid)\n  request id: 0190-req\n");
    assert_eq!(fake.seen().len(), 1, "refusals are not repeated");
    let json = fake.run(&[&args[..], &["-o", "json"]].concat()).await;
    let problem: Value = serde_json::from_str(&json.err).expect("the problem as JSON on standard error");
    assert_eq!(problem.pointer("/errors/0/pointer"), Some(&json!("/count")));
    let api = fake.run(&["api", "post", "/v1/deployments", "{}"]).await;
    assert!(api.err.contains("muster: /count: 1 to 10000"), "who writes JSON is told the place in it: {}", api.err);
}

#[tokio::test]
async fn a_dry_run_says_why_nodes_are_not_used_and_what_helps() {
    let said = "3 nodes cannot run virtual machines: add such nodes, or deploy with --runtime none";
    let plan = json!({"placed": 0, "unplaced": 4, "reasons": [{"reason": "runtime", "count": 3, "detail": said}]});
    let fake = Fake::start(move |_, _| answer(200, &with(things::dry_run(), plan.clone()))).await;
    let done = fake.run(&["deploy", "web", "--image", "debian", "--count", "4", "--dry-run"]).await;
    assert_eq!(done.out, format!("0 would be placed, 4 would not\n\nnot used:\n  {said}\n"));
}

#[tokio::test]
async fn a_code_of_a_later_controller_is_shown_as_it_is() {
    let fake = Fake::start(|_, _| problem(409, "out_of_cheese", "there is none")).await;
    let done = fake.run(&["whoami"]).await;
    assert!(done.err.contains("there is none (out_of_cheese)"), "{}", done.err);
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_said_to_be_no_controller_s() {
    let fake = Fake::start(|_, _| Response::new(Body::from("<html>hello</html>"))).await;
    let done = fake.run(&["whoami"]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("did not answer like a Muster controller"), "{}", done.err);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_an_error_after_a_while() {
    let home = tempfile::tempdir().expect("a folder");
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let url = format!("http://127.0.0.1:{port}");
    let output = fake::bare(home.path(), &["whoami", "--url", &url, "--retry-for", "500ms"]).output().await;
    let done = fake::Done::of(output.expect("muster runs"));
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains(&format!("cannot reach {url}/")), "{}", done.err);
    assert!(done.err.contains("refused"), "{}", done.err);
}

#[tokio::test]
async fn verbs_on_one_instance_and_on_many_make_one_call_each() {
    let fake = Fake::start(|_, _| answer(200, &things::instance("web.0"))).await;
    fake.run(&["instance", "start", "web.0"]).await;
    fake.run(&["instance", "stop", "web.0", "web.1", "--force"]).await;
    fake.run(&["instance", "reboot", "--deployment", "web", "--grace", "5s"]).await;
    fake.run(&["instance", "rm", "--label", "tier=web", "--yes"]).await;
    let seen = fake.seen();
    let lines: Vec<_> = seen.iter().map(fake::Seen::line).collect();
    let expected = [
        "POST /v1/instances/web.0/start",
        "POST /v1/instances/-/stop",
        "POST /v1/instances/-/reboot",
        "POST /v1/instances/-/delete",
    ];
    assert_eq!(lines, expected);
    let bodies: Vec<_> = seen.iter().map(fake::Seen::json).collect();
    assert_eq!(bodies.get(1), Some(&json!({"select": {"instances": ["web.0", "web.1"]}, "force": true})));
    assert_eq!(bodies.get(2), Some(&json!({"select": {"deployment": "web"}, "force": false, "timeout_s": 5})));
    assert_eq!(bodies.get(3), Some(&json!({"select": {"label": "tier=web"}, "force": false})));
}

#[tokio::test]
async fn deploy_sends_only_the_options_that_were_given() {
    let fake = Fake::start(|_, _| answer(200, &things::dry_run())).await;
    let args = ["deploy", "web", "--image", "debian@2", "--count", "4", "--memory", "1GiB", "--dry-run"];
    let done = fake.run(&args).await;
    assert_eq!(done.out, "4 would be placed, 0 would not\n");
    let more = ["--ready", "console", "--pack", "--label", "tier=web", "--runtime", "none", "--disk", "data=1GiB"];
    fake.run(&[&args[..], &more].concat()).await;
    let bodies: Vec<_> = fake.seen().iter().map(fake::Seen::json).collect();
    let plain = json!({"name": "web", "source": {"image": "debian", "version": 2}, "count": 4,
        "memory_bytes": 1 << 30, "dry_run": true, "labels": {}});
    assert_eq!(bodies.first(), Some(&plain), "defaults are the controller's");
    let more = bodies.last().expect("two requests");
    assert_eq!(more.get("ready"), Some(&json!({"probe": "console"})));
    assert_eq!(more.get("placement"), Some(&json!({"policy": "pack"})));
    assert_eq!(more.get("runtime"), Some(&json!("none")));
    assert_eq!(more.get("disks"), Some(&json!([{"name": "data", "size_bytes": 1 << 30}])));
    assert_eq!(more.get("labels"), Some(&json!({"tier": "web"})));
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop";

#[tokio::test]
async fn deploy_sends_keys_from_files_or_words_and_user_data_from_a_file() {
    let files = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = files.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let (key, script) = (file("id.pub", format!("{KEY}\n").as_bytes()), file("hello", b"#!/bin/sh\necho hi\n"));
    let fake = Fake::start(|_, _| answer(200, &things::dry_run())).await;
    let args = ["deploy", "web", "--image", "debian", "--count", "1", "--dry-run"];
    let done = fake.run(&[&args[..], &["--ssh-key", &key, "--ssh-key", KEY, "--user-data", &script]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let empty = file("empty", b"");
    let fork = ["deploy", "fork", "--snapshot", "s", "--dry-run", "--no-ssh-keys", "--user-data", &empty];
    assert_eq!(fake.run(&fork).await.code, Some(0));
    let bodies: Vec<_> = fake.seen().iter().map(fake::Seen::json).collect();
    let told = |n: usize| bodies.get(n).map(|body| (body.get("ssh_keys").cloned(), body.get("user_data").cloned()));
    assert_eq!(told(0), Some((Some(json!([KEY, KEY])), Some(json!("#!/bin/sh\necho hi\n")))));
    assert_eq!(told(1), Some((Some(json!([])), Some(json!("")))), "a fork that takes over nothing says so");

    let private = file("id", b"-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----\n");
    let (nonsense, binary) = (file("nonsense", b"hunter2"), file("binary", &[0x1f, 0x8b, 0xff]));
    let long = file("long", &[b'#'; (64 << 10) + 1]);
    for (option, value, said) in [
        ("--ssh-key", &private, format!("it was not sent; give the public one: {private}.pub")),
        ("--ssh-key", &nonsense, "expected a public key of the type ssh-ed25519".to_owned()),
        ("--ssh-key", &file("no", b"").replace("/no", "/nowhere"), "No such file".to_owned()),
        ("--user-data", &nonsense, "user data begins with #cloud-config".to_owned()),
        ("--user-data", &binary, "is not text in UTF-8".to_owned()),
        ("--user-data", &long, "has more than 64 KiB".to_owned()),
    ] {
        let done = fake.run(&[&args[..], &[option, value]].concat()).await;
        assert!(done.code != Some(0) && done.err.contains(&said), "{option} {value}: {done:?}");
        assert!(!done.err.contains("hunter2"), "{done:?}");
    }
    assert_eq!(fake.seen().len(), 2, "nothing of what is wrong was sent");
}

#[tokio::test]
async fn a_deployment_shows_its_keys_by_their_fingerprints_and_its_user_data_only_when_asked() {
    let fake = Fake::start(|seen, _| match seen.path.ends_with("/user-data") {
        true => Response::new(Body::from("#!/bin/sh\n")),
        false => {
            let mut shown = things::deployment("web");
            let key =
                json!({"type": "ssh-ed25519", "fingerprint": "SHA256:abc", "comment": "me@laptop", "public_key": KEY});
            shown
                .as_object_mut()
                .expect("an object")
                .extend([("ssh_keys".to_owned(), json!([key])), ("user_data_bytes".to_owned(), json!(2048))]);
            answer(200, &shown)
        }
    })
    .await;
    let done = fake.run(&["deployment", "show", "web"]).await;
    assert!(done.out.contains("ssh-ed25519 SHA256:abc me@laptop") && done.out.contains("2 KiB"), "{}", done.out);
    assert_eq!(fake.run(&["deployment", "user-data", "web"]).await.out, "#!/bin/sh\n");
    assert_eq!(fake.seen().last().map(fake::Seen::line).as_deref(), Some("GET /v1/deployments/web/user-data"));
}

#[tokio::test]
async fn image_set_sends_only_what_was_said_and_null_for_what_is_forgotten() {
    let fake = Fake::start(|_, _| answer(200, &things::image("debian"))).await;
    let done =
        fake.run(&["image", "set", "debian", "--min-memory", "2GiB", "--unset", "os", "--unset", "default-user"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("least memory"), "{done:?}");
    assert_eq!(fake.lines(), ["PATCH /v1/images/debian"]);
    let sent = fake.seen().first().map(fake::Seen::json);
    assert_eq!(sent, Some(json!({"os": null, "default_user": null, "min_memory_bytes": 2u64 << 30})));
    for wrong in [&["image", "set", "debian"][..], &["image", "set", "debian", "--os", "a", "--unset", "os"]] {
        assert_eq!(fake.run(wrong).await.code, Some(2), "{wrong:?}");
    }
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn rm_says_how_much_nothing_else_uses_and_promises_nothing() {
    let fake = Fake::start(|seen, _| match seen.path.contains("dry_run=true") {
        true => answer(200, &json!({"freed_bytes": 1_048_576})),
        false => Response::builder().status(204).body(Body::empty()).expect("a response"),
    })
    .await;
    let done = fake.run(&["image", "rm", "debian", "--yes"]).await;
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), "deleted image debian (1 MiB that nothing else uses; the sweep gives it back)\n"),
        "{done:?}"
    );
    assert_eq!(fake.lines(), ["DELETE /v1/images/debian?dry_run=true", "DELETE /v1/images/debian"]);
    let keys: Vec<_> = fake.seen().iter().map(|s| s.key().is_some()).collect();
    assert_eq!(keys, [false, true]);
}

#[tokio::test]
async fn a_shown_snapshot_has_its_members_for_people_and_for_programs() {
    let snapshot = things::snapshot("s");
    let member = |n| with(things::member(n), json!({"version": format!("01900000-0000-7000-8000-00000000001{n}")}));
    let answers = snapshot.clone();
    let fake =
        Fake::start(move |seen, _| match (seen.path.contains("/members"), seen.path.contains("page_token=p2")) {
            (true, false) => answer(200, &page(&[member(0)], Some("p2"))),
            (true, true) => answer(200, &page(&[member(1)], None)),
            _ => answer(200, &answers),
        })
        .await;
    let mut wanted = snapshot;
    wanted["member_rows"] = json!([member(0), member(1)]);
    assert_eq!(fake.run(&["snapshot", "show", "s", "-o", "json"]).await.json(), wanted);
    let table = fake.run(&["snapshot", "show", "s"]).await;
    let rows: Vec<_> = table.out.lines().skip_while(|l| !l.starts_with("INSTANCE")).skip(1).collect();
    assert!(rows.len() == 2 && rows[0].starts_with("web.0") && rows[1].ends_with("-000000000011"), "{}", table.out);
}

#[tokio::test]
async fn rm_of_a_thing_that_does_not_exist_sends_no_delete() {
    let fake = Fake::start(|_, _| problem(404, "not_found", "no image 'debian'")).await;
    let done = fake.run(&["image", "rm", "debian", "--yes"]).await;
    assert_eq!(done.code, Some(1));
    assert_eq!(fake.seen().len(), 1, "the dry run has answered already");
}

#[tokio::test]
async fn rm_of_a_dead_node_fences_it_and_removes_it() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "DELETE" => Response::builder().status(204).body(Body::empty()).expect("a response"),
        _ => answer(200, &things::with(things::node("n1"), json!({"state": "fenced"}))),
    })
    .await;
    let done = fake.run(&["node", "rm", "n1", "--dead", "--yes"]).await;
    assert_eq!((done.code, done.out.trim()), (Some(0), "deleted node n1"), "{done:?}");
    let lines: Vec<String> = fake.seen().iter().map(fake::Seen::line).collect();
    assert_eq!(lines, ["POST /v1/nodes/n1/fence", "DELETE /v1/nodes/n1"]);
    assert_eq!(fake.seen().first().expect("the fence").json(), json!({"confirm": true}));
    let done = fake.run(&["node", "fence", "n1", "--yes"]).await;
    assert_eq!((done.code, done.out.trim()), (Some(0), "n1: fenced"), "{done:?}");
}

#[tokio::test]
async fn a_sweep_says_what_came_back_and_what_the_pool_waits_for() {
    let swept = json!({"target": {"kind": "pool", "id": "default", "name": "default"}, "kind": "pool.sweep",
        "result": {"round": 9, "objects": 12, "bytes": 3 << 20, "reclaimed_bytes": 2 << 20, "new_field": 1}});
    let fake = Fake::start(move |seen, _| match seen.method.as_str() {
        "POST" => answer(202, &things::with(things::operation("succeeded", 2), swept.clone())),
        _ => answer(200, &things::pool()),
    })
    .await;
    let done = fake.run(&["pool", "sweep"]).await;
    let said = "pool default: 12 copies of objects dropped, 3 MiB; the disks got 2 MiB back";
    assert_eq!((done.code, done.out.trim()), (Some(0), said), "{done:?}");
    let shown = fake.run(&["pool", "show"]).await;
    for line in [
        "pool default: 3 nodes, at least 2 copies",
        "held for",
        "node 'n3' did not tell",
        "awaited   n2",
        "7 objects",
        "3 copies missing, 3 MiB",
    ] {
        assert!(shown.out.contains(line), "{line}: {shown:?}");
    }
    assert_eq!(fake.run(&["pool", "show", "-o", "json"]).await.json(), things::pool());
    let allowed = fake.run(&["pool", "sweep", "--after-restore", "--yes"]).await;
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    let seen = fake.seen();
    let asked: Vec<Value> = seen.iter().filter(|seen| seen.method == "POST").map(fake::Seen::json).collect();
    assert_eq!(asked, [json!({"after_restore": false}), json!({"after_restore": true})]);
    assert_eq!(seen.first().map(fake::Seen::line).as_deref(), Some("POST /v1/pools/default/sweep"));
}

#[tokio::test]
async fn recover_says_what_is_given_up() {
    let loss = json!([{"instance": things::INSTANCE_ID, "instance_name": "web.0", "disk": things::INSTANCE_ID,
        "disk_name": "root", "version": things::VERSION_ID, "saved_at": things::AT, "unsaved_bytes": 8192}]);
    let fake = Fake::start(move |seen, _| match seen.method.as_str() {
        "POST" if seen.json() == json!({"accept_loss": false}) => {
            problem(409, "data_loss", "this gives up data: web.0 goes back")
        }
        "POST" => answer(202, &things::with(things::operation("succeeded", 2), json!({"result": {"loss": loss}}))),
        _ => answer(200, &things::instance("web.0")),
    })
    .await;
    let refused = fake.run(&["instance", "recover", "web.0"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("gives up data"), "{}", refused.err);
    let done = fake.run(&["instance", "recover", "web.0", "--accept-loss"]).await;
    assert_eq!((done.code, done.out.trim()), (Some(0), "web.0: running"), "{done:?}");
    assert!(done.err.contains(&format!("since {} is given up, at least 8 KiB", things::AT)), "{}", done.err);
    assert_eq!(fake.seen().get(1).map(fake::Seen::line).as_deref(), Some("POST /v1/instances/web.0/recover"));
}

#[tokio::test]
async fn a_loss_that_cannot_be_read_is_no_loss_that_is_not_told() {
    let fake = Fake::start(move |_, _| {
        answer(202, &things::with(things::operation("succeeded", 1), json!({"result": {"loss": [{"disk": 5}]}})))
    })
    .await;
    let told = fake.run(&["instance", "recover", "web.0", "--accept-loss"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.err.contains("the controller's answer does not fit"), "{}", told.err);
}

#[tokio::test]
async fn an_instance_shows_what_its_state_does_not_say() {
    let lost = json!([{"kind": "objects_lost", "detail": "2 objects have no good copy"}]);
    let fake =
        Fake::start(move |_, _| answer(200, &things::with(things::instance("web.0"), json!({ "conditions": lost }))))
            .await;
    let shown = fake.run(&["instance", "show", "web.0"]).await;
    assert!(shown.out.contains("objects_lost: 2 objects have no good copy"), "{}", shown.out);
}

#[tokio::test]
async fn retry_sends_the_new_limits_and_nothing_else() {
    let fake = Fake::start(|_, _| answer(200, &things::deployment("web"))).await;
    let args = ["deployment", "retry", "web", "--ready-timeout", "15m", "--on-ready-timeout", "stop"];
    assert_eq!(fake.run(&args).await.code, Some(0));
    assert_eq!(fake.run(&["deployment", "retry", "web"]).await.code, Some(0));
    let bodies: Vec<Value> = fake.seen().iter().map(fake::Seen::json).filter(|body| !body.is_null()).collect();
    assert_eq!(bodies, [json!({"ready_timeout_s": 900, "on_ready_timeout": "stop"}), json!({})]);
}

#[tokio::test]
async fn a_restore_is_waited_for_and_says_where_the_present_is_kept() {
    let fake = Fake::start(|request, _| match (request.method.as_str(), request.json()["discard_current"].as_bool()) {
        ("POST", discard) => {
            let mut operation = things::operation("succeeded", 2);
            operation["target"] = json!({"kind": "snapshot", "id": things::OTHER_ID, "name": "nightly"});
            operation["result"] = json!({"disks": 4, "instances": 2, "left_out": [{}],
                "kept_snapshot_name": if discard == Some(true) { Value::Null } else { json!("before-restore-1") }});
            answer(202, &operation)
        }
        _ => answer(404, &json!({})),
    })
    .await;
    let done = fake.run(&["snapshot", "restore", "nightly", "--allow-missing", "--grace", "5s"]).await;
    let said = "nightly: 4 disks of 2 instances are put back to it; what they held is in before-restore-1; 1 left out";
    assert_eq!((done.code, done.out.trim()), (Some(0), said), "{done:?}");
    let done = fake.run(&["snapshot", "restore", "nightly", "--discard-current", "--yes"]).await;
    assert!(done.out.contains("what they held is given up"), "{done:?}");
    let seen = fake.seen();
    let asked: Vec<Value> = seen.iter().filter(|seen| seen.method == "POST").map(fake::Seen::json).collect();
    let of = |discard: bool, allow: bool| json!({"discard_current": discard, "allow_missing": allow, "force": false});
    let mut first = of(false, true);
    first["timeout_s"] = json!(5);
    assert_eq!(asked, [first, of(true, false)]);
    assert_eq!(seen.first().map(fake::Seen::line).as_deref(), Some("POST /v1/snapshots/nightly/restore"));
}

#[tokio::test]
async fn reserved_commands_answer_without_a_controller() {
    let home = tempfile::tempdir().expect("a folder");
    for args in
        [&["instance", "migrate", "web.0", "--to", "n2"][..], &["quota", "ls"], &["deployment", "shelve", "web"]]
    {
        let done = fake::Done::of(fake::bare(home.path(), args).output().await.expect("muster runs"));
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains("not built yet"), "{}", done.err);
    }
}

#[tokio::test]
async fn usage_errors_exit_with_2_and_help_with_0() {
    let home = tempfile::tempdir().expect("a folder");
    for (args, code) in [
        (&["deploy", "web"][..], 2),
        (&["image", "export", "debian@x", "/dev/null"], 2),
        (&["no-such-noun"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["completion", "bash"], 0),
    ] {
        let mut command = fake::bare(home.path(), args);
        command.env("MUSTER_URL", "http://127.0.0.1:9");
        let done = fake::Done::of(command.output().await.expect("muster runs"));
        assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
    }
}

#[tokio::test]
async fn api_makes_any_call() {
    let fake = Fake::start(|seen, _| answer(200, &json!({"got": seen.json()}))).await;
    let file = fake.dir().join("body.json");
    std::fs::write(&file, r#"{"name": "x"}"#).expect("a file");
    let done = fake.run(&["api", "post", "/v1/images?x=1", &format!("@{}", file.display())]).await;
    assert_eq!(done.json(), json!({"got": {"name": "x"}}));
    let seen = fake.seen();
    let first = seen.first().expect("one request");
    assert_eq!(first.line(), "POST /v1/images?x=1");
    assert!(first.key().is_some());
    assert_eq!(first.headers.get("authorization").and_then(|v| v.to_str().ok()), Some("Bearer mst1_test"));
    let elsewhere = fake.run(&["api", "get", "http://other.example/v1/me"]).await;
    assert_eq!(elsewhere.code, Some(2), "a token stays with its controller");
    assert_eq!(fake.run(&["api", "get", "//other.example/v1/me"]).await.code, Some(0), "a path, not a host");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_closed_pipe_is_not_an_error() {
    let fake = Fake::start(|_, _| answer(200, &page(&vec![image("a"); 1000], None))).await;
    let mut child = fake.muster(&["image", "ls", "-o", "json"]).spawn().expect("muster starts");
    drop(child.stdout.take());
    let status = child.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn events_are_followed_across_a_broken_stream() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let fake = Fake::start(move |_, _| {
        let event = |id: &str| format!(": hello\n\nid: {id}\nevent: instance.state\ndata: {}\n\n", things::event(id));
        let number = count.fetch_add(1, Ordering::SeqCst);
        let body = match number {
            0 => Body::from(event("41")),
            1 => Body::from_stream(futures::StreamExt::chain(
                futures::stream::iter([Ok::<_, std::io::Error>(event("42"))]),
                futures::stream::pending(),
            )),
            _ => Body::empty(),
        };
        Response::builder().header("content-type", "text/event-stream").body(body).expect("a response")
    })
    .await;
    let mut child = fake.muster(&["event", "follow", "-o", "json"]).spawn().expect("muster starts");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().expect("a pipe")));
    for id in ["41", "42"] {
        let line = lines.next_line().await.expect("readable").expect("an event");
        let event: Value = serde_json::from_str(&line).expect("one object a line");
        assert_eq!(event.get("id"), Some(&json!(id)));
    }
    waiting::interrupt(&child);
    assert_eq!(child.wait().await.expect("it ends").code(), Some(0));
    let second = fake.seen().into_iter().nth(1).expect("it came back");
    assert_eq!(second.headers.get("last-event-id").and_then(|v| v.to_str().ok()), Some("41"));
}
