//! Answers of other versions: what the CLI does not know is fine, what it misses is an error and never a blank cell.

use serde_json::{Value, json};

use crate::{
    fake::{Fake, answer, page},
    things::{self, with},
};

/// The object with this field under another name.
fn renamed(object: &Value, field: &str) -> Value {
    let mut object = object.clone();
    let fields = object.as_object_mut().expect("an object");
    let value = fields.remove(field).expect("the field");
    fields.insert(format!("{field}_renamed"), value);
    object
}

/// Runs `command` once for each field of `object` but the unknown one. Its answers have the field renamed, and each run
/// must fail and name the field; as JSON the answer is printed all the same.
async fn misses_each_field(command: &[&str], object: &Value, answers: fn(&str, Value) -> Value) {
    for field in object.as_object().expect("an object").keys().filter(|field| *field != "new_field") {
        let sent = renamed(object, field);
        let fake = Fake::start(move |seen, _| answer(200, &answers(&seen.path, sent.clone()))).await;
        let done = fake.run(command).await;
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{field} of {command:?}: {done:?}");
        assert!(done.err.contains("the controller's answer does not fit: "), "{field} of {command:?}: {}", done.err);
        assert!(done.err.contains(&format!("`{field}`")), "{field} of {command:?}: {}", done.err);
        let json = fake.run(&[command, &["-o", "json"]].concat()).await;
        assert_eq!(json.code, Some(0), "{field} of {command:?}: {json:?}");
        assert!(json.out.contains(&format!("{field}_renamed")), "{}", json.out);
    }
}

fn itself(_: &str, object: Value) -> Value {
    object
}

fn in_a_list(_: &str, object: Value) -> Value {
    page(&[object], None)
}

