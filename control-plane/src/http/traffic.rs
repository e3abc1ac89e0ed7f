//! `/v1/traffic`, `/v1/nodes/{node}/links`: for operators.

use axum::extract::State;
use muster_api::{
    NodeId, Ref,
    traffic::{Links, Traffic},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiError, Json, Params, Path};
use crate::app::{App, Caller};

/// Minutes that are told where the request does not say.
const MINUTES: u64 = 60;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(traffic_show)).routes(routes!(node_links_show))
}

/// How many bytes moved in each step of the last minutes, in the whole cluster or at one node (operators).
#[utoipa::path(get, path = "/v1/traffic", tag = "nodes",
    params(
        ("minutes" = Option<u64>, Query, description = "How many of the last minutes, 1 to 60. Default: 60."),
        ("node" = Option<String>, Query, description = "Only this node, by id or name. Default: all nodes together.")),
    responses((status = 200, body = Traffic)))]
async fn traffic_show(State(app): State<App>, caller: Caller, params: Params) -> Result<Json<Traffic>, ApiError> {
    let minutes = params.number("minutes")?.unwrap_or(MINUTES);
    let node: Option<Ref<NodeId>> = params.get("node")?;
    Ok(Json(app.traffic(&caller, minutes, node.as_ref()).await?))
}

/// What went between a node and the others in the last 10 minutes, most bytes first (operators).
#[utoipa::path(get, path = "/v1/nodes/{node}/links", tag = "nodes",
    responses((status = 200, body = Links)))]
async fn node_links_show(
    State(app): State<App>,
    caller: Caller,
    Path(node): Path<Ref<NodeId>>,
) -> Result<Json<Links>, ApiError> {
    Ok(Json(app.links(&caller, &node).await?))
}
