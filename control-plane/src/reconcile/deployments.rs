//! Members without a place get one or fail. Operations on members are counted, and ended when they are decided. The
//! state of deployments is counted from their members.
//!
//! Everything the loop needs is in rows, so a controller that was killed at any instant goes on where it was.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, ErrorCode, NodeId, OperationId, Problem, Reason,
    deployment::DeploymentState,
    instance::InstanceState,
    operation::{Operation, OperationState, Progress, WaitingOn},
};
use serde_json::{Value, json};
use storage_core::units::u64_from;

use crate::{
    app::{
        App, AppError,
        deployments::{self as app_deployments, placing::Placing},
        instances::{self as app_instances, Changed, change::all_by, under_way},
    },
    domain::{
        deployment::{Verdict, Work, timing},
        instance::{Edge, word},
    },
    store::{
        Tx,
        deployments::{self, DeploymentRow},
        events,
        instances::{self, InstanceRow},
        nodes,
        operations::{self, Outcome, WAITING_MAX},
    },
    wake::Counts,
};

/// Looks whether there is anything to do, and does all of it in one transaction.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let seen = app
        .store
        .read("deployments.observe", async |tx| {
            let dirty = deployments::dirty(tx).await?.len();
            let homeless = instances::homeless(tx).await?.len();
            let pressing = operations::pressing(tx).await?.len();
            let to_count = operations::to_count(tx).await?.len();
            Ok::<_, AppError>(dirty + homeless + pressing + to_count)
        })
        .await?;
    if seen == 0 {
        return Ok(Counts::default());
    }
    let acted = app.store.run_tx_alone("deployments.settle", async |tx| settle(tx).await).await?;
    Ok(Counts { seen, acted })
}

async fn settle(tx: &mut Tx) -> Result<usize, AppError> {
    let (mut acted, awaited) = place_homeless(tx).await?;
    let now = tx.now();
    for operation in operations::pressing(tx).await? {
        if operation.state == OperationState::Cancelling && can_cancel(&operation) {
            cancel(tx, &operation).await?;
            acted += 1;
        } else if operation.deadline.is_some_and(|deadline| deadline <= now) {
            acted += overdue(tx, &operation).await?;
        }
    }
    let dirty = deployments::dirty(tx).await?;
    let to_count = operations::to_count(tx).await?;
    acted += count_operations(tx, &to_count, &dirty, &awaited).await?;
    // Ending an operation may have changed members: count what is dirty now.
    let dirty = deployments::dirty(tx).await?;
    acted += count_deployments(tx, dirty).await?;
    Ok(acted)
}

/// The nodes whose libvirt the members of each operation wait for.
type Awaited = BTreeMap<OperationId, BTreeSet<NodeId>>;

async fn place_homeless(tx: &mut Tx) -> Result<(usize, Awaited), AppError> {
    let mut by_deployment: BTreeMap<DeploymentId, Vec<InstanceRow>> = BTreeMap::new();
    for row in instances::homeless(tx).await? {
        by_deployment.entry(row.deployment).or_default().push(row);
    }
    let (mut acted, mut awaited) = (0, Awaited::new());
    for (id, members) in by_deployment {
        let Some(deployment) = deployments::load(tx, id).await? else { continue };
        let placing = Placing::find(tx, &deployment, u64_from(members.len())).await?;
        let refusal = placing.why();
        let mut changed = Vec::new();
        for (member, edge) in members.into_iter().zip(placing.edges(&refusal)) {
            if let (Edge::AwaitPlace(_), Some(operation)) = (&edge, member.operation) {
                awaited.entry(operation).or_default().extend(placing.solution.silent_hypervisors());
            }
            changed.extend(Changed::by(member, &edge, tx).ok().flatten());
        }
        acted += changed.len();
        app_instances::save(tx, "muster", &changed).await?;
    }
    Ok((acted, awaited))
}

/// Deleting cannot be cancelled: what has been unlinked does not come back.
fn can_cancel(operation: &Operation) -> bool {
    !operation.kind.ends_with(".delete") && operation.kind != "deployment.clear"
}

/// Cancels an operation. A deployment keeps the members that are ready, and its `count` becomes their number. Other
/// verbs leave the members as they are.
async fn cancel(tx: &mut Tx, operation: &Operation) -> Result<(), AppError> {
    let members = instances::of_operation(tx, operation.id).await?;
    if matches!(operation.kind.as_str(), "deployment.create" | "deployment.scale") {
        let going = members.into_iter().filter(|member| !member.life.is_ready()).collect();
        let going = app_instances::without_leaving(tx, going).await?;
        let changed = all_by(going, &Edge::Delete, tx);
        app_instances::save(tx, "muster", &changed).await?;
        if let Ok(id) = operation.target.id.parse::<DeploymentId>()
            && let Some(mut row) = deployments::load(tx, id).await?
        {
            let left = instances::tallies(tx, &[id]).await?.remove(&id).unwrap_or_default();
            row.count = left.counts.iter().filter(|(state, _)| *state != "deleting").map(|(_, n)| n).sum();
            row.min_count = row.min_count.min(row.count);
            deployments::save(tx, &row).await?;
        }
    }
    instances::release(tx, operation.id).await?;
    operations::finish(tx, operation.id, Outcome::Cancelled(None)).await?;
    Ok(())
}

