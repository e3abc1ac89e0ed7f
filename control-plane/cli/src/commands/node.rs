//! `muster node …`, for operators.

use muster_api::{
    condition::ConditionKind,
    node::{Node, NodeState, ObjectAmount, Salvage},
};
use reqwest::Method;
use serde_json::json;

use super::{Ctx, Frees, filtered};
use crate::{
    answer::Object,
    args::{NodeCommand, Removal},
    cells::{self, age, optional, word},
    client::{Answer, Call},
    failure::Failure,
    table::{Column, Order, names, numbers, texts, wide, words},
    units,
};

/// Also shown by `muster top`.
pub(super) const NODES: [Column<Node>; 12] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", state),
    numbers("INSTANCES", |v| v.instances.to_string()),
    numbers("CPUS", |v| format!("{}/{}", v.capacity.cpus_used, v.capacity.cpus)),
    numbers("MEMORY", |v| {
        format!("{}/{}", units::bytes(v.capacity.memory_used_bytes), units::bytes(v.capacity.memory_bytes))
    }),
    wide(numbers("POOL", |v| units::bytes(v.pool.used_bytes))),
    wide(words("RUNS ON", |v| optional(v.hypervisor.as_ref()))),
    numbers("SEEN", |v| optional(v.last_seen_at.map(age))),
    texts("CONDITIONS", |v| v.conditions.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>().join(", ")),
    wide(words("ZONE", |v| optional(v.zone.as_ref()))),
    wide(words("AGENT", |v| v.agent_version.clone())),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
];

fn state(node: &Node) -> String {
    // A fenced node takes nothing anyway.
    let cordoned = !node.schedulable && node.state != NodeState::Fenced;
    format!("{}{}", word(&node.state), if cordoned { ", cordoned" } else { "" })
}

const SALVAGE: [Column<Salvage>; 6] = [
    names("INSTANCE", |v| v.instance_name.clone()),
    wide(words("PROJECT", |v| v.project.clone())),
    words("STATE", |v| word(&v.state)),
    words("VERSION", |v| optional(v.version)),
    words("SINCE", |v| age(v.updated_at)),
    texts("DETAIL", |v| optional(v.detail.as_ref())),
];

fn nodes() -> Call {
    Call::to(&["v1", "nodes"])
}

pub(super) async fn run(ctx: &Ctx, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::Ls(listing) => ctx.list(&filtered(nodes(), &listing), &NODES, Order::Name).await,
        NodeCommand::Show { node } => ctx.show(&nodes().then(&node), |object| details(ctx, object)).await,
        NodeCommand::Cordon { nodes } => each(ctx, &nodes, "cordon").await,
        NodeCommand::Uncordon { nodes } => each(ctx, &nodes, "uncordon").await,
        NodeCommand::Ack { node } => ack(ctx, &node).await,
        NodeCommand::Fence { nodes, yes } => {
            for name in &nodes {
                fence(ctx, name, yes).await?;
            }
            Ok(())
        }
        NodeCommand::Salvage { node, give_up: false, .. } => {
            ctx.list(&nodes().then(&node).then("salvage"), &SALVAGE, Order::Name).await
        }
        NodeCommand::Salvage { node, give_up: true, yes } => give_up(ctx, &node, yes).await,
        NodeCommand::Rm { removal, dead: false } => {
            ctx.remove("node", &["v1", "nodes"], &removal, Frees::Nothing).await
        }
        NodeCommand::Rm { removal, dead: true } => remove_dead(ctx, &removal).await,
        // `reserved` has answered this.
        NodeCommand::Drain(_) => Ok(()),
    }
}

/// Declares a node dead after saying what that means.
async fn fence(ctx: &Ctx, name: &str, yes: bool) -> Result<(), Failure> {
    let answer = declare_dead(ctx, name, yes).await?;
    ctx.finish(answer, &nodes().then(name), |node: &Node| format!("{}: {}", node.name, state(node))).await
}

async fn give_up(ctx: &Ctx, name: &str, yes: bool) -> Result<(), Failure> {
    let call = nodes().then(name);
    if !yes {
        ctx.agree(&format!("Wait no longer for what the disks of node {name} hold? It can save nothing more then."))
            .await?;
    }
    let answer = ctx.client.post(&call.clone().then("give-up-salvage"), &json!({})).await?;
    ctx.finish(answer, &call, |node: &Node| format!("{}: nothing is awaited of its disks", node.name)).await
}

