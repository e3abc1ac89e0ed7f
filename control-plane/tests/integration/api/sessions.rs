//! Browsers: signing in and out, what their cookie allows, and from where.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use muster_api::{SessionId, session::SessionKey};
use muster_controller::{
    store::{StoreError, sessions, tokens},
    wake::Loop,
};
use serde_json::{Value, json};

use super::{
    events::Followed,
    operations::begin,
    world::{Answer, World},
};

/// A browser that is signed in.
struct Browser<'a> {
    world: &'a World,
    /// `NAME=VALUE` of its cookie.
    cookie: String,
    session: Value,
}

/// Signs in at a controller with TLS, as a page of it does.
async fn sign_in(world: &World, proof: Value) -> Answer {
    let headers = [("authorization", ""), ("host", "muster.test"), ("origin", "https://muster.test")];
    world.send("POST", "/v1/session", &headers, &proof.to_string()).await
}

fn with_token(token: &str) -> Value {
    json!({ "token": token })
}

impl<'a> Browser<'a> {
    async fn signed_in(world: &'a World, proof: Value) -> Self {
        let answer = sign_in(world, proof).await;
        let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
        Self { world, cookie, session: answer.ok(201) }
    }

    fn id(&self) -> &str {
        self.session["id"].as_str().expect("an id")
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let own = [("authorization", ""), ("cookie", &*self.cookie), ("host", "muster.test")];
        self.world.send(method, path, &[&own, headers].concat(), "").await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    /// A change that a page of the controller makes.
    async fn change(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[("origin", "https://muster.test"), ("sec-fetch-site", "same-origin")]).await
    }
}

/// A one-time link of the caller with this token.
async fn link(world: &World, token: &str, body: Value, key: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
    world.send("POST", "/v1/session/link", &headers, &body.to_string()).await
}

fn code(link: &Answer) -> Value {
    json!({ "code": link.ok::<Value>(201)["code"] })
}

#[tokio::test]
async fn a_browser_signs_in_with_a_token_and_gets_a_cookie_that_only_this_host_may_send() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-1" })).await;
    let headers = [("authorization", ""), ("user-agent", "Firefox\t/140")];
    let mut request = world.request("POST", "/v1/session", &headers, with_token(&tenant).to_string());
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4711))));
    let answer = World::answer(&world.people, request).await;
    let session: Value = answer.ok(201);
    assert_eq!(answer.header("location"), format!("/v1/sessions/{}", session["id"].as_str().expect("an id")));
    let facts = ["token_name", "role", "project", "address", "agent"].map(|field| session[field].as_str());
    assert_eq!(facts, ["red-1", "tenant", "red", "192.0.2.7", "Firefox/140"].map(Some));
    let set = answer.header("set-cookie");
    let name = format!("__Host-muster-{}", world.app.cluster.uuid().simple());
    let (pair, attributes) = set.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Max-Age=43200; Secure");
    let (of, key) = pair.split_once('=').expect("a pair");
    assert_eq!(of, name);
    assert!(key.parse::<SessionKey>().is_ok_and(|key| session["id"] == json!(key.id)), "{key}");

    let browser = Browser { world: &world, cookie: format!("other=1; {pair}"), session };
    let me: Value = browser.get("/v1/me").await.ok(200);
    assert_eq!((me["name"].as_str(), me["project"].as_str()), (Some("red-1"), Some("red")));
    assert_eq!((&me["session"], &me["expires_at"]), (&browser.session["id"], &browser.session["expires_at"]));
    browser.get("/v1/nodes").await.refused(403, "forbidden");
    let nobody = Browser { cookie: pair.replace(&name, "muster-0"), ..browser };
    nobody.get("/v1/me").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn two_session_cookies_are_refused_because_one_of_them_may_be_a_strangers() {
    let world = World::new().await;
    let own = Browser::signed_in(&world, with_token(&world.token)).await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    let strangers = Browser::signed_in(&world, with_token(&tenant)).await.cookie.clone();
    let both = Browser { cookie: format!("{strangers}; {}", own.cookie), ..own };
    both.get("/v1/me").await.refused(401, "unauthenticated");
    let out = both.send("DELETE", "/v1/session", &[]).await;
    assert_eq!(out.status, 204, "the cookie for all paths is taken back");
    assert!(out.header("set-cookie").contains("Max-Age=0"));
}

