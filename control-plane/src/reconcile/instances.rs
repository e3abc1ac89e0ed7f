//! Instances of silent nodes become `unknown`, and what they were before when their node is heard from again. Nothing
//! is moved to another node unasked.

use crate::{
    app::{
        App, AppError,
        instances::{self as app_instances, Changed, change::all_by},
    },
    domain::instance::Edge,
    store::{Tx, instances},
    wake::Counts,
};

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
    let (to_silence, to_hear) = (instances::to_silence(tx).await?, instances::to_hear(tx).await?);
    let mut changed = all_by(to_silence, &Edge::Silent, tx);
    changed.extend(all_by(to_hear, &Edge::Heard, tx));
    Ok(changed)
}
