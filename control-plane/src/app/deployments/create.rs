//! A deployment is started, or only asked where it would go.

use std::time::Duration;

use muster_api::{
    DeploymentId, Ref, VersionId,
    deployment::{CreateDeployment, DeploymentState, Placement, Runtime, Timing},
    node::NodeState,
    node_protocol::{NVRAM, NVRAM_BYTES, seed::Seed},
    units::exact_size,
};
use storage_core::units::u64_from;

use super::{
    super::{Answer, App, AppError, Caller, Once, disk_starts::disk_source, nics, protection},
    event,
    members::NewMembers,
    placing::{Placing, can_have_networks, node_views},
    source::{Start, StartVersions, Variables},
};
use crate::{
    config::Networks,
    domain::{
        cards::{self, CardPlan},
        disk_plan::{DISKS_MAX, DiskPlan},
        names::made_up,
        order::{MEMORY_BYTES, NotAnOrder, Order},
    },
    scheduler::NodeView,
    store::{
        Tx,
        deployments::{self, DeploymentRow},
        events, nodes,
        operations::{self, NewOperation},
        seeds,
    },
};

impl App {
    /// Starts a deployment. With `dry_run` nothing is written and the answer tells where the members would go.
    pub async fn create_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: CreateDeployment,
    ) -> Result<Answer, AppError> {
        let dry = wanted.dry_run;
        let order = read_order(wanted, self.config.instances.ready_timeout)?;
        if order.placement.nodes.is_some() {
            caller.require_operator()?;
        }
        if dry {
            let dry_run = self
                .store
                .read("deployments.dry_run", async |tx| {
                    let Prepared { row, nodes, .. } = prepare(tx, caller, &self.config.networks, &order).await?;
                    nics::pick(tx, &self.config.networks, &row.nics, members_of(row.count)).await?;
                    Ok::<_, AppError>(Placing::among(nodes, &row, row.count).dry_run(caller, &row))
                })
                .await?;
            return Answer::ok(&dry_run);
        }
        self.once(once, "deployments.create", async |tx| {
            let settings = &self.config.networks;
            let Prepared { mut row, start, blank, nodes } = prepare(tx, caller, settings, &order).await?;
            if let Some(existing) = deployments::by_name(tx, &row.project, &row.name).await? {
                let existing = existing.id.to_string();
                return Err(AppError::NameTaken { kind: "deployment", name: row.name, existing });
            }
            let placing = Placing::among(nodes, &row, row.count);
            if placing.fit() + placing.solution.waiting < row.min_count {
                return Err(placing.no_capacity(caller, row.min_count, row.count));
            }
            let count = members_of(row.count);
            let cards = nics::pick(tx, settings, &row.nics, count).await?;
            row.seq = tx.next_seq().await?;
            row.next_number = row.count;
            deployments::insert(tx, &row).await?;
            let forked = match start.forked {
                Some(forked) => seeds::load(tx, forked).await?,
                None => Seed::default(),
            };
            seeds::insert(tx, row.id, order.seed(forked)).await?;
            if let Some(protect) = &order.protect {
                protection::begin(tx, &row, protect).await?;
            }
            events::append(tx, event(&row, &caller.name)).await?;
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.create",
                target: row.target(),
                phase: "starting",
                progress: operations::to_do(row.count, "instances"),
                deadline: row.deadline_after(tx.now()),
            };
            // No operation can run on it yet.
            let operation = operations::create(tx, &caller.origin(), new).await?;
            let members = NewMembers {
                deployment: &row,
                first: 0,
                disks: start.disks(count, order.disk_bytes, &row.disks),
                blank: blank.map(|version| (version, self.salt_of(&row.project))),
                cards,
                placing: &placing,
                operation: operation.id,
            };
            members.insert(tx, &caller.name).await?;
            Answer::accepted(&operation)
        })
        .await
    }
}

fn read_order(wanted: CreateDeployment, ready_timeout: Duration) -> Result<Order, AppError> {
    Order::read(wanted, ready_timeout).map_err(|error| match error {
        NotAnOrder::Reserved(fields) => AppError::NotBuiltYet(format!("the field {}", fields.join(", "))),
        NotAnOrder::Fields(fields) => AppError::Invalid(fields),
    })
}

