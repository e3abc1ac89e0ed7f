//! Errors as they are sent: problem documents (RFC 9457) with a stable `code`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! codes {
    // The words are `tt`, because derive macros do not see through what was matched as `literal`.
    ($($(#[doc = $doc:tt])+ $variant:ident = $text:tt, $status:literal;)*) => {
        /// What went wrong. Programs compare this code, never the text of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)*
            /// A code that this program does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// All codes that are sent, each with its meaning.
            pub const ALL: &[(Self, &str)] = &[$((Self::$variant, concat!($($doc),+))),*];

            /// The code as it is sent.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status that always goes with the code.
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
    /// There is no token, or it is unknown, revoked or expired.
    Unauthenticated = "unauthenticated", 401;
    /// The controller's database does not know the calling node: it joined after the copy that was restored. Only agents get this.
    Unlisted = "unlisted", 401;
    /// The caller may see the target, but may not do this to it.
    Forbidden = "forbidden", 403;
    /// The project has as many as it may have; `limit`, `used` and `wanted` are numbers.
    QuotaExceeded = "quota_exceeded", 403;
    /// The call has the cookie of a session, or begins one, and a page of another site may have sent it.
    CrossSite = "cross_site", 403;
    /// The calling node was declared dead. It must stop its guests and keep its data; it cannot come back.
    Fenced = "fenced", 403;
    /// The target does not exist, or is hidden from the caller.
    NotFound = "not_found", 404;
    /// The API has no such path.
    NoSuchPath = "no_such_path", 404;
    /// The path does not have this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The body of the request comes too slowly.
    RequestTimeout = "request_timeout", 408;
    /// The name is in use; `existing` is the id of the one that has it.
    NameTaken = "name_taken", 409;
    /// Something uses the target, so it cannot be deleted; `used_by` counts what does.
    InUse = "in_use", 409;
    /// The disk belongs to an instance: detach it first. `state` is its state.
    DiskAttached = "disk_attached", 409;
    /// The address or the port that was asked for is taken.
    AddressTaken = "address_taken", 409;
    /// The target's state does not allow this; `state` is its state, `allowed` the states that do.
    WrongState = "wrong_state", 409;
    /// Another operation runs on the target; `operation` is its id.
    Busy = "busy", 409;
    /// The node of a member is silent, so no snapshot of its disk can be taken.
    MemberUnknown = "member_unknown", 409;
    /// This needs the guest agent, which does not answer.
    NoGuestAgent = "no_guest_agent", 409;
    /// The guest agent answered that it does not do this; `detail` has its words.
    GuestRefused = "guest_refused", 409;
    /// A generation, base or revision is older than the current one.
    Stale = "stale", 409;
    /// Another agent process acts as the node. Only agents get this.
    Superseded = "superseded", 409;
    /// This gives up data that no version has; `loss` says what. `accept_loss: true` does it all the same.
    DataLoss = "data_loss", 409;
    /// `If-Match` is not the current etag.
    PreconditionFailed = "precondition_failed", 412;
    /// The body or the disk is over a limit.
    TooLarge = "too_large", 413;
    /// The body is of a kind that is not taken here: `Content-Type` has to be `application/json`, or
    /// `application/octet-stream` for contents.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// The range of a download is outside the content.
    RangeNotSatisfiable = "range_not_satisfiable", 416;
    /// The JSON has unknown fields or invalid values; `errors` lists them.
    Invalid = "invalid", 422;
    /// The idempotency key was used with another body.
    KeyReused = "key_reused", 422;
    /// The uploaded content is not a usable image.
    BadImage = "bad_image", 422;
    /// The SHA-256 of the bytes received is not the stated one.
    DigestMismatch = "digest_mismatch", 422;
    /// Too many requests from this caller.
    TooManyRequests = "too_many_requests", 429;
    /// A bug or a broken disk. The controller logged it with the request id.
    Internal = "internal", 500;
    /// This part of the API is reserved and not built yet.
    NotBuiltYet = "not_built_yet", 501;
    /// This cannot be done now; try again after `Retry-After` seconds.
    Unavailable = "unavailable", 503;
    /// The nodes do not have the capacity; `reasons` counts why.
    NoCapacity = "no_capacity", 507;
    /// No node has room in its share of the pool.
    NoNodes = "no_nodes", 507;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error in one place of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body, or the name of a query parameter or header.
    pub pointer: String,
    /// A stable word: `missing`, `unknown_field`, `invalid`, `out_of_range`, `not_found`.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// The body of every error answer, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`; the kind of error is in `code`.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// A short text, the same for all errors with this code.
    pub title: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The kind of error, for programs.
    pub code: ErrorCode,
    /// What is wrong and what to do about it, for people.
    pub detail: String,
    /// Id of the request, which is in the logs of all daemons it reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// The places of the request that have errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further fields, which depend on the code: `existing`, `state`, `allowed`, `operation`, `reasons`, `limit`,
    /// `used`, `wanted`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// An error with this code and this detail.
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

    /// Adds a further field, for example `existing`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// Adds an error in one place of the request; see [`FieldError`].
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
