//! The whole daemon: data folder, two doors over TLS, shutdown.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use muster_api::{
    node_protocol::{HeartbeatAnswer, JoinAnswer},
    token::{CreateToken, Role},
};
use muster_controller::{
    Server, build,
    clock::SystemClock,
    config::{Config, Doors},
    create_token, history,
    store::DatabaseUrl,
};
use muster_pool::{
    tls::{Ca, Identity, install_provider, pinned_client_config},
    transport::{CONTROLLER_TLS_NAME, NameTable, http_client},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::Agent;

fn config(dir: &std::path::Path) -> Config {
    let doors = Doors { listen: "127.0.0.1:0".parse().expect("an address"), ..Config::default().doors };
    Config { data_dir: dir.join("data"), doors, ..Config::default() }
}

async fn start(config: Config) -> Server {
    build(config, Arc::new(SystemClock)).await.expect("builds")
}

fn serve(server: Server) -> (CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(server.run(stop)))
}

async fn stop((stop, running): (CancellationToken, JoinHandle<anyhow::Result<()>>)) {
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("stops in time");
    ended.expect("no panic").expect("stops well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_through_one_door_and_works_through_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(config(dir.path())).await;
    let (url, node_door) = (server.url().expect("bound"), server.node_address().expect("bound"));
    let token = std::fs::read_to_string(dir.path().join("data/admin.token")).expect("the first token");
    let mode =
        |name: &str| std::fs::metadata(dir.path().join("data").join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("admin.token"), mode("ca.key"), mode("controller.key"), mode("")), (0o600, 0o600, 0o600, 0o700));
    let running = serve(server);

    let ca_pem = std::fs::read_to_string(dir.path().join("data/ca.pem")).expect("the CA");
    let root = reqwest::Certificate::from_pem(ca_pem.as_bytes()).expect("the CA");
    let person = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
    let made = person.post(format!("{url}/v1/tokens")).bearer_auth(token.trim()).json(&json!({ "role": "node" }));
    let made: Value = made.send().await.expect("answers").json().await.expect("JSON");
    let join_token: muster_api::token::JoinToken = made["token"].as_str().expect("text").parse().expect("a join token");

    // The agent knows only the fingerprint in its token.
    let ca_sha256: String = join_token.ca_sha256.iter().map(|b| format!("{b:02x}")).collect();
    let pinned = pinned_client_config(&ca_sha256).expect("a configuration");
    let joiner = reqwest::Client::builder().tls_backend_preconfigured(pinned).build().expect("a client");
    let mut agent = Agent::new("real");
    let asked = joiner.post(format!("{url}/node/v1/join")).bearer_auth(join_token.to_string());
    let asked = asked.json(&agent.join_request()).send().await.expect("answers");
    let joined: JoinAnswer = asked.json().await.expect("joined");
    assert_eq!((joined.node_port, joined.ca_pem.as_str()), (node_door.port(), ca_pem.as_str()));
    let wrong = pinned_client_config(&"0".repeat(64)).expect("a configuration");
    let fooled = reqwest::Client::builder().tls_backend_preconfigured(wrong).build().expect("a client");
    assert!(fooled.get(format!("{url}/healthz")).send().await.is_err());

    let identity = Identity::from_pem(&joined.certificate_pem, &agent.key.serialize_pem()).expect("an identity");
    let ca = Ca::from_pem(&joined.ca_pem).expect("a CA");
    let names = NameTable::new();
    names.set(CONTROLLER_TLS_NAME, &node_door.to_string());
    let node = http_client(&identity, &ca, names).expect("a client");
    agent.joined = Some(joined);
    let beat = |client: &reqwest::Client| {
        client.post(format!("https://{CONTROLLER_TLS_NAME}/node/v1/heartbeat")).json(&agent.beat())
    };
    let heard: HeartbeatAnswer = beat(&node).send().await.expect("answers").json().await.expect("heard");
    assert_eq!(heard.incarnation.number, 1);
    // Without a certificate the handshake fails, and the people's door does not speak the node protocol.
    let bare = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes()).expect("the CA")])
        .resolve(CONTROLLER_TLS_NAME, node_door)
        .build()
        .expect("a client");
    let knock = bare.post(format!("https://{CONTROLLER_TLS_NAME}:{}/node/v1/heartbeat", node_door.port()));
    assert!(knock.send().await.is_err());
    let elsewhere = person.post(format!("{url}/node/v1/heartbeat")).json(&agent.beat()).send().await.expect("answers");
    assert_eq!(elsewhere.status().as_u16(), 404);

    // A long-poll under way does not delay the shutdown.
    let revision = heard.desired_revision + 1;
    let poll = node.get(format!("https://{CONTROLLER_TLS_NAME}/node/v1/desired?after={revision}&wait_s=60"));
    let poll = tokio::spawn(poll.send());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while person.get(format!("{url}/healthz")).send().await.is_err() && std::time::Instant::now() < until {}
    let began = std::time::Instant::now();
    stop(running).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    poll.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_finds_what_the_first_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = start(config(dir.path())).await;
    let (cluster, epoch) = (first.app.cluster, first.app.pool.membership().epoch);
    // One daemon per folder.
    let second = build(config(dir.path()), Arc::new(SystemClock)).await.err().expect("refused");
    assert!(format!("{second:#}").contains("another controller uses"), "{second:#}");
    stop(serve(first)).await;
    let again = start(config(dir.path())).await;
    assert_eq!((&again.app.cluster, again.app.pool.membership().epoch), (&cluster, epoch));
    stop(serve(again)).await;
    // A database and a CA that do not belong together are refused.
    for file in ["ca.pem", "ca.key"] {
        std::fs::remove_file(dir.path().join("data").join(file)).expect("removed");
    }
    let foreign = build(config(dir.path()), Arc::new(SystemClock)).await.err().expect("refused");
    assert!(format!("{foreign:#}").contains("do not belong together"), "{foreign:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_made_beside_the_daemon_works_at_once_and_changes_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut served = config(dir.path());
    served.pool.min_copies = 1;
    served.doors.insecure_http = true;
    let server = start(served).await;
    let (app, url) = (server.app.clone(), server.url().expect("bound"));
    let running = serve(server);
    let wanted = CreateToken { name: None, role: Role::Admin, project: None, ttl_s: None, uses: None };
    // The command gets none of the options with which the daemon was started.
    let text = create_token(&config(dir.path()), Arc::new(SystemClock), &wanted).await.expect("a token");
    let me = reqwest::Client::new().get(format!("{url}/v1/me")).bearer_auth(text).send().await.expect("answers");
    assert_eq!(me.status().as_u16(), 200);
    app.follow_membership().await.expect("followed");
    assert_eq!((app.pool.membership().epoch, app.pool.membership().min_copies), (1, 1));
    stop(running).await;
}

