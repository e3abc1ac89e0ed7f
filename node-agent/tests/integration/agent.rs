//! Joining, renewing and the agent's loops, against a small controller and a scripted host.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Extension, Json, Router, extract::State, http::HeaderMap, routing::post};
use futures::future::BoxFuture;
use muster_agent::{
    Agent, AgentError,
    config::{Config, ControllerUrl, RuntimeChoice, Share},
    consoles::{Door, DoorError, GuestStream},
    controller::{
        ControllerClient as _, HttpController,
        scripted::{Script, ScriptedController},
    },
    cuts::DiskCuts,
    desired::{Known, Refusal},
    host::Host,
    hypervisor::Hypervisor,
    identity::{Candidate, IdentityError},
    mirror::{DiskError, Start},
    status,
};
use muster_api::{
    ClusterId, CommitId, DiskId, ErrorCode, InstanceId, NodeId, Problem, RunId, TokenId, UploadId, VersionId,
    condition::ConditionKind,
    deployment::Runtime,
    firmware::MachineFeature,
    node_protocol::{
        Assignment, Desired, DiskAssignment, DiskReport, Incarnation, InstanceReport, JoinAnswer, JoinRequest,
        LeftDisk, Observed, Offer, RenewAnswer, RenewRequest, Report, SalvageDisk, SalvageOrder, SalvageReport,
        SalvagedDisk, VersionRoot, Wanted,
        boot::{BootOrder, BootReport},
        network::NetworksAssignment,
        sweep::SweepRound,
    },
    token::{JoinToken, Secret},
};
use muster_pool::{
    ServeLimits, serve,
    tls::{ClientCertificates, Identity, PeerCaller, people_server_config, server_config},
    transport::{CONTROLLER_TLS_NAME, node_tls_name},
};
use storage_core::membership::Membership;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::support::{NoDisks, TestCa, bare_instance, chunk, eventually, page};

const INCARNATION: Incarnation = Incarnation { number: 3, random: 99 };
const OFFER: Offer = Offer { cpus: 2, memory_bytes: 1 << 30 };

// ---- a small controller ---------------------------------------------------------------------------------------------

struct Controller {
    ca: TestCa,
    node: NodeId,
    token: JoinToken,
    joins: Mutex<Vec<JoinRequest>>,
    /// Seconds from now in which new certificates are valid.
    validity: Mutex<(i64, i64)>,
    renewals: Mutex<Vec<bool>>,
    doors: Mutex<Option<(SocketAddr, SocketAddr, SocketAddr)>>,
}

impl Controller {
    async fn start() -> Arc<Self> {
        let ca = TestCa::new();
        let sha256 = ca.ca().sha256();
        let byte = |at: usize| u8::from_str_radix(&sha256[at * 2..at * 2 + 2], 16).unwrap();
        let token = JoinToken {
            id: TokenId::generate(),
            cluster: ca.cluster,
            ca_sha256: std::array::from_fn(byte),
            secret: Secret::from_bytes([5; 32]),
        };
        let this = Arc::new(Self {
            ca,
            node: NodeId::generate(),
            token,
            joins: Mutex::default(),
            validity: Mutex::new((-60, 90 * 86_400)),
            renewals: Mutex::default(),
            doors: Mutex::default(),
        });
        let bind = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (people, plain, node) = (bind().await, bind().await, bind().await);
        *this.doors.lock().unwrap() =
            Some((people.local_addr().unwrap(), plain.local_addr().unwrap(), node.local_addr().unwrap()));
        let join = || Router::new().route("/node/v1/join", post(join)).with_state(this.clone());
        let renew = Router::new().route("/node/v1/renew", post(renew)).with_state(this.clone());
        let serving = |listener, tls, router| {
            tokio::spawn(serve(listener, tls, router, CancellationToken::new(), ServeLimits::default()))
        };
        serving(people, Some(people_server_config(&this.chain("127.0.0.1")).unwrap()), join());
        serving(plain, None, join());
        let accept = ClientCertificates::CurrentOrExpired;
        serving(node, Some(server_config(&this.ca.controller(), &this.ca.ca(), accept).unwrap()), renew);
        this
    }

    /// An identity whose chain shows the CA, as the people's door does.
    fn chain(&self, name: &str) -> Identity {
        self.ca.identity_with_chain(name)
    }

    fn doors(&self) -> (SocketAddr, SocketAddr, SocketAddr) {
        self.doors.lock().unwrap().unwrap()
    }

    fn certificate(&self, csr_pem: &str) -> String {
        let (from, to) = *self.validity.lock().unwrap();
        self.ca.certify(csr_pem, &node_tls_name(self.node), from, to)
    }

    fn config(&self, data: &Path) -> Config {
        let (people, _, _) = self.doors();
        Config {
            controller: Some(format!("https://{people}").parse().unwrap()),
            join_token: Some(self.token.to_string().parse().unwrap()),
            listen: "127.0.0.1:0".parse().unwrap(),
            runtime: RuntimeChoice::None,
            cpus: Some(OFFER.cpus),
            memory_bytes: Some(OFFER.memory_bytes),
            keep_free: Some(Share::Bytes(0)),
            scrub_every: Duration::from_secs(1),
            ..Config::new(data.to_owned())
        }
    }

    fn membership(&self, epoch: u64) -> Membership {
        Membership { cluster: self.ca.cluster, epoch, min_copies: 2, members: Vec::new(), clients: Vec::new() }
    }

