//! A controller in this process, and fake agents that behave as a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, BodyDataStream},
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use muster_api::{
    CommitId, DiskId, ImageId, InstanceId, Labels, NodeId, Reason, StoreId, Timestamp, VersionId,
    condition::{Condition, ConditionKind},
    deployment::Runtime,
    firmware::BootKind,
    firmware::{Firmware, MachineFeature},
    guest::Guest,
    node::PoolUse,
    node_protocol::{
        AbsentDisk, Assignment, CommitOutcome, CommitTrouble, CutMember, CutPhase, CutReport, CutResult, Desired,
        DiskAssignment, DiskReport, Heartbeat, Incarnation, InstanceReport, JoinAnswer, JoinRequest, NODE_PROTOCOL,
        Observed, Offer, Report, StagedCommit, Unexplained, VersionRoot, Wanted, sweep::names_to_bytes,
    },
};
use muster_controller::{
    app::App,
    clock::Clock,
    config::Config,
    domain::{images::Properties, versions::Content},
    http::{node_routes, routes},
    reconcile::driver,
    store::{
        DatabaseUrl,
        images::{self, NewImage},
        versions::{self, NewVersion, Of},
    },
};
use muster_pool::{
    PoolClient, ServeLimits, serve,
    tls::{Ca, ClientCertificates, Identity, PeerCaller, server_config},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use storage_core::{
    ByteLen, ChunkSize, ChunkStore, Compression, Descriptor, Kind, MemoryStore, ObjectName, Record, Salt,
    tree::{Leaf, Page},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

pub(crate) const MIB: u64 = 1 << 20;

/// Both doors of the controller that runs at the moment.
type Doors = Arc<RwLock<Option<(Router, Router)>>>;

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) token: String,
    clock: Arc<dyn Clock>,
    doors: Doors,
    stop: CancellationToken,
    loops: TaskTracker,
    config: Config,
    /// The pool, if the controller does not ask the nodes' peer servers for objects.
    store: Option<Arc<MemoryStore>>,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
    /// The body as it was sent.
    pub(crate) raw: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}: {self:?}"))
    }

    pub(crate) fn number(&self, pointer: &str) -> u64 {
        self.body.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {pointer}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.text("/code")), (status, code), "{:#}", self.body);
        self
    }
}

async fn send(router: Router, request: Request<Body>) -> Reply {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    crate::contract::check(&method, &path, parts.status.as_u16(), &parts.headers, &bytes);
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Reply { status: parts.status.as_u16(), body, headers: parts.headers, raw: bytes.to_vec() }
}

