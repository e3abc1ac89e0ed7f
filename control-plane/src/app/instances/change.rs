//! The one way the rows of instances change: an edge of `domain/instance.rs` makes a [`Changed`], [`save`] writes many
//! of them and tells everybody concerned.

use std::collections::BTreeSet;

use muster_api::{
    ErrorCode, InstanceId, NodeId, Problem, instance::InstanceState, node_protocol::Wanted, operation::Operation,
};
use serde_json::{Value, json};

use super::super::{AppError, StoreError, begin_operation};
use crate::{
    domain::instance::{Edge, Life, Refused, Step, step, word},
    store::{
        Tx,
        events::{self, NewEvent},
        instances::{self, InstanceRow},
        nics,
        operations::{NewOperation, Origin},
    },
    wake::Loop,
};

/// An instance before and after a change.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// Its life as it was loaded.
    pub before: Life,
    /// Its row as it is to be saved.
    pub after: InstanceRow,
}

impl Changed {
    /// What an edge makes of an instance; `None` if nothing changes.
    pub(crate) fn by(row: InstanceRow, edge: &Edge<'_>, tx: &Tx) -> Result<Option<Self>, Refused> {
        let life = row.life.after(edge, tx.now())?;
        if life == row.life {
            return Ok(None);
        }
        Ok(Some(Self { before: row.life, after: InstanceRow { life, ..row } }))
    }

    /// An instance that stays as it is and that a new operation is to wait for.
    pub(crate) fn not_at_all(row: InstanceRow) -> Self {
        Self { before: row.life.clone(), after: row }
    }

    /// Whether its node is to be told something new.
    fn told_otherwise(&self) -> bool {
        let told = |life: &Life| (life.wanted, life.boot, life.generation, life.node, life.stop);
        told(&self.before) != told(&self.after.life)
    }

    /// Whether the networks of its cards get a member on a node or lose one. What is being deleted has left them.
    fn comes_or_leaves(&self) -> bool {
        let place = |life: &Life| life.node.filter(|_| life.wanted != Wanted::Gone);
        place(&self.before) != place(&self.after.life)
    }

    /// Whether those who watch it see something new.
    fn seen_otherwise(&self) -> bool {
        let kinds = |life: &Life| life.conditions.iter().map(|one| one.kind.clone()).collect::<Vec<_>>();
        let seen = |life: &Life| (life.state, life.is_ready(), life.reason.clone(), kinds(life));
        seen(&self.before) != seen(&self.after.life)
    }
}

/// What an edge makes of each instance. Instances whose state does not allow the edge stay as they are.
pub(crate) fn all_by(rows: impl IntoIterator<Item = InstanceRow>, edge: &Edge<'_>, tx: &Tx) -> Vec<Changed> {
    rows.into_iter().filter_map(|row| Changed::by(row, edge, tx).ok().flatten()).collect()
}

/// What deleting makes of a member; one that is being deleted stays as it is and is waited for as well.
pub(crate) fn deleted(row: InstanceRow, tx: &Tx) -> Option<Changed> {
    if row.life.state == InstanceState::Deleting {
        return Some(Changed::not_at_all(row));
    }
    Changed::by(row, &Edge::Delete, tx).ok().flatten()
}

/// Saves what changed: the rows, their events, the desired state of their nodes.
pub(crate) async fn save(tx: &mut Tx, actor: &str, changed: &[Changed]) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    // Before the rows change: the cards of those that are deleted go with them.
    let moved: Vec<InstanceId> = changed.iter().filter(|c| c.comes_or_leaves()).map(|c| c.after.id).collect();
    nics::members_changed(tx, &moved).await?;
    instances::save_many(tx, changed.iter().map(|c| (&c.after, c.before.node))).await?;
    // An instance that lost its node is still news of that node.
    let told = |c: &Changed| NewEvent { node: c.after.life.node.or(c.before.node), ..event(&c.after, actor) };
    let seen = changed.iter().filter(|c| c.seen_otherwise()).map(told).collect();
    events::append_many(tx, seen).await?;
    let told: BTreeSet<NodeId> = changed
        .iter()
        .filter(|c| c.told_otherwise())
        .flat_map(|c| [c.before.node, c.after.life.node])
        .flatten()
        .collect();
    for node in told {
        tx.bump_desired(node);
    }
    tx.wake(Loop::Deployments);
    tx.wake(Loop::Restores);
    let leaves = |c: &Changed| {
        let goes = matches!(c.after.life.state, InstanceState::Deleting | InstanceState::Deleted);
        goes || (c.before.node.is_some() && c.after.life.node.is_none())
    };
    if changed.iter().any(leaves) {
        // A snapshot under way that has this member has to fail.
        tx.wake(Loop::Snapshots);
    }
    Ok(())
}

/// Begins an operation that waits for the changed instances, and saves them.
pub(crate) async fn begin(
    tx: &mut Tx,
    origin: &Origin,
    new: NewOperation,
    mut changed: Vec<Changed>,
) -> Result<Operation, AppError> {
    let operation = begin_operation(tx, origin, new).await?;
    for change in &mut changed {
        change.after.operation = Some(operation.id);
    }
    save(tx, &origin.actor, &changed).await?;
    tx.wake(Loop::Deployments);
    Ok(operation)
}

/// The event that tells an instance's state. `actor` is a token's name, `node:NAME` or `muster`.
pub(crate) fn event(row: &InstanceRow, actor: &str) -> NewEvent {
    let mut data = json!({ "state": word(row.life.state), "ready": row.life.is_ready() });
    if let Some(reason) = &row.life.reason {
        data["reason"] = reason.as_str().into();
    }
    if !row.life.conditions.is_empty() {
        data["conditions"] = json!(row.life.conditions);
    }
    NewEvent { operation: row.operation, ..event_of("instance.state", row, actor, data) }
}

/// An event of this kind about an instance, with these fields.
pub(crate) fn event_of(kind: &'static str, row: &InstanceRow, actor: &str, data: Value) -> NewEvent {
    NewEvent {
        actor: actor.to_owned(),
        data,
        labels: row.labels.clone(),
        deployment: Some(row.deployment),
        node: row.life.node,
        ..NewEvent::new(kind, row.project.clone(), row.target())
    }
}

/// Refuses if an operation waits for one of the instances.
pub(crate) fn check_idle(rows: &[InstanceRow]) -> Result<(), AppError> {
    match rows.iter().find_map(|row| row.operation) {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}

/// The refusal of an edge that the state does not allow.
pub(crate) fn refused(refusal: &Refused) -> AppError {
    let (state, allowed) = (word(refusal.state), refusal.allowed.iter().map(|state| word(*state)).collect::<Vec<_>>());
    match refusal.hint {
        None => AppError::WrongState { kind: "instance", state: state.to_owned(), allowed },
        Some(hint) => Problem::new(ErrorCode::WrongState, format!("the instance is {state}: {hint}"))
            .with("state", state)
            .with("allowed", allowed)
            .into(),
    }
}

/// Whether an operation on the instance still has to wait for it.
pub(crate) fn under_way(row: &InstanceRow) -> bool {
    step(row.life.state, row.life.wanted, row.life.is_ready(), row.life.gave_up()) == Step::UnderWay
}
