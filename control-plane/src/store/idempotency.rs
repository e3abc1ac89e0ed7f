//! Idempotency keys: stored in the transaction of the effect that they stand for, kept 24 hours.

use muster_api::OperationId;
use sqlx::any::AnyRow;

use super::{StoreError, Tx, column};

/// Hours a key is kept.
pub const KEPT_HOURS: i64 = 24;

/// The answer that the first call with a key got.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// SHA-256 of method, path, query and body.
    pub request_sha256: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Its body as JSON text; `null` for none.
    pub body: String,
    /// Its `Location` header, if it had one.
    pub location: Option<String>,
    /// The operation that the call began. A repeated call is told how it is now.
    pub operation: Option<OperationId>,
}

const LOAD: &str = "-- idempotency.load
SELECT request_sha256, status, body, location, operation FROM idempotency_keys
WHERE project = $1 AND key = $2 AND expires_at > $3";

/// The answer to this key in the last 24 hours.
pub async fn load(tx: &mut Tx, project: &str, key: &str) -> Result<Option<Remembered>, StoreError> {
    let now = tx.now().micros();
    let row = sqlx::query(LOAD).bind(project).bind(key).bind(now).fetch_optional(tx.conn()).await?;
    row.as_ref().map(from_row).transpose()
}

const INSERT: &str = "-- idempotency.insert
INSERT INTO idempotency_keys (project, key, request_sha256, status, body, location, operation, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (project, key) DO UPDATE SET request_sha256 = excluded.request_sha256, status = excluded.status,
    body = excluded.body, location = excluded.location, operation = excluded.operation,
    created_at = excluded.created_at, expires_at = excluded.expires_at";

/// Remembers an answer. A key that ran out is written over.
pub async fn insert(tx: &mut Tx, project: &str, key: &str, answer: &Remembered) -> Result<(), StoreError> {
    let now = tx.now();
    sqlx::query(INSERT)
        .bind(project)
        .bind(key)
        .bind(&answer.request_sha256)
        .bind(i64::from(answer.status))
        .bind(&answer.body)
        .bind(answer.location.as_deref())
        .bind(answer.operation.map(|id| id.to_string()))
        .bind(now.micros())
        .bind(now.plus_ms(KEPT_HOURS * 3600 * 1000).micros())
        .execute(tx.conn())
        .await?;
    Ok(())
}

const FORGET: &str = "-- idempotency.forget
DELETE FROM idempotency_keys WHERE expires_at <= $1";

/// Drops the keys that ran out. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(FORGET).bind(now).execute(tx.conn()).await?.rows_affected())
}

fn from_row(row: &AnyRow) -> Result<Remembered, StoreError> {
    Ok(Remembered {
        request_sha256: column::read(row, "request_sha256")?,
        status: column::read(row, "status")?,
        body: column::read(row, "body")?,
        location: column::read(row, "location")?,
        operation: column::read(row, "operation")?,
    })
}
