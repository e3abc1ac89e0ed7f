//! Deployments as their callers may see them: nodes and bytes are shown to operators only.

use muster_api::{
    SshKey,
    deployment::{Deployment, DeploymentState, Placement, Timing},
    disk::DeploymentDisk,
    etag,
};
use storage_core::units::u64_from;

use super::super::{
    App, AppError, Caller,
    nics::Names,
    protection::{self, Shown},
};
use crate::{
    domain::{
        deployment::Tally,
        disk_plan::{DiskPlan, is_reserved},
    },
    store::{Tx, deployments::DeploymentRow, seeds},
};

/// One deployment with its members counted.
pub(super) async fn show(app: &App, tx: &mut Tx, caller: &Caller, row: DeploymentRow) -> Result<Deployment, AppError> {
    let (tally, details) = app.counted.whole(tx, &row).await?;
    let seed = seeds::load(tx, row.id).await?;
    let keys = seed.ssh_keys.iter().map(|line| line.parse().map(|key: SshKey| key.facts()));
    let keys = keys.collect::<Result<_, _>>().map_err(anyhow::Error::from)?;
    let names = Names::of(tx, row.nics.iter()).await?;
    let protection = protection::shown(tx, caller, std::slice::from_ref(&row)).await?;
    Ok(Deployment {
        ssh_keys: Some(keys),
        user_data_bytes: Some(u64_from(seed.user_data.as_ref().map_or(0, String::len))),
        ..view(caller, row, &names, &protection, &tally, details.timing.clone(), Some(details.bytes))
    })
}

/// The deployment with these members. `bytes` are those fetched for its disks and those kept locally.
pub(super) fn view(
    caller: &Caller,
    row: DeploymentRow,
    names: &Names,
    protection: &Shown,
    tally: &Tally,
    timing: Timing,
    bytes: Option<(u64, u64)>,
) -> Deployment {
    let operator = caller.is_operator();
    let state = match row.state {
        DeploymentState::Deleting | DeploymentState::Deleted => row.state,
        _ => tally.state(),
    };
    let (protect, protection) = protection.get(&row.id).cloned().unzip();
    let placement = Placement { nodes: row.placement.nodes.filter(|_| operator), ..row.placement };
    Deployment {
        id: row.id,
        name: row.name,
        project: row.project,
        labels: row.labels,
        state,
        reason: row.reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        source: row.source.into(),
        source_name: row.source_name,
        count: row.count,
        min_count: row.min_count,
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        disk_bytes: row.disk_bytes,
        disks: row.disks.into_iter().filter(|plan| !is_reserved(&plan.name)).map(disk_view).collect(),
        runtime: row.runtime.into(),
        ready_when: row.ready.into(),
        on_ready_timeout: row.on_ready_timeout.into(),
        on_host_start: row.on_host_start.into(),
        placement: placement.into(),
        nics: names.deployment_nics(&row.nics),
        firmware: row.firmware.into(),
        tpm: row.tpm,
        protect: protect.map(Into::into),
        protection,
        counts: tally.counts.clone(),
        ready: tally.ready,
        timing,
        fetched_bytes: bytes.map(|(fetched, _)| fetched).filter(|_| operator),
        local_bytes: bytes.map(|(_, local)| local).filter(|_| operator),
        version: row.version,
        ssh_keys: None,
        user_data_bytes: None,
    }
}

fn disk_view(plan: DiskPlan) -> DeploymentDisk {
    let DiskPlan { name, size_bytes, version: _, source, source_name } = plan;
    DeploymentDisk { name, size_bytes, source, source_name }
}
