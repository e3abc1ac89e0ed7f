//! What new disks start as.

use muster_api::{
    CommitId, Ref, VersionId, disk::DiskSource, firmware::Firmware, image::VersionOrNumber, units::exact_size,
};
use storage_core::Salt;

use super::{AppError, Caller, at, find};
use crate::{
    domain::{disk_plan::blank, order::rounded},
    store::{
        Tx,
        instances::{DiskRow, InstanceRow},
        versions::{self, NewVersion, Of, VersionRow},
    },
};

/// The version that the source of a disk names, and the source with ids. `pointer` is where the request describes the disk;
/// the disk is refused if its `size_bytes` are fewer than the source has.
pub(super) async fn disk_source(
    tx: &mut Tx,
    caller: &Caller,
    source: &DiskSource,
    pointer: &str,
    size_bytes: u64,
) -> Result<(DiskSource, VersionRow), AppError> {
    let of_version = at(&format!("{pointer}/source/version"));
    let (source, version) = match (&source.image, source.version) {
        (Some(image), version) => {
            let number = match version {
                Some(VersionOrNumber::Number(number)) => Some(number),
                _ => None,
            };
            let image = find::image(tx, caller, image).await.map_err(at(&format!("{pointer}/source/image")))?;
            let version = find::version_of(tx, &image, number).await.map_err(of_version)?;
            let number = version.version.number.map(VersionOrNumber::Number);
            (DiskSource { image: Some(Ref::Id(image.image.id)), version: number }, version)
        }
        (None, Some(VersionOrNumber::Id(id))) => {
            (source.clone(), find::version(tx, caller, id).await.map_err(of_version)?)
        }
        (None, _) => {
            let pointer = format!("{pointer}/source");
            return Err(AppError::invalid(pointer, "invalid", "exactly one of image, version"));
        }
    };
    let least = rounded(version.version.size_bytes);
    if size_bytes < least {
        let detail = format!("at least {}, what the source has; got {}", exact_size(least), exact_size(size_bytes));
        return Err(AppError::invalid(format!("{pointer}/size_bytes"), "out_of_range", detail));
    }
    Ok((source, version))
}

/// Says of a version that it is a state of this disk, cut for no snapshot.
pub(super) fn state_of(instance: &InstanceRow, disk: &DiskRow, commit: Option<CommitId>) -> Of {
    Of::Disk {
        instance: instance.id,
        instance_name: instance.name.clone(),
        disk: disk.id,
        disk_name: disk.name.clone(),
        snapshot: None,
        commit,
    }
}

/// Makes the version that blank disks start from. It belongs to one of them, as the version of a snapshot does, and the others
/// start from it. It is unlinked at once: nobody needs to see it, and disks keep what they started from.
pub(super) async fn insert_blank(
    tx: &mut Tx,
    instance: &InstanceRow,
    disk: &DiskRow,
    (id, salt): (VersionId, Salt),
) -> Result<(), AppError> {
    let of = state_of(instance, disk, None);
    versions::insert(tx, &NewVersion::of_disk(id, disk.project.clone(), of, Firmware::default(), blank(salt))).await?;
    let row = versions::load(tx, id).await?.expect("it was inserted");
    Ok(versions::unlink(tx, &row).await?)
}
