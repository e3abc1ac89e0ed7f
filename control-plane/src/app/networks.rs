//! Networks: make, show, change, delete; and the network `default` of a project, which is made when it is first used.

use std::{collections::BTreeMap, net::IpAddr};

use muster_api::{
    ErrorCode, NetworkId, Page, Problem, Ref, etag,
    network::{CreateNetwork, Network, NetworkMode, NetworkState, PatchNetwork},
};
use serde_json::json;

use super::{Answer, App, AppError, Asked, Caller, Once, find, labels::patched, list::ListQuery};
use crate::{
    config::Networks,
    domain::{
        names::made_up,
        network::{self as rules, Layout},
    },
    store::{
        Tx, cluster,
        events::{self, NewEvent},
        networks::{self, NetworkRow},
        nics,
    },
};

/// Name of the network and of the security group that are used where a request names none.
pub(super) const DEFAULT: &str = "default";

impl App {
    /// Makes a network.
    pub async fn create_network(
        &self,
        caller: &Caller,
        once: &Once,
        wanted: CreateNetwork,
    ) -> Result<Answer, AppError> {
        let project = caller.one_project()?;
        if wanted.mode == Some(NetworkMode::Bridge) {
            caller.require_operator()?;
        }
        let layout = Layout::read(&wanted, self.config.networks.default_subnet).map_err(AppError::Invalid)?;
        let id = NetworkId::generate();
        let name = wanted.name.as_ref().map_or_else(|| made_up("net", id.uuid()), ToString::to_string);
        self.once(once, "networks.create", async |tx| {
            if let Some(existing) = networks::by_name(tx, project, &name).await? {
                return Err(AppError::NameTaken { kind: "network", name, existing: existing.id.to_string() });
            }
            let used = networks::by_state(tx, Some(project)).await?.into_values().sum();
            check_quota("networks", used, self.config.networks.max_per_project)?;
            let mut row = new_row(tx, id, project, name, layout).await?;
            row.labels = wanted.labels.clone();
            networks::insert(tx, &row).await?;
            tell(tx, &caller.name, "network.created", &row).await?;
            Answer::created(&view(row, 0), format!("/v1/networks/{id}"))
        })
        .await
    }

    /// One network, by id or name, unless it is deleted.
    pub async fn network(&self, caller: &Caller, wanted: &Ref<NetworkId>) -> Result<Network, AppError> {
        self.store
            .read("networks.show", async |tx| {
                let row = find::network(tx, caller, wanted).await?;
                show(tx, row).await
            })
            .await
    }

