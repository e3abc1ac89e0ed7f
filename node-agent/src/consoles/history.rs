//! What a console printed before somebody opened it, made fit to be printed again.

/// Removes the questions to a terminal: it would answer them once more, and the answers would be typed into the guest.
/// These are status and attribute requests (`ESC [ … n`, `ESC [ … c`), requests for settings (`ESC P … ESC \\`), what asks for
/// colours or the clipboard (`ESC ] … ? …`), and ENQ. A sequence that is cut at the end is removed as well.
pub(super) fn without_questions(output: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(output.len());
    let mut rest = output;
    while let Some((&byte, after)) = rest.split_first() {
        let length = match (byte, after.first()) {
            (0x1b, Some(b'[')) => control(rest),
            (0x1b, Some(b']' | b'P')) => text(rest),
            (0x1b, None) => None,
            _ => Some(1),
        };
        let Some(length) = length else { break };
        let (sequence, later) = rest.split_at(length);
        let asks = match sequence {
            [0x05] => true,
            [0x1b, b'[', .., b'n' | b'c'] | [0x1b, b'P', ..] => true,
            [0x1b, b']', body @ ..] => body.contains(&b'?'),
            _ => false,
        };
        if !asks {
            kept.extend_from_slice(sequence);
        }
        rest = later;
    }
    kept
}

/// Length of `ESC [ …`, which ends with a letter or similar; `None` if it is cut.
fn control(bytes: &[u8]) -> Option<usize> {
    bytes.iter().skip(2).position(|byte| (0x40..=0x7e).contains(byte)).map(|at| at + 3)
}

/// Length of `ESC ] …` or `ESC P …`, which ends with BEL or `ESC \\`; `None` if it is cut.
fn text(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().skip(2).position(|byte| matches!(byte, 0x07 | 0x1b))? + 2;
    match (bytes[end], bytes.get(end + 1)) {
        (0x07, _) => Some(end + 1),
        (_, Some(b'\\')) => Some(end + 2),
        // Another sequence begins: this one was given up.
        (_, Some(_)) => Some(end),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_left_out_and_everything_else_is_as_it_was() {
        for (printed, kept) in [
            (&b"plain \xc3\xa9\r\n"[..], &b"plain \xc3\xa9\r\n"[..]),
            (b"\x1b[31mred\x1b[0m\x1b[2J", b"\x1b[31mred\x1b[0m\x1b[2J"),
            (b"a\x1b[6nb\x1b[cc\x1b[>0cd\x05e", b"abcde"),
            (b"\x1b]0;title\x07x\x1b]11;?\x07y\x1b]52;c;?\x1b\\z", b"\x1b]0;title\x07xyz"),
            (b"\x1bP$qm\x1b\\after", b"after"),
            (b"cut \x1b[6", b"cut "),
            (b"cut \x1b]11;", b"cut "),
            (b"cut \x1b", b"cut "),
            (b"\x1b(B\x1bM", b"\x1b(B\x1bM"),
        ] {
            assert_eq!(without_questions(printed), kept, "{printed:?}");
        }
    }
}
