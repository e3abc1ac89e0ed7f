//! Which disks a guest is to have, and what is done about the difference. Pure.
//!
//! ```text
//!  attached (in_guest):      the disk is here, the guest runs and lacks it    --> Plug
//!  grown:                    the guest has it and was told a smaller size     --> Resize
//!  detaching (not in_guest): the guest runs and has it                        --> Unplug, asked again until it lets go
//!  left (left_disks):        no guest has it                                  --> RemoveDisk, unless it holds unsaved bytes
//! ```
//!
//! A guest that does not run gets at its next start exactly what it is to have, so nothing is done for it here. The boot disk
//! and the variables of the firmware are never plugged or unplugged. With runtime `none` a disk is a file: it is mounted while
//! it is `in_guest`, and what still has it open gets errors afterwards (`DiskWant::served`).
//!
//! Nothing here ends a guest, and a disk that fails keeps no other from its turn: each has a wait and a trouble of its own
//! ([`Work`]).

use std::collections::BTreeMap;

use muster_api::{
    DiskId, Reason, Timestamp,
    deployment::Runtime,
    node_protocol::{Assignment, DiskAssignment, NVRAM, Wanted},
};

use super::{
    plan::{Action, DiskSeen, DomainSeen, Here, Phase, Seen},
    report::Trouble,
};
use crate::hypervisor::{Domain, DomainState};

/// Time after which a guest that has not let go of a disk is asked again, and its instance says so.
const UNPLUG_AGAIN_MS: i64 = 30_000;

/// What this process did and heard about one disk of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Since when the guest has been asked to let go of it, and when last.
    pub asked: Option<(Timestamp, Timestamp)>,
    /// The size that the guest knows of, bytes; `None` if that is not certain.
    pub told_bytes: Option<u64>,
    /// Something failed, and nothing is tried before this time.
    pub retry_at: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// What failed last.
    pub trouble: Option<Trouble>,
}

/// The disks that the guest is to have, as devices.
pub fn of_guest(assignment: &Assignment) -> impl Iterator<Item = &DiskAssignment> {
    devices(assignment).filter(|(is_boot, disk)| *is_boot || disk.in_guest).map(|(_, disk)| disk)
}

/// The disks that can be devices of the guest, and whether each is the boot disk.
fn devices(assignment: &Assignment) -> impl Iterator<Item = (bool, &DiskAssignment)> {
    assignment.disks.iter().enumerate().map(|(n, disk)| (n == 0, disk)).filter(|(_, disk)| disk.name != NVRAM)
}

/// Whether the file of a disk is mounted: the guest uses it or may, or it is the guest's that is to let go of it.
#[must_use]
pub fn is_served(assignment: &Assignment, disk: &DiskAssignment) -> bool {
    assignment.runtime == Runtime::Libvirt || disk.in_guest
}

/// What to do about the disks of a guest, beside what its plan says.
#[must_use]
pub fn plan(assignment: &Assignment, seen: &Seen, here: &Here) -> Vec<Action> {
    let mut actions = Vec::new();
    let due = |disk: DiskId| seen.work.get(&disk).and_then(|work| work.retry_at).is_none_or(|at| at <= here.now);
    if let Some(domain) = running(assignment, seen, here) {
        let wanted = devices(assignment).filter_map(|(is_boot, want)| difference(want, is_boot, domain, seen, here));
        // The controller counts these as gone, and the guest has them all the same.
        let left = assignment.left_disks.iter().filter_map(|disk| unplug(*disk, domain, seen, here));
        actions.extend(wanted.chain(left).filter(|action| action.disk().is_some_and(due)));
    }
    let left = seen.disks.iter().filter(|disk| has_left(assignment, disk) && has_no_guest(disk.disk, seen));
    actions.extend(left.filter(|disk| due(disk.disk)).map(|disk| Action::RemoveDisk(disk.disk)));
    actions
}

/// The domain, if its guest runs and is the one that the assignment is about.
fn running<'a>(assignment: &Assignment, seen: &'a Seen, here: &Here) -> Option<&'a Domain> {
    let DomainSeen::Present(domain) = &seen.domain else { return None };
    let is_this =
        domain.run == here.run && (domain.generation, domain.boot) == (assignment.generation, assignment.boot);
    let is_started = seen.life.as_ref().is_some_and(|life| {
        life.is_of(assignment) && matches!(life.phase, Phase::Started { .. }) && life.started_at.is_some()
    });
    let runs = domain.state == DomainState::Running && assignment.wanted == Wanted::Running;
    (is_this && is_started && runs).then_some(domain)
}

