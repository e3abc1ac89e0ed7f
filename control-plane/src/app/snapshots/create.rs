//! A snapshot is asked for: which disks take part, and the rows from which the nodes and the loop go on.

use std::{collections::BTreeSet, time::Duration};

use muster_api::{
    CommitId, DiskId, ErrorCode, InstanceId, Labels, Problem, SnapshotId, Timestamp,
    deployment::Runtime,
    instance::InstanceState,
    operation::{Operation, Target},
    snapshot::{Consistency, CreateSnapshot, SnapshotState},
    units::exact_duration,
};
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Caller, Once, begin_operation,
        instances::{Going, selected},
    },
    attempt::{discard, next_attempt, tell_nodes},
    event,
};
use crate::{
    domain::{names::made_up, protection, snapshot::SAVE_MS},
    store::{
        Tx,
        deployments::{self, DeploymentRow},
        disks, events, guests,
        instances::{self, DiskRow, InstanceRow},
        nodes,
        operations::{self, NewOperation, Origin},
        protections, restores,
        snapshots::{self, MemberRow, SnapshotRow},
        uploads::{self, NewUpload, Upload, UploadTarget},
    },
    wake::Loop,
};

/// Longest time a guest's write may be held where the request does not say, milliseconds.
const PAUSE_MS: u64 = 500;
/// Longest such time that a request may ask for, milliseconds.
const PAUSE_MAX_MS: u64 = 10_000;
/// How long the lease of the upload outlives the snapshot's deadline, milliseconds. The snapshots loop ends the upload
/// before that.
const LEASE_MS: i64 = 120_000;

/// The instances that a snapshot is taken of.
struct Taken {
    /// Project of all of them.
    project: String,
    /// The instances with a disk that can be cut, at least one.
    rows: Vec<InstanceRow>,
    /// How many of the selected instances have no disk that can be cut.
    skipped: u64,
    /// The deployment, if the request names one.
    deployment: Option<DeploymentRow>,
}

impl App {
    /// Begins a snapshot of all selected instances that have a disk.
    pub async fn create_snapshot(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &CreateSnapshot,
    ) -> Result<Answer, AppError> {
        let max_pause_ms = max_pause_ms(wanted)?;
        self.once(once, "snapshots.create", async |tx| {
            let taken = take(tx, caller, wanted).await?;
            give_way(tx, &taken.rows).await?;
            if wanted.consistency == Consistency::Filesystem {
                refuse_without_agents(tx, &taken.rows).await?;
            }
            let id = SnapshotId::generate();
            let name = free_name(tx, &taken.project, id, wanted).await?;
            let how = How {
                id,
                name,
                labels: wanted.labels.clone(),
                consistency: wanted.consistency,
                max_pause_ms,
                origin: caller.origin(),
                kind: Kind::Asked,
            };
            Answer::accepted(&begin(tx, taken, how).await?)
        })
        .await
    }
}

/// Gives up the snapshots that only save disks which leave these instances: a caller's snapshot never waits for one that nobody
/// asked for, and it saves these disks as well. Should it fail, they are saved again.
async fn give_way(tx: &mut Tx, rows: &[InstanceRow]) -> Result<(), AppError> {
    let ids: BTreeSet<InstanceId> = rows.iter().map(|row| row.id).collect();
    for row in disks::leaving(tx).await?.into_iter().filter(|row| ids.contains(&row.instance)) {
        let Some(own) = row.leaving_snapshot else { continue };
        discard(tx, own).await?;
        disks::save_leaving(tx, &DiskRow { leaving_snapshot: None, ..row }).await?;
    }
    Ok(())
}

/// Begins a snapshot of one instance that saves a disk which leaves it. Refused as one that a caller asks for.
pub(crate) async fn begin_own(tx: &mut Tx, row: InstanceRow) -> Result<SnapshotId, AppError> {
    begin_for_itself(tx, "detach", vec![row], None).await
}

