//! Brings the schema up to date, one file and one transaction at a time. See `migrations/README.md`.

use std::collections::BTreeSet;

use muster_api::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, backend::Backend, column};

struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal,)*) => {
        const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $name, ".sql")),
        },)*];
    };
}

// Each part adds its file here; numbers only grow.
migrations! {
    1 "0001_base",
    2 "0002_nodes",
    3 "0003_images",
    4 "0004_fleet",
    5 "0005_trouble",
    7 "0007_node_loss",
    8 "0008_runs",
    9 "0009_restored",
    10 "0010_missing",
    11 "0011_boot",
    12 "0012_found",
    13 "0013_conditions",
    14 "0014_salvage",
    16 "0016_counts",
    17 "0017_sessions",
    18 "0018_parents",
    19 "0019_summary",
    20 "0020_events_of_a_thing",
    21 "0021_links_of_sessions",
    22 "0022_seeds",
    23 "0023_networks",
    24 "0024_boot_orders",
    25 "0025_image_properties",
    26 "0026_disks",
    27 "0027_firmware",
    28 "0028_guests",
    29 "0029_life_of_disks",
    30 "0030_words_of_disks",
    31 "0031_sweep",
    32 "0032_protection",
    33 "0033_restore",
    35 "0035_drain",
    36 "0036_tenants",
    37 "0037_old_versions",
}

const CREATE: &str = "-- migrations.create
CREATE TABLE IF NOT EXISTS migrations (
    version BIGINT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at BIGINT NOT NULL
)";

const APPLIED: &str = "-- migrations.applied
SELECT version, name, sha256 FROM migrations ORDER BY version";

const INSERT: &str = "-- migrations.insert
INSERT INTO migrations (version, name, sha256, applied_at) VALUES ($1, $2, $3, $4)";

pub(super) async fn run(backend: &Backend, now: Timestamp) -> Result<(), StoreError> {
    if !exists(backend).await? {
        let mut tx = backend.writers.begin_with(backend.begin_write()).await?;
        sqlx::query(CREATE).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    loop {
        // The list is read again in each transaction: another process may be at the same work.
        let mut tx = backend.writers.begin_with(backend.begin_write()).await?;
        let Some(next) = next(&mut tx).await? else {
            tx.rollback().await?;
            return Ok(());
        };
        sqlx::raw_sql(next.sql)
            .execute(&mut *tx)
            .await
            .map_err(|e| StoreError::Setup(format!("migration {} failed: {e}", next.name)))?;
        sqlx::query(INSERT)
            .bind(next.version)
            .bind(next.name)
            .bind(digest(next.sql))
            .bind(now.micros())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        tracing::info!(migration = next.name, "schema brought to {}", next.version);
    }
}

async fn exists(backend: &Backend) -> Result<bool, StoreError> {
    let found = sqlx::query(backend.table_exists()).bind("migrations").fetch_optional(&backend.writers).await?;
    Ok(found.is_some())
}

/// The first one not applied yet; refuses a database that is newer or was made from other files.
async fn next(conn: &mut AnyConnection) -> Result<Option<&'static Migration>, StoreError> {
    let rows = sqlx::query(APPLIED).fetch_all(conn).await?;
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let mut applied = BTreeSet::new();
    for row in &rows {
        let version: i64 = row.try_get("version")?;
        let Some(migration) = MIGRATIONS.iter().find(|m| m.version == version) else {
            return Err(StoreError::Newer { found: version, known });
        };
        if column::read::<String>(row, "sha256")? != digest(migration.sql) {
            return Err(StoreError::Setup(format!(
                "the database was made with another text of migration {}: an applied file is never edited",
                migration.name
            )));
        }
        applied.insert(version);
    }
    Ok(MIGRATIONS.iter().find(|m| !applied.contains(&m.version)))
}

fn digest(sql: &str) -> String {
    hex::encode(Sha256::digest(sql))
}
