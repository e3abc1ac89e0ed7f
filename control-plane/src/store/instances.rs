//! Instances and their disks: rows, writes of many rows, and what scheduler and nodes read.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, DiskId, InstanceId, Labels, NodeId, OperationId, Reason, SnapshotId, Timestamp, VersionId,
    deployment::Runtime,
    disk::DiskState,
    instance::InstanceState,
    node_protocol::{DiskReport, GuestLacks, Wanted},
    operation::Target,
};
use sqlx::any::AnyRow;
use storage_core::units::u64_from;

use super::{
    Filter, StoreError, Tx,
    bulk::{self, Conditions},
    column::{self, Cell, Column as _},
    deployments, nics,
    row::{Row, columns, select, select_one},
};
use crate::domain::{
    deployment::{Tally, Way, Work},
    disk_life,
    instance::{self, Life, Steps, Stop},
    promised::Promised,
};

/// Row of an instance. It is dropped a day after the instance was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    /// Its id.
    pub id: InstanceId,
    /// The project that owns it.
    pub project: String,
    /// The deployment that it is a member of; it never changes.
    pub deployment: DeploymentId,
    /// Its number in the deployment, from 0.
    pub number: u64,
    /// `DEPLOYMENT.N`
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// Its state and what its node is told.
    pub life: Life,
    /// How many virtual processors it has.
    pub cpus: u32,
    /// Memory of the guest, bytes.
    pub memory_bytes: u64,
    /// What runs it on its node.
    pub runtime: Runtime,
    /// The operation that waits for it, if any.
    pub operation: Option<OperationId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last saved, also for a change of its labels.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl InstanceRow {
    /// What its node has promised to it.
    #[must_use]
    pub fn promised(&self) -> Promised {
        Promised::to_one(self.runtime, self.cpus, self.memory_bytes)
    }

    /// How operations and events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "instance".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }
}

