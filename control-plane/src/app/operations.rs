//! Slow work as callers see it: begin, look, wait, cancel.

use std::time::Duration;

use muster_api::{
    ErrorCode, OperationId, Page, Problem,
    operation::{Operation, OperationState},
};

use super::{Answer, App, AppError, Caller, Once};
use crate::{
    http::ListQuery,
    reconcile::{Loop, driver::Counts},
    store::{
        StoreError, Tx, column, events, idempotency, instances,
        operations::{self, NewOperation, Origin, Outcome},
        tokens,
    },
};

/// How long past its deadline an operation is left to whoever works on it; and how long after that it may take to stop.
const OVERDUE_GRACE_MS: i64 = 60_000;
/// How often a wait looks without having been woken: another controller may have changed it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Begins an operation, or says which one runs on the target already.
pub async fn begin_operation(tx: &mut Tx, origin: &Origin, new: NewOperation) -> Result<Operation, AppError> {
    if let Some(operation) = operations::running_on(tx, &new.target.kind, &new.target.id).await? {
        return Err(AppError::Busy { operation });
    }
    Ok(operations::create(tx, origin, new).await?)
}

/// The operation as a caller may see it: where its parts are is for operators.
#[must_use]
pub fn visible(mut operation: Operation, operator: bool) -> Operation {
    if !operator {
        operation.waiting_on.iter_mut().for_each(|w| w.node = None);
    }
    operation
}

impl App {
    /// One operation. With `wait`: when it is done, or when time is up.
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
            let found = self.store.read("operations.show", async |tx| operations::load(tx, id).await).await?;
            let found =
                found.filter(|o| caller.can_see(&o.project)).ok_or_else(|| AppError::not_found("operation", id))?;
            let now = tokio::time::Instant::now();
            if found.state.is_final() || now >= end || self.closing.is_cancelled() {
                return Ok(visible(found, caller.is_operator()));
            }
            tokio::select! {
                () = self.closing.cancelled() => {}
                _ = tokio::time::timeout_at(end.min(now + LOOK_EVERY), watch.changed()) => {}
            }
        }
    }

    /// Operations of a project, oldest first.
    pub async fn operations(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Operation>, AppError> {
        list.filter.only(&["state", "deployment", "node"])?;
        self.store
            .read("operations.list", async |tx| {
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = operations::list(tx, after, caller.list_project(), n).await?;
                    pager.take(
                        rows,
                        |(seq, _)| *seq,
                        |(_, operation)| {
                            let state = column::word_text(operation.state).unwrap_or_default();
                            let of = |kind| operation.target.kind == kind;
                            let relation = |wanted: &[String], kind| {
                                wanted.is_empty()
                                    || of(kind)
                                        && wanted
                                            .iter()
                                            .any(|w| *w == operation.target.id || *w == operation.target.name)
                            };
                            let kept = (list.filter.states.is_empty() || list.filter.states.contains(&state))
                                && relation(&list.filter.deployments, "deployment")
                                && relation(&list.filter.nodes, "node");
                            kept.then(|| visible(operation, caller.is_operator()))
                        },
                    );
                }
                Ok(pager.page())
            })
            .await
    }

    /// Asks an operation to stop; what is done is kept. Whoever works on it (a reconcile loop) ends it. One that has
    /// ended is told as it is.
    pub async fn cancel_operation(&self, caller: &Caller, once: &Once, id: OperationId) -> Result<Answer, AppError> {
        self.once(once, "operations.cancel", async |tx| {
            let found = operations::load(tx, id).await?;
            let found =
                found.filter(|o| caller.can_see(&o.project)).ok_or_else(|| AppError::not_found("operation", id))?;
            if found.state.is_final() {
                return Answer::ok(&visible(found, caller.is_operator()));
            }
            operations::request_cancel(tx, id, &caller.name).await?;
            wake_workers(tx);
            let now = operations::load(tx, id).await?.ok_or_else(|| AppError::not_found("operation", id))?;
            Answer::accepted(&visible(now, caller.is_operator()))
        })
        .await
    }

    /// One pass of the overdue loop: operations that nobody ended by their deadline are asked to stop, those that do
    /// not are ended here (I10), and what is kept long enough is forgotten.
    pub async fn mind_overdue(&self) -> Result<Counts, AppError> {
        let (unfinished, late, left) = self
            .store
            .read("operations.overdue", async |tx| {
                let unfinished = operations::unfinished(tx).await?;
                let limit = tx.now().plus_ms(-OVERDUE_GRACE_MS);
                let (mut late, mut left) = (Vec::new(), Vec::new());
                // A controller that was away when the time ran out lets its loops look first.
                let is_late = |o: &Operation| o.deadline.is_some_and(|deadline| deadline < limit);
                for operation in unfinished.iter().filter(|o| self.started_at < limit && is_late(o)) {
                    match operation.state {
                        OperationState::Cancelling if operation.updated_at < limit => left.push(operation.id),
                        OperationState::Cancelling => {}
                        _ => late.push(operation.id),
                    }
                }
                Ok::<_, StoreError>((unfinished.len(), late, left))
            })
            .await?;
        if !late.is_empty() || !left.is_empty() {
            self.store
                .run_tx("operations.overdue", async |tx| {
                    for id in &late {
                        operations::request_cancel(tx, *id, "muster").await?;
                        tracing::warn!(op.id = %id, "operation is past its deadline and is cancelled");
                    }
                    for id in &left {
                        let said = "its time was over and nobody ended it: look at its target, then ask again";
                        instances::release(tx, *id).await?;
                        operations::finish(tx, *id, Outcome::Failed(Problem::new(ErrorCode::Unavailable, said)))
                            .await?;
                        tracing::error!(op.id = %id, "nobody ended an operation that is long past its deadline");
                    }
                    wake_workers(tx);
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
        let forgotten = self.forget_old().await?;
        Ok(Counts {
            seen: unfinished,
            acted: late.len() + left.len() + usize::try_from(forgotten).unwrap_or(usize::MAX),
        })
    }

    async fn forget_old(&self) -> Result<u64, StoreError> {
        self.store
            .run_tx("forget", async |tx| {
                let gone = events::forget_old(tx).await?
                    + operations::forget_old(tx).await?
                    + idempotency::forget_old(tx).await?
                    + tokens::forget_old(tx).await?
                    + crate::reconcile::instances::forget(tx).await?;
                Ok(gone)
            })
            .await
    }
}

fn wake_workers(tx: &mut Tx) {
    tx.wake(Loop::Deployments);
    tx.wake(Loop::Instances);
    tx.wake(Loop::Snapshots);
}
