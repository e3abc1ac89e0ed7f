//! `muster snapshot …`.

use muster_api::{
    instance::{Select, Stop},
    operation::Operation,
    snapshot::{CreateSnapshot, PatchSnapshot, RestoreSnapshot, Snapshot, SnapshotMember},
};
use reqwest::Method;
use serde_json::Value;

use super::{Ctx, Frees, Settled, body, deployment::power, filtered, labels, parsed, read_all};
use crate::{
    answer,
    args::SnapshotCommand,
    cells::{self, age, optional, optional_millis, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, wide, words},
    units,
};

const SNAPSHOTS: [Column<Snapshot>; 11] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    names("OF", |v| optional(v.deployment_name.as_ref())),
    numbers("MEMBERS", |v| v.members.to_string()),
    numbers("DIRTY", |v| units::bytes(v.dirty_bytes)),
    numbers("STORED", |v| units::bytes(v.stored_bytes)),
    numbers("PAUSE", |v| optional_millis(v.pause_max_ms)),
    numbers("AGE", |v| age(v.created_at)),
    wide(words("SCHEDULED", |v| if v.scheduled { "yes" } else { "no" }.to_owned())),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

const MEMBERS: [Column<SnapshotMember>; 6] = [
    names("INSTANCE", |v| v.instance_name.clone()),
    words("DISK", |v| v.disk_name.clone()),
    numbers("DIRTY", |v| units::bytes(v.dirty_bytes)),
    numbers("STORED", |v| units::bytes(v.stored_bytes)),
    numbers("PAUSE", |v| optional_millis(v.pause_ms)),
    words("VERSION", |v| optional(v.version)),
];

fn snapshots() -> Call {
    Call::to(&["v1", "snapshots"])
}

fn snapshot(name: &str) -> Call {
    snapshots().then(name)
}

/// `nightly: 4 disks, 12 MiB changed, 3 MiB newly stored, longest pause 8.1 ms`.
fn sentence(snapshot: &Snapshot) -> String {
    let Snapshot { name, members, skipped, .. } = snapshot;
    let skipped = (*skipped > 0).then(|| format!(", {skipped} left out"));
    let pause = snapshot.pause_max_ms.map(|ms| format!(", longest pause {}", optional_millis(Some(ms))));
    let (dirty, stored) = (units::bytes(snapshot.dirty_bytes), units::bytes(snapshot.stored_bytes));
    let (skipped, pause) = (optional(skipped), optional(pause));
    format!("{name}: {members} disks{skipped}, {dirty} changed, {stored} newly stored{pause}")
}

pub(super) async fn run(ctx: &Ctx, command: SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Create { of, name, consistency, max_pause, label } => {
            let request = CreateSnapshot {
                name: name.as_deref().map(|n| parsed("name", n)).transpose()?,
                select: select(&of)?,
                consistency,
                max_pause_ms: max_pause.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
                labels: labels(label)?,
            };
            create(ctx, &request).await
        }
        SnapshotCommand::Ls(listing) => ctx.list(&filtered(snapshots(), &listing), &SNAPSHOTS, Order::Name).await,
        SnapshotCommand::Show { snapshot: name } => show(ctx, &name).await,
        SnapshotCommand::Keep { snapshot: name } => {
            let patch = PatchSnapshot { scheduled: Some(false), ..PatchSnapshot::default() };
            let answer = ctx.client.change(Method::PATCH, &snapshot(&name), Some(&body(&patch)?)).await?;
            ctx.out.object(&answer.body, |kept: &Snapshot| format!("{}: stays until you delete it", kept.name))
        }
        SnapshotCommand::Rm(removal) => ctx.remove("snapshot", &["v1", "snapshots"], &removal, Frees::Bytes).await,
        SnapshotCommand::Restore { snapshot: name, discard_current, allow_missing, how, yes } => {
            if discard_current {
                let question = format!("Put the disks back to {name}, and give up what they hold now?");
                ctx.agree(&question, yes).await?;
            }
            let Stop { force, timeout_s } = power(how);
            restore(ctx, &name, &RestoreSnapshot { discard_current, allow_missing, force, timeout_s }).await
        }
    }
}

