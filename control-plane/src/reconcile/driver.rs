//! Runs the loops: period with jitter or wake, one pass at a time, a status per pass, stopped by one token.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use muster_api::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Loop;
use crate::app::App;

/// What a pass saw and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Things looked at.
    pub seen: usize,
    /// Things changed.
    pub acted: usize,
}

/// How a loop's newest pass went.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Passes so far.
    pub passes: u64,
    /// When the newest one ended.
    pub last_run: Option<Timestamp>,
    /// How long it took.
    pub took: Duration,
    /// What it did.
    pub did: Counts,
    /// Passes that failed.
    pub failures: u64,
    /// What the newest failure said; none after a pass that succeeded.
    pub last_error: Option<String>,
}

/// The newest status of every loop.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Mutex<[Status; Loop::ALL.len()]>>);

impl Statuses {
    /// The status of one loop.
    #[must_use]
    pub fn get(&self, which: Loop) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[which.index()].clone()
    }

    fn update(&self, which: Loop, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[which.index()]);
    }
}

/// Starts all loops; they end when `stop` is cancelled, each after the pass it is in.
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

/// Runs one pass now and notes how it went. Also what in-process tests call instead of waiting for the period.
pub async fn run_pass(app: &App, which: Loop) {
    let begun = Instant::now();
    // A panic in a pass is a bug in one pass, not the end of the loop.
    let result = tokio::spawn({
        let app = app.clone();
        async move { which.pass(&app).await }
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

/// Four fifths to all of the period, so that controllers and loops do not march in step.
fn jittered(period_ms: u64) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    Duration::from_millis(period_ms - u64::from(random) % (period_ms / 5).max(1))
}