async fn open(config: Config, clock: Arc<dyn Clock>, store: Option<Arc<MemoryStore>>) -> App {
    match store {
        None => muster_controller::build_app(config, clock, 1).await.unwrap().app,
        Some(store) => {
            let parts = muster_controller::build_app_on(config, clock, PoolClient::local_only(store)).await.unwrap();
            // As after a start with a new database.
            parts.app.store.run_tx("test.membership", async |tx| parts.app.refresh_membership(tx).await).await.unwrap();
            parts.app
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_clock(Arc::new(muster_controller::clock::SystemClock)).await
    }

    pub(crate) async fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::open(clock, Config::default(), None).await
    }

    /// One whose configuration has these values.
    pub(crate) async fn configured(config: Config) -> Self {
        Self::open(Arc::new(muster_controller::clock::SystemClock), config, None).await
    }

    /// One with a pool in memory.
    pub(crate) async fn with_pool(store: Arc<MemoryStore>) -> Self {
        Self::open(Arc::new(muster_controller::clock::SystemClock), Config::default(), Some(store)).await
    }

    /// The same on another database than the file.
    pub(crate) async fn on(database: DatabaseUrl) -> Self {
        Self::configured(Config { database: Some(database), ..Config::default() }).await
    }

    async fn open(clock: Arc<dyn Clock>, config: Config, store: Option<Arc<MemoryStore>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..config };
        let app = open(config.clone(), clock.clone(), store.clone()).await;
        let token = std::fs::read_to_string(dir.path().join("admin.token")).unwrap().trim().to_owned();
        let mut world = Self {
            app,
            token,
            clock,
            doors: Doors::default(),
            stop: CancellationToken::new(),
            loops: TaskTracker::new(),
            config,
            store,
            _dir: dir,
        };
        world.serve();
        world
    }

    fn serve(&mut self) {
        *self.doors.write().unwrap() = Some((routes(self.app.clone()), node_routes(self.app.clone())));
        self.stop = CancellationToken::new();
        self.loops = TaskTracker::new();
        driver::start(&self.app, &self.loops, &self.stop);
        self.loops.close();
    }

    /// Ends the controller as a kill would, and opens the same file again.
    pub(crate) async fn restart(&mut self) {
        self.doors.write().unwrap().take();
        self.stop.cancel();
        self.app.closing.cancel();
        self.loops.wait().await;
        self.app.store.close().await;
        self.app = open(self.config.clone(), self.clock.clone(), self.store.clone()).await;
        self.serve();
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call_as(&self.token, method, path, body, &[]).await
    }

    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Reply {
        let router = self.people();
        let mut request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        if method != "PUT" {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => Body::empty(),
            Value::String(raw) => Body::from(raw),
            json => Body::from(json.to_string()),
        };
        send(router, request.body(body).unwrap()).await
    }

    fn people(&self) -> Router {
        self.doors.read().unwrap().as_ref().unwrap().0.clone()
    }

    /// Opens the people's door on a socket, without TLS, for what needs a connection.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, None, self.people(), self.stop.clone(), ServeLimits::default()));
        address
    }

    /// The body of an answer of any length that is read as it comes.
    pub(crate) async fn followed(&self, token: &str, path: &str) -> BodyDataStream {
        let router = self.people();
        let request = Request::builder().uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
        response.into_body().into_data_stream()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, Value::Null).await
    }

    /// Waits for an operation's end and checks how it ended.
    pub(crate) async fn ends(&self, operation: &Reply, state: &str) -> Reply {
        let path = format!("/v1/operations/{}", operation.text("/id"));
        let reply = eventually("the operation to end", async || {
            let reply = self.get(&format!("{path}?wait=2s")).await;
            (!reply.body["finished_at"].is_null()).then_some(reply)
        })
        .await;
        assert_eq!(reply.text("/state"), state, "{:#}", reply.body);
        reply
    }

    pub(crate) async fn token(&self, body: Value) -> String {
        self.post("/v1/tokens", body).await.expect(201).text("/token").to_owned()
    }

    /// An image with one version of zeros.
    pub(crate) async fn image(&self, name: &str, size: u64) -> VersionId {
        let descriptor = Descriptor::empty(ByteLen(size), ChunkSize::DEFAULT, Salt::SHARED);
        self.image_of(name, Content::new(descriptor, None).unwrap()).await
    }

    /// An image with one version.
    pub(crate) async fn image_of(&self, name: &str, content: Content) -> VersionId {
        let (image, version) = (ImageId::generate(), VersionId::generate());
        self.app
            .store
            .run_tx("test.image", async |tx| {
                let new = NewImage {
                    id: image,
                    name: name.to_owned(),
                    project: "default".to_owned(),
                    labels: Labels::default(),
                    chunk_bytes: 256 << 10,
                    properties: Properties::default(),
                };
                images::insert(tx, &new).await?;
                let new = NewVersion {
                    id: version,
                    project: "default".to_owned(),
                    labels: Labels::default(),
                    of: Of::Image { image, number: 1 },
                    parent: None,
                    content: content.clone(),
                    digest: None,
                    stored_bytes: 0,
                    reached_bytes: None,
                    boot: BootKind::Unknown,
                    firmware: Firmware::Bios,
                    upload: None,
                };
                versions::insert(tx, &new).await?;
                images::settle(tx, image).await
            })
            .await
            .unwrap();
        version
    }

    /// Joins `count` nodes with an agent each: 8 processors and 4 GiB.
    pub(crate) async fn nodes(&self, count: u32) -> Vec<Node> {
        let mut nodes = Vec::new();
        for n in 0..count {
            nodes.push(self.node(&format!("n{n}"), Offer { cpus: 8, memory_bytes: 4096 * MIB }).await);
        }
        nodes
    }

    pub(crate) async fn node(&self, name: &str, offer: Offer) -> Node {
        self.node_at(name, offer, "127.0.0.1:9".to_owned()).await.0
    }

    /// A node whose peer server has these routes.
    pub(crate) async fn node_with_peer_server(&self, name: &str, routes: Router) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let offer = Offer { cpus: 8, memory_bytes: 4096 * MIB };
        let (node, identity, ca) = self.node_at(name, offer, listener.local_addr().unwrap().to_string()).await;
        let tls = server_config(&identity, &ca, ClientCertificates::Current).unwrap();
        tokio::spawn(serve(listener, Some(tls), routes, self.stop.clone(), ServeLimits::default()));
        node
    }

    async fn node_at(&self, name: &str, offer: Offer, advertise: String) -> (Node, Identity, Ca) {
        let token = self.token(json!({ "role": "node" })).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let wanted = JoinRequest {
            protocol: NODE_PROTOCOL,
            name: Some(name.parse().unwrap()),
            store: StoreId::generate(),
            csr_pem: csr,
            advertise: advertise.clone(),
            zone: None,
            offer,
            runtimes: vec![Runtime::Libvirt, Runtime::None],
            agent_version: "0.1.0".to_owned(),
            was: None,
        };
        let body = serde_json::to_value(&wanted).unwrap();
        let reply = self.call_as(&token, "POST", "/node/v1/join", body, &[]).await.expect(200);
        let answer: JoinAnswer = serde_json::from_value(reply.body).unwrap();
        let certificate = CertificateDer::from_pem_slice(answer.certificate_pem.as_bytes()).unwrap();
        let agent = Agent {
            id: answer.node,
            key_sha256: muster_pool::tls::fingerprint(&certificate).unwrap(),
            incarnation: Mutex::new(answer.incarnation),
            advertise,
            offer,
            doors: self.doors.clone(),
            script: Mutex::default(),
            seen: Mutex::default(),
            reporting: tokio::sync::Mutex::default(),
        };
        let agent = Arc::new(agent);
        agent.beat().await;
        let task = tokio::spawn(agent.clone().run());
        let identity = Identity::from_pem(&answer.certificate_pem, &key.serialize_pem()).unwrap();
        (Node { agent, task }, identity, Ca::from_pem(&answer.ca_pem).unwrap())
    }

    pub(crate) async fn deploy(&self, body: Value) -> Reply {
        self.post("/v1/deployments", body).await
    }

    /// A deployment of runtime none that is ready.
    pub(crate) async fn ready(&self, name: &str, count: u64) -> Reply {
        let order = json!({ "name": name, "source": { "image": "debian" }, "count": count, "runtime": "none" });
        let operation = self.deploy(order).await.expect(202);
        self.ends(&operation, "succeeded").await;
        self.get(&format!("/v1/deployments/{name}")).await.expect(200)
    }
}

