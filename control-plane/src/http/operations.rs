//! `/v1/operations`

use std::time::Duration;

use axum::extract::State;
use muster_api::{OperationId, Page, operation::Operation};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, Json, ListQuery, NoBody, Params, Path,
    openapi::{ByDeployment, ByNode, ByState, ByTarget, List},
};
use crate::app::{Answer, App, Caller};

/// Longest `wait` for the end of an operation. A longer one counts as this.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(operation_list))
        .routes(routes!(operation_show))
        .routes(routes!(operation_cancel))
}

/// The record of slow work, oldest first; kept 30 days after its end.
#[utoipa::path(get, path = "/v1/operations", tag = "operations",
    params(List, ByState, ByDeployment, ByNode, ByTarget),
    responses((status = 200, body = Page<Operation>)))]
async fn operation_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Operation>>, ApiError> {
    Ok(Json(app.operations(&caller, &list).await?))
}

/// One operation. `wait=30s` (at most 60 s) answers when it is done or when time is up.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations",
    params(("operation" = OperationId, Path, description = "Id."),
        ("wait" = Option<String>, Query, description = "A time such as `30s`, at most 60 s. Default: no wait.")),
    responses((status = 200, body = Operation)))]
async fn operation_show(
    State(app): State<App>,
    caller: Caller,
    Path(operation): Path<OperationId>,
    params: Params,
) -> Result<Json<Operation>, ApiError> {
    Ok(Json(app.operation(&caller, operation, params.duration("wait", WAIT_MAX)?).await?))
}

/// Asks an operation to stop. What is done stays done. An operation that has ended is answered as it is.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations",
    params(("operation" = OperationId, Path, description = "Id.")),
    responses((status = 202, body = Operation), (status = 200, body = Operation)))]
async fn operation_cancel(
    State(app): State<App>,
    caller: Caller,
    Path(operation): Path<OperationId>,
    change: Change<NoBody>,
) -> Result<Answer, ApiError> {
    Ok(app.cancel_operation(&caller, &change.once, operation).await?)
}
