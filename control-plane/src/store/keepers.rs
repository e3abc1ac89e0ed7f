//! What keeps versions, one by one: for the question what would be given back if some of it went.
//!
//! These are the lasting ones of the roots that the sweep lists ([`super::roots`]). What keeps a version only for a while
//! (readers, commits that are staged, a node that has not reported its newest version yet, a restore under way) does not
//! change how much comes back in the end.

use std::collections::BTreeMap;

use muster_api::{DeploymentId, ImageId, InstanceId, SnapshotId, VersionId, node_protocol::InstanceReport};
use sqlx::any::AnyRow;
use storage_core::Descriptor;

use super::{StoreError, Tx, bulk, column, versions};
use crate::domain::disk_plan::DiskPlan;

/// What keeps a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// It is not deleted, as a version of this image or of this snapshot.
    Link(Option<ImageId>, Option<SnapshotId>),
    /// A disk of this instance builds on it.
    Disk(InstanceId, DeploymentId),
    /// Further members of this deployment start from it.
    Source(DeploymentId),
    /// A disk of no instance, what a dead node may still save, or an instance that is not known.
    Other,
}

/// One kind of what keeps versions. A query for one project touches only rows of that project, by an index: what others have
/// must not make it slower (I12).
struct Kind {
    of_project: &'static str,
    of_all: &'static str,
    keeper: Read,
}

type Read = fn(&AnyRow) -> Result<Keeper, StoreError>;

/// A kind by its name, its query without the condition on the project, and the column of that.
macro_rules! kind {
    ($name:literal, $query:literal, $project:literal, $keeper:expr) => {
        Kind {
            of_project: concat!("-- keepers.", $name, "\n", $query, " AND ", $project, " = $2 LIMIT $1"),
            of_all: concat!("-- keepers.all_", $name, "\n", $query, " LIMIT $1"),
            keeper: $keeper,
        }
    };
}

const LINK: Read = |row| Ok(Keeper::Link(column::read(row, "image")?, column::read(row, "snapshot")?));
const DISK: Read = |row| Ok(Keeper::Disk(column::read(row, "instance")?, column::read(row, "deployment")?));
const SOURCE: Read = |row| Ok(Keeper::Source(column::read(row, "deployment")?));
const OTHER: Read = |_| Ok(Keeper::Other);

const KINDS: [Kind; 6] = [
    kind!(
        "links",
        "SELECT v.id AS version, v.image, v.snapshot FROM versions v WHERE v.deleted_at IS NULL",
        "v.project",
        LINK
    ),
    kind!(
        "disks",
        "SELECT d.version, d.instance, i.deployment FROM disks d JOIN instances i ON i.id = d.instance
WHERE i.deleted_at IS NULL",
        "d.project",
        DISK
    ),
    kind!(
        "sources",
        "SELECT p.version, p.id AS deployment FROM deployments p WHERE p.deleted_at IS NULL",
        "p.project",
        SOURCE
    ),
    kind!("detached", "SELECT f.version FROM detached_disks f WHERE f.version IS NOT NULL", "f.project", OTHER),
    kind!(
        "salvage_base",
        "SELECT s.base AS version FROM salvage s WHERE s.state = 'awaited' AND s.base IS NOT NULL",
        "s.project",
        OTHER
    ),
    kind!(
        "salvage_reported",
        "SELECT s.reported_base AS version FROM salvage s WHERE s.state = 'awaited' AND s.reported_base IS NOT NULL",
        "s.project",
        OTHER
    ),
];

const PLANS: Kind = kind!(
    "plans",
    "SELECT p.disks, p.id AS deployment FROM deployments p WHERE p.deleted_at IS NULL AND p.disks <> '[]'",
    "p.project",
    SOURCE
);

const REPORTS: Kind = kind!("found", "SELECT f.report FROM found_instances f WHERE f.report <> ''", "f.project", OTHER);

impl Kind {
    /// Its rows in a project, or in all. `None` if there are more than `limit`.
    async fn rows(&self, tx: &mut Tx, project: Option<&str>, limit: i64) -> Result<Option<Vec<AnyRow>>, StoreError> {
        let query = match project {
            Some(project) => sqlx::query(self.of_project).bind(limit + 1).bind(project),
            None => sqlx::query(self.of_all).bind(limit + 1),
        };
        let rows = query.fetch_all(tx.conn()).await?;
        Ok(i64::try_from(rows.len()).is_ok_and(|found| found <= limit).then_some(rows))
    }
}

