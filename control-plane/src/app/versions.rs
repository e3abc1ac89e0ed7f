//! Versions: every state of every disk, readable and deletable on its own (I5).

use muster_api::{
    ErrorCode, Page, VersionId,
    operation::Target,
    version::{Chunks, Freed, Version, VersionState},
};
use muster_pool::PoolError;
use serde_json::json;
use storage_core::ObjectName;

use super::{
    Answer, App, AppError, Asked, Caller, boots, find,
    freed::Going,
    list::ListQuery,
    slots::{Full, Slot},
};
use crate::{
    export::{
        ReadError,
        chunks::chunks,
        extents::{Extents, extents},
    },
    store::{
        Tx,
        events::{self, NewEvent},
        images, snapshots,
        versions::{self, VersionFilter},
    },
};

pub use crate::store::versions::VersionRow;

/// Most walks through the trees of versions at a time.
pub(crate) const WALKS_MAX: usize = 32;
/// Most walks through versions of one project at a time.
pub(crate) const WALKS_PER_PROJECT_MAX: usize = 8;

impl App {
    /// One version, of an image or of a disk, unless it is deleted.
    pub async fn version(&self, caller: &Caller, id: VersionId) -> Result<VersionRow, AppError> {
        let mut row = self.store.read("versions.show", async |tx| find::version(tx, caller, id).await).await?;
        row.version.objects_lost = self.lost.of(id);
        Ok(row)
    }

    /// A page of versions: of images and of disks.
    pub async fn versions(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Version>, AppError> {
        let project = caller.list_project().map(str::to_owned);
        let filter = VersionFilter { project, deleted: list.deleted, ..VersionFilter::default() };
        let mut page = self.store.read("versions.list", async |tx| page(tx, &filter, list).await).await?;
        page.items.iter_mut().for_each(|version| version.objects_lost = self.lost.of(version.id));
        Ok(page)
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
            let event = NewEvent {
                actor: asked.caller.name.clone(),
                labels: version.labels.clone(),
                data: json!({ "state": VersionState::Deleted }),
                ..NewEvent::new("version.deleted", version.project.clone(), target(version))
            };
            events::append(tx, event).await?;
            Ok(Answer::no_content())
        })
        .await
    }

    /// The bytes that deleting the version would give back.
    pub async fn version_freed(&self, caller: &Caller, id: VersionId) -> Result<Freed, AppError> {
        let row = self.version(caller, id).await?;
        self.freed(caller, &row.version.project, Going::Version(id)).await
    }

    /// Where the version has data, from the byte `from` on, and the position of the database at which that is true.
    pub async fn version_extents(
        &self,
        row: &VersionRow,
        from: u64,
        limit: usize,
    ) -> Result<(Extents, String), AppError> {
        let _slot = self.walk(&row.version.project)?;
        let as_of = self.store.read("versions.position", async |tx| tx.as_of().await.map(|now| tx.token(now))).await?;
        match extents(self.pool.clone(), &row.content, from, limit).await {
            Ok(found) => Ok((found, as_of)),
            Err(error) => {
                self.tell_unreadable(&row.version, &error).await;
                Err(unreadable(row, error))
            }
        }
    }

    /// A map of the version's chunks. They are compared with the version that it was made from if the caller may see that one,
    /// also if it was deleted since. So is the version whose boot order is shown.
    pub async fn version_chunks(&self, caller: &Caller, id: VersionId) -> Result<Chunks, AppError> {
        let read = self.store.read("versions.chunks", async |tx| {
            let row = find::version(tx, caller, id).await?;
            let parent = match row.version.parent {
                Some(parent) => versions::load(tx, parent).await?,
                None => None,
            };
            let boots = boots::nearest(tx, |project| caller.can_see(project), &row).await?;
            Ok::<_, AppError>((row, parent.filter(|parent| caller.can_see(&parent.version.project)), boots))
        });
        let (row, parent, boots) = read.await?;
        let _slot = self.walk(&row.version.project)?;
        let parent = parent.as_ref().map(|parent| &parent.content);
        match chunks(self.pool.clone(), &row.content, parent, boots).await {
            Ok(map) => Ok(map),
            Err(error) => {
                self.tell_unreadable(&row.version, &error).await;
                Err(unreadable(&row, error))
            }
        }
    }

    /// Takes a slot for a walk through the tree of a version of this project.
    fn walk(&self, project: &str) -> Result<Slot, AppError> {
        self.walks.take(project).map_err(|full| match full {
            Full::All => AppError::Unavailable("too many versions are looked through: try again".to_owned()),
            Full::Own(count) => {
                let said = format!("{count} versions of this project are looked through, which is the most: try again");
                AppError::code(ErrorCode::TooManyRequests, said)
            }
        })
    }

    /// Tells which version could not be read: in the log, and by an event when no node has a good copy of its objects.
    pub async fn tell_unreadable(&self, version: &Version, error: &ReadError) {
        let ReadError::Pool(PoolError::Lost { names }) = error else {
            let error = error as &dyn std::error::Error;
            tracing::warn!(version.id = %version.id, version.name, error, "a version cannot be read now");
            return;
        };
        self.lost.note_read(names);
        let (objects, object) = (names.len(), names.first());
        tracing::error!(version.id = %version.id, version.name, objects, ?object, "no node has a good copy of objects");
        let event = NewEvent {
            labels: version.labels.clone(),
            data: json!({ "objects": objects, "object": object }),
            ..NewEvent::new("version.objects_lost", version.project.clone(), target(version))
        };
        if let Err(error) =
            self.store.run_tx("versions.objects_lost", async |tx| events::append(tx, event.clone()).await).await
        {
            tracing::warn!(%error, "the event of lost objects is not stored");
        }
    }
}