    fn desired(&self, revision: u64, epoch: u64, assignments: Vec<Assignment>) -> Desired {
        let root = VersionRoot { descriptor: "00".to_owned(), root_page: None, commit: None };
        let versions = assignments.iter().flat_map(|a| a.disks.iter().map(|d| (d.version, root.clone()))).collect();
        Desired {
            revision,
            incarnation: INCARNATION,
            membership: self.ca.sign(&self.membership(epoch)),
            assignments,
            cuts: Vec::new(),
            versions,
            seeds: std::collections::BTreeMap::new(),
            networks: NetworksAssignment::default(),
        }
    }
}

async fn join(
    State(this): State<Arc<Controller>>,
    headers: HeaderMap,
    Json(request): Json<JoinRequest>,
) -> Result<Json<JoinAnswer>, (axum::http::StatusCode, Json<Problem>)> {
    let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = bearer.strip_prefix("Bearer ").and_then(|text| text.parse::<JoinToken>().ok());
    if token.is_none_or(|token| token.secret != this.token.secret) {
        let problem = Problem::new(ErrorCode::Unauthenticated, "the join token is used up");
        return Err((axum::http::StatusCode::UNAUTHORIZED, Json(problem)));
    }
    let certificate_pem = this.certificate(&request.csr_pem);
    this.joins.lock().unwrap().push(request);
    Ok(Json(JoinAnswer {
        node: this.node,
        name: "node-7".to_owned(),
        cluster: this.ca.cluster,
        ca_pem: this.ca.pem.clone(),
        certificate_pem,
        node_port: this.doors().2.port(),
        incarnation: INCARNATION,
    }))
}

async fn renew(
    State(this): State<Arc<Controller>>,
    Extension(caller): Extension<PeerCaller>,
    Json(request): Json<RenewRequest>,
) -> Json<RenewAnswer> {
    this.renewals.lock().unwrap().push(caller.expired);
    Json(RenewAnswer { certificate_pem: this.certificate(&request.csr_pem) })
}

// ---- a scripted host ------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Scripted {
    passes: Vec<Arc<Desired>>,
    ends: Vec<&'static str>,
    boots: Vec<(InstanceId, BootReport)>,
    starts: Vec<Start>,
    prefetched: Vec<(DiskId, VersionId, Vec<u32>)>,
    salvage: std::collections::VecDeque<Result<Option<SalvagedDisk>, DiskError>>,
    state: Option<Observed>,
    fetched_bytes: u64,
}

#[derive(Clone)]
struct FakeHost {
    script: Arc<Mutex<Scripted>>,
    changed: watch::Sender<u64>,
}

impl FakeHost {
    fn new() -> Self {
        Self { script: Arc::default(), changed: watch::Sender::new(0) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Scripted) -> T) -> T {
        look(&mut self.script.lock().unwrap())
    }

    fn become_state(&self, state: Observed) {
        self.with(|s| s.state = Some(state));
        self.changed.send_modify(|n| *n += 1);
    }

    fn reports(&self, desired: &Desired) -> Vec<InstanceReport> {
        let (state, fetched_bytes) = self.with(|s| (s.state.unwrap_or(Observed::Running), s.fetched_bytes));
        let disks = |a: &Assignment| a.disks.iter().map(|disk| disk_report(disk, fetched_bytes)).collect();
        let with_disks = |a| InstanceReport { disks: disks(a), ..report(a, state) };
        desired.assignments.iter().map(with_disks).collect()
    }
}

fn disk_report(disk: &DiskAssignment, fetched_bytes: u64) -> DiskReport {
    DiskReport {
        disk: disk.disk,
        path: format!("/nowhere/{}.raw", disk.disk),
        version: disk.version,
        ahead: None,
        unsaved_bytes: 0,
        fetched_bytes,
        local_bytes: 0,
        size_bytes: None,
        in_guest: None,
        guest_lacks: None,
        detail: None,
        generation: None,
    }
}

fn report(wanted: &Assignment, state: Observed) -> InstanceReport {
    InstanceReport {
        instance: wanted.instance,
        generation: wanted.generation,
        boot: wanted.boot,
        state,
        reason: None,
        detail: None,
        disk_at: None,
        started_at: None,
        ready_at: None,
        reboots: 0,
        conditions: Vec::new(),
        disks: Vec::new(),
        absent: Vec::new(),
        guest: None,
        found: None,
    }
}

