//! The network cards of a deployment's members: which ones they get, their addresses and ports, and how they are shown.
//!
//! Addresses are given in the transaction that makes the members, for all of them together, and go with the instance. A
//! network or a security group stays while a deployment uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use muster_api::{
    ErrorCode, InstanceId, MacAddress, NetworkId, Problem, SecurityGroupId,
    deployment::ReasonCount,
    network::{CreateNic, DeploymentNic, NetworkMode, NetworkState, Nic, NicPort, PublishPort},
    node_protocol::network::{NicAssignment, PortProtocol},
};
use serde_json::json;
use storage_core::units::u64_from;

use super::{AppError, at, find, networks::default_network, security_groups::default_group};
use crate::{
    config::Networks,
    domain::{
        cards::{self, CardPlan},
        network as rules,
    },
    store::{
        StoreError, Tx, found,
        networks::{self, NetworkRow},
        nics::{self, NicRow, PublishedRow},
        security_groups,
    },
};

/// How many host numbers are looked at with one statement.
const LOOK_AT: u16 = 2048;

/// The cards that a request asks for. They are in networks of the project. `actor` is the name of the token that asks.
pub(super) async fn resolve(
    tx: &mut Tx,
    actor: &str,
    settings: &Networks,
    project: &str,
    wanted: &[CreateNic],
) -> Result<Vec<CardPlan>, AppError> {
    let (mut plans, mut seen): (Vec<CardPlan>, BTreeSet<NetworkId>) = (Vec::new(), BTreeSet::new());
    for (n, nic) in wanted.iter().enumerate() {
        let pointer = |field: &str| format!("/nics/{n}/{field}");
        let network = match find::network_in(tx, project, &nic.network).await {
            // The first card in the default network may also name it.
            Err(AppError::NotFound { reference, .. }) if reference == super::networks::DEFAULT => {
                default_network(tx, actor, settings, project).await?
            }
            found => found.map_err(at(&pointer("network")))?,
        };
        if !seen.insert(network.id) {
            let detail = format!("an instance has one card in a network, and '{}' is named twice", network.name);
            return Err(AppError::invalid(pointer("network"), "invalid", detail));
        }
        check_mode(nic, &network, n)?;
        if let Some(address) = nic.address {
            host_for(&network, address, &pointer("address"))?;
        }
        for (p, port) in nic.ports.iter().enumerate() {
            let range = settings.published_ports;
            if port.node_port.is_some_and(|port| !range.contains(port)) {
                let detail = format!("a port of the range {range}, which is for this; or leave it out");
                return Err(AppError::invalid(pointer(&format!("ports/{p}/node_port")), "out_of_range", detail));
            }
        }
        let groups = groups(tx, actor, project, nic, &network, n).await?;
        plans.push(CardPlan { network: network.id, address: nic.address, groups, ports: nic.ports.clone() });
    }
    Ok(plans)
}

/// What a network of this mode cannot do for a card.
fn check_mode(nic: &CreateNic, network: &NetworkRow, n: usize) -> Result<(), AppError> {
    let refused = |field: &str, why: &str| {
        let detail = format!("network '{}' {why}: leave this out", network.name);
        Err(AppError::invalid(format!("/nics/{n}/{field}"), "invalid", detail))
    };
    let of_host = "is on a bridge of the hosts, whose network decides this";
    match network.mode {
        NetworkMode::Bridge if nic.address.is_some() => refused("address", of_host),
        NetworkMode::Bridge if nic.security_groups.is_some() => refused("security_groups", of_host),
        NetworkMode::Bridge if !nic.ports.is_empty() => refused("ports", of_host),
        NetworkMode::Isolated if !nic.ports.is_empty() => refused("ports", "is not connected to the outside"),
        _ => Ok(()),
    }
}

async fn groups(
    tx: &mut Tx,
    actor: &str,
    project: &str,
    nic: &CreateNic,
    network: &NetworkRow,
    n: usize,
) -> Result<Vec<SecurityGroupId>, AppError> {
    let Some(wanted) = &nic.security_groups else { return default_groups(tx, actor, project, network).await };
    let mut groups = Vec::new();
    for (g, group) in wanted.iter().enumerate() {
        let found = match find::security_group_in(tx, project, group).await {
            Err(AppError::NotFound { reference, .. }) if reference == super::networks::DEFAULT => {
                default_group(tx, actor, project).await?
            }
            found => found.map_err(at(&format!("/nics/{n}/security_groups/{g}")))?,
        };
        if !groups.contains(&found.id) {
            groups.push(found.id);
        }
    }
    Ok(groups)
}

