//! Ways into a running guest: its serial console, its screen, and its TCP ports. `POST /v1/instances/{i}/console` gives a
//! [`ConsoleTicket`], whose URL is opened once as a WebSocket.
//!
//! ```text
//! client --- WebSocket ---> controller --- the same bytes, mutual TLS ---> agent ---> serial line, VNC server, TCP port
//! ```
//! Binary messages carry the bytes of the line, of RFB (VNC) or of the port, in both directions. Text messages carry one
//! [`ConsoleEvent`] from the node, or the one [`ConsoleOrder`] from the client.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What of a guest is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleKind {
    /// The serial console. Several may watch it, and one of them types.
    Serial,
    /// The screen, keyboard and mouse, by the RFB protocol of VNC.
    Vnc,
    /// A TCP port of the guest, reached from within the network of one of its cards. Security groups are not asked.
    Port,
}

impl ConsoleKind {
    /// The word as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Vnc => "vnc",
            Self::Port => "port",
        }
    }
}

impl fmt::Display for ConsoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether one who opens a serial console wants to type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleMode {
    /// To watch and to type. While another types, only to watch.
    #[default]
    Write,
    /// Only to watch.
    Read,
}

impl ConsoleMode {
    /// The word as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// Request of `POST /v1/instances/{instance}/console`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenConsole {
    /// What of the guest to open.
    pub kind: ConsoleKind,
    /// Only with kind `serial`: whether the client wants to type. Default: `write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ConsoleMode>,
    /// Only with kind `serial`: whether the client types from now on, although another does. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<bool>,
    /// With kind `port`, and only there: the TCP port of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl OpenConsole {
    /// A serial console to type into, as soon as nobody else does.
    pub const SERIAL: Self = Self { kind: ConsoleKind::Serial, mode: None, take: None, port: None };

    /// What is wrong with it, in a sentence; `None` if nothing is.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        let of_serial = self.mode.is_some() || self.take.is_some();
        match self.kind {
            ConsoleKind::Serial | ConsoleKind::Vnc if self.port.is_some() => Some("port goes with kind port only"),
            ConsoleKind::Vnc | ConsoleKind::Port if of_serial => Some("mode and take go with kind serial only"),
            ConsoleKind::Port if self.port.is_none_or(|port| port == 0) => Some("kind port needs a port, 1 to 65535"),
            ConsoleKind::Serial if self.mode == Some(ConsoleMode::Read) && self.take == Some(true) => {
                Some("one who only reads cannot take the keyboard")
            }
            ConsoleKind::Serial | ConsoleKind::Vnc | ConsoleKind::Port => None,
        }
    }
}

/// Answer of `POST /v1/instances/{instance}/console`: leave to open a console, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConsoleTicket {
    /// Path on the controller, with a secret in it. It is opened as a WebSocket.
    pub url: String,
    /// What it opens.
    pub protocol: ConsoleKind,
    /// It can be used until then.
    pub expires_at: Timestamp,
}

/// A text message from the node to the client of a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ConsoleEvent {
    /// The client may type from now on.
    Writer,
    /// What the client types is dropped from now on.
    Reader {
        /// Why, in a sentence for people.
        reason: String,
    },
    /// The client was too slow for the output, so a part of it was left out.
    Skipped {
        /// How many bytes are missing.
        bytes: u64,
    },
    /// Nothing comes any more. The connection is closed next.
    Ended {
        /// Why, in a sentence for people.
        reason: String,
    },
    /// An event that this program does not know. It can be ignored.
    #[serde(other)]
    Unknown,
}

/// A text message from the client of a console to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConsoleOrder {
    /// With kind `port`: the client sends nothing more, and still reads.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_belong_together_is_told() {
        let open = |kind, mode, take, port| OpenConsole { kind, mode, take, port };
        for good in [
            OpenConsole::SERIAL,
            open(ConsoleKind::Serial, Some(ConsoleMode::Read), Some(false), None),
            open(ConsoleKind::Vnc, None, None, None),
            open(ConsoleKind::Port, None, None, Some(22)),
        ] {
            assert_eq!(good.problem(), None, "{good:?}");
        }
        for bad in [
            open(ConsoleKind::Serial, None, None, Some(22)),
            open(ConsoleKind::Serial, Some(ConsoleMode::Read), Some(true), None),
            open(ConsoleKind::Vnc, Some(ConsoleMode::Write), None, None),
            open(ConsoleKind::Port, None, None, None),
            open(ConsoleKind::Port, None, None, Some(0)),
            open(ConsoleKind::Port, None, Some(true), Some(22)),
        ] {
            assert!(bad.problem().is_some(), "{bad:?}");
        }
    }

    #[test]
    fn an_event_of_a_newer_node_is_unknown() {
        let event: ConsoleEvent = serde_json::from_str(r#"{"event":"bell","times":3}"#).expect("read");
        assert_eq!(event, ConsoleEvent::Unknown);
    }
}
