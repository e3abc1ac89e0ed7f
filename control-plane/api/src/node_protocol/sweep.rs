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
//! A node asks about names that it holds, and learns of each only whether something needs it (I12). The answer to `dead` and
//! to `judge` has the names that nothing needs, so what is missing in it is kept. Names travel as 32 bytes each, one after
//! the other, in ascending order, at most [`NAMES_MAX`] in a message ([`names_to_bytes`], [`names_from_bytes`]); `dead` has
//! ended when it answers none. The controller answers `wrong_state` (409) for a round that is not the one in its heartbeats:
//! the node gives that round up. Heartbeats name a round until the node has said that it is done, so
//! that one that has carried it out already says so once more.

use serde::{Deserialize, Serialize};
use storage_core::ObjectName;

/// Most names in one message of the sweep.
pub const NAMES_MAX: usize = 8192;

/// The body of a message with these names.
#[must_use]
pub fn names_to_bytes(names: &[ObjectName]) -> Vec<u8> {
    names.iter().flat_map(|name| *name.as_bytes()).collect()
}

/// The names in the body of a message.
///
/// # Errors
/// What is wrong with it: its length, too many names, or names that do not ascend.
pub fn names_from_bytes(body: &[u8]) -> Result<Vec<ObjectName>, String> {
    let (names, rest) = body.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(format!("names have 32 bytes each, got {} bytes", body.len()));
    }
    if names.len() > NAMES_MAX {
        return Err(format!("at most {NAMES_MAX} names may be in a message, got {}", names.len()));
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err("the names do not ascend".to_owned());
    }
    Ok(names.iter().map(|name| ObjectName::from_bytes(*name)).collect())
}

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
    /// Stored bytes of dropped objects that nothing had accounted for: no round told that they are dead, and they did not come
    /// of age. 0 from older agents, and of a round that had to ask about all objects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unexplained_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_whole_names_that_ascend_and_not_too_many() {
        let name = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            ObjectName::from_bytes(bytes)
        };
        let most: Vec<ObjectName> = (0..).map(name).take(NAMES_MAX).collect();
        for names in [&most[..0], &most[..1], &most] {
            assert_eq!(names_from_bytes(&names_to_bytes(names)).as_deref(), Ok(names));
        }
        let more: Vec<ObjectName> = (0..).map(name).take(NAMES_MAX + 1).collect();
        for (names, problem) in [(&more[..], "8192"), (&[name(2), name(1)], "ascend"), (&[name(2), name(2)], "ascend")]
        {
            let refused = names_from_bytes(&names_to_bytes(names)).expect_err("refused");
            assert!(refused.contains(problem), "{refused}");
        }
        assert!(names_from_bytes(&names_to_bytes(&most)[1..]).is_err());
    }
}
