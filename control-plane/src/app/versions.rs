//! Versions: every state of every disk, readable and deletable on its own (I5).

use std::time::Duration;

use muster_api::{
    Page, VersionId,
    operation::Target,
    version::{Freed, Version, VersionState},
};
use muster_pool::PoolError;
use storage_core::cause::explain;
use tokio::time::Instant;

use super::{
    Answer, App, AppError, Asked, Caller, find,
    list::{ListQuery, Position},
};
use crate::{
    domain::versions::Content,
    export::{
        ReadError,
        extents::{Extents, extents},
        reach,
    },
    store::{
        Tx,
        events::{self, NewEvent},
        images, snapshots,
        versions::{self, VersionFilter},
    },
};

pub use crate::store::versions::VersionRow;

/// How long a dry run may count.
const FREED_WITHIN: Duration = Duration::from_secs(2);
/// Most versions that a dry run looks at. With more the answer is that it is not known.
pub(super) const FREED_ROOTS_MAX: i64 = 10_000;

impl App {
    /// One version, of an image or of a disk, unless it is deleted.
    pub async fn version(&self, caller: &Caller, id: VersionId) -> Result<VersionRow, AppError> {
        self.store.read("versions.show", async |tx| find::version(tx, caller, id).await).await
    }

    /// A page of versions: of images and of disks.
    pub async fn versions(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Version>, AppError> {
        let project = caller.list_project().map(str::to_owned);
        let filter = VersionFilter { project, deleted: list.deleted, ..VersionFilter::default() };
        self.store.read("versions.list", async |tx| page(tx, &filter, list).await).await
    }

    /// Unlinks a version. Its number is not used again. Disks that began with the version can still read it.
    pub async fn delete_version(&self, asked: &Asked<VersionId>) -> Result<Answer, AppError> {
        self.once(&asked.once, "versions.delete", async |tx| {
            let row = find::version(tx, &asked.caller, asked.thing).await?;
            asked.check_if_match(row.revision)?;
            versions::unlink(tx, &row).await?;
            if let Some(image) = row.version.image {
                images::settle(tx, image).await?;
            }
            if let Some(snapshot) = row.version.snapshot {
                snapshots::note_missing(tx, snapshot).await?;
            }
            let version = &row.version;
            let target = Target { kind: "version".to_owned(), id: version.id.to_string(), name: version.name.clone() };
            let event = NewEvent {
                actor: asked.caller.name.clone(),
                labels: version.labels.clone(),
                data: serde_json::json!({ "state": VersionState::Deleted }),
                ..NewEvent::new("version.deleted", version.project.clone(), target)
            };
            events::append(tx, event).await?;
            Ok(Answer::no_content())
        })
        .await
    }

    /// The bytes that deleting the version would give back.
    pub async fn version_freed(&self, caller: &Caller, id: VersionId) -> Result<Freed, AppError> {
        let row = self.version(caller, id).await?;
        let project = row.version.project.clone();
        self.freed(&project, vec![row]).await
    }

    /// The bytes that unlinking these versions would give back. What other projects have stored does not change the
    /// number, because it would tell something about them (I12). Disks keep the versions they began with.
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

    /// Where the version has data, from the byte `from` on, and the position of the database at which that is true.
    pub async fn version_extents(
        &self,
        row: &VersionRow,
        from: u64,
        limit: usize,
    ) -> Result<(Extents, Position), AppError> {
        let as_of = self.store.read("versions.position", async |tx| tx.as_of().await).await?;
        let found =
            extents(self.pool.clone(), &row.content, from, limit).await.map_err(|error| unreadable(row, error))?;
        Ok((found, as_of))
    }
}

/// The refusal for a version whose objects cannot be read. It names objects, and no node: it goes to tenants as well (I12).
pub(crate) fn unreadable(row: &VersionRow, error: ReadError) -> AppError {
    let version = row.version.id;
    match error {
        ReadError::Pool(error) => {
            tracing::warn!(version.id = %version, error = explain(&error), "objects of a version cannot be had now");
            let what = match &error {
                PoolError::Unavailable { names, .. } => match names.as_slice() {
                    [] => "objects".to_owned(),
                    [one] => format!("object {one}"),
                    [first, others @ ..] => format!("object {first} and {} others", others.len()),
                },
                _ => "objects".to_owned(),
            };
            AppError::Unavailable(format!(
                "{what} of version {version} cannot be had now: no node has a good copy, or those that have one are away"
            ))
        }
        error => AppError::Internal(anyhow::Error::new(error).context("a version cannot be read")),
    }
}

/// A page of the versions that both filters want.
pub(super) async fn page(tx: &mut Tx, filter: &VersionFilter, list: &ListQuery) -> Result<Page<Version>, AppError> {
    list.filter.only(&["state", "label"])?;
    let mut pager = list.pager(tx).await?;
    while let Some((after, limit)) = pager.wants() {
        let rows = versions::list(tx, filter, after, limit).await?;
        let keep = |row: VersionRow| list.filter.keeps(row.version.state, &row.version.labels).then_some(row.version);
        pager.take(rows, |row| row.seq, keep);
    }
    Ok(pager.page())
}
