//! Deployments: rows and SQL.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Filter, StoreError, Tx,
    bulk::{self, Conditions},
    column, nics,
    row::{columns, select, select_one},
};
use crate::domain::{cards::CardPlan, disk_plan::DiskPlan};
use muster_api::{
    DeploymentId, DiskId, InstanceId, Labels, Timestamp, VersionId,
    deployment::{DeploymentSource, DeploymentState, OnHostStart, OnReadyTimeout, Placement, Ready, Runtime, Timing},
    firmware::Firmware,
    operation::Target,
};

/// Row of a deployment. Its members are rows of their own.
#[derive(Clone, Debug)]
pub struct DeploymentRow {
    /// Its id.
    pub id: DeploymentId,
    /// The project that owns it.
    pub project: String,
    /// Name, unique among the project's that are not deleted.
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// The state that its members had when they were last counted.
    pub state: DeploymentState,
    /// Whether all members were stopped then. The state is `ready` if so.
    pub all_stopped: bool,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// What the disks started as; references are ids.
    pub source: DeploymentSource,
    /// Name of the image or snapshot at that time.
    pub source_name: Option<String>,
    /// The version that all members start from; `None` for a fork.
    pub version: Option<VersionId>,
    /// How many members are wanted.
    pub count: u64,
    /// Fewest members with which its creation counts as a success.
    pub min_count: u64,
    /// Number of the next member.
    pub next_number: u64,
    /// Virtual processors of each member.
    pub cpus: u32,
    /// Memory of each member, bytes.
    pub memory_bytes: u64,
    /// Size of the boot disk of a new member, bytes.
    pub disk_bytes: u64,
    /// The disks that its members get beside the boot disk.
    pub disks: Vec<DiskPlan>,
    /// What runs the members: libvirt, or nothing, so that they are only disks.
    pub runtime: Runtime,
    /// When a member counts as ready.
    pub ready: Ready,
    /// Where members may be placed; nodes are ids.
    pub placement: Placement,
    /// The cards that its members get.
    pub nics: Vec<CardPlan>,
    /// What starts the boot loaders of its members.
    pub firmware: Firmware,
    /// Whether its members have a TPM.
    pub tpm: bool,
    /// How long its operations may take, seconds.
    pub deadline_s: u64,
    /// What becomes of a member that runs and is not ready in time.
    pub on_ready_timeout: OnReadyTimeout,
    /// What becomes of a member that ran when its host went down.
    pub on_host_start: OnHostStart,
    /// How long its members took, as of the end of its last operation.
    pub timing: Timing,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last saved, or when a count of its members changed its state.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Raised by every change of its members and of their disks.
    pub members_revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl DeploymentRow {
    /// The state as it is shown: `stopped` has a column of its own.
    #[must_use]
    pub fn shown_state(&self) -> DeploymentState {
        if self.state == DeploymentState::Ready && self.all_stopped { DeploymentState::Stopped } else { self.state }
    }

    /// The same row with members that add up to this state.
    #[must_use]
    pub fn counted_as(self, shown: DeploymentState) -> Self {
        let all_stopped = shown == DeploymentState::Stopped;
        let state = if all_stopped { DeploymentState::Ready } else { shown };
        Self { state, all_stopped, ..self }
    }

    /// How operations and events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "deployment".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }

    /// When an operation that begins at `begun` gives up.
    #[must_use]
    pub fn deadline_after(&self, begun: Timestamp) -> Timestamp {
        // The order's longest deadline is a week.
        begun.plus_ms((self.deadline_s * 1000).cast_signed())
    }
}

columns!(
    "deployments", DeploymentRow: id, project, name, labels, state, all_stopped, reason, source, source_name, version, count, min_count,
    next_number, cpus, memory_bytes, disk_bytes, disks, runtime, ready, placement, nics, firmware, tpm, deadline_s, on_ready_timeout,
    on_host_start, timing, created_at, updated_at, revision, members_revision, seq,
);

/// Inserts a deployment. The deployments loop will count its members.
pub async fn insert(tx: &mut Tx, row: &DeploymentRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await?;
    let groups = row.nics.iter().flat_map(|plan| &plan.groups).map(ToString::to_string);
    let used = row.nics.iter().map(|plan| plan.network.to_string()).chain(groups).collect();
    nics::note_uses(tx, row.id, used).await
}

const HAS_NUMBER: &str = "-- deployments.has_number
SELECT COUNT(*) AS n FROM instances WHERE deployment = $1 AND number = $2";

/// Whether a member of the deployment has this number, or had it lately.
pub async fn has_number(tx: &mut Tx, id: DeploymentId, number: u64) -> Result<bool, StoreError> {
    let query = sqlx::query(HAS_NUMBER).bind(id.to_string()).bind(column::int(number));
    Ok(column::read::<u64>(&query.fetch_one(tx.conn()).await?, "n")? > 0)
}

const SAVE: &str = "-- deployments.save
UPDATE deployments SET labels = $2, state = $3, reason = $4, count = $5, min_count = $6, next_number = $7, timing = $8,
    updated_at = $9, deleted_at = $10, dirty = 1, revision = revision + 1
WHERE id = $1 AND revision = $11";

/// Saves the columns that may change. A [`StoreError::Conflict`] if somebody else saved it since it was read. The
/// deployments loop will count its members again.
pub async fn save(tx: &mut Tx, row: &DeploymentRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE)
        .bind(row.id.to_string())
        .bind(column::json_text(&row.labels)?)
        .bind(column::word_text(row.state)?)
        .bind(row.reason.as_deref())
        .bind(column::int(row.count))
        .bind(column::int(row.min_count))
        .bind(column::int(row.next_number))
        .bind(column::json_text(&row.timing)?)
        .bind(now)
        .bind((row.state == DeploymentState::Deleted).then_some(now))
        .bind(row.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "deployments", row.id)
}

