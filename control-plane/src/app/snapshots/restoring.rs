//! A restore under way, step by step (`domain/restore.rs`): stop, keep the present, put the content in place, start.
//!
//! Everything is in rows, so a controller that was killed at any instant goes on where it was. An instance that is deleted
//! meanwhile leaves the restore, and the others go on.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DiskId, ErrorCode, InstanceId, NodeId, OperationId, Problem, Reason, SnapshotId,
    instance::InstanceState,
    operation::{Operation, OperationState, Progress, WaitingOn},
    snapshot::SnapshotState,
};
use serde_json::{Value, json};
use storage_core::units::u64_from;

use super::{
    super::{
        AppError,
        instances::{Changed, change::event_of, save},
    },
    attempt::discard,
    create::{begin_kept, give_up_scheduled},
    restore::{LISTED_MAX, start_again},
};
use crate::{
    domain::{
        instance::{Edge, Step as Way, step, word},
        restore::{Back, KEEP_AGAIN_MS, KEEP_MS, Kept, Next, Off, START_MS, Seen, Step, plan},
    },
    store::{
        Tx, events,
        instances::{self, DiskRow, InstanceRow},
        nodes,
        operations::{self, Outcome},
        restores::{self, RestoreDiskRow, RestoreRow},
        snapshots,
    },
};

/// Whether a snapshot has all that disks hold.
enum Holds {
    All,
    /// Not what was written to this disk since.
    Lacks(DiskId),
    /// A node has not yet told what its disk holds beyond it.
    NotKnown,
}

/// A restore as one transaction sees it.
struct Restore {
    row: RestoreRow,
    operation: Operation,
    /// What is to be restored, also of instances that have left.
    disks: Vec<RestoreDiskRow>,
    /// The instances that still take part, by id.
    members: BTreeMap<InstanceId, InstanceRow>,
    /// The disks that they have.
    has: BTreeMap<DiskId, DiskRow>,
}

/// Does what comes next for the restore of this operation. True when something changed.
pub(crate) async fn drive(tx: &mut Tx, id: OperationId) -> Result<bool, AppError> {
    let Some(row) = restores::load(tx, id).await? else { return Ok(false) };
    let operation = operations::load(tx, id).await?.filter(|operation| !operation.state.is_final());
    let disks = restores::disks_of(tx, id).await?;
    let Some(operation) = operation else {
        // Somebody else ended it: its time was long over.
        let ids: Vec<InstanceId> = disks.iter().map(|disk| disk.instance).collect();
        let nodes = instances::load_many(tx, &ids).await?.into_iter().filter_map(|instance| instance.life.node);
        nodes.for_each(|node| tx.bump_desired(node));
        restores::forget(tx, id).await?;
        return Ok(true);
    };
    let ids: BTreeSet<InstanceId> = disks.iter().map(|disk| disk.instance).collect();
    let ids: Vec<InstanceId> = ids.into_iter().collect();
    let takes_part = |instance: &InstanceRow| {
        let goes = matches!(instance.life.state, InstanceState::Deleting | InstanceState::Deleted);
        instance.operation == Some(id) && !goes
    };
    let members = instances::load_many(tx, &ids).await?.into_iter().filter(takes_part);
    let members = members.map(|instance| (instance.id, instance)).collect();
    let has = instances::disks_of(tx, &ids).await?.into_values().flatten().map(|disk| (disk.id, disk)).collect();
    let restore = Restore { row, operation, disks, members, has };
    match restore.row.step {
        Step::Stopping | Step::Saving => restore.before(tx).await,
        Step::Starting => restore.after(tx).await,
    }
}

/// Ends the restore of a snapshot that is deleted, if there is one. What was not put in place yet stays as it is.
pub(super) async fn end_of(tx: &mut Tx, snapshot: SnapshotId) -> Result<(), AppError> {
    let Some(running) = operations::running_on(tx, "snapshot", &snapshot.to_string()).await? else { return Ok(()) };
    let Some(row) = restores::load(tx, running).await? else { return Ok(()) };
    if row.step == Step::Starting {
        // The disks have their content, and the instances are told to start. Nobody waits for that any more.
        instances::release(tx, running).await?;
        restores::forget(tx, running).await?;
        return Ok(operations::finish(tx, running, Outcome::Cancelled(None)).await?);
    }
    let disks = restores::disks_of(tx, running).await?;
    let members = instances::of_operation(tx, running).await?;
    take_back(tx, &row, &disks, members, Outcome::Cancelled).await
}

