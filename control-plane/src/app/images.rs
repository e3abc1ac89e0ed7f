//! Images: make, clone, show, rename, delete.

use muster_api::{
    ImageId, Page, Ref,
    image::{CreateImage, Image, ImageState, PatchImage},
    operation::Target,
    version::{Freed, Version},
};
use serde_json::json;

use super::{
    Answer, App, AppError, Asked, Caller, Once, at, find, freed::Going, labels::patched, list::ListQuery,
    versions as app_versions,
};
use crate::{
    domain::{
        images::{Properties, Source},
        names::made_up,
    },
    store::{
        Tx,
        events::{self, NewEvent},
        images::{self, ImageFilter, ImageRow, NewImage},
        uploads::{self, UploadTarget},
        versions::{self, NewVersion, Of, VersionFilter, VersionRow},
    },
};

impl App {
    /// Makes an image: empty, or a clone, which copies nothing.
    pub async fn create_image(&self, caller: &Caller, once: &Once, wanted: CreateImage) -> Result<Answer, AppError> {
        let project = caller.one_project()?;
        let source = Source::of(&wanted).map_err(|e| AppError::Invalid(vec![e]))?;
        let said = Properties::of(&wanted);
        said.check().map_err(AppError::Invalid)?;
        let id = ImageId::generate();
        let name = wanted.name.as_ref().map_or_else(|| made_up("image", id.uuid()), ToString::to_string);
        self.once(once, "images.create", async |tx| {
            if let Some(existing) = images::by_name(tx, project, &name).await? {
                let existing = existing.image.id.to_string();
                return Err(AppError::NameTaken { kind: "image", name, existing });
            }
            let (chunk_bytes, origin, known) = match source {
                Source::Upload(chunk) => (chunk.bytes(), None, Properties::default()),
                Source::Version(id) => {
                    let row = find::version(tx, caller, id).await.map_err(at("/source/version"))?;
                    let known = properties_of(tx, &row).await?;
                    (row.version.chunk_bytes, Some(row), known)
                }
                Source::Image(reference, number) => {
                    let (image, row) = find::source_image(tx, caller, &reference, number).await?;
                    (row.version.chunk_bytes, Some(row), image.properties)
                }
                Source::Url => return Err(AppError::NotBuiltYet("fetching an image by its URL".to_owned())),
            };
            let (labels, properties) = (wanted.labels.clone(), said.or(known));
            let new = NewImage { id, name, project: project.to_owned(), labels, chunk_bytes, properties };
            images::insert(tx, &new).await?;
            let mut row = existing(tx, id).await?;
            tell(tx, caller, "image.created", &row).await?;
            if let Some(origin) = origin {
                let new = clone_of(&origin, &row);
                let number = images::take_number(tx, &row).await?;
                versions::insert(tx, &NewVersion { of: Of::Image { image: id, number }, ..new }).await?;
                row = existing(tx, id).await?;
                let version = versions::newest(tx, id).await?;
                tell_published(tx, &caller.name, version.as_ref()).await?;
            }
            Answer::created(&row.image, format!("/v1/images/{id}"))
        })
        .await
    }

    /// One image, by id or name, unless it is deleted.
    pub async fn image(&self, caller: &Caller, image: &Ref<ImageId>) -> Result<Image, AppError> {
        self.store.read("images.show", async |tx| Ok(find::image(tx, caller, image).await?.image)).await
    }

