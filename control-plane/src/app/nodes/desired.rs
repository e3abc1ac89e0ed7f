//! The desired state of a node: everything wanted of it, put together from rows at one instant.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_api::{
    DeploymentId, NodeId, VersionId,
    deployment::{OnHostStart, OnReadyTimeout, Probe, Ready, Runtime},
    firmware::Firmware,
    node::NodeState,
    node_protocol::{
        Assignment, CutDisk, CutNode, CutOrder, CutPhase, Desired, DiskAssignment, LeftDisk, Wanted, seed::Seed,
    },
    snapshot::{Consistency, SnapshotState},
};

use tokio::time::Instant;

use super::{
    super::{App, AppError},
    NodeCaller,
    fence::fenced,
    join::not_a_node,
    networks::assign_networks,
};
use crate::{
    domain::names::host_name,
    store::{
        StoreError, Tx, cluster,
        deployments::{self, DeploymentRow},
        disks,
        found::{self, FoundRow},
        instances::{self, InstanceRow},
        nodes, restores, seeds,
        snapshots::{self, MemberRow, SnapshotRow},
        versions,
    },
};

/// How often a poll looks without having been woken, because another controller's change wakes nobody here.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Which root pages a desired state has. Those of versions that commits of the node itself made grow with what was written to
/// the disks, and the state is sent, parsed and stored with each step of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootPages {
    /// Those of all versions.
    All,
    /// Those of all versions that the node did not make itself.
    OfOthers,
}

impl App {
    /// Everything wanted of a node.
    pub async fn desired(&self, node: &NodeCaller, pages: RootPages) -> Result<Desired, AppError> {
        self.store
            .read("nodes.desired", async |tx| {
                // It may have been declared dead or removed while it waited. No state at all is not the same as an empty one.
                match nodes::load(tx, node.id).await? {
                    Some(row) if row.fenced_at.is_some() => return Err(fenced(&row)),
                    Some(row) if row.state != NodeState::Deleted => {}
                    _ => return Err(not_a_node()),
                }
                // Not `App::incarnation`: that follows the commit of a new incarnation, and this transaction may see it before.
                let cluster = cluster::load(tx).await?.expect("a controller does not start without the cluster's row");
                let (_, membership) =
                    nodes::membership(tx).await?.ok_or_else(|| anyhow::anyhow!("there is no membership record"))?;
                let mut assignments = assignments(tx, node.id).await?;
                let networks = assign_networks(tx, node.id, &mut assignments).await?;
                let seeded: BTreeSet<DeploymentId> = assignments.iter().filter_map(|a| a.seed).collect();
                let named: BTreeSet<VersionId> =
                    assignments.iter().flat_map(|a| a.disks.iter().map(|disk| disk.version)).collect();
                let has_own = (pages == RootPages::OfOthers).then_some(node.id);
                Ok(Desired {
                    revision: nodes::desired_revision(tx, node.id).await?,
                    incarnation: cluster.incarnation,
                    membership,
                    cuts: cuts(tx, node.id).await?,
                    versions: versions::roots(tx, &named.into_iter().collect::<Vec<_>>(), has_own).await?,
                    seeds: seeds_of(tx, seeded).await?,
                    assignments,
                    networks,
                })
            })
            .await
    }

    /// Returns true when the node's desired state has another revision than `after`, false when time is up.
    pub async fn wait_desired(&self, node: NodeId, after: u64, wait: Duration) -> Result<bool, AppError> {
        let mut watch = self.store.wakes().watch_node(node);
        let end = Instant::now() + wait;
        loop {
            watch.mark_unchanged();
            let now =
                self.store.read("nodes.desired_revision", async |tx| nodes::desired_revision(tx, node).await).await?;
            // "Another", not "a higher one": after a restore the revision may be lower than one the node has seen.
            if now != after {
                return Ok(true);
            }
            let next = end.min(Instant::now() + LOOK_EVERY);
            tokio::select! {
                () = self.closing.cancelled() => return Ok(false),
                changed = tokio::time::timeout_at(next, watch.changed()) => {
                    if changed.is_err() && Instant::now() >= end {
                        return Ok(false);
                    }
                }
            }
        }
    }
}

