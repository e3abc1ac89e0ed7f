//! The one table from facts to status and code. Errors are sent as RFC 9457 problem documents.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use muster_api::{ErrorCode, Problem, token::without_secrets};
use storage_core::cause::explain;

use crate::app::{AppError, StoreError};

/// The error of every handler.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    /// Goes to the log and not to the caller.
    cause: Option<String>,
}

impl ApiError {
    /// What happened, in a sentence for the caller.
    pub(super) fn detail(&self) -> &str {
        &self.problem.detail
    }

    /// The code that it is sent with.
    pub(super) fn code(&self) -> ErrorCode {
        self.problem.code
    }

    fn internal(cause: impl std::fmt::Display) -> Self {
        let problem =
            Problem::new(ErrorCode::Internal, "this is a fault of the controller: its log has the request id");
        Self { problem: Box::new(problem), cause: Some(cause.to_string()) }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), cause: None }
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        let said = error.to_string();
        let problem = match error {
            AppError::NotFound { .. } => Problem::new(ErrorCode::NotFound, said),
            AppError::MissingReference { pointer, .. } => {
                Problem::new(ErrorCode::NotFound, said.clone()).at(pointer, "not_found", said)
            }
            AppError::NameTaken { existing, .. } => Problem::new(ErrorCode::NameTaken, said).with("existing", existing),
            AppError::Busy { operation } => {
                Problem::new(ErrorCode::Busy, said).with("operation", operation.to_string())
            }
            AppError::WrongState { state, allowed, .. } => {
                Problem::new(ErrorCode::WrongState, said).with("state", state).with("allowed", allowed)
            }
            AppError::Forbidden(_) => Problem::new(ErrorCode::Forbidden, said),
            AppError::Unauthenticated(_) => Problem::new(ErrorCode::Unauthenticated, said),
            AppError::PreconditionFailed { current } => {
                Problem::new(ErrorCode::PreconditionFailed, said).with("etag", current)
            }
            AppError::BadRequest(_) => Problem::new(ErrorCode::BadRequest, said),
            AppError::Invalid(errors) => {
                let detail = errors.iter().map(|e| format!("{}: {}", e.pointer, e.detail)).collect::<Vec<_>>();
                let mut problem = Problem::new(ErrorCode::Invalid, detail.join("; "));
                problem.errors = errors;
                problem
            }
            AppError::NotBuiltYet(_) => Problem::new(ErrorCode::NotBuiltYet, said),
            AppError::Unavailable(_) => Problem::new(ErrorCode::Unavailable, said),
            AppError::Problem(problem) => *problem,
            AppError::Store(StoreError::Conflict { .. }) => {
                Problem::new(ErrorCode::Unavailable, "somebody else changed it at the same time: try again")
            }
            AppError::Store(error) if error.is_transient() => {
                Problem::new(ErrorCode::Unavailable, "the database is busy: try again")
            }
            AppError::Store(error) if error.is_full() => {
                tracing::error!(
                    error = explain(&error),
                    "the database has no room: nothing can be changed until there is some"
                );
                let reasons = serde_json::json!([{ "reason": "controller_disk_full", "count": 1 }]);
                let said = "the controller's disk is full, so nothing was changed: tell its operators";
                Problem::new(ErrorCode::NoCapacity, said).with("reasons", reasons)
            }
            AppError::Store(StoreError::Database(sqlx::Error::PoolTimedOut)) => {
                Problem::new(ErrorCode::Unavailable, "the database is overloaded: try again")
            }
            AppError::Store(error) => return Self::internal(explain(&error)),
            AppError::Internal(error) => return Self::internal(format!("{error:#}")),
        };
        problem.into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        AppError::Store(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if matches!(self.problem.code, ErrorCode::Unavailable | ErrorCode::TooManyRequests) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.problem.code == ErrorCode::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The outermost layer writes the body, because it knows the request id.
        response.extensions_mut().insert(Unsent { problem: self.problem, cause: self.cause });
        response
    }
}

/// A problem whose body is not written yet.
#[derive(Clone, Debug)]
struct Unsent {
    problem: Box<Problem>,
    cause: Option<String>,
}

/// Writes the body of a problem, if the response is one.
pub(super) fn send(mut response: Response, request_id: &str) -> Response {
    let Some(Unsent { mut problem, cause }) = response.extensions_mut().remove::<Unsent>() else { return response };
    if let Some(cause) = cause {
        tracing::error!(request_id, "request failed: {}", without_secrets(&cause));
    }
    metrics::counter!("muster_http_errors_total", "code" => problem.code.as_str()).increment(1);
    problem.request_id = Some(request_id.to_owned());
    let body = serde_json::to_string(&problem).expect("a problem is JSON");
    // An error may repeat what was sent, and people send a token where its name belongs. JSON escapes nothing in a token.
    let body = without_secrets(&body).into_owned();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    *response.body_mut() = Body::from(body);
    response
}
