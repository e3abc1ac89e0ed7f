//! Instances: what callers ask of one or of many, and the one way their rows change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use muster_api::{
    InstanceId, NodeId, OperationId, Page, Problem, Ref,
    instance::{self as api, Instance, InstanceState, OnMany, PatchInstance, Select},
    operation::{Operation, Progress, Target},
    peer_protocol::log_path,
    version::Freed,
};
use muster_pool::Call;
use serde_json::json;
use storage_core::units::usize_from;

use super::{
    Answer, App, AppError, Caller, Once, at, begin_operation, check_if_match, deployments as app_deployments, etag,
    operations::visible,
};
use crate::{
    domain::{
        deployment::host_name,
        instance::{Edge, Life, Refused, STOP_TIMEOUT_S, Step, Stop, step, word},
    },
    http::ListQuery,
    reconcile::Loop,
    store::{
        Filter, StoreError, Tx, deployments,
        events::{self, NewEvent},
        instances::{self, DiskRow, InstanceRow},
        nodes::{self, NodeRow},
        operations::{self, NewOperation, Origin, Outcome},
    },
};

/// How long a node may take to answer with a console log.
const LOG_WAIT: Duration = Duration::from_secs(6);
/// The longest a guest may be given to stop.
const STOP_TIMEOUT_MAX_S: u64 = 3600;
/// What an operation on instances may take beyond the guests' own time.
const DEADLINE_MS: i64 = 600_000;
/// Most instances one verb is meant for.
const SELECTED_MAX: i64 = 10_000;

/// An instance before and after.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// Its life as it was loaded.
    pub before: Life,
    /// Its row as it is to be saved.
    pub after: InstanceRow,
}

impl Changed {
    /// What comes of an edge; none if nothing does.
    pub(crate) fn by(row: InstanceRow, edge: &Edge<'_>, tx: &Tx) -> Result<Option<Self>, Refused> {
        let life = row.life.after(edge, tx.now())?;
        if life == row.life {
            return Ok(None);
        }
        Ok(Some(Self { before: row.life, after: InstanceRow { life, ..row } }))
    }

    fn told_otherwise(&self) -> bool {
        let told = |life: &Life| (life.wanted, life.boot, life.generation, life.node, life.stop);
        told(&self.before) != told(&self.after.life)
    }

    fn seen_otherwise(&self) -> bool {
        let seen = |life: &Life| (life.state, life.is_ready(), life.reason.clone());
        seen(&self.before) != seen(&self.after.life)
    }
}

/// Saves what changed: rows, events, the nodes that are told otherwise, the deployments to be counted again.
pub(crate) async fn save(tx: &mut Tx, actor: &str, changed: &[Changed]) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    instances::save_many(tx, changed.iter().map(|c| &c.after)).await?;
    let seen = changed.iter().filter(|c| c.seen_otherwise()).map(|c| event(&c.after, actor)).collect();
    events::append_many(tx, seen).await?;
    let told: BTreeSet<NodeId> = changed
        .iter()
        .filter(|c| c.told_otherwise())
        .flat_map(|c| [c.before.node, c.after.life.node])
        .flatten()
        .collect();
    for node in told {
        nodes::bump_desired(tx, node).await?;
    }
    let marked: BTreeSet<_> = changed.iter().map(|c| c.after.deployment).collect();
    deployments::mark(tx, &marked.into_iter().collect::<Vec<_>>()).await?;
    tx.wake(Loop::Deployments);
    if changed.iter().any(|c| matches!(c.after.life.state, InstanceState::Deleting | InstanceState::Deleted)) {
        // A snapshot under way that has it cannot end well.
        tx.wake(Loop::Snapshots);
    }
    Ok(())
}

/// The event of an instance's state.
pub(crate) fn event(row: &InstanceRow, actor: &str) -> NewEvent {
    let mut data = json!({ "state": word(row.life.state), "ready": row.life.is_ready() });
    if let (Some(reason), Some(data)) = (&row.life.reason, data.as_object_mut()) {
        data.insert("reason".to_owned(), reason.as_str().into());
    }
    NewEvent {
        operation: row.operation,
        actor: actor.to_owned(),
        data,
        labels: row.labels.clone(),
        deployment: Some(row.deployment),
        node: row.life.node,
        ..NewEvent::new("instance.state", row.project.clone(), target(row))
    }
}

