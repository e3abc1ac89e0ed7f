//! What is reported about one instance, from the same values that the plan decides by. Pure.

use muster_api::{
    DiskId, Reason,
    condition::Condition,
    deployment::Runtime,
    node_protocol::{AbsentDisk, Assignment, DiskReport, InstanceReport, Observed, Wanted},
};

use super::plan::{DomainSeen, End, Here, Life, Phase, READY_TIMEOUT_S, Seen, files_are_there, is_not_ready};
use crate::hypervisor::{Domain, DomainState, PauseReason};

/// Why the last step for an instance failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason as a stable word, for programs.
    pub reason: Reason,
    /// What went wrong, in a sentence.
    pub detail: String,
}

impl Trouble {
    /// The trouble of a disk of this name, as its instance says it.
    #[must_use]
    pub fn of_disk(self, name: &str) -> Self {
        Self { detail: format!("disk '{name}': {}", self.detail), ..self }
    }
}

/// A state, and why the instance is in it where that needs saying.
struct Said {
    state: Observed,
    why: Option<Trouble>,
}

impl Said {
    const fn plain(state: Observed) -> Self {
        Self { state, why: None }
    }

    fn because(state: Observed, reason: Reason, detail: impl Into<String>) -> Self {
        Self { state, why: Some(Trouble { reason, detail: detail.into() }) }
    }
}

/// The report, without what its guest agent told. `conditions` are what its disks tell people, `disks` the reports of all disks
/// of this instance that are here, `absent` what is said of others.
#[must_use]
pub fn report(
    assignment: &Assignment,
    seen: &Seen,
    here: &Here,
    trouble: Option<&Trouble>,
    conditions: Vec<Condition>,
    (mut disks, absent): (Vec<DiskReport>, Vec<AbsentDisk>),
) -> InstanceReport {
    let life = seen.life.as_ref().filter(|life| life.is_of(assignment));
    let Said { state, why } = said(assignment, seen, here, life, trouble);
    let (reason, detail) = why.map(|Trouble { reason, detail }| (reason, detail)).unzip();
    // In the assignment's order; disks that are no longer assigned come last.
    let order = |disk: DiskId| assignment.disks.iter().position(|d| d.disk == disk).unwrap_or(usize::MAX);
    disks.sort_by_key(|disk| order(disk.disk));
    InstanceReport {
        instance: assignment.instance,
        generation: seen.life.as_ref().map_or(assignment.generation, |l| l.generation.max(assignment.generation)),
        // A higher number than the assignment's shows the controller that its database is an older copy.
        boot: seen
            .life
            .as_ref()
            .filter(|l| l.generation >= assignment.generation)
            .map_or(assignment.boot, |l| l.boot.max(assignment.boot)),
        state,
        reason,
        detail,
        disk_at: life.and_then(|life| life.disk_at),
        started_at: life.and_then(|life| life.started_at),
        ready_at: life.and_then(|life| life.ready_at),
        reboots: if life.is_some() { seen.reboots } else { 0 },
        conditions,
        disks,
        absent,
        guest: None,
        found: None,
    }
}

fn said(assignment: &Assignment, seen: &Seen, here: &Here, life: Option<&Life>, trouble: Option<&Trouble>) -> Said {
    let troubled = |state: Observed| Said { state, why: trouble.cloned() };
    let phase = life.map(|life| &life.phase);
    match (&seen.domain, assignment.wanted) {
        (DomainSeen::Absent { .. }, Wanted::Gone) if seen.disks.is_empty() && !seen.traces => {
            Said::plain(Observed::Gone)
        }
        (DomainSeen::Present(_) | DomainSeen::Absent { .. }, Wanted::Gone) => troubled(Observed::Stopping),
        (DomainSeen::Present(domain), _) => present(assignment, domain, here, life, troubled),
        (DomainSeen::Absent { .. }, Wanted::Stopped) => match phase {
            Some(Phase::Ended(End::PowerCut)) if trouble.is_none() => ended(&End::PowerCut),
            Some(Phase::Ended(_)) => troubled(Observed::Stopped),
            _ => troubled(Observed::Stopping),
        },
        (DomainSeen::Absent { .. }, Wanted::Running) => match phase {
            None | Some(Phase::New) => troubled(Observed::Preparing),
            Some(Phase::Started { .. }) if assignment.runtime == Runtime::None => {
                let there = files_are_there(assignment, seen);
                troubled(if there { Observed::Running } else { Observed::Preparing })
            }
            // The domain went away a moment ago, and how it ended is not known yet.
            Some(Phase::Started { .. }) => Said::plain(Observed::Stopping),
            Some(Phase::Ended(end)) => ended(end),
        },
        (DomainSeen::Unknown, wanted) => silent(wanted, phase),
    }
}

