//! The peer server: what other nodes and controllers may ask of this one, under `/peer/v1` over mutual TLS.
//!
//! A caller is who its key says it is, by the signed membership record this node has *now*: members put, get, touch and
//! cut; clients (controllers) put, get, touch and read console logs. Everything has a bound: bodies, objects per request,
//! requests at a time per caller, and the time a sender may stay silent (I10, I11).
//!
//! * I4: records are hashed before they enter and when they leave; a bad one is refused or dropped, never passed on.
//! * I3: a put or touch is answered only after its sync; syncs of concurrent requests are grouped by the store.
//! * A full node answers 507 and keeps what it has.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use muster_api::{
    DiskId, ErrorCode, InstanceId, NodeId, Problem, SnapshotId,
    peer_protocol::{CutStep, CutStepAnswer, NAMES_MAX, PUT_BYTES_MAX, PutAnswer, ROUND_HEADER},
};
use muster_peer::{
    PoolClient,
    tls::PeerCaller,
    wire::{NAME_BYTES, RecordReader, WireError, decode_names},
};
use serde::Deserialize;
use storage_core::{
    Record,
    record::{RecordHeader, Wire},
    store::{ChunkStore, PutSummary, StoreError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;

use crate::hypervisor::console;

/// Requests of one caller at a time; a controller importing at full speed uses some ten.
const REQUESTS_PER_CALLER: usize = 64;
/// Longest a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Longest a sender may stay silent inside a body.
const SILENCE: Duration = Duration::from_secs(10);
/// A put is handed to the store in parts of this many bytes, so that memory does not grow with the body.
const PART_BYTES: usize = 4 << 20;
/// Objects read ahead of the network in one get.
const READ_AHEAD: usize = 4;
/// Most bytes of a console log in one answer.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// The steps of a cut as this node carries them out; [`crate::cuts::Cuts`] is the real one.
pub trait CutSteps: Send + Sync {
    /// Carries out `step` (prepare, hold, flip, abort) for exactly `disks`.
    fn step(
        &self,
        snapshot: SnapshotId,
        attempt: u32,
        step: String,
        disks: Vec<DiskId>,
    ) -> BoxFuture<'_, CutStepAnswer>;
}

/// What the server works with.
pub struct PeerServerParts {
    /// This node's share of the pool.
    pub chunks: Arc<dyn ChunkStore>,
    /// For the membership record.
    pub pool: PoolClient,
    /// For the steps of cuts.
    pub cuts: Arc<dyn CutSteps>,
    /// Folder of the console logs, `{instance}.log`.
    pub console_dir: PathBuf,
}

struct Server {
    parts: PeerServerParts,
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Who is calling, by the membership record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Member(NodeId),
    Client,
}

/// The routes, for [`muster_peer::tls::serve`].
pub fn routes(parts: PeerServerParts) -> Router {
    let server = Arc::new(Server { parts, turns: Mutex::default() });
    Router::new()
        .route("/peer/v1/objects/get", post(objects_get).layer(DefaultBodyLimit::max(NAMES_MAX * NAME_BYTES)))
        .route("/peer/v1/objects/touch", post(objects_touch).layer(DefaultBodyLimit::max(NAMES_MAX * NAME_BYTES)))
        .route("/peer/v1/objects/put", post(objects_put).layer(DefaultBodyLimit::disable()))
        .route("/peer/v1/cuts/{snapshot}/{attempt}/{step}", post(cut_step).layer(DefaultBodyLimit::max(1 << 20)))
        .route("/peer/v1/instances/{instance}/log", get(instance_log))
        .fallback(|| async { refuse(ErrorCode::NoSuchPath, "there is no such path on the peer server") })
        .layer(middleware::from_fn_with_state(server.clone(), admit))
        .with_state(server)
}

fn refuse(code: ErrorCode, detail: impl Into<String>) -> Response {
    let problem = Problem::new(code, detail);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

/// Lets in who is listed, a bounded number of requests at a time per key. The turn lasts until the answer is sent.
async fn admit(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let key = request.extensions().get::<PeerCaller>().map(|c| c.key_sha256.clone());
    let Some(key) = key else {
        return refuse(ErrorCode::Unauthenticated, "peers show a certificate");
    };
    let membership = server.parts.pool.membership();
    let caller = match membership.members.iter().find(|m| m.key_sha256 == key) {
        Some(member) => Caller::Member(member.node),
        None if membership.clients.iter().any(|c| c.key_sha256 == key) => Caller::Client,
        None => {
            let detail = format!("the key is not in membership epoch {}", membership.epoch);
            return refuse(ErrorCode::Forbidden, detail);
        }
    };
    let turns = {
        let mut all = server.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Keys of nodes that left are few and small; they go when the next one is added.
        if !all.contains_key(&key) {
            all.retain(|k, _| {
                membership.members.iter().any(|m| m.key_sha256 == *k)
                    || membership.clients.iter().any(|c| c.key_sha256 == *k)
            });
        }
        all.entry(key).or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_PER_CALLER))).clone()
    };
    let Ok(Ok(turn)) = timeout(TURN, turns.acquire_owned()).await else {
        return refuse(ErrorCode::Unavailable, "too many requests of this caller are under way");
    };
    request.extensions_mut().insert(caller);
    next.run(request).await.map(|body| hold_turn(body, turn))
}

