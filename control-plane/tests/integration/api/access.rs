//! Tokens and who may do what.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn without_a_good_token_nothing_is_said() {
    let world = World::new().await;
    let with = async |value: &str| world.send("GET", "/v1/me", &[("authorization", value)], "").await;
    let none = with("").await;
    none.refused(401, "unauthenticated");
    assert_eq!(none.header("www-authenticate"), "Bearer");
    with("Basic dXNlcg==").await.refused(401, "unauthenticated");
    with("Bearer hello").await.refused(401, "unauthenticated");
    let mut wrong = world.token.clone().into_bytes();
    let last = wrong.len() - 10;
    wrong[last] = if wrong[last] == b'A' { b'B' } else { b'A' };
    with(&format!("Bearer {}", String::from_utf8(wrong).expect("ASCII"))).await.refused(401, "unauthenticated");
    world.get("/v1/me").await.ok::<Value>(200);
}

#[tokio::test]
async fn a_token_is_shown_once_and_stored_hashed() {
    let world = World::new().await;
    let made: Value = world.post("/v1/tokens", &json!({ "name": "ci", "role": "admin", "ttl_s": 60 })).await.ok(201);
    let text = made["token"].as_str().expect("its text");
    assert!(text.starts_with("mst1_"));
    let shown: Value = world.get("/v1/tokens/ci").await.ok(200);
    assert!(shown.get("token").is_none(), "{shown}");
    assert_eq!(shown["id"], made["id"]);
    world.app.store.close().await;
    let secret = text.get(text.len() - 43..).expect("43 characters");
    for file in ["muster.db", "muster.db-wal"] {
        let Ok(bytes) = std::fs::read(world.dir.path().join("data").join(file)) else { continue };
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "the secret is in {file}");
    }
}

#[tokio::test]
async fn a_repeated_call_gets_the_same_token_although_the_token_is_not_stored() {
    let world = World::new().await;
    let make = async || world.send("POST", "/v1/tokens", &[("idempotency-key", "k")], r#"{"role":"tenant"}"#).await;
    let (first, second) = (make().await, make().await);
    assert_eq!(second.header("idempotent-replay"), "true");
    let (first, second): (Value, Value) = (first.ok(201), second.ok(201));
    assert_eq!(first, second);
    world.get_as(first["token"].as_str().expect("a token"), "/v1/me").await.ok::<Value>(200);
}

#[tokio::test]
async fn a_token_ends_when_its_time_is_up_or_when_it_is_revoked() {
    let world = World::new().await;
    let short = world.make_token(json!({ "role": "admin", "ttl_s": 60 })).await;
    let long = world.make_token(json!({ "role": "admin", "name": "long" })).await;
    world.clock.advance_ms(59_999);
    world.get_as(&short, "/v1/me").await.ok::<Value>(200);
    world.clock.advance_ms(1);
    world.get_as(&short, "/v1/me").await.refused(401, "unauthenticated");
    world.get_as(&long, "/v1/me").await.ok::<Value>(200);
    assert_eq!(world.delete("/v1/tokens/long").await.status, 204);
    assert_eq!(world.delete("/v1/tokens/long").await.status, 204);
    world.get_as(&long, "/v1/me").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_tenant_can_use_only_its_project() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-1" })).await;
    let me: Value = world.get_as(&tenant, "/v1/me").await.ok(200);
    assert_eq!((me["role"].as_str(), me["project"].as_str()), (Some("tenant"), Some("red")));
    world.get_as(&tenant, "/v1/summary?project=red").await.ok::<Value>(200);
    world.get_as(&tenant, "/v1/summary?project=default").await.refused(404, "not_found");
    world.get_as(&tenant, "/v1/operations?project=*").await.refused(404, "not_found");
    world.get_as(&tenant, "/v1/nodes").await.refused(403, "forbidden");
    world.get_as(&tenant, "/metrics").await.refused(403, "forbidden");
    // It sees the tokens of its project. Other tokens are answered as if they did not exist.
    let list: Value = world.get_as(&tenant, "/v1/tokens").await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    world.get_as(&tenant, "/v1/tokens/red-1").await.ok::<Value>(200);
    world.get_as(&tenant, "/v1/tokens/admin").await.refused(404, "not_found");
    let bearer = format!("Bearer {tenant}");
    let make = world.send("POST", "/v1/tokens", &[("authorization", &bearer)], r#"{"role":"admin"}"#).await;
    make.refused(403, "forbidden");
}

#[tokio::test]
async fn a_node_token_only_joins() {
    let world = World::new().await;
    let node = world.make_token(json!({ "role": "node" })).await;
    assert!(node.starts_with("mjt1_"));
    world.get_as(&node, "/v1/me").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_bad_token_request_names_the_field() {
    let world = World::new().await;
    let pointer = async |body: Value| {
        let problem = world.post("/v1/tokens", &body).await.refused(422, "invalid");
        problem["errors"][0]["pointer"].as_str().expect("a pointer").to_owned()
    };
    assert_eq!(pointer(json!({ "role": "king" })).await, "/role");
    assert_eq!(pointer(json!({})).await, "/role");
    assert_eq!(pointer(json!({ "role": "admin", "ttl_s": 0 })).await, "/ttl_s");
    assert_eq!(pointer(json!({ "role": "admin", "uses": 2 })).await, "/uses");
    assert_eq!(pointer(json!({ "role": "node", "uses": 0 })).await, "/uses");
    assert_eq!(pointer(json!({ "role": "node", "project": "x" })).await, "/project");
    assert_eq!(pointer(json!({ "role": "tenant", "project": "X" })).await, "/project");
    let taken = world.post("/v1/tokens", &json!({ "role": "admin", "name": "admin" })).await.refused(409, "name_taken");
    assert_eq!(taken["existing"], world.get("/v1/tokens/admin").await.json()["id"]);
}

#[tokio::test]
async fn who_keeps_showing_bad_tokens_is_told_to_wait_and_a_good_one_always_passes() {
    let world = World::new().await;
    let me = async |token: &str, last_octet: u8| {
        let mut request = world.request("GET", "/v1/me", &[("authorization", &format!("Bearer {token}"))], "");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, last_octet], 4711))));
        World::answer(&world.people, request).await
    };
    for _ in 0..30 {
        me("mst1_x", 1).await.refused(401, "unauthenticated");
    }
    let limited = me("mst1_x", 1).await;
    let problem = limited.refused(429, "too_many_requests");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("the token is unknown, revoked or expired; "), "{detail}");
    assert_eq!(limited.header("retry-after"), "1");
    me(&world.token, 1).await.ok::<Value>(200);
    me("mst1_x", 2).await.refused(401, "unauthenticated");
    world.clock.advance_ms(1_000);
    me("mst1_x", 1).await.refused(401, "unauthenticated");
    me("mst1_x", 1).await.refused(429, "too_many_requests");
}