/// An instance whose domain is there.
fn present(
    assignment: &Assignment,
    domain: &Domain,
    here: &Here,
    life: Option<&Life>,
    troubled: impl Fn(Observed) -> Said,
) -> Said {
    let is_another = domain.run != here.run || domain.generation != assignment.generation;
    if is_another || assignment.wanted == Wanted::Stopped || domain.boot < assignment.boot {
        return troubled(Observed::Stopping);
    }
    match &domain.state {
        DomainState::Paused(PauseReason::DiskFull) => Said::because(
            Observed::Paused,
            Reason::DiskFull,
            "this node has no space for what it writes; it goes on when there is some",
        ),
        DomainState::Paused(PauseReason::DiskError) => {
            Said::because(Observed::Paused, Reason::DiskError, "a request to its disk failed; it is tried again")
        }
        // Whose clock it is names nodes, which are for operators: the condition of this node says it.
        DomainState::Paused(PauseReason::ClockOff) => Said::because(
            Observed::Paused,
            Reason::ClockOff,
            "other nodes have bytes of its disk and cannot be asked, because a clock is wrong; it goes on when that is mended",
        ),
        // Its cards are being put into their networks.
        DomainState::Paused(PauseReason::Other(_)) if life.is_some_and(|life| life.started_at.is_none()) => {
            troubled(Observed::Preparing)
        }
        DomainState::Paused(PauseReason::Other(why)) => {
            Said::because(Observed::Paused, Reason::Paused, format!("paused on the node: {why}"))
        }
        DomainState::Stopping => Said::plain(Observed::Stopping),
        DomainState::Running => match life.map(|life| (life, &life.phase)) {
            Some((_, Phase::Ended(end))) => ended(end),
            Some((life, Phase::Started { .. })) => {
                let said = troubled(Observed::Running);
                if said.why.is_none() && is_not_ready(assignment, life, here.now) {
                    return not_ready(assignment);
                }
                said
            }
            Some((_, Phase::New)) | None => Said::plain(Observed::Preparing),
        },
    }
}

/// A guest that runs and was not ready in time.
fn not_ready(assignment: &Assignment) -> Said {
    let limit_s = assignment.ready.timeout_s.unwrap_or(READY_TIMEOUT_S);
    let detail = format!("it runs, and was not ready within {limit_s} s of its start; it is asked on");
    Said::because(Observed::Running, Reason::NotReady, detail)
}

/// An instance whose hypervisor does not answer: the last known state.
fn silent(wanted: Wanted, phase: Option<&Phase>) -> Said {
    let state = match (wanted, phase) {
        (Wanted::Running, Some(Phase::Ended(end))) => return ended(end),
        (Wanted::Running, Some(Phase::Started { .. })) => Observed::Running,
        (Wanted::Running, Some(Phase::New) | None) => Observed::Preparing,
        (Wanted::Stopped | Wanted::Gone, _) => Observed::Stopping,
    };
    Said::because(state, Reason::HypervisorSilent, "the hypervisor does not answer")
}

fn ended(end: &End) -> Said {
    match end {
        End::Stopped => Said::plain(Observed::Stopped),
        End::PowerCut => Said::because(
            Observed::Stopped,
            Reason::PowerCut,
            "its power was cut: it did not turn itself off in time, or was not to be asked",
        ),
        End::GuestEnded => Said::because(Observed::Stopped, Reason::GuestEnded, "the guest turned itself off"),
        End::Destroyed => Said::because(
            Observed::Stopped,
            Reason::PowerCut,
            "somebody cut its power on its node, for example with virsh destroy",
        ),
        End::Unseen => Said::because(
            Observed::Stopped,
            Reason::GuestEnded,
            "it ended while libvirt told nobody how: the guest turned itself off, or its power was cut",
        ),
        End::GuestCrashed => {
            Said::because(Observed::Failed, Reason::GuestCrashed, "the guest panicked, or its QEMU process died")
        }
        End::DiskLost => Said::because(
            Observed::Failed,
            Reason::DiskLost,
            "the agent ended and its disk went away; start it again, nothing it flushed is missing",
        ),
        End::NotReady => Said::because(Observed::Failed, Reason::NotReadyInTime, "it ran, but was not ready in time"),
        End::StartFailed { detail } => Said::because(Observed::Failed, Reason::StartFailed, detail.clone()),
        End::HostRestarted => Said::because(
            Observed::Stopped,
            Reason::HostRestarted,
            "its host was restarted, and its deployment says that it stays off then; start it again when you want it",
        ),
        End::AgentStopped => Said::because(
            Observed::Stopped,
            Reason::AgentStopped,
            "its node's agent was stopped; it is started again with it",
        ),
    }
}