#[tokio::test]
async fn a_door_without_tls_sets_a_cookie_without_secure() {
    let world = World::configured(None, |config| config.doors.insecure_http = true).await;
    let headers = [("authorization", ""), ("host", "localhost:7400"), ("origin", "http://localhost:7400")];
    let answer = world.send("POST", "/v1/session", &headers, &with_token(&world.token).to_string()).await;
    let set = answer.header("set-cookie");
    assert_eq!(answer.status, 201);
    assert!(set.starts_with("muster-") && set.ends_with("; Max-Age=43200"), "{set}");
}

#[tokio::test]
async fn the_secret_of_a_session_is_stored_hashed() {
    let world = World::new().await;
    let browser = Browser::signed_in(&world, with_token(&world.token)).await;
    let link = link(&world, &world.token, json!({}), "k").await.ok::<Value>(201)["code"].clone();
    let cookie = browser.cookie.clone();
    world.app.store.close().await;
    for secret in [cookie.as_str(), link.as_str().expect("a code")].map(|text| &text[text.len() - 43..]) {
        for file in ["muster.db", "muster.db-wal"] {
            let Ok(bytes) = std::fs::read(world.dir.path().join("data").join(file)) else { continue };
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "the secret is in {file}");
        }
    }
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_up_and_never_after_its_token() {
    let world = World::new().await;
    let short = world.make_token(json!({ "role": "tenant", "ttl_s": 3600 })).await;
    let (short, long) = (
        Browser::signed_in(&world, with_token(&short)).await,
        Browser::signed_in(&world, with_token(&world.token)).await,
    );
    world.clock.advance_ms(3_599_999);
    short.get("/v1/me").await.ok::<Value>(200);
    world.clock.advance_ms(1);
    short.get("/v1/me").await.refused(401, "unauthenticated");
    world.clock.advance_ms(11 * 3_600_000 - 1);
    long.get("/v1/me").await.ok::<Value>(200);
    world.clock.advance_ms(1);
    long.get("/v1/me").await.refused(401, "unauthenticated");
    world.get(&format!("/v1/sessions/{}", long.id())).await.refused(404, "not_found");
    assert_eq!(world.get("/v1/sessions").await.ok::<Value>(200)["items"], json!([]));
    // Its row is dropped.
    world.pass(Loop::Overdue).await;
    let id: SessionId = long.id().parse().expect("an id");
    let row: Result<_, StoreError> = world.app.store.read("test", async |tx| sessions::load(tx, id).await).await;
    assert!(row.expect("read").is_none());
}

