//! Consoles: a ticket by a call like any other, and then a WebSocket.

use futures::{SinkExt as _, StreamExt as _};
use muster_api::console::{ConsoleEvent, ConsoleOrder, ConsoleTicket, OpenConsole};
use reqwest::{Method, StatusCode, Upgraded, header};
use serde_json::json;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use super::{Call, Client, retry::Trouble};
use crate::{answer, failure::Failure};

/// An open console. Its two halves are used side by side.
pub(crate) struct OpenedConsole {
    pub(crate) from: FromGuest,
    pub(crate) to: ToGuest,
}

/// What comes from the guest.
pub(crate) struct FromGuest(futures::stream::SplitStream<WebSocketStream<Upgraded>>);

/// What goes to the guest.
pub(crate) struct ToGuest(futures::stream::SplitSink<WebSocketStream<Upgraded>, Message>);

/// One message from the guest's side.
#[derive(Debug)]
pub(crate) enum FromConsole {
    Bytes(Bytes),
    Event(ConsoleEvent),
    /// The connection is over; with what broke it, if it did not end in good order.
    Closed(Option<String>),
}

impl Client {
    /// Opens a console of an instance, with new tickets while the controller or the node is busy.
    pub(crate) async fn console(&self, instance: &str, open: &OpenConsole) -> Result<OpenedConsole, Failure> {
        let call = Call::to(&["v1", "instances", instance, "console"]);
        self.tries(super::Effect::Reads, async || {
            // Not with a key: each try needs a ticket of its own.
            let answer = self.answer(self.request(Method::POST, &call, None)?.json(&json!(open))).await?;
            let ticket: ConsoleTicket = answer::read(&answer.body).map_err(Failure::from)?;
            self.websocket(&ticket.url).await
        })
        .await
    }

    async fn websocket(&self, path: &str) -> Result<OpenedConsole, Trouble> {
        let key = generate_key();
        let request = self.http.get(self.below(path)?);
        let request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
        let request = request.header(header::SEC_WEBSOCKET_VERSION, "13").header(header::SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await.map_err(Trouble::Connection)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match response.status().is_success() {
                true => self.odd("it opens no WebSocket; is there a proxy in between?").into(),
                false => self.refusal(response).await,
            });
        }
        if response
            .headers()
            .get(header::SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|got| *got != derive_accept_key(key.as_bytes()))
        {
            return Err(self.odd("its WebSocket is for another request").into());
        }
        let stream = response.upgrade().await.map_err(Trouble::Connection)?;
        let (to, from) = WebSocketStream::from_raw_socket(stream, Role::Client, None).await.split();
        Ok(OpenedConsole { from: FromGuest(from), to: ToGuest(to) })
    }
}

impl FromGuest {
    pub(crate) async fn next(&mut self) -> FromConsole {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => return FromConsole::Bytes(bytes),
                Some(Ok(Message::Text(text))) => {
                    let event = serde_json::from_str(&text).unwrap_or(ConsoleEvent::Unknown);
                    return FromConsole::Event(event);
                }
                Some(Ok(Message::Close(_))) => return FromConsole::Closed(None),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return FromConsole::Closed(Some(error.to_string())),
                None => return FromConsole::Closed(Some("the connection broke".to_owned())),
            }
        }
    }
}

impl ToGuest {
    /// Sends bytes to the guest. An error means that the connection is over, which is also read.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), tungstenite::Error> {
        self.0.send(Message::Binary(bytes)).await
    }

    /// Says that nothing more is sent.
    pub(crate) async fn end(&mut self) -> Result<(), tungstenite::Error> {
        let order = serde_json::to_string(&ConsoleOrder::End).expect("an order is JSON");
        self.0.send(Message::Text(order.into())).await
    }

    /// Leaves the console in good order.
    pub(crate) async fn close(&mut self) {
        // The other side may be gone already.
        let _ = self.0.close().await;
    }
}