/// Takes back what was done before the content was put in place: the snapshot that was to keep the present goes, and the
/// instances that ran are started.
async fn take_back(
    tx: &mut Tx,
    row: &RestoreRow,
    disks: &[RestoreDiskRow],
    members: Vec<InstanceRow>,
    outcome: impl FnOnce(Option<Value>) -> Outcome,
) -> Result<(), AppError> {
    if let Some(kept) = row.kept {
        discard(tx, kept).await?;
    }
    let left_off = start_again(tx, row, disks, members).await?;
    let shown = left_off.get(..LISTED_MAX).unwrap_or(&left_off);
    let result = json!({ "snapshot": row.snapshot, "instances": 0, "disks": 0, "not_started": shown });
    operations::note_result(tx, row.operation, &result).await?;
    restores::forget(tx, row.operation).await?;
    operations::finish(tx, row.operation, outcome(Some(result))).await?;
    Ok(())
}

impl Restore {
    fn is_cancelling(&self) -> bool {
        self.operation.state == OperationState::Cancelling
    }

    /// The disks that can be put in place now: their instances take part and still have them.
    fn present(&self) -> impl Iterator<Item = (&RestoreDiskRow, &DiskRow, &InstanceRow)> {
        self.disks.iter().filter_map(|disk| {
            let instance = self.members.get(&disk.instance)?;
            let has = self.has.get(&disk.disk)?;
            (has.instance == instance.id && has.leaving_since.is_none()).then_some((disk, has, instance))
        })
    }

    /// The steps before the content is put in place.
    async fn before(mut self, tx: &mut Tx) -> Result<bool, AppError> {
        let mut acted = self.stop_again(tx).await?;
        let seen = Seen {
            step: self.row.step,
            discard: self.row.discard,
            members: self.members.values().map(|member| self.off(member)).collect(),
            kept: self.kept(tx).await?,
            cancelling: self.is_cancelling(),
            until: self.row.until,
        };
        let waits = match plan(&seen, tx.now()) {
            Next::Wait(waits) => waits,
            Next::Keep => match self.keep(tx).await? {
                None => return Ok(true),
                Some(why) => {
                    acted |= seen.step == Step::Stopping;
                    vec![why]
                }
            },
            Next::Put => match self.put(tx).await? {
                None => return Ok(true),
                Some(why) if tx.now() >= self.row.until => return self.fail(tx, &why).await,
                Some(why) => vec![why],
            },
            Next::Cancel | Next::Nothing => {
                let members = self.members.values().cloned().collect();
                take_back(tx, &self.row, &self.disks, members, Outcome::Cancelled).await?;
                return Ok(true);
            }
            Next::Fail(why) => return self.fail(tx, &why).await,
        };
        self.note(tx, &waits).await?;
        Ok(acted)
    }

    /// Tells instances to stop that are meant to run again or have failed meanwhile.
    async fn stop_again(&mut self, tx: &mut Tx) -> Result<bool, AppError> {
        let edge = Edge::Stop(self.row.stop());
        let is_off = |row: &InstanceRow| matches!(row.life.state, InstanceState::Stopped | InstanceState::Stopping);
        let to_stop = self.members.values().filter(|row| !is_off(row)).cloned();
        let changed: Vec<Changed> = to_stop.filter_map(|row| Changed::by(row, &edge, tx).ok().flatten()).collect();
        save(tx, "muster", &changed).await?;
        for change in &changed {
            let row = instances::load(tx, change.after.id).await?.expect("it was just saved");
            self.members.insert(row.id, row);
        }
        Ok(!changed.is_empty())
    }

