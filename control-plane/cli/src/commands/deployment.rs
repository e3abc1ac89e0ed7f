//! `muster deploy` and `muster deployment …`.

use std::{fs::File, io::Read, path::Path, time::Duration};

use muster_api::{
    OrUnknown, SshKey, UserData,
    deployment::{
        CreateDeployment, Deployment, DeploymentSource, DryRun, DryRunNode, PatchDeployment, Placement,
        PlacementPolicy, Probe, Ready, ReasonCount, Retry, Scale, Spread,
    },
    disk::DeploymentDisk,
    image::VersionOrNumber,
    instance::Stop,
    network::{CreateNic, DeploymentNic},
    protection::{Keep, PatchKeep, PatchProtect, Period, Protect, Protection},
    ssh_key::{SshKeyError, SshKeyFacts},
    units::exact_duration,
    user_data::USER_DATA_BYTES_MAX,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Ctx, Frees, body, filtered, labels, parsed};
use crate::{
    args::{Deploy, DeploymentCommand, KeepArgs, Power},
    cells::{self, age, counts, optional, optional_size, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, texts, wide, words},
    transfer, units,
};

/// Longest file that `--ssh-key` reads, in bytes.
const SSH_FILE_BYTES_MAX: usize = 16 << 10;

const DEPLOYMENTS: [Column<Deployment>; 10] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    numbers("READY", |v| format!("{}/{}", v.ready, v.count)),
    texts("MEMBERS", |v| counts(&v.counts)),
    names("SOURCE", source_text),
    words("RUNTIME", |v| word(&v.runtime)),
    numbers("AGE", |v| age(v.created_at)),
    // How long ago what its members held was last saved by itself.
    wide(numbers("SAVED", |v| optional(v.protection.as_ref().and_then(|p| p.last_saved_at).map(age)))),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

const PLAN_NODES: [Column<DryRunNode>; 2] =
    [names("NODE", |v| v.node_name.clone()), numbers("INSTANCES", |v| v.count.to_string())];

/// `debian@2`, the name of a snapshot, or the id of a version.
fn source_text(deployment: &Deployment) -> String {
    let number = match deployment.source.known().and_then(|source| source.version) {
        Some(VersionOrNumber::Number(n)) => format!("@{n}"),
        _ => String::new(),
    };
    match &deployment.source_name {
        Some(name) => format!("{name}{number}"),
        None => optional(deployment.version),
    }
}

fn deployments() -> Call {
    Call::to(&["v1", "deployments"])
}

fn deployment(name: &str) -> Call {
    deployments().then(name)
}

/// `web: 4 of 4 ready, median 2.1 s after the request`.
fn readiness(deployment: &Deployment) -> String {
    let Deployment { name, ready, count, timing, .. } = deployment;
    let median = timing.ready.p50_ms.map(|ms| format!(", median {} after the request", units::millis(ms)));
    format!("{name}: {ready} of {count} ready{}", optional(median))
}

/// `running, within 5m`.
fn ready_when(ready: &Ready) -> String {
    let marker = ready.marker.as_ref().map(|marker| format!(" prints {marker}"));
    let within = ready.timeout_s.map(|s| format!(", within {}", exact_duration(Duration::from_secs(s))));
    format!("{}{}{}", word(&ready.probe), optional(marker), optional(within))
}

/// `p50 2.1 s, p99 3.0 s, slowest web.3`.
fn spread(spread: &Spread) -> String {
    let (Some(p50), Some(p99)) = (spread.p50_ms, spread.p99_ms) else { return String::new() };
    let slowest = spread.slowest.first().map(|member| format!(", slowest {}", member.instance_name));
    format!("p50 {}, p99 {}{}", units::millis(p50), units::millis(p99), optional(slowest))
}

/// `POST /v1/deployments`, for `deploy` and `deployment create`.
pub(super) async fn create(ctx: &Ctx, deploy: Deploy) -> Result<(), Failure> {
    let thing = deployment(&deploy.name);
    let dry_run = deploy.dry_run;
    let answer = ctx.client.post(&deployments(), &body(&request(deploy)?)?).await?;
    if dry_run && !answer.is_operation() {
        return ctx.out.object(&answer.body, |plan| plan_text(ctx, plan));
    }
    ctx.finish(answer, &thing, readiness).await
}

