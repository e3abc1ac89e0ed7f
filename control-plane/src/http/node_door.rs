//! `/node/v1`: the protocol of the nodes. `join` is at the people's door. Everything else is at the node door, where
//! the certificate tells which node is calling.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use muster_api::{
    CommitId, DiskId, InstanceId, SnapshotId,
    node_protocol::{
        CommitOutcome, CommitTrouble, CutReport, HAS_OWN_PAGES_HEADER, Heartbeat, HeartbeatAnswer, JoinAnswer,
        JoinRequest, NodeCall, RUN_HEADER, RenewAnswer, RenewRequest, Report, RunStart, SalvageReport, StagedCommit,
        boot::BootReport,
        repository::RepositoryOrder,
        sweep::{SweepDone, names_from_bytes, names_to_bytes},
    },
};
use muster_pool::tls::PeerCaller;
use storage_core::ObjectName;

use super::{
    ApiError, Json, JsonBody, Params, Path,
    auth::{bearer, peer},
};
use crate::app::{
    App, AppError,
    nodes::{DeadNode, NodeCaller, RootPages},
};

/// Longest `wait_s` of a poll, seconds.
const WAIT_MAX_S: u64 = 60;

/// The one call that a node makes before it has a certificate, at the people's door.
pub(super) fn join_routes() -> Router<App> {
    Router::new().route(NodeCall::Join.route().1, post(join))
}

/// The calls of joined nodes, at the node door.
pub(super) fn routes() -> Router<App> {
    NodeCall::ALL.into_iter().fold(Router::new(), |router, call| {
        let handler = match call {
            NodeCall::Join => return router,
            NodeCall::Renew => post(renew),
            NodeCall::StartRun => post(start_run),
            NodeCall::Heartbeat => post(heartbeat),
            NodeCall::Desired => get(desired),
            NodeCall::Report => post(report),
            NodeCall::Boot => post(boot),
            NodeCall::BootOrder => get(boot_order),
            NodeCall::Cut => post(cut),
            NodeCall::Stage => put(stage),
            NodeCall::CommitTrouble => post(commit_trouble),
            NodeCall::Outcome => get(outcome),
            NodeCall::SalvageOrder => get(salvage),
            NodeCall::Salvaged => post(salvaged),
            NodeCall::SweepDead => get(sweep_dead),
            NodeCall::SweepJudge => post(sweep_judge),
            NodeCall::SweepDone => post(sweep_done),
            NodeCall::Repository => get(repository),
        };
        router.route(call.route().1, handler)
    })
}

/// The key of the caller's certificate. It need not be that of a node.
#[derive(Clone, Debug)]
pub struct CallerKey(PeerCaller);

impl<S: Send + Sync> FromRequestParts<S> for CallerKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<PeerCaller>().cloned().map(Self).ok_or_else(|| {
            AppError::Unauthenticated("this door is for joined nodes, with their certificate".to_owned()).into()
        })
    }
}

/// A node of this cluster whose certificate has not expired, and the process of it that may act.
impl FromRequestParts<App> for NodeCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let CallerKey(caller) = CallerKey::from_request_parts(parts, app).await?;
        // First whether it was declared dead: a node that was away for long has to learn that as well.
        let (node, row) = app.node_caller(&caller.key_sha256, caller.expired).await?;
        if caller.expired {
            let why = "the node's certificate has ended: POST /node/v1/renew first";
            return Err(AppError::Unauthenticated(why.to_owned()).into());
        }
        let run = parts.headers.get(RUN_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        app.check_run(&row, run)?;
        Ok(node)
    }
}

/// A node that was declared dead. It may call nothing else.
impl FromRequestParts<App> for DeadNode {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let CallerKey(caller) = CallerKey::from_request_parts(parts, app).await?;
        Ok(app.dead_node(&caller.key_sha256, caller.expired).await?)
    }
}

/// Who asks to join: the token that they sent, and their address.
struct Joiner {
    token: String,
    from: Option<SocketAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Joiner {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self { token: bearer(parts)?.to_owned(), from: peer(parts) })
    }
}

async fn join(
    State(app): State<App>,
    Joiner { token, from }: Joiner,
    JsonBody(wanted): JsonBody<JoinRequest>,
) -> Result<Json<JoinAnswer>, ApiError> {
    Ok(Json(app.join(&token, wanted).await.map_err(|error| app.sign_in_failed(error, from))?))
}

async fn renew(
    State(app): State<App>,
    CallerKey(caller): CallerKey,
    JsonBody(wanted): JsonBody<RenewRequest>,
) -> Result<Json<RenewAnswer>, ApiError> {
    let (node, _) = app.node_caller(&caller.key_sha256, caller.expired).await?;
    Ok(Json(app.renew(&node, &caller.key_sha256, &wanted)?))
}