async fn assignments(tx: &mut Tx, node: NodeId) -> Result<Vec<Assignment>, StoreError> {
    let rows = instances::on_node(tx, node).await?;
    let of: BTreeSet<DeploymentId> = rows.iter().map(|row| row.deployment).collect();
    let rows_of = deployments::load_many(tx, &of.into_iter().collect::<Vec<_>>()).await?;
    let of: BTreeMap<DeploymentId, DeploymentRow> = rows_of.into_iter().map(|row| (row.id, row)).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let mut left = disks::left_by(tx, &ids).await?;
    let closed = restores::closed_of(tx, &ids).await?;
    let assignment = |row: InstanceRow| {
        let of = &of[&row.deployment]; // It is kept while it has instances.
        Assignment {
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
            ready: of.ready.clone(),
            on_ready_timeout: of.on_ready_timeout,
            on_host_start: of.on_host_start,
            firmware: of.firmware,
            tpm: of.tpm,
            disks: disks
                .remove(&row.id)
                .unwrap_or_default()
                .into_iter()
                .map(|disk| DiskAssignment {
                    disk: disk.id,
                    name: disk.name,
                    size_bytes: disk.size_bytes,
                    version: disk.version,
                    in_guest: disk.leaving_since.is_none() && !closed.contains(&disk.id),
                    since_generation: disk.since_generation,
                })
                .collect(),
            left: left
                .remove(&row.id)
                .unwrap_or_default()
                .into_iter()
                .map(|left| LeftDisk { disk: left.disk, version: left.version })
                .collect(),
            nics: Vec::new(),
            seed: (row.runtime == Runtime::Libvirt && row.life.wanted == Wanted::Running).then_some(row.deployment),
        }
    };
    let mut all: Vec<Assignment> = rows.into_iter().map(assignment).collect();
    all.extend(found::on_node(tx, node).await?.into_values().filter(|row| row.forgotten).map(forgotten));
    Ok(all)
}

/// The order to delete a found instance that an operator forgot. It has the numbers that the node reported, so that the
/// node obeys it.
fn forgotten(row: FoundRow) -> Assignment {
    let told = row.report.found.and_then(|found| found.told);
    let name = told.map_or_else(|| row.id.to_string(), |told| told.name);
    Assignment {
        instance: row.id,
        host_name: host_name(&name),
        name,
        project: row.project,
        generation: row.report.generation,
        wanted: Wanted::Gone,
        boot: row.report.boot,
        stop_force: true,
        stop_timeout_s: 0,
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        runtime: row.runtime,
        ready: Ready { probe: Probe::Running, marker: None, timeout_s: None },
        on_ready_timeout: OnReadyTimeout::default(),
        on_host_start: OnHostStart::default(),
        firmware: Firmware::default(),
        tpm: false,
        // Its node removes all disks that it has.
        disks: Vec::new(),
        left: Vec::new(),
        nics: Vec::new(),
        seed: None,
    }
}

/// What the guests of these deployments are told, also of those that are told nothing but their names.
async fn seeds_of(tx: &mut Tx, of: BTreeSet<DeploymentId>) -> Result<BTreeMap<DeploymentId, Seed>, StoreError> {
    let rows = seeds::load_many(tx, &of.iter().collect::<Vec<_>>()).await?;
    let mut all: BTreeMap<DeploymentId, Seed> = of.into_iter().map(|id| (id, Seed::default())).collect();
    all.extend(rows.into_iter().map(|row| (row.deployment, row.into())));
    Ok(all)
}

async fn cuts(tx: &mut Tx, node: NodeId) -> Result<Vec<CutOrder>, StoreError> {
    let mut orders = Vec::new();
    for row in snapshots::under_way_on(tx, node).await? {
        // Between two attempts there is no order, so that members which flipped in the last one abandon it.
        if row.refused.is_some() {
            continue;
        }
        let members = snapshots::members(tx, row.id).await?;
        match order(&row, node, &members) {
            Ok(order) => orders.push(order),
            // The node goes on with everything else. The snapshot ends at its deadline.
            Err(error) => tracing::error!(snapshot.id = %row.id, %error, "a snapshot cannot be ordered"),
        }
    }
    Ok(orders)
}

fn order(row: &SnapshotRow, node: NodeId, members: &[MemberRow]) -> Result<CutOrder, StoreError> {
    let phase = if row.state == SnapshotState::Cutting { CutPhase::Cut } else { CutPhase::Save };
    let coordinates = phase == CutPhase::Cut && row.coordinator == Some(node);
    let missing = |column: &str| StoreError::BadRow { column: format!("snapshots.{column}"), why: "null".to_owned() };
    Ok(CutOrder {
        snapshot: row.id,
        attempt: u32::try_from(row.attempt).expect("a snapshot has few attempts"),
        phase,
        max_pause_ms: row.max_pause_ms,
        freeze: row.consistency == Consistency::Filesystem,
        background: row.background,
        scheduled: row.scheduled,
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
        upload: row.upload.ok_or_else(|| missing("upload"))?,
        round: row.round.ok_or_else(|| missing("round"))?,
    })
}

fn by_node(members: &[MemberRow]) -> Vec<CutNode> {
    let mut nodes: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
    for member in members {
        nodes.entry(member.node).or_default().push(member.disk);
    }
    nodes.into_iter().map(|(node, disks)| CutNode { node, disks }).collect()
}
