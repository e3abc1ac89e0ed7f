//! What is said about one instance: the same values the plan decided by. Pure.

use muster_api::{
    DiskId,
    deployment::Runtime,
    node_protocol::{Assignment, DiskReport, InstanceReport, Observed, Wanted},
};

use super::plan::{DomainSeen, End, Here, Life, Phase, Seen, disks_are_there};
use crate::hypervisor::{DomainState, PauseReason};

/// Why the last step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A stable word.
    pub reason: &'static str,
    /// For people.
    pub detail: String,
}

type Said = (Observed, Option<&'static str>, Option<String>);

/// The report; `disks` are the parts that are known about them.
#[must_use]
pub fn report(
    assignment: &Assignment,
    seen: &Seen,
    here: &Here,
    trouble: Option<&Trouble>,
    mut disks: Vec<DiskReport>,
) -> InstanceReport {
    let life = seen.life.as_ref().filter(|life| life.is_of(assignment));
    let (state, reason, detail) = said(assignment, seen, here, life, trouble);
    let order = |disk: DiskId| assignment.disks.iter().position(|d| d.disk == disk).unwrap_or(usize::MAX);
    disks.sort_by_key(|disk| order(disk.disk));
    InstanceReport {
        instance: assignment.instance,
        generation: seen.life.as_ref().map_or(assignment.generation, |l| l.generation.max(assignment.generation)),
        boot: assignment.boot,
        state,
        reason: reason.map(str::to_owned),
        detail,
        disk_at: life.and_then(|life| life.disk_at),
        started_at: life.and_then(|life| life.started_at),
        ready_at: life.and_then(|life| life.ready_at),
        disks,
    }
}

fn said(assignment: &Assignment, seen: &Seen, here: &Here, life: Option<&Life>, trouble: Option<&Trouble>) -> Said {
    let troubled = |state: Observed| -> Said {
        match trouble {
            Some(trouble) => (state, Some(trouble.reason), Some(trouble.detail.clone())),
            None => (state, None, None),
        }
    };
    match (&seen.domain, assignment.wanted) {
        (DomainSeen::Absent { .. }, Wanted::Gone) if seen.disks.is_empty() && !seen.traces => {
            (Observed::Gone, None, None)
        }
        (DomainSeen::Present(_) | DomainSeen::Absent { .. }, Wanted::Gone) => troubled(Observed::Stopping),
        (DomainSeen::Present(domain), wanted) => match &domain.state {
            _ if domain.run != here.run || domain.generation != assignment.generation => troubled(Observed::Stopping),
            _ if wanted == Wanted::Stopped || domain.boot < assignment.boot => troubled(Observed::Stopping),
            DomainState::Paused(PauseReason::DiskFull) => (
                Observed::Paused,
                Some("disk_full"),
                Some("this node has no space for what it writes; it goes on when there is some".to_owned()),
            ),
            DomainState::Paused(PauseReason::DiskError) => (
                Observed::Paused,
                Some("disk_error"),
                Some("a request to its disk failed; it is tried again".to_owned()),
            ),
            DomainState::Paused(PauseReason::Other(why)) => {
                (Observed::Paused, Some("paused"), Some(format!("paused on the node: {why}")))
            }
            DomainState::Stopping => (Observed::Stopping, None, None),
            DomainState::Running => match life.map(|life| &life.phase) {
                Some(Phase::Ended(end)) => ended(end),
                Some(Phase::Started { .. }) => troubled(Observed::Running),
                Some(Phase::New) | None => (Observed::Preparing, None, None),
            },
        },
        (DomainSeen::Absent { .. }, Wanted::Stopped) => match life.map(|life| &life.phase) {
            Some(Phase::Ended(_)) => troubled(Observed::Stopped),
            _ => troubled(Observed::Stopping),
        },
        (DomainSeen::Absent { .. }, Wanted::Running) => match life.map(|life| &life.phase) {
            None | Some(Phase::New) => troubled(Observed::Preparing),
            Some(Phase::Started { .. }) if assignment.runtime == Runtime::None => {
                if disks_are_there(assignment, seen) {
                    troubled(Observed::Running)
                } else {
                    troubled(Observed::Preparing)
                }
            }
            // Gone a moment ago; how is being found out.
            Some(Phase::Started { .. }) => (Observed::Stopping, None, None),
            Some(Phase::Ended(end)) => ended(end),
        },
        (DomainSeen::Unknown, wanted) => {
            let silent = || Some("the hypervisor does not answer".to_owned());
            match life.map(|life| &life.phase) {
                Some(Phase::Ended(end)) if wanted == Wanted::Running => ended(end),
                Some(Phase::Started { .. }) if wanted == Wanted::Running => {
                    (Observed::Running, Some("hypervisor_silent"), silent())
                }
                _ if wanted == Wanted::Running => (Observed::Preparing, Some("hypervisor_silent"), silent()),
                _ => (Observed::Stopping, Some("hypervisor_silent"), silent()),
            }
        }
    }
}

fn ended(end: &End) -> Said {
    let (state, reason, detail) = match end {
        End::Stopped => (Observed::Stopped, None, None),
        End::GuestEnded => (Observed::Stopped, Some("guest_ended"), Some("the guest turned itself off".to_owned())),
        End::GuestCrashed => {
            (Observed::Failed, Some("guest_crashed"), Some("the guest panicked, or its QEMU process died".to_owned()))
        }
        End::DiskLost => (
            Observed::Failed,
            Some("disk_lost"),
            Some("the agent ended and its disk went away; start it again, nothing it flushed is missing".to_owned()),
        ),
        End::NotReady => {
            (Observed::Failed, Some("not_ready_in_time"), Some("it ran, but was not ready in time".to_owned()))
        }
        End::StartFailed { detail } => (Observed::Failed, Some("start_failed"), Some(detail.clone())),
        End::AgentStopped => (
            Observed::Stopped,
            Some("agent_stopped"),
            Some("its node's agent was stopped; it is started again with it".to_owned()),
        ),
    };
    (state, reason, detail)
}
