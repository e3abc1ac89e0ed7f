//! `PUT /v1/images/{i}/content`: bytes in, a version out.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use muster_api::{ImageId, Ref, version::Version};

use super::{ApiError, IfMatch, Json, Params, Path};
use crate::{
    app::{
        App, AppError, Caller,
        uploads::{Put, parse_sha256},
    },
    ingest::{format::Format, import::Stated},
};

/// Takes new content: raw or qcow2, found out or stated. 201 with the version once it is durable; 200 with the newest
/// if that has the same bytes. Sending the same again changes nothing, so an `Idempotency-Key` is not needed and not
/// kept; whoever must not write over another's newer content sends `If-Match`.
#[utoipa::path(put, path = "/v1/images/{image}/content", tag = "images", params(
    ("image" = String, Path, description = "id or name"),
    ("format" = Option<String>, Query, description = "raw or qcow2; binding if stated"),
    ("sha256" = Option<String>, Query, description = "of the bytes as sent, hex")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, body = Version), (status = 200, body = Version, description = "the newest version has these bytes"),
    (status = 400, description = "broken off"), (status = 409, description = "another upload is under way"),
    (status = 413, description = "over 16 TiB"), (status = 422, description = "not a usable image, or another sha256"),
    (status = 507, description = "no node, or no room")))]
pub(crate) async fn put_content(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
    IfMatch(if_match): IfMatch,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let stated = stated(&params, &headers)?;
    let put = app.put_content(&caller, &image, if_match.as_deref(), stated, body.into_data_stream()).await?;
    Ok(match put {
        Put::Published(version) => {
            let location = [(header::LOCATION, format!("/v1/versions/{}", version.id))];
            (StatusCode::CREATED, location, Json(version)).into_response()
        }
        Put::Same(version) => Json(version).into_response(),
    })
}

fn stated(params: &Params, headers: &HeaderMap) -> Result<Stated, AppError> {
    params.only(&["format", "sha256"])?;
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(AppError::BadRequest("send the content without Content-Encoding".to_owned()));
    }
    let sha256 = params.read("sha256", parse_sha256)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Stated { format: params.get::<Format>("format")?, sha256, length })
}
