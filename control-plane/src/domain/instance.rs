//! The life of an instance: all edges in one match, no clock, no await.
//!
//! ```text
//!            Place            report: runs            Stop              report: stopped
//!  pending ---------> starting ---------> running ----------> stopping ----------------> stopped
//!     |  ^               |  ^             |  ^  |                 ^                          |
//!     |  | evicted       |  |  report:    v  |  |    Stop         |                          | Start (boot + 1)
//!     |  | (Retry)       |  |  paused    paused |                 |                          v
//!     |  +-- failed <----+--+-------------------+                 |                       starting
//!     v        |  no_capacity, start_failed, disk_lost, overdue   |
//!   failed     +-- Start, Retry (boot + 1) --> starting           +-- paused, starting, failed with a node
//!
//!  starting, running, paused, stopping, stopped --Silent--> unknown --Heard--> what it was; a report says more
//!  anything --Delete--> deleting (deleted at once when it has no node) --report: gone--> deleted
//!  anything with a node --NodeLost (an operator's word)--> failed, without a node; what was being deleted is deleted
//!  failed (node_lost) --Recover--> pending: elsewhere, from what was last saved
//! ```
//!
//! Beside the state stands what the node is told: `wanted`, and `boot`, which counts the starts. A report counts only
//! if it has the instance's generation (I8) and its boot. Reports tell states, not changes, so any of them may be lost
//! or come twice. A guest that starts after its deadline stays failed for that boot.

use std::time::Duration;

use muster_api::{
    NodeId, Reason, Timestamp,
    condition::Condition,
    deployment::OnReadyTimeout,
    instance::InstanceState,
    node_protocol::{InstanceReport, Observed, Wanted},
};

/// How long a guest may take to stop where neither the request nor the configuration says it.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a guest may be given to stop.
pub const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The state of an instance, and what its node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is in its life. Only [`Life::after`] changes it.
    pub state: InstanceState,
    /// Why it is in that state, a word.
    pub reason: Option<Reason>,
    /// The same in a sentence.
    pub detail: Option<String>,
    /// What its node is told.
    pub wanted: Wanted,
    /// Counts its starts, from 1.
    pub boot: u64,
    /// Counts the nodes on which its disks may be written, one after the other (I8).
    pub generation: u64,
    /// The node that it is on.
    pub node: Option<NodeId>,
    /// How it is to be stopped.
    pub stop: Stop,
    /// Its node is told to delete it because it will be tried on another one.
    pub evicting: bool,
    /// It was ready once, so its disk may hold data that somebody needs.
    pub was_ready: bool,
    /// Its guest was started at least once on the disk that it has now.
    pub was_started: bool,
    /// Counts the boots of its guest: starts, starts after its host was restarted, and restarts by itself.
    pub boots: u64,
    /// How many of them were by itself in the present start, as last reported.
    pub reboots: u64,
    /// Why it last ended, failed, was held or restarted itself, and when. It stays when it runs again.
    pub last: Option<(Reason, Timestamp)>,
    /// The state that it had when its node fell silent; set while it is unknown.
    pub known: Option<InstanceState>,
    /// What its node told that people should know about it.
    pub conditions: Vec<Condition>,
    /// When each step of the present start happened.
    pub steps: Steps,
}

/// How to stop a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Its power is cut at once.
    pub force: bool,
    /// How long the guest may take before its power is cut, seconds.
    pub timeout_s: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self { force: false, timeout_s: STOP_TIMEOUT.as_secs() }
    }
}

/// When each step of the present start happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// When somebody asked for it.
    pub requested_at: Option<Timestamp>,
    /// When it got a node.
    pub placed_at: Option<Timestamp>,
    /// When its disk was there.
    pub disk_at: Option<Timestamp>,
    /// When the hypervisor started it.
    pub started_at: Option<Timestamp>,
    /// When its probe succeeded; `None` again when the guest stops or fails.
    pub ready_at: Option<Timestamp>,
}