#[tokio::test]
async fn what_goes_on_in_a_session_ends_with_it() {
    let world = World::new().await;
    let gone = world.make_token(json!({ "role": "tenant", "name": "gone" })).await;
    let of = async |token: &str| Browser::signed_in(&world, with_token(token)).await;
    let (left, ended, revoked, stays) =
        (of(&world.token).await, of(&world.token).await, of(&gone).await, of(&world.token).await);
    let follow = async |browser: &Browser| {
        let headers = [("authorization", ""), ("cookie", &*browser.cookie)];
        Followed::with(&world, "", &headers).await
    };
    let mut streams = [follow(&left).await, follow(&ended).await, follow(&revoked).await];
    let begun = std::time::Instant::now();
    let answer = left.change("DELETE", "/v1/session").await;
    answer.empty(204);
    assert!(answer.header("set-cookie").contains("=; ") && answer.header("set-cookie").contains("Max-Age=0"));
    world.delete(&format!("/v1/sessions/{}", ended.id())).await.empty(204);
    world.delete("/v1/tokens/gone").await.empty(204);
    for stream in &mut streams {
        assert!(stream.next().await.is_none(), "it goes on");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    for browser in [&left, &ended, &revoked] {
        browser.get("/v1/me").await.refused(401, "unauthenticated");
        world.get(&format!("/v1/sessions/{}", browser.id())).await.refused(404, "not_found");
    }
    world.delete(&format!("/v1/sessions/{}", ended.id())).await.refused(404, "not_found");
    stays.get("/v1/me").await.ok::<Value>(200);
    // Whoever signs out again is not told that something is wrong, and the cookie goes.
    let again = left.change("DELETE", "/v1/session").await;
    again.empty(204);
    assert!(again.header("set-cookie").contains("Max-Age=0"));
    world.delete("/v1/session").await.refused(400, "bad_request");
}

#[tokio::test]
async fn a_call_that_waits_ends_with_its_session() {
    let world = World::new().await;
    let operation = begin(&world, "default", "a").await;
    let browser = Browser::signed_in(&world, with_token(&world.token)).await;
    let path = format!("/v1/operations/{operation}?wait=60s");
    let waits = browser.get(&path);
    let ends = async {
        tokio::task::yield_now().await;
        world.delete(&format!("/v1/sessions/{}", browser.id())).await.empty(204);
    };
    let (answer, ()) = futures::join!(waits, ends);
    assert_eq!(answer.refused(401, "unauthenticated")["detail"], "the session has ended or is unknown: sign in again");
}

#[tokio::test]
async fn a_call_with_a_cookie_counts_only_if_a_page_of_the_controller_sent_it() {
    let world = World::new().await;
    let browser = Browser::signed_in(&world, with_token(&world.token)).await;
    let (site, origin) = (|site| ("sec-fetch-site", site), |origin| ("origin", origin));
    let own = origin("https://muster.test");
    for fits in [vec![], vec![site("same-origin")], vec![site("none")], vec![own]] {
        browser.send("GET", "/v1/me", &fits).await.ok::<Value>(200);
    }
    let foreign = [
        vec![site("cross-site")],
        // A page on another port of this host, or of a subdomain: its calls have the cookie in spite of SameSite.
        vec![site("same-site")],
        vec![site("cross-site"), own],
        vec![site("same-origin"), origin("https://muster.test:8443")],
        vec![origin("https://evil.test")],
        vec![origin("http://muster.test")],
        vec![origin("null")],
    ];
    for headers in &foreign {
        browser.send("GET", "/v1/me", headers).await.refused(403, "cross_site");
        for (method, path) in [("POST", "/v1/tokens"), ("DELETE", "/v1/session"), ("PATCH", "/v1/images/a")] {
            browser.send(method, path, headers).await.refused(403, "cross_site");
        }
        browser.send("PUT", "/v1/images/a/content", headers).await.refused(403, "cross_site");
        // Nor may a foreign page sign its reader in as somebody else.
        let headers = [headers.as_slice(), &[("authorization", ""), ("host", "muster.test")]].concat();
        let body = with_token(&world.token).to_string();
        world.send("POST", "/v1/session", &headers, &body).await.refused(403, "cross_site");
    }
    // A change needs the Origin that every browser sends with it.
    for headers in [vec![], vec![site("same-origin")]] {
        browser.send("POST", "/v1/session/link", &headers).await.refused(403, "cross_site");
    }
    browser.send("POST", "/v1/session/link", &[own]).await.ok::<Value>(201);
    // No browser adds a token by itself, so with one all this does not matter.
    let bearer = format!("Bearer {}", world.token);
    let with_both = [("authorization", bearer.as_str()), ("cookie", &*browser.cookie), site("cross-site")];
    world.send("POST", "/v1/session/link", &with_both, "").await.ok::<Value>(201);
    let preflight = [("origin", "https://evil.test"), ("access-control-request-method", "POST")];
    let answer = browser.send("OPTIONS", "/v1/tokens", &preflight).await;
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{answer:?}");
}

#[tokio::test]
async fn behind_a_proxy_with_tls_pages_of_the_public_url_count() {
    let world = World::configured(None, |config| {
        config.doors.insecure_http = true;
        config.doors.public_url = Some("https://cloud.test/".to_owned());
    })
    .await;
    let sign_in = async |origin: &str, host: &str| {
        let headers = [("authorization", ""), ("origin", origin), ("host", host)];
        world.send("POST", "/v1/session", &headers, &with_token(&world.token).to_string()).await
    };
    let answer = sign_in("https://cloud.test", "10.0.0.1:7400").await;
    assert_eq!(answer.status, 201);
    assert!(answer.header("set-cookie").starts_with("__Host-") && answer.header("set-cookie").ends_with("; Secure"));
    assert_eq!(sign_in("https://cloud.test:444", "cloud.test:444").await.status, 201);
    sign_in("http://cloud.test", "cloud.test").await.refused(403, "cross_site");
}

#[tokio::test]
async fn only_tokens_of_people_sign_in_and_who_keeps_trying_is_told_to_wait() {
    let world = World::new().await;
    let node = world.make_token(json!({ "role": "node" })).await;
    let bad_code = json!({ "code": format!("msl1_{}_{}", "0".repeat(32), "A".repeat(43)) });
    for bad in [with_token(&node), with_token("mst1_x"), json!({ "code": "x" }), bad_code.clone()] {
        sign_in(&world, bad).await.refused(401, "unauthenticated");
    }
    for unclear in [json!({}), json!({ "token": "a", "code": "b" }), json!({ "name": "x" }), json!([])] {
        sign_in(&world, unclear).await.refused(422, "invalid");
    }
    let from = async |proof: &Value| {
        let mut request = world.request("POST", "/v1/session", &[("authorization", "")], proof.to_string());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711))));
        World::answer(&world.people, request).await
    };
    for _ in 0..30 {
        from(&bad_code).await.refused(401, "unauthenticated");
    }
    from(&bad_code).await.refused(429, "too_many_requests");
    from(&with_token(&world.token)).await.ok::<Value>(201);
}