/// The instance as an operation's or event's target.
pub(crate) fn target(row: &InstanceRow) -> Target {
    Target { kind: "instance".to_owned(), id: row.id.to_string(), name: row.name.clone() }
}

/// The instance a path or body names, if the caller may know of it and it is not deleted.
pub(crate) async fn find(tx: &mut Tx, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<InstanceRow, AppError> {
    let found = match wanted {
        Ref::Id(id) => instances::load(tx, *id).await?,
        Ref::Name(name) => instances::by_name(tx, caller.one_project()?, name).await?,
    };
    found
        .filter(|row| caller.can_see(&row.project) && row.life.state != InstanceState::Deleted)
        .ok_or_else(|| AppError::not_found("instance", wanted))
}

/// The same, or if there is none, by name the newest that is going and had the name: for DELETE, which may be repeated.
pub(crate) async fn find_or_going(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<InstanceId>,
) -> Result<InstanceRow, AppError> {
    match (find(tx, caller, wanted).await, wanted) {
        (Err(missing @ AppError::NotFound { .. }), Ref::Name(name)) => {
            instances::going_by_name(tx, caller.one_project()?, name).await?.ok_or(missing)
        }
        (found, _) => found,
    }
}

/// Whether names also mean what is going and had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    /// They do.
    Included,
    /// Only what is there.
    LeftOut,
}

/// The instances a `select` means, and the deployment if it names one.
pub(crate) async fn selected(
    tx: &mut Tx,
    caller: &Caller,
    select: &Select,
    going: Going,
) -> Result<Selected, AppError> {
    match (&select.deployment, &select.instances, &select.label) {
        (Some(wanted), None, None) => {
            let found = match going {
                Going::Included => app_deployments::find_or_going(tx, caller, wanted).await,
                Going::LeftOut => app_deployments::find(tx, caller, wanted).await,
            };
            let row = found.map_err(at("/select/deployment"))?;
            Ok(Selected { rows: instances::of_deployment(tx, row.id).await?, deployment: Some(row) })
        }
        (None, Some(wanted), None) => {
            if i64::try_from(wanted.len()).map_or(true, |n| n > SELECTED_MAX) {
                let detail = format!("at most {SELECTED_MAX} at a time, got {}", wanted.len());
                return Err(AppError::invalid("/select/instances", "out_of_range", detail));
            }
            let mut rows: BTreeMap<InstanceId, InstanceRow> = BTreeMap::new();
            for (index, reference) in wanted.iter().enumerate() {
                let found = match going {
                    Going::Included => find_or_going(tx, caller, reference).await,
                    Going::LeftOut => find(tx, caller, reference).await,
                };
                let row = found.map_err(at(&format!("/select/instances/{index}")))?;
                rows.insert(row.id, row);
            }
            let mut rows: Vec<_> = rows.into_values().collect();
            rows.sort_by_key(|row| row.seq);
            Ok(Selected { rows, deployment: None })
        }
        (None, None, Some(label)) => {
            let Some((key, value)) = label.split_once('=') else {
                return Err(AppError::invalid("/select/label", "invalid", format!("KEY=VALUE, got '{label}'")));
            };
            let filter = Filter {
                project: Some(caller.one_project()?.to_owned()),
                labels: vec![(key.to_owned(), value.to_owned())],
                ..Filter::default()
            };
            let rows = instances::list(tx, &filter, 0, SELECTED_MAX + 1).await?;
            if rows.len() as u64 > SELECTED_MAX.unsigned_abs() {
                let detail = format!("more than {SELECTED_MAX} instances have this label: take them in parts");
                return Err(AppError::invalid("/select/label", "out_of_range", detail));
            }
            Ok(Selected { rows, deployment: None })
        }
        _ => Err(AppError::invalid("/select", "invalid", "exactly one of deployment, instances, label")),
    }
}

/// What a `select` means.
pub(crate) struct Selected {
    /// The instances, in list order.
    pub rows: Vec<InstanceRow>,
    /// The deployment, if it names one.
    pub deployment: Option<deployments::DeploymentRow>,
}

