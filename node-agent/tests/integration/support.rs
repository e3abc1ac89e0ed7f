//! A cluster's CA, its nodes and their peer servers, all in this process and on loopback.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use futures::future::BoxFuture;
use muster_agent::{
    consoles::{Consoles, Door, DoorError, Opener},
    controller::scripted::ScriptedController,
    cuts::{CutParts, Cuts, DiskCuts, Freezes},
    desired::Known,
    hypervisor::Owner,
    mirror::{DiskError, Saved},
    network::{NetworkParts, Networks},
    peer::{
        losses::Losses,
        repair::Asked,
        server::{PeerServerParts, routes},
    },
};
use muster_api::{
    ClusterId, CommitId, DeploymentId, DiskId, InstanceId, NodeId, StoreId, VersionId,
    deployment::{OnHostStart, OnReadyTimeout, Probe, Ready, Runtime},
    node_protocol::{
        Assignment, CutDisk, CutKey, CutMember, Desired, DiskAssignment, Incarnation, VersionRoot, Wanted, seed::Seed,
    },
};
use muster_pool::{
    PoolClient, PoolLimits, ServeLimits, serve,
    tls::{Ca, ClientCertificates, Identity, install_provider, server_config},
    transport::{CONTROLLER_TLS_NAME, node_tls_name},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SigningKey as _,
};
use storage_core::{
    ChunkSize, Kind, Record, Salt,
    membership::{Client, Member, Membership, SignedMembership},
    record::Compression,
    store::{ChunkStore, MemoryStore},
};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, UnixStream},
    sync::watch,
};
use tokio_util::{
    either::Either,
    sync::{CancellationToken, DropGuard},
};

pub(crate) struct TestCa {
    pub(crate) cluster: ClusterId,
    pub(crate) pem: String,
    params: CertificateParams,
    key: KeyPair,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        install_provider();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
        let pem = params.self_signed(&key).expect("CA").pem();
        Self { cluster: ClusterId::generate(), pem, params, key }
    }

    pub(crate) fn ca(&self) -> Ca {
        Ca::from_pem(&self.pem).expect("CA")
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.identity_valid(name, -86_400, 86_400)
    }

    /// An identity that is valid from `from` to `to` (seconds from now).
    pub(crate) fn identity_valid(&self, name: &str, from: i64, to: i64) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("name");
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(from);
        params.not_after = now + time::Duration::seconds(to);
        let certificate = params.signed_by(&key, &self.issuer()).expect("certificate");
        Identity::from_pem(&certificate.pem(), &key.serialize_pem()).expect("identity")
    }

    /// As [`Self::identity`], showing the CA's certificate as well.
    pub(crate) fn identity_with_chain(&self, name: &str) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
        let params = CertificateParams::new([name.to_owned()]).expect("name");
        let certificate = params.signed_by(&key, &self.issuer()).expect("certificate");
        Identity::from_pem(&(certificate.pem() + &self.pem), &key.serialize_pem()).expect("identity")
    }

    /// A certificate for a request, valid from `from` to `to` (seconds from now).
    pub(crate) fn certify(&self, csr_pem: &str, name: &str, from: i64, to: i64) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).expect("request");
        csr.params.subject_alt_names = CertificateParams::new([name.to_owned()]).expect("name").subject_alt_names;
        let now = OffsetDateTime::now_utc();
        csr.params.not_before = now + time::Duration::seconds(from);
        csr.params.not_after = now + time::Duration::seconds(to);
        csr.signed_by(&self.issuer()).expect("certificate").pem()
    }

    pub(crate) fn sign(&self, membership: &Membership) -> SignedMembership {
        let record = serde_json::to_string(membership).expect("JSON");
        let signature = self.key.sign(record.as_bytes()).expect("signature");
        let signature = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        SignedMembership { record, signature }
    }

    pub(crate) fn controller(&self) -> Identity {
        self.identity(CONTROLLER_TLS_NAME)
    }
}

/// The disks of a node that has none.
pub(crate) struct NoDisks;