/// Begins the snapshot that keeps what these instances hold, before they are put back to `restored`. If that is one of a
/// deployment, so is this. Refused as one that a caller asks for.
pub(super) async fn begin_kept(
    tx: &mut Tx,
    restored: SnapshotId,
    rows: Vec<InstanceRow>,
) -> Result<SnapshotId, AppError> {
    let of = snapshots::load(tx, restored).await?.and_then(|snapshot| snapshot.deployment);
    let deployment = match of {
        Some(id) if rows.iter().all(|row| row.deployment == id) => deployments::load(tx, id).await?,
        _ => None,
    };
    give_way(tx, &rows).await?;
    begin_for_itself(tx, "before-restore", rows, deployment).await
}

/// Begins a snapshot that the controller needs itself, under a name that begins so.
async fn begin_for_itself(
    tx: &mut Tx,
    prefix: &str,
    rows: Vec<InstanceRow>,
    deployment: Option<DeploymentRow>,
) -> Result<SnapshotId, AppError> {
    for row in &rows {
        if !has_disk(row)? {
            return Err(nothing_to_cut());
        }
        refuse_if_away(tx, row).await?;
    }
    let Some(project) = rows.first().map(|row| row.project.clone()) else { return Err(nothing_to_cut()) };
    let id = SnapshotId::generate();
    let how = How {
        id,
        name: made_up(prefix, id.uuid()),
        labels: Labels::default(),
        consistency: Consistency::Crash,
        max_pause_ms: PAUSE_MS,
        origin: Origin::muster(),
        kind: Kind::Asked,
    };
    begin(tx, Taken { project, rows, skipped: 0, deployment }, how).await?;
    Ok(id)
}

/// Begins a scheduled snapshot of these members of a deployment, each of which is [`Part::Taken`]. [`AppError::Busy`] while another
/// snapshot has one of their disks.
pub(crate) async fn begin_scheduled(
    tx: &mut Tx,
    deployment: DeploymentRow,
    rows: Vec<InstanceRow>,
    skipped: u64,
    speed: Speed,
) -> Result<SnapshotId, AppError> {
    let id = SnapshotId::generate();
    let mut name = protection::name(&deployment.name, tx.now());
    if snapshots::by_name(tx, &deployment.project, &name).await?.is_some() {
        name = made_up(&name, id.uuid());
    }
    let how = How {
        id,
        name,
        labels: deployment.labels.clone(),
        consistency: Consistency::Crash,
        max_pause_ms: PAUSE_MS,
        origin: Origin::muster(),
        kind: Kind::Scheduled(speed),
    };
    begin(tx, Taken { project: deployment.project.clone(), rows, skipped, deployment: Some(deployment) }, how).await?;
    Ok(id)
}

/// Gives up the scheduled snapshots under way that have one of these disks: nothing that somebody asks for waits for them. They
/// are taken again soon.
pub(crate) async fn give_up_scheduled(tx: &mut Tx, disks: &[DiskId], what_came: &str) -> Result<(), AppError> {
    for id in snapshots::scheduled_with(tx, disks).await? {
        if let Some(mut row) = protections::of_snapshot(tx, id).await? {
            row.under_way = None;
            row.left_out = None;
            row.late += 1;
            row.next_at = tx.now().plus_ms(protection::AGAIN_MS);
            protections::save(tx, &row).await?;
        }
        tracing::info!(snapshot.id = %id, "a scheduled snapshot gives way to {what_came}");
        metrics::counter!("muster_scheduled_snapshots_total", "outcome" => "gave_way").increment(1);
        discard(tx, id).await?;
    }
    Ok(())
}

/// How a snapshot is taken, and for whom.
struct How {
    id: SnapshotId,
    name: String,
    labels: Labels,
    consistency: Consistency,
    max_pause_ms: u64,
    origin: Origin,
    kind: Kind,
}

/// Who wants a snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Somebody asked for it, or for something that needs it.
    Asked,
    /// It protects its deployment.
    Scheduled(Speed),
}

/// How fast a scheduled snapshot is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    /// At the pace of the background.
    Background,
    /// As one that somebody asked for.
    Full,
}

