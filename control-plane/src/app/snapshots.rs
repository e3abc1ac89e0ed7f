//! Snapshots: asked for, published as a whole, renamed, unlinked. The cut itself is between the nodes.

use std::collections::BTreeSet;

use muster_api::{
    CommitId, ErrorCode, NodeId, Page, Problem, Ref, SnapshotId, VersionId,
    instance::InstanceState,
    node_protocol::VersionRoot,
    operation::{Progress, Target},
    snapshot::{Consistency, CreateSnapshot, PatchSnapshot, Snapshot, SnapshotMember, SnapshotState},
    version::Freed,
};
use serde_json::json;

use super::{
    Answer, App, AppError, Caller, Once, begin_operation, check_if_match, deployments as app_deployments, etag,
    instances as app_instances,
};
use crate::{
    domain::{
        snapshot::{CUT_MS, SAVE_MS, coordinator},
        versions::Content,
    },
    http::ListQuery,
    reconcile::Loop,
    store::{
        StoreError, Tx, column,
        events::{self, NewEvent},
        instances::{self, InstanceRow, NewHead},
        nodes, operations,
        operations::{NewOperation, Outcome},
        snapshots::{self, MemberRow, SnapshotRow},
        uploads::{self, NewUpload, UploadTarget},
        versions::{self, NewVersion, Of},
    },
};

/// Longest a guest's write may be held when nobody says.
const PAUSE_MS: u64 = 500;
/// Longest anybody may say.
const PAUSE_MAX_MS: u64 = 10_000;
/// The upload's lease outlives the snapshot's deadline: its reconciler ends it.
const LEASE_MS: i64 = 120_000;

/// The snapshot a path names, if the caller may know of it and it is not deleted.
pub(super) async fn find(tx: &mut Tx, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<SnapshotRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => snapshots::load(tx, *id).await?,
        Ref::Name(name) => snapshots::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != SnapshotState::Deleted)
        .ok_or_else(|| AppError::not_found("snapshot", wanted))
}

/// The snapshot as an operation's or event's target.
fn target(row: &SnapshotRow) -> Target {
    Target { kind: "snapshot".to_owned(), id: row.id.to_string(), name: row.name.clone() }
}

fn event(row: &SnapshotRow, actor: &str) -> Result<NewEvent, StoreError> {
    let mut data = json!({ "state": column::word_text(row.state)? });
    if let (Some(reason), Some(data)) = (&row.reason, data.as_object_mut()) {
        data.insert("reason".to_owned(), reason.as_str().into());
    }
    Ok(NewEvent {
        operation: Some(row.operation),
        actor: actor.to_owned(),
        data,
        labels: row.labels.clone(),
        deployment: row.deployment,
        ..NewEvent::new("snapshot.state", row.project.clone(), target(row))
    })
}

/// Whether an instance has a disk that can be cut, is left out, or is in the way.
fn takes_part(row: &InstanceRow) -> Result<bool, AppError> {
    match row.life.state {
        InstanceState::Unknown => Err(Problem::new(
            ErrorCode::MemberUnknown,
            format!("{} is unknown: its node is silent, so its disk cannot be cut", row.name),
        )
        .with("instance", row.id.to_string())
        .into()),
        InstanceState::Pending | InstanceState::Failed | InstanceState::Deleting | InstanceState::Deleted => Ok(false),
        // Before its disk is there it is as good as pending.
        InstanceState::Starting => {
            Ok(row.life.node.is_some() && (row.life.steps.disk_at.is_some() || row.life.was_ready))
        }
        _ => Ok(row.life.node.is_some()),
    }
}

