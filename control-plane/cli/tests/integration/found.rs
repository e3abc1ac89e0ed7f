//! `muster instance found`, `take` and `forget`.

use serde_json::{Value, json};

use crate::{
    fake::{Fake, answer, page},
    things,
};

const AT: &str = "2026-01-01T00:00:00Z";

fn found(id: &str, state: &str, name: Option<&str>) -> Value {
    json!({"id": id, "name": name, "project": name.map(|_| "default"), "node": things::OTHER_ID, "node_name": "n1",
        "state": state, "reason": null, "detail": null, "runtime": "libvirt", "cpus": 1, "memory_bytes": 512 << 20,
        "generation": 1, "boot": 2, "created_at": AT, "updated_at": AT, "disks": [{"id": things::OTHER_ID,
        "size_bytes": 1 << 30, "path": "/x.raw", "version": things::VERSION_ID, "unsaved_bytes": 4096}]})
}

const ONE: &str = "0192a6f0-0000-7000-8000-000000000001";
const TWO: &str = "0192a6f0-0000-7000-8000-000000000002";

#[tokio::test]
async fn found_instances_are_listed_taken_and_forgotten() {
    let fake = Fake::start(|seen, _| match (seen.method.as_str(), seen.path.contains("forget")) {
        ("GET", _) => answer(200, &page(&[found(ONE, "running", Some("web.1")), found(TWO, "deleting", None)], None)),
        (_, true) => answer(200, &found(ONE, "deleting", Some("web.1"))),
        (_, false) => answer(200, &things::instance("web.1")),
    })
    .await;
    let listed = fake.run(&["instance", "found"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let rows: Vec<Vec<&str>> =
        listed.out.lines().skip(1).map(|line| line.split_whitespace().take(4).collect()).collect();
    let nameless = [TWO, "deleting", "n1", "1"];
    assert_eq!(rows, [nameless, ["web.1", "default", "running", "n1"]], "{}", listed.out);
    let taken = fake.run(&["instance", "take", "--all"]).await;
    assert_eq!((taken.code, taken.out.as_str()), (Some(0), "web.1: running\n"), "{taken:?}");
    let forgotten = fake.run(&["instance", "forget", "--yes", ONE]).await;
    assert_eq!((forgotten.code, forgotten.out.as_str()), (Some(0), "web.1: deleting\n"), "{forgotten:?}");
    let seen = fake.seen();
    let posts: Vec<(String, Value)> = seen
        .iter()
        .filter(|seen| seen.method.as_str() == "POST")
        .map(|seen| (seen.path.clone(), seen.json()))
        .collect();
    let path = |verb: &str| format!("/v1/found-instances/{ONE}/{verb}");
    assert_eq!(posts, [(path("take"), json!({})), (path("forget"), json!({"confirm": true}))]);
    assert_eq!(fake.run(&["instance", "take"]).await.code, Some(2), "which ones must be said");
}
