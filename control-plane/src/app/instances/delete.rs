//! Instances are deleted, one or many; and the verbs on many.

use std::collections::BTreeMap;

use muster_api::{
    ErrorCode, InstanceId, OperationId, Problem, Ref,
    instance::{InstanceState, OnMany},
    operation::{Operation, Target},
    version::Freed,
};

use super::{
    super::{Answer, App, AppError, Asked, Caller, Once, find, freed, operations::existing, sight::Sight},
    change::{Changed, check_idle, refused},
    leaving::refuse_if_leaving,
    power::{Verb, begin_or_finish, power},
    recover::recover,
    selection::{Going, Selected, selected},
};
use crate::{
    domain::instance::Edge,
    store::{
        Tx, deployments,
        instances::InstanceRow,
        operations::{self, Outcome},
    },
};

impl App {
    /// Deletes an instance. Its deployment wants one member less from then on.
    pub async fn delete_instance(&self, asked: &Asked<Ref<InstanceId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "instances.delete", async |tx| {
            let row = find::instance_or_going(tx, &asked.caller, &asked.thing).await?;
            if let (InstanceState::Deleting, Some(operation)) = (row.life.state, row.operation) {
                return same_operation(tx, &asked.caller, operation).await;
            }
            asked.check_if_match(row.revision)?;
            if let Some(running) = operations::running_on(tx, "instance", &row.id.to_string()).await? {
                operations::finish(tx, running, Outcome::Cancelled(None)).await?;
            }
            let operation = delete_rows(tx, &asked.caller, row.project.clone(), row.target(), vec![row]).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// The bytes that deleting the instance would give back: of versions that only its disks build on. What they hold beyond
    /// that lies on its node and is not counted.
    pub async fn instance_freed(&self, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<Freed, AppError> {
        let row =
            self.store.read("instances.freed", async |tx| find::instance_or_going(tx, caller, wanted).await).await?;
        self.freed(caller, &row.project, freed::Going::Instance(row.id)).await
    }

    /// A verb on many instances: `word` is start, stop, reboot, recover or delete.
    pub async fn on_many(&self, caller: &Caller, once: &Once, word: &str, body: &OnMany) -> Result<Answer, AppError> {
        let verb = Verb::read(word, body, self.config.instances.stop_timeout)?;
        self.once(once, "instances.on_many", async |tx| {
            let going = if verb == Verb::Delete { Going::Included } else { Going::LeftOut };
            let selected = selected(tx, caller, &body.select, going).await?;
            if selected.rows.is_empty() && body.select.label.is_some() {
                let detail = "no instance has this label";
                return Err(Problem::new(ErrorCode::NotFound, detail).at("/select/label", "not_found", detail).into());
            }
            let (project, target) = (project_of(caller, &selected)?, target_of(&selected));
            let rows = selected.rows;
            if verb == Verb::Delete {
                if let Some(operation) = deleted_by(&rows) {
                    return same_operation(tx, caller, operation).await;
                }
                return Answer::accepted(&delete_rows(tx, caller, project, target, rows).await?);
            }
            check_idle(&rows)?;
            if let Verb::Recover(body) = verb {
                return Answer::accepted(&recover(tx, caller, project, target, rows, body).await?);
            }
            Answer::accepted(&power(tx, caller, project, target, verb, rows).await?)
        })
        .await
    }
}

fn project_of(caller: &Caller, selected: &Selected) -> Result<String, AppError> {
    Ok(match (&selected.deployment, selected.rows.first()) {
        (Some(deployment), _) => deployment.project.clone(),
        (None, Some(row)) => row.project.clone(),
        (None, None) => caller.one_project()?.to_owned(),
    })
}

fn target_of(selected: &Selected) -> Target {
    match &selected.deployment {
        Some(deployment) => deployment.target(),
        None => Target {
            kind: "instances".to_owned(),
            id: OperationId::generate().to_string(),
            name: format!("{} instances", selected.rows.len()),
        },
    }
}

/// The answer to a DELETE that is repeated: the operation that runs.
pub(crate) async fn same_operation(tx: &mut Tx, caller: &Caller, id: OperationId) -> Result<Answer, AppError> {
    let operation = existing(tx, id).await?;
    Answer::accepted(&Sight::of(tx, caller.is_operator()).await?.operation(operation))
}

/// The operation that deletes all of these, if it is one and the same.
fn deleted_by(rows: &[InstanceRow]) -> Option<OperationId> {
    let operation = rows.first()?.operation;
    let same = |row: &InstanceRow| row.life.state == InstanceState::Deleting && row.operation == operation;
    operation.filter(|_| rows.iter().all(same))
}

/// Deletes instances. Their deployments want that many members less from then on.
async fn delete_rows(
    tx: &mut Tx,
    caller: &Caller,
    project: String,
    target: Target,
    rows: Vec<InstanceRow>,
) -> Result<Operation, AppError> {
    refuse_if_leaving(tx, &rows).await?;
    let mut fewer: BTreeMap<_, u64> = BTreeMap::new();
    let mut changed = Vec::new();
    for row in rows {
        if row.life.state == InstanceState::Deleting {
            // Its deployment counted it before. Its operation ran out of time or has others as well; this one waits
            // too.
            changed.push(Changed::not_at_all(row));
            continue;
        }
        *fewer.entry(row.deployment).or_default() += 1;
        changed.extend(Changed::by(row, &Edge::Delete, tx).map_err(|r| refused(&r))?);
    }
    let new = Verb::Delete.operation(tx, project, target, changed.len());
    let operation = begin_or_finish(tx, caller, new, changed).await?;
    for (id, less) in fewer {
        if let Some(mut deployment) = deployments::load(tx, id).await? {
            deployment.count = deployment.count.saturating_sub(less);
            deployment.min_count = deployment.min_count.min(deployment.count);
            deployments::save(tx, &deployment).await?;
        }
    }
    Ok(operation)
}
