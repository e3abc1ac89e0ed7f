//! `/v1/snapshots`

use axum::extract::State;
use muster_api::{
    Page, Ref, SnapshotId,
    operation::Operation,
    snapshot::{CreateSnapshot, PatchSnapshot, RestoreSnapshot, Snapshot, SnapshotMember},
    version::Freed,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, ChangeOf, Json, ListQuery, Path, Removal, Shown,
    openapi::{ByDeployment, ByLabel, ByState, Deleted, DryRun, List},
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(snapshot_list, snapshot_create))
        .routes(routes!(snapshot_show, snapshot_patch, snapshot_delete))
        .routes(routes!(snapshot_member_list))
        .routes(routes!(snapshot_restore))
}

/// Cuts all disks of the selected instances at one instant: all members or none.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", request_body = CreateSnapshot,
    responses((status = 202, body = Operation), (status = 501)))]
async fn snapshot_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<CreateSnapshot>,
) -> Result<Answer, ApiError> {
    Ok(app.create_snapshot(&caller, &change.once, &change.body).await?)
}

/// Snapshots, oldest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots",
    params(List, ByState, ByLabel, ByDeployment, Deleted),
    responses((status = 200, body = Page<Snapshot>)))]
async fn snapshot_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Snapshot>>, ApiError> {
    Ok(Json(app.snapshots(&caller, &list).await?))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    responses((status = 200, body = Snapshot)))]
async fn snapshot_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<SnapshotId>>,
) -> Result<Json<Snapshot>, ApiError> {
    Ok(Json(app.snapshot(&caller, &thing).await?))
}

/// The members of a snapshot, one row per disk.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}/members", tag = "snapshots",
    params(List), responses((status = 200, body = Page<SnapshotMember>)))]
async fn snapshot_member_list(
    State(app): State<App>,
    caller: Caller,
    Path(snapshot): Path<Ref<SnapshotId>>,
    list: ListQuery,
) -> Result<Json<Page<SnapshotMember>>, ApiError> {
    Ok(Json(app.snapshot_members(&caller, &snapshot, &list).await?))
}

/// Changes name and labels, or keeps a scheduled snapshot for good (merge patch).
#[utoipa::path(patch, path = "/v1/snapshots/{snapshot}", tag = "snapshots", request_body = PatchSnapshot,
    responses((status = 200, body = Snapshot)))]
async fn snapshot_patch(State(app): State<App>, of: ChangeOf<SnapshotId, PatchSnapshot>) -> Result<Answer, ApiError> {
    Ok(app.patch_snapshot(&of.asked, &of.body).await?)
}

/// Puts the disks of the members back to the snapshot, in place: they are stopped, get the content that they had, and those
/// that ran are started. Names, addresses and everything else stay. What the disks hold now is kept as a snapshot first,
/// unless it is to be discarded.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/restore", tag = "snapshots", request_body = RestoreSnapshot,
    responses((status = 202, body = Operation)))]
async fn snapshot_restore(
    State(app): State<App>,
    of: ChangeOf<SnapshotId, RestoreSnapshot>,
) -> Result<Answer, ApiError> {
    Ok(app.restore_snapshot(&of.asked, of.body).await?)
}

/// Unlinks a snapshot and its versions. One under way is given up. `dry_run=true` only tells how many bytes it would
/// free.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots",
    params(DryRun), responses((status = 202, body = Operation), (status = 200, body = Freed)))]
async fn snapshot_delete(
    State(app): State<App>,
    Removal { asked, dry_run }: Removal<Ref<SnapshotId>>,
) -> Result<Answer, ApiError> {
    if dry_run {
        return Ok(Answer::ok(&app.snapshot_freed(&asked.caller, &asked.thing).await?)?);
    }
    Ok(app.delete_snapshot(&asked).await?)
}
