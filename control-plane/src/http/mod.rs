//! The doors. A handler extracts its arguments, calls one method of `App` and formats the answer. Its path and what else
//! users must know of it is in the `#[utoipa::path]` above it: the router and `/openapi.json` are made from that.
//!
//! ```text
//! people's door                                                  node door (mutual TLS)
//!   request id, span, timeout, panics, problems                    the same
//!   /ui/… /healthz /readyz /openapi.json /v1/…  /node/v1/join       /node/v1/{renew,heartbeat,desired,report,cuts,commits}
//! ```

pub mod access;
pub mod auth;
mod cookie;
mod cross_site;
pub mod deployments;
pub mod disks;
pub mod error;
pub mod events;
pub mod extract;
pub mod found;
pub mod health;
pub mod images;
pub mod instances;
mod json;
pub mod networks;
pub mod node_door;
pub mod nodes;
pub mod openapi;
pub mod operations;
mod pools;
mod reserved;
pub mod security_groups;
pub mod sessions;
pub mod snapshots;
pub mod summary;
pub mod traffic;
pub mod uploads;
pub mod versions;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, header};
use muster_api::{ErrorCode, Problem};
use muster_pool::checksum;
use storage_core::units::u64_from;
use tracing::Instrument as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::openapi::Contract;
pub use self::{
    auth::CallId,
    error::ApiError,
    extract::{Change, ChangeOf, IfMatch, Json, JsonBody, ListQuery, NoBody, Params, Path, Removal, Shown},
};
use crate::{
    app::{App, AppError, instances::EXEC_TIMEOUT_S_MAX},
    dashboard,
};

/// Largest JSON body from people, bytes. Contents are streamed and have their own limits.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest body from a node, bytes. A full report of 10,000 instances has some 6 MiB.
const NODE_BODY_BYTES_MAX: usize = 16 << 20;
/// Longest time until an answer begins. It is longer than every `wait`. Uploads (`PUT`) may take as long as they need.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

const REQUEST_ID: HeaderName = HeaderName::from_static(muster_api::peer_protocol::REQUEST_ID_HEADER);

/// The calls of people and programs, and the join of nodes: the people's door.
pub fn routes(app: App) -> Router {
    // Made once, because it takes a while and everybody may ask for it.
    static CONTRACT: LazyLock<Arc<Contract>> = LazyLock::new(|| Arc::new(Contract::of(&document())));
    let (router, _) = documented().split_for_parts();
    // What is not part of the API: the nodes' own protocol, and the dashboard.
    let router = router.merge(node_door::join_routes()).merge(dashboard::routes());
    // Nodes that join state checksums. Nobody else does, and then the layer changes nothing.
    finish(router.layer(Extension(CONTRACT.clone())), app, BODY_BYTES_MAX).layer(from_fn(checksum::layer))
}

/// The contract of the people's door, sent as `/openapi.json`.
#[must_use]
pub fn document() -> OpenApi {
    openapi::complete(documented())
}

/// The calls of the API, each with its description.
fn documented() -> OpenApiRouter<App> {
    openapi::base()
        .merge(health::routes())
        .merge(openapi::routes())
        .merge(access::routes())
        .merge(sessions::routes())
        .merge(summary::routes())
        .merge(operations::routes())
        .merge(events::routes())
        .merge(nodes::routes())
        .merge(traffic::routes())
        .merge(pools::routes())
        .merge(deployments::routes())
        .merge(instances::routes())
        .merge(disks::routes())
        .merge(found::routes())
        .merge(networks::routes())
        .merge(security_groups::routes())
        .merge(snapshots::routes())
        .merge(images::routes())
        .merge(versions::routes())
        .merge(reserved::routes())
}

/// The calls of joined nodes: the node door.
pub fn node_routes(app: App) -> Router {
    finish(node_door::routes(), app, NODE_BODY_BYTES_MAX).layer(from_fn(checksum::layer))
}

