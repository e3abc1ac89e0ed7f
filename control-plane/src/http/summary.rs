//! `/v1/summary`, `/v1/me`

use axum::extract::State;
use muster_api::summary::{Me, Summary};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiError, Json};
use crate::app::{App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(summary_show)).routes(routes!(me_show))
}

/// Counts by state, problems first.
#[utoipa::path(get, path = "/v1/summary", tag = "summary", responses((status = 200, body = Summary)))]
async fn summary_show(State(app): State<App>, caller: Caller) -> Result<Json<Summary>, ApiError> {
    Ok(Json(app.summary(&caller).await?))
}

/// Who is asking.
#[utoipa::path(get, path = "/v1/me", tag = "summary", responses((status = 200, body = Me)))]
async fn me_show(State(app): State<App>, caller: Caller) -> Result<Json<Me>, ApiError> {
    Ok(Json(app.me(&caller)))
}
