//! Instances of silent nodes are unknown, and what they were when the node is heard from again; nothing moves unasked.
//! What was deleted more than a day ago is forgotten.

use super::driver::Counts;
use crate::{
    app::{
        App, AppError,
        instances::{self as app_instances, Changed},
    },
    domain::instance::Edge,
    store::{StoreError, Tx, deployments, instances, snapshots},
};

/// How long the deleted are shown.
const SHOWN_MS: i64 = 24 * 3600 * 1000;

/// Looks whether a node fell silent or came back, and writes only then.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let seen = app.store.read("instances.observe", async |tx| Ok::<_, AppError>(changes(tx).await?.len())).await?;
    let mut counts = Counts { seen, acted: 0 };
    if seen > 0 {
        counts.acted = app
            .store
            .run_tx("instances.hearing", async |tx| {
                let changed = changes(tx).await?;
                app_instances::save(tx, "muster", &changed).await?;
                Ok::<_, AppError>(changed.len())
            })
            .await?;
    }
    Ok(counts)
}

async fn changes(tx: &mut Tx) -> Result<Vec<Changed>, AppError> {
    let mut changed = Vec::new();
    for row in instances::to_silence(tx).await? {
        changed.extend(Changed::by(row, &Edge::Silent, tx).ok().flatten());
    }
    for row in instances::to_hear(tx).await? {
        changed.extend(Changed::by(row, &Edge::Heard, tx).ok().flatten());
    }
    Ok(changed)
}

/// Drops what was deleted more than a day ago. Returns how much.
pub async fn forget(tx: &mut Tx) -> Result<u64, StoreError> {
    let before = tx.now().plus_ms(-SHOWN_MS);
    let instances = instances::forget(tx, before).await?;
    let deployments = deployments::forget(tx, before).await?;
    Ok(instances + deployments + snapshots::forget(tx, before).await?)
}
