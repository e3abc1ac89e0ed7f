//! `/v1/found-instances`: what nodes hold and a restored database does not know. For operators.

use axum::extract::State;
use muster_api::{
    InstanceId, Page,
    found::{ForgetFound, FoundInstance, TakeFound},
    instance::Instance,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, ChangeOf, Json, ListQuery,
    extract::MaybeBody,
    openapi::{ByNode, ByState, List},
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(found_instance_list))
        .routes(routes!(found_instance_take))
        .routes(routes!(found_instance_forget))
}

/// The instances that nodes hold and this database does not know, in the order in which they were found (operators).
#[utoipa::path(get, path = "/v1/found-instances", tag = "found-instances",
    params(List, ByState, ByNode),
    responses((status = 200, body = Page<FoundInstance>)))]
async fn found_instance_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<FoundInstance>>, ApiError> {
    Ok(Json(app.found_instances(&caller, &list).await?))
}

/// Takes a found instance back: it becomes an instance again, with its id, its disks and what it does now (operators).
#[utoipa::path(post, path = "/v1/found-instances/{instance}/take", tag = "found-instances", request_body = Option<TakeFound>,
    responses((status = 200, body = Instance)))]
async fn found_instance_take(
    State(app): State<App>,
    of: ChangeOf<InstanceId, MaybeBody<TakeFound>>,
) -> Result<Answer, ApiError> {
    Ok(app.take_found(&of.asked, &of.body.0).await?)
}

/// Gives a found instance up: its node cuts its power and deletes its disks. It is listed as `deleting` until that is
/// done (operators).
#[utoipa::path(post, path = "/v1/found-instances/{instance}/forget", tag = "found-instances", request_body = ForgetFound,
    responses((status = 200, body = FoundInstance)))]
async fn found_instance_forget(
    State(app): State<App>,
    of: ChangeOf<InstanceId, ForgetFound>,
) -> Result<Answer, ApiError> {
    Ok(app.forget_found(&of.asked, of.body).await?)
}