/// What happens to an instance.
#[derive(Clone, Debug)]
pub enum Edge<'a> {
    /// The scheduler found a node.
    Place(NodeId),
    /// The scheduler found no node, for this reason.
    NoPlace(&'a str),
    /// The scheduler found only nodes whose libvirt does not answer, as this says. It may wait for one of them.
    AwaitPlace(&'a str),
    /// Somebody wants it to run.
    Start,
    /// Somebody wants it to stop.
    Stop(Stop),
    /// Somebody wants it to stop and start again.
    Reboot(Stop),
    /// Somebody wants it tried again after a failure.
    Retry,
    /// Somebody wants it deleted. If it has a node, that must confirm that nothing is left of it.
    Delete,
    /// Its node sent no heartbeat for 30 s.
    Silent,
    /// Its node is heard from again.
    Heard,
    /// The deadline of its operation has passed, while it did this. The word says what becomes of a guest that runs.
    Overdue(&'a str, OnReadyTimeout),
    /// Its node reports what is true.
    Report(&'a InstanceReport),
    /// Its node reports all instances it has, and this one is not among them.
    Missing,
    /// An operator said that its node is off for good. What no version has of its disks is lost with it.
    NodeLost,
    /// Somebody wants it to run on another node, from what was last saved of its disks: its node is lost.
    Recover,
    /// It is off, and its disks get another content: nothing that was written before counts any more. Says whether it is to
    /// run with it.
    Restore {
        /// Whether it is started.
        run: bool,
    },
}

/// The instance's state does not allow the edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {state:?} cannot do this")]
pub struct Refused {
    /// The state that it has.
    pub state: InstanceState,
    /// The states that would allow it.
    pub allowed: &'static [InstanceState],
    /// What to do instead, where the state alone does not say it.
    pub hint: Option<&'static str>,
}

/// What an instance is told that cannot go on by itself because its node is lost.
const NEEDS_RECOVER: &str = "its node is lost, and with it what no version has: `recover` starts it elsewhere from its \
    last saved version";

use InstanceState as S;

impl Life {
    /// A new instance without a node.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: S::Pending,
            reason: None,
            detail: None,
            wanted: Wanted::Running,
            boot: 1,
            generation: 1,
            node: None,
            stop: Stop::default(),
            evicting: false,
            was_ready: false,
            was_started: false,
            boots: 0,
            reboots: 0,
            last: None,
            known: None,
            conditions: Vec::new(),
            steps: Steps { requested_at: Some(now), ..Steps::default() },
        }
    }

    /// An instance that the database did not know and that its node has: it is what the node reports. Its disk may hold data
    /// that somebody needs. `wanted` is what its node was last told; an order to delete it does not count any more.
    #[must_use]
    pub fn taken_back(node: NodeId, report: &InstanceReport, wanted: Wanted, now: Timestamp) -> Self {
        let (state, wanted) = match wanted {
            Wanted::Running => (S::Starting, Wanted::Running),
            Wanted::Stopped | Wanted::Gone => (S::Stopping, Wanted::Stopped),
        };
        let held = Self {
            state,
            wanted,
            boot: report.boot,
            generation: report.generation,
            node: Some(node),
            was_ready: true,
            was_started: true,
            steps: Steps { requested_at: Some(now), placed_at: Some(now), ..Steps::default() },
            ..Self::new(now)
        };
        held.after(&Edge::Report(report), now).expect("a report is never refused")
    }

    /// Whether it is ready: it runs and its probe succeeded.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, S::Running) && self.steps.ready_at.is_some()
    }

    /// Whether it runs, was not ready in time, and nobody waits for it any more.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.state == S::Running && self.reason == Some(Reason::NotReady) && self.steps.ready_at.is_none()
    }

    /// Whether it failed because its node was declared dead, and was not begun anew since.
    #[must_use]
    pub fn awaits_recovery(&self) -> bool {
        self.state == S::Failed && self.node.is_none() && self.reason == Some(Reason::NodeLost)
    }

    /// What an edge makes of it. Equal to `self` if the edge changes nothing.
    pub fn after(&self, edge: &Edge<'_>, now: Timestamp) -> Result<Self, Refused> {
        let mut next = self.clone();
        match (self.state, edge) {
            (S::Deleted, Edge::Report(_) | Edge::Missing | Edge::Silent | Edge::Heard | Edge::Overdue(..)) => {}
            (S::Deleted | S::Deleting, Edge::Delete) => {}

            (S::Pending, Edge::Place(node)) if self.node.is_none() => {
                next.set(S::Starting, None, None);
                next.node = Some(*node);
                next.wanted = Wanted::Running;
                next.steps.placed_at = Some(now);
            }
            (S::Pending, Edge::NoPlace(why)) if self.node.is_none() => {
                next.set(S::Failed, Some(Reason::NoCapacity), Some((*why).to_owned()));
            }
            (S::Pending, Edge::AwaitPlace(why)) if self.node.is_none() => {
                next.set(S::Pending, Some(Reason::HypervisorSilent), Some((*why).to_owned()));
            }
            (_, Edge::Place(_) | Edge::NoPlace(_) | Edge::AwaitPlace(_)) => return self.refuse(&[S::Pending]),

            (S::Pending | S::Starting | S::Running | S::Paused, Edge::Start) => {}
            (S::Failed, Edge::Start | Edge::Retry) if self.may_lose_data() => {
                return Err(Refused { hint: Some(NEEDS_RECOVER), ..self.refusal(&[S::Stopped, S::Stopping]) });
            }
            (S::Stopped | S::Failed | S::Stopping, Edge::Start) => next.begin(now),
            (_, Edge::Start) => return self.refuse(&[S::Stopped, S::Failed, S::Stopping]),

            (S::Failed, Edge::Retry) if self.node.is_some() && !self.was_ready => {
                // It never ran: nothing on its disk is anybody's, so it may be tried elsewhere once its node let go
                // (I8).
                next.set(S::Pending, None, None);
                (next.wanted, next.evicting) = (Wanted::Gone, true);
                next.steps = Steps { requested_at: Some(now), ..Steps::default() };
            }
            (S::Failed, Edge::Retry) => next.begin(now),
            // It runs. It is waited for again, and nothing is done to it.
            (S::Running, Edge::Retry) if self.gave_up() => next.set(S::Running, None, None),
            (_, Edge::Retry) => return self.refuse(&[S::Failed]),

            (S::Stopped | S::Stopping, Edge::Stop(stop)) => {
                // One that ended by itself is not started again when its host or its agent is.
                if self.state == S::Stopping || self.wanted == Wanted::Running {
                    (next.wanted, next.stop) = (Wanted::Stopped, *stop);
                }
            }
            (S::Starting | S::Running | S::Paused, Edge::Stop(stop)) => {
                next.set(S::Stopping, None, None);
                (next.wanted, next.stop) = (Wanted::Stopped, *stop);
            }
            (S::Failed, Edge::Stop(stop)) if self.node.is_some() => {
                next.set(S::Stopping, None, None);
                (next.wanted, next.stop) = (Wanted::Stopped, *stop);
            }
            (_, Edge::Stop(_)) => return self.refuse(&[S::Starting, S::Running, S::Paused, S::Failed]),

            (S::Running | S::Paused, Edge::Reboot(stop)) => {
                next.begin(now);
                next.stop = *stop;
            }
            (_, Edge::Reboot(_)) => return self.refuse(&[S::Running, S::Paused]),

            (_, Edge::Delete) => {
                (next.wanted, next.evicting, next.known) = (Wanted::Gone, false, None);
                let state = if self.node.is_some() { S::Deleting } else { S::Deleted };
                next.set(state, None, None);
            }

            (S::Starting | S::Running | S::Paused | S::Stopping | S::Stopped, Edge::Silent) => {
                next.known = Some(self.state);
                next.set(S::Unknown, Some(Reason::NodeSilent), Some("its node has not been heard from".to_owned()));
            }
            (_, Edge::Silent) => {}
            (S::Unknown, Edge::Heard) => {
                let state = self.known.expect("what is unknown has a state that was known");
                next.set(state, None, None);
                next.known = None;
            }
            (_, Edge::Heard) => {}

            // It may be healthy and slow, so it runs on. What holds a paused one, or makes it unknown, is told already.
            (S::Running, Edge::Overdue(why, OnReadyTimeout::Keep)) => {
                if self.steps.ready_at.is_none() && !self.gave_up() {
                    next.set(S::Running, Some(Reason::NotReady), Some((*why).to_owned()));
                }
            }
            (S::Paused, Edge::Overdue(_, OnReadyTimeout::Keep)) => {}
            (S::Unknown, Edge::Overdue(_, OnReadyTimeout::Keep))
                if matches!(self.known, Some(S::Running | S::Paused)) => {}
            (S::Pending | S::Starting | S::Running | S::Paused | S::Unknown, Edge::Overdue(why, _)) => {
                if self.state != S::Pending && self.steps.ready_at.is_some() {
                    return Ok(next);
                }
                let reason =
                    if self.steps.started_at.is_some() { Reason::NotReadyInTime } else { Reason::NotStartedInTime };
                next.set(S::Failed, Some(reason), Some((*why).to_owned()));
                next.known = None;
                if self.node.is_some() && !self.evicting {
                    // The node is told to clean up, and keeps the disk.
                    (next.wanted, next.stop) = (Wanted::Stopped, Stop { force: true, timeout_s: 0 });
                }
            }
            (_, Edge::Overdue(..)) => {}

            (_, Edge::Missing) if self.node.is_none() => {}
            (_, Edge::Missing) => {
                if self.wanted == Wanted::Gone {
                    next.gone(now);
                } else if self.steps.disk_at.is_some() && self.state != S::Failed {
                    next.known = None;
                    next.set(S::Failed, Some(Reason::DiskLost), Some("its node no longer has its disk".to_owned()));
                }
            }
            (_, Edge::Report(report)) => next.report(report, now),

            (_, Edge::NodeLost) if self.node.is_none() => {}
            (_, Edge::NodeLost) => next.node_lost(now),

            (S::Failed, Edge::Recover) if self.is_node_lost() => {
                next.begin(now);
                // Its new disk has what was saved and nothing else yet.
                (next.was_ready, next.was_started) = (false, false);
            }
            (S::Failed, Edge::Recover) => {
                let hint = Some("its node is not lost: `start` tries it again");
                return Err(Refused { hint, ..self.refusal(&[S::Failed]) });
            }
            (_, Edge::Recover) => return self.refuse(&[S::Failed]),

            (S::Stopped, Edge::Restore { run }) if self.node.is_some() => {
                // I8: whatever its node still says or stages of the content before is of an older generation.
                next.generation += 1;
                if *run {
                    next.begin(now);
                } else {
                    next.set(S::Stopping, None, None);
                    next.wanted = Wanted::Stopped;
                }
            }
            (_, Edge::Restore { .. }) => return self.refuse(&[S::Stopped]),
        }
        if matches!(next.state, S::Stopped | S::Failed | S::Paused)
            && let Some(reason) = next.reason.clone()
            && (next.state, &next.reason) != (self.state, &self.reason)
        {
            next.last = Some((reason, now));
        }
        Ok(next)
    }

    /// Whether its node was declared dead, so that only [`Edge::Recover`] or [`Edge::Delete`] helps.
    #[must_use]
    pub fn is_node_lost(&self) -> bool {
        self.state == S::Failed && self.node.is_none() && self.reason == Some(Reason::NodeLost)
    }

    /// Whether its node is lost and its disk may have had data that no version has: it was started there.
    #[must_use]
    pub fn may_lose_data(&self) -> bool {
        self.is_node_lost() && (self.was_ready || self.was_started)
    }

    /// Whether a report is about this generation and this start. A report that it is gone may be of any start.
    #[must_use]
    pub fn concerns(&self, report: &InstanceReport) -> bool {
        let is_of_now = report.generation == self.generation
            && (report.boot == self.boot || (report.state == Observed::Gone && self.wanted == Wanted::Gone));
        self.node.is_some() && self.state != S::Deleted && (is_of_now || self.is_behind(report))
    }

    /// Whether a node holds the instance, unnamed, in a later place than this: it was placed there, or moved there, in a
    /// history that the database does not know. Each place has its generation (I8), and the first one of a new instance or
    /// of one that was let go begins without a node.
    #[must_use]
    pub fn is_outdated_by(&self, node: NodeId, report: &InstanceReport) -> bool {
        let is_elsewhere = report.found.is_some() && self.node != Some(node);
        let has_place = self.node.is_some() || self.state == S::Deleted;
        is_elsewhere && report.generation >= self.generation + u64::from(has_place)
    }

    /// Whether the report is of a later generation or start than this: the database is an older copy.
    fn is_behind(&self, report: &InstanceReport) -> bool {
        (report.generation, report.boot) > (self.generation, self.boot) && report.generation >= self.generation
    }

    fn report(&mut self, report: &InstanceReport, now: Timestamp) {
        if !self.concerns(report) {
            return;
        }
        if self.is_behind(report) {
            (self.generation, self.boot) = (report.generation, report.boot);
        }
        let gave_up = self.gave_up();
        let was = self.known.take().unwrap_or(self.state);
        let say = (report.reason.clone(), report.detail.clone());
        match (self.wanted, report.state) {
            (Wanted::Gone, Observed::Gone) => return self.gone(now),
            (Wanted::Gone, _) => {
                // Its node is still deleting it. A reason why that takes long is shown.
                if matches!(self.state, S::Deleting | S::Pending) {
                    self.set(self.state, say.0, say.1);
                }
            }

            (Wanted::Stopped, Observed::Stopped) if was != S::Failed => self.set(S::Stopped, say.0, say.1),
            (Wanted::Stopped, Observed::Failed) if was != S::Failed => self.set(S::Failed, say.0, say.1),
            (Wanted::Stopped, Observed::Gone) if was != S::Failed => {
                self.set(S::Failed, Some(Reason::DiskLost), say.1);
            }
            (Wanted::Stopped, _) if was != S::Failed => self.set(S::Stopping, say.0, say.1),
            (Wanted::Stopped, _) => {}

            (Wanted::Running, _) if was == S::Failed => {}
            // Its operation gave up before its node did: that stays told until it is ready.
            (Wanted::Running, Observed::Running) if gave_up && say.0.is_none() && report.ready_at.is_none() => {}
            (Wanted::Running, Observed::Running) => self.set(S::Running, say.0, say.1),
            (Wanted::Running, Observed::Paused) => self.set(S::Paused, say.0, say.1),
            (Wanted::Running, Observed::Failed) => self.set(S::Failed, say.0.or(Some(Reason::StartFailed)), say.1),
            (Wanted::Running, Observed::Stopped)
                if say.0.is_some() || matches!(was, S::Running | S::Paused | S::Stopped) =>
            {
                self.set(S::Stopped, say.0.or(Some(Reason::GuestEnded)), say.1);
            }
            (Wanted::Running, Observed::Gone) if was != S::Starting => {
                self.set(S::Failed, Some(Reason::DiskLost), say.1)
            }
            (Wanted::Running, Observed::Preparing) => self.set(S::Starting, say.0, say.1),
            (Wanted::Running, Observed::Stopping | Observed::Stopped | Observed::Gone) => self.set(was, None, None),
        }
        self.booted(report, now);
        self.conditions.clone_from(&report.conditions);
        // Levels: a start that began anew, because the host was restarted, has none of the steps of the one before.
        (self.steps.disk_at, self.steps.started_at) = (report.disk_at, report.started_at);
        if matches!(self.state, S::Running | S::Paused) && self.wanted == Wanted::Running {
            self.steps.ready_at = report.ready_at;
            self.was_ready |= self.steps.ready_at.is_some();
        } else {
            self.steps.ready_at = None;
        }
    }

    /// Counts the boots that a report tells of.
    fn booted(&mut self, report: &InstanceReport, now: Timestamp) {
        if report.started_at.is_some() && report.started_at != self.steps.started_at {
            (self.boots, self.reboots, self.was_started) = (self.boots + 1, 0, true);
        }
        if report.reboots > self.reboots {
            self.boots += report.reboots - self.reboots;
            self.reboots = report.reboots;
            self.last = Some((Reason::GuestRebooted, now));
        }
    }

    /// Begins another start: on its node if it has one, otherwise it waits to be placed.
    fn begin(&mut self, now: Timestamp) {
        let placed_at = self.node.and(self.steps.placed_at);
        let state = if self.node.is_some() { S::Starting } else { S::Pending };
        self.set(state, None, None);
        (self.wanted, self.boot, self.evicting, self.known) = (Wanted::Running, self.boot + 1, false, None);
        self.stop = Stop::default();
        self.reboots = 0;
        self.conditions.clear();
        self.steps = Steps { requested_at: Some(now), placed_at, ..Steps::default() };
    }

    fn gone(&mut self, now: Timestamp) {
        self.node = None;
        self.known = None;
        self.conditions.clear();
        if self.evicting {
            let requested_at = self.steps.requested_at.or(Some(now));
            (self.wanted, self.evicting, self.was_started, self.reboots) = (Wanted::Running, false, false, 0);
            (self.generation, self.boot) = (self.generation + 1, self.boot + 1);
            self.steps = Steps { requested_at, ..Steps::default() };
            // If it failed in the meantime it stays failed; it may go to any node when it is tried again.
            if self.state != S::Failed {
                self.set(S::Pending, None, None);
            }
        } else {
            self.set(S::Deleted, None, None);
        }
    }

    /// Its node is off for good. What it still had to delete there counts as deleted.
    fn node_lost(&mut self, now: Timestamp) {
        if self.wanted == Wanted::Gone {
            return self.gone(now);
        }
        let detail = "its node was declared dead; `recover` starts it elsewhere from its last saved version";
        self.set(S::Failed, Some(Reason::NodeLost), Some(detail.to_owned()));
        // I8: whatever the old node still says or stages is of an older generation.
        (self.node, self.known, self.generation) = (None, None, self.generation + 1);
        self.conditions.clear();
    }

    fn set(&mut self, state: S, reason: Option<Reason>, detail: Option<String>) {
        self.state = state;
        self.reason = reason;
        self.detail = detail;
        if matches!(state, S::Stopping | S::Stopped | S::Failed | S::Deleting | S::Deleted) {
            self.steps.ready_at = None;
        }
    }

    const fn refusal(&self, allowed: &'static [S]) -> Refused {
        Refused { state: self.state, allowed, hint: None }
    }

    fn refuse(&self, allowed: &'static [S]) -> Result<Self, Refused> {
        Err(self.refusal(allowed))
    }
}

