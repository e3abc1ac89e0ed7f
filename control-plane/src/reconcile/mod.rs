//! Reconcile loops: each observes, plans (pure), applies. A pass does not retry: the next pass is the retry.
//!
//! A loop has a name, a period with jitter, a wake and no input (`wake.rs`). One pass of a loop runs at a time, and
//! each pass writes one [`crate::wake::Status`], which `/metrics` shows. To add a loop: a word in [`Loop`], a file here
//! with `pub async fn pass(app: &App) -> anyhow::Result<Counts>`, a line in [`driver::pass`].

pub mod deployments;
pub mod disks;
mod drains;
pub mod driver;
pub mod instances;
pub mod nodes;
pub mod overdue;
pub mod protection;
pub mod restores;
pub mod snapshots;
pub mod sweep;

#[cfg(doc)]
use crate::wake::Loop;
