//! A deployment becomes protected, otherwise protected, or not protected any more.

use std::time::Duration;

use muster_api::{
    Timestamp,
    protection::{PatchProtect, Period, Protect},
    snapshot::SnapshotState,
};

use super::{
    super::{AppError, snapshots as app_snapshots},
    drive::prune,
};
use crate::{
    domain::protection::{check, next_at},
    store::{
        Tx,
        deployments::DeploymentRow,
        protections::{self, ProtectionRow},
        snapshots,
    },
    wake::Loop,
};

impl From<&ProtectionRow> for Protect {
    fn from(row: &ProtectionRow) -> Self {
        Self { every: Period(Duration::from_secs(row.every_s)), keep: row.keep }
    }
}

/// Begins to protect a new deployment. What it holds is nothing that its source lacks, so the first snapshot has time.
pub(crate) async fn begin(tx: &mut Tx, deployment: &DeploymentRow, wanted: &Protect) -> Result<(), AppError> {
    let now = tx.now();
    let row = new_row(deployment, wanted, now);
    let row = ProtectionRow { next_at: next_at(deployment.id.uuid(), now, row.every_s), ..row };
    Ok(protections::insert(tx, &row).await?)
}

fn new_row(deployment: &DeploymentRow, wanted: &Protect, now: Timestamp) -> ProtectionRow {
    ProtectionRow {
        deployment: deployment.id,
        project: deployment.project.clone(),
        every_s: wanted.every.0.as_secs(),
        keep: wanted.keep,
        since: now,
        next_at: now,
        saved_at: None,
        last_snapshot: None,
        under_way: None,
        left_out: None,
        failures: 0,
        late: 0,
        trouble: None,
    }
}

/// Changes the protection of a deployment; `None` ends it. False if nothing is changed by that.
pub(crate) async fn change(
    tx: &mut Tx,
    deployment: &DeploymentRow,
    patch: Option<PatchProtect>,
) -> Result<bool, AppError> {
    let known = protections::load(tx, deployment.id).await?;
    let Some(patch) = patch else {
        end(tx, deployment).await?;
        return Ok(known.is_some());
    };
    let before = known.as_ref().map(Protect::from);
    let Some(wanted) = patch.apply(before) else {
        let detail = "say how often, for example 15m: the deployment is not protected yet";
        return Err(AppError::invalid("/protect/every", "missing", detail));
    };
    let wrong = check("/protect", &wanted);
    if !wrong.is_empty() {
        return Err(AppError::Invalid(wrong));
    }
    tx.wake(Loop::Protection);
    let Some(mut row) = known else {
        // Nobody knows since when it holds what is not saved, so the first one is due at once.
        let now = tx.now();
        protections::insert(tx, &new_row(deployment, &wanted, now)).await?;
        return Ok(true);
    };
    if before == Some(wanted) {
        return Ok(false);
    }
    row.every_s = wanted.every.0.as_secs();
    row.keep = wanted.keep;
    // No time that passed is later than now, whatever the clock said then.
    let saved_at = row.saved_at.unwrap_or(row.since).min(tx.now());
    row.next_at = next_at(deployment.id.uuid(), saved_at, row.every_s);
    protections::save(tx, &row).await?;
    prune(tx, &row).await?;
    Ok(true)
}

/// Ends the protection of a deployment. What was saved stays; a scheduled snapshot under way is given up.
pub(crate) async fn end(tx: &mut Tx, deployment: &DeploymentRow) -> Result<(), AppError> {
    let Some(row) = protections::load(tx, deployment.id).await? else { return Ok(()) };
    let under_way = match row.under_way {
        Some(id) => snapshots::load(tx, id).await?,
        None => None,
    };
    // It may be ready, and nobody has noted that yet.
    if let Some(snapshot) = under_way.filter(|snapshot| snapshot.state != SnapshotState::Ready) {
        app_snapshots::discard(tx, snapshot.id).await?;
    }
    Ok(protections::delete(tx, deployment.id).await?)
}