fn request(deploy: Deploy) -> Result<CreateDeployment, Failure> {
    Ok(CreateDeployment {
        name: Some(parsed("name", &deploy.name)?),
        source: source(&deploy)?,
        count: deploy.count,
        min_count: deploy.min_count,
        cpus: deploy.cpus,
        memory_bytes: deploy.memory,
        disk_bytes: deploy.disk_size,
        runtime: deploy.runtime,
        ready: ready(&deploy),
        placement: placement(&deploy)?,
        deadline_s: deploy.deadline.map(|t| t.as_secs()),
        on_ready_timeout: deploy.on_ready_timeout,
        on_host_start: deploy.on_host_start,
        dry_run: deploy.dry_run,
        labels: labels(deploy.label.clone())?,
        ssh_keys: ssh_keys(&deploy)?,
        user_data: deploy.user_data.as_deref().map(user_data).transpose()?,
        nics: nics(&deploy)?,
        protect: protect(&deploy)?,
        disks: deploy.disk,
        firmware: deploy.firmware,
        tpm: deploy.tpm,
        instance_type: None,
        on_node_loss: None,
    })
}

fn protect(deploy: &Deploy) -> Result<Option<Protect>, Failure> {
    let KeepArgs { keep_last, keep_hourly, keep_daily, keep_weekly } = deploy.keep;
    let Some(every) = deploy.protect_every else {
        let said = [keep_last, keep_hourly, keep_daily, keep_weekly].iter().any(Option::is_some);
        let usage = "--keep-… says which scheduled snapshots stay: say with --protect-every how often they are taken";
        return if said { Err(Failure::Usage(usage.to_owned())) } else { Ok(None) };
    };
    let none = Keep::default();
    let keep = Keep {
        last: keep_last.unwrap_or(none.last),
        hourly: keep_hourly.unwrap_or(none.hourly),
        daily: keep_daily.unwrap_or(none.daily),
        weekly: keep_weekly.unwrap_or(none.weekly),
    };
    Ok(Some(Protect { every, keep }))
}

/// What `muster deployment protect` changes. Rules that it does not name stay.
fn protect_patch(every: Option<Period>, keep: KeepArgs) -> PatchProtect {
    let KeepArgs { keep_last, keep_hourly, keep_daily, keep_weekly } = keep;
    let patch = PatchKeep {
        last: keep_last.map(Some),
        hourly: keep_hourly.map(Some),
        daily: keep_daily.map(Some),
        weekly: keep_weekly.map(Some),
    };
    PatchProtect { every, keep: (patch != PatchKeep::default()).then_some(Some(patch)) }
}

/// `every 15m, keeps the last 2, 24 hours, 7 days`.
fn protect_text(protect: &Protect) -> String {
    let Keep { last, hourly, daily, weekly } = protect.keep;
    let last = if last == 1 { "the last".to_owned() } else { format!("the last {last}") };
    let more = [(hourly, "hours"), (daily, "days"), (weekly, "weeks")].into_iter().filter(|(number, _)| *number > 0);
    let more: String = more.map(|(number, unit)| format!(", {number} {unit}")).collect();
    format!("every {}, keeps {last}{more}", protect.every)
}

/// `2m ago, last snapshot web-20261130-0915z, next at 2026-11-30T09:29:11Z`.
fn protection_text(protection: &Protection) -> String {
    let saved = match protection.last_saved_at {
        Some(at) => format!("{} ago", age(at)),
        None => "nothing yet".to_owned(),
    };
    let name = protection.last_snapshot_name.as_ref().map(|name| format!(", last snapshot {name}"));
    let next = if protection.under_way.is_some() {
        ", one under way".to_owned()
    } else {
        format!(", next at {}", protection.next_at)
    };
    format!("{saved}{}{next}", optional(name))
}

