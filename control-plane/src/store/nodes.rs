//! Nodes: who joined, what they offer, what they said last; and the history of the membership record.

use std::collections::{BTreeMap, HashSet};

use muster_api::{
    Labels, NodeId, RunId, StoreId, Timestamp,
    condition::{Condition, ConditionKind},
    deployment::Runtime,
    firmware::MachineFeature,
    node::{NodeState, PoolUse},
    node_protocol::Offer,
    operation::Target,
};
use storage_core::membership::SignedMembership;

use super::{
    StoreError, Tx, bulk,
    column::{self, Cell},
    row::{self, columns, select, select_one},
};

/// Row of a node. It stays when the node is removed; then its state is `deleted`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Name, unique among the nodes that are not deleted.
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// `joining` until its first heartbeat, `silent` when none came for 30 s, `fenced` once it was declared dead.
    pub state: NodeState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<String>,
    /// Whether new instances may be placed on it; false when cordoned.
    pub schedulable: bool,
    /// Failure domain that the agent named when it joined; `None` if it named none.
    pub zone: Option<String>,
    /// `IP:PORT` of its peer server.
    pub address: String,
    /// The id of its share of the pool.
    pub store: StoreId,
    /// SHA-256 of its public key, hex. The node is known by it.
    pub key_sha256: String,
    /// Weight of its share of the pool, GiB.
    pub weight: u32,
    /// Whether objects of the pool belong on it; false while it is out because it is silent for long, or is drained.
    pub accepting: bool,
    /// Virtual processors that it offers to instances, as its agent last said.
    pub cpus: u32,
    /// Memory that it offers, bytes.
    pub memory_bytes: u64,
    /// How full its share of the pool is.
    pub pool: PoolUse,
    /// Conditions that an operator should know of.
    pub conditions: Vec<Condition>,
    /// The runtimes that it can run.
    pub runtimes: Vec<Runtime>,
    /// `kvm` or `qemu`; `None` until it says so.
    pub hypervisor: Option<String>,
    /// Version of its agent, as the agent last said.
    pub agent_version: String,
    /// Version of the node protocol that it speaks.
    pub protocol: u32,
    /// Revision of its desired state, raised by each change of it.
    pub desired_revision: u64,
    /// When it joined: the time of that transaction.
    pub created_at: Timestamp,
    /// When its row last changed.
    pub updated_at: Timestamp,
    /// `IP:PORT` at which it takes packets of networks from other nodes; `None` if it can have no networks.
    pub tunnel: Option<String>,
    /// What its machines can have that not all nodes offer, as its agent last said.
    pub features: Vec<MachineFeature>,
    /// Its last heartbeat, at most a few seconds late.
    pub last_seen_at: Option<Timestamp>,
    /// The agent process that acts as the node; `None` until one registered.
    pub run: Option<RunId>,
    /// When that process registered.
    pub run_at: Option<Timestamp>,
    /// When its agent ended in order; `None` once it is heard from again. Set only while the state is `silent`.
    pub stopped_at: Option<Timestamp>,
    /// When an operator declared it dead. It stays set when the node is removed, so that a node that returns learns it.
    pub fenced_at: Option<Timestamp>,
    /// When it began to be drained of its objects; `None` while it is not.
    pub draining_at: Option<Timestamp>,
    /// When it was found to be empty after that.
    pub drained_at: Option<Timestamp>,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl NodeRow {
    /// The state as it is shown: a node whose agent ended in order is `stopped` and not `silent`.
    #[must_use]
    pub fn shown_state(&self) -> NodeState {
        if self.state == NodeState::Silent && self.stopped_at.is_some() { NodeState::Stopped } else { self.state }
    }

    /// The address at which other nodes and clients reach it.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']))
    }

    /// How operations and events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "node".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }
}