fn target(version: &Version) -> Target {
    target_of(version.id, &version.name)
}

/// How events name a version.
pub(super) fn target_of(id: VersionId, name: &str) -> Target {
    Target { kind: "version".to_owned(), id: id.to_string(), name: name.to_owned() }
}

/// Objects in a sentence, by name.
fn objects(names: &[ObjectName]) -> String {
    match names {
        [] => "objects".to_owned(),
        [one] => format!("object {one}"),
        [first, others @ ..] => format!("object {first} and {} others", others.len()),
    }
}

/// The refusal for a version whose objects cannot be read. It names objects, and no node: it goes to tenants as well (I12).
pub(crate) fn unreadable(row: &VersionRow, error: ReadError) -> AppError {
    let version = row.version.id;
    match error {
        ReadError::Pool(PoolError::Lost { names }) => {
            AppError::Unavailable(format!("no node has a good copy of {} of version {version}", objects(&names)))
        }
        ReadError::Pool(PoolError::Unavailable { names, .. }) => AppError::Unavailable(format!(
            "{} of version {version} cannot be had now: the nodes that have it are away",
            objects(&names)
        )),
        ReadError::Pool(_) => AppError::Unavailable(
            "objects of this version cannot be had now: the nodes that have them are away".to_owned(),
        ),
        error => AppError::Internal(anyhow::Error::new(error).context("a version cannot be read")),
    }
}

/// A page of the versions that both filters want.
pub(super) async fn page(tx: &mut Tx, filter: &VersionFilter, list: &ListQuery) -> Result<Page<Version>, AppError> {
    list.filter.states_of::<VersionState>()?;
    let mut pager = list.pager(tx).await?;
    while let Some((after, limit)) = pager.wants() {
        let rows = versions::list(tx, filter, after, limit).await?;
        let keep = |row: VersionRow| list.filter.keeps(row.version.state, &row.version.labels).then_some(row.version);
        pager.take(rows, |row| row.seq, keep);
    }
    Ok(pager.page())
}
