//! Everything wanted of a node, put together from rows at one instant.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, NodeId, VersionId,
    deployment::Ready,
    node_protocol::{Assignment, CutDisk, CutNode, CutOrder, CutPhase, Desired, DiskAssignment},
    snapshot::SnapshotState,
};

use crate::{
    domain::deployment::host_name,
    store::{
        StoreError, Tx, deployments, instances,
        snapshots::{self, MemberRow, SnapshotRow},
        versions,
    },
};

/// Fills in what is wanted of the node: assignments, cuts, and the versions they name.
pub(crate) async fn fill(tx: &mut Tx, node: NodeId, desired: &mut Desired) -> Result<(), StoreError> {
    desired.assignments = assignments(tx, node).await?;
    desired.cuts = cuts(tx, node).await?;
    let named: BTreeSet<VersionId> =
        desired.assignments.iter().flat_map(|a| a.disks.iter().map(|disk| disk.version)).collect();
    desired.versions = versions::roots(tx, &named.into_iter().collect::<Vec<_>>()).await?;
    Ok(())
}

async fn assignments(tx: &mut Tx, node: NodeId) -> Result<Vec<Assignment>, StoreError> {
    let rows = instances::on_node(tx, node).await?;
    let of: BTreeSet<DeploymentId> = rows.iter().map(|row| row.deployment).collect();
    let ready: BTreeMap<DeploymentId, Ready> = deployments::load_many(tx, &of.into_iter().collect::<Vec<_>>())
        .await?
        .into_iter()
        .map(|row| (row.id, row.ready))
        .collect();
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    Ok(rows
        .into_iter()
        .map(|row| Assignment {
            instance: row.id,
            host_name: host_name(&row.name),
            name: row.name,
            project: row.project,
            generation: row.life.generation,
            wanted: row.life.wanted,
            boot: row.life.boot,
            stop_force: row.life.stop.force,
            stop_timeout_s: row.life.stop.timeout_s,
            cpus: row.cpus,
            memory_bytes: row.memory_bytes,
            runtime: row.runtime,
            ready: ready.get(&row.deployment).cloned().unwrap_or(Ready {
                probe: muster_api::deployment::Probe::Running,
                marker: None,
                timeout_s: None,
            }),
            disks: disks
                .remove(&row.id)
                .unwrap_or_default()
                .into_iter()
                .map(|disk| DiskAssignment { disk: disk.id, size_bytes: disk.size_bytes, version: disk.version })
                .collect(),
        })
        .collect())
}

async fn cuts(tx: &mut Tx, node: NodeId) -> Result<Vec<CutOrder>, StoreError> {
    let mut orders = Vec::new();
    for row in snapshots::under_way_on(tx, node).await? {
        // Between two tries there is no order: whoever flipped for the last one abandons it.
        if row.refused.is_some() {
            continue;
        }
        let members = snapshots::members(tx, row.id).await?;
        orders.extend(order(&row, node, &members));
    }
    Ok(orders)
}

fn order(row: &SnapshotRow, node: NodeId, members: &[MemberRow]) -> Option<CutOrder> {
    let phase = if row.state == SnapshotState::Cutting { CutPhase::Cut } else { CutPhase::Save };
    let coordinates = phase == CutPhase::Cut && row.coordinator == Some(node);
    Some(CutOrder {
        snapshot: row.id,
        attempt: u32::try_from(row.attempt).ok()?,
        phase,
        max_pause_ms: row.max_pause_ms,
        coordinate: coordinates.then(|| by_node(members)),
        disks: members
            .iter()
            .filter(|member| member.node == node)
            .map(|member| CutDisk {
                instance: member.instance,
                disk: member.disk,
                generation: member.generation,
                commit: member.commit,
            })
            .collect(),
        upload: row.upload?,
        round: row.round?,
    })
}

fn by_node(members: &[MemberRow]) -> Vec<CutNode> {
    let mut nodes: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
    for member in members {
        nodes.entry(member.node).or_default().push(member.disk);
    }
    nodes.into_iter().map(|(node, disks)| CutNode { node, disks }).collect()
}