columns!(
    "nodes", NodeRow: id, name, labels, state, reason, schedulable, zone, address, store, key_sha256, weight, accepting,
    cpus, memory_bytes, pool, conditions, runtimes, hypervisor, agent_version, protocol, desired_revision, created_at,
    updated_at, tunnel, features, last_seen_at, run, run_at, stopped_at, fenced_at, draining_at, drained_at,
    revision, seq,
);

/// Inserts a node that joined.
pub async fn insert(tx: &mut Tx, node: &NodeRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(node)).await
}

const SAVE: &str = "-- nodes.save
UPDATE nodes SET name = $2, labels = $3, state = $4, reason = $5, schedulable = $6, zone = $7, address = $8,
    weight = $9, accepting = $10, cpus = $11, memory_bytes = $12, pool = $13, conditions = $14, runtimes = $15,
    hypervisor = $16, agent_version = $17, protocol = $18, updated_at = $19, last_seen_at = $20, deleted_at = $21,
    key_sha256 = $22, run = $23, run_at = $24, fenced_at = $25, stopped_at = $26, tunnel = $27, features = $28,
    draining_at = $29, drained_at = $30, revision = revision + 1
WHERE id = $1 AND revision = $31";

/// Saves a node. A [`StoreError::Conflict`] if somebody else saved it since it was read. `desired_revision` is not
/// saved: only [`Tx::bump_desired`] raises it.
pub async fn save(tx: &mut Tx, node: &NodeRow) -> Result<(), StoreError> {
    let now = tx.now();
    let deleted = (node.state == NodeState::Deleted).then_some(now.micros());
    let done = sqlx::query(SAVE)
        .bind(node.id.to_string())
        .bind(&node.name)
        .bind(column::json_text(&node.labels)?)
        .bind(column::word_text(node.state)?)
        .bind(node.reason.as_deref())
        .bind(i64::from(node.schedulable))
        .bind(node.zone.as_deref())
        .bind(&node.address)
        .bind(i64::from(node.weight))
        .bind(i64::from(node.accepting))
        .bind(i64::from(node.cpus))
        .bind(column::int(node.memory_bytes))
        .bind(column::json_text(&node.pool)?)
        .bind(column::json_text(&node.conditions)?)
        .bind(column::json_text(&node.runtimes)?)
        .bind(node.hypervisor.as_deref())
        .bind(&node.agent_version)
        .bind(i64::from(node.protocol))
        .bind(now.micros())
        .bind(column::opt_micros(node.last_seen_at))
        .bind(deleted)
        .bind(&node.key_sha256)
        .bind(node.run.map(|run| run.to_string()))
        .bind(column::opt_micros(node.run_at))
        .bind(column::opt_micros(node.fenced_at))
        .bind(column::opt_micros(node.stopped_at))
        .bind(node.tunnel.as_deref())
        .bind(column::json_text(&node.features)?)
        .bind(column::opt_micros(node.draining_at))
        .bind(column::opt_micros(node.drained_at))
        .bind(node.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "nodes", node.id)
}

/// The node of this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: NodeId) -> Result<Option<NodeRow>, StoreError> {
    select_one(tx, "nodes.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The node of this name, if it is not deleted.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<NodeRow>, StoreError> {
    select_one(tx, "nodes.by_name", "WHERE name = $1 AND deleted_at IS NULL", [name.into()]).await
}

/// The node with this pool, also a deleted one: a pool joins once.
pub async fn by_store(tx: &mut Tx, store: StoreId) -> Result<Option<NodeRow>, StoreError> {
    select_one(tx, "nodes.by_store", "WHERE store = $1", [store.to_string().into()]).await
}

/// The listed node with this key.
pub async fn by_key(tx: &mut Tx, key_sha256: &str) -> Result<Option<NodeRow>, StoreError> {
    select_one(tx, "nodes.by_key", "WHERE key_sha256 = $1 AND deleted_at IS NULL", [key_sha256.into()]).await
}

