//! `muster deploy` and `muster deployment …`.

use muster_api::{
    deployment::{CreateDeployment, DeploymentSource, Placement, PlacementPolicy, Probe, Ready, Runtime, Scale},
    image::VersionOrNumber,
    instance::Stop,
};
use serde_json::{Value, json};

use super::{Ctx, Frees, body, filtered, labels, parsed};
use crate::{
    args::{self, Deploy, DeploymentCommand, Power, RuntimeArg},
    client::Call,
    failure::Failure,
    output::{self, Column, age, counts, numbers, size, text, words},
    units,
};

const DEPLOYMENTS: [Column; 8] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", |v| text(v, "/state")),
    numbers("READY", |v| format!("{}/{}", text(v, "/ready"), text(v, "/count"))),
    words("MEMBERS", |v| counts(v, "/counts")),
    words("SOURCE", source_text),
    words("RUNTIME", |v| text(v, "/runtime")),
    numbers("AGE", |v| age(v, "/created_at")),
    words("LABELS", |v| output::labels(v, "/labels")),
];

fn source_text(deployment: &Value) -> String {
    let number = match deployment.pointer("/source/version") {
        Some(Value::Number(n)) => format!("@{n}"),
        _ => String::new(),
    };
    match text(deployment, "/source_name").as_str() {
        "" => text(deployment, "/version"),
        name => format!("{name}{number}"),
    }
}

fn deployment(name: &str) -> Call {
    Call::to(&["v1", "deployments", name])
}

/// `4 of 4 ready`.
fn readiness(object: &Value) -> String {
    let timing = match object.pointer("/timing/ready/p50_ms").and_then(Value::as_u64) {
        Some(ms) => format!(", median {} after the request", units::millis(ms)),
        None => String::new(),
    };
    format!("{}: {} of {} ready{timing}", text(object, "/name"), text(object, "/ready"), text(object, "/count"))
}

/// `p50 2.1 s, p99 3.0 s, slowest web.3`.
fn spread(object: &Value, step: &str) -> String {
    let ms = |p: &str| object.pointer(&format!("/timing/{step}/{p}")).and_then(Value::as_u64).map(units::millis);
    let (Some(p50), Some(p99)) = (ms("p50_ms"), ms("p99_ms")) else { return String::new() };
    let slowest = text(object, &format!("/timing/{step}/slowest/0/instance_name"));
    let slowest = if slowest.is_empty() { slowest } else { format!(", slowest {slowest}") };
    format!("p50 {p50}, p99 {p99}{slowest}")
}

/// `POST /v1/deployments`, from either spelling of the command.
pub(super) async fn create(ctx: &Ctx, deploy: Deploy) -> Result<(), Failure> {
    for (given, option) in [(deploy.ssh_key.is_some(), "--ssh-key"), (deploy.user_data.is_some(), "--user-data")] {
        if given {
            return Err(Failure::NotBuiltYet(format!("deploy {option}")));
        }
    }
    let name = deploy.name.clone();
    let dry_run = deploy.dry_run;
    let answer = ctx.client.post(&Call::to(&["v1", "deployments"]), &body(&request(deploy)?)?).await?;
    if dry_run && !answer.is_operation() {
        return ctx.out.thing(&answer.body, || plan_text(ctx, &answer.body));
    }
    ctx.finish(answer, Some(&deployment(&name)), readiness).await
}

fn request(deploy: Deploy) -> Result<CreateDeployment, Failure> {
    let mut source = DeploymentSource::default();
    if let Some(image) = &deploy.image {
        let (image, number) = units::parse_image(image).map_err(Failure::Usage)?;
        source.image = Some(parsed("name", image)?);
        source.version = number.map(VersionOrNumber::Number);
    }
    if let Some(version) = &deploy.version {
        source.version = Some(VersionOrNumber::Id(parsed("version's id", version)?));
    }
    if let Some(snapshot) = &deploy.snapshot {
        source.snapshot = Some(parsed("name", snapshot)?);
    }
    let ready =
        (deploy.ready.is_some() || deploy.ready_marker.is_some() || deploy.ready_timeout.is_some()).then(|| {
            let probe = match deploy.ready {
                Some(args::Ready::Console) => Probe::Console,
                Some(args::Ready::GuestAgent) => Probe::GuestAgent,
                // A marker without a probe can only be meant for the console.
                None if deploy.ready_marker.is_some() => Probe::Console,
                Some(args::Ready::Running) | None => Probe::Running,
            };
            Ready { probe, marker: deploy.ready_marker, timeout_s: deploy.ready_timeout.map(|t| t.as_secs()) }
        });
    let nodes = deploy.node.iter().map(|n| parsed("name", n)).collect::<Result<Vec<_>, _>>()?;
    let placed = deploy.pack || deploy.spread || deploy.max_per_node.is_some();
    let placement = (placed || !deploy.zone.is_empty() || !nodes.is_empty()).then(|| Placement {
        policy: if deploy.pack { PlacementPolicy::Pack } else { PlacementPolicy::Spread },
        zones: (!deploy.zone.is_empty()).then_some(deploy.zone),
        nodes: (!nodes.is_empty()).then_some(nodes),
        max_per_node: deploy.max_per_node,
    });
    Ok(CreateDeployment {
        name: Some(parsed("name", &deploy.name)?),
        source,
        count: deploy.count,
        min_count: deploy.min_count,
        cpus: deploy.cpus,
        memory_bytes: deploy.memory,
        disk_bytes: deploy.disk_size,
        runtime: deploy.runtime.map(|r| match r {
            RuntimeArg::Libvirt => Runtime::Libvirt,
            RuntimeArg::None => Runtime::None,
        }),
        ready,
        placement,
        deadline_s: deploy.deadline.map(|t| t.as_secs()),
        dry_run: deploy.dry_run,
        labels: labels(deploy.label)?,
        ssh_keys: None,
        user_data: None,
        nics: None,
        disks: None,
        instance_type: None,
        protect: None,
        on_node_loss: None,
    })
}

