//! Deployments: N instances as one job. Placing, rows, operation, key and events are one transaction, also for 10,000.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DeploymentId, DiskId, ErrorCode, ImageId, InstanceId, NodeId, Page, Problem, Ref, SnapshotId, VersionId,
    deployment::{
        CreateDeployment, Deployment, DeploymentSource, DeploymentState, DryRun, DryRunNode, PatchDeployment,
        Placement, Runtime, Scale, Timing,
    },
    image::VersionOrNumber,
    instance::{self as api_instance, InstanceState},
    node::NodeState,
    operation::{Progress, Target},
    snapshot::SnapshotState,
    version::Freed,
};
use serde_json::json;

use super::{
    Answer, App, AppError, Caller, Once, at, begin_operation, check_if_match, etag, images as app_images,
    instances::{self as app_instances, Changed, Verb},
    snapshots as app_snapshots, versions as app_versions,
};
use crate::{
    domain::{
        deployment::{Tally, member_name, timing},
        instance::{Edge, Life},
        order::{self, NotAnOrder, Order, rounded},
    },
    http::ListQuery,
    reconcile::Loop,
    scheduler::{Demand, NodeView, Problem as PlaceProblem, Solution, place},
    store::{
        Filter, Tx, column,
        deployments::{self, DeploymentRow},
        events::{self, NewEvent},
        instances::{self, DiskRow, InstanceRow},
        nodes, operations,
        operations::{NewOperation, Outcome},
        versions::{self, VersionRow},
    },
};

/// Nodes named in one answer.
const NODES_MAX: usize = 20;
/// How long deleting may take before its operation says so.
const DELETE_MS: i64 = 600_000;

/// What the disks of the members start as.
struct Start {
    /// As the API shows it: references are ids.
    source: DeploymentSource,
    /// Name of the image or snapshot.
    source_name: Option<String>,
    /// The version all members start from; else one each.
    version: Option<VersionRow>,
    /// One each.
    versions: Vec<VersionRow>,
}

/// The deployment a path or body names, if the caller may know of it and it is not deleted.
pub(crate) async fn find(tx: &mut Tx, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<DeploymentRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => deployments::load(tx, *id).await?,
        Ref::Name(name) => deployments::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.state != DeploymentState::Deleted)
        .ok_or_else(|| AppError::not_found("deployment", wanted))
}

/// The same, or if there is none, by name the newest that is going and had the name: for DELETE, which may be repeated.
pub(crate) async fn find_or_going(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<DeploymentId>,
) -> Result<DeploymentRow, AppError> {
    match (find(tx, caller, wanted).await, wanted) {
        (Err(missing @ AppError::NotFound { .. }), Ref::Name(name)) => {
            deployments::going_by_name(tx, caller.one_project()?, name).await?.ok_or(missing)
        }
        (found, _) => found,
    }
}

/// The ids of the deployments a filter names; a name nobody has filters everything out.
async fn ids_of(tx: &mut Tx, caller: &Caller, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let found = match (reference.parse::<DeploymentId>(), caller.list_project()) {
            (Ok(id), _) => Some(id.to_string()),
            (Err(_), Some(project)) => {
                deployments::by_name(tx, project, reference).await?.map(|row| row.id.to_string())
            }
            (Err(_), None) => {
                return Err(AppError::BadRequest(format!("'{reference}': with ?project=* name deployments by id")));
            }
        };
        ids.push(found.unwrap_or_else(|| reference.clone()));
    }
    Ok(ids)
}

/// Which rows a list wants; `node=` is left to the list that has nodes.
pub(crate) async fn rows_wanted(tx: &mut Tx, caller: &Caller, list: &ListQuery) -> Result<Filter, AppError> {
    Ok(Filter {
        project: caller.list_project().map(str::to_owned),
        states: list.filter.states.clone(),
        labels: list.filter.labels.clone(),
        deployments: ids_of(tx, caller, &list.filter.deployments).await?,
        nodes: Vec::new(),
        deleted: list.deleted,
    })
}