/// Stores a snapshot with its members, and tells their nodes. Returns its operation.
async fn begin(tx: &mut Tx, taken: Taken, how: How) -> Result<Operation, AppError> {
    let How { id, name, labels, consistency, max_pause_ms, origin, kind } = how;
    let members = members(tx, id, &taken.rows).await?;
    if kind == Kind::Asked {
        let disks: Vec<_> = members.iter().map(|member| member.disk).collect();
        give_up_scheduled(tx, &disks, "another one of its disks").await?;
    }
    refuse_if_cut(tx, &members).await?;
    let (now, count) = (tx.now(), u64_from(members.len()));
    let scheduled = kind != Kind::Asked;
    let deadline = now.plus_ms(if scheduled { protection::SAVE_MS } else { SAVE_MS });
    let upload = begin_upload(tx, &taken.project, id, deadline).await?;
    let new = NewOperation {
        project: taken.project.clone(),
        kind: "snapshot.create",
        target: Target { kind: "snapshot".to_owned(), id: id.to_string(), name: name.clone() },
        phase: "cutting",
        progress: operations::to_do(count, "disks"),
        deadline,
    };
    let operation = begin_operation(tx, &origin, new).await?;
    let mut row = SnapshotRow {
        id,
        project: taken.project,
        name,
        labels,
        state: SnapshotState::Cutting,
        reason: None,
        deployment: taken.deployment.as_ref().map(|deployment| deployment.id),
        deployment_name: taken.deployment.map(|deployment| deployment.name),
        consistency,
        max_pause_ms,
        cut_at: None,
        durable_at: None,
        members: count,
        skipped: taken.skipped,
        missing: 0,
        scheduled,
        background: kind == Kind::Scheduled(Speed::Background),
        dirty_bytes: 0,
        stored_bytes: 0,
        pause_max_us: None,
        attempt: 0,
        coordinator: None,
        attempt_until: None,
        refused: None,
        refused_detail: None,
        deadline,
        upload: Some(upload.id),
        round: Some(upload.round),
        operation: operation.id,
        created_at: now,
        updated_at: now,
        revision: 1,
        seq: tx.next_seq().await?,
    };
    next_attempt(tx, &mut row, &members).await?;
    snapshots::insert(tx, &row, &members).await?;
    events::append(tx, event(&row, &origin.actor)).await?;
    tell_nodes(tx, &members).await?;
    tx.wake(Loop::Snapshots);
    Ok(operation)
}

fn max_pause_ms(wanted: &CreateSnapshot) -> Result<u64, AppError> {
    let max_pause_ms = wanted.max_pause_ms.unwrap_or(PAUSE_MS);
    if !(1..=PAUSE_MAX_MS).contains(&max_pause_ms) {
        let text = |ms| exact_duration(Duration::from_millis(ms));
        let detail = format!("{} to {}, got {}", text(1), text(PAUSE_MAX_MS), text(max_pause_ms));
        return Err(AppError::invalid("/max_pause_ms", "out_of_range", detail));
    }
    Ok(max_pause_ms)
}

async fn take(tx: &mut Tx, caller: &Caller, wanted: &CreateSnapshot) -> Result<Taken, AppError> {
    let selected = selected(tx, caller, &wanted.select, Going::LeftOut).await?;
    let (mut rows, mut skipped) = (Vec::new(), 0);
    for row in selected.rows {
        if has_disk(&row)? {
            refuse_if_away(tx, &row).await?;
            rows.push(row);
        } else {
            skipped += 1;
        }
    }
    let Some(project) = rows.first().map(|row| row.project.clone()) else {
        return Err(nothing_to_cut());
    };
    if let Some(other) = rows.iter().find(|row| row.project != project) {
        let detail = format!("{} belongs to another project than the others", other.name);
        return Err(AppError::invalid("/select", "invalid", detail));
    }
    Ok(Taken { project, rows, skipped, deployment: selected.deployment })
}

fn nothing_to_cut() -> AppError {
    AppError::WrongState {
        kind: "selection",
        state: "empty".to_owned(),
        allowed: vec!["running", "paused", "stopping", "stopped"],
    }
}

/// Whether an instance takes part in a scheduled snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It has a disk that can be cut.
    Taken,
    /// It has none, as a user's snapshot skips it too.
    Skipped,
    /// Nobody can cut its disk now, for this reason. It may hold what is not saved.
    LeftOut(String),
}

