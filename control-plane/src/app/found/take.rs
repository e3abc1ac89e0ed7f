//! A found instance becomes an instance again: its rows are made from what its node was told of it.

use std::collections::BTreeSet;

use muster_api::{
    CommitId, DeploymentId, ErrorCode, InstanceId, Labels,
    deployment::{DeploymentSource, DeploymentState, Placement, Timing},
    disk::{DiskSource, ROOT},
    found::TakeFound,
    image::VersionOrNumber,
    instance::InstanceState,
    node_protocol::{Assignment, DiskAssignment, DiskReport, InstanceReport},
};
use storage_core::units::u64_from;

use super::{
    super::{
        AppError, Caller, deployments as app_deployments,
        instances::{self as app_instances, Changed},
        nics,
    },
    found_event,
};
use crate::{
    config::Networks,
    domain::{
        cards::CardPlan,
        disk_plan::{DiskPlan, is_reserved},
        instance::Life,
        names::member_name,
        order::deadline_for,
        versions::Content,
    },
    store::{
        Tx, cluster,
        deployments::{self, DeploymentRow},
        disks::{self, AnyDisk},
        events,
        found::{self, FoundRow},
        instances::{self, DiskRow, InstanceRow, NewHead},
        nics::members_changed,
        versions::{self, NewVersion, Of},
    },
    wake::Loop,
};

/// Makes the rows of a found instance, or mends them if the database has them from an earlier time, and drops its own.
pub(super) async fn take(
    tx: &mut Tx,
    caller: &Caller,
    settings: &Networks,
    row: &FoundRow,
    told: &Assignment,
    body: &TakeFound,
) -> Result<InstanceRow, AppError> {
    let member = match instances::load(tx, row.id).await? {
        Some(before) => mend(tx, caller, row, told, body, before).await?,
        None => {
            let (member, plans) = make(tx, caller, row, told, body).await?;
            nics::take_back(tx, settings, &plans, member.id, &told.nics).await?;
            members_changed(tx, &[member.id]).await?;
            member
        }
    };
    found::delete(tx, row.id).await?;
    events::append(tx, found_event("instance.taken", row, &caller.name)).await?;
    tx.bump_desired(row.node);
    Ok(member)
}

/// The database knows it from before it was placed on this node.
async fn mend(
    tx: &mut Tx,
    caller: &Caller,
    row: &FoundRow,
    told: &Assignment,
    body: &TakeFound,
    before: InstanceRow,
) -> Result<InstanceRow, AppError> {
    if before.life.state == InstanceState::Deleted {
        let detail = format!(
            "{} was deleted here as well; its row goes a day after that, and then it can be taken back as a new member",
            before.name
        );
        return Err(AppError::code(ErrorCode::WrongState, detail));
    }
    if *body != TakeFound::default() {
        let detail = format!("{} is a member of its deployment already: leave this out", before.name);
        return Err(AppError::invalid("/deployment", "invalid", detail));
    }
    app_instances::check_idle(std::slice::from_ref(&before))?;
    let disks = instances::disks_of(tx, &[row.id]).await?.remove(&row.id).unwrap_or_default();
    let mut heads = Vec::new();
    for disk in &row.report.disks {
        adopt_version(tx, &before.project, told, row.id, disk).await?;
        let known = disks.iter().find(|known| known.id == disk.disk && known.version != disk.version);
        heads.extend(known.map(|known| NewHead {
            disk: known.id,
            base: known.version,
            version: disk.version,
            dirty_bytes: known.unsaved_bytes,
        }));
    }
    if !heads.is_empty() {
        instances::advance_heads(tx, &heads).await?;
    }
    instances::save_reported(tx, &row.report.disks.iter().collect::<Vec<_>>()).await?;
    let life = Life::taken_back(row.node, &row.report, told.wanted, tx.now());
    let changed = Changed { before: before.life.clone(), after: InstanceRow { life, ..before } };
    app_instances::save(tx, &caller.name, std::slice::from_ref(&changed)).await?;
    instances::load(tx, row.id).await?.ok_or_else(|| AppError::not_found("instance", row.id))
}