impl Host for FakeHost {
    fn pass(&self, desired: Arc<Desired>) -> BoxFuture<'_, Vec<InstanceReport>> {
        Box::pin(async move {
            let reports = self.reports(&desired);
            self.with(|s| s.passes.push(desired));
            reports
        })
    }
    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
    fn cuts(&self) -> Arc<dyn DiskCuts> {
        Arc::new(NoDisks)
    }
    fn machines(&self) -> Option<Arc<dyn Hypervisor>> {
        None
    }
    fn take_boots(&self) -> Vec<(InstanceId, BootReport)> {
        self.with(|s| std::mem::take(&mut s.boots))
    }
    fn next_start(&self) -> BoxFuture<'_, Start> {
        Box::pin(async {
            let mut changed = self.changed.subscribe();
            loop {
                if let Some(start) = self.with(|s| s.starts.pop()) {
                    return start;
                }
                changed.changed().await.unwrap();
            }
        })
    }
    fn prefetch(&self, disk: DiskId, version: VersionId, chunks: Vec<u32>) -> BoxFuture<'_, ()> {
        self.with(|s| s.prefetched.push((disk, version, chunks)));
        Box::pin(async {})
    }
    fn cache_bytes(&self) -> u64 {
        0
    }
    fn shrink_cache(&self, _bytes: u64) -> u64 {
        0
    }
    fn moved_bytes(&self) -> (u64, u64) {
        (7, 9)
    }
    fn runtimes(&self) -> Vec<Runtime> {
        vec![Runtime::None]
    }
    fn hypervisor(&self) -> Option<String> {
        None
    }
    fn hypervisor_trouble(&self) -> Option<String> {
        None
    }
    fn features(&self) -> Vec<MachineFeature> {
        vec![MachineFeature::Uefi]
    }
    fn tunnel(&self) -> Result<SocketAddr, String> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 7450)))
    }
    fn network_troubles(&self) -> Vec<String> {
        Vec::new()
    }
    fn open_door(&self, _: InstanceId, _: Door) -> BoxFuture<'_, Result<GuestStream, DoorError>> {
        Box::pin(async { Err(DoorError::Closed("there are no guests".to_owned())) })
    }
    fn stop_guests(&self, _limit: Duration) -> BoxFuture<'_, Vec<InstanceReport>> {
        Box::pin(async move {
            self.with(|s| s.ends.push("guests"));
            let last = self.with(|s| s.passes.last().cloned());
            last.map(|d| d.assignments.iter().map(|a| report(a, Observed::Stopped)).collect()).unwrap_or_default()
        })
    }
    fn cut_off(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.with(|s| {
                s.ends.push("cut off");
                // The first try finds a guest that does not go.
                if s.ends.len() == 1 { Err("1 guests still run".to_owned()) } else { Ok(()) }
            })
        })
    }
    fn salvage(&self, _wanted: &SalvageDisk) -> BoxFuture<'_, Result<Option<SalvagedDisk>, DiskError>> {
        Box::pin(async move {
            self.with(|s| {
                s.ends.push("salvage");
                s.salvage.pop_front().unwrap_or(Ok(None))
            })
        })
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.with(|s| s.ends.push("disks")) })
    }
}

struct Running {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), AgentError>>,
    host: FakeHost,
    scripted: ScriptedController,
}

impl Running {
    async fn start(config: Config, scripted: ScriptedController) -> Self {
        let host = FakeHost::new();
        let agent = Agent::build_with(config, Arc::new(scripted.clone()), Arc::new(host.clone())).await.unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(agent.run(cancel.clone()));
        Self { cancel, task, host, scripted }
    }

    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn assignment(generation: u64) -> Assignment {
    let disk = DiskAssignment {
        disk: DiskId::generate(),
        name: "root".to_owned(),
        size_bytes: 4096,
        version: VersionId::generate(),
        in_guest: true,
        since_generation: 0,
    };
    Assignment { generation, ..bare_instance(disk) }
}

// ---- joining and renewing -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_node_joins_once_and_is_the_same_node_afterwards() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = controller.config(data.path());
    let mut candidate = Candidate::open(data.path()).unwrap();
    assert!(candidate.identity(&config).unwrap().is_none());
    candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap();
    // A join can be repeated when its answer was lost: same key, same store.
    candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap();
    {
        let joins = controller.joins.lock().unwrap();
        assert_eq!((joins.len(), joins[0].store), (2, joins[1].store));
        assert_eq!((joins[0].offer, joins[0].advertise.as_str()), (OFFER, "127.0.0.1:1"));
    }
    let first = candidate.identity(&config).unwrap().unwrap();
    let again = Candidate::open(data.path()).unwrap();
    let tokenless = Config { join_token: None, ..config };
    let second = again.identity(&tokenless).unwrap().unwrap();
    assert_eq!((second.joined.node, second.store), (controller.node, first.store));
    assert_eq!(second.tls.key_sha256().unwrap(), first.tls.key_sha256().unwrap());
    assert_eq!(second.node_door(), controller.doors().2.to_string());
    let mode = |file: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(data.path().join("identity").join(file)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("node.key"), 0o600);
}

#[tokio::test]
async fn a_damaged_key_or_certificate_is_named_by_its_path() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = controller.config(data.path());
    Candidate::open(data.path()).unwrap().join(&config, "127.0.0.1:1", OFFER).await.unwrap();
    for name in ["node.key", "node.crt", "ca.pem"] {
        let file = data.path().join("identity").join(name);
        let good = std::fs::read(&file).unwrap();
        // Somewhere in the base64 text, and in its last bytes, which are the CA's signature in a certificate.
        for (from_the_end, wrong) in
            [(good.len() / 2, b'!'), (40, if good[good.len() - 40] == b'A' { b'B' } else { b'A' })]
        {
            let mut bad = good.clone();
            bad[good.len() - from_the_end] = wrong;
            std::fs::write(&file, &bad).unwrap();
            let error = Candidate::open(data.path()).unwrap().identity(&config).unwrap_err().to_string();
            assert!(error.contains(&file.display().to_string()), "{error}");
        }
        std::fs::write(&file, &good).unwrap();
    }
}

#[tokio::test]
async fn a_door_of_another_ca_gets_no_token() {
    let (controller, other) = (Controller::start().await, Controller::start().await);
    let data = tempfile::tempdir().unwrap();
    let mut config = controller.config(data.path());
    // With TLS: the chain does not lead to the CA of the token, so nothing is sent.
    config.controller = Some(format!("https://{}", other.doors().0).parse().unwrap());
    let mut candidate = Candidate::open(data.path()).unwrap();
    let error = candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap_err();
    assert!(matches!(error, IdentityError::Untrusted { .. }) && !error.passes(), "{error}");
    assert!(other.joins.lock().unwrap().is_empty());
    // Without TLS: the answer names another CA than the token, so it is refused.
    let plain: ControllerUrl = format!("http://{}", other.doors().1).parse().unwrap();
    config.controller = Some(plain);
    let foreign = JoinToken { ca_sha256: [1; 32], ..other.token.clone() };
    config.join_token = Some(foreign.to_string().parse().unwrap());
    let error = candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap_err();
    assert!(matches!(error, IdentityError::WrongCa { .. }), "{error}");
    assert!(candidate.joined().is_none());
}

