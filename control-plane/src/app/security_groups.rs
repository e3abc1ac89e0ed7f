//! Security groups: make, show, change, delete; and the group `default` of a project, which is made when it is first used.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    ErrorCode, Labels, Page, Problem, Ref, SecurityGroupId, etag,
    network::NetworkState,
    node_protocol::network::{Rule, RuleDirection, RuleRemote},
    security_group::{CreateRule, CreateSecurityGroup, PatchSecurityGroup, SecurityGroup, SecurityRule},
};
use serde_json::json;
use storage_core::units::u64_from;

use super::{
    Answer, App, AppError, Asked, Caller, Once, at, find,
    labels::patched,
    list::ListQuery,
    networks::{DEFAULT, check_quota},
};
use crate::{
    domain::{
        names::made_up,
        rules::{self, Side},
    },
    store::{
        Tx, cluster,
        events::{self, NewEvent},
        nics,
        security_groups::{self, SecurityGroupRow},
    },
};

/// The names of security groups.
type Names = BTreeMap<SecurityGroupId, String>;

impl App {
    /// Makes a security group.
    pub async fn create_security_group(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: &CreateSecurityGroup,
    ) -> Result<Answer, AppError> {
        let project = caller.one_project()?;
        let id = SecurityGroupId::generate();
        let name = wanted.name.as_ref().map_or_else(|| made_up("group", id.uuid()), ToString::to_string);
        self.once(once, "security_groups.create", async |tx| {
            if let Some(existing) = security_groups::by_name(tx, project, &name).await? {
                return Err(AppError::NameTaken { kind: "security group", name, existing: existing.id.to_string() });
            }
            let used = security_groups::by_state(tx, Some(project)).await?.into_values().sum();
            check_quota("security groups", used, self.config.networks.max_groups_per_project)?;
            let mut row = new_row(tx, id, project, name).await?;
            row.labels = wanted.labels.clone();
            row.rules = resolved(tx, &caller.name, &row, &wanted.rules).await?;
            security_groups::insert(tx, &row).await?;
            tell(tx, &caller.name, "security_group.created", &row).await?;
            let shown = show(tx, vec![row]).await?.pop().expect("one row makes one view");
            Answer::created(&shown, format!("/v1/security-groups/{id}"))
        })
        .await
    }

    /// One security group, by id or name, unless it is deleted.
    pub async fn security_group(
        &self,
        caller: &Caller,
        wanted: &Ref<SecurityGroupId>,
    ) -> Result<SecurityGroup, AppError> {
        self.store
            .read("security_groups.show", async |tx| {
                let row = find::security_group(tx, caller, wanted).await?;
                Ok(show(tx, vec![row]).await?.pop().expect("one row makes one view"))
            })
            .await
    }