    /// How far an instance is with being off.
    fn off(&self, member: &InstanceRow) -> Off {
        let name = &member.name;
        match member.life.state {
            InstanceState::Unknown => Off::NotYet(format!("{name}: its node is silent")),
            InstanceState::Stopped => {
                let open = self.present().find(|(disk, has, _)| {
                    disk.instance == member.id && disk.closed && has.path.is_some() && has.in_guest != Some(false)
                });
                match open {
                    Some((disk, ..)) => Off::NotYet(format!("{name}: the file of disk '{}' is open", disk.disk_name)),
                    None => Off::Yes,
                }
            }
            _ if member.life.node.is_none() => Off::Never(format!("{name} has no node any more: its node was lost")),
            state => {
                let why = member.life.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                Off::NotYet(format!("{name}: {}{why}", word(state)))
            }
        }
    }

    /// How far the snapshot is that keeps the present. One that failed because an instance was deleted is taken again, of the
    /// others, and so is one that lacks what was written since.
    async fn kept(&mut self, tx: &mut Tx) -> Result<Kept, AppError> {
        let Some(id) = self.row.kept else { return Ok(Kept::No) };
        let Some(row) = snapshots::load(tx, id).await? else {
            return Ok(Kept::Failed("its snapshot is gone".to_owned()));
        };
        Ok(match row.state {
            SnapshotState::Ready => match self.holds(tx, id).await? {
                Holds::All => Kept::Ready,
                Holds::Lacks(disk) if tx.now().ms_since(row.updated_at) >= KEEP_AGAIN_MS => {
                    tracing::info!(
                        op.id = %self.row.operation, disk.id = %disk,
                        "a disk was written to after the snapshot that keeps it: another one is taken"
                    );
                    self.drop_kept(tx, id).await?;
                    Kept::No
                }
                Holds::Lacks(_) | Holds::NotKnown => Kept::UnderWay,
            },
            SnapshotState::Cutting | SnapshotState::Saving => Kept::UnderWay,
            SnapshotState::Failed if row.reason == Some(Reason::MemberLost) && tx.now() < self.row.until => {
                self.drop_kept(tx, id).await?;
                Kept::No
            }
            _ => {
                let reason = row.reason.as_ref().map_or("it was deleted", |reason| reason.as_str());
                Kept::Failed(format!("snapshot '{}': {}", row.name, row.refused_detail.as_deref().unwrap_or(reason)))
            }
        })
    }

    /// Whether this snapshot has all that the disks hold now, as their nodes say. A guest may have run once more after the cut,
    /// and another snapshot may have saved what it wrote.
    async fn holds(&self, tx: &mut Tx, kept: SnapshotId) -> Result<Holds, AppError> {
        let members = snapshots::members(tx, kept).await?;
        let cut: BTreeMap<DiskId, _> = members.into_iter().map(|member| (member.disk, member.version)).collect();
        let mut holds = Holds::All;
        for (_, has, _) in self.present().filter(|(_, has, _)| has.path.is_some()) {
            // What is in no such snapshot is not put back.
            let Some(version) = cut.get(&has.id) else { continue };
            if *version != Some(has.version) {
                return Ok(Holds::Lacks(has.id));
            }
            if has.reported_version != Some(has.version) {
                holds = Holds::NotKnown;
            } else if has.unsaved_bytes > 0 {
                return Ok(Holds::Lacks(has.id));
            }
        }
        Ok(holds)
    }

    /// Discards the snapshot that was to keep the present, so that another one is taken.
    async fn drop_kept(&mut self, tx: &mut Tx, id: SnapshotId) -> Result<(), AppError> {
        discard(tx, id).await?;
        self.row.kept = None;
        Ok(restores::save(tx, &self.row).await?)
    }

