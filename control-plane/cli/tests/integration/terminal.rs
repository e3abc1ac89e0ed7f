//! What people see at a terminal. `script` gives the commands one of 80 columns.

use serde_json::{Value, json};

use crate::{
    fake::{Fake, answer, page},
    things::{self, AT, OPERATION_ID, VERSION_ID, with},
};

/// A name as long as names may be.
const LONG: &str = "a-name-that-has-as-many-characters-as-a-name-may-have-1";

/// Things with long values, and the commands that print them.
fn all() -> Vec<(Value, Vec<Vec<&'static str>>)> {
    let labels = json!({"labels": {"tier": "front", "owner": "a-team-with-a-long-name", "purpose": "shop"}});
    let member = format!("{LONG}.12");
    let named = |object, name: &str| with(with(object, json!({"name": name})), labels.clone());
    let conditions = json!([{"kind": "objects_lost", "detail": "12 objects of this disk have no good copy on any node"},
        {"kind": "hypervisor_silent", "detail": "libvirt has not answered for five minutes"}]);
    let target = json!({"kind": "instance", "id": OPERATION_ID, "name": member});
    let waiting = json!([{"what": format!("{member}: starting (disk_error): the disk cannot be read"), "since": AT,
        "deadline": AT, "node": null, "node_name": LONG}]);
    let unfinished = json!({"target": target, "kind": "deployment.recover", "waiting_on": waiting,
        "progress": {"done": 9_999, "total": 10_000, "failed": 1, "unit": "instances"}});
    let counts = json!({"deployment_name": LONG, "source_name": LONG, "count": 10_000, "ready": 9_000,
        "counts": {"running": 9_000, "failed": 900, "pending": 100, "unknown": 12}});
    let placed = json!({"node_name": LONG, "reason": "not_started_in_time", "conditions": conditions, "zone": LONG});
    let happened = json!({"target": target, "data": {"state": "failed", "reason": "not_started_in_time"},
        "actor": format!("node:{LONG}"), "kind": "deployment.updated"});
    let busy = json!({"schedulable": false, "conditions": conditions, "zone": LONG});
    vec![
        (named(things::image(""), LONG), vec![vec!["image", "ls"], vec!["image", "show", "x"]]),
        (
            with(
                named(things::version(""), &format!("{LONG}@12")),
                json!({"image_name": LONG, "digest": "0".repeat(64)}),
            ),
            vec![vec!["image", "versions", "x"], vec!["version", "show", VERSION_ID]],
        ),
        (
            with(named(things::deployment(LONG), LONG), counts.clone()),
            vec![vec!["deployment", "ls"], vec!["deployment", "show", "x"]],
        ),
        (
            with(named(things::instance(""), &member), with(placed, counts)),
            vec![vec!["instance", "ls"], vec!["instance", "show", "x"]],
        ),
        (
            with(named(things::snapshot(""), LONG), json!({"deployment_name": LONG, "missing": 0})),
            vec![vec!["snapshot", "ls"]],
        ),
        (
            with(named(things::network(""), LONG), json!({"domain": LONG, "subnet_v6": "fd12:3456:789a:bcde::/64"})),
            vec![vec!["network", "ls"], vec!["network", "show", "x"]],
        ),
        (named(things::security_group(""), LONG), vec![vec!["sg", "ls"], vec!["sg", "show", "x"]]),
        (with(named(things::node(""), LONG), busy), vec![vec!["node", "ls"], vec!["node", "show", "x"]]),
        (
            with(things::operation("cancelling", 1), unfinished),
            vec![vec!["operation", "ls"], vec!["operation", "show", OPERATION_ID]],
        ),
        (with(things::event("41"), happened), vec![vec!["event", "ls"]]),
        (with(things::token(LONG), json!({"project": LONG})), vec![vec!["token", "ls"], vec!["whoami"]]),
    ]
}