impl DiskCuts for NoDisks {
    fn prepare(&self, _: CutKey, _: Vec<CutDisk>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
    fn hold(&self, _: CutKey, _: Duration) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
    fn flip(&self, _: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, DiskError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn abort(&self, _: CutKey) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
    fn save(&self, disk: DiskId, _: CommitId, _: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(async move { Err(DiskError::NotFound(disk)) })
    }
    fn abandon(&self, _: DiskId, _: CommitId) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
    fn commits(&self) -> Vec<(DiskId, CommitId)> {
        Vec::new()
    }
}

/// Refuses every step: nothing is ordered here.
fn no_cuts(pool: &PoolClient, dir: &Path) -> Cuts {
    let (_, known) = watch::channel(Arc::new(Known::nothing(Incarnation { number: 1, random: 1 })));
    Cuts::new(CutParts {
        node: NodeId::generate(),
        disks: Arc::new(NoDisks),
        freezes: Freezes::open(dir.join("frozen"), None).expect("a folder"),
        peers: Arc::new(pool.clone()),
        controller: Arc::new(ScriptedController::new()),
        known,
    })
}

pub(crate) struct TestNode {
    pub(crate) identity: Identity,
    pub(crate) member: Member,
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) pool: PoolClient,
    pub(crate) stop: CancellationToken,
    pub(crate) data: tempfile::TempDir,
    listener: Option<TcpListener>,
}

impl TestNode {
    /// Closes its door at once, as a crash would.
    pub(crate) fn kill(&self) {
        self.stop.cancel();
    }
}

pub(crate) struct TestCluster {
    pub(crate) ca: TestCa,
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) membership: Membership,
    /// A controller's client.
    pub(crate) client: PoolClient,
}

/// What a node needs to read the versions that its assignments name.
pub(crate) type Versions = BTreeMap<VersionId, VersionRoot>;

/// The deployment of the instances that have a seed.
pub(crate) fn deployment() -> DeploymentId {
    uuid::Uuid::from_u128(0xd0).into()
}

/// The user that the tests run as.
pub(crate) fn own_user() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A key whose owner may sign in to the guests.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop";

/// A desired state with these assignments. Their guests let the owner of [`KEY`] sign in, and say hello at their first boot.
pub(crate) fn desired(assignments: &[Assignment], versions: &Versions) -> Desired {
    let nothing = Known::nothing(Incarnation { number: 1, random: 1 }).desired;
    let hello = "#!/bin/sh\necho \"hello from $(hostname)\"\n".to_owned();
    let seed = Seed { ssh_keys: vec![KEY.to_owned()], user_data: Some(hello) };
    let seeds = BTreeMap::from([(deployment(), seed)]);
    Desired { assignments: assignments.to_vec(), versions: versions.clone(), seeds, ..nothing }
}

/// An instance that is to run without a guest, ready as soon as it does.
pub(crate) fn bare_instance(disk: DiskAssignment) -> Assignment {
    Assignment {
        instance: InstanceId::generate(),
        name: "web.0".to_owned(),
        host_name: "web-0".to_owned(),
        project: "default".to_owned(),
        generation: 1,
        wanted: Wanted::Running,
        boot: 1,
        stop_force: false,
        stop_timeout_s: 30,
        cpus: 1,
        memory_bytes: 1 << 20,
        runtime: Runtime::None,
        ready: Ready { probe: Probe::Running, marker: None, timeout_s: None },
        on_ready_timeout: OnReadyTimeout::default(),
        on_host_start: OnHostStart::default(),
        firmware: muster_api::firmware::Firmware::Bios,
        tpm: false,
        disks: vec![disk],
        left: Vec::new(),
        nics: Vec::new(),
        seed: None,
    }
}

/// A node without networks.
pub(crate) fn no_networks() -> Networks {
    let owner = Owner { cluster: ClusterId::generate(), node: NodeId::generate() };
    Networks::new(NetworkParts { data_dir: "/nowhere".into(), owner, tunnel: Err("none are tested".to_owned()) })
}