fn finish(router: Router<App>, app: App, body_bytes_max: usize) -> Router {
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn(move |request, next| outermost(request, next, body_bytes_max)))
        .with_state(app)
}

async fn no_such_path(request: Request) -> ApiError {
    Problem::new(ErrorCode::NoSuchPath, format!("there is no path {}: see /openapi.json", request.uri().path())).into()
}

async fn method_not_allowed(request: Request) -> ApiError {
    let detail = format!("{} is not among the methods of {}", request.method(), request.uri().path());
    Problem::new(ErrorCode::MethodNotAllowed, detail).into()
}

/// The outermost layer: request id, span, time limit, panics, bodies of problems, metrics.
async fn outermost(mut request: Request, next: Next, body_bytes_max: usize) -> Response {
    let begun = std::time::Instant::now();
    let call = CallId::of(request.headers().get(&REQUEST_ID));
    let CallId(id) = call.clone();
    request.extensions_mut().insert(call);
    let route = request.extensions().get::<MatchedPath>().map_or("none", |p| p.as_str()).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!("http", request_id = %id, %method, route);
    let limit = match &*route {
        _ if method == Method::PUT => Duration::MAX,
        // A command in a guest may take minutes.
        "/v1/instances/{instance}/exec" => ANSWER_WITHIN + Duration::from_secs(EXEC_TIMEOUT_S_MAX),
        _ => ANSWER_WITHIN,
    };
    let handled = async {
        match stated_too_large(&request, &route, body_bytes_max) {
            Some(refused) => refused.into_response(),
            None => next.run(request).await,
        }
    };
    let answer = tokio::time::timeout(limit, AssertUnwindSafe(handled).catch_unwind());
    let response = match answer.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(nothing)");
            ApiError::from(AppError::Internal(anyhow::anyhow!("a handler panicked: {said}"))).into_response()
        }
        Err(_) => {
            let why = format!("no answer within {} s", limit.as_secs());
            ApiError::from(AppError::Unavailable(why)).into_response()
        }
    };
    let mut response = span.in_scope(|| error::send(response, &id));
    let (status, took) = (response.status(), begun.elapsed());
    let labels = [("route", route), ("method", method.to_string()), ("status", status.as_u16().to_string())];
    metrics::histogram!("muster_http_seconds", &labels).record(took.as_secs_f64());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), took_ms = took.as_secs_f64() * 1e3, "answered"));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The refusal of a body that says that it is too long. Nothing of it is read. Image content has a limit of its own.
fn stated_too_large(request: &Request, route: &str, body_bytes_max: usize) -> Option<ApiError> {
    let stated: u64 = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if route.ends_with("/content") || stated <= u64_from(body_bytes_max) {
        return None;
    }
    let said = format!("the body is too large: at most {body_bytes_max} bytes, it has {stated}");
    Some(Problem::new(ErrorCode::TooLarge, said).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Caller;
    use axum::{extract::State, routing::post};

    /// Compiles only if the future of a handler is `Send` when it gives an async closure that borrows from it to
    /// `App::once`.
    async fn example(
        State(app): State<App>,
        caller: Caller,
        change: Change<muster_api::token::CreateToken>,
    ) -> Result<crate::app::Answer, ApiError> {
        let name = change.body.name.as_ref().map(ToString::to_string);
        let answer = app
            .once(&change.once, "example", async |tx| {
                let found = crate::store::tokens::by_name(tx, name.as_deref().unwrap_or("x")).await?;
                if let Some(found) = found {
                    return Err(AppError::NameTaken { kind: "token", name: found.name, existing: caller.name.clone() });
                }
                crate::app::Answer::ok(&caller.name)
            })
            .await?;
        Ok(answer)
    }

    #[test]
    fn async_closures_serve_handlers() {
        let _: Router<App> = Router::new().route("/", post(example));
    }
}