#[tokio::test]
async fn tables_and_texts_fit_a_terminal_of_80_columns() {
    for (thing, commands) in all() {
        let sent = thing.clone();
        let fake = Fake::start(move |seen, _| match seen.path.contains("limit=") {
            true => answer(200, &page(&[sent.clone(), sent.clone()], None)),
            false => answer(200, &with(things::me(LONG), sent.clone())),
        })
        .await;
        for args in commands {
            let seen = fake.at_terminal(&args, "").await;
            let wide: Vec<_> = seen.out.lines().filter(|line| console::measure_text_width(line) > 80).collect();
            assert!(seen.code == Some(0) && wide.is_empty(), "{args:?}: {wide:#?} of\n{}", seen.out);
            if args.contains(&"ls") {
                let whole = fake.run(&args).await.out;
                let long = thing["name"].as_str().or(thing["target"]["name"].as_str()).expect("a name");
                assert!(seen.out.contains('…') && !whole.contains('…'), "{args:?}: {}\n{whole}", seen.out);
                assert!(whole.contains(long), "a pipe gets every cell whole: {whole}");
                let wide = fake.at_terminal(&[&args[..], &["-o", "wide"]].concat(), "").await.out;
                assert!(!wide.contains('…') && wide.contains(long), "-o wide shortens nothing: {wide}");
            }
        }
    }
}

#[tokio::test]
async fn the_screen_of_top_and_what_is_told_of_a_dry_run_fit_80_columns() {
    let long = "the database is older than what nodes told: 12 instances are found on nodes that it does not know of";
    let problems = json!({"problems": [{"kind": "instances_found", "count": 12, "detail": long}],
        "instances": {"running": 9_000, "failed": 900, "pending": 100, "unknown": 12, "stopping": 7, "deleting": 100}});
    let reasons = json!({"reasons": [{"reason": "memory", "count": 3, "detail": long}]});
    let fake = Fake::start(move |seen, _| match (seen.path.contains("/summary"), seen.path.contains("/deployments")) {
        (true, _) => answer(200, &with(things::summary(), problems.clone())),
        (_, true) => answer(200, &with(things::dry_run(), reasons.clone())),
        _ if seen.path.contains("/pools/default") => answer(200, &things::pool()),
        _ => answer(200, &page(&[], None)),
    })
    .await;
    for args in [&["top", "--once"][..], &["deploy", "x", "--image", "a", "--count", "2", "--dry-run"]] {
        let seen = fake.at_terminal(args, "").await;
        assert!(seen.code == Some(0) && seen.out.contains("the database is older"), "{seen:?}");
        assert!(seen.out.lines().all(|line| console::measure_text_width(line) <= 80), "{}", seen.out);
    }
}

#[tokio::test]
async fn lists_are_sorted_by_name_for_people_and_as_sent_for_programs() {
    let sent: Vec<Value> = ["web.10", "db.0", "web.2"].iter().map(|name| things::instance(name)).collect();
    let answered = sent.clone();
    let fake = Fake::start(move |_, _| answer(200, &page(&answered, None))).await;
    let table = fake.run(&["instance", "ls"]).await.out;
    let names: Vec<_> = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["db.0", "web.2", "web.10"]);
    assert_eq!(fake.run(&["instance", "ls", "-o", "json"]).await.json(), json!(sent));
}

#[tokio::test]
async fn operations_are_found_by_the_last_digits_that_a_table_shows() {
    let other = with(things::operation("running", 1), json!({"id": "01900000-0000-7000-8000-0000000000aa"}));
    let fake = Fake::start(move |seen, _| match seen.path.contains("limit=") {
        true => answer(200, &page(&[things::operation("running", 1), other.clone()], None)),
        false => answer(200, &things::operation("succeeded", 2)),
    })
    .await;
    let table = fake.at_terminal(&["operation", "ls"], "").await.out;
    let short = table.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("a row");
    let done = fake.run(&["operation", "wait", short]).await;
    assert_eq!((short, done.code), (&OPERATION_ID[24..], Some(0)), "{table}{done:?}");
    assert_eq!(fake.lines().pop(), Some(format!("GET /v1/operations/{OPERATION_ID}")));
    let none = fake.run(&["operation", "show", "abcdef"]).await;
    assert_eq!(none.code, Some(2));
    assert!(none.err.contains("no operation has an id that ends in 'abcdef'"), "{}", none.err);
    let both = fake.run(&["operation", "show", "0000"]).await;
    assert!(both.code == Some(2), "neither ends so: {both:?}");
}