/// Waits until something is true, at most a minute: the machine may be busy with other tests.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How an agent behaves.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// It does nothing and reports nothing.
    pub(crate) mute: bool,
    /// Instances that it never gets to run.
    pub(crate) stuck: BTreeSet<String>,
    /// Instances that run and are not ready.
    pub(crate) slow: BTreeSet<String>,
    /// The time of these to be ready is over.
    pub(crate) gave_up: bool,
    /// It cannot start anything.
    pub(crate) fails: bool,
    /// Its guests have ended by themselves.
    pub(crate) ends: bool,
    /// Its guests do not turn off in time, so that their power is cut.
    pub(crate) cuts_power: bool,
    /// Its libvirt does not answer, as its next heartbeat tells.
    pub(crate) hypervisor_silent: bool,
    /// Where it takes packets of networks from other nodes.
    pub(crate) tunnel: Option<String>,
    pub(crate) features: Vec<MachineFeature>,
    /// The next cuts it coordinates are refused for this reason.
    pub(crate) refuse_cuts: Vec<Reason>,
    /// What the guest agents of its guests tell.
    pub(crate) guest: Option<Guest>,
    /// It knows how to freeze guests.
    pub(crate) freezes: bool,
    /// It commits nothing.
    pub(crate) saves: bool,
    /// Bytes its guests wrote.
    pub(crate) dirty_bytes: u64,
    /// Its guests write nothing more once something of theirs was saved.
    pub(crate) settles: bool,
    /// It is an agent that neither grows disks nor takes them from guests.
    pub(crate) old: bool,
    /// It grows disks.
    pub(crate) grows: bool,
    /// Its guests let disks go.
    pub(crate) lets_go: bool,
    /// It removes its copies of disks that left their instances.
    pub(crate) removes: bool,
    /// Names of disks that it cannot make.
    pub(crate) unmade: Vec<String>,
    /// Where it stores what its commits consist of; nowhere otherwise.
    pub(crate) pool: Option<Arc<MemoryStore>>,
    /// Objects that it lost and nobody has.
    pub(crate) gone: Vec<ObjectName>,
    /// It reports the versions that its disks began with, whatever was published since.
    pub(crate) lags: bool,
    /// Its copies of disks are those of the generation before, whatever was put in place.
    pub(crate) keeps: bool,
    /// What its next heartbeats say that nothing explains; an older agent says nothing.
    pub(crate) unexplained: Option<Unexplained>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            mute: false,
            stuck: BTreeSet::new(),
            slow: BTreeSet::new(),
            gave_up: false,
            fails: false,
            ends: false,
            cuts_power: false,
            hypervisor_silent: false,
            tunnel: None,
            features: Vec::new(),
            refuse_cuts: Vec::new(),
            guest: None,
            freezes: true,
            saves: true,
            dirty_bytes: 0,
            settles: false,
            old: false,
            grows: true,
            lets_go: true,
            removes: true,
            unmade: Vec::new(),
            pool: None,
            gone: Vec::new(),
            lags: false,
            keeps: false,
            unexplained: None,
        }
    }
}

