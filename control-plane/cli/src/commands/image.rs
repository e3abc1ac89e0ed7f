//! `muster image …` and `muster version …`.

use muster_api::image::{CreateImage, ImageSource, VersionOrNumber};
use reqwest::Method;
use serde_json::Value;

use super::{Ctx, Frees, body, filtered, labels, parsed};
use crate::{
    args::{ImageCommand, ImageFormat, VersionCommand},
    client::Call,
    failure::Failure,
    output::{self, Column, age, numbers, size, text, words},
    transfer::{self, Source},
    units,
};

const IMAGES: [Column; 7] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", |v| text(v, "/state")),
    numbers("NEWEST", |v| text(v, "/newest_number")),
    numbers("VERSIONS", |v| text(v, "/version_count")),
    numbers("SIZE", |v| size(v, "/size_bytes")),
    numbers("AGE", |v| age(v, "/created_at")),
    words("LABELS", |v| output::labels(v, "/labels")),
];

const VERSIONS: [Column; 6] = [
    words("NAME", |v| text(v, "/name")),
    words("STATE", |v| text(v, "/state")),
    numbers("SIZE", |v| size(v, "/size_bytes")),
    numbers("STORED", |v| size(v, "/stored_bytes")),
    numbers("AGE", |v| age(v, "/created_at")),
    words("ID", |v| text(v, "/id")),
];

fn image(name: &str) -> Call {
    Call::to(&["v1", "images", name])
}

pub(super) async fn run(ctx: &Ctx, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Import { name, file, sha256, format, chunk_size, label } => {
            let create = CreateImage {
                name: Some(parsed("name", &name)?),
                source: None,
                chunk_bytes: chunk_size,
                labels: labels(label)?,
            };
            transfer::check_readable(&file)?;
            import(ctx, &name, &create, &file, sha256.as_deref(), format).await
        }
        ImageCommand::Ls(listing) => ctx.list(&filtered(Call::to(&["v1", "images"]), &listing), &IMAGES).await,
        ImageCommand::Show { image: name } => {
            let object = ctx.client.get(&image(&name)).await?;
            ctx.out.thing(&object, || {
                ctx.out.facts(&[
                    ("name", text(&object, "/name")),
                    ("id", text(&object, "/id")),
                    ("state", text(&object, "/state")),
                    ("reason", text(&object, "/reason")),
                    ("newest", text(&object, "/newest_number")),
                    ("version", text(&object, "/newest_version")),
                    ("versions", text(&object, "/version_count")),
                    ("size", size(&object, "/size_bytes")),
                    ("chunk", size(&object, "/chunk_bytes")),
                    ("labels", output::labels(&object, "/labels")),
                    ("project", text(&object, "/project")),
                    ("created", text(&object, "/created_at")),
                ])
            })
        }
        ImageCommand::Versions { image: name } => ctx.list(&image(&name).then("versions"), &VERSIONS).await,
        ImageCommand::Export { image: reference, to } => {
            let version = resolve(ctx, &reference).await?;
            export(ctx, &version, &to.file, to.force).await
        }
        ImageCommand::Clone { from, name } => {
            let source = match from.parse() {
                Ok(id) => ImageSource { version: Some(VersionOrNumber::Id(id)), ..ImageSource::default() },
                Err(_) => {
                    let (from, number) = units::parse_image(&from).map_err(Failure::Usage)?;
                    ImageSource {
                        image: Some(parsed("name", from)?),
                        version: number.map(VersionOrNumber::Number),
                        ..ImageSource::default()
                    }
                }
            };
            let create = CreateImage {
                name: Some(parsed("name", &name)?),
                source: Some(source),
                chunk_bytes: None,
                labels: muster_api::Labels::default(),
            };
            let answer = ctx.client.post(&Call::to(&["v1", "images"]), &body(&create)?).await?;
            ctx.finish(answer, Some(&image(&name)), |_| format!("{name}: a clone of {from}")).await
        }
        ImageCommand::Rm(removal) => ctx.remove("image", &["v1", "images"], &removal, Frees::Bytes).await,
    }
}

