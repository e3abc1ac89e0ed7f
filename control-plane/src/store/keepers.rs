//! What keeps versions, one by one: for the question what would be given back if some of it went.
//!
//! These are the lasting ones of the roots that the sweep lists ([`super::roots`]). What keeps a version only for a while
//! (readers, commits that are staged, a node that has not reported its newest version yet, a restore under way) does not
//! change how much comes back in the end.

use std::collections::BTreeMap;

use muster_api::{DeploymentId, ImageId, InstanceId, SnapshotId, VersionId};
use sqlx::any::AnyRow;
use storage_core::Descriptor;

use super::{StoreError, Tx, bulk, column, found, versions};
use crate::domain::disk_plan::DiskPlan;

/// What keeps a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// It is not deleted, as a version of this image or of this snapshot.
    Link(Option<ImageId>, Option<SnapshotId>),
    /// A disk of this instance builds on it.
    Disk(InstanceId, DeploymentId),
    /// Further members of this deployment start from it.
    Source(DeploymentId),
    /// A disk of no instance, what a dead node may still save, or an instance that is not known.
    Other,
}

const LINKS: &str = "-- keepers.links
SELECT v.id AS version, v.image, v.snapshot FROM versions v
WHERE v.deleted_at IS NULL AND (CAST($1 AS TEXT) IS NULL OR v.project = $1) LIMIT $2";

const DISKS: &str = "-- keepers.disks
SELECT d.version, d.instance, i.deployment FROM disks d JOIN instances i ON i.id = d.instance
WHERE i.deleted_at IS NULL AND (CAST($1 AS TEXT) IS NULL OR d.project = $1) LIMIT $2";

const SOURCES: &str = "-- keepers.sources
SELECT p.version, p.id AS deployment FROM deployments p
WHERE p.deleted_at IS NULL AND p.version IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR p.project = $1) LIMIT $2";

const PLANS: &str = "-- keepers.plans
SELECT p.disks, p.id AS deployment FROM deployments p
WHERE p.deleted_at IS NULL AND p.disks <> '[]' AND (CAST($1 AS TEXT) IS NULL OR p.project = $1) LIMIT $2";

const OTHERS: [&str; 3] = [
    "-- keepers.detached
SELECT f.version FROM detached_disks f WHERE (CAST($1 AS TEXT) IS NULL OR f.project = $1) LIMIT $2",
    "-- keepers.salvage_base
SELECT s.base AS version FROM salvage s
WHERE s.state = 'awaited' AND s.base IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR s.project = $1) LIMIT $2",
    "-- keepers.salvage_reported
SELECT s.reported_base AS version FROM salvage s
WHERE s.state = 'awaited' AND s.reported_base IS NOT NULL AND (CAST($1 AS TEXT) IS NULL OR s.project = $1) LIMIT $2",
];

type Read = fn(&AnyRow) -> Result<Keeper, StoreError>;

/// All that keeps versions in a project, or in all. `None` if a kind of it has more than `limit`. What other projects have does
/// not count, because it would tell something about them (I12).
pub async fn list(
    tx: &mut Tx,
    project: Option<&str>,
    limit: i64,
) -> Result<Option<Vec<(VersionId, Keeper)>>, StoreError> {
    let mut all = Vec::new();
    let link: Read = |row| Ok(Keeper::Link(column::read(row, "image")?, column::read(row, "snapshot")?));
    let disk: Read = |row| Ok(Keeper::Disk(column::read(row, "instance")?, column::read(row, "deployment")?));
    let source: Read = |row| Ok(Keeper::Source(column::read(row, "deployment")?));
    let other: Read = |_| Ok(Keeper::Other);
    let kinds = [(LINKS, link), (DISKS, disk), (SOURCES, source)];
    for (sql, keeper) in kinds.into_iter().chain(OTHERS.map(|sql| (sql, other))) {
        let rows = sqlx::query(sql).bind(project).bind(limit + 1).fetch_all(tx.conn()).await?;
        if i64::try_from(rows.len()).is_ok_and(|found| found > limit) {
            return Ok(None);
        }
        for row in &rows {
            all.push((column::read(row, "version")?, keeper(row)?));
        }
    }
    let rows = sqlx::query(PLANS).bind(project).bind(limit + 1).fetch_all(tx.conn()).await?;
    if i64::try_from(rows.len()).is_ok_and(|found| found > limit) {
        return Ok(None);
    }
    for row in &rows {
        let plans: Vec<DiskPlan> = column::read(row, "disks")?;
        let keeper = source(row)?;
        all.extend(plans.into_iter().filter_map(|plan| Some((plan.version?, keeper))));
    }
    // Whose they are is not known, so they count for every project: less is promised, never more.
    for report in found::reports(tx).await? {
        all.extend(report.disks.iter().map(|disk| (disk.version, Keeper::Other)));
    }
    Ok(Some(all))
}

const DESCRIPTORS: &str = "-- keepers.descriptors
SELECT id, descriptor FROM versions WHERE id";

/// The descriptors of those of the versions that are known, deleted or not.
pub async fn descriptors(tx: &mut Tx, ids: &[VersionId]) -> Result<BTreeMap<VersionId, Descriptor>, StoreError> {
    let rows = bulk::select_in(tx, DESCRIPTORS, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, versions::descriptor(row)?))).collect()
}
