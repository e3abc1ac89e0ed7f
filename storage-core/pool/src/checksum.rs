//! Checksums of the messages that daemons send each other. TLS protects a message on its way; this covers the memory before and
//! after it, so that a flipped bit is never taken for another name, number or answer.
//!
//! ```text
//! muster-checksum: 1a2b3c4d 5e6f7a8b    CRC-32C of the head and of the body
//! muster-checksum: 1a2b3c4d             of the head alone: the body is a stream of records, which have checksums and names (I4)
//!
//! head of a request: its method, its path from /node/ or /peer/ on with the query, and its headers that begin with `muster-`
//! head of an answer: its status
//! ```
//! - A request whose checksum does not fit is refused with 503 before its handler runs: the caller tries it again. One without a
//!   checksum comes from an earlier release and is taken as it is. A server seals only answers to requests that have one.
//! - An answer that does not fit is an error of the call. The call may have been carried out, like one whose answer was lost.
//! - A checksum finds what changes after it was made. What a broken node says with a right checksum is checked elsewhere: names
//!   of objects, generations, rounds, signatures.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tracing::warn;

use crate::protocol::Refusal;

/// Header with the checksum of a message.
pub const CHECKSUM_HEADER: HeaderName = HeaderName::from_static("muster-checksum");
/// Longest answer that is sealed, bytes. No answer between daemons that is not a stream is longer.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The checksum of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum {
    head: u32,
    /// None: the body is a stream of records.
    body: Option<u32>,
}

impl Checksum {
    /// The one that a message states; none if it states none.
    fn stated(headers: &HeaderMap) -> Option<Result<Self, Damaged>> {
        let text = headers.get(CHECKSUM_HEADER)?.to_str().unwrap_or_default();
        let parsed = match text.split_once(' ') {
            None => parse(text).map(|head| Self { head, body: None }),
            Some((head, body)) => parse(head).zip(parse(body)).map(|(head, body)| Self { head, body: Some(body) }),
        };
        Some(parsed.ok_or_else(|| Damaged(format!("it states the checksum '{text}'"))))
    }

    fn value(self) -> HeaderValue {
        let body = self.body.map(|body| format!(" {body:08x}")).unwrap_or_default();
        HeaderValue::try_from(format!("{:08x}{body}", self.head)).expect("letters and digits")
    }
}

/// Exactly as it is written: eight digits, small letters.
fn parse(crc: &str) -> Option<u32> {
    let number = u32::from_str_radix(crc, 16).ok()?;
    (format!("{number:08x}") == crc).then_some(number)
}

fn check(what: &str, stated: u32, got: u32) -> Result<(), Damaged> {
    if got == stated {
        return Ok(());
    }
    Err(Damaged(format!("the checksum of its {what} is {got:08x}, it states {stated:08x}")))
}

/// A message is not what its sender made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message was damaged: {0}")]
pub struct Damaged(String);

/// The checksum of a request's head.
fn request_head(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> u32 {
    // A proxy before the door for people may have taken a prefix away.
    let path = path.find("/node/").or_else(|| path.find("/peer/")).map_or(path, |at| &path[at..]);
    let mut crc = crc32c::crc32c(format!("{method} {path}?{}\n", query.unwrap_or_default()).as_bytes());
    let ours = |name: &&HeaderName| name.as_str().starts_with("muster-") && **name != CHECKSUM_HEADER;
    let mut names: Vec<&HeaderName> = headers.keys().filter(ours).collect();
    names.sort_by_key(|name| name.as_str());
    for name in names {
        for value in headers.get_all(name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"] {
                crc = crc32c::crc32c_append(crc, part);
            }
        }
    }
    crc
}

fn answer_head(status: StatusCode) -> u32 {
    crc32c::crc32c(status.as_str().as_bytes())
}

