//! Operations: the record of slow work. At most one runs on a target at a time; a unique index makes sure of it.
//!
//! ```text
//!  create ──► pending ──progress──► running ──finish──► succeeded | failed | cancelled   (kept 30 days)
//!                 └──────request_cancel──► cancelling ──finish──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, OperationId, Problem, Timestamp,
    operation::{Operation, OperationState, Progress, Target, WaitingOn},
};
use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::{
    StoreError, Tx,
    bulk::{self, Conditions},
    column,
    events::{self, NewEvent},
    row::{Row, select, select_one},
};

/// Days a finished operation is kept.
pub const KEPT_DAYS: i64 = 30;
/// Most entries of `waiting_on`; [`progress`] leaves the others out.
pub const WAITING_MAX: usize = 20;

/// Who asked for an operation: for `requested_by` and the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A token's name, `node:NAME`, or `muster`.
    pub actor: String,
    /// Id of the request that began it; empty if the controller did.
    pub request_id: String,
}

impl Origin {
    /// Work that the controller begins by itself.
    #[must_use]
    pub fn muster() -> Self {
        Self { actor: "muster".to_owned(), request_id: String::new() }
    }
}

/// An operation to begin.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// Project that owns the target, and with it the operation.
    pub project: String,
    /// `deployment.create`, …
    pub kind: &'static str,
    /// The thing that it works on.
    pub target: Target,
    /// Its first step, a word.
    pub phase: &'static str,
    /// How much there is to do.
    pub progress: Progress,
    /// When it is given up (I10).
    pub deadline: Timestamp,
}

/// The progress at the beginning of an operation that has `total` things of this kind to do.
#[must_use]
pub fn to_do(total: u64, unit: &str) -> Progress {
    Progress { total, unit: unit.to_owned(), ..Progress::default() }
}

/// How an operation ended. [`finish`] stores it once and for all.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It did what was asked. The value is its result.
    Succeeded(Option<Value>),
    /// It could not do it.
    Failed(Problem),
    /// It was stopped on request. The value is what it did before.
    Cancelled(Option<Value>),
}

const INSERT: &str = "-- operations.insert
INSERT INTO operations (id, project, kind, target_kind, target_id, target_name, state, phase, done, total, failed,
    unit, deadline, requested_by, request_id, created_at, updated_at, seq)
VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16)";

/// Begins an operation. The caller has made sure with [`running_on`] that none runs on the target, otherwise this is a
/// unique violation. `begin_operation` in `app/operations.rs` does both.
pub async fn create(tx: &mut Tx, origin: &Origin, new: NewOperation) -> Result<Operation, StoreError> {
    let id = OperationId::generate();
    let (seq, now) = (tx.next_seq().await?, tx.now());
    sqlx::query(INSERT)
        .bind(id.to_string())
        .bind(&new.project)
        .bind(new.kind)
        .bind(&new.target.kind)
        .bind(&new.target.id)
        .bind(&new.target.name)
        .bind(new.phase)
        .bind(column::int(new.progress.done))
        .bind(column::int(new.progress.total))
        .bind(column::int(new.progress.failed))
        .bind(&new.progress.unit)
        .bind(new.deadline.micros())
        .bind(&origin.actor)
        .bind(&origin.request_id)
        .bind(now.micros())
        .bind(seq)
        .execute(tx.conn())
        .await?;
    let operation = Operation {
        id,
        project: new.project,
        kind: new.kind.to_owned(),
        target: new.target,
        state: OperationState::Pending,
        phase: new.phase.to_owned(),
        progress: new.progress,
        waiting_on: Vec::new(),
        deadline: Some(new.deadline),
        error: None,
        result: None,
        requested_by: origin.actor.clone(),
        request_id: origin.request_id.clone(),
        created_at: now,
        updated_at: now,
        started_at: None,
        finished_at: None,
    };
    tell(tx, &operation, &origin.actor).await?;
    Ok(operation)
}

