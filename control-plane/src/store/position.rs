//! Positions: places in the one order of rows and events. Page tokens, `as_of` and event ids carry them; callers treat
//! them as opaque text.

use std::{fmt, str::FromStr};

use muster_api::node_protocol::Incarnation;

/// Which history a position belongs to. A database that was replaced by an older copy begins another history, in which
/// the same numbers are other rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History(u32);

impl From<Incarnation> for History {
    fn from(incarnation: Incarnation) -> Self {
        let mixed = incarnation.random ^ incarnation.number;
        let [a, b, c, d, e, f, g, h] = mixed.to_le_bytes();
        Self(u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h]))
    }
}

/// A place in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The history that it belongs to.
    pub history: History,
    /// The newest `seq` at it.
    pub seq: i64,
}

impl Position {
    /// A position that no history reaches.
    pub const LOST: Self = Self { history: History(0), seq: i64::MAX };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:012x}", self.history.0, self.seq)
    }
}

/// The text is no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a position: pass on what an answer gave you")]
pub struct NoPosition(String);

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        let parts =
            text.split_once('-').filter(|(a, b)| a.len() == 8 && (12..=16).contains(&b.len()) && hex(a) && hex(b));
        let read = |(history, seq)| {
            let history = History(u32::from_str_radix(history, 16).ok()?);
            Some(Self { history, seq: i64::from_str_radix(seq, 16).ok()? })
        };
        parts.and_then(read).ok_or_else(|| NoPosition(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_they_are_written() {
        for (number, random, seq) in [(1, 0, 0), (1, u64::MAX, 1), (7, 0x0123_4567_89ab_cdef, i64::MAX)] {
            let position = Position { history: Incarnation { number, random }.into(), seq };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for bad in ["", "0", "-", "00000001", "00000001-", "00000001-00000000000g", "+0000001-000000000001", "é"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
        assert!("00000001-ffffffffffffffff".parse::<Position>().is_err(), "negative");
    }

    #[test]
    fn another_incarnation_is_another_history() {
        let history = |number, random| History::from(Incarnation { number, random });
        assert_ne!(history(1, 5), history(2, 5));
        assert_ne!(history(1, 5), history(1, 6));
    }
}
