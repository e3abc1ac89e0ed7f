//! What the guest agent of an instance tells, and commands that it runs: `GET` and `POST …/exec` of `/v1/instances/{i}`.
//!
//! All of it is the word of the guest. It is for people, and nothing is decided by it.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::MacAddress;

/// What the guest agent of an instance told since the instance was started. It is asked seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Guest {
    /// Whether the guest agent answered when it was last asked. If not, the rest is what it told before.
    pub answers: bool,
    /// Version of the guest agent.
    pub agent_version: Option<String>,
    /// The operating system of the guest.
    pub os: Option<GuestOs>,
    /// The host name that the guest has.
    pub host_name: Option<String>,
    /// Its network cards, without those for the guest itself. At most 16.
    pub interfaces: Vec<GuestInterface>,
    /// The file systems that it has mounted. At most 16.
    pub file_systems: Vec<GuestFileSystem>,
}

/// The operating system of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GuestOs {
    /// Its name for people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub name: Option<String>,
    /// Its short name, such as `debian`.
    pub id: Option<String>,
    /// Its version, such as `12`.
    pub version: Option<String>,
    /// The release of its kernel.
    pub kernel: Option<String>,
}

/// A network card as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GuestInterface {
    /// Its name in the guest.
    pub name: String,
    /// Its MAC address.
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
    /// Its addresses. At most 8.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// A file system that a guest has mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GuestFileSystem {
    /// Where it is mounted.
    pub mount: String,
    /// Its kind, such as `ext4`.
    pub kind: String,
    /// Its size in bytes; null if the guest agent does not tell.
    pub size_bytes: Option<u64>,
    /// How much of it is used, in bytes, to a hundredth of its size; null if the guest agent does not tell.
    pub used_bytes: Option<u64>,
}

/// Request of `POST /v1/instances/{i}/exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments, 64 KiB in all. It is run without a shell, by the user of the guest agent, which is
    /// mostly root.
    #[schema(min_items = 1)]
    pub command: Vec<String>,
    /// Seconds after which it is not waited for any more, 1 to 300. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// What it reads as its standard input, at most 256 KiB, written as `encoding` says. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How `stdin` is written. Default: `text`.
    #[serde(default)]
    pub encoding: Encoding,
}

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// They are UTF-8 and written as they are.
    #[default]
    Text,
    /// They are any bytes, in base64.
    Base64,
}

impl Encoding {
    /// How these bytes are written: as they are if they are UTF-8.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> (String, Self) {
        match String::from_utf8(bytes) {
            Ok(text) => (text, Self::Text),
            Err(error) => (STANDARD.encode(error.into_bytes()), Self::Base64),
        }
    }

    /// The bytes; `None` if they are not written in this way.
    #[must_use]
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(text.as_bytes().to_vec()),
            Self::Base64 => STANDARD.decode(text).ok(),
        }
    }
}

/// How a command in a guest ended, the answer of `POST /v1/instances/{i}/exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Executed {
    /// The code that it ended with; null if a signal ended it, or it still ran.
    pub exit_code: Option<i64>,
    /// The signal that ended it; null if it ended by itself.
    pub signal: Option<i64>,
    /// Whether it still ran when the time was over. It goes on in the guest, and what it prints is not known.
    pub timed_out: bool,
    /// What it wrote to its standard output, the first MiB, written as `encoding` says.
    pub stdout: String,
    /// What it wrote to its standard error, the first MiB, written as `encoding` says.
    pub stderr: String,
    /// How `stdout` and `stderr` are written: `base64` if one of them is not UTF-8.
    pub encoding: Encoding,
    /// Whether one of the two was longer than what is here.
    pub truncated: bool,
}