/// Appends the event that tells the state of an operation.
async fn tell(tx: &mut Tx, operation: &Operation, actor: &str) -> Result<(), StoreError> {
    let mut data = json!({ "kind": operation.kind, "state": operation.state });
    if let Some(error) = &operation.error {
        data["reason"] = error.code.as_str().into();
    }
    let event = NewEvent {
        operation: Some(operation.id),
        actor: actor.to_owned(),
        data,
        ..NewEvent::new("operation.state", operation.project.clone(), operation.target.clone())
    };
    events::append(tx, event).await?;
    tx.wake_operations();
    Ok(())
}

/// The operation with this id.
pub async fn load(tx: &mut Tx, id: OperationId) -> Result<Option<Operation>, StoreError> {
    select_one(tx, "operations.load", "WHERE id = $1", [id.to_string().into()]).await
}

const RUNNING_ON: &str = "-- operations.running_on
SELECT id FROM operations WHERE target_kind = $1 AND target_id = $2 AND finished_at IS NULL";

/// The operation that runs on the target, if one does.
pub async fn running_on(tx: &mut Tx, kind: &str, id: &str) -> Result<Option<OperationId>, StoreError> {
    let row = sqlx::query(RUNNING_ON).bind(kind).bind(id).fetch_optional(tx.conn()).await?;
    row.as_ref().map(|row| column::read(row, "id")).transpose()
}

/// All operations that have not ended, oldest first. The reconcile loops finish them.
pub async fn unfinished(tx: &mut Tx) -> Result<Vec<Operation>, StoreError> {
    select(tx, "operations.unfinished", "WHERE finished_at IS NULL ORDER BY seq", []).await
}

/// The kinds of targets that are instances, in SQL.
const OF_MEMBERS: &str = "('deployment', 'instance', 'instances')";

/// The operations on instances that somebody asked to stop, or whose time is over, oldest first.
pub async fn pressing(tx: &mut Tx) -> Result<Vec<Operation>, StoreError> {
    let rest = format!(
        "WHERE finished_at IS NULL AND target_kind IN {OF_MEMBERS} AND (state = 'cancelling' OR deadline <= $1) ORDER BY seq"
    );
    let now = tx.now().micros();
    select(tx, "operations.pressing", &rest, [now.into()]).await
}

/// The operations on instances that have to be counted, oldest first: those whose time is over, those that are not on one
/// deployment, and those on deployments of which a member changed.
pub async fn to_count(tx: &mut Tx) -> Result<Vec<Operation>, StoreError> {
    let rest = "WHERE finished_at IS NULL AND (target_kind IN ('instance', 'instances')
    OR (target_kind = 'deployment' AND (deadline <= $1
        OR target_id IN (SELECT d.id FROM deployments d WHERE d.dirty = 1)))) ORDER BY seq";
    let now = tx.now().micros();
    select(tx, "operations.to_count", rest, [now.into()]).await
}

/// The operations on things of this kind that have not ended, oldest first.
pub async fn unfinished_on(tx: &mut Tx, kind: &str) -> Result<Vec<Operation>, StoreError> {
    let rest = "WHERE finished_at IS NULL AND target_kind = $1 ORDER BY seq";
    select(tx, "operations.unfinished_on", rest, [kind.into()]).await
}

const RUNNING_ON_ANY: &str = "-- operations.running_on_any
SELECT target_id FROM operations WHERE target_kind = 'deployment' AND finished_at IS NULL AND target_id";

/// The deployments among these on which an operation runs.
pub async fn running_on_any(tx: &mut Tx, ids: &[DeploymentId]) -> Result<BTreeSet<DeploymentId>, StoreError> {
    let rows = bulk::select_in(tx, RUNNING_ON_ANY, ids, "").await?;
    rows.iter().map(|row| column::read(row, "target_id")).collect()
}

