//! `muster image …` and `muster version …`.

use std::{path::Path, time::Instant};

use clap::ValueEnum as _;
use muster_api::{
    ErrorCode, Labels, LabelsPatch, VersionId,
    firmware::BootKind,
    image::{CreateImage, Image, ImageSource, PatchImage, VersionOrNumber},
    version::{Chunks, Version},
};
use reqwest::Method;

use super::{Ctx, Frees, body, filtered, labels, parsed};
use crate::{
    answer::{self, Object},
    args::{ImageCommand, ImageProperties, ImageProperty, VersionCommand},
    cells::{self, age, optional, optional_size, word},
    client::{Answer, Call},
    failure::Failure,
    table::{Column, Order, names, numbers, wide, words},
    transfer, units,
};

const IMAGES: [Column<Image>; 10] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    numbers("NEWEST", |v| optional(v.newest_number)),
    numbers("VERSIONS", |v| v.version_count.to_string()),
    numbers("SIZE", |v| optional_size(v.size_bytes)),
    numbers("AGE", |v| age(v.created_at)),
    wide(words("OS", |v| optional(v.os.as_ref()))),
    wide(words("FIRMWARE", |v| word(&v.firmware))),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

const VERSIONS: [Column<Version>; 6] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    numbers("SIZE", |v| units::bytes(v.size_bytes)),
    numbers("STORED", |v| units::bytes(v.stored_bytes)),
    numbers("AGE", |v| age(v.created_at)),
    words("ID", |v| v.id.to_string()),
];

fn images() -> Call {
    Call::to(&["v1", "images"])
}

fn image(name: &str) -> Call {
    images().then(name)
}

fn version(id: &str) -> Call {
    Call::to(&["v1", "versions", id])
}

pub(super) async fn run(ctx: &Ctx, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Import { name, file, sha256, format, chunk_size, label, properties } => {
            let create = CreateImage {
                name: Some(parsed("name", &name)?),
                source: None,
                chunk_bytes: chunk_size,
                labels: labels(label)?,
                os: properties.os,
                default_user: properties.default_user,
                min_disk_bytes: properties.min_disk,
                min_memory_bytes: properties.min_memory,
                firmware: properties.firmware,
            };
            transfer::check_readable(&file)?;
            import(ctx, &name, &create, &file, sha256.as_deref(), format.as_deref()).await
        }
        ImageCommand::Set { image: name, properties, unset } => set(ctx, &name, properties, &unset).await,
        ImageCommand::Ls { listing, firmware } => {
            ctx.list(&filtered(images(), &listing).with_each("firmware", &firmware), &IMAGES, Order::Name).await
        }
        ImageCommand::Show { image: name } => ctx.show(&image(&name), |object| details(ctx, object)).await,
        ImageCommand::Versions { image: name } => {
            ctx.list(&image(&name).then("versions"), &VERSIONS, Order::Name).await
        }
        ImageCommand::Export { image: reference, to } => {
            export(ctx, &resolve(ctx, &reference).await?, &to.file, to.force).await
        }
        ImageCommand::Clone { from, name } => clone(ctx, &from, &name).await,
        ImageCommand::Rm(removal) => ctx.remove("image", &["v1", "images"], &removal, Frees::Bytes).await,
    }
}

pub(super) async fn run_version(ctx: &Ctx, command: VersionCommand) -> Result<(), Failure> {
    match command {
        VersionCommand::Show { version: id } => ctx.show(&version(&id), |object| version_details(ctx, object)).await,
        VersionCommand::Chunks { version: id } => {
            ctx.show(&version(&id).then("chunks"), |object| chunk_details(ctx, &id, object)).await
        }
        VersionCommand::Export { version: id, to } => {
            export(ctx, &ctx.client.get_object(&version(&id)).await?, &to.file, to.force).await
        }
        VersionCommand::Rm(removal) => ctx.remove("version", &["v1", "versions"], &removal, Frees::Bytes).await,
    }
}

async fn clone(ctx: &Ctx, from: &str, name: &str) -> Result<(), Failure> {
    let source = match from.parse::<VersionId>() {
        Ok(id) => ImageSource { version: Some(VersionOrNumber::Id(id)), ..ImageSource::default() },
        Err(_) => {
            let (from, number) = units::parse_image(from).map_err(Failure::Usage)?;
            ImageSource {
                image: Some(parsed("name", from)?),
                version: number.map(VersionOrNumber::Number),
                ..ImageSource::default()
            }
        }
    };
    let create = CreateImage {
        name: Some(parsed("name", name)?),
        source: Some(source),
        chunk_bytes: None,
        labels: Labels::default(),
        os: None,
        default_user: None,
        min_disk_bytes: None,
        min_memory_bytes: None,
        firmware: None,
    };
    let answer = ctx.client.post(&images(), &body(&create)?).await?;
    ctx.finish(answer, &image(name), |made: &Image| format!("{}: a clone of {from}", made.name)).await
}

