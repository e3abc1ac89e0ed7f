//! Restores under way: rows and SQL. They go when the operation ends; what came of it is in its result.

use std::collections::BTreeSet;

use muster_api::{DiskId, InstanceId, OperationId, SnapshotId, Timestamp, VersionId};
use storage_core::units::u64_from;

use super::{
    StoreError, Tx, bulk,
    column::{self, Cell},
    deployments,
    row::{columns, select, select_one},
};
use crate::domain::{instance::Stop, restore::Step};

/// Row of a restore. What it restores are the [`RestoreDiskRow`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRow {
    /// The operation that tells of it.
    pub operation: OperationId,
    /// The project of the snapshot and of all instances.
    pub project: String,
    /// The snapshot that is restored. It may be deleted meanwhile.
    pub snapshot: SnapshotId,
    /// The name that it had when somebody asked.
    pub snapshot_name: String,
    /// When its versions were published.
    pub saved_at: Option<Timestamp>,
    /// How far it is.
    pub step: Step,
    /// When the step is given up.
    pub until: Timestamp,
    /// Whether the present is given up.
    pub discard: bool,
    /// Whether guests lose their power at once.
    pub stop_force: bool,
    /// How long a guest may take to turn off, seconds.
    pub stop_timeout_s: u64,
    /// The snapshot that keeps the present, once it was begun.
    pub kept: Option<SnapshotId>,
}

impl RestoreRow {
    /// How guests are stopped.
    #[must_use]
    pub const fn stop(&self) -> Stop {
        Stop { force: self.stop_force, timeout_s: self.stop_timeout_s }
    }
}

/// A disk that is to be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreDiskRow {
    /// The operation that restores it.
    pub operation: OperationId,
    /// The disk.
    pub disk: DiskId,
    /// The name that it has within its instance.
    pub disk_name: String,
    /// The instance that has it.
    pub instance: InstanceId,
    /// The name that this has.
    pub instance_name: String,
    /// What it is to hold.
    pub version: VersionId,
    /// Whether the instance is to run afterwards.
    pub runs: bool,
    /// Whether its file is closed until its content is in place: it is no guest's.
    pub closed: bool,
    /// Whether the database says that it has its new content.
    pub restored: bool,
    /// Its place in the snapshot.
    pub seq: i64,
}

columns!(
    "restores", RestoreRow: operation, project, snapshot, snapshot_name, saved_at, step, until, discard, stop_force,
    stop_timeout_s, kept,
);

columns!(
    "restore_disks", RestoreDiskRow: operation, disk, disk_name, instance, instance_name, version, runs, closed, restored, seq,
);

/// Inserts a restore with its disks.
pub async fn insert(tx: &mut Tx, row: &RestoreRow, disks: &[RestoreDiskRow]) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await?;
    bulk::insert(tx, disks).await
}

/// All restores under way.
pub async fn all(tx: &mut Tx) -> Result<Vec<RestoreRow>, StoreError> {
    select(tx, "restores.all", "ORDER BY operation", []).await
}

/// The restore that this operation tells of.
pub async fn load(tx: &mut Tx, id: OperationId) -> Result<Option<RestoreRow>, StoreError> {
    select_one(tx, "restores.load", "WHERE operation = $1", [id.to_string().into()]).await
}

/// The disks of a restore, as they are in its snapshot.
pub async fn disks_of(tx: &mut Tx, id: OperationId) -> Result<Vec<RestoreDiskRow>, StoreError> {
    select(tx, "restore_disks.of", "WHERE operation = $1 ORDER BY seq", [id.to_string().into()]).await
}

const SAVE: &str = "-- restores.save
UPDATE restores SET step = $2, until = $3, kept = $4 WHERE operation = $1";