/// Fails the members that are still under way when the operation's time is over. Their nodes are told to clean up
/// (I10). A member that runs goes on unless its deployment says otherwise: it may be healthy and slow.
async fn overdue(tx: &mut Tx, operation: &Operation) -> Result<usize, AppError> {
    let mut changed = Vec::new();
    let members = instances::of_operation(tx, operation.id).await?;
    let of: BTreeSet<DeploymentId> = members.iter().map(|member| member.deployment).collect();
    let rows = deployments::load_many(tx, &of.into_iter().collect::<Vec<_>>()).await?;
    let on_timeout: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row.on_ready_timeout)).collect();
    for member in members {
        if under_way(&member) || member.life.state == InstanceState::Unknown {
            let mut why = format!("the operation's time was over while it was {}", word(member.life.state));
            if let Some(detail) = &member.life.detail {
                why = format!("{why}: {detail}");
            }
            let on_timeout = on_timeout.get(&member.deployment).copied().unwrap_or_default();
            changed.extend(Changed::by(member, &Edge::Overdue(&why, on_timeout), tx).ok().flatten());
        }
    }
    app_instances::save(tx, "muster", &changed).await?;
    Ok(changed.len())
}

/// Counts the members of operations and ends the operations that are decided.
async fn count_operations(
    tx: &mut Tx,
    to_count: &[Operation],
    dirty: &[DeploymentRow],
    awaited: &Awaited,
) -> Result<usize, AppError> {
    let now = tx.now();
    let dirty: BTreeMap<String, &DeploymentRow> = dirty.iter().map(|row| (row.id.to_string(), row)).collect();
    let late = |op: &Operation| op.deadline.is_some_and(|deadline| deadline <= now);
    let ids: Vec<OperationId> = to_count.iter().map(|op| op.id).collect();
    let mut work = instances::work(tx, &ids).await?;
    let names = if to_count.is_empty() { BTreeMap::new() } else { nodes::names(tx).await? };
    let mut ended = 0;
    for operation in to_count {
        let work = work.remove(&operation.id).unwrap_or_default();
        let needed = needed(tx, operation, dirty.get(&operation.target.id).copied()).await?.min(work.total());
        let verdict = work.verdict(needed).or_else(|| late(operation).then_some(Verdict::Failed));
        match verdict {
            None => note(tx, operation, work, awaited, &names).await?,
            Some(verdict) => {
                end(tx, operation, work, verdict, late(operation)).await?;
                ended += 1;
            }
        }
    }
    Ok(ended)
}

/// How many members have to get there for the operation to succeed: all, or as many as its deployment needs.
async fn needed(tx: &mut Tx, operation: &Operation, known: Option<&DeploymentRow>) -> Result<u64, AppError> {
    if operation.kind != "deployment.create" {
        return Ok(u64::MAX);
    }
    if let Some(row) = known {
        return Ok(row.min_count);
    }
    // I10: the operation has to end, also if its deployment is gone or cannot be named.
    let Ok(id) = operation.target.id.parse::<DeploymentId>() else { return Ok(0) };
    Ok(deployments::load(tx, id).await?.map_or(0, |row| row.min_count))
}

/// Notes how far the operation is and what it waits for, unless it stands there already.
async fn note(
    tx: &mut Tx,
    operation: &Operation,
    work: Work,
    awaited: &Awaited,
    names: &BTreeMap<NodeId, String>,
) -> Result<(), AppError> {
    let progress = progress(operation, work);
    let limit = i64::try_from(WAITING_MAX).expect("a short list");
    let members = instances::waiting(tx, operation.id, limit).await?;
    let on_node = |what: String, node: Option<NodeId>, since| WaitingOn {
        what,
        node,
        node_name: node.and_then(|node| names.get(&node).cloned()),
        since,
        deadline: operation.deadline,
    };
    let now = tx.now();
    let libvirts = awaited.get(&operation.id).into_iter().flatten();
    let libvirts = libvirts.map(|node| on_node("libvirt does not answer".to_owned(), Some(*node), now));
    let members = members.iter().map(|row| on_node(said_of(row), row.life.node, row.updated_at));
    let waiting: Vec<WaitingOn> = libvirts.chain(members).collect();
    Ok(operations::note(tx, operation, &operation.phase, &progress, &waiting).await?)
}

