//! Images: make, clone, look, rename, delete.

use std::time::Duration;

use muster_api::{
    ErrorCode, ImageId, Page, Problem, Ref,
    image::{CreateImage, Image, PatchImage},
    operation::Target,
    version::{Freed, Version},
};
use tokio::time::Instant;

use super::{Answer, App, AppError, Caller, Once, at, check_if_match, deployments::made_up, versions::find_version};
use crate::{
    domain::{images::Source, versions::Content},
    export::reach,
    http::ListQuery,
    store::{
        Tx,
        events::{self, NewEvent},
        images::{self, ImageFilter, ImageRow, NewImage},
        uploads::{self, UploadTarget},
        versions::{self, NewVersion, Of, VersionFilter, VersionRow},
    },
};

/// How long a dry run may look for what would come back.
const FREED_WITHIN: Duration = Duration::from_secs(2);
/// Most roots a dry run looks at; with more the answer is "not known".
const FREED_ROOTS_MAX: i64 = 10_000;

impl App {
    /// Makes an image: empty, or as a clone that copies nothing.
    pub async fn create_image(&self, caller: &Caller, once: &Once, wanted: CreateImage) -> Result<Answer, AppError> {
        let project = caller.one_project()?;
        let source = Source::of(&wanted).map_err(|e| AppError::Invalid(vec![e]))?;
        let id = ImageId::generate();
        let name = wanted.name.as_ref().map_or_else(|| made_up("image", id.uuid()), ToString::to_string);
        self.once(once, "images.create", async |tx| {
            if let Some(existing) = images::by_name(tx, project, &name).await? {
                let existing = existing.image.id.to_string();
                return Err(AppError::NameTaken { kind: "image", name, existing });
            }
            let (chunk_bytes, origin) = match source {
                Source::Upload(chunk) => (chunk.bytes(), None),
                Source::Version(id) => {
                    let row = find_version(tx, caller, id).await.map_err(at("/source/version"))?;
                    (row.version.chunk_bytes, Some(row))
                }
                Source::Image(reference, number) => {
                    let (_, row) = numbered(tx, caller, &reference, number).await?;
                    (row.version.chunk_bytes, Some(row))
                }
                Source::Url => return Err(AppError::NotBuiltYet("fetching an image by its URL".to_owned())),
            };
            let labels = wanted.labels.clone();
            images::insert(tx, &NewImage { id, name, project: project.to_owned(), labels, chunk_bytes }).await?;
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

    /// One image.
    pub async fn image(&self, caller: &Caller, image: &Ref<ImageId>) -> Result<Image, AppError> {
        self.store.read("images.show", async |tx| Ok(find_image(tx, caller, image).await?.image)).await
    }

    /// A page of images.
    pub async fn images(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Image>, AppError> {
        list.filter.only(&["state", "label"])?;
        let filter = ImageFilter { project: caller.list_project().map(str::to_owned), deleted: list.deleted };
        self.store
            .read("images.list", async |tx| {
                let mut pager = list.pager(tx).await?;
                while let Some((after, limit)) = pager.wants() {
                    let rows = images::list(tx, &filter, after, limit).await?;
                    pager.take(rows, |row| row.seq, |row| keep(list, &row).then_some(row.image));
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name or labels.
    pub async fn patch_image(
        &self,
        caller: &Caller,
        once: &Once,
        image: &Ref<ImageId>,
        if_match: Option<&str>,
        patch: PatchImage,
    ) -> Result<Answer, AppError> {
        self.once(once, "images.patch", async |tx| {
            let mut row = find_image(tx, caller, image).await?;
            check_if_match(if_match, row.revision)?;
            let name = patch.name.map_or_else(|| row.image.name.clone(), |name| name.to_string());
            let labels = patch.labels.unwrap_or_else(|| row.image.labels.clone());
            if name == row.image.name && labels == row.image.labels {
                return Answer::ok(&row.image);
            }
            if let Some(other) = images::by_name(tx, &row.image.project, &name).await?
                && other.image.id != row.image.id
            {
                return Err(AppError::NameTaken { kind: "image", name, existing: other.image.id.to_string() });
            }
            (row.image.name, row.image.labels) = (name, labels);
            images::save(tx, &row).await?;
            let row = existing(tx, row.image.id).await?;
            tell(tx, caller, "image.changed", &row).await?;
            Answer::ok(&row.image)
        })
        .await
    }

    /// Unlinks an image and its versions; an upload under way ends without a version. Disks that began with one of
    /// them go on reading it.
    pub async fn delete_image(
        &self,
        caller: &Caller,
        once: &Once,
        image: &Ref<ImageId>,
        if_match: Option<&str>,
    ) -> Result<Answer, AppError> {
        self.once(once, "images.delete", async |tx| {
            let row = find_image(tx, caller, image).await?;
            check_if_match(if_match, row.revision)?;
            let id = row.image.id;
            if let Some(upload) = uploads::live_of(tx, UploadTarget::Image, &id.to_string()).await? {
                uploads::end(tx, upload.id).await?;
            }
            versions::unlink_image(tx, id).await?;
            images::unlink(tx, &row).await?;
            tell(tx, caller, "image.deleted", &row).await?;
            Ok(Answer::no_content())
        })
        .await
    }

    /// What deleting the image would give back.
    pub async fn image_freed(&self, caller: &Caller, image: &Ref<ImageId>) -> Result<Freed, AppError> {
        let (project, gone) = self
            .store
            .read("images.freed", async |tx| {
                let row = find_image(tx, caller, image).await?;
                let filter = VersionFilter { image: Some(row.image.id), ..VersionFilter::default() };
                let gone = versions::list(tx, &filter, 0, FREED_ROOTS_MAX).await?;
                Ok::<_, AppError>((row.image.project, gone))
            })
            .await?;
        self.freed(&project, gone).await
    }

    /// What unlinking these versions would give back, counted within their project: what other projects have stored
    /// is nobody's business (I12). Disks keep what they began with.
    pub(super) async fn freed(&self, project: &str, gone: Vec<VersionRow>) -> Result<Freed, AppError> {
        let deadline = Instant::now() + FREED_WITHIN;
        let ids: Vec<_> = gone.iter().map(|row| row.version.id).collect();
        let held = self
            .store
            .read("versions.held", async |tx| versions::held_roots(tx, project, &ids, FREED_ROOTS_MAX).await)
            .await?;
        let Some(kept) = held else { return Ok(Freed { freed_bytes: None }) };
        let reached_bytes = match gone.as_slice() {
            [one] => one.reached_bytes,
            _ => None,
        };
        let gone: Vec<Content> = gone.into_iter().map(|row| row.content).collect();
        let counted = reach::exclusive_bytes(&self.pool, &gone, reached_bytes, &kept, deadline);
        let freed_bytes = match tokio::time::timeout_at(deadline, counted).await {
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(Freed { freed_bytes })
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
                let image = Some(find_image(tx, caller, image).await?.image.id);
                let filter = VersionFilter { image, deleted: list.deleted, ..VersionFilter::default() };
                super::versions::page(tx, &filter, list).await
            })
            .await
    }

    /// One number of an image, or its newest.
    pub async fn image_version(
        &self,
        caller: &Caller,
        image: &Ref<ImageId>,
        number: Option<u64>,
    ) -> Result<VersionRow, AppError> {
        self.store
            .read("images.version", async |tx| {
                let row = find_image(tx, caller, image).await?;
                version_of(tx, &row, number).await
            })
            .await
    }
}

fn keep(list: &ListQuery, row: &ImageRow) -> bool {
    let state = crate::store::column::word_text(row.image.state).unwrap_or_default();
    list.filter.keeps(&state, &row.image.labels)
}

/// Whether a version can be named by anybody.
pub(super) fn is_live(row: &VersionRow) -> bool {
    row.version.state == muster_api::version::VersionState::Ready
}

/// The image a caller names in a path, if they may know of it.
pub async fn find_image(tx: &mut Tx, caller: &Caller, reference: &Ref<ImageId>) -> Result<ImageRow, AppError> {
    let row = match reference {
        Ref::Id(id) => images::load(tx, *id).await?.filter(|row| caller.can_see(&row.image.project)),
        Ref::Name(name) => images::by_name(tx, caller.one_project()?, name).await?,
    };
    row.filter(|row| row.image.state != muster_api::image::ImageState::Deleted)
        .ok_or_else(|| AppError::not_found("image", reference))
}

/// The image and version that `{image, version?}` in a body's `/source` means.
pub async fn numbered(
    tx: &mut Tx,
    caller: &Caller,
    reference: &Ref<ImageId>,
    number: Option<u64>,
) -> Result<(ImageRow, VersionRow), AppError> {
    let image = find_image(tx, caller, reference).await.map_err(at("/source/image"))?;
    let version = version_of(tx, &image, number).await.map_err(at("/source/version"))?;
    Ok((image, version))
}

/// One number of an image, or its newest.
async fn version_of(tx: &mut Tx, row: &ImageRow, number: Option<u64>) -> Result<VersionRow, AppError> {
    let Some(number) = number else {
        return versions::newest(tx, row.image.id).await?.ok_or_else(|| empty(row));
    };
    let found = versions::by_number(tx, row.image.id, number).await?.filter(is_live);
    found.ok_or_else(|| AppError::not_found("version", format!("{}@{number}", row.image.name)))
}

fn empty(row: &ImageRow) -> AppError {
    let name = &row.image.name;
    let said = format!("image {name} has no version yet: send its content (PUT /v1/images/{name}/content)");
    Problem::new(ErrorCode::WrongState, said).with("state", "empty").with("allowed", vec!["ready"]).into()
}

/// A version of `image` with the content of `origin`. Copies nothing: the same root, under another row.
fn clone_of(origin: &VersionRow, image: &ImageRow) -> NewVersion {
    NewVersion {
        id: muster_api::VersionId::generate(),
        project: image.image.project.clone(),
        labels: muster_api::Labels::default(),
        of: Of::Image { image: image.image.id, number: 1 },
        content: origin.content.clone(),
        digest: origin.version.digest.clone(),
        stored_bytes: 0,
        reached_bytes: origin.reached_bytes,
        upload: None,
    }
}

/// The image as it is after a change in this transaction.
pub(super) async fn existing(tx: &mut Tx, id: ImageId) -> Result<ImageRow, AppError> {
    images::load(tx, id).await?.ok_or_else(|| AppError::not_found("image", id))
}

async fn tell(tx: &mut Tx, caller: &Caller, kind: &'static str, row: &ImageRow) -> Result<(), AppError> {
    let image = &row.image;
    let target = Target { kind: "image".to_owned(), id: image.id.to_string(), name: image.name.clone() };
    let event = NewEvent {
        actor: caller.name.clone(),
        labels: image.labels.clone(),
        data: serde_json::json!({ "state": if kind == "image.deleted" { "deleted".into() } else { serde_json::to_value(image.state).unwrap_or_default() } }),
        ..NewEvent::new(kind, image.project.clone(), target)
    };
    events::append(tx, event).await?;
    Ok(())
}

/// Tells that a version was published.
pub(super) async fn tell_published(tx: &mut Tx, actor: &str, row: Option<&VersionRow>) -> Result<(), AppError> {
    let Some(VersionRow { version, .. }) = row else { return Ok(()) };
    let target = Target { kind: "version".to_owned(), id: version.id.to_string(), name: version.name.clone() };
    let event = NewEvent {
        actor: actor.to_owned(),
        labels: version.labels.clone(),
        data: serde_json::json!({ "image": version.image, "number": version.number, "size_bytes": version.size_bytes }),
        ..NewEvent::new("version.published", version.project.clone(), target)
    };
    events::append(tx, event).await?;
    Ok(())
}