/// The deployment as an operation's or event's target.
pub(crate) fn target(row: &DeploymentRow) -> Target {
    Target { kind: "deployment".to_owned(), id: row.id.to_string(), name: row.name.clone() }
}

/// The event of a deployment's state.
pub(crate) fn event(row: &DeploymentRow, actor: &str) -> Result<NewEvent, AppError> {
    let data = json!({ "state": column::word_text(row.state)?, "count": row.count });
    Ok(NewEvent {
        actor: actor.to_owned(),
        data,
        labels: row.labels.clone(),
        deployment: Some(row.id),
        ..NewEvent::new("deployment.state", row.project.clone(), target(row))
    })
}

/// All nodes as the scheduler sees them.
async fn node_views(tx: &mut Tx, deployment: Option<DeploymentId>) -> Result<Vec<NodeView>, AppError> {
    let promised = instances::promised(tx).await?;
    let members = match deployment {
        Some(id) => instances::members_by_node(tx, id).await?,
        None => BTreeMap::new(),
    };
    let nodes = nodes::listed(tx).await?;
    Ok(nodes
        .into_iter()
        .map(|node| {
            let used = promised.get(&node.id).copied().unwrap_or_default();
            NodeView {
                id: node.id,
                name: node.name,
                zone: node.zone,
                heard: node.state == NodeState::Ready,
                schedulable: node.schedulable,
                disk_full: node.conditions.iter().any(|condition| condition.kind == "disk_full"),
                runs_libvirt: node.runtimes.contains(&Runtime::Libvirt),
                free_cpus: u64::from(node.cpus).saturating_sub(used.cpus),
                free_memory_bytes: node.memory_bytes.saturating_sub(used.memory_bytes),
                instances: used.instances,
                members: members.get(&node.id).copied().unwrap_or(0),
            }
        })
        .collect())
}

fn demand(row: &DeploymentRow) -> Demand {
    let nodes = row.placement.nodes.as_ref().map(|nodes| {
        nodes.iter().filter_map(|node| if let Ref::Id(id) = node { Some(*id) } else { None }).collect::<BTreeSet<_>>()
    });
    Demand {
        cpus: u64::from(row.cpus),
        memory_bytes: row.memory_bytes,
        runtime: row.runtime,
        policy: row.placement.policy,
        zones: row.placement.zones.as_ref().map(|zones| zones.iter().cloned().collect()),
        nodes,
        max_per_node: row.placement.max_per_node.map(u64::from),
    }
}

/// Looks for places for `count` more members.
pub(crate) async fn look(tx: &mut Tx, row: &DeploymentRow, count: u64) -> Result<(Solution, Vec<NodeView>), AppError> {
    let nodes = node_views(tx, Some(row.id)).await?;
    let problem = PlaceProblem { nodes, demand: demand(row), count };
    let solution = place(&problem);
    Ok((solution, problem.nodes))
}

/// Why members do not fit, in a sentence.
pub(crate) fn why(solution: &Solution) -> String {
    if solution.refusals.is_empty() {
        return "there is no node".to_owned();
    }
    let counts = solution.reason_counts();
    let parts: Vec<_> = counts.iter().map(|r| format!("{} ({})", r.reason, r.count)).collect();
    format!("nodes refuse: {}", parts.join(", "))
}

fn no_capacity(caller: &Caller, solution: &Solution, nodes: &[NodeView], wanted: u64) -> Problem {
    let fit = solution.places.len();
    let problem = Problem::new(ErrorCode::NoCapacity, format!("{fit} of {wanted} members fit; {}", why(solution)))
        .with("reasons", json!(solution.reason_counts()));
    if !caller.is_operator() {
        return problem;
    }
    let names: BTreeMap<NodeId, &str> = nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let refusals: Vec<_> = solution
        .refusals
        .iter()
        .take(NODES_MAX)
        .map(|(id, reason)| json!({ "node": id, "node_name": names.get(id), "reason": reason.as_str() }))
        .collect();
    problem.with("nodes", json!(refusals))
}