impl App {
    /// Begins a snapshot of all selected instances that have a disk.
    pub async fn create_snapshot(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &CreateSnapshot,
    ) -> Result<Answer, AppError> {
        if wanted.consistency == Consistency::Filesystem {
            return Err(AppError::NotBuiltYet("consistency filesystem".to_owned()));
        }
        let max_pause_ms = wanted.max_pause_ms.unwrap_or(PAUSE_MS);
        if !(1..=PAUSE_MAX_MS).contains(&max_pause_ms) {
            let detail = format!("1 to {PAUSE_MAX_MS}, got {max_pause_ms}");
            return Err(AppError::invalid("/max_pause_ms", "out_of_range", detail));
        }
        self.once(once, "snapshots.create", async |tx| {
            let selected = app_instances::selected(tx, caller, &wanted.select, app_instances::Going::LeftOut).await?;
            let (mut taken, mut skipped) = (Vec::new(), 0);
            for row in selected.rows {
                if takes_part(&row)? {
                    taken.push(row);
                } else {
                    skipped += 1;
                }
            }
            let Some(project) = taken.first().map(|row| row.project.clone()) else {
                return Err(AppError::WrongState {
                    kind: "selection",
                    state: "empty".to_owned(),
                    allowed: vec!["running", "paused", "stopping", "stopped"],
                });
            };
            if let Some(other) = taken.iter().find(|row| row.project != project) {
                let detail = format!("{} belongs to another project than the others", other.name);
                return Err(AppError::invalid("/select", "invalid", detail));
            }
            let id = SnapshotId::generate();
            let name =
                wanted.name.as_ref().map_or_else(|| app_deployments::made_up("s", id.uuid()), ToString::to_string);
            if let Some(existing) = snapshots::by_name(tx, &project, &name).await? {
                return Err(AppError::NameTaken { kind: "snapshot", name, existing: existing.id.to_string() });
            }
            let members = members(tx, id, &taken).await?;
            let disks: Vec<_> = members.iter().map(|member| member.disk).collect();
            if let Some(operation) = snapshots::busy_with(tx, &disks).await? {
                return Err(AppError::Busy { operation });
            }
            let (now, count) = (tx.now(), u64::try_from(members.len()).unwrap_or(u64::MAX));
            let deadline = now.plus_ms(SAVE_MS);
            let upload = uploads::begin(
                tx,
                &NewUpload {
                    project: project.clone(),
                    target: UploadTarget::Snapshot,
                    target_id: id.to_string(),
                    until: deadline.plus_ms(LEASE_MS),
                },
            )
            .await?;
            let new = NewOperation {
                project: project.clone(),
                kind: "snapshot.create",
                target: Target { kind: "snapshot".to_owned(), id: id.to_string(), name: name.clone() },
                phase: "cutting",
                progress: Progress { total: count, unit: "disks".to_owned(), ..Progress::default() },
                deadline,
            };
            let operation = begin_operation(tx, &caller.origin(), new).await?;
            let mut row = SnapshotRow {
                id,
                project,
                name,
                labels: wanted.labels.clone(),
                state: SnapshotState::Cutting,
                reason: None,
                deployment: selected.deployment.as_ref().map(|deployment| deployment.id),
                deployment_name: selected.deployment.map(|deployment| deployment.name),
                consistency: wanted.consistency,
                max_pause_ms,
                cut_at: None,
                durable_at: None,
                members: count,
                skipped,
                dirty_bytes: 0,
                stored_bytes: 0,
                pause_max_us: None,
                attempt: 0,
                coordinator: None,
                attempt_until: None,
                refused: None,
                refused_detail: None,
                deadline,
                upload: Some(upload.id),
                round: Some(upload.round),
                operation: operation.id,
                created_at: now,
                updated_at: now,
                revision: 1,
                seq: tx.next_seq().await?,
            };
            next_attempt(tx, &mut row, &members).await?;
            snapshots::insert(tx, &row, &members).await?;
            events::append(tx, event(&row, &caller.name)?).await?;
            tell_nodes(tx, &members).await?;
            tx.wake(Loop::Snapshots);
            Answer::accepted(&operation)
        })
        .await
    }

