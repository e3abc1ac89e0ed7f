//! Which cluster this database belongs to: the cluster's id, its CA, and the incarnation of the database.

use muster_api::{ClusterId, Timestamp, node_protocol::Incarnation};

use super::{StoreError, Tx, column, nodes, sessions, sign_in_links};

/// The only row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Id drawn at the first start with this database. It never changes.
    pub id: ClusterId,
    /// SHA-256 of the CA certificate's DER, hex.
    pub ca_sha256: String,
    /// Which state of the database this is: raised by a restore from a backup.
    pub incarnation: Incarnation,
}

const LOAD: &str = "-- cluster.load
SELECT id, ca_sha256, incarnation_number, incarnation_random FROM cluster WHERE one = 1";

/// The row; `None` if the database is new.
pub async fn load(tx: &mut Tx) -> Result<Option<Cluster>, StoreError> {
    let Some(row) = sqlx::query(LOAD).fetch_optional(tx.conn()).await? else { return Ok(None) };
    Ok(Some(Cluster {
        id: column::read(&row, "id")?,
        ca_sha256: column::read(&row, "ca_sha256")?,
        incarnation: Incarnation {
            number: column::read(&row, "incarnation_number")?,
            random: column::parse(&row, "incarnation_random")?,
        },
    }))
}

const INSERT: &str = "-- cluster.insert
INSERT INTO cluster (one, id, ca_sha256, created_at, incarnation_number, incarnation_random)
VALUES (1, $1, $2, $3, $4, $5)";

/// Inserts the row of a new database.
pub async fn insert(tx: &mut Tx, cluster: &Cluster) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(INSERT)
        .bind(cluster.id.to_string())
        .bind(&cluster.ca_sha256)
        .bind(now)
        .bind(column::int(cluster.incarnation.number))
        .bind(cluster.incarnation.random.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

const BEGIN: &str = "-- cluster.begin_incarnation
UPDATE cluster SET incarnation_number = $1, incarnation_random = $2, restored_at = $3 WHERE one = 1";

/// Begins another incarnation: the database is an older copy of what it was. The next look at the membership record opens an
/// epoch that no node was told before (`app/membership.rs`).
pub async fn begin_incarnation(tx: &mut Tx, incarnation: Incarnation) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(BEGIN)
        .bind(column::int(incarnation.number))
        .bind(incarnation.random.to_string())
        .bind(now)
        .execute(tx.conn())
        .await?;
    // The numbers before are of another history, so the next row must not have one of them.
    tx.next_seq().await?;
    // A node that was empty then may have been taken in again since, and hold objects.
    nodes::doubt_drains(tx).await?;
    // Sessions may have been ended since the copy, and links used.
    sessions::delete_all(tx).await?;
    sign_in_links::delete_all(tx).await
}

const RESTORED_AT: &str = "-- cluster.restored_at
SELECT restored_at FROM cluster WHERE one = 1";

/// When the present incarnation began; `None` in the first one.
pub async fn restored_at(tx: &mut Tx) -> Result<Option<Timestamp>, StoreError> {
    let row = sqlx::query(RESTORED_AT).fetch_optional(tx.conn()).await?;
    row.map_or(Ok(None), |row| column::read(&row, "restored_at"))
}

const PROJECT: &str = "-- projects.ensure
INSERT INTO projects (name, created_at, seq) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";

const IS_PROJECT: &str = "\
SELECT CASE WHEN EXISTS (SELECT 1 FROM projects WHERE name = $1) OR EXISTS (SELECT 1 FROM images WHERE project = $1)
    OR EXISTS (SELECT 1 FROM deployments WHERE project = $1) OR EXISTS (SELECT 1 FROM snapshots WHERE project = $1)
    OR EXISTS (SELECT 1 FROM networks WHERE project = $1) OR EXISTS (SELECT 1 FROM security_groups WHERE project = $1)
    THEN 1 ELSE 0 END";

/// Whether there is such a project: a token was made for it, or a thing in it.
pub async fn is_project(tx: &mut Tx, name: &str) -> Result<bool, StoreError> {
    let found: i32 = sqlx::query_scalar(IS_PROJECT).bind(name).fetch_one(tx.conn()).await?;
    Ok(found == 1)
}

/// Inserts the project, unless it is there.
pub async fn ensure_project(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    let (seq, now) = (tx.next_seq().await?, tx.now().micros());
    sqlx::query(PROJECT).bind(name).bind(now).bind(seq).execute(tx.conn()).await?;
    Ok(())
}
