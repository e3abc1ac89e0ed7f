//! `muster instance …`.

use muster_api::{
    Reason,
    guest::{Guest, GuestFileSystem},
    instance::{Instance, InstanceDisk, Loss, OnMany, Recover, Select},
    network::{Nic, NicPort},
};
use serde_json::{Value, json};

use super::{Ctx, Frees, Settled, Shown, body, deployment::power, filtered, found, guest, parsed, power_cut};
use crate::{
    answer,
    args::{InstanceCommand, Power, Removal, Whom},
    cells::{self, age, optional, word},
    client::{Answer, Call},
    failure::Failure,
    table::{Column, Order, names, numbers, texts, wide, words},
    transfer, units,
};

const INSTANCES: [Column<Instance>; 13] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    words("READY", |v| if v.ready_at.is_some() { "yes" } else { "no" }.to_owned()),
    words("ADDRESS", |v| optional(v.nics.first().and_then(|nic| nic.address_v4))),
    names("NODE", |v| optional(v.node_name.as_ref())),
    wide(numbers("CPUS", |v| v.cpus.to_string())),
    numbers("MEMORY", |v| units::bytes(v.memory_bytes)),
    numbers("UNSAVED", |v| units::bytes(v.disks.iter().map(|d| d.unsaved_bytes).sum())),
    wide(numbers("SAVED", |v| optional(v.saved_at.map(age)))),
    texts("REASON", |v| {
        optional(v.reason.as_ref().map(Reason::as_str).or(v.conditions.first().map(|c| c.kind.as_str())))
    }),
    wide(numbers("AGE", |v| age(v.created_at))),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

