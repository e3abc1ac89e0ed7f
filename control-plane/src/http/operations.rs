//! `/v1/operations`

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use muster_api::{OperationId, Page, Problem, operation::Operation};

use super::{ApiError, Change, Json, ListQuery, NoBody, Params, Path};
use crate::app::{Answer, App, Caller};

/// Longest `wait` for the end of an operation. A longer one counts as this.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list, show, cancel))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/operations", get(list))
        .route("/v1/operations/{operation}", get(show))
        .route("/v1/operations/{operation}/cancel", post(cancel))
}

/// The record of slow work, oldest first; kept 30 days after its end.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(super::openapi::List),
    responses((status = 200, body = Page<Operation>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Operation>>, ApiError> {
    Ok(Json(app.operations(&caller, &list).await?))
}

/// One operation. `wait=30s` (at most 60 s) answers when it is done or when time is up.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations",
    params(("operation" = OperationId, Path), ("wait" = Option<String>, Query, description = "30s, at most 60s")),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(operation): Path<OperationId>,
    params: Params,
) -> Result<Json<Operation>, ApiError> {
    params.only(&["wait"])?;
    Ok(Json(app.operation(&caller, operation, params.duration("wait", WAIT_MAX)?).await?))
}

/// Asks an operation to stop. What is done stays done. An operation that has ended is answered as it is.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations",
    params(("operation" = OperationId, Path)),
    responses((status = 202, body = Operation), (status = 200, body = Operation), (status = "default", body = Problem)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(operation): Path<OperationId>,
    params: Params,
    change: Change<NoBody>,
) -> Result<Answer, ApiError> {
    params.only(&[])?;
    Ok(app.cancel_operation(&caller, &change.once, operation).await?)
}