/// Row of a disk, with what its node last reported about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRow {
    /// Its id.
    pub id: DiskId,
    /// The project that owns it.
    pub project: String,
    /// The instance that the disk belongs to.
    pub instance: InstanceId,
    /// Its name within the instance. That of the boot disk is `root`.
    pub name: String,
    /// Its place among the disks of the instance. The boot disk has 0.
    pub number: u64,
    /// Its size as the guest sees it, bytes.
    pub size_bytes: u64,
    /// Its newest published version, at first the one that it began with. The next commit must build on it.
    pub version: VersionId,
    /// That version holds what was written until then; `None` while it is the version that the disk began with.
    pub saved_at: Option<Timestamp>,
    /// Path of the raw file on its node, as last reported.
    pub path: Option<String>,
    /// Bytes written since its newest version, as last reported.
    pub unsaved_bytes: u64,
    /// Bytes fetched from the pool for it, as last reported.
    pub fetched_bytes: u64,
    /// Bytes that it takes on its node, as last reported.
    pub local_bytes: u64,
    /// Its size on its node, as last reported; `None` if the node did not tell.
    pub reported_bytes: Option<u64>,
    /// The newest version that its node knows of, as last reported.
    pub reported_version: Option<VersionId>,
    /// The generation of its instance from which its content counts: a restore put it in place then. A copy of an older one is
    /// not this disk any more. 0 if that never happened.
    pub since_generation: u64,
    /// The generation under which the copy on its node is written, as last reported; `None` if the node did not tell.
    pub reported_generation: Option<u64>,
    /// Whether a guest has it or may get it, as last reported; `None` if the node did not tell. Without a path, `false` says
    /// that the node does not have the disk, which is to leave its instance, and does not make it.
    pub in_guest: Option<bool>,
    /// What a guest that runs has yet to get of it, as last reported.
    pub guest_lacks: Option<GuestLacks>,
    /// What hinders the next step for it on its node, in a sentence, as last reported.
    pub said: Option<String>,
    /// Since when it is being detached.
    pub leaving_since: Option<Timestamp>,
    /// The desired revision of its node from which on its guest is not to have it.
    pub leaving_revision: u64,
    /// The snapshot that saves what it holds, while it is being detached.
    pub leaving_snapshot: Option<SnapshotId>,
    /// What its detach waits for, in a sentence.
    pub detail: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl DiskRow {
    /// Whether its newest version has all that its node holds of it, as last reported.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.unsaved_bytes == 0 && self.reported_version == Some(self.version)
    }

    /// A disk of an instance that no node has heard of yet.
    #[must_use]
    pub fn new(
        instance: &InstanceRow,
        name: String,
        number: u64,
        start: (VersionId, u64),
        now: Timestamp,
        seq: i64,
    ) -> Self {
        let (version, size_bytes) = start;
        Self {
            id: DiskId::generate(),
            project: instance.project.clone(),
            instance: instance.id,
            name,
            number,
            size_bytes,
            version,
            saved_at: None,
            path: None,
            unsaved_bytes: 0,
            fetched_bytes: 0,
            local_bytes: 0,
            reported_bytes: None,
            reported_version: None,
            since_generation: 0,
            reported_generation: None,
            in_guest: None,
            guest_lacks: None,
            said: None,
            leaving_since: None,
            leaving_revision: 0,
            leaving_snapshot: None,
            detail: None,
            created_at: now,
            updated_at: now,
            revision: 1,
            seq,
        }
    }

    /// Whether the report says something new.
    #[must_use]
    pub fn differs(&self, report: &DiskReport) -> bool {
        self.path.as_ref() != Some(&report.path)
            || (self.unsaved_bytes, self.fetched_bytes, self.local_bytes)
                != (report.unsaved_bytes, report.fetched_bytes, report.local_bytes)
            || (self.reported_bytes, self.reported_version, self.in_guest)
                != (report.size_bytes, Some(report.version), report.in_guest)
            || (self.guest_lacks, &self.said) != (report.guest_lacks, &report.detail)
            || self.reported_generation != report.generation
    }

    /// Whether the report is of a copy that a restore gave up, or may be.
    #[must_use]
    pub fn is_given_up(&self, report: &DiskReport) -> bool {
        report.generation.unwrap_or(0) < self.since_generation
    }

    /// Whether the copy on its node is known to be this disk in its newest version.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.path.is_some()
            && self.reported_version == Some(self.version)
            && self.reported_generation.unwrap_or(0) >= self.since_generation
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> DiskState {
        disk_life::state(&disk_life::Seen {
            size_bytes: self.size_bytes,
            reported_bytes: self.reported_bytes,
            is_there: self.path.is_some(),
            in_guest: self.in_guest,
            guest_lacks: self.guest_lacks,
            is_leaving: self.leaving_since.is_some(),
        })
    }

    /// As it is after this report.
    #[must_use]
    pub fn told(&self, report: &DiskReport) -> Self {
        Self {
            path: Some(report.path.clone()),
            unsaved_bytes: report.unsaved_bytes,
            fetched_bytes: report.fetched_bytes,
            local_bytes: report.local_bytes,
            reported_bytes: report.size_bytes,
            reported_version: Some(report.version),
            reported_generation: report.generation,
            in_guest: report.in_guest,
            guest_lacks: report.guest_lacks,
            said: report.detail.clone(),
            ..self.clone()
        }
    }
}

columns!(
    "disks", DiskRow: id, project, instance, name, number, size_bytes, version, saved_at, path, unsaved_bytes, fetched_bytes,
    local_bytes, reported_bytes, reported_version, since_generation, reported_generation, in_guest, guest_lacks, said,
    leaving_since, leaving_revision, leaving_snapshot, detail, created_at, updated_at, revision, seq,
);

const INSERT: &str = "-- instances.insert
INSERT INTO instances (id, project, deployment, number, name, labels, state, reason, detail, wanted, boot, generation,
    node, stop_force, stop_timeout_s, evicting, was_ready, known, requested_at, placed_at, disk_at, started_at, ready_at,
    was_started, boots, reboots, last_reason, last_reason_at, conditions, cpus, memory_bytes, runtime, operation, created_at,
    updated_at, deleted_at, revision, seq)";

