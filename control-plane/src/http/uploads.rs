//! `PUT /v1/images/{i}/content`: takes bytes and makes a version of them.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts as _, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use muster_api::{ErrorCode, ImageId, Ref, version::Version};

use super::{ApiError, IfMatch, Json, Params, Path, openapi::Binary};
use crate::{
    app::{
        App, AppError, Caller,
        uploads::{Put, linger, parse_sha256, refuse_too_long},
    },
    ingest::{
        encoding::{Encoding, UnknownEncoding},
        format::Format,
        import::Stated,
    },
};

/// Takes new content: raw or qcow2, recognized unless `format` states it. The answer is 201 with the version once it is
/// durable, or 200 with the newest version if that has the same bytes. Sending the same bytes again changes nothing, so
/// an `Idempotency-Key` is not needed and not kept. Send `If-Match` to avoid replacing newer content of somebody else.
/// With `Content-Encoding: zstd` the body is zstd frames (RFC 8878) with windows of at most 8 MiB, which hold the
/// content.
#[utoipa::path(put, path = "/v1/images/{image}/content", tag = "images",
    params(
        ("format" = Option<String>, Query, description = "`raw` or `qcow2`. Found out if left out; binding if stated."),
        ("sha256" = Option<String>, Query, description = "SHA-256 of the content before any `Content-Encoding`, hex."),
        ("Content-Encoding" = Option<String>, Header, description = "`zstd` or `identity`.")),
    request_body(content = inline(Binary), content_type = "application/octet-stream"),
    responses((status = 201, body = Version), (status = 507),
        (status = 200, body = Version, description = "The newest version has these bytes already.")))]
pub(crate) async fn image_content_put(
    State(app): State<App>,
    Content { caller, image, if_match, stated, body }: Content,
) -> Result<Response, ApiError> {
    let put = app.put_content(&caller, &image, if_match.as_deref(), stated, body.into_data_stream()).await?;
    Ok(match put {
        Put::Published(version) => {
            let location = [(header::LOCATION, format!("/v1/versions/{}", version.id))];
            (StatusCode::CREATED, location, Json(version)).into_response()
        }
        Put::Same(version) => Json(version).into_response(),
    })
}

/// New content on its way in.
pub(crate) struct Content {
    caller: Caller,
    image: Ref<ImageId>,
    if_match: Option<String>,
    /// What the query and the headers say about the body.
    stated: Stated,
    body: Body,
}

impl FromRequest<App> for Content {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let Path(image) = Path::from_request_parts(&mut parts, app).await?;
        let IfMatch(if_match) = IfMatch::from_request_parts(&mut parts, app).await?;
        let params = Params::from_request_parts(&mut parts, app).await?;
        let stated = stated(&params, &parts.headers)?;
        // A body that says that it is too long is refused before anything of it is read.
        if let Some(Err(refused)) = stated_length(&parts.headers).map(|bytes| refuse_too_long(bytes, stated.encoding)) {
            linger(body.into_data_stream());
            return Err(refused.into());
        }
        Ok(Self { caller, image, if_match, stated, body })
    }
}

fn stated(params: &Params, headers: &HeaderMap) -> Result<Stated, AppError> {
    check_content_type(headers)?;
    let encoding = encoding(headers)?;
    let sha256 = params.read("sha256", parse_sha256)?;
    // For an encoded body the header has the encoded length.
    let length = stated_length(headers).filter(|_| encoding == Encoding::Identity);
    Ok(Stated { format: params.get::<Format>("format")?, sha256, encoding, length })
}

/// Refuses forms, which programs make of a file without being asked to, and which would be taken for a disk.
fn check_content_type(headers: &HeaderMap) -> Result<(), AppError> {
    const TAKEN: &str = "application/octet-stream";
    let Some(stated) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if stated.as_bytes().eq_ignore_ascii_case(TAKEN.as_bytes()) {
        return Ok(());
    }
    let stated = String::from_utf8_lossy(stated.as_bytes());
    let why = format!("the Content-Type of an upload must be {TAKEN} or absent, got '{stated}'");
    Err(AppError::code(ErrorCode::UnsupportedMediaType, why))
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, AppError> {
    let mut stated = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = stated.next() else { return Ok(Encoding::Identity) };
    if stated.next().is_some() {
        return Err(AppError::BadRequest("the content may be encoded once: send one Content-Encoding".to_owned()));
    }
    String::from_utf8_lossy(value.as_bytes()).parse().map_err(|e: UnknownEncoding| AppError::BadRequest(e.to_string()))
}