/// Makes its rows, without its network cards. Returns the cards that members of its deployment have.
async fn make(
    tx: &mut Tx,
    caller: &Caller,
    row: &FoundRow,
    told: &Assignment,
    body: &TakeFound,
) -> Result<(InstanceRow, Vec<CardPlan>), AppError> {
    let now = tx.now();
    let project = body.project.as_ref().map_or_else(|| told.project.clone(), ToString::to_string);
    cluster::ensure_project(tx, &project).await?;
    for disk in &row.report.disks {
        adopt_version(tx, &project, told, row.id, disk).await?;
    }
    let (deployment, number) = join(tx, caller, row, told, &project, body).await?;
    let member = InstanceRow {
        id: row.id,
        project,
        deployment: deployment.id,
        number,
        name: member_name(&deployment.name, number),
        labels: Labels::default(),
        life: Life::taken_back(row.node, &row.report, told.wanted, now),
        cpus: told.cpus,
        memory_bytes: told.memory_bytes,
        runtime: told.runtime,
        operation: None,
        created_at: now,
        updated_at: now,
        revision: 1,
        seq: tx.next_seq().await?,
    };
    let disks = disk_rows(tx, &member, &row.report, told).await?;
    instances::insert_many(tx, std::slice::from_ref(&member), &disks).await?;
    deployments::members_changed(tx, &BTreeSet::from([deployment.id])).await?;
    events::append(tx, app_instances::event(&member, &caller.name)).await?;
    tx.wake(Loop::Deployments);
    Ok((member, deployment.nics))
}

/// The disks that it had, as far as they are on its node: what is not there cannot be taken back. A disk that another
/// instance has now stays there.
async fn disk_rows(
    tx: &mut Tx,
    member: &InstanceRow,
    report: &InstanceReport,
    told: &Assignment,
) -> Result<Vec<DiskRow>, AppError> {
    let mut rows = Vec::new();
    for disk in &report.disks {
        let place = told.disks.iter().position(|named| named.disk == disk.disk);
        let Some((place, named)) = place.and_then(|place| Some((place, told.disks.get(place)?))) else { continue };
        match disks::load(tx, disk.disk).await? {
            Some(AnyDisk::Attached(_)) => continue,
            // The database knows it from before it was attached.
            Some(AnyDisk::Detached(row)) => disks::delete_detached(tx, &row).await?,
            None => {}
        }
        let begin = (disk.version, named.size_bytes);
        let row = DiskRow::new(member, named.name.clone(), u64_from(place), begin, tx.now(), tx.next_seq().await?);
        rows.push(DiskRow { id: disk.disk, ..row.told(disk) });
    }
    Ok(rows)
}

/// What further members of a deployment like this instance get beside the boot disk.
fn disk_plans(told: &Assignment, report: &InstanceReport) -> Vec<DiskPlan> {
    let plan = |named: &DiskAssignment| {
        let version = report.disks.iter().find(|disk| disk.disk == named.disk)?.version;
        Some(DiskPlan {
            name: named.name.clone(),
            size_bytes: named.size_bytes,
            version: Some(version),
            source: Some(DiskSource { version: Some(VersionOrNumber::Id(version)), ..DiskSource::default() }),
            source_name: None,
        })
    };
    told.disks.iter().filter(|named| !is_reserved(&named.name)).filter_map(plan).collect()
}