fn life_cells(life: &Life, now: Timestamp) -> Result<Vec<Cell>, StoreError> {
    Ok(vec![
        life.state.cell()?,
        life.reason.cell()?,
        life.detail.cell()?,
        life.wanted.cell()?,
        life.boot.cell()?,
        life.generation.cell()?,
        life.node.cell()?,
        life.stop.force.cell()?,
        life.stop.timeout_s.cell()?,
        life.evicting.cell()?,
        life.was_ready.cell()?,
        life.known.cell()?,
        life.steps.requested_at.cell()?,
        life.steps.placed_at.cell()?,
        life.steps.disk_at.cell()?,
        life.steps.started_at.cell()?,
        life.steps.ready_at.cell()?,
        life.was_started.cell()?,
        life.boots.cell()?,
        life.reboots.cell()?,
        life.last.as_ref().map(|(reason, _)| reason.clone()).cell()?,
        life.last.as_ref().map(|(_, at)| *at).cell()?,
        life.conditions.cell()?,
        (life.state == InstanceState::Deleted).then_some(now).cell()?,
    ])
}

/// Inserts instances with their disks. If their deployment is not new, the caller says `deployments::members_changed`.
pub async fn insert_many(tx: &mut Tx, instances: &[InstanceRow], disks: &[DiskRow]) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(instances.len());
    for row in instances {
        let mut life = life_cells(&row.life, row.updated_at)?;
        let deleted_at = life.pop().expect("the last cell is deleted_at");
        let mut cells: Vec<Cell> = vec![
            row.id.cell()?,
            row.project.cell()?,
            row.deployment.cell()?,
            row.number.cell()?,
            row.name.cell()?,
            row.labels.cell()?,
        ];
        cells.append(&mut life);
        cells.extend([
            row.cpus.cell()?,
            row.memory_bytes.cell()?,
            row.runtime.cell()?,
            row.operation.cell()?,
            row.created_at.cell()?,
            row.updated_at.cell()?,
            deleted_at,
            row.revision.cell()?,
            row.seq.cell()?,
        ]);
        rows.push(cells);
    }
    bulk::run(tx, INSERT, rows, "").await?;
    bulk::insert(tx, disks).await?;
    instances.iter().for_each(|row| tx.move_promise(None, row.life.node, row.promised()));
    Ok(())
}

const SAVE: &str = "-- instances.save
UPDATE instances SET state = v.column3, reason = v.column4, detail = v.column5, wanted = v.column6, boot = v.column7,
    generation = v.column8, node = v.column9, stop_force = v.column10, stop_timeout_s = v.column11,
    evicting = v.column12, was_ready = v.column13, known = v.column14, requested_at = v.column15,
    placed_at = v.column16, disk_at = v.column17, started_at = v.column18, ready_at = v.column19,
    was_started = v.column20, boots = v.column21, reboots = v.column22, last_reason = v.column23,
    last_reason_at = v.column24, conditions = v.column25, deleted_at = v.column26, operation = v.column27,
    updated_at = v.column28,
    revision = revision + 1
