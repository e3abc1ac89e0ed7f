//! `muster top`, `muster whoami`, `muster api`.

use std::io::{IsTerminal, Read};

use muster_api::{
    node::Node,
    operation::Operation,
    pool::{DEFAULT_POOL, Pool},
    summary::{Me, Summary},
};
use reqwest::{Method, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Ctx, node::NODES, operation::done, pool::repaired, read_all};
use crate::{
    answer,
    args::{Api, Top},
    cells::{counts, optional, word},
    client::Call,
    failure::Failure,
    output,
    table::{Column, names, numbers, texts, words},
    transfer, units,
};

const RUNNING: [Column<Operation>; 5] = [
    words("OPERATION", |v| v.kind.clone()),
    names("TARGET", |v| v.target.name.clone()),
    words("STATE", |v| word(&v.state)),
    texts("PHASE", |v| v.phase.clone()),
    numbers("DONE", done),
];

/// Most rows of nodes and of operations on one screen.
const TOP_ROWS: usize = 20;

pub(super) async fn whoami(ctx: &Ctx) -> Result<(), Failure> {
    let text = |me: &Me| {
        ctx.out.facts(&[
            ("name", me.name.clone()),
            ("role", word(&me.role)),
            ("project", optional(me.project.as_ref())),
            ("ends", optional(me.expires_at)),
            ("cluster", me.cluster.to_string()),
            ("controller", format!("{} {}", ctx.client.base(), me.version)),
        ])
    };
    ctx.show(&Call::to(&["v1", "me"]), text).await
}

/// Shows the cluster on one screen until Ctrl-C, or once if standard output is not a terminal.
pub(super) async fn top(ctx: &Ctx, top: &Top) -> Result<(), Failure> {
    let once = top.once || !std::io::stdout().is_terminal();
    loop {
        let summary = match ctx.client.get(&Call::to(&["v1", "summary"])).await {
            Err(Failure::Interrupted(_)) => return Ok(()),
            other => other?,
        };
        if ctx.out.is_json() {
            return ctx.out.json(&summary);
        }
        let screen = screen(ctx, &answer::read(&summary)?).await?;
        if once {
            return ctx.out.line(screen.trim_end());
        }
        // Go to the top left, clear the rest of each line after writing it, then clear what is below.
        let lines = screen.replace('\n', "\x1b[K\n");
        output::bytes(format!("\x1b[H{lines}\x1b[J").as_bytes())?;
        tokio::select! {
            () = tokio::time::sleep(top.interval) => {}
            () = ctx.client.interrupt().cancelled() => return Ok(()),
        }
    }
}

async fn screen(ctx: &Ctx, summary: &Summary) -> Result<String, Failure> {
    let mut screen = ctx.out.facts(&[
        ("deployments", counts(&summary.deployments)),
        ("instances", counts(&summary.instances)),
        ("images", counts(&summary.images)),
        ("snapshots", counts(&summary.snapshots)),
        ("nodes", counts(&summary.nodes)),
    ]);
    for problem in &summary.problems {
        screen += &ctx.out.item('!', &format!("{} x {}: {}", problem.count, problem.kind, problem.detail));
    }
    // Tenants see no nodes.
    if !summary.nodes.is_empty() {
        let pool: Pool = answer::read(&ctx.client.get(&Call::to(&["v1", "pools", DEFAULT_POOL])).await?)?;
        let held = units::bytes(pool.usage.used_bytes);
        screen += &ctx.out.facts(&[("pool", format!("{held}; {}", repaired(&pool.repair)))]);
        let nodes: Vec<Node> = first_page(ctx, Call::to(&["v1", "nodes"])).await?;
        screen += &format!("\n{}", ctx.out.table(&NODES, &nodes));
    }
    let running = ["pending".to_owned(), "running".to_owned(), "cancelling".to_owned()];
    let operations = first_page(ctx, Call::to(&["v1", "operations"]).with_each("state", &running)).await?;
    Ok(screen + &ctx.out.section(&RUNNING, &operations))
}

async fn first_page<T: Serialize + DeserializeOwned>(ctx: &Ctx, call: Call) -> Result<Vec<T>, Failure> {
    read_all(&ctx.client.page(&call.with("limit", TOP_ROWS)).await?.items)
}

/// Makes any call and prints the answer as it is; only at a terminal JSON is laid out for reading.
pub(super) async fn api(ctx: &Ctx, api: Api) -> Result<(), Failure> {
    let method = match api.method.to_ascii_uppercase().as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        other => return Err(Failure::Usage(format!("expected GET, POST, PUT, PATCH or DELETE, got '{other}'"))),
    };
    let body = api.body.as_deref().map(body_bytes).transpose()?;
    let response = ctx.client.raw(method, &api.path, body).await?;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") || !std::io::stdout().is_terminal() {
        return transfer::to_stdout(&ctx.client, response).await;
    }
    let answer: Value = response.json().await.map_err(|e| ctx.client.odd(&e.to_string()))?;
    ctx.out.json(&answer)
}

/// The body itself, the content of `@FILE`, or standard input for `-`.
fn body_bytes(text: &str) -> Result<Vec<u8>, Failure> {
    if text == "-" {
        let mut all = Vec::new();
        std::io::stdin().read_to_end(&mut all).map_err(Failure::file("-"))?;
        return Ok(all);
    }
    match text.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(Failure::file(path)),
        None => Ok(text.as_bytes().to_vec()),
    }
}
