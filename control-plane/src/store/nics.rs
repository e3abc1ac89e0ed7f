//! Network cards of instances, what deployments use, and published ports: rows and SQL.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::RangeInclusive,
};

use muster_api::{DeploymentId, InstanceId, NetworkId, NodeId, SecurityGroupId, node_protocol::network::PortProtocol};
use sqlx::any::AnyRow;

use super::{
    StoreError, Tx, bulk, column,
    row::{Row as _, columns},
};

/// Row of a card. The rest of it is in the deployment's nic with the same position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicRow {
    /// The instance that has it.
    pub instance: InstanceId,
    /// Its place among the cards of the instance, from 0.
    pub position: u64,
    /// The network that it is in.
    pub network: NetworkId,
    /// Its number in the network, from which its addresses follow.
    pub host_number: u16,
}

columns!("nics", NicRow: instance, position, network, host_number);

/// Row of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedRow {
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The port on the node of the instance.
    pub node_port: u16,
    /// The instance that it leads to.
    pub instance: InstanceId,
    /// The card that it leads to.
    pub position: u64,
    /// The port of the instance.
    pub port: u16,
}

columns!("published_ports", PublishedRow: protocol, node_port, instance, position, port);

/// Inserts cards and published ports.
pub async fn insert(tx: &mut Tx, nics: &[NicRow], published: &[PublishedRow]) -> Result<(), StoreError> {
    bulk::insert(tx, nics).await?;
    bulk::insert(tx, published).await
}

const FREE: &str = "-- nics.free
DELETE FROM nics WHERE instance";
const FREE_PORTS: &str = "-- published_ports.free
DELETE FROM published_ports WHERE instance";

/// Takes the cards from these instances, so that others can have their addresses and ports.
pub(super) async fn free(tx: &mut Tx, instances: &[InstanceId]) -> Result<(), StoreError> {
    bulk::select_in(tx, FREE, instances, "").await?;
    bulk::select_in(tx, FREE_PORTS, instances, "").await.map(|_| ())
}

const TAKEN: &str = "-- nics.taken
SELECT host_number FROM nics WHERE network = $1 AND host_number BETWEEN $2 AND $3";

/// The host numbers in this range that cards of the network have.
pub async fn taken(tx: &mut Tx, network: NetworkId, range: &RangeInclusive<u16>) -> Result<BTreeSet<u16>, StoreError> {
    let query =
        sqlx::query(TAKEN).bind(network.to_string()).bind(i64::from(*range.start())).bind(i64::from(*range.end()));
    query.fetch_all(tx.conn()).await?.iter().map(|row| column::read(row, "host_number")).collect()
}

const COUNT: &str = "-- nics.count
SELECT network, CAST(COUNT(*) AS BIGINT) AS n FROM nics WHERE network";

/// How many cards each of these networks has. Networks without any are absent.
pub async fn count(tx: &mut Tx, networks: &[NetworkId]) -> Result<BTreeMap<NetworkId, u64>, StoreError> {
    let rows = bulk::select_in(tx, COUNT, networks, " GROUP BY network").await?;
    rows.iter().map(|row| Ok((column::read(row, "network")?, column::read(row, "n")?))).collect()
}

const COUNT_ALL: &str = "-- nics.count_all
SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM nics) AS nics,
    (SELECT CAST(COUNT(*) AS BIGINT) FROM published_ports) AS published";

/// How many cards and how many published ports there are in all projects.
pub async fn count_all(tx: &mut Tx) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(COUNT_ALL).fetch_one(tx.conn()).await?;
    Ok((column::read(&row, "nics")?, column::read(&row, "published")?))
}

/// The cards of these instances, by instance, in the order of their positions.
pub async fn of_instances(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Vec<NicRow>>, StoreError> {
    let mut cards: BTreeMap<InstanceId, Vec<NicRow>> = BTreeMap::new();
    let head = format!("-- nics.of_instances\n{} WHERE instance", NicRow::SELECT);
    for row in bulk::select_in(tx, &head, ids, " ORDER BY position").await? {
        let card = NicRow::from_row(&row)?;
        cards.entry(card.instance).or_default().push(card);
    }
    Ok(cards)
}

/// The published ports of these instances, by instance.
pub async fn published_of(
    tx: &mut Tx,
    ids: &[InstanceId],
) -> Result<BTreeMap<InstanceId, Vec<PublishedRow>>, StoreError> {
    let mut ports: BTreeMap<InstanceId, Vec<PublishedRow>> = BTreeMap::new();
    let head = format!("-- published_ports.of_instances\n{} WHERE instance", PublishedRow::SELECT);
    for row in bulk::select_in(tx, &head, ids, " ORDER BY node_port").await? {
        let port = PublishedRow::from_row(&row)?;
        ports.entry(port.instance).or_default().push(port);
    }
    Ok(ports)
}

/// All ports of nodes that are in use, in the whole cluster.
pub async fn published_ports(tx: &mut Tx) -> Result<BTreeSet<(PortProtocol, u16)>, StoreError> {
    let rows = sqlx::query("-- published_ports.all\nSELECT protocol, node_port FROM published_ports");
    let rows = rows.fetch_all(tx.conn()).await?;
    rows.iter().map(|row| Ok((column::read(row, "protocol")?, column::read(row, "node_port")?))).collect()
}

/// A card in a network, and its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The card.
    pub nic: NicRow,
    /// The node of its instance.
    pub node: NodeId,
    /// Name of its instance.
    pub name: String,
    /// The deployment of its instance.
    pub deployment: DeploymentId,
}