/// What an agent remembers.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) desired: Option<Desired>,
    /// What was last reported of each instance, and what was wanted of it then.
    reported: BTreeMap<InstanceId, (Assignment, InstanceReport)>,
    cut: BTreeSet<(muster_api::SnapshotId, u32)>,
    pub(crate) outcomes: BTreeMap<CommitId, CommitOutcome>,
    pub(crate) coordinated: Vec<u32>,
    saved: u64,
    /// The versions that disks began with here.
    began: BTreeMap<DiskId, VersionId>,
}

pub(crate) struct Agent {
    pub(crate) id: NodeId,
    key_sha256: String,
    incarnation: Mutex<Incarnation>,
    advertise: String,
    offer: Offer,
    doors: Doors,
    pub(crate) script: Mutex<Script>,
    pub(crate) seen: Mutex<Seen>,
    /// Held from the look until the report is answered, so that no older report comes after a newer one.
    reporting: tokio::sync::Mutex<()>,
}

pub(crate) struct Node {
    pub(crate) agent: Arc<Agent>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Node {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

impl Agent {
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub(crate) fn desired(&self) -> Desired {
        self.seen.lock().unwrap().desired.clone().unwrap()
    }

    /// A call at the node door; 503 while no controller is there.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call_with(method, path, &[], body).await
    }

    /// As [`Self::call`], with these headers.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Value,
    ) -> Reply {
        let router = self.doors.read().unwrap().as_ref().map(|doors| doors.1.clone());
        let Some(router) = router else {
            return Reply { status: 503, body: Value::Null, headers: HeaderMap::new(), raw: Vec::new() };
        };
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("/node/v1/{path}"));
        let mut request = request.header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        request.extensions_mut().insert(PeerCaller { key_sha256: self.key_sha256.clone(), expired: false });
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        send(router, request).await
    }

    pub(crate) async fn beat(&self) {
        self.send_beat(&self.heartbeat()).await;
    }

    /// Newest revision of its desired state, which it may not have been told yet.
    pub(crate) async fn newest_revision(&self) -> u64 {
        self.send_beat(&self.heartbeat()).await.expect(200).number("/desired_revision")
    }

    /// The last heartbeat of an agent that ends in order.
    pub(crate) async fn say_farewell(&self) {
        self.send_beat(&Heartbeat { stopping: true, ..self.heartbeat() }).await;
    }

    async fn send_beat(&self, beat: &Heartbeat) -> Reply {
        self.call("POST", "heartbeat", serde_json::to_value(beat).unwrap()).await
    }

    fn heartbeat(&self) -> Heartbeat {
        let (silent, tunnel, features) = {
            let script = self.script.lock().unwrap();
            (script.hypervisor_silent, script.tunnel.clone(), script.features.clone())
        };
        let (gone, unexplained) = {
            let script = self.script.lock().unwrap();
            (script.gone.clone(), script.unexplained)
        };
        let condition =
            || Condition { kind: ConditionKind::HypervisorSilent, detail: "no answer within 3s".to_owned() };
        Heartbeat {
            protocol: NODE_PROTOCOL,
            incarnation: *self.incarnation.lock().unwrap(),
            membership_epoch: 0,
            membership_record: None,
            advertise: self.advertise.clone(),
            offer: self.offer,
            pool: PoolUse { limit_bytes: 1 << 40, ..PoolUse::default() },
            conditions: silent.then(condition).into_iter().collect(),
            runtimes: if silent { vec![Runtime::None] } else { vec![Runtime::Libvirt, Runtime::None] },
            hypervisor: (!silent).then(|| "qemu".to_owned()),
            agent_version: "0.1.0".to_owned(),
            traffic: None,
            tunnel,
            features,
            repair: None,
            gone,
            scrub: None,
            unexplained,
            repository: None,
            stopping: false,
        }
    }

    async fn run(self: Arc<Self>) {
        let mut revision = 0;
        loop {
            let wait = if self.script.lock().unwrap().mute { 0 } else { 2 };
            let reply = self.call("GET", &format!("desired?after={revision}&wait_s={wait}"), Value::Null).await;
            if reply.status == StatusCode::OK.as_u16() {
                let desired: Desired = serde_json::from_value(reply.body).unwrap();
                revision = desired.revision;
                self.seen.lock().unwrap().desired = Some(desired);
            } else if reply.status != StatusCode::NO_CONTENT.as_u16() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if self.script.lock().unwrap().mute {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            self.act().await;
        }
    }

    /// Does what the desired state says and reports it.
    pub(crate) async fn act(&self) {
        let reporting = self.reporting.lock().await;
        let (desired, script) = {
            let seen = self.seen.lock().unwrap();
            (seen.desired.clone(), self.script.lock().unwrap().clone())
        };
        let Some(desired) = desired else { return };
        let reports: Vec<InstanceReport> = {
            let mut seen = self.seen.lock().unwrap();
            for disk in desired.assignments.iter().flat_map(|a| &a.disks) {
                seen.began.entry(disk.disk).or_insert(disk.version);
            }
            let observed = |a: &Assignment| {
                let old = seen.reported.get(&a.instance).map(|(_, old)| old);
                of_the_same_start(old, with_disks(observe(a, &script), a, &script, old, &seen.began))
            };
            desired
                .assignments
                .iter()
                .map(|a| (a, observed(a)))
                .filter(|(a, report)| {
                    let old = seen.reported.get(&report.instance);
                    old.is_none_or(|(of, old)| of != *a || !same(old, report))
                })
                .map(|(_, report)| report)
                .collect()
        };
        if !reports.is_empty() && self.report(&desired, false, reports.clone()).await.status < 300 {
            let mut seen = self.seen.lock().unwrap();
            for report in reports {
                let of = desired.assignments.iter().find(|of| of.instance == report.instance).unwrap().clone();
                seen.reported.insert(report.instance, (of, report));
            }
        }
        drop(reporting);
        for order in desired.cuts {
            if let (Some(nodes), CutPhase::Cut) = (&order.coordinate, order.phase)
                && self.seen.lock().unwrap().cut.insert((order.snapshot, order.attempt))
            {
                self.seen.lock().unwrap().coordinated.push(order.attempt);
                let refusal = {
                    let mut script = self.script.lock().unwrap();
                    if script.refuse_cuts.is_empty() { None } else { Some(script.refuse_cuts.remove(0)) }
                };
                let outcome = match refusal {
                    Some(reason) => CutResult::Failed { reason, detail: "as told".to_owned() },
                    None => CutResult::Flipped {
                        cut_at: now(),
                        members: flipped(nodes.iter().flat_map(|n| &n.disks)),
                        frozen: order.freeze && script.freezes,
                    },
                };
                let report = CutReport { attempt: order.attempt, outcome };
                let body = serde_json::to_value(&report).unwrap();
                self.call("POST", &format!("cuts/{}", order.snapshot), body).await;
            }
            if !script.saves {
                continue;
            }
            for disk in &order.disks {
                let base = desired.assignments.iter().flat_map(|a| &a.disks).find(|d| d.disk == disk.disk);
                let Some(base) = base else { continue };
                let staged = StagedCommit {
                    snapshot: order.snapshot,
                    attempt: order.attempt,
                    disk: disk.disk,
                    generation: disk.generation,
                    base: base.version,
                    upload: order.upload,
                    root: match &script.pool {
                        None => self.root(base.size_bytes),
                        Some(pool) => self.root_in(pool, base.size_bytes, order.round),
                    },
                    dirty_bytes: 4096,
                    stored_bytes: 4096,
                };
                self.stage(disk.commit, &staged).await;
            }
        }
    }

    /// Content that no version had before.
    pub(crate) fn root(&self, size: u64) -> VersionRoot {
        let page = {
            let mut seen = self.seen.lock().unwrap();
            seen.saved += 1;
            format!("page {} of {}", seen.saved, self.id).into_bytes()
        };
        let root = Some(ObjectName::of(Kind::Page, Salt::SHARED, &page));
        let descriptor = Descriptor { root, ..Descriptor::empty(ByteLen(size), ChunkSize::DEFAULT, Salt::SHARED) };
        VersionRoot { descriptor: hex::encode(descriptor.encode()), root_page: Some(hex::encode(page)), commit: None }
    }

    /// The same, stored in the pool.
    fn root_in(&self, pool: &MemoryStore, size: u64, round: u64) -> VersionRoot {
        let body = {
            let mut seen = self.seen.lock().unwrap();
            seen.saved += 1;
            format!("chunk {} of {}", seen.saved, self.id).into_bytes()
        };
        let content = stored(pool, size, &[body], round);
        VersionRoot {
            descriptor: hex::encode(content.descriptor().encode()),
            root_page: content.root_page().map(hex::encode),
            commit: None,
        }
    }

    /// Tells all instances that it has, under its newest desired state.
    pub(crate) async fn tell_whole(&self) {
        eventually("a report of the newest desired state", async || {
            let newest = self.newest_revision().await;
            let desired = self.seen.lock().unwrap().desired.clone().filter(|desired| desired.revision == newest)?;
            self.act().await;
            let reports = self.seen.lock().unwrap().reported.values().map(|(_, report)| report.clone()).collect();
            (self.report(&desired, true, reports).await.status < 300).then_some(())
        })
        .await;
    }

    /// Its next heartbeats say that it has seen this incarnation.
    pub(crate) async fn has_seen(&self, incarnation: Incarnation) {
        *self.incarnation.lock().unwrap() = incarnation;
        self.beat().await;
    }

    /// Learns which incarnation the controller is at, and forgets that it saw a later one.
    pub(crate) async fn learn_incarnation(&self) {
        let answer = self.send_beat(&self.heartbeat()).await.expect(200).body;
        *self.incarnation.lock().unwrap() = serde_json::from_value(answer["incarnation"].clone()).unwrap();
        self.beat().await;
    }

    /// A call of the sweep at the node door, whose body is names.
    pub(crate) async fn sweep_call(&self, method: &str, path: &str, names: &[ObjectName]) -> Reply {
        let router = self.doors.read().unwrap().as_ref().map(|doors| doors.1.clone()).unwrap();
        let request = Request::builder().method(method).uri(format!("/node/v1/sweep/{path}"));
        let mut request = request.body(Body::from(names_to_bytes(names))).unwrap();
        request.extensions_mut().insert(PeerCaller { key_sha256: self.key_sha256.clone(), expired: false });
        send(router, request).await
    }

    /// The round that a heartbeat is answered with.
    pub(crate) async fn named_round(&self) -> Option<u64> {
        self.send_beat(&self.heartbeat()).await.expect(200).body.pointer("/sweep/round").and_then(Value::as_u64)
    }

    pub(crate) async fn stage(&self, commit: CommitId, staged: &StagedCommit) -> Reply {
        let body = serde_json::to_value(staged).unwrap();
        let reply = self.call("PUT", &format!("commits/{commit}"), body).await;
        if let Ok(outcome) = serde_json::from_value::<CommitOutcome>(reply.body.clone()) {
            self.seen.lock().unwrap().outcomes.insert(commit, outcome);
        }
        reply
    }

    pub(crate) async fn trouble(&self, commit: CommitId, trouble: &CommitTrouble) -> Reply {
        self.call("POST", &format!("commits/{commit}"), serde_json::to_value(trouble).unwrap()).await
    }

    pub(crate) async fn outcome(&self, commit: CommitId) -> CommitOutcome {
        let reply = self.call("GET", &format!("commits/{commit}"), Value::Null).await.expect(200);
        serde_json::from_value(reply.body).unwrap()
    }

    pub(crate) async fn report(&self, desired: &Desired, full: bool, instances: Vec<InstanceReport>) -> Reply {
        let report = Report { desired_revision: desired.revision, full, instances };
        self.call("POST", "report", serde_json::to_value(&report).unwrap()).await
    }

    pub(crate) fn assignment(&self, name: &str) -> Option<Assignment> {
        let seen = self.seen.lock().unwrap();
        seen.desired.as_ref()?.assignments.iter().find(|a| a.name == name).cloned()
    }
}

