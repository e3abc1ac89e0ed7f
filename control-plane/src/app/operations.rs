//! Slow work as callers see it: begin, look, wait, cancel.

use std::time::Duration;

use muster_api::{
    OperationId, Page,
    operation::{Operation, OperationState},
};

use super::{
    Answer, App, AppError, Caller, Once,
    list::ListQuery,
    sight::{POOL, Sight},
};
use crate::{
    store::{
        Tx,
        operations::{self, NewOperation, Origin},
    },
    wake::Loop,
};

/// How often a waiting call looks without having been woken, because another controller may have changed the operation.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Begins an operation.
///
/// # Errors
/// [`AppError::Busy`] if one runs on the target.
pub async fn begin_operation(tx: &mut Tx, origin: &Origin, new: NewOperation) -> Result<Operation, AppError> {
    refuse_if_busy(tx, &new.target.kind, &new.target.id).await?;
    Ok(operations::create(tx, origin, new).await?)
}

/// Refuses if an operation runs on the target.
pub(crate) async fn refuse_if_busy(tx: &mut Tx, kind: &str, id: &str) -> Result<(), AppError> {
    match operations::running_on(tx, kind, id).await? {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}

/// The operation with this id, which was written or found in this transaction.
pub(crate) async fn existing(tx: &mut Tx, id: OperationId) -> Result<Operation, AppError> {
    operations::load(tx, id).await?.ok_or_else(|| AppError::not_found("operation", id))
}

/// Wakes the loops that work on operations.
pub(crate) fn wake_workers(tx: &mut Tx) {
    tx.wake(Loop::Deployments);
    tx.wake(Loop::Instances);
    tx.wake(Loop::Snapshots);
    tx.wake(Loop::Restores);
}

impl App {
    /// One operation. With `wait` the answer comes when it has ended, or after that time.
    pub async fn operation(
        &self,
        caller: &Caller,
        id: OperationId,
        wait: Option<Duration>,
    ) -> Result<Operation, AppError> {
        let end = tokio::time::Instant::now() + wait.unwrap_or_default();
        let mut watch = self.store.wakes().watch_operations();
        loop {
            watch.mark_unchanged();
            let (found, sight) = self
                .store
                .read("operations.show", async |tx| {
                    let sight = Sight::of(tx, caller.is_operator()).await?;
                    Ok::<_, AppError>((find(tx, caller, id).await?, sight))
                })
                .await?;
            let now = tokio::time::Instant::now();
            if found.state.is_final() || now >= end || self.closing.is_cancelled() {
                return Ok(sight.operation(found));
            }
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = self.token_ended(caller) => return Err(caller.refused()),
                _ = tokio::time::timeout_at(end.min(now + LOOK_EVERY), watch.changed()) => {}
            }
        }
    }

    /// A page of a project's operations, oldest first.
    pub async fn operations(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Operation>, AppError> {
        list.filter.states_of::<OperationState>()?;
        list.filter.allowed_to(caller)?;
        self.store
            .read("operations.list", async |tx| {
                let sight = Sight::of(tx, caller.is_operator()).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = operations::list(tx, after, caller.list_project(), &list.filter.targets, n).await?;
                    let keep = |(_, operation)| {
                        let is_wanted = wanted(list, &operation) && is_visible(caller, &operation);
                        is_wanted.then(|| sight.operation(operation))
                    };
                    pager.take(rows, |(seq, _)| *seq, keep);
                }
                Ok(pager.page())
            })
            .await
    }

    /// Asks an operation to stop. What is done stays done. The reconcile loop that works on it ends it. An operation
    /// that has ended is answered as it is.
    pub async fn cancel_operation(&self, caller: &Caller, once: &Once, id: OperationId) -> Result<Answer, AppError> {
        self.once(once, "operations.cancel", async |tx| {
            let sight = Sight::of(tx, caller.is_operator()).await?;
            let found = find(tx, caller, id).await?;
            if found.state.is_final() {
                return Answer::ok(&sight.operation(found));
            }
            operations::request_cancel(tx, id, &caller.name).await?;
            wake_workers(tx);
            let now = existing(tx, id).await?;
            Answer::accepted(&sight.operation(now))
        })
        .await
    }
}

async fn find(tx: &mut Tx, caller: &Caller, id: OperationId) -> Result<Operation, AppError> {
    let found = operations::load(tx, id).await?;
    let found = found.filter(|operation| caller.can_see(&operation.project) && is_visible(caller, operation));
    found.ok_or_else(|| AppError::not_found("operation", id))
}

/// Whether an operation is for the caller to see (I12).
fn is_visible(caller: &Caller, operation: &Operation) -> bool {
    caller.is_operator() || operation.target.kind != POOL
}

fn wanted(list: &ListQuery, operation: &Operation) -> bool {
    let filter = &list.filter;
    let target = &operation.target;
    let is_target = |wanted: &[String], kind| {
        wanted.is_empty() || target.kind == kind && wanted.iter().any(|w| *w == target.id || *w == target.name)
    };
    filter.keeps_state(operation.state)
        && is_target(&filter.deployments, "deployment")
        && is_target(&filter.nodes, "node")
}