/// What an operation waits for at one of its members, for people.
fn said_of(row: &InstanceRow) -> String {
    let state = format!("{}: {}", row.name, word(row.life.state));
    match (&row.life.reason, &row.life.detail) {
        (Some(reason), Some(detail)) => format!("{state} ({reason}): {detail}"),
        (Some(reason), None) => format!("{state} ({reason})"),
        (None, _) => state,
    }
}

fn progress(operation: &Operation, work: Work) -> Progress {
    Progress { done: work.done, total: work.total(), failed: work.failed, unit: operation.progress.unit.clone() }
}

async fn end(tx: &mut Tx, operation: &Operation, work: Work, verdict: Verdict, late: bool) -> Result<(), AppError> {
    let progress = progress(operation, work);
    operations::progress(tx, operation.id, "done", &progress, &[]).await?;
    let outcome = match verdict {
        // Other operations took all its members over, so it has neither succeeded nor failed.
        Verdict::Succeeded if work.total() == 0 && operation.progress.total > 0 => Outcome::Cancelled(None),
        Verdict::Succeeded => {
            // What was known when it began stays beside it.
            let mut result = operation.result.clone().filter(Value::is_object).unwrap_or_else(|| json!({}));
            (result["done"], result["failed"]) = (work.done.into(), work.failed.into());
            if operation.kind.ends_with(".stop") {
                let members = instances::of_operation(tx, operation.id).await?;
                let cut = members.iter().filter(|member| member.life.reason == Some(Reason::PowerCut)).count();
                result["power_cut"] = u64_from(cut).into();
            }
            Outcome::Succeeded(Some(result))
        }
        Verdict::Failed => Outcome::Failed(problem(tx, operation, work, late).await?),
    };
    instances::release(tx, operation.id).await?;
    operations::finish(tx, operation.id, outcome).await?;
    Ok(())
}

/// Why an operation failed: the reasons of its members, counted, each with the words of the first that has it.
async fn problem(tx: &mut Tx, operation: &Operation, work: Work, late: bool) -> Result<Problem, AppError> {
    let mut reasons: BTreeMap<String, (u64, Option<String>)> = BTreeMap::new();
    for member in instances::of_operation(tx, operation.id).await? {
        if member.life.is_ready() {
            continue;
        }
        let reason = member.life.reason.map_or_else(|| word(member.life.state).to_owned(), String::from);
        let (count, first) = reasons.entry(reason).or_default();
        *count += 1;
        *first = first.take().or(member.life.detail);
    }
    let only_capacity = reasons.keys().all(|reason| reason == Reason::NoCapacity.as_str()) && !reasons.is_empty();
    let code = if only_capacity { ErrorCode::NoCapacity } else { ErrorCode::Unavailable };
    let listed = reasons.iter().map(|(reason, (count, first))| match first {
        Some(detail) => format!("{reason} ({count}): {detail}"),
        None => format!("{reason} ({count})"),
    });
    let listed: Vec<_> = listed.collect();
    let time = if late { "; its time was over" } else { "" };
    let detail = format!("{} of {} are there; others: {}{time}", work.done, work.total(), listed.join(", "));
    let counts: Vec<_> =
        reasons.iter().map(|(reason, (count, _))| json!({ "reason": reason, "count": count })).collect();
    Ok(Problem::new(code, detail).with("reasons", counts))
}

/// Counts the members of deployments. A new state is saved and told; a deployment that is being deleted and has no
/// members is deleted.
async fn count_deployments(tx: &mut Tx, dirty: Vec<DeploymentRow>) -> Result<usize, AppError> {
    let ids: Vec<DeploymentId> = dirty.iter().map(|row| row.id).collect();
    let mut tallies = instances::tallies(tx, &ids).await?;
    let running = operations::running_on_any(tx, &ids).await?;
    let mut changed = 0;
    for row in dirty {
        let tally = tallies.remove(&row.id).unwrap_or_default();
        let state = match row.state {
            DeploymentState::Deleting if tally.counts.is_empty() => DeploymentState::Deleted,
            DeploymentState::Deleting | DeploymentState::Deleted => row.state,
            _ => tally.state(),
        };
        // Percentiles cost a sort of all members, so they are stored once, when the work is over. Until then they are
        // computed when somebody asks.
        let timing = if running.contains(&row.id) || state == DeploymentState::Deleted {
            row.timing.clone()
        } else {
            timing(&instances::ways(tx, row.id).await?)
        };
        deployments::counted(tx, &row, state, &timing).await?;
        if state != row.shown_state() {
            events::append(tx, app_deployments::event(&row.counted_as(state), "muster")).await?;
            changed += 1;
        }
    }
    Ok(changed)
}
