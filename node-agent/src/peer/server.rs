//! The peer server: what other nodes and controllers may ask of this one, under `/peer/v1` over mutual TLS.
//!
//! The pool serves objects and admits callers ([`muster_pool::server`]). The agent adds the steps of cuts, which only
//! members may ask for, and what only clients (controllers) may do: read console logs, open consoles, run commands in
//! guests, and acknowledge losses.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_api::{
    InstanceId, SnapshotId,
    console::{ConsoleKind, ConsoleMode, OpenConsole},
    node::ObjectAmount,
    node_protocol::CutKey,
    peer_protocol::{
        CutStep, CutStepAnswer, CutStepRequest, ExecAnswer, ExecRequest, LOST_NAMES_MAX, LogPart, LostCopies, PeerCall,
    },
};
use muster_pool::{
    PoolClient,
    protocol::{Refusal, Refused},
    server::Caller,
};
use serde::Deserialize;
use storage_core::store::ChunkStore;

use super::{losses::Losses, repair::Asked};
use crate::{
    consoles::{Consoles, DoorError, Wish},
    cuts::Cuts,
    hypervisor::{Hypervisor, console, guest_agent},
};

/// Most bytes of a console log in one answer.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Largest request to run a command: 64 KiB of command, and 256 KiB of input in base64.
const EXEC_BODY_BYTES_MAX: usize = 1 << 20;
/// Longest list of lost objects: a name takes 67 bytes.
const LOST_BODY_BYTES_MAX: usize = 80 * LOST_NAMES_MAX;

/// What the server works with.
pub struct PeerServerParts {
    /// This node's share of the pool.
    pub chunks: Arc<dyn ChunkStore>,
    /// What that share has lost.
    pub losses: Arc<Losses>,
    /// What the repair is asked for.
    pub repair: Arc<Asked>,
    /// Has the current membership record.
    pub pool: PoolClient,
    /// Carries out the steps of cuts.
    pub cuts: Arc<Cuts>,
    /// Folder of the console logs, `{instance}.log`.
    pub console_dir: PathBuf,
    /// Ways into running guests.
    pub consoles: Consoles,
    /// Runs commands in guests; `None` if this node has none.
    pub machines: Option<Arc<dyn Hypervisor>>,
}

#[derive(Clone)]
struct Server {
    losses: Arc<Losses>,
    repair: Arc<Asked>,
    cuts: Arc<Cuts>,
    console_dir: Arc<std::path::Path>,
    consoles: Consoles,
    machines: Option<Arc<dyn Hypervisor>>,
}

/// The routes for [`muster_pool::serve`]: objects of the pool, losses, steps of cuts, console logs, consoles, and commands
/// for guests.
pub fn routes(parts: PeerServerParts) -> Router {
    let PeerServerParts { chunks, losses, repair, pool, cuts, console_dir, consoles, machines } = parts;
    let more = PeerCall::ALL.into_iter().fold(Router::new(), |router, call| {
        let handler = match call {
            PeerCall::CutStep => post(cut_step).layer(DefaultBodyLimit::max(1 << 20)),
            PeerCall::AcknowledgeLosses => post(acknowledge).layer(DefaultBodyLimit::max(1 << 10)),
            PeerCall::Lost => post(lost_elsewhere).layer(DefaultBodyLimit::max(LOST_BODY_BYTES_MAX)),
            PeerCall::Log => get(instance_log),
            PeerCall::LogAfter => get(instance_log_after),
            PeerCall::Console => get(instance_console),
            PeerCall::Exec => post(exec).layer(DefaultBodyLimit::max(EXEC_BODY_BYTES_MAX)),
        };
        router.route(call.route(), handler)
    });
    let server = Server { losses, repair, cuts, console_dir: console_dir.into(), consoles, machines };
    muster_pool::server::routes(pool, chunks, more.with_state(server))
}

async fn cut_step(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((snapshot, attempt, step)): Path<(SnapshotId, u32, CutStep)>,
    Json(body): Json<CutStepRequest>,
) -> Result<Json<CutStepAnswer>, Refused> {
    if !matches!(caller, Caller::Member(_)) {
        return Err(Refusal::Forbidden.because("cuts are between members"));
    }
    Ok(Json(server.cuts.step(CutKey::new(snapshot, attempt), step, body.disks).await))
}

async fn acknowledge(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Json(seen): Json<ObjectAmount>,
) -> Result<Json<bool>, Refused> {
    if caller != Caller::Client {
        return Err(Refusal::Forbidden.because("only controllers acknowledge what was lost"));
    }
    match tokio::task::spawn_blocking(move || server.losses.acknowledge(seen)).await {
        Ok(Ok(done)) => Ok(Json(done)),
        Ok(Err(error)) => Err(Refusal::Internal.because(format!("it cannot be written down: {error}"))),
        Err(error) => Err(Refusal::Internal.because(error.to_string())),
    }
}