/// The security groups of a card whose request names none. On a bridge of the host nothing is filtered.
async fn default_groups(
    tx: &mut Tx,
    actor: &str,
    project: &str,
    network: &NetworkRow,
) -> Result<Vec<SecurityGroupId>, AppError> {
    if network.mode == NetworkMode::Bridge {
        return Ok(Vec::new());
    }
    Ok(vec![default_group(tx, actor, project).await?.id])
}

/// One card in the default network of the project.
pub(super) async fn default_plan(
    tx: &mut Tx,
    actor: &str,
    settings: &Networks,
    project: &str,
) -> Result<Vec<CardPlan>, AppError> {
    let network = default_network(tx, actor, settings, project).await?;
    let groups = default_groups(tx, actor, project, &network).await?;
    Ok(vec![CardPlan { network: network.id, address: None, groups, ports: Vec::new() }])
}

/// The cards of a fork of instances that had these: in the same networks, as far as these are still there, and with
/// addresses and ports of their own.
pub(super) async fn fork(
    tx: &mut Tx,
    actor: &str,
    project: &str,
    plans: &[CardPlan],
) -> Result<Vec<CardPlan>, AppError> {
    let usable = |state: NetworkState| state == NetworkState::Ready;
    let mut kept = Vec::new();
    for plan in plans.iter().cloned().map(CardPlan::for_others) {
        let network = networks::load(tx, plan.network).await?.filter(|row| usable(row.state) && row.project == project);
        let Some(network) = network else { continue };
        let known = security_groups::load_many(tx, &plan.groups).await?;
        let mut groups = plan.groups;
        groups.retain(|group| known.iter().any(|row| row.id == *group && usable(row.state)));
        if groups.is_empty() {
            groups = default_groups(tx, actor, project, &network).await?;
        }
        kept.push(CardPlan { groups, ..plan });
    }
    Ok(kept)
}

/// The cards that an instance had according to its node, in networks of the project that are known, as those of a new
/// deployment.
pub(super) async fn known_of(
    tx: &mut Tx,
    actor: &str,
    project: &str,
    told: &[NicAssignment],
) -> Result<Vec<CardPlan>, AppError> {
    let had =
        told.iter().map(|nic| CardPlan { network: nic.network, address: None, groups: Vec::new(), ports: Vec::new() });
    fork(tx, actor, project, &had.collect::<Vec<_>>()).await
}

/// Gives an instance that its node holds since before a restore the cards that the members of its deployment have. Where
/// it had a card before, it keeps the address, unless another instance has got that meanwhile.
pub(super) async fn take_back(
    tx: &mut Tx,
    settings: &Networks,
    plans: &[CardPlan],
    member: InstanceId,
    told: &[NicAssignment],
) -> Result<(), AppError> {
    let plans: Vec<CardPlan> = plans.iter().cloned().map(CardPlan::for_others).collect();
    let mut picked = pick(tx, settings, &plans, 1).await?;
    for cards in &mut picked.0 {
        let Some(row) = networks::load(tx, cards.network).await? else { continue };
        let had = told.iter().find(|nic| nic.network == row.id);
        let Some(host) = had.and_then(|nic| row.host_with_mac(nic.mac)) else { continue };
        if Some(host) != row.gateway_host() && nics::taken(tx, row.id, &(host..=host)).await?.is_empty() {
            (cards.hosts, cards.named) = (vec![host], true);
        }
    }
    Ok(picked.give(tx, &[member]).await?)
}

/// What the cards of some members get, by the position of the card.
pub(super) struct Picked(Vec<PickedCards>);

/// The same for the cards with one position: by member.
struct PickedCards {
    network: NetworkId,
    /// Host numbers.
    hosts: Vec<u16>,
    /// The node's ports and the instance's.
    ports: Vec<Vec<(u16, PublishPort)>>,
    /// Whether the addresses are those that somebody named, and not the next free ones.
    named: bool,
}