fn plan_text(ctx: &Ctx, plan: &Value) -> String {
    const NODES: [Column; 2] = [words("NODE", |v| text(v, "/node_name")), numbers("INSTANCES", |v| text(v, "/count"))];
    const REASONS: [Column; 2] =
        [words("REFUSED FOR", |v| text(v, "/reason")), numbers("NODES", |v| text(v, "/count"))];
    let list = |key: &str| plan.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut shown = format!("{} would be placed, {} would not\n", text(plan, "/placed"), text(plan, "/unplaced"));
    for (rows, columns) in [(list("nodes"), &NODES), (list("reasons"), &REASONS)] {
        if !rows.is_empty() {
            shown += "\n";
            shown += &ctx.out.table(columns, &rows);
        }
    }
    shown
}

/// The body of `stop` and `reboot`.
pub(super) fn power(how: Power) -> Stop {
    Stop { force: how.force, timeout_s: how.grace.map(|t| t.as_secs()) }
}

pub(super) async fn run(ctx: &Ctx, command: DeploymentCommand) -> Result<(), Failure> {
    match command {
        DeploymentCommand::Create(deploy) => create(ctx, *deploy).await,
        DeploymentCommand::Ls(listing) => {
            ctx.list(&filtered(Call::to(&["v1", "deployments"]), &listing), &DEPLOYMENTS).await
        }
        DeploymentCommand::Show { deployment: name } => {
            let object = ctx.client.get(&deployment(&name)).await?;
            ctx.out.thing(&object, || details(ctx, &object))
        }
        DeploymentCommand::Scale { deployment: name, count, remove } => {
            let remove = remove.iter().map(|i| parsed("name", i)).collect::<Result<Vec<_>, _>>()?;
            let scale = Scale { count, remove: (!remove.is_empty()).then_some(remove) };
            let answer = ctx.client.post(&deployment(&name).then("scale"), &body(&scale)?).await?;
            ctx.finish(answer, Some(&deployment(&name)), readiness).await
        }
        DeploymentCommand::Retry { deployment: name } => verb(ctx, &name, "retry", &json!({})).await,
        DeploymentCommand::Start { deployment: name } => verb(ctx, &name, "start", &json!({})).await,
        DeploymentCommand::Stop { deployment: name, how } => verb(ctx, &name, "stop", &body(&power(how))?).await,
        DeploymentCommand::Reboot { deployment: name, how } => verb(ctx, &name, "reboot", &body(&power(how))?).await,
        DeploymentCommand::Rm(removal) => {
            ctx.remove("deployment", &["v1", "deployments"], &removal, Frees::Bytes).await
        }
        // Answered before there are settings.
        DeploymentCommand::Shelve(_) | DeploymentCommand::Unshelve(_) => Ok(()),
    }
}

async fn verb(ctx: &Ctx, name: &str, verb: &str, request: &Value) -> Result<(), Failure> {
    let answer = ctx.client.post(&deployment(name).then(verb), request).await?;
    let shown = |object: &Value| match verb {
        "stop" => format!("{}: {}", text(object, "/name"), counts(object, "/counts")),
        _ => readiness(object),
    };
    ctx.finish(answer, Some(&deployment(name)), shown).await
}

fn details(ctx: &Ctx, object: &Value) -> String {
    ctx.out.facts(&[
        ("name", text(object, "/name")),
        ("id", text(object, "/id")),
        ("state", text(object, "/state")),
        ("reason", text(object, "/reason")),
        ("ready", format!("{} of {}", text(object, "/ready"), text(object, "/count"))),
        ("members", counts(object, "/counts")),
        ("source", source_text(object)),
        ("runtime", text(object, "/runtime")),
        (
            "each",
            format!(
                "{} cpus, {} memory, {} disk",
                text(object, "/cpus"),
                size(object, "/memory_bytes"),
                size(object, "/disk_bytes")
            ),
        ),
        ("placed", spread(object, "placed")),
        ("started", spread(object, "started")),
        ("ready in", spread(object, "ready")),
        ("fetched", size(object, "/fetched_bytes")),
        ("written", size(object, "/local_bytes")),
        ("labels", output::labels(object, "/labels")),
        ("project", text(object, "/project")),
        ("created", text(object, "/created_at")),
    ])
}