/// Content of this size that begins with these chunks, stored in a pool with this stamp.
pub(crate) fn stored(pool: &MemoryStore, size: u64, chunks: &[Vec<u8>], round: u64) -> Content {
    let record = |kind, body: &[u8]| {
        let chunk = (kind == Kind::Chunk).then_some(ChunkSize::DEFAULT);
        let record = Record::encode(kind, Salt::SHARED, chunk, body, Compression::Off);
        pool.put(round, std::slice::from_ref(&record)).unwrap();
        record.name()
    };
    let leaves = (0..).zip(chunks).map(|(slot, body)| (slot, Leaf::Whole(record(Kind::Chunk, body))));
    let page = Page::leaf(leaves).unwrap().encode();
    let root = Some(record(Kind::Page, &page));
    let descriptor = Descriptor { root, ..Descriptor::empty(ByteLen(size), ChunkSize::DEFAULT, Salt::SHARED) };
    record(Kind::Descriptor, &descriptor.encode());
    Content::new(descriptor, Some(page)).unwrap()
}

fn now() -> Timestamp {
    muster_controller::clock::SystemClock.now()
}

fn flipped<'a>(disks: impl Iterator<Item = &'a DiskId>) -> Vec<CutMember> {
    disks.map(|disk| CutMember { disk: *disk, pause_us: 1500, dirty_bytes: 4096 }).collect()
}

