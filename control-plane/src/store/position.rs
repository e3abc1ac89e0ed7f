//! Positions: places in the one order of rows and events. Page tokens, `as_of` and event ids carry them as text that only
//! the cluster can read.
//!
//! Who could read them would learn how much the others do (I12): the difference between two positions is the number of
//! rows and events in between. A [`Seal`] turns a position into text and back with a key of the cluster, so every
//! controller reads what another one wrote, also after a restart.
//!
//! ```text
//!  history (4) | seq (8) | noise (4)  --keyed BLAKE3--> tag (16)
//!                     XOR keyed BLAKE3 of the tag  ---> body (16)      text: base64url of tag and body
//! ```
//! This is the construction of SIV: the tag is also the nonce, and a text that was changed does not open. An event has no
//! noise, so its id stays the same. Elsewhere the noise is random. Two lists have different texts then whether something
//! happened in between or not.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
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

/// Bytes of a tag, and of a body.
const HALF: usize = 16;

/// Writes positions as text and reads them. The head of this file says how.
#[derive(Clone)]
pub struct Seal {
    tags: [u8; 32],
    bodies: [u8; 32],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(***)")
    }
}

impl Seal {
    /// The seal with this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let derived = |what: &[u8]| *blake3::keyed_hash(key, what).as_bytes();
        Self { tags: derived(b"tags of positions"), bodies: derived(b"bodies of positions") }
    }

    /// The id of the event at a position. It is always the same.
    #[must_use]
    pub fn event_id(&self, position: Position) -> String {
        self.text(position, 0)
    }

    /// A position for a page token or `as_of`. The text is another one each time.
    #[must_use]
    pub fn token(&self, position: Position) -> String {
        // Without a random number the text tells whether something happened, and nothing more.
        self.text(position, getrandom::u32().unwrap_or(0))
    }

    fn text(&self, position: Position, noise: u32) -> String {
        let mut plain = [0; HALF];
        plain[..4].copy_from_slice(&position.history.0.to_le_bytes());
        plain[4..12].copy_from_slice(&position.seq.to_le_bytes());
        plain[12..].copy_from_slice(&noise.to_le_bytes());
        let tag = self.tag(&plain);
        URL_SAFE_NO_PAD.encode([tag, self.masked(&tag, plain)].concat())
    }

    /// Reads what [`Self::event_id`] or [`Self::token`] of the same cluster wrote.
    ///
    /// # Errors
    /// It did not.
    pub fn open(&self, text: &str) -> Result<Position, NoPosition> {
        let read = || {
            let bytes: [u8; 2 * HALF] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
            let (tag, body) = bytes.split_first_chunk::<HALF>()?;
            let plain = self.masked(tag, body.try_into().ok()?);
            let (history, rest) = plain.split_first_chunk::<4>()?;
            let (seq, _noise) = rest.split_first_chunk::<8>()?;
            let position = Position { history: History(u32::from_le_bytes(*history)), seq: i64::from_le_bytes(*seq) };
            (self.tag(&plain) == *tag).then_some(position)
        };
        read().ok_or(NoPosition)
    }

    fn tag(&self, plain: &[u8; HALF]) -> [u8; HALF] {
        *blake3::keyed_hash(&self.tags, plain).as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    fn masked(&self, tag: &[u8; HALF], mut bytes: [u8; HALF]) -> [u8; HALF] {
        let mask = blake3::keyed_hash(&self.bodies, tag);
        bytes.iter_mut().zip(mask.as_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        bytes
    }
}

/// The text is no position of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a position: pass on what an answer gave you")]
pub struct NoPosition;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, random: u64, seq: i64) -> Position {
        Position { history: Incarnation { number, random }.into(), seq }
    }

    #[test]
    fn positions_read_as_they_are_written_on_every_controller_of_the_cluster() {
        let (here, there, elsewhere) = (Seal::new(&[7; 32]), Seal::new(&[7; 32]), Seal::new(&[8; 32]));
        for position in [at(1, 0, 0), at(1, u64::MAX, 1), at(7, 0x0123_4567_89ab_cdef, i64::MAX)] {
            for text in [here.event_id(position), here.token(position)] {
                assert_eq!(there.open(&text), Ok(position));
                assert_eq!(elsewhere.open(&text), Err(NoPosition));
            }
        }
    }

    #[test]
    fn what_no_controller_wrote_is_no_position() {
        let seal = Seal::new(&[7; 32]);
        let text = seal.event_id(at(1, 5, 77));
        for bad in ["", "0", "-", "é", "00000001-000000000001", &text[1..], &format!("{text}A")] {
            assert_eq!(seal.open(bad), Err(NoPosition), "{bad}");
        }
        for place in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(&String::from_utf8(changed).expect("ASCII")), Err(NoPosition), "{place}");
        }
    }

    #[test]
    fn the_text_of_a_position_tells_nothing_of_its_number() {
        let seal = Seal::new(&[7; 32]);
        let (first, second) = (seal.event_id(at(1, 5, 77)), seal.event_id(at(1, 5, 78)));
        assert_eq!(first, seal.event_id(at(1, 5, 77)), "an event keeps its id");
        let same = first.bytes().zip(second.bytes()).filter(|(a, b)| a == b).count();
        assert!(same < first.len() / 4, "{first} {second}");
        assert_ne!(seal.token(at(1, 5, 77)), seal.token(at(1, 5, 77)), "nothing happened, and nobody can tell");
    }

    #[test]
    fn another_incarnation_is_another_history() {
        let history = |number, random| History::from(Incarnation { number, random });
        assert_ne!(history(1, 5), history(2, 5));
        assert_ne!(history(1, 5), history(1, 6));
    }
}
