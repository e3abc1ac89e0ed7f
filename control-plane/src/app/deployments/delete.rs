//! A deployment is deleted with all its members.

use muster_api::{DeploymentId, Ref, deployment::DeploymentState, version::Freed};
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Asked, Caller, find,
        freed::Going,
        instances::{self as app_instances, change::deleted},
        protection,
    },
    event,
};
use crate::store::{
    deployments, events, instances,
    operations::{self, NewOperation, Outcome},
    seeds,
};

/// How long deleting may take before its operation fails, milliseconds.
const DELETE_MS: i64 = 600_000;

impl App {
    /// Deletes a deployment in any state. What runs on it is cancelled, and its name is free at once.
    pub async fn delete_deployment(&self, asked: &Asked<Ref<DeploymentId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.delete", async |tx| {
            let mut row = find::deployment_or_going(tx, &asked.caller, &asked.thing).await?;
            let running = operations::running_on(tx, "deployment", &row.id.to_string()).await?;
            if let (DeploymentState::Deleting, Some(running)) = (row.state, running) {
                return app_instances::same_operation(tx, &asked.caller, running).await;
            }
            asked.check_if_match(row.revision)?;
            let members = instances::of_deployment(tx, row.id).await?;
            app_instances::refuse_if_leaving(tx, &members).await?;
            // If it is being deleted and no operation runs, the one before ran out of time. This one waits for the
            // rest.
            if let Some(running) = running {
                operations::finish(tx, running, Outcome::Cancelled(None)).await?;
            }
            let changed: Vec<_> = members.into_iter().filter_map(|member| deleted(member, tx)).collect();
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.delete",
                target: row.target(),
                phase: "deleting",
                progress: operations::to_do(u64_from(changed.len()), "instances"),
                deadline: tx.now().plus_ms(DELETE_MS),
            };
            let operation = app_instances::begin(tx, &asked.caller.origin(), new, changed).await?;
            if row.state != DeploymentState::Deleting {
                row.state = DeploymentState::Deleting;
                deployments::save(tx, &row).await?;
                seeds::delete(tx, row.id).await?;
                protection::end(tx, &row).await?;
                events::append(tx, event(&row, &asked.caller.name)).await?;
            }
            Answer::accepted(&operation)
        })
        .await
    }

    /// The bytes that deleting the deployment would give back: of versions that only the disks of its members build on, or that
    /// only further members would start from.
    pub async fn deployment_freed(&self, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<Freed, AppError> {
        let row = self
            .store
            .read("deployments.freed", async |tx| find::deployment_or_going(tx, caller, wanted).await)
            .await?;
        self.freed(caller, &row.project, Going::Deployment(row.id)).await
    }
}