/// A guest is started once per start, so a later report of that start has the same time.
fn of_the_same_start(old: Option<&InstanceReport>, new: InstanceReport) -> InstanceReport {
    match old.filter(|old| (old.generation, old.boot) == (new.generation, new.boot)) {
        Some(old) => InstanceReport { started_at: new.started_at.and(old.started_at).or(new.started_at), ..new },
        None => new,
    }
}

fn same(old: &InstanceReport, new: &InstanceReport) -> bool {
    let told = |r: &InstanceReport| (r.generation, r.boot, r.state, r.reason.clone(), r.ready_at.is_some());
    told(old) == told(new) && old.disks == new.disks && old.absent == new.absent && old.guest == new.guest
}

/// What a report of this state looks like.
pub(crate) fn report_of(assignment: &Assignment, state: Observed) -> InstanceReport {
    let up = (state == Observed::Running).then(now);
    InstanceReport {
        instance: assignment.instance,
        generation: assignment.generation,
        boot: assignment.boot,
        state,
        reason: (state == Observed::Failed).then_some(Reason::StartFailed),
        detail: None,
        disk_at: (state != Observed::Preparing).then(now),
        started_at: up,
        ready_at: up,
        reboots: 0,
        conditions: Vec::new(),
        disks: Vec::new(),
        absent: Vec::new(),
        guest: None,
        found: None,
    }
}