/// Makes the version that a disk builds on known, unless it is.
async fn adopt_version(
    tx: &mut Tx,
    project: &str,
    told: &Assignment,
    instance: InstanceId,
    disk: &DiskReport,
) -> Result<(), AppError> {
    if versions::load(tx, disk.version).await?.is_some() {
        return Ok(());
    }
    let refused = |why: String| {
        let detail = format!("version {} of disk {} cannot be taken over: {why}", disk.version, disk.disk);
        AppError::code(ErrorCode::WrongState, detail)
    };
    let root = disk.ahead.as_ref().ok_or_else(|| refused("its node did not send its root".to_owned()))?;
    let content = Content::from_root(root).map_err(|error| refused(error.to_string()))?;
    // One of an image that is not known either has no commit. As a version of the disk it needs the id of one.
    let commit = root.commit.unwrap_or_else(CommitId::generate);
    if versions::by_commit(tx, commit).await?.is_some() {
        return Err(refused(format!("commit {commit} made another version here")));
    }
    let disk_name = told.disks.iter().find(|named| named.disk == disk.disk).map(|named| named.name.clone());
    let of = Of::Disk {
        instance,
        instance_name: told.name.clone(),
        disk: disk.disk,
        disk_name: disk_name.unwrap_or_else(|| ROOT.to_owned()),
        snapshot: None,
        commit: Some(commit),
    };
    let version = NewVersion::of_disk(disk.version, project.to_owned(), of, told.firmware, content);
    Ok(versions::insert(tx, &version).await?)
}

/// The deployment that it joins and its number there.
async fn join(
    tx: &mut Tx,
    caller: &Caller,
    row: &FoundRow,
    told: &Assignment,
    project: &str,
    body: &TakeFound,
) -> Result<(DeploymentRow, u64), AppError> {
    let (of, number) = told.name.rsplit_once('.').unwrap_or((&told.name, "0"));
    let number: u64 = number.parse().unwrap_or(0);
    let wanted = body.deployment.as_ref().map_or_else(|| of.to_owned(), ToString::to_string);
    let Some(mut deployment) = deployments::by_name(tx, project, &wanted).await? else {
        let mut deployment = new_deployment(tx, &wanted, project, row, told, number).await?;
        deployment.nics = nics::known_of(tx, &caller.name, project, &told.nics).await?;
        deployments::insert(tx, &deployment).await?;
        events::append(tx, app_deployments::event(&deployment, &caller.name)).await?;
        return Ok((deployment, number));
    };
    app_deployments::check_free(tx, &deployment).await?;
    let number =
        if deployments::has_number(tx, deployment.id, number).await? { deployment.next_number } else { number };
    deployment.next_number = deployment.next_number.max(number + 1);
    deployment.count += 1;
    deployments::save(tx, &deployment).await?;
    events::append(tx, app_deployments::event(&deployment, &caller.name)).await?;
    Ok((deployment, number))
}

async fn new_deployment(
    tx: &mut Tx,
    name: &str,
    project: &str,
    row: &FoundRow,
    told: &Assignment,
    number: u64,
) -> Result<DeploymentRow, AppError> {
    let now = tx.now();
    let version = row.report.disks.first().map(|disk| disk.version);
    let source = DeploymentSource { version: version.map(VersionOrNumber::Id), ..DeploymentSource::default() };
    Ok(DeploymentRow {
        id: DeploymentId::generate(),
        project: project.to_owned(),
        name: name.to_owned(),
        labels: Labels::default(),
        state: DeploymentState::Deploying,
        all_stopped: false,
        reason: None,
        source,
        source_name: None,
        version,
        count: 1,
        min_count: 1,
        next_number: number + 1,
        cpus: told.cpus,
        memory_bytes: told.memory_bytes,
        disk_bytes: told.disks.first().map_or(4096, |disk| disk.size_bytes),
        disks: disk_plans(told, &row.report),
        runtime: told.runtime,
        ready: told.ready.clone(),
        placement: Placement::default(),
        nics: Vec::new(),
        firmware: told.firmware,
        tpm: told.tpm,
        deadline_s: deadline_for(told.ready.timeout_s.unwrap_or_default()),
        on_ready_timeout: told.on_ready_timeout,
        on_host_start: told.on_host_start,
        timing: Timing::default(),
        created_at: now,
        updated_at: now,
        revision: 1,
        members_revision: 0,
        seq: tx.next_seq().await?,
    })
}
