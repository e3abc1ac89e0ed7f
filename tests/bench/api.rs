//! What calls of the API cost a controller that has 10,000 rows.
//!
//! The controller is a process of its own on a plain door. Its processor time is read from `/proc`, so what the callers
//! cost is not in the numbers. Nodes are keys that send heartbeats: nobody starts anything, and what is accepted stays
//! `starting`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use muster_api::{
    ImageId, Labels, NodeId, StoreId, VersionId,
    deployment::Runtime,
    firmware::BootKind,
    firmware::Firmware,
    node::PoolUse,
    node_protocol::{Heartbeat, InstanceReport, JoinAnswer, JoinRequest, NODE_PROTOCOL, Observed, Offer, Report},
    token::{CreateToken, Role},
};
use muster_controller::{
    app::{
        App, Caller, Scope,
        nodes::{NodeCaller, RootPages},
    },
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::{images::Properties, versions::Content},
    reconcile::driver,
    store::{
        images::{self, NewImage},
        versions::{self, NewVersion, Of},
    },
    wake::Loop,
};
use muster_pool::{
    tls::{Ca, Identity},
    transport::{CONTROLLER_TLS_NAME, NameTable, http_client},
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use storage_core::{ByteLen, ChunkSize, Descriptor, Salt};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::Table;

/// Members of the large deployment, and deployments with one member.
const ROWS: u64 = 10_000;
/// Connections at a time.
const CALLERS: usize = 16;
/// How long each row is measured.
const TIME: Duration = Duration::from_secs(5);
const NODES: usize = 3;

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let dir = tempfile::tempdir().expect("a folder");
        let nodes = fill(dir.path()).await;
        let server = Server::start(dir.path(), nodes).await;
        let each = |call: &'static str| move |_| ("GET", call.to_owned(), None);
        let targets = [
            ("GET a deployment of 10,000", "/v1/deployments/big", ">= 1000/s"),
            ("GET an instance", "/v1/instances/big.77", "-"),
            ("GET a page of 100 of 10,000 deployments", "/v1/deployments?limit=100", ">= 500/s"),
            ("GET a page of 100 of 20,000 instances", "/v1/instances?limit=100", ">= 500/s"),
            ("GET a page of 100 of a deployment's instances", "/v1/instances?deployment=big&limit=100", ">= 500/s"),
            ("GET a page of 100 events", "/v1/events?limit=100", ">= 500/s"),
            ("GET a page of 100 operations", "/v1/operations?limit=100", ">= 500/s"),
            ("GET the summary", "/v1/summary", "-"),
        ];
        for (what, call, target) in targets {
            server.row(table, what, target, each(call)).await;
        }
        let one = json!({ "source": { "image": "base" }, "count": 1, "runtime": "none" }).to_string();
        let post = move |_| ("POST", "/v1/deployments".to_owned(), Some(one.clone()));
        server.row(table, "POST a deployment of one", ">= 500/s", post).await;
    });
}

/// A database with one deployment of [`ROWS`] members and [`ROWS`] deployments of one, all of them ready.
async fn fill(dir: &Path) -> Vec<Node> {
    let config = Config { data_dir: dir.to_owned(), ..Config::default() };
    let parts = muster_controller::build_app(config, Arc::new(SystemClock), 1).await.expect("a controller");
    let app = parts.app;
    image(&app).await;
    let caller = caller(&app).await;
    let mut nodes = Vec::new();
    for n in 0..NODES {
        nodes.push(Node::join(&app, &caller, n).await);
    }
    deploy(&app, &caller, "big", ROWS).await;
    report(&app, &nodes).await;
    for n in 0..ROWS {
        deploy(&app, &caller, &format!("one-{n}"), 1).await;
        if n % 1000 == 999 {
            report(&app, &nodes).await;
        }
    }
    report(&app, &nodes).await;
    app.store.close().await;
    nodes
}