    /// Begins the snapshot that keeps the present. Returns why that cannot be done now.
    async fn keep(&mut self, tx: &mut Tx) -> Result<Option<String>, AppError> {
        if self.row.step == Step::Stopping {
            (self.row.step, self.row.until) = (Step::Saving, tx.now().plus_ms(KEEP_MS));
            restores::save(tx, &self.row).await?;
        }
        let members = self.members.values().cloned().collect();
        match begin_kept(tx, self.row.snapshot, members).await {
            Ok(kept) => {
                self.row.kept = Some(kept);
                restores::save(tx, &self.row).await?;
                self.note(tx, &["a snapshot keeps what the disks hold now".to_owned()]).await?;
                Ok(None)
            }
            Err(refusal @ (AppError::Problem(_) | AppError::WrongState { .. } | AppError::Busy { .. })) => {
                Ok(Some(format!("what the disks hold now cannot be kept yet: {refusal}")))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the content in place, in one transaction for all. Returns why that cannot be done now.
    async fn put(&mut self, tx: &mut Tx) -> Result<Option<String>, AppError> {
        let all: Vec<DiskId> = self.present().map(|(disk, ..)| disk.disk).collect();
        give_up_scheduled(tx, &all, "a restore").await?;
        if let Some(other) = snapshots::busy_with(tx, &all).await? {
            return Ok(Some(format!("another snapshot has these disks: operation {other}")));
        }
        // A disk that came back in between is in no snapshot that keeps it.
        let in_kept: Option<BTreeSet<DiskId>> = match self.row.kept {
            Some(kept) => Some(snapshots::members(tx, kept).await?.into_iter().map(|member| member.disk).collect()),
            None => None,
        };
        let is_kept = |disk: &DiskRow| in_kept.as_ref().is_none_or(|kept| kept.contains(&disk.id));
        // One whose node never made it holds nothing.
        let is_safe = |disk: &DiskRow| is_kept(disk) || disk.path.is_none();
        let going = self.present().filter(|(_, has, _)| is_safe(has));
        let going: Vec<(RestoreDiskRow, u64)> =
            going.map(|(disk, _, instance)| (disk.clone(), instance.life.generation + 1)).collect();
        let put: BTreeSet<DiskId> = going.iter().map(|(disk, _)| disk.disk).collect();
        let run: BTreeSet<InstanceId> = self.disks.iter().filter(|d| d.runs).map(|d| d.instance).collect();
        let mut changed = Vec::new();
        for member in self.members.values() {
            let edge = Edge::Restore { run: run.contains(&member.id) };
            match Changed::by(member.clone(), &edge, tx) {
                Ok(change) => changed.extend(change),
                // Only what is off is put back, and the plan saw that it is.
                Err(refused) => return Ok(Some(format!("{}: {refused}", member.name))),
            }
        }
        restores::put(tx, &self.row, &going).await?;
        save(tx, "muster", &changed).await?;
        for change in &changed {
            let n = going.iter().filter(|(disk, _)| disk.instance == change.after.id).count();
            let data = json!({ "snapshot": self.row.snapshot, "disks": n, "kept_snapshot": self.row.kept });
            events::append(tx, event_of("instance.restored", &change.after, "muster", data)).await?;
        }
        (self.row.step, self.row.until) = (Step::Starting, tx.now().plus_ms(START_MS));
        restores::save(tx, &self.row).await?;
        self.tell_result(tx, &put).await?;
        tracing::info!(
            op.id = %self.row.operation, disks = put.len(), instances = changed.len(),
            "snapshot {} is restored; its instances go on with it", self.row.snapshot_name
        );
        self.note(tx, &[]).await?;
        Ok(None)
    }

    /// Notes what was put in place, beside what was left out from the beginning.
    async fn tell_result(&self, tx: &mut Tx, put: &BTreeSet<DiskId>) -> Result<(), AppError> {
        let known = self.operation.result.as_ref().and_then(|result| result["left_out"].as_array());
        let mut left_out = known.cloned().unwrap_or_default();
        let left = self.disks.iter().filter(|disk| !put.contains(&disk.disk));
        left_out.extend(left.map(|disk| {
            let why = "it was detached or deleted meanwhile";
            json!({ "instance": disk.instance_name, "disk": disk.disk_name, "why": why })
        }));
        left_out.truncate(LISTED_MAX);
        let kept_name = match self.row.kept {
            Some(kept) => snapshots::load(tx, kept).await?.map(|kept| kept.name),
            None => None,
        };
        let result = json!({ "snapshot": self.row.snapshot, "instances": self.members.len(), "disks": put.len(),
            "kept_snapshot": self.row.kept, "kept_snapshot_name": kept_name, "left_out": left_out });
        Ok(operations::note_result(tx, self.row.operation, &result).await?)
    }

    /// After the content was put in place: ends the operation once all are as they were, or its time is over.
    async fn after(self, tx: &mut Tx) -> Result<bool, AppError> {
        let (mut done, mut waits, mut failed) = (0, Vec::new(), Vec::new());
        for member in self.members.values() {
            match self.back(member) {
                Back::Yes => done += 1,
                Back::NotYet(what) => waits.push(what),
                Back::Failed(why) => failed.push(why),
            }
        }
        let late = tx.now() >= self.row.until;
        let total = u64_from(self.members.len());
        let progress =
            Progress { done, total, failed: u64_from(failed.len()), unit: self.operation.progress.unit.clone() };
        if !waits.is_empty() && !late {
            let waiting = self.waiting_on(tx, &waits).await?;
            operations::note(tx, &self.operation, self.row.step.word(), &progress, &waiting).await?;
            return Ok(false);
        }
        let outcome = if self.members.is_empty() {
            Outcome::Cancelled(None)
        } else if waits.is_empty() && failed.is_empty() {
            Outcome::Succeeded(None)
        } else {
            failed.append(&mut waits);
            let shown = failed.get(..LISTED_MAX).unwrap_or(&failed).join("; ");
            let time = if late { "; the time for that was over" } else { "" };
            let detail = format!(
                "all disks have the content of snapshot '{}', and {done} of {total} instances are as they were before: \
                 {shown}{time}",
                self.row.snapshot_name
            );
            Outcome::Failed(Problem::new(ErrorCode::Unavailable, detail))
        };
        operations::progress(tx, self.row.operation, "done", &progress, &[]).await?;
        instances::release(tx, self.row.operation).await?;
        restores::forget(tx, self.row.operation).await?;
        operations::finish(tx, self.row.operation, outcome).await?;
        Ok(true)
    }

    /// How far an instance is with being as it was.
    fn back(&self, member: &InstanceRow) -> Back {
        let life = &member.life;
        let said = || {
            let why = life.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{}: {}{why}", member.name, word(life.state))
        };
        let mut put = self.present().filter(|(disk, _, instance)| disk.restored && instance.id == member.id);
        match step(life.state, life.wanted, life.is_ready(), life.gave_up()) {
            Way::Failed => Back::Failed(said()),
            Way::UnderWay | Way::Unknown => Back::NotYet(said()),
            Way::Done => match put.find(|(_, has, _)| !has.is_in_place()) {
                None => Back::Yes,
                Some((disk, has, _)) => {
                    let why = has.said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
                    Back::NotYet(format!("{}: disk '{}' is put in place{why}", member.name, disk.disk_name))
                }
            },
        }
    }

    async fn fail(&self, tx: &mut Tx, why: &str) -> Result<bool, AppError> {
        let detail = format!(
            "nothing was restored, and the instances that ran are started again: {why}{}",
            if self.row.discard { "" } else { ". With discard_current what the disks hold now is not kept" }
        );
        let problem = Problem::new(ErrorCode::Unavailable, detail);
        let members = self.members.values().cloned().collect();
        take_back(tx, &self.row, &self.disks, members, |_| Outcome::Failed(problem)).await?;
        Ok(true)
    }

    async fn note(&self, tx: &mut Tx, waits: &[String]) -> Result<(), AppError> {
        let total = u64_from(self.members.len());
        let progress = Progress { done: 0, total, failed: 0, unit: self.operation.progress.unit.clone() };
        let waiting = self.waiting_on(tx, waits).await?;
        Ok(operations::note(tx, &self.operation, self.row.step.word(), &progress, &waiting).await?)
    }

    /// What the operation waits for. A sentence about an instance begins with its name; its node is told beside it.
    async fn waiting_on(&self, tx: &mut Tx, waits: &[String]) -> Result<Vec<WaitingOn>, AppError> {
        let names = nodes::names(tx).await?;
        let (since, deadline) = (tx.now(), Some(self.row.until));
        let node_of = |what: &str| -> Option<NodeId> {
            let (name, _) = what.split_once(": ")?;
            self.members.values().find(|member| member.name == name)?.life.node
        };
        let entry = |what: &String| {
            let node = node_of(what);
            let node_name = node.and_then(|node| names.get(&node).cloned());
            WaitingOn { what: what.clone(), node, node_name, since, deadline }
        };
        Ok(waits.iter().take(operations::WAITING_MAX).map(entry).collect())
    }
}