/// Picks addresses and ports for the cards of `count` new members. Nothing is written.
///
/// # Errors
/// When a network or the range of ports has too few left, or what the request names is taken.
pub(super) async fn pick(
    tx: &mut Tx,
    settings: &Networks,
    plans: &[CardPlan],
    count: usize,
) -> Result<Picked, AppError> {
    if plans.is_empty() {
        return Ok(Picked(Vec::new()));
    }
    let ids: Vec<NetworkId> = plans.iter().map(|plan| plan.network).collect();
    let rows: BTreeMap<_, _> = networks::load_many(tx, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
    // What nodes hold since before a restore has addresses that no row tells.
    let held = found::macs(tx).await?;
    let mut ports = Ports::load(tx, settings, plans).await?;
    let mut picked = Vec::new();
    for (n, plan) in plans.iter().enumerate() {
        let hosts = match rows.get(&plan.network) {
            Some(network) => hosts(tx, network, plan.address, n, count, &held).await?,
            // A dry run that would make the network `default`. An empty network has room.
            None if !tx.writes() => (1..=u16::MAX).take(count).collect(),
            None => return Err(AppError::not_found("network", plan.network)),
        };
        let ports = (0..count).map(|_| ports.for_card(plan)).collect::<Result<_, _>>()?;
        picked.push(PickedCards { network: plan.network, hosts, ports, named: plan.address.is_some() });
    }
    Ok(Picked(picked))
}

impl Picked {
    /// Gives the members what was picked for them, in their order.
    pub(super) async fn give(self, tx: &mut Tx, members: &[InstanceId]) -> Result<(), StoreError> {
        let (mut cards, mut published) = (Vec::new(), Vec::new());
        for (position, picked) in (0..).zip(&self.0) {
            for ((member, host), ports) in members.iter().zip(&picked.hosts).zip(&picked.ports) {
                let card = NicRow { instance: *member, position, network: picked.network, host_number: *host };
                cards.push(card);
                published.extend(ports.iter().map(|(node_port, port)| PublishedRow {
                    protocol: port.protocol,
                    node_port: *node_port,
                    instance: *member,
                    position,
                    port: port.port,
                }));
            }
        }
        nics::insert(tx, &cards, &published).await?;
        for picked in self.0.iter().filter(|picked| !picked.named) {
            if let Some(last) = picked.hosts.last() {
                networks::save_last_host(tx, picked.network, *last).await?;
            }
        }
        Ok(())
    }
}

/// Free host numbers of a network, or the one with the address that the request names.
async fn hosts(
    tx: &mut Tx,
    network: &NetworkRow,
    address: Option<Ipv4Addr>,
    n: usize,
    count: usize,
    held: &BTreeSet<MacAddress>,
) -> Result<Vec<u16>, AppError> {
    let held: BTreeSet<u16> = held.iter().filter_map(|mac| network.host_with_mac(*mac)).collect();
    if let Some(address) = address {
        let pointer = format!("/nics/{n}/address");
        let host = host_for(network, address, &pointer)?;
        if held.contains(&host) || !nics::taken(tx, network.id, &(host..=host)).await?.is_empty() {
            let detail =
                format!("a card in network '{}' has the address {address}: name another one, or none", network.name);
            return Err(Problem::new(ErrorCode::AddressTaken, &*detail).at(pointer, "invalid", &*detail).into());
        }
        return Ok(vec![host]);
    }
    let gateway = network.gateway_host();
    let mut free = Vec::with_capacity(count);
    for part in cards::parts(rules::hosts(network.subnet_v4), network.last_host, LOOK_AT) {
        let taken = nics::taken(tx, network.id, &part).await?;
        let is_free = |host: &u16| Some(*host) != gateway && !taken.contains(host) && !held.contains(host);
        free.extend(part.filter(is_free).take(count - free.len()));
        if free.len() == count {
            return Ok(free);
        }
    }
    let detail = format!(
        "network '{}' has {} free addresses, and {count} are needed: delete instances, or make a network with a larger subnet",
        network.name,
        free.len()
    );
    Err(no_room("network_full", count - free.len(), detail))
}

fn host_for(network: &NetworkRow, address: Ipv4Addr, pointer: &str) -> Result<u16, AppError> {
    let host = network.subnet_v4.and_then(|subnet| rules::host_of(subnet, address));
    let host = host.filter(|host| Some(*host) != network.gateway_host());
    host.ok_or_else(|| {
        let subnet = network.subnet_v4.map_or_else(String::new, |subnet| format!(" ({subnet})"));
        let detail = format!(
            "an address of a host in network '{}'{subnet} that is not that of the gateway, got {address}",
            network.name
        );
        AppError::invalid(pointer, "out_of_range", detail)
    })
}

fn no_room(reason: &str, missing: usize, detail: String) -> AppError {
    let reasons =
        vec![ReasonCount { reason: reason.to_owned(), count: u64_from(missing), detail: Some(detail.clone()) }];
    Problem::new(ErrorCode::NoCapacity, detail).with("reasons", json!(reasons)).into()
}

/// The ports of nodes that are left.
struct Ports {
    used: BTreeSet<(PortProtocol, u16)>,
    free: BTreeMap<PortProtocol, std::vec::IntoIter<u16>>,
    range: crate::config::PortRange,
}

impl Ports {
    async fn load(tx: &mut Tx, settings: &Networks, plans: &[CardPlan]) -> Result<Self, AppError> {
        let range = settings.published_ports;
        if plans.iter().all(|plan| plan.ports.is_empty()) {
            return Ok(Self { used: BTreeSet::new(), free: BTreeMap::new(), range });
        }
        let used = nics::published_ports(tx).await?;
        let named = plans.iter().flat_map(|plan| &plan.ports);
        let mut kept = used.clone();
        kept.extend(named.filter_map(|port| Some((port.protocol, port.node_port?))));
        let free = |protocol| cards::free_ports(range.ports(), &kept, protocol).collect::<Vec<_>>().into_iter();
        let free = [PortProtocol::Tcp, PortProtocol::Udp].map(|protocol| (protocol, free(protocol)));
        Ok(Self { used, free: BTreeMap::from(free), range })
    }

    /// The ports of the card of one member.
    fn for_card(&mut self, plan: &CardPlan) -> Result<Vec<(u16, PublishPort)>, AppError> {
        let mut given = Vec::with_capacity(plan.ports.len());
        for port in &plan.ports {
            let node_port = match port.node_port {
                Some(named) if self.used.contains(&(port.protocol, named)) => {
                    let detail =
                        format!("port {named} of the nodes leads to another instance: name another one, or none");
                    return Err(AppError::code(ErrorCode::AddressTaken, detail));
                }
                Some(named) => named,
                None => self.free.get_mut(&port.protocol).and_then(Iterator::next).ok_or_else(|| {
                    let detail =
                        format!("all ports in {} lead to instances: publish fewer, or delete instances", self.range);
                    no_room("ports_full", 1, detail)
                })?,
            };
            given.push((node_port, *port));
        }
        Ok(given)
    }
}

/// Networks and security groups by id, for showing what cards have.
pub(super) struct Names {
    networks: BTreeMap<NetworkId, NetworkRow>,
    groups: BTreeMap<SecurityGroupId, String>,
}

impl Names {
    /// Those that these cards have.
    pub(super) async fn of(tx: &mut Tx, plans: impl Iterator<Item = &CardPlan>) -> Result<Self, StoreError> {
        let (mut named, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for plan in plans {
            named.insert(plan.network);
            groups.extend(&plan.groups);
        }
        let rows = networks::load_many(tx, &named.into_iter().collect::<Vec<_>>()).await?;
        let groups = security_groups::names(tx, &groups.into_iter().collect::<Vec<_>>()).await?;
        Ok(Self { networks: rows.into_iter().map(|row| (row.id, row)).collect(), groups })
    }

    /// The cards of a deployment's members.
    pub(super) fn deployment_nics(&self, plans: &[CardPlan]) -> Vec<DeploymentNic> {
        let shown = |plan: &CardPlan| DeploymentNic {
            network: plan.network,
            network_name: self.network_name(plan.network),
            address: plan.address,
            security_groups: plan.groups.clone(),
            security_group_names: self.group_names(plan),
            ports: plan.ports.iter().map(|port| (*port).into()).collect(),
        };
        plans.iter().map(shown).collect()
    }

    /// The cards of an instance on a node with this address.
    pub(super) fn instance_nics(
        &self,
        plans: &[CardPlan],
        cards: &[NicRow],
        published: &[PublishedRow],
        node_address: Option<&str>,
    ) -> Vec<Nic> {
        let shown = |card: &NicRow| {
            let plan = plans.get(usize::try_from(card.position).ok()?)?;
            let network = self.networks.get(&card.network)?;
            let of_card = published.iter().filter(|port| port.position == card.position);
            Some(Nic {
                network: card.network,
                network_name: network.name.clone(),
                mac: network.mac(card.host_number),
                address_v4: network.address_v4(card.host_number),
                address_v6: network.address_v6(card.host_number),
                security_groups: plan.groups.clone(),
                security_group_names: self.group_names(plan),
                ports: of_card
                    .map(|port| NicPort {
                        node_address: node_address.map(str::to_owned),
                        node_port: port.node_port,
                        port: port.port,
                        protocol: port.protocol.into(),
                    })
                    .collect(),
            })
        };
        cards.iter().filter_map(shown).collect()
    }

    /// A network that nothing uses may be gone while a deleted deployment is still shown.
    fn network_name(&self, id: NetworkId) -> String {
        self.networks.get(&id).map_or_else(|| id.to_string(), |row| row.name.clone())
    }

    fn group_names(&self, plan: &CardPlan) -> Vec<String> {
        let name = |group: &SecurityGroupId| self.groups.get(group).cloned().unwrap_or_else(|| group.to_string());
        plan.groups.iter().map(name).collect()
    }
}
