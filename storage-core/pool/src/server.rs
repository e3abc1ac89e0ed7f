//! The object server of a node: what members and clients of the pool may do with its share, under `/peer/v1/objects`.
//!
//! A caller is who its key says it is, by the signed membership record that this node has *now*. Everything has a bound:
//! bodies, objects per request, requests at a time per caller, and the time a sender may stay silent (I10, I11).
//!
//! * I4: records are hashed before they enter and when they leave. A bad one is refused or dropped, never passed on.
//! * A node on which no objects belong takes none: it is being emptied, and must be empty for good (`handover.rs`).
//! * I3: a put or touch is answered only after its sync. The store groups the syncs of concurrent requests.
//! * A full node answers 507 and keeps what it has.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    NodeId, ObjectName, Record, lock,
    membership::Membership,
    record::{RecordHeader, Wire},
    store::{ChunkStore, PutSummary, StoreError},
    units::u64_from,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;

use crate::{
    PoolClient, checksum,
    protocol::{
        EVICTED_HEADER, NAMES_MAX, OWN_ROUND, OWNS_NOTHING, ObjectCall, PUT_BYTES_MAX, READS_HEADER, RECORD_HEADER,
        ROUND_HEADER, Refusal, Refused,
    },
    tls::PeerCaller,
    wire::{Held, RecordReader, Stamped, WireError, decode_names, decode_stamped, encode_held},
};

/// Requests of one caller at a time. A controller that imports at full speed uses about ten.
const REQUESTS_PER_CALLER: usize = 64;
/// Longest a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Longest a sender may stay silent inside a body.
const SILENCE: Duration = Duration::from_secs(10);
/// A put is handed to the store in parts of this many bytes, so that memory does not grow with the body.
const PART_BYTES: usize = 4 << 20;
/// Objects that a get reads ahead of the network.
const READ_AHEAD: usize = 4;

/// Who is calling, by the membership record; an extension of every request that gets past [`routes`]' door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Another node of the pool.
    Member(NodeId),
    /// A controller that the membership record lists as a client.
    Client,
    /// A node that was declared dead. It may read and store objects, to save what its disks hold, and nothing else.
    Salvager,
}

/// The routes of a peer server, for [`crate::serve`]: objects in `chunks`, and what `more` adds. Only members and clients
/// of the membership record that `pool` has at that moment get in.
pub fn routes(pool: PoolClient, chunks: Arc<dyn ChunkStore>, more: Router) -> Router {
    let door = Arc::new(Door { pool, turns: Mutex::default() });
    let of_names = || DefaultBodyLimit::max(NAMES_MAX * ObjectName::BYTES);
    let objects = ObjectCall::ALL.into_iter().fold(Router::new(), |router, call| {
        let handler = match call {
            ObjectCall::Get => post(get).layer(of_names()),
            ObjectCall::Touch => post(touch).layer(of_names()),
            ObjectCall::Have => post(have).layer(of_names()),
            ObjectCall::TakeOver => post(take_over).layer(DefaultBodyLimit::max(NAMES_MAX * Stamped::BYTES)),
            ObjectCall::Put => post(put).layer(DefaultBodyLimit::disable()),
        };
        router.route(call.path(), handler)
    });
    objects
        .with_state(Share { pool: door.pool.clone(), chunks })
        .merge(more)
        .fallback(|| async { Refusal::NoSuchPath.because("there is no such path on the peer server") })
        .layer(middleware::from_fn(checksum::layer))
        .layer(middleware::from_fn_with_state(door, admit))
}

/// This node's share of the pool, and the membership record that it works with.
#[derive(Clone)]
struct Share {
    pool: PoolClient,
    chunks: Arc<dyn ChunkStore>,
}

impl Share {
    /// As [`blocking`], for work that takes objects in. Refused while no objects belong on this node (`handover.rs`).
    async fn taking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ChunkStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let taking = self.pool.inner.taking.clone().read_owned().await;
        if !self.pool.owns_objects() {
            return Err(Refusal::Unavailable.because(OWNS_NOTHING));
        }
        let chunks = self.chunks.clone();
        blocking(move || {
            let _taking = taking;
            work(chunks.as_ref())
        })
        .await
    }
}

struct Door {
    pool: PoolClient,
    /// Permits by the caller's key.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Door {
    fn turns(&self, key: &str, membership: &Membership) -> Arc<Semaphore> {
        let mut all = lock(&self.turns);
        // Keys of nodes that left are few and small; they go when the next one is added.
        if !all.contains_key(key) {
            all.retain(|known, _| caller(membership, known).is_some());
        }
        all.entry(key.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_PER_CALLER))).clone()
    }
}

