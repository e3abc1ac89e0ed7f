//! Rows of versions that were deleted long ago and that nothing refers to any more. They are dropped in small batches.
//!
//! The row of a deleted version stays as long as something reads it or may ask for it:
//! - a disk builds on it, of an instance or of none, or a node has a copy of such a disk yet; a deployment starts from it, a
//!   restore is to put it in place, a commit is staged on it, a disk of a dead node builds on it, somebody reads it;
//! - the node of a disk does not know the newest version of it yet: it may ask what became of its commits;
//! - its snapshot is still there, which counts its deleted members.
//!
//! Everything that names a version is looked at, as for the roots of the sweep (`roots.rs`), but whatever a row says of its own
//! end: a row that is about to be dropped itself still counts. A version that was made from a dropped one is from then on one
//! that was made from what that was made from, so that boot orders are found and maps of chunks are compared as before.

use std::collections::BTreeSet;

use muster_api::{Timestamp, VersionId};
use storage_core::units::u64_from;

use super::{StoreError, Tx, bulk, column, found};
use crate::domain::disk_plan::DiskPlan;

/// A place in the order in which versions were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    deleted_at: i64,
    seq: i64,
}

/// How far the rows were looked through.
#[derive(Clone, Copy, Debug, Default)]
pub struct OldVersions {
    /// Where the next look begins.
    pub from: Place,
    /// No look before this time.
    pub not_before: Option<Timestamp>,
}

/// What a look at some rows came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// How many rows are gone.
    pub rows: u64,
    /// Where to look next; `None` after the last one.
    pub next: Option<Place>,
}

const DELETED: &str = "-- versions.deleted
SELECT id, deleted_at, seq FROM versions
WHERE deleted_at IS NOT NULL AND deleted_at >= $1 AND deleted_at < $3 AND (deleted_at > $1 OR seq > $2)
ORDER BY deleted_at, seq LIMIT $4";

const UNNEEDED: &str = "-- versions.unneeded
SELECT v.id FROM versions v WHERE v.deleted_at IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM disks d WHERE d.version = v.id)
    AND NOT EXISTS (SELECT 1 FROM disks d WHERE d.reported_version = v.id)
    AND NOT EXISTS (SELECT 1 FROM disks d WHERE d.id = v.disk
        AND (d.reported_version IS NULL OR d.reported_version <> d.version))
    AND NOT EXISTS (SELECT 1 FROM detached_disks f WHERE f.version = v.id)
    AND NOT EXISTS (SELECT 1 FROM left_disks l WHERE l.version = v.id OR l.disk = v.disk)
    AND NOT EXISTS (SELECT 1 FROM restore_disks t WHERE t.version = v.id)
    AND NOT EXISTS (SELECT 1 FROM deployments p WHERE p.version = v.id)
    AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.id = v.snapshot)
    AND NOT EXISTS (SELECT 1 FROM snapshot_members m JOIN snapshots s ON s.id = m.snapshot
        WHERE m.base = v.id AND s.state IN ('cutting', 'saving'))
    AND NOT EXISTS (SELECT 1 FROM salvage s WHERE s.state = 'awaited' AND (s.base = v.id OR s.reported_base = v.id))
    AND NOT EXISTS (SELECT 1 FROM readers r WHERE r.version = v.id)
    AND v.id";

const PLANS: &str = "-- versions.planned
SELECT disks FROM deployments WHERE disks <> '[]'";

const ADOPT: &str = "-- versions.adopt_children
UPDATE versions SET parent = (SELECT p.parent FROM versions p WHERE p.id = $1) WHERE parent = $1";

const DROP: &str = "-- versions.drop
DELETE FROM versions WHERE id = $1 AND deleted_at IS NOT NULL";

/// Looks at up to `limit` rows after `from` of versions that were deleted before `before`, and drops those that nothing needs.
pub async fn drop_some(tx: &mut Tx, from: Place, before: Timestamp, limit: i64) -> Result<Dropped, StoreError> {
    let query = sqlx::query(DELETED).bind(from.deleted_at).bind(from.seq).bind(before.micros()).bind(limit);
    let (mut ids, mut last) = (Vec::<VersionId>::new(), None);
    for row in query.fetch_all(tx.conn()).await? {
        ids.push(column::read(&row, "id")?);
        last = Some(Place { deleted_at: column::read(&row, "deleted_at")?, seq: column::read(&row, "seq")? });
    }
    let next = last.filter(|_| i64::try_from(ids.len()).is_ok_and(|found| found == limit));
    let mut unneeded = BTreeSet::<VersionId>::new();
    for row in bulk::select_in(tx, UNNEEDED, &ids, "").await? {
        unneeded.insert(column::read(&row, "id")?);
    }
    if !unneeded.is_empty() {
        for needed in told(tx).await? {
            unneeded.remove(&needed);
        }
    }
    for id in &unneeded {
        sqlx::query(ADOPT).bind(id.to_string()).execute(tx.conn()).await?;
        sqlx::query(DROP).bind(id.to_string()).execute(tx.conn()).await?;
    }
    Ok(Dropped { rows: u64_from(unneeded.len()), next })
}

/// The versions that further disks of deployments start from, and those of found instances.
async fn told(tx: &mut Tx) -> Result<Vec<VersionId>, StoreError> {
    let mut all = Vec::new();
    for row in sqlx::query(PLANS).fetch_all(tx.conn()).await? {
        let plans: Vec<DiskPlan> = column::read(&row, "disks")?;
        all.extend(plans.into_iter().filter_map(|plan| plan.version));
    }
    for report in found::reports(tx).await? {
        all.extend(report.disks.iter().map(|disk| disk.version));
    }
    Ok(all)
}