/// Guests that repeat what they hear, each on its serial console, its screen, and port 22.
pub(crate) fn guests() -> Opener {
    Arc::new(move |_, door| {
        Box::pin(async move {
            let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
            if !matches!(door, Door::Serial | Door::Screen | Door::Port(22)) {
                return Err(DoorError::Failed("the guest does not answer".to_owned()));
            }
            tokio::spawn(async move {
                let (mut from, mut to) = there.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
            Ok(Either::Left(here))
        })
    })
}

pub(crate) fn limits() -> PoolLimits {
    PoolLimits {
        hedge_get: Duration::from_millis(600),
        hedge_put: Duration::from_millis(600),
        silence: Duration::from_secs(6),
        patience_put: Duration::from_millis(600),
        ..PoolLimits::default()
    }
}

impl TestCluster {
    pub(crate) async fn of_memory(nodes: usize) -> Self {
        Self::new((0..nodes).map(|_| Arc::new(MemoryStore::new()) as Arc<dyn ChunkStore>).collect()).await
    }

    /// One node per store, all in one membership record of two copies.
    pub(crate) async fn new(stores: Vec<Arc<dyn ChunkStore>>) -> Self {
        let ca = TestCa::new();
        let mut nodes = Vec::new();
        for (number, store) in stores.into_iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
            let node = NodeId::generate();
            let identity = ca.identity(&node_tls_name(node));
            let member = Member {
                node,
                name: format!("node-{number}"),
                store: StoreId::generate(),
                address: listener.local_addr().expect("address").to_string(),
                zone: None,
                weight: 100,
                accepting: true,
                key_sha256: identity.key_sha256().expect("fingerprint"),
            };
            nodes.push((identity, member, store, listener));
        }
        let controller = ca.controller();
        let key_sha256 = controller.key_sha256().expect("fingerprint");
        let membership = Membership {
            cluster: ca.cluster,
            epoch: 1,
            min_copies: 2,
            members: nodes.iter().map(|n| n.1.clone()).collect(),
            clients: vec![Client { name: "controller".to_owned(), key_sha256, salvages: false }],
        };
        let client =
            PoolClient::with_limits(&controller, &ca.ca(), membership.clone(), None, limits()).expect("client");
        let mut cluster = Self { ca, nodes: Vec::new(), membership, client };
        for (identity, member, store, listener) in nodes {
            let local = Some((member.store, store.clone()));
            let membership = cluster.membership.clone();
            let pool =
                PoolClient::with_limits(&identity, &cluster.ca.ca(), membership, local, limits()).expect("client");
            let data = tempfile::tempdir().expect("folder");
            let stop = CancellationToken::new();
            let losses = Arc::new(Losses::open(data.path(), store.as_ref()));
            let (asked, listener) = (Arc::default(), Some(listener));
            let mut node = TestNode { identity, member, store, losses, asked, pool, stop, data, listener };
            cluster.open(&mut node);
            cluster.nodes.push(node);
        }
        cluster
    }

    fn open(&self, node: &mut TestNode) {
        let listener = node.listener.take().expect("not open yet");
        self.serve(node, listener, &node.identity, node.stop.clone());
    }

    /// What the peer server of a node answers.
    pub(crate) fn router(node: &TestNode, stop: CancellationToken) -> Router {
        routes(PeerServerParts {
            chunks: node.store.clone(),
            losses: node.losses.clone(),
            repair: node.asked.clone(),
            pool: node.pool.clone(),
            cuts: Arc::new(no_cuts(&node.pool, node.data.path())),
            console_dir: node.data.path().to_owned(),
            consoles: Consoles::new(guests(), node.data.path().to_owned(), stop),
            machines: None,
        })
    }

    fn serve(&self, node: &TestNode, listener: TcpListener, identity: &Identity, stop: CancellationToken) {
        let router = Self::router(node, stop.clone());
        let tls = server_config(identity, &self.ca.ca(), ClientCertificates::Current).expect("TLS");
        let limits = ServeLimits { drain: Duration::from_millis(50), ..ServeLimits::default() };
        tokio::spawn(serve(listener, Some(tls), router, stop, limits));
    }

    /// Opens a second door of a node, where it shows another identity. Returns its address, and what closes it.
    pub(crate) async fn open_beside(&self, at: usize, identity: &Identity) -> (SocketAddr, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let stop = CancellationToken::new();
        self.serve(&self.nodes[at], listener, identity, stop.clone());
        (address, stop.drop_guard())
    }

    /// Nodes whose own store has the object.
    pub(crate) fn holders(&self, record: &Record) -> Vec<usize> {
        let has = |n: &TestNode| n.store.contains(&record.name()).expect("store");
        (0..self.nodes.len()).filter(|at| has(&self.nodes[*at])).collect()
    }
}

pub(crate) fn chunk(number: u32) -> Record {
    let body: Vec<u8> =
        (0..16_384_u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) ^ number).to_le_bytes()).collect();
    Record::encode(Kind::Chunk, Salt::SHARED, Some(ChunkSize::DEFAULT), &body, Compression::Off)
}

pub(crate) fn page(number: u32) -> Record {
    Record::encode(Kind::Page, Salt::SHARED, None, format!("page {number}").as_bytes(), Compression::Off)
}

/// Waits until `wanted` holds.
pub(crate) async fn eventually(what: &str, mut wanted: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    while !wanted() {
        assert!(tokio::time::Instant::now() < limit, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
