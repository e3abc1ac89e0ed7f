//! Consoles: tickets, and the way through the controller to a node. The node here repeats what it hears; it stands for an
//! agent, whose WebSockets the controller does not look into.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, Request},
    http::{HeaderMap, StatusCode},
    response::{AppendHeaders, IntoResponse as _, Response},
    routing::get,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use muster_controller::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::harness::{MIB, Node, World};
use crate::clock::ManualClock;

const WAIT: Duration = Duration::from_secs(30);
/// The key of RFC 6455's example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A node that opens every console but that of port 23, and refuses what is no WebSocket.
async fn console(headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>, mut request: Request) -> Response {
    if query.get("port").is_some_and(|port| port == "23") {
        let problem = json!({ "detail": "the guest does not answer on port 23" });
        return (StatusCode::GATEWAY_TIMEOUT, problem.to_string()).into_response();
    }
    assert_eq!(
        (&headers["sec-websocket-key"], &headers["upgrade"]),
        (&KEY.parse().unwrap(), &"websocket".parse().unwrap())
    );
    assert_eq!(query["idle_s"], "1800");
    let client = request.extensions_mut().remove::<OnUpgrade>().expect("an upgrade");
    tokio::spawn(async move {
        let mut client = TokioIo::new(client.await.expect("upgraded"));
        client.write_all(query["kind"].as_bytes()).await.expect("sent");
        let (mut from, mut to) = tokio::io::split(client);
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let said = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "from the node")];
    (StatusCode::SWITCHING_PROTOCOLS, AppendHeaders(said)).into_response()
}

/// A deployment of one with guests, and the people's door on a socket.
struct Bench {
    world: World,
    clock: ManualClock,
    door: SocketAddr,
    _node: Node,
}

impl Bench {
    async fn new() -> Self {
        // From now on, because certificates have to be valid.
        let clock = ManualClock::at(SystemClock.now());
        let world = World::with_clock(Arc::new(clock.clone())).await;
        world.image("debian", MIB).await;
        let routes = Router::new().route("/peer/v1/instances/{instance}/console", get(console));
        let node = world.node_with_peer_server("n0", routes).await;
        let order = json!({ "name": "web", "source": { "image": "debian" }, "count": 1 });
        world.ends(&world.deploy(order).await.expect(202), "succeeded").await;
        let door = world.listen().await;
        Self { world, clock, door, _node: node }
    }

    async fn ticket(&self, token: &str, body: Value) -> String {
        let ticket = self.world.call_as(token, "POST", "/v1/instances/web.0/console", body, &[]).await.expect(201);
        ticket.text("/url").to_owned()
    }

    /// Opens a ticket's URL as a browser does, without a token.
    async fn open(&self, url: &str) -> reqwest::Response {
        self.open_from(url, None).await
    }

    async fn open_from(&self, url: &str, origin: Option<&str>) -> reqwest::Response {
        let headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        let request = reqwest::Client::new().get(format!("http://{}{url}", self.door)).header("sec-websocket-key", KEY);
        let request = origin.iter().fold(request, |request, origin| request.header("origin", *origin));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        timeout(WAIT, request.send()).await.expect("in time").expect("an answer")
    }

    async fn refused(&self, url: &str) -> (u16, Value) {
        let answer = self.open(url).await;
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("a body")).expect("a problem"))
    }
}

