//! `/openapi.json`: the contract of the people's door.
//!
//! Each handler's `#[utoipa::path]` says what this call alone has: path, filters, body, success, special errors. The
//! router takes the path from there, so the document has every route. [`complete`] adds what all calls have in common.
//! The schemas are the types of `muster-api`. The router in turn asks the document which query parameters a call has
//! ([`Contract`]). The golden file in tests/golden shows each change of the contract in the diff.

mod calls;
mod complete;
mod errors;
mod examples;
mod schemas;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{
    Extension,
    body::Bytes,
    extract::MatchedPath,
    response::{IntoResponse, Response},
};
use http::{Method, header, request::Parts};
use utoipa::{
    OpenApi as _,
    openapi::{
        OpenApi, RefOr,
        path::{Parameter, ParameterIn},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) use self::calls::RESERVED;
use self::calls::{calls, tag};
use crate::app::{App, AppError};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Muster",
        description = "Virtual machines from one image on many nodes, snapshotted together.\n\n\
            Every error is an RFC 9457 problem with a stable `code`. Clients ignore fields they do not know, and read \
            words they do not know as `unknown`. Slow work answers 202 with an operation; `GET /v1/operations/{operation}?wait=30s` \
            waits for its end. Things are named by id or by name.",
        contact(name = "Whoever runs this controller"),
    ),
    servers((url = "/", description = "The controller that sent this document.")),
    security(("bearer" = []), ("session" = [])),
    components(schemas(muster_api::Problem, muster_api::instance::Loss, muster_api::event::Event)),
    tags(
        (name = "deployments", description = "Instances that are started together from one source."),
        (name = "disks", description = "What instances write to, and disks that belong to no instance for the time being."),
        (name = "events", description = "What happened, as a stream or in pages."),
        (name = "found-instances", description = "What nodes hold and a restored database does not know (operators)."),
        (name = "health", description = "For probes, monitoring and clients that look around."),
        (name = "images", description = "Names with numbered versions, and the upload of their content."),
        (name = "instances", description = "A virtual machine each, or only a disk with runtime `none`."),
        (name = "networks", description = "Ethernet segments over all nodes, for the instances of one project."),
        (name = "nodes", description = "Compute hosts with an agent (operators)."),
        (name = "pools", description = "What the nodes' disks hold together, its sweep and its repair (operators)."),
        (name = "operations", description = "Records of work that outlives its request."),
        (name = "reserved", description = "Calls whose shape is fixed and that answer 501 until they are built."),
        (name = "security-groups", description = "What may reach network cards of instances, and what may leave them."),
        (name = "sessions", description = "Browsers that are signed in by a cookie, and links that sign one in."),
        (name = "snapshots", description = "Versions of many disks, all cut at one instant."),
        (name = "summary", description = "Overviews whose size does not grow with the cluster."),
        (name = "tokens", description = "What signs people, programs and new nodes in."),
        (name = "versions", description = "The immutable states of disks."),
    ),
)]
struct Base;

/// A router whose document has the title and the tags. [`complete`] makes the contract of it when it has all routes.
pub(super) fn base() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Base::openapi())
}

/// Adds to the document of a router what all calls have in common.
pub(super) fn complete(router: OpenApiRouter<App>) -> OpenApi {
    complete::complete(router.into_openapi())
}

/// Which page of a list. Every list has these.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what ListQuery reads")]
pub struct List {
    /// Most items of the page.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_page_token` of the page before. From the beginning if left out.
    page_token: Option<String>,
}

/// The filters that a list may have, and `deleted`. A list names in its `params` those that it has; any other is refused.
/// Values of one filter are alternatives, and different filters must all hold.
macro_rules! filters {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $value:ty })*) => {$(
        #[doc = concat!("The query parameter `", stringify!($field), "` of some lists.")]
        #[derive(utoipa::IntoParams)]
        #[into_params(parameter_in = Query)]
        #[expect(dead_code, reason = "describes what ListQuery reads")]
        pub struct $name {
            $(#[$doc])*
            $field: Option<$value>,
        }
    )*};
}