FROM (";

/// Saves lives and operations; each row comes with the node that it was on. The cards of those that are deleted are freed. A [`StoreError::Conflict`] for all if somebody
/// else saved one of them since it was read.
pub async fn save_many<'a>(
    tx: &mut Tx,
    instances: impl IntoIterator<Item = (&'a InstanceRow, Option<NodeId>)>,
) -> Result<(), StoreError> {
    let now = tx.now();
    let mut moves = Vec::new();
    let (mut rows, mut first, mut of, mut deleted) = (Vec::new(), None, BTreeSet::new(), Vec::new());
    for (row, before) in instances {
        moves.push((before, row.life.node, row.promised()));
        deleted.extend((row.life.state == InstanceState::Deleted).then_some(row.id));
        first.get_or_insert(row.id);
        of.insert(row.deployment);
        let mut cells: Vec<Cell> = vec![row.id.to_string().into(), row.revision.into()];
        cells.append(&mut life_cells(&row.life, now)?);
        cells.push(row.operation.map(|id| id.to_string()).into());
        cells.push(now.micros().into());
        rows.push(cells);
    }
    let wanted = u64_from(rows.len());
    let tail = ") AS v WHERE instances.id = v.column1 AND instances.revision = v.column2";
    let saved = bulk::run(tx, SAVE, rows, tail).await?;
    if saved == wanted {
        moves.into_iter().for_each(|(from, to, promised)| tx.move_promise(from, to, promised));
        nics::free(tx, &deleted).await?;
        deployments::members_changed(tx, &of).await
    } else {
        let id = first.expect("no rows are saved as a whole").to_string();
        Err(StoreError::Conflict { table: "instances", id })
    }
}

const SAVE_DISKS: &str = "-- disks.reported
UPDATE disks SET path = v.column2, unsaved_bytes = v.column3, fetched_bytes = v.column4, local_bytes = v.column5,
    reported_bytes = v.column6, reported_version = v.column7, in_guest = v.column8, guest_lacks = v.column9,
    said = v.column10, reported_generation = v.column11 FROM (";

/// Stores what a node said about disks. It is no change by anybody, so the revision stays.
pub async fn save_reported(tx: &mut Tx, reports: &[&DiskReport]) -> Result<(), StoreError> {
    let rows = reports
        .iter()
        .map(|report| {
            Ok(vec![
                report.disk.to_string().into(),
                report.path.as_str().into(),
                column::int(report.unsaved_bytes).into(),
                column::int(report.fetched_bytes).into(),
                column::int(report.local_bytes).into(),
                Cell::Int(column::opt_int(report.size_bytes)),
                report.version.to_string().into(),
                Cell::Int(report.in_guest.map(i64::from)),
                report.guest_lacks.cell()?,
                report.detail.cell()?,
                Cell::Int(column::opt_int(report.generation)),
            ])
        })
        .collect::<Result<_, StoreError>>()?;
    bulk::run(tx, SAVE_DISKS, rows, ") AS v WHERE disks.id = v.column1").await?;
    deployments::disks_changed(tx, &reports.iter().map(|report| report.disk).collect::<Vec<_>>()).await
}

const ANEW: &str = "-- disks.anew
UPDATE disks SET path = NULL, unsaved_bytes = 0, fetched_bytes = 0, local_bytes = 0, reported_bytes = NULL,
    reported_version = NULL, reported_generation = NULL, in_guest = NULL, guest_lacks = NULL, said = NULL,
    leaving_revision = 0, revision = revision + 1
WHERE instance";

const NOT_LEFT: &str = "-- left_disks.anew
DELETE FROM left_disks WHERE instance";

/// Forgets what a lost node said of the disks of these instances: they begin anew from their newest versions. Nobody waits
/// for what has left them and is still on that node.
pub async fn disks_begin_anew(tx: &mut Tx, ids: &[InstanceId]) -> Result<(), StoreError> {
    bulk::select_in(tx, ANEW, ids, "").await?;
    bulk::select_in(tx, NOT_LEFT, ids, "").await.map(|_| ())
}

const LABELS: &str = "-- instances.labels
UPDATE instances SET labels = $2, updated_at = $3, revision = revision + 1 WHERE id = $1 AND revision = $4";

/// Replaces all labels. A [`StoreError::Conflict`] if somebody else saved the instance since it was read.
pub async fn save_labels(tx: &mut Tx, row: &InstanceRow, labels: &Labels) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(LABELS)
        .bind(row.id.to_string())
        .bind(column::json_text(labels)?)
        .bind(now)
        .bind(row.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "instances", row.id)
}

/// The instance with this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: InstanceId) -> Result<Option<InstanceRow>, StoreError> {
    select_one(tx, "instances.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The instance with this name, unless it is deleted or being deleted.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<InstanceRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state NOT IN ('deleting', 'deleted')";
    select_one(tx, "instances.by_name", rest, [project.into(), name.into()]).await
}

/// The newest instance that had this name and is being deleted: for a DELETE that is repeated by name.
pub async fn going_by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<InstanceRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state = 'deleting' ORDER BY seq DESC LIMIT 1";
    select_one(tx, "instances.going_by_name", rest, [project.into(), name.into()]).await
}

/// The instances with these ids that exist.
pub async fn load_many(tx: &mut Tx, ids: &[InstanceId]) -> Result<Vec<InstanceRow>, StoreError> {
    bulk::load_many(tx, "instances.load_many", ids).await
}

/// The members of a deployment that are not deleted, by number.
pub async fn of_deployment(tx: &mut Tx, id: DeploymentId) -> Result<Vec<InstanceRow>, StoreError> {
    let rest = "WHERE deployment = $1 AND state <> 'deleted' ORDER BY number";
    select(tx, "instances.of_deployment", rest, [id.to_string().into()]).await
}

