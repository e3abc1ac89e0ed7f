//! Disks that were on a node when it was declared dead, and whether what they held came back.

use muster_api::{
    CommitId, DiskId, InstanceId, NodeId, Timestamp, VersionId,
    node::{Salvage, SalvageState},
};

use super::{
    StoreError, Tx, bulk, column,
    row::{columns, select, select_one},
};

/// Row of a disk of a dead node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvageRow {
    /// The node that was declared dead.
    pub node: NodeId,
    /// The disk that was on it.
    pub disk: DiskId,
    /// Name that the disk had within the instance.
    pub disk_name: String,
    /// The instance that the disk belongs to.
    pub instance: InstanceId,
    /// The name that the instance had then.
    pub instance_name: String,
    /// The project that owns it.
    pub project: String,
    /// Size of the disk, bytes.
    pub size_bytes: u64,
    /// The commit that saving it is. Drawn once, so that a repeated call saves nothing twice.
    pub commit_id: CommitId,
    /// What has become of it.
    pub state: SalvageState,
    /// What keeps it from being saved, or what was saved, in a sentence.
    pub detail: Option<String>,
    /// The version that holds what was saved.
    pub version: Option<VersionId>,
    /// The newest version of the disk when the node was declared dead. The sweep keeps it while the disk is awaited.
    pub base: Option<VersionId>,
    /// The version that the node had last reported. It is kept as well: the node may not have heard of a newer one.
    pub reported_base: Option<VersionId>,
    /// When the node was declared dead.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Its place in lists.
    pub seq: i64,
}

columns!(
    "salvage", SalvageRow: node, disk, disk_name, instance, instance_name, project, size_bytes, commit_id, state, detail,
    version, base, reported_base, created_at, updated_at, seq,
);

impl SalvageRow {
    /// As the API tells it.
    #[must_use]
    pub fn view(self) -> Salvage {
        Salvage {
            disk: self.disk,
            disk_name: self.disk_name,
            instance: self.instance,
            instance_name: self.instance_name,
            project: self.project,
            state: self.state,
            detail: self.detail,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// Inserts rows.
pub async fn insert_many(tx: &mut Tx, rows: &[SalvageRow]) -> Result<(), StoreError> {
    bulk::insert(tx, rows).await
}

/// The disk of a dead node.
pub async fn load(tx: &mut Tx, node: NodeId, disk: DiskId) -> Result<Option<SalvageRow>, StoreError> {
    let rest = "WHERE node = $1 AND disk = $2";
    select_one(tx, "salvage.load", rest, [node.to_string().into(), disk.to_string().into()]).await
}

/// The disks of a dead node after the place `after`.
pub async fn list(tx: &mut Tx, node: NodeId, after: i64, limit: i64) -> Result<Vec<SalvageRow>, StoreError> {
    let rest = "WHERE node = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    select(tx, "salvage.list", rest, [node.to_string().into(), after.into(), limit.into()]).await
}

/// The disks of a dead node that are awaited, at most `limit`.
pub async fn awaited(tx: &mut Tx, node: NodeId, limit: i64) -> Result<Vec<SalvageRow>, StoreError> {
    let rest = "WHERE node = $1 AND state = 'awaited' ORDER BY seq LIMIT $2";
    select(tx, "salvage.awaited", rest, [node.to_string().into(), limit.into()]).await
}

const AWAITED_NODES: &str = "-- salvage.awaited_nodes
SELECT DISTINCT node FROM salvage WHERE state = 'awaited' ORDER BY node";

/// The dead nodes of which a disk is awaited.
pub async fn awaited_nodes(tx: &mut Tx) -> Result<Vec<NodeId>, StoreError> {
    let rows = sqlx::query(AWAITED_NODES).fetch_all(tx.conn()).await?;
    rows.iter().map(|row| column::read(row, "node")).collect()
}

/// Whether this version has all that a dead node held of the disk.
pub async fn is_whole(tx: &mut Tx, disk: DiskId, version: VersionId) -> Result<bool, StoreError> {
    let rest = "WHERE disk = $1 AND state = 'saved' ORDER BY seq DESC LIMIT 1";
    let newest: Option<SalvageRow> = select_one(tx, "salvage.newest", rest, [disk.to_string().into()]).await?;
    Ok(newest.is_some_and(|row| row.version == Some(version)))
}

const SAVE: &str = "-- salvage.save
UPDATE salvage SET state = $3, detail = $4, version = $5, updated_at = $6, revision = revision + 1
WHERE node = $1 AND disk = $2";

/// Saves state, detail and version.
pub async fn save(tx: &mut Tx, row: &SalvageRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(SAVE)
        .bind(row.node.to_string())
        .bind(row.disk.to_string())
        .bind(column::word_text(row.state)?)
        .bind(row.detail.as_deref())
        .bind(row.version.map(|version| version.to_string()))
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

const END_UPLOADS: &str = "-- salvage.end_uploads
UPDATE uploads SET ended_at = $2, revision = revision + 1 WHERE ended_at IS NULL AND target_kind = 'disk'
    AND target_id IN (SELECT commit_id FROM salvage WHERE node = $1 AND state <> 'awaited')";

/// Ends the uploads of disks of this node that are not awaited any more: no round of the sweep could begin before the ends of
/// their leases.
pub async fn end_uploads(tx: &mut Tx, node: NodeId) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(END_UPLOADS).bind(node.to_string()).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const GIVE_UP: &str = "-- salvage.give_up
UPDATE salvage SET state = 'given_up', updated_at = $2, revision = revision + 1 WHERE node = $1 AND state = 'awaited'";

/// Nobody waits for the disks of this node any more. Returns how many that were.
pub async fn give_up(tx: &mut Tx, node: NodeId) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(GIVE_UP).bind(node.to_string()).bind(now).execute(tx.conn()).await?.rows_affected())
}