#[tokio::test]
async fn a_refused_token_ends_the_start_with_the_controllers_words() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(data.path());
    let used = JoinToken { secret: Secret::from_bytes([6; 32]), ..controller.token.clone() };
    config.join_token = Some(used.to_string().parse().unwrap());
    let error = Agent::build(config).await.err().unwrap().to_string();
    assert!(error.contains("the join token is used up"), "{error}");
}

#[tokio::test]
async fn a_data_folder_of_another_cluster_is_refused() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let mut config = controller.config(data.path());
    let mut candidate = Candidate::open(data.path()).unwrap();
    candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap();
    let foreign = JoinToken { cluster: ClusterId::generate(), ..controller.token.clone() };
    config.join_token = Some(foreign.to_string().parse().unwrap());
    assert!(matches!(candidate.identity(&config), Err(IdentityError::OtherCluster { .. })));
}

/// The controller can only show `clock_off` if it hears of it. But what it answers may come from somebody else with an old
/// key, so nothing is asked.
#[tokio::test]
async fn a_node_whose_clock_is_wrong_tells_the_controller_and_asks_it_nothing() {
    let ca = TestCa::new();
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = calls.clone();
    let router = Router::new().fallback(move |uri: axum::http::Uri| async move {
        heard.lock().unwrap().push(uri.path().to_owned());
        [(axum::http::header::DATE, "Fri, 01 Jan 2100 00:00:00 GMT")]
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let controller = ca.identity_valid(CONTROLLER_TLS_NAME, 30 * 86_400, 60 * 86_400);
    let tls = server_config(&controller, &ca.ca(), ClientCertificates::Current).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, Some(tls), router, stop.clone(), ServeLimits::default()));
    let identity = ca.identity(&node_tls_name(NodeId::generate()));
    let door = HttpController::new(&identity, &ca.ca(), &address, RunId::generate()).unwrap();
    let asked = door.desired(0, Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(asked.contains("certificate not valid yet"), "{asked}");
    let told = door.report(Report { desired_revision: 1, full: true, instances: Vec::new() }).await;
    assert!(told.is_err(), "the answer is not used");
    assert_eq!(*calls.lock().unwrap(), ["/node/v1/report"]);
    assert!(door.clock_offset_s().unwrap() > 365 * 86_400, "the controller's clock is known");
    stop.cancel();
}

#[tokio::test]
async fn a_certificate_is_renewed_with_its_key_also_when_it_has_ended() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let config = controller.config(data.path());
    let mut candidate = Candidate::open(data.path()).unwrap();
    // Less than a third of its life is left: it was valid for a day, which ends in an hour.
    *controller.validity.lock().unwrap() = (-23 * 3600, 3600);
    candidate.join(&config, "127.0.0.1:1", OFFER).await.unwrap();
    let identity = candidate.identity(&config).unwrap().unwrap();
    assert!(identity.wants_renewal().unwrap());
    let door = HttpController::new(&identity.tls, &identity.ca, &identity.node_door(), RunId::generate()).unwrap();
    // The new one has expired already, as after a long time off. It can still be renewed.
    *controller.validity.lock().unwrap() = (-90 * 86_400, -60);
    identity.renew(&door).await.unwrap();
    assert!(identity.wants_renewal().unwrap());
    *controller.validity.lock().unwrap() = (-60, 90 * 86_400);
    let door = HttpController::new(&identity.tls, &identity.ca, &identity.node_door(), RunId::generate()).unwrap();
    identity.renew(&door).await.unwrap();
    assert!(!identity.wants_renewal().unwrap());
    assert_eq!(*controller.renewals.lock().unwrap(), [false, true]);
    assert!(door.clock_offset_s().unwrap().abs() <= 2);
    // It is on disk for the next start.
    let next = Candidate::open(data.path()).unwrap().identity(&config).unwrap().unwrap();
    assert!(!next.wants_renewal().unwrap());
}

// ---- what is accepted -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn older_incarnations_epochs_and_generations_are_refused() {
    let controller = Controller::start().await;
    let (ca, cluster) = (controller.ca.ca(), controller.ca.cluster);
    let here = assignment(4);
    let known = Known::nothing(INCARNATION);
    let known = known.accept(controller.desired(10, 5, vec![here.clone()]), &ca, cluster).unwrap();
    assert!(known.fresh);

    let older = Desired { incarnation: Incarnation { number: 2, random: 1 }, ..controller.desired(11, 6, vec![]) };
    assert_eq!(known.accept(older, &ca, cluster).unwrap_err(), Refusal::OlderIncarnation { got: 2, seen: 3 });
    let other = Desired { incarnation: Incarnation { random: 1, ..INCARNATION }, ..controller.desired(11, 6, vec![]) };
    assert_eq!(known.accept(other, &ca, cluster).unwrap_err(), Refusal::OtherHistory(3));

    let stale = Assignment { generation: 3, wanted: Wanted::Gone, ..here.clone() };
    let next = known.accept(controller.desired(11, 4, vec![stale.clone()]), &ca, cluster).unwrap();
    assert_eq!(next.membership.as_ref().unwrap().epoch, 5, "the newer record stays");
    assert_eq!(next.desired.assignments, std::slice::from_ref(&here), "the newer generation stays");
    assert!(next.desired.versions.contains_key(&here.disks[0].version));

    // After a restore of the database all counters begin anew.
    let restored = Incarnation { number: 4, random: 5 };
    let answer = Desired { incarnation: restored, ..controller.desired(1, 2, vec![stale.clone()]) };
    let next = known.accept(answer, &ca, cluster).unwrap();
    assert_eq!((next.membership.unwrap().epoch, next.desired.assignments), (2, vec![stale]));
}