/// Says what is known of the system on an image.
async fn set(ctx: &Ctx, name: &str, said: ImageProperties, unset: &[ImageProperty]) -> Result<(), Failure> {
    /// What changes: what was said, or nothing is known any more.
    fn change<T>(
        said: Option<T>,
        unset: &[ImageProperty],
        property: ImageProperty,
    ) -> Result<Option<Option<T>>, Failure> {
        match (said, unset.contains(&property)) {
            (Some(_), true) => {
                let property = property.to_possible_value().expect("no property is hidden");
                Err(Failure::Usage(format!("--{0} and --unset {0} contradict each other", property.get_name())))
            }
            (Some(value), false) => Ok(Some(Some(value))),
            (None, true) => Ok(Some(None)),
            (None, false) => Ok(None),
        }
    }
    let patch = PatchImage {
        name: None,
        labels: LabelsPatch::Nothing,
        os: change(said.os, unset, ImageProperty::Os)?,
        default_user: change(said.default_user, unset, ImageProperty::DefaultUser)?,
        min_disk_bytes: change(said.min_disk, unset, ImageProperty::MinDisk)?,
        min_memory_bytes: change(said.min_memory, unset, ImageProperty::MinMemory)?,
        firmware: change(said.firmware, unset, ImageProperty::Firmware)?,
    };
    let patch = body(&patch)?;
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err(Failure::Usage("say what to set, for example --os debian-12, or what to --unset".to_owned()));
    }
    let Answer { body, .. } = ctx.client.change(Method::PATCH, &image(name), Some(&patch)).await?;
    ctx.out.object(&body, |image: &Image| details(ctx, image))
}

/// Finds the version that `IMAGE` or `IMAGE@N` means now.
async fn resolve(ctx: &Ctx, reference: &str) -> Result<Object<Version>, Failure> {
    let (name, number) = units::parse_image(reference).map_err(Failure::Usage)?;
    if let Some(number) = number {
        return ctx.client.get_object(&image(name).then("versions").then(&number.to_string())).await;
    }
    match ctx.client.get_object::<Image>(&image(name)).await?.read.newest_version {
        Some(id) => ctx.client.get_object(&version(&id.to_string())).await,
        None => Err(Failure::Usage(format!("image {name} has no version yet"))),
    }
}

async fn export(ctx: &Ctx, version: &Object<Version>, file: &Path, force: bool) -> Result<(), Failure> {
    transfer::export(&ctx.client, &version.read, file, force, ctx.out.notes).await?;
    if transfer::is_stdio(file) {
        return Ok(());
    }
    ctx.out.object(&version.sent, |version: &Version| {
        format!("{}: {} to {}", version.name, units::bytes(version.size_bytes), file.display())
    })
}

/// Makes the image if it does not exist, then sends its next version. If the file is refused, an image that was made
/// for it is deleted again.
async fn import(
    ctx: &Ctx,
    name: &str,
    create: &CreateImage,
    file: &Path,
    sha256: Option<&str>,
    format: Option<&str>,
) -> Result<(), Failure> {
    let made = ensure_image(ctx, name, create).await?;
    let content = image(name)
        .then("content")
        .with_some("format", format)
        .with_some("sha256", sha256.map(str::to_ascii_lowercase));
    let started = Instant::now();
    let uploaded = transfer::upload(&ctx.client, &content, file, ctx.out.notes).await;
    if uploaded.is_err() && made {
        // If this fails too, an empty image is left, which does no harm; the person must hear of the upload.
        let _ = ctx.client.change(Method::DELETE, &image(name), None).await;
    }
    let Answer { status, body } = uploaded?;
    let took = units::millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    if answer::read::<Version>(&body).is_ok_and(|version| version.boot == BootKind::UefiOnly) {
        ctx.out.notes.say(&format!("{name} boots only with UEFI: nodes need the package ovmf for its guests"));
    }
    ctx.out.object(&body, |version: &Version| match status {
        200 => format!("{} has this content already", version.name),
        _ => {
            let (all, new) = (units::bytes(version.size_bytes), units::bytes(version.stored_bytes));
            format!("{}: {all}, {new} newly stored, {took}", version.name)
        }
    })
}

/// Makes the image; false if it existed.
async fn ensure_image(ctx: &Ctx, name: &str, create: &CreateImage) -> Result<bool, Failure> {
    match ctx.client.post(&images(), &body(create)?).await {
        Ok(_) => return Ok(true),
        Err(e) if e.code() != Some(ErrorCode::NameTaken) => return Err(e),
        Err(_) => {}
    }
    let existing = ctx.client.get_object::<Image>(&image(name)).await?.read.chunk_bytes;
    match create.chunk_bytes {
        Some(wanted) if wanted != existing => Err(Failure::Usage(format!(
            "image {name} has chunks of {}, not {}; the chunk size of an image cannot be changed",
            units::bytes(existing),
            units::bytes(wanted)
        ))),
        _ => Ok(false),
    }
}

