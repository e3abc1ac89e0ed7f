//! Disks that live longer than the start of their instance: shown, grown, attached, detached, deleted.

mod attach;
mod calls;
mod detach;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{DiskId, ErrorCode, InstanceId, Problem, disk::DiskState, instance::InstanceState, operation::Target};
use serde_json::json;

pub(crate) use self::detach::drive;
use super::AppError;
use crate::{
    domain::instance::word as instance_word,
    store::{
        Tx, column,
        disks::{self, DetachedRow},
        events::NewEvent,
        instances::{DiskRow, InstanceRow},
    },
};

/// The states of an instance in which disks are attached to it.
const TAKES_DISKS: [InstanceState; 6] = [
    InstanceState::Pending,
    InstanceState::Starting,
    InstanceState::Running,
    InstanceState::Paused,
    InstanceState::Stopping,
    InstanceState::Stopped,
];

/// How events name a disk.
fn target(id: DiskId, name: &str, instance_name: Option<&str>) -> Target {
    let name = instance_name.map_or_else(|| name.to_owned(), |instance| format!("{instance}/{name}"));
    Target { kind: "disk".to_owned(), id: id.to_string(), name }
}

/// The event that tells the state of a disk of an instance. `actor` is a token's name, `node:NAME` or `muster`.
pub(crate) fn event(row: &DiskRow, instance: &InstanceRow, actor: &str) -> NewEvent {
    NewEvent {
        actor: actor.to_owned(),
        data: json!({ "state": row.state(), "size_bytes": row.size_bytes, "instance": instance.id }),
        labels: instance.labels.clone(),
        deployment: Some(instance.deployment),
        node: instance.life.node,
        ..NewEvent::new("disk.state", row.project.clone(), target(row.id, &row.name, Some(&instance.name)))
    }
}

/// The same of a disk of no instance.
fn detached_event(kind: &'static str, row: &DetachedRow, actor: &str) -> NewEvent {
    let data = json!({ "state": DiskState::Detached, "size_bytes": row.size_bytes, "version": row.version });
    NewEvent {
        actor: actor.to_owned(),
        data,
        ..NewEvent::new(kind, row.project.clone(), target(row.id, &row.name, None))
    }
}

/// Refuses unless the instance is in one of these states.
fn check_instance(row: &InstanceRow, allowed: &[InstanceState]) -> Result<(), AppError> {
    if allowed.contains(&row.life.state) {
        return Ok(());
    }
    Err(AppError::WrongState {
        kind: "instance",
        state: instance_word(row.life.state).to_owned(),
        allowed: allowed.iter().map(|state| instance_word(*state)).collect(),
    })
}

/// Refuses to delete instances while one of their disks is being detached: it would go with its instance, and somebody wants
/// to keep it. What has lost its node has nothing more to save.
pub(crate) async fn refuse_if_leaving(tx: &mut Tx, instances: &[InstanceRow]) -> Result<(), AppError> {
    let leaving = leaving_of(tx, instances).await?;
    let of = |instance: &InstanceRow| leaving.get(&instance.id).map(|row| (row.clone(), instance.name.clone()));
    let Some((row, name)) = instances.iter().find_map(of) else { return Ok(()) };
    let detail = format!(
        "disk {name}/{} is being detached and would be deleted with its instance: wait until it is detached, or attach it to \
         {name} again, which takes the detach back",
        row.name
    );
    Err(problem(row.state(), detail).with("disk", row.id.to_string()).into())
}

/// Those of the instances that may be deleted: none of their disks is being detached.
pub(crate) async fn without_leaving(tx: &mut Tx, instances: Vec<InstanceRow>) -> Result<Vec<InstanceRow>, AppError> {
    let leaving = leaving_of(tx, &instances).await?;
    Ok(instances.into_iter().filter(|instance| !leaving.contains_key(&instance.id)).collect())
}

/// The disks that are being detached, by their instances: one of each that is not deleted already and has a node.
async fn leaving_of(tx: &mut Tx, of: &[InstanceRow]) -> Result<BTreeMap<InstanceId, DiskRow>, AppError> {
    let has_more = |row: &&InstanceRow| row.life.state != InstanceState::Deleting && !row.life.awaits_recovery();
    let ids: BTreeSet<InstanceId> = of.iter().filter(has_more).map(|row| row.id).collect();
    let rows = disks::leaving(tx).await?.into_iter().filter(|row| ids.contains(&row.instance));
    Ok(rows.map(|row| (row.instance, row)).collect())
}

/// The refusal of what the state of a disk does not allow, for a reason that the state alone does not say.
fn refused(state: DiskState, detail: impl Into<String>) -> AppError {
    problem(state, detail).into()
}

fn problem(state: DiskState, detail: impl Into<String>) -> Problem {
    let state = column::word_text(state).expect("a state is a word");
    Problem::new(ErrorCode::WrongState, detail).with("state", state)
}
