//! `/openapi.json`: generated from the types. The file in tests/golden shows each change of the contract in the diff.

use std::sync::LazyLock;

use axum::{
    Router,
    body::Bytes,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        OpenApi,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{access, deployments, events, found, images, instances, nodes, operations, snapshots, summary, versions};
use crate::app::App;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Muster",
        description = "Virtual machines from one image on many nodes, snapshotted together. Errors are RFC 9457 \
            problems with a stable `code`; clients ignore unknown fields and read unknown words as `unknown`.",
    ),
    modifiers(&Bearer),
    security(("bearer" = [])),
    components(schemas(muster_api::Problem)),
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The query of every list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what ListQuery reads")]
pub struct List {
    /// 1 to 1000.
    #[param(default = 100)]
    limit: Option<u32>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
    /// Only in these states.
    state: Option<Vec<String>>,
    /// `KEY=VALUE`
    label: Option<Vec<String>>,
    /// Only of these deployments, by id or name.
    deployment: Option<Vec<String>>,
    /// Only on these nodes (operators).
    node: Option<Vec<String>>,
    /// Also what was deleted in the last 24 h.
    deleted: Option<bool>,
    /// Default: the project of the token, else `default`. Operators may say `*` for all projects.
    project: Option<String>,
}

/// The whole document. The file of each noun has its part.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = Base::openapi();
    document.merge(operations::Doc::openapi());
    document.merge(events::Doc::openapi());
    document.merge(nodes::Doc::openapi());
    document.merge(access::Doc::openapi());
    document.merge(summary::Doc::openapi());
    document.merge(deployments::Doc::openapi());
    document.merge(instances::Doc::openapi());
    document.merge(found::Doc::openapi());
    document.merge(snapshots::Doc::openapi());
    document.merge(images::Doc::openapi());
    document.merge(versions::Doc::openapi());
    // Operation ids must be unique, and the names of functions are unique only within their file.
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if let (Some(id), Some([tag, ..])) = (&mut operation.operation_id, operation.tags.as_deref()) {
                *id = format!("{tag}_{id}");
            }
        }
    }
    document
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(show))
}

async fn show() -> Response {
    // Made once, because this path is open to everybody.
    static BODY: LazyLock<Bytes> = LazyLock::new(|| document().to_json().expect("the document is JSON").into());
    ([(header::CONTENT_TYPE, "application/json")], BODY.clone()).into_response()
}