const DISKS: [Column<InstanceDisk>; 6] = [
    words("DISK", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    numbers("SIZE", |v| units::bytes(v.size_bytes)),
    numbers("UNSAVED", |v| units::bytes(v.unsaved_bytes)),
    numbers("SAVED", |v| optional(v.saved_at.map(age))),
    words("VERSION", |v| v.version.to_string()),
];

const NICS: [Column<Nic>; 5] = [
    names("NETWORK", |v| v.network_name.clone()),
    words("ADDRESS", |v| optional(v.address_v4)),
    words("IPV6", |v| optional(v.address_v6)),
    wide(words("MAC", |v| v.mac.to_string())),
    texts("SECURITY GROUPS", |v| v.security_group_names.join(" ")),
];

const FILE_SYSTEMS: [Column<GuestFileSystem>; 4] = [
    names("FILE SYSTEM", |v| v.mount.clone()),
    words("KIND", |v| v.kind.clone()),
    numbers("SIZE", |v| optional(v.size_bytes.map(units::bytes))),
    numbers("USED", |v| optional(v.used_bytes.map(units::bytes))),
];

/// What the guest tells about itself.
fn guest_facts(guest: &Guest) -> Vec<(&'static str, String)> {
    let version = optional(guest.agent_version.as_ref());
    let agent = if guest.answers { version } else { format!("{version}, does not answer any more") };
    let os = guest.os.clone().unwrap_or_default();
    let mut facts = vec![
        ("guest agent", agent),
        ("guest system", optional(os.name.or(os.id).as_ref())),
        ("guest kernel", optional(os.kernel.as_ref())),
        ("guest name", optional(guest.host_name.as_ref())),
    ];
    facts.extend(guest.interfaces.iter().map(|card| {
        let addresses: Vec<String> = card.addresses.iter().map(ToString::to_string).collect();
        ("guest card", format!("{} {}", card.name, addresses.join(" ")).trim_end().to_owned())
    }));
    facts
}

/// `192.0.2.11:30080 to port 80/tcp`.
fn published(port: &NicPort) -> String {
    let node = port.node_address.as_deref().unwrap_or("its node");
    let node = if node.contains(':') { format!("[{node}]") } else { node.to_owned() };
    format!("{node}:{} to port {}/{}", port.node_port, port.port, word(&port.protocol))
}

fn instance(name: &str) -> Call {
    Call::to(&["v1", "instances", name])
}

pub(super) async fn run(ctx: &Ctx, command: InstanceCommand) -> Result<(), Failure> {
    match command {
        InstanceCommand::Ls { deployment, node, network, listing } => {
            let call = Call::to(&["v1", "instances"]).with_each("deployment", &deployment).with_each("node", &node);
            let call = call.with_each("network", &network);
            ctx.list(&filtered(call, &listing), &INSTANCES, Order::Name).await
        }
        InstanceCommand::Show { instance: name } => ctx.show(&instance(&name), |object| details(ctx, object)).await,
        InstanceCommand::Start { whom } => verb(ctx, &whom, Verb::Start).await,
        InstanceCommand::Stop { whom, how } => verb(ctx, &whom, Verb::Stop(how)).await,
        InstanceCommand::Reboot { whom, how } => verb(ctx, &whom, Verb::Reboot(how)).await,
        InstanceCommand::Recover { whom, accept_loss } => verb(ctx, &whom, Verb::Recover { accept_loss }).await,
        InstanceCommand::Log { instance: name, tail, follow } => {
            let tail = tail.map_or_else(|| "64KiB".to_owned(), |n| format!("{}KiB", n.div_ceil(1024)));
            let call = instance(&name).then("log").with("tail", tail);
            let call = if follow { call.with("follow", true) } else { call };
            let response = ctx.client.stream(&call, None).await?;
            match transfer::console_to_stdout(&ctx.client, response).await {
                // Ctrl-C is how following ends.
                Err(Failure::Interrupted(_)) if follow => Ok(()),
                other => other,
            }
        }
        InstanceCommand::Console(wanted) => guest::console(ctx, &wanted).await,
        InstanceCommand::Connect(wanted) => guest::connect(ctx, &wanted).await,
        InstanceCommand::Found { node } => found::list(ctx, &node).await,
        InstanceCommand::Take { which, deployment } => found::take(ctx, &which, deployment.as_deref()).await,
        InstanceCommand::Forget { instances, yes } => found::forget(ctx, instances, yes).await,
        InstanceCommand::Rm { whom, yes } => remove(ctx, whom, yes).await,
        // `reserved` has answered this.
        InstanceCommand::Migrate(_) => Ok(()),
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

/// The instances in words, for questions and sentences.
fn described(whom: &Whom) -> String {
    match (&whom.deployment, &whom.label) {
        (Some(deployment), _) => format!("all instances of {deployment}"),
        (_, Some(label)) => format!("all instances with {label}"),
        _ => format!("instance {}", whom.things.join(", ")),
    }
}

/// What is asked of instances.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Start,
    Stop(Power),
    Reboot(Power),
    Recover { accept_loss: bool },
    Delete,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop(_) => "stop",
            Self::Reboot(_) => "reboot",
            Self::Recover { .. } => "recover",
            Self::Delete => "delete",
        }
    }

    /// The request for one instance.
    fn body(self) -> Result<Value, Failure> {
        match self {
            Self::Start | Self::Delete => Ok(json!({})),
            Self::Stop(how) | Self::Reboot(how) => body(&power(how)),
            Self::Recover { accept_loss } => body(&Recover { accept_loss }),
        }
    }
}

/// Makes one call for many instances.
async fn on_many(ctx: &Ctx, whom: &Whom, verb: Verb) -> Result<Answer, Failure> {
    let how = match verb {
        Verb::Stop(how) | Verb::Reboot(how) => how,
        Verb::Start | Verb::Recover { .. } | Verb::Delete => Power::default(),
    };
    let request = OnMany {
        select: select(whom)?,
        force: how.force,
        timeout_s: how.grace.map(|t| t.as_secs()),
        accept_loss: matches!(verb, Verb::Recover { accept_loss: true }),
    };
    ctx.client.post(&Call::to(&["v1", "instances", "-", verb.word()]), &body(&request)?).await
}

