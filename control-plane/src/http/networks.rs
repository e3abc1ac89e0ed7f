//! `/v1/networks`

use axum::extract::State;
use muster_api::{
    NetworkId, Page, Ref,
    network::{CreateNetwork, Network, PatchNetwork},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, Removal, Shown,
    openapi::{ByLabel, ByState, Deleted, List},
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(network_list, network_create)).routes(routes!(
        network_show,
        network_patch,
        network_delete
    ))
}

/// Makes a network. Mode `bridge` is for operators. A project has a network `default` from its first instance with a
/// network card on.
#[utoipa::path(post, path = "/v1/networks", tag = "networks", request_body = CreateNetwork,
    responses((status = 201, body = Network)))]
async fn network_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateNetwork>,
) -> Result<Answer, ApiError> {
    Ok(app.create_network(&caller, &change.once, change.body).await?)
}

/// Networks, oldest first.
#[utoipa::path(get, path = "/v1/networks", tag = "networks", params(List, ByState, ByLabel, Deleted),
    responses((status = 200, body = Page<Network>)))]
async fn network_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Network>>, ApiError> {
    Ok(Json(app.networks(&caller, &list).await?))
}

/// One network.
#[utoipa::path(get, path = "/v1/networks/{network}", tag = "networks", responses((status = 200, body = Network)))]
async fn network_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<NetworkId>>,
) -> Result<Json<Network>, ApiError> {
    Ok(Json(app.network(&caller, &thing).await?))
}

/// Changes name, labels, name servers or the largest packet (merge patch). Subnets and mode stay as they are.
#[utoipa::path(patch, path = "/v1/networks/{network}", tag = "networks", request_body = PatchNetwork,
    responses((status = 200, body = Network)))]
async fn network_patch(State(app): State<App>, of: ChangeOf<NetworkId, PatchNetwork>) -> Result<Answer, ApiError> {
    Ok(app.patch_network(&of.asked, &of.body).await?)
}

/// Deletes a network. It is refused with `in_use` while deployments use it.
#[utoipa::path(delete, path = "/v1/networks/{network}", tag = "networks", responses((status = 204)))]
async fn network_delete(
    State(app): State<App>,
    Removal { asked, .. }: Removal<Ref<NetworkId>>,
) -> Result<Answer, ApiError> {
    Ok(app.delete_network(&asked).await?)
}