async fn image(app: &App) {
    let image = ImageId::generate();
    let done = app.store.run_tx("bench.image", async |tx| {
        let new = NewImage {
            id: image,
            name: "base".to_owned(),
            project: "default".to_owned(),
            labels: Labels::default(),
            chunk_bytes: 256 << 10,
            properties: Properties::default(),
        };
        images::insert(tx, &new).await?;
        let new = NewVersion {
            id: VersionId::generate(),
            project: "default".to_owned(),
            labels: Labels::default(),
            of: Of::Image { image, number: 1 },
            parent: None,
            content: Content::new(Descriptor::empty(ByteLen(1 << 20), ChunkSize::DEFAULT, Salt::SHARED), None)
                .expect("content"),
            digest: None,
            stored_bytes: 0,
            reached_bytes: None,
            boot: BootKind::Unknown,
            firmware: Firmware::Bios,
            upload: None,
        };
        versions::insert(tx, &new).await?;
        images::settle(tx, image).await
    });
    done.await.expect("an image");
}

async fn caller(app: &App) -> Caller {
    let token = std::fs::read_to_string(app.config.data_dir.join("admin.token")).expect("the first token");
    let caller = app.sign_in(token.trim(), None, "bench".to_owned()).await.expect("a good token");
    assert_eq!(caller.scope, Scope::One("default".to_owned()));
    caller
}

fn once() -> muster_controller::app::Once {
    muster_controller::app::Once {
        project: "default".to_owned(),
        key: None,
        request_sha256: String::new(),
        operator: true,
    }
}

async fn deploy(app: &App, caller: &Caller, name: &str, count: u64) {
    let order = json!({ "name": name, "source": { "image": "base" }, "count": count, "runtime": "none" });
    let order = serde_json::from_value(order).expect("an order");
    app.create_deployment(caller, &once(), order).await.expect("accepted");
}

/// All nodes say that everything runs, and the deployments are counted.
async fn report(app: &App, nodes: &[Node]) {
    for node in nodes {
        let desired = app.desired(&node.caller(), RootPages::OfOthers).await.expect("a desired state");
        let now = SystemClock.now();
        let running = |a: muster_api::node_protocol::Assignment| InstanceReport {
            instance: a.instance,
            generation: a.generation,
            boot: a.boot,
            state: Observed::Running,
            reason: None,
            detail: None,
            disk_at: Some(now),
            started_at: Some(now),
            ready_at: Some(now),
            reboots: 0,
            conditions: Vec::new(),
            disks: Vec::new(),
            absent: Vec::new(),
            guest: None,
            found: None,
        };
        let instances = desired.assignments.into_iter().map(running).collect();
        let report = Report { desired_revision: desired.revision, full: false, instances };
        app.report(node.id, &report).await.expect("taken");
    }
    driver::run_pass(app, Loop::Deployments).await;
}

/// The key of a node that joined.
struct Node {
    id: NodeId,
    key: KeyPair,
    joined: JoinAnswer,
}

impl Node {
    async fn join(app: &App, caller: &Caller, n: usize) -> Self {
        let wanted = CreateToken { name: None, role: Role::Node, project: None, ttl_s: None, uses: None };
        let made = app.create_token(caller, &once(), &wanted).await.expect("a token");
        let token = made.body["token"].as_str().expect("its text").to_owned();
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        let wanted = JoinRequest {
            protocol: NODE_PROTOCOL,
            name: Some(format!("n{n}").parse().expect("a name")),
            store: StoreId::generate(),
            csr_pem: csr.pem().expect("PEM"),
            advertise: "127.0.0.1:9".to_owned(),
            zone: None,
            offer: Offer { cpus: 64, memory_bytes: 64 << 30 },
            runtimes: vec![Runtime::Libvirt, Runtime::None],
            agent_version: "0.1.0".to_owned(),
            was: None,
        };
        let joined = app.join(&token, wanted).await.expect("joined");
        let node = Self { id: joined.node, key, joined };
        app.heartbeat(&node.caller(), node.beat()).await.expect("heard");
        node
    }

    fn caller(&self) -> NodeCaller {
        NodeCaller { id: self.id, name: self.joined.name.clone(), expired: false }
    }

