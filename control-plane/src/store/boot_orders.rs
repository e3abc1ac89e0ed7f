//! Boot orders: one row for each version of which a boot was told.

use muster_api::VersionId;

use super::{
    StoreError, Tx,
    column::{self, Cell},
    row,
};
use crate::domain::boots::BootOrder;

const LOAD: &str = "-- boot_orders.load
SELECT boots, chunks FROM boot_orders WHERE version = $1";

/// The boot order of a version; `None` if no boot of it was told.
pub async fn load(tx: &mut Tx, version: VersionId) -> Result<Option<BootOrder>, StoreError> {
    let row = sqlx::query(LOAD).bind(version.to_string()).fetch_optional(tx.conn()).await?;
    let Some(row) = row else { return Ok(None) };
    let chunks: String = column::read(&row, "chunks")?;
    let order = BootOrder::decode(column::read(&row, "boots")?, &chunks);
    order.map(Some).map_err(|e| StoreError::BadRow { column: "boot_orders.chunks".to_owned(), why: e.to_string() })
}

const SAVE: &str = "-- boot_orders.save
INSERT INTO boot_orders (version, boots, chunks, updated_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (version) DO UPDATE SET boots = excluded.boots, chunks = excluded.chunks, updated_at = excluded.updated_at";

/// Saves the boot order of a version.
pub async fn save(tx: &mut Tx, version: VersionId, order: &BootOrder) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(SAVE)
        .bind(version.to_string())
        .bind(column::int(order.boots()))
        .bind(order.encode())
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Drops the boot orders of the versions for which `column` has the value: they are deleted.
pub(super) async fn drop_where(tx: &mut Tx, column: &str, value: impl ToString) -> Result<(), StoreError> {
    let sql = format!(
        "-- boot_orders.drop_where\nDELETE FROM boot_orders WHERE version IN (SELECT id FROM versions WHERE {column} = $1)"
    );
    row::query(sql, [Cell::from(value.to_string())]).execute(tx.conn()).await?;
    Ok(())
}