/// Whether a node has this key, or had it until it was removed.
pub async fn had_key(tx: &mut Tx, key_sha256: &str) -> Result<bool, StoreError> {
    let row: Option<NodeRow> =
        select_one(tx, "nodes.had_key", "WHERE key_sha256 = $1 LIMIT 1", [key_sha256.into()]).await?;
    Ok(row.is_some())
}

/// The node with this key that was declared dead, whether it was removed since or not.
pub async fn fenced_by_key(tx: &mut Tx, key_sha256: &str) -> Result<Option<NodeRow>, StoreError> {
    let rest = "WHERE key_sha256 = $1 AND fenced_at IS NOT NULL ORDER BY seq DESC LIMIT 1";
    select_one(tx, "nodes.fenced_by_key", rest, [key_sha256.into()]).await
}

/// The nodes with these ids, deleted or not.
pub async fn load_many(tx: &mut Tx, ids: &[NodeId]) -> Result<Vec<NodeRow>, StoreError> {
    bulk::load_many(tx, "nodes.load_many", ids).await
}

/// All nodes that are not deleted, in id order (the order of the membership record).
pub async fn listed(tx: &mut Tx) -> Result<Vec<NodeRow>, StoreError> {
    select(tx, "nodes.listed", "WHERE deleted_at IS NULL ORDER BY id", []).await
}

/// The names of all nodes that are not deleted.
pub async fn names(tx: &mut Tx) -> Result<BTreeMap<NodeId, String>, StoreError> {
    Ok(listed(tx).await?.into_iter().map(|node| (node.id, node.name)).collect())
}

const TUNNELS: &str = "-- nodes.tunnels
SELECT id, tunnel FROM nodes WHERE tunnel IS NOT NULL AND id";

/// Where those of these nodes that can have networks take packets of other nodes.
pub async fn tunnels(tx: &mut Tx, ids: &[NodeId]) -> Result<BTreeMap<NodeId, String>, StoreError> {
    let rows = bulk::select_in(tx, TUNNELS, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::read(row, "tunnel")?))).collect()
}

const WORDS: &str = "-- nodes.words
SELECT id, name, address FROM nodes";

/// The words by which a sentence can name a node: ids, names, addresses and their hosts, also of nodes that were deleted.
pub async fn words(tx: &mut Tx) -> Result<HashSet<String>, StoreError> {
    let mut words = HashSet::new();
    for row in sqlx::query(WORDS).fetch_all(tx.conn()).await? {
        let address: String = column::read(&row, "address")?;
        words.extend(address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_owned()));
        words.extend([column::read(&row, "id")?, column::read(&row, "name")?, address]);
    }
    Ok(words)
}

/// Nodes after `seq`, with those deleted since `deleted_since` if that is given.
pub async fn list(
    tx: &mut Tx,
    after: i64,
    deleted_since: Option<Timestamp>,
    limit: i64,
) -> Result<Vec<NodeRow>, StoreError> {
    let rest = "WHERE seq > $1 AND (deleted_at IS NULL OR deleted_at > $2) ORDER BY seq LIMIT $3";
    let since = deleted_since.map_or(i64::MAX, Timestamp::micros);
    select(tx, "nodes.list", rest, [after.into(), since.into(), limit.into()]).await
}

const BY_STATE: &str = "-- nodes.by_state
SELECT s.state AS state, CAST(COUNT(*) AS BIGINT) AS n FROM (
    SELECT CASE WHEN state = 'silent' AND stopped_at IS NOT NULL THEN 'stopped' ELSE state END AS state
    FROM nodes WHERE state <> 'deleted') s
GROUP BY s.state";

/// How many there are in each state, as it is shown.
pub async fn by_state(tx: &mut Tx) -> Result<BTreeMap<String, u64>, StoreError> {
    let rows = sqlx::query(BY_STATE).fetch_all(tx.conn()).await?;
    rows.iter().map(|row| Ok((column::read(row, "state")?, column::read(row, "n")?))).collect()
}

