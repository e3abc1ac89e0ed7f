//! What nodes promise to instances. The sums are columns of the nodes, because the scheduler reads them for every
//! deployment; they are written at the commit, once for all callers (`tx.rs`). Found instances count as well: they run.

use std::collections::BTreeMap;

use muster_api::NodeId;

use sqlx::any::AnyRow;

use super::{
    StoreError, Tx, bulk, column,
    nodes::NodeRow,
    row::{self, Row as _},
};
use crate::domain::promised::{Change, Promised};

const SUMS: &str = "SELECT node AS held_by, CAST(SUM(instances) AS BIGINT) AS held_instances,
    CAST(SUM(cpus) AS BIGINT) AS held_cpus, CAST(SUM(memory_bytes) AS BIGINT) AS held_memory_bytes
FROM (SELECT id AS node, promised_instances AS instances, promised_cpus AS cpus, promised_memory_bytes AS memory_bytes
        FROM nodes
    UNION ALL SELECT node, 1 AS instances, CASE WHEN runtime = 'libvirt' THEN cpus ELSE 0 END AS cpus,
        CASE WHEN runtime = 'libvirt' THEN memory_bytes ELSE 0 END AS memory_bytes FROM found_instances) AS held GROUP BY node";

/// What each node has promised. Nodes that promised nothing are absent. A stopped instance keeps what it was promised.
pub async fn by_node(tx: &mut Tx) -> Result<BTreeMap<NodeId, Promised>, StoreError> {
    let rows = row::query(format!("-- promises.by_node\n{SUMS}"), []).fetch_all(tx.conn()).await?;
    let mut promises = BTreeMap::new();
    for row in &rows {
        let node = column::read(row, "held_by")?;
        let promised = read(tx, node, row)?;
        if promised != Promised::default() {
            promises.insert(node, promised);
        }
    }
    Ok(promises)
}

/// All nodes that are not deleted, in id order, with what they have promised.
pub async fn nodes(tx: &mut Tx) -> Result<Vec<(NodeRow, Promised)>, StoreError> {
    let nodes = NodeRow::SELECT;
    let sql = format!(
        "-- promises.nodes\nSELECT * FROM ({nodes} WHERE deleted_at IS NULL) AS n JOIN ({SUMS}) AS s ON s.held_by = n.id ORDER BY n.id"
    );
    let rows = row::query(sql, []).fetch_all(tx.conn()).await?;
    rows.iter()
        .map(|row| {
            let node = NodeRow::from_row(row)?;
            let promised = read(tx, node.id, row)?;
            Ok((node, promised))
        })
        .collect()
}

fn read(tx: &Tx, node: NodeId, row: &AnyRow) -> Result<Promised, StoreError> {
    let stored = Promised {
        instances: column::read(row, "held_instances")?,
        cpus: column::read(row, "held_cpus")?,
        memory_bytes: column::read(row, "held_memory_bytes")?,
    };
    Ok(stored.after(tx.promises().of(node)))
}

const CHANGE: &str = "-- promises.change
UPDATE nodes SET promised_instances = promised_instances + v.column2, promised_cpus = promised_cpus + v.column3,
    promised_memory_bytes = promised_memory_bytes + v.column4
FROM (";

/// Writes what instances that came and went in this transaction change.
pub(super) async fn write(tx: &mut Tx) -> Result<(), StoreError> {
    let row = |(node, change): (NodeId, Change)| {
        vec![node.to_string().into(), change.instances.into(), change.cpus.into(), change.memory_bytes.into()]
    };
    let rows: Vec<_> = tx.promises().iter().map(row).collect();
    bulk::run(tx, CHANGE, rows, ") AS v WHERE nodes.id = v.column1").await.map(|_| ())
}
