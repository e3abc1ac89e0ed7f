//! A controller without sockets, with a clock that stands until it is moved.

use std::{borrow::Borrow, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use muster_api::{
    DottedName, NodeId, StoreId, Timestamp,
    deployment::Runtime,
    node::PoolUse,
    node_protocol::{Heartbeat, JoinAnswer, JoinRequest, NODE_PROTOCOL, Offer, RUN_HEADER},
};
use muster_controller::{
    app::App,
    build_app, build_app_on,
    config::Config,
    http,
    reconcile::driver,
    store::Store,
    wake::{Loop, Wakes},
};
use muster_pool::{PoolClient, tls::PeerCaller};
use rcgen::{CertificateParams, KeyPair};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{clock::ManualClock, contract};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of an answer of this status; null for none.
    pub(crate) fn value(&self, status: u16) -> Value {
        if self.body.is_empty() && self.status == status { Value::Null } else { self.ok(status) }
    }

    pub(crate) fn ok<T: DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn empty(&self, status: u16) {
        assert_eq!((self.status, self.body.len()), (status, 0), "{self:?}");
    }

    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) app: App,
    pub(crate) clock: ManualClock,
    pub(crate) people: Router,
    pub(crate) nodes: Router,
    pub(crate) token: String,
}

/// An agent, as the controller sees it.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) key: KeyPair,
    pub(crate) store: StoreId,
    pub(crate) name: Option<DottedName>,
    pub(crate) joined: Option<JoinAnswer>,
    pub(crate) caller: Option<PeerCaller>,
}

impl Agent {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self { key, store: StoreId::generate(), name: name.parse().ok(), joined: None, caller: None }
    }

    pub(crate) fn csr(&self) -> String {
        let request = CertificateParams::default().serialize_request(&self.key).expect("a request");
        request.pem().expect("PEM")
    }

    pub(crate) fn join_request(&self) -> JoinRequest {
        JoinRequest {
            protocol: NODE_PROTOCOL,
            name: self.name.clone(),
            store: self.store,
            csr_pem: self.csr(),
            advertise: "127.0.0.1:7500".to_owned(),
            zone: None,
            offer: Offer { cpus: 4, memory_bytes: 1 << 30 },
            runtimes: vec![Runtime::None],
            agent_version: "0.1.0".to_owned(),
            was: None,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.joined.as_ref().expect("joined").node
    }

    pub(crate) fn beat(&self) -> Heartbeat {
        Heartbeat {
            protocol: NODE_PROTOCOL,
            incarnation: self.joined.as_ref().expect("joined").incarnation,
            membership_epoch: 1,
            membership_record: None,
            advertise: "127.0.0.1:7500".to_owned(),
            offer: Offer { cpus: 4, memory_bytes: 1 << 30 },
            pool: PoolUse { limit_bytes: 10 << 30, ..PoolUse::default() },
            conditions: Vec::new(),
            runtimes: vec![Runtime::None],
            hypervisor: None,
            agent_version: "0.1.0".to_owned(),
            traffic: None,
            tunnel: None,
            features: Vec::new(),
            repair: None,
            gone: Vec::new(),
            scrub: None,
            unexplained: None,
            repository: None,
            stopping: false,
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a folder")).await
    }

    /// A controller on this folder, which may have been used before.
    pub(crate) async fn open(dir: tempfile::TempDir) -> Self {
        Self::build(dir, None, |_| {}).await
    }

    /// A controller with other settings than the defaults.
    pub(crate) async fn configured(pool: Option<PoolClient>, change: impl FnOnce(&mut Config)) -> Self {
        Self::build(tempfile::tempdir().expect("a folder"), pool, change).await
    }

    async fn build(dir: tempfile::TempDir, pool: Option<PoolClient>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        change(&mut config);
        let clock = ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000));
        let parts = match pool {
            None => build_app(config, Arc::new(clock.clone()), 7401).await,
            Some(pool) => build_app_on(config, Arc::new(clock.clone()), pool).await,
        };
        let app = parts.expect("builds").app;
        let token = std::fs::read_to_string(dir.path().join("data/admin.token")).expect("the first token");
        let (people, nodes) = (http::routes(app.clone()), http::node_routes(app.clone()));
        Self { dir, app, clock, people, nodes, token: token.trim().to_owned() }
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Request<Body> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(method.clone()).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        if method != Method::PUT && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        request.body(body.into()).expect("a request")
    }

    pub(crate) async fn answer(router: &Router, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (parts, body) = router.clone().oneshot(request).await.expect("answers").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        contract::check(&method, &path, parts.status.as_u16(), &parts.headers, &body);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_body(method, path, headers, body.to_owned()).await
    }

    pub(crate) async fn send_body(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        Self::answer(&self.people, self.request(method, path, headers, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn get_owned(&self, path: String) -> Answer {
        self.get(&path).await
    }

    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Borrow<Value>) -> Answer {
        self.send("POST", path, &[], &body.borrow().to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// The text of a fresh token.
    pub(crate) async fn make_token(&self, wanted: Value) -> String {
        let made: Value = self.post("/v1/tokens", &wanted).await.ok(201);
        made["token"].as_str().expect("its text").to_owned()
    }

    pub(crate) async fn try_join(&self, token: &str, wanted: &JoinRequest) -> Answer {
        let body = serde_json::to_string(wanted).expect("JSON");
        self.send("POST", "/node/v1/join", &[("authorization", &format!("Bearer {token}"))], &body).await
    }

    /// A joined agent that was heard from once.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        let token = self.make_token(serde_json::json!({ "role": "node" })).await;
        let mut agent = Agent::new(name);
        self.join(&mut agent, &token).await;
        self.beat(&agent, &agent.beat()).await.ok::<Value>(200);
        agent
    }

    pub(crate) async fn join(&self, agent: &mut Agent, token: &str) {
        let joined: JoinAnswer = self.try_join(token, &agent.join_request()).await.ok(200);
        let certificates = muster_pool::tls::certificates("certificate", &joined.certificate_pem).expect("PEM");
        let key_sha256 = muster_pool::tls::fingerprint(&certificates[0]).expect("a certificate");
        agent.caller = Some(PeerCaller { key_sha256, expired: false });
        agent.joined = Some(joined);
    }

    /// A call at the node door, as if the handshake had shown `caller`.
    pub(crate) async fn node_call(&self, caller: Option<&PeerCaller>, method: &str, path: &str, body: &str) -> Answer {
        self.node_call_as(caller, "", method, path, body).await
    }

    /// A call of a node's agent process that says which one it is.
    pub(crate) async fn node_call_as(
        &self,
        caller: Option<&PeerCaller>,
        run: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let mut request = self.request(method, path, &[("authorization", ""), (RUN_HEADER, run)], body.to_owned());
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.clone());
        }
        Self::answer(&self.nodes, request).await
    }

    pub(crate) async fn beat(&self, agent: &Agent, beat: &Heartbeat) -> Answer {
        let body = serde_json::to_string(beat).expect("JSON");
        self.node_call(agent.caller.as_ref(), "POST", "/node/v1/heartbeat", &body).await
    }

    /// The database as another controller has it.
    pub(crate) async fn other_store(&self) -> Store {
        let url = self.app.config.database_url();
        Store::open(&url, Arc::new(self.clock.clone()), Wakes::default()).await.expect("another process")
    }

    /// One pass of a loop that succeeds.
    pub(crate) async fn pass(&self, which: Loop) {
        driver::run_pass(&self.app, which).await;
        assert_eq!(self.app.loops.get(which).last_error, None);
    }
}