#[tokio::test]
async fn operators_see_all_sessions_and_others_those_of_their_token() {
    let world = World::new().await;
    let red = world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-1" })).await;
    let other = world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-2" })).await;
    let of = async |token: &str| Browser::signed_in(&world, with_token(token)).await;
    let (admin, red, other) = (of(&world.token).await, of(&red).await, of(&other).await);
    let seen = async |browser: &Browser| {
        let page: Value = browser.get("/v1/sessions").await.ok(200);
        let items = page["items"].as_array().expect("a list").clone();
        items.iter().map(|item| item["token_name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&admin).await, ["admin", "red-1", "red-2"]);
    assert_eq!(seen(&red).await, ["red-1"]);
    let path = format!("/v1/sessions/{}", other.id());
    red.get(&path).await.refused(404, "not_found");
    red.change("DELETE", &path).await.refused(404, "not_found");
    let shown: Value = admin.get(&path).await.ok(200);
    assert_eq!((&shown["id"], &shown["last_used_at"]), (&other.session["id"], &Value::Null));
    // When it was used is known after a while.
    world.clock.advance_ms(5_000);
    other.get("/v1/me").await.ok::<Value>(200);
    world.pass(Loop::Overdue).await;
    let shown: Value = admin.get(&path).await.ok(200);
    assert!(shown["last_used_at"].as_str() > shown["created_at"].as_str(), "{shown}");
    red.change("DELETE", &format!("/v1/sessions/{}", red.id())).await.empty(204);
    assert_eq!(seen(&admin).await, ["admin", "red-2"]);
}

#[tokio::test]
async fn a_token_has_a_hundred_sessions_and_the_next_one_ends_the_oldest() {
    let world = World::new().await;
    let first = Browser::signed_in(&world, with_token(&world.token)).await;
    let second = Browser::signed_in(&world, with_token(&world.token)).await;
    for _ in 0..98 {
        sign_in(&world, with_token(&world.token)).await.ok::<Value>(201);
    }
    first.get("/v1/me").await.ok::<Value>(200);
    sign_in(&world, with_token(&world.token)).await.ok::<Value>(201);
    first.get("/v1/me").await.refused(401, "unauthenticated");
    second.get("/v1/me").await.ok::<Value>(200);
}

#[tokio::test]
async fn a_link_signs_one_browser_in_whoever_else_tries_at_the_same_time() {
    let world = World::new().await;
    let made = link(&world, &world.token, json!({}), "k").await;
    let view: Value = made.ok(201);
    assert_eq!(view["path"], format!("/ui/sign-in#code={}", view["code"].as_str().expect("a code")));
    let proof = code(&made);
    // Programs that look at links use nothing up: browsers and they send no fragment.
    world.send("GET", "/ui/sign-in", &[("authorization", "")], "").await;
    let tries = futures::future::join_all((0..8).map(|_| sign_in(&world, proof.clone()))).await;
    assert_eq!(tries.iter().filter(|answer| answer.status == 201).count(), 1, "{tries:?}");
    assert_eq!(tries.iter().filter(|answer| answer.status == 401).count(), 7, "{tries:?}");
    sign_in(&world, proof).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_link_is_good_for_ten_minutes_and_ends_with_its_token() {
    let world = World::new().await;
    let make = async |token: &str| code(&link(&world, token, json!({}), "k").await);
    world.make_token(json!({ "role": "tenant", "name": "gone" })).await;
    let (late, in_time) = (make(&world.token).await, link(&world, &world.token, json!({}), "l").await);
    let of_gone = code(&link(&world, &world.token, json!({ "token": "gone" }), "m").await);
    world.delete("/v1/tokens/gone").await.empty(204);
    sign_in(&world, of_gone).await.refused(401, "unauthenticated");
    world.clock.advance_ms(10 * 60 * 1000 - 1);
    sign_in(&world, code(&in_time)).await.ok::<Value>(201);
    world.clock.advance_ms(1);
    sign_in(&world, late).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_link_of_a_session_goes_with_it_and_prolongs_nothing() {
    let world = World::new().await;
    let browser = Browser::signed_in(&world, with_token(&world.token)).await;
    let ended = browser.change("POST", "/v1/session/link").await;
    browser.change("DELETE", "/v1/session").await.empty(204);
    sign_in(&world, code(&ended)).await.refused(401, "unauthenticated");
    let browser = Browser::signed_in(&world, with_token(&world.token)).await;
    world.clock.advance_ms(3600 * 1000);
    let made = browser.change("POST", "/v1/session/link").await;
    let other = Browser::signed_in(&world, code(&made)).await;
    assert_eq!(other.session["expires_at"], browser.session["expires_at"]);
}

#[tokio::test]
async fn only_operators_make_links_for_other_tokens() {
    let world = World::new().await;
    let red = world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-1" })).await;
    world.make_token(json!({ "role": "tenant", "project": "red", "name": "red-2" })).await;
    world.make_token(json!({ "role": "node", "name": "node-1" })).await;
    let make = async |token: &str, of: &str| link(&world, token, json!({ "token": of }), of).await;
    make(&red, "red-2").await.refused(403, "forbidden");
    let unknown = make(&red, "admin").await.refused(404, "not_found");
    assert_eq!(unknown["errors"][0]["pointer"], "/token");
    make(&world.token, "node-1").await.refused(422, "invalid");
    let own = Browser::signed_in(&world, code(&make(&red, "red-1").await)).await;
    let given = Browser::signed_in(&world, code(&make(&world.token, "red-2").await)).await;
    assert_eq!([own, given].map(|browser| browser.session["token_name"].clone()), [json!("red-1"), json!("red-2")]);
}

#[tokio::test]
async fn a_repeated_call_gets_the_same_link_and_nobody_else_gets_it() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant" })).await;
    let (first, second) =
        (link(&world, &world.token, json!({}), "k").await, link(&world, &world.token, json!({}), "k").await);
    assert_eq!(second.header("idempotent-replay"), "true");
    assert_eq!(first.ok::<Value>(201), second.ok::<Value>(201));
    // The keys of an operator in the project `default` are those of its tenants.
    link(&world, &tenant, json!({}), "k").await.refused(422, "key_reused");
    // A used link stays used.
    sign_in(&world, code(&first)).await.ok::<Value>(201);
    let again = link(&world, &world.token, json!({}), "k").await;
    sign_in(&world, code(&again)).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_session_ends_soon_after_another_controller_revoked_its_token() {
    let world = World::new().await;
    let gone = world.make_token(json!({ "role": "tenant", "name": "gone" })).await;
    let browser = Browser::signed_in(&world, with_token(&gone)).await;
    let headers = [("authorization", ""), ("cookie", &*browser.cookie)];
    let mut stream = Followed::with(&world, "", &headers).await;
    let other = world.other_store().await;
    let revoked: Result<bool, StoreError> = other
        .run_tx("test", async |tx| {
            let row = tokens::by_name(tx, "gone").await?.expect("a token");
            tokens::delete(tx, row.id).await
        })
        .await;
    assert!(revoked.expect("revoked"));
    assert!(stream.next().await.is_none(), "it goes on");
    browser.get("/v1/me").await.refused(401, "unauthenticated");
}
