//! `muster top`, `muster whoami`, `muster api`.

use std::io::{IsTerminal, Read};

use reqwest::{Method, header};
use serde_json::Value;

use super::{Ctx, node::NODES};
use crate::{
    args::{Api, Top},
    client::Call,
    failure::Failure,
    output::{self, Column, counts, numbers, text, words},
    transfer,
};

const RUNNING: [Column; 5] = [
    words("OPERATION", |v| text(v, "/kind")),
    words("TARGET", |v| text(v, "/target/name")),
    words("STATE", |v| text(v, "/state")),
    words("PHASE", |v| text(v, "/phase")),
    numbers("DONE", |v| format!("{}/{}", text(v, "/progress/done"), text(v, "/progress/total"))),
];

/// Most lines of nodes and operations on one screen.
const TOP_ROWS: usize = 20;

pub(super) async fn whoami(ctx: &Ctx) -> Result<(), Failure> {
    let me = ctx.client.get(&Call::to(&["v1", "me"])).await?;
    ctx.out.thing(&me, || {
        ctx.out.facts(&[
            ("name", text(&me, "/name")),
            ("role", text(&me, "/role")),
            ("project", text(&me, "/project")),
            ("ends", text(&me, "/expires_at")),
            ("cluster", text(&me, "/cluster")),
            ("controller", format!("{} {}", ctx.client.base(), text(&me, "/version"))),
        ])
    })
}

/// The cluster on one screen, until Ctrl-C; once when nobody watches.
pub(super) async fn top(ctx: &Ctx, top: &Top) -> Result<(), Failure> {
    let once = top.once || ctx.out.is_json() || !std::io::stdout().is_terminal();
    loop {
        let summary = match ctx.client.get(&Call::to(&["v1", "summary"])).await {
            Err(Failure::Interrupted(_)) => return Ok(()),
            other => other?,
        };
        if ctx.out.is_json() {
            return ctx.out.thing(&summary, String::new);
        }
        let screen = screen(ctx, &summary).await?;
        if once {
            return ctx.out.line(screen.trim_end());
        }
        // Home, then each line up to its end, then what an earlier, longer screen left below.
        let lines = screen.replace('\n', "\x1b[K\n");
        output::bytes(format!("\x1b[H{lines}\x1b[J").as_bytes())?;
        tokio::select! {
            () = tokio::time::sleep(top.interval) => {}
            () = ctx.client.interrupt().cancelled() => return Ok(()),
        }
    }
}

async fn screen(ctx: &Ctx, summary: &Value) -> Result<String, Failure> {
    let mut screen = ctx.out.facts(&[
        ("deployments", counts(summary, "/deployments")),
        ("instances", counts(summary, "/instances")),
        ("images", counts(summary, "/images")),
        ("snapshots", counts(summary, "/snapshots")),
        ("nodes", counts(summary, "/nodes")),
    ]);
    let problems = summary.get("problems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for problem in problems {
        let line = format!("{} x {}: {}", text(problem, "/count"), text(problem, "/kind"), text(problem, "/detail"));
        screen += &format!("! {}\n", output::printable(&line, false));
    }
    // Tenants see no nodes.
    if summary.pointer("/nodes").and_then(Value::as_object).is_some_and(|nodes| !nodes.is_empty()) {
        let nodes = first_page(ctx, Call::to(&["v1", "nodes"])).await?;
        screen += &format!("\n{}", ctx.out.table(&NODES, &nodes));
    }
    let running = ["pending".to_owned(), "running".to_owned(), "cancelling".to_owned()];
    let operations = first_page(ctx, Call::to(&["v1", "operations"]).with_each("state", &running)).await?;
    if !operations.is_empty() {
        screen += &format!("\n{}", ctx.out.table(&RUNNING, &operations));
    }
    Ok(screen)
}

async fn first_page(ctx: &Ctx, call: Call) -> Result<Vec<Value>, Failure> {
    let mut page = ctx.client.get(&call.with("limit", TOP_ROWS)).await?;
    match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// Any call, its answer as it comes: JSON laid out for reading at a terminal, everything else untouched.
pub(super) async fn api(ctx: &Ctx, api: Api) -> Result<(), Failure> {
    let method = match api.method.to_ascii_uppercase().as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        other => return Err(Failure::Usage(format!("expected GET, POST, PUT, PATCH or DELETE, got '{other}'"))),
    };
    let body = match api.body.as_deref() {
        None => None,
        Some("-") => {
            let mut all = Vec::new();
            std::io::stdin().read_to_end(&mut all).map_err(Failure::file("-"))?;
            Some(all)
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => Some(std::fs::read(path).map_err(Failure::file(path))?),
            None => Some(text.as_bytes().to_vec()),
        },
    };
    let response = ctx.client.raw(method, &api.path, body).await?;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") || !std::io::stdout().is_terminal() {
        return transfer::to_stdout(&ctx.client, response).await;
    }
    let answer: Value = response.json().await.map_err(|e| ctx.client.odd(&e.to_string()))?;
    ctx.out.line(&serde_json::to_string_pretty(&answer).unwrap_or_default())
}