async fn verb(ctx: &Ctx, whom: &Whom, verb: Verb) -> Result<(), Failure> {
    if let [name] = whom.things.as_slice() {
        let answer = ctx.client.post(&instance(name).then(verb.word()), &verb.body()?).await?;
        tell_loss(ctx, &answer)?;
        let shown = |object: &Instance| format!("{}: {}", object.name, word(&object.state));
        return ctx.finish(answer, &instance(name), shown).await;
    }
    let answer = on_many(ctx, whom, verb).await?;
    tell_loss(ctx, &answer)?;
    let (sent, cut) = match ctx.settle(answer).await? {
        Settled::Accepted(operation) => return ctx.print(&ctx.accepted(operation)?),
        Settled::Done(operation) => (operation.sent, power_cut(&operation.read)),
        Settled::Now(body) => (body, String::new()),
    };
    ctx.print(&Shown { sent, text: format!("{}: {} done{cut}", described(whom), verb.word()) })
}

/// Says on standard error what a recovery gives up: the answer of any other verb lists no loss.
fn tell_loss(ctx: &Ctx, answer: &Answer) -> Result<(), Failure> {
    let Some(listed) = answer.body.pointer("/result/loss") else { return Ok(()) };
    for loss in answer::read::<Vec<Loss>>(listed)? {
        let since = loss.saved_at.map_or_else(|| "it was deployed".to_owned(), |at| at.to_string());
        let bytes = units::bytes(loss.unsaved_bytes);
        ctx.out
            .notes
            .say(&format!("{}: what was written since {since} is given up, at least {bytes}", loss.instance_name));
    }
    Ok(())
}

async fn remove(ctx: &Ctx, whom: Whom, yes: bool) -> Result<(), Failure> {
    if whom.things.len() == 1 {
        let removal = Removal { things: whom.things, yes };
        return ctx.remove("instance", &["v1", "instances"], &removal, Frees::Bytes).await;
    }
    let what = described(&whom);
    ctx.agree(&format!("Delete {what}?"), yes).await?;
    let answer = on_many(ctx, &whom, Verb::Delete).await?;
    ctx.print(&ctx.removed(answer, &what, None).await?)
}

fn details(ctx: &Ctx, instance: &Instance) -> String {
    let mut facts = vec![
        ("name", instance.name.clone()),
        ("id", instance.id.to_string()),
        ("state", word(&instance.state)),
        ("reason", optional(instance.reason.as_ref())),
        ("detail", optional(instance.detail.as_ref())),
        ("conditions", cells::conditions(&instance.conditions)),
        ("host name", instance.host_name.clone()),
        ("deployment", instance.deployment_name.clone()),
        ("node", optional(instance.node_name.as_ref())),
        ("zone", optional(instance.zone.as_ref())),
        ("runtime", word(&instance.runtime)),
        ("cpus", instance.cpus.to_string()),
        ("memory", units::bytes(instance.memory_bytes)),
        ("placed", optional(instance.steps.placed_at)),
        ("disk there", optional(instance.steps.disk_at)),
        ("started", optional(instance.steps.started_at)),
        ("ready", optional(instance.ready_at)),
        ("boots", instance.boots.to_string()),
        ("last reason", optional(instance.last_reason.as_ref())),
        ("of", optional(instance.last_reason_at)),
        ("labels", cells::labels(&instance.labels)),
        ("created", instance.created_at.to_string()),
    ];
    // Where its disk is, which is too long for a column of a table.
    facts.extend(instance.disks.iter().map(|disk| ("disk file", optional(disk.path.as_ref()))));
    facts.extend(instance.nics.iter().flat_map(|nic| &nic.ports).map(|port| ("published", published(port))));
    facts.extend(instance.guest.iter().flat_map(guest_facts));
    let file_systems = instance.guest.as_ref().map_or(&[][..], |guest| &guest.file_systems);
    ctx.out.facts(&facts)
        + &ctx.out.section(&DISKS, &instance.disks)
        + &ctx.out.section(&NICS, &instance.nics)
        + &ctx.out.section(&FILE_SYSTEMS, file_systems)
}
