//! What to do next for one instance: values in, actions out; no clock, no I/O.
//!
//! ```text
//!   Begin --> EnsureDisks --> Start --> Probe* --> (ready)        wanted: running
//!     ^                         |          └ too late, and not to be kept: CutPower(NotReady)
//!     | higher boot             └ domain ended by itself: Note(GuestEnded | Destroyed | GuestCrashed | DiskLost)
//!   AskToStop --(timeout)--> CutPower(PowerCut)                    wanted: stopped, or a higher boot
//!   CutPower --> RemoveDisks --> Forget                            wanted: gone
//! ```
//!
//! What is done about single disks of a guest that runs comes after these steps ([`guest_disks`]).
//!
//! A start ([`Life`]) is begun once per (generation, boot). An instance that has ended is not started again under the
//! same number, except when the agent or the host ended it and not the guest.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DiskId, Timestamp, VersionId,
    deployment::{OnHostStart, OnReadyTimeout, Probe, Runtime},
    node_protocol::{Assignment, DiskAssignment, Wanted},
};
use serde::{Deserialize, Serialize};

use super::guest_disks::{self, Work};
use crate::hypervisor::{Domain, DomainState, Ending, PauseReason, RunId};

/// Time after which a guest that does not turn off is asked again.
const ASK_AGAIN_MS: i64 = 3_000;
/// How long to wait for libvirt to tell how a domain ended: the domain can be gone before that.
const ENDING_GRACE_MS: i64 = 2_000;
/// Time to get ready when the assignment gives none.
pub(super) const READY_TIMEOUT_S: u64 = 300;

/// How long first reads of chunks are recorded after a start, at most.
const BOOT_MS: i64 = 120_000;
/// How long they are recorded after the guest said that it is ready.
const BOOT_AFTER_READY_MS: i64 = 30_000;

/// One start of an instance, as remembered over restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Generation of the assignment that the start belongs to.
    pub generation: u64,
    /// Number of the start, [`Assignment::boot`].
    pub boot: u64,
    /// How far the start came.
    pub phase: Phase,
    /// When the start was first remembered, before anything was done for it.
    #[serde(with = "micros")]
    pub begun_at: Timestamp,
    /// When its disks were there.
    #[serde(with = "micros_option")]
    pub disk_at: Option<Timestamp>,
    /// When the hypervisor had started the guest.
    #[serde(with = "micros_option")]
    pub started_at: Option<Timestamp>,
    /// When the guest was ready; `None` until then.
    #[serde(with = "micros_option")]
    pub ready_at: Option<Timestamp>,
    /// With [`End::AgentStopped`]: the boot of the host in which that was. `None` in records of older agents.
    #[serde(default)]
    pub ended_in: Option<String>,
}

impl End {
    /// Whether the assignment asked for this end, so that it counts whatever was noted before.
    #[must_use]
    pub const fn was_asked_for(&self) -> bool {
        matches!(self, Self::Stopped | Self::PowerCut)
    }

    /// Whether a start that ended in this way may still end in another: its guest was to be started again.
    #[must_use]
    pub const fn is_for_now(&self) -> bool {
        matches!(self, Self::AgentStopped)
    }
}

impl Life {
    /// A start for which nothing was done yet.
    #[must_use]
    pub const fn begin(generation: u64, boot: u64, now: Timestamp) -> Self {
        Self {
            generation,
            boot,
            phase: Phase::New,
            begun_at: now,
            disk_at: None,
            started_at: None,
            ready_at: None,
            ended_in: None,
        }
    }

    /// Whether this is the start that the assignment wants.
    #[must_use]
    pub const fn is_of(&self, assignment: &Assignment) -> bool {
        self.generation == assignment.generation && self.boot == assignment.boot
    }
}

/// How far a start came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was started yet: its disks may still be missing.
    New,
    /// The hypervisor was told to run it (runtime none: its disk file was there).
    Started {
        /// The agent process that told it. Another one finds the guest without its disks.
        run: RunId,
        /// In this boot of the host.
        host_boot: String,
    },
    /// It ran and ended, or could not start.
    Ended(End),
}