const OFFERS: &str = "-- nodes.offers
SELECT cpus, memory_bytes, pool FROM nodes WHERE state NOT IN ('deleted', 'fenced')";

/// What each node offers to instances, and its share of the pool. Deleted and fenced nodes offer nothing.
pub async fn offers(tx: &mut Tx) -> Result<Vec<(Offer, PoolUse)>, StoreError> {
    let rows = sqlx::query(OFFERS).fetch_all(tx.conn()).await?;
    rows.iter()
        .map(|row| {
            let offer = Offer { cpus: column::read(row, "cpus")?, memory_bytes: column::read(row, "memory_bytes")? };
            Ok((offer, column::read(row, "pool")?))
        })
        .collect()
}

/// Number of nodes that have each of these conditions. The table is read once.
pub async fn with_conditions(tx: &mut Tx, kinds: &[ConditionKind]) -> Result<BTreeMap<String, u64>, StoreError> {
    let count =
        |n| format!("CAST(COALESCE(SUM(CASE WHEN conditions LIKE ${n} THEN 1 ELSE 0 END), 0) AS BIGINT) AS n{n}");
    let counts: Vec<String> = (1..=kinds.len()).map(count).collect();
    let sql = format!(
        "-- nodes.with_conditions\nSELECT {} FROM nodes WHERE deleted_at IS NULL AND conditions <> '[]'",
        counts.join(", ")
    );
    let patterns = kinds.iter().map(|kind| Cell::from(format!("%\"kind\":\"{kind}\"%")));
    let row = row::query(sql, patterns).fetch_one(tx.conn()).await?;
    let counted = |(n, kind): (usize, &ConditionKind)| Ok((kind.to_string(), column::read(&row, &format!("n{n}"))?));
    (1..).zip(kinds).map(counted).collect()
}

const BUMP: &str = "-- nodes.bump_desired
UPDATE nodes SET desired_revision = desired_revision + 1 WHERE id";

/// Raises the revisions that [`Tx::bump_desired`] asked for.
pub(super) async fn raise_bumped(tx: &mut Tx) -> Result<(), StoreError> {
    let nodes = tx.bumped();
    bulk::select_in(tx, BUMP, &nodes, "").await.map(|_| ())
}

const NOT_DELETED: &str = "-- nodes.not_deleted
SELECT id FROM nodes WHERE deleted_at IS NULL";

/// As [`Tx::bump_desired`] for every node: the membership record changed.
pub async fn bump_all_desired(tx: &mut Tx) -> Result<(), StoreError> {
    for row in sqlx::query(NOT_DELETED).fetch_all(tx.conn()).await? {
        tx.bump_desired(column::read(&row, "id")?);
    }
    Ok(())
}

const DESIRED: &str = "-- nodes.desired_revision
SELECT desired_revision FROM nodes WHERE id = $1";

/// Newest revision of the node's desired state, also as this transaction raises it.
pub async fn desired_revision(tx: &mut Tx, node: NodeId) -> Result<u64, StoreError> {
    let row = sqlx::query(DESIRED).bind(node.to_string()).fetch_one(tx.conn()).await?;
    let stored: u64 = column::read(&row, "desired_revision")?;
    Ok(stored + u64::from(tx.bumped().contains(&node)))
}

const FLUSH: &str = "-- nodes.flush
UPDATE nodes SET last_seen_at = $2, pool = $3, conditions = $4 WHERE id = $1";

/// Stores what only matters for reading: no revision, so that heartbeats refuse nobody's save.
pub async fn flush(
    tx: &mut Tx,
    node: NodeId,
    seen: Timestamp,
    pool: &PoolUse,
    conditions: &[Condition],
) -> Result<(), StoreError> {
    sqlx::query(FLUSH)
        .bind(node.to_string())
        .bind(seen.micros())
        .bind(column::json_text(pool)?)
        .bind(column::json_text(conditions)?)
        .execute(tx.conn())
        .await?;
    Ok(())
}

