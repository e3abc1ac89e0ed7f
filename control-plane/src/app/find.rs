//! Things that a path or a body names, by id or name. What the caller may not know of is answered as if it were not
//! there. Names are looked up in the one project of the request.

use muster_api::{
    DeploymentId, DiskId, ErrorCode, ImageId, InstanceId, NetworkId, NodeId, Problem, Ref, SecurityGroupId, SnapshotId,
    VersionId, deployment::DeploymentState, image::ImageState, instance::InstanceState, network::NetworkState,
    snapshot::SnapshotState, version::VersionState,
};

use super::{AppError, Caller, at};
use crate::store::{
    Tx,
    deployments::{self, DeploymentRow},
    disks::{self, AnyDisk},
    images::{self, ImageRow},
    instances::{self, InstanceRow},
    networks::{self, NetworkRow},
    nodes::{self, NodeRow},
    security_groups::{self, SecurityGroupRow},
    snapshots::{self, SnapshotRow},
    versions::{self, VersionRow},
};

/// The deployment, unless it is deleted. One that is being deleted is found by its id only: its name is free.
pub(crate) async fn deployment(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<DeploymentId>,
) -> Result<DeploymentRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => deployments::load(tx, *id).await?,
        Ref::Name(name) => deployments::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != DeploymentState::Deleted)
        .ok_or_else(|| AppError::not_found("deployment", wanted))
}

/// As [`deployment`]; if none has the name, the newest that had it and is being deleted. For DELETE, which may be
/// repeated.
pub(crate) async fn deployment_or_going(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<DeploymentId>,
) -> Result<DeploymentRow, AppError> {
    match (deployment(tx, caller, wanted).await, wanted) {
        (Err(missing @ AppError::NotFound { .. }), Ref::Name(name)) => {
            deployments::going_by_name(tx, caller.one_project()?, name).await?.ok_or(missing)
        }
        (found, _) => found,
    }
}

/// The instance, unless it is deleted. One that is being deleted is found by its id only.
pub(crate) async fn instance(tx: &mut Tx, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<InstanceRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => instances::load(tx, *id).await?,
        Ref::Name(name) => instances::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.life.state != InstanceState::Deleted)
        .ok_or_else(|| AppError::not_found("instance", wanted))
}

/// As [`instance`]; if none has the name, the newest that had it and is being deleted. For DELETE, which may be
/// repeated.
pub(crate) async fn instance_or_going(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<InstanceId>,
) -> Result<InstanceRow, AppError> {
    match (instance(tx, caller, wanted).await, wanted) {
        (Err(missing @ AppError::NotFound { .. }), Ref::Name(name)) => {
            instances::going_by_name(tx, caller.one_project()?, name).await?.ok_or(missing)
        }
        (found, _) => found,
    }
}

/// The disk: by its id, as `INSTANCE/DISK`, or one of no instance by its name, if no other has it.
pub(crate) async fn disk(tx: &mut Tx, caller: &Caller, wanted: &Ref<DiskId>) -> Result<AnyDisk, AppError> {
    let found = match wanted {
        Ref::Id(id) => disks::load(tx, *id).await?.filter(|disk| caller.can_see(disk.project())),
        Ref::Name(name) => match name.split_once('/') {
            Some((of, name)) => {
                let of = instance(tx, caller, &of.parse().map_err(|_| AppError::not_found("disk", wanted))?).await?;
                let disks = instances::disks_of(tx, &[of.id]).await?.remove(&of.id).unwrap_or_default();
                disks.into_iter().find(|disk| disk.name == name).map(AnyDisk::Attached)
            }
            None => {
                let mut named = disks::detached_by_name(tx, caller.one_project()?, name).await?;
                if named.len() > 1 {
                    let detail = format!("{} detached disks have the name '{name}': say the id", named.len());
                    return Err(AppError::code(ErrorCode::WrongState, detail));
                }
                named.pop().map(AnyDisk::Detached)
            }
        },
    };
    found.ok_or_else(|| AppError::not_found("disk", wanted))
}

/// The snapshot, unless it is deleted.
pub(crate) async fn snapshot(tx: &mut Tx, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<SnapshotRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => snapshots::load(tx, *id).await?,
        Ref::Name(name) => snapshots::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != SnapshotState::Deleted)
        .ok_or_else(|| AppError::not_found("snapshot", wanted))
}

