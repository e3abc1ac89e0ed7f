//! The words of the object protocol, under `/peer/v1/objects` on the agents' `--listen`, always over mutual TLS.
//!
//! Callers are the members and clients of the signed membership record, known by their key. Objects travel as the records
//! of `storage-core/FORMAT.md` (header and stored payload), one after the other.
//!
//! | call | body -> answer |
//! |---|---|
//! | `POST /peer/v1/objects/get` | up to [`NAMES_MAX`] names of 32 bytes -> one record per name, in order; an absent one is a header of kind 0 with the name and no payload |
//! | `POST /peer/v1/objects/put` + [`ROUND_HEADER`] | records -> [`storage_core::store::PutSummary`] once all of them are on stable storage; with the round [`OWN_ROUND`] each is stamped with the round in its header |
//! | `POST /peer/v1/objects/touch` + [`ROUND_HEADER`] | names -> one byte per name: 1 = here and stamped durably with the round, 0 = absent |
//! | `POST /peer/v1/objects/take-over` + [`RECORD_HEADER`] | names, each with its stamp in 8 bytes -> one byte per name: 1 = a good copy is here, stamped durably with at least that stamp, and is not dropped while this node works with the record; 2 = it gave its copy up because the repository has the object, and the stamp protects nothing any more. 409 if it works with another one. Only members may ask |
//! | `POST /peer/v1/objects/have` | names -> 8 bytes per name: 0 = absent, else the stamp plus 1; with [`EVICTED_HEADER`] 2^64 - 1 = given up here because the repository has it, else 0. Reads no object and stamps none. Only members may ask |
//!
//! Requests state a checksum, and answers that are no streams of records get one ([`crate::checksum`]).
//!
//! A refusal is a problem document (RFC 9457) with the words of [`Refusal`].

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The calls of the object protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectCall {
    /// Reads objects.
    Get,
    /// Stores objects.
    Put,
    /// Stamps objects that are there.
    Touch,
    /// Asks a node to keep its copies, because the caller drops its own.
    TakeOver,
    /// Asks which objects a node has.
    Have,
}

impl ObjectCall {
    /// All of them. The server has the routes of these, so one that is missing here does not work.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::Touch, Self::TakeOver, Self::Have];

    /// Its path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Get => "/peer/v1/objects/get",
            Self::Put => "/peer/v1/objects/put",
            Self::Touch => "/peer/v1/objects/touch",
            Self::TakeOver => "/peer/v1/objects/take-over",
            Self::Have => "/peer/v1/objects/have",
        }
    }
}

/// Most names in one request.
pub const NAMES_MAX: usize = 256;
/// Most payload bytes in one put. A larger batch is sent in several.
pub const PUT_BYTES_MAX: usize = 64 << 20;
/// Header with the round that objects are stamped with, decimal.
pub const ROUND_HEADER: &str = "muster-round";
/// Header with the membership record that the caller works with, as 32 hex digits: the first half of the SHA-256 of its
/// JSON text.
pub const RECORD_HEADER: &str = "muster-record";
/// Header of a question what a node has, whose caller knows what an evicted object is; any value.
pub const EVICTED_HEADER: &str = "muster-evicted";
/// Header of an answer to a put or a question of a node that waits for objects of others, or gives them objects; any value.
/// Copies that nobody waits for come to it slowly then.
pub const READS_HEADER: &str = "muster-reads";
/// Value of [`ROUND_HEADER`] in a put of copies: each keeps the stamp that it has elsewhere.
pub const OWN_ROUND: &str = "own";

/// Why a node takes no objects that belongs to the pool and owns nothing.
pub(crate) const OWNS_NOTHING: &str = "no objects belong on this node: it is being drained, or was out";

/// Why a peer server refuses a request. Each has one HTTP status and one word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A header or a list of names cannot be read, or the sender broke off.
    BadRequest,
    /// The caller showed no certificate.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The thing is not here.
    NotFound,
    /// The thing is here, and its state does not allow it.
    WrongState,
    /// The path does not exist.
    NoSuchPath,
    /// The body is over a limit.
    TooLarge,
    /// The body can be read but does not fit.
    Invalid,
    /// A bug or a broken disk.
    Internal,
    /// Too much is under way; try again.
    Unavailable,
    /// What this node asked did not answer in time.
    Unanswered,
    /// The node has no room.
    NoCapacity,
}

impl Refusal {
    /// The HTTP status and the word.
    #[must_use]
    pub const fn wire(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::WrongState => (StatusCode::CONFLICT, "wrong_state"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Unanswered => (StatusCode::GATEWAY_TIMEOUT, "unanswered"),
            Self::NoCapacity => (StatusCode::INSUFFICIENT_STORAGE, "no_capacity"),
        }
    }

    /// The answer. `detail` is for people.
    pub fn because(self, detail: impl Into<String>) -> Refused {
        Refused { refusal: self, detail: detail.into() }
    }
}

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refused {
    refusal: Refusal,
    detail: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code) = self.refusal.wire();
        let body = json!({
            "type": "about:blank", "title": code.replace('_', " "), "status": status.as_u16(), "code": code,
            "detail": self.detail,
        });
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