fn observe(assignment: &Assignment, script: &Script) -> InstanceReport {
    let state = match assignment.wanted {
        Wanted::Gone => Observed::Gone,
        Wanted::Stopped => Observed::Stopped,
        Wanted::Running if script.fails => Observed::Failed,
        Wanted::Running if script.ends => Observed::Stopped,
        Wanted::Running if script.stuck.contains(&assignment.name) => Observed::Preparing,
        Wanted::Running => Observed::Running,
    };
    let mut report = report_of(assignment, state);
    if state == Observed::Stopped && script.cuts_power {
        report.reason = Some(Reason::PowerCut);
    }
    if state == Observed::Running && script.slow.contains(&assignment.name) {
        (report.ready_at, report.reason) = (None, script.gave_up.then_some(Reason::NotReady));
    }
    if state == Observed::Running && assignment.runtime == Runtime::Libvirt {
        report.guest = script.guest.clone();
    }
    report
}

/// The same with the disks that are on the node. `old` is what was reported before, `began` has the versions that disks began
/// with.
fn with_disks(
    report: InstanceReport,
    assignment: &Assignment,
    script: &Script,
    old: Option<&InstanceReport>,
    began: &BTreeMap<DiskId, VersionId>,
) -> InstanceReport {
    if report.state == Observed::Gone {
        return report;
    }
    let before = |disk: DiskId| old.into_iter().flat_map(|old| &old.disks).find(|before| before.disk == disk);
    let of = |disk: &DiskAssignment| {
        let is_saved = script.settles && began.get(&disk.disk) != Some(&disk.version);
        let dirty_bytes = if is_saved { 0 } else { script.dirty_bytes };
        let held = before(disk.disk).and_then(|before| before.size_bytes).filter(|_| !script.grows);
        DiskReport {
            disk: disk.disk,
            path: format!("/var/lib/muster/agent/disks/{}.raw", disk.disk),
            version: began.get(&disk.disk).filter(|_| script.lags).copied().unwrap_or(disk.version),
            ahead: None,
            unsaved_bytes: dirty_bytes,
            fetched_bytes: 0,
            local_bytes: dirty_bytes,
            size_bytes: (!script.old).then(|| held.unwrap_or(disk.size_bytes)),
            in_guest: (!script.old).then_some(disk.in_guest || !script.lets_go),
            guest_lacks: None,
            detail: None,
            generation: (!script.old).then_some(if script.keeps {
                assignment.generation - 1
            } else {
                assignment.generation
            }),
        }
    };
    let left = assignment.left.iter().filter(|_| !script.removes).filter_map(|left| before(left.disk)).cloned();
    let is_made =
        |disk: &&DiskAssignment| !script.unmade.contains(&disk.name) && (disk.in_guest || before(disk.disk).is_some());
    let (made, others): (Vec<_>, Vec<_>) = assignment.disks.iter().partition(is_made);
    let absent =
        |disk: &DiskAssignment| AbsentDisk { disk: disk.disk, detail: disk.in_guest.then(|| "no space".to_owned()) };
    let absent = others.into_iter().map(absent).collect();
    InstanceReport { disks: made.into_iter().map(of).chain(left).collect(), absent, ..report }
}
