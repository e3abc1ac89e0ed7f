//! The error answers. One of each status, whose text comes from the list of error codes.

use std::{collections::BTreeMap, fmt::Write as _};

use http::StatusCode;
use muster_api::{ErrorCode, Problem};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

/// The codes that are sent with this status, each with its meaning.
fn codes(status: u16) -> impl Iterator<Item = &'static (ErrorCode, &'static str)> {
    ErrorCode::ALL.iter().filter(move |(code, _)| code.status() == status)
}

/// Whether the API has an error of this status.
pub(super) fn has(status: u16) -> bool {
    codes(status).next().is_some()
}

/// The name of the shared answer: 404 is `NotFound`.
fn name(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.expect("a status of the API has a name").replace(' ', "")
}

/// A reference to the shared answer.
pub(super) fn reference(status: u16) -> Ref {
    Ref::new(format!("#/components/responses/{}", name(status)))
}

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The body of an error.
pub(super) fn content(status: u16) -> Content {
    let example = codes(status).next().map(|(code, meaning)| Problem {
        request_id: Some("01a205ed-e27d-713a-903d-ab342bac3364".to_owned()),
        ..Problem::new(*code, meaning.trim())
    });
    let example = example.map(|problem| serde_json::to_value(problem).expect("a problem is JSON"));
    ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).example(example).build()
}

/// The shared answers of all statuses that errors have.
pub(super) fn responses() -> BTreeMap<String, RefOr<Response>> {
    let statuses = ErrorCode::ALL.iter().map(|(code, _)| code.status());
    let shared = statuses.map(|status| {
        let mut said = String::from("The `code` is one of these:\n");
        for (code, meaning) in codes(status) {
            let _ = write!(said, "\n- `{code}`: {}", meaning.trim());
        }
        let mut response = ResponseBuilder::new().description(said).content(PROBLEM_JSON, content(status)).build();
        let headers = ["X-Request-Id"].into_iter();
        let headers = headers.chain((status == 401).then_some("WWW-Authenticate"));
        let headers = headers.chain(matches!(status, 429 | 503).then_some("Retry-After"));
        for name in headers {
            response.headers.insert(name.to_owned(), RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))));
        }
        (name(status), RefOr::T(response))
    });
    shared.collect()
}