pub(super) async fn run_version(ctx: &Ctx, command: VersionCommand) -> Result<(), Failure> {
    let version = |id: &str| Call::to(&["v1", "versions", id]);
    match command {
        VersionCommand::Show { version: id } => {
            let object = ctx.client.get(&version(&id)).await?;
            ctx.out.thing(&object, || {
                ctx.out.facts(&[
                    ("name", text(&object, "/name")),
                    ("id", text(&object, "/id")),
                    ("state", text(&object, "/state")),
                    ("image", text(&object, "/image_name")),
                    ("instance", text(&object, "/instance_name")),
                    ("snapshot", text(&object, "/snapshot_name")),
                    ("size", size(&object, "/size_bytes")),
                    ("stored", size(&object, "/stored_bytes")),
                    ("chunk", size(&object, "/chunk_bytes")),
                    ("root", text(&object, "/root")),
                    ("digest", text(&object, "/digest")),
                    ("created", text(&object, "/created_at")),
                ])
            })
        }
        VersionCommand::Export { version: id, to } => {
            let object = ctx.client.get(&version(&id)).await?;
            export(ctx, &object, &to.file, to.force).await
        }
        VersionCommand::Rm(removal) => ctx.remove("version", &["v1", "versions"], &removal, Frees::Bytes).await,
    }
}

/// The version that `IMAGE` or `IMAGE@N` means now.
async fn resolve(ctx: &Ctx, reference: &str) -> Result<Value, Failure> {
    let (name, number) = units::parse_image(reference).map_err(Failure::Usage)?;
    if let Some(number) = number {
        return ctx.client.get(&image(name).then("versions").then(&number.to_string())).await;
    }
    let object = ctx.client.get(&image(name)).await?;
    match text(&object, "/newest_version").as_str() {
        "" => Err(Failure::Usage(format!("image {name} has no version yet"))),
        id => ctx.client.get(&Call::to(&["v1", "versions", id])).await,
    }
}

async fn export(ctx: &Ctx, version: &Value, file: &std::path::Path, force: bool) -> Result<(), Failure> {
    let source = Source::of(version);
    transfer::export(&ctx.client, &source, file, force, ctx.out.notes).await?;
    if file.as_os_str() == "-" {
        return Ok(());
    }
    ctx.out.thing(version, || format!("{}: {} to {}", source.name, units::bytes(source.size_bytes), file.display()))
}

/// Makes the image unless it is there, then sends its next version. An image made for a file that was refused goes again.
async fn import(
    ctx: &Ctx,
    name: &str,
    create: &CreateImage,
    file: &std::path::Path,
    sha256: Option<&str>,
    format: Option<ImageFormat>,
) -> Result<(), Failure> {
    let made = match ctx.client.post(&Call::to(&["v1", "images"]), &body(create)?).await {
        Ok(_) => true,
        Err(e) if e.code() == Some("name_taken") => {
            let existing = ctx.client.get(&image(name)).await?;
            let chunk = output::count(&existing, "/chunk_bytes");
            if let Some(wanted) = create.chunk_bytes.filter(|wanted| *wanted != chunk) {
                return Err(Failure::Usage(format!(
                    "image {name} has chunks of {}, not {}; a chunk size is fixed once the image is there",
                    units::bytes(chunk),
                    units::bytes(wanted)
                )));
            }
            false
        }
        Err(e) => return Err(e),
    };
    let content = image(name)
        .then("content")
        .with_some("format", format.map(ImageFormat::as_str))
        .with_some("sha256", sha256.map(str::to_ascii_lowercase));
    let started = std::time::Instant::now();
    match transfer::upload(&ctx.client, &content, file, ctx.out.notes).await {
        Ok(answer) => {
            let same = answer.status == 200;
            let took = units::millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            ctx.out.thing(&answer.body, || {
                let version = text(&answer.body, "/name");
                let (all, new) = (size(&answer.body, "/size_bytes"), size(&answer.body, "/stored_bytes"));
                match same {
                    true => format!("{version} has this content already"),
                    false => format!("{version}: {all}, {new} newly stored, {took}"),
                }
            })
        }
        Err(failure) => {
            if made {
                // Best effort: the failure of the upload is the one to tell; an empty image does no harm.
                let _ = ctx.client.change(Method::DELETE, &image(name), None).await;
            }
            Err(failure)
        }
    }
}
