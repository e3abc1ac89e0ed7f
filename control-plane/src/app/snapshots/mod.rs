//! Snapshots: asked for, published as a whole, renamed, restored in place, unlinked. The nodes make the cut between them.

pub(crate) mod attempt;
mod calls;
mod create;
mod publish;
mod restore;
pub(crate) mod restoring;
mod view;

use serde_json::json;

pub(crate) use self::{
    attempt::{discard, failed, give_up, tell_nodes},
    calls::unlink,
    create::{Part, Speed, begin_own, begin_scheduled, give_up_scheduled, in_the_way, part},
    publish::publish,
};
use crate::store::{events::NewEvent, snapshots::SnapshotRow};

/// The event that tells a snapshot's state. `actor` is a token's name or `muster`.
fn event(row: &SnapshotRow, actor: &str) -> NewEvent {
    let mut data = json!({ "state": row.state });
    if let Some(reason) = &row.reason {
        data["reason"] = reason.as_str().into();
    }
    NewEvent {
        operation: Some(row.operation),
        actor: actor.to_owned(),
        data,
        labels: row.labels.clone(),
        deployment: row.deployment,
        ..NewEvent::new("snapshot.state", row.project.clone(), row.target())
    }
}
