//! Verbs on all members: start, stop, reboot, and retry of those that failed.

use std::collections::BTreeSet;

use muster_api::{DeploymentId, Ref, deployment::Retry, instance::InstanceState};
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Asked, find,
        instances::{self as app_instances, Verb},
    },
    check_free, view,
};
use crate::{
    domain::{instance::Edge, order},
    store::{
        deployments::{self, DeploymentRow},
        instances,
        operations::{self, NewOperation},
    },
};

impl App {
    /// Start, stop or reboot of all members. If all are in the wanted state, the answer is the deployment.
    pub async fn power_deployment(&self, asked: &Asked<Ref<DeploymentId>>, verb: Verb) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.power", async |tx| {
            let row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            check_free(tx, &row).await?;
            let members = instances::of_deployment(tx, row.id).await?;
            app_instances::check_idle(&members)?;
            let wants_change = members
                .iter()
                .any(|member| !matches!(member.life.after(&verb.edge(), tx.now()), Ok(life) if life == member.life));
            if !wants_change {
                return Answer::ok(&view::show(self, tx, &asked.caller, row).await?);
            }
            let operation =
                app_instances::power(tx, &asked.caller, row.project.clone(), row.target(), verb, members).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// Tries failed members again, and waits again for those that run and were not ready in time. New limits hold from
    /// then on. Without such members the answer is the deployment.
    pub async fn retry_deployment(&self, asked: &Asked<Ref<DeploymentId>>, retry: Retry) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.retry", async |tx| {
            let mut row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            check_free(tx, &row).await?;
            let mut failed = instances::of_deployment(tx, row.id).await?;
            if take_limits(&mut row, retry)? {
                deployments::save_limits(tx, &row).await?;
                row.revision += 1;
                for node in failed.iter().filter_map(|member| member.life.node).collect::<BTreeSet<_>>() {
                    tx.bump_desired(node);
                }
            }
            failed.retain(|member| member.life.state == InstanceState::Failed || member.life.gave_up());
            app_instances::check_idle(&failed)?;
            let refusal = failed.iter().find_map(|member| member.life.after(&Edge::Retry, tx.now()).err());
            let changed = app_instances::change::all_by(failed, &Edge::Retry, tx);
            if changed.is_empty() {
                // Members of a dead node are not started from an older disk unasked, and silence would look like success.
                if let Some(refusal) = refusal {
                    return Err(app_instances::change::refused(&refusal));
                }
                return Answer::ok(&view::show(self, tx, &asked.caller, row).await?);
            }
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.retry",
                target: row.target(),
                phase: "starting",
                progress: operations::to_do(u64_from(changed.len()), "instances"),
                deadline: row.deadline_after(tx.now()),
            };
            let operation = app_instances::begin(tx, &asked.caller.origin(), new, changed).await?;
            Answer::accepted(&operation)
        })
        .await
    }
}

/// Puts the new limits into the row. Says whether there is a new one.
fn take_limits(row: &mut DeploymentRow, retry: Retry) -> Result<bool, AppError> {
    let checked = |pointer: &str, value: Option<u64>| {
        value.map(|value| order::seconds(pointer, value)).transpose().map_err(|error| AppError::Invalid(vec![error]))
    };
    let ready_timeout_s = checked("/ready_timeout_s", retry.ready_timeout_s)?;
    let deadline_s = checked("/deadline_s", retry.deadline_s)?;
    let before = row.clone();
    if let Some(timeout_s) = ready_timeout_s {
        row.ready.timeout_s = Some(timeout_s);
        row.deadline_s = row.deadline_s.max(order::deadline_for(timeout_s));
    }
    row.deadline_s = deadline_s.unwrap_or(row.deadline_s);
    row.on_ready_timeout = retry.on_ready_timeout.unwrap_or(row.on_ready_timeout);
    let limits = |row: &DeploymentRow| (row.ready.timeout_s, row.deadline_s, row.on_ready_timeout);
    Ok(limits(&before) != limits(row))
}
