//! A restore is asked for: what of the snapshot is still there, and the rows from which the loop goes on
//! ([`super::restoring`]).

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    ErrorCode, InstanceId, Problem, Ref, SnapshotId,
    deployment::Runtime,
    instance::{InstanceState, Stop},
    snapshot::{RestoreSnapshot, SnapshotState},
};
use serde_json::{Value, json};
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Asked, begin_operation, find,
        instances::{Changed, change::all_by, check_idle, how_to_stop, save},
        operations::existing,
    },
    create::{give_up_scheduled, refuse_if_away},
};
use crate::{
    domain::{
        instance::{Edge, word},
        restore::{KEEP_MS, START_MS, STOP_MS, Step, is_to_run},
    },
    store::{
        Tx, column,
        instances::{self, DiskRow, InstanceRow},
        nodes,
        operations::{self, NewOperation},
        restores::{self, RestoreDiskRow, RestoreRow},
        snapshots::{self, MemberRow, SnapshotRow},
        versions,
    },
    wake::Loop,
};

/// Most disks that one refusal or result lists.
pub(super) const LISTED_MAX: usize = 20;

/// What of a snapshot can be restored.
struct Found {
    /// The disks, with the versions that they are to have, in the order of the snapshot.
    disks: Vec<(MemberRow, DiskRow)>,
    /// Their instances.
    instances: BTreeMap<InstanceId, InstanceRow>,
    /// What is not there any more: `{instance, disk, why}`.
    missing: Vec<Value>,
}

