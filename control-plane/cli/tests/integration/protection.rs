//! Protection of deployments: what commands send, and what they show.

use serde_json::{Value, json};

use crate::{
    fake::{Fake, answer},
    things::{self, with},
};

fn protected() -> Value {
    let fields = json!({
        "protect": { "every": "15m", "keep": { "last": 1, "hourly": 24, "daily": 7, "weekly": 0 } },
        "protection": {
            "last_saved_at": "2026-11-30T09:15:02Z", "last_snapshot": things::OTHER_ID,
            "last_snapshot_name": "web-20261130-0915z", "next_at": "2026-11-30T09:29:11Z", "under_way": null,
            "trouble": "left out: web.1 is unknown", "new_field": [1],
        },
    });
    with(things::deployment("web"), fields)
}

#[tokio::test]
async fn a_deployment_is_protected_as_the_options_say() {
    let fake = Fake::start(|_, _| answer(200, &protected())).await;
    for (options, protect) in [
        (&["--every", "15m"][..], json!({"every": "15m"})),
        (&["--every", "3600s", "--keep-last", "3"], json!({"every": "1h", "keep": {"last": 3}})),
        (&["--keep-daily", "7", "--keep-weekly", "0"], json!({"keep": {"daily": 7, "weekly": 0}})),
        (&["--off"], Value::Null),
    ] {
        let before = fake.seen().len();
        let done = fake.run(&[&["deployment", "protect", "web"][..], options].concat()).await;
        let said = "web: every 15m, keeps the last, 24 hours, 7 days\n";
        assert_eq!((done.code, done.out.as_str()), (Some(0), said), "{done:?}");
        assert_eq!(fake.lines()[before], "PATCH /v1/deployments/web");
        assert_eq!(fake.seen()[before].json(), json!({ "protect": protect }), "{options:?}");
    }
    let before = fake.seen().len();
    for wrong in [&[][..], &["--off", "--every", "15m"], &["--off", "--keep-last", "1"], &["--every", "soon"]] {
        let done = fake.run(&[&["deployment", "protect", "web"][..], wrong].concat()).await;
        assert_eq!(done.code, Some(2), "{wrong:?}: {done:?}");
    }
    let deploy = ["deploy", "web", "--image", "debian", "--count", "1"];
    let done = fake.run(&[&deploy[..], &["--keep-last", "2"]].concat()).await;
    assert!(done.code == Some(2) && done.err.contains("--protect-every"), "{done:?}");
    assert_eq!(fake.seen().len(), before, "nothing was sent");
    fake.run(&[&deploy[..], &["--protect-every", "2h", "--keep-hourly", "24", "--no-wait"]].concat()).await;
    let keep = json!({"last": 1, "hourly": 24, "daily": 0, "weekly": 0});
    assert_eq!(fake.seen()[before].json()["protect"], json!({"every": "2h", "keep": keep}));
}

#[tokio::test]
async fn a_protection_is_shown_with_what_is_not_saved() {
    let fake = Fake::start(|_, _| answer(200, &protected())).await;
    let show = fake.run(&["deployment", "show", "web"]).await.out;
    for part in [
        "every 15m, keeps the last, 24 hours, 7 days",
        "last snapshot web-20261130-0915z, next at 2026-11-30T09:29:11Z",
        "left out: web.1 is unknown",
    ] {
        assert!(show.contains(part), "no {part} in\n{show}");
    }
}

#[tokio::test]
async fn a_scheduled_snapshot_is_kept_for_good() {
    let fake = Fake::start(|_, _| answer(200, &things::snapshot("s1"))).await;
    let done = fake.run(&["snapshot", "keep", "s1"]).await;
    assert!(done.code == Some(0) && done.out.ends_with(": stays until you delete it\n"), "{done:?}");
    let sent = (fake.lines()[0].clone(), fake.seen()[0].json());
    assert_eq!(sent, ("PATCH /v1/snapshots/s1".to_owned(), json!({"scheduled": false})));
}