/// The instances that an operation waits for, in list order.
pub async fn of_operation(tx: &mut Tx, id: OperationId) -> Result<Vec<InstanceRow>, StoreError> {
    select(tx, "instances.of_operation", "WHERE operation = $1 ORDER BY seq", [id.to_string().into()]).await
}

/// The instances that are on a node, also those that it is told to delete.
pub async fn on_node(tx: &mut Tx, id: NodeId) -> Result<Vec<InstanceRow>, StoreError> {
    select(tx, "instances.on_node", "WHERE node = $1 ORDER BY seq", [id.to_string().into()]).await
}

/// The instances that wait for a node, oldest first.
pub async fn homeless(tx: &mut Tx) -> Result<Vec<InstanceRow>, StoreError> {
    select(tx, "instances.homeless", "WHERE state = 'pending' AND node IS NULL ORDER BY seq", []).await
}

/// The instances on silent nodes that are not marked as unknown yet. Those that are off stay so where the agent ended in
/// order: it said so.
pub async fn to_silence(tx: &mut Tx) -> Result<Vec<InstanceRow>, StoreError> {
    let rest = "WHERE node IN (SELECT n.id FROM nodes n WHERE n.state = 'silent')
    AND state IN ('starting', 'running', 'paused', 'stopping', 'stopped')
    AND NOT (state = 'stopped' AND node IN (SELECT s.id FROM nodes s WHERE s.stopped_at IS NOT NULL)) ORDER BY seq";
    select(tx, "instances.to_silence", rest, []).await
}

/// The unknown instances whose node is heard from again.
pub async fn to_hear(tx: &mut Tx) -> Result<Vec<InstanceRow>, StoreError> {
    let rest = "WHERE state = 'unknown' AND node IN (SELECT n.id FROM nodes n WHERE n.state = 'ready') ORDER BY seq";
    select(tx, "instances.to_hear", rest, []).await
}

/// Instances after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<InstanceRow>, StoreError> {
    let mut conditions = Conditions::of_list(filter, after)?;
    conditions.one_of("state", &filter.states);
    conditions.one_of("deployment", &filter.deployments);
    conditions.one_of("node", &filter.nodes);
    conditions.one_in("id", "SELECT instance FROM nics WHERE network", &filter.networks);
    conditions.fetch(tx, "instances.list", limit).await
}

impl Row for InstanceRow {
    const SELECT: &'static str = "SELECT id, project, deployment, number, name, labels, state, reason, detail, wanted,
    boot, generation, node, stop_force, stop_timeout_s, evicting, was_ready, known, requested_at, placed_at, disk_at,
    started_at, ready_at, was_started, boots, reboots, last_reason, last_reason_at, conditions, cpus, memory_bytes, runtime,
    operation, created_at, updated_at, revision, seq FROM instances";

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: column::read(row, "id")?,
            project: column::read(row, "project")?,
            deployment: column::read(row, "deployment")?,
            number: column::read(row, "number")?,
            name: column::read(row, "name")?,
            labels: column::read(row, "labels")?,
            life: Life {
                state: column::read(row, "state")?,
                reason: column::read(row, "reason")?,
                detail: column::read(row, "detail")?,
                wanted: column::read(row, "wanted")?,
                boot: column::read(row, "boot")?,
                generation: column::read(row, "generation")?,
                node: column::read(row, "node")?,
                stop: Stop { force: column::read(row, "stop_force")?, timeout_s: column::read(row, "stop_timeout_s")? },
                evicting: column::read(row, "evicting")?,
                was_ready: column::read(row, "was_ready")?,
                was_started: column::read(row, "was_started")?,
                boots: column::read(row, "boots")?,
                reboots: column::read(row, "reboots")?,
                last: column::read::<Option<Reason>>(row, "last_reason")?
                    .zip(column::read::<Option<Timestamp>>(row, "last_reason_at")?),
                known: column::read(row, "known")?,
                conditions: column::read(row, "conditions")?,
                steps: Steps {
                    requested_at: column::read(row, "requested_at")?,
                    placed_at: column::read(row, "placed_at")?,
                    disk_at: column::read(row, "disk_at")?,
                    started_at: column::read(row, "started_at")?,
                    ready_at: column::read(row, "ready_at")?,
                },
            },
            cpus: column::read(row, "cpus")?,
            memory_bytes: column::read(row, "memory_bytes")?,
            runtime: column::read(row, "runtime")?,
            operation: column::read(row, "operation")?,
            created_at: column::read(row, "created_at")?,
            updated_at: column::read(row, "updated_at")?,
            revision: column::read(row, "revision")?,
            seq: column::read(row, "seq")?,
        })
    }
}