fn hold_turn(body: Body, turn: OwnedSemaphorePermit) -> Body {
    let turn = Arc::new(turn);
    Body::from_stream(body.into_data_stream().inspect(move |_| {
        let _held_with_the_stream = &turn;
    }))
}

/// A refusal on its way out; boxed, as answers are large.
struct Refused(Box<Response>);

impl Refused {
    fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(Box::new(refuse(code, detail)))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

fn store_error(error: &StoreError) -> Response {
    match error {
        StoreError::Full { .. } => refuse(ErrorCode::NoCapacity, error.to_string()),
        StoreError::Refused(corrupt) => refuse(ErrorCode::Invalid, format!("{error}: {corrupt}")),
        _ => {
            warn!(%error, "the pool's store failed");
            refuse(ErrorCode::Internal, error.to_string())
        }
    }
}

fn names_of(body: &Bytes) -> Result<Vec<storage_core::ObjectName>, Refused> {
    decode_names(body, NAMES_MAX).map_err(|e| Refused::new(ErrorCode::BadRequest, e.to_string()))
}

fn round_of(headers: &HeaderMap) -> Result<u64, Refused> {
    let text = headers.get(ROUND_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let wrong = || format!("the header {ROUND_HEADER} is a decimal number, got '{text}'");
    text.parse().map_err(|_| Refused::new(ErrorCode::BadRequest, wrong()))
}

/// Runs store work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Refused(Box::new(store_error(&error)))),
        Err(error) => Err(Refused::new(ErrorCode::Internal, error.to_string())),
    }
}