    /// A page of networks. The filters `state` and `label` are known.
    pub async fn networks(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Network>, AppError> {
        list.filter.states_of::<NetworkState>()?;
        self.store
            .read("networks.list", async |tx| {
                let filter = list.row_filter(tx, caller).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = networks::list(tx, &filter, after, n).await?;
                    let ids: Vec<NetworkId> = rows.iter().map(|row| row.id).collect();
                    let counts: BTreeMap<NetworkId, u64> = nics::count(tx, &ids).await?;
                    pager.take(
                        rows,
                        |row| row.seq,
                        |row| {
                            let nics = counts.get(&row.id).copied().unwrap_or(0);
                            Some(view(row, nics))
                        },
                    );
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes name, labels, name servers or the largest packet; what the patch leaves out stays.
    pub async fn patch_network(&self, asked: &Asked<Ref<NetworkId>>, patch: &PatchNetwork) -> Result<Answer, AppError> {
        self.once(&asked.once, "networks.patch", async |tx| {
            let before = find::network(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(before.revision)?;
            let row = patched_row(&before, patch)?;
            if row == before {
                return Answer::ok(&show(tx, before).await?);
            }
            if let Some(other) = networks::by_name(tx, &row.project, &row.name).await?
                && other.id != row.id
            {
                return Err(AppError::NameTaken { kind: "network", name: row.name, existing: other.id.to_string() });
            }
            networks::save(tx, &row).await?;
            nics::tell_nodes(tx, &[row.id]).await?;
            tell(tx, &asked.caller.name, "network.changed", &row).await?;
            let row = find::network(tx, &asked.caller, &Ref::Id(row.id)).await?;
            Answer::ok(&show(tx, row).await?)
        })
        .await
    }

    /// Deletes a network that nothing uses.
    pub async fn delete_network(&self, asked: &Asked<Ref<NetworkId>>) -> Result<Answer, AppError> {
        self.once(&asked.once, "networks.delete", async |tx| {
            let mut row = find::network(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let cards = nics::count(tx, &[row.id]).await?.remove(&row.id).unwrap_or(0);
            let deployments = nics::users(tx, row.id).await?;
            if cards > 0 || deployments > 0 {
                let detail = format!(
                    "network '{}' is used by {deployments} deployments, with {cards} network cards: delete these first",
                    row.name
                );
                let used_by = json!({ "deployments": deployments, "nics": cards });
                return Err(Problem::new(ErrorCode::InUse, detail).with("used_by", used_by).into());
            }
            row.state = NetworkState::Deleted;
            networks::save(tx, &row).await?;
            tell(tx, &asked.caller.name, "network.deleted", &row).await?;
            Ok(Answer::no_content())
        })
        .await
    }
}

/// The refusal of one more thing if the project has as many as it may have.
pub(super) fn check_quota(what: &str, used: u64, limit: u64) -> Result<(), AppError> {
    if used < limit {
        return Ok(());
    }
    let detail = format!("the project has {used} {what}, and may have {limit}: delete some, or ask an operator");
    let problem = Problem::new(ErrorCode::QuotaExceeded, detail);
    Err(problem.with("limit", limit).with("used", used).with("wanted", used + 1).into())
}

/// The network `default` of the project. It is made if there is none; by a transaction that only reads, it is made as a
/// row that nobody inserts.
pub(super) async fn default_network(
    tx: &mut Tx,
    actor: &str,
    settings: &Networks,
    project: &str,
) -> Result<NetworkRow, AppError> {
    if let Some(row) = networks::by_name(tx, project, DEFAULT).await? {
        return Ok(row);
    }
    let id = NetworkId::generate();
    let layout = Layout::of_default(id, settings.default_subnet);
    let row = new_row(tx, id, project, DEFAULT.to_owned(), layout).await?;
    if tx.writes() {
        networks::insert(tx, &row).await?;
        tell(tx, actor, "network.created", &row).await?;
    }
    Ok(row)
}

async fn new_row(
    tx: &mut Tx,
    id: NetworkId,
    project: &str,
    name: String,
    layout: Layout,
) -> Result<NetworkRow, AppError> {
    let vni = networks::free_vni(tx).await?;
    let vni = vni.ok_or_else(|| {
        AppError::code(ErrorCode::QuotaExceeded, "the cluster has as many networks as it can tell apart")
    })?;
    if tx.writes() {
        cluster::ensure_project(tx, project).await?;
    }
    let now = tx.now();
    let (subnet_v4, gateway_v4) = layout.v4.unzip();
    Ok(NetworkRow {
        id,
        project: project.to_owned(),
        name,
        labels: muster_api::Labels::default(),
        state: NetworkState::Ready,
        mode: layout.mode,
        bridge: layout.bridge,
        subnet_v4,
        gateway_v4,
        subnet_v6: layout.subnet_v6,
        dns: layout.dns,
        mtu: layout.mtu,
        vni,
        last_host: 0,
        created_at: now,
        updated_at: now,
        revision: 1,
        seq: tx.next_seq().await?,
    })
}

fn patched_row(before: &NetworkRow, patch: &PatchNetwork) -> Result<NetworkRow, AppError> {
    let mut row = before.clone();
    row.labels = patched(&before.labels, &patch.labels)?;
    if let Some(name) = &patch.name {
        row.name = name.to_string();
    }
    let mut wrong = Vec::new();
    if let Some(dns) = &patch.dns {
        row.dns = dns.clone().unwrap_or_default();
        wrong.extend(check_patched_dns(&row, dns.as_deref()));
    }
    if let Some(mtu) = patch.mtu {
        row.mtu = mtu.unwrap_or_else(|| rules::default_mtu(row.mode));
        wrong.extend(rules::check_mtu(row.mtu, row.subnet_v6.is_some()));
    }
    if wrong.is_empty() { Ok(row) } else { Err(AppError::Invalid(wrong)) }
}

fn check_patched_dns(row: &NetworkRow, dns: Option<&[IpAddr]>) -> Option<muster_api::error::FieldError> {
    if row.mode == NetworkMode::Bridge && dns.is_some() {
        let detail = "not with mode bridge: the network of the host decides it".to_owned();
        let (pointer, code) = ("/dns".to_owned(), "invalid".to_owned());
        return Some(muster_api::error::FieldError { pointer, code, detail });
    }
    rules::check_dns(&row.dns)
}

/// The network as the API shows it.
async fn show(tx: &mut Tx, row: NetworkRow) -> Result<Network, AppError> {
    let cards = nics::count(tx, &[row.id]).await?.remove(&row.id).unwrap_or(0);
    Ok(view(row, cards))
}

/// The network with this many cards.
fn view(row: NetworkRow, cards: u64) -> Network {
    Network {
        id: row.id,
        gateway_v6: row.gateway_v6(),
        domain: (row.mode != NetworkMode::Bridge).then(|| rules::domain(&row.name, &row.project)),
        name: row.name,
        project: row.project,
        labels: row.labels,
        state: row.state,
        reason: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        mode: row.mode.into(),
        bridge: row.bridge,
        subnet_v4: row.subnet_v4,
        gateway: row.gateway_v4,
        subnet_v6: row.subnet_v6,
        dns: row.dns,
        mtu: row.mtu,
        nics: cards,
        free: rules::capacity(row.subnet_v4).saturating_sub(cards),
    }
}

/// Appends an event of a network.
async fn tell(tx: &mut Tx, actor: &str, kind: &'static str, row: &NetworkRow) -> Result<(), AppError> {
    let event = NewEvent {
        actor: actor.to_owned(),
        labels: row.labels.clone(),
        data: json!({ "state": row.state }),
        ..NewEvent::new(kind, row.project.clone(), row.target())
    };
    events::append(tx, event).await?;
    Ok(())
}
