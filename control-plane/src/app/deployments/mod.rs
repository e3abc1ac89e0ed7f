//! Deployments: N instances as one job. Placing, rows, operation, key and events are one transaction, also for 10,000
//! members.

mod calls;
mod create;
mod delete;
mod members;
pub(crate) mod placing;
mod power;
mod scale;
mod source;
mod view;

use muster_api::deployment::DeploymentState;
use serde_json::json;

use super::AppError;
use crate::store::{Tx, deployments::DeploymentRow, events::NewEvent};

/// The event that tells a deployment's state. `actor` is a token's name or `muster`.
pub(crate) fn event(row: &DeploymentRow, actor: &str) -> NewEvent {
    NewEvent {
        actor: actor.to_owned(),
        data: json!({ "state": row.shown_state(), "count": row.count }),
        labels: row.labels.clone(),
        deployment: Some(row.id),
        ..NewEvent::new("deployment.state", row.project.clone(), row.target())
    }
}

/// Refuses if the deployment is being deleted, or an operation runs on it.
pub(crate) async fn check_free(tx: &mut Tx, row: &DeploymentRow) -> Result<(), AppError> {
    if row.state == DeploymentState::Deleting {
        return Err(AppError::WrongState {
            kind: "deployment",
            state: "deleting".to_owned(),
            allowed: vec!["deploying", "ready", "degraded", "stopped"],
        });
    }
    super::operations::refuse_if_busy(tx, "deployment", &row.id.to_string()).await
}