async fn hear(stream: &mut reqwest::Upgraded, bytes: usize) -> String {
    let mut heard = vec![0; bytes];
    timeout(WAIT, stream.read_exact(&mut heard)).await.expect("in time").expect("read");
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_a_console_once_and_the_opening_is_an_event() {
    let bench = Bench::new().await;
    let url = bench.ticket(&bench.world.token, json!({ "kind": "serial" })).await;
    let answer = bench.open(&url).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], "from the node");
    let mut stream = answer.upgrade().await.unwrap();
    assert_eq!(hear(&mut stream, 6).await, "serial");
    stream.write_all(b"typed").await.unwrap();
    assert_eq!(hear(&mut stream, 5).await, "typed");
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(WAIT, stream.read(&mut [0])).await.expect("in time").unwrap(), 0);

    let (status, problem) = bench.refused(&url).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("unauthenticated")), "{problem}");
    let events = bench
        .world
        .call_as(&bench.world.token, "GET", "/v1/events?limit=1000", Value::Null, &[("accept", "application/json")])
        .await;
    let opened = events.body["items"].as_array().unwrap().iter();
    let opened: Vec<_> = opened.filter(|event| event["kind"] == "instance.console_opened").collect();
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!((&opened[0]["target"]["name"], &opened[0]["data"]["console"]), (&json!("web.0"), &json!("serial")));
    assert!(!events.body.to_string().contains(url.split_once('=').unwrap().1), "the secret is told to nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_ends_with_the_token_that_asked_for_it() {
    let bench = Bench::new().await;
    let tenant = bench.world.token(json!({ "role": "tenant", "name": "guest" })).await;
    let (used, kept) = (json!({ "kind": "vnc" }), json!({ "kind": "port", "port": 22 }));
    let (used, kept) = (bench.ticket(&tenant, used).await, bench.ticket(&tenant, kept).await);
    let mut stream = bench.open(&used).await.upgrade().await.unwrap();
    assert_eq!(hear(&mut stream, 3).await, "vnc");
    bench.world.delete("/v1/tokens/guest").await.expect(204);
    let end = timeout(WAIT, stream.read(&mut [0])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(bench.refused(&kept).await.0, 401, "a ticket is worth no more than its token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_are_for_running_guests_of_the_own_project_and_for_a_minute() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let path = "/v1/instances/web.0/console";
    for bad in [
        json!({ "kind": "port" }),
        json!({ "kind": "vnc", "take": true }),
        json!({ "kind": "serial", "mode": "read", "take": true }),
        json!({ "kind": "radio" }),
        json!({}),
    ] {
        assert_eq!(world.post(path, bad.clone()).await.status, 422, "{bad}");
    }
    let stranger = world.token(json!({ "role": "tenant", "project": "other" })).await;
    world.call_as(&stranger, "POST", path, json!({ "kind": "serial" }), &[]).await.refused(404, "not_found");

    // What the node says of the guest comes to the client.
    let closed = bench.ticket(&world.token, json!({ "kind": "port", "port": 23 })).await;
    let (status, problem) = bench.refused(&closed).await;
    assert_eq!((status, problem["detail"].as_str()), (409, Some("web.0: the guest does not answer on port 23")));
    // A script in a browser sees no refusal of a WebSocket, so it is told in one.
    let closed = bench.ticket(&world.token, json!({ "kind": "port", "port": 23 })).await;
    let mut told = bench.open_from(&closed, Some("https://muster.example")).await.upgrade().await.unwrap();
    let said = r#"{"event":"ended","reason":"web.0: the guest does not answer on port 23"}"#;
    // A frame with a text, by RFC 6455: a byte for its kind and one for its length.
    assert!(hear(&mut told, 2 + said.len()).await.ends_with(said));
    // A browser that merely follows the link opens nothing.
    let url = bench.ticket(&world.token, json!({ "kind": "serial" })).await;
    world.get(&url).await.refused(400, "bad_request");
    bench.clock.advance_ms(60_000);
    assert_eq!(bench.refused(&url).await.0, 401, "it was not used up, but it is too old");
    assert_eq!(bench.refused("/v1/consoles?ticket=").await.0, 401);

    let url = bench.ticket(&world.token, json!({ "kind": "serial" })).await;
    world.ends(&world.post("/v1/instances/web.0/stop", json!({})).await.expect(202), "succeeded").await;
    assert_eq!(bench.refused(&url).await.1["code"], "wrong_state");
    let stopped = world.post(path, json!({ "kind": "serial" })).await.refused(409, "wrong_state");
    assert!(stopped.text("/detail").contains("stopped"), "{stopped:?}");
}