fn caller(membership: &Membership, key: &str) -> Option<Caller> {
    let member = membership.members.iter().find(|m| m.key_sha256 == key).map(|m| Caller::Member(m.node));
    let client = || membership.clients.iter().find(|c| c.key_sha256 == key);
    member.or_else(|| Some(if client()?.salvages { Caller::Salvager } else { Caller::Client }))
}

/// Lets in who is listed, a bounded number of requests at a time per key. The turn lasts until the answer is sent.
async fn admit(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Result<Response, Refused> {
    let key = request.extensions().get::<PeerCaller>().map(|peer| peer.key_sha256.clone());
    let key = key.ok_or_else(|| Refusal::Unauthenticated.because("peers show a certificate"))?;
    let membership = door.pool.membership();
    let caller = caller(&membership, &key).ok_or_else(|| {
        Refusal::Forbidden.because(format!("the key is not in membership epoch {}", membership.epoch))
    })?;
    request.extensions_mut().insert(caller);
    // A controller's connection for something else than requests has a limit of its own, and may wait long for what it
    // leads to. It must not take the turns of requests.
    if caller == Caller::Client && request.headers().contains_key(header::UPGRADE) {
        return Ok(next.run(request).await);
    }
    let Ok(Ok(turn)) = timeout(TURN, door.turns(&key, &membership).acquire_owned()).await else {
        return Err(Refusal::Unavailable.because("too many requests of this caller are under way"));
    };
    let gives = request.uri().path() == ObjectCall::Get.path();
    let under_way = gives.then(|| door.pool.serve_read());
    let pool = door.pool.clone();
    let told = move |bytes: u64| {
        if under_way.is_some() {
            let node = if let Caller::Member(node) = caller { Some(node) } else { None };
            pool.traffic().count_served(node, bytes);
        }
    };
    let mut answer = next.run(request).await.map(|body| hold_turn(body, turn, told));
    if !gives && door.pool.inner.demand.was_lately() {
        answer.headers_mut().insert(READS_HEADER, HeaderValue::from_static("1"));
    }
    Ok(answer)
}

/// Keeps the turn until the body was sent, and tells of each piece how long it is.
fn hold_turn(body: Body, turn: OwnedSemaphorePermit, told: impl Fn(u64) + Send + 'static) -> Body {
    let turn = Arc::new(turn);
    Body::from_stream(body.into_data_stream().inspect(move |piece| {
        let _held_with_the_stream = &turn;
        told(piece.as_ref().map_or(0, |piece| u64_from(piece.len())));
    }))
}

fn store_error(error: &StoreError) -> Refused {
    match error {
        StoreError::Full { .. } => Refusal::NoCapacity.because(error.to_string()),
        StoreError::Refused(corrupt) => Refusal::Invalid.because(format!("{error}: {corrupt}")),
        _ => {
            warn!(%error, "the pool's store failed");
            Refusal::Internal.because(error.to_string())
        }
    }
}

fn names_of(body: &Bytes) -> Result<Vec<ObjectName>, Refused> {
    decode_names(body, NAMES_MAX).map_err(|e| Refusal::BadRequest.because(e.to_string()))
}

fn round_text(headers: &HeaderMap) -> &str {
    headers.get(ROUND_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn round_of(headers: &HeaderMap) -> Result<u64, Refused> {
    let text = round_text(headers);
    let wrong = || format!("the header {ROUND_HEADER} is a decimal number, got '{text}'");
    text.parse().map_err(|_| Refusal::BadRequest.because(wrong()))
}

/// Runs store work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(store_error(&error)),
        Err(error) => Err(Refusal::Internal.because(error.to_string())),
    }
}

async fn get(State(Share { chunks, .. }): State<Share>, body: Bytes) -> Result<Response, Refused> {
    let names = names_of(&body)?;
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

async fn touch(State(share): State<Share>, headers: HeaderMap, body: Bytes) -> Result<Response, Refused> {
    let (round, names) = (share.pool.inner.stamp_of(round_of(&headers)?), names_of(&body)?);
    let touch = move |chunks: &dyn ChunkStore| {
        let here = chunks.touch(round, &names)?;
        if here.contains(&true) {
            chunks.sync()?;
        }
        Ok(here)
    };
    let here = share.taking(touch).await?;
    Ok(here.into_iter().map(u8::from).collect::<Vec<u8>>().into_response())
}

/// Which of the objects are here, by the index alone. A copy that was found bad is not in it any more.
async fn have(
    State(Share { chunks, .. }): State<Share>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Bytes, Refused> {
    // I12: what a node holds beside what it is asked for is nobody else's business.
    if !matches!(caller, Caller::Member(_)) {
        return Err(Refusal::Forbidden.because("only members of the pool may ask what a node has"));
    }
    let names = names_of(&body)?;
    let knows_evicted = headers.contains_key(EVICTED_HEADER);
    let held = blocking(move || {
        let evicted = if knows_evicted { chunks.evicted(&names)? } else { vec![false; names.len()] };
        let held = |(name, evicted): (&ObjectName, bool)| {
            Ok(match chunks.find(name)? {
                Some(here) => Held::Here(here.round),
                None if evicted => Held::Evicted,
                None => Held::Absent,
            })
        };
        names.iter().zip(evicted).map(held).collect::<Result<Vec<_>, _>>()
    });
    Ok(encode_held(&held.await?))
}

/// Another node wants to drop its copies of objects whose home this node is.
async fn take_over(
    State(share): State<Share>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    if !matches!(caller, Caller::Member(_)) {
        return Err(Refusal::Forbidden.because("only members of the pool hand objects over"));
    }
    let objects = decode_stamped(&body, NAMES_MAX).map_err(|e| Refusal::BadRequest.because(e.to_string()))?;
    let record = headers.get(RECORD_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let keeping = share.pool.inner.dropping.clone().read_owned().await;
    let kept = blocking(move || {
        let _keeping = keeping;
        share.pool.inner.keep(share.chunks.as_ref(), &record, &objects)
    });
    let kept =
        kept.await?.ok_or_else(|| Refusal::WrongState.because("this node works with another membership record"))?;
    Ok(kept.into_iter().map(|said| said as u8).collect::<Vec<u8>>().into_response())
}

/// What a put stamps its objects with.
#[derive(Clone, Copy)]
enum Stamp {
    Round(u64),
    /// Each object with the round in its own header.
    Own,
}

async fn put(
    State(share): State<Share>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PutSummary>, Refused> {
    // I6: only nodes make copies again; all others store under an upload of their own.
    if round_text(&headers) == OWN_ROUND && !matches!(caller, Caller::Member(_)) {
        return Err(
            Refusal::Forbidden.because("only members of the pool may put objects with the stamps that they have")
        );
    }
    let stamp = if round_text(&headers) == OWN_ROUND { Stamp::Own } else { Stamp::Round(round_of(&headers)?) };
    let mut records = RecordReader::new(body.into_data_stream());
    let mut done = PutSummary::default();
    let (mut part, mut part_bytes, mut payload_bytes, mut count) = (Vec::new(), 0, 0, 0);
    while let Some(record) = next_record(&mut records).await? {
        count += 1;
        payload_bytes += record.stored().len();
        part_bytes += record.stored().len();
        if payload_bytes > PUT_BYTES_MAX || count > NAMES_MAX {
            let detail = format!("a put has at most {NAMES_MAX} records and {PUT_BYTES_MAX} bytes of payload");
            return Err(Refusal::TooLarge.because(detail));
        }
        part.push(record);
        if part_bytes >= PART_BYTES {
            add(&mut done, put_part(&share, stamp, std::mem::take(&mut part)).await?);
            part_bytes = 0;
        }
    }
    if !part.is_empty() {
        add(&mut done, put_part(&share, stamp, part).await?);
    }
    // I3: nothing is answered before all of it is on stable storage.
    blocking(move || share.chunks.sync()).await?;
    Ok(Json(done))
}

/// The next record of a put's body; none at its end.
async fn next_record<S, E>(records: &mut RecordReader<S>) -> Result<Option<Record>, Refused>
where
    S: futures::Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    match timeout(SILENCE, records.next()).await {
        Ok(Ok(Some(Wire::Present(record)))) => Ok(Some(record)),
        Ok(Ok(Some(Wire::Absent(name)))) => Err(Refusal::Invalid.because(format!("{name} is put without its bytes"))),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error @ WireError::Broken(_))) => Err(Refusal::BadRequest.because(error.to_string())),
        Ok(Err(error)) => Err(Refusal::Invalid.because(error.to_string())),
        Err(_elapsed) => Err(Refusal::BadRequest.because("the sender was silent for too long")),
    }
}

async fn put_part(share: &Share, stamp: Stamp, part: Vec<Record>) -> Result<PutSummary, Refused> {
    let inner = share.pool.inner.clone();
    let put = move |chunks: &dyn ChunkStore| {
        // I4: hashed here, off the network's threads; the store takes proven records as they are.
        let mut proven: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for record in part {
            let round = match stamp {
                Stamp::Round(round) => round,
                Stamp::Own => record.body().round,
            };
            proven.entry(inner.stamp_of(round)).or_default().push(record.prove()?);
        }
        let mut done = PutSummary::default();
        for (round, records) in proven {
            add(&mut done, chunks.put(round, &records)?);
        }
        Ok(done)
    };
    share.taking(put).await
}

fn add(sum: &mut PutSummary, part: PutSummary) {
    sum.stored += part.stored;
    sum.touched += part.touched;
    sum.stored_bytes += part.stored_bytes;
}
