//! Disks are shown, grown and deleted.

use muster_api::{
    DiskId, ErrorCode, InstanceId, Page, Problem, Ref,
    disk::{Disk, DiskState, PatchDisk},
    instance::InstanceState,
    node_protocol::NVRAM,
};

use super::{
    super::{Answer, App, AppError, Asked, Caller, find, list::ListQuery},
    detached_event, event, refused, view,
};
use crate::{
    domain::disk_life::check_growth,
    store::{
        Tx, column,
        disks::{self, AnyDisk, DiskFilter},
        events,
        instances::{self, DiskRow, InstanceRow},
        versions,
    },
};

impl App {
    /// One disk, by id or name.
    pub async fn disk(&self, caller: &Caller, wanted: &Ref<DiskId>) -> Result<Disk, AppError> {
        self.store
            .read("disks.show", async |tx| {
                let disk = find::disk(tx, caller, wanted).await?;
                view::one(tx, caller, disk).await
            })
            .await
    }

    /// A page of disks, with `detached` only of those of no instance. The filters `state` and `instance` are known.
    pub async fn disks(&self, caller: &Caller, list: &ListQuery, detached: bool) -> Result<Page<Disk>, AppError> {
        list.filter.states_of::<DiskState>()?;
        self.store
            .read("disks.list", async |tx| {
                let project = caller.list_project().map(str::to_owned);
                let instances = instance_ids(tx, caller, &list.filter.instances).await?;
                let filter = DiskFilter { project, instances, detached };
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = disks::list(tx, &filter, after, n).await?;
                    pager.take(rows, AnyDisk::seq, |row| list.filter.keeps_state(state_of(&row)).then_some(row));
                }
                let page = pager.page();
                let items = view::many(tx, caller, page.items).await?;
                Ok(Page { items, next_page_token: page.next_page_token, as_of: page.as_of })
            })
            .await
    }

    /// Grows a disk; nothing else of it can be patched.
    pub async fn patch_disk(&self, asked: &Asked<Ref<DiskId>>, patch: &PatchDisk) -> Result<Answer, AppError> {
        self.once(&asked.once, "disks.patch", async |tx| {
            let disk = find::disk(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(disk.revision())?;
            let disk = match patch.size_bytes {
                Some(size_bytes) => grow(tx, &asked.caller, disk, size_bytes).await?,
                None => disk,
            };
            Answer::ok(&view::one(tx, &asked.caller, disk).await?)
        })
        .await
    }

    /// Deletes a disk of no instance.
    pub async fn delete_disk(&self, asked: &Asked<Ref<DiskId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "disks.delete", async |tx| {
            let disk = find::disk(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(disk.revision())?;
            let row = match disk {
                AnyDisk::Attached(row) => return Err(attached(tx, &row).await?),
                AnyDisk::Detached(row) => row,
            };
            disks::delete_detached(tx, &row).await?;
            versions::unlink_saved(tx, row.id, None).await?;
            events::append(tx, detached_event("disk.deleted", &row, &asked.caller.name)).await?;
            Ok(Answer::no_content())
        })
        .await
    }
}

/// The refusal of what only a disk of no instance can do.
pub(super) async fn attached(tx: &mut Tx, row: &DiskRow) -> Result<AppError, AppError> {
    let name = instances::names(tx, &[row.instance]).await?.remove(&row.instance);
    let instance = name.expect("an instance is kept while it has a disk");
    let detail = format!("the disk belongs to {instance} as '{}': detach it first", row.name);
    let state = column::word_text(row.state())?;
    Ok(Problem::new(ErrorCode::DiskAttached, detail).with("state", state).into())
}

fn state_of(disk: &AnyDisk) -> DiskState {
    match disk {
        AnyDisk::Attached(row) => row.state(),
        AnyDisk::Detached(_) => DiskState::Detached,
    }
}

/// The ids of the instances that a filter names. A name that no instance has stays as it is and matches no row.
async fn instance_ids(tx: &mut Tx, caller: &Caller, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let found = match (reference.parse::<InstanceId>(), caller.list_project()) {
            (Ok(id), _) => Some(id.to_string()),
            (Err(_), Some(project)) => instances::by_name(tx, project, reference).await?.map(|row| row.id.to_string()),
            (Err(_), None) => {
                return Err(AppError::BadRequest(format!("'{reference}': with ?project=* name instances by id")));
            }
        };
        ids.push(found.unwrap_or_else(|| reference.clone()));
    }
    Ok(ids)
}

/// The disk with its new size. Its node, if it has one, is told.
async fn grow(tx: &mut Tx, caller: &Caller, disk: AnyDisk, size_bytes: u64) -> Result<AnyDisk, AppError> {
    let (id, has) = match &disk {
        AnyDisk::Attached(row) => (row.id, row.size_bytes),
        AnyDisk::Detached(row) => (row.id, row.size_bytes),
    };
    let instance = match &disk {
        AnyDisk::Attached(row) => Some(check_attached(tx, row).await?),
        AnyDisk::Detached(_) => None,
    };
    if let Some(wrong) = check_growth(has, size_bytes) {
        return Err(AppError::Invalid(vec![wrong]));
    }
    if size_bytes == has {
        return Ok(disk);
    }
    disks::grow(tx, &disk, size_bytes).await?;
    if let Some(node) = instance.as_ref().and_then(|instance| instance.life.node) {
        tx.bump_desired(node);
    }
    let grown = disks::load(tx, id).await?.ok_or_else(|| AppError::not_found("disk", id))?;
    let told = match (&grown, &instance) {
        (AnyDisk::Attached(row), Some(instance)) => event(row, instance, &caller.name),
        (AnyDisk::Detached(row), _) => detached_event("disk.state", row, &caller.name),
        (AnyDisk::Attached(row), None) => return Err(AppError::not_found("instance", row.instance)),
    };
    events::append(tx, told).await?;
    Ok(grown)
}

/// The instance of a disk that may grow.
async fn check_attached(tx: &mut Tx, row: &DiskRow) -> Result<InstanceRow, AppError> {
    let instance = instances::load(tx, row.instance).await?;
    let instance = instance.ok_or_else(|| AppError::not_found("instance", row.instance))?;
    if row.name == NVRAM {
        return Err(refused(row.state(), "the variables of the firmware have one size"));
    }
    if row.leaving_since.is_some() {
        return Err(refused(row.state(), "the disk is being detached: grow it when that is done"));
    }
    if instance.life.state == InstanceState::Deleting {
        return Err(refused(row.state(), format!("{} is being deleted", instance.name)));
    }
    if instance.life.node.is_some() && row.reported_bytes.is_none() {
        let detail = format!(
            "the node of {} has not told the size of the disk: it is still made there, or the agent is too old to grow disks \
             and needs an update",
            instance.name
        );
        return Err(refused(row.state(), detail));
    }
    Ok(instance)
}
