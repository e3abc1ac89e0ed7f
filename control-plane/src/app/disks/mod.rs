//! Disks that live longer than the start of their instance: shown, grown, attached, detached, deleted.

mod attach;
mod calls;
mod detach;
mod view;

use muster_api::{DiskId, ErrorCode, Problem, disk::DiskState, instance::InstanceState, operation::Target};
use serde_json::json;

pub(crate) use self::detach::drive;
use super::AppError;
use crate::{
    domain::instance::word as instance_word,
    store::{
        column,
        disks::DetachedRow,
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

/// The refusal of what the state of a disk does not allow, for a reason that the state alone does not say.
fn refused(state: DiskState, detail: impl Into<String>) -> AppError {
    let state = column::word_text(state).expect("a state is a word");
    Problem::new(ErrorCode::WrongState, detail).with("state", state).into()
}
