//! The life of disks beyond their beginning: rows and SQL of those that grow, are detached, belong to no instance. What an
//! instance has is in `instances`.

use std::collections::BTreeMap;

use muster_api::{DiskId, InstanceId, NodeId, Timestamp, VersionId, node_protocol::DiskReport};

use super::{
    StoreError, Tx,
    bulk::{self, Conditions},
    column, deployments,
    instances::DiskRow,
    row::{Row as _, columns, select, select_one},
};

/// Row of a disk that belongs to no instance. All that it holds is in its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedRow {
    /// Its id.
    pub id: DiskId,
    /// The project that owns it.
    pub project: String,
    /// The name that it had within its instance.
    pub name: String,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// What it holds.
    pub version: VersionId,
    /// That version holds what was written until then; `None` if it is the version that the disk began with.
    pub saved_at: Option<Timestamp>,
    /// The instance that it was detached from.
    pub instance: InstanceId,
    /// The name that this had then.
    pub instance_name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

columns!(
    "detached_disks", DetachedRow: id, project, name, size_bytes, version, saved_at, instance, instance_name,
    created_at, updated_at, revision, seq,
);

/// A disk, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyDisk {
    /// One of an instance.
    Attached(DiskRow),
    /// One of no instance.
    Detached(DetachedRow),
}

impl AnyDisk {
    /// Its place in lists.
    #[must_use]
    pub const fn seq(&self) -> i64 {
        match self {
            Self::Attached(row) => row.seq,
            Self::Detached(row) => row.seq,
        }
    }

    /// The project that owns it.
    #[must_use]
    pub fn project(&self) -> &str {
        match self {
            Self::Attached(row) => &row.project,
            Self::Detached(row) => &row.project,
        }
    }

    /// Raised by each change.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        match self {
            Self::Attached(row) => row.revision,
            Self::Detached(row) => row.revision,
        }
    }
}

/// Disks of deleted instances are kept for a day with these, and are gone for everybody.
const OF_LIVING: &str = "(SELECT i.state FROM instances i WHERE i.id = disks.instance) <> 'deleted'";

/// The disk with this id, unless its instance is deleted.
pub async fn load(tx: &mut Tx, id: DiskId) -> Result<Option<AnyDisk>, StoreError> {
    let attached: Option<DiskRow> =
        select_one(tx, "disks.load", &format!("WHERE id = $1 AND {OF_LIVING}"), [id.to_string().into()]).await?;
    if let Some(row) = attached {
        return Ok(Some(AnyDisk::Attached(row)));
    }
    let detached = select_one(tx, "detached_disks.load", "WHERE id = $1", [id.to_string().into()]).await?;
    Ok(detached.map(AnyDisk::Detached))
}

/// The disk with this id, if it is one of an instance, also of a deleted one.
pub async fn load_attached(tx: &mut Tx, id: DiskId) -> Result<Option<DiskRow>, StoreError> {
    select_one(tx, "disks.load_attached", "WHERE id = $1", [id.to_string().into()]).await
}

/// The disks of no instance that have this name, oldest first. Names are not unique.
pub async fn detached_by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Vec<DetachedRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 ORDER BY seq";
    select(tx, "detached_disks.by_name", rest, [project.into(), name.into()]).await
}

const COUNT: &str = "-- disks.count
SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM detached_disks) AS detached,
    (SELECT CAST(COUNT(*) AS BIGINT) FROM disks WHERE leaving_since IS NOT NULL) AS leaving";

/// How many disks belong to no instance, and how many are being detached.
pub async fn count(tx: &mut Tx) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(COUNT).fetch_one(tx.conn()).await?;
    Ok((column::read(&row, "detached")?, column::read(&row, "leaving")?))
}

const COUNT_OF: &str = "-- disks.count_of
SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM detached_disks WHERE project = $1)
    + (SELECT CAST(COUNT(*) AS BIGINT) FROM disks WHERE project = $1 AND leaving_since IS NOT NULL) AS used";

/// How many disks of a project belong to no instance or are being detached.
pub async fn count_of(tx: &mut Tx, project: &str) -> Result<u64, StoreError> {
    let row = sqlx::query(COUNT_OF).bind(project).fetch_one(tx.conn()).await?;
    column::read(&row, "used")
}

/// Which disks to list. Every field that is set must match.
#[derive(Clone, Debug, Default)]
pub struct DiskFilter {
    /// The project that owns them; `None` for all projects (operators).
    pub project: Option<String>,
    /// Only disks of these instances, by id; of all instances and of none if empty.
    pub instances: Vec<String>,
    /// Only disks of no instance.
    pub detached: bool,
}