#[tokio::test]
async fn a_renamed_field_of_an_image_is_an_error() {
    misses_each_field(&["image", "ls"], &things::image("debian"), in_a_list).await;
    misses_each_field(&["image", "show", "debian"], &things::image("debian"), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_a_version_is_an_error() {
    misses_each_field(&["image", "versions", "debian"], &things::version("debian@1"), in_a_list).await;
    misses_each_field(&["version", "show", things::VERSION_ID], &things::version("debian@1"), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_a_deployment_is_an_error() {
    misses_each_field(&["deployment", "ls"], &things::deployment("web"), in_a_list).await;
    misses_each_field(&["deployment", "show", "web"], &things::deployment("web"), itself).await;
    misses_each_field(&["deployment", "start", "web"], &things::deployment("web"), itself).await;
    let plan = ["deploy", "web", "--image", "debian", "--count", "4", "--dry-run"];
    misses_each_field(&plan, &things::dry_run(), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_an_instance_is_an_error() {
    misses_each_field(&["instance", "ls"], &things::instance("web.0"), in_a_list).await;
    misses_each_field(&["instance", "show", "web.0"], &things::instance("web.0"), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_a_snapshot_is_an_error() {
    misses_each_field(&["snapshot", "ls"], &things::snapshot("nightly"), in_a_list).await;
    let show = ["snapshot", "show", "nightly"];
    misses_each_field(&show, &things::snapshot("nightly"), |path, object| match path.contains("/members") {
        true => page(&[], None),
        false => object,
    })
    .await;
    misses_each_field(&show, &things::member(0), |path, object| match path.contains("/members") {
        true => page(&[object], None),
        false => things::snapshot("nightly"),
    })
    .await;
}

#[tokio::test]
async fn a_renamed_field_of_a_network_or_a_security_group_is_an_error() {
    misses_each_field(&["network", "ls"], &things::network("back"), in_a_list).await;
    misses_each_field(&["network", "show", "back"], &things::network("back"), itself).await;
    misses_each_field(&["security-group", "ls"], &things::security_group("web"), in_a_list).await;
    misses_each_field(&["security-group", "show", "web"], &things::security_group("web"), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_a_node_is_an_error() {
    misses_each_field(&["node", "ls"], &things::node("n1"), in_a_list).await;
    misses_each_field(&["node", "show", "n1"], &things::node("n1"), itself).await;
    misses_each_field(&["node", "cordon", "n1"], &things::node("n1"), itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_an_operation_is_an_error() {
    let operation = things::operation("succeeded", 2);
    misses_each_field(&["operation", "ls"], &operation, in_a_list).await;
    misses_each_field(&["operation", "show", things::OPERATION_ID], &operation, itself).await;
    misses_each_field(&["operation", "cancel", things::OPERATION_ID], &operation, itself).await;
}

#[tokio::test]
async fn a_renamed_field_of_an_event_a_token_or_the_caller_is_an_error() {
    misses_each_field(&["event", "ls"], &things::event("41"), in_a_list).await;
    misses_each_field(&["token", "ls"], &things::token("ci"), in_a_list).await;
    misses_each_field(&["session", "ls"], &things::session("ci"), in_a_list).await;
    misses_each_field(&["whoami"], &things::me("ops"), itself).await;
}

#[tokio::test]
async fn the_secret_of_a_token_is_printed_whatever_the_rest_of_the_answer_looks_like() {
    let create = ["token", "create", "--role", "admin"];
    let mut made = with(things::token("ci"), json!({"token": "mst1_secret"}));
    made.as_object_mut().expect("an object").remove("created_at");
    let fake = Fake::start(move |_, _| answer(201, &made)).await;
    let done = fake.run(&create).await;
    assert_eq!((done.code, done.out.as_str()), (Some(1), "mst1_secret\n"), "{done:?}");
    assert!(done.err.contains("missing field `created_at`"), "{done:?}");

    let none = things::token("ci");
    let fake = Fake::start(move |_, _| answer(201, &none)).await;
    let done = fake.run(&create).await;
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.err.contains("missing field `token`"), "{done:?}");
}

#[tokio::test]
async fn a_sign_in_link_is_the_whole_address_and_nothing_else_on_standard_output() {
    let path = "/ui/sign-in#code=msl1_secret";
    let made = json!({"id": things::OTHER_ID, "token": things::OTHER_ID, "token_name": "ci", "code": "msl1_secret",
        "path": path, "expires_at": things::AT, "new_field": [1]});
    let fake = Fake::start(move |_, _| answer(201, &made)).await;
    let done = fake.run(&["token", "link", "ci"]).await;
    assert_eq!((done.code, done.out), (Some(0), format!("{}{path}\n", fake.url)), "{}", done.err);
    assert!(done.err.contains("signs one browser in as ci, once, until 2026-01-01T00:00:00Z"), "{}", done.err);
    assert!(!done.err.contains("secret"), "{}", done.err);
    assert_eq!(fake.lines(), ["POST /v1/session/link"]);
    assert_eq!(fake.seen()[0].json(), json!({"token": "ci"}));
}

#[tokio::test]
async fn a_renamed_field_on_the_screen_of_top_is_an_error() {
    let top = ["top", "--once"];
    misses_each_field(&top, &things::summary(), |path, summary| match path {
        _ if path.contains("/summary") => summary,
        _ if path.contains("/pools/default") => things::pool(),
        _ => page(&[], None),
    })
    .await;
}

#[tokio::test]
async fn a_renamed_field_inside_a_field_is_an_error() {
    for (command, object, outer, inner) in [
        (["node", "show", "n1"], things::node("n1"), "capacity", "cpus_used"),
        (["instance", "show", "web.0"], things::instance("web.0"), "steps", "disk_at"),
        (["operation", "show", things::OPERATION_ID], things::operation("running", 1), "progress", "unit"),
    ] {
        let changed = renamed(object.get(outer).expect("the field"), inner);
        let sent = with(object, json!({outer: changed}));
        let fake = Fake::start(move |_, _| answer(200, &sent)).await;
        let done = fake.run(&command).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains(outer) && done.err.contains(inner), "{}", done.err);
    }
}

#[tokio::test]
async fn words_and_fields_of_a_later_controller_are_fine() {
    let deployment = with(
        things::deployment("web"),
        json!({"state": "hibernating", "runtime": "containers", "placement": {"policy": "random", "seed": 7}}),
    );
    let shown = deployment.clone();
    let fake = Fake::start(move |_, _| answer(200, &page(std::slice::from_ref(&deployment), None))).await;
    let table = fake.run(&["deployment", "ls"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let row = table.out.lines().nth(1).expect("a row");
    assert!(row.contains("unknown") && row.contains("containers"), "{}", table.out);
    assert_eq!(fake.run(&["deployment", "ls", "-o", "json"]).await.json(), json!([shown]));
    let token = with(things::token("ci"), json!({"role": "auditor"}));
    let fake = Fake::start(move |_, _| answer(200, &page(std::slice::from_ref(&token), None))).await;
    assert!(fake.run(&["token", "ls"]).await.out.contains("auditor"));
}

#[tokio::test]
async fn a_node_shows_how_far_its_repair_is_and_that_it_is_out() {
    let idle = json!({"membership_epoch": 4, "unchecked_objects": 0, "missing": {"objects": 0, "bytes": 0}, "silent_nodes": 0,
        "copied": {"objects": 7, "bytes": 7}, "bytes_per_s": 0});
    let busy = with(
        idle.clone(),
        json!({"unchecked_objects": 500, "missing": {"objects": 30, "bytes": 30 << 20},
        "silent_nodes": 1, "bytes_per_s": 8 << 20}),
    );
    for (repair, expected) in [
        (idle, "nothing to send"),
        (
            busy,
            "30 copies (30 MiB) to send to other nodes, 8 MiB/s, 500 objects not compared yet, nodes without an answer: 1",
        ),
    ] {
        let node = with(things::node("n1"), json!({"repair": repair, "state": "silent", "out": true}));
        let fake = Fake::start(move |_, _| answer(200, &node)).await;
        let shown = fake.run(&["node", "show", "n1"]).await;
        assert!(shown.out.contains(expected) && shown.out.contains("silent, out"), "{shown:?}");
    }
}

#[tokio::test]
async fn a_node_shows_what_its_scrub_found_and_what_to_do_about_its_disk() {
    let round = |ended: Value, bad: u64| json!({"began_at": things::AT, "ended_at": ended, "objects": 900, "bytes": 40 << 20, "bad": bad, "unreadable": 2});
    let going_on = json!({"now": round(Value::Null, 0), "done_ppm": 257_000, "last": round(json!(things::AT), 1),
        "next_at": things::AT});
    let first = json!({"now": null, "done_ppm": 1_000_000, "last": null, "next_at": things::AT});
    let failed = json!([{"kind": "disk_failed", "detail": "/data/pool: sync failed"}]);
    let full = json!([{"kind": "node_full", "detail": "1 MiB are free"}]);
    for (scrub, conditions, expected) in [
        (
            going_on,
            failed,
            ["25 % of a round done", "900 objects (40 MiB), 1 bad, 2 unreadable", "muster node fence n1"],
        ),
        (first, full, ["no full round yet", "the next begins", "muster pool sweep"]),
    ] {
        let node = with(things::node("n1"), json!({"scrub": scrub, "conditions": conditions}));
        let fake = Fake::start(move |_, _| answer(200, &node)).await;
        let shown = fake.run(&["node", "show", "n1"]).await;
        assert!(expected.iter().all(|part| shown.out.contains(part)), "{expected:?} in {shown:?}");
    }
}

#[tokio::test]
async fn how_far_a_drain_is_is_said_in_words() {
    let drain = json!({"state": "draining", "since": things::AT, "left": {"objects": 12, "bytes": 3 << 20},
        "bytes_per_s": 1 << 20, "ends_at": null});
    let node = with(things::node("n1"), json!({"schedulable": false, "drain": drain}));
    let drained = with(node.clone(), json!({"drain": with(drain, json!({"state": "drained"}))}));
    for (node, state, said) in [
        (node, "ready, draining", "12 objects (3 MiB) left, 1 MiB/s"),
        (drained, "ready, drained", "no objects any more"),
    ] {
        let fake = Fake::start(move |_, _| answer(200, &node)).await;
        let shown = fake.run(&["node", "show", "n1"]).await;
        assert!(shown.out.contains(state) && shown.out.contains(said) && !shown.out.contains("cordoned"), "{shown:?}");
    }
}

#[tokio::test]
async fn the_number_of_copies_is_set_and_too_few_nodes_are_told() {
    let fake = Fake::start(|_, _| answer(200, &with(things::pool(), json!({"min_copies": 4})))).await;
    let done = fake.run(&["pool", "set", "--min-copies", "4"]).await;
    assert_eq!(
        (done.code, fake.seen().pop().expect("the call").json()),
        (Some(0), json!({"min_copies": 4})),
        "{done:?}"
    );
    assert_eq!(fake.lines().pop().as_deref(), Some("PATCH /v1/pools/default"));
    assert!(done.out.contains("at least 4 copies") && done.out.contains("when more nodes join"), "{done:?}");
}

#[tokio::test]
async fn lost_objects_are_shown_with_what_to_do_and_acknowledged_as_shown() {
    let conditions = json!([{"kind": "objects_lost", "detail": "3 objects are lost"}]);
    let node = with(things::node("n1"), json!({"conditions": conditions}));
    let fake = Fake::start(move |_, _| answer(200, &node)).await;
    let shown = fake.run(&["node", "show", "n1"]).await;
    assert!(
        shown.out.contains("objects_lost: 3 objects are lost") && shown.out.contains("muster node ack n1"),
        "{shown:?}"
    );
    let done = fake.run(&["node", "ack", "n1"]).await;
    assert_eq!(
        (done.code, fake.lines().pop()),
        (Some(0), Some("POST /v1/nodes/n1/acknowledge".to_owned())),
        "{done:?}"
    );
    assert_eq!(fake.seen().pop().expect("the call").json(), json!({"objects": 3, "bytes": 96}));
}
