//! `/v1/images` and their versions.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use muster_api::{
    ImageId, Page, Ref,
    image::{CreateImage, Image, PatchImage},
    version::Version,
};

use super::{ApiError, Change, IfMatch, Json, ListQuery, Path, Removal, versions::stream};
use crate::app::{Answer, App, Asked, Caller};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    create,
    list,
    show,
    patch,
    remove,
    content,
    super::uploads::put_content,
    versions,
    version,
    version_content
))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/images", get(list).post(create))
        .route("/v1/images/{image}", get(show).patch(patch).delete(remove))
        .route("/v1/images/{image}/content", get(content).put(super::uploads::put_content))
        .route("/v1/images/{image}/versions", get(versions))
        .route("/v1/images/{image}/versions/{number}", get(version))
        .route("/v1/images/{image}/versions/{number}/content", get(version_content))
}

/// Makes an image: empty, or a clone, which copies nothing.
#[utoipa::path(post, path = "/v1/images", tag = "images", request_body = CreateImage, responses(
    (status = 201, body = Image), (status = 409, description = "the name is taken"),
    (status = 404, description = "the source is not there"), (status = 422, description = "does not fit"),
    (status = 501, description = "a url, for now")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateImage>,
) -> Result<Answer, ApiError> {
    Ok(app.create_image(&caller, &change.once, change.body).await?)
}

/// Images, oldest first.
#[utoipa::path(get, path = "/v1/images", tag = "images", params(super::openapi::List),
    responses((status = 200, body = Page<Image>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Image>>, ApiError> {
    Ok(Json(app.images(&caller, &list).await?))
}

/// One image.
#[utoipa::path(get, path = "/v1/images/{image}", tag = "images", params(("image" = String, Path, description = "id or name")),
    responses((status = 200, body = Image), (status = 404, description = "there is none")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
) -> Result<Json<Image>, ApiError> {
    Ok(Json(app.image(&caller, &image).await?))
}

/// Changes name or labels (merge patch).
#[utoipa::path(patch, path = "/v1/images/{image}", tag = "images", params(("image" = String, Path, description = "id or name")),
    request_body = PatchImage, responses((status = 200, body = Image), (status = 404, description = "there is none"),
    (status = 409, description = "the name is taken"), (status = 412, description = "changed meanwhile")))]
pub(crate) async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(thing): Path<Ref<ImageId>>,
    IfMatch(if_match): IfMatch,
    Change { once, body }: Change<PatchImage>,
) -> Result<Answer, ApiError> {
    Ok(app.patch_image(&Asked { caller, once, thing, if_match }, body).await?)
}

/// Unlinks an image and its versions. The bytes stay until nothing uses them.
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images", params(("image" = String, Path, description = "id or name"),
    ("dry_run" = Option<bool>, Query, description = "only tell how many bytes it would free")),
    responses((status = 204, description = "unlinked"), (status = 200, body = muster_api::version::Freed, description = "dry run"),
    (status = 404, description = "there is none")))]
pub(crate) async fn remove(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<ImageId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.image_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_image(&asked).await?)
}

/// The bytes of the newest version.
#[utoipa::path(get, path = "/v1/images/{image}/content", tag = "images", params(("image" = String, Path, description = "id or name")),
    responses((status = 200, description = "raw bytes"), (status = 206, description = "the range"),
    (status = 409, description = "no version yet"), (status = 416, description = "the range is outside")))]
pub(crate) async fn content(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
    headers: http::HeaderMap,
) -> Result<Response, ApiError> {
    let row = app.image_version(&caller, &image, None).await?;
    stream(&app, &row, &headers).await
}

/// The versions of an image, oldest first.
#[utoipa::path(get, path = "/v1/images/{image}/versions", tag = "images", params(("image" = String, Path, description = "id or name")),
    responses((status = 200, body = Page<Version>), (status = 404, description = "there is none")))]
pub(crate) async fn versions(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
    list: ListQuery,
) -> Result<Json<Page<Version>>, ApiError> {
    Ok(Json(app.image_versions(&caller, &image, &list).await?))
}

/// The version with this number of an image.
#[utoipa::path(get, path = "/v1/images/{image}/versions/{number}", tag = "images", params(
    ("image" = String, Path, description = "id or name"), ("number" = u64, Path, description = "from 1")),
    responses((status = 200, body = Version), (status = 404, description = "there is none")))]
pub(crate) async fn version(
    State(app): State<App>,
    caller: Caller,
    Path((image, number)): Path<(Ref<ImageId>, u64)>,
) -> Result<Response, ApiError> {
    Ok(Json(app.image_version(&caller, &image, Some(number)).await?.version).into_response())
}

/// The bytes of the version with this number of an image.
#[utoipa::path(get, path = "/v1/images/{image}/versions/{number}/content", tag = "images", params(
    ("image" = String, Path, description = "id or name"), ("number" = u64, Path, description = "from 1")),
    responses((status = 200, description = "raw bytes"), (status = 206, description = "the range")))]
pub(crate) async fn version_content(
    State(app): State<App>,
    caller: Caller,
    Path((image, number)): Path<(Ref<ImageId>, u64)>,
    headers: http::HeaderMap,
) -> Result<Response, ApiError> {
    let row = app.image_version(&caller, &image, Some(number)).await?;
    stream(&app, &row, &headers).await
}