async fn objects_get(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, Refused> {
    let names = names_of(&body)?;
    let chunks = server.parts.chunks.clone();
    let records = futures::stream::iter(names).map(move |name| {
        let chunks = chunks.clone();
        async move {
            let looked = tokio::task::spawn_blocking(move || chunks.get(&name)).await;
            let record = match looked {
                Ok(Ok(record)) => record,
                Ok(Err(error)) => {
                    warn!(object.name = %name, %error, "a copy could not be read, the caller asks another node");
                    None
                }
                Err(error) => return Err(std::io::Error::other(error)),
            };
            Ok(record.map_or_else(
                || vec![Bytes::copy_from_slice(&RecordHeader::absent(name).encode())],
                |r| vec![Bytes::copy_from_slice(&r.header().encode()), r.stored().clone()],
            ))
        }
    });
    let pieces = records
        .buffered(READ_AHEAD)
        .map_ok(|p| futures::stream::iter(p.into_iter().map(Ok::<Bytes, std::io::Error>)))
        .try_flatten();
    Ok(Body::from_stream(pieces).into_response())
}

async fn objects_touch(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let (round, names) = (round_of(&headers)?, names_of(&body)?);
    let chunks = server.parts.chunks.clone();
    let here = blocking(move || {
        let here = chunks.touch(round, &names)?;
        if here.contains(&true) {
            chunks.sync()?;
        }
        Ok(here)
    })
    .await?;
    Ok(here.into_iter().map(u8::from).collect::<Vec<u8>>().into_response())
}

async fn objects_put(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PutAnswer>, Refused> {
    let round = round_of(&headers)?;
    let mut records = RecordReader::new(body.into_data_stream());
    let mut done = PutSummary::default();
    let (mut part, mut part_bytes, mut payload_bytes, mut count) = (Vec::new(), 0, 0, 0);
    loop {
        let next = match timeout(SILENCE, records.next()).await {
            Ok(Ok(next)) => next,
            Ok(Err(error @ WireError::Broken(_))) => {
                return Err(Refused::new(ErrorCode::BadRequest, error.to_string()));
            }
            Ok(Err(error)) => return Err(Refused::new(ErrorCode::Invalid, error.to_string())),
            Err(_elapsed) => return Err(Refused::new(ErrorCode::BadRequest, "the sender was silent for too long")),
        };
        match next {
            Some(Wire::Present(record)) => {
                count += 1;
                payload_bytes += record.stored().len();
                part_bytes += record.stored().len();
                if payload_bytes > PUT_BYTES_MAX || count > NAMES_MAX {
                    let detail = format!("a put has at most {NAMES_MAX} records and {PUT_BYTES_MAX} bytes of payload");
                    return Err(Refused::new(ErrorCode::TooLarge, detail));
                }
                part.push(record);
            }
            Some(Wire::Absent(name)) => {
                return Err(Refused::new(ErrorCode::Invalid, format!("{name} is put without its bytes")));
            }
            None => break,
        }
        if part_bytes >= PART_BYTES {
            add(&mut done, put_part(&server, round, std::mem::take(&mut part)).await?);
            part_bytes = 0;
        }
    }
    if !part.is_empty() {
        add(&mut done, put_part(&server, round, part).await?);
    }
    // I3: nothing is answered before all of it is on stable storage.
    let chunks = server.parts.chunks.clone();
    blocking(move || chunks.sync()).await?;
    Ok(Json(PutAnswer { stored: done.stored, touched: done.touched, stored_bytes: done.stored_bytes }))
}

async fn put_part(server: &Server, round: u64, part: Vec<Record>) -> Result<PutSummary, Refused> {
    let chunks = server.parts.chunks.clone();
    blocking(move || {
        // I4: hashed here, off the network's threads; the store takes proven records as they are.
        let proven = part.into_iter().map(Record::prove).collect::<Result<Vec<_>, _>>()?;
        chunks.put(round, &proven)
    })
    .await
}

fn add(sum: &mut PutSummary, part: PutSummary) {
    sum.stored += part.stored;
    sum.touched += part.touched;
    sum.stored_bytes += part.stored_bytes;
}

async fn cut_step(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path((snapshot, attempt, step)): Path<(SnapshotId, u32, String)>,
    Json(body): Json<CutStep>,
) -> Result<Json<CutStepAnswer>, Refused> {
    if caller == Caller::Client {
        return Err(Refused::new(ErrorCode::Forbidden, "cuts are between members"));
    }
    Ok(Json(server.parts.cuts.step(snapshot, attempt, step, body.disks).await))
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
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(instance): Path<InstanceId>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refused> {
    if let Caller::Member(node) = caller {
        // I12: consoles are the tenants'; nodes have no business with those of instances they do not run.
        return Err(Refused::new(ErrorCode::Forbidden, format!("node {node} may not read consoles")));
    }
    let file = server.parts.console_dir.join(format!("{instance}.log"));
    let tail = query.tail_bytes.min(LOG_BYTES_MAX);
    // What was rotated away belongs to it: else little is left right after.
    let read = move || console::tail(&file, tail).map(|bytes| (!bytes.is_empty() || file.exists()).then_some(bytes));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Some(bytes))) => Ok(bytes.into_response()),
        Ok(Ok(None)) => {
            Err(Refused::new(ErrorCode::NotFound, format!("instance {instance} has no console output here")))
        }
        Ok(Err(error)) => Err(Refused::new(ErrorCode::Internal, format!("the console log cannot be read: {error}"))),
        Err(error) => Err(Refused::new(ErrorCode::Internal, error.to_string())),
    }
}