#[tokio::test]
async fn serving_from_postgres_is_refused_in_words() {
    install_provider();
    let dir = tempfile::tempdir().expect("a folder");
    let database = Some(DatabaseUrl::Postgres("postgres://user:secret@nowhere/db".to_owned()));
    let refused = build(Config { database, ..config(dir.path()) }, Arc::new(SystemClock)).await.err().expect("refused");
    let text = format!("{refused:#}");
    assert!(text.contains("sqlite:") && !text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_door_and_the_metrics_door_work() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut plain = config(dir.path());
    plain.doors.insecure_http = true;
    plain.doors.metrics_listen = Some(free_address());
    let metrics = plain.doors.metrics_listen.expect("an address");
    let server = start(plain).await;
    let url = server.url().expect("bound");
    assert!(url.starts_with("http://"));
    let running = serve(server);
    let client = reqwest::Client::new();
    let ready = client.get(format!("{url}/readyz")).send().await.expect("answers");
    assert_eq!(ready.status().as_u16(), 200);
    let open = client.get(format!("http://{metrics}/metrics")).send().await.expect("answers");
    assert!(open.text().await.expect("text").contains("muster_membership_epoch"));
    let nothing_else = client.get(format!("http://{metrics}/v1/me")).send().await.expect("answers");
    assert_eq!(nothing_else.status().as_u16(), 404);
    stop(running).await;
}

fn free_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

/// The incarnation, and the names of the valid tokens.
async fn state(config: &Config) -> (u64, Vec<String>) {
    let server = start(config.clone()).await;
    let incarnation = server.app.incarnation().number;
    let list =
        async |tx: &mut muster_controller::store::Tx| muster_controller::store::tokens::list(tx, 0, None, 100).await;
    let tokens = server.app.store.read("test", list).await.expect("tokens");
    stop(serve(server)).await;
    (incarnation, tokens.into_iter().map(|token| token.name).collect())
}

async fn token(config: &Config, name: &str) {
    let wanted = CreateToken { name: name.parse().ok(), role: Role::Admin, project: None, ttl_s: None, uses: None };
    create_token(config, Arc::new(SystemClock), &wanted).await.expect("a token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_is_a_new_incarnation_and_names_the_tokens_that_came_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = config(dir.path());
    let backup = dir.path().join("muster.backup");
    let running = serve(start(config.clone()).await);
    token(&config, "old").await;
    history::backup(&config, &backup).await.expect("a backup of the running controller");
    let again = history::backup(&config, &backup).await.expect_err("it exists").to_string();
    assert!(again.contains("exists already"), "{again}");
    token(&config, "new").await;
    let refused = history::restore(&config, Arc::new(SystemClock), &backup).await.expect_err("it runs").to_string();
    assert!(refused.contains("another controller uses"), "{refused}");
    stop(running).await;
    // Deleted after the backup: the restore makes it valid again.
    let server = start(config.clone()).await;
    let old = server.app.store.read("test", async |tx| muster_controller::store::tokens::by_name(tx, "old").await);
    let old = old.await.expect("read").expect("the token").id;
    let deleted = server.app.store.run_tx("test", async |tx| muster_controller::store::tokens::delete(tx, old).await);
    assert!(deleted.await.expect("deleted"));
    stop(serve(server)).await;

    let restored = history::restore(&config, Arc::new(SystemClock), &backup).await.expect("restores");
    assert_eq!(restored.incarnation, 2);
    assert_eq!(restored.revived.len(), 1, "{:?}", restored.revived);
    assert!(restored.revived[0].starts_with("old (admin,"), "{:?}", restored.revived);
    assert!(restored.kept.expect("the database before").exists());
    assert_eq!(state(&config).await, (2, vec!["admin".to_owned(), "old".to_owned()]));
    // A second restore of the same backup is yet another history.
    assert_eq!(history::restore(&config, Arc::new(SystemClock), &backup).await.expect("restores").incarnation, 3);
    assert_eq!(state(&config).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_the_database_is_noticed_at_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = config(dir.path());
    let database = config.data_dir.join("muster.db");
    stop(serve(start(config.clone()).await)).await;
    let copy = std::fs::read(&database).expect("a copy");
    token(&config, "later").await;
    assert_eq!(state(&config).await.0, 1, "the high-water file follows");
    std::fs::write(&database, &copy).expect("the old copy is put in place");
    assert_eq!(state(&config).await, (2, vec!["admin".to_owned()]));
    assert_eq!(state(&config).await.0, 2, "noticed once");
    // The same copy again is older than the second incarnation, too.
    std::fs::write(&database, &copy).expect("the old copy is put in place");
    assert_eq!(state(&config).await.0, 3);
    // Without any database, no second cluster is made with the first one's CA.
    std::fs::remove_file(&database).expect("removed");
    let gone = build(config.clone(), Arc::new(SystemClock)).await.err().expect("refused").to_string();
    assert!(gone.contains("restore BACKUP"), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_foreign_backup_is_refused_and_changes_nothing() {
    let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (config, foreign) = (config(dir.path()), config(other.path()));
    stop(serve(start(config.clone()).await)).await;
    stop(serve(start(foreign.clone()).await)).await;
    let backup = dir.path().join("muster.backup");
    history::backup(&foreign, &backup).await.expect("a backup");
    let refused = history::restore(&config, Arc::new(SystemClock), &backup).await.expect_err("foreign").to_string();
    assert!(refused.contains("no backup of the cluster"), "{refused}");
    for damage in [b"no database".to_vec(), Vec::new(), std::fs::read(&backup).expect("read")[..20_000].to_vec()] {
        std::fs::write(&backup, damage).expect("written");
        history::restore(&config, Arc::new(SystemClock), &backup).await.expect_err("damaged");
    }
    assert_eq!(state(&config).await.0, 1);
    let left: Vec<_> =
        std::fs::read_dir(&config.data_dir).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("restoring")), "{left:?}");
}
