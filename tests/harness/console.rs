//! [`Console`]: a console of a guest, opened through the controller as a client does.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use muster_api::{InstanceId, console::ConsoleTicket};
use reqwest::{Method, StatusCode, Upgraded, header};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::client::generate_key, protocol::Role},
};

use crate::Api;

/// An open console.
pub struct Console {
    socket: WebSocketStream<Upgraded>,
    /// What it printed so far.
    pub printed: String,
}

impl Console {
    /// Opens a console; `open` is the body of the call.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(api: &Api, instance: InstanceId, open: Value) -> Self {
        let answer = api.post(&format!("/v1/instances/{instance}/console"), open).await;
        assert_eq!(answer.status, 201, "{:#}", answer.body);
        let ticket: ConsoleTicket = answer.ok();
        let request = api.request(Method::GET, &ticket.url).header(header::CONNECTION, "Upgrade");
        let request = request.header(header::UPGRADE, "websocket").header(header::SEC_WEBSOCKET_VERSION, "13");
        let answer = request.header(header::SEC_WEBSOCKET_KEY, generate_key()).send().await.expect("an answer");
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            panic!("{}: {}", answer.status(), answer.text().await.unwrap_or_default());
        }
        let stream = answer.upgrade().await.expect("a WebSocket");
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self { socket, printed: String::new() }
    }

    /// Types something.
    ///
    /// # Panics
    /// When the console is closed.
    pub async fn types(&mut self, text: &str) {
        self.socket.send(Message::binary(text.to_owned())).await.expect("an open console");
    }

    /// Waits until this was printed.
    ///
    /// # Panics
    /// When it was not printed within `limit`, or the console is closed before.
    pub async fn says(&mut self, text: &str, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.printed.contains(text) {
            match timeout_at(until, self.socket.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => self.printed += &String::from_utf8_lossy(&bytes),
                Ok(Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
                ended => panic!("no '{text}' within {limit:?}, but {ended:?}, after: {}", self.printed),
            }
        }
    }
}
