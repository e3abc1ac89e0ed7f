//! Leases of those who read versions. While one runs, the sweep keeps the version although it may be deleted (I6).

use muster_api::{Timestamp, VersionId};

use super::{StoreError, Tx};

const BEGIN: &str = "-- readers.begin
INSERT INTO readers (id, version, until) VALUES ($1, $2, $3)";

/// Begins a lease. The caller has seen in this transaction that the version is not deleted.
pub async fn begin(tx: &mut Tx, id: &str, version: VersionId, until: Timestamp) -> Result<(), StoreError> {
    sqlx::query(BEGIN).bind(id).bind(version.to_string()).bind(until.micros()).execute(tx.conn()).await?;
    Ok(())
}

const RENEW: &str = "-- readers.renew
UPDATE readers SET until = $2 WHERE id = $1 AND until >= $3";

/// Extends a lease. False if it ran out: the version may be swept.
pub async fn renew(tx: &mut Tx, id: &str, until: Timestamp) -> Result<bool, StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(RENEW).bind(id).bind(until.micros()).bind(now).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

const END: &str = "-- readers.end
DELETE FROM readers WHERE id = $1";

/// Ends a lease.
pub async fn end(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    sqlx::query(END).bind(id).execute(tx.conn()).await?;
    Ok(())
}

const FORGET: &str = "-- readers.forget
DELETE FROM readers WHERE until < $1";

/// Drops the leases that ran out. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(FORGET).bind(now).execute(tx.conn()).await?.rows_affected())
}
