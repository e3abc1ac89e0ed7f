//! `/v1/found-instances`: what nodes hold and a restored database does not know. For operators.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use muster_api::{
    InstanceId, Page, Problem,
    found::{ForgetFound, FoundInstance, TakeFound},
    instance::Instance,
};

use super::{ApiError, ChangeOf, Json, ListQuery, extract::MaybeBody};
use crate::app::{Answer, App, Caller};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list, take, forget))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/found-instances", get(list))
        .route("/v1/found-instances/{instance}/take", post(take))
        .route("/v1/found-instances/{instance}/forget", post(forget))
}

/// The instances that nodes hold and this database does not know, in the order in which they were found (operators).
#[utoipa::path(get, path = "/v1/found-instances", tag = "found", params(super::openapi::List),
    responses((status = 200, body = Page<FoundInstance>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<FoundInstance>>, ApiError> {
    Ok(Json(app.found_instances(&caller, &list).await?))
}

/// Takes a found instance back: it becomes an instance again, with its id, its disks and what it does now (operators).
#[utoipa::path(post, path = "/v1/found-instances/{instance}/take", tag = "found", request_body = Option<TakeFound>,
    params(("instance" = String, Path, description = "id, or the name that it had")),
    responses((status = 200, body = Instance), (status = "default", body = Problem)))]
async fn take(State(app): State<App>, of: ChangeOf<InstanceId, MaybeBody<TakeFound>>) -> Result<Answer, ApiError> {
    Ok(app.take_found(&of.asked, &of.body.0).await?)
}

/// Gives a found instance up: its node cuts its power and deletes its disks. It is listed as `deleting` until that is
/// done (operators).
#[utoipa::path(post, path = "/v1/found-instances/{instance}/forget", tag = "found", request_body = ForgetFound,
    params(("instance" = String, Path, description = "id, or the name that it had")),
    responses((status = 200, body = FoundInstance), (status = "default", body = Problem)))]
async fn forget(State(app): State<App>, of: ChangeOf<InstanceId, ForgetFound>) -> Result<Answer, ApiError> {
    Ok(app.forget_found(&of.asked, of.body).await?)
}
