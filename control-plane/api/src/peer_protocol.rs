//! What agents answer to each other and to the controller beside objects, under `/peer/v1` on the agents' `--listen`,
//! always over mutual TLS. Objects are the pool's protocol (`storage-core/pool`), which shares the server.
//!
//! | call | body -> answer |
//! |---|---|
//! | `POST /peer/v1/cuts/{snapshot}/{attempt}/{step}` | [`CutStep`] one of prepare, hold, flip, abort -> [`CutStepAnswer`] |
//! | `GET /peer/v1/instances/{instance}/log?tail_bytes=N` | clients (controllers) only -> console output |

use serde::{Deserialize, Serialize};

use crate::{DiskId, InstanceId, SnapshotId, node_protocol::CutMember};

/// Header with the id of the request this call works for.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Path of a step of a cut, without the leading slash. `step` is prepare, hold, flip or abort.
#[must_use]
pub fn cut_step_path(snapshot: SnapshotId, attempt: u32, step: &str) -> String {
    format!("peer/v1/cuts/{snapshot}/{attempt}/{step}")
}

/// Path of the last `tail_bytes` of an instance's console output, without the leading slash.
#[must_use]
pub fn log_path(instance: InstanceId, tail_bytes: u64) -> String {
    format!("peer/v1/instances/{instance}/log?tail_bytes={tail_bytes}")
}

/// The disks a step is about. The member checks them against its own desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutStep {
    /// Disks of the called node.
    pub disks: Vec<DiskId>,
}

/// How a step went: all disks of the node, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutStepAnswer {
    /// Done. After flip: one entry per disk.
    Done {
        /// Empty but after flip.
        members: Vec<CutMember>,
    },
    /// Not done, and nothing changed.
    Refused {
        /// As in [`crate::node_protocol::CutResult::Failed`].
        reason: String,
        /// For people.
        detail: String,
    },
}
