//! Bits flip in calls of nodes after their sender made them, and in the answers. Nothing of that is taken for what it is not.

use axum::{Router, body::Body};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use muster_api::{
    CommitId, DiskId, InstanceId, RunId, SnapshotId,
    node_protocol::{NodeCall, RUN_HEADER},
};
use muster_pool::{
    checksum::{CHECKSUM_HEADER, check_answer, of_request},
    tls::PeerCaller,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::world::{Agent, World};

/// A call: where it goes, the values of its headers, and its body.
#[derive(Clone)]
struct Message {
    method: Method,
    path: Vec<u8>,
    headers: Vec<(HeaderName, Vec<u8>)>,
    body: Vec<u8>,
}

impl Message {
    /// As an agent sends it.
    fn sealed(call: NodeCall, path: &str, run: &str, body: &[u8]) -> Self {
        let method: Method = call.route().0.parse().expect("a method");
        let headers = HeaderMap::from_iter([(HeaderName::from_static(RUN_HEADER), run.parse().expect("a value"))]);
        let (alone, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let stated = of_request(&method, alone, query, &headers, body);
        let with_checksum =
            headers.iter().map(|(name, value)| (name.clone(), value)).chain([(CHECKSUM_HEADER, &stated)]);
        let headers = with_checksum.map(|(name, value)| (name, value.as_bytes().to_vec())).collect();
        Self { method, path: path.as_bytes().to_vec(), headers, body: body.to_vec() }
    }

    /// Number of bytes that may have a flipped bit.
    fn len(&self) -> usize {
        self.path.len() + self.headers.iter().map(|(_, value)| value.len()).sum::<usize>() + self.body.len()
    }

    fn flipped(&self, byte: usize, bit: usize) -> Self {
        let mut message = self.clone();
        let headers = message.headers.iter_mut().flat_map(|(_, value)| value.iter_mut());
        let mut bytes = message.path.iter_mut().chain(headers).chain(message.body.iter_mut());
        *bytes.nth(byte).expect("as many bytes") ^= 1 << bit;
        message
    }

    /// The answer of a door. None: no HTTP server gets to see such a request.
    async fn answered(
        &self,
        door: &Router,
        caller: &PeerCaller,
        token: &str,
    ) -> Option<(StatusCode, HeaderMap, Vec<u8>)> {
        let mut request = Request::builder().method(&self.method).uri(self.path.as_slice());
        for (name, value) in &self.headers {
            request = request.header(name, HeaderValue::from_bytes(value).ok()?);
        }
        request = request.header("content-type", "application/json").header("authorization", format!("Bearer {token}"));
        let mut request = request.body(Body::from(self.body.clone())).ok()?;
        request.extensions_mut().insert(caller.clone());
        let (parts, body) = door.clone().oneshot(request).await.expect("answers").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Some((parts.status, parts.headers, body.to_vec()))
    }
}

/// A call of this kind. A kind that is new needs a line here.
fn message(call: NodeCall, world: &World, agent: &Agent, run: RunId) -> Message {
    let instance = InstanceId::generate();
    let (path, body) = match call {
        NodeCall::Join => {
            ("/node/v1/join".to_owned(), serde_json::to_value(Agent::new("b").join_request()).expect("JSON"))
        }
        NodeCall::Renew => ("/node/v1/renew".to_owned(), json!({ "csr_pem": agent.csr() })),
        NodeCall::StartRun => {
            let start = json!({
                "protocol": 1, "incarnation": world.app.incarnation(), "run": run, "follows": [], "accepted": false,
                "place": "same", "advertise": "10.0.0.9:7450",
            });
            ("/node/v1/runs".to_owned(), start)
        }
        NodeCall::Heartbeat => ("/node/v1/heartbeat".to_owned(), serde_json::to_value(agent.beat()).expect("JSON")),
        NodeCall::Desired => ("/node/v1/desired?after=0&wait_s=0".to_owned(), Value::Null),
        NodeCall::Report => ("/node/v1/report".to_owned(), json!({ "revision": 1, "instances": [], "full": true })),
        NodeCall::Boot => (format!("/node/v1/boots/{instance}"), json!({ "disk": instance, "chunks": [1, 2, 3] })),
        NodeCall::BootOrder => (format!("/node/v1/boots/{instance}/{}", DiskId::generate()), Value::Null),
        NodeCall::Cut => (format!("/node/v1/cuts/{}", SnapshotId::generate()), json!({ "attempt": 1 })),
        NodeCall::Stage => {
            (format!("/node/v1/commits/{}", CommitId::generate()), json!({ "attempt": 1, "generation": 17 }))
        }
        NodeCall::CommitTrouble => {
            let trouble = json!({ "reason": "no_capacity", "detail": "it is full", "hopeless": false });
            (format!("/node/v1/commits/{}", CommitId::generate()), trouble)
        }
        NodeCall::Outcome => (format!("/node/v1/commits/{}", CommitId::generate()), Value::Null),
        NodeCall::SalvageOrder => ("/node/v1/salvage".to_owned(), Value::Null),
        NodeCall::Salvaged => (format!("/node/v1/salvage/{}", DiskId::generate()), json!({ "state": "saved" })),
        NodeCall::SweepDead => (format!("/node/v1/sweep/3/dead?after={}", "ab".repeat(32)), Value::Null),
        NodeCall::SweepJudge => ("/node/v1/sweep/3/judge".to_owned(), json!("thirty-two bytes of a name, once")),
        NodeCall::SweepDone => {
            ("/node/v1/sweep/3/done".to_owned(), json!({ "objects": 1, "bytes": 2, "reclaimed_bytes": 3 }))
        }
        NodeCall::Repository => ("/node/v1/repository".to_owned(), Value::Null),
    };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Message::sealed(call, &path, &run.to_string(), &body)
}

fn is_called_damaged(body: &[u8]) -> bool {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    problem["detail"].as_str().is_some_and(|detail| detail.contains("was damaged"))
}

#[tokio::test]
async fn no_flipped_bit_in_a_call_of_a_node_or_its_answer_is_taken() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let token = world.make_token(json!({ "role": "node" })).await;
    let run = RunId::generate();
    let caller = agent.caller.clone().expect("it has joined");
    for call in NodeCall::ALL {
        let door = if call == NodeCall::Join { &world.people } else { &world.nodes };
        let message = message(call, &world, &agent, run);
        let before: Value = world.get("/v1/nodes").await.ok(200);
        for byte in 0..message.len() {
            let flipped = message.flipped(byte, byte % 7);
            let Some((status, _, body)) = flipped.answered(door, &caller, &token).await else { continue };
            let body = String::from_utf8_lossy(&body);
            // That a node was not declared dead is found out before the body is read.
            if call == NodeCall::Salvaged && status == StatusCode::FORBIDDEN {
                continue;
            }
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{call:?}, byte {byte}: {body}");
            assert!(is_called_damaged(body.as_bytes()), "{call:?}, byte {byte}: {body}");
        }
        let now: Value = world.get("/v1/nodes").await.ok(200);
        assert_eq!(now["items"], before["items"], "{call:?} changed something");
        let (status, headers, body) = message.answered(door, &caller, &token).await.expect("a request");
        assert!(!is_called_damaged(&body), "{call:?}: {}", String::from_utf8_lossy(&body));
        check_answer(status, &headers, &body).expect("the answer as it was made");
        for byte in 0..body.len() {
            let mut body = body.clone();
            body[byte] ^= 1 << (byte % 8);
            assert!(check_answer(status, &headers, &body).is_err(), "{call:?}: byte {byte} of the answer");
        }
    }
}
