//! Disks are detached from instances: asked for, and driven to their end by the loop.

use muster_api::{
    DiskId, ErrorCode, Problem, Ref, disk::ROOT, instance::InstanceState, node_protocol::NVRAM, snapshot::SnapshotState,
};

use super::{
    super::{Answer, App, AppError, Asked, find, snapshots as app_snapshots},
    TAKES_DISKS, check_instance, detached_event, event, refused, view,
};
use crate::{
    domain::disk_life::{DETACHED_MAX, Last, Leaving, Next, next},
    store::{
        Tx,
        disks::{self, AnyDisk, LeftRow},
        events,
        instances::{self, DiskRow, InstanceRow},
        nodes,
        snapshots::{self, SnapshotRow},
        versions,
    },
    wake::Loop,
};

impl App {
    /// Begins to detach a disk from its instance. One that is detached stays so.
    pub async fn detach_disk(&self, asked: &Asked<Ref<DiskId>>) -> Result<Answer, AppError> {
        let caller = &asked.caller;
        self.once(&asked.once, "disks.detach", async |tx| {
            let disk = find::disk(tx, caller, &asked.thing).await?;
            asked.check_if_match(disk.revision())?;
            let row = match disk {
                AnyDisk::Attached(row) if row.leaving_since.is_none() => begin(tx, row, &caller.name).await?,
                AnyDisk::Attached(row) => row,
                AnyDisk::Detached(_) => return Answer::ok(&view::one(tx, caller, disk).await?),
            };
            let location = format!("/v1/disks/{}", row.id);
            Answer::on_its_way(&view::one(tx, caller, AnyDisk::Attached(row)).await?, location)
        })
        .await
    }
}

/// Tells the node that the guest is not to have the disk.
async fn begin(tx: &mut Tx, row: DiskRow, actor: &str) -> Result<DiskRow, AppError> {
    if row.name == ROOT || row.name == NVRAM {
        return Err(refused(row.state(), format!("an instance cannot be without its disk '{}'", row.name)));
    }
    let instance = instances::load(tx, row.instance).await?;
    let instance = instance.ok_or_else(|| AppError::not_found("instance", row.instance))?;
    // While it waits for a node, nobody can say what the disk holds.
    let allowed = TAKES_DISKS.into_iter().filter(|state| *state != InstanceState::Pending);
    // What was never there holds nothing, so that nothing has to be saved from an instance that has failed.
    let allowed = allowed.chain(row.path.is_none().then_some(InstanceState::Failed));
    check_instance(&instance, &allowed.collect::<Vec<_>>())?;
    let Some(node) = instance.life.node else { return Err(refused(row.state(), "its instance has no node")) };
    if row.path.is_some() && row.in_guest.is_none() {
        let detail = format!(
            "the agent of the node of {} is too old to take a disk from its guest: update it, or delete the instance and \
             keep a snapshot",
            instance.name
        );
        return Err(refused(row.state(), detail));
    }
    check_room(disks::count_of(tx, &row.project).await?)?;
    let mut row = row;
    if row.path.is_none() {
        // What its node said before does not count.
        row.in_guest = None;
        disks::save_absence(tx, &row).await?;
    } else if row.in_guest == Some(false) {
        return Err(refused(row.state(), "the disk is still being given back to its guest: try again when it is"));
    }
    tx.bump_desired(node);
    let row = DiskRow {
        leaving_since: Some(tx.now()),
        // The bump counts already.
        leaving_revision: nodes::desired_revision(tx, node).await?,
        ..row
    };
    disks::save_leaving(tx, &row).await?;
    let row = DiskRow { revision: row.revision + 1, updated_at: tx.now(), ..row };
    events::append(tx, event(&row, &instance, actor)).await?;
    tx.wake(Loop::Disks);
    Ok(row)
}

/// Refuses one more detached disk if the project has so many.
fn check_room(used: u64) -> Result<(), AppError> {
    if used < DETACHED_MAX {
        return Ok(());
    }
    let detail = format!("the project has {used} detached disks, and may have {DETACHED_MAX}: delete or attach some");
    let problem = Problem::new(ErrorCode::QuotaExceeded, detail);
    Err(problem.with("limit", DETACHED_MAX).with("used", used).with("wanted", used + 1).into())
}