fn dry_run(caller: &Caller, solution: &Solution, nodes: &[NodeView]) -> DryRun {
    let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
    for id in &solution.places {
        *counts.entry(*id).or_default() += 1;
    }
    let names: BTreeMap<NodeId, &str> = nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let mut shown: Vec<DryRunNode> = counts
        .into_iter()
        .map(|(node, count)| DryRunNode {
            node,
            node_name: names.get(&node).copied().unwrap_or_default().to_owned(),
            count,
        })
        .collect();
    shown.sort_by_key(|node| (std::cmp::Reverse(node.count), node.node));
    shown.truncate(if caller.is_operator() { NODES_MAX } else { 0 });
    DryRun {
        placed: u64::try_from(solution.places.len()).unwrap_or(u64::MAX),
        unplaced: solution.unplaced,
        nodes: shown,
        reasons: solution.reason_counts(),
    }
}

fn read_order(wanted: CreateDeployment) -> Result<Order, AppError> {
    Order::read(wanted).map_err(|error| match error {
        NotAnOrder::Reserved(fields) => AppError::NotBuiltYet(format!("the field {}", fields.join(", "))),
        NotAnOrder::Fields(fields) => AppError::Invalid(fields),
    })
}

impl App {
    /// Starts a deployment; with `dry_run` only tells where it would go.
    pub async fn create_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: CreateDeployment,
    ) -> Result<Answer, AppError> {
        let dry = wanted.dry_run;
        let order = read_order(wanted)?;
        if order.placement.nodes.is_some() {
            caller.require_operator()?;
        }
        if dry {
            let answer = self
                .store
                .read("deployments.dry_run", async |tx| {
                    let (row, _) = prepare(tx, caller, &order).await?;
                    let (solution, nodes) = look(tx, &row, row.count).await?;
                    Ok::<_, AppError>(dry_run(caller, &solution, &nodes))
                })
                .await?;
            return Answer::ok(&answer);
        }
        self.once(once, "deployments.create", async |tx| {
            let (mut row, start) = prepare(tx, caller, &order).await?;
            if let Some(existing) = deployments::by_name(tx, &row.project, &row.name).await? {
                return Err(AppError::NameTaken {
                    kind: "deployment",
                    name: row.name,
                    existing: existing.id.to_string(),
                });
            }
            let (solution, nodes) = look(tx, &row, row.count).await?;
            let fit = u64::try_from(solution.places.len()).unwrap_or(u64::MAX);
            if fit < row.min_count {
                return Err(no_capacity(caller, &solution, &nodes, row.count).into());
            }
            row.seq = tx.next_seq().await?;
            row.next_number = row.count;
            deployments::insert(tx, &row).await?;
            events::append(tx, event(&row, &caller.name)?).await?;
            let operation = begin_operation(
                tx,
                &caller.origin(),
                NewOperation {
                    project: row.project.clone(),
                    kind: "deployment.create",
                    target: target(&row),
                    phase: "starting",
                    progress: Progress { total: row.count, unit: "instances".to_owned(), ..Progress::default() },
                    deadline: tx.now().plus_ms(seconds(row.deadline_s)),
                },
            )
            .await?;
            let from = members_start(&row, &start, order.disk_bytes)?;
            insert_members(tx, &caller.name, &row, 0, &from, &solution, Some(operation.id)).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// One deployment.
    pub async fn deployment(&self, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<Deployment, AppError> {
        self.store
            .read("deployments.show", async |tx| {
                let row = find(tx, caller, wanted).await?;
                show(tx, caller, row).await
            })
            .await
    }

    /// A page of deployments.
    pub async fn deployments(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Deployment>, AppError> {
        list.filter.only(&["state", "label", "deployment"])?;
        self.store
            .read("deployments.list", async |tx| {
                let filter = rows_wanted(tx, caller, list).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = deployments::list(tx, &filter, after, n).await?;
                    // The state follows from the members, so it is counted before it is compared.
                    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
                    let tallies = instances::tallies(tx, &ids).await?;
                    let none = Tally::default();
                    pager.take(
                        rows,
                        |row| row.seq,
                        |row| {
                            let tally = tallies.get(&row.id).unwrap_or(&none);
                            let timing = row.timing.clone();
                            let shown = view(caller, row, tally, timing, None);
                            let state = column::word_text(shown.state).unwrap_or_default();
                            list.filter.keeps(&state, &shown.labels).then_some(shown)
                        },
                    );
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes the labels.
    pub async fn patch_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<DeploymentId>,
        if_match: Option<&str>,
        patch: &PatchDeployment,
    ) -> Result<Answer, AppError> {
        self.once(once, "deployments.patch", async |tx| {
            let mut row = find(tx, caller, wanted).await?;
            check_if_match(if_match, row.revision)?;
            if let Some(labels) = patch.labels.as_ref().filter(|labels| **labels != row.labels) {
                row.labels = labels.clone();
                deployments::save(tx, &row).await?;
                events::append(tx, event(&row, &caller.name)?).await?;
                row = find(tx, caller, &Ref::Id(row.id)).await?;
            }
            Answer::ok(&show(tx, caller, row).await?)
        })
        .await
    }

    /// Deletes a deployment in any state: what runs on it is cancelled, its name is free at once.
    pub async fn delete_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<DeploymentId>,
        if_match: Option<&str>,
    ) -> Result<Answer, AppError> {
        self.once(once, "deployments.delete", async |tx| {
            let mut row = find_or_going(tx, caller, wanted).await?;
            let running = operations::running_on(tx, "deployment", &row.id.to_string()).await?;
            if let (DeploymentState::Deleting, Some(running)) = (row.state, running) {
                return app_instances::same_operation(tx, caller, running).await;
            }
            check_if_match(if_match, row.revision)?;
            // If it is going and none runs, the operation before ran out of time: a further one waits for what is left.
            if let Some(running) = running {
                operations::finish(tx, running, Outcome::Cancelled(None)).await?;
            }
            let mut changed = Vec::new();
            for member in instances::of_deployment(tx, row.id).await? {
                if member.life.state == InstanceState::Deleting {
                    // Already told; this operation waits for it as well.
                    changed.push(Changed { before: member.life.clone(), after: member });
                    continue;
                }
                if let Ok(Some(change)) = Changed::by(member, &Edge::Delete, tx) {
                    changed.push(change);
                }
            }
            let total = u64::try_from(changed.len()).unwrap_or(u64::MAX);
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.delete",
                target: target(&row),
                phase: "deleting",
                progress: Progress { total, unit: "instances".to_owned(), ..Progress::default() },
                deadline: tx.now().plus_ms(DELETE_MS),
            };
            let operation = app_instances::begin(tx, &caller.origin(), new, changed).await?;
            if row.state != DeploymentState::Deleting {
                row.state = DeploymentState::Deleting;
                deployments::save(tx, &row).await?;
                events::append(tx, event(&row, &caller.name)?).await?;
            }
            Answer::accepted(&operation)
        })
        .await
    }

    /// What a DELETE would free: told only where it is known, which the sweep will.
    pub async fn deployment_freed(&self, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<Freed, AppError> {
        self.store.read("deployments.freed", async |tx| find_or_going(tx, caller, wanted).await).await?;
        Ok(Freed { freed_bytes: None })
    }

    /// Start, stop or reboot of all members.
    pub async fn power_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<DeploymentId>,
        verb: Verb,
    ) -> Result<Answer, AppError> {
        self.once(once, "deployments.power", async |tx| {
            let row = find(tx, caller, wanted).await?;
            check_not_going(&row)?;
            busy(tx, &row).await?;
            let members = instances::of_deployment(tx, row.id).await?;
            app_instances::check_idle(&members)?;
            let wants_change = members
                .iter()
                .any(|member| !matches!(member.life.after(&verb.edge(), tx.now()), Ok(life) if life == member.life));
            if !wants_change {
                return Answer::ok(&show(tx, caller, row).await?);
            }
            let operation = app_instances::power(tx, caller, row.project.clone(), target(&row), verb, members).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// Tries failed members again.
    pub async fn retry_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<DeploymentId>,
    ) -> Result<Answer, AppError> {
        self.once(once, "deployments.retry", async |tx| {
            let row = find(tx, caller, wanted).await?;
            check_not_going(&row)?;
            busy(tx, &row).await?;
            let mut changed = Vec::new();
            for member in instances::of_deployment(tx, row.id).await? {
                if member.life.state == InstanceState::Failed {
                    app_instances::check_idle(std::slice::from_ref(&member))?;
                    changed.extend(Changed::by(member, &Edge::Retry, tx).ok().flatten());
                }
            }
            if changed.is_empty() {
                return Answer::ok(&show(tx, caller, row).await?);
            }
            let total = u64::try_from(changed.len()).unwrap_or(u64::MAX);
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.retry",
                target: target(&row),
                phase: "starting",
                progress: Progress { total, unit: "instances".to_owned(), ..Progress::default() },
                deadline: tx.now().plus_ms(seconds(row.deadline_s)),
            };
            let operation = app_instances::begin(tx, &caller.origin(), new, changed).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// More or fewer members.
    pub async fn scale_deployment(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<DeploymentId>,
        scale: &Scale,
    ) -> Result<Answer, AppError> {
        let count = order::count("/count", scale.count).map_err(|error| AppError::Invalid(vec![error]))?;
        self.once(once, "deployments.scale", async |tx| {
            let mut row = find(tx, caller, wanted).await?;
            check_not_going(&row)?;
            busy(tx, &row).await?;
            let members: Vec<InstanceRow> = instances::of_deployment(tx, row.id)
                .await?
                .into_iter()
                .filter(|member| member.life.state != InstanceState::Deleting)
                .collect();
            let removed = to_remove(tx, caller, scale, count, &members).await?;
            let present = u64::try_from(members.len()).unwrap_or(u64::MAX);
            let gone = u64::try_from(removed.len()).unwrap_or(u64::MAX);
            let added = (count + gone).saturating_sub(present);
            if added == 0 && gone == 0 {
                return Answer::ok(&show(tx, caller, row).await?);
            }
            let (solution, nodes) = look(tx, &row, added).await?;
            if solution.unplaced > 0 {
                return Err(no_capacity(caller, &solution, &nodes, added).into());
            }
            let start = match (added, row.version) {
                (0, _) => None,
                (_, Some(id)) => versions::load(tx, id).await?,
                (_, None) => {
                    let detail = format!("a fork has the members of its snapshot: at most {present}");
                    return Err(AppError::invalid("/count", "out_of_range", detail));
                }
            };
            let mut changed = Vec::new();
            for member in removed {
                changed.extend(Changed::by(member, &Edge::Delete, tx).ok().flatten());
            }
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.scale",
                target: target(&row),
                phase: "scaling",
                progress: Progress { total: added + gone, unit: "instances".to_owned(), ..Progress::default() },
                deadline: tx.now().plus_ms(seconds(row.deadline_s)),
            };
            let operation = app_instances::begin(tx, &caller.origin(), new, changed).await?;
            let first = row.next_number;
            row.next_number += added;
            row.min_count = if row.min_count == row.count { count } else { row.min_count.min(count) };
            row.count = count;
            deployments::save(tx, &row).await?;
            events::append(tx, event(&row, &caller.name)?).await?;
            if let Some(version) = start {
                let from = vec![(version.version.id, row.disk_bytes); usize::try_from(added).unwrap_or(0)];
                insert_members(tx, &caller.name, &row, first, &from, &solution, Some(operation.id)).await?;
            }
            Answer::accepted(&operation)
        })
        .await
    }
}

/// Members that go: those named, else the highest numbers.
async fn to_remove(
    tx: &mut Tx,
    caller: &Caller,
    scale: &Scale,
    count: u64,
    members: &[InstanceRow],
) -> Result<Vec<InstanceRow>, AppError> {
    let present = u64::try_from(members.len()).unwrap_or(u64::MAX);
    let Some(named) = &scale.remove else {
        let gone = usize::try_from(present.saturating_sub(count)).unwrap_or(0);
        return Ok(members.iter().rev().take(gone).cloned().collect());
    };
    if named.len() > members.len() {
        let detail = format!("{} are named, there are {present}", named.len());
        return Err(AppError::invalid("/remove", "invalid", detail));
    }
    let by_id: BTreeMap<InstanceId, &InstanceRow> = members.iter().map(|member| (member.id, member)).collect();
    let mut removed: BTreeMap<InstanceId, InstanceRow> = BTreeMap::new();
    for (index, reference) in named.iter().enumerate() {
        let pointer = format!("/remove/{index}");
        let row = app_instances::find(tx, caller, reference).await.map_err(at(&pointer))?;
        let Some(member) = by_id.get(&row.id).copied() else {
            let reference = reference.to_string();
            return Err(AppError::MissingReference { kind: "member", reference, pointer });
        };
        removed.insert(row.id, member.clone());
    }
    let left = present.saturating_sub(u64::try_from(removed.len()).unwrap_or(u64::MAX));
    if left != count {
        let detail = format!("{present} members without the {} to remove are {left}, not {count}", removed.len());
        return Err(AppError::invalid("/remove", "invalid", detail));
    }
    Ok(removed.into_values().collect())
}

fn seconds(s: u64) -> i64 {
    i64::try_from(s.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn check_not_going(row: &DeploymentRow) -> Result<(), AppError> {
    if row.state == DeploymentState::Deleting {
        return Err(AppError::WrongState {
            kind: "deployment",
            state: "deleting".to_owned(),
            allowed: vec!["deploying", "ready", "degraded"],
        });
    }
    Ok(())
}

async fn busy(tx: &mut Tx, row: &DeploymentRow) -> Result<(), AppError> {
    match operations::running_on(tx, "deployment", &row.id.to_string()).await? {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}

/// The row an order makes, its references resolved; nothing is written.
async fn prepare(tx: &mut Tx, caller: &Caller, order: &Order) -> Result<(DeploymentRow, Start), AppError> {
    let project = caller.one_project()?.to_owned();
    let start = resolve(tx, caller, &order.source).await?;
    let sizes = start.version.iter().chain(&start.versions).map(|version| version.version.size_bytes);
    let source_bytes = rounded(sizes.max().unwrap_or(1));
    if let Some(wanted) = order.disk_bytes.filter(|wanted| *wanted < source_bytes) {
        let detail = format!("at least {source_bytes}, what the source has; got {wanted}");
        return Err(AppError::invalid("/disk_bytes", "out_of_range", detail));
    }
    let members = u64::try_from(start.versions.len()).unwrap_or(u64::MAX);
    let count = match (order.count, start.version.is_some()) {
        (Some(count), true) => count,
        (Some(count), false) if count != members => {
            let detail = format!("the snapshot has {members} members: leave count out, or say {members}");
            return Err(AppError::invalid("/count", "out_of_range", detail));
        }
        _ => members,
    };
    let min_count = order.min_count.unwrap_or(count);
    if min_count > count {
        return Err(AppError::invalid("/min_count", "out_of_range", format!("1 to {count}, got {min_count}")));
    }
    let id = DeploymentId::generate();
    let now = tx.now();
    let name = order.name.as_ref().map_or_else(|| made_up("d", id.uuid()), ToString::to_string);
    let row = DeploymentRow {
        id,
        project,
        name,
        labels: order.labels.clone(),
        state: DeploymentState::Deploying,
        reason: None,
        source: start.source.clone(),
        source_name: start.source_name.clone(),
        version: start.version.as_ref().map(|version| version.version.id),
        count,
        min_count,
        next_number: 0,
        cpus: order.cpus,
        memory_bytes: order.memory_bytes,
        disk_bytes: order.disk_bytes.unwrap_or(source_bytes),
        runtime: order.runtime,
        ready: order.ready.clone(),
        placement: resolve_nodes(tx, &order.placement).await?,
        deadline_s: order.deadline_s,
        timing: Timing::default(),
        created_at: now,
        updated_at: now,
        revision: 1,
        seq: 0,
    };
    Ok((row, start))
}

/// A name nobody gave: a letter and the random end of the id.
pub(crate) fn made_up(prefix: &str, id: uuid::Uuid) -> String {
    let text = id.simple().to_string();
    format!("{prefix}-{}", text.get(20..).unwrap_or(&text))
}

async fn resolve_nodes(tx: &mut Tx, placement: &Placement) -> Result<Placement, AppError> {
    let mut resolved = placement.clone();
    if let Some(nodes) = &mut resolved.nodes {
        for (index, node) in nodes.iter_mut().enumerate() {
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
    }
    Ok(resolved)
}

async fn resolve(tx: &mut Tx, caller: &Caller, source: &DeploymentSource) -> Result<Start, AppError> {
    if let Some(wanted) = &source.image {
        return resolve_image(tx, caller, wanted, source.version).await;
    }
    if let Some(wanted) = &source.snapshot {
        return resolve_snapshot(tx, caller, wanted).await;
    }
    let Some(VersionOrNumber::Id(id)) = source.version else {
        return Err(AppError::invalid("/source", "invalid", "exactly one of image, version, snapshot"));
    };
    let version = app_versions::find_version(tx, caller, id).await.map_err(at("/source/version"))?;
    Ok(Start {
        source: source.clone(),
        source_name: Some(version.version.name.clone()),
        version: Some(version),
        versions: Vec::new(),
    })
}

async fn resolve_image(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<ImageId>,
    number: Option<VersionOrNumber>,
) -> Result<Start, AppError> {
    let number = match number {
        Some(VersionOrNumber::Number(number)) => Some(number),
        _ => None,
    };
    let (image, version) = app_images::numbered(tx, caller, wanted, number).await?;
    let image = image.image;
    let source = DeploymentSource {
        image: Some(Ref::Id(image.id)),
        version: version.version.number.map(VersionOrNumber::Number),
        snapshot: None,
    };
    Ok(Start { source, source_name: Some(image.name), version: Some(version), versions: Vec::new() })
}

async fn resolve_snapshot(tx: &mut Tx, caller: &Caller, wanted: &Ref<SnapshotId>) -> Result<Start, AppError> {
    let snapshot = app_snapshots::find(tx, caller, wanted).await.map_err(at("/source/snapshot"))?;
    if snapshot.state != SnapshotState::Ready {
        let state = column::word_text(snapshot.state)?;
        return Err(AppError::WrongState { kind: "snapshot", state, allowed: vec!["ready"] });
    }
    let versions = versions::of_snapshot(tx, snapshot.id).await?;
    if versions.is_empty() {
        let missing = AppError::not_found("version", format!("{}/*", snapshot.name));
        return Err(at("/source/snapshot")(missing));
    }
    let source = DeploymentSource { image: None, version: None, snapshot: Some(Ref::Id(snapshot.id)) };
    Ok(Start { source, source_name: Some(snapshot.name), version: None, versions })
}

/// The version and disk size each member starts with: a fork keeps the sizes its members had.
fn members_start(
    row: &DeploymentRow,
    start: &Start,
    disk_bytes: Option<u64>,
) -> Result<Vec<(VersionId, u64)>, AppError> {
    let count = usize::try_from(row.count).map_err(anyhow::Error::from)?;
    let of =
        |version: &VersionRow| (version.version.id, disk_bytes.unwrap_or_else(|| rounded(version.version.size_bytes)));
    Ok(match &start.version {
        Some(version) => vec![of(version); count],
        None => start.versions.iter().map(of).collect(),
    })
}

/// Inserts members `first`, `first + 1`, …, the first of them on the places found, the others failed.
async fn insert_members(
    tx: &mut Tx,
    actor: &str,
    row: &DeploymentRow,
    first: u64,
    from: &[(VersionId, u64)],
    solution: &Solution,
    operation: Option<muster_api::OperationId>,
) -> Result<(), AppError> {
    let now = tx.now();
    let detail = why(solution);
    let (mut members, mut disks) = (Vec::with_capacity(from.len()), Vec::with_capacity(from.len()));
    let (mut number, mut places) = (first, solution.places.iter());
    for (version, size_bytes) in from {
        let edge = places.next().map_or(Edge::NoPlace(&detail), |node| Edge::Place(*node));
        let life = Life::new(now).after(&edge, now).map_err(anyhow::Error::from)?;
        let member = InstanceRow {
            id: InstanceId::generate(),
            project: row.project.clone(),
            deployment: row.id,
            number,
            name: member_name(&row.name, number),
            labels: row.labels.clone(),
            life,
            cpus: row.cpus,
            memory_bytes: row.memory_bytes,
            runtime: row.runtime,
            operation,
            created_at: now,
            updated_at: now,
            revision: 1,
            seq: tx.next_seq().await?,
        };
        disks.push(DiskRow {
            id: DiskId::generate(),
            project: row.project.clone(),
            instance: member.id,
            name: "root".to_owned(),
            size_bytes: *size_bytes,
            version: *version,
            saved_at: None,
            path: None,
            unsaved_bytes: 0,
            fetched_bytes: 0,
            local_bytes: 0,
        });
        members.push(member);
        number += 1;
    }
    instances::insert_many(tx, &members, &disks).await?;
    events::append_many(tx, members.iter().map(|member| app_instances::event(member, actor)).collect()).await?;
    for node in members.iter().filter_map(|member| member.life.node).collect::<BTreeSet<_>>() {
        nodes::bump_desired(tx, node).await?;
    }
    deployments::mark(tx, &[row.id]).await?;
    tx.wake(Loop::Deployments);
    Ok(())
}

/// One deployment as the caller may see it.
async fn show(tx: &mut Tx, caller: &Caller, row: DeploymentRow) -> Result<Deployment, AppError> {
    let tally = instances::tallies(tx, &[row.id]).await?.remove(&row.id).unwrap_or_default();
    let timing = timing(&instances::ways(tx, row.id).await?);
    let bytes = instances::bytes(tx, row.id).await?;
    Ok(view(caller, row, &tally, timing, Some(bytes)))
}

fn view(caller: &Caller, row: DeploymentRow, tally: &Tally, timing: Timing, bytes: Option<(u64, u64)>) -> Deployment {
    let operator = caller.is_operator();
    let state = match row.state {
        DeploymentState::Deleting | DeploymentState::Deleted => row.state,
        _ => tally.state(),
    };
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
        etag: etag(row.revision),
        source: row.source.into(),
        source_name: row.source_name,
        count: row.count,
        min_count: row.min_count,
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        disk_bytes: row.disk_bytes,
        runtime: row.runtime.into(),
        ready_when: row.ready.into(),
        placement: placement.into(),
        counts: tally.counts.clone(),
        ready: tally.ready,
        timing,
        fetched_bytes: bytes.map(|(fetched, _)| fetched).filter(|_| operator),
        local_bytes: bytes.map(|(_, local)| local).filter(|_| operator),
        version: row.version,
    }
}

/// How to stop, from an optional body.
pub fn verb_of(word: &str, stop: &api_instance::Stop) -> Result<Verb, AppError> {
    match word {
        "start" => Ok(Verb::Start),
        "stop" => Ok(Verb::Stop(app_instances::stop(stop)?)),
        "reboot" => Ok(Verb::Reboot(app_instances::stop(stop)?)),
        _ => Err(AppError::not_found("verb", word)),
    }
}
