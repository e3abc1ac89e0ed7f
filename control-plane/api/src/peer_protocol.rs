//! What agents answer to each other and to the controller beside objects, under `/peer/v1` on the agents' `--listen`,
//! always over mutual TLS. Objects are the pool's protocol (`storage-core/pool`), which shares the server.
//!
//! | call | body -> answer |
//! |---|---|
//! | `POST /peer/v1/cuts/{snapshot}/{attempt}/{step}` | [`CutStepRequest`], the step is a [`CutStep`] -> [`CutStepAnswer`] |
//! | `GET /peer/v1/instances/{instance}/log?tail_bytes=N` | the last N bytes of console output; for clients (controllers) only |

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    DiskId, InstanceId, Reason,
    node_protocol::{CutKey, CutMember},
};

/// Header with the id of the request this call works for.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

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

/// A step of a cut, as the last part of the path. Each is asked of every node with members before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutStep {
    /// Do everything that takes time, while guests go on writing.
    Prepare,
    /// Hold new writes.
    Hold,
    /// Send new writes to the next epoch and let them go.
    Flip,
    /// Give the cut up: let held writes go, abandon what was flipped.
    Abort,
    /// A step this program does not know. It is refused.
    #[serde(other)]
    Unknown,
}

impl CutStep {
    /// The word in the path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Hold => "hold",
            Self::Flip => "flip",
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

/// The body of a step: the disks it is about. The member checks them against its own desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutStepRequest {
    /// All disks of the called node that are in the cut.
    pub disks: Vec<DiskId>,
}

/// How a step went: all disks of the node, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutStepAnswer {
    /// The step is done for all disks of the node.
    Done {
        /// After flip one entry per disk, else empty.
        members: Vec<CutMember>,
    },
    /// The step was not done, and nothing changed.
    Refused {
        /// As in [`crate::node_protocol::CutResult::Failed`].
        reason: Reason,
        /// What went wrong, in a sentence.
        detail: String,
    },
}
