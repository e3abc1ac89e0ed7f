//! What is kept long enough is dropped.

use storage_core::lock;

use super::{App, StoreError};
use crate::store::{
    DELETED_SHOWN_MS, deployments, events, idempotency, images, instances, networks, nodes,
    old_versions::{self, Dropped, OldVersions, Place},
    operations, readers, security_groups, sessions, sign_in_links, snapshots, tokens,
};

/// How long the row of a deleted version stays at least, milliseconds: a node that was away asks what became of its commits.
const VERSIONS_KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// Rows of deleted versions that one look goes through.
const VERSIONS_LOOKED_AT: i64 = 200;
/// Time between the last row of them and the first one again, milliseconds.
const VERSIONS_AGAIN_MS: i64 = 3600 * 1000;

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
                    + snapshots::forget(tx, deleted_before).await?
                    + nodes::forget_closed_memberships(tx, deleted_before).await?)
            })
            .await
    }

    /// Drops rows of versions and images that were deleted long ago and that nothing needs, a few at a time. Returns how many.
    pub(crate) async fn forget_old_versions(&self) -> Result<u64, StoreError> {
        let OldVersions { from, not_before } = *lock(&self.old_versions);
        let now = self.clock.now();
        if not_before.is_some_and(|at| now < at) {
            return Ok(0);
        }
        let before = now.plus_ms(-VERSIONS_KEPT_MS);
        let (Dropped { rows, next }, images) = self
            .store
            .run_tx("forget.versions", async |tx| {
                let dropped = old_versions::drop_some(tx, from, before, VERSIONS_LOOKED_AT).await?;
                Ok::<_, StoreError>((dropped, images::forget(tx, before).await?))
            })
            .await?;
        *lock(&self.old_versions) = match next {
            Some(from) => OldVersions { from, not_before: None },
            None => OldVersions { from: Place::default(), not_before: Some(now.plus_ms(VERSIONS_AGAIN_MS)) },
        };
        Ok(rows + images)
    }
}