    fn beat(&self) -> Heartbeat {
        Heartbeat {
            protocol: NODE_PROTOCOL,
            incarnation: self.joined.incarnation,
            membership_epoch: 0,
            membership_record: None,
            advertise: "127.0.0.1:9".to_owned(),
            offer: Offer { cpus: 64, memory_bytes: 64 << 30 },
            pool: PoolUse { limit_bytes: 1 << 40, ..PoolUse::default() },
            conditions: Vec::new(),
            runtimes: vec![Runtime::Libvirt, Runtime::None],
            hypervisor: Some("qemu".to_owned()),
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

    /// Sends heartbeats until the runtime ends.
    async fn beat_on(self, door: String) {
        let identity =
            Identity::from_pem(&self.joined.certificate_pem, &self.key.serialize_pem()).expect("an identity");
        let names = NameTable::new();
        names.set(CONTROLLER_TLS_NAME, &door);
        let ca = Ca::from_pem(&self.joined.ca_pem).expect("a CA");
        let client = http_client(&identity, &ca, names).expect("a client");
        loop {
            let beat = client.post(format!("https://{CONTROLLER_TLS_NAME}/node/v1/heartbeat")).json(&self.beat());
            if let Err(error) = beat.send().await {
                eprintln!("a heartbeat failed: {error}");
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

/// The controller under load.
struct Server {
    process: std::process::Child,
    address: String,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Server {
    async fn start(dir: &Path, nodes: Vec<Node>) -> Self {
        let [people, door] = [(); 2].map(|()| {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            free.local_addr().expect("its address").to_string()
        });
        let log = std::fs::File::create(dir.join("controller.log")).expect("a log");
        let process = std::process::Command::new(muster_tests::binary("muster-controller"))
            .args(["serve", "--insecure-http", "--listen", &people, "--node-listen", &door, "--data-dir"])
            .arg(dir)
            .stderr(log)
            .spawn()
            .expect("start the controller");
        let token = std::fs::read_to_string(dir.join("admin.token")).expect("the first token").trim().to_owned();
        let server = Self { process, address: people, token };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&server.address).await.is_err() {
            assert!(Instant::now() < end, "the controller does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for node in nodes {
            tokio::spawn(node.beat_on(door.clone()));
        }
        server
    }

    /// Processor time of the controller so far.
    fn spent(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Calls as often as the callers can, for [`TIME`].
    async fn row<F>(&self, table: &mut Table, what: &str, target: &str, call: F)
    where
        F: Fn(u64) -> (&'static str, String, Option<String>) + Clone + Send + 'static,
    {
        let (count, statuses) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::<u16, u64>::new())));
        // The first calls fill caches.
        let mut first = Connection::open(&self.address).await;
        let (method, path, body) = call(0);
        first.call(&self.token, method, &path, body.as_deref()).await;
        let (begun, before) = (Instant::now(), self.spent());
        let callers = (0..CALLERS).map(|_| {
            let (count, statuses, call) = (count.clone(), statuses.clone(), call.clone());
            let (address, token) = (self.address.clone(), self.token.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await;
                while begun.elapsed() < TIME {
                    let (method, path, body) = call(count.fetch_add(1, Ordering::Relaxed));
                    let status = connection.call(&token, method, &path, body.as_deref()).await;
                    *statuses.lock().expect("not poisoned").entry(status).or_default() += 1;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.expect("a caller");
        }
        let (took, spent) = (begun.elapsed().as_secs_f64(), (self.spent() - before).as_secs_f64());
        let statuses = statuses.lock().expect("not poisoned").clone();
        assert!(statuses.keys().all(|status| (200..300).contains(status)), "{what}: {statuses:?}");
        let done: u64 = statuses.values().sum();
        #[expect(clippy::cast_precision_loss, reason = "a number of calls")]
        let done = done as f64;
        let each_ms = spent * 1000.0 / done;
        let ours =
            format!("{each_ms:.2} ms of a processor each ({:.0}/s on two), {:.0}/s now", 2000.0 / each_ms, done / took);
        table.row(what, ours, "-".to_owned(), None, target);
    }
}

/// One connection that is kept alive.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads its answer. Returns the status.
    async fn call(&mut self, token: &str, method: &str, path: &str, body: Option<&str>) -> u16 {
        let body = body.unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\naccept: application/json\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).await.expect("send");
        let mut line = String::new();
        let (mut status, mut length) = (None, 0);
        loop {
            line.clear();
            self.0.read_line(&mut line).await.expect("an answer");
            let text = line.trim_end();
            match status {
                None => status = text.split(' ').nth(1).and_then(|code| code.parse().ok()),
                Some(_) if text.is_empty() => break,
                Some(_) => {
                    if let Some((name, value)) = text.split_once(':')
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse().expect("a length");
                    }
                }
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await.expect("the whole answer");
        let status = status.expect("a status line");
        if !(200..300).contains(&status) {
            eprintln!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        }
        status
    }
}