fn details(ctx: &Ctx, image: &Image) -> String {
    ctx.out.facts(&[
        ("name", image.name.clone()),
        ("id", image.id.to_string()),
        ("state", word(&image.state)),
        ("reason", optional(image.reason.as_ref())),
        ("newest", optional(image.newest_number)),
        ("version", optional(image.newest_version)),
        ("versions", image.version_count.to_string()),
        ("size", optional_size(image.size_bytes)),
        ("boot", word(&image.boot)),
        ("firmware", word(&image.firmware)),
        ("os", optional(image.os.as_ref())),
        ("default user", optional(image.default_user.as_ref())),
        ("least disk", optional_size(image.min_disk_bytes)),
        ("least memory", optional_size(image.min_memory_bytes)),
        ("chunk", units::bytes(image.chunk_bytes)),
        ("labels", cells::labels(&image.labels)),
        ("project", image.project.clone()),
        ("created", image.created_at.to_string()),
    ])
}

fn version_details(ctx: &Ctx, version: &Version) -> String {
    ctx.out.facts(&[
        ("name", version.name.clone()),
        ("id", version.id.to_string()),
        ("state", word(&version.state)),
        ("image", optional(version.image_name.as_ref())),
        ("instance", optional(version.instance_name.as_ref())),
        ("snapshot", optional(version.snapshot_name.as_ref())),
        ("parent", optional(version.parent)),
        ("size", units::bytes(version.size_bytes)),
        ("stored", units::bytes(version.stored_bytes)),
        ("boot", word(&version.boot)),
        ("firmware", word(&version.firmware)),
        ("chunk", units::bytes(version.chunk_bytes)),
        ("root", version.root.clone()),
        ("digest", optional(version.digest.as_ref())),
        ("lost", lost(version.objects_lost)),
        ("created", version.created_at.to_string()),
    ])
}

/// What it means that objects of a version are lost; nothing if none are.
fn lost(objects: u64) -> String {
    match objects {
        0 => String::new(),
        objects => format!("{objects} objects, of which no node has a copy: import the same content again"),
    }
}

fn chunk_details(ctx: &Ctx, id: &str, chunks: &Chunks) -> String {
    let mut facts = vec![
        ("chunks", format!("{} of {}", grouped(chunks.count), units::bytes(chunks.chunk_bytes))),
        ("zeros", sum(chunks, &chunks.zero)),
        ("shared", chunks.shared.as_ref().map_or_else(|| "not known".to_owned(), |shared| sum(chunks, shared))),
        ("boots read", booted(chunks)),
    ];
    if let Some(of) = chunks.boots_of.map(|of| of.to_string()).filter(|of| of != id) {
        facts.push(("boots of", format!("{of}, which this version was made from")));
    }
    ctx.out.facts(&facts)
}

/// `405 of 2,048 chunks (last 4 boots)`.
fn booted(chunks: &Chunks) -> String {
    let last = match chunks.boots {
        0 => return "no boot is known yet".to_owned(),
        1 => "last boot".to_owned(),
        boots => format!("last {boots} boots"),
    };
    format!("{} of {} chunks ({last})", grouped(chunks.boot_chunks), grouped(chunks.count))
}

/// How many chunks there are in all cells of one kind. What was not found out in time is said.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^53 chunks"
)]
fn sum(chunks: &Chunks, cells: &[Option<f64>]) -> String {
    let each = |cell: usize| chunks.step.min(chunks.count.saturating_sub(chunks.step * cell as u64)) as f64;
    let known: f64 = cells.iter().enumerate().filter_map(|(n, part)| Some(part.as_ref()? * each(n))).sum();
    let unknown: f64 = cells.iter().enumerate().filter(|(_, part)| part.is_none()).map(|(n, _)| each(n)).sum();
    let known = grouped(known.round() as u64);
    if unknown == 0.0 { known } else { format!("{known}, {} not found out in time", grouped(unknown as u64)) }
}

/// `2,048`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_told_as_counts_with_what_is_not_known() {
        let chunks = Chunks {
            chunk_bytes: 262_144,
            count: 4_099,
            step: 2_048,
            zero: vec![Some(0.5), Some(1.0), Some(0.333)],
            shared: Some(vec![Some(0.25), None, Some(0.0)]),
            boot_order: None,
            boot_chunks: 1_405,
            boots: 4,
            boots_of: None,
        };
        assert_eq!(sum(&chunks, &chunks.zero), "3,073");
        assert_eq!(sum(&chunks, chunks.shared.as_ref().expect("known")), "512, 2,048 not found out in time");
        assert_eq!(booted(&chunks), "1,405 of 4,099 chunks (last 4 boots)");
        assert_eq!(booted(&Chunks { boots: 1, ..chunks.clone() }), "1,405 of 4,099 chunks (last boot)");
        assert_eq!(booted(&Chunks { boots: 0, ..chunks }), "no boot is known yet");
    }
}
