//! Answers whose size does not grow with the cluster: who is asking, and counts by state with the problems first.

use std::collections::BTreeMap;

use muster_api::{
    condition::ConditionKind,
    node::NodeState,
    summary::{CapacityTotal, Me, PoolTotal, ProblemLine, Summary},
};
use storage_core::units::u64_from;

use super::{
    App, AppError, Caller, StoreError,
    sight::{POOL, Sight},
};
use crate::store::{
    Tx, cluster, deployments, disks, found, images, instances, networks, nics,
    nodes::{self, NodeRow},
    operations, promises, protections,
    protections::Protections,
    sessions, snapshots,
};

/// States that a person should look at, the worst first: things, state, kind of the problem, what to say.
const LOOK_AT: [(&str, &str, &str, &str); 17] = [
    ("nodes", "silent", "node_silent", "nodes have not been heard from: what runs there is unknown"),
    (
        "conditions",
        "disk_failed",
        "disk_failed",
        "nodes have a disk that failed: they take nothing, and other nodes copy what they have",
    ),
    ("conditions", "objects_lost", "objects_lost", "nodes have lost objects: `muster node show` tells what to do"),
    ("conditions", "disk_full", "disk_full", "nodes have a full disk or pool: they take no new objects"),
    ("conditions", "node_full", "node_full", "nodes have nearly no room on disk: they take no new instances"),
    (
        "conditions",
        "identity_copied",
        "identity_copied",
        "nodes run from a copied data folder: stop one of the two agents",
    ),
    ("conditions", "hypervisor_silent", "hypervisor_silent", "nodes get no answer from libvirt: they start no guests"),
    ("conditions", "clock_off", "clock_off", "nodes have a wrong clock, or certificates of others are not valid there"),
    (
        "found",
        "waiting",
        "instances_found",
        "instances run on nodes and are not known since a restore: `muster instance found` lists them",
    ),
    ("instances", "unknown", "instance_unknown", "instances are on silent nodes"),
    ("instances", "paused", "instance_paused", "instances are held: their disk is full or away"),
    ("instances", "failed", "instance_failed", "instances failed: their reason tells why"),
    ("snapshots", "failed", "snapshot_failed", "snapshots failed: nothing of them was published"),
    (
        "protections",
        "troubled",
        "not_protected",
        "deployments are not protected as they are to be: `muster deployment show` tells why",
    ),
    ("nodes", "fenced", "node_fenced", "nodes were declared dead: remove them to free their names"),
    ("operations", "overdue", "operation_overdue", "operations are past their deadline"),
    ("conditions", "no_kvm", "no_kvm", "nodes emulate their guests, because KVM cannot be used there"),
];

/// The conditions of nodes that are problems.
const CONDITIONS: [ConditionKind; 8] = [
    ConditionKind::DiskFailed,
    ConditionKind::ObjectsLost,
    ConditionKind::DiskFull,
    ConditionKind::NodeFull,
    ConditionKind::IdentityCopied,
    ConditionKind::HypervisorSilent,
    ConditionKind::ClockOff,
    ConditionKind::NoKvm,
];

/// Most running operations in a summary.
const RUNNING_MAX: i64 = 20;

/// How long a restored database is told, milliseconds.
const RESTORED_TOLD_MS: i64 = 7 * 24 * 3600 * 1000;

/// Counts for `/metrics`, over all projects.
pub struct Gauges {
    /// How many nodes are in each state.
    pub nodes: BTreeMap<String, u64>,
    /// Operations of all projects that are past their deadline.
    pub operations_overdue: u64,
    /// Instances that nodes hold and that are not known, and that nobody took back or forgot.
    pub found_instances: u64,
    /// Sessions that have not expired.
    pub sessions: u64,
    /// Disks that belong to no instance, and those that are being detached.
    pub disks: (u64, u64),
    /// Networks that are not deleted.
    pub networks: u64,
    /// Network cards of instances.
    pub nics: u64,
    /// Ports of nodes that lead to instances, and how many such ports there can be.
    pub published_ports: (u64, u64),
    /// How the protections of deployments are.
    pub protections: Protections,
    /// How long ago the deployment that is behind most was saved, or began to be protected, seconds; 0 if none is protected.
    pub unsaved_seconds: f64,
}

