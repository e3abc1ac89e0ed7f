//! `/v1/versions`: show, read, delete.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_api::{
    ErrorCode, Page, Problem, VersionId,
    version::{Chunks, Extent, Freed, Version},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Json, ListQuery, Params, Path, Removal,
    extract::limit_of,
    openapi::{ByLabel, ByState, Content, Deleted, DryRun, List, Ranges},
};
use crate::{
    app::{
        Answer, App, AppError, Caller,
        versions::{VersionRow, unreadable},
    },
    export::content,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(version_list))
        .routes(routes!(version_show, version_delete))
        .routes(routes!(version_content_read))
        .routes(routes!(version_extent_list))
        .routes(routes!(version_chunks_show))
}

/// Versions of images and of disks, oldest first.
#[utoipa::path(get, path = "/v1/versions", tag = "versions",
    params(List, ByState, ByLabel, Deleted),
    responses((status = 200, body = Page<Version>)))]
pub(crate) async fn version_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Version>>, ApiError> {
    Ok(Json(app.versions(&caller, &list).await?))
}

/// One version.
#[utoipa::path(get, path = "/v1/versions/{version}", tag = "versions",
    params(("version" = VersionId, Path, description = "Id.")), responses((status = 200, body = Version)))]
pub(crate) async fn version_show(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<VersionId>,
) -> Result<Json<Version>, ApiError> {
    Ok(Json(app.version(&caller, version).await?.version))
}

/// Unlinks a version. Disks that began with it can still read it.
#[utoipa::path(delete, path = "/v1/versions/{version}", tag = "versions",
    params(("version" = VersionId, Path, description = "Id."), DryRun),
    responses((status = 204), (status = 200, body = Freed)))]
pub(crate) async fn version_delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<VersionId>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.version_freed(&asked.caller, asked.thing).await?)?);
    }
    Ok(app.delete_version(&asked).await?)
}

/// The bytes of a version, or a range of them.
#[utoipa::path(get, path = "/v1/versions/{version}/content", tag = "versions",
    params(("version" = VersionId, Path, description = "Id."), Ranges), responses(Content))]
pub(crate) async fn version_content_read(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<VersionId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = app.version(&caller, version).await?;
    stream(&app, caller, &row, &headers).await
}

/// Where a version has data. Ranges that are absent read as zeros.
#[utoipa::path(get, path = "/v1/versions/{version}/extents", tag = "versions",
    params(("version" = VersionId, Path, description = "Id."), List),
    responses((status = 200, body = Page<Extent>)))]
pub(crate) async fn version_extent_list(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<VersionId>,
    params: Params,
) -> Result<Json<Page<Extent>>, ApiError> {
    let limit = limit_of(&params)?;
    let from = params.text("page_token")?.map_or(Ok(0), extents_from)?;
    let row = app.version(&caller, version).await?;
    let (found, as_of) = app.version_extents(&row, from, limit).await?;
    let next_page_token = found.next.map(|next| format!("{EXTENTS_FROM}{next}"));
    Ok(Json(Page { items: found.items, next_page_token, as_of }))
}

/// Which chunks of a version are zeros, which are the same in the version that it was made from, and in which order the last
/// boots read them, as a map with at most 16,384 cells.
#[utoipa::path(get, path = "/v1/versions/{version}/chunks", tag = "versions",
    params(("version" = VersionId, Path, description = "Id.")), responses((status = 200, body = Chunks)))]
pub(crate) async fn version_chunks_show(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<VersionId>,
) -> Result<Json<Chunks>, ApiError> {
    Ok(Json(app.version_chunks(&caller, version).await?))
}

/// Prefix of the page tokens of extents, so that they are not mistaken for those of lists. The number of a byte
/// follows.
const EXTENTS_FROM: &str = "byte-";

fn extents_from(token: &str) -> Result<u64, AppError> {
    let byte = token.strip_prefix(EXTENTS_FROM).and_then(|byte| byte.parse().ok());
    byte.ok_or_else(|| AppError::BadRequest("page_token: expected the next_page_token of a page of extents".to_owned()))
}

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Outside,
}

/// Reads one range of bytes. Several ranges, other units and headers that cannot be read are answered with the whole
/// content, as RFC 9110 allows.
fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(text) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = text.split_once('-').filter(|_| !text.contains(',')) else { return Wanted::All };
    let number = |text: &str| -> Option<u64> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Wanted::All,
            Some(0) => Wanted::Outside,
            Some(count) => Wanted::Part(size.saturating_sub(count)..size),
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => Wanted::Outside,
            (Some(first), None) if last.is_empty() => Wanted::Part(first..size),
            (Some(first), Some(last)) if first <= last => Wanted::Part(first..last.saturating_add(1).min(size)),
            _ => Wanted::All,
        },
    }
}

/// Answers with the bytes of a version as the headers ask for them. The root proves the bytes, so it is a strong etag.
///
/// The first bytes are read before the answer begins. So a client that continues where a body broke off is told why.
pub(super) async fn stream(
    app: &App,
    caller: Caller,
    row: &VersionRow,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let size = row.version.size_bytes;
    let etag = format!("\"{}\"", row.version.root);
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let known = text(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"));
    if known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let same = text(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let asked = if same { wanted(text(header::RANGE), size) } else { Wanted::All };
    let (status, range) = match asked {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Outside => {
            let said = format!("the range is outside of the version's {size} bytes");
            let mut response = ApiError::from(Problem::new(ErrorCode::RangeNotSatisfiable, said)).into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(response);
        }
    };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, etag)
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        answer = answer.header(header::CONTENT_RANGE, format!("bytes {}-{last}/{size}", range.start));
    }
    let reading = app.begin_reading(row.version.id).await?;
    metrics::counter!("muster_exported_bytes_total").increment(range.end - range.start);
    let told = (app.clone(), Arc::new(row.version.clone()));
    let pieces = content::stream(app.pool.clone(), &row.content, range).then(move |piece| {
        let (app, version) = told.clone();
        let _held = &reading;
        async move {
            if let Err(error) = &piece {
                app.tell_unreadable(&version, error).await;
            }
            piece
        }
    });
    // A body that ends too early breaks the connection, so nobody takes it for the whole.
    let ended = app.clone();
    let mut pieces = Box::pin(pieces.take_until(async move { ended.token_ended(&caller).await }));
    let first = pieces.next().await.transpose().map_err(|error| unreadable(row, error))?;
    let bytes = futures::stream::iter(first.map(Ok)).chain(pieces);
    answer.body(Body::from_stream(bytes)).map_err(|e| AppError::Internal(e.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=0-", Wanted::Part(0..100)),
            ("bytes=99-", Wanted::Part(99..100)),
            ("bytes=10-19", Wanted::Part(10..20)),
            ("bytes=10-1000", Wanted::Part(10..100)),
            ("bytes=10-99999999999999999999999", Wanted::Part(10..100)),
            ("bytes=-1", Wanted::Part(99..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=-0", Wanted::Outside),
            ("bytes=100-", Wanted::Outside),
            ("bytes=100-200", Wanted::Outside),
            ("bytes=5-4", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=x-y", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("chunks=0-1", Wanted::All),
            ("bytes=+1-2", Wanted::All),
        ] {
            assert_eq!(wanted(Some(header), 100), expected, "{header}");
        }
        assert_eq!(wanted(None, 100), Wanted::All);
    }
}