#[tokio::test]
async fn a_membership_record_that_the_ca_did_not_sign_is_not_taken() {
    let controller = Controller::start().await;
    let (ca, cluster) = (controller.ca.ca(), controller.ca.cluster);
    let known = Known::nothing(INCARNATION).accept(controller.desired(1, 5, vec![]), &ca, cluster).unwrap();
    let mut forged = controller.desired(2, 6, vec![]);
    forged.membership.record = forged.membership.record.replace("\"min_copies\":2", "\"min_copies\":1");
    assert_eq!(known.accept(forged, &ca, cluster).unwrap().membership.unwrap().epoch, 5);
    let elsewhere = TestCa::new();
    let mut foreign = controller.desired(2, 6, vec![]);
    foreign.membership = elsewhere.sign(&controller.membership(6));
    assert_eq!(known.accept(foreign, &ca, cluster).unwrap().membership.unwrap().epoch, 5);
}

// ---- loops ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_agent_does_what_is_wanted_and_reports_levels() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("a heartbeat", |s| !s.heartbeats.is_empty()).await;
    scripted.script(|s| {
        assert_eq!(s.heartbeats[0].offer, OFFER);
        let moved = s.heartbeats[0].traffic.as_ref().unwrap();
        assert_eq!((moved.run, moved.read_bytes, moved.written_bytes), (s.runs[0].run, 7, 9));
        assert!(s.reports.is_empty(), "nothing is said before anything is known");
    });

    let (one, two) = (assignment(1), assignment(1));
    scripted.script(|s| s.desired = Some(controller.desired(1, 1, vec![one.clone(), two.clone()])));
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    scripted.script(|s| {
        assert!(s.reports[0].full);
        assert_eq!((s.reports[0].desired_revision, s.reports[0].instances.len()), (1, 2));
        // The next two calls fail.
        s.failures.extend(["lost".to_owned(), "lost again".to_owned()]);
    });
    running.host.become_state(Observed::Failed);
    scripted.until("the change", |s| s.reports.len() >= 2).await;
    scripted.script(|s| {
        let change = &s.reports[1];
        assert!(!change.full && change.instances.iter().all(|r| r.state == Observed::Failed));
    });

    let socket = data.path().to_owned();
    let text = tokio::task::spawn_blocking(move || status::ask(&socket)).await.unwrap().unwrap();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["node"], controller.node.to_string());
    assert_eq!(status["instances"].as_array().unwrap().len(), 2);

    let host = running.host.clone();
    running.stop().await;
    assert_eq!(host.with(|s| s.ends.clone()), ["guests", "disks"]);
    let last = scripted.script(|s| s.reports.last().unwrap().clone());
    assert!(last.instances.iter().all(|r| r.state == Observed::Stopped));
    // Its last word is that it ends in order.
    scripted.script(|s| {
        let farewells = s.heartbeats.iter().filter(|beat| beat.stopping).count();
        assert_eq!((farewells, s.heartbeats.last().unwrap().stopping), (1, true));
    });
}