/// How far an instance is with what an operation asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as the operation wants it.
    Done,
    /// It is on its way.
    UnderWay,
    /// It will not get there by itself.
    Failed,
    /// Its node is silent, so nobody knows.
    Unknown,
}

/// How far an instance is with what it was last asked for. `gave_up` is [`Life::gave_up`].
#[must_use]
pub const fn step(state: InstanceState, wanted: Wanted, ready: bool, gave_up: bool) -> Step {
    match (state, wanted) {
        (S::Deleted, _) => Step::Done,
        (S::Failed, _) => Step::Failed,
        (S::Pending | S::Deleting, _) => Step::UnderWay,
        (S::Unknown, _) => Step::Unknown,
        (S::Running, Wanted::Running) => match (ready, gave_up) {
            (true, _) => Step::Done,
            (false, true) => Step::Failed,
            (false, false) => Step::UnderWay,
        },
        (S::Stopped, Wanted::Stopped) => Step::Done,
        (S::Stopped, Wanted::Running) => Step::Failed,
        _ => Step::UnderWay,
    }
}

/// The words of [`InstanceState`], as stored and shown.
#[must_use]
pub const fn word(state: InstanceState) -> &'static str {
    match state {
        S::Pending => "pending",
        S::Starting => "starting",
        S::Running => "running",
        S::Paused => "paused",
        S::Stopping => "stopping",
        S::Stopped => "stopped",
        S::Migrating => "migrating",
        S::Failed => "failed",
        S::Deleting => "deleting",
        S::Deleted => "deleted",
        S::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use muster_api::InstanceId;
    use proptest::prelude::*;

    use super::*;

    const T: Timestamp = Timestamp::from_micros(1_000_000);

    fn report(life: &Life, state: Observed) -> InstanceReport {
        let up = matches!(state, Observed::Running).then_some(T);
        InstanceReport {
            instance: InstanceId::generate(),
            generation: life.generation,
            boot: life.boot,
            state,
            reason: None,
            detail: None,
            disk_at: up,
            started_at: up,
            ready_at: up,
            reboots: 0,
            conditions: Vec::new(),
            disks: Vec::new(),
            absent: Vec::new(),
            guest: None,
            found: None,
        }
    }

    fn told(life: &Life, state: Observed) -> Life {
        life.after(&Edge::Report(&report(life, state)), T).expect("a report is never refused")
    }

    fn go(life: &Life, edge: Edge<'_>) -> Life {
        life.after(&edge, T).expect("allowed")
    }

    fn running() -> Life {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        told(&placed, Observed::Running)
    }

    #[test]
    fn an_instance_that_is_taken_back_is_what_its_node_reports_and_is_never_begun_anew_elsewhere() {
        let node = NodeId::generate();
        let held = InstanceReport { generation: 3, boot: 7, ..report(&Life::new(T), Observed::Running) };
        let back = Life::taken_back(node, &held, Wanted::Running, T);
        assert_eq!((back.state, back.node, back.generation, back.boot), (S::Running, Some(node), 3, 7));
        assert!(back.is_ready() && back.was_ready && back.was_started);
        let off = InstanceReport { started_at: None, ready_at: None, ..held.clone() };
        let off = InstanceReport { state: Observed::Stopped, ..off };
        // An order to delete it, which nobody remembers, does not count.
        for wanted in [Wanted::Stopped, Wanted::Gone] {
            let back = Life::taken_back(node, &off, wanted, T);
            assert_eq!((back.state, back.wanted), (S::Stopped, Wanted::Stopped));
        }
        // Its agent starts it again, or tells why not.
        assert_eq!(Life::taken_back(node, &off, Wanted::Running, T).state, S::Starting);
        let lost = InstanceReport { state: Observed::Failed, reason: Some(Reason::DiskLost), ..off };
        let failed = Life::taken_back(node, &lost, Wanted::Running, T);
        assert_eq!(failed.after(&Edge::Retry, T).map(|life| life.node), Ok(Some(node)), "its disk is there");
    }

    #[test]
    fn a_start_goes_from_pending_to_ready() {
        let life = running();
        assert!(life.is_ready());
        assert_eq!(life.steps.placed_at, Some(T));
    }

    #[test]
    fn a_report_of_another_generation_or_start_changes_nothing() {
        let life = running();
        let old = InstanceReport { generation: 0, ..report(&life, Observed::Failed) };
        assert_eq!(go(&life, Edge::Report(&old)), life);
        let again = go(&life, Edge::Reboot(Stop::default()));
        let late = InstanceReport { boot: 1, ..report(&life, Observed::Running) };
        assert_eq!(go(&again, Edge::Report(&late)), again);
    }

    #[test]
    fn a_failed_instance_stays_failed_until_its_next_start() {
        let failed = told(&running(), Observed::Failed);
        assert_eq!(failed.state, S::Failed);
        assert_eq!(told(&failed, Observed::Running).state, S::Failed);
        let again = go(&failed, Edge::Start);
        assert_eq!((again.state, again.boot), (S::Starting, 2));
        assert!(told(&again, Observed::Running).is_ready());
    }

    #[test]
    fn an_instance_that_starts_again_with_its_host_is_not_ready_until_it_says_so() {
        let life = running();
        let later = T.plus_ms(60_000);
        // The host was restarted: the same start begins anew. A report of it may be lost, as may the silence.
        for before in [life.clone(), go(&life, Edge::Silent), go(&go(&life, Edge::Silent), Edge::Heard)] {
            let preparing = told(&before, Observed::Preparing);
            assert_eq!((preparing.state, preparing.steps.started_at), (S::Starting, None));
            for before in [before, preparing] {
                let report = InstanceReport {
                    disk_at: Some(later),
                    started_at: Some(later),
                    ready_at: None,
                    ..report(&life, Observed::Running)
                };
                let booting = go(&before, Edge::Report(&report));
                assert_eq!((booting.state, booting.is_ready()), (S::Running, false));
                assert_eq!((booting.steps.started_at, booting.steps.ready_at), (Some(later), None));
                assert_eq!(booting.boots, 2);
            }
        }
    }

    #[test]
    fn boots_are_counted_and_the_last_reason_is_kept() {
        let life = running();
        assert_eq!((life.boots, &life.last), (1, &None));
        let panicked = InstanceReport { reboots: 2, ..report(&life, Observed::Running) };
        let restarted = go(&life, Edge::Report(&panicked));
        assert_eq!((restarted.state, restarted.boots), (S::Running, 3));
        assert_eq!(restarted.last, Some((Reason::GuestRebooted, T)));
        assert_eq!(go(&restarted, Edge::Report(&panicked)), restarted);
        let crash = InstanceReport { reason: Some(Reason::GuestCrashed), ..report(&life, Observed::Failed) };
        let crashed = go(&restarted, Edge::Report(&crash));
        let again = go(&crashed, Edge::Start);
        assert_eq!((&again.reason, &again.last), (&None, &Some((Reason::GuestCrashed, T))));
        let up = InstanceReport { started_at: Some(T.plus_ms(1)), ..report(&again, Observed::Running) };
        assert_eq!(go(&again, Edge::Report(&up)).boots, 4);
    }

    #[test]
    fn a_stop_tells_whether_power_was_cut() {
        let stopping = go(&running(), Edge::Stop(Stop::default()));
        assert_eq!(told(&stopping, Observed::Stopped).reason, None);
        let cut = InstanceReport { reason: Some(Reason::PowerCut), ..report(&stopping, Observed::Stopped) };
        let stopped = go(&stopping, Edge::Report(&cut));
        assert_eq!((stopped.state, stopped.reason), (S::Stopped, Some(Reason::PowerCut)));
    }

    #[test]
    fn an_instance_of_a_silent_node_is_unknown_until_the_node_is_heard() {
        let life = running();
        let silent = go(&life, Edge::Silent);
        assert_eq!(silent.state, S::Unknown);
        assert!(!silent.is_ready());
        assert_eq!(go(&silent, Edge::Heard), life);
        assert_eq!(told(&silent, Observed::Stopped).state, S::Stopped);
        assert!(silent.after(&Edge::Start, T).is_err());
    }

    #[test]
    fn an_overdue_member_fails_and_its_node_is_told_to_clean_up() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        let late = go(&placed, Edge::Overdue("600 s are over", OnReadyTimeout::Keep));
        assert_eq!((late.state, late.wanted), (S::Failed, Wanted::Stopped));
        assert_eq!(told(&late, Observed::Stopped).state, S::Failed, "stays failed");
    }

    #[test]
    fn a_guest_that_is_not_ready_in_time_runs_on_unless_its_deployment_says_stop() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        let booting = InstanceReport { ready_at: None, ..report(&placed, Observed::Running) };
        let slow = go(&placed, Edge::Report(&booting));
        assert_eq!(step(slow.state, slow.wanted, false, slow.gave_up()), Step::UnderWay);
        let stopped = go(&slow, Edge::Overdue("late", OnReadyTimeout::Stop));
        assert_eq!((stopped.state, stopped.wanted), (S::Failed, Wanted::Stopped));
        let told_by_node = InstanceReport { reason: Some(Reason::NotReady), ..booting.clone() };
        for late in [go(&slow, Edge::Overdue("late", OnReadyTimeout::Keep)), go(&slow, Edge::Report(&told_by_node))] {
            assert_eq!((late.state, late.wanted, &late.reason), (S::Running, Wanted::Running, &Some(Reason::NotReady)));
            assert_eq!(step(late.state, late.wanted, false, late.gave_up()), Step::Failed);
            assert_eq!(go(&late, Edge::Report(&booting)), late, "the node's own time need not be over");
            // It becomes ready after all.
            let ready = told(&late, Observed::Running);
            assert_eq!((ready.is_ready(), &ready.reason), (true, &None));
            // A retry waits for it and does nothing to it.
            let again = go(&late, Edge::Retry);
            assert_eq!((again.state, again.boot, &again.reason), (S::Running, late.boot, &None));
        }
        let held = told(&slow, Observed::Paused);
        assert_eq!(go(&held, Edge::Overdue("late", OnReadyTimeout::Keep)), held);
        let silent = go(&slow, Edge::Silent);
        assert_eq!(go(&silent, Edge::Overdue("late", OnReadyTimeout::Keep)), silent);
    }

    #[test]
    fn an_instance_that_never_ran_is_retried_elsewhere_after_its_node_deleted_it() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        let failed = told(&placed, Observed::Failed);
        let retried = go(&failed, Edge::Retry);
        assert_eq!((retried.state, retried.wanted, retried.node), (S::Pending, Wanted::Gone, placed.node));
        assert!(retried.after(&Edge::Place(NodeId::generate()), T).is_err());
        let free = told(&retried, Observed::Gone);
        assert_eq!((free.state, free.node, free.generation, free.wanted), (S::Pending, None, 2, Wanted::Running));
    }

    #[test]
    fn an_instance_that_ran_is_retried_on_the_node_with_its_disk() {
        let failed = told(&running(), Observed::Failed);
        let retried = go(&failed, Edge::Retry);
        assert_eq!((retried.state, retried.node, retried.generation), (S::Starting, failed.node, 1));
    }

    #[test]
    fn a_guest_that_ends_by_itself_is_stopped_and_can_be_started() {
        let ended = told(&running(), Observed::Stopped);
        assert_eq!((ended.state, &ended.reason), (S::Stopped, &Some(Reason::GuestEnded)));
        assert_eq!(go(&ended, Edge::Start).boot, 2);
    }

    #[test]
    fn the_reason_of_a_delay_is_shown_until_the_delay_is_over() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        let said = InstanceReport { reason: Some(Reason::DiskFailed), ..report(&placed, Observed::Preparing) };
        let troubled = go(&placed, Edge::Report(&said));
        assert_eq!((troubled.state, &troubled.reason), (S::Starting, &Some(Reason::DiskFailed)));
        assert_eq!(told(&troubled, Observed::Running).reason, None);
        let deleting = go(&troubled, Edge::Delete);
        let said = InstanceReport { reason: Some(Reason::Busy), ..report(&deleting, Observed::Stopping) };
        assert_eq!(go(&deleting, Edge::Report(&said)).reason, Some(Reason::Busy));
    }

    #[test]
    fn delete_works_in_every_state_and_ends_with_gone() {
        let life = running();
        for state in [
            life.clone(),
            go(&life, Edge::Silent),
            told(&life, Observed::Failed),
            go(&life, Edge::Stop(Stop::default())),
        ] {
            let deleting = go(&state, Edge::Delete);
            assert_eq!(deleting.state, S::Deleting);
            assert_eq!(told(&deleting, Observed::Running).state, S::Deleting);
            assert_eq!(told(&deleting, Observed::Gone).state, S::Deleted);
        }
        assert_eq!(go(&Life::new(T), Edge::Delete).state, S::Deleted);
    }

    #[test]
    fn an_instance_of_a_dead_node_fails_and_is_only_recovered_or_deleted() {
        let life = running();
        let stopped = told(&go(&life, Edge::Stop(Stop::default())), Observed::Stopped);
        for before in [life.clone(), go(&life, Edge::Silent), stopped, told(&life, Observed::Failed)] {
            let lost = go(&before, Edge::NodeLost);
            assert_eq!((lost.state, &lost.reason, lost.node), (S::Failed, &Some(Reason::NodeLost), None));
            assert_eq!((lost.generation, lost.known), (2, None), "the old node writes nothing any more");
            assert_eq!(go(&lost, Edge::NodeLost), lost);
            // The disk of its last version must not be started unasked: what was written since would be lost.
            for edge in [Edge::Start, Edge::Retry] {
                assert_eq!(lost.after(&edge, T).expect_err("refused").hint, Some(NEEDS_RECOVER));
            }
            assert_eq!(go(&lost, Edge::Report(&report(&before, Observed::Running))), lost);
            let recovered = go(&lost, Edge::Recover);
            assert_eq!((recovered.state, recovered.wanted, recovered.generation), (S::Pending, Wanted::Running, 2));
            assert!(go(&recovered, Edge::Place(NodeId::generate())).boot > before.boot);
            assert_eq!(go(&lost, Edge::Delete).state, S::Deleted);
        }
        assert!(life.after(&Edge::Recover, T).is_err());
        assert!(told(&life, Observed::Failed).after(&Edge::Recover, T).is_err());
    }

    #[test]
    fn an_instance_that_ended_by_itself_and_is_stopped_is_not_meant_to_run_any_more() {
        let ended = told(&running(), Observed::Stopped);
        assert_eq!((ended.state, ended.wanted), (S::Stopped, Wanted::Running));
        let stop = Stop { force: true, timeout_s: 7 };
        let stopped = go(&ended, Edge::Stop(stop));
        assert_eq!((stopped.state, stopped.wanted, stopped.stop), (S::Stopped, Wanted::Stopped, stop));
        assert_eq!(stopped.last, ended.last);
        assert_eq!(go(&stopped, Edge::Stop(Stop::default())), stopped, "nothing is left to be told");
        // Its node had started it once more before it heard of that.
        assert_eq!(told(&stopped, Observed::Running).state, S::Stopping);
    }

    #[test]
    fn an_instance_that_is_off_gets_other_disks_under_a_new_generation_on_its_node() {
        let running = running();
        assert_eq!(running.after(&Edge::Restore { run: true }, T).expect_err("it runs").allowed, [S::Stopped]);
        let stopped = told(&go(&running, Edge::Stop(Stop::default())), Observed::Stopped);
        let again = go(&stopped, Edge::Restore { run: true });
        assert_eq!((again.state, again.node, again.generation), (S::Starting, running.node, running.generation + 1));
        assert!(again.boot > stopped.boot);
        assert_eq!(
            go(&again, Edge::Report(&report(&stopped, Observed::Stopped))),
            again,
            "it is of the content before"
        );
        assert!(told(&again, Observed::Running).is_ready());
        // One that ended by itself is not started by it.
        for off in [stopped, told(&running, Observed::Stopped)] {
            let stays = go(&off, Edge::Restore { run: false });
            assert_eq!(
                (stays.state, stays.wanted, stays.generation),
                (S::Stopping, Wanted::Stopped, off.generation + 1)
            );
            assert_eq!(told(&stays, Observed::Stopped).state, S::Stopped);
        }
    }

    #[test]
    fn what_a_dead_node_had_to_delete_is_deleted() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        assert_eq!(go(&go(&placed, Edge::Delete), Edge::NodeLost).state, S::Deleted);
        let evicted = go(&go(&told(&placed, Observed::Failed), Edge::Retry), Edge::NodeLost);
        assert_eq!((evicted.state, evicted.node, evicted.generation), (S::Pending, None, 2));
    }

    #[test]
    fn an_instance_that_never_started_on_a_dead_node_loses_nothing_and_may_be_retried() {
        let placed = go(&Life::new(T), Edge::Place(NodeId::generate()));
        let lost = go(&placed, Edge::NodeLost);
        assert!(lost.is_node_lost() && !lost.may_lose_data());
        assert_eq!(go(&lost, Edge::Retry).state, S::Pending);
    }

    fn observed() -> impl Strategy<Value = Observed> {
        prop::sample::select(vec![
            Observed::Preparing,
            Observed::Running,
            Observed::Paused,
            Observed::Stopping,
            Observed::Stopped,
            Observed::Failed,
            Observed::Gone,
        ])
    }

    #[derive(Clone, Debug)]
    enum Act {
        Place,
        NoPlace,
        Start,
        Stop,
        Reboot,
        Retry,
        Delete,
        Silent,
        Heard,
        Overdue,
        OverdueStop,
        Missing,
        NodeLost,
        Recover,
        Restore(bool),
        Report(Observed),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => Just(Act::Place), 1 => Just(Act::NoPlace), 2 => Just(Act::Start), 2 => Just(Act::Stop),
            1 => Just(Act::Reboot), 2 => Just(Act::Retry), 1 => Just(Act::Delete), 1 => Just(Act::Silent),
            1 => Just(Act::Heard), 1 => Just(Act::Overdue), 1 => Just(Act::Missing),
            1 => Just(Act::OverdueStop), 1 => Just(Act::NodeLost), 2 => Just(Act::Recover),
            2 => any::<bool>().prop_map(Act::Restore),
            8 => observed().prop_map(Act::Report),
        ]
    }

    proptest! {
        #[test]
        fn no_edge_breaks_the_rules_of_an_instance(acts in prop::collection::vec(act(), 0..60)) {
            let mut life = Life::new(T);
            for act in acts {
                let before = life.clone();
                let report = |state| report(&before, state);
                let got = match act {
                    Act::Place => life.after(&Edge::Place(NodeId::generate()), T),
                    Act::NoPlace => life.after(&Edge::NoPlace("full"), T),
                    Act::Start => life.after(&Edge::Start, T),
                    Act::Stop => life.after(&Edge::Stop(Stop::default()), T),
                    Act::Reboot => life.after(&Edge::Reboot(Stop::default()), T),
                    Act::Retry => life.after(&Edge::Retry, T),
                    Act::Delete => life.after(&Edge::Delete, T),
                    Act::Silent => life.after(&Edge::Silent, T),
                    Act::Heard => life.after(&Edge::Heard, T),
                    Act::Overdue => life.after(&Edge::Overdue("late", OnReadyTimeout::Keep), T),
                    Act::OverdueStop => life.after(&Edge::Overdue("late", OnReadyTimeout::Stop), T),
                    Act::Missing => life.after(&Edge::Missing, T),
                    Act::NodeLost => life.after(&Edge::NodeLost, T),
                    Act::Recover => life.after(&Edge::Recover, T),
                    Act::Restore(run) => life.after(&Edge::Restore { run }, T),
                    Act::Report(state) => {
                        let report = report(state);
                        let once = life.after(&Edge::Report(&report), T);
                        if let Ok(once) = &once {
                            prop_assert_eq!(&once.after(&Edge::Report(&report), T), &Ok(once.clone()), "a repeated report changes nothing");
                        }
                        once
                    }
                };
                let Ok(next) = got else { continue };
                // I8: it gets another node only with a higher generation, and never goes from one node to another in
                // one step.
                if let (Some(a), Some(b)) = (before.node, next.node) {
                    prop_assert_eq!(a, b);
                }
                if before.node.is_some() && next.node.is_none() {
                    prop_assert!(next.generation > before.generation || next.state == S::Deleted);
                }
                prop_assert!(next.generation >= before.generation && next.boot >= before.boot);
                // A deleted instance stays deleted; one that is being deleted becomes nothing else.
                if before.state == S::Deleted {
                    prop_assert_eq!(next.state, S::Deleted);
                }
                if before.state == S::Deleting {
                    prop_assert!(matches!(next.state, S::Deleting | S::Deleted));
                }
                prop_assert_eq!(next.known.is_some(), next.state == S::Unknown);
                if next.is_ready() {
                    prop_assert!(next.was_ready && next.node.is_some() && next.wanted == Wanted::Running);
                }
                if matches!(next.state, S::Starting | S::Running | S::Paused | S::Stopping | S::Stopped | S::Deleting) {
                    prop_assert!(next.node.is_some());
                }
                life = next;
            }
        }
    }
}