/// The disks of these instances, by instance, the boot disk first.
pub async fn disks_of(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Vec<DiskRow>>, StoreError> {
    let mut disks: BTreeMap<InstanceId, Vec<DiskRow>> = BTreeMap::new();
    let head = format!("-- disks.of\n{} WHERE instance", DiskRow::SELECT);
    for row in bulk::select_in(tx, &head, ids, " ORDER BY number, name").await? {
        let disk = DiskRow::from_row(&row)?;
        disks.entry(disk.instance).or_default().push(disk);
    }
    Ok(disks)
}

const NAMES: &str = "-- instances.names
SELECT id, name FROM instances WHERE id";

/// The names of these instances, also of deleted ones.
pub async fn names(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, String>, StoreError> {
    let rows = bulk::select_in(tx, NAMES, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::read(row, "name")?))).collect()
}

// I6: until the node reports another version, it reads the one before: the base of the commit, which it has.
const HEAD: &str = "-- disks.head
UPDATE disks SET version = v.column3, reported_version = version, saved_at = v.column4, updated_at = v.column6,
    unsaved_bytes = CASE WHEN unsaved_bytes > v.column5 THEN unsaved_bytes - v.column5 ELSE 0 END,
    revision = revision + 1
FROM (";

/// A disk that gets a new newest version, its head.
#[derive(Clone, Copy, Debug)]
pub struct NewHead {
    /// The disk whose head moves.
    pub disk: DiskId,
    /// The head that it must have now.
    pub base: VersionId,
    /// The head that it gets.
    pub version: VersionId,
    /// Bytes written between the two.
    pub dirty_bytes: u64,
}

/// Moves heads that hold all that was written until now. A [`StoreError::Conflict`] for all if one disk has another head than
/// it must have.
pub async fn advance_heads(tx: &mut Tx, heads: &[NewHead]) -> Result<(), StoreError> {
    let now = tx.now();
    advance_heads_as_of(tx, heads, now).await
}

/// As [`advance_heads`], for heads that hold what was written until `saved_at`.
pub async fn advance_heads_as_of(tx: &mut Tx, heads: &[NewHead], saved_at: Timestamp) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let rows: Vec<Vec<Cell>> = heads
        .iter()
        .map(|head| {
            vec![
                head.disk.to_string().into(),
                head.base.to_string().into(),
                head.version.to_string().into(),
                saved_at.micros().into(),
                column::int(head.dirty_bytes).into(),
                now.into(),
            ]
        })
        .collect();
    let wanted = u64_from(rows.len());
    let tail = ") AS v WHERE disks.id = v.column1 AND disks.version = v.column2";
    if bulk::run(tx, HEAD, rows, tail).await? == wanted {
        Ok(())
    } else {
        let id = heads.first().expect("no heads are moved as a whole").disk.to_string();
        Err(StoreError::Conflict { table: "disks", id })
    }
}

const MEMBERS_BY_NODE: &str = "-- instances.members_by_node
SELECT node, CAST(COUNT(*) AS BIGINT) AS members FROM instances
WHERE deployment = $1 AND node IS NOT NULL GROUP BY node";

/// How many members of the deployment are on each node.
pub async fn members_by_node(tx: &mut Tx, id: DeploymentId) -> Result<BTreeMap<NodeId, u64>, StoreError> {
    let rows = sqlx::query(MEMBERS_BY_NODE).bind(id.to_string()).fetch_all(tx.conn()).await?;
    rows.iter().map(|row| Ok((column::read(row, "node")?, column::read(row, "members")?))).collect()
}

const TALLY: &str = "-- instances.tally
SELECT deployment, state, CAST(COUNT(*) AS BIGINT) AS members, CAST(COUNT(ready_at) AS BIGINT) AS ready,
    CAST(COUNT(CASE WHEN reason = 'not_ready' AND ready_at IS NULL THEN 1 END) AS BIGINT) AS not_ready