/// Saves how far a restore is.
pub async fn save(tx: &mut Tx, row: &RestoreRow) -> Result<(), StoreError> {
    sqlx::query(SAVE)
        .bind(row.operation.to_string())
        .bind(column::word_text(row.step)?)
        .bind(row.until.micros())
        .bind(row.kept.map(|id| id.to_string()))
        .execute(tx.conn())
        .await?;
    Ok(())
}

const FORGET: &str = "-- restores.forget
DELETE FROM restores WHERE operation = $1";
const FORGET_DISKS: &str = "-- restore_disks.forget
DELETE FROM restore_disks WHERE operation = $1";

/// Forgets a restore whose operation ends.
pub async fn forget(tx: &mut Tx, id: OperationId) -> Result<(), StoreError> {
    for sql in [FORGET, FORGET_DISKS] {
        sqlx::query(sql).bind(id.to_string()).execute(tx.conn()).await?;
    }
    Ok(())
}

const CLOSED: &str = "-- restore_disks.closed
SELECT disk FROM restore_disks WHERE closed = 1 AND restored = 0
    AND operation IN (SELECT r.operation FROM restores r WHERE r.step <> 'starting') AND instance";

/// The disks of these instances whose files are closed until their content is in place.
pub async fn closed_of(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeSet<DiskId>, StoreError> {
    let rows = bulk::select_in(tx, CLOSED, ids, "").await?;
    rows.iter().map(|row| column::read(row, "disk")).collect()
}

const CLOSE: &str = "-- disks.close
UPDATE disks SET in_guest = NULL, leaving_revision = v.column2 FROM (";

/// Notes that the files of these disks are to be closed from these desired revisions of their nodes on. What was told of
/// that before does not count.
pub async fn close(tx: &mut Tx, disks: &[(DiskId, u64)]) -> Result<(), StoreError> {
    let rows = disks.iter().map(|(disk, revision)| vec![disk.to_string().into(), column::int(*revision).into()]);
    bulk::run(tx, CLOSE, rows.collect(), ") AS v WHERE disks.id = v.column1").await?;
    Ok(())
}

const PUT: &str = "-- disks.restore
UPDATE disks SET version = v.column2, saved_at = v.column3, since_generation = v.column4, path = NULL,
    reported_version = COALESCE(reported_version, version), reported_generation = NULL, reported_bytes = NULL,
    unsaved_bytes = 0, local_bytes = 0, in_guest = NULL, guest_lacks = NULL, said = NULL, updated_at = v.column5,
    revision = revision + 1
FROM (";

const NOTE_RESTORED: &str = "-- restore_disks.restored
UPDATE restore_disks SET restored = 1 FROM (";

/// Puts another version in place as the content of each disk, from this generation of its instance on. A
/// [`StoreError::Conflict`] for all if one of the disks is not there.
// I6: until its node reports the new one, it may read the one before.
pub async fn put(tx: &mut Tx, row: &RestoreRow, disks: &[(RestoreDiskRow, u64)]) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let rows: Vec<Vec<Cell>> = disks
        .iter()
        .map(|(disk, generation)| {
            vec![
                disk.disk.to_string().into(),
                disk.version.to_string().into(),
                Cell::Int(column::opt_micros(row.saved_at)),
                column::int(*generation).into(),
                now.into(),
            ]
        })
        .collect();
    let wanted = u64_from(rows.len());
    if bulk::run(tx, PUT, rows, ") AS v WHERE disks.id = v.column1").await? != wanted {
        return Err(StoreError::Conflict { table: "disks", id: row.operation.to_string() });
    }
    let restored = disks.iter().map(|(disk, _)| vec![row.operation.to_string().into(), disk.disk.to_string().into()]);
    let tail = ") AS v WHERE restore_disks.operation = v.column1 AND restore_disks.disk = v.column2";
    bulk::run(tx, NOTE_RESTORED, restored.collect(), tail).await?;
    deployments::disks_changed(tx, &disks.iter().map(|(disk, _)| disk.disk).collect::<Vec<_>>()).await
}
