//! `muster event …`: what happened, as it happens.

use futures::StreamExt;
use serde_json::Value;

use super::Ctx;
use crate::{
    args::{EventCommand, EventFilter},
    client::{Call, Patience},
    failure::Failure,
    output::{Column, printable, text, words},
    sse,
};

const EVENTS: [Column; 5] = [
    words("TIME", time),
    words("KIND", |v| text(v, "/kind")),
    words("TARGET", |v| text(v, "/target/name")),
    words("WHAT", what),
    words("ACTOR", |v| text(v, "/actor")),
];

/// `2026-01-01 00:00:00.123`, always as wide.
fn time(event: &Value) -> String {
    let text = text(event, "/time");
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    format!("{}.{fraction:0<3.3}", seconds.replace('T', " "))
}

fn what(event: &Value) -> String {
    let (state, reason) = (text(event, "/data/state"), text(event, "/data/reason"));
    if reason.is_empty() { state } else { format!("{state} ({reason})") }
}

fn call(filter: &EventFilter) -> Call {
    Call::to(&["v1", "events"]).with_each("deployment", &filter.deployment).with_each("label", &filter.label)
}

pub(super) async fn run(ctx: &Ctx, command: EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::Ls { filter } => {
            let call = call(&filter).with_some("after", filter.after.as_deref());
            ctx.list(&call, &EVENTS).await
        }
        EventCommand::Follow { filter } => follow(ctx, &filter).await,
    }
}

/// Prints events until Ctrl-C; a broken stream is taken up after the last event that was printed.
async fn follow(ctx: &Ctx, filter: &EventFilter) -> Result<(), Failure> {
    let mut last = filter.after.clone();
    let mut patience = Patience::new();
    loop {
        let call = call(filter).with_some("after", last.as_deref());
        let opened = ctx.client.events(&call, last.as_deref()).await;
        let mut pieces = match opened {
            Ok(response) => response.bytes_stream(),
            Err(Failure::Interrupted(_)) => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut parser = sse::Parser::default();
        let failure = loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = ctx.client.interrupt().cancelled() => return Ok(()),
            };
            let piece = match piece {
                Some(Ok(piece)) => piece,
                Some(Err(e)) => break ctx.client.classify(&e).0,
                None => break ctx.client.odd("the stream of events ended"),
            };
            let mut messages = Vec::new();
            if !parser.feed(&piece, |message| messages.push(message)) {
                return Err(ctx.client.odd("an endless line in the stream of events"));
            }
            for message in messages {
                patience = Patience::new();
                if message.kind == "reset" {
                    ctx.out.notes.say("events older than the ones kept are missing: list again what you follow");
                    last = (!message.id.is_empty()).then(|| message.id.clone());
                    continue;
                }
                show(ctx, &message)?;
                if !message.id.is_empty() {
                    last = Some(message.id);
                }
            }
        };
        match patience.pause(&ctx.client, None, failure).await {
            Err(Failure::Interrupted(_)) => return Ok(()),
            other => other?,
        }
    }
}

fn show(ctx: &Ctx, message: &sse::Message) -> Result<(), Failure> {
    let event: Value =
        serde_json::from_str(&message.data).map_err(|e| ctx.client.odd(&format!("an event that is not JSON: {e}")))?;
    if ctx.out.is_json() {
        return ctx.out.line(&event.to_string());
    }
    let (kind, target) = (text(&event, "/kind"), text(&event, "/target/name"));
    let line = format!("{}  {kind:20}  {target:24}  {}", time(&event), what(&event));
    ctx.out.line(printable(&line, false).trim_end())
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
            assert_eq!(time(&json!({"time": given})), shown);
        }
    }
}
