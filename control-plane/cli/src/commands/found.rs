//! `muster instance found`, `take` and `forget`: what nodes hold and a restored database does not know.

use muster_api::{
    found::{ForgetFound, FoundInstance, TakeFound},
    instance::{Instance, InstanceState},
};

use super::{Ctx, body, parsed};
use crate::{
    answer::Object,
    args::Which,
    cells::{age, optional, optional_size, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, wide, words},
    units,
};

const FOUND: [Column<FoundInstance>; 9] = [
    names("NAME", |v| v.name.clone().unwrap_or_else(|| v.id.to_string())),
    names("PROJECT", |v| optional(v.project.as_ref())),
    words("STATE", |v| word(&v.state)),
    names("NODE", |v| v.node_name.clone()),
    wide(numbers("MEMORY", |v| optional_size(v.memory_bytes))),
    numbers("DISK", |v| optional_size(v.disks.iter().map(|disk| disk.size_bytes).sum())),
    numbers("UNSAVED", |v| units::bytes(v.disks.iter().map(|disk| disk.unsaved_bytes).sum())),
    numbers("FOUND", |v| age(v.created_at)),
    wide(words("ID", |v| v.id.to_string())),
];

fn all() -> Call {
    Call::to(&["v1", "found-instances"])
}

pub(super) async fn list(ctx: &Ctx, nodes: &[String]) -> Result<(), Failure> {
    ctx.list(&all().with_each("node", nodes), &FOUND, Order::Name).await
}

pub(super) async fn take(ctx: &Ctx, which: &Which, deployment: Option<&str>) -> Result<(), Failure> {
    let request = TakeFound { deployment: deployment.map(|name| parsed("name", name)).transpose()?, project: None };
    let begin = async |name: String| ctx.client.post(&all().then(&name).then("take"), &body(&request)?).await;
    let shown = |taken: &Instance| format!("{}: {}", taken.name, word(&taken.state));
    ctx.each(named(ctx, which).await?, begin, async |answer| ctx.shown(answer.body, shown)).await
}

/// The found instances that a command names. With `--all`: those that nobody forgot.
async fn named(ctx: &Ctx, which: &Which) -> Result<Vec<String>, Failure> {
    if !which.all {
        return Ok(which.things.clone());
    }
    let mut ids = Vec::new();
    ctx.client
        .pages(&all(), |items| {
            for item in items {
                let found = Object::<FoundInstance>::of(item)?.read;
                if found.state != InstanceState::Deleting {
                    ids.push(found.id.to_string());
                }
            }
            Ok(())
        })
        .await?;
    Ok(ids)
}

pub(super) async fn forget(ctx: &Ctx, names: Vec<String>, yes: bool) -> Result<(), Failure> {
    let listed = names.join(", ");
    let question = format!("Delete {listed} on the nodes? What no version has of the disks is lost.");
    ctx.agree(&question, yes).await?;
    let request = ForgetFound { confirm: true };
    let begin = async |name: String| ctx.client.post(&all().then(&name).then("forget"), &body(&request)?).await;
    let shown = |found: &FoundInstance| format!("{}: {}", optional(found.name.as_ref()), word(&found.state));
    ctx.each(names, begin, async |answer| ctx.shown(answer.body, shown)).await
}