/// Does what comes next for a disk that is being detached. True when something changed.
pub(crate) async fn drive(tx: &mut Tx, id: DiskId) -> Result<bool, AppError> {
    let Some(row) = disks::load_attached(tx, id).await? else { return Ok(false) };
    let Some(instance) = instances::load(tx, row.instance).await? else { return Ok(false) };
    if row.leaving_since.is_none() {
        return Ok(false);
    }
    if matches!(instance.life.state, InstanceState::Deleting | InstanceState::Deleted) {
        // The disk goes with its instance, and what was to save it is of no use.
        let Some(snapshot) = row.leaving_snapshot else { return Ok(false) };
        app_snapshots::discard(tx, snapshot).await?;
        versions::unlink_saved(tx, row.id, None).await?;
        disks::save_leaving(tx, &DiskRow { leaving_snapshot: None, ..row }).await?;
        return Ok(true);
    }
    let own = match row.leaving_snapshot {
        Some(snapshot) => snapshots::load(tx, snapshot).await?,
        None => None,
    };
    let seen = Leaving {
        instance: instance.life.state,
        said: row.said.clone(),
        in_guest: row.in_guest,
        was_there: row.path.is_some(),
        knows_newest: row.reported_version == Some(row.version),
        unsaved_bytes: row.unsaved_bytes,
        // Nothing waits for a scheduled one. It is given up once the disk comes to be saved or leaves.
        is_being_cut: snapshots::busy_with(tx, &[row.id]).await?.is_some()
            && snapshots::scheduled_with(tx, &[row.id]).await?.is_empty(),
        last: own.as_ref().filter(|own| !own.is_under_way()).map(|own| last(tx, own)),
    };
    match next(&seen) {
        Next::Wait(why) => wait(tx, row, why).await,
        Next::Leave => {
            app_snapshots::give_up_scheduled(tx, &[row.id], "a detach").await?;
            leave(tx, row, &instance).await.map(|()| true)
        }
        Next::Save => match app_snapshots::begin_own(tx, instance).await {
            Ok(snapshot) => {
                if let Some(before) = row.leaving_snapshot {
                    app_snapshots::discard(tx, before).await?;
                }
                let detail = Some("a snapshot saves what it holds".to_owned());
                disks::save_leaving(tx, &DiskRow { leaving_snapshot: Some(snapshot), detail, ..row }).await?;
                Ok(true)
            }
            Err(refusal @ (AppError::Problem(_) | AppError::WrongState { .. } | AppError::Busy { .. })) => {
                wait(tx, row, format!("what it holds cannot be saved now: {refusal}")).await
            }
            Err(error) => Err(error),
        },
    }
}

fn last(tx: &Tx, own: &SnapshotRow) -> Last {
    let failed = (own.state == SnapshotState::Failed).then(|| {
        let reason = own.reason.as_ref().map_or("it failed", |reason| reason.as_str());
        own.refused_detail.clone().unwrap_or_else(|| reason.to_owned())
    });
    Last { ended_ms_ago: tx.now().ms_since(own.updated_at), failed }
}

/// Notes what a disk waits for, unless that is known.
async fn wait(tx: &mut Tx, row: DiskRow, why: String) -> Result<bool, AppError> {
    if row.detail.as_ref() == Some(&why) {
        return Ok(false);
    }
    disks::save_leaving(tx, &DiskRow { detail: Some(why), ..row }).await?;
    Ok(true)
}

/// The disk leaves its instance. Its node is told to remove its copy, and the snapshot that saved it is not needed any more.
async fn leave(tx: &mut Tx, row: DiskRow, instance: &InstanceRow) -> Result<(), AppError> {
    if let Some(node) = instance.life.node {
        tx.bump_desired(node);
        let told_revision = nodes::desired_revision(tx, node).await?;
        disks::note_left(
            tx,
            &LeftRow { instance: instance.id, disk: row.id, node, told_revision, version: row.version },
        )
        .await?;
    }
    let detached = disks::detach(tx, &row, instance.name.clone()).await?;
    if let Some(snapshot) = row.leaving_snapshot {
        app_snapshots::discard(tx, snapshot).await?;
    }
    versions::unlink_saved(tx, row.id, Some(row.version)).await?;
    let told = detached_event("disk.state", &detached, "muster");
    let told = events::NewEvent {
        labels: instance.labels.clone(),
        deployment: Some(instance.deployment),
        node: instance.life.node,
        ..told
    };
    events::append(tx, told).await?;
    Ok(())
}
