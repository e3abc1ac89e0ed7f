//! `/v1/snapshots`

use axum::{Router, extract::State, routing::get};
use muster_api::{
    Page, Problem, Ref, SnapshotId,
    operation::Operation,
    snapshot::{CreateSnapshot, PatchSnapshot, Snapshot, SnapshotMember},
    version::Freed,
};

use super::{ApiError, Change, ChangeOf, Json, ListQuery, Params, Path, Removal, Shown};
use crate::app::{Answer, App, Caller};

/// What this file answers.
#[derive(utoipa::OpenApi)]
#[openapi(paths(create, list, show, members, patch, delete))]
pub struct Doc;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/snapshots", get(list).post(create))
        .route("/v1/snapshots/{snapshot}", get(show).patch(patch).delete(delete))
        .route("/v1/snapshots/{snapshot}/members", get(members))
}

/// Cuts all disks of the selected instances at one instant: all members or none.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", request_body = CreateSnapshot,
    responses((status = 202, body = Operation), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    params: Params,
    change: Change<CreateSnapshot>,
) -> Result<Answer, ApiError> {
    params.only(&[])?;
    Ok(app.create_snapshot(&caller, &change.once, &change.body).await?)
}

/// Snapshots, oldest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(super::openapi::List),
    responses((status = 200, body = Page<Snapshot>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Snapshot>>, ApiError> {
    Ok(Json(app.snapshots(&caller, &list).await?))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    params(("snapshot" = String, Path, description = "id or name")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
async fn show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<SnapshotId>>,
) -> Result<Json<Snapshot>, ApiError> {
    Ok(Json(app.snapshot(&caller, &thing).await?))
}

/// The members of a snapshot, one row per disk.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}/members", tag = "snapshots",
    params(("snapshot" = String, Path, description = "id or name"), super::openapi::List),
    responses((status = 200, body = Page<SnapshotMember>), (status = "default", body = Problem)))]
async fn members(
    State(app): State<App>,
    caller: Caller,
    Path(snapshot): Path<Ref<SnapshotId>>,
    list: ListQuery,
) -> Result<Json<Page<SnapshotMember>>, ApiError> {
    Ok(Json(app.snapshot_members(&caller, &snapshot, &list).await?))
}

/// Changes name and labels (merge patch).
#[utoipa::path(patch, path = "/v1/snapshots/{snapshot}", tag = "snapshots", request_body = PatchSnapshot,
    params(("snapshot" = String, Path, description = "id or name")),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem)))]
async fn patch(State(app): State<App>, of: ChangeOf<SnapshotId, PatchSnapshot>) -> Result<Answer, ApiError> {
    Ok(app.patch_snapshot(&of.asked, &of.body).await?)
}

/// Unlinks a snapshot and its versions. One under way is given up. `dry_run=true` only tells how many bytes it would
/// free.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    params(("snapshot" = String, Path, description = "id or name"), ("dry_run" = Option<bool>, Query)),
    responses((status = 202, body = Operation), (status = 200, body = Freed), (status = "default", body = Problem)))]
async fn delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<SnapshotId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.snapshot_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_snapshot(&asked).await?)
}
