//! Consoles of instances: a ticket for one, and the way through this controller to the node that has it.
//!
//! ```text
//! POST …/console  --> ticket, once, 60 s
//! GET /v1/consoles?ticket=…  --> the node is asked to open it --> 101, then bytes both ways until one end leaves,
//!                                                                 the token or session ends, or the controller does
//! ```
//! The WebSocket is between the client and the node's agent, which says what goes on. The controller passes its bytes on
//! and looks into none of them.

use std::{io, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use muster_api::{
    ErrorCode, InstanceId, NodeId, Ref,
    console::{ConsoleTicket, OpenConsole},
    instance::InstanceState,
    peer_protocol::{REQUEST_ID_HEADER, console_path},
};
use muster_pool::{Tunnel, TunnelError};
use serde_json::json;
use tokio::io::copy_bidirectional_with_sizes;
use tracing::Instrument as _;

use super::{
    super::{App, AppError, Asked, Caller, console_tickets::Ticket, events::no_stream, find, slots::Slot},
    change::event_of,
    log::check_guest,
};
use crate::{
    domain::instance::word,
    store::{events, instances::InstanceRow},
};

/// How long a node may take to open a console. It waits for the guest itself for 10 s.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// Room for bytes on their way, from the client and from the node. A screen sends much.
const FROM_CLIENT_BYTES: usize = 8 << 10;
const FROM_NODE_BYTES: usize = 64 << 10;

/// A console that a node has opened, before the client was told.
pub struct OpenedConsole {
    caller: Caller,
    row: InstanceRow,
    open: OpenConsole,
    tunnel: Tunnel,
    slot: Slot,
}

impl App {
    /// Gives a ticket for a console of an instance that runs.
    pub async fn console_ticket(
        &self,
        asked: &Asked<Ref<InstanceId>>,
        open: OpenConsole,
    ) -> Result<ConsoleTicket, AppError> {
        let (caller, wanted) = (&asked.caller, &asked.thing);
        if let Some(problem) = open.problem() {
            return Err(AppError::invalid("", "invalid", problem));
        }
        let row = self.store.read("instances.console", async |tx| find::instance(tx, caller, wanted).await).await?;
        asked.check_if_match(row.revision)?;
        check_runs(&row)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        let secret = hex::encode(secret);
        let ticket = Ticket { caller: caller.clone(), instance: row.id, open };
        let expires_at = self.console_tickets.give(&secret, ticket, self.clock.now());
        Ok(ConsoleTicket { url: format!("/v1/consoles?ticket={secret}"), protocol: open.kind, expires_at })
    }

    /// Uses a ticket up: asks the node of the instance to open the console for a client with this `Sec-WebSocket-Key`.
    pub async fn open_console(&self, ticket: &str, key: HeaderValue) -> Result<OpenedConsole, AppError> {
        let gone =
            || AppError::Unauthenticated("the ticket was used, is over 60 s old, or unknown: ask anew".to_owned());
        let Ticket { caller, instance, open } = self.console_tickets.take(ticket, self.clock.now()).ok_or_else(gone)?;
        if !self.is_still_good(&caller).await {
            return Err(caller.refused());
        }
        let slot = self.streams.take(&caller.token.to_string()).map_err(no_stream)?;
        let wanted = Ref::Id(instance);
        let row = self.store.read("instances.console", async |tx| find::instance(tx, &caller, &wanted).await).await?;
        let node = check_runs(&row)?;
        let headers: HeaderMap = [
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (header::SEC_WEBSOCKET_KEY, key),
        ]
        .into_iter()
        .chain(HeaderValue::from_str(&caller.request_id).ok().map(|id| (REQUEST_ID, id)))
        .collect();
        let path = console_path(row.id, &open, self.config.instances.console_idle_timeout);
        let tunnel = self.pool.tunnel(node, &path, headers, OPEN_WITHIN).await.map_err(|error| {
            tracing::info!(instance.id = %row.id, node.id = %node, "a console does not open: {error}");
            refused(&row, error)
        })?;
        let data = json!({ "console": open.kind, "mode": open.mode, "take": open.take, "port": open.port });
        let told = event_of("instance.console_opened", &row, &caller.name, data);
        // Nobody is let in whose opening is not written down.
        self.store.run_tx("instances.console", async |tx| events::append_many(tx, vec![told.clone()]).await).await?;
        Ok(OpenedConsole { caller, row, open, tunnel, slot })
    }

    /// Passes the bytes of an opened console on, in a task of its own, once the client's connection is a WebSocket.
    pub fn serve_console(&self, opened: OpenedConsole, client: OnUpgrade) {
        let OpenedConsole { caller, row, open, tunnel, slot } = opened;
        let app = self.clone();
        let span = tracing::info_span!("console", instance.id = %row.id, kind = %open.kind, token.id = %caller.token);
        let served = async move {
            let begun = tokio::time::Instant::now();
            tracing::info!("'{}' opened a console of {}", caller.name, row.name);
            let mut client = match client.await {
                Ok(client) => TokioIo::new(client),
                Err(error) => return tracing::info!(%error, "the client left before the console was open"),
            };
            let mut node = tunnel.stream;
            let passed = copy_bidirectional_with_sizes(&mut client, &mut node, FROM_CLIENT_BYTES, FROM_NODE_BYTES);
            let how = tokio::select! {
                passed = passed => ended(passed),
                () = app.token_ended(&caller) => "the token or session has ended".to_owned(),
                () = app.closing.cancelled() => "the controller stops".to_owned(),
            };
            tracing::info!("a console of {} was closed after {} s: {how}", row.name, begun.elapsed().as_secs());
            drop(slot);
        };
        tokio::spawn(served.instrument(span));
    }
}

/// How a console ended whose bytes were passed on, as the log tells it.
fn ended(passed: io::Result<(u64, u64)>) -> String {
    match passed {
        Ok((sent, got)) => format!("{sent} bytes were sent and {got} received"),
        // That is how `muster ssh` ends: ssh kills the command that makes its connection.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the other side left".to_owned(),
        Err(error) => format!("the connection broke: {error}"),
    }
}

impl OpenedConsole {
    /// The node's `Sec-WebSocket-Accept`, for the client. `None` if the node sent none.
    #[must_use]
    pub fn accept(&self) -> Option<&HeaderValue> {
        self.tunnel.headers.get(header::SEC_WEBSOCKET_ACCEPT)
    }
}

const REQUEST_ID: http::HeaderName = http::HeaderName::from_static(REQUEST_ID_HEADER);

/// The node of an instance whose guest may run, else why it has no console.
fn check_runs(row: &InstanceRow) -> Result<NodeId, AppError> {
    check_guest(row, "it has no console")?;
    let state = row.life.state;
    let runs = matches!(
        state,
        InstanceState::Starting | InstanceState::Running | InstanceState::Paused | InstanceState::Stopping
    );
    row.life.node.filter(|_| runs).ok_or_else(|| AppError::WrongState {
        kind: "instance",
        state: word(state).to_owned(),
        allowed: vec!["starting", "running", "paused", "stopping"],
    })
}

/// The refusal of a node, for the client. What a node says of a guest names no node.
fn refused(row: &InstanceRow, error: TunnelError) -> AppError {
    match error {
        // Also of a guest that does not answer: it is asked once, and who wants to wait for it asks again.
        TunnelError::Refused { status: StatusCode::CONFLICT | StatusCode::GATEWAY_TIMEOUT, detail } => {
            AppError::code(ErrorCode::WrongState, format!("{}: {detail}", row.name))
        }
        TunnelError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, detail } => {
            AppError::Unavailable(format!("{}: {detail}", row.name))
        }
        TunnelError::Refused { status: StatusCode::NOT_FOUND, .. } => {
            AppError::Unavailable(format!("the agent on the node of {} is too old for consoles: update it", row.name))
        }
        TunnelError::Refused { .. } | TunnelError::Pool(_) => {
            AppError::Unavailable(format!("the node of {} does not answer: try again", row.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_word_is_told_as_what_it_is() {
        let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed connection without sending close_notify");
        assert_eq!(ended(Err(gone)), "the other side left");
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        assert_eq!(ended(Err(reset)), "the connection broke: reset by peer");
        assert_eq!(ended(Ok((7, 9))), "7 bytes were sent and 9 received");
    }
}
