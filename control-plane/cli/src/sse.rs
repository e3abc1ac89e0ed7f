//! Server-sent events: bytes in, events out. Pure; whoever reads the connection feeds it.

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// `event:`; empty is the default kind.
    pub(crate) kind: String,
    /// `id:`, as last seen.
    pub(crate) id: String,
    /// `data:` lines joined by newlines.
    pub(crate) data: String,
}

/// Splits a stream into events, whatever the boundaries of the pieces it arrives in.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    kind: String,
    id: String,
    data: Vec<String>,
    after_carriage_return: bool,
}

/// A line longer than this is not one of ours.
const LINE_BYTES_MAX: usize = 4 << 20;

impl Parser {
    /// Takes the next piece; calls `sink` for each event it completes. False when a line is absurdly long.
    pub(crate) fn feed(&mut self, piece: &[u8], mut sink: impl FnMut(Message)) -> bool {
        for &byte in piece {
            let follows_return = std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    if let Some(message) = self.end_of_line(&String::from_utf8_lossy(&line)) {
                        sink(message);
                    }
                }
                _ => self.line.push(byte),
            }
            if self.line.len() > LINE_BYTES_MAX {
                return false;
            }
        }
        true
    }

    fn end_of_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then(|| Message { kind, id: self.id.clone(), data: data.join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "data" => self.data.push(value.to_owned()),
            // A comment (empty field) keeps the connection alive; unknown fields are ignored.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<Message> {
        let mut parser = Parser::default();
        let mut out = Vec::new();
        for piece in pieces {
            assert!(parser.feed(piece, |m| out.push(m)));
        }
        out
    }

    #[test]
    fn events_survive_any_cut_of_the_stream() {
        let text =
            b": hello\n\nid: 7\nevent: instance.state\ndata: {\"a\":\ndata: 1}\n\nid: 8\r\ndata: x\r\n\r\ndata: half";
        let whole = all(&[text]);
        assert_eq!(whole.len(), 2);
        assert_eq!(
            whole.first(),
            Some(&Message { kind: "instance.state".into(), id: "7".into(), data: "{\"a\":\n1}".into() })
        );
        assert_eq!(whole.last(), Some(&Message { kind: String::new(), id: "8".into(), data: "x".into() }));
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(all(&[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        assert!(!parser.feed(&vec![b'x'; LINE_BYTES_MAX + 1], |_| {}));
    }
}