    /// A page of security groups. The filters `state` and `label` are known.
    pub async fn security_groups(&self, caller: &Caller, list: &ListQuery) -> Result<Page<SecurityGroup>, AppError> {
        list.filter.states_of::<NetworkState>()?;
        self.store
            .read("security_groups.list", async |tx| {
                let filter = list.row_filter(tx, caller).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = security_groups::list(tx, &filter, after, n).await?;
                    let shown = show(tx, rows.clone()).await?;
                    let rows: Vec<_> = rows.into_iter().map(|row| row.seq).zip(shown).collect();
                    pager.take(rows, |(seq, _)| *seq, |(_, group)| Some(group));
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name, labels or rules; what the patch leaves out stays. New rules reach the nodes that have cards with the
    /// group.
    pub async fn patch_security_group(
        &self,
        asked: &Asked<Ref<SecurityGroupId>>,
        patch: &PatchSecurityGroup,
    ) -> Result<Answer, AppError> {
        self.once(&asked.once, "security_groups.patch", async |tx| {
            let before = find::security_group(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(before.revision)?;
            let mut row = before.clone();
            row.labels = patched(&before.labels, &patch.labels)?;
            if let Some(name) = &patch.name {
                row.name = name.to_string();
            }
            if let Some(wanted) = &patch.rules {
                row.rules = resolved(tx, &asked.caller.name, &row, wanted).await?;
            }
            if row != before {
                if let Some(other) = security_groups::by_name(tx, &row.project, &row.name).await?
                    && other.id != row.id
                {
                    let existing = other.id.to_string();
                    return Err(AppError::NameTaken { kind: "security group", name: row.name, existing });
                }
                security_groups::save(tx, &row).await?;
                if row.rules != before.rules {
                    nics::tell_nodes_of_group(tx, row.id).await?;
                }
                tell(tx, &asked.caller.name, "security_group.changed", &row).await?;
                row = find::security_group(tx, &asked.caller, &Ref::Id(row.id)).await?;
            }
            Answer::ok(&show(tx, vec![row]).await?.pop().expect("one row makes one view"))
        })
        .await
    }

    /// Deletes a security group that no deployment and no rule of another group uses.
    pub async fn delete_security_group(&self, asked: &Asked<Ref<SecurityGroupId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "security_groups.delete", async |tx| {
            let mut row = find::security_group(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let deployments = nics::users(tx, row.id).await?;
            let others = security_groups::of_project(tx, &row.project).await?;
            let names_it = |other: &SecurityGroupRow| other.id != row.id && rules::name(&other.rules, row.id);
            let groups = u64_from(others.iter().filter(|other| names_it(other)).count());
            if deployments > 0 || groups > 0 {
                let detail = format!(
                    "security group '{}' is used by {deployments} deployments and by rules of {groups} other groups: \
                     delete or change these first",
                    row.name
                );
                let used_by = json!({ "deployments": deployments, "security_groups": groups });
                return Err(Problem::new(ErrorCode::InUse, detail).with("used_by", used_by).into());
            }
            row.state = NetworkState::Deleted;
            security_groups::save(tx, &row).await?;
            tell(tx, &asked.caller.name, "security_group.deleted", &row).await?;
            Ok(Answer::no_content())
        })
        .await
    }
}

/// The group `default` of the project. It is made if there is none; by a transaction that only reads, it is made as a row
/// that nobody inserts.
pub(super) async fn default_group(tx: &mut Tx, actor: &str, project: &str) -> Result<SecurityGroupRow, AppError> {
    if let Some(row) = security_groups::by_name(tx, project, DEFAULT).await? {
        return Ok(row);
    }
    let mut row = new_row(tx, SecurityGroupId::generate(), project, DEFAULT.to_owned()).await?;
    row.rules = rules::of_default(row.id);
    if tx.writes() {
        security_groups::insert(tx, &row).await?;
        tell(tx, actor, "security_group.created", &row).await?;
    }
    Ok(row)
}

async fn new_row(tx: &mut Tx, id: SecurityGroupId, project: &str, name: String) -> Result<SecurityGroupRow, AppError> {
    if tx.writes() {
        cluster::ensure_project(tx, project).await?;
    }
    let now = tx.now();
    Ok(SecurityGroupRow {
        id,
        project: project.to_owned(),
        name,
        labels: Labels::default(),
        state: NetworkState::Ready,
        rules: Vec::new(),
        created_at: now,
        updated_at: now,
        revision: 1,
        seq: tx.next_seq().await?,
    })
}

/// The rules of a request for the group `row`, with the ids of the groups that they name.
async fn resolved(
    tx: &mut Tx,
    actor: &str,
    row: &SecurityGroupRow,
    wanted: &[CreateRule],
) -> Result<Vec<Rule>, AppError> {
    let mut resolved = Vec::new();
    for sketch in rules::read(wanted).map_err(AppError::Invalid)? {
        let group = match sketch.side {
            Side::Group(name) if name == row.name => Some(row.id),
            Side::Group(DEFAULT) => Some(default_group(tx, actor, &row.project).await?.id),
            Side::Group(text) => {
                let reference = text.parse().map_err(|_| AppError::not_found("security group", text));
                let found = match reference {
                    Ok(reference) => find::security_group_in(tx, &row.project, &reference).await,
                    Err(error) => Err(error),
                };
                Some(found.map_err(at(&sketch.pointer))?.id)
            }
            Side::Any | Side::Range(_) => None,
        };
        resolved.push(sketch.with(group));
    }
    Ok(resolved)
}

/// The groups as the API shows them, with the names of the groups that their rules name.
async fn show(tx: &mut Tx, rows: Vec<SecurityGroupRow>) -> Result<Vec<SecurityGroup>, AppError> {
    let named: BTreeSet<SecurityGroupId> = rows.iter().flat_map(|row| &row.rules).filter_map(group_of).collect();
    let mut names = security_groups::names(tx, &named.into_iter().collect::<Vec<_>>()).await?;
    names.extend(rows.iter().map(|row| (row.id, row.name.clone())));
    Ok(rows.into_iter().map(|row| view(row, &names)).collect())
}

const fn group_of(rule: &Rule) -> Option<SecurityGroupId> {
    match rule.remote {
        RuleRemote::Group(group) => Some(group),
        RuleRemote::Any | RuleRemote::Range(_) => None,
    }
}

fn view(row: SecurityGroupRow, names: &Names) -> SecurityGroup {
    SecurityGroup {
        id: row.id,
        name: row.name,
        project: row.project,
        labels: row.labels,
        state: row.state,
        reason: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        rules: row.rules.iter().map(|rule| rule_view(rule, names)).collect(),
    }
}

fn rule_view(rule: &Rule, names: &Names) -> SecurityRule {
    let (protocol, ports) = rules::shown_match(rule.matches);
    let other_side = match rule.remote {
        RuleRemote::Any => None,
        RuleRemote::Range(range) => Some(range.to_string()),
        RuleRemote::Group(group) => Some(group.to_string()),
    };
    let (from, to) = match rule.direction {
        RuleDirection::In => (other_side, None),
        RuleDirection::Out => (None, other_side),
    };
    SecurityRule {
        direction: rule.direction.into(),
        protocol: protocol.into(),
        ports,
        from,
        to,
        group_name: group_of(rule).and_then(|group| names.get(&group).cloned()),
    }
}

/// Appends an event of a security group.
async fn tell(tx: &mut Tx, actor: &str, kind: &'static str, row: &SecurityGroupRow) -> Result<(), AppError> {
    let event = NewEvent {
        actor: actor.to_owned(),
        labels: row.labels.clone(),
        data: json!({ "state": row.state }),
        ..NewEvent::new(kind, row.project.clone(), row.target())
    };
    events::append(tx, event).await?;
    Ok(())
}
