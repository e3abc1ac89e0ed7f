//! `muster operation …`.

use muster_api::operation::{Operation, WaitingOn};
use serde_json::json;

use super::{Ctx, power_cut};
use crate::{
    args::OperationCommand,
    cells::{age, optional, word},
    client::Call,
    failure::Failure,
    progress::Progress,
    table::{Column, Order, SHORT_ID, ids, names, numbers, wide, words},
    wait,
};

/// Fewest digits of an id that are looked up.
const SHORT_ID_MIN: usize = 4;

const OPERATIONS: [Column<Operation>; 7] = [
    ids("ID", |v| v.id.to_string()),
    words("KIND", |v| v.kind.clone()),
    names("TARGET", |v| v.target.name.clone()),
    words("STATE", |v| word(&v.state)),
    wide(words("PHASE", |v| v.phase.clone())),
    numbers("DONE", done),
    numbers("AGE", |v| age(v.created_at)),
];

/// `web.1: starting, on n1, for 5s, gives up in 5m`.
fn waiting(on: &WaitingOn) -> String {
    let node = on.node_name.as_ref().map(|name| format!(", on {name}"));
    let end = on.deadline.map(|at| format!(", gives up {}", age(at)));
    format!("{}{}, for {}{}", on.what, optional(node), age(on.since), optional(end))
}

pub(super) fn done(operation: &Operation) -> String {
    format!("{}/{}", operation.progress.done, operation.progress.total)
}

fn operations() -> Call {
    Call::to(&["v1", "operations"])
}

pub(super) async fn run(ctx: &Ctx, command: OperationCommand) -> Result<(), Failure> {
    match command {
        OperationCommand::Ls { state, deployment, node } => {
            let call = operations().with_each("state", &state).with_each("deployment", &deployment);
            ctx.list(&call.with_each("node", &node), &OPERATIONS, Order::Time).await
        }
        OperationCommand::Show { operation } => {
            let id = full_id(ctx, &operation).await?;
            ctx.show(&operations().then(&id), |object| details(ctx, object)).await
        }
        OperationCommand::Wait { operations } => wait_for(ctx, operations).await,
        OperationCommand::Cancel { operation } => {
            let id = full_id(ctx, &operation).await?;
            let answer = ctx.client.post(&operations().then(&id).then("cancel"), &json!({})).await?;
            ctx.out.object(&answer.body, summary)
        }
    }
}

/// The id of the operation with this id, which may be in the short form that tables have: its last digits.
async fn full_id(ctx: &Ctx, given: &str) -> Result<String, Failure> {
    if given.len() < SHORT_ID_MIN || given.len() > SHORT_ID || !given.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(given.to_owned());
    }
    let mut found = Vec::new();
    let ending = given.to_ascii_lowercase();
    ctx.client
        .pages(&operations(), |items| {
            let ids = items.iter().filter_map(|item| item["id"].as_str());
            found.extend(ids.filter(|id| id.ends_with(&ending)).map(str::to_owned));
            Ok(())
        })
        .await?;
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::Usage(format!("no operation has an id that ends in '{given}'"))),
        several => Err(Failure::Usage(format!("several operations end in '{given}':\n  {}", several.join("\n  ")))),
    }
}

/// Waits for all operations.
async fn wait_for(ctx: &Ctx, ids: Vec<String>) -> Result<(), Failure> {
    let begin = async |id: String| ctx.client.get_object(&operations().then(&full_id(ctx, &id).await?)).await;
    let end = async |operation| {
        let progress = Progress::work(ctx.out.notes);
        let ended = wait::for_operation(&ctx.client, &progress, operation, ctx.until).await?;
        ctx.shown(ended.sent, summary)
    };
    ctx.each(ids, begin, end).await
}

fn summary(operation: &Operation) -> String {
    let Operation { kind, target, state, .. } = operation;
    format!("{kind} {}: {}{}", target.name, word(state), power_cut(operation))
}

fn details(ctx: &Ctx, operation: &Operation) -> String {
    let Operation { target, error, .. } = operation;
    let mut facts = vec![
        ("id", operation.id.to_string()),
        ("kind", operation.kind.clone()),
        ("target", format!("{} {}", target.kind, target.name)),
        ("state", word(&operation.state)),
        ("phase", operation.phase.clone()),
        ("done", format!("{} {}", done(operation), operation.progress.unit)),
        ("error", optional(error.as_ref().map(|e| &e.detail))),
        ("error code", optional(error.as_ref().map(|e| e.code))),
        ("deadline", optional(operation.deadline)),
        ("requested by", operation.requested_by.clone()),
        ("request id", operation.request_id.clone()),
        ("accepted", operation.created_at.to_string()),
        ("started", optional(operation.started_at)),
        ("finished", optional(operation.finished_at)),
    ];
    facts.extend(operation.waiting_on.iter().map(|on| ("waiting on", waiting(on))));
    ctx.out.facts(&facts)
}
