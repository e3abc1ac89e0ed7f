//! Disks are attached to instances: new ones, and such that belong to none.

use muster_api::{
    DiskId, InstanceId, Ref, VersionId,
    disk::{AttachDisk, CreateDisk},
    error::FieldError,
    instance::InstanceState,
};

use super::{
    super::{
        Answer, App, AppError, Asked, Caller, at,
        disk_starts::{disk_source, insert_blank},
        find, snapshots as app_snapshots,
    },
    TAKES_DISKS,
    calls::attached,
    check_instance, event, refused, view,
};
use crate::{
    domain::{
        disk_plan::{DISKS_MAX, check_disk, check_name, is_reserved},
        order::rounded,
    },
    store::{
        Tx,
        disks::{self, AnyDisk, DetachedRow},
        events,
        instances::{self, DiskRow, InstanceRow},
        versions,
    },
};

/// What is to be attached.
enum Wanted {
    /// A new disk.
    New(CreateDisk),
    /// One that exists.
    Known { disk: Ref<DiskId>, name: Option<String> },
}

impl Wanted {
    fn read(body: AttachDisk) -> Result<Self, AppError> {
        let AttachDisk { disk, name, size_bytes, source } = body;
        let wrong = |pointer: &str, code: &str, detail: &str| FieldError {
            pointer: pointer.to_owned(),
            code: code.to_owned(),
            detail: detail.to_owned(),
        };
        let Some(disk) = disk else {
            let (Some(name), Some(size_bytes)) = (name.clone(), size_bytes) else {
                let missing = [("/name", name.is_none()), ("/size_bytes", size_bytes.is_none())];
                let missing = missing.into_iter().filter(|(_, missing)| *missing);
                let fields =
                    missing.map(|(at, _)| wrong(at, "missing", "a new disk has name and size_bytes; else say disk"));
                return Err(AppError::Invalid(fields.collect()));
            };
            let new = CreateDisk { name, size_bytes, source };
            let misfits = check_disk("", &new);
            if !misfits.is_empty() {
                return Err(AppError::Invalid(misfits));
            }
            return Ok(Self::New(CreateDisk { size_bytes: rounded(size_bytes), ..new }));
        };
        let detail = "a disk that exists has it already";
        let fields = [("/size_bytes", size_bytes.is_some()), ("/source", source.is_some())].into_iter();
        let mut misfits: Vec<FieldError> =
            fields.filter(|(_, given)| *given).map(|(at, _)| wrong(at, "invalid", detail)).collect();
        misfits.extend(name.as_deref().and_then(|name| check_name("/name", name)));
        if misfits.is_empty() { Ok(Self::Known { disk, name }) } else { Err(AppError::Invalid(misfits)) }
    }
}

impl App {
    /// Attaches a disk to an instance. One that is being detached from it stays.
    pub async fn attach_disk(&self, asked: &Asked<Ref<InstanceId>>, body: AttachDisk) -> Result<Answer, AppError> {
        let wanted = Wanted::read(body)?;
        let caller = &asked.caller;
        self.once(&asked.once, "disks.attach", async |tx| {
            let instance = find::instance(tx, caller, &asked.thing).await?;
            asked.check_if_match(instance.revision)?;
            check_instance(&instance, &TAKES_DISKS)?;
            let disks = instances::disks_of(tx, &[instance.id]).await?.remove(&instance.id).unwrap_or_default();
            let row = match &wanted {
                Wanted::New(new) => self.make(tx, caller, &instance, &disks, new).await?,
                Wanted::Known { disk, name } => match find::disk(tx, caller, disk).await.map_err(at("/disk"))? {
                    AnyDisk::Detached(row) => take(tx, &instance, &disks, row, name.as_deref()).await?,
                    AnyDisk::Attached(row) if row.instance == instance.id => {
                        let kept = keep(tx, caller, &instance, row, name.as_deref()).await?;
                        return Answer::ok(&view::one(tx, caller, AnyDisk::Attached(kept)).await?);
                    }
                    AnyDisk::Attached(row) => return Err(attached(tx, &row).await?),
                },
            };
            if let Some(node) = instance.life.node {
                tx.bump_desired(node);
            }
            events::append(tx, event(&row, &instance, &caller.name)).await?;
            let location = format!("/v1/disks/{}", row.id);
            Answer::created(&view::one(tx, caller, AnyDisk::Attached(row)).await?, location)
        })
        .await
    }

