//! Whoever streams a version holds a lease on it: the version may be deleted meanwhile, and its bytes are still needed.

use std::{convert::Infallible, time::Duration};

use muster_api::{VersionId, version::VersionState};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::{App, AppError};
use crate::store::{readers, versions};

/// Length of a lease, milliseconds. It is renewed every third of this time.
const LEASE_MS: i64 = 90_000;

/// A lease. It is renewed until this is dropped.
#[derive(Debug)]
pub struct Reading {
    _held: oneshot::Sender<Infallible>,
}

impl App {
    /// Begins to read a version. What it consists of stays in the pool until the answer is dropped.
    ///
    /// # Errors
    /// [`AppError::NotFound`] if it was deleted.
    pub async fn begin_reading(&self, version: VersionId) -> Result<Reading, AppError> {
        let id = Uuid::now_v7().to_string();
        self.store
            .run_tx("readers.begin", async |tx| {
                let row = versions::load(tx, version).await?;
                row.filter(|row| row.version.state == VersionState::Ready)
                    .ok_or_else(|| AppError::not_found("version", version))?;
                let until = tx.now().plus_ms(LEASE_MS);
                Ok::<_, AppError>(readers::begin(tx, &id, version, until).await?)
            })
            .await?;
        let (held, let_go) = oneshot::channel();
        tokio::spawn(self.clone().keep_reading(id, let_go));
        Ok(Reading { _held: held })
    }

    /// Renews a lease until the reader lets go of it, and ends it. If the process ends first, the lease runs out.
    async fn keep_reading(self, id: String, mut let_go: oneshot::Receiver<Infallible>) {
        let third = Duration::from_millis(LEASE_MS.unsigned_abs() / 3);
        while tokio::time::timeout(third, &mut let_go).await.is_err() {
            let renewed = self
                .store
                .run_tx("readers.renew", async |tx| {
                    let until = tx.now().plus_ms(LEASE_MS);
                    Ok::<_, AppError>(readers::renew(tx, &id, until).await?)
                })
                .await;
            match renewed {
                Ok(true) => {}
                // The reader gets an error when something is not there any more.
                Ok(false) => tracing::warn!(reader.id = id, "the lease of a reader ran out while it reads"),
                // The next attempt is soon enough: the lease has two thirds left.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(reader.id = id, error, "the lease of a reader is not renewed");
                }
            }
        }
        let ended = self.store.run_tx("readers.end", async |tx| Ok::<_, AppError>(readers::end(tx, &id).await?)).await;
        if let Err(error) = ended {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(reader.id = id, error, "the lease of a reader is not ended, and runs out");
        }
    }
}
