//! Runs the loops: after a period with jitter or a wake, one pass at a time, a status per pass, stopped by one token.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{deployments, disks, instances, nodes, overdue, protection, restores, snapshots, sweep};
use crate::{
    app::App,
    wake::{Counts, Loop},
};

/// Starts all loops. They end when `stop` is cancelled, each after the pass it is in.
pub fn start(app: &App, tasks: &TaskTracker, stop: &CancellationToken) {
    for which in Loop::ALL {
        tasks.spawn(run(app.clone(), which, stop.clone()));
    }
}

async fn run(app: App, which: Loop, stop: CancellationToken) {
    loop {
        run_pass(&app, which).await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = app.store.wakes().reconcile_wanted(which) => {}
            () = tokio::time::sleep(jittered(which.period_ms())) => {}
        }
    }
}

/// One pass of a loop.
pub fn pass(app: &App, which: Loop) -> BoxFuture<'_, anyhow::Result<Counts>> {
    match which {
        Loop::Nodes => Box::pin(nodes::pass(app)),
        Loop::Deployments => Box::pin(deployments::pass(app)),
        Loop::Instances => Box::pin(instances::pass(app)),
        Loop::Snapshots => Box::pin(snapshots::pass(app)),
        Loop::Protection => Box::pin(protection::pass(app)),
        Loop::Disks => Box::pin(disks::pass(app)),
        Loop::Restores => Box::pin(restores::pass(app)),
        Loop::Sweep => Box::pin(sweep::pass(app)),
        Loop::Overdue => Box::pin(overdue::pass(app)),
    }
}

/// Runs one pass now and notes how it went. In-process tests call it instead of waiting for the period.
pub async fn run_pass(app: &App, which: Loop) {
    let begun = Instant::now();
    // In a task of its own, so that a panic ends this pass and not the loop.
    let result = tokio::spawn({
        let app = app.clone();
        async move { pass(&app, which).await }
    })
    .await
    .unwrap_or_else(|panic| Err(anyhow::anyhow!("the pass panicked: {panic}")));
    let took = begun.elapsed();
    if let Err(error) = &result {
        tracing::warn!(reconcile.name = which.name(), "pass failed and will be tried again: {error:#}");
    }
    metrics::histogram!("muster_reconcile_pass_seconds", "loop" => which.name()).record(took.as_secs_f64());
    let now = app.clock.now();
    app.loops.update(which, |status| {
        status.passes += 1;
        status.last_run = Some(now);
        status.took = took;
        match result {
            Ok(did) => {
                status.did = did;
                status.last_error = None;
            }
            Err(error) => {
                status.failures += 1;
                status.last_error = Some(format!("{error:#}"));
            }
        }
    });
}

/// A random time from four fifths of the period to all of it, so that loops and controllers do not run in step.
fn jittered(period_ms: u64) -> Duration {
    // Without a random number the loops run in step, which is slower and not wrong.
    let random = getrandom::u32().unwrap_or(0);
    Duration::from_millis(period_ms - u64::from(random) % (period_ms / 5).max(1))
}