/// A verb that names a wanted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Runs.
    Start,
    /// Does not run.
    Stop(Stop),
    /// Runs anew.
    Reboot(Stop),
    /// Is gone.
    Delete,
}

impl Verb {
    /// From the path of a call on many.
    pub fn read(word: &str, body: &OnMany) -> Result<Self, AppError> {
        let stop = || stop(&api::Stop { force: body.force, timeout_s: body.timeout_s });
        match word {
            "start" => Ok(Self::Start),
            "stop" => Ok(Self::Stop(stop()?)),
            "reboot" => Ok(Self::Reboot(stop()?)),
            "delete" => Ok(Self::Delete),
            "recover" | "migrate" | "shelve" | "unshelve" => Err(AppError::NotBuiltYet(format!("the verb {word}"))),
            _ => Err(AppError::not_found("verb", word)),
        }
    }

    pub(crate) const fn edge(&self) -> Edge<'static> {
        match self {
            Self::Start => Edge::Start,
            Self::Stop(stop) => Edge::Stop(*stop),
            Self::Reboot(stop) => Edge::Reboot(*stop),
            Self::Delete => Edge::Delete,
        }
    }

    const fn timeout_ms(&self) -> i64 {
        match self {
            Self::Stop(stop) | Self::Reboot(stop) => (stop.timeout_s.saturating_mul(1000)).cast_signed(),
            Self::Start | Self::Delete => 0,
        }
    }

    /// The kind of operation, on one of these.
    pub(crate) const fn kind(&self, of_deployment: bool) -> &'static str {
        match (self, of_deployment) {
            (Self::Start, false) => "instance.start",
            (Self::Stop(_), false) => "instance.stop",
            (Self::Reboot(_), false) => "instance.reboot",
            (Self::Delete, false) => "instance.delete",
            (Self::Start, true) => "deployment.start",
            (Self::Stop(_), true) => "deployment.stop",
            (Self::Reboot(_), true) => "deployment.reboot",
            (Self::Delete, true) => "deployment.clear",
        }
    }

    const fn phase(&self) -> &'static str {
        match self {
            Self::Start | Self::Reboot(_) => "starting",
            Self::Stop(_) => "stopping",
            Self::Delete => "deleting",
        }
    }
}

/// How to stop, as a body says.
pub fn stop(wanted: &api::Stop) -> Result<Stop, AppError> {
    let timeout_s = wanted.timeout_s.unwrap_or(STOP_TIMEOUT_S);
    if timeout_s > STOP_TIMEOUT_MAX_S {
        let detail = format!("0 to {STOP_TIMEOUT_MAX_S}, got {timeout_s}");
        return Err(AppError::invalid("/timeout_s", "out_of_range", detail));
    }
    Ok(Stop { force: wanted.force, timeout_s })
}

fn refused(refusal: &Refused) -> AppError {
    AppError::WrongState {
        kind: "instance",
        state: word(refusal.state).to_owned(),
        allowed: refusal.allowed.iter().map(|state| word(*state)).collect(),
    }
}

/// Refuses when another operation waits for one of the instances.
pub(crate) fn check_idle(rows: &[InstanceRow]) -> Result<(), AppError> {
    match rows.iter().find_map(|row| row.operation) {
        Some(operation) => Err(AppError::Busy { operation }),
        None => Ok(()),
    }
}

/// Begins an operation that waits for the changed instances, and saves them.
pub(crate) async fn begin(
    tx: &mut Tx,
    origin: &Origin,
    new: NewOperation,
    mut changed: Vec<Changed>,
) -> Result<Operation, AppError> {
    let operation = begin_operation(tx, origin, new).await?;
    for change in &mut changed {
        change.after.operation = Some(operation.id);
    }
    save(tx, &origin.actor, &changed).await?;
    tx.wake(Loop::Deployments);
    Ok(operation)
}