impl App {
    /// Begins to put the disks of the snapshot's members back to it.
    pub async fn restore_snapshot(
        &self,
        asked: &Asked<Ref<SnapshotId>>,
        wanted: RestoreSnapshot,
    ) -> Result<Answer, AppError> {
        let stop = Stop { force: wanted.force, timeout_s: wanted.timeout_s };
        let stop = how_to_stop(&stop, self.config.instances.stop_timeout)?;
        self.once(&asked.once, "snapshots.restore", async |tx| {
            let snapshot = find::snapshot(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(snapshot.revision)?;
            if snapshot.state != SnapshotState::Ready {
                let state = column::word_text(snapshot.state)?;
                return Err(AppError::WrongState { kind: "snapshot", state, allowed: vec!["ready"] });
            }
            let found = find_disks(tx, &snapshot).await?;
            if !found.missing.is_empty() && !wanted.allow_missing {
                return Err(is_missing(&snapshot, &found));
            }
            if found.disks.is_empty() {
                let detail = format!("nothing of snapshot '{}' is there any more to be restored", snapshot.name);
                return Err(Problem::new(ErrorCode::WrongState, detail).with("missing", listed(&found.missing)).into());
            }
            refuse(tx, &found).await?;
            // At most STOP_TIMEOUT_MAX.
            let stop_ms = STOP_MS + (stop.timeout_s * 1000).cast_signed();
            let keep_ms = if wanted.discard_current { 0 } else { KEEP_MS };
            let new = NewOperation {
                project: snapshot.project.clone(),
                kind: "snapshot.restore",
                target: snapshot.target(),
                phase: Step::Stopping.word(),
                progress: operations::to_do(u64_from(found.instances.len()), "instances"),
                deadline: tx.now().plus_ms(stop_ms + keep_ms + START_MS),
            };
            let operation = begin_operation(tx, &asked.caller.origin(), new).await?;
            let row = RestoreRow {
                operation: operation.id,
                project: snapshot.project.clone(),
                snapshot: snapshot.id,
                snapshot_name: snapshot.name.clone(),
                saved_at: snapshot.cut_at.min(snapshot.durable_at),
                step: Step::Stopping,
                until: tx.now().plus_ms(stop_ms),
                discard: wanted.discard_current,
                stop_force: stop.force,
                stop_timeout_s: stop.timeout_s,
                kept: None,
            };
            let result = json!({ "snapshot": row.snapshot, "left_out": listed(&found.missing) });
            operations::note_result(tx, row.operation, &result).await?;
            begin(tx, &asked.caller.name, row, found).await?;
            Answer::accepted(&existing(tx, operation.id).await?)
        })
        .await
    }
}

/// Stores what is to be restored, and tells the instances to stop.
async fn begin(tx: &mut Tx, actor: &str, row: RestoreRow, found: Found) -> Result<(), AppError> {
    let Found { disks, instances, .. } = found;
    let (operation, stop) = (row.operation, row.stop());
    let rows: Vec<RestoreDiskRow> = disks
        .into_iter()
        .map(|(member, disk)| {
            let instance = &instances[&member.instance]; // Only those that were found are in the list.
            RestoreDiskRow {
                operation,
                disk: disk.id,
                disk_name: disk.name,
                instance: instance.id,
                instance_name: instance.name.clone(),
                version: member.version.expect("its version was found"),
                runs: is_to_run(instance.life.state, instance.life.wanted),
                closed: instance.runtime == Runtime::None,
                restored: false,
                seq: member.seq,
            }
        })
        .collect();
    restores::insert(tx, &row, &rows).await?;
    let mut changed: Vec<Changed> = instances
        .values()
        .map(|instance| {
            let stopped = Changed::by(instance.clone(), &Edge::Stop(stop), tx).ok().flatten();
            stopped.unwrap_or_else(|| Changed::not_at_all(instance.clone()))
        })
        .collect();
    changed.iter_mut().for_each(|change| change.after.operation = Some(operation));
    save(tx, actor, &changed).await?;
    close(tx, &rows, &instances).await?;
    tx.wake(Loop::Restores);
    Ok(())
}

/// Tells the nodes of disks that are no guest's to close their files.
async fn close(
    tx: &mut Tx,
    disks: &[RestoreDiskRow],
    instances: &BTreeMap<InstanceId, InstanceRow>,
) -> Result<(), AppError> {
    let mut closed = Vec::new();
    for disk in disks.iter().filter(|disk| disk.closed) {
        let Some(node) = instances.get(&disk.instance).and_then(|row| row.life.node) else { continue };
        tx.bump_desired(node);
        // The bump counts already.
        closed.push((disk.disk, nodes::desired_revision(tx, node).await?));
    }
    Ok(restores::close(tx, &closed).await?)
}

/// Starts those of the instances that ran before, and ends the wait of all of them. Returns the names of those that could not be
/// started.
pub(super) async fn start_again(
    tx: &mut Tx,
    row: &RestoreRow,
    disks: &[RestoreDiskRow],
    members: Vec<InstanceRow>,
) -> Result<Vec<String>, AppError> {
    let run: BTreeSet<InstanceId> = disks.iter().filter(|disk| disk.runs).map(|disk| disk.instance).collect();
    // The files of all are opened again.
    members.iter().filter_map(|member| member.life.node).for_each(|node| tx.bump_desired(node));
    let (to_run, _): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| run.contains(&member.id));
    let left = |member: &&InstanceRow| member.life.after(&Edge::Start, tx.now()).is_err();
    let left_off = to_run.iter().filter(left).map(|member| member.name.clone()).collect();
    let mut changed = all_by(to_run, &Edge::Start, tx);
    changed.iter_mut().for_each(|change| change.after.operation = None);
    save(tx, "muster", &changed).await?;
    instances::release(tx, row.operation).await?;
    Ok(left_off)
}

/// The first of a list, as refusals and results have them.
fn listed(all: &[Value]) -> &[Value] {
    all.get(..LISTED_MAX).unwrap_or(all)
}