/// Operations after the place `after`, with their places, of one project or of all.
pub async fn list(
    tx: &mut Tx,
    after: i64,
    project: Option<&str>,
    targets: &[String],
    limit: i64,
) -> Result<Vec<(i64, Operation)>, StoreError> {
    let mut conditions = Conditions::default();
    conditions.compare("seq", ">", after);
    if let Some(project) = project {
        conditions.compare("project", "=", project);
    }
    conditions.one_of("target_id", targets);
    let rows = conditions.rows(tx, "operations.list", Operation::SELECT, limit).await?;
    rows.iter().map(|row| Ok((column::read(row, "seq")?, Operation::from_row(row)?))).collect()
}

/// The newest operations that have not ended, newest first, of one project or of all.
pub async fn newest_running(tx: &mut Tx, project: Option<&str>, limit: i64) -> Result<Vec<Operation>, StoreError> {
    let rest = "WHERE finished_at IS NULL AND (CAST($1 AS TEXT) IS NULL OR project = $1) ORDER BY seq DESC LIMIT $2";
    select(tx, "operations.newest_running", rest, [project.map(str::to_owned).into(), limit.into()]).await
}

/// How many operations are in each state.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "operations", project).await
}

const PROGRESS: &str = "-- operations.progress
UPDATE operations SET state = CASE WHEN state = 'pending' THEN 'running' ELSE state END, phase = $2, done = $3,
    total = $4, failed = $5, unit = $6, waiting_on = $7, updated_at = $8, started_at = COALESCE(started_at, $8),
    revision = revision + 1
WHERE id = $1 AND finished_at IS NULL";

/// Notes how far an operation is and what it waits for, unless both stand there already.
pub async fn note(
    tx: &mut Tx,
    operation: &Operation,
    phase: &str,
    progress: &Progress,
    waiting_on: &[WaitingOn],
) -> Result<(), StoreError> {
    // The times are left out: they change each time somebody looks.
    let things = |list: &[WaitingOn]| list.iter().map(|w| (w.what.clone(), w.node)).collect::<Vec<_>>();
    let told = operation.state != OperationState::Pending
        && operation.phase == phase
        && operation.progress == *progress
        && things(&operation.waiting_on) == things(waiting_on);
    if told { Ok(()) } else { self::progress(tx, operation.id, phase, progress, waiting_on).await }
}

/// Notes how far an operation is. A pending one becomes running; one that has ended stays as it is. There is no event,
/// because progress changes too often.
pub async fn progress(
    tx: &mut Tx,
    id: OperationId,
    phase: &str,
    progress: &Progress,
    waiting_on: &[WaitingOn],
) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let first = waiting_on.get(..WAITING_MAX).unwrap_or(waiting_on);
    sqlx::query(PROGRESS)
        .bind(id.to_string())
        .bind(phase)
        .bind(column::int(progress.done))
        .bind(column::int(progress.total))
        .bind(column::int(progress.failed))
        .bind(&progress.unit)
        .bind(column::json_text(first)?)
        .bind(now)
        .execute(tx.conn())
        .await?;
    tx.wake_operations();
    Ok(())
}

const CANCEL: &str = "-- operations.cancel
UPDATE operations SET state = 'cancelling', updated_at = $2, revision = revision + 1
WHERE id = $1 AND state IN ('pending', 'running')";

/// Asks an operation to stop. The loop that works on it ends it. Nothing changes if it has ended or was asked before.
pub async fn request_cancel(tx: &mut Tx, id: OperationId, actor: &str) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(CANCEL).bind(id.to_string()).bind(now).execute(tx.conn()).await?;
    if done.rows_affected() == 1
        && let Some(operation) = load(tx, id).await?
    {
        tell(tx, &operation, actor).await?;
    }
    Ok(())
}

const NOTE_RESULT: &str = "-- operations.note_result
UPDATE operations SET result = $2, revision = revision + 1 WHERE id = $1 AND finished_at IS NULL";