async fn start_run(
    State(app): State<App>,
    CallerKey(caller): CallerKey,
    JsonBody(start): JsonBody<RunStart>,
) -> Result<StatusCode, ApiError> {
    let (node, _) = app.node_caller(&caller.key_sha256, caller.expired).await?;
    app.start_run(&node, &start).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn heartbeat(
    State(app): State<App>,
    node: NodeCaller,
    JsonBody(beat): JsonBody<Heartbeat>,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    Ok(Json(app.heartbeat(&node, beat).await?))
}

async fn desired(
    State(app): State<App>,
    node: NodeCaller,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let has_own_pages = headers.contains_key(HAS_OWN_PAGES_HEADER);
    params.only(&["after", "wait_s"])?;
    let after = params.number("after")?.unwrap_or(0);
    let wait = Duration::from_secs(params.number("wait_s")?.unwrap_or(0).min(WAIT_MAX_S));
    if !app.wait_desired(node.id, after, wait).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let pages = if has_own_pages { RootPages::OfOthers } else { RootPages::All };
    Ok(Json(app.desired(&node, pages).await?).into_response())
}

/// The node is one of this cluster and was not declared dead. What it is told has secrets.
async fn repository(State(app): State<App>, _: NodeCaller) -> Result<Json<RepositoryOrder>, ApiError> {
    Ok(Json(app.repository_order()?))
}

async fn report(
    State(app): State<App>,
    node: NodeCaller,
    JsonBody(report): JsonBody<Report>,
) -> Result<StatusCode, ApiError> {
    app.report(node.id, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn boot(
    State(app): State<App>,
    node: NodeCaller,
    Path(instance): Path<InstanceId>,
    JsonBody(report): JsonBody<BootReport>,
) -> Result<StatusCode, ApiError> {
    app.boot_report(node.id, instance, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn boot_order(
    State(app): State<App>,
    node: NodeCaller,
    Path((instance, disk)): Path<(InstanceId, DiskId)>,
) -> Result<Response, ApiError> {
    Ok(match app.boot_order(node.id, instance, disk).await? {
        Some(order) => Json(order).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn cut(
    State(app): State<App>,
    node: NodeCaller,
    Path(snapshot): Path<SnapshotId>,
    JsonBody(report): JsonBody<CutReport>,
) -> Result<StatusCode, ApiError> {
    app.cut_report(node.id, snapshot, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stage(
    State(app): State<App>,
    node: NodeCaller,
    Path(commit): Path<CommitId>,
    JsonBody(staged): JsonBody<StagedCommit>,
) -> Result<Json<CommitOutcome>, ApiError> {
    Ok(Json(app.stage_commit(node.id, commit, &staged).await?))
}

async fn commit_trouble(
    State(app): State<App>,
    node: NodeCaller,
    Path(commit): Path<CommitId>,
    JsonBody(trouble): JsonBody<CommitTrouble>,
) -> Result<Json<CommitOutcome>, ApiError> {
    Ok(Json(app.commit_trouble(node.id, commit, &trouble).await?))
}

async fn salvage(State(app): State<App>, node: DeadNode) -> Result<Response, ApiError> {
    Ok(match app.salvage_order(node).await? {
        Some(order) => Json(order).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn salvaged(
    State(app): State<App>,
    node: DeadNode,
    Path(disk): Path<DiskId>,
    JsonBody(report): JsonBody<SalvageReport>,
) -> Result<StatusCode, ApiError> {
    app.salvaged(node, disk, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn outcome(
    State(app): State<App>,
    node: NodeCaller,
    Path(commit): Path<CommitId>,
) -> Result<Json<CommitOutcome>, ApiError> {
    Ok(Json(app.commit_outcome(node.id, commit).await?))
}

async fn sweep_dead(
    State(app): State<App>,
    _: NodeCaller,
    Path(round): Path<u64>,
    params: Params,
) -> Result<Response, ApiError> {
    params.only(&["after"])?;
    let after = params.text("after")?.map(str::parse).transpose();
    let after = after.map_err(|error| AppError::BadRequest(format!("after: {error}")))?;
    Ok(names(&app.sweep_dead(round, after).await?))
}

async fn sweep_judge(
    State(app): State<App>,
    _: NodeCaller,
    Path(round): Path<u64>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let asked = names_from_bytes(&body).map_err(AppError::BadRequest)?;
    Ok(names(&app.sweep_judge(round, asked).await?))
}

async fn sweep_done(
    State(app): State<App>,
    node: NodeCaller,
    Path(round): Path<u64>,
    JsonBody(done): JsonBody<SweepDone>,
) -> Result<StatusCode, ApiError> {
    app.sweep_done(&node, round, done)?;
    Ok(StatusCode::NO_CONTENT)
}

fn names(names: &[ObjectName]) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, names_to_bytes(names)).into_response()
}