/// Fences the nodes and removes them. Each step may be repeated.
async fn remove_dead(ctx: &Ctx, removal: &Removal) -> Result<(), Failure> {
    for name in &removal.things {
        declare_dead(ctx, name, removal.yes).await?;
        let answer = ctx.client.change(Method::DELETE, &nodes().then(name), None).await?;
        ctx.removed(answer, &format!("node {name}"), None).await?;
    }
    Ok(())
}

async fn declare_dead(ctx: &Ctx, name: &str, yes: bool) -> Result<Answer, Failure> {
    let call = nodes().then(name);
    if !yes {
        let node = ctx.client.get_object::<Node>(&call).await?.read;
        ctx.agree(&question(&node)).await?;
    }
    ctx.client.post(&call.then("fence"), &json!({ "confirm": true })).await
}

fn question(node: &Node) -> String {
    let seen =
        node.last_seen_at.map_or_else(|| "never heard from".to_owned(), |at| format!("last heard {} ago", age(at)));
    format!(
        "Declare node {} ({}, {seen}) dead? Its {} instances fail; what no snapshot has of their disks is lost with \
         it unless it comes back to save that, and it can never run instances again.",
        node.name,
        state(node),
        node.instances
    )
}

async fn each(ctx: &Ctx, names: &[String], verb: &str) -> Result<(), Failure> {
    for name in names {
        let call = nodes().then(name);
        let answer = ctx.client.post(&call.clone().then(verb), &json!({})).await?;
        ctx.finish(answer, &call, |node: &Node| format!("{}: {}", node.name, state(node))).await?;
    }
    Ok(())
}

/// Acknowledges what the node shows now. What it loses in between stays shown.
async fn ack(ctx: &Ctx, node: &str) -> Result<(), Failure> {
    let call = nodes().then(node);
    let Node { pool, .. } = Object::of(ctx.client.get(&call).await?)?.read;
    let (objects, bytes) = (pool.lost_objects, pool.lost_bytes);
    let answer = ctx.client.post(&call.clone().then("acknowledge"), &json!(ObjectAmount { objects, bytes })).await?;
    ctx.finish(answer, &call, |node: &Node| format!("{}: {objects} lost objects acknowledged", node.name)).await
}

/// What an operator can do about the conditions of a node.
fn advice(node: &Node) -> String {
    if !node.conditions.iter().any(|c| c.kind == ConditionKind::ObjectsLost) {
        return String::new();
    }
    format!(
        "look for a failing disk in the node's log and kernel log. Where other nodes have copies, reads go on; nothing \
         copies them back yet. Import the images again, and take snapshots anew: that stores what is missing. Then \
         `muster node ack {}`",
        node.name
    )
}

fn details(ctx: &Ctx, node: &Node) -> String {
    let Node { capacity, pool, .. } = node;
    let (used, all) = (units::bytes(capacity.memory_used_bytes), units::bytes(capacity.memory_bytes));
    let (stored, limit) = (units::bytes(pool.used_bytes), units::bytes(pool.limit_bytes));
    ctx.out.facts(&[
        ("name", node.name.clone()),
        ("id", node.id.to_string()),
        ("state", state(node)),
        ("reason", optional(node.reason.as_ref())),
        ("conditions", cells::conditions(&node.conditions)),
        ("what to do", advice(node)),
        ("zone", optional(node.zone.as_ref())),
        ("address", node.address.clone()),
        ("instances", node.instances.to_string()),
        ("cpus", format!("{} of {} reserved", capacity.cpus_used, capacity.cpus)),
        ("memory", format!("{used} of {all} reserved")),
        ("pool", format!("{stored} of {limit} in {} objects", pool.objects)),
        ("cache", units::bytes(pool.cache_bytes)),
        ("disk free", units::bytes(pool.free_bytes)),
        ("runs on", optional(node.hypervisor.as_ref())),
        ("agent", node.agent_version.clone()),
        ("last seen", optional(node.last_seen_at)),
        ("labels", cells::labels(&node.labels)),
        ("joined", node.created_at.to_string()),
    ])
}
