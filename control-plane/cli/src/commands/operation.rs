//! `muster operation …`.

use serde_json::{Value, json};

use super::{Ctx, filtered};
use crate::{
    args::OperationCommand,
    client::Call,
    failure::Failure,
    output::{Column, age, numbers, text, words},
    progress::Progress,
    wait,
};

const OPERATIONS: [Column; 7] = [
    words("ID", |v| text(v, "/id")),
    words("KIND", |v| text(v, "/kind")),
    words("TARGET", |v| text(v, "/target/name")),
    words("STATE", |v| text(v, "/state")),
    words("PHASE", |v| text(v, "/phase")),
    numbers("DONE", done),
    numbers("AGE", |v| age(v, "/created_at")),
];

fn done(operation: &Value) -> String {
    format!("{}/{}", text(operation, "/progress/done"), text(operation, "/progress/total"))
}

fn operation(id: &str) -> Call {
    Call::to(&["v1", "operations", id])
}

pub(super) async fn run(ctx: &Ctx, command: OperationCommand) -> Result<(), Failure> {
    match command {
        OperationCommand::Ls(listing) => {
            ctx.list(&filtered(Call::to(&["v1", "operations"]), &listing), &OPERATIONS).await
        }
        OperationCommand::Show { operation: id } => {
            let object = ctx.client.get(&operation(&id)).await?;
            ctx.out.thing(&object, || details(ctx, &object))
        }
        OperationCommand::Wait { operations } => {
            // All are waited for; the first that did not succeed decides the exit code.
            let mut failed = None;
            for id in &operations {
                let object = ctx.client.get(&operation(id)).await?;
                let progress = Progress::work(ctx.out.notes);
                match wait::for_operation(&ctx.client, &progress, object, ctx.until).await {
                    Ok(object) => ctx.out.thing(&object, || summary(&object))?,
                    Err(still @ Failure::StillGoing { .. }) => return Err(still),
                    Err(other) => {
                        failed.get_or_insert(other);
                    }
                }
            }
            failed.map_or(Ok(()), Err)
        }
        OperationCommand::Cancel { operation: id } => {
            let answer = ctx.client.post(&operation(&id).then("cancel"), &json!({})).await?;
            ctx.out.thing(&answer.body, || summary(&answer.body))
        }
    }
}

fn summary(object: &Value) -> String {
    format!("{} {}: {}", text(object, "/kind"), text(object, "/target/name"), text(object, "/state"))
}

fn details(ctx: &Ctx, object: &Value) -> String {
    const WAITING: [Column; 3] = [
        words("WAITING ON", |v| text(v, "/what")),
        numbers("SINCE", |v| age(v, "/since")),
        words("UNTIL", |v| text(v, "/deadline")),
    ];
    let facts = ctx.out.facts(&[
        ("id", text(object, "/id")),
        ("kind", text(object, "/kind")),
        ("target", format!("{} {}", text(object, "/target/kind"), text(object, "/target/name"))),
        ("state", text(object, "/state")),
        ("phase", text(object, "/phase")),
        ("done", format!("{} {}", done(object), text(object, "/progress/unit"))),
        ("error", text(object, "/error/detail")),
        ("error code", text(object, "/error/code")),
        ("deadline", text(object, "/deadline")),
        ("requested by", text(object, "/requested_by")),
        ("request id", text(object, "/request_id")),
        ("accepted", text(object, "/created_at")),
        ("started", text(object, "/started_at")),
        ("finished", text(object, "/finished_at")),
    ]);
    let waiting = object.get("waiting_on").and_then(Value::as_array).cloned().unwrap_or_default();
    if waiting.is_empty() { facts } else { format!("{facts}\n{}", ctx.out.table(&WAITING, &waiting)) }
}