#[tokio::test]
async fn without_a_controller_the_agent_goes_on_as_last_told_also_after_a_restart() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let wanted = assignment(2);
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![wanted.clone()])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    scripted.script(|s| s.away = true);
    running.stop().await;

    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    let host = running.host.clone();
    eventually("the host is driven", || host.with(|s| !s.passes.is_empty())).await;
    let known = host.with(|s| s.passes[0].clone());
    assert_eq!((known.revision, known.assignments.clone()), (7, vec![wanted]));
    // The controller is back: it gets a full report, and its new desired state is followed.
    scripted.script(|s| {
        s.away = false;
        s.reports.clear();
        s.desired = Some(controller.desired(8, 3, vec![]));
    });
    eventually("the new state", || host.with(|s| s.passes.last().unwrap().revision == 8)).await;
    running.scripted.until("a full report", |s| s.reports.iter().any(|r| r.full)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_new_incarnation_gets_a_full_report_also_if_its_revision_is_the_same() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let wanted = assignment(2);
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![wanted.clone()])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    let restored = Incarnation { number: INCARNATION.number + 1, random: 5 };
    scripted.script(|s| {
        s.reports.clear();
        s.desired = Some(Desired { incarnation: restored, ..controller.desired(7, 3, vec![wanted]) });
    });
    scripted.until("a full report", |s| s.reports.iter().any(|r| r.full && r.instances.len() == 1)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_report_is_repeated_once_something_else_is_wanted_of_the_instance() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let (one, mut two) = (assignment(1), assignment(1));
    scripted.script(|s| s.desired = Some(controller.desired(1, 1, vec![one.clone(), two.clone()])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    // What is true of it stays the same.
    two.disks[0].in_guest = false;
    scripted.script(|s| s.desired = Some(controller.desired(2, 1, vec![one, two.clone()])));
    scripted.until("the answer", |s| s.reports.len() >= 2).await;
    scripted.script(|s| {
        let told = &s.reports[1];
        assert_eq!((told.full, told.desired_revision, told.instances.len()), (false, 2, 1));
        assert_eq!(told.instances[0].instance, two.instance);
    });
    running.stop().await;
}

/// The API says how old the figures of a deployment may be. Nothing else changes here that would be a reason for a report.
#[tokio::test]
async fn what_a_disk_has_fetched_is_reported_within_seconds_although_nothing_else_changes() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    scripted.script(|s| s.desired = Some(controller.desired(1, 1, vec![assignment(1)])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    running.host.with(|s| s.fetched_bytes = 55 << 20);
    let has_it = |report: &Report| report.instances.iter().any(|i| i.disks[0].fetched_bytes == 55 << 20);
    scripted.until("the figure", |s| s.reports.last().is_some_and(has_it)).await;
    running.stop().await;
}

/// What the controller learns of a disk that is to leave must be true after a restart of the agent as well.
#[tokio::test]
async fn no_disk_is_taken_from_a_guest_before_that_is_stored() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let mut wanted = assignment(1);
    let of = |n: u128| DiskAssignment { disk: uuid::Uuid::from_u128(n).into(), ..wanted.disks[0].clone() };
    let (out, stays) = (DiskAssignment { in_guest: false, ..of(1) }, of(2));
    wanted.disks.extend([out.clone(), stays.clone()]);
    scripted.script(|s| s.desired = Some(controller.desired(1, 1, vec![wanted.clone()])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    // A folder is where the file is to be.
    let file = data.path().join("desired.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let mut next = wanted.clone();
    next.disks[2].in_guest = false;
    next.left = vec![LeftDisk { disk: DiskId::generate(), version: VersionId::generate() }];
    scripted.script(|s| s.desired = Some(controller.desired(2, 1, vec![next.clone()])));
    let host = running.host.clone();
    let last = || host.with(|s| s.passes.last().unwrap().clone());
    eventually("the new state", || last().revision == 2).await;
    assert_eq!(last().assignments, [wanted], "what was out of the guest stays out of it");
    std::fs::remove_dir_all(&file).unwrap();
    eventually("all of it", || last().assignments == [next.clone()]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_controller_that_needs_a_full_report_gets_one() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![assignment(2)])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| s.reports.iter().any(|r| r.full && r.instances.len() == 1)).await;
    scripted.script(|s| {
        s.reports.clear();
        s.wants_full_report = true;
    });
    scripted.until("a full report", |s| s.reports.iter().any(|r| r.full && r.instances.len() == 1)).await;
    running.stop().await;
}

/// What another history of the database does not need, the one that this node follows may need.
#[tokio::test]
async fn only_the_history_that_the_node_follows_lets_it_sweep() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let object = page(1);
    let other = Incarnation { number: INCARNATION.number - 1, random: 5 };
    scripted.script(|s| {
        s.desired = Some(Desired { incarnation: other, ..controller.desired(7, 3, vec![]) });
        s.sweep = Some(SweepRound { round: 9 });
        s.unneeded.insert(object.name());
    });
    let host = FakeHost::new();
    let config = controller.config(data.path());
    let agent = Agent::build_with(config, Arc::new(scripted.clone()), Arc::new(host)).await.unwrap();
    let (share, cancel) = (agent.share(), CancellationToken::new());
    share.put(1, std::slice::from_ref(&object)).unwrap();
    let task = tokio::spawn(agent.run(cancel.clone()));
    scripted.until("two heartbeats", |s| s.heartbeats.len() >= 2).await;
    assert!(scripted.script(|s| s.judged.is_empty()) && share.contains(&object.name()).unwrap());
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![])));
    scripted.until("the round is done", |s| !s.swept.is_empty()).await;
    assert!(!share.contains(&object.name()).unwrap());
    cancel.cancel();
    task.await.unwrap().unwrap();
}