/// All that keeps versions in a project, or in all. `None` if a kind of it has more than `limit`. What other projects have does
/// not count, because it would tell something about them (I12). A found instance counts for the project that its node knows.
pub async fn list(
    tx: &mut Tx,
    project: Option<&str>,
    limit: i64,
) -> Result<Option<Vec<(VersionId, Keeper)>>, StoreError> {
    let mut all = Vec::new();
    for kind in &KINDS {
        let Some(rows) = kind.rows(tx, project, limit).await? else { return Ok(None) };
        for row in &rows {
            // A snapshot as a source is named by the disks of its members.
            let version: Option<VersionId> = column::read(row, "version")?;
            let keeper = (kind.keeper)(row)?;
            all.extend(version.map(|version| (version, keeper)));
        }
    }
    let Some(rows) = PLANS.rows(tx, project, limit).await? else { return Ok(None) };
    for row in &rows {
        let plans: Vec<DiskPlan> = column::read(row, "disks")?;
        let keeper = (PLANS.keeper)(row)?;
        all.extend(plans.into_iter().filter_map(|plan| Some((plan.version?, keeper))));
    }
    let Some(rows) = REPORTS.rows(tx, project, limit).await? else { return Ok(None) };
    for row in &rows {
        let report: InstanceReport = column::read(row, "report")?;
        all.extend(report.disks.iter().map(|disk| (disk.version, Keeper::Other)));
    }
    Ok(Some(all))
}

const DESCRIPTORS: &str = "-- keepers.descriptors
SELECT id, descriptor FROM versions WHERE id";

/// The descriptors of those of the versions that are known, deleted or not.
pub async fn descriptors(tx: &mut Tx, ids: &[VersionId]) -> Result<BTreeMap<VersionId, Descriptor>, StoreError> {
    let rows = bulk::select_in(tx, DESCRIPTORS, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, versions::descriptor(row)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::{
        clock::SystemClock,
        store::{DatabaseUrl, Store},
        wake::Wakes,
    };

    /// Versions that another project has.
    const OTHERS: u32 = 100_000;

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a folder");
        let url = DatabaseUrl::Sqlite(dir.path().join("muster.db"));
        let store = Store::open(&url, Arc::new(SystemClock), Wakes::default()).await.expect("a database");
        (dir, store)
    }

    async fn run(store: &Store, sql: &str) {
        let done = store.run_tx("test.run", async |tx| {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(tx.conn()).await?;
            Ok::<_, StoreError>(())
        });
        done.await.expect("runs");
    }

    /// Rows of versions of a project, each with places of its own in the order of all.
    fn versions(project: &str, from: u32, count: u32) -> String {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {from} + {count})
            INSERT INTO versions (id, project, state, instance, instance_name, disk, disk_name, size_bytes, chunk_bytes, root,
                descriptor, stored_bytes, created_at, updated_at, seq)
            SELECT printf('01900000-0000-7000-8000-%012x', i), '{project}', 'ready', 'i', 'i', 'd', 'd', 4096, 262144,
                printf('%064x', i), '', 0, 1, 1, i FROM n"
        )
    }

    #[tokio::test]
    async fn a_project_is_listed_by_indexes_without_the_rows_of_others() {
        let (_dir, store) = store().await;
        run(&store, &versions("theirs", 1_000, OTHERS)).await;
        run(&store, &versions("mine", 1_000 + OTHERS, 10)).await;
        run(&store, "ANALYZE").await;
        for kind in KINDS.iter().chain([&PLANS, &REPORTS]) {
            let explain = format!("EXPLAIN QUERY PLAN {}", kind.of_project);
            let plan = store.read("test.plan", async |tx| {
                let query = sqlx::query(sqlx::AssertSqlSafe(explain.clone())).bind(10_i64).bind("mine");
                Ok::<_, StoreError>(query.fetch_all(tx.conn()).await?)
            });
            let plan: Vec<String> =
                plan.await.expect("a plan").iter().map(|row| sqlx::Row::get(row, "detail")).collect();
            let first = plan.first().expect("a step");
            assert!(first.starts_with("SEARCH") && first.contains("project=?"), "{}: {plan:?}", kind.of_project);
            assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{}: {plan:?}", kind.of_project);
        }
        let begun = Instant::now();
        let mine = store.read("test.list", async |tx| list(tx, Some("mine"), 100_000).await).await.expect("listed");
        let of_one = begun.elapsed();
        assert_eq!(mine.expect("few").len(), 10);
        let begun = Instant::now();
        let all = store.read("test.list", async |tx| list(tx, None, 1_000_000).await).await.expect("listed");
        assert_eq!(all.expect("not too many").len(), 10 + OTHERS as usize);
        eprintln!("10 of {} versions in {of_one:?}, all in {:?}", OTHERS + 10, begun.elapsed());
    }
}