/// Up to `limit` disks after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &DiskFilter, after: i64, limit: i64) -> Result<Vec<AnyDisk>, StoreError> {
    let begun = || {
        let mut conditions = Conditions::default();
        conditions.compare("seq", ">", after);
        if let Some(project) = &filter.project {
            conditions.compare("project", "=", project.as_str());
        }
        conditions
    };
    let mut all = Vec::new();
    if !filter.detached {
        let mut conditions = begun();
        conditions.one_of("instance", &filter.instances);
        conditions.fixed(OF_LIVING);
        all.extend(conditions.fetch(tx, "disks.list", limit).await?.into_iter().map(AnyDisk::Attached));
    }
    if filter.instances.is_empty() {
        all.extend(begun().fetch(tx, "detached_disks.list", limit).await?.into_iter().map(AnyDisk::Detached));
    }
    all.sort_by_key(AnyDisk::seq);
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

const LAST: &str = "WHERE instance = $1 ORDER BY number DESC LIMIT 1";

/// The place after the last disk of an instance.
pub async fn next_number(tx: &mut Tx, instance: InstanceId) -> Result<u64, StoreError> {
    let last: Option<DiskRow> = select_one(tx, "disks.last", LAST, [instance.to_string().into()]).await?;
    Ok(last.map_or(0, |row| row.number + 1))
}

/// Adds a disk to an instance that has some.
pub async fn insert(tx: &mut Tx, row: &DiskRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await?;
    deployments::disks_changed(tx, &[row.id]).await
}

const GROW: &str = "-- disks.grow
UPDATE disks SET size_bytes = $3, updated_at = $4, revision = revision + 1 WHERE id = $1 AND revision = $2";
const GROW_DETACHED: &str = "-- detached_disks.grow
UPDATE detached_disks SET size_bytes = $3, updated_at = $4, revision = revision + 1 WHERE id = $1 AND revision = $2";

/// Saves a new size. A [`StoreError::Conflict`] if somebody else saved the disk since it was read.
pub async fn grow(tx: &mut Tx, disk: &AnyDisk, size_bytes: u64) -> Result<(), StoreError> {
    let (sql, table, id) = match disk {
        AnyDisk::Attached(row) => (GROW, "disks", row.id),
        AnyDisk::Detached(row) => (GROW_DETACHED, "detached_disks", row.id),
    };
    let now = tx.now().micros();
    let query = sqlx::query(sql).bind(id.to_string()).bind(disk.revision()).bind(column::int(size_bytes)).bind(now);
    let done = query.execute(tx.conn()).await?;
    StoreError::unless_saved(&done, table, id)
}

const PUT_IN_PLACE: &str = "-- disks.put_in_place
UPDATE disks SET version = $2, saved_at = $3, since_generation = $4, updated_at = $5, revision = revision + 1 WHERE id = $1";

/// Notes that a version is the content of a disk, from this generation of its instance on, as its node says: it was put in
/// place there. `version` comes with the time at which it was published.
pub async fn put_in_place(
    tx: &mut Tx,
    disk: DiskId,
    (version, saved_at): (VersionId, Timestamp),
    generation: u64,
) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let query = sqlx::query(PUT_IN_PLACE).bind(disk.to_string()).bind(version.to_string()).bind(saved_at.micros());
    query.bind(column::int(generation)).bind(now).execute(tx.conn()).await?;
    deployments::disks_changed(tx, &[disk]).await
}

const RAISE_SIZE: &str = "-- disks.raise_size
UPDATE disks SET size_bytes = $2, updated_at = $3, revision = revision + 1 WHERE id = $1 AND size_bytes < $2";

/// Saves the size that a disk has on its node, unless it is known to be at least as large.
pub async fn raise_size(tx: &mut Tx, id: DiskId, size_bytes: u64) -> Result<(), StoreError> {
    let query = sqlx::query(RAISE_SIZE).bind(id.to_string()).bind(column::int(size_bytes)).bind(tx.now().micros());
    query.execute(tx.conn()).await?;
    Ok(())
}

const SAVE_LEAVING: &str = "-- disks.leaving
UPDATE disks SET leaving_since = $3, leaving_revision = $4, leaving_snapshot = $5, detail = $6, updated_at = $7,
    revision = revision + 1
WHERE id = $1 AND revision = $2";

/// Saves whether it is being detached and how far that is. A [`StoreError::Conflict`] if somebody else saved the disk since
/// it was read.
pub async fn save_leaving(tx: &mut Tx, row: &DiskRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE_LEAVING)
        .bind(row.id.to_string())
        .bind(row.revision)
        .bind(column::opt_micros(row.leaving_since))
        .bind(column::int(row.leaving_revision))
        .bind(row.leaving_snapshot.map(|id| id.to_string()))
        .bind(row.detail.as_deref())
        .bind(now)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "disks", row.id)
}

const SAVE_ABSENCE: &str = "-- disks.save_absence
UPDATE disks SET in_guest = $2, said = $3 WHERE id = $1 AND path IS NULL";

