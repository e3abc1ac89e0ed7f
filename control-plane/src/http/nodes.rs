//! `/v1/nodes`: for operators.

use axum::extract::State;
use muster_api::{
    NodeId, Page, Ref,
    node::{DrainNode, Fence, Node, ObjectAmount, Salvage},
    operation::Operation,
    version::Freed,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, ChangeOf, Json, ListQuery, NoBody, Path, Removal, Shown,
    extract::MaybeBody,
    openapi::{ByLabel, ByState, Deleted, DryRun, List},
};
use crate::app::{Answer, App, Caller, nodes::Schedulable};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(node_list))
        .routes(routes!(node_show, node_delete))
        .routes(routes!(node_cordon))
        .routes(routes!(node_uncordon))
        .routes(routes!(node_drain))
        .routes(routes!(node_fence))
        .routes(routes!(node_acknowledge))
        .routes(routes!(node_salvage_list))
        .routes(routes!(node_give_up_salvage))
}

/// The nodes, oldest first (operators).
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    params(List, ByState, ByLabel, Deleted),
    responses((status = 200, body = Page<Node>)))]
async fn node_list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Node>>, ApiError> {
    Ok(Json(app.nodes(&caller, &list).await?))
}

/// One node, by id or name (operators).
#[utoipa::path(get, path = "/v1/nodes/{node}", tag = "nodes",
    responses((status = 200, body = Node)))]
async fn node_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<NodeId>>,
) -> Result<Json<Node>, ApiError> {
    Ok(Json(app.node(&caller, &thing).await?))
}

/// Keeps new instances away from a node (operators).
#[utoipa::path(post, path = "/v1/nodes/{node}/cordon", tag = "nodes",
    responses((status = 200, body = Node)))]
async fn node_cordon(State(app): State<App>, of: ChangeOf<NodeId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.cordon(&of.asked, Schedulable::No).await?)
}

/// Lets new instances be placed on a node again, and objects too if it was drained: that ends its drain (operators).
#[utoipa::path(post, path = "/v1/nodes/{node}/uncordon", tag = "nodes",
    responses((status = 200, body = Node)))]
async fn node_uncordon(State(app): State<App>, of: ChangeOf<NodeId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.cordon(&of.asked, Schedulable::Yes).await?)
}

/// Drains a node of its objects: other nodes get them, and it drops what they have. It takes no new instances; those on it
/// stay. The operation ends when the node has none. `uncordon` and a cancel of the operation take it in again (operators).
#[utoipa::path(post, path = "/v1/nodes/{node}/drain", tag = "nodes",
    request_body = DrainNode,
    responses((status = 202, body = Operation), (status = 501)))]
async fn node_drain(State(app): State<App>, of: ChangeOf<NodeId, MaybeBody<DrainNode>>) -> Result<Answer, ApiError> {
    Ok(app.drain_node(&of.asked, &of.body.0).await?)
}

/// Declares a node dead: the operator's word that its host is off for good. Its instances fail with `node_lost`, what it
/// had to delete is deleted, and it can never come back. `DELETE` then frees its name (operators).
#[utoipa::path(post, path = "/v1/nodes/{node}/fence", tag = "nodes",
    request_body = Fence,
    responses((status = 200, body = Node)))]
async fn node_fence(State(app): State<App>, of: ChangeOf<NodeId, Fence>) -> Result<Answer, ApiError> {
    Ok(app.fence_node(&of.asked, of.body).await?)
}

/// Takes note of the objects that a node's share of the pool has lost, so that it no longer shows them (operators). The
/// body says what the caller saw; the node refuses when it has lost something else by now.
#[utoipa::path(post, path = "/v1/nodes/{node}/acknowledge", tag = "nodes",
    request_body = ObjectAmount,
    responses((status = 200, body = Node)))]
async fn node_acknowledge(State(app): State<App>, of: ChangeOf<NodeId, ObjectAmount>) -> Result<Answer, ApiError> {
    Ok(app.acknowledge_losses(&of.asked, &of.body).await?)
}

/// The disks that were on a node when it was declared dead, oldest first (operators). If the node comes back, it saves what
/// they hold and no version has. A node that was removed is named by its id.
#[utoipa::path(get, path = "/v1/nodes/{node}/salvage", tag = "nodes", params(List),
    responses((status = 200, body = Page<Salvage>)))]
async fn node_salvage_list(
    State(app): State<App>,
    caller: Caller,
    Path(node): Path<Ref<NodeId>>,
    list: ListQuery,
) -> Result<Json<Page<Salvage>>, ApiError> {
    Ok(Json(app.salvage(&caller, &node, &list).await?))
}

/// Waits no longer for the disks of a dead node (operators). Its key is refused from then on; its data folder is kept.
#[utoipa::path(post, path = "/v1/nodes/{node}/give-up-salvage", tag = "nodes",
    responses((status = 200, body = Node)))]
async fn node_give_up_salvage(State(app): State<App>, of: ChangeOf<NodeId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.give_up_salvage(&of.asked).await?)
}

/// Takes out a node that has no instances, or that was declared dead. If it has objects, an operation drains it first, and takes
/// it out when it has none. It can no longer connect with its key then (operators).
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "nodes",
    params(DryRun), responses((status = 204), (status = 202, body = Operation), (status = 200, body = Freed)))]
async fn node_delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<NodeId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(app.node_freed(&asked).await?);
    }
    Ok(app.delete_node(&asked).await?)
}
