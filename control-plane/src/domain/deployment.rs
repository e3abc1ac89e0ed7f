//! Deployments: the state follows from the members, and one rule decides when an operation on many members has ended.
//!
//! ```text
//!  deploying --no member pending, starting or stopping--> ready | stopped | degraded  (nothing is replaced unasked)
//!  ready, stopped, degraded --a member is started, placed, stopped--> deploying
//!  any --DELETE--> deleting --last member gone--> deleted
//! ```

use std::collections::BTreeMap;

use muster_api::{
    Timestamp,
    deployment::{DeploymentState, SlowMember, Spread, Timing},
};

use super::instance::Step;

/// Most members a deployment may have.
pub const MEMBERS_MAX: u64 = 10_000;

/// How many members are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members by state, as the API names it. Deleted ones are no members any more.
    pub counts: BTreeMap<String, u64>,
    /// How many of the running members are ready.
    pub ready: u64,
    /// How many of the running members were not ready in time, so that nobody waits for them.
    pub not_ready: u64,
}

impl Tally {
    /// Adds members of one state.
    pub fn add(&mut self, state: &str, members: u64, ready: u64) {
        if members > 0 && state != "deleted" {
            *self.counts.entry(state.to_owned()).or_default() += members;
            self.ready += ready;
        }
    }

    fn of(&self, states: &[&str]) -> u64 {
        states.iter().filter_map(|state| self.counts.get(*state)).sum()
    }

    /// The state of a deployment with these members that nobody deleted.
    #[must_use]
    pub fn state(&self) -> DeploymentState {
        let unready = self.of(&["running"]).saturating_sub(self.ready + self.not_ready);
        if self.of(&["pending", "starting", "stopping", "migrating"]) + unready > 0 {
            DeploymentState::Deploying
        } else if self.of(&["failed", "unknown", "paused"]) + self.not_ready > 0 {
            DeploymentState::Degraded
        } else if self.of(&["stopped"]) > 0 && self.of(&["running"]) == 0 {
            DeploymentState::Stopped
        } else {
            DeploymentState::Ready
        }
    }
}

/// How far the members of one operation are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Members that are what the operation wants, for example ready or deleted.
    pub done: u64,
    /// Members that are still on their way. The operation is not decided while there are any.
    pub under_way: u64,
    /// Members that will not get there by themselves.
    pub failed: u64,
    /// Members on silent nodes. They are waited for only while they are needed.
    pub unknown: u64,
}

impl Work {
    /// Counts members that are at `step`.
    pub fn add(&mut self, step: Step, members: u64) {
        match step {
            Step::Done => self.done += members,
            Step::UnderWay => self.under_way += members,
            Step::Failed => self.failed += members,
            Step::Unknown => self.unknown += members,
        }
    }

    /// All members of the operation.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.done + self.under_way + self.failed + self.unknown
    }

    /// How the operation ended; `None` while it is not decided. It is a success when `needed` members got there.
    /// Members on silent nodes are waited for only while they are needed.
    #[must_use]
    pub const fn verdict(&self, needed: u64) -> Option<Verdict> {
        if self.under_way > 0 {
            None
        } else if self.done >= needed {
            Some(Verdict::Succeeded)
        } else if self.unknown > 0 {
            None
        } else {
            Some(Verdict::Failed)
        }
    }
}

/// How an operation on members ended, see [`Work::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At least as many members got there as were needed.
    Succeeded,
    /// Too few members got there, and no more will.
    Failed,
}

/// When a ready member took which step, for the percentiles.
#[derive(Clone, Debug)]
pub struct Way {
    /// Id of the member.
    pub instance: muster_api::InstanceId,
    /// Name of the member, `DEPLOYMENT.N`.
    pub name: String,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it got a node.
    pub placed_at: Option<Timestamp>,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When its probe succeeded.
    pub ready_at: Option<Timestamp>,
}

/// Percentiles (nearest rank) of the time from the request to each step.
#[must_use]
pub fn timing(ways: &[Way]) -> Timing {
    Timing {
        placed: spread(ways, |way| way.placed_at),
        started: spread(ways, |way| way.started_at),
        ready: spread(ways, |way| way.ready_at),
    }
}

