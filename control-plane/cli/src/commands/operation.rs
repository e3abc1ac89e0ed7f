//! `muster operation …`.

use muster_api::operation::{Operation, WaitingOn};
use serde_json::json;

use super::{Ctx, filtered};
use crate::{
    args::OperationCommand,
    cells::{age, optional, word},
    client::Call,
    failure::Failure,
    output::{Column, numbers, words},
    progress::Progress,
    wait,
};

const OPERATIONS: [Column<Operation>; 7] = [
    words("ID", |v| v.id.to_string()),
    words("KIND", |v| v.kind.clone()),
    words("TARGET", |v| v.target.name.clone()),
    words("STATE", |v| word(&v.state)),
    words("PHASE", |v| v.phase.clone()),
    numbers("DONE", done),
    numbers("AGE", |v| age(v.created_at)),
];

const WAITING: [Column<WaitingOn>; 4] = [
    words("WAITING ON", |v| v.what.clone()),
    words("NODE", |v| optional(v.node_name.as_ref())),
    numbers("SINCE", |v| age(v.since)),
    words("UNTIL", |v| optional(v.deadline)),
];

pub(super) fn done(operation: &Operation) -> String {
    format!("{}/{}", operation.progress.done, operation.progress.total)
}

fn operations() -> Call {
    Call::to(&["v1", "operations"])
}

pub(super) async fn run(ctx: &Ctx, command: OperationCommand) -> Result<(), Failure> {
    match command {
        OperationCommand::Ls(listing) => ctx.list(&filtered(operations(), &listing), &OPERATIONS).await,
        OperationCommand::Show { operation: id } => {
            ctx.show(&operations().then(&id), |object| details(ctx, object)).await
        }
        OperationCommand::Wait { operations } => wait_for(ctx, &operations).await,
        OperationCommand::Cancel { operation: id } => {
            let answer = ctx.client.post(&operations().then(&id).then("cancel"), &json!({})).await?;
            ctx.out.object(&answer.body, summary)
        }
    }
}

/// Waits for all operations. The first that did not succeed decides the exit code.
async fn wait_for(ctx: &Ctx, ids: &[String]) -> Result<(), Failure> {
    let mut failed = None;
    for id in ids {
        let operation = ctx.client.get_object(&operations().then(id)).await?;
        let progress = Progress::work(ctx.out.notes);
        match wait::for_operation(&ctx.client, &progress, operation, ctx.until).await {
            Ok(operation) => ctx.out.object(&operation.sent, summary)?,
            Err(still @ Failure::StillGoing { .. }) => return Err(still),
            Err(other) => {
                failed.get_or_insert(other);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn summary(operation: &Operation) -> String {
    format!("{} {}: {}", operation.kind, operation.target.name, word(&operation.state))
}

fn details(ctx: &Ctx, operation: &Operation) -> String {
    let Operation { target, error, .. } = operation;
    let facts = ctx.out.facts(&[
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
    ]);
    facts + &ctx.out.section(&WAITING, &operation.waiting_on)
}
