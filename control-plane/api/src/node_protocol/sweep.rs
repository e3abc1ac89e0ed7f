//! How nodes learn which of their objects nothing needs any more (I6).
//!
//! ```text
//! controller: round s begins: its counter is raised and all roots are listed, in one transaction
//!             the names that they reach are counted; names that nothing reaches since then are the dead of round s
//!             heartbeats are answered with round s
//! node:       fetches the dead of round s             (of a round that it missed it does not know them: it judges all)
//!             asks about objects that came of age     (stamp s - 2: stored or touched two rounds ago, and never judged since)
//!             asks about a part of all others         (what it should not have, for whatever reason, goes in time)
//!             drops those that nothing needs and that have a stamp below s - 1, gives the space back, says that it is done
//! ```
//! A node asks about names that it holds, and learns of each only whether something needs it (I12). Names travel as 32 bytes
//! each, one after the other, in ascending order, at most [`NAMES_MAX`] in a message. The controller answers `wrong_state`
//! (409) for a round that is not the one in its heartbeats: the node gives that round up.

use serde::{Deserialize, Serialize};

/// Most names in one message of the sweep.
pub const NAMES_MAX: usize = 8192;

/// A round of the sweep that nodes are to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRound {
    /// Number of the round.
    pub round: u64,
}

impl SweepRound {
    /// Objects with a stamp from here on are kept, whether anything reaches them or not: an upload may need them (I6).
    #[must_use]
    pub const fn below(self) -> u64 {
        self.round.saturating_sub(1)
    }
}

/// What a round of the sweep did on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepDone {
    /// Objects that were dropped.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
    /// Bytes that the node's disk got back. They may be those of earlier rounds.
    pub reclaimed_bytes: u64,
}