fn spread(ways: &[Way], step: impl Fn(&Way) -> Option<Timestamp>) -> Spread {
    let mut took: Vec<(u64, &Way)> = ways
        .iter()
        .filter_map(|way| Some((u64::try_from(step(way)?.ms_since(way.requested_at)).unwrap_or(0), way)))
        .collect();
    took.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    let rank = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1).map(|(ms, _)| *ms);
    Spread {
        p50_ms: rank(50),
        p90_ms: rank(90),
        p99_ms: rank(99),
        slowest: took
            .iter()
            .rev()
            .take(3)
            .map(|(ms, way)| SlowMember { instance: way.instance, instance_name: way.name.clone(), ms: *ms })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use muster_api::InstanceId;

    use super::*;

    fn tally(counts: &[(&str, u64)], ready: u64) -> Tally {
        let mut tally = Tally::default();
        for (state, count) in counts {
            tally.add(state, *count, if *state == "running" { ready } else { 0 });
        }
        tally
    }

    #[test]
    fn the_state_follows_from_the_members() {
        for (counts, ready, wanted) in [
            (vec![("running", 4)], 4, DeploymentState::Ready),
            (vec![("running", 4)], 3, DeploymentState::Deploying),
            (vec![("running", 3), ("pending", 1)], 3, DeploymentState::Deploying),
            (vec![("running", 3), ("failed", 1)], 3, DeploymentState::Degraded),
            (vec![("running", 3), ("unknown", 1)], 3, DeploymentState::Degraded),
            (vec![("stopped", 4)], 0, DeploymentState::Stopped),
            (vec![("running", 1), ("stopped", 3)], 1, DeploymentState::Ready),
            (vec![("stopped", 3), ("failed", 1)], 0, DeploymentState::Degraded),
            (vec![], 0, DeploymentState::Ready),
            (vec![("running", 1), ("deleted", 3)], 1, DeploymentState::Ready),
        ] {
            assert_eq!(tally(&counts, ready).state(), wanted, "{counts:?}");
        }
    }

    #[test]
    fn a_deployment_with_a_member_that_was_not_ready_in_time_is_degraded() {
        let late = Tally { not_ready: 1, ..tally(&[("running", 4)], 3) };
        assert_eq!(late.state(), DeploymentState::Degraded);
        assert_eq!(Tally { not_ready: 1, ..tally(&[("running", 4)], 2) }.state(), DeploymentState::Deploying);
    }

    #[test]
    fn an_operation_ends_when_no_member_is_under_way() {
        let work = |done, under_way, failed, unknown| Work { done, under_way, failed, unknown };
        assert_eq!(work(3, 1, 0, 0).verdict(3), None);
        assert_eq!(work(3, 0, 1, 0).verdict(3), Some(Verdict::Succeeded));
        assert_eq!(work(2, 0, 2, 0).verdict(3), Some(Verdict::Failed));
        assert_eq!(work(3, 0, 0, 1).verdict(3), Some(Verdict::Succeeded), "a silent node delays nobody");
        assert_eq!(work(2, 0, 1, 1).verdict(3), None, "but is waited for when it is needed");
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let ways: Vec<Way> = (1..=100)
            .map(|n| Way {
                instance: InstanceId::generate(),
                name: format!("web.{n}"),
                requested_at: Timestamp::from_micros(0),
                placed_at: Some(Timestamp::from_micros(0)),
                started_at: None,
                ready_at: Some(Timestamp::from_micros(n * 1000)),
            })
            .collect();
        let timing = timing(&ways);
        assert_eq!((timing.ready.p50_ms, timing.ready.p90_ms, timing.ready.p99_ms), (Some(50), Some(90), Some(99)));
        assert_eq!(timing.ready.slowest.iter().map(|s| s.ms).collect::<Vec<_>>(), [100, 99, 98]);
        assert_eq!(timing.placed.p50_ms, Some(0));
        assert_eq!(timing.started.p50_ms, None);
    }
}
