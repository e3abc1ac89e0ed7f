//! `muster event …`.

use std::num::NonZeroUsize;

use futures::StreamExt;
use muster_api::{Timestamp, event::Event};
use serde_json::Value;
use sse_core::{MessageEvent, SseDecoder, SseEvent};

use super::Ctx;
use crate::{
    answer,
    args::{EventCommand, EventFilter},
    cells::printable,
    client::{Call, Patience},
    failure::Failure,
    table::{Column, Order, names, texts, wide, words},
};

const EVENTS: [Column<Event>; 6] = [
    words("TIME", |v| time(v.time)),
    words("KIND", |v| v.kind.clone()),
    names("TARGET", |v| v.target.name.clone()),
    texts("WHAT", what),
    wide(words("ACTOR", |v| v.actor.clone())),
    wide(words("ID", |v| v.id.clone())),
];

/// Longest event that is read from a stream; the controller's are far shorter.
const EVENT_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(4 << 20).expect("not zero");

/// `2026-01-01 00:00:00.123`, always of the same width.
fn time(at: Timestamp) -> String {
    let text = at.to_string();
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    format!("{}.{fraction:0<3.3}", seconds.replace('T', " "))
}

/// `failed (disk_lost)`. What an event's data hold depends on its kind.
fn what(event: &Event) -> String {
    let field = |name| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("state"), field("reason")) {
        (state, "") => state.to_owned(),
        (state, reason) => format!("{state} ({reason})"),
    }
}

fn call(filter: &EventFilter, after: Option<&str>) -> Call {
    Call::to(&["v1", "events"])
        .with_each("deployment", &filter.deployment)
        .with_each("label", &filter.label)
        .with_some("after", after)
}

pub(super) async fn run(ctx: &Ctx, command: EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::Ls { filter } => ctx.list(&call(&filter, filter.after.as_deref()), &EVENTS, Order::Time).await,
        EventCommand::Follow { filter } => follow(ctx, &filter).await,
    }
}

/// Prints events until Ctrl-C. A stream that breaks is opened again after the last event that was printed.
async fn follow(ctx: &Ctx, filter: &EventFilter) -> Result<(), Failure> {
    let mut follower = Follower { ctx, last: filter.after.clone(), patience: Patience::new() };
    loop {
        let ended = match follower.read_stream(filter).await {
            Ok(broken) => follower.patience.pause(&ctx.client, None, broken).await,
            Err(failure) => Err(failure),
        };
        match ended {
            Err(Failure::Interrupted(_)) => return Ok(()),
            other => other?,
        }
    }
}

struct Follower<'a> {
    ctx: &'a Ctx,
    /// Id of the last event that was printed.
    last: Option<String>,
    patience: Patience,
}

impl Follower<'_> {
    /// Prints the events of one stream. Returns what broke it.
    async fn read_stream(&mut self, filter: &EventFilter) -> Result<Failure, Failure> {
        let client = &self.ctx.client;
        let last = self.last.as_deref();
        let mut pieces = client.events(&call(filter, last), last).await?.bytes_stream();
        let mut decoder = SseDecoder::with_limit(EVENT_BYTES_MAX);
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = client.interrupt().cancelled() => return Err(Failure::Interrupted(false)),
            };
            let mut piece = match piece {
                Some(Ok(piece)) => piece,
                Some(Err(e)) => return Ok(client.classify(&e).0),
                None => return Ok(client.odd("the stream of events ended")),
            };
            while let Some(decoded) = decoder.next(&mut piece) {
                match decoded {
                    Ok(SseEvent::Message(message)) => self.take(message)?,
                    Ok(SseEvent::Retry(_)) => {}
                    Err(_) => return Err(client.odd(&format!("an event of more than {EVENT_BYTES_MAX} bytes"))),
                }
            }
        }
    }

    fn take(&mut self, message: MessageEvent) -> Result<(), Failure> {
        self.patience = Patience::new();
        let id = message.last_event_id.as_deref().map(str::to_owned);
        if message.event == "reset" {
            self.ctx.out.notes.say("some events are too old and are missing here: list again what you follow");
            self.last = id;
            return Ok(());
        }
        match print(self.ctx, &message.data) {
            // One strange event does not end the following of all later ones.
            Err(misfit @ Failure::Misfit(_)) => self.ctx.out.notes.say(&misfit.to_string()),
            printed => printed?,
        }
        self.last = id.or(self.last.take());
        Ok(())
    }
}

fn print(ctx: &Ctx, data: &str) -> Result<(), Failure> {
    let sent: Value =
        serde_json::from_str(data).map_err(|e| ctx.client.odd(&format!("an event that is not JSON: {e}")))?;
    if ctx.out.is_json() {
        return ctx.out.line(&sent.to_string());
    }
    let event: Event = answer::read(&sent)?;
    let line = format!("{}  {:15}  {:15}  {}", time(event.time), event.kind, event.target.name, what(&event));
    ctx.out.line(&ctx.out.cut(printable(&line, false).trim_end()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_always_as_wide() {
        for (given, shown) in [
            ("2026-11-23T01:25:20.19315Z", "2026-11-23 01:25:20.193"),
            ("2026-11-23T01:25:20Z", "2026-11-23 01:25:20.000"),
            ("2026-11-23T01:25:20.4Z", "2026-11-23 01:25:20.400"),
        ] {
            assert_eq!(time(serde_json::from_value(json!(given)).expect("a time")), shown);
        }
    }

    /// Decodes pieces as [`Follower::read_stream`] does. Gives kind, id and data of each message.
    fn messages(pieces: &[&[u8]]) -> Vec<(String, Option<String>, String)> {
        let mut decoder = SseDecoder::with_limit(EVENT_BYTES_MAX);
        let mut out = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(decoded) = decoder.next(&mut piece) {
                if let SseEvent::Message(m) = decoded.expect("not too long") {
                    out.push((m.event.into_owned(), m.last_event_id.as_deref().map(str::to_owned), m.data));
                }
            }
        }
        out
    }

    #[test]
    fn events_survive_any_cut_of_the_stream() {
        let text =
            b": hello\n\nid: 7\nevent: instance.state\ndata: {\"a\":\ndata: 1}\n\nid: 8\r\ndata: x\r\n\r\ndata: half";
        let whole = messages(&[text]);
        let owned = |kind: &str, id: &str, data: &str| (kind.to_owned(), Some(id.to_owned()), data.to_owned());
        assert_eq!(whole, [owned("instance.state", "7", "{\"a\":\n1}"), owned("message", "8", "x")]);
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(messages(&[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_that_does_not_end_is_refused() {
        let mut decoder = SseDecoder::with_limit(EVENT_BYTES_MAX);
        let line = [b"data: ".as_slice(), &vec![b'x'; EVENT_BYTES_MAX.get()], b"\n"].concat();
        assert!(decoder.next(&mut &line[..]).is_none(), "an event may be as long as the limit");
        assert!(matches!(decoder.next(&mut &b"data: x"[..]), Some(Err(_))), "many lines are one event");
    }
}
