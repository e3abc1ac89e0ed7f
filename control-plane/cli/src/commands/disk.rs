//! `muster disk …`.

use std::time::Duration;

use muster_api::{
    Ref,
    disk::{self as api, Disk, DiskSource, DiskState, PatchDisk},
    image::VersionOrNumber,
};
use reqwest::Method;
use serde_json::Value;

use super::{Ctx, Frees, body, parsed};
use crate::{
    answer::Object,
    args::{AttachDisk, DiskCommand},
    cells::{age, optional, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, texts, wide, words},
    units,
};

/// Time between two looks at a disk that is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const DISKS: [Column<Disk>; 9] = [
    names("NAME", name_of),
    words("STATE", |v| word(&v.state)),
    numbers("SIZE", |v| units::bytes(v.size_bytes)),
    numbers("UNSAVED", |v| units::bytes(v.unsaved_bytes)),
    numbers("SAVED", |v| optional(v.saved_at.map(age))),
    texts("DETAIL", |v| optional(v.detail.as_ref().or(v.detached_from.as_ref().map(from).as_ref()))),
    numbers("AGE", |v| age(v.created_at)),
    words("ID", |v| v.id.to_string()),
    wide(words("VERSION", |v| v.version.to_string())),
];

fn from(instance: &String) -> String {
    format!("from {instance}")
}

/// `web.0/data`; of a disk that belongs to no instance `data`.
fn name_of(disk: &Disk) -> String {
    match &disk.instance_name {
        Some(instance) => format!("{instance}/{}", disk.name),
        None => disk.name.clone(),
    }
}

fn disks() -> Call {
    Call::to(&["v1", "disks"])
}

/// `web.0/data: growing, 20 GiB`.
fn sentence(disk: &Disk) -> String {
    let detail = disk.detail.as_ref().map(|detail| format!(", {detail}"));
    format!("{}: {}, {}{}", name_of(disk), word(&disk.state), units::bytes(disk.size_bytes), optional(detail))
}

pub(super) async fn run(ctx: &Ctx, command: DiskCommand) -> Result<(), Failure> {
    match command {
        DiskCommand::Ls { detached, instance, state } => {
            let call = disks().with_each("instance", &instance).with_each("state", &state);
            let call = if detached { call.with("detached", true) } else { call };
            ctx.list(&call, &DISKS, Order::Name).await
        }
        DiskCommand::Show { disk } => ctx.show(&disks().then(&disk), |disk| details(ctx, disk)).await,
        DiskCommand::Grow { disk, size } => {
            let patch = body(&PatchDisk { size_bytes: Some(size) })?;
            let answer = ctx.client.change(Method::PATCH, &disks().then(&disk), Some(&patch)).await?;
            ctx.out.object(&answer.body, sentence)
        }
        DiskCommand::Attach(wanted) => {
            let call = Call::to(&["v1", "instances", &wanted.instance, "disks"]);
            let answer = ctx.client.post(&call, &body(&attached(wanted)?)?).await?;
            ctx.out.object(&answer.body, sentence)
        }
        DiskCommand::Detach { disk, wait } => {
            let answer = ctx.client.change(Method::POST, &disks().then(&disk).then("detach"), None).await?;
            let sent = if wait { wait_detached(ctx, answer.body).await? } else { answer.body };
            ctx.out.object(&sent, sentence)
        }
        DiskCommand::Rm(removal) => ctx.remove("disk", &["v1", "disks"], &removal, Frees::Nothing).await,
    }
}

fn attached(wanted: AttachDisk) -> Result<api::AttachDisk, Failure> {
    let mut source = DiskSource::default();
    if let Some(image) = &wanted.image {
        let (image, number) = units::parse_image(image).map_err(Failure::Usage)?;
        source.image = Some(parsed("name", image)?);
        source.version = number.map(VersionOrNumber::Number);
    }
    if let Some(version) = &wanted.version {
        source.version = Some(VersionOrNumber::Id(parsed("version's id", version)?));
    }
    let disk: Option<Ref<_>> = wanted.disk.as_deref().map(|disk| parsed("name", disk)).transpose()?;
    let source = Some(source).filter(|source| *source != DiskSource::default());
    Ok(api::AttachDisk { disk, name: wanted.name, size_bytes: wanted.size, source })
}

/// Waits until the disk is detached, and says what is waited for. Returns the disk as it is then.
async fn wait_detached(ctx: &Ctx, sent: Value) -> Result<Value, Failure> {
    let mut disk: Object<Disk> = Object::of(sent)?;
    // It keeps its id, and not its name.
    let call = disks().then(&disk.read.id.to_string());
    let mut said = None;
    while disk.read.state != DiskState::Detached {
        if disk.read.state != DiskState::Detaching {
            let (name, state) = (name_of(&disk.read), word(&disk.read.state));
            return Err(Failure::Otherwise(format!("{name} is {state}: somebody took the detach back")));
        }
        if disk.read.detail.is_some() && disk.read.detail != said {
            said.clone_from(&disk.read.detail);
            ctx.out.notes.say(&sentence(&disk.read));
        }
        let going = || Failure::NotYet(format!("{}; it goes on", sentence(&disk.read)));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = until(ctx) => return Err(going()),
            () = ctx.client.interrupt().cancelled() => return Err(going()),
        }
        disk = Object::of(ctx.client.get(&call).await?)?;
    }
    Ok(disk.sent)
}

async fn until(ctx: &Ctx) {
    match ctx.until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn details(ctx: &Ctx, disk: &Disk) -> String {
    ctx.out.facts(&[
        ("name", name_of(disk)),
        ("id", disk.id.to_string()),
        ("project", disk.project.clone()),
        ("state", word(&disk.state)),
        ("detail", optional(disk.detail.as_ref())),
        ("instance", optional(disk.instance_name.as_ref())),
        ("detached from", optional(disk.detached_from.as_ref())),
        ("size", units::bytes(disk.size_bytes)),
        ("unsaved", units::bytes(disk.unsaved_bytes)),
        ("saved", optional(disk.saved_at)),
        ("version", disk.version.to_string()),
        ("created", disk.created_at.to_string()),
        ("changed", disk.updated_at.to_string()),
    ])
}