fn difference(want: &DiskAssignment, is_boot: bool, domain: &Domain, seen: &Seen, here: &Here) -> Option<Action> {
    let disk = want.disk;
    let is_plugged = domain.disks.contains(&disk);
    if !want.in_guest && !is_boot {
        return unplug(disk, domain, seen, here);
    }
    let found = seen.disks.iter().find(|found| found.disk == disk && found.mounted && found.current)?;
    if found.generation != domain.generation {
        return None;
    }
    let told_bytes = seen.work.get(&disk).and_then(|work| work.told_bytes);
    if !is_plugged {
        return (!is_boot).then_some(Action::Plug(disk));
    }
    told_bytes.is_none_or(|told| told < found.size_bytes).then_some(Action::Resize(disk, found.size_bytes))
}

fn unplug(disk: DiskId, domain: &Domain, seen: &Seen, here: &Here) -> Option<Action> {
    let last = seen.work.get(&disk).and_then(|work| work.asked).map(|(_, last)| last);
    let is_due = last.is_none_or(|last| here.now.ms_since(last) >= UNPLUG_AGAIN_MS);
    (domain.disks.contains(&disk) && is_due).then_some(Action::Unplug(disk))
}

/// Whether a disk that is here left the instance. One of a newer generation was attached again since (I8).
fn has_left(assignment: &Assignment, disk: &DiskSeen) -> bool {
    let is_named = assignment.disks.iter().any(|named| named.disk == disk.disk);
    assignment.left_disks.contains(&disk.disk) && !is_named && disk.generation <= assignment.generation
}

/// Whether it is certain that no guest has a disk or is about to get it.
fn has_no_guest(disk: DiskId, seen: &Seen) -> bool {
    let has = match &seen.domain {
        DomainSeen::Unknown => true,
        DomainSeen::Absent { .. } => false,
        DomainSeen::Present(domain) => domain.disks.contains(&disk),
    };
    !has && !seen.may_get.contains(&disk)
}

/// Whether a guest has a disk or may get it, for the report of it.
#[must_use]
pub fn is_in_guest(assignment: &Assignment, seen: &Seen, disk: DiskId) -> bool {
    let wanted = assignment.disks.iter().enumerate().find(|(_, want)| want.disk == disk);
    let is_taken = match wanted {
        Some((n, want)) => n > 0 && !want.in_guest,
        None => assignment.left_disks.contains(&disk),
    };
    if !is_taken {
        return true;
    }
    match assignment.runtime {
        Runtime::Libvirt => !has_no_guest(disk, seen),
        Runtime::None => {
            let is_reachable = seen.disks.iter().any(|found| found.disk == disk && found.reachable);
            is_reachable || seen.may_get.contains(&disk)
        }
    }
}

/// What people should know about the disks of an instance, if there is something.
#[must_use]
pub fn trouble(assignment: &Assignment, seen: &Seen, here: &Here) -> Option<Trouble> {
    let name = |disk: DiskId| {
        let named = assignment.disks.iter().find(|named| named.disk == disk);
        named.map_or_else(|| disk.to_string(), |named| format!("'{}'", named.name))
    };
    seen.work.iter().find_map(|(disk, work)| {
        if let Some(trouble) = &work.trouble {
            let detail = format!("disk {}: {}", name(*disk), trouble.detail);
            return Some(Trouble { reason: trouble.reason.clone(), detail });
        }
        let (since, _) = work.asked.filter(|(since, _)| here.now.ms_since(*since) >= UNPLUG_AGAIN_MS)?;
        let detail = format!(
            "the guest was asked to let go of disk {} at {since} and has not yet: unmount it there, or stop the instance; it is \
             asked again",
            name(*disk)
        );
        Some(Trouble { reason: Reason::Busy, detail })
    })
}

/// Forgets what does not count any more: about disks that are gone, and what was asked of a guest that has done it. Nothing
/// is concluded about disks that the guest may have got since its domain was looked at.
pub fn tidy(
    work: &mut BTreeMap<DiskId, Work>,
    assignment: &Assignment,
    domain: &DomainSeen,
    may_get: impl Fn(DiskId) -> bool,
) {
    let is_named = |disk: &DiskId| {
        assignment.disks.iter().any(|named| named.disk == *disk) || assignment.left_disks.contains(disk)
    };
    work.retain(|disk, _| is_named(disk));
    let plugged: &[DiskId] = match domain {
        DomainSeen::Unknown => return,
        DomainSeen::Absent { .. } => &[],
        DomainSeen::Present(domain) => &domain.disks,
    };
    for (disk, work) in work.iter_mut().filter(|(disk, _)| !may_get(**disk)) {
        let is_plugged = plugged.contains(disk);
        if !is_plugged || of_guest(assignment).any(|want| want.disk == *disk) {
            work.asked = None;
        }
        if !is_plugged {
            work.told_bytes = None;
        }
    }
}