    /// One snapshot.
    pub async fn snapshot(&self, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<Snapshot, AppError> {
        self.store.read("snapshots.show", async |tx| Ok(view(find(tx, caller, wanted).await?))).await
    }

    /// A page of snapshots.
    pub async fn snapshots(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Snapshot>, AppError> {
        list.filter.only(&["state", "label", "deployment"])?;
        self.store
            .read("snapshots.list", async |tx| {
                let filter = app_deployments::rows_wanted(tx, caller, list).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    pager.take(snapshots::list(tx, &filter, after, n).await?, |row| row.seq, |row| Some(view(row)));
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
        list.filter.only(&[])?;
        self.store
            .read("snapshots.members", async |tx| {
                let row = find(tx, caller, wanted).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = snapshots::members_after(tx, row.id, after, n).await?;
                    pager.take(rows, |member| member.seq, |member| Some(member_view(member)));
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name and labels.
    pub async fn patch_snapshot(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<SnapshotId>,
        if_match: Option<&str>,
        patch: &PatchSnapshot,
    ) -> Result<Answer, AppError> {
        self.once(once, "snapshots.patch", async |tx| {
            let mut row = find(tx, caller, wanted).await?;
            check_if_match(if_match, row.revision)?;
            let name = patch.name.as_ref().map(ToString::to_string).filter(|name| *name != row.name);
            let labels = patch.labels.clone().filter(|labels| *labels != row.labels);
            if name.is_none() && labels.is_none() {
                return Answer::ok(&view(row));
            }
            if let Some(name) = name {
                if let Some(existing) = snapshots::by_name(tx, &row.project, &name).await? {
                    return Err(AppError::NameTaken { kind: "snapshot", name, existing: existing.id.to_string() });
                }
                versions::rename_snapshot(tx, row.id, &name).await?;
                row.name = name;
            }
            row.labels = labels.unwrap_or(row.labels);
            snapshots::save(tx, &row).await?;
            events::append(tx, event(&row, &caller.name)?).await?;
            Answer::ok(&view(find(tx, caller, &Ref::Id(row.id)).await?))
        })
        .await
    }

    /// Unlinks a snapshot in any state; one under way is given up first.
    pub async fn delete_snapshot(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<SnapshotId>,
        if_match: Option<&str>,
    ) -> Result<Answer, AppError> {
        self.once(once, "snapshots.delete", async |tx| {
            let mut row = find(tx, caller, wanted).await?;
            check_if_match(if_match, row.revision)?;
            if matches!(row.state, SnapshotState::Cutting | SnapshotState::Saving) {
                give_up(tx, &mut row, "deleted", "the snapshot was deleted", Outcome::Cancelled(None)).await?;
                row = find(tx, caller, &Ref::Id(row.id)).await?;
            }
            let new = NewOperation {
                project: row.project.clone(),
                kind: "snapshot.delete",
                target: target(&row),
                phase: "unlinking",
                progress: Progress { total: row.members, unit: "disks".to_owned(), ..Progress::default() },
                deadline: tx.now().plus_ms(SAVE_MS),
            };
            let operation = begin_operation(tx, &caller.origin(), new).await?;
            // I5: unlinking is one step whatever the size; bytes stay until their last user goes.
            versions::unlink_snapshot(tx, row.id).await?;
            row.state = SnapshotState::Deleted;
            snapshots::save(tx, &row).await?;
            events::append(tx, event(&row, &caller.name)?).await?;
            operations::finish(tx, operation.id, Outcome::Succeeded(None)).await?;
            Answer::accepted(&operations::load(tx, operation.id).await?.unwrap_or(operation))
        })
        .await
    }

    /// What a DELETE would free: told only where it is known, which the sweep will.
    pub async fn snapshot_freed(&self, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<Freed, AppError> {
        self.store.read("snapshots.freed", async |tx| find(tx, caller, wanted).await).await?;
        Ok(Freed { freed_bytes: None })
    }
}

/// One member row per disk of the instances.
async fn members(tx: &mut Tx, id: SnapshotId, taken: &[InstanceRow]) -> Result<Vec<MemberRow>, AppError> {
    let ids: Vec<_> = taken.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let mut members = Vec::with_capacity(taken.len());
    for row in taken {
        let Some(node) = row.life.node else { continue };
        for disk in disks.remove(&row.id).unwrap_or_default() {
            members.push(MemberRow {
                snapshot: id,
                disk: disk.id,
                instance: row.id,
                instance_name: row.name.clone(),
                size_bytes: disk.size_bytes,
                node,
                generation: row.life.generation,
                commit: CommitId::generate(),
                version: None,
                pause_us: None,
                dirty_bytes: 0,
                stored_bytes: 0,
                staged: None,
                seq: tx.next_seq().await?,
            });
        }
    }
    Ok(members)
}

/// The next try: another coordinator, its time begins.
pub(crate) async fn next_attempt(tx: &mut Tx, row: &mut SnapshotRow, members: &[MemberRow]) -> Result<(), AppError> {
    row.attempt += 1;
    let mut heard = Vec::new();
    for node in members.iter().map(|member| member.node).collect::<BTreeSet<_>>() {
        let ready = nodes::load(tx, node).await?.is_some_and(|row| row.state == muster_api::node::NodeState::Ready);
        heard.push((node, ready));
    }
    row.state = SnapshotState::Cutting;
    row.coordinator = coordinator(&heard, row.attempt);
    let pause = i64::try_from(row.max_pause_ms).unwrap_or(0);
    row.attempt_until = Some(tx.now().plus_ms(CUT_MS + pause));
    (row.refused, row.refused_detail) = (None, None);
    Ok(())
}

/// The nodes with members are told otherwise.
pub(crate) async fn tell_nodes(tx: &mut Tx, members: &[MemberRow]) -> Result<(), StoreError> {
    for node in members.iter().map(|member| member.node).collect::<BTreeSet<NodeId>>() {
        nodes::bump_desired(tx, node).await?;
    }
    Ok(())
}

/// Gives up a snapshot under way: nothing is published, its blocks belong to the next commit.
pub(crate) async fn give_up(
    tx: &mut Tx,
    row: &mut SnapshotRow,
    reason: &str,
    detail: &str,
    outcome: Outcome,
) -> Result<(), AppError> {
    let members = snapshots::members(tx, row.id).await?;
    row.state = SnapshotState::Failed;
    row.reason = Some(reason.to_owned());
    (row.coordinator, row.attempt_until) = (None, None);
    if let Some(upload) = row.upload {
        uploads::end(tx, upload).await?;
    }
    snapshots::save(tx, row).await?;
    tracing::warn!(snapshot.id = %row.id, reason, "snapshot {} is given up: {detail}", row.name);
    events::append(tx, event(row, "muster")?).await?;
    operations::finish(tx, row.operation, outcome).await?;
    tell_nodes(tx, &members).await?;
    Ok(())
}

/// The outcome of an operation whose snapshot failed.
pub(crate) fn failed(reason: &str, detail: &str) -> Outcome {
    Outcome::Failed(
        Problem::new(ErrorCode::Unavailable, format!("nothing was published: {detail}")).with("reason", reason),
    )
}

/// Makes every member visible at once (I3, I7): versions, heads, the snapshot, the operation, the end of the upload.
/// The caller has seen in this transaction that all members flipped and all commits are staged.
pub(crate) async fn publish(tx: &mut Tx, row: &mut SnapshotRow) -> Result<(), AppError> {
    if let Some(lost) = snapshots::lost(tx, row.id).await? {
        return give_up(tx, row, "member_lost", &lost, failed("member_lost", &lost)).await;
    }
    let live = match row.upload {
        Some(upload) => uploads::live(tx, upload).await?,
        None => None,
    };
    let Some(upload) = live else {
        let detail = "its upload was ended, so its objects may be swept";
        return give_up(tx, row, "upload_ended", detail, failed("upload_ended", detail)).await;
    };
    let members = snapshots::members(tx, row.id).await?;
    let (mut published, mut heads, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for member in &members {
        let Some(staged) = &member.staged else {
            return Err(anyhow::anyhow!("member {} of snapshot {} is not staged", member.disk, row.id).into());
        };
        let root =
            VersionRoot { descriptor: staged.descriptor.clone(), root_page: staged.root_page.clone(), commit: None };
        let new = NewVersion {
            id: VersionId::generate(),
            project: row.project.clone(),
            labels: muster_api::Labels::default(),
            of: Of::Disk {
                instance: member.instance,
                instance_name: member.instance_name.clone(),
                disk: member.disk,
                snapshot: Some((row.id, row.name.clone())),
                commit: member.commit,
            },
            content: Content::from_root(&root).map_err(anyhow::Error::from)?,
            digest: None,
            stored_bytes: member.stored_bytes,
            reached_bytes: None,
            upload: Some(upload.id),
        };
        versions::insert(tx, &new).await?;
        heads.push(NewHead { disk: member.disk, base: staged.base, version: new.id, dirty_bytes: member.dirty_bytes });
        published.push((member.disk, new.id));
        let target = Target {
            kind: "version".to_owned(),
            id: new.id.to_string(),
            name: format!("{}/{}", row.name, member.instance_name),
        };
        told.push(NewEvent {
            operation: Some(row.operation),
            data: json!({ "state": "ready", "snapshot": row.id, "instance": member.instance, "disk": member.disk }),
            deployment: row.deployment,
            ..NewEvent::new("version.published", row.project.clone(), target)
        });
    }
    instances::advance_heads(tx, &heads).await?;
    snapshots::save_versions(tx, row.id, &published).await?;
    uploads::end(tx, upload.id).await?;
    row.state = SnapshotState::Ready;
    row.durable_at = Some(tx.now());
    row.dirty_bytes = members.iter().map(|member| member.dirty_bytes).sum();
    row.stored_bytes = members.iter().map(|member| member.stored_bytes).sum();
    (row.coordinator, row.attempt_until) = (None, None);
    snapshots::save(tx, row).await?;
    events::append_many(tx, told).await?;
    events::append(tx, event(row, "muster")?).await?;
    let progress = Progress { done: row.members, total: row.members, failed: 0, unit: "disks".to_owned() };
    operations::progress(tx, row.operation, "ready", &progress, &[]).await?;
    let result = json!({ "snapshot": row.id, "members": row.members, "stored_bytes": row.stored_bytes });
    operations::finish(tx, row.operation, Outcome::Succeeded(Some(result))).await?;
    tell_nodes(tx, &members).await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a pause in microseconds is far below 2^52")]
fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn member_view(member: MemberRow) -> SnapshotMember {
    SnapshotMember {
        instance: member.instance,
        instance_name: member.instance_name,
        disk: member.disk,
        version: member.version,
        pause_ms: member.pause_us.map(millis),
        dirty_bytes: member.dirty_bytes,
        stored_bytes: member.stored_bytes,
    }
}

fn view(row: SnapshotRow) -> Snapshot {
    Snapshot {
        id: row.id,
        name: row.name,
        project: row.project,
        labels: row.labels,
        state: row.state,
        reason: row.reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag(row.revision),
        deployment: row.deployment,
        deployment_name: row.deployment_name,
        consistency: row.consistency.into(),
        max_pause_ms: row.max_pause_ms,
        cut_at: row.cut_at,
        durable_at: row.durable_at,
        members: row.members,
        skipped: row.skipped,
        dirty_bytes: row.dirty_bytes,
        stored_bytes: row.stored_bytes,
        pause_max_ms: row.pause_max_us.map(millis),
    }
}
