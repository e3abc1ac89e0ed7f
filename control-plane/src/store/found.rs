//! Found instances: what nodes hold and no row of `instances` stands for. A row goes when the instance is taken back, or
//! when its node has nothing of it any more.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{InstanceId, MacAddress, NodeId, Timestamp, deployment::Runtime, node_protocol::InstanceReport};

use super::{
    StoreError, Tx, bulk, column,
    row::{columns, select, select_one},
};

/// Row of a found instance.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundRow {
    /// Its id.
    pub id: InstanceId,
    /// The project that owned it; `default` if its node does not know.
    pub project: String,
    /// The node that holds it.
    pub node: NodeId,
    /// What runs it.
    pub runtime: Runtime,
    /// Virtual processors that it uses; 0 if its node does not know.
    pub cpus: u32,
    /// Memory that it uses, bytes; 0 if its node does not know.
    pub memory_bytes: u64,
    /// What its node last reported. Its field `found` is always set.
    pub report: InstanceReport,
    /// Whether its node is told to delete it.
    pub forgotten: bool,
    /// When it was first reported.
    pub created_at: Timestamp,
    /// When its report last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

columns!(
    "found_instances", FoundRow: id, project, node, runtime, cpus, memory_bytes, report, forgotten, created_at,
    updated_at, revision, seq,
);

/// Inserts a found instance.
pub async fn insert(tx: &mut Tx, row: &FoundRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await
}

const SAVE: &str = "-- found_instances.save
UPDATE found_instances SET report = $2, forgotten = $3, updated_at = $4, revision = revision + 1
WHERE id = $1 AND revision = $5";

/// Saves report and fate. A [`StoreError::Conflict`] if somebody else saved it since it was read.
pub async fn save(tx: &mut Tx, row: &FoundRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE)
        .bind(row.id.to_string())
        .bind(column::json_text(&row.report)?)
        .bind(i64::from(row.forgotten))
        .bind(now)
        .bind(row.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "found_instances", row.id)
}

/// The found instance with this id.
pub async fn load(tx: &mut Tx, id: InstanceId) -> Result<Option<FoundRow>, StoreError> {
    select_one(tx, "found_instances.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The found instances of a node.
pub async fn on_node(tx: &mut Tx, node: NodeId) -> Result<BTreeMap<InstanceId, FoundRow>, StoreError> {
    let rows: Vec<FoundRow> =
        select(tx, "found_instances.on_node", "WHERE node = $1 ORDER BY seq", [node.to_string().into()]).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Found instances after the place `after`, in the order in which they were found.
pub async fn list(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<FoundRow>, StoreError> {
    let rest = "WHERE seq > $1 ORDER BY seq LIMIT $2";
    select(tx, "found_instances.list", rest, [after.into(), limit.into()]).await
}

const REPORTS: &str = "-- found_instances.reports
SELECT report FROM found_instances";

/// What nodes last reported of all found instances.
pub async fn reports(tx: &mut Tx) -> Result<Vec<InstanceReport>, StoreError> {
    let rows = sqlx::query(REPORTS).fetch_all(tx.conn()).await?;
    rows.iter().map(|row| column::read(row, "report")).collect()
}

/// The MAC addresses that the cards of all found instances have.
pub async fn macs(tx: &mut Tx) -> Result<BTreeSet<MacAddress>, StoreError> {
    let mut macs = BTreeSet::new();
    for report in reports(tx).await? {
        let told = report.found.and_then(|found| found.told);
        macs.extend(told.into_iter().flat_map(|told| told.nics).map(|nic| nic.mac));
    }
    Ok(macs)
}

const COUNT: &str = "-- found_instances.count
SELECT CAST(COUNT(*) AS BIGINT) AS n FROM found_instances WHERE forgotten = 0";

/// How many wait for an operator's word.
pub async fn count(tx: &mut Tx) -> Result<u64, StoreError> {
    let row = sqlx::query(COUNT).fetch_one(tx.conn()).await?;
    column::read(&row, "n")
}

const DELETE: &str = "-- found_instances.delete
DELETE FROM found_instances WHERE id = $1";

/// Drops the row of one.
pub async fn delete(tx: &mut Tx, id: InstanceId) -> Result<(), StoreError> {
    sqlx::query(DELETE).bind(id.to_string()).execute(tx.conn()).await?;
    Ok(())
}

const DELETE_OF_NODE: &str = "-- found_instances.delete_of_node
DELETE FROM found_instances WHERE node = $1";

/// Drops the rows of a node that is lost. Returns how many.
pub async fn delete_of_node(tx: &mut Tx, node: NodeId) -> Result<u64, StoreError> {
    Ok(sqlx::query(DELETE_OF_NODE).bind(node.to_string()).execute(tx.conn()).await?.rows_affected())
}
