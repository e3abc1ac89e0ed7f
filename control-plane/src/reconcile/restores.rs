//! Restores in place: stopped, kept, put in place, started.

use crate::{
    app::{App, snapshots::restoring},
    store::restores,
    wake::Counts,
};

/// One look at every restore under way. Each has its own transaction: one that cannot go on delays no other (I11).
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let seen = app.store.read("restores.observe", async |tx| restores::all(tx).await).await?;
    let mut counts = Counts { seen: seen.len(), acted: 0 };
    let mut failure = None;
    for row in seen {
        let id = row.operation;
        // Loaded again there, because somebody may have ended it since.
        match app.store.run_tx("restores.drive", async |tx| restoring::drive(tx, id).await).await {
            Ok(acted) => counts.acted += usize::from(acted),
            Err(error) => failure = Some(anyhow::Error::from(error).context(format!("restore {id}"))),
        }
    }
    failure.map_or(Ok(counts), Err)
}