impl App {
    /// One instance.
    pub async fn instance(&self, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<Instance, AppError> {
        self.store
            .read("instances.show", async |tx| {
                let row = find(tx, caller, wanted).await?;
                one(view(tx, caller, vec![row]).await?)
            })
            .await
    }

    /// A page of instances.
    pub async fn instances(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Instance>, AppError> {
        if !list.filter.nodes.is_empty() {
            caller.require_operator()?;
        }
        self.store
            .read("instances.list", async |tx| {
                let nodes = node_ids(tx, &list.filter.nodes).await?;
                let filter = Filter { nodes, ..app_deployments::rows_wanted(tx, caller, list).await? };
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    pager.take(instances::list(tx, &filter, after, n).await?, |row| row.seq, Some);
                }
                let page = pager.page();
                let items = view(tx, caller, page.items).await?;
                Ok(Page { items, next_page_token: page.next_page_token, as_of: page.as_of })
            })
            .await
    }

    /// Changes the labels.
    pub async fn patch_instance(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<InstanceId>,
        if_match: Option<&str>,
        patch: &PatchInstance,
    ) -> Result<Answer, AppError> {
        self.once(once, "instances.patch", async |tx| {
            let mut row = find(tx, caller, wanted).await?;
            check_if_match(if_match, row.revision)?;
            if let Some(labels) = patch.labels.as_ref().filter(|labels| **labels != row.labels) {
                instances::save_labels(tx, &row, labels).await?;
                row = find(tx, caller, &Ref::Id(row.id)).await?;
                events::append(tx, event(&row, &caller.name)).await?;
            }
            Answer::ok(&one(view(tx, caller, vec![row]).await?)?)
        })
        .await
    }

    /// The last of what its console printed.
    pub async fn instance_log(
        &self,
        caller: &Caller,
        wanted: &Ref<InstanceId>,
        tail_bytes: u64,
    ) -> Result<Bytes, AppError> {
        let row = self.store.read("instances.log", async |tx| find(tx, caller, wanted).await).await?;
        // Nothing has run it yet: it printed nothing.
        let Some(node) = row.life.node else { return Ok(Bytes::new()) };
        let call = Call {
            method: Method::GET,
            path: &log_path(row.id, tail_bytes),
            json: None,
            limit: LOG_WAIT,
            answer_bytes_max: usize_from(tail_bytes).max(64 << 10),
        };
        self.pool.call(node, call).await.map_err(|error| {
            tracing::warn!(instance.id = %row.id, node.id = %node, "no console log: {error}");
            AppError::Unavailable(format!("the node of {} does not answer: try again", row.name))
        })
    }

    /// Start, stop or reboot of one instance.
    pub async fn power_instance(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<InstanceId>,
        verb: Verb,
    ) -> Result<Answer, AppError> {
        self.once(once, "instances.power", async |tx| {
            let row = find(tx, caller, wanted).await?;
            check_idle(std::slice::from_ref(&row))?;
            let Some(changed) = Changed::by(row.clone(), &verb.edge(), tx).map_err(|r| refused(&r))? else {
                return Answer::ok(&one(view(tx, caller, vec![row]).await?)?);
            };
            let new = NewOperation {
                project: row.project.clone(),
                kind: verb.kind(false),
                target: target(&row),
                phase: verb.phase(),
                progress: Progress { total: 1, unit: "instances".to_owned(), ..Progress::default() },
                deadline: tx.now().plus_ms(DEADLINE_MS + verb.timeout_ms()),
            };
            let operation = begin(tx, &caller.origin(), new, vec![changed]).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// Deletes an instance; its deployment wants one less.
    pub async fn delete_instance(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &Ref<InstanceId>,
        if_match: Option<&str>,
    ) -> Result<Answer, AppError> {
        self.once(once, "instances.delete", async |tx| {
            let row = find_or_going(tx, caller, wanted).await?;
            if let (InstanceState::Deleting, Some(operation)) = (row.life.state, row.operation) {
                return same_operation(tx, caller, operation).await;
            }
            check_if_match(if_match, row.revision)?;
            if let Some(running) = operations::running_on(tx, "instance", &row.id.to_string()).await? {
                operations::finish(tx, running, Outcome::Cancelled(None)).await?;
            }
            let operation = delete_rows(tx, caller, &row.project.clone(), target(&row), vec![row]).await?;
            Answer::accepted(&operation)
        })
        .await
    }

    /// What a DELETE would free: told only where it is known, which the sweep will.
    pub async fn instance_freed(&self, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<Freed, AppError> {
        self.store.read("instances.freed", async |tx| find_or_going(tx, caller, wanted).await).await?;
        Ok(Freed { freed_bytes: None })
    }

    /// A verb on many instances.
    pub async fn on_many(&self, caller: &Caller, once: &Once, word: &str, body: &OnMany) -> Result<Answer, AppError> {
        let verb = Verb::read(word, body)?;
        self.once(once, "instances.on_many", async |tx| {
            let going = if verb == Verb::Delete { Going::Included } else { Going::LeftOut };
            let selected = selected(tx, caller, &body.select, going).await?;
            if selected.rows.is_empty() && body.select.label.is_some() {
                let detail = "no instance has this label".to_owned();
                return Err(Problem::new(muster_api::ErrorCode::NotFound, detail.clone())
                    .at("/select/label", "not_found", detail)
                    .into());
            }
            let project = match (&selected.deployment, selected.rows.first()) {
                (Some(deployment), _) => deployment.project.clone(),
                (None, Some(row)) => row.project.clone(),
                (None, None) => caller.one_project()?.to_owned(),
            };
            let target = match &selected.deployment {
                Some(deployment) => app_deployments::target(deployment),
                None => Target {
                    kind: "instances".to_owned(),
                    id: OperationId::generate().to_string(),
                    name: format!("{} instances", selected.rows.len()),
                },
            };
            if verb == Verb::Delete {
                if let Some(operation) = one_going(&selected.rows) {
                    return same_operation(tx, caller, operation).await;
                }
                let operation = delete_rows(tx, caller, &project, target, selected.rows).await?;
                return Answer::accepted(&operation);
            }
            check_idle(&selected.rows)?;
            let operation = power(tx, caller, project, target, verb, selected.rows).await?;
            Answer::accepted(&operation)
        })
        .await
    }
}

/// The repeated DELETE: the operation that runs.
pub(crate) async fn same_operation(tx: &mut Tx, caller: &Caller, id: OperationId) -> Result<Answer, AppError> {
    let operation = operations::load(tx, id).await?.ok_or_else(|| AppError::not_found("operation", id))?;
    Answer::accepted(&visible(operation, caller.is_operator()))
}

/// The operation that waits for all of these to be gone, if it is one.
fn one_going(rows: &[InstanceRow]) -> Option<OperationId> {
    let operation = rows.first()?.operation;
    let same = |row: &InstanceRow| row.life.state == InstanceState::Deleting && row.operation == operation;
    operation.filter(|_| rows.iter().all(same))
}

/// Start, stop or reboot of many: those whose state does not allow it are left alone, unless that is so for all.
pub(crate) async fn power(
    tx: &mut Tx,
    caller: &Caller,
    project: String,
    target: Target,
    verb: Verb,
    rows: Vec<InstanceRow>,
) -> Result<Operation, AppError> {
    let (mut changed, mut refusal, mut fine) = (Vec::new(), None, 0_usize);
    for row in rows {
        match Changed::by(row, &verb.edge(), tx) {
            Ok(Some(change)) => changed.push(change),
            Ok(None) => fine += 1,
            Err(refused) => refusal = Some(refused),
        }
    }
    if let Some(refusal) = refusal.filter(|_| changed.is_empty() && fine == 0) {
        return Err(refused(&refusal));
    }
    let none = changed.is_empty();
    let total = u64::try_from(changed.len()).unwrap_or(u64::MAX);
    let new = NewOperation {
        project,
        kind: verb.kind(target.kind == "deployment"),
        target,
        phase: verb.phase(),
        progress: Progress { total, unit: "instances".to_owned(), ..Progress::default() },
        deadline: tx.now().plus_ms(DEADLINE_MS + verb.timeout_ms()),
    };
    let operation = begin(tx, &caller.origin(), new, changed).await?;
    if none {
        return done_at_once(tx, operation).await;
    }
    Ok(operation)
}

async fn done_at_once(tx: &mut Tx, operation: Operation) -> Result<Operation, AppError> {
    operations::finish(tx, operation.id, Outcome::Succeeded(None)).await?;
    Ok(operations::load(tx, operation.id).await?.unwrap_or(operation))
}

/// Deletes instances: their deployments want so many less.
async fn delete_rows(
    tx: &mut Tx,
    caller: &Caller,
    project: &str,
    target: Target,
    rows: Vec<InstanceRow>,
) -> Result<Operation, AppError> {
    let mut fewer: BTreeMap<_, u64> = BTreeMap::new();
    let mut changed = Vec::new();
    for row in rows {
        if row.life.state == InstanceState::Deleting {
            // Counted before; its operation ran out of time or has others as well, and this one waits for it.
            changed.push(Changed { before: row.life.clone(), after: row });
            continue;
        }
        *fewer.entry(row.deployment).or_default() += 1;
        changed.extend(Changed::by(row, &Edge::Delete, tx).map_err(|r| refused(&r))?);
    }
    let none = changed.is_empty();
    let total = u64::try_from(changed.len()).unwrap_or(u64::MAX);
    let new = NewOperation {
        project: project.to_owned(),
        kind: Verb::Delete.kind(target.kind == "deployment"),
        target,
        phase: Verb::Delete.phase(),
        progress: Progress { total, unit: "instances".to_owned(), ..Progress::default() },
        deadline: tx.now().plus_ms(DEADLINE_MS),
    };
    let operation = begin(tx, &caller.origin(), new, changed).await?;
    for (id, less) in fewer {
        if let Some(mut deployment) = deployments::load(tx, id).await? {
            deployment.count = deployment.count.saturating_sub(less);
            deployment.min_count = deployment.min_count.min(deployment.count);
            deployments::save(tx, &deployment).await?;
        }
    }
    if none {
        return done_at_once(tx, operation).await;
    }
    Ok(operation)
}

fn one<T>(mut items: Vec<T>) -> Result<T, AppError> {
    items.pop().ok_or_else(|| anyhow::anyhow!("a row without a view").into())
}

async fn node_ids(tx: &mut Tx, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let id = match reference.parse::<NodeId>() {
            Ok(id) => id.to_string(),
            // A name nobody has filters everything out.
            Err(_) => {
                nodes::by_name(tx, reference).await?.map_or_else(|| reference.clone(), |node| node.id.to_string())
            }
        };
        ids.push(id);
    }
    Ok(ids)
}

/// Rows as the caller may see them.
async fn view(tx: &mut Tx, caller: &Caller, rows: Vec<InstanceRow>) -> Result<Vec<Instance>, AppError> {
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
    Ok(rows
        .into_iter()
        .map(|row| {
            let place = row.life.node.and_then(|id| places.get(&id));
            let name = names.get(&row.deployment).cloned().unwrap_or_default();
            let disks = disks.remove(&row.id).unwrap_or_default();
            instance_view(row, disks, name, place, caller.is_operator())
        })
        .collect())
}

fn instance_view(
    row: InstanceRow,
    disks: Vec<DiskRow>,
    deployment_name: String,
    place: Option<&NodeRow>,
    operator: bool,
) -> Instance {
    let InstanceRow { life, .. } = row;
    let steps = life.steps;
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
        etag: etag(row.revision),
        deployment: row.deployment,
        deployment_name,
        number: row.number,
        cpus: row.cpus,
        memory_bytes: row.memory_bytes,
        runtime: row.runtime.into(),
        ready_at: if life.state == InstanceState::Running { steps.ready_at } else { None },
        steps: api::Steps { placed_at: steps.placed_at, disk_at: steps.disk_at, started_at: steps.started_at },
        disks: disks
            .into_iter()
            .map(|disk| api::Disk {
                id: disk.id,
                name: disk.name,
                size_bytes: disk.size_bytes,
                path: disk.path.filter(|_| operator),
                version: disk.version,
                unsaved_bytes: disk.unsaved_bytes,
                saved_at: disk.saved_at,
            })
            .collect(),
        nics: Vec::new(),
        node: place.map(|node| node.id).filter(|_| operator),
        node_name: place.map(|node| node.name.clone()).filter(|_| operator),
        zone: place.and_then(|node| node.zone.clone()),
        generation: Some(life.generation).filter(|_| operator),
    }
}

/// Whether the member is on its way for an operation.
pub(crate) fn under_way(row: &InstanceRow) -> bool {
    step(row.life.state, row.life.wanted, row.life.is_ready()) == Step::UnderWay
}