/// Why this instance is in the way of scheduled snapshots: another snapshot has its disks, or one since `saved_at` had them. `None`
/// if it is not.
pub(crate) async fn in_the_way(
    tx: &mut Tx,
    row: &InstanceRow,
    disks: &[DiskRow],
    saved_at: Timestamp,
) -> Result<Option<String>, AppError> {
    let ids: Vec<DiskId> = disks.iter().map(|disk| disk.id).collect();
    if snapshots::busy_with(tx, &ids).await?.is_some() {
        return Ok(Some(format!("another snapshot has the disks of {}", row.name)));
    }
    let is_newer = |disk: &&DiskRow| disk.saved_at.is_some_and(|at| at > saved_at);
    Ok(disks.iter().find(is_newer).map(|_| format!("others save {} again and again", row.name)))
}

/// Whether this instance takes part in a scheduled snapshot, which leaves out what it cannot have (I11). `disks` are those of the
/// instance.
pub(crate) async fn part(tx: &mut Tx, row: &InstanceRow, disks: &[DiskRow]) -> Result<Part, AppError> {
    let refused = |error: AppError| match error {
        AppError::Problem(problem) => Ok(Part::LeftOut(problem.detail)),
        error => Err(error),
    };
    match has_disk(row) {
        Ok(true) => {}
        Ok(false) => return Ok(failed_with(row, disks).map_or(Part::Skipped, Part::LeftOut)),
        Err(error) => return refused(error),
    }
    if let Some(operation) = row.operation
        && restores::load(tx, operation).await?.is_some()
    {
        // The restore keeps what it holds, and needs its disks.
        return Ok(Part::LeftOut(format!("{} is being restored from a snapshot", row.name)));
    }
    if let Err(error) = refuse_if_away(tx, row).await {
        return refused(error);
    }
    let attaching = disks.iter().find(|disk| disk.path.is_none() && disk.leaving_since.is_none());
    Ok(attaching.map_or(Part::Taken, |disk| Part::LeftOut(is_attaching(row, disk))))
}

/// Why an instance that failed is not wholly saved; `None` unless it failed and its node has what no version has.
fn failed_with(row: &InstanceRow, disks: &[DiskRow]) -> Option<String> {
    if row.life.state != InstanceState::Failed || row.life.node.is_none() {
        return None;
    }
    let disk = disks.iter().find(|disk| disk.path.is_some() && !disk.is_saved())?;
    let why = row.life.detail.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{} has failed{why}, and disk '{}' has what is not saved", row.name, disk.name))
}

fn is_attaching(row: &InstanceRow, disk: &DiskRow) -> String {
    format!("disk {}/{} is still being attached", row.name, disk.name)
}

/// Whether an instance has a disk that can be cut. Refuses if that is not known.
fn has_disk(row: &InstanceRow) -> Result<bool, AppError> {
    match row.life.state {
        InstanceState::Unknown => {
            let detail = format!("{} is unknown: its node is silent, so its disk cannot be cut", row.name);
            Err(Problem::new(ErrorCode::MemberUnknown, detail).with("instance", row.id.to_string()).into())
        }
        InstanceState::Pending | InstanceState::Failed | InstanceState::Deleting | InstanceState::Deleted => Ok(false),
        // Until its node reports the disk it has none.
        InstanceState::Starting => {
            Ok(row.life.node.is_some() && (row.life.steps.disk_at.is_some() || row.life.was_ready))
        }
        _ => Ok(row.life.node.is_some()),
    }
}

/// Refuses if the agent of the instance's node was stopped: the instance is known to be off, and nobody can cut its disk.
pub(super) async fn refuse_if_away(tx: &mut Tx, row: &InstanceRow) -> Result<(), AppError> {
    let Some(node) = row.life.node else { return Ok(()) };
    if nodes::load(tx, node).await?.is_none_or(|node| node.stopped_at.is_none()) {
        return Ok(());
    }
    let detail = format!("{} is on a node whose agent was stopped, so its disk cannot be cut", row.name);
    Err(Problem::new(ErrorCode::MemberUnknown, detail).with("instance", row.id.to_string()).into())
}