/// None if no option says anything about keys: then a fork takes those of what it forks.
fn ssh_keys(deploy: &Deploy) -> Result<Option<Vec<SshKey>>, Failure> {
    let keys: Vec<SshKey> = deploy.ssh_key.iter().map(|given| ssh_key(given)).collect::<Result<_, _>>()?;
    Ok((deploy.no_ssh_keys || !keys.is_empty()).then_some(keys))
}

/// The key in a file, or the key itself. A private key never leaves this machine.
fn ssh_key(given: &str) -> Result<SshKey, Failure> {
    let path = Path::new(given);
    let is_file = path.exists() || !given.trim().contains(char::is_whitespace);
    let text = if is_file { text_of(path, SSH_FILE_BYTES_MAX)? } else { given.to_owned() };
    text.parse().map_err(|error| match error {
        SshKeyError::Private if is_file => Failure::Usage(format!(
            "--ssh-key {given}: this is a private key, which must stay on this machine, and it was not sent; give the public \
             one: {given}.pub"
        )),
        SshKeyError::Private => Failure::Usage(
            "--ssh-key: this is a private key, which must stay on this machine, and it was not sent; give the public one, \
             whose file ends in .pub"
                .to_owned(),
        ),
        error if is_file => Failure::Usage(format!("--ssh-key {given}: {error}")),
        error => Failure::Usage(format!("--ssh-key: {error}")),
    })
}

fn user_data(path: &Path) -> Result<UserData, Failure> {
    let text = text_of(path, USER_DATA_BYTES_MAX)?;
    text.parse().map_err(|error| Failure::Usage(format!("--user-data {}: {error}", path.display())))
}

/// The text of a file, or of standard input for `-`.
fn text_of(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let opened: Result<Box<dyn Read>, _> = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as _)
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = opened.and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|source| Failure::File { path: path.to_owned(), source })?;
    if bytes.len() > bytes_max {
        return Err(Failure::Usage(format!("{} has more than {}", path.display(), units::bytes(limit - 1))));
    }
    String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{} is not text in UTF-8", path.display())))
}

/// `ssh-ed25519 SHA256:… me@laptop`.
fn key_text(key: &SshKeyFacts) -> String {
    format!("{} {} {}", key.key_type, key.fingerprint, key.comment).trim_end().to_owned()
}

/// None if no option says anything about network cards: then the controller's defaults apply.
fn nics(deploy: &Deploy) -> Result<Option<Vec<CreateNic>>, Failure> {
    let said = !deploy.network.is_empty() || !deploy.security_group.is_empty() || !deploy.publish.is_empty();
    if deploy.no_network || !said {
        return Ok(deploy.no_network.then(Vec::new));
    }
    let default = vec!["default".to_owned()];
    let networks = if deploy.network.is_empty() { &default } else { &deploy.network };
    let groups = deploy.security_group.iter().map(|group| parsed("name", group)).collect::<Result<Vec<_>, _>>()?;
    let mut nics = Vec::new();
    for (n, text) in networks.iter().enumerate() {
        let (network, address) = text.split_once(':').map_or((text.as_str(), None), |(name, ip)| (name, Some(ip)));
        nics.push(CreateNic {
            network: parsed("name", network)?,
            address: address.map(|address| parsed("IPv4 address", address)).transpose()?,
            mac: None,
            security_groups: (!groups.is_empty()).then(|| groups.clone()),
            ports: if n == 0 { deploy.publish.clone() } else { Vec::new() },
        });
    }
    Ok(Some(nics))
}

/// `back 10.20.0.5 (web), 80/tcp published`.
fn nic_text(nic: &DeploymentNic) -> String {
    let groups = nic.security_group_names.join(" ");
    let groups = if groups.is_empty() { groups } else { format!(" ({groups})") };
    let address = nic.address.map(|address| format!(" {address}"));
    let ports = nic.ports.iter().filter_map(OrUnknown::known);
    let ports: Vec<String> = ports.map(|port| format!("{}/{}", port.port, word(&port.protocol))).collect();
    let published = if ports.is_empty() { String::new() } else { format!(", published: {}", ports.join(" ")) };
    format!("{}{}{groups}{published}", nic.network_name, optional(address))
}

