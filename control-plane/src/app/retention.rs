//! What is kept long enough is dropped.

use super::{App, StoreError};
use crate::store::{
    DELETED_SHOWN_MS, deployments, events, idempotency, instances, networks, operations, readers, security_groups,
    sessions, sign_in_links, snapshots, tokens,
};

impl App {
    /// Drops old events, operations, idempotency keys, tokens, sessions and sign-in links, and what was deleted more than
    /// a day ago. Returns how many rows.
    pub(crate) async fn forget_old(&self) -> Result<u64, StoreError> {
        self.store
            .run_tx("forget", async |tx| {
                let deleted_before = tx.now().plus_ms(-DELETED_SHOWN_MS);
                Ok(events::forget_old(tx).await?
                    + operations::forget_old(tx).await?
                    + idempotency::forget_old(tx).await?
                    + readers::forget_old(tx).await?
                    + tokens::forget_old(tx).await?
                    + sessions::forget_old(tx).await?
                    + sign_in_links::forget_old(tx).await?
                    + instances::forget(tx, deleted_before).await?
                    + deployments::forget(tx, deleted_before).await?
                    + networks::forget(tx, deleted_before).await?
                    + security_groups::forget(tx, deleted_before).await?
                    + snapshots::forget(tx, deleted_before).await?)
            })
            .await
    }
}