/// Looks up which disks of the snapshot their instances still have.
async fn find_disks(tx: &mut Tx, snapshot: &SnapshotRow) -> Result<Found, AppError> {
    let members = snapshots::members(tx, snapshot.id).await?;
    let live: BTreeSet<_> =
        versions::of_snapshot(tx, snapshot.id).await?.into_iter().map(|row| row.version.id).collect();
    let ids: Vec<InstanceId> =
        members.iter().map(|member| member.instance).collect::<BTreeSet<_>>().into_iter().collect();
    let is_there = |row: &InstanceRow| !matches!(row.life.state, InstanceState::Deleting | InstanceState::Deleted);
    let rows = instances::load_many(tx, &ids).await?.into_iter().filter(is_there);
    let rows: BTreeMap<InstanceId, InstanceRow> = rows.map(|row| (row.id, row)).collect();
    let mut has = instances::disks_of(tx, &ids).await?;
    let mut found = Found { disks: Vec::new(), instances: BTreeMap::new(), missing: Vec::new() };
    for member in members {
        let disks = has.get_mut(&member.instance);
        let disk = disks.and_then(|disks| disks.iter().find(|disk| disk.id == member.disk).cloned());
        let why = match (rows.get(&member.instance), &disk) {
            (None, _) => "the instance was deleted",
            (Some(_), None) => "the disk was detached or deleted",
            (Some(_), Some(disk)) if disk.leaving_since.is_some() => "the disk is being detached",
            (Some(_), Some(_)) if !member.version.is_some_and(|version| live.contains(&version)) => {
                "its version was deleted"
            }
            (Some(instance), Some(disk)) => {
                found.instances.entry(instance.id).or_insert_with(|| instance.clone());
                found.disks.push((member, disk.clone()));
                continue;
            }
        };
        found.missing.push(json!({ "instance": member.instance_name, "disk": member.disk_name, "why": why }));
    }
    Ok(found)
}

fn is_missing(snapshot: &SnapshotRow, found: &Found) -> AppError {
    let said = |one: &Value| {
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}: {}", text("instance"), text("disk"), text("why"))
    };
    let shown: Vec<String> = listed(&found.missing).iter().map(said).collect();
    let more = found.missing.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let detail = format!(
        "{} of the {} disks in snapshot '{}' cannot be restored: {}{more}. To restore the others all the same, say \
         --allow-missing (in the API allow_missing)",
        found.missing.len(),
        found.missing.len() + found.disks.len(),
        snapshot.name,
        shown.join("; ")
    );
    Problem::new(ErrorCode::WrongState, detail).with("missing", listed(&found.missing)).into()
}

/// Refuses if something else is done with the instances or their disks, or if nobody knows what they do.
async fn refuse(tx: &mut Tx, found: &Found) -> Result<(), AppError> {
    let rows: Vec<InstanceRow> = found.instances.values().cloned().collect();
    check_idle(&rows)?;
    for row in &rows {
        refuse_state(row)?;
        refuse_if_away(tx, row).await?;
    }
    for (member, disk) in &found.disks {
        if disk.path.is_some() && disk.reported_generation.is_none() {
            let detail = format!(
                "the agent of the node of {} is too old to put another content in place: update it, or deploy from the snapshot",
                member.instance_name
            );
            return Err(Problem::new(ErrorCode::WrongState, detail).with("state", "attached").into());
        }
    }
    let disks: Vec<_> = found.disks.iter().map(|(_, disk)| disk.id).collect();
    give_up_scheduled(tx, &disks, "a restore").await?;
    match snapshots::busy_with(tx, &disks).await? {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}

/// Refuses unless the instance can be stopped on its node.
fn refuse_state(row: &InstanceRow) -> Result<(), AppError> {
    let name = &row.name;
    let refused = |detail: String| {
        let problem = Problem::new(ErrorCode::WrongState, detail).with("state", word(row.life.state));
        let allowed = ["starting", "running", "paused", "stopping", "stopped"];
        Err(problem.with("instance", row.id.to_string()).with("allowed", allowed).into())
    };
    match row.life.state {
        InstanceState::Unknown => {
            let detail = format!("{name} is unknown: its node is silent, so its disks cannot be put back");
            Err(Problem::new(ErrorCode::MemberUnknown, detail).with("instance", row.id.to_string()).into())
        }
        InstanceState::Migrating => refused(format!("{name} moves to another node: try again when it is there")),
        _ if row.life.is_node_lost() => {
            refused(format!("the node of {name} is lost: `recover` it first, then restore the snapshot"))
        }
        _ if row.life.node.is_none() || row.life.evicting => {
            refused(format!("{name} has no node: start it or try it again first, then restore the snapshot"))
        }
        _ => Ok(()),
    }
}