/// `data 10 GiB, from debian@2`.
fn disk_text(disk: &DeploymentDisk) -> String {
    let number = match disk.source.as_ref().and_then(|source| source.version) {
        Some(VersionOrNumber::Number(n)) => format!("@{n}"),
        _ => String::new(),
    };
    let from = disk.source_name.as_ref().map(|name| format!(" from {name}{number}"));
    format!("{} {}{}", disk.name, units::bytes(disk.size_bytes), optional(from))
}

fn source(deploy: &Deploy) -> Result<DeploymentSource, Failure> {
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
        source.allow_missing = deploy.allow_missing;
    }
    Ok(source)
}

/// None if no option says anything about readiness: then the controller's defaults apply.
fn ready(deploy: &Deploy) -> Option<Ready> {
    let probe = match deploy.ready {
        Some(probe) => probe,
        // A marker without a probe can only be meant for the console.
        None if deploy.ready_marker.is_some() => Probe::Console,
        None if deploy.ready_timeout.is_some() => Probe::Running,
        None => return None,
    };
    let timeout_s = deploy.ready_timeout.map(|t| t.as_secs());
    Some(Ready { probe, marker: deploy.ready_marker.clone(), timeout_s })
}

/// None if no option says anything about placement: then the controller's defaults apply.
fn placement(deploy: &Deploy) -> Result<Option<Placement>, Failure> {
    let nodes = deploy.node.iter().map(|n| parsed("name", n)).collect::<Result<Vec<_>, _>>()?;
    let placement = Placement {
        policy: if deploy.pack { PlacementPolicy::Pack } else { PlacementPolicy::Spread },
        zones: (!deploy.zone.is_empty()).then(|| deploy.zone.clone()),
        nodes: (!nodes.is_empty()).then_some(nodes),
        max_per_node: deploy.max_per_node,
    };
    Ok((deploy.spread || placement != Placement::default()).then_some(placement))
}

fn plan_text(ctx: &Ctx, plan: &DryRun) -> String {
    let DryRun { placed, unplaced, nodes, reasons } = plan;
    let nodes = ctx.out.section(&PLAN_NODES, nodes);
    let said = |ReasonCount { reason, count, detail }: &ReasonCount| {
        ctx.out.item(' ', detail.as_ref().unwrap_or(&format!("{count} nodes refuse: {reason}")))
    };
    let reasons: String = reasons.iter().map(said).collect();
    let reasons = if reasons.is_empty() { reasons } else { format!("\nnot used:\n{reasons}") };
    format!("{placed} would be placed, {unplaced} would not\n{nodes}{reasons}")
}

/// The body of `stop` and `reboot`.
pub(super) fn power(how: Power) -> Stop {
    Stop { force: how.force, timeout_s: how.grace.map(|t| t.as_secs()) }
}

pub(super) async fn run(ctx: &Ctx, command: DeploymentCommand) -> Result<(), Failure> {
    match command {
        DeploymentCommand::Create(deploy) => create(ctx, *deploy).await,
        DeploymentCommand::Ls(listing) => ctx.list(&filtered(deployments(), &listing), &DEPLOYMENTS, Order::Name).await,
        DeploymentCommand::Show { deployment: name } => {
            ctx.show(&deployment(&name), |object| details(ctx, object)).await
        }
        DeploymentCommand::UserData { deployment: name } => {
            let response = ctx.client.stream(&deployment(&name).then("user-data"), None).await?;
            transfer::console_to_stdout(&ctx.client, response).await
        }
        DeploymentCommand::Scale { deployment: name, count, remove } => {
            let remove = remove.iter().map(|i| parsed("name", i)).collect::<Result<Vec<_>, _>>()?;
            let scale = Scale { count, remove: (!remove.is_empty()).then_some(remove) };
            verb(ctx, &name, "scale", &body(&scale)?).await
        }
        DeploymentCommand::Retry { deployment: name, ready_timeout, deadline, on_ready_timeout } => {
            let retry = Retry {
                ready_timeout_s: ready_timeout.map(|t| t.as_secs()),
                deadline_s: deadline.map(|t| t.as_secs()),
                on_ready_timeout,
            };
            verb(ctx, &name, "retry", &body(&retry)?).await
        }
        DeploymentCommand::Protect { deployment: name, every, keep, off } => {
            let protect = (!off).then(|| protect_patch(every, keep));
            let patch = PatchDeployment { protect: Some(protect), ..PatchDeployment::default() };
            let answer = ctx.client.change(Method::PATCH, &deployment(&name), Some(&body(&patch)?)).await?;
            ctx.out.object(&answer.body, |object: &Deployment| {
                match object.protect.as_ref().and_then(OrUnknown::known) {
                    Some(protect) => format!("{}: {}", object.name, protect_text(protect)),
                    None => format!("{}: not protected", object.name),
                }
            })
        }
        DeploymentCommand::Start { deployment: name } => verb(ctx, &name, "start", &json!({})).await,
        DeploymentCommand::Stop { deployment: name, how } => verb(ctx, &name, "stop", &body(&power(how))?).await,
        DeploymentCommand::Reboot { deployment: name, how } => verb(ctx, &name, "reboot", &body(&power(how))?).await,
        DeploymentCommand::Rm(removal) => {
            ctx.remove("deployment", &["v1", "deployments"], &removal, Frees::Bytes).await
        }
        // `reserved` has answered these.
        DeploymentCommand::Shelve(_) | DeploymentCommand::Unshelve(_) => Ok(()),
    }
}

