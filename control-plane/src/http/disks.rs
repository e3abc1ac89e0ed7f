//! `/v1/disks`, and the disks that are attached to an instance.

use axum::extract::State;
use muster_api::{
    DiskId, InstanceId, Page, Ref,
    disk::{AttachDisk, Disk, PatchDisk},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, ChangeOf, Json, ListQuery, NoBody, Params, Removal, Shown,
    openapi::{ByInstance, ByState, List},
};
use crate::app::{Answer, App, Caller};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(disk_list))
        .routes(routes!(disk_show, disk_patch, disk_delete))
        .routes(routes!(disk_attach))
        .routes(routes!(disk_detach))
}

/// Disks, oldest first: those of instances, and those that belong to none.
#[utoipa::path(get, path = "/v1/disks", tag = "disks",
    params(List, ByState, ByInstance,
        ("detached" = Option<bool>, Query, description = "Only disks that belong to no instance. Default: false.")),
    responses((status = 200, body = Page<Disk>)))]
async fn disk_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
    params: Params,
) -> Result<Json<Page<Disk>>, ApiError> {
    Ok(Json(app.disks(&caller, &list, params.flag("detached")?).await?))
}

/// One disk: by its id, as `INSTANCE/DISK` (the slash as `%2F`), or a detached one by its name where no other has it.
#[utoipa::path(get, path = "/v1/disks/{disk}", tag = "disks",
    responses((status = 200, body = Disk), (status = 409)))]
async fn disk_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<Ref<DiskId>>,
) -> Result<Json<Disk>, ApiError> {
    Ok(Json(app.disk(&caller, &thing).await?))
}

/// Grows a disk (merge patch), also a boot disk. The guest sees it at once if it runs; partitions and file systems in it are
/// the guest's to grow.
#[utoipa::path(patch, path = "/v1/disks/{disk}", tag = "disks", request_body = PatchDisk,
    responses((status = 200, body = Disk)))]
async fn disk_patch(State(app): State<App>, of: ChangeOf<DiskId, PatchDisk>) -> Result<Answer, ApiError> {
    Ok(app.patch_disk(&of.asked, &of.body).await?)
}

/// Deletes a disk that belongs to no instance, and what it holds. Any other is refused with `disk_attached`.
#[utoipa::path(delete, path = "/v1/disks/{disk}", tag = "disks", responses((status = 204)))]
async fn disk_delete(State(app): State<App>, Removal { asked, .. }: Removal<Ref<DiskId>>) -> Result<Answer, ApiError> {
    Ok(app.delete_disk(&asked).await?)
}

/// Attaches a disk to an instance: a new one, or one that belongs to none. A guest that runs gets it at once. One that is being
/// detached from this instance stays, and one that is attached to it is answered with 200.
#[utoipa::path(post, path = "/v1/instances/{instance}/disks", tag = "disks", request_body = AttachDisk,
    responses((status = 201, body = Disk), (status = 200, body = Disk)))]
async fn disk_attach(State(app): State<App>, of: ChangeOf<InstanceId, AttachDisk>) -> Result<Answer, ApiError> {
    Ok(app.attach_disk(&of.asked, of.body).await?)
}

/// Detaches a disk from its instance: it is taken from the guest, which may refuse that for a while; then a snapshot saves what
/// it holds. The disk is `detaching` meanwhile, and its `detail` says what is waited for. Attaching it to the same instance
/// takes this back. A boot disk cannot be detached. A disk that its node could not make is detached as well, once the node says
/// that it does not have it.
#[utoipa::path(post, path = "/v1/disks/{disk}/detach", tag = "disks",
    responses((status = 202, body = Disk, description = "It is being detached. `Location` is the path of the disk."),
        (status = 200, body = Disk)))]
async fn disk_detach(State(app): State<App>, of: ChangeOf<DiskId, NoBody>) -> Result<Answer, ApiError> {
    Ok(app.detach_disk(&of.asked).await?)
}
