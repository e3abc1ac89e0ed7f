//! Verbs on all members: start, stop, reboot, and retry of those that failed.

use muster_api::{DeploymentId, Ref, instance::InstanceState};
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Asked, find,
        instances::{self as app_instances, Verb},
    },
    check_free, view,
};
use crate::{
    domain::instance::Edge,
    store::{
        instances,
        operations::{self, NewOperation},
    },
};

impl App {
    /// Start, stop or reboot of all members. If all are in the wanted state, the answer is the deployment.
    pub async fn power_deployment(&self, asked: &Asked<Ref<DeploymentId>>, verb: Verb) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.power", async |tx| {
            let row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            check_free(tx, &row).await?;
            let members = instances::of_deployment(tx, row.id).await?;
            app_instances::check_idle(&members)?;
            let wants_change = members
                .iter()
                .any(|member| !matches!(member.life.after(&verb.edge(), tx.now()), Ok(life) if life == member.life));
            if !wants_change {
                return Answer::ok(&view::show(tx, &asked.caller, row).await?);
            }
            let operation =
                app_instances::power(tx, &asked.caller, row.project.clone(), row.target(), verb, members).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// Tries failed members again. Without any the answer is the deployment.
    pub async fn retry_deployment(&self, asked: &Asked<Ref<DeploymentId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.retry", async |tx| {
            let row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            check_free(tx, &row).await?;
            let mut failed = instances::of_deployment(tx, row.id).await?;
            failed.retain(|member| member.life.state == InstanceState::Failed);
            app_instances::check_idle(&failed)?;
            let refusal = failed.iter().find_map(|member| member.life.after(&Edge::Retry, tx.now()).err());
            let changed = app_instances::change::all_by(failed, &Edge::Retry, tx);
            if changed.is_empty() {
                // Members of a dead node are not started from an older disk unasked, and silence would look like success.
                if let Some(refusal) = refusal {
                    return Err(app_instances::change::refused(&refusal));
                }
                return Answer::ok(&view::show(tx, &asked.caller, row).await?);
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