/// The network, unless it is deleted.
pub(crate) async fn network(tx: &mut Tx, caller: &Caller, wanted: &Ref<NetworkId>) -> Result<NetworkRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => networks::load(tx, *id).await?,
        Ref::Name(name) => networks::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != NetworkState::Deleted)
        .ok_or_else(|| AppError::not_found("network", wanted))
}

/// As [`network`], of this project only, whoever asks: what belongs together is of one project.
pub(crate) async fn network_in(tx: &mut Tx, project: &str, wanted: &Ref<NetworkId>) -> Result<NetworkRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => networks::load(tx, *id).await?,
        Ref::Name(name) => networks::by_name(tx, project, name).await?,
    };
    found
        .filter(|row| row.project == project && row.state != NetworkState::Deleted)
        .ok_or_else(|| AppError::not_found("network", wanted))
}

/// The security group, unless it is deleted.
pub(crate) async fn security_group(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<SecurityGroupId>,
) -> Result<SecurityGroupRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => security_groups::load(tx, *id).await?,
        Ref::Name(name) => security_groups::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != NetworkState::Deleted)
        .ok_or_else(|| AppError::not_found("security group", wanted))
}

/// As [`security_group`], of this project only, whoever asks.
pub(crate) async fn security_group_in(
    tx: &mut Tx,
    project: &str,
    wanted: &Ref<SecurityGroupId>,
) -> Result<SecurityGroupRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => security_groups::load(tx, *id).await?,
        Ref::Name(name) => security_groups::by_name(tx, project, name).await?,
    };
    found
        .filter(|row| row.project == project && row.state != NetworkState::Deleted)
        .ok_or_else(|| AppError::not_found("security group", wanted))
}

/// The node. One found by its id may be deleted.
pub(crate) async fn node(tx: &mut Tx, wanted: &Ref<NodeId>) -> Result<NodeRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => nodes::load(tx, *id).await?,
        Ref::Name(name) => nodes::by_name(tx, name).await?,
    };
    found.ok_or_else(|| AppError::not_found("node", wanted))
}

/// The image, unless it is deleted.
pub(crate) async fn image(tx: &mut Tx, caller: &Caller, wanted: &Ref<ImageId>) -> Result<ImageRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => images::load(tx, *id).await?.filter(|row| caller.can_see(&row.image.project)),
        Ref::Name(name) => images::by_name(tx, caller.one_project()?, name).await?,
    };
    found.filter(|row| row.image.state != ImageState::Deleted).ok_or_else(|| AppError::not_found("image", wanted))
}

/// The version, unless it is deleted.
pub(crate) async fn version(tx: &mut Tx, caller: &Caller, id: VersionId) -> Result<VersionRow, AppError> {
    let row = versions::load(tx, id).await?.filter(|row| is_live(row) && caller.can_see(&row.version.project));
    row.ok_or_else(|| AppError::not_found("version", id))
}

/// The version with this number of an image; the newest one if no number is given.
pub(crate) async fn version_of(tx: &mut Tx, image: &ImageRow, number: Option<u64>) -> Result<VersionRow, AppError> {
    let Some(number) = number else {
        return versions::newest(tx, image.image.id).await?.ok_or_else(|| empty(image));
    };
    let found = versions::by_number(tx, image.image.id, number).await?.filter(is_live);
    found.ok_or_else(|| AppError::not_found("version", format!("{}@{number}", image.image.name)))
}

/// The image and version that `{image, version?}` in a body's `/source` names.
pub(crate) async fn source_image(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<ImageId>,
    number: Option<u64>,
) -> Result<(ImageRow, VersionRow), AppError> {
    let image = image(tx, caller, wanted).await.map_err(at("/source/image"))?;
    let version = version_of(tx, &image, number).await.map_err(at("/source/version"))?;
    Ok((image, version))
}

fn is_live(row: &VersionRow) -> bool {
    row.version.state == VersionState::Ready
}

fn empty(row: &ImageRow) -> AppError {
    let name = &row.image.name;
    let said = format!("image {name} has no version yet: send its content (PUT /v1/images/{name}/content)");
    Problem::new(ErrorCode::WrongState, said).with("state", "empty").with("allowed", vec!["ready"]).into()
}
