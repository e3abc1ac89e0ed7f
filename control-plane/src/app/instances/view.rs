//! Instances as their callers may see them: nodes, paths and generations are shown to operators only.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    InstanceId, NodeId,
    condition::{Condition, ConditionKind},
    etag,
    instance::{Instance, InstanceDisk, InstanceState, Steps},
};

use super::super::{App, AppError, Caller, nics::Names, sight::Sight};
use crate::{
    domain::{cards::CardPlan, names::host_name},
    store::{
        Tx, deployments, guests,
        instances::{self, DiskRow, InstanceRow},
        nics,
        nodes::{self, NodeRow},
    },
};

/// An instance as the API shows it to this caller.
pub(crate) async fn one(app: &App, tx: &mut Tx, caller: &Caller, row: InstanceRow) -> Result<Instance, AppError> {
    let guest = guests::load_many(tx, &[row.id]).await?.remove(&row.id);
    let shown = many(app, tx, caller, vec![row]).await?.pop().expect("one row makes one view");
    Ok(Instance { guest, ..shown })
}

/// Many instances, in the order of their rows.
pub(super) async fn many(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    rows: Vec<InstanceRow>,
) -> Result<Vec<Instance>, AppError> {
    let ids: Vec<InstanceId> = rows.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let of: BTreeSet<_> = rows.iter().map(|row| row.deployment).collect();
    let told = deployments::told(tx, &of.into_iter().collect::<Vec<_>>()).await?;
    let names = Names::of(tx, told.values().flat_map(|(_, plans)| plans)).await?;
    // Those without cards and published ports are not asked for: each statement costs a tenth of a page.
    let with = |has: fn(&CardPlan) -> bool| -> Vec<InstanceId> {
        let plans = |row: &&InstanceRow| told.get(&row.deployment).is_some_and(|(_, plans)| plans.iter().any(has));
        rows.iter().filter(plans).map(|row| row.id).collect()
    };
    let mut cards = nics::of_instances(tx, &with(|_| true)).await?;
    let mut published = nics::published_of(tx, &with(|plan| !plan.ports.is_empty())).await?;
    let (mut places, mut copied) = (BTreeMap::<NodeId, NodeRow>::new(), BTreeSet::new());
    let on: BTreeSet<NodeId> = rows.iter().filter_map(|row| row.life.node).collect();
    for node in nodes::load_many(tx, &on.into_iter().collect::<Vec<_>>()).await? {
        copied.extend(app.refused_run(node.id).map(|_| node.id));
        places.insert(node.id, node);
    }
    // Most instances have no sentence to look through, and then nobody needs the names of all nodes.
    let has_text = rows.iter().any(|row| row.life.detail.is_some() || !row.life.conditions.is_empty());
    let sight = if has_text { Sight::of(tx, caller.is_operator()).await? } else { Sight::All };
    let view = |mut row: InstanceRow| {
        if row.life.node.is_some_and(|node| copied.contains(&node)) {
            row.life.conditions.push(identity_copied());
        }
        row.life.detail = row.life.detail.map(|detail| sight.text(detail));
        row.life.conditions = sight.conditions(row.life.conditions);
        let place = row.life.node.and_then(|id| places.get(&id));
        let (name, plans) = told.get(&row.deployment).expect("a deployment is kept while it has instances");
        let (cards, ports) = (cards.remove(&row.id).unwrap_or_default(), published.remove(&row.id).unwrap_or_default());
        let nics = names.instance_nics(plans, &cards, &ports, place.and_then(NodeRow::host));
        let disks = disks.remove(&row.id).unwrap_or_default();
        Instance { nics, ..view(row, disks, name.clone(), place, caller.is_operator()) }
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
        steps: Steps {
            requested_at: steps.requested_at,
            placed_at: steps.placed_at,
            disk_at: steps.disk_at,
            started_at: steps.started_at,
        },
        boots: life.boots,
        last_reason,
        last_reason_at,
        unsaved_bytes: disks.iter().map(|disk| disk.unsaved_bytes).sum(),
        // Times that may be absent are compared as if absent were the earliest.
        saved_at: disks.iter().map(|disk| disk.saved_at).min().flatten(),
        disks: disks.into_iter().map(|disk| disk_view(disk, operator)).collect(),
        conditions: life.conditions,
        nics: Vec::new(),
        guest: None,
        node: place.map(|node| node.id).filter(|_| operator),
        node_name: place.map(|node| node.name.clone()).filter(|_| operator),
        zone: place.and_then(|node| node.zone.clone()),
        generation: Some(life.generation).filter(|_| operator),
    }
}

/// How an instance tells that the identity of its node was copied. Which node that is, and where the copy is, are for
/// operators: `muster node show`.
fn identity_copied() -> Condition {
    let detail =
        "a copy of the data of its host was started elsewhere and refused; this instance is the one that counts";
    Condition { kind: ConditionKind::IdentityCopied, detail: detail.to_owned() }
}

fn disk_view(disk: DiskRow, operator: bool) -> InstanceDisk {
    InstanceDisk {
        id: disk.id,
        state: disk.state(),
        name: disk.name,
        size_bytes: disk.size_bytes,
        path: disk.path.filter(|_| operator),
        version: disk.version,
        unsaved_bytes: disk.unsaved_bytes,
        saved_at: disk.saved_at,
    }
}