/// How a start ended. It is remembered, so that the guest is not started again by mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was stopped because its assignment says so.
    Stopped,
    /// As [`End::Stopped`], and its power was cut: it did not turn itself off in time, or was not to be asked.
    PowerCut,
    /// The guest turned itself off.
    GuestEnded,
    /// Somebody else cut its power on this host, for example with `virsh destroy`.
    Destroyed,
    /// It ended while nobody told how.
    Unseen,
    /// The guest panicked, or QEMU died.
    GuestCrashed,
    /// Its disk went away under it: the agent was killed.
    DiskLost,
    /// Not ready before its time was over.
    NotReady,
    /// The hypervisor or a disk refused.
    StartFailed {
        /// The error message of the hypervisor or the disk.
        detail: String,
    },
    /// The agent was told to end and took its guests along; they are started again with it.
    AgentStopped,
    /// The host was restarted, and the assignment says that its guest stays off then.
    HostRestarted,
}

/// The process that looks, and when.
#[derive(Clone, Debug)]
pub struct Here {
    /// Id of this agent process.
    pub run: RunId,
    /// This boot of the host.
    pub host_boot: String,
    /// The time of the plan.
    pub now: Timestamp,
}

/// What is true about one instance.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The start that is remembered, if there is one.
    pub life: Option<Life>,
    /// All its disks that are here.
    pub disks: Vec<DiskSeen>,
    /// The domain, as the hypervisor lists it now.
    pub domain: DomainSeen,
    /// How often its guest has restarted itself in this start.
    pub reboots: u64,
    /// Whether there are a record or a console log to forget.
    pub traces: bool,
    /// Since when it has been asked to stop, and when last.
    pub asked: Option<(Timestamp, Timestamp)>,
    /// Something failed, and nothing is tried before this time.
    pub retry_at: Option<Timestamp>,
    /// Set when the start was refused for good: what the hypervisor said.
    pub refused: Option<String>,
    /// What was done about single disks.
    pub work: BTreeMap<DiskId, Work>,
    /// Disks that a guest may have got since its domain was looked at, or may still get.
    pub may_get: BTreeSet<DiskId>,
}

/// One disk that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSeen {
    /// The disk that the action is about.
    pub disk: DiskId,
    /// Generation it is written under.
    pub generation: u64,
    /// The newest published version that it knows of.
    pub version: VersionId,
    /// Whether its file is there.
    pub mounted: bool,
    /// Whether programs may be able to write to its file.
    pub reachable: bool,
    /// Its size on this node, bytes.
    pub size_bytes: u64,
}

/// What is known of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainSeen {
    /// The hypervisor did not answer, so nothing may be concluded.
    Unknown,
    /// The hypervisor answered, and there is no such domain.
    Absent {
        /// How it ended, if this process saw that.
        ending: Option<Ending>,
        /// Since when it has been missed.
        since: Timestamp,
    },
    /// The hypervisor lists it.
    Present(Domain),
}

/// One step. Each can be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remember a new start, before anything is done for it.
    Begin,
    /// Make, adopt, mount and grow its disks. What fails is noted at each, and nothing is started after it unless all are here.
    EnsureDisks,
    /// Start the domain. It fails if a domain of another start exists.
    Start,
    /// Find out whether it is ready.
    Probe,
    /// Resume a guest that is paused because its disk was full or failed a request.
    Resume,
    /// Ask the guest to turn itself off.
    AskToStop,
    /// Cut the power, and remember how the start ended.
    CutPower(End),
    /// Remember how the start ended.
    Note(End),
    /// Give the guest that runs a disk.
    Plug(DiskId),
    /// Ask the guest that runs to let go of a disk.
    Unplug(DiskId),
    /// Tell the guest that runs the new size of a disk, bytes.
    Resize(DiskId, u64),
    /// Remove a disk that left the instance, unless it holds what its version lacks.
    RemoveDisk(DiskId),
    /// Unmount and remove its disks.
    RemoveDisks,
    /// Remove its record, its console log and its seed disk.
    Forget,
}

impl Action {
    /// The disk that the action is about, if it is about one. When it fails, the others are done all the same.
    #[must_use]
    pub const fn disk(&self) -> Option<DiskId> {
        match self {
            Self::Plug(disk) | Self::Unplug(disk) | Self::Resize(disk, _) | Self::RemoveDisk(disk) => Some(*disk),
            _ => None,
        }
    }
}

