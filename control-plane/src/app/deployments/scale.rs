//! More or fewer members.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{DeploymentId, InstanceId, Ref, deployment::Scale, disk::ROOT, instance::InstanceState};
use storage_core::units::u64_from;

use super::{
    super::{Answer, App, AppError, Asked, Caller, at, find, instances as app_instances, nics},
    check_free, event,
    members::NewMembers,
    placing::Placing,
    source::{DiskStart, planned},
    view,
};
use crate::{
    domain::{cards, instance::Edge, order},
    store::{
        Tx, deployments, events,
        instances::{self, InstanceRow},
        operations::{self, NewOperation},
    },
};

impl App {
    /// Brings a deployment to `scale.count` members.
    pub async fn scale_deployment(&self, asked: &Asked<Ref<DeploymentId>>, scale: &Scale) -> Result<Answer, AppError> {
        let count = order::count("/count", scale.count).map_err(|error| AppError::Invalid(vec![error]))?;
        self.once(&asked.once, "deployments.scale", async |tx| {
            let mut row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            check_free(tx, &row).await?;
            let members = present(tx, row.id).await?;
            let removed = to_remove(tx, &asked.caller, scale, count, &members).await?;
            app_instances::refuse_if_leaving(tx, &removed).await?;
            let gone = u64_from(removed.len());
            let added = (count + gone).saturating_sub(u64_from(members.len()));
            if added == 0 && gone == 0 {
                return Answer::ok(&view::show(self, tx, &asked.caller, row).await?);
            }
            let placing = Placing::find(tx, &row, added).await?;
            if placing.solution.unplaced > placing.solution.waiting {
                return Err(placing.no_capacity(&asked.caller, added, added));
            }
            if added > 0 && row.version.is_none() {
                let detail = format!("a fork has the members of its snapshot: at most {}", members.len());
                return Err(AppError::invalid("/count", "out_of_range", detail));
            }
            let wrong = cards::check_count(&row.nics, count);
            if added > 0 && !wrong.is_empty() {
                return Err(fixed_cards(&row.name));
            }
            let count_added = usize::try_from(added).expect("a deployment has at most 10,000 members");
            let cards = nics::pick(tx, &self.config.networks, &row.nics, count_added).await?;
            let new = NewOperation {
                project: row.project.clone(),
                kind: "deployment.scale",
                target: row.target(),
                phase: "scaling",
                progress: operations::to_do(added + gone, "instances"),
                deadline: row.deadline_after(tx.now()),
            };
            let changed = app_instances::change::all_by(removed, &Edge::Delete, tx);
            let operation = app_instances::begin(tx, &asked.caller.origin(), new, changed).await?;
            let first = row.next_number;
            row.next_number += added;
            row.min_count = if row.min_count == row.count { count } else { row.min_count.min(count) };
            row.count = count;
            deployments::save(tx, &row).await?;
            events::append(tx, event(&row, &asked.caller.name)).await?;
            if let Some(version) = row.version.filter(|_| added > 0) {
                let root = DiskStart { name: ROOT.to_owned(), version, size_bytes: row.disk_bytes };
                let disks = vec![std::iter::once(root).chain(planned(&row.disks)).collect(); count_added];
                let operation = operation.id;
                let placing = &placing;
                let members = NewMembers { deployment: &row, first, disks, blank: None, cards, placing, operation };
                members.insert(tx, &asked.caller.name).await?;
                deployments::members_changed(tx, &BTreeSet::from([row.id])).await?;
            }
            Answer::accepted(&operation)
        })
        .await
    }
}

/// The refusal of more members where the cards have an address or a port of the nodes that only one member can have.
fn fixed_cards(name: &str) -> AppError {
    let detail = format!(
        "'{name}' was made for one member: its network cards name an address or a port of the nodes that no other can have"
    );
    AppError::invalid("/count", "out_of_range", detail)
}

/// The members that are not being deleted, by number.
async fn present(tx: &mut Tx, deployment: DeploymentId) -> Result<Vec<InstanceRow>, AppError> {
    let mut members = instances::of_deployment(tx, deployment).await?;
    members.retain(|member| member.life.state != InstanceState::Deleting);
    Ok(members)
}

/// The members to delete: those that the request names, else the highest numbers.
async fn to_remove(
    tx: &mut Tx,
    caller: &Caller,
    scale: &Scale,
    count: u64,
    members: &[InstanceRow],
) -> Result<Vec<InstanceRow>, AppError> {
    let present = u64_from(members.len());
    let Some(named) = &scale.remove else {
        let kept = usize::try_from(count.min(present)).expect("no more than there are");
        return Ok(members[kept..].to_vec());
    };
    if named.len() > members.len() {
        let detail = format!("{} are named, there are {present}", named.len());
        return Err(AppError::invalid("/remove", "invalid", detail));
    }
    let by_id: BTreeMap<InstanceId, &InstanceRow> = members.iter().map(|member| (member.id, member)).collect();
    let mut removed: BTreeMap<InstanceId, InstanceRow> = BTreeMap::new();
    for (index, reference) in named.iter().enumerate() {
        let pointer = format!("/remove/{index}");
        let row = find::instance(tx, caller, reference).await.map_err(at(&pointer))?;
        let Some(member) = by_id.get(&row.id).copied() else {
            let reference = reference.to_string();
            return Err(AppError::MissingReference { kind: "member", reference, pointer });
        };
        removed.insert(row.id, member.clone());
    }
    let left = present - u64_from(removed.len());
    if left != count {
        let detail = format!("{present} members without the {} to remove are {left}, not {count}", removed.len());
        return Err(AppError::invalid("/remove", "invalid", detail));
    }
    Ok(removed.into_values().collect())
}
