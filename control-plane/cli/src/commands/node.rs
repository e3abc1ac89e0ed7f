//! `muster node …`, for operators.

use muster_api::{
    condition::ConditionKind,
    node::{Drain, DrainState, Node, NodeState, ObjectAmount, Repair, Salvage, Scrub, ScrubRound},
    operation::Operation,
    traffic::{Traffic, TrafficSeries},
};
use reqwest::Method;
use serde_json::json;

use super::{Ctx, Frees, Settled, check_askable, filtered};
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
    // A fenced node takes nothing anyway, and one that is drained is cordoned.
    let cordoned = !node.schedulable && node.state != NodeState::Fenced && node.drain.is_none();
    let is = |state| node.drain.is_some_and(|drain| drain.state == state);
    let said = [
        (node.out, ", out"),
        (is(DrainState::Draining), ", draining"),
        (is(DrainState::Drained), ", drained"),
        (cordoned, ", cordoned"),
    ];
    let said: String = said.into_iter().filter_map(|(holds, word)| holds.then_some(word)).collect();
    word(&node.state) + &said
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
        NodeCommand::Show { node } => {
            let traffic = if ctx.out.is_json() { None } else { last_minute(ctx, &node).await? };
            ctx.show(&nodes().then(&node), |object| details(ctx, object, traffic.as_ref())).await
        }
        NodeCommand::Cordon { nodes } => each(ctx, nodes, "cordon").await,
        NodeCommand::Uncordon { nodes } => each(ctx, nodes, "uncordon").await,
        NodeCommand::Ack { node } => ack(ctx, &node).await,
        NodeCommand::Fence { nodes, yes } => {
            agree_to_death(ctx, &nodes, yes).await?;
            each(ctx, nodes, "fence").await
        }
        NodeCommand::Salvage { node, give_up: false, .. } => {
            ctx.list(&nodes().then(&node).then("salvage"), &SALVAGE, Order::Name).await
        }
        NodeCommand::Salvage { node, give_up: true, yes } => give_up(ctx, &node, yes).await,
        NodeCommand::Rm { removal, dead: false } => {
            ctx.remove("node", &["v1", "nodes"], &removal, Frees::Nothing).await
        }
        NodeCommand::Rm { removal, dead: true } => remove_dead(ctx, removal).await,
        NodeCommand::Drain { nodes } => drain(ctx, nodes).await,
    }
}

async fn drain(ctx: &Ctx, names: Vec<String>) -> Result<(), Failure> {
    let begin = async |name: String| Ok((ask_for(ctx, &name, "drain").await?, name));
    let end = async |(answer, name): (Answer, String)| match ctx.settle(answer).await? {
        Settled::Accepted(operation) => ctx.accepted(operation),
        Settled::Done(operation) => ctx.shown(operation.sent, |_: &Operation| format!("{name}: drained")),
        Settled::Now(body) => ctx.shown(body, |_: &Operation| format!("{name}: drained")),
    };
    ctx.each(names, begin, end).await
}

async fn give_up(ctx: &Ctx, name: &str, yes: bool) -> Result<(), Failure> {
    let call = nodes().then(name);
    let question = format!("Wait no longer for what the disks of node {name} hold? It can save nothing more then.");
    ctx.agree(&question, yes).await?;
    let answer = ctx.client.post(&call.clone().then("give-up-salvage"), &json!({})).await?;
    ctx.finish(answer, &call, |node: &Node| format!("{}: nothing is awaited of its disks", node.name)).await
}

/// Fences the nodes and removes them. Each step may be repeated.
async fn remove_dead(ctx: &Ctx, removal: Removal) -> Result<(), Failure> {
    agree_to_death(ctx, &removal.things, removal.yes).await?;
    let begin = async |name: String| {
        ask_for(ctx, &name, "fence").await?;
        let answer = ctx.client.change(Method::DELETE, &nodes().then(&name), None).await?;
        Ok((answer, format!("node {name}")))
    };
    ctx.each(removal.things, begin, async |(answer, what)| ctx.removed(answer, &what, None).await).await
}

/// Says what it means to declare nodes dead, and asks for it.
async fn agree_to_death(ctx: &Ctx, names: &[String], yes: bool) -> Result<(), Failure> {
    check_askable(yes)?;
    if yes {
        return Ok(());
    }
    let mut listed = String::new();
    for name in names {
        let node = ctx.client.get_object::<Node>(&nodes().then(name)).await?.read;
        let seen =
            node.last_seen_at.map_or_else(|| "never heard from".to_owned(), |at| format!("heard {} ago", age(at)));
        listed += &format!("\n  {}: {}, {seen}, {} instances", node.name, state(&node), node.instances);
    }
    let question = format!(
        "Declare dead for ever:{listed}\nTheir instances fail; what no snapshot has of their disks is lost, unless the \
         node comes back to save that. It can never run instances again. Go on?"
    );
    ctx.agree(&question, yes).await
}

async fn ask_for(ctx: &Ctx, node: &str, verb: &str) -> Result<Answer, Failure> {
    let request = if verb == "fence" { json!({ "confirm": true }) } else { json!({}) };
    ctx.client.post(&nodes().then(node).then(verb), &request).await
}

