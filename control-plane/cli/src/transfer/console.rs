//! What a guest wrote to its serial console.

use std::io::{self, IsTerminal, Write};

use super::{next_piece, to_stdout};
use crate::{client::Client, failure::Failure, output::stdout_failed};

/// Copies console output to standard output. A file or pipe gets it as it is; for a terminal it is filtered.
pub(crate) async fn console_to_stdout(client: &Client, mut response: reqwest::Response) -> Result<(), Failure> {
    let mut out = io::stdout();
    if !out.is_terminal() {
        return to_stdout(client, response).await;
    }
    let mut filter = Filter::default();
    while let Some(piece) = next_piece(client, &mut response).await? {
        out.write_all(&filter.text(&piece)).map_err(stdout_failed)?;
        // A prompt has no line end, and whoever follows wants to see it.
        out.flush().map_err(stdout_failed)?;
    }
    if filter.last.is_some_and(|last| last != b'\n') {
        out.write_all(b"\n").map_err(stdout_failed)?;
    }
    out.flush().map_err(stdout_failed)
}

/// Removes escape sequences and control characters. A guest could otherwise move the cursor, or make the terminal type
/// an answer into the reader's shell. A sequence may be cut anywhere between two pieces.
#[derive(Debug, Default)]
struct Filter {
    state: Escape,
    /// The last byte that was kept.
    last: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Text,
    /// After ESC.
    Begun,
    /// In `ESC [ …`, which a letter ends.
    Sequence,
    /// In `ESC ] …` or a similar sequence, which BEL or `ESC \` ends.
    Message,
}

impl Filter {
    fn text(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(piece.len());
        for &byte in piece {
            self.state = match (self.state, byte) {
                (_, 0x1b) => Escape::Begun,
                (Escape::Text, _) => {
                    if byte == b'\n' || byte == b'\t' || !byte.is_ascii_control() {
                        kept.push(byte);
                    }
                    Escape::Text
                }
                (Escape::Begun, b'[') => Escape::Sequence,
                (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::Message,
                // Some sequences have one more byte, for example the choice of a character set.
                (Escape::Begun, 0x20..=0x2f) => Escape::Begun,
                (Escape::Sequence, 0x40..=0x7e) | (Escape::Message, 0x07) | (Escape::Begun, _) => Escape::Text,
                (Escape::Sequence | Escape::Message, _) => self.state,
            };
        }
        self.last = kept.last().copied().or(self.last);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_a_guest_are_removed_wherever_they_are_cut() {
        let text = b"a\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07b\x1b(B\x1bPdcs\x1b\\c\x1b[6n\x07\td\xc3\xa9";
        let expected = "ared\nbc\td\u{e9}".as_bytes();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let mut filter = Filter::default();
            let kept = [filter.text(first), filter.text(second)].concat();
            assert_eq!(kept, expected, "cut at {cut}");
        }
    }
}
