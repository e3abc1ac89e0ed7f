//! `/v1/pools`: for operators.

use axum::extract::State;
use muster_api::{
    Page,
    operation::Operation,
    pool::{PatchPool, Pool, StartSweep},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiError, Change, Json, Path, extract::MaybeBody};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(pool_list)).routes(routes!(pool_show, pool_patch)).routes(routes!(pool_sweep))
}

/// The pools: there is one, `default` (operators).
#[utoipa::path(get, path = "/v1/pools", tag = "pools", responses((status = 200, body = Page<Pool>)))]
async fn pool_list(State(app): State<App>, caller: Caller) -> Result<Json<Page<Pool>>, ApiError> {
    Ok(Json(app.pools(&caller).await?))
}

/// What a pool holds, and how its sweep fares (operators).
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools",
    params(("pool" = String, Path, description = "Name: `default`.")), responses((status = 200, body = Pool)))]
async fn pool_show(State(app): State<App>, caller: Caller, Path(pool): Path<String>) -> Result<Json<Pool>, ApiError> {
    Ok(Json(app.pool(&caller, &pool).await?))
}

/// Changes a pool (operators). `min_copies` takes effect by itself: nodes make the copies that are missing then, and drop
/// those that are too many. While there are fewer nodes than copies wanted, each node has one.
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "pools", request_body = PatchPool,
    params(("pool" = String, Path, description = "Name: `default`.")), responses((status = 200, body = Pool)))]
async fn pool_patch(
    State(app): State<App>,
    caller: Caller,
    Path(pool): Path<String>,
    change: Change<PatchPool>,
) -> Result<Answer, ApiError> {
    Ok(app.patch_pool(&caller, &change.once, &pool, change.body).await?)
}

/// Gives back now what nothing needs any more (operators). The operation ends when all nodes that are there are done.
#[utoipa::path(post, path = "/v1/pools/{pool}/sweep", tag = "pools", request_body = StartSweep,
    params(("pool" = String, Path, description = "Name: `default`.")),
    responses((status = 202, body = Operation)))]
async fn pool_sweep(
    State(app): State<App>,
    caller: Caller,
    Path(pool): Path<String>,
    change: Change<MaybeBody<StartSweep>>,
) -> Result<Answer, ApiError> {
    Ok(app.sweep_pool(&caller, &change.once, &pool, &change.body.0).await?)
}
