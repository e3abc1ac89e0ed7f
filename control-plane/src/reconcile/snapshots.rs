//! Snapshots under way: cut again with another coordinator, published when all commits are staged, given up when their
//! time or their attempts are used up.

use muster_api::{
    CommitId, NodeId, Reason,
    operation::{OperationState, Progress, WaitingOn},
    snapshot::SnapshotState,
};

use crate::{
    app::{
        App, AppError,
        snapshots::{self as app_snapshots, attempt::next_attempt},
    },
    domain::snapshot::{ATTEMPTS_MAX, Next, Phase, UnderWay, plan},
    store::{
        Tx, nodes,
        operations::{self, Outcome, WAITING_MAX},
        snapshots::{self, SnapshotRow, Unstaged},
    },
    wake::Counts,
};

/// One look at every snapshot under way. Each has its own transaction: one that cannot be saved delays no other (I11).
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let seen = app.store.read("snapshots.observe", async |tx| snapshots::under_way(tx).await).await?;
    let mut counts = Counts { seen: seen.len(), acted: 0 };
    let mut failure = None;
    for row in seen {
        let id = row.id;
        let acted = app
            .store
            .run_tx("snapshots.drive", async |tx| {
                // Loaded again, because somebody may have published or deleted it since.
                match snapshots::load(tx, id).await? {
                    Some(row) if row.is_under_way() => drive(tx, row).await,
                    _ => Ok(false),
                }
            })
            .await;
        match acted {
            Ok(acted) => counts.acted += usize::from(acted),
            Err(error) => failure = Some(anyhow::Error::from(error).context(format!("snapshot {id}"))),
        }
    }
    failure.map_or(Ok(counts), Err)
}

/// Does what the plan says. True when something changed.
async fn drive(tx: &mut Tx, mut row: SnapshotRow) -> Result<bool, AppError> {
    let operation = operations::load(tx, row.operation).await?;
    if operation.as_ref().is_some_and(|op| op.state == OperationState::Cancelling) {
        let outcome = Outcome::Cancelled(None);
        app_snapshots::give_up(tx, &mut row, Reason::Cancelled, "its operation was cancelled", outcome).await?;
        return Ok(true);
    }
    let (staged, members) = snapshots::staged(tx, row.id).await?;
    let mut lost = snapshots::lost(tx, row.id).await?;
    // I11: it begins anew without a member whose node is silent, so that the others are protected.
    if lost.is_none() && row.scheduled {
        lost = snapshots::silent(tx, row.id).await?;
    }
    let seen = UnderWay { phase: phase(&row), attempt: row.attempt, deadline: row.deadline, staged, members, lost };
    match plan(&seen, tx.now()) {
        Next::Wait => {
            if let Some(operation) = operation {
                let progress = Progress { done: staged, total: members, failed: 0, unit: "disks".to_owned() };
                let waiting = waiting_on(tx, &row).await?;
                let phase = if row.state == SnapshotState::Cutting { "cutting" } else { "saving" };
                operations::note(tx, &operation, phase, &progress, &waiting).await?;
            }
            return Ok(false);
        }
        Next::Again => cut_again(tx, &mut row).await?,
        Next::Publish => app_snapshots::publish(tx, &mut row, None).await?,
        Next::Fail { reason, detail } => {
            let outcome = app_snapshots::failed(&reason, &detail);
            app_snapshots::give_up(tx, &mut row, reason, &detail, outcome).await?;
        }
    }
    Ok(true)
}

/// What a snapshot waits for: its coordinator, then the members that are not saved yet.
async fn waiting_on(tx: &mut Tx, row: &SnapshotRow) -> Result<Vec<WaitingOn>, AppError> {
    let since = tx.now();
    let names = nodes::names(tx).await?;
    let entry = |what: String, node: Option<NodeId>, deadline| WaitingOn {
        what,
        node,
        node_name: node.and_then(|node| names.get(&node).cloned()),
        since,
        deadline: Some(deadline),
    };
    if row.state == SnapshotState::Cutting {
        let mut what = format!("the cut, attempt {} of {ATTEMPTS_MAX}", row.attempt);
        if let Some(refused) = &row.refused_detail {
            what = format!("{what}: {refused}");
        }
        return Ok(vec![entry(what, row.coordinator, row.attempt_until.unwrap_or(row.deadline))]);
    }
    let limit = i64::try_from(WAITING_MAX).expect("a short list");
    let unstaged = snapshots::unstaged(tx, row.id, limit).await?;
    let of_member = |Unstaged { instance_name, node, trouble }| {
        let what = format!("{instance_name}: {}", trouble.as_deref().unwrap_or("is being saved"));
        entry(what, Some(node), row.deadline)
    };
    Ok(unstaged.into_iter().map(of_member).collect())
}

/// Begins the next attempt, with a new commit id for each disk.
async fn cut_again(tx: &mut Tx, row: &mut SnapshotRow) -> Result<(), AppError> {
    let known = snapshots::members(tx, row.id).await?;
    let commits: Vec<_> = known.iter().map(|member| (member.disk, CommitId::generate())).collect();
    snapshots::begin_attempt(tx, row.id, &commits).await?;
    next_attempt(tx, row, &known).await?;
    snapshots::save(tx, row).await?;
    app_snapshots::tell_nodes(tx, &known).await?;
    tracing::info!(snapshot.id = %row.id, attempt = row.attempt, "snapshot {} is cut again", row.name);
    Ok(())
}

fn phase(row: &SnapshotRow) -> Phase {
    let at = row.attempt_until.unwrap_or(row.deadline);
    match (&row.refused, row.state) {
        (Some(reason), _) => Phase::Refused {
            retry_at: at,
            reason: reason.clone(),
            // Only for people. A row without it, which nothing here writes, must not stop the other snapshots.
            detail: row.refused_detail.clone().unwrap_or_default(),
        },
        (None, SnapshotState::Cutting) => Phase::Cutting { until: at },
        (None, _) => Phase::Saving,
    }
}
