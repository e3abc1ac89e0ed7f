//! `/v1/instances`

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::header;
use muster_api::{
    InstanceId, Page, Problem, Ref,
    instance::{Instance, Loss, OnMany, PatchInstance, Recover, Stop},
    operation::Operation,
    version::Freed,
};

use super::{ApiError, Change, ChangeOf, Json, ListQuery, NoBody, Params, Path, Removal, Shown, extract::MaybeBody};
use crate::app::{Answer, App, Caller, instances::Verb};

/// How much console output is sent where the request does not say, bytes.
const TAIL_BYTES: u64 = 64 << 10;
/// Most console output in one answer, bytes.
const TAIL_BYTES_MAX: u64 = 16 << 20;

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list, show, patch, delete, start, stop, reboot, recover, on_many, log), components(schemas(Loss)))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/instances", get(list))
        .route("/v1/instances/-/{verb}", post(on_many))
        .route("/v1/instances/{instance}", get(show).patch(patch).delete(delete))
        .route("/v1/instances/{instance}/start", post(start))
        .route("/v1/instances/{instance}/stop", post(stop))
        .route("/v1/instances/{instance}/reboot", post(reboot))
        .route("/v1/instances/{instance}/recover", post(recover))
        .route("/v1/instances/{instance}/log", get(log))
}

/// Instances, oldest first.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(super::openapi::List),
    responses((status = 200, body = Page<Instance>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Instance>>, ApiError> {
    Ok(Json(app.instances(&caller, &list).await?))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{instance}", tag = "instances",
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 200, body = Instance), (status = "default", body = Problem)))]
async fn show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<InstanceId>>,
) -> Result<Json<Instance>, ApiError> {
    Ok(Json(app.instance(&caller, &thing).await?))
}

/// Changes the labels (merge patch).
#[utoipa::path(patch, path = "/v1/instances/{instance}", tag = "instances", request_body = PatchInstance,
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 200, body = Instance), (status = "default", body = Problem)))]
async fn patch(State(app): State<App>, of: ChangeOf<InstanceId, PatchInstance>) -> Result<Answer, ApiError> {
    Ok(app.patch_instance(&of.asked, &of.body).await?)
}

/// Deletes an instance and lowers the `count` of its deployment. `dry_run=true` only tells how many bytes it would
/// free.
#[utoipa::path(delete, path = "/v1/instances/{instance}", tag = "instances",
    params(("instance" = String, Path, description = "id or name"), ("dry_run" = Option<bool>, Query)),
    responses((status = 202, body = Operation), (status = 200, body = Freed), (status = "default", body = Problem)))]
async fn delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<InstanceId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.instance_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_instance(&asked).await?)
}

/// Starts an instance, unless it runs.
#[utoipa::path(post, path = "/v1/instances/{instance}/start", tag = "instances",
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Instance), (status = "default", body = Problem)))]
async fn start(State(app): State<App>, of: ChangeOf<InstanceId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.power_instance(&of.asked, Verb::Start).await?)
}

/// Stops an instance. Its disk is kept.
#[utoipa::path(post, path = "/v1/instances/{instance}/stop", tag = "instances", request_body = Option<Stop>,
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Instance), (status = "default", body = Problem)))]
async fn stop(State(app): State<App>, of: ChangeOf<InstanceId, MaybeBody<Stop>>) -> Result<Answer, ApiError> {
    let verb = Verb::stop(&of.body.0)?;
    Ok(app.power_instance(&of.asked, verb).await?)
}

/// Stops an instance and starts it again.
#[utoipa::path(post, path = "/v1/instances/{instance}/reboot", tag = "instances", request_body = Option<Stop>,
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = 200, body = Instance), (status = "default", body = Problem)))]
async fn reboot(State(app): State<App>, of: ChangeOf<InstanceId, MaybeBody<Stop>>) -> Result<Answer, ApiError> {
    let verb = Verb::reboot(&of.body.0)?;
    Ok(app.power_instance(&of.asked, verb).await?)
}

/// Begins an instance anew on another node, from the last saved version of its disk. Only for one that failed with
/// `node_lost`. What was written after that version is given up: without `accept_loss` the answer is 409 `data_loss`
/// whose `loss` lists it; the operation's `result.loss` lists it too.
#[utoipa::path(post, path = "/v1/instances/{instance}/recover", tag = "instances", request_body = Option<Recover>,
    params(("instance" = String, Path, description = "id or name")),
    responses((status = 202, body = Operation), (status = "default", body = Problem)))]
async fn recover(State(app): State<App>, of: ChangeOf<InstanceId, MaybeBody<Recover>>) -> Result<Answer, ApiError> {
    Ok(app.recover_instance(&of.asked, of.body.0).await?)
}

/// A verb on many instances: start, stop, reboot, recover or delete.
#[utoipa::path(post, path = "/v1/instances/-/{verb}", tag = "instances", request_body = OnMany,
    params(("verb" = String, Path, description = "start, stop, reboot, recover or delete")),
    responses((status = 202, body = Operation), (status = "default", body = Problem)))]
async fn on_many(
    State(app): State<App>,
    caller: Caller,
    Path(verb): Path<String>,
    change: Change<OnMany>,
) -> Result<Answer, ApiError> {
    Ok(app.on_many(&caller, &change.once, &verb, &change.body).await?)
}

/// The end of the console output of an instance, at most `tail` of it. One of runtime none has no console: 409.
#[utoipa::path(get, path = "/v1/instances/{instance}/log", tag = "instances",
    params(("instance" = String, Path, description = "id or name"),
        ("tail" = Option<String>, Query, description = "64KiB, at most 16MiB")),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
async fn log(
    State(app): State<App>,
    caller: Caller,
    Path(instance): Path<Ref<InstanceId>>,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["tail"])?;
    let tail = params.size("tail", TAIL_BYTES_MAX)?.unwrap_or(TAIL_BYTES);
    let bytes = app.instance_log(&caller, &instance, tail).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}