const DOUBT_DRAINS: &str = "-- nodes.doubt_drains
UPDATE nodes SET drained_at = NULL, updated_at = $1, revision = revision + 1
WHERE drained_at IS NOT NULL AND deleted_at IS NULL";

/// No node counts as drained any more. Those that are being drained go on, and have to say anew that they are empty.
pub async fn doubt_drains(tx: &mut Tx) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(DOUBT_DRAINS).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const MEMBERSHIP: &str = "-- memberships.newest
SELECT epoch, record, signature FROM memberships ORDER BY epoch DESC LIMIT 1";

/// The newest membership record and its epoch.
pub async fn membership(tx: &mut Tx) -> Result<Option<(u64, SignedMembership)>, StoreError> {
    let Some(row) = sqlx::query(MEMBERSHIP).fetch_optional(tx.conn()).await? else { return Ok(None) };
    let signed =
        SignedMembership { record: column::read(&row, "record")?, signature: column::read(&row, "signature")? };
    Ok(Some((column::read(&row, "epoch")?, signed)))
}

const NEWEST_EPOCH: &str = "-- memberships.newest_epoch
SELECT MAX(epoch) AS epoch FROM memberships";

/// The epoch of the newest membership record; 0 before the first.
pub async fn newest_epoch(tx: &mut Tx) -> Result<u64, StoreError> {
    let epoch: Option<u64> = column::read(&sqlx::query(NEWEST_EPOCH).fetch_one(tx.conn()).await?, "epoch")?;
    Ok(epoch.unwrap_or(0))
}

const INSERT_MEMBERSHIP: &str = "-- memberships.insert
INSERT INTO memberships (epoch, record, signature, created_at) VALUES ($1, $2, $3, $4)";

/// Stores the signed record of a new membership epoch. Older records stay.
pub async fn insert_membership(tx: &mut Tx, epoch: u64, signed: &SignedMembership) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(INSERT_MEMBERSHIP)
        .bind(column::int(epoch))
        .bind(&signed.record)
        .bind(&signed.signature)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

const CLOSE: &str = "-- memberships.close
UPDATE memberships SET closed_at = $2 WHERE epoch < $1 AND closed_at IS NULL";

/// Closes all epochs before this one. Returns how many.
pub async fn close_memberships_before(tx: &mut Tx, epoch: u64) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(CLOSE).bind(column::int(epoch)).bind(now).execute(tx.conn()).await?.rows_affected())
}

const FORGET_CLOSED: &str = "-- memberships.forget_closed
DELETE FROM memberships WHERE closed_at < $1";

/// Drops the records of epochs that were closed before. Returns how many.
pub async fn forget_closed_memberships(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(FORGET_CLOSED).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}

const OPEN: &str = "-- memberships.open
SELECT record, signature FROM memberships WHERE closed_at IS NULL ORDER BY epoch DESC LIMIT $1";

/// The newest records of epochs that are not closed, newest first, at most so many.
pub async fn open_memberships(tx: &mut Tx, limit: i64) -> Result<Vec<SignedMembership>, StoreError> {
    let rows = sqlx::query(OPEN).bind(limit).fetch_all(tx.conn()).await?;
    let read =
        |row| Ok(SignedMembership { record: column::read(row, "record")?, signature: column::read(row, "signature")? });
    rows.iter().map(read).collect()
}

const OLDEST_OPEN: &str = "-- memberships.oldest_open
SELECT MIN(epoch) AS epoch FROM memberships WHERE closed_at IS NULL";

/// The oldest epoch that is not closed; `None` before the first one.
pub async fn oldest_open_membership(tx: &mut Tx) -> Result<Option<u64>, StoreError> {
    column::read(&sqlx::query(OLDEST_OPEN).fetch_one(tx.conn()).await?, "epoch")
}
