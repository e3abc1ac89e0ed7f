//! What comes next for a protected deployment: a snapshot begins, or what became of the last one is noted.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, DiskId, InstanceId, Reason, VersionId, deployment::DeploymentState, snapshot::SnapshotState,
};
use serde_json::json;
use storage_core::units::u64_from;

use super::super::{
    AppError,
    snapshots::{self as app_snapshots, Part, Speed},
};
use crate::{
    domain::protection::{AGAIN_MS, LATE_MAX, again_ms, expired, is_due, is_starved, next_at},
    store::{
        Tx,
        deployments::{self, DeploymentRow},
        events::{self, NewEvent},
        instances::{self, DiskRow, InstanceRow},
        operations::{self, Origin},
        protections::{self, ProtectionRow},
        snapshots::{self, SnapshotRow},
    },
};

/// Most snapshots that are deleted in one transaction. The rest goes after the next snapshot.
const PRUNED_MAX: usize = 100;

/// What was done for a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Nothing, or nothing that keeps nodes busy.
    Noted,
    /// A snapshot began.
    Began,
}

/// Does what comes next. A snapshot only begins if `may_begin`.
pub(crate) async fn drive(tx: &mut Tx, id: DeploymentId, may_begin: bool) -> Result<Did, AppError> {
    let Some(mut row) = protections::load(tx, id).await? else { return Ok(Did::Noted) };
    let deployment = deployments::load(tx, id).await?;
    let gone = |state| matches!(state, DeploymentState::Deleting | DeploymentState::Deleted);
    let Some(deployment) = deployment.filter(|found| !gone(found.state)) else {
        protections::delete(tx, id).await?;
        return Ok(Did::Noted);
    };
    if let Some(under_way) = row.under_way {
        let found = snapshots::load(tx, under_way).await?;
        if found.as_ref().is_some_and(SnapshotRow::is_under_way) {
            return Ok(Did::Noted);
        }
        settle(tx, &deployment, &mut row, found).await?;
    }
    if !is_due(row.next_at, row.every_s, tx.now()) {
        return Ok(Did::Noted);
    }
    save(tx, deployment, row, may_begin).await
}

/// Notes what became of the snapshot that was under way.
async fn settle(
    tx: &mut Tx,
    deployment: &DeploymentRow,
    row: &mut ProtectionRow,
    ended: Option<SnapshotRow>,
) -> Result<(), AppError> {
    row.under_way = None;
    let left_out = row.left_out.take();
    // One that somebody deleted since it was ready saved everything all the same.
    if let Some((ended, durable_at)) = ended.as_ref().and_then(|ended| Some((ended, ended.durable_at?))) {
        // No time that passed is later than now, whatever the clock said then.
        let now = tx.now();
        row.saved_at = Some(ended.cut_at.map_or(ended.created_at, |cut_at| cut_at.min(durable_at)).min(now));
        row.last_snapshot = Some(ended.id);
        (row.failures, row.late) = (0, 0);
        row.next_at = next_at(deployment.id.uuid(), ended.created_at.min(now), row.every_s);
        count("ready");
        note(tx, deployment, row, left_out).await?;
        return prune(tx, row).await;
    }
    row.failures += 1;
    let mut again_ms = again_ms(row.failures, row.every_s);
    let mut why = "it was deleted before it was ready".to_owned();
    if let Some(ended) = ended {
        if ended.reason == Some(Reason::MemberLost) && row.failures == 1 {
            // The next one is without that member, so the others need not wait (I11).
            again_ms = 0;
        }
        row.late = if ended.reason == Some(Reason::Deadline) { row.late + 1 } else { 0 };
        let operation = operations::load(tx, ended.operation).await?;
        let error = operation.and_then(|operation| operation.error).map(|error| error.detail);
        let reason = || ended.reason.as_ref().map_or_else(|| "it was given up".to_owned(), ToString::to_string);
        if ended.state == SnapshotState::Failed {
            why = error.unwrap_or_else(reason);
        }
        // What failed is told here. Nobody would clear up the rows.
        app_snapshots::discard(tx, ended.id).await?;
    }
    row.next_at = tx.now().plus_ms(again_ms);
    count("failed");
    note(tx, deployment, row, Some(format!("the last scheduled snapshot failed: {why}"))).await
}

