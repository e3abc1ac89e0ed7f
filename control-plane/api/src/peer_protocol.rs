//! The calls that agents answer for each other and for the controller, under `/peer/v1` on the address of `--listen`,
//! always over mutual TLS. The same server also answers the pool's protocol for objects (`storage-core/pool`).
//!
//! | call | body -> answer |
//! |---|---|
//! | `POST /peer/v1/cuts/{snapshot}/{attempt}/{step}` | [`CutStepRequest`] -> [`CutStepAnswer`]; the step is a [`CutStep`] |
//! | `POST /peer/v1/pool/losses/acknowledge` | what a controller saw as lost -> whether it is; then it is forgotten |
//! | `POST /peer/v1/pool/lost` | [`LostCopies`]: the caller, another node, lost copies that it should have; answered at once, and who has them sends them |
//! | `GET /peer/v1/instances/{instance}/log?tail_bytes=N` | the last N bytes of console output; only controllers may ask |
//! | `GET /peer/v1/instances/{instance}/log/after?bytes_max=N&place=P` | -> [`LogPart`]: console output after the place, or without one the last N bytes; only controllers may ask |
//! | `GET /peer/v1/instances/{instance}/console?kind=K&idle_s=N&…` | a WebSocket, see [`crate::console`]; the rest of the query is as in [`OpenConsole`]; only controllers may ask |
//! | `POST /peer/v1/instances/{instance}/exec` | [`ExecRequest`] -> [`ExecAnswer`]: runs a command in the guest; only controllers may ask |
//!
//! Every call states a checksum, and gets one with the answer (`storage-core/pool/src/checksum.rs`).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use storage_core::ObjectName;

use crate::{
    DiskId, InstanceId, Reason,
    console::OpenConsole,
    node_protocol::{CutKey, CutMember},
};

/// A call of this protocol. The table above says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of the module has a line for each")]
pub enum PeerCall {
    CutStep,
    AcknowledgeLosses,
    Lost,
    Log,
    LogAfter,
    Console,
    Exec,
}

impl PeerCall {
    /// All of them. The agent has the routes of these, so one that is missing here does not work.
    pub const ALL: [Self; 7] =
        [Self::CutStep, Self::AcknowledgeLosses, Self::Lost, Self::Log, Self::LogAfter, Self::Console, Self::Exec];

    /// Its path, in which `{…}` stands for an id or a word.
    #[must_use]
    pub const fn route(self) -> &'static str {
        match self {
            Self::CutStep => "/peer/v1/cuts/{snapshot}/{attempt}/{step}",
            Self::AcknowledgeLosses => "/peer/v1/pool/losses/acknowledge",
            Self::Lost => "/peer/v1/pool/lost",
            Self::Log => "/peer/v1/instances/{instance}/log",
            Self::LogAfter => "/peer/v1/instances/{instance}/log/after",
            Self::Console => "/peer/v1/instances/{instance}/console",
            Self::Exec => "/peer/v1/instances/{instance}/exec",
        }
    }
}

/// Header with the id of the user's request that caused this call, for logs.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Path for acknowledging what a node's share of the pool has lost, without the leading slash.
pub const LOSSES_PATH: &str = "peer/v1/pool/losses/acknowledge";

/// Path for telling another node of lost copies, without the leading slash.
pub const LOST_PATH: &str = "peer/v1/pool/lost";
/// Most names in one [`LostCopies`].
pub const LOST_NAMES_MAX: usize = 1024;

/// What the caller's share of the pool lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LostCopies {
    /// Its copies of these objects, at most [`LOST_NAMES_MAX`].
    Named(Vec<ObjectName>),
    /// Copies of which it does not know the names.
    Unnamed,
}

/// Path of a step of a cut, without the leading slash.
#[must_use]
pub fn cut_step_path(key: CutKey, step: CutStep) -> String {
    format!("peer/v1/cuts/{}/{}/{step}", key.snapshot, key.attempt)
}

/// Path of the last `tail_bytes` of an instance's console output, without the leading slash.
#[must_use]
pub fn log_path(instance: InstanceId, tail_bytes: u64) -> String {
    format!("peer/v1/instances/{instance}/log?tail_bytes={tail_bytes}")
}

/// Path of an instance's console output after `place`, without the leading slash.
#[must_use]
pub fn log_after_path(instance: InstanceId, place: Option<&str>, bytes_max: u64) -> String {
    let place = place.map(|place| format!("&place={place}")).unwrap_or_default();
    format!("peer/v1/instances/{instance}/log/after?bytes_max={bytes_max}{place}")
}

