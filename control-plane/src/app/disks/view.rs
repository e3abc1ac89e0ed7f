//! Disks as their callers see them.

use std::collections::BTreeSet;

use muster_api::{
    InstanceId,
    disk::{Disk, DiskState},
    etag,
};

use super::super::{AppError, Caller, sight::Sight};
use crate::store::{
    Tx,
    disks::{AnyDisk, DetachedRow},
    instances::{self, DiskRow},
};

/// A disk as the API shows it to this caller.
pub(super) async fn one(tx: &mut Tx, caller: &Caller, disk: AnyDisk) -> Result<Disk, AppError> {
    Ok(many(tx, caller, vec![disk]).await?.pop().expect("one row makes one view"))
}

/// Many disks, in the order of their rows.
pub(super) async fn many(tx: &mut Tx, caller: &Caller, disks: Vec<AnyDisk>) -> Result<Vec<Disk>, AppError> {
    let attached = disks.iter().filter_map(|disk| match disk {
        AnyDisk::Attached(row) => Some(row),
        AnyDisk::Detached(_) => None,
    });
    let of: BTreeSet<InstanceId> = attached.clone().map(|row| row.instance).collect();
    let names = instances::names(tx, &of.into_iter().collect::<Vec<_>>()).await?;
    // What a node said may name nodes.
    let has_text = attached.clone().any(|row| detail_of(row).is_some());
    let sight = if has_text { Sight::of(tx, caller.is_operator()).await? } else { Sight::All };
    let view = |disk| match disk {
        AnyDisk::Attached(row) => {
            let detail = detail_of(&row).map(|detail| sight.text(detail.clone()));
            Disk { instance_name: names.get(&row.instance).cloned(), detail, ..of_instance(row) }
        }
        AnyDisk::Detached(row) => of_none(row),
    };
    Ok(disks.into_iter().map(view).collect())
}

/// What its detach waits for, or what its node says of it.
fn detail_of(row: &DiskRow) -> Option<&String> {
    row.detail.as_ref().or(row.said.as_ref())
}

fn of_instance(row: DiskRow) -> Disk {
    Disk {
        id: row.id,
        state: row.state(),
        name: row.name,
        project: row.project,
        detail: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        instance: Some(row.instance),
        instance_name: None,
        detached_from: None,
        size_bytes: row.size_bytes,
        version: row.version,
        unsaved_bytes: row.unsaved_bytes,
        saved_at: row.saved_at,
    }
}

fn of_none(row: DetachedRow) -> Disk {
    Disk {
        id: row.id,
        name: row.name,
        project: row.project,
        state: DiskState::Detached,
        detail: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        instance: None,
        instance_name: None,
        detached_from: Some(row.instance_name),
        size_bytes: row.size_bytes,
        version: row.version,
        unsaved_bytes: 0,
        saved_at: row.saved_at,
    }
}
