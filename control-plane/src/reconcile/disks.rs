//! Disks that are being detached: taken from their guests, saved by a snapshot, moved away from their instances.

use crate::{
    app::{App, disks as app_disks},
    store::disks,
    wake::Counts,
};

/// One look at every disk that is being detached. Each has its own transaction: one that cannot be saved delays no other
/// (I11).
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let seen = app.store.read("disks.observe", async |tx| disks::leaving(tx).await).await?;
    let mut counts = Counts { seen: seen.len(), acted: 0 };
    let mut failure = None;
    for row in seen {
        // Loaded again there, because somebody may have attached it again since.
        match app.store.run_tx("disks.drive", async |tx| app_disks::drive(tx, row.id).await).await {
            Ok(acted) => counts.acted += usize::from(acted),
            Err(error) => failure = Some(anyhow::Error::from(error).context(format!("disk {}", row.id))),
        }
    }
    failure.map_or(Ok(counts), Err)
}