const SAVE_LIMITS: &str = "-- deployments.save_limits
UPDATE deployments SET ready = $2, deadline_s = $3, on_ready_timeout = $4, updated_at = $5, dirty = 1,
    revision = revision + 1
WHERE id = $1 AND revision = $6";

/// Saves how long members and operations may take. A [`StoreError::Conflict`] if somebody else saved the row since it was
/// read.
pub async fn save_limits(tx: &mut Tx, row: &DeploymentRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE_LIMITS)
        .bind(row.id.to_string())
        .bind(column::json_text(&row.ready)?)
        .bind(column::int(row.deadline_s))
        .bind(column::word_text(row.on_ready_timeout)?)
        .bind(now)
        .bind(row.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "deployments", row.id)
}

/// The deployment with this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: DeploymentId) -> Result<Option<DeploymentRow>, StoreError> {
    select_one(tx, "deployments.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The deployment that has this name. Those that are deleted or being deleted have none.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<DeploymentRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state NOT IN ('deleting', 'deleted')";
    select_one(tx, "deployments.by_name", rest, [project.into(), name.into()]).await
}

/// The newest deployment that had this name and is being deleted: for a DELETE that is repeated by name.
pub async fn going_by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<DeploymentRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state = 'deleting' ORDER BY seq DESC LIMIT 1";
    select_one(tx, "deployments.going_by_name", rest, [project.into(), name.into()]).await
}

/// The deployments with these ids that exist.
pub async fn load_many(tx: &mut Tx, ids: &[DeploymentId]) -> Result<Vec<DeploymentRow>, StoreError> {
    bulk::load_many(tx, "deployments.load_many", ids).await
}

const TOLD: &str = "-- deployments.told
SELECT id, name, nics FROM deployments WHERE id";

/// Name and cards of the deployments with these ids that exist: what members tell of them.
pub async fn told(
    tx: &mut Tx,
    ids: &[DeploymentId],
) -> Result<BTreeMap<DeploymentId, (String, Vec<CardPlan>)>, StoreError> {
    let rows = bulk::select_in(tx, TOLD, ids, "").await?;
    let told = |row| Ok((column::read(row, "id")?, (column::read(row, "name")?, column::read(row, "nics")?)));
    rows.iter().map(told).collect()
}

const FIRMWARE: &str = "-- deployments.firmware
SELECT i.id, d.firmware FROM instances i JOIN deployments d ON d.id = i.deployment WHERE i.id";