/// Notes a part of the result that is known before the operation ends. It stays if the operation ends without one.
pub async fn note_result(tx: &mut Tx, id: OperationId, result: &Value) -> Result<(), StoreError> {
    sqlx::query(NOTE_RESULT).bind(id.to_string()).bind(result.to_string()).execute(tx.conn()).await?;
    Ok(())
}

const FINISH: &str = "-- operations.finish
UPDATE operations SET state = $2, error = $3, result = COALESCE($4, result), waiting_on = '[]', updated_at = $5, finished_at = $5,
    started_at = COALESCE(started_at, $5), revision = revision + 1
WHERE id = $1 AND finished_at IS NULL";

/// Ends an operation. One that has ended stays as it is.
pub async fn finish(tx: &mut Tx, id: OperationId, outcome: Outcome) -> Result<(), StoreError> {
    let (state, error, result) = match outcome {
        Outcome::Succeeded(result) => ("succeeded", None, result),
        Outcome::Failed(problem) => ("failed", Some(column::json_text(&problem)?), None),
        Outcome::Cancelled(result) => ("cancelled", None, result),
    };
    let now = tx.now().micros();
    let done = sqlx::query(FINISH)
        .bind(id.to_string())
        .bind(state)
        .bind(error)
        .bind(result.map(|r| r.to_string()))
        .bind(now)
        .execute(tx.conn())
        .await?;
    if done.rows_affected() == 1
        && let Some(operation) = load(tx, id).await?
    {
        tell(tx, &operation, "muster").await?;
    }
    Ok(())
}

const OVERDUE: &str = "-- operations.overdue
SELECT CAST(COUNT(*) AS BIGINT) AS n FROM operations
WHERE finished_at IS NULL AND deadline < $1 AND (CAST($2 AS TEXT) IS NULL OR project = $2)";

/// How many operations are past their deadline, in one project or in all.
pub async fn overdue(tx: &mut Tx, project: Option<&str>) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    column::read(&sqlx::query(OVERDUE).bind(now).bind(project).fetch_one(tx.conn()).await?, "n")
}

const FORGET: &str = "-- operations.forget
DELETE FROM operations WHERE finished_at < $1";

/// Drops operations that ended more than [`KEPT_DAYS`] ago. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let before = tx.now().plus_ms(-KEPT_DAYS * 24 * 3600 * 1000).micros();
    Ok(sqlx::query(FORGET).bind(before).execute(tx.conn()).await?.rows_affected())
}

impl Row for Operation {
    const SELECT: &'static str =
        "SELECT id, project, kind, target_kind, target_id, target_name, state, phase, done, total,
    failed, unit, waiting_on, deadline, error, result, requested_by, request_id, created_at, updated_at, started_at,
    finished_at, seq FROM operations";

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: column::read(row, "id")?,
            project: column::read(row, "project")?,
            kind: column::read(row, "kind")?,
            target: Target {
                kind: column::read(row, "target_kind")?,
                id: column::read(row, "target_id")?,
                name: column::read(row, "target_name")?,
            },
            state: column::read(row, "state")?,
            phase: column::read(row, "phase")?,
            progress: Progress {
                done: column::read(row, "done")?,
                total: column::read(row, "total")?,
                failed: column::read(row, "failed")?,
                unit: column::read(row, "unit")?,
            },
            waiting_on: column::read(row, "waiting_on")?,
            deadline: column::read(row, "deadline")?,
            error: column::read(row, "error")?,
            result: column::read(row, "result")?,
            requested_by: column::read(row, "requested_by")?,
            request_id: column::read(row, "request_id")?,
            created_at: column::read(row, "created_at")?,
            updated_at: column::read(row, "updated_at")?,
            started_at: column::read(row, "started_at")?,
            finished_at: column::read(row, "finished_at")?,
        })
    }
}
