//! Consoles as a controller opens them: over mutual TLS, through the peer server of a node.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_api::{
    InstanceId,
    console::{ConsoleEvent, ConsoleKind, ConsoleMode, OpenConsole},
    peer_protocol::console_path,
};
use muster_pool::{PoolClient, TunnelError};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use crate::support::TestCluster;

const WAIT: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(600);

type Socket = WebSocketStream<reqwest::Upgraded>;

async fn open(client: &PoolClient, cluster: &TestCluster, path: &str) -> Result<Socket, TunnelError> {
    let key = generate_key();
    let said = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, &key),
    ];
    let headers: HeaderMap =
        said.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).into_iter().collect();
    let tunnel = client.tunnel(cluster.nodes[0].member.node, path, headers, WAIT).await?;
    assert_eq!(tunnel.headers[header::SEC_WEBSOCKET_ACCEPT], derive_accept_key(key.as_bytes()));
    Ok(WebSocketStream::from_raw_socket(tunnel.stream, Role::Client, None).await)
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        match timeout(WAIT, socket.next()).await.expect("in time").expect("open").expect("a message") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

fn event(message: &Message) -> ConsoleEvent {
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

fn open_port(port: u16) -> OpenConsole {
    OpenConsole { kind: ConsoleKind::Port, port: Some(port), ..OpenConsole::SERIAL }
}

#[tokio::test]
async fn two_watch_a_serial_console_and_one_types() {
    let cluster = TestCluster::of_memory(1).await;
    let instance = InstanceId::generate();
    std::fs::write(cluster.nodes[0].data.path().join(format!("{instance}.log")), "booted\n").unwrap();
    let path = console_path(instance, &OpenConsole::SERIAL, IDLE);
    let mut first = open(&cluster.client, &cluster, &path).await.unwrap();
    let mut second = open(&cluster.client, &cluster, &path).await.unwrap();
    for (socket, writes) in [(&mut first, true), (&mut second, false)] {
        assert_eq!(next(socket).await, Message::binary("booted\n"));
        assert_eq!(event(&next(socket).await) == ConsoleEvent::Writer, writes);
    }
    second.send(Message::binary("nobody hears this")).await.unwrap();
    first.send(Message::binary("ls")).await.unwrap();
    for socket in [&mut first, &mut second] {
        assert_eq!(next(socket).await, Message::binary("ls"));
    }
    first.close(None).await.unwrap();
    assert_eq!(event(&next(&mut second).await), ConsoleEvent::Writer, "the other one types now");
    second.send(Message::binary("pwd")).await.unwrap();
    assert_eq!(next(&mut second).await, Message::binary("pwd"));
}

#[tokio::test]
async fn a_port_carries_bytes_until_both_ends_are_done() {
    let cluster = TestCluster::of_memory(1).await;
    let path = console_path(InstanceId::generate(), &open_port(22), IDLE);
    let mut socket = open(&cluster.client, &cluster, &path).await.unwrap();
    socket.send(Message::binary("SSH-2.0-test")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("SSH-2.0-test"));
    socket.send(Message::text(r#"{"order":"end"}"#)).await.unwrap();
    let ConsoleEvent::Ended { reason } = event(&next(&mut socket).await) else { panic!("it should end") };
    assert!(reason.contains("closed"), "{reason}");
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
}

#[tokio::test]
async fn a_console_that_nothing_goes_through_is_closed() {
    let cluster = TestCluster::of_memory(1).await;
    let path = console_path(InstanceId::generate(), &OpenConsole::SERIAL, Duration::from_secs(1));
    let mut socket = open(&cluster.client, &cluster, &path).await.unwrap();
    assert_eq!(event(&next(&mut socket).await), ConsoleEvent::Writer);
    let ConsoleEvent::Ended { reason } = event(&next(&mut socket).await) else { panic!("it should end") };
    assert_eq!(reason, "nothing was typed or printed for 1 s");
}

#[tokio::test]
async fn a_wish_that_cannot_be_is_refused_before_the_connection_is_a_console() {
    let cluster = TestCluster::of_memory(2).await;
    let instance = InstanceId::generate();
    let refused = async |client: &PoolClient, path: &str| match open(client, &cluster, path).await {
        Err(TunnelError::Refused { status, detail }) => (status, detail),
        other => panic!("{path}: expected a refusal, got {other:?}"),
    };
    let (status, detail) = refused(&cluster.client, &console_path(instance, &open_port(23), IDLE)).await;
    assert_eq!((status, detail.as_str()), (StatusCode::GATEWAY_TIMEOUT, "the guest does not answer"));
    let watch_and_take = OpenConsole { mode: Some(ConsoleMode::Read), take: Some(true), ..OpenConsole::SERIAL };
    let (status, _) = refused(&cluster.client, &console_path(instance, &watch_and_take, IDLE)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // Another node is a member and no controller.
    let (status, _) = refused(&cluster.nodes[1].pool, &console_path(instance, &OpenConsole::SERIAL, IDLE)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn consoles_end_with_the_agent() {
    let cluster = TestCluster::of_memory(1).await;
    let path = console_path(InstanceId::generate(), &OpenConsole::SERIAL, IDLE);
    let mut socket = open(&cluster.client, &cluster, &path).await.unwrap();
    assert_eq!(event(&next(&mut socket).await), ConsoleEvent::Writer);
    cluster.nodes[0].kill();
    let ConsoleEvent::Ended { reason } = event(&next(&mut socket).await) else { panic!("it should end") };
    assert!(reason.contains("agent of its node stops"), "{reason}");
}
