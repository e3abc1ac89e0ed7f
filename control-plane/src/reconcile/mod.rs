//! Reconcile loops: each observes, plans (pure), applies; the next pass is the retry.
//!
//! A loop has a name, a period with jitter, a wake and no input. One pass of a loop runs at a time. Each pass writes
//! one [`driver::Status`], which `/metrics` shows. To add one: a word in [`Loop`], a file with
//! `pub async fn pass(app: &App) -> anyhow::Result<driver::Counts>`, a line in [`Loop::pass`].

pub mod deployments;
pub mod driver;
pub mod instances;
pub mod snapshots;

use futures::future::BoxFuture;

use crate::app::App;

/// The loops there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loop {
    /// Heartbeats flushed, silence noticed.
    Nodes,
    /// Members placed, counted, removed.
    Deployments,
    /// Instances brought to what is wanted.
    Instances,
    /// Cuts and saves driven to their end.
    Snapshots,
    /// Operations past their deadline, and what is kept too long.
    Overdue,
}

impl Loop {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Deployments, Self::Instances, Self::Snapshots, Self::Overdue];

    /// Name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Deployments => "deployments",
            Self::Instances => "instances",
            Self::Snapshots => "snapshots",
            Self::Overdue => "overdue",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Nodes => 0,
            Self::Deployments => 1,
            Self::Instances => 2,
            Self::Snapshots => 3,
            Self::Overdue => 4,
        }
    }

    /// Longest time between two passes, milliseconds.
    #[must_use]
    pub const fn period_ms(self) -> u64 {
        match self {
            Self::Nodes => 1_000,
            Self::Deployments | Self::Instances | Self::Snapshots => 2_000,
            Self::Overdue => 10_000,
        }
    }

    /// One pass.
    pub fn pass(self, app: &App) -> BoxFuture<'_, anyhow::Result<driver::Counts>> {
        match self {
            Self::Nodes => Box::pin(async { Ok(app.watch_nodes().await?) }),
            Self::Overdue => Box::pin(async { Ok(app.mind_overdue().await?) }),
            Self::Deployments => Box::pin(deployments::pass(app)),
            Self::Instances => Box::pin(instances::pass(app)),
            Self::Snapshots => Box::pin(snapshots::pass(app)),
        }
    }
}
