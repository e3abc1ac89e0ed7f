//! Instances as their callers may see them: nodes, paths and generations are shown to operators only.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    InstanceId, NodeId, etag,
    instance::{Disk, Instance, InstanceState, Steps},
};

use super::super::{AppError, Caller};
use crate::{
    domain::names::host_name,
    store::{
        Tx, deployments,
        instances::{self, DiskRow, InstanceRow},
        nodes::{self, NodeRow},
    },
};

/// An instance as the API shows it to this caller.
pub(super) async fn one(tx: &mut Tx, caller: &Caller, row: InstanceRow) -> Result<Instance, AppError> {
    Ok(many(tx, caller, vec![row]).await?.pop().expect("one row makes one view"))
}

/// Many instances, in the order of their rows.
pub(super) async fn many(tx: &mut Tx, caller: &Caller, rows: Vec<InstanceRow>) -> Result<Vec<Instance>, AppError> {
    let ids: Vec<InstanceId> = rows.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let of: BTreeSet<_> = rows.iter().map(|row| row.deployment).collect();
    let names: BTreeMap<_, _> = deployments::load_many(tx, &of.into_iter().collect::<Vec<_>>())
        .await?
        .into_iter()
        .map(|deployment| (deployment.id, deployment.name))
        .collect();
    let mut places: BTreeMap<NodeId, NodeRow> = BTreeMap::new();
    for id in rows.iter().filter_map(|row| row.life.node).collect::<BTreeSet<_>>() {
        if let Some(node) = nodes::load(tx, id).await? {
            places.insert(id, node);
        }
    }
    let view = |row: InstanceRow| {
        let place = row.life.node.and_then(|id| places.get(&id));
        let name = names.get(&row.deployment).cloned().expect("a deployment is kept while it has instances");
        let disks = disks.remove(&row.id).unwrap_or_default();
        view(row, disks, name, place, caller.is_operator())
    };
    Ok(rows.into_iter().map(view).collect())
}

fn view(
    row: InstanceRow,
    disks: Vec<DiskRow>,
    deployment_name: String,
    place: Option<&NodeRow>,
    operator: bool,
) -> Instance {
    let InstanceRow { life, .. } = row;
    let steps = life.steps;
    let (last_reason, last_reason_at) = life.last.unzip();
    Instance {
        id: row.id,
        host_name: host_name(&row.name),
        name: row.name,
        project: row.project,
        labels: row.labels,
        state: life.state,
        reason: life.reason,
        detail: life.detail,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        deployment: row.deployment,
        deployment_name,
        number: row.number,
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        runtime: row.runtime.into(),
        ready_at: if life.state == InstanceState::Running { steps.ready_at } else { None },
        steps: Steps { placed_at: steps.placed_at, disk_at: steps.disk_at, started_at: steps.started_at },
        boots: life.boots,
        last_reason,
        last_reason_at,
        disks: disks.into_iter().map(|disk| disk_view(disk, operator)).collect(),
        nics: Vec::new(),
        node: place.map(|node| node.id).filter(|_| operator),
        node_name: place.map(|node| node.name.clone()).filter(|_| operator),
        zone: place.and_then(|node| node.zone.clone()),
        generation: Some(life.generation).filter(|_| operator),
    }
}

fn disk_view(disk: DiskRow, operator: bool) -> Disk {
    Disk {
        id: disk.id,
        name: disk.name,
        size_bytes: disk.size_bytes,
        path: disk.path.filter(|_| operator),
        version: disk.version,
        unsaved_bytes: disk.unsaved_bytes,
        saved_at: disk.saved_at,
    }
}
