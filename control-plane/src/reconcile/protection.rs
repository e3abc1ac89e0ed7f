//! Scheduled snapshots of protected deployments: begun when they are due, and noted when they have ended.

use crate::{
    app::{App, AppError, protection as app_protection},
    domain::protection::under_way_max,
    store::{nodes, protections},
    wake::Counts,
};

/// Most deployments that one pass looks at. The longest due come first.
const LOOKED_AT_MAX: i64 = 200;

/// One look at what has ended and at what is due. Each deployment has its own transaction: one that cannot be saved delays no
/// other (I11). Only so many are under way at a time: after a time without a controller all are due together.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let (under_way, due, nodes) = app
        .store
        .read("protection.observe", async |tx| {
            let nodes = nodes::by_state(tx).await?.get("ready").copied().unwrap_or(0);
            Ok::<_, AppError>((protections::under_way(tx).await?, protections::due(tx, LOOKED_AT_MAX).await?, nodes))
        })
        .await?;
    let mut room = under_way_max(nodes).saturating_sub(under_way.snapshots);
    let mut counts = Counts::default();
    let mut failure = None;
    let ended = under_way.ended.into_iter();
    for id in ended.chain(due.into_iter().map(|row| row.deployment)) {
        counts.seen += 1;
        let driven =
            app.store.run_tx("protection.drive", async |tx| app_protection::drive(tx, id, room > 0).await).await;
        match driven {
            Ok(app_protection::Did::Began) => {
                counts.acted += 1;
                room = room.saturating_sub(1);
            }
            Ok(app_protection::Did::Noted) => {}
            Err(error) => failure = Some(anyhow::Error::from(error).context(format!("deployment {id}"))),
        }
    }
    failure.map_or(Ok(counts), Err)
}
