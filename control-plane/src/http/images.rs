//! `/v1/images` and their versions.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use muster_api::{
    ImageId, Page, Ref,
    image::{CreateImage, Image, PatchImage},
    version::{Freed, Version},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, Path, Removal, Shown,
    openapi::{ByFirmware, ByLabel, ByOs, ByState, Content, Deleted, DryRun, List, Ranges},
    uploads,
    versions::stream,
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(image_list, image_create))
        .routes(routes!(image_show, image_patch, image_delete))
        .routes(routes!(image_content_read, uploads::image_content_put))
        .routes(routes!(image_version_list))
        .routes(routes!(image_version_show))
        .routes(routes!(image_version_content_read))
}

/// Makes an image: empty, or a clone, which copies nothing.
#[utoipa::path(post, path = "/v1/images", tag = "images", request_body = CreateImage, 
    responses((status = 201, body = Image), (status = 501)))]
pub(crate) async fn image_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateImage>,
) -> Result<Answer, ApiError> {
    Ok(app.create_image(&caller, &change.once, change.body).await?)
}

/// Images, oldest first.
#[utoipa::path(get, path = "/v1/images", tag = "images", params(List, ByState, ByLabel, ByOs, ByFirmware, Deleted),
    responses((status = 200, body = Page<Image>)))]
pub(crate) async fn image_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Image>>, ApiError> {
    Ok(Json(app.images(&caller, &list).await?))
}

/// One image.
#[utoipa::path(get, path = "/v1/images/{image}", tag = "images",
    responses((status = 200, body = Image)))]
pub(crate) async fn image_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<ImageId>>,
) -> Result<Json<Image>, ApiError> {
    Ok(Json(app.image(&caller, &thing).await?))
}

/// Changes name, labels or what is known of the system on it (merge patch).
#[utoipa::path(patch, path = "/v1/images/{image}", tag = "images",
    request_body = PatchImage, responses((status = 200, body = Image)))]
pub(crate) async fn image_patch(State(app): State<App>, of: ChangeOf<ImageId, PatchImage>) -> Result<Answer, ApiError> {
    Ok(app.patch_image(&of.asked, of.body).await?)
}

/// Unlinks an image and its versions. The bytes stay until nothing uses them.
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images", params(DryRun),
    responses((status = 204), (status = 200, body = Freed)))]
pub(crate) async fn image_delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<ImageId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.image_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_image(&asked).await?)
}

/// The bytes of the newest version.
#[utoipa::path(get, path = "/v1/images/{image}/content", tag = "images", params(Ranges), responses(Content))]
pub(crate) async fn image_content_read(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
    headers: http::HeaderMap,
) -> Result<Response, ApiError> {
    let row = app.image_version(&caller, &image, None).await?;
    stream(&app, caller, &row, &headers).await
}

/// The versions of an image, oldest first.
#[utoipa::path(get, path = "/v1/images/{image}/versions", tag = "images",
    params(List, ByState, ByLabel, Deleted),
    responses((status = 200, body = Page<Version>)))]
pub(crate) async fn image_version_list(
    State(app): State<App>,
    caller: Caller,
    Path(image): Path<Ref<ImageId>>,
    list: ListQuery,
) -> Result<Json<Page<Version>>, ApiError> {
    Ok(Json(app.image_versions(&caller, &image, &list).await?))
}

/// The version with this number of an image.
#[utoipa::path(get, path = "/v1/images/{image}/versions/{number}", tag = "images",
    params(("number" = u64, Path, description = "Number of the version, from 1.")),
    responses((status = 200, body = Version)))]
pub(crate) async fn image_version_show(
    State(app): State<App>,
    caller: Caller,
    Path((image, number)): Path<(Ref<ImageId>, u64)>,
) -> Result<Response, ApiError> {
    Ok(Json(app.image_version(&caller, &image, Some(number)).await?.version).into_response())
}

/// The bytes of the version with this number of an image.
#[utoipa::path(get, path = "/v1/images/{image}/versions/{number}/content", tag = "images",
    params(("number" = u64, Path, description = "Number of the version, from 1."), Ranges), responses(Content))]
pub(crate) async fn image_version_content_read(
    State(app): State<App>,
    caller: Caller,
    Path((image, number)): Path<(Ref<ImageId>, u64)>,
    headers: http::HeaderMap,
) -> Result<Response, ApiError> {
    let row = app.image_version(&caller, &image, Some(number)).await?;
    stream(&app, caller, &row, &headers).await
}