FROM instances WHERE deployment";

/// How many members of each deployment are in which state. Deployments without members are absent.
pub async fn tallies(tx: &mut Tx, ids: &[DeploymentId]) -> Result<BTreeMap<DeploymentId, Tally>, StoreError> {
    let mut tallies: BTreeMap<DeploymentId, Tally> = BTreeMap::new();
    for row in bulk::select_in(tx, TALLY, ids, " AND state <> 'deleted' GROUP BY deployment, state").await? {
        let state: String = column::read(&row, "state")?;
        let ready = if state == "running" { column::read(&row, "ready")? } else { 0 };
        let tally = tallies.entry(column::read(&row, "deployment")?).or_default();
        tally.add(&state, column::read(&row, "members")?, ready);
        if state == "running" {
            tally.not_ready += column::read::<u64>(&row, "not_ready")?;
        }
    }
    Ok(tallies)
}

/// How many instances are in each state, in one project or in all.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "instances", project).await
}

const WORK: &str = "-- instances.work
SELECT operation, state, wanted, CAST(CASE WHEN ready_at IS NULL THEN 0 ELSE 1 END AS BIGINT) AS ready,
    CAST(CASE WHEN reason = 'not_ready' THEN 1 ELSE 0 END AS BIGINT) AS gave_up,
    CAST(COUNT(*) AS BIGINT) AS members
FROM instances WHERE operation";

/// How far the members of each operation are.
pub async fn work(tx: &mut Tx, ids: &[OperationId]) -> Result<BTreeMap<OperationId, Work>, StoreError> {
    let mut work: BTreeMap<OperationId, Work> = BTreeMap::new();
    let tail = " GROUP BY operation, state, wanted, CASE WHEN ready_at IS NULL THEN 0 ELSE 1 END,
    CASE WHEN reason = 'not_ready' THEN 1 ELSE 0 END";
    for row in bulk::select_in(tx, WORK, ids, tail).await? {
        let (state, wanted): (InstanceState, Wanted) = (column::read(&row, "state")?, column::read(&row, "wanted")?);
        let step = instance::step(state, wanted, column::read(&row, "ready")?, column::read(&row, "gave_up")?);
        work.entry(column::read(&row, "operation")?).or_default().add(step, column::read(&row, "members")?);
    }
    Ok(work)
}

/// The first members that an operation still waits for.
pub async fn waiting(tx: &mut Tx, id: OperationId, limit: i64) -> Result<Vec<InstanceRow>, StoreError> {
    let rest = format!(
        "WHERE operation = $1 AND (state IN ('pending', 'starting', 'paused', 'stopping', 'deleting', 'unknown')
    OR (state = 'running' AND ready_at IS NULL AND (reason IS NULL OR reason <> 'not_ready'))) ORDER BY seq LIMIT {limit}"
    );
    select(tx, "instances.waiting", &rest, [id.to_string().into()]).await
}

const RELEASE: &str = "-- instances.release
UPDATE instances SET operation = NULL WHERE operation = $1";

/// Notes that the operation has ended and no longer waits for its members. Callers do not see that, so the revision
/// stays.
pub async fn release(tx: &mut Tx, id: OperationId) -> Result<(), StoreError> {
    sqlx::query(RELEASE).bind(id.to_string()).execute(tx.conn()).await?;
    Ok(())
}

const WAYS: &str = "-- instances.ways
SELECT id, name, requested_at, placed_at, started_at, ready_at FROM instances
WHERE deployment = $1 AND state = 'running' AND ready_at IS NOT NULL AND requested_at IS NOT NULL";

/// When each ready member of a deployment took which step.
pub async fn ways(tx: &mut Tx, id: DeploymentId) -> Result<Vec<Way>, StoreError> {
    let rows = sqlx::query(WAYS).bind(id.to_string()).fetch_all(tx.conn()).await?;
    rows.iter()
        .map(|row| {
            Ok(Way {
                instance: column::read(row, "id")?,
                name: column::read(row, "name")?,
                requested_at: column::read(row, "requested_at")?,
                placed_at: column::read(row, "placed_at")?,
                started_at: column::read(row, "started_at")?,
                ready_at: column::read(row, "ready_at")?,
            })
        })
        .collect()
}