/// What a request states that has this body.
#[must_use]
pub fn of_request(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> HeaderValue {
    Checksum { head: request_head(method, path, query, headers), body: Some(crc32c::crc32c(body)) }.value()
}

/// Sends a request with its checksum.
///
/// # Errors
/// As the HTTP client.
pub async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, reqwest::Error> {
    let (http, request) = request.build_split();
    let mut request = request?;
    seal(&mut request);
    http.execute(request).await
}

/// States the checksum of a request. Nothing in it may change afterwards.
fn seal(request: &mut reqwest::Request) {
    let (method, url, headers) = (request.method(), request.url(), request.headers());
    let stated = match request.body().map_or(Some(&[][..]), reqwest::Body::as_bytes) {
        Some(body) => of_request(method, url.path(), url.query(), headers, body),
        None => Checksum { head: request_head(method, url.path(), url.query(), headers), body: None }.value(),
    };
    request.headers_mut().insert(CHECKSUM_HEADER, stated);
}

/// Compares the whole body of an answer with the checksum that it states, if it states one.
///
/// # Errors
/// [`Damaged`] when they do not fit.
pub fn check_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Damaged> {
    let Some(stated) = Checksum::stated(headers) else { return Ok(()) };
    let stated = stated?;
    check("status", stated.head, answer_head(status))?;
    stated.body.map_or(Ok(()), |stated| check("body", stated, crc32c::crc32c(body)))
}

/// A layer of a server: refuses requests that were damaged, and seals the answers to those that state a checksum. It has to be
/// outside of everything that changes bodies of answers.
pub async fn layer(request: Request, next: Next) -> Response {
    let Some(stated) = Checksum::stated(request.headers()) else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let head = request_head(&parts.method, parts.uri.path(), parts.uri.query(), &parts.headers);
    let damaged = Arc::new(AtomicBool::new(false));
    // The head now: what it says leads to answers before the body is read. And so an empty body, which nobody may read.
    let checked = stated.and_then(|stated| {
        check("head", stated.head, head)?;
        Ok(match stated.body {
            None => body,
            Some(stated) if body.is_end_stream() => {
                check("body", stated, crc32c::crc32c(&[]))?;
                body
            }
            Some(stated) => Body::from_stream(checking(body.into_data_stream(), stated, damaged.clone())),
        })
    });
    let answer = match checked {
        Ok(body) => next.run(Request::from_parts(parts, body)).await,
        Err(why) => refused(&why),
    };
    // Whatever was made of a body that ended with an error.
    let answer = if damaged.load(Ordering::Acquire) { refused(&Damaged("its body".to_owned())) } else { answer };
    sealed(answer).await
}

fn refused(why: &impl fmt::Display) -> Response {
    warn!(%why, "a request was damaged after it was made; it is refused");
    Refusal::Unavailable.because(why.to_string()).into_response()
}

/// The pieces of a body. Its last one is followed by an error if all of them are not what the checksum says.
fn checking(
    pieces: impl Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin + 'static,
    stated: u32,
    damaged: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    stream::unfold(Some((pieces, 0)), move |state| {
        let damaged = damaged.clone();
        async move {
            let (mut pieces, crc) = state?;
            match pieces.next().await {
                Some(Ok(piece)) => {
                    let crc = crc32c::crc32c_append(crc, &piece);
                    Some((Ok(piece), Some((pieces, crc))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    let why = check("body", stated, crc).err()?;
                    damaged.store(true, Ordering::Release);
                    Some((Err(axum::Error::new(why)), None))
                }
            }
        }
    })
}

/// An answer with its checksum. A stream goes as it is: its records have their own.
async fn sealed(answer: Response) -> Response {
    if answer.body().size_hint().exact().is_none() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let body = match axum::body::to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return Refusal::Internal.because(format!("the answer cannot be sent: {error}")).into_response(),
    };
    let checksum = Checksum { head: answer_head(parts.status), body: Some(crc32c::crc32c(&body)) };
    parts.headers.insert(CHECKSUM_HEADER, checksum.value());
    Response::from_parts(parts, body.into())
}

#[cfg(test)]
mod tests;