/// What to do now, in this order, until a step fails. Empty when there is nothing to do yet.
#[must_use]
pub fn plan(assignment: &Assignment, seen: &Seen, here: &Here) -> Vec<Action> {
    // I8: the controller sent this assignment before it knew of the newer generation that is here.
    if seen.life.as_ref().is_some_and(|life| life.generation > assignment.generation) {
        return Vec::new();
    }
    let mut actions = main_steps(assignment, seen, here);
    let ends = |action: &Action| matches!(action, Action::AskToStop | Action::CutPower(_));
    if assignment.wanted != Wanted::Gone && !actions.iter().any(ends) {
        actions.extend(guest_disks::plan(assignment, seen, here));
    }
    actions
}

/// The steps by which an instance comes, runs and goes.
fn main_steps(assignment: &Assignment, seen: &Seen, here: &Here) -> Vec<Action> {
    let waits = seen.retry_at.is_some_and(|at| at > here.now);
    match (&seen.domain, assignment.wanted) {
        (DomainSeen::Unknown, _) => Vec::new(),
        (DomainSeen::Present(_), Wanted::Gone) if waits => Vec::new(),
        // Its power is cut at once: what the guest did not publish is given up anyway.
        (DomainSeen::Present(_), Wanted::Gone) => {
            vec![Action::CutPower(End::Stopped), Action::RemoveDisks, Action::Forget]
        }
        (DomainSeen::Absent { .. }, Wanted::Gone) => gone(seen, waits),
        (DomainSeen::Present(domain), _) => present(assignment, seen, here, domain, waits),
        (DomainSeen::Absent { ending, since }, Wanted::Running) => match assignment.runtime {
            Runtime::Libvirt => absent_but_wanted(assignment, seen, here, (*ending, *since), waits),
            Runtime::None => file_wanted(assignment, seen, here, waits),
        },
        (DomainSeen::Absent { .. }, Wanted::Stopped) => absent_as_wanted(assignment, seen, here, waits),
    }
}

fn gone(seen: &Seen, waits: bool) -> Vec<Action> {
    match (waits, seen.disks.is_empty(), seen.traces) {
        (true, _, _) | (false, true, false) => Vec::new(),
        // A disk that could not be opened is not among those seen, so that traces alone ask for a removal, too.
        (false, _, _) => vec![Action::RemoveDisks, Action::Forget],
    }
}

fn present(assignment: &Assignment, seen: &Seen, here: &Here, domain: &Domain, waits: bool) -> Vec<Action> {
    // The file it writes to is gone or replaced. It cannot be asked to turn off, because it hangs on dead disks.
    if domain.run != here.run {
        return if waits { Vec::new() } else { vec![Action::CutPower(End::DiskLost)] };
    }
    // I8: it must be off before the newer generation adopts its disks.
    if domain.generation != assignment.generation {
        return if waits { Vec::new() } else { vec![Action::CutPower(End::Stopped)] };
    }
    let life = seen.life.as_ref().filter(|life| life.is_of(assignment));
    match assignment.wanted {
        Wanted::Running if domain.boot == assignment.boot => match life.map(|life| &life.phase) {
            _ if waits => Vec::new(),
            // Its record was lost, or the call that started it was given up. Starting it again finds it there.
            None => vec![Action::Begin, Action::Start],
            Some(Phase::New) => vec![Action::Start],
            // It was given up and is still there: the power cut did not work.
            Some(Phase::Ended(end)) => vec![Action::CutPower(end.clone())],
            Some(Phase::Started { .. }) => life.map_or_else(Vec::new, |l| running(assignment, seen, here, domain, l)),
        },
        // The assignment is older than this start and changes nothing.
        Wanted::Running if domain.boot > assignment.boot => Vec::new(),
        Wanted::Running | Wanted::Stopped | Wanted::Gone => stop(assignment, seen, here, domain),
    }
}