/// What an order makes.
struct Prepared {
    /// Its row.
    row: DeploymentRow,
    /// What its disks start as.
    start: Start,
    /// The version that its blank disks start from, which is to be made; `None` if it has none.
    blank: Option<VersionId>,
    /// The nodes among which members get places.
    nodes: Vec<NodeView>,
}

/// The row that an order makes, and what its disks start as. Of the deployment nothing is written.
async fn prepare(tx: &mut Tx, caller: &Caller, settings: &Networks, order: &Order) -> Result<Prepared, AppError> {
    let project = caller.one_project()?.to_owned();
    let mut start = Start::resolve(tx, caller, &order.source).await?;
    let firmware = start.firmware(order)?;
    let variables = start.keep_variables_of(firmware);
    let (memory_bytes, disk_bytes) = (memory_bytes(order, &start)?, disk_bytes(order, &start)?);
    let (count, min_count) = counts(order, &start)?;
    let (mut disks, mut blank) = plan_disks(tx, caller, order, &start).await?;
    if firmware.has_nvram() && variables == Variables::Fresh {
        let version = Some(*blank.get_or_insert_with(VersionId::generate));
        let (name, size_bytes) = (NVRAM.to_owned(), NVRAM_BYTES);
        disks.push(DiskPlan { name, size_bytes, version, source: None, source_name: None });
    }
    let id = DeploymentId::generate();
    let now = tx.now();
    let mut row = DeploymentRow {
        id,
        project,
        name: order.name.as_ref().map_or_else(|| made_up("d", id.uuid()), ToString::to_string),
        labels: order.labels.clone(),
        state: DeploymentState::Deploying,
        all_stopped: false,
        reason: None,
        source: start.source.clone(),
        source_name: start.source_name.clone(),
        version: start.version(),
        count,
        min_count,
        next_number: 0,
        cpus: order.cpus,
        memory_bytes,
        disk_bytes,
        disks,
        runtime: order.runtime,
        ready: order.ready.clone(),
        placement: resolve_nodes(tx, &order.placement).await?,
        nics: Vec::new(),
        firmware,
        tpm: false,
        deadline_s: order.deadline_s,
        on_ready_timeout: order.on_ready_timeout,
        on_host_start: order.on_host_start,
        timing: Timing::default(),
        created_at: now,
        updated_at: now,
        revision: 1,
        members_revision: 0,
        seq: 0,
    };
    let nodes = node_views(tx, &row).await?;
    let forked = match start.forked {
        Some(forked) if row.runtime == Runtime::Libvirt => deployments::load(tx, forked).await?,
        _ => None,
    };
    row.tpm = order.tpm.unwrap_or_else(|| forked.as_ref().is_some_and(|forked| forked.tpm));
    let has_networks = can_have_networks(&nodes, &row);
    row.nics = plan_nics(tx, caller, settings, order, forked.as_ref(), &row, has_networks).await?;
    Ok(Prepared { row, start, blank, nodes })
}

/// The disks that members get beside the boot disk: those of the snapshot, and those of the request. All blank ones start
/// from the version whose new id is the second value.
async fn plan_disks(
    tx: &mut Tx,
    caller: &Caller,
    order: &Order,
    start: &Start,
) -> Result<(Vec<DiskPlan>, Option<VersionId>), AppError> {
    let (mut plans, mut blank) = (start.disk_plans(), None);
    for (n, wanted) in order.disks.iter().enumerate() {
        let at = |field: &str| format!("/disks/{n}/{field}");
        if plans.iter().any(|plan| plan.name == wanted.name) {
            let detail = format!("the snapshot has a disk '{}', which the fork gets: take another name", wanted.name);
            return Err(AppError::invalid(at("name"), "invalid", detail));
        }
        let mut plan = DiskPlan {
            name: wanted.name.clone(),
            size_bytes: wanted.size_bytes,
            version: None,
            source: None,
            source_name: None,
        };
        match &wanted.source {
            None => plan.version = Some(*blank.get_or_insert_with(VersionId::generate)),
            Some(source) => {
                let (source, version) =
                    disk_source(tx, caller, source, &format!("/disks/{n}"), wanted.size_bytes).await?;
                plan.version = Some(version.version.id);
                plan.source_name = Some(version.version.image_name.unwrap_or(version.version.name));
                plan.source = Some(source);
            }
        }
        plans.push(plan);
    }
    let most = start.disks_max() + order.disks.len();
    if most > DISKS_MAX {
        let detail = format!("at most {DISKS_MAX} with those of the snapshot, got {most}");
        return Err(AppError::invalid("/disks", "out_of_range", detail));
    }
    Ok((plans, blank))
}