/// Another node has lost copies. The repair looks whether this one has to send them.
async fn lost_elsewhere(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Json(lost): Json<LostCopies>,
) -> Result<(), Refused> {
    if !matches!(caller, Caller::Member(_)) {
        return Err(Refusal::Forbidden.because("only members of the pool lose copies of it"));
    }
    if let LostCopies::Named(names) = &lost
        && names.len() > LOST_NAMES_MAX
    {
        return Err(Refusal::TooLarge.because(format!("{} names are more than {LOST_NAMES_MAX}", names.len())));
    }
    server.repair.lost_elsewhere(lost);
    Ok(())
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default = "tail_default")]
    tail_bytes: u64,
}

const fn tail_default() -> u64 {
    64 << 10
}

async fn instance_log(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(instance): Path<InstanceId>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refused> {
    for_controllers(caller)?;
    let file = server.console_dir.join(format!("{instance}.log"));
    let tail = query.tail_bytes.min(LOG_BYTES_MAX);
    // `tail` also reads the file that was rotated away: right after a rotation the newer one has little.
    let read = move || console::tail(&file, tail).map(|bytes| (!bytes.is_empty() || file.exists()).then_some(bytes));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Some(bytes))) => Ok(bytes.into_response()),
        Ok(Ok(None)) => Err(Refusal::NotFound.because(format!("instance {instance} has no console output here"))),
        Ok(Err(error)) => Err(Refusal::Internal.because(format!("the console log cannot be read: {error}"))),
        Err(error) => Err(Refusal::Internal.because(error.to_string())),
    }
}

#[derive(Deserialize)]
struct ConsoleQuery {
    kind: ConsoleKind,
    mode: Option<ConsoleMode>,
    take: Option<bool>,
    port: Option<u16>,
    idle_s: u64,
}

/// A way into a guest, as a WebSocket.
async fn instance_console(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(instance): Path<InstanceId>,
    Query(query): Query<ConsoleQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    for_controllers(caller)?;
    let ConsoleQuery { kind, mode, take, port, idle_s } = query;
    if let Some(problem) = (OpenConsole { kind, mode, take, port }).problem() {
        return Err(Refusal::BadRequest.because(problem));
    }
    let upgrade = upgrade.map_err(|error| Refusal::BadRequest.because(error.body_text()))?;
    let (mode, take, idle) = (mode.unwrap_or_default(), take.unwrap_or_default(), Duration::from_secs(idle_s));
    server.consoles.open(instance, Wish { kind, mode, take, port, idle }, upgrade).await.map_err(|error| {
        let refusal = match error {
            DoorError::Closed(_) => Refusal::WrongState,
            DoorError::Failed(_) => Refusal::Unanswered,
            DoorError::Busy(_) => Refusal::Unavailable,
        };
        refusal.because(error.to_string())
    })
}

#[derive(Deserialize)]
struct LogAfterQuery {
    bytes_max: u64,
    place: Option<String>,
}

/// A part of the output, for one who follows it. Without any output it is empty: there may be some later.
async fn instance_log_after(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(instance): Path<InstanceId>,
    Query(query): Query<LogAfterQuery>,
) -> Result<Vec<u8>, Refused> {
    for_controllers(caller)?;
    let place = query.place.map(|place| place.parse()).transpose();
    let place = place.map_err(|expected| Refusal::BadRequest.because(expected))?;
    let (file, bytes_max) = (server.console_dir.join(format!("{instance}.log")), query.bytes_max.min(LOG_BYTES_MAX));
    let read = move || match place {
        Some(place) => console::after(&file, place, bytes_max),
        None => console::tail_and_end(&file, bytes_max),
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok((bytes, place))) => Ok(LogPart { place: place.to_string(), bytes }.encode()),
        Ok(Err(error)) => Err(Refusal::Internal.because(format!("the console log cannot be read: {error}"))),
        Err(error) => Err(Refusal::Internal.because(error.to_string())),
    }
}

/// Runs a command in a guest. The answer comes when the command has ended, or its time is over.
async fn exec(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(instance): Path<InstanceId>,
    Json(request): Json<ExecRequest>,
) -> Result<Json<ExecAnswer>, Refused> {
    for_controllers(caller)?;
    let Some(machines) = &server.machines else { return Ok(Json(ExecAnswer::NotRunning)) };
    Ok(Json(guest_agent::exec(&**machines, instance, &request).await))
}

/// I12: a console belongs to its tenant. Nodes read no consoles and steer no guests of other nodes.
fn for_controllers(caller: Caller) -> Result<(), Refused> {
    if caller == Caller::Client {
        Ok(())
    } else {
        Err(Refusal::Forbidden.because("nodes may not read consoles or steer guests"))
    }
}
