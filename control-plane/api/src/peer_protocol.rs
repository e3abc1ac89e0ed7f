//! What peers say to each other, under `/peer/v1` on the agents' `--listen`, always over mutual TLS. Callers are the
//! members and clients of the signed membership record, known by their key.
//!
//! Objects travel as the records of `storage-core/FORMAT.md` (header and stored payload), one after the other.
//!
//! | call | body -> answer |
//! |---|---|
//! | `POST /peer/v1/objects/get` | up to [`NAMES_MAX`] names of 32 bytes -> one record per name, in order; an absent one is a header of kind 0 with the name and no payload |
//! | `POST /peer/v1/objects/put` + [`ROUND_HEADER`] | records -> [`PutAnswer`] once all of them are on stable storage |
//! | `POST /peer/v1/objects/touch` + [`ROUND_HEADER`] | names -> one byte per name: 1 = here and stamped durably with the round, 0 = absent |
//! | `POST /peer/v1/cuts/{snapshot}/{attempt}/{step}` | [`CutStep`] one of prepare, hold, flip, abort -> [`CutStepAnswer`] |
//! | `GET /peer/v1/instances/{instance}/log?tail_bytes=N` | clients (controllers) only -> console output |

use serde::{Deserialize, Serialize};

use crate::{DiskId, node_protocol::CutMember};

/// Most names in one request.
pub const NAMES_MAX: usize = 256;
/// Most payload bytes in one put; a larger batch is sent in several.
pub const PUT_BYTES_MAX: usize = 64 << 20;
/// The round objects are stamped with, decimal.
pub const ROUND_HEADER: &str = "muster-round";
/// Header with the id of the request this call works for.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The batch is durable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Objects that were not here before.
    pub stored: u64,
    /// Objects that were, and are stamped now.
    pub touched: u64,
    /// Bytes newly stored, headers not counted.
    pub stored_bytes: u64,
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