const BYTES: &str = "-- disks.bytes
SELECT CAST(COALESCE(SUM(d.fetched_bytes), 0) AS BIGINT) AS fetched, CAST(COALESCE(SUM(d.local_bytes), 0) AS BIGINT) AS local
FROM disks d JOIN instances i ON i.id = d.instance WHERE i.deployment = $1 AND i.state <> 'deleted'";

/// Bytes fetched for the disks of a deployment, and bytes that they take on their nodes.
pub async fn bytes(tx: &mut Tx, id: DeploymentId) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(BYTES).bind(id.to_string()).fetch_one(tx.conn()).await?;
    Ok((column::read(&row, "fetched")?, column::read(&row, "local")?))
}

const FORGET_DISKS: &str = "-- disks.forget
DELETE FROM disks WHERE instance IN (SELECT id FROM instances WHERE deleted_at < $1)";
const FORGET_LEFT: &str = "-- left_disks.forget_with
DELETE FROM left_disks WHERE instance IN (SELECT id FROM instances WHERE deleted_at < $1)";
const FORGET: &str = "-- instances.forget
DELETE FROM instances WHERE deleted_at < $1";

/// Drops instances that were deleted before that time, with their disks. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    sqlx::query(FORGET_DISKS).bind(before.micros()).execute(tx.conn()).await?;
    sqlx::query(FORGET_LEFT).bind(before.micros()).execute(tx.conn()).await?;
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use std::sync::Arc;

    use sqlx::Row as _;

    use super::*;
    use crate::{
        clock::SystemClock,
        store::{DatabaseUrl, Store},
        wake::Wakes,
    };

    /// How SQLite would run the statement.
    pub(in crate::store) async fn plan(sql: String) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let url = DatabaseUrl::Sqlite(dir.path().join("test.db"));
        let store = Store::open(&url, Arc::new(SystemClock), Wakes::default()).await.expect("a database");
        let read = store.read("test", async |tx| {
            let rows =
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(tx.conn()).await?;
            let steps: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get("detail")).collect();
            Ok::<_, StoreError>(steps?.join("; "))
        });
        read.await.expect("a plan")
    }

    #[tokio::test]
    async fn members_are_counted_from_indexes_alone() {
        let tally = plan(format!("{TALLY} IN ('a') AND state <> 'deleted' GROUP BY deployment, state")).await;
        assert!(tally.contains("USING COVERING INDEX instances_counted"), "{tally}");
        let by_state =
            "SELECT state, COUNT(*) FROM instances WHERE state <> 'deleted' AND project = 'a' GROUP BY state";
        let by_state = plan(by_state.to_owned()).await;
        assert!(by_state.contains("USING COVERING INDEX instances_by_state"), "{by_state}");
        let deployments = "SELECT state, all_stopped, COUNT(*) FROM deployments
            WHERE state <> 'deleted' AND (CAST('a' AS TEXT) IS NULL OR project = 'a') GROUP BY state, all_stopped";
        let deployments = plan(deployments.to_owned()).await;
        assert!(deployments.contains("USING COVERING INDEX deployments_by_state"), "{deployments}");
        let running = "SELECT * FROM operations
            WHERE finished_at IS NULL AND (CAST('a' AS TEXT) IS NULL OR project = 'a') ORDER BY seq DESC LIMIT 20";
        let running = plan(running.to_owned()).await;
        assert!(running.contains("USING INDEX operations_by_end (finished_at=?)"), "{running}");
    }

    #[tokio::test]
    async fn a_page_of_a_list_is_found_by_its_place() {
        let select = InstanceRow::SELECT;
        for (condition, index) in [
            ("project = 'a' AND state <> 'deleted'", "instances_project (project=? AND seq>?)"),
            ("deployment IN ('a') AND state <> 'deleted'", "instances_listed (deployment=? AND seq>?)"),
            (
                "project = 'a' AND state <> 'deleted' AND deployment IN ('a')",
                "instances_listed (deployment=? AND seq>?)",
            ),
        ] {
            let plan = plan(format!("{select} WHERE seq > 5 AND {condition} ORDER BY seq LIMIT 101")).await;
            assert!(plan.contains(index), "{condition}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{condition}: {plan}");
        }
    }
}