fn running(assignment: &Assignment, seen: &Seen, here: &Here, domain: &Domain, life: &Life) -> Vec<Action> {
    match &domain.state {
        DomainState::Paused(PauseReason::DiskFull | PauseReason::DiskError) => vec![Action::Resume],
        // A clock that is off: resumed, it would fail once more, and it does not fail any more once the clock is right.
        DomainState::Paused(_) | DomainState::Stopping => Vec::new(),
        DomainState::Running => {
            let mut actions = Vec::new();
            if life.ready_at.is_none() {
                if assignment.on_ready_timeout == OnReadyTimeout::Stop && is_not_ready(assignment, life, here.now) {
                    return vec![Action::CutPower(End::NotReady)];
                }
                // It may be healthy and slow: it runs on, and is asked on.
                actions.push(Action::Probe);
            }
            // Last: a disk that cannot be made keeps no guest from being ready.
            actions.extend(ensure(assignment, seen, here));
            actions
        }
    }
}

/// Whether a guest that runs was not ready in time.
pub(super) fn is_not_ready(assignment: &Assignment, life: &Life, now: Timestamp) -> bool {
    life.ready_at.is_none() && is_late(assignment, life.started_at.unwrap_or(life.begun_at), now)
}

/// Whether a start still counts as a boot, so that its first reads of chunks are recorded.
pub(super) fn is_booting(assignment: &Assignment, seen: &Seen, boot: u64, now: Timestamp) -> bool {
    let life = seen.life.as_ref().filter(|life| life.is_of(assignment) && life.boot == boot);
    let Some(life) = life.filter(|life| !matches!(life.phase, Phase::Ended(_))) else { return false };
    let is_over = |since: Option<Timestamp>, limit_ms| since.is_some_and(|at| now.ms_since(at) >= limit_ms);
    // A guest that is ready as soon as it runs has not booted by then.
    let ready_at = life.ready_at.filter(|_| assignment.ready.probe != Probe::Running);
    assignment.wanted == Wanted::Running
        && !is_over(life.started_at, BOOT_MS)
        && !is_over(ready_at, BOOT_AFTER_READY_MS)
}

fn is_late(assignment: &Assignment, since: Timestamp, now: Timestamp) -> bool {
    let limit_s = assignment.ready.timeout_s.unwrap_or(READY_TIMEOUT_S);
    now.ms_since(since) >= ms(limit_s)
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}

fn stop(assignment: &Assignment, seen: &Seen, here: &Here, domain: &Domain) -> Vec<Action> {
    let waits = seen.retry_at.is_some_and(|at| at > here.now);
    let is_over = |since: Timestamp| here.now.ms_since(since) >= ms(assignment.stop_timeout_s);
    match seen.asked {
        asked if assignment.stop_force || asked.is_some_and(|(since, _)| is_over(since)) => {
            if waits {
                Vec::new()
            } else {
                vec![Action::CutPower(End::PowerCut)]
            }
        }
        None => vec![Action::AskToStop],
        Some((_, last)) if here.now.ms_since(last) >= ASK_AGAIN_MS && domain.state == DomainState::Running => {
            vec![Action::AskToStop]
        }
        Some(_) => Vec::new(),
    }
}

fn absent_but_wanted(
    assignment: &Assignment,
    seen: &Seen,
    here: &Here,
    (ending, since): (Option<Ending>, Timestamp),
    waits: bool,
) -> Vec<Action> {
    let Some(life) = seen.life.as_ref().filter(|life| life.is_of(assignment)) else { return anew() };
    match &life.phase {
        Phase::New => {
            if let Some(detail) = &seen.refused {
                return vec![Action::Note(End::StartFailed { detail: detail.clone() })];
            }
            if is_late(assignment, life.begun_at, here.now) {
                let why = guest_disks::trouble(assignment, seen, here).map(|trouble| format!(": {}", trouble.detail));
                let detail = format!("it could not be started in time{}", why.unwrap_or_default());
                return vec![Action::Note(End::StartFailed { detail })];
            }
            if waits { Vec::new() } else { vec![Action::EnsureDisks, Action::Start] }
        }
        Phase::Started { run, .. } if *run == here.run => match ending {
            Some(Ending::Shutdown) => vec![Action::Note(End::GuestEnded)],
            Some(Ending::Destroyed) => vec![Action::Note(End::Destroyed)],
            Some(Ending::Crashed) => vec![Action::Note(End::GuestCrashed)],
            None if here.now.ms_since(since) < ENDING_GRACE_MS => Vec::new(),
            None => vec![Action::Note(End::Unseen)],
        },
        // The host went down with it. Nobody asked for that, so it comes back with the host unless it is to stay off.
        Phase::Started { host_boot, .. } if *host_boot != here.host_boot => after_host_start(assignment),
        Phase::Started { .. } => vec![Action::Note(End::DiskLost)],
        Phase::Ended(End::AgentStopped) => match &life.ended_in {
            // The agent was told to end because the host went down.
            Some(host_boot) if *host_boot != here.host_boot => after_host_start(assignment),
            _ => anew(),
        },
        Phase::Ended(_) if waits => Vec::new(),
        Phase::Ended(_) => ensure(assignment, seen, here),
    }
}