/// Damage while the agent runs, and a pool that is wiped while it does not.
#[tokio::test]
async fn lost_objects_are_a_condition_until_they_are_stored_again_or_acknowledged() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let lost = |count: u64| {
        move |s: &Script| {
            let Some(beat) = s.heartbeats.last() else { return false };
            let shown = beat.conditions.iter().any(|c| c.kind == ConditionKind::ObjectsLost);
            beat.pool.lost_objects == count && shown == (count > 0)
        }
    };
    let start = async || {
        let host = FakeHost::new();
        let agent = Agent::build_with(controller.config(data.path()), Arc::new(scripted.clone()), Arc::new(host)).await;
        let agent = agent.unwrap();
        let (share, cancel) = (agent.share(), CancellationToken::new());
        (share, cancel.clone(), tokio::spawn(agent.run(cancel)))
    };
    let segment = data.path().join("pool/segment-0000000001");
    let flip = |bytes: &[u8]| {
        let file = std::fs::File::options().read(true).write(true).open(&segment).unwrap();
        let all = std::fs::read(&segment).unwrap();
        let at = all.windows(bytes.len()).position(|window| window == bytes).unwrap();
        file.write_all_at(&[bytes[0] ^ 1], u64::try_from(at).unwrap()).unwrap();
    };

    let (share, cancel, task) = start().await;
    let records: Vec<_> = (0..5).map(chunk).collect();
    share.put(1, &records).unwrap();
    share.sync().unwrap();
    scripted.until("five objects", |s| s.heartbeats.last().is_some_and(|beat| beat.pool.objects == 5)).await;
    scripted.until("nothing lost", lost(0)).await;
    for record in &records[..2] {
        flip(record.stored());
    }
    assert!(share.get(&records[0].name()).unwrap().is_none());
    assert_eq!(share.touch(2, &[records[1].name()]).unwrap(), [false]);
    scripted.until("two objects lost", lost(2)).await;
    share.put(3, &records[..1]).unwrap();
    scripted.until("one of them stored again", lost(1)).await;
    drop(share);
    cancel.cancel();
    task.await.unwrap().unwrap();

    // Rot that no call of others meets is found by the scrub.
    flip(records[4].stored());
    scripted.script(|s| s.heartbeats.clear());
    let (share, cancel, task) = start().await;
    scripted.until("two objects lost again", lost(2)).await;
    assert!(!share.contains(&records[4].name()).unwrap());
    drop(share);
    cancel.cancel();
    task.await.unwrap().unwrap();

    std::fs::remove_dir_all(data.path().join("pool")).unwrap();
    scripted.script(|s| s.heartbeats.clear());
    let (_, cancel, task) = start().await;
    scripted.until("all objects lost", lost(5)).await;
    cancel.cancel();
    task.await.unwrap().unwrap();
    scripted.script(|s| s.heartbeats.clear());
    let (_, cancel, task) = start().await;
    scripted.until("the same after a restart", lost(5)).await;
    cancel.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_tells_what_it_does_not_take_any_more() {
    let all = u64::MAX / 4;
    let (full, none) = (ConditionKind::DiskFull, ConditionKind::NodeFull);
    for (keep_free, mirror_reserve, wanted) in
        [(0, 0, vec![]), (0, all, vec![full.clone()]), (all, 0, vec![full.clone(), none.clone()])]
    {
        let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
        let scripted = ScriptedController::new();
        let config = Config {
            keep_free: Some(Share::Bytes(keep_free)),
            mirror_reserve: Some(Share::Bytes(mirror_reserve)),
            ..controller.config(data.path())
        };
        let running = Running::start(config, scripted.clone()).await;
        scripted.until("a heartbeat", |s| !s.heartbeats.is_empty()).await;
        let told = scripted.script(|s| s.heartbeats.last().map(|beat| beat.conditions.clone())).unwrap();
        let of_disk: Vec<_> = told.into_iter().map(|c| c.kind).filter(|k| *k == full || *k == none).collect();
        assert_eq!(of_disk, wanted);
        running.stop().await;
    }
}

#[tokio::test]
async fn two_agents_do_not_share_a_data_folder() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let running = Running::start(controller.config(data.path()), ScriptedController::new()).await;
    let (scripted, host) = (ScriptedController::new(), FakeHost::new());
    let second = Agent::build_with(controller.config(data.path()), Arc::new(scripted), Arc::new(host)).await;
    assert!(matches!(second.err().unwrap(), AgentError::Locked(_)));
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_replaced_stops_its_guests_and_says_why() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("a heartbeat", |s| !s.heartbeats.is_empty() && s.runs.len() == 1).await;
    scripted.script(|s| s.superseded = Some("another agent acts as node 'a' at 10.0.0.2:7450".to_owned()));
    let ended = tokio::time::timeout(Duration::from_secs(20), running.task).await.unwrap().unwrap();
    let Err(AgentError::Superseded(why)) = ended else { panic!("{ended:?}") };
    assert!(why.contains("10.0.0.2:7450"), "{why}");
    assert_eq!(running.host.with(|s| s.ends.clone()), ["cut off", "disks"]);
    // The next start is refused before it touches anything.
    let (scripted, host) = (scripted.clone(), FakeHost::new());
    let next = Agent::build_with(controller.config(data.path()), Arc::new(scripted), Arc::new(host)).await;
    assert!(matches!(next.err().unwrap(), AgentError::Superseded(_)));
}

#[tokio::test]
async fn a_database_that_does_not_know_the_run_is_asked_once_more_before_guests_are_stopped() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("a heartbeat", |s| !s.heartbeats.is_empty()).await;
    scripted.script(|s| s.forgotten_runs = 1);
    scripted.until("the run is registered again", |s| s.runs.len() == 2).await;
    let before = scripted.script(|s| s.heartbeats.len());
    scripted.until("heartbeats go on", |s| s.heartbeats.len() > before).await;
    assert_eq!(
        scripted.script(|s| (s.runs[0].run, s.runs[0].place)),
        scripted.script(|s| (s.runs[1].run, s.runs[1].place))
    );
    running.stop().await;
}

#[tokio::test]
async fn an_agent_whose_node_was_declared_dead_stops_its_guests_keeps_its_data_and_reports_nothing() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![assignment(2)])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    scripted.script(|s| s.fenced = Some("an operator declared node 'n0' dead".to_owned()));
    let host = running.host.clone();
    eventually("the guests to be cut off", || host.with(|s| s.ends == ["cut off", "cut off"])).await;
    let ask = async || {
        let socket = data.path().to_owned();
        let text = tokio::task::spawn_blocking(move || status::ask(&socket)).await.unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let said = ask().await;
    assert_eq!(said["fenced"]["detail"], "an operator declared node 'n0' dead");
    assert!(data.path().join("desired.json").exists(), "nothing is deleted");
    running.stop().await;

    // A restart does not even ask, whatever the controller would say now: the word was given for ever.
    scripted.script(|s| {
        (s.fenced, s.refused) = (None, 0);
        s.heartbeats.clear();
    });
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    let host = running.host.clone();
    eventually("the guests to be cut off again", || host.with(|s| s.ends == ["cut off", "cut off"])).await;
    assert_eq!(ask().await["instances"], serde_json::json!([]));
    running.stop().await;
    assert!(host.with(|s| s.passes.is_empty()), "no guest was started");
    assert!(scripted.script(|s| s.heartbeats.is_empty()));
    let findings = muster_agent::check::host(&controller.config(data.path()));
    let finding = findings.iter().find(|finding| finding.subject.to_string() == "fenced").unwrap();
    assert!(!finding.ok && finding.needed && finding.detail.contains("n0"), "{finding:?}");
}

