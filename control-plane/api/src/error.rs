//! Errors on the wire: RFC 9457 problem documents with a stable `code`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)*) => {
        /// The closed list of what can be wrong. Clients match on these, never on text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// A code this program does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status the code always comes with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* Self::Unknown => 500 }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    NotJson = "not_json", 400;
    /// A query parameter, header or page token cannot be read.
    BadRequest = "bad_request", 400;
    /// No token, or one that is unknown, revoked or expired.
    Unauthenticated = "unauthenticated", 401;
    /// The caller may see it but not do this.
    Forbidden = "forbidden", 403;
    /// There is no such thing, or it is hidden from the caller.
    NotFound = "not_found", 404;
    /// There is no such path.
    NoSuchPath = "no_such_path", 404;
    /// The path has no such method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The name is taken; `existing` has its id.
    NameTaken = "name_taken", 409;
    /// The thing's state does not allow this; `state` and `allowed` tell.
    WrongState = "wrong_state", 409;
    /// Another operation runs on the target; `operation` has its id.
    Busy = "busy", 409;
    /// A member's node is silent, so its disk cannot be cut.
    MemberUnknown = "member_unknown", 409;
    /// The guest agent is needed and does not answer.
    NoGuestAgent = "no_guest_agent", 409;
    /// A generation, base or revision is older than the current one.
    Stale = "stale", 409;
    /// `If-Match` does not match.
    PreconditionFailed = "precondition_failed", 412;
    /// The body or the disk is over a limit.
    TooLarge = "too_large", 413;
    /// The range of a download is outside the content.
    RangeNotSatisfiable = "range_not_satisfiable", 416;
    /// The JSON does not fit; `errors` name the fields.
    Invalid = "invalid", 422;
    /// The idempotency key was used with another body.
    KeyReused = "key_reused", 422;
    /// The uploaded content is not a usable image.
    BadImage = "bad_image", 422;
    /// The bytes received do not have the `sha256` that was stated.
    DigestMismatch = "digest_mismatch", 422;
    /// Too many requests from this caller.
    TooManyRequests = "too_many_requests", 429;
    /// A bug or a broken disk; the log has the request id.
    Internal = "internal", 500;
    /// Its shape is reserved; it is not built yet.
    NotBuiltYet = "not_built_yet", 501;
    /// For now; retry after `Retry-After`.
    Unavailable = "unavailable", 503;
    /// The wanted capacity is not there; `reasons` count why.
    NoCapacity = "no_capacity", 507;
    /// No node offers room in the pool.
    NoNodes = "no_nodes", 507;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing wrong with one place of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body, or the name of a query parameter or header.
    pub pointer: String,
    /// A stable word: `missing`, `unknown_field`, `invalid`, `out_of_range`, `not_found`.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// The body of every answer that is not a success (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `about:blank`: the code says it all.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// Short and the same for all errors of the code.
    pub title: String,
    /// The HTTP status once more.
    pub status: u16,
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// What is wrong here, for people: what, where, expected and got, and what to do.
    pub detail: String,
    /// Quote it when you ask for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The places of the request that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Fields of the one code: `existing`, `state`, `allowed`, `operation`, `reasons`, `limit`, `used`, `wanted`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem of the given code.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: about_blank(),
            title: code.as_str().replace('_', " "),
            status: code.status(),
            code,
            detail: detail.into(),
            request_id: None,
            errors: Vec::new(),
            more: Map::new(),
        }
    }

    /// Adds a field of the code, for example `existing`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a place of the request that is wrong.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), code: code.to_owned(), detail: detail.into() });
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)?;
        for e in &self.errors {
            write!(f, "\n  {}: {}", e.pointer, e.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