/// What starts the boot loaders of these instances.
pub async fn firmware_of(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Firmware>, StoreError> {
    let rows = bulk::select_in(tx, FIRMWARE, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::read(row, "firmware")?))).collect()
}

/// Deployments of which a member changed since they were last counted.
pub async fn dirty(tx: &mut Tx) -> Result<Vec<DeploymentRow>, StoreError> {
    select(tx, "deployments.dirty", "WHERE dirty = 1 ORDER BY seq", []).await
}

const MEMBERS_CHANGED: &str = "-- deployments.members_changed
UPDATE deployments SET dirty = 1, members_revision = members_revision + 1 WHERE id";

/// Notes that members of these deployments changed: the deployments loop counts them again, and what was counted before
/// does not hold any more. Whoever writes members calls it.
pub async fn members_changed(tx: &mut Tx, ids: &BTreeSet<DeploymentId>) -> Result<(), StoreError> {
    bulk::select_in(tx, MEMBERS_CHANGED, &ids.iter().collect::<Vec<_>>(), "").await.map(|_| ())
}

const DISKS_CHANGED: &str = "-- deployments.disks_changed
UPDATE deployments SET members_revision = members_revision + 1
WHERE id IN (SELECT i.deployment FROM instances i JOIN disks d ON d.instance = i.id WHERE d.id";

/// Notes that the bytes of these disks changed. The states of members are as they were.
pub(super) async fn disks_changed(tx: &mut Tx, ids: &[DiskId]) -> Result<(), StoreError> {
    bulk::select_in(tx, DISKS_CHANGED, ids, ")").await.map(|_| ())
}

const COUNTED: &str = "-- deployments.counted
UPDATE deployments SET state = $2, all_stopped = $3, timing = $4, dirty = 0, deleted_at = $5,
    updated_at = CASE WHEN $7 = 0 THEN updated_at ELSE $6 END, revision = revision + $7 WHERE id = $1";

/// Saves what the members were counted to in this transaction. The revision is raised only by a new state.
pub async fn counted(
    tx: &mut Tx,
    row: &DeploymentRow,
    shown: DeploymentState,
    timing: &Timing,
) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let next = row.clone().counted_as(shown);
    sqlx::query(COUNTED)
        .bind(row.id.to_string())
        .bind(column::word_text(next.state)?)
        .bind(i64::from(next.all_stopped))
        .bind(column::json_text(timing)?)
        .bind((shown == DeploymentState::Deleted).then_some(now))
        .bind(now)
        .bind(i64::from(row.shown_state() != shown))
        .execute(tx.conn())
        .await?;
    if shown == DeploymentState::Deleted { nics::forget_uses(tx, row.id).await } else { Ok(()) }
}

/// Deployments after the place `after`, oldest first. They are not filtered by state, which follows from their members.
pub async fn list(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<DeploymentRow>, StoreError> {
    let mut conditions = Conditions::of_list(filter, after)?;
    conditions.one_of("id", &filter.deployments);
    conditions.fetch(tx, "deployments.list", limit).await
}

const BY_STATE: &str = "-- deployments.by_state
SELECT state, all_stopped, CAST(COUNT(*) AS BIGINT) AS n FROM deployments
WHERE state <> 'deleted' AND (CAST($1 AS TEXT) IS NULL OR project = $1) GROUP BY state, all_stopped";

/// How many deployments are in each state, as it is shown, in one project or in all.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut counts = BTreeMap::new();
    for row in sqlx::query(BY_STATE).bind(project).fetch_all(tx.conn()).await? {
        let state: String = column::read(&row, "state")?;
        let is_stopped = state == "ready" && column::read(&row, "all_stopped")?;
        let shown = if is_stopped { "stopped".to_owned() } else { state };
        *counts.entry(shown).or_default() += column::read::<u64>(&row, "n")?;
    }
    Ok(counts)
}

const FORGET: &str = "-- deployments.forget
DELETE FROM deployments WHERE deleted_at < $1
    AND id NOT IN (SELECT i.deployment FROM instances i WHERE i.deployment = deployments.id)";

/// Drops deployments that were deleted before that time and whose instances are dropped. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}
