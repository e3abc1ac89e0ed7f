//! `muster node …`, for operators.

use serde_json::{Value, json};

use super::{Ctx, Frees, filtered};
use crate::{
    args::NodeCommand,
    client::Call,
    failure::Failure,
    output::{self, Column, age, numbers, size, text, words},
};

/// Also what `muster top` shows.
pub(super) const NODES: [Column; 9] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", state),
    numbers("INSTANCES", |v| text(v, "/instances")),
    numbers("CPUS", |v| format!("{}/{}", text(v, "/capacity/cpus_used"), text(v, "/capacity/cpus"))),
    numbers("MEMORY", |v| format!("{}/{}", size(v, "/capacity/memory_used_bytes"), size(v, "/capacity/memory_bytes"))),
    numbers("POOL", |v| size(v, "/pool/used_bytes")),
    words("RUNS ON", |v| text(v, "/hypervisor")),
    numbers("SEEN", |v| age(v, "/last_seen_at")),
    words("CONDITIONS", conditions),
];

fn state(node: &Value) -> String {
    let cordoned = node.get("schedulable").and_then(Value::as_bool) == Some(false);
    format!("{}{}", text(node, "/state"), if cordoned { ", cordoned" } else { "" })
}

fn conditions(node: &Value) -> String {
    let list = node.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|c| text(c, "/kind")).collect::<Vec<_>>().join(", ")
}

pub(super) async fn run(ctx: &Ctx, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Ls(listing) => ctx.list(&filtered(Call::to(&["v1", "nodes"]), &listing), &NODES).await,
        NodeCommand::Show { node } => {
            let object = ctx.client.get(&Call::to(&["v1", "nodes", &node])).await?;
            ctx.out.thing(&object, || details(ctx, &object))
        }
        NodeCommand::Cordon { nodes } => each(ctx, &nodes, "cordon").await,
        NodeCommand::Uncordon { nodes } => each(ctx, &nodes, "uncordon").await,
        NodeCommand::Rm(removal) => ctx.remove("node", &["v1", "nodes"], &removal, Frees::Nothing).await,
        // Answered before there are settings.
        NodeCommand::Drain(_) | NodeCommand::Fence(_) => Ok(()),
    }
}

async fn each(ctx: &Ctx, nodes: &[String], verb: &str) -> Result<(), Failure> {
    for node in nodes {
        let call = Call::to(&["v1", "nodes", node]);
        let answer = ctx.client.post(&call.clone().then(verb), &json!({})).await?;
        ctx.finish(answer, Some(&call), |object| format!("{}: {}", text(object, "/name"), state(object))).await?;
    }
    Ok(())
}

fn details(ctx: &Ctx, object: &Value) -> String {
    let list = object.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let conditions: Vec<_> = list.iter().map(|c| format!("{}: {}", text(c, "/kind"), text(c, "/detail"))).collect();
    ctx.out.facts(&[
        ("name", text(object, "/name")),
        ("id", text(object, "/id")),
        ("state", state(object)),
        ("reason", text(object, "/reason")),
        ("conditions", conditions.join("; ")),
        ("zone", text(object, "/zone")),
        ("address", text(object, "/address")),
        ("instances", text(object, "/instances")),
        ("cpus", format!("{} of {} promised", text(object, "/capacity/cpus_used"), text(object, "/capacity/cpus"))),
        (
            "memory",
            format!(
                "{} of {} promised",
                size(object, "/capacity/memory_used_bytes"),
                size(object, "/capacity/memory_bytes")
            ),
        ),
        (
            "pool",
            format!(
                "{} of {} in {} objects",
                size(object, "/pool/used_bytes"),
                size(object, "/pool/limit_bytes"),
                text(object, "/pool/objects")
            ),
        ),
        ("cache", size(object, "/pool/cache_bytes")),
        ("disk free", size(object, "/pool/free_bytes")),
        ("runs on", text(object, "/hypervisor")),
        ("agent", text(object, "/agent_version")),
        ("last seen", text(object, "/last_seen_at")),
        ("labels", output::labels(object, "/labels")),
        ("joined", text(object, "/created_at")),
    ])
}
