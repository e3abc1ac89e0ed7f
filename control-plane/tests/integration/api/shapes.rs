//! What every call has in common: problems, ids, limits, lists.

use std::time::Duration;

use axum::body::{Body, Bytes};
use muster_api::node_protocol::Incarnation;
use muster_controller::store::Position;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::new().await;
    world.get("/v1/nothing").await.refused(404, "no_such_path");
    world.get("/").await.header("location").contains("/ui/").then_some(()).expect("leads to the dashboard");
    world.delete("/v1/me").await.refused(405, "method_not_allowed");
    world.post("/v1/summary", &json!({})).await.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn no_error_repeats_a_secret_whichever_field_it_was_sent_in() {
    let world = World::new().await;
    let secret = world.make_token(json!({ "role": "tenant" })).await;
    let answers = [
        world.get(&format!("/v1/tokens/{secret}")).await,
        world.get(&format!("/v1/images/{secret}")).await,
        world.get(&format!("/v1/{secret}")).await,
        world.delete(&format!("/v1/images/{secret}/content")).await,
        world.get(&format!("/v1/images?page_token={secret}")).await,
        world.get(&format!("/v1/images?label={secret}")).await,
        world.get(&format!("/v1/images?{secret}=1")).await,
        world.get(&format!("/v1/images?project={secret}")).await,
        world.post("/v1/images", json!({ "name": secret })).await,
        world.post("/v1/images", json!({ (secret.clone()): 1 })).await,
        world.post("/v1/tokens", json!({ "role": secret })).await,
    ];
    for (n, answer) in answers.iter().enumerate() {
        let said = String::from_utf8_lossy(&answer.body);
        assert!((400..500).contains(&answer.status), "{n}: {said}");
        assert!(!said.contains(&secret[5..37]) && !said.contains(&secret[38..]), "{n}: {said}");
        let headers = format!("{:?}", answer.headers);
        assert!(!headers.contains(&secret[38..]), "{n}: {headers}");
    }
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_long_is_refused_before_it_is_read() {
    let world = World::new().await;
    world.post("/v1/images", json!({ "name": "disk" })).await.ok::<Value>(201);
    for (method, path, length) in
        [("POST", "/v1/images", "1048577"), ("PUT", "/v1/images/disk/content", "17592186044417")]
    {
        let bearer = format!("Bearer {}", world.token);
        let headers = [("authorization", bearer.as_str()), ("content-length", length)];
        // A body that never brings a byte.
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let answer = World::answer(&world.people, world.request(method, path, &headers, "").map(|_| body));
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.expect("at once");
        answer.refused(413, "too_large");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_answered_with_408() {
    let world = World::configured(None, |config| config.doors.body_within_s = 1).await;
    let bearer = format!("Bearer {}", world.token);
    let headers = [("authorization", bearer.as_str()), ("content-length", "100")];
    let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let request = world.request("POST", "/v1/images", &headers, "").map(|_| body);
    World::answer(&world.people, request).await.refused(408, "request_timeout");
}

#[tokio::test]
async fn reserved_shapes_answer_501_and_only_to_callers() {
    let world = World::new().await;
    for (method, path) in [
        ("GET", "/v1/projects"),
        ("GET", "/v1/audit"),
        ("POST", "/v1/instances/a/migrate"),
        ("POST", "/v1/deployments/a/shelve"),
        ("PATCH", "/v1/uploads/a"),
    ] {
        world.send(method, path, &[], "").await.refused(501, "not_built_yet");
        world.send(method, path, &[("authorization", "")], "").await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn bad_bodies_get_400_or_422_with_the_field() {
    let world = World::new().await;
    let post = async |body: &str| world.send("POST", "/v1/tokens", &[], body).await;
    post("").await.refused(400, "not_json");
    post("{").await.refused(400, "not_json");
    post("[]").await.refused(422, "invalid");
    let unknown = post(r#"{"role":"admin","rôle":1}"#).await.refused(422, "invalid");
    assert_eq!(
        (unknown["errors"][0]["pointer"].as_str(), unknown["errors"][0]["code"].as_str()),
        (Some("/rôle"), Some("unknown_field"))
    );
    let missing = post("{}").await.refused(422, "invalid");
    assert_eq!(missing["errors"][0]["code"], "missing");
    let large = format!(r#"{{"role":"admin","name":"{}"}}"#, "x".repeat(1 << 20));
    post(&large).await.refused(413, "too_large");
    world.send("DELETE", "/v1/tokens/x", &[], r#"{"force":true}"#).await.refused(422, "invalid");
}

#[tokio::test]
async fn an_array_is_not_taken_for_an_object_and_no_key_counts_twice() {
    let world = World::new().await;
    let post = async |path: &str, body: &str| world.send("POST", path, &[], body).await;
    post("/v1/tokens", r#"["t","tenant","pa"]"#).await.refused(422, "invalid");
    let nested = post("/v1/deployments", r#"{"count":1,"source":["a"]}"#).await.refused(422, "invalid");
    assert_eq!(nested["errors"][0]["pointer"], "/source");
    let twice = post("/v1/tokens", r#"{"role":"tenant","role":"admin"}"#).await.refused(400, "not_json");
    assert!(twice["detail"].as_str().is_some_and(|why| why.contains("\"role\" is given twice")), "{twice}");
    let nul = post("/v1/images", r#"{"name":"a","labels":{"k":"\u0000"}}"#).await.refused(422, "invalid");
    assert_eq!(nul["errors"][0]["pointer"], "/labels/k");
    post("/v1/images", r#"{"name":"a","labels":{"k":"a\nb"}}"#).await.refused(422, "invalid");
    post("/v1/instances/-/start", "[]").await.refused(422, "invalid");
    post("/v1/deployments/a/start", "[]").await.refused(422, "invalid");
}

#[tokio::test]
async fn a_body_of_another_kind_is_415() {
    let world = World::new().await;
    let send = async |method: &str, path: &str, kind: &str| {
        world.send(method, path, &[("content-type", kind)], r#"{"role":"tenant"}"#).await
    };
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        send("POST", "/v1/tokens", kind).await.ok::<Value>(201);
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", "json"] {
        let refused = send("POST", "/v1/tokens", kind).await.refused(415, "unsupported_media_type");
        assert!(refused["detail"].as_str().is_some_and(|why| why.contains("must be application/json")), "{refused}");
    }
    // Without a body there is nothing to be of another kind.
    world.send("POST", "/v1/deployments/none/start", &[("content-type", "")], "").await.refused(404, "not_found");
    send("PATCH", "/v1/images/none", "application/json-patch+json").await.refused(415, "unsupported_media_type");
    send("PATCH", "/v1/images/none", "application/merge-patch+json").await.refused(422, "invalid");
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json"] {
        send("PUT", "/v1/images/none/content", kind).await.refused(415, "unsupported_media_type");
    }
    for kind in ["", "application/octet-stream"] {
        send("PUT", "/v1/images/none/content", kind).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_filter_that_can_match_nothing_is_refused() {
    let world = World::new().await;
    for list in [
        "images",
        "versions",
        "deployments",
        "instances",
        "snapshots",
        "operations",
        "nodes",
        "found-instances",
        "events",
    ] {
        let refused = world.get(&format!("/v1/{list}?state=typo")).await.refused(400, "bad_request");
        let why = refused["detail"].as_str().unwrap_or_default();
        assert!(why.starts_with("there is no state 'typo' here: the states are "), "{list}: {why}");
    }
    world.get("/v1/images?state=ready&state=empty").await.ok::<Value>(200);
    let page = [("accept", "application/json")];
    world.send("GET", "/v1/events?state=ready&limit=1", &page, "").await.ok::<Value>(200);
    for path in ["/v1/images", "/v1/summary", "/v1/operations", "/v1/events", "/v1/images/a"] {
        let path = format!("{path}{}project=typo", if path.contains('?') { '&' } else { '?' });
        let refused = world.get(&path).await.refused(404, "not_found");
        assert!(refused["detail"].as_str().is_some_and(|why| why.contains("no project 'typo'")), "{refused}");
    }
    // A thing that is made in a project makes the project.
    world.post("/v1/images?project=fresh", &json!({ "name": "a" })).await.ok::<Value>(201);
    world.get("/v1/images?project=fresh").await.ok::<Value>(200);
    world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    world.get("/v1/images?project=red").await.ok::<Value>(200);
    world.get("/v1/images?project=*").await.ok::<Value>(200);
}

#[tokio::test]
async fn no_answer_has_the_words_of_a_parser() {
    const PARSERS: [&str; 12] = [
        "expected struct",
        "struct ",
        "to a u64",
        "UUID parsing",
        "invalid digit",
        "invalid type",
        "invalid length",
        "invalid value",
        "untagged enum",
        "variant",
        "`",
        "Failed to",
    ];
    let world = World::new().await;
    let mut answers = Vec::new();
    for path in [
        "/v1/versions/debian@1",
        "/v1/versions/debian/content",
        "/v1/versions/%00",
        "/v1/images/debian/versions/first",
        "/v1/images/debian/versions/-1/content",
        "/v1/images/%FF",
        "/v1/operations/x",
        "/v1/instances/web.0/log?tail=much",
        "/v1/images?limit=all",
        "/v1/images?limit=99999999999999999999",
        "/v1/images?page_token=x",
        "/v1/images?%FF=%FF",
        "/v1/images?project=No",
        "/v1/events?after=x",
        "/v1/operations/01a205ed-e27d-713a-903d-ab342bac3364?wait=soon",
    ] {
        answers.push((path.to_owned(), world.get(path).await));
    }
    for body in [
        "",
        "[]",
        "7",
        r#"{"source":{"version":"debian@1"},"count":1}"#,
        r#"{"source":{"version":-1},"count":1}"#,
        r#"{"source":{"image":7},"count":1}"#,
        r#"{"source":{"image":"a"},"count":99999999999999999999}"#,
        r#"{"source":{"image":"a"},"count":"1"}"#,
        r#"{"source":{"image":"a"},"count":1,"runtime":"docker"}"#,
        r#"{"source":{"image":"a"},"count":1,"ready":{"probe":{}}}"#,
        r#"{"source":{"image":"a"},"count":1,"placement":{"policy":"x"}}"#,
        r#"{"source":{"image":"a"},"count":1,"labels":[]}"#,
        r#"{"source":{"snapshot":""}}"#,
    ] {
        answers.push((body.to_owned(), world.send("POST", "/v1/deployments", &[], body).await));
    }
    let select = r#"{"instances":[7]}"#;
    answers.push((select.to_owned(), world.send("POST", "/v1/instances/-/start", &[], select).await));
    for (asked, answer) in answers {
        assert!((400..500).contains(&answer.status), "{asked}: {}", answer.status);
        let said = String::from_utf8_lossy(&answer.body);
        for words in PARSERS {
            assert!(!said.contains(words), "{asked}: {said}");
        }
    }
    let version = world.get("/v1/versions/debian@1").await.refused(404, "not_found");
    assert!(version["detail"].as_str().is_some_and(|why| why.contains("named by its id")), "{version}");
}

#[tokio::test]
async fn a_usable_request_id_is_kept_and_another_is_replaced() {
    let world = World::new().await;
    let given = world.send("GET", "/v1/me", &[("x-request-id", "abc-1.2_3")], "").await;
    assert_eq!(given.header("x-request-id"), "abc-1.2_3");
    for unusable in ["with space", &"x".repeat(65)] {
        let made = world.send("GET", "/v1/me", &[("x-request-id", unusable)], "").await;
        assert_eq!(made.header("x-request-id").len(), 36);
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_refused() {
    let world = World::new().await;
    for bad in [
        "/v1/me?x=1",
        "/v1/tokens?limit=0",
        "/v1/tokens?limit=1001",
        "/v1/tokens?limit=1&limit=2",
        "/v1/tokens?page_token=zz",
        "/v1/tokens?state=ready",
        "/v1/nodes?deployment=web",
        "/v1/nodes?label=a",
        "/v1/nodes?deleted=maybe",
        "/v1/operations/01a205ed-e27d-713a-903d-ab342bac3364?wait=soon",
        "/v1/events?after=x",
    ] {
        world.get(bad).await.refused(400, "bad_request");
    }
    world.get("/v1/operations/nonsense").await.refused(404, "not_found");
}

#[tokio::test]
async fn pages_are_complete_and_do_not_overlap() {
    let world = World::new().await;
    for n in 0..7 {
        world.make_token(json!({ "role": "admin", "name": format!("t{n}") })).await;
    }
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/v1/tokens?limit=3{page_token}");
        let page: Value = world.get(&path).await.ok(200);
        let items = page["items"].as_array().expect("items").iter();
        names.extend(items.map(|t| t["name"].as_str().expect("a name").to_owned()));
        pages += 1;
        match page["next_page_token"].as_str() {
            Some(next) => page_token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!((names.join(" "), pages), ("admin t0 t1 t2 t3 t4 t5 t6".to_owned(), 3));
}

#[tokio::test]
async fn health_is_open_and_metrics_are_not() {
    let world = World::new().await;
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(world.send("GET", open, &[("authorization", "")], "").await.status, 200);
    }
    world.send("GET", "/metrics", &[("authorization", "")], "").await.refused(401, "unauthenticated");
    let text = world.get("/metrics").await;
    let text = String::from_utf8_lossy(&text.body).into_owned();
    assert!(text.contains("muster_reconcile_last_run_seconds{loop=\"nodes\"}"), "{text}");
    world.app.closing.cancel();
    world.get("/readyz").await.refused(503, "unavailable");
}

#[tokio::test]
async fn the_summary_counts_and_names_problems_first() {
    let world = World::new().await;
    world.agent("a").await;
    let summary: Value = world.get("/v1/summary").await.ok(200);
    assert_eq!((&summary["nodes"], &summary["problems"]), (&json!({ "ready": 1 }), &json!([])));
    assert_eq!((&summary["operations_overdue"], &summary["unexplained_bytes"]), (&json!(0), &Value::Null));
    assert_eq!(
        summary["capacity"],
        json!({ "cpus": 4, "cpus_used": 0, "memory_bytes": 1 << 30, "memory_used_bytes": 0 })
    );
    assert_eq!((&summary["pool"]["used_bytes"], &summary["operations_running"]), (&json!(0), &json!([])));
    let tenant = world.make_token(json!({ "role": "tenant" })).await;
    let theirs: Value = world.get_as(&tenant, "/v1/summary").await.ok(200);
    assert_eq!((&theirs["pool"], &theirs["capacity"]), (&Value::Null, &Value::Null), "I12");
    world.clock.advance_ms(31_000);
    world.pass(muster_controller::wake::Loop::Nodes).await;
    let summary: Value = world.get("/v1/summary").await.ok(200);
    assert_eq!(summary["problems"][0]["kind"], "node_silent");
}

#[tokio::test]
async fn a_position_of_a_lost_history_is_refused() {
    let world = World::new().await;
    world.make_token(json!({ "role": "admin", "name": "second" })).await;
    let page: Value = world.get("/v1/tokens?limit=1").await.ok(200);
    let token = page["next_page_token"].as_str().expect("there is more");
    world.get(&format!("/v1/tokens?page_token={token}")).await.ok::<Value>(200);
    let seal = world.app.store.seal();
    let here = seal.open(token).expect("a position");
    let elsewhere = seal.token(Position { history: Incarnation { number: 7, random: 7 }.into(), ..here });
    let not_reached = seal.token(Position { seq: 0xf_ffff, ..here });
    for lost in [elsewhere, not_reached] {
        let problem = world.get(&format!("/v1/tokens?page_token={lost}")).await.refused(400, "bad_request");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("list again")), "{problem}");
        let json = [("accept", "application/json")];
        world.send("GET", &format!("/v1/events?after={lost}"), &json, "").await.refused(400, "bad_request");
    }
    world.get("/v1/tokens?page_token=7").await.refused(400, "bad_request");
}

#[tokio::test]
async fn filters_a_list_does_not_have_are_refused() {
    let world = World::new().await;
    for path in
        ["deployments?node=a", "snapshots?node=a", "images?deployment=a", "versions?node=a", "operations?label=a=b"]
    {
        world.get(&format!("/v1/{path}")).await.refused(400, "bad_request");
    }
    let many = "&state=ready".repeat(101);
    world.get(&format!("/v1/instances?limit=1{many}")).await.refused(400, "bad_request");
    world.get("/v1/images?project=Not%20a%20name").await.refused(400, "bad_request");
}
