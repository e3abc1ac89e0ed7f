//! What operators set of the pool.

use super::{StoreError, Tx, column};

const LOAD: &str = "-- pool_settings.load
SELECT min_copies FROM pool_settings WHERE one = 1";

/// Copies wanted of every object; `None` while no operator has set it.
pub async fn min_copies(tx: &mut Tx) -> Result<Option<u32>, StoreError> {
    column::read(&sqlx::query(LOAD).fetch_one(tx.conn()).await?, "min_copies")
}

const SET: &str = "-- pool_settings.set
UPDATE pool_settings SET min_copies = $1 WHERE one = 1";

/// Sets how many copies are wanted of every object.
pub async fn set_min_copies(tx: &mut Tx, copies: u32) -> Result<(), StoreError> {
    sqlx::query(SET).bind(i64::from(copies)).execute(tx.conn()).await?;
    Ok(())
}