filters! {
    /// Only things in this state. Repeated: in one of these states.
    ByState { state: Vec<String> }
    /// Only things with the label `KEY=VALUE`. Values of one key are alternatives; different keys must all hold.
    ByLabel { label: Vec<String> }
    /// Only what belongs to this deployment, by id or name. Repeated: to one of these.
    ByDeployment { deployment: Vec<String> }
    /// Only what is on this node, by id or name (operators). Repeated: on one of these.
    ByNode { node: Vec<String> }
    /// Only instances with a card in this network, by id or name. Repeated: in one of these.
    ByNetwork { network: Vec<String> }
    /// Only disks of this instance, by id or name. Repeated: of one of these.
    ByInstance { instance: Vec<String> }
    /// Only what concerns the thing with this id. Repeated: one of these.
    ByTarget { target: Vec<String> }
    /// Only images with this operating system. Repeated: with one of these.
    ByOs { os: Vec<String> }
    /// Only images whose machines have this firmware: `bios`, `uefi`, `uefi_secure`. More than one are alternatives.
    ByFirmware { firmware: Vec<String> }
    /// Also what was deleted in the last 24 hours.
    Deleted { deleted: bool }
}

/// The headers that ask for a part of a content, or for none if it is known.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what versions::stream reads")]
pub struct Ranges {
    /// One range of bytes, `bytes=FIRST-LAST`. Anything else is answered with the whole content.
    #[param(rename = "Range", example = "bytes=0-1023")]
    range: Option<String>,
    /// An `ETag`: the range counts only if the content still has it.
    #[param(rename = "If-Range")]
    if_range: Option<String>,
    /// `ETag`s: if the content has one of them, the answer is 304 without a body.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// The answers of a call that gives the bytes of a version.
#[derive(utoipa::IntoResponses)]
pub enum Content {
    /// The bytes.
    #[response(status = 200, content_type = "application/octet-stream")]
    All(#[to_schema] Binary),
    /// The part that `Range` asks for.
    #[response(status = 206, content_type = "application/octet-stream")]
    Part(#[to_schema] Binary),
    /// `If-None-Match` has the `ETag` of the content.
    #[response(status = 304)]
    Known,
    /// There is no version yet.
    #[response(status = 409)]
    None,
    /// The range is outside of the content.
    #[response(status = 416)]
    Outside,
}

/// `?dry_run=true` of a DELETE.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what Removal reads")]
pub struct DryRun {
    /// Delete nothing, and answer how many bytes it would free.
    #[param(default = false)]
    dry_run: Option<bool>,
}

/// Bytes that are not JSON.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes a body")]
pub struct Binary(Bytes);

/// The document, as the people's door uses it.
#[derive(Debug)]
pub struct Contract {
    json: Bytes,
    /// The query parameters of each call, by method and path.
    queries: HashMap<(Method, String), HashSet<String>>,
}

impl Contract {
    /// Of a complete document.
    pub(super) fn of(document: &OpenApi) -> Self {
        let shared = document.components.iter().flat_map(|components| &components.parameters);
        let shared: HashMap<String, &Parameter> = shared
            .filter_map(|(name, parameter)| match parameter {
                RefOr::T(parameter) => Some((format!("#/components/parameters/{name}"), parameter)),
                RefOr::Ref(_) => None,
            })
            .collect();
        let queries = document.paths.paths.iter().flat_map(|(path, item)| {
            let built = calls(item).filter(|(_, operation)| tag(operation) != RESERVED);
            built.map(|(method, operation)| {
                let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                    RefOr::T(parameter) => Some(parameter),
                    RefOr::Ref(reference) => shared.get(&reference.ref_location).copied(),
                });
                let in_query = parameters.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
                ((method, path.clone()), in_query.map(|parameter| parameter.name.clone()).collect())
            })
        });
        Self { queries: queries.collect(), json: document.to_json().expect("the document is JSON").into() }
    }

    /// Refuses a query parameter that the document does not give this call, because one that is ignored would mislead.
    pub(super) fn check_query<'a>(parts: &Parts, mut given: impl Iterator<Item = &'a str>) -> Result<(), AppError> {
        let Some(contract) = parts.extensions.get::<Arc<Self>>() else { return Ok(()) };
        let Some(path) = parts.extensions.get::<MatchedPath>() else { return Ok(()) };
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
        let Some(known) = contract.queries.get(&(method, path.as_str().to_owned())) else { return Ok(()) };
        match given.find(|name| !known.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(AppError::BadRequest(format!("there is no query parameter '{name}' here"))),
        }
    }
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", operation_id = "openapi_show", security(),
    responses((status = 200, body = Object)))]
async fn show(Extension(contract): Extension<Arc<Contract>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], contract.json.clone()).into_response()
}
