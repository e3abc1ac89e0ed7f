//! Rounds of the sweep: whether one is due, and what became of the one that nodes carry out. And the opposite: objects that are
//! needed and that nobody has.

use crate::{app::App, wake::Counts};

/// One look. A pass that begins a round lasts until everything is counted that its roots reach.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let lost = app.look_for_lost().await?;
    let (seen, acted) = app.sweep_pass().await?;
    Ok(Counts { seen, acted: acted + lost })
}
