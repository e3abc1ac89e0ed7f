//! Snapshots are shown, renamed, labelled and unlinked.

use muster_api::{
    OperationId, Page, Reason, Ref, SnapshotId,
    snapshot::{PatchSnapshot, Snapshot, SnapshotMember, SnapshotState},
    version::Freed,
};

use super::{
    super::{
        Answer, App, AppError, Asked, Caller, begin_operation, find, freed::Going, labels::patched, list::ListQuery,
        operations::existing,
    },
    attempt::give_up,
    event,
    restoring::end_of,
    view,
};
use crate::{
    domain::snapshot::SAVE_MS,
    store::{
        Tx, events,
        operations::{self, NewOperation, Origin, Outcome},
        snapshots::{self, SnapshotRow},
        versions,
    },
};

/// Unlinks a snapshot that is not under way. Returns the operation that did it.
pub(crate) async fn unlink(tx: &mut Tx, mut row: SnapshotRow, origin: &Origin) -> Result<OperationId, AppError> {
    let new = NewOperation {
        project: row.project.clone(),
        kind: "snapshot.delete",
        target: row.target(),
        phase: "unlinking",
        progress: operations::to_do(row.members, "disks"),
        deadline: tx.now().plus_ms(SAVE_MS),
    };
    let operation = begin_operation(tx, origin, new).await?;
    // I5: unlinking is one step whatever the size. The bytes stay until nothing uses them.
    versions::unlink_snapshot(tx, row.id).await?;
    row.state = SnapshotState::Deleted;
    snapshots::save(tx, &row).await?;
    events::append(tx, event(&row, &origin.actor)).await?;
    operations::finish(tx, operation.id, Outcome::Succeeded(None)).await?;
    Ok(operation.id)
}

impl App {
    /// One snapshot, by id or name, unless it is deleted.
    pub async fn snapshot(&self, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<Snapshot, AppError> {
        self.store.read("snapshots.show", async |tx| Ok(view::view(find::snapshot(tx, caller, wanted).await?))).await
    }

    /// A page of snapshots. The filters `state`, `label` and `deployment` are known.
    pub async fn snapshots(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Snapshot>, AppError> {
        list.filter.states_of::<SnapshotState>()?;
        self.store
            .read("snapshots.list", async |tx| {
                let filter = list.row_filter(tx, caller).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = snapshots::list(tx, &filter, after, n).await?;
                    pager.take(rows, |row| row.seq, |row| Some(view::view(row)));
                }
                Ok(pager.page())
            })
            .await
    }

    /// A page of a snapshot's members.
    pub async fn snapshot_members(
        &self,
        caller: &Caller,
        wanted: &Ref<SnapshotId>,
        list: &ListQuery,
    ) -> Result<Page<SnapshotMember>, AppError> {
        self.store
            .read("snapshots.members", async |tx| {
                let row = find::snapshot(tx, caller, wanted).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = snapshots::members_after(tx, row.id, after, n).await?;
                    pager.take(rows, |member| member.seq, |member| Some(view::member_view(member)));
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name and labels, and keeps a scheduled one for good; what the patch leaves out stays. The versions get the new
    /// name as well.
    pub async fn patch_snapshot(
        &self,
        asked: &Asked<Ref<SnapshotId>>,
        patch: &PatchSnapshot,
    ) -> Result<Answer, AppError> {
        self.once(&asked.once, "snapshots.patch", async |tx| {
            let mut row = find::snapshot(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let name = patch.name.as_ref().map(ToString::to_string).filter(|name| *name != row.name);
            let labels = patched(&row.labels, &patch.labels)?;
            if patch.scheduled == Some(true) && !row.scheduled {
                let detail = "only the controller takes scheduled snapshots: set `protect` of a deployment";
                return Err(AppError::invalid("/scheduled", "invalid", detail));
            }
            let scheduled = row.scheduled && patch.scheduled != Some(false);
            if name.is_none() && labels == row.labels && scheduled == row.scheduled {
                return Answer::ok(&view::view(row));
            }
            if let Some(name) = name {
                if let Some(existing) = snapshots::by_name(tx, &row.project, &name).await? {
                    return Err(AppError::NameTaken { kind: "snapshot", name, existing: existing.id.to_string() });
                }
                versions::rename_snapshot(tx, row.id, &name).await?;
                row.name = name;
            }
            row.labels = labels;
            row.scheduled = scheduled;
            snapshots::save(tx, &row).await?;
            events::append(tx, event(&row, &asked.caller.name)).await?;
            Answer::ok(&view::view(find::snapshot(tx, &asked.caller, &Ref::Id(row.id)).await?))
        })
        .await
    }

    /// Unlinks a snapshot in any state. One under way is given up first.
    pub async fn delete_snapshot(&self, asked: &Asked<Ref<SnapshotId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "snapshots.delete", async |tx| {
            let mut row = find::snapshot(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            end_of(tx, row.id).await?;
            if row.is_under_way() {
                give_up(tx, &mut row, Reason::Deleted, "the snapshot was deleted", Outcome::Cancelled(None)).await?;
                row = find::snapshot(tx, &asked.caller, &Ref::Id(row.id)).await?;
            }
            let operation = unlink(tx, row, &asked.caller.origin()).await?;
            Answer::accepted(&existing(tx, operation).await?)
        })
        .await
    }

    /// The bytes that deleting the snapshot would give back. Disks that build on its versions keep these.
    pub async fn snapshot_freed(&self, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<Freed, AppError> {
        let row = self.store.read("snapshots.freed", async |tx| find::snapshot(tx, caller, wanted).await).await?;
        self.freed(caller, &row.project, Going::Snapshot(row.id)).await
    }
}