/// The cards that members get: those of the request, else those of the source of a fork, else one in the default network
/// if there are nodes that can have networks.
async fn plan_nics(
    tx: &mut Tx,
    caller: &Caller,
    settings: &Networks,
    order: &Order,
    forked: Option<&DeploymentRow>,
    row: &DeploymentRow,
    has_networks: bool,
) -> Result<Vec<CardPlan>, AppError> {
    if let Some(wanted) = &order.nics {
        let plans = nics::resolve(tx, &caller.name, settings, &row.project, wanted).await?;
        let wrong = cards::check_count(&plans, row.count);
        return if wrong.is_empty() { Ok(plans) } else { Err(AppError::Invalid(wrong)) };
    }
    if row.runtime == Runtime::None {
        return Ok(Vec::new());
    }
    match forked {
        Some(forked) => nics::fork(tx, &caller.name, &row.project, &forked.nics).await,
        None if !has_networks => Ok(Vec::new()),
        None => nics::default_plan(tx, &caller.name, settings, &row.project).await,
    }
}

fn members_of(count: u64) -> usize {
    usize::try_from(count).expect("a deployment has at most 10,000 members")
}

/// The memory of a member: what the order says, else what the image needs.
fn memory_bytes(order: &Order, start: &Start) -> Result<u64, AppError> {
    let needed = start.known.min_memory_bytes.unwrap_or(0);
    match order.memory_bytes {
        Some(wanted) if wanted < needed && order.runtime == Runtime::Libvirt => {
            let (least, wanted) = (exact_size(needed), exact_size(wanted));
            Err(AppError::invalid(
                "/memory_bytes",
                "out_of_range",
                format!("at least {least}, what the image needs; got {wanted}"),
            ))
        }
        wanted => Ok(wanted.unwrap_or(needed.max(MEMORY_BYTES))),
    }
}

/// The size of the disks: what the order says, else that of the source or what the image needs.
fn disk_bytes(order: &Order, start: &Start) -> Result<u64, AppError> {
    let (needed, source_bytes) = (start.needed_bytes(), start.size_bytes());
    let (least, whose) =
        if needed > source_bytes { (needed, "what the image needs") } else { (source_bytes, "what the source has") };
    match order.disk_bytes {
        Some(wanted) if wanted < least => {
            let (least, wanted) = (exact_size(least), exact_size(wanted));
            Err(AppError::invalid("/disk_bytes", "out_of_range", format!("at least {least}, {whose}; got {wanted}")))
        }
        wanted => Ok(wanted.unwrap_or(least)),
    }
}

/// `count` and `min_count`. A fork has as many members as its snapshot.
fn counts(order: &Order, start: &Start) -> Result<(u64, u64), AppError> {
    let count = match &start.versions {
        StartVersions::One(_) => order.count.expect("an order without a snapshot has a count"),
        StartVersions::Each(members) => {
            let members = u64_from(members.len());
            if order.count.is_some_and(|count| count != members) {
                let detail = format!("the snapshot has {members} members: leave the count out, or say {members}");
                return Err(AppError::invalid("/count", "out_of_range", detail));
            }
            members
        }
    };
    let min_count = order.min_count.unwrap_or(count);
    if min_count > count {
        return Err(AppError::invalid("/min_count", "out_of_range", format!("1 to {count}, got {min_count}")));
    }
    Ok((count, min_count))
}

/// The placement with the ids of the nodes that it names.
async fn resolve_nodes(tx: &mut Tx, placement: &Placement) -> Result<Placement, AppError> {
    let mut resolved = placement.clone();
    for (index, node) in resolved.nodes.iter_mut().flatten().enumerate() {
        let found = match &*node {
            Ref::Id(id) => nodes::load(tx, *id).await?.filter(|row| row.state != NodeState::Deleted),
            Ref::Name(name) => nodes::by_name(tx, name).await?,
        };
        let Some(found) = found else {
            let pointer = format!("/placement/nodes/{index}");
            return Err(AppError::MissingReference { kind: "node", reference: node.to_string(), pointer });
        };
        *node = Ref::Id(found.id);
    }
    Ok(resolved)
}
