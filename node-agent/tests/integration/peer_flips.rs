//! Bits flip in what nodes and controllers ask an agent, after the sender made it, and in its answers. (The calls for objects have
//! such a test in the pool's crate.)

use axum::{Router, body::Body};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use muster_api::{
    DiskId, InstanceId, SnapshotId,
    console::{ConsoleKind, OpenConsole},
    node::ObjectAmount,
    node_protocol::CutKey,
    peer_protocol::{
        CutStep, CutStepRequest, ExecRequest, LOSSES_PATH, LOST_PATH, LostCopies, PeerCall, console_path,
        cut_step_path, exec_path, log_after_path, log_path,
    },
};
use muster_pool::{
    checksum::{CHECKSUM_HEADER, check_answer, of_request},
    tls::PeerCaller,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::support::{TestCluster, chunk};

/// A call and who makes it.
struct Message {
    method: Method,
    path: Vec<u8>,
    body: Vec<u8>,
    stated: HeaderValue,
    caller: PeerCaller,
}

impl Message {
    fn sealed(method: Method, path: &str, body: &impl Serialize, caller: &str) -> Self {
        let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(body).expect("JSON") };
        let (alone, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let stated = of_request(&method, &format!("/{alone}"), query, &HeaderMap::new(), &body);
        let caller = PeerCaller { key_sha256: caller.to_owned(), expired: false };
        Self { method, path: format!("/{path}").into_bytes(), body, stated, caller }
    }

    /// The answer when one bit of this byte of path and body is flipped. None: no HTTP server gets to see such a request.
    async fn answered(&self, router: &Router, flipped: Option<usize>) -> Option<(StatusCode, HeaderMap, Vec<u8>)> {
        let (mut path, mut body) = (self.path.clone(), self.body.clone());
        if let Some(at) = flipped {
            *path.iter_mut().chain(body.iter_mut()).nth(at).expect("as many bytes") ^= 1 << (at % 7);
        }
        let request = Request::builder().method(&self.method).uri(path.as_slice());
        let request = request.header(header::CONTENT_TYPE, "application/json").header(CHECKSUM_HEADER, &self.stated);
        let mut request = request.body(Body::from(body)).ok()?;
        request.extensions_mut().insert(self.caller.clone());
        let (parts, body) = router.clone().oneshot(request).await.expect("answers").into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        Some((parts.status, parts.headers, body.to_vec()))
    }
}

/// A call of this kind. A kind that is new needs a line here.
fn message(call: PeerCall, cluster: &TestCluster) -> Message {
    let (controller, member) = (&cluster.membership.clients[0].key_sha256, &cluster.membership.members[1].key_sha256);
    let instance = InstanceId::generate();
    match call {
        PeerCall::CutStep => {
            let path = cut_step_path(CutKey::new(SnapshotId::generate(), 1), CutStep::Prepare);
            Message::sealed(Method::POST, &path, &CutStepRequest { disks: vec![DiskId::generate()] }, member)
        }
        PeerCall::AcknowledgeLosses => Message::sealed(Method::POST, LOSSES_PATH, &ObjectAmount::default(), controller),
        PeerCall::Lost => {
            let lost = LostCopies::Named(vec![chunk(1).name(), chunk(2).name()]);
            Message::sealed(Method::POST, LOST_PATH, &lost, member)
        }
        PeerCall::Log => Message::sealed(Method::GET, &log_path(instance, 1000), &(), controller),
        PeerCall::LogAfter => Message::sealed(Method::GET, &log_after_path(instance, None, 1000), &(), controller),
        PeerCall::Console => {
            let open = OpenConsole { kind: ConsoleKind::Serial, mode: None, take: None, port: None };
            let path = console_path(instance, &open, std::time::Duration::from_secs(60));
            Message::sealed(Method::GET, &path, &(), controller)
        }
        PeerCall::Exec => {
            let run = ExecRequest { command: vec!["true".to_owned()], stdin_base64: None, timeout_s: 5 };
            Message::sealed(Method::POST, &exec_path(instance), &run, controller)
        }
    }
}

#[tokio::test]
async fn no_flipped_bit_in_a_call_of_a_peer_or_its_answer_is_taken() {
    let cluster = TestCluster::of_memory(2).await;
    let router = TestCluster::router(&cluster.nodes[0], CancellationToken::new());
    for call in PeerCall::ALL {
        let message = message(call, &cluster);
        for byte in 0..message.path.len() + message.body.len() {
            let Some((status, _, body)) = message.answered(&router, Some(byte)).await else { continue };
            let body = String::from_utf8_lossy(&body);
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{call:?}, byte {byte}: {body}");
            assert!(body.contains("was damaged"), "{call:?}, byte {byte}: {body}");
        }
        let (status, headers, body) = message.answered(&router, None).await.expect("a request");
        assert!(!String::from_utf8_lossy(&body).contains("was damaged"), "{call:?}");
        // A console is a stream, and this request is none of a WebSocket.
        check_answer(status, &headers, &body).expect("the answer as it was made");
        assert!(headers.contains_key(CHECKSUM_HEADER), "{call:?}: {status}");
        for bit in 0..8 * body.len() {
            let mut body = body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(check_answer(status, &headers, &body).is_err(), "{call:?}: bit {bit} of the answer");
        }
    }
}
