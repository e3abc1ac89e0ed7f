//! Passes over the instances, and the reports about them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muster_api::{
    InstanceId,
    node_protocol::{Assignment, Desired, Incarnation, InstanceReport, Report},
};
use storage_core::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, warn};

use super::loops::{Loops, Passed, Standing};
use crate::latest::{Latest as _, latest_seen};

/// Time between two passes when nothing says that something changed.
const WORK_EVERY: Duration = Duration::from_secs(5);
/// Shortest time between two reports: guests' writes change `unsaved_bytes` all the time.
const REPORT_APART: Duration = Duration::from_millis(200);
/// Time between full reports, whatever was acknowledged: a restored controller learns from them what it forgot.
const REPORT_FULL_EVERY: Duration = Duration::from_secs(300);
/// Longest wait for the answer to the last report, at the agent's end.
const LAST_REPORT: Duration = Duration::from_secs(2);

impl Loops {
    pub(super) async fn work(&self) {
        let mut known = self.known.subscribe();
        let mut changed = self.host.changed();
        let mut standing = self.standing.subscribe();
        let mut tick = interval(WORK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                seen = known.changed() => if seen.is_err() { return },
                seen = standing.changed() => if seen.is_err() { return },
                seen = changed.changed() => if seen.is_err() {
                    // This host tells of no changes, so only the clock starts a pass.
                    tick.tick().await;
                },
            }
            let now = latest_seen(&mut known);
            let asked = latest_seen(&mut standing) != Standing::NotAsked;
            if !now.fresh && (now.desired.revision == 0 || !asked) {
                // This node was never told what it should have, so it leaves alone what it has. Or it may have been
                // declared dead while it was off: the first heartbeat tells, or its failure does.
                continue;
            }
            changed.mark_unchanged();
            let desired = Arc::new(now.desired.clone());
            let mut instances = self.host.pass(desired.clone()).await;
            for report in &mut instances {
                report.conditions.extend(self.freezes.condition(report.instance));
            }
            let next = Passed { desired: Some(desired), instances: Arc::new(instances) };
            self.passed.send_if_modified(|last| {
                // A new incarnation is news even if its revision is the same by chance: it gets a full report.
                let differs = last.of() != next.of() || last.instances != next.instances;
                *last = next;
                differs
            });
        }
    }

    pub(super) async fn reports(&self) {
        let mut passed = self.passed.subscribe();
        let mut told = Told::default();
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            let Passed { desired, instances: all } = latest_seen(&mut passed);
            // Before the first pass "nothing is here" would not be true.
            if let Some(desired) = desired
                && let Some(report) = told.news(&desired, &all)
            {
                let full = report.full;
                if let Err(error) = self.controller.report(report).await {
                    debug!(%error, "a report is sent again");
                    sleep(backoff.pause()).await;
                    continue;
                }
                backoff.reset();
                told.acknowledge(&desired, &all, full);
            }
            sleep(REPORT_APART).await;
            tokio::select! {
                () = self.report_all.notified() => told.full = None,
                seen = timeout(REPORT_FULL_EVERY, passed.changed()) => if let Ok(Err(_closed)) = seen { return },
            }
        }
    }

    /// Reports how the guests ended, once: the agent ends.
    pub(super) async fn last_report(&self, instances: Vec<InstanceReport>) {
        if instances.is_empty() {
            return;
        }
        let desired_revision = self.known.latest().desired.revision;
        let report = Report { desired_revision, full: false, instances };
        if !matches!(timeout(LAST_REPORT, self.controller.report(report)).await, Ok(Ok(()))) {
            warn!("the last report did not reach the controller; the next start sends it");
        }
    }
}

/// What the controller has acknowledged.
#[derive(Default)]
struct Told {
    /// Each instance with what was wanted of it then. A report is news also if only that is another: it says that the node has
    /// heard of it, and the controller may wait for that.
    instances: HashMap<InstanceId, (Option<Assignment>, InstanceReport)>,
    /// When a full report was last acknowledged, and by which state of the database.
    full: Option<(Incarnation, Instant)>,
}

impl Told {
    /// The report to send; none when there is nothing new.
    fn news(&self, desired: &Desired, all: &[InstanceReport]) -> Option<Report> {
        let is_due = |(of, at): (Incarnation, Instant)| of != desired.incarnation || at.elapsed() >= REPORT_FULL_EVERY;
        let full = self.full.is_none_or(is_due);
        let wanted = wanted(desired);
        let is_news = |report: &&InstanceReport| {
            let told = self.instances.get(&report.instance);
            full || told
                .is_none_or(|(of, told)| told != *report || of.as_ref() != wanted.get(&report.instance).copied())
        };
        let instances: Vec<InstanceReport> = all.iter().filter(is_news).cloned().collect();
        (full || !instances.is_empty()).then_some(Report { desired_revision: desired.revision, full, instances })
    }

    /// Notes that a report which [`Self::news`] made was taken.
    fn acknowledge(&mut self, desired: &Desired, all: &[InstanceReport], full: bool) {
        let wanted = wanted(desired);
        let of = |instance: InstanceId| wanted.get(&instance).copied().cloned();
        self.instances = all.iter().map(|one| (one.instance, (of(one.instance), one.clone()))).collect();
        if full {
            self.full = Some((desired.incarnation, Instant::now()));
        }
    }
}

/// What is wanted of each instance.
fn wanted(desired: &Desired) -> HashMap<InstanceId, &Assignment> {
    desired.assignments.iter().map(|assignment| (assignment.instance, assignment)).collect()
}