fn anew() -> Vec<Action> {
    vec![Action::Begin, Action::EnsureDisks, Action::Start]
}

/// What becomes of a guest that ran when the host went down.
fn after_host_start(assignment: &Assignment) -> Vec<Action> {
    match assignment.on_host_start {
        OnHostStart::Start => anew(),
        OnHostStart::Stay => vec![Action::Note(End::HostRestarted)],
    }
}

fn file_wanted(assignment: &Assignment, seen: &Seen, here: &Here, waits: bool) -> Vec<Action> {
    let Some(life) = seen.life.as_ref().filter(|life| life.is_of(assignment)) else {
        return anew();
    };
    match &life.phase {
        _ if waits => Vec::new(),
        // A file cannot end, so a restarted agent only mounts it again.
        Phase::Started { .. } if life.ready_at.is_some() => ensure(assignment, seen, here),
        Phase::New | Phase::Started { .. } | Phase::Ended(_) => vec![Action::EnsureDisks, Action::Start],
    }
}

fn absent_as_wanted(assignment: &Assignment, seen: &Seen, here: &Here, waits: bool) -> Vec<Action> {
    let mut actions = if waits { Vec::new() } else { ensure(assignment, seen, here) };
    match seen.life.as_ref().filter(|life| life.is_of(assignment)).map(|life| &life.phase) {
        None => actions.insert(0, Action::Begin),
        Some(Phase::New | Phase::Started { .. } | Phase::Ended(End::AgentStopped)) => {
            actions.insert(0, Action::Note(End::Stopped));
        }
        Some(Phase::Ended(_)) => {}
    }
    actions
}

/// Makes what is missing. A disk that failed waits by itself, and the others go on.
fn ensure(assignment: &Assignment, seen: &Seen, here: &Here) -> Vec<Action> {
    let is_due = |want: &DiskAssignment| {
        let is_done = disk_is_there(assignment, want, seen) && disk_is_large(want, seen);
        !is_done && guest_disks::may_be_made(want.disk, seen, here)
    };
    if assignment.disks.iter().any(is_due) { vec![Action::EnsureDisks] } else { Vec::new() }
}

/// Whether a disk is mounted, or not if it is not to be, in the assignment's generation, at its version.
fn disk_is_there(assignment: &Assignment, want: &DiskAssignment, seen: &Seen) -> bool {
    let served = guest_disks::is_served(assignment, want);
    let is_there = |d: &DiskSeen| {
        (if served { d.mounted } else { !d.reachable })
            && d.version == want.version
            && d.generation == assignment.generation
    };
    match seen.disks.iter().find(|d| d.disk == want.disk) {
        Some(found) => is_there(found),
        None => !guest_disks::is_made(assignment, want),
    }
}

/// Whether all disks are there, of an instance whose disks are files that are used: one that was attached since and is not here
/// yet does not take the others away.
pub(super) fn files_are_there(assignment: &Assignment, seen: &Seen) -> bool {
    let is_new = |want: &DiskAssignment| seen.disks.iter().all(|disk| disk.disk != want.disk);
    let has_some = assignment.disks.iter().any(|want| !is_new(want));
    has_some && assignment.disks.iter().all(|want| is_new(want) || disk_is_there(assignment, want, seen))
}

/// Whether a disk has the size that it is to have, if it is here.
fn disk_is_large(want: &DiskAssignment, seen: &Seen) -> bool {
    let found = seen.disks.iter().find(|found| found.disk == want.disk);
    found.is_none_or(|found| want.size_bytes <= found.size_bytes)
}

/// Instants as microseconds since 1970, as in memory.
mod micros {
    use muster_api::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(at.micros())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(input).map(Timestamp::from_micros)
    }
}

mod micros_option {
    use muster_api::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::micros).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(input)?.map(Timestamp::from_micros))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
