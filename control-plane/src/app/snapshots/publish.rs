//! A complete snapshot becomes visible.

use anyhow::Context as _;
use muster_api::{
    Reason, UploadId, VersionId,
    firmware::Firmware,
    node_protocol::{StagedCommit, VersionRoot},
    operation::{Progress, Target},
    snapshot::SnapshotState,
};
use serde_json::json;

use super::{
    super::AppError,
    attempt::{failed, give_up, tell_nodes},
    event,
};
use crate::{
    domain::versions::Content,
    store::{
        Tx, deployments,
        events::{self, NewEvent},
        instances::{self, NewHead},
        operations::{self, Outcome},
        snapshots::{self, MemberRow, SnapshotRow, Staged},
        uploads,
        versions::{self, NewVersion, Of},
    },
    wake::Loop,
};

/// Makes every member visible at once (I3, I7): versions, heads, the snapshot, the operation, the end of the upload.
/// The caller has seen in this transaction that all members flipped and all commits are staged. The row of the commit that was
/// staged `last`, if it is given, lacks its root page.
pub(crate) async fn publish(tx: &mut Tx, row: &mut SnapshotRow, last: Option<&StagedCommit>) -> Result<(), AppError> {
    if let Some(lost) = snapshots::lost(tx, row.id).await? {
        return give_up(tx, row, Reason::MemberLost, &lost, failed(&Reason::MemberLost, &lost)).await;
    }
    let live = match row.upload {
        Some(upload) => uploads::live(tx, upload).await?,
        None => None,
    };
    let Some(upload) = live else {
        let detail = "its upload was ended, so its objects may be swept";
        return give_up(tx, row, Reason::UploadEnded, detail, failed(&Reason::UploadEnded, detail)).await;
    };
    let mut members = snapshots::members(tx, row.id).await?;
    if let Some(last) = last
        && let Some(member) = members.iter_mut().find(|member| member.disk == last.disk)
        && let Some(staged) = &mut member.staged
    {
        staged.root_page.clone_from(&last.root.root_page);
    }
    publish_members(tx, row, &members, upload.id).await?;
    uploads::end(tx, upload.id).await?;
    row.state = SnapshotState::Ready;
    row.durable_at = Some(tx.now());
    row.dirty_bytes = members.iter().map(|member| member.dirty_bytes).sum();
    row.stored_bytes = members.iter().map(|member| member.stored_bytes).sum();
    (row.coordinator, row.attempt_until) = (None, None);
    snapshots::save(tx, row).await?;
    events::append(tx, event(row, "muster")).await?;
    let progress = Progress { done: row.members, total: row.members, failed: 0, unit: "disks".to_owned() };
    operations::progress(tx, row.operation, "ready", &progress, &[]).await?;
    let result = json!({ "snapshot": row.id, "members": row.members, "stored_bytes": row.stored_bytes });
    operations::finish(tx, row.operation, Outcome::Succeeded(Some(result))).await?;
    tell_nodes(tx, &members).await?;
    tx.wake(Loop::Disks);
    tx.wake(Loop::Restores);
    if row.scheduled {
        tx.wake(Loop::Protection);
    }
    Ok(())
}

/// Makes a version of each member and the head of its disk.
async fn publish_members(
    tx: &mut Tx,
    row: &SnapshotRow,
    members: &[MemberRow],
    upload: UploadId,
) -> Result<(), AppError> {
    let (mut published, mut heads, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let instances: Vec<_> = members.iter().map(|member| member.instance).collect();
    let firmware = deployments::firmware_of(tx, &instances).await?;
    for member in members {
        let staged = member.staged.as_ref().expect("a snapshot is published when all its members are staged");
        let firmware = firmware.get(&member.instance).copied();
        let firmware =
            firmware.with_context(|| format!("member {} of a snapshot is forgotten", member.instance_name))?;
        let new = new_version(row, member, staged, upload, firmware)?;
        versions::insert(tx, &new).await?;
        heads.push(NewHead { disk: member.disk, base: staged.base, version: new.id, dirty_bytes: member.dirty_bytes });
        published.push((member.disk, new.id));
        told.push(published_event(row, member, new.id));
    }
    // What was written after the cut is in none of the versions, however long saving them took.
    let now = tx.now();
    let saved_at = row.cut_at.map_or(now, |cut_at| cut_at.min(now));
    instances::advance_heads_as_of(tx, &heads, saved_at).await?;
    snapshots::save_versions(tx, row.id, &published).await?;
    events::append_many(tx, told).await?;
    Ok(())
}

fn new_version(
    row: &SnapshotRow,
    member: &MemberRow,
    staged: &Staged,
    upload: UploadId,
    firmware: Firmware,
) -> Result<NewVersion, AppError> {
    let root = VersionRoot { descriptor: staged.descriptor.clone(), root_page: staged.root_page.clone(), commit: None };
    let of = Of::Disk {
        instance: member.instance,
        instance_name: member.instance_name.clone(),
        disk: member.disk,
        disk_name: member.disk_name.clone(),
        snapshot: Some((row.id, row.name.clone())),
        commit: Some(member.commit),
    };
    let content = Content::from_root(&root).map_err(anyhow::Error::from)?;
    Ok(NewVersion {
        stored_bytes: member.stored_bytes,
        upload: Some(upload),
        parent: Some(staged.base),
        ..NewVersion::of_disk(VersionId::generate(), row.project.clone(), of, firmware, content)
    })
}

fn published_event(row: &SnapshotRow, member: &MemberRow, version: VersionId) -> NewEvent {
    let target = Target {
        kind: "version".to_owned(),
        id: version.to_string(),
        name: versions::disk_version_name(Some(&row.name), &member.instance_name, &member.disk_name),
    };
    NewEvent {
        operation: Some(row.operation),
        data: json!({ "state": "ready", "snapshot": row.id, "instance": member.instance, "disk": member.disk }),
        deployment: row.deployment,
        ..NewEvent::new("version.published", row.project.clone(), target)
    }
}
