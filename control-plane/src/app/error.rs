//! Why a call was refused.

use muster_api::{ErrorCode, OperationId, Problem, error::FieldError, etag};

pub use crate::store::StoreError;

/// Why a call was refused. `http/error.rs` has the table from these facts to status and code.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The path names a thing that does not exist, or that the caller may not know of.
    #[error("there is no {kind} '{reference}'")]
    NotFound {
        /// `image`, `instance`, …
        kind: &'static str,
        /// The id or name that the caller gave.
        reference: String,
    },
    /// The body names a thing that does not exist, or that the caller may not know of.
    #[error("there is no {kind} '{reference}'")]
    MissingReference {
        /// `image`, `instance`, …
        kind: &'static str,
        /// The id or name that the caller gave.
        reference: String,
        /// JSON pointer to the place in the body.
        pointer: String,
    },
    /// Another thing of this kind has the name.
    #[error("the name '{name}' is taken by another {kind}")]
    NameTaken {
        /// `image`, `instance`, …
        kind: &'static str,
        /// The name that was asked for.
        name: String,
        /// Id of the thing that has it.
        existing: String,
    },
    /// An operation runs on the target.
    #[error("operation {operation} runs on it: wait for it or cancel it")]
    Busy {
        /// The operation that runs on the target.
        operation: OperationId,
    },
    /// The state of the thing does not allow it.
    #[error("the {kind} is {state}, which does not allow this")]
    WrongState {
        /// `image`, `instance`, …
        kind: &'static str,
        /// The state that it has now.
        state: String,
        /// States that would allow it.
        allowed: Vec<&'static str>,
    },
    /// The caller may see the thing and may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The credentials are missing or not accepted.
    #[error("{0}")]
    Unauthenticated(String),
    /// `If-Match` names another revision than the thing has.
    #[error("it was changed meanwhile: its etag is {current}")]
    PreconditionFailed {
        /// The etag that it has now.
        current: String,
    },
    /// A query parameter, header or page token cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// Fields of the body do not fit.
    #[error("the request does not fit")]
    Invalid(Vec<FieldError>),
    /// The call is reserved and not built yet.
    #[error("{0} is not built yet")]
    NotBuiltYet(String),
    /// It cannot be done now; the same call may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// Any other refusal, as it is sent.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// A bug, or a broken host.
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
}

impl AppError {
    /// One field of the body that does not fit. `pointer` is its JSON pointer.
    pub fn invalid(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), code: code.to_owned(), detail: detail.into() }])
    }

    /// A thing that the path names and that does not exist.
    pub fn not_found(kind: &'static str, reference: impl ToString) -> Self {
        Self::NotFound { kind, reference: reference.to_string() }
    }

    /// A refusal with a code that has no variant of its own.
    pub fn code(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Problem(Box::new(Problem::new(code, detail)))
    }
}

impl From<Problem> for AppError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// For `map_err` on a lookup: the reference was not in the path but in the body, at `pointer`.
pub(crate) fn at(pointer: &str) -> impl Fn(AppError) -> AppError + use<> {
    let pointer = pointer.to_owned();
    move |error| match error {
        AppError::NotFound { kind, reference } => {
            AppError::MissingReference { kind, reference, pointer: pointer.clone() }
        }
        other => other,
    }
}

/// Refuses a change whose `If-Match` names another revision than the row has. No header, or `*`, matches always.
pub(crate) fn check_if_match(if_match: Option<&str>, revision: i64) -> Result<(), AppError> {
    let current = etag::of_revision(revision);
    match if_match {
        None | Some("*") => Ok(()),
        Some(wanted) if wanted.split(',').any(|w| w.trim().trim_start_matches("W/") == current) => Ok(()),
        Some(_) => Err(AppError::PreconditionFailed { current }),
    }
}
