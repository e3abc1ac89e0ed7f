//! Use cases: one function each, read as a sentence: transaction, load, decide, save, wake.
//!
//! `impl App` is spread over one file per noun. A function that changes something takes the [`Caller`] and, where the
//! call may carry an idempotency key, runs inside [`App::once`], so that key, effect and event are one transaction:
//!
//! ```ignore
//! impl App {
//!     pub async fn create_image(&self, caller: &Caller, once: &Once, wanted: CreateImage) -> Result<Answer, AppError> {
//!         let project = caller.one_project()?;
//!         self.once(once, "images.create", async |tx| {
//!             if let Some(existing) = images::by_name(tx, project, &name).await? {
//!                 return Err(AppError::NameTaken { kind: "image", name, existing: existing.id.to_string() });
//!             }
//!             …
//!             // slow work instead: let op = begin_operation(tx, &caller.origin(), NewOperation { … }).await?;
//!             //                    Ok(Answer::accepted(&op)?)
//!             Ok(Answer::created(&image.view(), format!("/v1/images/{}", image.id))?)
//!         }).await
//!     }
//! }
//! ```

pub mod access;
pub mod commits;
pub mod deployments;
pub mod desired;
pub mod events;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod membership;
pub mod nodes;
pub mod operations;
pub mod reports;
pub mod sign_ins;
pub mod slots;
pub mod snapshots;
pub mod summary;
pub mod uploads;
pub mod versions;

use std::{ops::Deref, sync::Arc};

use muster_api::{ErrorCode, OperationId, Problem, Timestamp, error::FieldError, node_protocol::Incarnation};
use muster_pool::{PoolClient, tls};
use tokio_util::sync::CancellationToken;

pub use self::{
    access::{Caller, Scope},
    idempotency::{Answer, Once},
    operations::begin_operation,
};
use crate::{
    ca::Authority,
    clock::Clock,
    config::Config,
    reconcile::driver::Statuses,
    store::{Store, StoreError, cluster::Cluster},
};

/// The controller. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What an [`App`] is made of.
pub struct Inner {
    /// The database.
    pub store: Store,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The effective configuration.
    pub config: Config,
    /// What the database is.
    pub cluster: Cluster,
    /// Signs certificates and membership records.
    pub ca: Arc<Authority>,
    /// The CA as others see it.
    pub trusted_ca: tls::Ca,
    /// The pool: where objects go and come from. Follows the membership record.
    pub pool: PoolClient,
    /// SHA-256 of the key this controller calls nodes with.
    pub client_key_sha256: String,
    /// Port of the node door.
    pub node_port: u16,
    /// When this process began to listen.
    pub started_at: Timestamp,
    /// Cancelled when the doors close: waits end early.
    pub closing: CancellationToken,
    /// Uploads of image content under way in this process.
    pub imports: slots::Slots,
    /// Event streams that are followed, by token.
    pub streams: slots::Slots,
    /// Who showed bad tokens of late.
    pub sign_ins: sign_ins::SignIns,
    /// How the reconcile loops fare.
    pub loops: Statuses,
    /// What nodes said since the last flush.
    pub heartbeats: nodes::Heartbeats,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// State of the database.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.cluster.incarnation
    }
}

/// Why a call was refused: facts, each with one line in the table of `http/error.rs`.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no such thing, or the caller may not know of it.
    #[error("there is no {kind} '{reference}'")]
    NotFound {
        /// Kind.
        kind: &'static str,
        /// As the caller named it.
        reference: String,
    },
    /// A thing named in the body is not there.
    #[error("there is no {kind} '{reference}'")]
    MissingReference {
        /// Kind.
        kind: &'static str,
        /// As the caller named it.
        reference: String,
        /// Where in the body.
        pointer: String,
    },
    /// The name is taken.
    #[error("the name '{name}' is taken by another {kind}")]
    NameTaken {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// Id of the thing that has it.
        existing: String,
    },
    /// An operation runs on the target.
    #[error("operation {operation} runs on it: wait for it or cancel it")]
    Busy {
        /// The operation.
        operation: OperationId,
    },
    /// The state does not allow it.
    #[error("the {kind} is {state}, which does not allow this")]
    WrongState {
        /// Kind.
        kind: &'static str,
        /// State.
        state: String,
        /// States that would.
        allowed: Vec<&'static str>,
    },
    /// Seen, but not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// No or no good credentials.
    #[error("{0}")]
    Unauthenticated(String),
    /// `If-Match` names another revision.
    #[error("it was changed meanwhile: its etag is {current}")]
    PreconditionFailed {
        /// The current etag.
        current: String,
    },
    /// A query parameter, header or page token cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// The body does not fit.
    #[error("the request does not fit")]
    Invalid(Vec<FieldError>),
    /// Reserved, not built yet.
    #[error("{0} is not built yet")]
    NotBuiltYet(String),
    /// Not now; try again.
    #[error("{0}")]
    Unavailable(String),
    /// Any other refusal, ready made.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The database.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// A bug or a broken host.
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
}

impl AppError {
    /// One place of the body that does not fit.
    pub fn invalid(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), code: code.to_owned(), detail: detail.into() }])
    }

    /// A thing of the path that is not there.
    pub fn not_found(kind: &'static str, reference: impl ToString) -> Self {
        Self::NotFound { kind, reference: reference.to_string() }
    }

    /// A ready-made problem of a code without a variant of its own.
    pub fn code(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Problem(Box::new(Problem::new(code, detail)))
    }
}

impl From<Problem> for AppError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// The `etag` of a revision.
#[must_use]
pub fn etag(revision: i64) -> String {
    format!("\"{revision}\"")
}

/// Turns "there is no such thing" of the path into "the body names nothing there".
pub(crate) fn at(pointer: &str) -> impl Fn(AppError) -> AppError + use<> {
    let pointer = pointer.to_owned();
    move |error| match error {
        AppError::NotFound { kind, reference } => {
            AppError::MissingReference { kind, reference, pointer: pointer.clone() }
        }
        other => other,
    }
}

/// Refuses a change whose `If-Match` names another revision than the row has.
pub fn check_if_match(if_match: Option<&str>, revision: i64) -> Result<(), AppError> {
    let current = etag(revision);
    match if_match {
        None | Some("*") => Ok(()),
        Some(wanted) if wanted.split(',').any(|w| w.trim().trim_start_matches("W/") == current) => Ok(()),
        Some(_) => Err(AppError::PreconditionFailed { current }),
    }
}
