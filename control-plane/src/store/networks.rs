//! Networks: rows and SQL.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use muster_api::{
    Labels, MacAddress, NetworkId, Timestamp,
    network::{NetworkMode, NetworkState},
    operation::Target,
};

use super::{
    Filter, StoreError, Tx,
    bulk::{self, Conditions},
    column,
    row::{columns, select_one},
};
use crate::domain::network as rules;

/// Row of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its id.
    pub id: NetworkId,
    /// The project that owns it.
    pub project: String,
    /// Name, unique among the project's that are not deleted.
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// Whether it is deleted.
    pub state: NetworkState,
    /// How it is connected to the outside.
    pub mode: NetworkMode,
    /// The bridge on the hosts, with mode `bridge` only.
    pub bridge: Option<String>,
    /// The range of its IPv4 addresses; `None` with mode `bridge`.
    pub subnet_v4: Option<Ipv4Net>,
    /// The address of the gateway; `None` with mode `bridge`.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The range of its IPv6 addresses, if it has any.
    pub subnet_v6: Option<Ipv6Net>,
    /// Name servers; empty for those of the nodes.
    pub dns: Vec<IpAddr>,
    /// Largest packet, bytes.
    pub mtu: u16,
    /// Its number in tunnel packets.
    pub vni: u32,
    /// The host number that was given last.
    pub last_host: u16,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl NetworkRow {
    /// How events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "network".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }

    /// The host number of the gateway; `None` with mode `bridge`.
    #[must_use]
    pub fn gateway_host(&self) -> Option<u16> {
        self.subnet_v4.zip(self.gateway_v4).and_then(|(subnet, gateway)| rules::host_of(subnet, gateway))
    }

    /// The IPv6 address of the gateway; `None` if the network has no such addresses.
    #[must_use]
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.gateway_host().and_then(|host| self.address_v6(host))
    }

    /// The MAC address of the card with this host number.
    #[must_use]
    pub fn mac(&self, host: u16) -> MacAddress {
        rules::mac(self.vni, self.subnet_v4, host)
    }

    /// The host number of the card with this MAC address; `None` if the address is of another network.
    #[must_use]
    pub fn host_with_mac(&self, mac: MacAddress) -> Option<u16> {
        rules::host_with_mac(self.vni, self.subnet_v4, mac)
    }

    /// The IPv4 address of the card with this host number; `None` with mode `bridge`.
    #[must_use]
    pub fn address_v4(&self, host: u16) -> Option<Ipv4Addr> {
        self.subnet_v4.map(|subnet| rules::address(subnet, host))
    }

    /// The IPv6 address of the card with this host number; `None` if the network has no such addresses.
    #[must_use]
    pub fn address_v6(&self, host: u16) -> Option<Ipv6Addr> {
        self.subnet_v6.map(|subnet| rules::address_v6(subnet, host))
    }
}

columns!(
    "networks", NetworkRow: id, project, name, labels, state, mode, bridge, subnet_v4, gateway_v4, subnet_v6, dns, mtu,
    vni, last_host, created_at, updated_at, revision, seq,
);

/// Inserts a network.
pub async fn insert(tx: &mut Tx, row: &NetworkRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await
}

/// The network with this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: NetworkId) -> Result<Option<NetworkRow>, StoreError> {
    select_one(tx, "networks.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The networks with these ids that exist, also deleted ones.
pub async fn load_many(tx: &mut Tx, ids: &[NetworkId]) -> Result<Vec<NetworkRow>, StoreError> {
    bulk::load_many(tx, "networks.load_many", ids).await
}

/// The project's network of that name, if it is not deleted.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<NetworkRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state <> 'deleted'";
    select_one(tx, "networks.by_name", rest, [project.into(), name.into()]).await
}

/// Networks after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<NetworkRow>, StoreError> {
    let mut conditions = Conditions::of_list(filter, after)?;
    conditions.one_of("state", &filter.states);
    conditions.fetch(tx, "networks.list", limit).await
}

/// How many networks the project has, or all projects have, by state.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "networks", project).await
}

const SAVE: &str = "-- networks.save
UPDATE networks SET name = $3, labels = $4, dns = $5, mtu = $6, state = $7, updated_at = $8, deleted_at = $9,
    revision = revision + 1
WHERE id = $1 AND revision = $2 AND state <> 'deleted'";

/// Saves what may change. A [`StoreError::Conflict`] if it was deleted or somebody else saved it since it was read.
pub async fn save(tx: &mut Tx, row: &NetworkRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE)
        .bind(row.id.to_string())
        .bind(row.revision)
        .bind(&row.name)
        .bind(column::json_text(&row.labels)?)
        .bind(column::json_text(&row.dns)?)
        .bind(i64::from(row.mtu))
        .bind(column::word_text(row.state)?)
        .bind(now)
        .bind((row.state == NetworkState::Deleted).then_some(now))
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "networks", row.id)
}

const LAST_HOST: &str = "-- networks.last_host
UPDATE networks SET last_host = $2 WHERE id = $1";

/// Notes which host number was given last. Callers do not see that, so the revision stays.
pub async fn save_last_host(tx: &mut Tx, id: NetworkId, host: u16) -> Result<(), StoreError> {
    sqlx::query(LAST_HOST).bind(id.to_string()).bind(i64::from(host)).execute(tx.conn()).await?;
    Ok(())
}

/// The highest number of a network.
const VNI_MAX: u32 = (1 << 24) - 1;

const HIGHEST_VNI: &str = "-- networks.highest_vni
SELECT CAST(COALESCE(MAX(vni), 0) AS BIGINT) AS vni FROM networks";

const LOWEST_FREE_VNI: &str = "-- networks.lowest_free_vni
SELECT CAST(MIN(n.vni) + 1 AS BIGINT) AS vni FROM (SELECT 0 AS vni UNION ALL SELECT vni FROM networks) AS n
WHERE NOT EXISTS (SELECT 1 FROM networks o WHERE o.vni = n.vni + 1)";

/// A number that no network has: the next one, or the lowest free one once the highest is in use. `None` if none is free.
pub async fn free_vni(tx: &mut Tx) -> Result<Option<u32>, StoreError> {
    let highest: u32 = column::read(&sqlx::query(HIGHEST_VNI).fetch_one(tx.conn()).await?, "vni")?;
    if highest < VNI_MAX {
        return Ok(Some(highest + 1));
    }
    let lowest: u32 = column::read(&sqlx::query(LOWEST_FREE_VNI).fetch_one(tx.conn()).await?, "vni")?;
    Ok((lowest <= VNI_MAX).then_some(lowest))
}

const FORGET: &str = "-- networks.forget
DELETE FROM networks WHERE deleted_at < $1";

/// Drops networks that were deleted before that time. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}