    /// A page of images. The filters `state`, `label`, `os` and `firmware` are known.
    pub async fn images(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Image>, AppError> {
        list.filter.states_of::<ImageState>()?;
        list.filter.firmware_is_known()?;
        let filter = ImageFilter { project: caller.list_project().map(str::to_owned), deleted: list.deleted };
        self.store
            .read("images.list", async |tx| {
                let mut pager = list.pager(tx).await?;
                while let Some((after, limit)) = pager.wants() {
                    let rows = images::list(tx, &filter, after, limit).await?;
                    let keep = |row: ImageRow| {
                        let kept = list.filter.keeps(row.image.state, &row.image.labels);
                        let kept = kept && list.filter.keeps_firmware(&row.image.firmware);
                        (kept && list.filter.keeps_os(row.image.os.as_deref())).then_some(row.image)
                    };
                    pager.take(rows, |row| row.seq, keep);
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name, labels or properties; what the patch leaves out stays.
    pub async fn patch_image(&self, asked: &Asked<Ref<ImageId>>, patch: PatchImage) -> Result<Answer, AppError> {
        self.once(&asked.once, "images.patch", async |tx| {
            let mut row = find::image(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let name = patch.name.as_ref().map_or_else(|| row.image.name.clone(), ToString::to_string);
            let labels = patched(&row.image.labels, &patch.labels)?;
            let properties = row.properties.patched(&patch);
            properties.check().map_err(AppError::Invalid)?;
            if name == row.image.name && labels == row.image.labels && properties == row.properties {
                return Answer::ok(&row.image);
            }
            if let Some(other) = images::by_name(tx, &row.image.project, &name).await?
                && other.image.id != row.image.id
            {
                return Err(AppError::NameTaken { kind: "image", name, existing: other.image.id.to_string() });
            }
            (row.image.name, row.image.labels, row.properties) = (name, labels, properties);
            images::save(tx, &row).await?;
            let row = existing(tx, row.image.id).await?;
            tell(tx, &asked.caller, "image.changed", &row).await?;
            Answer::ok(&row.image)
        })
        .await
    }

    /// Unlinks an image and its versions. An upload under way ends without a version. Disks that began with one of the
    /// versions can still read it.
    pub async fn delete_image(&self, asked: &Asked<Ref<ImageId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "images.delete", async |tx| {
            let row = find::image(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let id = row.image.id;
            if let Some(upload) = uploads::live_of(tx, UploadTarget::Image, &id.to_string()).await? {
                uploads::end(tx, upload.id).await?;
            }
            versions::unlink_image(tx, id).await?;
            images::unlink(tx, &row).await?;
            tell(tx, &asked.caller, "image.deleted", &row).await?;
            Ok(Answer::no_content())
        })
        .await
    }

    /// The bytes that deleting the image would give back.
    pub async fn image_freed(&self, caller: &Caller, image: &Ref<ImageId>) -> Result<Freed, AppError> {
        let row = self.store.read("images.freed", async |tx| find::image(tx, caller, image).await).await?;
        self.freed(caller, &row.image.project, Going::Image(row.image.id)).await
    }

    /// A page of an image's versions.
    pub async fn image_versions(
        &self,
        caller: &Caller,
        image: &Ref<ImageId>,
        list: &ListQuery,
    ) -> Result<Page<Version>, AppError> {
        self.store
            .read("images.versions", async |tx| {
                let image = Some(find::image(tx, caller, image).await?.image.id);
                let filter = VersionFilter { image, deleted: list.deleted, ..VersionFilter::default() };
                app_versions::page(tx, &filter, list).await
            })
            .await
    }

    /// The version with this number of an image; the newest one if no number is given.
    pub async fn image_version(
        &self,
        caller: &Caller,
        image: &Ref<ImageId>,
        number: Option<u64>,
    ) -> Result<VersionRow, AppError> {
        self.store
            .read("images.version", async |tx| {
                let row = find::image(tx, caller, image).await?;
                find::version_of(tx, &row, number).await
            })
            .await
    }
}

/// What is known of the system on a version: what its image says, if it is of one that still exists.
pub(super) async fn properties_of(tx: &mut Tx, row: &VersionRow) -> Result<Properties, AppError> {
    let Some(id) = row.version.image else { return Ok(Properties::default()) };
    Ok(images::load(tx, id).await?.map(|image| image.properties).unwrap_or_default())
}

/// A version of `image` with the content of `origin`. Nothing is copied: it is another row with the same root.
fn clone_of(origin: &VersionRow, image: &ImageRow) -> NewVersion {
    NewVersion {
        id: muster_api::VersionId::generate(),
        project: image.image.project.clone(),
        labels: muster_api::Labels::default(),
        of: Of::Image { image: image.image.id, number: 1 },
        parent: Some(origin.version.id),
        content: origin.content.clone(),
        digest: origin.version.digest.clone(),
        stored_bytes: 0,
        reached_bytes: origin.reached_bytes,
        boot: origin.version.boot,
        firmware: origin.firmware,
        upload: None,
    }
}

/// The image as it is after a change in this transaction.
pub(super) async fn existing(tx: &mut Tx, id: ImageId) -> Result<ImageRow, AppError> {
    images::load(tx, id).await?.ok_or_else(|| AppError::not_found("image", id))
}

/// Appends an event of an image.
async fn tell(tx: &mut Tx, caller: &Caller, kind: &'static str, row: &ImageRow) -> Result<(), AppError> {
    let image = &row.image;
    let state = if kind == "image.deleted" { ImageState::Deleted } else { image.state };
    let target = Target { kind: "image".to_owned(), id: image.id.to_string(), name: image.name.clone() };
    let event = NewEvent {
        actor: caller.name.clone(),
        labels: image.labels.clone(),
        data: json!({ "state": state }),
        ..NewEvent::new(kind, image.project.clone(), target)
    };
    events::append(tx, event).await?;
    Ok(())
}

/// Appends the event that a version was published.
pub(super) async fn tell_published(tx: &mut Tx, actor: &str, row: Option<&VersionRow>) -> Result<(), AppError> {
    let Some(VersionRow { version, .. }) = row else { return Ok(()) };
    let target = Target { kind: "version".to_owned(), id: version.id.to_string(), name: version.name.clone() };
    let event = NewEvent {
        actor: actor.to_owned(),
        labels: version.labels.clone(),
        data: json!({ "image": version.image, "number": version.number, "size_bytes": version.size_bytes }),
        ..NewEvent::new("version.published", version.project.clone(), target)
    };
    events::append(tx, event).await?;
    Ok(())
}