/// Refuses if one of the guests cannot be frozen: it runs, or is about to, and no guest agent answers. What is paused or
/// stopped, or has no guest at all, needs none.
async fn refuse_without_agents(tx: &mut Tx, rows: &[InstanceRow]) -> Result<(), AppError> {
    let is_written = |row: &&InstanceRow| {
        let state = row.life.state;
        let is_off = matches!(state, InstanceState::Stopped | InstanceState::Paused);
        row.runtime == Runtime::Libvirt && !is_off
    };
    let written: Vec<&InstanceRow> = rows.iter().filter(is_written).collect();
    let told = guests::load_many(tx, &written.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
    let answers = |row: &&&InstanceRow| told.get(&row.id).is_some_and(|guest| guest.answers);
    let silent: Vec<&&InstanceRow> = written.iter().filter(|row| !answers(row)).collect();
    let Some(first) = silent.first() else { return Ok(()) };
    let others = match silent.len() {
        1 => String::new(),
        n => format!(", nor do those of {} others", n - 1),
    };
    let detail = format!(
        "the guest agent of {} does not answer{others}, so file systems cannot be frozen: install qemu-guest-agent in the \
         guest and try again a minute later, or take a snapshot with consistency crash",
        first.name
    );
    Err(Problem::new(ErrorCode::NoGuestAgent, detail).with("instance", first.id.to_string()).into())
}

async fn free_name(tx: &mut Tx, project: &str, id: SnapshotId, wanted: &CreateSnapshot) -> Result<String, AppError> {
    let name = wanted.name.as_ref().map_or_else(|| made_up("s", id.uuid()), ToString::to_string);
    match snapshots::by_name(tx, project, &name).await? {
        Some(existing) => Err(AppError::NameTaken { kind: "snapshot", name, existing: existing.id.to_string() }),
        None => Ok(name),
    }
}

async fn begin_upload(tx: &mut Tx, project: &str, id: SnapshotId, deadline: Timestamp) -> Result<Upload, AppError> {
    let new = NewUpload {
        project: project.to_owned(),
        target: UploadTarget::Snapshot,
        target_id: id.to_string(),
        until: deadline.plus_ms(LEASE_MS),
    };
    Ok(uploads::begin(tx, &new).await?)
}

/// One member row for each disk of the instances.
async fn members(tx: &mut Tx, id: SnapshotId, taken: &[InstanceRow]) -> Result<Vec<MemberRow>, AppError> {
    let ids: Vec<_> = taken.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let mut members = Vec::with_capacity(taken.len());
    for row in taken {
        let node = row.life.node.expect("an instance that takes part has a node");
        for disk in disks.remove(&row.id).unwrap_or_default() {
            // It is no part of the instance any more, and its node may be unable to make it.
            if disk.path.is_none() && disk.leaving_since.is_some() {
                continue;
            }
            // A guest may write to it before its node has told that it is there, so it cannot be left out.
            if disk.path.is_none() {
                let detail = format!("{}: try again when it is", is_attaching(row, &disk));
                let refused = Problem::new(ErrorCode::WrongState, detail).with("state", "attaching");
                return Err(refused.with("allowed", vec!["attached"]).into());
            }
            members.push(MemberRow {
                snapshot: id,
                disk: disk.id,
                disk_name: disk.name,
                instance: row.id,
                instance_name: row.name.clone(),
                size_bytes: disk.size_bytes,
                node,
                generation: row.life.generation,
                commit: CommitId::generate(),
                version: None,
                pause_us: None,
                dirty_bytes: 0,
                stored_bytes: 0,
                staged: None,
                seq: tx.next_seq().await?,
            });
        }
    }
    Ok(members)
}

/// Refuses if another snapshot under way has one of the disks.
async fn refuse_if_cut(tx: &mut Tx, members: &[MemberRow]) -> Result<(), AppError> {
    let disks: Vec<_> = members.iter().map(|member| member.disk).collect();
    match snapshots::busy_with(tx, &disks).await? {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}
