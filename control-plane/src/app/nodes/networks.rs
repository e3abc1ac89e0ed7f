//! The part of a node's desired state that is about networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use muster_api::{
    DeploymentId, InstanceId, NetworkId, NodeId, SecurityGroupId,
    network::NetworkMode as Mode,
    node_protocol::{
        Assignment, Wanted,
        network::{NetworkAssignment, NetworkMember, NetworkMode, NetworksAssignment, NicAssignment, PublishedPort},
    },
};

use crate::{
    domain::{cards::CardPlan, names::host_name, network as rules},
    store::{
        StoreError, Tx, deployments,
        networks::{self, NetworkRow},
        nics::{self, Member, NicRow, PublishedRow},
        nodes, security_groups,
    },
};

/// The networks in which instances of the node have cards, with all members on all nodes. Puts the cards into the
/// assignments. An instance that is to be deleted has left its networks.
pub(super) async fn assign_networks(
    tx: &mut Tx,
    node: NodeId,
    assignments: &mut [Assignment],
) -> Result<NetworksAssignment, StoreError> {
    let there = |one: &&Assignment| one.wanted != Wanted::Gone;
    let own: Vec<InstanceId> = assignments.iter().filter(there).map(|one| one.instance).collect();
    let cards = nics::of_instances(tx, &own).await?;
    let ids: BTreeSet<NetworkId> = cards.values().flatten().map(|card| card.network).collect();
    if ids.is_empty() {
        return Ok(NetworksAssignment::default());
    }
    let ids: Vec<NetworkId> = ids.into_iter().collect();
    let rows = networks::load_many(tx, &ids).await?;
    let by_id: BTreeMap<NetworkId, &NetworkRow> = rows.iter().map(|row| (row.id, row)).collect();
    for one in assignments {
        let own = cards.get(&one.instance).into_iter().flatten();
        one.nics = own.filter_map(|card| by_id.get(&card.network).map(|row| nic(row, card))).collect();
    }
    let members = nics::members(tx, &ids).await?;
    let of: BTreeSet<DeploymentId> = members.iter().map(|member| member.deployment).collect();
    let plans = Plans(deployments::told(tx, &of.into_iter().collect::<Vec<_>>()).await?);
    let here = |member: &&Member| member.node == node;
    let groups: BTreeSet<SecurityGroupId> =
        members.iter().filter(here).flat_map(|member| plans.groups(member)).copied().collect();
    let groups = security_groups::load_many(tx, &groups.into_iter().collect::<Vec<_>>()).await?;
    let others: BTreeSet<NodeId> = members.iter().map(|member| member.node).filter(|other| *other != node).collect();
    let published = nics::published_of(tx, &own).await?;
    let cards: BTreeMap<(InstanceId, u64), &NicRow> =
        cards.values().flatten().map(|card| ((card.instance, card.position), card)).collect();
    let mut told: BTreeMap<NetworkId, NetworkAssignment> = rows.iter().map(|row| (row.id, network(row))).collect();
    for member in &members {
        let Some((row, told)) = by_id.get(&member.nic.network).zip(told.get_mut(&member.nic.network)) else { continue };
        told.members.push(shown(row, member, &plans));
    }
    for port in published.values().flatten() {
        let Some(card) = cards.get(&(port.instance, port.position)) else { continue };
        let Some((row, told)) = by_id.get(&card.network).zip(told.get_mut(&card.network)) else { continue };
        told.published.extend(published_port(row, card, port));
    }
    Ok(NetworksAssignment {
        networks: told.into_values().collect(),
        groups: groups.into_iter().map(|row| (row.id, row.rules)).collect(),
        tunnels: nodes::tunnels(tx, &others.into_iter().collect::<Vec<_>>()).await?,
    })
}

/// What the deployments of members say of their cards.
struct Plans(BTreeMap<DeploymentId, (String, Vec<CardPlan>)>);

impl Plans {
    /// The security groups of a card.
    fn groups(&self, member: &Member) -> &[SecurityGroupId] {
        let position = usize::try_from(member.nic.position).ok();
        let plan = self.0.get(&member.deployment).zip(position).and_then(|((_, plans), n)| plans.get(n));
        plan.map_or(&[], |plan| &plan.groups)
    }
}

fn nic(row: &NetworkRow, card: &NicRow) -> NicAssignment {
    NicAssignment { network: row.id, mac: row.mac(card.host_number) }
}

/// The network without members and ports.
fn network(row: &NetworkRow) -> NetworkAssignment {
    let mode = match row.mode {
        Mode::Nat => NetworkMode::Nat,
        Mode::Isolated => NetworkMode::Isolated,
        Mode::Bridge => NetworkMode::Bridge { bridge: row.bridge.clone().unwrap_or_default() },
    };
    NetworkAssignment {
        network: row.id,
        name: row.name.clone(),
        project: row.project.clone(),
        vni: row.vni,
        mode,
        subnet_v4: row.subnet_v4.unwrap_or(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        gateway_v4: row.gateway_v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
        subnet_v6: row.subnet_v6,
        gateway_v6: row.gateway_v6(),
        gateway_mac: rules::gateway_mac(row.vni),
        dns: row.dns.clone(),
        domain: rules::domain(&row.name, &row.project),
        mtu: row.mtu,
        members: Vec::new(),
        published: Vec::new(),
    }
}

fn shown(row: &NetworkRow, member: &Member, plans: &Plans) -> NetworkMember {
    let host = member.nic.host_number;
    NetworkMember {
        node: member.node,
        host_name: host_name(&member.name),
        mac: row.mac(host),
        address_v4: row.address_v4(host),
        address_v6: row.address_v6(host),
        groups: plans.groups(member).to_vec(),
    }
}

fn published_port(row: &NetworkRow, card: &NicRow, port: &PublishedRow) -> Option<PublishedPort> {
    Some(PublishedPort {
        node_port: port.node_port,
        protocol: port.protocol,
        address: row.address_v4(card.host_number)?,
        port: port.port,
    })
}