/// Only names of instances have a dot. An id could be of an instance or a deployment, and is taken for a deployment's.
fn select(of: &str) -> Result<Select, Failure> {
    Ok(match of.contains('.') {
        true => Select { instances: Some(vec![parsed("name", of)?]), ..Select::default() },
        false => Select { deployment: Some(parsed("name", of)?), ..Select::default() },
    })
}

async fn create(ctx: &Ctx, request: &CreateSnapshot) -> Result<(), Failure> {
    let answer = ctx.client.post(&snapshots(), &body(request)?).await?;
    match ctx.settle(answer).await? {
        Settled::Accepted(operation) => ctx.print(&ctx.accepted(operation)?),
        Settled::Now(body) => ctx.out.object(&body, sentence),
        // The controller may have chosen the name, so the operation says which snapshot it made.
        Settled::Done(operation) => ctx.show(&snapshot(&operation.read.target.id), sentence).await,
    }
}

async fn restore(ctx: &Ctx, name: &str, request: &RestoreSnapshot) -> Result<(), Failure> {
    let answer = ctx.client.post(&snapshot(name).then("restore"), &body(request)?).await?;
    let shown = match ctx.settle(answer).await? {
        Settled::Accepted(operation) => ctx.accepted(operation)?,
        Settled::Done(operation) => ctx.shown(operation.sent, restored)?,
        Settled::Now(body) => ctx.shown(body, restored)?,
    };
    ctx.print(&shown)
}

/// `nightly: 4 disks of 2 instances are put back to it; what they held is in before-restore-0af3`.
fn restored(operation: &Operation) -> String {
    let result = operation.result.as_ref();
    let of = |key| result.and_then(|result| result[key].as_u64()).unwrap_or(0);
    let kept = result.and_then(|result| result["kept_snapshot_name"].as_str());
    let kept =
        kept.map_or_else(|| "what they held is given up".to_owned(), |name| format!("what they held is in {name}"));
    let left_out = result.and_then(|result| result["left_out"].as_array()).map_or(0, Vec::len);
    let left_out = if left_out > 0 { format!("; {left_out} left out") } else { String::new() };
    let (disks, instances) = (of("disks"), of("instances"));
    format!("{}: {disks} disks of {instances} instances are put back to it; {kept}{left_out}", operation.target.name)
}

async fn show(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let mut object = ctx.client.get(&snapshot(name)).await?;
    let mut members = Vec::new();
    let add = |items: Vec<Value>| {
        members.extend(items);
        Ok(())
    };
    ctx.client.pages(&snapshot(name).then("members"), add).await?;
    if ctx.out.is_json() {
        // Programs get what people see. The object has the number of its members in `members` already.
        if let Some(fields) = object.as_object_mut() {
            fields.insert("member_rows".to_owned(), Value::Array(members));
        }
        return ctx.out.json(&object);
    }
    let rows = ctx.out.section(&MEMBERS, &read_all(&members)?);
    ctx.out.line((details(ctx, &answer::read(&object)?) + &rows).trim_end())
}

fn details(ctx: &Ctx, snapshot: &Snapshot) -> String {
    ctx.out.facts(&[
        ("name", snapshot.name.clone()),
        ("id", snapshot.id.to_string()),
        ("state", word(&snapshot.state)),
        ("reason", optional(snapshot.reason.as_ref())),
        ("of", optional(snapshot.deployment_name.as_ref())),
        ("scheduled", if snapshot.scheduled { "yes" } else { "no" }.to_owned()),
        ("consistency", word(&snapshot.consistency)),
        ("members", snapshot.members.to_string()),
        ("left out", snapshot.skipped.to_string()),
        ("missing", snapshot.missing.to_string()),
        ("changed", units::bytes(snapshot.dirty_bytes)),
        ("stored", units::bytes(snapshot.stored_bytes)),
        ("longest pause", optional_millis(snapshot.pause_max_ms)),
        ("cut", optional(snapshot.cut_at)),
        ("durable", optional(snapshot.durable_at)),
        ("labels", cells::labels(&snapshot.labels)),
    ])
}