#[tokio::test]
async fn an_agent_whose_node_was_declared_dead_saves_what_is_awaited_and_tries_again() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    let desired = controller.desired(7, 3, vec![assignment(2)]);
    let wanted =
        SalvageDisk { disk: DiskId::generate(), commit: CommitId::generate(), upload: UploadId::generate(), round: 4 };
    let saved = SalvagedDisk {
        base: VersionId::generate(),
        root: VersionRoot { descriptor: "00".to_owned(), root_page: None, commit: Some(wanted.commit) },
        upload: wanted.upload,
        dirty_bytes: 8192,
        stored_bytes: 100,
        generation: Some(1),
    };
    scripted.script(|s| {
        s.salvage = Some(SalvageOrder { membership: desired.membership.clone(), disks: vec![wanted] });
        s.desired = Some(desired);
    });
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    running.host.with(|s| {
        let full = DiskError::NoSpace(wanted.disk);
        s.salvage.extend([Err(full), Ok(Some(saved.clone()))]);
    });
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    scripted.script(|s| s.fenced = Some("dead".to_owned()));
    scripted.until("the disk to be saved", |s| s.salvaged.len() == 2).await;
    let told = scripted.script(|s| s.salvaged.clone());
    assert!(
        matches!(&told[0], (disk, SalvageReport::Trouble(why)) if *disk == wanted.disk && why.contains("no space"))
    );
    assert_eq!(told[1], (wanted.disk, SalvageReport::Saved(saved)));
    let ends = running.host.with(|s| s.ends.clone());
    assert_eq!(ends, ["cut off", "cut off", "salvage", "salvage"], "the guests are off first");
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_off_when_its_node_was_declared_dead_starts_no_guest() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let scripted = ScriptedController::new();
    scripted.script(|s| s.desired = Some(controller.desired(7, 3, vec![assignment(2)])));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    scripted.until("the first report", |s| !s.reports.is_empty()).await;
    running.stop().await;
    scripted.script(|s| s.fenced = Some("dead".to_owned()));
    let running = Running::start(controller.config(data.path()), scripted.clone()).await;
    let host = running.host.clone();
    eventually("the word", || host.with(|s| s.ends.len() >= 2)).await;
    assert!(host.with(|s| s.passes.is_empty()), "it knows from its disk what it should run, and asks first");
    running.stop().await;
}

// ---- boot orders ----------------------------------------------------------------------------------------------------

fn boot(boot: u64) -> (InstanceId, BootReport) {
    let (disk, version) = (DiskId::generate(), VersionId::generate());
    (InstanceId::generate(), BootReport { disk, version, generation: 1, boot, chunks: vec![3, 1, 2] })
}

#[tokio::test]
async fn a_start_has_what_it_is_likely_to_read_brought_once_for_each_version() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Running::start(controller.config(data.path()), ScriptedController::new()).await;
    let start = |version| Start { instance: InstanceId::generate(), disk: DiskId::generate(), version };
    let [known, other, unknown] = [(); 3].map(|()| start(VersionId::generate()));
    agent.scripted.script(|script| {
        let order = |version| BootOrder { version, chunks: vec![3, 1, 2] };
        script.boot_orders.insert(known.disk, order(known.version));
        // The disk has another version by now.
        script.boot_orders.insert(other.disk, order(VersionId::generate()));
    });
    for start in [other, unknown, known] {
        agent.host.with(|s| s.starts.push(start));
        agent.host.changed.send_modify(|n| *n += 1);
        eventually("the start is taken", || agent.host.with(|s| s.starts.is_empty())).await;
    }
    eventually("the chunks are asked for", || agent.host.with(|s| !s.prefetched.is_empty())).await;
    assert_eq!(agent.host.with(|s| s.prefetched.clone()), [(known.disk, known.version, vec![3, 1, 2])]);
    agent.stop().await;
}

#[tokio::test]
async fn a_boot_order_is_told_until_the_controller_takes_it_and_an_old_controller_is_left_alone() {
    let (controller, data) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Running::start(controller.config(data.path()), ScriptedController::new()).await;
    let told = boot(1);
    agent.scripted.script(|script| script.failures.extend(["busy".to_owned(), "busy".to_owned()]));
    agent.host.with(|s| s.boots.push(told.clone()));
    agent.scripted.until("the boot order is told", |script| script.boots == [told.clone()]).await;

    agent.scripted.script(|script| script.unknown_boots = Some(0));
    agent.host.with(|s| s.boots.extend([boot(2), boot(3)]));
    agent.scripted.until("the call is tried", |script| script.unknown_boots == Some(1)).await;
    agent.host.with(|s| s.boots.push(boot(4)));
    eventually("boot orders are taken from the host", || agent.host.with(|s| s.boots.is_empty())).await;
    assert_eq!(agent.scripted.script(|script| (script.unknown_boots, script.boots.len())), (Some(1), 1));
    agent.stop().await;
}