async fn each(ctx: &Ctx, names: Vec<String>, verb: &str) -> Result<(), Failure> {
    let begin = async |name: String| Ok((ask_for(ctx, &name, verb).await?, name));
    let end = async |(answer, name): (Answer, String)| {
        ctx.ended(answer, &nodes().then(&name), |node: &Node| format!("{}: {}", node.name, state(node))).await
    };
    ctx.each(names, begin, end).await
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
    let has = |kind| node.conditions.iter().any(|c| c.kind == kind);
    if has(ConditionKind::DiskFailed) {
        return format!(
            "see the node's kernel log. Snapshot what can still be read, move its instances, replace the disk and start the \
             agent again; or declare the node dead: `muster node fence {}`. If the disk works after all, start the agent again",
            node.name
        );
    }
    if has(ConditionKind::NodeFull) || has(ConditionKind::DiskFull) {
        return "give its file system room: delete instances and images and sweep (`muster pool sweep`), or make it larger. \
                Everything goes on by itself then"
            .to_owned();
    }
    if !has(ConditionKind::ObjectsLost) {
        return String::new();
    }
    format!(
        "look for a failing disk in the node's log and kernel log. Other nodes send back what they have copies of, and \
         reads go on meanwhile. What is still shown as lost once the repair of no node shows anything missing was not \
         known by name, or no other node has it: import the images again, and take snapshots anew. Then `muster node ack {}`",
        node.name
    )
}

/// What the node moved in the last minute; `None` where that cannot be had. Whatever keeps the node itself from being shown is
/// told by the next call.
async fn last_minute(ctx: &Ctx, node: &str) -> Result<Option<Traffic>, Failure> {
    let call = Call::to(&["v1", "traffic"]).with("minutes", 1).with("node", node);
    match ctx.client.get_object::<Traffic>(&call).await {
        Ok(traffic) => Ok(Some(traffic.read)),
        Err(interrupted @ Failure::Interrupted(_)) => Err(interrupted),
        Err(_) => Ok(None),
    }
}

/// What moved, added up; `-` where nothing is known.
fn moved(traffic: Option<&Traffic>, of: impl Fn(&TrafficSeries) -> &[Option<u64>]) -> String {
    let known: Vec<u64> = traffic.into_iter().flat_map(|traffic| of(&traffic.series)).copied().flatten().collect();
    if known.is_empty() { "-".to_owned() } else { units::bytes(known.into_iter().fold(0, u64::saturating_add)) }
}

/// How far the repair of a node is, in words.
fn repair(repair: &Repair) -> String {
    let Repair { unchecked_objects, missing, silent_nodes, bytes_per_s, .. } = repair;
    let mut said = match missing.objects {
        0 => "nothing to send".to_owned(),
        objects => {
            let (bytes, speed) = (units::bytes(missing.bytes), units::bytes(*bytes_per_s));
            format!("{objects} copies ({bytes}) to send to other nodes, {speed}/s")
        }
    };
    if *unchecked_objects > 0 {
        said += &format!(", {unchecked_objects} objects not compared yet");
    }
    if repair.surplus.objects > 0 {
        let bytes = units::bytes(repair.surplus.bytes);
        said += &format!(", {} copies ({bytes}) that other nodes are to take over", repair.surplus.objects);
    }
    if *silent_nodes > 0 {
        said += &format!(", nodes without an answer: {silent_nodes}");
    }
    said
}

/// How far the scrub of a node is, and what the last round found, in words.
fn scrub(scrub: &Scrub) -> String {
    let found = |round: &ScrubRound| match (round.bad, round.unreadable) {
        (0, 0) => "all good".to_owned(),
        (bad, unreadable) => format!("{bad} bad, {unreadable} unreadable"),
    };
    let last = match &scrub.last {
        None => "no full round yet".to_owned(),
        Some(round) => {
            let ended = round.ended_at.unwrap_or(round.began_at);
            let size = units::bytes(round.bytes);
            format!("last full round {ended}: {} objects ({size}), {}", round.objects, found(round))
        }
    };
    match &scrub.now {
        None => format!("{last}; the next begins {}", scrub.next_at),
        Some(round) => format!("{} % of a round done, {}; {last}", scrub.done_ppm / 10_000, found(round)),
    }
}

/// How far the drain of a node is, in words.
fn drained(drain: &Drain) -> String {
    if drain.state == DrainState::Drained {
        return "done: it has no objects any more".to_owned();
    }
    let (left, speed) = (units::bytes(drain.left.bytes), units::bytes(drain.bytes_per_s));
    format!("{} objects ({left}) left, {speed}/s{}", drain.left.objects, cells::ends(drain.ends_at))
}

fn details(ctx: &Ctx, node: &Node, traffic: Option<&Traffic>) -> String {
    let (fetched, served) = (moved(traffic, |s| &s.fetched_bytes), moved(traffic, |s| &s.served_bytes));
    let (read, written) = (moved(traffic, |s| &s.read_bytes), moved(traffic, |s| &s.written_bytes));
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
        ("tunnel", optional(node.tunnel.as_ref())),
        ("instances", node.instances.to_string()),
        ("cpus", format!("{} of {} reserved", capacity.cpus_used, capacity.cpus)),
        ("memory", format!("{used} of {all} reserved")),
        ("pool", format!("{stored} of {limit} in {} objects", pool.objects)),
        ("drain", optional(node.drain.as_ref().map(drained))),
        ("repair", node.repair.as_ref().map_or_else(|| "-".to_owned(), repair) + &cells::ends(node.repair_ends_at)),
        ("scrub", node.scrub.as_ref().map_or_else(|| "-".to_owned(), scrub)),
        ("cache", units::bytes(pool.cache_bytes)),
        ("disk free", units::bytes(pool.free_bytes)),
        ("pool takes", pool.takes_bytes.map_or_else(|| "-".to_owned(), units::bytes)),
        ("last minute", format!("{fetched} fetched, {served} served, {read} read, {written} written")),
        ("runs on", optional(node.hypervisor.as_ref())),
        ("guests", node.features.join(", ")),
        ("agent", node.agent_version.clone()),
        ("last seen", optional(node.last_seen_at)),
        ("labels", cells::labels(&node.labels)),
        ("joined", node.created_at.to_string()),
    ])
}
