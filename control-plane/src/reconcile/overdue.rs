//! Operations that nobody ended by their deadline are asked to stop, those that do not stop are ended here (I10), and
//! what is kept long enough is forgotten.

use muster_api::{
    ErrorCode, OperationId, Problem, Timestamp,
    operation::{Operation, OperationState},
};

use crate::{
    app::{App, AppError, operations::wake_workers},
    store::{
        instances,
        operations::{self, Outcome},
    },
    wake::Counts,
};

/// How long past its deadline an operation is left to the loop that works on it; and how long it may take to stop after
/// it was asked to, milliseconds.
const GRACE_MS: i64 = 60_000;

/// Operations past their deadline.
#[derive(Default)]
struct Overdue {
    /// How many operations have not ended, late or not.
    unfinished: usize,
    /// To be asked to stop.
    late: Vec<OperationId>,
    /// Asked to stop, and still there after the grace.
    left: Vec<OperationId>,
}

impl Overdue {
    /// `limit` is the grace before now.
    fn of(unfinished: &[Operation], limit: Timestamp) -> Self {
        let mut overdue = Self { unfinished: unfinished.len(), ..Self::default() };
        for operation in unfinished.iter().filter(|op| op.deadline.is_some_and(|deadline| deadline < limit)) {
            match operation.state {
                OperationState::Cancelling if operation.updated_at < limit => overdue.left.push(operation.id),
                OperationState::Cancelling => {}
                _ => overdue.late.push(operation.id),
            }
        }
        overdue
    }
}

/// One look at all operations that have not ended.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let overdue = app
        .store
        .read("operations.overdue", async |tx| {
            let limit = tx.now().plus_ms(-GRACE_MS);
            let mut unfinished = operations::unfinished(tx).await?;
            let found = unfinished.len();
            // A controller that was away when the time ran out lets its loops look first.
            if app.started_at >= limit {
                unfinished.clear();
            }
            Ok::<_, AppError>(Overdue { unfinished: found, ..Overdue::of(&unfinished, limit) })
        })
        .await?;
    let ended = overdue.late.len() + overdue.left.len();
    if ended > 0 {
        end(app, &overdue).await?;
    }
    app.note_used_sessions().await?;
    let forgotten = usize::try_from(app.forget_old().await? + app.forget_old_versions().await?)?;
    Ok(Counts { seen: overdue.unfinished, acted: ended + forgotten })
}

async fn end(app: &App, overdue: &Overdue) -> Result<(), AppError> {
    app.store
        .run_tx("operations.overdue", async |tx| {
            for id in &overdue.late {
                operations::request_cancel(tx, *id, "muster").await?;
                tracing::warn!(op.id = %id, "operation is past its deadline and is cancelled");
            }
            for id in &overdue.left {
                let said = "its time was over and nobody ended it: look at its target, then ask again";
                instances::release(tx, *id).await?;
                operations::finish(tx, *id, Outcome::Failed(Problem::new(ErrorCode::Unavailable, said))).await?;
                tracing::error!(op.id = %id, "nobody ended an operation that is long past its deadline");
            }
            wake_workers(tx);
            Ok(())
        })
        .await
}
