//! `/v1/summary`, `/v1/me`

use axum::{Router, extract::State, routing::get};
use muster_api::{
    Problem,
    summary::{Me, Summary},
};

use super::{ApiError, Json, Params};
use crate::app::{App, Caller};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(summary, me))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/summary", get(summary)).route("/v1/me", get(me))
}

/// Counts by state, problems first.
#[utoipa::path(get, path = "/v1/summary", tag = "summary", params(("project" = Option<String>, Query)),
    responses((status = 200, body = Summary), (status = "default", body = Problem)))]
async fn summary(State(app): State<App>, caller: Caller, params: Params) -> Result<Json<Summary>, ApiError> {
    params.only(&[])?;
    Ok(Json(app.summary(&caller).await?))
}

/// Who is asking.
#[utoipa::path(get, path = "/v1/me", tag = "summary", responses((status = 200, body = Me), (status = "default", body = Problem)))]
async fn me(State(app): State<App>, caller: Caller, params: Params) -> Result<Json<Me>, ApiError> {
    params.only(&[])?;
    Ok(Json(app.me(&caller)))
}
