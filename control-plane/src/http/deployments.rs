//! `/v1/deployments`

use axum::{extract::State, response::IntoResponse};
use http::{HeaderValue, header};
use muster_api::{
    DeploymentId, Page, Ref,
    deployment::{CreateDeployment, Deployment, DryRun, PatchDeployment, Retry, Scale},
    instance::Stop,
    operation::Operation,
    version::Freed,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, NoBody, Removal, Shown,
    extract::{MaybeBody, Path},
    openapi::{ByDeployment, ByLabel, ByState, Deleted, DryRun as Dry, List},
};
use crate::app::{Answer, App, Caller, instances::Verb};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(deployment_list, deployment_create))
        .routes(routes!(deployment_show, deployment_patch, deployment_delete))
        .routes(routes!(deployment_user_data_read))
        .routes(routes!(deployment_scale))
        .routes(routes!(deployment_retry))
        .routes(routes!(deployment_start))
        .routes(routes!(deployment_stop))
        .routes(routes!(deployment_reboot))
}

/// Starts `count` instances of one image, version or snapshot together. `dry_run` only tells where they would be
/// placed.
#[utoipa::path(post, path = "/v1/deployments", tag = "deployments", request_body = CreateDeployment,
    responses((status = 202, body = Operation), (status = 200, body = DryRun), (status = 501), (status = 507)))]
async fn deployment_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateDeployment>,
) -> Result<Answer, ApiError> {
    Ok(app.create_deployment(&caller, &change.once, change.body).await?)
}

/// Deployments, oldest first.
#[utoipa::path(get, path = "/v1/deployments", tag = "deployments",
    params(List, ByState, ByLabel, ByDeployment, Deleted),
    responses((status = 200, body = Page<Deployment>)))]
async fn deployment_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Deployment>>, ApiError> {
    Ok(Json(app.deployments(&caller, &list).await?))
}

/// One deployment; its members are counted, not listed.
#[utoipa::path(get, path = "/v1/deployments/{deployment}", tag = "deployments",
    responses((status = 200, body = Deployment)))]
async fn deployment_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<DeploymentId>>,
) -> Result<Json<Deployment>, ApiError> {
    Ok(Json(app.deployment(&caller, &thing).await?))
}

/// The user data of a deployment, as it was given. It may have secrets; its project and operators may read it. 404 if it has
/// none.
#[utoipa::path(get, path = "/v1/deployments/{deployment}/user-data", tag = "deployments",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn deployment_user_data_read(
    State(app): State<App>,
    caller: Caller,
    Path(deployment): Path<Ref<DeploymentId>>,
) -> Result<impl IntoResponse, ApiError> {
    let text = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(([text], app.user_data(&caller, &deployment).await?))
}

/// Changes the labels and the protection (merge patch).
#[utoipa::path(patch, path = "/v1/deployments/{deployment}", tag = "deployments", request_body = PatchDeployment,
    responses((status = 200, body = Deployment)))]
async fn deployment_patch(
    State(app): State<App>,
    of: ChangeOf<DeploymentId, PatchDeployment>,
) -> Result<Answer, ApiError> {
    Ok(app.patch_deployment(&of.asked, &of.body).await?)
}

/// Deletes a deployment in any state and cancels what runs on it. `dry_run=true` only tells how many bytes it would
/// free.
#[utoipa::path(delete, path = "/v1/deployments/{deployment}", tag = "deployments",
    params(Dry), responses((status = 202, body = Operation), (status = 200, body = Freed)))]
async fn deployment_delete(
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
    responses((status = 202, body = Operation), (status = 200, body = Deployment), (status = 507)))]
async fn deployment_scale(State(app): State<App>, of: ChangeOf<DeploymentId, Scale>) -> Result<Answer, ApiError> {
    Ok(app.scale_deployment(&of.asked, &of.body).await?)
}

/// Tries failed members again, and waits again for those that run and were not ready in time. New limits hold from then
/// on.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/retry", tag = "deployments", request_body = Option<Retry>,
    responses((status = 202, body = Operation), (status = 200, body = Deployment)))]
async fn deployment_retry(
    State(app): State<App>,
    of: ChangeOf<DeploymentId, MaybeBody<Retry>>,
) -> Result<Answer, ApiError> {
    Ok(app.retry_deployment(&of.asked, of.body.0).await?)
}

/// Starts all members that do not run.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/start", tag = "deployments",
    responses((status = 202, body = Operation), (status = 200, body = Deployment)))]
async fn deployment_start(State(app): State<App>, of: ChangeOf<DeploymentId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.power_deployment(&of.asked, Verb::Start).await?)
}

/// Stops all members. Their disks are kept.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/stop", tag = "deployments", request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Deployment)))]
async fn deployment_stop(
    State(app): State<App>,
    of: ChangeOf<DeploymentId, MaybeBody<Stop>>,
) -> Result<Answer, ApiError> {
    let verb = Verb::stop(&of.body.0, app.config.instances.stop_timeout)?;
    Ok(app.power_deployment(&of.asked, verb).await?)
}

/// Stops and starts all running members.
#[utoipa::path(post, path = "/v1/deployments/{deployment}/reboot", tag = "deployments", request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Deployment)))]
async fn deployment_reboot(
    State(app): State<App>,
    of: ChangeOf<DeploymentId, MaybeBody<Stop>>,
) -> Result<Answer, ApiError> {
    let verb = Verb::reboot(&of.body.0, app.config.instances.stop_timeout)?;
    Ok(app.power_deployment(&of.asked, verb).await?)
}
