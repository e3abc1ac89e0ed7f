//! Protections of deployments: rows and SQL.

use std::collections::BTreeMap;

use muster_api::{DeploymentId, SnapshotId, Timestamp, protection::Keep};
use sqlx::any::AnyRow;

use super::{
    StoreError, Tx, bulk, column,
    row::{Row as _, columns, select, select_one},
};
use crate::domain::protection::EVERY_MIN;

/// Row of the protection of a deployment. There is none if the deployment is not protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectionRow {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The project that owns it.
    pub project: String,
    /// Time between two scheduled snapshots, seconds.
    pub every_s: u64,
    /// Which scheduled snapshots stay.
    pub keep: Keep,
    /// Since when it is protected.
    pub since: Timestamp,
    /// When the next snapshot is due.
    pub next_at: Timestamp,
    /// What was written before is saved; `None` until something is.
    pub saved_at: Option<Timestamp>,
    /// The newest scheduled snapshot that is ready.
    pub last_snapshot: Option<SnapshotId>,
    /// The scheduled snapshot under way.
    pub under_way: Option<SnapshotId>,
    /// What that one leaves out, in a sentence.
    pub left_out: Option<String>,
    /// Snapshots that failed since the last one that did not.
    pub failures: u64,
    /// How many in a row were not durable in time, or gave way to others.
    pub late: u64,
    /// Why the last one did not save everything, in a sentence.
    pub trouble: Option<String>,
}

columns!(
    "protections", ProtectionRow: deployment, project, every_s, keep, since, next_at, saved_at, last_snapshot, under_way, left_out,
    failures, late, trouble,
);

const SAVE: &str = "-- protections.save
UPDATE protections SET every_s = $2, keep = $3, next_at = $4, saved_at = $5, last_snapshot = $6, under_way = $7, left_out = $8,
    failures = $9, late = $10, trouble = $11 WHERE deployment = $1";

/// Inserts the protection of a deployment that has none.
pub async fn insert(tx: &mut Tx, row: &ProtectionRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await
}

/// Saves the columns that may change. The row was read in this transaction, and writers run one after the other.
pub async fn save(tx: &mut Tx, row: &ProtectionRow) -> Result<(), StoreError> {
    sqlx::query(SAVE)
        .bind(row.deployment.to_string())
        .bind(column::int(row.every_s))
        .bind(column::json_text(&row.keep)?)
        .bind(row.next_at.micros())
        .bind(column::opt_micros(row.saved_at))
        .bind(row.last_snapshot.map(|id| id.to_string()))
        .bind(row.under_way.map(|id| id.to_string()))
        .bind(row.left_out.as_deref())
        .bind(column::int(row.failures))
        .bind(column::int(row.late))
        .bind(row.trouble.as_deref())
        .execute(tx.conn())
        .await?;
    Ok(())
}

const DELETE: &str = "-- protections.delete
DELETE FROM protections WHERE deployment = $1";

/// Ends the protection of a deployment.
pub async fn delete(tx: &mut Tx, deployment: DeploymentId) -> Result<(), StoreError> {
    sqlx::query(DELETE).bind(deployment.to_string()).execute(tx.conn()).await?;
    Ok(())
}

/// The protection of a deployment, if it has one.
pub async fn load(tx: &mut Tx, deployment: DeploymentId) -> Result<Option<ProtectionRow>, StoreError> {
    select_one(tx, "protections.load", "WHERE deployment = $1", [deployment.to_string().into()]).await
}

/// The protections of those of these deployments that have one.
pub async fn load_many(
    tx: &mut Tx,
    deployments: &[DeploymentId],
) -> Result<BTreeMap<DeploymentId, ProtectionRow>, StoreError> {
    let head = format!("-- protections.load_many\n{} WHERE deployment", ProtectionRow::SELECT);
    let rows = bulk::select_in(tx, &head, deployments, "").await?;
    rows.iter().map(ProtectionRow::from_row).map(|row| row.map(|row| (row.deployment, row))).collect()
}

/// The protection that waits for this snapshot.
pub async fn of_snapshot(tx: &mut Tx, snapshot: SnapshotId) -> Result<Option<ProtectionRow>, StoreError> {
    select_one(tx, "protections.of_snapshot", "WHERE under_way = $1", [snapshot.to_string().into()]).await
}