impl App {
    /// What the caller's token says about them, and which cluster answers.
    #[must_use]
    pub fn me(&self, caller: &Caller) -> Me {
        Me {
            name: caller.name.clone(),
            role: caller.role.into(),
            project: caller.bound_to.clone(),
            expires_at: Some(caller.expires_at),
            session: caller.session,
            cluster: self.cluster,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Counts by state, all from one instant of the database.
    pub async fn summary(&self, caller: &Caller) -> Result<Summary, AppError> {
        let project = caller.list_project();
        let mut summary = self.store.read("summary", async |tx| count(tx, project, caller.is_operator()).await).await?;
        if caller.is_operator() {
            let nodes = self.store.read("summary.nodes", async |tx| nodes::listed(tx).await).await?;
            summary.unexplained_bytes = self.unexplained_bytes(&nodes);
        }
        Ok(summary)
    }

    /// What nodes hold that nothing explains, as they told in their last heartbeats. `None` unless all that were not declared dead
    /// are there and know it.
    fn unexplained_bytes(&self, nodes: &[NodeRow]) -> Option<u64> {
        nodes.iter().filter(|node| node.fenced_at.is_none()).try_fold(0, |sum: u64, node| {
            let (_, beat) = self.heartbeats.last(node.id).filter(|_| node.state == NodeState::Ready)?;
            let told = beat.unexplained.filter(|_| beat.incarnation == self.incarnation())?;
            Some(sum.saturating_add(told.objects_bytes?).saturating_add(told.disks_bytes?))
        })
    }

    /// Counts for `/metrics`, from one instant of the database.
    pub async fn gauges(&self) -> Result<Gauges, StoreError> {
        self.store
            .read("metrics", async |tx| {
                let (nics, published) = nics::count_all(tx).await?;
                let ports = self.config.networks.published_ports.ports();
                let protections = protections::count(tx, None).await?;
                let behind_ms = protections.saved_at.map_or(0, |at| tx.now().ms_since(at).max(0));
                Ok(Gauges {
                    disks: disks::count(tx).await?,
                    networks: networks::by_state(tx, None).await?.into_values().sum(),
                    nics,
                    published_ports: (published, 2 * u64_from(ports.len())),
                    nodes: nodes::by_state(tx).await?,
                    operations_overdue: operations::overdue(tx, None).await?,
                    found_instances: found::count(tx).await?,
                    sessions: sessions::count(tx).await?,
                    protections,
                    unsaved_seconds: std::time::Duration::from_millis(behind_ms.unsigned_abs()).as_secs_f64(),
                })
            })
            .await
    }
}

async fn count(tx: &mut Tx, project: Option<&str>, operator: bool) -> Result<Summary, AppError> {
    let nodes = if operator { nodes::by_state(tx).await? } else { BTreeMap::new() };
    let conditions = if operator { nodes::with_conditions(tx, &CONDITIONS).await? } else { BTreeMap::new() };
    let found = if operator { found::count(tx).await? } else { 0 };
    let instances = instances::by_state(tx, project).await?;
    let snapshots = snapshots::by_state(tx, project).await?;
    let operations_overdue = operations::overdue(tx, project).await?;
    let mut problems = problems(&BTreeMap::from([
        ("nodes", &nodes),
        ("conditions", &conditions),
        ("found", &BTreeMap::from([("waiting".to_owned(), found)])),
        ("instances", &instances),
        ("snapshots", &snapshots),
        ("protections", &BTreeMap::from([("troubled".to_owned(), protections::count(tx, project).await?.troubled)])),
        ("operations", &BTreeMap::from([("overdue".to_owned(), operations_overdue)])),
    ]));
    if operator && let Some(line) = restored(tx).await? {
        problems.insert(0, line);
    }
    let totals = if operator { Some(totals(tx).await?) } else { None };
    let (pool, capacity) = totals.unzip();
    let mut running = operations::newest_running(tx, project, RUNNING_MAX).await?;
    running.retain(|operation| operator || operation.target.kind != POOL);
    // Only who has sentences to look through needs the names of all nodes.
    let sight = if running.is_empty() { Sight::All } else { Sight::of(tx, operator).await? };
    Ok(Summary {
        problems,
        deployments: deployments::by_state(tx, project).await?,
        instances,
        images: images::by_state(tx, project).await?,
        snapshots,
        nodes,
        operations: operations::by_state(tx, project).await?,
        operations_overdue,
        operations_running: running.into_iter().map(|operation| sight.operation(operation)).collect(),
        pool,
        capacity,
        unexplained_bytes: None,
        as_of: {
            let now = tx.as_of().await?;
            tx.token(now)
        },
    })
}

/// What all nodes have together, and what of it is used.
async fn totals(tx: &mut Tx) -> Result<(PoolTotal, CapacityTotal), StoreError> {
    let (mut pool, mut capacity) = (PoolTotal::default(), CapacityTotal::default());
    // Nodes say the numbers, and a node may lie. Its lie must not overflow the sum.
    let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
    for (offer, share) in nodes::offers(tx).await? {
        add(&mut capacity.cpus, u64::from(offer.cpus));
        add(&mut capacity.memory_bytes, offer.memory_bytes);
        add(&mut pool.limit_bytes, share.limit_bytes);
        add(&mut pool.used_bytes, share.used_bytes);
        add(&mut pool.free_bytes, share.free_bytes);
        add(&mut pool.cache_bytes, share.cache_bytes);
    }
    for promised in promises::by_node(tx).await?.values() {
        add(&mut capacity.cpus_used, promised.cpus);
        add(&mut capacity.memory_used_bytes, promised.memory_bytes);
    }
    Ok((pool, capacity))
}

/// Told for a while after the database went back to an older copy.
async fn restored(tx: &mut Tx) -> Result<Option<ProblemLine>, StoreError> {
    let at = cluster::restored_at(tx).await?.filter(|at| tx.now().ms_since(*at) < RESTORED_TOLD_MS);
    Ok(at.map(|at| ProblemLine {
        kind: "database_restored".to_owned(),
        count: 1,
        detail: format!(
            "the database is an older copy since {at}: newer versions that nodes hold are adopted, instances made after the \
             copy are listed by `muster instance found`"
        ),
    }))
}

fn problems(counts: &BTreeMap<&str, &BTreeMap<String, u64>>) -> Vec<ProblemLine> {
    let line = |(things, state, kind, what): (&str, &str, &str, &str)| {
        let count = *counts.get(things)?.get(state)?;
        (count > 0).then(|| ProblemLine { kind: kind.to_owned(), count, detail: format!("{count} {what}") })
    };
    LOOK_AT.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_that_exist_are_listed_worst_first() {
        let map = |pairs: &[(&str, u64)]| pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        let (nodes, instances) = (map(&[("ready", 3), ("silent", 1)]), map(&[("failed", 2), ("paused", 0)]));
        let lines = problems(&BTreeMap::from([("nodes", &nodes), ("instances", &instances)]));
        let kinds: Vec<_> = lines.iter().map(|l| (l.kind.as_str(), l.count)).collect();
        assert_eq!(kinds, [("node_silent", 1), ("instance_failed", 2)]);
    }

    #[test]
    fn every_condition_that_is_counted_is_told() {
        let counts = CONDITIONS.iter().map(|kind| (kind.to_string(), 2)).collect();
        let lines = problems(&BTreeMap::from([("conditions", &counts)]));
        assert_eq!(lines.len(), CONDITIONS.len());
        assert_eq!((lines[0].kind.as_str(), lines[0].count), ("disk_failed", 2));
    }
}
