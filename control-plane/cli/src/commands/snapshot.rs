//! `muster snapshot …`.

use muster_api::{
    instance::Select,
    snapshot::{self, CreateSnapshot},
};
use serde_json::Value;

use super::{Ctx, Frees, Settled, body, filtered, labels, parsed};
use crate::{
    args::{Consistency, SnapshotCommand},
    client::Call,
    failure::Failure,
    output::{self, Column, age, millis, numbers, size, text, words},
};

const SNAPSHOTS: [Column; 8] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", |v| text(v, "/state")),
    words("OF", |v| text(v, "/deployment_name")),
    numbers("MEMBERS", |v| text(v, "/members")),
    numbers("DIRTY", |v| size(v, "/dirty_bytes")),
    numbers("STORED", |v| size(v, "/stored_bytes")),
    numbers("LONGEST PAUSE", |v| millis(v, "/pause_max_ms")),
    numbers("AGE", |v| age(v, "/created_at")),
];

const MEMBERS: [Column; 5] = [
    words("INSTANCE", |v| text(v, "/instance_name")),
    numbers("DIRTY", |v| size(v, "/dirty_bytes")),
    numbers("STORED", |v| size(v, "/stored_bytes")),
    numbers("PAUSE", |v| millis(v, "/pause_ms")),
    words("VERSION", |v| text(v, "/version")),
];

fn snapshot(name: &str) -> Call {
    Call::to(&["v1", "snapshots", name])
}

fn sentence(object: &Value) -> String {
    let (name, members) = (text(object, "/name"), text(object, "/members"));
    let skipped = match output::count(object, "/skipped") {
        0 => String::new(),
        n => format!(", {n} left out"),
    };
    let (dirty, stored) = (size(object, "/dirty_bytes"), size(object, "/stored_bytes"));
    let pause = millis(object, "/pause_max_ms");
    let pause = if pause.is_empty() { pause } else { format!(", longest pause {pause}") };
    format!("{name}: {members} disks{skipped}, {dirty} changed, {stored} newly stored{pause}")
}

pub(super) async fn run(ctx: &Ctx, command: SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Create { of, name, consistency, max_pause, label } => {
            // Only members have a dot in their name; an id could be either, and is a deployment's.
            let select = match of.contains('.') {
                true => Select { instances: Some(vec![parsed("name", &of)?]), ..Select::default() },
                false => Select { deployment: Some(parsed("name", &of)?), ..Select::default() },
            };
            let request = CreateSnapshot {
                name: name.as_deref().map(|n| parsed("name", n)).transpose()?,
                select,
                consistency: match consistency {
                    Consistency::Crash => snapshot::Consistency::Crash,
                    Consistency::Filesystem => snapshot::Consistency::Filesystem,
                },
                max_pause_ms: max_pause.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
                labels: labels(label)?,
            };
            let answer = ctx.client.post(&Call::to(&["v1", "snapshots"]), &body(&request)?).await?;
            let object = match ctx.settle(answer).await? {
                Settled::Accepted(operation) => return ctx.accepted(&operation),
                Settled::Now(body) => body,
                // The name may have been made up: the operation knows the thing.
                Settled::Done(operation) => ctx.client.get(&snapshot(&text(&operation, "/target/id"))).await?,
            };
            ctx.out.thing(&object, || sentence(&object))
        }
        SnapshotCommand::Ls(listing) => ctx.list(&filtered(Call::to(&["v1", "snapshots"]), &listing), &SNAPSHOTS).await,
        SnapshotCommand::Show { snapshot: name } => {
            let mut object = ctx.client.get(&snapshot(&name)).await?;
            let members = ctx.collect(&snapshot(&name).then("members")).await?;
            // Programs get what people see: the snapshot as it is, in which `members` is a number, and their rows.
            if let (true, Some(fields)) = (ctx.out.is_json(), object.as_object_mut()) {
                fields.insert("member_rows".to_owned(), members.clone().into());
            }
            ctx.out.thing(&object, || details(ctx, &object, &members))
        }
        SnapshotCommand::Rm(removal) => ctx.remove("snapshot", &["v1", "snapshots"], &removal, Frees::Bytes).await,
        // Answered before there are settings.
        SnapshotCommand::Restore(_) => Ok(()),
    }
}

fn details(ctx: &Ctx, object: &Value, members: &[Value]) -> String {
    let facts = ctx.out.facts(&[
        ("name", text(object, "/name")),
        ("id", text(object, "/id")),
        ("state", text(object, "/state")),
        ("reason", text(object, "/reason")),
        ("of", text(object, "/deployment_name")),
        ("consistency", text(object, "/consistency")),
        ("members", text(object, "/members")),
        ("left out", text(object, "/skipped")),
        ("changed", size(object, "/dirty_bytes")),
        ("stored", size(object, "/stored_bytes")),
        ("longest pause", millis(object, "/pause_max_ms")),
        ("cut", text(object, "/cut_at")),
        ("durable", text(object, "/durable_at")),
        ("labels", output::labels(object, "/labels")),
    ]);
    if members.is_empty() { facts } else { format!("{facts}\n{}", ctx.out.table(&MEMBERS, members)) }
}