// What is being deleted has left its networks: its node is told to end it.
const MEMBERS: &str = "-- nics.members
SELECT c.instance, c.position, c.network, c.host_number, i.node, i.name, i.deployment
FROM nics c JOIN instances i ON i.id = c.instance
WHERE i.node IS NOT NULL AND i.wanted <> 'gone' AND c.network";

/// All cards in these networks whose instances have a node, in the order of their host numbers.
pub async fn members(tx: &mut Tx, networks: &[NetworkId]) -> Result<Vec<Member>, StoreError> {
    let member = |row: &AnyRow| {
        Ok(Member {
            nic: NicRow::from_row(row)?,
            node: column::read(row, "node")?,
            name: column::read(row, "name")?,
            deployment: column::read(row, "deployment")?,
        })
    };
    let rows = bulk::select_in(tx, MEMBERS, networks, " ORDER BY c.network, c.host_number").await?;
    rows.iter().map(member).collect()
}

const NODES_OF_NETWORKS: &str = "-- nics.nodes_of_networks
SELECT DISTINCT i.node FROM nics c JOIN instances i ON i.id = c.instance WHERE i.node IS NOT NULL AND c.network";

/// Gives the desired state of each node with a card in one of these networks its next revision.
pub async fn tell_nodes(tx: &mut Tx, networks: &[NetworkId]) -> Result<(), StoreError> {
    let rows = bulk::select_in(tx, NODES_OF_NETWORKS, networks, "").await?;
    bump(tx, &rows)
}

const NETWORKS_OF: &str = "-- nics.networks_of
SELECT DISTINCT network FROM nics WHERE instance";

/// As [`tell_nodes`] for the networks of these instances, which come to their nodes or leave them.
pub async fn members_changed(tx: &mut Tx, instances: &[InstanceId]) -> Result<(), StoreError> {
    let rows = bulk::select_in(tx, NETWORKS_OF, instances, "").await?;
    let networks = rows.iter().map(|row| column::read(row, "network")).collect::<Result<BTreeSet<NetworkId>, _>>()?;
    tell_nodes(tx, &networks.into_iter().collect::<Vec<_>>()).await
}

const NODES_OF_GROUP: &str = "-- nics.nodes_of_group
SELECT DISTINCT node FROM instances
WHERE node IS NOT NULL AND deployment IN (SELECT deployment FROM deployment_uses WHERE used = $1)";

/// Gives the desired state of each node that has a card with this security group its next revision.
pub async fn tell_nodes_of_group(tx: &mut Tx, group: SecurityGroupId) -> Result<(), StoreError> {
    let rows = sqlx::query(NODES_OF_GROUP).bind(group.to_string()).fetch_all(tx.conn()).await?;
    bump(tx, &rows)
}

fn bump(tx: &mut Tx, rows: &[AnyRow]) -> Result<(), StoreError> {
    for row in rows {
        tx.bump_desired(column::read(row, "node")?);
    }
    Ok(())
}

const USE: &str = "-- deployment_uses.insert
INSERT INTO deployment_uses (deployment, used)";

/// Notes that a deployment uses these networks and security groups.
pub async fn note_uses(tx: &mut Tx, deployment: DeploymentId, used: BTreeSet<String>) -> Result<(), StoreError> {
    let rows = used.into_iter().map(|used| vec![deployment.to_string().into(), used.into()]).collect();
    bulk::run(tx, USE, rows, " ON CONFLICT DO NOTHING").await.map(|_| ())
}

const FORGET_USES: &str = "-- deployment_uses.forget
DELETE FROM deployment_uses WHERE deployment = $1";

/// Notes that a deployment is deleted and uses nothing any more.
pub(super) async fn forget_uses(tx: &mut Tx, deployment: DeploymentId) -> Result<(), StoreError> {
    sqlx::query(FORGET_USES).bind(deployment.to_string()).execute(tx.conn()).await?;
    Ok(())
}

const USERS: &str = "-- deployment_uses.users
SELECT CAST(COUNT(*) AS BIGINT) AS n FROM deployment_uses WHERE used = $1";

/// How many deployments use this network or security group.
pub async fn users(tx: &mut Tx, used: impl Display) -> Result<u64, StoreError> {
    column::read(&sqlx::query(USERS).bind(used.to_string()).fetch_one(tx.conn()).await?, "n")
}
