//! `muster instance …`.

use muster_api::instance::{OnMany, Select};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Ctx, Frees, Settled, body, deployment::power, filtered, parsed};
use crate::{
    args::{InstanceCommand, Power, Whom},
    client::{Answer, Call},
    failure::Failure,
    output::{self, Column, age, numbers, size, text, words},
    transfer, units,
};

const INSTANCES: [Column; 8] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", |v| text(v, "/state")),
    words("READY", |v| if text(v, "/ready_at").is_empty() { "no".to_owned() } else { "yes".to_owned() }),
    words("NODE", |v| text(v, "/node_name")),
    numbers("CPUS", |v| text(v, "/cpus")),
    numbers("MEMORY", |v| size(v, "/memory_bytes")),
    numbers("UNSAVED", unsaved),
    words("REASON", |v| text(v, "/reason")),
];

fn unsaved(instance: &Value) -> String {
    let disks = instance.get("disks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    units::bytes(disks.iter().map(|d| output::count(d, "/unsaved_bytes")).sum())
}

fn instance(name: &str) -> Call {
    Call::to(&["v1", "instances", name])
}

pub(super) async fn run(ctx: &Ctx, command: InstanceCommand) -> Result<(), Failure> {
    match command {
        InstanceCommand::Ls { deployment, node, listing } => {
            let call = Call::to(&["v1", "instances"]).with_each("deployment", &deployment).with_each("node", &node);
            ctx.list(&filtered(call, &listing), &INSTANCES).await
        }
        InstanceCommand::Show { instance: name } => {
            let object = ctx.client.get(&instance(&name)).await?;
            ctx.out.thing(&object, || details(ctx, &object))
        }
        InstanceCommand::Start { whom } => verb(ctx, &whom, "start", None).await,
        InstanceCommand::Stop { whom, how } => verb(ctx, &whom, "stop", Some(how)).await,
        InstanceCommand::Reboot { whom, how } => verb(ctx, &whom, "reboot", Some(how)).await,
        InstanceCommand::Log { instance: name, tail } => {
            let tail = tail.map_or_else(|| "64KiB".to_owned(), |n| format!("{}KiB", n.div_ceil(1024)));
            let response = ctx.client.stream(&instance(&name).then("log").with("tail", tail), None).await?;
            transfer::console_to_stdout(&ctx.client, response).await
        }
        InstanceCommand::Rm { whom, yes } => remove(ctx, &whom, yes).await,
        // Answered before there are settings.
        InstanceCommand::Recover(_) | InstanceCommand::Console(_) | InstanceCommand::Migrate(_) => Ok(()),
    }
}

fn select(whom: &Whom) -> Result<Select, Failure> {
    let instances = whom.things.iter().map(|t| parsed("name", t)).collect::<Result<Vec<_>, _>>()?;
    Ok(Select {
        deployment: whom.deployment.as_deref().map(|d| parsed("name", d)).transpose()?,
        instances: (!instances.is_empty()).then_some(instances),
        label: whom.label.clone(),
    })
}

/// In words, for questions and sentences.
fn described(whom: &Whom) -> String {
    match (&whom.deployment, &whom.label) {
        (Some(deployment), _) => format!("all instances of {deployment}"),
        (_, Some(label)) => format!("all instances with {label}"),
        _ => format!("instance {}", whom.things.join(", ")),
    }
}

/// One call for one instance, one call for many of them.
async fn on_many(ctx: &Ctx, whom: &Whom, verb: &str, how: Power) -> Result<Answer, Failure> {
    let request = OnMany { select: select(whom)?, force: how.force, timeout_s: how.grace.map(|t| t.as_secs()) };
    ctx.client.post(&Call::to(&["v1", "instances", "-", verb]), &body(&request)?).await
}

async fn verb(ctx: &Ctx, whom: &Whom, verb: &str, how: Option<Power>) -> Result<(), Failure> {
    if let [name] = whom.things.as_slice() {
        let request = how.map_or_else(|| Ok(json!({})), |how| body(&power(how)))?;
        let answer = ctx.client.post(&instance(name).then(verb), &request).await?;
        let shown = |object: &Value| format!("{}: {}", text(object, "/name"), text(object, "/state"));
        return ctx.finish(answer, Some(&instance(name)), shown).await;
    }
    let answer = on_many(ctx, whom, verb, how.unwrap_or_default()).await?;
    match ctx.settle(answer).await? {
        Settled::Accepted(operation) => ctx.accepted(&operation),
        Settled::Done(object) | Settled::Now(object) => {
            ctx.out.thing(&object, || format!("{}: {verb} done", described(whom)))
        }
    }
}

async fn remove(ctx: &Ctx, whom: &Whom, yes: bool) -> Result<(), Failure> {
    let what = described(whom);
    if let [name] = whom.things.as_slice() {
        let freed = ctx.announce(&what, &instance(name), Frees::Bytes, yes).await?;
        let answer = ctx.client.change(Method::DELETE, &instance(name), None).await?;
        return ctx.removed(answer, &what, freed).await;
    }
    ctx.announce(&what, &Call::default(), Frees::Nothing, yes).await?;
    let answer = on_many(ctx, whom, "delete", Power::default()).await?;
    ctx.removed(answer, &what, None).await
}

fn details(ctx: &Ctx, object: &Value) -> String {
    const DISKS: [Column; 6] = [
        words("DISK", |v| text(v, "/name")),
        numbers("SIZE", |v| size(v, "/size_bytes")),
        numbers("UNSAVED", |v| size(v, "/unsaved_bytes")),
        numbers("SAVED", |v| age(v, "/saved_at")),
        words("VERSION", |v| text(v, "/version")),
        words("PATH", |v| text(v, "/path")),
    ];
    let facts = ctx.out.facts(&[
        ("name", text(object, "/name")),
        ("id", text(object, "/id")),
        ("state", text(object, "/state")),
        ("reason", text(object, "/reason")),
        ("detail", text(object, "/detail")),
        ("host name", text(object, "/host_name")),
        ("deployment", text(object, "/deployment_name")),
        ("node", text(object, "/node_name")),
        ("zone", text(object, "/zone")),
        ("runtime", text(object, "/runtime")),
        ("cpus", text(object, "/cpus")),
        ("memory", size(object, "/memory_bytes")),
        ("placed", text(object, "/steps/placed_at")),
        ("disk there", text(object, "/steps/disk_at")),
        ("started", text(object, "/steps/started_at")),
        ("ready", text(object, "/ready_at")),
        ("labels", output::labels(object, "/labels")),
        ("created", text(object, "/created_at")),
    ]);
    let disks = object.get("disks").and_then(Value::as_array).cloned().unwrap_or_default();
    if disks.is_empty() { facts } else { format!("{facts}\n{}", ctx.out.table(&DISKS, &disks)) }
}