/// Protections whose snapshot is due and not under way, the longest due first. Those that a clock which was ahead set too late come
/// last. None of the project `without`.
pub async fn due(tx: &mut Tx, without: Option<&str>, limit: i64) -> Result<Vec<ProtectionRow>, StoreError> {
    let now = tx.now().micros();
    // No project has an empty name.
    let without = without.unwrap_or_default();
    let rest = "WHERE under_way IS NULL AND next_at <= $1 AND project <> $2 ORDER BY next_at LIMIT $3";
    let values = [now.into(), without.into(), limit.into()];
    let mut due: Vec<ProtectionRow> = select(tx, "protections.due", rest, values).await?;
    // This looks at all that are not due: a millisecond for 10,000.
    let rest = "WHERE under_way IS NULL AND next_at > $1 AND next_at - every_s * 1000000 > $2 AND project <> $3 \
                ORDER BY next_at LIMIT $4";
    let soonest = now + column::int(EVERY_MIN.as_secs()) * 1_000_000;
    let values = [soonest.into(), now.into(), without.into(), limit.into()];
    due.extend(select(tx, "protections.ahead", rest, values).await?);
    Ok(due)
}

const PROJECTS: &str = "-- protections.projects
SELECT CAST(COUNT(*) AS BIGINT) AS n FROM (SELECT DISTINCT project FROM protections LIMIT 2) AS p";

/// Whether more than one project has protected deployments.
pub async fn has_projects(tx: &mut Tx) -> Result<bool, StoreError> {
    let row: AnyRow = sqlx::query(PROJECTS).fetch_one(tx.conn()).await?;
    Ok(column::read::<i64>(&row, "n")? > 1)
}

const ENDED: &str = "-- protections.ended
SELECT p.deployment, p.project, s.state FROM protections p LEFT JOIN snapshots s ON s.id = p.under_way WHERE p.under_way IS NOT NULL";

/// What is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// How many snapshots of each project are neither ready nor given up.
    pub snapshots: BTreeMap<String, u64>,
    /// The deployments whose snapshot has ended, with their projects.
    pub ended: Vec<(DeploymentId, String)>,
}

/// What is under way, and what has ended since somebody looked.
pub async fn under_way(tx: &mut Tx) -> Result<UnderWay, StoreError> {
    let mut found = UnderWay::default();
    for row in sqlx::query(ENDED).fetch_all(tx.conn()).await? {
        let state: Option<String> = column::read(&row, "state")?;
        let project: String = column::read(&row, "project")?;
        match state.as_deref() {
            Some("cutting" | "saving") => *found.snapshots.entry(project).or_default() += 1,
            _ => found.ended.push((column::read(&row, "deployment")?, project)),
        }
    }
    Ok(found)
}

const COUNT: &str = "-- protections.count
SELECT CAST(COUNT(*) AS BIGINT) AS n, CAST(COUNT(trouble) AS BIGINT) AS troubled,
    MIN(COALESCE(saved_at, since)) AS oldest FROM protections WHERE (CAST($1 AS TEXT) IS NULL OR project = $1)";

/// How the protections of one project or of all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protections {
    /// How many deployments are protected.
    pub deployments: u64,
    /// Those of them whose last snapshot did not save everything.
    pub troubled: u64,
    /// What was written before is saved for all of them; `None` if there are none.
    pub saved_at: Option<Timestamp>,
}

/// How the protections of one project or of all are.
pub async fn count(tx: &mut Tx, project: Option<&str>) -> Result<Protections, StoreError> {
    let row: AnyRow = sqlx::query(COUNT).bind(project).fetch_one(tx.conn()).await?;
    Ok(Protections {
        deployments: column::read(&row, "n")?,
        troubled: column::read(&row, "troubled")?,
        saved_at: column::read(&row, "oldest")?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::Row as _;

    use super::*;
    use crate::{
        clock::SystemClock,
        store::{DatabaseUrl, Store},
        wake::Wakes,
    };

    /// A pass looks at 10,000 deployments in the time of those that are due.
    #[tokio::test]
    async fn what_is_due_and_what_is_under_way_is_found_by_indexes() {
        let dir = tempfile::tempdir().expect("a folder");
        let url = DatabaseUrl::Sqlite(dir.path().join("test.db"));
        let store = Store::open(&url, Arc::new(SystemClock), Wakes::default()).await.expect("a database");
        let due = format!(
            "{} WHERE under_way IS NULL AND next_at <= 5 AND project <> '' ORDER BY next_at LIMIT 9",
            <ProtectionRow as crate::store::row::Row>::SELECT
        );
        for (sql, index) in [(due, "protections_due"), (ENDED.to_owned(), "protections_under_way")] {
            let sql = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
            let plan = store
                .read("test", async |tx| {
                    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                    let rows = sqlx::raw_sql(explain).fetch_all(tx.conn()).await?;
                    let steps: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get("detail")).collect();
                    Ok::<_, StoreError>(steps?.join("; "))
                })
                .await
                .expect("a plan");
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
