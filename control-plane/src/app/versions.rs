//! Versions: every state of every disk, readable and deletable on its own (I5).

use muster_api::{
    Page, VersionId,
    operation::Target,
    version::{Freed, Version, VersionState},
};

use super::{Answer, App, AppError, Caller, Once, check_if_match, images::is_live};
use crate::{
    export::{
        ReadError,
        extents::{Extents, extents},
    },
    http::ListQuery,
    store::{
        Position, Tx,
        events::{self, NewEvent},
        images,
        versions::{self, VersionFilter, VersionRow},
    },
};

impl App {
    /// One version.
    pub async fn version(&self, caller: &Caller, id: VersionId) -> Result<VersionRow, AppError> {
        self.store.read("versions.show", async |tx| find_version(tx, caller, id).await).await
    }

    /// A page of versions: of images and of disks.
    pub async fn versions(
        &self,
        caller: &Caller,
        mut filter: VersionFilter,
        list: &ListQuery,
    ) -> Result<Page<Version>, AppError> {
        filter.project = caller.list_project().map(str::to_owned);
        filter.deleted = list.deleted;
        self.store.read("versions.list", async |tx| page(tx, &filter, list).await).await
    }

    /// Unlinks a version. Its number is not used again; disks that began with it go on reading it.
    pub async fn delete_version(
        &self,
        caller: &Caller,
        once: &Once,
        id: VersionId,
        if_match: Option<&str>,
    ) -> Result<Answer, AppError> {
        self.once(once, "versions.delete", async |tx| {
            let row = find_version(tx, caller, id).await?;
            check_if_match(if_match, row.revision)?;
            versions::unlink(tx, &row).await?;
            if let Some(image) = row.version.image {
                images::settle(tx, image).await?;
            }
            let version = &row.version;
            let target = Target { kind: "version".to_owned(), id: id.to_string(), name: version.name.clone() };
            let event = NewEvent {
                actor: caller.name.clone(),
                labels: version.labels.clone(),
                data: serde_json::json!({ "state": VersionState::Deleted }),
                ..NewEvent::new("version.deleted", version.project.clone(), target)
            };
            events::append(tx, event).await?;
            Ok(Answer::no_content())
        })
        .await
    }

    /// What deleting the version would give back.
    pub async fn version_freed(&self, caller: &Caller, id: VersionId) -> Result<Freed, AppError> {
        let row = self.version(caller, id).await?;
        let project = row.version.project.clone();
        self.freed(&project, vec![row]).await
    }

    /// Where the version has data, from a place on, and the position the answer is true at.
    pub async fn version_extents(
        &self,
        row: &VersionRow,
        from: u64,
        limit: usize,
    ) -> Result<(Extents, Position), AppError> {
        let as_of = self.store.read("versions.position", async |tx| tx.as_of().await).await?;
        let found = extents(self.pool.clone(), &row.content, from, limit).await.map_err(unreadable)?;
        Ok((found, as_of))
    }
}

/// What a reader is told when objects cannot be had.
pub fn unreadable(error: ReadError) -> AppError {
    match error {
        ReadError::Pool(e) => {
            tracing::warn!(error = &e as &dyn std::error::Error, "objects of a version cannot be had now");
            AppError::Unavailable(
                "objects of this version cannot be had now: the nodes that have them are away".to_owned(),
            )
        }
        error => AppError::Internal(anyhow::Error::new(error).context("a version cannot be read")),
    }
}

/// The version a caller names, if they may know of it.
pub async fn find_version(tx: &mut Tx, caller: &Caller, id: VersionId) -> Result<VersionRow, AppError> {
    let row = versions::load(tx, id).await?.filter(|row| is_live(row) && caller.can_see(&row.version.project));
    row.ok_or_else(|| AppError::not_found("version", id))
}

/// A page of what a filter lets through.
pub(super) async fn page(tx: &mut Tx, filter: &VersionFilter, list: &ListQuery) -> Result<Page<Version>, AppError> {
    list.filter.only(&["state", "label"])?;
    let mut pager = list.pager(tx).await?;
    while let Some((after, limit)) = pager.wants() {
        let rows = versions::list(tx, filter, after, limit).await?;
        pager.take(
            rows,
            |row| row.seq,
            |row| {
                let state = crate::store::column::word_text(row.version.state).unwrap_or_default();
                list.filter.keeps(&state, &row.version.labels).then_some(row.version)
            },
        );
    }
    Ok(pager.page())
}