    /// Makes a disk of an instance.
    async fn make(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        instance: &InstanceRow,
        disks: &[DiskRow],
        new: &CreateDisk,
    ) -> Result<DiskRow, AppError> {
        check_room(instance, disks, &new.name)?;
        let source = match &new.source {
            Some(source) => Some(disk_source(tx, caller, source, "", new.size_bytes).await?.1.version.id),
            None => None,
        };
        let version = source.unwrap_or_else(VersionId::generate);
        let (number, seq) = (disks::next_number(tx, instance.id).await?, tx.next_seq().await?);
        let row = DiskRow::new(instance, new.name.clone(), number, (version, new.size_bytes), tx.now(), seq);
        disks::insert(tx, &row).await?;
        if source.is_none() {
            insert_blank(tx, instance, &row, (version, self.salt_of(&instance.project))).await?;
        }
        Ok(row)
    }
}

/// Refuses if the instance has as many disks as it may have, or one of this name, or if its agent is too old.
fn check_room(instance: &InstanceRow, disks: &[DiskRow], name: &str) -> Result<(), AppError> {
    if let Some(other) = disks.iter().find(|disk| disk.name == name) {
        let existing = other.id.to_string();
        return Err(AppError::NameTaken { kind: "disk", name: name.to_owned(), existing });
    }
    let others = disks.iter().filter(|disk| !is_reserved(&disk.name)).count();
    if others >= DISKS_MAX {
        let detail = format!("{} has {others} disks beside the boot disk, which is the most", instance.name);
        return Err(AppError::invalid("", "out_of_range", detail));
    }
    let runs = !matches!(instance.life.state, InstanceState::Pending | InstanceState::Stopped);
    if runs && disks.iter().any(|disk| disk.path.is_some() && disk.in_guest.is_none()) {
        let detail = format!(
            "the agent of the node of {} is too old to give a guest another disk while it runs: stop the instance first, or \
             update the agent",
            instance.name
        );
        return Err(AppError::code(muster_api::ErrorCode::WrongState, detail));
    }
    Ok(())
}

/// A disk of no instance becomes one of this instance.
async fn take(
    tx: &mut Tx,
    instance: &InstanceRow,
    disks: &[DiskRow],
    row: DetachedRow,
    name: Option<&str>,
) -> Result<DiskRow, AppError> {
    if row.project != instance.project {
        return Err(AppError::invalid(
            "/disk",
            "invalid",
            format!("it does not belong to the project of {}", instance.name),
        ));
    }
    let name = name.unwrap_or(&row.name).to_owned();
    check_room(instance, disks, &name)?;
    // The copy of a node that the disk has left may be older than its version, so it has to go before the node gets the disk
    // again. While the instance waits for a node, that may be any.
    let left = disks::copies_left(tx, row.id).await?;
    if left.iter().any(|left| instance.life.node.is_none_or(|node| node == left.node)) {
        let detail = format!("an old copy of {} is still being removed from the node: try again", row.name);
        return Err(AppError::Unavailable(detail));
    }
    disks::delete_detached(tx, &row).await?;
    versions::unlink_saved(tx, row.id, None).await?;
    let number = disks::next_number(tx, instance.id).await?;
    let new = DiskRow::new(instance, name, number, (row.version, row.size_bytes), tx.now(), row.seq);
    let new =
        DiskRow { id: row.id, saved_at: row.saved_at, created_at: row.created_at, revision: row.revision + 1, ..new };
    disks::insert(tx, &new).await?;
    Ok(new)
}

/// A disk of this instance stays, also if it is being detached.
async fn keep(
    tx: &mut Tx,
    caller: &Caller,
    instance: &InstanceRow,
    row: DiskRow,
    name: Option<&str>,
) -> Result<DiskRow, AppError> {
    if name.is_some_and(|name| name != row.name) {
        return Err(refused(row.state(), format!("it belongs to {} as '{}' already", instance.name, row.name)));
    }
    if row.leaving_since.is_none() {
        return Ok(row);
    }
    if let Some(snapshot) = row.leaving_snapshot {
        app_snapshots::discard(tx, snapshot).await?;
    }
    versions::unlink_saved(tx, row.id, None).await?;
    let stays = DiskRow { leaving_since: None, leaving_revision: 0, leaving_snapshot: None, detail: None, ..row };
    disks::save_leaving(tx, &stays).await?;
    let stays = DiskRow { revision: stays.revision + 1, updated_at: tx.now(), ..stays };
    if let Some(node) = instance.life.node {
        tx.bump_desired(node);
    }
    events::append(tx, event(&stays, instance, &caller.name)).await?;
    Ok(stays)
}
