//! Disks that live longer than the start of their instance: what commands send, and what they show.

use serde_json::json;

use crate::{
    fake::{Fake, answer, page, problem},
    things::{self, with},
};

#[tokio::test]
async fn disks_are_listed_with_what_they_belong_to() {
    let fake = Fake::start(|_, _| {
        let detached = json!({"instance": null, "instance_name": null, "detached_from": "db.1", "state": "detached"});
        answer(200, &page(&[things::disk(), with(things::disk(), detached)], None))
    })
    .await;
    let done = fake.run(&["disk", "ls"]).await;
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[0].ends_with("ID"), "{}", done.out);
    assert!(lines[1].starts_with("data ") && lines[1].contains("from db.1"), "{}", done.out);
    assert!(lines[2].starts_with("web.0/data ") && lines[2].contains("attached"), "{}", done.out);
    fake.run(&["disk", "ls", "--detached", "--state", "detached"]).await;
    fake.run(&["disk", "ls", "--instance", "web.0", "--instance", "web.1"]).await;
    let expected = [
        "GET /v1/disks?limit=1000",
        "GET /v1/disks?state=detached&detached=true&limit=1000",
        "GET /v1/disks?instance=web.0&instance=web.1&limit=1000",
    ];
    assert_eq!(fake.lines(), expected);
}

#[tokio::test]
async fn a_disk_is_grown_and_attached_as_the_options_say() {
    let fake = Fake::start(|_, _| answer(200, &with(things::disk(), json!({"state": "growing"})))).await;
    let done = fake.run(&["disk", "grow", "web.0/data", "20GiB"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "web.0/data: growing, 10 GiB\n"), "{done:?}");
    let sent = (fake.lines()[0].clone(), fake.seen()[0].json());
    assert_eq!(sent, ("PATCH /v1/disks/web.0%2Fdata".to_owned(), json!({"size_bytes": 20_u64 << 30})));
    for (options, body) in [
        (&["data"][..], json!({"disk": "data"})),
        (&[things::OTHER_ID, "--name", "old"], json!({"disk": things::OTHER_ID, "name": "old"})),
        (&["--name", "new", "--size", "1MiB"], json!({"name": "new", "size_bytes": 1 << 20})),
        (
            &["--name", "new", "--size", "1GiB", "--image", "debian@2"],
            json!({"name": "new", "size_bytes": 1 << 30, "source": {"image": "debian", "version": 2}}),
        ),
        (
            &["--name", "new", "--size", "1GiB", "--version", things::VERSION_ID],
            json!({"name": "new", "size_bytes": 1 << 30, "source": {"version": things::VERSION_ID}}),
        ),
    ] {
        let before = fake.seen().len();
        let done = fake.run(&[&["disk", "attach", "web.0"][..], options].concat()).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(fake.lines()[before], "POST /v1/instances/web.0/disks");
        assert_eq!(fake.seen()[before].json(), body, "{options:?}");
        assert!(fake.seen()[before].key().is_some());
    }
}

#[tokio::test]
async fn a_detach_is_waited_for_by_id_if_that_is_wanted() {
    let detaching = json!({"state": "detaching", "detail": "its guest has not let it go yet"});
    let fake = Fake::start(move |seen, number| match number {
        0 | 1 => answer(if seen.method == "POST" { 202 } else { 200 }, &with(things::disk(), detaching.clone())),
        _ => {
            let detached =
                json!({"instance": null, "instance_name": null, "detached_from": "web.0", "state": "detached"});
            answer(200, &with(things::disk(), detached))
        }
    })
    .await;
    let done = fake.run(&["disk", "detach", "web.0/data", "--wait"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "data: detached, 10 GiB\n"), "{done:?}");
    assert_eq!(done.err, "web.0/data: detaching, 10 GiB, its guest has not let it go yet\n", "said once");
    let look = format!("GET /v1/disks/{}", things::OTHER_ID);
    assert_eq!(fake.lines(), ["POST /v1/disks/web.0%2Fdata/detach".to_owned(), look.clone(), look]);

    let detaching = with(things::disk(), json!({"state": "detaching"}));
    let fake = Fake::start(move |_, _| answer(202, &detaching)).await;
    let done = fake.run(&["disk", "detach", "web.0/data"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "web.0/data: detaching, 10 GiB\n"), "{done:?}");
    let done = fake.run(&["disk", "detach", "web.0/data", "--wait", "--timeout", "100ms"]).await;
    assert!(done.code == Some(3) && done.err.contains("it goes on"), "{done:?}");

    let fake = Fake::start(|seen, _| match seen.method == "POST" {
        true => answer(202, &with(things::disk(), json!({"state": "detaching"}))),
        false => answer(200, &things::disk()),
    })
    .await;
    let done = fake.run(&["disk", "detach", "web.0/data", "--wait"]).await;
    assert!(done.code == Some(1) && done.err.contains("took the detach back"), "{done:?}");
}

#[tokio::test]
async fn a_disk_that_is_attached_is_not_deleted() {
    let fake = Fake::start(|seen, _| match seen.path.ends_with("/data") {
        true => answer(204, &json!(null)),
        false => problem(409, "disk_attached", "the disk belongs to web.0 as 'data': detach it first"),
    })
    .await;
    let done = fake.run(&["disk", "rm", "data", "--yes"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "deleted disk data\n"), "{done:?}");
    let done = fake.run(&["disk", "rm", "web.0/data", "--yes"]).await;
    assert!(done.code == Some(1) && done.err.contains("detach it first"), "{done:?}");
    assert_eq!(fake.lines(), ["DELETE /v1/disks/data", "DELETE /v1/disks/web.0%2Fdata"]);
}

#[tokio::test]
async fn a_disk_is_shown_with_what_it_waits_for() {
    let fields = json!({"state": "detaching", "detail": "a snapshot saves what it holds"});
    let fake = Fake::start(move |_, _| answer(200, &with(things::disk(), fields.clone()))).await;
    let show = fake.run(&["disk", "show", "web.0/data"]).await.out;
    for part in ["web.0/data", "detaching", "a snapshot saves what it holds", "10 GiB", things::VERSION_ID] {
        assert!(show.contains(part), "no {part} in\n{show}");
    }
}