async fn verb(ctx: &Ctx, name: &str, verb: &str, request: &Value) -> Result<(), Failure> {
    let answer = ctx.client.post(&deployment(name).then(verb), request).await?;
    let shown = |object: &Deployment| match verb {
        "stop" => format!("{}: {}", object.name, counts(&object.counts)),
        _ => readiness(object),
    };
    ctx.finish(answer, &deployment(name), shown).await
}

fn details(ctx: &Ctx, deployment: &Deployment) -> String {
    let (memory, disk) = (units::bytes(deployment.memory_bytes), units::bytes(deployment.disk_bytes));
    let cpus = if deployment.cpus == 1 { "1 cpu".to_owned() } else { format!("{} cpus", deployment.cpus) };
    let nics: Vec<String> = deployment.nics.iter().map(nic_text).collect();
    ctx.out.facts(&[
        ("name", deployment.name.clone()),
        ("id", deployment.id.to_string()),
        ("state", word(&deployment.state)),
        ("reason", optional(deployment.reason.as_ref())),
        ("ready", format!("{} of {}", deployment.ready, deployment.count)),
        ("members", counts(&deployment.counts)),
        ("source", source_text(deployment)),
        ("runtime", word(&deployment.runtime)),
        ("firmware", word(&deployment.firmware)),
        ("tpm", if deployment.tpm { "yes" } else { "no" }.to_owned()),
        ("each", format!("{cpus}, {memory} memory, {disk} boot disk")),
        ("disks", deployment.disks.iter().map(disk_text).collect::<Vec<_>>().join("; ")),
        ("networks", nics.join("; ")),
        ("ready when", deployment.ready_when.known().map(ready_when).unwrap_or_default()),
        ("after its host", word(&deployment.on_host_start)),
        ("protect", deployment.protect.as_ref().and_then(OrUnknown::known).map(protect_text).unwrap_or_default()),
        ("saved", deployment.protection.as_ref().map(protection_text).unwrap_or_default()),
        ("not saved", optional(deployment.protection.as_ref().and_then(|protection| protection.trouble.as_ref()))),
        ("ssh keys", deployment.ssh_keys.iter().flatten().map(key_text).collect::<Vec<_>>().join(", ")),
        ("user data", optional_size(deployment.user_data_bytes.filter(|bytes| *bytes > 0))),
        ("placed", spread(&deployment.timing.placed)),
        ("started", spread(&deployment.timing.started)),
        ("ready in", spread(&deployment.timing.ready)),
        ("fetched", optional_size(deployment.fetched_bytes)),
        ("written", optional_size(deployment.local_bytes)),
        ("labels", cells::labels(&deployment.labels)),
        ("project", deployment.project.clone()),
        ("created", deployment.created_at.to_string()),
    ])
}