/// Saves what the members hold: by a snapshot, or by noting that all of it is saved.
async fn save(
    tx: &mut Tx,
    deployment: DeploymentRow,
    mut row: ProtectionRow,
    may_begin: bool,
) -> Result<Did, AppError> {
    let members = instances::of_deployment(tx, deployment.id).await?;
    let ids: Vec<InstanceId> = members.iter().map(|member| member.id).collect();
    let disks = instances::disks_of(tx, &ids).await?;
    let (mut taken, mut skipped, mut left_out) = (Vec::new(), 0, Vec::new());
    for member in members {
        match app_snapshots::part(tx, &member, disks.get(&member.id).map_or(&[], Vec::as_slice)).await? {
            Part::Taken => taken.push(member),
            Part::Skipped => skipped += 1,
            Part::LeftOut(why) => {
                skipped += 1;
                left_out.push(why);
            }
        }
    }
    let now = tx.now();
    let saved_at = row.saved_at.unwrap_or(row.since);
    if is_starved(saved_at, row.every_s, row.late, now) {
        let (mut rest, mut in_the_way) = (Vec::new(), Vec::new());
        for member in &taken {
            let disks = disks.get(&member.id).map_or(&[][..], Vec::as_slice);
            match app_snapshots::in_the_way(tx, member, disks, saved_at).await? {
                Some(why) => in_the_way.push(why),
                None => rest.push(member.clone()),
            }
        }
        if rest.is_empty() {
            // Others save all of them. It is tried with all again.
            row.late = 0;
        } else {
            taken = rest;
            skipped += u64_from(in_the_way.len());
            left_out.append(&mut in_the_way);
        }
        let why = format!("no scheduled snapshot was ready since {saved_at}: others of the same disks come in between");
        note(tx, &deployment, &mut row, Some(why)).await?;
    }
    let left_out = sentence(&left_out);
    if taken.is_empty() {
        // It may start, be placed, or be heard from at any time.
        row.next_at = now.plus_ms(again_ms(3, row.every_s));
        note(tx, &deployment, &mut row, left_out).await?;
        return Ok(Did::Noted);
    }
    if is_saved(tx, &row, &taken, &disks).await? {
        row.saved_at = Some(now);
        (row.failures, row.late) = (0, 0);
        row.next_at = next_at(deployment.id.uuid(), now, row.every_s);
        count("unchanged");
        note(tx, &deployment, &mut row, left_out).await?;
        return Ok(Did::Noted);
    }
    if !may_begin {
        return Ok(Did::Noted);
    }
    let speed = if row.late < LATE_MAX { Speed::Background } else { Speed::Full };
    match app_snapshots::begin_scheduled(tx, deployment.clone(), taken, skipped, speed).await {
        Ok(snapshot) => {
            row.under_way = Some(snapshot);
            row.left_out = left_out;
            protections::save(tx, &row).await?;
            Ok(Did::Began)
        }
        // Somebody's snapshot has one of the disks, and goes first.
        Err(AppError::Busy { .. }) => {
            row.late += 1;
            row.next_at = now.plus_ms(AGAIN_MS);
            protections::save(tx, &row).await?;
            Ok(Did::Noted)
        }
        Err(refusal @ (AppError::Problem(_) | AppError::WrongState { .. })) => {
            row.failures += 1;
            row.next_at = now.plus_ms(again_ms(row.failures, row.every_s));
            count("failed");
            note(tx, &deployment, &mut row, Some(format!("no scheduled snapshot can begin: {refusal}"))).await?;
            Ok(Did::Noted)
        }
        Err(error) => Err(error),
    }
}

/// Whether the newest scheduled snapshot has all that these members hold.
async fn is_saved(
    tx: &mut Tx,
    row: &ProtectionRow,
    taken: &[InstanceRow],
    disks: &BTreeMap<InstanceId, Vec<DiskRow>>,
) -> Result<bool, AppError> {
    let disks = taken.iter().filter_map(|member| disks.get(&member.id)).flatten();
    // One that leaves its instance and was never there holds nothing.
    let disks: Vec<&DiskRow> = disks.filter(|disk| disk.path.is_some()).collect();
    if !disks.iter().all(|disk| disk.is_saved()) {
        return Ok(false);
    }
    let Some(last) = row.last_snapshot else { return Ok(false) };
    if snapshots::load(tx, last).await?.is_none_or(|last| last.state != SnapshotState::Ready) {
        return Ok(false);
    }
    let members = snapshots::members(tx, last).await?;
    let versions: BTreeMap<DiskId, Option<VersionId>> = members.into_iter().map(|m| (m.disk, m.version)).collect();
    Ok(disks.iter().all(|disk| versions.get(&disk.id) == Some(&Some(disk.version))))
}

/// What is left out, in a sentence.
fn sentence(left_out: &[String]) -> Option<String> {
    match left_out {
        [] => None,
        [one] => Some(format!("left out: {one}")),
        [first, others @ ..] => Some(format!("left out: {first}; and {} more", others.len())),
    }
}

/// Saves the row. Tells everybody if there is another trouble than before, or none any more.
async fn note(
    tx: &mut Tx,
    deployment: &DeploymentRow,
    row: &mut ProtectionRow,
    trouble: Option<String>,
) -> Result<(), AppError> {
    if row.trouble != trouble {
        row.trouble.clone_from(&trouble);
        let data = match &trouble {
            Some(detail) => {
                tracing::warn!(deployment.id = %deployment.id, "deployment {} is not protected as it is to be: {detail}", deployment.name);
                json!({ "state": "troubled", "detail": detail })
            }
            None => json!({ "state": "protected" }),
        };
        let told = NewEvent {
            data,
            labels: deployment.labels.clone(),
            deployment: Some(deployment.id),
            ..NewEvent::new("deployment.protection", deployment.project.clone(), deployment.target())
        };
        events::append(tx, told).await?;
    }
    Ok(protections::save(tx, row).await?)
}

/// Deletes the scheduled snapshots that no rule wants any more, as a user would.
pub(super) async fn prune(tx: &mut Tx, row: &ProtectionRow) -> Result<(), AppError> {
    let ready = snapshots::scheduled_of(tx, row.deployment).await?;
    // By one clock: cuts are told by the clocks of nodes.
    let times: Vec<_> = ready.iter().map(|old| (old.id, old.created_at)).collect();
    let gone: BTreeSet<_> = expired(&times, row.keep).into_iter().take(PRUNED_MAX).collect();
    // What was not written since is in no other one.
    let is_gone = |old: &SnapshotRow| gone.contains(&old.id) && row.last_snapshot != Some(old.id);
    for old in ready.into_iter().filter(is_gone) {
        match app_snapshots::unlink(tx, old, &Origin::muster()).await {
            // What runs on it goes first. It is deleted after the next snapshot.
            Ok(_) | Err(AppError::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(outcome: &'static str) {
    metrics::counter!("muster_scheduled_snapshots_total", "outcome" => outcome).increment(1);
}
