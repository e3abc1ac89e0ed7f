//! `/v1/deployments`

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use muster_api::{
    DeploymentId, Page, Problem, Ref,
    deployment::{CreateDeployment, Deployment, DryRun, PatchDeployment, Retry, Scale},
    instance::Stop,
    operation::Operation,
    version::Freed,
};

use super::{ApiError, Change, ChangeOf, Json, ListQuery, NoBody, Params, Removal, Shown, extract::MaybeBody};
use crate::app::{Answer, App, Caller, instances::Verb};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(create, list, show, patch, delete, scale, retry, start, stop, reboot))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/deployments", get(list).post(create))
        .route("/v1/deployments/{deployment}", get(show).patch(patch).delete(delete))
        .route("/v1/deployments/{deployment}/scale", post(scale))
        .route("/v1/deployments/{deployment}/retry", post(retry))
        .route("/v1/deployments/{deployment}/start", post(start))
        .route("/v1/deployments/{deployment}/stop", post(stop))
        .route("/v1/deployments/{deployment}/reboot", post(reboot))
}

/// Starts `count` instances of one image, version or snapshot together. `dry_run` only tells where they would be
/// placed.
#[utoipa::path(post, path = "/v1/deployments", tag = "deployments", request_body = CreateDeployment,
    responses((status = 202, body = Operation), (status = 200, body = DryRun), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    params: Params,
    change: Change<CreateDeployment>,
) -> Result<Answer, ApiError> {
    params.only(&[])?;
    Ok(app.create_deployment(&caller, &change.once, change.body).await?)
}

/// Deployments, oldest first.
#[utoipa::path(get, path = "/v1/deployments", tag = "deployments", params(super::openapi::List),
    responses((status = 200, body = Page<Deployment>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Deployment>>, ApiError> {
    Ok(Json(app.deployments(&caller, &list).await?))
}

/// One deployment; its members are counted, not listed.
#[utoipa::path(get, path = "/v1/deployments/{deployment}", tag = "deployments",
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<DeploymentId>>,
) -> Result<Json<Deployment>, ApiError> {
    Ok(Json(app.deployment(&caller, &thing).await?))
}

/// Changes the labels (merge patch).
#[utoipa::path(patch, path = "/v1/deployments/{deployment}", tag = "deployments", request_body = PatchDeployment,
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn patch(State(app): State<App>, of: ChangeOf<DeploymentId, PatchDeployment>) -> Result<Answer, ApiError> {
    Ok(app.patch_deployment(&of.asked, &of.body).await?)
}

/// Deletes a deployment in any state and cancels what runs on it. `dry_run=true` only tells how many bytes it would
/// free.
#[utoipa::path(delete, path = "/v1/deployments/{deployment}", tag = "deployments",
    params(("deployment" = String, Path, description = "id or name"), ("dry_run" = Option<bool>, Query)),
    responses((status = 202, body = Operation), (status = 200, body = Freed), (status = "default", body = Problem)))]
async fn delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<DeploymentId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.deployment_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_deployment(&asked).await?)
}

/// Changes the number of members. Fewer members removes the highest numbers, unless `remove` names others.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/scale", tag = "deployments", request_body = Scale,
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn scale(State(app): State<App>, of: ChangeOf<DeploymentId, Scale>) -> Result<Answer, ApiError> {
    Ok(app.scale_deployment(&of.asked, &of.body).await?)
}

/// Tries failed members again, and waits again for those that run and were not ready in time. New limits hold from then
/// on.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/retry", tag = "deployments", request_body = Option<Retry>,
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn retry(State(app): State<App>, of: ChangeOf<DeploymentId, MaybeBody<Retry>>) -> Result<Answer, ApiError> {
    Ok(app.retry_deployment(&of.asked, of.body.0).await?)
}

/// Starts all members that do not run.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/start", tag = "deployments",
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn start(State(app): State<App>, of: ChangeOf<DeploymentId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.power_deployment(&of.asked, Verb::Start).await?)
}

/// Stops all members. Their disks are kept.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/stop", tag = "deployments", request_body = Option<Stop>,
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn stop(State(app): State<App>, of: ChangeOf<DeploymentId, MaybeBody<Stop>>) -> Result<Answer, ApiError> {
    let verb = Verb::stop(&of.body.0)?;
    Ok(app.power_deployment(&of.asked, verb).await?)
}

/// Stops and starts all running members.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/reboot", tag = "deployments", request_body = Option<Stop>,
    params(("deployment" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = "default", body = Problem)))]
async fn reboot(State(app): State<App>, of: ChangeOf<DeploymentId, MaybeBody<Stop>>) -> Result<Answer, ApiError> {
    let verb = Verb::reboot(&of.body.0)?;
    Ok(app.power_deployment(&of.asked, verb).await?)
}