/// Path of a console of an instance, without the leading slash. It is closed when nothing went through it for `idle`.
#[must_use]
pub fn console_path(instance: InstanceId, open: &OpenConsole, idle: Duration) -> String {
    let OpenConsole { kind, mode, take, port } = open;
    let mut path = format!("peer/v1/instances/{instance}/console?kind={kind}&idle_s={}", idle.as_secs());
    let said = [
        ("mode", mode.map(|mode| mode.as_str().to_owned())),
        ("take", take.map(|take| take.to_string())),
        ("port", port.map(|port| port.to_string())),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={value}"));
        }
    }
    path
}

/// Path for running a command in the guest of an instance, without the leading slash.
#[must_use]
pub fn exec_path(instance: InstanceId) -> String {
    format!("peer/v1/instances/{instance}/exec")
}

/// A command for the guest of an instance. It is run without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program, as the guest agent finds it, and its arguments. Never empty.
    pub command: Vec<String>,
    /// What it reads as its standard input, base64.
    pub stdin_base64: Option<String>,
    /// How long the answer is waited for, seconds.
    pub timeout_s: u64,
}

/// What became of a command in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecAnswer {
    /// It ended.
    Ended(ExecEnded),
    /// It had not ended when the time was over. It goes on in the guest.
    StillRuns,
    /// There is no guest that runs.
    NotRunning,
    /// The guest agent does not run, or does not answer. It is not known whether the command was begun.
    NoGuestAgent(String),
    /// The guest agent answered that it does not do this, with these words.
    Refused(String),
}

/// How a command in a guest ended, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnded {
    /// The code that it ended with; `None` if a signal ended it.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// The beginning of what it wrote to its standard output, base64.
    pub stdout_base64: String,
    /// The beginning of what it wrote to its standard error, base64.
    pub stderr_base64: String,
    /// Whether one of the two was longer than what is here.
    pub truncated: bool,
}

/// A part of an instance's console output. As a body it is a line with the place, and then the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Where the next part begins: digits and `-`, which only the node understands.
    pub place: String,
    /// The output.
    pub bytes: Vec<u8>,
}

impl LogPart {
    /// Most bytes of the line with the place.
    pub const PLACE_BYTES_MAX: usize = 64;

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.place.as_bytes(), b"\n", &self.bytes].concat()
    }

    /// Reads a body; `None` if it is none.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let line = body.iter().take(Self::PLACE_BYTES_MAX).position(|byte| *byte == b'\n')?;
        let (place, rest) = body.split_at(line);
        let is_place = !place.is_empty() && place.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        let place = String::from_utf8(place.to_vec()).ok().filter(|_| is_place)?;
        Some(Self { place, bytes: rest[1..].to_vec() })
    }
}

/// A step of a cut: the last part of the path. The coordinator asks all nodes of the cut for one step before it begins
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutStep {
    /// Do everything that takes time. Guests go on writing meanwhile.
    Prepare,
    /// Have the guest agents of guests that run freeze their file systems. Only in a cut that says so.
    Freeze,
    /// Hold new writes.
    Hold,
    /// Make the next epoch the current one and let held writes continue, into that epoch.
    Flip,
    /// Thaw the file systems again. Refused if one of them was thawed before, so that it may have been written to during
    /// the cut.
    Thaw,
    /// Give up the cut: thaw, let held writes continue, and abandon the commits of disks that have flipped.
    Abort,
    /// A step that this program does not know. The node refuses it.
    #[serde(other)]
    Unknown,
}

impl CutStep {
    /// The word for this step in the path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Freeze => "freeze",
            Self::Hold => "hold",
            Self::Flip => "flip",
            Self::Thaw => "thaw",
            Self::Abort => "abort",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for CutStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of a step. The called node compares the disks with those of its own desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutStepRequest {
    /// All disks of the called node that are in the cut.
    pub disks: Vec<DiskId>,
}

/// The result of a step. It covers all disks of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutStepAnswer {
    /// The step is done for all disks of the node.
    Done {
        /// One entry per disk after a flip; empty after other steps.
        members: Vec<CutMember>,
    },
    /// The step was not done, and nothing changed.
    Refused {
        /// Why the node refused.
        reason: Reason,
        /// What went wrong, in a sentence for people.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_log_comes_back_as_it_was_sent() {
        let part = LogPart { place: "12-7".to_owned(), bytes: b"\nline\n".to_vec() };
        assert_eq!(LogPart::decode(&part.encode()), Some(part));
        for bad in [&b""[..], b"\n", b"1-2", b"../x\n", &[b'1'; 100]] {
            assert_eq!(LogPart::decode(bad), None, "{bad:?}");
        }
    }
}