/// Stores what a node said of a disk that it does not have and never had. It is no change by anybody, so the revision stays.
pub async fn save_absence(tx: &mut Tx, row: &DiskRow) -> Result<(), StoreError> {
    let in_guest = row.in_guest.map(i64::from);
    let query = sqlx::query(SAVE_ABSENCE).bind(row.id.to_string()).bind(in_guest).bind(row.said.as_deref());
    query.execute(tx.conn()).await?;
    Ok(())
}

/// The disks that are being detached, oldest first. Those of deleted instances are among them while a snapshot is there that
/// was to save them.
pub async fn leaving(tx: &mut Tx) -> Result<Vec<DiskRow>, StoreError> {
    let rest = format!(
        "WHERE leaving_since IS NOT NULL AND (leaving_snapshot IS NOT NULL OR {OF_LIVING}) ORDER BY leaving_since, seq"
    );
    select(tx, "disks.all_leaving", &rest, []).await
}

const DELETE: &str = "-- disks.delete
DELETE FROM disks WHERE id = $1 AND revision = $2";
const DELETE_DETACHED: &str = "-- detached_disks.delete
DELETE FROM detached_disks WHERE id = $1 AND revision = $2";

/// The disk leaves its instance. A [`StoreError::Conflict`] if somebody else saved it since it was read.
pub async fn detach(tx: &mut Tx, row: &DiskRow, instance_name: String) -> Result<DetachedRow, StoreError> {
    deployments::disks_changed(tx, &[row.id]).await?;
    let done = sqlx::query(DELETE).bind(row.id.to_string()).bind(row.revision).execute(tx.conn()).await?;
    StoreError::unless_saved(&done, "disks", row.id)?;
    let detached = DetachedRow {
        id: row.id,
        project: row.project.clone(),
        name: row.name.clone(),
        size_bytes: row.size_bytes,
        version: row.version,
        saved_at: row.saved_at,
        instance: row.instance,
        instance_name,
        created_at: row.created_at,
        updated_at: tx.now(),
        revision: row.revision + 1,
        seq: row.seq,
    };
    bulk::insert(tx, std::slice::from_ref(&detached)).await?;
    Ok(detached)
}

/// The disk goes: it is attached, or deleted. A [`StoreError::Conflict`] if somebody else saved it since it was read.
pub async fn delete_detached(tx: &mut Tx, row: &DetachedRow) -> Result<(), StoreError> {
    let done = sqlx::query(DELETE_DETACHED).bind(row.id.to_string()).bind(row.revision).execute(tx.conn()).await?;
    StoreError::unless_saved(&done, "detached_disks", row.id)
}

/// A disk that has left an instance, whose node still has a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftRow {
    /// The instance that it has left.
    pub instance: InstanceId,
    /// The disk.
    pub disk: DiskId,
    /// The node that has the copy.
    pub node: NodeId,
    /// The desired revision of the node that tells it to remove the copy.
    pub told_revision: u64,
    /// The version that has everything. A copy of another one is not what left.
    pub version: VersionId,
}

impl LeftRow {
    /// Whether the report is about the copy that is to be removed.
    #[must_use]
    pub fn is(&self, report: &DiskReport) -> bool {
        (self.disk, self.version) == (report.disk, report.version)
    }
}

columns!("left_disks", LeftRow: instance, disk, node, told_revision, version);

/// Notes that a node is to remove its copy. A note of another node, which the instance was on before, goes.
pub async fn note_left(tx: &mut Tx, row: &LeftRow) -> Result<(), StoreError> {
    forget_left(tx, row.instance, row.disk).await?;
    bulk::insert(tx, std::slice::from_ref(row)).await
}

/// What nodes are to remove of these instances, by instance.
pub async fn left_by(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Vec<LeftRow>>, StoreError> {
    let mut left: BTreeMap<InstanceId, Vec<LeftRow>> = BTreeMap::new();
    let head = format!("-- left_disks.of\n{} WHERE instance", LeftRow::SELECT);
    for row in bulk::select_in(tx, &head, ids, " ORDER BY disk").await? {
        let row = LeftRow::from_row(&row)?;
        left.entry(row.instance).or_default().push(row);
    }
    Ok(left)
}

/// Where copies of a disk are to be removed.
pub async fn copies_left(tx: &mut Tx, disk: DiskId) -> Result<Vec<LeftRow>, StoreError> {
    select(tx, "left_disks.copies", "WHERE disk = $1", [disk.to_string().into()]).await
}

const FORGET_LEFT: &str = "-- left_disks.forget
DELETE FROM left_disks WHERE instance = $1 AND disk = $2";

/// The copy is gone.
pub async fn forget_left(tx: &mut Tx, instance: InstanceId, disk: DiskId) -> Result<(), StoreError> {
    sqlx::query(FORGET_LEFT).bind(instance.to_string()).bind(disk.to_string()).execute(tx.conn()).await?;
    Ok(())
}
